"""The public edge through the real stack: payload formats exact, limits with clear errors, overload refused quickly."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import (
    APPS,
    Api,
    RunningPlatform,
    connection,
    eventually,
    exchange,
    read_answer,
)

pytestmark = pytest.mark.e2e


def get(platform: RunningPlatform, target: str, *lines: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request as bytes, with the header lines as given."""
    head = [f"{method} {target} HTTP/1.1", "Host: all.localhost", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


# --- payload formats


def test_payload_format_2(everything: RunningPlatform) -> None:
    request = get(
        everything,
        "/event/a%20b%2Fc?x=1&x=2&y=&%C3%BC=%26",
        "Cookie: one=1; two=2",
        "Cookie: three=3",
        "X-Many: a",
        "X-Many: b",
        "User-Agent: test/1",
    )
    answer = exchange(everything, request)
    assert answer.status == 200
    event = json.loads(answer.body)
    assert (event["version"], event["routeKey"]) == ("2.0", "GET /event/{name}")
    assert event["rawPath"] == "/event/a%20b%2Fc"
    assert event["rawQueryString"] == "x=1&x=2&y=&%C3%BC=%26"
    assert event["queryStringParameters"] == {"x": "1,2", "y": "", "ü": "&"}
    assert event["pathParameters"] == {"name": "a b/c"}
    assert event["cookies"] == ["one=1", "two=2", "three=3"]
    assert event["headers"]["x-many"] == "a,b"
    assert "cookie" not in event["headers"]
    assert "body" not in event
    assert event["isBase64Encoded"] is False
    context = event["requestContext"]
    assert context["http"] | {"path": ""} == {
        "method": "GET",
        "path": "",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "test/1",
    }
    assert context["requestId"] == answer.all("x-amzn-requestid")[0]
    assert abs(context["timeEpoch"] / 1000 - time.time()) < 60


def test_payload_format_1(everything: RunningPlatform) -> None:
    request = get(
        everything, "/old/a/b%20c?x=1&x=2", "X-Many: a", "X-Many: b", "Content-Type: text/plain", method="POST", body=b"text"
    )
    answer = exchange(everything, request)
    event = json.loads(answer.body)
    assert (event["version"], event["httpMethod"], event["resource"]) == ("1.0", "POST", "/old/{proxy+}")
    assert event["path"] == "/old/a/b%20c"
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"]}
    assert event["queryStringParameters"] == {"x": "2"}
    many = {name.lower(): values for name, values in event["multiValueHeaders"].items()}
    assert many["x-many"] == ["a", "b"]
    assert event["pathParameters"]["proxy"] == "a/b c"
    assert (event["body"], event["isBase64Encoded"]) == ("text", False)
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"
    assert answer.all("set-cookie") == ["a=1", "b=2; Path=/"]
    assert answer.all("x-many") == ["one", "two"]


def test_binary_bodies_are_exact_both_ways(everything: RunningPlatform, http: httpx.Client) -> None:
    body = bytes(range(256)) * 40
    answer = http.post(f"{everything.app_url}/bytes", content=body, headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, answer.headers["x-encoded"], answer.content) == (200, "True", body)
    text = "Grüße ☃".encode()
    answer = http.post(f"{everything.app_url}/bytes", content=text, headers={"content-type": "text/plain; charset=utf-8"})
    assert (answer.headers["x-encoded"], answer.content) == ("False", text)
    assert answer.headers.get_list("set-cookie") == ["first=1; HttpOnly", "second=2"]


def test_a_chunked_body_with_trailers_arrives_whole(everything: RunningPlatform) -> None:
    head = "POST /bytes HTTP/1.1\r\nHost: all.localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(everything, head.encode() + b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert answer.body == b"hello, world"


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("text", 200, b"plain text"),
        ("list", 200, b"[1, 2]"),
        ("number", 200, b"7"),
        ("object", 200, b'{"hello": "world"}'),
        ("null", 200, b"null"),
        ("empty", 204, b""),
        ("bad-status", 502, b'{"message":"Internal Server Error"}'),
        ("bad-body", 502, b'{"message":"Internal Server Error"}'),
        ("split", 502, b'{"message":"Internal Server Error"}'),
        ("error", 500, b'{"message":"Internal Server Error"}'),
        ("exit", 500, b'{"message":"Internal Server Error"}'),
    ],
)
def test_answers_in_every_shape(everything: RunningPlatform, http: httpx.Client, kind: str, status: int, body: bytes) -> None:
    answer = http.get(f"{everything.app_url}/answer/{kind}")
    assert (answer.status_code, answer.content) == (status, body)
    assert "x-injected" not in answer.headers


