"""The pool: every event ends exactly once, whatever instances do, and what one does harms no other."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator

import pytest
from tests.functions.instances import Inside, World

from martlet.errors import Overloaded, Throttled
from martlet.functions.pool import Pool
from martlet.functions.sandboxes.inside import frames
from martlet.types import Invocation


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Closed at the end; then no descriptor may be left, and no callback may have failed."""
    before = descriptors()
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    world = World()
    yield world
    world.close()
    for _ in range(500):
        await asyncio.sleep(0.001)
        if descriptors() <= before:
            break
    assert descriptors() <= before, "pipes are left open"
    assert failures == []


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def one_running(world: World) -> tuple[Inside, int]:
    """Wait until exactly one event runs."""
    await world.until(world.running)
    (found,) = world.running()
    return found


# --- the way of an event


async def test_a_cold_start_then_warm_ones(world: World) -> None:
    pool = world.pool()
    first = world.submit(pool, b'{"n": 1}')
    inside, sequence = await one_running(world)
    assert inside.events[sequence] == b'{"n": 1}'
    inside.answer(sequence, b'"one"')
    found = await world.until(lambda: world.outcome(first))
    assert (found.payload, found.error, found.refusal) == (b'"one"', "", None)
    second = world.submit(pool)
    inside.answer((await one_running(world))[1])
    await world.until(lambda: world.outcome(second))
    assert (first.cold, second.cold, world.started, pool.inflight) == (True, False, 1, 0)
    assert (pool.cold_starts, pool.warm_starts) == (1, 1)


async def test_events_at_one_time_get_an_instance_each(world: World) -> None:
    pool = world.pool()
    events = [world.submit(pool) for _ in range(5)]
    await world.until(lambda: len(world.running()) == 5)
    assert world.started == 5
    for inside, sequence in world.running():
        inside.answer(sequence)
    await world.until(lambda: all(world.outcome(event) for event in events))
    assert pool.counts() == {"instances": 5, "busy": 0, "starting": 0, "waiting": 0}


async def test_an_instance_takes_as_many_events_as_the_function_says(world: World) -> None:
    pool = world.pool(concurrency=3)
    events = [world.submit(pool) for _ in range(3)]
    await world.until(lambda: len(world.running()) == 3)
    assert world.started == 1
    fourth = world.submit(pool)
    await world.until(lambda: len(world.running()) == 4)
    assert world.started == 2
    for inside, sequence in world.running():
        inside.answer(sequence)
    await world.until(lambda: all(world.outcome(event) for event in [*events, fourth]))


async def test_a_function_error_is_passed_on(world: World) -> None:
    pool = world.pool()
    event = world.submit(pool)
    inside, sequence = await one_running(world)
    inside.answer(sequence, b'{"errorType": "ValueError", "errorMessage": "x"}', frames.ERROR)
    found = await world.until(lambda: world.outcome(event))
    assert (found.error, found.error_type) == ("Unhandled", "ValueError")
    assert pool.errors == 1


# --- refusals


async def test_reserved_concurrency(world: World) -> None:
    pool = world.pool(reserved=1)
    first, second = world.submit(pool), world.submit(pool)
    found = world.outcome(second)
    assert found is not None
    assert isinstance(found.refusal, Throttled)
    inside, sequence = await one_running(world)
    inside.answer(sequence)
    await world.until(lambda: world.outcome(first))
    third = world.submit(pool)
    assert world.outcome(third) is None


async def test_no_room_for_a_first_instance_is_overload(world: World) -> None:
    world.room = 0
    event = world.submit(world.pool())
    found = world.outcome(event)
    assert found is not None
    assert isinstance(found.refusal, Overloaded)


async def test_what_waits_too_long_is_refused(world: World) -> None:
    world.room = 1
    pool = world.pool(timeout_seconds=900)
    first = world.submit(pool)
    await one_running(world)
    second = world.submit(pool)
    world.clock.advance(10.1)
    found = await world.until(lambda: world.outcome(second))
    assert isinstance(found.refusal, Overloaded)
    assert "10 s" in found.refusal.message
    assert world.outcome(first) is None


