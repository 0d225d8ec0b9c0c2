"""The server over real sockets: conformance to RFC 9110 and RFC 9112, what is refused, answers, streams and bodies."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import orjson
import pytest
from tests.gateway.conftest import GET, HOST, POST, Held, Serve, echo, until

from martlet.gateway.http import Exchange

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


# --- what is refused: (name, bytes, status) ---------------------------------------------------------------------------

REFUSED: list[tuple[str, bytes, int]] = [
    ("length and coding", POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("coding and length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
    ("two lengths that differ", POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
    ("two lengths alike", POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
    ("a list of lengths", POST + b"Content-Length: 4, 4\r\n\r\nabcd", 400),
    ("a signed length", POST + b"Content-Length: +4\r\n\r\nabcd", 400),
    ("a negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("a hexadecimal length", POST + b"Content-Length: 0x4\r\n\r\nabcd", 400),
    ("a length of words", POST + b"Content-Length: four\r\n\r\nabcd", 400),
    ("an empty length", POST + b"Content-Length:\r\n\r\n", 400),
    ("a coding unknown", POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("a coding before chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding after chunked", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("chunked twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked with a tab inside", POST + b"Transfer-Encoding: chun\tked\r\n\r\n0\r\n\r\n", 400),
    ("chunked behind a vertical tab", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("space before the colon of the coding", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("space before the colon of the length", POST + b"Content-Length : 4\r\n\r\nabcd", 400),
    ("a folded line", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("a folded coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("a first line with a space", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("bare LF in a header", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("bare LF before the empty line", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("bare CR in a header", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400),
    ("bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("NUL in a header", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00\r\n\r\n", 400),
    ("NUL in the target", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("DEL in a header", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
    ("a control character in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\x01: b\r\n\r\n", 400),
    ("an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("a Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("a Host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("two Hosts in absolute form too", b"GET http://c/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a tab as separator", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a space at the end of the line", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("a lower-case protocol", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("a long version", b"GET / HTTP/1.11\r\nHost: a\r\n\r\n", 400),
    ("a fragment", b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a target that is not ASCII", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("authority-form without CONNECT", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("asterisk-form without OPTIONS", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("another scheme", b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("another expectation", POST + b"Content-Length: 1\r\nExpect: pigs-fly\r\n\r\nx", 417),
    ("a chunk size of words", CHUNKED + b"zz\r\n", 400),
    ("a signed chunk size", CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", 400),
    ("a chunk size with 0x", CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    ("a chunk size with a space", CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", 400),
    ("an empty chunk size", CHUNKED + b"\r\n\r\n", 400),
    ("a chunk size beyond 64 bits", CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n", 400),
    ("bare LF after a chunk size", CHUNKED + b"3\nabc\r\n0\r\n\r\n", 400),
    ("bare LF after a chunk", CHUNKED + b"3\r\nabc\n0\r\n\r\n", 400),
    ("bare LF in an extension", CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n", 400),
    ("a chunk longer than it says", CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    ("a chunk shorter than it says", CHUNKED + b"4\r\nabc\r\n0\r\n\r\n", 400),
    ("a malformed trailer", CHUNKED + b"0\r\nX : y\r\n\r\n", 400),
    ("a request line too long", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("a request line without end", b"GET /" + b"a" * 9000, 414),
    ("a header too large", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 11_000 + b"\r\n\r\n", 431),
    ("headers without end", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 123456\r\n" * 1100, 431),
    ("a body too large", POST + b"Content-Length: 10485761\r\n\r\n", 413),
    ("a body too large, refused before 100", POST + b"Content-Length: 10485761\r\nExpect: 100-continue\r\n\r\n", 413),
]


@pytest.mark.parametrize(("name", "data", "status"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_refused_with_a_problem_and_the_connection_closed(serve: Serve, name: str, data: bytes, status: int) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(data)
        answer = await client.read()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == status
        client.send(GET)  # whatever follows is no request
        assert await client.rest() == b""
    assert held.exchanges == []
    assert server.server.buffered == 0


@pytest.mark.parametrize(("name", "data", "status"), [case for case in REFUSED if len(case[1]) < 200], ids=lambda value: "")
async def test_refused_however_it_is_cut_into_packets(serve: Serve, name: str, data: bytes, status: int) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        await client.send_slowly(data, 17)
        assert (await client.read()).status == status
    assert held.exchanges == []


# --- what is accepted: (name, bytes, what `echo` answers) --------------------------------------------------------------

ACCEPTED: list[tuple[str, bytes, bytes]] = [
    ("a plain request", GET, b"GET / "),
    ("an empty line before", b"\r\n" + GET, b"GET / "),
    ("no optional whitespace", b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", b"GET / "),
    ("odd escapes", b"GET /pa2%Fth/1?%zz HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /pa2%Fth/1?%zz "),
    ("asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * "),
    ("absolute-form", b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http://b/x "),
    ("an IPv6 host", b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", b"GET / "),
    ("a body", POST + b"Content-Length: 4\r\n\r\nabcd", b"POST / abcd"),
    ("an empty body", POST + b"Content-Length: 0\r\n\r\n", b"POST / "),
    ("a body with GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", b"GET / hi"),
    ("a chunked body", CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", b"POST / abc0123456789"),
    ("a chunked body in capitals", POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"POST / x"),
    ("chunk extensions and trailers", CHUNKED + b'3;a="b"\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n', b"POST / abc"),
    ("an empty chunked body", CHUNKED + b"0\r\n\r\n", b"POST / "),
    ("Upgrade is ignored", POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi", b"POST / hi"),
    ("a method of one's own", b"PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", b"PURGE / "),
    ("obs-text in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\xff\r\n\r\n", b"GET / "),
    ("a body that looks like a request", POST + b"Content-Length: %d\r\n\r\n" % len(GET) + GET, b"POST / " + GET),
]


@pytest.mark.parametrize(("name", "data", "body"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
@pytest.mark.parametrize("step", [100_000, 5])
async def test_accepted_whole_and_in_pieces_and_the_connection_goes_on(
    serve: Serve, name: str, data: bytes, body: bytes, step: int
) -> None:
    server = await serve(echo)
    async with await server.connect() as client:
        await client.send_slowly(data, step)
        answer = await client.read()
        assert (answer.status, answer.body) == (200, body)
        assert set(answer.headers) == {"content-type", "date", "content-length"}
        client.send(GET)
        assert (await client.read()).body == b"GET / "
    assert server.server.buffered == 0


async def test_a_pipeline_is_answered_in_order_though_handlers_take_their_time(serve: Serve) -> None:
    loop = asyncio.get_running_loop()

    def late(exchange: Exchange) -> None:
        delay = 0.05 if exchange.request.path == b"/0" else 0.0
        loop.call_later(delay, exchange.respond, 200, (), exchange.request.path)

    server = await serve(late)
    async with await server.connect() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(50)))
        assert [(await client.read()).body for _ in range(50)] == [b"/%d" % number for number in range(50)]


async def test_a_long_pipeline_does_not_recurse_and_does_not_pile_up(serve: Serve) -> None:
    server = await serve(echo)
    async with await server.connect() as client:
        client.send(GET * 5000)
        for _ in range(5000):
            assert (await client.read()).status == 200


async def test_one_request_of_a_pipeline_is_in_service_at_a_time_and_reading_stops(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET * 20_000)
        await until(lambda: bool(held.exchanges))
        (connection,) = server.server.connections
        await until(lambda: connection.read_paused)
        assert len(held.exchanges) == 1
        assert len(connection.unread) < 1_000_000
        held.exchanges[0].respond(200, (), b"")
        await until(lambda: len(held.exchanges) == 2)


async def test_a_client_that_pipelines_and_never_reads_does_not_fill_the_memory(serve: Serve) -> None:
    served = 0

    def big(exchange: Exchange) -> None:
        nonlocal served
        served += 1
        exchange.respond(200, (), b"x" * 1_000_000)

    server = await serve(big)
    async with await server.connect() as client:
        client.send(GET * 200)
        await until(lambda: served > 0)
        await asyncio.sleep(0.1)
        assert served < 30
        for _ in range(200):
            assert len((await client.read()).body) == 1_000_000
    assert served == 200


async def test_half_close_is_no_reason_not_to_answer(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET + GET)
        client.writer.write_eof()
        await until(lambda: len(held.exchanges) == 1)
        held.exchanges[0].respond(200, (), b"one")
        await until(lambda: len(held.exchanges) == 2)
        held.exchanges[1].respond(200, (), b"two")
        assert [(await client.read()).body, (await client.read()).body] == [b"one", b"two"]
        assert await client.rest() == b""


@pytest.mark.parametrize("data", [b"GET / HT", POST + b"Content-Length: 4\r\n\r\nab", CHUNKED + b"3\r\nab"])
async def test_a_request_cut_short_is_400_and_never_served(serve: Serve, data: bytes) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(data)
        client.writer.write_eof()
        assert (await client.read()).status == 400
        assert await client.rest() == b""
    assert held.exchanges == []
    assert server.server.buffered == 0


async def test_a_connection_closed_in_the_middle_of_a_body_leaves_nothing(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 400000\r\n\r\n" + b"x" * 100_000)
        await until(lambda: server.server.buffered == 100_000)
    await until(lambda: not server.server.connections)
    assert server.server.buffered == 0
    assert held.exchanges == []


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_head_has_the_length_and_no_body(serve: Serve) -> None:
    server = await serve(lambda exchange: exchange.respond(200, (), b"12345"))
    async with await server.connect() as client:
        client.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
        first = await client.read("HEAD")
        assert first.headers["content-length"] == "5"
        assert (await client.read()).body == b"12345"


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(serve: Serve, status: int) -> None:
    server = await serve(lambda exchange: exchange.respond(status, (), b"never sent"))
    async with await server.connect() as client:
        client.send(GET + GET)
        answer = await client.read()
        assert (answer.status, "content-length" in answer.headers) == (status, False)
        assert (await client.read()).status == status


async def test_http_1_0_closes_unless_asked(serve: Serve) -> None:
    server = await serve(echo)
    async with await server.connect() as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.read()
        assert (answer.headers["connection"], answer.body) == ("keep-alive", b"GET / ")
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.read()).headers["connection"] == "close"
        assert await client.rest() == b""


async def test_connection_close_is_obeyed_and_what_follows_ignored(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        await until(lambda: bool(held.exchanges))
        held.exchanges[0].respond(200, (), b"bye")
        assert (await client.read()).headers["connection"] == "close"
        assert await client.rest() == b""
    assert len(held.exchanges) == 1


async def test_framing_fields_of_the_handler_do_not_reach_the_wire(serve: Serve) -> None:
    given = ((b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"close"), (b"X", b"y"))
    server = await serve(lambda exchange: exchange.respond(200, given, b"ok"))
    answer = await server.ask(GET)
    assert answer.body == b"ok"
    assert {"connection", "transfer-encoding"}.isdisjoint(answer.headers)
    assert answer.headers["x"] == "y"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("header", [(b"X", b"a\r\nY: b"), (b"X", b"a\n"), (b"X\r\nY", b"b"), (b"X", b"a\r")])
async def test_a_line_break_in_a_header_never_leaves(serve: Serve, header: tuple[bytes, bytes]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    server = await serve(lambda exchange: exchange.respond(200, (header,), b"ok"))
    answer = await server.ask(GET)
    assert (answer.status, "y" in answer.headers) == (500, False)


async def test_a_large_answer_arrives_whole(serve: Serve) -> None:
    body = bytes(range(256)) * 24_000
    server = await serve(lambda exchange: exchange.respond(200, (), body))
    assert (await server.ask(GET)).body == body


async def test_a_handler_that_raises_is_a_500_and_the_connection_goes_on(serve: Serve) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))

    def faulty(exchange: Exchange) -> None:
        if exchange.request.path == b"/bad":
            raise ZeroDivisionError
        echo(exchange)

    server = await serve(faulty)
    async with await server.connect() as client:
        client.send(b"GET /bad HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
        answer = await client.read()
        assert (answer.status, b"ZeroDivision" in answer.body) == (500, False)
        assert (await client.read()).status == 200
    assert isinstance(reports[0]["exception"], ZeroDivisionError)


async def test_answering_twice_is_an_error_of_the_handler(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: bool(held.exchanges))
        held.exchanges[0].start(200, ())
        with pytest.raises(RuntimeError):
            held.exchanges[0].respond(200, (), b"")
        with pytest.raises(RuntimeError):
            held.exchanges[0].start(200, ())
        held.exchanges[0].end()
        held.exchanges[0].write(b"late")  # after the end nothing is connected: it goes nowhere
        assert (await client.read()).body == b""


# --- streamed answers -------------------------------------------------------------------------------------------------


def stream(exchange: Exchange) -> None:
    exchange.start(200, ((b"content-type", b"text/plain"),))
    for part in (b"one,", b"", b"two,", b"three"):
        exchange.write(part)
    exchange.end(((b"x-sum", b"3"),))


async def test_a_stream_is_chunked_with_trailers_and_the_connection_goes_on(serve: Serve) -> None:
    server = await serve(stream)
    async with await server.connect() as client:
        client.send(GET + GET)
        for _ in range(2):
            answer = await client.read()
            assert (answer.body, answer.headers["trailer x-sum"]) == (b"one,two,three", "3")


async def test_a_stream_to_http_1_0_ends_with_the_connection(serve: Serve) -> None:
    server = await serve(stream)
    async with await server.connect() as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.read()
        assert answer.body == b"one,two,three"
        assert answer.headers["connection"] == "close"


async def test_a_stream_to_head_has_no_body(serve: Serve) -> None:
    server = await serve(stream)
    async with await server.connect() as client:
        client.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n" + b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.read("HEAD")).headers["transfer-encoding"] == "chunked"
        assert (await client.read("HEAD")).status == 200


async def test_a_stream_respects_the_length_given(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET + GET)
        await until(lambda: bool(held.exchanges))
        exchange = held.exchanges[0]
        exchange.start(200, ((b"Content-Length", b"4"),))
        exchange.write(b"ab")
        with pytest.raises(ValueError, match="longer"):
            exchange.write(b"cde")
        exchange.write(b"cd")
        exchange.end()
        assert (await client.read()).body == b"abcd"
        await until(lambda: len(held.exchanges) == 2)
        held.exchanges[1].start(200, ((b"Content-Length", b"4"),))
        held.exchanges[1].write(b"ab")
        held.exchanges[1].end()  # two bytes short: the client must see that
        await client.read_head()
        assert await client.rest() == b"ab"


async def test_an_aborted_stream_has_no_last_chunk(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: bool(held.exchanges))
        held.exchanges[0].start(200, ())
        held.exchanges[0].write(b"abc")
        held.exchanges[0].abort()
        await client.read_head()
        assert await client.rest() == b"3\r\nabc\r\n"


async def test_an_aborted_stream_to_http_1_0_is_a_reset(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: bool(held.exchanges))
        held.exchanges[0].start(200, ())
        held.exchanges[0].write(b"abc")
        await client.read_head()
        held.exchanges[0].abort()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_backpressure_pauses_and_drains(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: bool(held.exchanges))
        exchange = held.exchanges[0]
        seen: list[str] = []
        exchange.on_pause = lambda: seen.append("pause")
        exchange.on_drain = lambda: seen.append("drain")
        exchange.start(200, ())
        written = 0
        while not exchange.paused:
            exchange.write(b"x" * 65_536)
            written += 65_536
            await asyncio.sleep(0)
            assert written < 100_000_000
        assert seen == ["pause"]
        reading = asyncio.ensure_future(client.read())
        await until(lambda: not exchange.paused)
        assert seen[1] == "drain"
        exchange.end()
        assert len((await reading).body) == written


async def test_the_handler_hears_that_its_client_left(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    left: list[bool] = []
    async with await server.connect() as client:
        client.send(GET)
        await until(lambda: bool(held.exchanges))
        held.exchanges[0].on_disconnect = lambda: left.append(True)
        held.exchanges[0].start(200, ())
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.writer.transport.abort()
        await until(lambda: bool(left))
    exchange = held.exchanges[0]
    assert not exchange.connected
    exchange.write(b"into the void")
    exchange.end()
    exchange.abort()
    await until(lambda: not server.server.connections)


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_100_continue_is_sent_when_the_body_is_awaited(serve: Serve) -> None:
    server = await serve(echo)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.read()).status == 100
        client.send(b"abcd")
        assert (await client.read()).body == b"POST / abcd"
        client.send(POST + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd")  # it did not wait: no 100
        assert (await client.read()).status == 200
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")  # 1.0 knows no 100
        await asyncio.sleep(0.02)
        client.send(b"abcd")
        assert (await client.read()).status == 200


async def test_a_client_that_sends_on_still_reads_the_413(serve: Serve) -> None:
    server = await serve(echo, max_body_bytes=1000)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.send(b"x" * 100_000)
            await asyncio.sleep(0)
        answer = await client.read()
        assert answer.status == 413
        problem = json.loads(answer.body)
        assert (problem["limit"], problem["limit_value"], problem["unit"]) == ("request_body_bytes", 1000, "bytes")


async def test_a_chunked_body_beyond_the_limit_is_413(serve: Serve) -> None:
    server = await serve(echo, max_body_bytes=1000)
    assert (await server.ask(CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")).status == 200
    assert (await server.ask(CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")).status == 413
    assert (await server.ask(CHUNKED + b"1\r\nx\r\n" * 1001 + b"0\r\n\r\n")).status == 413
    assert server.server.buffered == 0


async def test_a_large_upload_where_it_is_allowed(serve: Serve) -> None:
    sizes: list[int] = []

    def count(exchange: Exchange) -> None:
        sizes.append(len(exchange.request.body))
        exchange.respond(200, (), b"")

    server = await serve(count, max_body_bytes=64_000_000)
    async with await server.connect() as client:
        client.send(POST + b"Content-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
        assert (await client.read()).status == 200
    assert sizes == [30_000_000]


async def test_all_bodies_together_have_a_limit(serve: Serve) -> None:
    held = Held()
    server = await serve(held, limits={"request_buffer_bytes": 2000, "request_body_bytes": 2000})
    async with await server.connect() as first, await server.connect() as second:
        first.send(POST + b"Content-Length: 1500\r\n\r\n" + b"x" * 1500)
        await until(lambda: bool(held.exchanges))
        second.send(POST + b"Content-Length: 1500\r\n\r\n" + b"x" * 1500)
        answer = await second.read()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        held.exchanges[0].respond(200, (), b"")
        assert (await first.read()).status == 200
    assert server.server.buffered == 0


async def test_trailers_are_on_the_request_and_do_not_become_headers(serve: Serve) -> None:
    held = Held()
    server = await serve(held)
    async with await server.connect() as client:
        client.send(CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\nAuthorization: no\r\n\r\n")
        await until(lambda: bool(held.exchanges))
        request = held.exchanges[0].request
        assert request.trailers == [(b"X-Sum", b"1"), (b"Authorization", b"no")]
        assert request.header(b"authorization") is None


async def test_problem_bodies_are_json(serve: Serve) -> None:
    answer = await (await serve(echo)).ask(b"GET / HTTP/3.0\r\n\r\n")
    body = orjson.loads(answer.body)
    assert (body["type"], body["status"]) == ("urn:martlet:error:unsupported", 505)
