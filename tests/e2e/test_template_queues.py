"""A SAM template with a queue, its dead letters, and a function that takes its messages: through boto3, end to end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import Command, eventually
from tests.e2e.test_lambda_control import client_of
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e
_TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Dead: {Type: 'AWS::SQS::Queue', Properties: {QueueName: dead}}
  Work:
    Type: AWS::SQS::Queue
    Properties: {VisibilityTimeout: 30, RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 1}}
  Sender:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: sender
      Handler: index.handler
      Runtime: python3.11
      Environment: {Variables: {QUEUE: !Ref Work}}
      Policies: [{SQSSendMessagePolicy: {QueueName: !GetAtt Work.QueueName}}]
      InlineCode: |
        import boto3, os
        def handler(event, context):
            boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=event["say"])
            return boto3.client("sts").get_caller_identity()["Arn"]
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: worker
      Handler: index.handler
      Runtime: python3.11
      Timeout: 5
      InlineCode: |
        def handler(event, context):
            for record in event["Records"]:
                print("took", record["body"])
                if record["body"] == "bad":
                    raise ValueError("no")
      Events:
        Jobs: {Type: SQS, Properties: {Queue: !GetAtt Work.Arn, BatchSize: 1}}
Outputs:
  Work: {Value: !Ref Work}
  Dead: {Value: !GetAtt Dead.QueueUrl}
  Role: {Value: !GetAtt SenderRole.Arn}
"""


@pytest.fixture(scope="module")
def stack(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningPlatform:
    folder = tmp_path_factory.mktemp("queues")
    (folder / "template.yaml").write_text(_TEMPLATE)
    return start(folder / "template.yaml", "--no-watch")


def _outputs(platform: RunningPlatform) -> dict[str, str]:
    (found,) = client_of(platform, "cloudformation").describe_stacks()["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}


def _logged(platform: RunningPlatform, text: str) -> Any:
    found = client_of(platform, "logs").filter_log_events(logGroupName="/aws/lambda/worker")
    return [event for event in found["events"] if text in event["message"]]


def test_a_function_takes_what_another_sent(stack: RunningPlatform) -> None:
    client = client_of(stack)
    answer = client.invoke(FunctionName="sender", Payload=json.dumps({"say": "hello"}))
    role = _outputs(stack)["Role"].rpartition("/")[2]
    assert json.load(answer["Payload"]) == f"arn:aws:sts::000000000000:assumed-role/{role}/sender"
    eventually(lambda: _logged(stack, "took hello"))


def test_a_message_that_cannot_be_handled_ends_among_the_dead(stack: RunningPlatform) -> None:
    sqs, urls = client_of(stack, "sqs"), _outputs(stack)
    sqs.set_queue_attributes(QueueUrl=urls["Work"], Attributes={"VisibilityTimeout": "5"})
    sqs.send_message(QueueUrl=urls["Work"], MessageBody="bad")
    eventually(lambda: sqs.receive_message(QueueUrl=urls["Dead"], WaitTimeSeconds=1).get("Messages"))


def test_a_stack_takes_its_queues_and_mappings_along(stack: RunningPlatform, martlet: Command) -> None:
    (app,) = martlet("apps", "--json", data=stack.data).json["apps"]
    assert martlet("destroy", app["name"], "--yes", data=stack.data).code == 0
    assert client_of(stack, "sqs").list_queues().get("QueueUrls") is None
    assert client_of(stack).list_event_source_mappings()["EventSourceMappings"] == []
