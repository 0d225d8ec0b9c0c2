"""Collections as apps declare them: checked before a deployment, made so by it, and shown while their indexes are built.

What an app declares holds: other settings of the collection, given by the API meanwhile, are replaced. Documents are never
removed by a declaration; an index that is no longer declared is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from martlet.documents.catalog import CollectionConfig, check_config, check_name
from martlet.documents.documents import Documents
from martlet.errors import InvalidInput
from martlet.types import CollectionDeclaration

__all__ = ["Declared"]

_LOOK_SECONDS: Final = 0.1  # between two looks at a build
_BUILD_SECONDS: Final = 5.0  # that a deployment watches its builds


class Declared:
    """The collections of apps, over one document database. An app's database has its name."""

    def __init__(self, room: Documents) -> None:
        self._room = room

    def check(self, declarations: Sequence[CollectionDeclaration]) -> None:
        """Raises `InvalidInput` or `LimitExceeded`, naming the collection, for settings that none can have."""
        for declaration in declarations:
            config_of(declaration)

    async def apply(
        self, app: str, declarations: Sequence[CollectionDeclaration], say: Callable[[str], None] | None = None
    ) -> None:
        """Make them so, those that refer to others last. May be repeated. With `say`, watch for a while how indexes are built.

        Raises what `Documents.define_collection` raises."""
        built: list[tuple[str, str]] = []
        for declaration in declarations:
            config = config_of(declaration)
            found = self._room.collection(app, declaration.name)
            if found is None or found.config != config:
                record = await self._room.define_collection(app, declaration.name, config)
                built += [(record.name, index.name) for index in record.indexes if index.status == "building"]
        if say is not None and built:
            await self._watch(app, built, say)

    async def _watch(self, app: str, indexes: Sequence[tuple[str, str]], say: Callable[[str], None]) -> None:
        """Tell of the builds until they end, or for some seconds: they go on by themselves."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _BUILD_SECONDS
        told: set[str] = set()
        while True:
            states = [self._state(app, collection, name) for collection, name in indexes]
            for text, _ in states:
                if text and text not in told:
                    say(text)
                told.add(text)
            if not any(building for _, building in states):
                return
            if loop.time() >= until:
                say("indexes are built in the background; a query by one that is not ready is an error")
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _state(self, app: str, collection: str, name: str) -> tuple[str, bool]:
        """(how far the build is, whether it goes on); of a reference's own index "" only."""
        found = self._room.collection(app, collection)
        for index in found.indexes if found is not None else ():
            if index.name == name:
                progress = f", {index.done} of {index.documents} documents" if index.status == "building" else ""
                reason = f": {index.reason}" if index.reason else ""
                return f"index {collection}.{name}: {index.status}{progress}{reason}", index.status == "building"
        return "", False


def config_of(declaration: CollectionDeclaration) -> CollectionConfig:
    """Raises `InvalidInput`, `LimitExceeded`."""
    name: Any = declaration.name
    check_name("collection", name)
    try:
        config = msgspec.json.decode(msgspec.json.encode(declaration.settings), type=CollectionConfig)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"collection {name}: {error}", field=name) from error
    try:
        check_config(config)
    except InvalidInput as error:
        raise InvalidInput(f"collection {name}: {error.message}", field=name, remedy=error.remedy) from error
    return config
