"""Proxy routes over real sockets: what another server is sent, what comes back, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.gateway.conftest import Answer, Running, Serve, until
from tests.gateway.test_edge import OK, Functions

from martlet.clock import Clock
from martlet.errors import InvalidInput
from martlet.gateway.edge import Edge
from martlet.gateway.http import Exchange
from martlet.types import Route, Throttle, Upstream

OPEN = ("127.0.0.1",)


class Echo:
    """A server that tells what it was sent, and keeps connections."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        request = exchange.request
        headers = [(b"X-From", b"legacy"), (b"Keep-Alive", b"timeout=5"), (b"Content-Type", b"text/plain")]
        exchange.respond(200, headers, b"%b %b %b" % (request.method.encode(), request.target, request.body))


class Script:
    """A server that plays `play(reader, writer)` for each connection."""

    def __init__(self, play: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.play = play
        self.connections = 0
        self.closed = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.play(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the gateway has closed: `closed` tells
        finally:
            self.closed += 1
            writer.close()


Scripted = Callable[[Any], Awaitable[Script]]
Front = Callable[..., Awaitable[Running]]


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    servers: list[asyncio.Server] = []

    async def start(play: Any) -> Script:
        script = Script(play)
        servers.append(await asyncio.start_server(script.serve, "127.0.0.1", 0))
        script.port = servers[-1].sockets[0].getsockname()[1]
        return script

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def front(serve: Serve) -> AsyncIterator[Front]:
    """`await front(route, ..., called_hosts=..., functions=...)`: an edge with these routes."""
    edges: list[Edge] = []

    async def start(*routes: Route, called_hosts: tuple[str, ...] = OPEN, functions: Any = None) -> Running:
        edge = Edge(functions or Functions(OK), clock=Clock(), called_hosts=called_hosts)
        edges.append(edge)
        edge.set_routes([("shop", route, f"shop-{route.function}") for route in routes])
        return await serve(edge.handle, streams=edge.takes_streams, stream_body_bytes=1 << 40)

    yield start
    for edge in edges:
        await edge.close()


def proxy(port: int, path: str = "/{rest+}", *, base: str = "", method: str = "ANY", **more: Any) -> Route:
    own = {name: more.pop(name) for name in ("strip", "host", "timeout_seconds") if name in more}
    return Route(method=method, path=path, upstream=Upstream(to=f"http://127.0.0.1:{port}{base}", **own), **more)


def get(target: str = "/a", headers: str = "", method: str = "GET", body: bytes = b"") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: shop.localhost:8700\r\n{headers}\r\n".encode() + body


# --- what is sent, what comes back -----------------------------------------------------------------------------------------


async def test_a_request_goes_on_as_it_came(front: Front, serve: Serve) -> None:
    echo = Echo()
    edge = await front(proxy((await serve(echo)).port))
    headers = (
        "Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        "Proxy-Authorization: x\r\nProxy: evil\r\n"
        "X-Forwarded-For: 192.0.2.9\r\nX_Forwarded_For: spoofed\r\nX-Forwarded-Host: spoofed\r\nForwarded: for=192.0.2.9\r\n"
        "Cookie: a=1\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n"
    )
    said = await edge.ask(get("/a%20b/%C3%BC?x=1&&y=%2F", headers, "PUT", b"hi"))
    assert (said.status, said.body) == (200, b"PUT /a%20b/%C3%BC?x=1&&y=%2F hi")
    assert said.headers["x-from"] == "legacy"
    assert "keep-alive" not in said.headers
    assert said.headers["x-amzn-requestid"]
    request = echo.requests[0]
    assert [value for name, value in request.headers if name.lower() == b"x-a"] == [b"1", b"2"]
    for gone in (b"x-secret", b"te", b"upgrade", b"proxy-authorization", b"proxy", b"x_forwarded_for", b"connection"):
        assert request.header(gone) is None, gone
    assert request.host.startswith(b"127.0.0.1:")
    assert request.header(b"x-forwarded-for") == b"192.0.2.9, 127.0.0.1"
    assert request.header(b"x-forwarded-host") == b"shop.localhost:8700"
    assert (request.header(b"x-forwarded-proto"), request.header(b"x-forwarded-port")) == (b"http", b"8700")
    assert request.header(b"forwarded") == b'for=192.0.2.9, for=127.0.0.1;proto=http;host="shop.localhost:8700"'
    assert re.fullmatch(rb"1\.1 martlet-[0-9a-f]{8}", request.header(b"via") or b"")


@pytest.mark.parametrize(
    ("options", "target", "expected"),
    [
        ({}, "/legacy/a?b", b"/legacy/a?b"),
        ({"base": "/old/"}, "/legacy/a", b"/old/legacy/a"),
        ({"strip": "/legacy"}, "/legacy/a", b"/a"),
        ({"strip": "/legacy", "base": "/old"}, "/legacy/a//b/", b"/old/a//b/"),
    ],
)
async def test_where_it_goes(front: Front, serve: Serve, options: Any, target: str, expected: bytes) -> None:
    echo = Echo()
    edge = await front(proxy((await serve(echo)).port, "/legacy/{rest+}", **options))
    assert (await edge.ask(get(target))).status == 200
    assert echo.requests[0].target == expected


async def test_the_client_s_host_on_request(front: Front, serve: Serve) -> None:
    echo = Echo()
    edge = await front(proxy((await serve(echo)).port, host="client"))
    await edge.ask(get())
    assert echo.requests[0].host == b"shop.localhost:8700"


@pytest.mark.parametrize("end", ["../admin", "%2e%2E/admin", "..%2fadmin", ".", "..%5Cx"])
async def test_no_path_leads_out_of_its_route(front: Front, serve: Serve, end: str) -> None:
    echo = Echo()
    edge = await front(proxy((await serve(echo)).port, "/legacy/{rest+}"))
    assert (await edge.ask(get(f"/legacy/{end}"))).status == 400
    assert echo.requests == []


async def test_connections_are_kept(front: Front, serve: Serve) -> None:
    echo = Echo()
    edge = await front(proxy((await serve(echo)).port))
    async with await edge.connect() as client:
        for method in ("GET", "POST", "PUT", "GET"):
            client.send(get(method=method, headers="Content-Length: 1\r\n", body=b"x"))
            assert (await client.read()).status == 200
    assert len({request.client for request in echo.requests}) == 1


async def test_a_head_keeps_its_length_and_a_204_has_no_body(front: Front, scripted: Scripted) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            status = b"204 No Content" if b"/none" in head else b"200 OK\r\nContent-Length: 123"
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 %b\r\n\r\n" % status)

    script = await scripted(play)
    edge = await front(proxy(script.port))
    async with await edge.connect() as client:
        client.send(get(method="HEAD"))
        said = await client.read("HEAD")
        assert (said.status, said.headers["content-length"]) == (200, "123")
        client.send(get("/none"))
        assert (await client.read()).status == 204
    assert script.connections == 1


# --- bodies stream ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_stream_both_ways(front: Front, scripted: Scripted, chunked: bool) -> None:
    """Each part is passed on before the next one is sent: who gathers would wait for ever."""
    heads: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            if chunked:
                assert await reader.readuntil(b"\r\n") == b"5\r\n"
            piece = await reader.readexactly(5)
            if chunked:
                await reader.readexactly(2)
            writer.write(b"5\r\n%b\r\n" % piece.upper())
        if chunked:
            assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.write(b"0\r\n\r\n")

    edge = await front(proxy((await scripted(play)).port))
    async with await edge.connect() as client:
        client.send(get(method="POST", headers="Transfer-Encoding: chunked\r\n" if chunked else "Content-Length: 15\r\n"))
        assert (await client.read_head())[0] == 200
        for piece in (b"one..", b"two..", b"three"):
            client.send(b"5\r\n%b\r\n" % piece if chunked else piece)
            assert await asyncio.wait_for(client.reader.readuntil(piece.upper() + b"\r\n"), 5)
        if chunked:
            client.send(b"0\r\n\r\n")
        assert await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), 5) == b"0\r\n\r\n"
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: 15"
    assert heads[0].lower().count(framing) == 1


