"""One request and its answer, as handlers have it; `http` drives the connection below.

An answer of status 101 (`upgrade`) gives the connection to another protocol, a `Successor`, which the listener goes on to
count, sweep and drain as its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from martlet.gateway.answer import Headers, field_block, status_line
from martlet.gateway.head import Request
from martlet.gateway.stream import Upload

__all__ = ["Exchange", "Listener", "Successor"]

_ONE_WRITE_BYTES: Final = 65_536  # up to here head and body are joined; beyond, handed over as two buffers of one writev

_FRESH, _STREAMING, _DONE = range(3)
_TO_CLOSE: Final = -1  # a streamed body without a length, ended by closing (HTTP/1.0)
_CHUNKED: Final = -2
_NO_BODY: Final = -3


class Listener(Protocol):
    """The server that a connection belongs to. `now` is monotonic, in ns, a second old at most."""

    date: bytes
    stopping: bool
    now: int
    max_websockets: int
    response_write_ns: int

    @property
    def successors(self) -> int: ...
    def lost(self, successor: Successor) -> None: ...


class Successor(asyncio.Protocol):
    """What a connection speaks after an upgrade. asyncio's callbacks come to it, `connection_made` first."""

    transport: asyncio.Transport
    listener: Listener

    def sweep(self, now: int) -> None:
        """The listener's coarse timer: about once a second."""
        raise NotImplementedError

    def drain(self) -> None:
        """The listener stops: take leave soon."""
        raise NotImplementedError


class Connection(Protocol):
    """What an exchange needs of the connection that it is on."""

    exchange: Exchange | None
    transport: asyncio.Transport
    upload: Upload | None
    write_paused: bool

    @property
    def server(self) -> Listener: ...
    def finished(self, exchange: Exchange, keep: bool) -> None: ...
    def release(self, exchange: Exchange) -> None: ...
    def cut(self, reset: bool) -> None: ...
    def succeed(self, exchange: Exchange, successor: Successor) -> None: ...


