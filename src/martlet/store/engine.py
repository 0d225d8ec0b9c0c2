"""The port below the store: ordered bytes, a dense log, and one atomic durable `commit`.

An engine knows nothing of transactions, leases or cursors: the store computes those above it, and hands down the rows
that a group of transactions wrote. That keeps an engine small (ten operations) and leaves the rules written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

__all__ = ["Change", "Engine", "Group", "Held", "LogEntry", "Lost", "Seen", "SharedEngine", "Span"]


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


class Lost(Exception):
    """The connection to a shared engine broke. `sent`: a commit may have been kept or not; else nothing was asked for."""

    def __init__(self, cause: str, *, sent: bool = False) -> None:
        super().__init__(cause)
        self.sent = sent


class Span(msgspec.Struct, frozen=True):
    """A scan that is asked for: see `Engine.scan`."""

    low: bytes
    high: bytes
    limit: int
    reverse: bool


class Change(msgspec.Struct, frozen=True):
    """What one commit changed. Positions are dense: commit number n of the whole database."""

    position: int
    node: str  # who committed it
    batch: int  # the node's own number for it
    keys: list[bytes]


class Seen(msgspec.Struct, frozen=True):
    """One snapshot of a shared engine, as far as it was asked for."""

    position: int
    seq: int  # of the last log entry
    first: int  # of the oldest log entry that is kept
    changes: (
        list[Change] | None
    )  # after the position that the asker knew; None: those are forgotten, so anything may have changed
    rows: dict[bytes, bytes]  # of the keys asked for; absent: there is no such row
    spans: list[list[tuple[bytes, bytes]]]  # for each span asked for


class Group(msgspec.Struct, frozen=True):
    """What one commit of a shared engine is to write, if the database is at `position` and holds none of `absent`."""

    batch: int
    position: int
    seq: int  # of the last log entry after it
    writes: Mapping[bytes, bytes | None]
    entries: Sequence[LogEntry]
    trim_through: int
    absent: Sequence[bytes] = ()  # keys; for `try_commit` alone


class Held(Protocol):
    """The serial point, held: no other node commits meanwhile."""

    async def look(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        """As `SharedEngine.look`, of the state at the serial point."""

    async def commit(self, group: Group) -> int:
        """Keep the group, give the serial point back; returns the new position. Errors as `SharedEngine.try_commit`."""


class SharedEngine(Engine, Protocol):
    """An engine that several nodes write to, across a network. All of this is called on the event loop.

    Errors: `Lost` when there is no connection, now or any more; else as `Engine.commit`."""

    node: str  # unique to this engine's life

    async def attach(self, hint: Callable[[], None]) -> None:
        """Connect; from now on `hint` is called when another node may have committed. It may be late, or not come at all."""

    async def look(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        """One snapshot, not older than this call."""

    def look_now(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        """The same, blocking."""

    async def try_commit(self, group: Group) -> int | None:
        """Keep the group if the database is still at its position and the rows that it takes for absent are; returns the new
        position, or None: nothing was kept."""

    def hold(self) -> AbstractAsyncContextManager[Held]:
        """Wait for the serial point and hold it. Leaving without a commit gives it back and keeps nothing."""

    async def resolve(self, batch: int) -> int | None:
        """After `Lost.sent`: the position of this commit, or None, and then it can never come to be."""

    async def detach(self) -> None:
        """Disconnect."""
