"""What goes in and out of the codec, and the one error of a request that cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

__all__ = ["DEPTH_MAX", "Malformed", "WireAnswer", "WireRequest"]

# Deepest nesting of a body. AWS's own models stay below 20; documents (free JSON) go deeper, and DynamoDB allows 32.
DEPTH_MAX: Final = 96


class WireRequest(msgspec.Struct, frozen=True):
    """A request as it came: path and query raw, header names in lower case, several of one name joined by ", "."""

    method: str
    path: bytes = b"/"
    query: bytes = b""
    headers: Mapping[str, str] = {}
    body: bytes = b""


class WireAnswer(msgspec.Struct, frozen=True):
    """What goes back. `body` is bytes or, for a stream, an async iterator of bytes."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | AsyncIterator[bytes]


class Malformed(Exception):
    """The request does not have the form of its protocol: a type is wrong, a text does not end, a number is too large.

    `kind` is "body" for a body that is no JSON, XML, CBOR or form at all, else "value".
    """

    def __init__(self, message: str, kind: str = "value") -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
