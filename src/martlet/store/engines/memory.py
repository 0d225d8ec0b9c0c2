"""An engine without a disk: for tests of the rooms above, and the plain model that the other engines are held to.

Its `Disk` outlives the engine, so a test can "crash" by dropping the engine and opening another on the same disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from martlet.errors import InvalidInput
from martlet.store.engine import LogEntry
from martlet.store.overlay import Overlay

__all__ = ["Disk", "MemoryEngine", "open_engine"]


def open_engine(folder: Path) -> MemoryEngine:
    """An engine on a disk of its own; the folder is not touched, and everything is gone with the process."""
    return MemoryEngine()


class Disk:
    """What survives: rows and log."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.log: list[LogEntry] = []


class MemoryEngine:
    """Rows in a sorted map. `commit` (writer thread) publishes to a queue that reads (event loop) fold in by themselves."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._rows = Overlay()
        self._rows.update(self.disk.rows)
        self._log = list(self.disk.log)
        self._published: deque[tuple[Mapping[bytes, bytes | None], Sequence[LogEntry], int]] = deque()
        self._open = False
        self._backups: dict[Path, Disk] = {}

    def get(self, key: bytes) -> bytes | None:
        self._snapshot()
        return self._rows.rows.get(key)

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        self._snapshot()
        return self._rows.scan(lambda *_: [], low, high, limit, reverse)

    def tail(self, after: int, limit: int) -> list[LogEntry]:
        self._snapshot()
        if not self._log:
            return []
        start = max(0, after + 1 - self._log[0].seq)
        return self._log[start : start + limit]

    def bounds(self) -> tuple[int, int]:
        self._snapshot()
        return (self._log[0].seq, self._log[-1].seq) if self._log else (1, 0)

    def release(self) -> None:
        self._open = False

    def commit(self, writes: Mapping[bytes, bytes | None], entries: Sequence[LogEntry], trim_through: int) -> None:
        rows, log = self.disk.rows, self.disk.log
        for key, value in writes.items():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        log.extend(entries)
        if trim_through:
            log[:] = [entry for entry in log if entry.seq > trim_through]
        self._published.append((writes, entries, trim_through))

    def checkpoint(self, *, full: bool) -> None:
        """Nothing to move."""

    def backup(self, target: Path) -> int:
        """The copy is `engine.backup_at(target)`."""
        if target in self._backups:
            raise InvalidInput(f"{target} already holds a store")
        copy = Disk()
        copy.rows, copy.log = dict(self.disk.rows), list(self.disk.log)
        self._backups[target] = copy
        return copy.log[-1].seq if copy.log else 0

    def backup_at(self, target: Path) -> Disk:
        return self._backups[target]

    def verify(self) -> list[str]:
        """The log's density is all that can be wrong here."""
        seqs = [entry.seq for entry in self.disk.log]
        return [] if not seqs or seqs == list(range(seqs[0], seqs[-1] + 1)) else ["log: entries are missing"]

    def close(self) -> None:
        """Nothing to give back."""

    def _snapshot(self) -> None:
        if self._open:
            return
        self._open = True
        while self._published:
            writes, entries, trim_through = self._published.popleft()
            for key, value in writes.items():
                if value is None:
                    self._rows.forget((key,))
                else:
                    self._rows.put(key, value)
            self._log.extend(entries)
            if trim_through:
                self._log = [entry for entry in self._log if entry.seq > trim_through]
