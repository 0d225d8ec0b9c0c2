"""The management API: apps, functions, logs, usage, documents. JSON in and out, described by /v1/openapi.json.

Long work answers as NDJSON: one JSON object a line, the last of type "result" or "error". Errors before the first line are
plain problem+json (RFC 9457). A principal in `scope["martlet.context"]` (a sandbox's own endpoint) stands for credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from martlet.apps import AppRecord, Deployment
from martlet.auth import seen_from
from martlet.errors import AccessDenied, Conflict, InvalidInput, MartletError, Unsupported
from martlet.metering.bill import BOOKS
from martlet.protocols import asgi, openapi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.auditing import AuditEndpoints
from martlet.protocols.budgets import BudgetEndpoints
from martlet.protocols.cloudevents import CloudEventEndpoints
from martlet.protocols.collections import CollectionEndpoints
from martlet.protocols.documents import DocumentEndpoints
from martlet.protocols.functions import FunctionEndpoints
from martlet.protocols.graphql.endpoints import GraphqlEndpoints
from martlet.protocols.rooms import LogRecord, Rooms
from martlet.protocols.stacks import StackEndpoints, stack_object
from martlet.protocols.users import UsersEndpoints
from martlet.types import Principal, Route

__all__ = ["app"]

_HEARTBEAT_SECONDS: Final = 10.0
_LOG_LINES_DEFAULT: Final = 1_000
_LOG_LINES_MOST: Final = 10_000
_NDJSON: Final = (("content-type", "application/x-ndjson"), ("cache-control", "no-store"))


def app(rooms: Rooms) -> asgi.ASGIApp:
    """The endpoint. Expects a bearer token or SigV4, or `scope["martlet.context"]`."""
    router = _Management(rooms).router()

    async def respond(request: Request) -> Answer:
        return await router.find(request)(request)

    return asgi.app(respond, lambda error, request: asgi.problem_answer(error, request.id), rooms.audit)


class _Management:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._functions = FunctionEndpoints(rooms, self.identify, _narrated)
        self._description = b""

    def router(self) -> asgi.Router:
        documents = DocumentEndpoints(self._rooms, self.identify)
        stacks = StackEndpoints(self._rooms, self.identify, _narrated)
        router = asgi.Router(
            (
                Operation("GET", "/v1/health", self.health),
                Operation("GET", "/v1/openapi.json", self.describe),
                Operation("GET", "/metrics", self.metrics),
                Operation("GET", "/v1/status", self.status),
                Operation("GET", "/v1/apps", self.apps),
                Operation("GET", "/v1/apps/{name}", self.app),
                Operation("DELETE", "/v1/apps/{name}", self.destroy),
                Operation("POST", "/v1/apps/{name}/deployments", self.deploy),
                Operation("GET", "/v1/logs", self.logs),
                Operation("GET", "/v1/usage", self.usage),
                Operation("GET", "/v1/bill", self.bill),
                Operation("GET", "/v1/dead-letters", self.dead_letters),
                *self._functions.operations(),
                *documents.operations(),
                *CollectionEndpoints(self._rooms, self.identify).operations(),
                *GraphqlEndpoints(self._rooms, self.identify).operations(),
                *stacks.operations(),
                *CloudEventEndpoints(self._rooms, self.identify).operations(),
                *AuditEndpoints(self._rooms, self._allowed).operations(),
                *UsersEndpoints(self._rooms, self.identify).operations(),
                *BudgetEndpoints(self._rooms, self.identify).operations(),
            )
        )
        self._description = openapi.document(self._rooms.version, router.operations)
        return router

    async def identify(self, request: Request, limit: str = "request_line_bytes") -> tuple[Principal, bytes]:
        """Who asks, and the body. Credentials are checked before it is read, save for SigV4, whose signature covers it."""
        if request.context is not None:
            return request.context, await request.body(limit)
        signed = "x-amz-signature" in request.raw_query.decode("latin-1").lower()
        signed = signed or request.headers.get("authorization", "").startswith("AWS4-")
        if not signed:
            principal = self._authenticate(request, b"")
            return principal, await request.body(limit)
        body = await request.body("request_body_bytes" if limit == "code_bytes" else limit)
        return self._authenticate(request, body), body

    def _authenticate(self, request: Request, body: bytes) -> Principal:
        found = request.sender = self._rooms.auth.authenticate(
            request.method, request.raw_path, request.raw_query, request.raw_headers, body
        )
        return seen_from(found, request.client_ip, user_agent=request.headers.get("user-agent", ""))

    async def _allowed(self, request: Request, action: str, resource: str = "*") -> Principal:
        principal, _ = await self.identify(request)
        self._rooms.auth.authorize(principal, action, resource)
        return principal

    # --- the platform

    async def health(self, request: Request) -> Answer:
        request.query(())
        return asgi.json_answer({"status": "ok"})

    async def describe(self, request: Request) -> Answer:
        return Answer(200, self._description, (("content-type", "application/json"),))

    async def metrics(self, request: Request) -> Answer:
        await self._allowed(request, "metrics:Read")
        return Answer(200, self._rooms.metrics().encode(), (("content-type", "text/plain; version=0.0.4; charset=utf-8"),))

    async def status(self, request: Request) -> Answer:
        await self._allowed(request, "status:Read")
        return asgi.json_answer({"version": self._rooms.version, **self._rooms.status()})

    async def usage(self, request: Request) -> Answer:
        await self._allowed(request, "usage:Read")
        query = request.query(("since_ms", "until_ms"))
        now = self._rooms.now_ms()
        since = asgi.whole(query, "since_ms", 0)
        until = asgi.whole(query, "until_ms", now)
        if since > until:
            raise InvalidInput(f"since_ms {since} is after until_ms {until}", field="since_ms")
        documents = list(self._rooms.document_usage(since, until))
        functions = list(self._rooms.usage(since, until))
        requests = list(self._rooms.request_usage(since, until))
        used = {"functions": functions, "documents": documents, "requests": requests}
        return asgi.json_answer({"since_ms": since, "until_ms": until, **used})

    async def bill(self, request: Request) -> Answer:
        await self._allowed(request, "usage:Read")
        query = request.query(("month", "prices"))
        if self._rooms.bill is None:
            raise Unsupported("this platform makes no bills")
        if query.get("prices", "") not in ("", *BOOKS):
            raise InvalidInput(f"prices is one of {', '.join(BOOKS)}", field="prices", remedy="a file is for MARTLET_PRICES")
        return asgi.json_answer(msgspec.to_builtins(self._rooms.bill(query.get("month", ""), query.get("prices", ""))))

    async def dead_letters(self, request: Request) -> Answer:
        await self._allowed(request, "triggers:Read")
        query = request.query(("app", "limit"))
        limit = asgi.whole(query, "limit", 100, low=1, high=1_000)
        return asgi.json_answer({"items": list(self._rooms.dead_letters(query.get("app"), limit))})

    # --- apps

    async def apps(self, request: Request) -> Answer:
        await self._allowed(request, "apps:List")
        found = [_app_object(record) for record in self._rooms.apps.list()]
        if self._rooms.stacks is not None:
            found += [stack_object(self._rooms.stacks, record) for record in self._rooms.stacks.list()]
            found.sort(key=lambda app: str(app["name"]))
        return asgi.json_answer({"apps": found})

    async def app(self, request: Request) -> Answer:
        name = request.parameters["name"]
        await self._allowed(request, "apps:Get", name)
        stack = self._rooms.stacks.find(name) if self._rooms.stacks is not None else None
        if self._rooms.stacks is not None and stack is not None:
            return asgi.json_answer(stack_object(self._rooms.stacks, stack))
        return asgi.json_answer(_app_object(self._rooms.apps.get(name)))

    async def destroy(self, request: Request) -> Answer:
        name = request.parameters["name"]
        await self._allowed(request, "apps:Delete", name)
        if self._rooms.stacks is not None and self._rooms.stacks.find(name) is not None:
            await self._rooms.stacks.destroy(name)
        else:
            await self._rooms.apps.destroy(name)
        return Answer(204)

    async def deploy(self, request: Request) -> Answer:
        name = request.parameters["name"]
        principal, body = await self.identify(request, "code_bytes")
        self._rooms.auth.authorize(principal, "apps:Deploy", name)
        if self._rooms.stacks is not None and self._rooms.stacks.find(name) is not None:
            raise Conflict(f"{name} is a stack, made from a template", remedy="choose another name: --app NAME")
        query = request.query(("dry_run", "path"))
        dry_run = asgi.flag(query, "dry_run")
        source: Path | bytes = body
        if "path" in query:
            source = _local_path(query["path"], principal, body)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def work() -> dict[str, Any]:
            done = await self._rooms.apps.deploy(
                source, name, dry_run=dry_run, progress=lambda text: events.put_nowait({"type": "progress", "text": text})
            )
            return {"type": "result", "deployment": _deployment_object(done)}

        return await _narrated(work, events, request)

    # --- logs

    async def logs(self, request: Request) -> Answer:
        query = request.query(("function", "since_ms", "limit", "follow"))
        function = self._functions.full_name(query["function"]) if "function" in query else None
        await self._allowed(request, "logs:Read", function or "*")
        if function is not None:
            self._functions.check(function, "logs")
        since = asgi.whole(query, "since_ms", 0) if "since_ms" in query else None
        limit = asgi.whole(query, "limit", _LOG_LINES_DEFAULT, low=1, high=_LOG_LINES_MOST)
        if asgi.flag(query, "follow"):
            return Answer(200, self._follow(function, since, limit), _NDJSON)
        records = await self._rooms.logs.read(function, since, limit)
        lines = [msgspec.json.encode(_log_object(record)) + b"\n" for record in records]
        return Answer(200, b"".join(lines), _NDJSON)

    async def _follow(self, function: str | None, since_ms: int | None, limit: int) -> AsyncIterator[bytes]:
        records = self._rooms.logs.follow(function, since_ms, limit)
        following: asyncio.Future[LogRecord] = asyncio.ensure_future(anext(records))
        try:
            while True:
                done, _ = await asyncio.wait((following,), timeout=_HEARTBEAT_SECONDS)
                if not done:
                    yield b'{"type":"heartbeat"}\n'
                    continue
                try:
                    record = following.result()
                except StopAsyncIteration:
                    return
                yield msgspec.json.encode(_log_object(record)) + b"\n"
                following = asyncio.ensure_future(anext(records))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            close = getattr(records, "aclose", None)
            if close is not None:
                await close()


# --- long work, told line by line


async def _narrated(
    work: Callable[[], Awaitable[dict[str, Any]]],
    events: asyncio.Queue[dict[str, Any]],
    request: Request,
    *,
    lasting: bool = True,
) -> Answer:
    """Run `work`; its events and its end become NDJSON. An error before the first event is raised: it gets its own status.

    When the client hangs up, what is `lasting` goes on to its end, other work is cancelled."""
    task = asyncio.ensure_future(work())
    first = asyncio.ensure_future(events.get())
    try:
        await asyncio.wait((task, first), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not first.done():
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
    opening = [] if first.cancelled() else [first.result()]
    if task.done() and not opening and task.exception() is not None:
        await task  # raises

    async def lines() -> AsyncGenerator[bytes]:
        for event in opening:
            yield _line(event)
        while not (task.done() and events.empty()):
            getting = asyncio.ensure_future(events.get())
            done, _ = await asyncio.wait((task, getting), timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if getting in done:
                yield _line(getting.result())
                continue
            getting.cancel()
            if not done:
                yield _line({"type": "heartbeat"})
        try:
            yield _line(await task)
        except MartletError as error:
            answer = asgi.problem_answer(error, request.id)
            yield b'{"type":"error","error":' + (answer.body if isinstance(answer.body, bytes) else b"{}") + b"}\n"

    async def ended_with_its_reader() -> AsyncIterator[bytes]:
        try:
            async for line in told:
                yield line
        finally:
            task.cancel()
            await told.aclose()
            await asyncio.gather(task, return_exceptions=True)

    told = lines()
    return Answer(200, told if lasting else ended_with_its_reader(), _NDJSON)


def _line(event: dict[str, Any]) -> bytes:
    return msgspec.json.encode(event) + b"\n"


# --- reading parameters


def _local_path(text: str, principal: Principal, body: bytes) -> Path:
    """A folder of the platform's own machine: only its owner may name one."""
    if principal.kind != "root":
        raise AccessDenied(f"{principal.kind} {principal.name} may not deploy a local path", principal=principal.name)
    if body:
        raise InvalidInput("give a path or a body, not both", field="path")
    if not text.startswith("/") or "\0" in text:
        raise InvalidInput(f"path must be absolute, got {text[:200]!r}", field="path")
    return Path(text)


# --- objects of the API


def _route_object(route: Route) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(route)
    return body


def _app_object(record: AppRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "revision": record.revision,
        "code": record.code,
        "layer": record.layer,
        "module": record.module,
        "functions": [version.name for version in record.versions],
        "routes": [_route_object(route) for route in record.graph.routes],
        "schedules": [msgspec.to_builtins(schedule) for schedule in record.graph.schedules],
        "created_at_ms": record.created_at_ms,
        "updated_at_ms": record.updated_at_ms,
    }


def _deployment_object(done: Deployment) -> dict[str, Any]:
    return {
        "app": done.app,
        "revision": done.revision,
        "dry_run": done.dry_run,
        "functions": list(done.functions),
        "routes": [_route_object(route) for route in done.routes],
        "steps": [step.text() for step in done.steps],
        "duration_ms": done.duration_ms,
    }


def _log_object(record: LogRecord) -> dict[str, Any]:
    return {
        "type": "log",
        "function": record.function,
        "version": record.version,
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "source": record.source,
        "started_at_ms": record.started_at_ms,
        "duration_us": record.duration_us,
        "status": record.status,
        "error_type": record.error_type,
        "lines": record.render(),
    }
