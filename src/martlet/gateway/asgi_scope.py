"""What ASGI's two kinds of scope have in common: https://asgi.readthedocs.io/en/latest/specs/www.html"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from martlet.gateway.head import Request

__all__ = ["AsgiApp", "Message", "common_scope"]

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def common_scope(request: Request) -> dict[str, Any]:
    """The request's own members of a scope."""
    return {
        "http_version": request.version,
        "scheme": request.scheme,
        "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers],
        "client": request.client,
        "server": _server_of(request.host),
        "martlet.context": request.context,
    }


@lru_cache(maxsize=256)
def _server_of(authority: bytes) -> tuple[str, int | None]:
    host, _, port = authority.rpartition(b":")
    return (host.decode("ascii"), int(port)) if host and port.isdigit() else (authority.decode("ascii"), None)
