"""API Gateway's payload formats 2.0 and 1.0: a request to the event's bytes, a function's result to an answer.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
Format 2.0 is assembled from byte strings: what depends on the route is made once a route, what depends on the header
block once a connection (`Fields.event`). Format 1.0 is an ordinary object, serialised.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import lru_cache
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

import orjson

from martlet.gateway.head import Request
from martlet.types import Route

__all__ = [
    "Answer",
    "EventBuilder",
    "EventV1",
    "EventV2",
    "MalformedAnswer",
    "answer_url",
    "answer_v1",
    "answer_v2",
    "body_text",
    "clf_time",
    "encoded_header",
    "forwarded",
    "head_from_prelude",
    "query_pairs",
    "trace_id",
]

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]

ACCOUNT_ID: Final = "000000000000"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HOP_BY_HOP: Final = frozenset(  # RFC 9110 section 7.6.1
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate")
)
_NOT_FORWARDED: Final = _HOP_BY_HOP | {"expect", "x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"}
_NOT_ANSWERED: Final = _HOP_BY_HOP | {"content-length", "apigw-requestid", "x-amzn-requestid"}
_TEXT_TYPES: Final = frozenset((b"application/json", b"application/xml", b"application/javascript"))
_TRACE: Final = re.compile(
    rb"(?:[A-Za-z]+=[A-Za-z0-9:._-]+;)*Root=1-[0-9a-f]{8}-[0-9a-f]{24}(?:;[A-Za-z]+=[A-Za-z0-9:._-]*)*;?"
)
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")
_STATUS_TEXT: Final = re.compile(r"[2-5][0-9][0-9]")
_JSON_TYPE: Final = (b"content-type", b"application/json")
_TEXT_TYPE: Final = (b"content-type", b"text/plain;charset=UTF-8")
_BINARY_TYPE: Final = (b"content-type", b"application/octet-stream")
_CACHED_VALUE_CHARACTERS: Final = 128
_ORDINARY, _TYPE, _CONNECTION, _DROPPED = range(4)  # a header's role in an answer


class MalformedAnswer(Exception):
    """The function's result is no answer that the payload format knows; the message says why, for the log."""


class EventBuilder(Protocol):
    """Makes the events of one route."""

    def build(
        self, request: Request, request_id: str, trace: str, now_ms: int, params: dict[str, str], authorizer: str = ""
    ) -> bytes:
        """The event as JSON bytes. `authorizer`: a member of requestContext, with its comma, or nothing."""
        ...


def trace_id(request: Request, request_id: str, now_ms: int) -> str:
    """The X-Amzn-Trace-Id of a request: the client's, or its W3C traceparent translated, or a new root.

    The new root takes its random part from `request_id`, a random UUID.
    """
    lookup = request.fields.lookup
    given = lookup.get(b"x-amzn-trace-id")
    if given is not None and len(given) <= 256 and _TRACE.fullmatch(given):
        return given.decode("ascii")
    parent = lookup.get(b"traceparent")
    if parent is not None:
        match = _TRACEPARENT.fullmatch(parent)
        if match is not None:
            trace, span = match[1].decode(), match[2].decode()
            return f"Root=1-{trace[:8]}-{trace[8:]};Parent={span};Sampled={int(match[3], 16) & 1}"
    return f"Root=1-{now_ms // 1000:08x}-{request_id[9:13]}{request_id[14:18]}{request_id[19:23]}{request_id[24:]}"


@lru_cache(maxsize=4)
def clf_time(second: int) -> str:
    """Common Log Format, in UTC: "12/Mar/2020:19:03:58 +0000"."""
    days, rest = divmod(second, 86_400)
    year, month, day = _civil(days)
    return f"{day:02}/{_MONTHS[month - 1]}/{year}:{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02} +0000"


def _civil(days: int) -> tuple[int, int, int]:
    """Days since 1970-01-01 to (year, month, day), by counting in years that begin in March."""
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * of_year + 2) // 153
    day = of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return era * 400 + year_of_era + (month <= 2), month, day


def _quoted(raw: bytes) -> bytes:
    """Visible ASCII as a JSON string."""
    if b'"' in raw or b"\\" in raw:
        return orjson.dumps(raw.decode("ascii"))
    return b'"%b"' % raw


