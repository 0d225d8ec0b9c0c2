"""The grammar of a request's head, and that llhttp reads every head we accept as we do."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.gateway.head import Refused, join, parse_fields, parse_line, partial_fault

HOST = b"Host: example.com\r\n"


def test_a_request_line_is_taken_apart_and_nothing_is_decoded() -> None:
    request = parse_line(b"GET /pa2%Fth/1?a=%20&b HTTP/1.1")
    assert (request.method, request.path, request.query, request.version) == ("GET", b"/pa2%Fth/1", b"a=%20&b", "1.1")


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://other.example:81/x?y=1", b"other.example:81", b"/x", b"y=1"),
        (b"http://other.example", b"other.example", b"/", b""),
        (b"HTTP://other.example?q", b"other.example", b"/", b"q"),
        (b"https://[::1]:443/", b"[::1]:443", b"/", b""),
    ],
)
def test_absolute_form_overrides_host(target: bytes, host: bytes, path: bytes, query: bytes) -> None:
    request = parse_line(b"GET " + target + b" HTTP/1.1")
    join(request, parse_fields(HOST))
    assert (request.host, request.path, request.query) == (host, path, query)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/\tHTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\x00 HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"G@T / HTTP/1.1", 400),
        (b"GET example.com HTTP/1.1", 400),
        (b"GET ftp://example.com/ HTTP/1.1", 400),
        (b"GET http:///path HTTP/1.1", 400),
        (b"GET http://user@example.com/ HTTP/1.1", 400),
        (b"GET http://exa mple.com/ HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"CONNECT example.com:443 HTTP/1.1", 501),
        (b"CONNECT / HTTP/1.1", 501),
        (b"TRACE / HTTP/1.1", 501),
    ],
)
def test_doubtful_request_lines_are_refused(line: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        parse_line(line)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "block",
    [
        b"Host : a\r\n",
        b" Host: a\r\n",
        b"Host: a\r\n folded\r\n",
        b"Host: a\r\n\tfolded\r\n",
        b"Host: a\nX: b\r\n",
        b"Host: a\rX: b\r\n",
        b"Host: a\r\nX: b\x00c\r\n",
        b"Host: a\r\nX: b\x7fc\r\n",
        b"Host: a\r\nX\x0b: b\r\n",
        b"Host: a\r\n: b\r\n",
        b"Host: a\r\nnocolon\r\n",
        b"Host: a\r\nX(y): b\r\n",
        b"Host: a\r\nX\xc3\xa9: b\r\n",
        b"Host: a\r\nHost: a\r\n",
        b"Host: \r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: a@b\r\n",
        b"Host: a,b\r\n",
        b"Host: a:b\r\n",
        b"Host: a:80:80\r\n",
        b"Host: [::1\r\n",
        HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n",
        HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n",
        HOST + b"Content-Length: 3, 3\r\n",
        HOST + b"Content-Length: +3\r\n",
        HOST + b"Content-Length: -3\r\n",
        HOST + b"Content-Length: 0x3\r\n",
        HOST + b"Content-Length: 3 3\r\n",
        HOST + b"Content-Length: 3.0\r\n",
        HOST + b"Content-Length: 1_0\r\n",
        HOST + b"Content-Length: \xb2\r\n",
        HOST + b"Content-Length:\r\n",
        HOST + b"Content-Length: 99999999999999999999\r\n",
        HOST + b"Transfer-Encoding: gzip\r\n",
        HOST + b"Transfer-Encoding: gzip, chunked\r\n",
        HOST + b"Transfer-Encoding: chunked, identity\r\n",
        HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        HOST + b"Transfer-Encoding: identity\r\n",
        HOST + b"Transfer-Encoding: xchunked\r\n",
        HOST + b"Transfer-Encoding: \x0bchunked\r\n",
        HOST + b'Transfer-Encoding: "chunked"\r\n',
        HOST + b"Transfer-Encoding: chunked;q=1\r\n",
        HOST + b"Transfer-Encoding:\r\n",
        HOST + b"Transfer-Encoding : chunked\r\n",
    ],
)
def test_doubtful_fields_are_refused(block: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_fields(block)
    assert caught.value.status == 400


def test_only_100_continue_can_be_expected() -> None:
    with pytest.raises(Refused) as caught:
        parse_fields(HOST + b"Expect: 200-maybe\r\n")
    assert caught.value.status == 417
    assert parse_fields(HOST + b"Expect: 100-Continue\r\n").expect == b"100-Continue"


def test_values_lose_their_surrounding_whitespace_only() -> None:
    fields = parse_fields(b"Host:a\r\nX: \t b  c \t\r\nEmpty:\r\nBlank: \t \r\n")
    assert fields.items == [(b"Host", b"a"), (b"X", b"b  c"), (b"Empty", b""), (b"Blank", b"")]


def test_repeated_fields_are_joined_in_the_lookup_and_kept_in_the_list() -> None:
    fields = parse_fields(b"Host: a\r\nX: 1\r\nCookie: a=1\r\nx: 2\r\ncookie: b=2\r\n")
    assert fields.lookup[b"x"] == b"1, 2"
    assert fields.lookup[b"cookie"] == b"a=1; b=2"
    assert len(fields.items) == 5


def test_upgrade_is_ignored_with_its_body_left_in_place() -> None:
    fields = parse_fields(HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n")
    assert fields.content_length == 5


@pytest.mark.parametrize(
    ("version", "block", "keep"),
    [
        (b"1.1", HOST, True),
        (b"1.1", HOST + b"Connection: close\r\n", False),
        (b"1.1", HOST + b"Connection: foo, CLOSE\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_persistence(version: bytes, block: bytes, keep: bool) -> None:
    request = parse_line(b"GET / HTTP/" + version)
    join(request, parse_fields(block))
    assert request.keep_alive is keep


@pytest.mark.parametrize(("version", "block"), [(b"1.1", b""), (b"1.0", b"Transfer-Encoding: chunked\r\n")])
def test_what_the_version_forbids(version: bytes, block: bytes) -> None:
    with pytest.raises(Refused):
        join(parse_line(b"GET / HTTP/" + version), parse_fields(block))


@pytest.mark.parametrize("head", [b"\x16\x03\x01\x02", b"GET / HTTP/1.1\nHost: a", b"GET / HT\rTP", b"GET /\x00", b":x"])
def test_a_hopeless_beginning_is_known_at_once(head: bytes) -> None:
    assert partial_fault(head) is not None


@pytest.mark.parametrize(
    "head", [b"", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r\nX: \xe9\t"]
)
def test_a_good_beginning_may_go_on(head: bytes) -> None:
    assert partial_fault(head) is None


TOKEN = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127))
FRAGMENT = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Host: b"]
)


class _Seen:
    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


@given(
    st.lists(st.tuples(TOKEN, VALUE), max_size=6),
    st.lists(st.tuples(st.integers(0, 200), FRAGMENT), max_size=2),
)
def test_llhttp_reads_what_we_accept_as_we_do(pairs: list[tuple[bytes, bytes]], noise: list[tuple[int, bytes]]) -> None:
    block = HOST + b"".join(b"x-%b: %b\r\n" % pair for pair in pairs)
    for place, fragment in noise:
        cut = place % (len(block) + 1)
        block = block[:cut] + fragment + block[cut:]
    head = b"GET /p?q HTTP/1.1\r\n" + block + b"\r\n"
    if head.find(b"\r\n\r\n") != len(head) - 4:
        return  # the server would end the head earlier
    try:
        request = parse_line(b"GET /p?q HTTP/1.1")
        join(request, parse_fields(block))
    except Refused:
        return
    seen = _Seen()
    try:
        httptools.HttpRequestParser(seen).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    assert seen.complete
    assert seen.url == request.target
    assert [(name, value.strip(b" \t")) for name, value in seen.headers] == request.headers
