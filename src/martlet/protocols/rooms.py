"""What the protocols ask of the rooms below, in their own words, and the bundle in which `server.py` hands it over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from martlet.apps import AppRecord, Deployment
from martlet.auth import Accesses, AuditLog
from martlet.documents import Documents as CollectionsRoom
from martlet.documents import Usage
from martlet.metering import Budgets
from martlet.metering.bill import Bill
from martlet.types import FunctionVersion, Invocation, Outcome, Principal
from martlet.users import Users

__all__ = [
    "Apps",
    "Auth",
    "Documents",
    "FailedEvent",
    "Failures",
    "Functions",
    "LogRecord",
    "Logs",
    "Rooms",
    "StackRecord",
    "Stacks",
    "StoredDocument",
]


class Auth(Protocol):
    """Who asks, and may they."""

    def authenticate(
        self, method: str, path: bytes, query: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Principal: ...
    def authorize(self, principal: Principal, action: str, resource: str) -> None: ...


class Apps(Protocol):
    """The apps room."""

    async def deploy(
        self,
        source: Path | bytes,
        name: str | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Deployment: ...
    async def destroy(self, name: str) -> None: ...
    def list(self) -> list[AppRecord]: ...
    def get(self, name: str) -> AppRecord: ...


class Functions(Protocol):
    """The functions room, as far as callers need it."""

    def get(self, name: str) -> FunctionVersion | None: ...
    def find(self, function: str) -> FunctionVersion | None: ...
    def list(self) -> list[FunctionVersion]: ...
    def all(self) -> Sequence[FunctionVersion]: ...
    async def invoke(
        self,
        name: str,
        payload: bytes,
        *,
        source: str = "api",
        trace_id: str = "",
        client_context: str = "",
        want_log_tail: bool = False,
    ) -> tuple[Invocation, Outcome]: ...
    async def debug(
        self, function: str, payload: bytes, *, port: int = 0, say: Callable[[str], None]
    ) -> tuple[Invocation, Outcome]: ...


class FailedEvent(Protocol):
    """An event whose function failed."""

    @property
    def id(self) -> str: ...
    @property
    def function(self) -> str: ...
    @property
    def qualifier(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def error_type(self) -> str: ...


class Failures(Protocol):
    """Failed events that are kept, to be run again."""

    async def failed_events(self, function: str = "", limit: int = ...) -> Sequence[FailedEvent]: ...
    async def recorded(self, request_id: str) -> FailedEvent: ...
    async def replay(self, request_id: str) -> tuple[FailedEvent, Invocation, Outcome]: ...


class LogRecord(Protocol):
    """One invocation's log, or (without a `request_id`) what the platform says of a function."""

    @property
    def function(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def request_id(self) -> str: ...
    @property
    def trace_id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def started_at_ms(self) -> int: ...
    @property
    def duration_us(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def error_type(self) -> str: ...
    def render(self) -> list[str]: ...


class Logs(Protocol):
    """The logs of functions."""

    async def read(self, function: str | None, since_ms: int | None, limit: int) -> Sequence[LogRecord]: ...
    def follow(self, function: str | None, since_ms: int | None, limit: int) -> AsyncIterator[LogRecord]: ...


class StoredDocument(Protocol):
    """A document: its JSON text, byte for byte as it was put, and its `version`, which grows with each change."""

    @property
    def id(self) -> str: ...
    @property
    def value_bytes(self) -> bytes: ...
    @property
    def version(self) -> int: ...


class Documents(Protocol):
    """Collections of versioned JSON documents. Every call is checked against `principal` by the room itself.

    `version`: the one that must be there; 0: none may be there; None: any. Raises `Conflict` when that does not hold.
    """

    def get(self, principal: Principal, app: str, collection: str, id: str, *, usage: Usage) -> StoredDocument | None: ...
    async def put(
        self, principal: Principal, app: str, collection: str, id: str, value: bytes, *, version: int | None, usage: Usage
    ) -> StoredDocument: ...
    async def delete(
        self, principal: Principal, app: str, collection: str, id: str, *, version: int | None, usage: Usage
    ) -> bool: ...
    def list(
        self, principal: Principal, app: str, collection: str, *, prefix: str, limit: int, after: str | None, usage: Usage
    ) -> tuple[Sequence[StoredDocument], str | None]: ...


class StackRecord(Protocol):
    """A stack, as far as a listing needs it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def created_at_ms(self) -> int: ...
    @property
    def updated_at_ms(self) -> int | None: ...


class Responses(Protocol):
    """Where functions of custom resources answer."""

    def answer(self, token: str, body: bytes) -> None: ...


class Stacks(Protocol):
    """Templates as apps."""

    @property
    def responses(self) -> Responses: ...
    def list(self) -> Sequence[StackRecord]: ...
    def find(self, name: str) -> StackRecord | None: ...
    def outputs(self, record: Any) -> dict[str, str]: ...
    def warnings(self, record: Any) -> Sequence[str]: ...
    def functions(self, record: Any) -> Sequence[str]: ...
    async def deploy(
        self,
        path: Path,
        name: str,
        parameters: Mapping[str, str] | None = None,
        *,
        is_lenient: bool = False,
        dry_run: bool = False,
        progress: Callable[[str], None] = ...,
        begun: Callable[[], None] = ...,
    ) -> Any: ...
    async def destroy(self, name: str) -> None: ...


@dataclass(frozen=True)
class Rooms:
    """Everything that the protocols talk to. `usage` takes (since_ms, until_ms) and yields one object for each function."""

    auth: Auth
    apps: Apps
    functions: Functions
    documents: Documents
    logs: Logs
    usage: Callable[[int, int], Sequence[dict[str, Any]]]
    metrics: Callable[[], str]
    status: Callable[[], dict[str, Any]]
    now_ms: Callable[[], int]
    version: str
    services: Mapping[str, object] = field(default_factory=dict)  # AWS's, by boto3's names: see `codec.service`
    region: str = "us-east-1"
    collections: CollectionsRoom | None = None  # the whole of documents; its face authorizes each operation itself
    stacks: Stacks | None = None
    failures: Failures | None = None
    document_usage: Callable[[int, int], Sequence[dict[str, Any]]] = lambda since_ms, until_ms: ()  # one object a database
    request_usage: Callable[[int, int], Sequence[dict[str, Any]]] = lambda since_ms, until_ms: ()  # one object an app and meter
    bill: Callable[[str, str], Bill] | None = None  # of a month, by a price book
    dead_letters: Callable[[str | None, int], Sequence[object]] = lambda app, limit: ()  # of triggers, newest first
    budgets: Budgets | None = None
    audit: Callable[[Any, Any, int], Awaitable[None]] | None = None  # (request, its acts, status), before each answer leaves
    audit_log: AuditLog | None = None
    access_log: Accesses | None = None
    principal: Callable[[str], Principal | None] = lambda name: None  # by "function NAME", "role NAME", "user NAME" or "root"
    users: Users | None = None  # end users of apps
    presign: Callable[[Principal, str, str, int], Awaitable[str]] | None = None  # (who, method, raw path, seconds) → an S3 URL
