"""graphql-transport-ws over real connections: each rule of the protocol, hostile clients first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.frames import BINARY, CLOSE, TEXT, Socket, close_body, handshake, open_socket
from tests.protocols.fakes import TOKEN
from tests.protocols.graphql.conftest import Face

from martlet.clock import Clock
from martlet.documents.feed import changes
from martlet.gateway.asgi import AsgiHandler
from martlet.gateway.http import HttpServer
from martlet.protocols.graphql import sockets
from martlet.types import Principal

TRANSPORT = "graphql-transport-ws"
PATH = "/v1/graphql?app=shop"
INIT = {"type": "connection_init", "payload": {"authorization": f"Bearer {TOKEN}"}}
FOLLOW = "subscription ($c: String) { tagChanged(after: $c) { operation document { name } } }"
Connect = Callable[..., Awaitable[Socket]]


class Server:
    """The face behind the platform's own HTTP server."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.context: Principal | None = None
        self.http = HttpServer(AsgiHandler(self._app), clock=Clock())
        self.port = 0

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.face.app({**scope, "martlet.context": self.context}, receive, send)

    async def connect(self, path: str = PATH, subprotocol: str | None = TRANSPORT, **headers: str | None) -> Socket:
        return await open_socket(self.port, handshake(path, sec_websocket_protocol=subprotocol, **headers))

    async def ready(self, **more: Any) -> Socket:
        """Connected and acknowledged."""
        socket = await self.connect(**more)
        assert (socket.status, socket.headers["sec-websocket-protocol"]) == (101, TRANSPORT)
        socket.say(INIT)
        assert await socket.json() == {"type": "connection_ack"}
        return socket

    async def cursor(self, collection: str = "Tag") -> str:
        """Where the feed stands, so that no test must guess when a subscription has begun."""
        return (await changes(self.face.room, "shop", collection, cursor="", limit=1)).cursor


@pytest.fixture
async def server(blog: Face) -> AsyncIterator[Server]:
    made = Server(blog)
    made.port = await made.http.listen("127.0.0.1", 0)
    yield made
    await made.http.shutdown(0)


def subscribe(id: str, query: str, **variables: Any) -> dict[str, Any]:
    return {"id": id, "type": "subscribe", "payload": {"query": query, "variables": variables}}


async def code(socket: Socket) -> tuple[int, str]:
    """The close frame that comes next."""
    found = await socket.read()
    return found.code, found.reason


# --- what a client does wrong


FAULTS: list[tuple[str, list[Any], int]] = [
    ("no JSON", ["{"], 4400),
    ("no object", ["[]"], 4400),
    ("no type", [{}], 4400),
    ("a type of nobody", [{"type": "start"}], 4400),
    ("a server's message", [{"type": "connection_ack"}], 4400),
    ("JSON of a thousand levels", ["[" * 1000 + "]" * 1000], 4400),
    ("a payload that is no object", [{"type": "connection_init", "payload": 1}], 4400),
    ("a ping's payload that is no object", [{"type": "ping", "payload": "x"}], 4400),
    ("a token that is no text", [{"type": "connection_init", "payload": {"authorization": 1}}], 4400),
    ("two tokens", [{"type": "connection_init", "payload": {"authorization": "a", "Authorization": "b"}}], 4400),
    ("no token", [{"type": "connection_init"}], 4403),
    ("a wrong token", [{"type": "connection_init", "payload": {"authorization": "Bearer wrong"}}], 4403),
    ("a token with a line break", [{"type": "connection_init", "payload": {"authorization": "Bearer a\r\nb: c"}}], 4403),
    ("another scheme", [{"type": "connection_init", "payload": {"authorization": f"Basic {TOKEN}"}}], 4403),
    ("too early", [subscribe("1", "{ listTag { after } }")], 4401),
    ("twice", [INIT, INIT], 4429),
    ("no id", [INIT, {"type": "subscribe", "payload": {"query": "{x}"}}], 4400),
    ("an empty id", [INIT, subscribe("", "{x}")], 4400),
    ("an id that is a number", [INIT, {**subscribe("1", "{x}"), "id": 1}], 4400),
    ("no payload", [INIT, {"id": "1", "type": "subscribe"}], 4400),
    ("no query", [INIT, {"id": "1", "type": "subscribe", "payload": {}}], 4400),
    ("complete without id", [INIT, {"type": "complete"}], 4400),
    ("the same id", [INIT, subscribe("a", FOLLOW), subscribe("a", FOLLOW)], 4409),
]


