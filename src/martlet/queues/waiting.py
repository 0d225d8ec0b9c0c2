"""Receivers that wait for a message: woken by what happens to the queue, or by the one timer of the queue's next due message.

Nothing here is a fact; a wake-up that finds nothing costs one look at the queue. Lost it cannot be: who has joined sees that
the queue's version has moved on since they looked.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from martlet.clock import Clock

__all__ = ["Waiting"]


class _Room:
    """Who waits at one queue."""

    __slots__ = ("due_at_ms", "joined", "range", "timer", "version", "waiters")

    def __init__(self) -> None:
        self.joined = 0
        self.version = 0
        self.waiters: deque[asyncio.Future[None]] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.due_at_ms = 0
        self.range = (b"", b"")  # of the keys of what can be received, now or later


class Place:
    """One receiver's place in the waiting room of one queue."""

    __slots__ = ("room", "seen")

    def __init__(self, room: _Room) -> None:
        self.room = room
        self.seen = room.version

    def stands(self, low: bytes, high: bytes) -> None:
        """Where the queue's messages are."""
        self.room.range = (low, high)

    def look(self) -> None:
        """From here on a change counts as new."""
        self.seen = self.room.version

    async def wait(self, until: float) -> None:
        """Return when there may be something new since `look`, or at `until` (time of the loop)."""
        room = self.room
        if room.version != self.seen:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        room.waiters.append(waiter)
        timer = loop.call_at(until, _end, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                _wake(room, 1)  # it was meant for somebody
            raise
        finally:
            timer.cancel()
            if waiter in room.waiters:
                room.waiters.remove(waiter)


class Waiting:
    """The waiting rooms of all queues, by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self.closed = False

    @contextmanager
    def join(self, name: str) -> Iterator[Place]:
        """A place at the queue; while somebody has one, its changes are noticed."""
        room = self._rooms.setdefault(name, _Room())
        room.joined += 1
        try:
            yield Place(room)
        finally:
            room.joined -= 1
            if not room.joined:
                self._rooms.pop(name, None)
                if room.timer is not None:
                    room.timer.cancel()

    def wake(self, name: str, count: int = 1) -> None:
        """So many messages can be received now."""
        room = self._rooms.get(name)
        if room is not None and count > 0:
            _wake(room, count)

    def wake_all(self, name: str) -> None:
        """The queue is not what it was: gone, or emptied."""
        room = self._rooms.get(name)
        if room is not None:
            _wake(room, len(room.waiters))

    def changed(self, keys: Sequence[bytes] | None) -> None:
        """Another node changed these rows (sorted; None: any): what it sent may be received here, what it hid comes back."""
        for room in self._rooms.values():
            low, high = room.range
            count = len(room.waiters) if keys is None else bisect_left(keys, high) - bisect_left(keys, low)
            if count:
                _wake(room, count)

    def due(self, name: str, at_ms: int | None) -> None:
        """A message can be received at that time."""
        room = self._rooms.get(name)
        if room is None or not at_ms or (room.timer is not None and room.due_at_ms <= at_ms):
            return
        if room.timer is not None:
            room.timer.cancel()
        delay_seconds = max(at_ms - self._clock.now_ms(), 0) / 1000 + 0.001
        room.due_at_ms = at_ms
        room.timer = asyncio.get_running_loop().call_later(delay_seconds, self._ring, room)

    def close(self) -> None:
        """Nobody waits any more."""
        self.closed = True
        for room in self._rooms.values():
            _wake(room, len(room.waiters))

    @staticmethod
    def _ring(room: _Room) -> None:
        room.timer = None
        _wake(room, 1)


def _wake(room: _Room, count: int) -> None:
    room.version += 1
    while room.waiters and count > 0:
        waiter = room.waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            count -= 1


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
