"""API Gateway at the edge: REST, HTTP and WebSocket APIs, and function URLs, as the real service answers them.

Owns: which API, stage and route a request means; throttles; authorizers; validation; mapping templates and parameters;
integrations (functions, mock, HTTP); the gateway's own answers.
Offers: `ApiEdge` (front), `ManagementApi` (connections), `check` (is a configuration servable?), which the deployment asks
before it acknowledges one.
Never: is on the way of a request to a decorator app, or stores anything. All state is made anew from `ApiConfig`s.

The way of one request: `front` (host, path → API, stage) → `table` (route) → `flight` (throttle, authorizer, validation) →
`integration`, `backend` (what is called) → `answers` (what is said). `call` is the request as templates and events see it.
WebSocket APIs: `sockets` (before the handshake, and each message) → `selection` (route); `connections` keeps the open ones.
"""

from __future__ import annotations

from martlet.gateway.apis.connections import ManagementApi
from martlet.gateway.apis.front import ApiEdge
from martlet.gateway.apis.table import check

__all__ = ["ApiEdge", "ManagementApi", "check"]
