"""Integrations and authorizers in their two spellings: OpenAPI's extensions (camelCase) and CloudFormation's properties."""

from __future__ import annotations

from typing import Any, Final, cast

from martlet.apps.apis.reading import Place, function_of, service_of
from martlet.limits import LIMITS
from martlet.types import ApiAuthorizer, ApiIntegration, ApiIntegrationResponse, ContentHandling

__all__ = ["authorizer_from", "http_integration", "rest_integration"]

_MS_MAX: Final = LIMITS["integration_ms_max"].default  # HTTP APIs have a second more
_KINDS: Final = ("AWS_PROXY", "AWS", "MOCK", "HTTP", "HTTP_PROXY")
_PASSTHROUGH: Final = ("WHEN_NO_MATCH", "WHEN_NO_TEMPLATES", "NEVER")
_HANDLING: Final = ("", "CONVERT_TO_TEXT", "CONVERT_TO_BINARY")
_INVOCATION_TYPE: Final = "integration.request.header.x-amz-invocation-type"
_SUBTYPES: Final = {
    "EventBridge-PutEvents": ("events", "PutEvents"),
    "SQS-DeleteMessage": ("sqs", "DeleteMessage"),
    "SQS-PurgeQueue": ("sqs", "PurgeQueue"),
    "SQS-ReceiveMessage": ("sqs", "ReceiveMessage"),
    "SQS-SendMessage": ("sqs", "SendMessage"),
}
_OPEN: Final = {  # CloudFormation's name → OpenAPI's
    "Type": "type",
    "Uri": "uri",
    "IntegrationHttpMethod": "httpMethod",
    "RequestParameters": "requestParameters",
    "RequestTemplates": "requestTemplates",
    "PassthroughBehavior": "passthroughBehavior",
    "ContentHandling": "contentHandling",
    "TimeoutInMillis": "timeoutInMillis",
    "CacheKeyParameters": "cacheKeyParameters",
    "CacheNamespace": "cacheNamespace",
    "Credentials": "credentials",
    "ConnectionType": "connectionType",
    "ConnectionId": "connectionId",
    "ResponseTransferMode": "responseTransferMode",
    "IntegrationTarget": "integrationTarget",
}


def opened(given: dict[str, Any]) -> dict[str, Any]:
    """CloudFormation's Integration as OpenAPI would write it; responses become a list of (pattern, response)."""
    found = {_OPEN.get(name, name): value for name, value in given.items() if name != "IntegrationResponses"}
    responses = []
    for response in given.get("IntegrationResponses") or ():
        if isinstance(response, dict):
            inner = {name[:1].lower() + name[1:]: value for name, value in response.items()}
            responses.append((str(inner.pop("selectionPattern", None) or ""), inner))
    found["responses"] = responses
    return found


