"""What a benchmark gets: a folder of its own and platforms to measure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running_platform import RunningPlatform

__all__ = ["Context"]


class Context:
    """One run of one benchmark; `folder` is empty at its start and removed after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def new_folder(self, name: str) -> Path:
        """The path of a folder that does not exist yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    @contextmanager
    def at_zero(self, app: Path) -> Iterator[RunningPlatform]:
        """A platform on which `app` is deployed and nothing runs: started a second time on what the first has stored."""
        data = self.new_folder("data")
        with self.platform(app, data=data):
            pass
        with self.platform(app, data=data) as running:
            yield running

    @contextmanager
    def platform(self, app: Path | None, *, data: Path | None = None, ready_seconds: float = 300) -> Iterator[RunningPlatform]:
        """`martlet up APP`, isolated, on free loopback ports; ended afterwards, and its exit code checked."""
        running = RunningPlatform(app, data or self.new_folder("data"), ready_seconds=ready_seconds)
        try:
            yield running
        except BaseException:
            print(f"\nmartlet up had printed:\n{running.printed()[-4000:]}", flush=True)
            running.stop()  # not killed: a killed platform's control groups wait for a next start that never comes here
            raise
        if code := running.stop():
            raise RuntimeError(f"martlet up ended with {code}:\n{running.printed()}")
