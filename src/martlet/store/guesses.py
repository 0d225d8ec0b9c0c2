"""Which rows are probably not there: so that a function that makes something new runs once, without a fetch before it.

Rows whose keys begin alike (a room's kind of row, and the number of a table or a collection) are made alike. Where the rows
that transactions asked for have been absent many times in a row, the next one is taken for absent as well, and the commit
itself says whether that was so. A wrong guess costs its group a second run; after it many more must be seen absent before
the next guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["Guesses"]

_ALIKE: Final = 6  # bytes of a key
_MOST: Final = 4_096  # kinds that are remembered
_AT_FIRST: Final = 8  # absent rows in a row, before the first guess
_DEARER: Final = 8  # times as many after a wrong one
_AT_MOST: Final = 65_536


class _Kind:
    __slots__ = ("absent", "wanted")

    def __init__(self) -> None:
        self.absent = 0  # fetched or guessed, since one was there
        self.wanted = _AT_FIRST


class Guesses:
    """What a node has seen of the rows that its transactions asked for."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, _Kind] = {}

    def absent(self, key: bytes) -> bool:
        """Whether to take this row for absent."""
        kind = self._kinds.get(key[:_ALIKE])
        return kind is not None and kind.absent >= kind.wanted

    def fetched(self, key: bytes, there: bool) -> None:
        """A transaction needed the row, and it was fetched."""
        kind = self._kinds.get(key[:_ALIKE])
        if kind is None:
            if len(self._kinds) >= _MOST:
                self._kinds.clear()
            kind = self._kinds[key[:_ALIKE]] = _Kind()
        kind.absent = 0 if there else kind.absent + 1

    def right(self, keys: Iterable[bytes]) -> None:
        """These were guessed, and were absent. Who is right for long pays less for the next wrong guess."""
        for key in keys:
            kind = self._kinds.get(key[:_ALIKE])
            if kind is not None:
                kind.absent += 1
                if kind.absent > kind.wanted * _DEARER and kind.wanted > _AT_FIRST:
                    kind.absent, kind.wanted = kind.wanted, kind.wanted // 2

    def wrong(self, key: bytes) -> None:
        """This was guessed, and is there."""
        kind = self._kinds.get(key[:_ALIKE])
        if kind is not None:
            kind.absent, kind.wanted = 0, min(kind.wanted * _DEARER, _AT_MOST)
