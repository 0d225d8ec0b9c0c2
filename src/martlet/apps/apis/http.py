"""AWS::ApiGatewayV2::* resources to an `ApiConfig`: HTTP APIs here, WebSocket APIs in `websocket`.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_ApiGatewayV2.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from martlet.apps.apis.integrations import authorizer_from, http_integration
from martlet.apps.apis.openapi import cors_from, from_openapi, resource_id
from martlet.apps.apis.reading import Part, PartsOfV2, Place, Warn, access_log, function_of, throttle_numbers, truth
from martlet.apps.apis.websocket import is_websocket, websocket_api_from
from martlet.types import ApiAuthorizer, ApiConfig, ApiIntegration, ApiRoute, ApiStage, Throttle

__all__ = ["http_api_from"]

_KNOWN: Final = frozenset(("Api", "Route", "Integration", "Stage", "Deployment", "Authorizer"))
_INTEGRATION: Final = {
    "IntegrationType": "type",
    "IntegrationUri": "uri",
    "IntegrationMethod": "httpMethod",
    "PayloadFormatVersion": "payloadFormatVersion",
    "TimeoutInMillis": "timeoutInMillis",
    "RequestParameters": "requestParameters",
    "ResponseParameters": "responseParameters",
    "ConnectionType": "connectionType",
    "ConnectionId": "connectionId",
    "CredentialsArn": "credentials",
    "IntegrationSubtype": "integrationSubtype",
    "TlsConfig": "tlsConfig",
    "PassthroughBehavior": "passthroughBehavior",
    "Description": "description",
}
_AUTHORIZER: Final = {
    "AuthorizerType": "type",
    "AuthorizerUri": "authorizerUri",
    "AuthorizerCredentialsArn": "authorizerCredentials",
    "AuthorizerPayloadFormatVersion": "authorizerPayloadFormatVersion",
    "AuthorizerResultTtlInSeconds": "authorizerResultTtlInSeconds",
    "EnableSimpleResponses": "enableSimpleResponses",
    "IdentitySource": "identitySource",
    "IdentityValidationExpression": "identityValidationExpression",
    "JwtConfiguration": "jwtConfiguration",
}


def http_api_from(parts: Iterable[Part], *, app: str = "", warn: Warn | None = None) -> ApiConfig:
    """The API of exactly one AWS::ApiGatewayV2::Api and the resources that belong to it.

    Raises `DeployFailed` naming the logical id, the property and the line; with `warn`, what is not honoured is said there.
    """
    given = list(parts)
    if any(is_websocket(part) for part in given):
        return websocket_api_from(given, app=app, warn=warn)
    return _Http(given, app, warn).api()


class _Http(PartsOfV2):
    def api(self) -> ApiConfig:
        self._refuse_others(_KNOWN)
        base, quick = self._base()
        integrations = {part.id: self._integration(part) for part in self._all("Integration")}
        authorizers = (*base.authorizers, *self._authorizers())
        routes = (*base.routes, *quick, *(self._route(part, integrations) for part in self._all("Route")))
        stages = {stage.name: stage for stage in self._stages()}
        if quick and "$default" not in stages:
            stages["$default"] = ApiStage(name="$default")
        return msgspec.structs.replace(base, routes=routes, authorizers=authorizers, stages=tuple(stages.values()))

    def _base(self) -> tuple[ApiConfig, list[ApiRoute]]:
        place = Place.of(self.part, self.warn)
        name = place.text("Name")
        place.choice("ProtocolType", ("HTTP", "WEBSOCKET"), "HTTP")
        place.ignore("Description", "Version", "Tags", "FailOnWarnings", "BasePath", "IpAddressType", "DisableSchemaValidation")
        place.ignore("ApiKeySelectionExpression", "RouteSelectionExpression", "CredentialsArn")
        place.not_yet("BodyS3Location")
        body, cors = place.take("Body"), place.take("CorsConfiguration")
        disabled = place.flag("DisableExecuteApiEndpoint")
        quick = self._quick(place)
        place.done()
        base = ApiConfig(id=self.part.id, name=name or self.part.logical_id, kind="http", app=self.app)
        if body is not None:
            if isinstance(body, str):
                try:
                    body = json.loads(body)
                except ValueError as error:
                    raise place.wrong("Body", f"is not JSON: {error}") from None
            where = f"{place.name} Body"
            base = from_openapi(body, "http", id=self.part.id, name=name, app=self.app, warn=self.warn, where=where)
        own = cors_from(place.inner("CorsConfiguration", cors)) if cors else base.cors
        return msgspec.structs.replace(base, cors=own, disabled=disabled or base.disabled), quick

    @staticmethod
    def _quick(place: Place) -> list[ApiRoute]:
        """Quick create: one route to one target, served by the stage $default."""
        target, key = place.text("Target"), place.text("RouteKey", "$default")
        if not target:
            return []
        if target.startswith(("http://", "https://")):
            integration = ApiIntegration(kind="HTTP_PROXY", uri=target, timeout_ms=30_000)
        else:
            function = function_of(place, "Target", target)
            integration = ApiIntegration(kind="AWS_PROXY", function=function, payload_format="2.0", timeout_ms=30_000)
        method, path = _key(place, key)
        return [ApiRoute(method=method, path=path, integration=integration, resource_id=resource_id(path))]

    def _integration(self, part: Part) -> ApiIntegration:
        given = {_INTEGRATION.get(name, name): value for name, value in part.properties.items() if name != "ApiId"}
        return http_integration(Place(f"{part.logical_id} ({part.type})", given, warn=self.warn, line=part.line))

    def _authorizers(self) -> list[ApiAuthorizer]:
        found = []
        for part in self._all("Authorizer"):
            given = {_AUTHORIZER.get(name, name): value for name, value in part.properties.items()}
            given = {name: value for name, value in given.items() if name not in ("ApiId", "Name")}
            place = Place(f"{part.logical_id} ({part.type})", given, warn=self.warn, line=part.line)
            made = authorizer_from(place, part.id, http=True)
            if made is not None:
                found.append(made)
        return found

    def _route(self, part: Part, integrations: dict[str, ApiIntegration]) -> ApiRoute:
        place = Place.of(part, self.warn)
        place.ignore("ApiId", "OperationName", "RouteResponseSelectionExpression", "ModelSelectionExpression")
        place.not_yet("RequestParameters", "RequestModels")
        if truth(place.take("ApiKeyRequired")):
            place.refuse("ApiKeyRequired", "API keys are not supported yet")
        authorization = place.choice("AuthorizationType", ("NONE", "AWS_IAM", "CUSTOM", "JWT"), "NONE")
        scopes = place.listed("AuthorizationScopes")
        if scopes and authorization != "JWT":
            place.refuse("AuthorizationScopes", "needs the AuthorizationType JWT")
        target = place.text("Target").removeprefix("integrations/")
        if target not in integrations:
            raise place.wrong("Target", f"{target!r} is not an integration of this API")
        method, path = _key(place, place.text("RouteKey"))
        kind: Literal["NONE", "AWS_IAM", "CUSTOM"] = "NONE"
        if authorization != "NONE":
            kind = "AWS_IAM" if authorization == "AWS_IAM" else "CUSTOM"
        route = ApiRoute(
            method=method,
            path=path,
            integration=integrations[target],
            resource_id=part.id,
            authorization=kind,
            authorizer=place.text("AuthorizerId"),
            scopes=scopes,
        )
        place.done()
        return route

    def _stages(self) -> list[ApiStage]:
        found = []
        for part in self._all("Deployment"):
            place = Place.of(part, self.warn)
            place.ignore("ApiId", "Description", "StageName")
            place.done()
        for part in self._all("Stage"):
            place = Place.of(part, self.warn)
            place.ignore("ApiId", "AutoDeploy", "Description", "Tags", "AccessPolicyId")
            place.not_yet("ClientCertificateId")
            found.append(self._stage(place))
            place.done()
        return found

    @staticmethod
    def _stage(place: Place) -> ApiStage:
        def throttle(key: str, given: Any) -> Throttle | None:
            inner = place.inner(key, given)
            inner.ignore("DetailedMetricsEnabled")
            inner.not_yet("DataTraceEnabled")
            if inner.choice("LoggingLevel", ("OFF", "ERROR", "INFO"), "OFF") != "OFF":
                inner.refuse("LoggingLevel", "execution logs are not supported yet")
            numbers = throttle_numbers(inner)
            inner.done()
            return Throttle(rate=numbers[0], burst=numbers[1]) if numbers else None

        settings = {key: throttle(f"RouteSettings {key}", given) for key, given in place.take("RouteSettings", {}).items()}
        group, form = access_log(place, "AccessLogSettings")
        return ApiStage(
            name=place.text("StageName"),
            access_log_group=group,
            access_log_format=form,
            variables=place.texts("StageVariables"),
            throttle=throttle("DefaultRouteSettings", place.take("DefaultRouteSettings", {})),
            throttles={key: found for key, found in settings.items() if found is not None},
            deployment_id=place.text("DeploymentId"),
        )


def _key(place: Place, key: str) -> tuple[str, str]:
    """ "GET /pets/{id}" or "$default" as method and path."""
    if key == "$default":
        return "ANY", "$default"
    method, _, path = key.partition(" ")
    if not path.startswith("/") or not method.isalpha():
        raise place.wrong("RouteKey", f'{key!r} is neither "$default" nor "METHOD /path"')
    return method.upper(), path
