"""HTTP integrations: a client with kept connections, a time limit and size limits, and a guard on where it may go.

Who writes an integration's URI is an app's author; whose network it is called from is the owner of the host. So addresses
that are only reachable from here are refused after the name was resolved, and the connection goes to the address that was
checked (a name that changes its mind gains nothing): this host itself, link-local addresses and clouds' metadata services,
which hand out the host's own credentials. Private networks are not refused, as for functions' egress. The setting
`integration_hosts` names hosts that may be called wherever they are, "*" for all: for development against a server on the
same machine. Redirects are not followed.
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
from martlet.functions.egress import refused_address
from martlet.limits import LIMITS

__all__ = ["Backend", "BackendAnswer", "BackendFailed"]

_IDLE_SECONDS: Final = 30.0
_IDLE_AT_MOST: Final = 32  # kept connections of one origin
_HEAD_BYTES: Final = 65_536
_CHUNK_BYTES: Final = 65_536
_CONNECT_SECONDS: Final = 5.0


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
    """httptools' callbacks for one answer."""

    def __init__(self) -> None:
        self.answer = BackendAnswer()
        self.chunks: list[bytes] = []
        self.size = 0
        self.head_size = 0
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head_size += len(name) + len(value)
        if self.head_size > _HEAD_BYTES:
            raise ValueError("head too large")
        self.answer.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > LIMITS["integration_response_bytes"].default:
            raise ValueError("body too large")
        self.chunks.append(body)

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


