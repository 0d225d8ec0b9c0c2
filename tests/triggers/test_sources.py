"""Event source mappings: their operations and states, and what their consumers do with a queue's messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from martlet.clock import ManualClock
from martlet.errors import AccessDenied, NotFound, ServiceError, Throttled
from martlet.queues import Queues
from martlet.queues.queues import Draft
from martlet.store import Store
from martlet.triggers import EventSources, Target
from martlet.triggers.sources import OPERATIONS
from martlet.types import Invocation, Outcome, Principal

ARN = "arn:aws:sqs:us-east-1:000000000000:"
CALLER = SimpleNamespace(principal=Principal("root", "root"))
GOOD = Outcome(b"null")
BAD = Outcome(b'{"errorMessage":"no","errorType":"ValueError"}', "Unhandled", "ValueError")


class Functions:
    """`dispatch` that remembers each run, and ends it by `answer` (None: when the test says)."""

    def __init__(self) -> None:
        self.runs: list[Invocation] = []
        self.answer: Callable[[list[dict[str, Any]]], Outcome | None] = lambda records: GOOD
        self.most = 0
        self.now = 0
        self._changed = asyncio.Event()

    def __call__(self, invocation: Invocation) -> None:
        self.runs.append(invocation)
        self.now += 1
        self.most = max(self.most, self.now)
        self._changed.set()
        outcome = self.answer(json.loads(invocation.payload)["Records"])
        if outcome is not None:
            self.end(invocation, outcome)

    def end(self, invocation: Invocation, outcome: Outcome = GOOD) -> None:
        self.now -= 1
        asyncio.get_running_loop().call_soon(invocation.on_done, invocation, outcome)

    @property
    def bodies(self) -> list[list[str]]:
        return [[record["body"] for record in json.loads(run.payload)["Records"]] for run in self.runs]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.runs) < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture
async def queues(store: Store, clock: ManualClock) -> AsyncIterator[Queues]:
    room = Queues(store, clock)
    await room.start()
    await room.create("q")
    yield room
    await room.stop()


def allow(principal: Principal, action: str, resource: str) -> None:
    if principal.kind != "root":
        raise AccessDenied(f"{principal.name} may not {action} on {resource}")


def resolve(reference: str) -> Target | None:
    name = reference.rpartition("function:")[2]
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    return Target(name, arn, 60 if name == "slow" else 3) if name in ("f", "g", "slow", "f:live") else None


@pytest.fixture
async def sources(store: Store, clock: ManualClock, queues: Queues, functions: Functions) -> AsyncIterator[EventSources]:
    room = EventSources(store, clock, queues, functions, resolve, authorize=allow)
    await room.start()
    yield room
    await room.stop(0.1)


async def create(sources: EventSources, queue: str = "q", **more: Any) -> str:
    request = {"EventSourceArn": ARN + queue, "FunctionName": "f", **more}
    answer = await sources.create_event_source_mapping(CALLER, request)
    await sources.settled()
    return str(answer["UUID"])


async def send(queues: Queues, *bodies: str, name: str = "q") -> None:
    await queues.send(name, [Draft(body=body, group=body[0], deduplication_id=body) for body in bodies])


async def drained(queues: Queues, name: str = "q") -> None:
    async with asyncio.timeout(10):
        while any(_of(await queues.counts(name))):  # noqa: ASYNC110 - a queue tells nobody that it is empty
            await asyncio.sleep(0.002)


def _of(counts: Any) -> tuple[int, int, int]:
    return counts.ready, counts.in_flight, counts.delayed


# --- operations


async def test_a_mapping_s_life(sources: EventSources, clock: ManualClock) -> None:
    made = await sources.create_event_source_mapping(CALLER, {"EventSourceArn": ARN + "q", "FunctionName": "f"})
    uuid = made["UUID"]
    assert made == {
        "UUID": uuid,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": ARN + "q",
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}",
        "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "FunctionResponseTypes": [],
        "LastModified": 1_700_000_000.0,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
    }
    await sources.settled()
    assert (await sources.get_event_source_mapping(CALLER, {"UUID": uuid}))["State"] == "Enabled"
    states = []
    for change in ({"Enabled": False}, {"Enabled": True}, {"BatchSize": 5}):
        states.append((await sources.update_event_source_mapping(CALLER, {"UUID": uuid, **change}))["State"])
        await sources.settled()
        states.append((await sources.get_event_source_mapping(CALLER, {"UUID": uuid}))["State"])
    assert states == ["Disabling", "Disabled", "Enabling", "Enabled", "Updating", "Enabled"]
    assert (await sources.delete_event_source_mapping(CALLER, {"UUID": uuid}))["State"] == "Deleting"
    await sources.settled()
    for operation in (
        sources.get_event_source_mapping,
        sources.update_event_source_mapping,
        sources.delete_event_source_mapping,
    ):
        with pytest.raises(ServiceError) as caught:
            await operation(CALLER, {"UUID": uuid})
        assert (caught.value.name, caught.value.http_status) == ("ResourceNotFoundException", 404)
        assert caught.value.message == "The resource you requested does not exist."


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"EventSourceArn": None}, "Unrecognized event source."),
        ({"FunctionName": "nope"}, "Function does not exist"),
        ({"EventSourceArn": ARN + "nope"}, "SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."),
        ({"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s"}, "Unsupported event source"),
        ({"FunctionName": "slow"}, "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds"),
        ({"BatchSize": 11}, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        ({"BatchSize": 0}, "BatchSize"),
        ({"BatchSize": 10_001, "MaximumBatchingWindowInSeconds": 1}, "BatchSize"),
        ({"MaximumBatchingWindowInSeconds": 301}, "MaximumBatchingWindowInSeconds"),
        ({"ScalingConfig": {"MaximumConcurrency": 1}}, "MaximumConcurrency"),
        ({"ScalingConfig": {"MaximumConcurrency": 1001}}, "MaximumConcurrency"),
        ({"StartingPosition": "LATEST"}, "Unsupported StartingPosition parameter for given event source mapping type."),
        ({"DestinationConfig": {"OnFailure": {"Destination": "x"}}}, "Unsupported DestinationConfig parameter"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 2}}, "ProvisionedPollerConfig is not supported by Martlet."),
        *(
            ({"FilterCriteria": {"Filters": [{"Pattern": pattern}]}}, "Invalid filter pattern definition.")
            for pattern in ("null", "simple string", '{"eventSource": "aws:sqs"}', '{"eventSource": []}', "", "[]")
        ),
        ({"FilterCriteria": {"Filters": [{"Pattern": "{}"}] * 11}}, "exceeds the limit"),
    ],
)
async def test_mappings_that_are_refused(sources: EventSources, request_: dict[str, Any], text: str) -> None:
    request = {"EventSourceArn": ARN + "q", "FunctionName": "f", **request_}
    with pytest.raises(ServiceError) as caught:
        await sources.create_event_source_mapping(CALLER, request)
    assert (caught.value.name, text in caught.value.message) == ("InvalidParameterValueException", True), caught.value.message
    assert (await sources.list_event_source_mappings(CALLER, {}))["EventSourceMappings"] == []


async def test_fifo_queues_have_bounds_of_their_own(sources: EventSources, queues: Queues) -> None:
    await queues.create("q.fifo", {"FifoQueue": "true"})
    for bad in ({"MaximumBatchingWindowInSeconds": 1}, {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 1}):
        with pytest.raises(ServiceError):
            await create(sources, "q.fifo", **bad)


async def test_one_mapping_for_a_queue_and_a_function(sources: EventSources) -> None:
    uuid = await create(sources)
    with pytest.raises(ServiceError) as caught:
        await create(sources)
    assert (caught.value.name, caught.value.http_status) == ("ResourceConflictException", 409)
    assert caught.value.message == (
        f'An event source mapping with SQS arn (" {ARN}q ") and function (" f ") already exists. '
        f"Please update or delete the existing mapping with UUID {uuid}"
    )
    await create(sources, FunctionName="arn:aws:lambda:us-east-1:000000000000:function:f:live")
    await create(sources, FunctionName="g")


async def test_mappings_are_listed_by_page_and_by_what_they_join(sources: EventSources, queues: Queues) -> None:
    await queues.create("other")
    made = [await create(sources), await create(sources, FunctionName="g"), await create(sources, "other")]
    first = await sources.list_event_source_mappings(CALLER, {"MaxItems": 2})
    rest = await sources.list_event_source_mappings(CALLER, {"Marker": first["NextMarker"]})
    both = [one["UUID"] for one in first["EventSourceMappings"] + rest["EventSourceMappings"]]
    assert both == sorted(made)
    by_queue = await sources.list_event_source_mappings(CALLER, {"EventSourceArn": ARN + "other"})
    by_function = await sources.list_event_source_mappings(CALLER, {"FunctionName": "f"})
    assert [one["UUID"] for one in by_queue["EventSourceMappings"]] == [made[2]]
    assert {one["UUID"] for one in by_function["EventSourceMappings"]} == {made[0], made[2]}


async def test_who_may_not_is_refused(sources: EventSources) -> None:
    stranger = SimpleNamespace(principal=Principal("function", "f"))
    for name in OPERATIONS:
        with pytest.raises(AccessDenied):
            await getattr(sources, name)(stranger, {"UUID": "x"})


# --- consumers


async def test_messages_reach_the_function_and_are_gone(sources: EventSources, queues: Queues, functions: Functions) -> None:
    await create(sources)
    await send(queues, *map(str, range(25)))
    await drained(queues)
    assert [len(batch) for batch in functions.bodies] == [10, 10, 5]
    assert sorted((body for batch in functions.bodies for body in batch), key=int) == [str(at) for at in range(25)]
    assert {run.source for run in functions.runs} == {"sqs"}


async def test_what_was_there_before_the_mapping_is_delivered_too(
    sources: EventSources, queues: Queues, functions: Functions
) -> None:
    await send(queues, "early")
    await create(sources)
    await drained(queues)
    assert functions.bodies == [["early"]]


async def test_a_failed_batch_comes_again_after_its_visibility_and_then_is_dead(
    sources: EventSources, queues: Queues, functions: Functions, clock: ManualClock
) -> None:
    await queues.create("dead")
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": 2})
    await queues.set_attributes("q", {"RedrivePolicy": policy})
    functions.answer = lambda records: BAD if records[0]["body"] == "poison" else GOOD
    await create(sources, BatchSize=1)
    for turn in range(2):
        await send(queues, *(["poison"] if not turn else []), f"neighbour {turn}")
        await functions.until(2 * (turn + 1))
        clock.advance(30)
    await send(queues, "last")
    await drained(queues)
    assert sorted(body for batch in functions.bodies for body in batch) == [
        "last",
        "neighbour 0",
        "neighbour 1",
        "poison",
        "poison",
    ]
    (letter,) = await queues.receive("dead", wait_ms=0)
    assert letter.message.body == "poison"


async def test_only_reported_messages_come_again(
    sources: EventSources, queues: Queues, functions: Functions, clock: ManualClock
) -> None:
    def answer(records: list[dict[str, Any]]) -> Outcome:
        failed = [{"itemIdentifier": one["messageId"]} for one in records if one["body"] == "2"]
        return Outcome(json.dumps({"batchItemFailures": failed}).encode())

    functions.answer = answer
    await create(sources, FunctionResponseTypes=["ReportBatchItemFailures"])
    await send(queues, "1", "2", "3")
    await functions.until(1)
    await asyncio.sleep(0.02)
    assert _of(await queues.counts("q")) == (0, 1, 0)
    functions.answer = lambda records: GOOD
    clock.advance(30)
    await send(queues, "4")
    await drained(queues)
    assert any("2" in batch for batch in functions.bodies[1:])


async def test_filtered_messages_are_deleted_unseen(sources: EventSources, queues: Queues, functions: Functions) -> None:
    pattern = json.dumps({"body": {"kind": ["order"]}})
    await create(sources, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    await send(queues, '{"kind":"order"}', '{"kind":"noise"}', "plain")
    await drained(queues)
    assert functions.bodies == [['{"kind":"order"}']]


async def test_a_window_fills_a_batch(sources: EventSources, queues: Queues, functions: Functions) -> None:
    await create(sources, BatchSize=100, MaximumBatchingWindowInSeconds=1)
    for at in range(4):
        await send(queues, *(f"{at}-{n}" for n in range(25)))
    await drained(queues)
    assert [len(batch) for batch in functions.bodies] == [100]


async def test_no_more_batches_than_allowed_at_one_time(sources: EventSources, queues: Queues, functions: Functions) -> None:
    functions.answer = lambda records: None
    await create(sources, BatchSize=1, ScalingConfig={"MaximumConcurrency": 3})
    await send(queues, *map(str, range(12)))
    await functions.until(3)
    await asyncio.sleep(0.02)
    assert functions.now == 3
    for _ in range(12):
        await functions.until(1)
        running = functions.runs.pop(0)
        functions.end(running)
        await asyncio.sleep(0.005)
    await drained(queues)
    assert functions.most == 3


async def test_concurrency_grows_with_the_backlog(sources: EventSources, queues: Queues, functions: Functions) -> None:
    functions.answer = lambda records: None
    await create(sources, BatchSize=1)
    await send(queues, *map(str, range(200)))
    for ended in range(60):
        await functions.until(ended + 1)
        functions.end(functions.runs[ended])
        await asyncio.sleep(0.002)
    assert functions.now > 5
    for run in functions.runs[60:]:
        functions.end(run)


async def test_a_throttled_batch_is_given_back_and_does_not_count(
    sources: EventSources, queues: Queues, functions: Functions
) -> None:
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": 1})
    await queues.create("dead")
    await queues.set_attributes("q", {"RedrivePolicy": policy})
    busy = iter([Throttled("busy")] * 3)

    def answer(records: list[dict[str, Any]]) -> Outcome:
        error = next(busy, None)
        return GOOD if error is None else Outcome(refusal=error)

    functions.answer = answer
    await create(sources)
    await send(queues, "patient")
    await drained(queues)
    assert functions.bodies == [["patient"]] * 4
    last = json.loads(functions.runs[-1].payload)["Records"][0]
    assert last["attributes"]["ApproximateReceiveCount"] == "1"
    assert (await queues.counts("dead")).ready == 0


async def test_a_function_that_is_gone_leaves_messages_to_their_timeout(
    sources: EventSources, queues: Queues, functions: Functions
) -> None:
    functions.answer = lambda records: Outcome(refusal=NotFound("no such function"))
    await create(sources)
    await send(queues, "kept")
    await functions.until(1)
    await asyncio.sleep(0.02)
    assert _of(await queues.counts("q")) == (0, 1, 0)


async def test_fifo_groups_stay_in_order_and_run_beside_each_other(
    sources: EventSources, queues: Queues, functions: Functions
) -> None:
    await queues.create("q.fifo", {"FifoQueue": "true"})
    functions.answer = lambda records: None
    await send(queues, "a1", "a2", "b1", name="q.fifo")
    await create(sources, "q.fifo", BatchSize=1)
    await functions.until(2)
    await asyncio.sleep(0.02)
    assert functions.bodies == [["a1"], ["b1"]]
    functions.end(functions.runs[0])
    await functions.until(3)
    assert functions.bodies[2] == ["a2"]
    for run in functions.runs[1:]:
        functions.end(run)
    await drained(queues, "q.fifo")


async def test_a_fifo_batch_that_makes_several_events_ends_with_the_first_that_failed(
    sources: EventSources, queues: Queues, functions: Functions, clock: ManualClock
) -> None:
    """What follows in the failed one's group would overtake it."""
    await queues.create("q.fifo", {"FifoQueue": "true"})
    large = [f"a{number}{'x' * 1_000_000}" for number in range(8)]
    functions.answer = lambda records: BAD if len(functions.runs) == 1 else GOOD
    await queues.send("q.fifo", [Draft(body=body, group="a", deduplication_id=body[:2]) for body in large])
    await create(sources, "q.fifo")
    await functions.until(1)
    async with asyncio.timeout(10):
        while (await queues.counts("q.fifo")).ready != 8 - len(functions.bodies[0]):  # noqa: ASYNC110 - given back
            await asyncio.sleep(0.002)
    assert len(functions.runs) == 1
    clock.advance(30)
    queues._waiting.wake("q.fifo")
    await drained(queues, "q.fifo")
    ran = [body[:2] for bodies in functions.bodies[1:] for body in bodies]
    assert ran == [f"a{number}" for number in range(8)]