async def test_a_slow_server_holds_up_its_client_and_not_our_memory(front: Front, scripted: Scripted) -> None:
    go = asyncio.Event()
    total = 64 << 20

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        left = total
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    edge = await front(proxy((await scripted(play)).port))
    async with await edge.connect() as client:
        client.send(get(method="PUT", headers=f"Content-Length: {total}\r\n"))
        sent = 0
        piece = bytes(1 << 20)

        async def upload() -> None:
            nonlocal sent
            while sent < total:
                client.send(piece)
                await client.writer.drain()
                sent += len(piece)

        task = asyncio.create_task(upload())
        await until(lambda: bool(edge.server.connections) and any(one.read_paused for one in edge.server.connections))
        assert sent < total // 2, "what nobody takes is not taken in either"
        go.set()
        await task
        assert (await client.read()).status == 201


async def test_a_slow_client_holds_up_its_server(front: Front, scripted: Scripted) -> None:
    written = 0
    total = 64 << 20

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(bytes(1 << 20))
            await writer.drain()
            written += 1 << 20

    edge = await front(proxy((await scripted(play)).port))
    async with await edge.connect() as client:
        client.send(get())
        await client.read_head()
        await until(lambda: any(one.write_paused for one in edge.server.connections))
        for _ in range(1_000):  # rounds of the loop, in each of which the server could send more
            await asyncio.sleep(0)
            assert max(one.transport.get_write_buffer_size() for one in edge.server.connections) < 1 << 20
        assert written < total
        assert len(await asyncio.wait_for(client.reader.readexactly(total), 60)) == total


