"""Triggers on changes: mappings to collections and to tables' streams, and what their followers do with the records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.triggers.test_sources import BAD, CALLER, GOOD, allow, resolve

from martlet.clock import ManualClock
from martlet.documents import CollectionConfig, Documents
from martlet.errors import MartletError, NotFound, Overloaded, ServiceError
from martlet.queues import Queues
from martlet.store import Store
from martlet.triggers import EventSources, deliveries, followers
from martlet.triggers.followers import Follower, cursor_name
from martlet.triggers.given_up import GivenUp
from martlet.triggers.kinds.changes import Record, failed_from, payload
from martlet.triggers.streams import CollectionChanges, position_at
from martlet.types import AppGraph, ChangesConfig, Invocation, Outcome, QueueConfig

ORDERS = "arn:martlet:documents:us-east-1:000000000000:shop/orders"
STREAM = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:lost"


class Functions:
    """`dispatch` that remembers what it was given, and answers as `answer` says (None: when the test ends it)."""

    def __init__(self) -> None:
        self.runs: list[Invocation] = []
        self.answer: Callable[[list[dict[str, Any]]], Outcome | None] = lambda records: GOOD
        self.now: dict[str, int] = {}
        self.most = 0
        self.changed = asyncio.Event()

    def __call__(self, invocation: Invocation) -> None:
        self.runs.append(invocation)
        records = json.loads(invocation.payload)["Records"]
        self.now[invocation.request_id] = 1
        self.most = max(self.most, len(self.now))
        outcome = self.answer(records)
        if outcome is not None:
            asyncio.get_running_loop().call_soon(self.end, invocation, outcome)
        self.changed.set()

    def end(self, invocation: Invocation, outcome: Outcome = GOOD) -> None:
        self.now.pop(invocation.request_id, None)
        invocation.on_done(invocation, outcome)
        self.changed.set()

    @property
    def flat(self) -> list[str]:
        return [id for ids in self.ids for id in ids]

    @property
    def ids(self) -> list[list[str]]:
        return [[record["id"] for record in json.loads(run.payload)["Records"]] for run in self.runs]


class Destinations:
    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.broken = False

    def check(self, arn: str) -> str:
        return "" if arn == QUEUE else "there is no such queue"

    async def send(self, arn: str, body: bytes) -> None:
        if self.broken:
            raise NotFound("the queue is gone")
        self.got.append((arn, json.loads(body)))


class Streams:
    """Streams whose records are documents' changes, so that positions are the log's."""

    def __init__(self, store: Store) -> None:
        self.inner = CollectionChanges(store, "shop", "orders")
        self.closed = False

    def records(self, arn: str, position: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
        if arn != STREAM:
            raise ServiceError("ResourceNotFoundException", "Requested resource not found")
        found, after = self.inner.read(position)
        made = []
        for one in found:
            image = {
                "Keys": {"id": {"S": json.loads(one.body)["id"]}},
                "SequenceNumber": f"{10**20 + one.seq}",
                "ApproximateCreationDateTime": one.at_ms // 1000,
            }
            made.append({"eventID": f"{one.seq:032x}", "eventName": "INSERT", "dynamodb": image})
        return made, None if self.closed else after


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "_RETRY_SECONDS", (0.001, 0.004))
    monkeypatch.setattr(followers, "_AFTER_ERROR_SECONDS", 0.005)


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture
def destinations() -> Destinations:
    return Destinations()


@pytest.fixture
def documents(store: Store, clock: ManualClock) -> Documents:
    return Documents(store, clock)


@pytest.fixture
async def sources(
    store: Store, clock: ManualClock, functions: Functions, destinations: Destinations
) -> AsyncIterator[EventSources]:
    queues = Queues(store, clock)
    await queues.start()
    room = EventSources(
        store,
        clock,
        queues,
        functions,
        resolve,
        authorize=allow,
        streams=Streams(store),
        destinations=destinations,
        holder="one",
    )
    await room.start()
    yield room
    await room.stop(0.1)
    await queues.stop()


async def create(sources: EventSources, **more: Any) -> str:
    request = {"EventSourceArn": ORDERS, "FunctionName": "f", "StartingPosition": "LATEST", **more}
    answer = await sources.create_event_source_mapping(CALLER, request)
    await sources.settled()
    return str(answer["UUID"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


def cursor(store: Store, uuid: str) -> int:
    return store.read(lambda reader: reader.cursor(cursor_name(uuid)))


# --- what functions get


async def test_a_change_runs_the_function_with_the_documented_event(
    documents: Documents, sources: EventSources, functions: Functions, clock: ManualClock
) -> None:
    await documents.define_collection("shop", "orders", CollectionConfig(changes="new_and_old"))
    await create(sources)
    await documents.put("shop", "other", "x", {"n": 0})
    first = await documents.put("shop", "orders", "a", {"n": 1})
    await until(lambda: len(functions.runs) == 1)
    await documents.put("shop", "orders", "a", {"n": 2})
    await until(lambda: len(functions.runs) == 2)
    await documents.delete("shop", "orders", "a")
    await until(lambda: len(functions.runs) == 3)
    events = [json.loads(run.payload)["Records"] for run in functions.runs]
    assert [len(records) for records in events] == [1, 1, 1]
    (made,), (changed,), (gone,) = events
    assert made == {
        "eventSource": "martlet:documents",
        "seq": made["seq"],
        "at_ms": clock.now_ms(),
        "operation": "put",
        "database": "shop",
        "collection": "orders",
        "id": "a",
        "version": 1,
        "ts": first.stamp,
        "value": {"n": 1},
    }
    assert (changed["value"], changed["old"], changed["version"]) == ({"n": 2}, {"n": 1}, 2)
    assert (gone["operation"], gone["old"], "value" in gone) == ("delete", {"n": 2}, False)
    assert int(made["seq"]) < int(changed["seq"]) < int(gone["seq"])
    assert functions.runs[0].function == "f"


async def test_records_of_a_table_s_stream_have_lambda_s_shape(
    documents: Documents, sources: EventSources, functions: Functions
) -> None:
    await create(sources, EventSourceArn=STREAM)
    await documents.put("shop", "orders", "a", {})
    await until(lambda: len(functions.runs) == 1)
    (record,) = json.loads(functions.runs[0].payload)["Records"]
    assert (record["eventSourceARN"], record["eventName"]) == (STREAM, "INSERT")
    assert record["dynamodb"]["Keys"] == {"id": {"S": "a"}}


async def test_the_changes_of_one_document_come_one_after_the_other(
    documents: Documents, sources: EventSources, functions: Functions
) -> None:
    """While one run holds document "a", its next change waits, and those of others do not."""
    functions.answer = lambda records: None
    await create(sources, BatchSize=1, ParallelizationFactor=10)
    for number in range(3):
        await documents.put("shop", "orders", "a", {"n": number})
    for id in "bcdefgh":
        await documents.put("shop", "orders", id, {})
    await until(lambda: len(functions.runs) >= 4)
    await asyncio.sleep(0.01)
    assert sum(ids == ["a"] for ids in functions.ids) <= 1
    functions.answer = lambda records: GOOD
    ended: set[int] = set()

    def end_all() -> bool:
        for place, run in enumerate(functions.runs):
            if place not in ended and run.request_id in functions.now:
                ended.add(place)
                functions.end(run)
        return len(functions.runs) == 10

    await until(end_all)
    seen = [json.loads(run.payload)["Records"][0] for run in functions.runs]
    assert [record["value"]["n"] for record in seen if record["id"] == "a"] == [0, 1, 2]


@pytest.mark.parametrize("lanes", [1, 3])
async def test_no_more_run_at_one_time_than_said(
    documents: Documents, sources: EventSources, functions: Functions, lanes: int
) -> None:
    for number in range(40):
        await documents.put("shop", "orders", f"{number}", {})
    await create(sources, BatchSize=1, ParallelizationFactor=lanes, StartingPosition="TRIM_HORIZON")
    await until(lambda: len(functions.runs) == 40)
    assert functions.most == lanes


async def test_a_batch_is_what_is_there_up_to_its_size(
    documents: Documents, sources: EventSources, functions: Functions
) -> None:
    functions.answer = lambda records: None
    follower: Any = sources._consumers[await create(sources, BatchSize=4)]
    await documents.put("shop", "orders", "0", {})
    await until(lambda: len(functions.runs) == 1)
    for number in range(1, 7):
        await documents.put("shop", "orders", f"{number}", {})
    await until(lambda: follower._waiting == 7)
    functions.answer = lambda records: GOOD
    functions.end(functions.runs[0])
    await until(lambda: len(functions.runs) == 3)
    assert functions.ids == [["0"], ["1", "2", "3", "4"], ["5", "6"]]


async def test_a_window_lets_records_gather(documents: Documents, sources: EventSources, functions: Functions) -> None:
    await create(sources, BatchSize=3, MaximumBatchingWindowInSeconds=60)
    for id in "ab":
        await documents.put("shop", "orders", id, {})
    await asyncio.sleep(0.02)
    assert not functions.runs
    await documents.put("shop", "orders", "c", {})
    await until(lambda: len(functions.runs) == 1)
    assert functions.ids == [["a", "b", "c"]]


async def test_filters_drop_what_none_of_them_matches(
    store: Store, documents: Documents, sources: EventSources, functions: Functions
) -> None:
    patterns = [{"operation": ["put"], "value": {"sum": [{"numeric": [">", 9]}]}}, {"operation": ["delete"]}]
    uuid = await create(sources, FilterCriteria={"Filters": [{"Pattern": json.dumps(one)} for one in patterns]})
    await documents.put("shop", "orders", "small", {"sum": 1})
    await documents.put("shop", "orders", "large", {"sum": 10})
    await documents.delete("shop", "orders", "small")
    await until(lambda: sum(map(len, functions.ids)) == 2)
    assert functions.flat == ["large", "small"]
    await until(lambda: cursor(store, uuid) == store.head)


# --- where it begins, and goes on


async def test_it_begins_now_at_the_oldest_or_at_a_time(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, clock: ManualClock
) -> None:
    for number in range(5):
        await documents.put("shop", "orders", f"{number}", {})
        clock.advance(10)
    await create(sources, FunctionName="g", StartingPosition="TRIM_HORIZON")
    await until(lambda: sum(map(len, functions.ids)) == 5)
    functions.runs.clear()
    at = (clock.now_ms() - 25_000) / 1000
    await create(sources, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=at)
    await until(lambda: sum(map(len, functions.ids)) == 2)
    assert functions.flat == ["3", "4"]
    functions.runs.clear()
    await create(sources, FunctionName="slow")
    await documents.put("shop", "orders", "new", {})
    await until(lambda: len(functions.runs) == 3)
    assert functions.ids == [["new"]] * 3


async def test_positions_are_found_by_time(store: Store, clock: ManualClock) -> None:
    assert position_at(store, 0) == 0
    began = clock.now_ms()
    for _ in range(9):
        await store.transact(lambda tx: tx.append("t", b"k", b"{}"))
        clock.advance(1)
    assert [position_at(store, began + ms) for ms in (-1, 0, 1, 999, 1_000, 8_000, 8_001)] == [0, 0, 1, 1, 1, 8, 9]


async def test_what_was_done_is_not_given_again_and_what_was_not_is(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, clock: ManualClock
) -> None:
    uuid = await create(sources, BatchSize=1)
    await documents.put("shop", "orders", "done", {})
    await until(lambda: cursor(store, uuid) == store.head)
    functions.answer = lambda records: None
    await documents.put("shop", "orders", "cut short", {})
    await until(lambda: len(functions.runs) == 2)
    await sources.stop(0)
    functions.runs.clear()
    functions.answer = lambda records: GOOD
    again = EventSources(store, clock, Queues(store, clock), functions, resolve, authorize=allow, holder="one")
    await again.start()
    await until(lambda: len(functions.runs) == 1)
    assert functions.ids == [["cut short"]]
    await until(lambda: cursor(store, uuid) == store.head)
    await again.stop()


async def test_a_disabled_mapping_keeps_its_place_but_not_the_log(
    store: Store, documents: Documents, sources: EventSources, functions: Functions
) -> None:
    uuid = await create(sources)
    await documents.put("shop", "orders", "a", {})
    await until(lambda: cursor(store, uuid) == store.head)
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "Enabled": False})
    await sources.settled()
    assert cursor(store, uuid) == 0
    for id in "bc":
        await documents.put("shop", "orders", id, {})
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "Enabled": True})
    await sources.settled()
    await until(lambda: sum(map(len, functions.ids)) == 3)
    assert functions.flat == ["a", "b", "c"]


async def test_what_the_log_no_longer_holds_is_passed(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, clock: ManualClock
) -> None:
    uuid = await create(sources)
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "Enabled": False})
    await sources.settled()
    for id in "abc":
        await documents.put("shop", "orders", id, {})
    clock.advance(100)
    await store.maintain(keep_log_ms=1)
    assert store.first > 1
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "Enabled": True})
    await sources.settled()
    await until(lambda: len(functions.runs) == 1)
    assert functions.ids == [["c"]]  # the last entry is never trimmed


async def test_only_the_holder_of_the_lease_acts(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, clock: ManualClock
) -> None:
    uuid = await create(sources)
    await documents.put("shop", "orders", "a", {})
    await until(lambda: cursor(store, uuid) == store.head)
    mapping = sources._consumers[uuid].mapping
    other = Functions()
    second = Follower(mapping, CollectionChanges(store, "shop", "orders"), store, other, clock, holder="two")
    second.start()
    for id in "bc":
        await documents.put("shop", "orders", id, {})
    await until(lambda: cursor(store, uuid) == store.head)
    assert not other.runs
    assert functions.flat == ["a", "b", "c"]
    await second.stop()


async def test_who_loses_the_lease_leaves_the_cursor_alone(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, clock: ManualClock
) -> None:
    """The records that were in memory come again, from the cursor, once the lease is free."""
    functions.answer = lambda records: None
    uuid = await create(sources, BatchSize=1)
    for id in "ab":
        await documents.put("shop", "orders", id, {})
    await until(lambda: len(functions.runs) == 1)
    before = cursor(store, uuid)
    clock.advance(60)
    assert await store.transact(lambda tx: tx.lease_take(cursor_name(uuid), "thief", 40))
    functions.end(functions.runs[0])  # its end is told to one who may no longer act on it
    await documents.put("shop", "orders", "c", {})
    await asyncio.sleep(0.02)
    assert cursor(store, uuid) == before
    functions.answer = lambda records: GOOD
    clock.advance(1)
    await until(lambda: cursor(store, uuid) >= store.head)
    assert functions.flat[0] == "a"
    assert functions.flat[-3:] == ["a", "b", "c"]


async def test_a_store_that_refuses_for_a_while_ends_nothing(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = await create(sources)
    honest, left = store.transact, [3]

    async def transact(fn: Any) -> Any:
        if left[0] and "followers" in fn.__code__.co_filename:
            left[0] -= 1
            raise Overloaded("the disk is busy")
        return await honest(fn)

    monkeypatch.setattr(store, "transact", transact)
    for id in "abc":
        await documents.put("shop", "orders", id, {})
    await until(lambda: cursor(store, uuid) >= store.head)
    assert functions.flat == ["a", "b", "c"]


# --- failures


async def test_a_failed_batch_comes_again_until_it_is_given_up(
    store: Store, documents: Documents, sources: EventSources, functions: Functions
) -> None:
    functions.answer = lambda records: BAD if records[0]["id"] == "bad" else GOOD
    uuid = await create(sources, BatchSize=1, MaximumRetryAttempts=2)
    for id in ("bad", "good"):
        await documents.put("shop", "orders", id, {})
    await until(lambda: cursor(store, uuid) >= store.head - 1)  # the dead letter is an entry too
    assert functions.ids == [["bad"]] * 3 + [["good"]]
    assert len({run.request_id for run in functions.runs[:3]}) == 1
    (letter,) = store.read(lambda reader: deliveries.dead_letters(reader, None, 10))
    assert (letter.condition, letter.attempts, letter.error_type) == ("RetriesExhausted", 3, "ValueError")
    assert json.loads(bytes(letter.event.payload))["Records"][0]["id"] == "bad"


async def test_bisection_finds_the_bad_record_and_the_others_pass(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, destinations: Destinations
) -> None:
    for number in range(16):
        await documents.put("shop", "orders", f"{number:02}", {})
    functions.answer = lambda records: BAD if any(one["id"] == "11" for one in records) else GOOD
    config = {"OnFailure": {"Destination": QUEUE}}
    asked = {"BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 1, "DestinationConfig": config}
    uuid = await create(sources, StartingPosition="TRIM_HORIZON", **asked)
    await until(lambda: cursor(store, uuid) == store.head)
    ((arn, letter),) = destinations.got
    assert arn == QUEUE
    assert [one["id"] for one in letter["payload"]["Records"]] == ["11"]
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert letter["requestContext"]["approximateInvokeCount"] == 2
    assert letter["documentBatchInfo"]["batchSize"] == 1
    good = [id for ids in functions.ids if "11" not in ids for id in ids]
    assert good == [f"{number:02}" for number in range(16) if number != 11]


async def test_a_destination_that_fails_loses_nothing(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, destinations: Destinations
) -> None:
    destinations.broken = True
    functions.answer = lambda records: BAD
    await create(sources, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": QUEUE}})
    await documents.put("shop", "orders", "a", {})
    await until(lambda: bool(store.read(lambda reader: deliveries.dead_letters(reader, None, 10))))


async def test_records_that_are_too_old_are_given_up_unseen(
    documents: Documents, sources: EventSources, functions: Functions, destinations: Destinations, clock: ManualClock
) -> None:
    await documents.put("shop", "orders", "old", {})
    clock.advance(100)
    await documents.put("shop", "orders", "new", {})
    config = {"OnFailure": {"Destination": QUEUE}}
    await create(sources, StartingPosition="TRIM_HORIZON", MaximumRecordAgeInSeconds=60, DestinationConfig=config)
    await until(lambda: len(functions.runs) == 1)
    assert functions.ids == [["new"]]
    ((_, letter),) = destinations.got
    assert letter["requestContext"]["condition"] == "RecordAgeExceeded"
    assert letter["responseContext"] == {}


async def test_a_reported_failure_comes_again_from_there_on(
    documents: Documents, sources: EventSources, functions: Functions
) -> None:
    for id in "abcd":
        await documents.put("shop", "orders", id, {})

    def answer(records: list[dict[str, Any]]) -> Outcome:
        if len(functions.runs) > 1:
            return GOOD
        failed = [{"itemIdentifier": one["seq"]} for one in records if one["id"] in "cd"]
        return Outcome(json.dumps({"batchItemFailures": failed}).encode())

    functions.answer = answer
    await create(sources, StartingPosition="TRIM_HORIZON", FunctionResponseTypes=["ReportBatchItemFailures"])
    await until(lambda: len(functions.runs) == 2)
    assert functions.ids == [["a", "b", "c", "d"], ["c", "d"]]


async def test_a_busy_platform_is_no_failure(documents: Documents, sources: EventSources, functions: Functions) -> None:
    busy = Outcome(refusal=Overloaded("later"))
    functions.answer = lambda records: busy if len(functions.runs) < 5 else GOOD
    await create(sources, MaximumRetryAttempts=0)
    await documents.put("shop", "orders", "a", {})
    await until(lambda: len(functions.runs) == 5)


async def test_the_backlog_is_bounded(
    store: Store, documents: Documents, sources: EventSources, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "_BACKLOG_RECORDS", 5)
    monkeypatch.setattr("martlet.triggers.streams._READ", 2)
    functions.answer = lambda records: None
    uuid = await create(sources, BatchSize=1)
    for number in range(30):
        await documents.put("shop", "orders", f"{number:02}", {})
    await until(lambda: len(functions.runs) == 1)
    await asyncio.sleep(0.02)
    follower = sources._consumers[uuid]
    assert isinstance(follower, Follower)
    assert follower._waiting <= 6
    functions.answer = lambda records: GOOD
    functions.end(functions.runs[0])
    await until(lambda: len(functions.runs) == 30)
    assert functions.flat == [f"{number:02}" for number in range(30)]


# --- operations


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"StartingPosition": None}, "startingPosition"),
        ({"StartingPosition": "MIDDLE"}, "MIDDLE"),
        ({"StartingPosition": "AT_TIMESTAMP"}, "StartingPositionTimestamp"),
        ({"StartingPositionTimestamp": 1.0}, "AT_TIMESTAMP"),
        ({"ParallelizationFactor": 11}, "ParallelizationFactor"),
        ({"MaximumRetryAttempts": -2}, "MaximumRetryAttempts"),
        ({"MaximumRecordAgeInSeconds": 59}, "MaximumRecordAgeInSeconds"),
        ({"BatchSize": 10_001}, "BatchSize"),
        ({"TumblingWindowInSeconds": 30}, "TumblingWindowInSeconds"),
        ({"ScalingConfig": {"MaximumConcurrency": 2}}, "ScalingConfig"),
        ({"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:none"}}}, "no such queue"),
        ({"EventSourceArn": "arn:martlet:documents:us-east-1:000000000000:orders"}, "collection"),
        ({"EventSourceArn": STREAM.replace("/t/", "/other/")}, "Stream not found under ARN"),
        ({"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s"}, "kinesis"),
        ({"FilterCriteria": {"Filters": [{"Pattern": "{"}]}}, "filter pattern"),
    ],
)
async def test_refused_by_name(sources: EventSources, asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ServiceError, match=text) as caught:
        await create(sources, **asked)
    assert caught.value.name == "InvalidParameterValueException"


async def test_a_mapping_is_shown_with_what_streams_have(
    sources: EventSources, documents: Documents, functions: Functions
) -> None:
    uuid = await create(sources)
    shown = await sources.get_event_source_mapping(CALLER, {"UUID": uuid})
    assert (shown["BatchSize"], shown["StartingPosition"], shown["LastProcessingResult"]) == (
        100,
        "LATEST",
        "No records processed",
    )
    assert (shown["MaximumRetryAttempts"], shown["MaximumRecordAgeInSeconds"], shown["ParallelizationFactor"]) == (-1, -1, 1)
    await documents.put("shop", "orders", "a", {})
    await until(lambda: len(functions.runs) == 1)
    await asyncio.sleep(0.005)
    shown = await sources.get_event_source_mapping(CALLER, {"UUID": uuid})
    assert shown["LastProcessingResult"] == "OK"
    with pytest.raises(ServiceError, match="already exists"):
        await create(sources)


async def test_a_deleted_mapping_lets_go_of_the_log(store: Store, sources: EventSources, documents: Documents) -> None:
    uuid = await create(sources)
    await documents.put("shop", "orders", "a", {})
    await sources.delete_event_source_mapping(CALLER, {"UUID": uuid})
    await sources.settled()
    assert cursor(store, uuid) == 0


# --- apps


async def test_an_app_s_triggers_are_kept_as_it_says(
    store: Store, sources: EventSources, documents: Documents, functions: Functions, destinations: Destinations
) -> None:
    one = ChangesConfig(collection="orders", function="mail", batch_size=5)
    await sources.consume("shop", AppGraph(changes=(one,)))
    await sources.settled()
    await documents.put("shop", "orders", "a", {})
    await until(lambda: len(functions.runs) == 1)
    assert functions.runs[0].function == "shop-mail"
    await sources.consume("shop", AppGraph(changes=(ChangesConfig(collection="orders", function="mail", batch_size=7),)))
    await sources.settled()
    await documents.put("shop", "orders", "b", {})
    await until(lambda: len(functions.runs) == 2)
    assert functions.ids == [["a"], ["b"]]
    await sources.consume("shop", AppGraph())
    await sources.settled()
    assert (await sources.list_event_source_mappings(CALLER, {}))["EventSourceMappings"] == []
    lost = ChangesConfig(collection="orders", function="mail", on_failure="queue:lost")
    with pytest.raises(ServiceError, match="no such queue"):
        await sources.prepare("shop", AppGraph(changes=(lost,), queues=(QueueConfig(name="lost"),)))


# --- destinations


async def test_given_up_batches_go_to_queues_and_functions(store: Store, clock: ManualClock) -> None:
    queues = Queues(store, clock)
    await queues.start()
    await queues.create("lost")
    await queues.create("lost.fifo", {"FifoQueue": "true"})
    ran: list[tuple[str, bytes]] = []

    async def enqueue(name: str, payload: bytes, request_id: str) -> None:
        ran.append((name, payload))

    room = GivenUp(queues, resolve, enqueue)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:"
    assert [room.check(one) for one in (QUEUE, QUEUE + ".fifo", arn + "f")] == ["", "", ""]
    wrong = (QUEUE + "2", arn + "none", "arn:aws:s3:::bucket")
    assert [room.check(one).split()[-1] for one in wrong] == ["queue", "function", "functions"]
    for target in (QUEUE, QUEUE + ".fifo", arn + "f:live"):
        await room.send(target, b'{"a":1}')
    assert ran == [("f:live", b'{"a":1}')]
    for name in ("lost", "lost.fifo"):
        (received,) = await queues.receive(name, 10)
        assert received.message.body == '{"a":1}'
    for target in (QUEUE + "2", QUEUE):
        with pytest.raises(MartletError):
            await room.send(target, b"x" * 2_000_000)
    await queues.stop()


# --- pure


def record(seq: int) -> Record:
    return Record(seq, 0, b"k", str(seq), b'{"seq":"%d"}' % seq)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        (b"", None),
        (b"null", None),
        (b"{}", None),
        (b'{"batchItemFailures":[]}', None),
        (b'{"batchItemFailures":[{"itemIdentifier":"3"},{"itemIdentifier":"2"}]}', 1),
        (b'{"batchItemFailures":[{"itemIdentifier":"9"}]}', 0),
        (b'{"batchItemFailures":[{}]}', 0),
        (b'{"batchItemFailures":{}}', 0),
        (b'{"batchItemFailures":[7]}', 0),
        (b"[[[", 0),
        (b'"text"', 0),
    ],
)
def test_answers(answer: bytes, place: int | None) -> None:
    assert failed_from(answer, [record(1), record(2), record(3)]) == place


def test_payload_of_records() -> None:
    assert payload([record(1), record(2)]) == b'{"Records":[{"seq":"1"},{"seq":"2"}]}'
