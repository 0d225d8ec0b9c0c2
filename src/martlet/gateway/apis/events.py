"""Events for functions behind APIs and function URLs: payload formats 1.0 and 2.0, and those of authorizers.

Shapes as recorded from the real service; `null` where it has null, absent where it has nothing.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from martlet.gateway.apis.call import Call
from martlet.gateway.payload import body_text, clf_time
from martlet.types import ACCOUNT

__all__ = ["authorizer_v1", "authorizer_v2", "event_rest", "event_v1", "event_v2", "token_event"]


def event_rest(call: Call, deployment_id: str, binary: bool) -> bytes:
    """Format 1.0 of a REST API. `binary`: the body's media type is one of the API's binary ones."""
    event = _one(call)
    context = event["requestContext"]
    if deployment_id:
        context["deploymentId"] = deployment_id
    body = call.request.body
    event["body"] = None if not body else base64.b64encode(body).decode("ascii") if binary else body.decode("utf-8", "replace")
    event["isBase64Encoded"] = bool(binary and body)
    return orjson.dumps(event)


def _one(call: Call) -> dict[str, Any]:
    many, query = call.many_headers, call.query
    return {
        "resource": call.resource,
        "path": call.path,
        "httpMethod": call.request.method,
        "headers": {name: values[-1] for name, values in many.items()},
        "multiValueHeaders": many,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": call.params or None,
        "stageVariables": call.variables or None,
        "requestContext": call.context(),
    }


def event_v1(call: Call, route_key: str) -> bytes:
    """Format 1.0 of an HTTP API."""
    event = {"version": "1.0", **_one(call)}
    context = event["requestContext"]
    context["extendedRequestId"] = context["requestId"] = call.extended_id
    context["resourceId"] = route_key
    context["resourcePath"] = event["resource"]
    event["path"] = call.full_path
    body, encoded = body_text(call.request) if call.request.body else (None, False)
    event["body"] = body
    event["isBase64Encoded"] = encoded
    return orjson.dumps(event)


def event_v2(
    call: Call, route_key: str, request_id: str, *, account: str = ACCOUNT, authorizer: dict[str, Any] | None = None
) -> bytes:
    """Format 2.0, of HTTP APIs and function URLs."""
    event = _two(call, route_key, request_id, account)
    if authorizer:
        event["requestContext"]["authorizer"] = authorizer
    if call.request.body:
        event["body"], event["isBase64Encoded"] = body_text(call.request)
    else:
        event["isBase64Encoded"] = False
    return orjson.dumps(event)


def _two(call: Call, route_key: str, request_id: str, account: str) -> dict[str, Any]:
    request = call.request
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name, values in call.many_headers.items():
        low = name.lower()
        if low == "cookie":
            cookies += [pair for value in values for part in value.split(";") if (pair := part.strip())]
        else:
            joined = ",".join(values)
            headers[low] = f"{headers[low]},{joined}" if low in headers else joined
    length = request.header(b"content-length")
    if length is not None:
        headers["content-length"] = length.decode("ascii")
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": call.full_path,
        "rawQueryString": request.query.decode("ascii"),
    }
    if cookies:
        event["cookies"] = cookies
    event["headers"] = headers
    if call.query:
        event["queryStringParameters"] = {name: ",".join(values) for name, values in call.query.items()}
    event["requestContext"] = {
        "accountId": account,
        "apiId": call.api_id,
        "domainName": call.domain,
        "domainPrefix": call.domain.partition(".")[0],
        "http": {
            "method": request.method,
            "path": call.full_path,
            "protocol": f"HTTP/{request.version}",
            "sourceIp": request.client[0],
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": route_key,
        "stage": call.stage,
        "time": clf_time(call.now_ms // 1000),
        "timeEpoch": call.now_ms,
    }
    if call.params:
        event["pathParameters"] = call.params
    if call.variables:
        event["stageVariables"] = call.variables
    return event


def token_event(call: Call, region: str, token: str) -> bytes:
    """What a TOKEN authorizer is asked."""
    return orjson.dumps({"type": "TOKEN", "methodArn": call.arn(region), "authorizationToken": token})


def authorizer_v1(call: Call, region: str, identity: list[str] | None) -> bytes:
    """What a REQUEST authorizer is asked in format 1.0; `identity` only of an HTTP API."""
    event = {"type": "REQUEST", "methodArn": call.arn(region), **_one(call)}
    if identity is not None:
        joined = ",".join(identity)
        event = {"version": "1.0", **event, "identitySource": joined, "authorizationToken": joined}
    return orjson.dumps(event)


def authorizer_v2(call: Call, region: str, route_key: str, identity: list[str]) -> bytes:
    """What an authorizer of an HTTP API is asked in format 2.0."""
    event = {"version": "2.0", "type": "REQUEST", "routeArn": call.arn(region), "identitySource": identity or None}
    common = _two(call, route_key, call.extended_id, ACCOUNT)
    return orjson.dumps({**common, **event})
