"""A whole WSGI application behind one function: payload event → environ, start_response → answer. Source: PEP 3333.

An answer whose length the application does not say, or that is long, is streamed chunk by chunk as the application yields it.
"""

from __future__ import annotations

import io
import sys

from martlet.sdk.answer import pack, shape
from martlet.sdk.request import Request, unquote_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["entry"]

_WHOLE_BYTES_MAX = 1_048_576  # longer answers are streamed: a whole one is held in memory several times over


def entry(app: Any, root_path: str = "") -> Callable[[Any, Any], Any]:
    """The entry of `app`, mounted at `root_path` ("" for the root). Safe for several events at one time, a thread each."""

    def serve(event: Any, context: Any) -> Any:
        request = Request(event, context)
        return _Exchange(request).run(app, _environ(request, root_path))

    return serve


class _Exchange:
    """One request: what `start_response` and `write` said."""

    def __init__(self, request: Request) -> None:
        self._version = request.version
        self._head: dict[str, Any] | None = None
        self._written: list[bytes] = []
        self._sent = False

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """PEP 3333: may be called again with `exc_info`, which re-raises when the head has left already."""
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._head is not None and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        fields: dict[str, str] = {}
        cookies: list[str] = []
        for name, value in headers:
            key = name.lower()
            if key == "set-cookie":
                cookies.append(value)
            else:
                fields[key] = f"{fields[key]}, {value}" if key in fields else value
        self._head = {"statusCode": int(status.split(" ", 1)[0]), "headers": fields, "cookies": cookies}
        return self._written.append

    def run(self, app: Any, environ: dict[str, Any]) -> Any:
        """The application's answer, whole or streamed."""
        result = app(environ, self.start_response)
        kept = False
        try:
            if isinstance(result, (list, tuple)):
                return self._whole(list(result))
            chunks = iter(result)
            first = next((chunk for chunk in chunks if chunk), b"")  # start_response may come as late as the first chunk
            if self._head is None:
                raise AssertionError("the application answered without calling start_response")
            length = self._head["headers"].get("content-length", "")
            if not first or (length.isdigit() and int(length) <= _WHOLE_BYTES_MAX):
                return self._whole([first, *chunks])
            self._sent = kept = True
            return WsgiStream(self._head, [*self._written, first], chunks, getattr(result, "close", None))
        finally:
            if not kept and hasattr(result, "close"):
                result.close()

    def _whole(self, chunks: list[bytes]) -> dict[str, Any]:
        if self._head is None:
            raise AssertionError("the application answered without calling start_response")
        pack(self._head, b"".join([*self._written, *chunks]))
        return shape(self._head, self._version)


class WsgiStream:
    """A streamed answer; the application's `close` is called when it ends, however it ends."""

    __martlet_stream__ = True

    def __init__(
        self, head: dict[str, Any], begun: list[bytes], chunks: Iterator[bytes], close: Callable[[], None] | None
    ) -> None:
        self.head = head
        self._begun = begun
        self._chunks = chunks
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._begun
            for chunk in self._chunks:
                if chunk:
                    yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Call the application's own `close`, once."""
        close, self._close = self._close, None
        if close is not None:
            close()


def _environ(request: Request, root_path: str) -> dict[str, Any]:
    path = unquote_bytes(request.path).decode("latin-1")  # PEP 3333: bytes in the guise of latin-1
    headers = request.headers
    host, _, port = headers.get("host", "").rpartition(":")
    if not port.isdigit():
        host, port = headers.get("host", "") or "localhost", ""
    scheme = headers.get("x-forwarded-proto", "http")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": root_path,
        "PATH_INFO": path.removeprefix(root_path),
        "QUERY_STRING": request.raw_query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "aws.event": request.event,
        "aws.context": request.context,
    }
    for name, value in headers.items():
        if name in ("content-type", "content-length"):
            environ[name.upper().replace("-", "_")] = value
        elif "_" not in name and name != "cookie":  # x_a and x-a would become one name: a known way to forge headers
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    if request.body:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    if request.cookie_header:
        environ["HTTP_COOKIE"] = request.cookie_header
    return environ
