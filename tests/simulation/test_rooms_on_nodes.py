"""Rooms of several nodes on one database: code reaches all of them, events have one owner, credentials are each node's."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest
from tests.postgres_server import Schemas
from tests.simulation.test_nodes import joined, until

from martlet.auth import Auth
from martlet.clock import Clock
from martlet.errors import ServiceError, StoreFailed, Unauthenticated, Unsupported
from martlet.functions.asynchronous import Asynchronous, Treatment
from martlet.gateway.apis.connections import Connections
from martlet.objects.backends.elsewhere import ElsewhereBackend
from martlet.store import Folders, keys
from martlet.store.optimistic import SharedStore
from martlet.types import Invocation, Outcome

# code in the store


def code(data: Path, address: str = "a" * 64) -> Path:
    folder = data / "code" / address
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "module.py").write_text("x = 1\n")
    (folder / "large.bin").write_bytes(os.urandom(5_300_000))
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("package/module.py")
    os.utime(folder / "package" / "module.py", (315_532_800, 315_532_800))
    return folder


def content(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


async def test_code_that_one_node_keeps_the_other_has(schemas: Schemas, tmp_path: Path) -> None:
    url, address = schemas(), "a" * 64
    one, two = await joined(url, "one"), await joined(url, "two")
    giving, taking = Folders(one, tmp_path / "one"), Folders(two, tmp_path / "two")
    (tmp_path / "two").mkdir()
    mine = code(tmp_path / "one")
    assert not await taking.have("code", address)
    await asyncio.gather(giving.keep("code", address), Folders(one, tmp_path / "one").keep("code", address))
    assert await asyncio.gather(taking.have("code", address), taking.have("code", address)) == [True, True]
    theirs = tmp_path / "two" / "code" / address
    assert content(theirs) == content(mine)
    assert (theirs / "package" / "module.py").stat().st_mtime == 315_532_800  # compiled modules rest on it
    assert sorted(path.name for path in theirs.parent.iterdir()) == [address]
    parts = one.read(lambda reader: reader.scan(*keys.prefix_range("folder.part"), limit=100))
    assert len(parts) == 6  # of two that kept the same at once, one's
    await two.close()
    await one.close()


async def test_damaged_code_is_refused_and_unused_code_goes(schemas: Schemas, tmp_path: Path) -> None:
    url, address = schemas(), "a" * 64
    one = await joined(url, "one")
    giving = Folders(one, tmp_path / "one")
    code(tmp_path / "one")
    await giving.keep("code", address)
    assert await giving.sweep(set) == 0  # nothing refers to it, but somebody may be about to
    (key, part), *_ = one.read(lambda reader: reader.scan(*keys.prefix_range("folder.part"), limit=1))
    await one.transact(lambda tx: tx.put(key, part[:-1] + b"?"))
    (tmp_path / "two").mkdir()
    with pytest.raises(StoreFailed, match="is not what was kept"):
        await Folders(one, tmp_path / "two").have("code", address)
    assert not (tmp_path / "two" / "code" / address).exists()
    await one.transact(lambda tx: tx.delete(key))
    with pytest.raises(StoreFailed, match="part 0 of 6 is missing"):
        await Folders(one, tmp_path / "two").have("code", address)

    later = one.now_ms() + 25 * 3_600_000
    one.now_ms = lambda: later  # type: ignore[method-assign]
    assert await giving.sweep(lambda: {address}) == 0
    assert await giving.sweep(set) == 1
    assert one.read(lambda reader: reader.scan(*keys.prefix_range("folder.part"), limit=1)) == []
    del one.now_ms
    await one.close()


# asynchronous events


class Around:
    """Runs events when the test says so."""

    def __init__(self) -> None:
        self.began: list[Invocation] = []

    def dispatch(self, invocation: Invocation) -> None:
        self.began.append(invocation)

    def reserved(self, name: str) -> int | None:
        return None

    def end_all(self) -> None:
        began, self.began = self.began, []
        for invocation in began:
            invocation.on_done(invocation, Outcome(payload=b"null"))


def asynchronous(store: SharedStore, around: Around) -> Asynchronous:
    return Asynchronous(
        store,
        around,
        clock=Clock(),
        region="us-east-1",
        treatment=lambda function, qualifier: Treatment(),
        arn_of=lambda function, qualifier: f"arn:aws:lambda:us-east-1:000000000000:function:{function}",
    )


def rows(store: SharedStore) -> list[tuple[bytes, bytes]]:
    return store.read(lambda reader: reader.scan(*keys.prefix_range("async.node.event"), limit=1000))


async def test_events_of_a_node_that_died_run_on_another(schemas: Schemas) -> None:
    url = schemas()
    one, two = await joined(url, "one"), await joined(url, "two")
    here, there = Around(), Around()
    first, second = asynchronous(one, here), asynchronous(two, there)
    await first.start()
    await second.start()
    ids = [await first.accept("f", "", b"%d" % number) for number in range(30)]
    await until(lambda: len(here.began) == 30)
    here.end_all()
    await first.run_due()
    ids = [await first.accept("f", "", b"%d" % number) for number in range(30)]
    await until(lambda: len(here.began) == 30)
    assert there.began == []

    await stopped(one)
    two.members._stirred.set()
    await until(lambda: len(there.began) == 30)
    assert sorted(invocation.request_id for invocation in there.began) == sorted(ids)
    went_on(one)
    here.end_all()  # what it still does with them is lost: they have another owner
    await first.run_due()
    assert len(rows(two)) == 30
    there.end_all()
    await second.run_due()
    assert rows(two) == []
    assert (first.count, second.count) == (0, 0)
    await second.stop()
    await two.close()
    await one.close()


async def stopped(store: SharedStore) -> None:
    """As if its process had been stopped for longer than its lease."""
    lease = store.members.lease
    assert lease is not None
    await store.transact(lambda tx: tx.lease_release(lease))
    store._tasks.pop().cancel()


def went_on(store: SharedStore) -> None:
    store._tasks.append(asyncio.create_task(store.members._staying(lambda error: None)))
    store.members._stirred.set()


async def test_a_node_that_returns_reads_anew_what_is_its_own(schemas: Schemas) -> None:
    """Events that waited there were taken over meanwhile: it does not run them as well."""
    url = schemas()
    one, two = await joined(url, "one"), await joined(url, "two")
    here, there = Around(), Around()
    first, second = asynchronous(one, here), asynchronous(two, there)
    await first.start()
    await second.start()
    count = 1_100  # more than run at one time
    for number in range(count):
        await first.accept("f", "", b"%d" % number)
    running = len(here.began)
    assert running < count
    await stopped(one)
    two.members._stirred.set()
    await until(lambda: not [key for key, _ in rows(two) if keys.decode(key)[1] == "one"])
    went_on(one)
    await until(lambda: first.count == running)
    here.end_all()
    await first.run_due()
    assert (len(here.began), first.count) == (0, 0)
    assert second.count == count
    await first.stop()
    await one.close()
    await two.close()


# credentials


async def test_each_node_has_credentials_and_all_take_them(schemas: Schemas, tmp_path: Path) -> None:
    url = schemas()
    one, two = await joined(url, "one"), await joined(url, "two")
    auth = {store.node: Auth(store, Clock()) for store in (one, two)}
    first = await auth["one"].ensure_root(tmp_path / "one.json")
    second = await auth["two"].ensure_root(tmp_path / "two.json")

    def who(at: str, token: str) -> str:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        return auth[at].authenticate("GET", b"/", b"", headers, b"").kind

    assert {who(at, found.token) for at in auth for found in (first, second)} == {"root"}
    (tmp_path / "one.json").unlink()
    third = await auth["one"].ensure_root(tmp_path / "one.json")
    assert {who(at, found.token) for at in auth for found in (second, third)} == {"root"}
    with pytest.raises(Unauthenticated):
        who("two", first.token)
    await two.close()
    await one.close()


# connections


async def test_a_connection_that_may_be_at_another_node_is_not_called_gone() -> None:
    connections = Connections(Clock(), "us-east-1")
    with pytest.raises(ServiceError, match=r"^$") as told:
        connections.get("abc=")
    assert told.value.name == "GoneException"
    connections.has_others = lambda: True
    for ask in (connections.get, partial(connections.resource, method="POST")):
        with pytest.raises(ServiceError, match="not at this node"):
            ask("abc=")


# objects


async def test_a_node_without_the_bytes_says_who_has_them() -> None:
    backend = ElsewhereBackend("a1b2")
    with pytest.raises(Unsupported, match="in the data folder of node a1b2"):
        backend.draft("0" * 32)
    with pytest.raises(Unsupported, match="in the data folder of node a1b2"):
        await backend.open("0" * 32)
    await backend.remove("0" * 32)
    assert [id async for id in backend.ids(0)] == []
