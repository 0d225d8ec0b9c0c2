"""An HTTP/1.1 server (RFC 9110, RFC 9112) as plain protocol callbacks: no coroutine, task or future for a request.

One request of a connection is served at a time; what a client pipelines waits, bounded, in the read buffer. So answers
leave in order by construction. One timer sweeps all connections for slow clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Final, cast

from martlet.clock import Clock
from martlet.errors import InvalidInput, MartletError, Overloaded, StartFailed
from martlet.gateway.answer import Headers, field_block, problem, status_line
from martlet.gateway.chunked import ChunkedBody
from martlet.gateway.exchange import Exchange, Successor
from martlet.gateway.head import Fields, Refused, Request, join, parse_fields, parse_line, partial_fault
from martlet.gateway.stream import BodyStream, Upload
from martlet.limits import LIMITS, exceeded

__all__ = ["Exchange", "Headers", "HttpServer", "Request"]

_SWEEP_SECONDS: Final = 1.0
_READ_AHEAD_BYTES: Final = 65_536  # read while an answer is due; then reading pauses
_LINGER_SECONDS: Final = 5  # after an early answer: time for the client to read it (RFC 9112 section 9.6)
_NEVER: Final = 1 << 62
_SECOND: Final = 1_000_000_000
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class _Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "client",
        "closing",
        "context",
        "deadline",
        "eof",
        "exchange",
        "fields",
        "head_started",
        "parsing",
        "read_paused",
        "server",
        "successor",
        "transport",
        "unread",
        "unsent",
        "upload",
        "write_deadline",
        "write_paused",
    )

    def __init__(self, server: HttpServer, client: tuple[str, int] | None, context: object) -> None:
        self.server = server
        self.client = client or ("", 0)
        self.context = context
        self.transport: asyncio.Transport
        self.exchange: Exchange | None = None  # the request in service
        self.upload: Upload | None = None
        self.fields: Fields | None = None  # of the last request: clients repeat themselves
        self.successor: Successor | None = None  # who has the transport after an upgrade
        self.unread = b""
        self.parsing = False
        self.closing = False  # an answer said "close": what still arrives is thrown away
        self.eof = False
        self.read_paused = False
        self.write_paused = False
        self.head_started = True  # a new connection has header_read_seconds, whatever it sends
        self.deadline = server.now + server.header_read_ns
        self.write_deadline = _NEVER
        self.unsent = 0

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        server = self.server
        if not self.client[0]:
            peer = transport.get_extra_info("peername")
            self.client = (peer[0], peer[1]) if isinstance(peer, tuple) else ("", 0)
        plain = transport.get_extra_info("socket")
        if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.adopt(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        if self.upload is not None:
            self._drop_upload()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.release(exchange)
            exchange.disconnect()
        self.server.departed()

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        if self.unread:
            data = self.unread + data
            self.unread = b""
        self._advance(data)

    def eof_received(self) -> bool:
        self.eof = True
        if self.upload is not None and self.upload.stream is not None:
            self.upload.stream.fail()
        if self.exchange is not None and self.exchange.on_eof is not None:
            self.exchange.on_eof()
        if not self.closing and self.exchange is None and not self.write_paused:
            self._at_eof()
        return not self.closing  # half-closed: the answer still goes out

    def pause_writing(self) -> None:
        self.write_paused = True
        self.unsent = self.transport.get_write_buffer_size()
        self.write_deadline = self.server.now + self.server.response_write_ns
        exchange = self.exchange
        if exchange is not None and exchange.on_pause is not None:
            exchange.on_pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.write_deadline = _NEVER
        exchange = self.exchange
        if exchange is None:
            self._next()
        elif exchange.on_drain is not None:
            exchange.on_drain()

    # reading

    def _advance(self, data: bytes) -> None:
        """Serve what `data` holds; keep the rest."""
        at = 0
        self.parsing = True
        try:
            while at < len(data) and self._may_take() and not self.closing:
                after = self._take_head(data, at) if self.upload is None else self._take_body(data, at)
                if after < 0:
                    break
                at = after
        except Refused as refused:
            self.refuse(refused.status, refused.error)
        self.parsing = False
        if self.successor is not None and at < len(data):
            self.successor.data_received(data[at:])
        if self.closing:
            return
        self.unread = data[at:] if at else data
        self._after_reading()

    def _may_take(self) -> bool:
        """Whether there is anything to read for: the next head, or the body of a request that is not being answered yet."""
        if self.upload is not None and self.upload.stream is not None:
            return True
        return self.exchange is None and not self.write_paused

    def _after_reading(self) -> None:
        if self.upload is not None and self.upload.stream is not None:
            return  # the stream's reader sets the pace
        if self.exchange is not None or self.write_paused:
            if len(self.unread) > _READ_AHEAD_BYTES and not self.read_paused:
                self.read_paused = True
                self.transport.pause_reading()
            return
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.unread and not self.head_started:
            self.head_started = True
            self.deadline = self.server.now + self.server.header_read_ns
        if self.eof:
            self._at_eof()

    def _at_eof(self) -> None:
        if self.unread or self.upload is not None:
            self.refuse(400, InvalidInput("the request ends before its end"))
        else:
            self.close()

    def _take_head(self, data: bytes, at: int) -> int:
        """Read one head from `at`; returns where it ended, or -1 if it is not all there. Raises `Refused`."""
        if data[at] == 0x0D:  # one empty line before a request is forgiven (RFC 9112 section 2.2)
            if len(data) == at + 1:
                return -1
            if data[at + 1] == 0x0A:
                at += 2
        server = self.server
        end = data.find(b"\r\n\r\n", at)
        line_end = data.find(b"\r\n", at)
        if (line_end if line_end >= 0 else len(data)) - at > server.request_line_bytes:
            allowed = server.request_line_bytes
            raise Refused(414, exceeded("request_line_bytes", what="request line", allowed=allowed))
        if line_end >= 0 and (end if end >= 0 else len(data)) - line_end > server.request_header_bytes:
            allowed = server.request_header_bytes
            raise Refused(431, exceeded("request_header_bytes", what="request header fields", allowed=allowed))
        if end < 0:
            fault = partial_fault(data[at:])
            if fault is not None:
                raise fault
            return -1
        request = parse_line(data[at:line_end])
        raw = data[line_end + 2 : end + 2]
        fields = self.fields
        if fields is None or fields.raw != raw:
            fields = self.fields = parse_fields(raw)
        join(request, fields)
        request.client = self.client
        request.scheme = server.scheme
        request.context = self.context
        if fields.content_length > 0 or fields.chunked:
            return self._begin_body(request, fields, data, end + 4)
        self._serve(request, 0)
        return end + 4

    def _begin_body(self, request: Request, fields: Fields, data: bytes, at: int) -> int:
        server = self.server
        length = fields.content_length
        if server.streams is not None and not 0 < length <= len(data) - at and server.streams(request):
            return self._begin_stream(request, fields, at)
        if length > server.request_body_bytes:
            raise Refused(413, exceeded("request_body_bytes", length, "request body", server.request_body_bytes))
        if 0 < length <= len(data) - at:  # all of it is here
            request.body = data[at : at + length]
            self._hold(length)
            self._serve(request, length)
            return at + length
        if fields.expect is not None and request.version == "1.1" and at == len(data):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunked = ChunkedBody(server.request_header_bytes) if fields.chunked else None
        self.upload = Upload(request, chunked, length, server.now)
        self.deadline = server.now + server.body_read_ns
        return at

    def _begin_stream(self, request: Request, fields: Fields, at: int) -> int:
        """Serve the request at once, its body as it comes. "100 Continue" is said when somebody asks for the body."""
        server = self.server
        if fields.content_length > server.stream_body_bytes:
            allowed = server.stream_body_bytes
            raise Refused(413, exceeded("request_body_bytes", fields.content_length, "request body", allowed))
        chunked = ChunkedBody(server.request_header_bytes) if fields.chunked else None
        upload = self.upload = Upload(request, chunked, fields.content_length, server.now)
        expects = [fields.expect is not None and request.version == "1.1"]

        def demand() -> None:
            if self.upload is not upload:
                return
            if expects[0] and not upload.received and not self.closing:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            expects[0] = False
            if self.read_paused and not (upload.stream and upload.stream.full):
                self.read_paused = False
                self.transport.resume_reading()
                self.deadline = server.now + server.body_read_ns

        upload.stream = request.stream = BodyStream(demand, fields.content_length)
        self._serve(request, 0)
        if self.upload is upload:
            self.deadline = server.now + server.body_read_ns
        return at

    def _feed_stream(self, upload: Upload, stream: BodyStream, data: bytes, at: int) -> int:
        start = at
        if upload.chunked is not None:
            at = upload.chunked.feed(data, at, len(data))
            piece = bytes(upload.chunked.body)
            upload.chunked.body.clear()
            done = upload.chunked.done
        else:
            piece = data[at : at + upload.missing - upload.received]
            at += len(piece)
            done = upload.received + len(piece) == upload.missing
        upload.received += len(piece)
        if upload.received > self.server.stream_body_bytes:
            raise Refused(413, exceeded("request_body_bytes", what="request body", allowed=self.server.stream_body_bytes))
        if piece:
            stream.feed(piece)
        if done:
            self.upload = None
            self.deadline = _NEVER
            if upload.chunked is not None:
                upload.request.trailers = upload.chunked.trailers
            stream.finish()
        elif stream.full and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()
            self.deadline = _NEVER  # it is our reader that is slow
        elif not self.read_paused:
            earned = upload.received * _SECOND // self.server.body_rate
            self.deadline = min(self.server.now, upload.started_ns + earned) + self.server.body_read_ns
        return at if at > start or done else len(data)

    def _drop_upload(self) -> None:
        """What is missing of a body will not come, or is not wanted."""
        upload, self.upload = self.upload, None
        if upload is not None:
            self.server.buffered -= len(upload.body)
            if upload.stream is not None:
                upload.stream.fail()

    def _take_body(self, data: bytes, at: int) -> int:
        """Read body from `at`; returns where it stopped. Raises `Refused`."""
        upload = cast(Upload, self.upload)
        server = self.server
        if upload.stream is not None:
            return self._feed_stream(upload, upload.stream, data, at)
        before = len(upload.body)
        if upload.chunked is not None:
            limit = server.request_body_bytes
            try:
                at = upload.chunked.feed(data, at, limit)
            finally:
                self._hold(len(upload.body) - before)
            if len(upload.body) > limit:
                raise Refused(413, exceeded("request_body_bytes", what="request body", allowed=limit))
            done = upload.chunked.done
        else:
            taken = min(len(data) - at, upload.missing - before)
            upload.body += memoryview(data)[at : at + taken]
            self._hold(taken)
            at += taken
            done = len(upload.body) == upload.missing
        if done:
            self.upload = None
            upload.request.body = bytes(upload.body)
            if upload.chunked is not None:
                upload.request.trailers = upload.chunked.trailers
            self._serve(upload.request, len(upload.body))
        else:
            earned = len(upload.body) * _SECOND // server.body_rate
            now = server.now
            self.deadline = min(now, upload.started_ns + earned) + server.body_read_ns
        return at

    def _hold(self, count: int) -> None:
        server = self.server
        server.buffered += count
        if server.buffered > server.request_buffer_bytes:
            if self.upload is None:
                server.buffered -= count  # nobody else knows of these
            raise Refused(503, Overloaded("limit request_buffer_bytes: too many request bodies in memory"))

    def release(self, exchange: Exchange) -> None:
        """Give back the room that the request's body took."""
        self.server.buffered -= exchange.held
        exchange.held = 0

    def _serve(self, request: Request, held: int) -> None:
        self.deadline = _NEVER
        exchange = self.exchange = Exchange(self, request, held)
        try:
            self.server.handler(exchange)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{self.server.name}: the handler of {request.method} failed", "exception": error}
            )
            if exchange.started:
                exchange.abort()
            else:
                headers, body = problem(MartletError("internal error"))
                exchange.respond(500, headers, body)

    # another protocol

    def succeed(self, exchange: Exchange, successor: Successor) -> None:
        """Hand the connection over, with what was read ahead of the upgrade."""
        self.exchange = None
        self.release(exchange)
        self.closing = True
        self.successor = successor
        successor.listener = self.server
        self.server.replace(self, successor)
        self.transport.set_protocol(successor)
        successor.connection_made(self.transport)
        if self.write_paused:
            successor.pause_writing()
        if self.read_paused:
            self.transport.resume_reading()
        ahead, self.unread = self.unread, b""
        if ahead and not self.parsing:
            successor.data_received(ahead)
        if self.eof and not successor.eof_received():
            self.transport.close()

    # answering

    def finished(self, exchange: Exchange, keep: bool) -> None:
        """The exchange has its whole answer."""
        self.exchange = None
        self.server.buffered -= exchange.held
        if not keep:
            self.close()
            return
        self.head_started = False
        self.deadline = self.server.now + self.server.keep_alive_ns
        if not self.parsing:
            self._next()

    def _next(self) -> None:
        """On with what waits in the read buffer."""
        if self.closing:
            return
        if self.unread and self.exchange is None:
            data, self.unread = self.unread, b""
            self._advance(data)
        elif self.eof or self.read_paused:
            self._after_reading()

    def refuse(self, status: int, error: MartletError) -> None:
        """Answer without a handler, then close so that the client can read the answer."""
        streamed = self.upload is not None and self.upload.stream is not None
        self._drop_upload()
        exchange = self.exchange
        if streamed and exchange is not None:
            if exchange.started:
                exchange.abort()
                return
            self.exchange = None  # its handler reads on a stream that has failed, and answers nobody
            self.release(exchange)
            exchange.disconnect()
        headers, body = problem(error, status)
        block = field_block(headers, self.server.date)
        framing = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(status_line(status) + block + framing + body)
        self._linger()

    def close(self) -> None:
        """Close once all is sent; unread input makes it a lingering close."""
        if self.unread or self.upload is not None or self.read_paused:
            self._drop_upload()
            self._linger()
        else:
            self.closing = True
            self.deadline = _NEVER
            self._watch_sending()
            self.transport.close()

    def _linger(self) -> None:
        """Half-close and throw away what arrives for a while: an unread byte at close would reset the answer away."""
        self.closing = True
        self.unread = b""
        self.deadline = self.server.now + _LINGER_SECONDS * _SECOND
        self._watch_sending()
        if self.eof or self.transport.is_closing():
            self.transport.close()
            return
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.transport.write_eof()

    def _watch_sending(self) -> None:
        self.unsent = self.transport.get_write_buffer_size()
        self.write_deadline = self.server.now + self.server.response_write_ns

    def cut(self, reset: bool) -> None:
        """End a truncated answer: by FIN where its framing shows the cut, else by RST."""
        self.closing = True
        self.unread = b""
        if not reset:
            self.deadline = _NEVER
            self._watch_sending()
            self.transport.close()
            return
        plain = self.transport.get_extra_info("socket")
        if plain is not None:
            with contextlib.suppress(OSError):  # already gone, or not a kind of socket that knows it
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    # time

    def sweep(self, now: int) -> None:
        """The coarse timer's visit."""
        if now >= self.write_deadline:
            unsent = self.transport.get_write_buffer_size()
            if unsent >= self.unsent > 0:
                self.cut(reset=True)
                return
            self.unsent = unsent
            self.write_deadline = now + self.server.response_write_ns
        if now < self.deadline or (self.write_paused and not self.closing):
            return
        if self.closing:
            self.transport.abort()
        elif self.upload is not None:
            error = InvalidInput("limits body_read_seconds, body_bytes_per_second_min: the request body came too slowly")
            self.refuse(408, error)
        elif self.unread:
            self.refuse(408, InvalidInput("limit header_read_seconds: the request head came too slowly"))
        else:
            self.close()

    def drain(self) -> None:
        """The listener stops: go if idle, else after the request in hand."""
        if self.exchange is None and self.upload is None and not self.unread and not self.closing:
            self.close()


