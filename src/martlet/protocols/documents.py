"""Collections of documents over HTTP: a document's value is the body, its version the ETag (RFC 9110 section 8.8.3).

Conditions: `If-Match: "7"` (this version must be there), `If-Match: *` (some version must), `If-None-Match: *` (none may
be). One that does not hold is 412. Inside a sandbox the app is the caller's own; from outside it is `?app=NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from martlet.auth import authorize
from martlet.documents import Documents as DocumentsRoom
from martlet.documents import Usage
from martlet.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.rooms import Rooms, StoredDocument
from martlet.types import Principal

__all__ = ["CheckedDocuments", "DocumentEndpoints", "app_of"]

Identify = Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]

_ETAG = re.compile(r'"([0-9]{1,18})"')
_LIST_MOST = 1_000


class DocumentEndpoints:
    """The operations of /v1/documents."""

    def __init__(self, rooms: Rooms, identify: Identify) -> None:
        self._rooms = rooms
        self._identify = identify

    def operations(self) -> tuple[Operation, ...]:
        one, all_of = "/v1/documents/{collection}/{id}", "/v1/documents/{collection}"
        return (
            Operation("GET", all_of, self.list),
            Operation("GET", one, self.get),
            Operation("PUT", one, self.put),
            Operation("DELETE", one, self.delete),
        )

    def _app(self, principal: Principal, query: dict[str, str]) -> str:
        return app_of(self._rooms, principal, query)

    async def get(self, request: Request) -> Answer:
        principal, _ = await self._identify(request, "request_line_bytes")
        app = self._app(principal, request.query(("app",)))
        collection, id = request.parameters["collection"], request.parameters["id"]
        used = Usage()
        found = self._rooms.documents.get(principal, app, collection, id, usage=used)
        if found is None:
            raise _missing(collection, id)
        etag = _etag(found)
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag in known or "*" in known:
            return Answer(304, b"", (("etag", etag), _spent(used)))
        return asgi.json_answer(msgspec.Raw(found.value_bytes), 200, (("etag", etag), _spent(used)))

    async def put(self, request: Request) -> Answer:
        principal, body = await self._identify(request, "document_bytes")
        app = self._app(principal, request.query(("app",)))
        collection, id = request.parameters["collection"], request.parameters["id"]
        used = Usage()
        version = self._version(request, principal, app, collection, id, used)
        try:
            stored = await self._rooms.documents.put(principal, app, collection, id, body, version=version, usage=used)
        except Conflict as error:
            raise _precondition(error) from error
        return Answer(201 if stored.version == 1 else 204, b"", (("etag", _etag(stored)), _spent(used)))

    async def delete(self, request: Request) -> Answer:
        principal, _ = await self._identify(request, "request_line_bytes")
        app = self._app(principal, request.query(("app",)))
        collection, id = request.parameters["collection"], request.parameters["id"]
        if "if-none-match" in request.headers:
            raise InvalidInput("If-None-Match makes no sense for DELETE", field="If-None-Match")
        used = Usage()
        version = self._version(request, principal, app, collection, id, used)
        try:
            gone = await self._rooms.documents.delete(principal, app, collection, id, version=version, usage=used)
        except Conflict as error:
            raise _precondition(error) from error
        if not gone:
            raise _missing(collection, id)
        return Answer(204, b"", (_spent(used),))

    async def list(self, request: Request) -> Answer:
        principal, _ = await self._identify(request, "request_line_bytes")
        query = request.query(("app", "prefix", "limit", "after"))
        app = self._app(principal, query)
        text = query.get("limit", "100")
        if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= _LIST_MOST:
            raise InvalidInput(f"limit must be a whole number from 1 to {_LIST_MOST}, got {text[:40]!r}", field="limit")
        collection = request.parameters["collection"]
        used = Usage()
        prefix, after = query.get("prefix", ""), query.get("after")
        found, following = self._rooms.documents.list(
            principal, app, collection, prefix=prefix, limit=int(text), after=after, usage=used
        )
        items = [{"id": item.id, "version": item.version, "value": msgspec.Raw(item.value_bytes)} for item in found]
        return asgi.json_answer({"items": items, "next": following}, 200, (_spent(used),))

    def _version(self, request: Request, principal: Principal, app: str, collection: str, id: str, used: Usage) -> int | None:
        """What must be there, from the conditional headers (RFC 9110 section 13.1)."""
        match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
        if match is not None and none_match is not None:
            raise InvalidInput("give If-Match or If-None-Match, not both", field="If-Match")
        if none_match is not None:
            if none_match != "*":
                raise InvalidInput("If-None-Match must be * for a write", field="If-None-Match")
            return 0
        if match is None:
            return None
        if match == "*":
            found = self._rooms.documents.get(principal, app, collection, id, usage=used)
            if found is None:
                raise PreconditionFailed("If-Match: * did not hold: there is no such document")
            return found.version
        tag = _ETAG.fullmatch(match)
        if tag is None or int(tag[1]) == 0:
            raise InvalidInput(f'If-Match must be one strong ETag such as "7", got {match[:60]!r}', field="If-Match")
        return int(tag[1])


class CheckedDocuments:
    """Documents behind `authorize`: resource "<app>/<collection>"."""

    def __init__(self, documents: DocumentsRoom) -> None:
        self._documents = documents

    def get(self, principal: Principal, app: str, collection: str, id: str, *, usage: Usage | None = None) -> Any:
        authorize(principal, "documents:Get", f"{app}/{collection}")
        return self._documents.get(app, collection, id, usage=usage)

    async def put(
        self,
        principal: Principal,
        app: str,
        collection: str,
        id: str,
        value: bytes,
        *,
        version: int | None = None,
        usage: Usage | None = None,
    ) -> Any:
        authorize(principal, "documents:Put", f"{app}/{collection}")
        return await self._documents.put(app, collection, id, value, version, usage=usage)

    async def delete(
        self,
        principal: Principal,
        app: str,
        collection: str,
        id: str,
        *,
        version: int | None = None,
        usage: Usage | None = None,
    ) -> bool:
        authorize(principal, "documents:Delete", f"{app}/{collection}")
        return await self._documents.delete(app, collection, id, version, usage=usage)

    def list(
        self,
        principal: Principal,
        app: str,
        collection: str,
        *,
        prefix: str = "",
        limit: int = 100,
        after: str | None = None,
        usage: Usage | None = None,
    ) -> Any:
        authorize(principal, "documents:List", f"{app}/{collection}")
        return self._documents.list(app, collection, prefix, limit, after, usage=usage)


def app_of(rooms: Rooms, principal: Principal, query: dict[str, str]) -> str:
    """The database that a request means: a function's own app, unless it says another; everybody else must say."""
    given = query.get("app")
    if principal.kind == "function":
        own = rooms.functions.get(principal.name)
        if own is None:
            raise NotFound(f"the function {principal.name} is no longer deployed")
        return given or own.app  # another app's name is for `authorize` to refuse
    if not given:
        raise InvalidInput("which app's documents? give ?app=NAME", field="app")
    return given


def _spent(used: Usage) -> tuple[str, str]:
    """What the request used, as a header."""
    return "martlet-usage", used.text()


def _precondition(error: Conflict) -> PreconditionFailed:
    return PreconditionFailed(error.message, remedy=error.remedy, **error.details)


def _missing(collection: str, id: str) -> NotFound:
    return NotFound(f"there is no document {id!r} in {collection!r}")


def _etag(document: StoredDocument) -> str:
    return f'"{document.version}"'
