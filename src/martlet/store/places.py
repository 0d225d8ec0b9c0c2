"""Where a store can be: a data folder, or a database that nodes share. Which of them may be used, and by whom."""

from __future__ import annotations

import fcntl
import importlib
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from martlet.errors import InvalidInput, MartletError, StartFailed
from martlet.store import copying
from martlet.store.nodes import Card
from martlet.store.store import Store

__all__ = ["MODULES", "copy_store", "join"]

MODULES: Final = {"sqlite": "sqlite", "memory": "memory", "postgresql": "postgres"}  # engine -> its module

_FILE: Final = "store.sqlite"


async def join(store: Store, folder: Path, lost: Callable[[MartletError], None]) -> Callable[[], None]:
    """Make this process, with its data folder, one of the nodes of a shared database; what is returned unlocks the folder. The
    folder's lock says that whoever had the node's name before is dead.

    Raises `StartFailed` when another process uses the folder, or another node has its name."""
    lock = (folder / "node.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StartFailed(
            f"the data folder {folder} is in use by another process", remedy="stop it, or use another folder (--data DIR)"
        ) from error
    try:
        await store.join(_card_of(folder), lost)
    except BaseException:
        lock.close()
        raise
    return lock.close


def _card_of(folder: Path) -> Card:
    """A node's name is its folder's, and stays."""
    file = folder / "store.id"
    if not file.exists():
        draft = file.with_suffix(".tmp")
        draft.write_text(secrets.token_hex(8) + "\n")
        draft.rename(file)
    return Card(file.read_text().strip(), f"{socket.gethostname()}:{os.path.realpath(folder)}")


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
