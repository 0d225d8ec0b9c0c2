"""Events and answers of formats 2.0 and 1.0. Events of 2.0 are compared with a builder that only thinks of being right."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.gateway.head import Request, join, parse_fields, parse_line
from martlet.gateway.payload import EventV1, EventV2, MalformedAnswer, answer_v1, answer_v2, head_from_prelude, trace_id
from martlet.types import Route

NOW = 1_583_348_638_390  # 2020-03-04T19:03:58.390Z
ID = "12345678-9abc-4def-8123-456789abcdef"
TRACE = "Root=1-5e5ffb9e-9abc4def8123456789abcdef"
JSON = [(b"content-type", b"application/json")]


def request(
    line: bytes = b"GET / HTTP/1.1", headers: bytes = b"", body: bytes = b"", host: bytes = b"Host: shop.localhost:8700\r\n"
) -> Request:
    made = parse_line(line)
    join(made, parse_fields(host + headers))
    made.client = ("192.0.2.7", 50_000)
    made.body = body
    return made


def event(made: Request, route: Route | None = None, params: dict[str, str] | None = None, trace: str = TRACE) -> Any:
    builder = EventV2("shop", route or Route(method="GET", path="/", function="f"))
    first = builder.build(made, ID, trace, NOW, params or {})
    assert builder.build(made, ID, trace, NOW, params or {}) == first  # from what the connection remembers
    return json.loads(first)


def test_the_whole_event_of_format_2() -> None:
    made = request(
        b"POST /pa2%Fth/1?a=1&b=2&a=3%20x HTTP/1.1",
        b"User-Agent: curl/8\r\nContent-Type: application/json\r\nX-Multi: 1\r\nx-multi: 2\r\nCookie: s=1; t=2\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nConnection: keep-alive\r\nContent-Length: 9\r\n",
        b'{"a":"\xc3\xa9"}',
    )
    assert event(made, Route(method="POST", path="/{x}/{y}", function="f"), {"x": "pa2%Fth", "y": "1"}) == {
        "version": "2.0",
        "routeKey": "POST /{x}/{y}",
        "rawPath": "/pa2%Fth/1",
        "rawQueryString": "a=1&b=2&a=3%20x",
        "cookies": ["s=1", "t=2"],
        "headers": {
            "host": "shop.localhost:8700",
            "user-agent": "curl/8",
            "content-type": "application/json",
            "content-length": "9",
            "x-multi": "1,2",
            "x-forwarded-for": "10.0.0.1, 192.0.2.7",
            "x-forwarded-port": "8700",
            "x-forwarded-proto": "http",
            "x-amzn-trace-id": TRACE,
        },
        "queryStringParameters": {"a": "1,3 x", "b": "2"},
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "shop",
            "domainName": "shop.localhost",
            "domainPrefix": "shop",
            "http": {
                "method": "POST",
                "path": "/pa2%Fth/1",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.7",
                "userAgent": "curl/8",
            },
            "requestId": ID,
            "routeKey": "POST /{x}/{y}",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": NOW,
        },
        "pathParameters": {"x": "pa2%Fth", "y": "1"},
        "body": '{"a":"é"}',
        "isBase64Encoded": False,
    }


def test_what_is_absent_is_left_out() -> None:
    made = event(request(), Route(method="ANY", path="$default", function="f"))
    assert {"cookies", "queryStringParameters", "pathParameters", "body", "stageVariables"}.isdisjoint(made)
    assert (made["routeKey"], made["rawQueryString"], made["isBase64Encoded"]) == ("$default", "", False)


def test_a_request_without_host_and_one_in_absolute_form() -> None:
    old = request(b"GET / HTTP/1.0", host=b"")
    assert event(old)["requestContext"]["domainName"] == ""
    assert "host" not in event(old)["headers"]
    assert event(old)["requestContext"]["http"]["protocol"] == "HTTP/1.0"
    absolute = request(b"GET http://other.test/x HTTP/1.1")
    assert event(absolute)["headers"]["host"] == "other.test"
    assert event(absolute)["rawPath"] == "/x"
    plain = request(b"GET /y HTTP/1.1")
    plain.fields = absolute.fields  # the next request of that connection: what was derived must not stick
    plain.host = plain.fields.host or b""
    assert event(plain)["headers"]["host"] == "shop.localhost:8700"
    assert event(absolute)["headers"]["host"] == "other.test"  # nor the other way round


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (b"application/json", b"{}", True),
        (b"Application/JSON; charset=utf-8", b"{}", True),
        (b"text/csv", b"a,b", True),
        (b"application/xml", b"<a/>", True),
        (b"application/javascript", b"1", True),
        (b"application/x-www-form-urlencoded", b"a=b", False),
        (b"application/octet-stream", b"abc", False),
        (b"multipart/form-data; boundary=x", b"--x", False),
        (b"image/png", b"\x89PNG", False),
        (b"", b"abc", False),
        (b"text/plain", b"\xff\xfe", False),
        (b"application/json", b"\xed\xa0\x80", False),
    ],
)
def test_what_is_not_text_is_base64(content_type: bytes, body: bytes, text: bool) -> None:
    made = request(headers=b"Content-Type: %b\r\n" % content_type if content_type else b"", body=body)
    for found in (
        event(made),
        json.loads(EventV1("a", Route(method="GET", path="/", function="f")).build(made, ID, TRACE, NOW, {})),
    ):
        assert found["isBase64Encoded"] is not text
        assert (found["body"].encode() if text else base64.b64decode(found["body"])) == body


TEXT = st.binary(max_size=20).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127).strip(b" \t"))
NAME = st.sampled_from([b"x-a", b"X-A", b"x-b", b"Cookie", b"User-Agent", b"X-Forwarded-For", b"Te", b"accept"])
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#?"), max_size=25)
QUERY = st.one_of(
    VISIBLE,
    st.lists(st.sampled_from(["a", "b", "=", "&", "%20", "%zz", "%ff", "+", '"', "\\", "a=1"]), max_size=10).map("".join),
)


@given(
    VISIBLE,
    QUERY,
    st.lists(st.tuples(NAME, TEXT), max_size=6),
    st.binary(max_size=30),
    st.sampled_from(["text/plain", "image/png"]),
)
def test_format_2_is_json_and_agrees_with_a_slow_builder(
    path: str, query: str, pairs: list[tuple[bytes, bytes]], body: bytes, content_type: str
) -> None:
    target = f"/{path}?{query}" if query else f"/{path}"
    block = b"".join(b"%b: %b\r\n" % pair for pair in pairs) + f"Content-Type: {content_type}\r\n".encode()
    made = request(f"PUT {target} HTTP/1.1".encode(), block, body)
    route = Route(method="ANY", path="/é/{p+}", function="f")
    assert event(made, route, {"p": 'q"\\'}) == slow_event(made, route, {"p": 'q"\\'}, content_type)


def slow_event(made: Request, route: Route, params: dict[str, str], content_type: str) -> dict[str, Any]:
    cookies, headers = slow_headers(made)
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(made.query.decode(), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    path = made.path.decode()
    http = {"method": made.method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.7"}
    built: dict[str, Any] = {
        "version": "2.0",
        "routeKey": f"{route.method} {route.path}",
        "rawPath": path,
        "rawQueryString": made.query.decode(),
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "shop",
            "domainName": "shop.localhost",
            "domainPrefix": "shop",
            "http": http | {"userAgent": headers.get("user-agent", "")},
            "requestId": ID,
            "routeKey": f"{route.method} {route.path}",
            "stage": "$default",
            "time": datetime.fromtimestamp(NOW // 1000, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": NOW,
        },
        "pathParameters": params,
        "isBase64Encoded": False,
    }
    if cookies:
        built["cookies"] = cookies
    if query:
        built["queryStringParameters"] = {name: ",".join(values) for name, values in query.items()}
    if made.body:
        try:
            if content_type != "text/plain":
                raise ValueError
            built["body"] = made.body.decode()
        except ValueError:
            built["body"] = base64.b64encode(made.body).decode()
            built["isBase64Encoded"] = True
    return built


def slow_headers(made: Request) -> tuple[list[str], dict[str, str]]:
    headers: dict[str, str] = {"host": "shop.localhost:8700"}
    cookies: list[str] = []
    chain = []
    for raw_name, raw_value in made.headers:
        name, value = raw_name.decode().lower(), raw_value.decode("latin-1")
        if name == "cookie":
            cookies += [part.strip() for part in value.split(";") if part.strip()]
        elif name == "x-forwarded-for":
            chain.append(value)
        elif name not in ("te", "host"):
            headers[name] = ",".join([headers[name], value]) if name in headers else value
    given_chain = ", ".join(chain)
    headers["x-forwarded-for"] = f"{given_chain}, 192.0.2.7" if given_chain else "192.0.2.7"
    return cookies, headers | {"x-forwarded-port": "8700", "x-forwarded-proto": "http", "x-amzn-trace-id": TRACE}


@given(st.integers(0, 4_000_000_000))
def test_the_time_of_any_second(second: int) -> None:
    builder = EventV2("shop", Route(method="GET", path="/", function="f"))
    made = json.loads(builder.build(request(), ID, TRACE, second * 1000, {}))
    assert made["requestContext"]["time"] == datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def test_the_whole_event_of_format_1() -> None:
    made = request(b"GET /a/b%20c?x=1&x=2&y HTTP/1.1", b"X-Case: 1\r\nX-Case: 2\r\nUser-Agent: curl/8\r\nTE: trailers\r\n")
    found = json.loads(
        EventV1("shop", Route(method="ANY", path="/{p+}", function="f")).build(made, ID, TRACE, NOW, {"p": "a/b c"})
    )
    context = found.pop("requestContext")
    assert found.pop("multiValueHeaders")["X-Case"] == ["1", "2"]
    assert found == {
        "version": "1.0",
        "resource": "/{p+}",
        "path": "/a/b%20c",
        "httpMethod": "GET",
        "headers": {
            "X-Case": "2",
            "User-Agent": "curl/8",
            "Host": "shop.localhost:8700",
            "X-Amzn-Trace-Id": TRACE,
            "X-Forwarded-For": "192.0.2.7",
            "X-Forwarded-Port": "8700",
            "X-Forwarded-Proto": "http",
        },
        "queryStringParameters": {"x": "2", "y": ""},
        "multiValueQueryStringParameters": {"x": ["1", "2"], "y": [""]},
        "pathParameters": {"p": "a/b c"},
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
    }
    assert context["requestTime"] == "04/Mar/2020:19:03:58 +0000"
    assert (context["resourcePath"], context["path"], context["protocol"]) == ("/{p+}", "/a/b%20c", "HTTP/1.1")
    assert context["identity"]["sourceIp"] == "192.0.2.7"
    assert context["identity"]["cognitoIdentityId"] is None


def test_format_1_has_null_for_what_is_absent() -> None:
    found = json.loads(EventV1("a", Route(method="GET", path="/", function="f")).build(request(), ID, TRACE, NOW, {}))
    for key in ("queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables", "body"):
        assert found[key] is None


PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ("", TRACE),
        ("X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678", "Root=1-67891233-abcdef012345678912345678"),
        (
            "X-Amzn-Trace-Id: Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678;Sampled=1",
            "Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678;Sampled=1",
        ),
        ('X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678"', TRACE),
        ("X-Amzn-Trace-Id: nonsense", TRACE),
        (f"X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678;A={'x' * 300}", TRACE),
        (
            f"traceparent: 00-{PARENT}-00f067aa0ba902b7-01",
            "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1",
        ),
        (
            f"traceparent: 00-{PARENT}-00f067aa0ba902b7-00",
            "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=0",
        ),
        (f"traceparent: 00-{'0' * 32}-00f067aa0ba902b7-01", TRACE),
        (f"traceparent: 00-{PARENT}-{'0' * 16}-01", TRACE),
        (f"traceparent: ff-{PARENT}-00f067aa0ba902b7-01", TRACE),
        (f"traceparent: 00-{PARENT.upper()}-00f067aa0ba902b7-01", TRACE),
    ],
)
def test_trace_ids(headers: str, trace: str) -> None:
    made = request(headers=f"{headers}\r\n".encode() if headers else b"")
    found = trace_id(made, ID, NOW)
    assert found == trace
    assert event(made, trace=found)["headers"]["x-amzn-trace-id"] == trace


# --- answers: the recorded cases of reference/lambda.md section 3, then hostile ones ------------------------------------


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'{"message":"hi"}', (200, JSON, b'{"message":"hi"}')),
        (b"{}", (200, JSON, b"{}")),
        (b'"plain \\u00e9\\n"', (200, JSON, "plain é\n".encode())),
        (b'"ok"', (200, JSON, b"ok")),
        (b"[1,2]", (200, JSON, b"[1,2]")),
        (b"42", (200, JSON, b"42")),
        (b"true", (200, JSON, b"true")),
        (b"null", (200, JSON, b"null")),
        (b' {"a":1}', (200, JSON, b'{"a":1}')),
        (b'{"body":"x"}', (200, JSON, b'{"body":"x"}')),
        (b'{"nested":{"statusCode":500}}', (200, JSON, b'{"nested":{"statusCode":500}}')),
        (b'{"statusCode":201}', (201, [(b"content-type", b"text/plain;charset=UTF-8")], b"")),
        (b'{"statusCode":"404","body":"no"}', (404, [(b"content-type", b"text/plain;charset=UTF-8")], b"no")),
        (b'{"statusCode":200,"body":null}', (200, [(b"content-type", b"text/plain;charset=UTF-8")], b"")),
        (
            b'{"statusCode":200,"headers":{"Content-Type":"image/png"},"body":"iVBORw==","isBase64Encoded":true}',
            (200, [(b"Content-Type", b"image/png")], b"\x89PNG"),
        ),
        (
            b'{"statusCode":302,"headers":{"location":"/x","content-type":"a/b","x-n":1,"x-b":true,"x-0":null},"cookies":["a=1","b=2"]}',
            (
                302,
                [
                    (b"location", b"/x"),
                    (b"content-type", b"a/b"),
                    (b"x-n", b"1"),
                    (b"x-b", b"true"),
                    (b"set-cookie", b"a=1"),
                    (b"set-cookie", b"b=2"),
                ],
                b"",
            ),
        ),
        (
            b'{"statusCode":200,"headers":{"content-type":"a/b","x":"\\u00e9","y":"\\u20ac"}}',
            (200, [(b"content-type", b"a/b"), (b"x", b"\xe9"), (b"y", "€".encode())], b""),
        ),
    ],
)
def test_answers_of_format_2(payload: bytes, answer: object) -> None:
    assert answer_v2(payload) == answer


HOSTILE = [
    {"statusCode": 99},
    {"statusCode": 100},
    {"statusCode": 600},
    {"statusCode": -200},
    {"statusCode": "abc"},
    {"statusCode": "200 OK\r\nX: y"},
    {"statusCode": 200.5},
    {"statusCode": True},
    {"statusCode": None},
    {"statusCode": [200]},
    {"statusCode": 200, "body": {"a": 1}},
    {"statusCode": 200, "body": 7},
    {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
    {"statusCode": 200, "body": "YQ==\n", "isBase64Encoded": True},
    {"statusCode": 200, "body": "é", "isBase64Encoded": True},
    {"statusCode": 200, "headers": ["a"]},
    {"statusCode": 200, "headers": "a: b"},
    {"statusCode": 200, "headers": {"x": {"y": 1}}},
    {"statusCode": 200, "headers": {"x": ["y"]}},
    {"statusCode": 200, "headers": {"x": "a\r\nset-cookie: b=c"}},
    {"statusCode": 200, "headers": {"x": "a\nb"}},
    {"statusCode": 200, "headers": {"x": "a\rb"}},
    {"statusCode": 200, "headers": {"x": "a\0b"}},
    {"statusCode": 200, "headers": {"x\r\ny": "b"}},
    {"statusCode": 200, "headers": {"x y": "b"}},
    {"statusCode": 200, "headers": {"x:": "b"}},
    {"statusCode": 200, "headers": {"": "b"}},
    {"statusCode": 200, "headers": {"é": "b"}},
    {"statusCode": 200, "headers": {"x": "a" * 500 + "\r\n"}},
    {"statusCode": 200, "cookies": "a=b"},
    {"statusCode": 200, "cookies": ["a=b\r\nx: y"]},
    {"statusCode": 200, "cookies": [{"a": "b"}]},
    {"statusCode": 200, "multiValueHeaders": {"x": "y"}},
    {"statusCode": 200, "multiValueHeaders": {"x": ["a\nb"]}},
    {"statusCode": 200, "multiValueHeaders": ["x"]},
]


@pytest.mark.parametrize("result", HOSTILE, ids=json.dumps)
def test_hostile_answers_are_malformed_in_both_formats(result: dict[str, Any]) -> None:
    payload = json.dumps(result).encode()
    for decode in (answer_v2, answer_v1):
        for _ in range(2):  # a refusal is not remembered as anything else
            with pytest.raises(MalformedAnswer):
                decode(payload)
    if "body" not in result:
        with pytest.raises(MalformedAnswer):
            head_from_prelude(payload)


@pytest.mark.parametrize(
    "payload", [b'{"statusCode":200', b'"\\ud800"', b'{"statusCode":NaN}', b'{"statusCode":200,"body":"\xff"}']
)
def test_what_is_not_json_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        answer_v2(payload)


@pytest.mark.parametrize("payload", [b"{}", b"null", b"[]", b'"x"', b"7", b"", b"{", b'{"body":"x"}'])
def test_format_1_wants_a_status_code(payload: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        answer_v1(payload)


def test_answers_of_format_1() -> None:
    result = {
        "statusCode": 200,
        "headers": {"A": "1", "b": "2"},
        "multiValueHeaders": {"a": ["x", "y"], "Set-Cookie": ["p=1", "q=2"]},
        "body": "ok",
    }
    headers = [(b"a", b"x"), (b"a", b"y"), (b"Set-Cookie", b"p=1"), (b"Set-Cookie", b"q=2"), (b"b", b"2"), *JSON]
    assert answer_v1(json.dumps(result).encode()) == (200, headers, b"ok")


def test_hop_by_hop_headers_and_our_own_are_dropped() -> None:
    names = ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Content-Length", "Apigw-RequestId")
    headers = dict.fromkeys(names, "x") | {"connection": "close, X-Hop", "X-Hop": "1", "X-End": "2", "content-type": "a/b"}
    payload = json.dumps({"statusCode": 200, "headers": headers}).encode()
    assert answer_v2(payload)[1] == [(b"X-End", b"2"), (b"content-type", b"a/b")]


def test_preludes() -> None:
    assert head_from_prelude(b"") == (200, [(b"content-type", b"application/octet-stream")])
    assert head_from_prelude(b'{"statusCode":201,"headers":{"content-type":"text/html"},"cookies":["a=1"]}') == (
        201,
        [(b"content-type", b"text/html"), (b"set-cookie", b"a=1")],
    )
    assert head_from_prelude(b'{"headers":{}}')[0] == 200
    for bad in (b"[]", b"{", b'{"statusCode":1000}', b'{"headers":{"a":"\\r\\n"}}'):
        with pytest.raises(MalformedAnswer):
            head_from_prelude(bad)


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from(["statusCode", "headers", "multiValueHeaders", "cookies", "body", "isBase64Encoded", "x"])


@given(st.one_of(JSON_VALUE, st.dictionaries(FIELD, JSON_VALUE | st.just(200))))
def test_any_json_is_an_answer_or_malformed_and_never_breaks_a_line(result: Any) -> None:
    payload = json.dumps(result).encode()
    for decode in (answer_v1, answer_v2):
        try:
            status, headers, body = decode(payload)
        except MalformedAnswer:
            continue
        assert 200 <= status <= 599
        assert isinstance(body, bytes)
        for name, value in headers:
            assert name
            assert not {10, 13, 0} & set(name + value)
