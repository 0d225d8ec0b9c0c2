"""Reads of one state: the present one, or the state at a stamp of the past."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from martlet.documents import layout, values
from martlet.documents.catalog import Catalog, Compiled, CompiledIndex, check_name, check_path
from martlet.documents.layout import Entry, Row, entry_of, pack_long, row_of, unpack_long
from martlet.documents.order import Id, decode_id, encode_id
from martlet.documents.usage import Usage
from martlet.errors import InvalidInput, NotFound
from martlet.limits import LIMITS, exceeded
from martlet.store import Reader

__all__ = ["Document", "Version", "View"]

_READ_AHEAD: Final = 50  # rows that one scan takes from the store: bounds what a page of large ones holds
_NONE: Final[Mapping[int, int]] = {}
_ID_BYTES: Final = LIMITS["document_id_bytes"].default


class Document(msgspec.Struct, frozen=True):
    """A document as it was read or written. `value_bytes` is its JSON as it is stored: byte for byte as it was put, unless
    the collection's schema added to it."""

    id: Id
    version: int  # 1, 2, ...; goes on after a delete, so a number never means two different states
    value_bytes: bytes
    updated_at_ms: int
    stamp: int = 0  # of this version: microseconds, unique to its transaction, growing
    created_at_ms: int = 0
    expires_at_ms: int | None = None

    def value(self) -> Any:
        """The value in Python's types, see `values`."""
        return values.load(self.value_bytes)


class Version(msgspec.Struct, frozen=True):
    """One version in a document's history. `ended`: stamp at which it was replaced or deleted; None: it stands."""

    document: Document
    ended: int | None


