"""AWS::Events::*, AWS::Scheduler::* and AWS::SNS::*: resources of the buses room, made by the operations of its services."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from martlet.apps.stacks.intrinsics import is_pending
from martlet.apps.stacks.journal import Store
from martlet.apps.stacks.kinds import Kind, fixed, object_of, refused, taken, value
from martlet.apps.stacks.providers.provider import Context, Physical, _Replace, generated_name, unknown
from martlet.errors import DeployFailed, InvalidInput, MartletError

__all__ = ["Buses", "Schedules", "bus_providers"]

_ONLY: Final = "targets are functions, queues, topics, buses, log groups and API destinations"
_NAMED: Final = value("string", replace=True)
_RETRY: Final = object_of({"MaximumEventAgeInSeconds": value("integer"), "MaximumRetryAttempts": value("integer")})
_DEAD: Final = object_of({"Arn": value()})
_PARAMETER: Final = object_of(
    {"Key": value(required=True), "Value": value(required=True), "IsValueSecret": value("boolean")}, many=True
)
_HTTP: Final = object_of({"BodyParameters": _PARAMETER, "HeaderParameters": _PARAMETER, "QueryStringParameters": _PARAMETER})


class Schedules(Protocol):
    """The timetable; `remove` writes within the caller's transaction."""

    def check(self, expression: str, timezone: str = ...) -> None: ...
    def remove(self, tx: Any, app: str, name: str) -> None: ...


class Buses(Protocol):
    """The services "events", "scheduler" and "sns"."""

    @property
    def events(self) -> Any: ...
    @property
    def scheduler(self) -> Any: ...
    @property
    def topics(self) -> Any: ...


def bus_providers(store: Store, buses: Buses, schedules: Schedules) -> list[Any]:
    plain = (
        BusProvider,
        BusPolicyProvider,
        ArchiveProvider,
        ConnectionProvider,
        DestinationProvider,
        GroupProvider,
        TopicProvider,
        SubscriptionProvider,
        TopicPolicyProvider,
    )
    return [RuleProvider(buses, store, schedules), ScheduleProvider(buses, store, schedules), *(one(buses) for one in plain)]


async def _gone(call: Awaitable[Any]) -> None:
    """What is not there any more is fine."""
    try:
        await call
    except MartletError as error:
        if getattr(error, "name", "") not in ("ResourceNotFoundException", "NotFound"):
            raise


def _tags(context: Context, properties: Mapping[str, Any]) -> list[dict[str, str]]:
    own = {one["Key"]: one["Value"] for one in properties.get("Tags") or ()}
    return [{"Key": key, "Value": str(one)} for key, one in {**context.tags, **own}.items()]


def _text(found: Any) -> str:
    return found if isinstance(found, str) else json.dumps(found, separators=(",", ":"))


