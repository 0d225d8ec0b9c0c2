"""What a provider is, and what it is given."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from martlet.apps.stacks.intrinsics import pending
from martlet.apps.stacks.kinds import Kind
from martlet.types import Principal

__all__ = ["REPLACE", "Caller", "Context", "Physical", "Provider", "Simple", "chosen", "generated_name"]


class _Replace:
    """The answer of `update` for a change that needs a new resource, where only the room could tell."""


REPLACE: Final = _Replace()


class Caller(msgspec.Struct, frozen=True):
    """Who calls a room's operation: the members that every room's own Protocol asks for."""

    principal: Principal
    region: str
    account: str
    request_id: str
    endpoint: str = ""
    trace_id: str = ""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The stack and the resource that a provider works for."""

    stack_name: str
    stack_id: str
    logical_id: str
    region: str
    account: str
    caller: Caller
    type: str = ""  # as the template says it, "Custom::Thing"
    token: str = ""  # random, of this very making of the resource: parts of generated names come from it
    say: Callable[[str], None] = lambda text: None
    tags: Mapping[str, str] = {}
    stop: asyncio.Event | None = None  # set when the operation has failed: do not wait on
    is_lenient: bool = False
    is_repair: bool = False  # the state before may be half applied: put everything, not only what differs


class Physical(msgspec.Struct, frozen=True):
    """A resource that is there. `id` is what Ref yields."""

    id: str
    attributes: dict[str, Any] = {}


class Provider(Protocol):
    """Makes, changes and removes resources of one type. Errors are MartletErrors; their message is the event's reason."""

    kind: Kind

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        """The id and the attributes as far as they are known before the resource is made (else `pending`, id ""). Pure."""
        ...

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        """Make it. `physical_id` is what `identify` gave. May be called again after a crash for the same id."""
        ...

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        """Change it in place from `old` to `new`."""
        ...

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        """Remove it; one that is not there is fine."""
        ...

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        """What a crash within `create` may have left, to be deleted; None for nothing."""
        ...


class Simple:
    """A provider for types that are remembered and do nothing: everything is known from the properties."""

    def __init__(
        self,
        kind: Kind,
        name: Callable[[Context, Mapping[str, Any]], str],
        attributes: Callable[[Context, str, Mapping[str, Any]], dict[str, Any]] = lambda context, id, properties: {},
    ) -> None:
        self.kind = kind
        self._name = name
        self._attributes = attributes

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        id = self._name(context, properties)
        return Physical(id, self._attributes(context, id, properties))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        return Physical(physical_id, self._attributes(context, physical_id, properties))

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        return Physical(physical.id, self._attributes(context, physical.id, new))

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        return None

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None


def generated_name(context: Context, most: int = 64, *, lower: bool = False) -> str:
    """`stack-logicalId-RANDOM`, cut to `most` characters as CloudFormation does: the random end stays."""
    end = hashlib.sha256(f"{context.stack_id}\0{context.logical_id}\0{context.token}".encode()).hexdigest()[:12].upper()
    room = most - len(end) - 2
    stack, logical_id = context.stack_name, context.logical_id
    if len(stack) + len(logical_id) > room:
        kept = max(room - len(logical_id), room // 2)
        stack = stack[:kept]
        logical_id = logical_id[: room - len(stack)]
    name = f"{stack}-{logical_id}-{end}"
    return name.lower() if lower else name


def unknown(context: Context, *attributes: str) -> dict[str, Any]:
    """`pending` values for attributes that only the room will know."""
    return {name: pending(f"{context.logical_id}.{name}") for name in attributes}


Operation = Callable[..., Awaitable[dict[str, Any]]]


def chosen(properties: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the named properties that are there."""
    return {name: properties[name] for name in names if name in properties}
