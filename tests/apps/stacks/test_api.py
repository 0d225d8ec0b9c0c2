"""CloudFormation's operations: members, statuses and words."""

from __future__ import annotations

from typing import Any

import pytest
from rooms import House

from martlet.apps.stacks.api import CloudFormation
from martlet.errors import ServiceError

ROLE = "Resources:\n  Role: {Type: 'AWS::IAM::Role', Properties: {AssumeRolePolicyDocument: {Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: 'sts:AssumeRole'}]}}}\n"
LOGS = "Description: logs\nParameters: {Name: {Type: String, Default: a, NoEcho: true}, Env: {Type: String}}\nResources:\n  Group: {Type: 'AWS::Logs::LogGroup', Properties: {LogGroupName: !Sub '${Name}-${Env}'}}\nOutputs:\n  Group: {Value: !Ref Group, Description: its name, Export: {Name: group}}\n"
ENV = [{"ParameterKey": "Env", "ParameterValue": "dev"}]


class Client:
    def __init__(self, house: House) -> None:
        self.house = house
        self.api = CloudFormation(house.engine)

    async def __call__(self, operation: str, **request: Any) -> dict[str, Any]:
        found = await getattr(self.api, operation)(None, request)
        await self.house.engine.settled()
        return found

    async def refused(self, operation: str, **request: Any) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            await self(operation, **request)
        return caught.value.name, caught.value.message


@pytest.fixture
async def call():
    house = House()
    yield Client(house)
    await house.engine.close()


async def test_a_stacks_life(call: Client):
    made = await call("create_stack", StackName="s", TemplateBody=LOGS, Parameters=ENV, Tags=[{"Key": "a", "Value": "b"}])
    assert made["StackId"].startswith("arn:aws:cloudformation:us-east-1:000000000000:stack/s/")
    (stack,) = (await call("describe_stacks", StackName="s"))["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert stack["Parameters"] == [
        {"ParameterKey": "Name", "ParameterValue": "****"},
        {"ParameterKey": "Env", "ParameterValue": "dev"},
    ]
    assert stack["Outputs"] == [
        {"OutputKey": "Group", "OutputValue": "a-dev", "Description": "its name", "ExportName": "group"}
    ]
    assert stack["Tags"] == [{"Key": "a", "Value": "b"}]
    assert stack["Description"] == "logs"
    assert stack["DisableRollback"] is False
    assert "DeletionTime" not in stack
    assert (await call("list_exports"))["Exports"] == [{"ExportingStackId": made["StackId"], "Name": "group", "Value": "a-dev"}]
    (resource,) = (await call("describe_stack_resources", StackName="s"))["StackResources"]
    assert resource["PhysicalResourceId"] == "a-dev"
    assert resource["ResourceStatus"] == "CREATE_COMPLETE"
    detail = (await call("describe_stack_resource", StackName="s", LogicalResourceId="Group"))["StackResourceDetail"]
    assert detail["ResourceType"] == "AWS::Logs::LogGroup"
    assert len((await call("list_stack_resources", StackName="s"))["StackResourceSummaries"]) == 1
    events = (await call("describe_stack_events", StackName="s"))["StackEvents"]
    assert next(event["ResourceStatus"] for event in events) == "CREATE_COMPLETE"
    assert events[-1]["ResourceStatusReason"] == "User Initiated"
    assert (await call("get_template", StackName="s"))["TemplateBody"] == LOGS
    again = [{"ParameterKey": "Env", "UsePreviousValue": True}, {"ParameterKey": "Name", "ParameterValue": "b"}]
    await call("update_stack", StackName="s", UsePreviousTemplate=True, Parameters=again)
    (stack,) = (await call("describe_stacks", StackName=made["StackId"]))["Stacks"]
    assert (stack["StackStatus"], stack["Outputs"][0]["OutputValue"]) == ("UPDATE_COMPLETE", "b-dev")
    await call("delete_stack", StackName="s")
    assert await call("describe_stacks") == {"Stacks": []}
    (stack,) = (await call("describe_stacks", StackName=made["StackId"]))["Stacks"]
    assert stack["StackStatus"] == "DELETE_COMPLETE"
    assert await call("delete_stack", StackName="s") == {}


@pytest.mark.parametrize(
    ("operation", "request_", "name", "message"),
    [
        ("describe_stacks", {"StackName": "x"}, "ValidationError", "Stack with id x does not exist"),
        ("describe_stack_events", {"StackName": "x"}, "ValidationError", "Stack [x] does not exist"),
        ("update_stack", {"StackName": "x", "TemplateBody": LOGS}, "ValidationError", "Stack [x] does not exist"),
        ("get_template", {"StackName": "x"}, "ValidationError", "Stack with id x does not exist"),
        ("create_stack", {"StackName": "s", "TemplateBody": LOGS}, "ValidationError", "Parameters: [Env] must have values"),
        ("create_stack", {"StackName": "s"}, "ValidationError", "Either Template URL or Template Body must be specified."),
        (
            "create_stack",
            {"StackName": "s", "TemplateBody": ROLE},
            "InsufficientCapabilitiesException",
            "Requires capabilities : [CAPABILITY_IAM]",
        ),
        ("create_stack", {"StackName": "s", "TemplateBody": "a: ["}, "ValidationError", None),
        ("create_stack", {"StackName": "1s", "TemplateBody": LOGS}, "ValidationError", None),
        (
            "create_stack",
            {"StackName": "s", "TemplateBody": "Resources: {Q: {Type: 'AWS::Kinesis::Stream'}}"},
            "ValidationError",
            None,
        ),
        (
            "validate_template",
            {"TemplateBody": "Resources: {}"},
            "ValidationError",
            "Template format error: At least one Resources member must be defined.",
        ),
        ("describe_change_set", {"ChangeSetName": "x"}, "ChangeSetNotFound", "ChangeSet [x] does not exist"),
        ("list_imports", {"ExportName": "x"}, "ValidationError", "Export 'x' is not imported by any stack."),
    ],
)
async def test_refusals(call: Client, operation: str, request_: dict[str, Any], name: str, message: str | None):
    found = await call.refused(operation, **request_)
    assert found[0] == name
    assert message is None or found[1] == message


