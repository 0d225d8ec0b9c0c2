"""Access tokens: JWTs by ES256 (RFC 7519, RFC 9068), under keys of the pool that are kept sealed and rotate.

One algorithm, keys from the pool's own rows by their kid alone; whatever else a header names is refused (RFC 8725)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import orjson

from martlet.clock import token_hex
from martlet.errors import Unauthenticated
from martlet.users.rows import SigningKey

__all__ = ["ALGORITHM", "TOKEN_CHARACTERS", "make_key", "refuse", "sign", "unverified_kid", "verified"]

ALGORITHM: Final = "ES256"
TOKEN_CHARACTERS: Final = 8_192
_TYPES: Final = ("at+jwt", "application/at+jwt")


def refuse(why: str) -> Unauthenticated:
    return Unauthenticated(f"the access token is not taken: {why}", reason="invalid_token")


def make_key(now_ms: int) -> tuple[str, dict[str, Any], bytes]:
    """(kid, public key, private key as JSON) of a new pair."""
    from joserfc.jwk import ECKey

    kid = token_hex(8)
    made = ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": ALGORITHM})
    return kid, dict(made.as_dict(private=False)), orjson.dumps(made.as_dict(private=True))


def sign(private: bytes, kid: str, claims: Mapping[str, Any]) -> str:
    from joserfc import jwt
    from joserfc.jwk import ECKey

    header = {"alg": ALGORITHM, "kid": kid, "typ": "at+jwt"}
    return str(jwt.encode(header, dict(claims), ECKey.import_key(orjson.loads(private)), algorithms=[ALGORITHM]))


def unverified_kid(text: str) -> str:
    """The kid of a token whose header is one that this pool writes. Raises `Unauthenticated`."""
    if len(text) > TOKEN_CHARACTERS or text.count(".") != 2 or not text.isascii():
        raise refuse("it is malformed")
    part = text.partition(".")[0]
    try:
        header = orjson.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise refuse("it is malformed") from None
    if not isinstance(header, dict) or set(header) != {"alg", "kid", "typ"}:
        raise refuse("its header is none of this issuer's")
    if header["alg"] != ALGORITHM or header["typ"] not in _TYPES or not isinstance(header["kid"], str):
        raise refuse("its header is none of this issuer's")
    return header["kid"]


def verified(text: str, key: SigningKey) -> dict[str, Any]:
    """The claims, if the signature holds. Raises `Unauthenticated`."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey

    try:
        claims: Any = jwt.decode(text, ECKey.import_key(key.public), algorithms=[ALGORITHM]).claims
    except (JoseError, ValueError, TypeError, RecursionError):
        raise refuse("its signature does not hold") from None
    if not isinstance(claims, dict):
        raise refuse("it is malformed")
    return claims
