"""Queues themselves: names, attributes, tags, permissions, listing; and the moving of dead letters."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.queues.service import ARN, Service, url

from martlet.clock import ManualClock
from martlet.queues import Queues
from martlet.store import Store


async def attributes(sqs: Service, queue: str, *names: str) -> dict[str, str]:
    answer = await sqs("GetQueueAttributes", QueueUrl=queue, AttributeNames=list(names) or ["All"])
    found: dict[str, str] = answer.get("Attributes", {})
    return found


async def test_the_defaults_of_a_standard_queue(sqs: Service) -> None:
    assert await attributes(sqs, await sqs.queue()) == {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "CreatedTimestamp": "1700000000",
        "DelaySeconds": "0",
        "LastModifiedTimestamp": "1700000000",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "QueueArn": f"{ARN}q",
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "true",
        "VisibilityTimeout": "30",
    }


async def test_attributes_are_set_shown_and_taken_away(sqs: Service) -> None:
    queue = await sqs.queue(DelaySeconds="5")
    sqs.clock.advance(3)
    await sqs.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": "7"})
    await sqs("SetQueueAttributes", QueueUrl=queue, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "60"})
    shown = await attributes(sqs, queue)
    assert json.loads(shown["RedrivePolicy"]) == {"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": 7}
    assert (shown["DelaySeconds"], shown["VisibilityTimeout"], shown["LastModifiedTimestamp"]) == ("5", "60", "1700000003")
    await sqs("SetQueueAttributes", QueueUrl=queue, Attributes={"RedrivePolicy": ""})
    assert await attributes(sqs, queue, "RedrivePolicy", "DelaySeconds") == {"DelaySeconds": "5"}
    assert await sqs("GetQueueAttributes", QueueUrl=queue) == {}


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("VisibilityTimeout", "43201", "InvalidAttributeValue", "Invalid value for the parameter VisibilityTimeout."),
        ("VisibilityTimeout", "-1", "InvalidAttributeValue", "VisibilityTimeout"),
        ("VisibilityTimeout", "x", "InvalidAttributeValue", "VisibilityTimeout"),
        ("VisibilityTimeout", "", "InvalidAttributeValue", "VisibilityTimeout"),
        ("VisibilityTimeout", "٣", "InvalidAttributeValue", "VisibilityTimeout"),
        ("DelaySeconds", "901", "InvalidAttributeValue", "DelaySeconds"),
        ("MaximumMessageSize", "1023", "InvalidAttributeValue", "MaximumMessageSize"),
        ("MaximumMessageSize", "1048577", "InvalidAttributeValue", "MaximumMessageSize"),
        ("MessageRetentionPeriod", "59", "InvalidAttributeValue", "MessageRetentionPeriod"),
        ("MessageRetentionPeriod", "1209601", "InvalidAttributeValue", "MessageRetentionPeriod"),
        ("ReceiveMessageWaitTimeSeconds", "21", "InvalidAttributeValue", "ReceiveMessageWaitTimeSeconds"),
        ("KmsDataKeyReusePeriodSeconds", "59", "InvalidAttributeValue", "KmsDataKeyReusePeriodSeconds"),
        ("SqsManagedSseEnabled", "yes", "InvalidAttributeValue", "SqsManagedSseEnabled"),
        ("Policy", "{", "InvalidAttributeValue", "Policy"),
        ("Foo", "1", "InvalidAttributeName", "Unknown Attribute Foo."),
        ("QueueArn", "x", "InvalidAttributeName", "Unknown Attribute QueueArn."),
        ("FifoQueue", "false", "InvalidAttributeName", "Unknown Attribute FifoQueue."),
        ("ContentBasedDeduplication", "true", "InvalidAttributeName", "Unknown Attribute ContentBasedDeduplication."),
        ("DeduplicationScope", "queue", "InvalidAttributeName", "only when FifoQueue is set to true."),
        ("FifoThroughputLimit", "perQueue", "InvalidAttributeName", "only when FifoQueue is set to true."),
        ("RedrivePolicy", "[]", "InvalidParameterValue", "not a valid JSON map"),
        ("RedrivePolicy", '{"maxReceiveCount":1}', "InvalidParameterValue", "mandatory attribute: deadLetterTargetArn"),
        (
            "RedrivePolicy",
            f'{{"deadLetterTargetArn":"{ARN}d"}}',
            "InvalidParameterValue",
            "mandatory attribute: maxReceiveCount",
        ),
        ("RedriveAllowPolicy", '{"redrivePermission":"some"}', "InvalidParameterValue", "redrive allow policy"),
        ("RedriveAllowPolicy", '{"redrivePermission":"byQueue"}', "InvalidParameterValue", "1 to 10 queue ARNs"),
    ],
)
async def test_attributes_that_are_refused(sqs: Service, name: str, value: str, error: str, text: str) -> None:
    queue = await sqs.queue()
    before = await attributes(sqs, queue)
    await sqs.fails(error, text, "SetQueueAttributes", QueueUrl=queue, Attributes={name: value})
    await sqs.fails(error, text, "CreateQueue", QueueName="other", Attributes={name: value})
    assert await attributes(sqs, queue) == before


@pytest.mark.parametrize(
    ("arn", "count", "text"),
    [
        (f"{ARN}nope", "1", "Dead letter target does not exist."),
        ("dummy", "1", "Invalid value for deadLetterTargetArn."),
        (f"{ARN}f.fifo", "1", "must be same type"),
        (f"{ARN}d", "0", "valid values are from 1 to 1000"),
        (f"{ARN}d", "1001", "valid values are from 1 to 1000"),
        (f"{ARN}d", "many", "Invalid value for maxReceiveCount: many"),
        (f"{ARN}shy", "1", "does not allow"),
        (f"{ARN}choosy", "1", "does not allow"),
    ],
)
async def test_redrive_policies_that_are_refused(sqs: Service, arn: str, count: str, text: str) -> None:
    await sqs.queue("d")
    await sqs.queue("f.fifo")
    await sqs.queue("shy", RedriveAllowPolicy='{"redrivePermission":"denyAll"}')
    allow = {"redrivePermission": "byQueue", "sourceQueueArns": [f"{ARN}friend"]}
    await sqs.queue("choosy", RedriveAllowPolicy=json.dumps(allow))
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": count})
    await sqs.fails("InvalidParameterValue", text, "CreateQueue", QueueName="q", Attributes={"RedrivePolicy": policy})
    if "choosy" in arn:
        await sqs.queue("friend", RedrivePolicy=policy)


async def test_the_kind_of_a_queue_is_for_life(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    set_to: dict[str, Any] = {"QueueUrl": queue, "Attributes": {"FifoQueue": "true"}}
    await sqs("SetQueueAttributes", **set_to)
    set_to["Attributes"] = {"FifoQueue": "false"}
    await sqs.fails("InvalidAttributeValue", "Modifying queue type is not supported.", "SetQueueAttributes", **set_to)
    limit = {"FifoThroughputLimit": "perMessageGroupId"}
    await sqs.fails("InvalidAttributeValue", "messageGroup", "SetQueueAttributes", QueueUrl=queue, Attributes=limit)


async def test_one_kind_of_encryption_at_a_time(sqs: Service) -> None:
    queue = await sqs.queue()
    both = {"KmsMasterKeyId": "k", "SqsManagedSseEnabled": "true"}
    text = "You can use one type of server-side encryption (SSE) at one time."
    await sqs.fails("InvalidAttributeName", text, "SetQueueAttributes", QueueUrl=queue, Attributes=both)
    await sqs("SetQueueAttributes", QueueUrl=queue, Attributes={"KmsMasterKeyId": "k"})
    names = ("KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled")
    assert await attributes(sqs, queue, *names) == dict(zip(names, ("k", "300", "false"), strict=True))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "x" * 81, "q.fifo", "ü"])
async def test_names_of_standard_queues(sqs: Service, name: str) -> None:
    error = "InvalidParameterValue" if name else "MissingParameter"
    await sqs.fails(error, "", "CreateQueue", QueueName=name)


@pytest.mark.parametrize("name", ["q", ".fifo", "x" * 76 + ".fifo", "q.fifo.fifo"])
async def test_names_of_fifo_queues(sqs: Service, name: str) -> None:
    text = "must end with .fifo suffix"
    await sqs.fails("InvalidParameterValue", text, "CreateQueue", QueueName=name, Attributes={"FifoQueue": "true"})
    await sqs.queue("x" * 75 + ".fifo")


async def test_creating_again_is_finding_unless_it_contradicts(sqs: Service) -> None:
    queue = await sqs.queue(DelaySeconds="1")
    assert await sqs.queue() == queue
    assert await sqs.queue(DelaySeconds="1", VisibilityTimeout="30") == queue
    text = "A queue already exists with the same name and a different value for attribute DelaySeconds"
    await sqs.fails("QueueNameExists", text, "CreateQueue", QueueName="q", Attributes={"DelaySeconds": "2"})


async def test_a_name_may_rest_after_a_delete(store: Store, clock: ManualClock) -> None:
    room = Queues(store, clock, rest_ms=60_000)
    await room.start()
    sqs = Service(room, clock)
    await sqs("DeleteQueue", QueueUrl=await sqs.queue())
    await sqs.fails("QueueDeletedRecently", "You must wait 60 seconds", "CreateQueue", QueueName="q")
    clock.advance(60)
    await sqs.queue()
    await room.stop()


async def test_listing_by_prefix_and_page(sqs: Service) -> None:
    for name in ("a-2", "a-1", "b", "a", "a-3"):
        await sqs.queue(name)
    assert (await sqs("ListQueues"))["QueueUrls"] == [url(name) for name in ("a", "a-1", "a-2", "a-3", "b")]
    assert (await sqs("ListQueues", QueueNamePrefix="a-", MaxResults=3))["QueueUrls"] == [url(f"a-{at}") for at in (1, 2, 3)]
    first = await sqs("ListQueues", QueueNamePrefix="a", MaxResults=2)
    rest = await sqs("ListQueues", QueueNamePrefix="a", MaxResults=2, NextToken=first["NextToken"])
    assert (first["QueueUrls"] + rest["QueueUrls"], "NextToken" in rest) == (
        [url(n) for n in ("a", "a-1", "a-2", "a-3")],
        False,
    )
    assert await sqs("ListQueues", QueueNamePrefix="zzz") == {}
    await sqs.fails("InvalidParameterValue", "MaxResults", "ListQueues", MaxResults=1001)
    await sqs.fails("InvalidParameterValue", "NextToken", "ListQueues", NextToken="!")


async def test_urls(sqs: Service) -> None:
    queue = await sqs.queue()
    assert queue == url("q")
    assert (await sqs("GetQueueUrl", QueueName="q"))["QueueUrl"] == queue
    await sqs.fails("QueueDoesNotExist", "", "GetQueueUrl", QueueName="q", QueueOwnerAWSAccountId="123456789012")
    await sqs.send("q", "by name alone")
    assert await sqs.bodies("http://elsewhere:1/a/b/000000000000/q") == ["by name alone"]


async def test_tags(sqs: Service) -> None:
    queue = await sqs.queue(tags={"a": "1"})
    await sqs("TagQueue", QueueUrl=queue, Tags={"b": "", "a": "2"})
    assert (await sqs("ListQueueTags", QueueUrl=queue))["Tags"] == {"a": "2", "b": ""}
    await sqs("UntagQueue", QueueUrl=queue, TagKeys=["a", "b", "c"])
    assert await sqs("ListQueueTags", QueueUrl=queue) == {}
    many = {str(at): "" for at in range(51)}
    await sqs.fails("InvalidParameterValue", "Too many tags", "TagQueue", QueueUrl=queue, Tags=many)


async def test_permissions_are_statements_of_the_policy(sqs: Service) -> None:
    queue = await sqs.queue()
    add = {"QueueUrl": queue, "Label": "l", "AWSAccountIds": ["000000000000"], "Actions": ["ReceiveMessage"]}
    await sqs("AddPermission", **add)
    await sqs("AddPermission", **(add | {"Label": "m", "AWSAccountIds": ["1" * 12, "2" * 12], "Actions": ["*", "SendMessage"]}))
    policy = json.loads((await attributes(sqs, queue))["Policy"])
    assert policy == {
        "Version": "2008-10-17",
        "Id": f"{ARN}q/SQSDefaultPolicy",
        "Statement": [
            {
                "Sid": "l",
                "Effect": "Allow",
                "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
                "Action": "SQS:ReceiveMessage",
                "Resource": f"{ARN}q",
            },
            {
                "Sid": "m",
                "Effect": "Allow",
                "Principal": {"AWS": ["arn:aws:iam::111111111111:root", "arn:aws:iam::222222222222:root"]},
                "Action": ["SQS:*", "SQS:SendMessage"],
                "Resource": f"{ARN}q",
            },
        ],
    }
    text = "Value l for parameter Label is invalid. Reason: Already exists."
    await sqs.fails("InvalidParameterValue", text, "AddPermission", **add)
    await sqs.fails("InvalidParameterValue", "SQS:Foo", "AddPermission", **(add | {"Label": "n", "Actions": ["Foo"]}))
    for label in "lm":
        await sqs("RemovePermission", QueueUrl=queue, Label=label)
    assert "Policy" not in await attributes(sqs, queue)
    text = "Value l for parameter Label is invalid. Reason: can't find label."
    await sqs.fails("InvalidParameterValue", text, "RemovePermission", QueueUrl=queue, Label="l")


# --- moving dead letters


async def pipe(sqs: Service, *bodies: str) -> tuple[str, str]:
    """(work, dead): queues whose dead letters have these bodies."""
    dead = await sqs.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": 1})
    work = await sqs.queue("work", RedrivePolicy=policy)
    for body in bodies:
        await sqs.send(work, body)
    for _ in range(2):
        await sqs.receive(work, VisibilityTimeout=0)
    return work, dead


async def task(sqs: Service) -> dict[str, Any]:
    found: dict[str, Any] = (await sqs("ListMessageMoveTasks", SourceArn=f"{ARN}dead"))["Results"][0]
    return found


async def ended(sqs: Service) -> dict[str, Any]:
    await asyncio.gather(*sqs.queues.moves._running.values())
    return await task(sqs)


async def test_dead_letters_go_back_where_they_came_from(sqs: Service) -> None:
    work, dead = await pipe(sqs, *map(str, range(9)))
    waiting = asyncio.create_task(sqs.receive(work, 1, AttributeNames=["All"], WaitTimeSeconds=20))
    await asyncio.sleep(0.01)
    await sqs("StartMessageMoveTask", SourceArn=f"{ARN}dead")
    found = await ended(sqs)
    assert found == {
        "Status": "COMPLETED",
        "SourceArn": f"{ARN}dead",
        "ApproximateNumberOfMessagesMoved": 9,
        "ApproximateNumberOfMessagesToMove": 9,
        "StartedTimestamp": 1_700_000_000_000,
    }
    (message,) = await waiting
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert "DeadLetterQueueSourceArn" not in message["Attributes"]
    assert len(await sqs.receive(work)) == 8
    assert await sqs.counts(dead) == (0, 0, 0)


async def test_dead_letters_go_to_another_queue_at_a_rate_until_cancelled(sqs: Service) -> None:
    await pipe(sqs, *map(str, range(5)))
    other = await sqs.queue("other")
    begin = {"SourceArn": f"{ARN}dead", "DestinationArn": f"{ARN}other", "MaxNumberOfMessagesPerSecond": 1}
    handle = (await sqs("StartMessageMoveTask", **begin))["TaskHandle"]
    await sqs.fails("InvalidParameterValue", "There is already a task running.", "StartMessageMoveTask", **begin)
    arrived = await sqs.receive(other, WaitTimeSeconds=20)
    assert [message["Body"] for message in arrived] == ["0"]
    running = await task(sqs)
    assert (running["Status"], running["TaskHandle"], running["MaxNumberOfMessagesPerSecond"]) == ("RUNNING", handle, 1)
    moved = await sqs("CancelMessageMoveTask", TaskHandle=handle)
    assert moved["ApproximateNumberOfMessagesMoved"] == 1
    assert (await ended(sqs))["Status"] == "CANCELLED"
    assert await sqs.bodies(other) == []
    await sqs.fails("InvalidParameterValue", "Only active tasks", "CancelMessageMoveTask", TaskHandle=handle)


async def test_what_did_not_come_from_anywhere_cannot_go_back(sqs: Service) -> None:
    _, dead = await pipe(sqs, "a")
    await sqs.send(dead, "stray")
    await sqs("StartMessageMoveTask", SourceArn=f"{ARN}dead")
    found = await ended(sqs)
    assert (found["Status"], found["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert found["ApproximateNumberOfMessagesMoved"] == 1
    assert await sqs.bodies(dead) == ["stray"]


async def test_tasks_that_are_refused(sqs: Service) -> None:
    await pipe(sqs)
    start = "StartMessageMoveTask"
    await sqs.fails("InvalidParameterValue", "must be configured as a Dead Letter Queue", start, SourceArn=f"{ARN}work")
    error = await sqs.fails("ResourceNotFoundException", "SourceArn", start, SourceArn=f"{ARN}nope")
    assert error.http_status == 404
    await sqs.fails("ResourceNotFoundException", "DestinationArn", start, SourceArn=f"{ARN}dead", DestinationArn=f"{ARN}no")
    rate = {"MaxNumberOfMessagesPerSecond": 501}
    await sqs.fails("InvalidParameterValue", "MaxNumberOfMessagesPerSecond", start, SourceArn=f"{ARN}dead", **rate)
    for handle in ("foobared", "e30=", "W10="):
        text = "Value for parameter TaskHandle is invalid."
        await sqs.fails("InvalidParameterValue", text, "CancelMessageMoveTask", TaskHandle=handle)
    await sqs.fails("ResourceNotFoundException", "SourceArn", "ListMessageMoveTasks", SourceArn="arn:x")
