"""Errors in each protocol's own form, by the names that each service's clients know.

rest-json: header x-amzn-ErrorType and {"message"} as the error's shape spells it; json: `__type`, with the namespace where
the real service has one; query: <ErrorResponse>; ec2: <Response>; S3: <Error>; CBOR: `__type` in CBOR. The request's id is
always there.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Final

import msgspec
import orjson

from martlet.errors import (
    AccessDenied,
    Conflict,
    DeployFailed,
    InvalidInput,
    LimitExceeded,
    MartletError,
    NotFound,
    Overloaded,
    ServiceError,
    Throttled,
    Unauthenticated,
    Unsupported,
)
from martlet.protocols.codec import cbor_body, rest
from martlet.protocols.codec.model import OperationModel, Shape, error_code
from martlet.protocols.codec.wire import Malformed, WireAnswer, WireRequest
from martlet.protocols.codec.wires import CborWire, Ec2Wire, JsonWire, QueryWire, RestJsonWire, RestXmlWire, Wire
from martlet.protocols.codec.xml_body import escape

__all__ = ["Fault", "answer", "fault_of"]


class Fault(msgspec.Struct, frozen=True):
    """An error as it goes out. `name` is the one on the wire, `members` are those of its shape beside the message."""

    name: str
    message: str
    status: int
    members: dict[str, Any] = {}
    headers: tuple[tuple[str, str], ...] = ()


def answer(
    error: MartletError | Malformed,
    wire: Wire | None,
    operation: OperationModel | None,
    request: WireRequest,
    request_id: str,
) -> WireAnswer:
    """`error` as an answer of the protocol in which `request` came. `wire` None: the service is not known."""
    family = _family(wire, request)
    service = wire.service.name if wire is not None else ""
    fault = fault_of(error, family, service)
    shape = wire.service.exception(operation, fault.name) if wire is not None else None
    if isinstance(wire, CborWire):
        return _cbor(fault, shape, wire, request_id)
    if isinstance(wire, JsonWire):
        return _json(fault, shape, wire, request_id)
    if isinstance(wire, RestJsonWire):
        return _rest_json(fault, shape, wire, request_id)
    if isinstance(wire, RestXmlWire) and service == "s3":
        return _s3(fault, request, request_id)
    if isinstance(wire, Ec2Wire):
        return _ec2(fault, shape, wire, request_id)
    if family == "query":
        return _query(fault, shape, wire, request_id)
    return _plain_json(fault, request_id)


def _family(wire: Wire | None, request: WireRequest) -> str:
    """Which of the four families of error names a protocol uses: rpc (json, cbor), json (rest-json), query, s3."""
    if isinstance(wire, QueryWire):
        return "query"
    if isinstance(wire, RestXmlWire):
        return "s3" if wire.service.name == "s3" else "query"
    if isinstance(wire, JsonWire):
        return "rpc"
    if wire is None:
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return "query"
        return "rpc" if "x-amz-target" in request.headers else "json"
    return "json"


# --- which fault an error is

_INVALID_TOKEN: Final = "The security token included in the request is invalid"
_EXPIRED_TOKEN: Final = "The security token included in the request is expired"
# reason of the auth room: names for json, query, S3; status, and for S3; text ("": the error's own), and for S3
_CREDENTIALS: Final = {
    "MissingAuthenticationToken": (
        ("MissingAuthenticationTokenException", "MissingAuthenticationToken", "AccessDenied"),
        (403, 403),
        ("Missing Authentication Token", "Access Denied"),
    ),
    "InvalidClientTokenId": (
        ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"),
        (403, 403),
        (f"{_INVALID_TOKEN}.", "The AWS Access Key Id you provided does not exist in our records."),
    ),
    "InvalidToken": (
        ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidToken"),
        (403, 400),
        (f"{_INVALID_TOKEN}.", "The provided token is malformed or otherwise invalid."),
    ),
    "ExpiredToken": (
        ("ExpiredTokenException", "ExpiredToken", "ExpiredToken"),
        (403, 400),
        (_EXPIRED_TOKEN, "The provided token has expired."),
    ),
    "SignatureDoesNotMatch": (
        ("InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"),
        (403, 403),
        ("", ""),
    ),
    "RequestTimeTooSkewed": (
        ("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"),
        (403, 403),
        ("", "The difference between the request time and the current time is too large."),
    ),
    "RequestExpired": (
        ("RequestExpired", "RequestExpired", "AccessDenied"),
        (400, 403),
        ("Request has expired", "Request has expired"),
    ),
    "IncompleteSignature": (
        ("IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed"),
        (400, 400),
        ("", ""),
    ),
    "AccessDenied": (("InvalidSignatureException", "SignatureDoesNotMatch", "AccessDenied"), (403, 403), ("", "")),
    "XAmzContentSHA256Mismatch": (
        ("InvalidSignatureException", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"),
        (403, 400),
        ("", "The provided 'x-amz-content-sha256' header does not match what was computed."),
    ),
    "MissingSecurityHeader": (
        ("IncompleteSignatureException", "IncompleteSignature", "MissingSecurityHeader"),
        (400, 400),
        ("", ""),
    ),
}
_COLUMN: Final = {"rpc": 0, "json": 0, "query": 1, "s3": 2}

# kind of error: (names for json, query, S3; statuses for json, query, S3)
_NAMES: Final[tuple[tuple[type[MartletError], tuple[str, str, str], tuple[int, int, int]], ...]] = (
    (Unsupported, ("NotImplementedException", "NotImplemented", "NotImplemented"), (501, 501, 501)),
    (InvalidInput, ("ValidationException", "ValidationError", "InvalidArgument"), (400, 400, 400)),
    (DeployFailed, ("ValidationException", "ValidationError", "InvalidArgument"), (400, 400, 400)),
    (AccessDenied, ("AccessDeniedException", "AccessDenied", "AccessDenied"), (403, 403, 403)),
    (NotFound, ("ResourceNotFoundException", "NoSuchEntity", "NoSuchKey"), (404, 404, 404)),
    (Conflict, ("ConflictException", "EntityAlreadyExists", "OperationAborted"), (409, 409, 409)),
    (LimitExceeded, ("RequestEntityTooLargeException", "RequestEntityTooLarge", "EntityTooLarge"), (413, 413, 400)),
    (Throttled, ("ThrottlingException", "Throttling", "SlowDown"), (429, 400, 503)),
    (Overloaded, ("ServiceUnavailableException", "ServiceUnavailable", "ServiceUnavailable"), (503, 503, 503)),
    (MartletError, ("InternalFailure", "InternalFailure", "InternalError"), (500, 500, 500)),
)
# What Lambda calls them. Source: the service's model and recorded answers.
_LAMBDA: Final = {
    "ValidationException": "InvalidParameterValueException",
    "ConflictException": "ResourceConflictException",
    "RequestEntityTooLargeException": "RequestTooLargeException",
    "ThrottlingException": "TooManyRequestsException",
    "InternalFailure": "ServiceException",
}
_KEPT: Final = frozenset({"NotImplementedException", "NotImplemented"})


def fault_of(error: MartletError | Malformed, family: str, service: str) -> Fault:
    """The fault that `error` is in a family of names ("rpc", "json", "query", "s3")."""
    if isinstance(error, Malformed):
        return _malformed(error, family, service)
    if isinstance(error, ServiceError):
        return Fault(error.name, error.message, error.http_status, dict(error.members))
    if isinstance(error, Unauthenticated):
        return _unauthenticated(error, family)
    names, statuses = next((names, statuses) for kind, names, statuses in _NAMES if isinstance(error, kind))
    column = _COLUMN[family]
    name, status = names[column], statuses[column]
    members: dict[str, Any] = {}
    headers: tuple[tuple[str, str], ...] = ()
    message = error.message
    if isinstance(error, AccessDenied) and "action" in error.details:
        details = error.details
        message = (
            f"User: {details.get('principal')} is not authorized to perform: {details['action']} "
            f"on resource: {details.get('resource')}"
        )
        if details.get("explicit"):
            message += " with an explicit deny"
    if isinstance(error, Throttled | Overloaded):
        headers = (("retry-after", str(error.retry_after_seconds)),)
    if service == "lambda" and not isinstance(error, DeployFailed):
        name = _LAMBDA.get(name, name)
        if isinstance(error, Throttled):
            members = {"Reason": str(error.details.get("reason") or "ConcurrentInvocationLimitExceeded")}
            message = "Rate Exceeded."
    elif family == "rpc" and status < 500:
        status = 400
    return Fault(name, message, status, members, headers)


def _malformed(error: Malformed, family: str, service: str) -> Fault:
    if service == "lambda":
        return Fault("InvalidRequestContentException", f"Could not parse request body into json: {error.message}", 400)
    if family == "s3":
        if error.kind == "body":
            text = "The XML you provided was not well-formed or did not validate against our published schema"
            return Fault("MalformedXML", text, 400)
        return Fault("InvalidArgument", error.message, 400)
    if family == "query":
        return Fault("MalformedQueryString" if error.kind == "body" else "MalformedInput", error.message, 400)
    return Fault("SerializationException", error.message, 400)


def _unauthenticated(error: Unauthenticated, family: str) -> Fault:
    reason = str(error.details.get("reason"))
    names, statuses, texts = _CREDENTIALS.get(reason, _CREDENTIALS["InvalidClientTokenId"])
    s3 = family == "s3"
    message = texts[1 if s3 else 0] or error.message
    canonical = error.details.get("canonical_request")
    if reason == "SignatureDoesNotMatch" and canonical and not s3:
        message += (
            f"\n\nThe Canonical String for this request should have been\n'{canonical}'"
            f"\n\nThe String-to-Sign should have been\n'{error.details.get('string_to_sign')}'\n"
        )
    status = 400 if family == "rpc" else statuses[1 if s3 else 0]
    members: dict[str, Any] = {}
    if reason == "SignatureDoesNotMatch" and canonical and s3:
        members = {"CanonicalRequest": canonical, "StringToSign": error.details.get("string_to_sign")}
    return Fault(names[_COLUMN[family]], message, status, members)


# --- how it is written

# Namespaces of `__type`, of those services that have them: of their own errors; of the framework's they are Coral's.
_NAMESPACES: Final = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#",
    "dynamodbstreams": "com.amazonaws.dynamodb.v20120810#",
    "sqs": "com.amazonaws.sqs#",
}
_QUERY_CODES: Final = {  # of errors whose name in SQS's query protocol was another, which its model no longer says
    name: f"AWS.SimpleQueueService.{code}"
    for name, code in (
        ("BatchEntryIdsNotDistinct", "BatchEntryIdsNotDistinct"),
        ("BatchRequestTooLong", "BatchRequestTooLong"),
        ("EmptyBatchRequest", "EmptyBatchRequest"),
        ("InvalidBatchEntryId", "InvalidBatchEntryId"),
        ("MessageNotInflight", "MessageNotInflight"),
        ("PurgeQueueInProgress", "PurgeQueueInProgress"),
        ("QueueDeletedRecently", "QueueDeletedRecently"),
        ("QueueDoesNotExist", "NonExistentQueue"),
        ("TooManyEntriesInBatchRequest", "TooManyEntriesInBatchRequest"),
        ("UnsupportedOperation", "UnsupportedOperation"),
    )
} | {"QueueNameExists": "QueueAlreadyExists"}
_JSON_NAMES: Final = {  # of errors of SQS that its model does not have: by their names in the query protocol
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
}


def _status(fault: Fault, shape: Shape | None, default: int | None = None) -> int:
    declared = shape.traits.get("error", {}).get("httpStatusCode") if shape is not None else None
    return int(declared or default or fault.status)


def _is_sender(fault: Fault, shape: Shape | None) -> bool:
    error = shape.traits.get("error", {}) if shape is not None else {}
    if shape is not None and shape.traits.get("fault"):
        return False
    return bool(error.get("senderFault", fault.status < 500))


def _values(fault: Fault, shape: Shape | None, member: str = "message") -> tuple[dict[str, Any], str]:
    """The fault's members with its message under the name that the shape has for it."""
    name = member
    if shape is not None:
        name = next((key for key in shape.members if key.lower() == "message"), member)
    return ({name: fault.message, **fault.members} if fault.message else dict(fault.members)), name


