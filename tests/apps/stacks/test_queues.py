"""Queues, their policies and event source mappings in templates."""

from __future__ import annotations

from typing import Any

import pytest
from rooms import House

from martlet.apps.stacks.engine import Request
from martlet.apps.stacks.records import StackRecord
from martlet.errors import MartletError, Unsupported

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Dead: {Type: 'AWS::SQS::Queue'}
  Work:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: %(visibility)s
      RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 3}
      %(more)s
  Ordered: {Type: 'AWS::SQS::Queue', Properties: {FifoQueue: true, ContentBasedDeduplication: true}}
  May:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Work]
      PolicyDocument: {Statement: [{Effect: Allow, Principal: '*', Action: 'sqs:SendMessage', Resource: !GetAtt Work.Arn}]}
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      InlineCode: x
      Handler: index.handler
      Runtime: python3.11
      Environment: {Variables: {QUEUE: !Ref Work}}
      Events:
        Jobs:
          Type: SQS
          Properties: {Queue: !GetAtt Work.Arn, BatchSize: %(batch)s, FunctionResponseTypes: [ReportBatchItemFailures], %(event)s}
Outputs:
  Url: {Value: !Ref Work}
  Name: {Value: !GetAtt Ordered.QueueName}
  Mapping: {Value: !Ref WorkerJobs}
"""


def _template(visibility: int = 60, batch: int = 5, more: str = "", event: str = "Enabled: true") -> str:
    return TEMPLATE % {"visibility": visibility, "batch": batch, "more": more, "event": event}


@pytest.fixture
async def house() -> Any:
    made = House()
    yield made
    await made.engine.close()


async def _bring(house: House, text: str, **given: Any) -> StackRecord:
    record = house.engine.find("demo")
    live = record is not None and record.status != "DELETE_COMPLETE"
    id = record.id if live and record is not None else house.engine.new_id("demo")
    request = Request(name="demo", template=text, capabilities=("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"), **given)
    prepared = await house.engine.prepare(request, id, house.local)
    return await (await (house.engine.update if live else house.engine.create)(request, prepared, id))


def _queue(house: House, part: str) -> dict[str, str]:
    (name,) = (name for name in house.queues.queues if f"-{part}-" in name)
    return house.queues.queues[name]


async def test_queues_their_policies_and_who_takes_their_messages(house: House) -> None:
    record = await _bring(house, _template())
    assert record.status == "CREATE_COMPLETE", record.reason
    work = _queue(house, "Work")
    assert work["VisibilityTimeout"] == "60"
    assert '"maxReceiveCount": 3' in work["RedrivePolicy"]
    assert "sqs:SendMessage" in work["Policy"]
    ordered = _queue(house, "Ordered")
    assert ordered == {"ContentBasedDeduplication": "true", "FifoQueue": "true"}
    (mapping,) = house.sources.mappings.values()
    assert mapping["BatchSize"] == 5
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["FunctionName"] in house.control.functions
    outputs = {one["OutputKey"]: one["OutputValue"] for one in house.engine.body(record.id).outputs}
    assert outputs["Url"].endswith("/000000000000/" + next(name for name in house.queues.queues if "-Work-" in name))
    assert outputs["Name"].endswith(".fifo")
    assert len(outputs["Name"]) <= 80
    assert outputs["Mapping"] == "uuid-1"


async def test_changes_are_made_in_place_and_what_is_left_out_becomes_the_default(house: House) -> None:
    await _bring(house, _template(more="DelaySeconds: 7"))
    names = set(house.queues.queues)
    record = await _bring(house, _template(visibility=90, batch=1, event="Enabled: false"))
    assert record.status == "UPDATE_COMPLETE", record.reason
    assert set(house.queues.queues) == names
    assert (_queue(house, "Work")["VisibilityTimeout"], _queue(house, "Work")["DelaySeconds"]) == ("90", "0")
    (mapping,) = house.sources.mappings.values()
    assert (mapping["BatchSize"], mapping["Enabled"]) == (1, False)


async def test_a_change_that_fails_is_taken_back(house: House) -> None:
    await _bring(house, _template())
    house.queues.fails = next(name for name in house.queues.queues if "-Work-" in name)
    record = await _bring(house, _template(visibility=90, batch=2))
    assert record.status.startswith("UPDATE_ROLLBACK")
    (mapping,) = house.sources.mappings.values()
    assert mapping["BatchSize"] == 5


async def test_everything_goes_with_the_stack(house: House) -> None:
    await _bring(house, _template())
    task = await house.engine.delete("demo")
    assert task is not None
    assert (await task).status == "DELETE_COMPLETE"
    assert (house.queues.queues, house.sources.mappings) == ({}, {})


async def test_a_queue_that_another_made_is_not_taken_over(house: House) -> None:
    house.queues.queues["mine"], house.queues.tags["mine"] = {}, {}
    record = await _bring(house, "Resources: {Q: {Type: 'AWS::SQS::Queue', Properties: {QueueName: mine}}}")
    assert record.status == "ROLLBACK_COMPLETE"
    assert "mine" in house.queues.queues


@pytest.mark.parametrize(
    "event", ["TumblingWindowInSeconds: 30", "Topics: [a]", "ProvisionedPollerConfig: {MinimumPollers: 2}"]
)
async def test_what_is_for_other_sources_is_refused_by_name(house: House, event: str) -> None:
    text = f"""
Resources:
  M:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {{FunctionName: f, EventSourceArn: 'arn:aws:sqs:us-east-1:000000000000:q', {event}}}
"""
    with pytest.raises(Unsupported, match=event.partition(":")[0]):
        await _bring(house, text)


async def test_a_mapping_without_a_queue_is_refused(house: House) -> None:
    text = "Resources: {M: {Type: 'AWS::Lambda::EventSourceMapping', Properties: {FunctionName: f}}}"
    with pytest.raises(MartletError, match="EventSourceArn cannot be empty"):
        await _bring(house, text)
