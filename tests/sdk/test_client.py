"""The loopback's client: the protocol in every cut, connections that die at every point, and errors by name."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ports import free_ports

import martlet
from martlet import App, FunctionError, Unavailable
from martlet.sdk import client
from martlet.sdk.client import Reader, acall, call, encode, quote

from .platform import Platform

# fmt: off
ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello", 200, b"hello", True),
    (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200, b"", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 1\r\n\r\nx", 200, b"x", False),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x", False),
    (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hi\r\nlink: x\r\n\r\nHTTP/1.1 201 C\r\ncontent-length: 1\r\n\r\nx", 201, b"x", True),
    (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0a\r\n0123456789\r\n0\r\ntrail: x\r\n\r\n",
        200,
        b"hello0123456789",
        True,
    ),
]
# fmt: on


@pytest.mark.parametrize(("raw", "status", "body", "keep"), ANSWERS)
def test_answers_are_read_in_every_cut(raw: bytes, status: int, body: bytes, keep: bool) -> None:
    for cut in range(1, len(raw)):
        reader = Reader("GET")
        for part in (raw[:cut], raw[cut:]):
            assert not reader.done
            reader.feed(part)
        assert (reader.done, reader.answer.status, reader.answer.body, reader.keep_alive) == (True, status, body, keep)
    reader = Reader("GET")
    for byte in raw:
        reader.feed(bytes([byte]))
    assert reader.answer.body == body


def test_repeated_headers_join_and_until_close() -> None:
    reader = Reader("GET")
    reader.feed(ANSWERS[0][0])
    assert reader.answer.headers["x-a"] == "1, 2"
    reader = Reader("GET")
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    reader.feed(b"c")
    reader.feed(b"")
    assert (reader.answer.body, reader.keep_alive) == (b"abc", False)
    reader = Reader("HEAD")
    reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    assert reader.done


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxyz",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    with pytest.raises(Unavailable, match=r"not HTTP/1\.1"):
        Reader("GET").feed(raw)


@pytest.mark.parametrize("cut", [0, 5, 40, 60])
def test_an_answer_cut_short_is_an_error(cut: int) -> None:
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n" + b"x" * 50
    reader = Reader("GET")
    if cut:
        reader.feed(raw[:cut])
    with pytest.raises(Unavailable, match="closed before"):
        reader.feed(b"")


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_misbehave(raw: bytes) -> None:
    reader = Reader("GET")
    try:
        reader.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        reader.feed(raw or b"\0")
    except Unavailable:
        pass


@given(st.text(min_size=1))
def test_quote_round_trips_and_leaves_nothing_special(text: str) -> None:
    from urllib.parse import unquote

    try:
        text.encode()
    except UnicodeEncodeError:
        return
    quoted = quote(text)
    assert unquote(quoted) == text
    assert not set(quoted) & set("/?#\r\n ")
    assert quoted not in (".", "..")


def test_headers_cannot_break_out() -> None:
    with pytest.raises(ValueError, match="line break"):
        encode("GET", "/", "h", {"x": "a\r\nb: c"}, None)


# --- connections ------------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket, requests: list[bytes]) -> None:
        self.recv, self.sendall, self.close = sock.recv, sock.sendall, sock.close
        self.requests = requests


@contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch, *connections: Callable[[Peer], None]) -> Iterator[list[bytes]]:
    """A server that treats its first connection as the first script says, and so on. Yields the requests it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("MARTLET_API", f"127.0.0.1:{listener.getsockname()[1]}")
    requests: list[bytes] = []

    def serve() -> None:
        for script in connections:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(5)
            with sock:
                script(Peer(sock, requests))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def take(peer: Peer) -> bytes:
    """One request."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = peer.recv(65_536)
        if not part:
            return b""
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += peer.recv(65_536)
    peer.requests.append(head.split(b"\r\n")[0] + b" " + body[:20])
    return got


def answers(times: int = 1) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        for _ in range(times):
            if not take(peer):
                return
            peer.sendall(OK)

    return script


def answers_then(last: Callable[[Peer], None]) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        answers()(peer)
        last(peer)

    return script


def reads_and_closes(peer: Peer) -> None:
    take(peer)


def reads_and_half_answers(peer: Peer) -> None:
    take(peer)
    peer.sendall(OK[:-1])


def ask(method: str = "GET", body: bytes | None = None, timeout_seconds: float = 5) -> bytes:
    return call(method, "/x", body=body, timeout_seconds=timeout_seconds).body


def aask(method: str = "GET", body: bytes | None = None, timeout_seconds: float = 5) -> bytes:
    async def run() -> bytes:
        return (await acall(method, "/x", body=body, timeout_seconds=timeout_seconds)).body

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("ask", [ask, aask])


@BOTH
def test_one_connection_serves_many_requests(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    with scripted(monkeypatch, answers(3)) as requests:
        assert [ask(), ask("POST", b"a" * 1_000_000), ask()] == [b"ok"] * 3
    assert [request[:8] for request in requests] == [b"GET /x H", b"POST /x ", b"GET /x H"]


@BOTH
def test_an_idle_connection_that_was_closed_is_not_used(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    closed = threading.Event()

    def once(peer: Peer) -> None:
        answers()(peer)
        peer.close()
        closed.set()

    with scripted(monkeypatch, once, answers()) as requests:
        assert ask() == b"ok"
        assert closed.wait(5)
        assert ask("POST", b"{}") == b"ok"
    assert len(requests) == 2


@BOTH
def test_a_safe_request_is_sent_again_when_a_kept_connection_dies(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    with scripted(monkeypatch, answers_then(reads_and_closes), answers()) as requests:
        assert [ask(), ask()] == [b"ok"] * 2
    assert len(requests) == 3


@BOTH
def test_a_request_with_effects_is_never_sent_twice(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    with scripted(monkeypatch, answers_then(reads_and_closes), answers()) as requests:
        assert ask() == b"ok"
        with pytest.raises(Unavailable, match="closed before") as caught:
            ask("POST", b"pay")
        assert caught.value.sent is True
    assert sum(b"pay" in request for request in requests) == 1


@BOTH
def test_a_fresh_connection_is_never_retried(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    with scripted(monkeypatch, reads_and_closes, answers()) as requests, pytest.raises(Unavailable):
        ask()
    assert len(requests) == 1


@BOTH
def test_a_begun_answer_is_never_asked_again(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    with scripted(monkeypatch, answers_then(reads_and_half_answers), answers()) as requests:
        assert ask() == b"ok"
        with pytest.raises(Unavailable, match="closed before"):
            ask()
    assert len(requests) == 2


@BOTH
def test_a_silent_peer_times_out_and_its_connection_is_dropped(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    release = threading.Event()

    def silent(peer: Peer) -> None:
        take(peer)
        release.wait(5)

    with scripted(monkeypatch, silent) as requests:
        try:
            with pytest.raises(Unavailable, match="timed out") as caught:
                ask(timeout_seconds=0.05)
            assert caught.value.sent is True
        finally:
            release.set()
    assert len(requests) == 1
    assert not client._pool._idle


def test_threads_share_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    with Platform() as platform:
        monkeypatch.setenv("MARTLET_API", platform.address)
        collection = martlet.Collection("c")
        found: list[int] = []
        threads = [threading.Thread(target=lambda n=n: found.append(collection.put(f"d{n}", n))) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1] * 20
        assert {id: value for id, (_, value) in platform.documents["c"].items()} == {f"d{n}": n for n in range(20)}


def test_a_forked_child_opens_its_own_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(monkeypatch, answers(1)):
        assert ask() == b"ok"
        (_, kept), *_ = client._pool._idle
        client._pool._process = os.getpid() + 1  # as a child would see it
        assert client._pool.take(os.environ["MARTLET_API"]) is None
        assert kept.fileno() == -1


@BOTH
def test_no_platform(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    monkeypatch.delenv("MARTLET_API", raising=False)
    with pytest.raises(Unavailable, match=r"MARTLET_API is not set.*unit test"):
        ask()
    monkeypatch.setenv("MARTLET_API", f"127.0.0.1:{free_ports()}")
    with pytest.raises(Unavailable, match="cannot reach") as caught:
        ask("POST", b"{}")
    assert caught.value.sent is False


# --- invoke -----------------------------------------------------------------------------------------------------------------


def _app() -> App:
    app = App("shop")

    @app.function()
    def double(event: dict[str, int]) -> dict[str, int]:
        if event.get("n", 0) < 0:
            raise ValueError("negative")
        return {"n": event.get("n", 0) * 2}

    return app


def test_invoke_and_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    app = _app()
    double = app.functions.double  # type: ignore[attr-defined]
    with Platform(app) as platform:
        monkeypatch.setenv("MARTLET_API", platform.address)
        monkeypatch.setenv("MARTLET_APP", "shop")
        assert double.invoke({"n": 4}) == {"n": 8}
        assert double.invoke() == {"n": 0}
        assert asyncio.run(double.ainvoke({"n": 5})) == {"n": 10}
        with pytest.raises(FunctionError) as caught:
            double.invoke({"n": -1})
        assert (caught.value.error_type, caught.value.message) == ("ValueError", "negative")
        assert "raise ValueError" in "".join(caught.value.stack)
        double.name = "tripled"
        with pytest.raises(martlet.NotFound, match="Function not found: shop-tripled") as missing:
            double.invoke()
        assert missing.value.status == 404
        assert platform.calls[0] == "POST /2015-03-31/functions/shop-double/invocations"


def _error(status: int, headers: dict[str, str], body: Any) -> martlet.PlatformError:
    from martlet.sdk.errors import from_answer

    return from_answer(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (403, {}, {"type": "urn:martlet:error:access_denied", "detail": "no"}, martlet.AccessDenied),
        (409, {}, {"type": "urn:martlet:error:conflict", "detail": "no"}, martlet.Conflict),
        (412, {}, {"detail": "no"}, martlet.Conflict),
        (501, {}, {"detail": "no"}, martlet.Unsupported),
        (429, {"x-amzn-errortype": "TooManyRequestsException"}, {"message": "no"}, martlet.Throttled),
        (413, {"x-amzn-errortype": "RequestTooLargeException:http"}, {"Message": "no"}, martlet.LimitExceeded),
        (400, {"x-amzn-errortype": "Unheard"}, {"message": "no"}, martlet.InvalidInput),
        (503, {}, b"no", martlet.Overloaded),
        (418, {}, b"no", martlet.PlatformError),
        (500, {}, b"[]", martlet.PlatformError),
    ],
)
def test_platform_errors_are_raised_by_name(status: int, headers: dict[str, str], body: Any, kind: type[Exception]) -> None:
    error = _error(status, headers, body)
    assert type(error) is kind
    assert error.status == status
    assert error.message in ("no", "[]")


def test_retry_after() -> None:
    assert _error(429, {"retry-after": "7"}, {"message": "x"}).retry_after_seconds == 7
    assert _error(429, {}, {"message": "x", "retry_after_seconds": 0.5}).retry_after_seconds == 0.5
    assert _error(429, {"retry-after": "soon"}, b"").retry_after_seconds is None


# --- documents --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with Platform() as running:
        monkeypatch.setenv("MARTLET_API", running.address)
        yield running


def test_documents_live_and_die(platform: Platform) -> None:
    stock = martlet.Collection("stock")
    assert stock.get("a") is None
    assert stock.put("a", {"left": 3}) == 1
    assert stock.get("a") == martlet.Document("a", {"left": 3}, 1)
    assert stock.put("a", {"left": 2}, version=1) == 2
    with pytest.raises(martlet.Conflict, match="has version 2"):
        stock.put("a", {"left": 9}, version=1)
    with pytest.raises(martlet.Conflict):
        stock.put("a", {}, version=0)
    assert stock.put("b", None, version=0) == 1
    assert stock.get("b") == martlet.Document("b", None, 1)
    with pytest.raises(martlet.Conflict):
        stock.delete("a", version=1)
    assert (stock.delete("a", version=2), stock.delete("a")) == (True, False)
    for bad in (-1, True, "1", 1.0):
        with pytest.raises(ValueError, match="version is a whole number"):
            stock.put("a", {}, version=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to delete"):
        stock.delete("a", version=0)
    for bad_id in ("", 3, None):
        with pytest.raises(ValueError, match="non-empty string"):
            stock.get(bad_id)  # type: ignore[arg-type]


def test_ids_are_escaped(platform: Platform) -> None:
    things = martlet.Collection("things")
    ids = ["a/b", "..", ".", "a b?c#d", "ü€😀", "%2F", "a\r\nb"]
    for id in ids:
        things.put(id, id)
    assert set(platform.documents["things"]) == set(ids)
    assert [things.get(id).value for id in ids] == ids  # type: ignore[union-attr]


def test_pages_and_scan(platform: Platform) -> None:
    things = martlet.Collection("things")
    for number in range(5):
        things.put(f"a{number}", number)
    things.put("b", "b")
    page = things.list("a", limit=2)
    assert ([one.id for one in page], page.next) == (["a0", "a1"], "a1")
    assert [one.value for one in things.list("a", after=page.next)] == [2, 3, 4]
    assert things.list("zzz").next is None
    platform.documents["things"] = {f"{number:04}": (1, number) for number in range(250)}
    assert [one.value for one in things.scan()] == list(range(250))


def test_update_loses_no_increment(platform: Platform) -> None:
    counter = martlet.Collection("counter")

    def grow() -> None:
        for _ in range(5):
            counter.update("n", lambda value: (value or 0) + 1, tries=100)

    threads = [threading.Thread(target=grow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert platform.documents["counter"]["n"] == (20, 20)


def test_update_gives_up_and_lets_errors_out(platform: Platform) -> None:
    counter = martlet.Collection("counter")
    seen: list[Any] = []

    def disturbed(value: Any) -> int:
        seen.append(value)
        counter.put("n", len(seen))
        return -1

    with pytest.raises(martlet.Conflict):
        counter.update("n", disturbed, tries=3)
    assert seen == [None, 1, 2]
    with pytest.raises(ZeroDivisionError):
        counter.update("n", lambda value: 1 // 0)
    with pytest.raises(ValueError, match="at least 1"):
        counter.update("n", lambda value: 1, tries=0)
    assert platform.documents["counter"]["n"] == (3, 3)


def test_a_404_that_names_no_document_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain_404(peer: Peer) -> None:
        take(peer)
        peer.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\ncontent-type: text/plain\r\n\r\nnope")

    with scripted(monkeypatch, plain_404), pytest.raises(martlet.NotFound, match="nope"):
        martlet.Collection("c").get("x")
