"""HTTP/1.1 over the sandbox's private loopback: small, keep-alive, synchronous and asynchronous.

`http.client` would do but pulls in `ssl` and `email` (46 ms of a cold start). The protocol part (`encode`, `Reader`) does no
I/O; `call` and `acall` drive it over one shared stack of idle sockets.

A request is sent a second time only when that is safe: the socket was idle before and either not one byte of the request left
this process, or the method is safe (RFC 9110 section 9.2.1) and not one byte of an answer came.
"""

from __future__ import annotations

import os
import socket
import time

from martlet.sdk.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

__all__ = ["Answer", "Reader", "acall", "call", "encode", "quote"]

_HEAD_BYTES_MAX = 65_536
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_SAFE = ("GET", "HEAD")
_BROKEN = "the platform's answer is not HTTP/1.1: "


class Answer:
    """A whole answer. Header names are lower-case; repeated headers are joined with a comma."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


def quote(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters, "." and ".." too: clients and proxies remove those."""
    if text in (".", ".."):
        return text.replace(".", "%2E")
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode("utf-8"))


def encode(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """The bytes of one request. Raises `ValueError` for a header that would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    for name, value in headers.items():
        if any(mark in name + value for mark in "\r\n\0"):
            raise ValueError(f"header {name!r} contains a line break")
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


class Reader:
    """Takes the bytes of an answer as they come (`feed`) until `done`; then `answer` and `keep_alive` are set.

    `feed(b"")` says that the peer closed. Raises `Unavailable` for bytes that are not HTTP/1.1 and for an answer cut short.
    RFC 9112 sections 6 and 7: content-length, chunked (extensions and trailers are read and dropped), until close.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_headers",
        "_left",
        "_method",
        "_mode",
        "_status",
        "answer",
        "done",
        "keep_alive",
        "started",
    )

    def __init__(self, method: str) -> None:
        self._method = method
        self._buffer = bytearray()
        self._body = bytearray()
        self._mode = "head"  # head | length | size | chunk | trailer | close
        self._left = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self.started = False
        self.keep_alive = False
        self.done = False
        self.answer = Answer(0, {}, b"")

    def feed(self, data: bytes) -> None:
        """Take what was received; b"" is end of file."""
        if not data:
            if self._mode != "close":
                raise Unavailable("the connection to the platform closed before its answer was whole")
            self._finish(keep_alive=False)
            return
        self.started = True
        self._buffer += data
        while not self.done and self._step():
            pass

    def _step(self) -> bool:
        """Consume what can be consumed; False when more bytes are needed."""
        if self._mode == "head":
            return self._head()
        if self._mode == "size":
            return self._chunk_size()
        if self._mode == "trailer":
            return self._trailer()
        if self._mode == "close":
            self._body += self._buffer
            self._buffer.clear()
            return False
        taken = self._buffer[: self._left]
        del self._buffer[: self._left]
        self._body += taken
        self._left -= len(taken)
        if self._left:
            return False
        if self._mode == "length":
            self._finish()
            return True
        if len(self._buffer) < 2:  # the line end after a chunk
            return False
        if self._buffer[:2] != b"\r\n":
            raise Unavailable(_BROKEN + "a chunk without its line end")
        del self._buffer[:2]
        self._mode = "size"
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                raise Unavailable(_BROKEN + f"a line longer than {_HEAD_BYTES_MAX} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                raise Unavailable(_BROKEN + f"a head longer than {_HEAD_BYTES_MAX} bytes")
            return False
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = first.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not (len(status) == 3 and status.isdigit()):
            raise Unavailable(_BROKEN + repr(first[:80]))
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise Unavailable(_BROKEN + repr(line[:80]))
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._status, self._headers = int(status), headers
        if 100 <= self._status < 200:  # an interim answer: the real one follows
            return True
        self.keep_alive = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
        self._choose_body()
        return True

    def _choose_body(self) -> None:
        if self._method == "HEAD" or self._status in (204, 304):
            self._finish()
        elif "transfer-encoding" in self._headers:
            if self._headers["transfer-encoding"].lower() != "chunked":
                raise Unavailable(_BROKEN + f"transfer-encoding {self._headers['transfer-encoding']!r}")
            self._mode = "size"
        elif "content-length" in self._headers:
            length = self._headers["content-length"]
            if not (length.isascii() and length.isdigit()):
                raise Unavailable(_BROKEN + f"content-length {length!r}")
            self._mode, self._left = "length", int(length)
            if not self._left:
                self._finish()
        else:
            self._mode = "close"

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        digits = line.partition(b";")[0].strip()
        try:
            if not digits.isalnum():
                raise ValueError(digits)
            self._left = int(digits, 16)
        except ValueError:
            raise Unavailable(_BROKEN + f"chunk size {digits[:20]!r}") from None
        self._mode = "chunk" if self._left else "trailer"
        return True

    def _trailer(self) -> bool:
        line = self._line()
        if line is None:
            return False
        if not line:
            self._finish()
        return True

    def _finish(self, keep_alive: bool = True) -> None:
        self.done = True
        self.keep_alive = self.keep_alive and keep_alive and not self._buffer
        self.answer = Answer(self._status, self._headers, bytes(self._body))


class _Pool:
    """Idle sockets of this process; `pop` and `append` of a list are atomic, so threads may share it."""

    def __init__(self) -> None:
        self._idle: list[tuple[str, socket.socket]] = []
        self._process = os.getpid()

    def take(self, address: str) -> socket.socket | None:
        """An idle socket that still looks alive, else None."""
        if self._process != os.getpid():  # a child of the user's own fork must not talk on its parent's connections
            inherited, self._idle, self._process = self._idle, [], os.getpid()
            for _, sock in inherited:
                sock.close()
        while True:
            try:
                owner, sock = self._idle.pop()
            except IndexError:
                return None
            if owner == address and _quiet(sock):
                return sock
            sock.close()

    def give(self, address: str, sock: socket.socket) -> None:
        """Keep `sock` for the next request."""
        if len(self._idle) < 16:
            self._idle.append((address, sock))
        else:
            sock.close()


def _quiet(sock: socket.socket) -> bool:
    """Whether an idle socket is open with nothing to read: end of file or stray bytes both mean that it is spent."""
    try:
        sock.setblocking(False)
        sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    return False


_pool = _Pool()


def _address() -> tuple[str, tuple[str, int]]:
    text = os.environ.get("MARTLET_API", "")
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise Unavailable(
            "MARTLET_API is not set: .invoke and Collection work inside a Martlet sandbox. "
            "In a unit test call the function itself, or put a stand-in in its place",
            sent=False,
        )
    return text, (host, int(port))


def call(
    method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None, timeout_seconds: float
) -> Answer:
    """One request and its whole answer. `timeout_seconds` bounds all of it. Raises `Unavailable`."""
    text, place = _address()
    request = encode(method, target, text, headers or {}, body)
    deadline = time.monotonic() + timeout_seconds
    sock = _pool.take(text)
    if sock is not None:
        try:
            return _exchange(sock, text, method, request, deadline)
        except _Stale:
            pass
    try:
        sock = socket.create_connection(place, _left(deadline))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise Unavailable(f"cannot reach the platform at {text}: {error}", sent=False) from error
    try:
        return _exchange(sock, text, method, request, deadline)
    except _Stale as stale:
        raise stale.error from stale.error.__cause__


class _Stale(Exception):
    """The connection broke where sending again is safe."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(str(error))
        self.error = error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _verdict(method: str, sent: int, reader: Reader, error: Exception) -> Exception:
    """What a broken exchange means for its caller: `_Stale` (may be sent again) or `Unavailable`."""
    if isinstance(error, TimeoutError):
        return Unavailable("timed out waiting for the platform", sent=sent > 0)
    if isinstance(error, Unavailable):
        lost = error
    else:
        lost = Unavailable(f"the connection to the platform broke: {error}", sent=sent > 0)
    return _Stale(lost) if not sent or (method in _SAFE and not reader.started) else lost


def _exchange(sock: socket.socket, address: str, method: str, request: bytes, deadline: float) -> Answer:
    reader = Reader(method)
    sent = 0
    view = memoryview(request)
    try:
        while sent < len(request):
            sock.settimeout(_left(deadline))
            sent += sock.send(view[sent:])
        while not reader.done:
            sock.settimeout(_left(deadline))
            reader.feed(sock.recv(65_536))
    except (OSError, Unavailable) as error:
        sock.close()
        raise _verdict(method, sent, reader, error) from error
    except BaseException:  # e.g. KeyboardInterrupt: a half-read socket must not be used again
        sock.close()
        raise
    _keep(sock, address, reader)
    return reader.answer


def _keep(sock: socket.socket, address: str, reader: Reader) -> None:
    if reader.keep_alive:
        _pool.give(address, sock)
    else:
        sock.close()


async def acall(
    method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None, timeout_seconds: float
) -> Answer:
    """`call` for coroutines: the same, without blocking the event loop."""
    import asyncio

    text, place = _address()
    request = encode(method, target, text, headers or {}, body)
    loop = asyncio.get_running_loop()
    sock = _pool.take(text)
    sent = [0]
    try:
        async with asyncio.timeout(timeout_seconds):
            if sock is not None:
                try:
                    return await _aexchange(loop, sock, text, method, request, sent)
                except _Stale:
                    sent[0] = 0
            sock = await _aconnect(loop, text, place)
            return await _aexchange(loop, sock, text, method, request, sent)
    except _Stale as stale:
        raise stale.error from stale.error.__cause__
    except TimeoutError as error:
        raise Unavailable("timed out waiting for the platform", sent=sent[0] > 0) from error


async def _aconnect(loop: asyncio.AbstractEventLoop, text: str, place: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, place)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot reach the platform at {text}: {error}", sent=False) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _aexchange(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: str, method: str, request: bytes, sent: list[int]
) -> Answer:
    reader = Reader(method)
    try:
        try:
            sent[0] = sock.send(request)  # non-blocking: tells how many bytes left, which sock_sendall does not
        except (BlockingIOError, InterruptedError):
            pass
        if sent[0] < len(request):
            rest = memoryview(request)[sent[0] :]
            sent[0] = max(sent[0], 1)  # from here on nobody can say how much left
            await loop.sock_sendall(sock, rest)
        while not reader.done:
            reader.feed(await loop.sock_recv(sock, 65_536))
    except (OSError, Unavailable) as error:
        sock.close()
        raise _verdict(method, sent[0], reader, error) from error
    except BaseException:  # cancelled: a half-read socket must not be used again
        sock.close()
        raise
    _keep(sock, address, reader)
    return reader.answer
