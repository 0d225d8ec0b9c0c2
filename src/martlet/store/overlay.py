"""Rows that are written but not yet below: looked through first, merged into scans."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping

__all__ = ["MISSING", "Overlay", "Scan"]

Scan = Callable[[bytes, bytes, int, bool], list[tuple[bytes, bytes]]]

MISSING = b"\x00missing"  # compared by identity: tells "not in the overlay" from None, "deleted by the overlay"
_BULK = 32  # from here on one sort beats single insertions


class Overlay:
    """A sorted map of bytes to bytes, or to None for "deleted". The order is kept only once somebody has scanned."""

    __slots__ = ("_order", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self._order: list[bytes] | None = None

    def put(self, key: bytes, value: bytes | None) -> None:
        if self._order is not None and key not in self.rows:
            insort(self._order, key)
        self.rows[key] = value

    def update(self, writes: Mapping[bytes, bytes | None]) -> None:
        if self._order is None:
            self.rows.update(writes)
        elif len(writes) > _BULK:
            self.rows.update(writes)
            self._order = sorted(self.rows)
        else:
            for key, value in writes.items():
                self.put(key, value)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Take rows out, so that what is below shows again."""
        rows = self.rows
        gone = [key for key in keys if rows.pop(key, MISSING) is not MISSING]
        if not rows or len(gone) > _BULK:
            self._order = None
        elif self._order is not None:
            for key in gone:
                del self._order[bisect_left(self._order, key)]

    def scan(self, below: Scan, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        """What `below` finds, as seen through these rows."""
        if not self.rows or low >= high:
            return below(low, high, limit, reverse)
        if self._order is None:
            self._order = sorted(self.rows)
        mine = self._order[bisect_left(self._order, low) : bisect_left(self._order, high)]
        if not mine:
            return below(low, high, limit, reverse)
        # Each of my rows can hide one row below, so that many more make sure of `limit` survivors.
        seen: dict[bytes, bytes | None] = dict(below(low, high, limit + len(mine), reverse))
        for key in mine:
            seen[key] = self.rows[key]
        merged = sorted(seen.items(), reverse=reverse)
        return [(key, value) for key, value in merged if value is not None][:limit]