async def test_the_queue_is_bounded(world: World) -> None:
    world.room = 1
    pool = world.pool()
    events = [world.submit(pool) for _ in range(1_002)]
    refused = [event for event in events if world.outcome(event)]
    assert 1 <= len(refused) <= 2
    assert events[-1] in refused


# --- starts that fail


def breaks(inside: Inside) -> None:
    """As the runtime does: say why, and exit."""
    inside.send(frames.INIT_ERROR, 0, b'{"errorType": "ImportError", "errorMessage": "no"}')
    inside.end(code=1)


async def test_an_init_error_goes_to_the_event_that_waits_and_the_next_starts_afresh(world: World) -> None:
    pool = world.pool()
    good, world.on_init = world.on_init, breaks
    for _ in range(5):
        event = world.submit(pool)
        found = await world.until(lambda event=event: world.outcome(event))
        assert (found.error, found.error_type) == ("Unhandled", "ImportError")
        assert event.cold
    assert world.started == 5
    world.on_init = good
    event = world.submit(pool)
    inside, sequence = await one_running(world)
    inside.answer(sequence)
    assert (await world.until(lambda: world.outcome(event))).error == ""
    assert pool.init_error is None


async def test_an_instance_that_dies_at_init_fails_its_event(world: World) -> None:
    pool = world.pool()
    world.on_init = lambda inside: inside.end(signal=9, out_of_memory=True)
    event = world.submit(pool)
    assert (await world.until(lambda: world.outcome(event))).error_type == "Runtime.OutOfMemory"


async def test_an_init_that_never_ends_is_ended(world: World) -> None:
    pool = world.pool()
    world.on_init = lambda inside: None
    event = world.submit(pool)
    await world.until(lambda: any(inside.init for inside in world.insides.values()))
    world.clock.advance(9.9)
    await asyncio.sleep(0.05)
    assert world.outcome(event) is None
    world.clock.advance(0.2)
    found = await world.until(lambda: world.outcome(event))
    assert found.error_type == "Sandbox.Timedout" or isinstance(found.refusal, Overloaded)


# --- instances that die


async def test_instances_that_exit_leave_no_trace(world: World) -> None:
    pool = world.pool()
    for number in range(6):
        event = world.submit(pool)
        inside, _ = await one_running(world)
        inside.end(code=number)
        found = await world.until(lambda event=event: world.outcome(event))
        assert found.error_type == "Runtime.ExitError"
        message = json.loads(found.payload)["errorMessage"]
        assert message.startswith(f"RequestId: {event.request_id} Error: Runtime exited ")
        assert message.endswith(f"exit status {number}" if number else "without providing a reason")
    event = world.submit(pool)
    inside, sequence = await one_running(world)
    inside.answer(sequence)
    await world.until(lambda: world.outcome(event))
    assert pool.counts() == {"instances": 1, "busy": 0, "starting": 0, "waiting": 0}


async def test_an_answer_that_was_written_before_the_end_counts(world: World) -> None:
    pool = world.pool()
    event = world.submit(pool)
    inside, sequence = await one_running(world)
    inside.send(frames.RESULT, sequence, b'"in time"')
    inside.end(code=1)
    found = await world.until(lambda: world.outcome(event))
    assert (found.payload, found.error) == (b'"in time"', "")


async def test_what_waits_behind_an_instance_that_dies_runs_elsewhere(world: World) -> None:
    """A quick function's events are queued in the pipe of a busy instance: the running one fails, those behind do not."""
    pool = world.pool()
    await make_quick(world, pool)
    events = [world.submit(pool) for _ in range(12)]
    await world.until(lambda: len(world.running()) >= 2)
    doomed = [inside for inside, _ in world.running()]
    failed = 0
    for inside in doomed:
        inside.end(signal=11)
    while not all(world.outcome(event) for event in events):
        for inside, sequence in world.running():
            inside.answer(sequence)
        await asyncio.sleep(0.001)
    for event in events:
        outcome = world.outcome(event)
        assert outcome is not None
        failed += outcome.error_type == "Runtime.ExitError"
    assert failed == len(doomed)


