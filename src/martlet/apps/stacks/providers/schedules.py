"""AWS::Events::Rule with a schedule and AWS::Scheduler::Schedule: both become schedules of the triggers room."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from martlet.apps.stacks.intrinsics import is_pending
from martlet.apps.stacks.journal import Store
from martlet.apps.stacks.kinds import Kind, fixed, object_of, refused, taken, value
from martlet.apps.stacks.providers.provider import Context, Physical, _Replace, generated_name
from martlet.errors import DeployFailed, InvalidInput
from martlet.types import ScheduleConfig

__all__ = ["Schedules", "schedule_providers"]

_NO_RETRY: Final = "an event of a schedule is tried as often as limit delivery_attempts says"
_NO_DEAD: Final = "there are no queues yet; what fails is in Martlet's own dead letters"


class Schedules(Protocol):
    """The schedules of the triggers room; `put` and `remove` write within the caller's transaction."""

    def check(self, expression: str, timezone: str) -> None: ...
    def put(self, tx: Any, app: str, config: ScheduleConfig, function: str) -> None: ...
    def remove(self, tx: Any, app: str, name: str) -> None: ...


def schedule_providers(store: Store, schedules: Schedules) -> list[Any]:
    return [RuleProvider(store, schedules), ScheduleProvider(store, schedules)]


def _function_of(arn: str, where: str) -> str:
    """`name or "name:qualifier" of a function's ARN. Raises `DeployFailed` for a target that is none."""
    parts = arn.split(":")
    if len(parts) < 7 or parts[:3] != ["arn", "aws", "lambda"] or parts[5] != "function":
        raise DeployFailed(f"{where}: the target {arn} is not a function; other targets are not supported yet")
    return ":".join(parts[6:])


def _schedule_name(rule: str, target: str, at: int) -> str:
    """The rule's own name for its first target, so that events name the rule; the others get one made of both."""
    if at == 0 and len(rule) <= 64:
        return rule
    return f"{rule[:47]}.{hashlib.sha256(f'{rule}|{target}'.encode()).hexdigest()[:16]}"


def _input(text: Any, where: str) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise DeployFailed(f"{where}: Input is not JSON: {error}") from error


class _Scheduled(ABC):
    """What both types share: a resource is a few schedules that are put and removed in one transaction."""

    def __init__(self, store: Store, schedules: Schedules) -> None:
        self._store = store
        self._schedules = schedules

    @abstractmethod
    def _configs(self, physical_id: str, properties: Mapping[str, Any]) -> list[ScheduleConfig]: ...

    def _check(self, expression: str, timezone: str, where: str) -> None:
        if is_pending(expression):
            return
        try:
            self._schedules.check(expression, timezone)
        except InvalidInput as error:
            raise DeployFailed(f"{where}: {error.message}", remedy=error.remedy) from error

    async def _put(self, context: Context, wanted: list[ScheduleConfig], before: Sequence[ScheduleConfig] = ()) -> None:
        kept = {config.name for config in wanted}

        def write(tx: Any) -> None:
            for config in before:
                if config.name not in kept:
                    self._schedules.remove(tx, context.stack_name, config.name)
            for config in wanted:
                self._schedules.put(tx, context.stack_name, config, config.function)

        await self._store.transact(write)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._put(context, self._configs(physical.id, new), self._configs(physical.id, old))
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        gone = self._configs(physical.id, properties)

        def write(tx: Any) -> None:
            for config in gone:
                self._schedules.remove(tx, context.stack_name, config.name)

        await self._store.transact(write)

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if is_pending(properties) else Physical(physical_id)