# --- HTTP


def test_typed_parameters_are_checked(everything: RunningPlatform, http: httpx.Client) -> None:
    url = f"{everything.app_url}/typed"
    assert http.get(f"{url}/3?loud=true&tag=a&tag=b").json() == {"number": 3, "loud": True, "tags": ["a", "b"]}
    for target, field, place in (("/x", "number", "path"), ("/3?loud=maybe", "loud", "query")):
        answer = http.get(url + target)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert [(error["field"], error["location"]) for error in answer.json()["errors"]] == [(field, place)]


def test_unknown_paths_and_methods(everything: RunningPlatform, http: httpx.Client) -> None:
    assert http.get(f"{everything.app_url}/nothing").status_code == 404
    answer = http.post(f"{everything.app_url}/typed/3")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_head_has_the_headers_and_no_body(everything: RunningPlatform) -> None:
    with connection(everything) as sock:
        sock.sendall(get(everything, "/only-head", method="HEAD") + get(everything, "/typed/1"))
        stream = sock.makefile("rb")
        head = read_answer(stream, head=True)
        assert (head.status, head.all("x-head"), head.all("content-length")) == (200, ["yes"], ["17"])
        assert json.loads(read_answer(stream).body)["number"] == 1, "the pipelined request's answer follows at once"


