"""HTTP/1.1 (RFC 9112) as the Runtime API needs it: long polls, one write per answer, bodies in pieces, trailers.

The peer is user code. What it sends is bounded before it is looked at: the head by `_HEAD_BYTES`, the body by what the service
wants to keep of it, what it pipelines by `_AHEAD_BYTES`. A request that is none is answered with 400 and the connection closed.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

__all__ = ["Connection", "Exchange", "Service", "accept"]

_HEAD_BYTES = 1_114_112  # the X-Ray cause of an error is a header of up to 1 MiB
_AHEAD_BYTES = 65_536
_DRAINED_BYTES = 67_108_864  # of a body that is too large: read and dropped, so that its sender can read the answer
_LINE_BYTES = 8_192  # of a chunk's size with its extensions, of trailers
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

Headers = dict[bytes, bytes]


class Service(Protocol):
    """Who answers. `begin` when a head is here, `complete` when its body is, `gone` when its client left without an answer."""

    def begin(self, exchange: Exchange) -> bool:
        """False: this request is for somebody else, who gets the connection."""
        ...

    def complete(self, exchange: Exchange) -> None: ...

    def gone(self, exchange: Exchange) -> None: ...

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        """A connection whose next request is not ours; `begun` was read from it already."""
        ...

    def malformed(self) -> None:
        """What came was no request."""
        ...


class Exchange:
    """One request. `keep_bytes`: as much of its body is kept in `body`; `oversize` says that there was more."""

    __slots__ = (
        "_connection",
        "body",
        "headers",
        "keep_bytes",
        "method",
        "note",
        "on_chunk",
        "oversize",
        "path",
        "trailers",
        "whole",
    )

    def __init__(self, connection: Connection, method: str, path: str, headers: Headers) -> None:
        self._connection: Connection | None = connection
        self.method, self.path, self.headers = method, path, headers
        self.trailers: Headers = {}
        self.body = bytearray()
        self.keep_bytes = 0
        self.oversize = False
        self.whole = False  # the body is here to its end
        self.on_chunk: Callable[[bytes], None] | None = None  # instead of keeping it
        self.note: Any = None  # the service's own

    @property
    def open(self) -> bool:
        """Its client is there and waits for an answer."""
        return self._connection is not None and not self._connection.transport.is_closing()

    def respond(self, status: int, body: bytes, headers: bytes = b"Content-Type: application/json\r\n") -> None:
        """Answer, once, in one write. `headers`: whole lines."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.answer(status, headers, body)

    def detach(self) -> None:
        """The client left."""
        self._connection = None

    def pause(self) -> None:
        """Read no more of the body for now."""
        if self._connection is not None:
            self._connection.hold(True)

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.hold(False)


_HEAD, _BODY, _CHUNK_LINE, _CHUNK_DATA, _CHUNK_END, _TRAILERS, _ANSWER = range(7)


