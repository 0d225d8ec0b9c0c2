from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from martlet.clock import ManualClock
from martlet.documents import Documents
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    opened = Store(MemoryEngine(), clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
def documents(store: Store, clock: ManualClock) -> Documents:
    return Documents(store, clock)
