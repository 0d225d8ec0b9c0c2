"""The whole platform in this process, by a clock that the test moves: schedules fire when they are due, and once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from martlet.clock import ManualClock
from martlet.config import Settings
from martlet.server import Server

APP = """
from martlet import App, Collection

app = App("clockwork")
fired = Collection("fired")

def remember(name, event):
    fired.update(name, lambda times: [*(times or []), event["time"]])

@app.schedule("rate(5 minutes)", uses=[fired])
def often(event, context):
    remember("often", event)

@app.schedule("cron(30 9 * * ? *)", timezone="Europe/Zurich", uses=[fired])
def mornings(event, context):
    remember("mornings", event)

@app.schedule("rate(1 hour)", input={"given": True}, uses=[fired])
def hourly(event, context):
    fired.put("hourly", event)

@app.schedule("rate(1 minute)", uses=[fired])
def unlucky(event, context):
    tries = fired.update("tries", lambda value: (value or 0) + 1)
    raise RuntimeError("try " + str(tries.value))
"""
START_MS = 1_795_219_200_000  # 2026-11-21T00:00:00Z; a Saturday, 01:00 in Zurich
MINUTE = 60.0
Serve = Callable[[], Any]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
def serve(tmp_path: Path, clock: ManualClock) -> Serve:
    """`async with serve() as server`: a platform on this test's data folder."""

    @asynccontextmanager
    async def started() -> AsyncIterator[Server]:
        server = Server(Settings(data=str(tmp_path / "data"), port=0, api_port=0, stem_cells=1), clock)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()

    return started


async def deploy(server: Server, folder: Path, text: str = APP) -> None:
    await server.apps.deploy(written(folder, text))


def written(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(text)
    return folder


def document(server: Server, id: str) -> Any:
    found = server.documents.get("clockwork", "fired", id)
    return None if found is None else json.loads(found.value_bytes)


async def advance(server: Server, clock: ManualClock, seconds: float) -> None:
    """Move time on, and let the platform notice by what makes it look: a change."""
    clock.advance(seconds)
    await server.documents.put("clockwork", "fired", "now", str(clock.now_ms()).encode(), None)


async def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < deadline, value
        await asyncio.sleep(0.005)
    return value


async def settled(server: Server) -> None:
    """Nothing is being delivered, and stays so."""
    for _ in range(10):
        await until(lambda: not server.triggers._running)
        await asyncio.sleep(0.01)


async def test_schedules_fire_when_they_are_due_and_once(serve: Serve, clock: ManualClock, tmp_path: Path) -> None:
    async with serve() as server:
        await deploy(server, tmp_path / "clockwork")
        await settled(server)
        assert document(server, "often") is None
        await advance(server, clock, 5 * MINUTE)
        assert await until(lambda: document(server, "often")) == ["2026-11-21T00:05:00Z"]
        await advance(server, clock, 4.9 * MINUTE)
        await settled(server)
        assert len(document(server, "often")) == 1
        await advance(server, clock, 0.1 * MINUTE)
        await until(lambda: len(document(server, "often")) == 2)
        await advance(server, clock, 50 * MINUTE)
        assert await until(lambda: document(server, "hourly")) == {"given": True}
        await settled(server)
        assert document(server, "often")[-1] < "2026-11-21T01:00:01Z"


async def test_cron_follows_its_time_zone(serve: Serve, clock: ManualClock, tmp_path: Path) -> None:
    async with serve() as server:
        await deploy(server, tmp_path / "clockwork")
        await advance(server, clock, 8.5 * 60 * MINUTE - 1)
        await settled(server)
        assert document(server, "mornings") is None
        await advance(server, clock, 1)
        assert await until(lambda: document(server, "mornings")) == ["2026-11-21T08:30:00Z"], "09:30 in Zurich"


async def test_what_was_missed_while_the_platform_was_down_fires_once(serve: Serve, clock: ManualClock, tmp_path: Path) -> None:
    async with serve() as server:
        await deploy(server, tmp_path / "clockwork")
        await advance(server, clock, 5 * MINUTE)
        await until(lambda: document(server, "often"))
        await settled(server)
    clock.advance(32 * MINUTE)
    async with serve() as server:
        await until(lambda: len(document(server, "often")) == 2)
        await settled(server)
        assert document(server, "often") == ["2026-11-21T00:05:00Z", "2026-11-21T00:10:00Z"]
        await advance(server, clock, 3 * MINUTE)
        await until(lambda: len(document(server, "often")) == 3)
        assert document(server, "often")[-1] == "2026-11-21T00:40:00Z", "it keeps its rhythm"
    async with serve() as server:
        await settled(server)
        assert len(document(server, "often")) == 3, "a restart at once fires nothing again"


async def test_a_function_that_fails_is_tried_again_and_then_laid_aside(
    serve: Serve, clock: ManualClock, tmp_path: Path
) -> None:
    only_unlucky = APP[: APP.index('@app.schedule("rate(5')] + APP[APP.index('@app.schedule("rate(1 minute)"') :].replace(
        "rate(1 minute)", "rate(1 day)"
    )
    async with serve() as server:
        await deploy(server, tmp_path / "clockwork", only_unlucky)
        await advance(server, clock, 24 * 60 * MINUTE)
        await until(lambda: document(server, "tries") == 1)
        for tries in (2, 3):
            await settled(server)
            assert document(server, "tries") == tries - 1, "not before its time"
            await advance(server, clock, 4 * MINUTE)
            await until(lambda tries=tries: document(server, "tries") == tries)
        (letter,) = await until(server.triggers.dead_letters)
        await advance(server, clock, 60 * MINUTE)
        await settled(server)
        assert document(server, "tries") == 3
        assert letter.event.function == "clockwork-unlucky"


async def test_a_schedule_that_is_taken_away_fires_no_more(serve: Serve, clock: ManualClock, tmp_path: Path) -> None:
    async with serve() as server:
        await deploy(server, tmp_path / "clockwork")
        assert {found.name for found in server.triggers.list("clockwork")} >= {"often", "hourly"}
        await deploy(server, tmp_path / "clockwork", APP.replace('@app.schedule("rate(5 minutes)", uses', "@app.function(uses"))
        await advance(server, clock, 10 * MINUTE)
        await settled(server)
        assert document(server, "often") is None
        await server.apps.destroy("clockwork")
        assert server.triggers.list("clockwork") == []
