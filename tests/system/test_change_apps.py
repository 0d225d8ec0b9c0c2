"""An app that declares its collections, end to end: settings made by deploy, changes that run functions, and the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.system.test_queue_apps import until

from martlet.config import Settings
from martlet.errors import DeployFailed
from martlet.server import Server

APP = """
from martlet import App, Collection, DocumentField, Index, Queue, Reference

app = App("shop")
lost = Queue("lost")
customers = Collection("customers", unique=["email"])
orders = Collection(
    "orders",
    indexes={"by_customer": Index("customer", "-total", values=["total"])},
    schema={
        "customer": Reference(customers, required=True, on_delete="cascade"),
        "price": DocumentField("int", required=True, check="price > 0"),
        "quantity": DocumentField("int", default=1),
        "total": DocumentField(computed="price * quantity"),
    },
    changes="new_and_old",
    history=3600,
)
seen = Collection("seen")

@app.function(uses=[customers, orders])
def buy(event, context):
    from martlet import Conflict, InvalidInput
    customers.put("ann", {"email": "ann@b.example"})
    told = []
    try:
        customers.put("bob", {"email": "ann@b.example"})
    except Conflict:
        told.append("unique")
    for wrong in ({"customer": "nobody", "price": 1}, {"customer": "ann", "price": 0}, {"customer": "ann"}):
        try:
            orders.insert(wrong)
        except InvalidInput as error:
            told.append(error.message.split(" ")[0])
    ids = [orders.insert({"customer": "ann", "price": price, "quantity": 2}) for price in (5, 7)]
    best = orders.query("by_customer", equals=["ann"], select=["total"])
    def work(tx):
        first = tx.read(orders, ids[0])
        tx.put(orders, ids[0], first.value | {"price": 100})
        tx.delete(orders, ids[1])
        return first.value["total"]
    return {"told": told, "totals": [one.value["total"] for one in best], "was": orders.transact(work)}

@app.function(uses=[orders, seen])
async def later(event, context):
    id = await orders.ainsert({"customer": "ann", "price": 3})
    await orders.apatch(id, {"price": 4})
    written = await orders.aupdate(id, lambda value: value | {"price": value["price"] + 1})
    async def work(tx):
        found = await tx.aread(orders, id)
        tx.patch(orders, id, increment={"price": 10})
        return found.version
    version = await orders.atransact(work)
    return [written.version, version, (await orders.aget(id)).value["price"], len(await orders.alist())]

@app.on(orders.changed, filter={"operation": ["put"]}, uses=[seen])
def note(event, context):
    for record in event["Records"]:
        seen.put(f"{record['id']}-{record['version']}", record["value"]["total"])

@app.on(customers.changed, retries=1, on_failure=lost)
def broken(event, context):
    raise ValueError("no")
"""


async def test_an_app_declares_collections_and_follows_their_changes(tmp_path: Path) -> None:
    source = tmp_path / "shop"
    source.mkdir()
    (source / "app.py").write_text(APP)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True, stem_cells=1))
    await server.start()
    try:
        deployed = await server.apps.deploy(source, "shop")
        texts = [step.text() for step in deployed.steps]
        assert "put collection    customers  (new, + index email)" in texts
        assert any("changes of orders → note" in text for text in texts)
        assert (await server.apps.deploy(source, "shop")).steps == ()
        _, outcome = await server.functions.invoke("shop-buy", b"{}")
        said = json.loads(outcome.payload)
        assert said == {"told": ["unique", "field", "check", "field"], "totals": [14, 10], "was": 10}, outcome.payload
        _, outcome = await server.functions.invoke("shop-later", b"{}")
        assert json.loads(outcome.payload) == [3, 3, 15, 2], outcome.payload
        values = await until(lambda: _seen(server, 7))
        assert sorted(values) == [3, 4, 5, 10, 14, 15, 200]
        (lost,) = await server.queues.receive("shop-lost", 1, wait_ms=20_000)
        letter = json.loads(lost.message.body)
        assert letter["requestContext"]["approximateInvokeCount"] == 2
        assert letter["payload"]["Records"][0]["id"] == "ann"
        assert server.triggers.dead_letters("shop") == []
        await server.metering.documents.flush()
        (row,) = [row for row in server.metering.document_usage(0, 1 << 50) if row["database"] == "shop"]
        assert row["requests"] > 15
        assert row["write_operations"] > 15
        await _changed_settings(server, source)
    finally:
        await server.stop()


def _seen(server: Server, count: int) -> list[Any]:
    found, _ = server.documents.list("shop", "seen")
    return [one.value() for one in found] if len(found) >= count else []


async def _changed_settings(server: Server, source: Path) -> None:
    """What a new deployment changes it tells by name, and a bad one changes nothing."""
    before = server.documents.collection("shop", "orders")
    assert before is not None
    text = APP.replace('unique=["email"]', "").replace("history=3600", "history=60, ttl='until'")
    (source / "app.py").write_text(text.replace('"by_customer": Index', '"by_price": "price", "by_customer": Index'))
    plan = await server.apps.deploy(source, "shop", dry_run=True)
    texts = {step.text() for step in plan.steps}
    assert "put collection    customers  (- index email: its entries are removed)" in texts
    assert (
        "put collection    orders  (+ index by_price, history_seconds 3600 → 60: older versions are removed, "
        "ttl_field '' → 'until': documents past their time are removed)"
    ) in texts
    assert server.documents.collection("shop", "orders") == before
    told: list[str] = []
    await server.apps.deploy(source, "shop", progress=told.append)
    after = server.documents.collection("shop", "orders")
    assert after is not None
    assert {index.name for index in after.indexes} == {"by_price", "by_customer"}
    assert any(text.startswith("index orders.by_price:") for text in told)
    for wrong, message in (("price * quantity", "collection orders: .*"), ("price > 0", "collection orders: .*")):
        (source / "app.py").write_text(text.replace(wrong, "((("))
        with pytest.raises(DeployFailed, match=message):
            await server.apps.deploy(source, "shop")
    assert server.documents.collection("shop", "orders") == after
