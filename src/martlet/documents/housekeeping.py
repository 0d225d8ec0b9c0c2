"""What goes on in the background: index builds, expiry, removal of what was dropped and of history past its retention.

Each step is one short transaction under a lease, so that one node at a time does it, and resumes after a crash where the last
commit left it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from martlet.clock import Clock
from martlet.documents import definitions, values
from martlet.documents.catalog import Catalog, CompiledIndex
from martlet.documents.chores import LOOK_AGAIN_SECONDS, Chores
from martlet.documents.layout import entry_of, numbered, pack_long, row_of, unpack_long
from martlet.documents.transaction import Transaction
from martlet.documents.usage import Usage
from martlet.documents.view import read_id
from martlet.errors import InvalidInput, LimitExceeded
from martlet.store import Store, Tx

__all__ = ["Housekeeping"]

T = TypeVar("T")

_LEASE: Final = "documents"
_LEASE_MS: Final = 10_000
_BUILD_DOCUMENTS: Final = 200
_BUILD_BYTES: Final = 1_048_576
_REMOVE_ROWS: Final = 500
_EXPIRE_DOCUMENTS: Final = 100
_SWEEP_ROWS: Final = 500
_SWEEP_MS: Final = 600_000
_FORGET_DAYS: Final = 30  # the version numbers of deleted documents
_KINDS: Final = (b"Dd", b"Dh", b"Dg", b"Di", b"Dx")


class Housekeeping(Chores):
    """`pinned`: number of a collection -> stamp from which on its past must stay."""

    def __init__(self, store: Store, clock: Clock, catalog: Catalog, pinned: Callable[[], dict[int, int]], holder: str) -> None:
        super().__init__("documents")
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self._pinned = pinned
        self._holder = holder
        self._swept_at_ms = 0
        self._standby_until_ms = 0

    def _delay_seconds(self) -> float:
        now_ms = self._clock.now_ms()
        due = self._store.read(lambda reader: reader.scan(b"De", b"Df", limit=1))
        times = [self._swept_at_ms + _SWEEP_MS]
        if due:
            times.append(unpack_long(due[0][0][2:10]))
        due_at_ms = max(min(times), self._standby_until_ms)
        return min(max(due_at_ms - now_ms + 1, 1) / 1000, LOOK_AGAIN_SECONDS)

    async def run_due(self) -> None:
        """Do everything that can be done now."""
        more: bool | None = True
        while more:
            more = await self._held(self._step)
        now_ms = self._clock.now_ms()
        if now_ms - self._swept_at_ms >= _SWEEP_MS:
            self._swept_at_ms = now_ms
            await self.sweep()

    async def _held(self, fn: Callable[[Tx], T]) -> T | None:
        if not self._anything():
            return None

        def guarded(tx: Tx) -> T | None:
            if tx.lease_take(_LEASE, self._holder, _LEASE_MS) is not None:
                return fn(tx)
            self._standby_until_ms = tx.now_ms + _LEASE_MS  # another node does it; we look again when it may have gone
            return None

        self._catalog.changing()
        try:
            return await self._store.transact(guarded)
        finally:
            self._catalog.settled()

    def _anything(self) -> bool:
        now_ms = self._clock.now_ms()

        def look(reader: object) -> bool:
            scan = reader.scan  # type: ignore[attr-defined]
            return bool(
                scan(b"Dp", b"Dq", limit=1)
                or scan(b"Dz", b"D{", limit=1)
                or scan(b"De", b"De" + pack_long(now_ms + 1), limit=1)
                or scan(b"Dt", b"Dt" + pack_long(now_ms), limit=1)
            )

        return self._store.read(look)

    def _step(self, tx: Tx) -> bool:
        """The most urgent thing; False when there is none."""
        return self._expire(tx) or self._forget_answers(tx) or self._build(tx) or self._remove(tx)

    # expiry

    def _expire(self, tx: Tx) -> bool:
        rows = tx.scan(b"De", b"De" + pack_long(tx.now_ms + 1), limit=_EXPIRE_DOCUMENTS)
        opened: dict[str, Transaction] = {}
        for key, raw in rows:
            database, _, name = raw.decode().partition("\x00")
            transaction = opened.get(database)
            if transaction is None:
                transaction = opened[database] = Transaction(tx, self._catalog, database, Usage(), self._pinned())
            compiled = transaction.collection(name)
            number = int.from_bytes(key[10:14], "big")
            if compiled is None or compiled.record.number != number or not transaction.expire(compiled, key[14:]):
                tx.delete(key)
        for transaction in opened.values():
            transaction.finish()
        return bool(rows)

    def _forget_answers(self, tx: Tx) -> bool:
        rows = tx.scan(b"Dt", b"Dt" + pack_long(tx.now_ms), limit=_REMOVE_ROWS)
        for key, _ in rows:
            answer = tx.get(b"Dk" + key[10:])
            if answer is not None and answer[:8] == key[2:10]:  # else: the key was used again since
                tx.delete(b"Dk" + key[10:])
            tx.delete(key)
        return bool(rows)

    # index builds

    def _build(self, tx: Tx) -> bool:
        rows = tx.scan(b"Dp", b"Dq", limit=1)
        if not rows:
            return False
        key, raw = rows[0]
        number = int.from_bytes(key[2:6], "big")
        database, name, position, done = definitions.progress_of(raw)
        compiled = self._catalog.collection(tx, database, name)
        index = next((one for one in compiled.indexes if one.record.number == number), None) if compiled else None
        if compiled is None or index is None or index.record.status != "building":
            tx.delete(key)
            return True
        low = compiled.docs + position + b"\x00" if position else compiled.docs
        rows = tx.scan(low, compiled.docs + b"\xff", limit=_BUILD_DOCUMENTS)
        size = 0
        for document_key, document in rows:
            reason = _enter(tx, index, document_key[6:], document)
            if reason:
                definitions.rebuild_failed(tx, compiled.record, number, reason)
                return True
            done += 1
            position = document_key[6:]
            size += len(document)
            if size > _BUILD_BYTES:
                break
        else:
            if len(rows) < _BUILD_DOCUMENTS:
                definitions.build_ended(tx, compiled.record, number)
                return True
        tx.put(key, definitions.progress_row(compiled.record, position, done))
        return True

    # removal

    def _remove(self, tx: Tx) -> bool:
        """Rows of collections and indexes that were dropped."""
        dropped = tx.scan(b"Dz", b"D{", limit=1)
        if not dropped:
            return False
        number = int.from_bytes(dropped[0][0][2:6], "big")
        left = _REMOVE_ROWS
        for kind in _KINDS:
            prefix = numbered(kind, number)
            rows = tx.scan(prefix, prefix + b"\xff", limit=left) if left else []
            size = 0
            for key, raw in rows:
                tx.delete(key)
                size += len(raw)
            left -= len(rows)
        if left == _REMOVE_ROWS:
            tx.delete(dropped[0][0])
        return True

    # history

    async def sweep(self) -> None:
        """Remove versions and index entries that ended before their collection's retention, and old version numbers."""
        horizons = self._horizons()
        for kind in (b"Dh", b"Dx"):
            await self._sweep(kind, lambda key, raw: unpack_long(key[-8:]) < horizons.get(key[2:6], 0))
        forget = (self._clock.now_ms() - _FORGET_DAYS * 86_400_000) * 1000
        await self._sweep(b"Dg", lambda key, raw: unpack_long(raw[8:]) < min(forget, horizons.get(key[2:6], 0)))

    def _horizons(self) -> dict[bytes, int]:
        """Number of a collection or index -> stamp; what ended before it may go."""
        now_ms, pinned = self._clock.now_ms(), self._pinned()
        found: dict[bytes, int] = {}
        low = b"Dc"
        while rows := self._store.read(lambda reader, low=low: reader.scan(low, b"Dd", limit=200)):  # type: ignore[misc]
            for _, raw in rows:
                record = self._catalog.compiled(raw).record
                horizon = (now_ms - record.config.history_seconds * 1000) * 1000
                horizon = min(horizon, pinned.get(record.number, horizon))
                for number in (record.number, *(index.number for index in record.indexes)):
                    found[number.to_bytes(4, "big")] = horizon
            low = rows[-1][0] + b"\x00"
        return found

    async def _sweep(self, kind: bytes, old: Callable[[bytes, bytes], bool]) -> None:
        low, high = kind, kind[:1] + bytes((kind[1] + 1,))
        while rows := self._store.read(lambda reader, low=low: reader.scan(low, high, limit=_SWEEP_ROWS)):  # type: ignore[misc]
            gone = [key for key, raw in rows if old(key, raw)]
            if gone:
                await self._store.transact(lambda tx, gone=gone: _delete(tx, gone))  # type: ignore[misc]
            low = rows[-1][0] + b"\x00"
            await asyncio.sleep(0)


def _delete(tx: Tx, gone: list[bytes]) -> None:
    for key in gone:
        tx.delete(key)


def _enter(tx: Tx, index: CompiledIndex, id: bytes, raw: bytes) -> str:
    """Make the entries of one document; why that cannot be, or ""."""
    row = row_of(raw)
    try:
        entries = index.entries(values.load(row.body), id, row.stamp, row.expires_at_ms)
    except (InvalidInput, LimitExceeded) as error:
        return f"document {read_id(id)!r}: {error.message}"
    for key, entry in entries.items():
        there = tx.get(key)
        if there is None:
            tx.put(key, entry)
        else:
            other = entry_of(key[6:], there).id
            if other != id:
                return f"documents {read_id(other)!r} and {read_id(id)!r} have the same terms"
    return ""
