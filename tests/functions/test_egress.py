"""The egress proxy: what it answers when it does not pass a request on, and what it passes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from martlet.functions import egress


class Tunnel:
    """A connection to the proxy, and what it metered."""

    def __init__(self, allowed: egress.Egress) -> None:
        self.metered = [0, 0]
        ours, theirs = socket.socketpair()
        self._sock = ours
        self.task = asyncio.create_task(egress.serve(theirs, allowed, self._meter))

    def _meter(self, sent: int, received: int) -> None:
        self.metered[0] += sent
        self.metered[1] += received

    async def ask(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection(sock=self._sock)
        writer.write(request)
        return reader, writer, await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)


@pytest.fixture
async def upper(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server that reads to the end, then answers in capitals; loopback is allowed for it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    monkeypatch.setattr(egress, "refused_address", lambda address: "")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("request_line", "allowed", "status"),
    [
        (b"CONNECT 127.0.0.1:1 HTTP/1.1", "all", b"403"),  # this host
        (b"CONNECT example.com:443 HTTP/1.1", ("example.org",), b"403"),  # not declared
        (b"CONNECT no-such-name.invalid:443 HTTP/1.1", "all", b"502"),
        (b"CONNECT \x01:443 HTTP/1.1", "all", b"400"),
        (b"GET / HTTP/1.1", "all", b"400"),
        (b"nonsense", "all", b"400"),
    ],
)
async def test_what_is_not_passed_on_says_why(request_line: bytes, allowed: egress.Egress, status: bytes) -> None:
    tunnel = Tunnel(allowed)
    _, writer, head = await tunnel.ask(request_line + b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    writer.close()
    await tunnel.task
    assert tunnel.metered == [0, 0]


async def test_nobody_listens(upper: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        tunnel = Tunnel("all")
        _, writer, head = await tunnel.ask(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % unused.getsockname()[1])
    assert head.startswith(b"HTTP/1.1 502 ")
    writer.close()
    await tunnel.task


async def test_the_end_of_one_direction_leaves_the_other_open(upper: int) -> None:
    tunnel = Tunnel("all")
    reader, writer, head = await tunnel.ask(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % upper)
    assert head.startswith(b"HTTP/1.1 200 ")
    writer.write(b"a request without a length")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 20) == b"A REQUEST WITHOUT A LENGTH"
    writer.close()
    await tunnel.task
    assert tunnel.metered == [26, 26]