def _decoded(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8", "replace")


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """The parameters of a query string in order, decoded as a form is (WHATWG URL, section 5.1)."""
    pairs = [part.partition(b"=") for part in query.split(b"&") if part]
    if b"%" in query or b"+" in query:
        return [(_decoded(name), _decoded(value)) for name, _, value in pairs]
    return [(name.decode("ascii"), value.decode("ascii")) for name, _, value in pairs]


def _query_joined(query: bytes) -> dict[str, str]:
    """Format 2.0: values of a repeated name joined with commas."""
    found: dict[str, str] = {}
    if b"%" in query or b"+" in query:
        pairs = query_pairs(query)
    else:  # the same, without a bytes object for each part
        split = [part.partition("=") for part in query.decode("ascii").split("&") if part]
        pairs = [(name, value) for name, _, value in split]
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _is_text(content_type: bytes | None) -> bool:
    """What HTTP APIs hand over as text; all else is base64, forms and a missing type too (observed, not documented)."""
    media = (content_type or b"").partition(b";")[0].strip().lower()
    return media.startswith(b"text/") or media in _TEXT_TYPES


def body_text(request: Request) -> tuple[str, bool]:
    """The body as an event's string, and whether it is base64."""
    if _is_text(request.header(b"content-type")):
        try:
            return request.body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass  # says it is text, but JSON could not carry it
    return base64.b64encode(request.body).decode("ascii"), True


def _domain(host: bytes) -> str:
    text = host.decode("ascii")
    return text[: text.find("]") + 1] if text.startswith("[") else text.partition(":")[0]


def forwarded(request: Request) -> dict[str, str]:
    """X-Forwarded-*, in lower case: the client's chain with the address that we saw; port and scheme are only ours."""
    chain = request.header(b"x-forwarded-for")
    address = request.client[0]
    _, colon, port = request.host.rpartition(b":")
    named = port.decode("ascii") if colon and port.isdigit() else "443" if request.scheme == "https" else "80"
    return {
        "x-forwarded-for": f"{chain.decode('latin-1')}, {address}" if chain else address,
        "x-forwarded-port": named,
        "x-forwarded-proto": request.scheme,
    }


class EventV2:
    """Events of format 2.0 for one route of `app`."""

    def __init__(self, app: str, route: Route) -> None:
        key = "$default" if route.path == "$default" else f"{route.method} {route.path}"
        key_json = orjson.dumps(key)
        self._start = b'{"version":"2.0","routeKey":%b,"rawPath":' % key_json
        self._context = b',"requestContext":{"accountId":"%b","apiId":%b,' % (ACCOUNT_ID.encode(), orjson.dumps(app))
        self._after_id = f'","routeKey":{key_json.decode()},"stage":"$default","time":"'

    def build(
        self, request: Request, request_id: str, trace: str, now_ms: int, params: dict[str, str], authorizer: str = ""
    ) -> bytes:
        """The event as JSON bytes."""
        fields = request.fields
        known = fields.event
        if known is None or request.host is not fields.host:
            known = _connection_parts(request)
            if request.host is fields.host:
                fields.event = known
        headers, context, agent = known
        path, query = _quoted(request.path), request.query
        tail = f'"}},"requestId":"{request_id}{self._after_id}{clf_time(now_ms // 1000)}","timeEpoch":{now_ms}{authorizer}}}'
        return b"".join(
            (
                self._start,
                path,
                b',"rawQueryString":' + _quoted(query) if query else b',"rawQueryString":""',
                headers,
                trace.encode("ascii"),
                b'"},"queryStringParameters":' + orjson.dumps(_query_joined(query)) if query.strip(b"&") else b'"}',
                self._context,
                context,
                request.method.encode("ascii"),
                b'","path":',
                path,
                b',"protocol":"HTTP/1.1"' if request.version == "1.1" else b',"protocol":"HTTP/1.0"',
                agent,
                tail.encode(),
                b',"pathParameters":' + orjson.dumps(params) if params else b"",
                _body_v2(request) if request.body else b',"isBase64Encoded":false}',
            )
        )


def _body_v2(request: Request) -> bytes:
    body, encoded = body_text(request)
    if encoded:
        return b',"body":"%b","isBase64Encoded":true}' % body.encode("ascii")
    return b',"body":%b,"isBase64Encoded":false}' % orjson.dumps(body)


def _connection_parts(request: Request) -> tuple[bytes, bytes, bytes]:
    """The parts of an event that follow from the header block and the connection alone.

    Cookies and headers up to the value of x-amzn-trace-id, which comes last; domain up to the method; the agent.
    """
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        if name == "cookie":
            cookies += [pair for pair in (part.strip() for part in value.split(";")) if pair]
        elif name not in _NOT_FORWARDED:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    if request.host:
        headers["host"] = request.host.decode("ascii")
    headers.update(forwarded(request))
    domain = _domain(request.host)
    listed = b',"cookies":' + orjson.dumps(cookies) if cookies else b""
    block = b'%b,"headers":%b,"x-amzn-trace-id":"' % (listed, orjson.dumps(headers)[:-1])
    context = b'"domainName":%b,"domainPrefix":%b,"http":{"method":"' % (
        orjson.dumps(domain),
        orjson.dumps(domain.partition(".")[0]),
    )
    agent = b',"sourceIp":%b,"userAgent":%b' % (
        orjson.dumps(request.client[0]),
        orjson.dumps(headers.get("user-agent", ""))[:-1],
    )
    return block, context, agent


_IDENTITY: Final = (
    "accessKey",
    "accountId",
    "caller",
    "cognitoAuthenticationProvider",
    "cognitoAuthenticationType",
    "cognitoIdentityId",
    "cognitoIdentityPoolId",
    "principalOrgId",
    "user",
    "userArn",
)


class EventV1:
    """Events of format 1.0 for one route of `app`; header names keep their case."""

    def __init__(self, app: str, route: Route) -> None:
        self._app = app
        self._resource = route.path

    def build(
        self, request: Request, request_id: str, trace: str, now_ms: int, params: dict[str, str], authorizer: str = ""
    ) -> bytes:
        """The event as JSON bytes."""
        many: dict[str, list[str]] = {}
        for raw_name, raw_value in request.headers:
            name = raw_name.decode("ascii")
            if name.lower() not in _NOT_FORWARDED and name.lower() != "host":
                many.setdefault(name, []).append(raw_value.decode("latin-1"))
        if request.host:
            many["Host"] = [request.host.decode("ascii")]
        many["X-Amzn-Trace-Id"] = [trace]
        many.update((name.title(), [value]) for name, value in forwarded(request).items())
        query: dict[str, list[str]] = {}
        for name, value in query_pairs(request.query):
            query.setdefault(name, []).append(value)
        path = request.path.decode("ascii")
        body, encoded = body_text(request) if request.body else (None, False)
        return orjson.dumps(
            {
                "version": "1.0",
                "resource": self._resource,
                "path": path,
                "httpMethod": request.method,
                "headers": {name: values[-1] for name, values in many.items()},
                "multiValueHeaders": many,
                "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
                "multiValueQueryStringParameters": query or None,
                "requestContext": self._request_context(request, path, request_id, now_ms),
                "pathParameters": params or None,
                "stageVariables": None,
                "body": body,
                "isBase64Encoded": encoded,
            }
        )

    def _request_context(self, request: Request, path: str, request_id: str, now_ms: int) -> dict[str, Any]:
        domain = _domain(request.host)
        agent = request.header(b"user-agent")
        identity: dict[str, str | None] = dict.fromkeys(_IDENTITY)
        identity["sourceIp"] = request.client[0]
        identity["userAgent"] = agent.decode("latin-1") if agent is not None else None
        return {
            "accountId": ACCOUNT_ID,
            "apiId": self._app,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "extendedRequestId": request_id,
            "httpMethod": request.method,
            "identity": identity,
            "path": path,
            "protocol": f"HTTP/{request.version}",
            "requestId": request_id,
            "requestTime": clf_time(now_ms // 1000),
            "requestTimeEpoch": now_ms,
            "resourceId": None,
            "resourcePath": self._resource,
            "stage": "$default",
        }


def answer_v2(payload: bytes) -> Answer:
    """A result in format 2.0: an object with statusCode is an answer, any other JSON is the body of a 200.

    A string goes out without its quotes. Raises `MalformedAnswer`.
    """
    if payload[:1] in (b" ", b"\n", b"\r", b"\t"):
        payload = payload.strip()
    first = payload[:1]
    if first == b"{":
        if b'"statusCode"' in payload:
            result = _parsed(payload)
            if "statusCode" in result:
                return _structured(result, _TEXT_TYPE)
    elif first == b'"':
        return 200, [_JSON_TYPE], _parsed(payload).encode("utf-8")
    return 200, [_JSON_TYPE], payload


def answer_url(payload: bytes) -> Answer:
    """A result as function URLs take it: as format 2.0, but what has no type is JSON, and JSON goes out without its blanks.

    As recorded from the service. Raises `MalformedAnswer`.
    """
    if payload[:1] != b'"':
        try:
            result = json.loads(payload)  # keeps integers of any size
        except ValueError as error:
            raise MalformedAnswer(f"the result is not JSON: {error}") from error
        if isinstance(result, dict) and "statusCode" in result:
            if isinstance(result.get("body"), dict | list):  # sent as JSON, where API Gateway answers with an error
                result["body"] = json.dumps(result["body"], ensure_ascii=False, separators=(",", ":"))
            return _structured(result, _JSON_TYPE)
        return 200, [_JSON_TYPE], json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return answer_v2(payload)


def answer_v1(payload: bytes) -> Answer:
    """A result in format 1.0: an object with statusCode. Raises `MalformedAnswer` for anything else."""
    result = _parsed(payload)
    if not isinstance(result, dict) or "statusCode" not in result:
        raise MalformedAnswer("the result is not an object with statusCode")
    return _structured(result, _JSON_TYPE)


def head_from_prelude(prelude: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and headers of a streamed answer, from {"statusCode", "headers", "cookies"}; b"" is a 200.

    Raises `MalformedAnswer`.
    """
    result = _parsed(prelude) if prelude else {}
    if not isinstance(result, dict):
        raise MalformedAnswer("the prelude is not an object")
    result.setdefault("statusCode", 200)
    return _status(result["statusCode"]), _headers(result, _BINARY_TYPE)


def _parsed(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise MalformedAnswer(f"the result is not JSON: {error}") from error


def _structured(result: dict[str, Any], default_type: tuple[bytes, bytes]) -> Answer:
    body = result.get("body")
    if body is None:
        content = b""
    elif not isinstance(body, str):
        raise MalformedAnswer("body is not a string")
    elif result.get("isBase64Encoded"):
        try:
            content = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedAnswer(f"body is not base64: {error}") from error
    else:
        content = body.encode("utf-8")
    return _status(result["statusCode"]), _headers(result, default_type), content


def _status(value: object) -> int:
    if type(value) is int and 200 <= value <= 599:
        return value
    if isinstance(value, str) and _STATUS_TEXT.fullmatch(value):
        return int(value)
    raise MalformedAnswer(f"statusCode {value!r} is not 200 to 599")


def _headers(result: dict[str, Any], default_type: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    single, multiple, cookies = result.get("headers"), result.get("multiValueHeaders"), result.get("cookies")
    pairs: list[tuple[str, object]] = []
    if multiple:
        pairs += _multiple(multiple)
    if single:
        if not isinstance(single, dict):
            raise MalformedAnswer("headers is not an object")
        named = {name.lower() for name, _ in pairs}
        pairs += [(name, value) for name, value in single.items() if name.lower() not in named] if named else single.items()
    if cookies:
        if not isinstance(cookies, list):
            raise MalformedAnswer("cookies is not a list")
        pairs += [("set-cookie", cookie) for cookie in cookies]
    found: list[tuple[bytes, bytes]] = []
    typed = False
    options = b""
    for name, value in pairs:
        if value is None:
            continue
        header, role = _header(name, value if type(value) is str else _header_text(name, value))
        if role == _CONNECTION:
            options += b"," + header[1].lower()
        elif role != _DROPPED:
            typed = typed or role == _TYPE
            found.append(header)
    if options:
        named_by_connection = {option.strip() for option in options.split(b",")}
        found = [header for header in found if header[0].lower() not in named_by_connection]
    if not typed:
        found.append(default_type)
    return found


def _multiple(multiple: object) -> list[tuple[str, object]]:
    if not isinstance(multiple, dict):
        raise MalformedAnswer("multiValueHeaders is not an object")
    pairs: list[tuple[str, object]] = []
    for name, values in multiple.items():
        if not isinstance(values, list):
            raise MalformedAnswer(f"multiValueHeaders: {name!r} is not a list")
        pairs += [(name, value) for value in values]
    return pairs


def _header_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise MalformedAnswer(f"header {name!r} is neither text nor a number")


def _header(name: str, value: str) -> tuple[tuple[bytes, bytes], int]:
    if len(value) > _CACHED_VALUE_CHARACTERS or len(name) > _CACHED_VALUE_CHARACTERS:
        return encoded_header(name, value)
    return _cached_header(name, value)


def encoded_header(name: str, value: str) -> tuple[tuple[bytes, bytes], int]:
    """The header's bytes and its role. Refuses whatever would break the field block.

    Latin-1 as requests are read, UTF-8 for what does not fit.
    """
    if not _HEADER_NAME.fullmatch(name):
        raise MalformedAnswer(f"{name!r} is not a header name")
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        raw = value.encode("utf-8", "replace")
    if not _HEADER_VALUE.fullmatch(raw):
        raise MalformedAnswer(f"header {name!r} contains a line break or another control character")
    low = name.lower()
    role = _TYPE if low == "content-type" else _CONNECTION if low == "connection" else _ORDINARY
    return (name.encode("ascii"), raw.strip(b" \t")), _DROPPED if low in _NOT_ANSWERED and role != _CONNECTION else role


_cached_header = lru_cache(maxsize=4096)(encoded_header)  # a function's headers repeat
