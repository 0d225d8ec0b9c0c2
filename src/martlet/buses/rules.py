"""Operations on event buses, rules and their targets. Source: EventBridge API reference; recorded answers."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from martlet.buses import inputs
from martlet.buses.desk import (
    DEFAULT,
    BusDesk,
    Request,
    at,
    check_target_permission,
    invalid,
    merged_tags,
    no_such,
    page,
    tag_list,
)
from martlet.buses.rows import Bus, Rule, Tables
from martlet.errors import InvalidInput, ServiceError, Unsupported
from martlet.limits import LIMITS
from martlet.types import ACCOUNT, ScheduleConfig

__all__ = ["RULE_OWNER", "BusOperations", "RuleOperations", "TagOperations"]

RULE_OWNER: Final = "$rule"  # in the timetable: schedules of rules
_TARGETS_MAX: Final = 5
_TARGET_KINDS: Final = ("lambda", "sqs", "sns", "events", "logs")
_ARN = re.compile(r"arn:aws[a-z-]*:(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>[0-9]{12})?:(?P<resource>.+)")
_REFUSED: Final = (
    *("KinesisParameters", "EcsParameters", "BatchParameters", "RunCommandParameters", "RedshiftDataParameters"),
    *("SageMakerPipelineParameters", "AppSyncParameters"),
)
_RULE_ARN = re.compile(r"arn:aws[a-z-]*:events:[a-z0-9-]*:[0-9]{12}:rule/(?:(?P<bus>.+)/)?(?P<name>[^/]+)")


def _too_many() -> ServiceError:
    return ServiceError("LimitExceededException", "The requested resource exceeds the maximum number allowed.", 400)


class BusOperations(BusDesk):
    """Buses and who else may put events on them."""

    async def create_event_bus(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` ResourceAlreadyExistsException, ValidationException."""
        name = str(request["Name"])
        if request.get("EventSourceName"):
            raise ServiceError("ResourceNotFoundException", f"Event source {request['EventSourceName']} does not exist.", 400)
        if "/" in name:
            raise invalid("Event bus name must not contain '/'.")
        if request.get("LogConfig"):
            raise Unsupported("CreateEventBus: the parameter LogConfig is not supported")
        now_ms = self._clock.now_ms()
        bus = Bus(
            name=name,
            created_at_ms=now_ms,
            modified_at_ms=now_ms,
            description=request.get("Description") or "",
            dead_letter=(request.get("DeadLetterConfig") or {}).get("Arn") or "",
            key=request.get("KmsKeyIdentifier") or "",
            tags=merged_tags({}, request.get("Tags")),
        )

        def create(tables: Tables) -> None:
            if tables.get(Bus, name) is not None:
                raise ServiceError("ResourceAlreadyExistsException", f"Event bus {name} already exists.", 400)
            tables.put(bus)

        await self._write(create)
        return {"EventBusArn": self._arn("event-bus", name), **self._options(bus)}

    async def update_event_bus(self, caller: Any, request: Request) -> Request:
        if request.get("LogConfig"):
            raise Unsupported("UpdateEventBus: the parameter LogConfig is not supported")

        def update(tables: Tables) -> Bus:
            before = self._bus(tables, request.get("Name"))
            changes: dict[str, Any] = {"modified_at_ms": self._clock.now_ms()}
            for member, field in (("Description", "description"), ("KmsKeyIdentifier", "key")):
                if request.get(member) is not None:
                    changes[field] = request[member]
            if request.get("DeadLetterConfig") is not None:
                changes["dead_letter"] = request["DeadLetterConfig"].get("Arn") or ""
            after = msgspec.structs.replace(before, **changes)
            tables.put(after)
            tables.changed(after.name)
            return after

        bus = await self._write(update)
        return {"Arn": self._arn("event-bus", bus.name), "Name": bus.name, **self._options(bus)}

    async def describe_event_bus(self, caller: Any, request: Request) -> Request:
        return self._shown_bus(self._read(lambda tables: self._bus(tables, request.get("Name"))))

    async def delete_event_bus(self, caller: Any, request: Request) -> None:
        """One that is not there is fine. Raises `ServiceError` ValidationException for the default bus and one with rules."""
        name = self._bus_name(request["Name"])
        if name == DEFAULT:
            raise invalid("Cannot delete event bus default.")

        def delete(tables: Tables) -> None:
            bus = tables.get(Bus, name) if name else None
            if bus is None:
                return
            if next(tables.every(Rule, bus.name), None) is not None:
                raise invalid("Event bus can't be deleted since it has rules.")
            tables.delete(bus)
            tables.changed(bus.name)

        await self._write(delete)

    async def list_event_buses(self, caller: Any, request: Request) -> Request:
        prefix = request.get("NamePrefix") or ""
        found = self._read(lambda tables: [bus for bus in tables.every(Bus) if bus.name.startswith(prefix)])
        shown, more = page([(bus.name, bus) for bus in found], request)
        return {"EventBuses": [self._shown_bus(bus) for bus in shown], **more}

    async def put_permission(self, caller: Any, request: Request) -> None:
        """Raises `ServiceError` ResourceNotFoundException, ValidationException, PolicyLengthExceededException."""

        def put(tables: Tables) -> None:
            bus = self._bus(tables, request.get("EventBusName"))
            if request.get("Policy") is not None:
                statements = _statements(str(request["Policy"]))
            else:
                one = self._statement(bus, request)
                statements = (*(kept for kept in bus.policy if kept.get("Sid") != one["Sid"]), one)
            if len(json.dumps(statements)) > LIMITS["bus_policy_bytes"].default:
                raise ServiceError("PolicyLengthExceededException", "The event bus policy is too long.", 400)
            tables.put(msgspec.structs.replace(bus, policy=statements, modified_at_ms=self._clock.now_ms()))

        await self._write(put)

    def _statement(self, bus: Bus, request: Request) -> dict[str, Any]:
        if not request.get("StatementId") or not request.get("Principal") or not request.get("Action"):
            raise invalid("Parameter StatementId, Principal and Action, or Policy must be specified.")
        if request["Action"] != "events:PutEvents":
            raise invalid("Provided value in parameter 'action' is not supported.")
        principal = str(request["Principal"])
        if principal != "*" and not re.fullmatch(r"[0-9]{12}", principal):
            raise invalid(f"Provided value in parameter 'principal' is not valid: {principal[:64]}")
        one: dict[str, Any] = {
            "Sid": request["StatementId"],
            "Effect": "Allow",
            "Principal": "*" if principal == "*" else {"AWS": f"arn:aws:iam::{principal}:root"},
            "Action": "events:PutEvents",
            "Resource": self._arn("event-bus", bus.name),
        }
        condition = request.get("Condition")
        if condition:
            one["Condition"] = {condition["Type"]: {condition["Key"]: condition["Value"]}}
        return one

    async def remove_permission(self, caller: Any, request: Request) -> None:
        def remove(tables: Tables) -> None:
            bus = self._bus(tables, request.get("EventBusName"))
            if request.get("RemoveAllPermissions"):
                left: tuple[dict[str, Any], ...] = ()
            else:
                if not bus.policy and not request.get("StatementId"):
                    raise no_such("EventBus does not have a policy.")
                left = tuple(kept for kept in bus.policy if kept.get("Sid") != request.get("StatementId"))
                if len(left) == len(bus.policy):
                    raise no_such("Statement with the provided id does not exist.")
            tables.put(msgspec.structs.replace(bus, policy=left, modified_at_ms=self._clock.now_ms()))

        await self._write(remove)

    def _shown_bus(self, bus: Bus) -> Request:
        shown: Request = {
            "Name": bus.name,
            "Arn": self._arn("event-bus", bus.name),
            "CreationTime": at(bus.created_at_ms),
            "LastModifiedTime": at(bus.modified_at_ms),
            **self._options(bus),
        }
        if bus.policy:
            shown["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": list(bus.policy)}, separators=(",", ":"))
        return shown

    @staticmethod
    def _options(bus: Bus) -> Request:
        return {
            "Description": bus.description or None,
            "KmsKeyIdentifier": bus.key or None,
            "DeadLetterConfig": {"Arn": bus.dead_letter} if bus.dead_letter else None,
        }


