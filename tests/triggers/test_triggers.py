"""Schedules fire once, deliveries happen at least once, and whatever fails for good is kept and shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from tests.mortal_store import Killed, MortalStore

from martlet.clock import ManualClock
from martlet.errors import (
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Overloaded,
    SandboxFailed,
    Throttled,
    Unsupported,
)
from martlet.store import Store, keys
from martlet.store.engines.memory import Disk, MemoryEngine
from martlet.triggers import Triggers
from martlet.types import Invocation, Outcome, ScheduleConfig

from .functions import BAD, GOOD, Functions, deploy, fired

MINUTE = 60_000


def rows(store: Store, kind: str) -> int:
    return len(store.read(lambda reader: reader.scan(*keys.prefix_range(kind))))


def nothing_left(store: Store) -> bool:
    return not any(rows(store, kind) for kind in ("triggers.delivery", "triggers.ready", "triggers.event"))


async def test_a_schedule_fires_when_it_is_due(store: Store, clock: ManualClock) -> None:
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(5 minutes)")
    await triggers.run_due()
    clock.advance(299.999)
    await triggers.run_due()
    assert functions.runs == []
    clock.advance(0.001)
    await triggers.run_due()
    await triggers.run_due()
    [run] = functions.runs
    assert (run.function, run.source) == ("shop-orders", "schedule")
    assert json.loads(run.payload) == {
        "version": "0",
        "id": run.request_id,
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": "2023-11-14T22:18:20Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/shop-tick"],
        "detail": {},
    }
    assert nothing_left(store)
    clock.advance(300)
    await triggers.run_due()
    assert len(set(functions.ids)) == 2


async def test_input_is_the_payload(store: Store, clock: ManualClock) -> None:
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 minute)", input={"a": [1, "ü", None]})
    clock.advance(60)
    await triggers.run_due()
    assert functions.events() == [{"a": [1, "ü", None]}]


async def test_what_was_missed_fires_once_and_the_rhythm_stays(store: Store, clock: ManualClock) -> None:
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 minute)", "rate")
    await deploy(store, triggers, "cron(0 * * * ? *)", "cron")
    start_ms = clock.now_ms()
    clock.advance(3 * 3600 + 30)
    await triggers.run_due()
    assert sorted(fired(store)) == [("cron", start_ms + 2_800_000), ("rate", start_ms + MINUTE)]
    due = {each.name: each.due_at_ms for each in triggers.list("shop")}
    assert due == {"rate": start_ms + 181 * MINUTE, "cron": start_ms + 2_800_000 + 3 * 3_600_000}


async def test_switched_off_and_removed_schedules_do_not_fire(store: Store, clock: ManualClock) -> None:
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 minute)", "off", enabled=False)
    await deploy(store, triggers, "rate(1 minute)", "gone")
    await deploy(store, triggers, "cron(0 0 1 1 ? 2020)", "past")
    assert [each.due_at_ms for each in triggers.list("shop") if each.name != "gone"] == [None, None]
    for _ in range(2):
        await store.transact(lambda tx: triggers.remove(tx, "shop", "gone"))
    assert [each.name for each in triggers.list("shop")] == ["off", "past"]
    clock.advance(3600)
    await triggers.run_due()
    assert functions.runs == []
    await deploy(store, triggers, "rate(1 minute)", "off", enabled=True)
    clock.advance(60)
    await triggers.run_due()
    assert len(functions.runs) == 1
    await deploy(store, triggers, "rate(1 minute)", "off", enabled=False)
    clock.advance(60)
    await triggers.run_due()
    assert len(functions.runs) == 1


async def test_deploying_again_and_again_does_not_starve_a_rate(store: Store, clock: ManualClock) -> None:
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    for step in range(10):
        await deploy(store, triggers, "rate(5 minutes)", input={"step": step})
        clock.advance(61)
        await triggers.run_due()
    assert functions.events() == [{"step": 4}, {"step": 9}]
    await deploy(store, triggers, "rate(10 minutes)")
    assert triggers.list("shop")[0].due_at_ms == clock.now_ms() + 600_000


async def test_apps_have_their_own_schedules(store: Store, clock: ManualClock) -> None:
    triggers = Triggers(store, clock, Functions())
    await deploy(store, triggers, "rate(1 minute)", app="a")
    await deploy(store, triggers, "rate(2 minutes)", app="a2")
    await deploy(store, triggers, "rate(3 minutes)", "b", app="a")
    assert [(each.name, each.function) for each in triggers.list("a")] == [("b", "a-orders"), ("tick", "a-orders")]
    assert triggers.list("nobody") == []


async def test_a_schedule_that_is_wrong_is_refused_and_the_deploy_with_it(store: Store, clock: ManualClock) -> None:
    triggers = Triggers(store, clock, Functions())
    for config in (
        {"expression": "rate(5 minute)"},
        {"expression": "rate(5 minutes)", "timezone": "Mars/Olympus"},
        {"expression": "rate(5 minutes)", "name": "a/b"},
        {"expression": "rate(5 minutes)", "name": ""},
        {"expression": "rate(5 minutes)", "input": {1, 2}.__iter__},
    ):
        with pytest.raises(InvalidInput):
            await deploy(store, triggers, **config)  # type: ignore[arg-type]
    with pytest.raises(LimitExceeded, match="event_bytes"):
        await deploy(store, triggers, "rate(5 minutes)", input="x" * 1_048_576)
    assert triggers.list("shop") == []
    with pytest.raises(InvalidInput):
        triggers.check("cron(* * * * * *)")
    with pytest.raises(InvalidInput):
        triggers.check("rate(1 hour)", "Nowhere")
    triggers.check("cron(0 9 ? * MON-FRI *)", "Europe/Berlin")


async def test_a_function_error_is_tried_again_after_one_and_two_minutes(store: Store, clock: ManualClock) -> None:
    functions = Functions(BAD, BAD, GOOD)
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 day)")
    clock.advance(86_400)
    for wait, runs in ((0, 1), (59.999, 1), (0.001, 2), (119.999, 2), (0.001, 3), (100_000 - 86_400, 3)):
        clock.advance(wait)
        await triggers.run_due()
        assert len(functions.runs) == runs
    assert len(set(functions.ids)) == 1
    assert nothing_left(store)
    assert triggers.dead_letters() == []


async def test_after_the_last_attempt_it_is_a_dead_letter(store: Store, clock: ManualClock) -> None:
    functions = Functions(BAD)
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 day)", input={"n": 1})
    clock.advance(86_400)
    accepted_at_ms = clock.now_ms()
    for _ in range(6):
        await triggers.run_due()
        clock.advance(600)
    assert len(functions.runs) == 3
    assert nothing_left(store)
    [letter] = triggers.dead_letters()
    assert (letter.condition, letter.attempts, letter.error_type) == ("RetriesExhausted", 3, "ValueError")
    assert letter.error == {"errorMessage": "no", "errorType": "ValueError"}
    assert (letter.event.id, letter.event.function) == (functions.ids[0], "shop-orders")
    assert bytes(letter.event.payload) == b'{"n":1}'
    assert (letter.accepted_at_ms, letter.dead_at_ms) == (accepted_at_ms, accepted_at_ms + 1_200_000)
    assert triggers.dead_letters("shop") == [letter]
    assert triggers.dead_letters("other") == []
    assert [entry.topic for entry in store.tail(0, 100)][-1] == "delivery.dead"


@pytest.mark.parametrize(
    "refusal", [NotFound("no such function"), LimitExceeded("too large"), Unsupported("no"), Conflict("no")]
)
async def test_what_can_never_run_is_dead_at_once(store: Store, clock: ManualClock, refusal: Exception) -> None:
    functions = Functions(Outcome(refusal=refusal))  # type: ignore[arg-type]
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 hour)")
    clock.advance(3600)
    await triggers.run_due()
    [letter] = triggers.dead_letters()
    assert (letter.condition, letter.attempts, len(functions.runs)) == ("Refused", 0, 1)
    assert letter.error["detail"] == refusal.args[0]


@pytest.mark.parametrize("refusal", [Throttled("full"), Overloaded("full"), SandboxFailed("broken")])
async def test_what_could_not_run_for_now_is_tried_for_six_hours(store: Store, clock: ManualClock, refusal: Exception) -> None:
    functions = Functions(Outcome(refusal=refusal))  # type: ignore[arg-type]
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(10 days)")
    clock.advance(864_000)
    waits = []
    for _ in range(20_000):
        before = len(functions.runs)
        await triggers.run_due()
        waits += [clock.now_ms()] * (len(functions.runs) - before)
        if triggers.dead_letters():
            break
        clock.advance(2)
    [letter] = triggers.dead_letters()
    assert letter.condition == "EventAgeExceeded"
    assert letter.dead_at_ms - letter.accepted_at_ms >= 21_600_000
    gaps = [after - before for before, after in pairwise(waits)]
    assert gaps[0] <= 2_000
    assert 140_000 <= max(gaps) <= 302_000
    assert nothing_left(store)


async def test_throttled_runs_do_not_use_up_attempts(store: Store, clock: ManualClock) -> None:
    functions = Functions(*[Outcome(refusal=Throttled())] * 5, BAD, Outcome(refusal=Throttled()), BAD, GOOD)
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(10 days)")
    clock.advance(864_000)
    for _ in range(30):
        await triggers.run_due()
        clock.advance(120)
    assert len(functions.runs) == 9
    assert triggers.dead_letters() == []


async def test_a_dispatch_that_raises_is_an_end_like_any_other(store: Store, clock: ManualClock) -> None:
    errors: list[Exception] = [RuntimeError("a bug"), Overloaded("full"), NotFound("gone")]

    def dispatch(invocation: Invocation) -> None:
        raise errors.pop(0)

    triggers = Triggers(store, clock, dispatch)
    await deploy(store, triggers, "rate(1 day)")
    clock.advance(86_400)
    for _ in range(3):
        await triggers.run_due()
        clock.advance(10)
    assert errors == []
    assert [letter.condition for letter in triggers.dead_letters()] == ["Refused"]


async def test_an_error_that_is_not_json_is_kept_as_text(store: Store, clock: ManualClock) -> None:
    for payload, kept in ((b"\xff oops", "\ufffd oops"), (b"x" * 100_000, "x" * 65_536), (b"[" * 50_000, "[" * 50_000)):
        functions = Functions(Outcome(payload, "Unhandled", "Runtime.ExitError"))
        triggers = Triggers(store, clock, functions, attempts=1)
        await deploy(store, triggers, "rate(1 minute)")
        clock.advance(60)
        await triggers.run_due()
        assert triggers.dead_letters()[0].error == kept
        await triggers.stop()


async def test_no_more_run_at_one_time_than_allowed(store: Store, clock: ManualClock) -> None:
    functions = Functions(held=True)
    triggers = Triggers(store, clock, functions, concurrency=3)
    for number in range(10):
        await deploy(store, triggers, "rate(1 minute)", f"s{number}")
    clock.advance(60)
    await triggers.run_due()
    assert len(functions.runs) == 3
    functions.end(functions.runs[0])
    functions.end(functions.runs[1])
    await triggers.run_due()
    assert len(functions.runs) == 5
    for at in range(2, 10):
        functions.end(functions.runs[at])
        await triggers.run_due()
    assert len(set(functions.ids)) == 10
    assert nothing_left(store)


async def test_large_events_in_large_numbers_fit_into_transactions(store: Store, clock: ManualClock) -> None:
    functions = Functions(held=True)
    triggers = Triggers(store, clock, functions, attempts=1)
    for number in range(30):
        await deploy(store, triggers, "rate(1 minute)", f"s{number}", input="x" * 1_000_000)
    clock.advance(60)
    await triggers.run_due()
    assert len(functions.runs) == 30
    functions.outcomes = [BAD]
    for run in functions.runs:
        functions.end(run)
    await triggers.run_due()
    assert len(triggers.dead_letters()) == 30
    assert nothing_left(store)


async def test_dead_letters_are_kept_for_two_weeks(store: Store, clock: ManualClock) -> None:
    triggers = Triggers(store, clock, Functions(BAD), attempts=1)
    await deploy(store, triggers, "rate(1 day)")
    for _ in range(20):
        clock.advance(86_400)
        await triggers.run_due()
    letters = triggers.dead_letters()
    assert len(letters) == 15
    assert [letter.dead_at_ms for letter in letters] == sorted((letter.dead_at_ms for letter in letters), reverse=True)
    assert triggers.dead_letters(limit=2) == letters[:2]
    for limit in (0, 1001):
        with pytest.raises(InvalidInput):
            triggers.dead_letters(limit=limit)


async def test_other_entries_of_the_log_cost_no_commit_each_but_do_not_hold_the_log(store: Store, clock: ManualClock) -> None:
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    await triggers.run_due()
    for _ in range(12):
        await store.transact(lambda tx: [tx.append("document", b"k", b"{}") for _ in range(100)])
        before = store.statistics().transactions
        await triggers.run_due()
        assert store.statistics().transactions - before <= 1
    assert store.read(lambda reader: reader.cursor("triggers")) == 1000
    await deploy(store, triggers, "rate(1 minute)")
    clock.advance(60)
    await triggers.run_due()
    assert len(functions.runs) == 1


async def test_a_log_that_was_trimmed_before_the_first_start_is_no_obstacle(store: Store, clock: ManualClock) -> None:
    await store.transact(lambda tx: [tx.append("document", b"k", b"{}") for _ in range(100)])
    clock.advance(10)
    await store.maintain(keep_log_ms=1)
    assert store.first == 100
    functions = Functions()
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 minute)")
    clock.advance(60)
    await triggers.run_due()
    assert len(functions.runs) == 1


async def scenario(mortal: MortalStore, clock: ManualClock, functions: Functions, holder: str, until_ms: int) -> None:
    """What a process does in its life: it goes on from what the store says, minute by minute, until `until_ms`."""
    triggers = Triggers(mortal, clock, functions, holder=holder)  # type: ignore[arg-type]
    for name, expression in (("a", "rate(1 minute)"), ("b", "rate(2 minutes)")):
        config = ScheduleConfig(name=name, expression=expression, function="orders")
        await mortal.transact(lambda tx, config=config: triggers.put(tx, "shop", config, "shop-orders"))  # type: ignore[misc]
    while True:
        await triggers.run_due()
        if clock.now_ms() >= until_ms:
            return
        clock.advance(30)


async def live_twice(open_store: Callable[[ManualClock], Awaitable[Store]], at: int, after: bool, holder: str) -> bool:
    """A first life that is killed at its transaction number `at`, then a second one; True if the first was that long."""
    clock, functions = ManualClock(1_700_000_000_000), Functions(GOOD, BAD, GOOD)
    until_ms = clock.now_ms() + 4 * MINUTE
    store = await open_store(clock)
    mortal = MortalStore(store, at, after)
    try:
        await scenario(mortal, clock, functions, holder, until_ms)
    except Killed:
        pass
    await store.close()
    store = await open_store(clock)
    if not holder:
        clock.advance(10)  # until the lease of the dead process ends
    await scenario(MortalStore(store, 10**9, False), clock, functions, holder, until_ms + 4 * MINUTE)
    times = fired(store)
    assert len(times) == len(set(times))
    named_a = [due_ms for name, due_ms in times if name == "a"]
    assert named_a == list(range(named_a[0], named_a[-1] + 1, MINUTE))
    assert len(named_a) >= 7
    assert len(set(functions.ids)) == len(times)
    assert len(functions.runs) <= len(times) + 3  # one for the error, and both that ran when the process died
    assert nothing_left(store)
    await store.close()
    return mortal.dead


@pytest.mark.parametrize("holder", ["", "fixed"])
@pytest.mark.parametrize("after", [False, True], ids=["before-commit", "after-commit"])
async def test_killed_at_any_commit_each_due_time_fires_once_and_is_delivered(after: bool, holder: str) -> None:
    for at in range(60):
        disk = Disk()

        async def open_store(clock: ManualClock, disk: Disk = disk) -> Store:
            return Store(MemoryEngine(disk), clock=clock)

        if not await live_twice(open_store, at, after, holder):
            break
    else:
        pytest.fail("the scenario has more commits than are tried here")
    assert at > 15


@pytest.mark.parametrize("after", [False, True], ids=["before-commit", "after-commit"])
@pytest.mark.parametrize("at", [3, 4, 5, 6, 12])
async def test_the_same_on_a_disk(tmp_path: Path, at: int, after: bool) -> None:
    async def open_store(clock: ManualClock) -> Store:
        return await Store.open(tmp_path / "store", clock=clock)

    assert await live_twice(open_store, at, after, "")


async def test_what_ran_when_the_process_died_runs_again_with_the_same_id(clock: ManualClock) -> None:
    disk, functions = Disk(), Functions(held=True)
    store = Store(MemoryEngine(disk), clock=clock)
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 day)")
    clock.advance(86_400)
    await triggers.run_due()
    assert len(functions.runs) == 1
    await store.close()
    store = Store(MemoryEngine(disk), clock=clock)
    again = Triggers(store, clock, functions)
    await again.run_due()
    assert len(functions.runs) == 1  # the lease of the dead process still holds
    clock.advance(10)
    await again.run_due()
    assert functions.ids == [functions.ids[0]] * 2
    functions.end(functions.runs[1])
    await again.run_due()
    assert nothing_left(store)
    await store.close()


async def test_of_two_nodes_one_delivers(store: Store, clock: ManualClock) -> None:
    functions = [Functions(held=True), Functions(held=True)]
    nodes = [Triggers(store, clock, each) for each in functions]
    await deploy(store, nodes[0], "rate(1 minute)")
    clock.advance(60)
    for _ in range(11):  # as long as the first node renews its lease, the second one stays out, however long a run takes
        for node in nodes:
            await node.run_due()
        clock.advance(5)
    assert len(fired(store)) == len(functions[0].runs) == 1
    assert functions[1].runs == []
    started = len(functions[0].runs)
    clock.advance(30)  # the first node is paused
    await nodes[1].run_due()
    assert set(functions[0].ids) <= set(functions[1].ids)
    for run in functions[0].runs:  # it comes back: what it did counts, and it starts nothing more
        functions[0].end(run)
    await nodes[0].run_due()
    assert len(functions[0].runs) == started
    for run in functions[1].runs:
        functions[1].end(run)
    await nodes[1].run_due()
    assert nothing_left(store)


async def test_a_late_failure_of_a_paused_node_changes_nothing(store: Store, clock: ManualClock) -> None:
    slow, fast = Functions(BAD, held=True), Functions(GOOD, held=True)
    first, second = Triggers(store, clock, slow), Triggers(store, clock, fast)
    await deploy(store, first, "rate(1 day)")
    clock.advance(86_400)
    await first.run_due()
    clock.advance(11)
    await second.run_due()
    assert len(fast.runs) == 1
    slow.end(slow.runs[0])
    await first.run_due()
    assert rows(store, "triggers.ready") == 0  # not put back: the second node is at it
    fast.end(fast.runs[0])
    await second.run_due()
    assert nothing_left(store)
    assert len(fast.runs) == 1


async def test_stop_waits_for_what_runs_and_gives_the_lease_back(store: Store, clock: ManualClock) -> None:
    functions = Functions(held=True)
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 minute)")
    clock.advance(60)
    await triggers.run_due()
    await triggers.start()
    stopping = asyncio.create_task(triggers.stop(grace_seconds=30))
    await asyncio.sleep(0)
    functions.end(functions.runs[0])
    await stopping
    assert nothing_left(store)
    clock.advance(60)
    other = Triggers(store, clock, functions)
    await other.run_due()
    assert len(functions.runs) == 2


async def test_stop_does_not_wait_longer_than_told(store: Store, clock: ManualClock) -> None:
    functions = Functions(held=True)
    triggers = Triggers(store, clock, functions)
    await deploy(store, triggers, "rate(1 minute)")
    clock.advance(60)
    await triggers.run_due()
    await triggers.stop(grace_seconds=0)
    assert rows(store, "triggers.delivery") == 1


async def test_the_loop_wakes_by_commits_and_ends_of_runs(store: Store, clock: ManualClock) -> None:
    """No step by hand here: a deploy, a due time that is already past, and retries move it by themselves."""
    ran = asyncio.Event()

    def dispatch(invocation: Invocation) -> None:
        ran.set()
        asyncio.get_running_loop().call_soon(invocation.on_done, invocation, GOOD)

    triggers = Triggers(store, clock, dispatch)
    await triggers.start()
    await deploy(store, triggers, "rate(1 minute)")
    clock.advance(60)
    await deploy(store, triggers, "rate(1 hour)", "other")  # any commit to the log is a hint to look again
    async with asyncio.timeout(10):
        await ran.wait()
    await triggers.stop()
    assert nothing_left(store)


async def test_the_loop_arms_itself_for_the_next_due_time(store: Store) -> None:
    class Nearly(ManualClock):
        """Wall time that really passes, from just before the minute."""

        def now_ms(self) -> int:
            return 1_700_000_000_000 + int(asyncio.get_running_loop().time() * 1000)

    clock, ran = Nearly(), asyncio.Event()
    triggers = Triggers(store, clock, lambda invocation: ran.set())
    before = clock.now_ms()
    config = ScheduleConfig(name="s", expression="rate(1 minute)", function="f")
    await store.transact(lambda tx: triggers.put(tx, "shop", config, "shop-f"))
    low, high = keys.prefix_range("triggers.schedule")

    def soon(tx):  # type: ignore[no-untyped-def]
        [(key, raw)] = tx.scan(low, high)
        row = json.loads(raw)
        tx.delete(keys.encode("triggers.due", row["due_at_ms"], "shop", "s"))
        row["due_at_ms"] = before + 50
        tx.put(key, json.dumps(row).encode())
        tx.put(keys.encode("triggers.due", before + 50, "shop", "s"), b"")

    await store.transact(soon)
    await triggers.start()
    async with asyncio.timeout(10):
        await ran.wait()
    assert clock.now_ms() >= before + 50
    await triggers.stop(grace_seconds=0)
