"""Other HTTP servers: a client with kept connections, time limits and size limits, and a guard on where it may go. It serves
HTTP integrations, HTTP targets of events and apps' proxy routes.

Who writes an integration's URI is an app's author; whose network it is called from is the owner of the host. So addresses
that are only reachable from here are refused after the name was resolved, and the connection goes to the address that was
checked (a name that changes its mind gains nothing): this host itself, link-local addresses and clouds' metadata services,
which hand out the host's own credentials. Private networks are not refused, as for functions' egress. The setting
`integration_hosts` names hosts, or host:port, that may be called wherever they are, "*" for all. Redirects are not followed.

A request that failed on a kept connection is sent again, on a new one, only if it is idempotent, nothing of an answer came and
its body is still here (RFC 9110 section 9.2.2). Any other request takes a kept connection only while that is fresh: the server
may be about to close an older one.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import httptools

from martlet.errors import InvalidInput, MartletError
from martlet.functions.egress import is_called, permission, refused_address
from martlet.gateway.stream import BodyStream
from martlet.limits import LIMITS

__all__ = ["Backend", "BackendAnswer", "BackendFailed", "Incoming", "Origin", "split_url"]

_IDLE_SECONDS: Final = 30.0
_FRESH_SECONDS: Final = 1.0  # servers keep an idle connection for two seconds at least (gunicorn; Apache and Node.js: five)
_IDLE_AT_MOST: Final = 32  # kept connections of one origin
_HEAD_BYTES: Final = 65_536
_CHUNK_BYTES: Final = 65_536
_CONNECT_SECONDS: Final = 5.0
_IDEMPOTENT: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT"))

Origin = tuple[str, str, int]  # scheme, host, port
RawHeaders = list[tuple[bytes, bytes]]


class BackendFailed(MartletError):
    """The backend of an HTTP integration could not be asked."""

    http_status = 504
    code = "backend_failed"


class BackendAnswer:
    """A backend's answer. Header names keep their case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""


class _Reader:
    """httptools' callbacks for one answer: its fields, and the pieces of its body that nobody has taken yet."""

    def __init__(self) -> None:
        self.headers: RawHeaders = []
        self.pieces: list[bytes] = []
        self.head_size = 0
        self.done = False
        self.more = False  # bytes behind the answer, which nobody has asked for

    def on_message_begin(self) -> None:
        self.more = self.done

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.more:
            return
        self.head_size += len(name) + len(value)
        if self.head_size > _HEAD_BYTES:
            raise ValueError("head too large")
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        if not self.more:
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.done = True


