"""ASGI's WebSockets: what an application may say when, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.frames import BINARY, CLOSE, close_body, handshake, open_socket
from tests.gateway.conftest import Serve, until

from martlet.gateway.asgi import AsgiHandler


class App:
    """Plays the messages that it is given; keeps what it received."""

    def __init__(self, *messages: dict[str, Any], echoes: bool = False, error: BaseException | None = None) -> None:
        self.messages, self.echoes, self.error = messages, echoes, error
        self.scope: dict[str, Any] = {}
        self.received: list[Any] = []
        self.failure: BaseException | None = None
        self.done = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.received.append(await receive())
        try:
            for message in self.messages:
                await send(message)
            while self.echoes:
                found = await receive()
                self.received.append(found)
                if found["type"] == "websocket.disconnect":
                    break
                await send({"type": "websocket.send", "text": found["text"], "bytes": found["bytes"]})
            if self.error is not None:
                raise self.error
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.done = True


ACCEPT = {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-a", b"1")]}


async def test_messages_go_both_ways(serve: Serve) -> None:
    app = App(ACCEPT, echoes=True)
    running = await serve(AsgiHandler(app))
    asked = handshake("/a%20b?c=d", sec_websocket_protocol="a, b")
    async with await open_socket(running.port, asked) as socket:
        assert (socket.status, socket.headers["sec-websocket-protocol"], socket.headers["x-a"]) == (101, "b", "1")
        socket.say("hello")
        assert await socket.text() == "hello"
        socket.send(BINARY, b"\x00")
        assert await socket.read() == (BINARY, b"\x00", True)
        socket.send(CLOSE, close_body(4001, b"enough"))
        assert (await socket.read()).code == 4001
    await until(lambda: app.done)
    scope = app.scope
    assert (scope["type"], scope["scheme"], scope["path"], scope["query_string"]) == ("websocket", "ws", "/a b", b"c=d")
    assert scope["subprotocols"] == ["a", "b"]
    assert app.received[0] == {"type": "websocket.connect"}
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 4001, "reason": "enough"}


async def test_an_app_may_refuse_with_403_or_in_its_own_words(serve: Serve) -> None:
    running = await serve(AsgiHandler(App({"type": "websocket.close"})))
    async with await open_socket(running.port) as socket:
        assert socket.status == 403
    start = {"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-b", b"2")]}
    parts = (
        {"type": "websocket.http.response.body", "body": b"tea", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"pot"},
    )
    running = await serve(AsgiHandler(App(start, *parts)))
    async with await open_socket(running.port) as socket:
        assert (socket.status, socket.headers["x-b"], await socket.reader.readexactly(6)) == (418, "2", b"teapot")


async def test_an_app_that_fails_is_answered_for(serve: Serve) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    cases = (
        (App(error=RuntimeError("planted")), 500, None),
        (App(), 500, None),
        (App(ACCEPT, error=RuntimeError("planted")), 101, 1011),
    )
    for app, status, code in (*cases, (App(ACCEPT), 101, 1000), (App({"type": "websocket.send", "text": "early"}), 500, None)):
        running = await serve(AsgiHandler(app))
        async with await open_socket(running.port) as socket:
            assert socket.status == status
            if code is not None:
                assert (await socket.read()).code == code


async def test_sending_to_a_client_that_left_is_an_os_error(serve: Serve) -> None:
    class Late(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            while (await receive())["type"] != "websocket.disconnect":
                pass
            try:
                await send({"type": "websocket.send", "text": "x"})
            except OSError as error:
                self.failure = error
                raise

    app = Late()
    running = await serve(AsgiHandler(app))
    async with await open_socket(running.port) as socket:
        socket.writer.transport.abort()
    await until(lambda: app.failure is not None)


async def test_an_app_that_does_not_receive_is_not_read_for(serve: Serve) -> None:
    """What waits for it is bounded; when it receives again, all of it comes, in order."""
    gate = asyncio.Event()
    taken: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await gate.wait()
        while (found := await receive())["type"] == "websocket.receive":
            taken.append(found["text"])

    handler = AsgiHandler(slow)
    running = await serve(handler)
    async with await open_socket(running.port) as socket:
        piece = "x" * 60_000
        for number in range(400):
            socket.say(f"{number}{piece}")
        ours = next(iter(running.server.connections))
        await until(lambda: ours._read_paused)  # type: ignore[union-attr]
        assert socket.writer.transport.get_write_buffer_size() > 1_000_000  # it waits on the client's side
        gate.set()
        await until(lambda: len(taken) == 400)
    assert [text.removesuffix(piece) for text in taken] == [str(number) for number in range(400)]
