"""Objects, killed before and after each write to the disk and each commit: the old object or the new one, no bytes too many."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.mortal_store import Killed
from tests.objects.service import Service

from martlet.clock import ManualClock
from martlet.errors import ServiceError
from martlet.objects import Notice, Objects, rows
from martlet.objects.backend import Source
from martlet.objects.backends.disk import DiskBackend, DiskDraft
from martlet.secrets import Vault
from martlet.store import Store, keys
from martlet.store.engines.memory import MemoryEngine

OLD, NEW, PART = b"old" * 40_000, b"new!" * 40_000, b"part" * 1_400_000
EVER = 10**15
Work = Callable[[Service], Awaitable[None]]


class Fate:
    """What happens at the `at`-th step: `error`, before or after it was done; with `Killed`, nothing after it either."""

    def __init__(self, at: int, error: Exception, after: bool) -> None:
        self._left = at
        self._error = error
        self._after = after
        self.struck = False

    async def step(self, work: Callable[[], Awaitable[Any]]) -> Any:
        if self.struck and isinstance(self._error, Killed):
            raise self._error
        self._left -= 1
        strikes = self._left == -1
        self.struck = self.struck or strikes
        if strikes and not self._after:
            raise self._error
        result = await work()
        if strikes:
            raise self._error
        return result


class MortalDraft:
    def __init__(self, inner: DiskDraft, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    async def write(self, data: bytes) -> None:
        await self._fate.step(lambda: self._inner.write(data))

    async def keep(self) -> None:
        await self._fate.step(self._inner.keep)

    async def discard(self) -> None:
        await self._fate.step(self._inner.discard)


class MortalBackend:
    def __init__(self, inner: DiskBackend, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    async def claim(self, owner: str) -> str:
        return await self._inner.claim(owner)

    def draft(self, id: str) -> MortalDraft:
        return MortalDraft(self._inner.draft(id), self._fate)

    async def open(self, id: str) -> Source:
        return await self._inner.open(id)

    async def remove(self, id: str) -> None:
        await self._fate.step(lambda: self._inner.remove(id))

    def ids(self, before_ms: int) -> AsyncIterator[str]:
        return self._inner.ids(before_ms)

    async def close(self) -> None: ...


class MortalStore:
    def __init__(self, inner: Store, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    async def transact(self, fn: Any) -> Any:
        return await self._fate.step(lambda: self._inner.transact(fn))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Machine:
    """A disk and a store, which live on when the process is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(1_700_000_000_000)
        self.store = Store(MemoryEngine(), clock=self.clock)

    def process(self, fate: Fate | None = None) -> Service:
        told: list[Notice] = []

        async def send(notice: Notice) -> None: ...

        disk = DiskBackend(self.folder)
        store: Any = self.store if fate is None else MortalStore(self.store, fate)
        backend = disk if fate is None else MortalBackend(disk, fate)
        vault = Vault(self.store, lambda: [bytes(32)])
        room = Objects(store, self.clock, backend=backend, vault=vault, region="us-east-1", send=send)
        return Service(room, self.clock, told)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file() and path.name != "owner"}

    def named(self) -> set[str]:
        low, high = keys.prefix_range(rows.BLOB)
        found = self.store.read(lambda reader: reader.scan(low, high, limit=1_000))
        return {rows.place_of(str(keys.decode(key)[1])) for key, _ in found} - {""}


async def put(s3: Service) -> None:
    await s3.put("k", NEW)


async def delete(s3: Service) -> None:
    await s3("DeleteObject", Bucket="bucket", Key="k")


async def copy(s3: Service) -> None:
    await s3("CopyObject", Bucket="bucket", Key="k", CopySource="bucket/new")


async def multipart(s3: Service) -> None:
    begun = await s3("CreateMultipartUpload", Bucket="bucket", Key="k")
    upload = {"Bucket": "bucket", "Key": "k", "UploadId": begun["UploadId"]}
    parts = []
    for number, data in ((1, PART), (2, NEW), (3, b"unused")):
        part = await s3("UploadPart", **upload, PartNumber=number, Body=data)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": parts[:2]})


async def found(s3: Service) -> bytes | None:
    try:
        return await s3.read("k")
    except ServiceError as error:
        if error.name != "NoSuchKey":
            raise
        return None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])  # after a commit: its answer was lost
@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "no space left")], ids=["killed", "disk-full"])
@pytest.mark.parametrize(
    ("work", "outcome"),
    [(put, NEW), (delete, None), (copy, NEW), (multipart, PART + NEW)],
    ids=["put", "delete", "copy", "multipart"],
)
async def test_the_old_object_or_the_new_one(
    tmp_path: Path, work: Work, outcome: bytes | None, error: Exception, after: bool
) -> None:
    steps = 0
    while True:
        machine = Machine(tmp_path / str(steps))
        setup = machine.process()
        await setup.bucket()
        await setup.put("k", OLD)
        await setup.put("new", NEW)
        fate = Fate(steps, error, after)
        done = False
        try:
            await work(machine.process(fate))
            done = True
        except (Killed, OSError):
            pass
        survivor = machine.process()
        now = await found(survivor)
        assert now == outcome if done else now in (OLD, outcome), f"step {steps}"
        await survivor.objects.blobs.sweep(EVER)
        assert machine.files() == machine.named(), f"step {steps}"
        await machine.store.close()
        if not fate.struck:
            break
        steps += 1
    assert steps >= 2, "it was struck at each of its steps"
