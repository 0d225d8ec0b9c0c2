"""Templates with buses, topics and schedules, on the whole platform."""

from __future__ import annotations

import json

from .platform import ACCOUNT, REGION, Platform

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters: {Queue: {Type: String}, Shown: {Type: String, Default: first}}
Resources:
  Bus: {Type: AWS::Events::EventBus, Properties: {Name: tpl, Description: !Ref Shown}}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: {source: [shop]}
      Targets:
        - {Id: queue, Arn: !Ref Queue, InputPath: $.detail}
        - {Id: topic, Arn: !Ref Topic}
  Archive: {Type: AWS::Events::Archive, Properties: {SourceArn: !GetAtt Bus.Arn, RetentionDays: 2}}
  Allowed:
    Type: AWS::Events::EventBusPolicy
    Properties: {EventBusName: !Ref Bus, StatementId: s, Action: events:PutEvents, Principal: "111122223333"}
  Connection:
    Type: AWS::Events::Connection
    Properties:
      AuthorizationType: API_KEY
      AuthParameters: {ApiKeyAuthParameters: {ApiKeyName: k, ApiKeyValue: v}}
  Destination:
    Type: AWS::Events::ApiDestination
    Properties: {ConnectionArn: !GetAtt Connection.Arn, HttpMethod: POST, InvocationEndpoint: "https://example.com/"}
  Topic: {Type: AWS::SNS::Topic, Properties: {DisplayName: !Ref Shown}}
  Heard:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Topic, Protocol: sqs, Endpoint: !Ref Queue, FilterPolicy: {kind: [a]}, RawMessageDelivery: true}
  Policy:
    Type: AWS::SNS::TopicPolicy
    Properties:
      Topics: [!Ref Topic]
      PolicyDocument:
        Statement: [{Sid: mine, Effect: Allow, Principal: "*", Action: sns:Publish, Resource: !Ref Topic}]
  Group: {Type: AWS::Scheduler::ScheduleGroup, Properties: {Name: tpl}}
  Later:
    Type: AWS::Scheduler::Schedule
    Properties:
      GroupName: !Ref Group
      ScheduleExpression: at(2999-01-01T00:00:00)
      FlexibleTimeWindow: {Mode: "OFF"}
      Target: {Arn: !Ref Queue, RoleArn: !Sub "arn:aws:iam::${AWS::AccountId}:role/r", Input: "{}"}
  Function:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      Handler: index.handler
      InlineCode: "def handler(event, context):\\n    return event\\n"
      EventInvokeConfig: {DestinationConfig: {OnSuccess: {Type: SQS, Destination: !Ref Queue}}}
      Events:
        Told: {Type: SNS, Properties: {Topic: !Ref Topic, FilterPolicy: {to: [f]}}}
        Ruled: {Type: EventBridgeRule, Properties: {EventBusName: !Ref Bus, Pattern: {source: [other]}}}
        Watched: {Type: CloudWatchEvent, Properties: {Pattern: {source: [third]}}}
Outputs:
  Topic: {Value: !Ref Topic}
"""


def test_a_template_makes_changes_and_removes_them(platform: Platform) -> None:
    stacks, events, sns = platform.client("cloudformation"), platform.client("events"), platform.client("sns")
    url, queue = platform.queue("tpl")
    parameters = [{"ParameterKey": "Queue", "ParameterValue": queue}]
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]

    def bring(shown: str, wait: str, call: str) -> None:
        given = [*parameters, {"ParameterKey": "Shown", "ParameterValue": shown}]
        getattr(stacks, call)(StackName="tpl", TemplateBody=TEMPLATE, Parameters=given, Capabilities=capabilities)
        stacks.get_waiter(wait).wait(StackName="tpl", WaiterConfig={"Delay": 1})

    bring("first", "stack_create_complete", "create_stack")
    topic = stacks.describe_stacks(StackName="tpl")["Stacks"][0]["Outputs"][0]["OutputValue"]
    entry = {"DetailType": "d", "Detail": '{"a": 1}', "EventBusName": "tpl"}
    events.put_events(Entries=[{**entry, "Source": "shop"}])
    assert platform.bodies(url, 1) == [{"a": 1}]
    attributes = {"kind": {"DataType": "String", "StringValue": "a"}}
    sns.publish(TopicArn=topic, Message='{"told": true}', MessageAttributes=attributes)
    assert platform.bodies(url, 1) == [{"told": True}]
    events.put_events(Entries=[{**entry, "Source": "other"}])
    [record] = platform.bodies(url, 1)
    assert record["requestPayload"]["source"] == "other"
    events.put_events(Entries=[{**entry, "Source": "third", "EventBusName": "default"}])
    [record] = platform.bodies(url, 1)
    assert record["requestPayload"]["source"] == "third"
    sns.publish(TopicArn=topic, Message="x", MessageAttributes={"to": {"DataType": "String", "StringValue": "f"}})
    [record] = platform.bodies(url, 1)
    assert record["requestPayload"]["Records"][0]["Sns"]["Message"] == "x"

    assert events.describe_event_bus(Name="tpl")["Description"] == "first"
    assert json.loads(events.describe_event_bus(Name="tpl")["Policy"])["Statement"][0]["Sid"] == "s"
    assert json.loads(sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])["Statement"][0]["Sid"] == "mine"
    assert [one["GroupName"] for one in platform.client("scheduler").list_schedules(GroupName="tpl")["Schedules"]] == ["tpl"]
    bring("second", "stack_update_complete", "update_stack")
    assert events.describe_event_bus(Name="tpl")["Description"] == "second"
    assert sns.get_topic_attributes(TopicArn=topic)["Attributes"]["DisplayName"] == "second"
    stacks.delete_stack(StackName="tpl")
    stacks.get_waiter("stack_delete_complete").wait(StackName="tpl", WaiterConfig={"Delay": 1})
    assert "tpl" not in [bus["Name"] for bus in events.list_event_buses()["EventBuses"]]
    assert topic not in [one["TopicArn"] for one in sns.list_topics()["Topics"]]
    assert events.list_connections(NamePrefix="tpl")["Connections"] == []
    assert platform.client("scheduler").list_schedules(GroupName="tpl")["Schedules"] == []
    assert f"arn:aws:sns:{REGION}:{ACCOUNT}:" in topic
