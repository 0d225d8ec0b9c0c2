"""The chunked coding: whole, in any pieces, and hostile."""

from __future__ import annotations

import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.gateway.chunked import ChunkedBody
from martlet.gateway.head import Refused

LIMIT = 1_000_000


def decode(data: bytes, cuts: list[int] | None = None, limit: int = LIMIT) -> tuple[bytes, list[tuple[bytes, bytes]], int]:
    """(body, trailers, bytes consumed) of `data`, fed in pieces."""
    coder = ChunkedBody(1000)
    edges = [0, *sorted({cut for cut in cuts or [] if 0 < cut < len(data)}), len(data)]
    consumed = 0
    for start, stop in itertools.pairwise(edges):
        if coder.done:
            break
        consumed = start + coder.feed(data[start:stop], 0, limit)
    assert coder.done
    return bytes(coder.body), coder.trailers, consumed


def encode(chunks: list[bytes], trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=5), st.lists(st.integers(0, 300), max_size=8)
)
def test_any_split_gives_the_same_body_and_stops_behind_it(chunks: list[bytes], after: bytes, cuts: list[int]) -> None:
    data = encode(chunks, b"X-Sum: 1\r\n")
    body, trailers, consumed = decode(data + after, cuts)
    assert (body, trailers) == (b"".join(chunks), [(b"X-Sum", b"1")])
    assert consumed == len(data)


@given(
    st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4), st.integers(0, 120), st.binary(min_size=1, max_size=3)
)
def test_what_we_accept_llhttp_accepts_with_the_same_body(chunks: list[bytes], place: int, noise: bytes) -> None:
    data = encode(chunks)
    cut = place % len(data)
    data = data[:cut] + noise + data[cut:]
    coder = ChunkedBody(1000)
    try:
        at = coder.feed(data, 0, LIMIT)
    except Refused:
        return
    if not coder.done:
        return
    parts: list[bytes] = []

    class Oracle:
        def on_body(self, part: bytes) -> None:
            parts.append(part)

    httptools.HttpRequestParser(Oracle()).feed_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data[:at]
    )
    assert b"".join(parts) == bytes(coder.body)


def test_extensions_are_read_over() -> None:
    assert decode(b'3;a;b=c;d="e;\\"f"\r\nabc\r\n0;last\r\n\r\n')[0] == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\t\r\n",
        b"1 ;a\r\n",
        b"1_0\r\n",
        b"3\nabc\r\n",
        b"3\rabc\r\n",
        b"3;a\nabc\r\n",
        b"3;\x00\r\nabc\r\n",
        b"3;a=\x01\r\nabc\r\n",
        b"3;=b\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000000\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\rx",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nnocolon\r\n\r\n",
        b"0" * 600 + b"\r\n",
        b"1;" + b"a" * 600 + b"\r\n",
        b"0\r\n" + b"X: 1\r\n" * 300,
        b"0\r\nX: " + b"a" * 2000 + b"\r\n\r\n",
        b"1;abcdefgh\r\nx\r\n" * 3000,
    ],
)
def test_hostile_framing_is_refused(data: bytes) -> None:
    for step in (1, 7, len(data)):
        coder = ChunkedBody(1000)
        with pytest.raises(Refused) as caught:  # noqa: PT012 — any of the pieces may be the one
            for at in range(0, len(data), step):
                coder.feed(data[at : at + step], 0, LIMIT)
        assert caught.value.status == 400


def test_decoding_stops_just_beyond_the_limit() -> None:
    coder = ChunkedBody(1000)
    coder.feed(b"ff\r\n" + b"x" * 255, 0, 100)
    assert len(coder.body) == 101
