"""Messages to the app's sender: written with the fact that asks for them, delivered after it, at least once, until they expire.

A request for an address without an account writes a message as well, which nobody gets: so both cost the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import orjson

from martlet.clock import Clock, token_hex
from martlet.errors import MartletError
from martlet.store import Store, Tx, keys
from martlet.users import rows
from martlet.users.pools import Pool, Sealer
from martlet.users.rows import Outgoing

__all__ = ["Outbox", "Send"]

Send = Callable[[str, str, bytes], Awaitable[bool]]
"""`await send(app, function, event)`: whether the function took the event."""

_AT_ONCE: Final = 8
_PAUSE_MOST_MS: Final = 60_000
_LIFE_MS: Final = 900_000
_CLAIM_MS: Final = 60_000


class Outbox:
    """`sender(app, pool)` names the function; "": there is none, and `say` gets the message in words."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        vault: Sealer,
        send: Send,
        sender: Callable[[str, str], str],
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._vault = vault
        self._send = send
        self._sender = sender
        self._say = say
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """What is not sent is sent after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def prepare(self, pool: Pool, message: dict[str, Any]) -> Callable[[Tx, bool], None]:
        """What writes the message within a transaction; with False, one that nobody gets. Call `wake` after the commit."""
        id, now = token_hex(16), self._clock.now_ms()
        place = (*pool.place, id)
        wanted = self._vault.seal(orjson.dumps({**message, "app": pool.app, "users": pool.config.name}), *place)
        decoy = self._vault.seal(b"", *place)

        def write(tx: Tx, is_wanted: bool) -> None:
            sealed = wanted if is_wanted else decoy
            rows.put(tx, Outgoing(sealed=sealed, due_at_ms=now, expires_at_ms=now + _LIFE_MS), *place)

        return write

    def wake(self) -> None:
        self._wake.set()

    async def _run(self) -> None:
        await self._clear_unreadable()
        while True:
            self._wake.clear()
            try:
                pause = await self.deliver()
            except MartletError as error:  # the store cannot be written now
                self._say(f"messages to end users wait: {error.message}")
                pause = _PAUSE_MOST_MS
            try:
                async with asyncio.timeout(None if pause is None else pause / 1000):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _clear_unreadable(self) -> None:
        if self._store.read(lambda reader: reader.scan(*keys.prefix_range("users.outbox"), limit=1)):
            await self._vault.open()

    async def deliver(self) -> int | None:
        """Send what is due. Milliseconds until the next is; None if nothing waits."""
        found = self._store.read(lambda reader: rows.every(reader, Outgoing))
        now = self._clock.now_ms()
        due = [one for one in found if one[1].due_at_ms <= now]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(place: tuple[str, ...], row: Outgoing) -> None:
            async with gate:
                await self._one(place, row)

        await asyncio.gather(*(one(place, row) for place, row in due))
        if len(found) == rows.PAGE:
            return 0
        left = self._store.read(lambda reader: rows.every(reader, Outgoing))
        return max(0, min(row.due_at_ms for _, row in left) - self._clock.now_ms()) if left else None

    async def _one(self, place: tuple[str, ...], row: Outgoing) -> None:
        message = self._vault.unseal(row.sealed, *place)
        app, pool, _ = place
        sender = self._sender(app, pool)
        now = self._clock.now_ms()
        if not await self._store.transact(lambda tx: _claim(tx, place, row, now)):
            return  # another node has it
        done = not message or await self._delivered(app, pool, sender, message)
        if not done and now >= row.expires_at_ms:
            self._say(
                f"{app}: a message of users {pool} was given up: {sender} did not take it in {_LIFE_MS // 60_000} minutes"
            )
            done = True

        def write(tx: Tx) -> None:
            if done:
                rows.delete(tx, Outgoing, *place)
                return
            pause = min(_PAUSE_MOST_MS, 1_000 * 2 ** min(row.tries, 6))
            again = Outgoing(sealed=row.sealed, due_at_ms=now + pause, expires_at_ms=row.expires_at_ms, tries=row.tries + 1)
            rows.put(tx, again, *place)

        await self._store.transact(write)

    async def _delivered(self, app: str, pool: str, sender: str, message: bytes) -> bool:
        if sender:
            try:
                return await self._send(app, sender, message)
            except MartletError:
                return False
        said = orjson.loads(message)
        code = f": {said['code']}" if said.get("code") else ""
        self._say(
            f"{app}: users {pool} has no sender, so this is only written here, for development: "
            f"{said['kind']} for {said['email']}{code}"
        )
        return True


def _claim(tx: Tx, place: tuple[str, ...], row: Outgoing, now: int) -> bool:
    """Whether this node delivers it; if it dies, others may after a while."""
    if rows.get(tx, Outgoing, *place) != row:
        return False
    rows.put(tx, msgspec.structs.replace(row, due_at_ms=now + _CLAIM_MS), *place)
    return True
