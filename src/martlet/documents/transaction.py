"""Writes: one `Transaction` over many documents and collections of a database, inside one transaction of the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from martlet.documents import layout, values
from martlet.documents.catalog import (
    Catalog,
    CollectionRecord,
    Compiled,
    CompiledIndex,
    DatabaseRecord,
    Inbound,
    check_name,
    packed,
)
from martlet.documents.expressions import compile_expression
from martlet.documents.layout import Row, Stats, entry_of, numbered, pack_long, row_of, stats_of, unpack_long
from martlet.documents.order import Id, encode_term
from martlet.documents.schema import Violation
from martlet.documents.usage import Usage
from martlet.documents.view import Document, View, document, id_bytes, read_id
from martlet.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from martlet.limits import LIMITS, exceeded
from martlet.store import Tx, counter_value

__all__ = ["TOPIC", "Change", "Transaction"]

TOPIC: Final = "document"  # of the change records in the log; the entry's key is the document's row key
_WRITES: Final = LIMITS["transaction_documents"].default
_CASCADE: Final = LIMITS["cascade_documents"].default

Operation = Literal["put", "delete", "expire"]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One write, as the log has it (JSON). `value` is the new document; none for a delete. `old`: the document before, where
    the collection says so. `expire`: a delete by its time to live."""

    operation: Operation
    database: str
    collection: str
    id: Any  # text; an array of tagged values for a tuple
    version: int  # of the document after a put, of the last state before a delete
    ts: int = 0  # stamp of the transaction
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    old: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_ENCODE_CHANGE: Final = msgspec.json.Encoder().encode
_ENCODE: Final = msgspec.json.Encoder().encode


