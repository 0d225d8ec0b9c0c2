"""End users of apps at the edge: requests to the endpoints where they sign in, and what events say of those who have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from martlet.errors import Unauthenticated
from martlet.gateway.asgi import AsgiApp, AsgiHandler
from martlet.gateway.http import Exchange, Request

__all__ = ["Mounted", "Visitors"]

Identify = Callable[[str, str, str], dict[str, Any]]
"""`identify(app, users, token)` gives the token's claims; raises `Unauthenticated`."""

_TOKEN_MOST: Final = 8_192


class Mounted:
    """The context of a request to the endpoints of `users` of `app`; `path` is what is below them. `headers` go with its
    answer, `count` is told its status, its app and its size; `under_way` holds it
    until then."""

    __slots__ = ("app", "count", "headers", "path", "under_way", "users")

    def __init__(
        self,
        app: str,
        users: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        count: Callable[..., None],
        under_way: set[object],
    ) -> None:
        self.app = app
        self.users = users
        self.path = path
        self.headers = headers
        self.count = count
        self.under_way = under_way


class Visitors:
    """`endpoints` serves what is mounted, with a `Mounted` as the scope's "martlet.context"."""

    def __init__(self, endpoints: AsgiApp, identify: Identify) -> None:
        self._identify = identify

        async def with_headers(scope: Any, receive: Any, send: Any) -> None:
            mounted: Mounted = scope["martlet.context"]
            respond = scope["martlet.respond"]

            def told(status: int, own: list[tuple[bytes, bytes]], body: bytes) -> None:
                mounted.count(status, mounted.app, len(body))
                respond(status, own + mounted.headers, body)

            async def sent(message: Any) -> None:
                if message["type"] == "http.response.start":
                    mounted.count(message["status"], mounted.app)
                    message = {**message, "headers": [*message["headers"], *mounted.headers]}
                await send(message)

            try:
                await endpoints({**scope, "martlet.respond": told}, receive, sent)
            finally:
                mounted.under_way.discard(mounted)

        self._handler = AsgiHandler(with_headers)

    def serve(self, exchange: Exchange, mounted: Mounted) -> None:
        """Serve one exchange."""
        exchange.request.context = mounted
        mounted.under_way.add(mounted)
        self._handler(exchange)

    def claims(self, request: Request, app: str, users: str) -> str:
        """The "authorizer" of the event's requestContext, as JWT authorizers write it. Raises `Unauthenticated`."""
        header = request.header(b"authorization") or b""
        scheme, _, token = header.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip() or len(token) > _TOKEN_MOST:
            raise Unauthenticated("this needs an access token: Authorization: Bearer …", reason="invalid_token")
        claims = {name: _text(value) for name, value in self._identify(app, users, token.strip()).items()}
        return f',"authorizer":{{"jwt":{{"claims":{orjson.dumps(claims).decode()},"scopes":null}}}}'


def _text(value: Any) -> str:
    """A claim as events have it: all are text, lists in brackets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(_text(one) for one in value) + "]"
    return str(value)
