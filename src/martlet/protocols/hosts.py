"""A listener that answers only to names of its own host, so that a web page cannot reach it by rebinding a name of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack

from martlet.auth import check_host
from martlet.errors import MartletError
from martlet.protocols.asgi import ASGIApp, Receive, Scope, Send, denying, problem_answer, send_answer
from martlet.store import Store
from martlet.types import Principal

__all__ = ["guarded"]


def guarded(host: str, store: Store, inner: ASGIApp) -> ASGIApp:
    """`inner` for requests to `host`, and for those from inside a sandbox, which name none; each with its own fresh view of a
    shared store."""

    async def refuse(error: MartletError, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(problem_answer(error), receive, denying(send) if scope["type"] == "websocket" else send)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if not isinstance(scope.get("martlet.context"), Principal):
            named = next((value for name, value in scope["headers"] if name == b"host"), b"")
            try:
                check_host(named.decode("latin-1"), (host,))
            except MartletError as error:
                await refuse(error, scope, receive, send)
                return
        if not store.shared:
            await inner(scope, receive, send)
            return
        async with AsyncExitStack() as request:
            try:
                await request.enter_async_context(store.fresh())  # one question to the database, not one a read
            except MartletError as error:
                await refuse(error, scope, receive, send)
                return
            await inner(scope, receive, send)

    return serve
