"""A cache of parsed expressions that is bounded by what it holds, not by how many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

__all__ = ["Memory"]

CHARACTERS: Final = 98_304
T = TypeVar("T")


class Memory(Generic[T]):
    """The values made for the keys used last. `weight` is in characters of expression; the sum of them is bounded."""

    __slots__ = ("_entries", "_weight", "characters")

    def __init__(self, characters: int = CHARACTERS) -> None:
        self.characters = characters
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._weight = 0

    def get(self, key: Hashable, weight: int, make: Callable[[], T]) -> T:
        """The value of `key`, made if it is not remembered. What raises is not remembered."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry[0]
        value = make()
        if weight <= self.characters // 8:
            self._entries[key] = value, weight
            self._weight += weight
            while self._weight > self.characters:
                self._weight -= self._entries.popitem(last=False)[1][1]
        return value

    def __len__(self) -> int:
        return len(self._entries)
