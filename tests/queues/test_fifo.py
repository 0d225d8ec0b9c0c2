"""FIFO queues: order in each group, deduplication, repeated receives."""

from __future__ import annotations

from typing import Any

import pytest
from tests.queues.service import ARN, Service

CONTENT = {"ContentBasedDeduplication": "true"}


async def sent(sqs: Service, queue: str, *names: str) -> None:
    """Messages named "<group><number>"."""
    for name in names:
        await sqs.send(queue, name, MessageGroupId=name[0], MessageDeduplicationId=name)


async def hide(sqs: Service, queue: str, message: dict[str, Any], seconds: int) -> None:
    handle = message["ReceiptHandle"]
    await sqs("ChangeMessageVisibility", QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=seconds)


async def test_a_group_goes_out_in_order_and_waits_for_what_is_in_flight(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    await sent(sqs, queue, "a1", "a2", "b1", "a3")
    first = await sqs.receive(queue, 2)
    assert [message["Body"] for message in first] == ["a1", "a2"]
    assert await sqs.bodies(queue) == ["b1"]
    assert await sqs.bodies(queue) == []
    await sqs.delete(queue, first[0])
    assert await sqs.bodies(queue) == []  # a2 is still in flight
    await sqs.delete(queue, first[1])
    assert await sqs.bodies(queue) == ["a3"]


async def test_what_was_received_and_not_deleted_comes_again_first(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", VisibilityTimeout="5")
    await sent(sqs, queue, "a1", "a2", "a3")
    assert await sqs.bodies(queue, 2) == ["a1", "a2"]
    sqs.clock.advance(5)
    assert await sqs.bodies(queue) == ["a1", "a2", "a3"]


@pytest.mark.parametrize(("longer", "visible"), [(0, []), (1, ["a1"]), (2, ["a1", "a2"])])
async def test_a_message_that_stays_hidden_hides_those_behind_it(sqs: Service, longer: int, visible: list[str]) -> None:
    queue = await sqs.queue("q.fifo", VisibilityTimeout="1")
    await sent(sqs, queue, "a1", "a2", "a3")
    found = await sqs.receive(queue)
    await hide(sqs, queue, found[longer], 4)
    sqs.clock.advance(2)
    assert await sqs.bodies(queue) == visible


async def test_groups_take_turns_by_the_time_since_which_they_can_be_received(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", VisibilityTimeout="1")
    for name in ("a1", "b1", "c1", "b2", "a2"):
        await sent(sqs, queue, name)
        sqs.clock.advance(0.001)
    assert await sqs.bodies(queue, 3, VisibilityTimeout=0) == ["a1", "a2", "b1"]
    assert await sqs.bodies(queue) == ["c1", "a1", "a2", "b1", "b2"]


async def test_counts_are_of_messages_not_of_groups(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", VisibilityTimeout="5")
    await sent(sqs, queue, "a1", "a2", "a3", "b1", "b2", "b3")
    await sqs.receive(queue, 1)
    await sqs.receive(queue, 1)
    assert await sqs.counts(queue) == (4, 2, 0)
    sqs.clock.advance(5)
    assert await sqs.counts(queue) == (6, 0, 0)


async def test_the_queue_s_delay_holds_a_group_back_and_a_message_has_none_of_its_own(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", DelaySeconds="2")
    await sent(sqs, queue, "a1")
    text = "Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid"
    given = {"QueueUrl": queue, "MessageBody": "x", "MessageGroupId": "a", "MessageDeduplicationId": "x", "DelaySeconds": 2}
    await sqs.fails("InvalidParameterValue", text, "SendMessage", **given)
    await sqs("SendMessage", **(given | {"DelaySeconds": 0}))
    assert await sqs.counts(queue) == (0, 0, 2)
    assert await sqs.bodies(queue) == []
    sqs.clock.advance(2)
    assert await sqs.bodies(queue) == ["a1", "x"]


async def test_a_handle_ends_with_its_visibility(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", VisibilityTimeout="1")
    await sent(sqs, queue, "a1")
    (message,) = await sqs.receive(queue)
    handle = message["ReceiptHandle"]
    sqs.clock.advance(1)
    text = f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
    await sqs.fails("InvalidParameterValue", text, "DeleteMessage", QueueUrl=queue, ReceiptHandle=handle)
    change = {"QueueUrl": queue, "ReceiptHandle": handle, "VisibilityTimeout": 5}
    text = "Message does not exist or is not available for visibility timeout change."
    await sqs.fails("InvalidParameterValue", text, "ChangeMessageVisibility", **change)
    assert await sqs.bodies(queue) == ["a1"]


async def test_a_group_begins_anew_after_it_was_empty(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    for round in range(3):
        await sent(sqs, queue, f"a{round}")
        (message,) = await sqs.receive(queue)
        assert message["Body"] == f"a{round}"
        await sqs.delete(queue, message)


async def test_numbers_have_twenty_digits_and_grow_also_over_a_purge(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", **CONTENT)
    numbers = [(await sqs.send(queue, str(at), MessageGroupId="a"))["SequenceNumber"] for at in range(5)]
    await sqs("PurgeQueue", QueueUrl=queue)
    numbers.append((await sqs.send(queue, "0", MessageGroupId="a"))["SequenceNumber"])  # a purge forgets duplicates too
    assert numbers == sorted(set(numbers))
    assert {len(number) for number in numbers} == {20}
    (message,) = await sqs.receive(queue, AttributeNames=["All"])
    assert message["Attributes"]["SequenceNumber"] == numbers[-1]
    assert message["Attributes"]["MessageGroupId"] == "a"


async def test_five_minutes_of_deduplication_by_id(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    first = await sqs.send(queue, "one", MessageGroupId="a", MessageDeduplicationId="d")
    (message,) = await sqs.receive(queue)
    await sqs.delete(queue, message)
    sqs.clock.advance(299.999)
    again = await sqs.send(queue, "two", MessageGroupId="b", MessageDeduplicationId="d")
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert await sqs.bodies(queue) == []
    sqs.clock.advance(0.001)
    await sqs.send(queue, "three", MessageGroupId="a", MessageDeduplicationId="d")
    assert await sqs.bodies(queue) == ["three"]


async def test_what_is_remembered_is_swept_up_while_sending(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    for at in range(20):
        await sqs.send(queue, "x", MessageGroupId="a", MessageDeduplicationId=str(at))
    sqs.clock.advance(301)
    for at in range(10):
        await sqs.send(queue, "x", MessageGroupId="a", MessageDeduplicationId=f"new{at}")
    rows = sqs.queues._store.read(lambda reader: reader.scan(b"\x30queues.heap\x00", b"\x30queues.heap\x01"))
    assert sum(b"\x30new" in key for key, _ in rows) == 20
    assert sum(key[-4:] in (b"\x300\x00", b"\x3019\x00") for key, _ in rows) == 0


async def test_deduplication_by_content_and_by_group(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", **CONTENT, DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId")
    for group in "aab":
        await sqs.send(queue, "same", MessageGroupId=group)
    await sqs.send(queue, "other", MessageGroupId="a")
    assert await sqs.bodies(queue) == ["same", "other", "same"]


async def test_a_changed_scope_takes_a_minute(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    await sqs("SetQueueAttributes", QueueUrl=queue, Attributes={"DeduplicationScope": "messageGroup"})
    for group in "ab":
        await sqs.send(queue, group, MessageGroupId=group, MessageDeduplicationId="d")
    (message,) = await sqs.receive(queue)
    assert message["Body"] == "a"
    await sqs.delete(queue, message)
    sqs.clock.advance(60)
    for group in "ab":
        await sqs.send(queue, group, MessageGroupId=group, MessageDeduplicationId="e")
    assert await sqs.bodies(queue) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, "MissingParameter", "MessageGroupId"),
        ({"MessageGroupId": "a"}, "InvalidParameterValue", "ContentBasedDeduplication enabled or MessageDeduplicationId"),
        ({"MessageGroupId": "a b"}, "InvalidParameterValue", "Value a b for parameter MessageGroupId is invalid."),
        ({"MessageGroupId": "a" * 129}, "InvalidParameterValue", "1 to 128 in length."),
        ({"MessageGroupId": "a", "MessageDeduplicationId": ""}, "InvalidParameterValue", "Value  for parameter MessageDedup"),
        ({"MessageGroupId": "a", "MessageDeduplicationId": "ü"}, "InvalidParameterValue", "MessageDeduplicationId can only"),
    ],
)
async def test_messages_that_are_refused(sqs: Service, given: dict[str, str], error: str, text: str) -> None:
    queue = await sqs.queue("q.fifo")
    await sqs.fails(error, text, "SendMessage", QueueUrl=queue, MessageBody="x", **given)


async def test_in_a_batch_what_a_fifo_queue_needs_fails_the_whole(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo")
    good = {"Id": "1", "MessageBody": "x", "MessageGroupId": "a", "MessageDeduplicationId": "d"}
    for missing, text in (("MessageGroupId", "MessageGroupId"), ("MessageDeduplicationId", "ContentBasedDeduplication")):
        bad = {key: value for key, value in good.items() if key != missing} | {"Id": "2"}
        await sqs.fails("InvalidParameterValue", text, "SendMessageBatch", QueueUrl=queue, Entries=[good, bad])
    assert await sqs.counts(queue) == (0, 0, 0)


async def test_a_receive_that_is_repeated_gets_the_same_again(sqs: Service) -> None:
    queue = await sqs.queue("q.fifo", VisibilityTimeout="10")
    await sent(sqs, queue, "a1", "a2", "b1")
    first = await sqs.receive(queue, 2, ReceiveRequestAttemptId="try")
    sqs.clock.advance(6)
    again = await sqs.receive(queue, 2, ReceiveRequestAttemptId="try")
    assert [m["ReceiptHandle"] for m in again] == [m["ReceiptHandle"] for m in first]
    sqs.clock.advance(6)  # the visibility began anew
    assert await sqs.bodies(queue) == ["b1"]
    await sqs.delete(queue, again[0])
    assert await sqs.bodies(queue, 2, ReceiveRequestAttemptId="try") == []  # not as it was: a receive like any other


async def test_dead_letters_keep_their_group_and_free_it(sqs: Service) -> None:
    dead = await sqs.queue("dead.fifo", **CONTENT)
    policy = f'{{"deadLetterTargetArn":"{ARN}dead.fifo","maxReceiveCount":1}}'
    queue = await sqs.queue("q.fifo", RedrivePolicy=policy)
    await sent(sqs, queue, "a1", "a2")
    assert await sqs.bodies(queue, 1, VisibilityTimeout=0) == ["a1"]
    assert await sqs.bodies(queue, 1) == ["a2"]
    (letter,) = await sqs.receive(dead, AttributeNames=["All"])
    assert (letter["Body"], letter["Attributes"]["MessageGroupId"]) == ("a1", "a")
    assert letter["Attributes"]["ApproximateReceiveCount"] == "2"


async def test_a_standard_queue_takes_groups_for_fairness_only(sqs: Service) -> None:
    queue = await sqs.queue()
    answer = await sqs.send(queue, "x", MessageGroupId="tenant")
    assert "SequenceNumber" not in answer
    (message,) = await sqs.receive(queue, AttributeNames=["MessageGroupId", "SequenceNumber"])
    assert message["Attributes"] == {"MessageGroupId": "tenant"}
