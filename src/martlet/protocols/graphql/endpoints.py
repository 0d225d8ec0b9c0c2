"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/), and schemas.

    POST, GET /v1/graphql?app=NAME, or /v1/databases/{database}/graphql      a request; a sandbox's own app is its default
    GET, PUT, DELETE /v1/databases/{database}/graphql/schema

A request that cannot be executed is answered 4xx; but 200 to a client that asks for application/json by name, since clients
from before application/graphql-response+json expect that. `Accept: text/event-stream` asks for Server-Sent Events as
graphql-sse's distinct connections mode has them: the answers as `next`, then `complete`. A WebSocket with the subprotocol
graphql-transport-ws is taken at the same addresses (`sockets`). Whoever asks is authorized by the
collections that are touched, as the REST face does: documents:Get by id, :List for lists and indexes, :Put, :Delete, :Define
for schemas.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from martlet.auth.acts import Act
from martlet.clock import uuid4_text
from martlet.errors import AccessDenied, InvalidInput, MartletError, MethodNotAllowed, NotFound, Unauthenticated, Unsupported
from martlet.limits import LIMITS, exceeded
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.documents import app_of
from martlet.protocols.graphql.asked import asked_of, decoded
from martlet.protocols.graphql.model import STATE, state_of
from martlet.protocols.rooms import Rooms
from martlet.types import Principal

if TYPE_CHECKING:
    from martlet.protocols.graphql.reader import Permit
    from martlet.protocols.graphql.service import Ready, Service

__all__ = ["GraphqlEndpoints"]

Identify = Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]

_RESPONSE, _JSON, _EVENTS = "application/graphql-response+json", "application/json", "text/event-stream"
_ANY: Final = "*/*"  # and no Accept at all: application/json, which every tool reads, with the status that says what happened
_REQUEST: Final = "graphql_request_bytes"
_LINE: Final = "request_line_bytes"
_SOURCE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_QUIET_SECONDS: Final = 12.0  # then a comment shows that the stream lives


