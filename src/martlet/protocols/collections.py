"""The document database over HTTP: collections, queries, transactions, the change feed, import and export.

Single documents are `protocols.documents`. Every operation is authorized here, by the collections it touches: documents:Get,
:Put, :Delete, :List (queries, versions, feed, export) and :Define (collections and databases themselves).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from martlet.documents import CollectionConfig, Usage
from martlet.documents import Documents as CollectionsRoom
from martlet.documents.batch import Operation as Step
from martlet.documents.batch import page_json, parse_batch, parse_query, run_batch, shown
from martlet.documents.feed import changes, follow
from martlet.documents.transfer import export, import_csv, import_ndjson
from martlet.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, Unsupported
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.documents import app_of
from martlet.protocols.rooms import Rooms
from martlet.types import Principal

__all__ = ["CollectionEndpoints"]

Identify = Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]

_JSON = (("content-type", "application/json"),)
_LINE = "request_line_bytes"
_ACTIONS = {
    "get": "documents:Get",
    "check": "documents:Get",
    "put": "documents:Put",
    "patch": "documents:Put",
    "delete": "documents:Delete",
    "query": "documents:List",
}


class CollectionEndpoints:
    """The operations of /v1/collections, /v1/transactions and /v1/databases."""

    def __init__(self, rooms: Rooms, identify: Identify) -> None:
        self._rooms = rooms
        self._identify = identify

    def operations(self) -> tuple[Operation, ...]:
        one, collection = "/v1/documents/{collection}/{id}", "/v1/collections/{collection}"
        return (
            Operation("POST", "/v1/documents/{collection}", self.create),
            Operation("PATCH", one, self.patch),
            Operation("GET", one + "/versions", self.versions),
            Operation("POST", one + "/restore", self.restore),
            Operation("POST", "/v1/transactions", self.transact),
            Operation("GET", "/v1/collections", self.collections),
            Operation("GET", collection, self.collection),
            Operation("PUT", collection, self.define),
            Operation("DELETE", collection, self.remove),
            Operation("POST", collection + "/query", self.query),
            Operation("GET", collection + "/changes", self.changes),
            Operation("GET", collection + "/export", self.export),
            Operation("POST", collection + "/import", self.load),
            Operation("GET", "/v1/databases", self.databases),
            Operation("POST", "/v1/databases", self.create_database),
            Operation("DELETE", "/v1/databases/{database}", self.delete_database),
        )

    @property
    def _room(self) -> CollectionsRoom:
        if self._rooms.collections is None:
            raise Unsupported("this platform runs without the document database")
        return self._rooms.collections

    async def _open(
        self, request: Request, action: str, allowed: tuple[str, ...] = (), limit: str = _LINE
    ) -> tuple[str, str, dict[str, str], bytes]:
        """(database, collection, query parameters, body) of a request that may do `action` on its collection."""
        principal, body = await self._identify(request, limit)
        query = request.query(("app", *allowed))
        database = app_of(self._rooms, principal, query)
        collection = request.parameters.get("collection", "")
        self._rooms.auth.authorize(principal, action, f"{database}/{collection}" if collection else database)
        return database, collection, query, body

    # documents

    async def create(self, request: Request) -> Answer:
        database, collection, _, body = await self._open(request, "documents:Put", limit="document_bytes")
        used = Usage()
        written = await self._room.put(database, collection, None, body, usage=used)
        answer = {"id": written.id, "version": written.version}
        return asgi.json_answer(answer, 201, (("etag", f'"{written.version}"'), *_usage(used)))

    async def patch(self, request: Request) -> Answer:
        database, collection, _, body = await self._open(request, "documents:Put", limit="document_bytes")
        match = re.fullmatch(r'"([0-9]{1,18})"', request.headers.get("if-match", '"0"'))
        if match is None:
            raise InvalidInput('If-Match must be one strong ETag such as "7"', field="If-Match")
        step = Step("patch", collection, request.parameters["id"], merge=msgspec.Raw(body), version=int(match[1]) or None)
        used = Usage()
        try:
            raw = await self._room.transact(database, lambda tx: run_batch(tx, (step,)), usage=used)
        except PreconditionFailed:
            raise
        except Conflict as error:
            if "expected" not in error.details:
                raise
            raise PreconditionFailed(error.message, remedy=error.remedy, **error.details) from error
        version = msgspec.json.decode(raw)["results"][0]["version"]
        return Answer(204, b"", (("etag", f'"{version}"'), *_usage(used)))

    async def versions(self, request: Request) -> Answer:
        database, collection, query, _ = await self._open(request, "documents:List", ("limit",))
        used = Usage()
        limit = _whole(query, "limit", 100)
        found = self._room.versions(database, collection, request.parameters["id"], limit, usage=used)
        items = [{**shown(item.document), "ended": item.ended} for item in found]
        return asgi.json_answer({"items": items}, 200, _usage(used))

    async def restore(self, request: Request) -> Answer:
        database, collection, query, _ = await self._open(request, "documents:Put", ("version",))
        version, id = _whole(query, "version", 0), request.parameters["id"]
        used = Usage()
        written = await self._room.transact(database, lambda tx: tx.restore(collection, id, version), usage=used)
        return Answer(204, b"", (("etag", f'"{written.version}"'), *_usage(used)))

    async def transact(self, request: Request) -> Answer:
        principal, body = await self._identify(request, "request_body_bytes")
        database = app_of(self._rooms, principal, request.query(("app",)))
        steps = parse_batch(body)
        for action, collection in sorted({(_ACTIONS[step.op], step.collection) for step in steps}):
            self._rooms.auth.authorize(principal, action, f"{database}/{collection}")
        if any(step.op == "query" and b"expand" in bytes(step.query or b"") for step in steps):
            raise Unsupported("`expand` within a transaction is not supported; get the documents by their ids", field="expand")
        key = request.headers.get("idempotency-key")
        used = Usage()
        if key is None:
            answer = await self._room.transact(database, lambda tx: run_batch(tx, steps), usage=used)
            return Answer(200, answer, (*_JSON, *_usage(used)))
        answer, repeated = await self._room.transact_once(database, key, body, lambda tx: run_batch(tx, steps), usage=used)
        again = (("idempotency-replayed", "true"),) if repeated else ()
        return Answer(200, answer, (*_JSON, *again, *_usage(used)))

    # collections

    async def collections(self, request: Request) -> Answer:
        database, _, _, _ = await self._open(request, "documents:Define")
        return asgi.json_answer({"items": self._room.collections(database)})

    async def collection(self, request: Request) -> Answer:
        database, collection, _, _ = await self._open(request, "documents:List")
        found = self._room.collection(database, collection)
        if found is None:
            raise NotFound(f"there is no collection {collection!r} in {database!r}")
        return asgi.json_answer(found)

    async def define(self, request: Request) -> Answer:
        database, collection, _, body = await self._open(request, "documents:Define", limit="document_bytes")
        try:
            config = msgspec.json.decode(body or b"{}", type=CollectionConfig)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the settings are malformed: {error}", field="body") from error
        await self._room.define_collection(database, collection, config)
        return asgi.json_answer(self._room.collection(database, collection))

    async def remove(self, request: Request) -> Answer:
        database, collection, _, _ = await self._open(request, "documents:Define")
        await self._room.delete_collection(database, collection)
        return Answer(204)

    async def query(self, request: Request) -> Answer:
        principal, body = await self._identify(request, "document_bytes")
        database = app_of(self._rooms, principal, request.query(("app",)))
        collection = request.parameters["collection"]
        authorize = self._rooms.auth.authorize
        authorize(principal, "documents:List", f"{database}/{collection}")
        used = Usage()
        page = await self._room.query(
            database,
            parse_query(body, collection),
            usage=used,
            may_read=lambda target: authorize(principal, "documents:Get", f"{database}/{target}"),
        )
        return Answer(200, page_json(page), (*_JSON, *_usage(used)))

    # feed, import, export

    async def changes(self, request: Request) -> Answer:
        allowed = ("cursor", "limit", "start", "wait_seconds")
        database, collection, query, _ = await self._open(request, "documents:List", allowed)
        start = query.get("start", "now")
        if start not in ("now", "oldest"):
            raise InvalidInput("start is now or oldest", field="start")
        cursor = request.headers.get("last-event-id") or query.get("cursor", "")
        if "text/event-stream" in request.headers.get("accept", ""):
            first = await changes(self._room, database, collection, cursor=cursor, start=start, limit=1)  # type: ignore[arg-type]
            # What is wrong with the request is said before the stream begins; then it begins where that page did.
            begun = cursor or (first.cursor if start == "now" else "")
            events = _events(self._room, database, collection, begun, start)
            return Answer(200, events, (("content-type", "text/event-stream"), ("cache-control", "no-store")))
        page = await changes(
            self._room,
            database,
            collection,
            cursor=cursor,
            start=start,  # type: ignore[arg-type]
            limit=_whole(query, "limit", 100),
            wait_seconds=_seconds(query),
        )
        items = [{"seq": item.seq, "at_ms": item.at_ms, "change": msgspec.Raw(item.body)} for item in page.changes]
        return asgi.json_answer({"items": items, "cursor": page.cursor, "behind": page.behind})

    async def export(self, request: Request) -> Answer:
        database, collection, query, _ = await self._open(request, "documents:List", ("as_of",))
        as_of = _whole(query, "as_of", 0) or None
        if self._room.collection(database, collection) is None:
            raise NotFound(f"there is no collection {collection!r} in {database!r}")
        lines = export(self._room, database, collection, as_of=as_of)
        return Answer(200, lines, (("content-type", "application/x-ndjson"),))

    async def load(self, request: Request) -> Answer:
        allowed = ("mode", "dry_run", "id_field")
        database, collection, query, body = await self._open(request, "documents:Put", allowed, "request_body_bytes")
        mode, dry_run = query.get("mode", "upsert"), query.get("dry_run", "false")
        if mode not in ("upsert", "insert"):
            raise InvalidInput("mode is upsert or insert", field="mode")
        if dry_run not in ("true", "false"):
            raise InvalidInput("dry_run is true or false", field="dry_run")
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind == "text/csv":
            report = await import_csv(
                self._room,
                database,
                collection,
                _chunks(body),
                mode=mode,  # type: ignore[arg-type]
                dry_run=dry_run == "true",
                id_field=query.get("id_field", "id"),
            )
        else:
            report = await import_ndjson(
                self._room,
                database,
                collection,
                _chunks(body),
                mode=mode,  # type: ignore[arg-type]
                dry_run=dry_run == "true",
                id_field=query.get("id_field", ""),
            )
        return asgi.json_answer(report)

    # databases

    async def databases(self, request: Request) -> Answer:
        database, _, _, _ = await self._open(request, "documents:Define")
        return asgi.json_answer({"items": self._room.databases(database)})

    async def create_database(self, request: Request) -> Answer:
        principal, body = await self._identify(request, _LINE)
        request.query(())
        try:
            path = msgspec.json.decode(body, type=dict[str, str]).get("path", "")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidInput(f'the body is {{"path": "app/child"}}: {error}', field="body") from error
        self._rooms.auth.authorize(principal, "documents:Define", path)
        return asgi.json_answer(await self._room.create_database(path), 201)

    async def delete_database(self, request: Request) -> Answer:
        principal, _ = await self._identify(request, _LINE)
        request.query(())
        path = request.parameters["database"]
        self._rooms.auth.authorize(principal, "documents:Define", path)
        await self._room.delete_database(path)
        return Answer(204)


async def _events(room: CollectionsRoom, database: str, collection: str, cursor: str, start: str) -> AsyncIterator[bytes]:
    """Server-Sent Events (WHATWG HTML section 9.2): `id` is the cursor that goes on after the event."""
    yield b": open\n\n"
    async for change in follow(room, database, collection, cursor=cursor, start=start):  # type: ignore[arg-type]
        body = change.body.replace(b"\n", b" ").replace(b"\r", b" ")
        yield b"id: %s\nevent: change\ndata: %s\n\n" % (change.cursor.encode(), body)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 65_536):
        yield body[at : at + 65_536]


def _usage(used: Usage) -> tuple[tuple[str, str], ...]:
    """What the request used, as a header."""
    return (("martlet-usage", used.text()),)


def _whole(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise InvalidInput(f"{name} must be a whole number, got {text[:40]!r}", field=name)
    return int(text)


def _seconds(query: dict[str, str]) -> float:
    text = query.get("wait_seconds", "0")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text, re.ASCII):
        raise InvalidInput(f"wait_seconds must be a number, got {text[:40]!r}", field="wait_seconds")
    return float(text)
