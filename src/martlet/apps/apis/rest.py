"""AWS::ApiGateway::* resources to an `ApiConfig`.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_ApiGateway.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from martlet.apps.apis.integrations import authorizer_from, opened, rest_integration
from martlet.apps.apis.openapi import from_openapi, gateway_response_from
from martlet.apps.apis.reading import Part, Place, Warn, access_log, throttle_numbers, truth
from martlet.errors import DeployFailed
from martlet.types import ApiAuthorizer, ApiConfig, ApiGatewayResponse, ApiRoute, ApiStage, Throttle

__all__ = ["rest_api_from"]

_PREFIX: Final = "AWS::ApiGateway::"
_AUTHORIZER: Final = {
    "Type": "type",
    "AuthorizerUri": "authorizerUri",
    "AuthorizerCredentials": "authorizerCredentials",
    "AuthorizerResultTtlInSeconds": "authorizerResultTtlInSeconds",
    "IdentitySource": "identitySource",
    "IdentityValidationExpression": "identityValidationExpression",
    "AuthType": "authType",
}


def rest_api_from(parts: Iterable[Part], *, app: str = "", asynchronous: bool = False, warn: Warn | None = None) -> ApiConfig:
    """The API of exactly one AWS::ApiGateway::RestApi and the resources that belong to it.

    Stages serve the methods as they are declared now, not as they were when the stage's Deployment was made. Raises
    `DeployFailed` naming the logical id, the property and the line; with `warn`, what is not honoured is said there instead.
    """
    return _Rest(list(parts), app, asynchronous, warn).api()


class _Rest:
    def __init__(self, parts: list[Part], app: str, asynchronous: bool, warn: Warn | None) -> None:
        self.parts = parts
        self.app = app
        self.asynchronous = asynchronous
        self.warn = warn
        apis = self._all("RestApi")
        if len(apis) != 1:
            raise DeployFailed(f"{len(apis)} resources of type {_PREFIX}RestApi where one is wanted")
        self.part = apis[0]
        self.paths: dict[str, str] = {}

    def _all(self, kind: str) -> list[Part]:
        return [part for part in self.parts if part.type == _PREFIX + kind]

    def api(self) -> ApiConfig:
        for part in self.parts:
            if part.type.removeprefix(_PREFIX) not in _KNOWN:
                Place.of(part, self.warn).refuse("", "is not supported yet")
        base = self._base()
        self.paths = self._resource_paths()
        models = {**base.models, **self._models()}
        authorizers = (*base.authorizers, *self._authorizers())
        validators = self._validators()
        routes = (*base.routes, *(self._method(part, validators) for part in self._all("Method")))
        responses = {response.kind: response for response in (*base.responses, *self._gateway_responses())}
        return msgspec.structs.replace(
            base,
            routes=routes,
            models=models,
            authorizers=authorizers,
            responses=tuple(responses.values()),
            stages=tuple(self._stages(routes)),
        )

    def _base(self) -> ApiConfig:
        place = Place.of(self.part, self.warn)
        name = place.text("Name")
        body = place.take("Body")
        place.ignore("Description", "Tags", "FailOnWarnings", "Mode", "Parameters", "SecurityPolicy", "EndpointAccessMode")
        place.not_yet("Policy", "MinimumCompressionSize", "CloneFrom", "BodyS3Location")
        if place.choice("ApiKeySourceType", ("HEADER", "AUTHORIZER"), "HEADER") != "HEADER":
            place.refuse("ApiKeySourceType")
        endpoint = place.take("EndpointConfiguration", {})
        types = endpoint.get("Types") if isinstance(endpoint, dict) else None
        if "PRIVATE" in (types or ()):
            place.refuse("EndpointConfiguration", "PRIVATE is not supported yet")
        binary = tuple(media.replace("~1", "/") for media in place.listed("BinaryMediaTypes"))
        disabled = place.flag("DisableExecuteApiEndpoint")
        place.done()
        base = ApiConfig(id=self.part.id, name=name or self.part.logical_id, kind="rest", app=self.app)
        if body is not None:
            base = from_openapi(
                _document(place, body),
                "rest",
                id=self.part.id,
                name=name,
                app=self.app,
                asynchronous=self.asynchronous,
                warn=self.warn,
                where=f"{place.name} Body",
            )
        both = tuple(dict.fromkeys((*base.binary_media_types, *binary)))
        return msgspec.structs.replace(base, binary_media_types=both, disabled=disabled or base.disabled)

    def _resource_paths(self) -> dict[str, str]:
        """Physical id → path. The API's root goes by the API's id, its RootResourceId and "/"."""
        resources = {part.id: part for part in self._all("Resource")}
        found: dict[str, str] = {}

        def path_of(id: str, seen: tuple[str, ...]) -> str:
            part = resources.get(id)
            if part is None:
                return ""
            if id in seen:
                raise Place.of(part, self.warn).wrong("ParentId", "leads back to itself")
            place = Place.of(part, self.warn)
            segment = place.text("PathPart")
            if not segment or "/" in segment:
                raise place.wrong("PathPart", f"{segment!r} is not one segment of a path")
            parent = path_of(place.text("ParentId"), (*seen, id))
            place.ignore("RestApiId")
            place.done()
            return f"{parent}/{segment}"

        for id in resources:
            found[id] = path_of(id, ())
        return found

    def _models(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in self._all("Model"):
            place = Place.of(part, self.warn)
            schema = place.take("Schema", {})
            if isinstance(schema, str):
                schema = _document(place, schema)
            found[place.text("Name") or part.id] = schema
            place.ignore("RestApiId", "ContentType", "Description")
            place.done()
        return found

    def _validators(self) -> dict[str, tuple[bool, bool]]:
        found = {}
        for part in self._all("RequestValidator"):
            place = Place.of(part, self.warn)
            found[part.id] = (place.flag("ValidateRequestBody"), place.flag("ValidateRequestParameters"))
            place.ignore("RestApiId", "Name")
            place.done()
        return found

    def _authorizers(self) -> list[ApiAuthorizer]:
        found = []
        for part in self._all("Authorizer"):
            given = {_AUTHORIZER.get(name, name): value for name, value in part.properties.items()}
            given = {name: value for name, value in given.items() if name not in ("RestApiId", "Name")}
            if given.get("type") == "TOKEN" and not given.get("identitySource"):
                given["identitySource"] = "method.request.header.Authorization"
            place = Place(f"{part.logical_id} ({part.type})", given, warn=self.warn, line=part.line)
            made = authorizer_from(place, part.id, http=False)
            if made is not None:
                found.append(made)
        return found

    def _gateway_responses(self) -> list[ApiGatewayResponse]:
        found = []
        for part in self._all("GatewayResponse"):
            given = {name[:1].lower() + name[1:]: value for name, value in part.properties.items() if name != "RestApiId"}
            kind = str(given.pop("responseType", ""))
            place = Place(f"{part.logical_id} ({part.type})", given, warn=self.warn, line=part.line)
            found.append(gateway_response_from(place, kind))
        return found

    def _method(self, part: Part, validators: dict[str, tuple[bool, bool]]) -> ApiRoute:
        place = Place.of(part, self.warn)
        resource = place.text("ResourceId")
        place.ignore("RestApiId", "MethodResponses")
        if truth(place.take("ApiKeyRequired")):
            place.refuse("ApiKeyRequired", "API keys are not supported yet")
        place.not_yet("AuthorizationScopes")
        authorization = place.choice("AuthorizationType", ("NONE", "AWS_IAM", "CUSTOM", "COGNITO_USER_POOLS"), "NONE")
        if authorization == "COGNITO_USER_POOLS":
            place.refuse("AuthorizationType", "COGNITO_USER_POOLS is not supported yet")
            authorization = "NONE"
        validator = place.text("RequestValidatorId")
        if validator and validator not in validators:
            raise place.wrong("RequestValidatorId", f"{validator!r} is not a RequestValidator of this API")
        body, parameters = validators.get(validator, (False, False))
        given = place.take("Integration")
        if given is None:
            raise place.wrong("Integration", "is missing")
        inner = place.inner("Integration", opened(place.inner("Integration", given).given))
        route = ApiRoute(
            method=place.text("HttpMethod").upper(),
            path=self.paths.get(resource) or "/",
            integration=rest_integration(inner, self.asynchronous),
            resource_id=resource,
            required=tuple(name for name, wanted in place.take("RequestParameters", {}).items() if truth(wanted)),
            models=place.texts("RequestModels"),
            validate_body=body,
            validate_parameters=parameters,
            authorization="AWS_IAM" if authorization == "AWS_IAM" else "CUSTOM" if authorization == "CUSTOM" else "NONE",
            authorizer=place.text("AuthorizerId"),
            operation=place.text("OperationName"),
        )
        place.done()
        return route

    # stages

    def _stages(self, routes: tuple[ApiRoute, ...]) -> list[ApiStage]:
        found: dict[str, ApiStage] = {}
        for part in self._all("Deployment"):
            place = Place.of(part, self.warn)
            place.ignore("RestApiId", "Description")
            place.not_yet("DeploymentCanarySettings")
            name = place.text("StageName")
            described = place.take("StageDescription", {})
            if name:
                inner = place.inner("StageDescription", described)
                found[name] = self._stage(inner, name, part.id, routes)
            place.done()
        for part in self._all("Stage"):
            place = Place.of(part, self.warn)
            place.ignore("RestApiId", "Tags")
            name, deployment = place.text("StageName") or "default", place.text("DeploymentId")
            found[name] = self._stage(place, name, deployment, routes)
        return list(found.values())

    def _stage(self, place: Place, name: str, deployment: str, routes: tuple[ApiRoute, ...]) -> ApiStage:
        place.ignore("Description", "DocumentationVersion", "CacheClusterSize", "TracingEnabled", "MetricsEnabled", "Tags")
        place.ignore("CacheTtlInSeconds", "CacheDataEncrypted")
        place.not_yet("CacheClusterEnabled", "CachingEnabled", "CanarySetting", "ClientCertificateId")
        place.not_yet("DataTraceEnabled")
        if place.choice("LoggingLevel", ("OFF", "ERROR", "INFO"), "OFF") != "OFF":
            place.refuse("LoggingLevel", "execution logs are not supported yet")
        numbers = throttle_numbers(place)
        default = Throttle(rate=numbers[0], burst=numbers[1]) if numbers else None
        throttles: dict[str, Throttle] = {}
        for given in place.take("MethodSettings", []):
            inner = place.inner("MethodSettings", given)
            default = self._method_settings(inner, routes, throttles, default)
        group, form = access_log(place, "AccessLogSetting")
        if group and "$context.requestId" not in form and "$context.extendedRequestId" not in form:
            raise place.wrong("AccessLogSetting", "Format must contain $context.requestId or $context.extendedRequestId")
        stage = ApiStage(
            name=name,
            variables=place.texts("Variables"),
            throttle=default,
            throttles=throttles,
            deployment_id=deployment,
            access_log_group=group,
            access_log_format=form,
        )
        place.done()
        return stage

    @staticmethod
    def _method_settings(
        place: Place, routes: tuple[ApiRoute, ...], throttles: dict[str, Throttle], default: Throttle | None
    ) -> Throttle | None:
        place.ignore("MetricsEnabled", "CacheTtlInSeconds", "CacheDataEncrypted")
        place.not_yet("CachingEnabled", "DataTraceEnabled")
        if place.choice("LoggingLevel", ("OFF", "ERROR", "INFO"), "OFF") != "OFF":
            place.refuse("LoggingLevel", "execution logs are not supported yet")
        method, path = place.text("HttpMethod", "*").upper(), place.text("ResourcePath", "/*")
        path = "/" + path.lstrip("/").replace("~1", "/").lstrip("/")
        numbers = throttle_numbers(place)
        place.done()
        if numbers is None:
            return default
        made = Throttle(rate=numbers[0], burst=numbers[1])
        if path == "/*" and method == "*":
            return made
        for route in routes:
            if path in ("/*", route.path) and method in ("*", route.method):
                throttles[f"{route.method} {route.path}"] = made
        return default


_KNOWN: Final = frozenset(
    ("RestApi", "Resource", "Method", "Model", "RequestValidator", "Deployment", "Stage", "GatewayResponse", "Authorizer")
)


def _document(place: Place, given: Any) -> Any:
    """A document that may be JSON text."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise place.wrong("Body", f"is not JSON: {error}") from None
