"""The records of APIs. What is acknowledged is durable, and what is durable can be served: `check` is asked first."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from martlet.apps.ports import Store
from martlet.errors import Conflict, DeployFailed, InvalidInput, MartletError, NotFound, StoreFailed
from martlet.store import keys
from martlet.types import ApiConfig

__all__ = ["Apis"]

_TABLE: Final = ("apps", "api")
_SCAN_LIMIT: Final = 100_000
_ID: Final = re.compile(r"[a-z0-9]{1,63}")


class Apis:
    """All APIs of one platform. Call `load` before anything else.

    `on_apis` is called after every change, `check(config)` before one: it raises for what the edge could not serve.
    """

    def __init__(
        self, store: Store, *, on_apis: Callable[[], None], check: Callable[[ApiConfig], None] = lambda config: None
    ) -> None:
        self._store = store
        self._on_apis = on_apis
        self._check = check
        self._apis: dict[str, ApiConfig] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read the records. Raises `StoreFailed` for one that cannot be read."""
        self._store.watch(*keys.prefix_range(*_TABLE), lambda changed: self._read())
        self._read()

    def _read(self) -> None:
        low, high = keys.prefix_range(*_TABLE)
        self._apis = {}
        found = self._store.read(lambda tx: [value for _, value in tx.scan(low, high, limit=_SCAN_LIMIT)])
        for value in found:
            try:
                config = msgspec.json.decode(value, type=ApiConfig)
            except msgspec.DecodeError as error:
                raise StoreFailed(
                    f"an API's record cannot be read: {error}",
                    remedy="it was written by a newer Martlet, or is damaged: use that version",
                ) from error
            self._apis[config.id] = config
        self._on_apis()

    def apis(self) -> list[ApiConfig]:
        """All of them, by id."""
        return [self._apis[id] for id in sorted(self._apis)]

    def get(self, id: str) -> ApiConfig:
        """Raises `NotFound`."""
        if id not in self._apis:
            raise NotFound(f"there is no API {id!r}")
        return self._apis[id]

    async def create(self, config: ApiConfig) -> None:
        """Serve a new API. Raises `Conflict` if the id is taken, `DeployFailed` for what cannot be served."""
        async with self._changing:
            if config.id in self._apis:
                raise Conflict(f"there is an API {config.id!r} already")
            await self._put(config)

    async def replace(self, config: ApiConfig) -> None:
        """Serve `config` in place of the API with its id. Raises `NotFound`, `DeployFailed`."""
        async with self._changing:
            self.get(config.id)
            await self._put(config)

    async def remove(self, id: str) -> None:
        """Stop serving an API. Raises `NotFound`."""
        async with self._changing:
            self.get(id)
            await self._store.transact(lambda tx: tx.delete(keys.encode(*_TABLE, id)))
            del self._apis[id]
            self._on_apis()

    async def _put(self, config: ApiConfig) -> None:
        if not _ID.fullmatch(config.id):
            raise InvalidInput(f"{config.id!r} is not an API's id: lower-case letters and digits", field="id")
        try:
            self._check(config)
        except MartletError as error:
            raise DeployFailed(error.message, remedy=error.remedy, api=config.name) from error
        value = msgspec.json.encode(config)

        def write(tx: Any) -> None:
            tx.put(keys.encode(*_TABLE, config.id), value)

        await self._store.transact(write)
        self._apis[config.id] = config
        self._on_apis()
