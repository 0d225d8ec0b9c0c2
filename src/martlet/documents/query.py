"""Queries: one range of one index (or of the ids), filtered, sorted, projected, expanded, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from martlet.documents import values
from martlet.documents.catalog import Compiled, CompiledIndex
from martlet.documents.cursors import digest
from martlet.documents.expressions import Expression, compile_expression
from martlet.documents.layout import Row
from martlet.documents.order import encode_id_prefix, encode_term, invert
from martlet.documents.view import Document, View, document, read_id
from martlet.errors import Conflict, InvalidInput, NotFound
from martlet.limits import LIMITS, exceeded

__all__ = ["Bound", "Page", "Plan", "Query", "Slice"]

_LIMIT_MOST: Final = LIMITS["query_documents"].default
_PAGE_BYTES: Final = LIMITS["document_page_bytes"].default
_EXPAND_MOST: Final = LIMITS["expand_documents"].default
_CLASSES: Final = ((0x02, 0x03), (0x03, 0x05), (0x10, 0x13), (0x20, 0x21), (0x30, 0x31), (0x31, 0x32))  # tags: [from, to)


class Bound(msgspec.Struct, frozen=True):
    """One end of a range."""

    value: Any
    inclusive: bool = True


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `index` "": by id. `equals`: values of the first terms (of the first parts of tuple ids). `low`, `high`,
    `prefix` (of a text) bound the next term, or the id. A range stays in the class of its bound: `low=1` finds no texts.

    `filter`: an expression with `parameters`. `sort`: paths, "-" first for descending, where the index's order is not what
    is wanted. `select`: paths to return. `expand`: references to follow, "customer" or "customer.region". `as_of`: a stamp."""

    collection: str
    index: str = ""
    equals: tuple[Any, ...] = ()
    low: Bound | None = None
    high: Bound | None = None
    prefix: str = ""
    reverse: bool = False
    filter: str = ""
    parameters: dict[str, Any] = {}
    sort: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    expand: tuple[str, ...] = ()
    limit: int = 100
    cursor: str = ""
    as_of: int | None = None

    def digest(self, database: str) -> bytes:
        """What a cursor of this query stands for: everything but where it is, and how much at once."""
        asked = (self.collection, self.index, self.prefix, self.reverse, self.filter, self.sort, self.select, self.expand)
        given = (self.equals, self.low, self.high, sorted(self.parameters.items()), self.as_of)
        return digest(database, asked, repr(given))


class Page(msgspec.Struct, frozen=True):
    """`documents`: of a covered query (`select` within the index's values) without versions (0). `cursor`: of the next page;
    None: there are no more. `at`: the stamp of the state that was read. `looked_at`: documents or entries."""

    documents: list[Document]
    cursor: str | None
    at: int
    looked_at: int


class Slice(msgspec.Struct):
    """A part of a page: what one look into the store has found, each with its position. `position`: where to go on; None:
    nothing is left."""

    found: list[tuple[bytes, Document]]
    position: bytes | None
    looked_at: int
    bytes: int