class View:
    """Reads within one database. `at`: the stamp to read as of, None for the present."""

    def __init__(
        self,
        reader: Reader,
        catalog: Catalog,
        database: str,
        now_ms: int,
        usage: Usage,
        at: int | None = None,
        pinned: Mapping[int, int] = _NONE,
    ) -> None:
        self.reader = reader
        self.catalog = catalog
        self.database = database
        self.now_ms = now_ms if at is None else min(now_ms, at // 1000)
        self.wall_ms = now_ms
        self.usage = usage
        self.at = at
        self.may_read: Callable[[str], None] | None = None  # asked for collections that a reference leads to
        self.pinned = pinned  # number of a collection -> stamp from which on its past is kept, whatever its settings

    def get(self, collection: str, id: Id) -> Document | None:
        """The document, or None. Raises `InvalidInput` for malformed names and for a past that is not kept."""
        found = self.collection(collection)
        raw_id = id_bytes(id)
        if found is None:
            return None
        row = self.row(found, raw_id)
        if row is None:
            self.usage.read_operations += 1
            return None
        self.usage.read(len(row.body))
        return document(id, row)

    def collection(self, name: str) -> Compiled | None:
        check_path(self.database)
        check_name("collection", name)
        found = self.catalog.collection(self.reader, self.database, name)
        if found is None and "/" in self.database and self.reader.get(layout.database_key(self.database)) is None:
            raise NotFound(f"there is no database {self.database!r}")
        if found is not None and self.at is not None:
            self.check_past(found)
        return found

    def check_past(self, compiled: Compiled) -> None:
        """Raises `InvalidInput` when this collection's past is not kept so far back."""
        assert self.at is not None
        record = compiled.record
        oldest = max(record.history_since, (self.wall_ms - record.config.history_seconds * 1000) * 1000)
        oldest = min(oldest, self.pinned.get(record.number, oldest))
        if self.at < oldest:
            raise InvalidInput(
                f"collection {record.name}: the state at {self.at} is no longer kept; the oldest is {oldest}",
                field="as_of",
                remedy="read a later state, or keep more with history_seconds",
                oldest=oldest,
            )

    def row(self, compiled: Compiled, id: bytes) -> Row | None:
        """The living version at this view's time."""
        raw = self.reader.get(compiled.docs + id)
        if raw is not None:
            row = row_of(raw)
            if self.at is None or row.stamp <= self.at:
                return None if row.expired(self.now_ms) else row
        if self.at is None:
            return None
        key = compiled.past + id
        found = self.reader.scan(key + pack_long(self.at + 1), key + layout.END, limit=1)
        if not found:
            return None
        row = row_of(found[0][1])
        return None if row.stamp > self.at or row.expired(self.now_ms) else row

    def versions(self, collection: str, id: Id, limit: int = 100) -> list[Version]:
        """What is kept of a document's versions, newest first."""
        compiled = self.collection(collection)
        raw_id = id_bytes(id)
        if compiled is None:
            return []
        found: list[Version] = []
        raw = self.reader.get(compiled.docs + raw_id)
        if raw is not None and not row_of(raw).expired(self.now_ms):
            found.append(Version(document(id, row_of(raw)), None))
        key = compiled.past + raw_id
        for past_key, past in self.reader.scan(key, key + layout.END, limit=limit, reverse=True):
            found.append(Version(document(id, row_of(past)), unpack_long(past_key[-8:])))
        for version in found:
            self.usage.read(len(version.document.value_bytes))
        return found[:limit]

    # in order

    def rows(self, compiled: Compiled, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, Row | None]]:
        """(id, row) of documents with low <= id < high, by id; None for what is there and was looked at, but does not live
        at this view's time."""
        present = self._scan(compiled.docs, low, high, reverse)
        for key, raw in (
            present if self.at is None else _in_order(present, self._past(compiled.past, low, high, reverse), reverse)
        ):
            row = row_of(raw) if raw is not None else None
            if row is not None and (row.expired(self.now_ms) or (self.at is not None and row.stamp > self.at)):
                row = None
            yield key[6:], row

    def entries(self, index: CompiledIndex, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, Entry | None]]:
        """(position, entry) with low <= position < high, by position; None as in `rows`."""
        present = ((key[:6] + found.position, found) for key, found in self._present(index, low, high, reverse))
        at = self.at
        if at is None:
            merged: Iterator[tuple[bytes, Any]] = present
        else:
            # Ended entries carry the id in their key even where present ones of a unique index do not: one order for both.
            ended = self._past(index.past, low, high, reverse)
            past = ((key, None if raw is None else entry_of(key[6:], raw)) for key, raw in ended)
            merged = _in_order(present, past, reverse)
        for key, entry in merged:
            position = key[6:]
            if position >= high or position < low:  # a unique entry's position is longer than its key
                continue
            self.usage.entry_bytes += len(position)
            yield position, None if entry is None or (at is not None and entry.stamp > at) else entry

    def _present(self, index: CompiledIndex, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, Entry]]:
        for key, raw in self._scan(index.prefix, low, high, reverse):
            yield key, entry_of(key[6:], raw)

    def _past(self, prefix: bytes, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes | None]]:
        """For each thing that has a past: the row that stood at this view's time, or None. Keys come without their ends.

        Goes from thing to thing, however many versions each has left behind."""
        assert self.at is not None
        start, end = prefix + low, prefix + high
        seen = b""
        while rows := self.reader.scan(start, end, limit=_READ_AHEAD, reverse=reverse):
            for key, _ in rows:
                base = key[:-8]
                if base == seen:
                    continue
                seen = base
                found = self.reader.scan(base + pack_long(self.at + 1), base + layout.END, limit=1)
                yield base, found[0][1] if found else None
            if reverse:
                end = seen + pack_long(0)
            else:
                start = seen + layout.END

    def _scan(self, prefix: bytes, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        start, end = prefix + low, prefix + high
        while True:
            rows = self.reader.scan(start, end, limit=_READ_AHEAD, reverse=reverse)
            yield from rows
            if len(rows) < _READ_AHEAD:
                return
            if reverse:
                end = rows[-1][0]
            else:
                start = rows[-1][0] + b"\x00"


def _in_order(
    left: Iterator[tuple[bytes, Any]], right: Iterator[tuple[bytes, Any]], reverse: bool
) -> Iterator[tuple[bytes, Any]]:
    """Two sorted streams as one, by what follows the six bytes of kind and number."""
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        if (one[0][6:] > other[0][6:]) == reverse:
            yield one
            one = next(left, None)
        else:
            yield other
            other = next(right, None)
    if one is not None:
        yield one
        yield from left
    if other is not None:
        yield other
        yield from right


def document(id: Id, row: Row) -> Document:
    return Document(id, row.version, row.body, row.stamp // 1000, row.stamp, row.created // 1000, row.expires_at_ms or None)


def read_id(raw: bytes) -> Id:
    return decode_id(raw)


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")


def id_bytes(id: Id) -> bytes:
    """The id as part of a key. Raises `InvalidInput`, `LimitExceeded` (document_id_bytes)."""
    if isinstance(id, str):
        plain = id.isascii() and id.isprintable()
        if not id or id in (".", "..") or not (plain or not (_CONTROL.search(id) or _SURROGATES.search(id))):
            raise InvalidInput(
                f"document id {id[:64]!r}: must be a text without control characters, neither empty nor '.' nor '..'",
                field="id",
            )
        raw = encode_id(id)
        if len(raw) - 2 > _ID_BYTES:
            raise exceeded("document_id_bytes", len(raw) - 2, "document id")
        return raw
    if not isinstance(id, tuple) or not 1 <= len(id) <= LIMITS["index_terms"].default:
        raise InvalidInput("a document's id is a text, or a tuple of one to eight texts, numbers and bytes", field="id")
    raw = encode_id(id)
    if len(raw) > LIMITS["index_key_bytes"].default:
        raise exceeded("index_key_bytes", len(raw), "document id")
    return raw
