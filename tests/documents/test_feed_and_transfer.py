"""The change feed and import and export: complete, in order, resumable; a state of one moment; every bad line named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from martlet.clock import ManualClock
from martlet.documents import CollectionConfig, Documents, Field, IndexConfig, Schema, Term
from martlet.documents.feed import changes, follow
from martlet.documents.transfer import export, import_csv, import_ndjson
from martlet.errors import InvalidInput, NotFound
from martlet.store import Store


async def chunked(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def exported(documents: Documents, *place: str) -> list[dict[str, object]]:
    return [json.loads(line) for chunk in [part async for part in export(documents, *place)] for line in chunk.splitlines()]


async def test_a_feed_gives_every_change_once_in_order(documents: Documents) -> None:
    await documents.put("d", "other", "x", b"0")
    for number in range(25):
        await documents.put("d", "c", f"{number % 3}", {"n": number})
    await documents.delete("d", "c", "0")
    found, cursor = [], ""
    while True:
        page = await changes(documents, "d", "c", cursor=cursor, start="oldest", limit=4)
        found += [json.loads(change.body) for change in page.changes]
        cursor = page.cursor
        if not page.changes:
            break
    assert [change.get("value", {}).get("n") for change in found] == [*range(25), None]
    assert found[-1]["operation"] == "delete"
    assert page.behind == 0
    everything = await changes(documents, "d", start="oldest", limit=1000)
    assert len(everything.changes) == 27
    assert not (await changes(documents, "d", "c")).changes  # from now on
    again = await changes(
        documents, "d", "c", cursor=(await changes(documents, "d", "c", start="oldest", limit=3)).changes[1].cursor
    )
    assert json.loads(again.changes[0].body)["value"] == {"n": 2}


async def test_a_cursor_is_of_one_feed_and_cannot_be_made_up(documents: Documents) -> None:
    await documents.put("d", "c", "x", b"1")
    cursor = (await changes(documents, "d", "c", start="oldest")).cursor
    for wrong in (cursor[:-1] + ("A" if cursor[-1] != "A" else "B"), "", "x", "ü", cursor * 400):
        if wrong:
            with pytest.raises(InvalidInput, match="cursor"):
                await changes(documents, "d", "c", cursor=wrong)
    with pytest.raises(InvalidInput, match="cursor"):
        await changes(documents, "d", "c2", cursor=cursor)


async def test_waiting_for_a_change(documents: Documents) -> None:
    waiting = asyncio.create_task(changes(documents, "d", "c", wait_seconds=30))
    await asyncio.sleep(0)
    await documents.put("d", "other", "x", b"1")
    await documents.put("d", "c", "x", b"2")
    assert [json.loads(change.body)["value"] for change in (await waiting).changes] == [2]
    assert not (await changes(documents, "d", "c", wait_seconds=0.01)).changes


async def test_following(documents: Documents) -> None:
    seen: list[int] = []

    async def watch() -> None:
        async for change in follow(documents, "d", "c", start="oldest"):
            seen.append(json.loads(change.body)["value"])
            if len(seen) == 5:
                return

    await documents.put("d", "c", "x", b"0")
    task = asyncio.create_task(watch())
    for number in range(1, 5):
        await documents.put("d", "c", "x", b"%d" % number)
    await task
    assert seen == [0, 1, 2, 3, 4]


async def test_what_is_trimmed_is_an_error_and_not_a_gap(documents: Documents, store: Store, clock: ManualClock) -> None:
    cursor = (await changes(documents, "d", "c", start="oldest")).cursor
    for number in range(5):
        await documents.put("d", "c", "x", b"%d" % number)
    clock.advance(100)
    await store.maintain(keep_log_ms=1000)
    with pytest.raises(NotFound, match="no longer kept"):
        await changes(documents, "d", "c", cursor=cursor)


async def test_changes_carry_what_the_collection_says(documents: Documents) -> None:
    for mode, wanted in (("keys", (False, False)), ("new", (True, False)), ("new_and_old", (True, True))):
        await documents.define_collection("d", mode, CollectionConfig(changes=mode))  # type: ignore[arg-type]
        await documents.put("d", mode, "x", b"1")
        await documents.put("d", mode, "x", b"2")
        last = json.loads((await changes(documents, "d", mode, start="oldest")).changes[-1].body)
        assert ("value" in last, "old" in last) == wanted


@pytest.mark.parametrize("history", [0, 3600])
async def test_an_export_is_one_state_whatever_is_written_meanwhile(
    documents: Documents, history: int, clock: ManualClock
) -> None:
    await documents.define_collection("d", "c", CollectionConfig(history_seconds=history))
    for number in range(450):
        await documents.put("d", "c", f"{number:03}", {"n": number})
    lines: list[dict[str, object]] = []
    async for chunk in export(documents, "d", "c"):
        lines += map(json.loads, chunk.splitlines())
        clock.advance(1)
        await documents.housekeeping.sweep()
        for id in ("000", "300", "449", "999"):
            await documents.put("d", "c", id, {"n": -1})
        await documents.delete("d", "c", "301")
    assert [line["value"] for line in lines] == [{"n": number} for number in range(450)]
    after = {str(line["id"]): line["value"] for line in await exported(documents, "d", "c")}
    assert after["000"] == {"n": -1}
    assert "301" not in after
    await documents.housekeeping.sweep()


async def test_what_was_exported_comes_back(documents: Documents) -> None:
    for number in range(300):
        await documents.put("d", "c", f"k{number}", b'{"n": %d,\n "t": {"$time": "2026-01-02T03:04:05Z"}}' % number)
    data = b"".join([part async for part in export(documents, "d", "c")])
    report = await import_ndjson(documents, "d", "copy", chunked(data, 1000))
    assert (report.lines, report.written, report.failed, report.errors) == (300, 300, 0, [])
    values = [(line["id"], line["value"]) for line in await exported(documents, "d", "copy")]
    assert values == [(line["id"], line["value"]) for line in await exported(documents, "d", "c")]


async def test_bad_lines_are_named_and_take_no_other_with_them(documents: Documents) -> None:
    await documents.define_collection("d", "c", CollectionConfig(indexes={"u": IndexConfig((Term("u"),), unique=True)}))
    lines = [b'{"id": "k%d", "value": {"u": %d}}' % (number, number) for number in range(50)]
    lines[7] = b"{"
    lines[11] = b'{"id": "k11", "value": {"u": 3}}'
    lines[12] = b'{"id": "", "value": {}}'
    lines[13] = b'{"id": "k13", "value": {"n": 1e999}}'
    lines[14] = b'{"id": "k14", "value": {}, "surplus": 1}'
    lines[20] = b'{"id": "k20", "value": "' + b"x" * 2_000_000 + b'"}'
    lines[21] = b'{"id": "k21", "value": "\xff"}'
    data = b"\n".join(lines)
    dry = await import_ndjson(documents, "d", "c", chunked(data, 65_536), dry_run=True)
    assert (dry.written, dry.failed) == (43, 7)
    assert not documents.list("d", "c")[0]
    report = await import_ndjson(documents, "d", "c", chunked(data, 65_536))
    assert [error.line for error in report.errors] == [8, 12, 13, 14, 15, 21, 22]
    assert (report.lines, report.written) == (50, 43)
    again = await import_ndjson(documents, "d", "c", chunked(lines[0]), mode="insert")
    assert [error.code for error in again.errors] == ["conflict"]


async def test_csv_takes_its_types_from_the_schema(documents: Documents) -> None:
    fields = {"age": Field("int"), "price": Field("decimal"), "ok": Field("bool")}
    await documents.define_collection("d", "c", CollectionConfig(schema=Schema(fields)))
    data = b'id,name,age,price,ok\r\na,"Ann, the first",33,1.10,true\r\nb,Bob,x,,\r\nc,Cy\r\nd,Dee,,,FALSE'
    report = await import_csv(documents, "d", "c", chunked(data))
    assert [(error.line, error.code) for error in report.errors] == [(3, "invalid_input"), (4, "invalid_input")]
    assert [(line["id"], line["value"]) for line in await exported(documents, "d", "c")] == [
        ("a", {"name": "Ann, the first", "age": 33, "price": {"$decimal": "1.10"}, "ok": True}),
        ("d", {"name": "Dee", "ok": False}),
    ]