def _body_values(fault: Fault, shape: Shape | None, wire: Wire) -> dict[str, Any]:
    """The error's body as JSON would have it. What the shape does not know stays out, the message stays in."""
    values, name = _values(fault, shape)
    if shape is None:
        return values
    if "Type" in shape.members and "Type" not in values and wire.service.signing_name == "lambda":
        values = {"Type": "User" if fault.status < 500 else "Service", **values}
    known = rest.body_members(shape, answer=True)
    found: dict[str, Any] = (
        wire._out.structure({key: (inner.wire_name(key), inner) for key, inner in known.items()})(values)
        if isinstance(wire, JsonWire | RestJsonWire)
        else values
    )
    if fault.message and name not in known:
        found["message"] = fault.message
    return found


_CAPITAL_MESSAGE: Final = frozenset(("SerializationException", "AccessDeniedException"))  # of DynamoDB, as recorded


def _json(fault: Fault, shape: Shape | None, wire: JsonWire, request_id: str) -> WireAnswer:
    name = shape.name if shape is not None else fault.name
    if wire.service.name == "sqs":
        name = _JSON_NAMES.get(name, name)
    values = _body_values(fault, shape, wire)
    if name in _CAPITAL_MESSAGE and wire.service.name in ("dynamodb", "dynamodbstreams"):
        values["Message"] = values.pop("message")
    body = orjson.dumps({"__type": _type_name(wire.service.name, name, shape), **values}, default=str)
    headers = [("content-type", wire.content_type), ("x-amzn-requestid", request_id), *fault.headers]
    headers += _query_error(fault, shape, wire)
    if wire.service.name in ("dynamodb", "dynamodbstreams"):
        headers.append(("x-amz-crc32", str(zlib.crc32(body))))
    return WireAnswer(_status(fault, shape), tuple(headers), body)


