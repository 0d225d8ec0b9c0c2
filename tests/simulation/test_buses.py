"""A crash at every commit between publishing and delivery: nothing acknowledged is lost, FIFO order holds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.mortal_store import Killed, MortalStore
from tests.queues.service import CALLER

from martlet.buses import Events, Rulebook, Signer, Sns
from martlet.clock import ManualClock
from martlet.queues import Queues
from martlet.store import Store
from martlet.store.engines.memory import Disk, MemoryEngine
from martlet.triggers import Triggers, patterns
from martlet.triggers.calls import Calls
from martlet.triggers.destinations import Destinations
from martlet.triggers.kinds.bus import BusSource
from martlet.triggers.kinds.topic import TopicSource

ACCOUNT = "arn:aws:{}:us-east-1:000000000000:"
_SENDERS = {"Service": ["sns.amazonaws.com", "events.amazonaws.com"]}
SERVICES = json.dumps({"Statement": {"Effect": "Allow", "Principal": _SENDERS, "Action": "sqs:SendMessage"}})
EVENTS, TOPIC = 4, ACCOUNT.format("sns") + "t.fifo"


class Rooms:
    def __init__(self, store: Any, clock: ManualClock, invoked: list[int]) -> None:
        self.queues = Queues(store, clock)
        self.triggers = Triggers(store, clock, lambda _: None, holder="one")
        given: dict[str, Any] = {"region": "us-east-1", "compile_pattern": patterns.parse_pattern}
        self.events = Events(store, clock, timetable=self.triggers, **given)
        self.sns = Sns(store, clock, endpoint=lambda: "", signer=Signer(store, clock, lambda: ""), **given)

        async def accept(function: str, qualifier: str, payload: bytes, *, request_id: str = "") -> str:
            await store.transact(lambda tx: tx.put(b"accepted", payload))
            invoked.append(json.loads(payload)["detail"]["n"])
            return request_id

        nothing: Any = None
        to = Destinations(
            self.queues, clock, accept=accept, resolve=lambda _: self, may_invoke=lambda *_: True, logs=nothing,
            region="us-east-1",
        )  # fmt: skip
        book = Rulebook(store, patterns.parse_pattern)
        self.triggers.serve(BusSource(store, self.events, book, to, Calls(nothing, clock.now_ms), self.sns))
        self.triggers.serve(TopicSource(store, self.sns, to, Calls(nothing, clock.now_ms), patterns.parse_pattern))

    async def settle(self) -> None:
        for _ in range(12):
            await self.triggers.run_due()
            await asyncio.sleep(0)
        await self.triggers.stop()


async def prepared(store: Store, clock: ManualClock) -> None:
    rooms = Rooms(store, clock, [])
    await rooms.queues.start()
    await rooms.events.start()
    await rooms.queues.create("plain", {"Policy": SERVICES})
    await rooms.queues.create("t.fifo", {"FifoQueue": "true", "Policy": SERVICES})
    await rooms.events.put_rule(CALLER, {"Name": "r", "EventPattern": '{"source": ["s"]}'})
    function = ACCOUNT.format("lambda") + "function:f"
    targets = [{"Id": "q", "Arn": ACCOUNT.format("sqs") + "plain"}, {"Id": "f", "Arn": function}]
    await rooms.events.put_targets(CALLER, {"Rule": "r", "Targets": targets})
    topic = {"Name": "t.fifo", "Attributes": {"FifoTopic": "true", "ContentBasedDeduplication": "true"}}
    await rooms.sns.create_topic(CALLER, topic)
    queue = {"TopicArn": TOPIC, "Protocol": "sqs", "Endpoint": ACCOUNT.format("sqs") + "t.fifo"}
    await rooms.sns.subscribe(CALLER, {**queue, "Attributes": {"RawMessageDelivery": "true"}})


async def life(rooms: Rooms, told: list[int], messages: list[str]) -> None:
    await rooms.queues.start()
    for number in range(EVENTS):
        entry = {"Source": "s", "DetailType": "d", "Detail": json.dumps({"n": number})}
        await rooms.events.put_events(CALLER, {"Entries": [entry]})
        told.append(number)
        await rooms.sns.publish(CALLER, {"TopicArn": TOPIC, "Message": str(number), "MessageGroupId": "g"})
        messages.append(str(number))
        await rooms.triggers.run_due()
    await rooms.settle()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_nothing_acknowledged_is_lost(after: bool) -> None:
    crashes = 0
    for at in range(200):
        clock, disk, invoked, told, messages = ManualClock(), Disk(), [], [], []
        store = Store(MemoryEngine(disk), clock=clock)
        await prepared(store, clock)
        mortal = MortalStore(store, at, after)
        first = Rooms(mortal, clock, invoked)
        try:
            await life(first, told, messages)
        except Killed:
            crashes += 1
        for task in first.triggers._carrying:
            task.cancel()
        await asyncio.gather(*first.triggers._carrying, return_exceptions=True)
        again = Rooms(store, clock, invoked)
        await again.queues.start()
        clock.advance(600)
        await again.settle()
        bodies = [json.loads(one.message.body)["detail"]["n"] for one in await again.queues.receive("plain", 10, wait_ms=0)]
        assert set(told) <= set(bodies), (at, told, bodies)
        assert len(bodies) == len(set(bodies)), "a queue takes each event in the commit that moves the cursor"
        assert set(told) <= set(invoked), (at, told, invoked)
        ordered = [one.message.body for one in await again.queues.receive("t.fifo", 10, wait_ms=0)]
        assert ordered == sorted(set(ordered)), ordered
        assert set(messages) <= set(ordered)
        await again.queues.stop()
        await store.close()
        if not mortal.dead:
            break
    assert crashes > 10
