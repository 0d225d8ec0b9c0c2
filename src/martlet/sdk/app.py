"""`App`: what a project declares. The decorators only record; `graph.emit` checks it all at deploy."""

from __future__ import annotations

import sys

from martlet.sdk.errors import DeclarationError
from martlet.sdk.function import Function, Route, Schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypedDict, Unpack

    from martlet.sdk.bucket import Bucket, BucketEvents
    from martlet.sdk.bus import Bus, Topic
    from martlet.sdk.documents import Changed, Collection
    from martlet.sdk.queue import Queue
    from martlet.sdk.right import Right
    from martlet.sdk.secret import Secret
    from martlet.sdk.users import Users

    Uses = Iterable[Function | Collection | Queue | Bucket | Bus | Topic | Secret | Users | Right | Callable[..., Any] | str]

    class Options(TypedDict, total=False):
        """Settings of a function; each left out takes the platform's default (`martlet.types.FunctionConfig`)."""

        name: str  # default: the Python function's name
        memory: int  # MB; the share of a CPU grows with it
        timeout: float  # seconds for one event
        tmp: int  # MB of private /tmp
        concurrency: int  # events at one time in one instance
        reserved: int  # most events at one time in all instances; 0 switches the function off
        provisioned: int  # instances kept warm
        env: Mapping[str, str]
        egress: str | Iterable[str]  # "none", "all", or host names
        uses: Uses  # functions it may invoke, collections it may read and write, queues it may send to
        description: str

    class RouteOptions(Options, total=False):
        """Settings of a function and of its route."""

        cors: str | Iterable[str] | Mapping[str, Any]  # origins, or the fields of `martlet.types.Cors`
        throttle: Mapping[str, Any]  # the fields of `martlet.types.Throttle`: rate, burst, per
        payload: str  # payload format: "2.0" or "1.0"
        when: Mapping[str, str]  # only requests that have these headers ("*": with any value); others go to the next best route
        share: float  # only this percentage of the clients; a client stays where it is while the share grows
        by: str  # what a client is: "address" (default), "header:<name>", "cookie:<name>"; "request": each request is one
        user: Users  # only requests with a valid access token of these end users
        raw: bool  # the handler takes Lambda's (event, context) and returns a Lambda answer

    class ProxyOptions(TypedDict, total=False):
        """Settings of a proxy route."""

        strip: str  # beginning of the path that the server is not told
        host: str  # "upstream" (default): the Host of `to`; "client": the one that the client named
        timeout: float  # seconds for the head of the answer, and for each further part; default 30
        cors: str | Iterable[str] | Mapping[str, Any]
        throttle: Mapping[str, Any]
        when: Mapping[str, str]
        share: float
        by: str

    Decorator = Callable[[Callable[..., Any]], Function]

__all__ = ["App"]

ROUTE_SETTINGS = ("cors", "throttle", "payload", "when", "share", "by", "user")
SETTINGS = ("memory", "timeout", "tmp", "concurrency", "reserved", "provisioned", "env", "egress", "description")


class Functions:
    """An app's functions as attributes: how the platform finds one that is no name of its module ("app:app.functions.api")."""


