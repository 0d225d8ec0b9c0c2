"""EventBridge as boto3 speaks it: buses, rules, targets, what is delivered and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .platform import ACCOUNT, REGION, Platform

ARN = f"arn:aws:events:{REGION}:{ACCOUNT}:"
PATTERN = json.dumps({"source": ["shop"], "detail": {"sum": [{"numeric": [">", 9]}]}})


def fails(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def put(platform: Platform, detail: Any, *, bus: str = "default", source: str = "shop", **more: Any) -> dict[str, Any]:
    entry = {"Source": source, "DetailType": "order", "Detail": json.dumps(detail), "EventBusName": bus, **more}
    answer: dict[str, Any] = platform.client("events").put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0, answer
    return answer


def wire(platform: Platform, name: str, *, bus: str = "default", pattern: str = PATTERN, **target: Any) -> str:
    """A rule with a queue of its own; the queue's URL."""
    url, arn = platform.queue(name)
    if bus != "default":
        platform.client("events").create_event_bus(Name=bus)
    platform.client("events").put_rule(Name=name, EventPattern=pattern, EventBusName=bus)
    platform.client("events").put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "t", "Arn": arn, **target}])
    return url


def test_an_event_reaches_the_queue_of_its_rule(platform: Platform) -> None:
    url = wire(platform, "plain", bus="plain")
    put(platform, {"sum": 5}, bus="plain")
    id = put(platform, {"sum": 10, "note": "ü"}, bus="plain", Resources=["r"])["Entries"][0]["EventId"]
    [event] = platform.bodies(url, 1)
    assert event.pop("time").endswith("Z")
    assert event == {
        "version": "0",
        "id": id,
        "detail-type": "order",
        "source": "shop",
        "account": ACCOUNT,
        "region": REGION,
        "resources": ["r"],
        "detail": {"sum": 10, "note": "ü"},
    }
    assert platform.nothing(url)


def test_what_is_wrong_with_an_entry_is_said_in_its_place(platform: Platform) -> None:
    good = {"Source": "a", "DetailType": "b", "Detail": "{}"}
    entries = [
        {**good, "Source": ""},
        {key: value for key, value in good.items() if key != "DetailType"},
        good,
        {**good, "Detail": "[1]"},
        {**good, "Detail": "{"},
        {**good, "Source": "aws.s3"},
        {**good, "EventBusName": "nowhere"},
    ]
    answer = platform.client("events").put_events(Entries=entries)
    codes = [entry.get("ErrorCode") for entry in answer["Entries"]]
    malformed = "MalformedDetail"
    assert codes == ["InvalidArgument", "InvalidArgument", None, malformed, malformed, "NotAuthorizedForSourceException", None]
    assert answer["FailedEntryCount"] == 5
    assert answer["Entries"][0]["ErrorMessage"] == "Parameter Source is not valid. Reason: Source is a required argument."


def test_too_much_is_refused_and_ten_are_the_most(platform: Platform) -> None:
    events = platform.client("events")
    large = {"Source": "a", "DetailType": "b", "Detail": json.dumps({"p": "p" * (256 * 1024 - 10)})}
    assert fails(events.put_events, Entries=[large]) == (
        "ValidationException", "Total size of the entries in the request is over the limit.",
    )  # fmt: skip
    code, text = fails(events.put_events, Entries=[{"Source": "a", "DetailType": "b", "Detail": "{}"}] * 11)
    assert (code, text.endswith("Member must have length less than or equal to 10")) == ("ValidationException", True)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ({"InputPath": "$.detail"}, '{"sum":10,"who":{"name":"Ann \\"A\\""},"tags":["x","y"]}'),
        ({"InputPath": "$.detail.who.name"}, '"Ann \\"A\\""'),
        ({"InputPath": "$.detail.tags[1]"}, '"y"'),
        ({"Input": '{"fixed": true}'}, '{"fixed": true}'),
        (
            {"InputTransformer": {"InputPathsMap": {"s": "$.detail.sum", "no": "$.x"}, "InputTemplate": '"<s> of <no>!"'}},
            '"10 of !"',
        ),
        ({"InputTransformer": {"InputPathsMap": {"t": "$.detail.tags"}, "InputTemplate": '"<t>"'}}, '"[x,y]"'),
        (
            {
                "InputTransformer": {
                    "InputPathsMap": {"t": "$.detail.tags", "no": "$.x"}, "InputTemplate": '{"a": <t>, "b": <no>}',
                }
            },
            '{"a": ["x","y"], "b": ""}',
        ),
        (
            {"InputTransformer": {"InputPathsMap": {"n": "$.detail.who.name"}, "InputTemplate": '{"a": "u/<n>", "b": <n>}'}},
            '{"a": "u/Ann \\"A\\"", "b": "Ann \\"A\\""}',
        ),
        ({"InputTransformer": {"InputTemplate": '"<aws.events.rule-name>"'}}, '"{name}"'),
    ],
)  # fmt: skip
def test_a_target_is_given_what_its_input_says(platform: Platform, target: dict[str, Any], body: str) -> None:
    name = f"input{abs(hash(json.dumps(target))) % 10**9}"
    url = wire(platform, name, bus=name, pattern='{"source": ["shop"]}', **target)
    put(platform, {"sum": 10, "who": {"name": 'Ann "A"'}, "tags": ["x", "y"]}, bus=name)
    [message] = platform.messages(url, 1)
    assert message["Body"] == body.replace("{name}", name)


