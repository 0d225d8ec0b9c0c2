"""Several rooms that make what an app declares, as the one port `Consumers`."""

from __future__ import annotations

from martlet.apps.ports import Consumers
from martlet.types import AppGraph

__all__ = ["Declared"]


class Declared:
    """Asks each of `rooms` in turn."""

    def __init__(self, *rooms: Consumers) -> None:
        self._rooms = rooms

    def check(self, app: str, graph: AppGraph) -> None:
        """Whether `prepare` would take it. Raises `MartletError`."""
        for room in self._rooms:
            room.check(app, graph)

    async def prepare(self, app: str, graph: AppGraph) -> None:
        """Make what `graph` declares. May be repeated. Raises `MartletError`."""
        for room in self._rooms:
            await room.prepare(app, graph)

    async def consume(self, app: str, graph: AppGraph) -> None:
        """From now on the app's functions are called for what they declare, and for nothing else. May be repeated."""
        for room in self._rooms:
            await room.consume(app, graph)
