"""Stacks from creation to deletion: order, events, replacement, rollback, crashes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rooms import House, Killed

from martlet.apps.stacks.engine import Request
from martlet.apps.stacks.records import StackRecord
from martlet.errors import Conflict, DeployFailed, MartletError, ServiceError, Unsupported
from martlet.types import Outcome

FUNCTION = """
  {name}:
    Type: AWS::Lambda::Function
    Properties:
      Code: {code}
      Handler: app.handler
      Runtime: python3.11
      Role: !GetAtt Role.Arn
      MemorySize: {memory}
      {more}
"""
ROLE = """
  Role:
    Type: AWS::IAM::Role
    Properties: {AssumeRolePolicyDocument: {Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: 'sts:AssumeRole'}]}}
"""


def template(
    memory: Any = 128, *, more: str = "", code: str = "src", rest: str = "", outputs: str = "", name: str = "Hello"
) -> str:
    body = "Resources:" + ROLE + FUNCTION.format(name=name, code=code, memory=memory, more=more) + rest
    return body + (f"\nOutputs:\n{outputs}" if outputs else "")


@pytest.fixture
async def house():
    made = House()
    yield made
    await made.engine.close()


async def bring(house: House, text: str, name: str = "demo", **given: Any) -> StackRecord:
    record = house.engine.find(name)
    live = record is not None and record.status != "DELETE_COMPLETE"
    id = record.id if live and record is not None else house.engine.new_id(name)
    request = Request(name=name, template=text, **given)
    prepared = await house.engine.prepare(request, id, house.local)
    work = house.engine.update if live else house.engine.create
    return await (await work(request, prepared, id))


def statuses(house: House, record: StackRecord) -> list[str]:
    return [f"{event.logical_id} {event.status}" for event in reversed(house.engine.events(record.id))]


async def test_a_stack_is_made_in_order_and_tells_it(house: House):
    record = await bring(
        house, template(outputs="  Arn: {Value: !GetAtt Hello.Arn, Export: {Name: !Sub '${AWS::StackName}-arn'}}")
    )
    assert record.status == "CREATE_COMPLETE"
    assert statuses(house, record) == [
        "demo CREATE_IN_PROGRESS",
        "Role CREATE_IN_PROGRESS", "Role CREATE_IN_PROGRESS", "Role CREATE_COMPLETE",
        "Hello CREATE_IN_PROGRESS", "Hello CREATE_IN_PROGRESS", "Hello CREATE_COMPLETE",
        "demo CREATE_COMPLETE",
    ]  # fmt: skip
    (name,) = house.control.functions
    assert name.startswith("demo-Hello-")
    made = house.control.functions[name]
    assert made["Code"] == {"S3Bucket": "martlet-code", "S3Key": "packed-src"}
    assert made["Role"].startswith("arn:aws:iam::000000000000:role/demo-Role-")
    assert made["MemorySize"] == 128
    assert made["Tags"]["aws:cloudformation:stack-name"] == "demo"
    (output,) = house.engine.body(record.id).outputs
    assert output["OutputValue"] == f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    assert output["ExportName"] == "demo-arn"


async def test_an_update_in_place_changes_only_what_differs(house: House):
    await bring(house, template(128))
    house.control.calls.clear()
    record = await bring(house, template(256))
    assert record.status == "UPDATE_COMPLETE"
    assert [name for name, _ in house.control.calls if name.startswith(("create", "update", "delete"))] == [
        "update_function_configuration"
    ]
    (made,) = house.control.functions.values()
    assert made["MemorySize"] == 256


async def test_properties_that_go_return_to_their_defaults(house: House):
    await bring(
        house, template(more="Environment: {Variables: {A: b}}\n      Timeout: 9\n      ReservedConcurrentExecutions: 3")
    )
    (name,) = house.control.functions
    assert house.control.concurrency == {name: 3}
    await bring(house, template())
    assert house.control.functions[name]["Environment"] == {"Variables": {}}
    assert house.control.functions[name]["Timeout"] == 3
    assert house.control.concurrency == {}


async def test_replacement_makes_the_new_one_first(house: House):
    await bring(house, template(more="FunctionName: one"))
    house.control.calls.clear()
    record = await bring(house, template(more="FunctionName: two"))
    assert record.status == "UPDATE_COMPLETE"
    changes = [name for name, _ in house.control.calls if name in ("create_function", "delete_function")]
    assert changes == ["create_function", "delete_function"]
    assert list(house.control.functions) == ["two"]
    marks = statuses(house, record)
    assert marks.index("demo UPDATE_COMPLETE_CLEANUP_IN_PROGRESS") < marks.index("Hello DELETE_COMPLETE")


async def test_what_needs_a_replaced_resource_follows_it(house: House):
    rest = "\n  Grant:\n    Type: AWS::Lambda::Permission\n    Properties: {Action: 'lambda:InvokeFunction', FunctionName: !Ref Hello, Principal: x}\n"
    await bring(house, template(more="FunctionName: one", rest=rest))
    await bring(house, template(more="FunctionName: two", rest=rest))
    assert [key[0] for key in house.control.permissions] == ["two"]


async def test_a_failed_creation_leaves_nothing(house: House):
    def trip(operation: str, request: dict[str, Any]) -> None:
        if operation == "create_alias":
            raise ServiceError("InvalidParameterValueException", "no such version")

    house.control.trip = trip
    rest = "\n  Live:\n    Type: AWS::Lambda::Alias\n    Properties: {FunctionName: !Ref Hello, FunctionVersion: '7', Name: live}\n"
    record = await bring(house, template(rest=rest))
    assert record.status == "ROLLBACK_COMPLETE"
    assert house.control.functions == {}
    events = {f"{event.logical_id} {event.status}": event.reason for event in house.engine.events(record.id)}
    assert events["Live CREATE_FAILED"] == "no such version"
    assert events["demo ROLLBACK_IN_PROGRESS"].startswith("The following resource(s) failed to create: [Live].")
    assert house.engine.resources(record.id) == {}


@pytest.mark.parametrize(
    ("on_failure", "status", "functions"), [("DO_NOTHING", "CREATE_FAILED", 1), ("DELETE", "DELETE_COMPLETE", 0)]
)
async def test_on_failure(house: House, on_failure: str, status: str, functions: int):
    def trip(operation: str, request: dict[str, Any]) -> None:
        if operation == "add_permission":
            raise ServiceError("InvalidParameterValueException", "no")

    house.control.trip = trip
    rest = (
        "\n  Grant:\n    Type: AWS::Lambda::Permission\n    Properties: {Action: a, FunctionName: !Ref Hello, Principal: x}\n"
    )
    record = await bring(house, template(rest=rest), on_failure=on_failure)
    assert record.status == status
    assert len(house.control.functions) == functions


BEFORE = template(
    128,
    more="FunctionName: fixed\n      Environment: {Variables: {V: '1'}}\n      Tags: [{Key: a, Value: b}]",
    rest="\n  Live:\n    Type: AWS::Lambda::Alias\n    Properties: {FunctionName: !Ref Hello, FunctionVersion: '1', Name: live}"
    "\n  Tick:\n    Type: AWS::Events::Rule\n    Properties: {ScheduleExpression: rate(1 minute), Targets: [{Id: t, Arn: !GetAtt Hello.Arn}]}\n",
)
AFTER = template(
    512,
    more="FunctionName: fixed\n      Environment: {Variables: {V: '2'}}\n      Timeout: 20",
    code="other",
    rest="\n  Live:\n    Type: AWS::Lambda::Alias\n    Properties: {FunctionName: !Ref Hello, FunctionVersion: '2', Name: live}"
    "\n  More:\n    Type: AWS::Lambda::Url\n    Properties: {TargetFunctionArn: !Ref Hello, AuthType: NONE}"
    "\n  Last:\n    Type: AWS::Lambda::Permission\n    DependsOn: [Live, More]\n    Properties: {Action: a, FunctionName: !Ref Hello, Principal: x}\n",
)


def normal(everything: dict[str, Any]) -> dict[str, Any]:
    """Without what an update may leave behind that means the same."""
    found = json.loads(json.dumps(everything, default=str, skipkeys=True))
    for function in found["functions"].values():
        function.pop("Timeout", None) if function.get("Timeout") == 3 else None
    return found


async def test_a_failed_update_is_rolled_back_exactly(house: House):
    record = await bring(house, BEFORE)
    before, schedules = house.control.everything(), dict(house.schedules.there)
    rows, body = house.engine.resources(record.id), house.engine.body(record.id)

    def trip(operation: str, request: dict[str, Any]) -> None:
        if operation == "add_permission":
            raise ServiceError("InvalidParameterValueException", "no")

    house.control.trip = trip
    record = await bring(house, AFTER)
    assert record.status == "UPDATE_ROLLBACK_COMPLETE"
    assert normal(house.control.everything()) == normal(before)
    assert house.schedules.there == schedules
    assert house.engine.body(record.id) == body
    after = house.engine.resources(record.id)
    assert {name: row.now for name, row in after.items()} == {name: row.now for name, row in rows.items()}
    house.control.trip = lambda operation, request: None
    assert (await bring(house, AFTER)).status == "UPDATE_COMPLETE"
    assert house.schedules.there == {}


async def test_deletion_honours_retain(house: House):
    text = template().replace(
        "    Type: AWS::Lambda::Function\n", "    Type: AWS::Lambda::Function\n    DeletionPolicy: Retain\n"
    )
    record = await bring(house, text)
    task = await house.engine.delete("demo")
    assert task is not None
    assert (await task).status == "DELETE_COMPLETE"
    assert len(house.control.functions) == 1
    assert "Hello DELETE_SKIPPED" in statuses(house, record)
    assert house.engine.find("demo") is None
    assert house.engine.find(record.id) is not None


async def test_deletion_goes_backwards(house: House):
    rest = (
        "\n  Grant:\n    Type: AWS::Lambda::Permission\n    Properties: {Action: a, FunctionName: !Ref Hello, Principal: x}\n"
    )
    await bring(house, template(rest=rest))
    house.control.calls.clear()
    task = await house.engine.delete("demo")
    assert task is not None
    await task
    assert [name for name, _ in house.control.calls] == ["remove_permission", "delete_function"]


async def test_a_deletion_that_fails_can_be_tried_again(house: House):
    await bring(house, template())

    def trip(operation: str, request: dict[str, Any]) -> None:
        if operation == "delete_function":
            raise ServiceError("ResourceConflictException", "in use", 409)

    house.control.trip = trip
    task = await house.engine.delete("demo")
    assert task is not None
    assert (await task).status == "DELETE_FAILED"
    house.control.trip = lambda operation, request: None
    task = await house.engine.delete("demo")
    assert task is not None
    assert (await task).status == "DELETE_COMPLETE"
    assert house.control.functions == {}


async def test_exports_in_use_hold_their_stack(house: House):
    await bring(house, template(outputs="  A: {Value: x, Export: {Name: shared}}"), "giver")
    await bring(house, template(more="Description: !ImportValue shared"), "taker")
    with pytest.raises(Conflict, match="Export shared cannot be deleted as it is in use by taker"):
        await house.engine.delete("giver")
    record = await bring(house, template(outputs="  A: {Value: y, Export: {Name: shared}}"), "giver")
    assert record.status == "UPDATE_ROLLBACK_COMPLETE"
    record = await bring(house, template(outputs="  A: {Value: y, Export: {Name: shared}}"), "third")
    assert record.status == "ROLLBACK_COMPLETE"
    task = await house.engine.delete("taker")
    assert task is not None
    await task
    assert await house.engine.delete("giver") is not None
    await house.engine.settled()


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("Resources:\n  Q: {Type: 'AWS::Kinesis::Stream'}", "AWS::Kinesis::Stream of Q is not supported", 2),
        (template(more="VpcConfig: {SubnetIds: [a]}"), "property VpcConfig is not supported", 14),
        (template(more="Nonsense: 1"), "Encountered unsupported property Nonsense", 14),
        (template(more="Environment: {Variables: {A: b}, More: 1}"), "Encountered unsupported property Environment.More", 14),
        (template("lots"), "Value of property MemorySize must be of type Integer", 13),
        (template(more="Layers: {a: b}"), "Value of property Layers must be of type List", 14),
        (
            template(more="Description: !GetAtt Role.Nope"),
            "resource Role does not support attribute type Nope in Fn::GetAtt",
            14,
        ),
        (template(more="Description: !Ref Nope"), "Unresolved resource dependencies [Nope]", 14),
        (
            "Resources:\n  P: {Type: 'AWS::Lambda::Permission', Properties: {Action: x}}",
            "Property FunctionName cannot be empty",
            2,
        ),
        (
            template(rest="\n  Rule:\n    Type: AWS::Events::Rule\n    Properties: {ScheduleExpression: often}"),
            "often is not a schedule",
            16,
        ),
        (
            template().replace("  Role:\n", "  Role:\n    CreationPolicy: {ResourceSignal: {Count: 1}}\n"),
            "CreationPolicy is not supported",
            2,
        ),
        (
            template().replace("  Role:\n", "  Role:\n    DeletionPolicy: Snapshot\n"),
            "DeletionPolicy Snapshot is not supported: say Retain",
            2,
        ),
        (
            template().replace("  Role:\n", "  Role:\n    UpdateReplacePolicy: Snapshot\n"),
            "UpdateReplacePolicy Snapshot is not supported: say Retain",
            2,
        ),
    ],
)
async def test_what_is_not_honoured_fails_by_name_before_anything_is_made(house: House, text: str, message: str, line: int):
    with pytest.raises(MartletError) as caught:
        await bring(house, text)
    assert message in caught.value.message
    assert f"line {line}" in caught.value.message
    assert house.control.calls == []
    assert house.engine.all() == []


async def test_everything_unsupported_is_told_at_once_and_lenient_leaves_it_out(house: House):
    text = template(
        more="VpcConfig: {SubnetIds: [a]}\n      Environment: {Variables: {Q: !Ref Queue}}",
        rest="\n  Queue: {Type: 'AWS::Kinesis::Stream'}\n",
    )
    with pytest.raises(Unsupported) as caught:
        await bring(house, text)
    assert "VpcConfig" in caught.value.message
    assert "AWS::Kinesis::Stream" in caught.value.message
    record = await bring(house, text, is_lenient=True)
    assert record.status == "CREATE_COMPLETE"
    assert len(house.engine.body(record.id).warnings) == 2
    (made,) = house.control.functions.values()
    assert made["Environment"]["Variables"] == {"Q": "left-out-Queue"}
    assert "VpcConfig" not in made


async def test_what_asks_for_a_snapshot_is_kept_when_lenient(house: House):
    text = template().replace(
        "    Type: AWS::Lambda::Function\n", "    Type: AWS::Lambda::Function\n    DeletionPolicy: Snapshot\n"
    )
    record = await bring(house, text, is_lenient=True)
    assert "DeletionPolicy Snapshot is not supported" in house.engine.body(record.id).warnings[0]
    task = await house.engine.delete("demo")
    assert task is not None
    await task
    assert len(house.control.functions) == 1


async def test_circles_are_named(house: House):
    text = "Resources:\n" + "".join(
        f"  {a}: {{Type: 'AWS::Lambda::Permission', Properties: {{Action: x, Principal: p, FunctionName: !Ref {b}}}}}\n"
        for a, b in ("AB", "BC", "CA")
    )
    with pytest.raises(MartletError, match=r"Circular dependency between resources: \[A, B, C\]"):
        await bring(house, text)


async def test_conditions_leave_resources_out(house: House):
    text = (
        "Parameters: {Env: {Type: String, Default: dev}}\nConditions: {IsProd: !Equals [!Ref Env, prod]}\n"
        + template(
            rest="\n  Tick:\n    Condition: IsProd\n    Type: AWS::Events::Rule\n    Properties: {ScheduleExpression: rate(1 minute)}\n"
        )
        + "\nOutputs:\n  T: {Condition: IsProd, Value: !Ref Tick}\n  U: {Value: !If [IsProd, !Ref Tick, none]}\n"
    )
    record = await bring(house, text)
    assert set(house.engine.resources(record.id)) == {"Role", "Hello"}
    assert [one["OutputKey"] for one in house.engine.body(record.id).outputs] == ["U"]
    record = await bring(house, text, parameters={"Env": "prod"})
    assert set(house.engine.resources(record.id)) == {"Role", "Hello", "Tick"}
    with pytest.raises(MartletError, match=r"Unresolved resource dependencies \[Tick\]"):
        await bring(
            house,
            text.replace("!If [IsProd, !Ref Tick, none]", "x").replace("MemorySize: 128", "Description: !Ref Tick"),
            "other",
        )


# --- custom resources

CUSTOM = "\n  Thing:\n    Type: Custom::Thing\n    Properties: {ServiceToken: !GetAtt Hello.Arn, Size: 3, On: true}\n"


def answering(house: House, seen: list[dict[str, Any]], **answer: Any):
    def invoke(name: str, event: bytes) -> Outcome:
        request = json.loads(event)
        seen.append(request)
        reply = {"Status": "SUCCESS", "PhysicalResourceId": "thing-1", "Data": {"Url": "u"}, **answer}
        house.responses.answer(request["ResponseURL"].rpartition("/")[2], json.dumps(reply).encode())
        return Outcome(b"null")

    return invoke


async def test_custom_resources(house: House):
    seen: list[dict[str, Any]] = []
    house.invoke = answering(house, seen)
    record = await bring(house, template(rest=CUSTOM, outputs="  U: {Value: !GetAtt Thing.Url}\n  R: {Value: !Ref Thing}"))
    assert record.status == "CREATE_COMPLETE"
    assert [one["OutputValue"] for one in house.engine.body(record.id).outputs] == ["u", "thing-1"]
    assert seen[0]["RequestType"] == "Create"
    assert seen[0]["ResourceType"] == "Custom::Thing"
    assert seen[0]["ResourceProperties"]["Size"] == "3"
    assert seen[0]["ResourceProperties"]["On"] == "true"
    house.invoke = answering(house, seen, PhysicalResourceId="thing-2")
    await bring(house, template(rest=CUSTOM.replace("3", "4")))
    assert [one["RequestType"] for one in seen] == ["Create", "Update", "Delete"]
    assert seen[1]["OldResourceProperties"]["Size"] == "3"
    assert seen[2]["PhysicalResourceId"] == "thing-1"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"Status": "FAILED", "Reason": "no luck"}, "no luck"),
        ({"PhysicalResourceId": ""}, "Invalid PhysicalResourceId"),
        ({"Data": [1]}, "not an object"),
    ],
)
async def test_custom_resources_that_fail(house: House, answer: dict[str, Any], message: str):
    def invoke(name: str, event: bytes) -> Outcome:
        request = json.loads(event)
        good = {"Status": "SUCCESS", "PhysicalResourceId": "x"}
        reply = {**good, **answer} if request["RequestType"] == "Create" else good
        house.responses.answer(request["ResponseURL"].rpartition("/")[2], json.dumps(reply).encode())
        return Outcome(b"null")

    house.invoke = invoke
    record = await bring(house, template(rest=CUSTOM))
    assert record.status == "ROLLBACK_COMPLETE"
    assert any(message in event.reason for event in house.engine.events(record.id))


async def test_a_custom_resource_whose_function_crashes_fails_at_once(house: House):
    house.invoke = lambda name, event: Outcome(b'{"errorMessage": "boom"}', error="Unhandled", error_type="ValueError")
    record = await bring(house, template(rest=CUSTOM), on_failure="DO_NOTHING")
    assert record.status == "CREATE_FAILED"
    assert any("boom" in event.reason for event in house.engine.events(record.id))


def test_answers_that_nobody_waits_for():
    from martlet.apps.stacks.providers.custom import Responses

    with pytest.raises(MartletError, match="nobody waits"):
        Responses().answer("guess", b"{}")


# --- crashes


async def cut(house: House, text: str, at: int) -> bool:
    """Bring `text`, killed before the commit number `at`; True if it came to that."""
    house.store.die_at = house.store.commits + at
    try:
        await bring(house, text)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("at", range(1, 14))
async def test_a_creation_that_is_killed_leaves_nothing(house: House, at: int):
    text = AFTER
    if not await cut(house, text, at):
        return
    after = await house.reborn()
    live = [record for record in after.engine.all() if record.status != "DELETE_COMPLETE"]
    if live and live[0].status == "CREATE_COMPLETE":
        return
    assert [record.status for record in live] in ([], ["ROLLBACK_COMPLETE"])
    assert after.control.functions == {}
    assert after.control.permissions == {}
    await after.engine.close()


@pytest.mark.parametrize("at", range(1, 26))
async def test_an_update_that_is_killed_is_rolled_back_or_done(house: House, at: int):
    record = await bring(house, BEFORE)
    before = normal(house.control.everything())
    if not await cut(house, AFTER, at):
        return
    after = await house.reborn()
    found = after.engine.get("demo")
    assert found.status in ("UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE", "CREATE_COMPLETE")
    rows = after.engine.resources(record.id)
    assert all(row.old is None and not row.is_new and not row.is_removed for row in rows.values())
    if found.status != "UPDATE_COMPLETE":
        assert normal(after.control.everything()) == before
    assert (await bring(after, AFTER)).status == "UPDATE_COMPLETE"
    assert set(after.control.permissions)
    assert after.schedules.there == {}
    task = await after.engine.delete("demo")
    assert task is not None
    assert (await task).status == "DELETE_COMPLETE"
    assert after.control.functions == {}
    await after.engine.close()


@pytest.mark.parametrize("at", range(1, 10))
async def test_a_deletion_that_is_killed_goes_on(house: House, at: int):
    await bring(house, AFTER)
    house.store.die_at = house.store.commits + at
    try:
        task = await house.engine.delete("demo")
        assert task is not None
        await task
    except Killed:
        after = await house.reborn()
        live = after.engine.live()
        assert [record.status for record in live] in ([], ["CREATE_COMPLETE"])
        assert bool(after.control.functions) == bool(live)
        await after.engine.close()


# --- addresses, SAM, APIs


async def test_printed_addresses_answer_here(house: House):
    more = "Environment: {Variables: {API: !Sub 'https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/Prod'}}"
    rest = "\n  Api: {Type: 'AWS::ApiGateway::RestApi', Properties: {Name: x}}\n  Url: {Type: 'AWS::Lambda::Url', Properties: {AuthType: NONE, TargetFunctionArn: !Ref Hello}}\n"
    outputs = "  U: {Value: !Sub 'https://${Api}.execute-api.us-east-1.amazonaws.com/Prod/hello'}\n  F: {Value: !GetAtt Url.FunctionUrl}"
    record = await bring(house, template(more=more, rest=rest, outputs=outputs))
    (id,) = house.apis.configs
    values = {one["OutputKey"]: one["OutputValue"] for one in house.engine.body(record.id).outputs}
    assert values == {"U": f"http://127.0.0.1:8700/_api/{id}/Prod/hello", "F": f"http://127.0.0.1:8700/_url/{'u' * 32}/"}
    (made,) = house.control.functions.values()
    assert made["Environment"]["Variables"]["API"] == f"http://127.0.0.1:8700/_api/{id}/Prod"


SAM = """
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {Runtime: python3.11, Timeout: 5, CodeUri: src/}}
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
      AutoPublishAlias: live
      FunctionUrlConfig: {AuthType: NONE}
      Policies: [AWSLambdaBasicExecutionRole]
      Events:
        Get: {Type: Api, Properties: {Path: /hello, Method: get}}
        Http: {Type: HttpApi, Properties: {Path: /hello, Method: get}}
        Tick: {Type: Schedule, Properties: {Schedule: rate(1 minute), Input: '{"a": 1}'}}
        Tock: {Type: ScheduleV2, Properties: {ScheduleExpression: cron(0 9 * * ? *), ScheduleExpressionTimezone: Europe/Berlin}}
