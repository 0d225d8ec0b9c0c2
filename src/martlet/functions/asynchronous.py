"""Asynchronous invocation: events that were acknowledged are durable, run, run again if they fail, and end somewhere.

One row for each event, written before its acknowledgement and removed, in one commit with what follows from it (the next
event of a destination, a record on its way to a queue), after it ended. A place of a function's `asynchronous_concurrency`
is free again only after that commit: so a crash repeats at most what was in flight.

Why not the delivery loop of `triggers`: that one turns log entries into deliveries by four commits and eight rows for each
event, which is right for schedules and changes, whose cause is a log entry; here the request is the cause, the caller waits
for its commit, and thousands come a second. Its rules (retries, back-off, ages) are the same; that room lies above this one.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from martlet.clock import Clock, random, uuid4_text
from martlet.errors import InvalidInput, MartletError, SandboxFailed, Throttled
from martlet.functions import failures
from martlet.functions.failures import FailedEvent
from martlet.functions.lineage import passed_through
from martlet.limits import LIMITS
from martlet.store import Reader, Store, Tx, is_alive, keys
from martlet.types import Invocation, Outcome

__all__ = ["Asynchronous", "Event", "Treatment"]

_ROW: Final = "async.event"  # (.., id) -> Event
_OUT: Final = "async.out"  # (.., id) -> Parcel: a record on its way to a queue, topic, bus or bucket
_NODE_ROW: Final = "async.node.event"  # (.., node, id): the same of a node of a shared database, which alone runs it
_NODE_OUT: Final = "async.node.out"
_ADOPTED: Final = 20  # rows that one transaction takes over: payloads are at most 1 MB
_PAGE: Final = 500
_CONCURRENCY: Final = LIMITS["asynchronous_concurrency"].default
_AT_MOST: Final = LIMITS["asynchronous_events"].default
_AGE_SECONDS: Final = LIMITS["delivery_age_seconds"].default
_HOPS: Final = LIMITS["recursion_hops"].default
_RETRIES: Final = 2
_RETRY_MS: Final = 60_000  # Lambda: one minute before the first retry, two before the second
_BACKOFF_MS: Final = (1_000, 300_000)  # Lambda: throttled, from 1 s doubling up to 5 min
_HELD_BYTES: Final = 67_108_864  # payloads in memory; the others are read again when their turn comes
_SETTLE_BYTES: Final = 8_388_608
_KEPT_RESPONSE_BYTES: Final = 1_048_576
_CROWD: Final = 4  # events being accepted at one time, from which on the accepted ones wait a moment to be started
_CROWD_SECONDS: Final = 0.02  # for so long after the last crowd
_BACKLOG: Final = 2_000  # waiting events for which one more of a function runs while events are being accepted
_LINGER_SECONDS: Final = 0.01  # longest time an end waits for an accepted event to share its commit
_LOOK_AGAIN_SECONDS: Final = 60.0  # the wall clock may jump
_AFTER_ERROR_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger("martlet.asynchronous")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An acknowledged event. `runs` counts ends with a function error; `response` is the last of them."""

    id: str
    function: str
    qualifier: str = ""  # as it was called; "" for none
    payload: bytes
    accepted_at_ms: int
    ready_at_ms: int
    runs: int = 0
    trace: str = ""
    response: bytes = b""
    error_type: str = ""
    executed: str = ""


class Parcel(msgspec.Struct, frozen=True):
    """A record for a destination outside this room."""

    arn: str
    record: bytes  # JSON


