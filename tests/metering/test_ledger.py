"""The ledger is exact: nothing is counted twice, nothing recorded before the last flush is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.clock import Clock, ManualClock
from martlet.errors import NotFound, Overloaded, StoreFull, Throttled
from martlet.metering import Ledger, UsageRow, sums
from martlet.store import LogEntry, Store
from martlet.store.engines.memory import MemoryEngine
from martlet.types import Invocation, Outcome

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
OK = Outcome(payload=b"{}")
FAILED = Outcome(error="Unhandled", error_type="ValueError")


class Engine(MemoryEngine):
    """Commits wait for `gate` and raise what is in `faults`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.faults: deque[Exception] = deque()
        self.commits = 0

    def commit(self, writes: Mapping[bytes, bytes | None], entries: Sequence[LogEntry], trim_through: int) -> None:
        assert self.gate.wait(30)
        if self.faults:
            raise self.faults.popleft()
        self.commits += 1
        super().commit(writes, entries, trim_through)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    engine.gate.set()


@pytest.fixture
async def store(engine: Engine) -> AsyncIterator[Store]:
    store = Store(engine, clock=ManualClock(NOON_MS))
    yield store
    engine.gate.set()
    await store.close()


@pytest.fixture
async def book(store: Store) -> Ledger:
    return Ledger(store, ManualClock(NOON_MS), flush_ms=10)


def invocation(function: str = "app-f", version: int = 1, **values: int) -> Invocation:
    made = Invocation(function, b"", "id", lambda *_: None)
    made.version = version
    made.started_at_ms = NOON_MS
    for name, value in values.items():
        setattr(made, name, value)
    return made


async def test_every_figure_of_an_invocation_is_summed(book: Ledger) -> None:
    used = {"queue_us": 1_400, "duration_us": 2_001, "cpu_us": 700, "memory_mb": 512, "bytes_in": 10, "bytes_out": 20}
    book.record(invocation(**used, peak_mb=90, cold=1, init_us=3_000), OK)
    book.record(invocation(**used, peak_mb=40, init_us=3_000), FAILED)
    book.record_egress("app-f", 1, 100, 7)
    book.record_egress("app-f", 1, 1, 0)
    await book.flush()
    assert book.usage() == [
        UsageRow(
            function="app-f",
            version=1,
            hour_ms=NOON_MS,
            invocations=2,
            errors=1,
            throttled=0,
            cold_starts=1,
            queue_ms=3,
            init_ms=3,
            duration_ms=6,
            cpu_ms=1,
            gb_ms=3.0,
            peak_memory_mb=90,
            bytes_in=20,
            bytes_out=40,
            egress_bytes_out=101,
            egress_bytes_in=7,
        )
    ]


@pytest.mark.parametrize(("duration_us", "ms"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (900_000_000, 900_000)])
async def test_durations_are_rounded_up_each(book: Ledger, duration_us: int, ms: int) -> None:
    for _ in range(3):
        book.record(invocation(duration_us=duration_us), OK)
    await book.flush()
    assert book.usage()[0].duration_ms == 3 * ms


async def test_refusals_for_want_of_capacity_are_counted_apart(book: Ledger) -> None:
    for refusal in (Throttled(), Overloaded()):
        book.record(invocation(started_at_ms=0, duration_us=5), Outcome(refusal=refusal))
    book.record(invocation("nobody-knows-it"), Outcome(refusal=NotFound()))
    await book.flush()
    (row,) = book.usage()
    assert (row.throttled, row.invocations, row.errors, row.duration_ms, row.hour_ms) == (2, 0, 0, 0, NOON_MS)


async def test_usage_is_by_hour_function_and_version(book: Ledger) -> None:
    for hour in (0, 1, 2):
        for function, version in (("a-f", 1), ("a-f", 2), ("b-f", 1)):
            book.record(invocation(function, version, started_at_ms=NOON_MS + hour * HOUR_MS + 5), OK)
    await book.flush()
    assert [(row.hour_ms, row.function, row.version) for row in book.usage()] == [
        (NOON_MS + hour * HOUR_MS, function, version)
        for hour in (0, 1, 2)
        for function, version in (("a-f", 1), ("a-f", 2), ("b-f", 1))
    ]
    assert len(book.usage("a-f")) == 6
    assert {row.hour_ms for row in book.usage(since_ms=NOON_MS + HOUR_MS + 1)} == {NOON_MS + HOUR_MS, NOON_MS + 2 * HOUR_MS}
    assert {row.hour_ms for row in book.usage(until_ms=NOON_MS + HOUR_MS)} == {NOON_MS}
    assert {row.hour_ms for row in book.usage(until_ms=NOON_MS + HOUR_MS + 1)} == {NOON_MS, NOON_MS + HOUR_MS}
    assert len(book.usage("b-f", NOON_MS + HOUR_MS, NOON_MS + 2 * HOUR_MS)) == 1


