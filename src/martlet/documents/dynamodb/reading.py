"""Reads: one item, and the pages of Query and Scan over a table or an index.

A page ends with the item at which it reaches its Limit or 1 MB, counted before the filter. It is read in slices, so that a long
one holds nobody up; each slice is a snapshot of its own, and never older than any acknowledged write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb import ordering
from martlet.documents.dynamodb.capacity import Capacity, read_units
from martlet.documents.dynamodb.expressions import KeyCondition, KeyTest, Projection
from martlet.documents.dynamodb.failures import invalid, validation
from martlet.documents.dynamodb.items import check_key, check_key_value
from martlet.documents.dynamodb.tables import Index, Item, Table, unpack
from martlet.documents.dynamodb.writing import Condition
from martlet.errors import ServiceError
from martlet.store import Reader, Store

__all__ = [
    "Page",
    "Reading",
    "bounds",
    "check_start",
    "check_start_hash",
    "composite_bounds",
    "last_key",
    "read_page",
    "start_position",
]

PAGE_BYTES: Final = 1_048_576
_SLICE: Final = 48  # rows of a first slice: 400 KB each at most
_SLICE_MOST: Final = 384
_SMALL: Final = 4_096
_BAD_START: Final = "The provided starting key is invalid"

Value = dict[str, Any]


class Reading(msgspec.Struct):
    """A page to be read: rows with low <= key < high."""

    table: Table
    index: Index | None
    low: bytes
    high: bytes
    reverse: bool = False
    limit: int | None = None
    filter: Condition | None = None
    projection: Projection | None = None
    fetches: bool = False  # each entry's item is read from the table
    counts: bool = False  # no items are wanted
    consistent: bool = False


class Page(msgspec.Struct):
    items: list[Item]
    count: int = 0
    looked_at: int = 0
    last: Item | None = None  # whole, where there may be more
    size: int = 0
    fetched: int = 0

    def capacity(self, reading: Reading) -> Capacity:
        used = Capacity()
        units = read_units(self.size, reading.consistent)
        if reading.index is None:
            used.table = units
        else:
            used.index(reading.index.name, reading.index.is_global, units)
            if reading.fetches and self.fetched:
                used.table = read_units(self.fetched, reading.consistent)
        return used


# --- where to read


def bounds(table: Table, index: Index | None, wanted: KeyCondition) -> tuple[bytes, bytes]:
    """[low, high) of the rows in a range of a partition."""
    names = table.types
    hashed = index.hash[0] if index is not None else table.hash
    prefix = index.prefix if index is not None else table.prefix
    start = prefix + ordering.partition(((names[hashed], wanted.hash_value[names[hashed]]),))
    end = _above(start)
    if not wanted.operator or wanted.low is None:
        return start, end
    if index is None:
        return _table_bounds(start, end, table.range_type, wanted)
    return _index_bounds(start, end, names[index.range[0]], wanted)


def composite_bounds(table: Table, index: Index, keys: Mapping[str, KeyTest]) -> tuple[bytes, bytes]:
    """[low, high) of a query on an index whose partition key or sort key has several attributes: of the partition key each is
    equal to something; of the sort key as many as are given, from the first on, of which the last may be in a range."""
    for name, test in keys.items():
        if name not in index.keys:
            raise validation(f"Query condition missed key schema element: {name} is no key attribute of index {index.name}")
        if any(index.types[name] not in operand for operand in test.operands):
            raise invalid("Condition parameter type does not match schema type")
    for name in index.hash:
        if name not in keys or keys[name].operator != "=":
            raise validation(
                f"All HASH key attributes must be specified with equality conditions; missing or not equal: {name}"
            )
    given = [name for name in index.range if name in keys]
    first = list(index.range[: len(given)])
    loose = next((name for name in first if name not in keys or (name != given[-1] and keys[name].operator != "=")), None)
    if loose is not None:
        raise validation(
            "RANGE key attributes must be specified in the order of the key schema, with equality conditions on all but the "
            f"last; missing or not equal: {loose}"
        )
    values = tuple((index.types[name], keys[name].operands[0][index.types[name]]) for name in index.hash)
    start = index.prefix + ordering.partition(values)
    for name in given[:-1]:
        start += ordering.part(index.types[name], keys[name].operands[0][index.types[name]])
    end = _above(start)
    if not given:
        return start, end
    test, kind = keys[given[-1]], index.types[given[-1]]
    high = test.operands[1] if len(test.operands) > 1 else None
    return _index_bounds(start, end, kind, KeyCondition(test.operands[0], test.operator, test.operands[0], high))


def _above(prefix: bytes) -> bytes:
    found = ordering.after_prefix(prefix)
    assert found is not None  # every prefix begins with "Y"
    return found


def _table_bounds(start: bytes, end: bytes, kind: str, wanted: KeyCondition) -> tuple[bytes, bytes]:
    """Sort keys lie as they are, at the end of the key: what follows one is it and a zero."""
    assert wanted.low is not None
    low = start + ordering.plain(kind, wanted.low[kind])
    operator = wanted.operator or ""
    if operator == "BETWEEN":
        assert wanted.high is not None
        return low, start + ordering.plain(kind, wanted.high[kind]) + b"\x00"
    if operator == "begins_with":
        return low, _above(low)
    return _compared(operator, start, low, low + b"\x00", end)


def _index_bounds(start: bytes, end: bytes, kind: str, wanted: KeyCondition) -> tuple[bytes, bytes]:
    """Sort keys lie within the key, with an end mark."""
    assert wanted.low is not None
    low = start + ordering.part(kind, wanted.low[kind])
    operator = wanted.operator or ""
    if operator == "BETWEEN":
        assert wanted.high is not None
        return low, _above(start + ordering.part(kind, wanted.high[kind]))
    if operator == "begins_with":
        return low[:-2], _above(low[:-2])
    return _compared(operator, start, low, _above(low), end)


def _compared(operator: str, start: bytes, low: bytes, after: bytes, end: bytes) -> tuple[bytes, bytes]:
    if operator == "=":
        return low, after
    if operator in ("<", "<="):
        return start, low if operator == "<" else after
    return (after if operator == ">" else low), end


# --- where to go on


def check_start_hash(table: Table, index: Index | None, start: Item) -> None:
    """What of a query's ExclusiveStartKey is looked at before its conditions are."""
    wanted = index.unique_keys if index is not None else table.keys
    hashed = index.hash[0] if index is not None else table.hash
    if len(start) != len(wanted) or hashed not in start:
        raise validation(_BAD_START)
    check_key_value(start, hashed, table.types[hashed], True)


