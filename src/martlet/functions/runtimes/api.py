"""AWS Lambda's Runtime API (2018-06-01) for one instance: what its runtime process polls, and where it answers.

The platform's side gives events (`give`) and hears frames, the same that the native runtime sends through its pipe, so that a
pool need not know which kind of runtime it has. Words, statuses and states are those of AWS's own runtime interface emulator.
One event at a time; an answer to another one, a second answer, a second poller are refused and change nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from martlet.clock import Clock
from martlet.functions.runtimes.wire import Exchange
from martlet.functions.sandboxes.inside import frames
from martlet.limits import LIMITS

__all__ = ["Channel", "Event", "RuntimeApi"]

_VERSION = "/2018-06-01/"
_RESPONSE_BYTES = LIMITS["response_bytes"].default
_STREAM_BYTES = LIMITS["response_stream_bytes"].default
_ERROR_BYTES = 1_048_576
_PRELUDE_BYTES = 1_048_576
_AFTER_PRELUDE = b"\x00" * 8
_GRACE_SECONDS = 0.1  # between a broken answer and the error that explains it
_REFUSALS_AT_MOST = 1_000  # one after the other, without anything useful in between: then it is a flood

_CLOCK = Clock()
_ACCEPTED = b'{"status":"OK"}\n'
_NOT_ALLOWED = "State transition from {} to {} failed for runtime. Error: State transition is not allowed"


class Event(NamedTuple):
    """What `frames.INVOKE` carries."""

    sequence: int
    request_id: str
    timeout_ms: int
    arn: bytes
    trace: bytes
    client: bytes
    payload: bytes
    streams: bool  # its caller takes a stream


class Channel(Protocol):
    """Who hears (the instance)."""

    def on_api_frame(self, kind: int, sequence: int, payload: bytes) -> None:
        """What the runtime said, as a frame of the native runtime's."""
        ...

    def on_polling(self) -> None:
        """It asks for its next event, and was not known to."""
        ...

    def on_flood(self, reason: str) -> None: ...

    def pass_on(self, sock: socket.socket, begun: bytes) -> None: ...


class Side(Protocol):
    """Further paths beside the runtime's: extensions, logs, telemetry."""

    def owns(self, path: str) -> bool: ...

    def begin(self, exchange: Exchange) -> None: ...

    def complete(self, exchange: Exchange) -> None: ...

    def gone(self, exchange: Exchange) -> None: ...

    @property
    def ready(self) -> bool:
        """The first event may come."""
        ...

    def invoke(self, request_id: str, deadline_ms: int, arn: str, trace: str) -> None:
        """The runtime gets this event now."""
        ...


