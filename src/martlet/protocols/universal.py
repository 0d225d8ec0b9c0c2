"""The platform's own services called by name, with parameters as JSON and by a role: a schedule's universal target.

What such a target says is what an SDK would be given, so members have the model's names, whatever the service's protocol; a
blob is text, a timestamp RFC 3339 or epoch seconds. Source: EventBridge Scheduler user guide, "Using universal targets".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

from martlet.auth import role_for_service
from martlet.clock import uuid4_text
from martlet.errors import AccessDenied, InvalidInput, Unsupported
from martlet.protocols import codec
from martlet.protocols.codec import Caller, Malformed, OperationModel
from martlet.protocols.codec.json_body import Convert, JsonDecoders
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.scalars import from_iso, moment
from martlet.protocols.rooms import Rooms
from martlet.store import Store
from martlet.types import ACCOUNT

__all__ = ["Universal"]

_SERVICE: Final = "scheduler.amazonaws.com"
# The SDK's names where they are not boto3's. Both are taken.
_NAMES: Final = {"eventbridge": "events", "cloudwatchlogs": "logs"}
# The operations of which the guide says that they only read, and that no schedule may name.
_READING = re.compile(
    r"(get|describe|list|poll|receive|search|scan|query|select|read|lookup|discover|validate|batchGet|batchDescribe|batchRead"
    r"|transactGet|adminGet|adminList|testMigration|retrieve|testConnection|translateDocument|isAuthorized|invokeModel)(?![a-z])"
)


class Universal:
    """`rooms()` are what there is to call; `store` is where roles are looked up."""

    def __init__(self, rooms: Callable[[], Rooms], store: Store) -> None:
        self._make = rooms
        self._made: Rooms | None = None
        self._store = store
        self._decoders = _Decoders()

    async def check(self, service: str, action: str, parameters: dict[str, Any]) -> None:
        """Raises `Unsupported` for what is not here, `InvalidInput` for what no operation may be told."""
        if _READING.match(action):
            raise InvalidInput(f"{action} only reads, which no schedule may do", field="Arn")
        operation = await self._operation(service, action)
        known = operation.input.members if operation.input is not None else {}
        unknown = next((name for name in parameters if name not in known), None)
        if unknown is not None:
            raise Unsupported(f"the operation {operation.service.name}:{operation.name} has no parameter {unknown}")

    async def __call__(self, service: str, action: str, role: str, parameters: dict[str, Any]) -> None:
        """Raises what the operation raises, `AccessDenied`, `InvalidInput` for parameters of a wrong form."""
        region = self._rooms.region
        principal = self._store.read(lambda reader: role_for_service(reader, role, ACCOUNT, _SERVICE, region))
        if principal is None:
            raise AccessDenied(f"EventBridge Scheduler may not take the role {role}", action="sts:AssumeRole", resource=role)
        operation = await self._operation(service, action)
        room = self._rooms.services[operation.service.name]
        method = codec.method_of(room, operation)
        value = self._value(operation, parameters)
        permission = codec.permission_of(room, operation, value)
        if permission is not None:
            self._rooms.auth.authorize(principal, *permission)
        codec.precheck(room, operation, value)
        codec.check(operation, value)
        await method(Caller(principal=principal, region=region, account=ACCOUNT, request_id=uuid4_text(), endpoint=""), value)

    async def _operation(self, service: str, action: str) -> OperationModel:
        name = _NAMES.get(service, service)
        missing = Unsupported(f"the operation {service}:{action} is not supported")
        if name not in self._rooms.services:
            raise missing
        model = await asyncio.to_thread(codec.load, name)
        found = None if model is None else model.operations.get(action[:1].upper() + action[1:])
        if found is None:
            raise missing
        codec.method_of(self._rooms.services[name], found)
        return found

    @property
    def _rooms(self) -> Rooms:
        self._made = self._made or self._make()
        return self._made

    def _value(self, operation: OperationModel, parameters: dict[str, Any]) -> dict[str, Any]:
        convert = None if operation.input is None else self._decoders.of(operation.input)
        try:
            return parameters if convert is None else dict(convert(parameters))
        except Malformed as error:
            raise InvalidInput(f"{operation.service.name}:{operation.name}: {error.message}") from error


class _Decoders(JsonDecoders):
    """As an SDK takes parameters."""

    def compile(self, shape: Shape) -> Convert | None:
        if shape.kind == "structure" and not shape.document:
            return self.structure({name: (name, member) for name, member in shape.members.items()})
        if shape.kind == "blob":
            return _bytes
        return _time if shape.kind == "timestamp" else super().compile(shape)


def _bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise Malformed("a blob is given as text")
    return value.encode()


def _time(value: Any) -> Any:
    return moment(value) if type(value) in (int, float) else from_iso(str(value))
