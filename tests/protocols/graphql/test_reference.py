"""Our plans against graphql-core's own executor, on random operations over random documents, wrong ones among them."""

from __future__ import annotations

import asyncio
import string
from typing import Any

import msgspec
from graphql import execute_sync, parse
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from martlet.clock import Clock
from martlet.documents import Document, Documents, View
from martlet.protocols.graphql.faults import Refusal
from martlet.protocols.graphql.importing import put_schema
from martlet.protocols.graphql.model import Model
from martlet.protocols.graphql.service import Asking, Service
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

SDL = """
type Node {
  text: String
  must: String!
  n: Int
  whole: Long
  real: Float!
  flag: Boolean
  kind: Kind
  list: [Int!]
  loose: [String]!
  inner: Inner
  inners: [Inner!]
  next: Node @relation(name: "chain", onDelete: KEEP)
  previous: [Node!] @relation(name: "chain")
  other: Leaf! @relation(onDelete: KEEP)
  leaves: [Leaf!] @relation(name: "many", onDelete: KEEP)
}
type Inner @embedded { a: Int!  b: String  c: Inner }
type Leaf { name: String!  nodes: [Node!]  held: [Node!] @relation(name: "many") }
enum Kind { A B }
"""
WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 40), 1 << 40), st.just(1.5), st.just("x"), st.just([]), st.just({})
)
IDS = st.sampled_from([f"n{at}" for at in range(6)])
LEAF_IDS = st.sampled_from([f"l{at}" for at in range(4)])


