"""WebSocket APIs at the edge: events, routes, answers, authorizers, limits, @connections. Hostile cases first."""

from __future__ import annotations

import asyncio
import json
import socket as socket_module
import struct
from typing import Any

import pytest
from tests.frames import BINARY, CLOSE, CONT, TEXT, Socket, close_body, handshake, open_socket
from tests.gateway.apis.conftest import API, Build, Stand
from tests.gateway.conftest import until

from martlet.clock import ManualClock
from martlet.errors import AccessDenied, InvalidInput, Throttled
from martlet.gateway.apis import ManagementApi
from martlet.gateway.apis.connections import Connections
from martlet.gateway.apis.selection import Selection
from martlet.types import ApiAuthorizer, ApiConfig, ApiIntegration, ApiRoute, ApiStage, Invocation, Outcome, Principal, Throttle

HOST = f"{API}.execute-api.us-east-1.amazonaws.com"
DONE = Outcome(b'{"statusCode":200}')


def route(key: str, function: str = "", **more: Any) -> ApiRoute:
    integration = ApiIntegration(
        kind="AWS_PROXY", function=function or key.strip("$"), timeout_ms=more.pop("timeout_ms", 29_000)
    )
    return ApiRoute(method="", path=key, integration=integration, **more)


ALL = (route("$connect"), route("$disconnect"), route("$default"), route("join"), route("ask", responds=True))


def api(*routes: ApiRoute, **more: Any) -> ApiConfig:
    more.setdefault("selection", "$request.body.action")
    stages = (ApiStage(name="prod", variables={"color": "red"}, **more.pop("stage", {})),)
    return ApiConfig(id=API, name="chat", kind="websocket", stages=stages, routes=routes, **more)


async def connect(stand: Stand, path: str = "/prod", host: str = HOST, **headers: str | None) -> Socket:
    return await open_socket(stand.port, handshake(path, host, **headers))


def events(stand: Stand, function: str) -> list[Any]:
    return [json.loads(one.payload) for one in stand.functions.seen if one.function == function]


async def body(socket: Socket) -> Any:
    return json.loads(await socket.reader.readexactly(int(socket.headers["content-length"])))


# --- what is refused


@pytest.mark.parametrize(
    "text", ["", "action", "$request.header.x", "$context.routeKey", "${request.body}", "$request.body.a $x"]
)
def test_other_selection_expressions_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="selection"):
        Selection(text)


@pytest.mark.parametrize(
    ("text", "message", "key"),
    [
        ("$request.body.action", '{"action":"join"}', "join"),
        ("${request.body.action}", '{"action":"join"}', "join"),
        ("$request.body.a.b", '{"a":{"b":"x"}}', "x"),
        ("${request.body.a}/${request.body.b}", '{"a":"x","b":1}', "x/1"),
        ("${request.body.a}/${request.body.b}", '{"a":"x"}', ""),
        ("$request.body.action", '{"action":true}', "true"),
        ("$request.body.action", '{"action":null}', ""),
        ("$request.body.action", '{"action":["join"]}', ""),
        ("$request.body.action", "[1]", ""),
        ("$request.body.action", "no json", ""),
        ("$request.body.action", "[" * 100_000, ""),
    ],
)
def test_routes_are_selected_by_the_message(text: str, message: str, key: str) -> None:
    assert Selection(text).key(message) == key


async def test_what_is_no_handshake_of_a_stage_is_refused(stand: Build) -> None:
    made = await stand(api(*ALL))
    for path, status in (("/dev", 403), ("/", 403), ("/prod/more", 403), ("/prod", 101), ("/prod?x=1", 101)):
        async with await connect(made, path) as socket:
            assert socket.status == status, path
    async with await connect(made, sec_websocket_key=None) as socket:
        assert socket.status == 400
    assert (await made.ask("/prod")).status == 426
    assert [event["requestContext"]["eventType"] for event in events(made, "connect")] == ["CONNECT", "CONNECT"]


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (Outcome(b'{"statusCode":401,"body":"{\\"message\\":\\"who\\"}"}'), 401, "who"),
        (Outcome(b'{"statusCode":500,"body":"{\\"message\\":\\"no\\"}"}'), 500, "no"),
        (Outcome(b'{"errorMessage":"x"}', "Unhandled", "ValueError"), 502, "Internal server error"),
        (Outcome(b'"yes"'), 502, "Internal server error"),
        (Outcome(b"", refusal=Throttled("busy")), 429, "Too Many Requests"),
    ],
)
async def test_connect_decides(stand: Build, outcome: Outcome, status: int, message: str) -> None:
    made = await stand(api(*ALL))
    made.functions.answers["connect"] = outcome
    async with await connect(made) as socket:
        assert (socket.status, (await body(socket))["message"]) == (status, message)
    assert events(made, "disconnect") == []


