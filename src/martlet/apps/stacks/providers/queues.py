"""Queues and their policies by the operations of the queues room, event source mappings by those of the triggers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from martlet.apps.stacks.intrinsics import pending
from martlet.apps.stacks.kinds import Kind, fixed, object_of, refused, taken, value
from martlet.apps.stacks.providers.functions import gone, tag_map
from martlet.apps.stacks.providers.provider import Caller, Context, Physical, _Replace, generated_name, unknown
from martlet.errors import DeployFailed, MartletError, ServiceError

__all__ = ["EventSources", "Queues", "queue_providers"]

_NAME_MOST: Final = 80
_FIFO: Final = ".fifo"
_DISK: Final = "messages are encrypted at rest by your disk, not by a key service"
_STREAMS: Final = "queues and streams of tables are event sources of functions here"
_SETTLE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.02

# property (and attribute) -> what takes a value away again; None: it cannot be taken away
_ATTRIBUTES: Final[dict[str, str]] = {
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "DelaySeconds": "0",
    "FifoThroughputLimit": "perQueue",
    "MaximumMessageSize": "1048576",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "RedriveAllowPolicy": "",
    "RedrivePolicy": "",
    "SqsManagedSseEnabled": "true",
    "VisibilityTimeout": "30",
}
_OF_FIFO: Final = frozenset({"ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"})

QUEUE: Final = Kind(
    type="AWS::SQS::Queue",
    attributes=("Arn", "QueueName", "QueueUrl"),
    properties={
        "ContentBasedDeduplication": value("boolean"),
        "DeduplicationScope": value(),
        "DelaySeconds": value("integer"),
        "FifoQueue": fixed("boolean"),
        "FifoThroughputLimit": value(),
        "KmsDataKeyReusePeriodSeconds": taken("integer", why=_DISK),
        "KmsMasterKeyId": taken("string", why=_DISK),
        "MaximumMessageSize": value("integer"),
        "MessageRetentionPeriod": value("integer"),
        "QueueName": fixed(),
        "ReceiveMessageWaitTimeSeconds": value("integer"),
        "RedriveAllowPolicy": value("json"),
        "RedrivePolicy": value("json"),
        "SqsManagedSseEnabled": value("boolean"),
        "Tags": value("list", item=object_of({"Key": value(required=True), "Value": value()})),
        "VisibilityTimeout": value("integer"),
    },
)
POLICY: Final = Kind(
    type="AWS::SQS::QueuePolicy",
    attributes=("Id",),
    properties={
        "PolicyDocument": value("json", required=True),
        "Queues": value("list", item=value(), required=True),
    },
)
MAPPING: Final = Kind(
    type="AWS::Lambda::EventSourceMapping",
    attributes=("EventSourceMappingArn", "Id"),
    properties={
        "AmazonManagedKafkaEventSourceConfig": refused(_STREAMS),
        "BatchSize": value("integer"),
        "BisectBatchOnFunctionError": value("boolean"),
        "DestinationConfig": object_of({"OnFailure": object_of({"Destination": value()})}),
        "DocumentDBEventSourceConfig": refused(_STREAMS),
        "Enabled": value("boolean"),
        "EventSourceArn": fixed(),
        "FilterCriteria": object_of({"Filters": value("list", item=object_of({"Pattern": value()}))}),
        "FunctionName": value(required=True),
        "FunctionResponseTypes": value("list", item=value()),
        "KmsKeyArn": taken("string", why=_DISK),
        "LoggingConfig": refused(_STREAMS),
        "MaximumBatchingWindowInSeconds": value("integer"),
        "MaximumRecordAgeInSeconds": value("integer"),
        "MaximumRetryAttempts": value("integer"),
        "MetricsConfig": taken(why="its metrics are the platform's own"),
        "ParallelizationFactor": value("integer"),
        "ProvisionedPollerConfig": refused("pollers are not paid for here: there are as many as are needed"),
        "Queues": refused(_STREAMS),
        "ScalingConfig": object_of({"MaximumConcurrency": value("integer")}),
        "SelfManagedEventSource": refused(_STREAMS),
        "SelfManagedKafkaEventSourceConfig": refused(_STREAMS),
        "SourceAccessConfigurations": refused(_STREAMS),
        "StartingPosition": fixed(),
        "StartingPositionTimestamp": fixed("number"),
        "Tags": value("list", item=object_of({"Key": value(required=True), "Value": value()})),
        "Topics": refused(_STREAMS),
        "TumblingWindowInSeconds": refused("windows over a stream are not kept here"),
    },
)


class Queues(Protocol):
    """The operations of Amazon SQS that providers call."""

    async def create_queue(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_queue_url(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_queue_tags(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def set_queue_attributes(self, caller: Caller, request: dict[str, Any]) -> None: ...
    async def tag_queue(self, caller: Caller, request: dict[str, Any]) -> None: ...
    async def untag_queue(self, caller: Caller, request: dict[str, Any]) -> None: ...
    async def delete_queue(self, caller: Caller, request: dict[str, Any]) -> None: ...


class EventSources(Protocol):
    """The operations of Lambda on event source mappings."""

    async def create_event_source_mapping(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_event_source_mapping(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_event_source_mappings(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_event_source_mapping(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_event_source_mapping(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...


def queue_providers(queues: Queues, sources: EventSources) -> list[Any]:
    return [QueueProvider(queues), PolicyProvider(queues), MappingProvider(sources)]


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]


def _attribute(given: Any) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    return json.dumps(given) if isinstance(given, dict) else str(given)


def _attributes(properties: Mapping[str, Any]) -> dict[str, str]:
    return {name: _attribute(properties[name]) for name in _ATTRIBUTES if properties.get(name) is not None}


class QueueProvider:
    """Queues. Ref is the URL, and it answers."""

    kind = QUEUE

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    def _name(self, context: Context, properties: Mapping[str, Any]) -> str:
        if properties.get("QueueName"):
            return str(properties["QueueName"])
        end = _FIFO if properties.get("FifoQueue") else ""
        return generated_name(context, _NAME_MOST - len(end)) + end

    def _physical(self, context: Context, name: str) -> Physical:
        url = f"{context.caller.endpoint}/{context.account}/{name}"
        arn = f"arn:aws:sqs:{context.region}:{context.account}:{name}"
        return Physical(url, {"Arn": arn, "QueueName": name, "QueueUrl": url})

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return self._physical(context, self._name(context, properties))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        attributes = _attributes(properties)
        if properties.get("FifoQueue"):
            attributes["FifoQueue"] = "true"
        name = _name_of(physical_id)
        if properties.get("QueueName") and await self._owner(context, physical_id) not in (None, context.stack_id):
            raise DeployFailed(f"a queue {name} exists already", remedy="choose another QueueName")
        request = {"QueueName": name, "Attributes": attributes, "tags": tag_map(properties, context.tags)}
        await self._queues.create_queue(context.caller, request)
        return self._physical(context, name)

    async def _owner(self, context: Context, url: str) -> str | None:
        """The stack that made the queue; "" for none, None if there is no such queue."""
        try:
            found = await self._queues.list_queue_tags(context.caller, {"QueueUrl": url})
        except ServiceError as error:
            if error.name != "QueueDoesNotExist":
                raise
            return None
        return str((found.get("Tags") or {}).get("aws:cloudformation:stack-id", ""))

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        name = _name_of(physical.id)
        before, wanted = _attributes(old), _attributes(new)
        dropped = {attribute: _ATTRIBUTES[attribute] for attribute in before if attribute not in wanted}
        usable = {key: one for key, one in {**dropped, **wanted}.items() if name.endswith(_FIFO) or key not in _OF_FIFO}
        if usable and (usable != before or context.is_repair):
            await self._queues.set_queue_attributes(context.caller, {"QueueUrl": physical.id, "Attributes": usable})
        tags_before, tags = tag_map(old, {}), tag_map(new, {})
        untagged = sorted(tags_before.keys() - tags.keys())
        if untagged:
            await self._queues.untag_queue(context.caller, {"QueueUrl": physical.id, "TagKeys": untagged})
        if tags and (tags != tags_before or context.is_repair):
            await self._queues.tag_queue(context.caller, {"QueueUrl": physical.id, "Tags": tags})
        return self._physical(context, name)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _no_queue(self._queues.delete_queue(context.caller, {"QueueUrl": physical.id}))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        owner = await self._owner(context, physical_id)
        return self._physical(context, _name_of(physical_id)) if owner == context.stack_id else None


async def _no_queue(call: Any) -> None:
    """Await a call about a queue; that it is not there any more is fine."""
    try:
        await call
    except ServiceError as error:
        if error.name != "QueueDoesNotExist":
            raise


class PolicyProvider:
    """Who may use queues: the document becomes the policy of each."""

    kind = POLICY

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = generated_name(context)
        return Physical(name, {"Id": name})

    async def _put(self, context: Context, urls: list[str], document: Any) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        for url in urls:
            await self._queues.set_queue_attributes(context.caller, {"QueueUrl": url, "Attributes": {"Policy": text}})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._put(context, properties["Queues"], properties["PolicyDocument"])
        return Physical(physical_id, {"Id": physical_id})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        kept = {_name_of(url) for url in new["Queues"]}
        for url in old.get("Queues") or ():
            if _name_of(url) not in kept:
                await _no_queue(self._put(context, [url], ""))
        await self._put(context, new["Queues"], new["PolicyDocument"])
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        for url in properties.get("Queues") or ():
            await _no_queue(self._put(context, [url], ""))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return Physical(physical_id, {"Id": physical_id})


class MappingProvider:
    """Queues whose messages functions take, and streams of tables whose records they do."""

    kind = MAPPING
    _PASSED: Final = (
        "BatchSize", "BisectBatchOnFunctionError", "DestinationConfig", "Enabled", "FilterCriteria", "FunctionName",
        "FunctionResponseTypes", "MaximumBatchingWindowInSeconds", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts",
        "ParallelizationFactor", "ScalingConfig",
    )  # fmt: skip
    _AT_FIRST: Final = ("EventSourceArn", "StartingPosition", "StartingPositionTimestamp")
    _DEFAULTS: Final[dict[str, Any]] = {
        "BatchSize": 10,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {},
        "Enabled": True,
        "FilterCriteria": {"Filters": []},
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "ScalingConfig": {},
    }

    def __init__(self, sources: EventSources) -> None:
        self._sources = sources

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        if not properties.get("EventSourceArn"):
            raise DeployFailed(f"EventSourceArn cannot be empty: {_STREAMS}")
        return Physical("", {"Id": pending(f"{context.logical_id}.Id"), **unknown(context, "EventSourceMappingArn")})

    def _physical(self, context: Context, uuid: str) -> Physical:
        arn = f"arn:aws:lambda:{context.region}:{context.account}:event-source-mapping:{uuid}"
        return Physical(uuid, {"EventSourceMappingArn": arn, "Id": uuid})

    def _request(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {name: properties[name] for name in self._PASSED if properties.get(name) is not None}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        first = {name: properties[name] for name in self._AT_FIRST if properties.get(name) is not None}
        request = {**self._request(properties), **first}
        tags = tag_map(properties, context.tags)
        made = await self._sources.create_event_source_mapping(context.caller, {**request, "Tags": tags})
        await self._settled(context, made["UUID"])
        return self._physical(context, made["UUID"])

    async def _settled(self, context: Context, uuid: str) -> None:
        """Until it is switched on or off, as is wanted."""
        async with asyncio.timeout(_SETTLE_SECONDS):
            while True:
                found = await self._sources.get_event_source_mapping(context.caller, {"UUID": uuid})
                if found["State"] in ("Enabled", "Disabled"):
                    return
                await asyncio.sleep(_LOOK_SECONDS)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        before, wanted = self._request(old), self._request(new)
        dropped = {name: self._DEFAULTS[name] for name in before if name not in wanted}
        if wanted != before or context.is_repair:
            request = {**dropped, **wanted, "UUID": physical.id}
            await self._sources.update_event_source_mapping(context.caller, request)
            await self._settled(context, physical.id)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await gone(self._sources.delete_event_source_mapping(context.caller, {"UUID": physical.id}))
        async with asyncio.timeout(_SETTLE_SECONDS):
            while True:
                try:
                    await self._sources.get_event_source_mapping(context.caller, {"UUID": physical.id})
                except MartletError:
                    return
                await asyncio.sleep(_LOOK_SECONDS)

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        """There can be one for a queue and a function only: if it is there, a crash left it."""
        if physical_id:
            return self._physical(context, physical_id)
        wanted = {"EventSourceArn": properties.get("EventSourceArn"), "FunctionName": properties.get("FunctionName")}
        if not all(isinstance(one, str) for one in wanted.values()):
            return None
        found = await self._sources.list_event_source_mappings(context.caller, wanted)
        for one in found["EventSourceMappings"]:
            return self._physical(context, one["UUID"])
        return None
