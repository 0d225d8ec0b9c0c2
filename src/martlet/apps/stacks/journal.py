"""Every step of a stack's life as one commit: the resource's row, the stack's status and the event that tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar

import msgspec

from martlet.apps.stacks.parameters import MASK
from martlet.apps.stacks.records import Body, Event, Export, Rows, StackRecord, State, StoredResource
from martlet.clock import Clock
from martlet.errors import Conflict

__all__ = ["Journal", "Store"]

T = TypeVar("T")
_STACK: Final = "AWS::CloudFormation::Stack"


class Store(Protocol):
    """The store: `transact` answers after the commit."""

    def transact(self, fn: Callable[[Any], T], /) -> Coroutine[Any, Any, T]: ...
    def read(self, fn: Callable[[Any], T], /) -> T: ...
    def turn(self, name: str, wait_seconds: float | None, /) -> AbstractAsyncContextManager[bool]: ...


class Journal:
    """Writes for one stack."""

    def __init__(self, store: Store, clock: Clock, stack_id: str, say: Callable[[str], None], token: str = "") -> None:
        self._store = store
        self._clock = clock
        self.stack_id = stack_id
        self._say = say
        self._token = token

    # --- reading

    def record(self) -> StackRecord:
        found = self._store.read(lambda reader: Rows(reader).stack(self.stack_id))
        assert found is not None
        return found

    def resources(self) -> dict[str, StoredResource]:
        return self._store.read(lambda reader: Rows(reader).resources(self.stack_id))

    def body(self) -> Body:
        found = self._store.read(lambda reader: Rows(reader).body(self.stack_id))
        return found or Body(template="", processed="{}", parameters={})

    # --- writing

    async def write(self, fn: Callable[[Rows, StackRecord], StackRecord]) -> StackRecord:
        """Run `fn(rows, record)`; the record that it returns is put."""

        def change(tx: Any) -> StackRecord:
            rows = Rows(tx)
            record = rows.stack(self.stack_id)
            if record is None:
                raise Conflict(f"the stack {self.stack_id} is gone")
            record = fn(rows, record)
            rows.put_stack(record)
            return record

        return await self._store.transact(change)

    def event(
        self, rows: Rows, record: StackRecord, resource: StoredResource, *, physical_id: str | None = None
    ) -> StackRecord:
        """Adds the event that `resource` is in its status."""
        state = resource.now or resource.old
        shown = _shown(state) if state is not None else ""
        return self.add(
            rows,
            record,
            logical_id=resource.logical_id,
            physical_id=physical_id if physical_id is not None else (state.physical_id if state and state.is_made else ""),
            type=state.type if state is not None else "",
            status=resource.status,
            reason=resource.reason,
            properties=shown,
        )

    def add(
        self,
        rows: Rows,
        record: StackRecord,
        *,
        logical_id: str,
        physical_id: str,
        type: str,
        status: str,
        reason: str = "",
        properties: str = "",
    ) -> StackRecord:
        now = self._clock.now_ms()
        number = record.events + 1
        own = logical_id == record.name
        id = f"{record.id.rpartition('/')[2]}-{number}" if own else f"{logical_id}-{status}-{number}"
        event = Event(
            id=id,
            at_ms=now,
            logical_id=logical_id,
            physical_id=physical_id,
            type=type,
            status=status,
            reason=reason,
            properties=properties,
            token=self._token,
        )
        line = f"{status}  {type}  {logical_id}" + (f"  {reason}" if reason else "")
        self._say(line)
        return rows.add_event(record, event)

    async def resource(self, resource: StoredResource, *, physical_id: str | None = None) -> None:
        """Put a resource's row and its event."""

        def change(rows: Rows, record: StackRecord) -> StackRecord:
            rows.put_resource(self.stack_id, resource)
            return self.event(rows, record, resource, physical_id=physical_id)

        await self.write(change)

    async def dropped(self, resource: StoredResource, status: str, reason: str = "") -> None:
        """A resource is gone (or left alone): its row goes, the event stays."""

        def change(rows: Rows, record: StackRecord) -> StackRecord:
            rows.drop_resource(self.stack_id, resource.logical_id)
            ended = msgspec.structs.replace(resource, status=status, reason=reason)
            return self.event(rows, record, ended)

        await self.write(change)

    async def status(self, status: str, reason: str = "", **changes: Any) -> StackRecord:
        """The stack's own status, with its event."""

        def change(rows: Rows, record: StackRecord) -> StackRecord:
            record = msgspec.structs.replace(record, status=status, reason=reason, **changes)
            return self.own_event(rows, record)

        return await self.write(change)

    def own_event(self, rows: Rows, record: StackRecord) -> StackRecord:
        return self.add(
            rows,
            record,
            logical_id=record.name,
            physical_id=record.id,
            type=_STACK,
            status=record.status,
            reason=record.reason,
        )

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms()


def _shown(state: State) -> str:
    """Properties as an event shows them: cut, and without the content of inline code."""
    text = json.dumps(state.properties, separators=(",", ":"), default=str)
    return text if len(text) <= 4_096 else text[:4_096]


def put_exports(rows: Rows, stack_id: str, name: str, body: Body) -> None:
    """Make the stack's exports be those of `body`. Raises `Conflict` for a name that another stack exports, or that is taken
    away while others import it."""
    wanted = {one["ExportName"]: one["OutputValue"] for one in body.outputs if one.get("ExportName")}
    for export in rows.exports():
        if export.stack_id != stack_id:
            if export.name in wanted:
                owner = rows.stack(export.stack_id)
                raise Conflict(
                    f"Export with name {export.name} is already exported by stack {owner.name if owner else export.stack_id}"
                )
            continue
        if wanted.get(export.name) == export.value:
            continue
        users = importers(rows, export.name, stack_id)
        if users:
            verb = "delete" if export.name not in wanted else "update"
            raise Conflict(f"Export {export.name} cannot be {verb}d as it is in use by {' and '.join(users)}")
        rows.drop_export(export.name)
    for export_name, value in wanted.items():
        rows.put_export(Export(export_name, value, stack_id))


def importers(rows: Rows, name: str, except_id: str = "") -> list[str]:
    """Names of the stacks that import the export `name`."""
    found = []
    for record in rows.stacks():
        if record.id != except_id and record.status != "DELETE_COMPLETE":
            body = rows.body(record.id)
            if body is not None and name in body.imports:
                found.append(record.name)
    return sorted(found)


def masked(declared: Any, resolved: dict[str, Any]) -> dict[str, str]:
    """Parameters as they are shown: lists joined, NoEcho masked."""
    return {
        name: MASK if declared[name].no_echo else ",".join(value) if isinstance(value, list) else value
        for name, value in resolved.items()
    }
