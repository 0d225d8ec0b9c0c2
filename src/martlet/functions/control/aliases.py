"""Aliases: names that lead to a version, or by weight to two."""

from __future__ import annotations

from typing import Any

import msgspec

from martlet.errors import ServiceError
from martlet.functions.control.lifecycle import Lifecycle
from martlet.functions.control.names import (
    LATEST,
    Name,
    conflict,
    invalid,
    is_alias,
    missing,
    no_alias,
    not_found,
    precondition,
)
from martlet.functions.control.records import Alias, Configuration, Tables

__all__ = ["Aliases"]


class Aliases(Lifecycle):
    """The operations on aliases."""

    async def create_alias(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, CreateAlias."""
        self._authorize(caller, "lambda:CreateAlias", request["FunctionName"])
        name = self._name(request)._replace(qualifier="")
        if not is_alias(request["Name"]) or len(request["Name"]) > 128:
            raise ServiceError(
                "ValidationException",
                f"1 validation error detected: Value '{request['Name']}' at 'name' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)",
            )

        def create(tables: Tables) -> Alias:
            weights = self._weights(tables, name, request["FunctionVersion"], request.get("RoutingConfig"))
            self._own(tables, name)
            if self._alias(tables, name.name, request["Name"]) is not None:
                raise conflict(f"Alias already exists: {name._replace(qualifier=request['Name']).qualified}")
            alias = Alias(
                name=request["Name"],
                version=request["FunctionVersion"],
                description=request.get("Description") or "",
                weights=weights,
                revision_id=self._revision(),
            )
            tables.put(alias, name.name, alias.name)
            return alias

        alias = await self._write(create)
        self._reconcile(name.name)
        return self._alias_body(name.name, alias)

    def _weights(self, tables: Tables, name: Name, version: str, routing: dict[str, Any] | None) -> dict[str, float]:
        """The second version and its share. Raises ServiceError, also for versions that do not exist."""
        weights = dict((routing or {}).get("AdditionalVersionWeights") or {})
        if len(weights) > 1:
            raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
        if weights and version == LATEST:
            message = "$LATEST is not supported for an alias pointing to more than 1 version"
            raise ServiceError("InvalidParameterValueException", message, Type=None)  # as recorded
        if version in weights:
            raise invalid(
                f"Invalid function version {version}. Function version {version} is already included in routing configuration."
            )
        for one in (version, *weights):
            if tables.get(Configuration, name.name, one) is None and not (one == LATEST and self._published(name.name)):
                raise not_found(name, one)
        if any(not 0.0 <= weight <= 1.0 for weight in weights.values()):
            raise invalid("AdditionalVersionWeights: a weight is between 0.0 and 1.0")
        return weights

    async def get_alias(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetAlias."""
        self._authorize(caller, "lambda:GetAlias", request["FunctionName"])
        name = self._name(request)._replace(qualifier=request["Name"])
        alias = self._read(lambda tables: self._alias(tables, name.name, name.qualifier))
        if alias is None:
            raise no_alias(name)
        return self._alias_body(name.name, alias)

    async def update_alias(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UpdateAlias. Provisioned concurrency of the alias moves with it."""
        self._authorize(caller, "lambda:UpdateAlias", request["FunctionName"])
        name = self._name(request)._replace(qualifier=request["Name"])

        def update(tables: Tables) -> Alias:
            before = self._alias(tables, name.name, name.qualifier)
            if before is None:
                raise missing(f"Alias not found: {name.qualified}")
            if request.get("RevisionId") and request["RevisionId"] != before.revision_id:
                raise precondition()
            version = request.get("FunctionVersion") or before.version
            routing = request.get("RoutingConfig")
            if routing is None:
                routing = {"AdditionalVersionWeights": before.weights}
            after = msgspec.structs.replace(
                before,
                version=version,
                weights=self._weights(tables, name, version, routing),
                revision_id=self._revision(),
                description=before.description if request.get("Description") is None else request["Description"],
            )
            tables.put(after, name.name, after.name)
            return after

        alias = await self._write(update)
        self._reconcile(name.name)
        await self._follow_aliases(name.name)
        return self._alias_body(name.name, alias)

    async def delete_alias(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteAlias: what is not there is deleted already."""
        self._authorize(caller, "lambda:DeleteAlias", request["FunctionName"])
        name = self._name(request)

        def delete(tables: Tables) -> None:
            self._own(tables, name)
            tables.delete(Alias, name.name, request["Name"])
            self._forget_qualifier(tables, name.name, request["Name"])

        await self._write(delete)
        self._reconcile(name.name)
        await self._follow_aliases(name.name)
        self._on_urls()
        return {}

    async def list_aliases(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListAliases, by name."""
        self._authorize(caller, "lambda:ListAliases", request["FunctionName"])
        name = self._name(request)

        def look(tables: Tables) -> list[Alias]:
            self._demand_function(tables, name)
            return [one for _, one in tables.all(Alias, name.name)]

        wanted = request.get("FunctionVersion")
        items = [
            (one.name, self._alias_body(name.name, one))
            for one in self._read(look)
            if not wanted or wanted == one.version or wanted in one.weights
        ]
        shown, more = self._cut(items, self._page(request))
        return {"Aliases": shown, **more}

    def _alias_body(self, function: str, alias: Alias) -> dict[str, Any]:
        body: dict[str, Any] = {
            "AliasArn": self._arn(function, alias.name),
            "Name": alias.name,
            "FunctionVersion": alias.version,
            "Description": alias.description,
            "RevisionId": alias.revision_id,
        }
        if alias.weights:
            body["RoutingConfig"] = {"AdditionalVersionWeights": dict(alias.weights)}
        return body

    async def _follow_aliases(self, name: str) -> None:
        """Aliases have moved: what depends on where they lead (provisioned concurrency) follows."""
