"""Transactions: what is kept, what is seen when, and how they end."""

from __future__ import annotations

import asyncio

import pytest
from tests.store.conftest import FaultyEngine

from martlet.clock import ManualClock
from martlet.errors import Conflict, InvalidInput, LimitExceeded, NotFound, Overloaded, StoreFailed, StoreFull
from martlet.limits import LIMITS
from martlet.store import Store, Tx, counter_value


def row(store: Store, key: bytes) -> bytes | None:
    return store.read(lambda reader: reader.get(key))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_rows_are_there_when_transact_returns(store: Store) -> None:
    def write(tx: Tx) -> str:
        tx.put(b"a", b"1")
        tx.put(b"b", b"2")
        tx.delete(b"b")
        assert (tx.get(b"a"), tx.get(b"b")) == (b"1", None)
        return "done"

    assert await store.transact(write) == "done"
    assert (row(store, b"a"), row(store, b"b")) == (b"1", None)


async def test_an_error_undoes_only_its_own_transaction(store: Store, engine: FaultyEngine) -> None:
    def fail(tx: Tx) -> None:
        tx.put(b"a", b"bad")
        tx.append("t", b"k", b"bad")
        raise Conflict("changed")

    engine.gate.clear()
    first = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"a", b"1")))
    second = asyncio.ensure_future(store.transact(fail))
    third = asyncio.ensure_future(store.transact(lambda tx: tx.get(b"a")))
    await settle()
    engine.gate.set()
    await first
    with pytest.raises(Conflict, match="changed"):
        await second
    assert await third == b"1"
    assert (row(store, b"a"), store.tail(0, 10), store.head) == (b"1", [], 0)


async def test_nothing_is_told_before_it_is_durable(store: Store, engine: FaultyEngine) -> None:
    """Neither a result nor an error that rests on rows still under way."""
    engine.gate.clear()
    put = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"a", b"1")))
    await settle()

    def exists(tx: Tx) -> None:
        if tx.get(b"a"):
            raise Conflict("exists")

    seen = asyncio.ensure_future(store.transact(lambda tx: tx.get(b"a")))
    refused = asyncio.ensure_future(store.transact(exists))
    await settle()
    assert [task.done() for task in (put, seen, refused)] == [False] * 3
    assert row(store, b"a") is None
    engine.gate.set()
    assert await seen == b"1"
    assert put.done()
    with pytest.raises(Conflict):
        await refused


async def test_transactions_see_those_before_them(store: Store, engine: FaultyEngine) -> None:
    engine.gate.clear()
    tasks = [asyncio.ensure_future(store.transact(lambda tx: tx.increment(b"n", 1))) for _ in range(50)]
    scan = asyncio.ensure_future(store.transact(lambda tx: tx.scan(b"a", b"z")))
    await settle()
    engine.gate.set()
    assert await asyncio.gather(*tasks) == list(range(1, 51))
    assert [(key, counter_value(value)) for key, value in await scan] == [(b"n", 50)]


async def test_those_who_wait_share_one_commit(store: Store, engine: FaultyEngine) -> None:
    engine.gate.clear()
    tasks = [asyncio.ensure_future(store.transact(lambda tx, n=n: tx.put(b"k%d" % n, b""))) for n in range(100)]
    await settle()
    engine.gate.set()
    await asyncio.gather(*tasks)
    assert engine.commits <= 2  # the first may have left alone
    assert store.statistics().transactions == 100


async def test_a_batch_is_cut_before_it_grows_too_large(store: Store, engine: FaultyEngine) -> None:
    body = b"x" * (LIMITS["transaction_bytes"].default // 2)
    engine.gate.clear()
    tasks = [asyncio.ensure_future(store.transact(lambda tx, n=n: tx.put(b"k%d" % n, body))) for n in range(6)]
    await settle()
    engine.gate.set()
    await asyncio.gather(*tasks)
    assert engine.commits >= 2


async def test_a_lone_read_needs_no_commit(store: Store, engine: FaultyEngine) -> None:
    assert await store.transact(lambda tx: tx.get(b"a")) is None
    with pytest.raises(KeyError):
        await store.transact(lambda tx: {}["x"])
    assert engine.commits == 0


async def test_a_cancelled_caller_leaves_the_others_alone(store: Store, engine: FaultyEngine) -> None:
    engine.gate.clear()
    gone = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"a", b"1")))
    stays = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"b", b"1")))
    await settle()
    gone.cancel()
    await settle()
    engine.gate.set()
    await stays
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (row(store, b"a"), row(store, b"b")) == (b"1", b"1")


