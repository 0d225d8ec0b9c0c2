"""Rooms that keep everything in memory, and an HTTP server that puts an ASGI application on a real socket for real clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from martlet.apps import AppRecord, Deployment
from martlet.apps.plan import PublishFunction
from martlet.documents import Usage
from martlet.errors import AccessDenied, Conflict, DeployFailed, MartletError, NotFound, Unauthenticated
from martlet.protocols import Rooms
from martlet.types import AppGraph, FunctionConfig, FunctionVersion, Invocation, Outcome, Principal, Route

ROOT = Principal("root", "root")
TOKEN = "t" * 40
BEARER = {"authorization": f"Bearer {TOKEN}"}
CALLER = Principal(
    "function", "shop-caller", frozenset({("lambda:InvokeFunction", "shop-echo"), ("documents:Get", "shop/carts")})
)


USED = {  # a row of the ledger
    "function": "shop-echo", "version": 1, "hour_ms": 0, "invocations": 7, "errors": 2, "throttled": 1, "cold_starts": 3,
    "queue_ms": 4, "init_ms": 5, "duration_ms": 600, "cpu_ms": 70, "gb_ms": 1500.0, "peak_memory_mb": 64, "bytes_in": 8,
    "bytes_out": 9, "egress_bytes_out": 10, "egress_bytes_in": 11,
}  # fmt: skip


class FakeAuth:
    """Takes one token, and any SigV4 signature by key AKID; grants are exact."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def authenticate(self, method: str, path: bytes, query: bytes, headers: Any, body: bytes) -> Principal:
        self.bodies.append(body)
        sent = {name.lower(): value for name, value in headers}.get(b"authorization", b"").decode()
        if sent == f"Bearer {TOKEN}" or "Credential=AKID/" in sent:
            return ROOT
        if not sent:
            raise Unauthenticated("the request carries no credentials", reason="MissingAuthenticationToken")
        raise Unauthenticated("the bearer token is not known", reason="InvalidClientTokenId")

    def authorize(self, principal: Principal, action: str, resource: str) -> None:
        if principal.kind != "root" and (action, resource) not in principal.grants:
            raise AccessDenied(f"{principal.kind} {principal.name} may not {action} on {resource}")


def version(name: str, app: str = "shop", number: int = 3, **config: Any) -> FunctionVersion:
    short = name.removeprefix(f"{app}-")
    settings = FunctionConfig(name=short, handler="app:f", **config)
    return FunctionVersion(name=name, app=app, version=number, config=settings, code="ab" * 32, created_at_ms=1_700_000_000_123)


class FakeFunctions:
    """`shop-echo` answers its event, `shop-fail` fails, `shop-busy` is refused by whatever `refusal` is."""

    def __init__(self) -> None:
        secret = {"SECRET": "hunter2"}
        self.versions = {
            v.name: v
            for v in (
                version("shop-echo", environment=secret),
                version("shop-fail"),
                version("shop-busy"),
                version("shop-caller"),
            )
        }
        self.refusal: MartletError = NotFound("gone")
        self.calls: list[dict[str, Any]] = []
        self.attached = asyncio.Event()
        self.debugging_ended = False

    def get(self, name: str) -> FunctionVersion | None:
        return self.versions.get(name)

    def list(self) -> list[FunctionVersion]:
        return list(self.versions.values())

    def find(self, function: str) -> FunctionVersion | None:
        return self.versions.get(function.removesuffix(":live"))

    def all(self) -> list[FunctionVersion]:
        """Those of the app, and one of a template with a published version."""
        made = version("stack-node", "stack", runtime="nodejs22.x")
        return [*self.versions.values(), made, msgspec.structs.replace(made, qualifier="1")]

    async def invoke(self, name: str, payload: bytes, **more: Any) -> tuple[Invocation, Outcome]:
        self.calls.append({"name": name, "payload": payload, **more})
        invocation = Invocation(name, payload, "11111111-2222-4333-8444-555555555555", lambda i, o: None)
        invocation.version, invocation.duration_us = 3, 1500
        if more.get("want_log_tail"):
            invocation.log_tail = b"START\nhello\x1b[31m\nEND\n"
        if name == "shop-fail":
            body = b'{"errorMessage":"no","errorType":"ValueError","requestId":"1","stackTrace":[]}'
            return invocation, Outcome(body, "Unhandled", "ValueError")
        if name == "shop-busy":
            return invocation, Outcome(refusal=self.refusal)
        return invocation, Outcome(payload)

    async def debug(
        self, function: str, payload: bytes, *, port: int = 0, say: Callable[[str], None]
    ) -> tuple[Invocation, Outcome]:
        if self.find(function) is None:
            raise NotFound(f"no function {function}")
        say(f"{function} waits for a debugger on 127.0.0.1:{port}")
        try:
            await self.attached.wait()
        finally:
            self.debugging_ended = True
        return await self.invoke(function, payload)


