"""Invocation: request and response, asynchronous, dry run, and as a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from martlet.clock import uuid4_text
from martlet.errors import LimitExceeded, MartletError, NotFound, Overloaded, ServiceError, Throttled
from martlet.functions.asynchronous import Asynchronous, Treatment
from martlet.functions.control.concurrency import Concurrency
from martlet.functions.control.events import Events
from martlet.functions.control.names import LATEST, Name, conflict, not_found, unsupported
from martlet.functions.control.payloads import checked, client_context
from martlet.functions.control.records import EventConfig, Function, Tables
from martlet.functions.failures import FailedEvent, Failures
from martlet.functions.lineage import new_trace, passed_through
from martlet.functions.logs import tail_base64
from martlet.limits import LIMITS
from martlet.types import FunctionVersion, Invocation, Outcome

__all__ = ["Invoke"]

_HOPS: Final = LIMITS["recursion_hops"].default
_SAYS_NOT_WHEN: Final = frozenset({"ReservedFunctionConcurrentInvocationLimitExceeded"})  # recorded: no Retry-After
_AFTER_PRELUDE: Final = b"\x00" * 8
_CHUNKS_AHEAD: Final = 16
_LISTED: Final = LIMITS["failed_events_per_function"].default


class Invoke(Concurrency, Events):
    """The operations that run functions."""

    asynchronous: Asynchronous
    failures: Failures
    _treatments: dict[tuple[str, str], Treatment]  # as last looked up; emptied by every change

    async def invoke(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, Invoke. `Payload` is bytes; a function error is an answer with `FunctionError`.

        `caller.trace_id` is the request's X-Amzn-Trace-Id, if it came with one: it tells loops.
        """
        name = self._name(request)
        self._authorize(caller, "lambda:InvokeFunction", f"{name.name}:{name.qualifier}" if name.qualifier else name.name)
        kind = request.get("InvocationType") or "RequestResponse"
        for member in ("DurableExecutionName", "TenantId"):
            if request.get(member):
                raise unsupported(member)
        payload = checked(bytes(request.get("Payload") or b""), kind)
        self._callable(name)
        if kind == "DryRun":
            return {"StatusCode": 204}
        if kind == "Event":
            await self._accept(caller, name, payload)
            return {"StatusCode": 202}
        want_tail = request.get("LogType") == "Tail"
        context = client_context(request.get("ClientContext") or "")
        trace = self._trace(caller, name)
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def finish(_: Invocation, outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        invocation = _invocation(caller, name, payload, finish, trace, context, want_tail)
        self._functions.dispatch(invocation)
        outcome = await done
        if outcome.refusal is not None:
            raise self._refusal(name, outcome.refusal)
        body: dict[str, Any] = {"StatusCode": 200, "ExecutedVersion": invocation.executed, "Payload": outcome.payload}
        if outcome.error:
            body["FunctionError"] = outcome.error
        if want_tail:
            body["LogResult"] = tail_base64(invocation.log_tail)
        return body

    async def invoke_async(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, InvokeAsync (deprecated there, and still served)."""
        name = self._name(request)
        self._authorize(caller, "lambda:InvokeFunction", name.name)
        payload = checked(bytes(request.get("InvokeArgs") or b""), "Event")
        self._callable(name)
        await self._accept(caller, name, payload)
        return {"Status": 202}

    async def _accept(self, caller: Any, name: Name, payload: bytes) -> None:
        try:
            await self.asynchronous.accept(
                name.name,
                name.qualifier,
                payload,
                request_id=getattr(caller, "request_id", "") or uuid4_text(),
                trace=self._passed(caller, name)[0],
            )
        except (Throttled, Overloaded) as error:
            raise self._refusal(name, error) from error

    def _callable(self, name: Name) -> FunctionVersion:
        """Raises ServiceError if there is nothing to call by this name, or not yet."""
        found = self._functions.find(f"{name.name}:{name.qualifier}" if name.qualifier else name.name)
        if found is not None:
            return found
        stored = self._read(lambda tables: self._resolve(tables, name))
        if stored is not None:
            raise conflict(
                "The operation cannot be performed at this time. The function is currently in the following state: "
                f"{stored.state}"
            )
        raise not_found(name, name.qualifier or LATEST)

    # --- loops ------------------------------------------------------------------------------------------------------

    def _passed(self, caller: Any, name: Name) -> tuple[str, int]:
        trace = getattr(caller, "trace_id", "") or new_trace(self._clock.now_ms())
        return passed_through(trace, name.name)

    def _trace(self, caller: Any, name: Name) -> str:
        """The header for the event. Raises ServiceError RecursiveInvocationException when its chain came here too often."""
        trace, times = self._passed(caller, name)
        if times > _HOPS and not self._treatment(name.name, name.qualifier).loops:
            raise ServiceError(
                "RecursiveInvocationException",
                "Lambda has detected your function being invoked in a recursive loop with other resources and stopped it: "
                f"{name.name} was called more than {_HOPS} times in one chain of requests.",
                400,
                Type="User",
            )
        return trace

    def _treatment(self, function: str, qualifier: str) -> Treatment:
        """What holds for asynchronous events of this qualifier, from its configuration and that of the version it means."""
        key = (function, qualifier)
        found = self._treatments.get(key)
        if found is None:
            found = self._treatments[key] = self._read(lambda tables: self._looked_up(tables, function, qualifier))
        return found

    def _looked_up(self, tables: Tables, function: str, qualifier: str) -> Treatment:
        given = tables.get(EventConfig, function, qualifier or LATEST)
        version = self._resolve(tables, Name(function, qualifier, self._region))
        whole = tables.get(Function, function)
        changes: dict[str, Any] = {"loops": whole is not None and whole.recursion == "Allow"}
        if version is not None:
            changes["dead_letter"] = version.dead_letter
        if given is not None:
            changes |= {"on_success": given.on_success, "on_failure": given.on_failure}
            if given.retries is not None:
                changes["retries"] = given.retries
            if given.age_seconds is not None:
                changes["age_seconds"] = given.age_seconds
        return Treatment(**changes)

    # --- streams ----------------------------------------------------------------------------------------------------

    async def invoke_with_response_stream(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, InvokeWithResponseStream. `EventStream` is an async iterator of {"PayloadChunk": {"Payload"}}
        and at last {"InvokeComplete": {...}}; whoever leaves it early must `aclose` it."""
        name = self._name(request)
        self._authorize(caller, "lambda:InvokeFunction", f"{name.name}:{name.qualifier}" if name.qualifier else name.name)
        if request.get("TenantId"):
            raise unsupported("TenantId")
        payload = checked(bytes(request.get("Payload") or b""), "RequestResponse")
        found = self._callable(name)
        if request.get("InvocationType") == "DryRun":
            return {"StatusCode": 204}
        want_tail = request.get("LogType") == "Tail"
        context = client_context(request.get("ClientContext") or "")
        stream = _Stream(want_tail)
        invocation = _invocation(caller, name, payload, stream.finish, self._trace(caller, name), context, want_tail)
        invocation.on_head, invocation.on_chunk = stream.head, stream.chunk
        stream.invocation = invocation
        self._functions.dispatch(invocation)
        await stream.begun.wait()
        if stream.outcome is not None and stream.outcome.refusal is not None:
            raise self._refusal(name, stream.outcome.refusal)
        body: dict[str, Any] = {
            "StatusCode": 200,
            "ExecutedVersion": invocation.executed or found.qualifier,
            "EventStream": stream.events(),
        }
        if stream.is_http:
            body["ResponseStreamContentType"] = "application/vnd.awslambda.http-integration-response"
        return body

    # --- again ------------------------------------------------------------------------------------------------------

    async def replay(self, request_id: str) -> tuple[FailedEvent, Invocation, Outcome]:
        """Run a recorded failed event once more, as it was called: (what was recorded, what ran now, how it ended).

        Raises NotFound when it is not kept (any more), and what refuses the function an event."""
        event = await self.recorded(request_id)
        name = f"{event.function}:{event.qualifier}" if event.qualifier else event.function
        invocation, outcome = await self._functions.invoke(
            name, event.payload, source="replay", want_log_tail=True, client_context=event.client_context
        )
        if outcome.refusal is not None:
            raise outcome.refusal
        return event, invocation, outcome

    async def recorded(self, request_id: str) -> FailedEvent:
        """A recorded failed event. Raises NotFound."""
        await self.failures.flush()
        return self.failures.get(request_id)

    async def failed_events(self, function: str = "", limit: int = _LISTED) -> list[FailedEvent]:
        """Recorded failed events, newest first: of one function, or so many of each."""
        await self.failures.flush()
        return self.failures.list(function, limit)

    # --- refusals ---------------------------------------------------------------------------------------------------

    def _refusal(self, name: Name, refusal: MartletError) -> MartletError:
        """A refusal in the service's words."""
        if isinstance(refusal, Throttled | Overloaded):
            reason = str(refusal.details.get("reason", "ConcurrentInvocationLimitExceeded"))
            more = {} if reason in _SAYS_NOT_WHEN else {"retryAfterSeconds": str(refusal.retry_after_seconds)}
            return ServiceError("TooManyRequestsException", "Rate Exceeded.", 429, Type="User", Reason=reason, **more)
        if isinstance(refusal, NotFound):
            return not_found(name, name.qualifier or LATEST)
        if isinstance(refusal, LimitExceeded):
            return ServiceError("RequestTooLargeException", refusal.message, 413, Type="User")
        if isinstance(refusal, ServiceError):
            return refusal
        return ServiceError("ServiceException", refusal.message, 500, Type="Service")


def _invocation(caller: Any, name: Name, payload: bytes, finish: Any, trace: str, context: str, want_tail: bool) -> Invocation:
    return Invocation(
        f"{name.name}:{name.qualifier}" if name.qualifier else name.name,
        payload,
        getattr(caller, "request_id", "") or uuid4_text(),
        finish,
        source="api",
        trace_id=trace,
        client_context=context,
        arn=name.qualified if name.qualifier else "",
        want_log_tail=want_tail,
    )


class _Stream:
    """Between an instance that writes and a client that reads."""

    def __init__(self, want_tail: bool) -> None:
        self.begun = asyncio.Event()
        self.outcome: Outcome | None = None
        self.is_http = False
        self.invocation: Invocation | None = None
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._want_tail = want_tail
        self._paused = self._streamed = False

    def head(self, prelude: bytes) -> None:
        self._streamed = True
        if prelude and prelude != b"{}":
            self.is_http = True
            self._chunks.put_nowait(prelude + _AFTER_PRELUDE)
        self.begun.set()

    def chunk(self, data: bytes) -> None:
        self._streamed = True
        self._chunks.put_nowait(data)
        self.begun.set()
        control = self.invocation.control if self.invocation is not None else None
        if self._chunks.qsize() >= _CHUNKS_AHEAD and control is not None and not self._paused:
            self._paused = True
            control.pause()

    def finish(self, invocation: Invocation, outcome: Outcome) -> None:
        self.outcome = outcome
        if not self._streamed and outcome.refusal is None and not outcome.error:
            self._chunks.put_nowait(outcome.payload)
        self._chunks.put_nowait(None)
        self.begun.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        try:
            while (data := await self._chunks.get()) is not None:
                self._resume()
                yield {"PayloadChunk": {"Payload": data}}
            yield {"InvokeComplete": self._complete()}
        finally:
            if self.outcome is None and self.invocation is not None and self.invocation.control is not None:
                self.invocation.control.cancel()

    def _resume(self) -> None:
        if self._paused and self._chunks.qsize() < _CHUNKS_AHEAD // 2 and self.invocation is not None:
            self._paused = False
            self.invocation.control.resume()

    def _complete(self) -> dict[str, Any]:
        assert self.outcome is not None
        assert self.invocation is not None
        body: dict[str, Any] = {}
        if self.outcome.error:
            body["ErrorCode"] = self.outcome.error
            body["ErrorDetails"] = self.outcome.payload.decode("utf-8", "replace")
        elif self.outcome.refusal is not None:
            body["ErrorCode"] = "ServiceException"
            body["ErrorDetails"] = self.outcome.refusal.message
        if self._want_tail:
            body["LogResult"] = tail_base64(self.invocation.log_tail)
        return body
