"""AWS::ApiGatewayV2::* resources of a WebSocket API to an `ApiConfig`.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api.html
"""

from __future__ import annotations

from typing import Any, Final, Literal

from martlet.apps.apis.reading import V2, Part, PartsOfV2, Place, Warn, function_of, throttle_numbers, truth
from martlet.limits import LIMITS
from martlet.types import ApiAuthorizer, ApiConfig, ApiIntegration, ApiRoute, ApiStage, Throttle

__all__ = ["is_websocket", "websocket_api_from"]

_KNOWN: Final = frozenset(("Api", "Route", "RouteResponse", "Integration", "Stage", "Deployment", "Authorizer"))
_MS_MAX: Final = LIMITS["integration_ms_max"].default


def is_websocket(part: Part) -> bool:
    """Whether this is a WebSocket API's own resource."""
    return part.type == V2 + "Api" and str(part.properties.get("ProtocolType", "")).upper() == "WEBSOCKET"


def websocket_api_from(parts: list[Part], *, app: str = "", warn: Warn | None = None) -> ApiConfig:
    """The API of exactly one AWS::ApiGatewayV2::Api and the resources that belong to it.

    Raises `DeployFailed` naming the logical id, the property and the line; with `warn`, what is not honoured is said there.
    """
    return _Sockets(parts, app, warn).api()