def _type_name(service: str, name: str, shape: Shape | None) -> str:
    namespace = _NAMESPACES.get(service)
    if namespace is None:
        return name
    if shape is not None:
        return namespace + name
    return ("com.amazon.coral.validate#" if name == "ValidationException" else "com.amazon.coral.service#") + name


def _query_error(fault: Fault, shape: Shape | None, wire: Wire) -> list[tuple[str, str]]:
    """For services that spoke the query protocol before: the name that it had there."""
    if not wire.service.query_compatible:
        return []
    code = error_code(shape) if shape is not None else fault.name
    if wire.service.name == "sqs":
        code = _QUERY_CODES.get(code, code)
    return [("x-amzn-query-error", f"{code};{'Sender' if _is_sender(fault, shape) else 'Receiver'}")]


def _cbor(fault: Fault, shape: Shape | None, wire: CborWire, request_id: str) -> WireAnswer:
    name = shape.name if shape is not None else fault.name
    body = cbor_body.dump({"__type": name, **_body_values(fault, shape, wire)})
    headers = [("content-type", wire.content_type), ("smithy-protocol", "rpc-v2-cbor"), ("x-amzn-requestid", request_id)]
    return WireAnswer(_status(fault, shape), (*headers, *fault.headers, *_query_error(fault, shape, wire)), body)