class Connection(asyncio.Protocol):
    """One connection from inside a sandbox."""

    def __init__(self, service: Service) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._service = service
        self._buffer = bytearray()
        self._state = _HEAD
        self._left = 0  # bytes of the body, or of its present chunk
        self._seen = 0  # bytes of the body so far
        self._looked = 0  # how far the end of the head was looked for
        self._exchange: Exchange | None = None
        self._keep_alive = True
        self._held = False
        self._stuffed = False  # answers wait for their reader: what it asks further waits, too
        self._parsing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio.Transport

    def connection_lost(self, error: Exception | None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.detach()
            self._service.gone(exchange)

    def pause_writing(self) -> None:
        self._stuffed = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._stuffed = False
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()
            self._parse()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._held or self._stuffed or (self._state == _ANSWER and len(self._buffer) > _AHEAD_BYTES):
            self.transport.pause_reading()
        self._parse()

    def hold(self, held: bool) -> None:
        """Stop or go on reading, for a client of the answer that is slower than its function."""
        if held == self._held or self.transport.is_closing():
            return
        self._held = held
        if held:
            self.transport.pause_reading()
        elif not self._stuffed:
            self.transport.resume_reading()
            self._parse()

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        early = self._state != _ANSWER  # before the end of the request's body: it cannot be told from the next request
        keep = self._keep_alive and not early
        self._exchange = None
        if self.transport.is_closing():
            return
        head = b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n%b\r\n" % (
            status,
            _REASONS[status],
            headers,
            len(body),
            b"" if keep else b"Connection: close\r\n",
        )
        self.transport.write(head + body)
        if not keep:
            self.transport.close()
            return
        self._state = _HEAD
        self._looked = 0
        if self._stuffed:
            return  # `resume_writing` goes on
        self.transport.resume_reading()
        if self._buffer and not self._parsing:
            # Later: who answers is in the middle of something, and what comes next may end the instance that it concerns.
            asyncio.get_running_loop().call_soon(self._parse)

    # --- parsing ----------------------------------------------------------------------------------------------------

    def _parse(self) -> None:
        if self._parsing:
            return  # an answer from within: the loop below goes on
        self._parsing = True
        try:
            while not self._held and not self._stuffed and not self.transport.is_closing() and self._STEPS[self._state](self):
                pass
        finally:
            self._parsing = False

    def _refuse(self, status: int = 400) -> bool:
        self._service.malformed()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.detach()
            self._service.gone(exchange)
        self._keep_alive = False
        self.answer(status, b"Content-Type: application/json\r\n", b'{"errorMessage":"Bad request","errorType":"BadRequest"}')
        return False

    def _read_head(self) -> bool:
        buffer = self._buffer
        while buffer[:2] == b"\r\n":  # RFC 9112 section 2.2
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", max(0, self._looked - 3))
        if end < 0:
            self._looked = len(buffer)
            return self._refuse(431) if len(buffer) > _HEAD_BYTES else False
        self._looked = 0
        if end > _HEAD_BYTES:
            return self._refuse(431)
        head = bytes(buffer[:end])
        line, _, block = head.partition(b"\r\n")
        parts = line.split(b" ")
        headers = _fields(block)
        if headers is None or len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not parts[1].startswith(b"/"):
            return self._refuse()
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if (length is not None and (coding is not None or not length.isdigit() or len(length) > 15)) or (
            coding is not None and coding.lower() != b"chunked"
        ):
            return self._refuse()
        connection = headers.get(b"connection", b"").lower()
        self._keep_alive = parts[2] == b"HTTP/1.1" and connection != b"close"
        exchange = Exchange(self, parts[0].decode("latin-1"), parts[1].decode("latin-1"), headers)
        if not self._service.begin(exchange):
            self._hand_over()
            return False
        del buffer[: end + 4]
        self._exchange = exchange
        self._seen = 0
        self._left = int(length or 0)
        if self._left > _DRAINED_BYTES and not exchange.on_chunk:
            exchange.oversize = True
            self._service.complete(exchange)
            return False
        self._state = _CHUNK_LINE if coding else _BODY
        if headers.get(b"expect", b"").lower() == b"100-continue" and not buffer:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _hand_over(self) -> None:
        """The rest of this connection is somebody else's: one request, so that it never comes back to us."""
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        self._buffer.clear()
        sock = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        self.transport.abort()
        self._service.pass_on(sock, line + b"\r\nConnection: close\r\n" + rest)

    def _take(self) -> bytes:
        data = bytes(self._buffer[: self._left])
        del self._buffer[: len(data)]
        self._left -= len(data)
        self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        exchange = self._exchange
        if not data or exchange is None:
            return
        self._seen += len(data)
        if exchange.on_chunk is not None:
            exchange.on_chunk(data)
        elif exchange.oversize or self._seen > exchange.keep_bytes:
            exchange.oversize = True
            exchange.body.clear()
        else:
            exchange.body += data

    def _read_body(self) -> bool:
        self._take()
        return not self._left and self._ended()

    def _ended(self) -> bool:
        exchange = self._exchange
        if exchange is None:
            return False
        self._state = _ANSWER
        exchange.whole = True
        self._service.complete(exchange)
        return True

    def _read_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, _LINE_BYTES)
        if end < 0:
            if len(self._buffer) >= _LINE_BYTES:
                self._refuse()
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_chunk_line(self) -> bool:
        line = self._read_line()
        if line is None:
            return False
        size = line.partition(b";")[0].strip(b" \t")
        if not _SIZE.fullmatch(size):
            return self._refuse()
        self._left = int(size, 16)
        self._state = _CHUNK_DATA if self._left else _TRAILERS
        exchange = self._exchange
        if exchange is not None and exchange.on_chunk is None and self._seen + self._left > _DRAINED_BYTES:
            exchange.oversize = True
            self._service.complete(exchange)
            return False
        return True

    def _read_chunk_data(self) -> bool:
        if not self._take():
            return False
        if not self._left:
            self._state = _CHUNK_END
        return True

    def _read_chunk_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            return self._refuse()
        del self._buffer[:2]
        self._state = _CHUNK_LINE
        return True

    def _read_trailers(self) -> bool:
        if self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
            return self._ended()
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return self._refuse(431) if len(self._buffer) > _HEAD_BYTES else False
        fields = _fields(bytes(self._buffer[:end]))
        if fields is None:
            return self._refuse()
        del self._buffer[: end + 4]
        if self._exchange is not None:
            self._exchange.trailers = fields
        return self._ended()

    def _wait(self) -> bool:
        return False

    _STEPS = (_read_head, _read_body, _read_chunk_line, _read_chunk_data, _read_chunk_end, _read_trailers, _wait)


def _fields(block: bytes) -> Headers | None:
    """Header lines by lower-case name; the same name twice is joined (RFC 9110 section 5.3). None: malformed."""
    found: Headers = {}
    for line in block.split(b"\r\n") if block else ():
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\n" in value or b"\r" in value or b"\x00" in value:
            return None
        name, value = name.lower(), value.strip(b" \t")
        found[name] = found[name] + b", " + value if name in found else value
    return found


async def accept(sock: socket.socket, service: Service) -> None:
    """Serve an accepted connection. Takes the socket over."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(service), sock)
    except OSError:
        sock.close()  # its client left between accept and now
