"""The service "scheduler": EventBridge Scheduler's operations, from request to answer as dicts in the API's own members.

A schedule's times are kept by the timetable of the triggers, one owner a group; what is kept here is what it was made of. What
was missed while nothing ran fires once. Source: EventBridge Scheduler API reference and user guide; recorded answers.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from martlet.buses.desk import DEFAULT, BusDesk, Request, at, check_target_permission, invalid, merged_tags, page, tag_list
from martlet.buses.rows import Group, Schedule, Tables
from martlet.errors import InvalidInput, ServiceError, Unsupported
from martlet.types import ACCOUNT, ScheduleConfig

__all__ = ["OWNER", "UNIVERSAL", "Scheduler", "Services"]

OWNER: Final = "$scheduler/"  # in the timetable: schedules of a group
_RETRY: Final = {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLY_MS: Final = 300_000
UNIVERSAL: Final = re.compile(r"arn:aws[a-z-]*:scheduler:::aws-sdk:(?P<service>[a-z0-9-]+):(?P<action>[A-Za-z0-9]+)")
_ARN = re.compile(r"arn:aws[a-z-]*:(?P<service>[a-z0-9-]+):[a-z0-9-]*:(?:[0-9]{12})?:.+")
_GROUP_ARN = re.compile(r"arn:aws[a-z-]*:scheduler:[a-z0-9-]*:[0-9]{12}:schedule-group/(?P<name>[0-9A-Za-z_.-]+)")
_EXPRESSION = re.compile(r"(rate\([0-9]+ [a-z]+\)|cron\(\S.*\S\)|at\(\S+\))")
_REFUSED: Final = ("EcsParameters", "KinesisParameters", "SageMakerPipelineParameters", "EventBridgePutEventsV2Parameters",
                   "EventBridgePutRawEventsParameters")  # fmt: skip
_KINDS: Final = ("lambda", "sqs", "sns", "events")
_MEMBERS: Final = (
    *("ScheduleExpression", "Description", "ScheduleExpressionTimezone", "State", "KmsKeyArn", "Target", "FlexibleTimeWindow"),
    *("ActionAfterCompletion",),
)


class Services(Protocol):
    """The operations of the platform's services by their names, called by a role."""

    async def check(self, service: str, action: str, parameters: dict[str, Any]) -> None:
        """Raises `Unsupported`, `InvalidInput`."""

    async def __call__(self, service: str, action: str, role: str, parameters: dict[str, Any]) -> None:
        """Raises `MartletError`."""


