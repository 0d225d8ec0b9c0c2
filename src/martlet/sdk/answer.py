"""What handlers return, as what the runtime sends.

A plain answer is the dictionary of API Gateway's payload formats: {"statusCode", "headers", "cookies" (2.0) or
"multiValueHeaders" (1.0), "body", "isBase64Encoded"}. A streamed answer is an object with `__martlet_stream__` true, `.head` =
{"statusCode", "headers", "cookies"}, and iteration (or asynchronous iteration) over bytes; `close` (or `aclose`) ends it early.
"""

from __future__ import annotations

from martlet.sdk.errors import HTTPError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from typing import Any

__all__ = ["AsyncStream", "Response", "Stream", "aencode", "encode", "pack", "problem"]

_TEXT = ("text/", "application/json", "application/xml", "application/javascript", "application/problem+json", "image/svg+xml")
_END = object()


class Response:
    """An answer with its status, headers and cookies.

    `body`: bytes (application/octet-stream), str (text/plain), None (empty), an iterator or asynchronous iterator of bytes or
    str (streamed), anything else JSON; a "content-type" in `headers` wins. `cookies`: whole Set-Cookie values.
    """

    __slots__ = ("body", "cookies", "headers", "status")

    def __init__(
        self, body: Any = None, status: int = 200, headers: Mapping[str, str] | None = None, cookies: Iterable[str] = ()
    ) -> None:
        self.body = body
        self.status = status
        self.headers = dict(headers or {})
        self.cookies = [cookies] if isinstance(cookies, str) else list(cookies)

    def __repr__(self) -> str:
        return f"Response(status={self.status}, headers={self.headers!r}, body={self.body!r})"


class Stream:
    """A streamed answer of a synchronous handler."""

    __martlet_stream__ = True

    def __init__(self, head: dict[str, Any], first: Any, rest: Iterator[Any]) -> None:
        self.head = head
        self._first = first
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self._first is not _END:
                yield _chunk(self._first)
                for item in self._rest:
                    yield _chunk(item)
        finally:
            self.close()

    def close(self) -> None:
        """End the handler's generator, wherever it stands."""
        close = getattr(self._rest, "close", None)
        if close is not None:
            close()


class AsyncStream:
    """A streamed answer of an asynchronous handler."""

    __martlet_stream__ = True

    def __init__(self, head: dict[str, Any], first: Any, rest: AsyncIterator[Any]) -> None:
        self.head = head
        self._first = first
        self._rest = rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._first is not _END:
                if self._first is not None:
                    yield _chunk(self._first)
                async for item in self._rest:
                    yield _chunk(item)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the handler's generator, wherever it stands."""
        close = getattr(self._rest, "aclose", None)
        if close is not None:
            await close()


def _chunk(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    raise TypeError(f"a streamed answer is made of bytes or str, got {type(item).__name__}")


def encode(result: Any, version: str) -> Any:
    """A synchronous handler's result as an answer. A generator runs up to its first chunk, so that its errors still count."""
    response = result if isinstance(result, Response) else _respond(result)
    body = response.body
    if hasattr(body, "__next__"):
        first = next(body, _END)
        return Stream(_head(response), first, body)
    if hasattr(body, "__aiter__"):
        return AsyncStream(_head(response), None, body)
    return _whole(response, version)


async def aencode(result: Any, version: str) -> Any:
    """`encode` for an asynchronous handler."""
    response = result if isinstance(result, Response) else _respond(result)
    if hasattr(response.body, "__aiter__"):
        chunks = response.body.__aiter__()
        first = await anext(chunks, _END)
        return AsyncStream(_head(response), first, chunks)
    return encode(response, version)


def _respond(result: Any) -> Response:
    if result is None:
        return Response(status=204)
    if isinstance(result, str):  # a scalar like any other: JSON. Text is said with Response("...")
        from martlet.sdk.encode import dumps

        return Response(dumps(result), headers={"content-type": "application/json"})
    return Response(result)


def _head(response: Response, default_type: str = "application/octet-stream") -> dict[str, Any]:
    """Status, headers and cookies, checked: a header must not break out of its line (RFC 9110 section 5.5)."""
    status = response.status
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"status is a number from 200 to 599, got {status!r}")
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        text = str(value)
        if not name or any(mark in name for mark in "\r\n\0: ") or any(mark in text for mark in "\r\n\0"):
            raise ValueError(f"header {name!r}: {text!r} is not one line of HTTP")
        headers[name.lower()] = text
    for cookie in response.cookies:
        if any(mark in cookie for mark in "\r\n\0"):
            raise ValueError(f"cookie {cookie!r} is not one line of HTTP")
    if default_type:
        headers.setdefault("content-type", default_type)
    return {"statusCode": int(status), "headers": headers, "cookies": response.cookies}


def _whole(response: Response, version: str) -> dict[str, Any]:
    body = response.body
    if body is None:
        head = _head(response, "")
        head["body"] = ""
    elif isinstance(body, str):
        head = _head(response, "text/plain; charset=utf-8")
        head["body"] = body
    elif isinstance(body, (bytes, bytearray, memoryview)):
        head = _head(response)
        pack(head, bytes(body))
    else:
        from martlet.sdk.encode import dumps

        head = _head(response, "application/json")
        head["body"] = dumps(body)
    return shape(head, version)


def pack(head: dict[str, Any], body: bytes) -> None:
    """Put `body` into `head`: as text where that is exact and likely shorter, else as base64."""
    headers = head["headers"]
    if headers.get("content-type", "").startswith(_TEXT) and "content-encoding" not in headers:
        try:
            head["body"] = body.decode()
            return
        except UnicodeDecodeError:  # another charset
            pass
    import binascii

    head["body"] = binascii.b2a_base64(body, newline=False).decode("ascii")
    head["isBase64Encoded"] = True


def shape(head: dict[str, Any], version: str) -> dict[str, Any]:
    """The answer in the event's own payload format: 1.0 has no "cookies"."""
    cookies = head["cookies"]
    if not cookies or version != "2.0":
        del head["cookies"]
    if cookies and version != "2.0":
        head["multiValueHeaders"] = {"set-cookie": cookies}
    return head


def problem(error: HTTPError, version: str) -> dict[str, Any]:
    """An `HTTPError` as RFC 9457 problem+json."""
    from http import HTTPStatus

    try:
        title = HTTPStatus(error.status).phrase
    except ValueError:
        title = "Error"
    body = {"type": "about:blank", "title": title, "status": error.status, "detail": error.detail} | error.extra
    if not error.detail:
        del body["detail"]
    return _whole(Response(body, error.status, {"content-type": "application/problem+json"} | error.headers), version)
