"""A room of end users with its store in memory, a clock of its own and a postbox in place of a sender."""

from __future__ import annotations

from typing import Any

import orjson

from martlet.clock import ManualClock
from martlet.secrets import Vault
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.types import UsersConfig
from martlet.users import Pool, Users

KEY = b"k" * 32
ADA, SECRET = "ada@example.com", "correct horse battery"


class Stage:
    """`users` of two apps, shop and blog, with one pool "people" each."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(MemoryEngine(), clock=self.clock)
        self.posted: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.takes = True
        self.users = self.open()

    def open(self) -> Users:
        users = Users(
            self.store, self.clock, Vault(self.store, lambda: [KEY]), send=self.send, say=self.said.append, issuer=_issuer
        )
        users.declare({(app, "people"): UsersConfig(name="people", path="/auth", sender="mail") for app in ("shop", "blog")})
        return users

    async def send(self, app: str, function: str, event: bytes) -> bool:
        self.posted.append({**orjson.loads(event), "function": function})
        return self.takes

    async def close(self) -> None:
        await self.users.stop()
        await self.store.close()

    async def pool(self, app: str = "shop") -> Pool:
        return await self.users.pool(app, "people")

    async def code(self) -> str:
        """The code of the newest message, once all are delivered."""
        await self.users.outbox.deliver()
        return str(self.posted[-1]["code"])

    async def member(self, email: str = ADA, password: str = SECRET, app: str = "shop") -> Any:
        """Tokens of somebody new."""
        pool = await self.pool(app)
        await self.users.sign_up(pool, email, password, "192.0.2.1")
        return await self.users.verify(pool, email, await self.code(), password, "192.0.2.1")

    def who(self, tokens: Any, app: str = "shop") -> Any:
        return self.users.identify(app, "people", tokens.access_token)

    def rows(self) -> bytes:
        """All that lies in the store."""
        return b"\n".join(key + value for key, value in self.store.read(lambda tx: tx.scan(b"\x00", b"\xff" * 8, limit=10_000)))


def _issuer(app: str, config: UsersConfig) -> str:
    return f"https://{app}.example{config.path}"
