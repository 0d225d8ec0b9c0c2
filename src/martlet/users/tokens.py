"""Access tokens of all pools: made, judged, and the keys behind them kept and rotated.

A token is judged by its signature and by its session, which must not have ended: signing out, a reset of the password and a
disabled account take effect here at once. Somebody else's verifier learns of them when the token expires."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from martlet.clock import Clock, uuid4_text
from martlet.limits import LIMITS
from martlet.store import Reader, Store, Tx
from martlet.users import rows, signing
from martlet.users.caller import Caller
from martlet.users.pools import Pool, Sealer
from martlet.users.rows import Account, SigningKey

__all__ = ["Issuer"]

_KEY_MS: Final = 90 * 86_400_000
_RETIRED_MS: Final = (LIMITS["users_access_seconds"].default + 60) * 1_000  # as long as what it signed may hold
_REMEMBERED: Final = 10_000
_ACCESS: Final = "access"


class Issuer:
    """The signer and judge of the platform's pools."""

    def __init__(self, store: Store, clock: Clock, vault: Sealer) -> None:
        self._store = store
        self._clock = clock
        self._vault = vault
        self._judged: dict[tuple[str, str, bytes], dict[str, Any]] = {}  # tokens whose signature held

    async def ensure_key(self, pool: Pool) -> tuple[str, bytes]:
        """(kid, private key) to sign with: the newest, unless it is too old."""
        found = self._current(pool)
        if found is None or self._clock.now_ms() - found[1].created_at_ms >= _KEY_MS:
            await self.rotate(pool, found[0] if found else "")
            found = self._current(pool)
            assert found is not None
        return found[0], self._vault.unseal(found[1].private, *pool.place, found[0])

    def _current(self, pool: Pool) -> tuple[str, SigningKey] | None:
        known = self._store.read(lambda reader: rows.every(reader, SigningKey, *pool.place))
        signing_ones = [(place[2], key) for place, key in known if not key.retired_at_ms]
        return max(signing_ones, key=lambda one: one[1].created_at_ms, default=None)

    async def rotate(self, pool: Pool, instead_of: str | None = None) -> str:
        """A new key signs from now on; `instead_of`: only if that one is still the current one ("": if there is none)."""
        now = self._clock.now_ms()
        kid, public, private = signing.make_key(now)
        made = SigningKey(public=public, private=self._vault.seal(private, *pool.place, kid), created_at_ms=now)

        def write(tx: Tx) -> str:
            active = [(place[2], key) for place, key in rows.every(tx, SigningKey, *pool.place) if not key.retired_at_ms]
            if instead_of is not None and [one for one, _ in active] != ([instead_of] if instead_of else []):
                return active[0][0] if active else ""
            for old, key in active:
                rows.put(tx, msgspec.structs.replace(key, retired_at_ms=now), *pool.place, old)
            rows.put(tx, made, *pool.place, kid)
            return kid

        return await self._store.transact(write)

    async def expire(self) -> None:
        """Forget keys that signed nothing which could still hold."""

        def write(tx: Tx) -> None:
            for place, key in rows.every(tx, SigningKey):
                if not self._holds(key):
                    rows.delete(tx, SigningKey, *place)

        await self._store.transact(write)
        self._judged.clear()

    def key_set(self, app: str, pool: str) -> dict[str, Any]:
        """Public keys, the newest first (RFC 7517 section 5)."""
        found = [key for _, key in self._store.read(lambda reader: rows.every(reader, SigningKey, app, pool))]
        holding = [key for key in found if self._holds(key)]
        return {"keys": [key.public for key in sorted(holding, key=lambda key: -key.created_at_ms)]}

    def _holds(self, key: SigningKey) -> bool:
        """Whether what it signed may hold: one that was stolen is worth nothing soon after it was replaced."""
        return not key.retired_at_ms or self._clock.now_ms() - key.retired_at_ms < _RETIRED_MS

    async def access_token(self, pool: Pool, account: Account, session: str) -> str:
        kid, private = await self.ensure_key(pool)
        now = self._clock.now_ms() // 1000
        claims = {
            "iss": pool.issuer,
            "sub": account.id,
            "aud": pool.app,
            "client_id": pool.config.name,
            "exp": now + LIMITS["users_access_seconds"].default,
            "iat": now,
            "jti": uuid4_text(),
            "sid": session,
            "token_use": _ACCESS,
            "email": account.email,
            "email_verified": True,
            "groups": list(account.groups),
        }
        return signing.sign(private, kid, claims)

    def judge(self, app: str, pool: str, issuer: str, text: str) -> Caller:
        """Who a token speaks for. Raises `Unauthenticated`."""
        if len(text) > signing.TOKEN_CHARACTERS:
            raise signing.refuse("it is malformed")
        known = (app, pool, hashlib.sha256(text.encode("utf-8", "replace")).digest())
        claims = self._judged.get(known)
        if claims is None:
            claims = self._verified(app, pool, issuer, text)
            if len(self._judged) >= _REMEMBERED:
                del self._judged[next(iter(self._judged))]
            self._judged[known] = claims
        now = self._clock.now_ms()
        if claims["iss"] != issuer or now // 1000 >= claims["exp"]:
            self._judged.pop(known, None)
            raise signing.refuse("it has expired")
        sub, session = claims["sub"], claims["sid"]
        row = rows.session(self._store, app, pool, sub, session)
        if row is None or row.expires_at_ms <= now:
            raise signing.refuse("its session has ended")
        return Caller(sub=sub, email=claims["email"], groups=tuple(claims["groups"]), session=session, claims=claims)

    def _verified(self, app: str, pool: str, issuer: str, text: str) -> dict[str, Any]:
        kid = signing.unverified_kid(text)

        def find(reader: Reader) -> SigningKey | None:
            return rows.get(reader, SigningKey, app, pool, kid) if len(kid) <= 64 and kid.isalnum() else None

        key = self._store.read(find)
        if key is None or not self._holds(key):
            raise signing.refuse("its key is none of this issuer's")
        claims = signing.verified(text, key)
        if claims.get("iss") != issuer or claims.get("aud") != app or claims.get("client_id") != pool:
            raise signing.refuse("it was made for somebody else")
        if claims.get("token_use") != _ACCESS or not isinstance(claims.get("exp"), int):
            raise signing.refuse("it is no access token")
        if claims["exp"] - self._clock.now_ms() // 1000 > LIMITS["users_access_seconds"].default:
            raise signing.refuse("no access token lives so long")  # so none is remembered for longer than its key holds
        return claims
