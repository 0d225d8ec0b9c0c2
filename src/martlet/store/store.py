"""The store itself: where transactions are put in order, grouped, and acknowledged after they are durable."""

from __future__ import annotations

import asyncio
import copy
import importlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from types import CoroutineType
from typing import Any, Final, TypeVar, cast

import msgspec

from martlet.clock import Clock
from martlet.errors import InvalidInput, MartletError, NotFound, Overloaded, StartFailed, StoreFailed, StoreFull
from martlet.limits import LIMITS
from martlet.store.copying import refuse_half
from martlet.store.engine import Engine, LogEntry, SharedEngine
from martlet.store.nodes import Card
from martlet.store.overlay import Overlay
from martlet.store.transaction import Reader, Snapshot, Tx, slowest_cursor

__all__ = ["Maintenance", "Statistics", "Store"]

T = TypeVar("T")

_DEFAULT_ENGINE: Final = "martlet.store.engines.sqlite:open_engine"
_TRIM_AT_ONCE: Final = 500  # log entries that one transaction trims: the others wait no longer than for that
_STOP: Final = None
_FOR_EVER: Final = 1 << 62
_KEPT_ROWS: Final = 2_048
_KEPT_ROW_BYTES: Final = 4_096  # a larger one is read each time
_UNKNOWN: Final = b"\x00unknown"  # compared by identity: nothing is kept of this key


class Statistics(msgspec.Struct, frozen=True):
    """What the store did since it opened."""

    transactions: int  # acknowledged, or ended by their own error
    commits: int  # durable groups; transactions / commits is the gain of grouping
    waiting: int  # transactions in the queue now
    waiting_bytes: int


class Maintenance(msgspec.Struct, frozen=True):
    """What `Store.maintain` did."""

    trimmed: int = 0  # log entries removed
    backup_seq: int | None = None  # last log entry in the backup
    problems: tuple[str, ...] = ()  # found by the integrity check; none: sound


class _Batch:
    """Transactions that share one commit."""

    __slots__ = ("checkpoint", "ends", "entries", "generation", "number", "size", "trim_through", "writes")

    def __init__(self, number: int, generation: int) -> None:
        self.number = number
        self.generation = generation
        self.writes: dict[bytes, bytes | None] = {}
        self.entries: list[LogEntry] = []
        self.ends: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []  # (future, result, error of fn)
        self.size = 0
        self.trim_through = 0
        self.checkpoint = False