class Scheduler(BusDesk):
    """EventBridge Scheduler. Call `start` before the first operation. `services` are for universal targets."""

    def __init__(self, *arguments: Any, services: Services, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._services = services

    async def start(self) -> None:
        """There is a default group."""
        now_ms = self._clock.now_ms()

        def ensure(tables: Tables) -> None:
            if tables.get(Group, DEFAULT) is None:
                tables.put(Group(name=DEFAULT, created_at_ms=now_ms, modified_at_ms=now_ms))

        await self._write(ensure)

    def permission(self, operation: str, request: Request) -> tuple[str, str]:
        """(action, resource) that a caller needs."""
        if operation.endswith("Schedule") and request.get("Name"):
            return f"scheduler:{operation}", self.schedule_arn(str(request.get("GroupName") or DEFAULT), str(request["Name"]))
        if operation.endswith("ScheduleGroup") and request.get("Name"):
            return f"scheduler:{operation}", self._group_arn(str(request["Name"]))
        return f"scheduler:{operation}", str(request.get("ResourceArn") or "*")

    def schedule_arn(self, group: str, name: str) -> str:
        return f"arn:aws:scheduler:{self.region}:{ACCOUNT}:schedule/{group}/{name}"

    def _group_arn(self, name: str) -> str:
        return f"arn:aws:scheduler:{self.region}:{ACCOUNT}:schedule-group/{name}"

    # --- schedules

    async def create_schedule(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` ConflictException, ResourceNotFoundException, ValidationException; `Unsupported`."""
        await self._check(caller, request)
        name, token = str(request["Name"]), str(request.get("ClientToken") or "")

        def create(tables: Tables) -> Schedule:
            group = self._group(tables, request.get("GroupName"))
            before = tables.get(Schedule, group.name, name)
            if before is not None:
                if token and before.token == token:
                    return before  # the same request once more
                raise ServiceError("ConflictException", f"Schedule {name} already exists.", 409)
            return self._put(tables, group.name, request, None)

        made = await self._write(create)
        return {"ScheduleArn": self.schedule_arn(made.group, made.name)}

    async def update_schedule(self, caller: Any, request: Request) -> Request:
        """What is not said goes back to its default."""
        await self._check(caller, request)

        def update(tables: Tables) -> Schedule:
            before = self._schedule(tables, request)
            return self._put(tables, before.group, request, before)

        made = await self._write(update)
        return {"ScheduleArn": self.schedule_arn(made.group, made.name)}

    def _put(self, tables: Tables, group: str, request: Request, before: Schedule | None) -> Schedule:
        now_ms = self._clock.now_ms()
        after = Schedule(
            group=group,
            name=str(request["Name"]),
            request={member: _plain(request[member]) for member in _MEMBERS if request.get(member) is not None},
            start_ms=_ms(request.get("StartDate")),
            end_ms=_ms(request.get("EndDate")),
            created_at_ms=now_ms if before is None else before.created_at_ms,
            modified_at_ms=now_ms,
            token=str(request.get("ClientToken") or ""),
        )
        tables.put(after)
        expression, window = str(request["ScheduleExpression"]), request["FlexibleTimeWindow"]
        one_time = expression.startswith("at(")
        config = ScheduleConfig(
            name=after.name,
            expression=expression,
            function="",
            timezone=request.get("ScheduleExpressionTimezone") or "UTC",
            enabled=request.get("State") != "DISABLED",
            start_ms=None if one_time else after.start_ms,  # one time has neither start nor end
            end_ms=None if one_time else after.end_ms,
            window_minutes=int(window.get("MaximumWindowInMinutes") or 0) if window["Mode"] == "FLEXIBLE" else 0,
        )
        self._timetable.put(tables._tx, OWNER + group, config, "")
        return after

    async def _check(self, caller: Any, request: Request) -> None:
        expression, timezone = str(request["ScheduleExpression"]), request.get("ScheduleExpressionTimezone") or "UTC"
        try:
            self._timetable.check("rate(1 minute)", timezone)
        except InvalidInput:
            raise invalid(f"Invalid ScheduleExpressionTimezone {timezone}.") from None
        try:
            if not _EXPRESSION.fullmatch(expression):
                raise InvalidInput("not of this form")
            self._timetable.check(_strict(expression), timezone)
        except InvalidInput:
            raise invalid(f"Invalid Schedule Expression {expression}.") from None
        request["ScheduleExpression"] = _strict(expression)
        window = request["FlexibleTimeWindow"]
        if window["Mode"] == "FLEXIBLE" and not window.get("MaximumWindowInMinutes"):
            raise invalid("MaximumWindowInMinutes must be provided when the FlexibleTimeWindow mode is FLEXIBLE.")
        start_ms, end_ms = _ms(request.get("StartDate")), _ms(request.get("EndDate"))
        if start_ms is not None and start_ms < self._clock.now_ms() - _EARLY_MS:
            raise invalid("The StartDate you specify cannot be earlier than 5 minutes ago.")
        if start_ms is not None and end_ms is not None and end_ms <= start_ms:
            raise invalid("The EndDate you specify must come after the StartDate.")
        target = request["Target"]
        _check_target(target)
        arn = str(target["Arn"])
        if universal := UNIVERSAL.fullmatch(arn):
            return await self._check_universal(caller, target, universal["service"], universal["action"])
        check_target_permission(self._authorize, caller, arn)
        if ":function:" in arn:  # no role is evaluated when it fires: who makes the schedule must be allowed itself
            self._authorize(caller.principal, "lambda:InvokeFunction", arn.rpartition(":function:")[2].partition(":")[0])

    async def _check_universal(self, caller: Any, target: dict[str, Any], service: str, action: str) -> None:
        """It runs by its role: who makes the schedule must be allowed to pass that on."""
        passed = {"iam:passedtoservice": "scheduler.amazonaws.com"}
        self._authorize(caller.principal, "iam:PassRole", str(target["RoleArn"]), passed)
        try:
            parameters = json.loads(target.get("Input") or "null")
        except (ValueError, RecursionError):
            parameters = None
        if not isinstance(parameters, dict):
            raise invalid(f"Input must be a JSON object for the target {target['Arn']}.")
        try:
            await self._services.check(service, action, parameters)
        except Unsupported:
            raise
        except InvalidInput as error:
            raise invalid(error.message) from error

    def _schedule(self, tables: Tables, request: Request) -> Schedule:
        found = tables.get(Schedule, str(request.get("GroupName") or DEFAULT), str(request["Name"]))
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"Schedule {request['Name']} does not exist.", 404)
        return found

    async def get_schedule(self, caller: Any, request: Request) -> Request:
        found = self._read(lambda tables: self._schedule(tables, request))
        target = found.request["Target"]
        return {
            **found.request,
            "Arn": self.schedule_arn(found.group, found.name),
            "GroupName": found.group,
            "Name": found.name,
            "ScheduleExpressionTimezone": found.request.get("ScheduleExpressionTimezone") or "UTC",
            "State": found.request.get("State") or "ENABLED",
            "ActionAfterCompletion": found.request.get("ActionAfterCompletion") or "NONE",
            "Target": {**target, "RetryPolicy": _RETRY | (target.get("RetryPolicy") or {})},
            "StartDate": None if found.start_ms is None else at(found.start_ms),
            "EndDate": None if found.end_ms is None else at(found.end_ms),
            "CreationDate": at(found.created_at_ms),
            "LastModificationDate": at(found.modified_at_ms),
        }

    async def delete_schedule(self, caller: Any, request: Request) -> Request:
        def delete(tables: Tables) -> None:
            found = self._schedule(tables, request)
            self.remove(tables, found)

        await self._write(delete)
        return {}

    def remove(self, tables: Tables, one: Schedule) -> None:
        """Take a schedule away, within the caller's transaction."""
        tables.delete(one)
        self._timetable.remove(tables._tx, OWNER + one.group, one.name)

    async def list_schedules(self, caller: Any, request: Request) -> Request:
        group, prefix, state = request.get("GroupName"), request.get("NamePrefix") or "", request.get("State")

        def look(tables: Tables) -> list[Schedule]:
            every = tables.every(Schedule, str(group)) if group else tables.every(Schedule)
            found = [one for one in every if one.name.startswith(prefix)]
            return [one for one in found if state in (None, one.request.get("State") or "ENABLED")]

        found = self._read(look)
        shown, more = page([(f"{one.group}/{one.name}", one) for one in found], request, "MaxResults")
        return {"Schedules": [self._listed(one) for one in shown], **more}

    def _listed(self, one: Schedule) -> Request:
        return {
            "Arn": self.schedule_arn(one.group, one.name),
            "Name": one.name,
            "GroupName": one.group,
            "State": one.request.get("State") or "ENABLED",
            "Target": {"Arn": one.request["Target"]["Arn"]},
            "CreationDate": at(one.created_at_ms),
            "LastModificationDate": at(one.modified_at_ms),
        }

    # --- groups

    def _group(self, tables: Tables, name: Any) -> Group:
        found = tables.get(Group, str(name or DEFAULT))
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"Schedule group {name or DEFAULT} does not exist.", 404)
        return found

    async def create_schedule_group(self, caller: Any, request: Request) -> Request:
        name, now_ms = str(request["Name"]), self._clock.now_ms()
        tags = merged_tags({}, request.get("Tags"))

        def create(tables: Tables) -> None:
            if tables.get(Group, name) is not None:
                raise ServiceError("ConflictException", f"Schedule group {name} already exists.", 409)
            tables.put(Group(name=name, created_at_ms=now_ms, modified_at_ms=now_ms, tags=tags))

        await self._write(create)
        return {"ScheduleGroupArn": self._group_arn(name)}

    async def get_schedule_group(self, caller: Any, request: Request) -> Request:
        return self._shown_group(self._read(lambda tables: self._group(tables, request["Name"])))

    def _shown_group(self, group: Group) -> Request:
        return {
            "Arn": self._group_arn(group.name),
            "Name": group.name,
            "State": "ACTIVE",
            "CreationDate": at(group.created_at_ms),
            "LastModificationDate": at(group.modified_at_ms),
        }

    async def delete_schedule_group(self, caller: Any, request: Request) -> Request:
        """With its schedules. Raises `ServiceError` ValidationException for the default group."""
        if request["Name"] == DEFAULT:
            raise invalid("The default schedule group cannot be deleted.")

        def delete(tables: Tables) -> None:
            group = self._group(tables, request["Name"])
            for one in list(tables.every(Schedule, group.name)):
                self.remove(tables, one)
            tables.delete(group)

        await self._write(delete)
        return {}

    async def list_schedule_groups(self, caller: Any, request: Request) -> Request:
        prefix = request.get("NamePrefix") or ""
        found = self._read(lambda tables: [one for one in tables.every(Group) if one.name.startswith(prefix)])
        shown, more = page([(one.name, one) for one in found], request, "MaxResults")
        return {"ScheduleGroups": [self._shown_group(one) for one in shown], **more}

    async def tag_resource(self, caller: Any, request: Request) -> Request:
        def tag(tables: Tables) -> None:
            group = self._tagged(tables, request)
            tables.put(msgspec.structs.replace(group, tags=merged_tags(group.tags, request["Tags"])))

        await self._write(tag)
        return {}

    async def untag_resource(self, caller: Any, request: Request) -> Request:
        gone = set(request["TagKeys"])

        def untag(tables: Tables) -> None:
            group = self._tagged(tables, request)
            left = {key: value for key, value in group.tags.items() if key not in gone}
            tables.put(msgspec.structs.replace(group, tags=left))

        await self._write(untag)
        return {}

    async def list_tags_for_resource(self, caller: Any, request: Request) -> Request:
        return {"Tags": tag_list(self._read(lambda tables: self._tagged(tables, request)).tags)}

    def _tagged(self, tables: Tables, request: Request) -> Group:
        found = _GROUP_ARN.fullmatch(str(request["ResourceArn"]))
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"Resource {request['ResourceArn']} does not exist.", 404)
        return self._group(tables, found["name"])


def _strict(expression: str) -> str:
    """The expression with the unit as the timetable spells it: here "rate(1 minutes)" is fine."""
    found = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    return expression if found is None else f"rate({found[1]} {found[2]}{'' if int(found[1]) == 1 else 's'})"


def _check_target(target: dict[str, Any]) -> None:
    arn = str(target["Arn"])
    found = _ARN.fullmatch(arn)
    if found is None:
        raise invalid(f"Provided Arn {arn} is not in correct format.")
    for member in _REFUSED:
        if target.get(member) is not None:
            raise Unsupported(f"target {arn}: {member} is not supported")
    if UNIVERSAL.fullmatch(arn):
        return
    if found["service"] not in _KINDS or (found["service"] == "events" and ":event-bus/" not in arn):
        raise Unsupported(f"the target {arn} is not supported; targets are functions, queues, topics, event buses and aws-sdk")
    if found["service"] == "events" and not target.get("EventBridgeParameters"):
        raise invalid("EventBridgeParameters must be specified for an event bus target.")
    if arn.endswith(".fifo") and found["service"] == "sqs" and not (target.get("SqsParameters") or {}).get("MessageGroupId"):
        raise invalid("SqsParameters with a MessageGroupId must be specified for a FIFO queue target.")
    if found["service"] in ("sqs", "sns", "events") and not target.get("Input"):
        raise invalid(f"Input must be specified for the target {arn}.")


def _ms(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return (value.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    return int(float(value) * 1000)


def _plain(value: Any) -> Any:
    """Without absent members, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