def _statements(text: str) -> tuple[dict[str, Any], ...]:
    try:
        document = json.loads(text)
        found = document["Statement"]
        statements = tuple(found if isinstance(found, list) else [found])
        if not all(isinstance(one, dict) for one in statements):
            raise TypeError("a statement is an object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise invalid(f"Parameter Policy is not valid. Reason: {error}") from None
    return statements


class RuleOperations(BusDesk):
    """Rules and targets."""

    async def put_rule(self, caller: Any, request: Request) -> Request:
        """What is not said goes back to its default; targets stay. Raises `ServiceError` ValidationException,
        InvalidEventPatternException, ResourceNotFoundException, LimitExceededException."""
        pattern, expression = request.get("EventPattern") or "", request.get("ScheduleExpression") or ""
        if not pattern and not expression:
            raise invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
        if pattern:
            self._check_pattern(pattern)
        bus_name = self._bus_name(request.get("EventBusName"))
        if expression and bus_name != DEFAULT:
            raise invalid("ScheduleExpression is supported only on the default event bus.")
        if expression:
            self._check_schedule(expression)
        return await self._put_rule(request, pattern, expression)

    async def _put_rule(self, request: Request, pattern: str, expression: str, app: str = "") -> Request:
        name = str(request["Name"])

        def put(tables: Tables) -> Rule:
            bus = self._bus(tables, request.get("EventBusName"))
            before = tables.get(Rule, bus.name, name)
            if before is None:
                most = LIMITS["bus_rules"].default
                if sum(1 for _ in tables.every(Rule, bus.name)) >= most:
                    raise _too_many()
                tags = merged_tags({}, request.get("Tags"))
            else:
                tags = before.tags  # PutRule on a rule that is there leaves its tags alone
            rule = Rule(
                bus=bus.name,
                name=name,
                pattern=pattern,
                schedule=expression,
                state=request.get("State") or "ENABLED",
                description=request.get("Description") or "",
                role=request.get("RoleArn") or "",
                tags=tags,
                targets=before.targets if before else (),
                app=app,
            )
            self._keep_rule(tables, before, rule)
            return rule

        rule = await self._write(put)
        return {"RuleArn": self._rule_arn(rule.bus, rule.name)}

    def _check_schedule(self, expression: str) -> None:
        wrong = expression != expression.strip() or expression.startswith("at(") or "( " in expression or " )" in expression
        try:
            self._timetable.check(expression)
        except InvalidInput:
            wrong = True
        if wrong:
            raise invalid("Parameter ScheduleExpression is not valid.")

    def _keep_rule(self, tables: Tables, before: Rule | None, after: Rule | None) -> None:
        """Write a rule, its place in the timetable, and that something is different."""
        rule = after or before
        assert rule is not None  # there is one or there was
        if after is not None and after.schedule:
            config = ScheduleConfig(name=after.name, expression=after.schedule, function="", enabled=after.state != "DISABLED")
            self._timetable.put(tables._tx, RULE_OWNER, config, "")
        elif before is not None and before.schedule:
            self._timetable.remove(tables._tx, RULE_OWNER, before.name)
        if after is not None:
            tables.put(after)
        else:
            tables.delete(rule)
        tables.changed(rule.bus)

    def _rule(self, tables: Tables, request: Request, member: str = "Name") -> Rule:
        bus = self._bus(tables, request.get("EventBusName"))
        found = tables.get(Rule, bus.name, str(request[member]))
        if found is None:
            raise no_such(f"Rule {request[member]} does not exist on EventBus {bus.name}.")
        return found

    async def describe_rule(self, caller: Any, request: Request) -> Request:
        rule = self._read(lambda tables: self._rule(tables, request))
        return {**self._shown_rule(rule), "CreatedBy": ACCOUNT}

    async def delete_rule(self, caller: Any, request: Request) -> None:
        """One that is not there is fine. Raises `ServiceError` ValidationException while it has targets."""

        def delete(tables: Tables) -> None:
            bus = self._bus(tables, request.get("EventBusName"))
            rule = tables.get(Rule, bus.name, str(request["Name"]))
            if rule is None:
                return
            if rule.targets:
                raise invalid("Rule can't be deleted since it has targets.")
            self._keep_rule(tables, rule, None)

        await self._write(delete)

    async def enable_rule(self, caller: Any, request: Request) -> None:
        await self._set_state(request, "ENABLED")

    async def disable_rule(self, caller: Any, request: Request) -> None:
        await self._set_state(request, "DISABLED")

    async def _set_state(self, request: Request, state: str) -> None:
        def change(tables: Tables) -> None:
            rule = self._rule(tables, request)
            self._keep_rule(tables, rule, msgspec.structs.replace(rule, state=state))

        await self._write(change)

    async def list_rules(self, caller: Any, request: Request) -> Request:
        prefix = request.get("NamePrefix") or ""

        def look(tables: Tables) -> list[Rule]:
            bus = self._bus(tables, request.get("EventBusName"))
            return [rule for rule in tables.every(Rule, bus.name) if rule.name.startswith(prefix)]

        shown, more = page([(rule.name, rule) for rule in self._read(look)], request)
        return {"Rules": [self._shown_rule(rule) for rule in shown], **more}

    async def list_rule_names_by_target(self, caller: Any, request: Request) -> Request:
        arn = str(request["TargetArn"])

        def look(tables: Tables) -> list[str]:
            bus = self._bus(tables, request.get("EventBusName"))
            return [rule.name for rule in tables.every(Rule, bus.name) if any(one["Arn"] == arn for one in rule.targets)]

        shown, more = page([(name, name) for name in self._read(look)], request)
        return {"RuleNames": shown, **more}

    def _shown_rule(self, rule: Rule) -> Request:
        return {
            "Name": rule.name,
            "Arn": self._rule_arn(rule.bus, rule.name),
            "EventPattern": rule.pattern or None,
            "ScheduleExpression": rule.schedule or None,
            "State": rule.state,
            "Description": rule.description or None,
            "RoleArn": rule.role or None,
            "EventBusName": rule.bus,
        }

    # --- targets

    async def put_targets(self, caller: Any, request: Request) -> Request:
        """Targets by their ids; one with the id of another takes its place. Raises `ServiceError`, `Unsupported`."""
        for target in request["Targets"]:
            check_target(target)
            check_target_permission(self._authorize, caller, str(target["Arn"]))

        def put(tables: Tables) -> None:
            rule = self._rule(tables, request, "Rule")
            targets = {one["Id"]: one for one in rule.targets} | {one["Id"]: _plain(one) for one in request["Targets"]}
            if len(targets) > _TARGETS_MAX:
                raise _too_many()
            after = msgspec.structs.replace(rule, targets=tuple(targets[id] for id in sorted(targets)))
            self._keep_rule(tables, rule, after)

        await self._write(put)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    async def remove_targets(self, caller: Any, request: Request) -> Request:
        gone = set(request["Ids"])

        def remove(tables: Tables) -> None:
            rule = self._rule(tables, request, "Rule")
            left = tuple(one for one in rule.targets if one["Id"] not in gone)
            self._keep_rule(tables, rule, msgspec.structs.replace(rule, targets=left))

        await self._write(remove)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    async def list_targets_by_rule(self, caller: Any, request: Request) -> Request:
        rule = self._read(lambda tables: self._rule(tables, request, "Rule"))
        shown, more = page([(one["Id"], one) for one in rule.targets], request)
        return {"Targets": shown, **more}


def check_target(target: dict[str, Any]) -> None:
    """Raises `ServiceError` ValidationException in the service's words, `Unsupported` for what is not here."""
    id, arn = target["Id"], str(target["Arn"])
    found = _ARN.fullmatch(arn)
    if found is None:
        raise invalid(f"Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.")
    for member in _REFUSED:
        if target.get(member) is not None:
            raise Unsupported(f"target {id}: {member} is not supported")
    if found["service"] not in _TARGET_KINDS:
        raise Unsupported(f"target {id}: {arn} is not supported; targets are functions, queues, topics, buses, log groups and "
                          "API destinations")  # fmt: skip
    said = [member for member in ("Input", "InputPath", "InputTransformer") if target.get(member) is not None]
    if len(said) > 1:
        raise invalid(f"Only one of Input, InputPath, or InputTransformer must be provided for target {id}.")
    fifo = found["service"] == "sqs" and arn.endswith(".fifo")
    if fifo and not (target.get("SqsParameters") or {}).get("MessageGroupId"):
        raise invalid(f"Parameter(s) SqsParameters must be specified for target: {id}.")
    if target.get("Input") is not None:
        try:
            json.loads(str(target["Input"]))
        except (ValueError, RecursionError):
            raise invalid(f"JSON syntax error in input for target {id}") from None
    transformer = target.get("InputTransformer")
    if transformer:
        unknown = inputs.placeholders(str(transformer["InputTemplate"]), transformer.get("InputPathsMap") or {})
        if unknown:
            raise invalid(f"InputTemplate for target {id} contains invalid placeholder {unknown[0]}.")


def _plain(value: Any) -> Any:
    """Without absent members, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


class TagOperations(BusDesk):
    """Tags of buses and rules."""

    async def tag_resource(self, caller: Any, request: Request) -> None:
        await self._retag(request, lambda tags: merged_tags(tags, request["Tags"]))

    async def untag_resource(self, caller: Any, request: Request) -> None:
        gone = set(request["TagKeys"])
        await self._retag(request, lambda tags: {key: value for key, value in tags.items() if key not in gone})

    async def list_tags_for_resource(self, caller: Any, request: Request) -> Request:
        found = self._read(lambda tables: self._tagged(tables, str(request["ResourceARN"])))
        return {"Tags": tag_list(found.tags)}

    async def _retag(self, request: Request, change: Any) -> None:
        def write(tables: Tables) -> None:
            found = self._tagged(tables, str(request["ResourceARN"]))
            tables.put(msgspec.structs.replace(found, tags=change(found.tags)))

        await self._write(write)

    def _tagged(self, tables: Tables, arn: str) -> Bus | Rule:
        found = _RULE_ARN.fullmatch(arn)
        if found is None:
            return self._bus(tables, arn)
        bus = found["bus"] or DEFAULT
        rule = tables.get(Rule, bus, found["name"])
        if rule is None:
            raise no_such(f"Rule {found['name']} does not exist on EventBus {bus}.")
        return rule
