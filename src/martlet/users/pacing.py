"""How often one may try: buckets by name, kept as the theoretical arrival time of the generic cell rate algorithm.

They are soft state in memory: a start of the platform forgives. What must hold across starts (the tries of one code) is in the
store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from martlet.clock import Clock
from martlet.errors import Throttled
from martlet.limits import LIMITS

__all__ = ["Pace"]

_SECOND: Final = 1_000_000_000
_KEYS_MOST: Final = 100_000


class Pace:
    """At most limit `name` in `seconds` for each key; the key unseen for longest is forgotten first."""

    def __init__(self, name: str, seconds: int, clock: Clock) -> None:
        self._name = name
        self._now: Callable[[], int] = clock.monotonic_ns
        self._most = LIMITS[name].default
        self._seconds = seconds
        self._step = seconds * _SECOND // self._most
        self._due: dict[tuple[str, ...], int] = {}

    def take(self, *key: str) -> None:
        """Count one. Raises `Throttled`, which does not say whether the key means anybody."""
        now = self._now()
        due = max(self._due.pop(key, now), now)
        wait = due - now - self._step * (self._most - 1)
        if wait > 0:
            self._due[key] = due
            raise Throttled(
                f"limit {self._name}: {self._most} in {self._seconds} seconds",
                retry_after_seconds=max(1, -int(-wait // _SECOND)),
            )
        self._due[key] = due + self._step
        if len(self._due) > _KEYS_MOST:
            del self._due[next(iter(self._due))]

    def forgive(self, *key: str) -> None:
        """Forget what was counted."""
        self._due.pop(key, None)