class GraphqlEndpoints:
    """The operations. GraphQL's library is loaded by the first request that needs it."""

    def __init__(self, rooms: Rooms, identify: Identify) -> None:
        self._rooms = rooms
        self._identify = identify
        self._service: Service | None = None

    def operations(self) -> tuple[Operation, ...]:
        inside, schema = "/v1/databases/{database}/graphql", "/v1/databases/{database}/graphql/schema"
        return (
            Operation("GET", "/v1/graphql", self.get),
            Operation("POST", "/v1/graphql", self.post),
            Operation("GET", inside, self.get),
            Operation("POST", inside, self.post),
            Operation("GET", schema, self.schema),
            Operation("PUT", schema, self.put_schema),
            Operation("DELETE", schema, self.delete_schema),
        )

    async def _open(self) -> Service:
        if self._rooms.collections is None:
            raise Unsupported("this platform runs without the document database")
        if self._service is None:
            from importlib import import_module

            module = await asyncio.to_thread(import_module, "martlet.protocols.graphql.service")
            if self._service is None:  # another request may have been quicker
                self._service = module.Service(self._rooms.collections, self._call)
        return self._service

    # requests

    async def get(self, request: Request) -> Answer:
        if request.is_socket:
            return await self._socket(request)
        principal, _ = await self._identify(request, _LINE)
        given = request.query(("app", "query", "operationName", "variables", "extensions"))
        body: dict[str, Any] = {name: given[name] for name in ("query", "operationName") if name in given}
        for name in ("variables", "extensions"):
            if name in given:
                body[name] = decoded(given[name].encode(), name)
        return await self._answer(request, principal, self._database(request, principal, given), body)

    async def post(self, request: Request) -> Answer:
        principal, raw = await self._identify(request, _REQUEST)
        kind, _, rest = request.headers.get("content-type", "").partition(";")
        charset = re.search(r"charset\s*=\s*\"?([A-Za-z0-9-]+)", rest)
        if kind.strip().lower() != _JSON or (charset is not None and charset[1].lower() != "utf-8"):
            return _refused(415, "the request's Content-Type must be application/json, in UTF-8", _accepted(request))
        database = self._database(request, principal, request.query(("app",)))
        return await self._answer(request, principal, database, decoded(raw, "body"))

    def _database(self, request: Request, principal: Principal, query: dict[str, str]) -> str:
        named = request.parameters.get("database")
        if named is None:
            return app_of(self._rooms, principal, query)
        if "app" in query:
            raise InvalidInput("the database is in the path: leave ?app= out", field="app")
        return named

    async def _answer(self, request: Request, principal: Principal, database: str, body: Any) -> Answer:
        accepted = _accepted(request)
        if not accepted:
            return _refused(406, f"there are answers as {_RESPONSE}, {_JSON} and {_EVENTS} only", accepted)
        service = await self._open()
        from martlet.protocols.graphql.faults import Refusal, shown

        try:
            asked = asked_of(body)
            ready = await service.ready(database, asked, request.headers.get("idempotency-key", ""))
            if request.method == "GET" and ready.kind == "mutation":
                raise MethodNotAllowed("a mutation is sent by POST", methods=("POST",))
            if accepted == _EVENTS:
                return await self._stream(service, ready, principal, database)
            if ready.kind == "subscription":
                raise InvalidInput(f"a subscription is answered as {_EVENTS} only: say so in Accept", field="Accept")
            answer = await service.run(ready, self._permit(principal, database))
        except Refusal as refusal:
            if accepted == _EVENTS:
                return Answer(200, _only([{"errors": refusal.errors}]), _event_headers())
            return _shown(200 if accepted == _JSON else refusal.status, {"errors": refusal.errors}, accepted)
        except MethodNotAllowed as error:
            return _shown(405, {"errors": [shown(error)]}, accepted, (("allow", "POST"),))
        except MartletError as error:
            if accepted == _EVENTS:
                raise
            return _shown(error.http_status, {"errors": [shown(error)]}, accepted)
        return _shown(200, answer, accepted)

    async def _stream(self, service: Service, ready: Ready, principal: Principal, database: str) -> Answer:
        permit = self._permit(principal, database)
        if ready.kind != "subscription":
            return Answer(200, _only([await service.run(ready, permit)]), _event_headers())
        from martlet.protocols.graphql.subscribing import subscribe

        answers = await subscribe(service, ready, permit)  # what is wrong with it is said before the stream begins
        return Answer(200, _events(answers), _event_headers())

    # sockets

    async def _socket(self, request: Request) -> Answer:
        """A WebSocket. Credentials come with the handshake, or in what the client says first."""
        query = request.query(("app",))
        signed = "authorization" in request.headers or b"x-amz-signature" in request.raw_query.lower()
        known: Principal | None = None
        if request.context is not None or signed:
            known, _ = await self._identify(request, _LINE)
            self._database(request, known, query)  # what is wrong with it is said as an answer to the handshake
        service = await self._open()
        from martlet.protocols.graphql.sockets import Session

        async def enter(authorization: str) -> tuple[str, Permit]:
            principal = known
            if principal is None:
                if not authorization.lower().startswith("bearer "):
                    raise Unauthenticated("connection_init's payload has no `authorization` of the form `Bearer TOKEN`")
                request.add_header("authorization", authorization)
                principal, _ = await self._identify(request, _LINE)
            database = self._database(request, principal, query)
            return database, self._permit(principal, database)

        async def note(acts: list[Act], status: int, error: MartletError | None) -> None:
            if self._rooms.audit is not None:
                told = copy.copy(request)
                told.id, told.error = uuid4_text(), error
                await self._rooms.audit(told, acts, status)

        return Answer(talk=lambda socket: Session(service, socket, enter, note).run())

    def _permit(self, principal: Principal, database: str) -> Callable[[str, str], None]:
        authorize = self._rooms.auth.authorize

        def permit(action: str, name: str) -> None:
            if action == "lambda:InvokeFunction":
                authorize(principal, action, self._function(database, name))
            else:
                authorize(principal, action, f"{database}/{name}")

        return permit

    # functions

    def _function(self, database: str, name: str) -> str:
        """The function that a schema means: one of the app's own, else any by its whole name."""
        own = f"{database.partition('/')[0]}-{name}"
        return own if self._rooms.functions.find(own) is not None else name

    async def _call(self, database: str, function: str, event: bytes) -> bytes:
        """Raises `MartletError`: it never ran; `GraphQLError`: it failed."""
        from graphql import GraphQLError

        name = self._function(database, function)
        if len(event) > LIMITS["payload_bytes"].default:
            raise exceeded("payload_bytes", len(event), f"the event of {name}")
        if self._rooms.functions.find(name) is None:
            raise NotFound(f"there is no function {function!r}", function=function)
        _, outcome = await self._rooms.functions.invoke(name, event, source="graphql")
        if outcome.refusal is not None:
            raise outcome.refusal
        if outcome.error:
            try:
                told = msgspec.json.decode(outcome.payload, type=dict[str, Any]).get("errorMessage", "")
            except msgspec.MsgspecError:
                told = ""
            raise GraphQLError(
                f"the function {name} failed: {told or outcome.error_type}",
                extensions={"code": "function_failed", "function": name, "error_type": outcome.error_type},
            )
        return outcome.payload

    # schemas

    async def schema(self, request: Request) -> Answer:
        database = await self._definer(request, ("form",))
        service = await self._open()
        engine = await service.engine(database)
        form = request.query(("form",)).get("form", "sources")
        if form == "api":
            return Answer(200, engine.sdl.encode(), (("content-type", "application/graphql; charset=utf-8"),))
        if form != "sources":
            raise InvalidInput("form is sources or api", field="form")
        return asgi.json_answer(engine.state)

    async def put_schema(self, request: Request) -> Answer:
        allowed = ("source", "replace", "dry_run", "introspection")
        database, body = await self._defining(request, allowed)
        query = request.query(allowed)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"the schema is not UTF-8: {error}", field="body") from None
        introspection = asgi.flag(query, "introspection") if "introspection" in query else None
        return await self._import(
            database,
            query,
            text,
            replace=asgi.flag(query, "replace"),
            dry_run=asgi.flag(query, "dry_run"),
            introspection=introspection,
        )

    async def delete_schema(self, request: Request) -> Answer:
        allowed = ("source", "dry_run")
        database, _ = await self._defining(request, allowed)
        query = request.query(allowed)
        return await self._import(database, query, None, replace=True, dry_run=asgi.flag(query, "dry_run"))

    async def _import(self, database: str, query: dict[str, str], text: str | None, **options: Any) -> Answer:
        source = query.get("source", "api")
        if not _SOURCE.fullmatch(source):
            raise InvalidInput("source is 1 to 64 of A-Z, a-z, 0-9, _, . and -", field="source")
        documents = (await self._open()).documents
        from martlet.protocols.graphql import importing

        if text is not None:  # in a thread, since it may be long; the transaction finds it done
            raw = documents.read(database, lambda view: view.reader.get(STATE + database.encode()))
            await asyncio.to_thread(importing.check_model, {**state_of(raw).sources, source: text})
        with documents.redefining():
            done = await documents.store.transact(
                lambda tx: importing.put_schema(tx, documents, database, source, text, **options)
            )
        return asgi.json_answer(done)

    async def _definer(self, request: Request, allowed: tuple[str, ...]) -> str:
        return (await self._defining(request, allowed))[0]

    async def _defining(self, request: Request, allowed: tuple[str, ...]) -> tuple[str, bytes]:
        principal, body = await self._identify(request, "graphql_schema_bytes")
        request.query(allowed)
        database = request.parameters["database"]
        self._rooms.auth.authorize(principal, "documents:Define", database)
        return database, body


