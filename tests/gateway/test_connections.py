"""Connections over real sockets: slow clients, the limit of connections, sockets accepted elsewhere, shutdown."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

import pytest
from tests.gateway.conftest import GET, POST, Client, Held, Serve, echo, until

from martlet.clock import Clock, ManualClock
from martlet.errors import InvalidInput, StartFailed
from martlet.gateway.http import Exchange, HttpServer

# --- slow clients -----------------------------------------------------------------------------------------------------


async def test_a_head_that_never_ends_is_408(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        await until(lambda: any(connection.unread for connection in server.server.connections))
        for _ in range(9):  # a byte a second does not help
            manual.advance(1)
            server.server.sweep()
            client.send(b"X")
            await asyncio.sleep(0.005)
        assert server.server.connections
        manual.advance(2)
        server.server.sweep()
        assert (await client.read()).status == 408
        assert await client.rest() == b""


async def test_the_second_head_of_a_connection_has_its_time_limit_too(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(GET)
        await client.read()
        answer = asyncio.ensure_future(client.read())
        for _ in range(20):  # far within keep_alive_seconds, were it idle
            client.send(b"X")
            await asyncio.sleep(0.005)
            manual.advance(1)
            server.server.sweep()
            if answer.done():
                break
        assert (await answer).status == 408


async def test_a_connection_that_says_nothing_is_closed_in_silence(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        await until(lambda: bool(server.server.connections))
        manual.advance(11)
        server.server.sweep()
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed_after_keep_alive(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(GET)
        await client.read()
        manual.advance(70)
        server.server.sweep()
        client.send(GET)
        await client.read()
        manual.advance(76)
        server.server.sweep()
        assert await client.rest() == b""


async def test_a_body_that_stalls_is_408(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 1000\r\n\r\nabc")
        await until(lambda: server.server.buffered == 3)
        manual.advance(31)
        server.server.sweep()
        assert (await client.read()).status == 408
    assert server.server.buffered == 0


async def test_a_body_that_drips_is_408_too(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 1000000\r\n\r\n")
        answer = asyncio.ensure_future(client.read())
        for _ in range(20):  # never a pause of 30 seconds, yet far below 500 bytes a second
            client.send(b"x")
            await asyncio.sleep(0.005)
            manual.advance(10)
            server.server.sweep()
            if answer.done():
                break
        assert (await answer).status == 408


async def test_a_slow_body_at_the_least_rate_is_served(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 100000\r\n\r\n")
        for number in range(1, 20):
            client.send(b"x" * 5000)
            await until(lambda: server.server.buffered == number * 5000)  # noqa: B023 — awaited at once
            manual.advance(9)
            server.server.sweep()
        client.send(b"x" * 5000)
        assert (await client.read()).status == 200


async def test_a_handler_may_take_its_time(serve: Serve, manual: ManualClock) -> None:
    held = Held()
    server = await serve(held, clock=manual)
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: bool(held.exchanges))
        manual.advance(3600)
        server.server.sweep()
        held.exchanges[0].respond(200, (), b"at last")
        assert (await client.read()).body == b"at last"


async def test_a_client_that_never_reads_is_cut(serve: Serve, manual: ManualClock) -> None:
    server = await serve(lambda exchange: exchange.respond(200, (), b"x" * 50_000_000), clock=manual)
    async with await server.connect() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET)
        (connection,) = server.server.connections or await _connections(server.server)
        await until(lambda: connection.write_paused)
        for _ in range(3):
            await asyncio.sleep(0.05)
            manual.advance(61)
            server.server.sweep()
        await until(lambda: not server.server.connections)


async def _connections(server: HttpServer) -> Any:
    await until(lambda: bool(server.connections))
    return server.connections


async def test_the_lingering_close_ends_by_itself(serve: Serve, manual: ManualClock) -> None:
    server = await serve(echo, clock=manual)
    async with await server.connect() as client:
        client.send(b"garbage\n")
        assert (await client.read()).status == 400
        assert server.server.connections
        manual.advance(6)
        server.server.sweep()
        await until(lambda: not server.server.connections)


# --- connections ------------------------------------------------------------------------------------------------------


async def test_beyond_the_limit_of_connections_is_an_immediate_503(serve: Serve) -> None:
    server = await serve(echo, limits={"connections": 2})
    async with await server.connect() as first, await server.connect() as second:
        for client in (first, second):
            client.send(GET)
            assert (await client.read()).status == 200
        async with await server.connect() as third:
            answer = await third.read()
            assert (answer.status, "retry-after" in answer.headers) == (503, True)
        first.send(GET)
        assert (await first.read()).status == 200


async def test_a_socket_accepted_elsewhere_is_served_with_its_context(serve: Serve) -> None:
    seen: list[object] = []

    def handler(exchange: Exchange) -> None:
        seen.append((exchange.request.context, exchange.request.client))
        echo(exchange)

    server = await serve(handler)
    for family in (socket.AF_UNIX, socket.AF_INET):
        if family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                theirs = socket.create_connection(listener.getsockname())
                ours = listener.accept()[0]
        server.server.accept(ours, ("10.0.0.9", 7), context="sandbox-1")
        reader, writer = await asyncio.open_connection(sock=theirs)
        async with Client(reader, writer) as client:
            client.send(GET + GET)
            assert (await client.read()).status == 200
            assert (await client.read()).status == 200
    assert seen == [("sandbox-1", ("10.0.0.9", 7))] * 4


async def test_nagle_is_off(serve: Serve) -> None:
    server = await serve(echo)
    async with await server.connect() as client:
        client.send(GET)
        await client.read()
        (connection,) = server.server.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_taken_port_is_a_start_failure_with_a_remedy(serve: Serve) -> None:
    server = await serve(echo)
    other = HttpServer(echo, clock=Clock(), name="edge")
    with pytest.raises(StartFailed, match=f"edge: port {server.port} of 127.0.0.1 is taken") as caught:
        await other.listen("127.0.0.1", server.port)
    assert "another port" in caught.value.remedy


def test_a_limit_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="connection_count"):
        HttpServer(echo, clock=Clock(), limits={"connection_count": 5})


async def test_a_request_leaves_no_garbage_for_the_collector(serve: Serve) -> None:
    server = await serve(echo)
    async with await server.connect() as client:
        client.send(GET)
        await client.read()
        gc.collect()
        before = sum(isinstance(thing, Exchange) for thing in gc.get_objects())
        gc.disable()
        try:
            for _ in range(50):
                client.send(POST + b"Content-Length: 1\r\n\r\nx")
                await client.read()
            assert sum(isinstance(thing, Exchange) for thing in gc.get_objects()) <= before
        finally:
            gc.enable()


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_shutdown_finishes_what_was_accepted(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as busy, await server.connect() as idle, await server.connect() as uploading:
        idle.send(GET)
        await until(lambda: len(held.exchanges) == 1)
        held.exchanges[0].respond(200, (), b"")
        await idle.read()
        busy.send(GET)
        uploading.send(POST + b"Content-Length: 4\r\n\r\nab")
        await until(lambda: len(held.exchanges) == 2 and server.server.buffered == 2)
        stopping = asyncio.ensure_future(server.server.shutdown(5))
        assert await idle.rest() == b""
        with pytest.raises(OSError):  # noqa: PT011 — refused or reset, as the kernel likes
            await (await server.connect()).read()
        uploading.send(b"cd")
        await until(lambda: len(held.exchanges) == 3)
        assert not stopping.done()
        for exchange, client in ((held.exchanges[1], busy), (held.exchanges[2], uploading)):
            exchange.respond(200, (), b"done")
            answer = await client.read()
            assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        await stopping
    assert not server.server.connections


async def test_shutdown_cuts_what_does_not_end(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: bool(held.exchanges))
        left: list[bool] = []
        held.exchanges[0].on_disconnect = lambda: left.append(True)
        await server.server.shutdown(0.05)
        assert left == [True]
        assert await client.rest() == b""
    held.exchanges[0].respond(200, (), b"too late")


async def test_the_first_client_after_a_long_silence_is_served() -> None:
    """The server reads the clock only while somebody is connected; a new deadline must not come from an old reading."""
    clock = ManualClock()
    server = HttpServer(lambda exchange: exchange.respond(200, [], b"ok"), clock=clock, name="t")
    port = await server.listen("127.0.0.1", 0)
    clock.advance(3600)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    await server.shutdown(1)
