from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.objects.service import Service

from martlet.clock import ManualClock
from martlet.objects import Notice, Objects
from martlet.objects.backends.disk import DiskBackend
from martlet.secrets import Vault
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
def told() -> list[Notice]:
    return []


@pytest.fixture
async def objects(store: Store, clock: ManualClock, tmp_path: Path, told: list[Notice]) -> AsyncIterator[Objects]:
    async def send(notice: Notice) -> None:
        told.append(notice)

    vault = Vault(store, lambda: [bytes(32)])

    room = Objects(store, clock, backend=DiskBackend(tmp_path / "objects"), vault=vault, region="us-east-1", send=send)
    await room.start()
    yield room
    await room.stop()


@pytest.fixture
def s3(objects: Objects, clock: ManualClock, told: list[Notice]) -> Service:
    return Service(objects, clock, told)
