"""A room's work in the background: done when there is some, else asleep until the next falls due or somebody wakes it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from martlet.errors import MartletError

__all__ = ["LOOK_AGAIN_SECONDS", "Chores"]

LOOK_AGAIN_SECONDS: Final = 60.0  # the wall clock may jump
_AFTER_ERROR_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger("martlet.documents")


class Chores:
    """`what` names it in the log and as a task. Subclasses have `run_due` and `_delay_seconds`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def run_due(self) -> None:
        """Do everything that can be done now."""
        raise NotImplementedError

    def _delay_seconds(self) -> float:
        """How long to sleep when all is done."""
        raise NotImplementedError

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop(), name=f"housekeeping of {self._what}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def _loop(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.run_due()
                delay = self._delay_seconds()
            except MartletError as error:
                _LOG.error("housekeeping of %s pauses: %s", self._what, error)
                delay = _AFTER_ERROR_SECONDS
            timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
