"""What every group of operations works with: the store, the functions room, and how a name is looked up."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from martlet.clock import Clock, uuid4_text
from martlet.functions.control.configuration import arn_of
from martlet.functions.control.names import (
    LATEST,
    Name,
    conflict,
    invalid,
    is_number,
    no_alias,
    not_found,
    parse,
)
from martlet.functions.control.records import Alias, Configuration, Function, Logging, Tables
from martlet.functions.functions import Functions
from martlet.store import Store
from martlet.types import FunctionVersion

__all__ = ["Desk", "Stored"]

T = TypeVar("T")
_LOG: Final = logging.getLogger("martlet.control")
_PAGE_MOST: Final = 50


class Stored(Protocol):
    """An archive that was unpacked and kept."""

    address: str  # content address of the folder
    unzipped_bytes: int
    digest: str  # SHA-256 of the archive as it was sent, hex


class Archives(Protocol):
    """Where archives are kept. All calls block; `ServiceError` in Lambda's words for archives that it would refuse."""

    def store(self, archive: bytes, kind: str) -> Stored: ...

    def open(self, digest: str) -> bytes: ...


FetchObject = Callable[[str, str, str], Awaitable[bytes]]
Deliver = Callable[[str, dict[str, Any]], Awaitable[None]]


class Desk:
    """The common part of the groups of operations; `Control` is made of them."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        archives: Archives,
        *,
        data: Path,
        clock: Clock,
        region: str = "us-east-1",
        authorize: Callable[..., None],
        available: Callable[[str], str],
        fetch_object: FetchObject | None = None,
        deliver: Deliver | None = None,
        on_urls: Callable[[], None] = lambda: None,
        url_of: Callable[[str], str] | None = None,
        egress: Any = "all",
    ) -> None:
        self._store = store
        self._functions = functions
        self._archives = archives
        self._data = data
        self._clock = clock
        self._region = region
        self._allow = authorize
        self._available = available
        self._fetch_object = fetch_object
        self._deliver = deliver
        self._on_urls = on_urls
        self._url_of = url_of or (lambda id: f"https://{id}.lambda-url.{region}.martlet.internal/")
        self._egress = egress
        self._work: set[asyncio.Task[None]] = set()
        self._location_key = b""

    # --- the store ------------------------------------------------------------------------------------------------

    async def _write(self, fn: Callable[[Tables], T]) -> T:
        return await self._store.transact(lambda tx: fn(Tables(tx)))

    def _read(self, fn: Callable[[Tables], T]) -> T:
        return self._store.read(lambda reader: fn(Tables(reader)))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a state of a function could not be recorded: %s", task.exception(), exc_info=task.exception())

    async def settled(self) -> None:
        """Wait until every function that is being created or updated has reached its next state."""
        while self._work:
            await asyncio.wait(set(self._work))

    # --- names ----------------------------------------------------------------------------------------------------

    def _name(self, request: dict[str, Any], *, unqualified: bool = False) -> Name:
        return parse(request, self._region, unqualified=unqualified)

    def _arn(self, name: str, qualifier: str = "") -> str:
        return arn_of(name, self._region, qualifier)

    def _published(self, name: str) -> FunctionVersion | None:
        """The function of an app by this name, if it is one."""
        found = self._functions.get(name)
        return found if found is not None and not found.config.runtime else None

    def _function(self, tables: Tables, name: Name) -> Function | None:
        """What all its versions share. Functions of apps have it too."""
        found = tables.get(Function, name.name)
        if found is None:
            published = self._published(name.name)
            if published is not None:
                reserved = published.config.reserved
                return Function(name=name.name, app=published.app, created_at_ms=published.created_at_ms, reserved=reserved)
        return found

    def _own(self, tables: Tables, name: Name) -> Function:
        """The function, for operations that change what an app's deployment says otherwise."""
        published = self._published(name.name)
        if published is not None:
            raise conflict(f"The function {name.name} belongs to the app {published.app}: change it there and deploy the app.")
        found = tables.get(Function, name.name)
        if found is None:
            raise not_found(name, "")
        return found

    def _latest(self, tables: Tables, name: str) -> Configuration | None:
        found = tables.get(Configuration, name, LATEST)
        if found is None:
            published = self._published(name)
            return _projected(published) if published is not None else None
        return found

    def _resolve(self, tables: Tables, name: Name) -> Configuration | None:
        """The version that this name and qualifier mean; of a weighted alias its first."""
        if name.qualifier in ("", LATEST):
            return self._latest(tables, name.name)
        if is_number(name.qualifier):
            return tables.get(Configuration, name.name, name.qualifier)
        alias = tables.get(Alias, name.name, name.qualifier)
        if alias is None:
            return None
        return self._resolve(tables, name._replace(qualifier=alias.version))

    def _demand(self, tables: Tables, name: Name) -> Configuration:
        found = self._resolve(tables, name)
        if found is None:
            raise not_found(name)
        return found

    def _demand_alias_or_version(self, tables: Tables, name: Name) -> None:
        """Raises ServiceError in words that tell aliases and versions apart (provisioned concurrency, permissions)."""
        if self._resolve(tables, name) is not None:
            return
        raise not_found(name) if is_number(name.qualifier) or "$" in name.qualifier else no_alias(name)

    # --- pages ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _page(request: dict[str, Any], most: int = _PAGE_MOST) -> tuple[int, int, str]:
        """(items in one page, position and place after which it begins)."""
        items = min(max(int(request.get("MaxItems") or most), 1), most)
        marker = request.get("Marker") or ""
        if not marker:
            return items, 0, ""
        try:
            position, _, place = base64.b64decode(marker, altchars=b"-_", validate=True).decode().partition(":")
            return items, max(int(position), 0), place
        except (binascii.Error, ValueError):
            raise invalid("The specified marker is not one that this operation gave out.") from None

    @staticmethod
    def _cut(items: list[tuple[str, T]], page: tuple[int, int, str]) -> tuple[list[T], dict[str, str]]:
        """One page of (place, item) in their order, and {"NextMarker"} if more follow. Places are unique."""
        most, start, after = page
        if after:  # the position is only used when that place is gone meanwhile
            start = next((at + 1 for at, (place, _) in enumerate(items) if place == after), max(start - 1, 0))
        shown = items[start : start + most]
        end = start + len(shown)
        if end >= len(items):
            return [item for _, item in shown], {}
        marker = base64.urlsafe_b64encode(f"{end}:{shown[-1][0]}".encode()).decode()
        return [item for _, item in shown], {"NextMarker": marker}

    @staticmethod
    def _revision() -> str:
        return uuid4_text()


def _projected(version: FunctionVersion) -> Configuration:
    """A function of an app in the words of the Lambda API."""
    config = version.config
    return Configuration(
        name=version.name,
        number=version.version,
        revision_id=f"{version.name}-{version.version}",
        modified_at_ms=version.created_at_ms,
        runtime=f"python{sys.version_info[0]}.{sys.version_info[1]}",
        role="",
        handler=config.handler,
        description=config.description,
        timeout_seconds=-(-int(config.timeout_seconds * 1000) // 1000),
        memory_mb=config.memory_mb,
        tmp_mb=config.tmp_mb,
        environment=config.environment or None,
        logging=Logging(f"/aws/lambda/{version.name}"),
        code=version.code,
        zip=version.code,
        code_bytes=0,
        code_unzipped_bytes=0,
        state="Active",
        update="Successful",
    )
