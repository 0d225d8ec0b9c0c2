"""From what an app's own code declared, which is untrusted, to an `AppGraph` whose every rule holds.

Nothing here does I/O. Every refusal names the resource, the field and the rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from martlet.apps.ports import CheckSchedule
from martlet.documents.rules import Rules
from martlet.errors import DeployFailed, InvalidInput, MartletError
from martlet.functions.egress import permission, refused_host
from martlet.limits import LIMITS, exceeded
from martlet.types import (
    AppGraph,
    ChangesConfig,
    ConsumerConfig,
    Cors,
    FunctionConfig,
    QueueConfig,
    Route,
    ScheduleConfig,
    Upstream,
    narrowed,
)

__all__ = ["check", "full_name"]

_BUCKET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_BUCKET_EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # Lambda: FunctionName
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # Lambda: environment variable names
_HANDLER = re.compile(r"[^\s:]+:[^\s:]+|[^\s:.]+(?:\.[^\s:.]+)+")
_HOST = re.compile(
    r"(?:\*\.)?(?=.{1,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_PARAMETER = re.compile(r"\{[A-Za-z0-9._-]+\+?\}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_BY = re.compile(r"address|request|(?:header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_USERS_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_ISSUER = re.compile(r"https?://[A-Za-z0-9.:-]+(?:/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?")
_COLLECTION = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_METHODS = frozenset({"ANY", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_RESERVED_VARIABLES = frozenset(  # Lambda: reserved environment variables; the platform sets them
    {
        "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT",
    }
)  # fmt: skip


def full_name(app: str, function: str) -> str:
    """The platform's name of an app's function."""
    return f"{app}-{function}"


def check(app: str, emitted: object, check_schedule: CheckSchedule, called_hosts: Collection[str] = ()) -> AppGraph:
    """`emitted`, the plain data that a source gave, as a graph. `called_hosts`: local servers that proxy routes may lead to.

    Raises `DeployFailed` or `LimitExceeded`, naming the place."""
    try:
        graph = msgspec.convert(emitted, AppGraph, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DeployFailed(
            f"the app declares something that Martlet does not know: {error}", remedy="fix the declaration"
        ) from error
    for limit, found in (("functions", graph.functions), ("routes", graph.routes), ("schedules", graph.schedules)):
        if len(found) > LIMITS[f"app_{limit}"].default:
            raise exceeded(f"app_{limit}", len(found), f"app {app}")
    if not graph.functions and not graph.routes:
        raise DeployFailed(f"app {app} declares no function", remedy="decorate at least one function with the App")
    names = _unique((function.name for function in graph.functions), "function")
    for function in graph.functions:
        _function(app, function, names)
    for route in graph.routes:
        _route(route, names, called_hosts)
    _unique((_claim(route) for route in graph.routes), "route")
    _unique((schedule.name for schedule in graph.schedules), "schedule")
    for schedule in graph.schedules:
        _schedule(schedule, names, check_schedule)
    _queues(app, graph, names)
    _unique((declared.name for declared in graph.collections), "collection")
    for declared in graph.collections:
        if not _COLLECTION.fullmatch(declared.name):
            raise _refuse(f"collection {declared.name!r}", "is not a collection's name")
    for one in graph.changes:
        _changes(one, names, graph)
    _unique((f"changes of {one.collection} → {one.function}" for one in graph.changes), "trigger")
    _buckets(app, graph, names)
    _listeners(app, graph, names)
    _users(graph, names)
    return graph


def _changes(config: ChangesConfig, names: frozenset[str], graph: AppGraph) -> None:
    where = f"changes of collection {config.collection!r}"
    if config.function not in names:
        raise _refuse(where, f"lead to {config.function!r}, which is not a function of this app")
    if not _COLLECTION.fullmatch(config.collection):
        raise _refuse(where, "is not a collection's name")
    most = LIMITS["change_consumers"].default
    if not 1 <= config.concurrency <= most:
        raise _refuse(where, f"consumers is {config.concurrency}, allowed is 1 to {most}")
    kind, _, name = config.on_failure.partition(":")
    queues = {f"{queue.name}{'.fifo' if queue.fifo else ''}" for queue in graph.queues}
    known = {"queue": queues, "function": names}.get(kind, frozenset())
    if config.on_failure and name not in known:
        raise _refuse(where, f"on_failure {config.on_failure!r} is neither a queue nor a function of this app")


def _buckets(app: str, graph: AppGraph, names: frozenset[str]) -> None:
    buckets = _unique((bucket.name for bucket in graph.buckets), "bucket")
    for bucket in graph.buckets:
        if not _BUCKET.fullmatch(bucket.name) or len(app) + len(bucket.name) > 62:  # S3: 63, with "-"
            where = f"bucket {bucket.name!r}"
            raise _refuse(where, 'a name has lower-case letters, digits and "-", with the app\'s name 62 at most')
    for one in graph.subscriptions:
        where = f"subscription to bucket {one.bucket!r}"
        if one.function not in names:
            raise _refuse(where, f"leads to {one.function!r}, which is not a function of this app")
        if one.bucket not in buckets:
            raise _refuse(where, "which is not a bucket of this app")
        if not one.events or not all(event in _BUCKET_EVENTS for event in one.events):
            raise _refuse(where, f"events are {', '.join(one.events) or 'none'}; there are {', '.join(_BUCKET_EVENTS)}")
    for function in graph.functions:
        for used in function.buckets:
            if narrowed(used)[0] not in buckets or narrowed(used)[1] not in ("", "read", "write"):
                raise _refuse(f"function {function.name!r}", f"buckets {used!r}, which is not a bucket of this app")


def _users(graph: AppGraph, names: frozenset[str]) -> None:
    known = _unique((one.name for one in graph.users), "users")
    for one in graph.users:
        where = f"users {one.name!r}"
        if not _NAME.fullmatch(one.name) or len(one.name) > 64:
            raise _refuse(where, 'a name has 1 to 64 letters, digits, "-" and "_" only')
        if one.sender and one.sender not in names:
            raise _refuse(where, f"sender {one.sender!r}, which is not a function of this app")
        if not _USERS_PATH.fullmatch(one.path):
            raise _refuse(where, f"path {one.path!r} is no path of plain words, e.g. /auth")
        if one.issuer and not _ISSUER.fullmatch(one.issuer):
            raise _refuse(where, f"issuer {one.issuer!r} is not the URL of {one.path} as the public knows it")
        mounted = [route for route in graph.routes if route.users == one.name]
        if [route.path for route in mounted] != [f"{one.path}/{{proxy+}}"]:
            raise _refuse(where, f"is not mounted at {one.path}")
    _who_may(graph, known)
    _rules(graph)


def _rules(graph: AppGraph) -> None:
    _unique((one.collection for one in graph.rules), "rules of collection")
    for one in graph.rules:
        where = f"rules of collection {one.collection!r}"
        if not _COLLECTION.fullmatch(one.collection):
            raise _refuse(where, "is not a collection's name")
        if len(graph.users) != 1:
            raise _refuse(where, f"need to know whose: the app mounts {len(graph.users)} users, not one")
        try:
            Rules(one.read, one.write)
        except MartletError as error:
            raise _refuse(where, error.message, error.remedy) from error


def _who_may(graph: AppGraph, known: frozenset[str]) -> None:
    """Routes and functions that name end users."""
    for route in graph.routes:
        where = f"route {route.method} {route.path}"
        if route.users and (route.users not in known or route.user or route.conditional or route.method != "ANY"):
            raise _refuse(where, f"leads to users {route.users!r}, which are no users of this app, or with conditions")
        if route.user and (route.user not in known or route.payload_format != "2.0" or route.upstream is not None):
            raise _refuse(where, f"asks for users {route.user!r}, which are no users of this app, or not with payload 2.0")
    for function in graph.functions:
        for used in function.users:
            if narrowed(used)[0] not in known or narrowed(used)[1] not in ("", "read"):
                raise _refuse(f"function {function.name!r}", f"users {used!r}, which are no users of this app")


def _listeners(app: str, graph: AppGraph, names: frozenset[str]) -> None:
    known = {"bus": _unique(graph.buses, "event bus"), "topic": _unique(graph.topics, "topic")}
    for kind, sources in known.items():
        for source in sources:
            if not _NAME.fullmatch(source.removesuffix(".fifo")) or len(app) + len(source) > 200:
                raise _refuse(f"{kind} {source!r}", 'a name has letters, digits, "-" and "_"')
    for one in graph.listeners:
        where = f"listener of {one.kind} {one.source!r}"
        if one.function not in names:
            raise _refuse(where, f"leads to {one.function!r}, which is not a function of this app")
        if one.source not in known[one.kind]:
            raise _refuse(where, f"which is no {one.kind} of this app")
    for function in graph.functions:
        for kind, used in (("bus", function.buses), ("topic", function.topics)):
            for name in used:
                if name not in known[kind]:
                    raise _refuse(f"function {function.name!r}", f"uses the {kind} {name!r}, which is none of this app")


def _queues(app: str, graph: AppGraph, names: frozenset[str]) -> None:
    queues = _unique((queue.name for queue in graph.queues), "queue")
    for queue in graph.queues:
        _queue(app, queue)
    for consumer in graph.consumers:
        _consumer(consumer, names, queues)
    for function in graph.functions:
        for used in function.queues:
            if used not in queues:
                raise _refuse(f"function {function.name!r}", f"queues {used!r}, which is not a queue of this app")
    _unique((f"{consumer.queue} → {consumer.function}" for consumer in graph.consumers), "consumer")


def _queue(app: str, queue: QueueConfig) -> None:
    where = f"queue {queue.name!r}"
    if not _NAME.fullmatch(queue.name) or len(app) + len(queue.name) > 69:  # SQS: 80, with "-", "-dead" and ".fifo"
        raise _refuse(where, 'a name has letters, digits, "-" and "_", with the app\'s name 69 at most')
    for field, least, most in (
        ("visibility_seconds", 0, 43_200),
        ("retries", 1, 1_000),
        ("retention_seconds", 60, 1_209_600),
        ("delay_seconds", 0, 900),
    ):
        value = getattr(queue, field)
        if value is not None and not least <= value <= most:
            raise _refuse(where, f"{field} is {value}, allowed is {least} to {most}")


def _consumer(consumer: ConsumerConfig, names: frozenset[str], queues: frozenset[str]) -> None:
    where = f"consumer of queue {consumer.queue!r}"
    if consumer.function not in names:
        raise _refuse(where, f"leads to {consumer.function!r}, which is not a function of this app")
    if consumer.queue not in queues:
        raise _refuse(where, "which is not a queue of this app")


def _unique(names: Iterable[str], kind: str) -> frozenset[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DeployFailed(f"the app declares the {kind} {name} twice", remedy="rename or remove one of them")
        seen.add(name)
    return frozenset(seen)


def _refuse(where: str, why: str, remedy: str = "") -> DeployFailed:
    return DeployFailed(f"{where}: {why}", remedy=remedy or "fix the declaration and deploy again")


def _between(where: str, field: str, value: float, low: float, limit: str) -> None:
    if not math.isfinite(value) or value < low:
        raise _refuse(where, f"{field} is {value:g}, the least is {low:g}")
    if value > LIMITS[limit].default:
        raise exceeded(limit, math.ceil(value), where)


def _function(app: str, function: FunctionConfig, names: frozenset[str]) -> None:
    where = f"function {function.name!r}"
    if not _NAME.fullmatch(function.name):
        raise _refuse(where, 'a name has letters, digits, "-" and "_" only')
    if function.runtime or function.layers or function.snap_start or function.log_format != "Text":
        raise _refuse(
            where,
            "runtime, layers, snap_start and log_format are for templates: an app's functions run in the platform's Python",
        )
    full = full_name(app, function.name)
    if len(full) > LIMITS["function_name_characters"].default:
        raise exceeded("function_name_characters", len(full), f"function {full}")
    if len(function.handler) > 128 or not _HANDLER.fullmatch(function.handler):
        raise _refuse(where, f'handler {function.handler[:140]!r} is not "module:attribute" or "module.attribute"')
    _between(where, "memory_mb", function.memory_mb, LIMITS["function_memory_mb_min"].default, "function_memory_mb_max")
    if function.timeout_seconds <= 0:
        raise _refuse(where, f"timeout_seconds is {function.timeout_seconds:g}, it must be more than 0")
    _between(where, "timeout_seconds", function.timeout_seconds, 0, "function_timeout_seconds_max")
    _between(where, "tmp_mb", function.tmp_mb, 1, "function_tmp_mb_max")
    _between(where, "concurrency", function.concurrency, 1, "function_concurrency_max")
    _between(where, "provisioned", function.provisioned, 0, "instances")
    _reserved(where, function)
    _environment(where, function.environment)
    _capabilities(where, function, names)
    if len(function.description) > 256:
        raise _refuse(where, f"description has {len(function.description)} characters, the most is 256")


def _reserved(where: str, function: FunctionConfig) -> None:
    if function.reserved is None:
        return
    _between(where, "reserved", function.reserved, 0, "instances")
    warm = function.provisioned * function.concurrency
    if warm > function.reserved:
        raise _refuse(
            where,
            f"provisioned {function.provisioned} with concurrency {function.concurrency} takes {warm} events at one time, "
            f"which is more than reserved {function.reserved}",
        )


def _capabilities(where: str, function: FunctionConfig, names: frozenset[str]) -> None:
    for host in function.egress if isinstance(function.egress, tuple) else ():
        if not _HOST.fullmatch(host):
            raise _refuse(where, f"egress {host!r} is not a host name")
    for used in function.uses:
        if used not in names:
            raise _refuse(where, f"uses {used!r}, which is not a function of this app")
    for secret in function.secrets:
        if not _NAME.fullmatch(secret):
            raise _refuse(where, f"secrets {secret!r} is not a secret's name")
    for collection in function.documents:
        name, right = narrowed(collection)
        if not _COLLECTION.fullmatch(name) or right not in ("", "read", "write"):
            raise _refuse(where, f"documents {collection!r} is not a collection's name")


def _environment(where: str, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            raise _refuse(
                where, f"environment variable {name!r}: a name starts with a letter and has letters, digits and _ only"
            )
        if name in _RESERVED_VARIABLES or name.startswith("AWS_LAMBDA_"):
            raise _refuse(where, f"environment variable {name} is set by the platform")
        if "\0" in value:
            raise _refuse(where, f"environment variable {name} holds a NUL character")
    size = sum(len(name.encode()) + len(value.encode("utf-8", "surrogatepass")) for name, value in variables.items())
    if size > LIMITS["function_environment_bytes"].default:
        raise exceeded("function_environment_bytes", size, where)


def _shape(path: str) -> str:
    """Paths that match the same requests have the same shape: what a parameter is called does not matter."""
    return re.sub(r"\{[^}+]*(\+?)\}", r"{\1}", path)


def _claim(route: Route) -> str:
    """What a route takes; no two of an app may take the same."""
    condition = f" ({route.condition} by {route.by})" if route.conditional else ""
    return f"{route.method} {_shape(route.path)}{condition}"


def _upstream(where: str, upstream: Upstream, called_hosts: Collection[str]) -> None:
    try:
        parts = urlsplit(upstream.to)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port if parts.port is not None else 443 if parts.scheme == "https" else 80
    except (ValueError, UnicodeError):
        raise _refuse(where, f"{upstream.to!r} is not a URL") from None
    plain = upstream.to.isascii() and upstream.to.isprintable() and not any(c in upstream.to for c in " \\?#{}")
    if parts.scheme not in ("http", "https") or not host or not port or not plain or "@" in parts.netloc:
        raise _refuse(where, f"{upstream.to!r} is not http://host[:port][/path], or https")
    if upstream.strip and not upstream.strip.startswith("/"):
        raise _refuse(where, f'strip {upstream.strip!r} is the beginning of a path, so it starts with "/"')
    seconds = upstream.timeout_seconds
    if not (math.isfinite(seconds) and 0 < seconds <= LIMITS["function_timeout_seconds_max"].default):
        raise _refuse(
            where, f"timeout is {seconds:g}, allowed is more than 0 to {LIMITS['function_timeout_seconds_max'].default}"
        )
    why = refused_host(called_hosts, host, port)
    if why:
        raise _refuse(where, f"{host} may not be called: {why}", permission(host, port))


def _route(route: Route, names: frozenset[str], called_hosts: Collection[str]) -> None:
    where = f"route {route.method} {route.path}"
    _leads(where, route, names, called_hosts)
    if not 0 <= route.share <= 100:
        raise _refuse(where, f"share is {route.share:g}, allowed is 0 to 100 percent")
    if not _BY.fullmatch(route.by):
        raise _refuse(where, f'by is {route.by!r}; it is "address", "header:<name>", "cookie:<name>" or "request"')
    for name, value in route.when:
        if not _TOKEN.fullmatch(name) or not value.isascii() or not value.isprintable() or value != value.strip():
            raise _refuse(where, f"when: {name!r} with {value!r} is no header with a value")
    if route.method not in _METHODS:
        raise _refuse(where, f"method must be one of {', '.join(sorted(_METHODS))}")
    _path(where, route.path)
    if route.throttle is not None and not (math.isfinite(route.throttle.rate) and route.throttle.rate > 0):
        raise _refuse(where, f"throttle rate is {route.throttle.rate:g}, it must be more than 0")
    if route.throttle is not None and route.throttle.burst < 1:
        raise _refuse(where, f"throttle burst is {route.throttle.burst}, the least is 1")
    if route.cors is not None:
        _cors(where, route.cors)


def _leads(where: str, route: Route, names: frozenset[str], called_hosts: Collection[str]) -> None:
    if route.function and (route.upstream is not None or route.users):
        raise _refuse(where, f"leads to a function and to {'another server' if route.upstream is not None else 'users'}")
    if route.upstream is not None and route.users:
        raise _refuse(where, "leads to another server and to users")
    if route.upstream is not None:
        _upstream(where, route.upstream, called_hosts)
    elif not route.users and route.function not in names:
        raise _refuse(where, f"leads to {route.function!r}, which is not a function of this app")


def _path(where: str, path: str) -> None:
    if path == "$default":
        return
    if not path.startswith("/") or len(path) > 1_024 or not path.isprintable() or any(c in path for c in "?# "):
        raise _refuse(where, 'a path is "$default" or starts with "/" and has no "?", "#" or space')
    segments = path[1:].split("/")
    parameters: set[str] = set()
    for index, segment in enumerate(segments):
        if "{" not in segment and "}" not in segment:
            continue
        if not _PARAMETER.fullmatch(segment):
            raise _refuse(where, f'segment {segment!r} is not "{{name}}" or "{{name+}}"')
        if segment.endswith("+}") and index != len(segments) - 1:
            raise _refuse(where, f"{segment} must be the last segment")
        name = segment.strip("{+}")
        if name in parameters:
            raise _refuse(where, f"parameter {name} is named twice")
        parameters.add(name)


def _cors(where: str, cors: Cors) -> None:
    if cors.credentials and "*" in (*cors.origins, *cors.methods, *cors.headers, *cors.expose):
        raise _refuse(where, 'cors: credentials may not go with "*" (Fetch section 3.2.5)', "list them by name")
    if cors.max_age_seconds < 0:
        raise _refuse(where, f"cors: max_age_seconds is {cors.max_age_seconds}, the least is 0")
    for origin in cors.origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/,?#]+|null", origin):
            raise _refuse(where, f'cors: origin {origin!r} is not "*" or scheme://host[:port]')
    for token in (*cors.methods, *cors.headers, *cors.expose):
        if not _TOKEN.fullmatch(token):
            raise _refuse(where, f"cors: {token!r} is not a method or a header's name")


def _schedule(schedule: ScheduleConfig, names: frozenset[str], check_schedule: CheckSchedule) -> None:
    where = f"schedule {schedule.name!r}"
    if not _NAME.fullmatch(schedule.name) or len(schedule.name) > 64:
        raise _refuse(where, 'a name has 1 to 64 letters, digits, "-" and "_" only')
    if schedule.function not in names:
        raise _refuse(where, f"leads to {schedule.function!r}, which is not a function of this app")
    try:
        check_schedule(schedule.expression, schedule.timezone)
    except InvalidInput as error:
        raise _refuse(where, error.message, error.remedy) from error
    size = len(_json(where, schedule.input))
    if size > LIMITS["payload_bytes"].default:
        raise exceeded("payload_bytes", size, where)


def _json(where: str, value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refuse(where, f"input is not JSON: {error}") from error