def _rest_json(fault: Fault, shape: Shape | None, wire: RestJsonWire, request_id: str) -> WireAnswer:
    name = shape.name if shape is not None else fault.name
    headers = [("content-type", "application/json"), ("x-amzn-errortype", name), ("x-amzn-requestid", request_id)]
    headers += fault.headers
    values, _ = _values(fault, shape)
    for member, put in rest.bind_outputs(shape)[0]:
        if values.get(member) is not None:
            headers += put(values[member])
    body = orjson.dumps(_body_values(fault, shape, wire), default=str)
    return WireAnswer(_status(fault, shape), tuple(headers), body)


def _plain_json(fault: Fault, request_id: str) -> WireAnswer:
    body = orjson.dumps({"__type": fault.name, "message": fault.message})
    headers = (("content-type", "application/json"), ("x-amzn-errortype", fault.name), ("x-amzn-requestid", request_id))
    return WireAnswer(fault.status, (*headers, *fault.headers), body)


def _element(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>"


def _query(fault: Fault, shape: Shape | None, wire: Wire | None, request_id: str) -> WireAnswer:
    code = error_code(shape) if shape is not None else fault.name
    sqs = wire is not None and wire.service.name == "sqs"
    if sqs:
        code = _QUERY_CODES.get(code, code)
    if sqs and code == "UnknownOperationException":
        return WireAnswer(
            404, (("content-type", "text/xml"), ("x-amzn-requestid", request_id)), b"<UnknownOperationException/>\n"
        )
    message = fault.message
    if sqs and code.endswith(".NonExistentQueue"):
        message = "The specified queue does not exist for this wsdl version."
    attributes = f' xmlns="{escape(wire.service.namespace)}"' if wire is not None and wire.service.namespace else ""
    inner, bound = _xml_members(fault, shape, wire)
    sender = "Sender" if _is_sender(fault, shape) else "Receiver"
    text = (
        f"<ErrorResponse{attributes}><Error><Type>{sender}</Type>{_element('Code', code)}"
        f"{_element('Message', message)}{inner}{'<Detail/>' if sqs else ''}</Error>"
        f"{_element('RequestId', request_id)}</ErrorResponse>"
    )
    headers = (("content-type", "text/xml"), ("x-amzn-requestid", request_id), *fault.headers, *bound)
    return WireAnswer(_status(fault, shape), headers, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode())


def _xml_members(fault: Fault, shape: Shape | None, wire: Wire | None) -> tuple[str, list[tuple[str, str]]]:
    """The members beside code and message: as elements, and as the headers that the shape binds them to."""
    if shape is None or not isinstance(wire, QueryWire | RestXmlWire):
        return "".join(_element(name, value) for name, value in fault.members.items()), []
    headers: list[tuple[str, str]] = []
    for name, put in rest.bind_outputs(shape)[0]:
        if fault.members.get(name) is not None:
            headers += put(fault.members[name])
    out: list[str] = []
    wire._out.content(rest.body_members(shape, answer=True))(out, fault.members)
    return "".join(out), headers


def _ec2(fault: Fault, shape: Shape | None, wire: Wire, request_id: str) -> WireAnswer:
    inner, _ = _xml_members(fault, shape, wire)
    text = (
        f"<Response><Errors><Error>{_element('Code', fault.name)}{_element('Message', fault.message)}{inner}</Error></Errors>"
        f"{_element('RequestID', request_id)}</Response>"
    )
    headers = (("content-type", "text/xml"), ("x-amzn-requestid", request_id), *fault.headers)
    return WireAnswer(fault.status, headers, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode())


def _s3(fault: Fault, request: WireRequest, request_id: str) -> WireAnswer:
    inner = "".join(_element(name, value) for name, value in fault.members.items())
    host_id = base64.b64encode(request_id.encode()).decode()
    text = (
        f"<Error>{_element('Code', fault.name)}{_element('Message', fault.message)}{inner}"
        f"{_element('RequestId', request_id)}{_element('HostId', host_id)}</Error>"
    )
    headers = (("x-amz-request-id", request_id), ("x-amz-id-2", host_id), *fault.headers)
    if request.method == "HEAD" or fault.status == 304:
        return WireAnswer(fault.status, headers, b"")
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return WireAnswer(fault.status, (("content-type", "application/xml"), *headers), body)
