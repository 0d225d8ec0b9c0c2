"""The ledger of the document database: what each database used in each hour, summed in memory, added to rows of the store."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from martlet.clock import Clock
from martlet.limits import LIMITS
from martlet.store import Store, Tx, keys

__all__ = ["DocumentLedger", "DocumentUsage", "Used"]

HOUR_MS: Final = 3_600_000
_ROWS: Final = "usage.documents"  # ("usage.documents", hour, database) -> _SUMS
_PAGE: Final = 1_000
# Places of a row: add new ones at the end only.
_REQUESTS, _READS, _WRITES, _COMPUTES, _BYTES_IN, _BYTES_OUT, _STORAGE = range(7)
_PLACES: Final = 7
_SUMS = struct.Struct(f">{_PLACES}q")


class Used(Protocol):
    """What one request used."""

    read_operations: int
    write_operations: int
    compute_operations: int
    bytes_in: int
    bytes_out: int


class DocumentUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one database used in one hour."""

    database: str
    hour_ms: int  # start of the hour, ms since the epoch
    requests: int
    read_operations: int
    write_operations: int
    compute_operations: int
    bytes_in: int
    bytes_out: int
    storage_bytes: int  # of documents, the most that was seen in the hour


class DocumentLedger:
    """Exact after a crash for every request that was answered `ledger_flush_ms` before it. Lives on the event loop.

    `storage` yields (database, bytes of its documents) of all databases: asked for once an hour, and at each reading."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        storage: Callable[[], Iterable[tuple[str, int]]],
        *,
        flush_ms: int = LIMITS["ledger_flush_ms"].default,
    ) -> None:
        self._store = store
        self._clock = clock
        self._storage = storage
        self._delay_seconds = flush_ms * 0.8 / 1000
        self._sums: dict[tuple[str, int], list[int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failed_flushes = 0

    def record(self, database: str, used: Used) -> None:
        """Count one request."""
        sums = self._of(database)
        sums[_REQUESTS] += 1
        sums[_READS] += used.read_operations
        sums[_WRITES] += used.write_operations
        sums[_COMPUTES] += used.compute_operations
        sums[_BYTES_IN] += used.bytes_in
        sums[_BYTES_OUT] += used.bytes_out

    def sample(self) -> None:
        """Note how much each database holds now."""
        for database, size in self._storage():
            sums = self._of(database)
            sums[_STORAGE] = max(sums[_STORAGE], size)

    async def flush(self) -> None:
        """Make everything that was recorded before this call durable. Raises the store's error; the sums wait then."""
        while self._flushing is not None:
            await asyncio.wait((self._flushing,))
        if self._sums:
            await asyncio.shield(self._flush())

    def start(self) -> None:
        """From now on sums are written by themselves; nothing runs while there is nothing to write."""
        self._loop = asyncio.get_running_loop()
        if self._sums:
            self._arm()

    async def stop(self) -> None:
        """Write what there is, and no more by itself."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.flush()

    def usage(self, since_ms: int = 0, until_ms: int | None = None) -> list[DocumentUsage]:
        """Rows of the hours that touch [since_ms, until_ms), by hour and database. Only what is durable."""
        low, high = keys.encode(_ROWS, since_ms // HOUR_MS), keys.prefix_range(_ROWS)[1]
        if until_ms is not None:
            high = keys.encode(_ROWS, -(-until_ms // HOUR_MS))
        found: list[DocumentUsage] = []
        while True:
            page = self._store.read(lambda reader, low=low: reader.scan(low, high, _PAGE))  # type: ignore[misc]
            for key, value in page:
                _, hour, database = keys.decode(key)
                found.append(_row(str(database), int(hour or 0), _unpacked(value)))
            if len(page) < _PAGE:
                return found
            low = page[-1][0] + b"\x00"

    def _of(self, database: str) -> list[int]:
        key = (database, self._clock.now_ms() // HOUR_MS)
        sums = self._sums.get(key)
        if sums is None:
            if not self._sums:
                self._arm()
            sums = self._sums[key] = [0] * _PLACES
        return sums

    def _arm(self) -> None:
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(self._delay_seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._flushing is not None:
            self._arm()
        elif self._sums:
            self._flush().add_done_callback(_noticed)

    def _flush(self) -> asyncio.Task[None]:
        sums, self._sums = self._sums, {}
        self._flushing = asyncio.get_running_loop().create_task(self._write(sums), name="ledger of documents")
        return self._flushing

    async def _write(self, sums: dict[tuple[str, int], list[int]]) -> None:
        try:
            await self._store.transact(lambda tx: _add(tx, sums))
        except Exception:  # nothing of the transaction is kept: the sums wait for the next flush, and the caller hears of it
            self.failed_flushes += 1
            for (database, hour), values in sums.items():
                if not self._sums:
                    self._arm()
                _merge(self._sums.setdefault((database, hour), [0] * _PLACES), values)
            raise
        finally:
            self._flushing = None


def _noticed(task: asyncio.Task[None]) -> None:
    """A flush by timer has nobody to tell; `failed_flushes` counts it."""
    if not task.cancelled():
        task.exception()


def _add(tx: Tx, sums: dict[tuple[str, int], list[int]]) -> None:
    for (database, hour), values in sums.items():
        key = keys.encode(_ROWS, hour, database)
        raw = tx.get(key)
        total = [0] * _PLACES if raw is None else _unpacked(raw)
        _merge(total, values)
        tx.put(key, _SUMS.pack(*total))


def _merge(total: list[int], more: list[int]) -> None:
    storage = max(total[_STORAGE], more[_STORAGE])
    for place, value in enumerate(more):
        total[place] += value
    total[_STORAGE] = storage


def _unpacked(raw: bytes) -> list[int]:
    return list(_SUMS.unpack(raw.ljust(_SUMS.size, b"\x00")))


def _row(database: str, hour: int, sums: list[int]) -> DocumentUsage:
    return DocumentUsage(
        database=database,
        hour_ms=hour * HOUR_MS,
        requests=sums[_REQUESTS],
        read_operations=sums[_READS],
        write_operations=sums[_WRITES],
        compute_operations=sums[_COMPUTES],
        bytes_in=sums[_BYTES_IN],
        bytes_out=sums[_BYTES_OUT],
        storage_bytes=sums[_STORAGE],
    )
