"""AWS::SSM::Parameter and AWS::SecretsManager::Secret: parameters and secrets of the secrets room, by their operations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from martlet.apps.stacks.kinds import Kind, fixed, object_of, refused, taken, value
from martlet.apps.stacks.providers.provider import Context, Physical, _Replace, chosen, generated_name, unknown
from martlet.errors import ServiceError

__all__ = ["ParameterRoom", "SecretRoom", "secret_providers"]

_KEY: Final = "values are encrypted under the platform's own key"
_TEXTS: Final = ("PasswordLength", "ExcludeCharacters", "ExcludeLowercase", "ExcludeNumbers", "ExcludePunctuation")
_FLAGS: Final = ("ExcludeUppercase", "IncludeSpace", "RequireEachIncludedType")

PARAMETER: Final = Kind(
    type="AWS::SSM::Parameter",
    attributes=("Type", "Value"),
    properties={
        "AllowedPattern": value(),
        "DataType": value(),
        "Description": value(),
        "Name": fixed(),
        "Policies": refused("parameters do not expire and tell nobody"),
        "Tags": value("map"),
        "Tier": value(),
        "Type": value(required=True),
        "Value": value(required=True),
    },
)
_GENERATE = {
    "ExcludeCharacters": value(),
    "ExcludeLowercase": value("boolean"),
    "ExcludeNumbers": value("boolean"),
    "ExcludePunctuation": value("boolean"),
    "ExcludeUppercase": value("boolean"),
    "GenerateStringKey": value(),
    "IncludeSpace": value("boolean"),
    "PasswordLength": value("integer"),
    "RequireEachIncludedType": value("boolean"),
    "SecretStringTemplate": value(),
}
SECRET: Final = Kind(
    type="AWS::SecretsManager::Secret",
    attributes=("Id",),
    properties={
        "Description": value(),
        "GenerateSecretString": object_of(_GENERATE),
        "KmsKeyId": taken("string", why=_KEY),
        "Name": fixed(),
        "ReplicaRegions": refused("there is one region"),
        "SecretString": value(),
        "Tags": value("list", item=object_of({"Key": value(required=True), "Value": value()})),
    },
)


class ParameterRoom(Protocol):
    """The operations of Systems Manager that providers call."""

    async def put_parameter(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_parameter(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_parameter(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def add_tags_to_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...


class SecretRoom(Protocol):
    """The operations of Secrets Manager that providers call."""

    async def create_secret(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_secret(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def describe_secret(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_secret(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def tag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_secret_value(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_random_password(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...


def secret_providers(parameters: ParameterRoom, secrets: SecretRoom) -> list[Any]:
    return [ParameterProvider(parameters), SecretProvider(secrets)]


class ParameterProvider:
    """Parameters. Ref is the name."""

    kind = PARAMETER

    def __init__(self, room: ParameterRoom) -> None:
        self._room = room

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("Name") or generated_name(context, 255))
        return Physical(name, {"Type": properties.get("Type", "String"), "Value": properties.get("Value", "")})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = chosen(properties, "AllowedPattern", "DataType", "Description", "Tier", "Type", "Value")
        tags = {**context.tags, **(properties.get("Tags") or {})}
        request |= {"Name": physical_id, "Tags": [{"Key": key, "Value": str(text)} for key, text in tags.items()]}
        try:
            await self._room.put_parameter(context.caller, request)
        except ServiceError as error:
            if error.name != "ParameterAlreadyExists" or "Name" in properties:
                raise  # a generated name that is there is ours, from before a crash
        return self.identify(context, {**properties, "Name": physical_id})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        request = chosen(new, "AllowedPattern", "DataType", "Description", "Tier", "Type", "Value")
        await self._room.put_parameter(context.caller, {**request, "Name": physical.id, "Overwrite": True})
        if new.get("Tags"):
            tags = [{"Key": key, "Value": str(text)} for key, text in new["Tags"].items()]
            asked = {"ResourceType": "Parameter", "ResourceId": physical.id, "Tags": tags}
            await self._room.add_tags_to_resource(context.caller, asked)
        return self.identify(context, {**new, "Name": physical.id})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        try:
            await self._room.delete_parameter(context.caller, {"Name": physical.id})
        except ServiceError as error:
            if error.name != "ParameterNotFound":
                raise

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if "Name" in properties else Physical(physical_id)


class SecretProvider:
    """Secrets. Ref is the ARN, whose last letters nobody knows before."""

    kind = SECRET

    def __init__(self, room: SecretRoom) -> None:
        self._room = room

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return Physical("", unknown(context, "Id"))

    def _name(self, context: Context, properties: Mapping[str, Any]) -> str:
        return str(properties.get("Name") or generated_name(context, 250))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        name = self._name(context, properties)
        if "SecretString" in properties and "GenerateSecretString" in properties:
            raise ServiceError("ValidationException", "You can't specify both SecretString and GenerateSecretString.")
        tags = {**context.tags, **{one["Key"]: one.get("Value", "") for one in properties.get("Tags") or ()}}
        request = {**chosen(properties, "Description"), "Name": name}
        request["Tags"] = [{"Key": key, "Value": text} for key, text in tags.items()]
        request["SecretString"] = await self._text(context, properties)
        try:
            made = await self._room.create_secret(context.caller, request)
        except ServiceError as error:
            if error.name != "ResourceExistsException" or "Name" in properties:
                raise  # a generated name that is there is ours, from before a crash
            made = await self._room.describe_secret(context.caller, {"SecretId": name})
        return Physical(made["ARN"], {"Id": made["ARN"]})

    async def _text(self, context: Context, properties: Mapping[str, Any]) -> str:
        if "GenerateSecretString" not in properties:
            return str(properties.get("SecretString") or "{}")
        how = properties["GenerateSecretString"]
        asked = chosen(how, *_TEXTS, *_FLAGS)
        made = str((await self._room.get_random_password(context.caller, asked))["RandomPassword"])
        key, template = how.get("GenerateStringKey"), how.get("SecretStringTemplate")
        if not key and not template:
            return made
        try:
            found = json.loads(template or "")
        except ValueError:
            found = None
        if not key or not isinstance(found, dict):
            raise ServiceError(
                "ValidationException", "GenerateStringKey and SecretStringTemplate, a JSON object, must be given together."
            )
        return json.dumps({**found, key: made})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        """A generated value stays as it is, unless how it is generated changes."""
        request: dict[str, Any] = {"SecretId": physical.id, **chosen(new, "Description")}
        if old.get("SecretString") != new.get("SecretString") or old.get("GenerateSecretString") != new.get(
            "GenerateSecretString"
        ):
            request["SecretString"] = await self._text(context, new)
        await self._room.update_secret(context.caller, request)
        if new.get("Tags"):
            await self._room.tag_resource(context.caller, {"SecretId": physical.id, "Tags": new["Tags"]})
        return Physical(physical.id, {"Id": physical.id})

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        try:
            asked = {"SecretId": physical.id, "ForceDeleteWithoutRecovery": True}
            await self._room.delete_secret(context.caller, asked)
        except ServiceError as error:
            if error.name != "ResourceNotFoundException":
                raise

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        if "Name" in properties:
            return None
        try:
            found = await self._room.describe_secret(context.caller, {"SecretId": self._name(context, properties)})
        except ServiceError:
            return None
        return Physical(found["ARN"], {"Id": found["ARN"]})