async def test_functions_that_are_not_synchronous_are_refused(store: Store) -> None:
    async def later(tx: Tx) -> None:
        tx.put(b"a", b"1")

    with pytest.raises(InvalidInput, match="synchronous"):
        await store.transact(later)
    assert row(store, b"a") is None


async def test_stop_iteration_reaches_its_caller(store: Store, engine: FaultyEngine) -> None:
    def stop(tx: Tx) -> None:
        tx.put(b"a", b"1")
        raise StopIteration

    engine.gate.clear()
    other = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"b", b"1")))
    stopped = asyncio.ensure_future(store.transact(stop))
    await settle()
    engine.gate.set()
    await other
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stopped
    assert row(store, b"a") is None


async def test_a_transaction_that_ended_is_of_no_use(store: Store) -> None:
    kept = await store.transact(lambda tx: tx)
    for use in (lambda: kept.put(b"a", b"1"), lambda: kept.get(b"a"), lambda: kept.scan(b"a", b"b")):
        with pytest.raises(RuntimeError, match="ended"):
            use()
    with pytest.raises(RuntimeError, match="ended"):
        kept.append("t", b"", b"")


@pytest.mark.parametrize("key", [b"", b"\x00", b"\x00cx", "text", bytearray(b"a"), 1])
async def test_keys_that_are_not_the_callers_are_refused(store: Store, key: bytes) -> None:
    for write in (lambda tx: tx.put(key, b""), lambda tx: tx.delete(key)):
        with pytest.raises(InvalidInput):
            await store.transact(write)


