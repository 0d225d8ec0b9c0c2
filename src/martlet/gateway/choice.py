"""Which requests a route takes: by headers, and by the client's share. Pure.

A client keeps its place: it is a number from a hash of its key, and a route that takes a share of the clients takes those below
it. So a share that grows takes more clients and gives none back, and all routes of an app draw the same line.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from martlet.gateway.head import Request
from martlet.types import Route

__all__ = ["Choice", "client_key", "place_of"]

_SCALE: Final = 1 << 64
_GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiples of it are spread evenly (Weyl), to a few in any row


def place_of(app: str, key: bytes) -> int:
    """Where a client stands among the clients of an app: 0 to 2^64 - 1, evenly spread."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=_salt(app)).digest())


@functools.lru_cache(maxsize=1_024)
def _salt(app: str) -> bytes:
    return hashlib.blake2b(app.encode(), digest_size=16).digest()


def client_key(request: Request, by: str) -> bytes:
    """What tells the client from others by "address", "header:<name>" or "cookie:<name>"; the address where that is missing."""
    kind, _, name = by.partition(":")
    found: bytes | None = None
    if kind == "header":
        found = request.header(name.lower().encode())
    elif kind == "cookie":
        pairs = (one.strip().partition(b"=") for one in (request.header(b"cookie") or b"").split(b";"))
        found = next((value for given, _, value in pairs if given == name.encode()), None)
    return found or request.client[0].encode()


class Choice:
    """The condition of one route, ready for requests. With `by` "request" each request is a client by itself."""

    __slots__ = ("_app", "_by", "_least", "_turn", "_when")

    def __init__(self, app: str, route: Route) -> None:
        self._app = app
        self._by = route.by
        self._when = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in route.when)
        self._least = min(_SCALE, round(route.share * _SCALE / 100))
        self._turn = 0

    def takes(self, request: Request) -> bool:
        """Whether the route takes this request."""
        for name, wanted in self._when:
            value = request.header(name)
            if value is None or wanted not in (b"*", value):
                return False
        if self._least in (0, _SCALE):
            return self._least > 0
        if self._by == "request":
            self._turn = (self._turn + _GOLDEN) % _SCALE
            return self._turn < self._least
        return place_of(self._app, client_key(request, self._by)) < self._least
