"""Versioned documents: what is acknowledged is there, what conflicts is refused, each write has its change record."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.clock import ManualClock
from martlet.documents import TOPIC, Change, Document, Documents
from martlet.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from martlet.limits import LIMITS
from martlet.store import Store
from martlet.store.engines.memory import Disk, MemoryEngine


async def test_versions_count_from_one(documents: Documents, clock: ManualClock) -> None:
    assert documents.get("shop", "carts", "1") is None
    first = await documents.put("shop", "carts", "1", b'{"a": 1}')
    made_ms = clock.now_ms()
    assert first == Document("1", 1, b'{"a": 1}', made_ms, made_ms * 1000, made_ms)
    clock.advance(5)
    assert (await documents.put("shop", "carts", "1", b'{"a": 2}')).version == 2
    now_ms = clock.now_ms()
    assert documents.get("shop", "carts", "1") == Document("1", 2, b'{"a": 2}', now_ms, now_ms * 1000, made_ms)


async def test_names_keep_documents_apart(documents: Documents) -> None:
    await documents.put("a", "b", "c", b"1")
    await documents.put("a", "b2", "c", b"2")
    await documents.put("a2", "b", "c", b"3")
    await documents.put("a", "b", "c/d", b"4")
    assert documents.get("a", "b", "c").value_bytes == b"1"  # type: ignore[union-attr]
    assert [item.id for item in documents.list("a", "b")[0]] == ["c", "c/d"]
    assert [item.value_bytes for item in documents.list("a2", "b")[0]] == [b"3"]


async def test_an_expected_version_must_be_there(documents: Documents) -> None:
    with pytest.raises(Conflict):
        await documents.put("d", "c", "x", b"1", expected=1)
    assert (await documents.put("d", "c", "x", b"1", expected=0)).version == 1
    with pytest.raises(Conflict) as caught:
        await documents.put("d", "c", "x", b"2", expected=0)
    assert caught.value.details == {"expected": 0, "version": 1}
    assert (await documents.put("d", "c", "x", b"2", expected=1)).version == 2
    with pytest.raises(Conflict):
        await documents.delete("d", "c", "x", expected=1)
    assert await documents.delete("d", "c", "x", expected=2)
    with pytest.raises(Conflict):
        await documents.delete("d", "c", "x", expected=2)
    assert not await documents.delete("d", "c", "x")


async def test_a_version_never_means_two_states(documents: Documents) -> None:
    await documents.put("d", "c", "x", b"1")
    await documents.delete("d", "c", "x")
    again = await documents.put("d", "c", "x", b"2", expected=0)
    assert again.version == 2
    with pytest.raises(Conflict):  # who read version 1 before must not overwrite what came after
        await documents.put("d", "c", "x", b"3", expected=1)
    await documents.delete("d", "c", "x")
    await documents.delete("d", "c", "x")
    assert (await documents.put("d", "c", "x", b"4")).version == 3


async def test_of_many_writers_with_one_version_one_wins(documents: Documents) -> None:
    await documents.put("d", "c", "x", b"0")
    ends = await asyncio.gather(
        *(documents.put("d", "c", "x", str(number).encode(), expected=1) for number in range(20)), return_exceptions=True
    )
    won = [end for end in ends if isinstance(end, Document)]
    assert len(won) == 1
    assert all(isinstance(end, Document | Conflict) for end in ends)
    assert documents.get("d", "c", "x") == won[0]


async def test_each_write_has_its_change_record(documents: Documents, store: Store) -> None:
    await documents.put("d", "c", "x", b'{"a": [1, 2]}')
    with pytest.raises(Conflict):
        await documents.put("d", "c", "x", b"2", expected=9)
    await documents.delete("d", "c", "nothing")
    await documents.put("d", "c", "x", b"null")
    await documents.delete("d", "c", "x")
    entries = store.tail(0, 100)
    assert {entry.topic for entry in entries} == {TOPIC}
    changes = [json.loads(entry.body) for entry in entries]
    stamps = [change.pop("ts") for change in changes]
    assert stamps == sorted(set(stamps))  # each transaction has its own, and they grow even while the clock stands still
    assert changes == [
        {"operation": "put", "database": "d", "collection": "c", "id": "x", "version": 1, "value": {"a": [1, 2]}},
        {"operation": "put", "database": "d", "collection": "c", "id": "x", "version": 2, "value": None},
        {"operation": "delete", "database": "d", "collection": "c", "id": "x", "version": 2},
    ]


async def test_what_is_acknowledged_survives_a_crash() -> None:
    disk, clock = Disk(), ManualClock()
    before = Store(MemoryEngine(disk), clock=clock)
    written = await Documents(before, clock).put("d", "c", "x", b"1")
    await before.close()
    after = Store(MemoryEngine(disk), clock=clock)
    assert Documents(after, clock).get("d", "c", "x") == written
    await after.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[1",
        b"1 2",
        b"NaN",
        b"Infinity",
        b"undefined",
        b'"\xff"',
        b"\xef\xbb\xbf1",
        b"01",
    ],
)
async def test_what_is_not_json_is_refused(documents: Documents, body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        await documents.put("d", "c", "x", body)
    assert caught.value.details["field"] == "body"
    assert documents.get("d", "c", "x") is None


async def test_deep_nesting_is_refused_and_does_not_crash(documents: Documents) -> None:
    with pytest.raises(LimitExceeded, match="document_depth"):
        await documents.put("d", "c", "x", b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize(
    "body", [b"null", b"true", b"-1.5e300", b"-9223372036854775808", b"9223372036854775807", '"ü\\u0000"'.encode(), b"[]"]
)
async def test_any_json_value_comes_back_byte_for_byte(documents: Documents, body: bytes) -> None:
    await documents.put("d", "c", "x", body)
    assert documents.get("d", "c", "x").value_bytes == body  # type: ignore[union-attr]


@pytest.mark.parametrize("body", [b"123456789012345678901234567890", b"9223372036854775808", b"-9223372036854775809"])
async def test_whole_numbers_beyond_64_bits_are_refused(documents: Documents, body: bytes) -> None:
    """They came back byte for byte once, and every client that reads JSON numbers as 64 bits (or 53) lost digits silently."""
    with pytest.raises(InvalidInput, match="beyond 64 bits"):
        await documents.put("d", "c", "x", b'{"n": ' + body + b"}")


async def test_a_document_has_a_limit(documents: Documents) -> None:
    most = LIMITS["document_bytes"].default
    await documents.put("d", "c", "x", b'"' + b"a" * (most - 2) + b'"')
    with pytest.raises(LimitExceeded, match=f"document_bytes is {most} bytes, got {most + 1}"):
        await documents.put("d", "c", "x", b'"' + b"a" * (most - 1) + b'"')


@pytest.mark.parametrize("id", ["", ".", "..", "a\x00b", "a\nb", "\x7f", "\ud800"])
async def test_ids_that_no_url_could_carry_are_refused(documents: Documents, id: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await documents.put("d", "c", id, b"1")
    assert caught.value.details["field"] == "id"
    with pytest.raises(InvalidInput):
        documents.get("d", "c", id)
    with pytest.raises(InvalidInput):
        await documents.delete("d", "c", id)


async def test_an_id_has_a_limit_in_bytes(documents: Documents) -> None:
    await documents.put("d" * 64, "c" * 64, "ü" * 256, b"1")
    with pytest.raises(LimitExceeded, match="document_id_bytes"):
        await documents.put("d", "c", "ü" * 257, b"1")


async def test_a_database_inside_another_must_have_been_made(documents: Documents) -> None:
    for call in (lambda: documents.get("a/b", "c", "x"), lambda: documents.list("a/b", "c")):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(NotFound):
        await documents.put("a/b", "c", "x", b"1")
    with pytest.raises(InvalidInput):
        await documents.put("a", "b/c", "x", b"1")


@pytest.mark.parametrize("name", ["", "a//b", "/", "a/", "a.b", "ü", "a" * 65, "a\n", "*", " "])
async def test_database_and_collection_are_names(documents: Documents, name: str) -> None:
    for place in ((name, "c"), ("d", name)):
        with pytest.raises(InvalidInput):
            documents.get(*place, "x")
        with pytest.raises(InvalidInput):
            documents.list(*place)
        with pytest.raises(InvalidInput):
            await documents.put(*place, "x", b"1")


@pytest.mark.parametrize(("expected", "deleting"), [(-1, False), (-1, True), (0, True)])
async def test_an_expected_version_is_a_number_that_can_be(documents: Documents, expected: int, deleting: bool) -> None:
    call = documents.delete("d", "c", "x", expected) if deleting else documents.put("d", "c", "x", b"1", expected)
    with pytest.raises(InvalidInput):
        await call


async def test_listing_by_prefix_and_page(documents: Documents) -> None:
    for id in ("a", "b", "b/1", "b/10", "b/2", "b0", "c", "ba", "ü"):
        await documents.put("d", "c", id, f'"{id}"'.encode())
    assert [item.id for item in documents.list("d", "c")[0]] == ["a", "b", "b/1", "b/10", "b/2", "b0", "ba", "c", "ü"]
    assert [item.id for item in documents.list("d", "c", prefix="b/")[0]] == ["b/1", "b/10", "b/2"]
    page, after = documents.list("d", "c", prefix="b", limit=2)
    assert ([item.id for item in page], after) == (["b", "b/1"], "b/1")
    page, after = documents.list("d", "c", prefix="b", limit=4, after=after)
    assert ([item.id for item in page], after) == (["b/10", "b/2", "b0", "ba"], None)
    assert documents.list("d", "c", prefix="x") == ([], None)
    assert [item.id for item in documents.list("d", "c", after="b/10", prefix="b/")[0]] == ["b/2"]
    assert [item.id for item in documents.list("d", "c", after="a", prefix="b/")[0]] == ["b/1", "b/10", "b/2"]
    assert documents.list("d", "c", after="z", prefix="b/") == ([], None)
    assert documents.list("d", "empty") == ([], None)
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidInput):
            documents.list("d", "c", limit=limit)
    for field in ("prefix", "after"):
        with pytest.raises(InvalidInput, match=field):
            documents.list("d", "c", **{field: "\ud800"})  # type: ignore[arg-type]


async def test_a_page_is_bounded_in_bytes_too(documents: Documents) -> None:
    body = b'"' + b"x" * 300_000 + b'"'
    for number in range(8):
        await documents.put("d", "c", f"{number}", body)
    found, after, pages = [], None, 0
    while True:
        page, after = documents.list("d", "c", limit=1000, after=after)
        assert 1 <= len(page) <= 3
        found += [item.id for item in page]
        pages += 1
        if after is None:
            break
    assert found == [f"{number}" for number in range(8)]
    assert pages == 3


IDS = st.text(st.sampled_from("ab/ü\U0001f600"), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "delete"]), IDS), max_size=25), IDS, st.integers(1, 5))
async def test_agrees_with_a_dictionary(steps: list[tuple[str, str]], prefix: str, limit: int) -> None:
    clock = ManualClock()
    store = Store(MemoryEngine(), clock=clock)
    documents, model, versions = Documents(store, clock), dict[str, bytes](), dict[str, int]()
    for number, (step, id) in enumerate(steps):
        if step == "put":
            versions[id] = versions.get(id, 0) + 1
            model[id] = str(number).encode()
            assert (await documents.put("d", "c", id, model[id])).version == versions[id]
        else:
            assert await documents.delete("d", "c", id) == (model.pop(id, None) is not None)
    found, after = [], None
    while True:
        page, after = documents.list("d", "c", prefix, limit, after)
        assert len(page) <= limit
        found += [(item.id, item.value_bytes, item.version) for item in page]
        if after is None:
            break
    wanted = sorted(id for id in model if id.startswith(prefix))
    assert found == [(id, model[id], versions[id]) for id in wanted]
    changes = [json.loads(entry.body) for entry in store.tail(0, 1000)] if store.head else []
    assert len(changes) == sum(versions.values()) + sum(1 for change in changes if change["operation"] == "delete")
    assert {field for change in changes for field in change} <= set(Change.__struct_fields__)
    await store.close()
