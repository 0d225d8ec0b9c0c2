"""What the codec asks of a service, and what it hands to one.

A service is any object with an asynchronous method for each operation that it has, named as boto3 names it:

    async def create_queue(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]

`request` is the decoded and validated input, the result the output, both in the member names of AWS's model: blobs are bytes,
times are aware datetimes (epoch seconds go too), members without a value are absent or None. A streaming blob may be an async
iterator of bytes; an event stream is an async iterator of {"NameOfEvent": {members}}. Errors are `ServiceError`, or any other
of Martlet's. The answer carries the caller's `request_id`, or the one in the result's {"ResponseMetadata": {"RequestId"}}.

Optional: `permission(operation, request) -> (action, resource) | None`, what the caller must be allowed, None for nothing;
else it is ("<service>:<Operation>", "*"), which root alone is sure to have. An operation without a method is answered with
501, by name. `precheck(operation, request)` raises what the service says before the model's constraints.
`waits(operation, request) -> bool`: whether the call may wait for long, so that it is cancelled when its client
goes away.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from martlet.errors import Unsupported
from martlet.protocols.codec.model import OperationModel
from martlet.types import Principal

__all__ = ["Caller", "Method", "method_of", "permission_of", "precheck"]

Method = Callable[["Caller", dict[str, Any]], Awaitable[dict[str, Any] | None]]

# Where IAM's name of an action is not the operation's. https://docs.aws.amazon.com/service-authorization/latest/reference/
_ACTIONS: Final = {
    ("lambda", "Invoke"): "InvokeFunction",
    ("lambda", "InvokeAsync"): "InvokeFunction",
    ("lambda", "InvokeWithResponseStream"): "InvokeFunction",
    ("s3", "CompleteMultipartUpload"): "PutObject",
    ("s3", "CopyObject"): "PutObject",
    ("s3", "CreateMultipartUpload"): "PutObject",
    ("s3", "DeleteObjects"): "DeleteObject",
    ("s3", "HeadBucket"): "ListBucket",
    ("s3", "HeadObject"): "GetObject",
    ("s3", "ListBuckets"): "ListAllMyBuckets",
    ("s3", "ListObjects"): "ListBucket",
    ("s3", "ListObjectsV2"): "ListBucket",
    ("s3", "UploadPart"): "PutObject",
    ("s3", "UploadPartCopy"): "PutObject",
}
_FUNCTION = re.compile(r"^(arn:[^:]*:lambda:[^:]*:)?([0-9]{12}:)?function:")  # before the name in an ARN, whole or partial
_PREFIXES: Final = {"stepfunctions": "states", "dynamodbstreams": "dynamodb", "apigatewaymanagementapi": "execute-api"}


class Caller(msgspec.Struct, frozen=True):
    """Who calls, where, and how the call is known. `endpoint` is "http://host:port" of the listener it came in on."""

    principal: Principal
    region: str
    account: str
    request_id: str
    endpoint: str
    trace_id: str = ""  # X-Amzn-Trace-Id
    source_ip: str = ""
    signed_region: str = ""  # that of the signature, whatever the platform calls its own
    conditions: Mapping[str, str] = {}  # IAM's condition keys that the request itself answers, in lower case


def method_of(service: object, operation: OperationModel) -> Method:
    """The service's method for an operation. Raises `Unsupported` by name if it has none."""
    found: Method | None = getattr(service, operation.method_name, None)
    if found is None:
        raise Unsupported(f"the operation {operation.service.name}:{operation.name} is not supported")
    return found


def permission_of(service: object, operation: OperationModel, request: dict[str, Any]) -> tuple[Any, ...] | None:
    """(action, resource) that the caller needs, with what else `authorize` is to know; None for an operation that everybody may
    call."""
    own: Callable[[str, dict[str, Any]], tuple[Any, ...] | None] | None = getattr(service, "permission", None)
    if own is not None:
        return own(operation.name, request)
    name = operation.service.name
    if name == "lambda" and isinstance(function := request.get("FunctionName"), str):
        return f"lambda:{_ACTIONS.get((name, operation.name), operation.name)}", _FUNCTION.sub("", function).partition(":")[0]
    return f"{_PREFIXES.get(name, name)}:{_ACTIONS.get((name, operation.name), operation.name)}", "*"


def precheck(service: object, operation: OperationModel, request: dict[str, Any]) -> None:
    """What the service has to say of a request before its model's constraints are checked."""
    own: Callable[[str, dict[str, Any]], None] | None = getattr(service, "precheck", None)
    if own is not None:
        own(operation.name, request)
