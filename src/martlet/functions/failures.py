"""Failed events, kept so that `martlet replay` can run one again: the newest of each function.

Failures of asynchronous events are written with their end. Those of synchronous ones go through memory, like logs: nobody
waits for them, and a crash may lose the last half second of them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from martlet.errors import MartletError, NotFound
from martlet.limits import LIMITS
from martlet.store import Reader, Store, Tx, keys

__all__ = ["FailedEvent", "Failures"]

_ORDER: Final = "failed.order"  # (.., function, at_ms, id) -> nothing
_EVENT: Final = "failed.event"  # (.., id) -> FailedEvent
_KEPT: Final = LIMITS["failed_events_per_function"].default
_BYTES: Final = LIMITS["failed_event_bytes"].default
_FLUSH_SECONDS: Final = 0.5
_LOG: Final = logging.getLogger("martlet.failures")


class FailedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event whose function failed, with what it takes to run it again."""

    id: str  # request id
    function: str
    qualifier: str  # as it was called; "" for none
    payload: bytes
    at_ms: int
    source: str
    error_type: str
    client_context: str = ""


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(FailedEvent).decode


class Failures:
    """The newest `failed_events_per_function` failed events of each function."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, list[FailedEvent]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()
        self._flushing: asyncio.Task[None] | None = None

    def record(self, event: FailedEvent) -> None:
        """Keep it, soon. Of a function that fails fast only the newest matter."""
        if len(event.payload) > _BYTES:
            return
        waiting = self._waiting.setdefault(event.function, [])
        waiting.append(event)
        if len(waiting) > _KEPT:
            del waiting[0]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write what waits, a function at a time. When it returns, every failure that was recorded before can be read."""
        async with self._writing:
            waiting, self._waiting = self._waiting, {}
            for events in waiting.values():
                try:
                    for start in range(0, len(events), 16):
                        part = events[start : start + 16]
                        await self._store.transact(lambda tx, part=part: _write_all(tx, part))  # type: ignore[misc]
                except MartletError as error:  # the store is full: replays are a convenience, the function's error was told
                    _LOG.warning("failed events of %s are not kept: %s", events[0].function, error.message)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await self._flushing
        await self.flush()

    def get(self, request_id: str) -> FailedEvent:
        """Raises NotFound."""
        for waiting in self._waiting.values():
            for event in reversed(waiting):
                if event.id == request_id:
                    return event
        raw = self._store.read(lambda reader: reader.get(keys.encode(_EVENT, request_id)))
        if raw is None:
            raise NotFound(
                f"there is no failed event {request_id}",
                remedy=f"`martlet replay --list` shows what is kept: the last {_KEPT} failed events of each function, without "
                f"those of synchronous invocations that are larger than {_BYTES:,} bytes (failed_event_bytes)",
            )
        return _DECODE(raw)

    def list(self, function: str = "", limit: int = _KEPT) -> list[FailedEvent]:
        """The kept failed events of a function, newest first; without one, so many of each function, by its name."""

        def look(reader: Reader) -> list[FailedEvent]:
            if function:
                return _newest(reader, function, limit)
            found: list[FailedEvent] = []
            low, high = keys.prefix_range(_ORDER)
            while rows := reader.scan(low, high, limit=1):
                name = str(keys.decode(rows[0][0])[1])
                found += _newest(reader, name, limit)
                low = keys.prefix_range(_ORDER, name)[1]
            return found

        return self._store.read(look)


def _newest(reader: Reader, function: str, limit: int) -> list[FailedEvent]:
    rows = reader.scan(*keys.prefix_range(_ORDER, function), limit=limit, reverse=True)
    found = (reader.get(keys.encode(_EVENT, keys.decode(key)[3])) for key, _ in rows)
    return [_DECODE(raw) for raw in found if raw is not None]


def _write_all(tx: Tx, events: list[FailedEvent]) -> None:
    for event in events:
        write(tx, event)


def write(tx: Tx, event: FailedEvent) -> None:
    """Keep a failed event, and drop the function's oldest beyond the limit. One that failed before is kept once."""
    before = tx.get(keys.encode(_EVENT, event.id))
    if before is not None:
        earlier = _DECODE(before)
        tx.delete(keys.encode(_ORDER, earlier.function, earlier.at_ms, earlier.id))
    tx.put(keys.encode(_EVENT, event.id), _ENCODE(event))
    tx.put(keys.encode(_ORDER, event.function, event.at_ms, event.id), b"")
    rows = tx.scan(*keys.prefix_range(_ORDER, event.function), limit=2 * _KEPT)
    for key, _ in rows[: max(len(rows) - _KEPT, 0)]:
        tx.delete(key)
        tx.delete(keys.encode(_EVENT, keys.decode(key)[3]))


def forget(tx: Tx, function: str) -> None:
    """The function is gone: so are its failed events."""
    for key, _ in tx.scan(*keys.prefix_range(_ORDER, function), limit=2 * _KEPT):
        tx.delete(key)
        tx.delete(keys.encode(_EVENT, keys.decode(key)[3]))
