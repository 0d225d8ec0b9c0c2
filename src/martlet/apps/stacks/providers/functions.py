"""AWS::Lambda::Function: code, configuration, concurrency, tags."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from martlet.apps.stacks.inline import inline_archive
from martlet.apps.stacks.kinds import Kind, fixed, object_of, one_of, refused, taken, value
from martlet.apps.stacks.providers.provider import Caller, Context, Physical, _Replace, generated_name
from martlet.errors import DeployFailed, MartletError, ServiceError

__all__ = ["FUNCTION", "Control", "FunctionProvider", "gone", "tag_map", "wait_ready"]

_SETTLE_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.02
_NO_VPC = "Martlet has no VPC: a function's network is its egress"

_OWN: Final = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"

_PROCESSOR: Final = f"code runs on this host's processor, which is {_OWN}"

_CODE: Final = {
    "ImageUri": refused("container images are not run here; use a zip package"),
    "S3Bucket": value(),
    "S3Key": value(),
    "S3ObjectVersion": value(),
    "SourceKMSKeyArn": refused("packages are not encrypted here"),
    "ZipFile": value(),
}

FUNCTION: Final = Kind(
    type="AWS::Lambda::Function",
    attributes=("Arn", "SnapStartResponse", "SnapStartResponse.ApplyOn", "SnapStartResponse.OptimizationStatus"),
    properties={
        "Architectures": value("list", item=one_of(_OWN, why=_PROCESSOR), why="that of this host; another one is refused"),
        "CapacityProviderConfig": refused("there are no managed instances here"),
        "Code": object_of(_CODE, required=True),
        "CodeSigningConfigArn": refused("code is not signed here"),
        "DeadLetterConfig": object_of({"TargetArn": value()}),
        "Description": value(),
        "DurableConfig": refused("durable functions are not here yet"),
        "Environment": object_of({"Variables": value("map", item=value())}),
        "EphemeralStorage": object_of({"Size": value("integer", required=True)}),
        "FileSystemConfigs": refused("there are no network file systems here"),
        "FunctionName": fixed(),
        "FunctionScalingConfig": refused("there are no managed instances here"),
        "Handler": value(),
        "ImageConfig": refused("container images are not run here"),
        "KmsKeyArn": taken("string", why="the environment is encrypted at rest by your disk, not by a key service"),
        "Layers": value("list", item=value()),
        "LoggingConfig": object_of(
            {
                "ApplicationLogLevel": value(),
                "LogFormat": value(),
                "LogGroup": value(),
                "SystemLogLevel": value(),
            }
        ),
        "MemorySize": value("integer"),
        "PackageType": fixed(),
        "PublishToLatestPublished": refused("there are no managed instances here"),
        "RecursiveLoop": value(),
        "ReservedConcurrentExecutions": value("integer"),
        "Role": taken("string", why="remembered; what a function may do is said by its app"),
        "Runtime": value(),
        "RuntimeManagementConfig": taken(why="runtimes are updated with the machine"),
        "SnapStart": object_of({"ApplyOn": value(required=True)}),
        "Tags": value("list", item=object_of({"Key": value(required=True), "Value": value()})),
        "TenancyConfig": refused("tenant isolation is not here yet"),
        "Timeout": value("integer"),
        "TracingConfig": taken(why="traces are kept by Martlet itself, not by X-Ray"),
        "VpcConfig": refused(_NO_VPC),
    },
)

# Handed to the operation under the same name; absent ones take the service's default.
_CONFIGURATION: Final = (
    "DeadLetterConfig", "Description", "Environment", "EphemeralStorage", "Handler", "KMSKeyArn", "Layers", "LoggingConfig",
    "MemorySize", "Role", "Runtime", "SnapStart", "Timeout", "TracingConfig",
)  # fmt: skip
_DEFAULTS: Final[dict[str, Any]] = {
    "DeadLetterConfig": {"TargetArn": ""},
    "Description": "",
    "Environment": {"Variables": {}},
    "EphemeralStorage": {"Size": 512},
    "Layers": [],
    "LoggingConfig": {"LogFormat": "Text"},
    "MemorySize": 128,
    "SnapStart": {"ApplyOn": "None"},
    "Timeout": 3,
    "TracingConfig": {"Mode": "PassThrough"},
}


class Control(Protocol):
    """The Lambda operations that providers call: (caller, request) -> response, both in the API's own members."""

    async def create_function(self, caller: Caller, request: dict[str, Any], *, app: str = "") -> dict[str, Any]: ...
    async def get_function(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_function_configuration(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_function_code(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_function_configuration(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_function(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def put_function_concurrency(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_function_concurrency(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def put_function_recursion_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def tag_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def untag_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def publish_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_versions_by_function(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def create_alias(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_alias(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_alias(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def put_provisioned_concurrency_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_provisioned_concurrency_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_provisioned_concurrency_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def add_permission(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def remove_permission(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def publish_layer_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_layer_versions(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_layer_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def add_layer_version_permission(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def remove_layer_version_permission(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def create_function_url_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_function_url_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_function_url_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def put_function_event_invoke_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_function_event_invoke_config(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def invoke(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...


def _code(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The operation's Code: inline source as an archive, all else as it is."""
    found = dict(properties["Code"])
    if "ZipFile" in found:
        found["ZipFile"] = inline_archive(found["ZipFile"], str(properties.get("Runtime", "")))
    return found


async def gone(call: Awaitable[Any]) -> None:
    """Await the deletion of something; that it is not there is fine."""
    try:
        await call
    except ServiceError as error:
        if error.name != "ResourceNotFoundException":
            raise


def tag_map(properties: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, str]:
    """A function's tags with the stack's and CloudFormation's own."""
    return {**tags, **{one["Key"]: one.get("Value", "") for one in properties.get("Tags") or ()}}


async def wait_ready(control: Control, context: Context, name: str) -> None:
    """Until a function is active and its last update has ended. Raises `DeployFailed` with the room's reason."""
    async with asyncio.timeout(_SETTLE_SECONDS):
        while True:
            now = await control.get_function_configuration(context.caller, {"FunctionName": name})
            if now.get("State") == "Failed" or now.get("LastUpdateStatus") == "Failed":
                why = now.get("StateReason") or now.get("LastUpdateStatusReason") or "no reason given"
                raise DeployFailed(f"function {name} cannot run: {why}", remedy="fix the function and deploy again")
            if now.get("State", "Active") != "Pending" and now.get("LastUpdateStatus", "Successful") != "InProgress":
                return
            await asyncio.sleep(_LOOK_SECONDS)


class FunctionProvider:
    """Functions, by the operations of the functions room."""

    kind = FUNCTION

    def __init__(self, control: Control, nearest: Callable[[str], str] = str) -> None:
        """`nearest` gives, for a runtime, the one that this host has in its place; blocking. Asked with `--lenient` only."""
        self._control = control
        self._nearest = nearest

    async def _runtime(self, context: Context, request: dict[str, Any]) -> None:
        wanted = request.get("Runtime")
        if not context.is_lenient or not wanted:
            return
        found = await asyncio.to_thread(self._nearest, str(wanted))
        if found != wanted:
            context.say(f"WARNING  {context.logical_id} asks for {wanted}, which is not installed here: it runs with {found}")
            request["Runtime"] = found

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("FunctionName") or generated_name(context))
        return Physical(name, self._attributes(context, name))

    def _attributes(self, context: Context, name: str) -> dict[str, Any]:
        return {
            "Arn": f"arn:aws:lambda:{context.region}:{context.account}:function:{name}",
            "SnapStartResponse": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        }

    def _configuration(self, context: Context, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        given = {**properties, "KMSKeyArn": properties.get("KmsKeyArn")}
        found = {key: given[key] for key in _CONFIGURATION if given.get(key) is not None}
        return {"FunctionName": name, **found}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = self._configuration(context, physical_id, properties)
        request["Code"] = _code(properties)
        for key in ("Architectures", "PackageType"):
            if key in properties:
                request[key] = properties[key]
        tags = tag_map(properties, context.tags)
        if tags:
            request["Tags"] = tags
        if "Role" not in request:
            request["Role"] = f"arn:aws:iam::{context.account}:role/martlet"
        await self._runtime(context, request)
        await self._control.create_function(context.caller, request, app=context.stack_name)
        try:
            await wait_ready(self._control, context, physical_id)
            await self._concurrency(context, physical_id, {}, properties)
        except BaseException:
            await gone(self._control.delete_function(context.caller, {"FunctionName": physical_id}))
            raise
        return Physical(physical_id, self._attributes(context, physical_id))

    async def _concurrency(self, context: Context, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        caller, repair = context.caller, context.is_repair
        reserved = new.get("ReservedConcurrentExecutions")
        if reserved is not None and (repair or reserved != old.get("ReservedConcurrentExecutions")):
            request = {"FunctionName": name, "ReservedConcurrentExecutions": reserved}
            await self._control.put_function_concurrency(caller, request)
        elif reserved is None and (repair or old.get("ReservedConcurrentExecutions") is not None):
            await gone(self._control.delete_function_concurrency(caller, {"FunctionName": name}))
        loop = new.get("RecursiveLoop")
        if loop != old.get("RecursiveLoop"):
            request = {"FunctionName": name, "RecursiveLoop": loop or "Terminate"}
            await self._control.put_function_recursion_config(caller, request)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        name, caller = physical.id, context.caller
        if context.is_repair:
            await wait_ready(self._control, context, name)
        wanted = self._configuration(context, name, new)
        before = self._configuration(context, name, old)
        if context.is_repair or wanted != before:
            dropped = {key: _DEFAULTS[key] for key in before if key not in wanted and key in _DEFAULTS}
            await self._runtime(context, wanted)
            await self._control.update_function_configuration(caller, {**dropped, **wanted})
            await wait_ready(self._control, context, name)
        code_changed = old.get("Code") != new.get("Code") or old.get("Architectures") != new.get("Architectures")
        if context.is_repair or code_changed:
            request = {"FunctionName": name, **_code(new)}
            if "Architectures" in new:
                request["Architectures"] = new["Architectures"]
            await self._control.update_function_code(caller, request)
            await wait_ready(self._control, context, name)
        await self._concurrency(context, name, old, new)
        await self._tags(context, physical, old, new)
        return Physical(name, self._attributes(context, name))

    async def _tags(self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]) -> None:
        before, after = tag_map(old, {}), tag_map(new, {})
        if before == after and not context.is_repair:
            return
        arn = physical.attributes["Arn"]
        dropped = sorted(key for key in before if key not in after)
        if dropped:
            await self._control.untag_resource(context.caller, {"Resource": arn, "TagKeys": dropped})
        if after:
            await self._control.tag_resource(context.caller, {"Resource": arn, "Tags": after})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await gone(self._control.delete_function(context.caller, {"FunctionName": physical.id}))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        """A function of this very name may be there; if the name was generated it is ours, else only if its tag says so."""
        try:
            found = await self._control.get_function(context.caller, {"FunctionName": physical_id})
        except MartletError:
            return None
        tags = found.get("Tags") or {}
        ours = "FunctionName" not in properties or tags.get("aws:cloudformation:stack-id") == context.stack_id
        return Physical(physical_id, self._attributes(context, physical_id)) if ours else None
