"""From an exchange to an invocation and back: match, refuse or throttle, build the event, dispatch, answer.

Everything here runs in callbacks of the event loop; a request costs a few objects and no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from martlet.clock import Clock, uuid4_text
from martlet.errors import (
    AccessDenied,
    InvalidInput,
    MartletError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unsupported,
)
from martlet.gateway.answer import Headers, problem
from martlet.gateway.apis.backend import Backend
from martlet.gateway.apis.front import ApiEdge, elsewhere
from martlet.gateway.choice import Choice
from martlet.gateway.cors import CorsPolicy
from martlet.gateway.http import Exchange, Request
from martlet.gateway.payload import (
    EventBuilder,
    EventV1,
    EventV2,
    MalformedAnswer,
    answer_v1,
    answer_v2,
    head_from_prelude,
    trace_id,
)
from martlet.gateway.proxy import Proxies, Target
from martlet.gateway.router import Elsewhere, Match, RouteTable
from martlet.gateway.router import MethodNotAllowed as OtherMethods
from martlet.gateway.throttle import Buckets
from martlet.gateway.visitors import Mounted, Visitors
from martlet.gateway.websocket import wants_websocket
from martlet.limits import LIMITS
from martlet.telemetry import Registry
from martlet.types import Invocation, Outcome, Route

__all__ = ["Access", "Edge"]

Access = Callable[[str, Route, str], object]
"""`access(app, route, function)` returns to let the public in; the `AccessDenied` that it raises answers every request."""

_SWEEP_SECONDS: Final = 0.5
_SECOND: Final = 1_000_000_000
_JSON: Final = (b"content-type", b"application/json")
_TIMED_OUT: Final = b'{"message":"Endpoint request timed out"}'
_FAILED_V1: Final = b'{"message":"Internal server error"}'  # REST APIs and HTTP APIs differ in one capital letter
_FAILED_V2: Final = b'{"message":"Internal Server Error"}'
_TIMEOUT_TYPE: Final = "Sandbox.Timedout"


class _Plan:
    """What is known of a route before the first request."""

    __slots__ = ("app", "buckets", "builder", "choice", "cors", "denied", "guarded", "old_format", "target", "user", "users")

    def __init__(
        self, app: str, route: Route, cors: CorsPolicy | None, buckets: Buckets | None, denied: MartletError | None
    ) -> None:
        self.app = app
        self.old_format = route.payload_format == "1.0"
        self.builder: EventBuilder = EventV1(app, route) if self.old_format else EventV2(app, route)
        self.target = Target(route.upstream) if route.upstream is not None else None
        self.choice = Choice(app, route) if route.conditional else None
        self.user = (app, route.user) if route.user else None
        self.users = route.users
        self.cors = cors
        self.buckets = buckets
        self.denied = denied
        self.guarded = cors is not None or buckets is not None or denied is not None


class _Flight:
    """One request on its way through a function."""

    __slots__ = ("deadline", "edge", "exchange", "headers", "invocation", "plan", "streaming")

    def __init__(self, edge: Edge, exchange: Exchange, plan: _Plan, headers: list[tuple[bytes, bytes]], deadline: int) -> None:
        self.edge = edge
        self.exchange = exchange
        self.plan = plan
        self.headers = headers  # what every answer to this request carries
        self.deadline = deadline
        self.streaming = False
        self.invocation: Invocation | None = None

    # from functions

    def done(self, invocation: Invocation, outcome: Outcome) -> None:
        """The invocation's end, exactly once."""
        self.invocation = None  # else flight and invocation keep each other until the garbage collector comes
        self.edge.landed(self)
        exchange = self.exchange
        if self.streaming:
            if outcome.error or outcome.refusal is not None:
                exchange.abort()
            elif exchange.connected:
                exchange.end()
            return
        if not exchange.connected or exchange.started:
            return  # the client left, or was told that it took too long
        if outcome.refusal is None and not outcome.error:
            try:
                status, headers, body = (answer_v1 if self.plan.old_format else answer_v2)(outcome.payload)
            except MalformedAnswer:
                self.fail(502)
                return
            self.answer(status, headers, body)
        elif outcome.refusal is not None:
            self.refuse(outcome.refusal)
        elif outcome.error_type == _TIMEOUT_TYPE:
            self.answer(504, [_JSON], _TIMED_OUT)
        else:
            self.fail(502 if self.plan.old_format else 500)

    def head(self, prelude: bytes) -> None:
        """The head of a streamed answer."""
        exchange = self.exchange
        if self.streaming or not exchange.connected or exchange.started:
            self.cancel()
            return
        try:
            status, headers = head_from_prelude(prelude)
        except MalformedAnswer:
            self.fail(502)
            self.cancel()
            return
        self.streaming = True
        self.edge.streams_on(self)
        exchange.on_disconnect = self.client_left
        exchange.on_pause = self.pause
        exchange.on_drain = self.resume
        exchange.start(status, self.all_headers(headers))
        self.edge.count(status, self.plan.app)

    def chunk(self, data: bytes) -> None:
        """Part of a streamed answer."""
        if self.streaming:
            self.edge.meter(self.plan.app, 0, len(data))
            self.exchange.write(data)

    # to functions

    def pause(self) -> None:
        if self.invocation is not None and self.invocation.control is not None:
            self.invocation.control.pause()

    def resume(self) -> None:
        if self.invocation is not None and self.invocation.control is not None:
            self.invocation.control.resume()

    def cancel(self) -> None:
        if self.invocation is not None and self.invocation.control is not None:
            self.invocation.control.cancel()

    def client_left(self) -> None:
        """The client of a streamed answer is gone: nobody wants the rest."""
        self.cancel()

    # to the client

    def all_headers(self, headers: list[tuple[bytes, bytes]]) -> Headers:
        if self.plan.cors is not None:
            headers = CorsPolicy.without_own(headers)
        return headers + self.headers

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.edge.count(status, self.plan.app, len(body))
        self.exchange.respond(status, self.all_headers(headers), body)

    def fail(self, status: int) -> None:
        self.answer(status, [_JSON], _FAILED_V1 if self.plan.old_format else _FAILED_V2)

    def refuse(self, error: MartletError) -> None:
        headers, body = problem(error)
        self.answer(error.http_status, headers, body)

    def expire(self) -> None:
        """Limit `request_seconds` is over. The function runs on to its own limit; what it says comes too late."""
        if self.exchange.connected:
            self.answer(504, [_JSON], _TIMED_OUT)


