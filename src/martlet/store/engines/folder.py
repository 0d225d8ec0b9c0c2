"""The folder of a store: made, synced and locked so that exactly one process uses it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from martlet.errors import StartFailed

__all__ = ["FolderLock", "sync_folder"]

_CAUSES = {
    errno.EACCES: ("no permission", "give the user that runs martlet write access, or choose another folder"),
    errno.EPERM: ("no permission", "give the user that runs martlet write access, or choose another folder"),
    errno.EROFS: ("the file system is read-only", "mount it writable, or choose another folder"),
    errno.ENOSPC: ("no space left on the device", "free space, or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free space, or choose another folder"),
    errno.ENOTDIR: ("part of the path is a file", "choose another folder"),
    errno.EEXIST: ("it is a file", "choose another folder"),
}


class FolderLock:
    """Holds `<folder>/lock` until `release`; the kernel drops it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder if need be. Raises `StartFailed` with the cause and what to do."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise cannot_use(folder, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise cannot_use(folder, error) from error
            raise StartFailed(
                f"data folder {folder} is in use by process {holder}",
                remedy=f"stop process {holder}, or choose another folder",
                folder=str(folder),
                pid=holder,
            ) from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
            sync_folder(folder)
            sync_folder(folder.parent)
        except OSError as error:
            self.release()
            raise cannot_use(folder, error) from error

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_use(folder: Path, error: OSError) -> StartFailed:
    cause, remedy = _CAUSES.get(error.errno or 0, (error.strerror or str(error), "choose another folder"))
    return StartFailed(f"cannot use data folder {folder}: {cause}", remedy=remedy, folder=str(folder))
