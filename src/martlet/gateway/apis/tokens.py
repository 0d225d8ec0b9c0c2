"""JWT authorizers of HTTP APIs: the issuer's keys, found by OIDC discovery and kept for a while, and what a token must say.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
https://openid.net/specs/openid-connect-discovery-1_0.html ; RFC 7517, RFC 7519, RFC 8725. Only asymmetric algorithms are
taken, so that a public key is never a secret to sign with, and keys come from the issuer alone, whatever a token's
header names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from martlet.clock import Clock
from martlet.errors import MartletError
from martlet.gateway.apis.backend import Backend
from martlet.gateway.apis.flight import ApiFlight
from martlet.types import ApiAuthorizer

__all__ = ["OwnKeys", "Refused", "Tokens", "no_own_keys"]

_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
_KINDS: Final = frozenset(("RSA", "EC"))
_KEPT_NS: Final = 3_600 * 1_000_000_000  # keys of an issuer; the service's are kept up to two hours
_AGAIN_NS: Final = 30 * 1_000_000_000  # an unknown kid asks the issuer again, but not more often than this
_SKEW_SECONDS: Final = 60
_SECONDS: Final = 5.0
_KEYS_MAX: Final = 64
_TOKEN_MAX: Final = 16_384
_ISSUERS_MAX: Final = 1_000


OwnKeys = Callable[[str], dict[str, Any] | None]


def no_own_keys(issuer: str) -> dict[str, Any] | None:
    return None


class Refused(Exception):
    """A token is not taken; the reason goes into WWW-Authenticate (RFC 6750 section 3)."""


class _Issuer:
    """The keys of one issuer by their kid. `asked_ns` is when it was asked last, `good_ns` when it answered."""

    __slots__ = ("asked_ns", "asking", "good_ns", "keys")

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.good_ns: int | None = None
        self.asked_ns: int | None = None
        self.asking: asyncio.Task[None] | None = None


class Tokens:
    """Judges bearer tokens. The library is imported with the first one. `own_keys(issuer)` gives the keys of an issuer of this
    platform, which is not asked over the network; None for another one."""

    def __init__(self, backend: Backend, clock: Clock, own_keys: OwnKeys = no_own_keys) -> None:
        self._own_keys = own_keys
        self._backend = backend
        self._clock = clock
        self._issuers: dict[str, _Issuer] = {}

    async def judge(self, flight: ApiFlight, authorizer: ApiAuthorizer, text: str) -> None:
        """Let the flight go on with the token's claims, or answer it with 401 or 403."""
        wanted = flight.plan.route.scopes
        try:
            claims = await self.claims(authorizer, text)
        except Refused as error:
            challenge = f'Bearer scope="{" ".join(wanted)}" error="invalid_token" error_description="{error}"'
            flight.challenge("UNAUTHORIZED", challenge)
            return
        scopes = _scopes(claims)
        if wanted and not set(wanted) & set(scopes):
            challenge = f'Bearer scope="{" ".join(wanted)}" error="insufficient_scope" error_description="insufficient scope"'
            flight.challenge("FORBIDDEN", challenge)
            return
        told = {"claims": {name: _text(value) for name, value in claims.items()}, "scopes": scopes if wanted else None}
        old = flight.plan.route.integration.payload_format == "1.0"
        flight.authorized(told if old else {"jwt": told})

    async def claims(self, authorizer: ApiAuthorizer, text: str) -> dict[str, Any]:
        """What a token says, if it holds for this authorizer now. Raises `Refused`."""
        if len(text) > _TOKEN_MAX or text.count(".") != 2:
            raise Refused("the token is malformed")
        header = _header(text)
        if header.get("alg") not in _ALGORITHMS:
            raise Refused("signing method is not supported")
        if "crit" in header:
            raise Refused("critical header parameters are not supported")
        kid = header.get("kid", "")
        if not isinstance(kid, str):
            raise Refused("the token is malformed")
        key = await self._key(authorizer.issuer, kid)
        claims = _verified(text, key, str(header["alg"]))
        self._check(authorizer, claims)
        return claims

    def _check(self, authorizer: ApiAuthorizer, claims: Mapping[str, Any]) -> None:
        now = self._clock.now_ms() / 1000
        if claims.get("iss") != authorizer.issuer:
            raise Refused("invalid issuer")
        audience = claims["aud"] if "aud" in claims else claims.get("client_id")
        found = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(one, str) and one in authorizer.audience for one in found):
            raise Refused("invalid audience")
        expires = _seconds(claims, "exp")
        if expires is None or now >= expires + _SKEW_SECONDS:
            raise Refused("the token has expired")
        for name in ("nbf", "iat"):
            at = _seconds(claims, name)
            if at is not None and now < at - _SKEW_SECONDS:
                raise Refused("the token is not valid yet")

    # keys

    async def _key(self, issuer: str, kid: str) -> Any:
        known = self._issuers.get(issuer)
        if known is None:
            if len(self._issuers) >= _ISSUERS_MAX:
                self._issuers.clear()
            known = self._issuers[issuer] = _Issuer()
        now_ns = self._clock.monotonic_ns()
        stale = known.good_ns is None or now_ns - known.good_ns >= _KEPT_NS
        own = self._own_keys(issuer) if stale or _chosen(known.keys, kid) is None else None
        if own is not None:
            known.keys, known.good_ns = _imported(own["keys"]), now_ns
        elif stale or _chosen(known.keys, kid) is None:
            if known.asking is None and (known.asked_ns is None or now_ns - known.asked_ns >= _AGAIN_NS):
                known.asked_ns = now_ns
                known.asking = asyncio.get_running_loop().create_task(self._refresh(issuer, known))
            if known.asking is not None:
                await asyncio.shield(known.asking)
        if known.good_ns is None:
            raise Refused("OIDC discovery endpoint communication error")
        key = _chosen(known.keys, kid)
        if key is None:
            raise Refused("kid does not match any key of the issuer")
        return key

    async def _refresh(self, issuer: str, known: _Issuer) -> None:
        """Ask the issuer for its keys; what it said before stays when it does not answer."""
        try:
            found = await self._document(issuer.rstrip("/") + "/.well-known/openid-configuration")
            if found.get("issuer") != issuer or not isinstance(found.get("jwks_uri"), str):
                return
            keys = (await self._document(found["jwks_uri"])).get("keys")
            if isinstance(keys, list):
                known.keys = _imported(keys)
                known.good_ns = self._clock.monotonic_ns()
        except (MartletError, TimeoutError, ValueError):
            return
        finally:
            known.asking = None

    async def _document(self, url: str) -> dict[str, Any]:
        answer = await self._backend.ask("GET", url, [("Accept", "application/json")], b"", _SECONDS)
        found = orjson.loads(answer.body) if answer.status == 200 else None
        if not isinstance(found, dict):
            raise ValueError(f"{url} is no document of an issuer")
        return found


