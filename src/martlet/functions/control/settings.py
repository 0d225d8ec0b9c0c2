"""What else can be set or asked: tags, recursion, runtime management, code signing, the account."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.clock import token_hex
from martlet.errors import ServiceError
from martlet.functions.control.guards import Guards
from martlet.functions.control.names import LATEST, Name, conflict, invalid, missing, not_found
from martlet.functions.control.records import Configuration, Function, Layer, Signing, Tables
from martlet.limits import LIMITS
from martlet.types import ACCOUNT

__all__ = ["SettingsOperations"]

_TAGGED: Final = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):"
    r"(?P<kind>function|layer|code-signing-config|event-source-mapping|capacity-provider):(?P<name>[a-zA-Z0-9-_]+)"
    r"(?::(?P<qualifier>.+))?"
)
_TOTAL_CODE_BYTES: Final = 80_530_636_800  # Lambda: 75 GB of code storage


class SettingsOperations(Guards):
    """Operations on tags, recursion, runtime management, code signing and the account."""

    # --- tags -------------------------------------------------------------------------------------------------------

    async def tag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, TagResource."""
        self._authorize(caller, "lambda:TagResource", "*")
        tags = dict(request.get("Tags") or {})
        if not tags:
            raise invalid("An error occurred and the request cannot be processed.")

        def add(before: dict[str, str]) -> dict[str, str]:
            self._check_tags(before, tags)
            return {**before, **tags}

        await self._retag(request["Resource"], add)
        return {}

    async def untag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UntagResource."""
        self._authorize(caller, "lambda:UntagResource", "*")
        gone = set(request.get("TagKeys") or ())
        if not gone:
            what = "Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"
            raise ServiceError("ValidationException", f"1 validation error detected: {what}")
        await self._retag(request["Resource"], lambda before: {key: value for key, value in before.items() if key not in gone})
        return {}

    async def list_tags(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListTags."""
        self._authorize(caller, "lambda:ListTags", "*")
        return {"Tags": dict(self._read(lambda tables: self._tagged(tables, request["Resource"])).tags)}

    async def _retag(self, arn: str, change: Any) -> None:
        def write(tables: Tables) -> None:
            before = self._tagged(tables, arn)
            after = msgspec.structs.replace(before, tags=change(before.tags))
            if isinstance(after, Signing):
                tables.put(after, after.id)
                return
            tables.put(after, after.name)
            latest = tables.get(Configuration, after.name, LATEST)
            if latest is not None:
                tables.put(msgspec.structs.replace(latest, revision_id=self._revision()), after.name, LATEST)

        await self._write(write)

    def _tagged(self, tables: Tables, arn: str) -> Function | Signing:
        """The resource that carries the tags. Raises ServiceError in the service's words."""
        found = _TAGGED.fullmatch(arn)
        if found is None:
            raise invalid(f"{arn} is not the ARN of a resource of Lambda that can have tags.")
        kind = found["kind"]
        if kind == "function":
            if found["qualifier"]:
                raise invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
            function = self._function(tables, Name(found["name"], "", self._region))
            if function is None or found["region"] != self._region or found["account"] != ACCOUNT:
                raise missing(f"Function not found: {arn}")
            return function
        if kind == "code-signing-config":
            return self._signing(tables, arn)
        what = {"event-source-mapping": "Event source mapping", "capacity-provider": "Capacity provider", "layer": "Layer"}
        raise missing(f"{what[kind]} not found: {arn}")

    # --- recursion, runtimes ------------------------------------------------------------------------------------------

    async def put_function_recursion_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PutFunctionRecursionConfig."""
        self._authorize(caller, "lambda:PutFunctionRecursionConfig", request["FunctionName"])
        name, mode = self._name(request, unqualified=True), request["RecursiveLoop"]
        if mode not in ("Terminate", "Allow"):
            raise invalid(f"RecursiveLoop must be one of Terminate, Allow, got {mode}")

        def put(tables: Tables) -> None:
            tables.put(msgspec.structs.replace(self._demand_function(tables, name), recursion=mode), name.name)

        await self._write(put)
        return {"RecursiveLoop": mode}

    async def get_function_recursion_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunctionRecursionConfig."""
        self._authorize(caller, "lambda:GetFunctionRecursionConfig", request["FunctionName"])
        name = self._name(request, unqualified=True)
        return {"RecursiveLoop": self._read(lambda tables: self._demand_function(tables, name)).recursion}

    async def put_runtime_management_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PutRuntimeManagementConfig. There is one version of each runtime: the installed one."""
        self._authorize(caller, "lambda:PutRuntimeManagementConfig", request["FunctionName"])
        name, mode = self._name(request), request["UpdateRuntimeOn"]
        version = request.get("RuntimeVersionArn")
        if mode not in ("Auto", "FunctionUpdate", "Manual"):
            raise invalid(f"UpdateRuntimeOn must be one of Auto, FunctionUpdate, Manual, got {mode}")
        if (mode == "Manual") != bool(version):
            raise invalid("You must specify a RuntimeVersionArn if UpdateRuntimeOn is set to Manual, and only then.")

        def put(tables: Tables) -> None:
            function = self._own(tables, name)
            self._demand(tables, name)
            updates = {**function.runtime_updates, name.qualifier or LATEST: (mode, version or "")}
            tables.put(msgspec.structs.replace(function, runtime_updates=updates), name.name)

        await self._write(put)
        return self._runtime_body(name, mode, version or "")

    async def get_runtime_management_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetRuntimeManagementConfig."""
        self._authorize(caller, "lambda:GetRuntimeManagementConfig", request["FunctionName"])
        name = self._name(request)

        def look(tables: Tables) -> tuple[str, str]:
            self._demand(tables, name)
            return self._demand_function(tables, name).runtime_updates.get(name.qualifier or LATEST, ("Auto", ""))

        return self._runtime_body(name, *self._read(look))

    def _runtime_body(self, name: Name, mode: str, version: str) -> dict[str, Any]:
        body = {"UpdateRuntimeOn": mode, "FunctionArn": self._arn(name.name, name.qualifier or LATEST)}
        return {**body, "RuntimeVersionArn": version} if version else body

    # --- the account --------------------------------------------------------------------------------------------------

    async def get_account_settings(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetAccountSettings."""
        self._authorize(caller, "lambda:GetAccountSettings", "*")

        def look(tables: Tables) -> tuple[int, int, int]:
            versions, layers = tables.all(Configuration), tables.all(Layer)
            size = sum(one.code_bytes for _, one in versions) + sum(one.code_bytes for _, one in layers)
            own = [one for _, one in tables.all(Function) if not self._published(one.name)]
            reserved = sum(one.reserved or 0 for one in own) + sum(one.config.reserved or 0 for one in self._functions.list())
            return size, len(own) + len(self._functions.list()), reserved

        size, count, reserved = self._read(look)
        most = LIMITS["account_concurrency"].default
        return {
            "AccountLimit": {
                "TotalCodeSize": _TOTAL_CODE_BYTES,
                "CodeSizeUnzipped": LIMITS["code_bytes"].default,
                "CodeSizeZipped": LIMITS["code_zipped_bytes"].default,
                "ConcurrentExecutions": most,
                "UnreservedConcurrentExecutions": most - reserved,
            },
            "AccountUsage": {"TotalCodeSize": size, "FunctionCount": count},
        }

    # --- code signing -------------------------------------------------------------------------------------------------

    async def create_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, CreateCodeSigningConfig. A policy Enforce lets no code pass: nothing here verifies signatures."""
        self._authorize(caller, "lambda:CreateCodeSigningConfig", "*")
        one = Signing(
            id=f"csc-{token_hex(16)[:17]}",
            description=request.get("Description") or "",
            publishers=tuple(request["AllowedPublishers"]["SigningProfileVersionArns"]),
            policy=(request.get("CodeSigningPolicies") or {}).get("UntrustedArtifactOnDeployment") or "Warn",
            modified_at_ms=self._clock.now_ms(),
            tags=dict(request.get("Tags") or {}),
        )
        await self._write(lambda tables: tables.put(one, one.id))
        return {"CodeSigningConfig": self._signing_body(one)}

    async def update_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UpdateCodeSigningConfig."""
        self._authorize(caller, "lambda:UpdateCodeSigningConfig", "*")

        def update(tables: Tables) -> Signing:
            before = self._signing(tables, request["CodeSigningConfigArn"])
            publishers = (request.get("AllowedPublishers") or {}).get("SigningProfileVersionArns")
            policy = (request.get("CodeSigningPolicies") or {}).get("UntrustedArtifactOnDeployment")
            after = msgspec.structs.replace(
                before,
                description=before.description if request.get("Description") is None else request["Description"],
                publishers=tuple(publishers) if publishers else before.publishers,
                policy=policy or before.policy,
                modified_at_ms=self._clock.now_ms(),
            )
            tables.put(after, after.id)
            return after

        return {"CodeSigningConfig": self._signing_body(await self._write(update))}

    async def get_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetCodeSigningConfig."""
        self._authorize(caller, "lambda:GetCodeSigningConfig", "*")
        one = self._read(lambda tables: self._signing(tables, request["CodeSigningConfigArn"]))
        return {"CodeSigningConfig": self._signing_body(one)}

    async def list_code_signing_configs(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListCodeSigningConfigs."""
        self._authorize(caller, "lambda:ListCodeSigningConfigs", "*")
        items = [(one.id, self._signing_body(one)) for _, one in self._read(lambda tables: tables.all(Signing))]
        shown, more = self._cut(items, self._page(request))
        return {"CodeSigningConfigs": shown, **more}

    async def delete_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteCodeSigningConfig."""
        self._authorize(caller, "lambda:DeleteCodeSigningConfig", "*")
        arn = request["CodeSigningConfigArn"]

        def delete(tables: Tables) -> None:
            one = self._signing(tables, arn)
            if any(function.signing == arn for _, function in tables.all(Function)):
                raise conflict(f"Cannot delete {arn}: it is attached to a function.")
            tables.delete(Signing, one.id)

        await self._write(delete)
        return {}

    async def put_function_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PutFunctionCodeSigningConfig. It holds from the next change of the function's code."""
        self._authorize(caller, "lambda:PutFunctionCodeSigningConfig", request["FunctionName"])
        name, arn = self._name(request), request["CodeSigningConfigArn"]

        def put(tables: Tables) -> None:
            if tables.get(Signing, arn.rpartition(":")[2]) is None:
                self._check_signing(tables, arn)
            tables.put(msgspec.structs.replace(self._own(tables, name), signing=arn), name.name)

        await self._write(put)
        return {"CodeSigningConfigArn": arn, "FunctionName": name.name}

    async def get_function_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunctionCodeSigningConfig."""
        self._authorize(caller, "lambda:GetFunctionCodeSigningConfig", request["FunctionName"])
        name = self._name(request)
        arn = self._read(lambda tables: self._demand_function(tables, name)).signing
        return {"CodeSigningConfigArn": arn, "FunctionName": name.name} if arn else {}

    async def delete_function_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteFunctionCodeSigningConfig."""
        self._authorize(caller, "lambda:DeleteFunctionCodeSigningConfig", request["FunctionName"])
        name = self._name(request)

        def delete(tables: Tables) -> None:
            if self._function(tables, name) is None:
                raise not_found(name, "")
            tables.put(msgspec.structs.replace(self._own(tables, name), signing=""), name.name)

        await self._write(delete)
        return {}

    async def list_functions_by_code_signing_config(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListFunctionsByCodeSigningConfig."""
        self._authorize(caller, "lambda:ListFunctionsByCodeSigningConfig", "*")
        arn = request["CodeSigningConfigArn"]

        def look(tables: Tables) -> list[tuple[str, str]]:
            self._signing(tables, arn)
            return [(one.name, self._arn(one.name)) for _, one in tables.all(Function) if one.signing == arn]

        shown, more = self._cut(self._read(look), self._page(request))
        return {"FunctionArns": shown, **more}

    def _signing(self, tables: Tables, arn: str) -> Signing:
        found = tables.get(Signing, arn.rpartition(":")[2])
        if found is None:
            message = f"The Lambda code signing configuration {arn} can not be found."
            raise ServiceError("ResourceNotFoundException", message, 404, Type=None)  # as recorded: without
        return found

    def _signing_body(self, one: Signing) -> dict[str, Any]:
        at = datetime.fromtimestamp(one.modified_at_ms / 1000, UTC)
        return {
            "CodeSigningConfigId": one.id,
            "CodeSigningConfigArn": f"arn:aws:lambda:{self._region}:{ACCOUNT}:code-signing-config:{one.id}",
            "Description": one.description,
            "AllowedPublishers": {"SigningProfileVersionArns": list(one.publishers)},
            "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": one.policy},
            "LastModified": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
