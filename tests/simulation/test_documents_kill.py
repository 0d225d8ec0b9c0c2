"""kill -9 while documents are written, again and again on one folder: no acknowledged write is lost, none is half done, and
indexes, counts and the feed agree with the documents. `MARTLET_TEST_KILLS` is the number of kills (nightly: 500)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
from tests.documents.consistency import problems

from martlet.clock import Clock
from martlet.documents import Documents
from martlet.store import Store
from martlet.store.engines import sqlite

KILLS = int(os.environ.get("MARTLET_TEST_KILLS", "4"))


def life(folder: Path, lines: int) -> list[tuple[str, int]]:
    """Run the writer, kill it after so many acknowledgements; all that it printed."""
    source = str(Path(sqlite.__file__).parents[3])
    program = str(Path(__file__).with_name("documents_writer.py"))
    writer = subprocess.Popen(
        [sys.executable, program, str(folder)], env={**os.environ, "PYTHONPATH": source}, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer.stdout:
        told = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        told += writer.stdout.readlines()
    writer.wait()
    return [(line.split()[0].decode(), int(line.split()[1])) for line in told if line.endswith(b"\n")]


async def test_kill_and_look(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: Counter[str] = Counter()
    newest: Counter[str] = Counter()
    for _ in range(KILLS):
        for id, version in life(tmp_path / "data", chance.randrange(50, 1500)):
            acknowledged[id.partition("-")[0]] += 1
            newest[id] = max(newest[id], version)
    store = await Store.open(tmp_path / "data", clock=Clock())
    room = Documents(store, Clock())
    found = store.read(problems)
    assert not found
    sums = {task: document.value()["n"] for task in acknowledged if (document := room.get("d", "sums", task)) is not None}
    for task, count in acknowledged.items():
        assert sums[task] >= count, f"task {task}: {count} acknowledged, {sums[task]} there"
    told: dict[tuple[str, str], list[int]] = {}
    at = 0
    while entries := store.tail(at, 1000):
        for entry in entries:
            change = msgspec.json.decode(entry.body)
            if change["operation"] == "put":
                told.setdefault((change["collection"], change["id"]), []).append(change["version"])
        at = entries[-1].seq
    assert all(versions == list(range(1, len(versions) + 1)) for versions in told.values())
    assert all(len(told["c", id]) >= version for id, version in newest.items() if version)
    assert all(len(told["sums", task]) == total for task, total in sums.items())
    await store.close()
