"""WebSockets over real connections: the handshake, hostile frames, limits, slow clients, silence, the end of the server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.frames import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, Socket, close_body, frame, handshake, open_socket
from tests.gateway.conftest import GET, Running, Serve, until

from martlet.clock import ManualClock
from martlet.gateway.exchange import Exchange
from martlet.gateway.websocket import Terms, WebSocket, accept, offered, refusal, wants_websocket


class Echo:
    """Accepts each WebSocket, and sends messages back; what is no handshake is answered as HTTP."""

    def __init__(self, terms: Terms | None = None, **options: Any) -> None:
        self.terms, self.options = terms, options
        self.sockets: list[WebSocket] = []
        self.messages: list[str | bytes] = []
        self.ends: list[tuple[int, str]] = []
        self.answers = True

    def __call__(self, exchange: Exchange) -> None:
        if not wants_websocket(exchange.request):
            exchange.respond(200, (), b"plain")
            return
        refused = refusal(exchange, **self.options)
        if refused is not None:
            exchange.respond(*refused)
            return
        socket = WebSocket(self.terms)
        socket.on_message = lambda data: self.took(socket, data)
        socket.on_close = lambda code, reason: self.ends.append((code, reason))
        self.sockets.append(socket)
        accept(exchange, socket, subprotocol=next((name for name in offered(exchange.request) if name == "chat"), ""))

    def took(self, socket: WebSocket, data: str | bytes) -> None:
        if data == "fail":
            raise RuntimeError("planted")
        self.messages.append(data)
        if self.answers:
            socket.send(data)


async def opened(serve: Serve, echo: Echo, **options: Any) -> tuple[Running, Socket]:
    running = await serve(echo, **options)
    return running, await open_socket(running.port)


# --- the handshake


async def test_the_handshake_is_rfc_6455s(serve: Serve) -> None:
    running = await serve(Echo())
    async with await open_socket(running.port, handshake(sec_websocket_protocol="video, chat")) as socket:
        assert socket.status == 101
        assert socket.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert (socket.headers["upgrade"], socket.headers["connection"]) == ("websocket", "Upgrade")
        assert socket.headers["sec-websocket-protocol"] == "chat"
        socket.say("hello")
        assert await socket.text() == "hello"


REFUSED = [
    ("no key", handshake(sec_websocket_key=None), 400),
    ("a short key", handshake(sec_websocket_key="dGhl"), 400),
    ("a key that is no base64", handshake(sec_websocket_key="!" * 24), 400),
    ("two keys", handshake(sec_websocket_key=f"{KEY}\r\nSec-WebSocket-Key: {KEY}"), 400),
    ("no version", handshake(sec_websocket_version=None), 400),
    ("an old version", handshake(sec_websocket_version="8"), 400),
    ("no Connection: Upgrade", handshake(connection="keep-alive"), 426),
    ("another protocol too", handshake(upgrade="h2c, websocket"), 426),
    ("POST", handshake(method="POST"), 405),
    ("HTTP/1.0", handshake(version="1.0"), 505),
    ("a body", handshake(content_length="3") + b"abc", 426),
    ("a chunked body", handshake(transfer_encoding="chunked") + b"3\r\nabc\r\n0\r\n\r\n", 426),
]


@pytest.mark.parametrize(("name", "request_bytes", "status"), REFUSED, ids=[name for name, _, _ in REFUSED])
async def test_what_is_no_handshake_is_refused(serve: Serve, name: str, request_bytes: bytes, status: int) -> None:
    echo = Echo()
    running = await serve(echo)
    async with await open_socket(running.port, request_bytes) as socket:
        assert socket.status == status
        assert "sec-websocket-accept" not in socket.headers
    assert echo.sockets == []


async def test_pages_of_other_origins_are_refused(serve: Serve) -> None:
    running = await serve(Echo(origins=("http://good.example",)))
    for origin, status in (("http://good.example", 101), ("http://evil.example", 403), ("null", 403), (None, 101)):
        async with await open_socket(running.port, handshake(origin=origin)) as socket:
            assert socket.status == status, origin


async def test_no_extension_is_negotiated_and_a_compressed_frame_is_a_fault(serve: Serve) -> None:
    echo = Echo()
    running = await serve(echo)
    asked = handshake(sec_websocket_extensions="permessage-deflate; client_max_window_bits")
    async with await open_socket(running.port, asked) as socket:
        assert "sec-websocket-extensions" not in socket.headers
        socket.send(TEXT, b"\xcaH\xcd\xc9\xc9\x07\x00", reserved=4)
        assert (await socket.read()).code == 1002


async def test_other_requests_of_the_listener_are_served_as_before(serve: Serve) -> None:
    running, socket = await opened(serve, Echo())
    async with socket:
        assert (await running.ask(GET)).body == b"plain"
        async with await running.connect() as client:  # an upgrade after a kept-alive request
            client.send(GET + handshake())
            assert (await client.read()).body == b"plain"
            assert (await client.read_head())[0] == 101


async def test_websockets_have_a_limit_of_their_own(serve: Serve) -> None:
    running, first = await opened(serve, Echo(), limits={"websockets": 1})
    async with await open_socket(running.port) as second:
        assert second.status == 503
    assert (await running.ask(GET)).status == 200
    await first.close()
    await until(lambda: running.server.successors == 0)
    async with await open_socket(running.port) as third:
        assert third.status == 101


# --- messages


async def test_what_came_with_the_handshake_is_read(serve: Serve) -> None:
    running = await serve(Echo())
    whole = await open_socket(running.port, ahead=frame(TEXT, b"early") + frame(TEXT, b"bird")[:3])
    async with whole:
        assert await whole.text() == "early"
        whole.writer.write(frame(TEXT, b"bird")[3:])
        assert await whole.text() == "bird"


async def test_fragments_with_a_ping_between_are_one_message(serve: Serve) -> None:
    echo = Echo()
    _, socket = await opened(serve, echo)
    async with socket:
        socket.send(TEXT, "grü".encode()[:3], fin=False)
        socket.send(PING, b"x")
        socket.send(CONT, "grü".encode()[3:], fin=False)
        socket.send(CONT, b"", fin=False)
        socket.send(CONT, b"n")
        assert await socket.read() == (PONG, b"x", True)
        assert await socket.text() == "grün"
        socket.send(BINARY, b"\x00\xff")
        assert await socket.read() == (BINARY, b"\x00\xff", True)
    assert echo.messages == ["grün", b"\x00\xff"]


HOSTILE: list[tuple[str, list[tuple[int, bytes, dict[str, Any]]], int]] = [
    ("not masked", [(TEXT, b"x", {"masked": False})], 1002),
    ("a reserved bit", [(TEXT, b"x", {"reserved": 1})], 1002),
    ("an unknown opcode", [(3, b"x", {})], 1002),
    ("an unknown control opcode", [(11, b"x", {})], 1002),
    ("a continuation of nothing", [(CONT, b"x", {})], 1002),
    ("a message within a message", [(TEXT, b"x", {"fin": False}), (TEXT, b"y", {})], 1002),
    ("a fragmented ping", [(PING, b"x", {"fin": False})], 1002),
    ("a long ping", [(PING, b"x" * 126, {})], 1002),
    ("a close of one byte", [(CLOSE, b"\x03", {})], 1002),
    ("a close code of nobody", [(CLOSE, close_body(999), {})], 1002),
    ("a close code that is never sent", [(CLOSE, close_body(1006), {})], 1002),
    ("a close reason that is no UTF-8", [(CLOSE, close_body(1000, b"\xff"), {})], 1007),
    ("text that is no UTF-8", [(TEXT, b"ok \xff", {})], 1007),
    ("text that ends within a character", [(TEXT, "ü".encode()[:1], {})], 1007),
    ("a surrogate", [(TEXT, b"\xed\xa0\x80", {})], 1007),
    ("no UTF-8 over two fragments", [(TEXT, b"\xc3", {"fin": False}), (CONT, b"\x28", {})], 1007),
    ("a frame larger than a message may be", [(BINARY, b"", {"length": 1025})], 1009),
    ("a frame of nearly all there is", [(BINARY, b"", {"length": (1 << 63) - 1})], 1009),
    ("fragments larger than a message may be", [(BINARY, b"x" * 600, {"fin": False}), (CONT, b"x" * 600, {})], 1009),
    ("a handler that fails", [(TEXT, b"fail", {})], 1011),
]


@pytest.mark.parametrize(("name", "frames", "code"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
async def test_hostile_frames_end_the_connection_by_their_code(
    serve: Serve, name: str, frames: list[tuple[int, bytes, dict[str, Any]]], code: int
) -> None:
    echo = Echo(Terms(message_bytes=1024))
    running, socket = await opened(serve, echo)
    silent = asyncio.get_running_loop()
    silent.set_exception_handler(lambda loop, context: None)
    async with socket:
        for opcode, payload, more in frames:
            socket.send(opcode, payload, **more)
        socket.say("too late")
        assert (await socket.read()).code == code
        assert await socket.ended() == b""
    await until(lambda: not running.server.connections)
    assert [end[0] for end in echo.ends] == [code]
    assert echo.messages == []


async def test_a_frame_may_have_a_limit_of_its_own(serve: Serve) -> None:
    _, socket = await opened(serve, Echo(Terms(message_bytes=100, frame_bytes=40)))
    async with socket:
        for part in range(2):
            socket.send(CONT if part else TEXT, b"x" * 40, fin=False)
        socket.send(CONT, b"x" * 20)
        assert await socket.text() == "x" * 100
        socket.send(TEXT, b"x" * 41)
        assert (await socket.read()).code == 1009


async def test_endless_empty_fragments_take_no_memory(serve: Serve) -> None:
    _, socket = await opened(serve, Echo(Terms(message_bytes=10)))
    async with socket:
        socket.send(TEXT, b"a", fin=False)
        for _ in range(20_000):
            socket.send(CONT, b"", fin=False)
        await socket.writer.drain()
        socket.send(CONT, b"b")
        assert await socket.text() == "ab"


# --- the end


async def test_a_close_is_answered_with_its_own_code(serve: Serve) -> None:
    for body, code, reason in ((close_body(3001, b"bye"), 3001, "bye"), (b"", 1005, "")):
        echo = Echo()
        echo.answers = False
        _, socket = await opened(serve, echo)
        async with socket:
            socket.say("last")
            socket.send(CLOSE, body)
            socket.say("after the end")
            assert await socket.read() == (CLOSE, body, True)
            assert await socket.ended() == b""
        await until(lambda echo=echo: bool(echo.ends))  # type: ignore[misc]
        assert (echo.ends, echo.messages) == ([(code, reason)], ["last"])


async def test_a_client_that_vanishes_ends_with_1006(serve: Serve) -> None:
    for abort in (True, False):
        echo = Echo()
        running, socket = await opened(serve, echo)
        if abort:
            socket.writer.transport.abort()
        else:
            await socket.close()
        await until(lambda running=running: not running.server.connections)  # type: ignore[misc]
        assert echo.ends == [(1006, "")]


async def test_what_comes_after_our_close_is_not_delivered(serve: Serve, manual: ManualClock) -> None:
    echo = Echo()
    running, socket = await opened(serve, echo, clock=manual)
    async with socket:
        echo.sockets[0].close(4000, "ü" * 100)
        found = await socket.read()
        assert (found.code, found.reason) == (4000, "ü" * 61)  # whole characters, as many as there is room for
        socket.say("too late")
        socket.send(CLOSE, close_body(4000))
        assert await socket.ended() == b""
    await until(lambda: not running.server.connections)
    assert (echo.ends, echo.messages) == ([(4000, "")], [])


async def test_who_does_not_answer_a_close_is_cut(serve: Serve, manual: ManualClock) -> None:
    echo = Echo()
    running, socket = await opened(serve, echo, clock=manual)
    async with socket:
        echo.sockets[0].close()
        assert (await socket.read()).code == 1000
        manual.advance(4)
        running.server.sweep()
        assert running.server.connections
        manual.advance(1)
        running.server.sweep()
        await until(lambda: not running.server.connections)
    assert echo.ends == [(1006, "")]


async def test_silence_is_pinged_and_then_cut(serve: Serve, manual: ManualClock) -> None:
    echo = Echo(Terms(ping_seconds=30))
    running, socket = await opened(serve, echo, clock=manual)
    async with socket:
        for answered in (True, False):
            manual.advance(30)
            running.server.sweep()
            assert (await socket.read()).opcode == PING
            if answered:
                socket.send(PONG)
                socket.say("here")
                assert await socket.text() == "here"
        manual.advance(30)
        running.server.sweep()
        await socket.ended()
    assert echo.ends == [(1006, "")]


@pytest.mark.parametrize(
    ("terms", "seconds"), [(Terms(ping_seconds=0, idle_seconds=600), 600), (Terms(ping_seconds=0, lifetime_seconds=7200), 7200)]
)
async def test_idle_and_old_connections_are_sent_away(serve: Serve, manual: ManualClock, terms: Terms, seconds: int) -> None:
    echo = Echo(terms)
    running, socket = await opened(serve, echo, clock=manual)
    async with socket:
        manual.advance(seconds - 10)
        running.server.sweep()
        socket.say("busy")
        assert await socket.text() == "busy"
        manual.advance(10 if terms.lifetime_seconds else seconds - 1)
        running.server.sweep()
        if terms.idle_seconds:
            assert running.server.connections
            manual.advance(1)
            running.server.sweep()
        assert (await socket.read()).code == 1001


async def test_the_server_says_goodbye(serve: Serve) -> None:
    echo = Echo()
    running, socket = await opened(serve, echo)
    async with socket:
        stopping = asyncio.ensure_future(running.server.shutdown(20))
        assert (await socket.read()).code == 1001
        assert not stopping.done()
        socket.send(CLOSE, close_body(1001))
        await stopping
    assert echo.ends == [(1001, "")]


# --- slow clients


async def fill(socket: WebSocket, piece: bytes = b"x" * 65_536) -> None:
    """Send until the client's end is full."""
    for _ in range(2_000):
        if socket.paused:
            return
        socket.send(piece)
        await asyncio.sleep(0)
    raise AssertionError("a client that does not read is never full")


