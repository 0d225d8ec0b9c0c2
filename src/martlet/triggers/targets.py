"""How changes of objects reach what a bucket's notification configuration names: a queue, a function's queue of events, a
topic, or the account's event bus."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from martlet.buses import Events, Sns
from martlet.clock import uuid4_text
from martlet.errors import AccessDenied, Overloaded, Unsupported
from martlet.objects import Notice
from martlet.queues import Queues
from martlet.queues.queues import Draft
from martlet.store import Store

__all__ = ["ObjectTargets"]

_SERVICE = "s3.amazonaws.com"
_NOT_ADMITTED = "Permissions on the destination queue do not allow S3 to publish notifications from this bucket"


class ObjectTargets:
    """`may_invoke(function, service, source arn)`: the function's policy; `enqueue(function, payload, request id)`: durable."""

    def __init__(
        self,
        queues: Queues,
        may_invoke: Callable[[str, str, str], bool],
        enqueue: Callable[[str, bytes, str], Awaitable[None]],
    ) -> None:
        self._queues = queues
        self._may_invoke = may_invoke
        self._enqueue = enqueue
        self._rooms: tuple[Store, Events, Sns] | None = None

    def open(self, store: Store, events: Events, topics: Sns) -> None:
        """From now on topics and the bus are told too; until then they are `Overloaded`, and asked again."""
        self._rooms = store, events, topics

    async def tell(self, notice: Notice) -> None:
        """Hand it over; durable when this returns. Raises `MartletError`."""
        kind, name = _parts(notice.target)
        body = json.dumps(notice.payload, separators=(",", ":"))
        if kind == "sqs":
            await self._queues.send(name, [Draft(body=body)], by=(_SERVICE, notice.source))
        elif kind == "lambda":
            function = notice.target.partition(":function:")[2]
            if not self._may_invoke(function, _SERVICE, notice.source):
                raise AccessDenied(f"{notice.source} may not invoke {function}")
            await self._enqueue(function, body.encode(), uuid4_text())
        elif self._rooms is None:
            raise Overloaded("topics and buses are not open yet")
        elif kind == "sns":
            store, _, topics = self._rooms
            await store.transact(lambda tx: topics.put(tx, notice.target, body, subject="Amazon S3 Notification"))
        elif notice.target == "events":
            event = notice.payload
            known = {name: event[name] for name in ("id", "time", "source", "detail", "resources")}
            await self._rooms[1].take("default", [{**known, "type": event["detail-type"]}])
        else:
            raise Unsupported(f"changes of objects do not reach {notice.target}")

    async def why_not(self, arn: str, source: str) -> str:
        """Why a target cannot be told, in S3's words; "" if it can."""
        kind, name = _parts(arn)
        if kind == "sqs":
            if self._queues.find(name) is None:
                return "The destination queue does not exist"
            return "" if self._queues.admits(name, (_SERVICE, source)) else _NOT_ADMITTED
        if kind == "lambda":
            allowed = self._may_invoke(arn.partition(":function:")[2], _SERVICE, source)
            return "" if allowed else f"Not authorized to invoke function [{arn}]"
        if kind == "sns" and self._rooms is not None:
            return "" if self._rooms[2].has(arn) else "The destination topic does not exist"
        return f"Changes of objects do not reach {arn}"


def _parts(arn: str) -> tuple[str, str]:
    """(service, name)."""
    pieces = arn.split(":")
    return (pieces[2], pieces[-1]) if len(pieces) > 5 else ("", arn)
