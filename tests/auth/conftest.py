from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from martlet.auth import Auth
from martlet.clock import ManualClock
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
def auth(store: Store, clock: ManualClock) -> Auth:
    return Auth(store, clock)
