"""Documents over HTTP when the disk fails, and when a client is hostile: an error by name, and nothing is broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.documents.consistency import problems
from tests.protocols.fakes import BEARER, World
from tests.store.conftest import FaultyEngine

from martlet.auth import authorize
from martlet.clock import Clock
from martlet.documents import Documents
from martlet.errors import StoreFailed, StoreFull
from martlet.protocols import app
from martlet.protocols.documents import CheckedDocuments
from martlet.store import Store

SETTINGS = {"indexes": {"u": {"terms": [{"path": "u"}], "unique": True}, "t": {"terms": [{"path": "t[]"}, {"path": "n"}]}}}


@pytest.fixture
async def engine() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture
async def room(engine: FaultyEngine) -> AsyncIterator[Documents]:
    store = Store(engine, clock=Clock())
    opened = Documents(store, Clock())
    await opened.signer()
    yield opened
    await store.close()


@pytest.fixture
async def root(room: Documents) -> AsyncIterator[httpx.AsyncClient]:
    world = World()
    world.auth.authorize = authorize  # type: ignore[method-assign]
    transport = httpx.ASGITransport(app(replace(world.rooms, collections=room, documents=CheckedDocuments(room))))
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=BEARER) as opened:
        assert (await opened.put("/v1/collections/c?app=d", json=SETTINGS)).status_code == 200
        yield opened


def value(number: int) -> dict[str, Any]:
    return {"u": number, "n": number % 3, "t": [number, "x"]}


async def write(root: httpx.AsyncClient, number: int) -> int:
    return (await root.put(f"/v1/documents/c/{number}?app=d", json=value(number))).status_code


# --- the disk


async def test_a_full_disk_is_said_and_what_was_refused_is_not_there(
    root: httpx.AsyncClient, room: Documents, engine: FaultyEngine
) -> None:
    """Some commits fail in the middle of a burst: each write is answered for what became of it."""
    engine.faults += [None, StoreFull("no space left"), None, StoreFull("no space left")]
    statuses = []
    for start in range(0, 120, 20):
        statuses += await asyncio.gather(*(write(root, number) for number in range(start, start + 20)))
    assert set(statuses) == {201, StoreFull.http_status}
    for number, status in enumerate(statuses):
        assert (room.get("d", "c", f"{number}") is not None) == (status == 201)
    assert not room.store.read(problems)
    assert await write(root, 500) == 201
    page = (await root.get("/v1/collections/c/changes?app=d&start=oldest&limit=1000")).json()
    told = {item["change"]["id"] for item in page["items"]}
    assert told == {f"{number}" for number, status in enumerate(statuses) if status == 201} | {"500"}


async def test_a_failed_sync_ends_all_writing_and_no_reading(
    root: httpx.AsyncClient, room: Documents, engine: FaultyEngine
) -> None:
    assert await write(root, 1) == 201
    engine.faults.append(StoreFailed("fsync failed"))
    assert await write(root, 2) >= 500
    engine.faults.clear()
    answer = await root.put("/v1/documents/c/3?app=d", json=value(3))
    assert answer.status_code >= 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await root.get("/v1/documents/c/1?app=d")).json() == value(1)
    again = Store(FaultyEngine(engine.disk), clock=Clock())
    assert not again.read(problems)
    assert Documents(again, Clock()).get("d", "c", "1") is not None
    await again.close()


# --- hostile clients

DEEP = b"[" * 100_000 + b"]" * 100_000
BOMB = "(" * 5_000 + "n" + ")" * 5_000

PUTS: dict[str, tuple[bytes, tuple[int, ...], str]] = {
    "deep": (DEEP, (400, 413), "document_depth"),
    "unclosed": (b"[" * 100_000, (400, 413), ""),
    "large": (b'"' + b"x" * 500_000 + b'"', (413,), "document_bytes"),
    "many values": (b"[" + b"1," * 150_000 + b"1]", (413,), "document_"),
    "number": (b"1" * 400, (400,), "64 bits"),
    "exponent": (b"1e999999", (400,), ""),
    "decimal": (b'{"$decimal":"1e999999999"}', (400,), "decimal"),
    "digits": (b'{"$decimal":"' + b"9" * 150 + b'"}', (400, 413), "decimal_digits"),
    "NaN": (b"NaN", (400,), ""),
    "not UTF-8": (b'"\xff\xfe"', (400,), ""),
    "half a surrogate": (b'"\\ud800"', (400,), ""),
    "twice": (b'{"a":1,"a":2}', (400,), "twice"),
    "bytes": (b'{"$bytes":"***"}', (400,), "$bytes"),
    "time": (b'{"$time":"yesterday"}', (400,), "$time"),
    "empty": (b"", (400,), ""),
    "term": (b'{"t":' + b'["%s"]' % (b"x" * 5_000) + b"}", (413,), "index_key_bytes"),
    "entries": (b'{"t":[' + b",".join(b"%d" % n for n in range(5_000)) + b"]}", (413,), "index_entries"),
    "term of the wrong kind": (b'{"u":{"a":1}}', (400,), "index u"),
}


@pytest.mark.parametrize("name", PUTS)
async def test_hostile_documents(root: httpx.AsyncClient, room: Documents, name: str) -> None:
    body, statuses, word = PUTS[name]
    answer = await root.put("/v1/documents/c/x?app=d", content=body)
    assert answer.status_code in statuses, answer.text[:500]
    assert word in answer.text
    assert len(answer.content) < 2_000
    assert room.get("d", "c", "x") is None
    assert not room.store.read(problems)


QUERIES: dict[str, tuple[dict[str, Any], tuple[int, ...], str]] = {
    "nested expression": ({"filter": BOMB}, (400, 413), "expression"),
    "long expression": ({"filter": " and ".join(["n == 1"] * 20_000)}, (400, 413), "expression"),
    "malformed expression": ({"filter": "n == == 1"}, (400,), ""),
    "unknown function": ({"filter": "system('x')"}, (400,), ""),
    "forged cursor": ({"cursor": "AAAA.BBBB"}, (400,), "cursor"),
    "unknown index": ({"index": "none"}, (404,), "none"),
    "limit": ({"limit": 10**9}, (400, 413), "limit"),
    "unknown member": ({"indexes": "u"}, (400,), ""),
    "terms": ({"index": "u", "equals": [1, 2, 3]}, (400,), ""),
    "object as term": ({"index": "u", "equals": [{"a": 1}]}, (400,), ""),
    "deep bound": ({"index": "u", "low": {"value": [[[[1]]]]}}, (400,), ""),
    "future": ({"as_of": 1 << 60}, (400,), "as_of"),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_hostile_queries(root: httpx.AsyncClient, name: str) -> None:
    asked, statuses, word = QUERIES[name]
    answer = await root.post("/v1/collections/c/query?app=d", json=asked)
    assert answer.status_code in statuses, answer.text[:500]
    assert word in answer.text
    assert len(answer.content) < 2_000


async def test_a_cursor_of_another_query_is_none_of_this_one(root: httpx.AsyncClient) -> None:
    for number in range(3):
        await write(root, number)
    page = (await root.post("/v1/collections/c/query?app=d", json={"index": "u", "limit": 1})).json()
    for asked in ({"index": "t", "limit": 1}, {"index": "u", "limit": 1, "reverse": True}, {"index": "u", "filter": "n == 1"}):
        answer = await root.post("/v1/collections/c/query?app=d", json=asked | {"cursor": page["cursor"]})
        assert (answer.status_code, "cursor" in answer.text) == (400, True)
    flipped = page["cursor"][:-2] + ("A" if page["cursor"][-2] != "A" else "B") + page["cursor"][-1]
    for cursor in (flipped, page["cursor"] + "x", "x" * 5_000, "\x00"):
        answer = await root.post("/v1/collections/c/query?app=d", json={"index": "u", "limit": 1, "cursor": cursor})
        assert answer.status_code == 400
    feed = await root.get("/v1/collections/c/changes?app=d&cursor=" + page["cursor"])
    assert feed.status_code == 400


@pytest.mark.parametrize(
    ("operations", "status", "word"),
    [
        ([{"op": "put", "collection": "c", "id": f"{n}", "value": 1} for n in range(2_000)], 413, "transaction_documents"),
        ([{"op": "drop", "collection": "c", "id": "1"}], 400, "op"),
        ([{"op": "put", "collection": "../c", "id": "1", "value": 1}], 400, "collection"),
        ([{"op": "get", "collection": "c"}], 400, "id"),
        ([{"op": "patch", "collection": "c", "id": "1", "increment": {"n": "x"}}], 404, ""),
        ([{"op": "put", "collection": "c", "id": "1", "value": 1, "condition": BOMB}], 413, "expression"),
        ([{"op": "put", "collection": "c", "id": "x" * 2_000, "value": 1}], 413, "document_id_bytes"),
        ([{"op": "put", "collection": "c", "id": "..", "value": 1}], 400, "id"),
    ],
)
async def test_hostile_transactions(root: httpx.AsyncClient, operations: list[Any], status: int, word: str) -> None:
    answer = await root.post("/v1/transactions?app=d", json={"operations": operations})
    assert (answer.status_code, word in answer.text) == (status, True), answer.text[:500]


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        (lambda s: s["indexes"].update({f"i{n}": {"terms": [{"path": "n"}]} for n in range(200)}), 413, "collection_indexes"),
        (lambda s: s["indexes"].update(bad={"terms": [{"path": f"f{n}"} for n in range(50)]}), 413, "index_terms"),
        (lambda s: s["indexes"].update(bad={"terms": []}), 400, "terms"),
        (lambda s: s.update(schema={"fields": {f"f{n}": {} for n in range(5_000)}}), 413, "collection_fields"),
        (lambda s: s.update(schema={"checks": [{"name": "x", "expression": BOMB}]}), 413, "expression"),
        (lambda s: s.update(history_seconds=10**12), 413, "history_days"),
        (lambda s: s.update(changes="everything"), 400, "changes"),
        (lambda s: s.update(other=1), 400, "other"),
    ],
)
async def test_hostile_settings(
    root: httpx.AsyncClient, room: Documents, change: Callable[[dict[str, Any]], None], status: int, word: str
) -> None:
    asked: dict[str, Any] = {"indexes": dict(SETTINGS["indexes"])}
    change(asked)
    before = room.collection("d", "c")
    answer = await root.put("/v1/collections/c?app=d", json=asked)
    assert (answer.status_code, word in answer.text) == (status, True), answer.text[:500]
    assert room.collection("d", "c") == before