async def test_an_instance_that_reads_on_while_its_first_event_is_taken_back_is_not_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = world.pool()
    await make_quick(world, pool)
    await pool.warm(2)
    ahead = [world.submit(pool) for _ in range(12)]
    held = [inside for inside in world.insides.values() if len(inside.instance.inflight) > 1]
    assert held
    for inside in held:  # it does not get the processor
        asyncio.get_running_loop().remove_reader(inside._events)
    recalls = {inside.instance._recall: inside for inside in held}
    read = os.read

    def read_and_be_overtaken(fd: int, size: int) -> bytes:
        data = read(fd, size)
        if (inside := recalls.pop(fd, None)) is not None:
            inside._readable()  # it wakes up now, and finds the second event
        return data

    monkeypatch.setattr(os, "read", read_and_be_overtaken)
    world.clock.advance(0.01)  # the running ones are slow, as far as the pool knows
    await world.until(lambda: not recalls)
    monkeypatch.undo()
    while not all(world.outcome(event) for event in ahead):
        for inside, sequence in world.running():
            inside.answer(sequence)
        await asyncio.sleep(0.001)
    assert {found.error for event in ahead if (found := world.outcome(event))} == {""}
    assert not world.notes
    assert pool.cold_starts + pool.warm_starts == 30 + len(ahead)


async def make_quick(world: World, pool: object, rounds: int = 30) -> None:
    """Answer so promptly, by the clock that stands still, that the pool takes the function for a quick one."""
    for _ in range(rounds):
        event = world.submit(pool)  # type: ignore[arg-type]
        inside, sequence = await one_running(world)
        inside.answer(sequence)
        await world.until(lambda event=event: world.outcome(event))


# --- time


async def test_a_timeout_ends_the_instance(world: World) -> None:
    pool = world.pool(timeout_seconds=3)
    event = world.submit(pool)
    inside, _ = await one_running(world)
    inside.log(b"got this far\n")
    world.clock.advance(3.1)
    found = await world.until(lambda: world.outcome(event))
    assert found.error_type == "Sandbox.Timedout"
    assert (
        json.loads(found.payload)["errorMessage"] == f"RequestId: {event.request_id} Error: Task timed out after 3.00 seconds"
    )
    assert world.lines(event) == b"got this far\n"
    assert inside.gone


async def test_an_event_that_times_out_leaves_the_others_of_its_instance_their_time(world: World) -> None:
    """Also when the late handler does answer in the end: that is no breach of the protocol."""
    pool = world.pool(timeout_seconds=3, concurrency=4)
    late = world.submit(pool)
    inside, late_sequence = await one_running(world)
    world.clock.advance(2)
    other = world.submit(pool)
    await world.until(lambda: len(inside.events) == 2)
    (other_sequence,) = set(inside.events) - {late_sequence}
    world.clock.advance(1.5)
    assert (await world.until(lambda: world.outcome(late))).error_type == "Sandbox.Timedout"
    for kind in (frames.HEAD, frames.CHUNK, frames.RESULT):
        inside.send(kind, late_sequence)
    await asyncio.sleep(0.02)
    assert world.outcome(other) is None
    inside.answer(other_sequence, b'"in time"')
    assert (await world.until(lambda: world.outcome(other))).payload == b'"in time"'
    await world.until(lambda: inside.gone)
    assert world.notes == []


# --- instances that break the protocol


@pytest.mark.parametrize(
    "attack",
    [
        lambda inside, sequence: inside.send(frames.RESULT, sequence + 1),
        lambda inside, sequence: inside.send(frames.READY),
        lambda inside, sequence: inside.send(99, sequence),
        lambda inside, sequence: inside.send(frames.CHUNK, sequence),
        lambda inside, sequence: inside.send(frames.END, sequence, b""),
        lambda inside, sequence: inside.send(frames.INIT, sequence),
        lambda inside, sequence: inside.send(frames.END, sequence, b"too long"),
        lambda inside, sequence: inside.raw(frames.HEADER.pack(0xFFFF_FFFF, sequence, frames.RESULT, 0)),
        lambda inside, sequence: inside.raw(b"\xff" * 64),
        lambda inside, sequence: [inside.send(frames.HEAD, sequence), inside.send(frames.HEAD, sequence)],
    ],
)
async def test_hostile_frames_end_the_instance_and_nothing_else(world: World, attack: object) -> None:
    pool = world.pool()
    event = world.submit(pool)
    inside, sequence = await one_running(world)
    assert callable(attack)
    attack(inside, sequence)
    found = await world.until(lambda: world.outcome(event))
    assert found.error_type == "Sandbox.Failure"
    assert "broke the protocol" in json.loads(found.payload)["errorMessage"]
    assert inside.gone
    after = world.submit(pool)
    inside, sequence = await one_running(world)
    inside.answer(sequence)
    assert (await world.until(lambda: world.outcome(after))).error == ""