async def test_a_function_that_does_not_admit_the_api_is_not_called(stand: Build) -> None:
    asked: list[tuple[str, str]] = []

    def may_invoke(function: str, arn: str) -> bool:
        asked.append((function, arn))
        return function != "join"

    made = await stand(api(*ALL), may_invoke=may_invoke)
    async with await connect(made) as socket:
        socket.say({"action": "join"})
        assert (await socket.json())["message"] == "Internal server error"
    assert asked[:2] == [
        ("connect", f"arn:aws:execute-api:us-east-1:000000000000:{API}/prod/$connect"),
        ("join", f"arn:aws:execute-api:us-east-1:000000000000:{API}/prod/join"),
    ]
    assert events(made, "join") == []


async def test_large_and_binary_messages_end_the_connection(stand: Build) -> None:
    made = await stand(api(*ALL))
    for frames, code in (
        ([(BINARY, b"x", {})], 1003),
        ([(TEXT, b"x" * 32_769, {})], 1009),
        ([(TEXT, b"x" * 32_768, {"fin": False})] + [(CONT, b"x" * 32_768, {"fin": False})] * 3 + [(CONT, b"x", {})], 1009),
        ([(TEXT, b"\xff", {})], 1007),
    ):
        async with await connect(made) as socket:
            for opcode, payload, more in frames:
                socket.send(opcode, payload, **more)
            assert (await socket.read()).code == code
            assert await socket.ended() == b""
        await until(lambda code=code: bool(events(made, "disconnect")))  # type: ignore[misc]
        assert events(made, "disconnect")[-1]["requestContext"]["disconnectStatusCode"] == code
        made.functions.seen.clear()
    async with await connect(made) as socket:
        socket.send(TEXT, b"x" * 32_768, fin=False)
        for last in (False, False, True):
            socket.send(CONT, b"x" * 32_768, fin=last)
        await until(lambda: bool(events(made, "default")))
    assert len(events(made, "default")[0]["body"]) == 131_072


async def test_messages_of_one_connection_are_bounded_at_one_time(stand: Build) -> None:
    made = await stand(api(*ALL))
    held: list[Invocation] = []
    async with await connect(made) as socket:
        made.functions.default = None
        for number in range(200):
            socket.say({"action": "join", "number": number})
            await socket.writer.drain()
        await until(lambda: len(events(made, "join")) >= 32)
        assert len(events(made, "join")) == 32
        while len(held) < 200:
            fresh = [one for one in made.functions.seen if one.function == "join" and one not in held]
            for invocation in fresh:
                held.append(invocation)
                invocation.on_done(invocation, DONE)
            await asyncio.sleep(0)
    told = [json.loads(json.loads(one.payload)["body"])["number"] for one in held]
    assert told == list(range(200))


# --- events


async def test_the_events_of_a_connection(stand: Build) -> None:
    clock = ManualClock()
    made = await stand(api(*ALL), clock=clock)
    headers = {"user-agent": "tests", "x_own": "1", "sec_websocket_protocol": None}
    async with await connect(made, "/prod?a=1&a=2", **headers) as socket:
        assert socket.status == 101
        clock.advance(2)
        socket.say('{"action":"join","text":"ü"}')
        await until(lambda: bool(events(made, "join")))
        socket.send(CLOSE, close_body(4001, b"bye"))
        assert (await socket.read()).code == 4001
    await until(lambda: bool(events(made, "disconnect")))
    (first,), (message,), (last,) = (events(made, name) for name in ("connect", "join", "disconnect"))
    context = first.pop("requestContext")
    connection = context["connectionId"]
    assert context == {
        "routeKey": "$connect",
        "eventType": "CONNECT",
        "extendedRequestId": context["requestId"],
        "requestTime": "14/Nov/2023:22:13:20 +0000",
        "messageDirection": "IN",
        "stage": "prod",
        "connectedAt": 1_700_000_000_000,
        "requestTimeEpoch": 1_700_000_000_000,
        "identity": {"sourceIp": "127.0.0.1", "userAgent": "tests"},
        "requestId": context["requestId"],
        "domainName": HOST,
        "connectionId": connection,
        "apiId": API,
    }
    assert len(connection) == 16
    assert connection.endswith("=")
    assert (first["headers"]["x-own"], first["headers"]["Host"], first["multiValueHeaders"]["x-own"]) == ("1", HOST, ["1"])
    assert first["headers"]["sec-websocket-version"] == "13"
    assert (first["queryStringParameters"], first["multiValueQueryStringParameters"]) == ({"a": "2"}, {"a": ["1", "2"]})
    assert (first["isBase64Encoded"], first["stageVariables"], "body" in first) == (False, {"color": "red"}, False)
    told = message["requestContext"]
    assert set(told) == {*context, "messageId"}
    assert (told["routeKey"], told["eventType"], told["connectionId"]) == ("join", "MESSAGE", connection)
    assert (told["connectedAt"], told["requestTimeEpoch"]) == (1_700_000_000_000, 1_700_000_002_000)
    assert told["requestId"] == told["extendedRequestId"] != context["requestId"]
    assert message["body"] == '{"action":"join","text":"ü"}'
    assert set(message) == {"requestContext", "body", "isBase64Encoded", "stageVariables"}
    gone = last["requestContext"]
    assert set(gone) == {*context, "disconnectStatusCode", "disconnectReason"}
    assert (gone["routeKey"], gone["eventType"], gone["disconnectStatusCode"], gone["disconnectReason"]) == (
        "$disconnect",
        "DISCONNECT",
        4001,
        "bye",
    )
    assert last["headers"] == {"Host": HOST, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}


