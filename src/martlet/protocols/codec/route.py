"""Which service, protocol and operation a request is for.

The service comes from the credential scope of the signature (…/<region>/<service>/aws4_request, in the header or in a
presigned URL). Only a request without one is known by its X-Amz-Target, its Action and Version, or its dated path. REST
operations are found by a trie over the RAW path, segment by segment, each decoded after the split, so "%2F" in a name stays
in the name; then by query and headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from martlet.errors import ServiceError
from martlet.protocols.codec import form_body, rest
from martlet.protocols.codec.legacy import is_queue_path, sqs_wire
from martlet.protocols.codec.model import OperationModel, ServiceModel, load
from martlet.protocols.codec.wire import Malformed, WireRequest
from martlet.protocols.codec.wires import Wire, wire_for

__all__ = ["FAMILIAR", "Routed", "Trie", "candidates", "first_wire", "is_dated", "route", "signed_service", "trie_of"]

_HEADER_SCOPE = re.compile(r"Credential=[^,\s]*/(?P<service>[A-Za-z0-9_-]+)/aws4_request")
_FORM: Final = "application/x-www-form-urlencoded"

# Names in credential scopes that are not boto3's name of the service.
_SIGNED_AS: Final[dict[str, tuple[str, ...]]] = {
    "apigateway": ("apigateway", "apigatewayv2"),
    "dynamodb": ("dynamodb", "dynamodbstreams"),
    "elasticloadbalancing": ("elbv2", "elb"),
    "email": ("sesv2", "ses"),
    "execute-api": ("apigatewaymanagementapi",),
    "monitoring": ("cloudwatch",),
    "states": ("stepfunctions",),
}
# For requests without a scope.
_TARGETS: Final = {
    "AWSCognitoIdentityProviderService": "cognito-idp",
    "AWSEvents": "events",
    "AWSStepFunctions": "stepfunctions",
    "AmazonEC2ContainerRegistry_V20150921": "ecr",
    "AmazonSQS": "sqs",
    "AmazonSSM": "ssm",
    "DynamoDBStreams_20120810": "dynamodbstreams",
    "DynamoDB_20120810": "dynamodb",
    "GraniteServiceVersion20100801": "cloudwatch",
    "Kinesis_20131202": "kinesis",
    "Logs_20140328": "logs",
    "TrentService": "kms",
    "secretsmanager": "secretsmanager",
}
_VERSIONS: Final = {
    "2010-03-31": "sns",
    "2010-05-08": "iam",
    "2010-05-15": "cloudformation",
    "2010-08-01": "cloudwatch",
    "2011-06-15": "sts",
    "2012-11-05": "sqs",
    "2016-11-15": "ec2",
}
# Services of which a model is read for whoever asks, so that even an error of theirs has the form that their clients read.
FAMILIAR: Final = frozenset(
    {"iam", "kms", "lambda", "pipes", "s3", "scheduler", "sns", "sts", "xray", *_TARGETS.values(), *_VERSIONS.values()}
) - {"ec2"}
_DATED = re.compile(rb"/20[0-9]{2}-[0-9]{2}-[0-9]{2}/")
_VIRTUAL_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\.(?:s3[.-]|localhost(?::|$))")


class Routed(msgspec.Struct, frozen=True):
    """What a request is for. `labels` are the decoded parts of the path, for the wire's `decode`."""

    wire: Wire
    operation: OperationModel
    labels: Mapping[str, str]


def signed_service(request: WireRequest) -> str:
    """The service in the credential scope, or ""."""
    # What precedes the signature is the same in all requests of a client; where it is not last, all of it is looked at.
    authorization = request.headers.get("authorization", "")
    before, _, after = authorization.partition(", Signature=")
    found = _scoped(authorization if "Credential=" in after else before)
    if found:
        return found
    if b"X-Amz-Credential=" not in request.query:
        return ""
    parts = rest.parse_query(request.query).get("X-Amz-Credential", [""])[0].split("/")
    return parts[-2] if len(parts) >= 5 and parts[-1] == "aws4_request" else ""


@lru_cache(maxsize=256)
def _scoped(authorization: str) -> str:
    found = _HEADER_SCOPE.search(authorization)
    return found["service"] if found else ""


def candidates(request: WireRequest) -> tuple[str, ...]:
    """boto3's names of the services that the request may be for; none if nothing says that it is AWS's at all."""
    signed = signed_service(request)
    if signed:
        return _SIGNED_AS.get(signed, (signed,))
    target = request.headers.get("x-amz-target", "")
    if target:
        return tuple(filter(None, (_TARGETS.get(target.rpartition(".")[0]),)))
    name = _VERSIONS.get(_form_value(request, "Version"), "")
    if name:
        return (name,)
    if is_queue_path(request.path):
        return ("sqs",)
    return ("lambda",) if is_dated(request.path) else ()


def _form_value(request: WireRequest, name: str) -> str:
    """A field of a query request's form (or of its query string); "" for other requests and malformed forms."""
    raw = request.body if request.headers.get("content-type", "").startswith(_FORM) else request.query
    if b"Action=" not in raw:
        return ""
    try:
        return rest_value(form_body.parse(raw), name)
    except Malformed:
        return ""


