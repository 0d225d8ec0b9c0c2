"""Redeploy an app when its files are saved. What cannot be deployed is reported, and the version before keeps serving."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from watchfiles import Change, awatch

from martlet.apps.deployment import Deployment
from martlet.apps.ignore import always_skipped
from martlet.apps.package import folders_of
from martlet.apps.stacks.deployed import StackDeployment
from martlet.errors import MartletError

__all__ = ["Deploys", "watch"]

_STEP_MS = 20  # a save is over when nothing has changed for this long …
_DEBOUNCE_MS = 40  # … or after this long at most


class Deploys(Protocol):
    """The apps room, or what deploys a template."""

    async def deploy(
        self,
        source: Path,
        name: str | None = None,
        *,
        skip_unchanged: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Deployment | StackDeployment: ...


Report = Callable[[Deployment | StackDeployment | MartletError], None]


async def watch(apps: Deploys, source: Path, name: str | None, report: Report, stop: asyncio.Event, failed: str = "") -> None:
    """Deploy `source` whenever it changes until `stop` is set; `report` gets each deployment that changed something, or
    its error, the same error once; `failed` has been told already.

    Only folders that belong to the app are watched, one by one: not `node_modules`, `.venv` or the platform's own data.
    A change before a watch is up is not lost: the folder is compared once it runs. Saved while deploying: deployed next.
    """
    saved = _Redeploy(apps, source, name, report, failed)
    while not stop.is_set():
        folders = await asyncio.to_thread(_folders, source)
        await _until_folders_change(saved, source, folders, stop)


class _Redeploy:
    """Deploys when called; remembers the last failure, so that it is told once."""

    def __init__(self, apps: Deploys, source: Path, name: str | None, report: Report, failure: str) -> None:
        self._apps = apps
        self._source = source
        self._name = name
        self._report = report
        self._failure = failure

    async def __call__(self) -> None:
        try:
            done = await self._apps.deploy(self._source, self._name, skip_unchanged=True)
        except MartletError as error:
            if error.message != self._failure:
                self._failure = error.message
                self._report(error)
            return
        if done.steps or self._failure:  # after a failure also tell that the saved code equals the serving one again
            self._report(done)
        self._failure = ""


async def _until_folders_change(saved: _Redeploy, source: Path, folders: frozenset[str], stop: asyncio.Event) -> None:
    ended = asyncio.Event()  # our own: awatch sets the event that it is given when it is cancelled
    relay = asyncio.create_task(_relay(stop, ended))
    changes = awatch(
        *folders,
        watch_filter=_filter(source),
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=ended,
        recursive=False,
        ignore_permission_denied=True,
    )
    following = asyncio.ensure_future(anext(changes, None))
    try:
        await asyncio.sleep(0)  # runs `changes` up to its first wait: from here on no change is missed
        await saved()
        while await asyncio.to_thread(_folders, source) == folders:
            if await following is None:
                return
            await saved()
            following = asyncio.ensure_future(anext(changes, None))
    finally:
        ended.set()
        await asyncio.gather(following, return_exceptions=True)
        await changes.aclose()
        relay.cancel()


async def _relay(stop: asyncio.Event, ended: asyncio.Event) -> None:
    await stop.wait()
    ended.set()


def _filter(source: Path) -> Callable[[Change, str], bool]:
    alone = source.name if source.suffix == ".py" else ""

    def belongs(change: Change, path: str) -> bool:
        name = os.path.basename(path)
        return name == alone if alone else not always_skipped(name)

    return belongs


def _folders(source: Path) -> frozenset[str]:
    """The folders to watch: those that belong to the app now, or the only file's own."""
    if source.is_file():
        return frozenset({str(source.absolute().parent)})
    try:
        return frozenset(folders_of(source))
    except MartletError:  # e.g. a link that leads out: the deployment reports it; the folder itself shows its repair
        return frozenset({str(source.absolute())})
