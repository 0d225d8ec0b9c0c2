"""The engine against a plain model: every step, every read, now and in the past, and the index rows themselves.

`MARTLET_TEST_EXAMPLES` is the number of examples (nightly: 2000)."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.documents.consistency import problems

from martlet.clock import ManualClock
from martlet.documents import Bound, CollectionConfig, Document, Documents, IndexConfig, Query, Term
from martlet.errors import Conflict, InvalidInput
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.store.engines.sqlite import open_engine

PHASES = (Phase.generate, Phase.shrink) if os.environ.get("MARTLET_TEST_SHRINK", "1") == "1" else (Phase.generate,)
EXAMPLES = int(os.environ.get("MARTLET_TEST_EXAMPLES", "40"))
IDS = st.sampled_from(["a", "b", "b/1", "b\x80", "c", "ü", "z"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([-(2**63), 2**63 - 1, 0.5, -0.5, 1.0, 1e300, Decimal("1.50"), Decimal("0.5"), Decimal("-1e-20")]),
    st.text("ab\x01\x00ü", max_size=3),
    st.binary(max_size=2),
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "n": SCALARS,
        "s": st.sampled_from(["x", "y", "xy", ""]),
        "u": st.one_of(st.none(), st.integers(0, 4)),
        "tags": st.lists(st.sampled_from(["r", "g", "b", 1]), max_size=3),
    },
)
INDEXES = {
    "by_n": IndexConfig((Term("n"),)),
    "by_n_down": IndexConfig((Term("n", descending=True), Term("s")), values=("s", "n")),
    "by_s_n": IndexConfig((Term("s"), Term("n", descending=True)), sparse=True),
    "by_u": IndexConfig((Term("u"),), unique=True),
    "by_tag": IndexConfig((Term("tags[]"),), sparse=True),
}


def rank(value: Any) -> tuple[Any, ...]:
    """The order of terms, said in another way than the code's."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | Decimal):
        return (2, Decimal(value))
    if isinstance(value, float):
        return (2, Decimal(repr(value)))
    return (3, value) if isinstance(value, str) else (4, value)