@dataclass(frozen=True)
class Failed:
    id: str
    function: str = "shop-fail"
    qualifier: str = ""
    payload: bytes = b'{"n":1}'
    at_ms: int = 1_700_000_000_000
    source: str = "http"
    error_type: str = "ValueError"


class FakeFailures:
    """One failed event of `shop-fail`, and one of version 1 of `shop-echo`."""

    def __init__(self, functions: FakeFunctions) -> None:
        self.functions = functions
        self.kept = {"r1": Failed("r1"), "r2": Failed("r2", "shop-echo", "1")}

    async def failed_events(self, function: str = "", limit: int = 100) -> list[Failed]:
        return [event for event in self.kept.values() if function in ("", event.function)]

    async def recorded(self, request_id: str) -> Failed:
        if request_id not in self.kept:
            raise NotFound(f"there is no failed event {request_id}")
        return self.kept[request_id]

    async def replay(self, request_id: str) -> tuple[Failed, Invocation, Outcome]:
        event = await self.recorded(request_id)
        return event, *await self.functions.invoke(event.function, event.payload, want_log_tail=True)


class FakeApps:
    """Deployments end as `outcome` says, after the lines in `says`."""

    def __init__(self) -> None:
        self.records: dict[str, AppRecord] = {}
        self.sources: list[Any] = []
        self.says: list[str] = ["packed 2 files", "published"]
        self.error: MartletError | None = None
        self.gate: asyncio.Event | None = None
        self.record("shop")

    def record(self, name: str) -> None:
        found = version(f"{name}-echo", name)
        self.records[name] = AppRecord(
            name=name,
            revision=2,
            code="ab" * 32,
            layer="",
            module="app",
            graph=AppGraph(functions=(found.config,), routes=(Route(method="GET", path="/", function="echo"),)),
            versions=(found,),
            created_at_ms=1,
            updated_at_ms=1_700_000_000_000,
        )

    async def deploy(
        self,
        source: Path | bytes,
        name: str | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Deployment:
        assert name is not None
        assert progress is not None
        self.sources.append(source)
        for text in self.says:
            progress(text)
            await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if not dry_run:
            self.record(name)
        config = FunctionConfig(name="echo", handler="app:f")
        return Deployment(
            app=name,
            revision=1,
            routes=(),
            functions=(f"{name}-echo",),
            steps=(PublishFunction(f"{name}-echo", config, "new"),),
            duration_ms=12,
            dry_run=dry_run,
        )

    async def destroy(self, name: str) -> None:
        self.get(name)
        del self.records[name]

    def list(self) -> list[AppRecord]:
        return list(self.records.values())

    def get(self, name: str) -> AppRecord:
        if name not in self.records:
            raise NotFound(f"there is no app {name!r}")
        return self.records[name]


@dataclass(frozen=True)
class Stored:
    id: str
    value_bytes: bytes
    version: int


class FakeDocuments:
    """Checks the principal, as its contract says."""

    def __init__(self, auth: FakeAuth) -> None:
        self.auth = auth
        self.rows: dict[tuple[str, str, str], Stored] = {}

    def get(self, principal: Principal, app: str, collection: str, id: str, *, usage: Usage) -> Stored | None:
        self.auth.authorize(principal, "documents:Get", f"{app}/{collection}")
        return self.rows.get((app, collection, id))

    def _require(self, key: tuple[str, str, str], wanted: int | None) -> int:
        there = self.rows[key].version if key in self.rows else 0
        if wanted is not None and wanted != there:
            raise Conflict(f"expected version {wanted}, but it is at {there}", version=there)
        return there

    async def put(
        self, principal: Principal, app: str, collection: str, id: str, value: bytes, *, version: int | None, usage: Usage
    ) -> Stored:
        self.auth.authorize(principal, "documents:Put", f"{app}/{collection}")
        key = (app, collection, id)
        self.rows[key] = Stored(id, value, self._require(key, version) + 1)
        return self.rows[key]

    async def delete(
        self, principal: Principal, app: str, collection: str, id: str, *, version: int | None, usage: Usage
    ) -> bool:
        self.auth.authorize(principal, "documents:Delete", f"{app}/{collection}")
        self._require((app, collection, id), version)
        return self.rows.pop((app, collection, id), None) is not None

    def list(
        self, principal: Principal, app: str, collection: str, *, prefix: str, limit: int, after: str | None, usage: Usage
    ) -> tuple[list[Stored], str | None]:
        self.auth.authorize(principal, "documents:List", f"{app}/{collection}")
        found = [row for key, row in sorted(self.rows.items()) if key[:2] == (app, collection)]
        found = [row for row in found if row.id.startswith(prefix) and (after is None or row.id > after)]
        return found[:limit], found[limit - 1].id if len(found) > limit else None


@dataclass
class Record:
    function: str
    request_id: str
    text: str
    version: int = 1
    trace_id: str = ""
    source: str = "http"
    started_at_ms: int = 0
    duration_us: int = 0
    status: str = ""
    error_type: str = ""

    def render(self) -> list[str]:
        return [f"START RequestId: {self.request_id}", self.text, f"END RequestId: {self.request_id}"]


@dataclass
class FakeLogs:
    records: list[Record] = field(default_factory=list)
    asked: list[tuple[str | None, int | None, int]] = field(default_factory=list)
    ended: bool = False
    fresh: asyncio.Queue[Record | None] = field(default_factory=asyncio.Queue)

    async def read(self, function: str | None, since_ms: int | None, limit: int) -> list[Record]:
        self.asked.append((function, since_ms, limit))
        return [record for record in self.records if function in (None, record.function)][-limit:]

    async def follow(self, function: str | None, since_ms: int | None, limit: int) -> AsyncIterator[Record]:
        try:
            for record in self.records:
                yield record
            while (record := await self.fresh.get()) is not None:
                yield record
        finally:
            self.ended = True


class World:
    """All the fakes, wired."""

    def __init__(self) -> None:
        self.auth = FakeAuth()
        self.apps = FakeApps()
        self.functions = FakeFunctions()
        self.failures = FakeFailures(self.functions)
        self.documents = FakeDocuments(self.auth)
        self.logs = FakeLogs()
        self.rooms = Rooms(
            auth=self.auth,
            apps=self.apps,
            functions=self.functions,
            documents=self.documents,
            logs=self.logs,
            usage=lambda since, until: [{**USED, "hour_ms": since}],
            metrics=lambda: "# HELP x\nx 1\n",
            status=lambda: {"instances": 2, "sandbox": {"level": 3}, "functions": [{"function": "f", "busy": 1}]},
            now_ms=lambda: 1_700_000_000_000,
            version="9.9.9",
            failures=self.failures,
        )

    def deploy_fails(self, says: list[str]) -> None:
        self.apps.says = says
        self.apps.error = DeployFailed("app.py:3: invalid syntax", remedy="fix it", stack="Traceback (yours)")


# --- a real socket


@contextlib.contextmanager
def served(make: Callable[[], Any]) -> Iterator[tuple[int, asyncio.AbstractEventLoop]]:
    """Serve the ASGI application that `make` gives on a free loopback port; yields the port and the application's loop."""
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever)
    running.start()

    async def built() -> Any:
        return make()

    app = asyncio.run_coroutine_threadsafe(built(), loop).result()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(app, loop))
    server.daemon_threads = True
    accepting = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    accepting.start()
    try:
        yield server.server_address[1], loop
    finally:
        server.shutdown()
        accepting.join()
        server.server_close()
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        running.join()
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _handler(app: Any, loop: asyncio.AbstractEventLoop) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

        def any_method(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            raw_path, _, query = self.path.partition("?")
            scope = {
                "type": "http",
                "method": self.command,
                "path": unquote(raw_path),
                "raw_path": raw_path.encode(),
                "query_string": query.encode(),
                "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()],
            }
            asyncio.run_coroutine_threadsafe(self._run(scope, body), loop).result()

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = any_method  # noqa: N815

        async def _run(self, scope: dict[str, Any], body: bytes) -> None:
            unread = [{"type": "http.request", "body": body, "more_body": False}]
            gone = asyncio.Event()

            async def receive() -> dict[str, Any]:
                if unread:
                    return unread.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                try:
                    self._write(message)
                except OSError:
                    gone.set()
                    raise

            await app(scope, receive, send)

        chunked = False

        def _write(self, message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.chunked = _write_head(self, message)
                return
            part = message.get("body", b"")
            if self.chunked and part:
                part = f"{len(part):x}\r\n".encode() + part + b"\r\n"
            self.wfile.write(part)
            if self.chunked and not message.get("more_body"):
                self.wfile.write(b"0\r\n\r\n")

    return Handler


def _write_head(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> bool:
    """Send status and headers; True if the body has to go in chunks."""
    handler.send_response(message["status"])
    names = {name for name, _ in message["headers"]}
    chunked = b"content-length" not in names and message["status"] not in (204, 304)
    for name, value in message["headers"]:
        handler.send_header(name.decode(), value.decode("latin-1"))
    if chunked:
        handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    return chunked
