"""The nodes of one database: who they are, which of them live, when one of them is alone, and what only one at a time may do.

A node is a *member* while the lease of its name lives. A member that sees no other takes the lease *alone*: until shortly
before its end nobody else can have written, so that reads need not ask the database. Whoever joins writes its row, which is
allowed all the same, and then waits until the one that was alone has given that lease back. A *turn* is a lease for one piece
of work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from martlet.clock import token_hex
from martlet.errors import Conflict, MartletError, Overloaded, StartFailed, StoreFailed, StoreFull
from martlet.store import keys
from martlet.store.engine import Seen
from martlet.store.transaction import Lease, Reader, Tx, lease_of, lease_row

__all__ = ["ALONE_ROW", "Card", "Members", "Turns", "is_alive", "node_names"]

_ALONE: Final = "martlet.leader"
ALONE_ROW: Final = lease_row(_ALONE)
_DIRECTORY: Final = ("platform", "node")  # (.., name) -> Card
_LEASE_MS: Final = 10_000
_RENEW_SECONDS: Final = 3.0
_SKEW_SECONDS: Final = 3.0  # what clocks may differ by: so long before its lease ends, nobody trusts to be alone any more
_YIELD_SECONDS: Final = 30.0  # for who is alone to notice that somebody comes
_LOOK_AGAIN_SECONDS: Final = 0.05
_FORGOTTEN_MS: Final = 3_600_000  # after its end a node is no longer told of
_ENCODE = msgspec.json.Encoder().encode


class Card(msgspec.Struct, frozen=True):
    """A node as it tells of itself. `name` is its data folder's, for ever; `place` is host and folder."""

    name: str
    place: str
    url: str = ""  # of its api listener
    process: str = ""
    left_at_ms: int = 0


class _Store(Protocol):
    """The store, as far as this needs it."""

    @property
    def ends(self) -> bool: ...

    def transact(self, fn: Callable[[Tx], Any]) -> Awaitable[Any]: ...

    def read(self, fn: Callable[[Reader], Any]) -> Any: ...

    def look(self, fn: Callable[[Reader], Any]) -> Awaitable[Any]: ...

    def watch(self, low: bytes, high: bytes, told: Callable[[list[bytes] | None], None]) -> None: ...

    def now_ms(self) -> int: ...


_CARD = msgspec.json.Decoder(Card).decode