class _Provider(ABC):
    """What they share: one name, one ARN, and operations that make, change and remove."""

    kind: Kind
    name_property = "Name"

    def __init__(self, buses: Buses) -> None:
        self._buses = buses

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get(self.name_property) or generated_name(context))
        return Physical(name, self._known(context, name, properties))

    def _known(self, context: Context, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return unknown(context, *self.kind.attributes)

    @abstractmethod
    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical: ...

    @abstractmethod
    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace: ...

    @abstractmethod
    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None: ...

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if not physical_id or is_pending(properties) else Physical(physical_id)


class _Timed(_Provider):
    """With a schedule. Platforms of before had the schedules of stacks in the timetable, under the stack's name: those go."""

    def __init__(self, buses: Buses, store: Store, schedules: Schedules) -> None:
        super().__init__(buses)
        self._store = store
        self._schedules = schedules

    def _check(self, expression: Any, timezone: str, where: str) -> None:
        if expression is None or is_pending(expression):
            return
        try:
            self._schedules.check(str(expression), timezone)
        except InvalidInput as error:
            raise DeployFailed(f"{where}: {error.message}", remedy=error.remedy) from error

    async def _forget(self, context: Context, name: str, targets: Sequence[Mapping[str, Any]]) -> None:
        def write(tx: Any) -> None:
            self._schedules.remove(tx, context.stack_name, name)
            for target in targets[1:]:
                end = hashlib.sha256(f"{name}|{target['Id']}".encode()).hexdigest()[:16]
                self._schedules.remove(tx, context.stack_name, f"{name[:47]}.{end}")

        await self._store.transact(write)


class RuleProvider(_Timed):
    """AWS::Events::Rule."""

    kind = Kind(
        type="AWS::Events::Rule",
        attributes=("Arn",),
        properties={
            "Description": value(),
            "EventBusName": _NAMED,
            "EventPattern": value("json"),
            "Name": fixed(),
            "RoleArn": taken("string", why="targets are reached by Martlet itself"),
            "ScheduleExpression": value(),
            "State": value(),
            "Tags": value("list"),
            "Targets": object_of(
                {
                    "AppSyncParameters": refused(_ONLY),
                    "Arn": value(required=True),
                    "BatchParameters": refused(_ONLY),
                    "DeadLetterConfig": _DEAD,
                    "EcsParameters": refused(_ONLY),
                    "HttpParameters": object_of(
                        {
                            "HeaderParameters": value("map"),
                            "PathParameterValues": value("list"),
                            "QueryStringParameters": value("map"),
                        }
                    ),
                    "Id": value(required=True),
                    "Input": value(),
                    "InputPath": value(),
                    "InputTransformer": object_of({"InputPathsMap": value("map"), "InputTemplate": value(required=True)}),
                    "KinesisParameters": refused(_ONLY),
                    "RedshiftDataParameters": refused(_ONLY),
                    "RetryPolicy": _RETRY,
                    "RoleArn": taken("string"),
                    "RunCommandParameters": refused(_ONLY),
                    "SageMakerPipelineParameters": refused(_ONLY),
                    "SqsParameters": object_of({"MessageGroupId": value(required=True)}),
                },
                many=True,
            ),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("Name") or generated_name(context))
        where = f"AWS::Events::Rule {context.logical_id}"
        self._check(properties.get("ScheduleExpression"), "UTC", where)
        if "ScheduleExpression" not in properties and "EventPattern" not in properties and not context.is_lenient:
            raise DeployFailed(f"{where}: Parameter(s) EventPattern or ScheduleExpression must be specified.")
        bus = properties.get("EventBusName")
        if bus is not None and is_pending(bus):
            return Physical("", unknown(context, "Arn"))
        return self._physical(context, name, _bus_name(bus))

    @staticmethod
    def _physical(context: Context, name: str, bus: str) -> Physical:
        arn = f"arn:aws:events:{context.region}:{context.account}:rule/"
        if bus == "default":
            return Physical(name, {"Arn": arn + name})
        return Physical(f"{bus}|{name}", {"Arn": f"{arn}{bus}/{name}"})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        bus = _bus_name(properties.get("EventBusName"))
        name = physical_id.rpartition("|")[2] or str(properties.get("Name") or generated_name(context))
        await self._put(context, name, bus, properties, ())
        return self._physical(context, name, bus)

    async def _put(
        self, context: Context, name: str, bus: str, properties: Mapping[str, Any], before: Sequence[Mapping[str, Any]]
    ) -> None:
        request = {key: properties[key] for key in ("Description", "ScheduleExpression", "State") if key in properties}
        if properties.get("EventPattern") is not None:
            request["EventPattern"] = _text(properties["EventPattern"])
        tags = {"Tags": _tags(context, properties)}
        events = self._buses.events
        await events.put_rule(context.caller, {**request, **tags, "Name": name, "EventBusName": bus})
        targets = list(properties.get("Targets") or ())
        gone = {one["Id"] for one in before} - {one["Id"] for one in targets}
        if gone:
            await events.remove_targets(context.caller, {"Rule": name, "EventBusName": bus, "Ids": sorted(gone)})
        if targets:
            await events.put_targets(context.caller, {"Rule": name, "EventBusName": bus, "Targets": targets})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        bus, _, name = physical.id.rpartition("|")
        await self._forget(context, name, old.get("Targets") or ())
        await self._put(context, name, bus or "default", new, old.get("Targets") or ())
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        bus, _, name = physical.id.rpartition("|")
        targets = properties.get("Targets") or ()
        where = {"EventBusName": bus or "default"}
        await self._forget(context, name, targets)
        if targets:
            ids = [one["Id"] for one in targets]
            await _gone(self._buses.events.remove_targets(context.caller, {"Rule": name, "Ids": ids, **where}))
        await _gone(self._buses.events.delete_rule(context.caller, {"Name": name, **where}))


def _bus_name(reference: Any) -> str:
    return str(reference).rpartition("event-bus/")[2] if reference else "default"


class BusProvider(_Provider):
    """AWS::Events::EventBus."""

    kind = Kind(
        type="AWS::Events::EventBus",
        attributes=("Arn", "Name"),
        properties={
            "DeadLetterConfig": taken(why="events that match no rule are not kept"),
            "Description": value(),
            "EventSourceName": refused("there are no partner event sources"),
            "KmsKeyIdentifier": taken("string", why="encrypted at rest by your disk"),
            "LogConfig": refused("buses write no logs"),
            "Name": value("string", replace=True, required=True),
            "Policy": value("json"),
            "Tags": value("list"),
        },
    )

    def _known(self, context: Context, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {"Arn": f"arn:aws:events:{context.region}:{context.account}:event-bus/{name}", "Name": name}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = {"Name": physical_id, "Description": properties.get("Description"), "Tags": _tags(context, properties)}
        await self._buses.events.create_event_bus(context.caller, request)
        await self._policy(context, physical_id, properties)
        return Physical(physical_id, self._known(context, physical_id, properties))

    async def _policy(self, context: Context, name: str, properties: Mapping[str, Any]) -> None:
        if properties.get("Policy") is not None:
            request = {"EventBusName": name, "Policy": _text(properties["Policy"])}
            await self._buses.events.put_permission(context.caller, request)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        request = {"Name": physical.id, "Description": new.get("Description") or ""}
        await self._buses.events.update_event_bus(context.caller, request)
        if new.get("Policy") is None and old.get("Policy") is not None:
            request = {"EventBusName": physical.id, "RemoveAllPermissions": True}
            await self._buses.events.remove_permission(context.caller, request)
        await self._policy(context, physical.id, new)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.events.delete_event_bus(context.caller, {"Name": physical.id}))


class BusPolicyProvider(_Provider):
    """AWS::Events::EventBusPolicy."""

    kind = Kind(
        type="AWS::Events::EventBusPolicy",
        properties={
            "Action": value(),
            "Condition": object_of({"Key": value(), "Type": value(), "Value": value()}),
            "EventBusName": _NAMED,
            "Principal": value(),
            "Statement": value("json"),
            "StatementId": value("string", replace=True, required=True),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return Physical(generated_name(context))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._put(context, properties)
        return Physical(physical_id)

    async def _put(self, context: Context, properties: Mapping[str, Any]) -> None:
        bus, sid = _bus_name(properties.get("EventBusName")), properties["StatementId"]
        request: dict[str, Any] = {"EventBusName": bus}
        if properties.get("Statement") is not None:
            found = await self._buses.events.describe_event_bus(context.caller, {"Name": bus})
            before = json.loads(found["Policy"])["Statement"] if found.get("Policy") else []
            kept = [one for one in before if one.get("Sid") != sid]
            request["Policy"] = json.dumps({"Statement": [*kept, {"Sid": sid, **properties["Statement"]}]})
        else:
            given = {key: properties[key] for key in ("Action", "Principal", "Condition") if key in properties}
            request |= {"StatementId": sid, "Action": "events:PutEvents", **given}
        await self._buses.events.put_permission(context.caller, request)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._put(context, new)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        request = {"EventBusName": _bus_name(properties.get("EventBusName")), "StatementId": properties["StatementId"]}
        await _gone(self._buses.events.remove_permission(context.caller, request))


class ArchiveProvider(_Provider):
    """AWS::Events::Archive."""

    kind = Kind(
        type="AWS::Events::Archive",
        attributes=("Arn", "ArchiveName"),
        properties={
            "ArchiveName": fixed(),
            "Description": value(),
            "EventPattern": value("json"),
            "KmsKeyIdentifier": taken("string", why="encrypted at rest by your disk"),
            "RetentionDays": value("integer"),
            "SourceArn": value("string", replace=True, required=True),
        },
    )
    name_property = "ArchiveName"

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("ArchiveName") or generated_name(context, 48))
        return Physical(name, self._known(context, name, properties))

    def _known(self, context: Context, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {"Arn": f"arn:aws:events:{context.region}:{context.account}:archive/{name}", "ArchiveName": name}

    @staticmethod
    def _request(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        pattern = properties.get("EventPattern")
        return {
            "ArchiveName": name,
            "Description": properties.get("Description") or "",
            "EventPattern": "" if pattern is None else _text(pattern),
            "RetentionDays": properties.get("RetentionDays") or 0,
        }

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = {**self._request(physical_id, properties), "EventSourceArn": properties["SourceArn"]}
        await self._buses.events.create_archive(context.caller, request)
        return Physical(physical_id, self._known(context, physical_id, properties))

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._buses.events.update_archive(context.caller, self._request(physical.id, new))
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.events.delete_archive(context.caller, {"ArchiveName": physical.id}))


class ConnectionProvider(_Provider):
    """AWS::Events::Connection."""

    kind = Kind(
        type="AWS::Events::Connection",
        attributes=("Arn", "ArnForPolicy", "SecretArn"),
        properties={
            "AuthParameters": object_of(
                {
                    "ApiKeyAuthParameters": object_of({"ApiKeyName": value(), "ApiKeyValue": value()}),
                    "BasicAuthParameters": object_of({"Password": value(), "Username": value()}),
                    "ConnectivityParameters": refused("connections to private APIs are not there"),
                    "InvocationHttpParameters": _HTTP,
                    "OAuthParameters": object_of(
                        {
                            "AuthorizationEndpoint": value(required=True),
                            "ClientParameters": object_of({"ClientID": value(), "ClientSecret": value()}, required=True),
                            "HttpMethod": value(required=True),
                            "OAuthHttpParameters": _HTTP,
                        }
                    ),
                }
            ),
            "AuthorizationType": value(),
            "Description": value(),
            "InvocationConnectivityParameters": refused("connections to private APIs are not there"),
            "KmsKeyIdentifier": taken("string", why="encrypted at rest by your disk"),
            "Name": fixed(),
        },
    )

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._buses.events.create_connection(context.caller, {**properties, "Name": physical_id})
        return await self._described(context, physical_id)

    async def _described(self, context: Context, name: str) -> Physical:
        found = await self._buses.events.describe_connection(context.caller, {"Name": name})
        arn = str(found["ConnectionArn"])
        attributes = {"Arn": arn, "ArnForPolicy": arn.rpartition("/")[0], "SecretArn": found["SecretArn"]}
        return Physical(name, attributes)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._buses.events.update_connection(context.caller, {**new, "Name": physical.id})
        return await self._described(context, physical.id)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.events.delete_connection(context.caller, {"Name": physical.id}))


class DestinationProvider(_Provider):
    """AWS::Events::ApiDestination."""

    kind = Kind(
        type="AWS::Events::ApiDestination",
        attributes=("Arn", "ArnForPolicy"),
        properties={
            "ConnectionArn": value(required=True),
            "Description": value(),
            "HttpMethod": value(required=True),
            "InvocationEndpoint": value(required=True),
            "InvocationRateLimitPerSecond": value("integer"),
            "Name": fixed(),
        },
    )

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        made = await self._buses.events.create_api_destination(context.caller, {**properties, "Name": physical_id})
        arn = str(made["ApiDestinationArn"])
        return Physical(physical_id, {"Arn": arn, "ArnForPolicy": arn.rpartition("/")[0]})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._buses.events.update_api_destination(context.caller, {**new, "Name": physical.id})
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.events.delete_api_destination(context.caller, {"Name": physical.id}))


class ScheduleProvider(_Timed):
    """AWS::Scheduler::Schedule."""

    kind = Kind(
        type="AWS::Scheduler::Schedule",
        attributes=("Arn",),
        properties={
            "ActionAfterCompletion": value(),
            "Description": value(),
            "EndDate": value(),
            "FlexibleTimeWindow": object_of(
                {"MaximumWindowInMinutes": value("integer"), "Mode": value(required=True)}, required=True
            ),
            "GroupName": _NAMED,
            "KmsKeyArn": taken("string", why="encrypted at rest by your disk"),
            "Name": fixed(),
            "ScheduleExpression": value(required=True),
            "ScheduleExpressionTimezone": value(),
            "StartDate": value(),
            "State": value(),
            "Target": object_of(
                {
                    "Arn": value(required=True),
                    "DeadLetterConfig": _DEAD,
                    "EcsParameters": refused(_ONLY),
                    "EventBridgeParameters": object_of({"DetailType": value(required=True), "Source": value(required=True)}),
                    "Input": value(),
                    "KinesisParameters": refused(_ONLY),
                    "RetryPolicy": _RETRY,
                    "RoleArn": taken("string", required=True),
                    "SageMakerPipelineParameters": refused(_ONLY),
                    "SqsParameters": object_of({"MessageGroupId": value()}),
                },
                required=True,
            ),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("Name") or generated_name(context))
        timezone = str(properties.get("ScheduleExpressionTimezone") or "UTC")
        self._check(properties["ScheduleExpression"], timezone, f"AWS::Scheduler::Schedule {context.logical_id}")
        if is_pending(properties.get("GroupName") or ""):
            return Physical(name, unknown(context, "Arn"))
        return self._physical(context, name, properties)

    @staticmethod
    def _physical(context: Context, name: str, properties: Mapping[str, Any]) -> Physical:
        group = properties.get("GroupName") or "default"
        return Physical(name, {"Arn": f"arn:aws:scheduler:{context.region}:{context.account}:schedule/{group}/{name}"})

    def _request(self, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        target = {"RoleArn": "", **properties["Target"]}
        dates = {member: _date(properties[member]) for member in ("StartDate", "EndDate") if properties.get(member)}
        return {**properties, **dates, "Name": name, "Target": target}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._buses.scheduler.create_schedule(context.caller, self._request(physical_id, properties))
        return self._physical(context, physical_id, properties)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._forget(context, physical.id, ())
        request = self._request(physical.id, new)
        try:
            await self._buses.scheduler.update_schedule(context.caller, request)
        except MartletError as error:  # it was made by a platform of before
            if getattr(error, "name", "") != "ResourceNotFoundException":
                raise
            await self._buses.scheduler.create_schedule(context.caller, request)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await self._forget(context, physical.id, ())
        request = {"Name": physical.id, "GroupName": properties.get("GroupName") or "default"}
        await _gone(self._buses.scheduler.delete_schedule(context.caller, request))


def _date(text: Any) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise DeployFailed(f"{text!r} is not a date such as 2030-01-31T23:59:00Z") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class GroupProvider(_Provider):
    """AWS::Scheduler::ScheduleGroup."""

    kind = Kind(
        type="AWS::Scheduler::ScheduleGroup",
        attributes=("Arn", "State"),
        properties={"Name": fixed(), "Tags": value("list")},
    )

    def _known(self, context: Context, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {"Arn": f"arn:aws:scheduler:{context.region}:{context.account}:schedule-group/{name}", "State": "ACTIVE"}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = {"Name": physical_id, "Tags": _tags(context, properties)}
        await self._buses.scheduler.create_schedule_group(context.caller, request)
        return Physical(physical_id, self._known(context, physical_id, properties))

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        arn, tags = self._known(context, physical.id, new)["Arn"], _tags(context, new)
        gone = {one["Key"] for one in _tags(context, old)} - {one["Key"] for one in tags}
        await self._buses.scheduler.untag_resource(context.caller, {"ResourceArn": arn, "TagKeys": sorted(gone)})
        await self._buses.scheduler.tag_resource(context.caller, {"ResourceArn": arn, "Tags": tags})
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.scheduler.delete_schedule_group(context.caller, {"Name": physical.id}))


_TOPIC_ATTRIBUTES: Final = (
    *("DisplayName", "KmsMasterKeyId", "SignatureVersion", "TracingConfig", "ContentBasedDeduplication"),
    "FifoThroughputScope",
)


class TopicProvider(_Provider):
    """AWS::SNS::Topic. Ref is its ARN."""

    kind = Kind(
        type="AWS::SNS::Topic",
        attributes=("TopicArn", "TopicName"),
        properties={
            "ArchivePolicy": refused("topics keep no archive; a bus does"),
            "ContentBasedDeduplication": value("boolean"),
            "DataProtectionPolicy": refused("messages are not inspected"),
            "DeliveryStatusLogging": taken(why="what fails is in Martlet's dead letters"),
            "DisplayName": value(),
            "FifoThroughputScope": value(),
            "FifoTopic": value("boolean", replace=True),
            "KmsMasterKeyId": taken("string", why="encrypted at rest by your disk"),
            "SignatureVersion": value(),
            "Subscription": object_of({"Endpoint": value(required=True), "Protocol": value(required=True)}, many=True),
            "Tags": value("list"),
            "TopicName": fixed(),
            "TracingConfig": taken("string", why="traces are OpenTelemetry's"),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        fifo = properties.get("FifoTopic") in (True, "true")
        name = str(properties.get("TopicName") or generated_name(context, 256 - 5) + (".fifo" if fifo else ""))
        arn = f"arn:aws:sns:{context.region}:{context.account}:{name}"
        return Physical(arn, {"TopicArn": arn, "TopicName": name})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        given = {name: properties[name] for name in ("FifoTopic", *_TOPIC_ATTRIBUTES) if properties.get(name) is not None}
        attributes = {name: _text(one) for name, one in given.items() if one is not False}
        name = physical_id.rpartition(":")[2]
        request = {"Name": name, "Attributes": attributes, "Tags": _tags(context, properties)}
        await self._buses.topics.create_topic(context.caller, request)
        await self._subscribe(context, physical_id, properties.get("Subscription") or ())
        return Physical(physical_id, {"TopicArn": physical_id, "TopicName": name})

    async def _subscribe(self, context: Context, arn: str, wanted: Sequence[Mapping[str, Any]]) -> None:
        for one in wanted:
            await self._buses.topics.subscribe(context.caller, {"TopicArn": arn, **one})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        topics, caller, arn = self._buses.topics, context.caller, physical.id
        for name in _TOPIC_ATTRIBUTES:
            if old.get(name) != new.get(name):
                text = "" if new.get(name) is None else _text(new[name])
                change = {"TopicArn": arn, "AttributeName": name, "AttributeValue": text}
                await topics.set_topic_attributes(caller, change)
        kept = [(one["Protocol"], one["Endpoint"]) for one in new.get("Subscription") or ()]
        gone = {(one["Protocol"], one["Endpoint"]) for one in old.get("Subscription") or ()} - set(kept)
        found = (await topics.list_subscriptions_by_topic(caller, {"TopicArn": arn}))["Subscriptions"] if gone else ()
        for one in found:
            if (one["Protocol"], one["Endpoint"]) in gone and one["SubscriptionArn"] != "PendingConfirmation":
                await topics.unsubscribe(caller, {"SubscriptionArn": one["SubscriptionArn"]})
        await self._subscribe(context, arn, new.get("Subscription") or ())
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.topics.delete_topic(context.caller, {"TopicArn": physical.id}))


_OPTIONS: Final = ("DeliveryPolicy", "FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy")


class SubscriptionProvider(_Provider):
    """AWS::SNS::Subscription. Ref is its ARN."""

    kind = Kind(
        type="AWS::SNS::Subscription",
        attributes=("Arn",),
        properties={
            "DeliveryPolicy": value("json"),
            "Endpoint": value("string", replace=True),
            "FilterPolicy": value("json"),
            "FilterPolicyScope": value(),
            "Protocol": value("string", replace=True, required=True),
            "RawMessageDelivery": value("boolean"),
            "RedrivePolicy": value("json"),
            "Region": taken("string", why="there is one"),
            "ReplayPolicy": refused("topics keep no archive"),
            "SubscriptionRoleArn": refused("there is no Firehose"),
            "TopicArn": value("string", replace=True, required=True),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return Physical("", unknown(context, "Arn"))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        attributes = {name: _text(properties[name]) for name in _OPTIONS if properties.get(name) is not None}
        request = {name: properties.get(name) for name in ("TopicArn", "Protocol", "Endpoint")}
        request |= {"Attributes": attributes, "ReturnSubscriptionArn": True}
        arn = str((await self._buses.topics.subscribe(context.caller, request))["SubscriptionArn"])
        return Physical(arn, {"Arn": arn})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        order = ("FilterPolicyScope", *(name for name in _OPTIONS if name != "FilterPolicyScope"))
        for name in order:
            if old.get(name) != new.get(name):
                default = {"RawMessageDelivery": "false", "FilterPolicyScope": "MessageAttributes"}.get(name, "")
                text = default if new.get(name) is None else _text(new[name])
                change = {"SubscriptionArn": physical.id, "AttributeName": name, "AttributeValue": text}
                await self._buses.topics.set_subscription_attributes(context.caller, change)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await _gone(self._buses.topics.unsubscribe(context.caller, {"SubscriptionArn": physical.id}))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None  # to subscribe again is to find it


class TopicPolicyProvider(_Provider):
    """AWS::SNS::TopicPolicy."""

    kind = Kind(
        type="AWS::SNS::TopicPolicy",
        attributes=("Id",),
        properties={"PolicyDocument": value("json", required=True), "Topics": value("list", required=True)},
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        id = generated_name(context)
        return Physical(id, {"Id": id})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._put(context, properties["Topics"], _text(properties["PolicyDocument"]))
        return Physical(physical_id, {"Id": physical_id})

    async def _put(self, context: Context, topics: Sequence[str], policy: str) -> None:
        for arn in topics:
            request = {"TopicArn": arn, "AttributeName": "Policy", "AttributeValue": policy}
            await self._buses.topics.set_topic_attributes(context.caller, request)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        for arn in set(old["Topics"]) - set(new["Topics"]):
            await _gone(self._put(context, (arn,), ""))
        await self._put(context, new["Topics"], _text(new["PolicyDocument"]))
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        for arn in properties["Topics"]:
            await _gone(self._put(context, (arn,), ""))
