"""A request's body that is handed on while it comes in: bounded, the reader sets the pace. No I/O in here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["BodyStream", "Upload"]

_AHEAD_BYTES = 262_144  # waiting for the reader; then the connection stops reading


class BodyStream:
    """The connection feeds, one reader takes. `on_demand` is called when the reader asks and there is room again."""

    __slots__ = ("_parts", "_waiter", "asked", "failed", "finished", "length", "on_demand", "size")

    def __init__(self, on_demand: Callable[[], None], length: int = -1) -> None:
        self.length = length  # of the whole body; -1: nobody knows
        self._parts: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.on_demand = on_demand
        self.asked = False
        self.finished = False
        self.failed = False
        self.size = 0  # bytes that wait

    @property
    def full(self) -> bool:
        return self.size >= _AHEAD_BYTES

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self.size += len(data)
        self._wake()

    def finish(self) -> None:
        """The body is whole."""
        self.finished = True
        self._wake()

    def fail(self) -> None:
        """The rest will not come."""
        if not self.finished:
            self.failed = True
            self._wake()

    async def take(self) -> tuple[bytes, bool] | None:
        """(what came, whether there is more); None if the rest will not come."""
        self.asked = True
        self.on_demand()
        while not (self._parts or self.finished or self.failed):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.failed:
            return None
        data = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        if not self.finished:
            self.on_demand()
        return data, not self.finished

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Upload:
    """A request whose body is on its way."""

    __slots__ = ("body", "chunked", "missing", "received", "request", "started_ns", "stream")

    def __init__(self, request: Any, chunked: Any, missing: int, started_ns: int) -> None:
        self.request = request
        self.stream: BodyStream | None = None  # a body that is served while it comes in
        self.received = 0
        self.chunked = chunked
        self.missing = missing
        self.body = bytearray() if chunked is None else chunked.body
        self.started_ns = started_ns
