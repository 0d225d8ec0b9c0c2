"""OpenAPI 2 and 3 with API Gateway's extensions, to an `ApiConfig` without stages.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions.html
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from martlet.apps.apis.integrations import authorizer_from, http_integration, rest_integration
from martlet.apps.apis.reading import Place, Warn
from martlet.errors import DeployFailed
from martlet.types import ApiAuthorizer, ApiConfig, ApiGatewayResponse, ApiRoute, Cors

__all__ = ["cors_from", "from_openapi", "gateway_response_from"]

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_ANY: Final = "x-amazon-apigateway-any-method"
_INTEGRATION: Final = "x-amazon-apigateway-integration"
_VALIDATOR: Final = "x-amazon-apigateway-request-validator"
_JSON: Final = "application/json"
_PLACES: Final = {"header": "header", "query": "querystring", "path": "path"}
_TAKEN: Final = frozenset(
    (
        "x-amazon-apigateway-request-validators", _VALIDATOR, "x-amazon-apigateway-gateway-responses",
        "x-amazon-apigateway-binary-media-types", "x-amazon-apigateway-cors", "x-amazon-apigateway-endpoint-configuration",
        "x-amazon-apigateway-api-key-source", "x-amazon-apigateway-importexport-version",
        "x-amazon-apigateway-documentation", "x-amazon-apigateway-tag-value", "x-amazon-apigateway-security-policy",
    )
)  # fmt: skip
_KINDS: Final = frozenset(
    (
        "ACCESS_DENIED", "API_CONFIGURATION_ERROR", "AUTHORIZER_CONFIGURATION_ERROR", "AUTHORIZER_FAILURE",
        "BAD_REQUEST_BODY", "BAD_REQUEST_PARAMETERS", "DEFAULT_4XX", "DEFAULT_5XX", "EXPIRED_TOKEN", "INTEGRATION_FAILURE",
        "INTEGRATION_TIMEOUT", "INVALID_API_KEY", "INVALID_SIGNATURE", "MISSING_AUTHENTICATION_TOKEN", "QUOTA_EXCEEDED",
        "REQUEST_TOO_LARGE", "RESOURCE_NOT_FOUND", "THROTTLED", "UNAUTHORIZED", "UNSUPPORTED_MEDIA_TYPE", "WAF_FILTERED",
    )
)  # fmt: skip


def from_openapi(
    body: Any,
    kind: Literal["rest", "http"],
    *,
    id: str,
    name: str = "",
    app: str = "",
    asynchronous: bool = False,
    warn: Warn | None = None,
    where: str = "OpenAPI document",
) -> ApiConfig:
    """The API that the document `body` describes, without stages. `asynchronous`: events can be queued for functions.

    Raises `DeployFailed` naming path, method and property for what is malformed or not honoured.
    """
    if not isinstance(body, dict) or not ("swagger" in body or "openapi" in body):
        raise DeployFailed(f"{where}: is not an OpenAPI document of version 2 or 3", resource=where)
    return _Document(body, kind, asynchronous, warn, where).api(id, name, app)


class _Document:
    """One document being read."""

    def __init__(self, body: dict[str, Any], kind: str, asynchronous: bool, warn: Warn | None, where: str) -> None:
        self.body = body
        self.http = kind == "http"
        self.kind = kind
        self.asynchronous = asynchronous
        self.top = Place(where, body, warn=warn)
        self.warn = warn
        self.where = where
        self.models = dict(self._section("definitions", "schemas"))
        self.authorizers: dict[str, ApiAuthorizer] = {}
        self.signed: set[str] = set()
        self.schemes = self._section("securityDefinitions", "securitySchemes")
        self.validators = self._validators()

    def _section(self, old: str, new: str) -> dict[str, Any]:
        components = self.body.get("components")
        found = self.body.get(old) or (components.get(new) if isinstance(components, dict) else None) or {}
        if not isinstance(found, dict):
            raise self.top.wrong(old if old in self.body else f"components.{new}", "is not an object")
        return found

    def api(self, id: str, name: str, app: str) -> ApiConfig:
        for key in self.body:
            if key.startswith("x-amazon-apigateway-") and key not in _TAKEN:
                self.top.refuse(key)
        if self.body.get("x-amazon-apigateway-api-key-source") not in (None, "HEADER"):
            self.top.refuse("x-amazon-apigateway-api-key-source")
        endpoint = self.body.get("x-amazon-apigateway-endpoint-configuration") or {}
        if endpoint.get("vpcEndpointIds"):
            self.top.refuse("x-amazon-apigateway-endpoint-configuration.vpcEndpointIds")
        self._read_schemes()
        info = self.body.get("info")
        title = info.get("title") if isinstance(info, dict) else None
        cors = self.body.get("x-amazon-apigateway-cors")
        routes = tuple(self._routes())
        return ApiConfig(
            id=id,
            name=name or str(title or id),
            kind="http" if self.http else "rest",
            app=app,
            routes=routes,
            models=self.models,
            authorizers=tuple(self.authorizers.values()),
            responses=tuple(self._gateway_responses()),
            binary_media_types=() if self.http else self.top.listed("x-amazon-apigateway-binary-media-types"),
            cors=cors_from(self.top.inner("x-amazon-apigateway-cors", cors)) if cors and self.http else None,
            disabled=endpoint.get("disableExecuteApiEndpoint") is True,
        )

    def _validators(self) -> dict[str, tuple[bool, bool]]:
        given = self.top.take("x-amazon-apigateway-request-validators", {})
        found: dict[str, tuple[bool, bool]] = {}
        for name in self.top.inner("x-amazon-apigateway-request-validators", given).given:
            place = self.top.inner(f"validator {name}", given[name])
            found[name] = (place.flag("validateRequestBody"), place.flag("validateRequestParameters"))
            place.done()
        return found

    def _gateway_responses(self) -> list[ApiGatewayResponse]:
        given = self.top.take("x-amazon-apigateway-gateway-responses", {})
        found = []
        for kind, response in given.items() if isinstance(given, dict) else ():
            place = self.top.inner(f"gateway response {kind}", response)
            found.append(gateway_response_from(place, kind))
        return found

    def _read_schemes(self) -> None:
        for name, scheme in self.schemes.items():
            place = self.top.inner(f"security scheme {name}", scheme)
            given = place.take("x-amazon-apigateway-authorizer")
            if given is None:
                if place.take("x-amazon-apigateway-authtype") == "awsSigv4":
                    self.signed.add(name)
                continue
            if not isinstance(given, dict):
                raise place.wrong("x-amazon-apigateway-authorizer", "is not an object")
            if place.take("x-amazon-apigateway-authtype") == "cognito_user_pools":
                given = {**given, "type": "cognito_user_pools"}
            if given.get("type", "").lower() == "token" and not given.get("identitySource"):
                given = {**given, "identitySource": f"method.request.header.{place.text('name', 'Authorization')}"}
            made = authorizer_from(place.inner("authorizer", given), name, self.http)
            if made is not None:
                self.authorizers[name] = made

    # routes

    def _routes(self) -> list[ApiRoute]:
        paths = self.body.get("paths", {})
        if not isinstance(paths, dict):
            raise self.top.wrong("paths", "is not an object")
        found = []
        for path, item in paths.items():
            if not isinstance(item, dict):
                raise self.top.wrong(f"paths.{path}", "is not an object")
            common = item.get("parameters") or []
            for method, operation in item.items():
                if method.lower() in _METHODS or method == _ANY:
                    word = "ANY" if method == _ANY else method.upper()
                    route = self._route(str(path), word, operation, common)
                    if route is not None:
                        found.append(route)
                elif method.startswith("x-amazon-apigateway-"):
                    self.top.refuse(f"paths.{path}.{method}")
        return found

    def _route(self, path: str, method: str, operation: Any, common: list[Any]) -> ApiRoute | None:
        place = Place(f"{self.where}: {method} {path}", operation, warn=self.warn)
        given = self._resolved(place.take(_INTEGRATION))
        if given is None:
            place.refuse(_INTEGRATION, "is missing: the method has no integration")
            return None
        inner = place.inner("integration", given)
        integration = http_integration(inner) if self.http else rest_integration(inner, self.asynchronous)
        parameters = [self._resolved(one) for one in (*common, *(place.take("parameters") or ()))]
        required, models = self._request(place, parameters)
        body, checked = self._validation(place)
        authorization, authorizer, scopes = self._authorization(place)
        for key in operation:
            if key.startswith("x-amazon-apigateway-") and key not in place.taken:
                place.refuse(key)
        default = self.http and (place.take("isDefaultRoute") is True or path == "/$default")
        return ApiRoute(
            method="ANY" if default else method,
            path="$default" if default else path,
            integration=integration,
            resource_id=resource_id(path),
            required=required,
            models=models,
            validate_body=body,
            validate_parameters=checked,
            authorization=authorization,
            authorizer=authorizer,
            scopes=scopes,
            operation=str(place.take("operationId", "")),
        )

    def _resolved(self, value: Any) -> Any:
        """A local `$ref` followed."""
        if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
            return value
        target: Any = self.body
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        if target is None:
            raise self.top.wrong("$ref", f"{value['$ref']!r} leads nowhere")
        return target

    def _request(self, place: Place, parameters: list[Any]) -> tuple[tuple[str, ...], dict[str, str]]:
        """Required parameters, in API Gateway's names, and models by media type."""
        required: list[str] = []
        models: dict[str, str] = {}
        consumes = place.take("consumes") or self.body.get("consumes") or [_JSON]
        for one in parameters:
            if not isinstance(one, dict):
                raise place.wrong("parameters", "holds something that is not an object")
            where, name = one.get("in"), one.get("name")
            if where == "body":
                for media in consumes:
                    models[str(media)] = self._model(place, one.get("schema"))
            elif where in _PLACES and one.get("required") is True:
                required.append(f"method.request.{_PLACES[where]}.{name}")
        request_body = self._resolved(place.take("requestBody"))
        content = request_body.get("content") if isinstance(request_body, dict) else None
        for media, item in (content or {}).items():
            if isinstance(item, dict) and item.get("schema") is not None:
                models[str(media)] = self._model(place, item["schema"])
        return tuple(dict.fromkeys(required)), models

    def _model(self, place: Place, schema: Any) -> str:
        """The name of a schema; one without a name gets one."""
        if not isinstance(schema, dict):
            raise place.wrong("schema", "is not an object")
        reference = schema.get("$ref")
        if isinstance(reference, str) and len(schema) == 1:
            name = reference.rpartition("/")[2]
            if name in self.models:
                return name
        name = f"Model{len(self.models)}of{place.name.rpartition(' ')[2]}"
        self.models[name] = schema
        return name

    def _validation(self, place: Place) -> tuple[bool, bool]:
        name = place.take(_VALIDATOR) or self.body.get(_VALIDATOR)
        if name is None:
            return False, False
        if name not in self.validators:
            raise place.wrong(_VALIDATOR, f"names {name!r}, which is not declared")
        return self.validators[name]

    def _authorization(self, place: Place) -> tuple[Literal["NONE", "AWS_IAM", "CUSTOM"], str, tuple[str, ...]]:
        own = place.take("x-amazon-apigateway-auth")
        kind = str(own.get("type", "")).upper() if isinstance(own, dict) else ""
        if kind == "NONE":
            return "NONE", "", ()
        if kind == "AWS_IAM":
            return "AWS_IAM", "", ()
        security = place.take("security")
        if security is None:
            security = self.body.get("security") or []
        for requirement in security:
            for name, scopes in requirement.items() if isinstance(requirement, dict) else ():
                if name in self.signed:
                    return "AWS_IAM", "", ()
                if name in self.authorizers:
                    if scopes and self.authorizers[name].kind != "JWT":
                        place.refuse("security", f"{name}: scopes are for JWT authorizers")
                    return "CUSTOM", name, tuple(str(one) for one in scopes or ())
                if name not in self.schemes:
                    raise place.wrong("security", f"names {name!r}, which is not declared")
                if "x-amazon-apigateway-authorizer" not in self.schemes[name]:
                    kind = str(self.schemes[name].get("type"))
                    if kind == "apiKey":
                        place.refuse("security", f"{name}: API keys are not supported yet")
        return "NONE", "", ()


