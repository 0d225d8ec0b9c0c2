"""What breaks around PostgreSQL: nodes that are killed or stopped; a server that crashes, fills up, gives way to its standby.

Nothing that was acknowledged is lost, nothing is carried out twice, and nobody is told what is not so.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.postgres_server import PostgresServer, Schemas, new_folder, remove
from tests.simulation.histories import Clients
from tests.simulation.test_kill import check, life

from martlet.clock import Clock
from martlet.errors import Conflict, MartletError, Overloaded, StartFailed, StoreFailed, StoreFull
from martlet.store import Store, Tx, counter_value, optimistic
from martlet.store.engine import LogEntry
from martlet.store.engines import postgres
from martlet.store.optimistic import SharedStore

ENGINE = "martlet.store.engines.postgres:open_engine"


async def opened(url: str) -> SharedStore:
    store = await Store.open(url, clock=Clock(), engine=ENGINE)
    assert isinstance(store, SharedStore)
    return store


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, to be broken."""
    folder = new_folder()
    made = PostgresServer(folder / "data")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        remove(folder)


def test_a_killed_node_loses_nothing(schemas: Schemas) -> None:
    chance = random.Random(4)
    url, acknowledged = schemas(), {}
    for _ in range(2):
        acknowledged.update(life(url, chance.randrange(100, 1000)))
        engine = postgres.open_engine(url)
        check(engine, acknowledged)
        engine.close()
    assert sum(acknowledged.values()) > 100


async def test_a_server_that_crashes_and_recovers(server: PostgresServer) -> None:
    """One of its processes is killed, as a PANIC after a failed fsync does: all sessions end, and it recovers from its log."""
    store = await opened(server.url())
    clients = Clients([store], seed=11)
    work = asyncio.ensure_future(clients.run(16, 1_000_000))
    for _ in range(2):
        await asyncio.sleep(0.4)
        victims = server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'martlet'").split()
        os.kill(int(victims[0]), signal.SIGKILL)
        await recovered(server)
    await asyncio.sleep(0.3)
    clients.stopped = True
    await work
    assert clients.verdict(store) == []
    assert all(attempt.kept is not None for attempt in clients.history)  # nobody was left without an answer
    await store.close()


async def recovered(server: PostgresServer) -> None:
    for _ in range(200):
        try:
            await asyncio.to_thread(server.sql, "SELECT 1")
            return
        except subprocess.CalledProcessError:
            await asyncio.sleep(0.05)
    raise AssertionError("the server did not recover")


async def test_a_database_that_is_away_is_said_to_be(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimistic, "_PATIENCE_SECONDS", 0.3)
    store = await opened(server.url())
    await store.transact(lambda tx: tx.put(b"\x40a", b"1"))
    server.kill()
    with pytest.raises((Overloaded, StoreFailed)):
        await store.transact(lambda tx: tx.put(b"\x40a", b"2"))
    with pytest.raises(Overloaded, match="cannot be reached"):
        await store.transact(lambda tx: tx.put(b"\x40a", b"3"))
    with pytest.raises(Overloaded, match="cannot be reached"):
        store.read(lambda reader: reader.get(b"\x40a"))
    server.start()
    monkeypatch.setattr(optimistic, "_PATIENCE_SECONDS", 20)
    await store.transact(lambda tx: tx.put(b"\x40a", b"4"))
    assert store.read(lambda reader: reader.get(b"\x40a")) == b"4"
    await store.close()


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its synchronous standby."""
    folder = new_folder()
    primary = PostgresServer(folder / "primary")
    standby: PostgresServer | None = None
    try:
        primary.start()
        standby = PostgresServer(folder / "standby", primary=primary)
        standby.start()
        yield primary, standby
    finally:
        primary.stop()
        if standby is not None:
            standby.stop()
        remove(folder)


async def fail_over(pair: tuple[PostgresServer, PostgresServer]) -> tuple[Clients, SharedStore]:
    """Load; the standby stops receiving; a moment later the primary is killed and the standby promoted. The node goes on."""
    primary, standby = pair
    url = f"postgresql://martlet@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    store = await opened(url)
    clients = Clients([store], seed=13, keys=20)
    work = asyncio.ensure_future(clients.run(16, 1_000_000))
    await asyncio.sleep(0.4)
    standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
    standby.sql("SELECT pg_reload_conf()")
    await asyncio.sleep(0.3)
    primary.kill()
    await asyncio.to_thread(standby.promote)
    await asyncio.sleep(0.7)
    clients.stopped = True
    await work
    return clients, store


async def test_failover_to_a_synchronous_standby_loses_nothing(pair: tuple[PostgresServer, PostgresServer]) -> None:
    primary, _ = pair
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    primary.sql("SELECT pg_reload_conf()")
    clients, store = await fail_over(pair)
    assert clients.verdict(store) == []
    assert sum(attempt.kept is True for attempt in clients.history) > 500
    await store.close()


async def test_failover_to_an_asynchronous_standby_is_noticed(pair: tuple[PostgresServer, PostgresServer]) -> None:
    """It loses what was acknowledged: the node says so, and refuses to build on it."""
    clients, store = await fail_over(pair)
    assert any(attempt.kept is not True for attempt in clients.history)
    with pytest.raises(StoreFailed, match="went back from commit"):
        await store.transact(lambda tx: tx.put(b"\x40a", b"1"))
    await store.close()


async def test_a_full_disk_is_named_and_nothing_is_half_there(server: PostgresServer, tmp_path: Path) -> None:
    """Tables on a small file system of their own for root; for others the server's own error, raised by a trigger."""
    url = server.url(schema="small")
    store = await opened(url)
    await store.transact(lambda tx: tx.put(b"\x40a", b"1"))
    give_space = _fill_up(server, tmp_path)
    kept, refused = 0, []
    try:
        for number in range(60):

            def add(tx: Tx, number: int = number) -> None:
                tx.put(b"\x41%04d" % number, os.urandom(200_000))
                tx.increment(b"\x40n", 1)
                tx.append("t", b"k", b"v")

            try:
                await store.transact(add)
                kept += 1
            except StoreFull as error:
                refused.append(error.message)
        assert refused
        assert all("no space left" in message for message in refused)
        assert len(store.read(lambda reader: reader.scan(b"\x41", b"\x42"))) == kept == store.head
        give_space()
        await store.transact(lambda tx: tx.increment(b"\x40n", 1))
        assert store.read(lambda reader: counter_value(reader.get(b"\x40n"))) == kept + 1
        assert store._engine.verify() == []
    finally:
        await store.close()
        server.stop()
        _unmount(server)


