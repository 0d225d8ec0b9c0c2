"""Every AWS service on the api listener: who asks, which operation, may they, then the operation itself.

A request goes: route → authenticate → decode → authorize → validate → the service's method → encode. Services are handed in by
boto3's names ("lambda", "logs", "sts" …, see `codec.service`); one that is not there, and an operation without a method, are
answered with 501 in the protocol's own form, by name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final
from xml.etree import ElementTree

from martlet.auth import seen_from
from martlet.errors import AccessDenied, MartletError, ServiceError, Unsupported
from martlet.limits import LIMITS
from martlet.protocols import asgi, codec
from martlet.protocols.asgi import Answer, ASGIApp, Request
from martlet.protocols.codec import Caller, Malformed, OperationModel, Routed, Wire, WireAnswer, WireRequest
from martlet.protocols.rooms import Rooms
from martlet.types import ACCOUNT, ANONYMOUS, Principal

__all__ = ["Forward", "app", "is_aws", "wire_request", "xml_as_json"]

_log = logging.getLogger("martlet.protocols")

_FORM: Final = "application/x-www-form-urlencoded"
# Credential scopes under which the management API itself is called.
_MANAGEMENT: Final = frozenset({"martlet", "execute-api"})
_STAGE: Final = re.compile(rb"(?:/_api/[a-z0-9]+)?/[A-Za-z0-9_$-]+")
# What Lambda says of a request that is too large. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_LARGEST: Final = {"lambda": 70_167_211}


def wire_request(request: Request) -> WireRequest:
    """A request as the codec takes it, without its body."""
    if not isinstance(request.wire, WireRequest):
        request.wire = _wire_request(request, b"")
    return request.wire


_CONNECTIONS: Final = b"/@connections/"  # of WebSocket APIs; a stage, or where its API answers, may come before it


def is_aws(request: Request) -> bool:
    """Whether only an AWS client sends this: a signature for a service, X-Amz-Target, a dated path, a form to "/"."""
    wire = wire_request(request)
    signed = codec.signed_service(wire)
    if signed in _MANAGEMENT:
        return signed == "execute-api" and wire.path.startswith(_CONNECTIONS)
    if signed and signed != "lambda":
        return True
    if "x-amz-target" in wire.headers or wire.path.startswith(b"/service/"):
        return True
    if signed == "" and request.method == "POST" and wire.path in (b"", b"/"):
        return wire.headers.get("content-type", "").startswith(_FORM)
    return codec.is_dated(wire.path) or codec.is_queue_path(wire.path)


def app(rooms: Rooms) -> ASGIApp:
    """The endpoint. Expects SigV4 or a bearer token, or `scope["martlet.context"]`."""
    return asgi.app(_Dispatcher(rooms).respond, lambda error, request: asgi.problem_answer(error, request.id), rooms.audit)


def _wire_request(request: Request, body: bytes) -> WireRequest:
    path, headers = request.raw_path, request.headers
    at = path.find(_CONNECTIONS)
    if at > 0 and "/execute-api/" in headers.get("authorization", "") and _STAGE.fullmatch(path[:at]):
        path = path[at:]  # a bucket may have keys of this name
    return WireRequest(request.method, path, request.raw_query, headers, body)


class _Call:
    """One request on its way; what is known of it so far decides in which form an error goes out."""

    __slots__ = ("operation", "request", "wire")

    def __init__(self, request: WireRequest) -> None:
        self.request = request
        self.wire: Wire | None = None
        self.operation: OperationModel | None = None


class _Dispatcher:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._loaded: set[str] = set()

    async def respond(self, request: Request) -> Answer:
        """The answer to a request, errors included, in its protocol's form."""
        call = _Call(wire_request(request))
        try:
            answer = await self._respond(request, call)
        except (MartletError, Malformed) as error:
            request.error = error if isinstance(error, MartletError) else None
            answer = codec.answer(error, call.wire, call.operation, call.request, request.id)
        except asgi.ClientGone:
            raise
        except Exception:
            _log.exception("request %s %s failed", request.id, call.operation)
            failed = MartletError("something went wrong inside Martlet; its log has the details")
            answer = codec.answer(failed, call.wire, call.operation, call.request, request.id)
        return _sent(answer)

    async def _respond(self, request: Request, call: _Call) -> WireAnswer:
        names = codec.candidates(call.request)
        most = _LARGEST.get(names[0] if names else "", LIMITS["aws_request_bytes"].default)
        body = await request.body_up_to(most)
        if body is not None:
            call.request = _wire_request(request, body)
            names = names or codec.candidates(call.request)
        if not any(name in self._rooms.services or name in codec.FAMILIAR for name in names):
            if body is None:
                raise _too_large(call, most)
            self._authenticate(request, body, None)  # nobody makes us read some 400 models without showing who they are
        await self._load(names)
        routed = self._route(names, call)
        if isinstance(routed, Routed):
            call.wire, call.operation = routed.wire, routed.operation
        else:
            call.wire = routed.details.get("wire")  # type: ignore[assignment]
        if body is None:
            raise _too_large(call, most)
        principal = self._authenticate(request, body, call.operation)
        if not isinstance(routed, Routed):
            raise routed
        return await self._perform(routed, call.request, request, principal)

    async def _load(self, names: tuple[str, ...]) -> None:
        """Reads models that nobody has asked for yet, off the loop: the largest takes some 50 ms."""
        missing = [name for name in names if name not in self._loaded]
        if missing:
            await asyncio.to_thread(lambda: [codec.load(name) for name in missing])
            self._loaded.update(name for name in missing if codec.load(name) is not None)

    def _route(self, names: tuple[str, ...], call: _Call) -> Routed | ServiceError | Unsupported:
        """Where the request goes, or the error that its sender gets once it has shown who it is."""
        try:
            routed = codec.route(names, call.request)
        except ServiceError as error:
            if error.details.get("wire") is None:
                return _no_service(names, call.request)
            return error
        except Malformed as error:
            failed = ServiceError("MalformedQueryString", error.message)
            failed.details["wire"] = codec.first_wire(names)
            return failed
        if routed.operation.service.name not in self._rooms.services:
            operation = routed.operation
            missing = Unsupported(f"the operation {operation.service.name}:{operation.name} is not supported")
            missing.details["wire"] = routed.wire
            return missing
        return routed

    def _authenticate(self, request: Request, body: bytes, operation: OperationModel | None) -> Principal:
        found = request.sender = self._sender(request, body, operation)
        if found.standing is None:
            return found
        return seen_from(found, request.client_ip, user_agent=request.headers.get("user-agent", ""))

    def _sender(self, request: Request, body: bytes, operation: OperationModel | None) -> Principal:
        if request.context is not None:
            return request.context
        if operation is not None and operation.anonymous and "authorization" not in request.headers:
            return ANONYMOUS
        return self._rooms.auth.authenticate(request.method, request.raw_path, request.raw_query, request.raw_headers, body)

    async def _perform(self, routed: Routed, wire_request: WireRequest, request: Request, principal: Principal) -> WireAnswer:
        operation = routed.operation
        service = self._rooms.services[operation.service.name]
        method = codec.method_of(service, operation)
        value = routed.wire.decode(operation, wire_request, routed.labels)
        permission = codec.permission_of(service, operation, value)
        if permission is not None and not operation.anonymous:
            self._authorize(service, principal, *permission)
        codec.precheck(service, operation, value)
        codec.check(operation, value)
        waits = getattr(service, "waits", None)
        work = method(self._caller(request, principal), value)
        result = await (self._while_there(request, work) if waits and waits(operation.name, value) else work) or {}
        request_id = str(result.get("ResponseMetadata", {}).get("RequestId") or request.id)
        return routed.wire.encode(operation, result, request_id)

    def _authorize(self, service: object, principal: Principal, action: str, resource: str, *known: Any) -> None:
        """The caller's own grants decide, and the policy of the resource where its service knows one; `known` is what else
        the service tells the decision. Raises `AccessDenied`."""
        says: Callable[[Principal, str, str], str] | None = getattr(service, "verdict", None)
        said = says(principal, action, resource) if says is not None else ""
        if said == "deny":
            who = f"{principal.kind} {principal.name}".rstrip()
            raise AccessDenied(
                f"{who} may not {action} on {resource}, with an explicit deny in a resource-based policy",
                principal=principal.name or principal.kind, action=action, resource=resource, explicit=True,
            )  # fmt: skip
        try:
            self._rooms.auth.authorize(principal, action, resource, *known)
        except AccessDenied as error:
            if said != "allow" or error.details.get("explicit"):
                raise

    async def _while_there(self, request: Request, work: Awaitable[dict[str, Any] | None]) -> dict[str, Any] | None:
        """The result of a call that may wait for long; it ends when its client goes away."""
        doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.gone())
        try:
            await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise asgi.ClientGone
            return doing.result()
        finally:
            for task in (doing, gone):
                if not task.done():
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    def _caller(self, request: Request, principal: Principal) -> Caller:
        headers = request.headers
        return Caller(
            principal=principal,
            region=self._rooms.region,
            account=ACCOUNT,
            request_id=request.id,
            endpoint=f"http://{headers.get('host', '127.0.0.1')}",
            trace_id=headers.get("x-amzn-trace-id", ""),
            source_ip=request.client_ip,
            signed_region=_region_of(headers.get("authorization", "")),
        )


