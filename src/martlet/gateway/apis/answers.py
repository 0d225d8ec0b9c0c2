"""What an API says: a function's result as an answer, headers that are renamed on the way, and the gateway's own errors.

The errors' kinds, statuses and texts are those of API Gateway's gateway responses (recorded; and
https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec
import orjson

from martlet.gateway.payload import Answer, MalformedAnswer, encoded_header

__all__ = ["ERRORS", "GatewayError", "answer_rest", "field", "remapped"]

_KEYS: Final = frozenset(("statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"))
_STATUS: Final = re.compile(r"[1-5][0-9][0-9]")
_JSON_TYPE: Final = (b"content-type", b"application/json")
_REMAPPED: Final = frozenset(
    (
        "authorization", "connection", "content-length", "content-md5", "date", "expect", "host", "max-forwards",
        "proxy-authenticate", "server", "trailer", "upgrade", "user-agent", "www-authenticate",
    )
)  # fmt: skip
_DROPPED: Final = frozenset(("transfer-encoding", "keep-alive", "proxy-connection", "x-amzn-requestid", "x-amz-apigw-id"))


class GatewayError(msgspec.Struct, frozen=True):
    """An error of the gateway. `message` is None where the service says `null`."""

    kind: str
    status: int
    message: str | None
    error_type: str  # header x-amzn-ErrorType
    key: str = "message"


def _error(kind: str, status: int, message: str | None, error_type: str, key: str = "message") -> tuple[str, GatewayError]:
    return kind, GatewayError(kind, status, message, error_type, key)


ERRORS: Final[dict[str, GatewayError]] = dict(
    (
        _error("ACCESS_DENIED", 403, "User is not authorized to access this resource", "AccessDeniedException", "Message"),
        _error("API_CONFIGURATION_ERROR", 500, "Internal server error", "InternalServerErrorException"),
        _error("AUTHORIZER_CONFIGURATION_ERROR", 500, None, "AuthorizerConfigurationException"),
        _error("AUTHORIZER_FAILURE", 500, None, "AuthorizerFailureException"),
        _error("BAD_REQUEST_BODY", 400, "Invalid request body", "BadRequestException"),
        _error("BAD_REQUEST_PARAMETERS", 400, "Missing required request parameters: []", "BadRequestException"),
        _error("DEFAULT_5XX", 502, "Internal server error", "InternalServerErrorException"),  # a malformed proxy answer
        _error("FORBIDDEN", 403, "Forbidden", "ForbiddenException"),
        _error("INTEGRATION_FAILURE", 504, "Network error communicating with endpoint", "InternalServerErrorException"),
        _error("INTEGRATION_TIMEOUT", 504, "Endpoint request timed out", "InternalServerErrorException"),
        _error("INVALID_SIGNATURE", 403, "The request signature we calculated does not match the signature you provided. "
               "Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
               "InvalidSignatureException"),
        _error("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token", "MissingAuthenticationTokenException"),
        _error("REQUEST_TOO_LARGE", 413, "Request Too Long", "RequestTooLargeException"),
        _error("THROTTLED", 429, "Too Many Requests", "TooManyRequestsException"),
        _error("UNAUTHORIZED", 401, "Unauthorized", "UnauthorizedException"),
        _error("UNSUPPORTED_MEDIA_TYPE", 415, "Unsupported Media Type", "UnsupportedMediaTypeException"),
    )
)  # fmt: skip


def remapped(name: str) -> str:
    """The name under which a backend's header reaches the client, or "" if it does not (recorded)."""
    low = name.lower()
    if low in _DROPPED:
        return ""
    return f"x-amzn-Remapped-{name}" if low in _REMAPPED else name


def field(name: str, value: str) -> tuple[bytes, bytes] | None:
    """One header of an answer; None for one that is not passed on. Raises `MalformedAnswer` for what breaks a field block."""
    final = remapped(name)
    return encoded_header(final, value)[0] if final else None


def answer_rest(payload: bytes, wants_binary: bool) -> Answer:
    """A function's result behind a REST API: an object with no other members than the five known ones.

    `wants_binary`: the client's Accept names a binary media type of the API; only then base64 is decoded. Raises
    `MalformedAnswer`.
    """
    try:
        result = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise MalformedAnswer(f"the result is not JSON: {error}") from error
    if not isinstance(result, dict) or not result or not result.keys() <= _KEYS:
        raise MalformedAnswer("the result is not an object of statusCode, headers, multiValueHeaders, body, isBase64Encoded")
    status = result.get("statusCode")
    if status is None:
        status = 200
    if not (type(status) is int and 100 <= status <= 599):
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise MalformedAnswer(f"statusCode {status!r} is not 100 to 599")
        status = int(status)
    return status, _headers(result), _body(result, wants_binary)


def _body(result: dict[str, Any], wants_binary: bool) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedAnswer("body is not a string")
    if result.get("isBase64Encoded") is True and wants_binary:
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedAnswer(f"body is not base64: {error}") from error
    return body.encode("utf-8", "replace")


def _headers(result: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    pairs: list[tuple[str, str]] = []
    multiple, single = result.get("multiValueHeaders"), result.get("headers")
    if multiple is not None:
        if not isinstance(multiple, dict):
            raise MalformedAnswer("multiValueHeaders is not an object")
        for name, values in multiple.items():
            if not isinstance(values, list):
                raise MalformedAnswer(f"multiValueHeaders: {name!r} is not a list")
            pairs += [(name, _text(name, value)) for value in values]
    if single is not None:
        if not isinstance(single, dict):
            raise MalformedAnswer("headers is not an object")
        names: dict[str, str] = {name.lower(): name for name, _ in pairs}
        known = {(name.lower(), value) for name, value in pairs}
        for name, value in single.items():
            if value is None:
                continue
            text = _text(str(name), value)
            if (name.lower(), text) not in known:
                pairs.append((names.get(name.lower(), str(name)), text))
    found = [header for name, value in pairs if (header := field(name, value)) is not None]
    if not any(name.lower() == b"content-type" for name, _ in found):
        found.append(_JSON_TYPE)
    return found


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise MalformedAnswer(f"header {name!r} is neither text nor a number")
