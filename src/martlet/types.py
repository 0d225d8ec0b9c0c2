"""The nouns that cross rooms. Values are frozen; only `Invocation`, the carrier of the hot path, is filled in on its way.

Sizes are in the unit their name ends with; wall times are milliseconds since the epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from martlet.errors import MartletError

__all__ = [
    "ACCOUNT",
    "ANONYMOUS",
    "ApiAuthorizer",
    "ApiConfig",
    "ApiGatewayResponse",
    "ApiIntegration",
    "ApiIntegrationResponse",
    "ApiRoute",
    "ApiStage",
    "AppGraph",
    "BucketConfig",
    "ConsumerConfig",
    "Cors",
    "FunctionConfig",
    "FunctionVersion",
    "Invocation",
    "ListenerConfig",
    "Outcome",
    "Principal",
    "QueueConfig",
    "Route",
    "RulesConfig",
    "ScheduleConfig",
    "SubscriptionConfig",
    "Throttle",
    "Upstream",
    "UsersConfig",
    "narrowed",
]


ACCOUNT = "000000000000"  # of every ARN here, until there are tenants


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `kind` root: the owner's key; function: code in a sandbox; role: a session of a role (AWS STS); user: an IAM
    user's key; service: a
    room; anonymous: the public."""

    kind: Literal["root", "function", "role", "user", "service", "anonymous"]
    name: str = ""
    grants: frozenset[tuple[str, str]] = frozenset()  # (action, resource) pairs; "*" and a trailing "*" match
    session: str = ""  # of a function that has a role: "assumed-role/<role>/<session>", as STS tells it
    standing: Any = None  # of roles and users: `auth.standing.Standing`, the policies that decide; never stored


ANONYMOUS = Principal("anonymous")


def narrowed(use: str) -> tuple[str, str]:
    """A use that a function declares, as (name, right): right "" is all that can be done with it, else "read" or "write"."""
    name, _, right = use.partition(":")
    return name, right


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
    log_format: Literal["Text", "JSON"] = "Text"
    log_level: str = ""  # of JSON: the least that is kept of what the function writes, "TRACE" … "FATAL"
    system_log_level: str = ""  # of JSON: the least that the platform writes, "DEBUG", "INFO" or "WARN"
    snap_start: bool = False  # Lambda's SnapStart: its hooks run in every instance
    environment: dict[str, str] = {}
    egress: Literal["none", "all"] | tuple[str, ...] = "none"  # a tuple: host names, "*.example.com" allowed
    uses: tuple[str, ...] = ()  # functions of the same app that this one may invoke
    documents: tuple[str, ...] = ()  # collections that this one may read and write; "<name>:read", "<name>:write": only that
    queues: tuple[str, ...] = ()  # queues of the app that this one may send to
    buckets: tuple[str, ...] = ()  # buckets of the app that this one may read and write; narrowed as `documents`
    secrets: tuple[str, ...] = ()  # secrets of the app that this one may read
    buses: tuple[str, ...] = ()  # event buses of the app that this one may publish to; "default": the platform's own
    topics: tuple[str, ...] = ()  # topics of the app that this one may publish to; "<name>.fifo" for a FIFO one
    users: tuple[str, ...] = ()  # end users of the app that this one may read and change; narrowed as `documents`
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


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another HTTP server that answers a route. The request's path follows the path of `to`, without its beginning `strip`."""

    to: str  # http://host[:port][/base]
    strip: str = ""
    host: Literal["upstream", "client"] = "upstream"  # whose Host it is told: that of `to`, or the one that the client named
    timeout_seconds: float = 30.0  # for the head of its answer, and for each further part


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way from HTTP to a function or to another server. `path` is "/orders/{id}", "/files/{proxy+}" or "$default"; `method`
    may be "ANY". Requests that it does not take, by `when` and `share`, go to the next best route that fits them."""

    method: str
    path: str
    function: str = ""
    upstream: Upstream | None = None  # in place of a function
    users: str = ""  # in place of a function: the endpoints of these end users of the app
    user: str = ""  # only requests that carry a valid access token of these end users of the app
    payload_format: Literal["1.0", "2.0"] = "2.0"
    cors: Cors | None = None
    throttle: Throttle | None = None
    when: tuple[tuple[str, str], ...] = ()  # (header in lower case, its value; "*": any), all of them
    share: float = 100.0  # percent of the clients
    by: str = "address"  # what a client is: "address", "header:<name>", "cookie:<name>"; "request": each is one by itself

    @property
    def conditional(self) -> bool:
        """It may leave requests that fit to other routes."""
        return bool(self.when) or self.share < 100

    @property
    def leads_to(self) -> str:
        """The function's name, or the server's URL, or "users NAME"."""
        if self.users:
            return f"users {self.users}"
        return self.function if self.upstream is None else self.upstream.to

    @property
    def condition(self) -> str:
        """In words: "x-beta: 1, 10 %", or "" for none."""
        said = [f"{name}: {value}" for name, value in self.when]
        return ", ".join([*said, f"{self.share:g} %"] if self.share < 100 else said)


ContentHandling = Literal["", "CONVERT_TO_TEXT", "CONVERT_TO_BINARY"]


class ApiIntegrationResponse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a backend's answer becomes the API's: chosen by `pattern`, which must match a function's errorMessage or a status as
    a whole; "" is the default. `parameters` maps "method.response.header.X" to an expression, `templates` a media type to VTL.
    """

    status: int
    pattern: str = ""
    parameters: dict[str, str] = {}
    templates: dict[str, str] = {}
    content_handling: ContentHandling = ""