@pytest.mark.parametrize("name", ["q", "q.fifo"])
async def test_a_poison_message_does_not_hold_up_its_neighbours(
    sources: EventSources, queues: Queues, functions: Functions, clock: ManualClock, name: str
) -> None:
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    await queues.create("dead.fifo" if fifo else "dead", fifo)
    policy = {"deadLetterTargetArn": ARN + ("dead.fifo" if fifo else "dead"), "maxReceiveCount": 2}
    await queues.create(name, fifo)
    await queues.set_attributes(name, {"RedrivePolicy": json.dumps(policy)})
    functions.answer = lambda records: BAD if records[0]["body"] == "poison" else GOOD
    await create(sources, name, BatchSize=1)
    await send(queues, "poison", *(f"{number}" for number in range(100)), name=name)
    await functions.until(101)
    async with asyncio.timeout(10):
        while _of(await queues.counts(name)) != (0, 1, 0):  # noqa: ASYNC110 - the others are done, the poison waits
            await asyncio.sleep(0.002)
        for _ in range(2):
            clock.advance(30)
            queues._waiting.wake(name)
            while (await queues.counts(name)).ready:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
    await drained(queues, name)
    assert functions.bodies.count(["poison"]) == 2
    assert (await queues.counts("dead.fifo" if fifo else "dead")).ready == 1


