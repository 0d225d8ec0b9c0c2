"""The few pieces of HTTP that the platform's own endpoints need, on ASGI 3: requests, answers, a router.

Paths are matched on the raw path, segment by segment, each decoded after the split: "%2F" in a name stays in the name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from martlet.auth.acts import Act, witness
from martlet.clock import uuid4_text
from martlet.errors import (
    InvalidInput,
    MartletError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Throttled,
    Unauthenticated,
    Unsupported,
)
from martlet.limits import exceeded
from martlet.types import Principal

__all__ = [
    "ASGIApp",
    "Answer",
    "ClientGone",
    "Handler",
    "Operation",
    "Receive",
    "Request",
    "Router",
    "Scope",
    "Send",
    "Socket",
    "denying",
    "json_answer",
    "problem_answer",
    "send_answer",
]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = tuple[tuple[str, str], ...]

_log = logging.getLogger("martlet.protocols")


class Answer(msgspec.Struct, frozen=True):
    """What goes back. `body` is bytes or, for a stream, an async iterator of bytes.

    `talk`, only where `Request.is_socket`: the request becomes a WebSocket, and this speaks it.
    """

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    headers: Headers = ()
    talk: Callable[[Socket], Awaitable[None]] | None = None


class Socket:
    """A WebSocket. Sending waits while the client reads too slowly, and raises `OSError` once it is gone."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.subprotocols: list[str] = list(scope.get("subprotocols", ()))
        self._receive = receive
        self._send = send

    async def accept(self, subprotocol: str = "") -> None:
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol or None})

    async def receive(self) -> str | bytes | None:
        """The next message; None: the client is gone."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return None
            if message["type"] == "websocket.receive":
                text = message.get("text")
                return text if text is not None else bytes(message["bytes"])

    async def send(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str = "") -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class Request:
    """One request. `segments` are the decoded parts of the path, `parameters` what the router found in them."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.is_socket: bool = scope["type"] == "websocket"
        self.method: str = "GET" if self.is_socket else scope["method"]
        raw_path = scope.get("raw_path") or scope["path"].encode()
        self.raw_path: bytes = bytes(raw_path).split(b"?", 1)[0]
        self.raw_query: bytes = bytes(scope.get("query_string", b""))
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.parameters: dict[str, str] = {}
        self.id = uuid4_text()
        self.client_ip = str((scope.get("client") or ("", 0))[0])
        self._receive = receive
        self._headers: dict[str, str] | None = None
        self.wire: object = None  # for AWS's protocols: the request without its body as their codec takes it, made once
        context = scope.get("martlet.context")
        self._left: Callable[[], Awaitable[None]] | None = scope.get("martlet.left")
        self.context: Principal | None = context if isinstance(context, Principal) else None
        self.sender: Principal | None = self.context  # who it is from, once that is known
        self.error: MartletError | None = None  # what its answer says went wrong

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Request:
        """The request of a scope: one for all who look at it, so that its headers are read once."""
        found = scope.get("martlet.request")
        if not isinstance(found, cls):
            found = scope["martlet.request"] = cls(scope, receive)
        return found

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; a name that came several times has its values joined by ", "."""
        if self._headers is None:
            found: dict[str, str] = {}
            for raw_name, raw_value in self.raw_headers:
                name, value = _name(raw_name), raw_value.decode("latin-1").strip()
                found[name] = f"{found[name]}, {value}" if name in found else value
            self._headers = found
        return self._headers

    def add_header(self, name: str, value: str) -> None:
        """As if the client had sent it. Raises `InvalidInput` for what cannot be a header."""
        if not value.isprintable() or not value.isascii():
            raise InvalidInput(f"{name} is not printable ASCII", field=name)
        self.raw_headers = [*self.raw_headers, (name.encode("ascii"), value.encode("ascii"))]
        self._headers = None

    def segments(self) -> list[str] | None:
        """The path's decoded parts; None if one of them is not UTF-8."""
        try:
            if b"%" not in self.raw_path:
                return self.raw_path.decode().split("/")[1:]
            return [unquote_to_bytes(part).decode() for part in self.raw_path.split(b"/")[1:]]
        except UnicodeDecodeError:
            return None

    def query(self, allowed: Iterable[str]) -> dict[str, str]:
        """The query's parameters. Raises `InvalidInput` by name for one that is not `allowed` or comes twice."""
        found: dict[str, str] = {}
        try:
            pairs = parse_qsl(self.raw_query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
        except ValueError as error:
            raise InvalidInput(f"the query is malformed: {error}") from error
        for name, value in pairs:
            if name not in allowed:
                raise InvalidInput(f"there is no query parameter {name!r} here", field=name)
            if name in found:
                raise InvalidInput(f"the query parameter {name} is given twice", field=name)
            found[name] = value
        return found

    async def body(self, limit: str) -> bytes:
        """The whole body. Raises `LimitExceeded` as soon as it is, or says it is, longer than limit `limit`."""
        most = _limit(limit)
        length = self.content_length()
        if length is not None and length > most:
            raise exceeded(limit, length, "the request's body")
        body = await self.body_up_to(most)
        if body is None:
            raise exceeded(limit, None, "the request's body")
        return body

    async def body_up_to(self, most: int) -> bytes | None:
        """The whole body, or None as soon as it has more than `most` bytes."""
        parts: list[bytes] = []
        size = 0
        if self.is_socket:
            return b""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                return None
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body, part by part as it comes. Raises `ClientGone` if the rest does not come."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            if part:
                yield part
            if not message.get("more_body", False):
                return

    async def gone(self) -> None:
        """Return when the client has gone away. To be called once the body has been read."""
        await (self._left() if self._left is not None else _disconnected(self._receive))

    def content_length(self) -> int | None:
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@lru_cache(maxsize=1024)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()


class ClientGone(Exception):
    """The client went away before its request was complete: there is nobody to answer."""


def _limit(name: str) -> int:
    from martlet.apps.archive import UPLOAD_BYTES
    from martlet.limits import LIMITS

    return UPLOAD_BYTES if name == "code_bytes" else LIMITS[name].default


# --- answers


def json_answer(value: object, status: int = 200, headers: Headers = ()) -> Answer:
    """A JSON answer."""
    return Answer(status, msgspec.json.encode(value), (("content-type", "application/json"), *headers))


def problem_answer(error: MartletError, request_id: str = "") -> Answer:
    """An error as RFC 9457 problem+json, with Retry-After (RFC 9110 section 10.2.3) and WWW-Authenticate where they belong."""
    headers: list[tuple[str, str]] = [("content-type", "application/problem+json")]
    body = error.problem()
    if isinstance(error, Throttled | Overloaded):
        headers.append(("retry-after", str(error.retry_after_seconds)))
        body["retry_after_seconds"] = error.retry_after_seconds
    if isinstance(error, Unauthenticated):
        headers.append(("www-authenticate", 'Bearer realm="martlet"'))
    if isinstance(error, MethodNotAllowed):
        headers.append(("allow", ", ".join(error.methods)))
    if request_id:
        body["request_id"] = request_id
    status = int(body["status"]) if isinstance(body["status"], int) else error.http_status
    return Answer(status, msgspec.json.encode(body, enc_hook=str), tuple(headers))


async def send_answer(answer: Answer, receive: Receive, send: Send) -> None:
    """Send an answer; a stream is closed when the client goes away."""
    headers = _encoded(answer.headers)
    if isinstance(answer.body, bytes):
        said = any(name == "content-length" for name, _ in answer.headers)  # of the body that a HEAD does not get
        if (
            answer.status not in (204, 304) and not said
        ):  # RFC 9110 section 8.6: not on 204; on 304 it would speak of the 200's body
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        return
    streaming = asyncio.create_task(_stream(answer.status, headers, answer.body, send))
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((streaming, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not streaming.done():
            streaming.cancel()
        results = await asyncio.gather(streaming, gone, return_exceptions=True)
    if isinstance(results[0], Exception) and not isinstance(results[0], OSError):  # OSError: the client went away
        raise results[0]


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]


async def _stream(status: int, headers: list[tuple[bytes, bytes]], body: AsyncIterator[bytes], send: Send) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    try:
        async for part in body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- the router

Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class Operation(msgspec.Struct, frozen=True):
    """One operation: `path` such as "/v1/apps/{name}"."""

    method: str
    path: str
    handler: Handler

    def parts(self) -> list[str]:
        return self.path.split("/")[1:]


class Router:
    """Finds the operation for a request."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._split = [(operation.parts(), operation) for operation in self.operations]
        self._near: dict[tuple[int, str], list[tuple[list[str], Operation]]] = {}

    def _candidates(self, segments: list[str]) -> list[tuple[list[str], Operation]]:
        """Operations of as many segments, whose second one may be this: what is left to compare is little."""
        second = segments[1] if len(segments) > 1 else ""
        found = self._near.get((len(segments), second))
        if found is None:
            found = [
                (parts, operation)
                for parts, operation in self._split
                if len(parts) == len(segments) and (len(parts) < 2 or parts[1] == second or parts[1].startswith("{"))
            ]
            if any(len(parts) > 1 and parts[1] == second for parts, _ in found):  # a bounded number: not whatever clients ask
                self._near[len(segments), second] = found
        return found

    def find(self, request: Request) -> Handler:
        """The handler, with `request.parameters` set. Raises `NotFound`, or `MethodNotAllowed` with the methods there are."""
        segments = request.segments()
        methods: set[str] = set()
        for parts, operation in self._candidates(segments) if segments is not None else ():
            parameters = _match(parts, segments or [])
            if parameters is not None:
                if operation.method == request.method:
                    request.parameters = parameters
                    return operation.handler
                methods.add(operation.method)
        path = request.raw_path.decode("latin-1")
        if methods:
            taken = tuple(sorted(methods))
            raise MethodNotAllowed(f"{path} does not take {request.method}, only {', '.join(taken)}", methods=taken)
        raise NotFound(f"there is no endpoint {request.method} {path}", remedy="see GET /v1/openapi.json")


def _match(parts: list[str], segments: list[str]) -> dict[str, str] | None:
    """What the parts in braces stand for; None for another path. As many segments as parts."""
    parameters: dict[str, str] = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            parameters[part[1:-1]] = segment
        elif part != segment:
            return None
    return parameters


def whole(query: dict[str, str], name: str, default: int, *, low: int = 0, high: int = 1 << 53) -> int:
    """A query parameter that is a number; `default` where it is absent. Raises `InvalidInput`."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or not low <= int(text) <= high:
        raise InvalidInput(f"{name} must be a whole number from {low} to {high}, got {text[:40]!r}", field=name)
    return int(text)


def flag(query: dict[str, str], name: str) -> bool:
    """A query parameter that is true or false; false where it is absent. Raises `InvalidInput`."""
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidInput(f"{name} must be true or false, got {text[:40]!r}", field=name)
    return text == "true"


def app(
    respond: Callable[[Request], Awaitable[Answer]],
    on_error: Callable[[MartletError, Request], Answer],
    audit: Callable[[Request, list[Act], int], Awaitable[None]] | None = None,
) -> ASGIApp:
    """An ASGI application from one coroutine; every error becomes the protocol's own answer by `on_error`.

    `audit` hears of each request what it was decided to do, and its status, before its answer leaves."""

    async def answered(request: Request) -> Answer:
        try:
            return await respond(request)
        except MartletError as error:
            request.error = error
            return on_error(error, request)
        except ClientGone:
            raise
        except Exception:
            _log.exception("request %s %s %s failed", request.id, request.method, request.raw_path.decode("latin-1"))
            return on_error(MartletError("something went wrong inside Martlet; its log has the details"), request)

    async def audited(request: Request) -> Answer:
        assert audit is not None
        with witness() as acts:
            answer = await answered(request)
        try:
            await audit(request, acts, answer.status)
        except MartletError as error:  # what was done cannot be taken back, but nobody is told that all is well
            return on_error(error, request)
        return answer

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            raise RuntimeError(f"this endpoint speaks HTTP, not {scope['type']}")
        request = Request.of(scope, receive)
        try:
            answer = await (answered if audit is None else audited)(request)
        except ClientGone:
            return
        if request.is_socket:
            await _talk(request, answer, Socket(scope, receive, send), receive, send, on_error)
        else:
            await _reply(request, answer, scope, receive, send)

    return serve


async def _reply(request: Request, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    whole = scope.get("martlet.respond")
    if whole is not None and isinstance(answer.body, bytes) and request.method != "HEAD":
        whole(answer.status, _encoded(answer.headers), answer.body)
        return
    with contextlib.suppress(OSError):  # ASGI 2.4: the client went away
        await send_answer(answer, receive, send)


async def _talk(
    request: Request,
    answer: Answer,
    socket: Socket,
    receive: Receive,
    send: Send,
    on_error: Callable[[MartletError, Request], Answer],
) -> None:
    """Speak the WebSocket that the answer is, or refuse the handshake by an answer of HTTP."""
    with contextlib.suppress(OSError):  # the client went away
        if answer.talk is not None:
            await answer.talk(socket)
            return
        if not isinstance(answer.body, bytes):
            answer = on_error(Unsupported("this is a stream, and no WebSocket: leave Upgrade out", field="Upgrade"), request)
        await send_answer(answer, receive, denying(send))


def denying(send: Send) -> Send:
    """For a WebSocket's scope: an answer of HTTP is what refuses the handshake."""

    async def translate(message: Message) -> None:
        kind = str(message["type"])
        await send({**message, "type": f"websocket.{kind}"} if kind.startswith("http.response.") else message)

    return translate


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def json_fault(payload: bytes) -> str:
    """Why `payload` is not one JSON text in UTF-8; "" when it is, or is empty."""
    if not payload:
        return ""
    try:
        payload.decode()
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        return str(error) or type(error).__name__
    return ""
