"""Saved code is served; code that cannot be deployed is reported, and what was deployed before serves on."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import Api, RunningPlatform, eventually, save, write_app

pytestmark = pytest.mark.e2e


def greeting(text: str, more: str = "") -> str:
    return f"""
from martlet import App

app = App("watched")

@app.get("/")
def index() -> str:
    return {text!r}
{more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_app(tmp_path_factory.mktemp("watched") / "watched", greeting("first"))


@pytest.fixture(scope="module")
def watched(start: Start, folder: Path) -> RunningPlatform:
    return start(folder)


@pytest.fixture(autouse=True)
def deployed(watched: RunningPlatform, folder: Path) -> None:
    """Every test begins with this code being served."""
    save(folder / "app.py", greeting("beginning"))
    eventually(lambda: said(watched) == "beginning")


def said(platform: RunningPlatform) -> object:
    answer = httpx.get(platform.app_url, timeout=30)
    assert answer.status_code == 200, "no request fails while code is exchanged"
    return answer.json()


def test_saved_code_is_served(watched: RunningPlatform, folder: Path) -> None:
    took = []
    for number in range(5):
        save(folder / "app.py", greeting(f"version {number}"))
        begun = time.perf_counter()
        eventually(lambda number=number: said(watched) == f"version {number}")
        took.append((time.perf_counter() - begun) * 1000)
    print(f"served after saving: {', '.join(f'{ms:.0f}' for ms in took)} ms")
    assert len(re.findall(r"^deployed watched revision \d+ in \d+ ms$", watched.printed(), re.MULTILINE)) >= 5


def test_a_file_written_in_place_and_in_pieces_is_served_whole(watched: RunningPlatform, folder: Path) -> None:
    text = greeting("in place")
    with (folder / "app.py").open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
    eventually(lambda: said(watched) == "in place")


def test_a_syntax_error_keeps_the_old_code_serving_and_says_where(watched: RunningPlatform, folder: Path) -> None:
    before = len(watched.printed())
    save(folder / "app.py", greeting("never").replace("return", "retrun"))
    eventually(lambda: "app.py:8" in watched.printed()[before:])
    told = watched.printed()[before:]
    assert "deploy failed, the version before still serves" in told
    assert told.count("deploy failed") == 1
    assert said(watched) == "beginning"
    save(folder / "app.py", greeting("repaired"))
    eventually(lambda: said(watched) == "repaired")


def test_an_error_at_import_keeps_the_old_code_serving_and_says_where(watched: RunningPlatform, folder: Path) -> None:
    before = len(watched.printed())
    save(folder / "app.py", greeting("never", "1 / 0\n"))
    eventually(lambda: "ZeroDivisionError: division by zero" in watched.printed()[before:])
    assert re.search(r'File "/var/task/app\.py", line \d+', watched.printed()[before:])
    assert said(watched) == "beginning"


def test_routes_come_and_go(watched: RunningPlatform, folder: Path) -> None:
    more = '@app.get("/more")\ndef more() -> str:\n    return "more"\n'
    assert httpx.get(f"{watched.app_url}/more").status_code == 404
    save(folder / "app.py", greeting("with more", more))
    eventually(lambda: httpx.get(f"{watched.app_url}/more").status_code == 200)
    assert said(watched) == "with more"
    save(folder / "app.py", greeting("without"))
    eventually(lambda: httpx.get(f"{watched.app_url}/more").status_code == 404)
    assert said(watched) == "without"
    assert [found["name"] for found in Api(watched).get("/v1/functions")["functions"]] == ["watched-index"]


def test_a_second_file_and_a_new_folder_count(watched: RunningPlatform, folder: Path) -> None:
    (folder / "words").mkdir()
    save(folder / "words" / "__init__.py", 'GREETING = "from a folder"\n')
    save(folder / "app.py", greeting("x").replace("return 'x'", "from words import GREETING\n    return GREETING"))
    eventually(lambda: said(watched) == "from a folder")
    save(folder / "words" / "__init__.py", 'GREETING = "changed in the folder"\n')
    eventually(lambda: said(watched) == "changed in the folder")


def test_a_dependency_that_does_not_exist_is_reported_by_name(watched: RunningPlatform, folder: Path) -> None:
    before = len(watched.printed())
    save(folder / "requirements.txt", "martlet-no-such-package-ever==1.0\n")
    eventually(lambda: "deploy failed" in watched.printed()[before:])
    told = watched.printed()[before:]
    assert "martlet-no-such-package-ever" in told
    assert "requirements.txt" in told
    assert said(watched) == "beginning"
    (folder / "requirements.txt").unlink()
    save(folder / "app.py", greeting("without the dependency"))
    eventually(lambda: said(watched) == "without the dependency")


def test_up_can_be_told_not_to_watch(start: Start, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "still", greeting("first").replace("watched", "still"))
    platform = start(folder, "--no-watch")
    save(folder / "app.py", greeting("second").replace("watched", "still"))
    assert said(platform) == "first"
    assert "deployed still revision 2" not in platform.printed()
