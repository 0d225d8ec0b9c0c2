"""Where batches go that a trigger gives up: queues and functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from martlet.clock import uuid4_text
from martlet.errors import NotFound, ServiceError
from martlet.queues import Queues
from martlet.queues.queues import Draft
from martlet.triggers.sources import Resolve

__all__ = ["GivenUp"]


class GivenUp:
    """`resolve` finds a function by its ARN, `enqueue(name, payload, request id)` makes it run, durably."""

    def __init__(self, queues: Queues, resolve: Resolve, enqueue: Callable[[str, bytes, str], Awaitable[None]]) -> None:
        self._queues = queues
        self._resolve = resolve
        self._enqueue = enqueue

    def check(self, arn: str) -> str:
        """ "" if batches can go there, else why not."""
        if ":sqs:" in arn:
            return "" if self._queues.find_arn(arn) is not None else "there is no such queue"
        if ":lambda:" in arn:
            return "" if self._resolve(arn) is not None else "there is no such function"
        return "Martlet sends given-up batches to queues and functions"

    async def send(self, arn: str, body: bytes) -> None:
        """Raises `NotFound`, `ServiceError` (too large)."""
        if ":lambda:" in arn:
            await self._enqueue(arn.partition(":function:")[2], body, uuid4_text())
            return
        queue = self._queues.find_arn(arn)
        if queue is None:
            raise NotFound(f"there is no queue {arn}")
        text = body.decode()
        draft = Draft(body=text, group="all", deduplication_id=uuid4_text()) if queue.fifo else Draft(body=text)
        (sent,) = await self._queues.send(queue.name, [draft])
        if isinstance(sent, ServiceError):
            raise sent
