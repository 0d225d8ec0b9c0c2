"""Canonical events for `martlet invoke --event`."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest

from martlet.cli import arguments, events


@pytest.mark.parametrize("kind", sorted(events.EVENTS))
def test_every_event_is_plain_json_and_new_each_time(kind: str) -> None:
    found = events.event(kind)
    assert json.loads(json.dumps(found)) == found
    assert isinstance(found, dict)


def test_the_help_names_every_kind() -> None:
    assert tuple(sorted(events.EVENTS)) == arguments._EVENTS


def test_what_is_derived_is_right() -> None:
    (record,) = events.event("sqs")["Records"]
    assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
    said = json.loads(gzip.decompress(base64.b64decode(events.event("logs")["awslogs"]["data"])))
    assert said["logEvents"][0]["message"] == "hello"
    context = events.event("apigw")["requestContext"]
    assert context["identity"]["accessKey"] is None
    assert "size" not in events.event("s3-delete")["Records"][0]["s3"]["object"]


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("Records.0.body=hello", ("Records", 0, "body"), "hello"),
        ("Records.0.body=7", ("Records", 0, "body"), "7"),  # a text stays a text
        ('Records.0.body={"a":1}', ("Records", 0, "body"), '{"a":1}'),
        ("Records.0.body.order=7", ("Records", 0, "body"), '{"hello":"world","order":7}'),
        ("Records.0.attributes.MessageGroupId=g", ("Records", 0, "attributes", "MessageGroupId"), "g"),
        ("new=[1]", ("new",), [1]),
        ("Records.0.awsRegion=a=b", ("Records", 0, "awsRegion"), "a=b"),
    ],
)
def test_assign(text: str, path: tuple[object, ...], expected: object) -> None:
    found = events.event("sqs")
    events.assign(found, text)
    value: object = found
    for part in path:
        value = value[part]  # type: ignore[index]
    assert value == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is not PATH=VALUE"),
        ("x", "is not PATH=VALUE"),
        ("=1", "is not PATH=VALUE"),
        ("Records.1.body=1", "there are 1 in the list"),
        ("Records.x=1", "'x' is none of them"),
        ("none.a=1", "'none' is not there"),
        ("Records.0.awsRegion.a=1", "'awsRegion' is a text"),
        ("Records.0.body.hello.x=1", "'hello' is a text"),
    ],
)
def test_what_is_not_there_is_named(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        events.assign(events.event("sqs"), text)
