"""Stacks that nobody has: the code for templates is read in when the first stack is made or somebody asks for one.

Most platforms have none, and that code takes four megabytes. Imports little: everybody loads this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from martlet.apps.stacks.deployed import ROOM
from martlet.store import Store, keys

if TYPE_CHECKING:
    from martlet.apps.stacks.records import StackRecord
    from martlet.apps.stacks.stacks import Stacks

__all__ = ["SleepingStacks"]


class SleepingStacks:
    """`Stacks` that `make` makes when they are needed. Call `load` first and `close` at the end."""

    def __init__(self, store: Store, make: Callable[[], Stacks]) -> None:
        self._store = store
        self._make = make
        self._awake: Stacks | None = None

    def wake(self) -> Stacks:
        """The stacks themselves. Without rows there is nothing that they would have to load."""
        if self._awake is None:
            self._awake = self._make()
        return self._awake

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wake(), name)

    async def load(self) -> None:
        low, high = keys.prefix_range(ROOM)
        if self._store.read(lambda reader: reader.scan(low, high, limit=1)):
            await self.wake().load()

    async def close(self) -> None:
        if self._awake is not None:
            await self._awake.close()

    def list(self) -> list[StackRecord]:
        return [] if self._awake is None else self._awake.list()

    def referenced(self) -> set[str]:
        return set() if self._awake is None else self._awake.referenced()
