"""Function URLs: their configuration. The edge serves them; it asks `url_configs` and `may_invoke_url`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from martlet.clock import token_hex
from martlet.functions.control.guards import Guards
from martlet.functions.control.names import LATEST, Name, conflict, invalid, is_number, missing
from martlet.functions.control.records import Tables, UrlConfig

__all__ = ["Urls"]

_AUTH = ("NONE", "AWS_IAM")
_MODES = ("BUFFERED", "RESPONSE_STREAM")


class Urls(Guards):
    """The operations on function URLs."""

    async def create_function_url_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, CreateFunctionUrlConfig."""
        self._authorize(caller, "lambda:CreateFunctionUrlConfig", request["FunctionName"])
        name = self._name(request)
        _check(name, request)

        def create(tables: Tables) -> UrlConfig:
            if self._resolve(tables, name) is None:
                raise missing("Function does not exist")
            if tables.get(UrlConfig, name.name, name.qualifier) is not None:
                raise conflict(
                    f"Failed to create function url config for [functionArn = {name.qualified}]. "
                    "Error message:  FunctionUrlConfig exists for this Lambda function"
                )
            now_ms = self._clock.now_ms()
            one = UrlConfig(
                id=_new_id(),
                auth_type=request["AuthType"],
                invoke_mode=request.get("InvokeMode") or "",
                cors=request.get("Cors"),
                created_at_ms=now_ms,
                modified_at_ms=now_ms,
            )
            tables.put(one, name.name, name.qualifier)
            return one

        one = await self._write(create)
        self._on_urls()
        body = self._url_body(name, one)
        del body["LastModifiedTime"]
        return _as_said(body, one)

    async def get_function_url_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunctionUrlConfig."""
        self._authorize(caller, "lambda:GetFunctionUrlConfig", request["FunctionName"])
        name = self._name(request)
        one = self._read(lambda tables: tables.get(UrlConfig, name.name, name.qualifier))
        if one is None:
            raise missing("The resource you requested does not exist.")
        return self._url_body(name, one)

    async def update_function_url_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UpdateFunctionUrlConfig."""
        self._authorize(caller, "lambda:UpdateFunctionUrlConfig", request["FunctionName"])
        name = self._name(request)
        _check(name, request)

        def update(tables: Tables) -> UrlConfig:
            if self._resolve(tables, name) is None:
                raise missing("Function does not exist")
            before = tables.get(UrlConfig, name.name, name.qualifier)
            if before is None:
                raise missing("The resource you requested does not exist.")
            after = msgspec.structs.replace(
                before,
                auth_type=request.get("AuthType") or before.auth_type,
                invoke_mode=request.get("InvokeMode") or before.invoke_mode,
                cors=(request["Cors"] or None) if request.get("Cors") is not None else before.cors,
                modified_at_ms=self._clock.now_ms(),
            )
            tables.put(after, name.name, name.qualifier)
            return after

        one = await self._write(update)
        self._on_urls()
        return _as_said(self._url_body(name, one), one)

    async def delete_function_url_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteFunctionUrlConfig."""
        self._authorize(caller, "lambda:DeleteFunctionUrlConfig", request["FunctionName"])
        name = self._name(request)

        def delete(tables: Tables) -> None:
            if tables.get(UrlConfig, name.name, name.qualifier) is None:
                raise missing("The resource you requested does not exist.")
            tables.delete(UrlConfig, name.name, name.qualifier)

        await self._write(delete)
        self._on_urls()
        return {}

    async def list_function_url_configs(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListFunctionUrlConfigs."""
        self._authorize(caller, "lambda:ListFunctionUrlConfigs", request["FunctionName"])
        name = self._name(request)

        def look(tables: Tables) -> list[tuple[str, dict[str, Any]]]:
            if self._function(tables, name) is None:
                raise missing("Function does not exist")
            return [
                (str(parts[-1]), self._url_body(name._replace(qualifier=str(parts[-1])), one))
                for parts, one in tables.all(UrlConfig, name.name)
            ]

        shown, more = self._cut(self._read(look), self._page(request))
        return {"FunctionUrlConfigs": shown, **more}

    def url_configs(self) -> list[dict[str, Any]]:
        """Every function URL, for the edge: FunctionName, Qualifier ("" for none), UrlId, AuthType, InvokeMode, Cors."""
        return [
            {
                "FunctionName": str(parts[0]),
                "Qualifier": str(parts[1]),
                "UrlId": one.id,
                "AuthType": one.auth_type,
                "InvokeMode": one.invoke_mode or "BUFFERED",
                "Cors": one.cors,
            }
            for parts, one in self._read(lambda tables: tables.all(UrlConfig))
        ]

    def _url_body(self, name: Name, one: UrlConfig) -> dict[str, Any]:
        body: dict[str, Any] = {
            "FunctionUrl": self._url_of(one.id),
            "FunctionArn": self._arn(name.name, name.qualifier),
            "AuthType": one.auth_type,
            "CreationTime": _time(one.created_at_ms),
            "LastModifiedTime": _time(one.modified_at_ms),
            "InvokeMode": one.invoke_mode or "BUFFERED",
        }
        if one.cors is not None:
            body["Cors"] = one.cors
        return body


def _as_said(body: dict[str, Any], one: UrlConfig) -> dict[str, Any]:
    """Answers to changes tell the mode only where it was said."""
    if not one.invoke_mode:
        del body["InvokeMode"]
    return body


def _check(name: Name, request: dict[str, Any]) -> None:
    if is_number(name.qualifier) or name.qualifier == LATEST:
        raise invalid("A function URL leads to a function or to an alias, not to a version.")
    for member, allowed in (("AuthType", _AUTH), ("InvokeMode", _MODES)):
        if request.get(member) not in (None, *allowed):
            raise invalid(f"{member} must be one of {', '.join(allowed)}, got {request[member]}")


def _new_id() -> str:
    """32 lower-case letters and digits, as in a host name of the service."""
    return token_hex(16)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
