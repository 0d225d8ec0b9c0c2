"""One stage for the whole suite, and after each attack the question whether the platform still serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.security.stage import APPS, Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What all attacks together left is looked at when they are over."""
    items.sort(key=lambda item: item.path.name == "test_aftermath.py" and item.path.parent.name == "security")


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A platform with the victim (and 1000 on its account) and the attacker; kept for all attacks."""
    found = Stage(tmp_path_factory.mktemp("stage"), MARTLET_KEEP_ALIVE_SECONDS="5")
    try:
        assert found.invoke("victim-deposit", {"amount": 1000}).payload == 1000
        found.deploy(APPS / "attacker", "attacker")
        found.victim_is_well()
        yield found
    finally:
        code = found.close()
    assert code == 0, found.platform.printed()


@pytest.fixture
def attacked(stage: Stage) -> Iterator[Stage]:
    """The stage; afterwards the victim must be well, the attacker's function usable, and the platform the same process."""
    yield stage
    assert stage.platform.process.poll() is None, stage.platform.printed()
    stage.victim_is_well()
    stage.attacker_answers()


@pytest.fixture
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a platform that a test breaks; named freshly, so that its control groups are its own."""
    return tmp_path_factory.mktemp("own")
