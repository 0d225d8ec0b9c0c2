"""The store over an engine that several nodes share: the same face, with optimistic transactions and group commit.

A function runs at once on what this node knows (`Base`) through the overlay of its own rows under way. What it needs and is not
known is fetched, for all that wait in one statement, and it runs again. A group is committed if the database is still at the
position that the group rests on; else under the head row's lock, where functions whose reads another node changed run again. So
the order of commits is the serial order, on every node.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar, cast

from martlet.clock import Clock
from martlet.errors import InvalidInput, MartletError, NotFound, Overloaded, StoreFailed
from martlet.store.engine import Change, Engine, Group, Held, LogEntry, Lost, Seen, SharedEngine, Span
from martlet.store.guesses import Guesses
from martlet.store.known import Base, DaringWindow, Known, Needs, Window
from martlet.store.nodes import ALONE_ROW, Card, Members, Turns
from martlet.store.overlay import MISSING, Overlay
from martlet.store.store import Store
from martlet.store.transaction import Reader, Snapshot, Tx
from martlet.store.underway import Flight, Job, Peek, TrackedTx

__all__ = ["SharedStore"]

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 30.0  # how long the database may be away before those who wait are told
_ROUNDS: Final = 200  # fetches that one function may need
_BLOCKING_TURNS: Final = 3  # runs of a reading function before it gets a snapshot of its own
_FRESH_SECONDS: Final = 1.0  # how long a request's freshness holds
_SAFETY_SECONDS: Final = 15.0  # between two looks that nobody asked for: a hint may have been lost
_CALM: Final = 16  # groups without another node's commit between them, until the lock is no longer taken at once
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # before asking again a database that is away
_SAME_TIME_MS: Final = 1_000
_TELL_AGAIN_SECONDS: Final = 1.0
_RECENT_ENTRIES: Final = 1_024
_RECENT_BYTES: Final = 8_192  # of an entry that is kept


class _Freshness:
    """Of one request: what the node knew when it began is not older than what anybody had been told then."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


_FRESH: contextvars.ContextVar[_Freshness | None] = contextvars.ContextVar("martlet_fresh", default=None)


class _Moved(BaseException):
    """Another node committed between two reads of one function: it runs again."""


class _BlockingWindow(Window):
    """Reads of one snapshot, with a blocking look for what is not known."""

    __slots__ = ("_store",)

    def __init__(self, store: SharedStore, known: list[Known]) -> None:
        super().__init__(store._base, known)
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        value = super().get(key)
        if self.needs:
            self._fill()
            return super().get(key)
        return value

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        found = super().scan(low, high, limit, reverse)
        if self.needs:
            self._fill()
            return super().scan(low, high, limit, reverse)
        return found

    def _fill(self) -> None:
        needs, self.needs = self.needs, Needs()
        if self._store._fill_now(needs, self.known):
            raise _Moved


