"""Token buckets, kept as the theoretical arrival time of the generic cell rate algorithm: one number a bucket."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from martlet.clock import Clock
from martlet.errors import InvalidInput, Throttled
from martlet.limits import LIMITS
from martlet.types import Throttle

__all__ = ["Buckets"]

_SECOND: Final = 1_000_000_000


class Buckets:
    """The bucket of a route, or the buckets of its clients: at most `clients` of them, the longest unseen is forgotten.

    IPv6 clients share one bucket for a /64: one host can choose among 2^64 addresses. Raises `InvalidInput` for a rate that
    is not positive or a burst below one.
    """

    def __init__(self, throttle: Throttle, clock: Clock, *, clients: int | None = None) -> None:
        if not 0 < throttle.rate <= 1_000_000 or throttle.burst < 1:
            raise InvalidInput(
                f"throttle: rate {throttle.rate} must be above 0, burst {throttle.burst} at least 1", field="throttle"
            )
        self.throttle = throttle
        self._now: Callable[[], int] = clock.monotonic_ns
        self._step = int(_SECOND / throttle.rate)
        self._tolerance = self._step * (throttle.burst - 1)
        self._per_client = throttle.per == "client"
        self._clients = clients or LIMITS["throttle_clients"].default
        self._due: dict[str, int] = {}  # bucket → when it would be full again; in order of use

    def __len__(self) -> int:
        return len(self._due)

    def take(self, client: str) -> float:
        """Take one token: 0.0, or the seconds until there is one."""
        now = self._now()
        key = _network(client) if self._per_client else ""
        due = max(self._due.pop(key, now), now)
        wait = due - now - self._tolerance
        if wait > 0:
            self._due[key] = due
            return wait / _SECOND
        self._due[key] = due + self._step
        if len(self._due) > self._clients:
            del self._due[next(iter(self._due))]
        return 0.0

    def refusal(self, wait_seconds: float) -> Throttled:
        """The error for a request that found no token."""
        throttle = self.throttle
        whose = "each client of this route" if self._per_client else "this route"
        return Throttled(
            f"{whose} may make {throttle.rate:g} requests a second, {throttle.burst} at once",
            retry_after_seconds=max(1, -int(-wait_seconds // 1)),
            rate=throttle.rate,
            burst=throttle.burst,
            per=throttle.per,
        )


def _network(client: str) -> str:
    if ":" not in client:
        return client
    try:
        address = ipaddress.IPv6Address(client.partition("%")[0])
    except ValueError:
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.exploded[:19]
