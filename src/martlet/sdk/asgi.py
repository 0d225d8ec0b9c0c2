"""A whole ASGI 3 application behind one function: payload event → scope, receive, send → answer.

One entry serves any number of events at one time; each has its own exchange. Lifespan starts once, before the first event
(`entry.startup()`, which a runtime may await when the instance starts), and is never shut down: an instance may vanish at any
time, as on Lambda. An answer ends only when the application's coroutine has returned, so Starlette's BackgroundTasks finish
before the answer is complete, within the function's timeout; what must outlive the request belongs in a function of its own.
Sources: ASGI specification 3.0, HTTP & lifespan message formats 2.4.
"""

from __future__ import annotations

import asyncio
import sys
import traceback

from martlet.sdk.answer import pack, shape
from martlet.sdk.request import Request, unquote_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

__all__ = ["Entry", "entry"]

_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


def entry(app: Any, root_path: str = "") -> Callable[[Any, Any], Any]:
    """The asynchronous entry of `app`, mounted at `root_path` ("" for the root)."""
    made = Entry(app, root_path)

    async def serve(event: Any, context: Any) -> Any:
        return await made(event, context)

    serve.startup = made.startup  # type: ignore[attr-defined]
    return serve


class Entry:
    """The application with its lifespan."""

    def __init__(self, app: Any, root_path: str) -> None:
        self._app = app
        self._root_path = root_path
        self._state: dict[str, Any] = {}
        self._started: asyncio.Future[None] | None = None
        self._lifespan: asyncio.Task[None] | None = None  # kept: the event loop holds tasks weakly

    async def startup(self) -> None:
        """Run lifespan startup once; everybody else waits for that one. Raises `RuntimeError` when the application refuses."""
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._lifespan = asyncio.create_task(self._live(self._started))
        await asyncio.shield(self._started)

    async def _live(self, started: asyncio.Future[None]) -> None:
        first = True

        async def receive() -> dict[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "lifespan.startup"}
            await asyncio.Event().wait()  # shutdown never comes
            return {"type": "lifespan.shutdown"}

        async def send(message: dict[str, Any]) -> None:
            if started.done():
                return
            if message["type"] == "lifespan.startup.complete":
                started.set_result(None)
            elif message["type"] == "lifespan.startup.failed":
                started.set_exception(RuntimeError(f"lifespan startup failed: {message.get('message', '')}".rstrip(": ")))

        try:
            await self._app({"type": "lifespan", "asgi": _VERSIONS, "state": self._state}, receive, send)
        except Exception:
            # ASGI: an application that raises before it answered has no lifespan, and is served without.
            if started.done() and started.exception() is None:
                traceback.print_exc()
        if not started.done():
            started.set_result(None)

    async def __call__(self, event: Any, context: Any) -> Any:
        """One event → an answer, or a stream. Raises what the application raises before it answers."""
        request = Request(event, context)
        await self.startup()
        exchange = _Exchange(request)
        scope = _scope(request, self._root_path, self._state)
        exchange.task = asyncio.create_task(self._run(scope, exchange))
        try:
            return await exchange.answer
        except asyncio.CancelledError:
            exchange.task.cancel()
            raise

    async def _run(self, scope: dict[str, Any], exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            exchange.failed(error)
        except BaseException:  # cancelled: nobody waits any more
            exchange.failed(None)
            raise
        else:
            exchange.returned()


class _Exchange:
    """One request's receive and send. `answer`: a plain answer once the application has returned, or earlier a stream."""

    def __init__(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self._request = request
        self._delivered = False
        self._ended = loop.create_future()  # the answer is complete, or nobody reads it any more
        self._gone = False
        self._head: dict[str, Any] | None = None
        self._body = b""
        self._complete = False
        self._stream: AsgiStream | None = None

    async def receive(self) -> dict[str, Any]:
        if not self._delivered:
            self._delivered = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await asyncio.shield(self._ended)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        self._check_reader()
        if kind == "http.response.start" and self._head is None:
            self._head = _head(message)
        elif kind == "http.response.body" and self._head is not None and not self._complete:
            await self._take(bytes(message.get("body") or b""), bool(message.get("more_body")))
        else:
            raise RuntimeError(f"the application sent {kind} out of order")

    def _check_reader(self) -> None:
        if self._gone:
            raise OSError("the client is gone")  # ASGI HTTP 2.4

    async def _take(self, body: bytes, more: bool) -> None:
        if self._stream is None and not more:
            self._body = body
        else:
            if self._stream is None:
                assert self._head is not None
                self._stream = AsgiStream(self._head, self)
                self.answer.set_result(self._stream)
            await self._stream.put(body)
            self._check_reader()
        if not more:
            self._complete = True
            self._end()

    def returned(self) -> None:
        """The application's coroutine has ended."""
        if self._stream is not None:
            error = None if self._complete else RuntimeError("the application returned in the middle of its answer")
            self._stream.finish(error)
        elif not self._complete:
            self._resolve(RuntimeError("the application returned without an answer"))
        else:
            assert self._head is not None
            pack(self._head, self._body)
            self._resolve(shape(self._head, self._request.version))
        self._end()

    def failed(self, error: Exception | None) -> None:
        """It has raised. An answer that was complete by then stands: frameworks send their 500 page and then re-raise."""
        if error is not None and self._complete:
            traceback.print_exception(error, file=sys.stderr)
            self.returned()
            return
        if self._stream is not None:
            # An error after the client left is its consequence; keeping it would keep the application's frames alive.
            self._stream.finish(None if self._gone else error)
        elif error is not None:
            self._resolve(error)
        else:
            self.answer.cancel()
        self._end()

    def disconnect(self) -> None:
        """Nobody reads the stream any more."""
        self._gone = True
        self._end()

    def _resolve(self, result: Any) -> None:
        if self.answer.done():
            return
        if isinstance(result, BaseException):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


class AsgiStream:
    """A streamed answer; the application waits while its last chunk has not been taken."""

    __martlet_stream__ = True

    def __init__(self, head: dict[str, Any], exchange: _Exchange) -> None:
        self.head = head
        self._exchange = exchange
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._error: Exception | None = None

    async def put(self, chunk: bytes) -> None:
        await self._room.wait()
        if chunk:
            self._room.clear()
            self._chunks.put_nowait(chunk)

    def finish(self, error: Exception | None) -> None:
        self._error = error
        self._chunks.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                chunk = await self._chunks.get()
                if chunk is None:
                    break
                self._room.set()
                yield chunk
        except BaseException:
            await self.aclose()
            raise
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        """The client is gone: `send` raises `OSError`, `receive` gives http.disconnect, and the application is cancelled."""
        self._exchange.disconnect()
        self._room.set()
        task = self._exchange.task
        if task is not None and not task.done():
            await asyncio.sleep(0)
            task.cancel()


def _scope(request: Request, root_path: str, state: dict[str, Any]) -> dict[str, Any]:
    headers = [(name.encode("latin-1"), _header(value)) for name, value in request.headers.items() if name != "cookie"]
    if request.cookie_header:
        headers.append((b"cookie", _header(request.cookie_header)))
    host, _, port = request.headers.get("host", "").rpartition(":")
    if not port.isdigit():
        host, port = request.headers.get("host", "") or "localhost", ""
    scheme = request.headers.get("x-forwarded-proto", "http")
    return {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": request.method,
        "scheme": scheme,
        "path": unquote_bytes(request.path).decode("utf-8", "replace"),
        "raw_path": request.path.encode("utf-8"),
        "query_string": request.raw_query.encode("utf-8"),
        "root_path": root_path,
        "headers": headers,
        "client": (request.client, 0) if request.client else None,
        "server": (host.strip("[]"), int(port or (443 if scheme == "https" else 80))),
        "state": state.copy(),
        "aws.event": request.event,
        "aws.context": request.context,
    }


def _header(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8")


def _head(message: dict[str, Any]) -> dict[str, Any]:
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in message.get("headers") or ():
        name, value = bytes(raw_name).decode("latin-1").lower(), bytes(raw_value).decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return {"statusCode": int(message["status"]), "headers": headers, "cookies": cookies}
