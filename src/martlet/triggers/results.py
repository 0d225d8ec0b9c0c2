"""Results of asynchronous invocations on their way out of Lambda: to a queue, a topic or a bus; and its dead letters.

Shapes as the service writes them (recorded): a queue and a topic get the record as JSON, a bus an event of the source "lambda",
a dead-letter queue or topic the event itself with three attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from martlet.buses import Events
from martlet.errors import Overloaded, Unsupported
from martlet.store import Store, Tx
from martlet.triggers.destinations import Destinations, Message

__all__ = ["Results"]


class Topics(Protocol):
    """Publish within a transaction. Raises `ServiceError`."""

    def put(self, tx: Tx, arn: str, message: str, *, attributes: Mapping[str, Any] = ...) -> None: ...


class Results:
    """What `Control` is given as `deliver`. It refuses with `Overloaded`, to be asked again, until it is opened."""

    def __init__(self) -> None:
        self._open: tuple[Store, Destinations, Events, Topics] | None = None

    def open(self, store: Store, destinations: Destinations, events: Events, topics: Topics) -> None:
        self._open = store, destinations, events, topics

    async def __call__(self, arn: str, record: dict[str, Any]) -> None:
        """Bring a record, or a dead letter {"Body", "MessageAttributes"}, to where it goes; durable when it returns."""
        if self._open is None:
            raise Overloaded("queues, topics and buses are not open yet")
        store, destinations, events, topics = self._open
        attributes: dict[str, Any] = record["MessageAttributes"] if "Body" in record else {}
        text = record["Body"] if "Body" in record else msgspec.json.encode(record).decode()
        service = arn.split(":")[2] if arn.count(":") >= 5 else ""
        if service == "sqs":
            values = {name: (one["DataType"], one["StringValue"]) for name, one in attributes.items()}
            await destinations.send(arn, Message(text, values), by=None)  # the function's role says so
        elif service == "sns":
            await store.transact(lambda tx: topics.put(tx, arn, text, attributes=attributes))
        elif service == "events" and "Body" not in record:
            outcome = "Success" if record["requestContext"]["condition"] == "Success" else "Failure"
            function_arn = str(record["requestContext"]["functionArn"])
            kind = f"Lambda Function Invocation Result - {outcome}"
            await events.publish(arn, "lambda", kind, record, (arn, function_arn))
        else:
            raise Unsupported(f"results are not delivered to {arn}")
