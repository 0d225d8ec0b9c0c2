"""CloudFormation's own operations, in the members and words of its API.

Source: AWS CloudFormation API Reference 2010-05-15. Names of errors are those on the wire: "ValidationError",
"AlreadyExistsException", "InsufficientCapabilitiesException", "ChangeSetNotFound" …
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final, TypeVar

import msgspec

from martlet.apps.stacks import language
from martlet.apps.stacks.changesets import ChangeSets
from martlet.apps.stacks.engine import Engine, Request, check_updatable, nothing_changes
from martlet.apps.stacks.journal import importers
from martlet.apps.stacks.parameters import declare
from martlet.apps.stacks.reading import TemplateFault, read
from martlet.apps.stacks.records import Body, ChangeSetRecord, Event, Rows, StackRecord, StoredResource
from martlet.apps.stacks.template import Template, parse
from martlet.errors import Conflict, LimitExceeded, MartletError, NotFound, ServiceError, Unsupported

__all__ = ["CloudFormation"]

T = TypeVar("T")
_PAGE: Final = 100
# An operation is answered when it has begun, as CloudFormation does, but not before it has had this long to end: clients look
# again only every 5 or 30 seconds, and most of ours take a tenth of one.
_PATIENCE_SECONDS: Final = 2.0
_IAM: Final = frozenset(f"AWS::IAM::{name}" for name in (
    "AccessKey", "Group", "InstanceProfile", "ManagedPolicy", "Policy", "Role", "RolePolicy", "User", "UserToGroupAddition",
))  # fmt: skip
_NAMES: Final = ("RoleName", "UserName", "GroupName", "ManagedPolicyName", "InstanceProfileName")
Operation = Callable[..., Awaitable[dict[str, Any]]]


def _operation(method: Operation) -> Operation:
    """Translates the room's errors into the API's, once."""

    @wraps(method)
    async def call(self: Any, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await method(self, caller, request)
        except ServiceError:
            raise
        except TemplateFault as error:
            raise ServiceError("ValidationError", error.text) from error
        except Conflict as error:
            name = "AlreadyExistsException" if error.details.get("stack") else "ValidationError"
            raise ServiceError(name, error.message) from error
        except (NotFound, Unsupported, LimitExceeded) as error:
            raise ServiceError("ValidationError", error.message) from error
        except MartletError as error:
            if error.http_status >= 500:
                raise
            raise ServiceError("ValidationError", error.message) from error

    return call


class CloudFormation:
    """The operations. Each takes a caller and the decoded input, and gives the output's members."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._change_sets = ChangeSets(engine)

    # --- stacks

    @_operation
    async def create_stack(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        name = request["StackName"]
        self._engine.check_name(name)
        standing = self._engine.find(name)
        if standing is not None and standing.status != "DELETE_COMPLETE":
            raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
        wanted = self._request(request, await self._template(request, None), {}, None)
        self._check_capabilities(wanted, change_set=False)
        id = self._engine.new_id(name)
        prepared = await self._engine.prepare(wanted, id)
        await self._engine.create(wanted, prepared, id)
        await self._engine.pause(id, _PATIENCE_SECONDS)
        return {"StackId": id}

    @_operation
    async def update_stack(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._live(request["StackName"], "Stack [{}] does not exist")
        check_updatable(record)
        before = self._engine.body(record.id)
        template = await self._template(request, before)
        wanted = self._request({**request, "StackName": record.name}, template, before.parameters, before)
        self._check_capabilities(wanted, change_set=False)
        prepared = await self._engine.prepare(wanted, record.id)
        if nothing_changes(prepared, before):
            raise ServiceError("ValidationError", "No updates are to be performed.")
        await self._engine.update(wanted, prepared, record.id)
        await self._engine.pause(record.id, _PATIENCE_SECONDS)
        return {"StackId": record.id}

    @_operation
    async def delete_stack(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        retained = frozenset(request.get("RetainResources") or ())
        record = self._engine.find(request["StackName"])
        if retained and record is not None and record.status != "DELETE_FAILED":
            raise ServiceError(
                "ValidationError",
                f"Invalid operation on stack [{record.id}]. Specifying RetainResources is only allowed on a stack in the "
                "DELETE_FAILED state",
            )
        task = await self._engine.delete(request["StackName"], retained, token=request.get("ClientRequestToken", ""))
        if task is not None and record is not None:
            await self._engine.pause(record.id, _PATIENCE_SECONDS)
        return {}

    @_operation
    async def describe_stacks(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        name = request.get("StackName")
        records = [self._any(name)] if name else self._engine.live()
        page, token = _page(records, request)
        return {"Stacks": [self._stack(record) for record in page], **token}

    @_operation
    async def list_stacks(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request.get("StackStatusFilter")
        records = [record for record in self._engine.all() if not wanted or record.status in wanted]
        page, token = _page(records, request)
        return {"StackSummaries": [self._summary(record) for record in page], **token}

    @_operation
    async def describe_stack_events(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        name = request.get("StackName") or ""
        record = self._engine.find(name)
        if record is None:
            raise ServiceError("ValidationError", f"Stack [{name}] does not exist")
        page, token = _page(self._engine.events(record.id), request)
        return {"StackEvents": [_event(record, event) for event in page], **token}

    @_operation
    async def describe_stack_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._live(request["StackName"], "Stack '{}' does not exist")
        name = request["LogicalResourceId"]
        resource = self._engine.resources(record.id).get(name)
        if resource is None:
            raise ServiceError("ValidationError", f"Resource {name} does not exist for stack {record.name}")
        detail = {**_resource(resource), "StackName": record.name, "StackId": record.id}
        detail["LastUpdatedTimestamp"] = detail.pop("Timestamp")
        metadata = resource.now.metadata if resource.now else ""
        detail["Metadata"] = metadata or "{}"
        return {"StackResourceDetail": detail}

    @_operation
    async def describe_stack_resources(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        name, physical = request.get("StackName"), request.get("PhysicalResourceId")
        if not name and not physical:
            raise ServiceError("ValidationError", "Either StackName or PhysicalResourceId must be specified")
        records = [self._live(name, "Stack with id {} does not exist")] if name else self._engine.live()
        found: list[dict[str, Any]] = []
        for record in records:
            rows = [_resource(one) for one in self._engine.resources(record.id).values()]
            if physical and not any(row.get("PhysicalResourceId") == physical for row in rows):
                continue
            found += [{**row, "StackName": record.name, "StackId": record.id} for row in rows]
        if physical and not found:
            raise ServiceError("ValidationError", f"Stack for {physical} does not exist")
        wanted = request.get("LogicalResourceId")
        return {"StackResources": [row for row in found if wanted in (None, row["LogicalResourceId"])]}

    @_operation
    async def list_stack_resources(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._any(request["StackName"])
        page, token = _page(list(self._engine.resources(record.id).values()), request)
        found = []
        for resource in page:
            row = _resource(resource)
            row["LastUpdatedTimestamp"] = row.pop("Timestamp")
            found.append(row)
        return {"StackResourceSummaries": found, **token}

    @_operation
    async def continue_update_rollback(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("ResourcesToSkip"):
            raise Unsupported("ResourcesToSkip is not supported")
        self._live(request["StackName"], "Stack [{}] does not exist")
        await self._engine.continue_rollback(request["StackName"])
        return {}

    @_operation
    async def update_termination_protection(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._live(request["StackName"], "Stack [{}] does not exist")
        await self._changed(record.id, is_protected=bool(request["EnableTerminationProtection"]))
        return {"StackId": record.id}

    @_operation
    async def set_stack_policy(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._live(request["StackName"], "Stack [{}] does not exist")
        text = request.get("StackPolicyBody")
        if text is None:
            raise Unsupported("StackPolicyURL is not supported: give StackPolicyBody")
        try:
            policy = json.loads(text)
            statements = policy["Statement"]
        except (ValueError, KeyError, TypeError):
            raise ServiceError("ValidationError", "Error validating stack policy: Invalid stack policy") from None
        if any(statement.get("Effect") == "Deny" for statement in statements):
            raise Unsupported("a stack policy that denies is not supported: it would not be enforced")
        await self._changed(record.id, policy=text)
        return {}

    @_operation
    async def get_stack_policy(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._live(request["StackName"], "Stack [{}] does not exist")
        return {"StackPolicyBody": record.policy} if record.policy else {}

    async def _changed(self, id: str, **changes: Any) -> None:
        def write(rows: Rows) -> None:
            record = rows.stack(id)
            if record is not None:
                rows.put_stack(msgspec.structs.replace(record, **changes))

        await self._engine.transact(write)

    # --- templates

    @_operation
    async def get_template(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        stages = ["Original", "Processed"]
        if request.get("ChangeSetName"):
            change_set = self._change_sets.find(request["ChangeSetName"], request.get("StackName"))
            return {"TemplateBody": change_set.template, "StagesAvailable": stages}
        body = self._engine.body(self._any(request["StackName"]).id)
        processed = request.get("TemplateStage", "Original") == "Processed"
        return {"TemplateBody": body.processed if processed else body.template, "StagesAvailable": stages}

    @_operation
    async def validate_template(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        body = read(await self._template(request, None))
        template = parse(body)
        known = declare(template.parameters)
        parameters = []
        for name, one in known.items():
            row: dict[str, Any] = {"ParameterKey": name, "NoEcho": one.no_echo}
            row.update({"DefaultValue": one.default} if one.default is not None else {})
            row.update({"Description": one.description} if one.description else {})
            parameters.append(row)
        return {"Parameters": parameters, **_described(template)}

    @_operation
    async def get_template_summary(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("StackName"):
            text = self._engine.body(self._any(request["StackName"]).id).template
        else:
            text = await self._template(request, None)
        template = parse(read(text))
        parameters = []
        for name, one in declare(template.parameters).items():
            row: dict[str, Any] = {"ParameterKey": name, "ParameterType": one.type, "NoEcho": one.no_echo}
            row.update({"DefaultValue": one.default} if one.default is not None else {})
            row.update({"Description": one.description} if one.description else {})
            row["ParameterConstraints"] = {"AllowedValues": list(one.allowed_values)} if one.allowed_values else {}
            parameters.append(row)
        kinds = sorted({declared.type for declared in template.resources.values()})
        found = {"Parameters": parameters, "ResourceTypes": kinds, **_described(template)}
        if "AWSTemplateFormatVersion" in template.body:
            found["Version"] = str(template.body["AWSTemplateFormatVersion"])
        if template.metadata:
            found["Metadata"] = json.dumps(template.metadata)
        return found

    # --- change sets

    @_operation
    async def create_change_set(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        kind = request.get("ChangeSetType", "UPDATE")
        if kind not in ("CREATE", "UPDATE"):
            raise Unsupported(f"ChangeSetType {kind} is not supported")
        for name in ("ResourcesToImport", "ImportExistingResources"):
            if request.get(name):
                raise Unsupported(f"{name} is not supported")
        record = self._engine.find(request["StackName"])
        before = self._engine.body(record.id) if record is not None and kind == "UPDATE" else None
        named = {**request, "StackName": record.name} if record is not None else request
        wanted = self._request(named, await self._template(request, before), before.parameters if before else {}, before)
        self._check_capabilities(wanted, change_set=True)
        made = await self._change_sets.create(
            request["ChangeSetName"], kind, request.get("Description", ""), request.get("ClientToken", ""), wanted
        )
        return {"Id": made.id, "StackId": made.stack_id}

    @_operation
    async def describe_change_set(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        found = self._change_sets.find(request["ChangeSetName"], request.get("StackName"))
        page, token = _page(json.loads(found.changes), request)
        answer = {
            **_change_set(found),
            "Parameters": _parameters(found.shown),
            "NotificationARNs": list(found.notifications),
            "RollbackConfiguration": {},
            "Capabilities": list(found.capabilities),
            "Tags": _tags(found.tags),
            "Changes": page,
            "IncludeNestedStacks": False,
            **token,
        }
        return answer

    @_operation
    async def execute_change_set(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        found = self._change_sets.find(request["ChangeSetName"], request.get("StackName"))
        on_failure = "DO_NOTHING" if request.get("DisableRollback") else ""
        await self._change_sets.execute(found, request.get("ClientRequestToken", ""), on_failure=on_failure)
        await self._engine.pause(found.stack_id, _PATIENCE_SECONDS)
        return {}

    @_operation
    async def delete_change_set(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        try:
            found = self._change_sets.find(request["ChangeSetName"], request.get("StackName"))
        except ServiceError as error:
            if error.name == "ChangeSetNotFound":
                return {}  # as the service: deleting what is not there succeeds
            raise
        await self._change_sets.delete(found)
        return {}

    @_operation
    async def list_change_sets(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        record = self._live(request["StackName"], "Stack [{}] does not exist")
        page, token = _page(self._change_sets.of(record.id), request)
        return {"Summaries": [_change_set(one) for one in page], **token}

    # --- exports

    @_operation
    async def list_exports(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        page, token = _page(self._engine.read(lambda rows: rows.exports()), request)
        rows = [{"ExportingStackId": one.stack_id, "Name": one.name, "Value": self._engine.rewrite(one.value)} for one in page]
        return {"Exports": rows, **token}

    @_operation
    async def list_imports(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        name = request["ExportName"]
        found = self._engine.read(lambda rows: importers(rows, name))
        if not found:
            raise ServiceError("ValidationError", f"Export '{name}' is not imported by any stack.")
        page, token = _page(found, request)
        return {"Imports": page, **token}

    # --- what requests hold

    def _any(self, name: str) -> StackRecord:
        """A stack by name or id, a deleted one by id too."""
        record = self._engine.find(name)
        if record is None:
            raise ServiceError("ValidationError", f"Stack with id {name} does not exist")
        return record

    def _live(self, name: str, text: str) -> StackRecord:
        record = self._engine.find(name)
        if record is None or record.status == "DELETE_COMPLETE":
            raise ServiceError("ValidationError", text.format(name))
        return record

    async def _template(self, request: Mapping[str, Any], before: Body | None) -> str:
        if request.get("UsePreviousTemplate"):
            if before is None:
                raise ServiceError("ValidationError", "UsePreviousTemplate is only for stacks that have a template")
            return before.template
        if request.get("TemplateBody"):
            return str(request["TemplateBody"])
        if request.get("TemplateURL"):
            return await self._engine.fetch_template(str(request["TemplateURL"]))
        raise ServiceError("ValidationError", "Either Template URL or Template Body must be specified.")

    def _request(self, request: Mapping[str, Any], template: str, before: Mapping[str, str], body: Body | None) -> Request:
        for name in (
            *("ResourceTypes", "RollbackConfiguration", "StackPolicyBody", "StackPolicyURL", "IncludeNestedStacks"),
            "NotificationARNs",  # nobody would be told
        ):
            if request.get(name):
                raise Unsupported(f"{name} is not supported")
        parameters: dict[str, str] = {}
        for one in request.get("Parameters") or ():
            key = one.get("ParameterKey", "")
            if one.get("UsePreviousValue"):
                if body is None:
                    raise ServiceError(
                        "ValidationError",
                        f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true for a parameter key "
                        "not in the previous template",
                    )
                if key in before:
                    parameters[key] = before[key]
            else:
                parameters[key] = str(one.get("ParameterValue", ""))
        given = request.get("Tags")
        tags = {one["Key"]: one["Value"] for one in given} if given is not None else dict(body.tags) if body else {}
        on_failure = request.get("OnFailure") or request.get("OnStackFailure") or "ROLLBACK"
        if request.get("DisableRollback"):
            on_failure = "DO_NOTHING"
        return Request(
            name=request["StackName"],
            template=template,
            parameters=parameters,
            capabilities=tuple(request.get("Capabilities") or ()),
            tags=tags,
            on_failure=on_failure,
            role=request.get("RoleARN") or "",
            notifications=tuple(request.get("NotificationARNs") or ()),
            client_token=request.get("ClientRequestToken") or request.get("ClientToken") or "",
            timeout_minutes=int(request.get("TimeoutInMinutes") or 0),
            is_protected=bool(request.get("EnableTerminationProtection")),
        )

    def _check_capabilities(self, request: Request, *, change_set: bool) -> None:
        template = parse(read(request.template))
        missing = [one for one in _capabilities(template) if one not in request.capabilities]
        if "CAPABILITY_IAM" in missing and "CAPABILITY_NAMED_IAM" in request.capabilities:
            missing.remove("CAPABILITY_IAM")
        if template.transforms and not change_set and "CAPABILITY_AUTO_EXPAND" not in request.capabilities:
            missing.append("CAPABILITY_AUTO_EXPAND")
        if missing:
            raise ServiceError("InsufficientCapabilitiesException", f"Requires capabilities : [{', '.join(missing)}]")

    # --- what answers hold

    def _summary(self, record: StackRecord) -> dict[str, Any]:
        body = self._engine.body(record.id)
        found = {
            "StackId": record.id,
            "StackName": record.name,
            "CreationTime": _time(record.created_at_ms),
            "LastUpdatedTime": _time(record.updated_at_ms),
            "DeletionTime": _time(record.deleted_at_ms),
            "StackStatus": record.status,
            "StackStatusReason": record.reason or None,
            "TemplateDescription": body.description or None,
            "ParentId": record.parent or None,
            "RootId": record.root or None,
            "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
        }
        return {name: value for name, value in found.items() if value is not None}

    def _stack(self, record: StackRecord) -> dict[str, Any]:
        body = self._engine.body(record.id)
        found = self._summary(record)
        found.pop("TemplateDescription", None)
        outputs = [dict(one) for one in body.outputs]
        extra: dict[str, Any] = {
            "Description": body.description or None,
            "Parameters": _parameters(body.resolved),
            "RollbackConfiguration": {},
            "DisableRollback": record.on_failure == "DO_NOTHING",
            "NotificationARNs": list(record.notifications),
            "Capabilities": list(body.capabilities),
            "Outputs": outputs or None,
            "RoleARN": record.role or None,
            "Tags": _tags(body.tags),
            "EnableTerminationProtection": record.is_protected,
            "ChangeSetId": record.change_set or None,
            "TimeoutInMinutes": record.timeout_minutes or None,
        }
        return {**found, **{name: value for name, value in extra.items() if value is not None}}


def _capabilities(template: Template) -> list[str]:
    """What a template makes that its user must have meant to allow."""
    iam = [one for one in template.resources.values() if one.type in _IAM]
    if not iam:
        return []
    return ["CAPABILITY_NAMED_IAM"] if any(name in one.properties for one in iam for name in _NAMES) else ["CAPABILITY_IAM"]


def _described(template: Template) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if template.description:
        found["Description"] = template.description
    capabilities = _capabilities(template)
    if template.transforms:
        capabilities.append("CAPABILITY_AUTO_EXPAND")
        found["DeclaredTransforms"] = language.transform_names(template.transforms)
    if capabilities:
        kinds = sorted({one.type for one in template.resources.values() if one.type in _IAM})
        found["Capabilities"] = capabilities
        found["CapabilitiesReason"] = f"The following resource(s) require capabilities: [{', '.join(kinds)}]"
    return found


def _resource(resource: StoredResource) -> dict[str, Any]:
    state = resource.now or resource.old
    found = {
        "LogicalResourceId": resource.logical_id,
        "PhysicalResourceId": state.physical_id if state is not None and state.is_made else None,
        "ResourceType": state.type if state is not None else "",
        "Timestamp": _time(resource.updated_at_ms),
        "ResourceStatus": resource.status,
        "ResourceStatusReason": resource.reason or None,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }
    return {name: value for name, value in found.items() if value is not None}


def _event(record: StackRecord, event: Event) -> dict[str, Any]:
    found = {
        "StackId": record.id,
        "EventId": event.id,
        "StackName": record.name,
        "LogicalResourceId": event.logical_id,
        "PhysicalResourceId": event.physical_id,
        "ResourceType": event.type,
        "Timestamp": _time(event.at_ms),
        "ResourceStatus": event.status,
        "ResourceStatusReason": event.reason or None,
        "ResourceProperties": event.properties or None,
        "ClientRequestToken": event.token or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _change_set(found: ChangeSetRecord) -> dict[str, Any]:
    row = {
        "ChangeSetName": found.name,
        "ChangeSetId": found.id,
        "StackId": found.stack_id,
        "StackName": found.stack_name,
        "Description": found.description or None,
        "CreationTime": _time(found.created_at_ms),
        "ExecutionStatus": found.execution,
        "Status": found.status,
        "StatusReason": found.reason or None,
    }
    return {name: value for name, value in row.items() if value is not None}


def _parameters(shown: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in shown.items()]


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _page(rows: list[T], request: Mapping[str, Any]) -> tuple[list[T], dict[str, str]]:
    """One page, and the token of the next: a number of rows to skip."""
    token = request.get("NextToken") or "0"
    if not (token.isascii() and token.isdigit()) or len(token) > 9:
        raise ServiceError("ValidationError", "Invalid NextToken")
    start = int(token)
    more = {"NextToken": str(start + _PAGE)} if len(rows) > start + _PAGE else {}
    return rows[start : start + _PAGE], more