class Exchange:
    """One request and its answer: `respond` once, or `start`, `write` …, `end`.

    Once the client is gone (`connected` is false) all of these do nothing. `paused` says that the client reads too slowly;
    `on_pause` and `on_drain` tell when that begins and ends, `on_disconnect` when the client leaves before the end, `on_eof`
    when it will send nothing more: it may still read, but mostly it has left.
    """

    __slots__ = ("_connection", "_left", "_phase", "held", "on_disconnect", "on_drain", "on_eof", "on_pause", "request")

    def __init__(self, connection: Connection, request: Request, held: int) -> None:
        self._connection: Connection | None = connection
        self._phase = _FRESH
        self._left = 0
        self.request = request
        self.held = held  # bytes of the listener's request_buffer_bytes
        self.on_disconnect: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.on_eof: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def started(self) -> bool:
        """An answer has begun."""
        return self._phase != _FRESH

    @property
    def paused(self) -> bool:
        """What was written waits for the client; write no more until `on_drain`."""
        return self._connection is not None and self._connection.write_paused

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer. Content-Length, Date and Connection are ours. Raises `ValueError` for a line break in a header."""
        connection = self._connection
        if connection is None:
            return
        if self._phase != _FRESH:
            raise RuntimeError("this exchange has its answer already")
        request = self.request
        server = connection.server
        keep = request.keep_alive and not server.stopping and connection.upload is None
        head = status_line(status) + field_block(headers, server.date)
        if status != 204 and status >= 200 and status != 304:
            head += b"content-length: %d\r\n" % len(body)
            if request.method == "HEAD":
                body = b""
        else:
            body = b""
        head += _connection_line(request, keep)
        self._phase = _DONE
        self._connection = None
        if len(body) <= _ONE_WRITE_BYTES:
            connection.transport.write(head + body)
        else:
            connection.transport.writelines((head, body))
        connection.finished(self, keep)

    def start(self, status: int, headers: Headers) -> None:
        """Begin a streamed answer: by the Content-Length given, else chunked (1.1), else until close (1.0)."""
        connection = self._connection
        if connection is None:
            return
        if self._phase != _FRESH:
            raise RuntimeError("this exchange has its answer already")
        request = self.request
        block = field_block(headers, connection.server.date)
        length = next((value for name, value in headers if name.lower() == b"content-length"), None)
        framing = b""
        if status in (204, 304) or status < 200:
            self._left = _NO_BODY
        elif length is not None:
            if not length.isdigit():
                raise ValueError("the Content-Length given is not a number")
            framing = b"content-length: %b\r\n" % length
            self._left = _NO_BODY if request.method == "HEAD" else int(length)
        elif request.version == "1.1":
            framing = b"transfer-encoding: chunked\r\n"
            self._left = _NO_BODY if request.method == "HEAD" else _CHUNKED
        else:
            self._left = _NO_BODY if request.method == "HEAD" else _TO_CLOSE
            request.keep_alive = False
        request.keep_alive = request.keep_alive and not connection.server.stopping and connection.upload is None
        self._phase = _STREAMING
        connection.transport.write(status_line(status) + block + framing + _connection_line(request, request.keep_alive))

    def write(self, chunk: bytes) -> None:
        """Part of a streamed body. Raises `ValueError` beyond the Content-Length given."""
        connection = self._connection
        if connection is None or not chunk:
            return
        if self._phase != _STREAMING:
            raise RuntimeError("write comes between start and end")
        if self._left == _CHUNKED:
            connection.transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
        elif self._left == _TO_CLOSE:
            connection.transport.write(chunk)
        elif self._left != _NO_BODY:
            if len(chunk) > self._left:
                raise ValueError("the body is longer than its Content-Length")
            self._left -= len(chunk)
            connection.transport.write(chunk)

    def end(self, trailers: Headers = ()) -> None:
        """The end of a streamed answer. A body shorter than its Content-Length ends as an `abort`."""
        connection = self._connection
        if connection is None:
            return
        if self._phase != _STREAMING:
            raise RuntimeError("end comes after start")
        if self._left > 0:
            self.abort()
            return
        if self._left == _CHUNKED:
            connection.transport.write(b"0\r\n" + field_block(trailers, b"") + b"\r\n")
        self._phase = _DONE
        self._connection = None
        connection.finished(self, self.request.keep_alive)

    def abort(self) -> None:
        """Give up: the client sees a truncated answer (no last chunk, a short body, or a reset), never a complete one."""
        connection = self._connection
        if connection is None:
            return
        reset = self._phase == _FRESH or self._left == _TO_CLOSE
        self._phase = _DONE
        self._connection = None
        connection.exchange = None
        connection.release(self)
        connection.cut(reset)

    def upgrade(self, headers: Headers, successor: Successor) -> None:
        """101 Switching Protocols; from here the connection is the successor's, with what the client has sent already.

        Only for an HTTP/1.1 request without a body. Raises `ValueError` for a line break in a header.
        """
        connection = self._connection
        if connection is None:
            return
        if self._phase != _FRESH or connection.upload is not None:
            raise RuntimeError("this exchange cannot be upgraded")
        block = field_block(headers, connection.server.date)
        self._phase = _DONE
        self._connection = None
        connection.transport.write(status_line(101) + block + b"connection: Upgrade\r\n\r\n")
        connection.succeed(self, successor)

    @property
    def listener(self) -> Listener | None:
        """The server of this exchange's connection; None once the client is gone or has its answer."""
        return None if self._connection is None else self._connection.server

    def disconnect(self) -> None:
        """The connection's word that it is lost."""
        self._connection = None
        self._phase = _DONE
        if self.on_disconnect is not None:
            self.on_disconnect()


def _connection_line(request: Request, keep: bool) -> bytes:
    if not keep:
        return b"connection: close\r\n\r\n"
    return b"\r\n" if request.version == "1.1" else b"connection: keep-alive\r\n\r\n"
