"""A WebSocket as ASGI has it: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket

The application sees "websocket.connect" and says "websocket.accept", or refuses: by "websocket.close" (403), or in its own
words by the extension "websocket.http.response". What is no handshake at all never reaches it. A page of another origin is
refused, as the same endpoints refuse it over HTTP by sending no CORS headers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from martlet.errors import AccessDenied, MartletError
from martlet.gateway.answer import problem
from martlet.gateway.asgi_scope import AsgiApp, Message, common_scope
from martlet.gateway.exchange import Exchange
from martlet.gateway.websocket import Terms, WebSocket, accept, offered, refusal

__all__ = ["SocketRun"]

_WAITING_MESSAGES: Final = 16  # read ahead of the application; then the connection is not read from
_WAITING_BYTES: Final = 1_048_576


class SocketRun:
    """One run of the app for one WebSocket."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._socket: WebSocket | None = None
        self._waiting: deque[tuple[str | bytes, int]] = deque()
        self._bytes = 0
        self._ended: tuple[int, str] | None = None
        self._connect_given = False
        self._answering: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None
        self._wake = asyncio.Event()

    async def run(self, app: AsgiApp) -> None:
        exchange = self._exchange
        host = exchange.request.host.decode("ascii")
        refused = refusal(exchange, origins=(f"http://{host}", f"https://{host}"))
        if refused is not None:
            exchange.respond(*refused)
            return
        exchange.on_disconnect = self._wake.set
        failed = False
        try:
            await app(self._scope(), self._receive, self._send)
        except asyncio.CancelledError:
            exchange.abort()
            if self._socket is not None:
                self._socket.fail(1012, "the server stops")
            raise
        except Exception as error:
            failed = not (isinstance(error, OSError) and self._gone)
            if failed:
                asyncio.get_running_loop().call_exception_handler({"message": "the application failed", "exception": error})
        if self._socket is not None:
            self._socket.close(1011 if failed else 1000, "internal error" if failed else "")
        elif not exchange.started:
            headers, body = problem(MartletError("internal error"))
            exchange.respond(500, headers, body)

    @property
    def _gone(self) -> bool:
        """Nothing can be sent any more."""
        socket = self._socket
        return not self._exchange.connected if socket is None else self._ended is not None or socket.lost

    def _scope(self) -> dict[str, Any]:
        request = self._exchange.request
        return {
            **common_scope(request),
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "scheme": "wss" if request.scheme == "https" else "ws",
            "subprotocols": offered(request),
            "extensions": {"websocket.http.response": {}},
        }

    # from the client

    def _message(self, data: str | bytes) -> None:
        size = len(data)
        self._waiting.append((data, size))
        self._bytes += size
        self._pace()
        self._wake.set()

    def _pace(self) -> None:
        if self._socket is not None:
            self._socket.hold(len(self._waiting) >= _WAITING_MESSAGES or self._bytes >= _WAITING_BYTES)

    def _closed(self, code: int, reason: str) -> None:
        self._ended = (code, reason)
        self._wake.set()

    async def _receive(self) -> Message:
        if not self._connect_given:
            self._connect_given = True
            return {"type": "websocket.connect"}
        while not self._waiting and self._ended is None and (self._socket is not None or self._exchange.connected):
            self._wake.clear()
            await self._wake.wait()
        if self._waiting:
            data, size = self._waiting.popleft()
            self._bytes -= size
            self._pace()
            text, raw = (data, None) if isinstance(data, str) else (None, data)
            return {"type": "websocket.receive", "text": text, "bytes": raw}
        code, reason = self._ended or (1006, "")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    # from the app

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        socket = self._socket
        if socket is None:
            self._answer(kind, message)
        elif kind == "websocket.send":
            if self._gone:
                raise OSError("the client is gone")
            text = message.get("text")
            socket.send(text if text is not None else bytes(message["bytes"]))
            while socket.paused and not self._gone:
                self._wake.clear()
                await self._wake.wait()
        elif kind == "websocket.close":
            socket.close(int(message.get("code") or 1000), str(message.get("reason") or ""))
        else:
            raise RuntimeError(f"ASGI message {kind!r} is not expected here")

    def _answer(self, kind: str, message: Message) -> None:
        """The app's word on the handshake."""
        exchange = self._exchange
        if kind == "websocket.accept" and not exchange.started:
            self._accept(message)
        elif kind == "websocket.close" and not exchange.started:
            headers, body = problem(AccessDenied("there is no WebSocket for you here"))
            exchange.respond(403, headers, body)
        elif kind == "websocket.http.response.start" and self._answering is None:
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self._answering = (message["status"], headers, bytearray())
        elif kind == "websocket.http.response.body" and self._answering is not None:
            status, headers, body_so_far = self._answering
            body_so_far += message.get("body", b"")
            if not message.get("more_body", False):
                exchange.respond(status, headers, bytes(body_so_far))
        else:
            raise RuntimeError(f"ASGI message {kind!r} is not expected here")

    def _accept(self, message: Message) -> None:
        if not self._exchange.connected:
            raise OSError("the client is gone")
        socket = WebSocket(Terms())
        socket.on_message = self._message
        socket.on_close = self._closed
        socket.on_drain = self._wake.set
        self._socket = socket
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        accept(self._exchange, socket, subprotocol=message.get("subprotocol") or "", headers=headers)
