"""Reserved and provisioned concurrency, and what is left of the account's."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.functions.control.aliases import Aliases
from martlet.functions.control.configuration import stamp
from martlet.functions.control.names import LATEST, Name, conflict, invalid, not_found
from martlet.functions.control.records import Alias, Configuration, Function, Provisioned, Tables
from martlet.limits import LIMITS

__all__ = ["Concurrency"]

_ACCOUNT: Final = LIMITS["account_concurrency"].default
_UNRESERVED_LEAST: Final = 100


class Concurrency(Aliases):
    """The operations on concurrency. Instances are provisioned by a task; states in the store say how far it is."""

    _provisioning: dict[str, asyncio.Lock]  # one task at a time for each function

    async def put_function_concurrency(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PutFunctionConcurrency."""
        self._authorize(caller, "lambda:PutFunctionConcurrency", request["FunctionName"])
        name = self._name(request, unqualified=True)
        wanted = int(request["ReservedConcurrentExecutions"])

        def put(tables: Tables) -> None:
            if self._function(tables, name) is None:
                raise not_found(name, LATEST)
            function = self._own(tables, name)
            if _ACCOUNT - self._reserved(tables, name.name) - wanted < _UNRESERVED_LEAST:
                raise ServiceError(
                    "InvalidParameterValueException",
                    "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
                    f"below its minimum value of [{_UNRESERVED_LEAST}].",
                    Type=None,  # as recorded: without
                )
            provisioned = sum(one.requested for _, one in tables.all(Provisioned, name.name))
            if wanted < provisioned:
                raise ServiceError(
                    "InvalidParameterValueException",
                    f" ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned "
                    f"concurrency [{provisioned}].",
                    Type=None,
                )
            tables.put(msgspec.structs.replace(function, reserved=wanted), name.name)

        await self._write(put)
        self._reconcile(name.name)
        return {"ReservedConcurrentExecutions": wanted}

    def _reserved(self, tables: Tables, but: str = "") -> int:
        """Reserved by all functions, apps' included, except one."""
        own = sum(one.reserved or 0 for _, one in tables.all(Function) if one.name != but)
        return own + sum(one.config.reserved or 0 for one in self._functions.list() if one.name != but)

    async def get_function_concurrency(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunctionConcurrency."""
        self._authorize(caller, "lambda:GetFunctionConcurrency", request["FunctionName"])
        name = self._name(request)
        function = self._read(lambda tables: self._demand_function(tables, name))
        return {} if function.reserved is None else {"ReservedConcurrentExecutions": function.reserved}

    async def delete_function_concurrency(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteFunctionConcurrency."""
        self._authorize(caller, "lambda:DeleteFunctionConcurrency", request["FunctionName"])
        name = self._name(request, unqualified=True)

        def delete(tables: Tables) -> None:
            tables.put(msgspec.structs.replace(self._own(tables, name), reserved=None), name.name)

        await self._write(delete)
        self._reconcile(name.name)
        return {}

    # --- provisioned ------------------------------------------------------------------------------------------------

    async def put_provisioned_concurrency_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PutProvisionedConcurrencyConfig."""
        self._authorize(caller, "lambda:PutProvisionedConcurrencyConfig", request["FunctionName"])
        name = self._name(request)
        wanted = int(request["ProvisionedConcurrentExecutions"])
        if name.qualifier in ("", LATEST):
            raise invalid("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")

        def put(tables: Tables) -> Provisioned:
            self._demand_alias_or_version(tables, name)
            function = self._own(tables, name)
            self._check_one_provisions(tables, name)
            self._check_room(tables, function, name.qualifier, wanted)
            one = Provisioned(requested=wanted, modified_at_ms=self._clock.now_ms())
            tables.put(one, name.name, name.qualifier)
            return one

        one = await self._write(put)
        self._in_background(self._provision(name.name))
        return _body(one, 0)

    def _check_one_provisions(self, tables: Tables, name: Name) -> None:
        """A version has its provisioned instances either itself or through an alias."""
        alias = self._alias(tables, name.name, name.qualifier)
        if alias is not None:
            if tables.get(Provisioned, name.name, alias.version) is not None:
                raise conflict(
                    "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
                )
            return
        for _, other in tables.all(Alias, name.name):
            if other.version == name.qualifier and tables.get(Provisioned, name.name, other.name) is not None:
                raise conflict("Version is pointed by a Provisioned Concurrency alias")

    def _check_room(self, tables: Tables, function: Function, qualifier: str, wanted: int) -> None:
        others = sum(one.requested for parts, one in tables.all(Provisioned, function.name) if parts[-1] != qualifier)
        if function.reserved is not None:
            if others + wanted > function.reserved:
                raise invalid(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
                )
            return
        unreserved = _ACCOUNT - self._reserved(tables)
        if wanted > unreserved:
            raise ServiceError(
                "InvalidParameterValueException",
                f"Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [{unreserved}].",
                Type=None,  # as recorded: without
            )
        if unreserved - wanted < _UNRESERVED_LEAST:
            raise ServiceError(
                "InvalidParameterValueException",
                "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
                f"minimum value of [{_UNRESERVED_LEAST}].",
                Type=None,
            )

    async def get_provisioned_concurrency_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetProvisionedConcurrencyConfig."""
        self._authorize(caller, "lambda:GetProvisionedConcurrencyConfig", request["FunctionName"])
        name = self._provisionable(request)

        def look(tables: Tables) -> tuple[Provisioned | None, Configuration | None]:
            self._demand_alias_or_version(tables, name)
            return tables.get(Provisioned, name.name, name.qualifier), self._resolve(tables, name)

        one, version = self._read(look)
        if one is None or version is None:
            message = "No Provisioned Concurrency Config found for this function"
            raise ServiceError("ProvisionedConcurrencyConfigNotFoundException", message, 404, Type="User")
        return _body(one, self._functions.ready_instances(f"{name.name}:{version.version}"))

    async def list_provisioned_concurrency_configs(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListProvisionedConcurrencyConfigs."""
        self._authorize(caller, "lambda:ListProvisionedConcurrencyConfigs", request["FunctionName"])
        name = self._name(request)

        def look(tables: Tables) -> list[tuple[str, dict[str, Any]]]:
            self._demand_function(tables, name)
            items = []
            for parts, one in tables.all(Provisioned, name.name):
                qualifier = str(parts[-1])
                version = self._resolve(tables, name._replace(qualifier=qualifier))
                ready = self._functions.ready_instances(f"{name.name}:{version.version}") if version else 0
                items.append((qualifier, {"FunctionArn": self._arn(name.name, qualifier), **_body(one, ready)}))
            return items

        shown, more = self._cut(self._read(look), self._page(request))
        return {"ProvisionedConcurrencyConfigs": shown, **more}

    async def delete_provisioned_concurrency_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteProvisionedConcurrencyConfig."""
        self._authorize(caller, "lambda:DeleteProvisionedConcurrencyConfig", request["FunctionName"])
        name = self._provisionable(request)

        def delete(tables: Tables) -> None:
            self._demand_alias_or_version(tables, name)
            tables.delete(Provisioned, name.name, name.qualifier)

        await self._write(delete)
        self._in_background(self._provision(name.name))
        return {}

    def _provisionable(self, request: dict[str, Any]) -> Name:
        name = self._name(request)
        if name.qualifier in ("", LATEST):
            raise invalid("The function resource provided must be an alias or a published version.")
        return name

    async def _follow_aliases(self, name: str) -> None:
        """Provisioned concurrency of an alias that has moved begins anew on its new version."""

        def restart(tables: Tables) -> bool:
            found = tables.all(Provisioned, name)
            for parts, one in found:
                alias = tables.get(Alias, *parts)
                if alias is not None and not self._is_provisioned(name, alias.version, one.requested):
                    tables.put(msgspec.structs.replace(one, status="IN_PROGRESS"), *parts)
            return bool(found) or self._any_provisioned(name)

        if self._read(lambda tables: bool(tables.all(Provisioned, name))) or self._any_provisioned(name):
            await self._write(restart)
            self._in_background(self._provision(name))

    def _is_provisioned(self, name: str, version: str, count: int) -> bool:
        found = self._functions.get(f"{name}:{version}")
        return found is not None and found.config.provisioned == count

    def _any_provisioned(self, name: str) -> bool:
        return any(one.name == name and one.config.runtime and one.config.provisioned for one in self._functions.all())

    async def _provision(self, name: str) -> None:
        """Give every version of a function the instances that the store says, and note in the store how that went."""
        async with self._provisioning.setdefault(name, asyncio.Lock()):
            function, versions, wanted = self._read(lambda tables: self._wanted(tables, name))
            for one in versions:
                if one.version == LATEST or one.state != "Active":
                    continue
                count, qualifier = wanted.get(one.version, (0, ""))
                if self._is_provisioned(name, one.version, count):
                    if count:
                        await self._note(name, qualifier, count, "")
                    continue
                version = self._runnable(function, one, count)
                if not count:
                    self._functions.install(version)
                    continue
                await self._note(name, qualifier, count, await self._functions.warm_up(version, count))

    def _wanted(self, tables: Tables, name: str) -> tuple[Function | None, list[Configuration], dict[str, tuple[int, str]]]:
        wanted: dict[str, tuple[int, str]] = {}
        for parts, one in tables.all(Provisioned, name):
            qualifier = str(parts[-1])
            alias = tables.get(Alias, name, qualifier)
            wanted[alias.version if alias else qualifier] = (one.requested, qualifier)
        return tables.get(Function, name), [one for _, one in tables.all(Configuration, name)], wanted

    async def _note(self, name: str, qualifier: str, count: int, reason: str) -> None:
        def note(tables: Tables) -> None:
            one = tables.get(Provisioned, name, qualifier)
            if one is not None and one.requested == count:
                status = "FAILED" if reason else "READY"
                tables.put(msgspec.structs.replace(one, status=status, reason=reason), name, qualifier)

        await self._write(note)


def _body(one: Provisioned, ready: int) -> dict[str, Any]:
    ready = min(ready, one.requested) if one.status == "READY" else 0
    body: dict[str, Any] = {
        "RequestedProvisionedConcurrentExecutions": one.requested,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": one.status,
        "LastModified": stamp(one.modified_at_ms),
    }
    if one.reason:
        body["StatusReason"] = one.reason
    return body