def test_an_input_that_makes_no_json_is_dropped(platform: Platform) -> None:
    transformer = {"InputPathsMap": {"d": "$.detail"}, "InputTemplate": '{"a": "<d>"}'}
    url = wire(platform, "nojson", bus="nojson", pattern='{"source": ["shop"]}', InputTransformer=transformer)
    put(platform, {"x": "y"}, bus="nojson")
    assert platform.nothing(url)


def test_errors_are_in_the_words_of_the_service(platform: Platform) -> None:
    events = platform.client("events")
    _, queue = platform.queue("words")
    assert fails(events.delete_event_bus, Name="default") == ("ValidationException", "Cannot delete event bus default.")
    missing = ("ResourceNotFoundException", "Event bus nope does not exist.")
    assert fails(events.describe_event_bus, Name="nope") == missing
    assert fails(events.put_rule, Name="r", EventBusName="arn:aws:events:us-east-1:111111111111:event-bus/nope",
                 EventPattern=PATTERN) == missing  # fmt: skip
    events.delete_event_bus(Name="nope")  # one that is not there is fine
    assert fails(events.put_rule, Name="r", EventBusName="nope", EventPattern='{"a":[1]}') == missing
    assert fails(events.describe_rule, Name="nope") == (
        "ResourceNotFoundException", "Rule nope does not exist on EventBus default.",
    )  # fmt: skip
    assert fails(events.put_rule, Name="r")[1] == "Parameter(s) EventPattern or ScheduleExpression must be specified."
    code, text = fails(events.put_rule, Name="r", EventPattern='{"a": [{"EXISTS": true}]}')
    assert code == "InvalidEventPatternException"
    assert text.startswith("Event pattern is not valid. Reason: Unrecognized match type EXISTS")
    for expression in (
        "rate(10 seconds)",
        "rate(1 minutes)",
        " rate(10 minutes)",
        "cron(0 1 * * * *)",
        "at(2030-01-01T00:00:00)",
    ):
        assert fails(events.put_rule, Name="r", ScheduleExpression=expression) == (
            "ValidationException", "Parameter ScheduleExpression is not valid.",
        )  # fmt: skip
    events.put_rule(Name="words", EventPattern='{"a": [1]}')
    both = [{"Id": "t", "Arn": queue, "Input": "{}", "InputPath": "$.a"}]
    assert fails(events.put_targets, Rule="words", Targets=both)[1] == (
        "Only one of Input, InputPath, or InputTransformer must be provided for target t."
    )
    bad = [{"Id": "t", "Arn": queue, "InputTransformer": {"InputTemplate": '"<who>"'}}]
    assert (
        fails(events.put_targets, Rule="words", Targets=bad)[1]
        == "InputTemplate for target t contains invalid placeholder who."
    )
    many = [{"Id": f"t{number}", "Arn": queue} for number in range(6)]
    assert fails(events.put_targets, Rule="words", Targets=many)[0] == "LimitExceededException"
    stream = [{"Id": "t", "Arn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s"}]
    assert "not supported" in fails(events.put_targets, Rule="words", Targets=stream)[1]
    events.put_targets(Rule="words", Targets=[{"Id": "t", "Arn": queue}])
    assert fails(events.delete_rule, Name="words") == ("ValidationException", "Rule can't be deleted since it has targets.")
    events.remove_targets(Rule="words", Ids=["t"])
    events.delete_rule(Name="words")
    events.delete_rule(Name="words")