class Backend:
    """Calls HTTP backends. `allowed` are host names that may be anywhere ("*" for all). Call `close` at the end."""

    def __init__(self, allowed: tuple[str, ...] = (), refuse: Callable[[str], str] = refused_address) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._refuse = refuse
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
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
            return await self._ask(method, url, headers, body)

    async def _ask(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> BackendAnswer:
        origin, target = _split(url)
        head = _head(method, target, origin, headers, body)
        idempotent = method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
        kept = self._kept(origin)
        if kept is not None:
            try:
                return await self._exchange(origin, kept, method, head, body)
            except BackendFailed:
                if not idempotent:  # the backend may have seen it: what went wrong is the client's to know
                    raise
        return await self._exchange(origin, await self._connect(origin), method, head, body)

    def _kept(self, origin: tuple[str, str, int]) -> _Connection | None:
        waiting = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while waiting:
            connection = waiting.pop()
            if connection.usable and connection.expires > now:
                return connection
            self._drop(connection)
        return None

    async def _connect(self, origin: tuple[str, str, int]) -> _Connection:
        scheme, host, port = origin
        if self._open >= LIMITS["integration_connections"].default:
            self._shed()
        if self._open >= LIMITS["integration_connections"].default:
            raise BackendFailed("limit integration_connections: too many connections to backends")
        self._open += 1
        try:
            address = await self._resolve(host, port)
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(
                    address,
                    port,
                    limit=_HEAD_BYTES,
                    ssl=self._tls if scheme == "https" else None,
                    server_hostname=host if scheme == "https" else None,
                ),
                _CONNECT_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            self._open -= 1
            raise BackendFailed(f"no connection to {host} port {port}: {error or 'timed out'}") from error
        except BaseException:
            self._open -= 1
            raise
        return _Connection(reader, writer)

    async def _resolve(self, host: str, port: int) -> str:
        """An address of `host` that may be called."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        free = "*" in self._allowed or host in self._allowed
        why = "it has no address"
        for *_, address in found:
            why = "" if free else self._refuse(str(address[0]))
            if not why:
                return str(address[0])
        raise BackendFailed(
            f"{host} may not be called: {why}",
            remedy=f"set MARTLET_INTEGRATION_HOSTS={host} if integrations and HTTP targets may call it",
            refused=True,
        )

    async def _exchange(
        self, origin: tuple[str, str, int], connection: _Connection, method: str, head: bytes, body: bytes
    ) -> BackendAnswer:
        keep = False
        try:
            connection.writer.write(head + body)
            await connection.writer.drain()
            answer, keep = await _read_answer(connection.reader, method)
            return answer
        except (OSError, asyncio.IncompleteReadError, httptools.HttpParserError, ValueError) as error:
            raise BackendFailed(f"{origin[1]}: {type(error).__name__}: {error}") from error
        finally:
            if keep and connection.usable:
                self._keep(origin, connection)
            else:
                self._drop(connection)

    def _keep(self, origin: tuple[str, str, int], connection: _Connection) -> None:
        waiting = self._idle.setdefault(origin, deque())
        connection.expires = asyncio.get_running_loop().time() + _IDLE_SECONDS
        waiting.append(connection)
        if len(waiting) > _IDLE_AT_MOST:
            self._drop(waiting.popleft())

    def _drop(self, connection: _Connection) -> None:
        self._open -= 1
        connection.writer.close()

    def _shed(self) -> None:
        """Close the connections that nobody uses."""
        for waiting in self._idle.values():
            while waiting:
                self._drop(waiting.popleft())
        self._idle.clear()

    async def close(self) -> None:
        """Close what is kept."""
        writers = [connection.writer for waiting in self._idle.values() for connection in waiting]
        self._shed()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def _read_answer(stream: asyncio.StreamReader, method: str) -> tuple[BackendAnswer, bool]:
    """The final answer, and whether the connection may be kept. Answers of 1xx are passed over."""
    pending = b""
    while True:
        reader = _Reader()
        parser: Any = httptools.HttpResponseParser(reader)
        head, pending = await _read_head(stream, pending)
        status = int(head[9:12]) if head[9:12].isdigit() else 0
        if status < 100:
            raise ValueError("the answer is not HTTP/1.1")
        bodyless = method == "HEAD" or status in (204, 304) or status < 200
        if bodyless:
            head = _without_length(head)
        parser.feed_data(head)
        reader.answer.status = status
        if status >= 200:
            break
    if not bodyless:
        while not reader.done:
            data, pending = pending or await stream.read(_CHUNK_BYTES), b""
            if not data:
                if any(name.lower() in ("content-length", "transfer-encoding") for name, _ in reader.answer.headers):
                    raise asyncio.IncompleteReadError(b"", None)
                break  # the body ends with the connection
            parser.feed_data(data)
    reader.answer.body = b"".join(reader.chunks)
    return reader.answer, (reader.done or bodyless) and not pending and _stays_open(head, reader.answer)


async def _read_head(stream: asyncio.StreamReader, pending: bytes) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in pending:
        if len(pending) > _HEAD_BYTES:
            raise ValueError("the answer's head is too large")
        data = await stream.read(_CHUNK_BYTES)
        if not data:
            raise asyncio.IncompleteReadError(pending, None)
        pending += data
    head, separator, rest = pending.partition(b"\r\n\r\n")
    return head + separator, rest


def _stays_open(head: bytes, answer: BackendAnswer) -> bool:
    """RFC 9112 section 9.3."""
    options = ",".join(value.lower() for name, value in answer.headers if name.lower() == "connection")
    return head.startswith(b"HTTP/1.1") and "close" not in options


def _without_length(head: bytes) -> bytes:
    """The head of an answer that has no body whatever it says: the parser must not wait for one."""
    lines = [
        line for line in head[:-4].split(b"\r\n") if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
    ]
    return b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])


def _split(url: str) -> tuple[tuple[str, str, int], str]:
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


def _head(method: str, target: str, origin: tuple[str, str, int], headers: list[tuple[str, str]], body: bytes) -> bytes:
    scheme, host, port = origin
    named = f"[{host}]" if ":" in host else host
    authority = named if port == (443 if scheme == "https" else 80) else f"{named}:{port}"
    lines = [f"{method} {target} HTTP/1.1"]
    given = {name.lower() for name, _ in headers}
    if "host" not in given:
        lines.append(f"Host: {authority}")
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in ("content-length", "connection")]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise InvalidInput("a header of the integration request holds a line break")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
