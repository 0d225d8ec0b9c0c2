"""Dynamic references of templates: `{{resolve:ssm:…}}`, `{{resolve:ssm-secure:…}}` and `{{resolve:secretsmanager:…}}`.

They stay as they stand in everything that is kept or compared, and become values only in what a provider is given, so that no
secret is in a stack's state. Source: CloudFormation user guide, "Get values stored in other services using dynamic references".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from martlet.apps.stacks.kinds import Kind, check, typed
from martlet.apps.stacks.providers.provider import Caller, Context, Physical, Provider, _Replace
from martlet.apps.stacks.reading import TemplateFault
from martlet.errors import MartletError, Unsupported

__all__ = ["Dynamic", "Parameters", "Resolving", "Secrets", "is_dynamic", "refuse_dynamic"]

_REFERENCE: Final = re.compile(r"\{\{resolve:([a-z-]+):([^{}]+)\}\}")
_TOGETHER: Final = "AWS::ApiGateway"  # these are read together, from the state
_ARN_PARTS: Final = 7  # arn:aws:secretsmanager:region:account:secret:name
_AMONG_SECRETS: Final = ("SecretString", "")


class Parameters(Protocol):
    """The operation of Systems Manager that is needed."""

    async def get_parameter(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...


class Secrets(Protocol):
    """The operation of Secrets Manager that is needed."""

    async def get_secret_value(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...


def is_dynamic(value: Any) -> bool:
    """Whether `value`, or something inside it, refers to a parameter or a secret."""
    if isinstance(value, str):
        return "{{resolve:" in value
    if isinstance(value, dict):
        return any(is_dynamic(one) for one in value.values())
    return isinstance(value, list) and any(is_dynamic(one) for one in value)


def refuse_dynamic(value: Any, where: str, line: int = 0) -> None:
    """Raises `Unsupported` where a reference would stay what it is."""
    if is_dynamic(value):
        raise Unsupported(f"{where}: a dynamic reference is not supported here", line=line)


class Dynamic:
    """Gives the values."""

    def __init__(self, parameters: Parameters, secrets: Secrets) -> None:
        self._parameters = parameters
        self._secrets = secrets

    async def stored(self, caller: Caller, name: str) -> str:
        """The value of a parameter of a template that is one of Systems Manager. Raises `MartletError`."""
        found = (await self._parameters.get_parameter(caller, {"Name": name}))["Parameter"]
        if found["Type"] == "SecureString":
            raise Unsupported(f"{name} is a SecureString: use {{{{resolve:ssm-secure:{name}}}}} in a resource")
        return str(found["Value"])

    async def resolved(self, caller: Caller, value: Any) -> Any:
        """`value` with every reference replaced. Raises `TemplateFault` that names the reference, never a value."""
        if isinstance(value, dict):
            return {name: await self.resolved(caller, one) for name, one in value.items()}
        if isinstance(value, list):
            return [await self.resolved(caller, one) for one in value]
        if not isinstance(value, str) or "{{resolve:" not in value:
            return value
        out, at = "", 0
        for found in _REFERENCE.finditer(value):
            out += value[at : found.start()] + await self._value(caller, found[1], found[2], found[0])
            at = found.end()
        rest = value[at:]
        if "{{resolve:" in rest:
            raise TemplateFault(f"Template error: the dynamic reference {rest[:200]} is malformed")
        return out + rest

    async def _value(self, caller: Caller, service: str, rest: str, reference: str) -> str:
        try:
            if service in ("ssm", "ssm-secure"):
                found = await self._parameters.get_parameter(caller, {"Name": rest, "WithDecryption": True})
                return str(found["Parameter"]["Value"])
            if service == "secretsmanager":
                return await self._secret(caller, rest)
        except TemplateFault:
            raise
        except MartletError as error:
            why = error.message or getattr(error, "name", error.code)
            raise TemplateFault(f"Could not resolve {reference[:300]}: {why}") from error
        raise TemplateFault(f"Template error: the dynamic reference {reference[:200]} is not known")

    async def _secret(self, caller: Caller, rest: str) -> str:
        """secret-id:secret-string:json-key:version-stage:version-id; the id may be an ARN, all but the id may be left out."""
        parts = rest.split(":")
        count = _ARN_PARTS if rest.startswith("arn:") else 1
        id, (kind, key, stage, version) = ":".join(parts[:count]), ([*parts[count:], "", "", "", ""])[:4]
        if kind not in _AMONG_SECRETS or len(parts) > count + 4:
            raise TemplateFault(f"Template error: the dynamic reference to secret {id[:200]} is malformed")
        request = {"SecretId": id, **({"VersionStage": stage} if stage else {}), **({"VersionId": version} if version else {})}
        text = (await self._secrets.get_secret_value(caller, request)).get("SecretString")
        if text is None:
            raise TemplateFault(f"secret {id} holds no text")
        if not key:
            return str(text)
        try:
            found = json.loads(text)[key]
        except (ValueError, KeyError, TypeError):
            raise TemplateFault(f"Could not find a value associated with JSONKey in SecretString of {id}") from None
        return found if isinstance(found, str) else json.dumps(found)


class Resolving:
    """A provider that is given values. What it says of itself, and what is kept, has the references."""

    def __init__(self, inner: Provider, dynamic: Dynamic) -> None:
        self._inner = inner
        self._dynamic = dynamic
        self.kind: Kind = inner.kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        if self.kind.type.startswith(_TOGETHER) and is_dynamic(properties):
            raise Unsupported(f"{context.logical_id}: a dynamic reference in an {self.kind.type} is not supported")
        found = self._inner.identify(context, properties)
        if is_dynamic(found.id):
            raise Unsupported(f"{context.logical_id}: a dynamic reference in the name of a resource is not supported")
        return found

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        return await self._inner.create(context, physical_id, await self._given(context, properties))

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        return await self._inner.update(context, physical, old, await self._given(context, new))

    async def _given(self, context: Context, properties: dict[str, Any]) -> dict[str, Any]:
        """The properties with their values, in their types."""
        if not is_dynamic(properties):
            return properties
        found = await self._dynamic.resolved(context.caller, properties)
        faults = [one for one in check(self.kind, found, context.logical_id, 0) if not one.unsupported]
        if faults:
            raise TemplateFault(faults[0].text, logical_id=context.logical_id)
        return typed(self.kind, found)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await self._inner.delete(context, physical, properties)

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return await self._inner.recover(context, physical_id, properties)
