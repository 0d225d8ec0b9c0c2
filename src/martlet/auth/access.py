"""The access log: which principal asked for what, and how often it might and might not. From it a policy is suggested."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import msgspec

from martlet.auth.acts import Act
from martlet.clock import Clock
from martlet.errors import MartletError
from martlet.limits import LIMITS
from martlet.store import Store, Tx, keys
from martlet.types import Principal

__all__ = ["Access", "Accesses", "key_of"]

_ROW: Final = "auth.access"  # (.., principal, action, resource) -> Access
_FLUSH_SECONDS: Final = 1.0
_PAGE: Final = 1_000
_ALL: Final = 100_000  # more than one principal can have, see `_bounded`
_WHATEVER: Final = "*"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How often a principal was allowed to do `action` on `resource`, and how often it was not."""

    action: str
    resource: str
    allowed: int = 0
    denied: int = 0
    last_ms: int = 0


class _Key(NamedTuple):
    principal: str
    action: str
    resource: str


_ENCODE: Final = msgspec.json.Encoder()
_DECODE: Final = msgspec.json.Decoder(Access)


def key_of(principal: Principal) -> str:
    """The name under which accesses are kept: "function shop-place", "role deployer", "user ada", "root"."""
    if principal.kind == "role":
        parts = principal.name.split("/")
        return f"role {parts[1] if len(parts) > 1 else principal.name}"
    if principal.kind == "root":
        return "root"
    return f"{principal.kind} {principal.name}".rstrip()


def _general(resource: str) -> str:
    """The resource as a policy would name it: objects by their bucket, rows of one thing by the thing."""
    if resource.startswith("arn:aws:s3:::") and "/" in resource:
        return resource.partition("/")[0] + "/*"
    return resource


class Accesses:
    """Counts in memory, added to rows of the store every second while there is something to add. Lives on the event loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._new: dict[_Key, list[int]] = {}  # allowed, denied
        self._kinds: dict[str, int] = {}  # of accesses by principal, since the start
        self._known: set[_Key] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, acts: list[Act], *, denied: bool) -> None:
        """Count what one request asked for; `denied`: its last act might not be."""
        asked = [act for at, act in enumerate(acts) if not at or acts[at - 1][1:] != act[1:]]
        last = len(asked) - 1
        for position, (principal, action, resource) in enumerate(asked):
            key = _Key(key_of(principal), action, _general(resource))
            counts = self._new.get(key)
            if counts is None:
                counts = self._new.setdefault(self._bounded(key), [0, 0])
            counts[1 if denied and position == last else 0] += 1
        if acts and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._due)

    def _bounded(self, key: _Key) -> _Key:
        """The key itself, or for a principal that asks for ever new things, all resources in one."""
        if key not in self._known:
            count = self._kinds[key.principal] = self._kinds.get(key.principal, 0) + 1
            if count > LIMITS["access_log_entries"].default:
                return _Key(key.principal, key.action, _WHATEVER)
            self._known.add(key)
        return key

    def _due(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except MartletError:
            if self._timer is None:  # the store says what is wrong with it wherever it is asked
                self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._due)

    async def flush(self) -> None:
        """Write what was counted so far. Raises the store's error; nothing is lost then."""
        new, self._new = self._new, {}
        if not new:
            return
        now = self._clock.now_ms()
        try:
            await self._store.transact(lambda tx: _add(tx, new, now))
        except BaseException:
            for key, counts in new.items():
                kept = self._new.setdefault(key, [0, 0])
                kept[0] += counts[0]
                kept[1] += counts[1]
            raise

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.flush()

    async def of(self, principal: str) -> list[Access]:
        """What this principal (see `key_of`) asked for so far, by action and resource."""
        await self.flush()
        low, high = keys.prefix_range(_ROW, principal)
        return [_DECODE.decode(value) for _, value in self._store.read(lambda reader: reader.scan(low, high, _ALL))]

    async def principals(self) -> list[str]:
        """Who asked for anything."""
        await self.flush()
        found: list[str] = []
        low, high = keys.prefix_range(_ROW)
        while rows := self._store.read(lambda reader, low=low: reader.scan(low, high, 1)):  # type: ignore[misc]
            found.append(str(keys.decode(rows[0][0])[1]))
            low = keys.prefix_range(_ROW, found[-1])[1]
        return found

    async def forget(self, principal: str) -> None:
        """Begin anew for this principal, e.g. before a test run."""
        await self.flush()
        low, high = keys.prefix_range(_ROW, principal)

        def drop(tx: Tx) -> bool:
            rows = tx.scan(low, high, _PAGE)
            for key, _ in rows:
                tx.delete(key)
            return len(rows) == _PAGE

        while await self._store.transact(drop):
            pass
        self._kinds.pop(principal, None)
        self._known = {key for key in self._known if key.principal != principal}


def _add(tx: Tx, new: dict[_Key, list[int]], now_ms: int) -> None:
    for key, (allowed, denied) in new.items():
        row = keys.encode(_ROW, *key)
        raw = tx.get(row)
        known = Access(action=key.action, resource=key.resource) if raw is None else _DECODE.decode(raw)
        known = msgspec.structs.replace(
            known, allowed=known.allowed + allowed, denied=known.denied + denied, last_ms=max(now_ms, known.last_ms)
        )
        tx.put(row, _ENCODE.encode(known))