async def test_a_frame_that_never_ends_waits_for_the_timeout(world: World) -> None:
    pool = world.pool(timeout_seconds=1)
    event = world.submit(pool)
    inside, sequence = await one_running(world)
    inside.raw(frames.pack(frames.RESULT, sequence, b"0123456789")[:-1])
    await asyncio.sleep(0.05)
    assert world.outcome(event) is None
    world.clock.advance(1.1)
    assert (await world.until(lambda: world.outcome(event))).error_type == "Sandbox.Timedout"


# --- streams


async def test_a_stream_goes_to_who_takes_it_and_is_collected_for_who_does_not(world: World) -> None:
    heads: list[bytes] = []
    chunks: list[bytes] = []
    for more in ({"on_head": heads.append, "on_chunk": chunks.append}, {}):
        pool = world.pool()
        event = world.submit(pool, **more)
        inside, sequence = await one_running(world)
        inside.send(frames.HEAD, sequence, b'{"statusCode": 201}')
        for part in (b"a", b"b"):
            inside.send(frames.CHUNK, sequence, part)
        inside.answer(sequence, b"", frames.END)
        found = await world.until(lambda event=event: world.outcome(event))
        assert found.error == ""
        inside.end()
    assert (heads, chunks) == ([b'{"statusCode": 201}'], [b"a", b"b"])
    assert json.loads(found.payload) == {"statusCode": 201, "body": "YWI=", "isBase64Encoded": True}


async def test_a_stream_that_breaks_is_an_error(world: World) -> None:
    pool = world.pool()
    event = world.submit(pool, on_head=lambda _: None, on_chunk=lambda _: None)
    inside, sequence = await one_running(world)
    inside.send(frames.HEAD, sequence, b'{"statusCode": 200}')
    inside.answer(sequence, b'{"errorType": "ValueError", "errorMessage": "x"}', frames.STREAM_ERROR)
    assert (await world.until(lambda: world.outcome(event))).error_type == "ValueError"


def slow_client(world: World, pool: Pool) -> Invocation:
    """An event whose client has no room left from the first part of its streamed answer on."""
    event = world.submit(pool, on_head=lambda _: None, on_chunk=lambda _: event.control.pause())
    return event


def streamed(sequence: int, *, whole: bool) -> bytes:
    """A streamed answer as it arrives in one read."""
    parts = [(frames.HEAD, b'{"statusCode": 200}'), (frames.CHUNK, b"x"), (frames.END, b"")]
    return b"".join(frames.pack(kind, sequence, payload) for kind, payload in (parts if whole else parts[:2]))


async def test_an_instance_whose_answer_ended_while_its_client_was_slow_serves_on(world: World) -> None:
    pool = world.pool()
    slow = slow_client(world, pool)
    inside, sequence = await one_running(world)
    inside.raw(streamed(sequence, whole=True))
    await world.until(lambda: world.outcome(slow))
    inside.events.clear()
    event = world.submit(pool)
    await world.until(lambda: inside.events)
    inside.answer(next(iter(inside.events)))
    assert (await world.until(lambda: world.outcome(event))).payload == b'"done"'
    assert world.started == 1


async def test_a_slow_client_holds_its_own_event_and_no_other(world: World) -> None:
    pool = world.pool(concurrency=4)
    slow = slow_client(world, pool)
    inside, sequence = await one_running(world)
    inside.raw(streamed(sequence, whole=False))
    await world.until(lambda: (frames.HOLD, sequence) in inside.told)
    other = world.submit(pool)
    await world.until(lambda: len(inside.events) == 2)
    inside.answer(next(one for one in inside.events if one != sequence))
    await world.until(lambda: world.outcome(other))
    slow.control.resume()
    await world.until(lambda: (frames.GO_ON, sequence) in inside.told)
    inside.answer(sequence, b"", frames.END)
    await world.until(lambda: world.outcome(slow))
    assert world.started == 1
    assert pool.inflight == 0


