"""Budgets: what an app may use in an hour, a day or a month. A used-up one stops the app's functions
until the period ends.

Looked at twice a second, on what the ledgers hold: so an app is stopped within about a second, by an error that names the
budget.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final, Literal

import msgspec

from martlet.clock import Clock
from martlet.errors import InvalidInput, MartletError, NotFound, Throttled
from martlet.metering.bill import month_of
from martlet.metering.metering import Metering
from martlet.metering.sums import HOUR_MS
from martlet.store import Store, keys

__all__ = ["Budget", "Budgets", "Spent"]

_LOG: Final = logging.getLogger("martlet.metering")
_ROWS: Final = "metering.budget"  # (.., app) -> Budget
_LOOK_SECONDS: Final = 0.5
_MOST: Final = 10_000
_KINDS: Final = ("invocations", "requests", "gb_seconds", "money")


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one app in each `period` (UTC); None: no limit of this kind. `requests` are the gateway's; `money` is by the
    platform's price book. `tell`: a function that hears when a share of `alerts` (percent) is used, once in a period."""

    app: str
    period: Literal["hour", "day", "month"] = "month"
    invocations: int | None = None
    requests: int | None = None
    gb_seconds: Decimal | None = None
    money: Decimal | None = None
    alerts: tuple[int, ...] = (80, 100)
    tell: str = ""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What an app used of its budget in the present period."""

    budget: Budget
    since_ms: int
    until_ms: int
    used: dict[str, Decimal]
    stopped: str = ""  # why its functions do not run; "" if they do


_ENCODE: Final = msgspec.json.Encoder()
_DECODE: Final = msgspec.json.Decoder(Budget)


class _Sums:
    """What the whole hours of a period came to, so that only the present one is read again."""

    __slots__ = ("hour", "since_ms", "told", "used")

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        self.hour = 0  # the first hour that is not in `used`
        self.used: dict[str, Decimal] = dict.fromkeys(_KINDS, Decimal(0))
        self.told: set[int] = set()


class Budgets:
    """Lives on the event loop. `closed` has the refusal of each app that has used up a budget."""

    def __init__(self, store: Store, clock: Clock, metering: Metering, tell: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._store = store
        self._clock = clock
        self._metering = metering
        self._tell = tell
        self._budgets: dict[str, Budget] = {}
        self._sums: dict[str, _Sums] = {}
        self._looking: asyncio.Task[None] | None = None
        self.closed: dict[str, MartletError] = {}

    async def start(self) -> None:
        low, high = keys.prefix_range(_ROWS)
        for _, raw in self._store.read(lambda reader: reader.scan(low, high, _MOST)):
            budget = _DECODE.decode(raw)
            self._budgets[budget.app] = budget
        await self.look()
        self._looking = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def put(self, budget: Budget) -> None:
        """Set an app's budget; durable when this returns, and looked at. Raises `InvalidInput`."""
        _check(budget)
        await self._store.transact(lambda tx: tx.put(keys.encode(_ROWS, budget.app), _ENCODE.encode(budget)))
        self._budgets[budget.app] = budget
        self._sums.pop(budget.app, None)
        await self.look()

    async def delete(self, app: str) -> None:
        """Raises `NotFound`."""
        if app not in self._budgets:
            raise NotFound(f"app {app} has no budget")
        await self._store.transact(lambda tx: tx.delete(keys.encode(_ROWS, app)))
        del self._budgets[app]
        self._sums.pop(app, None)
        self.closed.pop(app, None)

    async def list(self) -> list[Spent]:
        """Every budget and what is used of it, by app."""
        await self.look()
        return [self._spent(budget) for _, budget in sorted(self._budgets.items())]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._budgets:
                try:
                    await self.look()
                except MartletError as error:  # the store says what is wrong with it wherever it is asked
                    _LOG.warning("budgets are not looked at: %s", error.message)

    async def look(self) -> None:
        """Bring `closed` up to date, and tell of what was reached."""
        if not self._budgets:
            return
        await self._metering.functions.flush()
        await self._metering.requests.flush()
        now = self._clock.now_ms()
        for app, budget in list(self._budgets.items()):
            self._add_up(budget, now)
            spent = self._spent(budget)
            if spent.stopped:
                seconds = max(1, (spent.until_ms - now) // 1000)
                self.closed[app] = Throttled(spent.stopped, reason="BudgetExceeded", retry_after_seconds=seconds)
            else:
                self.closed.pop(app, None)
            await self._alert(spent)

    def _add_up(self, budget: Budget, now_ms: int) -> None:
        since, _ = _period(budget.period, now_ms)
        sums = self._sums.get(budget.app)
        if sums is None or sums.since_ms != since:
            sums = self._sums[budget.app] = _Sums(since)
            sums.hour = since // HOUR_MS
        present = now_ms // HOUR_MS
        if sums.hour < present:
            for kind, amount in self._used(budget, sums.hour * HOUR_MS, present * HOUR_MS).items():
                sums.used[kind] += amount
            sums.hour = present

    def _used(self, budget: Budget, since_ms: int, until_ms: int) -> dict[str, Decimal]:
        """What the ledgers say of whole hours."""
        app_of, metering = self._metering.app_of, self._metering
        rows = [row for row in metering.functions.usage(None, since_ms, until_ms) if app_of(row.function) == budget.app]
        asked = [row for row in metering.requests.usage(since_ms, until_ms) if row.app == budget.app]
        used = {
            "invocations": Decimal(sum(row.invocations for row in rows)),
            "requests": Decimal(sum(row.requests for row in asked if row.meter == "gateway")),
            "gb_seconds": sum((Decimal(int(row.gb_ms * 1024)) for row in rows), Decimal(0)) / 1024 / 1000,
            "money": Decimal(0),
        }
        if budget.money is not None:
            used["money"] = metering.cost(budget.app, since_ms, until_ms)
        return used

    def _spent(self, budget: Budget) -> Spent:
        now = self._clock.now_ms()
        since, until = _period(budget.period, now)
        sums = self._sums.get(budget.app) or _Sums(since)
        present = self._used(budget, sums.hour * HOUR_MS, (now // HOUR_MS + 1) * HOUR_MS) if sums.hour else {}
        used = {kind: sums.used[kind] + present.get(kind, Decimal(0)) for kind in _KINDS}
        stopped = ""
        for kind in _KINDS:
            limit = getattr(budget, kind)
            if limit is not None and used[kind] >= limit:
                stopped = f"app {budget.app}: budget {kind} is {limit} per {budget.period}, and {used[kind]:f} is used"
                break
        return Spent(budget=budget, since_ms=since, until_ms=until, used=used, stopped=stopped)

    async def _alert(self, spent: Spent) -> None:
        """Tell of the highest share that was reached, once in a period of this process."""
        budget, sums = spent.budget, self._sums[spent.budget.app]
        limits = {kind: getattr(budget, kind) for kind in _KINDS if getattr(budget, kind) is not None}
        shares = {kind: 100 * spent.used[kind] / limit if limit else Decimal(100) for kind, limit in limits.items()}
        reached = [one for one in budget.alerts if any(share >= one for share in shares.values()) and one not in sums.told]
        if not reached or not budget.tell:
            return
        sums.told.update(reached)
        event = {"app": budget.app, "period": budget.period, "percent": max(reached), "stopped": spent.stopped}
        event |= {"used": {kind: str(amount) for kind, amount in spent.used.items() if kind in limits}}
        try:
            await self._tell(budget.tell, msgspec.json.encode(event))
        except MartletError as error:
            _LOG.warning("budget of %s: %s does not hear of it: %s", budget.app, budget.tell, error.message)


def _check(budget: Budget) -> None:
    limits = [getattr(budget, kind) for kind in _KINDS]
    if all(limit is None for limit in limits):
        raise InvalidInput(f"a budget has at least one of {', '.join(_KINDS)}", field="invocations")
    for kind, limit in zip(_KINDS, limits, strict=True):
        if limit is not None and (not Decimal(limit).is_finite() or limit < 0):
            raise InvalidInput(f"{kind} must be 0 or more, got {limit}", field=kind)
    if any(not 1 <= one <= 100 for one in budget.alerts) or len(budget.alerts) > 10:
        raise InvalidInput("alerts are up to ten numbers from 1 to 100", field="alerts")
    if not budget.app or len(budget.app) > 128:
        raise InvalidInput("app is the name of an app", field="app")


def _period(name: str, now_ms: int) -> tuple[int, int]:
    """The present period: its first ms and the first after it."""
    if name == "month":
        _, since, until = month_of("", now_ms)
        return since, until
    length = HOUR_MS if name == "hour" else 24 * HOUR_MS
    since = now_ms // length * length
    return since, since + length
