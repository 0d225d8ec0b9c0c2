"""The bytes of an answer: status line, field block, problem objects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import orjson

from martlet.errors import MartletError, Overloaded, Throttled

__all__ = ["Headers", "field_block", "problem", "status_line"]

Headers = Sequence[tuple[bytes, bytes]]

_LINES: Final = {
    code: f"HTTP/1.1 {code} {HTTPStatus(code).phrase if code in HTTPStatus._value2member_map_ else ''}\r\n".encode()
    for code in range(100, 1000)
}
_FRAMING: Final = frozenset((b"connection", b"content-length", b"keep-alive", b"transfer-encoding"))
_PROBLEM_TYPE: Final = (b"content-type", b"application/problem+json")


def status_line(status: int) -> bytes:
    """The status line with its CRLF. Raises `KeyError` outside 100 to 999."""
    return _LINES[status]


def field_block(headers: Headers, date: bytes) -> bytes:
    """Header lines with their CRLFs, and `date` (a whole line) unless given. The server's own framing fields are left out.

    Raises `ValueError` for a line break in a name or value: the last door against response splitting.
    """
    names = {name.lower() for name, _ in headers}
    if not names.isdisjoint(_FRAMING):
        headers = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
    block = b"".join([b"%b: %b\r\n" % header for header in headers])
    count = len(headers)
    if block.count(b"\n") != count or block.count(b"\r") != count:
        raise ValueError("a response header contains a line break")
    return block if b"date" in names else block + date


def problem(error: MartletError, status: int | None = None) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an RFC 9457 problem; Retry-After where the error knows it."""
    body = error.problem()
    if status is not None:
        body["status"] = status
    headers = [_PROBLEM_TYPE]
    if isinstance(error, (Throttled, Overloaded)):
        headers.append((b"retry-after", b"%d" % error.retry_after_seconds))
    return headers, orjson.dumps(body, default=str)
