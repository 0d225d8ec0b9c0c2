"""The ledger: sums in memory, added to rows of the store by one transaction every `ledger_flush_ms` while there is use."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import msgspec

from martlet.clock import Clock
from martlet.errors import Overloaded, Throttled
from martlet.limits import LIMITS
from martlet.store import Store, Tx, keys
from martlet.types import Invocation, Outcome

__all__ = ["Ledger", "UsageRow"]

HOUR_MS: Final = 3_600_000
_ROWS: Final = "usage"  # ("usage", hour, function, version) -> _SUMS
_PAGE: Final = 1_000

# Places in a list of sums. Their order is the row's format: add new ones at the end only.
(
    _INVOCATIONS,
    _ERRORS,
    _THROTTLED,
    _COLD,
    _QUEUE_US,
    _INIT_US,
    _DURATION_MS,
    _CPU_US,
    _MB_MS,
    _PEAK_MB,
    _BYTES_IN,
    _BYTES_OUT,
    _EGRESS_OUT,
    _EGRESS_IN,
) = range(14)
_PLACES: Final = 14
_SUMS = struct.Struct(f">{_PLACES}q")

_Sums = dict[tuple[str, int, int], list[int]]  # (function, version, hour) -> sums


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one version of a function used in one hour."""

    function: str
    version: int
    hour_ms: int  # start of the hour, ms since the epoch; an invocation belongs to the hour it started in
    invocations: int  # that ran
    errors: int  # of those: ended by the function's fault
    throttled: int  # turned away for want of capacity; not among the invocations
    cold_starts: int
    queue_ms: int
    init_ms: int
    duration_ms: int  # each invocation rounded up to a whole ms
    cpu_ms: int
    gb_ms: float  # configured memory × duration; 1 GB = 1024 MB
    peak_memory_mb: int  # the largest of the hour
    bytes_in: int
    bytes_out: int
    egress_bytes_out: int  # through the egress proxy, in the hour they passed
    egress_bytes_in: int


