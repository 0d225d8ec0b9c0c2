"""Stacks that nobody has: the code for templates is read in when the first stack is made or somebody asks for one.

Most platforms have none, and that code takes four megabytes. Imports little: everybody loads this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
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
        self._loading: set[asyncio.Task[None]] = set()
        self._is_needed = False  # another node has made stacks

    def wake(self) -> Stacks:
        """The stacks themselves. Without rows there is nothing that they would have to load."""
        if self._awake is None:
            self._awake = self._make()
        return self._awake

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wake(), name)

    async def load(self) -> None:
        low, high = keys.prefix_range(ROOM)
        self._store.watch(low, high, self._others_changed)
        await self._load(low, high)
        self._store.on_departure(lambda node: self._soon(self._load(low, high)))

    def _others_changed(self, changed: Sequence[bytes] | None) -> None:
        self._is_needed = True

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Perhaps the node died while it worked on a stack."""
        task = asyncio.get_running_loop().create_task(work)
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def _load(self, low: bytes, high: bytes) -> None:
        if self._store.read(lambda reader: reader.scan(low, high, limit=1)):
            await self.wake().load()

    async def close(self) -> None:
        for task in self._loading:
            task.cancel()
        if self._awake is not None:
            await self._awake.close()

    def list(self) -> list[StackRecord]:
        return self.wake().list() if self._awake is not None or self._is_needed else []

    def referenced(self) -> set[str]:
        return self.wake().referenced() if self._awake is not None or self._is_needed else set()
