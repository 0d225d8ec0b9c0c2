"""ASGI applications behind the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.gateway.conftest import Serve, until

from martlet.gateway.asgi import AsgiHandler

GET = b"GET /a%20b?x=%20 HTTP/1.1\r\nHost: api.test:8701\r\nX-Case: Y\r\n\r\n"


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    return []


@pytest.fixture(autouse=True)
async def _collect(reports: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))


async def reply(send: Any, body: bytes = b"ok", status: int = 200, headers: tuple[Any, ...] = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def test_the_scope_and_the_body(serve: Serve) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        message = await receive()
        await reply(send, message["body"], 201, ((b"x-a", b"b"),))
        assert (await receive())["type"] == "http.disconnect"

    server = await serve(AsgiHandler(app))
    answer = await server.ask(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"))
    assert (answer.status, answer.body, answer.headers["x-a"], answer.headers["content-length"]) == (201, b"abc", "b", "3")
    scope = scopes[0]
    assert (scope["type"], scope["method"], scope["path"], scope["raw_path"]) == ("http", "POST", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["http_version"], scope["scheme"]) == (b"x=%20", "1.1", "http")
    assert scope["headers"][:2] == [(b"host", b"api.test:8701"), (b"x-case", b"Y")]
    assert (scope["server"], scope["client"][0], scope["martlet.context"]) == (("api.test", 8701), "127.0.0.1", None)


async def test_a_stream_with_trailers(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"2")]})

    answer = await (await serve(AsgiHandler(app))).ask(GET)
    assert (answer.body, answer.headers["trailer x-sum"]) == (b"onetwo", "2")


async def test_head(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"", 200, ((b"content-length", b"12345"),))

    answer = await (await serve(AsgiHandler(app))).ask(GET.replace(b"GET", b"HEAD"), "HEAD")
    assert answer.headers["content-length"] == "12345"


async def test_requests_of_one_connection_run_one_after_another(serve: Serve) -> None:
    running = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.005)
        running -= 1
        await reply(send)

    server = await serve(AsgiHandler(app))
    async with await server.connect() as client:
        client.send(GET * 5)
        for _ in range(5):
            assert (await client.read()).status == 200


async def test_an_app_that_fails_first_is_a_500(serve: Serve, reports: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("secret")

    answer = await (await serve(AsgiHandler(app))).ask(GET)
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert isinstance(reports[0]["exception"], ValueError)


@pytest.mark.parametrize("header", [(b"x", b"a\r\ny: z"), (b"x\n", b"a")])
async def test_an_app_that_breaks_a_header_is_a_500(serve: Serve, header: Any, reports: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, headers=(header,))

    answer = await (await serve(AsgiHandler(app))).ask(GET)
    assert (answer.status, "y" in answer.headers) == (500, False)
    assert reports


async def test_an_app_that_says_nothing_is_a_500(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    assert (await (await serve(AsgiHandler(app))).ask(GET)).status == 500


@pytest.mark.parametrize("fails", [True, False])
async def test_an_app_that_stops_in_the_middle_is_cut(serve: Serve, fails: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        if fails:
            raise ValueError

    server = await serve(AsgiHandler(app))
    async with await server.connect() as client:
        client.send(GET)
        await client.read_head()
        assert await client.rest() == b"3\r\none\r\n"


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
        [{"type": "websocket.accept"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.trailers", "headers": []}],
    ],
)
async def test_messages_out_of_order_are_errors(serve: Serve, messages: list[Any], reports: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    assert (await (await serve(AsgiHandler(app))).ask(GET)).status == 500
    assert isinstance(reports[0]["exception"], RuntimeError)


async def test_send_waits_for_a_slow_reader(serve: Serve) -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(400):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            sent += 100_000
        await send({"type": "http.response.body"})

    server = await serve(AsgiHandler(app))
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: any(connection.write_paused for connection in server.server.connections))
        await asyncio.sleep(0.05)
        assert sent < 30_000_000
        assert len((await client.read()).body) == 40_000_000


async def test_a_disconnect_is_received_and_sending_then_fails_quietly(serve: Serve, reports: list[dict[str, Any]]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        seen.append(await receive())
        try:
            await send({"type": "http.response.body", "body": b"two"})
        except OSError as error:
            seen.append(error)
            raise

    server = await serve(AsgiHandler(app))
    async with await server.connect() as client:
        client.send(GET)
        await client.read_head()
        client.writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        client.writer.transport.abort()
        await until(lambda: len(seen) == 2)
    assert seen[0] == {"type": "http.disconnect"}
    await until(lambda: not server.server.connections)
    assert reports == []


async def test_a_client_that_closed_its_side_before_anybody_waited_has_left(serve: Serve) -> None:
    closed, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await closed.wait()
        await scope["martlet.left"]()
        told.set()
        await reply(send, b"still there")

    server = await serve(AsgiHandler(app))
    async with await server.connect() as client:
        client.send(GET)
        client.writer.write_eof()
        await until(lambda: any(connection.eof for connection in server.server.connections))
        closed.set()
        await told.wait()
        assert (await client.read()).body == b"still there"