async def test_paused_it_takes_nothing_and_resumed_it_goes_on(
    sources: EventSources, queues: Queues, functions: Functions
) -> None:
    uuid = await create(sources)
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "Enabled": False})
    await sources.settled()
    await send(queues, "waits")
    await asyncio.sleep(0.02)
    assert (functions.runs, _of(await queues.counts("q"))) == ([], (1, 0, 0))
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "Enabled": True})
    await drained(queues)
    assert functions.bodies == [["waits"]]


async def test_a_batch_that_runs_ends_well_while_its_mapping_changes(
    sources: EventSources, queues: Queues, functions: Functions
) -> None:
    functions.answer = lambda records: None
    uuid = await create(sources)
    await send(queues, "one")
    await functions.until(1)
    await sources.update_event_source_mapping(CALLER, {"UUID": uuid, "FunctionName": "g"})
    await sources.settled()
    functions.end(functions.runs[0])
    functions.answer = lambda records: GOOD
    await send(queues, "two")
    await drained(queues)
    assert [(run.function, body) for run, body in zip(functions.runs, functions.bodies, strict=True)] == [
        ("f", ["one"]),
        ("g", ["two"]),
    ]


async def test_a_restart_goes_on_and_finishes_what_was_under_way(
    store: Store, clock: ManualClock, queues: Queues, functions: Functions
) -> None:
    first = EventSources(store, clock, queues, functions, resolve, authorize=allow)
    await first.start()
    kept = (await first.create_event_source_mapping(CALLER, {"EventSourceArn": ARN + "q", "FunctionName": "f"}))["UUID"]
    gone = (await first.create_event_source_mapping(CALLER, {"EventSourceArn": ARN + "q", "FunctionName": "g"}))["UUID"]
    await first.settled()
    first._soon = lambda uuid: None  # type: ignore[method-assign]  # the process dies before the next step
    await first.delete_event_source_mapping(CALLER, {"UUID": gone})
    await first.update_event_source_mapping(CALLER, {"UUID": kept, "BatchSize": 3})
    await first.stop(0.1)
    second = EventSources(store, clock, queues, functions, resolve, authorize=allow)
    await second.start()
    found = (await second.list_event_source_mappings(CALLER, {}))["EventSourceMappings"]
    assert [(one["UUID"], one["State"], one["BatchSize"]) for one in found] == [(kept, "Enabled", 3)]
    await send(queues, "after")
    await drained(queues)
    assert {run.function for run in functions.runs} == {"f"}
    await second.stop(0.1)