async def test_new_events_do_not_go_to_an_instance_that_does_not_hold_an_answer(world: World) -> None:
    pool = world.pool(concurrency=4)
    first, second = slow_client(world, pool), slow_client(world, pool)
    await world.until(lambda: len(world.running()) == 2)
    (inside,) = {inside for inside, _ in world.running()}
    numbers = list(inside.events)
    inside.raw(b"".join(streamed(sequence, whole=False) for sequence in numbers))
    await world.until(lambda: all((frames.HOLD, sequence) in inside.told for sequence in numbers))
    while not inside.instance.paused:
        inside.send(frames.CHUNK, numbers[0], b"x" * 16_384)
        await asyncio.sleep(0.001)
    elsewhere = world.submit(pool)
    other = await world.until(lambda: next((found for found, _ in world.running() if found is not inside), None))
    other.answer(next(iter(other.events)))
    await world.until(lambda: world.outcome(elsewhere))
    second.control.resume()
    assert inside.instance.paused
    first.control.resume()
    assert not inside.instance.paused
    for sequence in numbers:
        inside.answer(sequence, b"", frames.END)
    await world.until(lambda: world.outcome(first) and world.outcome(second))
    assert pool.inflight == 0


async def test_there_are_never_more_instances_than_events(world: World) -> None:
    """Quick events queue behind busy instances; once they turn slow, the free ones are used before any is started."""
    pool = world.pool()
    events = [world.submit(pool) for _ in range(12)]
    for step in range(60):
        await world.until(world.running)
        world.clock.advance(step % 4 * 0.002)
        for inside, sequence in world.running():
            inside.answer(sequence)
        await asyncio.sleep(0.001)
        events += [world.submit(pool) for _ in range(12 - pool.inflight)]
        assert len(pool.instances) <= 12
    while not all(world.outcome(event) for event in events):
        for inside, sequence in world.running():
            inside.answer(sequence)
        await asyncio.sleep(0.001)


# --- the first event, in the pipe before the instance is there


async def test_the_first_event_waits_in_the_pipe_and_its_time_begins_when_the_instance_is_ready(world: World) -> None:
    world.on_init = lambda inside: None
    pool = world.pool()
    event = world.submit(pool)
    (inside,) = world.insides.values()
    await world.until(lambda: inside.events)
    (sequence,) = inside.events
    world.clock.advance(2.0)
    said = world.clock.monotonic_ns() - 500_000_000  # it was ready half a second before we read so
    inside.send(frames.READY, 0, b'{"at": %d}' % said)
    inside.answer(sequence)
    await world.until(lambda: world.outcome(event))
    assert (event.cold, event.init_us, event.duration_us, event.queue_us) == (True, 1_500_000, 500_000, 1_500_000)


@pytest.mark.parametrize("said", [b"{}", b"[]", b"nonsense", b'{"at": "x"}', b'{"at": 1e400}', b'{"at": 99999999999999999999}'])
async def test_what_an_instance_says_of_its_readiness_is_not_trusted(world: World, said: bytes) -> None:
    world.on_init = lambda inside: inside.send(frames.READY, 0, said)
    event = world.submit(world.pool())
    inside, sequence = await one_running(world)
    world.clock.advance(1.0)
    inside.answer(sequence)
    await world.until(lambda: world.outcome(event))
    assert (event.init_us, event.duration_us) == (0, 1_000_000)


async def test_an_answer_before_readiness_ends_the_instance(world: World) -> None:
    world.on_init = lambda inside: inside.send(frames.RESULT, 1, b'"too soon"')
    event = world.submit(world.pool())
    found = await world.until(lambda: world.outcome(event))
    assert found.error_type == "Sandbox.Failure"