def rest_value(tree: form_body.Tree, name: str) -> str:
    found = tree.below.get(name)
    return (found.value or "") if found is not None else ""


def is_dated(path: bytes) -> bool:
    """Whether a path begins with a version of an API, as Lambda's do."""
    return _DATED.match(path) is not None


def first_wire(names: tuple[str, ...]) -> Wire | None:
    """In which form a request is answered that cannot be routed."""
    models = [model for model in map(load, names) if model is not None]
    return wire_for(models[0]) if models else None


def route(names: tuple[str, ...], request: WireRequest) -> Routed:
    """The operation among the services `names`. Raises `ServiceError` by the name that AWS has for an unknown one, with
    `wire` set to how the answer must be written; `Malformed`."""
    models = [model for model in map(load, names) if model is not None]
    if not models:
        raise unknown(None, "UnknownOperationException", f"there is no service {' or '.join(names) or 'by that name'}")
    target = request.headers.get("x-amz-target", "")
    if request.headers.get("smithy-protocol") == "rpc-v2-cbor":
        return _by_cbor_path(models, request)
    if target:
        return _by_target(models, target)
    is_form = request.headers.get("content-type", "").startswith(_FORM)
    by_action = b"Action=" in (request.body if is_form else request.query if models[0].name == "sqs" else b"")
    if any(model.protocol in ("query", "ec2") for model in models) or by_action:
        return _by_action(models, request)
    for model in models:
        if model.protocol.startswith("rest"):
            found = trie_of(model).find(request)
            if found is not None:
                return Routed(wire_for(model), *found)
    return _unknown_path(models[0], request)


def unknown(wire: Wire | None, code: str, message: str, status: int = 400) -> ServiceError:
    error = ServiceError(code, message, status)
    error.details["wire"] = wire
    return error


def _unknown_path(model: ServiceModel, request: WireRequest) -> Routed:
    wire = wire_for(model)
    if model.name == "s3":
        raise unknown(wire, "MethodNotAllowed", "The specified method is not allowed against this resource.", 405)
    if model.name == "sqs" and is_queue_path(request.path):
        raise unknown(sqs_wire(model), "UnknownOperationException", "", 404)
    if not model.protocol.startswith("rest"):
        raise unknown(wire, "UnknownOperationException", "The request names no operation.")
    path = request.path.decode("latin-1")
    raise unknown(wire, "UnknownOperationException", f"Unable to determine operation: {request.method} {path}", 404)


def _by_cbor_path(models: list[ServiceModel], request: WireRequest) -> Routed:
    parts = request.path.decode("latin-1").split("/")
    for model in models:
        wire = wire_for(model, "smithy-rpc-v2-cbor")
        if len(parts) == 5 and parts[1] == "service" and parts[2] == model.target_prefix and parts[3] == "operation":
            operation = model.operations.get(parts[4])
            if operation is not None:
                return Routed(wire, operation, {})
    raise unknown(
        wire_for(models[0], "smithy-rpc-v2-cbor"), "UnknownOperationException", "The path names no operation of the service."
    )


def _by_target(models: list[ServiceModel], target: str) -> Routed:
    prefix, _, name = target.rpartition(".")
    for model in models:
        if model.target_prefix == prefix:
            operation = model.operations.get(name)
            if operation is not None:
                return Routed(wire_for(model, "json"), operation, {})
    protocol = "json" if models[0].target_prefix else ""
    raise unknown(wire_for(models[0], protocol), "UnknownOperationException", f"{target[:200]} is no operation of the service")


def _by_action(models: list[ServiceModel], request: WireRequest) -> Routed:
    model = next((model for model in models if model.protocol in ("query", "ec2")), models[0])
    wire = wire_for(model, "ec2" if model.protocol == "ec2" else "query")
    try:
        tree = form_body.parse(request.body or request.query)
    except Malformed as error:
        raise unknown(wire, "MalformedQueryString", error.message) from error
    action, version = rest_value(tree, "Action"), rest_value(tree, "Version")
    if model.name == "sqs" and action:
        return _sqs_action(model, action, request)
    if not action:
        raise unknown(wire, "MissingAction", "The request must contain the parameter Action.")
    operation = model.operations.get(action)
    if operation is None or (version and version != model.api_version):
        said = version or model.api_version
        raise unknown(wire, "InvalidAction", f"Could not find operation {action[:128]} for version {said[:32]}")
    return Routed(wire, operation, {})


def _sqs_action(model: ServiceModel, action: str, request: WireRequest) -> Routed:
    wire = sqs_wire(model)
    try:
        return Routed(wire, wire.operation(action, request.path), {})
    except ServiceError as error:
        raise unknown(wire, error.name, error.message) from error


# --- REST