@pytest.mark.parametrize(("name", "messages", "expected"), FAULTS, ids=[name for name, _, _ in FAULTS])
async def test_faults_close_the_connection_by_their_code(server: Server, name: str, messages: list[Any], expected: int) -> None:
    async with await server.connect() as socket:
        for message in messages:
            socket.say(message)
        while (found := await socket.read()).opcode == TEXT:
            assert json.loads(found.payload)["type"] == "connection_ack"
        assert found.code == expected, found
        if expected == 4409:
            assert found.reason == "Subscriber for a already exists"
        socket.send(CLOSE, close_body(expected))
        assert await socket.ended() == b""


async def test_binary_messages_are_refused(server: Server) -> None:
    async with await server.connect() as socket:
        socket.send(BINARY, json.dumps(INIT).encode())
        assert (await code(socket))[0] == 4400


async def test_only_graphql_transport_ws_is_spoken(server: Server) -> None:
    for offered in ("graphql-ws", None, "graphql-transport-ws2"):
        async with await server.connect(subprotocol=offered) as socket:
            assert (socket.status, "sec-websocket-protocol" in socket.headers) == (101, False)
            assert (await code(socket))[0] == 4406
    async with await server.connect(subprotocol=f"graphql-ws, {TRANSPORT}") as socket:
        assert socket.headers["sec-websocket-protocol"] == TRANSPORT


async def test_who_says_nothing_is_sent_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_INIT_SECONDS", 0.05)
    async with await server.connect() as socket:
        socket.say({"type": "ping"})
        assert await socket.json() == {"type": "pong"}
        assert await code(socket) == (4408, "Connection initialisation timeout")


async def test_what_is_wrong_with_the_handshake_is_its_answer(server: Server) -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({"authorization": "Bearer wrong"}, 401),
        ({"path": "/v1/graphql?app=shop&x=1"}, 400),
        ({"path": "/v1/graphql", "authorization": f"Bearer {TOKEN}"}, 400),
        ({"path": "/v1/nothing"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"path": "/v1/health"}, 200),  # no WebSocket there: an answer of HTTP, as RFC 9110 section 7.8 has it
    ]
    for given, status in cases:
        async with await server.connect(**given) as socket:
            assert socket.status == status, given
    async with await server.connect(origin="http://a") as socket:
        assert socket.status == 101


# --- operations


async def test_queries_and_mutations_answer_once(server: Server) -> None:
    async with await server.ready() as socket:
        socket.say(subscribe("m", 'mutation { createTag(data: {name: "x"}) { name } }'))
        found = await socket.json()
        assert (found["id"], found["type"], found["payload"]["data"]) == ("m", "next", {"createTag": {"name": "x"}})
        assert await socket.json() == {"id": "m", "type": "complete"}
        socket.say(subscribe("m", "query ($n: Int) { listTag(size: $n) { data { name } } }", n=1))  # the id is free again
        assert (await socket.json())["payload"]["data"] == {"listTag": {"data": [{"name": "x"}]}}
        assert (await socket.json())["type"] == "complete"


async def test_an_operation_that_cannot_run_is_an_error_of_its_own(server: Server) -> None:
    async with await server.ready() as socket:
        for query in ("{", "{ nope }", "subscription { nope }", 'subscription { tagChanged(after: "x") { id } }'):
            socket.say(subscribe("e", query))
            found = await socket.json()
            assert (found["id"], found["type"]) == ("e", "error")
            assert found["payload"]
            assert all(isinstance(error["message"], str) for error in found["payload"])
        socket.say({"type": "ping", "payload": {"a": 1}})
        assert await socket.json() == {"type": "pong", "payload": {"a": 1}}


