"""What goes on in the background: indexes built over the items there are, items whose time has come, rows of what was removed.

Each step is one short transaction under a lease, so that one node at a time does it; after a crash it goes on where the last
commit left it."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from martlet.clock import Clock
from martlet.documents.chores import LOOK_AGAIN_SECONDS, Chores
from martlet.documents.dynamodb import definitions
from martlet.documents.dynamodb.items import item_size
from martlet.documents.dynamodb.tables import Catalog, Index, Table, numbered, pack, pack_stats, unpack, unpack_stats
from martlet.documents.dynamodb.writing import expire, expiry_key, second_of
from martlet.store import Reader, Store, Tx

__all__ = ["Housekeeping"]

_LEASE: Final = "dynamodb"
_LEASE_MS: Final = 10_000
_BUILD_ITEMS: Final = 200
_BUILD_BYTES: Final = 1_048_576
_REMOVE_ROWS: Final = 500
_EXPIRE_ITEMS: Final = 100


class Housekeeping(Chores):
    """Runs while there is something to do; sleeps until the next item expires or `wake`."""

    def __init__(self, store: Store, clock: Clock, catalog: Catalog, holder: str) -> None:
        super().__init__("tables")
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self._holder = holder
        self._standby_until_ms = 0

    def _delay_seconds(self) -> float:
        now_ms = self._clock.now_ms()
        due = self._store.read(lambda reader: reader.scan(b"Ye", b"Yf", limit=1))
        due_at_ms = max(_second(due[0][0]) * 1000 if due else now_ms + 60_000, self._standby_until_ms)
        return min(max(due_at_ms - now_ms + 1, 1) / 1000, LOOK_AGAIN_SECONDS)

    async def run_due(self) -> None:
        """Do everything that can be done now."""
        while self._store.read(self._anything):
            if not await self._step():
                return
            await asyncio.sleep(0)

    def _anything(self, reader: Reader) -> bool:
        now = self._clock.now_ms()
        return bool(
            reader.scan(b"Yb", b"Yc", limit=1)
            or reader.scan(b"Yz", b"Y{", limit=1)
            or reader.scan(b"Ye", _due(now), limit=1)
            or reader.scan(b"Yu", b"Yu" + now.to_bytes(8, "big"), limit=1)
        )

    async def _step(self) -> bool:
        """The most urgent thing, if this node holds the lease."""

        def run(tx: Tx) -> bool:
            if tx.lease_take(_LEASE, self._holder, _LEASE_MS) is None:
                self._standby_until_ms = tx.now_ms + _LEASE_MS  # another node does it; we look again when it may have gone
                return False
            return self._expire(tx) or self._forget_tokens(tx) or self._build(tx) or self._remove(tx)

        self._catalog.changing()
        try:
            return await self._store.transact(run)
        finally:
            self._catalog.settled()

    # expiry

    def _expire(self, tx: Tx) -> bool:
        rows = tx.scan(b"Ye", _due(tx.now_ms), limit=_EXPIRE_ITEMS)
        for key, raw in rows:
            table = self._catalog.table(tx, raw.decode())
            item = b"Yi" + key[14:]
            valid = table is not None and table.ttl and int.from_bytes(key[10:14], "big") == table.record.ttl_number
            if not valid or table is None or not item.startswith(table.prefix) or not expire(tx, table, item, _second(key)):
                tx.delete(key)
        return bool(rows)

    def _forget_tokens(self, tx: Tx) -> bool:
        rows = tx.scan(b"Yu", b"Yu" + tx.now_ms.to_bytes(8, "big"), limit=_REMOVE_ROWS)
        for key, _ in rows:
            raw = tx.get(b"Yk" + key[10:])
            if raw is not None and raw[:8] == key[2:10]:  # else: the token was used again since
                tx.delete(b"Yk" + key[10:])
            tx.delete(key)
        return bool(rows)

    # builds

    def _build(self, tx: Tx) -> bool:
        rows = tx.scan(b"Yb", b"Yc", limit=1)
        if not rows:
            return False
        key, position = rows[0]
        number = int.from_bytes(key[2:6], "big")
        table = self._catalog.table(tx, key[6:].decode())
        index = next((one for one in table.indexes if one.record.number == number), None) if table is not None else None
        if table is None or (index is None and table.record.ttl_number != number):
            tx.delete(key)
            return True
        position, ended = _built(tx, table, index, position)
        if not ended:
            tx.put(key, position)
            return True
        tx.delete(key)
        if index is not None:
            ready = msgspec.structs.replace(index.record, status="ACTIVE")
            indexes = tuple(ready if one.number == number else one for one in table.record.indexes)
            definitions.save(tx, msgspec.structs.replace(table.record, indexes=indexes))
        return True

    # removal

    def _remove(self, tx: Tx) -> bool:
        """Rows of tables and indexes that are gone."""
        dropped = tx.scan(b"Yz", b"Y{", limit=1)
        if not dropped:
            return False
        number = int.from_bytes(dropped[0][0][2:6], "big")
        left = _REMOVE_ROWS
        for kind in (b"Yi", b"Yx"):
            prefix = numbered(kind, number)
            rows = tx.scan(prefix, prefix + b"\xff" * 8, limit=left) if left else []
            for key, _ in rows:
                tx.delete(key)
            left -= len(rows)
        if left == _REMOVE_ROWS:
            tx.delete(numbered(b"Ys", number))
            tx.delete(dropped[0][0])
        return True


def _due(now_ms: int) -> bytes:
    return b"Ye" + (now_ms // 1000 + 1).to_bytes(8, "big")


def _second(key: bytes) -> int:
    return int.from_bytes(key[2:10], "big")


def _built(tx: Tx, table: Table, index: Index | None, position: bytes) -> tuple[bytes, bool]:
    """Enter the next items into an index, or (None) into the times to live: how far that came, and whether it is all.

    A write in between made its own entry; what is put here is the same."""
    low = position + b"\x00" if position else table.prefix
    rows = tx.scan(low, table.prefix + b"\xff" * 8, limit=_BUILD_ITEMS)
    seen = entries = sizes = 0
    for key, raw in rows:
        item, size = unpack(raw)
        if index is None:
            second = second_of(table, item)
            if second:
                tx.put(expiry_key(table, key, second), table.name.encode())
        else:
            added = _entered(tx, table, index, item, size)
            entries += added is not None
            sizes += added or 0
        position = key
        seen += len(raw)
        if seen > _BUILD_BYTES:
            break
    if index is not None and entries:
        there, bytes_there = unpack_stats(tx.get(index.stats_key))
        tx.put(index.stats_key, pack_stats(there + entries, bytes_there + sizes))
    return position, len(rows) < _BUILD_ITEMS and seen <= _BUILD_BYTES


def _entered(tx: Tx, table: Table, index: Index, item: dict[str, dict[str, object]], size: int) -> int | None:
    """The size of the entry made; None if it has none, or had it already. What cannot be a key has no entry."""
    key = index.key(item, table.own(item))
    if key is None or tx.get(key) is not None:
        return None
    projected = index.project(item)
    entry_size = size if index.everything else item_size(projected)
    tx.put(key, pack(projected, entry_size))
    return entry_size
