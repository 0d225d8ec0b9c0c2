"""AWS::ApiGateway::… and AWS::ApiGatewayV2::…: remembered one by one, and made one API of when all are in place.

A part of an API (a method, a route, a stage) does nothing by itself. When an operation's resources are all there, `ApiGroup`
hands each API's parts to the pure builders of the room's part `apis`, and what they make is put into the registry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from martlet.apps.stacks.kinds import Kind, Property, fixed, taken, value
from martlet.apps.stacks.providers.provider import Context, Physical, _Replace, generated_name
from martlet.apps.stacks.records import State
from martlet.errors import NotFound
from martlet.types import ACCOUNT

__all__ = ["SOCKETS", "ApiGroup", "ApiPart", "Apis", "api_providers"]

SOCKETS: Final = "ws"  # ids of WebSocket APIs begin so, no others: their https address is for backends, in sandboxes too
_PENDING: Final = re.compile(r"\{\{changeSet:KNOWN_AFTER_APPLY:[^}]*\}\}")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
Warn = Callable[[str], None]
Build = Callable[[str, Sequence["ApiPart"], str, Warn | None], Any]  # ("rest" or "http", parts, app, warn) -> ApiConfig


class ApiPart(msgspec.Struct, frozen=True, kw_only=True):
    """A resource of an API, everything evaluated. `line` is the template's, 0 where it is not known."""

    logical_id: str
    type: str
    id: str  # what Ref yields
    properties: dict[str, Any]
    line: int | None = None


class Apis(Protocol):
    """The registry of APIs."""

    def create(self, config: Any) -> Awaitable[None]: ...
    def replace(self, config: Any) -> Awaitable[None]: ...
    def remove(self, api_id: str) -> Awaitable[None]: ...


def _made_of(context: Context, length: int) -> str:
    digest = hashlib.sha256(f"{context.stack_id}\0{context.logical_id}\0{context.token}".encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:length])


# Refused by name by `apps.apis` where they ask for something.
_NOT_YET: Final = frozenset(
    (
        "ApiKeyRequired", "BodyS3Location", "CacheClusterEnabled", "CanarySetting",
        "ClientCertificateId", "CloneFrom", "DeploymentCanarySettings", "MinimumCompressionSize", "Policy",
        "TemplateSelectionExpression", "TlsConfig",
    )
)  # fmt: skip
_EMPTY: Final = "not yet: only empty or false, anything else is refused by name"


def _names(text: str, **rules: Property) -> dict[str, Property]:
    return {**{name: value("json", why=_EMPTY if name in _NOT_YET else "") for name in text.split()}, **rules}


