"""Layers: versions that never change, who may use them, and what a function takes of them."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.functions.control.configuration import stamp
from martlet.functions.control.guards import Guards
from martlet.functions.control.identifiers import DEPRECATED, SUPPORTED
from martlet.functions.control.names import conflict, invalid, missing, precondition
from martlet.functions.control.records import Layer, LayerUse, Policy, Tables
from martlet.limits import LIMITS
from martlet.types import ACCOUNT

__all__ = ["Layers"]

_LAYER: Final = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:)?(?P<name>[a-zA-Z0-9-_]+)"
    r"(?::(?P<version>\d{1,9}))?"
)
_AT_MOST: Final = 5
_RUNTIMES_MOST: Final = 15
_ARCHITECTURES: Final = ("x86_64", "arm64")
_NO_NULL: Final = "Member must not be null"
_ZIPPED_MOST: Final = LIMITS["code_zipped_bytes"].default


class Layers(Guards):
    """The operations on layers."""

    async def publish_layer_version(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PublishLayerVersion."""
        self._authorize(caller, "lambda:PublishLayerVersion", "*")
        name = self._layer_name(caller, request)
        _check_compatible(request)
        content = request.get("Content") or {}
        archive = content.get("ZipFile")
        if archive is None and content.get("S3Bucket"):
            archive = await self._fetched(content)
        elif archive is not None and len(archive) >= _ZIPPED_MOST:
            message = f"Zipped size must be smaller than {_ZIPPED_MOST} bytes"
            raise ServiceError("RequestEntityTooLargeException", message, 413)
        if not archive:
            raise invalid("Please provide a source for layer content.")
        stored = await asyncio.to_thread(self._archives.store, bytes(archive), "layer")
        await self._functions.folders.keep("layers-lambda", stored.address)
        await self._functions.folders.keep("zips", f"{stored.digest}.zip")
        runtimes, architectures = request.get("CompatibleRuntimes"), request.get("CompatibleArchitectures")

        def publish(tables: Tables) -> Layer:
            layer = Layer(
                name=name,
                version=tables.increment("layer", name),
                description=request.get("Description") or "",
                license=request.get("LicenseInfo") or "",
                runtimes=None if runtimes is None else tuple(runtimes),
                architectures=None if architectures is None else tuple(architectures),
                address=stored.address,
                zip=stored.digest,
                code_bytes=len(archive),
                unzipped_bytes=stored.unzipped_bytes,
                created_at_ms=self._clock.now_ms(),
            )
            tables.put(layer, name, layer.version)
            return layer

        return self._layer_body(caller, await self._write(publish))

    async def _fetched(self, given: dict[str, Any]) -> bytes:
        """The archive at S3Bucket and S3Key, in the words of the service where it cannot be had."""
        if self._fetch_object is None:
            raise invalid("S3Bucket and S3Key: Martlet has no objects yet; send the archive itself as ZipFile (50 MB at most).")
        try:
            return await self._fetch_object(given["S3Bucket"], given.get("S3Key") or "", given.get("S3ObjectVersion") or "")
        except ServiceError as error:
            raise invalid(
                f"Error occurred while GetObject. S3 Error Code: {error.name}. S3 Error Message: {error.message}"
            ) from error

    async def get_layer_version(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetLayerVersion."""
        self._authorize(caller, "lambda:GetLayerVersion", "*")
        name, version = self._layer_name(caller, request), _version(request)
        return self._shown(caller, name, version)

    async def get_layer_version_by_arn(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetLayerVersionByArn."""
        self._authorize(caller, "lambda:GetLayerVersion", "*")
        found = _LAYER.fullmatch(request.get("Arn") or "")
        if found is None or not found["version"]:
            raise invalid(f"{request.get('Arn')} is not the ARN of a layer version.")
        if found["region"] != self._region_of(caller) or found["account"] != ACCOUNT:
            raise missing("The resource you requested does not exist.")
        return self._shown(caller, found["name"], int(found["version"]))

    def _shown(self, caller: Any, name: str, version: int) -> dict[str, Any]:
        layer = self._read(lambda tables: tables.get(Layer, name, version))
        if layer is None:
            raise missing("The resource you requested does not exist.")
        return self._layer_body(caller, layer)

    async def delete_layer_version(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteLayerVersion. Functions that use the version keep it."""
        self._authorize(caller, "lambda:DeleteLayerVersion", "*")
        name, version = self._layer_name(caller, request), _version(request)

        def delete(tables: Tables) -> None:
            tables.delete(Layer, name, version)
            tables.delete(Policy, f"layer:{name}", str(version))

        await self._write(delete)
        return {}

    async def list_layer_versions(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListLayerVersions: the newest first."""
        self._authorize(caller, "lambda:ListLayerVersions", "*")
        name = self._layer_name(caller, request)
        _check_filter(request)
        rows = self._read(lambda tables: tables.all(Layer, name))
        items = [(str(one.version), self._listed_layer(one, caller)) for _, one in reversed(rows) if _fits(one, request)]
        shown, more = self._cut(items, self._page(request))
        return {"LayerVersions": shown, **more}

    async def list_layers(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListLayers: each with its newest version that fits."""
        self._authorize(caller, "lambda:ListLayers", "*")
        _check_filter(request)
        newest: dict[str, Layer] = {}
        for _, one in self._read(lambda tables: tables.all(Layer)):
            if _fits(one, request):
                newest[one.name] = one
        items = [
            (
                name,
                {
                    "LayerName": name,
                    "LayerArn": self._layer_arn(name, caller),
                    "LatestMatchingVersion": self._listed_layer(one, caller),
                },
            )
            for name, one in sorted(newest.items())
        ]
        shown, more = self._cut(items, self._page(request))
        return {"Layers": shown, **more}

    # --- permissions ------------------------------------------------------------------------------------------------

    async def add_layer_version_permission(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, AddLayerVersionPermission."""
        self._authorize(caller, "lambda:AddLayerVersionPermission", "*")
        name, version = self._layer_name(caller, request), _version(request)
        principal = request["Principal"]
        statement: dict[str, Any] = {
            "Sid": request["StatementId"],
            "Effect": "Allow",
            "Principal": principal if principal == "*" else {"AWS": _root(principal)},
            "Action": request["Action"],
            "Resource": f"{self._layer_arn(name, caller)}:{version}",
        }
        if request.get("OrganizationId"):
            statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": request["OrganizationId"]}}

        def add(tables: Tables) -> str:
            before = self._layer_policy(tables, name, version, request.get("RevisionId"))
            statements = before.statements if before else ()
            if any(one["Sid"] == statement["Sid"] for one in statements):
                raise conflict(
                    f"The statement id ({statement['Sid']}) provided already exists. "
                    "Please provide a new statement id, or remove the existing statement."
                )
            after = Policy((*statements, statement), self._revision())
            tables.put(after, f"layer:{name}", str(version))
            return after.revision_id

        revision_id = await self._write(add)
        return {"Statement": msgspec.json.encode(statement).decode(), "RevisionId": revision_id}

    async def remove_layer_version_permission(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, RemoveLayerVersionPermission."""
        self._authorize(caller, "lambda:RemoveLayerVersionPermission", "*")
        name, version, id = self._layer_name(caller, request), _version(request), request["StatementId"]

        def remove(tables: Tables) -> None:
            before = self._layer_policy(tables, name, version, request.get("RevisionId"))
            statements = before.statements if before else ()
            left = tuple(one for one in statements if one["Sid"] != id)
            if len(left) == len(statements):
                raise missing(f"Statement {id} is not found in resource policy.")
            if left:
                tables.put(Policy(left, self._revision()), f"layer:{name}", str(version))
            else:
                tables.delete(Policy, f"layer:{name}", str(version))

        await self._write(remove)
        return {}

    async def get_layer_version_policy(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetLayerVersionPolicy."""
        self._authorize(caller, "lambda:GetLayerVersionPolicy", "*")
        name, version = self._layer_name(caller, request), _version(request)
        policy = self._read(lambda tables: self._layer_policy(tables, name, version, None))
        if policy is None:
            raise missing("No policy is associated with the given resource.")
        document = {"Version": "2012-10-17", "Id": "default", "Statement": list(policy.statements)}
        return {"Policy": msgspec.json.encode(document).decode(), "RevisionId": policy.revision_id}

    def _layer_policy(self, tables: Tables, name: str, version: int, revision_id: str | None) -> Policy | None:
        if tables.get(Layer, name, version) is None:
            raise missing(f"Layer version {self._layer_arn(name)}:{version} does not exist.")
        found = tables.get(Policy, f"layer:{name}", str(version))
        if revision_id and (found is None or found.revision_id != revision_id):
            raise precondition("GetLayerPolicy")
        return found

    # --- what functions take of them --------------------------------------------------------------------------------

    def _layers(self, tables: Tables, arns: list[str], caller: Any) -> tuple[LayerUse, ...]:
        """The layers that a function names, in order. Raises ServiceError in the service's words."""
        region = self._region_of(caller)
        if len(arns) > _AT_MOST:
            raise invalid(f"Cannot reference more than {_AT_MOST} layers.")
        seen: dict[str, str] = {}
        uses = []
        for arn in arns:
            found = _LAYER.fullmatch(arn)
            if found is None or not found["version"] or not found["region"]:
                raise invalid(f"Layer version {arn} does not exist.")
            if found["region"] != region:
                raise invalid(
                    f"Layers are not in the same region as the function. Layers are expected to be in region {region}."
                )
            if found["account"] != ACCOUNT:
                raise invalid(
                    f"Layer version {arn} does not exist. (Martlet has only layers that were published to it: publish the "
                    "archive with PublishLayerVersion and name that version.)"
                )
            if found["name"] in seen:
                raise invalid(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. "
                    f"{seen[found['name']]} and {arn} are versions of the same layer."
                )
            seen[found["name"]] = arn
            layer = tables.get(Layer, found["name"], int(found["version"]))
            if layer is None:
                raise invalid(f"Layer version {arn} does not exist.")
            uses.append(LayerUse(arn, layer.code_bytes, layer.address, layer.unzipped_bytes))
        return tuple(uses)

    def _layers_bytes(self, layers: tuple[LayerUse, ...]) -> int:
        return sum(layer.unzipped_bytes for layer in layers)

    # --- words ------------------------------------------------------------------------------------------------------

    def _region_of(self, caller: Any) -> str:
        """That of the request's signature: a layer is named by where it was published."""
        return getattr(caller, "signed_region", "") or self._region

    def _layer_arn(self, name: str, caller: Any = None) -> str:
        return f"arn:aws:lambda:{self._region_of(caller)}:{ACCOUNT}:layer:{name}"

    def _layer_name(self, caller: Any, request: dict[str, Any]) -> str:
        found = _LAYER.fullmatch(request.get("LayerName") or "")
        if found is None or found["version"] or len(found["name"]) > 140:
            raise invalid(f"{request.get('LayerName')} is not the name of a layer.")
        if found["region"] and (found["region"] != self._region_of(caller) or found["account"] != ACCOUNT):
            raise missing("The resource you requested does not exist.")
        return found["name"]

    def _listed_layer(self, one: Layer, caller: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "LayerVersionArn": f"{self._layer_arn(one.name, caller)}:{one.version}",
            "Version": one.version,
            "Description": one.description,
            "CreatedDate": stamp(one.created_at_ms),
        }
        if one.runtimes is not None:
            body["CompatibleRuntimes"] = list(one.runtimes)
        if one.architectures is not None:
            body["CompatibleArchitectures"] = list(one.architectures)
        if one.license:
            body["LicenseInfo"] = one.license
        return body

    def _layer_body(self, caller: Any, one: Layer) -> dict[str, Any]:
        return {
            **self._listed_layer(one, caller),
            "LayerArn": self._layer_arn(one.name, caller),
            "Content": {
                "Location": self._location(caller, one.zip),
                "CodeSha256": base64.b64encode(bytes.fromhex(one.zip)).decode(),
                "CodeSize": one.code_bytes,
            },
        }


def _check_compatible(request: dict[str, Any]) -> None:
    """What a layer says that it fits: told all at once, as recorded."""
    found = []
    for member, allowed, most, form in (
        ("CompatibleRuntimes", SUPPORTED, _RUNTIMES_MOST, "{}"),
        (
            "CompatibleArchitectures",
            _ARCHITECTURES,
            len(_ARCHITECTURES),
            "Member must satisfy constraint: [{}, " + _NO_NULL + "]",
        ),
    ):
        given = request.get(member) or []
        start = f"Value '[{', '.join(map(str, given))}]' at '{member[0].lower()}{member[1:]}' failed to satisfy constraint: "
        if len(given) > most:
            found.append(f"{start}Member must have length less than or equal to {most}")
        if not set(given) <= set(allowed):
            found.append(start + form.format(f"Member must satisfy enum value set: [{', '.join(allowed)}]"))
    if found:
        errors = "error" if len(found) == 1 else "errors"
        raise ServiceError("ValidationException", f"{len(found)} validation {errors} detected: {'; '.join(found)}")


def _check_filter(request: dict[str, Any]) -> None:
    wanted = request.get("CompatibleRuntime")
    if wanted and wanted not in SUPPORTED and wanted not in DEPRECATED:
        known = ", ".join((*SUPPORTED, *sorted(DEPRECATED)))
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{wanted}' at 'compatibleRuntime' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{known}]",
        )


def _version(request: dict[str, Any]) -> int:
    version = int(request["VersionNumber"])
    if version < 1:
        raise invalid("Layer Version Cannot be less than 1")
    return version


def _fits(one: Layer, request: dict[str, Any]) -> bool:
    runtime, architecture = request.get("CompatibleRuntime"), request.get("CompatibleArchitecture")
    if runtime and runtime not in (one.runtimes or ()):
        return False
    return not architecture or architecture in (one.architectures or ())


def _root(principal: str) -> str:
    return principal if principal.startswith("arn:") else f"arn:aws:iam::{principal}:root"