async def test_limits_are_exact_and_named(store: Store) -> None:
    longest, largest = LIMITS["key_bytes"].default, LIMITS["value_bytes"].default
    await store.transact(lambda tx: tx.put(b"k" * longest, b""))
    for write, name in (
        (lambda tx: tx.put(b"k" * (longest + 1), b""), "key_bytes"),
        (lambda tx: tx.delete(b"k" * (longest + 1)), "key_bytes"),
        (lambda tx: tx.put(b"k", b"x" * (largest + 1)), "value_bytes"),
        (lambda tx: tx.append("t", b"k" * longest, b""), "key_bytes"),
        (lambda tx: tx.append("t", b"k", b"x" * (largest + 1)), "value_bytes"),
        (lambda tx: [tx.put(b"k%d" % n, b"x" * (largest // 4)) for n in range(4)], "transaction_bytes"),
        (lambda tx: [tx.append("t", b"", b"x" * (largest // 4)) for n in range(5)], "transaction_bytes"),
        (lambda tx: tx.cursor_move("c" * longest, 0, 0), "key_bytes"),
    ):
        with pytest.raises(LimitExceeded, match=f"limit {name} is"):
            await store.transact(write)
    assert store.read(lambda reader: len(reader.scan(b"\x00", b"\xff"))) == 1
    with pytest.raises(InvalidInput, match="bytes"):
        await store.transact(lambda tx: tx.put(b"k", "text"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="limit"):
        store.read(lambda reader: reader.scan(b"a", b"b", 0))


async def test_the_queue_is_bounded(store: Store, engine: FaultyEngine) -> None:
    engine.gate.clear()
    most = LIMITS["waiting_transactions"].default
    tasks = [asyncio.ensure_future(store.transact(lambda tx: tx.increment(b"n", 1))) for _ in range(most + 3)]
    await settle()
    engine.gate.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(end, Overloaded) for end in ended) == 3
    assert await store.transact(lambda tx: tx.increment(b"n", 1)) == most + 1
    assert store.statistics().waiting == 0


async def test_the_queue_is_bounded_in_bytes(store: Store, engine: FaultyEngine) -> None:
    engine.gate.clear()
    body = b"x" * (LIMITS["transaction_bytes"].default - 10)
    tasks = [asyncio.ensure_future(store.transact(lambda tx: tx.put(b"k", body))) for _ in range(8)]
    await settle()
    engine.gate.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(end, Overloaded) for end in ended] == [False] * 5 + [True] * 3
    assert store.statistics().waiting_bytes == 0


async def test_counters_keep_to_64_bits(store: Store) -> None:
    most = (1 << 63) - 1
    assert await store.transact(lambda tx: tx.increment(b"n", most)) == most
    with pytest.raises(InvalidInput, match="64 bits"):
        await store.transact(lambda tx: tx.increment(b"n", 1))
    assert await store.transact(lambda tx: tx.increment(b"m", -most - 1)) == -most - 1
    assert counter_value(row(store, b"n")) == most
    await store.transact(lambda tx: tx.put(b"text", b"abc"))
    with pytest.raises(InvalidInput, match="no counter"):
        await store.transact(lambda tx: tx.increment(b"text", 1))


async def test_compare_and_set(store: Store) -> None:
    assert await store.transact(lambda tx: tx.compare_and_set(b"a", None, b"1"))
    assert not await store.transact(lambda tx: tx.compare_and_set(b"a", None, b"2"))
    assert not await store.transact(lambda tx: tx.compare_and_set(b"a", b"0", None))
    assert row(store, b"a") == b"1"
    assert await store.transact(lambda tx: tx.compare_and_set(b"a", b"1", None))
    assert row(store, b"a") is None


async def test_reads_within_reads_share_the_snapshot(store: Store, engine: FaultyEngine) -> None:
    await store.transact(lambda tx: tx.put(b"a", b"1"))

    def read(reader: object) -> tuple[bytes | None, bytes | None]:
        before = row(store, b"a")
        engine.commit({b"a": b"2"}, [], 0)
        return before, row(store, b"a")

    assert store.read(read) == (b"1", b"1")
    await asyncio.sleep(0)  # a snapshot lasts for the loop's turn: nobody but the store commits
    assert row(store, b"a") == b"2"


# the disk


async def test_a_full_disk_refuses_and_recovers(store: Store, engine: FaultyEngine) -> None:
    await store.transact(lambda tx: (tx.put(b"a", b"1"), tx.append("t", b"a", b"1")))
    engine.faults += [StoreFull("no space left")]
    engine.gate.clear()
    tasks = [asyncio.ensure_future(store.transact(lambda tx: tx.increment(b"n", 1))) for _ in range(20)]
    tasks.append(asyncio.ensure_future(store.transact(lambda tx: tx.append("t", b"a", b"2"))))
    await settle()
    engine.gate.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, StoreFull) for end in ended)
    assert (row(store, b"a"), row(store, b"n"), store.head) == (b"1", None, 1)
    assert await store.transact(lambda tx: tx.increment(b"n", 1)) == 1  # nothing of the failed ones shows
    await store.transact(lambda tx: tx.append("t", b"a", b"2"))
    assert [entry.seq for entry in store.tail(0, 10)] == [1, 2]
    assert store.statistics().waiting == 0


async def test_what_rests_on_a_failed_batch_fails_with_it(store: Store, engine: FaultyEngine) -> None:
    """The second batch is made while the first is under way, and read its rows."""
    engine.faults += [StoreFull("no space left"), None]
    engine.gate.clear()
    first = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"a", b"lost")))
    for _ in range(1000):
        await asyncio.sleep(0.001)
        if not store._ready:
            break  # the writer has taken it

    def copy(tx: Tx) -> None:
        tx.put(b"b", tx.get(b"a") or b"")

    second = asyncio.ensure_future(store.transact(copy))
    await settle()
    engine.gate.set()
    assert [type(end) for end in await asyncio.gather(first, second, return_exceptions=True)] == [StoreFull, StoreFull]
    assert engine.commits == 1
    assert (row(store, b"a"), row(store, b"b")) == (None, None)


@pytest.mark.parametrize("fault", [StoreFailed("fsync failed"), OSError(5, "input/output error"), ZeroDivisionError()])
async def test_after_an_unknown_outcome_nothing_is_ever_acknowledged(
    store: Store, engine: FaultyEngine, fault: Exception
) -> None:
    await store.transact(lambda tx: tx.put(b"a", b"1"))
    waiting = asyncio.ensure_future(store.wait(0))
    engine.faults += [fault]
    with pytest.raises(StoreFailed):
        await store.transact(lambda tx: tx.put(b"a", b"2"))
    for _ in range(3):
        with pytest.raises(StoreFailed):
            await store.transact(lambda tx: tx.put(b"a", b"3"))
    with pytest.raises(StoreFailed):
        await waiting
    assert engine.commits == 2
    assert row(store, b"a") == b"1"


async def test_a_failed_checkpoint_stops_the_store(store: Store, engine: FaultyEngine) -> None:
    engine.checkpoint_fault = StoreFailed("fsync failed")
    await store.transact(lambda tx: tx.put(b"a", b"1"))  # durable before the checkpoint began
    with pytest.raises(StoreFailed):
        await store.transact(lambda tx: tx.put(b"a", b"2"))
    assert engine.commits == 1


async def test_each_caller_gets_an_error_of_its_own(store: Store, engine: FaultyEngine) -> None:
    engine.faults += [StoreFull("no space left", remedy="free space")]
    engine.gate.clear()
    tasks = [asyncio.ensure_future(store.transact(lambda tx: tx.increment(b"n", 1))) for _ in range(3)]
    await settle()
    engine.gate.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(end) for end in ended}) == 3
    assert all(isinstance(end, StoreFull) and end.remedy == "free space" for end in ended)


