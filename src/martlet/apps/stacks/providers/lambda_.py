"""What belongs to a function: versions, aliases, permissions, layers, URLs, settings of asynchronous invocation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from martlet.apps.stacks.intrinsics import is_pending
from martlet.apps.stacks.kinds import Kind, fixed, object_of, refused, taken, value
from martlet.apps.stacks.providers.functions import Control, gone
from martlet.apps.stacks.providers.provider import REPLACE, Context, Physical, _Replace, generated_name, unknown
from martlet.errors import DeployFailed, MartletError

__all__ = ["lambda_providers"]

_WARM: Final = {"ProvisionedConcurrentExecutions": value("integer", required=True)}
_PROVISIONED: Final = object_of(_WARM)
_POLL_SECONDS: Final = 0.05
_PROVISION_SECONDS: Final = 300.0


def lambda_providers(control: Control) -> list[Any]:
    """The providers of everything about functions but functions themselves."""
    return [
        VersionProvider(control),
        AliasProvider(control),
        PermissionProvider(control),
        LayerProvider(control),
        LayerPermissionProvider(control),
        UrlProvider(control),
        InvokeConfigProvider(control),
    ]


def _split_arn(name: str) -> tuple[str, str]:
    """The function's name and the qualifier of a name, "name:qualifier" or an ARN."""
    parts = name.split(":")
    if name.startswith("arn:"):
        return parts[6], parts[7] if len(parts) > 7 else ""
    return parts[0], parts[1] if len(parts) > 1 else ""


class _Fixed:
    """Providers whose every property makes a new resource."""

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        return physical if context.is_repair or old == new else REPLACE


async def _provision(control: Control, context: Context, name: str, qualifier: str, wanted: Mapping[str, Any] | None) -> None:
    """Set, or take away, the instances kept warm, and wait until they are."""
    where = {"FunctionName": name, "Qualifier": qualifier}
    if not wanted:
        await gone(_ignoring_missing(control.delete_provisioned_concurrency_config(context.caller, where)))
        return
    await control.put_provisioned_concurrency_config(context.caller, {**where, **wanted})
    async with asyncio.timeout(_PROVISION_SECONDS):
        while True:
            now = await control.get_provisioned_concurrency_config(context.caller, where)
            if now.get("Status") == "FAILED":
                raise DeployFailed(f"provisioned concurrency of {name}:{qualifier} failed: {now.get('StatusReason', '')}")
            if now.get("Status") != "IN_PROGRESS":
                return
            await asyncio.sleep(_POLL_SECONDS)


async def _ignoring_missing(call: Any) -> None:
    try:
        await call
    except MartletError as error:
        if getattr(error, "name", "") != "ProvisionedConcurrencyConfigNotFoundException":
            raise


