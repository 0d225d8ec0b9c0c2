"""The store on every engine behaves like a dictionary and a list, whatever the order of steps (model-based)."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.postgres_server import Schemas

from martlet.clock import ManualClock
from martlet.errors import Conflict
from martlet.store import Engine, Store, Tx, counter_value
from martlet.store.engines.memory import Disk, MemoryEngine
from martlet.store.engines.sqlite import open_engine

EXAMPLES = int(os.environ.get("MARTLET_TEST_EXAMPLES", "60"))  # nightly: 2000
KEYS = st.sampled_from([b"a", b"a\x00", b"b", b"bb", b"c", b"\xfe"])
VALUES = st.binary(max_size=5)
# One step of a transaction: (name of the operation, key, value)
STEPS = st.tuples(st.sampled_from(["put", "delete", "append", "increment", "cas", "scan", "fail"]), KEYS, VALUES)
TRANSACTIONS = st.lists(STEPS, min_size=1, max_size=5)


class Model:
    """What the store should hold."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.log: list[tuple[str, bytes, bytes]] = []
        self.cursor = 0
        self.counts: dict[bytes, int] = {}

    def run(self, steps: list[tuple[str, bytes, bytes]]) -> list[object] | None:
        """What the transaction returns; None when it fails, and then nothing changes."""
        if any(name == "fail" for name, _, _ in steps):
            return None
        seen: list[object] = []
        for name, key, value in steps:
            if name == "put":
                self.rows[key] = value
            elif name == "delete":
                self.rows.pop(key, None)
            elif name == "append":
                self.log.append(("t", key, value))
            elif name == "increment":
                self.counts[key] = self.counts.get(key, 0) + len(value)
                seen.append(self.counts[key])
            elif name == "cas":
                fits = self.rows.get(key) == value
                if fits:
                    self.rows[key] = value + b"!"
                seen.append(fits)
            else:
                seen.append(self.scan(key, b"\xff", 3, bool(value)))
        return seen

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        return sorted(((k, v) for k, v in self.rows.items() if low <= k < high), reverse=reverse)[:limit]


def perform(tx: Tx, steps: list[tuple[str, bytes, bytes]]) -> list[object]:
    seen: list[object] = []
    for name, key, value in steps:
        if name == "put":
            tx.put(key, value)
        elif name == "delete":
            tx.delete(key)
        elif name == "append":
            tx.append("t", key, value)
        elif name == "increment":
            seen.append(tx.increment(b"\x02" + key, len(value)))
        elif name == "cas":
            seen.append(tx.compare_and_set(key, value, value + b"!"))
        elif name == "scan":
            seen.append(tx.scan(max(key, b"\x03"), b"\xff", 3, bool(value)))
        else:
            raise Conflict("fails on purpose")
    return seen


class Machine(RuleBasedStateMachine):
    """Drives a store and the model with the same steps."""

    factory: Callable[[Path, Disk], Engine]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.disk = Disk()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.clock = ManualClock()

    @initialize()
    def open(self) -> None:
        self.store = self.runner.run(self.opened())
        self.consume(0)  # from now on the cursor keeps the log

    async def opened(self) -> Store:
        return Store(type(self).factory(self.folder / "data", self.disk), clock=self.clock)

    @rule(transactions=st.lists(TRANSACTIONS, min_size=1, max_size=6))
    def transact(self, transactions: list[list[tuple[str, bytes, bytes]]]) -> None:
        """All at once: they take effect in the order in which they were started."""

        async def together() -> list[Any]:
            work = (self.store.transact(lambda tx, steps=steps: perform(tx, steps)) for steps in transactions)
            return await asyncio.gather(*work, return_exceptions=True)

        found = self.runner.run(together())
        wanted = [self.model.run(steps) for steps in transactions]
        assert [None if isinstance(end, Conflict) else end for end in found] == wanted

    @rule(step=st.integers(0, 5))
    def consumes(self, step: int) -> None:
        self.consume(step)

    def consume(self, step: int) -> None:
        start, end = self.model.cursor, min(self.model.cursor + step, len(self.model.log))
        self.runner.run(self.store.transact(lambda tx: tx.cursor_move("c", start, end)))
        self.model.cursor = end

    @rule()
    def maintain(self) -> None:
        self.clock.advance(1)
        assert self.runner.run(self.store.maintain(keep_log_ms=0, verify=True)).problems == ()

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self.open()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        model, store = self.model, self.store
        assert store.read(lambda reader: reader.scan(b"\x03", b"\xff")) == model.scan(b"\x03", b"\xff", 1000, False)
        counts = store.read(lambda reader: reader.scan(b"\x02", b"\x03"))
        assert {key[1:]: counter_value(value) for key, value in counts} == model.counts
        assert store.head == len(model.log)
        assert store.read(lambda reader: reader.cursor("c")) == model.cursor
        found = store.tail(store.first - 1, 1000)
        assert [entry.seq for entry in found] == list(range(store.first, store.head + 1))
        assert [(entry.topic, entry.key, entry.body) for entry in found] == model.log[store.first - 1 :]
        assert store.first <= model.cursor + 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)


class MemoryMachine(Machine):
    factory = staticmethod(lambda folder, disk: MemoryEngine(disk))


class SqliteMachine(Machine):
    factory = staticmethod(lambda folder, disk: open_engine(folder))


class PostgresMachine(Machine):
    """Each life on a schema of its own."""

    schemas: Schemas

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).schemas()

    async def opened(self) -> Store:
        return await Store.open(self.url, clock=self.clock, engine="martlet.store.engines.postgres:open_engine")


@pytest.mark.parametrize("machine", [MemoryMachine, SqliteMachine, PostgresMachine])
def test_the_store_is_its_model(machine: type[Machine], schemas: Schemas) -> None:
    examples = EXAMPLES
    if machine is PostgresMachine:
        PostgresMachine.schemas = schemas
        examples = max(1, EXAMPLES // 10)
    settled = settings(
        max_examples=examples, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    run_state_machine_as_test(machine, settings=settled)
