"""Copies between engines: whole, resumable, checked; a half one is not a store."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.postgres_server import Schemas

from martlet.clock import Clock
from martlet.errors import Conflict, StartFailed, StoreFailed
from martlet.store import Engine, LogEntry, Store
from martlet.store.copying import copy_store, refuse_half
from martlet.store.engines import postgres, sqlite
from martlet.store.engines.memory import Disk, MemoryEngine


def filled(rows: int, entries: int, first: int = 1) -> MemoryEngine:
    chance = random.Random(rows)
    disk = Disk()
    disk.rows = {b"\x40%06d" % at: chance.randbytes(chance.randrange(200)) for at in range(rows)}
    disk.rows[b"\x00cc"] = (7).to_bytes(8, "big")
    disk.log = [LogEntry(seq, seq, "tó", b"k", chance.randbytes(20)) for seq in range(first, first + entries)]
    return MemoryEngine(disk)


def content(engine: Engine) -> tuple[dict[bytes, bytes], list[LogEntry]]:
    rows = dict(engine.scan(b"", b"\xff" * 1026, 10_000_000, False))
    log = engine.tail(engine.bounds()[0] - 1, 10_000_000)
    engine.release()
    return rows, log


class Interrupted(Exception):
    pass


def stop_after(pieces: int) -> object:
    seen: list[int] = []

    def progress(phase: str, done: int, size: int) -> None:
        seen.append(done)
        if len(seen) == pieces:
            raise Interrupted

    return progress


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    if request.param == "sqlite":
        return lambda: sqlite.open_engine(tmp_path / "copy")
    schemas: Schemas = request.getfixturevalue("schemas")
    url = schemas()
    return lambda: postgres.open_engine(url)


@pytest.mark.parametrize(("rows", "entries", "first"), [(0, 0, 1), (1, 1, 1), (3000, 2500, 1), (1200, 5, 4711)])
def test_a_copy_is_its_source(target: object, rows: int, entries: int, first: int) -> None:
    source = filled(rows, entries, first)
    engine: Engine = target()  # type: ignore[operator]
    done = copy_store(source, engine)
    assert content(engine) == content(source)
    assert (done.rows, done.entries, done.rows_written, done.entries_written) == (rows + 1, entries, rows + 1, entries)
    assert engine.verify() == []
    refuse_half(engine)
    with pytest.raises(Conflict, match="holds a store already"):
        copy_store(source, engine)
    engine.close()


def test_an_interrupted_copy_goes_on_and_is_no_store_before(target: object) -> None:
    source = filled(4000, 3000)
    engine: Engine = target()  # type: ignore[operator]
    written = 0
    for pieces in (2, 7, 10):
        with pytest.raises(Interrupted):
            copy_store(source, engine, stop_after(pieces))  # type: ignore[arg-type]
        engine.close()
        engine = target()  # type: ignore[operator]
        with pytest.raises(Conflict, match="did not end"):
            refuse_half(engine)
    source.commit({b"\x40000001": b"changed", b"\x40000002": None, b"\x41": b"new"}, [LogEntry(3001, 1, "t", b"", b"")], 12)
    done = copy_store(source, engine)
    written = done.rows_written
    assert 0 < written < 4000  # what was there already was not written again
    assert content(engine) == content(source)
    engine.close()


async def test_a_half_copy_does_not_start(tmp_path: Path) -> None:
    engine = sqlite.open_engine(tmp_path)
    with pytest.raises(Interrupted):
        copy_store(filled(3000, 0), engine, stop_after(1))  # type: ignore[arg-type]
    engine.close()
    with pytest.raises(StartFailed, match="did not end"):
        await Store.open(tmp_path, clock=Clock())


def test_a_copy_that_differs_is_not_released(tmp_path: Path) -> None:
    source = filled(100, 0)

    class Lying(MemoryEngine):
        """Drops a byte of one row."""

        def commit(self, writes, entries, trim_through):  # type: ignore[no-untyped-def]
            super().commit({k: v[:-1] if k == b"\x40000005" and v else v for k, v in writes.items()}, entries, trim_through)

    target = Lying()
    with pytest.raises(StoreFailed, match="differs"):
        copy_store(source, target)
    with pytest.raises(Conflict):
        refuse_half(target)


async def test_from_a_database_under_load(schemas: Schemas, tmp_path: Path) -> None:
    """One snapshot: as many rows as entries, whatever is written meanwhile."""
    import asyncio

    store = await Store.open(url := schemas(), clock=Clock(), engine="martlet.store.engines.postgres:open_engine")
    going = True

    async def write() -> None:
        number = 0
        while going:
            number += 1
            await store.transact(lambda tx, n=number: (tx.put(b"\x40%06d" % n, b"x" * 50), tx.append("t", b"%d" % n, b"")))  # type: ignore[misc]

    work = asyncio.ensure_future(write())
    await asyncio.sleep(0.3)

    def copy() -> None:
        source, target = postgres.open_engine(url), sqlite.open_engine(tmp_path / "copy")
        copy_store(source, target)
        source.close()
        target.close()

    await asyncio.to_thread(copy)
    going = False
    await work
    await store.close()
    engine = sqlite.open_engine(tmp_path / "copy")
    rows, log = content(engine)
    assert len(rows) == len(log) > 10
    engine.close()
