"""Cursors: positions that leave the platform signed, and come back as they were or not at all."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final, Literal

import msgspec

from martlet.errors import InvalidInput

__all__ = ["Cursor", "Signer"]

_SIGNATURE: Final = 16  # bytes of HMAC-SHA256
_LONGEST: Final = 8_192


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """`of`: a digest of what was asked; a cursor continues that and nothing else. `at`: the stamp of the state it pages
    through, 0 for the present; of a feed the log's sequence number."""

    kind: Literal["query", "changes"]
    of: bytes
    at: int
    position: bytes = b""
    offset: int = 0


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Cursor).decode


class Signer:
    """Signs with the store's own secret: cursors hold across restarts and nodes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, cursor: Cursor) -> str:
        raw = _ENCODE(cursor)
        return urlsafe_b64encode(self._sign(raw) + raw).decode().rstrip("=")

    def open(self, text: str, kind: str, of: bytes) -> Cursor:
        """Raises `InvalidInput` for a cursor that we did not give, or gave for something else."""
        if len(text) <= _LONGEST and text.isascii():
            try:
                raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
                if urlsafe_b64encode(raw).decode().rstrip("=") != text:
                    raise ValueError("not the one spelling of its bytes")
                sign, body = raw[:_SIGNATURE], raw[_SIGNATURE:]
                if hmac.compare_digest(sign, self._sign(body)):
                    cursor = _DECODE(body)
                    if cursor.kind == kind and cursor.of == of:
                        return cursor
            except (ValueError, msgspec.MsgspecError):
                pass  # all that is wrong with a cursor is one error
        raise InvalidInput("the cursor is not one that was given for this request", field="cursor")

    def _sign(self, raw: bytes) -> bytes:
        return hmac.new(self._secret, raw, hashlib.sha256).digest()[:_SIGNATURE]


def digest(*parts: Any) -> bytes:
    """Twelve bytes that stand for what was asked."""
    return hashlib.sha256(_ENCODE(parts)).digest()[:12]