def test_lists_come_in_pages(platform: Platform) -> None:
    events = platform.client("events")
    events.create_event_bus(Name="paged", Description="d", Tags=[{"Key": "k", "Value": "v"}])
    _, queue = platform.queue("paged")
    for number in range(5):
        events.put_rule(Name=f"r{number}", EventBusName="paged", EventPattern='{"a": [1]}')
        events.put_targets(Rule=f"r{number}", EventBusName="paged", Targets=[{"Id": "t", "Arn": queue}])
    first = events.list_rules(EventBusName="paged", Limit=3)
    rest = events.list_rules(EventBusName="paged", NextToken=first["NextToken"])
    assert [rule["Name"] for rule in first["Rules"] + rest["Rules"]] == [f"r{number}" for number in range(5)]
    assert first["Rules"][0] == {
        "Name": "r0", "Arn": f"{ARN}rule/paged/r0", "EventPattern": '{"a": [1]}', "State": "ENABLED", "EventBusName": "paged",
    }  # fmt: skip
    assert "NextToken" not in rest
    named = events.list_rule_names_by_target(TargetArn=queue, EventBusName="paged", Limit=2)
    assert (named["RuleNames"], "NextToken" in named) == (["r0", "r1"], True)
    assert events.list_tags_for_resource(ResourceARN=f"{ARN}event-bus/paged")["Tags"] == [{"Key": "k", "Value": "v"}]
    [bus] = events.list_event_buses(NamePrefix="paged")["EventBuses"]
    assert (bus["Description"], bus["Arn"]) == ("d", f"{ARN}event-bus/paged")


def test_a_rule_that_is_switched_off_hears_nothing(platform: Platform) -> None:
    url = wire(platform, "off", bus="off")
    events = platform.client("events")
    events.disable_rule(Name="off", EventBusName="off")
    put(platform, {"sum": 10}, bus="off")
    assert platform.nothing(url)
    events.enable_rule(Name="off", EventBusName="off")
    put(platform, {"sum": 11}, bus="off")
    assert [event["detail"]["sum"] for event in platform.bodies(url, 1)] == [11]


def test_a_bus_passes_on_to_a_bus_but_not_for_ever(platform: Platform) -> None:
    events = platform.client("events")
    url = wire(platform, "last", bus="last")
    events.create_event_bus(Name="first")
    targets = [{"Id": "t", "Arn": f"{ARN}event-bus/last", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r"}]
    events.put_rule(Name="on", EventBusName="first", EventPattern=PATTERN)
    events.put_targets(Rule="on", EventBusName="first", Targets=targets)
    events.put_rule(Name="round", EventBusName="last", EventPattern=PATTERN)
    events.put_targets(Rule="round", EventBusName="last", Targets=[{**targets[0], "Arn": f"{ARN}event-bus/first"}])
    id = put(platform, {"sum": 10}, bus="first")["Entries"][0]["EventId"]
    assert {event["id"] for event in platform.bodies(url, 3)} == {id}
    assert platform.nothing(url)


def test_an_event_that_cannot_be_delivered_goes_to_its_dead_letter_queue(platform: Platform) -> None:
    dead, dead_arn = platform.queue("dead")
    events = platform.client("events")
    events.create_event_bus(Name="dead")
    rule = events.put_rule(Name="dead", EventBusName="dead", EventPattern=PATTERN)["RuleArn"]
    gone = f"arn:aws:sqs:{REGION}:{ACCOUNT}:gone"
    target = {"Id": "t", "Arn": gone, "DeadLetterConfig": {"Arn": dead_arn}, "InputPath": "$.detail"}
    events.put_targets(Rule="dead", EventBusName="dead", Targets=[target])
    put(platform, {"sum": 10}, bus="dead")
    [message] = platform.messages(dead, 1)
    assert message["Body"] == '{"sum":10}'
    facts = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert (facts["RULE_ARN"], facts["TARGET_ARN"], facts["ERROR_CODE"]) == (rule, gone, "NO_RESOURCE")


def test_archives_keep_and_replays_bring_back(platform: Platform) -> None:
    events = platform.client("events")
    url = wire(platform, "kept", bus="kept", pattern='{"source": ["shop"]}')
    bus = f"{ARN}event-bus/kept"
    made = events.create_archive(ArchiveName="kept", EventSourceArn=bus, EventPattern=PATTERN, RetentionDays=1)
    assert (made["ArchiveArn"], made["State"]) == (f"{ARN}archive/kept", "ENABLED")
    assert fails(events.create_archive, ArchiveName="kept", EventSourceArn=bus)[1] == "Archive kept already exists."
    for number in range(3):
        put(platform, {"sum": 9 + number}, bus="kept")
    first = platform.bodies(url, 3)
    assert events.describe_archive(ArchiveName="kept")["EventCount"] == 2
    start, end = first[0]["time"], "2999-01-01T00:00:00Z"
    request = {"EventSourceArn": made["ArchiveArn"], "EventStartTime": start, "EventEndTime": end, "Destination": {"Arn": bus}}
    assert events.start_replay(ReplayName="again", **request)["State"] == "STARTING"
    platform.run(platform.server.buses.events.settled())
    again = platform.bodies(url, 2)
    assert all(event.pop("replay-name") == "again" for event in again)
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, [event for event in first if event["detail"]["sum"] > 9]))
    assert events.describe_replay(ReplayName="again")["State"] == "COMPLETED"
    assert events.describe_archive(ArchiveName="kept")["EventCount"] == 2
    assert fails(events.start_replay, ReplayName="again", **request)[1] == "Replay again already exists."
    request |= {"EventStartTime": end}
    assert fails(events.start_replay, ReplayName="b", **request)[1] == (
        "Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime."
    )
    events.delete_archive(ArchiveName="kept")


