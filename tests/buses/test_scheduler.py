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
from martlet.errors import AccessDenied, MartletError, ServiceError, Unsupported
from martlet.queues import Queues
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine
from martlet.triggers import Triggers, patterns
from martlet.triggers.calls import Calls
from martlet.triggers.destinations import Destinations
from martlet.triggers.kinds.bus import BusSource
from martlet.triggers.kinds.timetable import ScheduleSource

from .platform import ACCOUNT, REGION, Platform, eventually

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
        self.called: list[Any] = []
        self.refuses: list[MartletError] = []
        self.scheduler = Scheduler(self.store, self.clock, services=self, **given)
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
        self.triggers.serve(BusSource(self.store, self.events, book, destinations, Calls(ask, self.clock.now_ms), self.sns))
        self.triggers.serve(ScheduleSource(self.store, self.scheduler, self.events, self.sns, destinations, self))

    async def check(self, service: str, action: str, parameters: dict[str, Any]) -> None:
        if service == "ec2":
            raise Unsupported(f"the operation {service}:{action} is not supported")

    async def __call__(self, service: str, action: str, role: str, parameters: dict[str, Any]) -> None:
        if self.refuses:
            raise self.refuses.pop(0)
        self.called.append((service, action, role, parameters))

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


async def test_a_universal_target_is_called_by_the_role(stage: Stage) -> None:
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage", "Input": '{"at": "<aws.scheduler.scheduled-time>"}'}
    await stage.create("u", "at(2023-11-14T22:14:20)", Target=target, ActionAfterCompletion="DELETE")
    await stage.after(60)
    assert stage.called == [("sqs", "sendMessage", ROLE, {"at": "2023-11-14T22:14:20Z"})]
    assert (await stage.scheduler.list_schedules(CALLER, {}))["Schedules"] == []
    for wrong in ("[1]", "no JSON", ""):
        with pytest.raises(ServiceError, match="Input must be a JSON object"):
            await stage.create("w", "rate(1 minute)", Target={**target, "Input": wrong})
    with pytest.raises(Unsupported, match="ec2:stopInstances"):
        await stage.create("w", "rate(1 minute)", Target={**target, "Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances"})


async def test_a_universal_target_that_refuses_is_a_dead_letter(stage: Stage) -> None:
    arn = "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"
    target = {"Arn": arn, "Input": "{}", "DeadLetterConfig": {"Arn": QUEUE}}
    stage.refuses = [AccessDenied("not this role")]
    await stage.create("u", "at(2023-11-14T22:14:20)", Target=target)
    stage.clock.advance(60)
    await stage._settle()
    [found] = await stage.queues.receive("q", 10, wait_ms=0)
    said = {name: value.data for name, value in found.message.attributes.items()}
    assert said["ERROR_CODE"] == "NO_PERMISSIONS"
    assert (said["TARGET_ARN"], said["SCHEDULED_TIME"], said["IS_PAYLOAD_TRUNCATED"]) == (arn, "2023-11-14T22:14:20Z", "false")
    assert said["SCHEDULE_ARN"].endswith(":schedule/default/u")
    assert stage.called == []


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
    assert "ec2:stopInstances" in fails(scheduler.create_schedule, **universal, ScheduleExpression="rate(1 minute)")[1]
    group = scheduler.create_schedule_group(Name="g", Tags=[{"Key": "k", "Value": "v"}])["ScheduleGroupArn"]
    assert scheduler.list_tags_for_resource(ResourceArn=group)["Tags"] == [{"Key": "k", "Value": "v"}]
    scheduler.create_schedule(**given, GroupName="g", ScheduleExpression="rate(1 hours)")
    assert [one["GroupName"] for one in scheduler.list_schedules(NamePrefix="s")["Schedules"]] == ["default", "g"]
    scheduler.delete_schedule_group(Name="g")
    assert fails(scheduler.get_schedule_group, Name="g")[1] == "Schedule group g does not exist."
    scheduler.delete_schedule(Name="s")
    assert scheduler.list_schedules()["Schedules"] == []


def role_for(platform: Platform, name: str, actions: list[str], service: str = "scheduler.amazonaws.com") -> str:
    """A role that the service may take and that allows these actions; its ARN."""
    iam = platform.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    arn = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]["Arn"]  # fmt: skip
    if actions:
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    return str(arn)