def _unmount(server: PostgresServer) -> None:
    if os.geteuid() == 0:
        subprocess.run(["umount", str(server.folder.parent / "small")], check=True)


def _fill_up(server: PostgresServer, tmp_path: Path) -> object:
    if os.geteuid():
        server.sql(
            "CREATE FUNCTION small.full() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on "
            "device' USING ERRCODE = '53100'; END $$ LANGUAGE plpgsql; "
            "CREATE TRIGGER full BEFORE INSERT ON small.kv FOR EACH ROW WHEN (length(NEW.value) > 100000) "
            "EXECUTE FUNCTION small.full()"
        )
        return lambda: server.sql("DROP TRIGGER full ON small.kv")
    disk = server.folder.parent / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", str(disk)], check=True)
    owner = server.folder.stat()
    os.chown(disk, owner.st_uid, owner.st_gid)
    server.sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
    server.sql("ALTER TABLE small.kv SET TABLESPACE small")
    return lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


# addresses and servers that will not do


def test_passwords_are_never_shown(postgres_server: PostgresServer) -> None:
    for wrong in (
        f"postgresql://martlet:s3cret@127.0.0.1:{postgres_server.port}/nowhere",
        "postgresql://martlet:s3cret@127.0.0.1:1/x",
        "postgresql://martlet:s3cret@127.0.0.1:99999999/x",
        "mysql://martlet:s3cret@127.0.0.1/x",
        "postgresql://martlet:s3cret@127.0.0.1/x?schema=S3;drop",
    ):
        with pytest.raises(MartletError) as told:
            postgres.open_engine(wrong)
        assert "s3cret" not in f"{told.value.message} {told.value.remedy} {told.value.details}"


def test_a_server_that_does_not_sync_is_refused(server: PostgresServer) -> None:
    server.sql("ALTER SYSTEM SET fsync = off")
    server.sql("SELECT pg_reload_conf()")
    with pytest.raises(StartFailed, match="fsync=off"):
        postgres.open_engine(server.url())


def test_a_newer_format_and_another_program_are_refused(postgres_server: PostgresServer, schemas: Schemas) -> None:
    url = schemas()
    postgres.open_engine(url).close()
    schema = url.rpartition("=")[2]
    postgres_server.sql(f"UPDATE {schema}.head SET format = 9")
    with pytest.raises(StartFailed, match="format 9"):
        postgres.open_engine(url)
    postgres_server.sql("CREATE SCHEMA theirs; CREATE TABLE theirs.things ()")
    with pytest.raises(StartFailed, match="another program"):
        postgres.open_engine(postgres_server.url(schema="theirs"))


