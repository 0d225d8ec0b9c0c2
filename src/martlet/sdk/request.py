"""`Request`: an HTTP event of API Gateway's payload format 2.0 or 1.0, read lazily. Shapes: AWS, "proxy integrations"."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Header", "Request", "parse_query", "unquote"]


class Header:
    """Marks a parameter as a request header: `key: Annotated[str, Header("x-api-key")]`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name.lower()


class Request:
    """One HTTP request. A handler gets it by a parameter annotated `Request`."""

    __slots__ = ("_body", "_headers", "_query", "context", "event", "version")

    def __init__(self, event: dict[str, Any], context: Any = None) -> None:
        version = "2.0" if isinstance(event, dict) and "rawPath" in event else "1.0"
        if version == "1.0" and not (isinstance(event, dict) and "httpMethod" in event):
            raise ValueError(
                "this function answers HTTP, but the event is not an HTTP event (payload format 2.0 or 1.0); "
                "a function for .invoke or a schedule is declared with @app.function"
            )
        self.version = version
        self.event = event
        self.context = context
        self._headers: dict[str, str] | None = None
        self._query: dict[str, list[str]] | None = None
        self._body: bytes | None = None

    @property
    def method(self) -> str:
        """The method in capitals."""
        event = self.event
        return str(event["requestContext"]["http"]["method"] if self.version == "2.0" else event["httpMethod"]).upper()

    @property
    def path(self) -> str:
        """The path as it came, still percent-encoded."""
        return str(self.event["rawPath"] if self.version == "2.0" else self.event["path"])

    @property
    def path_parameters(self) -> dict[str, str]:
        """What the route's `{names}` matched, decoded."""
        return self.event.get("pathParameters") or {}

    @property
    def raw_query(self) -> str:
        """The query string as it came, without "?"; of a 1.0 event an equivalent one."""
        if self.version == "2.0":
            return self.event.get("rawQueryString") or ""
        from martlet.sdk.client import quote

        return "&".join(f"{quote(name)}={quote(value)}" for name, values in self.query.items() for value in values)

    @property
    def query(self) -> dict[str, list[str]]:
        """Every query parameter with all its values, decoded. Raises `ValueError` for escapes that are not UTF-8."""
        if self._query is None:
            if self.version == "2.0":
                self._query = parse_query(self.event.get("rawQueryString") or "")
            else:
                several = self.event.get("multiValueQueryStringParameters")
                single = self.event.get("queryStringParameters") or {}
                self._query = several or {name: [value] for name, value in single.items()}
        return self._query

    @property
    def headers(self) -> dict[str, str]:
        """Headers by lower-case name; repeated ones are joined with ", ". Cookies of a 2.0 event are in `cookies`."""
        if self._headers is None:
            headers = {name.lower(): value for name, value in (self.event.get("headers") or {}).items()}
            for name, values in (self.event.get("multiValueHeaders") or {}).items():
                headers[name.lower()] = ("; " if name.lower() == "cookie" else ", ").join(values)
            self._headers = headers
        return self._headers

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies by name; the first of a repeated name counts (RFC 6265 section 5.4 sends the most specific first)."""
        found: dict[str, str] = {}
        for pair in self.cookie_header.split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                found.setdefault(name, value)
        return found

    @property
    def cookie_header(self) -> str:
        """The cookie header as the client sent it, or ""."""
        cookies = self.event.get("cookies")
        return "; ".join(cookies) if cookies else self.headers.get("cookie", "")

    @property
    def body(self) -> bytes:
        """The body's bytes. Raises `ValueError` for an event whose base64 is broken."""
        if self._body is None:
            body = self.event.get("body") or ""
            if self.event.get("isBase64Encoded"):
                import binascii

                self._body = binascii.a2b_base64(body)
            else:
                self._body = body.encode()
        return self._body

    @property
    def text(self) -> str:
        """The body as UTF-8 text. Raises `UnicodeDecodeError`."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError`; NaN and Infinity are not JSON."""
        import json

        return json.loads(self.body, parse_constant=_no_constant)

    @property
    def client(self) -> str:
        """The client's IP address."""
        outer = self.event.get("requestContext") or {}
        inner = outer.get("http" if self.version == "2.0" else "identity") or {}
        return str(inner.get("sourceIp") or "")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def parse_query(text: str) -> dict[str, list[str]]:
    """application/x-www-form-urlencoded pairs (WHATWG URL section 5.1), in order. Raises `ValueError` if not UTF-8."""
    found: dict[str, list[str]] = {}
    for pair in text.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            found.setdefault(unquote(name.replace("+", " ")), []).append(unquote(value.replace("+", " ")))
    return found


def unquote(text: str) -> str:
    """Percent-decode; a "%" that starts no escape stays. Raises `ValueError` if the result is not UTF-8."""
    return unquote_bytes(text).decode() if "%" in text else text


def unquote_bytes(text: str) -> bytes:
    """Percent-decode to bytes."""
    head, *parts = text.encode("utf-8", "surrogatepass").split(b"%")
    found = bytearray(head)
    for part in parts:
        digits = part[:2]
        try:
            if len(digits) != 2 or not digits.isalnum():
                raise ValueError(digits)
            found.append(int(digits, 16))
            found += part[2:]
        except ValueError:
            found += b"%" + part
    return bytes(found)