class Model(RuleBasedStateMachine):
    """`past`: (stamp, {id: value}) after each transaction."""

    engine = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.clock = ManualClock()
        self.docs: dict[str, Any] = {}
        self.versions: dict[str, int] = {}
        self.expires: dict[str, int] = {}
        self.past: list[tuple[int, dict[str, Any]]] = []
        self.declared: set[str] = set()

        async def begin() -> tuple[Store, Documents]:
            engine = MemoryEngine() if self.engine == "memory" else open_engine(Path(self.folder.name) / "s")
            store = Store(engine, clock=self.clock)
            return store, Documents(store, self.clock)

        self.store, self.room = self.run(begin())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        try:
            found = self.store.read(lambda reader: problems(reader))
            assert not found
        finally:
            self.run(self.store.close())
            self.loop.close()
            self.folder.cleanup()

    @initialize(
        history=st.sampled_from([0, 86_400, 86_400]),
        early=st.sets(st.sampled_from(sorted(INDEXES))),
        documents=st.lists(st.tuples(IDS, VALUES), max_size=10),
    )
    def define(self, history: int, early: set[str], documents: list[tuple[str, Any]]) -> None:
        self.history = history
        self.redeclare(early)
        for id, value in documents:
            self.put(id, value, None)

    @rule(names=st.sets(st.sampled_from(sorted(INDEXES))))
    def redeclare(self, names: set[str]) -> None:
        config = CollectionConfig(indexes={name: INDEXES[name] for name in names}, history_seconds=self.history)
        self.run(self.room.define_collection("d", "c", config))
        self.clean_up()
        if names - self.declared:
            self.past.clear()  # an index knows only what came after it was declared
        if "by_u" in names and "by_u" not in self.declared:
            held = [value["u"] for value in self.docs.values() if value.get("u") is not None]
            status = self.room.collection("d", "c")
            assert status is not None
            ready = {index.name for index in status.indexes if index.status == "ready"}
            assert ("by_u" in ready) == (len(set(held)) == len(held))
            names = ready
        self.declared = names

    # writes

    def live(self) -> dict[str, Any]:
        now = self.clock.now_ms()
        return {id: value for id, value in self.docs.items() if self.expires.get(id, now + 1) > now}

    def taken(self, id: str, value: Any) -> bool:
        if "by_u" not in self.declared or value.get("u") is None:
            return False
        return any(other != id and found.get("u") == value["u"] for other, found in self.live().items())

    def wrote(self) -> None:
        self.past.append((self.room.now_stamp(), dict(self.live())))

    @rule(id=IDS, value=VALUES, ttl=st.sampled_from([None, None, None, 1, 5]))
    def put(self, id: str, value: Any, ttl: int | None) -> None:
        expires = None if ttl is None else self.clock.now_ms() + ttl * 1000
        call = self.room.put("d", "c", id, value, expires_at_ms=expires)
        if self.taken(id, value):
            with pytest.raises(Conflict):
                self.run(call)
            return
        written = self.run(call)
        self.versions[id] = self.versions.get(id, 0) + 1
        assert written.version == self.versions[id]
        self.docs[id] = value
        self.expires.pop(id, None)
        if expires is not None:
            self.expires[id] = expires
        self.wrote()

    @rule(ids=st.lists(IDS, min_size=3, unique=True), value=VALUES)
    def fill(self, ids: list[str], value: Any) -> None:
        """Many documents at once, so that there are pages."""
        self.many_of([(id, {**value, "u": None}, False) for id in ids], False)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        assert self.run(self.room.delete("d", "c", id)) == (id in self.live())
        if self.docs.pop(id, None) is not None:
            self.expires.pop(id, None)
            self.wrote()

    @rule(moves=st.lists(st.tuples(IDS, VALUES, st.booleans()), min_size=1, max_size=4), fail=st.booleans())
    def many(self, moves: list[tuple[str, Any, bool]], fail: bool) -> None:
        self.many_of(moves, fail)

    def many_of(self, moves: list[tuple[str, Any, bool]], fail: bool) -> None:
        before = dict(self.docs), dict(self.versions), dict(self.expires)

        def fn(tx: Any) -> None:
            for id, value, gone in moves:
                if gone:
                    tx.delete("c", id)
                else:
                    tx.put("c", id, value)
            if fail:
                raise ZeroDivisionError

        refused = False
        for id, value, gone in moves:
            if gone:
                self.docs.pop(id, None)
                self.expires.pop(id, None)
            elif self.taken(id, value):
                refused = True
                break
            else:
                self.docs[id] = value
                self.expires.pop(id, None)
                self.versions[id] = self.versions.get(id, 0) + 1
        if refused or fail:
            self.docs, self.versions, self.expires = before
            with pytest.raises((Conflict, ZeroDivisionError)):
                self.run(self.room.transact("d", fn))
            return
        self.run(self.room.transact("d", fn))
        self.wrote()

    @rule(seconds=st.sampled_from([0.001, 1, 10]), clean=st.booleans())
    def pass_time(self, seconds: float, clean: bool) -> None:
        self.clock.advance(seconds)
        if clean:
            self.clean_up()

    def clean_up(self) -> None:
        self.run(self.room.housekeeping.run_due())
        self.docs = self.live()
        self.expires = {id: at for id, at in self.expires.items() if id in self.docs}

    # reads

    def check_query(self, query: Query, wanted: list[str]) -> None:
        found: list[Document] = []
        cursor = ""
        while True:
            page = self.run(self.room.query("d", Query(**{**to_dict(query), "cursor": cursor})))
            found += page.documents
            assert len(page.documents) <= query.limit
            if page.cursor is None:
                break
            cursor = page.cursor
        assert [item.id for item in found] == wanted

    @rule(
        name=st.sampled_from(["", *sorted(INDEXES)]),
        reverse=st.booleans(),
        limit=st.integers(1, 3),
        when=st.integers(0, 5),
        bound=st.one_of(st.none(), st.none(), SCALARS),
        side=st.sampled_from(["low", "high"]),
        inclusive=st.booleans(),
        write=st.one_of(st.none(), st.tuples(IDS, VALUES)),
    )
    def query(
        self,
        name: str,
        reverse: bool,
        limit: int,
        when: int,
        bound: Any,
        side: str,
        inclusive: bool,
        write: tuple[str, Any] | None,
    ) -> None:
        if write is not None:  # not left to another rule alone: Hypothesis leaves rules out at times
            self.put(*write, None)
        name = name if name in self.declared else ""
        docs, as_of = self.live(), None
        if self.history and when < len(self.past):
            as_of, docs = self.past[when]
        config = INDEXES.get(name)
        asked: dict[str, Any] = {}
        if config and bound is not None and name != "by_s_n":
            asked = {side: Bound(bound, inclusive)}
        hits: list[tuple[Any, ...]] = []
        for id, value in docs.items():
            groups = entries_of(config, value) if config else [()]
            for terms in groups:
                if asked and not within(terms[0], bound, side, inclusive):
                    continue
                hits.append((*(Down(rank(term)) if down else rank(term) for term, down in terms_of(config, terms)), id))
        hits.sort(reverse=reverse)
        query = Query(collection="c", index=name, reverse=reverse, limit=limit, as_of=as_of, **asked)
        self.check_query(query, [hit[-1] for hit in hits])

    @rule(id=IDS, when=st.integers(0, 10))
    def look_back(self, id: str, when: int) -> None:
        if self.history and when < len(self.past):
            stamp, docs = self.past[when]
            found = self.room.get("d", "c", id, as_of=stamp)
            assert (None if found is None else found.value()) == docs.get(id)

    @invariant()
    def agrees(self) -> None:
        live = self.live()
        for id in ("a", "b", "ü"):
            found = self.room.get("d", "c", id)
            assert (None if found is None else found.value()) == live.get(id)
        status = self.room.collection("d", "c")
        assert status is None or len(live) <= status.documents <= len(self.docs)  # those past their time may be there still


