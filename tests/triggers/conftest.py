from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from martlet.clock import ManualClock
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)  # 2023-11-14T22:13:20Z


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    opened = Store(MemoryEngine(), clock=clock)
    yield opened
    await opened.close()
