"""The ledger of the document database: what each database used in each hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from martlet.clock import Clock
from martlet.limits import LIMITS
from martlet.metering.sums import HOUR_MS, HourlySums
from martlet.store import Store

__all__ = ["DocumentLedger", "DocumentUsage", "Used"]

_ROWS: Final = "usage.documents"  # ("usage.documents", hour, database)
# Places of a row: add new ones at the end only.
_REQUESTS, _READS, _WRITES, _COMPUTES, _BYTES_IN, _BYTES_OUT, _STORAGE = range(7)
_PLACES: Final = 7


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


class DocumentLedger(HourlySums[tuple[int, str]]):  # by hour and database
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
        super().__init__(store, _ROWS, _PLACES, largest=_STORAGE, flush_ms=flush_ms)
        self._clock = clock
        self._storage = storage

    def record(self, database: str, used: Used) -> None:
        """Count one request."""
        sums = self._of((self._clock.now_ms() // HOUR_MS, database))
        sums[_REQUESTS] += 1
        sums[_READS] += used.read_operations
        sums[_WRITES] += used.write_operations
        sums[_COMPUTES] += used.compute_operations
        sums[_BYTES_IN] += used.bytes_in
        sums[_BYTES_OUT] += used.bytes_out

    def sample(self) -> None:
        """Note how much each database holds now."""
        for database, size in self._storage():
            sums = self._of((self._clock.now_ms() // HOUR_MS, database))
            sums[_STORAGE] = max(sums[_STORAGE], size)

    def usage(self, since_ms: int = 0, until_ms: int | None = None) -> list[DocumentUsage]:
        """Rows of the hours that touch [since_ms, until_ms), by hour and database. Only what is durable."""
        return [_row(database, hour, sums) for (hour, database), sums in self._between(since_ms, until_ms)]


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
