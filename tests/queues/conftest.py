from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.queues.service import Service

from martlet.clock import ManualClock
from martlet.queues import Queues
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    opened = Store(MemoryEngine(), clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def queues(store: Store, clock: ManualClock) -> AsyncIterator[Queues]:
    room = Queues(store, clock)
    await room.start()
    yield room
    await room.stop()


@pytest.fixture
def sqs(queues: Queues, clock: ManualClock) -> Service:
    return Service(queues, clock)
