"""Capacity units: what each read and write uses, and how an answer tells it.

One write unit for each started 1 KB of the larger of the item before and after, one read unit for each started 4 KB (half of
that for an eventually consistent read); in a transaction twice that. Source: developer guide, "Read and write capacity"."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Capacity", "read_units", "write_units"]

_WRITE_BYTES: Final = 1_024
_READ_BYTES: Final = 4_096


def write_units(*sizes: int) -> float:
    """Of one item's write; its sizes before and after."""
    return float(max(1, -(-max(sizes) // _WRITE_BYTES)))


def read_units(size: int, consistent: bool | None) -> float:
    """Of `size` bytes that were read together."""
    units = max(1, -(-size // _READ_BYTES))
    return float(units) if consistent else units / 2


class Capacity:
    """What a request uses of one table and its indexes."""

    __slots__ = ("global_indexes", "local_indexes", "table")

    def __init__(self) -> None:
        self.table = 0.0
        self.global_indexes: dict[str, float] = {}
        self.local_indexes: dict[str, float] = {}

    def index(self, name: str, is_global: bool, units: float) -> None:
        indexes = self.global_indexes if is_global else self.local_indexes
        indexes[name] = indexes.get(name, 0.0) + units

    def add(self, other: Capacity) -> None:
        self.table += other.table
        for name, units in other.global_indexes.items():
            self.index(name, True, units)
        for name, units in other.local_indexes.items():
            self.index(name, False, units)

    def times(self, factor: float) -> Capacity:
        scaled = Capacity()
        scaled.table = self.table * factor
        scaled.global_indexes = {name: units * factor for name, units in self.global_indexes.items()}
        scaled.local_indexes = {name: units * factor for name, units in self.local_indexes.items()}
        return scaled

    @property
    def total(self) -> float:
        return self.table + sum(self.global_indexes.values()) + sum(self.local_indexes.values())

    def shown(self, wanted: str | None, table: str, kind: str = "") -> dict[str, Any] | None:
        """The answer's ConsumedCapacity, if it is wanted. `kind`: "Read" or "Write" where the answer tells the two apart."""
        if wanted not in ("TOTAL", "INDEXES"):
            return None

        def told(units: float) -> dict[str, Any]:
            found: dict[str, Any] = {"CapacityUnits": units}
            if kind:
                found[f"{kind}CapacityUnits"] = units
            return found

        answer = {"TableName": table, **told(self.total)}
        if wanted == "INDEXES":
            answer["Table"] = told(self.table)
            if self.local_indexes:
                answer["LocalSecondaryIndexes"] = {name: told(units) for name, units in self.local_indexes.items()}
            if self.global_indexes:
                answer["GlobalSecondaryIndexes"] = {name: told(units) for name, units in self.global_indexes.items()}
        return answer