class VersionProvider(_Fixed):
    """AWS::Lambda::Version."""

    kind = Kind(
        type="AWS::Lambda::Version",
        attributes=("FunctionArn", "Version"),
        properties={
            "CodeSha256": fixed(),
            "Description": fixed(),
            "FunctionName": fixed(required=True),
            "FunctionScalingConfig": refused("there are no managed instances here"),
            "ProvisionedConcurrencyConfig": object_of(_WARM, replace=True),
            "RuntimePolicy": taken(why="runtimes are updated with the machine"),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        found = unknown(context, "FunctionArn", "Version")
        return Physical("", found)

    async def _numbers(self, context: Context, name: str) -> set[str]:
        request: dict[str, Any] = {"FunctionName": name}
        found: set[str] = set()
        while True:
            page = await self._control.list_versions_by_function(context.caller, request)
            found.update(one["Version"] for one in page.get("Versions", ()))
            if not page.get("NextMarker"):
                return found
            request["Marker"] = page["NextMarker"]

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        name, _ = _split_arn(properties["FunctionName"])
        before = await self._numbers(context, name)
        given: dict[str, Any] = {key: properties[key] for key in ("CodeSha256", "Description") if key in properties}
        request: dict[str, Any] = {"FunctionName": name, **given}
        made = await self._control.publish_version(context.caller, request)
        number = str(made["Version"])
        if number in before:
            raise DeployFailed(
                f"A version for this Lambda function exists ( {number} ). Modify the function to create a new version."
            )
        arn = str(made["FunctionArn"])
        arn = arn if arn.endswith(f":{number}") else f"{arn}:{number}"
        try:
            if properties.get("ProvisionedConcurrencyConfig"):
                await _provision(self._control, context, name, number, properties["ProvisionedConcurrencyConfig"])
        except BaseException:
            await gone(self._control.delete_function(context.caller, {"FunctionName": name, "Qualifier": number}))
            raise
        return Physical(arn, {"Version": number, "FunctionArn": arn})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        name, qualifier = _split_arn(physical.id)
        await gone(self._control.delete_function(context.caller, {"FunctionName": name, "Qualifier": qualifier}))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None  # an unused version without a name of ours goes with its function


class AliasProvider:
    """AWS::Lambda::Alias."""

    kind = Kind(
        type="AWS::Lambda::Alias",
        attributes=("AliasArn",),
        properties={
            "Description": value(),
            "FunctionName": fixed(required=True),
            "FunctionVersion": value(required=True),
            "Name": fixed(required=True),
            "ProvisionedConcurrencyConfig": _PROVISIONED,
            "RoutingConfig": object_of(
                {
                    "AdditionalVersionWeights": value(
                        "list",
                        item=object_of(
                            {"FunctionVersion": value(required=True), "FunctionWeight": value("number", required=True)}
                        ),
                    )
                }
            ),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name, _ = _split_arn(str(properties["FunctionName"]))
        arn = f"arn:aws:lambda:{context.region}:{context.account}:function:{name}:{properties['Name']}"
        return Physical(arn, {"AliasArn": arn})

    def _request(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        name, _ = _split_arn(properties["FunctionName"])
        routing = (properties.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or ()
        weights = {one["FunctionVersion"]: one["FunctionWeight"] for one in routing}
        return {
            "FunctionName": name,
            "Name": properties["Name"],
            "FunctionVersion": properties["FunctionVersion"],
            "Description": properties.get("Description", ""),
            "RoutingConfig": {"AdditionalVersionWeights": weights},
        }

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = self._request(properties)
        await self._control.create_alias(context.caller, request)
        wanted = properties.get("ProvisionedConcurrencyConfig")
        if wanted:
            try:
                await _provision(self._control, context, request["FunctionName"], request["Name"], wanted)
            except BaseException:
                where = {"FunctionName": request["FunctionName"], "Name": request["Name"]}
                await gone(self._control.delete_alias(context.caller, where))
                raise
        return self.identify(context, properties)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        request = self._request(new)
        await self._control.update_alias(context.caller, request)
        before, wanted = old.get("ProvisionedConcurrencyConfig"), new.get("ProvisionedConcurrencyConfig")
        if before != wanted or (context.is_repair and (before or wanted)):
            await _provision(self._control, context, request["FunctionName"], request["Name"], wanted)
        return self.identify(context, new)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        name, alias = _split_arn(physical.id)
        await gone(self._control.delete_alias(context.caller, {"FunctionName": name, "Name": alias}))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if is_pending(physical_id) else self.identify(context, properties)


class PermissionProvider(_Fixed):
    """AWS::Lambda::Permission: a statement of the function's policy."""

    kind = Kind(
        type="AWS::Lambda::Permission",
        attributes=("Id",),
        properties={
            "Action": fixed(required=True),
            "EventSourceToken": fixed(),
            "FunctionName": fixed(required=True),
            "FunctionUrlAuthType": fixed(),
            "InvokedViaFunctionUrl": fixed("boolean"),
            "Principal": fixed(required=True),
            "PrincipalOrgID": fixed(),
            "SourceAccount": fixed(),
            "SourceArn": fixed(),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        id = generated_name(context, 100)
        return Physical(id, {"Id": id})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._control.add_permission(context.caller, {**properties, "StatementId": physical_id})
        return Physical(physical_id, {"Id": physical_id})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        name = properties.get("FunctionName", "")
        if name and not is_pending(name):
            request = {"FunctionName": name, "StatementId": physical.id}
            await gone(self._control.remove_permission(context.caller, request))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return Physical(physical_id)


class LayerProvider(_Fixed):
    """AWS::Lambda::LayerVersion."""

    kind = Kind(
        type="AWS::Lambda::LayerVersion",
        attributes=("LayerVersionArn",),
        properties={
            "CompatibleArchitectures": fixed("list"),
            "CompatibleRuntimes": fixed("list"),
            "Content": object_of(
                {"S3Bucket": value(), "S3Key": value(), "S3ObjectVersion": value()}, replace=True, required=True
            ),
            "Description": fixed(),
            "LayerName": fixed(),
            "LicenseInfo": fixed(),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def _name(self, context: Context, properties: Mapping[str, Any]) -> str:
        return str(properties.get("LayerName") or context.logical_id)

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return Physical("", unknown(context, "LayerVersionArn"))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = {key: one for key, one in properties.items() if key not in ("Content", "LayerName")}
        request["LayerName"] = self._name(context, properties)
        request["Content"] = properties["Content"]
        made = await self._control.publish_layer_version(context.caller, request)
        arn = str(made["LayerVersionArn"])
        return Physical(arn, {"LayerVersionArn": arn})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        layer, _, number = physical.id.rpartition(":")
        name = layer.rpartition(":")[2]
        await gone(self._control.delete_layer_version(context.caller, {"LayerName": name, "VersionNumber": int(number)}))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None  # a layer version without users costs its folder only; the next publication of the same content reuses it


class LayerPermissionProvider(_Fixed):
    """AWS::Lambda::LayerVersionPermission."""

    kind = Kind(
        type="AWS::Lambda::LayerVersionPermission",
        attributes=("Id",),
        properties={
            "Action": fixed(required=True),
            "LayerVersionArn": fixed(required=True),
            "OrganizationId": fixed(),
            "Principal": fixed(required=True),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        id = generated_name(context, 100)
        return Physical(id, {"Id": id})

    def _where(self, physical_id: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        layer, _, number = str(properties["LayerVersionArn"]).rpartition(":")
        return {"LayerName": layer.rpartition(":")[2], "VersionNumber": int(number), "StatementId": physical_id}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        given: dict[str, Any] = {key: one for key, one in properties.items() if key != "LayerVersionArn"}
        await self._control.add_layer_version_permission(context.caller, {**self._where(physical_id, properties), **given})
        return Physical(physical_id, {"Id": physical_id})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        if not is_pending(properties.get("LayerVersionArn", "")):
            where = self._where(physical.id, properties)
            await gone(self._control.remove_layer_version_permission(context.caller, where))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return Physical(physical_id)


class UrlProvider:
    """AWS::Lambda::Url."""

    kind = Kind(
        type="AWS::Lambda::Url",
        attributes=("FunctionArn", "FunctionUrl"),
        properties={
            "AuthType": value(required=True),
            "Cors": object_of(
                {
                    "AllowCredentials": value("boolean"),
                    "AllowHeaders": value("list", item=value()),
                    "AllowMethods": value("list", item=value()),
                    "AllowOrigins": value("list", item=value()),
                    "ExposeHeaders": value("list", item=value()),
                    "MaxAge": value("integer"),
                }
            ),
            "InvokeMode": value(),
            "Qualifier": fixed(),
            "TargetFunctionArn": fixed(required=True),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def _where(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        name, qualifier = _split_arn(str(properties["TargetFunctionArn"]))
        qualifier = str(properties.get("Qualifier") or qualifier)
        return {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        where = self._where(properties)
        arn = f"arn:aws:lambda:{context.region}:{context.account}:function:{where['FunctionName']}"
        arn += f":{where['Qualifier']}" if "Qualifier" in where else ""
        return Physical(arn, {"FunctionArn": arn, **unknown(context, "FunctionUrl")})

    def _request(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {key: properties[key] for key in ("AuthType", "Cors", "InvokeMode") if key in properties}
        return {**self._where(properties), **given}

    def _physical(self, context: Context, properties: Mapping[str, Any], made: Mapping[str, Any]) -> Physical:
        arn = self.identify(context, properties).id
        return Physical(arn, {"FunctionArn": made.get("FunctionArn", arn), "FunctionUrl": made["FunctionUrl"]})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        made = await self._control.create_function_url_config(context.caller, self._request(properties))
        return self._physical(context, properties, made)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        request = {"Cors": {}, "InvokeMode": "BUFFERED", **self._request(new)}
        made = await self._control.update_function_url_config(context.caller, request)
        return self._physical(context, new, made)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await gone(self._control.delete_function_url_config(context.caller, self._where(properties)))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if is_pending(physical_id) else Physical(physical_id)


class InvokeConfigProvider:
    """AWS::Lambda::EventInvokeConfig."""

    kind = Kind(
        type="AWS::Lambda::EventInvokeConfig",
        properties={
            "DestinationConfig": object_of(
                {
                    "OnFailure": object_of({"Destination": value(required=True)}),
                    "OnSuccess": object_of({"Destination": value(required=True)}),
                }
            ),
            "FunctionName": fixed(required=True),
            "MaximumEventAgeInSeconds": value("integer"),
            "MaximumRetryAttempts": value("integer"),
            "Qualifier": fixed(required=True),
        },
    )

    def __init__(self, control: Control) -> None:
        self._control = control

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return Physical(generated_name(context, 64))

    def _where(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        name, _ = _split_arn(str(properties["FunctionName"]))
        return {"FunctionName": name, "Qualifier": properties["Qualifier"]}

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._control.put_function_event_invoke_config(context.caller, {**properties, **self._where(properties)})
        return Physical(physical_id)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        return await self.create(context, physical.id, new)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        if not is_pending([properties.get("FunctionName", ""), properties.get("Qualifier", "")]):
            await gone(self._control.delete_function_event_invoke_config(context.caller, self._where(properties)))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return Physical(physical_id)
