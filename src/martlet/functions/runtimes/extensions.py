"""External extensions of one instance (AWS: "Lambda Extensions API", "Lambda Telemetry API").

The launcher in the sandbox starts every program of /opt/extensions before the runtime. Here they register, ask for their next
event, report that they failed, and subscribe to the log. INIT ends when the runtime and each of them has asked for an event; on
the way out they hear SHUTDOWN. Telemetry goes to an address inside the sandbox, so the launcher delivers it (`frames.DELIVER`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from martlet.clock import Clock, uuid4_text
from martlet.functions.runtimes.wire import Exchange

__all__ = ["Extensions", "Failure"]

_EXTENSION = "/2020-01-01/extension/"
_LOGS, _TELEMETRY = "/2020-08-15/logs", "/2022-07-01/telemetry"
_AT_MOST = 10
_BODY_BYTES = 65_536
_BATCH = (1_000, 262_144)  # records and bytes of one delivery
_KEPT_BYTES = 1_048_576  # of telemetry that waits for a delivery; the oldest goes first, and is counted
_EVENTS = ("INVOKE", "SHUTDOWN")
_TYPES = ("platform", "function", "extension")
_HOSTS = ("sandbox.localdomain", "sandbox", "127.0.0.1", "localhost")


class Failure(NamedTuple):
    """An extension gave up: "Extension.InitError" or "Extension.ExitError", in its words."""

    kind: str
    message: str


class _Extension:
    def __init__(self, name: str, events: frozenset[str]) -> None:
        self.name = name
        self.events = events
        self.asked = False
        self.poller: Exchange | None = None
        self.waiting: list[dict[str, Any]] = []
        self.types: tuple[str, ...] = ()
        self.address = ""
        self.schema = ""


class Extensions:
    """`runtimes.api.Side` of one instance. `about`: function name, version, handler, account. Callables tell the instance."""

    def __init__(
        self,
        about: dict[str, str],
        *,
        on_asked: Callable[[], None],
        on_failure: Callable[[Failure], None],
        deliver: Callable[[str, bytes], None],
    ) -> None:
        self._about = about
        self._on_asked = on_asked
        self._on_failure = on_failure
        self._deliver = deliver
        self._known: dict[str, _Extension] = {}
        self._kept: list[dict[str, Any]] = []
        self._kept_bytes = 0
        self._dropped = 0
        self.initialised = False
        self.started = False  # the runtime was started, after the extensions
        self._clock = Clock()

    # --- what the instance asks and tells -----------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Each registered one has asked for an event."""
        return all(one.asked for one in self._known.values())

    @property
    def idle(self) -> bool:
        """Each that hears of events has nothing left to do."""
        return all(one.poller is not None and not one.waiting for one in self._known.values() if one.events)

    @property
    def names(self) -> set[str]:
        return {one.name for one in self._known.values()}

    def invoke(self, request_id: str, deadline_ms: int, arn: str, trace: str) -> None:
        event: dict[str, Any] = {
            "eventType": "INVOKE",
            "deadlineMs": deadline_ms,
            "requestId": request_id,
            "invokedFunctionArn": arn,
        }
        if trace:
            event["tracing"] = {"type": "X-Amzn-Trace-Id", "value": trace}
        self._tell(event)
        version = self._about["functionVersion"]
        self.record("platform.start", {"requestId": request_id, "version": version})

    def shut_down(self, reason: str, deadline_ms: int) -> None:
        self._tell({"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms})

    def _tell(self, event: dict[str, Any]) -> None:
        for one in self._known.values():
            if event["eventType"] in one.events:
                one.waiting.append(event)
                self._hand_over(one)

    def _hand_over(self, one: _Extension) -> None:
        poller = one.poller
        if one.waiting and poller is not None:
            one.poller = None
            poller.respond(
                200, json.dumps(one.waiting.pop(0)).encode(), _headers(next(k for k, v in self._known.items() if v is one))
            )

    def record(self, kind: str, content: object) -> None:
        """One line of telemetry, for whoever has subscribed to its type; delivered by `flush`."""
        if not any(one.types for one in self._known.values()) and self.initialised:
            return
        stamp = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        entry = {"time": stamp, "type": kind, "record": content}
        self._kept.append(entry)
        self._kept_bytes += len(content) if isinstance(content, str) else 200
        while self._kept_bytes > _KEPT_BYTES:
            gone = self._kept.pop(0)["record"]
            self._kept_bytes -= len(gone) if isinstance(gone, str) else 200
            self._dropped += 1

    def flush(self) -> None:
        """Hand what is kept to the launcher, for each subscriber its types."""
        entries, self._kept, self._kept_bytes = self._kept, [], 0
        if self._dropped:
            lost = {"reason": "Consumer seems to have fallen behind", "droppedRecords": self._dropped, "droppedBytes": 0}
            entries.append({"time": entries[-1]["time"], "type": "platform.logsDropped", "record": lost})
            self._dropped = 0
        for one in self._known.values():
            wanted = [entry for entry in entries if entry["type"].partition(".")[0] in one.types]
            while wanted:
                batch, wanted = wanted[: _BATCH[0]], wanted[_BATCH[0] :]
                self._deliver(one.address, json.dumps(batch).encode())

    # --- Side -----------------------------------------------------------------------------------------------------------------

    def owns(self, path: str) -> bool:
        return path.startswith(_EXTENSION) or path in (_LOGS, _TELEMETRY)

    def begin(self, exchange: Exchange) -> None:
        exchange.keep_bytes = _BODY_BYTES

    def gone(self, exchange: Exchange) -> None:
        for one in self._known.values():
            if one.poller is exchange:
                one.poller = None

    def complete(self, exchange: Exchange) -> None:
        path = exchange.path.partition("?")[0]
        wanted = {
            _EXTENSION + "register": ("POST", self._register),
            _EXTENSION + "event/next": ("GET", self._next),
            _EXTENSION + "init/error": ("POST", self._init_error),
            _EXTENSION + "exit/error": ("POST", self._exit_error),
            _LOGS: ("PUT", self._subscribe),
            _TELEMETRY: ("PUT", self._subscribe),
        }.get(path)
        if wanted is None:
            _refuse(exchange, 404, "NotFound", "404 page not found")
        elif exchange.method != wanted[0]:
            _refuse(exchange, 405, "MethodNotAllowed", "Method Not Allowed")
        elif exchange.oversize:
            _refuse(exchange, 413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({_BODY_BYTES} bytes).")
        else:
            wanted[1](exchange)

    def _register(self, exchange: Exchange) -> None:
        name = exchange.headers.get(b"lambda-extension-name", b"").decode("latin-1")
        body = _object(exchange)
        if not name:
            _refuse(exchange, 403, "Extension.InvalidExtensionName", "Empty extension name")
            return
        if body is None:
            _refuse(exchange, 403, "InvalidRequestFormat", "The body is not a JSON object")
            return
        events = body.get("events") or []
        if not isinstance(events, list) or any(event not in _EVENTS for event in events):
            wrong = next((event for event in events if event not in _EVENTS), events) if isinstance(events, list) else events
            _refuse(exchange, 403, "Extension.InvalidEventType", f"{str(wrong)[:100]}: Invalid event type")
            return
        if any(one.name == name for one in self._known.values()):
            _refuse(exchange, 403, "Extension.AlreadyRegistered", f"Extension with name {name[:100]} already registered")
            return
        if self.initialised:
            _refuse(exchange, 403, "Extension.RegistrationClosed", "Extension registration closed already")
            return
        if len(self._known) >= _AT_MOST:
            _refuse(exchange, 403, "Extension.TooManyExtensions", f"Extension limit ({_AT_MOST}) reached")
            return
        identifier = uuid4_text()
        self._known[identifier] = _Extension(name, frozenset(events))
        about = dict(self._about)
        if b"accountId" not in exchange.headers.get(b"lambda-extension-accept-feature", b""):
            about.pop("accountId", None)
        exchange.respond(200, json.dumps(about).encode(), _headers(identifier))
        self._on_asked()

    def _whose(self, exchange: Exchange) -> tuple[str, _Extension] | None:
        given = exchange.headers.get(b"lambda-extension-identifier", b"").decode("latin-1")
        one = self._known.get(given)
        if not given:
            _refuse(exchange, 403, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
        elif one is None:
            _refuse(exchange, 403, "Extension.UnknownExtensionIdentifier", f"Unknown extension {given[:100]}")
        return (given, one) if one is not None else None

    def _next(self, exchange: Exchange) -> None:
        found = self._whose(exchange)
        if found is None:
            return
        one = found[1]
        if one.poller is not None and one.poller.open:
            message = "State transition from Ready to Ready failed for extension. Error: State transition is not allowed"
            _refuse(exchange, 403, "InvalidStateTransition", message)
            return
        one.poller = exchange
        one.asked = True
        self._hand_over(one)
        self._on_asked()

    def _init_error(self, exchange: Exchange) -> None:
        self._failed(exchange, "Extension.InitError")

    def _exit_error(self, exchange: Exchange) -> None:
        self._failed(exchange, "Extension.ExitError")

    def _failed(self, exchange: Exchange, kind: str) -> None:
        found = self._whose(exchange)
        if found is None:
            return
        given = exchange.headers.get(b"lambda-extension-function-error-type", b"").decode("latin-1")
        if not given:
            _refuse(exchange, 403, "Extension.MissingHeader", "Missing Lambda-Extension-Function-Error-Type header")
            return
        exchange.respond(202, b'{"status":"OK"}\n', _headers(found[0]))
        self._on_failure(Failure(kind, f"{found[1].name}: {given[:200]}"))

    def _subscribe(self, exchange: Exchange) -> None:
        found = self._whose(exchange)
        if found is None:
            return
        body = _object(exchange) or {}
        types, destination = body.get("types"), body.get("destination")
        address: Any = destination.get("URI", destination.get("uri", "")) if isinstance(destination, dict) else ""
        if not isinstance(types, list) or not types or any(kind not in _TYPES for kind in types):
            _refuse(exchange, 400, "ValidationError", "types must be some of platform, function, extension")
        elif not isinstance(destination, dict) or destination.get("protocol") != "HTTP" or not _is_inside(address):
            _refuse(exchange, 400, "ValidationError", "destination must be HTTP to sandbox.localdomain and a port")
        elif self.initialised:
            _refuse(exchange, 403, "Telemetry.SubscriptionClosed", "Telemetry API subscription is closed already")
        else:
            found[1].types, found[1].address = tuple(types), address
            self.record("platform.telemetrySubscription", {"name": found[1].name, "state": "Subscribed", "types": types})
            exchange.respond(200, b'"OK"')


def _headers(identifier: str) -> bytes:
    return b"Content-Type: application/json\r\nLambda-Extension-Identifier: %b\r\n" % identifier.encode()


def _refuse(exchange: Exchange, status: int, kind: str, message: str) -> None:
    exchange.respond(status, json.dumps({"errorMessage": message, "errorType": kind}).encode() + b"\n")


def _object(exchange: Exchange) -> dict[str, Any] | None:
    try:
        found = json.loads(bytes(exchange.body))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_inside(address: object) -> bool:
    """An HTTP address in the sandbox; 9001 and 9002 are the platform's."""
    if not isinstance(address, str) or not address.isprintable() or len(address) > 2_048 or " " in address:
        return False
    try:
        parts = urlsplit(address)
        return parts.scheme == "http" and parts.hostname in _HOSTS and (parts.port or 80) not in (9001, 9002)
    except ValueError:
        return False