class HttpServer:
    """Listens, and hands each request to `handler(exchange)` on the event loop.

    `limits` overrides defaults by name; `max_body_bytes` is short for limits["request_body_bytes"]. `name` is used in
    messages. Requests that `streams` says yes to are handed over before their body is here: it comes by `request.stream`, and
    may have `stream_body_bytes`. Raises `InvalidInput` for a limit that does not exist.
    """

    def __init__(
        self,
        handler: Callable[[Exchange], None],
        *,
        clock: Clock,
        limits: Mapping[str, int] | None = None,
        max_body_bytes: int | None = None,
        scheme: str = "http",
        name: str = "http",
        streams: Callable[[Request], bool] | None = None,
        stream_body_bytes: int = 0,
    ) -> None:
        self.streams = streams
        self.stream_body_bytes = stream_body_bytes
        overrides = dict(limits or {})
        if max_body_bytes is not None:
            overrides["request_body_bytes"] = max_body_bytes
        for key in overrides:
            if key not in LIMITS:
                raise InvalidInput(f"{key} is not a limit", field=key)

        def limit(key: str) -> int:
            return overrides.get(key, LIMITS[key].default)

        self.handler = handler
        self.scheme = scheme
        self.name = name
        self.request_line_bytes = limit("request_line_bytes")
        self.request_header_bytes = limit("request_header_bytes")
        self.request_body_bytes = limit("request_body_bytes")
        self.request_buffer_bytes = max(limit("request_buffer_bytes"), self.request_body_bytes)
        self.max_connections = limit("connections")
        self.header_read_ns = limit("header_read_seconds") * _SECOND
        self.body_read_ns = limit("body_read_seconds") * _SECOND
        self.body_rate = limit("body_bytes_per_second_min")
        self.keep_alive_ns = limit("keep_alive_seconds") * _SECOND
        self.response_write_ns = limit("response_write_seconds") * _SECOND
        self.max_websockets = limit("websockets")
        self.connections: set[_Connection | Successor] = set()
        self.successors = 0  # of these, the ones that speak something else by now
        self.buffered = 0  # bytes of request bodies in memory
        self.stopping = False
        self.now = 0
        self.date = b""
        self._clock = clock
        self._listeners: list[asyncio.Server] = []
        self._adoptions: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self._read_clock()

    async def listen(self, host: str, port: int) -> int:
        """Accept connections; returns the port bound (for `port` 0, the kernel's choice). Raises `StartFailed`."""
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(lambda: _Connection(self, None, None), host, port, backlog=1024)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                remedy = "stop the program that listens there, or choose another port"
                raise StartFailed(f"{self.name}: port {port} of {host} is taken", remedy=remedy) from error
            remedy = "choose an address of this machine and a port that you may bind"
            raise StartFailed(f"{self.name}: cannot listen on {host} port {port}: {error}", remedy=remedy) from error
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def accept(
        self, sock: socket.socket, client: tuple[str, int] = ("", 0), context: object = None, begun: bytes = b""
    ) -> None:
        """Serve an accepted socket; `context` becomes `request.context`. Takes the socket over. Needs the running loop.

        `begun`: what was read from it already.
        """
        if self.stopping:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._adopt(sock, client, context, begun))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    async def _adopt(self, sock: socket.socket, client: tuple[str, int], context: object, begun: bytes) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        try:
            _, connection = await loop.connect_accepted_socket(lambda: _Connection(self, client, context), sock)
        except OSError:
            sock.close()  # the peer left between accept and now: there is nobody to tell
            return
        if begun:
            connection.data_received(begun)

    async def shutdown(self, grace_seconds: float) -> None:
        """Stop accepting; let accepted requests finish with `Connection: close` for that long; then cut the rest."""
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._adoptions:
            await asyncio.wait(self._adoptions, timeout=grace_seconds)
        for connection in tuple(self.connections):
            connection.drain()
        if self.connections:
            await self._emptied(grace_seconds)
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self.connections:
            await self._emptied(1.0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _emptied(self, seconds: float) -> None:
        self._empty = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(self._empty, seconds)
        except TimeoutError:
            pass  # the caller cuts what is left
        finally:
            self._empty = None

    # for connections

    def adopt(self, connection: _Connection) -> None:
        """Take a new connection in, or turn it away (limit `connections`)."""
        count = len(self.connections)
        if self.stopping or count > self.max_connections + self.max_connections // 10 + 8:
            connection.closing = True
            connection.transport.abort()
            return
        self.connections.add(connection)
        if self._timer is None:
            self._read_clock()  # it stood still while nobody was connected
            connection.deadline = self.now + self.header_read_ns
            self.sweep()
        if count >= self.max_connections:
            connection.refuse(503, Overloaded(f"limit connections is {self.max_connections}"))

    def replace(self, connection: _Connection, successor: Successor) -> None:
        """The connection speaks another protocol from now on."""
        self.connections.discard(connection)
        self.connections.add(successor)
        self.successors += 1

    def lost(self, successor: Successor) -> None:
        """A connection that spoke another protocol is gone."""
        if successor in self.connections:
            self.connections.discard(successor)
            self.successors -= 1
            self.departed()

    def departed(self) -> None:
        """A connection was lost."""
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def sweep(self) -> None:
        """Read the clock and visit all connections; again in a second while there are any."""
        self._read_clock()
        for connection in tuple(self.connections):
            connection.sweep(self.now)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self.sweep) if self.connections else None

    def _read_clock(self) -> None:
        self.now = self._clock.monotonic_ns()
        self.date = b"date: %b\r\n" % formatdate(self._clock.now_ms() // 1000, usegmt=True).encode()
