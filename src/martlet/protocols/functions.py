"""Functions over the management API: what there is, run one, and run again what failed.

A function is named "f", "f:3" (a published version), "f:live" (an alias), or by its short name where only one app has it.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from martlet.errors import AccessDenied, InvalidInput, NotFound
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.rooms import FailedEvent, Failures, Rooms
from martlet.types import FunctionVersion, Invocation, Outcome, Principal

__all__ = ["FunctionEndpoints"]

Identify = Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]


class Narrate(Protocol):
    """Runs work whose events become the lines of the answer. Unless it is `lasting`, it ends with its reader."""

    async def __call__(
        self,
        work: Callable[[], Awaitable[dict[str, Any]]],
        events: asyncio.Queue[dict[str, Any]],
        request: Request,
        *,
        lasting: bool = True,
    ) -> Answer: ...


_SUFFIX: Final = re.compile(r"-[0-9A-F]{12}$")  # what a stack adds to the names that it makes
_NAMED_MOST: Final = 10  # names in a remedy
_LISTED_EACH: Final = 20  # failed events of each function, where none is named


class FunctionEndpoints:
    """The operations of /v1/functions and /v1/failures."""

    def __init__(self, rooms: Rooms, identify: Identify, narrate: Narrate) -> None:
        self._rooms = rooms
        self._identify = identify
        self._narrate = narrate

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("GET", "/v1/functions", self.functions),
            Operation("GET", "/v1/functions/{name}", self.function),
            Operation("POST", "/v1/functions/{name}/invocations", self.invoke),
            Operation("POST", "/v1/functions/{name}/debug", self.debug),
            Operation("GET", "/v1/failures", self.failures),
            Operation("POST", "/v1/failures/{id}/replays", self.replay),
        )

    async def _allowed(self, request: Request, action: str, resource: str = "*") -> None:
        principal, _ = await self._identify(request, "request_line_bytes")
        self._rooms.auth.authorize(principal, action, resource)

    # --- names

    def full_name(self, name: str) -> str:
        """`name`, or the one function whose short name it is: "place" for "shop-place" where no other app has a "place", and
        for a stack's "shop-Place-0A1B2C3D4E5F" its logical id, with or without the stack's name."""
        short, colon, qualifier = name.partition(":")
        if self._rooms.functions.find(short) is not None:
            return name
        found = [one.name for one in self._rooms.functions.all() if one.key == one.name and short in _short_names(one)]
        return found[0] + colon + qualifier if len(found) == 1 else name

    def check(self, function: str, what: str) -> None:
        """Raises `NotFound`; `InvalidInput` for a version or an alias, where `what` is kept by function only."""
        name, colon, _ = function.partition(":")
        if self._rooms.functions.find(name) is None:
            raise self._unknown(name)
        if colon:
            raise InvalidInput(f"{what} are kept by function, not by version or alias", field="function", remedy=f"say {name}")

    def _unknown(self, name: str) -> NotFound:
        """With the names that are most like it, or those that there are."""
        short, _, qualifier = name.partition(":")
        if qualifier and self._rooms.functions.find(short) is not None:
            return NotFound(
                f"function {short!r} has no version or alias {qualifier!r}", remedy="see `martlet functions --versions`"
            )
        names = sorted({one.name for one in self._rooms.functions.all()})
        like = difflib.get_close_matches(short, names, 3) or [one for one in names if short in one][:3]
        if like:
            remedy = f"did you mean {' or '.join(like)}?"
        elif names:
            more = f" and {len(names) - _NAMED_MOST} more: see `martlet functions`" if len(names) > _NAMED_MOST else ""
            remedy = f"there are: {', '.join(names[:_NAMED_MOST])}{more}"
        else:
            remedy = "nothing is deployed yet: martlet deploy PATH"
        return NotFound(f"there is no function {short!r}", remedy=remedy)

    # --- functions

    async def functions(self, request: Request) -> Answer:
        await self._allowed(request, "lambda:ListFunctions")
        query = request.query(("app", "versions"))
        app_name, versions = query.get("app"), asgi.flag(query, "versions")
        found = [
            version
            for version in self._rooms.functions.all()
            if app_name in (None, version.app) and (versions or version.key == version.name)
        ]
        found.sort(key=lambda version: (version.name, version.key != version.name, len(version.key), version.key))
        return asgi.json_answer({"functions": [_function_object(version) for version in found]})

    async def function(self, request: Request) -> Answer:
        name = self.full_name(request.parameters["name"])
        await self._allowed(request, "lambda:GetFunction", name.partition(":")[0])
        version = self._rooms.functions.find(name)
        if version is None:
            raise self._unknown(name)
        return asgi.json_answer(_function_object(version))

    async def invoke(self, request: Request) -> Answer:
        name = self.full_name(request.parameters["name"])
        principal, payload = await self._identify(request, "payload_bytes")
        self._rooms.auth.authorize(principal, "lambda:InvokeFunction", name.partition(":")[0])
        want_log = asgi.flag(request.query(("log",)), "log")
        _check_json(payload)
        if self._rooms.functions.find(name) is None:
            raise self._unknown(name)
        invocation, outcome = await self._rooms.functions.invoke(name, payload or b"{}", source="api", want_log_tail=want_log)
        if outcome.refusal is not None:
            raise outcome.refusal
        return asgi.json_answer(_invocation_object(name, invocation, outcome, want_log))

    async def debug(self, request: Request) -> Answer:
        """Run one event under a debugger. A client that hangs up ends it."""
        name = self.full_name(request.parameters["name"])
        principal, payload = await self._identify(request, "payload_bytes")
        self._rooms.auth.authorize(principal, "lambda:InvokeFunction", name.partition(":")[0])
        if principal.kind != "root":  # whoever reaches the port has the function's code and data in hand
            raise AccessDenied(f"{principal.kind} {principal.name} may not debug {name}", principal=principal.name)
        if self._rooms.functions.find(name) is None:
            raise self._unknown(name)
        query = request.query(("port", "log"))
        port, want_log = asgi.whole(query, "port", 0, high=65_535), asgi.flag(query, "log")
        _check_json(payload)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def work() -> dict[str, Any]:
            invocation, outcome = await self._rooms.functions.debug(
                name, payload or b"{}", port=port, say=lambda text: events.put_nowait({"type": "progress", "text": text})
            )
            if outcome.refusal is not None:
                raise outcome.refusal
            return {"type": "result", "invocation": _invocation_object(name, invocation, outcome, want_log)}

        return await self._narrate(work, events, request, lasting=False)

    # --- what failed

    def _failures(self) -> Failures:
        if self._rooms.failures is None:
            raise NotFound("this platform keeps no failed events")
        return self._rooms.failures

    async def failures(self, request: Request) -> Answer:
        query = request.query(("function",))
        function = self.full_name(query["function"]) if "function" in query else ""
        await self._allowed(request, "logs:Read", function or "*")
        if function:
            self.check(function, "failed events")
            found = await self._failures().failed_events(function)
        else:
            found = await self._failures().failed_events("", _LISTED_EACH)
        return asgi.json_answer({"failures": [_failure_object(event) for event in found]})

    async def replay(self, request: Request) -> Answer:
        principal, _ = await self._identify(request, "request_line_bytes")
        want_log = asgi.flag(request.query(("log",)), "log")
        id = request.parameters["id"]
        recorded = await self._failures().recorded(id)
        self._rooms.auth.authorize(principal, "lambda:InvokeFunction", recorded.function)
        event, invocation, outcome = await self._failures().replay(id)
        name = f"{event.function}:{event.qualifier}" if event.qualifier else event.function
        return asgi.json_answer({"replay_of": event.id, **_invocation_object(name, invocation, outcome, want_log)})


def _check_json(payload: bytes) -> None:
    fault = asgi.json_fault(payload)
    if fault:
        raise InvalidInput(f"the payload is not JSON: {fault}", field="body")


def _function_object(version: FunctionVersion) -> dict[str, Any]:
    """A function without the values of its environment, which may be secrets: only their names."""
    config: dict[str, Any] = msgspec.to_builtins(version.config)
    config["environment"] = sorted(version.config.environment)
    return {
        "name": version.name,
        "qualifier": version.qualifier,
        "app": version.app,
        "arn": version.arn,
        "runtime": version.runtime,
        "version": version.version,
        "code": version.code,
        "layer": version.layer,
        "created_at_ms": version.created_at_ms,
        "config": config,
    }


def _invocation_object(name: str, invocation: Invocation, outcome: Outcome, want_log: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "request_id": invocation.request_id,
        "function": name,
        "version": invocation.version,
        "error": outcome.error,
        "error_type": outcome.error_type,
        "cold": invocation.cold,
        "queue_us": invocation.queue_us,
        "init_us": invocation.init_us,
        "duration_us": invocation.duration_us,
        "cpu_us": invocation.cpu_us,
        "peak_mb": invocation.peak_mb,
        "payload": _json_of(outcome.payload),
    }
    if want_log:
        body["log"] = invocation.log_tail.decode("utf-8", "replace")
    return body


def _failure_object(event: FailedEvent) -> dict[str, Any]:
    """A recorded event without its payload, which may hold what the logs do not."""
    return {
        "request_id": event.id,
        "function": event.function,
        "qualifier": event.qualifier,
        "at_ms": event.at_ms,
        "source": event.source,
        "error_type": event.error_type,
        "payload_bytes": len(event.payload),
    }


def _json_of(payload: bytes) -> Any:
    """A function's answer within ours. Code in a sandbox wrote it: unless it is JSON, and nothing but one value, it is text."""
    try:
        msgspec.json.decode(payload or b"null")
    except (msgspec.DecodeError, RecursionError):
        return payload.decode("utf-8", "replace")
    return msgspec.Raw(payload or b"null")


def _short_names(version: FunctionVersion) -> tuple[str, ...]:
    own = _SUFFIX.sub("", version.name)
    return version.config.name, own, own.removeprefix(f"{version.app}-")