class Down:
    """Sorts the other way round."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: Down) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Down) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


def entries_of(config: IndexConfig, value: Any) -> list[tuple[Any, ...]]:
    if config.terms[0].path == "tags[]":
        return [(tag,) for tag in {rank(tag): tag for tag in value.get("tags", [])}.values()]
    terms = tuple(value.get(term.path) for term in config.terms)
    return [] if config.sparse and None in terms else [terms]


def terms_of(config: IndexConfig | None, terms: tuple[Any, ...]) -> list[tuple[Any, bool]]:
    return [] if config is None else list(zip(terms, (term.descending for term in config.terms), strict=True))


def within(term: Any, bound: Any, side: str, inclusive: bool) -> bool:
    one, other = rank(term), rank(bound)
    if one[0] != other[0]:
        return False
    if one == other:
        return inclusive
    return one > other if side == "low" else one < other


def to_dict(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__struct_fields__}


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.timeout(600)
def test_agrees_with_the_model(engine: str) -> None:
    machine = type("Machine", (Model,), {"engine": engine})
    examples = EXAMPLES if engine == "memory" else max(EXAMPLES // 4, 5)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            phases=PHASES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_future_time_is_refused() -> None:
    async def run() -> None:
        clock = ManualClock()
        store = Store(MemoryEngine(), clock=clock)
        room = Documents(store, clock)
        await room.put("d", "c", "x", b"1")
        with pytest.raises(InvalidInput):
            room.get("d", "c", "x", as_of=(clock.now_ms() + 1) * 1000)
        await store.close()

    asyncio.run(run())