# --- the wire


def _accepted(request: Request) -> str:
    """The type of the answer: the one that Accept prefers; "" if we have none of them."""
    header = request.headers.get("accept", "")
    if not header:
        return _ANY
    best, most = "", 0.0
    for part in header.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        weight = float(quality) if re.fullmatch(r"[01](\.[0-9]{0,3})?", quality, re.ASCII) else 0.0
        name = _ANY if name == "application/*" else name
        if name in (_RESPONSE, _JSON, _EVENTS, _ANY) and weight > most:
            best, most = name, weight
    return best


def _shown(status: int, body: dict[str, Any], accepted: str, headers: asgi.Headers = ()) -> Answer:
    kind = _RESPONSE if accepted == _RESPONSE else _JSON
    return Answer(status, msgspec.json.encode(body), (("content-type", f"{kind}; charset=utf-8"), *headers))


def _refused(status: int, message: str, accepted: str) -> Answer:
    return _shown(status, {"errors": [{"message": message}]}, accepted)


def _event_headers() -> asgi.Headers:
    return (("content-type", _EVENTS), ("cache-control", "no-store"))


async def _only(answers: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    for answer in answers:
        yield b"event: next\ndata: " + msgspec.json.encode(answer) + b"\n\n"
    yield b"event: complete\ndata: \n\n"


async def _events(answers: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The answers as they come; a comment when there was none for a while."""
    yield b":\n\n"
    waiting: asyncio.Task[dict[str, Any]] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(answers))
            done, _ = await asyncio.wait((waiting,), timeout=_QUIET_SECONDS)
            if not done:
                yield b":\n\n"
                continue
            try:
                answer = waiting.result()
            except StopAsyncIteration:
                break
            waiting = None
            yield b"event: next\ndata: " + msgspec.json.encode(answer) + b"\n\n"
        yield b"event: complete\ndata: \n\n"
    finally:
        if waiting is not None:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, MartletError, AccessDenied):
                await waiting
        await answers.aclose()  # type: ignore[attr-defined]
