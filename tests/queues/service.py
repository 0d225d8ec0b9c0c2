"""The service as a test calls it: `await sqs("SendMessage", QueueUrl=..., ...)`, and the errors by name and text."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.clock import ManualClock
from martlet.errors import ServiceError
from martlet.protocols.codec import Caller, method_name
from martlet.queues import Queues, Sqs
from martlet.types import Principal

CALLER = Caller(Principal("root", "root"), "us-east-1", "000000000000", "request", "http://127.0.0.1:8701")
ARN = "arn:aws:sqs:us-east-1:000000000000:"


def url(name: str) -> str:
    return f"http://127.0.0.1:8701/000000000000/{name}"


class Service:
    """Drops members without a value, as the codec does."""

    def __init__(self, queues: Queues, clock: ManualClock) -> None:
        self.queues = queues
        self.clock = clock
        self.service = Sqs(queues)

    async def __call__(self, operation: str, **request: Any) -> dict[str, Any]:
        answer = await getattr(self.service, method_name(operation))(CALLER, request)
        found: dict[str, Any] = _without_none(answer or {})
        return found

    async def fails(self, error: str, text: str, operation: str, **request: Any) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            await self(operation, **request)
        assert (caught.value.name, text in caught.value.message) == (error, True), caught.value.message
        return caught.value

    async def queue(self, name: str = "q", tags: dict[str, str] | None = None, **attributes: str) -> str:
        given = {"FifoQueue": "true", **attributes} if name.endswith(".fifo") else attributes
        answer = await self("CreateQueue", QueueName=name, Attributes=given, tags=tags)
        return str(answer["QueueUrl"])

    async def send(self, queue: str, body: str, **request: Any) -> dict[str, Any]:
        return await self("SendMessage", QueueUrl=queue, MessageBody=body, **request)

    async def receive(self, queue: str, most: int = 10, **request: Any) -> list[dict[str, Any]]:
        request.setdefault("WaitTimeSeconds", 0)
        answer = await self("ReceiveMessage", QueueUrl=queue, MaxNumberOfMessages=most, **request)
        return answer.get("Messages", [])

    async def bodies(self, queue: str, most: int = 10, **request: Any) -> list[str]:
        return [message["Body"] for message in await self.receive(queue, most, **request)]

    async def delete(self, queue: str, message: dict[str, Any]) -> None:
        await self("DeleteMessage", QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    async def counts(self, queue: str) -> tuple[int, int, int]:
        """(visible, in flight, delayed)"""
        found = (await self("GetQueueAttributes", QueueUrl=queue, AttributeNames=["All"]))["Attributes"]
        names = ("", "NotVisible", "Delayed")
        return tuple(int(found[f"ApproximateNumberOfMessages{name}"]) for name in names)  # type: ignore[return-value]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
