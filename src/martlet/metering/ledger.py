"""The ledger: what each version of a function used in each hour."""

from __future__ import annotations

from typing import Final

import msgspec

from martlet.clock import Clock
from martlet.errors import Overloaded, Throttled
from martlet.limits import LIMITS
from martlet.metering.sums import HOUR_MS, HourlySums
from martlet.store import Store
from martlet.types import Invocation, Outcome

__all__ = ["Ledger", "UsageRow"]

_ROWS: Final = "usage"  # ("usage", hour, function, version)

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


class Ledger(HourlySums[tuple[int, str, int]]):  # by hour, function and version
    """Exact after a crash for everything that was answered `ledger_flush_ms` before it. Lives on the event loop."""

    def __init__(self, store: Store, clock: Clock, *, flush_ms: int = LIMITS["ledger_flush_ms"].default) -> None:
        super().__init__(store, _ROWS, _PLACES, largest=_PEAK_MB, flush_ms=flush_ms)
        self._clock = clock

    def record(self, invocation: Invocation, outcome: Outcome) -> None:
        """Count one invocation that ended. Of refusals only those for want of capacity count: nothing else was used."""
        started_at_ms = invocation.started_at_ms or self._clock.now_ms()
        key = (started_at_ms // HOUR_MS, invocation.function, invocation.version)
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
        sums = self._of((self._clock.now_ms() // HOUR_MS, function, version))
        sums[_EGRESS_OUT] += bytes_out
        sums[_EGRESS_IN] += bytes_in

    def usage(self, function: str | None = None, since_ms: int | None = None, until_ms: int | None = None) -> list[UsageRow]:
        """Rows of the hours that touch [since_ms, until_ms), by hour, function and version.

        Only what is durable: a crash takes nothing of it back, and the last `ledger_flush_ms` may be missing. `flush`
        first to see them."""
        return [
            _usage_row(name, version, hour, sums)
            for (hour, name, version), sums in self._between(since_ms, until_ms)
            if function is None or name == function
        ]


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
