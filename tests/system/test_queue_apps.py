"""An app with a queue, end to end: `Queue.send` in one function, `@app.on(queue)` on another, poison set aside."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from martlet.config import Settings
from martlet.server import Server
from martlet.triggers import mappings

APP = """
from martlet import App, Collection, Queue

app = App("mail")
jobs = Queue("jobs", retries=1, visibility=3)
letters = Queue("letters", fifo=True)
seen = Collection("seen")

@app.function(uses=[jobs, letters])
def enqueue(event, context):
    ids = [jobs.send({"n": n}) for n in range(event["count"])]
    ids += jobs.send_many([{"n": "poison"}, {"skip": True}])
    for n in range(3):
        letters.send(f"letter {n}", group="a", deduplication_id=str(n))
    return ids

@app.function(uses=[])
def stranger(event, context):
    try:
        jobs.send("x")
    except Exception as error:
        return type(error).__name__

@app.on(jobs, batch=1, filter={"body": {"n": [{"exists": True}]}}, timeout=2, uses=[seen])
def work(event, context):
    import json
    for record in event["Records"]:
        n = json.loads(record["body"])["n"]
        if n == "poison":
            raise ValueError("poison")
        seen.put(f"job-{n}", record["eventSourceARN"])

@app.on(letters, uses=[seen])
def deliver(event, context):
    seen.update("letters", lambda now: [*(now or []), *(record["body"] for record in event["Records"])])
"""


async def until(work: Any, seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := work()):  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)
    return found


async def test_an_app_sends_and_takes_messages(tmp_path: Path) -> None:
    source = tmp_path / "mail"
    source.mkdir()
    (source / "app.py").write_text(APP)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True, stem_cells=1))
    await server.start()
    try:
        deployed = await server.apps.deploy(source, "mail")
        assert any("jobs → work" in step.text() for step in deployed.steps)
        assert (await server.apps.deploy(source, "mail")).steps == ()
        jobs = server.queues.find("mail-jobs")
        assert jobs is not None
        assert (jobs.visibility_ms, jobs.dead_letter, jobs.attempts) == (3_000, "mail-jobs-dead", 1)
        _, outcome = await server.functions.invoke("mail-enqueue", b'{"count": 20}')
        assert len(json.loads(outcome.payload)) == 22, outcome.payload
        _, outcome = await server.functions.invoke("mail-stranger", b"{}")
        assert json.loads(outcome.payload) == "AccessDenied"
        ids = [f"job-{n}" for n in range(20)]
        await until(lambda: all(server.documents.get("mail", "seen", id) for id in ids))
        document = server.documents.get("mail", "seen", "job-7")
        assert document is not None
        assert json.loads(document.value_bytes) == "arn:aws:sqs:us-east-1:000000000000:mail-jobs"
        await until(lambda: (found := server.documents.get("mail", "seen", "letters")) and b"letter 2" in found.value_bytes)
        found = server.documents.get("mail", "seen", "letters")
        assert found is not None
        assert json.loads(found.value_bytes) == [f"letter {n}" for n in range(3)]
        (dead,) = await server.queues.receive("mail-jobs-dead", wait_ms=20_000)
        assert json.loads(dead.message.body) == {"n": "poison"}
        await server.apps.destroy("mail")
        await server.event_sources.settled()
        assert server.store.read(mappings.every) == []
    finally:
        await server.stop()
