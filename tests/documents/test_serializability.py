"""Strict serializability: the checker finds every kind of fault, and concurrent clients over HTTP give it nothing to find.

`MARTLET_TEST_TRANSACTIONS` is the number of transactions of one recorded history (nightly: 50000)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.documents.over_http import Client
from tests.documents.serializability import Done, violations

from martlet.config import Settings
from martlet.documents.documents import Documents
from martlet.server import Server

TRANSACTIONS = int(os.environ.get("MARTLET_TEST_TRANSACTIONS", "1500"))
NEVER = float("inf")


# --- the checker


def test_what_is_serial_passes() -> None:
    history = [
        Done(0, 1, writes={"a": (1, "x"), "b": (1, "x")}),
        Done(2, 3, reads={"a": (1, "x"), "c": (0, None)}, writes={"a": (2, "y")}),
        Done(2, 9, reads={"a": (1, "x")}),  # at the same time as the second: either order
        Done(4, 5, reads={"a": (2, "y"), "b": (1, "x")}),
    ]
    assert violations(history) == []


def test_a_write_without_an_answer_may_have_happened_or_not() -> None:
    lost = Done(0, NEVER, writes={"a": (None, "x")})
    assert violations([lost, Done(1, 2, reads={"a": (0, None)}), Done(5, 6, reads={"a": (1, "x")})]) == []
    assert violations([lost, Done(5, 6, reads={"a": (0, None)})]) == []
    assert violations([lost, Done(1, 2, reads={"a": (1, "x")}), Done(5, 6, reads={"a": (0, None)})])


FAULTS = {
    "a stale read": [Done(0, 1, writes={"a": (1, "x")}), Done(2, 3, writes={"a": (2, "y")}), Done(4, 5, reads={"a": (1, "x")})],
    "a lost update": [Done(0, 5, writes={"a": (1, "x")}), Done(0, 5, writes={"a": (1, "y")})],
    "a read of nothing": [Done(0, 1, reads={"a": (1, "x")})],
    "a torn value": [Done(0, 1, writes={"a": (1, "x")}), Done(2, 3, reads={"a": (1, "z")})],
    "a fractured read": [
        Done(0, 1, writes={"a": (1, "x"), "b": (1, "x")}),
        Done(0, 9, writes={"a": (2, "y"), "b": (2, "y")}),
        Done(0, 9, reads={"a": (1, "x"), "b": (2, "y")}),
    ],
    "a write skew": [
        Done(0, 9, reads={"a": (0, None), "b": (0, None)}, writes={"a": (1, "x")}),
        Done(0, 9, reads={"a": (0, None), "b": (0, None)}, writes={"b": (1, "y")}),
    ],
    "a long fork": [
        Done(0, 9, writes={"a": (1, "x")}),
        Done(0, 9, writes={"b": (1, "y")}),
        Done(0, 9, reads={"a": (1, "x"), "b": (0, None)}),
        Done(0, 9, reads={"a": (0, None), "b": (1, "y")}),
    ],
    "a write that is gone": [Done(0, 1, writes={"a": (1, "x")}), Done(2, 3, reads={"a": (0, None)})],
    "a gap": [Done(0, 1, writes={"a": (2, "x")})],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_is_found(fault: str) -> None:
    assert violations(FAULTS[fault])


# --- a platform under concurrent clients


class Recorder:
    """Clients that read and write a few documents, and what they saw."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.history: list[Done] = []
        self.left = TRANSACTIONS

    async def client(self, client: Client, name: int) -> None:
        keys = [f"{collection}/{id}" for collection in ("one", "two") for id in "abc"]
        while self.left > 0:
            self.left -= 1
            reads = self.chance.sample(keys, self.chance.randrange(0, 4))
            writes = self.chance.sample(keys, self.chance.randrange(0 if reads else 1, 3))
            value = f"{name}-{self.left}"
            if len(reads) == 1 and not writes:
                await self._single(client, reads[0])
            elif self.chance.random() < 0.1 and not writes:
                await self._query(client)
            else:
                await self._transaction(client, reads, writes, value, self.chance.random() < 0.1)

    async def _single(self, client: Client, key: str) -> None:
        asked = time.monotonic()
        answer = await client.call("GET", f"/v1/documents/{key}")
        assert answer.status in (200, 404)
        seen = (int(answer.headers["etag"].strip('"')), answer.json) if answer.status == 200 else (0, None)
        self.history.append(Done(asked, time.monotonic(), reads={key: seen}))

    async def _query(self, client: Client) -> None:
        """A page by index says which versions of the whole collection there are."""
        asked = time.monotonic()
        answer = await client.call("POST", "/v1/collections/one/query", {"index": "v"})
        assert answer.status == 200, answer.body
        found = {f"one/{item['id']}": (item["version"], item["value"]) for item in answer.json["items"]}
        reads = {f"one/{id}": (0, None) for id in "abc"} | found
        self.history.append(Done(asked, time.monotonic(), reads=reads))

    async def _transaction(self, client: Client, reads: list[str], writes: list[str], value: str, refuse: bool) -> None:
        """Reads come first. Some are refused at their end: what they wrote must never be seen."""
        steps: list[dict[str, Any]] = [_step("get", key) for key in reads]
        steps += [_step("put", key, value={"v": value}) for key in writes]
        if refuse:
            steps.append(_step("check", "one/none", version=7))
        asked = time.monotonic()
        answer = await client.transact(steps)
        done = time.monotonic()
        if refuse:
            assert answer.status == 409
            return
        assert answer.status == 200, answer.body
        results = answer.json["results"]
        seen = {
            key: (0, None) if found is None else (found["version"], found["value"])
            for key, found in zip(reads, results, strict=False)
        }
        made = {key: (found["version"], {"v": value}) for key, found in zip(writes, results[len(reads) :], strict=True)}
        self.history.append(Done(asked, done, seen, made))