class Edge:
    """Serves the routes of `set_routes` by calling `dispatch(invocation)` for each request.

    `access` is asked once a route when routes are set; without it every declared route is public. `limits` overrides
    requests_in_flight and request_seconds by name; `registry` gets the counters.
    """

    def __init__(
        self,
        dispatch: Callable[[Invocation], None],
        *,
        clock: Clock,
        access: Access | None = None,
        limits: Mapping[str, int] | None = None,
        registry: Registry | None = None,
        domains: Iterable[str] = ("localhost",),
        called_hosts: tuple[str, ...] = (),
        meter: Callable[[str, int, int], None] = lambda app, requests, size: None,
    ) -> None:
        overrides = dict(limits or {})
        for key in overrides:
            if key not in LIMITS:
                raise InvalidInput(f"{key} is not a limit", field=key)
        self.flights: dict[_Flight, None] = {}  # without an answer, in order of their deadlines
        self.streams: set[object] = set()  # answering, or under way elsewhere: these have time limits of their own
        self._proxies = Proxies(Backend(called_hosts, connections="proxy_connections"), self.streams, self.count)
        self._sends_on = False  # some route leads to another server
        self._dispatch = dispatch
        self._clock = clock
        self._access = access
        self.meter = meter  # (app, requests, bytes of their answers)
        self._domains = tuple(domains)
        self._max_flights = overrides.get("requests_in_flight", LIMITS["requests_in_flight"].default)
        self._request_ns = overrides.get("request_seconds", LIMITS["request_seconds"].default) * _SECOND
        self._default_app: str | None = None
        self._apis: ApiEdge | None = None
        self._visitors: Visitors | None = None
        self._buckets: dict[tuple[str, Route], Buckets] = {}
        self._table = RouteTable(domains=self._domains)
        self._timer: asyncio.TimerHandle | None = None
        self._overloaded = problem(Overloaded(f"limit requests_in_flight is {self._max_flights}"))
        told = "apps beside the first one that was started answer at http://<app>.localhost:<port>"
        self._not_found = problem(NotFound("no route fits this host, method and path", remedy=told))
        other = "WebSocket APIs of templates speak it (AWS::ApiGatewayV2::Api), and GraphQL subscriptions on the api listener"
        self._no_sockets = problem(Unsupported("routes of apps speak no WebSocket", remedy=other, field="Upgrade"))
        known = registry or Registry()
        text = "Answers of the public edge, by class of their status"
        self._counters = [known.counter("martlet_http_answers_total", text, status=f"{digit}xx") for digit in range(2, 6)]
        known.gauge(
            "martlet_http_requests_in_flight",
            "Requests without an answer",
            lambda: [({}, len(self.flights) + len(self.streams))],
        )

    # routes

    def set_routes(self, routes: Iterable[tuple[str, Route, str]]) -> None:
        """Serve these (app, route, full function name) from now on; requests under way keep what they have.

        Throttles that did not change keep their count. Raises `InvalidInput`, and then nothing has changed.
        """
        buckets: dict[tuple[str, Route], Buckets] = {}
        known = list(routes)

        def plan(app: str, route: Route, function: str) -> _Plan:
            if route.throttle is not None:
                kept = self._buckets.get((app, route))
                buckets[app, route] = kept if kept is not None else Buckets(route.throttle, self._clock)
            cors = CorsPolicy(route.cors, route.method) if route.cors is not None else None
            denied = self._denial(app, route, function) if route.function else None
            return _Plan(app, route, cors, buckets.get((app, route)), denied)

        table = RouteTable(known, domains=self._domains, plan=plan)
        if self._apis is not None:
            table.set_elsewhere(elsewhere)
        table.set_default(self._default_app)
        self._buckets = buckets
        self._table = table
        self._sends_on = any(route.upstream is not None for _, route, _ in known)

    def _denial(self, app: str, route: Route, function: str) -> AccessDenied | None:
        if self._access is not None:
            try:
                self._access(app, route, function)
            except AccessDenied as error:
                return error
        return None

    def set_apis(self, apis: ApiEdge) -> None:
        """Serve API Gateway's hosts (<id>.execute-api.…, <id>.lambda-url.…) and the paths /_api/ and /_url/ as well."""
        apis.attach(self.streams, self.count)
        self._apis = apis
        self._table.set_elsewhere(elsewhere)

    def set_visitors(self, visitors: Visitors) -> None:
        """Who serves the endpoints of apps' end users, and knows them by their tokens. Without it such routes refuse."""
        self._visitors = visitors

    def set_default(self, app: str | None) -> None:
        """The app of hosts that name none."""
        self._default_app = app
        self._table.set_default(app)

    # requests

    def handle(self, exchange: Exchange) -> None:
        """Serve one exchange: the handler of an `HttpServer`."""
        request = exchange.request
        if len(self.flights) + len(self.streams) >= self._max_flights:
            self._problem(exchange, 503, self._overloaded)
            return
        if request.path.startswith(b"/_") and self._apis is not None and self._apis.takes_path(exchange):
            return
        match = request.routed or self._choose(request, request.method)
        if request.method == "OPTIONS" and self._preflight(exchange):
            return
        if not isinstance(match, Match):
            self._unmatched(exchange, match)
            return
        plan: _Plan = match.plan
        if wants_websocket(request):
            self._problem(exchange, 501, self._no_sockets)
            return
        if plan.target is not None:
            self._send_on(exchange, plan, plan.target)
            return
        request_id = uuid4_text()
        id_bytes = request_id.encode("ascii")
        headers = [(b"apigw-requestid", id_bytes), (b"x-amzn-requestid", id_bytes)]
        if plan.guarded and self._guard(exchange, plan, headers):
            return
        authorizer = ""
        if plan.users or plan.user is not None:
            found = self._visited(exchange, match, plan, headers)
            if found is None:
                return
            authorizer = found
        now_ms = self._clock.now_ms()
        trace = trace_id(request, request_id, now_ms)
        event = plan.builder.build(request, request_id, trace, now_ms, match.path_params, authorizer)
        flight = _Flight(self, exchange, plan, headers, self._clock.monotonic_ns() + self._request_ns)
        invocation = flight.invocation = Invocation(
            match.function,
            event,
            request_id,
            flight.done,
            source="http",
            trace_id=trace,
            on_head=flight.head,
            on_chunk=flight.chunk,
        )
        self.flights[flight] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self.sweep)
        try:
            self._dispatch(invocation)
        except BaseException:
            self.landed(flight)
            raise

    def _visited(self, exchange: Exchange, match: Match, plan: _Plan, headers: list[tuple[bytes, bytes]]) -> str | None:
        """What the event says of the end user; None: the request is answered, or will be."""
        try:
            if self._visitors is None:
                raise AccessDenied("this platform knows no end users")
            if plan.users:
                below = match.path_params.get("proxy", "")
                self._visitors.serve(exchange, Mounted(match.app, plan.users, below, headers, self.count, self.streams))
                return None
            assert plan.user is not None
            return self._visitors.claims(exchange.request, *plan.user)
        except MartletError as error:
            if isinstance(error, Unauthenticated):
                headers.append((b"www-authenticate", b"Bearer"))
            self._problem(exchange, error.http_status, problem(error), headers)
            return None

    def _choose(self, request: Request, method: str) -> Match | OtherMethods | Elsewhere | None:
        """The best route that fits the request and takes it."""
        match = self._table.match(request.host, method, request.path)
        if not isinstance(match, Match) or match.plan.choice is None:
            return match
        for one in self._table.every(request.host, method, request.path):
            if one.plan.choice is None or one.plan.choice.takes(request):
                return one
        return None

    def takes_streams(self, request: Request) -> bool:
        """Whether the body of this request goes to another server while it comes in: `streams` of an `HttpServer`."""
        if not self._sends_on or (self._apis is not None and self._apis.owns(request.path)):
            return False
        match = request.routed = self._choose(request, request.method)
        return isinstance(match, Match) and match.plan.target is not None

    def _send_on(self, exchange: Exchange, plan: _Plan, target: Target) -> None:
        """To another server, which is told no request id: it has not heard of ours."""
        id = uuid4_text().encode("ascii")
        own = [(b"apigw-requestid", id), (b"x-amzn-requestid", id)]
        if plan.guarded and self._guard(exchange, plan, own):
            return

        def finish(headers: list[tuple[bytes, bytes]]) -> Headers:
            if plan.cors is not None:
                headers = CorsPolicy.without_own(headers)
            return headers + own

        self._proxies.send(exchange, target, finish)

    async def close(self) -> None:
        """Give up what other servers still owe, and close their connections."""
        await self._proxies.close()

    def _guard(self, exchange: Exchange, plan: _Plan, headers: list[tuple[bytes, bytes]]) -> bool:
        """CORS headers for the answer, access, throttle. True: the request is answered."""
        if plan.cors is not None:
            headers += plan.cors.headers(exchange.request.header(b"origin"))
        if plan.denied is not None:
            self._problem(exchange, plan.denied.http_status, problem(plan.denied), headers)
            return True
        if plan.buckets is not None:
            wait = plan.buckets.take(exchange.request.client[0])
            if wait:
                self._problem(exchange, 429, problem(plan.buckets.refusal(wait)), headers)
                return True
        return False

    def _preflight(self, exchange: Exchange) -> bool:
        """Answer a CORS preflight for a route that has a policy."""
        request = exchange.request
        origin, method = request.header(b"origin"), request.header(b"access-control-request-method")
        if origin is None or method is None:
            return False
        match = self._choose(request, method.decode("latin-1"))
        if not isinstance(match, Match) or match.plan.cors is None:
            return False
        wanted = request.header(b"access-control-request-headers")
        self.count(204)
        exchange.respond(204, match.plan.cors.preflight(origin, method, wanted), b"")
        return True

    def _unmatched(self, exchange: Exchange, found: OtherMethods | Elsewhere | None) -> None:
        if isinstance(found, Elsewhere):
            if self._apis is not None:
                self._apis.takes_host(exchange, found)
            return
        if found is None:
            self._problem(exchange, 404, self._not_found)
            return
        headers, body = problem(MethodNotAllowed(f"this path does not take {exchange.request.method}", methods=found.allow))
        headers.append((b"allow", ", ".join(found.allow).encode("ascii")))
        self._problem(exchange, 405, (headers, body))

    def _problem(
        self, exchange: Exchange, status: int, found: tuple[list[tuple[bytes, bytes]], bytes], more: Headers = ()
    ) -> None:
        self.count(status)
        exchange.respond(status, [*found[0], *more], found[1])

    def count(self, status: int, app: str = "", size: int = 0) -> None:
        """An answer with this status leaves, for the app (or "@" and the function) whose route it is; `size` bytes of body."""
        self._counters[status // 100 - 2].value += 1
        if app:
            self.meter(app, 1, size)

    # flights

    def landed(self, flight: _Flight) -> None:
        """The flight waits for nothing any more."""
        if flight.streaming:
            self.streams.discard(flight)
        else:
            self.flights.pop(flight, None)

    def streams_on(self, flight: _Flight) -> None:
        """The flight has the head of its answer."""
        self.flights.pop(flight, None)
        self.streams.add(flight)

    def sweep(self) -> None:
        """Answer what is out of time; again soon while anything is under way."""
        now = self._clock.monotonic_ns()
        expired = []
        for flight in self.flights:
            if flight.deadline > now:
                break
            expired.append(flight)
        for flight in expired:
            self.landed(flight)
            flight.expire()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self.sweep) if self.flights else None
