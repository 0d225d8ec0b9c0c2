"""A pool that is open: its declaration, its secret, its keys; and what is computed from them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final, Protocol

from martlet.types import UsersConfig

__all__ = ["Pool", "Sealer"]

_TAG_BYTES: Final = 32
REFRESH_CHARACTERS: Final = 256


class Sealer(Protocol):
    """Encrypts what must not lie open, bound to its place; the secrets room's `Vault`."""

    async def open(self) -> None: ...
    def seal(self, value: bytes, *place: str) -> bytes: ...
    def unseal(self, sealed: bytes, *place: str) -> bytes: ...


class Pool:
    """`secret` keys every digest of the pool; the store alone cannot try codes against what it holds."""

    __slots__ = ("app", "config", "issuer", "secret")

    def __init__(self, app: str, config: UsersConfig, issuer: str, secret: bytes) -> None:
        self.app = app
        self.config = config
        self.issuer = issuer
        self.secret = secret

    @property
    def place(self) -> tuple[str, str]:
        return self.app, self.config.name

    def digest(self, *parts: str) -> bytes:
        """A keyed digest of parts, each bound to its length."""
        mac = hmac.new(self.secret, digestmod=hashlib.sha256)
        for part in parts:
            raw = part.encode("utf-8", "surrogatepass")
            mac.update(len(raw).to_bytes(4, "big") + raw)
        return mac.digest()

    def refresh_token(self, account: str, session: str, generation: int) -> str:
        """The refresh token of one generation of a session. Nothing of it is stored: its tag vouches for it."""
        said = f"{account}.{session}.{generation}"
        return f"{said}.{base64.urlsafe_b64encode(self.digest('refresh', said)).decode().rstrip('=')}"

    def read_refresh(self, text: str) -> tuple[str, str, int] | None:
        """(account, session, generation) of a refresh token that this pool made; None for another text."""
        said, _, tag = text.rpartition(".")
        parts = said.split(".")
        if len(text) > REFRESH_CHARACTERS or len(parts) != 3 or not text.isascii():
            return None
        try:
            given = base64.urlsafe_b64decode(tag + "=" * (-len(tag) % 4))
        except (binascii.Error, ValueError):
            return None
        if len(given) != _TAG_BYTES or not hmac.compare_digest(given, self.digest("refresh", said)):
            return None
        return parts[0], parts[1], int(parts[2])