async def test_every_end_is_a_disconnect(stand: Build) -> None:
    made = await stand(api(*ALL))
    for end, code, reason in (("close", 1005, "Client-side close frame status not set"), ("abort", 1006, "")):
        async with await connect(made) as socket:
            if end == "close":
                socket.send(CLOSE)
                assert (await socket.read()).code == 1005
            else:
                socket.writer.transport.abort()
        await until(lambda: bool(events(made, "disconnect")))
        context = events(made, "disconnect")[-1]["requestContext"]
        assert (context["disconnectStatusCode"], context["disconnectReason"]) == (code, reason)
        made.functions.seen.clear()


@pytest.mark.parametrize("reset", [True, False])
async def test_who_leaves_while_connect_runs_is_disconnected_as_well(stand: Build, reset: bool) -> None:
    made = await stand(api(*ALL))
    made.functions.default = None
    _, writer = await asyncio.open_connection("127.0.0.1", made.port)
    writer.write(handshake("/prod", HOST))
    await until(lambda: bool(made.functions.seen))
    invocation = made.functions.seen[0]
    flight: Any = next(iter(made.edge.under_way))
    if reset:
        writer.get_extra_info("socket").setsockopt(socket_module.SOL_SOCKET, socket_module.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: not flight.exchange.connected)
    else:
        left = asyncio.Event()
        flight.exchange.on_eof = left.set
        writer.close()
        await left.wait()
    invocation.on_done(invocation, DONE)
    await until(lambda: bool(events(made, "disconnect")))
    assert events(made, "disconnect")[0]["requestContext"]["disconnectStatusCode"] == 1006
    assert not made.edge.connections._open


async def test_routes_default_and_nobodys(stand: Build) -> None:
    made = await stand(api(*ALL))
    async with await connect(made) as socket:
        for message in ("no json", '{"action":"other"}', '{"action":"$connect"}', '{"action":"$disconnect"}'):
            socket.say(message)
        await until(lambda: len(events(made, "default")) == 4)
    assert len(events(made, "connect")) == 1
    bare = await stand(api(route("join")))  # no $connect: everybody may come
    async with await connect(bare) as socket:
        socket.say("{}")
        found = await socket.json()
        assert (found["message"], set(found)) == ("Forbidden", {"message", "connectionId", "requestId"})


async def test_answers_go_back_by_a_route_response_only(stand: Build) -> None:
    made = await stand(api(*ALL))
    made.functions.answers["ask"] = Outcome(b'{"statusCode":200,"body":"pong"}')
    made.functions.answers["join"] = Outcome(b'{"statusCode":200,"body":"unheard"}')
    async with await connect(made) as socket:
        socket.say({"action": "join"})
        socket.say({"action": "ask"})
        assert await socket.text() == "pong"
        made.functions.answers["ask"] = Outcome(b'{"errorMessage":"x"}', "Unhandled", "ValueError")
        socket.say({"action": "ask"})
        found = await socket.json()
        assert (found["message"], len(found["connectionId"])) == ("Internal server error", 16)
        made.functions.answers["join"] = Outcome(b'{"errorMessage":"x"}', "Unhandled", "ValueError")
        socket.say({"action": "join"})
        assert (await socket.json())["message"] == "Internal server error"
        made.functions.answers["ask"] = Outcome(b"", refusal=Throttled("busy"))
        socket.say({"action": "ask"})
        assert (await socket.json())["message"] == "Too Many Requests"


