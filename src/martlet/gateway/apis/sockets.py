"""WebSocket APIs: $connect before the handshake, a route for each message, $disconnect after all.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api.html
Messages of one connection run side by side, as on AWS; who needs an order puts a number into them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson

from martlet.clock import uuid4_text
from martlet.gateway.answer import Headers
from martlet.gateway.apis.answers import ERRORS
from martlet.gateway.apis.call import extended_id
from martlet.gateway.apis.connections import Connection, Connections
from martlet.gateway.apis.flight import ApiFlight
from martlet.gateway.apis.flight import Edge as ApisEdge
from martlet.gateway.apis.socket_call import SocketCall
from martlet.gateway.apis.table import CompiledApi, Plan, Stage
from martlet.gateway.payload import MalformedAnswer, answer_v1
from martlet.gateway.websocket import Terms, WebSocket, accept, offered, refusal
from martlet.limits import LIMITS
from martlet.types import Invocation, Outcome

__all__ = ["ConnectFlight", "Edge"]

_TERMS: Final = Terms(
    message_bytes=LIMITS["api_message_bytes"].default,
    frame_bytes=LIMITS["api_frame_bytes"].default,
    ping_seconds=0,  # AWS pings nobody: a client that only listens is idle, and goes
    idle_seconds=LIMITS["api_socket_idle_seconds"].default,
    lifetime_seconds=LIMITS["api_socket_seconds"].default,
)
_IN_FLIGHT: Final = LIMITS["api_socket_messages"].default
_NO_CODE: Final = 1005
_NOT_SET: Final = "Client-side close frame status not set"


class Edge(ApisEdge, Protocol):
    """What sockets need beyond what flights do."""

    connections: Connections

    def serving(self, api_id: str, stage: str) -> tuple[CompiledApi, Stage] | None: ...


class ConnectFlight(ApiFlight):
    """The opening request. It is answered 101 once nobody objects."""

    __slots__ = ()

    call: SocketCall
    edge: Edge

    @classmethod
    def begin_on(cls, edge: Edge, exchange: Any, api: CompiledApi, stage: Stage, call: SocketCall) -> None:
        """Serve a request for a WebSocket."""
        refused = refusal(exchange)
        if refused is not None:
            edge.count(refused[0])
            exchange.respond(*refused)
            return
        call.connection_id = extended_id(uuid4_text())
        call.connected_at_ms = call.now_ms
        plan = api.sockets.get("$connect") if api.sockets is not None else None
        flight = cls(edge, exchange, api, stage, plan, call)  # type: ignore[arg-type]  # no plan: nobody is asked
        if plan is None:
            flight.open(())
        else:
            flight.begin()

    def policy_arn(self) -> str:
        return self.call.arn(self.edge.region)

    def admitted(self) -> None:
        call = self.call
        context = call.event_context("$connect", "CONNECT", call.now_ms)
        event = {**call.opening(), "requestContext": context, "isBase64Encoded": False}
        self.invoke(self.stage.resolve(self.plan.route.integration.function), orjson.dumps(event))

    def done(self, invocation: Invocation, outcome: Outcome) -> None:
        if self.exchange.connected or self.error is not None:
            super().done(invocation, outcome)
            return
        self.land()
        if _lets_in(outcome):  # and its client left meanwhile: what $connect noted down must go
            socket = WebSocket(_TERMS)
            connection = Connection(self.call.connection_id, self.call, socket, self.call.connected_at_ms)
            _Session(self.edge, connection).closed(1006, "")

    def outcome(self, outcome: Outcome) -> None:
        if outcome.refusal is not None:
            busy = outcome.refusal.http_status in (429, 503)
            self.fail("THROTTLED" if busy else "API_CONFIGURATION_ERROR")
            return
        if outcome.error:
            self.fail("DEFAULT_5XX")
            return
        try:
            status, headers, body = answer_v1(outcome.payload)
        except MalformedAnswer:
            self.fail("DEFAULT_5XX")
            return
        if 200 <= status < 300:
            self.open(headers)
        else:
            self.respond(status, headers, body)

    def open(self, headers: Headers) -> None:
        """Accept. The subprotocol is the one that the function chose of those that were offered."""
        self.land()
        call, exchange = self.call, self.exchange
        chosen = next((value.decode("latin-1") for name, value in headers if name.lower() == b"sec-websocket-protocol"), "")
        socket = WebSocket(_TERMS)
        session = _Session(self.edge, Connection(call.connection_id, call, socket, call.connected_at_ms))
        session.open()
        known = chosen if chosen in offered(exchange.request) else ""
        accept(exchange, socket, subprotocol=known, headers=[(b"x-amzn-requestid", call.request_id.encode())])

    def fail(self, kind: str, message: str | None = "") -> None:
        error = ERRORS[kind]
        self.error = (kind, error.message if message == "" else message)
        body = {"message": error.message or "Internal server error", **_ids(self.call, self.call.extended_id)}
        self.respond(error.status, [(b"content-type", b"application/json")], orjson.dumps(body))


def _lets_in(outcome: Outcome) -> bool:
    try:
        return outcome.refusal is None and not outcome.error and 200 <= answer_v1(outcome.payload)[0] < 300
    except MalformedAnswer:
        return False


def _ids(call: SocketCall, request_id: str) -> dict[str, str]:
    return {"connectionId": call.connection_id, "requestId": request_id}


class _Session:
    """An open connection and what its messages set going. Each message takes the API as it is deployed by then."""

    def __init__(self, edge: Edge, connection: Connection) -> None:
        self._edge = edge
        self._connection = connection
        self._call: SocketCall = connection.call  # type: ignore[assignment]
        self._in_flight = 0

    def open(self) -> None:
        socket = self._connection.socket
        socket.on_message = self.message
        socket.on_close = self.closed
        self._edge.connections.add(self._connection)

    def closed(self, code: int, reason: str) -> None:
        """The connection is over: tell $disconnect, whose answer nobody waits for."""
        self._edge.connections.remove(self._connection)
        found = self._edge.serving(self._call.api_id, self._call.stage)
        plan = found[0].sockets.get("$disconnect") if found is not None and found[0].sockets is not None else None
        if found is None or plan is None:
            return
        now_ms = self._edge.clock.now_ms()
        more = {"disconnectStatusCode": code, "disconnectReason": reason or (_NOT_SET if code == _NO_CODE else "")}
        context = self._call.event_context("$disconnect", "DISCONNECT", now_ms, **more)
        headers = {"Host": self._call.domain, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
        event: dict[str, Any] = {
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "requestContext": context,
            "isBase64Encoded": False,
        }
        if self._call.variables:
            event["stageVariables"] = self._call.variables
        self._ask(found[1], plan, event, lambda outcome: None)

    def message(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            self._connection.socket.fail(1003, "binary messages are not supported")
            return
        found = self._edge.serving(self._call.api_id, self._call.stage)
        if found is None or found[0].sockets is None or found[0].selection is None:
            self._connection.socket.close(1001, "Going away")
            return
        api, stage = found
        key = api.selection.key(data) if api.selection is not None else ""
        routes = found[0].sockets
        plan = routes.get(key) if not key.startswith("$") else None
        plan = plan or routes.get("$default")
        if plan is None:
            self._say("Forbidden", extended_id(uuid4_text()))
            return
        if not stage.admits(plan.route_key):
            self._say("Too Many Requests", extended_id(uuid4_text()))
            return
        now_ms = self._edge.clock.now_ms()
        context = self._call.event_context(plan.route_key, "MESSAGE", now_ms, messageId=extended_id(uuid4_text()))
        event = {"requestContext": context, "body": data, "isBase64Encoded": False}
        if self._call.variables:
            event["stageVariables"] = self._call.variables
        id: str = context["requestId"]
        self._depart()
        self._ask(stage, plan, event, lambda outcome: self._answered(plan, outcome, id))

    def _depart(self) -> None:
        self._in_flight += 1
        if self._in_flight == _IN_FLIGHT:
            self._connection.socket.hold(True)

    def _land(self) -> None:
        self._in_flight -= 1
        if self._in_flight == _IN_FLIGHT - 1:
            self._connection.socket.hold(False)

    def _ask(self, stage: Stage, plan: Plan, event: dict[str, Any], told: Callable[[Outcome | None], None]) -> None:
        """Call the route's function; `told` gets what it says, or None where it may not be called or takes too long, once."""
        edge = self._edge
        integration = plan.route.integration
        function = stage.resolve(integration.function)
        flight = object()
        waiting = [True]

        def tell(outcome: Outcome | None) -> None:
            edge.under_way.discard(flight)
            if waiting:
                waiting.clear()
                timer.cancel()
                told(outcome)

        timer = asyncio.get_running_loop().call_later(integration.timeout_ms / 1000, tell, None)
        if not edge.may_invoke(function, self._call.arn(edge.region, plan.route_key)):
            tell(Outcome(b"", "Unhandled", "Denied"))
            return
        edge.under_way.add(flight)
        payload = orjson.dumps(event)
        request_id = uuid4_text()
        done: Callable[[Invocation, Outcome], None] = lambda invocation, outcome: tell(outcome)  # noqa: E731
        edge.dispatch(Invocation(function, payload, request_id, done, source="http", trace_id=self._call.trace))

    def _answered(self, plan: Plan, outcome: Outcome | None, request_id: str) -> None:
        self._land()
        if outcome is None:
            self._say("Endpoint request timed out", request_id)
        elif outcome.refusal is not None and outcome.refusal.http_status in (429, 503):
            self._say("Too Many Requests", request_id)
        elif outcome.refusal is not None or outcome.error:
            self._say("Internal server error", request_id)
        elif plan.route.responds:
            self._respond(outcome.payload, request_id)

    def _respond(self, payload: bytes, request_id: str) -> None:
        """The route has a response: the body of the function's answer goes back."""
        try:
            _, _, body = answer_v1(payload)
            text = body.decode()
        except (MalformedAnswer, UnicodeDecodeError):
            self._say("Internal server error", request_id)
            return
        if text:
            self._connection.socket.send(text)

    def _say(self, message: str, request_id: str) -> None:
        """An error of the gateway's own."""
        self._connection.socket.send(orjson.dumps({"message": message, **_ids(self._call, request_id)}).decode())
