"""A server on loopback, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
import uvloop

from martlet.clock import Clock, ManualClock
from martlet.gateway.http import Exchange, HttpServer


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_slowly(self, data: bytes, step: int = 1) -> None:
        """In packets of `step` bytes."""
        for at in range(0, len(data), step):
            self.writer.write(data[at : at + step])
            await asyncio.sleep(0.001)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in lines]
        headers: dict[str, str] = {}
        for name, value in pairs:
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return int(first.split(" ")[1]), headers

    async def read(self, method: str = "GET") -> Answer:
        """One whole answer."""
        status, headers = await self.read_head()
        body = b""
        if method == "HEAD" or status in (204, 304) or status < 200:
            pass
        elif "content-length" in headers:
            body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), 5)
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await asyncio.wait_for(self.reader.readline(), 5), 16):
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            while (line := await self.reader.readline()) != b"\r\n":
                name, value = line.decode().strip().split(": ")
                headers[f"trailer {name}"] = value
        else:
            body = await asyncio.wait_for(self.reader.read(), 5)
        return Answer(status, headers, body)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 5)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # the server was faster

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Running:
    """A server under test, with what its handler saw."""

    def __init__(self, server: HttpServer, port: int) -> None:
        self.server = server
        self.port = port

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        async with await self.connect() as client:
            client.send(data)
            return await client.read(method)


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers that stop with the test."""
    servers: list[HttpServer] = []

    async def start(handler: Callable[[Exchange], None], *, clock: Clock | None = None, **options: Any) -> Running:
        server = HttpServer(handler, clock=clock or Clock(), **options)
        servers.append(server)
        return Running(server, await server.listen("127.0.0.1", 0))

    yield start
    for server in servers:
        await server.shutdown(0)


@pytest.fixture
def manual() -> ManualClock:
    return ManualClock()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def echo(exchange: Exchange) -> None:
    """Answers what it understood."""
    request = exchange.request
    text = b"%b %b %b" % (request.method.encode(), request.target, request.body)
    exchange.respond(200, ((b"content-type", b"text/plain"),), text)


class Held:
    """A handler that keeps its exchanges."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
