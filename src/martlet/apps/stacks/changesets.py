"""Change sets of the CloudFormation API: a plan that is kept until it is executed or thrown away."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from martlet.apps.stacks.engine import Engine, Prepared, Request, check_updatable, nothing_changes
from martlet.apps.stacks.planning import Plan
from martlet.apps.stacks.reading import TemplateFault
from martlet.apps.stacks.records import ChangeSetRecord, Rows, StackRecord
from martlet.clock import uuid4_text
from martlet.errors import ServiceError, Unsupported
from martlet.types import ACCOUNT

__all__ = ["ChangeSets", "changes_of"]

_NOTHING: Final = "The submitted information didn't contain changes. Submit different information to create a change set."
_NAME: Final = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")


def changes_of(plan: Plan) -> list[dict[str, Any]]:
    """A plan's changes in the API's members."""
    found = []
    for change in plan.changes:
        if change.action == "Keep":
            continue
        resource: dict[str, Any] = {
            "Action": change.action,
            "LogicalResourceId": change.logical_id,
            "ResourceType": change.type,
            "Scope": ["Properties"] if change.action == "Modify" else [],
            "Details": [_detail(name, replaces) for name, replaces in change.properties],
        }
        if change.physical_id:
            resource["PhysicalResourceId"] = change.physical_id
        if change.replacement:
            resource["Replacement"] = change.replacement
        found.append({"Type": "Resource", "ResourceChange": resource})
    return found


_AVAILABLE = "AVAILABLE"
_EXECUTED = "EXECUTE_COMPLETE"


def _detail(name: str, replaces: bool) -> dict[str, Any]:
    target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": "Always" if replaces else "Never"}
    return {"Target": target, "Evaluation": "Static", "ChangeSource": "DirectModification"}


class ChangeSets:
    """The change sets of all stacks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, stack_id: str) -> list[ChangeSetRecord]:
        found = self._engine.read(lambda rows: rows.change_sets(stack_id))
        return sorted(found, key=lambda one: one.created_at_ms)

    def find(self, name: str, stack: str | None) -> ChangeSetRecord:
        """By its ARN, or by its name within a stack. Raises `ChangeSetNotFoundException`."""
        record = self._engine.find(stack) if stack else None
        if stack and record is None:
            raise ServiceError("ValidationError", f"Stack [{stack}] does not exist")
        records = [record] if record is not None else self._engine.all()
        for one in records:
            named = [each for each in self.of(one.id) if each.id == name or (record is not None and each.name == name)]
            if named:  # one that was executed or failed may have given its name to a newer
                return next((each for each in named if each.execution == _AVAILABLE), named[-1])
        raise ServiceError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)

    async def create(self, name: str, kind: str, description: str, token: str, request: Request) -> ChangeSetRecord:
        """Plan `request` and keep it. A template that cannot be planned makes a change set that FAILED, with the reason."""
        if not _NAME.fullmatch(name):
            raise ServiceError(
                "ValidationError",
                f"1 validation error detected: Value '{name}' at 'changeSetName' failed to satisfy constraint: Member must "
                "satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/]*",
            )
        record = self._stack(kind, request)
        if record is not None and any(one.name == name and one.execution == _AVAILABLE for one in self.of(record.id)):
            # one that was executed or never can be gives its name free: the AWS CLI names them by the second
            text = f"ChangeSet {name} cannot be created due to a mismatch with existing attributes"
            raise ServiceError("AlreadyExistsException", text)
        id = record.id if record is not None else self._engine.new_id(request.name)
        change_set = ChangeSetRecord(
            id=f"arn:aws:cloudformation:{self._engine.region}:{ACCOUNT}:changeSet/{name}/{uuid4_text()}",
            name=name,
            stack_id=id,
            stack_name=request.name,
            kind=kind,
            status="CREATE_COMPLETE",
            execution=_AVAILABLE,
            description=description,
            created_at_ms=self._engine.now_ms,
            template=request.template,
            parameters=request.parameters,
            capabilities=request.capabilities,
            tags=request.tags,
            base_revision=record.revision if record is not None else 0,
            on_failure=request.on_failure,
            notifications=request.notifications,
            role=request.role,
            client_token=token,
        )
        change_set = await self._planned(change_set, request, record)
        await self._keep(change_set, record, request)
        return change_set

    def _stack(self, kind: str, request: Request) -> StackRecord | None:
        record = self._engine.find(request.name)
        if record is not None and record.status == "DELETE_COMPLETE":
            record = None
        if kind == "CREATE":
            if record is not None and record.status != "REVIEW_IN_PROGRESS":
                text = f"Stack [{request.name}] already exists and cannot be created again with the changeSet"
                raise ServiceError("ValidationError", text)
            self._engine.check_name(request.name)
            return record
        if record is None:
            raise ServiceError("ValidationError", f"Stack [{request.name}] does not exist")
        check_updatable(record)
        return record

    async def _planned(self, change_set: ChangeSetRecord, request: Request, record: StackRecord | None) -> ChangeSetRecord:
        try:
            prepared = await self._engine.prepare(request, change_set.stack_id)
        except (TemplateFault, Unsupported) as error:
            text = error.text if isinstance(error, TemplateFault) else error.message
            if not text.startswith("Transform "):
                raise
            return msgspec.structs.replace(change_set, status="FAILED", execution="UNAVAILABLE", reason=text)
        changes = json.dumps(changes_of(prepared.plan))
        change_set = msgspec.structs.replace(change_set, changes=changes, shown=prepared.body.resolved)
        live = record is not None and record.status != "REVIEW_IN_PROGRESS"
        if live and record is not None and nothing_changes(prepared, self._engine.body(record.id)):
            return msgspec.structs.replace(change_set, status="FAILED", execution="UNAVAILABLE", reason=_NOTHING)
        return change_set

    async def _keep(self, change_set: ChangeSetRecord, record: StackRecord | None, request: Request) -> None:
        fresh = StackRecord(
            id=change_set.stack_id,
            name=request.name,
            status="REVIEW_IN_PROGRESS",
            reason="User Initiated",
            created_at_ms=self._engine.now_ms,
            change_set=change_set.id,
        )

        def write(rows: Rows) -> None:
            if record is None:
                rows.put_stack(fresh)
            rows.put_change_set(change_set)

        await self._engine.transact(write)

    async def execute(self, change_set: ChangeSetRecord, token: str, *, on_failure: str) -> None:
        """Begin what was planned, planned again against what is there now. Raises `InvalidChangeSetStatusException`."""
        record = self._engine.find(change_set.stack_id)
        stale = record is None or (record.status != "REVIEW_IN_PROGRESS" and record.revision != change_set.base_revision)
        if change_set.execution != _AVAILABLE or stale or record is None:
            state = "OBSOLETE" if stale else change_set.execution
            raise ServiceError(
                "InvalidChangeSetStatus",
                f"ChangeSet [{change_set.id}] cannot be executed in its current status of [{change_set.status}], {state}",
            )
        request = Request(
            name=change_set.stack_name,
            template=change_set.template,
            parameters=change_set.parameters,
            capabilities=change_set.capabilities,
            tags=change_set.tags,
            on_failure=on_failure or change_set.on_failure or "ROLLBACK",
            notifications=change_set.notifications,
            role=change_set.role,
            client_token=token,
        )
        prepared: Prepared = await self._engine.prepare(request, change_set.stack_id)
        if record.status == "REVIEW_IN_PROGRESS":
            await self._engine.create(request, prepared, record.id)
        else:
            await self._engine.update(request, prepared, record.id)
        others = [one for one in self.of(record.id) if one.id != change_set.id]
        done = msgspec.structs.replace(change_set, execution=_EXECUTED)

        def write(rows: Rows) -> None:
            rows.put_change_set(done)
            for one in others:
                rows.drop_change_set(one)
            stack = rows.stack(change_set.stack_id)
            if stack is not None:
                rows.put_stack(msgspec.structs.replace(stack, change_set=change_set.id))

        await self._engine.transact(write)

    async def delete(self, change_set: ChangeSetRecord) -> None:
        await self._engine.transact(lambda rows: rows.drop_change_set(change_set))
