"""Proxy routes: a request goes to another HTTP server as it came, and its answer comes back as it is (RFC 9110 section 7.6).

Bodies stream both ways: each side is read only as fast as the other one takes it. What goes out is written anew from what was
parsed strictly, with framing of our own, so that no other server can read another request in it. An answer that ends before its
end is cut for the client too, never ended as if it were whole. A client that leaves ends the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from martlet.clock import token_hex
from martlet.errors import InvalidInput, MartletError, Overloaded
from martlet.gateway.answer import Headers, problem
from martlet.gateway.apis.backend import Backend, BackendFailed, Incoming, Origin, split_url
from martlet.gateway.http import Exchange
from martlet.gateway.payload import forwarded
from martlet.types import Upstream

__all__ = ["Answered", "Proxies", "Target"]

_HOP_BY_HOP: Final = frozenset(  # RFC 9110 section 7.6.1; and Upgrade, which we do not do
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
_OURS: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto"))
_NOT_SENT: Final = _HOP_BY_HOP | _OURS | {b"content-length", b"expect", b"host", b"proxy", b"via"}
_NOT_ANSWERED: Final = _HOP_BY_HOP | {b"via"}
_LENGTH: Final = b"content-length"


class BadGateway(MartletError):
    """The server behind a proxy route cannot be reached, or did not speak HTTP."""

    http_status = 502
    code = "bad_gateway"


class GatewayTimeout(MartletError):
    """The server behind a proxy route took too long."""

    http_status = 504
    code = "gateway_timeout"


class LoopDetected(MartletError):
    """A request has come back to the gateway that sent it on."""

    http_status = 508
    code = "loop_detected"


class Answered(Protocol):
    """What is done with an answer's headers on the way to the client."""

    def __call__(self, headers: list[tuple[bytes, bytes]]) -> Headers: ...


class Target:
    """An `Upstream`, ready for requests. Raises `MartletError` for a URL that is none."""

    __slots__ = ("_base", "_keep_host", "_strip", "origin", "timeout_seconds")

    def __init__(self, upstream: Upstream) -> None:
        self.origin, base = split_url(upstream.to)
        self._base = base.rstrip("/").encode("ascii")
        self._strip = upstream.strip.rstrip("/").encode()
        self._keep_host = upstream.host == "client"
        self.timeout_seconds = upstream.timeout_seconds

    def target(self, path: bytes, query: bytes) -> bytes:
        """The request target there. Raises `InvalidInput` for a path that would leave the route once somebody resolves it."""
        segments = unquote_to_bytes(path).replace(b"\\", b"/").split(b"/")
        if not path.startswith(b"/") or b"." in segments or b".." in segments:
            raise InvalidInput("the path has . or .. among its segments")
        if self._strip and (path == self._strip or path.startswith(self._strip + b"/")):
            path = path[len(self._strip) :] or b"/"
        return self._base + path + (b"?" + query if query else b"")

    def host(self, given: bytes) -> bytes | None:
        """The Host to send, if it is not that of the server."""
        return given if self._keep_host and given else None


