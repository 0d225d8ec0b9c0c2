"""The session keys of instances: each has its own, and nothing is written for them.

An instance acts by the role of its function. Its calls over its private loopback need no signature: the platform knows whose
connection it is. The keys in its environment are for code that asks who it is, or signs by itself: they are valid at the api
listener for half a day. All is in the token, which the platform's own secret vouches for, so a start costs no transaction.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from typing import Any, Final

import msgspec

from martlet.auth import roles, sigv4
from martlet.clock import Clock
from martlet.store import Store, Tx, keys

__all__ = ["InstanceKeys", "session_of"]

_SECRET: Final = "auth.instances"  # -> what vouches for tokens
_SECONDS: Final = 12 * 3_600
_MARK: Final = "martlet1."
_ROLE_NAME = re.compile(r"arn:aws:iam::[0-9]{12}:role/(?:[!-~]*/)?(?P<name>[A-Za-z0-9_+=,.@-]{1,64})")


class _Claim(msgspec.Struct, frozen=True):
    function: str  # as it is called: "f", "f:3"
    until: int  # seconds since the epoch


class InstanceKeys:
    """Makes keys and tells whose they are. Call `load` first."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._secret = b""

    async def load(self) -> None:
        def ensure(tx: Tx) -> bytes:
            found = tx.get(keys.encode(_SECRET))
            if found is None:
                found = os.urandom(32)
                tx.put(keys.encode(_SECRET), found)
            return found

        self._secret = await self._store.transact(ensure)

    def make(self, function: str) -> tuple[str, str, str]:
        """(access key id, secret, session token), new ones each time, always of the same lengths for one function."""
        key_id = "ASIA" + roles.random_id(16)
        claim = msgspec.json.encode(_Claim(function, self._clock.now_ms() // 1000 + _SECONDS))
        body = base64.urlsafe_b64encode(claim).decode()
        token = f"{_MARK}{body}.{self._digest(b'token', key_id, body)}"
        return key_id, self._digest(b"secret", key_id, body), token

    def secret_of(self, key_id: str, token: str) -> tuple[str, str] | None:
        """(secret, function) of a key of ours; None if it is none. Raises `Unauthenticated` for one that is over."""
        if not token.startswith(_MARK) or not self._secret:
            return None
        body, _, digest = token.removeprefix(_MARK).partition(".")
        if not hmac.compare_digest(self._digest(b"token", key_id, body).encode(), digest.encode("utf-8", "surrogateescape")):
            raise sigv4.refused("InvalidToken", "The security token included in the request is invalid.")
        claim = msgspec.json.decode(base64.urlsafe_b64decode(body), type=_Claim)
        if self._clock.now_ms() // 1000 >= claim.until:
            raise sigv4.refused("ExpiredToken", "The security token included in the request is expired")
        return self._digest(b"secret", key_id, body), claim.function

    def _digest(self, purpose: bytes, key_id: str, body: str) -> str:
        """40 characters."""
        text = b"\0".join((purpose, key_id.encode("utf-8", "surrogateescape"), body.encode("utf-8", "surrogateescape")))
        return base64.b64encode(hmac.new(self._secret, text, hashlib.sha256).digest()[:30]).decode()


def session_of(version: Any) -> str:
    """As whom a function with a role is known: "assumed-role/<role>/<session>"; "" for one without."""
    found = _ROLE_NAME.fullmatch(version.role)
    if found is None:
        return ""
    # recorded: the session's name has two letters at least
    session = version.name if len(version.name) > 1 else f"{version.name}@lambda_function"
    return f"assumed-role/{found['name']}/{session}"