class Transaction(View):
    """Reads and writes, all at one moment. Sees its own writes. Use it inside the function given to `Documents.transact`."""

    def __init__(self, tx: Tx, catalog: Catalog, database: str, usage: Usage, pinned: Mapping[int, int] | None = None) -> None:
        super().__init__(tx, catalog, database, tx.now_ms, usage, None, pinned or {})
        self.tx = tx
        self._stamp = 0
        self._ids = 0
        self._writes = 0
        self._stats: dict[int, Stats] = {}
        self.makes = False  # whether it made a collection; then `Catalog.settled` is to be called after it
        self.has_expiry = False  # whether it set a time at which a document expires

    # documents

    def put(
        self,
        collection: str,
        id: Id | None,
        value: Any,
        *,
        expected: int | None = None,
        condition: str = "",
        parameters: Mapping[str, Any] | None = None,
        expires_at_ms: int | None = None,
    ) -> Document:
        """Write the document: JSON text as bytes, or a value (see `values`). `id` None: a new one, sortable by time.

        `expected`: the version that must be there, 0 for none. `condition`: an expression over the document as it is that
        must be true (a missing document has no fields). Raises `Conflict` (details `expected`, `version`; or `index` and
        `id` for a unique index), `PreconditionFailed`, `InvalidInput`, `LimitExceeded`, `Violation`."""
        _check_expected(expected, 0)
        compiled = self.writable(collection)
        if id is None:
            id = self._new_id(compiled)
        raw_id = id_bytes(id)
        before = self._before(compiled, raw_id)
        require(id, expected, before.version if before else 0)
        self._require_condition(id, before, condition, parameters)
        body = value if isinstance(value, bytes) else values.dumps(value)
        return self._write(compiled, id, raw_id, before, body, values.loads(body), expires_at_ms)

    def patch(
        self,
        collection: str,
        id: Id,
        *,
        merge: Any = None,
        increment: Mapping[str, int | Decimal | float] | None = None,
        expected: int | None = None,
        condition: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> Document:
        """Change a document that is there: JSON Merge Patch (RFC 7396), then numbers added at paths (nothing counts as 0).

        Raises `NotFound`, and what `put` raises."""
        compiled = self.writable(collection)
        raw_id = id_bytes(id)
        before = self._before(compiled, raw_id)
        require(id, expected, before.version if before else 0)
        if before is None:
            raise NotFound(f"there is no document {id!r} in {collection!r}")
        self._require_condition(id, before, condition, parameters)
        value = values.load(before.body)
        if merge is not None:
            value = values.merged(value, merge)
        for name, amount in (increment or {}).items():
            path = values.path_of(name)
            value = values.with_field(value, path, _sum(values.field(value, path), amount, name))
        body = values.dumps(value)
        return self._write(compiled, id, raw_id, before, body, values.loads(body), before.expires_at_ms or None)

    def delete(
        self,
        collection: str,
        id: Id,
        *,
        expected: int | None = None,
        condition: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> bool:
        """Delete the document, and by cascade those that refer to it; False if there is none. Raises `Conflict` when a
        reference restricts it, and what `put` raises."""
        _check_expected(expected, 1)
        check_name("collection", collection)
        compiled = self.collection(collection)
        raw_id = id_bytes(id)
        before = self._before(compiled, raw_id) if compiled is not None else None
        require(id, expected, before.version if before else 0)
        self._require_condition(id, before, condition, parameters)
        if compiled is None or before is None:
            return False
        self._remove_all(compiled, id, raw_id, before)
        return True

    def restore(self, collection: str, id: Id, version: int) -> Document:
        """Write a kept version of the document again, as a new one. Raises `NotFound` when that version is not kept."""
        for found in self.versions(collection, id, limit=1_000_000):
            if found.document.version == version:
                return self.put(collection, id, found.document.value_bytes)
        raise NotFound(f"version {version} of document {id!r} in {collection!r} is not kept")

    def require_version(self, collection: str, id: Id, expected: int) -> None:
        """Raises `Conflict` unless the document is at this version (0: is not there): for reads a transaction rests on."""
        _check_expected(expected, 0)
        found = self.get(collection, id)
        require(id, expected, found.version if found else 0)

    # collections

    def writable(self, name: str) -> Compiled:
        """The collection; made with default settings at its first write."""
        found = self.collection(name)
        return found if found is not None else self.catalog.compiled(self._make(name))

    def _make(self, name: str) -> bytes:
        if not self.makes:
            self.makes = True
            self.catalog.changing()
        ensure_database(self.tx, self.database, self.stamp())
        record = CollectionRecord(self.database, name, next_number(self.tx), self.stamp())
        raw = packed(record)
        self.tx.put(layout.collection_key(self.database, name), raw)
        return raw

    def stamp(self) -> int:
        """This transaction's stamp: microseconds, above every one before it."""
        if not self._stamp:
            self._stamp = next_stamp(self.tx)
        return self._stamp

    def finish(self) -> None:
        """Write what is written once for each transaction. `Documents.transact` calls it."""
        for number, stats in self._stats.items():
            self.tx.put(numbered(b"Ds", number), stats.pack())

    # one document

    def _new_id(self, compiled: Compiled) -> str:
        while True:
            id = f"{(self.stamp() << 10) + self._ids:019d}"
            self._ids += 1
            if self.reader.get(compiled.docs + id_bytes(id)) is None:
                return id

    def _before(self, compiled: Compiled, id: bytes) -> Row | None:
        """The present version; one past its time is removed on the way, as the clean-up would."""
        raw = self.reader.get(compiled.docs + id)
        if raw is None:
            return None
        row = row_of(raw)
        if row.expired(self.now_ms):
            self._remove(compiled, id, row, "expire")
            return None
        return row

    def _require_condition(self, id: Id, before: Row | None, condition: str, given: Mapping[str, Any] | None) -> None:
        if not condition:
            return
        expression = compile_expression(condition)
        self.usage.nodes += expression.nodes
        if not expression.holds(values.load(before.body) if before else {}, given):
            raise PreconditionFailed(
                f"document {id!r}: the condition does not hold: {condition[:200]}", condition=condition[:200]
            )

    def _write(
        self, compiled: Compiled, id: Id, raw_id: bytes, before: Row | None, body: bytes, value: Any, expires_at_ms: int | None
    ) -> Document:
        self._count()
        if compiled.rules is not None:
            self.usage.nodes += compiled.rules.nodes
            value = compiled.rules.apply(value, values.load)
            if compiled.rules.transforms:
                body = values.dumps(value)
            self._require_targets(compiled, value)
        if compiled.ttl:
            expires_at_ms = _second_of(values.field(value, compiled.ttl))
        stamp = self.stamp()
        stats = self.stats(compiled)
        gone = 0
        if before is None:
            if stats.deleted:
                gone = self._gone(compiled, raw_id)
            stats.documents += 1
            stats.body_bytes += len(body)
        else:
            stats.body_bytes += len(body) - len(before.body)
            self._keep(compiled, raw_id, before)
        version = before.version + 1 if before else gone + 1
        row = Row(version, stamp, before.created if before else stamp, expires_at_ms or 0, body)
        key = compiled.docs + raw_id
        self.tx.put(key, row.pack())
        self._expiry(compiled, raw_id, before, row)
        if compiled.indexes:
            self._index(compiled, raw_id, before, value, row.expires_at_ms)
        self._log(compiled, key, id, "put", version, body, before)
        self.usage.wrote(len(body))
        return document(id, row)

    def _count(self) -> None:
        self._writes += 1
        if self._writes > _WRITES:
            raise exceeded("transaction_documents", self._writes, "transaction")

    def stats(self, compiled: Compiled) -> Stats:
        number = compiled.record.number
        found = self._stats.get(number)
        if found is None:
            found = self._stats[number] = stats_of(self.reader.get(numbered(b"Ds", number)))
        return found

    def _gone(self, compiled: Compiled, id: bytes) -> int:
        """The last version of a deleted document; its row goes."""
        key = b"Dg" + compiled.docs[2:] + id
        raw = self.reader.get(key)
        if raw is None:
            return 0
        self.tx.delete(key)
        return unpack_long(raw[:8])

    def _keep(self, compiled: Compiled, id: bytes, row: Row) -> None:
        """Move a version into history, where that is kept. What began in this very transaction nobody could see."""
        if row.stamp != self.stamp() and self._keeps(compiled):
            self.tx.put(compiled.past + id + pack_long(self.stamp()), row.pack())

    def _keeps(self, compiled: Compiled) -> bool:
        return bool(compiled.record.config.history_seconds) or compiled.record.number in self.pinned

    def _expiry(self, compiled: Compiled, id: bytes, before: Row | None, after: Row | None) -> None:
        old, new = before.expires_at_ms if before else 0, after.expires_at_ms if after else 0
        if old == new:
            return
        tail = compiled.docs[2:] + id
        if old:
            self.tx.delete(b"De" + pack_long(old) + tail)
        if new:
            self.has_expiry = True
            place = f"{compiled.record.database}\x00{compiled.record.name}"
            self.tx.put(b"De" + pack_long(new) + tail, place.encode())

    def _log(
        self, compiled: Compiled, key: bytes, id: Id, operation: Operation, version: int, body: bytes, before: Row | None
    ) -> None:
        mode = compiled.record.config.changes
        change = Change(
            operation,
            compiled.record.database,
            compiled.record.name,
            id if isinstance(id, str) else msgspec.Raw(values.dumps(list(id))),
            version,
            self.stamp(),
            msgspec.Raw(body) if mode != "keys" and operation == "put" else msgspec.UNSET,
            msgspec.Raw(before.body) if mode == "new_and_old" and before is not None else msgspec.UNSET,
        )
        self.tx.append(TOPIC, key, _ENCODE_CHANGE(change))

    # index entries

    def _index(self, compiled: Compiled, id: bytes, before: Row | None, value: Any, expires_at_ms: int) -> None:
        """Change the document's entries from what they were to what they must be; `value` None: there is none any more."""
        stamp = self.stamp()
        old_value = values.load(before.body) if before is not None else None
        expiry_same = before is not None and before.expires_at_ms == expires_at_ms
        for index in compiled.indexes:
            if expiry_same and value is not None and index.same(old_value, value):
                continue
            new = index.entries(value, id, stamp, expires_at_ms) if value is not None else {}
            old = index.entries(old_value, id, stamp, before.expires_at_ms) if before is not None else {}
            if old == new:  # terms and covered values are as they were: the entries stand
                continue
            assert before is not None or not old
            for key, entry in old.items():
                if before is not None and new.get(key) != entry:
                    self._end_entry(compiled, index, key, entry, id, before)
            for key, entry in new.items():
                if old.get(key) == entry:
                    continue
                if entry[8]:
                    self._require_unique(compiled, index, key, id)
                self.tx.put(key, entry)
                self.usage.write_operations += 1

    def _end_entry(self, compiled: Compiled, index: CompiledIndex, key: bytes, entry: bytes, id: bytes, before: Row) -> None:
        """Take an entry away; kept for reads of the past where history is. One that a build has not made yet is no loss."""
        raw = self.reader.get(key)
        started = before.stamp
        if raw is not None:
            found = entry_of(key[6:], raw)
            if found.id != id:  # a unique term that is another document's: the build has not seen this one yet
                return
            started = found.stamp
            self.tx.delete(key)
            self.usage.write_operations += 1
        if started != self.stamp() and self._keeps(compiled):
            known = entry_of(key[6:], entry)
            value = layout.entry_value(started, id, False, known.covered)
            self.tx.put(index.past + known.position + pack_long(self.stamp()), value)

    def _require_unique(self, compiled: Compiled, index: CompiledIndex, key: bytes, id: bytes) -> None:
        raw = self.reader.get(key)
        if raw is None:
            return
        other = entry_of(key[6:], raw).id
        if other == id:
            return
        if self._before(compiled, other) is None:  # it was past its time, and is gone with its entries now
            return
        raise Conflict(
            f"index {index.record.name} of {compiled.record.name} is unique: document {read_id(other)!r} has the same terms",
            index=index.record.name,
            id=read_id(other),
        )

    # deletes and references

    def _require_targets(self, compiled: Compiled, value: Any) -> None:
        for name, declared in compiled.references:
            found = value.get(name)
            for target in found if isinstance(found, list) else [found]:
                if target is not None and self.get(declared.collection, target) is None:
                    raise Violation(
                        f"field {name!r} refers to document {target[:64]!r} of {declared.collection}, which is not there",
                        field=name,
                    )

    def _remove_all(self, compiled: Compiled, id: Id, raw_id: bytes, row: Row, operation: Operation = "delete") -> None:
        """Delete a document and what cascades from it. Restrictions are judged when everything to go has gone."""
        waiting = [(compiled, raw_id, row)]
        judged: list[tuple[Compiled, bytes, Inbound]] = []
        removed = 0
        while waiting:
            of, raw, found = waiting.pop()
            if self.reader.get(of.docs + raw) is None:  # reached twice
                continue
            removed += 1
            if removed > _CASCADE:
                raise exceeded("cascade_documents", removed, "delete")
            self._remove(of, raw, found, operation)
            for inbound in of.record.inbound:
                if inbound.on_delete == "restrict":
                    judged.append((of, raw, inbound))
                elif inbound.on_delete == "cascade":
                    source = self.collection(inbound.collection)
                    for referring in self._referring(source, inbound, raw):
                        assert source is not None
                        before = self._before(source, referring)
                        if before is not None:
                            waiting.append((source, referring, before))
        for of, raw, inbound in judged:
            source = self.collection(inbound.collection)
            for referring in self._referring(source, inbound, raw):
                if source is None or self._before(source, referring) is None:
                    continue
                raise Conflict(
                    f"document {read_id(raw)!r} of {of.record.name} is referred to by {inbound.field!r} of document "
                    f"{read_id(referring)!r} of {inbound.collection}, which restricts its deletion",
                    collection=inbound.collection,
                    id=read_id(referring),
                    field=inbound.field,
                )

    def _referring(self, source: Compiled | None, inbound: Inbound, raw_id: bytes) -> list[bytes]:
        if source is None:
            return []
        index = source.by_name.get(inbound.index)
        if index is None or index.record.status != "ready":
            raise Conflict(
                f"references of {inbound.collection} to this collection are being indexed; try again", index=inbound.index
            )
        term = encode_term(read_id(raw_id))
        rows = self.reader.scan(index.prefix + term, index.prefix + term + b"\xff", limit=_CASCADE + 1)
        return [entry_of(key[6:], raw).id for key, raw in rows]

    def _remove(self, compiled: Compiled, id: bytes, row: Row, operation: Operation) -> None:
        self._count()
        key = compiled.docs + id
        self._keep(compiled, id, row)
        self.tx.delete(key)
        self.tx.put(b"Dg" + compiled.docs[2:] + id, pack_long(row.version) + pack_long(self.stamp()))
        self._expiry(compiled, id, row, None)
        if compiled.indexes:
            self._index(compiled, id, row, None, 0)
        stats = self.stats(compiled)
        stats.documents -= 1
        stats.body_bytes -= len(row.body)
        stats.deleted += 1
        self._log(compiled, key, read_id(id), operation, row.version, b"", row)
        self.usage.wrote(len(row.body))

    def expire(self, compiled: Compiled, id: bytes) -> bool:
        """Remove a document that is past its time; False if it is not, any more. References that restrict do not hold
        back time."""
        raw = self.reader.get(compiled.docs + id)
        if raw is None or not row_of(raw).expired(self.now_ms):
            return False
        self._remove(compiled, id, row_of(raw), "expire")
        return True


def next_stamp(tx: Tx) -> int:
    """A new stamp: the clock's microseconds, or one more than the last where the clock has not moved on."""
    raw = tx.get(layout.META_STAMP)
    stamp = max(tx.now_ms * 1000, unpack_long(raw) + 1 if raw else 1)
    tx.put(layout.META_STAMP, pack_long(stamp))
    return stamp


def next_number(tx: Tx) -> int:
    """A number that no collection or index had before."""
    number = counter_value(tx.get(layout.META_NUMBER)) + 1
    tx.increment(layout.META_NUMBER, 1)
    return number


def ensure_database(tx: Tx, path: str, stamp: int) -> None:
    """An app's own database is there from its first use; one inside another must have been made."""
    key = layout.database_key(path)
    if tx.get(key) is not None:
        return
    if "/" in path:
        raise NotFound(f"there is no database {path!r}")
    tx.put(key, _ENCODE(DatabaseRecord(path, stamp)))


def require(id: Id, expected: int | None, found: int) -> None:
    if expected is None or expected == found:
        return
    there = f"it is at version {found}" if found else "there is no such document"
    wanted = f"version {expected}" if expected else "no document"
    raise Conflict(f"document {id!r}: expected {wanted}, but {there}", expected=expected, version=found)


def _check_expected(expected: int | None, least: int) -> None:
    if expected is not None and expected < least:
        raise InvalidInput(f"expected version {expected}: must be at least {least}", field="expected")


def _sum(found: Any, amount: Any, name: str) -> Any:
    for number in (found, amount):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float | Decimal)):
            raise InvalidInput(f"increment of {name!r}: {type(number).__name__} is no number", field=name)
    if found is None:
        return amount
    if isinstance(found, Decimal) or isinstance(amount, Decimal):
        return values.checked_decimal(Decimal(values.plain_number(found)) + Decimal(values.plain_number(amount)))
    return found + amount


def _second_of(value: Any) -> int | None:
    """Milliseconds of a TTL field: seconds since the epoch, or a time. Anything else means: never."""
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not 0 < value < 1 << 40:
        return None
    return int(value) * 1000
