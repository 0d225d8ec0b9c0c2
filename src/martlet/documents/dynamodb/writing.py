"""One item's write: what was asked (`Write`), and its effect in a transaction (`apply`): the item, its entries in indexes, its
expiry, what the table holds, and its change record, all at once."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol

import msgspec

from martlet.documents.dynamodb.capacity import Capacity, write_units
from martlet.documents.dynamodb.expressions import values
from martlet.documents.dynamodb.failures import condition_failed, invalid, validation
from martlet.documents.dynamodb.items import (
    ITEM_BYTES,
    check_index_keys,
    check_item_keys,
    check_key,
    item_size,
)
from martlet.documents.dynamodb.tables import Index, Item, Table, pack, pack_stats, unpack, unpack_stats
from martlet.documents.transaction import TOPIC
from martlet.store import Tx

__all__ = ["DATABASE", "Condition", "Done", "Update", "Write", "apply", "expire", "expiry_key", "second_of", "store_item"]

DATABASE: Final = "aws:dynamodb"  # no app and no database of documents has a colon in its name
_ENCODE: Final = msgspec.json.Encoder().encode
_FIVE_YEARS: Final = 5 * 366 * 86_400  # an older time to live is no time to live: developer guide, "Using TTL"
_SECONDS_MOST: Final = 1 << 62


class Condition(Protocol):
    """What must hold of the item that is there; a missing one has no attributes."""

    def holds(self, item: Item) -> bool: ...


class Update(Protocol):
    """What an update does."""

    heads: frozenset[str]  # attributes of the item that it names as its targets
    makes: bool  # whether an item that is not there comes to be by it

    def apply(self, item: Item) -> Item: ...
    def shown(self, item: Item) -> Item:
        """Its targets, as they are in `item`."""


class Write(msgspec.Struct):
    """What was asked. `kind`: "put", "update", "delete", "check"."""

    kind: str
    table: str
    item: Item  # of a put; else the key
    condition: Condition | None = None
    check_paths: Callable[[Table], None] | None = None  # whether the expressions' paths are right for the table
    update: Update | None = None
    returns: str = "NONE"
    on_failure: str = "NONE"
    size: int = 0  # of a put's item


class Done(msgspec.Struct):
    """What came of it."""

    before: Item | None
    after: Item | None
    capacity: Capacity
    expires: bool  # whether it set a time to live
    size: int = 0  # of the item after it

    def returned(self, write: Write) -> Item | None:
        """The answer's Attributes."""
        wanted = write.returns
        if wanted == "NONE":
            return None
        if wanted == "ALL_OLD":
            return self.before
        if wanted == "ALL_NEW":
            return self.after
        item = self.before if wanted == "UPDATED_OLD" else self.after
        return (write.update.shown(item) if item is not None and write.update is not None else None) or None


def apply(tx: Tx, table: Table, write: Write) -> Done:
    """Do it, if its condition holds. Raises the service's errors; then the transaction must not be kept."""
    if write.kind == "put":
        check_item_keys(table, write.item)
    else:
        check_key(table, write.item)
    if write.update is not None:
        _check_not_key(table, write.update)
    if write.check_paths is not None:
        write.check_paths(table)
    key = table.key(write.item)
    raw = tx.get(key)
    before, before_size = unpack(raw) if raw is not None else (None, 0)
    if write.condition is not None and not write.condition.holds(before or {}):
        raise condition_failed(before if write.on_failure == "ALL_OLD" else None)
    if write.kind == "check":
        capacity = Capacity()
        capacity.table = write_units(before_size)
        return Done(before, before, capacity, False)
    if write.kind == "put":
        after: Item | None = write.item
        size = write.size
    elif write.kind == "delete":
        after, size = None, 0
    else:
        after = _updated(table, write, before)
        size = item_size(after) if after is not None else 0
        if size > ITEM_BYTES:
            raise validation("Item size to update has exceeded the maximum allowed size")
    capacity = store_item(tx, table, key, raw, before, before_size, after, size)
    return Done(before, after, capacity, bool(table.ttl and after and second_of(table, after)), size)


def _check_not_key(table: Table, update: Update) -> None:
    for name in table.keys:
        if name in update.heads:
            raise invalid(f"Cannot update attribute {name}. This attribute is part of the key")


def _updated(table: Table, write: Write, before: Item | None) -> Item | None:
    if write.update is None:
        return before if before is not None else dict(write.item)
    if before is None and not write.update.makes:
        return None  # nothing is taken away from nothing
    after = write.update.apply(before if before is not None else dict(write.item))
    check_index_keys(table, after, before if before is not None else write.item)
    return after


