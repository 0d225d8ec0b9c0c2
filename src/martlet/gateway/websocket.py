"""WebSockets (RFC 6455): the handshake, and one connection as callbacks. Framing is the `websockets` library's sans-I/O part.

No extension is negotiated. permessage-deflate would hold a window for every connection, and a small frame could become a large
message. What a client sends is bounded by frame and by message before it is buffered; a client that does not read is not read
from either, and is cut after `response_write_seconds`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from martlet.errors import AccessDenied, Overloaded
from martlet.gateway.answer import Headers, problem
from martlet.gateway.exchange import Exchange, Successor
from martlet.gateway.head import Request
from martlet.limits import LIMITS

__all__ = ["Terms", "WebSocket", "accept", "offered", "refusal", "wants_websocket"]

_SECOND: Final = 1_000_000_000
_NEVER: Final = 1 << 62
_ABNORMAL: Final = 1006  # never sent: the connection ended without a closing handshake
_REASON_BYTES: Final = 123  # RFC 6455 section 5.5: a control frame has 125 bytes, two of them the code


class Terms(msgspec.Struct, frozen=True):
    """What one WebSocket may. Seconds of zero: without end, or never. `idle_seconds` counts frames either way."""

    message_bytes: int = LIMITS["websocket_message_bytes"].default
    frame_bytes: int | None = None
    ping_seconds: int = LIMITS["websocket_ping_seconds"].default
    idle_seconds: int = 0
    lifetime_seconds: int = 0


def wants_websocket(request: Request) -> bool:
    """Whether the request asks to go on as a WebSocket, however badly."""
    upgrade = request.header(b"upgrade")
    return upgrade is not None and b"websocket" in [part.strip() for part in upgrade.lower().split(b",")]


def offered(request: Request) -> list[str]:
    """The subprotocols that the client offers, the one it likes best first."""
    given = request.header(b"sec-websocket-protocol") or b""
    return [name for part in given.decode("latin-1").split(",") if (name := part.strip())]


def refusal(exchange: Exchange, *, origins: Collection[str] | None = None) -> tuple[int, Headers, bytes] | None:
    """Why this request cannot become a WebSocket, as an answer; None if it can.

    `origins`: those that a browser's page may come from, "scheme://host[:port]"; None: any. Clients that are no browsers send
    no Origin, and are let in.
    """
    request = exchange.request
    origin = request.header(b"origin")
    if origins is not None and origin is not None and origin.decode("latin-1") not in origins:
        denied = AccessDenied(f"pages of {origin.decode('latin-1')[:200]} may not open a WebSocket here", origin=True)
        return (403, *problem(denied))
    listener = exchange.listener
    if listener is not None and (listener.stopping or listener.successors >= listener.max_websockets):
        return (503, *problem(Overloaded(f"limit websockets is {listener.max_websockets}")))
    answer = _handshake(request)
    if answer.status_code == 101:
        return None
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.raw_items()
        if name.lower() in ("allow", "upgrade")
    ]
    if answer.status_code in (400, 426):  # RFC 6455 section 4.4: say which version is spoken
        headers.append((b"sec-websocket-version", b"13"))
    return answer.status_code, [*headers, (b"content-type", b"text/plain; charset=utf-8")], bytes(answer.body)


def accept(exchange: Exchange, socket: WebSocket, *, subprotocol: str = "", headers: Headers = ()) -> None:
    """The handshake's good end. `refusal` has been asked; `socket` gets what the client sends, beginning in this very call."""
    answer = _handshake(exchange.request)
    own = [(b"upgrade", b"websocket"), (b"sec-websocket-accept", answer.headers["Sec-WebSocket-Accept"].encode())]
    if subprotocol:
        own.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    exchange.upgrade([*own, *headers], socket)