class Treatment(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the events of one qualifier."""

    retries: int = _RETRIES
    age_seconds: int = _AGE_SECONDS
    on_success: str = ""
    on_failure: str = ""
    dead_letter: str = ""
    loops: bool = False  # recursion is allowed


class Around(Protocol):
    """The functions room, as far as this needs it."""

    def dispatch(self, invocation: Invocation) -> None: ...

    def reserved(self, name: str) -> int | None: ...


class _Waiting(NamedTuple):
    """An event of a lane, in the order of its time. Compared by the first two fields only: the second is unique."""

    ready_at_ms: int
    number: int
    id: str
    event: Event | None  # None: its payload is in the store only


class _Lane:
    """The events of one function. `backoffs`: of those that were throttled, how often."""

    __slots__ = ("backoffs", "running", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.running = 0
        self.backoffs: dict[str, int] = {}


class _Ended(NamedTuple):
    event: Event
    outcome: Outcome
    executed: str
    condition: str = ""


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Event).decode
_DECODE_PARCEL = msgspec.msgpack.Decoder(Parcel).decode


class _Rows:
    """Where the events and parcels of one owner are: a node of a shared database, or "" for the only process there is."""

    __slots__ = ("events", "node", "parcels")

    def __init__(self, node: str) -> None:
        self.node = node
        self.events = (_NODE_ROW, node) if node else (_ROW,)
        self.parcels = (_NODE_OUT, node) if node else (_OUT,)

    def event(self, id: str) -> bytes:
        return keys.encode(*self.events, id)

    def parcel(self, id: str) -> bytes:
        return keys.encode(*self.parcels, id)

    def is_ours(self, tx: Tx, id: str) -> bool:
        """Whether no other node has taken it over."""
        return not self.node or tx.get(self.event(id)) is not None


def _owners(reader: Reader) -> set[str]:
    """Whoever has events or parcels, "" for an only process (of a store that was copied)."""
    found = {""}
    for table in (_NODE_ROW, _NODE_OUT):
        low, high = keys.prefix_range(table)
        while page := reader.scan(low, high, 1):
            node = str(keys.decode(page[0][0])[1])
            found.add(node)
            low = keys.prefix_range(table, node)[1]
    return found


class Asynchronous:
    """The queue of asynchronous events of one platform. All methods run on the event loop."""

    def __init__(
        self,
        store: Store,
        functions: Around,
        *,
        clock: Clock,
        region: str,
        treatment: Callable[[str, str], Treatment],
        arn_of: Callable[[str, str], str],
        deliver: Callable[[str, dict[str, Any]], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._functions = functions
        self._clock = clock
        self._region = region
        self._treatment = treatment
        self._arn_of = arn_of
        self._deliver = deliver
        self._lanes: dict[str, _Lane] = {}
        self._count = 0
        self._numbers = 0
        self._held_bytes = 0
        self._ended: list[_Ended] = []
        self._settling: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._deferred: asyncio.TimerHandle | None = None
        self._accepting = 0  # events whose commit is under way
        self._crowded_until = 0.0  # the loop's time
        self._delivering: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = 0
        self._started = self._stopping = False
        self._settled = asyncio.Event()  # something has ended and is recorded
        self._rows = _Rows(store.node if store.shared else "")
        self._runs: set[str] = set()
        self._adopting: set[asyncio.Task[None]] = set()

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read what an earlier process left, and what nodes left that are gone, and go on with it."""
        await self._read_own()
        self._started = True
        parcels = self._store.read(lambda reader: reader.scan(*keys.prefix_range(*self._rows.parcels), limit=_PAGE))
        for key, raw in parcels:
            self._send(str(keys.decode(key)[-1]), _DECODE_PARCEL(raw))
        self._start_due()
        for node in sorted(self._store.read(_owners) - {self._rows.node}):
            await self._adopt(node)
        self._store.on_departure(self._departed)
        self._store.on_return(self._returned)

    async def _read_own(self) -> None:
        low, high = keys.prefix_range(*self._rows.events)
        while True:
            page = self._store.read(lambda reader, low=low: reader.scan(low, high, _PAGE))  # type: ignore[misc]
            for _, raw in page:
                event = _DECODE(raw)
                if event.id not in self._runs:
                    self._enter(event)
            if len(page) < _PAGE:
                break
            low = page[-1][0] + b"\x00"
            await asyncio.sleep(0)

    # --- other nodes ----------------------------------------------------------------------------------------------

    def _departed(self, node: str) -> None:
        self._in_background(self._adopt(node))

    def _returned(self) -> None:
        self._in_background(self._read_again())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, node: str) -> None:
        """Make a dead node's events ours, row by row: each has one owner at any time, and what that one still does with it is
        lost (`_Rows.is_ours`). What it was running runs again."""
        theirs = _Rows(node)

        def take(tx: Tx) -> tuple[list[Event], list[tuple[str, Parcel]]]:
            if self._store.shared and node and is_alive(tx, node, tx.now_ms):
                return [], []
            events, parcels = [], []
            for key, raw in tx.scan(*keys.prefix_range(*theirs.events), limit=_ADOPTED // 2):
                event = _DECODE(raw)
                tx.delete(key)
                tx.put(self._rows.event(event.id), raw)
                events.append(event)
            for key, raw in tx.scan(*keys.prefix_range(*theirs.parcels), limit=_ADOPTED - len(events)):
                id = str(keys.decode(key)[-1])
                tx.delete(key)
                tx.put(self._rows.parcel(id), raw)
                parcels.append((id, _DECODE_PARCEL(raw)))
            return events, parcels

        while not self._stopping:
            try:
                events, parcels = await self._store.transact(take)
            except MartletError as error:
                _LOG.error("the events of node %s are not taken over yet: %s", node, error.message)
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
                continue
            for event in events:
                self._offer(event)
            for id, parcel in parcels:
                self._send(id, parcel)
            if not events and not parcels:
                return

    async def _read_again(self) -> None:
        """We were taken for dead: another node may have our events, so that what waits is read anew."""
        for lane in self._lanes.values():
            self._count -= len(lane.waiting)
            self._held_bytes -= sum(len(one.event.payload) + len(one.event.response) for one in lane.waiting if one.event)
            lane.waiting.clear()
        await self._read_own()
        self._start_due()

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Start nothing more; wait at most so long for what runs. The rest is run again by the next start."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle()
        except TimeoutError:
            _LOG.warning("asynchronous events still run at the stop; they will be run again")
        if self._settling is not None:
            await self._settling
        for task in (*self._delivering, *self._adopting):
            task.cancel()
        await asyncio.gather(*self._delivering, return_exceptions=True)

    async def _idle(self) -> None:
        """Return when nothing runs and every end is recorded."""
        while any(lane.running for lane in self._lanes.values()):
            self._settled.clear()
            await self._settled.wait()

    @property
    def count(self) -> int:
        """Events that wait or run."""
        return self._count

    async def run_due(self) -> None:
        """Start what is due now, and return when all of it has ended and is recorded. For tests with a clock of their own."""
        self._crowded_until = 0.0
        self._start_due()
        while any(lane.running for lane in self._lanes.values()) or self._delivering:
            await self._idle()
            if self._delivering:
                await asyncio.wait(set(self._delivering))

    # --- in -------------------------------------------------------------------------------------------------------

    async def accept(self, function: str, qualifier: str, payload: bytes, *, request_id: str = "", trace: str = "") -> str:
        """Make an event durable, then return its id. Raises Throttled (asynchronous_events), or what the store raises."""
        if self._count >= _AT_MOST:
            raise Throttled(
                f"limit asynchronous_events is {_AT_MOST} events, and so many wait already",
                reason="CallerRateLimitExceeded",
            )
        now_ms = self._clock.now_ms()
        event = Event(
            id=request_id or uuid4_text(),
            function=function,
            qualifier=qualifier,
            payload=payload,
            accepted_at_ms=now_ms,
            ready_at_ms=now_ms,
            trace=trace,
        )
        key, row = self._rows.event(event.id), _ENCODE(event)
        if self._ended and self._settling is None:
            self._begin_settling()  # into the same commit
        self._accepting += 1
        if self._accepting >= _CROWD:
            self._crowded_until = asyncio.get_running_loop().time() + _CROWD_SECONDS
        try:
            await self._store.transact(lambda tx: tx.put(key, row))
        finally:
            self._accepting -= 1
        self._offer(event)
        return event.id

    def _offer(self, event: Event) -> None:
        self._enter(event)
        if self._started and not self._stopping:
            lane = self._lanes[event.function]
            if self._crowded():
                self._start_soon()
            elif lane.running < _CONCURRENCY:
                self._start_lane(lane, self._clock.now_ms())
                if lane.waiting and lane.running < _CONCURRENCY:
                    self._arm()

    def _start_soon(self) -> None:
        """Acknowledgements first; then several events at once wake an instance once."""
        if self._deferred is None:
            self._deferred = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._start_deferred)

    def _start_deferred(self) -> None:
        self._deferred = None
        if not self._stopping:
            self._start_due()

    def _crowded(self) -> bool:
        """Whether many events are being accepted, or were a moment ago: those of one commit are all accepted at once."""
        return asyncio.get_running_loop().time() < self._crowded_until

    def _places(self) -> int:
        """How many events of one function may run now. While many are being accepted, few: a burst is acknowledged first
        and run then. The more wait, the more run beside it, so that whoever never stops sending is slowed down, and the
        queue does not only grow."""
        if not self._crowded():
            return _CONCURRENCY
        return min(_CROWD + self._count // _BACKLOG, _CONCURRENCY)

    def _enter(self, event: Event) -> None:
        lane = self._lanes.get(event.function)
        if lane is None:
            lane = self._lanes[event.function] = _Lane()
        self._numbers += 1
        self._count += 1
        held: Event | None = event
        size = len(event.payload) + len(event.response)
        if self._held_bytes + size > _HELD_BYTES:
            held = None
        else:
            self._held_bytes += size
        heapq.heappush(lane.waiting, _Waiting(event.ready_at_ms, self._numbers, event.id, held))

    # --- out ------------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now_ms = self._clock.now_ms()
        for name in list(self._lanes):
            lane = self._lanes[name]
            self._start_lane(lane, now_ms)
            if not lane.running and not lane.waiting:
                del self._lanes[name]
        self._arm()

    def _start_lane(self, lane: _Lane, now_ms: int) -> None:
        waiting, places = lane.waiting, self._places()
        while waiting and lane.running < places and waiting[0].ready_at_ms <= now_ms and not self._stopping:
            entry = heapq.heappop(waiting)
            event = entry.event
            if event is not None:
                self._held_bytes -= len(event.payload) + len(event.response)
            else:
                event = self._again(entry.id)
                if event is None:
                    self._count -= 1
                    continue
            lane.running += 1
            self._runs.add(event.id)
            self._start(event)

    def _again(self, id: str) -> Event | None:
        raw = self._store.read(lambda reader: reader.get(self._rows.event(id)))
        return None if raw is None else _DECODE(raw)

    def _start(self, event: Event) -> None:
        if self._functions.reserved(event.function) == 0:
            self._end(_Ended(event, Outcome(), "", "ZeroReservedConcurrency"))
            return
        if event.trace.count("Lineage=") and not event.runs and self._loops(event):
            self._end(_Ended(event, Outcome(), "", "RecursiveInvocation"))
            return

        def done(invocation: Invocation, outcome: Outcome) -> None:
            self._end(_Ended(event, outcome, invocation.executed))

        name = f"{event.function}:{event.qualifier}" if event.qualifier else event.function
        invocation = Invocation(name, event.payload, event.id, done, source="event", trace_id=event.trace)
        try:
            self._functions.dispatch(invocation)
        except MartletError as error:
            done(invocation, Outcome(refusal=error))
        except Exception as error:
            _LOG.exception("dispatch of event %s failed", event.id)
            done(invocation, Outcome(refusal=SandboxFailed(f"dispatch failed: {error!r}")))

    def _loops(self, event: Event) -> bool:
        """Whether its chain has come through this function too often. Its header counts this time already."""
        return _times(event.trace, event.function) > _HOPS and not self._treatment(event.function, event.qualifier).loops

    def _end(self, ended: _Ended) -> None:
        """It is recorded at once, unless events are being accepted: a commit for ends alone would make those wait (measured:
        half as many acknowledged). Then it goes with the next accepted one, or soon."""
        self._ended.append(ended)
        if self._settling is not None:
            return
        if not self._accepting or len(self._ended) >= _CONCURRENCY // 2:
            self._begin_settling()
        elif self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._begin_settling)

    def _begin_settling(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._settling is None and self._ended:
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    def _arm(self) -> None:
        """One timer, for the earliest event that waits for its time."""
        if not self._started or self._stopping:
            return
        places = self._places()  # a lane that has none goes on when one of its events has ended
        times = [lane.waiting[0].ready_at_ms for lane in self._lanes.values() if lane.waiting and lane.running < places]
        if not times:
            return
        now_ms = self._clock.now_ms()
        at_ms = max(min(times), now_ms + 1)
        if self._timer is not None:
            if self._timer_at_ms <= at_ms and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer_at_ms = at_ms
        delay = min((at_ms - now_ms) / 1000, _LOOK_AGAIN_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._stopping:
            self._start_due()

    # --- how they ended -------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Record ends, many in one commit; only then are their places free."""
        first = True
        while self._ended:
            if self._accepting and not first and not self._stopping:
                break
            first = False
            batch = self._batch()
            now_ms = self._clock.now_ms()
            steps = [self._step_or_failure(ended, now_ms) for ended in batch]

            def write(tx: Tx, steps: list[_Step] = steps) -> list[_Step]:
                ours = [step for step in steps if self._rows.is_ours(tx, step.event.id)]
                for step in ours:
                    step.write(tx, self._rows)
                return ours

            try:
                kept = await self._store.transact(write)
            except MartletError as error:
                _LOG.error("how asynchronous events ended is not recorded yet: %s", error.message)
                if self._stopping:
                    break
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
                continue
            del self._ended[: len(batch)]
            for step in steps:
                self._after(step if len(kept) == len(steps) or step in kept else _Step(step.event))
            if self._crowded():
                self._start_soon()
            elif not self._stopping:
                self._start_due()
            self._settled.set()
        self._settling = None
        if self._ended and not self._stopping and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._begin_settling)

    def _batch(self) -> list[_Ended]:
        size = 0
        for count, ended in enumerate(self._ended, 1):
            size += 2 * len(ended.event.payload) + 2 * len(ended.outcome.payload)
            if size > _SETTLE_BYTES:
                return self._ended[: max(count - 1, 1)]
        return list(self._ended)

    def _after(self, step: _Step) -> None:
        lane = self._lanes[step.event.function]
        lane.running -= 1
        self._runs.discard(step.event.id)
        self._count -= 1
        if step.again is not None:
            if not step.failed:
                lane.backoffs[step.event.id] = lane.backoffs.get(step.event.id, 0) + 1
            self._enter(step.again)
        else:
            lane.backoffs.pop(step.event.id, None)
        for event in step.next:
            self._offer(event)
        for id, parcel in step.parcels:
            self._send(id, parcel)

    def _step_or_failure(self, ended: _Ended, now_ms: int) -> _Step:
        try:
            return self._step(ended, now_ms)
        except Exception:  # what one event brings along must not stop the others; it is kept for a replay
            _LOG.exception("the end of event %s cannot be judged; it counts as failed", ended.event.id)
            return self._failed(ended.event, "Refused", Treatment(), now_ms)

    def _step(self, ended: _Ended, now_ms: int) -> _Step:
        """What follows from the end of one event."""
        event, outcome = ended.event, ended.outcome
        treatment = self._treatment(event.function, event.qualifier)
        if ended.condition:
            return self._failed(event, ended.condition, treatment, now_ms)
        if outcome.refusal is not None:
            return self._refused(event, outcome.refusal, treatment, now_ms)
        if not outcome.error:
            event = _with_response(event, outcome, ended.executed)
            step = _Step(event)
            if treatment.on_success:
                self._dispose(step, treatment.on_success, _record(self._arn(event), event, "Success", now_ms))
            return step
        event = _with_response(event, outcome, ended.executed)
        if event.runs > treatment.retries:
            return self._failed(event, "RetriesExhausted", treatment, now_ms)
        ready_at_ms = now_ms + (_RETRY_MS << (event.runs - 1))
        if ready_at_ms - event.accepted_at_ms > treatment.age_seconds * 1000:
            return self._failed(event, "EventAgeExceeded", treatment, now_ms)
        return _Step(event, again=msgspec.structs.replace(event, ready_at_ms=ready_at_ms), failed=True)

    def _refused(self, event: Event, refusal: MartletError, treatment: Treatment, now_ms: int) -> _Step:
        """It did not run: for now (throttled, overloaded), or never will (the function is gone)."""
        passes = isinstance(refusal, Throttled) or (refusal.http_status >= 500 and not isinstance(refusal, InvalidInput))
        if not passes:
            _LOG.warning("event %s for %s is dropped: %s", event.id, event.function, refusal.message)
            return self._failed(event, "Refused", Treatment(), now_ms)
        least, most = _BACKOFF_MS
        lane = self._lanes[event.function]
        full = min(least << min(lane.backoffs.get(event.id, 0), 20), most)
        ready_at_ms = now_ms + int(full * random.uniform(0.5, 1.0))
        if ready_at_ms - event.accepted_at_ms > treatment.age_seconds * 1000:
            return self._failed(event, "EventAgeExceeded", treatment, now_ms)
        return _Step(event, again=msgspec.structs.replace(event, ready_at_ms=ready_at_ms))

    def _failed(self, event: Event, condition: str, treatment: Treatment, now_ms: int) -> _Step:
        """It will not run again: to the destination and the dead-letter queue, and kept for a replay."""
        step = _Step(event)
        step.kept = FailedEvent(
            id=event.id,
            function=event.function,
            qualifier=event.qualifier,
            payload=event.payload,
            at_ms=now_ms,
            source="event",
            error_type=event.error_type or condition,
        )
        if treatment.on_failure:
            self._dispose(step, treatment.on_failure, _record(self._arn(event), event, condition, now_ms))
        if treatment.dead_letter:
            step.parcels.append((uuid4_text(), Parcel(treatment.dead_letter, _dead_letter(event, condition))))
        return step

    def _arn(self, event: Event) -> str:
        return self._arn_of(event.function, event.qualifier or "$LATEST")

    def _dispose(self, step: _Step, arn: str, record: bytes) -> None:
        """The record to its destination: a function gets it as an event in the same commit."""
        parts = arn.split(":")
        if parts[2] != "lambda":
            step.parcels.append((uuid4_text(), Parcel(arn, record)))
            return
        function, qualifier = parts[6], parts[7] if len(parts) > 7 else ""
        now_ms = self._clock.now_ms()
        trace, _ = passed_through(step.event.trace, function)
        step.next.append(
            Event(
                id=uuid4_text(),
                function=function,
                qualifier=qualifier,
                payload=record,
                accepted_at_ms=now_ms,
                ready_at_ms=now_ms,
                trace=trace,
            )
        )

    # --- to other rooms -------------------------------------------------------------------------------------------

    def _send(self, id: str, parcel: Parcel) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(id, parcel))
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)

    async def _carry(self, id: str, parcel: Parcel) -> None:
        """Bring a record to its queue, topic, bus or bucket; again and again, as long as an event is tried."""
        least, most = _BACKOFF_MS
        began_ms, delay_ms = self._clock.now_ms(), least
        while self._deliver is not None:
            try:
                await self._deliver(parcel.arn, msgspec.json.decode(parcel.record))
                break
            except MartletError as error:
                passes = isinstance(error, Throttled) or error.http_status >= 500
                if not passes or self._clock.now_ms() - began_ms > _AGE_SECONDS * 1000:
                    _LOG.error("a record for %s is dropped: %s", parcel.arn, error.message)
                    break
            await asyncio.sleep(delay_ms * random.uniform(0.0005, 0.001))
            delay_ms = min(2 * delay_ms, most)
        key = self._rows.parcel(id)
        await self._store.transact(lambda tx: tx.delete(key))


