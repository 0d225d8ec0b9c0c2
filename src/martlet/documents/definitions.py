"""Databases, collections and indexes: made, changed, removed. Functions over one transaction of the store."""

from __future__ import annotations

from typing import Final

import msgspec

from martlet.documents import layout
from martlet.documents.catalog import (
    Catalog,
    CollectionConfig,
    CollectionRecord,
    DatabaseRecord,
    Inbound,
    IndexRecord,
    check_config,
    check_name,
    check_path,
    packed,
    reference_index,
    wanted_indexes,
)
from martlet.documents.layout import numbered, stats_of
from martlet.documents.transaction import ensure_database, next_number, next_stamp
from martlet.errors import Conflict, NotFound
from martlet.limits import LIMITS, exceeded
from martlet.store import Reader, Tx

__all__ = [
    "create_database",
    "databases",
    "define_collection",
    "delete_collection",
    "delete_database",
    "list_collections",
]

_DATABASE: Final = msgspec.json.Decoder(DatabaseRecord).decode
_ENCODE: Final = msgspec.json.Encoder().encode
_AT_ONCE: Final = 100


def create_database(tx: Tx, path: str) -> DatabaseRecord:
    """A database; one inside another needs that. Raises `Conflict` if it is there, `NotFound` for a missing parent."""
    check_path(path)
    key = layout.database_key(path)
    if tx.get(key) is not None:
        raise Conflict(f"database {path!r} is there already", database=path)
    stamp = next_stamp(tx)
    parent = path.rpartition("/")[0]
    if parent:
        ensure_database(tx, parent, stamp)
    record = DatabaseRecord(path, stamp)
    tx.put(key, _ENCODE(record))
    return record


def databases(reader: Reader, parent: str = "") -> list[DatabaseRecord]:
    """Databases at and below `parent` ("": all), by path."""
    prefix = b"Db" + parent.encode()
    found = [_DATABASE(raw) for _, raw in reader.scan(prefix, prefix + b"\xff", limit=100_000)]
    return [record for record in found if not parent or record.path == parent or record.path.startswith(parent + "/")]


def delete_database(tx: Tx, path: str) -> None:
    """Remove the database with its collections and those inside it. Their rows are cleaned up afterwards; nobody can reach
    them from this commit on. Raises `NotFound`."""
    check_path(path)
    inside = databases(tx, path)
    if not inside:
        raise NotFound(f"there is no database {path!r}")
    for record in inside:
        for collection in list_collections(tx, record.path):
            _forget(tx, collection)
        tx.delete(layout.database_key(record.path))
        tx.delete(b"Dq" + record.path.encode())
        low = b"Dk" + record.path.encode() + b"\x00"
        for key, _ in tx.scan(low, low + b"\xff", limit=10_000):
            tx.delete(key)


def list_collections(reader: Reader, database: str) -> list[CollectionRecord]:
    """The collections of a database, by name."""
    check_path(database)
    low = layout.collections_of(database)
    most = LIMITS["database_collections"].default
    return [msgspec.json.decode(raw, type=CollectionRecord) for _, raw in reader.scan(low, low + b"\xff", limit=most)]


def define_collection(
    tx: Tx, catalog: Catalog, database: str, name: str, config: CollectionConfig, *, only_new: bool = False
) -> CollectionRecord:
    """Make the collection, or change it to `config`: new and changed indexes are built in the background, the schema holds
    for writes from now on. Raises `Conflict` (`only_new`, and it is there), `InvalidInput`, `LimitExceeded`, `NotFound`."""
    check_path(database)
    check_name("collection", name)
    check_config(config)
    stamp = next_stamp(tx)
    ensure_database(tx, database, stamp)
    found = catalog.collection(tx, database, name)
    if found is not None and only_new:
        raise Conflict(f"collection {name!r} is there already", collection=name)
    if found is None:
        there = len(tx.scan(layout.collections_of(database), layout.collections_of(database) + b"\xff", limit=100_000))
        if there >= LIMITS["database_collections"].default:
            raise exceeded("database_collections", there + 1, f"database {database}")
        before = CollectionRecord(database, name, next_number(tx), stamp)
    else:
        before = found.record
    history_since = before.history_since
    if found is not None and config.history_seconds and not before.config.history_seconds:
        history_since = stamp  # what ended before left nothing
    indexes = _indexes(tx, before, config, stamp)
    after = msgspec.structs.replace(before, config=config, indexes=indexes, history_since=history_since)
    tx.put(layout.collection_key(database, name), packed(after))
    _relate(tx, catalog, before, after)
    compiled = catalog.collection(tx, database, name)
    assert compiled is not None
    return compiled.record


