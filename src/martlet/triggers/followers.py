"""Followers: each takes the changes of one mapping's source, batch by batch and in order, to its function.

Records are dealt to lanes by their document, so that those of one document are given to the function one after the other, and
others do not wait for them. A lane has one batch with the function at a time, and goes on when that has succeeded or was
given up. The mapping's cursor in the log is durable and stands before the oldest record that is not done: after a crash a
function may see records again, but never misses one.

A batch that fails is tried again after a pause that doubles; where the mapping says so it is halved first, so that one bad
record is found and the others pass. It is given up after `retries`, or when its records are too old: then it goes to the
mapping's destination, else to the dead letters, and only after that the cursor passes it.
What could not run for now (throttled,
overloaded) does not count. Only the holder of the mapping's lease acts; the cursor moves under it.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import msgspec

from martlet.clock import Clock, random
from martlet.errors import Conflict, MartletError, NotFound, SandboxFailed, Throttled
from martlet.limits import LIMITS
from martlet.store import Lease, Store, Tx
from martlet.triggers import deliveries
from martlet.triggers.consumers import Dispatch
from martlet.triggers.event import DeadLetter, Event, event_id
from martlet.triggers.kinds import changes as kind
from martlet.triggers.kinds.changes import Record
from martlet.triggers.mappings import Mapping
from martlet.triggers.patterns import parse_pattern
from martlet.triggers.streams import Source
from martlet.types import Invocation, Outcome

__all__ = ["Destinations", "Follower", "cursor_name"]

_LEASE_MS: Final = 10_000
_BACKLOG_RECORDS: Final = 10_000
_BACKLOG_BYTES: Final = LIMITS["change_backlog_bytes"].default
_PAYLOAD_BYTES: Final = LIMITS["payload_bytes"].default
_DAY_SECONDS: Final = LIMITS["change_age_seconds"].default
_LAG_ENTRIES: Final = 1_000  # of others, that the cursor may be behind what was read
_RETRY_SECONDS: Final = (0.1, 60.0)  # after a failure: doubled each time, with jitter
_AFTER_ERROR_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger("martlet.triggers")


class Destinations(Protocol):
    """Where batches go that are given up."""

    def check(self, arn: str) -> str:
        """ "" if batches can go there, else why not."""

    async def send(self, arn: str, body: bytes) -> None:
        """Hand it over, durably. Raises `MartletError`."""


class _Lane:
    """Records of some documents, in order; the first of them are with the function."""

    __slots__ = ("more", "records", "task")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.task: asyncio.Task[None] | None = None
        self.more = asyncio.Event()  # set by each record that comes


class Follower:
    """Runs from `start` to `stop`. `result` says how the last batch ended, in Lambda's words."""

    def __init__(
        self,
        mapping: Mapping,
        source: Source,
        store: Store,
        dispatch: Dispatch,
        clock: Clock,
        *,
        holder: str,
        destinations: Destinations | None = None,
    ) -> None:
        self.mapping = mapping
        self.result = "No records processed"
        self._source = source
        self._store = store
        self._dispatch = dispatch
        self._clock = clock
        self._holder = holder
        self._destinations = destinations
        self._filters = [parse_pattern(pattern) for pattern in mapping.patterns]
        self._name = cursor_name(mapping.uuid)
        self._lanes = [_Lane() for _ in range(mapping.lanes)]
        self._waiting = self._waiting_bytes = 0
        self._read_to = 0  # everything up to here is in lanes, or concerns nobody
        self._valid = False  # whether that is so: if not, it begins anew at the cursor
        self._lease: Lease | None = None
        self._renew_at_ms = 0
        self._lost = asyncio.Event()  # of lease or cursor: begin anew from what the store says
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> int:
        """Lanes at work."""
        return sum(lane.task is not None for lane in self._lanes)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Take nothing more, and wait so long for what runs; what does not end by then is run again by the next start."""
        self._stopping = True
        for lane in self._lanes:
            lane.more.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        working = [lane.task for lane in self._lanes if lane.task is not None]
        if working:
            await asyncio.wait(working, timeout=grace_seconds)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if self._moving is not None:
            await asyncio.gather(self._moving, return_exceptions=True)
        await self._last_move()

    retire = stop

    async def _last_move(self) -> None:
        def write(tx: Tx) -> None:
            if self._lease is not None:
                self._move(tx, self._done_to())
                tx.lease_release(self._lease)

        try:
            if self._lease is not None and self._valid:
                await self._store.transact(write)
        except MartletError as error:
            _LOG.info("mapping %s: records may be given again: %s", self.mapping.uuid, error.message)

    # --- reading

    async def _loop(self) -> None:
        while True:
            try:
                await self._follow()
            except NotFound as error:
                if not await self._skip(error):
                    await asyncio.sleep(_AFTER_ERROR_SECONDS)
            except MartletError as error:
                _LOG.error("mapping %s pauses: %s", self.mapping.uuid, error.message)
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
            if self._lost.is_set():
                await self._abandon()

    async def _follow(self) -> None:
        """From the durable cursor on, or from where an error ended it, until the lease is lost."""
        if not self._valid:
            self._read_to = self._store.read(lambda reader: reader.cursor(self._name))
            self._valid = True
        while not self._lost.is_set():
            if self._waiting >= _BACKLOG_RECORDS or self._waiting_bytes >= _BACKLOG_BYTES:
                self._room.clear()
                await self._until(self._room.wait())
                continue
            if self._store.head <= self._read_to:
                await self._until(self._store.wait(self._read_to))
                continue
            found, after = self._source.read(self._read_to)
            wanted = [record for record in found if kind.lets_through(record, self._filters)]
            if wanted and not await self._hold():
                return
            for record in wanted:
                self._deal(record)
            self._read_to = after
            if not wanted:
                await self._pass()
            await asyncio.sleep(0)

    async def _until(self, event: Coroutine[Any, Any, Any]) -> None:
        """Wait for it, renewing the lease meanwhile while lanes are at work."""
        waiting = asyncio.ensure_future(event)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            while not waiting.done() and not lost.done():
                timeout = _LEASE_MS / 3000 if self.running else None
                await asyncio.wait((waiting, lost), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if self.running and not await self._hold():
                    return
            if waiting.done():
                waiting.result()
        finally:
            waiting.cancel()
            lost.cancel()
            await asyncio.gather(waiting, lost, return_exceptions=True)

    async def _pass(self) -> None:
        """The log's entries of others: the cursor follows in steps, so that they can be trimmed."""
        at = self._store.read(lambda reader: reader.cursor(self._name))
        if not self._waiting and self._read_to - at >= _LAG_ENTRIES and await self._hold():
            self._moved()

    async def _skip(self, error: NotFound) -> bool:
        """Records that are no longer kept: said, and passed. False for a source that is not there."""
        first = error.details.get("first")
        if not isinstance(first, int):
            _LOG.info("mapping %s waits: %s", self.mapping.uuid, error.message)
            return False
        if first - 1 <= self._read_to:
            return False
        lost = (self._read_to + 1, first - 1)
        _LOG.warning("mapping %s: the changes %d to %d are no longer kept and are passed", self.mapping.uuid, *lost)
        self._read_to = first - 1
        if await self._hold():
            self._moved()
        return True

    def _deal(self, record: Record) -> None:
        lane = self._lanes[zlib.crc32(record.key) % len(self._lanes)]
        lane.records.append(record)
        self._waiting += 1
        self._waiting_bytes += len(record.body)
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._work(lane))
        lane.more.set()

    async def _abandon(self) -> None:
        """Forget what is in memory: somebody else goes on with it, or we do, from the cursor."""
        self._valid = False
        for lane in self._lanes:
            if lane.task is not None:
                lane.task.cancel()
                await asyncio.gather(lane.task, return_exceptions=True)
            lane.records.clear()
            lane.task = None
        self._waiting = self._waiting_bytes = 0
        self._lost.clear()

    # --- the lease and the cursor

    async def _hold(self) -> bool:
        """Have the lease for a while. While another node has it, wait until it ends, and say False."""
        now_ms = self._clock.now_ms()
        if self._lease is not None and now_ms < self._renew_at_ms:
            return True

        def take(tx: Tx) -> Lease | int:
            lease = tx.lease_take(self._name, self._holder, _LEASE_MS)
            if lease is None:
                other = tx.lease(self._name)
                return _LEASE_MS if other is None else other.expires_at_ms - now_ms
            at = tx.cursor(self._name)
            if self._lease is not None and lease.epoch == self._lease.epoch:
                return lease
            return lease if at <= self._read_to else 0  # somebody else was here meanwhile, and has gone further

        found = await self._store.transact(take)
        if isinstance(found, Lease):
            self._lease, self._renew_at_ms = found, now_ms + _LEASE_MS // 3
            return True
        self._lease = None
        self._lost.set()
        await asyncio.sleep(max(found, 0) / 1000)
        return False

    def _done_to(self) -> int:
        """Every record up to here is done."""
        heads = [lane.records[0].seq for lane in self._lanes if lane.records]
        return min(heads) - 1 if heads else self._read_to

    def _moved(self) -> None:
        """Records are done: let the cursor follow. One commit at a time, each for all that was done by then."""
        if self._moving is None:
            self._moving = asyncio.get_running_loop().create_task(self._move_on())

    async def _move_on(self) -> None:
        at = -1
        try:
            while self._valid and at != self._done_to():
                at = self._done_to()
                await self._store.transact(lambda tx, at=at: self._move(tx, at))  # type: ignore[misc]
        except Conflict:
            self._lease = None
            self._lost.set()
        except MartletError as error:
            _LOG.error("mapping %s: the cursor does not move: %s", self.mapping.uuid, error.message)
        finally:
            self._moving = None

    def _move(self, tx: Tx, to: int) -> None:
        at = tx.cursor(self._name)
        if self._lease is None:
            raise Conflict("the lease is lost")
        if to > at:
            tx.cursor_move(self._name, at, to, self._lease)

    # --- a lane

    async def _work(self, lane: _Lane) -> None:
        try:
            while lane.records and not self._stopping:
                await self._window(lane)
                await self._run(lane, self._batch(lane))
        except Exception:  # a lane that ended silently would hold its records back for ever
            _LOG.exception("mapping %s: a lane failed and begins anew", self.mapping.uuid)
            self._lost.set()
        finally:
            lane.task = None

    async def _window(self, lane: _Lane) -> None:
        """Let records gather until there are enough, or the window is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.mapping.window_seconds
        while len(lane.records) < self.mapping.batch_size and until > loop.time() and not self._stopping:
            lane.more.clear()
            try:
                async with asyncio.timeout_at(until):
                    await lane.more.wait()
            except TimeoutError:
                return

    def _batch(self, lane: _Lane) -> list[Record]:
        batch: list[Record] = []
        size = 16
        for record in lane.records:
            size += kind.batch_bytes(record)
            if len(batch) == self.mapping.batch_size or (batch and size > _PAYLOAD_BYTES):
                break
            batch.append(record)
        return batch

    async def _run(self, lane: _Lane, batch: list[Record]) -> None:
        """One batch to its end: parts of it in order, each until it has succeeded or is given up."""
        parts: list[tuple[list[Record], int]] = [(batch, 0)]  # (records, runs that failed), the next one last
        pauses = 0
        while parts and not self._stopping:
            part, failures = parts.pop()
            part = await self._young(lane, part, failures)
            if not part:
                continue
            outcome = await self._invoke(part)
            if outcome.refusal is not None and _may_pass(outcome.refusal):
                parts.append((part, failures))
                await self._pause(pauses := pauses + 1)
                continue
            left = self._left(part, outcome)
            self._finish(lane, part[: len(part) - len(left)])
            if not left:
                pauses = 0
                continue
            if len(left) < len(part):  # some went well: the others begin anew
                failures = 0
            self.result = "PROBLEM: Function call failed"
            if self.mapping.bisect and len(left) > 1 and outcome.refusal is None:
                half = len(left) // 2
                parts += [(left[half:], failures), (left[:half], failures)]
            elif 0 <= self.mapping.retries <= failures:
                await self._give_up(lane, left, "RetryAttemptsExhausted", failures + 1, outcome)
            else:
                parts.append((left, failures + 1))
                await self._pause(pauses := pauses + 1)

    async def _young(self, lane: _Lane, part: list[Record], failures: int) -> list[Record]:
        """Those that are not too old; the others, which come first, are given up."""
        age = self.mapping.max_age_seconds
        oldest_ms = self._clock.now_ms() - (age if age >= 0 else _DAY_SECONDS) * 1000
        count = 0
        while count < len(part) and part[count].at_ms < oldest_ms:
            count += 1
        if count:
            await self._give_up(lane, part[:count], "RecordAgeExceeded", failures, Outcome())
        return part[count:]

    def _left(self, part: list[Record], outcome: Outcome) -> list[Record]:
        """What of a run is to come again."""
        if outcome.refusal is not None or outcome.error:
            return part
        if self.mapping.report_failures:
            place = kind.failed_from(outcome.payload, part)
            if place is not None:
                return part[place:]
        self.result = "OK"
        return []

    def _finish(self, lane: _Lane, records: list[Record]) -> None:
        """These are done: the lane's first ones."""
        for record in records:
            lane.records.popleft()
            self._waiting -= 1
            self._waiting_bytes -= len(record.body)
        if records:
            self._room.set()
            self._moved()

    async def _pause(self, times: int) -> None:
        least, most = _RETRY_SECONDS
        await asyncio.sleep(min(least * 2 ** min(times - 1, 20), most) * random.uniform(0.5, 1.0))

    async def _invoke(self, part: list[Record]) -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(_: Invocation, outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        invocation = Invocation(self.mapping.function, kind.payload(part), self._id(part), done, source="changes")
        try:
            self._dispatch(invocation)
        except MartletError as error:
            return Outcome(refusal=error)
        except Exception as error:
            _LOG.exception("dispatch of a batch of mapping %s failed", self.mapping.uuid)
            return Outcome(refusal=SandboxFailed(f"dispatch failed: {error!r}"))
        return await ended

    def _id(self, part: list[Record]) -> str:
        """The same for every run of the same records."""
        return event_id(self.mapping.uuid, part[0].seq, part[-1].seq)

    # --- what is given up

    async def _give_up(self, lane: _Lane, part: list[Record], condition: str, runs: int, outcome: Outcome) -> None:
        mapping = self.mapping
        letter = kind.letter(
            part,
            source_arn=mapping.queue_arn,
            function_arn=mapping.function_arn,
            request_id=self._id(part),
            condition=condition,
            attempts=runs,
            error_type=outcome.error,
            now_ms=self._clock.now_ms(),
        )
        sent = False
        if mapping.on_failure and self._destinations is not None:
            try:
                await self._destinations.send(mapping.on_failure, letter)
                sent = True
            except MartletError as error:
                _LOG.error("mapping %s: %s takes no batch: %s", mapping.uuid, mapping.on_failure, error.message)
        if not sent:
            await self._bury(part, condition, runs, outcome)
        self._finish(lane, part)

    async def _bury(self, part: list[Record], condition: str, runs: int, outcome: Outcome) -> None:
        """Nobody else takes it: keep it among the dead letters."""
        refusal = outcome.refusal
        event = Event(
            self._id(part),
            "changes",
            self.mapping.app,
            self.mapping.queue_arn.rpartition(":")[2],
            self.mapping.function,
            msgspec.Raw(kind.payload(part)),
        )
        letter = DeadLetter(
            event=event,
            condition={"RetryAttemptsExhausted": "RetriesExhausted", "RecordAgeExceeded": "EventAgeExceeded"}[condition],
            attempts=runs,
            error_type=refusal.code if refusal is not None else outcome.error_type,
            error=refusal.problem() if refusal is not None else deliveries.error_object(outcome.payload),
            accepted_at_ms=part[0].at_ms,
            dead_at_ms=self._clock.now_ms(),
        )
        while True:
            try:
                await self._store.transact(lambda tx: deliveries.bury(tx, letter))
                return
            except MartletError as error:
                _LOG.error("mapping %s: a dead letter cannot be kept yet: %s", self.mapping.uuid, error.message)
                await asyncio.sleep(_AFTER_ERROR_SECONDS)


def cursor_name(uuid: str) -> str:
    """Of a mapping's cursor in the log, and of its lease."""
    return f"changes/{uuid}"


def _may_pass(refusal: MartletError) -> bool:
    """Whether the same batch could run later without anybody's doing."""
    return isinstance(refusal, Throttled) or refusal.http_status in (429, 503)
