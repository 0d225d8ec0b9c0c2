"""AWS::DynamoDB::Table over the real service, on a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from martlet.apps.stacks.kinds import check, needs_replacement
from martlet.apps.stacks.providers.provider import Caller, Context
from martlet.apps.stacks.providers.tables import TableProvider
from martlet.clock import ManualClock
from martlet.documents.dynamodb import DynamoDb, Tables
from martlet.errors import ServiceError
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.types import Principal

PROPERTIES: dict[str, Any] = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "g", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
    "GlobalSecondaryIndexes": [
        {"IndexName": "by_g", "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}], "Projection": {"ProjectionType": "ALL"}}
    ],
    "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
    "TimeToLiveSpecification": {"AttributeName": "ttl", "Enabled": True},
    "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
}


@pytest.fixture
async def tables() -> AsyncIterator[Tables]:
    clock = ManualClock()
    store = Store(MemoryEngine(), clock=clock)
    made = Tables(store, clock)
    await made.start()
    yield made
    await made.stop()
    await store.close()


@pytest.fixture
def service(tables: Tables) -> DynamoDb:
    return DynamoDb(tables, lambda *asked: None)


@pytest.fixture
def context() -> Context:
    caller = Caller(Principal("root", "root"), "us-east-1", "000000000000", "id")
    return Context(
        stack_name="shop",
        stack_id="arn:stack",
        logical_id="Orders",
        region="us-east-1",
        account="000000000000",
        caller=caller,
        token="t",
    )


async def test_a_table_is_made_changed_in_place_and_removed(service: DynamoDb, context: Context) -> None:
    provider = TableProvider(service)
    identified = provider.identify(context, PROPERTIES)
    made = await provider.create(context, identified.id, PROPERTIES)
    assert made.id == identified.id
    assert made.attributes["Arn"] == identified.attributes["Arn"]
    assert made.attributes["StreamArn"].startswith(f"{made.attributes['Arn']}/stream/")
    again = await provider.create(context, identified.id, PROPERTIES)  # as after a crash
    assert again == made
    new: dict[str, Any] = {
        **PROPERTIES,
        "BillingMode": "PROVISIONED",
        "ProvisionedThroughput": {"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by_g_keys",
                "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
                "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
            }
        ],
        "StreamSpecification": {"StreamViewType": "KEYS_ONLY"},
        "TimeToLiveSpecification": {"AttributeName": "other", "Enabled": True},
        "Tags": [{"Key": "b", "Value": "3"}],
        "DeletionProtectionEnabled": True,
    }
    async with asyncio.timeout(10):
        changed = await provider.update(context, made, PROPERTIES, new)
    found = (await service.describe_table(context.caller, {"TableName": made.id}))["Table"]
    assert found["ProvisionedThroughput"]["WriteCapacityUnits"] == 4
    assert [(one["IndexName"], one["IndexStatus"]) for one in found["GlobalSecondaryIndexes"]] == [("by_g_keys", "ACTIVE")]
    assert found["StreamSpecification"]["StreamViewType"] == "KEYS_ONLY"
    assert changed.attributes["StreamArn"] == found["LatestStreamArn"] != made.attributes["StreamArn"]  # type: ignore[union-attr]
    ttl = await service.describe_time_to_live(context.caller, {"TableName": made.id})
    assert ttl["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "other"}
    tags = await service.list_tags_of_resource(context.caller, {"ResourceArn": made.attributes["Arn"]})
    assert tags["Tags"] == [{"Key": "b", "Value": "3"}]
    with pytest.raises(ServiceError):
        await provider.delete(context, made, new)
    await provider.update(context, made, new, {**new, "DeletionProtectionEnabled": False})
    await provider.delete(context, made, new)
    await provider.delete(context, made, new)
    with pytest.raises(ServiceError):
        await service.describe_table(context.caller, {"TableName": made.id})


def test_keys_replace_and_what_is_not_there_is_refused_by_name() -> None:
    kind = TableProvider.kind
    other = {**PROPERTIES, "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}]}
    assert needs_replacement(kind, PROPERTIES, other) == ["KeySchema"]
    assert check(kind, PROPERTIES, "Orders", 1) == []
    (fault,) = check(kind, {**PROPERTIES, "KinesisStreamSpecification": {"StreamArn": "x"}}, "Orders", 1)
    assert fault.unsupported
    assert "KinesisStreamSpecification is not supported" in fault.text
