"""A disk that is really full, under a store that is really used: every transaction is kept or refused, never both.

Two ways to be full: a limit on file size for this process (EFBIG; works for every user), and, for root, a small tmpfs
(ENOSPC). Afterwards, with space again, the same store goes on and nothing acknowledged is missing.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from martlet.clock import Clock
from martlet.errors import StoreFull
from martlet.store import Store, Tx, counter_value

BODY = b"x" * 20_000
Switch = Callable[[], None]


async def fill(store: Store, kept: set[int], numbers: range) -> int:
    """Write rows, 8 at a time; those acknowledged go to `kept`. Returns how many were refused."""
    refused = 0

    async def write(number: int) -> None:
        nonlocal refused

        def add(tx: Tx) -> None:
            tx.put(b"k%06d" % number, BODY)
            tx.increment(b"n", 1)
            tx.append("t", b"%d" % number, b"")

        try:
            await store.transact(add)
        except StoreFull:
            refused += 1
        else:
            kept.add(number)

    for start in range(numbers.start, numbers.stop, 8):
        await asyncio.gather(*(write(number) for number in range(start, min(start + 8, numbers.stop))))
    return refused


def compare(store: Store, kept: set[int]) -> None:
    """The store holds what was acknowledged, all of it and nothing else."""
    rows = store.read(lambda reader: reader.scan(b"k", b"l", 100_000))
    assert {int(key[1:]) for key, _ in rows} == kept
    assert all(value == BODY for _, value in rows)
    assert store.read(lambda reader: counter_value(reader.get(b"n"))) == len(kept) == store.head
    entries = store.tail(0, 100_000) if kept else []
    assert [entry.seq for entry in entries] == list(range(1, len(kept) + 1))
    assert {int(entry.key) for entry in entries} == kept


async def live(folder: Path, give_space: Switch) -> None:
    store = await Store.open(folder, clock=Clock())
    kept: set[int] = set()
    refused = await fill(store, kept, range(400))
    assert refused
    assert kept
    compare(store, kept)  # reads go on while the disk is full
    give_space()
    assert await fill(store, kept, range(1000, 1100)) == 0
    compare(store, kept)
    assert (await store.maintain(verify=True)).problems == ()
    await store.close()
    store = await Store.open(folder, clock=Clock())
    compare(store, kept)
    await store.close()


@pytest.fixture
def file_size_limit() -> Iterator[Switch]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    yield lift
    lift()


async def test_files_that_may_not_grow(tmp_path: Path, file_size_limit: Switch) -> None:
    await live(tmp_path / "data", file_size_limit)


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Switch]]:
    """A tmpfs of 4 MB that can grow; who is not root gets a file size limit again."""
    if os.geteuid():
        yield tmp_path, request.getfixturevalue("file_size_limit")
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)

    def grow() -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)

    try:
        yield disk, grow
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_without_space(small_disk: tuple[Path, Switch]) -> None:
    disk, grow = small_disk
    await live(disk / "data", grow)