def rest_integration(place: Place, asynchronous: bool) -> ApiIntegration:
    """A REST API's integration from OpenAPI's spelling (`opened` for CloudFormation's)."""
    kind = place.choice("type", _KINDS, "")
    uri = place.text("uri")
    service, call = service_of(place, "uri", uri) if kind == "AWS" else ("", "")
    function = function_of(place, "uri", uri) if kind in ("AWS", "AWS_PROXY") and not service else ""
    credentials = place.text("credentials")
    if service and not credentials:
        raise place.wrong("credentials", f"is missing: the role that may call {service}")
    place.ignore("cacheKeyParameters", "cacheNamespace")
    if place.choice("connectionType", ("INTERNET", "VPC_LINK"), "INTERNET") == "VPC_LINK":
        place.refuse("connectionType", "VPC_LINK is not supported yet")
    place.ignore("connectionId")
    if place.choice("responseTransferMode", ("BUFFERED", "STREAM"), "BUFFERED") == "STREAM":
        place.refuse("responseTransferMode", "STREAM is not supported yet")
    place.not_yet("tlsConfig", "integrationTarget", "integrationSubtype")
    place.ignore("payloadFormatVersion")  # REST APIs have only 1.0
    parameters = place.texts("requestParameters")
    event = any(name.lower() == _INVOCATION_TYPE and value == "'Event'" for name, value in parameters.items())
    if event and not asynchronous:
        place.refuse("requestParameters", "X-Amz-Invocation-Type 'Event' is not supported yet")
    integration = ApiIntegration(
        kind=cast(Any, "SERVICE" if service else kind),
        function=function,
        uri=call if service else uri if kind in ("HTTP", "HTTP_PROXY") else "",
        service=service,
        credentials=credentials if service else "",
        method=place.text("httpMethod").upper(),
        parameters=parameters,
        templates=place.texts("requestTemplates"),
        passthrough=cast(Any, place.choice("passthroughBehavior", _PASSTHROUGH, "WHEN_NO_MATCH")),
        content_handling=cast(ContentHandling, place.choice("contentHandling", _HANDLING, "")),
        timeout_ms=place.whole("timeoutInMillis", _MS_MAX, 50, _MS_MAX),
        asynchronous=event and asynchronous and kind == "AWS",
        responses=_responses(place),
    )
    place.done()
    return integration


def _responses(place: Place) -> tuple[ApiIntegrationResponse, ...]:
    given = place.take("responses", {})
    pairs = given if isinstance(given, list) else list(given.items()) if isinstance(given, dict) else None
    if pairs is None:
        raise place.wrong("responses", "is not an object")
    found = []
    for pattern, response in pairs:
        inner = place.inner(f"responses.{pattern or 'default'}", response)
        handling = inner.choice("contentHandling", _HANDLING, "")
        found.append(
            ApiIntegrationResponse(
                status=inner.whole("statusCode", 200, 100, 599),
                pattern="" if pattern == "default" else pattern,
                parameters=inner.texts("responseParameters"),
                templates=inner.texts("responseTemplates"),
                content_handling=cast(ContentHandling, handling),
            )
        )
        inner.done()
    return tuple(found)


def http_integration(place: Place) -> ApiIntegration:
    """An HTTP API's integration from OpenAPI's spelling."""
    kind = place.choice("type", ("AWS_PROXY", "HTTP_PROXY"), "")
    place.not_yet("tlsConfig", "templateSelectionExpression")
    if place.choice("connectionType", ("INTERNET", "VPC_LINK"), "INTERNET") == "VPC_LINK":
        place.refuse("connectionType", "VPC_LINK is not supported yet")
    place.ignore("connectionId", "passthroughBehavior", "description")
    if place.take("integrationSubtype"):
        return _service_integration(place)
    place.ignore("credentials")
    uri = place.text("uri")
    function = function_of(place, "uri", uri) if kind == "AWS_PROXY" else ""
    parameters = place.texts("requestParameters")
    if parameters and kind == "AWS_PROXY":
        place.refuse("requestParameters", "of a function's integration are not supported yet")
        parameters = {}
    integration = ApiIntegration(
        kind=cast(Any, kind),
        function=function,
        uri=uri if kind == "HTTP_PROXY" else "",
        method=place.text("httpMethod").upper(),
        payload_format=cast(Any, place.choice("payloadFormatVersion", ("1.0", "2.0"), "1.0")),
        parameters=parameters,
        timeout_ms=place.whole("timeoutInMillis", _MS_MAX + 1_000, 50, _MS_MAX + 1_000),
        response_parameters=_response_parameters(place),
    )
    place.done()
    return integration


