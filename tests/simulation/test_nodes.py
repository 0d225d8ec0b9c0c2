"""Nodes of one database: who is alone, who comes and goes, what they tell each other, and what one at a time may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import Schemas

from martlet.clock import Clock
from martlet.errors import Conflict, MartletError, Overloaded, StartFailed
from martlet.store import Store, keys, nodes, places
from martlet.store.nodes import Card
from martlet.store.optimistic import SharedStore

ENGINE = "martlet.store.engines.postgres:open_engine"
_SECONDS = 30.0
_ROW = b"\x40a"


async def opened(url: str) -> SharedStore:
    store = await Store.open(url, clock=Clock(), engine=ENGINE)
    assert isinstance(store, SharedStore)
    return store


async def joined(url: str, name: str, lost: list[MartletError] | None = None) -> SharedStore:
    store = await opened(url)
    await store.join(Card(name, f"here:{name}"), (lost if lost is not None else []).append)
    return store


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SECONDS):
        while not condition():  # noqa: ASYNC110 (a condition of another node's memory)
            await asyncio.sleep(0.01)


def is_alone(store: SharedStore) -> bool:
    return store._is_fresh()


async def test_one_node_is_alone_until_another_one_joins(schemas: Schemas) -> None:
    url = schemas()
    one = await joined(url, "one")
    await until(lambda: is_alone(one))
    two = await joined(url, "two")
    assert not is_alone(one)
    assert not is_alone(two)
    await one.transact(lambda tx: tx.put(_ROW, b"1"))
    assert two.read(lambda reader: reader.get(_ROW)) == b"1"
    await two.transact(lambda tx: tx.put(_ROW, b"2"))
    assert one.read(lambda reader: reader.get(_ROW)) == b"2"
    await until(lambda: [card.name for card in one.members.others] == ["two"])
    await two.close()
    await until(lambda: is_alone(one))
    assert one.members.others == ()
    await one.close()


async def test_who_did_not_join_may_not_write_beside_one_that_is_alone(schemas: Schemas) -> None:
    url = schemas()
    one = await joined(url, "one")
    await until(lambda: is_alone(one))
    stranger = await opened(url)
    with pytest.raises(Conflict, match="which alone writes: here:one"):
        await stranger.transact(lambda tx: tx.put(_ROW, b"2"))
    await one.close()
    await stranger.transact(lambda tx: tx.put(_ROW, b"2"))
    await stranger.close()


async def test_a_node_that_was_away_is_fenced_and_joins_again(schemas: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for longer than its lease, and another one was alone meanwhile: what it had begun is refused, then it is
    one of them again, and hears that others may have taken up what was its own."""
    url = schemas()
    lost: list[MartletError] = []
    one, two = await joined(url, "one", lost), await joined(url, "two", lost)
    returned: list[str] = []
    departed: list[str] = []
    two.members.on_return(lambda: returned.append("two"))
    one.members.on_departure(departed.append)
    stopped = two._tasks.pop()  # what renews its lease
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    lease = two.members.lease
    assert lease is not None
    monkeypatch.setattr(nodes, "_RENEW_SECONDS", 0.1)
    await one.transact(lambda tx: tx.lease_release(lease))  # as if its time were over
    one.members._stirred.set()
    await until(lambda: is_alone(one))
    assert departed == ["two"]
    with pytest.raises(Overloaded, match="away for longer than its lease"):
        await two.transact(lambda tx: tx.put(_ROW, b"2"))
    two._tasks.append(asyncio.create_task(two.members._staying(lost.append)))
    await until(lambda: not two.members.away)
    await two.transact(lambda tx: tx.put(_ROW, b"3"))
    assert one.read(lambda reader: reader.get(_ROW)) == b"3"
    assert (returned, lost) == (["two"], [])
    await two.close()
    await one.close()


async def test_what_others_change_is_told_before_anybody_goes_on_with_it(schemas: Schemas) -> None:
    url = schemas()
    one, two = await joined(url, "one"), await joined(url, "two")
    low, high = keys.prefix_range("copied")
    heard: list[list[bytes] | None] = []
    two.watch(low, high, heard.append)
    mine = keys.encode("copied", "a")
    await one.transact(lambda tx: (tx.put(mine, b"1"), tx.put(keys.encode("other"), b"1")))  # type: ignore[func-returns-value]
    assert await two.look(lambda reader: reader.get(mine)) == b"1"
    assert heard == [[mine]]
    await two.transact(lambda tx: tx.put(mine, b"2"))
    assert heard == [[mine]]  # its own are no news
    await one.transact(lambda tx: tx.put(mine, b"3"))
    await until(lambda: len(heard) == 2)  # nobody asked: the database's hint is enough
    await two.close()
    await one.close()


async def test_turns_go_from_node_to_node_and_are_lost_by_who_was_away(
    schemas: Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = schemas()
    one, two = await joined(url, "one"), await joined(url, "two")
    async with one.turn("work") as is_new:
        assert is_new
        async with one.turn("work") as again:
            assert not again
        with pytest.raises(Conflict, match="work: node one is at it"):
            async with two.turn("work"):
                raise AssertionError("both are in")
    async with two.turn("work", None) as is_new:
        assert is_new

    monkeypatch.setattr(nodes, "_RENEW_SECONDS", 0.05)
    entered = asyncio.Event()

    async def works() -> None:
        async with one.turn("work"):
            entered.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(works())
    await entered.wait()
    held = one.read(lambda reader: reader.lease("turn/work"))
    assert held is not None
    await two.transact(lambda tx: (tx.lease_release(held), tx.lease_take("turn/work", "two", 60_000)))  # type: ignore[func-returns-value]
    with pytest.raises(Overloaded, match="another one has taken over"):
        await working
    await two.close()
    await one.close()


async def test_a_folder_is_one_node(schemas: Schemas, tmp_path: Path) -> None:
    url = schemas()
    one = await opened(url)
    unlock = await places.join(one, tmp_path, lambda error: None)
    two = await opened(url)
    with pytest.raises(StartFailed, match="in use by another process"):
        await places.join(two, tmp_path, lambda error: None)
    unlock()  # as a kill does: nothing is given back in the database
    unlock_again = await places.join(two, tmp_path, lambda error: None)  # at once: its predecessor is dead
    await two.transact(lambda tx: tx.put(_ROW, b"1"))
    await two.close()
    unlock_again()
    one.members._mine = None  # it has nothing to give back
    await one.close()


async def test_a_transaction_that_scans_up_to_now_ends_however_slow_the_database_is(schemas: Schemas) -> None:
    """Its time holds while what it asks for is fetched: else it would ask for something else each time it runs."""
    url = schemas()
    store = await joined(url, "one")
    asked = 0
    look = store._shared.look

    async def slow(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        seen = await look(*arguments)
        later = store.now_ms() + 3
        while store.now_ms() < later:  # noqa: ASYNC110 (it is the clock that must move on)
            await asyncio.sleep(0.001)
        return seen

    store._shared.look = slow  # type: ignore[method-assign]
    low = keys.prefix_range("due")[0]
    await store.transact(lambda tx: tx.scan(low, low + tx.now_ms.to_bytes(8, "big")))
    assert asked < 10
    await store.close()
