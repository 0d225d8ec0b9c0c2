"""The audit log and the advice on policies, as endpoints of the management API; and what a request leaves in both logs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from martlet.auth import Accesses, AuditLog
from martlet.auth.acts import Act, witness
from martlet.auth.advice import explain, named_in_full, suggest
from martlet.auth.audit import Call, Entry, is_management
from martlet.errors import AccessDenied, InvalidInput, MartletError, NotFound, ServiceError, Unauthenticated
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.rooms import Rooms
from martlet.types import ACCOUNT, Principal

__all__ = ["AuditEndpoints", "auditor"]

_CREDENTIAL: Final = re.compile(r"Credential=([A-Z0-9]{16,128})/", re.ASCII)
_OUTCOMES: Final = ("done", "failed", "denied")
_ENTRIES_DEFAULT: Final = 100
_ENTRIES_MOST: Final = 1_000


def auditor(
    audit: AuditLog, access: Accesses, asked: Callable[[Principal, str], None]
) -> Callable[[Request, list[Act], int], Awaitable[None]]:
    """What hears of every answered request (see `asgi.app`). `asked` is told who asked for which action."""

    async def answered(request: Request, acts: list[Act], status: int) -> None:
        error = request.error
        denied = status in (401, 403) or isinstance(error, (AccessDenied, Unauthenticated))
        if acts:
            access.note(acts, denied=denied)
            if not denied:
                asked(acts[0].principal, acts[0].action)
        if not denied and not any(is_management(act.action) for act in acts):
            return  # carries data, and might: nothing is noted of it
        claimed = "" if request.sender is not None else _CREDENTIAL.search(request.headers.get("authorization", ""))
        await audit.answered(
            Call(
                acts=tuple(acts),
                principal=request.sender,
                claimed=f"key {claimed[1]}" if claimed else "",
                status=status,
                denied=denied,
                error="" if error is None else str(error.details.get("reason") or _code(error)),
                source_ip=request.client_ip,
                user_agent=request.headers.get("user-agent", ""),
                request_id=request.id,
            )
        )

    return answered


def _code(error: MartletError) -> str:
    return error.name if isinstance(error, ServiceError) else error.code


class AuditEndpoints:
    def __init__(self, rooms: Rooms, allowed: Callable[[Request, str, str], Awaitable[Principal]]) -> None:
        self._rooms = rooms
        self._allowed = allowed

    def operations(self) -> tuple[Operation, ...]:
        if self._rooms.audit_log is None or self._rooms.access_log is None:
            return ()
        return (
            Operation("GET", "/v1/audit", self.entries),
            Operation("GET", "/v1/audit/verify", self.verify),
            Operation("GET", "/v1/policy/explain", self.explain),
            Operation("GET", "/v1/policy/suggest", self.suggest),
            Operation("GET", "/v1/policy/principals", self.principals),
            Operation("DELETE", "/v1/policy/accesses", self.forget),
        )

    @property
    def _audit(self) -> AuditLog:
        assert self._rooms.audit_log is not None
        return self._rooms.audit_log

    @property
    def _access(self) -> Accesses:
        assert self._rooms.access_log is not None
        return self._rooms.access_log

    async def entries(self, request: Request) -> Answer:
        """With `after`: the entries that follow that number, in pages; without: the newest."""
        await self._allowed(request, "audit:Read", "*")
        query = request.query(("after", "limit", "principal", "action", "outcome", "since_ms"))
        limit = asgi.whole(query, "limit", _ENTRIES_DEFAULT, low=1, high=_ENTRIES_MOST)
        wanted = _filter(query, asgi.whole(query, "since_ms", 0))
        if "after" in query:
            found = self._audit.read(asgi.whole(query, "after", 0), limit, wanted=wanted)
        else:
            found = self._audit.newest(limit, wanted=wanted)
        return asgi.json_answer({"entries": [msgspec.to_builtins(entry) for entry in found]})

    async def verify(self, request: Request) -> Answer:
        await self._allowed(request, "audit:Read", "*")
        request.query(())
        return asgi.json_answer(msgspec.to_builtins(await self._audit.verify()))

    async def explain(self, request: Request) -> Answer:
        await self._allowed(request, "policy:Read", "*")
        query = request.query(("principal", "action", "resource"))
        for name in ("principal", "action", "resource"):
            if not query.get(name):
                raise InvalidInput(f"{name} is missing", field=name)
        who = self._principal(query["principal"])
        resource = named_in_full(query["action"], query["resource"], self._rooms.region, ACCOUNT)
        with witness():  # a question is no use
            found = explain(who, query["action"], resource, app=self._app_of(who))
        return asgi.json_answer(msgspec.to_builtins(found))

    async def suggest(self, request: Request) -> Answer:
        await self._allowed(request, "policy:Read", "*")
        query = request.query(("principal",))
        name = query.get("principal", "")
        who = self._principal(name)
        seen = await self._access.of(name)
        found = suggest(who, name, seen, self._rooms.region, ACCOUNT, app=self._app_of(who))
        return asgi.json_answer({**msgspec.to_builtins(found), "accesses": [msgspec.to_builtins(access) for access in seen]})

    async def principals(self, request: Request) -> Answer:
        await self._allowed(request, "policy:Read", "*")
        request.query(())
        return asgi.json_answer({"principals": await self._access.principals()})

    async def forget(self, request: Request) -> Answer:
        """What this principal asked for so far is forgotten: a test run begins."""
        await self._allowed(request, "policy:Reset", "*")
        await self._access.forget(request.query(("principal",)).get("principal", ""))
        return Answer(204)

    def _app_of(self, who: Principal) -> str:
        version = self._rooms.functions.get(who.name) if who.kind == "function" else None
        return version.app if version is not None else ""

    def _principal(self, name: str) -> Principal:
        found = self._rooms.principal(name)
        if found is None:
            remedy = 'give "function NAME", "role NAME", "user NAME" or "root"'
            raise NotFound(f"there is no principal {name[:200]!r}", remedy=remedy)
        return found


def _filter(query: dict[str, str], since_ms: int) -> Callable[[Entry], bool]:
    principal, action, outcome = query.get("principal", ""), query.get("action", ""), query.get("outcome", "")
    if outcome and outcome not in _OUTCOMES:
        raise InvalidInput(f"outcome is one of {', '.join(_OUTCOMES)}, got {outcome[:40]!r}", field="outcome")

    def wanted(entry: Entry) -> bool:
        return (
            (principal in entry.principal or principal == entry.kind)
            and action.lower() in entry.action.lower()
            and outcome in ("", entry.outcome)
            and entry.until_ms >= since_ms
        )

    return wanted