def check_start(table: Table, index: Index | None, start: Item, *, scan: bool) -> None:
    """Whether an ExclusiveStartKey is a key of what is read."""
    wanted = index.unique_keys if index is not None else table.keys
    if len(start) != len(wanted):
        bare = not scan or index is not None
        raise validation(_BAD_START if bare else f"{_BAD_START}: The provided key element does not match the schema")
    for name in index.keys if index is not None else () if scan else table.keys:
        if name not in start:
            raise validation(_BAD_START)
        is_hash = name in index.hash if index is not None else name == table.hash
        check_key_value(start, name, table.types[name], is_hash)
    try:
        check_key(table, {name: start[name] for name in table.keys if name in start})
    except ServiceError as error:
        raise validation(f"{_BAD_START}: {error.message}") from error


def start_position(table: Table, index: Index | None, start: Item) -> bytes:
    """The key of the row that an ExclusiveStartKey names, whether it is there or not."""
    if index is None:
        return table.key(start)
    found = index.key(start, table.own(start))
    assert found is not None  # `check_start` saw to it
    return found


# --- reading


async def read_page(store: Store, reading: Reading) -> Page:
    """One page."""
    page = Page([])
    low, high = reading.low, reading.high
    size = _SLICE
    while low < high:
        wanted = size if reading.limit is None else min(size, reading.limit - page.looked_at)
        rows = store.read(lambda reader: _slice(reader, reading, page, low, high, wanted))  # noqa: B023
        if page.last is not None or len(rows) < wanted:
            break
        if reading.reverse:
            high = rows[-1][0]
        else:
            low = rows[-1][0] + b"\x00"
        size = min(size * 2, _SLICE_MOST) if sum(len(raw) for _, raw in rows) < _SMALL * len(rows) else _SLICE
        await asyncio.sleep(0)
    return page


def _slice(reader: Reader, reading: Reading, page: Page, low: bytes, high: bytes, most: int) -> list[tuple[bytes, bytes]]:
    rows = reader.scan(low, high, limit=most, reverse=reading.reverse)
    table, keep = reading.table, reading.filter
    for _, raw in rows:
        item, size = unpack(raw)
        entry = item
        page.size += size
        page.looked_at += 1
        if reading.fetches:
            whole = reader.get(table.key(item))
            if whole is not None:
                item, own_size = unpack(whole)
                page.fetched += own_size
        if keep is None or keep.holds(item):
            page.count += 1
            if not reading.counts:
                page.items.append(item if reading.projection is None else reading.projection.of(item))  # type: ignore[arg-type]
        if page.looked_at == reading.limit or page.size >= PAGE_BYTES:
            page.last = entry
            break
    return rows


def last_key(table: Table, index: Index | None, item: Item) -> Item:
    """The LastEvaluatedKey of a page that ends with `item`."""
    names = index.unique_keys if index is not None else table.keys
    return {name: item[name] for name in names}