class Plan:
    """A query, checked against its collection and ready to run on any view of it."""

    def __init__(self, query: Query, compiled: Compiled) -> None:
        if not 1 <= query.limit <= _LIMIT_MOST:
            raise InvalidInput(f"limit {query.limit}: allowed is 1 to {_LIMIT_MOST}", field="limit")
        self.query = query
        self.compiled = compiled
        self.index = self._find_index(query.index)
        self.low, self.high = self._range()
        self.filter: Expression | None = compile_expression(query.filter) if query.filter else None
        self.sort = tuple((values.path_of(name.removeprefix("-")), name.startswith("-")) for name in query.sort)
        self.select = tuple(values.path_of(name) for name in query.select)
        self.expand = tuple(values.path_of(name) for name in query.expand)
        covers = self.index is not None and bool(query.select) and set(query.select) <= self.index.values.keys()
        self.covered = covers and not (self.filter or self.sort or self.expand)
        if self.covered and self.index is not None:
            names = list(self.index.values)
            self._places = tuple((names.index(".".join(path)), path) for path in self.select)

    def _find_index(self, name: str) -> CompiledIndex | None:
        if not name:
            return None
        record = self.compiled.record
        known = next((index for index in record.indexes if index.name == name and not index.hidden), None)
        if known is None:
            there = ", ".join(index.name for index in record.indexes if not index.hidden) or "none"
            raise NotFound(f"collection {record.name} has no index {name[:64]!r}; there are: {there}")
        if known.status != "ready":
            why = f": {known.reason}" if known.reason else ""
            raise Conflict(f"index {name} of {record.name} is {known.status}{why}", index=name, status=known.status)
        return self.compiled.by_name[name]

    def check_past(self, at: int) -> None:
        """An index knows only what was written since it was declared."""
        if self.index is not None and at < self.index.record.since:
            since = self.index.record.since
            name = self.index.record.name
            raise InvalidInput(
                f"index {name} knows nothing from before {since}, when it was declared", field="as_of", oldest=since
            )

    # the range

    def _range(self) -> tuple[bytes, bytes]:
        query, index = self.query, self.index
        if index is None:
            base = encode_id_prefix(*query.equals) if query.equals else b""
            descending = False
        else:
            terms = index.descending
            bounded = query.low is not None or query.high is not None or bool(query.prefix)
            if len(query.equals) + bounded > len(terms):
                raise InvalidInput(f"index {query.index} has {len(terms)} terms: more are given", field="equals")
            base = b"".join(index.term(value, down) for value, down in zip(query.equals, terms, strict=False))
            descending = bounded and terms[len(query.equals)]
        if query.prefix:
            if query.low is not None or query.high is not None:
                raise InvalidInput("give `prefix` or `low` and `high`, not both", field="prefix")
            start = encode_term(query.prefix)[:-1]
            return (
                (base + invert(start), base + invert(start) + b"\xff\xff")
                if descending
                else (base + start, base + start + b"\xff")
            )
        if query.low is None and query.high is None:
            return base, base + b"\xff"
        return self._between(base, query.low, query.high, descending)

    def _between(self, base: bytes, low: Bound | None, high: Bound | None, descending: bool) -> tuple[bytes, bytes]:
        lowest = encode_term(low.value) if low is not None else None
        highest = encode_term(high.value) if high is not None else None
        known = lowest or highest or b"\x02"
        first, after = next((first, after) for first, after in _CLASSES if first <= known[0] < after)
        if not descending:
            start = bytes((first,)) if lowest is None else lowest if low and low.inclusive else lowest + b"\xff"
            end = bytes((after,)) if highest is None else highest + b"\xff" if high and high.inclusive else highest
            return base + start, base + end
        # Descending: the terms are inverted, so the high end comes first.
        start, end = bytes((256 - after,)), bytes((256 - first,))
        if high is not None and highest is not None:
            start = invert(highest) + (b"" if high.inclusive else b"\xff")
        if low is not None and lowest is not None:
            end = invert(lowest) + (b"\xff" if low.inclusive else b"")
        return base + start, base + end

    # running

    def run(self, view: View, after: bytes, want: int, look: int, room: int) -> Slice:
        """At most `want` documents and about `room` bytes of them, having looked at `look` at most, after position `after`."""
        low, high, reverse = self.low, self.high, self.query.reverse
        if after:
            low, high = (
                (low, min(high, after)) if reverse else (max(low, after + b"\xff"), high)
            )  # a version that ended has its key after that
        found: list[tuple[bytes, Document]] = []
        looked_at = size = 0
        position = b""
        for position, item in self._covered(view, low, high) if self.covered else self._full(view, low, high):
            looked_at += 1
            if item is not None:
                found.append((position, item))
                size += len(item.value_bytes)
            if len(found) >= want or looked_at >= look or size >= room:
                return Slice(found, position, looked_at, size)
        return Slice(found, None, looked_at, size)

    def _covered(self, view: View, low: bytes, high: bytes) -> Iterator[tuple[bytes, Document | None]]:
        assert self.index is not None
        for position, entry in view.entries(self.index, low, high, self.query.reverse):
            kept = values.load(entry.covered) if entry is not None else [0]
            if entry is None or 0 < kept[-1] <= view.now_ms:
                yield position, None
                continue
            value: dict[str, Any] = {}
            for place, path in self._places:
                if kept[place] is not None:
                    value = values.with_field(value, path, kept[place])
            yield position, Document(read_id(entry.id), 0, values.dumps(value), entry.stamp // 1000, entry.stamp)

    def _full(self, view: View, low: bytes, high: bytes) -> Iterator[tuple[bytes, Document | None]]:
        for position, id, row in self._rows(view, low, high):
            if row is None:
                yield position, None
                continue
            view.usage.read(len(row.body))
            if self.filter is not None:
                view.usage.nodes += self.filter.nodes
                if not self.filter.holds(values.load(row.body), self.query.parameters):
                    yield position, None
                    continue
            yield position, document(read_id(id), row)

    def _rows(self, view: View, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes, Row | None]]:
        if self.index is None:
            for id, row in view.rows(self.compiled, low, high, self.query.reverse):
                yield id, id, row
            return
        for position, entry in view.entries(self.index, low, high, self.query.reverse):
            if entry is None:
                yield position, b"", None
            else:
                yield position, entry.id, view.row(self.compiled, entry.id)

    # what is returned of a document

    def sorted(self, documents: list[Document]) -> list[Document]:
        """By `sort`; equal ones stay in the order of the index."""
        loaded = [(values.load(item.value_bytes), item) for item in documents]
        for path, descending in reversed(self.sort):
            loaded.sort(key=lambda pair, path=path: _sort_term(values.field(pair[0], path)), reverse=descending)  # type: ignore[misc]
        return [item for _, item in loaded]

    def shown(self, view: View, documents: list[Document]) -> list[Document]:
        """Projected and expanded."""
        if self.covered or not (self.select or self.expand):
            return documents
        budget = [_EXPAND_MOST]
        return [self._show(view, item, budget) for item in documents]

    def _show(self, view: View, item: Document, budget: list[int]) -> Document:
        value = values.load(item.value_bytes)
        for path in self.expand:
            value = _expanded(view, self.compiled, value, path, budget)
        if self.select:
            chosen: dict[str, Any] = {}
            for path in self.select:
                found = values.field(value, path)
                if found is not None:
                    chosen = values.with_field(chosen, path, found)
            value = chosen
        return msgspec.structs.replace(item, value_bytes=dump_large(value))