Outputs:
  Url: {Value: !Sub "https://${ServerlessRestApi}.execute-api.${AWS::Region}.amazonaws.com/Prod/hello"}
"""


async def test_a_sam_template(house: House):
    record = await bring(house, SAM)
    assert record.status == "CREATE_COMPLETE"
    (name,) = house.control.functions
    assert house.control.functions[name]["Code"]["S3Key"] == "packed-src/"
    assert house.control.aliases[name, "live"]["FunctionVersion"] == "1"
    assert (name, "live") in house.control.urls
    assert sorted(config["kind"] for config in house.apis.configs.values()) == ["http", "rest"]
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}:live"
    (rule,) = (await house.events.list_rules(None, {}))["Rules"]
    (target,) = (await house.events.list_targets_by_rule(None, {"Rule": rule["Name"]}))["Targets"]
    assert (rule["ScheduleExpression"], target["Arn"], target["Input"]) == ("rate(1 minute)", arn, '{"a": 1}')
    (listed,) = (await house.scheduler.list_schedules(None, {}))["Schedules"]
    found = await house.scheduler.get_schedule(None, {"Name": listed["Name"]})
    assert (found["Target"]["Arn"], found["ScheduleExpressionTimezone"]) == (arn, "Europe/Berlin")
    assert sorted(owner for owner, _ in house.schedules.there) == ["$rule", "$scheduler/default"]
    record = await bring(house, SAM.replace("src/", "new/"))
    assert record.status == "UPDATE_COMPLETE"
    assert house.control.aliases[name, "live"]["FunctionVersion"] == "2"
    assert [one["Version"] for one in house.control.versions[name]] == ["1", "2"]  # SAM's versions have DeletionPolicy Retain
    task = await house.engine.delete("demo")
    assert task is not None
    assert (await task).status == "DELETE_COMPLETE"
    assert (house.control.functions, house.apis.configs, house.schedules.there) == ({}, {}, {})


async def test_sam_faults_have_the_resources_line(house: House):
    with pytest.raises(MartletError) as caught:
        await bring(house, SAM.replace("      Handler: app.handler\n", "      Handler: app.handler\n      Nonsense: 1\n"))
    assert "Nonsense" in caught.value.message
    assert "line 5" in caught.value.message


async def test_names_are_taken_once(house: House):
    await bring(house, template())
    request = Request(name="demo", template=template())
    prepared = await house.engine.prepare(request, "x", house.local)
    with pytest.raises(Conflict, match="already exists"):
        await house.engine.create(request, prepared, "x")


async def test_two_operations_do_not_meet(house: House):
    await bring(house, template())
    gate = asyncio.Event()

    async def slow(caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return {}

    house.control.update_function_configuration = slow  # type: ignore[method-assign]
    working = asyncio.create_task(bring(house, template(256)))
    while house.engine.get("demo").status != "UPDATE_IN_PROGRESS":  # noqa: ASYNC110 - nothing tells a status
        await asyncio.sleep(0)
    with pytest.raises(Conflict, match="UPDATE_IN_PROGRESS"):
        await bring(house, template(512))
    with pytest.raises(Conflict, match="UPDATE_IN_PROGRESS"):
        await house.engine.delete("demo")
    gate.set()
    await working


# --- from files


async def test_deploying_a_folder(tmp_path: Path):
    house = House(tmp_path / "data")
    (tmp_path / "app" / "src").mkdir(parents=True)
    (tmp_path / "app" / "src" / "app.py").write_text("def handler(event, context): return 1\n")
    (tmp_path / "app" / "template.yaml").write_text(
        "Parameters: {Memory: {Type: Number, Default: 128}}\n"
        + template("!Ref Memory", outputs="  A: {Value: !GetAtt Hello.Arn}")
    )
    plan = await house.stacks.deploy(tmp_path / "app", "demo", {"Memory": "256"}, dry_run=True)
    assert plan.dry_run
    assert [change[0] for change in plan.changes] == ["+", "+"]
    assert house.control.calls == []
    done = await house.stacks.deploy(tmp_path / "app", "demo", {"Memory": "256"})
    assert done.status == "CREATE_COMPLETE"
    assert done.outputs["A"].endswith(next(iter(house.control.functions)))
    (made,) = house.control.functions.values()
    assert (house.data / "code" / made["Code"]["S3Key"] / "app.py").is_file()
    assert house.stacks.referenced() == {made["Code"]["S3Key"]}
    again = await house.stacks.deploy(tmp_path / "app", "demo")
    assert again.changes == ()
    assert again.revision == 1
    (tmp_path / "app" / "src" / "app.py").write_text("def handler(event, context): return 2\n")
    changed = await house.stacks.deploy(tmp_path / "app", "demo")
    assert changed.changes == ("~ AWS::Lambda::Function  Hello  (Code)",)
    assert changed.status == "UPDATE_COMPLETE"
    await house.stacks.destroy("demo")
    assert house.stacks.list() == []
    await house.stacks.close()


async def test_a_fault_names_file_and_line(tmp_path: Path):
    house = House(tmp_path / "data")
    (tmp_path / "template.yaml").write_text(template())
    with pytest.raises(DeployFailed, match=r"template\.yaml:9: Hello: src does not exist"):
        await house.stacks.deploy(tmp_path / "template.yaml", "demo")
    await house.stacks.close()


async def test_images_and_state_machines_are_refused_by_their_own_names(house: House):
    house.objects["flow.json"] = b'{"StartAt": "A", "States": {"A": {"Type": "Pass", "End": true}}}'
    text = (
        "Transform: AWS::Serverless-2016-10-31\nResources:\n  Flow: {Type: 'AWS::Serverless::StateMachine', Properties: {DefinitionUri: flow.json}}\n"
        "  Image: {Type: 'AWS::Serverless::Function', Properties: {PackageType: Image}, Metadata: {Dockerfile: Dockerfile}}\n"
    )
    with pytest.raises(Unsupported) as caught:
        await bring(house, text)
    assert "AWS::StepFunctions::StateMachine of Flow is not supported (line 3)" in caught.value.message
    assert "container images are not run here" in caught.value.message


async def test_twenty_five_kinds_of_values_survive_the_way_through(house: House):
    """One template with every function, evaluated once for the plan and once for good."""
    text = """