class _Running:
    """The event that the runtime has, and how far its answer is."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.by: Exchange | None = None  # the request that is answering it
        self.answered = False
        self.raw = True  # a stream without a prelude
        self.headed = False
        self.broken: asyncio.TimerHandle | None = None
        self.collected = bytearray()  # the beginning of a stream, up to its prelude's end; a raw one whose caller takes none
        self.bytes_out = 0


class RuntimeApi:
    """`wire.Service` of one instance. `side` takes the paths that are not the runtime's."""

    def __init__(self, channel: Channel, side: Side | None = None, now_ms: Callable[[], int] = _CLOCK.now_ms) -> None:
        self._now_ms = now_ms
        self.state = "Started"
        self._channel = channel
        self._side = side
        self._poller: Exchange | None = None
        self._given: Event | None = None
        self._running: _Running | None = None
        self._refusals = 0
        self._held = False  # the runtime is ready, and others are not

    # --- towards the runtime ------------------------------------------------------------------------------------------

    @property
    def polling(self) -> bool:
        return self._poller is not None and self._poller.open

    @property
    def undelivered(self) -> int:
        """The sequence number of the event that the runtime has not seen, or 0."""
        return self._given.sequence if self._given is not None else 0

    def take_back(self) -> None:
        self._given = None

    def give(self, event: Event) -> None:
        """The next event, when the runtime polls, else as soon as it does."""
        self._given = event
        if self.polling:
            self._deliver()

    def _deliver(self) -> None:
        event, poller = self._given, self._poller
        assert event is not None
        assert poller is not None
        self._given = self._poller = None
        self._running = _Running(event)
        self.state = "Running"
        deadline_ms = self._now_ms() + event.timeout_ms
        if self._side is not None:
            self._side.invoke(event.request_id, deadline_ms, event.arn.decode(), event.trace.decode("latin-1"))
        line = b"Content-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: %b\r\nLambda-Runtime-Deadline-Ms: %d\r\n"
        headers = line % (event.request_id.encode(), deadline_ms)
        for name, value in (
            (b"Invoked-Function-Arn", event.arn),
            (b"Trace-Id", event.trace),
            (b"Client-Context", event.client),
        ):
            if value:
                headers += b"Lambda-Runtime-%b: %b\r\n" % (name, value.replace(b"\r", b" ").replace(b"\n", b" "))
        poller.respond(200, event.payload, headers)

    # --- wire.Service -------------------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> bool:
        path = exchange.path.partition("?")[0]
        if not path.startswith(_VERSION):
            if self._side is None or not self._side.owns(path):
                return False
            exchange.note = self._side
            self._side.begin(exchange)
            return True
        place = path[len(_VERSION) :]
        parts = place.split("/")
        known = _ROUTES.get(place)
        if known is None and len(parts) == 4 and parts[:2] == ["runtime", "invocation"]:
            known = _ROUTES.get(f"runtime/invocation/*/{parts[3]}")
        if known is None:
            exchange.note = _NotFound
        elif exchange.method != known[0]:
            exchange.note = _WrongMethod
        else:
            exchange.note = known[1]
            if known[2] is not None:
                known[2](self, exchange, parts[2])
        return True

    def complete(self, exchange: Exchange) -> None:
        note = exchange.note
        if note is _NotFound:
            self._refuse(exchange, 404, "404 page not found", "NotFound")
        elif note is _WrongMethod:
            self._refuse(exchange, 405, "Method Not Allowed", "MethodNotAllowed")
        elif isinstance(note, _Refusal):
            self._refuse(exchange, *note)
        elif note is self._side and self._side is not None:
            self._side.complete(exchange)
        else:
            note(self, exchange)

    def gone(self, exchange: Exchange) -> None:
        if exchange is self._poller:
            self._poller = None
            return
        if exchange.note is self._side and self._side is not None:
            self._side.gone(exchange)
            return
        running = self._running
        if running is not None and running.by is exchange and not exchange.whole:
            running.by = None  # an answer that broke off: an error may explain it, else it is a truncated one
            running.broken = asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._truncated, running)

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        self._channel.pass_on(sock, begun)

    def malformed(self) -> None:
        self._count_refusal()

    def close(self) -> None:
        """The instance is gone."""
        if self._running is not None and self._running.broken is not None:
            self._running.broken.cancel()
        self._running = self._given = self._poller = None

    # --- refusals -------------------------------------------------------------------------------------------------------

    def _refuse(self, exchange: Exchange, status: int, message: str, kind: str) -> None:
        exchange.respond(
            status, json.dumps({"errorMessage": message, "errorType": kind}, separators=(",", ":")).encode() + b"\n"
        )
        self._count_refusal()

    def _refuse_transition(self, exchange: Exchange, to: str) -> None:
        self._refuse(exchange, 403, _NOT_ALLOWED.format(self.state, to), "InvalidStateTransition")

    def _count_refusal(self) -> None:
        self._refusals += 1
        if self._refusals == _REFUSALS_AT_MOST:
            self._channel.on_flood(f"{_REFUSALS_AT_MOST} refused requests to the Runtime API one after the other")

    # --- next -----------------------------------------------------------------------------------------------------------

    def _next(self, exchange: Exchange) -> None:
        running = self._running
        if running is not None and running.broken is not None:
            self._truncated(running)
        if self.polling or self.state not in ("Started", "Ready", "ResponseSent", "Restored"):
            self._refuse_transition(exchange, "Ready")
            return
        self._running = None
        self._refusals = 0
        first = self.state in ("Started", "Restored")
        self.state = "Ready"
        self._poller = exchange
        if first:
            self._held = True
            self.go_on()
        elif self._given is not None:
            self._deliver()
        else:
            self._channel.on_polling()

    def go_on(self) -> None:
        """The first event may come once the runtime and everybody beside it is ready."""
        if self._held and (self._side is None or self._side.ready):
            self._held = False
            self._channel.on_api_frame(frames.READY, 0, b"{}")
            if self._given is not None and self.polling:
                self._deliver()

    def _ping(self, exchange: Exchange) -> None:
        exchange.respond(200, b"pong", b"Content-Type: text/plain\r\n")
        self._count_refusal()  # no use to anybody: as many as one likes are a flood, too

    def _restore_next(self, exchange: Exchange) -> None:
        """The snapshot's hooks: here nothing is frozen between them, the runtime goes on at once."""
        if self.state != "Started":
            self._refuse_transition(exchange, "Restoring")
            return
        self.state = "Restored"
        exchange.respond(200, b"")

    # --- answers --------------------------------------------------------------------------------------------------------

    def _begin_response(self, exchange: Exchange, request_id: str) -> None:
        running = self._begin_answer(exchange, request_id, "InvocationResponse")
        if running is None:
            return
        mode = exchange.headers.get(b"lambda-runtime-function-response-mode", b"").lower()
        if mode not in (b"", b"buffered", b"streaming"):
            running.by = None
            exchange.note = _Refusal(400, "Invalid response mode", "InvalidFunctionResponseMode")
            return
        exchange.keep_bytes = _RESPONSE_BYTES
        if mode == b"streaming":
            content = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            running.raw = content != b"application/vnd.awslambda.http-integration-response"
            exchange.on_chunk = lambda data: self._on_chunk(running, data)

    def _begin_error(self, exchange: Exchange, request_id: str) -> None:
        running = self._begin_answer(exchange, request_id, "InvocationErrorResponse")
        if running is not None:
            exchange.keep_bytes = _RESPONSE_BYTES

    def _begin_answer(self, exchange: Exchange, request_id: str, to: str) -> _Running | None:
        """The event that this may answer. Else None, and the exchange knows its refusal."""
        running = self._running
        if running is None or running.event.request_id != request_id:
            exchange.note = _Refusal(400, "Invalid request ID", "InvalidRequestID")
            return None
        if running.answered or running.by is not None:
            exchange.note = _Refusal(403, _NOT_ALLOWED.format(self.state, to), "InvalidStateTransition")
            return None
        if running.broken is not None and to != "InvocationErrorResponse" and running.headed:
            exchange.note = _Refusal(403, _NOT_ALLOWED.format(self.state, to), "InvalidStateTransition")
            return None
        running.by = exchange
        self.state = to
        return running

    def _begin_init_error(self, exchange: Exchange, _: str) -> None:
        exchange.keep_bytes = _ERROR_BYTES

    def _response(self, exchange: Exchange) -> None:
        running = self._running
        if running is None or running.by is not exchange:
            return  # it is answered by other means: too large, or timed out
        if exchange.on_chunk is not None:
            self._end_stream(running, exchange)
        elif exchange.oversize:
            message = f"Exceeded maximum allowed payload size ({_RESPONSE_BYTES} bytes)."
            self._refuse(exchange, 413, message, "RequestEntityTooLarge")
            message = f"Response payload size exceeded maximum allowed payload size ({_RESPONSE_BYTES} bytes)."
            self._finish(running, frames.ERROR, _error("Function.ResponseSizeTooLarge", message))
        else:
            exchange.respond(202, _ACCEPTED)
            self._finish(running, frames.RESULT, bytes(exchange.body))

    def _error(self, exchange: Exchange) -> None:
        running = self._running
        if running is None or running.by is not exchange:
            return
        body = _error_object(exchange)
        if exchange.oversize:
            self._refuse(
                exchange, 413, f"Exceeded maximum allowed payload size ({_RESPONSE_BYTES} bytes).", "RequestEntityTooLarge"
            )
        else:
            exchange.respond(202, _ACCEPTED)
        self._finish(running, frames.STREAM_ERROR if running.headed else frames.ERROR, body)

    def _init_error(self, exchange: Exchange) -> None:
        if self.state not in ("Started", "Restored"):
            self._refuse_transition(exchange, "InitError")
            return
        self.state = "InitError"
        exchange.respond(202, _ACCEPTED)
        self._channel.on_api_frame(frames.INIT_ERROR, 0, _error_object(exchange))

    def _finish(self, running: _Running, kind: int, payload: bytes) -> None:
        running.answered = True
        running.by = None
        if running.broken is not None:
            running.broken.cancel()
            running.broken = None
        running.collected.clear()
        self.state = "ResponseSent"
        self._refusals = 0
        self._channel.on_api_frame(kind, running.event.sequence, payload)

    def _truncated(self, running: _Running) -> None:
        if running is self._running and not running.answered and running.by is None:
            payload = _error("Runtime.TruncatedResponse", "The runtime broke off its response")
            self._finish(running, frames.STREAM_ERROR if running.headed else frames.ERROR, payload)

    # --- streams --------------------------------------------------------------------------------------------------------

    def _on_chunk(self, running: _Running, data: bytes) -> None:
        if running.answered or running is not self._running:
            return
        running.bytes_out += len(data)
        if running.bytes_out > (_STREAM_BYTES if running.event.streams else _RESPONSE_BYTES):
            self._stream_failed(running, "Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed size")
            return
        if running.headed:
            self._channel.on_api_frame(frames.CHUNK, running.event.sequence, data)
            return
        running.collected += data
        if running.raw:
            if running.event.streams:
                self._head(running, b"{}", bytes(running.collected))
            return
        end = running.collected.find(_AFTER_PRELUDE)
        if end < 0:
            if len(running.collected) > _PRELUDE_BYTES:
                self._stream_failed(
                    running, "Runtime.InvalidStreamPrelude", "A streamed response without the end of its prelude"
                )
            return
        prelude = bytes(running.collected[:end])
        if _json_object(prelude) is None:
            self._stream_failed(running, "Runtime.InvalidStreamPrelude", "The prelude of a streamed response is no JSON object")
            return
        self._head(running, prelude, bytes(running.collected[end + len(_AFTER_PRELUDE) :]))

    def _head(self, running: _Running, prelude: bytes, rest: bytes) -> None:
        running.headed = True
        running.collected.clear()
        self._channel.on_api_frame(frames.HEAD, running.event.sequence, prelude)
        if rest and not running.answered:
            self._channel.on_api_frame(frames.CHUNK, running.event.sequence, rest)

    def _stream_failed(self, running: _Running, kind: str, message: str) -> None:
        """What still comes of it is dropped; its sender hears of it at the end."""
        if running.by is not None:
            running.by.on_chunk = _drop
            running.by.note = _Refusal(413 if kind == "Function.ResponseSizeTooLarge" else 400, message, kind)
        self._finish(running, frames.STREAM_ERROR if running.headed else frames.ERROR, _error(kind, message))

    def _end_stream(self, running: _Running, exchange: Exchange) -> None:
        failed = exchange.trailers.get(b"lambda-runtime-function-error-type")
        exchange.respond(202, _ACCEPTED)
        if failed is not None:
            body = _decoded(exchange.trailers.get(b"lambda-runtime-function-error-body", b""))
            if _json_object(body) is None:
                body = _error(failed.decode("latin-1")[:256], body.decode("utf-8", "replace"))
            self._finish(running, frames.STREAM_ERROR if running.headed else frames.ERROR, body)
        elif running.headed:
            self._finish(running, frames.END, b"")
        elif not running.raw:
            self._finish(running, frames.ERROR, _error("Runtime.InvalidStreamPrelude", "A streamed response without a prelude"))
        elif running.event.streams:
            self._head(running, b"{}", b"")
            self._finish(running, frames.END, b"")
        else:
            self._finish(running, frames.RESULT, bytes(running.collected))

    def pause(self) -> None:
        if self._running is not None and self._running.by is not None:
            self._running.by.pause()

    def resume(self) -> None:
        if self._running is not None and self._running.by is not None:
            self._running.by.resume()


