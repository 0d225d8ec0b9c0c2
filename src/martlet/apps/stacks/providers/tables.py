"""AWS::DynamoDB::Table, and with it AWS::Serverless::SimpleTable, which SAM's translator makes into one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from martlet.apps.stacks.kinds import Kind, fixed, object_of, refused, taken, value
from martlet.apps.stacks.providers.provider import Context, Physical, Provider, _Replace, generated_name, unknown
from martlet.errors import ServiceError

__all__ = ["DynamoDb", "TableProvider", "table_providers"]

Request = dict[str, Any]
_BUILD_SECONDS: Final = 3_600.0
_LOOK_SECONDS: Final = 0.05
_NO_LIMIT: Final = "capacity is counted, and nothing is throttled"
_KEYS: Final = object_of({"AttributeName": value(required=True), "KeyType": value(required=True)}, many=True, required=True)
_PROJECTION: Final = object_of({"NonKeyAttributes": value("list"), "ProjectionType": value()}, required=True)
_UNITS: Final = object_of(
    {"ReadCapacityUnits": value("integer", required=True), "WriteCapacityUnits": value("integer", required=True)}
)
_INDEX: Final = {"IndexName": value(required=True), "KeySchema": _KEYS, "Projection": _PROJECTION}
_OF_CREATION: Final = (
    *("AttributeDefinitions", "BillingMode", "DeletionProtectionEnabled", "GlobalSecondaryIndexes", "KeySchema"),
    *("LocalSecondaryIndexes", "ProvisionedThroughput", "SSESpecification", "TableClass"),
)


class DynamoDb(Protocol):
    """The operations of the service "dynamodb" that this provider calls."""

    async def create_table(self, caller: Any, request: Request) -> Request: ...
    async def describe_table(self, caller: Any, request: Request) -> Request: ...
    async def update_table(self, caller: Any, request: Request) -> Request: ...
    async def delete_table(self, caller: Any, request: Request) -> Request: ...
    async def update_time_to_live(self, caller: Any, request: Request) -> Request: ...
    async def describe_time_to_live(self, caller: Any, request: Request) -> Request: ...
    async def tag_resource(self, caller: Any, request: Request) -> None: ...
    async def untag_resource(self, caller: Any, request: Request) -> None: ...


def table_providers(service: DynamoDb) -> list[Provider]:
    return [TableProvider(service)]


class TableProvider:
    """AWS::DynamoDB::Table."""

    kind = Kind(
        type="AWS::DynamoDB::Table",
        attributes=("Arn", "StreamArn"),
        properties={
            "AttributeDefinitions": object_of(
                {"AttributeName": value(required=True), "AttributeType": value(required=True)}, many=True
            ),
            "BillingMode": value(),
            "ContributorInsightsSpecification": refused("accesses are not analysed here"),
            "DeletionProtectionEnabled": value("boolean"),
            "GlobalSecondaryIndexes": object_of(
                {
                    **_INDEX,
                    "ContributorInsightsSpecification": refused("accesses are not analysed here"),
                    "OnDemandThroughput": taken(why=_NO_LIMIT),
                    "ProvisionedThroughput": _UNITS,
                    "WarmThroughput": taken(why=_NO_LIMIT),
                },
                many=True,
            ),
            "ImportSourceSpecification": refused("tables are not imported; write the items, or use `martlet` collections"),
            "KeySchema": object_of(
                {"AttributeName": value(required=True), "KeyType": value(required=True)}, many=True, required=True, replace=True
            ),
            "KinesisStreamSpecification": refused("there is no Kinesis"),
            "LocalSecondaryIndexes": object_of(_INDEX, many=True, replace=True),
            "OnDemandThroughput": taken(why=_NO_LIMIT),
            "PointInTimeRecoverySpecification": object_of(
                {
                    "PointInTimeRecoveryEnabled": taken(
                        "boolean", why="nothing is restored by table: back the store up as a whole"
                    ),
                    "RecoveryPeriodInDays": taken(),
                }
            ),
            "ProvisionedThroughput": _UNITS,
            "ResourcePolicy": refused("set it with PutResourcePolicy"),
            "SSESpecification": object_of({"KMSMasterKeyId": value(), "SSEEnabled": value("boolean"), "SSEType": value()}),
            "StreamSpecification": object_of(
                {"ResourcePolicy": refused("streams have no policies"), "StreamViewType": value()}
            ),
            "TableClass": value(),
            "TableName": fixed(),
            "Tags": object_of({"Key": value(required=True), "Value": value(required=True)}, many=True),
            "TimeToLiveSpecification": object_of({"AttributeName": value(), "Enabled": value("boolean", required=True)}),
            "WarmThroughput": taken(why=_NO_LIMIT),
        },
    )

    def __init__(self, service: DynamoDb) -> None:
        self._dynamodb = service

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("TableName") or generated_name(context, 255))
        arn = f"arn:aws:dynamodb:{context.region}:{context.account}:table/{name}"
        streams = unknown(context, "StreamArn") if properties.get("StreamSpecification") else {}
        return Physical(name, {"Arn": arn, **streams})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = {name: properties[name] for name in _OF_CREATION if properties.get(name) is not None}
        request["TableName"] = physical_id
        request.setdefault("AttributeDefinitions", [])
        if "BillingMode" not in request and "ProvisionedThroughput" not in request:
            request["BillingMode"] = "PAY_PER_REQUEST"
        stream = _stream(properties)
        if stream:
            request["StreamSpecification"] = stream
        if "SSESpecification" in request:
            request["SSESpecification"] = _encryption(request["SSESpecification"])
        tags = _tags(context, properties)
        if tags:
            request["Tags"] = [{"Key": key, "Value": text} for key, text in tags.items()]
        try:
            await self._dynamodb.create_table(context.caller, request)
        except ServiceError as error:
            if error.name != "ResourceInUseException" or "TableName" in properties:
                raise  # a generated name that is there is ours, from before a crash
        await self._set_time_to_live(context, physical_id, properties)
        return await self._physical(context, physical_id)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        name = physical.id
        found = (await self._dynamodb.describe_table(context.caller, {"TableName": name}))["Table"]
        await self._set_throughput(context, name, found, new)
        await self._set_indexes(context, name, found, new)
        await self._set_stream(context, name, found, new)
        await self._set_time_to_live(context, name, new)
        await self._set_others(context, name, found, new)
        await self._set_tags(context, physical, old, new)
        return await self._physical(context, name)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        try:
            await self._dynamodb.delete_table(context.caller, {"TableName": physical.id})
        except ServiceError as error:
            if error.name != "ResourceNotFoundException":
                raise

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if "TableName" in properties else Physical(physical_id)

    # parts

    async def _physical(self, context: Context, name: str) -> Physical:
        found = (await self._dynamodb.describe_table(context.caller, {"TableName": name}))["Table"]
        attributes = {"Arn": found["TableArn"]}
        if found.get("StreamSpecification"):
            attributes["StreamArn"] = found["LatestStreamArn"]
        return Physical(name, attributes)

    async def _update(self, context: Context, name: str, **changes: Any) -> None:
        await self._dynamodb.update_table(context.caller, {"TableName": name, **changes})

    async def _set_throughput(self, context: Context, name: str, found: Request, new: Mapping[str, Any]) -> None:
        units = new.get("ProvisionedThroughput")
        wanted = new.get("BillingMode") or ("PROVISIONED" if units else "PAY_PER_REQUEST")
        present = (found.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED")
        if wanted != present:
            changes: Request = {"BillingMode": wanted}
            if units:
                changes["ProvisionedThroughput"] = units
            await self._update(context, name, **changes)
        elif units and any(found["ProvisionedThroughput"][key] != units[key] for key in units):
            await self._update(context, name, ProvisionedThroughput=units)

    async def _set_indexes(self, context: Context, name: str, found: Request, new: Mapping[str, Any]) -> None:
        """One index after the other, each made whole before the next: the service takes one at a time."""
        present = {one["IndexName"]: one for one in found.get("GlobalSecondaryIndexes") or ()}
        wanted = {one["IndexName"]: one for one in new.get("GlobalSecondaryIndexes") or ()}
        for index, one in present.items():
            if index not in wanted or not _same_index(one, wanted[index]):
                await self._update(context, name, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": index}}])
        for index, one in wanted.items():
            if index in present and _same_index(present[index], one):
                units = one.get("ProvisionedThroughput")
                if units and any(present[index]["ProvisionedThroughput"][key] != units[key] for key in units):
                    change = {"IndexName": index, "ProvisionedThroughput": units}
                    await self._update(context, name, GlobalSecondaryIndexUpdates=[{"Update": change}])
                continue
            make = {key: one[key] for key in ("IndexName", "KeySchema", "Projection", "ProvisionedThroughput") if key in one}
            definitions = new.get("AttributeDefinitions") or []
            await self._update(context, name, AttributeDefinitions=definitions, GlobalSecondaryIndexUpdates=[{"Create": make}])
            await self._built(context, name)

    async def _built(self, context: Context, name: str) -> None:
        async with asyncio.timeout(_BUILD_SECONDS):
            while True:
                found = (await self._dynamodb.describe_table(context.caller, {"TableName": name}))["Table"]
                if found["TableStatus"] == "ACTIVE" or (context.stop is not None and context.stop.is_set()):
                    return
                await asyncio.sleep(_LOOK_SECONDS)

    async def _set_stream(self, context: Context, name: str, found: Request, new: Mapping[str, Any]) -> None:
        present, wanted = found.get("StreamSpecification") or {}, _stream(new)
        if present.get("StreamViewType") == wanted.get("StreamViewType"):
            return
        if present:
            await self._update(context, name, StreamSpecification={"StreamEnabled": False})
        if wanted:
            await self._update(context, name, StreamSpecification=wanted)

    async def _set_time_to_live(self, context: Context, name: str, new: Mapping[str, Any]) -> None:
        answer = await self._dynamodb.describe_time_to_live(context.caller, {"TableName": name})
        present = answer["TimeToLiveDescription"].get("AttributeName", "")
        specification = new.get("TimeToLiveSpecification") or {}
        wanted = specification.get("AttributeName", "") if specification.get("Enabled") else ""
        for attribute, enabled in ((present, False), (wanted, True)):
            if attribute and present != wanted:
                setting = {"AttributeName": attribute, "Enabled": enabled}
                await self._dynamodb.update_time_to_live(
                    context.caller, {"TableName": name, "TimeToLiveSpecification": setting}
                )

    async def _set_others(self, context: Context, name: str, found: Request, new: Mapping[str, Any]) -> None:
        changes: Request = {}
        protected = bool(new.get("DeletionProtectionEnabled"))
        if protected != bool(found.get("DeletionProtectionEnabled")):
            changes["DeletionProtectionEnabled"] = protected
        kind = new.get("TableClass")
        if kind and kind != (found.get("TableClassSummary") or {}).get("TableClass"):
            changes["TableClass"] = kind
        encryption = _encryption(new.get("SSESpecification") or {})
        if encryption.get("Enabled", False) != ("SSEDescription" in found):
            changes["SSESpecification"] = {"Enabled": False, **encryption}
        if changes:
            await self._update(context, name, **changes)

    async def _set_tags(self, context: Context, physical: Physical, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        before, after = _tags(context, old), _tags(context, new)
        arn = physical.attributes["Arn"]
        gone = [key for key in before if key not in after]
        if gone:
            await self._dynamodb.untag_resource(context.caller, {"ResourceArn": arn, "TagKeys": gone})
        if after and (after != before or context.is_repair):
            tags = [{"Key": key, "Value": text} for key, text in after.items()]
            await self._dynamodb.tag_resource(context.caller, {"ResourceArn": arn, "Tags": tags})


def _stream(properties: Mapping[str, Any]) -> Request:
    view = (properties.get("StreamSpecification") or {}).get("StreamViewType")
    return {"StreamEnabled": True, "StreamViewType": view} if view else {}


def _encryption(given: Mapping[str, Any]) -> Request:
    names = {"SSEEnabled": "Enabled", "SSEType": "SSEType", "KMSMasterKeyId": "KMSMasterKeyId"}
    return {to: given[name] for name, to in names.items() if given.get(name) is not None}


def _tags(context: Context, properties: Mapping[str, Any]) -> dict[str, str]:
    return {**context.tags, **{one["Key"]: one["Value"] for one in properties.get("Tags") or ()}}


def _same_index(present: Request, wanted: Request) -> bool:
    """Whether an index is the one that is wanted; throughput aside, an index cannot be changed."""

    def told(one: Request) -> tuple[Any, ...]:
        keys = [(key["AttributeName"], key["KeyType"]) for key in one["KeySchema"]]
        return keys, one["Projection"].get("ProjectionType"), sorted(one["Projection"].get("NonKeyAttributes") or ())

    return told(present) == told(wanted)