Parameters: {Names: {Type: CommaDelimitedList, Default: 'a,b'}, Stage: {Type: String, Default: dev}}
Mappings: {Sizes: {dev: {memory: 256}, prod: {memory: 1024}}}
Conditions: {IsDev: !Equals [!Ref Stage, dev], Never: !And [!Condition IsDev, !Not [!Condition IsDev]]}
Resources:
  Group: {Type: 'AWS::Logs::LogGroup', Properties: {LogGroupName: !Join ['/', ['', !Ref Stage, !Select [1, !Ref Names]]]}}
  Role: {Type: 'AWS::IAM::Role', Properties: {AssumeRolePolicyDocument: {Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: 'sts:AssumeRole'}]}}}
  Fn:
    Type: AWS::Lambda::Function
    Properties:
      Code: {ZipFile: 'def handler(event, context): return 1'}
      Handler: index.handler
      Runtime: python3.11
      Role: !GetAtt Role.Arn
      MemorySize: !FindInMap [Sizes, !Ref Stage, memory]
      Timeout: !If [IsDev, '5', 10]
      Environment:
        Variables:
          GROUP: !Ref Group
          ARN: !GetAtt Group.Arn
          SUB: !Sub ['${x}-${AWS::Region}-${Group}', {x: !Select [0, !Split ['-', 'q-r']]}]
          B64: !Base64 hi
          GONE: !If [Never, x, !Ref 'AWS::NoValue']
