"""Sums by hour and owner in memory, added to rows of the store by one transaction every `flush_ms` while there is use."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Final, Generic, TypeVar, cast

from martlet.store import Store, Tx, keys

__all__ = ["HOUR_MS", "HourlySums"]

HOUR_MS: Final = 3_600_000
_PAGE: Final = 1_000

K = TypeVar("K", bound=tuple[int | str, ...])  # (hour since the epoch, whose)


class HourlySums(Generic[K]):
    """A row is (`rows`, hour, whose) -> `places` sums, 8 bytes each: a ledger may add places, at the end only.

    In the place `largest`, where there is one, stands the largest of the values instead of their sum. Exact after a crash for
    everything that was counted `flush_ms` before it. Lives on the event loop."""

    def __init__(self, store: Store, rows: str, places: int, *, largest: int | None, flush_ms: int) -> None:
        self._store = store
        self._rows = rows
        self._places = places
        self._largest = largest
        self._packed = struct.Struct(f">{places}q")
        self._delay_seconds = flush_ms * 0.8 / 1000  # the rest is for the commit
        self._sums: dict[K, list[int]] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failed_flushes = 0  # since the start; their sums are kept and written by the next one

    async def flush(self) -> None:
        """Make everything that was recorded before this call durable, in one transaction.

        Raises the store's error if it cannot; nothing is lost then, the sums wait for the next flush. Being cancelled
        does not stop a flush that is under way."""
        while self._flushing is not None:  # it may have begun before the last record
            await asyncio.wait((self._flushing,))
        if self._sums:
            await asyncio.shield(self._flush())

    def start(self) -> None:
        """From now on sums are written by themselves. Nothing runs, not even a timer, while there is nothing to write."""
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

    def _of(self, key: K) -> list[int]:
        """The sums of `key`; the first after a flush starts the clock of the next."""
        if not self._sums:
            self._arm()
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * self._places
        return sums

    def _between(self, since_ms: int | None, until_ms: int | None) -> Iterator[tuple[K, list[int]]]:
        """What is durable of the hours that touch [since_ms, until_ms), in the order of the keys."""
        low, high = keys.prefix_range(self._rows)
        if since_ms is not None:
            low = keys.encode(self._rows, since_ms // HOUR_MS)
        if until_ms is not None:
            high = keys.encode(self._rows, -(-until_ms // HOUR_MS))
        while True:
            page = self._store.read(lambda reader, low=low: reader.scan(low, high, _PAGE))  # type: ignore[misc]
            for key, row in page:
                yield cast(K, keys.decode(key)[1:]), self._unpacked(row)
            if len(page) < _PAGE:
                return
            low = page[-1][0] + b"\x00"

    def _arm(self) -> None:
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(self._delay_seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._flushing is not None:  # a slow disk: what is under way comes first
            self._arm()
        elif self._sums:
            self._flush().add_done_callback(_noticed)

    def _flush(self) -> asyncio.Task[None]:
        sums, self._sums = self._sums, {}
        self._flushing = asyncio.get_running_loop().create_task(self._write(sums), name=f"flush of {self._rows}")
        return self._flushing

    async def _write(self, sums: dict[K, list[int]]) -> None:
        """In a task of its own: were it cancelled half-way, nobody would know whether the sums are on disk."""
        try:
            await self._store.transact(lambda tx: self._add(tx, sums))
        except Exception:  # whatever it is: nothing of the transaction is kept, and the caller hears of it
            self.failed_flushes += 1
            for key, values in sums.items():
                self._merge(self._of(key), values)
            raise
        finally:
            self._flushing = None

    def _add(self, tx: Tx, sums: dict[K, list[int]]) -> None:
        for owner, values in sums.items():
            key = keys.encode(self._rows, *owner)
            row = tx.get(key)
            total = [0] * self._places if row is None else self._unpacked(row)
            self._merge(total, values)
            tx.put(key, self._packed.pack(*total))

    def _merge(self, total: list[int], more: list[int]) -> None:
        for place, value in enumerate(more):
            total[place] = max(total[place], value) if place == self._largest else total[place] + value

    def _unpacked(self, row: bytes) -> list[int]:
        return list(self._packed.unpack(row.ljust(self._packed.size, b"\x00")))  # a row from before places were added


def _noticed(task: asyncio.Task[None]) -> None:
    """A flush by timer has nobody to tell; `failed_flushes` counts it, and its sums are armed again."""
    if not task.cancelled():
        task.exception()
