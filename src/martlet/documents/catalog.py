"""Databases, collections and indexes as records; what they say, compiled for use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from martlet.documents.layout import collection_key, entry_value, numbered
from martlet.documents.order import encode_term, invert
from martlet.documents.schema import OnDelete, Schema, SchemaRules
from martlet.documents.values import dumps, field, path_of
from martlet.errors import InvalidInput
from martlet.limits import LIMITS, exceeded
from martlet.store import Reader

__all__ = ["Catalog", "CollectionConfig", "CollectionRecord", "DatabaseRecord", "IndexConfig", "IndexRecord", "Term"]

DAY_SECONDS: Final = 86_400
_ENTRIES: Final = LIMITS["index_entries"].default
_KEY: Final = LIMITS["index_key_bytes"].default
_NESTED: Final = (list, dict, frozenset)  # equal ones may hold 1 here and true there
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One term of an index. `path`: "address.city"; a last "[]" ("tags[]") takes each value of an array."""

    path: str
    descending: bool = False


class IndexConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A declared index. `values`: paths kept in the entry, so that a query for them alone reads no document. `sparse`: no
    entry for a document that lacks (or has null for) one of the terms. `unique`: entries with a null are not compared."""

    terms: tuple[Term, ...]
    values: tuple[str, ...] = ()
    unique: bool = False
    sparse: bool = False


class IndexRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An index as it stands. `since`: the stamp from which on it knows history. `reason`: why a build failed."""

    name: str
    number: int
    config: IndexConfig
    status: Literal["building", "ready", "failed"] = "ready"
    since: int = 0
    reason: str = ""
    hidden: bool = False  # made for a reference


class Inbound(msgspec.Struct, frozen=True):
    """A reference to this collection's documents, kept with the collection that is referred to."""

    collection: str
    index: str
    field: str
    on_delete: OnDelete


class CollectionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What its owner says of a collection. `history_seconds`: how long versions that ended are kept; 0: not at all, and then
    no reads of the past. `ttl_field`: a field with the second (or time) at which the document expires. `changes`: what the
    change feed carries of a document: its id, its new value, or its new and its old one."""

    schema: Schema = Schema()
    indexes: dict[str, IndexConfig] = {}
    history_seconds: int = DAY_SECONDS
    ttl_field: str = ""
    changes: Literal["keys", "new", "new_and_old"] = "new"


class CollectionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A collection as it stands."""

    database: str
    name: str
    number: int
    created: int  # stamp
    config: CollectionConfig = CollectionConfig()
    indexes: tuple[IndexRecord, ...] = ()
    inbound: tuple[Inbound, ...] = ()
    history_since: int = 0  # stamp from which on history is whole


class DatabaseRecord(msgspec.Struct, frozen=True):
    """A database. `path`: "app", or "app/child" for a database inside another."""

    path: str
    created: int  # stamp