async def test_a_mapping_whose_queue_is_gone_waits_for_it(sources: EventSources, queues: Queues, functions: Functions) -> None:
    uuid = await create(sources)
    await queues.delete("q")
    await asyncio.sleep(0.02)
    assert (await sources.get_event_source_mapping(CALLER, {"UUID": uuid}))["State"] == "Enabled"
    assert functions.runs == []


async def test_tags_of_a_mapping(sources: EventSources) -> None:
    made = await sources.create_event_source_mapping(
        CALLER, {"EventSourceArn": ARN + "q", "FunctionName": "f", "Tags": {"a": "1"}}
    )
    arn = made["EventSourceMappingArn"]
    await sources.tag_resource(CALLER, {"Resource": arn, "Tags": {"b": "2"}})
    await sources.untag_resource(CALLER, {"Resource": arn, "TagKeys": ["a"]})
    assert await sources.list_tags(CALLER, {"Resource": arn}) == {"Tags": {"b": "2"}}
    with pytest.raises(ServiceError, match="Event source mapping not found"):
        await sources.list_tags(CALLER, {"Resource": arn[:-1] + "x"})
    with pytest.raises(ServiceError, match="exceeds resource tag limit"):
        await sources.tag_resource(CALLER, {"Resource": arn, "Tags": {f"t{number}": "" for number in range(51)}})


async def test_what_is_for_streams_is_refused_before_anything_is_looked_up(sources: EventSources) -> None:
    request = {"EventSourceArn": ARN + "nope", "FunctionName": "nope", "DestinationConfig": {"OnSuccess": {"Destination": "x"}}}
    with pytest.raises(ServiceError, match="Unsupported DestinationConfig parameter for given event source mapping type"):
        await sources.create_event_source_mapping(CALLER, request)
