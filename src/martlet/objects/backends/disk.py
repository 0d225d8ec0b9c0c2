"""Blobs as files: written beside, fsynced, renamed, and their folder fsynced. 256 folders, by the id's first two digits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

from martlet.errors import StartFailed

__all__ = ["DiskBackend", "open_backend"]

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


def open_backend(place: str) -> DiskBackend:
    """The folder `place`, made if it is not there. Blocks; raises `StartFailed`."""
    try:
        return DiskBackend(Path(place))
    except OSError as error:
        raise StartFailed(f"objects in {place}: {error}", remedy="make the folder writable") from error


class DiskBackend:
    """A folder of blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts = folder / "drafts"
        self._drafts.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._drafts.iterdir():  # of a process that is no more
            self._unlink(path)
        self._synced: set[Path] = set()  # shelves whose own name is durable

    async def claim(self, owner: str) -> str:
        return await asyncio.to_thread(self._claim, owner)

    def _claim(self, owner: str) -> str:
        path, draft = self._folder / "owner", self.draft_path("owner")
        with draft.open("w") as file:
            file.write(owner)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        _sync_folder(self._folder)
        return path.read_text()

    def draft(self, id: str) -> DiskDraft:
        return DiskDraft(self, id)

    async def open(self, id: str) -> DiskSource:
        path = self.path(id)
        return DiskSource(await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))

    async def remove(self, id: str) -> None:
        await asyncio.to_thread(self._unlink, self.path(id))

    async def ids(self, before_ms: int) -> AsyncIterator[str]:  # the folder is one process's
        for shelf in await asyncio.to_thread(lambda: sorted(self._folder.iterdir())):
            if len(shelf.name) != 2:
                continue
            for name in await asyncio.to_thread(os.listdir, shelf):
                yield name

    async def close(self) -> None:
        """Nothing is held open."""

    def path(self, id: str) -> Path:
        return self._folder / id[:2] / id

    def draft_path(self, id: str) -> Path:
        return self._drafts / id

    def shelve(self, id: str) -> None:
        """Rename a finished draft to its place, durably. Blocks."""
        target = self.path(id)
        shelf = target.parent
        if shelf not in self._synced:
            shelf.mkdir(exist_ok=True, mode=0o700)
            _sync_folder(self._folder)
            self._synced.add(shelf)
        os.rename(self.draft_path(id), target)
        _sync_folder(shelf)

    @staticmethod
    def _unlink(path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


class DiskDraft:
    """A file that is being written."""

    def __init__(self, backend: DiskBackend, id: str) -> None:
        self._backend = backend
        self._id = id
        self._descriptor = -1

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self.append, data)

    async def keep(self) -> None:
        await asyncio.to_thread(self._keep)

    async def discard(self) -> None:
        await asyncio.to_thread(self._discard)

    def append(self, data: bytes) -> None:
        """Blocks."""
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._backend.draft_path(self._id), flags, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _keep(self) -> None:
        if self._descriptor < 0:
            self.append(b"")
        os.fsync(self._descriptor)
        self._close()
        self._backend.shelve(self._id)

    def _discard(self) -> None:
        self._close()
        for path in (self._backend.draft_path(self._id), self._backend.path(self._id)):
            self._backend._unlink(path)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class DiskSource:
    """An open file. What is in the page cache is read on the loop; what is not, in a thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read(self, offset: int, size: int) -> bytes:
        if _NOWAIT:
            buffer = bytearray(size)
            try:
                count = os.preadv(self._descriptor, [buffer], offset, _NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
            else:
                if count:
                    return bytes(memoryview(buffer)[:count]) if count < size else bytes(buffer)
        return await asyncio.to_thread(os.pread, self._descriptor, size, offset)

    async def close(self) -> None:
        os.close(self._descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
