"""The Lambda API, as far as Martlet has what it speaks of: invoke, list and describe functions.

Source: the service's public model (2015-03-31) and recorded answers. Every other operation, and every request for another AWS
service, is refused with an error that names it. Errors are Lambda's: header `x-amzn-ErrorType`, body {"Type", "message"}.
"""

from __future__ import annotations

import base64
import binascii
import math
import platform
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.errors import (
    AccessDenied,
    Conflict,
    InvalidInput,
    LimitExceeded,
    MartletError,
    NotFound,
    Overloaded,
    Throttled,
    Unauthenticated,
    Unsupported,
)
from martlet.limits import LIMITS
from martlet.protocols import asgi, unsupported
from martlet.protocols.asgi import Answer, Request
from martlet.protocols.lambda_operations import operation_name
from martlet.protocols.rooms import Rooms
from martlet.types import FunctionVersion, Invocation, Outcome, Principal

__all__ = ["app"]

_LATEST: Final = "$LATEST"
_ACCOUNT: Final = "000000000000"
_CLIENT_CONTEXT_BYTES: Final = 3_583  # Lambda: X-Amz-Client-Context
_LOG_TAIL_BYTES: Final = 4_096
_LIST_MOST: Final = 50  # Lambda: functions in one page, whatever MaxItems says
_NAME = re.compile(
    r"(?:arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):function:|(?P<short_account>\d{12}):function:)?"
    r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]+))?"
)
# AWS's answers to credentials that do not hold, by the reason that `auth` gives.
_CREDENTIALS: Final = {
    "MissingAuthenticationToken": ("MissingAuthenticationTokenException", 403),
    "InvalidClientTokenId": ("UnrecognizedClientException", 403),
    "SignatureDoesNotMatch": ("InvalidSignatureException", 403),
    "IncompleteSignature": ("IncompleteSignatureException", 400),
}


class LambdaError(Exception):
    """An error in Lambda's own words, which exist on this wire only: `name` goes into x-amzn-ErrorType, `member` is how the
    model spells the message's member."""

    def __init__(self, name: str, status: int, message: str, *, member: str = "message", **extra: object) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.status = status
        self.member = member
        self.extra = extra


def app(rooms: Rooms) -> asgi.ASGIApp:
    """The endpoint. Expects SigV4 or a bearer token, or `scope["martlet.context"]`."""
    service = _Lambda(rooms)
    return asgi.app(service.respond, _error_answer)


class _Lambda:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def respond(self, request: Request) -> Answer:
        try:
            return await self._respond(request)
        except LambdaError as error:
            return _answer_of(error, request)

    async def _respond(self, request: Request) -> Answer:
        segments = request.segments()
        name = operation_name(request.method, segments or [], request.raw_query.decode("latin-1"))
        if name is None or segments is None or unsupported.is_other_service(request):
            return await unsupported.refuse(request)
        if name == "Invoke":
            answer = await self._invoke(request, segments[2])
        elif name == "ListFunctions":
            answer = await self._list(request)
        elif name in ("GetFunction", "GetFunctionConfiguration"):
            answer = await self._get(request, segments[2], name)
        else:
            raise Unsupported(f"the Lambda operation {name} is not supported")
        if any(header == "x-amzn-requestid" for header, _ in answer.headers):
            return answer
        return msgspec.structs.replace(answer, headers=(*answer.headers, ("x-amzn-requestid", request.id)))

    def _principal(self, request: Request, body: bytes) -> Principal:
        if request.context is not None:
            return request.context
        return self._rooms.auth.authenticate(request.method, request.raw_path, request.raw_query, request.raw_headers, body)

    # --- Invoke

    async def _invoke(self, request: Request, function: str) -> Answer:
        headers = request.headers
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        payload = await _payload(request, kind)
        principal = self._principal(request, payload)
        name, qualifier = _parse_name(function, _query(request, {"Qualifier"}).get("Qualifier", ""))
        self._authorize(principal, "lambda:InvokeFunction", name)
        self._find(name, qualifier, function)
        _refuse_kinds(kind, headers)
        want_tail = _wants_tail(headers.get("x-amz-log-type", "None"))
        context = _client_context(headers.get("x-amz-client-context", ""))
        _check_json(payload)
        if kind == "DryRun":
            return Answer(204)
        invocation, outcome = await self._rooms.functions.invoke(
            name,
            payload or b"{}",
            source="api",
            trace_id=headers.get("x-amzn-trace-id", ""),
            client_context=context,
            want_log_tail=want_tail,
        )
        if outcome.refusal is not None:
            raise outcome.refusal
        return _invoked(invocation, outcome, qualifier, want_tail)

    # --- describing

    async def _list(self, request: Request) -> Answer:
        principal = self._principal(request, await _empty_body(request))
        query = _query(request, {"Marker", "MaxItems", "FunctionVersion", "MasterRegion"})
        for parameter in ("FunctionVersion", "MasterRegion"):
            if parameter in query:
                raise Unsupported(f"ListFunctions: the parameter {parameter} is not supported")
        self._rooms.auth.authorize(principal, "lambda:ListFunctions", "*")
        most = min(_whole(query.get("MaxItems", str(_LIST_MOST)), "MaxItems", 1, 10_000), _LIST_MOST)
        after = query.get("Marker", "")
        versions = sorted((v for v in self._rooms.functions.list() if v.name > after), key=lambda version: version.name)
        body: dict[str, Any] = {"Functions": [_configuration(version, _LATEST) for version in versions[:most]]}
        if len(versions) > most:
            body["NextMarker"] = versions[most - 1].name
        return asgi.json_answer(body)

    async def _get(self, request: Request, function: str, operation: str) -> Answer:
        principal = self._principal(request, await _empty_body(request))
        name, qualifier = _parse_name(function, _query(request, {"Qualifier"}).get("Qualifier", ""))
        self._authorize(principal, f"lambda:{operation}", name)
        version = self._find(name, qualifier, function)
        configuration = _configuration(version, qualifier or _LATEST)
        if operation == "GetFunctionConfiguration":
            return asgi.json_answer(configuration)
        body: dict[str, Any] = {"Configuration": configuration, "Code": {}, "Tags": {}}
        if version.config.reserved is not None:
            body["Concurrency"] = {"ReservedConcurrentExecutions": version.config.reserved}
        return asgi.json_answer(body)

    def _authorize(self, principal: Principal, action: str, name: str) -> None:
        """Raises `AccessDenied`, also for a function that does not exist: who may not call it does not learn that."""
        self._rooms.auth.authorize(principal, action, name)

    def _find(self, name: str, qualifier: str, asked: str) -> FunctionVersion:
        version = self._rooms.functions.get(name)
        arn = f"arn:aws:lambda:us-east-1:{_ACCOUNT}:function:{name}"
        place = _NAME.fullmatch(asked)
        if version is not None and place is not None:
            own = version.arn.split(":")
            account = place["account"] or place["short_account"] or own[4]
            if (place["region"] or own[3]) != own[3] or account != own[4]:
                raise _not_found(asked)
        if version is None or qualifier not in ("", _LATEST, str(version.version)):
            raise _not_found(f"{arn}:{qualifier}" if qualifier else arn)
        return version


