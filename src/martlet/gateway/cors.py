"""Cross-origin resource sharing (WHATWG Fetch, section 3.2): the answer to a preflight, and what is added to an answer."""

from __future__ import annotations

from martlet.errors import InvalidInput
from martlet.gateway.answer import Headers
from martlet.types import Cors

__all__ = ["CorsPolicy"]

_CORS_FIELD = b"access-control-"


class CorsPolicy:
    """A compiled `Cors`. Origins are exact ("https://example.com"), "*", or with one leading "*" label
    ("https://*.example.com"). `route_method` is allowed where `cors.methods` is empty.

    Raises `InvalidInput` for a malformed origin, and for "*" with credentials: browsers refuse that combination.
    """

    def __init__(self, cors: Cors, route_method: str) -> None:
        for origin in cors.origins:
            _check_origin(origin)
        for text in (*cors.methods, *cors.headers, *cors.expose):
            if not text.isascii() or not text.isprintable() or "," in text or " " in text:
                raise InvalidInput(f"cors: {text!r} is not a method or header name", field="cors")
        if cors.credentials and "*" in cors.origins:
            raise InvalidInput("cors: credentials need named origins, not *", field="cors")
        self._any_origin = "*" in cors.origins
        self._exact = frozenset(origin.lower().encode() for origin in cors.origins if "*" not in origin)
        self._wild = tuple(
            (prefix.lower().encode(), suffix.lower().encode())
            for prefix, _, suffix in (origin.partition("*") for origin in cors.origins if "*" in origin and origin != "*")
        )
        self._credentials = cors.credentials
        methods = cors.methods or ((route_method,) if route_method != "ANY" else ("*",))
        self._any_method = "*" in methods
        self._methods = frozenset(method.upper().encode() for method in methods)
        self._any_header = "*" in cors.headers
        self._headers = frozenset(header.lower().encode() for header in cors.headers)
        self._expose = ", ".join(cors.expose).encode()
        self._max_age = b"%d" % cors.max_age_seconds if cors.max_age_seconds else b""

    def allows(self, origin: bytes) -> bool:
        if self._any_origin:
            return True
        origin = origin.lower()
        if origin in self._exact:
            return True
        return any(
            len(origin) > len(prefix) + len(suffix) and origin.startswith(prefix) and origin.endswith(suffix)
            for prefix, suffix in self._wild
        )

    def headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """What an answer to a request with this Origin gets."""
        vary: list[tuple[bytes, bytes]] = [] if self._any_origin else [(b"vary", b"Origin")]
        if origin is None or not self.allows(origin):
            return vary
        found = [(b"access-control-allow-origin", b"*" if self._any_origin else origin), *vary]
        if self._credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        if self._expose:
            found.append((b"access-control-expose-headers", self._expose))
        return found

    def preflight(self, origin: bytes, method: bytes, wanted: bytes | None) -> list[tuple[bytes, bytes]]:
        """Headers of the 204 that answers a preflight; without grants where the origin or the method is not allowed."""
        found: list[tuple[bytes, bytes]] = [(b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")]
        if not self.allows(origin) or not (self._any_method or method in self._methods):
            return found
        found.append((b"access-control-allow-origin", b"*" if self._any_origin else origin))
        found.append((b"access-control-allow-methods", method if self._any_method else b", ".join(sorted(self._methods))))
        asked = [name.strip().lower() for name in (wanted or b"").split(b",") if name.strip()]
        granted = [name for name in asked if self._any_header or name in self._headers]
        if granted:
            found.append((b"access-control-allow-headers", b", ".join(granted)))
        if self._credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        if self._max_age:
            found.append((b"access-control-max-age", self._max_age))
        return found

    @staticmethod
    def without_own(headers: Headers) -> list[tuple[bytes, bytes]]:
        """A function's headers without its CORS fields: where a policy is declared, the policy speaks."""
        return [header for header in headers if not header[0].lower().startswith(_CORS_FIELD)]


def _check_origin(origin: str) -> None:
    if origin == "*":
        return
    scheme, separator, host = origin.partition("://")
    wild_ok = host == "*" or "*" not in host or (host.startswith("*.") and host.count("*") == 1)
    plain = origin.isascii() and origin.isprintable() and not set(origin) & set(" ,;/") - {"/"}
    if not separator or not scheme.isalnum() or not host or "/" in host or not wild_ok or not plain:
        raise InvalidInput(f"cors: {origin!r} is not an origin like https://example.com", field="cors")
