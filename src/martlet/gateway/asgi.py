"""An ASGI 3 application behind our HTTP server: for the platform's API and the sandboxes' private sockets.

One task a request: comfortable, not the hot path. https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
from typing import Any

from martlet.errors import MartletError
from martlet.gateway.answer import problem
from martlet.gateway.asgi_scope import AsgiApp, Message, common_scope
from martlet.gateway.asgi_socket import SocketRun
from martlet.gateway.exchange import Exchange
from martlet.gateway.websocket import wants_websocket

__all__ = ["AsgiApp", "AsgiHandler"]


class AsgiHandler:
    """A handler for `HttpServer` that runs `app` for each exchange; `scope["martlet.context"]` is the request's context,
    `await scope["martlet.left"]()` returns when the client has closed its side or is gone, and
    `scope["martlet.respond"](status, headers, body)` gives a whole answer at once, which costs half of two messages.

    An app that fails before its answer begins is answered for with 500; after that the answer is cut. A disconnect never
    cancels the app: it reads http.disconnect, and its sends raise `OSError`. Who asks for a WebSocket gets that kind of scope.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        run = SocketRun(exchange) if wants_websocket(exchange.request) else _Run(exchange)
        task = asyncio.get_running_loop().create_task(run.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Run:
    """One run of the app."""

    __slots__ = ("_body_given", "_eof", "_exchange", "_head", "_more", "_trailers", "_wake", "_wants_trailers")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body_given = False
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._more = True  # the app owes more of the body
        self._wants_trailers = False
        self._trailers: list[tuple[bytes, bytes]] = []
        self._wake: asyncio.Event | None = None  # most answers need none
        self._eof = False
        exchange.on_eof = self._at_eof
        exchange.on_disconnect = self._awake
        exchange.on_drain = self._awake

    async def run(self, app: AsgiApp) -> None:
        exchange = self._exchange
        try:
            await app(self._scope(), self._receive, self._send)
        except asyncio.CancelledError:
            exchange.abort()
            raise
        except Exception as error:
            if not (isinstance(error, OSError) and not exchange.connected and self._more):
                _report("the application failed", error)
        if not exchange.started:
            headers, body = problem(MartletError("internal error"))
            exchange.respond(500, headers, body)
        elif self._more or self._wants_trailers:
            exchange.abort()  # does nothing once the client is gone

    def _scope(self) -> dict[str, Any]:
        return {
            **common_scope(self._exchange.request),
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "method": self._exchange.request.method,
            "extensions": {"http.response.trailers": {}},
            "martlet.left": self._left,
            "martlet.respond": self._respond,
        }

    def _awake(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def _woken(self) -> None:
        """Wait for a change of the exchange."""
        if self._wake is None:
            self._wake = asyncio.Event()
        self._wake.clear()
        await self._wake.wait()

    def _at_eof(self) -> None:
        self._eof = True
        self._awake()

    async def _left(self) -> None:
        while self._exchange.connected and not self._eof:
            await self._woken()

    def _respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._more = False
        self._exchange.respond(status, headers, body)
        self._awake()

    async def _receive(self) -> Message:
        stream = self._exchange.request.stream
        if stream is not None and not self._body_given:
            taken = await stream.take()
            if taken is None:
                return {"type": "http.disconnect"}
            self._body_given = not taken[1]
            return {"type": "http.request", "body": taken[0], "more_body": taken[1]}
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._exchange.request.body, "more_body": False}
        while self._exchange.connected:
            await self._woken()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        exchange = self._exchange
        kind = message["type"]
        if kind == "http.response.start" and self._head is None:
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self._head = (message["status"], headers)
            self._wants_trailers = bool(message.get("trailers", False))
        elif kind == "http.response.body" and self._head is not None and self._more:
            await self._send_body(self._head, bytes(message.get("body", b"")), bool(message.get("more_body", False)))
        elif kind == "http.response.trailers" and self._wants_trailers and not self._more:
            self._trailers += [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            if not message.get("more_trailers", False):
                self._wants_trailers = False
                exchange.end(self._trailers)
                self._awake()
        else:
            raise RuntimeError(f"ASGI message {kind!r} is not expected here")

    async def _send_body(self, head: tuple[int, list[tuple[bytes, bytes]]], body: bytes, more: bool) -> None:
        exchange = self._exchange
        if not exchange.connected:
            raise OSError("the client is gone")
        if not exchange.started and not more and not self._wants_trailers:
            self._more = False
            if exchange.request.method == "HEAD":  # its Content-Length may speak of a body that was never made
                exchange.start(*head)
                exchange.end()
            else:
                exchange.respond(*head, body)
            self._awake()
            return
        if not exchange.started:
            exchange.start(*head)
        exchange.write(body)
        if not more:
            self._more = False
            if not self._wants_trailers:
                exchange.end()
                self._awake()
            return
        while exchange.paused:
            await self._woken()


def _report(message: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