def dump_large(value: Any) -> bytes:
    """JSON of a value that may hold several documents."""
    return values.dumps(value, bounded=False)


def _sort_term(value: Any) -> bytes:
    try:
        return encode_term(value)
    except InvalidInput:
        return b"\xff"  # arrays and objects, after all else


def _expanded(view: View, compiled: Compiled, value: Any, path: tuple[str, ...], budget: list[int]) -> Any:
    name, rest = path[0], path[1:]
    declared = next((declared for field, declared in compiled.references if field == name), None)
    if declared is None:
        raise InvalidInput(f"{name!r} of {compiled.record.name} is no reference that could be expanded", field="expand")
    if view.may_read is not None:
        view.may_read(declared.collection)
    target = view.collection(declared.collection)

    def one(id: Any) -> Any:
        if not isinstance(id, str):  # null, or expanded already by a longer path
            if isinstance(id, dict) and rest and target is not None:
                return {**id, "value": _expanded(view, target, id["value"], rest, budget)}
            return id
        budget[0] -= 1
        if budget[0] < 0:
            raise exceeded("expand_documents", None, "query")
        found = view.get(declared.collection, id)
        if found is None:
            return None
        inner = found.value()
        if rest and target is not None:
            inner = _expanded(view, target, inner, rest, budget)
        return {"id": id, "version": found.version, "value": inner}

    given = value.get(name) if isinstance(value, dict) else None
    if given is None:
        return value
    return {**value, name: [one(item) for item in given] if isinstance(given, list) else one(given)}
