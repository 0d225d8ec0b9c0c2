"""kill -9 under load, again and again on one folder: nothing acknowledged is lost, nothing is half done.

`MARTLET_TEST_KILLS` is the number of kills (nightly: 500).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.simulation.writer import TASKS

from martlet.store import Engine, counter_value
from martlet.store.engines import sqlite
from martlet.store.engines.sqlite import open_engine

KILLS = int(os.environ.get("MARTLET_TEST_KILLS", "4"))


def life(folder: Path | str, lines: int) -> dict[int, int]:
    """Run the writer, kill it after so many acknowledgements; the last one of each task, from all that it printed."""
    source = str(Path(sqlite.__file__).parents[3])
    program = str(Path(__file__).with_name("writer.py"))
    writer = subprocess.Popen(
        [sys.executable, program, str(folder)], env={**os.environ, "PYTHONPATH": source}, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer.stdout:
        told = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        told += writer.stdout.readlines()
    writer.wait()
    acknowledged: dict[int, int] = {}
    for line in told:
        if line.endswith(b"\n"):
            task, number = line.split()
            acknowledged[int(task)] = int(number)
    return acknowledged


def check(engine: Engine, acknowledged: dict[int, int]) -> None:
    last = {task: counter_value(engine.get(b"\x02last%d" % task)) for task in range(TASKS)}
    for task, number in acknowledged.items():
        assert last[task] >= number, f"task {task}: {number} acknowledged, {last[task]} there"
    total = counter_value(engine.get(b"\x02total"))
    assert total == sum(last.values()) == engine.bounds()[1]
    rows = {key for key, _ in engine.scan(b"\x03", b"\x04", 10_000_000, False)}
    assert rows == {b"\x03%d-%d" % (task, number) for task in last for number in range(1, last[task] + 1)}
    seen: dict[int, int] = dict.fromkeys(range(TASKS), 0)
    at = 0
    while found := engine.tail(at, 10_000):
        for entry in found:
            at += 1
            seen[int(entry.key)] += 1
            assert (entry.seq, int(entry.body)) == (at, seen[int(entry.key)])
    assert seen == last
    assert int.from_bytes(engine.get(b"\x00cc") or b"", "big") == max(0, total - 1)
    assert engine.verify() == []


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    chance = random.Random(4)
    acknowledged: dict[int, int] = {}
    for _ in range(KILLS):
        acknowledged.update(life(tmp_path / "data", chance.randrange(1, 1500)))
        engine = open_engine(tmp_path / "data")
        check(engine, acknowledged)
        engine.close()
    assert sum(acknowledged.values()) > KILLS