async def test_who_comes_next_waits_for_whichever_instance_is_free_first(world: World) -> None:
    slow = world.on_init
    world.on_init = lambda inside: slow(inside) if inside.instance.number == 1 else None
    pool = world.pool()
    first = world.submit(pool)
    inside, sequence = await one_running(world)
    second = world.submit(pool)  # a second instance starts, and takes its time
    await world.until(lambda: world.started == 2)
    inside.answer(sequence)
    await world.until(lambda: world.outcome(first) and world.running())
    inside.answer((await one_running(world))[1])
    await world.until(lambda: world.outcome(second))
    assert (second.cold, pool.inflight) == (False, 0)


async def test_a_large_first_event_arrives_whole(world: World) -> None:
    payload = b'"' + b"x" * 300_000 + b'"'
    event = world.submit(world.pool(), payload)
    inside, sequence = await one_running(world)
    assert inside.events[sequence] == payload
    inside.answer(sequence)
    await world.until(lambda: world.outcome(event))


async def test_a_redeploy_while_the_first_instance_starts_loses_nothing(world: World) -> None:
    ready = world.on_init
    world.on_init = lambda inside: None
    pool, successor = world.pool(), world.pool()
    event = world.submit(pool)
    pool.retire(successor)
    (inside,) = world.insides.values()
    ready(inside)
    inside.answer((await one_running(world))[1])
    found = await world.until(lambda: world.outcome(event))
    assert found.payload == b'"done"'
    await world.until(lambda: not pool.instances)


async def test_what_comes_back_to_a_retired_pool_goes_to_the_version_that_serves_now(world: World) -> None:
    """Two redeploys while the first instance starts; then it dies, and its event was in no other hands."""
    ready = world.on_init
    world.on_init = lambda inside: None
    pool, second, third = world.pool(), world.pool(), world.pool()
    event = world.submit(pool)
    pool.retire(second)
    second.retire(third)
    world.on_init = ready
    (inside,) = world.insides.values()
    inside.end(signal=9)
    other, sequence = await one_running(world)
    assert other.pool is third
    other.answer(sequence)
    assert (await world.until(lambda: world.outcome(event))).payload == b'"done"'
    assert (pool.inflight, second.inflight, third.inflight) == (0, 0, 0)


# --- letting go


async def test_idle_instances_go_the_surplus_first(world: World) -> None:
    pool = world.pool(provisioned=1)
    events = [world.submit(pool) for _ in range(3)]
    await world.until(lambda: len(world.running()) == 3)
    for inside, sequence in world.running():
        inside.answer(sequence)
    await world.until(lambda: all(world.outcome(event) for event in events))
    keep_ns = 100 * 10**9
    world.clock.advance(21)
    pool.reap(world.clock.monotonic_ns(), keep_ns)
    await world.until(lambda: len(world.insides) == 1)
    world.clock.advance(1_000)
    pool.reap(world.clock.monotonic_ns(), keep_ns)
    await asyncio.sleep(0.02)
    assert len(world.insides) == 1, "provisioned: kept"


@pytest.mark.parametrize(("start_ms", "kept"), [(3, False), (80, True)])
async def test_an_instance_that_no_event_used_goes_soon_where_a_start_is_quick(world: World, start_ms: int, kept: bool) -> None:
    ready = world.on_init
    world.on_init = lambda inside: None
    pool = world.pool()
    warmed = asyncio.create_task(pool.warm(1))
    await world.until(lambda: bool(world.insides))
    world.clock.advance(start_ms / 1000)
    (inside,) = world.insides.values()
    ready(inside)
    await warmed
    pool.reap(world.clock.monotonic_ns(), 100 * 10**9)
    await asyncio.sleep(0.02)
    assert world.insides, "not at once"
    world.clock.advance(6)
    pool.reap(world.clock.monotonic_ns(), 100 * 10**9)
    await asyncio.sleep(0.02)
    assert bool(world.insides) is kept


async def test_a_retired_pool_finishes_what_runs_and_hands_over_what_waits(world: World) -> None:
    world.room = 1
    old = world.pool()
    running = world.submit(old)
    inside, sequence = await one_running(world)
    waiting = world.submit(old)
    world.room = 2
    new = world.pool()
    old.retire(new)
    await world.until(lambda: len(world.running()) == 2)
    other, other_sequence = next(found for found in world.running() if found[0] is not inside)
    assert other.pool is new
    inside.answer(sequence)
    other.answer(other_sequence)
    await world.until(lambda: world.outcome(running) and world.outcome(waiting))
    await world.until(lambda: inside.gone)
    assert (old.inflight, new.inflight) == (0, 0)