class Store:
    """One transactional store with a change log. Use it on the event loop that opened it.

    `fn`s run on the loop, one after the other: that is the serial point. Their rows go to an overlay that later
    transactions read through, and to the open batch; a writer thread commits whole batches, and only then do results
    (and errors: they may rest on rows that are not durable yet) reach their callers.
    """

    shared = False  # whether other nodes may write, too
    node = "local"  # this node's name

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        """Takes over an open engine. `open` is the usual way."""
        self._set_up(engine, clock)
        self._ready: deque[_Batch] = deque()  # under the lock; the last one is open for more
        self._lock = threading.Lock()
        self._tokens: SimpleQueue[object] = SimpleQueue()  # one for each batch in `_ready`, then _STOP
        self._thread = threading.Thread(target=self._write, name="martlet-store", daemon=True)
        self._thread.start()

    def _set_up(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._first, self._head = engine.bounds()
        engine.release()
        self._last_seq = self._head  # given to a transaction, acknowledged or not
        self._pending = Overlay()
        self._written_by: dict[bytes, int] = {}  # pending key -> number of the last batch that wrote it
        self._snapshot = Snapshot(engine)
        self._kept: dict[bytes, bytes | None] = {}  # of `get`; None: there is no such row
        self._reading = False
        self._holding = False  # a snapshot of the engine until the loop's next turn
        self._refusal: StoreFailed | None = None  # once set, for ever
        self._closed: asyncio.Future[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._most_waiting = LIMITS["waiting_transactions"].default
        self._most_waiting_bytes = LIMITS["waiting_bytes"].default
        self._most_batch_bytes = LIMITS["transaction_bytes"].default
        self._waiting = self._waiting_bytes = self._transactions = self._commits = 0
        self._generation = 0  # grows when a batch fails: what was computed on top of it fails with it
        self._batches_made = 0

    @classmethod
    async def open(cls, path: Path | str, *, clock: Clock, engine: str = _DEFAULT_ENGINE) -> Store:
        """The store in folder `path` (or at a URL), made if there is none; `engine` names a `(path) -> Engine` as
        "module:function". An engine that several nodes share makes it a `SharedStore`.

        Raises `StartFailed` with the cause and what to do: read-only, full, corrupt, of a newer format, in use."""
        module, _, name = engine.partition(":")
        factory: Callable[[Path | str], Engine] = getattr(importlib.import_module(module), name)
        opened = await asyncio.to_thread(factory, path if "://" in str(path) else Path(path))
        try:
            await asyncio.to_thread(refuse_half, opened)
        except MartletError as error:
            await asyncio.to_thread(opened.close)
            raise StartFailed(error.message, remedy=error.remedy) from error
        if not hasattr(opened, "attach"):
            return cls(opened, clock=clock)
        shared = importlib.import_module("martlet.store.optimistic").SharedStore  # a `Store` too; few need it
        made: Store = await shared.begin(cast("SharedEngine", opened), clock)
        return made

    # what rooms use

    async def transact(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` at the serial point and return its result once everything it wrote is durable.

        `fn` is synchronous, short, free of side effects and may run again. If it raises, nothing of it is kept and the
        error is passed on. Other errors: `StoreFull` (nothing was written; try again when there is space),
        `StoreFailed` (unknown outcome if it was under way; the store takes no more writes), `Overloaded` (queue full).
        Cancelling the caller does not undo the transaction."""
        if self._refusal is not None:
            raise copy.copy(self._refusal)
        if self._waiting >= self._most_waiting or self._waiting_bytes >= self._most_waiting_bytes:
            raise Overloaded(f"{self._waiting} transactions ({self._waiting_bytes} bytes) wait for the disk")
        tx = Tx(self._engine, self._pending, self._last_seq, self._clock.now_ms())
        result, error = self._run(fn, tx)
        if not (self._waiting or tx.effective):
            self._transactions += 1  # saw only durable rows and wrote none: there is nothing to wait for
            if error is not None:
                raise error
            return cast(T, result)
        return await self._enqueue(tx, result, error)

    def read(self, fn: Callable[[Reader], T]) -> T:
        """Run `fn` on one snapshot of committed state, never older than any acknowledged transaction.

        Runs inline and holds up the loop: for a few gets and short scans. Raises `StoreFailed`."""
        if self._closed is not None:
            raise StoreFailed("the store is closed")
        if self._reading:
            return fn(self._snapshot)
        self._reading = True
        try:
            return fn(self._snapshot)
        finally:
            self._reading = False
            self._let_go()

    async def look(self, fn: Callable[[Reader], T]) -> T:
        """As `read`, for callers that can wait: where the engine is across a network, the loop goes on meanwhile, and `fn` may
        run several times (only its last run counts)."""
        return self.read(fn)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        """Around one request: its reads need not ask a shared engine again how far other nodes are."""
        yield

    def get(self, key: bytes) -> bytes | None:
        """One row, or None; never older than any acknowledged transaction. What was asked before comes from memory until a
        transaction writes it: for rows that every request needs. Two calls may see two states; `read` sees one.

        Raises `StoreFailed`."""
        value = self._kept.get(key, _UNKNOWN)
        if value is not _UNKNOWN and self._closed is None:
            return value
        value = self.read(lambda reader: reader.get(key))
        if value is None or len(value) <= _KEPT_ROW_BYTES:
            if len(self._kept) >= _KEPT_ROWS:
                self._kept.clear()
            self._kept[key] = value
        return value

    def tail(self, after: int, limit: int) -> list[LogEntry]:
        """At most `limit` entries that follow seq `after`: in commit order, without gaps. Fewer if they are very large.

        Raises `NotFound` if entry `after` + 1 was trimmed: the reader has no cursor, or started too late."""
        if after < 0 or limit < 1:
            raise InvalidInput(f"tail(after={after}, limit={limit}): at least 0 and 1 are needed")
        found = self.read(lambda _: self._engine.tail(after, limit))
        if found and found[0].seq != after + 1:  # the last entry is never trimmed, so nothing found means nothing newer
            first = found[0].seq
            raise NotFound(f"log entries up to {first - 1} are trimmed, {after + 1} among them", first=first)
        return found

    @property
    def head(self) -> int:
        """Seq of the last acknowledged log entry; 0 before the first."""
        return self._head

    @property
    def first(self) -> int:
        """Seq of the oldest log entry that is kept; 1 while the log is whole or empty."""
        return self._first

    async def wait(self, after: int) -> int:
        """The head, as soon as it is beyond `after`. Costs nothing while it waits. Raises `StoreFailed` when the store
        can take no more writes, or closes."""
        while self._head <= after:
            if self._refusal is not None:
                raise copy.copy(self._refusal)
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._head

    async def join(self, card: Card, lost: Callable[[MartletError], None]) -> None:
        """Be one of the nodes of a database that several share: nothing to do here, where the folder's lock admits one
        process. `lost` hears when this node may write no more. Raises `StartFailed` while another process lives under this
        node's name."""

    async def announce(self, url: str) -> None:
        """Let the other nodes know where this one answers."""

    @property
    def others(self) -> tuple[Card, ...]:
        """The other nodes that live."""
        return ()

    def on_departure(self, told: Callable[[str], None]) -> None:
        """`told` gets the name of each other node that is dead, once; of those that died before this one came, too."""

    def on_return(self, told: Callable[[], None]) -> None:
        """`told` is called when this node was taken for dead and is back: others may have taken over what was its own."""

    def watch(self, low: bytes, high: bytes, told: Callable[[list[bytes] | None], None]) -> None:
        """From now on `told` gets the keys from `low` to `high` that *other nodes* changed, or None: any of them. It is called
        on the loop, before whoever read something newer goes on. For rooms that keep a copy; here there are no other nodes."""

    def turn(self, name: str, wait_seconds: float | None = 0.0) -> AbstractAsyncContextManager[bool]:
        """Around work that one node at a time may do: waits so long (None: as long as it takes) for another one to end. Gives
        whether this node was not at it already. The work is cancelled, and ends with `Overloaded`, when the node was away for
        so long that another has taken its turn. Raises `Conflict` naming the node that is at it."""
        return nullcontext(False)

    def now_ms(self) -> int:
        """The store's clock."""
        return self._clock.now_ms()

    @property
    def generation(self) -> int:
        """Grows when transactions were not kept (no space, a failure): what was learned inside them may be wrong."""
        return self._generation

    def statistics(self) -> Statistics:
        return Statistics(self._transactions, self._commits, self._waiting, self._waiting_bytes)

    async def maintain(
        self, *, keep_log_ms: int | None = None, backup_to: Path | None = None, verify: bool = False
    ) -> Maintenance:
        """Housekeeping, beside normal work: trim the log, move the WAL into the file, then back up and check if asked.

        Trimmed is what is older than `keep_log_ms` (None: trim nothing) and behind every cursor; the last entry stays.
        `backup_to`: a new folder that `open` can use. `verify`: read everything, however long it takes."""
        trimmed = 0
        if keep_log_ms is not None:
            oldest_ms = self._clock.now_ms() - keep_log_ms
            while step := await self.transact(lambda tx: self._trim(tx, oldest_ms)):
                trimmed += step
        await self.transact(_checkpoint)
        backup_seq = None if backup_to is None else await asyncio.to_thread(self._engine.backup, backup_to)
        problems = await asyncio.to_thread(self._engine.verify) if verify else []
        return Maintenance(trimmed, backup_seq, tuple(problems))

    async def close(self) -> None:
        """Commit and acknowledge what waits, then give back the files. Safe to call again."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._refuse(StoreFailed("the store is closed"))
            self._engine.release()
            self._loop.call_soon(self._tokens.put, _STOP)  # behind the tokens that are on their way so
        await asyncio.shield(self._closed)

    # on the loop

    def _run(self, fn: Callable[[Tx], T], tx: Tx) -> tuple[T | None, Exception | None]:
        if self._reading:
            raise RuntimeError("transact was called inside read; use the reader, or leave read first")
        self._reading = True
        try:
            result = fn(tx)
            if type(result) is CoroutineType:
                cast("CoroutineType[Any, Any, Any]", result).close()
                raise InvalidInput("the function of a transaction must be synchronous")
            return result, None
        except StopIteration as error:  # cannot travel through a future
            tx.undo()
            return None, RuntimeError(f"the function of a transaction raised {error!r}")
        except Exception as error:
            tx.undo()
            return None, error
        finally:
            tx.end()
            self._reading = False
            self._let_go()

    def _let_go(self) -> None:
        """End the engine's snapshot when the loop has done what it has at hand. Until then it serves everybody: what was
        committed since is in the overlay, and `_acknowledge` ends the snapshot before rows leave that."""
        if not self._holding:
            self._holding = True
            self._loop.call_soon(self._release)

    def _release(self) -> None:
        self._holding = False
        if self._closed is None:
            self._engine.release()

    def _enqueue(self, tx: Tx, result: T | None, error: Exception | None) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        writes, first = tx.writes, self._last_seq + 1
        entries = [LogEntry(first + at, tx.now_ms, *entry) for at, entry in enumerate(tx.entries)]
        self._last_seq += len(entries)
        with self._lock:
            ready = self._ready
            batch = ready[-1] if ready else None
            if batch is None or batch.generation != self._generation or batch.size >= self._most_batch_bytes:
                self._batches_made += 1
                batch = _Batch(self._batches_made, self._generation)
                ready.append(batch)
                # After what the loop has at hand: those transactions share the commit, and the writer does not compete for
                # the interpreter with whoever is about to join it.
                self._loop.call_soon(self._tokens.put, batch.number)
            batch.ends.append((future, result, error))
            batch.writes.update(writes)
            batch.entries += entries
            batch.size += tx.size
            batch.trim_through = max(batch.trim_through, tx.trim_through)
            batch.checkpoint |= tx.checkpoint
        self._waiting += 1
        self._waiting_bytes += tx.size
        if writes:
            self._pending.update(writes)
            self._written_by.update(dict.fromkeys(writes, batch.number))
        return future

    def _acknowledge(self, batch: _Batch, failure: MartletError | None) -> None:
        """Runs once for each batch, in order, after its commit."""
        self._engine.release()
        self._waiting -= len(batch.ends)
        self._waiting_bytes -= batch.size
        if failure is not None:
            self._fail(batch, failure)
            return
        self._commits += 1
        self._transactions += len(batch.ends)
        written_by, number = self._written_by, batch.number
        done = [key for key in batch.writes if written_by[key] == number]
        for key in done:
            del written_by[key]
        self._pending.forget(done)
        if self._kept:
            for key in batch.writes.keys() & self._kept.keys():
                del self._kept[key]
        if batch.trim_through:
            self._first = batch.trim_through + 1
        for future, result, error in batch.ends:
            if future.done():  # its caller was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if batch.entries:
            self._head = batch.entries[-1].seq
            self._wake()

    def _fail(self, batch: _Batch, failure: MartletError) -> None:
        self._kept.clear()  # whether its rows are there is not known
        if batch.generation == self._generation:
            self._generation += 1
            self._pending = Overlay()
            self._written_by = {}
            self._last_seq = self._head
            if not isinstance(failure, StoreFull | Overloaded):
                self._refuse(StoreFailed(failure.message, remedy=failure.remedy))
        for future, _, _ in batch.ends:
            if not future.done():
                future.set_exception(copy.copy(failure))

    def _refuse(self, refusal: StoreFailed) -> None:
        if self._refusal is None:
            self._refusal = refusal
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _trim(self, tx: Tx, oldest_ms: int) -> int:
        slowest = slowest_cursor(tx)
        last = self._head - 1 if slowest is None else min(slowest, self._head - 1)
        through = self._first - 1
        for entry in self._engine.tail(through, _TRIM_AT_ONCE):
            if entry.seq > last or entry.at_ms >= oldest_ms:
                break
            through = entry.seq
        trimmed = through - self._first + 1
        tx.trim_through = through if trimmed else 0
        return trimmed

    def _ended(self, failure: MartletError | None) -> None:
        self._thread.join()
        closed = self._closed
        if closed is None or closed.done():
            return
        if failure is None:
            closed.set_result(None)
        else:
            closed.set_exception(failure)
            closed.exception()  # retrieved: `close` may have been cancelled

    # on the writer thread

    def _write(self) -> None:
        dead = -1  # batches of this generation and older rest on rows that were not kept
        failure: MartletError | None = None
        while self._tokens.get() is not _STOP:
            with self._lock:
                batch = self._ready.popleft()
            if batch.generation > dead:
                failure = self._commit(batch)
            if failure is None:
                told = self._tell(self._acknowledge, batch, None)
                failure = self._checkpoint(full=False)
                if failure is not None:
                    dead = _FOR_EVER
                    self._tell(self._refuse, failure)
            else:
                dead = max(dead, batch.generation)
                told = self._tell(self._acknowledge, batch, failure)
            if not told:
                break
        closing = self._close()
        self._tell(self._ended, closing)

    def _commit(self, batch: _Batch) -> MartletError | None:
        if batch.writes or batch.entries or batch.trim_through:
            try:
                self._engine.commit(batch.writes, batch.entries, batch.trim_through)
            except StoreFull as error:
                self._checkpoint(full=True)  # may give back the WAL's space
                return error
            except MartletError as error:
                return error
            except BaseException as error:
                return StoreFailed(f"the engine failed: {error!r}")
        return self._checkpoint(full=True) if batch.checkpoint else None

    def _checkpoint(self, *, full: bool) -> MartletError | None:
        try:
            self._engine.checkpoint(full=full)
        except MartletError as error:
            return error
        return None

    def _close(self) -> MartletError | None:
        try:
            self._engine.close()
        except MartletError as error:
            return error
        return None

    def _tell(self, callback: Callable[..., None], *args: object) -> bool:
        """False when the loop is gone, and with it everybody who could be told."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True


def _checkpoint(tx: Tx) -> None:
    tx.checkpoint = True