class _Connection:
    """One connection to one origin."""

    __slots__ = ("expires", "reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.expires = 0.0

    @property
    def usable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing() and not self.reader._buffer  # type: ignore[attr-defined]


class Incoming:
    """An answer that comes in: `begin` reads its head, then `read` gives the body, b"" at its end. `release` in any case.

    Both raise `BackendFailed` for a connection that breaks and an answer that is not HTTP/1.1 or is cut.
    """

    __slots__ = (
        "_backend", "_bodyless", "_connection", "_head", "_method", "_origin", "_parser", "_reader", "_rest", "status",
        "upload",
    )  # fmt: skip

    def __init__(self, backend: Backend, origin: Origin, connection: _Connection, method: str) -> None:
        self._backend = backend
        self._origin = origin
        self._connection: _Connection | None = connection
        self._method = method
        self._head = b""
        self._rest = b""  # behind the head, or what comes after the answer
        self._bodyless = False
        self._reader = _Reader()
        self._parser: Any = None
        self.status = 0
        self.upload: asyncio.Task[None] | None = None  # the request's body, still on its way

    @property
    def headers(self) -> RawHeaders:
        return self._reader.headers

    @property
    def silent(self) -> bool:
        """Nothing of the answer has come."""
        return not self._head and not self._rest

    @property
    def complete(self) -> bool:
        """All of the body is here, though perhaps not read yet."""
        return self._bodyless or self._reader.done

    @property
    def bodyless(self) -> bool:
        """By its method or status it has no body, whatever its fields say."""
        return self._bodyless

    async def begin(self) -> None:
        """The head of the final answer; those of 1xx are passed over."""
        try:
            await self._begin()
        except (OSError, asyncio.IncompleteReadError, httptools.HttpParserError, ValueError) as error:
            raise self._failed(error) from error

    async def _begin(self) -> None:
        while True:
            self._reader = _Reader()
            self._parser = httptools.HttpResponseParser(self._reader)
            head = await self._read_head()
            self.status = int(head[9:12]) if head[9:12].isdigit() else 0
            if not 100 <= self.status <= 599 or self.status == 101:
                raise ValueError("the answer is not HTTP/1.1 to this request")
            self._bodyless = self._method == "HEAD" or self.status in (204, 304) or self.status < 200
            self._parser.feed_data(_without_length(head) if self._bodyless else head)
            if self.status >= 200:
                break
        self._head = head
        if self._bodyless:
            self._reader.headers = _fields(head)
            return
        coding = next((value for name, value in self.headers if name.lower() == b"transfer-encoding"), b"chunked")
        if coding.lower() != b"chunked":
            raise ValueError("a transfer coding that was not asked for")
        if self._rest:
            self._take(self._rest)

    async def _read_head(self) -> bytes:
        assert self._connection is not None
        while b"\r\n\r\n" not in self._rest:
            if len(self._rest) > _HEAD_BYTES:
                raise ValueError("the answer's head is too large")
            data = await self._connection.reader.read(_CHUNK_BYTES)
            if not data:
                raise asyncio.IncompleteReadError(self._rest, None)
            self._rest += data
        head, separator, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + separator

    def _take(self, data: bytes) -> None:
        """Body from the connection. What follows the body was not asked for: such a connection is not kept."""
        self._rest = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._reader.done:
                raise
            self._reader.more = True  # the body was whole

    async def read(self) -> bytes:
        """The next part of the body, 64 KiB or so; b"" at its end."""
        try:
            return await self._read()
        except (OSError, asyncio.IncompleteReadError, httptools.HttpParserError, ValueError) as error:
            raise self._failed(error) from error

    async def _read(self) -> bytes:
        assert self._connection is not None
        while not self._reader.pieces and not self.complete:
            data = await self._connection.reader.read(_CHUNK_BYTES)
            if data:
                self._take(data)
            elif any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
                raise asyncio.IncompleteReadError(b"", None)
            else:
                self._bodyless, self._head = True, b""  # the body ends with the connection
        pieces, self._reader.pieces = self._reader.pieces, []
        return b"".join(pieces)

    def _failed(self, error: BaseException) -> BackendFailed:
        return BackendFailed(f"{self._origin[1]}: {type(error).__name__}: {error}")

    def release(self) -> None:
        """Keep the connection if it can serve another request, else close it; a request still on its way is given up."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        whole = self.upload is None or (self.upload.done() and not self.upload.cancelled() and self.upload.exception() is None)
        if self.upload is not None:
            self.upload.cancel()
        stays = self.complete and not self._rest and not self._reader.more and _stays_open(self._head, self.headers)
        if whole and stays and connection.usable:
            self._backend.keep(self._origin, connection)
        else:
            self._backend.drop(connection)


class Backend:
    """Calls HTTP servers. `allowed` are hosts, or host:port, that may be anywhere ("*" for all); the limit `connections` bounds
    how many are open. Call `close` at the end."""

    def __init__(
        self,
        allowed: tuple[str, ...] = (),
        refuse: Callable[[str], str] = refused_address,
        *,
        connections: str = "integration_connections",
    ) -> None:
        self._allowed = allowed
        self._refuse = refuse
        self._limit = connections
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._open = 0

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when the first backend needs it: reading the host's certificates takes 20 ms and some megabytes."""
        return ssl.create_default_context()

    async def ask(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes, timeout_seconds: float
    ) -> BackendAnswer:
        """One request. Raises `TimeoutError`, `BackendFailed`."""
        async with asyncio.timeout(timeout_seconds):
            origin, target = split_url(url)
            raw = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers]
            incoming = await self.send(method, origin, target.encode("ascii"), raw, body, timeout_seconds)
            try:
                answer = BackendAnswer()
                answer.status = incoming.status
                answer.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in incoming.headers]
                answer.body = await _whole(incoming)
                return answer
            finally:
                incoming.release()

    async def send(
        self, method: str, origin: Origin, target: bytes, headers: RawHeaders, body: bytes | BodyStream, timeout_seconds: float
    ) -> Incoming:
        """Send a request; the answer, its head read. `headers` without framing; of Host only if it is not that of `origin`;
        Content-Length goes with a stream whose length is known. `timeout_seconds`: for each step forward.

        Raises `TimeoutError`, `BackendFailed`; `ConnectionAbortedError` when the stream failed."""
        head = _head(method, target, origin, headers, body)
        kept = self._kept(origin, method in _IDEMPOTENT)
        if kept is not None:
            incoming = Incoming(self, origin, kept, method)
            try:
                await self._exchange(incoming, kept, head, body, timeout_seconds)
                return incoming
            except BackendFailed:
                if method not in _IDEMPOTENT or not incoming.silent or not isinstance(body, bytes):
                    raise  # the backend may have seen it: what went wrong is the client's to know
        connection = await self._connect(origin)
        incoming = Incoming(self, origin, connection, method)
        await self._exchange(incoming, connection, head, body, timeout_seconds)
        return incoming

    async def _exchange(
        self, incoming: Incoming, connection: _Connection, head: bytes, body: bytes | BodyStream, seconds: float
    ) -> None:
        try:
            if isinstance(body, bytes):
                async with asyncio.timeout(seconds):
                    await _write(connection, head + body)
                    await incoming.begin()
            else:
                await _write(connection, head)
                await _begin_while_sending(incoming, connection, body, seconds)
        except BaseException:
            incoming.status = 0
            incoming.release()
            raise

    def _kept(self, origin: Origin, any_age: bool) -> _Connection | None:
        waiting = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while waiting:
            connection = waiting.pop()
            if connection.usable and connection.expires > now:
                if any_age or connection.expires - now > _IDLE_SECONDS - _FRESH_SECONDS:
                    return connection
                waiting.append(connection)  # the latest is too old, so are the others
                return None
            self.drop(connection)
        return None

    async def _connect(self, origin: Origin) -> _Connection:
        scheme, host, port = origin
        if self._open >= LIMITS[self._limit].default:
            self._shed()
        if self._open >= LIMITS[self._limit].default:
            raise BackendFailed(f"limit {self._limit}: too many connections to other servers", busy=True)
        self._open += 1
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                address = await self._resolve(host, port)
                reader, writer = await asyncio.open_connection(
                    address,
                    port,
                    limit=_HEAD_BYTES,
                    ssl=self._tls if scheme == "https" else None,
                    server_hostname=host if scheme == "https" else None,
                )
        except (OSError, TimeoutError) as error:
            self._open -= 1
            late = isinstance(error, TimeoutError)
            why = "timed out" if late else error
            raise BackendFailed(f"no connection to {host} port {port}: {why}", timed_out=late) from error
        except BaseException:
            self._open -= 1
            raise
        return _Connection(reader, writer)

    async def _resolve(self, host: str, port: int) -> str:
        """An address of `host` that may be called."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        free = is_called(self._allowed, host, port)
        why = "it has no address"
        for *_, address in found:
            why = "" if free else self._refuse(str(address[0]))
            if not why:
                return str(address[0])
        raise BackendFailed(
            f"{host} may not be called: {why}",
            remedy=permission(host, port),
            refused=True,
        )

    def keep(self, origin: Origin, connection: _Connection) -> None:
        """Have the connection wait for another request."""
        waiting = self._idle.setdefault(origin, deque())
        connection.expires = asyncio.get_running_loop().time() + _IDLE_SECONDS
        waiting.append(connection)
        if len(waiting) > _IDLE_AT_MOST:
            self.drop(waiting.popleft())

    def drop(self, connection: _Connection) -> None:
        """Close the connection."""
        self._open -= 1
        connection.writer.close()

    def _shed(self) -> None:
        """Close the connections that nobody uses."""
        for waiting in self._idle.values():
            while waiting:
                self.drop(waiting.popleft())
        self._idle.clear()

    async def close(self) -> None:
        """Close what is kept."""
        writers = [connection.writer for waiting in self._idle.values() for connection in waiting]
        self._shed()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def _whole(incoming: Incoming) -> bytes:
    """The answer's body, within the limit. Raises `BackendFailed`."""
    most = LIMITS["integration_response_bytes"].default
    pieces: list[bytes] = []
    size = 0
    while piece := await incoming.read():
        size += len(piece)
        if size > most:
            raise BackendFailed(f"limit integration_response_bytes: the answer is larger than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def _write(connection: _Connection, data: bytes) -> None:
    try:
        connection.writer.write(data)
        await connection.writer.drain()
    except OSError as error:
        raise BackendFailed(f"the connection broke: {error}") from error


async def _begin_while_sending(incoming: Incoming, connection: _Connection, body: BodyStream, seconds: float) -> None:
    """The head of the answer, which may come before all of the body was sent: then that goes on in `incoming.upload`."""
    upload = incoming.upload = asyncio.create_task(_upload(connection, body, seconds))
    begin = asyncio.create_task(incoming.begin())
    try:
        await asyncio.wait((upload, begin), return_when=asyncio.FIRST_COMPLETED)
        if not begin.done() and isinstance(upload.exception(), ConnectionAbortedError | TimeoutError):
            upload.result()
        async with asyncio.timeout(seconds):  # a server that takes no more of the body may have said why
            await begin
    finally:
        if upload.done() and not upload.cancelled():
            upload.exception()  # seen: it must not be reported
        if not begin.done():
            begin.cancel()
            await asyncio.wait((begin,))


async def _upload(connection: _Connection, body: BodyStream, seconds: float) -> None:
    """Send the body as it comes. Raises `ConnectionAbortedError` if the rest will not come, `TimeoutError`, `OSError`."""
    more = True
    while more:
        taken = await body.take()
        if taken is None:
            raise ConnectionAbortedError("the client's body is cut")
        data, more = taken
        if body.length < 0:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
        async with asyncio.timeout(seconds):
            connection.writer.write(data)
            await connection.writer.drain()


def _stays_open(head: bytes, headers: RawHeaders) -> bool:
    """RFC 9112 section 9.3."""
    options = b",".join(value.lower() for name, value in headers if name.lower() == b"connection")
    return head.startswith(b"HTTP/1.1") and b"close" not in options


def _fields(head: bytes) -> RawHeaders:
    """The fields of a head that the parser has judged."""
    pairs = [line.partition(b":") for line in head[:-4].split(b"\r\n")[1:]]
    return [(name, value.strip(b" \t")) for name, _, value in pairs]


def _without_length(head: bytes) -> bytes:
    """The head of an answer that has no body whatever it says: the parser must not wait for one."""
    lines = [
        line for line in head[:-4].split(b"\r\n") if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
    ]
    return b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])


