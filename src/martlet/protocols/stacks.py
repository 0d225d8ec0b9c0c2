"""Templates over the management API, and the answers of custom resources.

A template is named by its path on the platform's own machine, since the code that it names lies beside it: so only the
platform's owner may deploy one. From elsewhere there is the CloudFormation API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from martlet.errors import AccessDenied, InvalidInput, NotFound
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.rooms import Rooms, StackRecord, Stacks
from martlet.types import Principal

__all__ = ["StackEndpoints", "stack_object"]

Identify = Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]
Narrate = Callable[[Callable[[], Awaitable[dict[str, Any]]], "asyncio.Queue[dict[str, Any]]", Request], Awaitable[Answer]]


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a deployment."""

    path: str
    parameters: dict[str, str] = {}
    lenient: bool = False


def stack_object(stacks: Stacks, record: StackRecord) -> dict[str, Any]:
    """A stack in the shape of an app, with what only stacks have under "stack"."""
    return {
        "name": record.name,
        "revision": record.revision,
        "code": "",
        "layer": "",
        "module": record.source,
        "functions": stacks.functions(record),
        "routes": [],
        "schedules": [],
        "created_at_ms": record.created_at_ms,
        "updated_at_ms": record.updated_at_ms or record.created_at_ms,
        "stack": {
            "id": record.id,
            "status": record.status,
            "reason": record.reason,
            "outputs": stacks.outputs(record),
            "warnings": stacks.warnings(record),
        },
    }


class StackEndpoints:
    """The operations of /v1/stacks."""

    def __init__(self, rooms: Rooms, identify: Identify, narrate: Narrate) -> None:
        self._rooms = rooms
        self._identify = identify
        self._narrate = narrate

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("POST", "/v1/stacks/{name}/deployments", self.deploy),
            Operation("PUT", "/v1/stacks/responses/{token}", self.respond),
        )

    def _stacks(self) -> Stacks:
        if self._rooms.stacks is None:
            raise NotFound("this platform has no stacks")
        return self._rooms.stacks

    async def deploy(self, request: Request) -> Answer:
        name = request.parameters["name"]
        principal, body = await self._identify(request, "request_body_bytes")
        self._rooms.auth.authorize(principal, "apps:Deploy", name)
        if principal.kind != "root":
            raise AccessDenied(f"{principal.kind} {principal.name} may not deploy a local path", principal=principal.name)
        dry_run = asgi.flag(request.query(("dry_run",)), "dry_run")
        try:
            wanted = msgspec.json.decode(body, type=_Wanted)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise InvalidInput(f"the body is not a deployment: {error}", field="body") from error
        if not wanted.path.startswith("/") or "\0" in wanted.path:
            raise InvalidInput(f"path must be absolute, got {wanted.path[:200]!r}", field="path")
        stacks = self._stacks()
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def work() -> dict[str, Any]:
            done = await stacks.deploy(
                Path(wanted.path),
                name,
                wanted.parameters,
                is_lenient=wanted.lenient,
                dry_run=dry_run,
                progress=lambda text: events.put_nowait({"type": "progress", "text": text}),
                begun=lambda: events.put_nowait({"type": "begun"}),
            )
            return {"type": "result", "deployment": msgspec.to_builtins(done)}

        return await self._narrate(work, events, request)

    async def respond(self, request: Request) -> Answer:
        """The answer of a custom resource's function. The token in its address is the credential."""
        body = await request.body("request_body_bytes")
        self._stacks().responses.answer(request.parameters["token"], body)
        return asgi.json_answer({})