class CompiledIndex:
    """An index, ready to make entries."""

    __slots__ = (
        "_any_multiple",
        "_multiple",
        "_paths",
        "_seen",
        "_sparse",
        "_terms",
        "descending",
        "prefix",
        "record",
        "unique",
        "values",
    )

    def __init__(self, record: IndexRecord) -> None:
        self.record = record
        self.prefix = numbered(b"Di", record.number)
        self.unique = record.config.unique
        self._paths = tuple(path_of(term.path.removesuffix("[]")) for term in record.config.terms)
        self._multiple = tuple(term.path.endswith("[]") for term in record.config.terms)
        self._any_multiple = any(self._multiple)
        self._sparse = record.config.sparse
        self.descending = tuple(term.descending for term in record.config.terms)
        self._terms = tuple(zip(self._paths, self.descending, strict=True))
        self.values = {name: path_of(name) for name in record.config.values}
        self._seen = (*self._paths, *self.values.values())

    @property
    def past(self) -> bytes:
        """The prefix of entries that ended."""
        return numbered(b"Dx", self.record.number)

    def entries(self, value: Any, id: bytes, stamp: int, expires_at_ms: int = 0) -> dict[bytes, bytes]:
        """Rows of this index for a document: key -> value. Covered values end with the time at which it expires.

        Raises `InvalidInput` for a term that is no scalar, `LimitExceeded` (index_entries, index_key_bytes)."""
        if self._any_multiple:
            return self._many(value, id, stamp, expires_at_ms)
        row = self.prefix
        compared = self.unique
        for path, descending in self._terms:
            item = field(value, path)
            if item is None:
                if self._sparse:
                    return {}
                compared = False
            row += self.term(item, descending)
        covered = self._covered(value, expires_at_ms) if self.values else b""
        return {self._key(row, id, compared): entry_value(stamp, id, compared, covered)}

    def _many(self, value: Any, id: bytes, stamp: int, expires_at_ms: int) -> dict[bytes, bytes]:
        rows = [self.prefix]
        compared = self.unique
        for (path, descending), multiple in zip(self._terms, self._multiple, strict=True):
            found = field(value, path)
            group = found if multiple and isinstance(found, list | frozenset) else (found,)
            if len(group) > _ENTRIES:
                raise exceeded("index_entries", len(group), f"index {self.record.name}")
            terms: list[bytes] = []
            for item in group:
                if item is None:
                    if self._sparse:
                        continue
                    compared = False
                terms.append(self.term(item, descending))
            rows = [row + term for row in rows for term in terms]
        covered = self._covered(value, expires_at_ms) if self.values else b""
        entry = entry_value(stamp, id, compared, covered)
        return {self._key(row, id, compared): entry for row in rows}

    def _key(self, row: bytes, id: bytes, compared: bool) -> bytes:
        if len(row) + len(id) > _KEY:
            raise exceeded("index_key_bytes", len(row) + len(id), f"index {self.record.name}")
        return row if compared else row + id

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values certainly have the same entries; seen without making them."""
        for path in self._seen:
            left, right = field(one, path), field(other, path)
            if type(left) is not type(right) or left != right or type(left) in _NESTED:
                return False
        return True

    def term(self, value: Any, descending: bool) -> bytes:
        try:
            term = encode_term(value)
        except InvalidInput as error:
            raise InvalidInput(f"index {self.record.name}: {error.message}", field=self.record.name) from None
        return invert(term) if descending else term

    def _covered(self, value: Any, expires_at_ms: int) -> bytes:
        return dumps([*(field(value, path) for path in self.values.values()), expires_at_ms])


class Compiled:
    """A collection, ready for work."""

    __slots__ = ("by_name", "docs", "expiry", "indexes", "past", "record", "references", "rules", "ttl")

    def __init__(self, record: CollectionRecord) -> None:
        self.record = record
        self.docs = numbered(b"Dd", record.number)
        self.past = numbered(b"Dh", record.number)
        self.indexes = tuple(CompiledIndex(index) for index in record.indexes if index.status != "failed")
        self.by_name = {index.record.name: index for index in self.indexes}
        schema = record.config.schema
        self.rules = SchemaRules(schema) if schema != Schema() else None
        self.references = self.rules.references() if self.rules is not None else []
        self.ttl = path_of(record.config.ttl_field) if record.config.ttl_field else ()


_ENCODE: Final = msgspec.json.Encoder().encode
_COLLECTION: Final = msgspec.json.Decoder(CollectionRecord)


class Catalog:
    """Records by name, compiled.

    `generation` None: the stored record is read each time, and what was compiled from equal bytes is used again. Else this
    process is the only one that writes to the store, and a record that was read once holds until one is `changing`, or until
    the store says that it dropped transactions (its generation grows)."""

    _MOST = 4096

    def __init__(self, generation: Callable[[], int] | None = None) -> None:
        self._compiled: dict[bytes, Compiled] = {}
        self._generation = generation
        self._known: dict[tuple[str, str], Compiled] = {}
        self._known_at = -1
        self._changes = 0  # under way

    def collection(self, reader: Reader, database: str, name: str) -> Compiled | None:
        """The collection, or None."""
        kept = self._generation is not None and not self._changes
        if kept and self._generation is not None:
            now = self._generation()
            if now != self._known_at:
                self._known.clear()
                self._known_at = now
            found = self._known.get((database, name))
            if found is not None:
                return found
        raw = reader.get(collection_key(database, name))
        if raw is None:
            return None
        found = self.compiled(raw)
        if kept:
            if len(self._known) > self._MOST:
                self._known.clear()
            self._known[database, name] = found
        return found

    def changing(self) -> None:
        """A transaction is about to change a record: until it is `settled`, transactions and snapshots differ, and each reads
        its own."""
        self._changes += 1
        self._known.clear()

    def settled(self) -> None:
        """That transaction is durable, or nothing of it is kept."""
        self._changes -= 1
        self._known.clear()

    def compiled(self, raw: bytes) -> Compiled:
        found = self._compiled.get(raw)
        if found is None:
            found = self._compiled[raw] = Compiled(_COLLECTION.decode(raw))
            if len(self._compiled) > self._MOST:
                self._compiled.clear()
        return found


def packed(record: CollectionRecord) -> bytes:
    return _ENCODE(record)


@lru_cache(maxsize=4096)
def check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{field} {name[:64]!r}: allowed are 1 to 64 of A-Z, a-z, 0-9, _ and -", field=field)


@lru_cache(maxsize=4096)
def check_path(path: str) -> None:
    """A database's path: names joined by slashes."""
    names = path.split("/")
    if len(names) > LIMITS["database_depth"].default:
        raise exceeded("database_depth", len(names), f"database {path[:64]!r}")
    for name in names:
        check_name("database", name)


def check_config(config: CollectionConfig) -> None:
    """Raises `InvalidInput` or `LimitExceeded` for what no collection can be."""
    if len(config.indexes) > LIMITS["collection_indexes"].default:
        raise exceeded("collection_indexes", len(config.indexes), "collection")
    most = LIMITS["history_days"].default
    if not 0 <= config.history_seconds <= most * DAY_SECONDS:
        raise exceeded("history_days", config.history_seconds // DAY_SECONDS, "history_seconds")
    SchemaRules(config.schema)
    if config.ttl_field:
        path_of(config.ttl_field)
    for name, index in config.indexes.items():
        check_name("index", name)
        _check_index(name, index)


def _check_index(name: str, index: IndexConfig) -> None:
    most = LIMITS["index_terms"].default
    if not index.terms:
        raise InvalidInput(f"index {name} has no terms", field=name)
    for group in (index.terms, index.values):
        if len(group) > most:
            raise exceeded("index_terms", len(group), f"index {name}")
    if sum(term.path.endswith("[]") for term in index.terms) > 1:
        raise InvalidInput(f"index {name} has more than one multi-value term", field=name)
    for term in index.terms:
        path_of(term.path.removesuffix("[]"))
    for path in index.values:
        path_of(path)


def wanted_indexes(config: CollectionConfig) -> Iterator[tuple[str, IndexConfig, bool]]:
    """(name, index, hidden): the declared ones, and one for each reference."""
    for name, index in config.indexes.items():
        yield name, index, False
    for name, declared in config.schema.fields.items():
        if declared.collection:
            path = f"{name}[]" if declared.type.startswith("array<") else name
            yield reference_index(name), IndexConfig((Term(path),), sparse=True), True


def reference_index(field: str) -> str:
    return f"$ref:{field}"