# --- what goes wrong -------------------------------------------------------------------------------------------------------


async def test_nobody_there_is_502(front: Front) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    said = await (await front(proxy(port))).ask(get())
    assert (said.status, said.headers["content-type"]) == (502, "application/problem+json")
    assert str(port).encode() not in said.body


async def test_too_slow_is_504_and_the_connection_goes(front: Front, scripted: Scripted) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    script = await scripted(play)
    said = await (await front(proxy(script.port, timeout_seconds=0.05))).ask(get())
    assert said.status == 504
    await until(lambda: script.closed == 1)


BROKEN = [
    b"rubbish\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX",
    b"",
]


@pytest.mark.parametrize("answer", BROKEN, ids=range(len(BROKEN)))
async def test_what_is_no_answer_is_502(front: Front, scripted: Scripted, answer: bytes) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    script = await scripted(play)
    assert (await (await front(proxy(script.port))).ask(get(method="POST", headers="Content-Length: 0\r\n"))).status == 502
    assert script.connections == 1, "nothing is sent twice"


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"])
async def test_an_answer_that_is_cut_is_cut_for_the_client(front: Front, scripted: Scripted, framing: bytes) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing)

    edge = await front(proxy((await scripted(play)).port))
    async with await edge.connect() as client:
        client.send(get())
        await client.read_head()
        rest = await client.rest()
        assert rest in (b"half", b"4\r\nhalf\r\n"), "no last chunk, and less than the length"


async def test_a_client_that_leaves_ends_the_request(front: Front, scripted: Scripted) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    script = await scripted(play)
    edge = await front(proxy(script.port))
    async with await edge.connect() as client:
        client.send(get())
        await until(lambda: script.connections == 1)
    await until(lambda: script.closed == 1)


async def test_a_body_that_is_cut_is_cut_for_the_server(front: Front, scripted: Scripted) -> None:
    got: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got.append(await reader.read(4))
        got.append(await reader.read())

    script = await scripted(play)
    edge = await front(proxy(script.port))
    client = await edge.connect()
    client.send(get(method="POST", headers="Transfer-Encoding: chunked\r\n", body=b"4\r\nhalf\r\n"))
    await until(lambda: len(got) == 1)
    await client.close()
    await until(lambda: script.closed == 1)
    assert b"0\r\n\r\n" not in b"".join(got)


async def test_a_server_that_answers_early_is_heard(front: Front, scripted: Scripted) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    edge = await front(proxy((await scripted(play)).port))
    async with await edge.connect() as client:
        client.send(get(method="POST", headers="Content-Length: 1000000\r\n", body=b"x"))
        said = await client.read()
    assert (said.status, said.body, said.headers["connection"]) == (413, b"no", "close")


@pytest.mark.parametrize(("method", "status", "connections"), [("GET", 200, 2), ("PUT", 200, 2), ("POST", 502, 1)])
async def test_a_kept_connection_that_was_closed(
    front: Front, scripted: Scripted, method: str, status: int, connections: int
) -> None:
    """The server closes when the second request comes: only what may be done twice is sent again."""
    script: Script

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if script.connections == 1:
            await reader.readuntil(b"\r\n\r\n")

    script = await scripted(play)
    edge = await front(proxy(script.port))
    async with await edge.connect() as client:
        client.send(get())
        assert (await client.read()).status == 200
        client.send(get(method=method, headers="Content-Length: 0\r\n"))
        assert (await client.read()).status == status
    assert script.connections == connections


