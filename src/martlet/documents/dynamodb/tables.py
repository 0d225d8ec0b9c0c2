"""Tables as they are recorded, and as they are used: keys, indexes, where their rows lie.

Keys of rows begin with "Y":
    Yt <name>                                        table                          -> TableRecord (JSON)
    Yi <table> <partition> <sort key>                item                           -> size (4 bytes), item (msgpack)
    Yx <index> <partition> <sort key> <own place>    entry of an index              -> size, projected item; nothing for ALL
    Ys <table or index>                              what it holds                  -> items, bytes
    Ye <second> <ttl> <table> <rest of item's key>   when an item expires
    Yb <index or ttl> <table's name>                 a build and how far it has come -> last key
    Yz <number>                                      what is being removed
    Yk <token> / Yu <at_ms> <token>                  request tokens, and when they may be forgotten
    Yn                                               the last number given to a table, an index or a TTL
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb import ordering
from martlet.store import Reader

__all__ = ["Catalog", "Index", "IndexRecord", "Item", "StreamRecord", "Table", "TableRecord", "pack", "unpack"]

Item = dict[str, dict[str, Any]]
_RANGED_MOST: Final = 2_300  # what 1,024 bytes may take, with end marks
HASH_BYTES: Final = 2_048
RANGE_BYTES: Final = 1_024
_SIZE: Final = struct.Struct(">I")
_STATS: Final = struct.Struct(">qq")
_PACK: Final = msgspec.msgpack.Encoder().encode
_UNPACK: Final = msgspec.msgpack.Decoder().decode


class IndexRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secondary index. `kind`: "global" or "local"; `status`: CREATING, ACTIVE or DELETING."""

    name: str
    number: int
    kind: str
    hash: tuple[str, ...]
    range: tuple[str, ...] = ()
    projection: str = "ALL"
    attributes: tuple[str, ...] = ()
    status: str = "ACTIVE"
    read_units: int = 0
    write_units: int = 0
    settings: dict[str, Any] = {}  # what is only described: OnDemandThroughput, WarmThroughput


class StreamRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stream of a table: open, or closed. Its records are in the log after entry `after` up to `until`."""

    label: str
    view: str
    after: int
    created_at_ms: int
    until: int = 0  # 0: it is open
    closed_at_ms: int = 0


class TableRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table as it is stored."""

    name: str
    number: int
    id: str
    created_at_ms: int
    types: dict[str, str]  # of key attributes
    hash: str
    range: str = ""
    indexes: tuple[IndexRecord, ...] = ()
    billing: str = "PROVISIONED"
    billing_named: bool = False  # whether a description names it
    on_demand_at_ms: int = 0
    read_units: int = 0
    write_units: int = 0
    increased_at_ms: int = 0
    decreased_at_ms: int = 0
    streams: tuple[StreamRecord, ...] = ()
    tags: dict[str, str] = {}
    ttl_attribute: str = ""
    ttl_number: int = 0  # 0: no time to live
    protected: bool = False
    table_class: str = ""
    settings: dict[str, Any] = {}  # what is only described: SSEDescription, OnDemandThroughput, WarmThroughput
    policy: str = ""  # the table's resource-based policy, a document
    policy_revision: str = ""
    recovery_days: int = 0  # point-in-time recovery, as it was asked for; 0: not at all


def pack(item: Item, size: int) -> bytes:
    return _SIZE.pack(size) + _PACK(item)


def unpack(raw: bytes) -> tuple[Item, int]:
    """(item, size as DynamoDB counts it)"""
    return _UNPACK(memoryview(raw)[4:]), _SIZE.unpack_from(raw)[0]


def pack_stats(items: int, size: int) -> bytes:
    return _STATS.pack(items, size)


def unpack_stats(raw: bytes | None) -> tuple[int, int]:
    """(items, bytes)"""
    if raw is None:
        return 0, 0
    items, size = _STATS.unpack(raw)
    return items, size


def numbered(kind: bytes, number: int) -> bytes:
    return kind + number.to_bytes(4, "big")


