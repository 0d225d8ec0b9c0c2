"""An app with a bus and a topic: `publish` in one function, `@app.on` on others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from martlet.config import Settings
from martlet.server import Server

APP = """
from martlet import App, Bus, Collection, Topic

app = App("news")
orders = Bus("orders")
alerts = Topic("alerts")
seen = Collection("seen")

@app.function(uses=[orders, alerts])
def tell(event, context):
    ids = [orders.publish("order", {"sum": n}) for n in event["sums"]]
    ids.append(alerts.publish({"text": "fire"}, subject="S", attributes={"level": 3}))
    alerts.publish("calm", attributes={"level": 1})
    return ids

@app.function(uses=[])
def stranger(event, context):
    found = []
    for publish in (lambda: orders.publish("order", {}), lambda: alerts.publish("x")):
        try:
            publish()
        except Exception as error:
            found.append(type(error).__name__)
    return found

@app.on(orders, pattern={"source": ["news"], "detail": {"sum": [{"numeric": [">", 9]}]}}, uses=[seen])
def large(event, context):
    seen.put(f"order-{event['detail']['sum']}", event)

@app.on(alerts, filter={"level": [{"numeric": [">=", 2]}]}, uses=[seen])
def alarm(event, context):
    for record in event["Records"]:
        seen.put("alert", record["Sns"])
"""


async def until(work: Any, seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := work()):  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)
    return found


async def test_an_app_publishes_and_hears(tmp_path: Path) -> None:
    source = tmp_path / "news"
    source.mkdir()
    (source / "app.py").write_text(APP)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True))
    await server.start()
    try:
        await server.apps.deploy(source)
        _, outcome = await server.functions.invoke("news-tell", b'{"sums": [5, 10]}')
        assert outcome.error == "", outcome.payload
        ids = json.loads(outcome.payload)
        _, outcome = await server.functions.invoke("news-stranger", b"{}")
        assert json.loads(outcome.payload) == ["AccessDenied", "AccessDenied"]
        found = await until(lambda: server.documents.get("news", "seen", "order-10"))
        event = found.value()
        assert (event["id"], event["detail-type"], event["source"]) == (ids[1], "order", "news")
        found = await until(lambda: server.documents.get("news", "seen", "alert"))
        message = found.value()
        assert (json.loads(message["Message"]), message["Subject"], message["MessageId"]) == ({"text": "fire"}, "S", ids[2])
        assert message["MessageAttributes"] == {"level": {"Type": "Number", "Value": "3"}}
        assert server.documents.get("news", "seen", "order-5") is None
        (source / "app.py").write_text(
            APP.replace('@app.on(orders, pattern={"source": ["news"]', '@app.on(orders, pattern={"source": ["x"]')
        )
        await server.apps.deploy(source)
        rules = (await server.buses.events.list_rules(None, {"EventBusName": "news-orders"}))["Rules"]
        assert [json.loads(rule["EventPattern"])["source"] for rule in rules] == [["x"]]
        await server.apps.destroy("news")
        assert (await server.buses.events.list_rules(None, {"EventBusName": "news-orders"}))["Rules"] == []
        assert (await server.buses.topics.list_subscriptions(None, {}))["Subscriptions"] == []
    finally:
        await server.stop()