async def test_a_session_that_would_not_wait_for_the_disk_is_made_to(postgres_server: PostgresServer) -> None:
    postgres_server.sql("CREATE DATABASE loose")
    postgres_server.sql("ALTER DATABASE loose SET synchronous_commit = off")
    store = await opened(postgres_server.url("loose"))
    shown = await store._engine._committer.fetch("SHOW synchronous_commit")  # type: ignore[attr-defined]
    assert shown[0][0] == "on"
    await store.close()


# nodes that come and go, the log that they share


@pytest.fixture
async def two(schemas: Schemas) -> AsyncIterator[tuple[SharedStore, SharedStore]]:
    url = schemas()
    found = await opened(url), await opened(url)
    yield found
    for node in found:
        await node.close()


async def test_a_node_hears_of_another_ones_entries(two: tuple[SharedStore, SharedStore]) -> None:
    one, other = two
    waiting = asyncio.ensure_future(other.wait(0))
    await asyncio.sleep(0.05)
    await one.transact(lambda tx: tx.append("t", b"k", b"v"))
    async with asyncio.timeout(5):
        assert await waiting == 1
    assert [(entry.seq, entry.body) for entry in other.tail(0, 10)] == [(1, b"v")]
    await asyncio.gather(*(node.transact(lambda tx: tx.append("t", b"k", b"w")) for node in two for _ in range(10)))
    assert [entry.seq for entry in one.tail(0, 100)] == [entry.seq for entry in other.tail(0, 100)] == list(range(1, 22))


async def test_a_node_that_is_far_behind_forgets_what_it_knew(
    two: tuple[SharedStore, SharedStore], postgres_server: PostgresServer
) -> None:
    one, other = two
    await one.transact(lambda tx: tx.put(b"\x40a", b"1"))
    assert await other.look(lambda reader: reader.get(b"\x40a")) == b"1"
    await one.transact(lambda tx: tx.put(b"\x40a", b"2"))
    schema = one._engine.address.schema  # type: ignore[attr-defined]
    postgres_server.sql(f"DELETE FROM {schema}.commits WHERE n < (SELECT n FROM {schema}.head)")
    await one.transact(lambda tx: tx.put(b"\x40b", b"3"))
    assert await other.transact(lambda tx: tx.get(b"\x40a")) == b"2"


async def test_the_log_is_trimmed_for_all(two: tuple[SharedStore, SharedStore]) -> None:
    one, other = two
    for _ in range(5):
        await one.transact(lambda tx: tx.append("t", b"k", b"v"))
    await other.transact(lambda tx: tx.cursor_move("c", 0, 2))  # keeps entries 3 and later
    await asyncio.sleep(0.01)
    assert (await one.maintain(keep_log_ms=0)).trimmed == 2
    assert other.read(lambda reader: reader.cursor("c")) == 2
    assert (other.first, other.head) == (3, 5)
    assert [entry.seq for entry in other.tail(2, 10)] == [3, 4, 5]


async def test_a_function_that_reads_step_by_step(two: tuple[SharedStore, SharedStore]) -> None:
    """Each step needs the one before: it runs as often as it takes, and writes once."""
    one, other = two

    def chain(tx: Tx) -> None:
        for at in range(30):
            tx.put(b"\x40%d" % at, b"%d" % (at + 1))
        tx.put(b"\x40" + b"30", b"end")

    await one.transact(chain)

    def follow(tx: Tx) -> int:
        at, steps = b"0", 0
        while (found := tx.get(b"\x40" + at)) not in (b"end", None):
            at, steps = found, steps + 1
        tx.increment(b"\x41n", steps)
        return steps

    assert await other.transact(follow) == 30
    assert other.read(lambda reader: counter_value(reader.get(b"\x41n"))) == 30


async def test_errors_of_functions_reach_their_callers_only(two: tuple[SharedStore, SharedStore]) -> None:
    def fails(tx: Tx) -> None:
        tx.put(b"\x40a", b"1")
        raise Conflict("on purpose")

    told = await asyncio.gather(
        *(two[0].transact(fails if at % 2 else (lambda tx, at=at: tx.put(b"\x41%d" % at, b""))) for at in range(20)),
        return_exceptions=True,
    )
    assert [isinstance(found, Conflict) for found in told] == [bool(at % 2) for at in range(20)]
    assert len(two[1].read(lambda reader: reader.scan(b"\x40", b"\x42"))) == 10


def test_log_entries_carry_any_text(schemas: Schemas) -> None:
    engine = postgres.open_engine(schemas())
    entries = [LogEntry(1, 5, "a\x00b\U0001f426", b"\x00", b"\xff")]
    engine.commit({}, entries, 0)
    assert engine.tail(0, 1) == entries
    engine.close()
