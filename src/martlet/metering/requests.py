"""The ledger of requests: what each app asked of queues, objects, buses and the gateway, by the hour."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from martlet.clock import Clock
from martlet.limits import LIMITS
from martlet.metering.sums import HOUR_MS, HourlySums
from martlet.store import Store

__all__ = ["Meter", "RequestLedger", "RequestUsage", "meter_of"]

Meter = Literal["gateway", "queue", "object_read", "object_write", "bus"]

_ROWS: Final = "usage.requests"  # ("usage.requests", hour, app, meter)
_REQUESTS, _BYTES_OUT = range(2)  # places of a row: add new ones at the end only
_PLACES: Final = 2
_FREE: Final = ("Delete", "Abort")  # of objects, as on public price lists
_READING: Final = ("Get", "Head")


def meter_of(action: str) -> Meter | None:
    """What a request for this action counts as; None: nothing, or something that another ledger counts."""
    room, _, verb = action.partition(":")
    if room == "sqs":
        return "queue"
    if action in ("events:PutEvents", "sns:Publish"):
        return "bus"
    if room == "s3":
        return None if verb.startswith(_FREE) else "object_read" if verb.startswith(_READING) else "object_write"
    return None


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one app asked for in one hour. `app` "": the owner, by keys of the platform."""

    app: str
    meter: str
    hour_ms: int  # start of the hour, ms since the epoch
    requests: int
    bytes_out: int  # of the gateway's answers


class RequestLedger(HourlySums[tuple[int, str, str]]):  # by hour, app and meter
    """Exact after a crash for every request that was answered `ledger_flush_ms` before it. Lives on the event loop."""

    def __init__(self, store: Store, clock: Clock, *, flush_ms: int = LIMITS["ledger_flush_ms"].default) -> None:
        super().__init__(store, _ROWS, _PLACES, largest=None, flush_ms=flush_ms)
        self._clock = clock

    def count(self, app: str, meter: Meter, *, requests: int = 1, bytes_out: int = 0) -> None:
        key = (self._clock.now_ms() // HOUR_MS, app, meter)
        sums = self._sums.get(key) or self._of(key)
        sums[_REQUESTS] += requests
        sums[_BYTES_OUT] += bytes_out

    def usage(self, since_ms: int = 0, until_ms: int | None = None) -> list[RequestUsage]:
        """Rows of the hours that touch [since_ms, until_ms), by hour, app and meter. Only what is durable."""
        return [
            RequestUsage(app=app, meter=meter, hour_ms=hour * HOUR_MS, requests=sums[_REQUESTS], bytes_out=sums[_BYTES_OUT])
            for (hour, app, meter), sums in self._between(since_ms, until_ms)
        ]
