"""Martlet's own HTTP server with nothing behind it: every request gets the answer of an Invoke, from memory. What a client
of the Lambda API spends on itself, on its connection and on an HTTP server, so that a ratio to it shows the rest."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers.server import Server, free_port

__all__ = ["start"]

_SOURCE = Path(__file__).resolve().parents[2] / "src"

_APP = """
import asyncio
import sys

import uvloop

from martlet.clock import Clock
from martlet.gateway.http import Exchange, HttpServer

FIELDS = (
    (b"content-type", b"application/json"),
    (b"x-amzn-requestid", b"7a41b2c6-6c26-4b5e-9c7c-0b3d8a1f5e29"),
    (b"x-amz-executed-version", b"$LATEST"),
)


def answer(exchange: Exchange) -> None:
    exchange.respond(200, FIELDS, b'{"ok": true}')


async def main() -> None:
    server = HttpServer(answer, clock=Clock())
    await server.listen("127.0.0.1", int(sys.argv[1]))
    await asyncio.Event().wait()


uvloop.run(main())
"""


def start() -> Server:
    port = free_port()
    return Server("null server", [sys.executable, "-c", _APP, str(port)], port, environ={"PYTHONPATH": str(_SOURCE)})
