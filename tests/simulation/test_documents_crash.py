"""A crash after every single commit of a busy life: indexes agree with documents, counts are right, nothing acknowledged is
lost, the feed tells every version in order; and the next life goes on where this one was (builds, removals, expiry).

`MARTLET_TEST_CRASHES` is the number of lives (nightly: 50)."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import msgspec
import pytest
from tests.documents.consistency import problems

from martlet.clock import ManualClock
from martlet.documents import CollectionConfig, Documents, IndexConfig, Term, housekeeping
from martlet.errors import Conflict
from martlet.store import Store
from martlet.store.engines.memory import Disk, MemoryEngine

LIVES = int(os.environ.get("MARTLET_TEST_CRASHES", "3"))
CONFIGS = [
    CollectionConfig(indexes={"n": IndexConfig((Term("n"), Term("s", descending=True)))}),
    CollectionConfig(indexes={"u": IndexConfig((Term("u"),), unique=True), "t": IndexConfig((Term("t[]"),), sparse=True)}),
    CollectionConfig(indexes={"u": IndexConfig((Term("u"),), unique=True)}, history_seconds=0),
]


class Remembering(MemoryEngine):
    """Keeps what the disk held after each commit, and how many writes had been acknowledged before it began."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[tuple[Disk, int]] = []
        self.acknowledged: list[tuple[str, int]] = []

    def commit(self, writes: Any, entries: Any, trim_through: int) -> None:
        before = len(self.acknowledged)
        super().commit(writes, entries, trim_through)
        copy = Disk()
        copy.rows, copy.log = dict(self.disk.rows), list(self.disk.log)
        self.moments.append((copy, before))


async def live(engine: Remembering, seed: int, clock: ManualClock) -> None:
    chance = random.Random(seed)
    store = Store(engine, clock=clock)
    room = Documents(store, clock, holder="local")

    async def write(client: int) -> None:
        for _ in range(60):
            id = f"k{chance.randrange(30)}"
            value = {"n": chance.randrange(5), "s": "x" * chance.randrange(3), "u": chance.randrange(60), "t": [client, 1]}
            try:
                if chance.random() < 0.2:
                    await room.delete("d", "c", id)
                elif chance.random() < 0.3:
                    expires = clock.now_ms() + chance.randrange(3000)
                    written = await room.put("d", "c", id, value, expires_at_ms=expires)
                    engine.acknowledged.append((id, written.version))
                else:
                    written = await room.put("d", "c", id, value)
                    engine.acknowledged.append((id, written.version))
            except Conflict:
                pass  # the unique index did its work
            clock.advance(chance.random() * 0.2)

    async def change() -> None:
        for config in chance.sample([*CONFIGS, *CONFIGS], 5):
            await room.define_collection("d", "c", config)
            await room.housekeeping.run_due()

    await asyncio.gather(change(), *(write(client) for client in range(6)))
    await store.close()


async def check(disk: Disk, acknowledged: list[tuple[str, int]], clock: ManualClock) -> None:
    store = Store(MemoryEngine(disk), clock=clock)
    found = store.read(problems)
    assert not found
    told: dict[str, list[int]] = {}
    for entry in store.tail(0, 100_000) if store.head else []:
        change = msgspec.json.decode(entry.body)
        if change["operation"] == "put":
            told.setdefault(change["id"], []).append(change["version"])
    for id, versions in told.items():
        assert versions == list(range(1, len(versions) + 1)), f"{id}: the feed tells {versions}"
    for id, version in acknowledged:
        assert len(told.get(id, [])) >= version, f"{id}: version {version} was acknowledged"
    room = Documents(store, clock, holder="local")
    await room.start()
    await room.housekeeping.run_due()
    assert not store.read(problems)
    status = room.collection("d", "c")
    assert status is None or all(index.status != "building" for index in status.indexes)
    await room.stop()
    await store.close()


@pytest.mark.parametrize("seed", range(LIVES))
@pytest.mark.timeout(300)
async def test_a_crash_after_any_commit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_BUILD_DOCUMENTS", 3)  # so that builds and removals take many commits
    monkeypatch.setattr(housekeeping, "_REMOVE_ROWS", 4)
    clock = ManualClock()
    engine = Remembering()
    await live(engine, seed, clock)
    assert len(engine.moments) > 30
    for disk, before in engine.moments:
        await check(disk, engine.acknowledged[:before], clock)


async def test_the_check_would_find_a_lost_entry() -> None:
    clock = ManualClock()
    engine = Remembering()
    await live(engine, 1, clock)
    disk = engine.moments[-1][0]
    index_row = next(key for key in disk.rows if key.startswith(b"Di"))
    del disk.rows[index_row]
    store = Store(MemoryEngine(disk), clock=clock)
    assert store.read(problems)
    await store.close()