class Members:
    """This node among the others."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self.card = Card("", "")
        self.others: tuple[Card, ...] = ()  # alive
        self.alone_until = 0.0  # on the loop's clock: no other node can have written before
        self.away = False  # another node took us for dead and is alone: we must join again before we write
        self._holder = ""
        self._mine: Lease | None = None
        self._alone: Lease | None = None  # as the database had it when we last looked
        self._stirred = asyncio.Event()
        self._departed: set[str] = set()  # of whom those who care were told
        self._on_departure: list[Callable[[str], None]] = []
        self._on_return: list[Callable[[], None]] = []

    @property
    def lease(self) -> Lease | None:
        """Our membership; its epoch is another one after we were taken for dead."""
        return self._mine

    def on_departure(self, told: Callable[[str], None]) -> None:
        """`told` gets the name of each node that is dead, once; those that died before we came too."""
        self._on_departure.append(told)
        for name in sorted(self._departed):
            told(name)

    def on_return(self, told: Callable[[], None]) -> None:
        """`told` is called when we were taken for dead, so that others may have taken up what was ours."""
        self._on_return.append(told)

    # --- coming and going

    async def join(self, card: Card, lost: Callable[[MartletError], None]) -> asyncio.Task[None]:
        """Become a member. Raises `StartFailed` while another process lives under our name."""
        self.card = msgspec.structs.replace(card, process=token_hex(8))
        self._holder = f"{card.place} {self.card.process}"
        until = self._loop.time() + _LEASE_MS / 1000 + 1
        while not await self._step():
            held = self._store.read(lambda reader: reader.lease(_member(card.name)))
            if self._loop.time() > until:
                raise StartFailed(
                    f"another node runs under this one's name: {held.holder.rpartition(' ')[0] if held else 'unknown'}",
                    remedy="a copied data folder is another node: delete store.id in the copy",
                )
            await asyncio.sleep(0.5)
        await self._others_share()
        self._store.watch(*keys.prefix_range(*_DIRECTORY), lambda changed: self._stirred.set())
        return self._loop.create_task(self._staying(lost))

    async def leave(self) -> None:
        """Give everything back, so that nobody waits for the end of a lease."""
        mine, self.alone_until = self._mine, 0.0

        def go(tx: Tx) -> None:
            alone = tx.lease(_ALONE)
            if alone is not None and alone.holder == self._holder:
                tx.lease_release(alone)
            if mine is not None:
                tx.lease_release(mine)
                card = msgspec.structs.replace(self.card, left_at_ms=tx.now_ms)
                tx.put(keys.encode(*_DIRECTORY, self.card.name), _ENCODE(card))  # the others look

        if mine is not None:
            await self._store.transact(go)

    async def announce(self, url: str) -> None:
        """From now on we answer there."""
        self.card = msgspec.structs.replace(self.card, url=url)
        await self._store.transact(lambda tx: tx.put(keys.encode(*_DIRECTORY, self.card.name), _ENCODE(self.card)))

    async def _others_share(self) -> None:
        """Wait until nobody is alone any more but us."""
        until = self._loop.time() + _YIELD_SECONDS
        while self._shut_out():
            if self._loop.time() > until:
                assert self._alone is not None
                raise StartFailed(
                    f"the node {self._alone.holder.rpartition(' ')[0]} does not share the database",
                    remedy="is it of an older Martlet? Stop it, and start it again as this version",
                )
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            await self._store.look(_nothing)

    async def _staying(self, lost: Callable[[MartletError], None]) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_SECONDS):
                    await self._stirred.wait()
            self._stirred.clear()
            try:
                if not await self._step():
                    raise StoreFailed(f"another process runs under this node's name, {self.card.name}")
                if self.away:
                    await self._others_share()
                    self.away = False
            except MartletError as error:
                if self._store.ends:
                    return
                if not isinstance(error, Overloaded | StoreFull):
                    lost(error)
                    return

    async def _step(self) -> bool:
        """Renew, look who is there, and be alone or not. False: somebody else has our name."""
        started = self._loop.time()
        before = self._mine
        found = await self._store.transact(self.renewal)
        if found is None:
            return False
        self._mine, alone, others, dead = found
        self.others = tuple(others)
        self.alone_until = started + _LEASE_MS / 1000 - _SKEW_SECONDS if alone else 0.0
        self._departed -= {one.name for one in others}
        if before is not None and before.epoch != self._mine.epoch:
            for back in self._on_return:
                back()
        for name in dead:
            if name not in self._departed:
                self._departed.add(name)
                for told in self._on_departure:
                    told(name)
        return True

    def renewal(self, tx: Tx) -> tuple[Lease, bool, list[Card], list[str]] | None:
        """Our lease, whether we are alone, who else lives, who is dead. The one transaction that is allowed while another is
        alone: it touches nothing but rows of this class."""
        name, held = _member(self.card.name), tx.lease(_member(self.card.name))
        fresh = held is None or held.holder != self._holder or held.expires_at_ms <= tx.now_ms
        if held is not None and held.holder.rpartition(" ")[0] == self.card.place and held.holder != self._holder:
            if self._mine is not None:
                return None  # a second process in our folder: it had the folder's lock, so it is the living one
            tx.lease_release(held)  # whoever had it held the folder's lock, which we hold: dead
        mine = tx.lease_take(name, self._holder, _LEASE_MS)
        if mine is None:
            return None
        if fresh:
            tx.put(keys.encode(*_DIRECTORY, self.card.name), _ENCODE(self.card))
        others, dead = self._everybody(tx)
        alone = tx.lease(_ALONE)
        if self._mine is not None and held is not None and held.expires_at_ms <= tx.now_ms:
            return mine, False, others, []  # perhaps the database was away: who is dead is seen when all could have renewed
        if not others:
            return mine, tx.lease_take(_ALONE, self._holder, _LEASE_MS) is not None, others, dead
        if alone is not None and alone.holder == self._holder:
            tx.lease_release(alone)
        return mine, False, others, dead

    def _everybody(self, tx: Tx) -> tuple[list[Card], list[str]]:
        others: list[Card] = []
        dead: list[str] = []
        for key, raw in tx.scan(*keys.prefix_range(*_DIRECTORY)):
            card = _CARD(raw)
            if card.name == self.card.name:
                continue
            lease = tx.lease(_member(card.name))
            ended_at_ms = card.left_at_ms if lease is None else lease.expires_at_ms
            if ended_at_ms > tx.now_ms:
                others.append(card)
                continue
            dead.append(card.name)
            if tx.now_ms - ended_at_ms > _FORGOTTEN_MS:
                tx.delete(key)
        return others, dead

    # --- what the store asks

    def seen(self, seen: Seen) -> None:
        """A snapshot's row of who is alone. Every commit rests on a position that was looked at, so that `refusal` is exact,
        whatever the clocks say."""
        row = seen.rows.get(ALONE_ROW)
        self._alone = None if row is None else lease_of(_ALONE, row)
        if self.alone_until and (self._alone is None or self._alone.holder != self._holder):
            self.alone_until = 0.0

    def _shut_out(self) -> bool:
        held = self._alone
        if held is None or not held.holder or held.holder == self._holder:
            return False
        return held.expires_at_ms > self._store.now_ms()

    def refusal(self, fns: list[Callable[..., object]]) -> MartletError | None:
        """Why this group may not be committed, if it may not."""
        if not self._shut_out() or fns == [self.renewal]:
            return None
        if self._mine is None:
            assert self._alone is not None
            holder = self._alone.holder
            return Conflict(f"the database is led by another node, which alone writes: {holder}", remedy="use that node")
        self.away = True
        self._stirred.set()
        return Overloaded("this node was away for longer than its lease, and joins the others again", retry_after_seconds=1)


class Turns:
    """Work that one node at a time does. Of this node, any number may be inside."""

    def __init__(self, store: _Store, holder: str) -> None:
        self._store = store
        self._holder = holder
        self._held: dict[str, tuple[Lease, int]] = {}  # name -> lease, how many are inside
        self._taking: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def turn(self, name: str, wait_seconds: float | None) -> AsyncIterator[bool]:
        """See `Store.turn`."""
        lock = self._taking.setdefault(name, asyncio.Lock())
        async with lock:
            known = self._held.get(name)
            is_new = known is None
            lease = known[0] if known is not None else await self._take(name, wait_seconds)
            self._held[name] = (lease, (known[1] if known is not None else 0) + 1)
        body = asyncio.current_task()
        assert body is not None
        lost: list[MartletError] = []
        renewing = asyncio.get_running_loop().create_task(self._renew(lease, body, lost))
        try:
            yield is_new
        except asyncio.CancelledError:
            if lost and body.uncancel() == 0:
                raise lost[0] from None
            raise
        finally:
            renewing.cancel()
            await self._leave(name, lock)

    async def _leave(self, name: str, lock: asyncio.Lock) -> None:
        lease, inside = self._held[name]
        if inside > 1:
            self._held[name] = (lease, inside - 1)
            return
        del self._held[name]
        if not lock.locked():
            self._taking.pop(name, None)
        with contextlib.suppress(MartletError):  # it ends by itself
            await self._store.transact(lambda tx: None if name in self._held else tx.lease_release(lease))

    async def _take(self, name: str, wait_seconds: float | None) -> Lease:
        loop = asyncio.get_running_loop()
        until = None if wait_seconds is None else loop.time() + wait_seconds

        def take(tx: Tx) -> Lease | None:
            return tx.lease_take(_turn(name), self._holder, _LEASE_MS)

        while True:
            lease: Lease | None = await self._store.transact(take)
            if lease is not None:
                return lease
            if until is not None and loop.time() >= until:
                held = self._store.read(lambda reader: reader.lease(_turn(name)))
                who = held.holder if held is not None else "another node"
                raise Conflict(f"{name}: node {who} is at it", remedy="try again when it is done")
            await asyncio.sleep(min(1.0, max(until - loop.time(), 0.0)) if until is not None else 1.0)

    async def _renew(self, lease: Lease, body: asyncio.Task[object], lost: list[MartletError]) -> None:
        """Ends the work if another node has taken its turn meanwhile."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                now = await self._store.transact(lambda tx: tx.lease_take(lease.name, self._holder, _LEASE_MS))
            except (Overloaded, StoreFull):
                continue
            except MartletError as error:
                lost.append(error)
                break
            if now is None or now.epoch != lease.epoch:
                lost.append(Overloaded("this node was away, and another one has taken over what it did", retry_after_seconds=1))
                break
        body.cancel()


def _member(name: str) -> str:
    return f"node/{name}"


def _turn(name: str) -> str:
    return f"turn/{name}"


def node_names(reader: Reader) -> set[str]:
    """The nodes of this database that live, or died within the last hour; none where nobody shares it."""
    return {str(keys.decode(key)[2]) for key, _ in reader.scan(*keys.prefix_range(*_DIRECTORY))}


def is_alive(reader: Reader, name: str, now_ms: int) -> bool:
    """Whether the node of this name lives, as far as this transaction can tell."""
    lease = reader.lease(_member(name))
    return lease is not None and lease.expires_at_ms > now_ms


def _nothing(reader: Reader) -> None:
    """A look that asks only how far the database is."""
