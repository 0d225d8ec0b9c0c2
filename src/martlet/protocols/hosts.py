"""A listener that answers only to names of its own host, so that a web page cannot reach it by rebinding a name of its own."""

from __future__ import annotations

from martlet.auth import check_host
from martlet.errors import MartletError
from martlet.protocols.asgi import ASGIApp, Receive, Scope, Send, problem_answer, send_answer
from martlet.types import Principal

__all__ = ["guarded"]


def guarded(host: str, inner: ASGIApp) -> ASGIApp:
    """`inner` for requests to `host`, and for those from inside a sandbox, which name none."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if not isinstance(scope.get("martlet.context"), Principal):
            named = next((value for name, value in scope["headers"] if name == b"host"), b"")
            try:
                check_host(named.decode("latin-1"), (host,))
            except MartletError as error:
                await send_answer(problem_answer(error), receive, send)
                return
        await inner(scope, receive, send)

    return serve