def resource_id(path: str) -> str:
    """A stable id for a path that a document, not a resource, declared: six letters and digits, as the service makes them."""
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    value = 0
    for character in path:
        value = (value * 131 + ord(character)) % 36**6
    digits = ""
    for _ in range(6):
        value, digit = divmod(value, 36)
        digits += alphabet[digit]
    return digits


def gateway_response_from(place: Place, kind: str) -> ApiGatewayResponse:
    """A gateway response in OpenAPI's spelling."""
    if kind not in _KINDS:
        raise place.wrong("", f"{kind!r} is not a type of gateway response")
    status = place.take("statusCode")
    made = ApiGatewayResponse(
        kind=kind,
        status=place.whole("statusCode", 0, 100, 599) if status is not None else None,
        parameters=place.texts("responseParameters"),
        templates=place.texts("responseTemplates"),
    )
    place.done()
    return made


def cors_from(place: Place) -> Cors:
    """CORS in either spelling: x-amazon-apigateway-cors or CorsConfiguration."""

    def listed(name: str) -> tuple[str, ...]:
        return place.listed(name) or place.listed(name[0].upper() + name[1:])

    made = Cors(
        origins=listed("allowOrigins"),
        methods=listed("allowMethods"),
        headers=listed("allowHeaders"),
        expose=listed("exposeHeaders"),
        credentials=place.flag("allowCredentials") or place.flag("AllowCredentials"),
        max_age_seconds=max(place.whole("maxAge", 0, -1, 86_400), place.whole("MaxAge", 0, -1, 86_400)),
    )
    place.done()
    return msgspec.structs.replace(made, max_age_seconds=max(0, made.max_age_seconds))
