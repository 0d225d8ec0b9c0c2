"""CORS of HTTP APIs and function URLs, which say all that is configured where `gateway.cors` says what was asked for."""

from __future__ import annotations

from martlet.errors import InvalidInput
from martlet.gateway.answer import Headers
from martlet.gateway.cors import CorsPolicy
from martlet.types import Cors

__all__ = ["ApiCors"]


class ApiCors:
    """A compiled `Cors`. Raises `InvalidInput` for malformed origins, and for "*" with credentials."""

    def __init__(self, cors: Cors) -> None:
        for origin in cors.origins:
            if origin in ("http://*", "https://*"):
                continue
            CorsPolicy(Cors(origins=(origin,)), "GET")
        if cors.credentials and "*" in cors.origins:
            raise InvalidInput("cors: credentials need named origins, not *", field="cors")
        for text in (*cors.methods, *cors.headers, *cors.expose):
            if not text.isascii() or not text.isprintable() or "," in text or " " in text:
                raise InvalidInput(f"cors: {text!r} is not a method or header name", field="cors")
        self._any = "*" in cors.origins
        self._origins = frozenset(origin.lower() for origin in cors.origins)
        self._prefixes = tuple(origin[:-1] for origin in self._origins if origin in ("http://*", "https://*"))
        self._wild = tuple(origin.partition("*")[::2] for origin in self._origins if "://*." in origin)
        self._credentials = cors.credentials
        self._methods = ",".join(cors.methods).encode()
        self._headers = ",".join(cors.headers).encode()
        self._expose = ",".join(cors.expose).encode()
        self._max_age = b"%d" % cors.max_age_seconds if cors.max_age_seconds else b""

    def _allowed(self, origin: str) -> bool:
        low = origin.lower()
        return (
            self._any
            or low in self._origins
            or low.startswith(self._prefixes)
            or any(low.startswith(before) and low.endswith(after) for before, after in self._wild)
        )

    def headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """What an answer to a request with this Origin gets."""
        if origin is None or not self._allowed(origin.decode("latin-1")):
            return []
        found = [(b"access-control-allow-origin", b"*" if self._any else origin)]
        if not self._any:
            found.append((b"vary", b"Origin"))
        if self._credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        if self._expose:
            found.append((b"access-control-expose-headers", self._expose))
        return found

    def preflight(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """Headers of the 204 that answers a preflight; none where the origin is not allowed."""
        found = [header for header in self.headers(origin) if header[0] != b"access-control-expose-headers"]
        if not found:
            return []
        for name, value in (
            (b"access-control-allow-methods", self._methods),
            (b"access-control-allow-headers", self._headers),
            (b"access-control-max-age", self._max_age),
        ):
            if value:
                found.append((name, value))
        return found

    @staticmethod
    def merge(headers: Headers, own: Headers) -> list[tuple[bytes, bytes]]:
        """A function's answer under this policy: its own CORS fields give way (HTTP APIs and URLs alike)."""
        return [*CorsPolicy.without_own(headers), *own]
