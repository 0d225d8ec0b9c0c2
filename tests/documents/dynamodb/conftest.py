"""The two services over a store in memory, called as the codec calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from martlet.clock import ManualClock
from martlet.documents.dynamodb import DynamoDb, DynamoDbStreams, Tables
from martlet.errors import ServiceError
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

Call = Callable[..., Awaitable[dict[str, Any]]]


class Caller(msgspec.Struct):
    principal: str = "root"
    endpoint: str = "http://127.0.0.1:1"


def allow(principal: Any, action: str, resource: str) -> None:
    if principal != "root":
        raise ServiceError("AccessDeniedException", f"{action} on {resource}")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def tables(clock: ManualClock) -> AsyncIterator[Tables]:
    store = Store(MemoryEngine(), clock=clock)
    yield Tables(store, clock)
    await store.close()


@pytest.fixture
def call(tables: Tables) -> Call:
    """`call("PutItem", TableName=..., Item=...)` → the answer."""
    services = (DynamoDb(tables, allow), DynamoDbStreams(tables))

    async def run(operation: str, principal: str = "root", **request: Any) -> dict[str, Any]:
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)[1:]
        service = services[0] if hasattr(services[0], name) else services[1]
        return await getattr(service, name)(Caller(principal), request) or {}

    return run


@pytest.fixture
def refused(call: Call) -> Callable[..., Awaitable[ServiceError]]:
    """`refused("PutItem", ...)` → the error."""

    async def run(operation: str, **request: Any) -> ServiceError:
        with pytest.raises(ServiceError) as raised:
            await call(operation, **request)
        return raised.value

    return run


@pytest.fixture
def create(call: Call) -> Callable[..., Awaitable[dict[str, Any]]]:
    """`create("orders", "p:S", "s:N", gsi={"by": "g:S h:N"}, lsi={...}, **more)`: a table on demand."""

    async def run(
        name: str, hashed: str = "p:S", ranged: str = "", *, gsi: Any = None, lsi: Any = None, **more: Any
    ) -> dict[str, Any]:
        types: dict[str, str] = {}

        def schema(*keys: str) -> list[dict[str, str]]:
            found = []
            for key, kind in zip([one for one in keys if one], ("HASH", "RANGE"), strict=False):
                attribute, _, of = key.partition(":")
                types[attribute] = of
                found.append({"AttributeName": attribute, "KeyType": kind})
            return found

        def indexes(given: Any) -> list[dict[str, Any]]:
            found = []
            for index, keys in given.items():
                text, _, projection = keys.partition(" | ")
                kind, *attributes = projection.split() or ["ALL"]
                told: dict[str, Any] = {"ProjectionType": kind}
                if attributes:
                    told["NonKeyAttributes"] = attributes
                found.append({"IndexName": index, "KeySchema": schema(*text.split()), "Projection": told})
            return found

        request: dict[str, Any] = {"TableName": name, "BillingMode": "PAY_PER_REQUEST", "KeySchema": schema(hashed, ranged)}
        if gsi:
            request["GlobalSecondaryIndexes"] = indexes(gsi)
        if lsi:
            request["LocalSecondaryIndexes"] = indexes(lsi)
        request["AttributeDefinitions"] = [{"AttributeName": key, "AttributeType": kind} for key, kind in types.items()]
        return (await call("CreateTable", **request, **more))["TableDescription"]

    return run