# the end


async def test_close_finishes_what_waits(engine: FaultyEngine, clock: ManualClock) -> None:
    store = Store(engine, clock=clock)
    engine.gate.clear()
    tasks = [asyncio.ensure_future(store.transact(lambda tx: tx.increment(b"n", 1))) for _ in range(10)]
    await settle()
    closing = asyncio.ensure_future(store.close())
    await settle()
    with pytest.raises(StoreFailed, match="closed"):
        await store.transact(lambda tx: tx.increment(b"n", 1))
    engine.gate.set()
    await closing
    await store.close()
    assert await asyncio.gather(*tasks) == list(range(1, 11))
    with pytest.raises(StoreFailed, match="closed"):
        row(store, b"n")
    with pytest.raises(StoreFailed, match="closed"):
        await store.wait(0)


# the log


async def test_the_log_is_dense_and_in_commit_order(store: Store) -> None:
    def write(tx: Tx, number: int) -> None:
        for part in range(number % 3):
            tx.append("t", b"%d" % number, b"%d" % part)
        if number % 5 == 0:
            raise Conflict("undone")

    await asyncio.gather(*(store.transact(lambda tx, n=n: write(tx, n)) for n in range(60)), return_exceptions=True)
    found = store.tail(0, 1000)
    assert [entry.seq for entry in found] == list(range(1, store.head + 1))
    assert [(int(entry.key), int(entry.body)) for entry in found] == [
        (number, part) for number in range(60) if number % 5 for part in range(number % 3)
    ]
    assert store.tail(5, 3) == found[5:8]
    assert store.tail(store.head, 10) == []


async def test_wait_returns_as_soon_as_there_is_news(store: Store) -> None:
    early = [asyncio.ensure_future(store.wait(after)) for after in (0, 0, 1)]
    await settle()
    assert not any(waiter.done() for waiter in early)
    await store.transact(lambda tx: tx.put(b"a", b""))  # no log entry: no news
    await store.transact(lambda tx: tx.append("t", b"", b""))
    assert await asyncio.gather(*early[:2]) == [1, 1]
    assert await store.wait(0) == 1
    assert not early[2].done()
    await store.transact(lambda tx: tx.append("t", b"", b""))
    assert await early[2] == 2


async def test_no_wake_up_is_lost(store: Store) -> None:
    """A consumer that reads, then waits, sees every entry, however its steps fall between the producers'."""
    seen: list[int] = []

    async def consume() -> None:
        while len(seen) < 300:
            await store.wait(seen[-1] if seen else 0)
            seen.extend(entry.seq for entry in store.tail(seen[-1] if seen else 0, 7))

    async def produce(many: int) -> None:
        for number in range(many):
            await store.transact(lambda tx: tx.append("t", b"", b""))
            for _ in range(number % 4):
                await asyncio.sleep(0)

    await asyncio.gather(consume(), *(produce(30) for _ in range(10)))
    assert seen == list(range(1, 301))


