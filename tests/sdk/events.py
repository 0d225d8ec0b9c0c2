"""HTTP events as the gateway makes them, and what comes back as a client would see it."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl


def v2(
    method: str = "GET",
    path: str = "/",
    *,
    query: str = "",
    headers: dict[str, str] | None = None,
    cookies: list[str] | None = None,
    parameters: dict[str, str] | None = None,
    body: str | bytes | None = None,
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "shop.localhost:8700", "x-forwarded-proto": "https", **(headers or {})},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.7"}, "requestId": "r-1"},
        "isBase64Encoded": False,
    }
    if query:
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
    if cookies:
        event["cookies"] = cookies
    if parameters:
        event["pathParameters"] = parameters
    if isinstance(body, bytes):
        event["body"] = base64.b64encode(body).decode()
        event["isBase64Encoded"] = True
    elif body is not None:
        event["body"] = body
    return event


def v1(
    method: str = "GET",
    path: str = "/",
    *,
    query: dict[str, list[str]] | None = None,
    headers: dict[str, list[str]] | None = None,
    parameters: dict[str, str] | None = None,
    body: str | None = None,
) -> dict[str, Any]:
    headers = {"Host": ["shop.localhost"], **(headers or {})}
    return {
        "version": "1.0",
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} if query else None,
        "multiValueQueryStringParameters": query,
        "pathParameters": parameters,
        "requestContext": {"identity": {"sourceIp": "192.0.2.8"}, "httpMethod": method},
        "body": body,
        "isBase64Encoded": False,
    }


def body_of(answer: dict[str, Any]) -> bytes:
    """The answer's body as bytes on the wire."""
    body = answer.get("body", "")
    return base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