class Ledger:
    """Exact after a crash for everything that was answered `ledger_flush_ms` before it. Lives on the event loop."""

    def __init__(self, store: Store, clock: Clock, *, flush_ms: int = LIMITS["ledger_flush_ms"].default) -> None:
        self._store = store
        self._clock = clock
        self._delay_seconds = flush_ms * 0.8 / 1000  # the rest is for the commit
        self._sums: _Sums = {}
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failed_flushes = 0  # since the start; their sums are kept and written by the next one

    def record(self, invocation: Invocation, outcome: Outcome) -> None:
        """Count one invocation that ended. Of refusals only those for want of capacity count: nothing else was used."""
        started_at_ms = invocation.started_at_ms or self._clock.now_ms()
        key = (invocation.function, invocation.version, started_at_ms // HOUR_MS)
        refusal = outcome.refusal
        if refusal is not None:
            if isinstance(refusal, Throttled | Overloaded):
                self._of(key)[_THROTTLED] += 1
            return
        sums = self._sums.get(key) or self._of(key)
        sums[_INVOCATIONS] += 1
        if outcome.error:
            sums[_ERRORS] += 1
        if invocation.cold:
            sums[_COLD] += 1
            sums[_INIT_US] += invocation.init_us
        duration_ms = (invocation.duration_us + 999) // 1000
        sums[_DURATION_MS] += duration_ms
        sums[_MB_MS] += duration_ms * invocation.memory_mb
        sums[_QUEUE_US] += invocation.queue_us
        sums[_CPU_US] += invocation.cpu_us
        if invocation.peak_mb > sums[_PEAK_MB]:
            sums[_PEAK_MB] = invocation.peak_mb
        sums[_BYTES_IN] += invocation.bytes_in
        sums[_BYTES_OUT] += invocation.bytes_out

    def record_egress(self, function: str, version: int, bytes_out: int, bytes_in: int) -> None:
        """Count bytes that passed the egress proxy for a function."""
        sums = self._of((function, version, self._clock.now_ms() // HOUR_MS))
        sums[_EGRESS_OUT] += bytes_out
        sums[_EGRESS_IN] += bytes_in

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

    def usage(self, function: str | None = None, since_ms: int | None = None, until_ms: int | None = None) -> list[UsageRow]:
        """Rows of the hours that touch [since_ms, until_ms), by hour, function and version.

        Only what is durable: a crash takes nothing of it back, and the last `ledger_flush_ms` may be missing. `flush`
        first to see them."""
        low, high = keys.prefix_range(_ROWS)
        if since_ms is not None:
            low = keys.encode(_ROWS, since_ms // HOUR_MS)
        if until_ms is not None:
            high = keys.encode(_ROWS, -(-until_ms // HOUR_MS))
        found: list[UsageRow] = []
        while True:
            page = self._store.read(lambda reader, low=low: reader.scan(low, high, _PAGE))  # type: ignore[misc]
            for key, value in page:
                _, hour, name, version = keys.decode(key)
                if function is None or name == function:
                    found.append(_usage_row(str(name), int(version or 0), int(hour or 0), _unpacked(value)))
            if len(page) < _PAGE:
                return found
            low = page[-1][0] + b"\x00"

    def _of(self, key: tuple[str, int, int]) -> list[int]:
        """The sums of `key`; the first after a flush starts the clock of the next."""
        if not self._sums:
            self._arm()
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * _PLACES
        return sums

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
        self._flushing = asyncio.get_running_loop().create_task(self._write(sums), name="ledger flush")
        return self._flushing

    async def _write(self, sums: _Sums) -> None:
        """In a task of its own: were it cancelled half-way, nobody would know whether the sums are on disk."""
        try:
            await self._store.transact(lambda tx: _add(tx, sums))
        except Exception:  # whatever it is: nothing of the transaction is kept, and the caller hears of it
            self.failed_flushes += 1
            for key, values in sums.items():
                _merge(self._of(key), values)
            raise
        finally:
            self._flushing = None


def _noticed(task: asyncio.Task[None]) -> None:
    """A flush by timer has nobody to tell; `failed_flushes` counts it, and its sums are armed again."""
    if not task.cancelled():
        task.exception()


def _add(tx: Tx, sums: _Sums) -> None:
    for (function, version, hour), values in sums.items():
        key = keys.encode(_ROWS, hour, function, version)
        row = tx.get(key)
        total = [0] * _PLACES if row is None else _unpacked(row)
        _merge(total, values)
        tx.put(key, _SUMS.pack(*total))


def _merge(total: list[int], more: list[int]) -> None:
    peak = max(total[_PEAK_MB], more[_PEAK_MB])
    for place, value in enumerate(more):
        total[place] += value
    total[_PEAK_MB] = peak


def _unpacked(row: bytes) -> list[int]:
    return list(_SUMS.unpack(row.ljust(_SUMS.size, b"\x00")))  # a row from before the last places were added


def _usage_row(function: str, version: int, hour: int, sums: list[int]) -> UsageRow:
    return UsageRow(
        function=function,
        version=version,
        hour_ms=hour * HOUR_MS,
        invocations=sums[_INVOCATIONS],
        errors=sums[_ERRORS],
        throttled=sums[_THROTTLED],
        cold_starts=sums[_COLD],
        queue_ms=_ms(sums[_QUEUE_US]),
        init_ms=_ms(sums[_INIT_US]),
        duration_ms=sums[_DURATION_MS],
        cpu_ms=_ms(sums[_CPU_US]),
        gb_ms=sums[_MB_MS] / 1024,
        peak_memory_mb=sums[_PEAK_MB],
        bytes_in=sums[_BYTES_IN],
        bytes_out=sums[_BYTES_OUT],
        egress_bytes_out=sums[_EGRESS_OUT],
        egress_bytes_in=sums[_EGRESS_IN],
    )


def _ms(us: int) -> int:
    """Nearest: rounding up is for single durations, these are sums."""
    return (us + 500) // 1000
