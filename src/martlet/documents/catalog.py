"""Databases, collections and indexes as records; what they say, compiled for use."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
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

    __slots__ = ("_multiple", "_paths", "descending", "prefix", "record", "unique", "values")

    def __init__(self, record: IndexRecord) -> None:
        self.record = record
        self.prefix = numbered(b"Di", record.number)
        self.unique = record.config.unique
        self._paths = tuple(path_of(term.path.removesuffix("[]")) for term in record.config.terms)
        self._multiple = tuple(term.path.endswith("[]") for term in record.config.terms)
        self.descending = tuple(term.descending for term in record.config.terms)
        self.values = {name: path_of(name) for name in record.config.values}

    @property
    def past(self) -> bytes:
        """The prefix of entries that ended."""
        return numbered(b"Dx", self.record.number)

    def entries(self, value: Any, id: bytes, stamp: int, expires_at_ms: int = 0) -> dict[bytes, bytes]:
        """Rows of this index for a document: key -> value. Covered values end with the time at which it expires.

        Raises `InvalidInput` for a term that is no scalar, `LimitExceeded` (index_entries, index_key_bytes)."""
        rows = [b""]
        compared = self.unique
        for path, multiple, descending in zip(self._paths, self._multiple, self.descending, strict=True):
            found = field(value, path)
            group = found if multiple and isinstance(found, list | frozenset) else (found,)
            if multiple and not group:
                return {}
            if len(group) > LIMITS["index_entries"].default:
                raise exceeded("index_entries", len(group), f"index {self.record.name}")
            terms: list[bytes] = []
            for item in group:
                if item is None:
                    if self.record.config.sparse:
                        if not multiple:
                            return {}
                        continue
                    compared = False
                terms.append(self.term(item, descending))
            rows = [row + term for row in rows for term in terms]
        covered = self._covered(value, expires_at_ms) if self.values else b""
        entry = entry_value(stamp, id, compared, covered)
        tail = b"" if compared else id
        found_rows = {self.prefix + row + tail: entry for row in rows}
        for row in found_rows:
            if len(row) + len(id) > LIMITS["index_key_bytes"].default:
                raise exceeded("index_key_bytes", len(row) + len(id), f"index {self.record.name}")
        return found_rows

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
    """Records by name. Reads the stored record each time and keeps what was compiled from equal bytes, so that it can be
    stale neither across nodes nor after a commit that was not kept."""

    _MOST = 1024

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, Compiled] = OrderedDict()

    def collection(self, reader: Reader, database: str, name: str) -> Compiled | None:
        """The collection, or None."""
        raw = reader.get(collection_key(database, name))
        return None if raw is None else self.compiled(raw)

    def compiled(self, raw: bytes) -> Compiled:
        found = self._compiled.get(raw)
        if found is None:
            found = self._compiled[raw] = Compiled(_COLLECTION.decode(raw))
            if len(self._compiled) > self._MOST:
                self._compiled.popitem(last=False)
        return found


def packed(record: CollectionRecord) -> bytes:
    return _ENCODE(record)


def check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{field} {name[:64]!r}: allowed are 1 to 64 of A-Z, a-z, 0-9, _ and -", field=field)


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
