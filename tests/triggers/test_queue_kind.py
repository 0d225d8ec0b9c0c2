"""The event that messages make, filters on it, and what an answer says of its messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from martlet.queues import Received
from martlet.queues.rows import Message, Value
from martlet.triggers.kinds.queue import failed_of, lets_through, payloads, record_of
from martlet.triggers.mappings import compiled

ARN = "arn:aws:sqs:us-east-1:000000000000:q"


def received(body: str = "hello", **more: Any) -> Received:
    message = Message(id="id-1", body=body, sender="000000000000", visible_at_ms=0, **more)
    return Received(
        message, "handle", 1_700_000_000_000, more.get("group", "") and "18849496460467696384", 2, 1_700_000_000_500
    )


def test_a_message_as_functions_see_it() -> None:
    attributes = {"Author": Value("String", "John Grisham"), "raw": Value("Binary", b"\x00\xff")}
    assert record_of(received(attributes=attributes), ARN, "us-east-1") == {
        "messageId": "id-1",
        "receiptHandle": "handle",
        "body": "hello",
        "attributes": {
            "ApproximateReceiveCount": "2",
            "SentTimestamp": "1700000000000",
            "SenderId": "000000000000",
            "ApproximateFirstReceiveTimestamp": "1700000000500",
        },
        "messageAttributes": {
            "Author": {"stringValue": "John Grisham", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "raw": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfMessageAttributes": record_of(received(attributes=attributes), ARN, "")["md5OfMessageAttributes"],
        "md5OfBody": "5d41402abc4b2a76b9719d911017c592",
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "us-east-1",
    }


def test_a_fifo_queue_s_message_says_its_group_and_number() -> None:
    attributes = record_of(received(group="g", deduplication_id="d", trace="Root=1"), ARN, "us-east-1")["attributes"]
    assert {
        key: attributes[key] for key in ("MessageGroupId", "MessageDeduplicationId", "SequenceNumber", "AWSTraceHeader")
    } == {
        "MessageGroupId": "g",
        "MessageDeduplicationId": "d",
        "SequenceNumber": "18849496460467696384",
        "AWSTraceHeader": "Root=1",
    }


@pytest.mark.parametrize(
    ("pattern", "body", "through"),
    [
        ({"body": {"n": [{"numeric": [">", 1]}]}}, '{"n": 2}', True),
        ({"body": {"n": [{"numeric": [">", 1]}]}}, '{"n": 1}', False),
        ({"body": {"n": [1]}}, "plain", False),  # JSON is asked for, and this is none
        ({"body": {"n": [1]}}, "[1]", False),
        ({"body": ["plain"]}, "plain", True),
        ({"body": [{"prefix": "pl"}]}, "plain", True),
        ({"body": ["plain"]}, "other", False),
        ({"body": [{"exists": True}]}, '{"n": 1}', False),  # text is asked for, and this is JSON
        ({"messageAttributes": {"a": {"stringValue": ["x"]}}}, "plain", True),
        ({"eventSource": ["aws:sqs"]}, "{}", True),
    ],
)
def test_filters_on_a_message(pattern: Any, body: str, through: bool) -> None:
    record = record_of(received(body, attributes={"a": Value("String", "x")}), ARN, "us-east-1")
    assert lets_through(record, compiled([json.dumps(pattern)])) is through
    assert lets_through(record, [])
    both = compiled([json.dumps({"body": ["never"]}), json.dumps(pattern)])
    assert lets_through(record, both) is through


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("null", set()),
        ("", set()),
        ("{}", set()),
        ("[]", set()),
        ('""', set()),
        ('{"batchItemFailures": []}', set()),
        ('{"batchItemFailures": null}', set()),
        ('{"statusCode": 200}', set()),
        ('{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        ('{"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "a"}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifier": "x"}]}', {"a", "b", "c"}),
        ('{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b", "c"}),
        ('{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b", "c"}),
        ('{"batchItemFailures": [{"foo": "notvalid"}]}', {"a", "b", "c"}),
        ('{"batchItemFailures": ["a"]}', {"a", "b", "c"}),
        ('{"batchItemFailures": {"itemIdentifier": "a"}}', {"a", "b", "c"}),
        ('"text"', {"a", "b", "c"}),
        ("not json", {"a", "b", "c"}),
        ("[" * 100_000, {"a", "b", "c"}),
    ],
)
def test_what_an_answer_reports(answer: str, failed: set[str]) -> None:
    assert failed_of(answer.encode(), ["a", "b", "c"]) == failed


def test_events_are_cut_at_the_limit_of_a_payload() -> None:
    records = [{"n": "x" * 100} for _ in range(10)]
    made = payloads(records, 350)
    assert [count for _, count in made] == [3, 3, 3, 1]
    assert all(len(payload) <= 350 for payload, _ in made)
    assert [json.loads(payload)["Records"] for payload, _ in made] == [records[:3], records[3:6], records[6:9], records[9:]]
    assert payloads(records[:1], 10)[0][1] == 1