class _Sockets(PartsOfV2):
    def api(self) -> ApiConfig:
        self._refuse_others(_KNOWN)
        place = Place.of(self.part, self.warn)
        name = place.text("Name")
        place.choice("ProtocolType", ("WEBSOCKET",), "")
        selection = place.text("RouteSelectionExpression")
        if not selection:
            raise place.wrong("RouteSelectionExpression", 'is missing, for example "$request.body.action"')
        place.ignore("Description", "Version", "Tags", "IpAddressType", "DisableSchemaValidation", "FailOnWarnings")
        place.ignore("ApiKeySelectionExpression")  # API keys are refused at the routes
        place.not_yet("Body", "BodyS3Location", "CorsConfiguration", "CredentialsArn", "RouteKey", "Target", "BasePath")
        disabled = place.flag("DisableExecuteApiEndpoint")
        place.done()
        integrations = {part.id: self._integration(part) for part in self._all("Integration")}
        return ApiConfig(
            id=self.part.id,
            name=name or self.part.logical_id,
            kind="websocket",
            app=self.app,
            selection=selection,
            disabled=disabled,
            routes=self._routes(integrations),
            authorizers=tuple(self._authorizer(part) for part in self._all("Authorizer")),
            stages=self._stages(),
        )

    def _integration(self, part: Part) -> ApiIntegration:
        place = Place.of(part, self.warn)
        place.ignore("ApiId", "Description", "IntegrationMethod", "CredentialsArn", "ConnectionId")
        place.not_yet("TlsConfig", "RequestParameters", "RequestTemplates", "TemplateSelectionExpression", "ResponseParameters")
        place.not_yet("IntegrationSubtype", "ContentHandlingStrategy")
        place.ignore(
            "PassthroughBehavior", "PayloadFormatVersion"
        )  # a proxy integration passes all, in the one format there is
        if place.choice("ConnectionType", ("INTERNET", "VPC_LINK"), "INTERNET") == "VPC_LINK":
            place.refuse("ConnectionType", "VPC_LINK is not supported yet")
        kind = place.choice("IntegrationType", ("AWS", "AWS_PROXY", "HTTP", "HTTP_PROXY", "MOCK"), "")
        if kind != "AWS_PROXY":
            raise place.wrong("IntegrationType", f"{kind} is not supported in WebSocket APIs yet: AWS_PROXY with a function is")
        integration = ApiIntegration(
            kind="AWS_PROXY",
            function=function_of(place, "IntegrationUri", place.text("IntegrationUri")),
            timeout_ms=place.whole("TimeoutInMillis", _MS_MAX, 50, _MS_MAX),
        )
        place.done()
        return integration

    def _routes(self, integrations: dict[str, ApiIntegration]) -> tuple[ApiRoute, ...]:
        responses = self._responses()
        found: dict[str, ApiRoute] = {}
        for part in self._all("Route"):
            route = self._route(part, integrations, part.id in responses)
            if route.path in found:
                raise Place.of(part, self.warn).wrong("RouteKey", f"{route.path!r} is another route's already")
            found[route.path] = route
        routes = {part.id for part in self._all("Route")}
        for id, place in responses.items():
            if id not in routes:
                raise place.wrong("RouteId", f"{id!r} is not a route of this API")
        return tuple(found.values())

    def _responses(self) -> dict[str, Place]:
        """Route responses by the id of their route."""
        found = {}
        for part in self._all("RouteResponse"):
            place = Place.of(part, self.warn)
            place.ignore("ApiId")
            place.not_yet("ModelSelectionExpression", "ResponseModels", "ResponseParameters")
            if place.text("RouteResponseKey") != "$default":
                raise place.wrong("RouteResponseKey", "must be $default")
            found[place.text("RouteId")] = place
            place.done()
        return found

    def _route(self, part: Part, integrations: dict[str, ApiIntegration], responds: bool) -> ApiRoute:
        place = Place.of(part, self.warn)
        place.ignore("ApiId", "OperationName")
        place.not_yet("RequestParameters", "RequestModels", "ModelSelectionExpression", "AuthorizationScopes")
        if truth(place.take("ApiKeyRequired")):
            place.refuse("ApiKeyRequired", "API keys are not supported yet")
        key = place.text("RouteKey")
        if not key or (key.startswith("$") and key not in ("$connect", "$disconnect", "$default")):
            raise place.wrong("RouteKey", f"{key!r} is neither $connect, $disconnect, $default nor a key of your own")
        said = place.choice("AuthorizationType", ("NONE", "AWS_IAM", "CUSTOM", "JWT"), "NONE")
        if said == "JWT":
            raise place.wrong("AuthorizationType", "JWT is for HTTP APIs")
        if said != "NONE" and key != "$connect":
            raise place.wrong("AuthorizationType", f"{said} is for the route $connect: a connection is authorized once")
        authorization: Literal["NONE", "AWS_IAM", "CUSTOM"] = (
            "NONE" if said == "NONE" else "AWS_IAM" if said == "AWS_IAM" else "CUSTOM"
        )
        selection = place.text("RouteResponseSelectionExpression")
        if selection not in ("", "$default"):
            raise place.wrong("RouteResponseSelectionExpression", "must be $default")
        target = place.text("Target").removeprefix("integrations/")
        if target not in integrations:
            raise place.wrong("Target", f"{target!r} is not an integration of this API")
        route = ApiRoute(
            method="",
            path=key,
            integration=integrations[target],
            resource_id=part.id,
            authorization=authorization,
            authorizer=place.text("AuthorizerId"),
            responds=responds and selection == "$default",
        )
        place.done()
        return route

    def _authorizer(self, part: Part) -> ApiAuthorizer:
        place = Place.of(part, self.warn)
        place.ignore("ApiId", "Name", "AuthorizerCredentialsArn")
        place.not_yet("IdentityValidationExpression", "JwtConfiguration", "EnableSimpleResponses")
        place.not_yet("AuthorizerPayloadFormatVersion", "AuthorizerResultTtlInSeconds")  # of HTTP APIs only
        if place.choice("AuthorizerType", ("REQUEST", "JWT"), "") != "REQUEST":
            raise place.wrong("AuthorizerType", "JWT is for HTTP APIs: WebSocket APIs have Lambda authorizers (REQUEST)")
        given = place.take("IdentitySource", [])
        sources = [given] if isinstance(given, str) else list(given)
        identity = []
        for source in sources:
            root, _, rest = str(source).partition(".")
            if root == "route" and rest.startswith(("request.header.", "request.querystring.")):
                identity.append(f"method.{rest}")
            elif root in ("context", "stageVariables") and rest:
                identity.append(str(source))
            else:
                raise place.wrong("IdentitySource", f"{source!r} is no route.request.header.NAME and the like")
        function = function_of(place, "AuthorizerUri", place.text("AuthorizerUri"))
        place.done()
        return ApiAuthorizer(name=part.id, kind="REQUEST", function=function, identity=tuple(identity), ttl_seconds=0)

    def _stages(self) -> tuple[ApiStage, ...]:
        found: dict[str, ApiStage] = {}
        for part in self._all("Deployment"):
            place = Place.of(part, self.warn)
            place.ignore("ApiId", "Description")
            name = place.text("StageName")
            if name:
                found[name] = ApiStage(name=name, deployment_id=part.id)
            place.done()
        for part in self._all("Stage"):
            place = Place.of(part, self.warn)
            place.ignore("ApiId", "AutoDeploy", "Description", "Tags", "AccessPolicyId")
            place.not_yet("ClientCertificateId", "AccessLogSettings")
            stage = self._stage(place)
            place.done()
            found[stage.name] = stage
        return tuple(found.values())

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
        name = place.text("StageName")
        if not name or name == "$default":
            raise place.wrong("StageName", "of a WebSocket API is a name of your own, such as prod")
        return ApiStage(
            name=name,
            variables=place.texts("StageVariables"),
            throttle=throttle("DefaultRouteSettings", place.take("DefaultRouteSettings", {})),
            throttles={key: found for key, found in settings.items() if found is not None},
            deployment_id=place.text("DeploymentId"),
        )
