"""From a change to the function that it runs: time from the answer of a durable write to the begin of the function's code.

    python -m bench.changes [--changes 300] [--folder .] [--sandbox isolated]

The function says when it began by the same machine's monotonic clock, in its log of calls; a write is sent every 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from martlet.config import Settings
from martlet.server import Server

APP = """
import time
from martlet import App, Collection
app = App("bench")
orders = Collection("orders")
seen = Collection("seen")

@app.on(orders.changed, uses=[seen])
def note(event, context):
    began = time.monotonic_ns()
    for record in event["Records"]:
        seen.put(record["id"], {"ns": began})

@app.function(uses=[orders])
def calls(event, context):
    took = []
    orders.put("x", {"n": 0})
    for n in range(event["count"]):
        started = time.perf_counter_ns()
        orders.put(f"w{n}", {"n": n}) if event["write"] else orders.get("x")
        took.append((time.perf_counter_ns() - started) / 1000)
    return sorted(took)[len(took) // 2]
"""


class Found(NamedTuple):
    """`late_ms`: of each change, sorted. `calls_us`: of an SDK's put and get, (from inside a function, the room itself)."""

    late_ms: list[float]
    calls_us: dict[str, tuple[float, float]]


async def measure(folder: Path, count: int, sandbox: str) -> Found:
    (folder / "app").mkdir()
    (folder / "app" / "app.py").write_text(APP)
    server = Server(Settings(data=str(folder / "data"), port=0, sandbox=sandbox, quiet=True))
    await server.start()
    try:
        await server.apps.deploy(folder / "app", "bench")
        told: dict[str, int] = {}
        for number in range(count):
            await server.documents.put("bench", "orders", f"k{number}", {"n": number})
            told[f"k{number}"] = time.monotonic_ns()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        late = []
        for id, answered in told.items():
            found = server.documents.get("bench", "seen", id)
            assert found is not None, f"the change of {id} ran nothing"
            late.append((found.value()["ns"] - answered) / 1e6)
        return Found(sorted(late[10:]), {"get": await _calls(server, False), "put": await _calls(server, True)})
    finally:
        await server.stop()


async def _calls(server: Server, write: bool) -> tuple[float, float]:
    event = json.dumps({"count": 500, "write": write}).encode()
    _, outcome = await server.functions.invoke("bench-calls", event)
    room: list[float] = []
    for number in range(500):
        started = time.perf_counter_ns()
        if write:
            await server.documents.put("bench", "orders", f"r{number}", {"n": number})
        else:
            server.documents.get("bench", "orders", "x")
        room.append((time.perf_counter_ns() - started) / 1000)
    return float(json.loads(outcome.payload)), statistics.median(room)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--sandbox", default="isolated")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        late, calls = asyncio.run(measure(Path(folder), given.changes, given.sandbox))
    print(f"change → function begins   p50 {statistics.median(late):.2f} ms   p95 {late[len(late) * 95 // 100]:.2f} ms")
    for name, (inside, own) in calls.items():
        print(f"SDK {name}   p50 {inside:.0f} µs, the room itself {own:.0f} µs: {inside - own:.0f} µs above it")


if __name__ == "__main__":
    main()