def test_permissions_make_the_policy(platform: Platform) -> None:
    events = platform.client("events")
    events.create_event_bus(Name="open")
    events.put_permission(EventBusName="open", Action="events:PutEvents", Principal="111122223333", StatementId="s")
    policy = json.loads(events.describe_event_bus(Name="open")["Policy"])
    assert policy["Statement"] == [
        {
            "Sid": "s", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": "events:PutEvents",
            "Resource": f"{ARN}event-bus/open",
        }
    ]  # fmt: skip
    assert fails(events.remove_permission, EventBusName="open", StatementId="x")[1] == (
        "Statement with the provided id does not exist."
    )
    events.remove_permission(EventBusName="open", RemoveAllPermissions=True)
    assert "Policy" not in events.describe_event_bus(Name="open")


def test_test_event_pattern(platform: Platform) -> None:
    names = ("id", "account", "source", "time", "region", "detail-type")
    event: dict[str, Any] = dict.fromkeys(names, "x")
    call = platform.client("events").test_event_pattern
    assert call(EventPattern='{"source": ["x"]}', Event=json.dumps(event))["Result"] is True
    assert call(EventPattern='{"source": ["y"]}', Event=json.dumps(event))["Result"] is False
    assert fails(call, EventPattern='{"source": "y"}', Event=json.dumps(event))[0] == "InvalidEventPatternException"
    for name in names:
        less = json.dumps({other: value for other, value in event.items() if other != name})
        assert fails(call, EventPattern='{"a": ["x"]}', Event=less) == ("ValidationException", "Parameter Event is not valid.")


def test_a_function_gets_the_event_when_its_policy_lets_the_rule(platform: Platform) -> None:
    events, functions = platform.client("events"), platform.client("lambda")
    seen, seen_arn = platform.queue("seen")
    dead, dead_arn = platform.queue("refused")
    function = platform.function("heard", "def handler(event, context):\n    return event\n")
    functions.put_function_event_invoke_config(FunctionName="heard", DestinationConfig={"OnSuccess": {"Destination": seen_arn}})
    events.create_event_bus(Name="f")
    rule = events.put_rule(Name="f", EventBusName="f", EventPattern=PATTERN)["RuleArn"]
    target = {"Id": "t", "Arn": function, "DeadLetterConfig": {"Arn": dead_arn}}
    events.put_targets(Rule="f", EventBusName="f", Targets=[target])
    put(platform, {"sum": 10}, bus="f")
    [message] = platform.messages(dead, 1)
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    functions.add_permission(
        FunctionName="heard", StatementId="s", Action="lambda:InvokeFunction", Principal="events.amazonaws.com", SourceArn=rule
    )
    put(platform, {"sum": 11}, bus="f")
    [record] = platform.bodies(seen, 1)
    assert record["requestContext"]["condition"] == "Success"
    assert record["responsePayload"]["detail"] == record["requestPayload"]["detail"] == {"sum": 11}


def test_results_of_a_function_go_to_a_bus(platform: Platform) -> None:
    url = wire(platform, "results", bus="results", pattern='{"source": ["lambda"]}')
    platform.function("told", "def handler(event, context):\n    return {'ok': 1}\n")
    bus = f"{ARN}event-bus/results"
    platform.client("lambda").put_function_event_invoke_config(
        FunctionName="told", DestinationConfig={"OnSuccess": {"Destination": bus}}
    )
    platform.client("lambda").invoke(FunctionName="told", InvocationType="Event", Payload=b'{"a": 1}')
    [event] = platform.bodies(url, 1)
    assert event["detail-type"] == "Lambda Function Invocation Result - Success"
    assert event["resources"] == [bus, f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:told:$LATEST"]
    assert event["detail"]["responsePayload"] == {"ok": 1}


def test_a_log_group_is_a_target(platform: Platform) -> None:
    logs = platform.client("logs")
    logs.create_log_group(logGroupName="/aws/events/all")
    events = platform.client("events")
    events.create_event_bus(Name="logged")
    events.put_rule(Name="logged", EventBusName="logged", EventPattern=PATTERN)
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/events/all"
    events.put_targets(Rule="logged", EventBusName="logged", Targets=[{"Id": "t", "Arn": arn}])
    put(platform, {"sum": 10}, bus="logged")
    from .platform import eventually

    found = eventually(lambda: logs.filter_log_events(logGroupName="/aws/events/all")["events"])
    assert json.loads(found[0]["message"])["detail"] == {"sum": 10}
