"""Histories of concurrent clients are strictly serializable, on either engine and on several nodes; planted faults are seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.postgres_server import Schemas
from tests.simulation.histories import Attempt, Clients, check, complete

from martlet.clock import Clock
from martlet.store import Store, optimistic
from martlet.store.engine import Group, Lost
from martlet.store.engines.postgres import PostgresEngine
from martlet.store.optimistic import SharedStore

ENGINE = "martlet.store.engines.postgres:open_engine"


async def opened(url: str) -> SharedStore:
    store = await Store.open(url, clock=Clock(), engine=ENGINE)
    assert isinstance(store, SharedStore)
    return store


@pytest.fixture
async def nodes(schemas: Schemas) -> AsyncIterator[list[SharedStore]]:
    """Three nodes on one database."""
    url = schemas()
    found = [await opened(url) for _ in range(3)]
    yield found
    for node in found:
        await node.close()


def test_the_checker_sees_what_is_wrong() -> None:
    key = b"\x40l0"
    one = Attempt(0, 1, True, {}, {key: 1})
    assert check([one], {key: (1,)}) == []
    assert "is lost" in check([one], {key: ()})[0]
    assert "refused" in check([Attempt(0, 1, False, {}, {key: 1})], {key: (1,)})[0]
    late = Attempt(2, 3, True, {key: ()}, {})
    assert "circle" in check([one, late], {key: (1,)})[0]  # it read what was before `one`, which had been answered
    assert check([one, Attempt(0.5, 3, True, {key: ()}, {})], {key: (1,)}) == []
    other = b"\x40l1"
    skew = [Attempt(0, 9, True, {key: ()}, {other: 1}), Attempt(0, 9, True, {other: ()}, {key: 2})]
    assert "circle" in check(skew, {key: (2,), other: (1,)})[0]
    assert "never was" in check([one, Attempt(0, 1, True, {key: (2,)}, {})], {key: (1, 2)})[0]


async def test_the_embedded_engine(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, clock=Clock())
    clients = Clients([store], seed=1)
    await clients.run(12, 100)
    assert clients.verdict(store) == []
    await store.close()


@pytest.mark.parametrize("keys", [2, 5, 40])
async def test_several_nodes_on_one_database(nodes: list[SharedStore], keys: int) -> None:
    clients = Clients(nodes, seed=keys, keys=keys)
    await clients.run(12, 40)
    for node in nodes:
        assert clients.verdict(node) == []
        assert node.read(complete) == node.tail(0, 10_000)[-1].seq == node.head
    assert all(attempt.kept for attempt in clients.history)
    assert nodes[0]._engine.verify() == []


async def test_a_read_that_is_not_validated_is_seen(nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimistic.TrackedTx, "touched", lambda *_: False)
    clients = Clients(nodes, seed=3, keys=2)
    assert await seen(clients, nodes[0], "")


async def seen(clients: Clients, node: SharedStore, word: str) -> bool:
    """Whether a planted fault shows. That it happens at all hangs on how the nodes take turns, so it gets its chances."""
    for _ in range(20):
        await clients.run(12, 40)
        if any(word in problem for problem in clients.verdict(node)):
            return True
    return False


async def test_a_range_that_is_not_validated_is_seen(nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write skew over a range: both see it empty, both put a row into it."""
    monkeypatch.setattr(optimistic.TrackedTx, "touched", lambda *_: False)
    assert await phantoms(nodes, 200) > 1


async def test_no_phantoms(nodes: list[SharedStore]) -> None:
    assert await phantoms(nodes) == 1


async def phantoms(nodes: list[SharedStore], turns: int = 12) -> int:
    """The most rows that were put into a range for one row, in so many turns or until there were two."""
    most = 0
    for turn in range(turns):
        if most > 1:
            break
        low = b"\x50%03d" % turn

        def book(tx: object, low: bytes = low, number: int = 0) -> bool:
            if tx.scan(low, low + b"\xff", 5):  # type: ignore[attr-defined]
                return False
            tx.put(low + b"%d" % number, b"")  # type: ignore[attr-defined]
            return True

        told = await asyncio.gather(
            *(node.transact(lambda tx, n=at: book(tx, number=n)) for at, node in enumerate(nodes))  # type: ignore[misc]
        )
        rows = nodes[0].read(lambda reader, low=low: reader.scan(low, low + b"\xff"))  # type: ignore[misc]
        assert len(rows) == sum(told)
        most = max(most, len(rows))
    return most


async def test_a_stale_read_is_seen(nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedStore, "_is_fresh", lambda self: True)
    clients = Clients(nodes, seed=5, keys=2)
    assert await seen(clients, nodes[0], "circle")


@pytest.mark.parametrize("kept", [True, False])
async def test_an_answer_that_is_lost_is_found_out(
    nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """The connection breaks after the commit was sent, whether it was carried out or not: callers hear the truth."""
    commit, lost = PostgresEngine.try_commit, []

    async def losing(engine: PostgresEngine, group: Group) -> int | None:
        lost.append(group.batch)
        if len(lost) % 3:
            return await commit(engine, group)
        if kept:
            await commit(engine, group)
        engine._committer.drop()
        raise Lost("planted", sent=True)

    monkeypatch.setattr(PostgresEngine, "try_commit", losing)
    one = nodes[:1]  # a node alone: it commits by `try_commit`
    clients = Clients(one, seed=7)
    await clients.run(12, 40)
    assert clients.verdict(one[0]) == []
    assert all(attempt.kept for attempt in clients.history)
    assert len(lost) > 5


async def test_an_acknowledgement_before_its_commit_is_seen(nodes: list[SharedStore], monkeypatch: pytest.MonkeyPatch) -> None:
    commit, sent = PostgresEngine.try_commit, []

    async def lying(engine: PostgresEngine, group: Group) -> int | None:
        sent.append(group.batch)
        return await commit(engine, group) if len(sent) < 4 else group.position + 1

    monkeypatch.setattr(PostgresEngine, "try_commit", lying)
    clients = Clients(nodes[:1], seed=8)
    await clients.run(6, 10)
    assert any("is lost" in problem for problem in clients.verdict(nodes[1]))