_REST = "AWS::ApiGateway::"
_HTTP = "AWS::ApiGatewayV2::"
# Whether the values inside are honoured, the builder says; what is not named here is not a property of the type.
_KINDS: Final[dict[str, tuple[dict[str, Property], tuple[str, ...]]]] = {
    _REST + "RestApi": (
        _names(
            "ApiKeySourceType BinaryMediaTypes Body BodyS3Location CloneFrom Description DisableExecuteApiEndpoint "
            "EndpointConfiguration FailOnWarnings MinimumCompressionSize Mode Name Parameters Policy SecurityPolicy "
            "EndpointAccessMode",
            Tags=taken(),
        ),
        ("RestApiId", "RootResourceId"),
    ),
    _REST + "Resource": (
        _names("", ParentId=fixed(required=True), PathPart=fixed(required=True), RestApiId=fixed(required=True)),
        ("ResourceId",),
    ),
    _REST + "Method": (
        _names(
            "ApiKeyRequired AuthorizationScopes AuthorizationType AuthorizerId Integration MethodResponses OperationName "
            "RequestModels RequestParameters RequestValidatorId",
            HttpMethod=fixed(required=True), ResourceId=fixed(required=True), RestApiId=fixed(required=True),
        ),
        (),
    ),
    _REST + "Deployment": (
        _names("StageDescription DeploymentCanarySettings Description StageName", RestApiId=fixed(required=True)),
        ("DeploymentId",),
    ),
    _REST + "Stage": (
        _names(
            "AccessLogSetting CacheClusterEnabled CacheClusterSize CanarySetting ClientCertificateId DeploymentId Description "
            "DocumentationVersion MethodSettings Variables",
            RestApiId=fixed(required=True), StageName=fixed(), Tags=taken(),
            TracingEnabled=taken(why="traces are kept by Martlet itself"),
        ),
        (),
    ),
    _REST + "Model": (_names("Description Schema", ContentType=fixed(), Name=fixed(), RestApiId=fixed(required=True)), ()),
    _REST + "RequestValidator": (
        _names("ValidateRequestBody ValidateRequestParameters", Name=fixed(), RestApiId=fixed(required=True)),
        ("RequestValidatorId",),
    ),
    _REST + "Authorizer": (
        _names(
            "AuthType AuthorizerCredentials AuthorizerResultTtlInSeconds AuthorizerUri IdentitySource "
            "IdentityValidationExpression Name ProviderARNs Type",
            RestApiId=fixed(required=True),
        ),
        ("AuthorizerId",),
    ),
    _REST + "GatewayResponse": (
        _names(
            "ResponseParameters ResponseTemplates StatusCode",
            ResponseType=fixed(required=True), RestApiId=fixed(required=True),
        ),
        ("Id",),
    ),
    _HTTP + "Api": (
        _names(
            "ApiKeySelectionExpression BasePath Body BodyS3Location CorsConfiguration CredentialsArn Description "
            "DisableExecuteApiEndpoint DisableSchemaValidation FailOnWarnings IpAddressType Name RouteKey "
            "RouteSelectionExpression Target Version",
            ProtocolType=fixed(), Tags=taken(),
        ),
        ("ApiEndpoint", "ApiId"),
    ),
    _HTTP + "Route": (
        _names(
            "ApiKeyRequired AuthorizationScopes AuthorizationType AuthorizerId ModelSelectionExpression OperationName "
            "RequestModels RequestParameters RouteKey RouteResponseSelectionExpression Target",
            ApiId=fixed(required=True),
        ),
        ("RouteId",),
    ),
    _HTTP + "RouteResponse": (
        _names(
            "ModelSelectionExpression ResponseModels ResponseParameters RouteId RouteResponseKey",
            ApiId=fixed(required=True),
        ),
        ("RouteResponseId",),
    ),
    _HTTP + "Integration": (
        _names(
            "ConnectionId ConnectionType ContentHandlingStrategy CredentialsArn Description IntegrationMethod "
            "IntegrationSubtype IntegrationType IntegrationUri PassthroughBehavior PayloadFormatVersion "
            "RequestParameters RequestTemplates "
            "ResponseParameters TemplateSelectionExpression TimeoutInMillis TlsConfig",
            ApiId=fixed(required=True),
        ),
        ("IntegrationId",),
    ),
    _HTTP + "Stage": (
        _names(
            "AccessLogSettings AccessPolicyId AutoDeploy ClientCertificateId DefaultRouteSettings DeploymentId Description "
            "RouteSettings StageVariables",
            ApiId=fixed(required=True), StageName=fixed(required=True), Tags=taken(),
        ),
        (),
    ),
    _HTTP + "Deployment": (_names("Description StageName", ApiId=fixed(required=True)), ("DeploymentId",)),
    _HTTP + "Authorizer": (
        _names(
            "AuthorizerCredentialsArn AuthorizerPayloadFormatVersion AuthorizerResultTtlInSeconds AuthorizerType AuthorizerUri "
            "EnableSimpleResponses IdentitySource IdentityValidationExpression JwtConfiguration Name",
            ApiId=fixed(required=True),
        ),
        ("AuthorizerId",),
    ),
}  # fmt: skip


