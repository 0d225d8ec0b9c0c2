"""Opening a store: what a user meets, with its cause and what to do. And opening what is there already."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from martlet.clock import Clock
from martlet.errors import StartFailed
from martlet.store import Store, counter_value
from martlet.store.engines import sqlite


async def opened(folder: Path) -> Store:
    return await Store.open(folder, clock=Clock())


async def filled(folder: Path) -> None:
    store = await opened(folder)
    await asyncio.gather(*(store.transact(lambda tx, n=n: tx.put(b"k%d" % n, b"x" * 1000)) for n in range(100)))
    await store.transact(lambda tx: tx.append("t", b"k", b"v"))
    await store.close()


async def test_a_store_continues_where_it_was(tmp_path: Path) -> None:
    for turn in range(1, 4):
        store = await opened(tmp_path / "deep" / "data")
        assert await store.transact(lambda tx: (tx.append("t", b"", b""), tx.increment(b"n", 1))[1]) == turn
        assert store.head == turn
        await store.close()


async def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    await filled(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def test_a_second_opener_is_told_who_holds_it(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    with pytest.raises(StartFailed, match=f"in use by process {os.getpid()}") as told:
        await opened(tmp_path)
    assert "stop process" in told.value.remedy
    await store.transact(lambda tx: tx.put(b"a", b"1"))  # unharmed
    await store.close()
    await (await opened(tmp_path)).close()


def test_another_process_is_named(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from martlet.store.engines.sqlite import open_engine\n"
        "engine = open_engine(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    source = str(Path(sqlite.__file__).parents[3])
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": source},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdin is not None
    with other.stdin, other.stdout:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StartFailed, match=f"in use by process {other.pid}"):
            sqlite.open_engine(tmp_path)
        other.kill()
        other.wait()
    sqlite.open_engine(tmp_path).close()  # the kernel gave the lock back


async def test_a_newer_format_is_refused_by_number_and_left_alone(tmp_path: Path) -> None:
    await filled(tmp_path)
    file = tmp_path / sqlite.FILE
    newer = apsw.Connection(str(file))
    newer.execute("PRAGMA user_version=7")
    newer.close()
    before = file.read_bytes()
    with pytest.raises(StartFailed, match=r"newer martlet: it has format 7, this one knows 1"):
        await opened(tmp_path)
    assert file.read_bytes() == before


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / sqlite.FILE))
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(StartFailed, match="another program"):
        await opened(tmp_path)


@pytest.mark.parametrize(
    ("offset", "junk"), [(0, b"not a database at all" * 10), (100, b"\xff" * 4000), (4096, b"\xff" * 8192)]
)
async def test_a_corrupt_file_is_named(tmp_path: Path, offset: int, junk: bytes) -> None:
    await filled(tmp_path)
    file = tmp_path / sqlite.FILE
    content = bytearray(file.read_bytes())
    content[offset : offset + len(junk)] = junk
    file.write_bytes(content)
    with pytest.raises(StartFailed, match=f"{file} is corrupt") as told:
        await opened(tmp_path)
    assert "backup" in told.value.remedy


async def test_corruption_that_hides_is_found_by_verify(tmp_path: Path) -> None:
    await filled(tmp_path)
    file = tmp_path / sqlite.FILE
    content = bytearray(file.read_bytes())
    at = content.find(b"k50") - 20
    content[at : at + 40] = b"\xff" * 40
    file.write_bytes(content)
    store = await opened(tmp_path)
    problems = (await store.maintain(verify=True)).problems
    assert problems
    assert str(file) in problems[0]
    await store.close()


async def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StartFailed, match="file"):
            await opened(path)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write to: by mount for root, whom permissions do not stop, else by permission."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_read_only_folder_is_refused(read_only: Path) -> None:
    for path in (read_only, read_only / "data"):
        with pytest.raises(StartFailed, match=r"read-only|no permission") as told:
            await opened(path)
        assert told.value.remedy


@contextlib.contextmanager
def no_space() -> Iterator[None]:
    """No file may grow: as full a disk as any, for this process. Not a fixture: the test runner's own output may be a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    with no_space(), pytest.raises(StartFailed, match="no space left") as told:
        await opened(tmp_path)
    assert "free space" in told.value.remedy


def test_an_old_sqlite_is_refused() -> None:
    for version in ("3.40.1", "3.51.2", "3.8.11.1"):
        with pytest.raises(StartFailed, match=f"SQLite {version} can corrupt"):
            sqlite.check_sqlite(version)
    for version in ("3.51.3", "3.54.1", "4.0.0"):
        sqlite.check_sqlite(version)


async def test_a_backup_opens_as_a_store_of_its_own(tmp_path: Path) -> None:
    store = await opened(tmp_path / "data")
    for _ in range(10):
        await store.transact(lambda tx: (tx.append("t", b"", b""), tx.increment(b"n", 1)))
    writing = asyncio.gather(*(store.transact(lambda tx: tx.increment(b"n", 1)) for _ in range(500)))
    done = await store.maintain(backup_to=tmp_path / "backup", verify=True)
    assert (done.backup_seq, done.problems) == (10, ())
    await writing
    copy = await opened(tmp_path / "backup")
    assert 10 <= copy.read(lambda reader: counter_value(reader.get(b"n"))) <= 510
    assert copy.head == 10
    await asyncio.gather(store.close(), copy.close())


async def test_no_statement_of_the_hot_path_scans_a_table(tmp_path: Path) -> None:
    await filled(tmp_path)
    file = apsw.Connection(str(tmp_path / sqlite.FILE))
    for statement in sqlite.statements():
        plan = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {statement}", (b"",) * statement.count("?"))]
        assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith(("SCAN kv", "SCAN log"))]
    file.close()


async def test_waiting_transactions_share_syncs_and_the_wal_is_moved(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for _ in range(20):
        await asyncio.gather(*(store.transact(lambda tx, n=n: tx.put(b"k%d" % n, b"x" * 5000)) for n in range(200)))
    seen = store.statistics()
    assert seen.transactions / seen.commits > 5
    assert (tmp_path / f"{sqlite.FILE}-wal").stat().st_size < 24_000_000  # 20 MB were written, 8 MB at a time are kept
    await store.maintain()
    assert (tmp_path / f"{sqlite.FILE}-wal").stat().st_size == 0
    await store.close()
