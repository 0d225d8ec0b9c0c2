"""A GraphQL face on the real documents room, in memory, with functions that a test writes as Python."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.protocols.fakes import BEARER, World, version

from martlet.auth import authorize
from martlet.clock import Clock
from martlet.documents import Documents
from martlet.protocols import app
from martlet.protocols.documents import CheckedDocuments
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.types import Outcome, Principal

BLOG = """
"Somebody who writes."
type User {
  email: String! @unique
  name: String!
  age: Int
  address: Address
  posts: [Post!] @relation(onDelete: CASCADE)
  profile: Profile
}
type Address @embedded { street: String!  lines: [String!]  next: Address }
type Profile { bio: String  owner: User! @relation(onDelete: CASCADE) }
enum Status { DRAFT LIVE GONE }
type Post @index(name: "byStatus", fields: ["status", "-at"]) @index(name: "by_word", fields: ["words"]) {
  title: String!
  status: Status!
  at: DateTime
  words: [String!]
  views: Long
  big: BigInt
  price: Decimal
  ratio: Float
  live: Boolean
  day: Date
  raw: Bytes
  more: JSON
  author: User!
  tags: [Tag!] @relation(onDelete: KEEP)
  score(times: Int = 1): Float @resolver(function: "score")
  similar: [Post!] @resolver(function: "similar")
}
type Tag { name: String! @unique  posts: [Post!] }
type Query {
  postsOf(author: ID!): [Post!]
  top(n: Int!): [Post!] @resolver(function: "top")
  now: DateTime @resolver(function: "now")
}
type Mutation { publish(id: ID!): Post @resolver(function: "publish") }
"""


class Face:
    """A client of the face. `functions`: what functions answer, by their short names; an exception is their failure."""

    def __init__(self, room: Documents) -> None:
        self.room = room
        self.functions: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.events: list[dict[str, Any]] = []
        world = World()
        world.auth.authorize = authorize  # type: ignore[method-assign]
        world.functions.find = self._find  # type: ignore[method-assign, assignment]
        world.functions.invoke = self._invoke  # type: ignore[method-assign, assignment]
        self.audited: list[tuple[str, list[tuple[str, str]], int]] = []  # (who, acts, status)
        rooms = replace(world.rooms, collections=room, documents=CheckedDocuments(room), audit=self._audit)
        self.app = app(rooms)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test", headers=BEARER)

    async def _audit(self, request: Any, acts: Any, status: int) -> None:
        who = "" if request.sender is None else request.sender.name
        self.audited.append((who, [(act.action, act.resource) for act in acts], status))

    def _find(self, name: str) -> Any:
        return version(name) if name.removeprefix("shop-") in self.functions and name.startswith("shop-") else None

    async def _invoke(self, name: str, payload: bytes, **rest: Any) -> Any:
        event = json.loads(payload)
        self.events.append(event)
        try:
            answer = self.functions[name.removeprefix("shop-")](event)
        except ValueError as error:
            told = {"errorMessage": str(error), "errorType": "ValueError"}
            return None, Outcome(json.dumps(told).encode(), "Unhandled", "ValueError")
        return None, Outcome(json.dumps(answer).encode())

    def as_function(self, *grants: tuple[str, str]) -> httpx.AsyncClient:
        """A client inside a sandbox with these grants."""
        principal = Principal("function", "shop-echo", frozenset(grants))

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "martlet.context": principal}, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(inside), base_url="http://sandbox")

    async def put_schema(self, text: str, **query: Any) -> httpx.Response:
        return await self.http.put("/v1/databases/shop/graphql/schema", content=text, params=query)

    async def send(self, query: str, variables: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        body = {"query": query, **({"variables": variables} if variables is not None else {}), **more}
        return await self.http.post("/v1/graphql", params={"app": "shop"}, json=body, headers=headers)

    async def ask(self, query: str, variables: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The data of a request that must not have errors."""
        answer = (await self.send(query, variables, **more)).json()
        assert "errors" not in answer, answer["errors"]
        return dict(answer["data"])

    async def errors(self, query: str, variables: dict[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
        answer = (await self.send(query, variables, **more)).json()
        return list(answer["errors"])


@pytest.fixture
async def bare() -> AsyncIterator[Face]:
    """Without a schema."""
    store = Store(MemoryEngine(), clock=Clock())
    room = Documents(store, Clock())
    await room.start()
    face = Face(room)
    yield face
    await face.http.aclose()
    await room.stop()
    await store.close()


@pytest.fixture
async def blog(bare: Face) -> Face:
    made = await bare.put_schema(BLOG)
    assert made.status_code == 200, made.text
    return bare