class _Part:
    """One resource of an API. It is there as soon as it is remembered."""

    def __init__(self, kind: Kind, apis: Apis) -> None:
        self.kind = kind
        self._apis = apis

    @property
    def _is_api(self) -> bool:
        return self.kind.type.endswith(("::RestApi", "V2::Api"))

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = self.kind.type.rpartition("::")[2]
        if self._is_api:
            return self._api(context, properties)
        if name == "Stage":
            return Physical(str(properties.get("StageName") or "prod"))
        if name == "Model":
            return Physical(str(properties.get("Name") or generated_name(context, 64).replace("-", "")))
        id = _made_of(context, 7 if name in ("Route", "Integration", "RouteResponse") else 6)
        return Physical(id, dict.fromkeys(self.kind.attributes, id))

    def _api(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        id = _made_of(context, 10)
        if str(properties.get("ProtocolType", "")).upper() == "WEBSOCKET":
            id = SOCKETS + id[len(SOCKETS) :]
            return Physical(id, {"ApiId": id, "ApiEndpoint": f"wss://{id}.execute-api.{context.region}.amazonaws.com"})
        if id.startswith(SOCKETS):
            id = "h" + id[1:]
        if self.kind.type == _REST + "RestApi":
            return Physical(id, {"RestApiId": id, "RootResourceId": id})
        return Physical(id, {"ApiId": id, "ApiEndpoint": f"https://{id}.execute-api.{context.region}.amazonaws.com"})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        return self.identify(context, properties)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        if self._is_api:
            with suppress(NotFound):
                await self._apis.remove(physical.id)

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return Physical(physical_id) if self._is_api and physical_id else None


def api_providers(apis: Apis) -> list[Any]:
    """One provider for each type of API resource."""
    kinds = [Kind(type=type, properties=properties, attributes=names) for type, (properties, names) in _KINDS.items()]
    return [_Part(kind, apis) for kind in kinds]


class ApiGroup:
    """Makes APIs of their parts. Its builders are `martlet.apps.apis`'s."""

    def __init__(self, apis: Apis, build: Build) -> None:
        self._apis = apis
        self._build = build

    def check(self, parts: Sequence[ApiPart], warn: Callable[[str], None] | None) -> None:
        """Whether APIs can be made of `parts`, whose values need not all be known. Raises `DeployFailed` by name; with `warn`,
        what is not honoured is said there instead."""
        stand_in = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:not-known-yet"
        known = [msgspec.structs.replace(part, properties=_without_pending(part.properties, stand_in)) for part in parts]
        for kind, group in _grouped(known):
            self._build(kind, group, "", warn)

    async def settle(self, context: Context, states: Mapping[str, State]) -> None:
        """Put every API of these resources into the registry."""
        parts = [
            ApiPart(logical_id=name, type=state.type, id=state.physical_id, properties=state.properties)
            for name, state in states.items()
        ]
        warn = (lambda text: None) if context.is_lenient else None  # it was said when the stack was planned
        for kind, group in _grouped(parts):
            config = self._build(kind, group, context.stack_name, warn)
            try:
                await self._apis.replace(config)
            except NotFound:
                await self._apis.create(config)


def _grouped(parts: Sequence[ApiPart]) -> list[tuple[str, list[ApiPart]]]:
    found = []
    for part in parts:
        if part.type == _REST + "RestApi":
            found.append(("rest", [part, *_of(parts, _REST, "RestApiId", part.id)]))
        elif part.type == _HTTP + "Api":
            found.append(("http", [part, *_of(parts, _HTTP, "ApiId", part.id)]))
    return found


def _of(parts: Sequence[ApiPart], prefix: str, key: str, id: str) -> list[ApiPart]:
    return [part for part in parts if part.type.startswith(prefix) and part.properties.get(key) == id]


def _without_pending(value: Any, stand_in: str) -> Any:
    if isinstance(value, str):
        return _PENDING.sub(stand_in, value)
    if isinstance(value, dict):
        return {name: _without_pending(one, stand_in) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_pending(one, stand_in) for one in value]
    return value
