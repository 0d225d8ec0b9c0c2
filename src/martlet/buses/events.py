"""The service "events": EventBridge's operations, from request to answer as dicts in the API's own members."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from martlet.buses.archives import ArchiveOperations
from martlet.buses.desk import DEFAULT, Request
from martlet.buses.endpoints import EndpointOperations
from martlet.buses.rows import Bus, Tables
from martlet.buses.rules import BusOperations, RuleOperations, TagOperations

__all__ = ["Events"]

_ARN = re.compile(r"arn:[^:]*:events:.+")
_NAMED: Final = {
    "Archive": ("ArchiveName", "archive"),
    "Replay": ("ReplayName", "replay"),
    "ApiDestination": ("Name", "api-destination"),
    "Connection": ("Name", "connection"),
    "EventBus": ("Name", "event-bus"),
}


class Events(BusOperations, RuleOperations, TagOperations, ArchiveOperations, EndpointOperations):
    """EventBridge. Call `start` before the first operation, `stop` at the end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See `BusDesk.__init__`."""
        super().__init__(*arguments, **options)
        self._replaying: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """There is a default bus; replays that a crash interrupted go on."""
        now_ms = self._clock.now_ms()

        def ensure(tables: Tables) -> None:
            if tables.get(Bus, DEFAULT) is None:
                tables.put(Bus(name=DEFAULT, created_at_ms=now_ms, modified_at_ms=now_ms))

        await self._write(ensure)
        self._resume_replays()
        self._store.on_departure(lambda node: self._resume_replays())

    async def stop(self) -> None:
        tasks = list(self._replaying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until every replay has come to its end."""
        while self._replaying:
            await asyncio.wait(list(self._replaying.values()))

    def precheck(self, operation: str, request: Request) -> None:
        """The one member that the service takes in any case."""
        oauth = ((request.get("AuthParameters") or {}).get("OAuthParameters")) if operation.endswith("Connection") else None
        if isinstance(oauth, dict) and isinstance(oauth.get("HttpMethod"), str):
            oauth["HttpMethod"] = oauth["HttpMethod"].upper()

    def permission(self, operation: str, request: Request) -> tuple[str, str]:
        """(action, resource) that a caller needs; the resource is an ARN, or "*"."""
        return f"events:{operation}", self._resource(operation, request)

    def _resource(self, operation: str, request: Request) -> str:
        if operation == "PutEvents":
            buses = {self._bus_name(entry.get("EventBusName")) for entry in request.get("Entries") or ()}
            return self._arn("event-bus", buses.pop()) if len(buses) == 1 else "*"
        if request.get("ResourceARN"):
            return str(request["ResourceARN"])
        rule = request.get("Rule") or (request.get("Name") if operation.endswith("Rule") else None)
        if rule:
            return self._rule_arn(self._bus_name(request.get("EventBusName")), str(rule))
        for suffix, (member, kind) in _NAMED.items():
            if operation.endswith(suffix) and request.get(member):
                name = str(request[member])
                return name if _ARN.fullmatch(name) else self._arn(kind, name)
        return "*"
