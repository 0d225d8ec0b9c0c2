"""One request to an API on its way: throttle, authorization, then what `rest` or `http_api` make of it, under a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from martlet.clock import Clock
from martlet.errors import AccessDenied, MartletError, Unauthenticated
from martlet.gateway.answer import Headers
from martlet.gateway.apis.access_log import line_of
from martlet.gateway.apis.backend import Backend
from martlet.gateway.apis.call import Call
from martlet.gateway.apis.table import CompiledApi, Plan, Stage
from martlet.gateway.http import Exchange
from martlet.gateway.payload import MalformedAnswer
from martlet.types import Invocation, Outcome

__all__ = ["ApiFlight", "AskService", "Edge", "Enqueue", "ServiceAnswer"]

Enqueue = Callable[[str, bytes, str], Awaitable[None]]
ServiceAnswer = tuple[int, list[tuple[str, str]], bytes]
# (service, role, method, "path/…" or "action/…", raw query, headers, body) -> the service's answer, errors included
AskService = Callable[[str, str, str, str, str, list[tuple[str, str]], bytes], Awaitable[ServiceAnswer]]
Verify = Callable[[Exchange, str], Any]
Permit = Callable[[Any, str, str], None]


class Edge(Protocol):
    """What a flight needs of the edge that sent it off."""

    dispatch: Callable[[Invocation], None]
    clock: Clock
    region: str
    backend: Backend
    enqueue: Enqueue | None  # queue an event for a function; answers when it is durable
    may_invoke: Callable[[str, str], bool]  # (function, ARN of the API's route)
    under_way: set[Any]
    authorizers: Any
    access_log: Callable[[str, int, str], None]  # (log group, epoch ms, line)
    ask_service: AskService | None

    def count(self, status: int, app: str = "", size: int = 0) -> None: ...
    def spawn(self, work: Awaitable[None]) -> None: ...
    def signed_by(self, exchange: Exchange, service: str) -> Any: ...
    def permit(self, principal: Any, action: str, resource: str) -> None: ...


class ApiFlight:
    """The part that REST and HTTP APIs share. A flight answers its exchange once; what comes later is dropped."""

    __slots__ = ("_asked_ns", "_integration", "_timer", "api", "call", "edge", "error", "exchange", "plan", "stage")

    def __init__(self, edge: Edge, exchange: Exchange, api: CompiledApi, stage: Stage, plan: Plan, call: Call) -> None:
        self.edge = edge
        self.exchange = exchange
        self.api = api
        self.stage = stage
        self.plan = plan
        self.call = call
        self._timer: asyncio.TimerHandle | None = None
        self.error: tuple[str, str | None] | None = None  # the gateway's own: kind and message
        self._asked_ns = 0
        self._integration: tuple[int, int] | None = None  # its status and latency in ms, for the access log

    # the way

    def begin(self) -> None:
        """Throttle, then authorization, then `admitted`."""
        if not self.stage.admits(self.plan.route_key):
            self.fail("THROTTLED")
            return
        route = self.plan.route
        if route.authorization == "AWS_IAM":
            kind = self._signature_fault()
            if kind:
                self.fail(kind)
                return
        if self.plan.authorizer is not None and route.authorization == "CUSTOM":
            self.edge.under_way.add(self)
            self.edge.authorizers.ask(self, self.plan.authorizer)
            return
        self._admitted()

    def _admitted(self) -> None:
        try:
            self.admitted()
        except (MartletError, MalformedAnswer):  # a template or a mapping that fails on this request
            self.fail("API_CONFIGURATION_ERROR")

    def authorized(self, context: dict[str, Any]) -> None:
        """The authorizer lets the request in; `context` is what the function is told of it."""
        self.call.authorizer = context
        if self.exchange.connected and not self.exchange.started:
            self._admitted()
        else:
            self.land()

    def _signature_fault(self) -> str:
        try:
            principal = self.edge.signed_by(self.exchange, "execute-api")
            self.edge.permit(principal, "execute-api:Invoke", self.call.arn(self.edge.region))
        except Unauthenticated as error:
            missing = error.details.get("reason") == "MissingAuthenticationToken"
            return "MISSING_AUTHENTICATION_TOKEN" if missing else "INVALID_SIGNATURE"
        except AccessDenied:
            return "ACCESS_DENIED"
        return ""

    def admitted(self) -> None:
        """Validate and call the integration."""
        raise NotImplementedError

    # functions

    def policy_arn(self) -> str:
        """The ARN of this request that the function's policy must admit."""
        return self.call.arn(self.edge.region)

    def invoke(self, function: str, payload: bytes) -> None:
        """Call a function; `outcome` gets what it says."""
        if not self.edge.may_invoke(function, self.policy_arn()):
            self.fail("API_CONFIGURATION_ERROR")
            return
        call = self.call
        self.depart()
        invocation = Invocation(function, payload, call.request_id, self.done, source="http", trace_id=call.trace)
        try:
            self.edge.dispatch(invocation)
        except BaseException:
            self.land()
            raise

    def depart(self) -> None:
        """From here the integration's time limit runs."""
        self.edge.under_way.add(self)
        self._asked_ns = self.edge.clock.monotonic_ns()
        seconds = self.plan.route.integration.timeout_ms / 1000
        self._timer = asyncio.get_running_loop().call_later(seconds, self.expire)

    def done(self, invocation: Invocation, outcome: Outcome) -> None:
        """The invocation's end."""
        self.returned(500 if outcome.refusal is not None else 200)
        if self.exchange.started or not self.exchange.connected:
            self.land()
            return
        try:
            self.outcome(outcome)
        except (MartletError, MalformedAnswer):
            self.fail("API_CONFIGURATION_ERROR")

    def returned(self, status: int) -> None:
        """The integration has answered, with this status of its own."""
        self._integration = (status, (self.edge.clock.monotonic_ns() - self._asked_ns) // 1_000_000)

    def outcome(self, outcome: Outcome) -> None:
        """What a function said."""
        raise NotImplementedError

    async def served(
        self, method: str, uri: str, query: str, headers: list[tuple[str, str]], body: bytes
    ) -> ServiceAnswer | None:
        """What the integration's service answers; None: it took too long, and that is answered."""
        integration = self.plan.route.integration
        if self.edge.ask_service is None:
            self.fail("API_CONFIGURATION_ERROR")
            return None
        asked = self.edge.ask_service(integration.service, integration.credentials, method, uri, query, headers, body)
        try:
            answer = await asyncio.wait_for(asked, integration.timeout_ms / 1000)
        except TimeoutError:
            self.fail("INTEGRATION_TIMEOUT")
            return None
        self.returned(answer[0])
        return answer

    def expire(self) -> None:
        """The integration took too long. What it says comes too late."""
        self.fail("INTEGRATION_TIMEOUT")

    # the answer

    def land(self) -> None:
        """The flight waits for nothing any more."""
        self.edge.under_way.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fail(self, kind: str, message: str | None = "") -> None:
        """Answer with an error of the gateway; `message` "" is the error's own."""
        raise NotImplementedError

    def challenge(self, kind: str, scheme: str) -> None:
        """Answer with an error that says how to authenticate (WWW-Authenticate, RFC 9110 section 11.6.1)."""
        self.fail(kind)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The answer's last step."""
        self.land()
        if self.exchange.connected and not self.exchange.started:
            self.edge.count(status, self.api.config.app, len(body))
            self.exchange.respond(status, headers, body)
            if self.stage.config.access_log_group:
                self._log(status, len(body))

    def _log(self, status: int, length: int) -> None:
        config, call = self.stage.config, self.call
        facts = call.context()
        now_ms = self.edge.clock.now_ms()
        ours, took = self._integration or (None, None)
        kind, message = self.error or (None, None)
        facts |= {
            "status": status,
            "responseLength": length,
            "responseLatency": now_ms - call.now_ms,
            "routeKey": self.plan.route_key,
            "xrayTraceId": call.trace,
            "integrationStatus": ours,
            "integrationLatency": took,
            "integration": {"status": ours, "integrationStatus": ours, "latency": took, "requestId": call.request_id},
            "error": {"responseType": kind, "message": message, "messageString": f'"{message}"' if message else None},
        }
        self.edge.access_log(config.access_log_group, now_ms, line_of(config.access_log_format, facts))