async def test_a_slow_function_is_said_to_be(stand: Build) -> None:
    made = await stand(api(route("ask", responds=True, timeout_ms=50)))
    made.functions.default = None
    async with await connect(made) as socket:
        socket.say({"action": "ask"})
        assert (await socket.json())["message"] == "Endpoint request timed out"
        invocation = made.functions.seen[-1]
        invocation.on_done(invocation, Outcome(b'{"statusCode":200,"body":"late"}'))
        made.functions.default = Outcome(b'{"statusCode":200,"body":"in time"}')
        socket.say({"action": "ask"})
        assert await socket.text() == "in time"


async def test_throttles_and_subprotocols(stand: Build) -> None:
    made = await stand(api(*ALL, stage={"throttles": {"join": Throttle(rate=0, burst=0)}}))
    chosen = Outcome(b'{"statusCode":200,"headers":{"Sec-WebSocket-Protocol":"b"}}')
    made.functions.answers["connect"] = chosen
    async with await connect(made, sec_websocket_protocol="a, b") as socket:
        assert (socket.status, socket.headers["sec-websocket-protocol"]) == (101, "b")
        socket.say({"action": "join"})
        assert (await socket.json())["message"] == "Too Many Requests"
    async with await connect(made, sec_websocket_protocol="c") as socket:
        assert "sec-websocket-protocol" not in socket.headers


async def test_idle_connections_go_after_ten_minutes_and_all_after_two_hours(stand: Build) -> None:
    clock = ManualClock()
    made = await stand(api(*ALL), clock=clock)
    async with await connect(made) as socket:
        (connection,) = made.edge.connections._open.values()
        server: Any = connection.socket.listener
        for _ in range(12):
            clock.advance(599)
            server.sweep()
            assert connection.socket.connected
            socket.say({"action": "ask"})
            await until(lambda: bool(events(made, "ask")))
            made.functions.seen.clear()
        clock.advance(20)
        server.sweep()
        found = await socket.read()
        while found.opcode == TEXT:
            found = await socket.read()
        assert (found.code, found.reason) == (1001, "Going away")


# --- authorizers


AUTHORIZER = ApiAuthorizer(
    name="auth", kind="REQUEST", function="auth", identity=("method.request.header.Token",), ttl_seconds=0
)
GUARDED = route("$connect", authorization="CUSTOM", authorizer="auth")


def policy(effect: str) -> Outcome:
    arn = f"arn:aws:execute-api:us-east-1:000000000000:{API}/prod/*"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": arn}
    told = {
        "principalId": "ann",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"team": "a"},
    }
    return Outcome(json.dumps(told).encode())


async def test_an_authorizer_decides_once_for_the_connection(stand: Build) -> None:
    made = await stand(api(GUARDED, *ALL[1:], authorizers=(AUTHORIZER,)))
    async with await connect(made) as socket:
        assert (socket.status, (await body(socket))["message"]) == (401, "Unauthorized")
    assert made.functions.seen == []
    for outcome, status in (
        (policy("Deny"), 403),
        (Outcome(b'{"errorMessage":"Unauthorized"}', "Unhandled", "Exception"), 401),
        (Outcome(b'{"errorMessage":"x"}', "Unhandled", "Exception"), 500),
        (Outcome(b"{}"), 500),
    ):
        made.functions.answers["auth"] = outcome
        async with await connect(made, token="x") as socket:
            assert socket.status == status
    assert events(made, "connect") == []
    made.functions.answers["auth"] = policy("Allow")
    made.functions.seen.clear()
    async with await connect(made, "/prod?q=1", token="x") as socket:
        assert socket.status == 101
        socket.say({"action": "join"})
        await until(lambda: bool(events(made, "join")))
    (asked,) = events(made, "auth")
    assert (asked["type"], asked["methodArn"]) == ("REQUEST", f"arn:aws:execute-api:us-east-1:000000000000:{API}/prod/$connect")
    assert (asked["headers"]["token"], asked["queryStringParameters"]) == ("x", {"q": "1"})
    assert asked["requestContext"]["eventType"] == "CONNECT"
    for name in ("connect", "join"):
        told = events(made, name)[0]["requestContext"]["authorizer"]
        assert told == {"principalId": "ann", "team": "a", "integrationLatency": 0}
    assert asked["requestContext"]["connectionId"] == events(made, "join")[0]["requestContext"]["connectionId"]