async def test_bytes_behind_an_answer_reach_nobody(front: Front, scripted: Scripted) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()

    script = await scripted(play)
    edge = await front(proxy(script.port))
    async with await edge.connect() as client:
        for _ in range(2):
            client.send(get())
            said = await client.read()
            assert (said.body, said.headers.get("x-evil")) == (b"ok", None)
    assert script.connections == 2, "such a connection is not kept"


# --- where it may go -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [(), ("127.0.0.2",), ("127.0.0.1:1",)])
async def test_this_host_is_refused(front: Front, serve: Serve, hosts: tuple[str, ...]) -> None:
    echo = Echo()
    edge = await front(proxy((await serve(echo)).port), called_hosts=hosts)
    assert (await edge.ask(get())).status == 502
    assert echo.requests == []


async def test_this_host_by_its_port(front: Front, serve: Serve) -> None:
    port = (await serve(Echo())).port
    assert (await (await front(proxy(port), called_hosts=(f"127.0.0.1:{port}",))).ask(get())).status == 200


async def test_a_request_that_comes_back_is_stopped(serve: Serve) -> None:
    edge = Edge(Functions(OK), clock=Clock(), called_hosts=OPEN)
    here = await serve(edge.handle)
    edge.set_routes([("shop", proxy(here.port, host="client"), "")])
    assert (await here.ask(get())).status == 508
    await edge.close()


# --- which route a request takes -------------------------------------------------------------------------------------------


def to(function: str, path: str = "/a", **more: Any) -> Route:
    return Route(method="GET", path=path, function=function, **more)


async def chosen(edge: Running, headers: str = "") -> bytes:
    return (await edge.ask(get(headers=headers))).body[:3]


async def test_by_header(front: Front, serve: Serve) -> None:
    functions = Functions(OK)
    edge = await front(to("new", when=(("x-beta", "1"),)), proxy((await serve(Echo())).port), functions=functions)
    assert [await chosen(edge, line) for line in ("", "X-Beta: 1\r\n", "X-Beta: 2\r\n")] == [b"GET", b"ok", b"GET"]


async def test_by_path_and_method(front: Front, serve: Serve) -> None:
    edge = await front(to("new"), proxy((await serve(Echo())).port))
    assert (await edge.ask(get("/a"))).body == b"ok"
    assert (await edge.ask(get("/a", method="DELETE"))).body == b"DELETE /a "
    assert (await edge.ask(get("/b"))).body == b"GET /b "


async def test_a_condition_comes_before_none_and_a_route_may_have_several(front: Front) -> None:
    functions = Functions(OK)
    edge = await front(
        to("old"), to("canary", share=0.0), to("beta", when=(("x-beta", "*"),)), to("both", share=100.0, when=(("x-b", "2"),)),
        functions=functions,
    )  # fmt: skip
    for line in ("", "X-Beta: y\r\n", "X-B: 2\r\n"):
        await edge.ask(get(headers=line))
    assert [one.function for one in functions.seen] == ["shop-old", "shop-beta", "shop-both"]


async def test_no_route_takes_it(front: Front) -> None:
    assert (await (await front(to("new", share=0.0))).ask(get())).status == 404


@pytest.mark.parametrize("route", [to("b"), to("b", share=10.0)])
async def test_routes_that_take_the_same_are_refused(front: Front, route: Route) -> None:
    with pytest.raises(InvalidInput, match="conflict"):
        await front(to("a", share=route.share), route)


async def test_throttles_hold_for_proxies(front: Front, serve: Serve) -> None:
    throttle = Throttle(rate=0.001, burst=1)
    edge = await front(proxy((await serve(Echo())).port, throttle=throttle))
    assert [(await edge.ask(get())).status for _ in range(2)] == [200, 429]


async def test_a_slow_body_is_handed_to_the_route_that_was_chosen(front: Front, serve: Serve) -> None:
    """By turns, the choice is made once, though it is asked for before the body is here and after."""
    functions = Functions(OK)
    route = Route(method="POST", path="/a", function="new", share=50.0, by="request")
    edge = await front(route, proxy((await serve(Echo())).port), functions=functions)
    for _ in range(10):
        async with await edge.connect() as client:
            client.send(get(method="POST", headers="Content-Length: 4\r\n", body=b"ab"))
            await until(lambda: bool(edge.server.connections))
            client.send(b"cd")
            said: Answer = await client.read()
            assert said.body in (b"ok", b"POST /a abcd")
    assert 4 <= len(functions.seen) <= 6
