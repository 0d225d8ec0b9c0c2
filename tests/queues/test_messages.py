"""Sending, receiving, hiding and deleting: standard queues."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from tests.queues.service import ARN, Service, url

from martlet.errors import ServiceError
from martlet.queues.receipts import Receipt, Receipts


async def test_what_is_sent_is_received_once_and_is_gone_when_deleted(sqs: Service) -> None:
    queue = await sqs.queue()
    sent = await sqs.send(queue, "hello")
    assert sent["MD5OfMessageBody"] == hashlib.md5(b"hello").hexdigest()
    (message,) = await sqs.receive(queue)
    assert (message["Body"], message["MessageId"], message["MD5OfBody"]) == (
        "hello",
        sent["MessageId"],
        sent["MD5OfMessageBody"],
    )
    assert await sqs.counts(queue) == (0, 1, 0)
    assert await sqs.receive(queue) == []
    await sqs.delete(queue, message)
    sqs.clock.advance(100_000)
    assert await sqs.receive(queue) == []
    assert await sqs.counts(queue) == (0, 0, 0)


async def test_a_message_comes_back_after_its_visibility_timeout(sqs: Service) -> None:
    queue = await sqs.queue(VisibilityTimeout="5")
    await sqs.send(queue, "one")
    await sqs.receive(queue)
    sqs.clock.advance(4.999)
    assert await sqs.receive(queue) == []
    sqs.clock.advance(0.001)
    (again,) = await sqs.receive(queue, VisibilityTimeout=60, AttributeNames=["All"])
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    assert again["Attributes"]["ApproximateFirstReceiveTimestamp"] == "1700000000000"
    sqs.clock.advance(59)
    assert await sqs.receive(queue) == []


async def test_what_timed_out_is_back_in_its_place_and_what_was_given_back_is_last(sqs: Service) -> None:
    queue = await sqs.queue(VisibilityTimeout="5")
    for body in "abc":
        await sqs.send(queue, body)
        sqs.clock.advance(0.01)
    (first,) = await sqs.receive(queue, 1)
    sqs.clock.advance(5)
    (again,) = await sqs.receive(queue, 1)
    assert again["Body"] == first["Body"] == "a"
    await sqs("ChangeMessageVisibility", QueueUrl=queue, ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=0)
    assert await sqs.bodies(queue) == ["b", "c", "a"]


async def test_delays_of_queue_and_message(sqs: Service) -> None:
    queue = await sqs.queue(DelaySeconds="10")
    await sqs.send(queue, "queue's")
    await sqs.send(queue, "own", DelaySeconds=2)
    await sqs.send(queue, "none", DelaySeconds=0)
    assert await sqs.counts(queue) == (1, 0, 2)
    assert await sqs.bodies(queue) == ["none"]
    sqs.clock.advance(2)
    assert await sqs.counts(queue) == (1, 1, 1)
    assert await sqs.bodies(queue) == ["own"]
    sqs.clock.advance(8)
    assert await sqs.bodies(queue) == ["queue's"]


async def test_the_visibility_of_a_received_message_is_changed(sqs: Service) -> None:
    queue = await sqs.queue()
    await sqs.send(queue, "one")
    (message,) = await sqs.receive(queue)
    change: dict[str, Any] = {"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"]}
    await sqs("ChangeMessageVisibility", **change, VisibilityTimeout=100)
    sqs.clock.advance(99)
    assert await sqs.receive(queue) == []
    await sqs("ChangeMessageVisibility", **change, VisibilityTimeout=0)
    assert await sqs.counts(queue) == (1, 0, 0)
    assert len(await sqs.receive(queue)) == 1
    sqs.clock.advance(1000)
    await sqs("ChangeMessageVisibility", **change, VisibilityTimeout=60)  # a standard queue takes it late, and old handles too
    assert await sqs.counts(queue) == (0, 1, 0)


async def test_a_message_is_in_flight_for_twelve_hours_at_most(sqs: Service) -> None:
    queue = await sqs.queue()
    await sqs.send(queue, "one")
    (message,) = await sqs.receive(queue)
    sqs.clock.advance(20)
    change = {"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 43_190}
    await sqs.fails("InvalidParameterValue", "beyond the limit [43200 seconds]", "ChangeMessageVisibility", **change)
    await sqs("ChangeMessageVisibility", **(change | {"VisibilityTimeout": 43_180}))


async def test_only_the_last_receiver_can_delete(sqs: Service) -> None:
    queue = await sqs.queue(VisibilityTimeout="1")
    await sqs.send(queue, "one")
    (first,) = await sqs.receive(queue)
    sqs.clock.advance(1)
    (second,) = await sqs.receive(queue)
    await sqs.delete(queue, first)  # says yes, as SQS does, and does nothing
    assert await sqs.counts(queue) == (0, 1, 0)
    sqs.clock.advance(1)
    await sqs.delete(queue, second)  # late, but nobody has received it since
    assert await sqs.counts(queue) == (0, 0, 0)
    await sqs.delete(queue, second)


async def test_handles_that_are_not_ours(sqs: Service) -> None:
    queue, other = await sqs.queue("q"), await sqs.queue("other")
    await sqs.send(queue, "one")
    (message,) = await sqs.receive(queue)
    handle = message["ReceiptHandle"]
    text = "is not a valid receipt handle."
    flipped = handle[:20] + ("A" if handle[20] != "A" else "B") + handle[21:]
    for bad in ("garbage", "", "Zm9v", "ü", flipped, handle + "AAAA", handle[:-4]):
        name, said = ("ReceiptHandleIsInvalid", text) if bad else ("MissingParameter", "ReceiptHandle")
        await sqs.fails(name, said, "DeleteMessage", QueueUrl=queue, ReceiptHandle=bad)
    await sqs.fails("ReceiptHandleIsInvalid", text, "DeleteMessage", QueueUrl=other, ReceiptHandle=handle)
    await sqs("DeleteQueue", QueueUrl=queue)
    await sqs.queue("q")
    await sqs.fails("ReceiptHandleIsInvalid", text, "DeleteMessage", QueueUrl=queue, ReceiptHandle=handle)


def test_a_receipt_says_what_it_was_made_of() -> None:
    receipts, receipt = Receipts(b"k" * 32), Receipt(1, 2, 1_700_000_000_000, 4, 5)
    handle = receipts.handle(receipt)
    assert receipts.read(handle) == receipt
    assert Receipts(b"other" * 6).read(handle) is None


async def test_a_batch_fails_in_parts(sqs: Service) -> None:
    queue = await sqs.queue(MaximumMessageSize="1024")
    entries = [
        {"Id": "good", "MessageBody": "x" * 1024},
        {"Id": "large", "MessageBody": "x" * 1025},
        {"Id": "control", "MessageBody": "\x00"},
        {"Id": "late", "MessageBody": "x", "DelaySeconds": 901},
    ]
    answer = await sqs("SendMessageBatch", QueueUrl=queue, Entries=entries)
    assert [one["Id"] for one in answer["Successful"]] == ["good"]
    assert {one["Id"]: (one["Code"], one["SenderFault"]) for one in answer["Failed"]} == {
        "large": ("InvalidParameterValue", True),
        "control": ("InvalidMessageContents", True),
        "late": ("InvalidParameterValue", True),
    }
    (message,) = await sqs.receive(queue)
    handle = message["ReceiptHandle"]
    entries = [{"Id": "a", "ReceiptHandle": handle, "VisibilityTimeout": 5}, {"Id": "b", "ReceiptHandle": "no"}]
    changed = await sqs(
        "ChangeMessageVisibilityBatch", QueueUrl=queue, Entries=[entries[0], entries[1] | {"VisibilityTimeout": 5}]
    )
    assert ([one["Id"] for one in changed["Successful"]], changed["Failed"][0]["Code"]) == (["a"], "ReceiptHandleIsInvalid")
    deleted = await sqs("DeleteMessageBatch", QueueUrl=queue, Entries=entries)
    assert deleted["Successful"] == [{"Id": "a"}]
    assert [one["Id"] for one in deleted["Failed"]] == ["b"]


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ([], "EmptyBatchRequest", "at least one SendMessageBatchRequestEntry"),
        ([{"Id": str(at), "MessageBody": "x"} for at in range(11)], "TooManyEntriesInBatchRequest", "You have sent 11."),
        ([{"Id": "a", "MessageBody": "x"}] * 2, "BatchEntryIdsNotDistinct", "Id a repeated."),
        ([{"Id": "a b", "MessageBody": "x"}], "InvalidBatchEntryId", "alphanumeric characters, hyphens and underscores"),
        ([{"Id": "", "MessageBody": "x"}], "InvalidBatchEntryId", ""),
        ([{"Id": "a" * 81, "MessageBody": "x"}], "InvalidBatchEntryId", ""),
        (
            [{"Id": str(at), "MessageBody": "x" * 524_288} for at in range(3)],
            "BatchRequestTooLong",
            "Batch requests cannot be longer than 1048576 bytes. You have sent 1572864 bytes.",
        ),
    ],
)
async def test_batches_that_are_refused(sqs: Service, entries: list[dict[str, Any]], error: str, text: str) -> None:
    queue = await sqs.queue()
    await sqs.fails(error, text, "SendMessageBatch", QueueUrl=queue, Entries=entries)
    assert await sqs.counts(queue) == (0, 0, 0)


async def test_sizes_count_attributes(sqs: Service) -> None:
    queue = await sqs.queue()
    attributes = {"n": {"DataType": "String", "StringValue": "v" * 10}}  # 1 + 6 + 10 bytes
    await sqs.send(queue, "x" * (1_048_576 - 17), MessageAttributes=attributes)
    await sqs.fails(
        "InvalidParameterValue",
        "Message must be shorter than 1048576 bytes.",
        "SendMessage",
        QueueUrl=queue,
        MessageBody="x" * (1_048_576 - 16),
        MessageAttributes=attributes,
    )


@pytest.mark.parametrize("body", ["\x00", "a\x08", "\x0b", "\ufffe", "\uffff"])
async def test_bodies_that_xml_cannot_carry(sqs: Service, body: str) -> None:
    await sqs.fails("InvalidMessageContents", "#x9 | #xA", "SendMessage", QueueUrl=await sqs.queue(), MessageBody=body)


@pytest.mark.parametrize("body", ["\t\n\r", "ü€", "\U0001f600", "\ud7ff\ue000\ufffd", " "])
async def test_bodies_that_are_kept_as_they_are(sqs: Service, body: str) -> None:
    queue = await sqs.queue()
    await sqs.send(queue, body)
    assert await sqs.bodies(queue) == [body]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"MaxNumberOfMessages": 0}, "Value 0 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10"),
        ({"MaxNumberOfMessages": 11}, "Value 11 for parameter MaxNumberOfMessages"),
        ({"WaitTimeSeconds": 21}, "Value 21 for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20"),
        ({"WaitTimeSeconds": -1}, "Value -1 for parameter WaitTimeSeconds"),
        ({"VisibilityTimeout": 43_201}, "Value 43201 for parameter VisibilityTimeout"),
        ({"VisibilityTimeout": -1}, "Value -1 for parameter VisibilityTimeout"),
    ],
)
async def test_receives_that_are_refused(sqs: Service, request_: dict[str, int], text: str) -> None:
    queue = await sqs.queue()
    await sqs.fails("InvalidParameterValue", text, "ReceiveMessage", QueueUrl=queue, **request_)


@pytest.mark.parametrize(
    "operation",
    ["ReceiveMessage", "GetQueueAttributes", "PurgeQueue", "DeleteQueue", "ListQueueTags", "ListDeadLetterSourceQueues"],
)
async def test_queues_that_are_not_there(sqs: Service, operation: str) -> None:
    for queue in (url("nope"), "http://h/123456789012/nope", "nope"):
        await sqs.fails("QueueDoesNotExist", "The specified queue does not exist.", operation, QueueUrl=queue)
    await sqs.fails("MissingParameter", "QueueUrl", operation)


# --- attributes of messages


async def test_attributes_travel_with_the_digest_that_clients_check(sqs: Service) -> None:
    queue = await sqs.queue(VisibilityTimeout="0")
    attributes = {
        "timestamp": {"DataType": "Number", "StringValue": "1493147359900"},
        "bytes": {"DataType": "Binary.png", "BinaryValue": b"\x00\xff"},
    }
    sent = await sqs.send(queue, "x", MessageAttributes=attributes)
    (message,) = await sqs.receive(queue, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    (one,) = await sqs.receive(queue, MessageAttributeNames=["timestamp", "nope"])
    assert one["MD5OfMessageAttributes"] == "235c5c510d26fb653d073faed50ae77c"  # recorded from the service
    (none,) = await sqs.receive(queue)
    assert "MessageAttributes" not in none
    assert "MD5OfMessageAttributes" not in none
    assert list((await sqs.receive(queue, MessageAttributeNames=["time.*"]))[0]["MessageAttributes"]) == ["timestamp"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("a b", {"DataType": "String", "StringValue": "x"}, "attribute name 'a b'"),
        ("aWs.x", {"DataType": "String", "StringValue": "x"}, "attribute name"),
        ("Amazon.x", {"DataType": "String", "StringValue": "x"}, "attribute name"),
        (".x", {"DataType": "String", "StringValue": "x"}, "attribute name"),
        ("x.", {"DataType": "String", "StringValue": "x"}, "attribute name"),
        ("x..y", {"DataType": "String", "StringValue": "x"}, "attribute name"),
        ("x" * 257, {"DataType": "String", "StringValue": "x"}, "less than 256"),
        ("x", {"DataType": "Text", "StringValue": "x"}, "prefixes: Binary, Number, String"),
        ("x", {"DataType": "", "StringValue": "x"}, "non-empty message attribute type"),
        ("x", {"DataType": "String", "StringValue": ""}, "must contain a non-empty value of type 'String'"),
        ("x", {"DataType": "Binary", "StringValue": "x"}, "must contain a non-empty value of type 'Binary'"),
        (
            "x",
            {"DataType": "Number", "StringValue": "one"},
            "Can't cast the value of message (user) attribute 'x' to a number.",
        ),
        ("x", {"DataType": "String", "StringValue": "\x08"}, "invalid characters"),
    ],
)
async def test_attributes_that_are_refused(sqs: Service, name: str, value: dict[str, Any], text: str) -> None:
    queue = await sqs.queue()
    given = {"QueueUrl": queue, "MessageBody": "x", "MessageAttributes": {name: value}}
    await sqs.fails("InvalidParameterValue", text, "SendMessage", **given)


async def test_ten_attributes_at_most(sqs: Service) -> None:
    many = {f"a{at}": {"DataType": "String", "StringValue": "x"} for at in range(11)}
    queue = await sqs.queue()
    text = "Number of message attributes [11] exceeds the allowed maximum [10]."
    await sqs.fails("InvalidParameterValue", text, "SendMessage", QueueUrl=queue, MessageBody="x", MessageAttributes=many)


async def test_the_trace_header_is_a_system_attribute_with_its_own_digest(sqs: Service) -> None:
    queue = await sqs.queue()
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    given = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
    sent = await sqs.send(queue, "x", MessageSystemAttributes=given)
    assert len(sent["MD5OfMessageSystemAttributes"]) == 32
    assert "MD5OfMessageAttributes" not in sent
    (message,) = await sqs.receive(queue, MessageSystemAttributeNames=["AWSTraceHeader"])
    assert message["Attributes"] == {"AWSTraceHeader": header}
    for bad in ({"Other": given["AWSTraceHeader"]}, {"AWSTraceHeader": {"DataType": "Number", "StringValue": "1"}}):
        error = {"QueueUrl": queue, "MessageBody": "x", "MessageSystemAttributes": bad}
        await sqs.fails("InvalidParameterValue", "AWSTraceHeader" if "Other" not in bad else "Other", "SendMessage", **error)
    await sqs.fails("InvalidAttributeName", "Unknown Attribute Foo.", "ReceiveMessage", QueueUrl=queue, AttributeNames=["Foo"])


# --- waiting


async def test_a_waiting_receiver_gets_what_is_sent(sqs: Service) -> None:
    queue = await sqs.queue()
    waiting = asyncio.create_task(sqs.bodies(queue, WaitTimeSeconds=20))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await sqs.send(queue, "at last")
    assert await waiting == ["at last"]


async def test_each_message_wakes_one_of_many_receivers(sqs: Service) -> None:
    queue = await sqs.queue()
    waiting = [asyncio.create_task(sqs.bodies(queue, 1, WaitTimeSeconds=20)) for _ in range(20)]
    await asyncio.sleep(0.01)
    for at in range(20):
        await sqs.send(queue, str(at))
    got = await asyncio.gather(*waiting)
    assert sorted(body for bodies in got for body in bodies) == sorted(map(str, range(20)))


async def test_one_send_of_ten_feeds_ten_receivers(sqs: Service) -> None:
    queue = await sqs.queue()
    waiting = [asyncio.create_task(sqs.bodies(queue, 1, WaitTimeSeconds=20)) for _ in range(10)]
    await asyncio.sleep(0.01)
    await sqs("SendMessageBatch", QueueUrl=queue, Entries=[{"Id": str(at), "MessageBody": str(at)} for at in range(10)])
    assert sorted(body for bodies in await asyncio.gather(*waiting) for body in bodies) == sorted(map(str, range(10)))


async def test_a_receiver_that_leaves_takes_nothing_along(sqs: Service) -> None:
    queue = await sqs.queue()
    gone = asyncio.create_task(sqs.bodies(queue, WaitTimeSeconds=20))
    waiting = asyncio.create_task(sqs.bodies(queue, WaitTimeSeconds=20))
    await asyncio.sleep(0.01)
    gone.cancel()
    await sqs.send(queue, "for the other")
    assert await waiting == ["for the other"]


async def test_who_waits_on_a_queue_that_goes_is_told(sqs: Service) -> None:
    queue = await sqs.queue()
    waiting = asyncio.create_task(sqs.bodies(queue, WaitTimeSeconds=20))
    await asyncio.sleep(0.01)
    await sqs("DeleteQueue", QueueUrl=queue)
    with pytest.raises(ServiceError):
        await waiting


async def test_a_stop_ends_the_waiting(sqs: Service) -> None:
    queue = await sqs.queue(ReceiveMessageWaitTimeSeconds="20")
    assert sqs.service.waits("ReceiveMessage", {"QueueUrl": queue})
    assert not sqs.service.waits("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 0})
    waiting = asyncio.create_task(sqs("ReceiveMessage", QueueUrl=queue))
    await asyncio.sleep(0.01)
    sqs.queues.release()
    assert await waiting == {}


# --- dead letters


async def dead_letters(sqs: Service, attempts: int, suffix: str = "") -> tuple[str, str]:
    dead = await sqs.queue("dead" + suffix)
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead{suffix}", "maxReceiveCount": attempts})
    return await sqs.queue("work" + suffix, RedrivePolicy=policy), dead


async def test_a_message_that_is_received_too_often_becomes_a_dead_letter(sqs: Service) -> None:
    work, dead = await dead_letters(sqs, 2)
    sent = await sqs.send(work, "poison", MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}})
    for _ in range(2):
        assert await sqs.bodies(work, VisibilityTimeout=0) == ["poison"]
    assert await sqs.counts(dead) == (0, 0, 0)
    await sqs.send(work, "neighbour")
    assert await sqs.bodies(work) == ["neighbour"]
    (letter,) = await sqs.receive(dead, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert letter["MessageId"] == sent["MessageId"]
    assert letter["Attributes"] == {
        "SenderId": "000000000000",
        "SentTimestamp": "1700000000000",
        "ApproximateReceiveCount": "3",
        "ApproximateFirstReceiveTimestamp": "1700000000000",
        "DeadLetterQueueSourceArn": f"{ARN}work",
    }
    assert letter["MessageAttributes"] == {"a": {"DataType": "String", "StringValue": "b"}}
    assert (await sqs("ListDeadLetterSourceQueues", QueueUrl=dead))["queueUrls"] == [work]


async def test_a_dead_letter_wakes_who_waits_for_it(sqs: Service) -> None:
    work, dead = await dead_letters(sqs, 1)
    await sqs.send(work, "poison")
    await sqs.receive(work, VisibilityTimeout=0)
    waiting = asyncio.create_task(sqs.bodies(dead, WaitTimeSeconds=20))
    await asyncio.sleep(0.01)
    assert await sqs.receive(work) == []
    assert await waiting == ["poison"]


async def test_without_the_dead_letter_queue_the_message_stays(sqs: Service) -> None:
    work, dead = await dead_letters(sqs, 1)
    await sqs.send(work, "poison")
    await sqs("DeleteQueue", QueueUrl=dead)
    for _ in range(3):
        assert await sqs.bodies(work, VisibilityTimeout=0) == ["poison"]


# --- age


async def test_messages_are_kept_as_long_as_the_queue_says(sqs: Service) -> None:
    queue = await sqs.queue(MessageRetentionPeriod="60", VisibilityTimeout="50")
    await sqs.send(queue, "waits")
    sqs.clock.advance(30)
    await sqs.send(queue, "young")
    sqs.clock.advance(31)
    assert await sqs.bodies(queue) == ["young"]
    assert await sqs.counts(queue) == (0, 1, 0)
    sqs.clock.advance(30)
    assert await sqs.counts(queue) == (0, 0, 0)


async def test_age_counts_in_flight_too_and_is_swept_without_a_receive(sqs: Service) -> None:
    queue = await sqs.queue(MessageRetentionPeriod="60")
    for at in range(120):
        await sqs.send(queue, str(at))
    (message,) = await sqs.receive(queue, 1)
    sqs.clock.advance(61)
    await sqs.queues.expire()
    assert await sqs.counts(queue) == (0, 0, 0)
    await sqs.delete(queue, message)


# --- purge


async def test_a_purge_takes_everything_and_rests_for_a_minute(sqs: Service) -> None:
    queue = await sqs.queue()
    for at in range(3):
        await sqs.send(queue, str(at), DelaySeconds=at)
    (message,) = await sqs.receive(queue, 1)
    await sqs("PurgeQueue", QueueUrl=queue)
    assert await sqs.counts(queue) == (0, 0, 0)
    await sqs.send(queue, "after")
    await sqs.delete(queue, message)
    assert await sqs.bodies(queue) == ["after"]
    text = "Only one PurgeQueue operation on q is allowed every 60 seconds."
    error = await sqs.fails("PurgeQueueInProgress", text, "PurgeQueue", QueueUrl=queue)
    assert error.http_status == 403
    sqs.clock.advance(60)
    await sqs("PurgeQueue", QueueUrl=queue)


async def test_nothing_is_left_of_purged_and_deleted_queues(sqs: Service) -> None:
    queue = await sqs.queue()
    for at in range(30):
        await sqs.send(queue, str(at))
    await sqs("PurgeQueue", QueueUrl=queue)
    await sqs.send(queue, "x")
    await sqs("DeleteQueue", QueueUrl=queue)
    assert sqs.queues._sweeper is not None
    await sqs.queues._sweeper
    left = sqs.queues._store.read(lambda reader: reader.scan(b"\x30queues.", b"\x30queues/"))
    assert [key for key, _ in left] == [b"\x30queues.heaps\x00", b"\x30queues.receipts\x00"]


async def test_too_many_in_flight_are_refused(sqs: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.queues.queues._IN_FLIGHT_MAX", 3)
    queue = await sqs.queue()
    for at in range(5):
        await sqs.send(queue, str(at))
    assert len(await sqs.receive(queue)) == 3
    await sqs.fails("OverLimit", "Too many messages in flight", "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=0)
