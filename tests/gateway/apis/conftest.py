"""An edge with APIs on loopback, functions that are played by the test, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from martlet.clock import Clock
from martlet.gateway.apis import ApiEdge
from martlet.gateway.apis.backend import Backend
from martlet.gateway.edge import Edge
from martlet.gateway.http import HttpServer
from martlet.types import ApiConfig, ApiStage, Invocation, Outcome

API = "abcdefghij"


class Said(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Functions:
    """Plays the functions: `answers` by name, or one for all."""

    def __init__(self) -> None:
        self.seen: list[Invocation] = []
        self.answers: dict[str, Outcome] = {}
        self.default: Outcome | None = Outcome(b'{"statusCode":200,"body":"ok"}')

    def __call__(self, invocation: Invocation) -> None:
        self.seen.append(invocation)
        outcome = self.answers.get(invocation.function, self.default)
        if outcome is not None:
            asyncio.get_running_loop().call_soon(invocation.on_done, invocation, outcome)

    @property
    def event(self) -> Any:
        return json.loads(self.seen[-1].payload)


class Stand:
    """The edge under test."""

    def __init__(self, functions: Functions, edge: ApiEdge, port: int) -> None:
        self.functions = functions
        self.edge = edge
        self.port = port

    async def ask(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        host: str = f"{API}.execute-api.us-east-1.amazonaws.com",
    ) -> Said:
        """One request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        given = {"Host": host, "Connection": "close", **(headers or {})}
        if body:
            given["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        found: dict[str, str] = {}
        for field in fields:
            name, _, value = field.partition(": ")
            low = name.lower()
            found[low] = f"{found[low]}, {value}" if low in found else value
        return Said(int(first.split(" ")[1]), found, rest)


Build = Callable[..., Awaitable[Stand]]


@pytest.fixture
async def stand() -> AsyncIterator[Build]:
    """`await stand(config, ...)`: serves these APIs; keyword arguments go to `ApiEdge`."""
    closers: list[Callable[[], Awaitable[None]]] = []

    async def build(*configs: ApiConfig, urls: list[dict[str, Any]] | None = None, **options: Any) -> Stand:
        functions = Functions()
        clock = options.pop("clock", None) or Clock()
        options.setdefault("backend", Backend(("localhost",)))
        edge = Edge(functions, clock=clock)
        apis = ApiEdge(functions, clock=clock, **options)
        edge.set_apis(apis)
        apis.set_apis(configs)
        apis.set_urls(urls or [])
        server = HttpServer(edge.handle, clock=clock)
        closers.extend((lambda: server.shutdown(0), apis.close))
        return Stand(functions, apis, await server.listen("127.0.0.1", 0))

    yield build
    for close in closers:
        await close()


def rest(*routes: Any, **more: Any) -> ApiConfig:
    """A REST API with the stage "dev"."""
    stage = ApiStage(name="dev", **more.pop("stage", {}))
    return ApiConfig(id=API, name="test", kind="rest", stages=(stage,), routes=routes, **more)


def http(*routes: Any, **more: Any) -> ApiConfig:
    """An HTTP API with the stages $default and "v1"."""
    stages = (ApiStage(name="$default", **more.pop("stage", {})), ApiStage(name="v1"))
    return ApiConfig(id=API, name="test", kind="http", stages=stages, routes=routes, **more)