def test_cors(everything: RunningPlatform, http: httpx.Client) -> None:
    url = f"{everything.app_url}/cors"
    asked = {"origin": "https://shop.example", "access-control-request-method": "GET"}
    preflight = http.options(url, headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    assert preflight.headers["access-control-max-age"] == "600"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    allowed = http.get(url, headers={"origin": "https://shop.example"})
    assert (allowed.json(), allowed.headers["access-control-allow-origin"]) == ({"cors": True}, "https://shop.example")
    stranger = http.get(url, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


def test_streams_arrive_while_they_are_written(everything: RunningPlatform, http: httpx.Client) -> None:
    assert http.get(f"{everything.app_url}/stream/1000").text == "".join(f"line {number}\n" for number in range(1000))
    api = Api(everything)
    with http.stream("GET", f"{everything.app_url}/stream-gated/stream") as answer:
        parts = answer.iter_text()
        assert next(parts) == "before\n", "and the function still waits"
        eventually(lambda: api.request("GET", "/v1/documents/gates/stream?app=all").status_code == 200)
        api.request("PUT", "/v1/documents/gates/stream?app=all", content=b'"open"')
        assert "".join(parts) == "after\n"


def test_a_stream_that_fails_is_cut_not_ended(everything: RunningPlatform, http: httpx.Client) -> None:
    with http.stream("GET", f"{everything.app_url}/stream-breaks") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    api = Api(everything)
    eventually(lambda: any("[ERROR] Rejected: in the middle" in "\n".join(lines) for lines in api.records("all-stream_breaks")))


# --- limits


def test_throttles_answer_429_with_retry_after(everything: RunningPlatform, http: httpx.Client) -> None:
    for path in ("/throttled", "/throttled/each"):
        answers = [http.get(everything.app_url + path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 100
        assert answers[2].json()["type"] == "urn:martlet:error:throttled"


def test_a_body_that_is_too_large(everything: RunningPlatform, http: httpx.Client) -> None:
    refused = http.post(f"{everything.app_url}/bytes", content=b"x" * 11_000_000)
    assert refused.status_code == 413
    assert refused.json()["detail"] == "request body: limit request_body_bytes is 10485760 bytes, got 11000000"
    refused = http.post(f"{everything.app_url}/bytes", content=b"x" * 7_000_000)
    assert refused.status_code == 413
    assert "limit payload_bytes is 6291456 bytes" in refused.json()["detail"]
    assert http.post(f"{everything.app_url}/bytes", content=b"x" * 1_000_000).status_code == 200


def test_a_head_that_is_too_large(everything: RunningPlatform) -> None:
    refused = exchange(everything, get(everything, "/typed/1", "X-Large: " + "x" * 12_000))
    assert refused.status == 431
    assert b"request_header_bytes" in refused.body
    refused = exchange(everything, get(everything, "/typed/" + "1" * 9_000))
    assert refused.status == 414
    assert b"request_line_bytes" in refused.body


def test_a_function_that_takes_too_long_is_504(everything: RunningPlatform, http: httpx.Client) -> None:
    answer = http.get(f"{everything.app_url}/late")
    assert (answer.status_code, answer.json()) == (504, {"message": "Endpoint request timed out"})


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Transfer-Encoding: xchunked",),
        ("Content-Length: +5",),
        ("Content-Length : 5",),
    ],
)
def test_request_smuggling_is_refused(everything: RunningPlatform, lines: tuple[str, ...]) -> None:
    request = get(everything, "/bytes", *lines, method="POST") + b"0\r\n\r\nGET /typed/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with connection(everything) as sock:
        sock.sendall(request)
        stream = sock.makefile("rb")
        assert read_answer(stream).status in (400, 501)
        assert stream.read() == b"", "and the connection is closed: nothing after it is read as a request"


# --- overload and end


def test_overload_is_refused_quickly_and_what_is_accepted_succeeds(everything: RunningPlatform) -> None:
    """Ten times the clients that four events at one time can serve."""

    def client(count: int) -> list[tuple[int, str | None]]:
        with httpx.Client(timeout=30) as mine:
            answers = [mine.get(f"{everything.app_url}/busy") for _ in range(count)]
        return [(answer.status_code, answer.headers.get("retry-after")) for answer in answers]

    with ThreadPoolExecutor(40) as pool:
        found = [answer for answers in pool.map(client, [5] * 40) for answer in answers]
    counts = Counter(status for status, _ in found)
    assert set(counts) <= {200, 429, 503}, counts
    assert counts[200] >= 4
    assert counts[429] + counts[503] > 0
    assert all(retry and int(retry) >= 1 for status, retry in found if status != 200)
    assert httpx.get(f"{everything.app_url}/busy").status_code == 200, "and afterwards it serves as before"


def test_a_graceful_end_finishes_what_was_accepted(start: Start) -> None:
    platform = start(APPS / "everything", "--no-watch")
    api = Api(platform)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(f"{platform.app_url}/slow?seconds=2", timeout=30)))
    asking.start()
    eventually(lambda: api.status_of("all-slow").get("busy") == 1)
    platform.process.send_signal(signal.SIGTERM)
    eventually(lambda: not accepts(platform.port))
    asking.join()
    assert (answers[0].status_code, answers[0].json()) == (200, {"slow": 2.0})
    assert platform.process.wait(30) == 0


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_credentials_are_needed_for_the_platforms_api(everything: RunningPlatform, http: httpx.Client) -> None:
    url = everything.api_url
    assert http.get(f"{url}/v1/health").json() == {"status": "ok"}
    for path in ("/v1/status", "/v1/apps", "/v1/logs", "/v1/usage", "/metrics", "/v1/documents/gates?app=all"):
        assert http.get(url + path).status_code == 401, path
        assert http.get(url + path, headers={"authorization": "Bearer wrong"}).status_code == 401, path
    assert http.post(f"{url}/v1/functions/all-echo/invocations", json={}).status_code == 401
    rebound = http.get(f"{url}/v1/health", headers={"host": "evil.example"})
    assert rebound.status_code in (400, 403, 421), "a web page cannot reach it by another name"


def test_no_secret_is_printed(everything: RunningPlatform) -> None:
    printed = everything.printed()
    assert everything.token not in printed
    assert everything.credentials["secret_access_key"] not in printed
