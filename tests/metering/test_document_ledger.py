"""The ledger of documents: what was recorded is there once, whatever fails between."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.store.conftest import FaultyEngine

from martlet.clock import ManualClock
from martlet.documents import Documents, Usage
from martlet.errors import Conflict, StoreFull
from martlet.metering import DocumentLedger
from martlet.store import Store

HOUR = 3_600_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)


@pytest.fixture
async def engine() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture
async def store(engine: FaultyEngine, clock: ManualClock) -> AsyncIterator[Store]:
    opened = Store(engine, clock=clock)
    yield opened
    await opened.close()


async def test_sums_by_database_and_hour(store: Store, clock: ManualClock) -> None:
    ledger = DocumentLedger(store, clock, lambda: [("a", 70)])
    ledger.record("a", Usage(1, 2, 3, 4, 5))
    ledger.record("a", Usage(1, 2, 3, 4, 5))
    ledger.record("b", Usage(write_operations=7))
    clock.advance(HOUR // 1000)
    ledger.record("a", Usage(read_operations=9))
    ledger.sample()
    assert ledger.usage() == []
    await ledger.flush()
    first, second, third = ledger.usage()
    assert (first.database, first.requests, first.read_operations, first.bytes_out) == ("a", 2, 2, 10)
    assert (second.database, second.write_operations, second.storage_bytes) == ("b", 7, 0)
    assert (third.database, third.hour_ms - first.hour_ms, third.read_operations, third.storage_bytes) == ("a", HOUR, 9, 70)
    assert [row.database for row in ledger.usage(since_ms=third.hour_ms)] == ["a"]
    assert len(ledger.usage(until_ms=third.hour_ms)) == 2


async def test_a_flush_that_fails_loses_and_doubles_nothing(store: Store, clock: ManualClock, engine: FaultyEngine) -> None:
    ledger = DocumentLedger(store, clock, list)
    ledger.record("a", Usage(1, 1, 1, 1, 1))
    engine.faults.append(StoreFull("full"))
    with pytest.raises(StoreFull):
        await ledger.flush()
    assert ledger.failed_flushes == 1
    ledger.record("a", Usage(1, 1, 1, 1, 1))
    await ledger.flush()
    await ledger.flush()
    (row,) = ledger.usage()
    assert (row.requests, row.read_operations) == (2, 2)
    again = DocumentLedger(store, clock, list)
    again.record("a", Usage(1, 0, 0, 0, 0))
    await again.stop()
    assert again.usage()[0].requests == 3


async def test_every_request_of_the_database_is_counted_once(store: Store, clock: ManualClock) -> None:
    rooms: list[DocumentLedger] = []
    room = Documents(store, clock, record=lambda database, used: rooms[0].record(database, used))
    rooms.append(DocumentLedger(store, clock, room.storage))
    await room.put("d", "c", "1", {"text": "x" * 2_000})  # 2,011 bytes: two of 1 KiB
    room.get("d", "c", "1")
    room.get("d", "c", "none")
    with pytest.raises(Conflict):
        await room.put("d", "c", "1", {}, expected=7)
    spent = Usage()
    await room.create_database("d/child")
    await room.put("d/child", "c", "1", {}, usage=spent)
    rooms[0].sample()
    await rooms[0].flush()
    child, parent = sorted(rooms[0].usage(), key=lambda row: len(row.database), reverse=True)
    assert (parent.requests, parent.write_operations, parent.read_operations) == (4, 2, 2)
    assert (parent.bytes_in, parent.bytes_out, parent.storage_bytes) == (2_011, 2_011, 2_011)
    assert (child.database, child.requests, child.write_operations) == ("d/child", 1, spent.write_operations)
