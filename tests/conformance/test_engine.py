"""What every engine promises: `martlet.store.engine.Engine`, clause by clause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgres_server import Schemas

from martlet.errors import MartletError
from martlet.store import Engine, LogEntry
from martlet.store.engines import postgres
from martlet.store.engines.memory import Disk, MemoryEngine
from martlet.store.engines.sqlite import open_engine

Reopen = Callable[[], Engine]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the engine; when called again, closes the one before and opens its data anew."""
    opened: list[Engine] = []
    disk = Disk()
    if request.param == "postgres":
        schemas: Schemas = request.getfixturevalue("schemas")
        url = schemas()

    def again() -> Engine:
        if opened:
            opened.pop().close()
        if request.param == "postgres":
            opened.append(postgres.open_engine(url))
        else:
            opened.append(MemoryEngine(disk) if request.param == "memory" else open_engine(tmp_path / "data"))
        return opened[-1]

    yield again
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(reopen: Reopen) -> Engine:
    return reopen()


def entry(seq: int, body: bytes = b"body") -> LogEntry:
    return LogEntry(seq, 1_700_000_000_000 + seq, "tópic", b"\x00key", body)


def test_an_empty_engine(engine: Engine) -> None:
    assert engine.get(b"a") is None
    assert engine.scan(b"", b"\xff", 10, False) == []
    assert engine.tail(0, 10) == []
    assert engine.bounds() == (1, 0)
    assert engine.verify() == []
    engine.release()
    engine.release()
    engine.checkpoint(full=True)


def test_rows_and_entries_come_back_as_they_were(engine: Engine, reopen: Reopen) -> None:
    rows = {b"a": b"", b"b\x00c": b"\x00\xff", b"\xfe" * 1024: b"x" * 100_000, b"\x00own": b"1"}
    engine.commit(rows, [entry(1), entry(2, b"")], 0)
    for opened in (lambda: engine, reopen):
        again = opened()
        assert {key: again.get(key) for key in rows} == rows
        assert again.tail(0, 10) == [entry(1), entry(2, b"")]
        assert again.bounds() == (1, 2)
        again.release()


@pytest.mark.parametrize("many", [1, 7, 8, 9, 64, 65, 200])
def test_batches_of_every_size(engine: Engine, many: int) -> None:
    keys = [b"k%04d" % number for number in range(many)]
    engine.commit(dict.fromkeys(keys, b"1"), [entry(seq + 1) for seq in range(many)], 0)
    engine.commit({key: b"2" if number % 2 else None for number, key in enumerate(keys)}, [], 0)
    assert engine.scan(b"k", b"l", 1000, False) == [(key, b"2") for number, key in enumerate(keys) if number % 2]
    assert [found.seq for found in engine.tail(0, 1000)] == list(range(1, many + 1))


def test_scans_go_by_bytes_half_open_and_limited(engine: Engine) -> None:
    keys = [b"\x01", b"A", b"a", b"a\x00", b"a\xff", b"b", "é".encode(), b"\xff", b"\xff\xff"]
    engine.commit({key: key for key in reversed(keys)}, [], 0)
    assert [key for key, _ in engine.scan(b"", b"\xff\xff\xff", 100, False)] == keys
    assert [key for key, _ in engine.scan(b"a", b"b", 100, False)] == [b"a", b"a\x00", b"a\xff"]
    assert [key for key, _ in engine.scan(b"a", b"b", 2, True)] == [b"a\xff", b"a\x00"]
    assert [key for key, _ in engine.scan(b"a", b"b", 1, False)] == [b"a"]
    assert engine.scan(b"b", b"a", 10, False) == engine.scan(b"a", b"a", 10, True) == []


def test_deleting_what_is_not_there_is_no_error(engine: Engine) -> None:
    engine.commit({b"a": None}, [], 0)
    engine.commit({b"a": b"1"}, [], 0)
    engine.commit({b"a": None}, [], 0)
    assert engine.get(b"a") is None


def test_the_log_is_read_in_pieces_and_trimmed_from_the_front(engine: Engine, reopen: Reopen) -> None:
    engine.commit({}, [entry(seq) for seq in range(1, 11)], 0)
    assert [found.seq for found in engine.tail(3, 4)] == [4, 5, 6, 7]
    engine.release()
    engine.commit({}, [entry(11)], 9)
    assert engine.bounds() == (10, 11)
    assert [found.seq for found in engine.tail(0, 4)] == [10, 11]
    assert engine.tail(11, 4) == []
    assert reopen().bounds() == (10, 11)


def test_very_large_entries_come_in_smaller_pieces(engine: Engine) -> None:
    for seq in (1, 2, 3):
        engine.commit({}, [entry(seq, b"x" * 15_000_000)], 0)
    after, seen = 0, []
    while found := engine.tail(after, 10):
        seen += [each.seq for each in found]
        after = seen[-1]
    assert seen == [1, 2, 3]


def test_reads_share_one_snapshot_until_release(engine: Engine) -> None:
    engine.commit({b"a": b"1", b"b": b"1"}, [entry(1)], 0)
    assert engine.get(b"a") == b"1"
    writer = threading.Thread(target=engine.commit, args=({b"a": b"2", b"b": b"2", b"c": b"2"}, [entry(2)], 1))
    writer.start()
    writer.join()
    assert engine.get(b"b") == b"1"
    assert engine.scan(b"a", b"z", 10, False) == [(b"a", b"1"), (b"b", b"1")]
    assert (engine.bounds(), len(engine.tail(0, 10))) == ((1, 1), 1)
    engine.release()
    assert [value for _, value in engine.scan(b"a", b"z", 10, False)] == [b"2"] * 3
    assert engine.bounds() == (2, 2)


def test_a_backup_is_a_whole_engine(engine: Engine, tmp_path: Path) -> None:
    engine.commit({b"a": b"1"}, [entry(1)], 0)
    assert engine.get(b"a") == b"1"  # a snapshot is open meanwhile
    target = tmp_path / "copies" / "monday"
    assert engine.backup(target) == 1
    with pytest.raises(MartletError, match=r"exists|holds"):
        engine.backup(target)
    engine.release()
    engine.commit({b"a": b"2"}, [entry(2)], 0)
    copy: Engine = MemoryEngine(engine.backup_at(target)) if isinstance(engine, MemoryEngine) else open_engine(target)
    assert (copy.get(b"a"), copy.bounds(), copy.verify()) == (b"1", (1, 1), [])
    copy.close()


def test_verify_finds_a_hole_in_the_log(engine: Engine) -> None:
    engine.commit({}, [entry(1), entry(3)], 0)
    assert len(engine.verify()) == 1
    assert "log" in engine.verify()[0]