def usually(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 11).flatmap(lambda dice: WRONG if dice == 0 else right)


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Of a reference: what could not be indexed is not tried."""
    return st.integers(0, 11).flatmap(lambda dice: st.sampled_from([None, True, 7, "gone"]) if dice == 0 else right)


INNER = st.fixed_dictionaries(
    {}, optional={"a": usually(st.integers(0, 9)), "b": usually(st.just("b")), "c": st.just({"a": 1})}
)
NODE = st.fixed_dictionaries(
    {"must": usually(st.just("m")), "real": usually(st.just(0.5)), "loose": usually(st.lists(st.one_of(st.none(), st.just("s")))),
     "other": mostly(LEAF_IDS)},
    optional={"text": usually(st.text(string.printable, max_size=3)), "n": usually(st.integers(0, 5)), "whole": usually(st.integers(0, 5)),
              "flag": usually(st.booleans()), "kind": usually(st.sampled_from(["A", "B", "C"])), "list": usually(st.lists(usually(st.integers(0, 3)))),
              "inner": usually(INNER), "inners": usually(st.lists(usually(INNER), max_size=3)), "next": mostly(IDS),
              "leaves": mostly(st.lists(LEAF_IDS, max_size=4, unique=True))},
)  # fmt: skip
LEAF = st.fixed_dictionaries({"name": usually(st.just("leaf"))})

SCALARS = ["text", "must", "n", "whole", "real", "flag", "kind", "list", "loose", "id", "_version", "__typename"]
NESTED = {
    "Node": {
        "inner": "Inner",
        "inners": "Inner",
        "next": "Node",
        "previous": "NodePage",
        "other": "Leaf",
        "leaves": "LeafPage",
    },
    "Leaf": {"nodes": "NodePage", "held": "NodePage"},
    "Inner": {"c": "Inner"},
    "NodePage": {"data": "Node"},
    "LeafPage": {"data": "Leaf"},
    "Query": {"listNode": "NodePage", "findNodeByID": "Node", "listLeaf": "LeafPage"},
}
PLAIN = {"Node": SCALARS, "Leaf": ["name", "id", "__typename"], "Inner": ["a", "b", "__typename"],
         "NodePage": ["__typename"], "LeafPage": ["__typename"], "Query": ["__typename"]}  # fmt: skip
ARGUMENTS = {"findNodeByID": '(id: "n1")', "listNode": "(size: 4)", "previous": "(size: 2)", "held": "(size: $size)", "leaves": "(size: 2)",
             "nodes": "(size: 2)", "listLeaf": "(size: 3)"}  # fmt: skip
CONDITIONS = st.sampled_from(["", "", "", " @skip(if: $yes)", " @include(if: $yes)", " @include(if: $no)", " @skip(if: true)"])


@st.composite
def selection(draw: Any, type_name: str, depth: int) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 4 if depth > 1 else 6))):
        below = NESTED[type_name] if depth < 5 else {}
        name = draw(st.sampled_from([*PLAIN[type_name], *below]))
        alias = draw(st.sampled_from(["", "", "", f"x{draw(st.integers(0, 30))}_{name}: "]))
        inner = " { " + draw(selection(below[name], depth + 1)) + " }" if name in below else ""
        field = f"{alias}{name}{ARGUMENTS.get(name, '') if inner or name in below else ''}{draw(CONDITIONS)}{inner}"
        how = draw(st.integers(0, 9))
        parts.append(f"... on {type_name} {{ {field} }}" if how == 0 else f"... {{ {field} }}" if how == 1 else field)
    parts.append("__typename")
    return " ".join(parts)


@st.composite
def operation(draw: Any) -> str:
    spread = draw(selection("Node", 4))
    return (
        "query ($yes: Boolean!, $no: Boolean!, $size: Int) { "
        + draw(selection("Query", 1))
        + " z: listNode(size: 3) { data { ...f id other { nodes(size: 2) { data { ...f } } } } } used: listNode @include(if: $yes) { __typename } "
        + "unused: listNode @skip(if: $no) { __typename } h: listLeaf(size: 2) { data { held(size: $size) { __typename } } } } "
        + "fragment f on Node { " + spread + " }"
    )  # fmt: skip


class Naive:
    """Resolvers one field at a time, each with a read of its own."""

    def __init__(self, model: Model, view: View) -> None:
        self._model = model
        self._view = view

    def all_of(self, name: str) -> list[Document]:
        found = self._view.collection(name)
        ids = [f"{name[0].lower()}{at}" for at in range(10)]
        docs = [self._view.get(name, id) for id in ids] if found is not None else []
        return [doc for doc in docs if doc is not None]

    def resolve(self, source: Any, info: Any, **given: Any) -> Any:
        parent, field = info.parent_type.name, info.field_name
        if parent == "Query":
            if field == "findNodeByID":
                return self._view.get("Node", given["id"])
            return {"data": self.all_of(field.removeprefix("list"))[: given["size"]]}
        if parent.endswith("Page"):
            return source[field]
        if parent == "Inner":
            return self.stored(parent, field, source)
        if field in ("id", "_version"):
            return source.id if field == "id" else source.version
        value = source.value()
        return self.stored(parent, field, value if isinstance(value, dict) else {}, source, given)

    def stored(self, parent: str, field: str, value: dict[str, Any], source: Any = None, given: Any = None) -> Any:
        owner = self._model.named(parent)
        assert owner is not None
        member = next(member for member in owner.members if member.name == field)
        found = value.get(field)
        if member.kind == "to_one":
            return self._view.get(member.type, found) if isinstance(found, str) else None
        if member.kind == "to_many":
            docs = [self._view.get(member.type, id) for id in (found if isinstance(found, list) else [])[: given["size"]]]
            return {"data": [doc for doc in docs if doc is not None]}
        if member.kind == "from_many":
            return {"data": [doc for doc in self.all_of(member.type) if self.holds(doc, member.by, source.id)][: given["size"]]}
        if member.kind == "embedded":
            if found is not None and (
                isinstance(found, list) != member.is_list or (not member.is_list and not isinstance(found, dict))
            ):
                raise ValueError("stored as something else")
            if member.is_list and found is not None:
                return [ValueError("no object") if item is not None and not isinstance(item, dict) else item for item in found]
        if member.is_list and found is not None and not isinstance(found, list):
            raise ValueError("stored as something else")
        return found

    @staticmethod
    def holds(doc: Document, by: str, id: str) -> bool:
        value = doc.value()
        held = value.get(by) if isinstance(value, dict) else None
        return id in held if isinstance(held, list) else held == id


async def world(nodes: list[Any], leaves: list[Any]) -> tuple[Documents, Service]:
    async def call(database: str, function: str, event: bytes) -> bytes:
        raise AssertionError

    store = Store(MemoryEngine(), clock=Clock())
    room = Documents(store, Clock())
    await room.signer()

    def write(tx: Any) -> None:
        for at, value in enumerate(nodes):
            tx.put("Node", f"n{at}", value)
        for at, value in enumerate(leaves):
            tx.put("Leaf", f"l{at}", value)

    await room.transact("db", write)
    with room.redefining():
        await store.transact(lambda tx: put_schema(tx, room, "db", "api", SDL, replace=True))
    await room.housekeeping.run_due()
    return room, Service(room, call)


async def both(nodes: list[Any], leaves: list[Any], text: str, variables: dict[str, Any]) -> tuple[Any, Any]:
    room, service = await world(nodes, leaves)
    try:
        ready = await service.ready("db", Asking(text, None, variables))
        ours = msgspec.json.decode(msgspec.json.encode(await service.run(ready, lambda action, collection: None)))
        engine = ready.engine

        def naive(view: View) -> Any:
            resolve = Naive(engine.model, view).resolve
            return execute_sync(engine.schema, parse(text), {}, None, variables, field_resolver=resolve)

        return ours, room.read("db", naive)
    finally:
        await room.store.close()


@settings(
    max_examples=30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    nodes=st.lists(NODE, min_size=1, max_size=6),
    leaves=st.lists(LEAF, min_size=1, max_size=4),
    text=operation(),
    yes=st.booleans(),
    size=st.integers(1, 3),
)
def test_plans_answer_what_the_reference_executor_answers(
    nodes: list[Any], leaves: list[Any], text: str, yes: bool, size: int
) -> None:
    try:
        ours, theirs = asyncio.run(both(nodes, leaves, text, {"yes": yes, "no": not yes, "size": size}))
    except Refusal as refusal:
        assume("limit graphql_cost" not in str(refusal))
        raise
    assert ours["data"] == theirs.data
    assert list(_keys(ours["data"])) == list(_keys(theirs.data)), "the order of fields"
    mine = {tuple(error["path"]) for error in ours.get("errors", [])}
    wanted = {tuple(error.path) for error in theirs.errors or []}
    assert wanted <= mine | _nulled(wanted, mine), (wanted - mine, mine)


def _nulled(wanted: set[Any], mine: set[Any]) -> set[Any]:
    """Of an object that an error made null, one error is enough (section 6.4.4), and which one is not said."""
    return {path for path in wanted if any(other[: len(path) - 1] == path[:-1] for other in mine)}


def _keys(data: Any) -> Any:
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from _keys(value)
    elif isinstance(data, list):
        for item in data:
            yield from _keys(item)
