"""PostgreSQL as the store's engine: several nodes on one database, each commit one statement under the head row.

The head row is the serial point: a commit names the position that it rests on, and is kept only if the head is still there
(`try_commit`), or is computed anew while the head row is locked (`hold`). Positions and the log's numbers are dense because
they are taken from that row. The store drives `SharedEngine` on its event loop; the plain `Engine` half is blocking, on a
thread with a loop of its own: for reads in the middle of synchronous code, for copies and checks. Reasons: store/DESIGN.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import msgspec

from martlet.clock import Clock
from martlet.errors import Conflict, MartletError, Overloaded, StartFailed, StoreFailed
from martlet.store.copying import copy_store
from martlet.store.engine import Change, Group, LogEntry, Lost, Seen, Span
from martlet.store.engines.folder import cannot_use, sync_folder
from martlet.store.engines.postgres_sql import FORMAT, KEPT_CHANGES, Address, Statements, translate

__all__ = ["PostgresEngine", "open_engine"]

T = TypeVar("T")

_ANSWER_SECONDS: Final = 10.0  # for a connection, and for an answer; a commit's answer takes as long as it takes
_BLOCKING_SECONDS: Final = 2.0  # the most that a read holds up the event loop when the database does not answer
_LARGE_SECONDS: Final = 3_600.0  # for a check of everything
_MOST_SKEW_MS: Final = 2_000
_TRIES: Final = 5
_SESSION: Final = {
    "application_name": "martlet",
    "jit": "off",
    "enable_seqscan": "off",  # tables begin empty and without statistics; every statement has its index
    "max_parallel_workers_per_gather": "0",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "10000",  # a node that is stopped while it holds the head row lets go of it
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


def open_engine(address: str | Path) -> PostgresEngine:
    """The engine of the store at `postgresql://…`, whose tables are made if there are none. Raises `StartFailed` with the cause
    and what to do."""
    engine = PostgresEngine(str(address))
    try:
        engine.prepare()
    except BaseException:
        engine.close()
        raise
    return engine


class _Link:
    """One connection, made when it is first needed and again after it broke. Belongs to one event loop."""

    def __init__(self, address: Address, hint: Callable[[], None] | None = None, node: str = "") -> None:
        self._address = address
        self._hint = hint
        self._node = node
        self._connection: Any = None
        self.unsure = False  # the server gave up waiting for its standby: committed here, not there

    async def connection(self) -> Any:
        found = self._connection
        if found is not None and not found.is_closed():
            return found
        self.drop()
        made: Any = None
        try:
            made = await asyncpg.connect(
                self._address.url,
                timeout=_ANSWER_SECONDS,
                server_settings=_SESSION,
                statement_cache_size=200,
                max_cacheable_statement_size=0,
            )
            await made.execute("SET synchronous_commit = on" if await _loose(made) else "SELECT 1")
            made.add_log_listener(self._warned)
            if self._hint is not None and self._address.notify:
                await made.add_listener(self._address.schema, self._notified)
        except BaseException as error:
            if made is not None:
                made.terminate()
            raise _ours(error, self._address.shown, sent=False) from error
        self._connection = made
        if self._hint is not None:
            self._hint()  # what was told while there was no connection
        return made

    async def fetch(self, sql: str, *values: object, sent: bool = False, seconds: float | None = _ANSWER_SECONDS) -> Any:
        """Rows of one statement, in the transaction that is open or in its own. `sent`: it may change something."""
        connection = await self.connection()
        try:
            return await connection.fetch(sql, *values, timeout=seconds)
        except BaseException as error:
            raise self.failed(error, sent=sent) from error

    def failed(self, error: BaseException, *, sent: bool) -> BaseException:
        """What to raise for this error. A connection that may be in the middle of something is not used again."""
        found = _ours(error, self._address.shown, sent=sent)
        if not isinstance(error, asyncpg.PostgresError) or isinstance(found, Lost):
            self.drop()
        return found

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=2)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    def _notified(self, _connection: object, _process: int, _channel: str, node: str) -> None:
        if self._hint is not None and node != self._node:
            self._hint()

    def _warned(self, _: object, message: Any) -> None:
        if "synchronous replication" in str(message):
            self.unsure = True


async def _loose(connection: Any) -> bool:
    """Whether this session would be told of commits that are not on disk."""
    return await connection.fetchval("SHOW synchronous_commit") in ("off", "local")


class _Again(Exception):
    """The server asks for the same once more (a conflict between transactions)."""


def _ours(error: BaseException, shown: str, *, sent: bool) -> BaseException:
    if isinstance(error, MartletError | Lost | _Again | asyncio.CancelledError | KeyboardInterrupt | SystemExit):
        return error
    return translate(error, shown, sent=sent) or _Again()


class PostgresEngine:
    """`martlet.store.engine.SharedEngine` and `Engine` over one schema of one database."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.address = Address.of(text)
        self.node = secrets.token_hex(8)
        self._sql = Statements(self.address)
        self._looker = self._committer = _Link(self.address)
        self._snapshot: Any = None
        self._thread_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._thread_loop.run_forever, name="martlet-postgres", daemon=True)
        self._thread.start()
        self._reader, self._writer = _Link(self.address), _Link(self.address)
        self._plain_commit = threading.Lock()

    # opening

    def prepare(self) -> None:
        """Make the tables, or check them. Raises `StartFailed`."""
        try:
            self._wait(self._prepare(), _ANSWER_SECONDS * 2)
        except StartFailed:
            raise
        except (MartletError, Lost) as error:
            raise StartFailed(
                f"cannot use the database {getattr(error, 'message', '') or error}",
                remedy="see that it runs, that its address is right and that the user may connect and create a schema",
            ) from error

    async def _prepare(self) -> None:
        connection = await self._writer.connection()
        await self._check_server(connection)
        for turn in range(_TRIES):
            try:
                await self._make(connection)
                return
            except asyncpg.PostgresError as error:  # two nodes make the tables at once: one of them loses
                if turn == _TRIES - 1:
                    raise self._writer.failed(error, sent=False) from error
                await asyncio.sleep(0.1 * (turn + 1))

    async def _check_server(self, connection: Any) -> None:
        shown = self.address.shown
        for name in ("fsync", "full_page_writes"):
            if await connection.fetchval(f"SHOW {name}") == "off":
                raise StartFailed(
                    f"the database {shown} runs with {name}=off: what it acknowledges can be lost",
                    remedy=f"set {name}=on in postgresql.conf",
                )
        now_ms = int(await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
        skew = Clock().now_ms() - now_ms
        if abs(skew) > _MOST_SKEW_MS:
            raise StartFailed(
                f"this machine's clock and that of {shown} are {abs(skew) / 1000:.1f} s apart",
                remedy="synchronise both (NTP): delays, expiry and leases go by the clock",
            )

    async def _make(self, connection: Any) -> None:
        schema = self.address.schema
        async with connection.transaction():
            there = await connection.fetchval("SELECT to_regclass($1)::text", f"{schema}.head")
            if there is None:
                others = await connection.fetchval(
                    "SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema
                )  # not ours: a schema of another program
                if others:
                    raise StartFailed(
                        f"schema {schema} of {self.address.shown} belongs to another program",
                        remedy="name another one: ?schema=NAME",
                    )
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; {self._sql.tables}")
                return
            found = await connection.fetchval(self._sql.format)
        if found is None or found > FORMAT:
            raise StartFailed(
                f"{self.address.shown} was written by a newer martlet: it has format {found}, this one knows {FORMAT}",
                remedy="install the newer martlet, or name another schema",
                format=found,
            )

    # shared: on the store's event loop

    async def attach(self, hint: Callable[[], None]) -> None:
        self._looker, self._committer = _Link(self.address, hint, self.node), _Link(self.address)
        await self._looker.fetch(self._sql.enter, self.node)
        await self._committer.connection()

    async def detach(self) -> None:
        with contextlib.suppress(Lost, MartletError, _Again):
            await self._looker.fetch(self._sql.leave, self.node, seconds=2)
        await self._looker.close()
        await self._committer.close()
        await asyncio.sleep(0)

    async def look(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        return await _retried(lambda: self._look(self._looker, after, keys, spans))

    def look_now(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        return self._unlost(lambda: self._wait(self._insist(after, keys, spans), _BLOCKING_SECONDS))

    async def _insist(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        """A connection may have gone stale; a server may be about to come back."""
        for pause in (0.01, 0.05, 0.1, 0.2, 0.4, 0.8):
            try:
                return await _retried(lambda: self._look(self._writer, after, keys, spans))
            except Lost:
                await asyncio.sleep(pause)
        return await _retried(lambda: self._look(self._writer, after, keys, spans))

    async def _look(self, link: _Link, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        if spans:
            ahead = [span for span in spans if not span.reverse]
            back = [span for span in spans if span.reverse]
            columns = [column for group in (ahead, back) for column in _columns(group)]
            return _seen(await link.fetch(self._sql.look_all, after, keys, *columns), after, spans)
        if keys:
            return _seen(await link.fetch(self._sql.look_keys, after, keys), after, spans)
        return _seen(await link.fetch(self._sql.look_head, after), after, spans)

    async def try_commit(self, group: Group) -> int | None:
        return await _retried(lambda: self._commit_alone(group))

    async def _commit_alone(self, group: Group) -> int | None:
        found = await self._write(self._committer, group, sent=True)
        self.confirmed(self._committer)
        return found

    async def _write(self, link: _Link, group: Group, first: int = 0, *, sent: bool) -> int | None:
        found = await link.fetch(self._sql.commit, *self._values(group, first), sent=sent, seconds=None)
        return found[0][0] if found else None

    def confirmed(self, link: _Link) -> None:
        """After a commit. When somebody cancels the wait for a standby, the server says that the commit is done."""
        if link.unsure:
            link.unsure = False
            raise Lost(f"{self.address.shown}: its standby did not confirm a commit", sent=True)

    def _values(self, group: Group, first: int) -> tuple[object, ...]:
        puts = [(key, value) for key, value in group.writes.items() if value is not None]
        deletes = [key for key, value in group.writes.items() if value is None]
        entries = group.entries
        return (
            group.position,
            group.seq,
            max(first, group.trim_through + 1 if group.trim_through else 0),
            self.node,
            group.batch,
            [key for key, _ in puts],
            [value for _, value in puts],
            deletes,
            [entry.seq for entry in entries],
            [entry.at_ms for entry in entries],
            [entry.topic.encode() for entry in entries],
            [entry.key for entry in entries],
            [entry.body for entry in entries],
            group.trim_through,
            _pack(list(group.writes)),
            group.absent,
        )

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[_Held]:
        held = _Held(self, self._committer)
        try:
            await held.take()
            yield held
        except _Again as again:
            raise Lost(f"{self.address.shown}: a conflict between transactions") from again  # nothing was kept
        finally:
            await held.give_back()

    async def resolve(self, batch: int) -> int | None:
        return await _retried(lambda: self._resolve(batch))

    async def _resolve(self, batch: int) -> int | None:
        """Under the head row: whoever still carries that commit out is done, and nobody can begin it any more, because the head
        moves on. The empty commit also waits for a standby, and with it for everything before."""
        async with self.hold() as held:
            found = await self._committer.fetch(self._sql.mine, self.node, batch)
            await held.commit(Group(0, held.position, held.seq, {}, (), 0))
        return found[0][0] if found else None

    # plain: blocking, from the event loop or another thread

    def get(self, key: bytes) -> bytes | None:
        rows = self._plain(self._sql.get, key)
        return rows[0][0] if rows else None

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        return [tuple(row) for row in self._plain(self._sql.scan_back if reverse else self._sql.scan, low, high, limit)]

    def tail(self, after: int, limit: int) -> list[LogEntry]:
        return [
            LogEntry(seq, at_ms, topic.decode(), key, body)
            for seq, at_ms, topic, key, body in self._plain(self._sql.tail, after, limit)
        ]

    def bounds(self) -> tuple[int, int]:
        first, last = self._plain(self._sql.bounds)[0]
        return (1, 0) if not last else (first, last)

    def release(self) -> None:
        if self._snapshot is not None:
            snapshot, self._snapshot = self._snapshot, None
            try:
                self._wait(snapshot.rollback(), _BLOCKING_SECONDS)
            except (Lost, MartletError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                self._thread_loop.call_soon_threadsafe(self._reader.drop)

    def commit(self, writes: Mapping[bytes, bytes | None], entries: Sequence[LogEntry], trim_through: int) -> None:
        async def committed() -> None:
            held = _Held(self, self._writer)
            await held.take()
            try:
                seq = entries[-1].seq if entries else held.seq
                first = entries[0].seq if entries and not held.seq else 0
                await held.commit(Group(0, held.position, seq, writes, entries, trim_through), first)
            finally:
                await held.give_back()

        with self._plain_commit:
            self._unlost(lambda: self._wait(committed(), None))

    def checkpoint(self, *, full: bool) -> None:
        """The server does that by itself."""

    def backup(self, target: Path) -> int:
        """A copy for the embedded engine, from one snapshot."""
        source = PostgresEngine(self._text)  # a snapshot of its own
        try:
            return _backup(source, target)
        finally:
            source.close()

    def verify(self) -> list[str]:
        async def checked() -> Any:
            link = _Link(self.address)
            try:
                return (await link.fetch(self._sql.check, seconds=_LARGE_SECONDS))[0]
            finally:
                await link.close()

        try:
            found = self._unlost(lambda: self._wait(checked(), None))
        except MartletError as error:
            return [error.message]
        shown, problems = self.address.shown, []
        if found["entries"] and found["high"] - found["low"] + 1 != found["entries"]:
            problems.append(f"{shown}: the log holds {found['entries']} entries between {found['low']} and {found['high']}")
        elif found["entries"] and (found["low"], found["high"]) != (found["first"], found["seq"]):
            problems.append(
                f"{shown}: the log is {found['low']} to {found['high']}, its head says {found['first']} to {found['seq']}"
            )
        if found["n"] and found["noted"] != found["n"]:
            problems.append(f"{shown}: the head is at {found['n']}, the last commit that is noted is {found['noted']}")
        return problems

    def close(self) -> None:
        if self._thread_loop.is_closed():
            return

        async def shut() -> None:
            for link in (self._reader, self._writer):
                await link.close()
            await asyncio.sleep(0.001)  # the loop buries what was cut off

        with contextlib.suppress(Lost, MartletError):
            self._wait(shut(), _ANSWER_SECONDS)
        self._thread_loop.call_soon_threadsafe(self._thread_loop.stop)
        self._thread.join()
        self._thread_loop.close()

    def _plain(self, sql: str, *values: object) -> Any:
        """In one snapshot until `release`."""

        async def read() -> Any:
            connection = await self._reader.connection()
            if self._snapshot is None:
                snapshot = connection.transaction(isolation="repeatable_read", readonly=True)
                try:
                    await snapshot.start()
                except BaseException as error:
                    raise self._reader.failed(error, sent=False) from error
                self._snapshot = snapshot
            return await self._reader.fetch(sql, *values, seconds=_LARGE_SECONDS)

        def once() -> Any:
            return self._wait(read(), None)

        try:
            return self._unlost(once)
        except MartletError:
            self._snapshot = None
            self._thread_loop.call_soon_threadsafe(self._reader.drop)
            raise

    def _unlost(self, call: Callable[[], T]) -> T:
        """In synchronous code nobody waits for the database to come back."""
        try:
            return call()
        except Lost as lost:
            if lost.sent:
                raise StoreFailed(f"unknown outcome: {lost}") from lost
            raise Overloaded(f"the database cannot be reached: {lost}", retry_after_seconds=2) from lost

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._thread_loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise Lost(f"{self.address.shown} does not answer") from None


class _Held:
    """The head row, locked. Ends with `commit` or `give_back`."""

    def __init__(self, engine: PostgresEngine, link: _Link) -> None:
        self._engine = engine
        self._link = link
        self._transaction: Any = None
        self.position = self.seq = self.first = 0

    async def take(self) -> None:
        connection = await self._link.connection()
        try:
            transaction = connection.transaction()
            await transaction.start()
        except BaseException as error:
            raise self._link.failed(error, sent=False) from error
        self._transaction = transaction
        try:
            self.position, self.seq, self.first = (await self._link.fetch(self._engine._sql.lock, seconds=None))[0]
        except BaseException:
            await self.give_back()
            raise

    async def look(self, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
        return await self._engine._look(self._link, after, keys, spans)

    async def commit(self, group: Group, first: int = 0) -> int:
        position = await self._engine._write(self._link, group, first, sent=False)  # open until COMMIT
        if position is None:
            raise StoreFailed(f"{self._engine.address.shown}: the head moved while it was locked")
        transaction, self._transaction = self._transaction, None
        try:
            await transaction.commit()
        except BaseException as error:
            raise self._link.failed(error, sent=True) from error
        self._engine.confirmed(self._link)
        return position

    async def give_back(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return
        try:
            await transaction.rollback()
        except BaseException as error:
            self._link.drop()
            if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError):
                raise


def _backup(source: PostgresEngine, target: Path) -> int:
    """A copy of `source` in the new folder `target`, for the embedded engine; returns the last seq that it holds."""
    from martlet.store.engines import sqlite  # only who makes a copy needs it

    if target.exists():
        raise Conflict(f"backup target {target} exists already", remedy="name a folder that does not exist yet")
    partial = target.with_name(f".{target.name}.partial")
    copy = sqlite.open_engine(partial)
    try:
        copy_store(source, copy)
        last = copy.bounds()[1]
        copy.release()
    finally:
        copy.close()
    try:
        (partial / "lock").unlink()
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        failed = cannot_use(target, error)
        raise StoreFailed(failed.message, remedy=failed.remedy) from error
    return last


async def _retried(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    for turn in range(_TRIES):
        try:
            return await make()
        except _Again:
            await asyncio.sleep(0.005 * (turn + 1))
    raise Overloaded("the database keeps refusing: too many conflicts between transactions", retry_after_seconds=1)


def _columns(spans: Sequence[Span]) -> tuple[list[bytes], list[bytes], list[int]]:
    return [span.low for span in spans], [span.high for span in spans], [span.limit for span in spans]


def _seen(rows: Sequence[Any], after: int, spans: Sequence[Span]) -> Seen:
    position = seq = first = 0
    changes: list[Change] = []
    found: dict[bytes, bytes] = {}
    ahead: list[list[tuple[bytes, bytes]]] = []
    back: list[list[tuple[bytes, bytes]]] = []
    answers: list[list[tuple[bytes, bytes]]] = []
    for span in spans:
        answers.append([])
        (back if span.reverse else ahead).append(answers[-1])
    for kind, a, b, c, node, key, value in rows:
        if kind == 2:
            found[key] = value
        elif kind == 3:
            ahead[a - 1].append((key, value))
        elif kind == 4:
            back[a - 1].append((key, value))
        elif kind == 1:
            changes.append(Change(a, node, b, _unpack(value)))
        else:
            position, seq, first = a, b, c
    changes.sort(key=lambda change: change.position)
    whole = len(changes) == max(0, position - after) and position - after <= KEPT_CHANGES
    return Seen(position, seq, first, changes if whole else None, found, answers)
