"""What the store keeps of stacks, and how: one row for a stack, its templates, each resource, each event, each export."""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeVar

import msgspec

from martlet.apps.stacks.deployed import ROOM
from martlet.errors import StoreFailed
from martlet.limits import LIMITS
from martlet.store import keys

__all__ = ["Body", "ChangeSetRecord", "Event", "Export", "Rows", "StackRecord", "State", "StoredResource"]

T = TypeVar("T")
_ROOM: Final = ROOM
_MOST: Final = 100_000


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as it was made: enough to change it, to remove it, and to make it so again."""

    type: str
    physical_id: str
    properties: dict[str, Any]
    attributes: dict[str, Any] = {}
    depends_on: tuple[str, ...] = ()
    deletion_policy: str = "Delete"
    update_replace_policy: str = "Delete"
    metadata: str = ""  # JSON
    token: str = ""  # of generated names
    is_made: bool = True  # False: the attempt to make it has not ended, or failed


class StoredResource(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of a stack. While an operation runs `old` is what a rollback returns to; `now` None: not there (yet)."""

    logical_id: str
    status: str
    reason: str = ""
    updated_at_ms: int
    now: State | None = None
    old: State | None = None
    is_new: bool = False  # made by the operation that runs: a rollback removes it
    is_replaced: bool = False  # `old` is another physical resource, removed when the operation ends well
    is_touched: bool = False  # the operation that runs has begun to change it
    is_removed: bool = False  # the new template does not have it


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What a stack was made from, and what it yields."""

    template: str  # as given
    processed: str  # JSON, every transform applied
    parameters: dict[str, str]  # as given; without the defaults
    resolved: dict[str, str] = {}  # as shown: defaults filled in, NoEcho masked
    outputs: tuple[dict[str, str], ...] = ()  # OutputKey, OutputValue, Description, ExportName
    capabilities: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    description: str = ""
    warnings: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()  # names of exports that it uses
    is_lenient: bool = False


class StackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stack without its templates. `revision` grows with every operation that succeeds."""

    id: str
    name: str
    status: str
    reason: str = ""
    revision: int = 0
    created_at_ms: int
    updated_at_ms: int | None = None
    deleted_at_ms: int | None = None
    on_failure: str = "ROLLBACK"
    events: int = 0  # written so far
    source: str = ""  # where the template was, of `martlet deploy`
    role: str = ""
    notifications: tuple[str, ...] = ()
    is_protected: bool = False
    policy: str = ""
    parent: str = ""
    root: str = ""
    client_token: str = ""
    change_set: str = ""
    timeout_minutes: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a stack or a resource of it."""

    id: str
    at_ms: int
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str = ""
    properties: str = ""
    token: str = ""


class Export(msgspec.Struct, frozen=True):
    """A name that one stack gives to all."""

    name: str
    value: str
    stack_id: str


class ChangeSetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A change set: a plan that waits to be executed."""

    id: str
    name: str
    stack_id: str
    stack_name: str
    kind: str  # CREATE, UPDATE or IMPORT
    status: str
    execution: str = "UNAVAILABLE"
    reason: str = ""
    description: str = ""
    created_at_ms: int
    template: str = ""
    parameters: dict[str, str] = {}
    shown: dict[str, str] = {}
    capabilities: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    changes: str = "[]"  # JSON, in the API's members
    base_revision: int = 0
    on_failure: str = ""
    notifications: tuple[str, ...] = ()
    role: str = ""
    client_token: str = ""


class Reader(Protocol):
    """The part of the store's reader and transaction that is used."""

    def get(self, key: bytes, /) -> bytes | None: ...
    def put(self, key: bytes, value: bytes, /) -> None: ...
    def delete(self, key: bytes, /) -> None: ...
    def scan(self, low: bytes, high: bytes, /, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]: ...


class Rows:
    """Rows of stacks within one transaction or read. `tx` is the store's."""

    def __init__(self, tx: Any) -> None:
        self._tx: Reader = tx

    # stacks

    def stacks(self) -> list[StackRecord]:
        return self._all(StackRecord, "stack")

    def stack(self, id: str) -> StackRecord | None:
        return self._get(StackRecord, "stack", id)

    def put_stack(self, record: StackRecord) -> None:
        self._put(record, "stack", record.id)

    def body(self, id: str, which: str = "now") -> Body | None:
        return self._get(Body, "body", id, which)

    def put_body(self, id: str, body: Body, which: str = "now") -> None:
        self._put(body, "body", id, which)

    def drop_all(self, id: str) -> None:
        """Every row of one stack."""
        self._tx.delete(keys.encode(_ROOM, "stack", id))
        for kind in ("body", "resource", "event", "change_set"):
            low, high = keys.prefix_range(_ROOM, kind, id)
            for key, _ in self._tx.scan(low, high, _MOST):
                self._tx.delete(key)

    # resources

    def resources(self, id: str) -> dict[str, StoredResource]:
        return {one.logical_id: one for one in self._all(StoredResource, "resource", id)}

    def put_resource(self, id: str, resource: StoredResource) -> None:
        self._put(resource, "resource", id, resource.logical_id)

    def drop_resource(self, id: str, logical_id: str) -> None:
        self._tx.delete(keys.encode(_ROOM, "resource", id, logical_id))

    # events

    def events(self, id: str, limit: int = _MOST) -> list[Event]:
        """Newest first."""
        low, high = keys.prefix_range(_ROOM, "event", id)
        return [_decode(value, Event) for _, value in self._tx.scan(low, high, limit, True)]

    def add_event(self, record: StackRecord, event: Event) -> StackRecord:
        """Writes the event; the stack's record that is returned counts it and must be put by the caller."""
        number = record.events + 1
        self._put(event, "event", record.id, number)
        oldest = number - LIMITS["stack_events"].default
        if oldest > 0:
            self._tx.delete(keys.encode(_ROOM, "event", record.id, oldest))
        return msgspec.structs.replace(record, events=number)

    # exports

    def exports(self) -> list[Export]:
        return self._all(Export, "export")

    def export(self, name: str) -> Export | None:
        return self._get(Export, "export", name)

    def put_export(self, export: Export) -> None:
        self._put(export, "export", export.name)

    def drop_export(self, name: str) -> None:
        self._tx.delete(keys.encode(_ROOM, "export", name))

    # change sets

    def change_sets(self, stack_id: str) -> list[ChangeSetRecord]:
        return self._all(ChangeSetRecord, "change_set", stack_id)

    def put_change_set(self, record: ChangeSetRecord) -> None:
        self._put(record, "change_set", record.stack_id, record.id)

    def drop_change_set(self, record: ChangeSetRecord) -> None:
        self._tx.delete(keys.encode(_ROOM, "change_set", record.stack_id, record.id))

    # rows

    def _get(self, kind: type[T], *parts: keys.Part) -> T | None:
        value = self._tx.get(keys.encode(_ROOM, *parts))
        return None if value is None else _decode(value, kind)

    def _put(self, value: Any, *parts: keys.Part) -> None:
        self._tx.put(keys.encode(_ROOM, *parts), msgspec.json.encode(value))

    def _all(self, kind: type[T], *parts: keys.Part) -> list[T]:
        low, high = keys.prefix_range(_ROOM, *parts)
        return [_decode(value, kind) for _, value in self._tx.scan(low, high, _MOST)]


def _decode(value: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise StoreFailed(
            f"a stack's record cannot be read: {error}", remedy="it was written by a newer Martlet, or is damaged"
        ) from error
