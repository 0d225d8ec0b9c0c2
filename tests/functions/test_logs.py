"""Logs: exact lines, bounded disk, nothing lost without saying so, readable after a crash."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import martlet
from martlet.clock import ManualClock
from martlet.errors import InvalidInput
from martlet.functions import logs
from martlet.functions.logs import LogRecord, LogStore, tail_base64

ID = "3fd5bd6b-8a3c-4f4e-9d6e-0a6d8f0b1c2d"


def record(at_ms: int = 1_000, function: str = "shop-orders", text: bytes = b"", **more: object) -> LogRecord:
    told: dict[str, object] = {"version": 3, "request_id": f"id-{at_ms}", "duration_us": 3_010, "memory_mb": 128, "peak_mb": 36}
    return LogRecord(function, started_at_ms=at_ms, lines=text, **(told | more))  # type: ignore[arg-type]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.jsonl"), key=lambda file: int(file.stem))


def test_a_cold_start_as_lambda_writes_it() -> None:
    start, *lines, end, report = record(request_id=ID, text=b"hello\nworld\n", init_us=110_100).render()
    assert start == f"START RequestId: {ID} Version: 3"
    assert lines == ["hello", "world"]
    assert end == f"END RequestId: {ID}"
    assert report == (
        f"REPORT RequestId: {ID}\tDuration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t"
        "Init Duration: 110.10 ms\t"
    )


def test_a_warm_start_has_no_init_duration() -> None:
    assert record(request_id=ID, version=0, duration_us=3_000).render() == [
        f"START RequestId: {ID} Version: $LATEST",
        f"END RequestId: {ID}",
        f"REPORT RequestId: {ID}\tDuration: 3.00 ms\tBilled Duration: 3 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t",
    ]


@pytest.mark.parametrize(
    ("status", "error_type", "expected"),
    [
        ("timeout", "Sandbox.Timedout", "Status: timeout"),
        ("error", "Runtime.ExitError", "Status: error\tError Type: Runtime.ExitError"),
        ("error", "", "Status: error"),
    ],
)
def test_a_failure_is_in_the_report(status: str, error_type: str, expected: str) -> None:
    assert record(status=status, error_type=error_type).report().endswith(f"Max Memory Used: 36 MB\t{expected}\t")


@pytest.mark.parametrize(("duration_us", "billed"), [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (900_000_000, 900_000)])
def test_billed_is_rounded_up(duration_us: int, billed: int) -> None:
    assert f"\tBilled Duration: {billed} ms\t" in record(duration_us=duration_us).report()


def test_platform_lines_stand_alone() -> None:
    assert LogRecord("f", 0, "", 1, lines=b"init failed\nModuleNotFoundError: x").render() == [
        "init failed",
        "ModuleNotFoundError: x",
    ]


def test_the_tail_is_the_last_4_kb() -> None:
    assert base64.b64decode(tail_base64(b"short")) == b"short"
    assert base64.b64decode(tail_base64(b"x" * 5000 + b"end")) == b"x" * 4093 + b"end"
    assert base64.b64decode(tail_base64("ä".encode() * 3000 + b"x")).decode() == "ä" * 2047 + "x"


@given(st.binary(max_size=5000))
def test_the_tail_of_anything(text: bytes) -> None:
    tail = base64.b64decode(tail_base64(text))
    assert text.endswith(tail)
    assert min(len(text), 4096) - 3 <= len(tail) <= 4096


async def test_what_is_appended_is_read_back(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path / "logs", clock)
    told = [
        record(1_000, text="grüße\n".encode(), init_us=5, queue_us=7, cpu_us=9, trace_id="Root=1", source="http"),
        record(2_000, text=b"\xff\x00\xfe not utf-8", status="error", error_type="ValueError"),
        record(3_000, version=0, request_id=""),
    ]
    for each in told:
        store.append(each)
    assert await store.read("shop-orders") == told
    await store.close()
    assert await LogStore(tmp_path / "logs", clock).read() == told


async def test_on_disk_it_is_json_lines_that_people_can_grep(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock)
    store.append(record(1_000, text="grüße".encode()))
    await store.close()
    [file] = files(tmp_path)
    assert file == tmp_path / "shop-orders" / f"{clock.now_ms()}.jsonl"
    [line] = file.read_text().splitlines()
    assert json.loads(line)["lines"] == "grüße"


async def test_functions_are_merged_by_the_time_they_ended(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock)
    for at_ms in (5_000, 1_000, 3_000):
        store.append(record(at_ms, "a"))
    for at_ms in (2_000, 4_000):
        store.append(record(at_ms, "b"))
    store.append(record(500, "c", duration_us=3_000_000))  # began first, ended at 3500
    found = await store.read()
    assert [each.started_at_ms for each in found] == [1_000, 2_000, 3_000, 500, 4_000, 5_000]
    assert [each.started_at_ms for each in await store.read(since_ms=3_500)] == [500, 4_000, 5_000]
    assert [each.started_at_ms for each in await store.read(limit=2)] == [4_000, 5_000]
    assert [each.started_at_ms for each in await store.read("b", limit=1)] == [4_000]
    assert await store.read("nobody") == []
    with pytest.raises(InvalidInput):
        await store.read(limit=0)
    await store.close()


async def test_the_oldest_segment_goes_first(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock, bytes_per_function=8_000)
    for number in range(200):
        store.append(record(number, text=b"x" * 100))
        if number % 7 == 0:
            await store.flush()
            assert sum(file.stat().st_size for file in files(tmp_path)) <= 8_000 + 400
    found = [each.started_at_ms for each in await store.read()]
    assert found == list(range(200 - len(found), 200))
    assert len(found) >= 20
    assert len(files(tmp_path)) > 2
    await store.close()


async def test_one_loud_function_does_not_push_out_another(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock, bytes_per_function=4_000)
    store.append(record(1, "quiet"))
    for number in range(100):
        store.append(record(number, "loud", b"x" * 100))
    assert len(await store.read("quiet")) == 1
    await store.close()


async def test_a_long_log_is_cut_and_says_so(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock, bytes_per_invocation=11)
    store.append(record(1, text=b"0123456789\nabcdef"))
    store.append(record(2, text="0123456789ä".encode()))
    store.append(record(3, text=b"01234567890"))
    found = [each.lines for each in await store.read()]
    assert found == [
        b"0123456789\n[martlet] log cut: limit log_bytes_per_invocation is 11 bytes, got 17\n",
        b"0123456789\n[martlet] log cut: limit log_bytes_per_invocation is 11 bytes, got 12\n",
        b"01234567890",
    ]
    await store.close()


async def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock)
    store.append(record(1))
    store.append(record(2))
    await store.close()
    [file] = files(tmp_path)
    whole = file.read_bytes()
    for size in range(whole.index(b"\n") + 1, len(whole)):
        file.write_bytes(whole[:size])
        after = LogStore(tmp_path, clock)
        assert [each.started_at_ms for each in await after.read()] == [1]
        after.append(record(3))
        assert [each.started_at_ms for each in await after.read()] == [1, 3]
        await after.close()
        assert len(file.read_bytes().splitlines()) == 2


async def test_a_buffer_that_is_full_drops_and_says_how_many(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock, buffer_bytes=3_000)
    for number in range(10):
        store.append(record(number, text=b"x" * 200))
    assert store.dropped == 6
    found = await store.read()
    assert [each.started_at_ms for each in found[:4]] == [0, 1, 2, 3]
    assert found[4].lines == b"[martlet] 6 records left out: the log's disk is too slow or full\n"
    store.append(record(10))
    assert store.dropped == 6
    await store.close()


async def test_a_disk_that_cannot_write_drops_and_says_so_when_it_can(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "shop-orders").write_text("a file where the folder should be")
    store = LogStore(tmp_path, clock)
    for number in range(3):
        store.append(record(number))
        store.append(record(number, "fine"))
        await store.flush()
    await asyncio.sleep(0)
    assert store.dropped == 3
    assert len(await store.read("fine")) == 3
    (tmp_path / "shop-orders").unlink()
    store.append(record(9))
    found = await store.read("shop-orders")
    assert [each.lines for each in found] == [b"", b"[martlet] 3 records left out: the log's disk is too slow or full\n"]
    assert store.dropped == 3
    await store.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "", "a/b", "%", "ünï", ".hidden", "a.b", "CON\n", "a" * 64])
async def test_any_name_stays_below_the_folder(tmp_path: Path, clock: ManualClock, name: str) -> None:
    store = LogStore(tmp_path / "logs", clock)
    store.append(record(1, name))
    assert [each.function for each in await store.read()] == [name]
    assert [each.function for each in await store.read(name)] == [name]
    await store.close()
    assert len(files(tmp_path)) == len(list((tmp_path / "logs").glob("*/*.jsonl"))) == 1


async def test_an_error_name_that_utf_8_cannot_carry_costs_only_its_own_record(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock)
    store.append(record(1))
    store.append(record(2, error_type="\ud800"))
    store.append(record(3))
    assert [each.started_at_ms for each in await store.read()] == [1, 3]
    assert store.dropped == 1
    await store.close()


async def test_appending_does_not_touch_the_disk(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path / "logs", clock)
    store.append(record(1))
    store.platform("f", "crashed")
    assert not (tmp_path / "logs").exists()
    await asyncio.sleep(logs.FLUSH_MS / 1000)
    await store.flush()
    assert len(files(tmp_path)) == 2
    await store.close()
    store.append(record(2))
    assert store.dropped == 1


async def test_a_follower_gets_old_and_new_exactly_once(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock)
    for number in range(5):
        store.append(record(number))
    found: list[int] = []

    async def follow() -> None:
        async for each in store.follow(since_ms=0):
            found.append(each.started_at_ms)

    task = asyncio.create_task(follow())
    for number in range(5, 60):
        store.append(record(number, f"f{number % 3}"))
        if number % 3 == 0:
            await asyncio.sleep(0)
        if number % 10 == 0:
            await store.flush()
    await store.close()
    await task
    assert sorted(found) == list(range(60))
    assert found[:5] == list(range(5))


async def test_a_follower_of_one_function_gets_only_that_from_now_on(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock)
    store.append(record(1, "a"))
    follower = store.follow("a")
    first = asyncio.create_task(anext(follower))
    await store.flush()
    store.append(record(2, "b"))
    store.append(record(3, "a"))
    assert (await first).started_at_ms == 3  # woken by the batch, not by a poll
    await follower.aclose()
    assert store._followers == set()
    await store.close()


async def test_a_follower_that_is_too_slow_is_told_what_it_missed(tmp_path: Path, clock: ManualClock) -> None:
    store = LogStore(tmp_path, clock, buffer_bytes=3_000)
    follower = store.follow()
    first = asyncio.create_task(anext(follower))
    await store.flush()
    for number in range(1, 13):
        store.append(record(number, text=b"x" * 100))
        await store.flush()
    seen = [await first]
    await store.close()
    seen += [each async for each in follower]
    told = [each.lines for each in seen if each.source == "platform"]
    missed = sum(int(text.split()[1]) for text in told)
    assert told
    assert len(seen) - len(told) + missed == 12
    assert seen[-1].started_at_ms == 12


WRITER = """
import sys
import time
from pathlib import Path
from martlet.clock import ManualClock
from martlet.functions.logs import LogRecord, _encode_all, _Files
files, number = _Files(Path(sys.argv[1]), ManualClock(), 10_000_000), 0
while True:  # batches of many sizes, until somebody kills us
    batch = [LogRecord("f", 1, "id", number + step, lines=b"x" * (number * 37 % 5_000)) for step in range(5)]
    files.write(_encode_all(batch)[0])
    number += 5
"""


def kill_a_writer(path: Path) -> None:
    source = Path(martlet.__file__).parent.parent
    child = subprocess.Popen([sys.executable, "-c", WRITER, path], env={"PYTHONPATH": str(source)})
    while sum(file.stat().st_size for file in files(path)) < 200_000 and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    child.wait()


async def test_killed_while_writing_it_is_readable(tmp_path: Path, clock: ManualClock) -> None:
    kill_a_writer(tmp_path)
    store = LogStore(tmp_path, clock)
    found = [each.started_at_ms for each in await store.read(limit=100_000)]
    assert len(found) > 50
    assert found == list(range(found[0], found[0] + len(found)))
    store.append(record(10**9, "f"))
    assert [each.started_at_ms for each in await store.read(limit=100_000)] == [*found, 10**9]
    await store.close()