class Proxies:
    """Sends exchanges on. `count(status)` is told each answer; `under_way` holds a token for each request."""

    def __init__(self, backend: Backend, under_way: set[object], count: Callable[[int], None]) -> None:
        self._backend = backend
        self._under_way = under_way
        self._count = count
        self._tasks: set[asyncio.Task[None]] = set()
        self._down: set[Origin] = set()  # which failed last
        self._name = f"martlet-{token_hex(4)}"  # ours alone, so that a request that comes back is known

    async def close(self) -> None:
        """Give up what is under way, and close connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.close()

    def send(self, exchange: Exchange, target: Target, finish: Answered) -> None:
        """Serve one exchange by the server at `target`; `finish` has the last word on the answer's headers."""
        task = asyncio.get_running_loop().create_task(self._serve(exchange, target, finish))
        self._tasks.add(task)
        self._under_way.add(task)

        def left() -> None:
            task.cancel()

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._under_way.discard(task)
            exchange.abort()  # of a task that was cancelled before its first step; else there is nothing left to abort

        exchange.on_disconnect = left
        exchange.on_eof = left
        task.add_done_callback(ended)

    async def _serve(self, exchange: Exchange, target: Target, finish: Answered) -> None:
        try:
            incoming = await self._ask(exchange, target)
            self._down.discard(target.origin)
            try:
                await self._pass_on(exchange, incoming, target.timeout_seconds, finish)
            finally:
                incoming.release()
        except asyncio.CancelledError:
            exchange.abort()  # the client left, or the listener has stopped
        except (MartletError, TimeoutError, ConnectionAbortedError, ValueError) as error:
            self._fail(exchange, target, error, finish)
        except BaseException:
            exchange.abort()
            raise

    # the request

    async def _ask(self, exchange: Exchange, target: Target) -> Incoming:
        request = exchange.request
        place = target.target(request.path, request.query)
        body = request.stream if request.stream is not None else request.body
        headers = self._request_headers(exchange, target)
        return await self._backend.send(request.method, target.origin, place, headers, body, target.timeout_seconds)

    def _request_headers(self, exchange: Exchange, target: Target) -> list[tuple[bytes, bytes]]:
        request = exchange.request
        via = request.header(b"via")
        if via is not None and self._name.encode() in via:
            raise LoopDetected("this request has been here already", remedy="let the route lead to another server")
        named = _named_in(request.header(b"connection"))
        found = [(name, value) for name, value in request.headers if _is_sent(name.lower(), named)]
        host = target.host(request.host)
        if host is not None:
            found.append((b"Host", host))
        seen = forwarded(request)
        found += [(name.title().encode(), value.encode("latin-1")) for name, value in seen.items()]
        if request.host:
            found.append((b"X-Forwarded-Host", request.host))
        found.append((b"Forwarded", _forwarded(exchange)))
        found.append((b"Via", (via + b", " if via else b"") + f"{request.version} {self._name}".encode()))
        return found

    # the answer

    async def _pass_on(self, exchange: Exchange, incoming: Incoming, seconds: float, finish: Answered) -> None:
        named = _named_in(next((value for name, value in incoming.headers if name.lower() == b"connection"), None))
        headers = [one for one in incoming.headers if one[0].lower() not in _NOT_ANSWERED and one[0].lower() not in named]
        via = b"1.1 " + self._name.encode()
        headers.append((b"Via", via))
        self._count(incoming.status)
        if incoming.complete and not incoming.bodyless:
            exchange.respond(incoming.status, finish(headers), await incoming.read())
            return
        flowing = asyncio.Event()
        exchange.on_drain = flowing.set
        exchange.start(incoming.status, finish(headers))
        while True:
            async with asyncio.timeout(seconds):
                piece = await incoming.read()
            if not piece:
                break
            exchange.write(piece)
            while exchange.paused:
                flowing.clear()
                await flowing.wait()
        exchange.end()

    def _fail(self, exchange: Exchange, target: Target, error: Exception, finish: Answered) -> None:
        if isinstance(error, BackendFailed) and target.origin not in self._down:
            self._down.add(target.origin)  # the operator is told once; the public is not told which server it is
            remedy = f" ({error.remedy})" if error.remedy else ""
            told = f"a proxy route is not served: {error.message}{remedy}"
            asyncio.get_running_loop().call_exception_handler({"message": told})
        if exchange.started:
            exchange.abort()
            return
        said = _said(error)
        headers, body = problem(said)
        self._count(said.http_status)
        exchange.respond(said.http_status, finish(headers), body)


def _said(error: Exception) -> MartletError:
    """What the client is told."""
    if isinstance(error, BackendFailed):
        if error.details.get("busy"):
            return Overloaded("limit proxy_connections: too many connections to other servers")
        if error.details.get("timed_out"):
            return GatewayTimeout("the server behind this route cannot be reached in time")
        if error.details.get("refused"):
            return BadGateway("the server behind this route may not be called")
        return BadGateway("the server behind this route is not there, or its answer is not HTTP")
    if isinstance(error, TimeoutError):
        return GatewayTimeout("the server behind this route took too long")
    if isinstance(error, ConnectionAbortedError):
        return InvalidInput("the request ends before its end")
    return error if isinstance(error, MartletError) else BadGateway("the answer cannot be passed on")


def _named_in(connection: bytes | None) -> frozenset[bytes]:
    """The fields that are for the next hop alone."""
    return frozenset(option.strip().lower() for option in (connection or b"").split(b","))


def _is_sent(name: bytes, named: frozenset[bytes]) -> bool:
    """CGI and its heirs read X_Forwarded_For as X-Forwarded-For: both spellings of what we say are ours."""
    return name not in named and name not in _NOT_SENT and name.replace(b"_", b"-") not in _OURS


def _forwarded(exchange: Exchange) -> bytes:
    """The client's chain and our hop (RFC 7239)."""
    request = exchange.request
    address = request.client[0]
    node = f'"[{address}]"' if ":" in address else address or "unknown"
    element = f"for={node};proto={request.scheme}".encode()
    if request.host:
        element += b';host="%b"' % request.host
    before = request.header(b"forwarded")
    return before + b", " + element if before else element
