"""One stage for the whole suite, and after each attack the question whether the platform still serves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.security.stage import APPS, Stage

ENDLESS = "import-that-never-returns"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What all attacks together left is looked at when they are over."""
    items.sort(key=lambda item: item.path.name == "test_aftermath.py" and item.path.parent.name == "security")


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A platform with the victim (and 1000 on its account) and the attacker; kept for all attacks."""
    found = Stage(tmp_path_factory.mktemp("stage"), MARTLET_KEEP_ALIVE_SECONDS="3")
    try:
        assert found.invoke("victim-deposit", {"amount": 1000}).payload == 1000
        found.deploy(APPS / "attacker", "attacker")
        found.victim_is_well()
        yield found
    finally:
        code = found.close()
    assert code == 0, found.platform.printed()


@pytest.fixture(scope="session")
def endless_build(stage: Stage) -> Iterator[Future[subprocess.CompletedProcess[str]]]:
    """A deployment whose module never comes back from its import, begun before the other attacks: it takes the build's 30 s."""
    folder = stage.folder / "endless"
    folder.mkdir()
    program = f"import time; time.sleep(99)  # {ENDLESS}"
    child = f"os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', {program!r}])"
    (folder / "app.py").write_text(f"import os, sys, time\nif not os.fork(): {child}\nwhile True: time.sleep(1)\n")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(stage.martlet, "deploy", str(folder), "--app", "endless")


@pytest.fixture
def attacked(stage: Stage, endless_build: Future[subprocess.CompletedProcess[str]]) -> Iterator[Stage]:
    """The stage; afterwards the victim must be well, the attacker's function usable, and the platform the same process."""
    yield stage
    assert stage.platform.process.poll() is None, stage.platform.printed()
    stage.victim_is_well()
    stage.attacker_answers()


@pytest.fixture
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a platform that a test breaks; named freshly, so that its control groups are its own."""
    return tmp_path_factory.mktemp("own")
