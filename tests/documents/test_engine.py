"""Schemas, references, expiry, idempotency, restoring, preconditions, background builds, hostile values; and old layouts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.documents.consistency import problems

from martlet.clock import ManualClock
from martlet.documents import (
    Bound,
    Check,
    CollectionConfig,
    Documents,
    Field,
    IndexConfig,
    Query,
    Schema,
    Term,
    Transaction,
    Usage,
)
from martlet.errors import Conflict, InvalidInput, LimitExceeded, NotFound, PreconditionFailed
from martlet.limits import LIMITS
from martlet.store import Store, keys


def agree(store: Store) -> None:
    assert not store.read(problems)


# --- values


async def test_every_type_comes_back_as_it_was(documents: Documents) -> None:
    value = {
        "i": -(2**63),
        "f": 0.1,
        "d": Decimal("1.10"),
        "big": Decimal("1E+100"),
        "b": b"\x00\xff",
        "t": datetime(2026, 11, 21, 1, 2, 3, 4, tzinfo=UTC),
        "s": frozenset(["a", "b"]),
        "tricky": [{"$bytes": 1}, {"$literal": {"$time": "x"}}, {"$decimal": "1", "x": 2}],
        "n": None,
    }
    await documents.put("d", "c", "x", value)
    found = documents.get("d", "c", "x")
    assert found is not None
    assert found.value() == value
    assert isinstance(found.value()["d"], Decimal)
    assert str(found.value()["d"]) == "1.10"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"x": {"\\"": 1, "b": 1, "b": 2}}',
        b'{"$decimal": "NaN"}',
        b'{"$decimal": "1e999999999"}',
        b'{"$decimal": 1}',
        b'{"$bytes": "?"}',
        b'{"$time": "2026-01-01"}',
        b'{"$time": "2026-01-01T00:00:00"}',
        b'{"$set": [1, 1.0]}',
        b'{"$set": [[1]]}',
        b'{"$literal": 1}',
        b'"\\ud800"',
        b'{"n": 1e999}',
    ],
)
async def test_values_that_cannot_be(documents: Documents, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        await documents.put("d", "c", "x", body)
    assert documents.get("d", "c", "x") is None


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b"[" * 101 + b"]" * 101, "document_depth"),
        (b"[" + b",".join([b"0"] * 100_001) + b"]", "document_values"),
        (b'{"$decimal": "' + b"1" * 39 + b'"}', "decimal_digits"),
        (b'"' + b"x" * 409_600 + b'"', "document_bytes"),
    ],
)
async def test_limits_of_a_document_are_named(documents: Documents, body: bytes, limit: str) -> None:
    with pytest.raises(LimitExceeded, match=limit):
        await documents.put("d", "c", "x", body)


async def test_python_values_that_have_no_form(documents: Documents) -> None:
    deep: Any = ()
    for _ in range(5000):
        deep = (deep,)
    for value in (float("nan"), float("inf"), {1: 2}, object(), datetime(2026, 1, 1), "\ud800", 2**64, Decimal("NaN")):  # noqa: DTZ001
        with pytest.raises(InvalidInput):
            await documents.put("d", "c", "x", {"v": value})
    with pytest.raises(LimitExceeded):
        await documents.put("d", "c", "x", deep)


# --- ids


async def test_ids_that_are_made_are_sortable_and_64_bits(documents: Documents, clock: ManualClock) -> None:
    made = [(await documents.put("d", "c", None, b"1")).id for _ in range(3)]
    clock.advance(-3600)  # the wall clock goes back; ids and stamps do not
    made += await documents.transact("d", lambda tx: [tx.put("c", None, b"2").id for _ in range(500)])
    clock.advance(7200)
    made.append((await documents.put("d", "c", None, b"3")).id)
    assert made == sorted(made, key=str)
    assert len(set(made)) == len(made)
    assert all(len(str(id)) == 19 and int(str(id)) < 2**63 for id in made)


async def test_ids_of_several_parts_sort_part_by_part(documents: Documents) -> None:
    ids = [("a", -1), ("a", 2), ("a", 10), ("a", Decimal("10.5")), ("a\x00", 1), ("b", b"\x00\x01"), ("b", b"\x01")]
    for id in reversed(ids):
        await documents.put("d", "c", id, {"id": str(id)})
    page = await documents.query("d", Query(collection="c"))
    assert [item.id for item in page.documents] == ids
    page = await documents.query("d", Query(collection="c", equals=("a",), low=Bound(2, False), reverse=True))
    assert [item.id for item in page.documents] == [ids[3], ids[2]]
    assert documents.get("d", "c", ("a", 10)) is not None
    assert documents.get("d", "c", ("a",)) is None
    for wrong in ((), ("a", True), ("a", None), ("x" * 3000,)):
        with pytest.raises((InvalidInput, LimitExceeded)):
            await documents.put("d", "c", wrong, b"1")  # type: ignore[arg-type]


# --- transactions


async def test_all_or_nothing_over_collections(documents: Documents, store: Store) -> None:
    await documents.put("d", "stock", "cup", {"left": 3})

    def buy(quantity: int) -> Any:
        def fn(tx: Transaction) -> Any:
            order = tx.put("orders", None, {"product": "cup", "quantity": quantity})
            tx.patch("stock", "cup", increment={"left": -quantity}, condition="left >= $q", parameters={"q": quantity})
            return order.id

        return documents.transact("d", fn)

    ends = await asyncio.gather(*(buy(1) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(end, str) for end in ends) == 3
    assert all(isinstance(end, str | PreconditionFailed) for end in ends)
    assert documents.get("d", "stock", "cup").value() == {"left": 0}  # type: ignore[union-attr]
    assert len(documents.list("d", "orders")[0]) == 3
    agree(store)


async def test_write_skew_and_lost_updates_do_not_happen(documents: Documents) -> None:
    """Two doctors on call, each may leave if another stays; and counters that everybody reads before writing."""
    for name in ("ann", "bob"):
        await documents.put("d", "calls", name, {"on": True})

    def leave(name: str) -> Any:
        def fn(tx: Transaction) -> bool:
            on = [other for other in ("ann", "bob") if tx.get("calls", other).value()["on"]]  # type: ignore[union-attr]
            if len(on) < 2:
                return False
            tx.put("calls", name, {"on": False})
            return True

        return documents.transact("d", fn)

    assert sorted(await asyncio.gather(leave("ann"), leave("bob"))) == [False, True]

    async def add() -> None:
        def fn(tx: Transaction) -> None:
            found = tx.get("counters", "n")
            tx.put("counters", "n", {"n": (found.value()["n"] if found else 0) + 1})

        await documents.transact("d", fn)

    await asyncio.gather(*(add() for _ in range(300)))
    assert documents.get("d", "counters", "n").value() == {"n": 300}  # type: ignore[union-attr]


async def test_a_retried_request_gets_the_first_answer(documents: Documents, clock: ManualClock) -> None:
    ran = []

    def fn(tx: Transaction) -> bytes:
        ran.append(1)
        return str(tx.put("orders", None, b"1").id).encode()

    first = await documents.transact_once("d", "key-1", b"request", fn)
    again = await documents.transact_once("d", "key-1", b"request", fn)
    assert (first[1], again) == (False, (first[0], True))
    with pytest.raises(Conflict, match="another request"):
        await documents.transact_once("d", "key-1", b"another", fn)
    assert (await documents.transact_once("other", "key-1", b"another", fn))[1] is False
    both = await asyncio.gather(*(documents.transact_once("d", "key-2", b"r", fn) for _ in range(5)))
    assert len({answer for answer, _ in both}) == 1
    assert len(ran) == 3
    clock.advance(25 * 3600)
    assert (await documents.transact_once("d", "key-1", b"another", fn))[1] is False
    await documents.housekeeping.run_due()
    assert (await documents.transact_once("d", "key-1", b"another", fn))[1] is True
    for wrong in ("", "a b", "ü", "x" * 256):
        with pytest.raises((InvalidInput, LimitExceeded)):
            await documents.transact_once("d", wrong, b"", fn)


async def test_a_failed_transaction_leaves_no_collection_behind(documents: Documents) -> None:
    def fn(tx: Transaction) -> None:
        tx.put("fresh", "x", b"1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await documents.transact("d", fn)
    assert documents.collection("d", "fresh") is None
    await documents.put("d", "fresh", "y", b"2")
    assert [item.id for item in documents.list("d", "fresh")[0]] == ["y"]
    with pytest.raises(LimitExceeded, match="transaction_documents"):
        await documents.transact("d", lambda tx: [tx.put("fresh", f"{number}", b"1") for number in range(1001)])
    assert len(documents.list("d", "fresh")[0]) == 1


async def test_patching(documents: Documents) -> None:
    await documents.put("d", "c", "x", {"a": {"b": 1, "c": 2}, "n": 1})
    await documents.transact(
        "d", lambda tx: tx.patch("c", "x", merge={"a": {"b": None}, "z": [1]}, increment={"n": 2, "new.m": 1})
    )
    assert documents.get("d", "c", "x").value() == {"a": {"c": 2}, "n": 3, "z": [1], "new": {"m": 1}}  # type: ignore[union-attr]
    for wrong in ({"a": 1}, {"n": 2**63 - 1}, {"n..m": 1}):
        with pytest.raises(InvalidInput):
            await documents.transact("d", lambda tx, wrong=wrong: tx.patch("c", "x", increment=wrong))  # type: ignore[misc]
    with pytest.raises(NotFound):
        await documents.transact("d", lambda tx: tx.patch("c", "nobody", merge={}))


# --- schemas


async def test_a_schema_is_kept(documents: Documents) -> None:
    schema = Schema(
        {
            "name": Field("text", required=True),
            "age": Field("int?"),
            "tags": Field("array<text>", default=msgspec.Raw(b"[]")),
            "search": Field("text?", computed="lower(name)"),
        },
        (Check("adult", "age == null or age >= 18"),),
        additional=False,
    )
    await documents.define_collection("d", "p", CollectionConfig(schema=schema, indexes={"s": IndexConfig((Term("search"),))}))
    await documents.put("d", "p", "1", b'{"name": "ANN", "search": "forged"}')
    assert documents.get("d", "p", "1").value() == {"name": "ANN", "tags": [], "search": "ann"}  # type: ignore[union-attr]
    found = await documents.query("d", Query(collection="p", index="s", equals=("ann",)))
    assert [item.id for item in found.documents] == ["1"]
    for body, names in (
        (b"{}", "required"),
        (b"[]", "object"),
        (b'{"name": 1}', "must be text"),
        (b'{"name": "x", "age": 1.5}', "must be int"),
        (b'{"name": "x", "age": true}', "must be int"),
        (b'{"name": "x", "age": 17}', "'adult' does not hold"),
        (b'{"name": "x", "tags": [1]}', "array<text>"),
        (b'{"name": "x", "surplus": 1}', "allows no others"),
    ):
        with pytest.raises(InvalidInput, match=names) as caught:
            await documents.put("d", "p", "2", body)
        assert caught.value.code == "schema_violation"
    for wrong in (
        Schema({"x": Field("texts")}),
        Schema({"x": Field("ref")}),
        Schema({"x": Field(computed="1 +")}),
        Schema({"x": Field(computed="$p")}),
        Schema(checks=(Check("c", "(" * 40 + "1" + ")" * 40),)),
    ):
        with pytest.raises((InvalidInput, LimitExceeded)):
            await documents.define_collection("d", "q", CollectionConfig(schema=wrong))


async def test_references_restrict_cascade_and_expand(documents: Documents, store: Store) -> None:
    orders = Schema({"customer": Field("ref", collection="customers")})
    lines = Schema({"order": Field("ref?", collection="orders", on_delete="cascade")})
    await documents.define_collection("d", "orders", CollectionConfig(schema=orders))
    await documents.define_collection("d", "lines", CollectionConfig(schema=lines))
    with pytest.raises(InvalidInput, match="not there"):
        await documents.put("d", "orders", "o1", {"customer": "ann"})
    await documents.put("d", "customers", "ann", {"name": "Ann"})
    await documents.put("d", "orders", "o1", {"customer": "ann"})
    for number in range(5):
        await documents.put("d", "lines", f"l{number}", {"order": "o1"})
    page = await documents.query("d", Query(collection="lines", expand=("order.customer",), limit=2))
    assert page.documents[0].value()["order"]["value"]["customer"]["value"] == {"name": "Ann"}
    with pytest.raises(Conflict, match="restricts"):
        await documents.delete("d", "customers", "ann")
    with pytest.raises(Conflict):
        await documents.delete_collection("d", "customers")
    await documents.delete("d", "orders", "o1")
    assert not documents.list("d", "lines")[0]
    assert await documents.delete("d", "customers", "ann")
    agree(store)


async def test_a_cascade_is_bounded(documents: Documents) -> None:
    await documents.define_collection(
        "d", "n", CollectionConfig(schema=Schema({"up": Field("ref?", collection="n", on_delete="cascade")}))
    )
    await documents.put("d", "n", "0", {})
    for start in range(0, 1001, 500):
        await documents.transact("d", lambda tx, start=start: [tx.put("n", f"k{start + at}", {"up": "0"}) for at in range(500)])  # type: ignore[misc]
    with pytest.raises(LimitExceeded, match=r"cascade_documents|transaction_documents"):
        await documents.delete("d", "n", "0")
    assert documents.get("d", "n", "0") is not None


# --- time


async def test_documents_go_at_their_second(documents: Documents, store: Store, clock: ManualClock) -> None:
    config = CollectionConfig(ttl_field="until", indexes={"u": IndexConfig((Term("u"),), unique=True)})
    await documents.define_collection("d", "s", config)
    await documents.put("d", "s", "a", {"until": clock.now_ms() // 1000 + 10, "u": 1})
    clock.advance(9.999)
    assert documents.get("d", "s", "a") is not None
    before = documents.now_stamp()
    clock.advance(0.001)
    assert documents.get("d", "s", "a") is None
    assert not (await documents.query("d", Query(collection="s", index="u"))).documents
    assert documents.get("d", "s", "a", as_of=before) is not None
    await documents.put("d", "s", "b", {"u": 1})  # its unique term is free at once
    await documents.housekeeping.run_due()
    operations = [msgspec.json.decode(entry.body)["operation"] for entry in store.tail(0, 100)]
    assert operations == ["put", "expire", "put"]
    again = await documents.put("d", "s", "a", {"u": 2})
    assert again.version == 2
    agree(store)


async def test_history_and_its_end(documents: Documents, store: Store, clock: ManualClock) -> None:
    await documents.define_collection(
        "d", "c", CollectionConfig(history_seconds=3600, indexes={"n": IndexConfig((Term("n"),))})
    )
    stamps = []
    for number in range(3):
        clock.advance(60)
        stamps.append((await documents.put("d", "c", "x", {"n": number})).stamp)
    await documents.delete("d", "c", "x")
    assert [version.document.version for version in documents.versions("d", "c", "x")] == [3, 2, 1]
    for number, stamp in enumerate(stamps):
        assert documents.get("d", "c", "x", as_of=stamp).value() == {"n": number}  # type: ignore[union-attr]
        page = await documents.query("d", Query(collection="c", index="n", as_of=stamp))
        assert [item.value() for item in page.documents] == [{"n": number}]
    restored = await documents.transact("d", lambda tx: tx.restore("c", "x", 2))
    assert (restored.version, restored.value()) == (4, {"n": 1})
    with pytest.raises(NotFound):
        await documents.transact("d", lambda tx: tx.restore("c", "x", 9))
    clock.advance(3 * 3600)
    await documents.housekeeping.run_due()
    assert [version.document.version for version in documents.versions("d", "c", "x")] == [4]
    with pytest.raises(InvalidInput, match="no longer kept"):
        documents.get("d", "c", "x", as_of=stamps[0])
    assert not store.read(lambda reader: reader.scan(b"Dx", b"Dy"))
    agree(store)


async def test_pages_show_the_state_of_the_first(documents: Documents, clock: ManualClock) -> None:
    for number in range(10):
        await documents.put("d", "c", f"{number}", {"n": number})
    query = Query(collection="c", filter="n >= 0", limit=4)
    page = await documents.query("d", query)
    for number in range(10):
        await documents.put("d", "c", f"{number}", {"n": -1})
    await documents.put("d", "c", "3x", {"n": 5})
    found = [item.id for item in page.documents]
    while page.cursor:
        page = await documents.query("d", msgspec.structs.replace(query, cursor=page.cursor, limit=5))
        found += [item.id for item in page.documents]
    assert found == [f"{number}" for number in range(10)]
    first = await documents.query("d", query)
    assert [item.id for item in first.documents] == ["3x"]
    page = await documents.query("d", Query(collection="c", limit=1))
    with pytest.raises(InvalidInput, match="cursor"):
        await documents.query("d", Query(collection="c", limit=1, filter="true", cursor=page.cursor or ""))
    clock.advance(2 * 86_400)
    with pytest.raises(InvalidInput, match="no longer kept"):
        await documents.query("d", Query(collection="c", limit=1, cursor=page.cursor or ""))


# --- indexes


async def test_an_index_is_built_beside_writes_and_not_used_before(documents: Documents, store: Store) -> None:
    for start in range(0, 1000, 500):
        await documents.transact(
            "d", lambda tx, start=start: [tx.put("c", f"{start + at:04}", {"n": at, "u": start + at}) for at in range(500)]
        )  # type: ignore[misc]
    config = CollectionConfig(
        indexes={"n": IndexConfig((Term("n"),), values=("n",)), "u": IndexConfig((Term("u"),), unique=True)}
    )
    await documents.define_collection("d", "c", config)
    with pytest.raises(Conflict, match="building"):
        await documents.query("d", Query(collection="c", index="n"))
    status = documents.collection("d", "c")
    assert status is not None
    assert [(index.status, index.done, index.documents) for index in status.indexes] == [("building", 0, 1000)] * 2

    async def write() -> None:
        for number in range(0, 1000, 7):
            await documents.put("d", "c", f"{number:04}", {"n": -number, "u": number})
            await documents.delete("d", "c", f"{number + 1:04}")
            agree(store)

    await asyncio.gather(documents.housekeeping.run_due(), write())
    agree(store)
    status = documents.collection("d", "c")
    assert status is not None
    assert {index.status for index in status.indexes} == {"ready"}
    page = await documents.query("d", Query(collection="c", index="n", high=Bound(0, False), limit=1000, select=("n",)))
    assert [item.value()["n"] for item in page.documents] == [-number for number in reversed(range(7, 1000, 7))]
    with pytest.raises(NotFound, match="there are: n, u"):
        await documents.query("d", Query(collection="c", index="x"))


async def test_a_build_that_cannot_be_says_why(documents: Documents, store: Store) -> None:
    await documents.put("d", "c", "a", {"u": 1, "o": {}})
    await documents.put("d", "c", "b", {"u": 1})
    config = CollectionConfig(indexes={"u": IndexConfig((Term("u"),), unique=True), "o": IndexConfig((Term("o"),))})
    await documents.define_collection("d", "c", config)
    await documents.housekeeping.run_due()
    status = documents.collection("d", "c")
    assert status is not None
    assert [(index.status, index.reason) for index in status.indexes] == [
        ("failed", "documents 'a' and 'b' have the same terms"),
        ("failed", "document 'a': index o: an object has no place in an order"),
    ]
    with pytest.raises(Conflict, match="failed"):
        await documents.query("d", Query(collection="c", index="u"))
    await documents.delete("d", "c", "a")
    await documents.define_collection("d", "c", config)  # once more, now that it can be
    await documents.housekeeping.run_due()
    assert [item.id for item in (await documents.query("d", Query(collection="c", index="u"))).documents] == ["b"]
    agree(store)


async def test_sorting_selecting_and_bounds(documents: Documents) -> None:
    for number in range(30):
        await documents.put("d", "c", f"{number:02}", {"a": number % 3, "b": -number, "c": {"d": number}})
    query = Query(collection="c", sort=("a", "-c.d"), select=("a", "c.d"), limit=7)
    found: list[Any] = []
    cursor = ""
    while True:
        page = await documents.query("d", msgspec.structs.replace(query, cursor=cursor))
        found += [item.value() for item in page.documents]
        if page.cursor is None:
            break
        cursor = page.cursor
    wanted = sorted(({"a": n % 3, "c": {"d": n}} for n in range(30)), key=lambda item: (item["a"], -item["c"]["d"]))  # type: ignore[index]
    assert found == wanted
    for wrong in (
        {"limit": 0},
        {"limit": 1001},
        {"filter": "a =="},
        {"select": ("a..b",)},
        {"expand": ("a",)},
        {"filter": "$x == 1"},
    ):
        with pytest.raises((InvalidInput, LimitExceeded)):
            await documents.query("d", Query(collection="c", **wrong))  # type: ignore[arg-type]


async def test_a_query_is_bounded_and_says_where_it_stopped(documents: Documents) -> None:
    for start in range(0, 10_500, 500):
        await documents.transact("d", lambda tx, start=start: [tx.put("c", f"{start + at:05}", b"0") for at in range(500)])  # type: ignore[misc]
    page = await documents.query("d", Query(collection="c", filter="false"))
    assert (page.documents, page.looked_at) == ([], LIMITS["query_scan_documents"].default)
    assert page.cursor is not None
    last = await documents.query("d", Query(collection="c", filter="false", cursor=page.cursor))
    assert (last.cursor, last.looked_at) == (None, 500)
    with pytest.raises(LimitExceeded, match="query_sort_documents"):
        await documents.query("d", Query(collection="c", sort=("x",)))


# --- databases


async def test_databases_are_apart_and_go_as_a_whole(documents: Documents, store: Store) -> None:
    await documents.put("a", "c", "x", b"1")
    await documents.create_database("a/b")
    await documents.put("a/b", "c", "x", b"2")
    await documents.create_database("a/b/c")
    with pytest.raises(Conflict):
        await documents.create_database("a/b")
    with pytest.raises(NotFound):
        await documents.create_database("a/x/y")
    assert [record.path for record in documents.databases("a")] == ["a", "a/b", "a/b/c"]
    await documents.delete_database("a/b")
    with pytest.raises(NotFound):
        documents.get("a/b", "c", "x")
    await documents.create_database("a/b")
    assert documents.get("a/b", "c", "x") is None
    assert documents.get("a", "c", "x") is not None
    await documents.housekeeping.run_due()
    assert len(store.read(lambda reader: reader.scan(b"Dd", b"De"))) == 1


async def test_usage_is_counted(store: Store, clock: ManualClock) -> None:
    ledger: list[tuple[str, Usage]] = []
    documents = Documents(store, clock, record=lambda database, usage: ledger.append((database, usage)))
    used = Usage()
    await documents.define_collection("d", "c", CollectionConfig(indexes={"n": IndexConfig((Term("n"),))}))
    await documents.put("d", "c", "x", {"n": "x" * 1500}, usage=used)
    assert (used.write_operations, used.bytes_in) == (3, 1508)
    documents.get("d", "c", "x", usage=used)
    assert (used.read_operations, used.bytes_out) == (1, 1508)
    await documents.query("d", Query(collection="c", filter="len(n) > 3"), usage=used)
    assert used.compute_operations == 1
    assert [database for database, _ in ledger] == ["d"] * 3


async def test_the_old_layout_is_brought_over(store: Store, clock: ManualClock) -> None:
    def old(tx: Any) -> None:
        for number in range(45):
            key = keys.encode("documents", "shop", f"c{number % 2}", f"k{number}")
            tx.put(key, msgspec.msgpack.encode((number + 1, 1_600_000_000_000, b'{"n": %d}' % number)))
        tx.put(keys.encode("documents.gone", "shop", "c0", "was"), (7).to_bytes(8, "big"))

    await store.transact(old)
    documents = Documents(store, clock)
    await documents.start()
    found = documents.get("shop", "c1", "k3")
    assert found is not None
    assert (found.version, found.value_bytes, found.updated_at_ms) == (4, b'{"n": 3}', 1_600_000_000_000)
    assert (await documents.put("shop", "c0", "was", b"1")).version == 8
    assert len(documents.list("shop", "c0")[0]) == 24
    assert not store.read(lambda reader: reader.scan(*keys.prefix_range("documents")))
    agree(store)
    await documents.stop()