async def test_cancelled_waiters_are_forgotten(store: Store) -> None:
    waiters = [asyncio.ensure_future(store.wait(0)) for _ in range(3)]
    await settle()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert not store._waiters


async def test_trimming_stops_at_the_slowest_cursor_and_at_age(store: Store, clock: ManualClock) -> None:
    for _ in range(4):
        await store.transact(lambda tx: [tx.append("t", b"", b"") for _ in range(300)])
        clock.advance(10)
    assert (await store.maintain(keep_log_ms=60_000)).trimmed == 0
    await store.transact(lambda tx: (tx.cursor_move("slow", 0, 150), tx.cursor_move("fast", 0, 900)))
    assert (await store.maintain(keep_log_ms=0)).trimmed == 150
    assert store.first == 151
    assert store.tail(150, 2)[0].seq == 151
    for after in (0, 149):
        with pytest.raises(NotFound, match="trimmed"):
            store.tail(after, 5)
    await store.transact(lambda tx: tx.cursor_drop("slow"))
    assert (await store.maintain(keep_log_ms=25_000)).trimmed == 450  # through 600: written 30 and 40 s ago
    assert (await store.maintain(keep_log_ms=0)).trimmed == 300  # through 900: the fast cursor
    await store.transact(lambda tx: tx.cursor_move("fast", 900, 1200))
    assert (await store.maintain(keep_log_ms=0)).trimmed == 299
    assert [entry.seq for entry in store.tail(1199, 5)] == [1200]  # the last one stays: it holds the numbering


# cursors and leases


async def test_a_cursor_moves_with_its_effect_or_not_at_all(store: Store) -> None:
    await store.transact(lambda tx: [tx.append("t", b"", b"") for _ in range(5)])

    def work(tx: Tx, start: int, end: int) -> None:
        tx.increment(b"effects", end - start)
        tx.cursor_move("c", start, end)

    await store.transact(lambda tx: work(tx, 0, 3))
    with pytest.raises(Conflict, match="at 3, not at 0"):
        await store.transact(lambda tx: work(tx, 0, 3))
    for start, end in ((3, 2), (3, 6)):
        with pytest.raises(InvalidInput, match="cannot move"):
            await store.transact(lambda tx, start=start, end=end: work(tx, start, end))
    assert counter_value(row(store, b"effects")) == 3
    assert store.read(lambda reader: reader.cursor("c")) == 3
    assert store.read(lambda reader: reader.cursor("never")) == 0


async def test_a_lease_has_one_holder_at_a_time(store: Store, clock: ManualClock) -> None:
    first = await store.transact(lambda tx: tx.lease_take("l", "a", 1000))
    assert first is not None
    assert (first.epoch, first.expires_at_ms) == (1, clock.now_ms() + 1000)
    assert await store.transact(lambda tx: tx.lease_take("l", "b", 1000)) is None
    clock.advance(0.5)
    renewed = await store.transact(lambda tx: tx.lease_take("l", "a", 1000))
    assert renewed is not None
    assert (renewed.epoch, renewed.expires_at_ms) == (1, clock.now_ms() + 1000)
    clock.advance(1.0)
    stolen = await store.transact(lambda tx: tx.lease_take("l", "b", 1000))
    assert stolen is not None
    assert stolen.epoch == 2
    assert store.read(lambda reader: reader.lease("l")) == stolen
    clock.advance(1.0)
    again = await store.transact(lambda tx: tx.lease_take("l", "b", 1000))
    assert again is not None
    assert again.epoch == 3  # it had expired: somebody else may have acted in between


async def test_a_stale_lease_writes_nothing(store: Store, clock: ManualClock) -> None:
    old = await store.transact(lambda tx: tx.lease_take("l", "a", 1000))
    assert old is not None
    clock.advance(2)

    def guarded(tx: Tx) -> None:
        tx.put(b"by", b"a")
        tx.lease_guard(old)

    await store.transact(guarded)  # expired, but nobody took it: harmless
    await store.transact(lambda tx: tx.lease_take("l", "b", 1000))
    await store.transact(lambda tx: tx.put(b"by", b"b"))
    with pytest.raises(Conflict, match="stale"):
        await store.transact(guarded)
    with pytest.raises(Conflict, match="stale"):
        await store.transact(lambda tx: tx.cursor_move("c", 0, 0, old))
    await store.transact(lambda tx: tx.lease_release(old))  # not its own any more: no effect
    assert row(store, b"by") == b"b"
    held = store.read(lambda reader: reader.lease("l"))
    assert held is not None
    assert held.holder == "b"