class App:
    """An application: functions, their routes and their schedules. `name` default: chosen by deploy, the folder's name."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.functions = Functions()
        self.proxies: list[Route] = []
        self.users: list[Route] = []  # where end users are mounted

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers GET `path`."""
        return self._route(["GET"], path, options, _caller())

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers POST `path`."""
        return self._route(["POST"], path, options, _caller())

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers PUT `path`."""
        return self._route(["PUT"], path, options, _caller())

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers PATCH `path`."""
        return self._route(["PATCH"], path, options, _caller())

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers DELETE `path`."""
        return self._route(["DELETE"], path, options, _caller())

    def head(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers HEAD `path`."""
        return self._route(["HEAD"], path, options, _caller())

    def options(self, path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers OPTIONS `path`."""
        return self._route(["OPTIONS"], path, options, _caller())

    def route(self, methods: str | Iterable[str], path: str, **options: Unpack[RouteOptions]) -> Decorator:
        """The decorated function answers these methods ("ANY" for all) on `path`: "/a/{id}", "/a/{rest+}" or "$default"."""
        return self._route([methods] if isinstance(methods, str) else list(methods), path, options, _caller())

    def function(self, **options: Unpack[Options]) -> Decorator:
        """The decorated function takes `(event, context)` and is called by `.invoke` or by Lambda's clients."""
        where = _caller()
        return lambda target: self._declare(target, dict(options), where)

    def schedule(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        input: Any = None,
        schedule_name: str | None = None,
        **options: Unpack[Options],
    ) -> Decorator:
        """The decorated function runs at "rate(5 minutes)", "cron(0 8 ? * MON-FRI *)" or, once, "at(2030-01-31T23:59:00)", in
        the time zone. `input`: its event, JSON."""
        where = _caller()

        def decorate(target: Callable[..., Any]) -> Function:
            function = self._declare(target, dict(options), where)
            function.schedules.append(Schedule(expression, timezone, input, schedule_name, where))
            return function

        return decorate

    def on(
        self,
        source: Queue | Changed | BucketEvents | Bus | Topic,
        *,
        prefix: str = "",
        suffix: str = "",
        batch: int | None = None,
        window: int = 0,
        filter: Mapping[str, Any] | Iterable[Mapping[str, Any]] = (),
        consumers: int | None = None,
        partial: bool = False,
        start: str = "now",
        retries: int | None = None,
        max_age: int | None = None,
        bisect: bool = False,
        on_failure: Queue | Function | None = None,
        pattern: Mapping[str, Any] | None = None,
        scope: str = "attributes",
        **options: Unpack[Options],
    ) -> Decorator:
        """The decorated function takes a queue's messages (Lambda's SQS event), or with `orders.changed` the changes of a
        collection, in order for each document: {"Records": [{"operation", "id", "version", "value", "seq", ...}]}, or with
        `on(bucket.created, prefix="in/", suffix=".csv")` the changes of a bucket (S3's event).

        Up to `batch` of them in one event (10 messages, 100 changes); `window` seconds may pass to fill it. `filter`: event
        patterns, of which one must match; what none matches is dropped. `consumers`: most events at one time. `partial`: it
        returns {"batchItemFailures": [{"itemIdentifier": messageId or seq}]}.

        Of changes alone: `start` of the first deployment, "now" or "oldest"; a batch that fails is tried again `retries` times
        (5; -1: without end) and until it is `max_age` seconds old (a day), with `bisect` in halves; then it goes to
        `on_failure`, a queue or a function, else to the dead letters.

        Of a Bus: it gets each event that `pattern` matches (EventBridge's event). Of a Topic: each message (SNS's event) that
        the policy `filter` lets through, which looks at the message's attributes or, with `scope="body"`, at its JSON."""
        where = _caller()
        of_stream = {"start": start, "retries": retries, "max_age": max_age, "bisect": bisect, "on_failure": on_failure}
        batches = {"batch": batch, "window": window, "consumers": consumers, "partial": partial}
        rest = {"prefix": prefix, "suffix": suffix, "pattern": pattern, "filter": filter, "scope": scope}
        listens = _listener({**of_stream, **batches, **rest}, source, where)

        def decorate(target: Callable[..., Any]) -> Function:
            from martlet.sdk.queue import Consumer

            function = self._declare(target, dict(options), where)
            if listens is not None:
                listens(function)
                return function
            filters: list[Any] = [filter] if hasattr(filter, "keys") else list(filter)
            function.consumers.append(Consumer(source, batch, window, filters, consumers, partial, where, of_stream))
            return function

        return decorate

    def mount(self, path: str, app: Any, *, interface: str | None = None, **options: Unpack[RouteOptions]) -> Function:
        """A whole ASGI or WSGI app answers `path` and all below it. `interface` ("asgi", "wsgi") where it cannot be told."""
        where = _caller()
        settings: dict[str, Any] = dict(options)
        settings.setdefault("name", path.strip("/").replace("/", "-") or "web")
        route = _route_options(settings)
        function = self._declare(app, settings, where)
        if function.routes or function.mount is not None:
            raise DeclarationError(f"{where}: mount takes an ASGI or WSGI app, got {function!r}")
        function.mount = path
        function.interface = interface
        prefix = path.rstrip("/")
        places = dict.fromkeys((prefix or "/", f"{prefix}/", f"{prefix}/{{proxy+}}"))  # {proxy+} never matches nothing
        function.routes = [Route("ANY", place, route, where) for place in places]
        return function

    def proxy(self, path: str, *, to: str, methods: str | Iterable[str] = "ANY", **options: Unpack[ProxyOptions]) -> None:
        """Another HTTP server at `to` ("http://host:port", with a path that goes before the request's) answers these methods on
        `path`. With `when` or `share` here or on a function's route, requests that a route does not take go to the next best
        one that fits: so a route moves from one to the other."""
        where = _caller()
        settings: dict[str, Any] = dict(options)
        route = _route_options(settings)
        payload = route.pop("payload", None)
        if "user" in route:
            raise DeclarationError(
                f"{where}: user= is for routes that lead to functions; the server has to check tokens itself"
            )
        known = {"strip": "", "host": "upstream", "timeout": 30}
        upstream = {"to": to} | {name: settings.pop(name, default) for name, default in known.items()}
        if settings or payload is not None:
            unknown = next(iter(settings), "payload")
            told = ", ".join([*known, *(name for name in ROUTE_SETTINGS if name not in ("payload", "user"))])
            raise DeclarationError(f"{where}: unknown option {unknown}; known are methods, {told}")
        for method in [methods] if isinstance(methods, str) else methods:
            self.proxies.append(Route(method.upper(), path, route, where, upstream))

    def mount_users(self, path: str, users: Users, *, cors: str | Iterable[str] | Mapping[str, Any] | None = None) -> None:
        """The endpoints of end users answer below `path`: sign-up, verify, sign-in, refresh, sign-out, password-reset, me,
        totp, and the OpenID discovery document."""
        where = _caller()
        route = Route("ANY", f"{str(path).rstrip('/')}/{{proxy+}}", {} if cors is None else {"cors": cors}, where)
        route.users = users
        self.users.append(route)

    def _route(self, methods: list[str], path: str, options: RouteOptions, where: str) -> Decorator:
        settings: dict[str, Any] = dict(options)
        raw = settings.pop("raw", False)
        route = _route_options(settings)

        def decorate(target: Callable[..., Any]) -> Function:
            function = self._declare(target, settings, where)
            function.raw = function.raw or raw
            # Decorators apply from the bottom up; the routes are kept in the order of the text.
            function.routes[:0] = [Route(method.upper(), path, route, where) for method in methods]
            return function

        return decorate

    def _declare(self, target: Any, options: dict[str, Any], where: str) -> Function:
        """The Function of `target`: a new one, or the one that a decorator below has made."""
        options = dict(options)
        name = options.pop("name", None)
        uses = options.pop("uses", ())
        unknown = sorted(set(options) - set(SETTINGS))
        if unknown:
            raise DeclarationError(f"{where}: unknown option {unknown[0]}; known are name, uses, {', '.join(SETTINGS)}")
        if isinstance(target, Function):
            function = target
            twice = sorted(set(options) & set(function.settings))
            if twice or (name is not None and name != function.name):
                raise DeclarationError(f"{where}: {function.name}: {twice[0] if twice else 'name'} is given by two decorators")
        else:
            function = Function(target, name or getattr(target, "__name__", ""), where)
            function.app = self
            self._add(function)
        function.settings.update(options)
        function.uses.extend([uses] if isinstance(uses, str) else uses)
        return function

    def _add(self, function: Function) -> None:
        known = vars(self.functions).setdefault(function.name, function)
        if known is not function:
            raise DeclarationError(
                f"{function.where}: the function {function.name} is declared at {known.where} already: rename one, or say name="
            )


def _route_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Take what belongs to the route out of `settings`."""
    return {name: settings.pop(name) for name in ROUTE_SETTINGS if name in settings}


def _caller() -> str:
    """ "file.py:12" of the line in user code that calls the decorator."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


_OPTIONS_OF_ON = {
    "prefix": "", "suffix": "", "batch": None, "window": 0, "filter": (), "consumers": None, "partial": False, "start": "now",
    "retries": None, "max_age": None, "bisect": False, "on_failure": None, "pattern": None, "scope": "attributes",
}  # fmt: skip


def _listener(given: dict[str, Any], source: Any, where: str) -> Callable[[Function], None] | None:
    """How a function that is told of each event by itself is noted (of a bucket, a bus, a topic); None for sources that are
    read in batches. Raises `DeclarationError` for options that are for others."""
    from martlet.sdk.bucket import BucketEvents, Subscription
    from martlet.sdk.bus import Bus, Listener, Topic

    if isinstance(source, BucketEvents):
        what, own = "a bucket's changes", ["prefix", "suffix"]
    elif isinstance(source, Bus):
        what, own = "a bus", ["pattern"]
    elif isinstance(source, Topic):
        what, own = "a topic", ["filter", "scope"]
    else:
        what, own = "a queue or a collection's changes", []
    read = not own
    for name, plain in _OPTIONS_OF_ON.items():
        foreign = name in ("prefix", "suffix", "pattern", "scope") if read else name not in own
        if foreign and given[name] != plain:
            raise DeclarationError(f"{where}: {name}= is not for {what}" + ("" if read else f", which takes {', '.join(own)}"))
    if read:
        return None
    if isinstance(source, BucketEvents):
        one = Subscription(source, given["prefix"], given["suffix"], where)
        return lambda function: function.subscriptions.append(one)
    heard = Listener(source, given["pattern"], given["filter"] or None, given["scope"], where)
    return lambda function: function.listeners.append(heard)
