"""How asynchronous events of a function, version or alias are treated: retries, age, destinations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.functions.control.guards import Guards
from martlet.functions.control.names import LATEST, Name, invalid, missing
from martlet.functions.control.records import EventConfig, Tables

__all__ = ["Events"]

_REACHED: Final = (":lambda:", ":sqs:", ":sns:", ":events:", ":s3:", "kafka://")


class Events(Guards):
    """The operations on EventInvokeConfig."""

    async def put_function_event_invoke_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PutFunctionEventInvokeConfig: what is not said goes back to its default."""
        self._authorize(caller, "lambda:PutFunctionEventInvokeConfig", request["FunctionName"])
        return await self._set(request, fresh=True)

    async def update_function_event_invoke_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UpdateFunctionEventInvokeConfig."""
        self._authorize(caller, "lambda:UpdateFunctionEventInvokeConfig", request["FunctionName"])
        return await self._set(request, fresh=False)

    async def _set(self, request: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
        name = self._latest_by_default(request)
        members = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
        if fresh and all(request.get(member) is None for member in members):
            raise invalid("You must specify at least one of error handling or destination setting.")

        def write(tables: Tables) -> EventConfig:
            if self._resolve(tables, name) is None:
                raise missing("The function doesn't exist.")
            before = tables.get(EventConfig, name.name, name.qualifier)
            if fresh:
                before = EventConfig(modified_at_ms=0)
            elif before is None:
                raise _none(name)
            changes = self._changes(tables, name, request)
            after = msgspec.structs.replace(before, modified_at_ms=self._clock.now_ms(), **changes)
            tables.put(after, name.name, name.qualifier)
            return after

        return self._events_body(name, await self._write(write))

    def _changes(self, tables: Tables, name: Name, request: dict[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if request.get("MaximumRetryAttempts") is not None:
            changes["retries"] = _within(request["MaximumRetryAttempts"], "MaximumRetryAttempts", 0, 2)
        if request.get("MaximumEventAgeInSeconds") is not None:
            changes["age_seconds"] = _within(request["MaximumEventAgeInSeconds"], "MaximumEventAgeInSeconds", 60, 21_600)
        destinations = request.get("DestinationConfig") or {}
        given = {member: (destinations.get(member) or {}).get("Destination") for member in ("OnSuccess", "OnFailure")}
        for member, field in (("OnSuccess", "on_success"), ("OnFailure", "on_failure")):
            arn = given[member]
            if arn is not None:
                if arn and not any(part in arn for part in _REACHED):
                    raise invalid(f"The provided destination config {_written(given)} is invalid.")
                self._check_destination(tables, arn, name.name)
                changes[field] = arn
        return changes

    async def get_function_event_invoke_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunctionEventInvokeConfig."""
        self._authorize(caller, "lambda:GetFunctionEventInvokeConfig", request["FunctionName"])
        name = self._latest_by_default(request)
        found = self._read(lambda tables: tables.get(EventConfig, name.name, name.qualifier))
        if found is None:
            raise _none(name)
        return self._events_body(name, found)

    async def delete_function_event_invoke_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteFunctionEventInvokeConfig."""
        self._authorize(caller, "lambda:DeleteFunctionEventInvokeConfig", request["FunctionName"])
        name = self._latest_by_default(request)

        def delete(tables: Tables) -> None:
            if tables.get(EventConfig, name.name, name.qualifier) is None:
                raise _none(name)
            tables.delete(EventConfig, name.name, name.qualifier)

        await self._write(delete)
        return {}

    async def list_function_event_invoke_configs(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListFunctionEventInvokeConfigs."""
        self._authorize(caller, "lambda:ListFunctionEventInvokeConfigs", request["FunctionName"])
        name = self._name(request)

        def look(tables: Tables) -> list[tuple[str, dict[str, Any]]]:
            if self._function(tables, name) is None:
                raise missing("The function doesn't exist.")
            return [
                (str(parts[-1]), self._events_body(name._replace(qualifier=str(parts[-1])), one))
                for parts, one in tables.all(EventConfig, name.name)
            ]

        shown, more = self._cut(self._read(look), self._page(request))
        return {"FunctionEventInvokeConfigs": shown, **more}

    def events_of(self, function: str, qualifier: str) -> EventConfig | None:
        """What holds for events that were sent to this qualifier."""
        return self._read(lambda tables: tables.get(EventConfig, function, qualifier or LATEST))

    def _latest_by_default(self, request: dict[str, Any]) -> Name:
        name = self._name(request)
        return name if name.qualifier else name._replace(qualifier=LATEST)

    def _events_body(self, name: Name, one: EventConfig) -> dict[str, Any]:
        body: dict[str, Any] = {
            "LastModified": datetime.fromtimestamp(one.modified_at_ms / 1000, UTC),
            "FunctionArn": self._arn(name.name, name.qualifier),
            "DestinationConfig": {
                "OnSuccess": {"Destination": one.on_success} if one.on_success else {},
                "OnFailure": {"Destination": one.on_failure} if one.on_failure else {},
            },
        }
        if one.retries is not None:
            body["MaximumRetryAttempts"] = one.retries
        if one.age_seconds is not None:
            body["MaximumEventAgeInSeconds"] = one.age_seconds
        return body


def _none(name: Name) -> Exception:
    return missing(f"The function {name.qualified} doesn't have an EventInvokeConfig")


def _within(value: Any, member: str, least: int, most: int) -> int:
    number = int(value)
    if not least <= number <= most:
        raise invalid(f"{member} must be between {least} and {most}, got {number}")
    return number


def _written(given: dict[str, str | None]) -> str:
    """The destinations as the service writes them in its error."""
    success = f"OnSuccess(destination={given['OnSuccess']})" if given["OnSuccess"] else "null"
    failure = f"OnFailure(destination={given['OnFailure']})" if given["OnFailure"] else "null"
    return f"DestinationConfig(onSuccess={success}, onFailure={failure})"
