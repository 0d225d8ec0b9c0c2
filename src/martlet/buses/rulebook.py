"""Which rules an event concerns: every rule's pattern compiled once, and found by the event's source or detail-type.

Most patterns name their source or their detail-type as plain text; those are looked up, and only the others are tried one by
one. What is in the book is thrown away when the log says that its bus is different.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from martlet.buses.desk import Matches
from martlet.buses.rows import Archive, Rule, Tables
from martlet.errors import InvalidInput
from martlet.store import Store

__all__ = ["Book", "Rulebook"]

_INDEXED: Final = ("source", "detail-type")


class Book:
    """The rules and archives of one bus."""

    def __init__(self, rules: list[Rule], archives: list[Archive], compile_pattern: Callable[[str], Matches]) -> None:
        self._by_text: dict[str, dict[str, list[tuple[Rule, Matches]]]] = {name: {} for name in _INDEXED}
        self._others: list[tuple[Rule, Matches]] = []
        self.archives: list[tuple[Archive, Matches | None]] = [
            (one, compile_pattern(one.pattern) if one.pattern else None) for one in archives
        ]
        for rule in rules:
            if rule.pattern and rule.state != "DISABLED" and rule.targets:
                self._add(rule, compile_pattern)

    def _add(self, rule: Rule, compile_pattern: Callable[[str], Matches]) -> None:
        try:
            pair = (rule, compile_pattern(rule.pattern))
        except InvalidInput:
            return  # it was checked when it was made
        pattern = json.loads(rule.pattern)
        for name in _INDEXED:
            wanted = pattern.get(name)
            if isinstance(wanted, list) and all(type(one) is str for one in wanted):
                for text in set(wanted):
                    self._by_text[name].setdefault(text, []).append(pair)
                return
        self._others.append(pair)

    def matching(self, event: Mapping[str, Any]) -> Iterator[Rule]:
        """The rules whose pattern the event has."""
        for name in _INDEXED:
            text = event.get(name)
            for rule, matches in self._by_text[name].get(text, ()) if isinstance(text, str) else ():
                if matches(event):
                    yield rule
        for rule, matches in self._others:
            if matches(event):
                yield rule


class Rulebook:
    """The books of all buses, each made when it is first needed."""

    def __init__(self, store: Store, compile_pattern: Callable[[str], Matches]) -> None:
        self._store = store
        self._compile = compile_pattern
        self._books: dict[str, Book] = {}

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
