"""The edge over real sockets, with a dispatch that the test plays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.gateway.conftest import Answer, Running, Serve, until

from martlet.clock import ManualClock
from martlet.errors import AccessDenied, InvalidInput, LimitExceeded, NotFound, Overloaded, Throttled
from martlet.gateway.edge import Edge
from martlet.telemetry import Registry
from martlet.types import Cors, Invocation, Outcome, Route, Throttle


class Functions:
    """A dispatch that keeps invocations, or ends each at once with `outcome`."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome
        self.seen: list[Invocation] = []

    def __call__(self, invocation: Invocation) -> None:
        self.seen.append(invocation)
        if self.outcome is not None:
            invocation.on_done(invocation, self.outcome)

    @property
    def event(self) -> Any:
        return json.loads(self.seen[-1].payload)

    def end(self, outcome: Outcome) -> None:
        invocation = self.seen[-1]
        invocation.on_done(invocation, outcome)


class Control:
    """What `functions` gives a running invocation."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def cancel(self) -> None:
        self.calls.append("cancel")


OK = Outcome(b'"ok"')


def route(method: str = "GET", path: str = "/", **more: Any) -> tuple[str, Route, str]:
    return ("shop", Route(method=method, path=path, function="f", **more), "shop-f")


def get(path: str = "/", headers: str = "", method: str = "GET", host: str = "shop.localhost") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode()


Start = Callable[..., Any]


@pytest.fixture
def start(serve: Serve) -> Start:
    async def make(functions: Functions, *routes: tuple[str, Route, str], **options: Any) -> tuple[Edge, Running]:
        clock = options.pop("clock", None) or ManualClock()
        edge = Edge(functions, clock=clock, **options)
        edge.set_routes(routes or [route()])
        return edge, await serve(edge.handle, clock=clock)

    return make


async def test_a_request_becomes_an_invocation_and_its_result_the_answer(start: Start) -> None:
    functions = Functions(Outcome(b'{"statusCode":201,"headers":{"X-A":"b"},"body":"made"}'))
    _, server = await start(functions, route("POST", "/orders/{id}"))
    answer: Answer = await server.ask(get("/orders/7?x=1", "Content-Length: 2\r\nContent-Type: text/plain\r\n", "POST") + b"hi")
    assert (answer.status, answer.body, answer.headers["x-a"]) == (201, b"made", "b")
    (invocation,) = functions.seen
    assert (invocation.function, invocation.source) == ("shop-f", "http")
    event = functions.event
    assert (event["routeKey"], event["pathParameters"], event["body"]) == ("POST /orders/{id}", {"id": "7"}, "hi")
    context = event["requestContext"]
    assert (
        context["requestId"] == invocation.request_id == answer.headers["x-amzn-requestid"] == answer.headers["apigw-requestid"]
    )
    assert event["headers"]["x-amzn-trace-id"] == invocation.trace_id
    assert invocation.trace_id.startswith("Root=1-6553f100-")
    assert (context["timeEpoch"], context["http"]["sourceIp"]) == (1_700_000_000_000, "127.0.0.1")


async def test_format_1_is_spoken_where_the_route_says_so(start: Start) -> None:
    functions = Functions(Outcome(b'{"statusCode":200,"body":"old"}'))
    _, server = await start(functions, route(payload_format="1.0"))
    answer = await server.ask(get(headers="X-Case: a\r\n"))
    assert (answer.body, answer.headers["content-type"]) == (b"old", "application/json")
    assert (functions.event["version"], functions.event["headers"]["X-Case"]) == ("1.0", "a")
    functions.outcome = Outcome(b'"no object"')
    answer = await server.ask(get())
    assert (answer.status, answer.body) == (502, b'{"message":"Internal server error"}')


async def test_head_is_answered_without_a_body(start: Start) -> None:
    _, server = await start(Functions(OK), route("ANY"))
    answer = await server.ask(get(method="HEAD"), "HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, "2")


@pytest.mark.parametrize(
    ("outcome", "status", "status_v1", "body"),
    [
        (Outcome(b"{}", "Unhandled", "ValueError"), 500, 502, b"Internal "),
        (Outcome(b"{}", "Unhandled", "Sandbox.Timedout"), 504, 504, b"Endpoint request timed out"),
        (Outcome(b'{"statusCode":200,"headers":{"a":"b\\r\\nc: d"}}'), 502, 502, b"Internal "),
        (Outcome(b'{"statusCode":20'), 502, 502, b"Internal "),
        (Outcome(refusal=Throttled("too many")), 429, 429, b"too many"),
        (Outcome(refusal=Overloaded("full", retry_after_seconds=7)), 503, 503, b"full"),
        (Outcome(refusal=LimitExceeded("large")), 413, 413, b"large"),
        (Outcome(refusal=NotFound("no function")), 404, 404, b"no function"),
    ],
    ids=lambda value: "" if isinstance(value, (int, bytes)) else value.error_type or type(value.refusal).__name__,
)
async def test_how_outcomes_become_answers(start: Start, outcome: Outcome, status: int, status_v1: int, body: bytes) -> None:
    _, server = await start(Functions(outcome), route(), route(path="/old", payload_format="1.0"))
    for path, expected in (("/", status), ("/old", status_v1)):
        answer = await server.ask(get(path))
        assert answer.status == expected
        assert body in answer.body
        assert ("retry-after" in answer.headers) == (expected in (429, 503))
        assert "x-amzn-requestid" in answer.headers
        if outcome.refusal is not None:
            assert answer.headers["content-type"] == "application/problem+json"


async def test_function_errors_do_not_show_their_text(start: Start) -> None:
    _, server = await start(Functions(Outcome(b'{"errorMessage":"secret"}', "Unhandled", "ValueError")))
    assert b"secret" not in (await server.ask(get())).body


async def test_404_and_405(start: Start) -> None:
    functions = Functions(OK)
    _, server = await start(functions, route("GET", "/a"), route("PUT", "/a"))
    missing = await server.ask(get("/secret-path"))
    assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    assert b"secret-path" not in missing.body
    assert b"/a" not in missing.body
    wrong = await server.ask(get("/a", method="DELETE"))
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, PUT")
    assert (await server.ask(get("/a", host="other.localhost"))).status == 404
    assert functions.seen == []


async def test_the_default_app(start: Start) -> None:
    edge, server = await start(Functions(OK), route(), ("blog", Route(method="GET", path="/", function="g"), "blog-g"))
    assert (await server.ask(get(host="127.0.0.1"))).status == 404
    edge.set_default("blog")
    assert (await server.ask(get(host="127.0.0.1"))).status == 200
    edge.set_routes([route()])  # the default stays; that app has no routes any more
    assert (await server.ask(get(host="127.0.0.1"))).status == 404


async def test_access_is_asked_once_a_route_and_denies_every_request(start: Start) -> None:
    asked: list[tuple[str, str, str]] = []

    def access(app: str, declared: Route, function: str) -> None:
        asked.append((app, declared.path, function))
        if declared.path == "/private":
            raise AccessDenied("the public may not")

    functions = Functions(OK)
    _, server = await start(functions, route(), route(path="/private"), access=access)
    for _ in range(2):
        assert (await server.ask(get())).status == 200
        denied = await server.ask(get("/private"))
        assert (denied.status, b"the public may not" in denied.body) == (403, True)
    assert asked == [("shop", "/", "shop-f"), ("shop", "/private", "shop-f")]
    assert len(functions.seen) == 2


# --- throttles and overload ---------------------------------------------------------------------------------------------


async def test_a_throttled_request_never_reaches_the_function(start: Start, manual: ManualClock) -> None:
    functions = Functions(OK)
    edge, server = await start(functions, route(throttle=Throttle(rate=0.5, burst=2)), clock=manual)
    assert [(await server.ask(get())).status for _ in range(3)] == [200, 200, 429]
    refused = await server.ask(get())
    assert (refused.headers["retry-after"], json.loads(refused.body)["burst"]) == ("2", 2)
    edge.set_routes([route(throttle=Throttle(rate=0.5, burst=2)), route("PUT")])  # a deployment does not refill it
    assert (await server.ask(get())).status == 429
    manual.advance(2)
    assert (await server.ask(get())).status == 200
    edge.set_routes([route(throttle=Throttle(rate=0.5, burst=3))])  # a changed one starts anew
    assert (await server.ask(get())).status == 200
    assert len(functions.seen) == 4


async def test_beyond_the_requests_in_flight_is_an_immediate_503(start: Start) -> None:
    functions = Functions()
    edge, server = await start(functions, limits={"requests_in_flight": 2})
    async with await server.connect() as first, await server.connect() as second:
        first.send(get())
        second.send(get())
        await until(lambda: len(functions.seen) == 2)
        refused = await server.ask(get())
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert b"requests_in_flight" in refused.body
        functions.end(OK)
        third = asyncio.ensure_future(server.ask(get()))
        await until(lambda: len(functions.seen) == 3)
        functions.seen[2].on_head(b"{}")  # type: ignore[misc] — a stream counts too
        assert (await server.ask(get())).status == 503
        functions.end(Outcome())
        await third
        assert (len(edge.flights), len(edge.streams)) == (1, 0)


async def test_no_outcome_in_time_is_504_and_the_late_one_is_dropped(start: Start, manual: ManualClock) -> None:
    functions = Functions()
    registry = Registry()
    edge, server = await start(functions, clock=manual, limits={"request_seconds": 5}, registry=registry)
    async with await server.connect() as early, await server.connect() as late:
        early.send(get())
        await until(lambda: len(functions.seen) == 1)
        manual.advance(3)
        late.send(get())
        await until(lambda: len(functions.seen) == 2)
        manual.advance(3)
        edge.sweep()
        answer = await early.read()
        assert (answer.status, json.loads(answer.body)) == (504, {"message": "Endpoint request timed out"})
        assert len(edge.flights) == 1
        functions.seen[0].on_head(b"{}")  # type: ignore[misc]
        functions.seen[0].on_chunk(b"late")  # type: ignore[misc]
        functions.seen[0].on_done(functions.seen[0], OK)
        functions.seen[1].on_done(functions.seen[1], OK)
        assert (await late.read()).body == b"ok"
        early.send(get())
        await until(lambda: len(functions.seen) == 3)
        functions.end(OK)
        assert (await early.read()).body == b"ok"
    assert not edge.flights
    assert 'martlet_http_answers_total{status="2xx"} 2' in registry.render()


async def test_a_stream_that_began_is_not_cut_by_request_seconds_nor_shields_others(start: Start, manual: ManualClock) -> None:
    functions = Functions()
    edge, server = await start(functions, clock=manual)
    async with await server.connect() as streaming, await server.connect() as stuck:
        streaming.send(get())
        await until(lambda: len(functions.seen) == 1)
        functions.seen[0].on_head(b"{}")  # type: ignore[misc]
        stuck.send(get())
        await until(lambda: len(functions.seen) == 2)
        manual.advance(40)
        edge.sweep()
        assert (await stuck.read()).status == 504
        functions.seen[0].on_chunk(b"still here")  # type: ignore[misc]
        functions.seen[0].on_done(functions.seen[0], Outcome())
        assert (await streaming.read()).body == b"still here"


async def test_a_dispatch_that_raises_is_a_500_and_frees_its_place(start: Start) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def broken(invocation: Invocation) -> None:
        raise RuntimeError("secret")

    edge, server = await start(broken)
    answer = await server.ask(get())
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert not edge.flights


# --- streams ------------------------------------------------------------------------------------------------------------


async def test_a_streamed_answer(start: Start) -> None:
    functions = Functions()
    edge, server = await start(functions)
    async with await server.connect() as client:
        client.send(get())
        await until(lambda: bool(functions.seen))
        invocation = functions.seen[0]
        assert invocation.on_head is not None
        assert invocation.on_chunk is not None
        invocation.on_head(b'{"statusCode":202,"headers":{"content-type":"text/event-stream"},"cookies":["a=1"]}')
        status, headers = await client.read_head()
        assert (status, headers["content-type"], headers["set-cookie"]) == (202, "text/event-stream", "a=1")
        assert "x-amzn-requestid" in headers
        invocation.on_chunk(b"one")
        assert await client.reader.readexactly(8) == b"3\r\none\r\n"
        invocation.on_chunk(b"two")
        functions.end(Outcome())
        assert await client.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
    assert not edge.flights
    assert not edge.streams


@pytest.mark.parametrize("outcome", [Outcome(b"{}", "Unhandled", "ValueError"), Outcome(refusal=Overloaded())])
async def test_a_stream_that_fails_is_cut_not_completed(start: Start, outcome: Outcome) -> None:
    functions = Functions()
    _, server = await start(functions)
    async with await server.connect() as client:
        client.send(get())
        await until(lambda: bool(functions.seen))
        functions.seen[0].on_head(b"{}")  # type: ignore[misc]
        functions.seen[0].on_chunk(b"one")  # type: ignore[misc]
        functions.end(outcome)
        await client.read_head()
        assert await client.rest() == b"3\r\none\r\n"


async def test_a_malformed_prelude_is_502_and_the_rest_is_cancelled(start: Start) -> None:
    functions = Functions()
    _, server = await start(functions)
    async with await server.connect() as client:
        client.send(get())
        await until(lambda: bool(functions.seen))
        functions.seen[0].control = control = Control()
        functions.seen[0].on_head(b'{"headers":{"a":"b\\r\\nc: d"}}')  # type: ignore[misc]
        functions.seen[0].on_chunk(b"dropped")  # type: ignore[misc]
        functions.end(Outcome())
        assert (await client.read()).status == 502
        assert control.calls == ["cancel"]


async def test_a_slow_reader_pauses_the_function(start: Start) -> None:
    functions = Functions()
    _, server = await start(functions)
    async with await server.connect() as client:
        client.send(get())
        await until(lambda: bool(functions.seen))
        invocation = functions.seen[0]
        invocation.control = control = Control()
        invocation.on_head(b"{}")  # type: ignore[misc]
        sent = 0
        while not control.calls:
            invocation.on_chunk(b"x" * 100_000)  # type: ignore[misc]
            sent += 100_000
            await asyncio.sleep(0)
        reading = asyncio.ensure_future(client.read())
        await until(lambda: control.calls == ["pause", "resume"])
        functions.end(Outcome())
        assert len((await reading).body) == sent


async def test_a_client_that_leaves_cancels_its_stream_and_no_plain_answer(start: Start) -> None:
    functions = Functions()
    edge, server = await start(functions)
    for streamed in (True, False):
        functions.seen.clear()
        async with await server.connect() as client:
            client.send(get())
            await until(lambda: bool(functions.seen))
            functions.seen[0].control = control = Control()
            if streamed:
                functions.seen[0].on_head(b"{}")  # type: ignore[misc]
            client.writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
            client.writer.transport.abort()
            await until(lambda: not server.server.connections)
        assert control.calls == (["cancel"] if streamed else [])
        functions.end(Outcome(b"{}"))
    assert not edge.flights
    assert not edge.streams


# --- CORS ---------------------------------------------------------------------------------------------------------------

CORS = Cors(origins=("https://a.com",), headers=("x-a",), credentials=True)
ORIGIN = "Origin: https://a.com\r\n"


async def test_a_preflight_is_answered_here(start: Start) -> None:
    functions = Functions(OK)
    _, server = await start(functions, route("PUT", "/{x}", cors=CORS), route("GET", "/plain"))
    asking = ORIGIN + "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: X-A, X-B\r\n"
    answer = await server.ask(get("/1", asking, "OPTIONS"))
    assert (answer.status, functions.seen) == (204, [])
    assert answer.headers["access-control-allow-origin"] == "https://a.com"
    assert answer.headers["access-control-allow-methods"] == "PUT"
    assert answer.headers["access-control-allow-headers"] == "x-a"
    asking = ORIGIN + "Access-Control-Request-Method: GET\r\n"
    assert (await server.ask(get("/plain", asking, "OPTIONS"))).status == 405
    assert (await server.ask(get("/1", "", "OPTIONS"))).status == 405


async def test_a_declared_options_route_still_gets_plain_options(start: Start) -> None:
    functions = Functions(OK)
    _, server = await start(functions, route("ANY", "/", cors=CORS))
    assert (await server.ask(get(method="OPTIONS"))).body == b"ok"


async def test_every_answer_of_a_route_with_cors_can_be_read_by_its_origin(start: Start) -> None:
    functions = Functions(Outcome(b'{"statusCode":200,"headers":{"Access-Control-Allow-Origin":"https://evil.com"}}'))
    _, server = await start(functions, route(cors=CORS, throttle=Throttle(rate=0.001, burst=3)))
    answer = await server.ask(get(headers=ORIGIN))
    assert answer.headers["access-control-allow-origin"] == "https://a.com"
    assert answer.headers["access-control-allow-credentials"] == "true"
    functions.outcome = Outcome(b"{}", "Unhandled", "ValueError")
    failed = await server.ask(get(headers=ORIGIN))
    assert (failed.status, failed.headers["access-control-allow-origin"]) == (500, "https://a.com")
    stranger = await server.ask(get(headers="Origin: https://b.com\r\n"))
    assert "access-control-allow-origin" not in stranger.headers
    throttled = await server.ask(get(headers=ORIGIN))
    assert (throttled.status, throttled.headers["access-control-allow-origin"]) == (429, "https://a.com")


# --- routes change ------------------------------------------------------------------------------------------------------


async def test_routes_are_swapped_under_requests_in_flight(start: Start) -> None:
    functions = Functions()
    edge, server = await start(functions, route(payload_format="1.0"))
    async with await server.connect() as client:
        client.send(get())
        await until(lambda: bool(functions.seen))
        edge.set_routes([("shop", Route(method="GET", path="/new", function="g"), "shop-g")])
        functions.end(Outcome(b'"no object"'))
        assert (await client.read()).status == 502  # still judged by format 1.0, in which it was asked
        client.send(get())
        assert (await client.read()).status == 404


async def test_routes_that_conflict_change_nothing(start: Start) -> None:
    edge, server = await start(Functions(OK))
    with pytest.raises(InvalidInput, match="conflict"):
        edge.set_routes([route(path="/a"), route(path="/a")])
    with pytest.raises(InvalidInput):
        edge.set_routes([route(cors=Cors(origins=("*",), credentials=True))])
    assert (await server.ask(get())).status == 200


async def test_answers_are_counted(start: Start) -> None:
    registry = Registry()
    functions = Functions(OK)
    _, server = await start(functions, registry=registry)
    await server.ask(get())
    await server.ask(get("/missing"))
    text = registry.render()
    assert 'martlet_http_answers_total{status="2xx"} 1' in text
    assert 'martlet_http_answers_total{status="4xx"} 1' in text
    assert "martlet_http_requests_in_flight 0" in text


def test_a_limit_that_does_not_exist_is_an_error(manual: ManualClock) -> None:
    with pytest.raises(InvalidInput, match="request_minutes"):
        Edge(Functions(), clock=manual, limits={"request_minutes": 1})


async def test_a_route_of_an_app_speaks_no_websocket_and_says_so(start: Start) -> None:
    functions = Functions(OK)
    _, server = await start(functions)
    answer: Answer = await server.ask(get("/", "Upgrade: WebSocket\r\nConnection: Upgrade\r\n"))
    assert (answer.status, json.loads(answer.body)["type"]) == (501, "urn:martlet:error:unsupported")
    assert functions.seen == []
    other = await server.ask(get("/", "Upgrade: h2c\r\nConnection: Upgrade\r\n"))  # may be ignored: RFC 9110 section 7.8
    assert (other.status, len(functions.seen)) == (200, 1)
