"""Where a store can be: a data folder, or a database that nodes share. Which of them may be used, and by whom."""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from martlet.clock import Clock
from martlet.errors import Conflict, InvalidInput, MartletError, StartFailed
from martlet.store import copying, keys
from martlet.store.store import Store
from martlet.store.transaction import Tx

__all__ = ["MODULES", "copy_store", "lead"]

MODULES: Final = {"sqlite": "sqlite", "memory": "memory", "postgresql": "postgres"}  # engine -> its module

_FOLDER: Final = keys.encode("platform", "folder")
_STAND_IN_MS: Final = 10_500  # a lease that nobody renews ends within this time
_FILE: Final = "store.sqlite"


async def lead(store: Store, folder: Path, clock: Clock, lost: Callable[[MartletError], None]) -> None:
    """Make this process, with its data folder, the one node that writes to a shared database; waits for the lease of one that
    died. One node at a time, because rooms keep in memory what they wrote, and functions' code and logs are in the folder.

    Raises `StartFailed` while another node lives, and when the database goes with another data folder."""
    holder = f"{socket.gethostname()} process {os.getpid()}, data folder {folder}"
    until = clock.now_ms() + _STAND_IN_MS
    while True:
        try:
            await store.lead(holder, lost)
            break
        except Conflict as conflict:
            expires_at_ms = conflict.details.get("expires_at_ms", 0)
            if not isinstance(expires_at_ms, int) or clock.now_ms() > until or expires_at_ms > until:  # somebody renews it
                raise StartFailed(conflict.message, remedy=conflict.remedy) from conflict
        await asyncio.sleep(0.5)
    await _check_folder(store, folder)


async def _check_folder(store: Store, folder: Path) -> None:
    file = folder / "store.id"
    mine = file.read_text().strip() if file.exists() else secrets.token_hex(8)

    def claim(tx: Tx) -> str:
        known = tx.get(_FOLDER)
        if known is None:
            tx.put(_FOLDER, mine.encode())
        return known.decode() if known is not None else mine

    if await store.transact(claim) != mine:
        raise StartFailed(
            f"the database belongs to another data folder than {folder}: functions' code is there",
            remedy="start with that folder (--data DIR), shared or copied",
        )
    file.write_text(mine + "\n")


def copy_store(source: str, target: str, progress: Callable[[str, int, int], None]) -> copying.Copied:
    """Copy a store between data folders and databases; see `copying`. Blocking.

    Raises `InvalidInput` when there is nothing to copy, and what `copying.copy_store` raises."""
    with closing(_engine_at(source, must_exist=True)) as giving:
        copying.refuse_half(giving)
        if giving.bounds() == (1, 0) and not giving.scan(b"", b"\xff", 1, False):
            raise InvalidInput("FROM holds nothing: there is nothing to copy")
        giving.release()
        with closing(_engine_at(target, must_exist=False)) as taking:
            return copying.copy_store(giving, taking, progress)


def _engine_at(place: str, *, must_exist: bool) -> Any:
    if "://" in place:
        return _opener("postgresql")(place)
    folder = Path(place).absolute()
    if not (folder / _FILE).exists():
        folder = folder / "store"
    if must_exist and not (folder / _FILE).exists():
        raise InvalidInput(f"there is no store in {place}", remedy="name the data folder of a platform")
    return _opener("sqlite")(folder)


def _opener(engine: str) -> Callable[[Any], Any]:
    found: Callable[[Any], Any] = importlib.import_module(f"martlet.store.engines.{MODULES[engine]}").open_engine
    return found
