"""Which rules an event concerns: every rule's pattern compiled once, and found by a text that it demands.

Most patterns demand plain texts in some fields (a source, a customer). A rule is looked up by the one of its fields whose texts
the fewest rules share; only rules that demand none are tried one by one. What is in the book is thrown away when the log says
that its bus is different.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from martlet.buses.desk import Matches
from martlet.buses.rows import Archive, Rule, Tables
from martlet.errors import InvalidInput
from martlet.store import Store

__all__ = ["Book", "Rulebook"]

Path = tuple[str, ...]
_Pair = tuple[Rule, Matches]


class Book:
    """The rules and archives of one bus."""

    def __init__(self, rules: list[Rule], archives: list[Archive], compile_pattern: Callable[[str], Matches]) -> None:
        self._by_text: dict[Path, dict[str, list[_Pair]]] = {}
        self._by_path: dict[Path, list[_Pair]] = {}
        self._others: list[_Pair] = []
        self.archives: list[tuple[Archive, Matches | None]] = [
            (one, compile_pattern(one.pattern) if one.pattern else None) for one in archives
        ]
        heard = [rule for rule in rules if rule.pattern and rule.state != "DISABLED" and rule.targets]
        demands = {id(rule): dict(_demands(json.loads(rule.pattern), ())) for rule in heard}
        shared = Counter((path, text) for found in demands.values() for path, texts in found.items() for text in texts)
        for rule in heard:
            try:
                pair = (rule, compile_pattern(rule.pattern))
            except InvalidInput:
                continue  # it was checked when it was made
            self._add(pair, demands[id(rule)], shared)

    def _add(self, pair: _Pair, demands: Mapping[Path, set[str]], shared: Mapping[tuple[Path, str], int]) -> None:
        if not demands:
            self._others.append(pair)
            return
        path = min(demands, key=lambda path: sum(shared[path, text] for text in demands[path]))
        self._by_path.setdefault(path, []).append(pair)
        for text in demands[path]:
            self._by_text.setdefault(path, {}).setdefault(text, []).append(pair)

    def matching(self, event: Mapping[str, Any]) -> Iterator[Rule]:
        """The rules whose pattern the event has."""
        for path, by_text in self._by_text.items():
            texts = _texts(event, path)
            pairs = self._by_path[path] if texts is None else [pair for text in texts for pair in by_text.get(text, ())]
            known: set[int] = set()
            for rule, matches in pairs:
                if id(rule) not in known and matches(event):
                    known.add(id(rule))
                    yield rule
        for rule, matches in self._others:
            if matches(event):
                yield rule


def _demands(pattern: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, set[str]]]:
    """Fields that must hold one of a few texts. Fields whose names have dots are left out: those are found in two ways."""
    for name, wanted in pattern.items():
        if name == "$or" or "." in name:
            continue
        if isinstance(wanted, dict):
            yield from _demands(wanted, (*path, name))
        elif isinstance(wanted, list) and wanted and all(type(one) is str for one in wanted):
            yield (*path, name), set(wanted)


def _texts(value: Any, path: Path) -> set[str] | None:
    """The texts that an event has at a path, through arrays on the way; None where it cannot be told so simply."""
    if isinstance(value, list):
        found: set[str] = set()
        for one in value:
            inner = _texts(one, path)
            if inner is None:
                return None
            found |= inner
        return found
    if not path:
        return {value} if type(value) is str else set()
    if not isinstance(value, dict):
        return set()
    if path[0] in value:
        return _texts(value[path[0]], path[1:])
    start = f"{path[0]}."
    return None if any(name.startswith(start) for name in value) else set()


class Rulebook:
    """The books of all buses, each made when it is first needed."""

    def __init__(self, store: Store, compile_pattern: Callable[[str], Matches]) -> None:
        self._store = store
        self._compile = compile_pattern
        self._books: dict[str, Book] = {}

    def forget_all(self) -> None:
        self._books.clear()

    def forget(self, bus: str) -> None:
        self._books.pop(bus, None)

    def book(self, bus: str) -> Book:
        found = self._books.get(bus)
        if found is None:
            found = self._books[bus] = self._store.read(lambda reader: self._made(Tables(reader), bus))
        return found

    def _made(self, tables: Tables, bus: str) -> Book:
        archives = [one for one in tables.every(Archive) if one.bus == bus]
        return Book(list(tables.every(Rule, bus)), archives, self._compile)
