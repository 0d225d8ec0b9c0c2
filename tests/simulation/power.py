"""A disk that loses power: a SQLite VFS whose files keep only what was synced, plus any part of what was not.

Files live in memory; locks and shared memory are those of real, empty files of the same name, so that several
connections work as they do in life. `crash` draws one of the states that a disk may be in after power loss: each write
since the last sync of its file was kept, dropped, or torn at 512-byte sectors, and later ones may survive earlier ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from martlet.store.engines.sqlite import SqliteEngine

SECTOR = 512
Write = tuple[int, bytes] | int  # (offset, data), or a size to cut to


class File:
    """`durable` survives for sure; `now` is what programs see; `pending` leads from one to the other."""

    def __init__(self) -> None:
        self.durable = b""
        self.now = bytearray()
        self.pending: list[Write] = []

    def apply(self, write: Write) -> None:
        self.pending.append(write)
        change(self.now, write)

    def sync(self) -> None:
        self.durable = bytes(self.now)
        self.pending = []


State = dict[str, tuple[bytes, list[Write]]]


class PowerDisk(apsw.VFS):
    """One disk. `lies` is the share of syncs that it only claims to do. `on_io(operation, name)` may raise."""

    def __init__(self, name: str, *, lies: float = 0.0, seed: int = 0) -> None:
        super().__init__(name, "unix")
        self.name = name
        self.files: dict[str, File] = {}
        self.lies = lies
        self.random = random.Random(seed)
        self.errno = 0  # what a failed operation leaves behind
        self.on_io: Callable[[str, str], None] = lambda operation, name: None

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _Handle(name, flags, self)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.files.pop(Path(name).name, None)
        super().xDelete(name, sync)

    def xGetLastError(self) -> tuple[int, str]:  # noqa: N802
        return self.errno, ""

    def state(self) -> State:
        """What a crash at this moment would start from."""
        return {name: (file.durable, list(file.pending)) for name, file in self.files.items()}


class _Handle(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], disk: PowerDisk) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        self._file = disk.files.setdefault(self._name, File())

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._file.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.on_io("write", self._name)
        self._file.apply((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.on_io("truncate", self._name)
        self._file.apply(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.on_io("sync", self._name)
        if self._disk.random.random() >= self._disk.lies:
            self._file.sync()

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._file.now)


def change(content: bytearray, write: Write) -> None:
    if isinstance(write, int):
        del content[write:]
        return
    offset, data = write
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def crash(state: State, chance: random.Random, folder: Path) -> Path:
    """One state after power loss, written to real files in `folder`; returns the database's path."""
    folder.mkdir()
    for name, (durable, pending) in state.items():
        content = bytearray(durable)
        keep = chance.random()  # now and then nearly everything, now and then nearly nothing
        for write in pending:
            if isinstance(write, int):
                if chance.random() < keep:
                    change(content, write)
                continue
            offset, data = write
            torn = chance.random() < 0.3
            at = 0
            kept = chance.random() < keep
            while at < len(data):
                end = min(len(data), at + SECTOR - (offset + at) % SECTOR)
                if (chance.random() < keep) if torn else kept:
                    change(content, (offset + at, data[at:end]))
                at = end
        (folder / name).write_bytes(content)
    return next(folder / name for name in state if name.endswith(".sqlite"))


def engine_on(disk: PowerDisk, folder: Path, synchronous: str = SqliteEngine.synchronous) -> SqliteEngine:
    """The SQLite engine with its file on `disk`."""
    kind = type("SimulatedEngine", (SqliteEngine,), {"vfs": disk.name, "synchronous": synchronous})
    engine: SqliteEngine = kind(folder / "store.sqlite")
    return engine
