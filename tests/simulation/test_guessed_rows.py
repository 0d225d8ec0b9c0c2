"""Rows that a node takes for absent, and ranges that it remembers: a wrong guess or a stale range is never told to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
from tests.postgres_server import Schemas
from tests.simulation.histories import Clients
from tests.simulation.test_serializability import opened, seen

from martlet.errors import Conflict, NotFound
from martlet.store import Reader, Tx
from martlet.store.engine import Seen, Span
from martlet.store.engines.postgres import PostgresEngine
from martlet.store.guesses import Guesses
from martlet.store.nodes import Card
from martlet.store.optimistic import SharedStore
from martlet.store.underway import Flight

ROW = b"\x60kind:%d"


@pytest.fixture
async def nodes(schemas: Schemas) -> AsyncIterator[list[SharedStore]]:
    url = schemas()
    found = [await opened(url) for _ in range(3)]
    yield found
    for node in found:
        await node.close()


class Asked:
    """What was asked of the database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[bytes] = []
        self.spans: list[Span] = []
        look, look_now = PostgresEngine.look, PostgresEngine.look_now

        async def looking(engine: PostgresEngine, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
            self._note(keys, spans)
            return await look(engine, after, keys, spans)

        def looking_now(engine: PostgresEngine, after: int, keys: Sequence[bytes], spans: Sequence[Span]) -> Seen:
            self._note(keys, spans)
            return look_now(engine, after, keys, spans)

        monkeypatch.setattr(PostgresEngine, "look", looking)
        monkeypatch.setattr(PostgresEngine, "look_now", looking_now)

    def _note(self, keys: Iterable[bytes], spans: Iterable[Span]) -> None:
        self.keys += [key for key in keys if key.startswith(b"\x60")]
        self.spans += spans


async def insert(node: SharedStore, number: int) -> int:
    """How often the function ran."""
    ran = []

    def fn(tx: Tx) -> None:
        ran.append(number)
        if tx.get(ROW % number) is not None:
            raise Conflict(f"{number} is there")
        tx.put(ROW % number, b"%d" % number)

    await node.transact(fn)
    return len(ran)


async def daring(node: SharedStore) -> None:
    for number in range(10):
        await insert(node, number)


async def test_what_is_new_costs_one_run_and_no_fetch(nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch) -> None:
    node = nodes[0]
    await daring(node)
    asked = Asked(monkeypatch)
    assert await asyncio.gather(*(insert(node, number) for number in range(100, 150))) == [1] * 50
    assert asked.keys == []
    assert node.read(lambda reader: len(reader.scan(b"\x60", b"\x61"))) == 60


async def test_a_wrong_guess_costs_a_second_run_and_nothing_else(nodes: list[SharedStore]) -> None:
    node, other = nodes[0], nodes[1]
    await daring(node)
    await other.transact(lambda tx: tx.put(ROW % 100, b"of another node"))
    told = await asyncio.gather(*(insert(node, number) for number in range(98, 103)), return_exceptions=True)
    assert [isinstance(found, Conflict) for found in told] == [False, False, True, False, False]
    rows = dict(node.read(lambda reader: reader.scan(b"\x60", b"\x61")))
    assert rows[ROW % 100] == b"of another node"
    assert {ROW % number for number in (98, 99, 101, 102)} <= set(rows)
    assert not node._guesses.absent(ROW % 200)


async def test_an_error_that_rests_on_a_wrong_guess_is_not_told(nodes: list[SharedStore]) -> None:
    """A function that wrote nothing, since it believed that there is nothing."""
    node, other = nodes[0], nodes[1]
    await daring(node)
    await other.transact(lambda tx: tx.put(ROW % 100, b"1"))

    def change(number: int) -> bytes:
        def fn(tx: Tx) -> bytes:
            found = tx.get(ROW % number)
            if found is None:
                raise NotFound(f"{number} is not there")
            return found

        return fn  # type: ignore[return-value]

    told = await asyncio.gather(*(node.transact(change(number)) for number in (100, 101)), return_exceptions=True)  # type: ignore[arg-type]
    assert told[0] == b"1"
    assert isinstance(told[1], NotFound)


async def test_later_transactions_that_saw_a_wrong_run_run_again(nodes: list[SharedStore]) -> None:
    node, other = nodes[0], nodes[1]
    await daring(node)
    await other.transact(lambda tx: tx.put(ROW % 100, b"41"))

    def increase(tx: Tx) -> int:
        number = int(tx.get(ROW % 100) or 0) + 1
        tx.put(ROW % 100, b"%d" % number)
        return number

    assert await asyncio.gather(*(node.transact(increase) for _ in range(20))) == list(range(42, 62))


@pytest.mark.parametrize("keys", [2, 40])
async def test_nodes_that_always_guess_are_serializable(
    nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch, keys: int
) -> None:
    monkeypatch.setattr(Guesses, "absent", lambda *_: True)
    clients = Clients(nodes, seed=keys, keys=keys)
    await clients.run(12, 40)
    assert clients.verdict(nodes[0]) == []
    assert all(attempt.kept for attempt in clients.history)


async def test_a_guess_that_is_not_proved_is_seen(nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guesses, "absent", lambda *_: True)
    monkeypatch.setattr(Flight, "guessed", lambda _: set())
    monkeypatch.setattr(SharedStore, "_prove", lambda *_: None)
    assert await seen(Clients(nodes, seed=3, keys=5), nodes[0], "")


async def test_a_range_that_is_asked_again_and_again_is_fetched_once(schemas: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await opened(schemas())
    await node.join(Card("one", "here:one"), lambda _: None)
    while not node._is_fresh():  # noqa: ASYNC110 (alone: nobody else can have written)
        await asyncio.sleep(0.01)

    def due(reader: Reader) -> list[tuple[bytes, bytes]]:
        return reader.scan(b"\x60", b"\x61", limit=2)

    assert node.read(due) == []
    asked = Asked(monkeypatch)
    for number in (5, 3, 4):
        await insert(node, number)
        assert node.read(due)[0][0] == min(ROW % 5, ROW % number, ROW % 3 if number == 4 else ROW % 5)
    assert [row[0] for row in node.read(due)] == [ROW % 3, ROW % 4]
    await node.transact(lambda tx: tx.delete(ROW % 3))
    assert [row[0] for row in node.read(due)] == [ROW % 4, ROW % 5]
    assert await node.look(due) == node.read(due)
    assert asked.spans == []
    await node.close()


async def test_a_remembered_range_shows_what_other_nodes_wrote(nodes: list[SharedStore]) -> None:
    node, other = nodes[0], nodes[1]
    for number in range(20):
        assert len(node.read(lambda reader: reader.scan(b"\x60", b"\x61"))) == 2 * number
        await insert(other, number)
        await insert(node, 100 + number)


async def test_ranges_that_are_remembered_are_few_and_small(nodes: list[SharedStore]) -> None:
    node = nodes[0]

    def fill(tx: Tx) -> None:
        for number in range(1_000):
            tx.put(ROW % number, b"x" * 100)

    await node.transact(fill)
    for number in range(300):
        node.read(lambda reader, n=number: reader.scan(ROW % n, b"\x61", limit=5))  # type: ignore[misc]
    assert 0 < len(node._base._ranges) <= 128
    node._base.forget()
    assert len(node.read(lambda reader: reader.scan(b"\x60", b"\x61", limit=1_000))) == 1_000
    assert not node._base._ranges