def _imported(keys: list[Any]) -> dict[str, Any]:
    """Public signing keys by their kid. Symmetric keys are not among them, nor those for encryption."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    found: dict[str, Any] = {}
    for one in keys[:_KEYS_MAX]:
        if not isinstance(one, dict) or one.get("kty") not in _KINDS or one.get("use", "sig") != "sig":
            continue
        try:
            found[str(one.get("kid", ""))] = import_key(one)
        except (JoseError, ValueError, TypeError, KeyError):
            continue  # one key that is none does not take the others away
    return found


def _chosen(keys: Mapping[str, Any], kid: str) -> Any:
    """The key of a token; a token without a kid means the only one."""
    return keys.get(kid) if kid else next(iter(keys.values())) if len(keys) == 1 else None


def _header(text: str) -> dict[str, Any]:
    import base64
    import binascii

    part = text.partition(".")[0]
    try:
        found = orjson.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise Refused("the token is malformed") from None
    if not isinstance(found, dict):
        raise Refused("the token is malformed")
    return found


def _verified(text: str, key: Any, algorithm: str) -> dict[str, Any]:
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        claims: Any = jwt.decode(text, key, algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError, RecursionError):
        raise Refused("the signature does not hold") from None
    if not isinstance(claims, dict):
        raise Refused("the token is malformed")
    return claims


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"{name} is not a number")
    return value


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    value = claims["scope"] if "scope" in claims else claims.get("scp", "")
    return [str(one) for one in value] if isinstance(value, list) else str(value).split()


def _text(value: Any) -> str:
    """A claim as functions see it: all are text, lists in brackets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(_text(one) for one in value) + "]"
    return orjson.dumps(value).decode() if isinstance(value, (dict, type(None))) else str(value)
