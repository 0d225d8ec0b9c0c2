"""`Queue`: a queue of this app, kept by the platform (the protocol is Amazon SQS's), over the sandbox's private loopback."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from martlet.sdk.client import Answer

__all__ = ["Consumer", "Queue"]

_TIMEOUT_SECONDS = 30.0
_BATCH = 10


class Queue:
    """A named queue of this app. A function may send to it after it says `uses=[queue]`, and gets its messages by
    `@app.on(queue)`.

    `fifo`: in order by group, each message once in five minutes. `visibility` seconds: how long a message is with a consumer
    before it comes again (default: six times its function's timeout). `retries`: after so many failed runs it goes to the queue
    `<name>-dead`. `retention` and `delay` in seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        fifo: bool = False,
        visibility: int | None = None,
        retries: int | None = 5,
        retention: int | None = None,
        delay: int | None = None,
    ) -> None:
        self.name = name
        self.fifo = fifo
        self.visibility = visibility
        self.retries = retries
        self.retention = retention
        self.delay = delay

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    @property
    def full_name(self) -> str:
        """The queue's name on the platform, as AWS's own clients know it."""
        import os

        return f"{os.environ.get('MARTLET_APP', '')}-{self.name}{'.fifo' if self.fifo else ''}"

    def send(
        self, body: Any, *, delay: int | None = None, group: str | None = None, deduplication_id: str | None = None
    ) -> str:
        """Send a message, str as it is, anything else as JSON. Returns its id once it is durable.

        `delay` seconds (not for FIFO); `group`: needed for FIFO, there the default is one group for all. Raises `AccessDenied`,
        `NotFound`, `InvalidInput` (too large, control characters), `Unavailable` when no answer came: it may be sent then."""
        from martlet.sdk.client import call

        request = self._message(body, delay, group, deduplication_id)
        return str(_result(call("POST", "/", **_request("SendMessage", self._addressed(request))))["MessageId"])

    async def asend(
        self, body: Any, *, delay: int | None = None, group: str | None = None, deduplication_id: str | None = None
    ) -> str:
        """`send` for coroutines."""
        from martlet.sdk.client import acall

        request = self._message(body, delay, group, deduplication_id)
        return str(_result(await acall("POST", "/", **_request("SendMessage", self._addressed(request))))["MessageId"])

    def send_many(self, bodies: Iterable[Any], *, group: str | None = None) -> list[str]:
        """Send messages, ten in each request; the ids in their order. Raises as `send` does for the first that is refused;
        those before it, and others of its ten, are sent."""
        from martlet.sdk.client import call
        from martlet.sdk.errors import InvalidInput

        waiting, ids = list(bodies), []
        for start in range(0, len(waiting), _BATCH):
            part = waiting[start : start + _BATCH]
            entries = [{"Id": str(at), **self._message(body, None, group, None)} for at, body in enumerate(part)]
            answer = _result(call("POST", "/", **_request("SendMessageBatch", self._addressed({"Entries": entries}))))
            for failed in answer.get("Failed") or ():
                raise InvalidInput(f"message {start + int(failed['Id'])}: {failed.get('Message') or failed['Code']}")
            ids += [one["MessageId"] for one in sorted(answer["Successful"], key=lambda one: int(one["Id"]))]
        return ids

    def _message(self, body: Any, delay: int | None, group: str | None, deduplication_id: str | None) -> dict[str, Any]:
        from martlet.sdk.encode import dumps

        request: dict[str, Any] = {"MessageBody": body if isinstance(body, str) else dumps(body)}
        if delay is not None:
            request["DelaySeconds"] = delay
        if group is not None or self.fifo:
            request["MessageGroupId"] = group or "all"
        if deduplication_id is not None:
            request["MessageDeduplicationId"] = deduplication_id
        return request

    def _addressed(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"QueueUrl": self.full_name, **request}


class Consumer:
    """What `@app.on(queue)` or `@app.on(collection.changed)` says, with the place that says it."""

    __slots__ = ("batch", "concurrency", "filters", "of_stream", "partial", "queue", "where", "window")

    def __init__(
        self,
        queue: Any,
        batch: int | None,
        window: int,
        filters: list[Any],
        concurrency: int | None,
        partial: bool,
        where: str,
        of_stream: dict[str, Any],
    ) -> None:
        self.queue = queue
        self.of_stream = of_stream
        self.batch = batch
        self.window = window
        self.filters = filters
        self.concurrency = concurrency
        self.partial = partial
        self.where = where


def _request(operation: str, body: dict[str, Any]) -> dict[str, Any]:
    import json

    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"AmazonSQS.{operation}"}
    return {"headers": headers, "body": json.dumps(body).encode(), "timeout_seconds": _TIMEOUT_SECONDS}


def _result(answer: Answer) -> dict[str, Any]:
    import json

    from martlet.sdk.errors import AccessDenied, InvalidInput, NotFound, from_answer

    if answer.status == 200:
        found: dict[str, Any] = json.loads(answer.body) if answer.body else {}
        return found
    error = from_answer(answer.status, answer.headers, answer.body)
    name = str(error.details.get("__type", "")).rpartition("#")[2]
    kind = {"QueueDoesNotExist": NotFound, "AccessDeniedException": AccessDenied}.get(name)
    if kind is None and answer.status == 400:
        kind = InvalidInput
    raise error if kind is None else kind(error.message, details=error.details)
