"""The real command, real sandboxes, real HTTP. A module shares its platforms, because starting one costs about a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.driving import APPS, Command
from tests.running_platform import RunningPlatform

Start = Callable[..., RunningPlatform]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`start(path, *arguments, data=..., environ=...)`: a platform that lives until the module's last test has run."""
    folder = tmp_path_factory.mktemp("platforms")
    started: list[RunningPlatform] = []

    def begin(
        path: Path | str | None, *arguments: str, data: Path | None = None, environ: dict[str, str] | None = None
    ) -> RunningPlatform:
        started.append(RunningPlatform(path, data or folder / f"data-{len(started)}", *arguments, environ=environ))
        return started[-1]

    yield begin
    running = [found for found in started if found.process.poll() is None]
    codes = [(found.stop(), found.printed()) for found in running]
    assert all(code == 0 for code, _ in codes), "\n".join(f"exit code {code}:\n{printed}" for code, printed in codes if code)


@pytest.fixture
def martlet(tmp_path: Path) -> Command:
    """`martlet(*arguments, data=..., input=...)`: run one command to its end."""
    return Command(tmp_path)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def everything(start: Start) -> RunningPlatform:
    """A platform with apps/everything: one function for each thing that a test wants to see."""
    return start(APPS / "everything", "--no-watch")
