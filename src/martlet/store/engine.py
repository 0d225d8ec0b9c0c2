"""The port below the store: ordered bytes, a dense log, and one atomic durable `commit`.

An engine knows nothing of transactions, leases or cursors: the store computes those above it, and hands down the rows
that a group of transactions wrote. That keeps an engine small (ten operations) and leaves the rules written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

__all__ = ["Engine", "LogEntry"]


class LogEntry(msgspec.Struct, frozen=True):
    """One fact of the change log. `seq` is dense and in commit order; `at_ms` is the wall clock when it was written."""

    seq: int
    at_ms: int
    topic: str
    key: bytes
    body: bytes


class Engine(Protocol):
    """Ordered rows and a log on one disk.

    Threads: `get`, `scan`, `tail`, `bounds` and `release` are called on the event loop; `commit`, `checkpoint` and
    `close` on the writer thread; `backup` and `verify` on any other thread, beside the first two.

    Errors of `commit`: `StoreFull` or `Overloaded` promise that nothing of the batch is kept and that the engine is
    sound. Anything else means that the outcome is unknown: the store will never commit through this engine again.
    """

    def get(self, key: bytes) -> bytes | None:
        """The committed value. The first read opens a snapshot that later reads share until `release`."""

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        """At most `limit` committed rows with low <= key < high, by key (memcmp), from `high` down when `reverse`."""

    def tail(self, after: int, limit: int) -> list[LogEntry]:
        """At most `limit` committed log entries with seq > `after`, in order; fewer (never none) if they are very large."""

    def bounds(self) -> tuple[int, int]:
        """(first, last) seq that the log holds; (1, 0) for a log that never had an entry."""

    def release(self) -> None:
        """End the snapshot, if one is open; the next read sees everything that is committed by then."""

    def commit(self, writes: Mapping[bytes, bytes | None], entries: Sequence[LogEntry], trim_through: int) -> None:
        """In one atomic, durable step: set or (None) delete the rows, add the entries, drop entries up to `trim_through`."""

    def checkpoint(self, *, full: bool) -> None:
        """Housekeeping after commits; cheap when there is nothing to do. `full`: do all of it now."""

    def backup(self, target: Path) -> int:
        """Write a consistent copy to the new folder `target`; returns the last seq that it holds."""

    def verify(self) -> list[str]:
        """Read everything; one sentence for each problem, none when sound."""

    def close(self) -> None:
        """Give back files and locks. Nothing that was committed needs it."""