def split_url(url: str) -> tuple[Origin, str]:
    """((scheme, host, port), request target). Raises `BackendFailed`."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise BackendFailed(f"the integration's URL is malformed: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or not port:
        raise BackendFailed(f"the integration's URL {url[:200]!r} is not an http or https URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(character <= " " or character >= "\x7f" for character in target):
        raise BackendFailed("the integration's URL holds characters that must be escaped")
    return (parts.scheme, host, port), target


def _authority(origin: Origin) -> str:
    """Host, and port where it is not the scheme's own."""
    scheme, host, port = origin
    named = f"[{host}]" if ":" in host else host
    return named if port == (443 if scheme == "https" else 80) else f"{named}:{port}"


def _head(method: str, target: bytes, origin: Origin, headers: RawHeaders, body: bytes | BodyStream) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target)]
    if not any(name.lower() == b"host" for name, _ in headers):
        lines.append(b"Host: " + _authority(origin).encode("ascii"))
    lines += [
        b"%b: %b" % one for one in headers if one[0].lower() not in (b"content-length", b"connection", b"transfer-encoding")
    ]
    if isinstance(body, BodyStream):
        lines.append(b"Content-Length: %d" % body.length if body.length >= 0 else b"Transfer-Encoding: chunked")
    elif body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"Content-Length: %d" % len(body))
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise InvalidInput("a header of the integration request holds a line break")
    return b"\r\n".join([*lines, b"", b""])