Outputs: {Cidr: {Value: !Select [1, !Cidr ['10.0.0.0/16', 3, 8]]}, Zone: {Value: !Select [0, !GetAZs '']}}
"""
    record = await bring(house, text)
    assert record.status == "CREATE_COMPLETE"
    (made,) = house.control.functions.values()
    assert (made["MemorySize"], made["Timeout"]) == (256, 5)
    assert made["Environment"]["Variables"] == {
        "GROUP": "/dev/b",
        "ARN": "arn:aws:logs:us-east-1:000000000000:log-group:/dev/b:*",
        "SUB": "q-us-east-1-/dev/b",
        "B64": "aGk=",
    }
    assert made["Code"]["ZipFile"][:2] == b"PK"
    values = {one["OutputKey"]: one["OutputValue"] for one in house.engine.body(record.id).outputs}
    assert values == {"Cidr": "10.0.1.0/24", "Zone": "us-east-1a"}


# --- what is refused, and when


async def test_what_cannot_be_deployed_is_refused_before_anything_is_built(house: House):
    built: list[str] = []

    async def package(artifact: Any) -> str:
        built.append(artifact.logical_id)
        return "ab" * 32

    async def is_slow(artifact: Any) -> bool:
        return artifact.location == "src"

    house.local = msgspec.structs.replace(house.local, package=package, is_slow=is_slow)
    with pytest.raises(Unsupported, match="AWS::EC2::VPC"):
        await bring(house, template(rest="\n  Net: {Type: 'AWS::EC2::VPC', Properties: {CidrBlock: 10.0.0.0/16}}"))
    assert built == []
    record = await bring(house, template())
    assert (record.status, built) == ("CREATE_COMPLETE", ["Hello"])


async def test_a_processor_that_is_not_here_is_refused_or_said(house: House):
    text = template(more="Architectures: [arm64]")
    with pytest.raises(Unsupported, match=r"AWS::Lambda::Function Hello: property Architectures\[0\]: arm64 is not supported"):
        await bring(house, text)
    record = await bring(house, text, is_lenient=True)
    assert record.status == "CREATE_COMPLETE"
    assert "arm64" in house.engine.body(record.id).warnings[0]
    (state,) = (row.now for row in house.engine.resources(record.id).values() if row.now and row.now.type.endswith("Function"))
    assert state.properties["Architectures"] == ["x86_64"]


async def test_a_deployment_says_when_it_begins(house: House, tmp_path: Path):
    (tmp_path / "template.yaml").write_text(template(code="{ZipFile: x}"))
    begun: list[int] = []
    await house.stacks.deploy(tmp_path / "template.yaml", "demo", begun=lambda: begun.append(1))
    assert begun == [1]
    await house.stacks.deploy(tmp_path / "template.yaml", "demo", begun=lambda: begun.append(2))
    assert begun == [1], "nothing changes"
