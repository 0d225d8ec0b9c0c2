"""Buses and topics: finding an event's rules, an event's way to a function, a message's way to a hundred queues.

    python bench/buses.py [--events 300] [--folder .] [--no-server]

Matching is measured alone, in processor time, with the patterns compiled and indexed as a bus has them. The rest is the whole
platform in this process, each publish fsynced before it is answered, one event at a time. Put `--folder` on the disk that
matters: a tmpfs has no fsync to save.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from martlet.buses.rows import Rule
from martlet.buses.rulebook import Book
from martlet.config import Settings
from martlet.server import Server
from martlet.triggers.patterns import parse_pattern

RULES = 1_000
QUEUES = 100
REGION = "us-east-1"
ACCOUNT = "000000000000"
CODE = "import time\ndef handler(event, context):\n    return time.time()\n"
EVENT: dict[str, Any] = {
    "version": "0",
    "id": "1",
    "detail-type": "order.made",
    "source": "shop",
    "account": ACCOUNT,
    "region": REGION,
    "time": "2026-01-01T00:00:00Z",
    "resources": [],
    "detail": {"customer": "c500", "sum": 500.5, "name": "image-500.png", "items": [{"sku": "a"}, {"sku": "b"}]},
}


def _range(number: int) -> dict[str, Any]:
    return {"source": ["shop"], "detail": {"sum": [{"numeric": [">", number, "<=", number + 1]}]}}


def _alternatives(number: int) -> dict[str, Any]:
    return {"$or": [{"detail": {"customer": [f"c{number}"]}}, {"detail": {"sum": [{"numeric": ["=", number + 0.25]}]}}]}


# What a bus of 1,000 rules may be made of, from the kindest for the index to the one in which every rule has to be tried.
KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "each names a customer": lambda number: {"source": ["shop"], "detail": {"customer": [f"c{number}"]}},
    "each a range of one source": _range,
    "each a wildcard, no plain text": lambda number: {"detail": {"name": [{"wildcard": f"image-{number}.*"}]}},
    "each an alternative of two": _alternatives,
}


def median_ms(took: list[float]) -> float:
    return sorted(took)[len(took) // 2] * 1000


def matching() -> None:
    for kind, make in KINDS.items():
        rules = [
            Rule(bus="b", name=f"r{number}", pattern=json.dumps(make(number)), targets=({"Id": "t", "Arn": "x"},))
            for number in range(RULES)
        ]
        book = Book(rules, [], parse_pattern)
        took = []
        for _ in range(200):
            began = time.thread_time()
            found = list(book.matching(EVENT))
            took.append(time.thread_time() - began)
        assert [rule.name for rule in found] == ["r500"], found
        print(f"match, {RULES:,} rules, {kind:32} p50 {median_ms(took):7.3f} ms", flush=True)


class Clients:
    """boto3's, for set-up; and the platform's own operations, for what is measured."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._found = json.loads((folder / "credentials.json").read_text())

    def __call__(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=f"http://127.0.0.1:{self._server.api_port}", region_name=REGION,
            aws_access_key_id=self._found["access_key_id"], aws_secret_access_key=self._found["secret_access_key"],
        )  # fmt: skip


def made_ready(client: Clients) -> str:
    """A function that a rule invokes and whose results go to a queue, a topic with a hundred queues; the topic's ARN."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", CODE)
    functions, events, sqs, sns = client("lambda"), client("events"), client("sqs"), client("sns")
    sqs.create_queue(QueueName="results")
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"
    functions.create_function(
        FunctionName="f", Runtime="python3.12", Role=f"arn:aws:iam::{ACCOUNT}:role/none", Handler="app.handler",
        Code={"ZipFile": packed.getvalue()},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
    results = {"OnSuccess": {"Destination": f"arn:aws:sqs:{REGION}:{ACCOUNT}:results"}}
    functions.put_function_event_invoke_config(FunctionName="f", DestinationConfig=results)
    rule = events.put_rule(Name="r", EventPattern='{"source": ["shop"]}')["RuleArn"]
    functions.add_permission(
        FunctionName="f", StatementId="s", Action="lambda:InvokeFunction", Principal="events.amazonaws.com", SourceArn=rule
    )
    events.put_targets(Rule="r", Targets=[{"Id": "t", "Arn": arn}])
    topic = str(sns.create_topic(Name="fan")["TopicArn"])
    for number in range(QUEUES):
        sqs.create_queue(QueueName=f"q{number}")
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:q{number}")
    return topic


async def to_a_function(server: Server, count: int) -> None:
    entry = {"Source": "shop", "DetailType": "d", "Detail": "{}"}
    took = []
    for _ in range(count):
        began = time.time()
        await server.buses.events.put_events(None, {"Entries": [entry]})
        [found] = await server.queues.receive("results", 1, wait_ms=20_000)
        took.append(json.loads(found.message.body)["responsePayload"] - began)
        await server.queues.acknowledge("results", [found.handle])
    print(f"publish -> function invoked {'':30} p50 {median_ms(took):7.2f} ms", flush=True)


async def to_a_hundred_queues(server: Server, topic: str, count: int) -> None:
    took = []
    for _ in range(count):
        receivers = [asyncio.ensure_future(server.queues.receive(f"q{at}", 1, wait_ms=20_000)) for at in range(QUEUES)]
        await asyncio.sleep(0)  # they wait
        began = time.perf_counter()
        await server.buses.topics.publish(None, {"TopicArn": topic, "Message": "m" * 200})
        found = await asyncio.gather(*receivers)
        took.append(time.perf_counter() - began)
        assert all(len(messages) == 1 for messages in found)
    print(f"publish -> {QUEUES} receivers at as many queues have it {'':9} p50 {median_ms(took):7.2f} ms", flush=True)


async def on_the_platform(folder: Path, count: int) -> None:
    server = Server(Settings(data=str(folder), port=0, sandbox="process", quiet=True))
    await server.start()
    topic = await asyncio.to_thread(made_ready, Clients(server, folder))
    await to_a_function(server, count)
    await to_a_hundred_queues(server, topic, max(count // 10, 1))
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--no-server", action="store_true")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    matching()
    if not given.no_server:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            asyncio.run(on_the_platform(Path(folder) / "data", given.events))


if __name__ == "__main__":
    main()
