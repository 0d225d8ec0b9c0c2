"""kill -9 of the whole platform at random moments while clients write documents over HTTP: no acknowledged write is lost, none
is half applied, indexes and counts agree with the documents, and the feed is complete and in order.

`MARTLET_TEST_DOCUMENT_WRITES` is the number of acknowledged transactions to see (by default some thousands)."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.documents.consistency import problems
from tests.documents.over_http import Client
from tests.running_platform import RunningPlatform

from martlet.clock import Clock
from martlet.documents import Documents
from martlet.store import Store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600 if "MARTLET_TEST_DOCUMENT_WRITES" in os.environ else 60)]

WRITES = int(os.environ.get("MARTLET_TEST_DOCUMENT_WRITES", "3000"))
CLIENTS = 32
KEYS = 40  # of each client
SETTINGS = {
    "indexes": {
        "u": {"terms": [{"path": "u"}], "unique": True},
        "n": {"terms": [{"path": "n"}, {"path": "t[]", "descending": True}], "values": ["n"]},
    },
    "history_seconds": 60,
}


class Writer:
    """One client and what it was told. `last`: of each key the number of the last acknowledged write; `perhaps`: of
    those sent since then whose answer a kill took away."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.acknowledged = 0
        self.attempts = 0
        self.last: dict[str, int] = {}
        self.perhaps: dict[str, set[int]] = {}

    async def run(self, port: int, token: str, count: list[int]) -> None:
        """Until the platform dies."""
        client = Client(port, token, "d")
        try:
            while True:
                await self._write(client)
                count[0] += 1
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            client.close()

    async def _write(self, client: Client) -> None:
        """One transaction: two documents that must agree, a number that counts the transactions, at times a delete."""
        self.attempts += 1
        number, id = self.attempts, f"{self.name}-{self.attempts % KEYS}"
        value = {"u": f"{id}", "n": number % 7, "t": [number % 3, self.name], "number": number}
        steps: list[dict[str, Any]] = [
            {"op": "put", "collection": "one", "id": id, "value": value},
            {"op": "put", "collection": "two", "id": id, "value": value},
        ]
        if number % 11 == 0:
            steps = [{"op": "delete", "collection": name, "id": id} for name in ("one", "two")]
        steps.append({"op": "put", "collection": "sums", "id": f"{self.name}", "value": {"number": number}})
        self.perhaps.setdefault(id, set()).add(number)
        answer = await client.transact(steps)
        assert answer.status == 200, answer.body
        self.acknowledged += 1
        self.last[id] = number
        self.perhaps[id] = set()


async def life(data: Path, writers: list[Writer], seconds: float) -> int:
    """Start the platform, let everybody write, kill it after so many seconds. The number of acknowledgements."""
    platform = await asyncio.to_thread(RunningPlatform, None, data, "--sandbox", "process")
    try:
        token = json.loads((data / "credentials.json").read_text())["token"]
        port = int(platform.api_url.rpartition(":")[2])
        client = Client(port, token, "d")
        for name in ("one", "two"):
            assert (await client.call("PUT", f"/v1/collections/{name}", SETTINGS)).status == 200
        client.close()
        count = [0]
        running = [asyncio.create_task(writer.run(port, token, count)) for writer in writers]
        await asyncio.sleep(seconds)
        await asyncio.to_thread(platform.kill)
        await asyncio.gather(*running)
        return count[0]
    finally:
        await asyncio.to_thread(platform.kill)


async def test_what_was_acknowledged_is_there_whole(tmp_path: Path) -> None:
    chance = random.Random(11)
    writers = [Writer(name) for name in range(CLIENTS)]
    longest = 0.5 if WRITES < 10_000 else 5.0
    lives = acknowledged = 0
    while acknowledged < WRITES or lives < 3:
        acknowledged += await life(tmp_path / "data", writers, chance.uniform(0.05, longest))
        lives += 1
    print(f"{acknowledged} acknowledged transactions, {lives} kills")
    store = await Store.open(tmp_path / "data" / "store", clock=Clock())
    room = Documents(store, Clock())
    assert not store.read(problems)
    for writer in writers:
        _check(room, writer)
    _check_feed(store, writers)
    await store.close()


def _check(room: Documents, writer: Writer) -> None:
    total = room.get("d", "sums", f"{writer.name}")
    done = total.value()["number"] if total is not None else 0
    assert done >= max(writer.last.values(), default=0), "an acknowledged transaction is lost"
    for id, last in writer.last.items():
        one, two = room.get("d", "one", id), room.get("d", "two", id)
        assert (one is None) == (two is None), f"{id} is half there"
        possible = {last, *writer.perhaps[id]}
        if one is None or two is None:
            assert any(number % 11 == 0 for number in possible), f"{id} was lost"
            continue
        assert one.value_bytes == two.value_bytes, f"{id} is half written"
        assert one.value()["number"] in possible, f"{id} is not what was acknowledged last"


def _check_feed(store: Store, writers: list[Writer]) -> None:
    """Dense, in order of stamps, each document's versions without a gap, and as far as the documents are."""
    versions: dict[tuple[str, str], int] = {}
    at = stamp = 0
    while entries := store.tail(at, 1000):
        assert [entry.seq for entry in entries] == list(range(at + 1, at + 1 + len(entries)))
        for entry in entries:
            if entry.topic != "document":
                continue
            change = msgspec.json.decode(entry.body)
            assert change["ts"] >= stamp
            stamp = change["ts"]
            place = (change["collection"], change["id"])
            if change["operation"] == "put":
                assert change["version"] == versions.get(place, 0) + 1, f"a change of {place} is missing"
            versions[place] = change["version"]
        at = entries[-1].seq
    room = Documents(store, Clock())
    for writer in writers:
        for id in writer.last:
            for collection in ("one", "two"):
                found = room.get("d", collection, id)
                assert found is None or found.version == versions[collection, id]
