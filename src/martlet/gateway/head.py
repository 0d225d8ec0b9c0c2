"""The head of an HTTP/1.1 request, read strictly (RFC 9112 sections 2 to 6). Pure: bytes in, values or `Refused` out.

What two parsers could read differently is refused, not repaired: bare CR or LF, folded lines, space before a colon,
control characters, doubtful lengths, a doubtful Host. A field block must also satisfy llhttp (`httptools`), so that no
request is served on the word of one parser alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import httptools

from martlet.errors import InvalidInput, MartletError, Unsupported
from martlet.gateway.stream import BodyStream

__all__ = ["Fields", "Refused", "Request", "join", "parse_fields", "parse_line", "partial_fault"]

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_LINE: Final = re.compile(rb"(" + _TOKEN + rb"++) ([!\"$-~]++) HTTP/1\.([01])")
_OTHER_VERSION: Final = re.compile(_TOKEN + rb"++ [!\"$-~]++ HTTP/[0-9]\.[0-9]")
_BLOCK: Final = re.compile(rb"(?:" + _TOKEN + rb"++:[\t -~\x80-\xff]*+\r\n)*+")
_FIELD: Final = re.compile(rb"([^:\r\n]++):[ \t]*+([^\r\n]*+)\r\n")
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(?::[0-9]{1,5})?")
_LENGTH: Final = re.compile(rb"[0-9]{1,16}")
_STRAY: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_KNOWN: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_REFUSED_METHODS: Final = frozenset(("CONNECT", "TRACE"))  # a tunnel, and an echo of credentials


class Refused(Exception):
    """The request is refused by the server itself; the connection closes after the answer."""

    def __init__(self, status: int, error: MartletError) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


def _malformed(what: str) -> Refused:
    return Refused(400, InvalidInput(f"malformed HTTP request: {what}"))


class Request:
    """One request. `target`, `path` and `query` are raw bytes; `host` is the authority asked for, b"" if none was named.

    `headers` keeps order and case; `header(name)` looks up by lower-case name. `context` is whatever the listener was given.
    """

    __slots__ = (
        "body",
        "client",
        "context",
        "fields",
        "host",
        "keep_alive",
        "method",
        "path",
        "query",
        "routed",
        "scheme",
        "stream",
        "target",
        "trailers",
        "version",
    )

    def __init__(self, method: str, target: bytes, version: str) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.path, _, self.query = target.partition(b"?")
        self.host = b""
        self.body = b""
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        self.context: object = None
        self.client: tuple[str, int] = ("", 0)
        self.scheme = "http"
        self.keep_alive = False
        self.routed: Any = None  # what the handler found when it was asked whether the body is to stream
        self.stream: BodyStream | None = None  # of a body that is served while it comes in; `body` is b"" then
        self.fields: Fields

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.fields.items

    def header(self, name: bytes) -> bytes | None:
        """The value of the field with this lower-case name; repeated fields are joined."""
        return self.fields.lookup.get(name)


def parse_line(line: bytes) -> Request:
    """A request line without its CRLF. Raises `Refused`: 400, 501 for CONNECT and TRACE, 505."""
    match = _LINE.fullmatch(line)
    if match is None:
        if _OTHER_VERSION.fullmatch(line):
            raise Refused(505, Unsupported("only HTTP/1.1 and HTTP/1.0 are spoken here"))
        raise _malformed("the request line is not `method SP target SP HTTP/1.1`")
    word, target, minor = match.groups()
    method = _KNOWN.get(word) or word.decode("ascii")
    request = Request(method, target, "1.1" if minor == b"1" else "1.0")
    if method in _REFUSED_METHODS:
        raise Refused(501, Unsupported(f"method {method} is not supported"))
    if target[0] != 0x2F:
        _other_form(request)
    return request


def _other_form(request: Request) -> None:
    """RFC 9112 section 3.2: absolute-form names the authority itself, asterisk-form is for OPTIONS only."""
    target = request.target
    if target == b"*" and request.method == "OPTIONS":
        return
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise _malformed("the request target is neither a path nor an http URI")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority = rest[:cut]
    if not _AUTHORITY.fullmatch(authority):
        raise _malformed("the authority of the request target is invalid")
    path, _, request.query = rest[cut:].partition(b"?")
    request.path = path or b"/"
    request.host = authority


class Fields:
    """A block of header fields, parsed and judged once; a connection that repeats the block reuses it.

    `items` keeps order and case; `lookup` has lower-case names, repeated fields joined with ", " (Cookie with "; ").
    `event` is the payload builder's to remember what it derived from this block on this connection.
    """

    __slots__ = (
        "chunked",
        "close",
        "content_length",
        "event",
        "expect",
        "host",
        "items",
        "keep_alive",
        "lookup",
        "raw",
    )

    def __init__(self, raw: bytes, items: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw
        self.items = items
        lookup = {name.lower(): value for name, value in items}
        if len(lookup) != len(items):
            lookup = _joined(items)
        self.lookup = lookup
        self.host = lookup.get(b"host")
        self.content_length = -1  # -1: no Content-Length
        self.chunked = False
        self.expect = lookup.get(b"expect")
        self.close = False
        self.keep_alive = False
        self.event: Any = None


def _joined(items: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    lookup: dict[bytes, bytes] = {}
    for name, value in items:
        low = name.lower()
        if low in lookup:
            lookup[low] += (b"; " if low == b"cookie" else b", ") + value
        else:
            lookup[low] = value
    return lookup


class _Silent:
    """llhttp is asked only whether it agrees."""


_SILENT: Final = _Silent()


def parse_fields(raw: bytes) -> Fields:
    """A field block: every line with its CRLF, without the empty line. Raises `Refused` (400, 417)."""
    if _BLOCK.fullmatch(raw) is None:
        raise _malformed("a header line is not `name: value` CRLF")
    items = _FIELD.findall(raw)
    if b" \r\n" in raw or b"\t\r\n" in raw:
        items = [(name, value.rstrip(b" \t")) for name, value in items]
    fields = Fields(raw, items)
    lookup = fields.lookup
    if fields.host is not None and not _AUTHORITY.fullmatch(fields.host):
        raise _malformed("the Host header is invalid, empty or repeated")
    if b"transfer-encoding" in lookup:
        if b"content-length" in lookup:
            raise _malformed("both Content-Length and Transfer-Encoding")
        if lookup[b"transfer-encoding"].lower() != b"chunked":
            raise _malformed("Transfer-Encoding other than `chunked`")
        fields.chunked = True
    elif b"content-length" in lookup:
        length = lookup[b"content-length"]
        if not _LENGTH.fullmatch(length):
            raise _malformed("Content-Length is not one number")
        fields.content_length = int(length)
    if b"connection" in lookup:
        options = [option.strip() for option in lookup[b"connection"].lower().split(b",")]
        fields.close = b"close" in options
        fields.keep_alive = b"keep-alive" in options
    if fields.expect is not None and fields.expect.lower() != b"100-continue":
        raise Refused(417, InvalidInput("the only expectation that can be met is 100-continue"))
    _second_opinion(raw)
    return fields


def _second_opinion(raw: bytes) -> None:
    try:
        httptools.HttpRequestParser(_SILENT).feed_data(b"POST / HTTP/1.1\r\n" + raw + b"\r\n")
    except httptools.HttpParserUpgrade:
        pass  # llhttp stops at `Upgrade`, having read the head to its end; what follows is not its to read
    except httptools.HttpParserError as error:
        raise _malformed(f"header fields: {error}") from error


def join(request: Request, fields: Fields) -> None:
    """Give the request its fields, and check what depends on both. Raises `Refused`."""
    if request.version == "1.1":
        if fields.host is None:
            raise _malformed("HTTP/1.1 without a Host header")
        request.keep_alive = not fields.close
    else:
        if fields.chunked:
            raise _malformed("Transfer-Encoding in HTTP/1.0")
        request.keep_alive = fields.keep_alive and not fields.close
    request.fields = fields
    request.host = request.host or fields.host or b""


def partial_fault(head: bytes) -> Refused | None:
    """Why an unfinished head can never become a good one, or None while it still can."""
    if head and not re.match(_TOKEN, head):
        return _malformed("a request does not begin with a method")
    if _STRAY.search(head):
        return _malformed("a bare CR, a bare LF or a control character in the head")
    return None
