"""The document database over HTTP, on the real room: what is asked is done, who may not is refused, and the SDK speaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.protocols.fakes import BEARER, World

from martlet import Collection, Conflict, InvalidInput
from martlet.auth import authorize
from martlet.clock import Clock
from martlet.documents import Documents
from martlet.gateway.asgi import AsgiHandler
from martlet.gateway.http import HttpServer
from martlet.protocols import app
from martlet.protocols.documents import CheckedDocuments
from martlet.sdk import client
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.types import Principal

GRANTS = frozenset(
    (f"documents:{action}", f"shop/{name}") for action in ("Get", "Put", "Delete", "List") for name in ("orders", "stock")
)
CALLER = Principal("function", "shop-echo", GRANTS)
INDEXES = {"by_n": {"terms": [{"path": "n"}], "values": ["n"]}, "by_u": {"terms": [{"path": "u"}], "unique": True}}


@pytest.fixture
async def room() -> AsyncIterator[Documents]:
    store = Store(MemoryEngine(), clock=Clock())
    opened = Documents(store, Clock())
    await opened.start()
    yield opened
    await opened.stop()
    await store.close()


@pytest.fixture
def asgi(room: Documents) -> Any:
    world = World()
    world.auth.authorize = authorize  # type: ignore[method-assign]
    return app(replace(world.rooms, collections=room, documents=CheckedDocuments(room)))


@pytest.fixture
async def root(asgi: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(asgi), base_url="http://test", headers=BEARER, params={"app": "shop"}
    ) as opened:
        yield opened


async def test_define_write_query_change_export_import(root: httpx.AsyncClient, room: Documents) -> None:
    assert (await root.get("/v1/collections/orders")).status_code == 404
    made = await root.put("/v1/collections/orders", json={"indexes": INDEXES})
    assert made.status_code == 200, made.text
    assert [index["status"] for index in made.json()["indexes"]] == ["ready", "ready"]
    first = await root.post("/v1/documents/orders", json={"n": 1, "u": 1})
    assert first.status_code == 201
    assert first.headers["martlet-usage"] == "read=0, write=3, compute=0, bytes-in=13, bytes-out=0"
    again = await root.post("/v1/documents/orders", json={"n": 2, "u": 1})
    assert (again.status_code, again.json()["index"]) == (409, "by_u")
    written = await room.transact("shop", lambda tx: [tx.put("orders", f"k{n}", {"n": n, "u": n}).id for n in range(2, 6)])
    found = await root.post("/v1/collections/orders/query", json={"index": "by_n", "low": {"value": 3}, "limit": 2})
    assert [item["id"] for item in found.json()["items"]] == written[1:3]
    more = await root.post(
        "/v1/collections/orders/query",
        json={"index": "by_n", "low": {"value": 3}, "limit": 2, "cursor": found.json()["cursor"]},
    )
    assert ([item["id"] for item in more.json()["items"]], more.json()["cursor"]) == (written[3:], None)
    patched = await root.patch("/v1/documents/orders/k2", json={"n": None, "x": 1}, headers={"if-match": '"1"'})
    assert (patched.status_code, patched.headers["etag"]) == (204, '"2"')
    stale = await root.patch("/v1/documents/orders/k2", json={}, headers={"if-match": '"1"'})
    assert stale.status_code == 412
    changes = (await root.get("/v1/collections/orders/changes", params={"app": "shop", "start": "oldest"})).json()
    assert [item["change"]["operation"] for item in changes["items"]] == ["put"] * len(changes["items"])
    lines = await root.get("/v1/collections/orders/export")
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert len(lines.text.splitlines()) == 5
    report = await root.post("/v1/collections/copy/import", content=lines.content + b"{")
    assert (report.json()["written"], report.json()["errors"][0]["line"]) == (5, 6)
    versions = await root.get("/v1/documents/orders/k3/versions")
    assert [item["version"] for item in versions.json()["items"]] == [1]
    assert (await root.post("/v1/documents/orders/k3/restore", params={"app": "shop", "version": 1})).headers["etag"] == '"2"'
    assert (await root.delete("/v1/collections/copy")).status_code == 204
    assert [item["name"] for item in (await root.get("/v1/collections")).json()["items"]] == ["orders"]


async def test_a_transaction_is_one_and_a_retry_is_none(root: httpx.AsyncClient, room: Documents) -> None:
    await room.put("shop", "stock", "cup", {"left": 1})
    buy = {
        "operations": [
            {"op": "put", "collection": "orders", "value": {"product": "cup"}},
            {"op": "patch", "collection": "stock", "id": "cup", "increment": {"left": -1}, "condition": "left >= 1"},
            {"op": "query", "collection": "orders"},
        ]
    }
    first = await root.post("/v1/transactions", json=buy, headers={"idempotency-key": "one"})
    assert first.status_code == 200, first.text
    assert len(first.json()["results"][2]) == 1
    again = await root.post("/v1/transactions", json=buy, headers={"idempotency-key": "one"})
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    sold_out = await root.post("/v1/transactions", json=buy)
    assert (sold_out.status_code, sold_out.json()["operation"]) == (412, 1)
    assert len(room.list("shop", "orders")[0]) == 1
    other = await root.post("/v1/transactions", json={"operations": []}, headers={"idempotency-key": "one"})
    assert other.status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"operations": [{"op": "drop"}]}',
        b'{"operations": [{"op": "get", "collection": "orders"}]}',
        b'{"operations": [{"op": "put", "collection": "orders", "id": "x"}]}',
        b'{"operations": [{"op": "put", "collection": "a/b", "id": "x", "value": 1}]}',
        b'{"operations": [{"op": "put", "collection": "orders", "id": "x", "value": 1, "surplus": 1}]}',
        b'{"operations": ' + b"[" * 5000,
        b'{"operations": [{"op": "put", "collection": "orders", "id": "x", "value": "\xff"}]}',
    ],
)
async def test_malformed_transactions_change_nothing(root: httpx.AsyncClient, room: Documents, body: bytes) -> None:
    answer = await root.post("/v1/transactions", content=body)
    assert answer.status_code == 400, answer.text
    assert not room.databases()


async def test_events_are_streamed_from_where_one_was(root: httpx.AsyncClient, asgi: Any, room: Documents) -> None:
    for number in range(3):
        await room.put("shop", "orders", f"{number}", {"n": number})
    page = (await root.get("/v1/collections/orders/changes", params={"app": "shop", "start": "oldest", "limit": 1})).json()
    server = HttpServer(AsgiHandler(asgi), clock=Clock(), name="test")
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    bearer = BEARER.get("authorization") or BEARER["Authorization"]
    writer.write(
        f"GET /v1/collections/orders/changes?app=shop HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n"
        f"accept: text/event-stream\r\nlast-event-id: {page['cursor']}\r\n\r\n".encode()
    )
    seen: list[int] = []
    await room.put("shop", "orders", "3", {"n": 3})
    while len(seen) < 3:
        line = await reader.readline()
        assert line
        if line.startswith(b"data: "):
            seen.append(json.loads(line[6:])["value"]["n"])
    assert seen == [1, 2, 3]
    writer.close()
    await server.shutdown(1.0)


async def test_a_function_gets_what_it_declared_and_nothing_else(asgi: Any) -> None:
    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await asgi({**scope, "martlet.context": CALLER}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as caller:
        assert (await caller.post("/v1/documents/orders", json={})).status_code == 201
        for method, path, body in (
            ("POST", "/v1/documents/secrets", {}),
            ("POST", "/v1/documents/orders?app=other", {}),
            ("PUT", "/v1/collections/orders", {}),
            ("DELETE", "/v1/collections/orders", None),
            ("GET", "/v1/collections", None),
            ("GET", "/v1/databases", None),
            ("POST", "/v1/databases", {"path": "shop/x"}),
            ("DELETE", "/v1/databases/shop", None),
            ("GET", "/v1/collections/secrets/export", None),
            ("GET", "/v1/collections/secrets/changes", None),
            ("POST", "/v1/collections/secrets/query", {}),
            ("POST", "/v1/collections/secrets/import", {}),
            ("GET", "/v1/documents/secrets/x/versions", None),
            ("POST", "/v1/transactions", {"operations": [{"op": "get", "collection": "secrets", "id": "x"}]}),
        ):
            answer = await caller.request(method, path, json=body)
            assert answer.status_code == 403, (method, path, answer.text)


async def test_expanding_needs_the_right_to_read_the_other(asgi: Any, room: Documents, root: httpx.AsyncClient) -> None:
    schema = {"fields": {"who": {"type": "ref", "collection": "customers"}}}
    await root.put("/v1/collections/orders", json={"schema": schema})
    await room.put("shop", "customers", "ann", {"secret": 1})
    await room.put("shop", "orders", "1", {"who": "ann"})

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await asgi({**scope, "martlet.context": CALLER}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as caller:
        assert (await caller.post("/v1/collections/orders/query", json={"expand": ["who"]})).status_code == 403
    found = await root.post("/v1/collections/orders/query", json={"expand": ["who"]})
    assert found.json()["items"][0]["value"]["who"]["value"] == {"secret": 1}


async def test_the_sdk_speaks_it(asgi: Any, room: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await asgi({**scope, "martlet.context": CALLER}, receive, send)

    server = HttpServer(AsgiHandler(outer), clock=Clock(), name="test")
    port = await server.listen("127.0.0.1", 0)
    monkeypatch.setenv("MARTLET_API", f"127.0.0.1:{port}")
    monkeypatch.setattr(client, "_pool", client._Pool())
    orders, stock = Collection("orders"), Collection("stock")
    await room.put("shop", "stock", "cup", {"left": 5})

    def user_code() -> None:
        def buy(quantity: int) -> list[Any]:
            tx = stock.transaction()
            tx.patch(stock, "cup", increment={"left": -quantity}, condition="left >= $q", parameters={"q": quantity})
            tx.put(orders, None, {"quantity": quantity})
            return tx.commit(key=f"order-{quantity}")

        assert len(buy(3)) == 2
        assert buy(3) == buy(3)
        with pytest.raises(Conflict):
            buy(4)
        with stock.transaction() as tx:
            tx.check(stock, "cup", 2)
            tx.get(stock, "cup")
        assert tx.results[1]["value"] == {"left": 2}
        id = orders.insert({"quantity": 9})
        assert orders.patch(id, {"done": True}) == 2
        page = orders.query(filter="quantity > $n", parameters={"n": 2}, sort=["-quantity"], limit=1)
        assert [item.value["quantity"] for item in page] == [9]
        assert page.next is not None
        rest = orders.query(filter="quantity > $n", parameters={"n": 2}, sort=["-quantity"], limit=1, cursor=page.next)
        assert [item.value["quantity"] for item in rest] == [3]
        with pytest.raises(InvalidInput):
            orders.query(filter="quantity >")

    await asyncio.to_thread(user_code)
    assert await orders.aput("x", {"n": 1}) == 1
    found = await orders.aget("x")
    assert found is not None
    assert found.value == {"n": 1}
    assert [item.id for item in await orders.aquery(low="x")] == ["x"]
    assert await orders.adelete("x")
    transaction = orders.transaction()
    transaction.put(orders, "y", 1, version=0)
    assert (await transaction.acommit())[0]["version"] == 1
    for _, sock in client._pool._idle:
        sock.close()
    await server.shutdown(1.0)


async def test_a_database_inside_another_is_its_own(asgi: Any, room: Documents) -> None:
    """Made by one call, with its own collections, settings and counts; removed with all that is in it."""
    transport = httpx.ASGITransport(asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=BEARER) as root:
        assert (await root.put("/v1/documents/orders/1?app=shop", json={"n": 0})).status_code == 201
        assert (await root.put("/v1/documents/orders/1?app=shop/none", json={})).status_code == 404
        for path in ("shop/anna", "shop/anna/tests", "shop/bert"):
            made = await root.post("/v1/databases", json={"path": path})
            assert made.status_code == 201, made.text
        assert (await root.post("/v1/databases", json={"path": "shop/anna"})).status_code == 409
        assert (await root.post("/v1/databases", json={"path": "shop/carl/x"})).status_code == 404
        deep = "/".join(["shop", *"abcdefghijklmnop"])
        assert "database_depth" in (await root.post("/v1/databases", json={"path": deep})).text
        settings = {"indexes": {"u": {"terms": [{"path": "u"}], "unique": True}}}
        for path, number in (("shop/anna", 1), ("shop/anna/tests", 2), ("shop/bert", 3)):
            assert (await root.put(f"/v1/collections/orders?app={path}", json=settings)).status_code == 200
            for id in ("1", "2"):
                answer = await root.put(f"/v1/documents/orders/{id}?app={path}", json={"n": number, "u": id})
                assert answer.status_code == 201
        for path, number in (("shop", 0), ("shop/anna", 1), ("shop/anna/tests", 2), ("shop/bert", 3)):
            assert (await root.get(f"/v1/documents/orders/1?app={path}")).json()["n"] == number
            status = (await root.get(f"/v1/collections/orders?app={path}")).json()
            assert (status["documents"], len(status["indexes"])) == ((2, 1) if number else (1, 0))
        listed = (await root.get("/v1/databases?app=shop")).json()["items"]
        assert [item["path"] for item in listed] == ["shop", "shop/anna", "shop/anna/tests", "shop/bert"]
        assert (await root.delete("/v1/databases/shop%2Fanna")).status_code == 204
        for path, status in (("shop/anna", 404), ("shop/anna/tests", 404), ("shop/bert", 200), ("shop", 200)):
            assert (await root.get(f"/v1/documents/orders/1?app={path}")).status_code == status
        assert (await root.post("/v1/databases", json={"path": "shop/anna"})).status_code == 201
        assert (await root.get("/v1/documents/orders/1?app=shop/anna")).status_code == 404