class ApiIntegration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a route of an API calls. `function` is "name" or "name:qualifier" and, like `uri`, may hold ${stageVariables.x}."""

    kind: Literal["AWS_PROXY", "AWS", "MOCK", "HTTP", "HTTP_PROXY", "SERVICE"]
    function: str = ""
    uri: str = ""
    method: str = ""  # towards the backend; "": the request's own
    payload_format: Literal["1.0", "2.0"] = "1.0"
    parameters: dict[str, str] = {}  # "integration.request.header.X" (REST) or "append:header.X" (HTTP) to an expression
    templates: dict[str, str] = {}  # media type to VTL
    passthrough: Literal["WHEN_NO_MATCH", "WHEN_NO_TEMPLATES", "NEVER"] = "WHEN_NO_MATCH"
    content_handling: ContentHandling = ""
    timeout_ms: int = 29_000
    asynchronous: bool = False  # X-Amz-Invocation-Type 'Event': answered as soon as the event is queued
    service: str = ""  # kind SERVICE: by boto3's name; `uri` is "path/…" or "action/<operation>"
    credentials: str = ""  # kind SERVICE: ARN of the role by which the call is made
    responses: tuple[ApiIntegrationResponse, ...] = ()
    response_parameters: dict[str, dict[str, str]] = {}  # HTTP APIs: status to "append:header.X" to an expression


class ApiAuthorizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that decides who may call a route, or an issuer of tokens (JWT). `identity` are expressions such as
    "method.request.header.Authorization" (REST) or "$request.header.Authorization" (HTTP); all of them must be there."""

    name: str
    kind: Literal["TOKEN", "REQUEST", "JWT"]
    function: str = ""
    identity: tuple[str, ...] = ()
    ttl_seconds: int = 300
    validation: str = ""  # TOKEN: a pattern that the token must match as a whole
    payload_format: Literal["1.0", "2.0"] = "1.0"
    simple: bool = False  # format 2.0: {"isAuthorized": true} instead of a policy
    issuer: str = ""  # JWT: who signs, as the claim "iss" has it
    audience: tuple[str, ...] = ()  # JWT: one of these must be in "aud", or be the "client_id"


class ApiRoute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A method on a path of an API. `path` is "/pets/{id}", "/{proxy+}" or, in HTTP APIs, "$default"; `method` may be "ANY".
    In WebSocket APIs `path` is the route key ("$connect", "join") and `method` is "".
    """

    method: str
    path: str
    integration: ApiIntegration
    resource_id: str = ""
    required: tuple[str, ...] = ()  # names in the order they were declared: "method.request.querystring.page"
    models: dict[str, str] = {}  # media type to the name of a model
    validate_body: bool = False
    validate_parameters: bool = False
    authorization: Literal["NONE", "AWS_IAM", "CUSTOM"] = "NONE"
    authorizer: str = ""
    scopes: tuple[str, ...] = ()  # a JWT must have one of them
    operation: str = ""
    responds: bool = False  # WebSocket APIs: the function's answer goes back to the client


class ApiStage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage. `throttles` are by "METHOD /path"; `throttle` holds for each route that has none of its own."""

    name: str
    variables: dict[str, str] = {}
    throttle: Throttle | None = None
    throttles: dict[str, Throttle] = {}
    deployment_id: str = ""
    access_log_group: str = ""  # "": no access log
    access_log_format: str = ""


class ApiGatewayResponse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A REST API's own words for an error of the gateway. `kind` is e.g. "UNAUTHORIZED" or "DEFAULT_4XX"."""

    kind: str
    status: int | None = None
    parameters: dict[str, str] = {}  # "gatewayresponse.header.X" to an expression
    templates: dict[str, str] = {}


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API as the edge serves it. `id` is ten lower-case letters and digits; `app` is who owns it."""

    id: str
    name: str
    kind: Literal["rest", "http", "websocket"]
    app: str = ""
    stages: tuple[ApiStage, ...] = ()
    routes: tuple[ApiRoute, ...] = ()
    models: dict[str, Any] = {}  # name to JSON schema, draft 4
    authorizers: tuple[ApiAuthorizer, ...] = ()
    responses: tuple[ApiGatewayResponse, ...] = ()
    binary_media_types: tuple[str, ...] = ()
    cors: Cors | None = None  # HTTP APIs
    disabled: bool = False  # DisableExecuteApiEndpoint
    selection: str = ""  # WebSocket APIs: "$request.body.action"


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`expression` is "rate(5 minutes)", "cron(m h dom mon dow year)" in AWS's six fields, or "at(yyyy-mm-ddThh:mm:ss)", in
    `timezone`. It fires between `start_ms` and `end_ms` where they are given, within `window_minutes` after each due time."""

    name: str
    expression: str
    function: str
    timezone: str = "UTC"
    input: Any = None  # JSON; None: the EventBridge "Scheduled Event"
    enabled: bool = True
    start_ms: int | None = None
    end_ms: int | None = None
    window_minutes: int = 0


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


class CollectionDeclaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A collection that an app declares. `settings`: as the document database takes them (`documents.CollectionConfig`)."""

    name: str
    settings: dict[str, Any] = {}


class ChangesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that takes the changes of a collection of its app, in order for each document."""

    collection: str
    function: str
    batch_size: int = 100
    window_seconds: int = 0
    patterns: tuple[str, ...] = ()  # JSON
    concurrency: int = 10  # most events at one time
    report_failures: bool = False
    start: Literal["now", "oldest"] = "now"  # of the first deployment
    retries: int = 5  # after the first run; -1: until the changes are too old
    max_age_seconds: int = -1  # -1: a day
    bisect: bool = False
    on_failure: str = ""  # "queue:NAME" or "function:NAME" of the app; "": the dead letters


class BucketConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bucket of an app; on the platform it is "<app>-<name>"."""

    name: str
    versioning: bool = False


class SubscriptionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that is told of changes in a bucket of its app. `events` are S3's, such as "s3:ObjectCreated:*"."""

    bucket: str
    function: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""


class ListenerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that hears an event bus or a topic of its app. `pattern` is JSON: a bus's event pattern, a topic's filter
    policy, on what `scope` says; "" for everything (topics only)."""

    kind: Literal["bus", "topic"]
    source: str  # as in `FunctionConfig.buses` and `topics`
    function: str
    pattern: str = ""
    scope: Literal["attributes", "body"] = "attributes"


class UsersConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """End users of an app. `path` is below which their endpoints are; `sender` is the function that delivers codes ("":
    they are written to the log); `issuer`: the URL of `path` as the public knows it ("": http://<app>.localhost:<port><path>)."""

    name: str
    path: str
    sender: str = ""
    sign_up: Literal["open", "closed"] = "open"
    issuer: str = ""


class RulesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which documents of a collection the app's end users may `read` and `write`: expressions (`documents.rules`), "": none."""

    collection: str
    read: str = ""
    write: str = ""


class AppGraph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An app as a graph of typed resources; every source (decorators, templates) yields this."""

    functions: tuple[FunctionConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    schedules: tuple[ScheduleConfig, ...] = ()
    queues: tuple[QueueConfig, ...] = ()
    consumers: tuple[ConsumerConfig, ...] = ()
    collections: tuple[CollectionDeclaration, ...] = ()
    changes: tuple[ChangesConfig, ...] = ()
    buckets: tuple[BucketConfig, ...] = ()
    subscriptions: tuple[SubscriptionConfig, ...] = ()
    buses: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    listeners: tuple[ListenerConfig, ...] = ()
    users: tuple[UsersConfig, ...] = ()
    rules: tuple[RulesConfig, ...] = ()


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
    qualifier: str = "$LATEST"  # or the number of a published version of the Lambda API, "1", "2" …
    region: str = "us-east-1"
    role: str = ""  # ARN of the IAM role whose policies its code acts by, beside what the configuration declares

    @property
    def key(self) -> str:
        """By which it is called: "f" for $LATEST, "f:3" for a published version."""
        return self.name if self.qualifier == "$LATEST" else f"{self.name}:{self.qualifier}"

    @property
    def runtime(self) -> str:
        """Lambda's identifier of what it runs with; of an app's function the platform's own Python."""
        return self.config.runtime or f"python{sys.version_info[0]}.{sys.version_info[1]}"

    @property
    def arn(self) -> str:
        """The function's Amazon-style name, with the number of a published version."""
        return f"arn:aws:lambda:{self.region}:{ACCOUNT}:function:{self.key}"


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
        "arn",
        "bytes_in",
        "bytes_out",
        "client_context",
        "cold",
        "control",
        "cpu_us",
        "duration_us",
        "executed",
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
        arn: str = "",
        on_head: Callable[[bytes], None] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
        want_log_tail: bool = False,
    ) -> None:
        self.function = function  # full name, "<app>-<function>"; or with ":" and a version or alias; then without it
        self.payload = payload  # JSON bytes
        self.request_id = request_id
        self.on_done = on_done
        self.source = source  # "http", "api", "schedule" …: for the log and the ledger
        self.trace_id = trace_id  # X-Amzn-Trace-Id text, or ""
        self.client_context = client_context  # JSON text, or ""
        self.arn = arn  # as it was called, alias included; "": that of the version that runs
        self.on_head = on_head
        self.on_chunk = on_chunk
        self.want_log_tail = want_log_tail
        # Filled in by `functions`:
        self.control: Any = None  # set once it runs: `.pause()`, `.resume()` for streams, `.cancel()` drops the rest
        self.version = 0
        self.executed = "$LATEST"  # or the number of the published version that ran
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
