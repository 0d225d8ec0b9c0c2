"""Stand-ins for the rooms beside: functions that end as a test says, and a store that dies when a test says."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from martlet.store import Store
from martlet.triggers import Triggers
from martlet.triggers.kinds.schedule import FIRED
from martlet.types import Invocation, Outcome, ScheduleConfig

T = TypeVar("T")

GOOD = Outcome(b"null")
BAD = Outcome(b'{"errorMessage":"no","errorType":"ValueError"}', "Unhandled", "ValueError")


class Functions:
    """`dispatch` that ends each run with the next of `outcomes` (the last one again and again), or never if `held`."""

    def __init__(self, *outcomes: Outcome, held: bool = False) -> None:
        self.outcomes = list(outcomes or (GOOD,))
        self.held = held
        self.runs: list[Invocation] = []

    def __call__(self, invocation: Invocation) -> None:
        self.runs.append(invocation)
        if not self.held:
            self.end(invocation)

    def end(self, invocation: Invocation) -> None:
        outcome = self.outcomes[0] if len(self.outcomes) == 1 else self.outcomes.pop(0)
        invocation.on_done(invocation, outcome)

    @property
    def ids(self) -> list[str]:
        return [run.request_id for run in self.runs]

    def events(self) -> list[Any]:
        return [json.loads(run.payload) for run in self.runs]


async def deploy(store: Store, triggers: Triggers, expression: str, name: str = "tick", app: str = "shop", **more: Any) -> None:
    config = ScheduleConfig(name=name, expression=expression, function="orders", **more)
    await store.transact(lambda tx: triggers.put(tx, app, config, f"{app}-orders"))


def fired(store: Store) -> list[tuple[str, int]]:
    """(name, due_ms) of every firing in the log."""
    bodies = [json.loads(entry.body) for entry in store.tail(0, 100_000) if entry.topic == FIRED]
    return [(body["name"], body["due_ms"]) for body in bodies]