class _Step:
    """What one commit writes because of the end of one event."""

    __slots__ = ("again", "event", "failed", "kept", "next", "parcels")

    def __init__(self, event: Event, again: Event | None = None, failed: bool = False) -> None:
        self.event = event
        self.again = again  # the event with its next time, or None: it has ended
        self.failed = failed  # the function ran and failed
        self.kept: FailedEvent | None = None
        self.next: list[Event] = []
        self.parcels: list[tuple[str, Parcel]] = []

    def write(self, tx: Tx, rows: _Rows) -> None:
        key = rows.event(self.event.id)
        if self.again is None:
            tx.delete(key)
        elif self.failed:  # that it was throttled need not be written: its row says already that it waits
            tx.put(key, _ENCODE(self.again))
        for event in self.next:
            tx.put(rows.event(event.id), _ENCODE(event))
        for id, parcel in self.parcels:
            tx.put(rows.parcel(id), _ENCODE(parcel))
        if self.kept is not None:
            failures.write(tx, self.kept)


def _times(trace: str, function: str) -> int:
    """How often the chain has come through `function`, as its header says."""
    return passed_through(trace, function)[1] - 1


def _with_response(event: Event, outcome: Outcome, executed: str) -> Event:
    payload = outcome.payload
    if len(payload) > _KEPT_RESPONSE_BYTES:
        payload = b'{"errorMessage":"the response is too large for a record","errorType":"Function.ResponseSizeTooLarge"}'
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        payload = msgspec.json.encode(payload.decode("utf-8", "replace"))  # a runtime may answer with anything
    return msgspec.structs.replace(
        event, runs=event.runs + 1, response=payload, error_type=outcome.error_type, executed=executed
    )