async def test_who_does_not_read_is_not_read_from_and_is_cut_at_last(serve: Serve, manual: ManualClock) -> None:
    echo = Echo()
    running, socket = await opened(serve, echo, clock=manual)
    async with socket:
        socket.reader._transport.pause_reading()  # type: ignore[attr-defined]
        ours = echo.sockets[0]
        await fill(ours)
        held = ours.unsent_bytes
        for _ in range(1_000):
            socket.send(PING, b"x" * 125)  # each would be answered into our memory
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await socket.writer.drain()
        assert ours.unsent_bytes <= held + 300_000  # one read of them may have been under way
        manual.advance(60)
        running.server.sweep()
        await until(lambda: not running.server.connections)
    assert echo.ends == [(1006, "")]


async def test_a_slow_client_is_waited_for(serve: Serve) -> None:
    echo = Echo()
    _, socket = await opened(serve, echo)
    async with socket:
        socket.reader._transport.pause_reading()  # type: ignore[attr-defined]
        drained = asyncio.Event()
        echo.sockets[0].on_drain = drained.set
        await fill(echo.sockets[0])
        socket.reader._transport.resume_reading()  # type: ignore[attr-defined]
        while not drained.is_set():
            assert (await socket.read()).opcode == BINARY
        socket.say("still here")
        while (found := await socket.read()).opcode == BINARY:
            pass
        assert found.payload == b"still here"


async def test_a_user_may_hold_its_client(serve: Serve) -> None:
    echo = Echo()
    _, socket = await opened(serve, echo)
    async with socket:
        echo.sockets[0].hold(True)
        socket.say("wait")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await socket.reader.read(1)
        assert echo.messages == []
        echo.sockets[0].hold(False)
        assert await socket.text() == "wait"