def _handshake(request: Request) -> Any:
    """The library's opinion of the head that ours has read: its rules for method, version, Connection, Upgrade and key."""
    from websockets.datastructures import Headers as Given
    from websockets.http11 import Request as Asked
    from websockets.server import ServerProtocol

    given = Given()
    for name, value in request.headers:
        given[name.decode("ascii")] = value.decode("latin-1")
    path = request.target.decode("ascii")
    length = request.header(b"content-length")
    if request.header(b"transfer-encoding") is not None or (length or b"0").strip(b"0"):
        given = Given()  # no upgrade of a request with a body: its rest would be read as frames
    return ServerProtocol(logger=_quiet()).accept(Asked(path, given, request.method, f"HTTP/{request.version}"))


@lru_cache(maxsize=1)
def _quiet() -> Any:
    import logging

    logger = logging.getLogger("martlet.gateway.websocket")
    logger.setLevel(logging.CRITICAL)  # what clients do wrong is told to them, not to the log
    return logger


class WebSocket(Successor):
    """One WebSocket. `send`, `close`, `ping`; the callbacks are set by its user before `accept`.

    `on_message(data)` gets each message, text as str, binary as bytes; one that raises ends the connection with 1011.
    `on_close(code, reason)` comes exactly once, with the code that the client sent (1005 for none), the one that its fault was
    answered with, or 1006. `on_pause` and `on_drain` tell when the client begins and ends to read too slowly.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        from websockets.frames import Opcode
        from websockets.protocol import SERVER, Protocol

        self.terms = terms = terms or Terms()
        self.on_message: Callable[[str | bytes], None] = lambda data: None
        self.on_close: Callable[[int, str], None] = lambda code, reason: None
        self.on_pause: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.paused = False
        self.last_active = 0  # monotonic ns of the last frame, either way
        self.opened_at = 0
        sizes = (terms.message_bytes, terms.frame_bytes)
        self._protocol = Protocol(SERVER, max_size=sizes, logger=_quiet())
        self._text, self._binary, self._continued = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
        self._waiting: deque[Any] = deque()  # frames of one read at most: while they wait, nothing is read
        self._delivering = False
        self._message = bytearray()
        self._is_text = False
        self._closed = False  # on_close was called
        self._leaving = False  # `close` was called: messages come too late
        self._lost = False
        self._held = False
        self._read_paused = False
        self._heard = 0
        self._pinged = False
        self._deadline = _NEVER  # of the closing handshake
        self._write_deadline = _NEVER
        self._unsent = 0

    # for its user

    @property
    def connected(self) -> bool:
        """Messages can be sent."""
        from websockets.protocol import OPEN

        return not self._lost and self._protocol.state is OPEN

    @property
    def unsent_bytes(self) -> int:
        """What waits for the client to read."""
        return 0 if self._lost else self.transport.get_write_buffer_size()

    def send(self, data: str | bytes) -> None:
        """One message; nothing happens once the connection is closing."""
        if not self.connected:
            return
        if isinstance(data, str):
            self._protocol.send_text(data.encode("utf-8", "replace"))
        else:
            self._protocol.send_binary(data)
        self._flush()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; the client has `websocket_close_seconds` to answer it."""
        if self.connected:
            self._leaving = True
            self._protocol.send_close(code, _cut(reason))
            self._closing()
            self._flush()

    def fail(self, code: int, reason: str = "") -> None:
        """Close, and read nothing more."""
        if not self._lost:
            self._protocol.fail(code, _cut(reason))
            self._ended(code, reason)
            self._closing()
            self._flush()

    def hold(self, held: bool) -> None:
        """Deliver and read no further messages while their user is busy with those it has; `on_close` waits as well."""
        self._held = held
        if not held:
            self._deliver_waiting()
        self._pace()

    @property
    def lost(self) -> bool:
        """The client is gone, whatever of it still waits to be delivered."""
        return self._lost

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened_at = self.last_active = self._heard = self.listener.now

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.listener.lost(self)
        self._deliver_waiting()
        if self.paused:
            self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._closed or self._lost:
            return
        self.last_active = self._heard = self.listener.now
        self._pinged = False
        self._protocol.receive_data(data)
        self._waiting.extend(self._protocol.events_received())
        self._deliver_waiting()
        if self._protocol.close_sent is not None:
            self._closing()
        self._flush()

    def eof_received(self) -> bool:
        if not self._lost:
            self._protocol.receive_eof()
            self._flush()
        return False  # the transport closes itself

    def pause_writing(self) -> None:
        self.paused = True
        self._unsent = self.transport.get_write_buffer_size()
        self._write_deadline = self.listener.now + self.listener.response_write_ns
        self._pace()
        if self.on_pause is not None:
            self.on_pause()

    def resume_writing(self) -> None:
        self.paused = False
        self._write_deadline = _NEVER
        self._pace()
        if self.on_drain is not None:
            self.on_drain()

    # the listener's

    def sweep(self, now: int) -> None:
        if now >= self._deadline:
            self.transport.abort()
            return
        if now >= self._write_deadline:
            unsent = self.transport.get_write_buffer_size()
            if unsent >= self._unsent > 0:
                self.transport.abort()
                return
            self._unsent = unsent
            self._write_deadline = now + self.listener.response_write_ns
        if self._deadline != _NEVER:
            return
        terms = self.terms
        old = bool(terms.lifetime_seconds) and now - self.opened_at >= terms.lifetime_seconds * _SECOND
        if old or (terms.idle_seconds and now - self.last_active >= terms.idle_seconds * _SECOND):
            self.close(1001, "Going away")
        elif terms.ping_seconds and not self._read_paused:  # who is not read from cannot be heard
            self._listen_for_life(now, terms.ping_seconds * _SECOND)

    def drain(self) -> None:
        self.close(1001, "the server stops")

    # inside

    def _listen_for_life(self, now: int, patience: int) -> None:
        quiet = now - self._heard
        if quiet >= 2 * patience and self._pinged:
            self.transport.abort()
        elif quiet >= patience and not self._pinged:
            self._pinged = True
            self._protocol.send_ping(b"")
            self._write()

    def _deliver_waiting(self) -> None:
        """What was read and not delivered yet, as far as the user wants it; then the end, if there is one."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._waiting and (not self._held or self._leaving or self._closed):
                if not self._frame(self._waiting.popleft()):
                    self._waiting.clear()
        finally:
            self._delivering = False
        if self._waiting or self._closed:
            return
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            self._ended(received.code, received.reason)
        elif self._protocol.parser_exc is not None and sent is not None:
            self._ended(sent.code, sent.reason)
        elif self._lost:
            self._ended(_ABNORMAL, "")

    def _frame(self, frame: Any) -> bool:
        """Take one frame; False: there is nothing to be taken after it."""
        if self._closed or self._leaving:
            return False
        if frame.opcode is self._text or frame.opcode is self._binary:
            self._is_text = frame.opcode is self._text
            if frame.fin:
                return self._deliver(bytes(frame.data))
            self._message = bytearray(frame.data)
        elif frame.opcode is self._continued:
            self._message += frame.data
            if frame.fin:
                data, self._message = bytes(self._message), bytearray()
                return self._deliver(data)
        return True

    def _deliver(self, data: bytes) -> bool:
        try:
            self.on_message(data.decode() if self._is_text else data)
        except UnicodeDecodeError as error:
            self.fail(1007, f"{error.reason} at position {error.start}")
            return False
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the handler of a WebSocket's message failed", "exception": error}
            )
            self.fail(1011, "internal error")
            return False
        return True

    def _ended(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._message = bytearray()
            self.on_close(code, reason)

    def _closing(self) -> None:
        if self._deadline == _NEVER:
            self._deadline = self.listener.now + LIMITS["websocket_close_seconds"].default * _SECOND
        self._pace()

    def _flush(self) -> None:
        self.last_active = self.listener.now
        self._write()

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if self.transport.is_closing():
                return
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()

    def _pace(self) -> None:
        """Read on or not: not while the client does not read, since each ping would be answered into memory; but a closing
        handshake is read to its end."""
        pause = (self._held or self.paused) and self._deadline == _NEVER
        if pause == self._read_paused or self._lost or self.transport.is_closing():
            return
        self._read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


def _cut(reason: str) -> str:
    """As much of a reason as a close frame has room for."""
    return reason.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore")