def _record(arn: str, event: Event, condition: str, now_ms: int) -> bytes:
    """The record for a destination. Source: Lambda developer guide, asynchronous invocation; recorded answers."""
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now_ms % 1000:03d}Z",
        "requestContext": {
            "requestId": event.id,
            "functionArn": arn,
            "condition": condition,
            "approximateInvokeCount": event.runs,
        },
        "requestPayload": msgspec.Raw(event.payload),
    }
    if event.runs:
        record["responseContext"] = {"statusCode": 200, "executedVersion": event.executed}
        if condition != "Success":
            record["responseContext"]["functionError"] = "Unhandled"
        record["responsePayload"] = msgspec.Raw(event.response or b"null")
    return msgspec.json.encode(record)


def _dead_letter(event: Event, condition: str) -> bytes:
    """A message for a dead-letter queue: {"Body", "MessageAttributes"}. Source: recorded answers."""
    message = condition
    if event.response:
        found = msgspec.json.decode(event.response)
        message = str(found.get("errorMessage", "")) if isinstance(found, dict) else ""
    attributes = {
        "RequestID": {"DataType": "String", "StringValue": event.id},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": message[:1024]},
    }
    return msgspec.json.encode({"Body": event.payload.decode("utf-8", "replace"), "MessageAttributes": attributes})
