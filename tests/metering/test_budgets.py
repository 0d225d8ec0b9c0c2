"""Budgets stop what they say, when they say, and let it go on in the next period."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from martlet.clock import ManualClock
from martlet.errors import InvalidInput, NotFound, Throttled
from martlet.metering import Budget, Budgets, Metering
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.types import Invocation, Outcome

NOON_MS = 1_793_491_200_000 + 12 * 3_600_000  # the first of a month


class Ground:
    def __init__(self) -> None:
        self.clock = ManualClock(NOON_MS)
        self.store = Store(MemoryEngine(), clock=self.clock)
        self.metering = Metering(self.store, self.clock, "list")
        self.metering.app_of = lambda function: function.partition("-")[0]
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.budgets = self.open()

    def open(self) -> Budgets:
        async def tell(function: str, event: bytes) -> None:
            self.told.append((function, json.loads(event)))

        return Budgets(self.store, self.clock, self.metering, tell)

    def run(self, count: int, function: str = "shop-f", duration_ms: int = 1_000) -> None:
        for _ in range(count):
            invocation = Invocation(function, b"", "", lambda *_: None)
            invocation.version, invocation.started_at_ms = 1, self.clock.now_ms()
            invocation.duration_us, invocation.memory_mb = duration_ms * 1_000, 1_024
            self.metering.functions.record(invocation, Outcome())


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    made = Ground()
    yield made
    await made.metering.stop()
    await made.store.close()


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ({"invocations": 3}, "invocations is 3"),
        ({"gb_seconds": Decimal(3)}, "gb_seconds is 3"),
        ({"money": Decimal("0.00005")}, "money is 0.00005"),
    ],
)
async def test_what_is_used_up_stops_the_app_by_name(ground: Ground, limit: dict[str, Any], kind: str) -> None:
    await ground.budgets.put(Budget(app="shop", period="day", **limit))
    ground.run(2)
    ground.run(50, "blog-g")
    await ground.budgets.look()
    assert not ground.budgets.closed
    ground.run(1)
    await ground.budgets.look()
    refusal = ground.budgets.closed["shop"]
    assert isinstance(refusal, Throttled)
    assert f"app shop: budget {kind} per day" in refusal.message
    assert refusal.retry_after_seconds == 12 * 3600
    ground.clock.advance(12 * 3600)
    await ground.budgets.look()
    assert not ground.budgets.closed, "a new day"
    (spent,) = await ground.budgets.list()
    assert set(spent.used.values()) == {Decimal(0)}


async def test_requests_of_the_gateway(ground: Ground) -> None:
    await ground.budgets.put(Budget(app="shop", requests=10))
    ground.metering.answered("shop", 9, 0)
    await ground.budgets.look()
    assert not ground.budgets.closed
    ground.metering.answered("@shop-f", 1, 0)
    await ground.budgets.look()
    assert "requests is 10 per month, and 10 is used" in ground.budgets.closed["shop"].message


async def test_earlier_hours_of_the_period_count(ground: Ground) -> None:
    await ground.budgets.put(Budget(app="shop", period="day", invocations=10))
    for _ in range(4):
        ground.run(2)
        await ground.budgets.look()
        ground.clock.advance(3_600)
    ground.run(2)
    assert (await ground.budgets.list())[0].used["invocations"] == 10
    assert "shop" in ground.budgets.closed
    again = ground.open()
    await again.start()
    assert "shop" in again.closed, "also after a restart"
    await again.stop()


async def test_a_larger_budget_and_none_let_it_go_on(ground: Ground) -> None:
    await ground.budgets.put(Budget(app="shop", invocations=1))
    ground.run(1)
    await ground.budgets.look()
    assert ground.budgets.closed
    await ground.budgets.put(Budget(app="shop", invocations=2))
    assert not ground.budgets.closed
    ground.run(1)
    await ground.budgets.look()
    assert ground.budgets.closed
    await ground.budgets.delete("shop")
    assert not ground.budgets.closed
    with pytest.raises(NotFound, match="shop"):
        await ground.budgets.delete("shop")


async def test_who_wants_to_hear_of_it_hears_once(ground: Ground) -> None:
    await ground.budgets.put(Budget(app="shop", period="hour", invocations=10, alerts=(50, 100), tell="shop-alarm"))
    ground.run(4)
    await ground.budgets.look()
    assert ground.told == []
    for count in (1, 1, 4, 1):
        ground.run(count)
        await ground.budgets.look()
    assert [(function, event["percent"], bool(event["stopped"])) for function, event in ground.told] == [
        ("shop-alarm", 50, False),
        ("shop-alarm", 100, True),
    ]
    assert ground.told[1][1]["used"] == {"invocations": "10"}
    ground.clock.advance(3_600)
    ground.run(10)
    await ground.budgets.look()
    assert [event["percent"] for _, event in ground.told] == [50, 100, 100], "the next hour anew"


async def test_nothing_may_be_used(ground: Ground) -> None:
    await ground.budgets.put(Budget(app="shop", invocations=0))
    assert "shop" in ground.budgets.closed


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"invocations": -1},
        {"money": Decimal("-1")},
        {"money": Decimal("NaN")},
        {"invocations": 1, "alerts": (0,)},
        {"invocations": 1, "alerts": (101,)},
        {"invocations": 1, "alerts": (1,) * 11},
        {"invocations": 1, "app": ""},
    ],
)
async def test_budgets_that_are_none(ground: Ground, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await ground.budgets.put(Budget(**{"app": "shop", **wrong}))