async def test_usage_reads_in_pages(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_PAGE", 3)
    for number in range(9):
        book.record(invocation(f"f{number}"), OK)
        await book.flush()
    assert [row.function for row in book.usage()] == [f"f{number}" for number in range(9)]


async def test_only_what_is_durable_is_shown(book: Ledger, engine: Engine) -> None:
    book.record(invocation(), OK)
    assert book.usage() == []
    engine.gate.clear()
    flushing = asyncio.ensure_future(book.flush())
    await asyncio.sleep(0)
    book.record(invocation(), OK)
    assert book.usage() == []
    engine.gate.set()
    await flushing
    assert book.usage()[0].invocations == 1
    await book.flush()
    assert book.usage()[0].invocations == 2


async def test_one_flush_is_one_transaction(book: Ledger, engine: Engine) -> None:
    for number in range(500):
        book.record(invocation(f"f{number}"), OK)
    await book.flush()
    await book.flush()  # nothing new
    assert engine.commits == 1
    assert len(book.usage()) == 500


async def test_a_failed_flush_loses_and_doubles_nothing(book: Ledger, engine: Engine) -> None:
    engine.faults += [StoreFull("full"), StoreFull("full")]
    book.record(invocation(peak_mb=80), OK)
    with pytest.raises(StoreFull):
        await book.flush()
    book.record(invocation(peak_mb=70), OK)
    book.record(invocation("app-g"), OK)
    with pytest.raises(StoreFull):
        await book.flush()
    await book.flush()
    assert [(row.function, row.invocations, row.peak_memory_mb) for row in book.usage()] == [("app-f", 2, 80), ("app-g", 1, 0)]
    assert book.failed_flushes == 2


async def test_a_cancelled_flush_still_counts_once(book: Ledger, engine: Engine) -> None:
    engine.gate.clear()
    book.record(invocation(), OK)
    flushing = asyncio.ensure_future(book.flush())
    for _ in range(3):
        await asyncio.sleep(0)
    flushing.cancel()
    book.record(invocation(), OK)
    await asyncio.sleep(0)
    engine.gate.set()
    await book.flush()
    assert book.usage()[0].invocations == 2


async def until(book: Ledger, invocations: int) -> None:
    while sum(row.invocations for row in book.usage()) < invocations:  # noqa: ASYNC110 - a test waits for what nobody announces
        await asyncio.sleep(0.002)


async def test_sums_are_written_by_themselves(book: Ledger, engine: Engine) -> None:
    book.record(invocation(), OK)  # before the start
    book.start()
    await until(book, 1)
    assert book._timer is None  # nothing to write, so nothing ticks
    commits = engine.commits
    book.record(invocation(), OK)
    await until(book, 2)
    assert engine.commits == commits + 1
    engine.faults += [StoreFull("full")]
    book.record(invocation(), OK)
    await until(book, 3)  # tried again by itself
    assert book.failed_flushes == 1
    book.record(invocation(), OK)
    await book.stop()
    assert book.usage()[0].invocations == 4
    assert book._timer is None
    book.record(invocation(), OK)
    assert book._timer is None


async def test_flushes_beside_records_lose_nothing(book: Ledger) -> None:
    book.start()

    async def record(count: int) -> None:
        for _ in range(count):
            book.record(invocation(duration_us=1000), OK)
            await asyncio.sleep(0)

    async def flush(count: int) -> None:
        for _ in range(count):
            await book.flush()
            await asyncio.sleep(0)

    await asyncio.gather(*(record(200) for _ in range(5)), *(flush(50) for _ in range(3)))
    await book.stop()
    (row,) = book.usage()
    assert (row.invocations, row.duration_ms) == (1000, 1000)


COUNTS = st.tuples(*(st.integers(0, 5_000_000) for _ in range(4)), st.booleans(), st.integers(0, 3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(COUNTS, max_size=8), max_size=5))
def test_sums_are_those_of_a_calculator(flushes: list[list[tuple[int, int, int, int, bool, int]]]) -> None:
    async def run() -> list[UsageRow]:
        store = Store(MemoryEngine(), clock=ManualClock(NOON_MS))
        book = Ledger(store, ManualClock(NOON_MS))
        for records in flushes:
            for duration_us, cpu_us, bytes_in, peak_mb, failed, version in records:
                values = {"duration_us": duration_us, "cpu_us": cpu_us, "bytes_in": bytes_in, "peak_mb": peak_mb}
                book.record(invocation("f", version, **values, memory_mb=256), FAILED if failed else OK)
            await book.flush()
        found = book.usage()
        await store.close()
        return found

    every = [record for records in flushes for record in records]
    found = asyncio.run(run())
    assert [row.version for row in found] == sorted({record[5] for record in every})
    for row in found:
        mine = [record for record in every if record[5] == row.version]
        assert row.invocations == len(mine)
        assert row.errors == sum(record[4] for record in mine)
        assert row.duration_ms == sum(-(-record[0] // 1000) for record in mine)
        assert row.gb_ms == row.duration_ms / 4
        assert row.cpu_ms == (sum(record[1] for record in mine) + 500) // 1000
        assert row.bytes_in == sum(record[2] for record in mine)
        assert row.peak_memory_mb == max(record[3] for record in mine)


def test_after_kill_9_only_the_last_moment_is_missing(tmp_path: Path) -> None:
    """What the flushes by timer had written before the kill is there, and nothing is there twice."""
    program, source = Path(__file__).with_name("recorder.py"), Path(sums.__file__).parents[2]
    recorder = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), "100"],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
    )
    assert recorder.stdout is not None
    told, settled, flushes = 0, 0, 0

    def heard(line: bytes) -> None:
        nonlocal told, settled, flushes
        kind, number = line.split()
        if kind == b"s":
            settled, flushes = int(number), flushes + 1
        else:
            told = int(number)

    with recorder.stdout:
        while flushes < 8:
            heard(recorder.stdout.readline())
        recorder.kill()
        for line in recorder.stdout.readlines():
            if line.endswith(b"\n"):
                heard(line)
    recorder.wait()

    async def read() -> list[UsageRow]:
        store = await Store.open(tmp_path, clock=Clock())
        found = Ledger(store, Clock()).usage()
        await store.close()
        return found

    found = asyncio.run(read())
    counted = sum(row.invocations for row in found)
    assert 0 < settled <= counted <= told + 100  # a burst may have been recorded and not told
    assert sum(row.duration_ms for row in found) == 2 * counted
