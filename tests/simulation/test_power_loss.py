"""Power loss at every write and every sync: nothing acknowledged is lost, nothing is half done.

The controls switch one promise off (SQLite's syncs; the disk's honesty) and must lose: they show that the net holds.
`MARTLET_TEST_CRASHES` is the number of crash states drawn for each moment (nightly: 50).
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest
from tests.simulation.power import PowerDisk, State, crash, engine_on

from martlet.clock import ManualClock
from martlet.errors import MartletError, StartFailed, StoreFailed, StoreFull
from martlet.store import LogEntry, Store, Tx, counter_value
from martlet.store.engines import sqlite
from martlet.store.engines.sqlite import SqliteEngine

DRAWS = int(os.environ.get("MARTLET_TEST_CRASHES", "1"))
COMMITS = 24
Rows = dict[bytes, bytes]


@dataclass
class History:
    """The states that the store went through, and the moments at which the power might have failed."""

    states: list[Rows] = field(default_factory=lambda: [{}])
    acknowledged: int = 0
    moments: list[tuple[int, int, State]] = field(default_factory=list)  # (acknowledged, begun, disk)


@pytest.fixture
def small_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_CHECKPOINT_PAGES", 20)


@pytest.fixture
def disks() -> Iterator[list[PowerDisk]]:
    made: list[PowerDisk] = []
    yield made
    for disk in made:
        disk.unregister()


def change(number: int, chance: random.Random, before: Rows) -> dict[bytes, bytes | None]:
    writes: dict[bytes, bytes | None] = {b"count": b"%d" % number}
    for _ in range(chance.randrange(1, 6)):
        writes[b"k%d" % chance.randrange(12)] = chance.randbytes(chance.choice((5, 300, 3000, 9000)))
    if before and chance.random() < 0.4:
        writes[chance.choice(sorted(before))] = None
    writes[b"count"] = b"%d" % number
    return writes


def live(engine: SqliteEngine, disk: PowerDisk, seed: int) -> History:
    """Commit and checkpoint, and remember the disk at every operation on it."""
    history = History()
    chance = random.Random(seed)
    begun = 0
    disk.on_io = lambda operation, name: history.moments.append((history.acknowledged, begun, disk.state()))
    for number in range(1, COMMITS + 1):
        before = history.states[-1]
        writes = change(number, chance, before)
        merged = {**before, **writes}
        history.states.append({key: value for key, value in merged.items() if value is not None})
        begun = number
        history.moments.append((history.acknowledged, begun, disk.state()))
        engine.commit(writes, [LogEntry(number, 0, "t", b"", b"%d" % number)], 0)
        history.acknowledged = number
        history.moments.append((history.acknowledged, begun, disk.state()))
        engine.checkpoint(full=number % 9 == 0)
    disk.on_io = lambda operation, name: None
    return history


def damage(history: History, acknowledged: int, begun: int, file: Path) -> str:
    """What is wrong with the store after the crash; "" if nothing is."""
    try:
        engine = SqliteEngine(file)
    except StartFailed as error:
        return f"corrupt: {error.message}"
    try:
        found = _compare(engine, history, acknowledged, begun)
        engine.close()
    except MartletError as error:
        return f"corrupt: {error.message}"
    return found


def _compare(engine: SqliteEngine, history: History, acknowledged: int, begun: int) -> str:
    try:
        problems = engine.verify()
        if problems:
            return f"corrupt: {problems}"
        _, last = engine.bounds()
        if last < acknowledged:
            return f"lost: {acknowledged} acknowledged, {last} there"
        if last > begun:
            return f"invented: {begun} begun, {last} there"
        if [entry.seq for entry in engine.tail(0, 1000)] != list(range(1, last + 1)):
            return "log: not dense"
        if dict(engine.scan(b"\x01", b"\xff", 1000, False)) != history.states[last]:
            return f"half done: rows are not those after commit {last}"
    finally:
        engine.release()
    return ""


def crashes(
    tmp_path: Path, disks: list[PowerDisk], seed: int, *, synchronous: str = SqliteEngine.synchronous, lies: float = 0.0
) -> list[str]:
    """The damage of every crash of one life."""
    folder = tmp_path / "life"
    folder.mkdir()
    disk = PowerDisk(f"power-{seed}-{synchronous}-{lies}", lies=lies, seed=seed)
    disks.append(disk)
    engine = engine_on(disk, folder, synchronous)
    history = live(engine, disk, seed)
    engine.close()
    chance = random.Random(seed)
    found = []
    for number, (acknowledged, begun, state) in enumerate(history.moments):
        for draw in range(DRAWS):
            file = crash(state, chance, tmp_path / f"crash{number}-{draw}")
            found.append(damage(history, acknowledged, begun, file))
    assert len(found) > 100
    return [damaged for damaged in found if damaged]


@pytest.mark.usefixtures("small_checkpoints")
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(tmp_path: Path, disks: list[PowerDisk], seed: int) -> None:
    assert crashes(tmp_path, disks, seed) == []


@pytest.mark.usefixtures("small_checkpoints")
def test_control_without_syncs_the_harness_finds_losses(tmp_path: Path, disks: list[PowerDisk]) -> None:
    assert crashes(tmp_path, disks, 1, synchronous="OFF")


@pytest.mark.usefixtures("small_checkpoints")
def test_control_with_late_syncs_the_harness_finds_losses(tmp_path: Path, disks: list[PowerDisk]) -> None:
    assert any(damaged.startswith("lost") for damaged in crashes(tmp_path, disks, 1, synchronous="NORMAL"))


@pytest.mark.usefixtures("small_checkpoints")
def test_control_on_a_disk_that_lies_the_harness_finds_losses(tmp_path: Path, disks: list[PowerDisk]) -> None:
    assert crashes(tmp_path, disks, 1, lies=0.5)


# Faults that the running store sees


class Fault:
    """Raises `error` at the `at`-th operation of a kind, once."""

    def __init__(self, operation: str, at: int, error: Exception) -> None:
        self.operation, self.left, self.error, self.happened = operation, at, error, False

    def __call__(self, operation: str, name: str) -> None:
        if operation == self.operation:
            self.left -= 1
            if self.left == 0:
                self.happened = True
                raise self.error


def io_error(code: int) -> apsw.IOError:
    error = apsw.IOError("simulated")
    error.extendedresult = code
    return error


async def use(store: Store, count: int) -> tuple[int, list[str]]:
    """Add one, `count` times; (times acknowledged, what the others got)."""

    def add(tx: Tx) -> int:
        tx.append("t", b"", b"x" * 3000)
        tx.put(b"k%d" % (store.head % 5), b"y" * 2000)
        return tx.increment(b"n", 1)

    acknowledged, errors = 0, []
    for _ in range(count):
        try:
            acknowledged = await store.transact(add)
        except MartletError as error:
            errors.append(error.code)
    return acknowledged, errors


@pytest.mark.usefixtures("small_checkpoints")
async def test_a_full_disk_at_every_write(tmp_path: Path, disks: list[PowerDisk], capfd: pytest.CaptureFixture[str]) -> None:
    """Each transaction is kept or refused, never both; afterwards the store goes on."""
    refused = at = 0
    while True:
        at += 1
        folder = tmp_path / f"{at}"
        folder.mkdir()
        disk = PowerDisk(f"full-{at}")
        disks.append(disk)
        engine = engine_on(disk, folder)
        fault = Fault("write", at, apsw.FullError("simulated"))
        disk.on_io = fault
        store = Store(engine, clock=ManualClock())
        acknowledged, errors = await use(store, 12)
        assert errors in ([], [StoreFull.code])
        assert acknowledged == 12 - len(errors)
        refused += len(errors)
        assert store.head == acknowledged
        await store.close()
        survivor = SqliteEngine(crash(disk.state(), random.Random(at), tmp_path / f"after{at}"))
        assert counter_value(survivor.get(b"n")) == acknowledged
        assert (survivor.bounds()[1], survivor.verify()) == (acknowledged, [])
        survivor.close()
        if not fault.happened:
            break
    assert refused > 20


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])  # a late ENOSPC is no promise that nothing was written
async def test_a_failed_sync_is_the_end_of_acknowledgements(
    tmp_path: Path, disks: list[PowerDisk], capfd: pytest.CaptureFixture[str], number: int
) -> None:
    for at in (1, 2, 5):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        disk = PowerDisk(f"sync-{number}-{at}")
        disk.errno = number
        disks.append(disk)
        engine = engine_on(disk, folder)
        disk.on_io = Fault("sync", at, io_error(apsw.SQLITE_IOERR_FSYNC))
        store = Store(engine, clock=ManualClock())
        acknowledged, errors = await use(store, 12)
        assert acknowledged < 12
        assert errors == [StoreFailed.code] * (12 - acknowledged)
        assert store.read(lambda reader: counter_value(reader.get(b"n"))) == acknowledged  # reads go on
        state = disk.state()
        await store.close()
        for draw in range(10):
            survivor = SqliteEngine(crash(state, random.Random(draw), tmp_path / f"after{at}-{draw}"))
            assert acknowledged <= counter_value(survivor.get(b"n")) <= acknowledged + 1
            assert survivor.verify() == []
            survivor.close()