async def test_subscriptions_follow_the_change_feed_until_complete(server: Server) -> None:
    begun = await server.cursor()
    async with await server.ready() as socket:
        for id in ("one", "two"):
            socket.say(subscribe(id, FOLLOW, c=begun))
        await server.face.ask('mutation { createTag(data: {name: "a"}) { id } }')
        first = [await socket.json(), await socket.json()]
        assert sorted(one["id"] for one in first) == ["one", "two"]
        assert first[0]["payload"]["data"] == {"tagChanged": {"operation": "PUT", "document": {"name": "a"}}}
        socket.say({"id": "one", "type": "complete"})
        socket.say({"id": "nobody", "type": "complete"})  # may cross the server's own: ignored
        socket.say({"type": "ping"})
        assert await socket.json() == {"type": "pong"}
        await server.face.ask('mutation { createTag(data: {name: "b"}) { id } }')
        found = await socket.json()
        assert (found["id"], found["payload"]["data"]["tagChanged"]["document"]) == ("two", {"name": "b"})
        socket.say(subscribe("one", FOLLOW, c=begun))  # the id is free again, and its past can be read anew
        assert (await socket.json())["payload"]["data"]["tagChanged"]["document"] == {"name": "a"}


async def test_a_client_that_leaves_takes_its_subscriptions_along(server: Server) -> None:
    begun = await server.cursor()
    socket = await server.ready()
    socket.say(subscribe("1", FOLLOW, c=begun))
    await server.face.ask('mutation { createTag(data: {name: "a"}) { id } }')
    assert (await socket.json())["type"] == "next"
    assert len(sockets._under_way) == 1
    await socket.close()
    await asyncio.wait(tuple(sockets._under_way), timeout=20)
    assert not sockets._under_way


async def test_operations_at_one_time_are_limited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_OPERATIONS", 2)
    async with await server.ready() as socket:
        for id in ("1", "2", "3"):
            socket.say(subscribe(id, FOLLOW))
        found = await socket.json()
        assert (found["id"], found["type"]) == ("3", "error")
        assert found["payload"][0]["extensions"]["limit"] == "graphql_operations"
        socket.say({"id": "1", "type": "complete"})
        socket.say(subscribe("4", "{ listTag { after } }"))
        assert (await socket.json())["type"] == "next"


async def test_a_sandbox_subscribes_with_its_own_grants(server: Server) -> None:
    server.context = Principal(
        "function", "shop-echo", frozenset({("documents:Get", "shop/Tag"), ("documents:List", "shop/Tag")})
    )
    begun = await server.cursor()
    async with await server.connect() as socket:
        socket.say({"type": "connection_init"})  # its connection says who it is
        assert (await socket.json())["type"] == "connection_ack"
        socket.say(subscribe("t", FOLLOW, c=begun))
        socket.say(subscribe("u", "subscription { userChanged { id } }"))
        found = await socket.json()
        assert (found["id"], found["type"], found["payload"][0]["extensions"]["code"]) == ("u", "error", "access_denied")
        await server.face.ask('mutation { createTag(data: {name: "a"}) { id } }')
        assert (await socket.json())["id"] == "t"


async def test_credentials_may_come_with_the_handshake(server: Server) -> None:
    async with await server.connect(authorization=f"Bearer {TOKEN}") as socket:
        socket.say({"type": "connection_init", "payload": None})
        assert (await socket.json())["type"] == "connection_ack"


async def test_each_operation_is_audited_as_a_request_would_be(server: Server) -> None:
    reader = frozenset({("documents:Get", "shop/Tag"), ("documents:List", "shop/Tag")})
    server.context = Principal("function", "shop-echo", reader)
    async with await server.connect() as socket:
        socket.say({"type": "connection_init"})
        assert (await socket.json())["type"] == "connection_ack"
        server.face.audited.clear()
        for id, query in (
            ("1", "{ listTag { after } }"),
            ("2", 'mutation { createTag(data: {name: "x"}) { id } }'),
            ("3", "{ nope }"),
        ):
            socket.say(subscribe(id, query))
            while (await socket.json())["type"] == "next":
                pass
    (read, write, wrong) = server.face.audited
    assert (read[0], read[2]) == ("shop-echo", 200)
    assert ("documents:List", "shop/Tag") in read[1]
    assert ("documents:Put", "shop/Tag") in write[1]
    assert wrong == ("shop-echo", [], 400)
    server.context = None
    server.face.audited.clear()
    async with await server.connect() as socket:
        socket.say({"type": "connection_init"})
        assert (await code(socket))[0] == 4403
    assert server.face.audited[-1] == ("", [], 401)