def _indexes(tx: Tx, before: CollectionRecord, config: CollectionConfig, stamp: int) -> tuple[IndexRecord, ...]:
    kept = {index.name: index for index in before.indexes}
    empty = not stats_of(tx.get(numbered(b"Ds", before.number))).documents
    indexes: list[IndexRecord] = []
    for name, wanted, hidden in wanted_indexes(config):
        known = kept.pop(name, None)
        if known is not None and known.config == wanted and known.status != "failed":
            indexes.append(known)
            continue
        if known is not None:
            kept[name] = known
        number = next_number(tx)
        indexes.append(IndexRecord(name, number, wanted, "ready" if empty else "building", stamp, "", hidden))
        if not empty:
            tx.put(numbered(b"Dp", number), progress_row(before, b"", 0))
    for gone in kept.values():
        _drop(tx, gone.number)
        tx.delete(numbered(b"Dp", gone.number))
    return tuple(indexes)


def rebuild_failed(tx: Tx, record: CollectionRecord, number: int, reason: str) -> None:
    """Note that the build of an index ended without success; what it wrote goes."""
    indexes = tuple(
        msgspec.structs.replace(index, status="failed", reason=reason) if index.number == number else index
        for index in record.indexes
    )
    tx.put(layout.collection_key(record.database, record.name), packed(msgspec.structs.replace(record, indexes=indexes)))
    tx.delete(numbered(b"Dp", number))
    _drop(tx, number)


def build_ended(tx: Tx, record: CollectionRecord, number: int) -> None:
    """The index has an entry for every document: it may be queried."""
    indexes = tuple(
        msgspec.structs.replace(index, status="ready") if index.number == number else index for index in record.indexes
    )
    tx.put(layout.collection_key(record.database, record.name), packed(msgspec.structs.replace(record, indexes=indexes)))
    tx.delete(numbered(b"Dp", number))


def _relate(tx: Tx, catalog: Catalog, before: CollectionRecord, after: CollectionRecord) -> None:
    """Tell the collections that are referred to, now and before."""
    outbound: dict[str, list[Inbound]] = {}
    for name, field in after.config.schema.fields.items():
        if field.collection:
            outbound.setdefault(field.collection, []).append(Inbound(after.name, reference_index(name), name, field.on_delete))
    previous = {field.collection for field in before.config.schema.fields.values() if field.collection}
    for target in sorted(previous | outbound.keys()):
        found = catalog.collection(tx, after.database, target)
        if found is None:
            if target not in outbound:
                continue
            record = CollectionRecord(after.database, target, next_number(tx), after.created)
        else:
            record = found.record
        others = tuple(one for one in record.inbound if one.collection != after.name)
        changed = msgspec.structs.replace(record, inbound=(*others, *outbound.get(target, [])))
        tx.put(layout.collection_key(after.database, target), packed(changed))


def delete_collection(tx: Tx, catalog: Catalog, database: str, name: str) -> None:
    """Remove the collection with its documents, history and indexes. Raises `NotFound`, and `Conflict` while another
    collection refers to it."""
    check_path(database)
    check_name("collection", name)
    found = catalog.collection(tx, database, name)
    if found is None:
        raise NotFound(f"there is no collection {name!r} in {database!r}")
    for inbound in found.record.inbound:
        if inbound.collection != name:
            raise Conflict(
                f"collection {inbound.collection} refers to {name} by {inbound.field!r}", collection=inbound.collection
            )
    bare = msgspec.structs.replace(found.record, config=CollectionConfig(), inbound=())
    _relate(tx, catalog, found.record, bare)
    _forget(tx, found.record)


def _forget(tx: Tx, record: CollectionRecord) -> None:
    tx.delete(layout.collection_key(record.database, record.name))
    tx.delete(numbered(b"Ds", record.number))
    _drop(tx, record.number)
    for index in record.indexes:
        _drop(tx, index.number)
        tx.delete(numbered(b"Dp", index.number))


def _drop(tx: Tx, number: int) -> None:
    """Collections and indexes share one row of numbers, so what is to be removed is one number."""
    tx.put(numbered(b"Dz", number), b"")


def progress_row(record: CollectionRecord, position: bytes, done: int) -> bytes:
    place = f"{record.database}\x00{record.name}".encode()
    return msgspec.msgpack.encode((place, position, done))


def progress_of(raw: bytes) -> tuple[str, str, bytes, int]:
    """(database, collection, last id, documents done)."""
    place, position, done = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes, int])
    database, _, name = place.decode().partition("\x00")
    return database, name, position, done