def _region_of(authorization: str) -> str:
    """The region in a signature's scope, which a client may choose as it likes; "" for none."""
    return _region(authorization.partition("Credential=")[2].partition(",")[0])


@lru_cache(maxsize=256)
def _region(credential: str) -> str:
    parts = credential.split("/")
    return parts[2] if len(parts) == 5 and parts[2].isascii() and parts[2].replace("-", "").isalnum() else ""


def _no_service(names: tuple[str, ...], request: WireRequest) -> Unsupported:
    target = request.headers.get("x-amz-target", "")
    what = f"the operation {target[:200]}" if target else f"the service {' or '.join(names) or 'of this request'}"
    return Unsupported(f"{what} is not supported")


def _too_large(call: _Call, most: int) -> ServiceError:
    name = call.operation.name if call.operation is not None else "requested"
    message = f"Request must be smaller than {most} bytes for the {name} operation"
    return ServiceError("RequestEntityTooLargeException", message, 413)


def _sent(answer: WireAnswer) -> Answer:
    return Answer(answer.status, answer.body, answer.headers)


class Forward:
    """Requests of the platform's own to a service, by a principal that is known already (integrations of APIs)."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._dispatcher = _Dispatcher(rooms)

    async def __call__(
        self, service: str, principal: Principal, method: str, uri: str, query: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """`uri` is "path/<path>" or "action/<operation>". Errors are answers, as they are to any client."""
        kind, _, rest = uri.partition("/")
        sent = {name.lower(): value for name, value in headers if name.lower() != "authorization"}
        sent["authorization"] = f"AWS4-HMAC-SHA256 Credential=x/19700101/{self._rooms.region}/{service}/aws4_request"
        path = "/" + rest.lstrip("/") if kind == "path" else "/"
        if kind == "action":
            model = await asyncio.to_thread(codec.load, service)
            if model is not None and model.target_prefix:
                sent["x-amz-target"] = f"{model.target_prefix}.{rest}"
                sent["content-type"] = f"application/x-amz-json-{model.json_version}"
            elif model is not None:
                query = f"Action={rest}&Version={model.api_version}" + (f"&{query}" if query else "")
        request = _own_request(method, path, query, sent, body, principal)
        answer = await self._dispatcher.respond(request)
        said = answer.body if isinstance(answer.body, bytes) else b"".join([part async for part in answer.body])
        if "xml" in dict(answer.headers).get("content-type", "") and sent.get("accept", "") == "application/json":
            return answer.status, [("content-type", "application/json")], xml_as_json(said)
        return answer.status, list(answer.headers), said


def _own_request(method: str, path: str, query: str, headers: dict[str, str], body: bytes, principal: Principal) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("ascii", "replace"),
        "query_string": query.encode("ascii", "replace"),
        "headers": [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers.items()],
        "martlet.context": principal,
    }
    return Request(scope, receive)


def xml_as_json(text: bytes) -> bytes:
    """A query service's answer in JSON, as it is given to those who accept only that: API Gateway asks so.

    Lists are those elements whose children are all called "member"; attributes and namespaces are left out."""

    def value(element: ElementTree.Element) -> Any:
        children = list(element)
        if not children:
            return element.text
        if all(_tag(child) == "member" for child in children):
            return [value(child) for child in children]
        return {_tag(child): value(child) for child in children}

    root = ElementTree.fromstring(text)  # our own encoder's output
    return json.dumps({_tag(root): value(root)}).encode()


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
