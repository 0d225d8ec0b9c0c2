"""Other runtimes: cold starts of Node.js and of a static binary, warm events through the official Python client.

In this process, below HTTP: from `dispatch` to the answer, with real sandboxes; the platform's edge adds what `warm` and
`cold_start` measure.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import uvloop
from tests.conformance.runtimes_room import Room, open_room
from tests.e2e.clients import builds

from bench.context import Context
from bench.load import Connection
from bench.peers import uvicorn_bare
from bench.table import Row

__all__ = ["run"]

_COLD = 40
_WARM = 2_000
_GAP_SECONDS = 0.25
_NODE: dict[str, str | bytes | Path] = {"app.js": "exports.handler = async (event) => ({ event });"}


def run(ctx: Context) -> list[Row]:
    figures = uvloop.run(_measure(ctx.new_folder("data")))
    bare, node = _uvicorn(), _plain_node()
    warm, ratio = figures["warm"], figures["rate"] / bare
    return [
        _row("cold start of Node.js from the blank pool", figures["node"], 5.0),
        Row(
            "… by exec, against a plain start of Node.js",
            "p50 ≤ 30 ms",
            f"p50 {figures['node exec']:.2f} ms, {node:.2f} ms",
            f"{figures['node exec'] / node:.2f} ×",
            figures["node exec"] <= 30.0,
        ),
        _row("cold start of a static provided binary", figures["provided"], 6.0),
        Row("… of one with aws-lambda-go", "", f"p50 {figures['go']:.2f} ms", "", None),
        Row("warm event, awslambdaric", "p50 ≤ 0.6 ms", f"p50 {warm:.2f} ms", "", warm <= 0.6),
        Row(
            "… one client, against bare uvicorn",
            "≥ 0.15 ×",
            f"{figures['rate']:.0f}/s, {bare:.0f}/s",
            f"{ratio:.2f} ×",
            ratio >= 0.15,
        ),
    ]


def _row(name: str, milliseconds: float, goal: float) -> Row:
    return Row(name, f"p50 ≤ {goal:g} ms", f"p50 {milliseconds:.2f} ms", "", milliseconds <= goal)


async def _measure(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with open_room(data) as room:
        await room.publish(_NODE, "nodejs20.x", name="node")
        found["node"] = await _cold(room, "app-node")
        await room.publish(_NODE, "nodejs20.x", name="exec", environment={"NODE_OPTIONS": "--no-warnings"})
        found["node exec"] = await _cold(room, "app-exec")
        await room.publish({"bootstrap": builds.go() / "bootstrap"}, "provided.al2023", name="go")
        found["go"] = await _cold(room, "app-go")
        await room.publish({"bootstrap": builds.c() / "bootstrap"}, "provided.al2023", name="static")
        found["provided"] = await _cold(room, "app-static")
        source = builds.python()
        files: dict[str, str | bytes | Path] = {
            str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()
        }
        files["app.py"] = "def handler(event, context):\n    return event\n"
        await room.publish(files, "provided.al2023", name="ric")
        times = []
        began = time.perf_counter()
        for _ in range(_WARM):
            before = time.perf_counter()
            await room.functions.invoke("app-ric", b"{}")
            times.append(time.perf_counter() - before)
        found["rate"] = _WARM / (time.perf_counter() - began)
        found["warm"] = statistics.median(times) * 1000
    return found


async def _cold(room: Room, name: str) -> float:
    """Median milliseconds from an event to its answer, when no instance is there."""
    times = []
    pool = room.functions._pools[name]
    for _ in range(_COLD):
        for instance in list(pool.instances.values()):
            room.functions.kill_instance(instance)
        await asyncio.sleep(_GAP_SECONDS)
        before = time.perf_counter()
        invocation, outcome = await room.functions.invoke(name, b"{}")
        if invocation.cold and not outcome.error:
            times.append(time.perf_counter() - before)
    return statistics.median(times) * 1000


def _plain_node() -> float:
    """Median milliseconds of the program that runs nothing, without a sandbox."""
    times = []
    for _ in range(_COLD):
        before = time.perf_counter()
        subprocess.run(["node", "-e", "0"], check=True)
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1000


def _uvicorn() -> float:
    """Requests a second of bare uvicorn to one client that waits for each answer."""
    with uvicorn_bare.start() as server, Connection(server.port) as client:
        for _ in range(100):
            client.get("/")
        began = time.perf_counter()
        for _ in range(_WARM):
            client.get("/")
        return _WARM / (time.perf_counter() - began)