class RuleProvider(_Scheduled):
    """AWS::Events::Rule with a ScheduleExpression. Rules with an event pattern wait for the buses."""

    kind = Kind(
        type="AWS::Events::Rule",
        attributes=("Arn",),
        properties={
            "Description": taken("string"),
            "EventBusName": refused("there are no event buses yet"),
            "EventPattern": refused("there are no event buses yet"),
            "Name": fixed(),
            "RoleArn": taken("string", why="functions are called by Martlet itself"),
            "ScheduleExpression": value(),
            "State": value(),
            "Tags": taken(),
            "Targets": object_of(
                {
                    "AppSyncParameters": refused("only functions can be targets"),
                    "Arn": value(required=True),
                    "BatchParameters": refused("only functions can be targets"),
                    "DeadLetterConfig": refused(_NO_DEAD),
                    "EcsParameters": refused("only functions can be targets"),
                    "HttpParameters": refused("only functions can be targets"),
                    "Id": value(required=True),
                    "Input": value(),
                    "InputPath": refused("the whole event is given"),
                    "InputTransformer": refused("the whole event is given"),
                    "KinesisParameters": refused("only functions can be targets"),
                    "RedshiftDataParameters": refused("only functions can be targets"),
                    "RetryPolicy": refused(_NO_RETRY),
                    "RoleArn": taken("string"),
                    "RunCommandParameters": refused("only functions can be targets"),
                    "SageMakerPipelineParameters": refused("only functions can be targets"),
                    "SqsParameters": refused("only functions can be targets"),
                },
                many=True,
            ),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("Name") or generated_name(context))
        where = f"AWS::Events::Rule {context.logical_id}"
        expression = properties.get("ScheduleExpression")
        if expression is not None:
            self._check(str(expression), "UTC", where)
        elif "EventPattern" not in properties and not context.is_lenient:
            raise DeployFailed(f"{where}: Parameter(s) EventPattern or ScheduleExpression must be specified.")
        return Physical(name, {"Arn": f"arn:aws:events:{context.region}:{context.account}:rule/{name}"})

    def _configs(self, physical_id: str, properties: Mapping[str, Any]) -> list[ScheduleConfig]:
        expression = properties.get("ScheduleExpression")
        if expression is None:
            return []
        where = f"rule {physical_id}"
        return [
            ScheduleConfig(
                name=_schedule_name(physical_id, target["Id"], at),
                expression=expression,
                function=_function_of(target["Arn"], where),
                input=_input(target.get("Input"), where),
                enabled=properties.get("State", "ENABLED") != "DISABLED",
            )
            for at, target in enumerate(properties.get("Targets") or ())
        ]

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._put(context, self._configs(physical_id, properties))
        return self.identify(context, {**properties, "Name": physical_id})


class ScheduleProvider(_Scheduled):
    """AWS::Scheduler::Schedule."""

    kind = Kind(
        type="AWS::Scheduler::Schedule",
        attributes=("Arn",),
        properties={
            "ActionAfterCompletion": refused("a schedule stays until its stack removes it"),
            "Description": taken("string"),
            "EndDate": refused("a schedule has no end here"),
            "FlexibleTimeWindow": object_of(
                {
                    "MaximumWindowInMinutes": taken("integer", why="it fires at the window's start"),
                    "Mode": value(required=True),
                },
                required=True,
            ),
            "GroupName": taken("string", replace=True, why="schedules belong to their stack"),
            "KmsKeyArn": taken("string", why="encrypted at rest by your disk"),
            "Name": fixed(),
            "ScheduleExpression": value(required=True),
            "ScheduleExpressionTimezone": value(),
            "StartDate": refused("a schedule starts at its deployment"),
            "State": value(),
            "Target": object_of(
                {
                    "Arn": value(required=True),
                    "DeadLetterConfig": refused(_NO_DEAD),
                    "EcsParameters": refused("only functions can be targets"),
                    "EventBridgeParameters": refused("only functions can be targets"),
                    "Input": value(),
                    "KinesisParameters": refused("only functions can be targets"),
                    "RetryPolicy": refused(_NO_RETRY),
                    "RoleArn": taken("string", required=True),
                    "SageMakerPipelineParameters": refused("only functions can be targets"),
                    "SqsParameters": refused("only functions can be targets"),
                },
                required=True,
            ),
        },
    )

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("Name") or generated_name(context))
        where = f"AWS::Scheduler::Schedule {context.logical_id}"
        timezone = str(properties.get("ScheduleExpressionTimezone") or "UTC")
        self._check(str(properties["ScheduleExpression"]), timezone, where)
        group = properties.get("GroupName") or "default"
        return Physical(name, {"Arn": f"arn:aws:scheduler:{context.region}:{context.account}:schedule/{group}/{name}"})

    def _configs(self, physical_id: str, properties: Mapping[str, Any]) -> list[ScheduleConfig]:
        target = properties["Target"]
        where = f"schedule {physical_id}"
        return [
            ScheduleConfig(
                name=physical_id,
                expression=properties["ScheduleExpression"],
                function=_function_of(target["Arn"], where),
                timezone=properties.get("ScheduleExpressionTimezone") or "UTC",
                input=_input(target.get("Input"), where),
                enabled=properties.get("State", "ENABLED") != "DISABLED",
            )
        ]

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._put(context, self._configs(physical_id, properties))
        return self.identify(context, {**properties, "Name": physical_id})
