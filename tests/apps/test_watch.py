"""Watching real folders. The tests wait for what must come; none waits for a time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.apps.fakes import Platform, graph, write_app

from martlet.apps import Deployment
from martlet.apps.watch import watch
from martlet.errors import DeployFailed, MartletError

Reports = asyncio.Queue[Deployment | MartletError]


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "app" / ".martlet")


@pytest.fixture
async def reports(platform: Platform, tmp_path: Path) -> AsyncIterator[Reports]:
    source = write_app(tmp_path / "app", graph("f"))
    await platform.apps.deploy(source)
    found: Reports = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(watch(platform.apps, source, None, found.put_nowait, stop))
    yield found
    stop.set()
    await task


async def deployed(reports: Reports) -> Deployment:
    done = await reports.get()
    assert isinstance(done, Deployment), done
    return done


async def test_saved_code_is_deployed(platform: Platform, reports: Reports, tmp_path: Path) -> None:
    for number in range(2, 5):
        (tmp_path / "app" / "app.py").write_text(f"x = {number}\n")
        assert (await deployed(reports)).revision == number


async def test_error_keeps_the_old_and_is_told_once(platform: Platform, reports: Reports, tmp_path: Path) -> None:
    (tmp_path / "app" / "app.py").write_text("def (:\n")
    error = await reports.get()
    assert isinstance(error, DeployFailed)
    assert "app.py:1" in error.message
    assert platform.apps.get("app").revision == 1
    (tmp_path / "app" / "note.txt").write_text("still broken")
    (tmp_path / "app" / "app.py").write_text("x = 2\n")
    assert (await deployed(reports)).revision == 2


async def test_repair_to_what_serves_is_told(platform: Platform, reports: Reports, tmp_path: Path) -> None:
    (tmp_path / "app" / "app.py").write_text("def (:\n")
    assert isinstance(await reports.get(), DeployFailed)
    (tmp_path / "app" / "app.py").write_text("x = 1\n")
    done = await deployed(reports)
    assert (done.revision, done.steps) == (1, ())


async def test_new_folders_are_watched(platform: Platform, reports: Reports, tmp_path: Path) -> None:
    folder = tmp_path / "app" / "pkg" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("1")
    seen = (await deployed(reports)).revision
    while not any(file.name == "a.py" for file in (platform.data / "code" / platform.apps.get("app").code).rglob("*")):
        seen = (await deployed(reports)).revision
    (folder / "a.py").write_text("2")
    assert (await deployed(reports)).revision == seen + 1


async def test_editor_that_renames_over(platform: Platform, reports: Reports, tmp_path: Path) -> None:
    (tmp_path / "app" / ".app.py.swp").write_text("x = 7\n")
    (tmp_path / "app" / ".app.py.swp").rename(tmp_path / "app" / "app.py")
    await deployed(reports)
    while (platform.data / "code" / platform.apps.get("app").code / "app.py").read_text() != "x = 7\n":
        await deployed(reports)


async def test_own_data_and_dependencies_are_not_watched(platform: Platform, reports: Reports, tmp_path: Path) -> None:
    (platform.data / "store.db").write_text("x")
    for name in ("node_modules", "__pycache__"):
        (tmp_path / "app" / name).mkdir()
        (tmp_path / "app" / name / "x").write_text("")
    builds = platform.functions.builds
    (tmp_path / "app" / "app.py").write_text("x = 2\n")
    assert (await deployed(reports)).revision == 2
    assert platform.functions.builds == builds + 1


async def test_one_file(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "data")
    source = tmp_path / "solo.py"
    source.write_text("x = 1\n")
    (tmp_path / "other.py").write_text("")

    async def build(*, app: str, code: str, layer: str, module: str) -> object:
        from tests.apps.fakes import Build

        assert module == "solo"
        return Build(graph("f"))

    platform.functions.build = build  # type: ignore[method-assign,assignment]
    await platform.apps.deploy(source)
    found: Reports = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(watch(platform.apps, source, None, found.put_nowait, stop))
    await asyncio.sleep(0)
    source.write_text("x = 2\n")
    assert (await deployed(found)).revision == 2
    stop.set()
    await task


async def test_stop_without_any_change(platform: Platform, tmp_path: Path) -> None:
    source = write_app(tmp_path / "app", graph("f"))
    stop = asyncio.Event()
    task = asyncio.create_task(watch(platform.apps, source, None, lambda report: None, stop))
    await asyncio.sleep(0)
    stop.set()
    await task