def _not_found(arn: str) -> LambdaError:
    return LambdaError("ResourceNotFoundException", 404, f"Function not found: {arn}", member="Message")


async def _empty_body(request: Request) -> bytes:
    return await request.body("request_line_bytes")


def _query(request: Request, allowed: set[str]) -> dict[str, str]:
    try:
        return request.query(allowed)
    except InvalidInput as error:
        raise LambdaError("InvalidParameterValueException", 400, error.message) from error


def _whole(text: str, name: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise LambdaError("InvalidParameterValueException", 400, f"{name} must be a number from {low} to {high}, got {text!r}")
    return int(text)


async def _payload(request: Request, kind: str) -> bytes:
    """The body. Lambda's own words for one that is too large."""
    most = LIMITS["payload_bytes"].default
    length = request.content_length()
    if length is not None and length > most:
        text = f"{length} byte payload is too large for the {kind} invocation type (limit {most} bytes)"
        raise LambdaError("RequestTooLargeException", 413, text)
    body = await request.body_up_to(most)
    if body is None:  # sent in chunks: how long it would have become, nobody knows
        raise LambdaError(
            "RequestTooLargeException", 413, f"Request must be smaller than {most} bytes for the InvokeFunction operation"
        )
    return body


def _parse_name(text: str, qualifier: str) -> tuple[str, str]:
    """(function, qualifier or "") from a name, a partial ARN or an ARN, each with or without a qualifier."""
    found = _NAME.fullmatch(text)
    if found is None or len(text) > 170:
        message = (
            f"1 validation error detected: Value '{text[:200]}' at 'functionName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: a name, account:function:name or an ARN of Lambda"
        )
        raise LambdaError("ValidationException", 400, message)
    own = found["qualifier"] or ""
    if own and qualifier and own != qualifier:
        message = "The derived qualifier from the function name does not match the specified qualifier."
        raise LambdaError("InvalidParameterValueException", 400, message)
    return found["name"], own or qualifier


def _refuse_kinds(kind: str, headers: dict[str, str]) -> None:
    if kind == "Event":
        raise Unsupported("Invoke: the invocation type Event (asynchronous invocation) is not supported")
    if kind not in ("RequestResponse", "DryRun"):
        message = (
            f"1 validation error detected: Value '{kind[:100]}' at 'invocationType' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
        )
        raise LambdaError("ValidationException", 400, message)
    for header in ("X-Amz-Durable-Execution-Name", "X-Amz-Tenant-Id"):
        if header.lower() in headers:
            raise Unsupported(f"Invoke: the header {header} is not supported")


def _wants_tail(log_type: str) -> bool:
    if log_type not in ("None", "Tail"):
        message = (
            f"1 validation error detected: Value '{log_type[:100]}' at 'logType' failed to satisfy constraint: "
            "Member must satisfy enum value set: [None, Tail]"
        )
        raise LambdaError("ValidationException", 400, message)
    return log_type == "Tail"


def _client_context(encoded: str) -> str:
    """The client context's JSON text. Lambda: base64 in the header, at most 3583 bytes."""
    if not encoded:
        return ""
    wrong = LambdaError("InvalidRequestContentException", 400, "Client context must be a valid Base64-encoded JSON object.")
    if len(encoded) > _CLIENT_CONTEXT_BYTES:
        message = f"Client context must be no more than {_CLIENT_CONTEXT_BYTES} bytes, got {len(encoded)}"
        raise LambdaError("InvalidRequestContentException", 400, message)
    try:
        text = base64.b64decode(encoded, validate=True).decode()
        value = msgspec.json.decode(text)
    except (binascii.Error, UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise wrong from error
    if not isinstance(value, dict):
        raise wrong
    return text


def _check_json(payload: bytes) -> None:
    fault = asgi.json_fault(payload)
    if fault:
        message = f"Could not parse request body into json: Could not parse payload into json: {fault}"
        raise LambdaError("InvalidRequestContentException", 400, message)


def _invoked(invocation: Invocation, outcome: Outcome, qualifier: str, want_tail: bool) -> Answer:
    headers = [
        ("content-type", "application/json"),
        ("x-amzn-requestid", invocation.request_id),
        ("x-amz-executed-version", qualifier or _LATEST),
    ]
    if outcome.error:
        headers.append(("x-amz-function-error", outcome.error))
    if want_tail:
        tail = base64.b64encode(invocation.log_tail[-_LOG_TAIL_BYTES:]).decode()
        headers.append(("x-amz-log-result", tail))
    return Answer(200, outcome.payload, tuple(headers))


def _configuration(version: FunctionVersion, qualifier: str) -> dict[str, Any]:
    """FunctionConfiguration, with the members that Martlet knows; what it does not have is absent, not invented."""
    config = version.config
    modified = datetime.fromtimestamp(version.created_at_ms / 1000, UTC)
    suffix = "" if qualifier == _LATEST else f":{qualifier}"
    body: dict[str, Any] = {
        "FunctionName": version.name,
        "FunctionArn": version.arn + suffix,
        "Runtime": f"python{sys.version_info[0]}.{sys.version_info[1]}",
        "Handler": config.handler,
        "Description": config.description,
        "Timeout": math.ceil(config.timeout_seconds),  # the model has whole seconds
        "MemorySize": config.memory_mb,
        "LastModified": modified.strftime("%Y-%m-%dT%H:%M:%S.") + f"{version.created_at_ms % 1000:03d}+0000",
        "CodeSha256": base64.b64encode(bytes.fromhex(version.code)).decode(),
        "Version": qualifier,
        "PackageType": "Zip",
        "Architectures": ["arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"],
        "EphemeralStorage": {"Size": config.tmp_mb},
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "RevisionId": f"{version.name}-{version.version}",
    }
    if config.environment:
        body["Environment"] = {"Variables": config.environment}
    return body


# --- errors


def _error_answer(error: MartletError, request: Request) -> Answer:
    retry = (("retry-after", str(error.retry_after_seconds)),) if isinstance(error, Throttled | Overloaded) else ()
    return _answer_of(_translate(error), request, retry)


def _answer_of(error: LambdaError, request: Request, more: asgi.Headers = ()) -> Answer:
    body = {"Type": "User" if error.status < 500 else "Service", error.member: error.message, **error.extra}
    headers = (("x-amzn-errortype", error.name), ("x-amzn-requestid", request.id), *more)
    return asgi.json_answer(body, error.status, headers)


def _translate(error: MartletError) -> LambdaError:
    """One of Martlet's errors as the one that Lambda would give."""
    if isinstance(error, Unauthenticated):
        name, status = _CREDENTIALS.get(str(error.details.get("reason")), ("UnrecognizedClientException", 403))
        return LambdaError(name, status, error.message)
    if isinstance(error, AccessDenied):
        return LambdaError("AccessDeniedException", 403, error.message, member="Message")
    if isinstance(error, NotFound):
        return LambdaError("ResourceNotFoundException", 404, error.message, member="Message")
    if isinstance(error, Throttled):
        reason = str(error.details.get("reason") or "ConcurrentInvocationLimitExceeded")
        return LambdaError("TooManyRequestsException", 429, "Rate Exceeded.", Reason=reason, detail=error.message)
    if isinstance(error, LimitExceeded):
        return LambdaError("RequestTooLargeException", 413, error.message)
    if isinstance(error, Unsupported):
        return LambdaError("NotImplementedException", 501, error.message)
    if isinstance(error, InvalidInput):
        return LambdaError("InvalidParameterValueException", 400, error.message)
    if isinstance(error, Conflict):
        return LambdaError("ResourceConflictException", 409, error.message)
    return LambdaError("ServiceException", error.http_status, error.message, member="Message")
