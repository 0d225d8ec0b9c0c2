"""The Runtime API as a runtime sees it: statuses, headers, bodies, states, and what a hostile one may not do."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from martlet.functions.runtimes import wire
from martlet.functions.runtimes.api import Event, RuntimeApi
from martlet.functions.sandboxes.inside import frames
from martlet.limits import LIMITS

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"
INTEGRATION = "application/vnd.awslambda.http-integration-response"
Frame = tuple[int, int, bytes]


class Listener:
    """The instance's place: what it heard, and clients to it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.polls = 0
        self.floods: list[str] = []
        self.passed: list[tuple[socket.socket, bytes]] = []
        self.api = RuntimeApi(self, now_ms=lambda: 1_700_000_000_000)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.clients: list[asyncio.StreamWriter] = []

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection(*self.server.getsockname())
        accepted, _ = self.server.accept()
        accepted.setblocking(False)
        await wire.accept(accepted, self.api)
        self.clients.append(writer)
        return Client(reader, writer)

    def give(self, request_id: str = "r-1", payload: bytes = b"{}", *, streams: bool = False, sequence: int = 7) -> None:
        event = Event(sequence, request_id, 3_000, b"arn:aws:lambda:x", b"Root=1", b'{"custom":{}}', payload, streams)
        self.api.give(event)

    def on_api_frame(self, kind: int, sequence: int, payload: bytes) -> None:
        self.frames.append((kind, sequence, payload))

    def on_polling(self) -> None:
        self.polls += 1

    def on_flood(self, reason: str) -> None:
        self.floods.append(reason)

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        self.passed.append((sock, begun))


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        line, *fields = head.decode().rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        return int(line.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def post(self, place: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"POST /2018-06-01/runtime/{place} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)
        status, _, answer = await self.answer()
        return status, json.loads(answer)

    def begin_stream(self, request_id: str = "r-1", content: str = INTEGRATION) -> None:
        self.send(
            f"POST /2018-06-01/runtime/invocation/{request_id}/response HTTP/1.1\r\nHost: x\r\nContent-Type: {content}\r\n"
            "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
            "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n".encode()
        )

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self, trailers: str = "") -> None:
        self.send(f"0\r\n{trailers}\r\n".encode())


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    found = Listener()
    yield found
    found.api.close()
    for writer in found.clients:
        writer.close()
    for sock, _ in found.passed:
        sock.close()
    found.server.close()
    await asyncio.sleep(0.01)


async def running(listener: Listener, **event: Any) -> Client:
    """A client that has an event to answer."""
    client = await listener.client()
    client.send(NEXT)
    await until(lambda: listener.frames)
    listener.give(**event)
    assert (await client.answer())[0] == 200
    listener.frames.clear()
    return client


async def until(condition: Any) -> None:
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


# --- the usual way


async def test_next_carries_the_event_and_its_headers(listener: Listener) -> None:
    client = await listener.client()
    client.send(NEXT)
    await until(lambda: listener.frames)
    assert listener.frames == [(frames.READY, 0, b"{}")]
    listener.give(payload=b'{"a": 1}')
    status, headers, body = await client.answer()
    assert (status, body) == (200, b'{"a": 1}')
    assert headers["lambda-runtime-aws-request-id"] == "r-1"
    assert headers["lambda-runtime-deadline-ms"] == "1700000003000"
    assert headers["lambda-runtime-invoked-function-arn"] == "arn:aws:lambda:x"
    assert headers["lambda-runtime-trace-id"] == "Root=1"
    assert headers["lambda-runtime-client-context"] == '{"custom":{}}'
    assert headers["content-type"] == "application/json"


async def test_an_event_that_came_before_the_poll(listener: Listener) -> None:
    listener.give()
    client = await listener.client()
    client.send(NEXT)
    assert (await client.answer())[0] == 200
    assert not listener.api.undelivered


async def test_response_then_the_next_poll(listener: Listener) -> None:
    client = await running(listener)
    assert await client.post("invocation/r-1/response", b"[1]") == (202, {"status": "OK"})
    assert listener.frames == [(frames.RESULT, 7, b"[1]")]
    assert listener.polls == 0
    client.send(NEXT)
    await until(lambda: listener.polls)
    assert listener.api.polling


async def test_error_is_passed_on_as_it_is(listener: Listener) -> None:
    client = await running(listener)
    body = b'{"errorMessage":"no","errorType":"E","stackTrace":[{"path":"main.go","line":3,"label":"f"}]}'
    assert await client.post("invocation/r-1/error", body, Lambda_Runtime_Function_Error_Type="E") == (202, {"status": "OK"})
    assert listener.frames == [(frames.ERROR, 7, body)]


async def test_an_error_that_is_no_object_gets_its_type_from_the_header(listener: Listener) -> None:
    client = await running(listener)
    await client.post("invocation/r-1/error", b"gone wrong", Lambda_Runtime_Function_Error_Type="Custom.Type")
    ((kind, _, payload),) = listener.frames
    assert (kind, json.loads(payload)) == (frames.ERROR, {"errorType": "Custom.Type", "errorMessage": "gone wrong"})


async def test_init_error(listener: Listener) -> None:
    client = await listener.client()
    body = b'{"errorMessage":"no","errorType":"E","requestId":"","stackTrace":[]}'
    assert await client.post("init/error", body) == (202, {"status": "OK"})
    assert listener.frames == [(frames.INIT_ERROR, 0, body)]


async def test_init_error_after_the_first_poll_is_refused(listener: Listener) -> None:
    client = await running(listener)
    status, answer = await client.post("init/error", b"{}")
    assert (status, answer["errorType"]) == (403, "InvalidStateTransition")
    assert listener.frames == []


async def test_restore_hooks_are_released_at_once(listener: Listener) -> None:
    client = await listener.client()
    client.send(NEXT.replace(b"invocation/next", b"restore/next"))
    assert (await client.answer())[::2] == (200, b"")
    client.send(NEXT)
    await until(lambda: listener.frames)
    assert listener.frames == [(frames.READY, 0, b"{}")]


async def test_ping(listener: Listener) -> None:
    client = await listener.client()
    client.send(b"GET /2018-06-01/ping HTTP/1.1\r\n\r\n")
    assert (await client.answer())[::2] == (200, b"pong")


# --- refusals


async def test_a_foreign_request_id(listener: Listener) -> None:
    client = await running(listener)
    for place in ("response", "error"):
        answer = await client.post(f"invocation/r-2/{place}", b"{}")
        assert answer == (400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"})
    assert listener.frames == []
    assert (await client.post("invocation/r-1/response", b"1"))[0] == 202


async def test_an_answer_without_an_event(listener: Listener) -> None:
    client = await listener.client()
    assert (await client.post("invocation/r-1/response", b"{}"))[1]["errorType"] == "InvalidRequestID"


async def test_a_second_answer(listener: Listener) -> None:
    client = await running(listener)
    await client.post("invocation/r-1/response", b"1")
    status, answer = await client.post("invocation/r-1/response", b"2")
    assert (status, answer["errorType"]) == (403, "InvalidStateTransition")
    assert answer["errorMessage"].startswith(
        "State transition from ResponseSent to InvocationResponse failed for runtime. Error: "
    )
    assert len(listener.frames) == 1


async def test_two_answers_at_the_same_time(listener: Listener) -> None:
    first = await running(listener)
    first.begin_stream()
    await until(lambda: listener.api.state == "InvocationResponse")
    second = await listener.client()
    assert (await second.post("invocation/r-1/response", b"2"))[0] == 403
    first.chunk(b'{"statusCode":200}' + b"\x00" * 8)
    first.end_stream()
    assert (await first.answer())[0] == 202


async def test_polling_while_an_event_runs(listener: Listener) -> None:
    client = await running(listener)
    client.send(NEXT)
    status, _, answer = await client.answer()
    assert (status, json.loads(answer)["errorType"]) == (403, "InvalidStateTransition")
    assert (await client.post("invocation/r-1/response", b"1"))[0] == 202


async def test_two_pollers(listener: Listener) -> None:
    first, second = await listener.client(), await listener.client()
    first.send(NEXT)
    await until(lambda: listener.frames)
    second.send(NEXT)
    assert (await second.answer())[0] == 403
    listener.give()
    assert (await first.answer())[0] == 200


async def test_a_poller_that_left_makes_room_for_another(listener: Listener) -> None:
    first = await listener.client()
    first.send(NEXT)
    await until(lambda: listener.frames)
    first.writer.close()
    await until(lambda: not listener.api.polling)
    listener.give()
    second = await listener.client()
    second.send(NEXT)
    assert (await second.answer())[0] == 200


async def test_a_response_that_is_too_large(listener: Listener) -> None:
    limit = LIMITS["response_bytes"].default
    client = await running(listener)
    status, answer = await client.post("invocation/r-1/response", b"x" * (limit + 1))
    message = "Exceeded maximum allowed payload size (6291556 bytes)."
    assert (status, answer) == (413, {"errorMessage": message, "errorType": "RequestEntityTooLarge"})
    ((kind, _, payload),) = listener.frames
    assert kind == frames.ERROR
    assert json.loads(payload)["errorType"] == "Function.ResponseSizeTooLarge"


async def test_a_response_of_the_limit_is_taken(listener: Listener) -> None:
    client = await running(listener)
    assert (await client.post("invocation/r-1/response", b"x" * LIMITS["response_bytes"].default))[0] == 202


async def test_an_unknown_response_mode(listener: Listener) -> None:
    client = await running(listener)
    status, answer = await client.post("invocation/r-1/response", b"1", Lambda_Runtime_Function_Response_Mode="odd")
    assert (status, answer["errorType"]) == (400, "InvalidFunctionResponseMode")
    assert (await client.post("invocation/r-1/response", b"1"))[0] == 202


@pytest.mark.parametrize("path", ["/2018-06-01/runtime/nothing", "/2018-06-01/", "/2018-06-01/runtime/invocation/a/b/c"])
async def test_unknown_paths(listener: Listener, path: str) -> None:
    client = await listener.client()
    client.send(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    assert (await client.answer())[0] == 404


async def test_a_wrong_method(listener: Listener) -> None:
    client = await listener.client()
    client.send(NEXT.replace(b"GET", b"PUT"))
    assert (await client.answer())[0] == 405


async def test_a_response_that_breaks_off(listener: Listener) -> None:
    client = await running(listener)
    client.send(b"POST /2018-06-01/runtime/invocation/r-1/response HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
    await until(lambda: listener.api.state == "InvocationResponse")
    client.writer.close()
    await until(lambda: listener.frames)
    ((kind, _, payload),) = listener.frames
    assert (kind, json.loads(payload)["errorType"]) == (frames.ERROR, "Runtime.TruncatedResponse")


# --- streams


async def test_a_stream_with_a_prelude(listener: Listener) -> None:
    client = await running(listener, streams=True)
    client.begin_stream()
    client.chunk(b'{"statusCode":201}\x00\x00')
    client.chunk(b"\x00" * 6 + b"one")
    await until(lambda: len(listener.frames) == 2)
    client.chunk(b"two")
    client.end_stream()
    assert (await client.answer())[0] == 202
    kinds = [kind for kind, _, _ in listener.frames]
    assert kinds[0] == frames.HEAD
    assert kinds[-1] == frames.END
    assert listener.frames[0][2] == b'{"statusCode":201}'
    assert b"".join(payload for kind, _, payload in listener.frames if kind == frames.CHUNK) == b"onetwo"


async def test_a_stream_without_a_prelude(listener: Listener) -> None:
    client = await running(listener, streams=True)
    client.begin_stream(content="application/octet-stream")
    client.chunk(b"abc")
    client.end_stream()
    await client.answer()
    assert listener.frames == [(frames.HEAD, 7, b"{}"), (frames.CHUNK, 7, b"abc"), (frames.END, 7, b"")]


async def test_a_raw_stream_to_a_caller_that_takes_none(listener: Listener) -> None:
    client = await running(listener)
    client.begin_stream(content="application/octet-stream")
    client.chunk(b'{"a":')
    client.chunk(b"1}")
    client.end_stream()
    await client.answer()
    assert listener.frames == [(frames.RESULT, 7, b'{"a":1}')]


async def test_an_error_in_the_trailers(listener: Listener) -> None:
    client = await running(listener, streams=True)
    client.begin_stream()
    client.chunk(b"{}" + b"\x00" * 8 + b"part")
    error = base64.b64encode(b'{"errorType":"Runtime.StreamError","errorMessage":"half-way"}').decode()
    client.end_stream(
        f"Lambda-Runtime-Function-Error-Type: Runtime.StreamError\r\nLambda-Runtime-Function-Error-Body: {error}\r\n"
    )
    assert (await client.answer())[0] == 202
    kind, _, payload = listener.frames[-1]
    assert (kind, json.loads(payload)["errorMessage"]) == (frames.STREAM_ERROR, "half-way")


async def test_a_stream_that_breaks_and_the_error_that_explains_it(listener: Listener) -> None:
    """Node's `responseStream.destroy(error)`: no trailer, a broken body, then POST /error on another connection."""
    client = await running(listener, streams=True)
    client.begin_stream()
    client.chunk(b"{}" + b"\x00" * 8 + b"part")
    await until(lambda: len(listener.frames) == 2)
    client.writer.close()
    await until(lambda: listener.api._running.broken)  # type: ignore[union-attr]
    second = await listener.client()
    body = b'{"errorType":"Runtime.UnhandledPromiseRejection","errorMessage":"x","trace":[]}'
    assert (await second.post("invocation/r-1/error", body))[0] == 202
    assert listener.frames[-1] == (frames.STREAM_ERROR, 7, body)


async def test_a_stream_that_breaks_unexplained(listener: Listener) -> None:
    client = await running(listener, streams=True)
    client.begin_stream()
    client.chunk(b"{}" + b"\x00" * 8)
    client.writer.close()
    await until(lambda: listener.frames and listener.frames[-1][0] == frames.STREAM_ERROR)
    assert json.loads(listener.frames[-1][2])["errorType"] == "Runtime.TruncatedResponse"


@pytest.mark.parametrize("start", [b"no json" + b"\x00" * 8, b"[1]" + b"\x00" * 8, b"x" * 1_100_000])
async def test_a_prelude_that_is_none(listener: Listener, start: bytes) -> None:
    client = await running(listener, streams=True)
    client.begin_stream()
    client.chunk(start)
    client.end_stream()
    assert (await client.answer())[0] == 400
    ((kind, _, payload),) = listener.frames
    assert (kind, json.loads(payload)["errorType"]) == (frames.ERROR, "Runtime.InvalidStreamPrelude")


async def test_a_stream_larger_than_its_caller_takes(listener: Listener) -> None:
    client = await running(listener)
    client.begin_stream(content="application/octet-stream")
    for _ in range(7):
        client.chunk(b"x" * 1_000_000)
    client.end_stream()
    assert (await client.answer())[0] == 413
    assert json.loads(listener.frames[-1][2])["errorType"] == "Function.ResponseSizeTooLarge"


async def test_reading_stops_while_the_client_is_slow(listener: Listener) -> None:
    client = await running(listener, streams=True)
    client.begin_stream(content="application/octet-stream")
    client.chunk(b"a")
    await until(lambda: len(listener.frames) == 2)
    listener.api.pause()
    client.chunk(b"b")
    await asyncio.sleep(0.02)
    assert len(listener.frames) == 2
    listener.api.resume()
    await until(lambda: len(listener.frames) == 3)


# --- hostile bytes


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /2018-06-01/ping HTTP/2.0\r\n\r\n",
        b"GET 2018 HTTP/1.1\r\n\r\n",
        b"GET /2018-06-01/ping HTTP/1.1\r\nbad header: x\r\n\r\n",
        b"GET /2018-06-01/ping HTTP/1.1\r\nno-colon\r\n\r\n",
        b"GET /2018-06-01/ping HTTP/1.1\r\n folded: x\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    ],
)
async def test_garbage_is_refused_and_the_connection_closed(listener: Listener, data: bytes) -> None:
    client = await listener.client()
    client.send(data)
    status, headers, _ = await client.answer()
    assert status == 400
    assert headers["connection"] == "close"
    assert await client.reader.read() == b""


async def test_a_head_without_end(listener: Listener) -> None:
    client = await listener.client()
    client.send(b"GET /2018-06-01/ping HTTP/1.1\r\nX: " + b"x" * 1_200_000)
    assert (await client.answer())[0] == 431


async def test_pipelined_requests_are_answered_in_order(listener: Listener) -> None:
    client = await listener.client()
    client.send(b"GET /2018-06-01/ping HTTP/1.1\r\n\r\n" * 3 + NEXT)
    for _ in range(3):
        assert (await client.answer())[2] == b"pong"
    await until(lambda: listener.api.polling)


async def test_what_is_pipelined_behind_a_poll_is_bounded(listener: Listener) -> None:
    client = await listener.client()
    client.send(NEXT)
    await until(lambda: listener.frames)
    client.send(b"GET /2018-06-01/ping HTTP/1.1\r\n\r\n" * 200_000)
    await asyncio.sleep(0.05)
    listener.give()
    assert (await client.answer())[0] == 200
    assert (await client.answer())[2] == b"pong"


async def test_a_flood_of_refused_requests_is_reported(listener: Listener) -> None:
    client = await listener.client()
    client.send(b"GET /2018-06-01/nothing HTTP/1.1\r\n\r\n" * 1_000)
    for _ in range(1_000):
        assert (await client.answer())[0] == 404
    assert len(listener.floods) == 1


async def test_a_request_byte_by_byte(listener: Listener) -> None:
    client = await running(listener)
    data = b"POST /2018-06-01/runtime/invocation/r-1/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n"
    for position in range(len(data)):
        client.send(data[position : position + 1])
        await asyncio.sleep(0)
    assert (await client.answer())[0] == 202
    assert listener.frames == [(frames.RESULT, 7, b"abc")]


async def test_expect_continue(listener: Listener) -> None:
    client = await running(listener)
    client.send(
        b"POST /2018-06-01/runtime/invocation/r-1/response HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    )
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"1")
    assert (await client.answer())[0] == 202


# --- connections for somebody else


async def test_other_paths_go_to_the_platform_for_one_request(listener: Listener) -> None:
    client = await listener.client()
    client.send(b"GET /v1/documents/a HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: listener.passed)
    assert listener.passed[0][1] == b"GET /v1/documents/a HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"
    listener.passed[0][0].setblocking(True)
    listener.passed[0][0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await client.answer())[0] == 200


async def test_a_connection_that_polled_before_can_still_be_passed_on(listener: Listener) -> None:
    client = await listener.client()
    client.send(b"GET /2018-06-01/ping HTTP/1.1\r\n\r\n")
    await client.answer()
    client.send(b"GET /elsewhere HTTP/1.1\r\n\r\n")
    await until(lambda: listener.passed)
    assert listener.passed[0][1].startswith(b"GET /elsewhere")


async def test_answers_that_nobody_reads_are_not_piled_up(listener: Listener) -> None:
    sock = socket.create_connection(listener.server.getsockname())
    accepted, _ = listener.server.accept()
    accepted.setblocking(False)
    made: list[wire.Connection] = []

    def make() -> wire.Connection:
        made.append(wire.Connection(listener.api))
        return made[0]

    await asyncio.get_running_loop().connect_accepted_socket(make, accepted)
    sock.setblocking(False)
    for _ in range(600):
        try:
            sock.send(b"GET /2018-06-01/ping HTTP/1.1\r\n\r\n" * 2_000)
        except BlockingIOError:
            pass
        await asyncio.sleep(0)
    held = made[0].transport.get_write_buffer_size()
    sock.close()
    assert held < 1_000_000
