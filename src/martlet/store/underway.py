"""What a shared store has under way: transactions, reading functions, the group that is being committed."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection
from typing import Any, cast

from martlet.store.engine import Engine, Group
from martlet.store.known import Known, Window
from martlet.store.overlay import MISSING, Overlay
from martlet.store.transaction import Reader, Tx

__all__ = ["Flight", "Job", "Peek", "TrackedTx"]


class TrackedTx(Tx):
    """A transaction that remembers what it read."""

    __slots__ = ("ranges", "reads")

    def __init__(self, window: Window, pending: Overlay, last_seq: int, now_ms: int) -> None:
        super().__init__(cast(Engine, window), pending, last_seq, now_ms)
        self.reads: set[bytes] = set()
        self.ranges: list[tuple[bytes, bytes]] = []

    def get(self, key: bytes) -> bytes | None:
        value = self._writes.rows.get(key, MISSING)
        if value is MISSING:
            self.reads.add(key)
            value = self._pending.rows.get(key, MISSING)
            if value is MISSING:
                if self._engine is None:
                    raise RuntimeError("the transaction has ended; use its Tx only inside fn")
                return self._engine.get(key)
        return value

    def _scan_below(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        found = super()._scan_below(low, high, limit, reverse)
        if len(found) < limit:
            self.ranges.append((low, high))
        elif reverse:
            self.ranges.append((found[-1][0], high))
        else:
            self.ranges.append((low, found[-1][0] + b"\x00"))
        return found

    def touched(self, changed: list[bytes], members: frozenset[bytes]) -> bool:
        """Whether a change of these keys (sorted) could have been seen by this transaction."""
        if not self.reads.isdisjoint(members):
            return True
        for low, high in self.ranges:
            at = bisect_left(changed, low)
            if at < len(changed) and changed[at] < high:
                return True
        return False


class Job:
    """A transaction of a caller, until it is told."""

    __slots__ = (
        "charged", "ended", "error", "fn", "future", "guessed", "known", "now_ms", "result", "rounds", "sought", "stale", "tx",
    )  # fmt: skip

    tx: TrackedTx

    def __init__(self, fn: Callable[[Tx], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future
        self.now_ms = 0  # the time that it was given, which holds for a second of runs: or a scan up to now would never end
        self.known: list[Known] = []
        self.result: Any = None
        self.error: Exception | None = None
        self.stale = False  # another node changed what it read, or a row is there that it took for absent
        self.guessed: Collection[bytes] = ()  # rows that it took for absent, without having asked
        self.rounds = 0
        self.charged = 0  # bytes, to the queue's limit
        self.sought = False  # a fetch for it is under way
        self.ended = False  # its caller was told already


class Peek:
    """A reading function of a caller that can wait."""

    __slots__ = ("fn", "future", "known", "rounds")

    def __init__(self, fn: Callable[[Reader], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future
        self.known: list[Known] = []
        self.rounds = 0


class Flight:
    """The group that is being committed."""

    __slots__ = ("group", "jobs", "landed", "number", "position")

    def __init__(self, number: int, jobs: list[Job]) -> None:
        self.number = number
        self.jobs = jobs
        self.landed = False  # seen in the database before its commit was answered
        self.position = 0
        self.group = Group(number, 0, 0, {}, (), 0)  # as it was last sent

    def guessed(self) -> set[bytes]:
        """The rows that its transactions took for absent."""
        return set().union(*(job.guessed for job in self.jobs))