def _step(op: str, key: str, **more: Any) -> dict[str, Any]:
    collection, _, id = key.partition("/")
    return {"op": op, "collection": collection, "id": id, **more}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    opened = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True, stem_cells=0))
    await opened.start()
    yield opened
    await opened.stop()


async def record(server: Server, seed: int) -> list[Done]:
    token = json.loads((server.data / "credentials.json").read_text())["token"]
    clients = [Client(server.api_port, token, "d") for _ in range(16)]
    settings = {"indexes": {"v": {"terms": [{"path": "v"}]}}}
    assert (await clients[0].call("PUT", "/v1/collections/one", settings)).status == 200
    recorder = Recorder(seed)
    await asyncio.gather(*(recorder.client(client, name) for name, client in enumerate(clients)))
    for client in clients:
        client.close()
    return recorder.history


@pytest.mark.parametrize("seed", [1, 2])
async def test_concurrent_clients_see_one_order(server: Server, seed: int) -> None:
    history = await record(server, seed)
    assert sum(len(done.writes) for done in history) > TRANSACTIONS / 4
    assert violations(history) == []


async def test_a_platform_that_answers_from_a_cache_is_caught(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clients, and a fault planted in the platform: some reads are of what was read a moment ago."""
    kept: dict[str, Any] = {}
    honest = Documents.get

    def get(self: Documents, database: str, collection: str, id: Any, **more: Any) -> Any:
        found = honest(self, database, collection, id, **more)
        return kept.setdefault(f"{collection}/{id}", found) if len(kept) < 20 else kept.pop(f"{collection}/{id}", found)

    monkeypatch.setattr(Documents, "get", get)
    assert violations(await record(server, 3))


async def test_a_platform_that_answers_before_it_looks_is_caught(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of a transaction from a snapshot that was taken earlier: write skew."""
    from martlet.documents.transaction import Transaction

    honest = Transaction.get
    old: dict[str, Any] = {}

    def get(self: Transaction, collection: str, id: Any) -> Any:
        found = honest(self, collection, id)
        before, old[f"{collection}/{id}"] = old.get(f"{collection}/{id}", found), found
        return before

    monkeypatch.setattr(Transaction, "get", get)
    assert violations(await record(server, 4))
