"""Tells others of changes: entries are written with the change, and read here behind a durable cursor.

At least once, in order for each target while it takes them. What a target does not take now waits in a row and is tried again
with growing pauses for a day; a target that is gone is told nothing more. Entries for functions of apps are not for us: the
triggers read them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from martlet.clock import Clock
from martlet.errors import AccessDenied, InvalidInput, LimitExceeded, MartletError, NotFound, ServiceError, StoreFailed
from martlet.objects import events
from martlet.objects.events import EVENT, Cause, Notice
from martlet.objects.names import arn_of
from martlet.objects.rows import Bucket, Version
from martlet.store import LogEntry, Store, Tx, keys

__all__ = ["Notices", "Send"]

_LOG = logging.getLogger("martlet.objects")
_CURSOR: Final = "objects.notices"
_LATER: Final = "s3.later"  # (.., when, seq) -> _Later
_READ: Final = 200
_LAG: Final = 1_000
_PAUSE_MS: Final = (1_000, 300_000)
_AGE_MS: Final = 86_400_000
_BUS: Final = "events"

Send = Callable[[Notice], Awaitable[None]]


class _Later(msgspec.Struct, frozen=True):
    notice: Notice
    since_ms: int
    tries: int


_ENCODE: Final = msgspec.json.Encoder()
_NOTICE: Final = msgspec.json.Decoder(Notice)
_LATER_DECODER: Final = msgspec.json.Decoder(_Later)


class Notices:
    """The tellers of one platform. `send(notice)` reaches a queue, topic, function or the bus ("events")."""

    def __init__(self, store: Store, clock: Clock, region: str, send: Send) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._send = send
        self._task: asyncio.Task[None] | None = None
        self._position = 0

    async def start(self) -> None:
        def begin(tx: Tx) -> int:
            at = tx.cursor(_CURSOR)
            first = max(at, self._store.first - 1) if at else tx.last_seq
            if first != at:
                tx.cursor_move(_CURSOR, at, first)
            return first

        self._position = await self._store.transact(begin)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- in the transaction of the change

    def note(self, tx: Tx, bucket: Bucket, event: str, key: str, version: Version, cause: Cause) -> None:
        """Write what is to be told of `event` ("ObjectCreated:Put")."""
        told = bucket.settings.get("notification") or {}
        heard = bucket.settings.get("apps") or ()
        if not told and not heard:
            return
        place, source = key.encode()[:256], arn_of(bucket.name)

        def message(configuration_id: str) -> dict[str, Any]:
            at = (event, tx.now_ms, bucket.region, bucket.name, key, version, cause, configuration_id)
            return {"Records": [events.record(*at)]}

        for id, target in events.targets(told, event, key):
            tx.append(EVENT, place, _ENCODE.encode(Notice(target, message(id), source=source)))
        if "EventBridgeConfiguration" in told:
            one = events.bus_event(event, tx.now_ms, bucket.region, bucket.name, key, version, cause)
            tx.append(EVENT, place, _ENCODE.encode(Notice(_BUS, one, source=source)))
        for one in heard:
            if events.matches(one["events"], one.get("filter"), event, key):
                notice = Notice("", message(one["function"]), one["app"], one["function"], source)
                tx.append(EVENT, place, _ENCODE.encode(notice))

    # --- behind the log

    async def _run(self) -> None:
        while True:
            try:
                async with self._store.turn("objects/notices", None) as is_new:  # of several nodes, one tells
                    if is_new:
                        self._position = max(self._position, self._store.read(lambda reader: reader.cursor(_CURSOR)))
                    while True:
                        await self._step()
            except StoreFailed:
                return
            except MartletError as error:
                _LOG.warning("telling of objects pauses: %s", error)
                await asyncio.sleep(1)

    async def _step(self) -> None:
        now_ms = self._clock.now_ms()
        due = self._due()
        if due is not None and due <= now_ms:
            await self._retry(now_ms)
        if self._store.head <= self._position:
            seconds = None if due is None else min(max(due - now_ms, 10) / 1000, 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._store.wait(self._position), seconds)
            return
        entries = self._store.tail(max(self._position, self._store.first - 1), _READ)
        mine = [(entry, notice) for entry in entries if (notice := _notice(entry)) is not None]
        failed = await self._tell([(entry.seq, notice, 0, entry.at_ms) for entry, notice in mine])
        last = entries[-1].seq
        at = self._store.read(lambda reader: reader.cursor(_CURSOR))
        if mine or last - at >= _LAG:

            def move(tx: Tx) -> None:
                for seq, later in failed:
                    tx.put(keys.encode(_LATER, now_ms + _pause(later.tries), seq), _ENCODE.encode(later))
                tx.cursor_move(_CURSOR, tx.cursor(_CURSOR), last)

            await self._store.transact(move)
        self._position = last

    def _due(self) -> int | None:
        found = self._store.read(lambda reader: reader.scan(*keys.prefix_range(_LATER), limit=1))
        return int(str(keys.decode(found[0][0])[1])) if found else None

    async def _retry(self, now_ms: int) -> None:
        low, _ = keys.prefix_range(_LATER)
        found = self._store.read(lambda reader: reader.scan(low, keys.encode(_LATER, now_ms + 1), limit=_READ))
        waiting = [(key, int(str(keys.decode(key)[2])), _LATER_DECODER.decode(raw)) for key, raw in found]
        failed = await self._tell([(seq, one.notice, one.tries, one.since_ms) for _, seq, one in waiting])

        def write(tx: Tx) -> None:
            for key, _, _ in waiting:
                tx.delete(key)
            for seq, later in failed:
                tx.put(keys.encode(_LATER, now_ms + _pause(later.tries), seq), _ENCODE.encode(later))

        await self._store.transact(write)

    async def _tell(self, notices: list[tuple[int, Notice, int, int]]) -> list[tuple[int, _Later]]:
        """Tell each target its notices, in order; those that are to be told again."""
        lines: dict[str, list[tuple[int, Notice, int, int]]] = {}
        for one in notices:
            lines.setdefault(one[1].target, []).append(one)
        failed: list[tuple[int, _Later]] = []

        async def tell(line: list[tuple[int, Notice, int, int]]) -> None:
            for seq, notice, tries, since_ms in line:
                if not await self._told(notice, since_ms):
                    failed.append((seq, _Later(notice, since_ms, tries + 1)))

        await asyncio.gather(*(tell(line) for line in lines.values()))
        return failed

    async def _told(self, notice: Notice, since_ms: int) -> bool:
        """True: told, or there is no use in telling."""
        try:
            await self._send(notice)
        except (NotFound, AccessDenied, InvalidInput, LimitExceeded) as error:
            _LOG.warning("%s is not told of a change of %s: %s", notice.target, notice.source, error)
        except ServiceError as error:
            if error.http_status >= 500 or error.http_status == 429:
                return self._clock.now_ms() - since_ms > _AGE_MS
            _LOG.warning("%s is not told of a change of %s: %s", notice.target, notice.source, error)
        except MartletError:
            return self._clock.now_ms() - since_ms > _AGE_MS
        return True


def _notice(entry: LogEntry) -> Notice | None:
    if entry.topic != EVENT:
        return None
    found = _NOTICE.decode(entry.body)
    return None if found.app else found


def _pause(tries: int) -> int:
    least, most = _PAUSE_MS
    return min(least << min(tries, 20), most)
