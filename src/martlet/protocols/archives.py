"""GET /_code/<digest>.zip?Expires&Signature: the archive of a function or layer, where `GetFunction` says that it is.

The signature in the address is the permission, as with the service's own presigned addresses; there are no other credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from martlet.errors import MartletError, ServiceError
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, ASGIApp, Receive, Request, Scope, Send

__all__ = ["PREFIX", "app", "beside"]

PREFIX: Final = "/_code/"


def app(download: Callable[[str, str], bytes]) -> ASGIApp:
    """The endpoint. `download` (path, query) gives the bytes, may block, and raises ServiceError."""

    async def respond(request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            raise ServiceError("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)
        path = request.raw_path.decode("latin-1")
        archive = await asyncio.to_thread(download, path, request.raw_query.decode("latin-1"))
        return Answer(200, archive, (("content-type", "application/zip"), ("cache-control", "no-store")))

    return asgi.app(respond, _error)


def beside(download: Callable[[str, str], bytes], inner: ASGIApp) -> ASGIApp:
    """`inner`, and this endpoint below its own prefix."""
    archives = app(download)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and str(scope["path"]).startswith(PREFIX)
        await (archives if ours else inner)(scope, receive, send)

    return serve


def _error(error: MartletError, request: Request) -> Answer:
    """As S3 says it: the addresses of the service lead there."""
    name = error.name if isinstance(error, ServiceError) else "InternalError"
    text = f"<Error><Code>{name}</Code><Message>{error.message}</Message></Error>"
    return Answer(error.http_status, text.encode(), (("content-type", "application/xml"),))