class _Refusal(NamedTuple):
    status: int
    message: str
    kind: str


class _NotFound: ...


class _WrongMethod: ...


_Begin = Callable[[RuntimeApi, Exchange, str], None] | None
_ROUTES: dict[str, tuple[str, Callable[[RuntimeApi, Exchange], None], _Begin]] = {
    "ping": ("GET", RuntimeApi._ping, None),
    "runtime/invocation/next": ("GET", RuntimeApi._next, None),
    "runtime/invocation/*/response": ("POST", RuntimeApi._response, RuntimeApi._begin_response),
    "runtime/invocation/*/error": ("POST", RuntimeApi._error, RuntimeApi._begin_error),
    "runtime/init/error": ("POST", RuntimeApi._init_error, RuntimeApi._begin_init_error),
    "runtime/restore/next": ("GET", RuntimeApi._restore_next, None),
    "runtime/restore/error": ("POST", RuntimeApi._init_error, RuntimeApi._begin_init_error),
}


def _drop(_: bytes) -> None:
    return None


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _error_object(exchange: Exchange) -> bytes:
    """The body as it came if it is a JSON object, else one made of the header and the body's text."""
    body = bytes(exchange.body)
    if not exchange.oversize and _json_object(body) is not None:
        return body
    kind = exchange.headers.get(b"lambda-runtime-function-error-type", b"Runtime.Unknown").decode("latin-1")[:256]
    text = "an error object that is too large" if exchange.oversize else body.decode("utf-8", "replace")[:65_536]
    return _error(kind, text)


def _decoded(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data
