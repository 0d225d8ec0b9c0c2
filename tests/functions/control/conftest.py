from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.functions.control.world import World

from martlet.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_795_219_200_000)


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    found = await World(tmp_path, clock).start()
    yield found
    await found.stop()