async def test_a_released_lease_is_free_at_once_and_fences_its_holder(store: Store) -> None:
    lease = await store.transact(lambda tx: tx.lease_take("l", "a", 60_000))
    assert lease is not None
    await store.transact(lambda tx: tx.lease_release(lease))
    assert store.read(lambda reader: reader.lease("l")) is None
    with pytest.raises(Conflict, match="stale"):
        await store.transact(lambda tx: tx.lease_guard(lease))
    following = await store.transact(lambda tx: tx.lease_take("l", "b", 60_000))
    assert following is not None
    assert following.epoch == 2


@pytest.mark.parametrize(("holder", "ttl_ms"), [("", 1000), ("a", 0), ("a", -5)])
async def test_leases_need_a_holder_and_time(store: Store, holder: str, ttl_ms: int) -> None:
    with pytest.raises(InvalidInput):
        await store.transact(lambda tx: tx.lease_take("l", holder, ttl_ms))


async def test_the_stores_own_rows_do_not_show(store: Store) -> None:
    await store.transact(lambda tx: (tx.lease_take("l", "a", 1000), tx.cursor_move("c", 0, 0), tx.put(b"\x01", b"")))
    assert store.read(lambda reader: reader.scan(b"", b"\xff")) == [(b"\x01", b"")]
    assert await store.transact(lambda tx: tx.scan(b"", b"\xff", reverse=True)) == [(b"\x01", b"")]


# --- rows from memory


async def test_get_follows_every_write(store: Store) -> None:
    assert store.get(b"a") is None
    await store.transact(lambda tx: tx.put(b"a", b"1"))
    assert store.get(b"a") == b"1"
    assert store.get(b"a") == b"1"
    await store.transact(lambda tx: tx.put(b"a", b"2"))
    assert store.get(b"a") == b"2"
    await store.transact(lambda tx: tx.delete(b"a"))
    assert store.get(b"a") is None


async def test_get_shows_nothing_before_it_is_durable_and_everything_once_it_is_acknowledged(
    store: Store, engine: FaultyEngine
) -> None:
    assert store.get(b"a") is None
    engine.gate.clear()
    put = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"a", b"1")))
    await settle()
    assert store.get(b"a") is None
    engine.gate.set()
    await put
    assert store.get(b"a") == b"1"


async def test_get_after_a_failed_commit_and_after_the_end(store: Store, engine: FaultyEngine) -> None:
    await store.transact(lambda tx: tx.put(b"a", b"1"))
    assert store.get(b"a") == b"1"
    engine.faults += [StoreFull("no space left")]
    with pytest.raises(StoreFull):
        await store.transact(lambda tx: tx.delete(b"a"))
    assert store.get(b"a") == b"1"
    await store.close()
    with pytest.raises(StoreFailed):
        store.get(b"a")


async def test_get_remembers_a_bounded_number_of_rows_and_no_large_ones(store: Store) -> None:
    large = b"x" * 100_000
    await store.transact(lambda tx: tx.put(b"large", large))
    assert store.get(b"large") == large
    for number in range(5_000):
        assert store.get(b"absent%d" % number) is None
    assert len(store._kept) <= 2_048
    assert b"large" not in store._kept


async def test_transactions_of_one_turn_of_the_loop_share_a_commit(store: Store, engine: FaultyEngine) -> None:
    def put(number: int) -> asyncio.Future[None]:
        return asyncio.ensure_future(store.transact(lambda tx: tx.put(b"%d" % number, b"")))

    await asyncio.gather(*map(put, range(50)))
    assert engine.commits == 1


async def test_what_waits_when_the_store_closes_is_committed(store: Store) -> None:
    last = asyncio.ensure_future(store.transact(lambda tx: tx.put(b"a", b"1")))
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), last)
