"""The chunked transfer coding, read strictly (RFC 9112 section 7.1). Pure: bytes in, a body out, or `Refused`."""

from __future__ import annotations

import re
from typing import Final

from martlet.errors import InvalidInput
from martlet.gateway.head import Refused

__all__ = ["ChunkedBody"]

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*")
_TRAILER: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*)")
_LINE_BYTES: Final = 512  # longest chunk-size line with extensions; ours to choose, RFC 9112 section 7.1.1
_EXTENSION_BYTES: Final = 16_384  # all extensions of one body: nobody reads them, so nobody needs more

_IN_SIZE, _IN_DATA, _AFTER_DATA, _IN_TRAILERS, _DONE = range(5)


def _malformed(what: str) -> Refused:
    return Refused(400, InvalidInput(f"malformed chunked body: {what}"))


class ChunkedBody:
    """Decodes one body. `feed` until `done`; then `body` and `trailers` are complete.

    `trailer_limit` bounds the bytes of the trailer section. The caller bounds `len(body)`.
    """

    __slots__ = ("_extension_bytes", "_line", "_missing", "_state", "_trailer_bytes", "_trailer_limit", "body", "trailers")

    def __init__(self, trailer_limit: int) -> None:
        self.body = bytearray()
        self.trailers: list[tuple[bytes, bytes]] = []
        self._state = _IN_SIZE
        self._missing = 0  # bytes that the chunk in hand still lacks
        self._line = b""  # an unfinished line
        self._trailer_limit = trailer_limit
        self._trailer_bytes = 0
        self._extension_bytes = 0

    @property
    def done(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes, at: int, limit: int) -> int:
        """Read `data` from `at`; returns where it stopped: its end, or just behind the body.

        Stops adding once the body would exceed `limit` bytes: it then holds more than `limit`, and the caller refuses.
        """
        end = len(data)
        while at < end and self._state != _DONE and len(self.body) <= limit:
            if self._state == _IN_DATA:
                taken = min(self._missing, end - at, limit + 1 - len(self.body))
                self.body += memoryview(data)[at : at + taken]
                at += taken
                self._missing -= taken
                if not self._missing:
                    self._state = _AFTER_DATA
            else:
                at = self._feed_line(data, at)
        return at

    def _feed_line(self, data: bytes, at: int) -> int:
        longest = 2 if self._state == _AFTER_DATA else _LINE_BYTES if self._state == _IN_SIZE else self._trailer_limit
        known = len(self._line)
        line = self._line + data[at : at + longest + 2 - known]
        cut = line.find(b"\r\n")
        if cut < 0:
            if b"\n" in line or b"\r" in line[:-1]:
                raise _malformed("a bare CR or LF")
            if len(line) > longest:
                raise _malformed("a line is too long")
            if self._state == _AFTER_DATA and line not in (b"", b"\r"):
                raise _malformed("chunk data is longer than its size")
            self._line = line
            return at + len(line) - known
        self._line = b""
        self._take_line(line[:cut])
        return at + cut + 2 - known

    def _take_line(self, line: bytes) -> None:
        if self._state == _AFTER_DATA:
            if line:
                raise _malformed("chunk data is longer than its size")
            self._state = _IN_SIZE
        elif self._state == _IN_SIZE:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise _malformed("a chunk size is not hexadecimal")
            self._extension_bytes += len(line) - len(match[1])
            if self._extension_bytes > _EXTENSION_BYTES:
                raise _malformed("too many chunk extensions")
            self._missing = int(match[1], 16)
            self._state = _IN_DATA if self._missing else _IN_TRAILERS
        elif not line:
            self._state = _DONE
        else:
            self._take_trailer(line)

    def _take_trailer(self, line: bytes) -> None:
        match = _TRAILER.fullmatch(line)
        self._trailer_bytes += len(line) + 2
        if match is None or self._trailer_bytes > self._trailer_limit:
            raise _malformed("a trailer is not `name: value`, or there are too many")
        self.trailers.append((match[1], match[2].rstrip(b" \t")))