async def test_updates_that_change_nothing(call: Client):
    await call("create_stack", StackName="s", TemplateBody=LOGS, Parameters=ENV)
    assert await call.refused("update_stack", StackName="s", TemplateBody=LOGS, Parameters=ENV) == (
        "ValidationError",
        "No updates are to be performed.",
    )
    assert (await call.refused("create_stack", StackName="s", TemplateBody=LOGS, Parameters=ENV))[0] == "AlreadyExistsException"


async def test_change_sets(call: Client):
    made = await call(
        "create_change_set", StackName="s", ChangeSetName="one", ChangeSetType="CREATE", TemplateBody=LOGS, Parameters=ENV
    )
    assert (await call("describe_stacks", StackName="s"))["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    found = await call("describe_change_set", ChangeSetName="one", StackName="s")
    assert (found["Status"], found["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    assert found["Changes"][0]["ResourceChange"]["Action"] == "Add"
    assert found["Parameters"][0]["ParameterValue"] == "****"
    await call("execute_change_set", ChangeSetName=made["Id"])
    assert (await call("describe_stacks", StackName="s"))["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    assert (await call("describe_change_set", ChangeSetName=made["Id"]))["ExecutionStatus"] == "EXECUTE_COMPLETE"
    await call("create_change_set", StackName="s", ChangeSetName="none", TemplateBody=LOGS, Parameters=ENV)
    found = await call("describe_change_set", ChangeSetName="none", StackName="s")
    assert found["Status"] == "FAILED"
    assert found["StatusReason"].startswith("The submitted information didn't contain changes.")
    assert (await call.refused("execute_change_set", ChangeSetName="none", StackName="s"))[0] == "InvalidChangeSetStatus"
    await call("delete_change_set", ChangeSetName="none", StackName="s")
    for _ in range(2):  # the AWS CLI names them by the second: one that failed does not stand in the next one's way
        await call("create_change_set", StackName="s", ChangeSetName="two", TemplateBody=LOGS, Parameters=ENV)
    await call(
        "create_change_set",
        StackName="s",
        ChangeSetName="two",
        TemplateBody=LOGS.replace("LogGroupName", "RetentionInDays: 3, LogGroupName"),
        Parameters=ENV,
    )
    (change,) = (await call("describe_change_set", ChangeSetName="two", StackName="s"))["Changes"]
    assert change["ResourceChange"]["Replacement"] == "False"
    again = {"StackName": "s", "ChangeSetName": "two", "TemplateBody": LOGS, "Parameters": ENV}
    assert (await call.refused("create_change_set", **again))[0] == "AlreadyExistsException"
    listed = [one["ChangeSetName"] for one in (await call("list_change_sets", StackName="s"))["Summaries"]]
    assert listed == ["one", "two", "two", "two"]
    await call("execute_change_set", ChangeSetName="two", StackName="s")
    assert (await call("describe_stacks", StackName="s"))["Stacks"][0]["StackStatus"] == "UPDATE_COMPLETE"


async def test_templates_are_described(call: Client):
    found = await call("validate_template", TemplateBody=LOGS)
    assert found["Description"] == "logs"
    assert found["Parameters"][0] == {"ParameterKey": "Name", "NoEcho": True, "DefaultValue": "a"}
    assert (await call("validate_template", TemplateBody=ROLE))["Capabilities"] == ["CAPABILITY_IAM"]
    summary = await call("get_template_summary", TemplateBody=LOGS)
    assert summary["ResourceTypes"] == ["AWS::Logs::LogGroup"]
    assert summary["Parameters"][1] == {
        "ParameterKey": "Env",
        "ParameterType": "String",
        "NoEcho": False,
        "ParameterConstraints": {},
    }


async def test_protection_and_policies(call: Client):
    await call("create_stack", StackName="s", TemplateBody=LOGS, Parameters=ENV, EnableTerminationProtection=True)
    assert "TerminationProtection" in (await call.refused("delete_stack", StackName="s"))[1]
    await call("update_termination_protection", StackName="s", EnableTerminationProtection=False)
    policy = '{"Statement": [{"Effect": "Allow", "Action": "Update:*", "Principal": "*", "Resource": "*"}]}'
    await call("set_stack_policy", StackName="s", StackPolicyBody=policy)
    assert await call("get_stack_policy", StackName="s") == {"StackPolicyBody": policy}
    assert (
        "not supported"
        in (await call.refused("set_stack_policy", StackName="s", StackPolicyBody=policy.replace("Allow", "Deny")))[1]
    )
    await call("delete_stack", StackName="s")


async def test_pages(call: Client):
    rows = "".join(f"  G{n}: {{Type: 'AWS::Logs::LogGroup'}}\n" for n in range(150))
    await call("create_stack", StackName="s", TemplateBody="Resources:\n" + rows)
    first = await call("list_stack_resources", StackName="s")
    second = await call("list_stack_resources", StackName="s", NextToken=first["NextToken"])
    assert (len(first["StackResourceSummaries"]), len(second["StackResourceSummaries"])) == (100, 50)
    assert "NextToken" not in second