# --- @connections


def manager(made: Stand) -> Connections:
    return made.edge.connections


async def test_connections_are_posted_to_described_and_deleted_over_http(stand: Build) -> None:
    asked: list[tuple[str, str]] = []

    def permit(principal: Any, action: str, resource: str) -> None:
        asked.append((action, resource))
        if principal.name == "nobody":
            raise AccessDenied("nobody may not")

    who = ["somebody"]
    made = await stand(api(*ALL), authenticate=lambda *_, **__: Principal("user", who[0]), permit=permit)
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/execute-api/aws4_request"}
    async with await connect(made, user_agent="phone") as socket:
        (id,) = manager(made)._open
        path = f"/prod/@connections/{id.replace('=', '%3D')}"
        assert (await made.ask(path, "POST", body=b"x")).status == 403  # not signed
        who[0] = "nobody"
        assert (await made.ask(path, "POST", body=b"x", headers=signed)).status == 403
        who[0] = "somebody"
        assert (await made.ask(path, "PUT", body=b"x", headers=signed)).status == 403
        assert (await made.ask(path, "POST", body="grün".encode(), headers=signed)).status == 200
        assert await socket.text() == "grün"
        found = await made.ask(path, headers=signed)
        assert (found.status, found.json["identity"]) == (200, {"sourceIp": "127.0.0.1", "userAgent": "phone"})
        assert found.json["connectedAt"].endswith("Z")
        assert found.json["lastActiveAt"] >= found.json["connectedAt"]
        large = await made.ask(path, "POST", body=b"x" * 131_073, headers=signed)
        assert (large.status, large.headers["x-amzn-errortype"]) == (413, "PayloadTooLargeException")
        assert (await made.ask(path, "POST", body=b"\xff", headers=signed)).status == 400
        assert (await made.ask(path, "DELETE", headers=signed)).status == 204
        assert (await socket.read()).code == 1000
        gone = await made.ask(path, "POST", body=b"x", headers=signed)
        assert (gone.status, gone.headers["x-amzn-errortype"]) == (410, "GoneException")
    assert (await made.ask("/prod/@connections/nobody", "POST", body=b"x", headers=signed)).status == 410
    assert asked[0] == (
        "execute-api:ManageConnections",
        f"arn:aws:execute-api:us-east-1:000000000000:{API}/prod/POST/@connections/{id}",
    )


async def test_the_service_says_which_permission_it_needs(stand: Build) -> None:
    made = await stand(api(*ALL))
    service = ManagementApi(manager(made))
    async with await connect(made) as socket:
        (id,) = manager(made)._open
        arn = f"arn:aws:execute-api:us-east-1:000000000000:{API}/prod/DELETE/@connections/{id}"
        assert service.permission("DeleteConnection", {"ConnectionId": id}) == ("execute-api:ManageConnections", arn)
        assert service.permission("DeleteConnection", {"ConnectionId": "nobody"}) is None
        await service.post_to_connection(None, {"ConnectionId": id, "Data": b"x"})
        assert await socket.text() == "x"


async def test_a_client_that_does_not_read_is_refused_more(stand: Build) -> None:
    made = await stand(api(*ALL), authenticate=lambda *_, **__: Principal("root", "root"), permit=lambda *_: None)
    signed = {"Authorization": "AWS4-HMAC-SHA256 x"}
    async with await connect(made) as socket:
        socket.reader._transport.pause_reading()  # type: ignore[attr-defined]
        (id,) = manager(made)._open
        path = f"/prod/@connections/{id}"
        for _ in range(500):
            found = await made.ask(path, "POST", body=b"x" * 131_072, headers=signed)
            if found.status != 200:
                break
        assert (found.status, found.headers["x-amzn-errortype"]) == (429, "LimitExceededException")
        assert "websocket_unsent_bytes" in found.json["message"]


# --- deployments


async def test_messages_take_the_api_as_it_is_now_and_leave_with_it(stand: Build) -> None:
    made = await stand(api(*ALL))
    async with await connect(made) as socket:
        made.edge.set_apis([api(route("$default", "newer"), route("$disconnect"))])
        socket.say({"action": "join"})
        await until(lambda: bool(events(made, "newer")))
        made.edge.set_apis([])
        found = await socket.read()
        assert (found.code, found.reason) == (1001, "Going away")
    async with await connect(made) as socket:
        assert socket.status == 403
