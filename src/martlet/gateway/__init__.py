"""The public edge: from bytes on a TCP connection to an event for a function, and the answer back.

Owns: the HTTP/1.1 server (framing, limits, slow and hostile clients), WebSockets, routes, CORS, throttles, the payload formats
1.0 and 2.0 of API Gateway, how an outcome becomes an HTTP answer, and routes that lead to other HTTP servers.
Offers: `HttpServer` (http), `WebSocket` (websocket), `AsgiHandler` (asgi), `RouteTable` (router), `Edge` (edge).
Never: starts or knows sandboxes, stores anything, or decides who may do what; it is handed a `dispatch` and an `access`.

The way of one request: `head` (pure grammar) and `chunked` (pure framing) → `http` (connections) → `edge` → `router`,
`choice`, `cors`, `throttle` → `payload` builds the event → dispatch → `payload` reads the result → `http` writes it in one
write. Nothing on that way is a coroutine. To another server: `throttle` → `proxy` → `apis/backend`, which streams.
"""

from __future__ import annotations

from martlet.gateway.asgi import AsgiHandler
from martlet.gateway.edge import Edge
from martlet.gateway.exchange import Exchange
from martlet.gateway.http import HttpServer, Request
from martlet.gateway.router import RouteTable
from martlet.gateway.websocket import WebSocket

__all__ = ["AsgiHandler", "Edge", "Exchange", "HttpServer", "Request", "RouteTable", "WebSocket"]
