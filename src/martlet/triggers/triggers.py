"""The delivery loop: fires schedules, reads the log behind its cursor, and runs what the log causes.

Each step is one commit: (1) a schedule's next due time and the log entry that it fired; (2) the cursor past log entries
and the deliveries that they cause; (3) a delivery is running; (4) how it ended. A crash between any two repeats at most
the run of a function, never loses an event and never fires a due time twice.

One node at a time fires and delivers: the holder of the lease. It is taken or renewed in the very transactions that act
under it, so a node that was paused finds itself fenced. What a dead node was running is run again by the next holder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from martlet.clock import Clock, token_hex
from martlet.errors import InvalidInput, MartletError, SandboxFailed, Throttled
from martlet.limits import LIMITS
from martlet.store import LogEntry, Store, Tx
from martlet.triggers import deliveries, schedules
from martlet.triggers.deliveries import Run, Verdict
from martlet.triggers.event import DeadLetter, Event
from martlet.triggers.kinds import KINDS, schedule
from martlet.triggers.schedules import Schedule
from martlet.triggers.source import Attempt, Source
from martlet.types import Invocation, Outcome, ScheduleConfig

__all__ = ["Triggers"]

T = TypeVar("T")
Matched = list[tuple[LogEntry, Event]]

_CURSOR: Final = "triggers"
_LEASE: Final = "scheduler"
_LEASE_MS: Final = 10_000
_READ_ENTRIES: Final = 200
_LAG_ENTRIES: Final = 1000  # that the cursor may be behind what was read
_READ_BYTES: Final = 4_194_304
_SETTLE_BYTES: Final = 4_194_304
_ACCEPT_BYTES: Final = 4_194_304  # of events that one transaction accepts: a quarter of transaction_bytes
_LOOK_AGAIN_SECONDS: Final = 60.0  # the wall clock may jump: an armed timer looks at it this often
_AFTER_ERROR_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger("martlet.triggers")


class Triggers:
    """Schedules and their deliveries.

    `dispatch` gets an `Invocation` and calls its `on_done` once, on the event loop. `holder` names this process in the
    lease; the default is unique. Give a fixed name only where the store admits one process at a time: then a restart after
    a crash goes on at once, else it waits until the lease of the dead process ends (10 s).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        dispatch: Callable[[Invocation], None],
        *,
        region: str = "us-east-1",
        attempts: int = LIMITS["delivery_attempts"].default,
        concurrency: int = LIMITS["delivery_concurrency"].default,
        holder: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._dispatch = dispatch
        self._region = region
        self._attempts = attempts
        self._concurrency = concurrency
        self._holder = holder or token_hex(8)
        self._epoch = 0  # of the lease as we last held it
        self._renew_at_ms = 0
        self._standby_until_ms = 0  # somebody else holds the lease until then
        self._position = 0  # of the log; what lies between the cursor and here causes no event
        self._running: dict[str, Run] = {}
        self._ended: list[tuple[Run, Outcome]] = []
        self._stepping = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._carrying: set[asyncio.Task[None]] = set()
        self._sources: dict[str, Source] = {}
        self._by_topic: dict[str, list[Source]] = {}
        self._stopping = False

    def serve(self, source: Source) -> None:
        """Deliver what the log entries of this source cause. Before `start`."""
        self._sources[source.name] = source
        for topic in source.topics:
            self._by_topic.setdefault(topic, []).append(source)

    # schedules

    def check(self, expression: str, timezone: str = "UTC") -> None:
        """Return if the schedule expression is valid, else raise `InvalidInput` naming the field."""
        schedule.parse(expression, timezone)

    def put(self, tx: Tx, app: str, config: ScheduleConfig, function: str) -> None:
        """Deploy a schedule for function (full name) within the caller's transaction. A schedule that says the same times
        as before keeps its rhythm. Raises `InvalidInput`, `LimitExceeded` (event_bytes)."""
        schedules.put(tx, app, config, function, self._clock.now_ms())

    def remove(self, tx: Tx, app: str, name: str) -> None:
        """Take a schedule away within the caller's transaction, if there is one. What it fired is still delivered."""
        schedules.remove(tx, app, name)

    def dead_letters(self, app: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Events that will not be tried again, newest first; kept for `dead_letter_days`."""
        if not 1 <= limit <= 1000:
            raise InvalidInput(f"limit {limit}: allowed is 1 to 1000", field="limit")
        return self._store.read(lambda reader: deliveries.dead_letters(reader, app, limit))

    def list(self, app: str) -> list[Schedule]:
        """The deployed schedules of an app by name, with their next due times."""
        return self._store.read(lambda reader: schedules.of_app(reader, app))

    # life

    async def start(self) -> None:
        """Begin to fire and deliver. What was missed while nothing ran fires once for each schedule."""
        self._stopping = False
        self._tasks = [asyncio.create_task(self._loop()), asyncio.create_task(self._watch())]

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Fire and start nothing more; wait at most so long for what runs, so that its end is recorded. The rest is run
        again by the next start."""
        self._stopping = True
        self._wake.set()
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        try:
            async with asyncio.timeout(grace_seconds):
                await self._drained()
        except TimeoutError:
            _LOG.warning("%d events still run at the stop; they will be run again", len(self._running))
        except MartletError as error:
            _LOG.error("how the last events ended is not recorded, they will be run again: %s", error.message)
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        try:
            await self._store.transact(self._give_back)
        except MartletError as error:
            _LOG.warning("the lease is not given back, the next start waits for its end: %s", error.message)

    async def _drained(self) -> None:
        while True:
            self._wake.clear()
            while await self._settle():
                pass
            if not self._running:
                return
            await self._wake.wait()

    async def run_due(self) -> None:
        """Do everything that can be done now, and return when nothing is left but to wait."""
        async with self._stepping:
            while await self._step():
                pass

    async def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                await self.run_due()
                delay = self._delay_seconds()
            except Exception as error:  # a loop that ended silently would be worse than one that complains each second
                _LOG.error("deliveries pause: %s", error, exc_info=not isinstance(error, MartletError))
                delay = _AFTER_ERROR_SECONDS
            timer = None
            if delay is not None:
                timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    async def _watch(self) -> None:
        """Every commit that adds to the log wakes the loop."""
        at = self._store.head
        while True:
            at = await self._store.wait(at)
            self._wake.set()

    def _delay_seconds(self) -> float | None:
        """Until something is due; None: nothing will be, unless the log grows or a run ends."""
        now_ms = self._clock.now_ms()
        if now_ms < self._standby_until_ms:
            times = [self._standby_until_ms]
        else:
            due, ready = self._store.read(lambda reader: (schedules.next_due(reader), deliveries.next_ready(reader)))
            times = [at_ms for at_ms in (due, ready if self._free else None) if at_ms is not None]
            if self._running:
                times.append(self._renew_at_ms)
        if not times:
            return None
        return min(max(min(times) - now_ms + 1, 0) / 1000, _LOOK_AGAIN_SECONDS)

    # steps

    async def _step(self) -> bool:
        """One round; True if it did something, so that another may have more to do."""
        did = await self._settle()
        now_ms = self._clock.now_ms()
        if self._stopping or now_ms < self._standby_until_ms:
            return did
        due, ready, cursor = self._store.read(
            lambda reader: (schedules.next_due(reader), deliveries.next_ready(reader), reader.cursor(_CURSOR))
        )
        if due is not None and due <= now_ms:
            did |= bool(await self._as_holder(lambda tx: schedules.fire_due(tx, now_ms, self._region)))
        if cursor > self._position:  # another node read on from there, or an earlier process
            self._position = cursor
            for source in self._sources.values():
                source.anew()
        if self._store.head > self._position:
            did |= await self._accept()
            ready = self._store.read(deliveries.next_ready)
        if self._free and (not self._epoch or (ready is not None and ready <= now_ms)):
            did |= await self._take(now_ms)
        elif self._running and now_ms >= self._renew_at_ms:
            await self._as_holder(lambda tx: None)
        return did

    @property
    def _free(self) -> int:
        return max(self._concurrency - len(self._running), 0)

    async def _accept(self) -> bool:
        entries = _up_to_bytes(self._store.tail(max(self._position, self._store.first - 1), _READ_ENTRIES))
        if not entries:
            return False
        matched = [(entry, event) for entry in entries for event in self._caused(entry)]
        last = entries[-1].seq
        # Entries that cause nothing cost no commit each; the cursor follows in steps, so that the log can be trimmed.
        lag = last - self._store.read(lambda reader: reader.cursor(_CURSOR))
        if matched or lag >= _LAG_ENTRIES:
            *first, final = _steps(matched)
            for step in first:
                if not await self._accept_step(step, None):
                    return False
            if not await self._accept_step(final, last):
                return False
        self._position = last
        return True

    def _caused(self, entry: LogEntry) -> Sequence[Event]:
        for source in self._by_topic.get(entry.topic, ()):
            try:
                found = source.match(entry)
            except MartletError:
                raise  # the store's: it is asked again
            except Exception:  # one entry that cannot be read must not hold up all that follow
                _LOG.exception("log entry %d (%s) causes nothing: it cannot be read", entry.seq, entry.topic)
                return ()
            if found is not None:
                return found
        kind = KINDS.get(entry.topic)
        event = kind(entry) if kind is not None else None
        return () if event is None else (event,)

    async def _accept_step(self, matched: Matched, last: int | None) -> bool:
        """Make deliveries, or put events at their place at once; with the last step of what was read, the cursor moves."""

        def accept(tx: Tx) -> list[Callable[[], None]]:
            at = tx.cursor(_CURSOR)
            later: Matched = []
            placed: list[Callable[[], None]] = []
            for entry, event in matched:
                if entry.seq <= at:  # somebody else has accepted it
                    continue
                done = self._sources[event.source].place(tx, event) if event.target else None
                if done is None:
                    later.append((entry, event))
                else:
                    placed.append(done)
            deliveries.accept(tx, later)
            if last is not None and last > at:
                tx.cursor_move(_CURSOR, at, last)
            return placed

        placed = await self._as_holder(accept)
        for done in placed or ():
            done()
        return placed is not None

    async def _take(self, now_ms: int) -> bool:
        most = self._free
        taken = await self._as_holder(lambda tx: deliveries.take(tx, now_ms, most))
        for run in taken or ():
            self._running[run.event.id] = run
        for run in taken or ():
            self._start(run)
        return bool(taken)

    def _start(self, run: Run) -> None:
        event = run.event
        if event.target:
            task = asyncio.get_running_loop().create_task(self._carry(run))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
            return

        def done(_: Invocation, outcome: Outcome) -> None:
            self._ended.append((run, outcome))
            self._wake.set()

        invocation = Invocation(event.function, bytes(event.payload), event.id, done, source=event.source)
        try:
            self._dispatch(invocation)
        except MartletError as error:
            done(invocation, Outcome(refusal=error))
        except Exception as error:
            _LOG.exception("dispatch of event %s failed", event.id)
            done(invocation, Outcome(refusal=SandboxFailed(f"dispatch failed: {error!r}")))

    async def _carry(self, run: Run) -> None:
        outcome = Outcome()
        try:
            await self._sources[run.event.source].carry(run.event)
        except MartletError as error:
            outcome = Outcome(refusal=error)
        except Exception as error:
            _LOG.exception("event %s could not be brought to %s", run.event.id, run.event.target)
            outcome = Outcome(refusal=SandboxFailed(f"delivery failed: {error!r}"))
        self._ended.append((run, outcome))
        self._wake.set()

    def _judge(self, run: Run, outcome: Outcome, now_ms: int) -> tuple[Verdict, Event | None]:
        """What follows, and what goes to the dead-letter queue instead."""
        if not run.event.target:
            return deliveries.judge(run.delivery, outcome, now_ms, self._attempts), None
        error = outcome.refusal
        if error is None:
            return Verdict("acknowledge"), None
        attempts = run.delivery.failures + 1
        attempt = Attempt(run.event, error, attempts, now_ms - run.delivery.accepted_at_ms)
        source = self._sources[run.event.source]
        delay_ms = source.again(attempt)
        counted = not isinstance(error, Throttled)  # what only waited its turn was no try
        if delay_ms is not None:
            return Verdict("retry", delay_ms, counted, "", error.code, error.problem()), None
        condition = "RetriesExhausted" if attempts > 1 else "Refused"
        return Verdict("bury", 0, counted, condition, error.code, error.problem()), source.instead(attempt)

    async def _settle(self) -> bool:
        """Record runs that ended, many in one commit. True if there were any."""
        size = 0
        ended: list[tuple[Run, Outcome]] = []
        for run, outcome in self._ended:
            size += len(bytes(run.event.payload))
            if ended and size > _SETTLE_BYTES:
                break
            ended.append((run, outcome))
        if not ended:
            return False
        now_ms = self._clock.now_ms()
        verdicts = [(run, *self._judge(run, outcome, now_ms)) for run, outcome in ended]

        def write(tx: Tx) -> None:
            for run, verdict, instead in verdicts:
                deliveries.settle(tx, run, verdict, now_ms, instead)

        await self._store.transact(write)
        del self._ended[: len(ended)]  # only now: an end that could not be recorded is tried again
        for run, _ in ended:
            self._running.pop(run.event.id, None)
        return True

    # the lease

    async def _as_holder(self, fn: Callable[[Tx], T]) -> T | None:
        """Run `fn` in a transaction that holds the lease; None, and nothing done, if another node holds it."""
        now_ms = self._clock.now_ms()
        running = set(self._running)
        first = self._store.first

        def guarded(tx: Tx) -> tuple[int, T] | int:
            lease = tx.lease_take(_LEASE, self._holder, _LEASE_MS)
            if lease is None:
                other = tx.lease(_LEASE)
                return now_ms + _LEASE_MS if other is None else other.expires_at_ms
            if lease.epoch != self._epoch:
                deliveries.reclaim(tx, running, now_ms)
                at = tx.cursor(_CURSOR)
                tx.cursor_move(_CURSOR, at, max(at, first - 1))  # from now on the log is kept for us
            return lease.epoch, fn(tx)

        result = await self._store.transact(guarded)
        if isinstance(result, int):
            self._standby_until_ms = result
            self._epoch = 0
            return None
        self._epoch, value = result
        self._renew_at_ms = now_ms + _LEASE_MS // 3
        return value

    def _give_back(self, tx: Tx) -> None:
        lease = tx.lease(_LEASE)
        if lease is not None and lease.holder == self._holder and not self._running:
            tx.lease_release(lease)


def _steps(matched: Matched) -> Iterator[Matched]:
    """Parts that fit into one transaction each; at least one."""
    part: Matched = []
    size = 0
    for pair in matched:
        length = len(bytes(pair[1].payload)) + len(bytes(pair[1].details))
        if part and size + length > _ACCEPT_BYTES:
            yield part
            part, size = [], 0
        part.append(pair)
        size += length
    yield part


def _up_to_bytes(entries: list[LogEntry]) -> list[LogEntry]:
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.body)
        if size > _READ_BYTES:
            return entries[:count]
    return entries
