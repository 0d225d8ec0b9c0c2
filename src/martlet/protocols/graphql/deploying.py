"""The schema that an app's folder holds (`schema.graphql`), as deployments put it in place: the importer "app".

GraphQL's library is loaded when there is such a file, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from martlet.documents import Documents
from martlet.errors import DeployFailed, MartletError
from martlet.protocols.graphql.model import STATE, state_of

__all__ = ["AppSchemas"]

_SOURCE: Final = "app"


class AppSchemas:
    """`apps.ports.ApiSchemas` over the document database."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def current(self, app: str) -> str:
        """The SDL that was deployed, or ""."""
        raw = self._documents.store.read(lambda reader: reader.get(STATE + app.encode()))
        return state_of(raw).sources.get(_SOURCE, "")

    async def check(self, app: str, sdl: str) -> tuple[str, ...]:
        """What putting it in place would change. Raises `DeployFailed`."""
        importing = await asyncio.to_thread(import_module, "martlet.protocols.graphql.importing")
        text = sdl or None

        def look(tx: Any) -> Any:
            return importing.put_schema(tx, self._documents, app, _SOURCE, text, dry_run=True)

        try:
            raw = self._documents.store.read(lambda reader: reader.get(STATE + app.encode()))
            sources = state_of(raw).sources
            if text is not None:
                await asyncio.to_thread(importing.check_model, {**sources, _SOURCE: text})
            with self._documents.redefining():
                planned = await self._documents.store.transact(look)
            refused = [change for change in planned.changes if change.destructive]
        except MartletError as error:
            raise DeployFailed(f"schema.graphql: {error.message}", remedy=error.remedy or "fix the schema") from error
        if refused:
            told = "; ".join(f"{change.name}: {change.what}" for change in refused[:20])
            raise DeployFailed(
                f"schema.graphql would take away what is there: {told}",
                remedy=f"keep it, or PUT the file to /v1/databases/{app}/graphql/schema?source=app&replace=true first",
            )
        return tuple(f"{change.action} {change.name}" for change in planned.changes)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around the transaction that `put` is called in."""
        with self._documents.redefining():
            yield

    def put(self, tx: Any, app: str, sdl: str) -> None:
        """Within a transaction of the store. Raises `DeployFailed`."""
        from martlet.protocols.graphql.importing import put_schema

        try:
            put_schema(tx, self._documents, app, _SOURCE, sdl or None)
        except MartletError as error:
            raise DeployFailed(f"schema.graphql: {error.message}", remedy=error.remedy or "fix the schema") from error
