"""The room over every engine, against a model: whatever is done, messages are where the rules of SQS say, in that order."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.clock import ManualClock
from martlet.queues import Queues
from martlet.queues.queues import Draft, Received, Sent
from martlet.store import Engine, Store
from martlet.store.engines.memory import MemoryEngine
from martlet.store.engines.sqlite import open_engine

VISIBILITY_MS = 5_000
ATTEMPTS = 2


@dataclass
class Entry:
    """A message as the model has it."""

    body: str
    group: str
    visible_at_ms: int
    hidden: str = ""  # "flight" or "delay" while it is
    receives: int = 0
    handle: str = ""


@dataclass
class Model:
    fifo: bool
    now_ms: int = 0
    live: list[Entry] = field(default_factory=list)  # in the order of sending

    def settle(self) -> None:
        for entry in self.live:
            if entry.hidden and entry.visible_at_ms <= self.now_ms:
                entry.hidden = ""

    def candidates(self) -> list[Entry]:
        """What a receive may hand out; of a FIFO queue those of each group up to the first that is hidden."""
        if not self.fifo:
            return [entry for entry in self.live if not entry.hidden]
        blocked: set[str] = set()
        found = []
        for entry in self.live:
            if entry.hidden:
                blocked.add(entry.group)
            elif entry.group not in blocked:
                found.append(entry)
        return found


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from("abc"), st.sampled_from([0, 0, 0, 3_000])),
        st.tuples(st.just("receive"), st.integers(1, 10), st.sampled_from([0, 1_000, VISIBILITY_MS])),
        st.tuples(st.just("delete"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("hide"), st.integers(0, 20), st.sampled_from([0, 2_000, 20_000])),
        st.tuples(st.just("wait"), st.integers(1, 7_000), st.just(0)),
    ),
    max_size=40,
)


async def follow(engine: Engine, fifo: bool, operations: list[tuple[str, int | str, int]]) -> None:
    clock = ManualClock(1_700_000_000_000)
    store = Store(engine, clock=clock)
    room = Queues(store, clock)
    await room.start()
    suffix = ".fifo" if fifo else ""
    kind = {"FifoQueue": "true"} if fifo else {}
    await room.create(f"dead{suffix}", kind)
    arn = f"arn:aws:sqs:us-east-1:000000000000:dead{suffix}"
    policy = f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{ATTEMPTS}}}'
    await room.create(f"q{suffix}", {**kind, "RedrivePolicy": policy})
    model = Model(fifo)
    for number, operation in enumerate(operations):
        model.now_ms = clock.now_ms()
        model.settle()
        await step(room, model, clock, f"q{suffix}", number, *operation)
        counts = await room.counts(f"q{suffix}")
        model.now_ms = clock.now_ms()
        model.settle()
        expected = [sum(entry.hidden == kind for entry in model.live) for kind in ("", "flight", "delay")]
        assert [counts.ready, counts.in_flight, counts.delayed] == expected, operations[: number + 1]
    await room.stop()
    await store.close()


async def step(
    room: Queues, model: Model, clock: ManualClock, name: str, number: int, kind: str, value: int | str, ms: int
) -> None:
    now_ms = clock.now_ms()
    if kind == "wait":
        clock.advance(int(value) / 1000)
    elif kind == "send":
        delay_ms = 0 if model.fifo else ms
        draft = Draft(body=str(number), group=str(value), deduplication_id=str(number), delay_ms=delay_ms)
        (sent,) = await room.send(name, [draft])
        assert isinstance(sent, Sent)
        model.live.append(Entry(str(number), str(value), now_ms + delay_ms, "delay" if delay_ms else ""))
    elif kind == "receive":
        due = {entry.body for entry in model.candidates() if entry.receives >= ATTEMPTS}
        received(model, await room.receive(name, int(value), visibility_ms=ms, wait_ms=0), int(value), now_ms, ms)
        await bury(room, model, name, due)
    else:
        known = [entry for entry in model.live if entry.handle]
        if not known:
            return
        entry = known[int(value) % len(known)]
        expired = model.fifo and entry.visible_at_ms <= now_ms
        if kind == "delete":
            (problem,) = await room.acknowledge(name, [entry.handle])
            assert (problem is not None) == expired
            if not expired:
                model.live.remove(entry)
            return
        (problem,) = await room.hide(name, [(entry.handle, ms)])
        assert (problem is not None) == expired
        if not expired:
            entry.visible_at_ms, entry.hidden = now_ms + ms, "flight" if ms else ""


def received(model: Model, found: list[Received], most: int, now_ms: int, visibility_ms: int) -> None:
    by_body = {entry.body: entry for entry in model.live}
    may = model.candidates()
    alive = [entry for entry in may if entry.receives < ATTEMPTS]
    got = [by_body[one.message.body] for one in found]
    assert all(entry in alive for entry in got)
    assert len({entry.body for entry in got}) == len(got) == min(most, len(alive))
    if model.fifo:
        for group in "abc":  # without a gap, from the first on
            queue = [entry for entry in alive if entry.group == group]
            taken = [entry for entry in got if entry.group == group]
            assert taken == queue[: len(taken)]
    for entry, one in zip(got, found, strict=True):
        entry.receives += 1
        assert one.receives == entry.receives
        entry.handle = one.handle
        entry.visible_at_ms = now_ms + visibility_ms
        entry.hidden = "flight" if visibility_ms else ""


async def bury(room: Queues, model: Model, name: str, due: set[str]) -> None:
    """A message that was received too often leaves when a receive comes by it; whether one has is for the room to say."""
    dead = name.replace("q", "dead")
    left = (await room.counts(dead)).ready
    while left:  # take the new letters out, so that each is seen once
        for letter in await room.receive(dead, 10, wait_ms=0):
            body = letter.message.body
            assert body in due
            assert letter.message.receives == ATTEMPTS
            model.live = [entry for entry in model.live if entry.body != body]
            await room.acknowledge(dead, [letter.handle])
            left -= 1


def walk(seed: int, steps: int) -> list[tuple[str, int | str, int]]:
    """A long life, in which messages meet: few groups, many receives."""
    chance = random.Random(seed)
    choices: list[Callable[[], tuple[str, int | str, int]]] = [
        lambda: ("send", chance.choice("ab"), chance.choice((0, 0, 0, 3_000))),
        lambda: ("send", chance.choice("ab"), 0),
        lambda: ("receive", chance.randint(1, 4), chance.choice((0, 1_000, VISIBILITY_MS))),
        lambda: ("receive", chance.randint(1, 10), VISIBILITY_MS),
        lambda: ("delete", chance.randrange(20), 0),
        lambda: ("hide", chance.randrange(20), chance.choice((0, 0, 2_000, 20_000))),
        lambda: ("wait", chance.randint(1, 3_000), 0),
    ]
    return [chance.choice(choices)() for _ in range(steps)]


@pytest.mark.parametrize("fifo", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_long_walk_follows_the_model(fifo: bool, seed: int) -> None:
    asyncio.run(follow(MemoryEngine(), fifo, walk(seed, 250)))


@pytest.mark.parametrize("fifo", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_the_room_follows_the_model_in_memory(fifo: bool, operations: list[tuple[str, int | str, int]]) -> None:
    asyncio.run(follow(MemoryEngine(), fifo, operations))


@pytest.mark.parametrize("fifo", [False, True])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_the_room_follows_the_model_on_sqlite(fifo: bool, operations: list[tuple[str, int | str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(follow(open_engine(Path(folder)), fifo, operations))
