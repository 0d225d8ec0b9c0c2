"""The Scheduler as boto3 speaks it, and its firings on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.buses.platform import open_to
from tests.queues.service import CALLER

from martlet.buses import Events, Rulebook, Scheduler, Signer, Sns
from martlet.clock import ManualClock
from martlet.queues import Queues
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.triggers import Triggers, patterns
from martlet.triggers.calls import Calls
from martlet.triggers.destinations import Destinations
from martlet.triggers.kinds.bus import BusSource
from martlet.triggers.kinds.timetable import ScheduleSource

from .platform import ACCOUNT, REGION, Platform

ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"


class Stage:
    """The rooms on a clock that stands still."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_700_000_000_000)  # 2023-11-14T22:13:20Z
        self.store = Store(MemoryEngine(), clock=self.clock)
        self.invoked: list[tuple[str, Any]] = []
        self.queues = Queues(self.store, self.clock)
        self.triggers = Triggers(self.store, self.clock, lambda invocation: None)
        given: dict[str, Any] = {
            "region": REGION, "compile_pattern": patterns.parse_pattern, "timetable": self.triggers,
        }  # fmt: skip
        self.events = Events(self.store, self.clock, **given)
        self.scheduler = Scheduler(self.store, self.clock, **given)
        del given["timetable"]
        signer = Signer(self.store, self.clock, lambda: "")
        self.sns = Sns(self.store, self.clock, **given, endpoint=lambda: "", signer=signer)
        logs: Any = None
        destinations = Destinations(
            self.queues, self.clock, accept=self._accept, resolve=lambda _: self, may_invoke=lambda *_: True, logs=logs,
            region=REGION,
        )  # fmt: skip
        ask: Any = None
        book = Rulebook(self.store, patterns.parse_pattern)
        self.triggers.serve(BusSource(self.store, self.events, book, destinations, Calls(ask), self.sns))
        self.triggers.serve(ScheduleSource(self.store, self.scheduler, self.events, self.sns, destinations))

    async def _accept(self, function: str, qualifier: str, payload: bytes, *, request_id: str = "") -> str:
        self.invoked.append((function, json.loads(payload)))
        return request_id

    async def open(self) -> None:
        await self.queues.start()
        await self.events.start()
        await self.scheduler.start()
        await self.queues.create("q", {"Policy": open_to(QUEUE, "events.amazonaws.com")})

    async def create(self, name: str, expression: str, **request: Any) -> None:
        target = {
            "Arn": QUEUE,
            "RoleArn": ROLE,
            "Input": '{"at": "<aws.scheduler.scheduled-time>"}',
            **request.pop("Target", {}),
        }
        given = {"FlexibleTimeWindow": {"Mode": "OFF"}, **request, "Name": name, "ScheduleExpression": expression}
        await self.scheduler.create_schedule(CALLER, {**given, "Target": target})

    async def after(self, seconds: float) -> list[str]:
        """The scheduled times that the queue has got so long from now."""
        self.clock.advance(seconds)
        await self._settle()
        found = await self.queues.receive("q", 10, wait_ms=0)
        await self.queues.acknowledge("q", [one.handle for one in found])
        return [json.loads(one.message.body)["at"] for one in found]

    async def _settle(self) -> None:
        import asyncio

        for _ in range(20):
            await self.triggers.run_due()
            await asyncio.sleep(0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await made.open()
    yield made
    await made.queues.stop()
    await made.store.close()


async def test_a_rate_fires_in_its_rhythm(stage: Stage) -> None:
    await stage.create("r", "rate(5 minutes)")
    assert await stage.after(299) == []
    assert await stage.after(1) == ["2023-11-14T22:18:20Z"]
    assert await stage.after(0) == []
    assert await stage.after(3600) == ["2023-11-14T22:23:20Z"]  # what was missed counts once
    assert await stage.after(300) == ["2023-11-14T23:23:20Z"]


async def test_one_time_in_a_zone_fires_once_and_goes(stage: Stage) -> None:
    zone = {"ScheduleExpressionTimezone": "Europe/Paris"}
    await stage.create("once", "at(2023-11-15T00:00:00)", ActionAfterCompletion="DELETE", **zone)
    await stage.create("stays", "at(2023-11-15T00:00:01)", **zone)
    assert await stage.after(2799) == []
    assert await stage.after(1) == ["2023-11-14T23:00:00Z"]
    assert await stage.after(1) == ["2023-11-14T23:00:01Z"]
    names = [one["Name"] for one in (await stage.scheduler.list_schedules(CALLER, {}))["Schedules"]]
    assert names == ["stays"]
    assert await stage.after(10**7) == []


async def test_start_and_end_bound_a_schedule(stage: Stage) -> None:
    start = datetime(2023, 11, 14, 23, tzinfo=UTC)
    end = datetime(2023, 11, 15, 0, 30, tzinfo=UTC)
    await stage.create("bounded", "rate(1 hour)", StartDate=start, EndDate=end, ActionAfterCompletion="DELETE")
    assert await stage.after(2799) == []
    assert await stage.after(1) == ["2023-11-14T23:00:00Z"]
    assert await stage.after(3600) == ["2023-11-15T00:00:00Z"]
    assert (await stage.scheduler.list_schedules(CALLER, {}))["Schedules"] == []
    assert await stage.after(86_400) == []


async def test_a_window_moves_the_firing_within_it(stage: Stage) -> None:
    await stage.create(
        "loose", "at(2023-11-14T23:00:00)", FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    )
    assert await stage.after(2799) == []
    found = []
    for _ in range(16):
        found += await stage.after(60)
    assert found == ["2023-11-14T23:00:00Z"]


async def test_a_schedule_that_is_switched_off_or_changed(stage: Stage) -> None:
    await stage.create("c", "rate(1 minute)", State="DISABLED")
    assert await stage.after(120) == []
    target = {"Arn": QUEUE, "RoleArn": ROLE, "Input": '{"at": "x"}'}
    changed = {"Name": "c", "ScheduleExpression": "rate(2 minutes)", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target}
    await stage.scheduler.update_schedule(CALLER, changed)
    assert await stage.after(119) == []
    assert await stage.after(1) == ["x"]
    await stage.scheduler.delete_schedule(CALLER, {"Name": "c"})
    assert await stage.after(1200) == []


async def test_functions_and_buses_are_targets(stage: Stage) -> None:
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"
    plain = {"Name": "f", "ScheduleExpression": "rate(1 minute)", "FlexibleTimeWindow": {"Mode": "OFF"}}
    await stage.scheduler.create_schedule(CALLER, {**plain, "Target": {"Arn": function, "RoleArn": ROLE}})
    await stage.events.put_rule(CALLER, {"Name": "r", "EventPattern": '{"source": ["mine"]}'})
    target = {"Id": "t", "Arn": QUEUE, "InputPath": "$.detail"}
    await stage.events.put_targets(CALLER, {"Rule": "r", "Targets": [target]})
    bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"
    parameters = {"DetailType": "d", "Source": "mine"}
    await stage.create("b", "rate(1 minute)", Target={"Arn": bus, "EventBridgeParameters": parameters})
    assert await stage.after(60) == ["2023-11-14T22:14:20Z"]
    [(name, event)] = stage.invoked
    assert (name, event["source"], event["detail"]) == ("f", "aws.scheduler", "{}")
    assert event["resources"] == [f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/f"]


async def test_a_rule_with_a_schedule_sends_the_scheduled_event(stage: Stage) -> None:
    await stage.events.put_rule(CALLER, {"Name": "tick", "ScheduleExpression": "rate(1 minute)"})
    path = {"InputPathsMap": {"t": "$.time", "r": "$.resources"}, "InputTemplate": '{"at": <t>, "rule": <r>}'}
    targets = [{"Id": "t", "Arn": QUEUE, "InputTransformer": path}]
    await stage.events.put_targets(CALLER, {"Rule": "tick", "Targets": targets})
    assert await stage.after(60) == ["2023-11-14T22:14:20Z"]
    await stage.events.disable_rule(CALLER, {"Name": "tick"})
    assert await stage.after(60) == []
    await stage.events.enable_rule(CALLER, {"Name": "tick"})
    assert await stage.after(60) == ["2023-11-14T22:16:20Z"]
    await stage.events.remove_targets(CALLER, {"Rule": "tick", "Ids": ["t"]})
    await stage.events.delete_rule(CALLER, {"Name": "tick"})
    assert await stage.after(60) == []


def test_the_api_answers_as_the_service_does(platform: Platform) -> None:
    scheduler = platform.client("scheduler")

    def fails(call: Any, **request: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as caught:
            call(**request)
        error = caught.value.response["Error"]
        return error["Code"], error["Message"]

    target = {"Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f", "RoleArn": ROLE}
    given = {"Name": "s", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target}
    for expression in (
        *(
            "cron(0 1 * * * *)",
            "cron(INVALID)",
            "cron()",
            "rate(10 seconds)",
            "rate()",
            "rate( 10 minutes )",
            " rate(10 minutes)",
        ),
        *("at(2021-12-31T23:59:59Z)", "at(2021-12-31)", "rate(-10 minutes)"),
    ):
        assert fails(scheduler.create_schedule, **given, ScheduleExpression=expression) == (
            "ValidationException", f"Invalid Schedule Expression {expression}.",
        )  # fmt: skip
    arn = scheduler.create_schedule(**given, ScheduleExpression="at(2022-12-31T23:59:59)")["ScheduleArn"]
    assert arn == f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/s"
    assert fails(scheduler.create_schedule, **given, ScheduleExpression="rate(1 minute)") == (
        "ConflictException", "Schedule s already exists.",
    )  # fmt: skip
    found = scheduler.get_schedule(Name="s")
    assert (found["State"], found["ScheduleExpressionTimezone"], found["ActionAfterCompletion"]) == ("ENABLED", "UTC", "NONE")
    assert found["Target"]["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185}
    assert fails(scheduler.get_schedule, Name="x") == ("ResourceNotFoundException", "Schedule x does not exist.")
    universal = {**given, "Name": "u", "Target": {**target, "Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances"}}
    assert "aws-sdk:ec2:stopInstances" in fails(scheduler.create_schedule, **universal, ScheduleExpression="rate(1 minute)")[1]
    group = scheduler.create_schedule_group(Name="g", Tags=[{"Key": "k", "Value": "v"}])["ScheduleGroupArn"]
    assert scheduler.list_tags_for_resource(ResourceArn=group)["Tags"] == [{"Key": "k", "Value": "v"}]
    scheduler.create_schedule(**given, GroupName="g", ScheduleExpression="rate(1 hours)")
    assert [one["GroupName"] for one in scheduler.list_schedules(NamePrefix="s")["Schedules"]] == ["default", "g"]
    scheduler.delete_schedule_group(Name="g")
    assert fails(scheduler.get_schedule_group, Name="g")[1] == "Schedule group g does not exist."
    scheduler.delete_schedule(Name="s")
    assert scheduler.list_schedules()["Schedules"] == []
