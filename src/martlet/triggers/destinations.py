"""Where events of buses and topics go on this platform: functions, queues, log groups. One way for every source.

An error that may pass (throttled, overloaded, 5xx) is worth another try; any other is the end of the event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from martlet.clock import Clock, token_hex
from martlet.errors import AccessDenied, InvalidInput, MartletError, NotFound, ServiceError, Throttled
from martlet.queues import Queues
from martlet.queues.attributes import name_in_arn
from martlet.queues.policies import By
from martlet.queues.queues import Draft
from martlet.queues.rows import Value
from martlet.store import Tx

__all__ = ["Accept", "Destinations", "Message", "may_pass"]

_FUNCTION = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>.+))?")
_GROUP = re.compile(r"arn:aws[a-z-]*:logs:[a-z0-9-]+:[0-9]{12}:log-group:(?P<name>[^:*]+)(?::\*)?")
_STREAMS_MAX: Final = 1_000

Attributes = Mapping[str, tuple[str, str | bytes]]  # name -> (type, value)


class Accept(Protocol):
    """Asynchronous invocation: durable when it returns."""

    async def __call__(self, function: str, qualifier: str, payload: bytes, *, request_id: str = ...) -> str: ...


class LogGroups(Protocol):
    async def create_log_stream(self, caller: Any, request: dict[str, Any]) -> Any: ...
    async def put_log_events(self, caller: Any, request: dict[str, Any]) -> Any: ...


class Message:
    """A message for a queue."""

    __slots__ = ("attributes", "body", "deduplication_id", "group", "sender", "trace")

    def __init__(
        self,
        body: str,
        attributes: Attributes | None = None,
        group: str = "",
        deduplication_id: str = "",
        sender: str = "",
        trace: str = "",
    ) -> None:
        self.body = body
        self.attributes = attributes or {}
        self.group = group
        self.deduplication_id = deduplication_id
        self.sender = sender
        self.trace = trace


class Destinations:
    """`resolve(name or ARN)` finds a function; `may_invoke(function, service, source ARN)` asks its resource policy."""

    def __init__(
        self,
        queues: Queues,
        clock: Clock,
        *,
        accept: Accept,
        resolve: Callable[[str], object | None],
        may_invoke: Callable[[str, str, str], bool],
        logs: LogGroups,
        region: str,
    ) -> None:
        self._queues = queues
        self._clock = clock
        self._accept = accept
        self._resolve = resolve
        self._may_invoke = may_invoke
        self._logs = logs
        self.region = region
        self._streams: dict[str, str] = {}

    # --- queues

    def put(self, tx: Tx, arn: str, message: Message, *, by: By | None) -> Callable[[], None]:
        """Send within the caller's transaction; what is returned is to be called after its commit. `by`: the service, and the
        ARN of what it sends for, which the queue's policy must admit; None: a role lets it. Raises `ServiceError`,
        `AccessDenied`."""
        name = name_in_arn(arn, self.region)
        if name is None:
            raise NotFound(f"there is no queue {arn}")
        draft = Draft(
            body=message.body,
            attributes={key: Value(*value) for key, value in message.attributes.items()},
            group=message.group or None,
            deduplication_id=message.deduplication_id or None,
            sender=message.sender,
            trace=message.trace,
        )
        return self._queues.put(tx, name, draft, by=by)

    async def send(self, arn: str, message: Message, *, by: By | None) -> None:
        """Send; durable when it returns. `by` and errors as for `put`."""
        done = await self._queues._store.transact(lambda tx: self.put(tx, arn, message, by=by))
        done()

    # --- functions

    async def invoke(self, arn: str, payload: bytes, id: str, service: str, source_arn: str, *, trusted: bool = False) -> None:
        """Hand an event to a function's asynchronous queue. Raises `NotFound`, `AccessDenied`, `Throttled`."""
        found = _FUNCTION.fullmatch(arn)
        if found is None or self._resolve(arn) is None:
            raise NotFound(f"there is no function {arn}")
        name, qualifier = found["name"], found["qualifier"] or ""
        if not trusted and not self._may_invoke(f"{name}:{qualifier}" if qualifier else name, service, source_arn):
            raise AccessDenied(
                f"the resource policy of {arn} does not let {service} invoke it for {source_arn}",
                principal=service, action="lambda:InvokeFunction", resource=arn,
            )  # fmt: skip
        await self._accept(name, "" if qualifier == "$LATEST" else qualifier, payload, request_id=id)

    # --- log groups

    async def log(self, arn: str, text: str) -> None:
        """Write one event into a log group, into a stream of this process's own. Raises `ServiceError`."""
        found = _GROUP.fullmatch(arn)
        if found is None:
            raise NotFound(f"there is no log group {arn}")
        group = found["name"]
        stream = self._streams.get(group)
        if stream is None:
            stream = token_hex(16)
            await self._logs.create_log_stream(None, {"logGroupName": group, "logStreamName": stream})
            if len(self._streams) >= _STREAMS_MAX:
                self._streams.clear()
            self._streams[group] = stream
        event = {"timestamp": self._clock.now_ms(), "message": text}
        request = {"logGroupName": group, "logStreamName": stream, "logEvents": [event]}
        try:
            await self._logs.put_log_events(None, request)
        except ServiceError:
            self._streams.pop(group, None)  # somebody has deleted it
            raise


def may_pass(error: MartletError) -> bool:
    """Whether another try may do better."""
    if isinstance(error, Throttled):
        return True
    return error.http_status >= 500 and not isinstance(error, InvalidInput) and not error.details.get("refused")