class SharedStore(Store):
    """`Store` over a `SharedEngine`."""

    shared = True

    def __init__(self, engine: SharedEngine, *, clock: Clock) -> None:
        self._set_up(engine, clock)
        self._shared = engine
        self._base = Base()
        self._guesses = Guesses()
        self._open: list[Job] = []  # ran, to be committed with the next group
        self._open_bytes = 0
        self._line: deque[Job] = deque()  # not run yet, in the order in which they came
        self._seeking: list[tuple[Job | Peek, Needs]] = []
        self._flight: Flight | None = None
        self._held = False
        self._contended = 0
        self._entries_waiting = 0
        self._recent: dict[int, LogEntry] = {}  # of this node, by seq
        self._inside: Reader | None = None  # what the function that runs now reads from
        self._broken: StoreFailed | None = None  # for ever: the database went back
        self.members = Members(self)
        self._turns = Turns(self, engine.node)
        self._watchers: list[tuple[bytes, bytes, Callable[[list[bytes] | None], None]]] = []
        self._something_open, self._something_sought, self._hinted = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def begin(cls, engine: SharedEngine, clock: Clock) -> SharedStore:
        """A store that is connected. Raises `StartFailed` or what the engine says."""
        store = cls(engine, clock=clock)
        try:
            await engine.attach(store._hinted.set)
            await store._ask(engine, set(), [])
            store._contended = 0
        except Lost as lost:
            await asyncio.to_thread(engine.close)
            raise Overloaded(f"the database cannot be reached: {lost}") from lost
        except BaseException:
            await asyncio.to_thread(engine.close)
            raise
        store._tasks = [store._loop.create_task(work()) for work in (store._committing, store._seeking_rows, store._following)]
        return store

    # other nodes

    async def join(self, card: Card, lost: Callable[[MartletError], None]) -> None:
        """Become one of the nodes of this database. Raises `StartFailed`."""
        self.node = card.name
        self._turns = Turns(self, card.name)
        self._tasks.append(await self.members.join(card, lost))

    async def announce(self, url: str) -> None:
        await self.members.announce(url)

    @property
    def others(self) -> tuple[Card, ...]:
        return self.members.others

    def on_departure(self, told: Callable[[str], None]) -> None:
        self.members.on_departure(told)

    def on_return(self, told: Callable[[], None]) -> None:
        self.members.on_return(told)

    def watch(self, low: bytes, high: bytes, told: Callable[[list[bytes] | None], None]) -> None:
        self._watchers.append((low, high, told))

    def turn(self, name: str, wait_seconds: float | None = 0.0) -> AbstractAsyncContextManager[bool]:
        return self._turns.turn(name, wait_seconds)

    @property
    def ends(self) -> bool:
        return self._closed is not None

    def _spread(self, foreign: list[list[bytes]] | None) -> None:
        """What other nodes changed, to those who keep a copy of it: on the loop's next turn, before anybody is told of what was
        read after it."""
        if self._watchers:
            changed = None if foreign is None else sorted(key for keys in foreign for key in keys)
            self._loop.call_soon(self._spread_now, changed)

    def _spread_now(self, changed: list[bytes] | None) -> None:
        for low, high, told in self._watchers:
            if changed is None:
                self._told(told, None)
            elif mine := changed[bisect_left(changed, low) : bisect_left(changed, high)]:
                self._told(told, mine)

    def _told(self, told: Callable[[list[bytes] | None], None], changed: list[bytes] | None) -> None:
        try:
            told(changed)
        except MartletError:  # it could not read what is new, so that its copy is old: it is told until it could
            self._loop.call_later(_TELL_AGAIN_SECONDS, self._told, told, None)

    # what rooms use

    async def transact(self, fn: Callable[[Tx], T]) -> T:
        if self._refusal is not None:
            raise copy.copy(self._refusal)
        if self.members.away and fn != self.members.renewal:
            raise Overloaded("this node was away, and joins the others again", retry_after_seconds=1)
        if self._waiting >= self._most_waiting or self._waiting_bytes >= self._most_waiting_bytes:
            raise Overloaded(f"{self._waiting} transactions ({self._waiting_bytes} bytes) wait for the database")
        if self._reading:
            raise RuntimeError("transact was called inside read; use the reader, or leave read first")
        job = Job(fn, self._loop.create_future())
        self._waiting += 1
        self._attempt(job)
        return cast(T, await job.future)

    def read(self, fn: Callable[[Reader], T]) -> T:
        """As `Store.read`. Asks the database, unless this node is alone or the caller's request asked (`fresh`): it
        holds up the loop for as long as that takes. Where it can wait, `look` is better."""
        if self._closed is not None:
            raise StoreFailed("the store is closed")
        if self._inside is not None:
            return fn(self._inside)
        known: list[Known] = []
        if not self._is_fresh():
            self._fill_now(Needs(), known)
        for _ in range(_BLOCKING_TURNS):
            try:
                return self._read_from(Snapshot(cast(Engine, _BlockingWindow(self, known))), fn)
            except _Moved:  # to something newer
                continue
        try:
            return self._read_from(self._snapshot, fn)  # a transaction of its own on the server
        finally:
            self._engine.release()

    def _read_from(self, reader: Reader, fn: Callable[[Reader], T]) -> T:
        self._reading, self._inside = True, reader
        try:
            return fn(reader)
        finally:
            self._reading, self._inside = False, None

    async def look(self, fn: Callable[[Reader], T]) -> T:
        """As `read`, without holding up the loop. `fn` may run several times; only the last run counts."""
        if self._closed is not None:
            raise StoreFailed("the store is closed")
        peek = Peek(fn, self._loop.create_future())
        needs, result, error = self._peek(peek)
        if needs or not self._is_fresh():
            self._seek(peek, needs)
            return cast(T, await peek.future)
        if error is not None:
            raise error
        return cast(T, result)

    def get(self, key: bytes) -> bytes | None:
        return self.read(lambda reader: reader.get(key))

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        """For one request: one look at the database, shared with all that begin now, after which reads need none of their own
        (for a second). They show a state that is not older than the request."""
        await self.look(_nothing)
        mine = _Freshness(self._loop.time() + _FRESH_SECONDS)
        token = _FRESH.set(mine)
        try:
            yield
        finally:
            mine.until = 0.0  # also for tasks that were started meanwhile
            _FRESH.reset(token)

    def tail(self, after: int, limit: int) -> list[LogEntry]:
        if after < 0 or limit < 1:
            raise InvalidInput(f"tail(after={after}, limit={limit}): at least 0 and 1 are needed")
        found: list[LogEntry] = []
        while len(found) < limit and (entry := self._recent.get(after + 1 + len(found))) is not None:
            found.append(entry)
        if found and (len(found) == limit or (found[-1].seq >= self._head and self._is_fresh())):
            return found
        try:
            found = self._engine.tail(after, limit)
        finally:
            self._engine.release()
        if found and found[0].seq != after + 1:
            first = found[0].seq
            raise NotFound(f"log entries up to {first - 1} are trimmed, {after + 1} among them", first=first)
        if found:
            self._hinted.set()
        return found

    async def close(self) -> None:
        if self._closed is None and self._refusal is None and self.members.lease is not None:
            try:
                async with asyncio.timeout(3):
                    await self.members.leave()
            except (MartletError, TimeoutError):
                pass  # what it held ends by itself
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._refuse(StoreFailed("the store is closed"))
            self._loop.create_task(self._shut())
        await asyncio.shield(self._closed)

    async def _shut(self) -> None:
        """What was taken is finished first."""
        try:
            while self._waiting or self._seeking:  # noqa: ASYNC110 (once in a life; an event would cost each transaction)
                await asyncio.sleep(0.005)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._flight = None
            await self._shared.detach()
            await asyncio.to_thread(self._engine.close)
        finally:
            if self._closed is not None and not self._closed.done():
                self._closed.set_result(None)

    # running functions

    def _is_fresh(self) -> bool:
        if self._loop.time() < self.members.alone_until:
            return True
        mine = _FRESH.get()
        return mine is not None and mine.until > self._loop.time()

    def _attempt(self, job: Job) -> None:
        """Transactions take effect in the order in which they came: this one runs when those before it have. Until then it says
        what it will need."""
        self._line.append(job)
        if len(self._line) == 1:
            self._drain()
        elif not self._held and (needs := self._run_job(job)):
            self._seek(job, needs)

    def _drain(self) -> None:
        """Run those that wait in line, up to the first that needs rows."""
        line = self._line
        while line and not self._held and self._open_bytes < self._most_batch_bytes:
            job = line[0]
            if not job.ended:
                if job.sought:
                    return
                needs = self._run_job(job)
                if needs:
                    self._seek(job, needs)
                    continue
                self._join(job)
            line.popleft()

    def _join(self, job: Job) -> None:
        self._open.append(job)
        self._open_bytes += job.tx.size
        self._charge(job, job.tx.size)
        self._entries_waiting += len(job.tx.entries)
        self._batches_made += not self._something_open.is_set()
        self._publish(job.tx.writes, self._batches_made)
        self._something_open.set()

    def _run_job(self, job: Job) -> Needs:
        """What it needs; nothing if the run counts. Under the lock nothing is guessed, because nothing would prove it."""
        known = [known for known in job.known if self._base.current(known)] if job.known else []
        window = Window(self._base, known) if self._held else DaringWindow(self._base, known, self._guesses)
        now_ms = self._clock.now_ms()
        if not 0 <= now_ms - job.now_ms < _SAME_TIME_MS:
            job.now_ms = now_ms
        tx = TrackedTx(window, self._pending, self._base.seq + self._entries_waiting, job.now_ms)
        self._inside = tx
        try:
            result, error = self._run(job.fn, tx)
        finally:
            self._inside = None
        if not window.needs:
            job.tx, job.result, job.error, job.stale, job.known = tx, result, error, False, []
            job.guessed = window.guessed if isinstance(window, DaringWindow) else ()
        return window.needs

    def _charge(self, job: Job, size: int) -> None:
        self._waiting_bytes += size - job.charged
        job.charged = size

    def _publish(self, writes: Mapping[bytes, bytes | None], number: int) -> None:
        if writes:
            self._pending.update(writes)
            self._written_by.update(dict.fromkeys(writes, number))

    def _seek(self, who: Job | Peek, needs: Needs) -> None:
        who.rounds += 1
        if who.rounds > _ROUNDS:
            self._end(who, Overloaded("a function needs too many rounds of reads"))
            return
        if isinstance(who, Job):
            who.sought = True
        self._seeking.append((who, needs))
        self._something_sought.set()

    def _end(self, who: Job | Peek, error: BaseException) -> None:
        if isinstance(who, Job):
            who.ended = True
            self._waiting -= 1
            self._charge(who, 0)
        if not who.future.done():
            who.future.set_exception(copy.copy(error))

    # reading functions

    def _peek(self, peek: Peek) -> tuple[Needs, object, Exception | None]:
        """Run it on what is known."""
        window = Window(self._base, [known for known in peek.known if self._base.current(known)])
        try:
            return window.needs, self._read_from(Snapshot(cast(Engine, window)), peek.fn), None
        except Exception as error:
            return window.needs, None, error

    def _fill_now(self, needs: Needs, known: list[Known]) -> bool:
        """Fetch, blocking; whether the position moved."""
        before = self._base.position
        spans = list(needs.spans)
        seen = self._shared.look_now(before, [*needs.keys, ALONE_ROW], spans)
        self._take(before, seen, needs.keys)
        fetched = [Known(span, rows, seen.position) for span, rows in zip(spans, seen.spans, strict=True)]
        for span, each in zip(spans, fetched, strict=True):
            self._base.keep(span, each)
        known += fetched
        known[:] = [each for each in known if self._base.current(each)]
        return self._base.position != before

    # rows that are not known

    async def _seeking_rows(self) -> None:
        while True:
            await self._something_sought.wait()
            self._something_sought.clear()
            group, self._seeking = self._seeking, []
            if group:
                await self._seek_group(group)

    async def _seek_group(self, group: list[tuple[Job | Peek, Needs]]) -> None:
        keys = set().union(*(needs.keys for _, needs in group))
        spans = list(set().union(*(needs.spans for _, needs in group)))
        try:
            seen = await self._patient(lambda: self._ask(self._shared, keys, spans))
        except MartletError as error:
            for who, _ in group:
                self._end(who, error)
            self._drain()
            return
        found = {span: Known(span, rows, seen.position) for span, rows in zip(spans, seen.spans, strict=True)}
        for span, known in found.items():
            self._base.keep(span, known)
        for who, needs in group:
            who.known = [known for known in who.known if self._base.current(known)]
            who.known += [found[span] for span in needs.spans]
            if isinstance(who, Job):
                who.sought = False
                for key in needs.keys:
                    self._guesses.fetched(key, key in seen.rows)
            elif not who.future.done():  # done: its caller was cancelled
                self._answer(who)

        self._drain()

    def _answer(self, peek: Peek) -> None:
        needs, result, error = self._peek(peek)
        if needs:
            self._seek(peek, needs)
        elif error is not None:
            peek.future.set_exception(error)
        else:
            peek.future.set_result(result)

    async def _following(self) -> None:
        """What other nodes committed, as soon as we hear of it, and now and then without having heard."""
        while self._closed is None:
            try:
                async with asyncio.timeout(_SAFETY_SECONDS):
                    await self._hinted.wait()
            except TimeoutError:
                pass  # a hint may have been lost: look all the same
            self._hinted.clear()
            if self._refusal is None:
                try:
                    await self.look(_nothing)
                except MartletError:
                    await asyncio.sleep(1)

    async def _ask(self, where: SharedEngine | Held, keys: set[bytes], spans: list[Span]) -> Seen:
        after = self._base.position
        seen = await where.look(after, [*keys, ALONE_ROW], spans)
        self._take(after, seen, keys)
        return seen

    def _take(self, after: int, seen: Seen, keys: set[bytes]) -> None:
        if seen.position < after:
            self._broken = StoreFailed(
                f"the database went back from commit {after} to {seen.position}: acknowledged transactions are missing there",
                remedy="find the server that has them (was a standby promoted that was not synchronous?), then restart",
            )
            self._refuse(self._broken)
        if self._broken is not None:
            raise copy.copy(self._broken)
        if seen.position >= self._base.position:
            self.members.seen(seen)
        self._advance(seen)
        self._base.learn(seen, keys)

    def _advance(self, seen: Seen) -> None:
        """Learn what happened up to a snapshot. Transactions that read what others changed since are marked."""
        foreign = self._base.advance(seen, self._own)
        if foreign is None or foreign:
            self._contended = _CALM
            flight = self._flight.jobs if self._flight is not None and not self._flight.landed else []
            for keys in foreign if foreign is not None else ():
                ordered, members = sorted(keys), frozenset(keys)
                for job in (*flight, *self._open):
                    job.stale = job.stale or job.tx.touched(ordered, members)
            if foreign is None:
                for job in (*flight, *self._open):
                    job.stale = True
        if foreign is None or foreign:
            self._spread(foreign)
        self._moved()

    def _moved(self) -> None:
        self._first = self._base.first
        while self._recent and (oldest := next(iter(self._recent))) < self._first:
            del self._recent[oldest]
        if self._base.seq > self._head:
            self._head = self._base.seq
            self._wake()

    def _own(self, change: Change) -> Mapping[bytes, bytes | None] | None:
        """The rows of a commit of ours that a snapshot shows before its answer came."""
        flight = self._flight
        if change.node != self._shared.node or flight is None or flight.number != change.batch:
            return {} if change.node == self._shared.node and not change.keys else None
        flight.landed, flight.position = True, change.position
        self._settle(flight)
        return flight.group.writes

    # commits

    async def _committing(self) -> None:
        while True:
            await self._something_open.wait()
            await asyncio.sleep(0)  # what the loop has at hand shares the commit
            self._something_open.clear()
            jobs, self._open = self._open, []
            self._open_bytes = 0
            if not jobs:
                continue
            flight = self._flight = Flight(self._batches_made, jobs)
            try:
                if (refused := self._broken or self.members.refusal([job.fn for job in jobs])) is not None:
                    raise copy.copy(refused)
                await self._land(flight)
            except MartletError as error:
                self._drop(flight, error)
            except Exception as error:
                self._drop(flight, StoreFailed(f"the engine failed: {error!r}"))
            finally:
                self._flight = None
                self._held = False
            self._drain()

    async def _land(self, flight: Flight) -> None:
        if not any(job.tx.effective or job.stale for job in flight.jobs):
            await self._confirm(flight)
            return
        if not self._contended and not any(job.stale for job in flight.jobs):
            guessed = flight.guessed()
            group = self._group(flight, self._base.position, self._base.seq, guessed)
            position = await self._sent(flight, lambda: self._shared.try_commit(group))
            if position is not None:
                self._guesses.right(guessed)
                self._finish(flight, position, group)
                return
        await self._land_held(flight)

    async def _confirm(self, flight: Flight) -> None:
        """A group that wrote nothing: it stands if what it read is still so."""
        guessed = flight.guessed()
        await self.look(lambda reader: [reader.get(key) for key in guessed])
        self._prove(flight)
        if any(job.stale for job in flight.jobs):
            await self._land_held(flight)
        else:
            self._acknowledge_jobs(flight)

    async def _land_held(self, flight: Flight) -> None:
        self._contended = max(0, self._contended - 1)

        async def once() -> None:
            async with self._shared.hold() as held:
                self._held = True
                await self._renew(flight, held)
                if flight.landed:  # an earlier try was kept after all
                    self._finish(flight, flight.position, flight.group)
                    return
                group = self._group(flight, self._base.position, self._base.seq)
                position = await self._sent(flight, lambda: held.commit(group))
                if position is not None:
                    self._finish(flight, position, group)

        while not flight.landed:
            await self._patient(once)

    async def _renew(self, flight: Flight, held: Held) -> None:
        """Under the lock: what another node's commits made stale runs again, and with it all that may rest on it."""
        await self._ask(held, flight.guessed(), [])
        self._prove(flight)
        if (refused := self.members.refusal([job.fn for job in flight.jobs])) is not None:
            raise refused
        if flight.landed or not any(job.stale for job in flight.jobs):
            return
        self._unpublish(flight)
        for _ in range(_ROUNDS):
            self._pending, self._written_by, self._entries_waiting = Overlay(), {}, 0
            needs = Needs()
            for job in flight.jobs:
                more = self._run_job(job)
                if more:
                    needs.keys |= more.keys
                    needs.spans |= more.spans
                    continue
                self._charge(job, job.tx.size)
                self._publish(job.tx.writes, flight.number)
                self._entries_waiting += len(job.tx.entries)
            if not needs:
                return
            spans = list(needs.spans)
            seen = await self._ask(held, needs.keys, spans)
            known = [Known(span, rows, seen.position) for span, rows in zip(spans, seen.spans, strict=True)]
            for job in flight.jobs:
                job.known += known
        raise Overloaded("transactions need too many rounds of reads")

    def _prove(self, flight: Flight) -> None:
        """Transactions that took a row for absent which is there, or is not known to be absent, are marked."""
        rows = self._base.rows
        for job in flight.jobs:
            for key in job.guessed:
                value = rows.get(key, MISSING)
                if value is not None:
                    job.stale = True
                    if value is not MISSING:
                        self._guesses.wrong(key)

    def _unpublish(self, flight: Flight) -> None:
        """Nothing of what this node has under way holds any more; what waits behind the group runs after it."""
        self._generation += 1
        self._line.extendleft(reversed(self._open))
        self._open, self._open_bytes = [], 0
        self._pending, self._written_by, self._entries_waiting = Overlay(), {}, 0

    def _group(self, flight: Flight, position: int, seq: int, absent: Collection[bytes] = ()) -> Group:
        writes: dict[bytes, bytes | None] = {}
        entries: list[LogEntry] = []
        trim = 0
        for job in flight.jobs:
            tx = job.tx
            writes.update(tx.writes)
            for entry in tx.entries:
                entries.append(LogEntry(seq + len(entries) + 1, tx.now_ms, *entry))
            trim = max(trim, tx.trim_through)
        flight.group = Group(flight.number, position, seq + len(entries), writes, entries, trim, tuple(absent))
        return flight.group

    async def _sent(self, flight: Flight, commit: Callable[[], Awaitable[int | None]]) -> int | None:
        """The position of a commit; None: not kept. If its answer is lost, what became of it is found out."""
        try:
            return await commit()
        except Lost as lost:
            if not lost.sent:
                return None
            cause = lost
        position = await self._patient(lambda: self._shared.resolve(flight.number), cause)
        if position is not None and not flight.landed:
            await self._patient(lambda: self._ask(self._shared, set(), []), cause)
        if position is not None and not flight.landed:
            flight.landed = True  # so long ago that its change is forgotten
            self._settle(flight)
        return position

    def _finish(self, flight: Flight, position: int, group: Group) -> None:
        if not flight.landed:
            flight.landed = True
            self._base.committed(position, group.seq, group.writes, group.trim_through)
            self._settle(flight)
        for entry in group.entries:
            if len(entry.body) > _RECENT_BYTES:
                self._recent.clear()  # what is kept has no gaps, and bounds
            else:
                self._recent[entry.seq] = entry
        while len(self._recent) > _RECENT_ENTRIES:
            del self._recent[next(iter(self._recent))]
        self._commits += 1
        self._acknowledge_jobs(flight)
        self._moved()

    def _settle(self, flight: Flight) -> None:
        """Its rows are in the base now."""
        written_by, number = self._written_by, flight.number
        done = [key for key in flight.group.writes if written_by.get(key) == number]
        for key in done:
            del written_by[key]
        self._pending.forget(done)
        self._entries_waiting -= sum(len(job.tx.entries) for job in flight.jobs)

    def _acknowledge_jobs(self, flight: Flight) -> None:
        flight.landed = True
        self._transactions += len(flight.jobs)
        self._waiting -= len(flight.jobs)
        for job in flight.jobs:
            self._charge(job, 0)
            if job.future.done():  # its caller was cancelled
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)

    def _drop(self, flight: Flight, failure: MartletError) -> None:
        """The group is not kept, or nobody knows; what rests on its rows runs again."""
        if flight.landed:
            return
        self._unpublish(flight)
        self._base.forget()
        for job in flight.jobs:
            self._end(job, failure)

    # a database that is away

    async def _patient(self, ask: Callable[[], Awaitable[T]], cause: Lost | None = None) -> T:
        """Ask again while there is no connection, with pauses. Gives up by name: `Overloaded` when nothing was sent,
        `StoreFailed` when a commit's outcome is unknown (`cause`)."""
        until = self._loop.time() + _PATIENCE_SECONDS
        for turn in range(1_000_000):
            try:
                return await ask()
            except Lost as lost:
                if lost.sent:
                    raise StoreFailed(f"unknown outcome: {lost}") from lost
                pause = _PAUSES[min(turn, len(_PAUSES) - 1)]
                if self._loop.time() + pause > until:
                    if cause is not None:
                        raise StoreFailed(f"unknown outcome: {cause}; {lost}", remedy=_LOOK_FIRST) from lost
                    raise Overloaded(f"the database cannot be reached: {lost}", retry_after_seconds=5) from lost
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _trim(self, tx: Tx, oldest_ms: int) -> int:
        trimmed = super()._trim(tx, oldest_ms)
        self._engine.release()
        return trimmed


_LOOK_FIRST: Final = "read before you write again: the transaction may have been kept"


def _nothing(reader: Reader) -> None:
    """A look that asks only how far the database is."""