class _Candidate:
    """An operation at the end of a path, and what else must be there for it to be the one that is meant."""

    __slots__ = ("headers", "labels", "literals", "operation", "query")

    def __init__(self, operation: OperationModel, labels: tuple[str, ...]) -> None:
        self.operation = operation
        self.labels = labels
        pairs = (part.partition("=") for part in operation.uri.partition("?")[2].split("&") if part)
        self.literals = [(key, value) for key, _, value in pairs if key != "x-id"]  # a hint that few clients send
        members = operation.input.members if operation.input is not None else {}
        needed = [(n, members[n]) for n in (operation.input.required if operation.input is not None else ()) if n in members]
        self.query = [shape.wire_name(name) for name, shape in needed if shape.location == "querystring"]
        self.headers = [shape.wire_name(name).lower() for name, shape in needed if shape.location == "header"]

    def literals_fit(self, query: rest.Query) -> bool:
        return all(key in query and (not value or value in query[key]) for key, value in self.literals)

    def fits(self, query: rest.Query, headers: Mapping[str, str]) -> bool:
        return all(name in query for name in self.query) and all(name in headers for name in self.headers)

    @property
    def rank(self) -> tuple[int, int, bool]:
        """The more a candidate asks for, the more it is meant; of two alike the newer."""
        return len(self.literals), len(self.query) + len(self.headers), not self.operation.deprecated


class _Node:
    __slots__ = ("greedy", "label", "literals", "operations")

    def __init__(self) -> None:
        self.literals: dict[bytes, _Node] = {}
        self.label: _Node | None = None
        self.greedy: list[tuple[tuple[bytes, ...], _Node]] = []  # (segments that follow the greedy label, the end)
        self.operations: dict[str, list[_Candidate]] = {}


class Trie:
    """The REST operations of one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._root = _Node()
        self._virtual_hosts = model.name == "s3"
        for operation in model.operations.values():
            self._add(operation)

    def _add(self, operation: OperationModel) -> None:
        segments = operation.uri.partition("?")[0].encode().split(b"/")[1:]
        if segments and not segments[-1]:
            segments.pop()  # a "/" at the end of a path does not matter
        labels: list[str] = []
        node = self._root
        for at, segment in enumerate(segments):
            if segment.startswith(b"{"):
                labels.append(segment[1:-1].decode().removesuffix("+"))
            if segment.endswith(b"+}"):
                suffix = tuple(segments[at + 1 :])
                end = next((found for known, found in node.greedy if known == suffix), None)
                if end is None:
                    end = _Node()
                    node.greedy.append((suffix, end))
                    node.greedy.sort(key=lambda pair: -len(pair[0]))
                node = end
                break
            if segment.startswith(b"{"):
                node.label = node.label or _Node()
                node = node.label
            else:
                node = node.literals.setdefault(segment, _Node())
        candidate = _Candidate(operation, tuple(labels))
        node.operations.setdefault(operation.http_method, []).append(candidate)

    def find(self, request: WireRequest) -> tuple[OperationModel, dict[str, str]] | None:
        """The operation and the labels of its path, or None. Raises `Malformed`."""
        segments = self._path(request).split(b"/")[1:]
        query = rest.parse_query(request.query)
        second: tuple[_Candidate, list[bytes]] | None = None
        for node, values in self._ends(self._root, segments, []):
            able = [found for found in node.operations.get(request.method, ()) if found.literals_fit(query)]
            whole = [found for found in able if found.fits(query, request.headers)]
            if whole:
                best = max(whole, key=lambda found: found.rank)
                return best.operation, _labels(best, values)
            if able and second is None:  # something required is missing: the validation will say what
                second = max(able, key=lambda found: (len(found.literals), -found.rank[1])), values
        return None if second is None else (second[0].operation, _labels(*second))

    def _path(self, request: WireRequest) -> bytes:
        if self._virtual_hosts:
            bucket = _VIRTUAL_HOST.match(request.headers.get("host", ""))
            if bucket is not None:
                return b"/" + bucket["bucket"].encode() + request.path
        return request.path

    def _ends(self, node: _Node, segments: list[bytes], values: list[bytes]) -> Iterator[tuple[_Node, list[bytes]]]:
        """Where the path may end, the most literal reading first."""
        if not segments:
            yield node, values
            return
        first, rest_of = segments[0], segments[1:]
        literal = node.literals.get(first)
        if literal is not None:
            yield from self._ends(literal, rest_of, values)
        if node.label is not None and first:
            yield from self._ends(node.label, rest_of, [*values, first])
        for suffix, end in node.greedy:
            taken = segments[: len(segments) - len(suffix)] if tuple(segments[len(segments) - len(suffix) :]) == suffix else []
            if taken and (taken[0] or len(taken) > 1):
                yield end, [*values, b"/".join(taken)]
        if not first and not rest_of:
            yield node, values


def _labels(candidate: _Candidate, values: list[bytes]) -> dict[str, str]:
    try:
        return {name: unquote_to_bytes(raw).decode() for name, raw in zip(candidate.labels, values, strict=True)}
    except UnicodeDecodeError as error:
        raise Malformed("the path holds bytes that are not UTF-8", "body") from error


@cache
def trie_of(model: ServiceModel) -> Trie:
    """The trie of a service's REST operations, made when first needed."""
    return Trie(model)
