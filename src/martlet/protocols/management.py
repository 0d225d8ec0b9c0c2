"""The management API: apps, functions, logs, usage, documents. JSON in and out, described by /v1/openapi.json.

Long work answers as NDJSON: one JSON object a line, the last of type "result" or "error". Errors before the first line are
plain problem+json (RFC 9457). A principal in `scope["martlet.context"]` (a sandbox's own endpoint) stands for credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from martlet.apps import AppRecord, Deployment
from martlet.errors import AccessDenied, InvalidInput, MartletError, NotFound
from martlet.protocols import asgi, openapi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.collections import CollectionEndpoints
from martlet.protocols.documents import DocumentEndpoints
from martlet.protocols.rooms import LogRecord, Rooms
from martlet.types import FunctionVersion, Principal, Route

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

    return asgi.app(respond, lambda error, request: asgi.problem_answer(error, request.id))


class _Management:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._description = b""

    def router(self) -> asgi.Router:
        documents = DocumentEndpoints(self._rooms, self.identify)
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
                Operation("GET", "/v1/functions", self.functions),
                Operation("GET", "/v1/functions/{name}", self.function),
                Operation("POST", "/v1/functions/{name}/invocations", self.invoke),
                Operation("GET", "/v1/logs", self.logs),
                Operation("GET", "/v1/usage", self.usage),
                *documents.operations(),
                *CollectionEndpoints(self._rooms, self.identify).operations(),
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
        return self._rooms.auth.authenticate(request.method, request.raw_path, request.raw_query, request.raw_headers, body)

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
        since = _whole(query, "since_ms", 0)
        until = _whole(query, "until_ms", now)
        if since > until:
            raise InvalidInput(f"since_ms {since} is after until_ms {until}", field="since_ms")
        return asgi.json_answer({"since_ms": since, "until_ms": until, "functions": list(self._rooms.usage(since, until))})

    # --- apps

    async def apps(self, request: Request) -> Answer:
        await self._allowed(request, "apps:List")
        return asgi.json_answer({"apps": [_app_object(record) for record in self._rooms.apps.list()]})

    async def app(self, request: Request) -> Answer:
        name = request.parameters["name"]
        await self._allowed(request, "apps:Get", name)
        return asgi.json_answer(_app_object(self._rooms.apps.get(name)))

    async def destroy(self, request: Request) -> Answer:
        name = request.parameters["name"]
        await self._allowed(request, "apps:Delete", name)
        await self._rooms.apps.destroy(name)
        return Answer(204)

    async def deploy(self, request: Request) -> Answer:
        name = request.parameters["name"]
        principal, body = await self.identify(request, "code_bytes")
        self._rooms.auth.authorize(principal, "apps:Deploy", name)
        query = request.query(("dry_run", "path"))
        dry_run = _flag(query, "dry_run")
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

    # --- functions

    async def functions(self, request: Request) -> Answer:
        await self._allowed(request, "lambda:ListFunctions")
        app_name = request.query(("app",)).get("app")
        found = [version for version in self._rooms.functions.list() if app_name in (None, version.app)]
        found.sort(key=lambda version: version.name)
        return asgi.json_answer({"functions": [_function_object(version) for version in found]})

    async def function(self, request: Request) -> Answer:
        name = self._full_name(request.parameters["name"])
        await self._allowed(request, "lambda:GetFunction", name)
        version = self._rooms.functions.get(name)
        if version is None:
            raise NotFound(f"there is no function {name!r}", remedy="see `martlet functions`")
        return asgi.json_answer(_function_object(version))

    def _full_name(self, name: str) -> str:
        """`name`, or the one function whose short name it is: "place" for "shop-place" where no other app has a "place"."""
        if self._rooms.functions.get(name) is not None:
            return name
        found = [version.name for version in self._rooms.functions.list() if version.config.name == name]
        return found[0] if len(found) == 1 else name

    async def invoke(self, request: Request) -> Answer:
        name = self._full_name(request.parameters["name"])
        principal, payload = await self.identify(request, "payload_bytes")
        self._rooms.auth.authorize(principal, "lambda:InvokeFunction", name)
        want_log = _flag(request.query(("log",)), "log")
        _check_json(payload)
        invocation, outcome = await self._rooms.functions.invoke(name, payload or b"{}", source="api", want_log_tail=want_log)
        if outcome.refusal is not None:
            raise outcome.refusal
        body: dict[str, Any] = {
            "request_id": invocation.request_id,
            "function": name,
            "version": invocation.version,
            "error": outcome.error,
            "error_type": outcome.error_type,
            "cold": invocation.cold,
            "queue_us": invocation.queue_us,
            "init_us": invocation.init_us,
            "duration_us": invocation.duration_us,
            "cpu_us": invocation.cpu_us,
            "peak_mb": invocation.peak_mb,
            "payload": _json_of(outcome.payload),
        }
        if want_log:
            body["log"] = invocation.log_tail.decode("utf-8", "replace")
        return asgi.json_answer(body)

    # --- logs

    async def logs(self, request: Request) -> Answer:
        query = request.query(("function", "since_ms", "limit", "follow"))
        function = self._full_name(query["function"]) if "function" in query else None
        await self._allowed(request, "logs:Read", function or "*")
        if function is not None and self._rooms.functions.get(function) is None:
            raise NotFound(f"there is no function {function!r}", remedy="see `martlet functions`")
        since = _whole(query, "since_ms", 0) if "since_ms" in query else None
        limit = _whole(query, "limit", _LOG_LINES_DEFAULT, low=1, high=_LOG_LINES_MOST)
        if _flag(query, "follow"):
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
    work: Callable[[], Awaitable[dict[str, Any]]], events: asyncio.Queue[dict[str, Any]], request: Request
) -> Answer:
    """Run `work`; its events and its end become NDJSON. An error before the first event is raised: it gets its own status."""
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

    async def lines() -> AsyncIterator[bytes]:
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

    return Answer(200, lines(), _NDJSON)


def _line(event: dict[str, Any]) -> bytes:
    return msgspec.json.encode(event) + b"\n"


# --- reading parameters


def _whole(query: dict[str, str], name: str, default: int, *, low: int = 0, high: int = 1 << 53) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or not low <= int(text) <= high:
        raise InvalidInput(f"{name} must be a whole number from {low} to {high}, got {text[:40]!r}", field=name)
    return int(text)


def _flag(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidInput(f"{name} must be true or false, got {text[:40]!r}", field=name)
    return text == "true"


def _local_path(text: str, principal: Principal, body: bytes) -> Path:
    """A folder of the platform's own machine: only its owner may name one."""
    if principal.kind != "root":
        raise AccessDenied(f"{principal.kind} {principal.name} may not deploy a local path", principal=principal.name)
    if body:
        raise InvalidInput("give a path or a body, not both", field="path")
    if not text.startswith("/") or "\0" in text:
        raise InvalidInput(f"path must be absolute, got {text[:200]!r}", field="path")
    return Path(text)


def _check_json(payload: bytes) -> None:
    fault = asgi.json_fault(payload)
    if fault:
        raise InvalidInput(f"the payload is not JSON: {fault}", field="body")


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


def _function_object(version: FunctionVersion) -> dict[str, Any]:
    """A function without the values of its environment, which may be secrets: only their names."""
    config: dict[str, Any] = msgspec.to_builtins(version.config)
    config["environment"] = sorted(version.config.environment)
    return {
        "name": version.name,
        "app": version.app,
        "arn": version.arn,
        "version": version.version,
        "code": version.code,
        "layer": version.layer,
        "created_at_ms": version.created_at_ms,
        "config": config,
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


def _json_of(payload: bytes) -> Any:
    """A function's answer within ours. Code in a sandbox wrote it: unless it is JSON, and nothing but one value, it is text."""
    try:
        msgspec.json.decode(payload or b"null")
    except (msgspec.DecodeError, RecursionError):
        return payload.decode("utf-8", "replace")
    return msgspec.Raw(payload or b"null")
