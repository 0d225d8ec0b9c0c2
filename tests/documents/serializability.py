"""Whether a history of transactions is strictly serializable: a checker that knows nothing of the engine.

Each transaction says when it was asked for and answered, which version of which document it read (0: none) with what value, and
which version it wrote with what value. From that follow edges that every serial order must respect:

    wr  who wrote a version → who read it          ww  who wrote a version → who wrote the next
    rw  who read a version → who wrote the next    rt  who was answered → who was asked for after that

A cycle is a proof that there is no such order (Adya; Kingsbury and Alvaro, "Elle"). Before that each version must have one
writer, and a read the value that this one wrote. A transaction without an answer may have happened: it counts if somebody
saw it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["Done", "violations"]


class Done(msgspec.Struct, frozen=True):
    """One transaction. `reads` and `writes`: {key: (version, value)}; a version of None: not known, as there was no answer."""

    asked_at: float
    answered_at: float  # infinite: never
    reads: dict[str, tuple[int, Any]] = {}
    writes: dict[str, tuple[int | None, Any]] = {}


def violations(history: Iterable[Done]) -> list[str]:
    """One sentence for each thing that no serial order explains; none: the history is strictly serializable."""
    everyone = list(history)
    found: list[str] = []
    writers = _writers(everyone, found)
    edges: list[set[int]] = [set() for _ in everyone]
    for place, done in enumerate(everyone):
        for key, (version, value) in done.reads.items():
            _read(everyone, writers, edges, place, key, version, value, found)
        for key, (version, _) in done.writes.items():
            if version is not None:
                before, after = writers.get((key, version - 1)), writers.get((key, version + 1))
                if version > 1 and before is None:
                    found.append(f"{key}: version {version - 1} has no writer")
                if before is not None and before != place:
                    edges[before].add(place)
                if after is not None and after != place:
                    edges[place].add(after)
    _real_time(everyone, edges)
    for cycle in _cycles(edges):
        members = [number for number in cycle if number < len(everyone)]
        told = "; ".join(f"{number}: read {everyone[number].reads} wrote {everyone[number].writes}" for number in members[:4])
        found.append(f"{len(members)} transactions in a cycle: {told}")
    return found


def _writers(everyone: list[Done], found: list[str]) -> dict[tuple[str, int], int]:
    """Who wrote each version. Writes without an answer are placed by whoever saw their value."""
    writers: dict[tuple[str, int], int] = {}
    unknown: dict[tuple[str, str], int] = {}
    for place, done in enumerate(everyone):
        for key, (version, value) in done.writes.items():
            if version is None:
                unknown[key, repr(value)] = place
                continue
            other = writers.setdefault((key, version), place)
            if other != place:
                found.append(f"{key}: version {version} was written by {other} and by {place}: one update is lost")
    for done in everyone:
        for key, (version, value) in done.reads.items():
            if version and (key, version) not in writers and (key, repr(value)) in unknown:
                writers[key, version] = unknown[key, repr(value)]
    return writers


def _read(
    everyone: list[Done],
    writers: dict[tuple[str, int], int],
    edges: list[set[int]],
    place: int,
    key: str,
    version: int,
    value: Any,
    found: list[str],
) -> None:
    if version:
        writer = writers.get((key, version))
        if writer is None:
            found.append(f"{key}: {place} read version {version}, which nobody wrote")
        elif everyone[writer].writes[key][1] != value:
            found.append(f"{key}: {place} read version {version} as {value!r}, it was written otherwise")
        elif writer != place:
            edges[writer].add(place)
    after = writers.get((key, version + 1))
    if after is not None and after != place:
        edges[place].add(after)


def _real_time(everyone: list[Done], edges: list[set[int]]) -> None:
    """A chain of moments, one for each answer: whoever was answered by then comes before whoever was asked for since."""
    moments = sorted((done.answered_at, place) for place, done in enumerate(everyone) if done.answered_at != float("inf"))
    asked = sorted((done.asked_at, place) for place, done in enumerate(everyone))
    first = len(edges)
    edges += [set() for _ in moments]
    at = 0
    for number, (when, place) in enumerate(moments):
        edges[place].add(first + number)
        if number:
            edges[first + number - 1].add(first + number)
        while at < len(asked) and asked[at][0] <= when:
            at += 1
        for later, other in asked[at:]:
            if number + 1 < len(moments) and later > moments[number + 1][0]:
                break
            edges[first + number].add(other)


def _cycles(edges: list[set[int]]) -> list[list[int]]:
    """Strongly connected components of two or more (Tarjan, without recursion)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    inside: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(edges)):
        if root in order:
            continue
        work = [(root, iter(edges[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        inside.add(root)
        while work:
            node, following = work[-1]
            for other in following:
                if other not in order:
                    order[other] = low[other] = len(order)
                    stack.append(other)
                    inside.add(other)
                    work.append((other, iter(edges[other])))
                    break
                if other in inside:
                    low[node] = min(low[node], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    part = []
                    while True:
                        one = stack.pop()
                        inside.discard(one)
                        part.append(one)
                        if one == node:
                            break
                    if len(part) > 1:
                        found.append(part)
    return found
