"""A crash at every commit of a queue's life: nothing acknowledged is lost, nothing handed out twice within its visibility."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from tests.mortal_store import Killed, MortalStore

from martlet.clock import ManualClock
from martlet.queues import Queues
from martlet.queues.queues import Draft
from martlet.store import Store
from martlet.store.engines.memory import Disk, MemoryEngine
from martlet.store.engines.sqlite import open_engine

T = TypeVar("T")
SEEDS = int(os.environ.get("MARTLET_TEST_CRASHES", "3"))


@dataclass
class Told:
    """What callers were told, and what they had asked for when the process died."""

    sent: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    maybe_deleted: set[str] = field(default_factory=set)
    hidden_until_ms: dict[str, int] = field(default_factory=dict)


async def life(room: Queues, clock: ManualClock, name: str, told: Told, seed: int) -> None:
    chance = random.Random(seed)
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    await room.create(name, fifo)
    handles: list[tuple[str, str]] = []
    latest: dict[str, str] = {}  # a standard queue says yes to an older handle, and keeps the message
    for number in range(14):
        bodies = [f"{number}-{at}" for at in range(chance.choice((1, 1, 3)))]
        told.asked.update(bodies)
        await room.send(name, [Draft(body=body, group=body[0], deduplication_id=body) for body in bodies])
        told.sent.update(bodies)
        clock.advance(chance.random())
        if chance.random() < 0.6:
            visibility_ms = chance.choice((2_000, 60_000))
            for one in await room.receive(name, 3, visibility_ms=visibility_ms, wait_ms=0):
                told.hidden_until_ms[one.message.body] = clock.now_ms() + visibility_ms
                handles.append((one.message.body, one.handle))
                latest[one.message.body] = one.handle
        if handles and chance.random() < 0.5:
            body, handle = handles.pop(chance.randrange(len(handles)))
            if latest[body] == handle:
                told.maybe_deleted.add(body)
            (problem,) = await room.acknowledge(name, [handle])
            if problem is None and latest[body] == handle and told.hidden_until_ms[body] > clock.now_ms():
                told.deleted.add(body)


async def run(open_store: Callable[[ManualClock], Store], name: str, at: int, after: bool, seed: int) -> bool:
    """One life up to its crash, then what is there. False if it ended before the crash."""
    clock, told = ManualClock(1_700_000_000_000), Told()
    store = open_store(clock)
    mortal = MortalStore(store, at, after)
    room = Queues(mortal, clock)  # type: ignore[arg-type]
    died = False
    try:
        await room.start()
        await life(room, clock, name, told, seed)
    except Killed:
        died = True
    await room.stop()
    await store.close()

    store = open_store(clock)
    room = Queues(store, clock)
    await room.start()
    if room.find(name) is not None:
        await check(room, clock, name, told)
    else:
        assert not told.sent
    await room.stop()
    await store.close()
    return died


async def check(room: Queues, clock: ManualClock, name: str, told: Told) -> None:
    while found := await room.receive(name, 10, visibility_ms=1_000_000, wait_ms=0):
        for one in found:
            body = one.message.body
            assert told.hidden_until_ms.get(body, 0) <= clock.now_ms(), f"{body} was handed out twice within its visibility"
            await room.acknowledge(name, [one.handle])
            told.maybe_deleted.add(body)
            assert body not in told.deleted
            told.deleted.add(body)
    counts = await room.counts(name)
    assert counts.ready == 0 or name.endswith(".fifo")
    clock.advance(61)
    while found := await room.receive(name, 10, visibility_ms=1_000_000, wait_ms=0):
        for one in found:
            assert one.message.body not in told.deleted
            told.deleted.add(one.message.body)
            await room.acknowledge(name, [one.handle])
    lost = told.sent - told.deleted - told.maybe_deleted
    assert not lost, f"acknowledged and lost: {lost}"
    assert told.deleted <= told.asked
    counts = await room.counts(name)
    assert (counts.ready, counts.in_flight, counts.delayed) == (0, 0, 0)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["q", "q.fifo"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_crash_at_every_commit(name: str, after: bool, seed: int) -> None:
    at = 0
    while True:
        disk = Disk()
        open_store = lambda clock, disk=disk: Store(MemoryEngine(disk), clock=clock)  # noqa: E731
        if not asyncio.run(run(open_store, name, at, after, seed)):
            break
        at += 1
    assert at > 20


@pytest.mark.parametrize("name", ["q", "q.fifo"])
def test_a_crash_on_the_real_disk(name: str, tmp_path: Path) -> None:
    for at in (3, 11, 19):
        open_store = lambda clock, at=at: Store(open_engine(tmp_path / str(at)), clock=clock)  # noqa: E731
        assert asyncio.run(run(open_store, name, at, True, at))
