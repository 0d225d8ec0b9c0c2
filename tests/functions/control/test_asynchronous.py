"""Asynchronous invocation: acknowledged is durable, retries by the clock, and every event ends somewhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.functions.control.world import World, archive, caller

from martlet.clock import ManualClock
from martlet.errors import NotFound, Overloaded, ServiceError
from martlet.functions import asynchronous
from martlet.functions.lineage import passed_through
from martlet.functions.sandboxes.inside import frames

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
ERROR = json.dumps({"errorMessage": "boom", "errorType": "ValueError"}).encode()


class Calls:
    """What the functions were called with, and how each call ends (True: well)."""

    def __init__(self, world: World, *ends: bool, default: bool = True) -> None:
        self.events: list[tuple[str, Any]] = []
        self._ends = list(ends)
        self._default = default
        world.host.handler = self._answer

    def _answer(self, init: dict[str, Any], payload: bytes) -> tuple[int, bytes]:
        self.events.append((init["function_name"], json.loads(payload)))
        well = self._ends.pop(0) if self._ends else self._default
        return (frames.RESULT, b'{"ok": true}') if well else (frames.ERROR, ERROR)

    def of(self, name: str) -> list[Any]:
        return [event for function, event in self.events if function == name]


async def send(world: World, payload: bytes = b'{"n": 1}', name: str = "f", **more: Any) -> None:
    answer = await world.call("invoke", FunctionName=name, InvocationType="Event", Payload=payload, **more)
    assert answer == {"StatusCode": 202}


async def test_an_event_runs_once_and_is_gone(world: World) -> None:
    calls = Calls(world)
    await world.create()
    await send(world)
    await world.control.asynchronous.run_due()
    assert calls.events == [("f", {"n": 1})]
    assert world.control.asynchronous.count == 0


async def test_two_retries_after_one_and_two_minutes(world: World, clock: ManualClock) -> None:
    calls = Calls(world, default=False)
    await world.create()
    await send(world)
    counts = []
    for seconds in (0, 59, 1, 119, 1, 600):
        clock.advance(seconds)
        await world.control.asynchronous.run_due()
        counts.append(len(calls.events))
    assert counts == [1, 1, 2, 2, 3, 3]
    assert world.control.asynchronous.count == 0


async def test_the_record_of_a_failure_at_another_function(world: World, clock: ManualClock) -> None:
    calls = Calls(world, False)
    await world.create()
    await world.create("other")
    await world.call(
        "put_function_event_invoke_config",
        FunctionName="f",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": f"{ARN}other"}},
    )
    await world.call("invoke", caller(request_id="r-1"), FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    await world.control.asynchronous.run_due()
    (record,) = calls.of("other")
    assert record.pop("timestamp") == "2026-11-21T00:00:00.000Z"
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": "r-1",
            "functionArn": f"{ARN}f:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "boom", "errorType": "ValueError"},
    }


@pytest.mark.parametrize("arn", ["arn:aws:s3:::bucket", "kafka://topic"])
async def test_a_destination_that_nothing_reaches_is_refused(world: World, arn: str) -> None:
    await world.create()
    destination = {"OnFailure": {"Destination": arn}}
    with pytest.raises(ServiceError, match="not supported by Martlet: functions, queues, topics and buses are"):
        await world.call("put_function_event_invoke_config", FunctionName="f", DestinationConfig=destination)


async def test_the_record_of_a_success(world: World) -> None:
    calls = Calls(world)
    await world.create()
    await world.create("other")
    destination = {"OnSuccess": {"Destination": f"{ARN}other:$LATEST"}}
    await world.call("put_function_event_invoke_config", FunctionName="f", DestinationConfig=destination)
    await send(world)
    await world.control.asynchronous.run_due()
    (record,) = calls.of("other")
    assert record["requestContext"]["condition"] == "Success"
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert record["responsePayload"] == {"ok": True}


async def test_an_event_that_would_be_too_old_for_its_retry_fails_at_once(world: World) -> None:
    calls = Calls(world, False)
    await world.create()
    await world.create("other")
    await world.call(
        "put_function_event_invoke_config",
        FunctionName="f",
        MaximumEventAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": f"{ARN}other"}},
    )
    await send(world)
    world.clock.advance(0.001)  # type: ignore[attr-defined]
    await world.control.asynchronous.run_due()
    (record,) = calls.of("other")
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responsePayload"]["errorMessage"] == "boom"


async def test_a_function_that_is_switched_off_sends_its_events_on(world: World) -> None:
    calls = Calls(world)
    await world.create()
    await world.create("other")
    await world.call(
        "put_function_event_invoke_config", FunctionName="f", DestinationConfig={"OnFailure": {"Destination": f"{ARN}other"}}
    )
    await world.call("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    await send(world)
    await world.control.asynchronous.run_due()
    (record,) = calls.of("other")
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert not {"responseContext", "responsePayload"} & set(record)


async def test_throttled_events_wait_longer_and_longer_and_do_not_count_as_tries(world: World, clock: ManualClock) -> None:
    calls = Calls(world)
    await world.create()
    real, refusals = world.functions.dispatch, 6

    def dispatch(invocation: Any) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals < 0:
            real(invocation)
        else:
            raise Overloaded("no room")

    world.functions.dispatch = dispatch  # type: ignore[method-assign]
    await send(world)
    waited = 0
    while not calls.events:
        await world.control.asynchronous.run_due()
        clock.advance(1)
        waited += 1
        assert waited < 200
    assert waited > 15, "1 + 2 + 4 + 8 + 16 + 32 seconds, less some chance"
    assert world.control.asynchronous.count == 0


async def test_throttled_until_it_is_too_old(world: World, clock: ManualClock) -> None:
    await world.create()
    world.functions.dispatch = lambda invocation: (_ for _ in ()).throw(Overloaded("no room"))  # type: ignore[method-assign]
    await world.call("put_function_event_invoke_config", FunctionName="f", MaximumEventAgeInSeconds=60)
    await world.call("invoke", caller(request_id="r"), FunctionName="f", InvocationType="Event")
    for _ in range(70):
        await world.control.asynchronous.run_due()
        clock.advance(1)
    assert world.control.asynchronous.count == 0
    assert world.control.failures.get("r").error_type == "EventAgeExceeded"


async def test_queues_and_dead_letters_are_reached_through_deliver(tmp_path: Path, clock: ManualClock) -> None:
    world = World(tmp_path, clock)
    sent: list[tuple[str, dict[str, Any]]] = []

    async def deliver(arn: str, record: dict[str, Any]) -> None:
        sent.append((arn, record))

    world.deliver = deliver
    await world.start()
    Calls(world, False)
    await world.create(DeadLetterConfig={"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"})
    await world.call(
        "put_function_event_invoke_config",
        FunctionName="f",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sns:us-east-1:000000000000:topic"}},
    )
    await world.call("invoke", caller(request_id="r-1"), FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    await world.control.asynchronous.run_due()
    letters = dict(sent)
    assert letters["arn:aws:sns:us-east-1:000000000000:topic"]["requestContext"]["condition"] == "RetriesExhausted"
    assert letters["arn:aws:sqs:us-east-1:000000000000:dead"] == {
        "Body": '{"n": 1}',
        "MessageAttributes": {
            "RequestID": {"DataType": "String", "StringValue": "r-1"},
            "ErrorCode": {"DataType": "Number", "StringValue": "200"},
            "ErrorMessage": {"DataType": "String", "StringValue": "boom"},
        },
    }
    await world.stop()


async def test_destinations_that_cannot_be_reached_are_refused_when_they_are_named(world: World) -> None:
    await world.create()
    name, message = await world.fails(
        "put_function_event_invoke_config",
        FunctionName="f",
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}},
    )
    assert (name, message) == (
        "InvalidParameterValueException",
        "The destination arn:aws:sqs:us-east-1:000000000000:q is not supported by Martlet yet: only functions are.",
    )


async def test_events_outlive_the_process_and_run_after_the_restart(tmp_path: Path, clock: ManualClock) -> None:
    world = await World(tmp_path, clock).start()
    calls = Calls(world, default=False)
    await world.create()
    await send(world)
    await world.control.asynchronous.run_due()
    assert len(calls.events) == 1
    await world.stop()
    clock.advance(60)
    world = await World(tmp_path, clock).start()
    calls = Calls(world)
    assert world.control.asynchronous.count == 1
    await world.control.asynchronous.run_due()
    assert calls.events == [("f", {"n": 1})]
    await world.stop()


async def test_a_failed_event_can_be_run_again(world: World) -> None:
    calls = Calls(world, False, False)
    await world.create()
    await world.call("publish_version", FunctionName="f")
    await world.call("put_function_event_invoke_config", FunctionName="f", MaximumRetryAttempts=0)
    await world.call("invoke", caller(request_id="a"), FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    await world.control.asynchronous.run_due()
    found = await world.call("invoke", caller(request_id="b"), FunctionName="f:1", Payload=b'{"n": 2}')
    assert found["FunctionError"] == "Unhandled"
    for id, qualifier in (("a", ""), ("b", "1")):
        event, _, outcome = await world.control.replay(id)
        assert (event.function, event.qualifier, outcome.error) == ("f", qualifier, "")
    assert [event for _, event in calls.events] == [{"n": 1}, {"n": 2}, {"n": 1}, {"n": 2}]
    with pytest.raises(NotFound, match="no failed event c"):
        await world.control.replay("c")


async def test_an_event_that_fails_again_is_kept_once_and_a_function_takes_its_own_along(world: World) -> None:
    Calls(world, default=False)
    await world.create()
    await world.create("g")
    for name in ("f", "f", "g"):
        await world.call("invoke", caller(request_id=f"of-{name}"), FunctionName=name)
        world.clock.advance(1.0)
    assert [event.id for event in await world.control.failed_events()] == ["of-f", "of-g"]
    await world.call("delete_function", FunctionName="f")
    assert [event.id for event in await world.control.failed_events()] == ["of-g"]
    with pytest.raises(NotFound):
        await world.control.replay("of-f")


async def test_only_the_newest_failed_events_are_kept(world: World) -> None:
    Calls(world, default=False)
    await world.create()
    for number in range(105):
        await world.call("invoke", caller(request_id=f"r{number}"), FunctionName="f")
    await world.control.failures.flush()
    assert len(world.control.failures.list("f")) == 100
    assert len(world.control.failures.list(limit=2)) == 2
    with pytest.raises(NotFound):
        world.control.failures.get("r4")
    assert world.control.failures.get("r104").payload == b"{}"


async def test_more_events_than_the_limit_are_throttled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "_AT_MOST", 2)
    world.host.handler = lambda init, payload: None
    await world.create()
    await send(world)
    await send(world)
    assert (await world.fails("invoke", FunctionName="f", InvocationType="Event"))[0] == "TooManyRequestsException"


async def test_at_most_so_many_of_one_function_at_one_time_and_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asynchronous, "_CONCURRENCY", 2)
    calls = Calls(world)
    answer = world.host.handler
    world.host.handler = lambda init, payload: None if init["function_name"] == "f" else answer(init, payload)
    await world.create()
    await world.create("g")
    for _ in range(5):
        await send(world)
    await send(world, name="g")
    for _ in range(200):
        await asyncio.sleep(0.001)
    assert calls.of("g")
    assert len(world.host.open_events) == 2
    world.host.handler = answer
    for results, sequence, _ in world.host.open_events:
        world.host.answer(results, sequence, (frames.RESULT, b"1"))
    await world.control.asynchronous.run_due()
    assert len(calls.of("f")) == 3
    assert world.control.asynchronous.count == 0


async def test_payloads_beyond_memory_are_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "_HELD_BYTES", 10)
    monkeypatch.setattr(asynchronous, "_CONCURRENCY", 1)
    calls = Calls(world)
    await world.create()
    await asyncio.gather(*(send(world, json.dumps({"n": number, "x": "y" * 50}).encode()) for number in range(8)))
    await world.control.asynchronous.run_due()
    assert sorted(event["n"] for event in calls.of("f")) == list(range(8))
    assert world.control.asynchronous._held_bytes == 0


async def test_events_of_a_deleted_function_are_dropped_and_kept_for_a_replay(world: World, clock: ManualClock) -> None:
    Calls(world, default=False)
    await world.create()
    await world.call("invoke", caller(request_id="r"), FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    await world.control.asynchronous.run_due()
    await world.call("delete_function", FunctionName="f")
    clock.advance(60)
    await world.control.asynchronous.run_due()
    assert world.control.asynchronous.count == 0
    assert world.control.failures.get("r").payload == b'{"n": 1}'


async def test_what_is_too_large_or_no_json_is_not_accepted(world: World) -> None:
    await world.create()
    assert await world.fails("invoke", FunctionName="f", InvocationType="Event", Payload=b'"' + b"x" * 1_048_576 + b'"') == (
        "RequestTooLargeException",
        "1048578 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
    )
    name, message = await world.fails("invoke", FunctionName="f", InvocationType="Event", Payload=b"\x99\xeb")
    assert name == "InvalidRequestContentException"
    assert message.startswith(
        "Could not parse request body into json: Could not parse payload into json: Unexpected character ((CTRL-CHAR, code 153)"
    )
    assert world.control.asynchronous.count == 0


async def test_a_chain_that_comes_back_too_often_is_stopped(world: World) -> None:
    """What the SDK does inside a function: it sends the trace header of its own event on."""
    await world.create()
    trace = "Root=1-0-0"
    for _ in range(16):
        await world.call("invoke", caller(trace_id=trace), FunctionName="f")
        trace = passed_through(trace, "f")[0]
    assert (await world.fails("invoke", caller(trace_id=trace), FunctionName="f"))[0] == "RecursiveInvocationException"
    await world.call("put_function_recursion_config", FunctionName="f", RecursiveLoop="Allow")
    await world.call("invoke", caller(trace_id=trace), FunctionName="f")


async def test_a_loop_of_events_ends_at_the_failure_destination(world: World) -> None:
    """f → its destination g → its destination f → …, each by a record."""
    calls = Calls(world)
    await world.create("f", Code={"ZipFile": archive("f")})
    await world.create("g")
    await world.create("last")
    for name, other in (("f", "g"), ("g", "f")):
        await world.call(
            "put_function_event_invoke_config",
            FunctionName=name,
            DestinationConfig={
                "OnSuccess": {"Destination": f"{ARN}{other}"},
                "OnFailure": {"Destination": f"{ARN}last"},
            },
        )
    await send(world)
    await world.control.asynchronous.run_due()
    assert len(calls.of("f")) == 16
    (record,) = calls.of("last")
    assert record["requestContext"]["condition"] == "RecursiveInvocation"


async def test_a_burst_is_acknowledged_first_and_then_all_of_it_runs_once(world: World) -> None:
    calls = Calls(world)
    await world.create()
    most = 0

    async def client(number: int) -> None:
        nonlocal most
        for turn in range(30):
            await send(world, b"%d" % (number * 100 + turn))
            most = max(most, *(lane.running for lane in world.control.asynchronous._lanes.values()), 0)

    await asyncio.gather(*map(client, range(16)))
    assert most < asynchronous._CONCURRENCY
    queue = world.control.asynchronous
    async with asyncio.timeout(30):
        while queue.count:  # nobody calls run_due: it goes on by itself
            await queue._settled.wait()
            queue._settled.clear()
    assert sorted(event for _, event in calls.events) == sorted(n * 100 + turn for n in range(16) for turn in range(30))


async def test_messages_to_end_users_are_not_kept_because_they_hold_codes(world: World) -> None:
    Calls(world, default=False)
    await world.create()
    for source in ("users", "api"):
        _, outcome = await world.functions.invoke("f", b'{"code": "12345678"}', source=source)
        assert outcome.error
    assert [event.source for event in await world.control.failed_events()] == ["api"]