def _service_integration(place: Place) -> ApiIntegration:
    """An HTTP API's integration with a service: `requestParameters` are the operation's members."""
    subtype = place.text("integrationSubtype")
    service, operation = _SUBTYPES.get(subtype, ("", ""))
    if not service:
        place.refuse("integrationSubtype", f"{subtype} is not supported: {', '.join(sorted(_SUBTYPES))} are")
    place.ignore("uri", "httpMethod", "payloadFormatVersion")
    credentials = place.text("credentials")
    if not credentials:
        raise place.wrong("credentials", "is missing: the role by which the call is made")
    integration = ApiIntegration(
        kind="SERVICE",
        service=service,
        uri=f"action/{operation}",
        credentials=credentials,
        parameters=place.texts("requestParameters"),
        timeout_ms=place.whole("timeoutInMillis", _MS_MAX + 1_000, 50, _MS_MAX + 1_000),
        response_parameters=_response_parameters(place),
    )
    place.done()
    return integration


def _response_parameters(place: Place) -> dict[str, dict[str, str]]:
    given = place.take("responseParameters", {})
    if not isinstance(given, dict):
        raise place.wrong("responseParameters", "is not an object")
    found: dict[str, dict[str, str]] = {}
    for status, mapping in given.items():
        if isinstance(mapping, dict) and isinstance(mapping.get("ResponseParameters"), list):  # CloudFormation's
            found[str(status)] = {
                str(one.get("Destination")): str(one.get("Source"))
                for one in mapping["ResponseParameters"]
                if isinstance(one, dict)
            }
        else:
            found[str(status)] = place.inner("responseParameters", given).texts(status)
    return found


def _jwt_authorizer(place: Place, name: str) -> ApiAuthorizer:
    given = place.take("jwtConfiguration") or {}
    inner = place.inner("jwtConfiguration", {str(key)[:1].lower() + str(key)[1:]: one for key, one in given.items()})
    issuer, audience = inner.text("issuer"), inner.take("audience", [])
    inner.done()
    if not issuer.startswith(("https://", "http://")):
        raise inner.wrong("issuer", f"{issuer[:200]!r} is not a URL")
    listed = [audience] if isinstance(audience, str) else audience
    if not listed or not all(isinstance(one, str) and one for one in listed):
        raise inner.wrong("audience", "must be a list of at least one text")
    source = place.take("identitySource", "$request.header.Authorization")
    sources = [source] if isinstance(source, str) else list(source)
    if len(sources) != 1 or not str(sources[0]).startswith(("$request.header.", "$request.querystring.")):
        raise place.wrong("identitySource", "must be one of $request.header.NAME and $request.querystring.NAME")
    place.done()
    return ApiAuthorizer(name=name, kind="JWT", identity=(str(sources[0]),), issuer=issuer, audience=tuple(listed))


def authorizer_from(place: Place, name: str, http: bool) -> ApiAuthorizer | None:
    """An authorizer from OpenAPI's x-amazon-apigateway-authorizer; None for a kind that was refused."""
    kind = place.text("type", "request").upper()
    if kind == "JWT" and http:
        return _jwt_authorizer(place, name)
    if kind not in ("TOKEN", "REQUEST"):
        place.refuse("type", f"{kind!r} is not supported yet: Lambda authorizers (TOKEN, REQUEST) are")
        return None
    place.ignore("authorizerCredentials", "authType")
    source = place.take("identitySource", ())
    listed = [part.strip() for part in source.split(",")] if isinstance(source, str) else [str(part) for part in source]
    version = place.choice("authorizerPayloadFormatVersion", ("1.0", "2.0"), "2.0" if http else "1.0") if http else "1.0"
    authorizer = ApiAuthorizer(
        name=name,
        kind=cast(Any, kind),
        function=function_of(place, "authorizerUri", place.text("authorizerUri")),
        identity=tuple(part for part in listed if part),
        ttl_seconds=place.whole("authorizerResultTtlInSeconds", 0 if http else 300, 0, 3600),
        validation=place.text("identityValidationExpression"),
        payload_format=cast(Any, version),
        simple=place.flag("enableSimpleResponses"),
    )
    if authorizer.simple and version != "2.0":
        raise place.wrong("enableSimpleResponses", "needs authorizerPayloadFormatVersion 2.0")
    place.done()
    return authorizer
