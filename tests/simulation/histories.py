"""A checker of strict serializability over recorded histories of concurrent clients, and clients that record them.

Each key holds a list. Transactions append values that occur once and read whole lists, by key or by range: a blind append never
happens, so a key is a register as well, whose whole past is in its value. Lists tell in which order the writes of one key took
effect; with who read what, and with real time (a transaction that was answered before another began comes before it), that
gives a graph that must have no cycle.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from martlet.errors import Overloaded, StoreFailed, StoreFull
from martlet.store import Reader, Store, Tx

LISTS, REGISTERS = b"\x40l%d", b"\x41r%d"
LOW, HIGH = b"\x40", b"\x42"


@dataclass
class Attempt:
    """One transaction of a client. `kept`: None when nobody told."""

    began: float
    ended: float = float("inf")
    kept: bool | None = None
    reads: dict[bytes, tuple[int, ...]] = field(default_factory=dict)
    appends: dict[bytes, int] = field(default_factory=dict)


def values_of(row: bytes | None) -> tuple[int, ...]:
    return tuple(int(text) for text in row.split(b",")) if row else ()


def check(history: Sequence[Attempt], last: dict[bytes, tuple[int, ...]]) -> list[str]:
    """What is wrong with a history whose keys end as `last` says."""
    writers = {(key, value): number for number, attempt in enumerate(history) for key, value in attempt.appends.items()}
    problems = _lost(history, last)
    after: dict[int, set[int]] = {}
    for key, values in last.items():
        for one, other in itertools.pairwise(values):
            _edge(after, writers.get((key, one)), writers.get((key, other)))
    for number, attempt in enumerate(history):
        for key, seen in attempt.reads.items() if attempt.kept is True else ():
            whole = last.get(key, ())
            if whole[: len(seen)] != seen:
                problems.append(f"{key!r}: {seen} was read, which never was: {whole}")
                continue
            if seen:
                _edge(after, writers.get((key, seen[-1])), number)
            if len(seen) < len(whole):
                _edge(after, number, writers.get((key, whole[len(seen)])))
    _real_time(history, after)
    circle = _circle(after)
    if circle:
        problems.append("a circle: " + " < ".join(str(history[at]) for at in circle if at < len(history)))
    return problems


def _lost(history: Sequence[Attempt], last: dict[bytes, tuple[int, ...]]) -> list[str]:
    problems = []
    for attempt in history:
        for key, value in attempt.appends.items():
            there = value in last.get(key, ())
            if attempt.kept is True and not there:
                problems.append(f"{key!r}: {value} was acknowledged and is lost")
            if attempt.kept is False and there:
                problems.append(f"{key!r}: {value} was refused and is there")
    twice = (key for key, values in last.items() if len(set(values)) != len(values))
    return problems + [f"{key!r}: values occur twice: {last[key]}" for key in twice]


def _edge(after: dict[int, set[int]], one: int | None, other: int | None) -> None:
    if one is not None and other is not None and one != other:
        after.setdefault(one, set()).add(other)


def _real_time(history: Sequence[Attempt], after: dict[int, set[int]]) -> None:
    """Through one node for each end, in a chain: edges grow with the number of transactions, not with its square."""
    events: list[tuple[float, int, int]] = []
    for number, attempt in enumerate(history):
        events.append((attempt.began, 1, number))
        if attempt.kept is True:
            events.append((attempt.ended, 0, number))
    barrier: int | None = None
    fresh = len(history)
    for _, starts, number in sorted(events):
        if starts:
            _edge(after, barrier, number)
        else:
            _edge(after, number, fresh)
            _edge(after, barrier, fresh)
            barrier, fresh = fresh, fresh + 1


def _circle(after: dict[int, set[int]]) -> list[int]:
    """One cycle, or nothing (depth first, without recursion)."""
    done: set[int] = set()
    for root in list(after):
        if root in done:
            continue
        path: list[int] = []
        on_path: set[int] = set()
        stack: list[tuple[int, bool]] = [(root, False)]
        while stack:
            node, left = stack.pop()
            if left:
                path.pop()
                on_path.discard(node)
                done.add(node)
            elif node in on_path:
                return path[path.index(node) :]
            elif node not in done:
                path.append(node)
                on_path.add(node)
                stack.append((node, True))
                stack += [(following, False) for following in after.get(node, ())]
    return []


class Clients:
    """Clients of one or several nodes on one store, and what they saw."""

    def __init__(self, nodes: Sequence[Store], seed: int, keys: int = 5) -> None:
        self.nodes = list(nodes)
        self.history: list[Attempt] = []
        self._chance = random.Random(seed)
        self._keys = keys
        self._values = 0
        self.stopped = False

    async def run(self, clients: int, attempts: int) -> None:
        await asyncio.gather(*(self._client(at, attempts) for at in range(clients)))

    async def _client(self, number: int, attempts: int) -> None:
        for _ in range(attempts):
            if self.stopped:
                return
            node = self.nodes[number % len(self.nodes)]
            attempt = Attempt(time.monotonic())
            self.history.append(attempt)
            try:
                await self._one(node, attempt)
                attempt.kept = True
            except (StoreFull, Overloaded):
                attempt.kept = False
            except StoreFailed as error:
                attempt.kept = None if "unknown" in error.message else False
            attempt.ended = time.monotonic()
            if self._chance.random() < 0.1 or attempt.kept is not True:
                await asyncio.sleep(self._chance.random() * 0.01)

    async def _one(self, node: Store, attempt: Attempt) -> None:
        what = self._chance.random()
        chosen = self._chance.sample(range(self._keys), 2)
        if what < 0.15:
            self._saw(attempt, await node.look(lambda reader: reader.scan(LOW, HIGH)))
        elif what < 0.3:
            self._saw(attempt, node.read(lambda reader: _rows(reader, chosen)))
        elif what < 0.4:
            self._saw(attempt, await node.transact(lambda tx: _rows(tx, chosen)))
        else:
            self._values += 1
            value, key = self._values, (LISTS if what < 0.8 else REGISTERS) % chosen[0]
            attempt.appends[key] = value
            self._saw(attempt, await node.transact(lambda tx: _append(tx, key, value, chosen, self._keys)))

    def _saw(self, attempt: Attempt, rows: Iterable[tuple[bytes, bytes]]) -> None:
        attempt.reads = {key: values_of(row) for key, row in rows}

    def verdict(self, node: Store) -> list[str]:
        rows = dict(node.read(lambda reader: reader.scan(LOW, HIGH)))
        return check(self.history, {key: values_of(row) for key, row in rows.items()})


def _rows(reader: Any, chosen: Sequence[int]) -> list[tuple[bytes, bytes]]:
    keys = [kind % at for kind in (LISTS, REGISTERS) for at in chosen]
    return [(key, reader.get(key) or b"") for key in keys]


def _append(tx: Tx, key: bytes, value: int, chosen: Sequence[int], keys: int) -> list[tuple[bytes, bytes]]:
    """Append to one key after reading some, one of them as part of a range."""
    rows = dict(_rows(tx, chosen))
    low = LISTS % (value % keys)
    found = dict(tx.scan(low, low + b"\x00", 3))
    rows[low] = found.get(low, b"")
    old = tx.get(key)
    tx.put(key, old + b",%d" % value if old else b"%d" % value)
    tx.append("t", key, b"%d" % value)
    return list(rows.items())


def complete(reader: Reader) -> int:
    """How many values there are in all."""
    return sum(len(values_of(row)) for _, row in reader.scan(LOW, HIGH))