async def test_a_removed_pool_refuses_what_waits(world: World) -> None:
    world.room = 1
    pool = world.pool()
    running = world.submit(pool)
    inside, sequence = await one_running(world)
    waiting = world.submit(pool)
    pool.retire(None)
    found = world.outcome(waiting)
    assert found is not None
    assert isinstance(found.refusal, Overloaded)
    inside.answer(sequence)
    assert (await world.until(lambda: world.outcome(running))).error == ""


async def test_warm_makes_instances_ready(world: World) -> None:
    pool = world.pool()
    await asyncio.wait_for(pool.warm(3), 20)
    assert len(world.insides) == 3
    world.on_init = breaks
    failing = world.pool()
    await asyncio.wait_for(failing.warm(2), 20)
    assert failing.init_error is not None
    assert failing.init_error.error_type == "ImportError"


# --- logs


async def test_lines_of_events_at_one_time_are_told_apart(world: World) -> None:
    pool = world.pool(concurrency=2)
    events = [world.submit(pool), world.submit(pool)]
    await world.until(lambda: len(world.running()) == 2)
    (inside, one), (_, two) = sorted(world.running(), key=lambda found: found[1])
    inside.log(b"\x1e%08x\x1ffirst\n\x1e%08x\x1fsecond\n\x1enot a tag\n" % (one, two))
    for sequence in (one, two):
        inside.raw(frames.HEADER.pack(2, sequence, frames.RESULT, frames.WROTE) + b"{}")
    await world.until(lambda: all(world.outcome(event) for event in events))
    assert world.lines(events[0]) == b"first\n\x1enot a tag\n"
    assert world.lines(events[1]) == b"second\n"


# --- everything at once


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_every_event_ends_once(world: World, seed: int, concurrency: int) -> None:
    """Random events, answers, deaths, breaches, failed starts, timeouts and versions; then the world is put in order."""
    chance = random.Random(seed)
    pool = world.pool(concurrency=concurrency, timeout_seconds=2, reserved=chance.choice([None, 20]))
    world.room = chance.choice([2, 5, 50])
    good = world.on_init
    events = []
    for step in range(400):
        roll = chance.random()
        running = world.running()
        if roll < 0.45:
            events.append(world.submit(pool))
        elif roll < 0.75 and running:
            inside, sequence = chance.choice(running)
            inside.answer(sequence)
        elif roll < 0.80 and world.insides:
            chance.choice(list(world.insides.values())).end(
                **chance.choice([{"code": 1}, {"signal": 9, "out_of_memory": True}])
            )
        elif roll < 0.83 and running:
            inside, sequence = chance.choice(running)
            inside.send(chance.choice([frames.HEAD, frames.CHUNK, 77, frames.READY]), sequence)
        elif roll < 0.86:
            world.on_init = chance.choice([good, good, breaks, lambda inside: inside.end(code=2), lambda inside: None])
        elif roll < 0.88:
            world.clock.advance(chance.choice([0.001, 0.5, 2.5]))
        elif roll < 0.885:
            pool, old = world.pool(concurrency=concurrency, timeout_seconds=2), pool
            old.retire(pool)
        if step % 3 == 0:
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.006]))
    world.on_init, world.room = good, 1_000
    deadline = asyncio.get_running_loop().time() + 20
    while not all(world.outcome(event) for event in events):
        assert asyncio.get_running_loop().time() < deadline, pool.counts()
        for inside, sequence in world.running():
            inside.answer(sequence)
        world.clock.advance(0.2)  # inits that hang, frames that do not end
        await asyncio.sleep(0.002)
    assert len(world.ended) == len(events)
    assert pool.inflight == 0
    assert pool.counts() | {"instances": 0} == {"instances": 0, "busy": 0, "starting": pool.counts()["starting"], "waiting": 0}
    assert sum(1 for event in events if (found := world.outcome(event)) and not found.error and not found.refusal) > 5
