"""A store on an engine whose commits a test can hold up or make fail."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from martlet.clock import ManualClock
from martlet.store import LogEntry, Store
from martlet.store.engines.memory import Disk, MemoryEngine


class FaultyEngine(MemoryEngine):
    """Commits wait for `gate`; each takes one fault from `faults`, if there is one, and raises it unless it is None."""

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__(disk)
        self.gate = threading.Event()
        self.gate.set()
        self.faults: deque[Exception | None] = deque()
        self.checkpoint_fault: Exception | None = None
        self.commits = 0

    def commit(self, writes: Mapping[bytes, bytes | None], entries: Sequence[LogEntry], trim_through: int) -> None:
        assert self.gate.wait(30)
        self.commits += 1
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            raise fault
        super().commit(writes, entries, trim_through)

    def checkpoint(self, *, full: bool) -> None:
        if self.checkpoint_fault is not None:
            raise self.checkpoint_fault


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def engine() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture
async def store(engine: FaultyEngine, clock: ManualClock) -> AsyncIterator[Store]:
    store = Store(engine, clock=clock)
    yield store
    engine.gate.set()
    await store.close()