def scheduled(platform: Platform, name: str, target: dict[str, Any]) -> None:
    """A schedule that is due in a moment."""
    at = datetime.fromtimestamp(platform.server.clock.now_ms() / 1000 + 1, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    platform.client("scheduler").create_schedule(
        Name=name, ScheduleExpression=f"at({at})", FlexibleTimeWindow={"Mode": "OFF"}, Target=target
    )


def test_every_service_is_a_universal_target(platform: Platform) -> None:
    url, queue_arn = platform.queue("universal")
    role = role_for(
        platform, "universal", ["sqs:SendMessage", "sns:Publish", "dynamodb:PutItem", "s3:PutObject", "events:PutEvents"]
    )
    topic = platform.client("sns").create_topic(Name="universal")["TopicArn"]
    platform.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=queue_arn, Attributes={"RawMessageDelivery": "true"}
    )
    events = platform.client("events")
    events.put_rule(Name="universal", EventPattern='{"source": ["universal"]}')
    events.put_targets(Rule="universal", Targets=[{"Id": "t", "Arn": queue_arn, "Input": '"by bus"'}])
    dynamodb, s3 = platform.client("dynamodb"), platform.client("s3")
    dynamodb.create_table(
        TableName="universal", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    s3.create_bucket(Bucket="universal")
    entry = {"Source": "universal", "DetailType": "d", "Detail": "{}"}
    calls: dict[str, dict[str, Any]] = {
        "sqs:sendMessage": {"QueueUrl": url, "MessageBody": '"by queue"'},
        "sns:publish": {"TopicArn": topic, "Message": '"by topic"'},
        "eventbridge:putEvents": {"Entries": [entry]},
        "dynamodb:putItem": {"TableName": "universal", "Item": {"id": {"S": "1"}, "raw": {"B": "text"}}},
        "s3:putObject": {"Bucket": "universal", "Key": "k", "Body": "kept", "ContentType": "text/x"},
    }
    for number, (name, parameters) in enumerate(calls.items()):
        arn = f"arn:aws:scheduler:::aws-sdk:{name}"
        scheduled(platform, f"u{number}", {"Arn": arn, "RoleArn": role, "Input": json.dumps(parameters)})
    assert sorted(platform.bodies(url, 3)) == ["by bus", "by queue", "by topic"]
    item = eventually(lambda: dynamodb.get_item(TableName="universal", Key={"id": {"S": "1"}}).get("Item"))
    assert item["raw"] == {"B": b"text"}
    found = eventually(lambda: s3.list_objects_v2(Bucket="universal").get("Contents"))
    assert [one["Key"] for one in found] == ["k"]
    assert s3.get_object(Bucket="universal", Key="k")["Body"].read() == b"kept"


@pytest.mark.parametrize(
    ("service", "actions", "says"),
    [
        ("scheduler.amazonaws.com", ["sqs:ReceiveMessage"], "sqs:SendMessage"),
        ("lambda.amazonaws.com", ["sqs:*"], "may not take"),
    ],
)
def test_a_role_that_may_not_is_refused(platform: Platform, service: str, actions: list[str], says: str) -> None:
    name = f"refused-{service.partition('.')[0]}"
    url, _ = platform.queue(name)
    dead_url, dead_arn = platform.queue(f"{name}-dead")
    scheduled(platform, name, {
        "Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage",
        "RoleArn": role_for(platform, name, actions, service),
        "Input": json.dumps({"QueueUrl": url, "MessageBody": "x"}),
        "DeadLetterConfig": {"Arn": dead_arn},
    })  # fmt: skip
    [dead] = platform.messages(dead_url, 1)
    assert dead["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    assert says in dead["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]
    assert platform.nothing(url)


@pytest.mark.parametrize(
    ("action", "parameters", "code", "says"),
    [
        ("sqs:receiveMessage", {}, "ValidationException", "only reads"),
        ("dynamodb:getItem", {}, "ValidationException", "only reads"),
        ("sqs:sendPigeon", {}, "NotImplementedException", "sqs:sendPigeon is not supported"),
        ("sqs:sendMessage", {"Queue": "q"}, "NotImplementedException", "has no parameter Queue"),
    ],
)
def test_what_no_schedule_may_call(platform: Platform, action: str, parameters: dict[str, Any], code: str, says: str) -> None:
    target = {"Arn": f"arn:aws:scheduler:::aws-sdk:{action}", "RoleArn": ROLE, "Input": json.dumps(parameters)}
    with pytest.raises(ClientError, match=says) as caught:
        platform.client("scheduler").create_schedule(
            Name="never", ScheduleExpression="rate(1 minute)", FlexibleTimeWindow={"Mode": "OFF"}, Target=target
        )
    assert caught.value.response["Error"]["Code"] == code