def store_item(
    tx: Tx,
    table: Table,
    key: bytes,
    raw: bytes | None,
    before: Item | None,
    before_size: int,
    after: Item | None,
    size: int,
    operation: str = "",
) -> Capacity:
    """Put `after` in the place of `before`; either may be None. Returns the capacity that this takes."""
    capacity = Capacity()
    capacity.table = write_units(before_size, size)
    if before is None and after is None:
        return capacity
    new = pack(after, size) if after is not None else None
    if new == raw or (before is not None and after is not None and same(before, after)):
        return capacity
    if new is None:
        tx.delete(key)
    else:
        tx.put(key, new)
    _count(tx, table.stats_key, (after is not None) - (before is not None), size - before_size)
    if table.indexes:
        own = table.own(after if after is not None else before or {})
        for index in table.indexes:
            _enter(tx, index, own, before, before_size, after, size, capacity)
    if table.ttl:
        _note_expiry(tx, table, key, before, after)
    if table.stream is not None:
        _record(tx, table, key, before, before_size, after, size, operation)
    return capacity


def same(before: Item, after: Item) -> bool:
    """Whether two items are equal: the members of sets have no order."""
    return before == after or (
        len(before) == len(after) and all(name in before and values.equals(before[name], after[name]) for name in after)
    )


def _count(tx: Tx, key: bytes, items: int, size: int) -> None:
    if items or size:
        old_items, old_size = unpack_stats(tx.get(key))
        tx.put(key, pack_stats(old_items + items, old_size + size))


def _enter(
    tx: Tx,
    index: Index,
    own: bytes,
    before: Item | None,
    before_size: int,
    after: Item | None,
    size: int,
    capacity: Capacity,
) -> None:
    """Change the item's entry in an index from what it was to what it must be. While the index is built an entry may not be
    there yet: taking it away is no loss, and what is put is what the build would put."""
    old_key = index.key(before, own) if before is not None else None
    new_key = index.key(after, own) if after is not None else None
    if old_key is None and new_key is None:
        return
    old = index.project(before) if before is not None and old_key is not None else None
    new = index.project(after) if after is not None and new_key is not None else None
    if old_key == new_key and old == new:
        return
    old_size = 0 if old is None else before_size if index.everything else item_size(old)
    new_size = 0 if new is None else size if index.everything else item_size(new)
    if old_key == new_key:
        units = write_units(old_size, new_size)
    else:
        units = (write_units(old_size) if old is not None else 0.0) + (write_units(new_size) if new is not None else 0.0)
    capacity.index(index.name, index.is_global, units)
    there = old_key is not None and (index.active or tx.get(old_key) is not None)
    if old_key is not None and old_key != new_key:
        tx.delete(old_key)
    if new_key is not None and new is not None:
        tx.put(new_key, pack(new, new_size))
    _count(tx, index.stats_key, (new is not None) - there, new_size - (old_size if there else 0))


# --- time to live


def second_of(table: Table, item: Item) -> int:
    """When the item expires, in seconds since the epoch; 0: never."""
    value = item.get(table.ttl)
    text = value.get("N") if value is not None else None
    if text is None:
        return 0
    try:
        second = int(Decimal(text))
    except InvalidOperation:
        return 0
    return second if 0 < second < _SECONDS_MOST else 0


def expiry_key(table: Table, key: bytes, second: int) -> bytes:
    return b"Ye" + second.to_bytes(8, "big") + table.record.ttl_number.to_bytes(4, "big") + key[2:]


def _note_expiry(tx: Tx, table: Table, key: bytes, before: Item | None, after: Item | None) -> None:
    old = second_of(table, before) if before is not None else 0
    new = second_of(table, after) if after is not None else 0
    if old == new:
        return
    if old:
        tx.delete(expiry_key(table, key, old))
    if new:
        tx.put(expiry_key(table, key, new), table.name.encode())


def expire(tx: Tx, table: Table, key: bytes, second: int) -> bool:
    """Remove an item whose time has come; False if it is another's by now."""
    raw = tx.get(key)
    if raw is None:
        return False
    before, size = unpack(raw)
    if second_of(table, before) != second or second < tx.now_ms // 1000 - _FIVE_YEARS:
        return False
    store_item(tx, table, key, raw, before, size, None, 0, "expire")
    return True


# --- the change record


def _record(
    tx: Tx,
    table: Table,
    key: bytes,
    before: Item | None,
    before_size: int,
    after: Item | None,
    size: int,
    operation: str,
) -> None:
    """An entry like those of other documents (`documents.Change`), and beside it what a stream's record needs."""
    assert table.stream is not None
    view = table.stream.view
    keys = table.key_of(after if after is not None else before or {})
    body: dict[str, Any] = {
        "operation": operation or ("delete" if after is None else "put"),
        "database": DATABASE,
        "collection": table.name,
        "id": keys,
        "version": 1,
        "ts": tx.now_ms * 1000,
        "event": "INSERT" if before is None else "REMOVE" if after is None else "MODIFY",
    }
    told = item_size(keys)
    if after is not None and view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
        body["value"] = after
        told += size
    if before is not None and view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
        body["old"] = before
        told += before_size
    body["size"] = told
    tx.append(TOPIC, key, _ENCODE(body))