class Index:
    """An index in use."""

    __slots__ = (
        "active",
        "composite",
        "everything",
        "hash",
        "is_global",
        "keys",
        "name",
        "prefix",
        "projected",
        "range",
        "record",
        "stats_key",
        "types",
        "unique_keys",
    )

    def __init__(self, record: IndexRecord, table: TableRecord) -> None:
        self.record = record
        self.name = record.name
        self.is_global = record.kind == "global"
        self.active = record.status == "ACTIVE"
        self.hash = record.hash
        self.range = record.range
        self.keys = record.hash + record.range
        self.types = {name: table.types[name] for name in self.keys}
        self.composite = len(record.hash) > 1 or len(record.range) > 1
        self.prefix = numbered(b"Yx", record.number)
        self.stats_key = numbered(b"Ys", record.number)
        self.everything = record.projection == "ALL"
        own = (table.hash, table.range) if table.range else (table.hash,)
        self.unique_keys = tuple(dict.fromkeys((*self.keys, *own)))  # what a starting key has
        chosen = record.attributes if record.projection == "INCLUDE" else ()
        self.projected = frozenset((*self.keys, *own, *chosen))

    def key(self, item: Item, own: bytes) -> bytes | None:
        """Where the item's entry lies; None if it has none. `own`: see `Table.own`."""
        types = self.types
        for name in self.keys:
            value = item.get(name)
            if value is None or types[name] not in value or not self._fits(name, types[name], value[types[name]]):
                return None
        hashed = ordering.partition(tuple((types[name], item[name][types[name]]) for name in self.hash))
        ranged = b"".join(ordering.part(types[name], item[name][types[name]]) for name in self.range)
        if len(ranged) > _RANGED_MOST:
            return None
        return self.prefix + hashed + ranged + own

    def _fits(self, name: str, kind: str, content: Any) -> bool:
        """Whether a value can be a key: of those that were there before the index not all can."""
        if kind == "N":
            return True
        most = HASH_BYTES if name in self.hash else RANGE_BYTES
        return 0 < len(content) <= most and (kind == "B" or content.isascii() or len(content.encode()) <= most)

    def project(self, item: Item) -> Item:
        projected = self.projected
        return item if self.everything else {name: value for name, value in item.items() if name in projected}


class Table:
    """A table in use: its record, compiled."""

    __slots__ = (
        "by_name",
        "hash",
        "hash_type",
        "indexes",
        "key_attributes",
        "keys",
        "name",
        "prefix",
        "range",
        "range_type",
        "record",
        "stats_key",
        "stream",
        "ttl",
        "types",
    )

    def __init__(self, record: TableRecord) -> None:
        self.record = record
        self.name = record.name
        self.hash = record.hash
        self.hash_type = record.types[record.hash]
        self.range = record.range
        self.range_type = record.types[record.range] if record.range else ""
        self.keys = (record.hash, record.range) if record.range else (record.hash,)
        self.types = record.types
        self.prefix = numbered(b"Yi", record.number)
        self.stats_key = numbered(b"Ys", record.number)
        # One that goes takes no more entries: removing its rows is not raced by writes.
        self.indexes = tuple(Index(index, record) for index in record.indexes if index.status != "DELETING")
        self.by_name = {index.name: index for index in self.indexes}
        last = record.streams[-1] if record.streams else None
        self.stream = last if last is not None and not last.until else None
        self.ttl = record.ttl_attribute if record.ttl_number else ""
        self.key_attributes = frozenset(self.keys)

    def key(self, item: Item) -> bytes:
        """Where the item lies; its key attributes have been checked."""
        hashed = self.prefix + ordering.partition(((self.hash_type, item[self.hash][self.hash_type]),))
        if not self.range:
            return hashed
        return hashed + ordering.plain(self.range_type, item[self.range][self.range_type])

    def own(self, item: Item) -> bytes:
        """The end of the item's entries in indexes."""
        hashed = ordering.plain(self.hash_type, item[self.hash][self.hash_type])
        ranged = ordering.plain(self.range_type, item[self.range][self.range_type]) if self.range else b""
        return ordering.own_place(hashed, ranged)

    def key_of(self, item: Item) -> Item:
        return {name: item[name] for name in self.keys}


_RECORD: Final = msgspec.json.Decoder(TableRecord).decode
_ENCODE: Final = msgspec.json.Encoder().encode


def table_key(name: str) -> bytes:
    return b"Yt" + name.encode()


def packed(record: TableRecord) -> bytes:
    return _ENCODE(record)


class Catalog:
    """Tables by name, compiled. While no definition is being changed, and the store has dropped nothing (`generation`), what
    was read once holds; `generation` None: other processes write too, so the record is read each time."""

    _MOST: Final = 4096

    def __init__(self, generation: Callable[[], int] | None) -> None:
        self._generation = generation
        self._known: dict[str, Table] = {}
        self._compiled: dict[bytes, Table] = {}
        self._known_at = -1
        self._changes = 0

    def table(self, reader: Reader, name: str) -> Table | None:
        kept = self._generation is not None and not self._changes
        if kept and self._generation is not None:
            now = self._generation()
            if now != self._known_at:
                self._known.clear()
                self._known_at = now
            found = self._known.get(name)
            if found is not None:
                return found
        raw = reader.get(table_key(name))
        if raw is None:
            return None
        table = self.compiled(raw)
        if kept:
            if len(self._known) > self._MOST:
                self._known.clear()
            self._known[name] = table
        return table

    def compiled(self, raw: bytes) -> Table:
        found = self._compiled.get(raw)
        if found is None:
            if len(self._compiled) > self._MOST:
                self._compiled.clear()
            found = self._compiled[raw] = Table(_RECORD(raw))
        return found

    def changing(self) -> None:
        """A record is about to change: until it is `settled`, transactions and snapshots differ, and each reads its own."""
        self._changes += 1
        self._known.clear()

    def settled(self) -> None:
        self._changes -= 1
        self._known.clear()
