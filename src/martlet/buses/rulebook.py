"""Which rules an event concerns: every rule's pattern compiled once, and found by a text that it demands.

Most patterns demand plain texts in some fields (a source, a customer). A rule is looked up by the one of its fields whose texts
the fewest rules share; only rules that demand none are tried one by one. Before a whole pattern is tried, one more of its
fields is, whose value is looked up once for all rules: most end there. What is in the book is thrown away when the log says
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
_Gate = tuple[Path, Matches]  # a field, and what it must be; the test takes {"value": …}
_Candidate = tuple[list[_Gate], Rule, Matches]  # only if one of the gates is open, or there are none


class _Fields(dict[Path, "dict[str, Any] | None"]):
    """Fields of one event, looked up when they are first asked for: {"value": …}, {} for none, None where it takes more than
    going down by names."""

    def __init__(self, event: Any) -> None:
        super().__init__()
        self._event = event

    def __missing__(self, path: Path) -> dict[str, Any] | None:
        found = self[path] = _field(self._event, path)
        return found


class Book:
    """The rules and archives of one bus."""

    def __init__(self, rules: list[Rule], archives: list[Archive], compile_pattern: Callable[[str], Matches]) -> None:
        self._compile = compile_pattern
        self._gates: dict[str, Matches] = {}  # by their text: many rules have the same ones
        self._paths: dict[Path, Path] = {}  # one object for each
        self._by_text: dict[Path, dict[str, list[_Candidate]]] = {}
        self._by_path: dict[Path, list[_Candidate]] = {}
        self._others: list[_Candidate] = []
        self.archives: list[tuple[Archive, Matches | None]] = [
            (one, compile_pattern(one.pattern) if one.pattern else None) for one in archives
        ]
        heard = [rule for rule in rules if rule.pattern and rule.state != "DISABLED" and rule.targets]
        demands = {id(rule): dict(_demands(json.loads(rule.pattern), ())) for rule in heard}
        shared = Counter((path, text) for found in demands.values() for path, texts in found.items() for text in texts)
        for rule in heard:
            try:
                matches = compile_pattern(rule.pattern)
            except InvalidInput:
                continue  # it was checked when it was made
            self._add(rule, matches, demands[id(rule)], shared)
        self._gates.clear()

    def _add(
        self, rule: Rule, matches: Matches, demands: Mapping[Path, set[str]], shared: Mapping[tuple[Path, str], int]
    ) -> None:
        best = min(demands, key=lambda path: sum(shared[path, text] for text in demands[path])) if demands else ()
        candidate = ([*self._gates_of(json.loads(rule.pattern), best)], rule, matches)
        if not best:
            self._others.append(candidate)
            return
        self._by_path.setdefault(best, []).append(candidate)
        for text in demands[best]:
            self._by_text.setdefault(best, {}).setdefault(text, []).append(candidate)

    def _gates_of(self, pattern: Mapping[str, Any], known: Path) -> Iterator[_Gate]:
        """A field other than `known` that must be something: of the pattern, or else one of each of its alternatives."""
        found = next((leaf for leaf in _leaves(pattern, ()) if leaf[0] != known), None)
        branches = pattern.get("$or")
        if found is not None:
            found_of_each = [found]
        elif isinstance(branches, list) and all(isinstance(one, dict) for one in branches):
            each = [next(_leaves(one, ()), None) for one in branches]
            found_of_each = [leaf for leaf in each if leaf is not None]
            if len(found_of_each) < len(each):
                return
        else:
            return
        for path, wanted in found_of_each:
            text = json.dumps({"value": wanted})
            test = self._gates.get(text)
            if test is None:
                test = self._gates[text] = self._compile(text)
            yield self._paths.setdefault(path, path), test

    def matching(self, event: Mapping[str, Any]) -> Iterator[Rule]:
        """The rules whose pattern the event has."""
        fields = _Fields(event)
        for path, by_text in self._by_text.items():
            texts = _texts(event, path)
            found = self._by_path[path] if texts is None else [one for text in texts for one in by_text.get(text, ())]
            known: set[int] = set()
            for rule in _passing(found, event, fields):
                if id(rule) not in known:
                    known.add(id(rule))
                    yield rule
        yield from _passing(self._others, event, fields)


def _passing(candidates: list[_Candidate], event: Mapping[str, Any], fields: _Fields) -> Iterator[Rule]:
    before: Path | None = None  # neighbours often ask for the same field
    field: dict[str, Any] | None = None
    for gates, rule, matches in candidates:
        for path, test in gates:
            if path is not before:
                before, field = path, fields[path]
            if field is None or test(field):
                break
        else:
            if gates:
                continue
        if matches(event):
            yield rule


def _leaves(pattern: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, list[Any]]]:
    """Fields that a pattern says something of, whatever its alternatives are: none that those say something else of, and none
    whose names have dots."""
    elsewhere = _elsewhere(pattern)
    for name, wanted in pattern.items():
        if name == "$or" or "." in name or name in elsewhere:
            continue
        if isinstance(wanted, dict):
            yield from _leaves(wanted, (*path, name))
        elif isinstance(wanted, list):
            yield (*path, name), wanted


def _elsewhere(pattern: Mapping[str, Any]) -> set[str]:
    """The fields of which an alternative says something."""
    branches = pattern.get("$or")
    return {name for one in branches if isinstance(one, dict) for name in one} if isinstance(branches, list) else set()


def _field(event: Any, path: Path) -> dict[str, Any] | None:
    value = event
    for name in path:
        if not isinstance(value, dict):
            return None
        if name not in value:
            start = f"{name}."
            return None if any(other.startswith(start) for other in value) else {}
        value = value[name]
    return {"value": value}


def _demands(pattern: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, set[str]]]:
    """Fields that must hold one of a few texts."""
    for where, wanted in _leaves(pattern, path):
        if wanted and all(type(one) is str for one in wanted):
            yield where, set(wanted)


def _texts(value: Any, path: Path) -> set[str] | None:
    """The texts that an event has at a path, through arrays on the way; None where it cannot be told so simply."""
    if isinstance(value, list):
        found: set[str] = set()
        arrays = [value]  # no recursion: how deep they go is the sender's choice
        while arrays:
            for one in arrays.pop():
                if isinstance(one, list):
                    arrays.append(one)
                    continue
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
