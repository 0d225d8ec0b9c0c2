"""The nouns that cross rooms. Values are frozen; only `Invocation`, the carrier of the hot path, is filled in on its way.

Sizes are in the unit their name ends with; wall times are milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from martlet.errors import MartletError

__all__ = [
    "ACCOUNT",
    "ANONYMOUS",
    "AppGraph",
    "ConsumerConfig",
    "Cors",
    "FunctionConfig",
    "FunctionVersion",
    "Invocation",
    "Outcome",
    "Principal",
    "QueueConfig",
    "Route",
    "ScheduleConfig",
    "Throttle",
]


ACCOUNT = "000000000000"  # of every ARN here, until there are tenants


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `kind` root: the owner's key; function: code in a sandbox; role: a session of a role (AWS STS); service: a
    room; anonymous: the public."""

    kind: Literal["root", "function", "role", "service", "anonymous"]
    name: str = ""
    grants: frozenset[tuple[str, str]] = frozenset()  # (action, resource) pairs; "*" and a trailing "*" match


ANONYMOUS = Principal("anonymous")


class FunctionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an app says about one function. `handler` is "module:attribute" or Lambda's "package.module.attribute"."""

    name: str
    handler: str
    runtime: str = ""  # "": the platform's own Python; else Lambda's identifier, e.g. "nodejs22.x", "provided.al2023"
    layers: tuple[str, ...] = ()  # content addresses of Lambda layers, merged in this order at /opt
    memory_mb: int = 256
    timeout_seconds: float = 10.0
    tmp_mb: int = 512
    concurrency: int = 1  # events at one time in one instance
    reserved: int | None = None  # most instances × concurrency at one time; 0 switches the function off
    provisioned: int = 0  # instances kept warm
    environment: dict[str, str] = {}
    egress: Literal["none", "all"] | tuple[str, ...] = "none"  # a tuple: host names, "*.example.com" allowed
    uses: tuple[str, ...] = ()  # functions of the same app that this one may invoke
    documents: tuple[str, ...] = ()  # collections that this one may read and write
    queues: tuple[str, ...] = ()  # queues of the app that this one may send to
    description: str = ""


class Cors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cross-origin rules of a route (WHATWG Fetch section 3.2)."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age_seconds: int = 0


class Throttle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token bucket: `rate` requests a second on average, `burst` at once. `per` client: one bucket an address."""

    rate: float
    burst: int
    per: Literal["route", "client"] = "route"


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way from HTTP to a function. `path` is "/orders/{id}", "/files/{proxy+}" or "$default"; `method` may be "ANY"."""

    method: str
    path: str
    function: str
    payload_format: Literal["1.0", "2.0"] = "2.0"
    cors: Cors | None = None
    throttle: Throttle | None = None


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`expression` is "rate(5 minutes)" or "cron(m h dom mon dow year)" in AWS's six fields, in `timezone`."""

    name: str
    expression: str
    function: str
    timezone: str = "UTC"
    input: Any = None  # JSON; None: the EventBridge "Scheduled Event"
    enabled: bool = True


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A queue of an app; on the platform it is "<app>-<name>", a FIFO one "<app>-<name>.fifo". None: the default."""

    name: str
    fifo: bool = False
    visibility_seconds: int | None = None  # None: six times the timeout of the slowest function that takes its messages
    retries: int | None = 5  # failed runs after which a message goes to "<app>-<name>-dead"; None: it comes again and again
    retention_seconds: int | None = None
    delay_seconds: int | None = None


class ConsumerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that takes the messages of a queue of its app."""

    queue: str
    function: str
    batch_size: int = 10
    window_seconds: int = 0
    patterns: tuple[str, ...] = ()  # JSON
    concurrency: int = 0  # most events at one time; 0: as many as the platform can run
    report_failures: bool = False


class AppGraph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An app as a graph of typed resources; every source (decorators, templates) yields this."""

    functions: tuple[FunctionConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    schedules: tuple[ScheduleConfig, ...] = ()
    queues: tuple[QueueConfig, ...] = ()
    consumers: tuple[ConsumerConfig, ...] = ()


class FunctionVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One published state of a function: immutable. `name` is "<app>-<function>", unique on the platform."""

    name: str
    app: str
    version: int
    config: FunctionConfig
    code: str  # content address of the code folder: lower-case SHA-256 hex
    layer: str = ""  # content address of the dependency layer, or "" for none
    imports: tuple[str, ...] = ()  # modules that the zygote imports ahead (learned at deploy)
    created_at_ms: int = 0

    @property
    def arn(self) -> str:
        """The function's Amazon-style name."""
        return f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{self.name}"


class Outcome(msgspec.Struct, frozen=True):
    """How an invocation ended.

    `refusal` is set when it never ran (throttled, overloaded, unknown, too large). Else `error` is "" for a handler that
    returned, "Unhandled" for every function error (Lambda's X-Amz-Function-Error), and `payload` is JSON bytes: the
    handler's value or the error object. `error_type` is e.g. "Sandbox.Timedout", "Runtime.OutOfMemory", "ValueError".
    """

    payload: bytes = b""
    error: str = ""
    error_type: str = ""
    refusal: MartletError | None = None


class Invocation:
    """One event on its way through the platform. Made by an edge, carried by `functions.dispatch`, ended by `on_done`.

    The edge sets the first block. For streamed answers it also sets `on_head` (called once with the prelude: JSON bytes
    {"statusCode", "headers", "cookies"}) and `on_chunk` (bytes); without them a streamed answer is collected into the
    payload of a v2 response. `on_done(invocation, outcome)` is called exactly once, always last, on the event loop.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "client_context",
        "cold",
        "control",
        "cpu_us",
        "duration_us",
        "function",
        "init_us",
        "log_stream",
        "log_tail",
        "memory_mb",
        "on_chunk",
        "on_done",
        "on_head",
        "payload",
        "peak_mb",
        "queue_us",
        "request_id",
        "source",
        "started_at_ms",
        "trace_id",
        "version",
        "want_log_tail",
    )

    def __init__(
        self,
        function: str,
        payload: bytes,
        request_id: str,
        on_done: Callable[[Invocation, Outcome], None],
        *,
        source: str = "api",
        trace_id: str = "",
        client_context: str = "",
        on_head: Callable[[bytes], None] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
        want_log_tail: bool = False,
    ) -> None:
        self.function = function  # full name, "<app>-<function>"
        self.payload = payload  # JSON bytes
        self.request_id = request_id
        self.on_done = on_done
        self.source = source  # "http", "api", "schedule" …: for the log and the ledger
        self.trace_id = trace_id  # X-Amzn-Trace-Id text, or ""
        self.client_context = client_context  # JSON text, or ""
        self.on_head = on_head
        self.on_chunk = on_chunk
        self.want_log_tail = want_log_tail
        # Filled in by `functions`:
        self.control: Any = None  # set once it runs: `.pause()`, `.resume()` for streams, `.cancel()` drops the rest
        self.version = 0
        self.cold = False
        self.queue_us = 0
        self.init_us = 0
        self.duration_us = 0
        self.cpu_us = 0
        self.memory_mb = 0
        self.peak_mb = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.started_at_ms = 0
        self.log_tail = b""
        self.log_stream = ""  # of the instance that ran it
