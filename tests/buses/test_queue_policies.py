"""A queue's own policy decides whether a service may send to it: topics, rules, buckets; and whether a caller may use it."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from tests.buses.platform import ACCOUNT, REGION, Platform, open_to

NOBODY = json.dumps({"Statement": {"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage"}})
ROOT = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
# What the console gives a new queue: it lets no service in.
OWNER = json.dumps({"Statement": {"Effect": "Allow", "Principal": ROOT, "Action": "sqs:*"}})


def heard(platform: Platform, name: str, policy: str) -> tuple[str, str, str]:
    """A topic heard by a queue with `policy`; what that refuses goes to another: (topic, queue, dead letters)."""
    sns = platform.client("sns")
    topic = sns.create_topic(Name=name)["TopicArn"]
    url, queue = platform.queue(name, Policy=policy)
    dead_url, dead = platform.queue(f"{name}-dead")
    given = {"RawMessageDelivery": "true", "RedrivePolicy": json.dumps({"deadLetterTargetArn": dead})}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=given)
    return topic, url, dead_url


REFUSING = {
    "owner": OWNER,
    "nobody": NOBODY,
    "other-service": open_to("*", "events.amazonaws.com"),
    "other-topic": open_to("*", "sns.amazonaws.com", source="arn:aws:sns:*:*:x"),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_topic_sends_only_to_queues_that_let_it(platform: Platform, name: str) -> None:
    topic, url, dead = heard(platform, name, REFUSING[name])
    platform.client("sns").publish(TopicArn=topic, Message="out")
    assert [one["Body"] for one in platform.messages(dead, 1)] == ["out"]
    assert platform.nothing(url)


def test_a_policy_that_is_mended_lets_the_next_message_in(platform: Platform) -> None:
    topic, url, dead = heard(platform, "mended", NOBODY)
    platform.client("sns").publish(TopicArn=topic, Message="one")
    assert len(platform.messages(dead, 1)) == 1
    right = {"Policy": open_to("*", "sns.amazonaws.com", source=topic)}
    platform.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=right)
    platform.client("sns").publish(TopicArn=topic, Message="two")
    assert [one["Body"] for one in platform.messages(url, 1)] == ["two"]


def test_a_rule_sends_only_to_queues_that_let_it(platform: Platform) -> None:
    events = platform.client("events")
    rule = events.put_rule(Name="asks", EventPattern=json.dumps({"source": ["asks"]}))["RuleArn"]
    open_url, open_arn = platform.queue("asks-open", Policy=open_to("*", "events.amazonaws.com", source=rule))
    shut_url, shut_arn = platform.queue("asks-shut", Policy=open_to("*", "events.amazonaws.com", source=f"{rule}x"))
    dead_url, dead_arn = platform.queue("asks-dead")
    targets = [
        {"Id": name, "Arn": arn, "DeadLetterConfig": {"Arn": dead_arn}} for name, arn in (("a", open_arn), ("b", shut_arn))
    ]
    events.put_targets(Rule="asks", Targets=targets)
    events.put_events(Entries=[{"Source": "asks", "DetailType": "t", "Detail": "{}"}])
    (letter,) = platform.messages(dead_url, 1)
    assert letter["MessageAttributes"]["TARGET_ARN"]["StringValue"] == shut_arn
    assert "does not let events.amazonaws.com" in letter["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]
    assert len(platform.messages(open_url, 1)) == 1
    assert platform.nothing(shut_url)


def test_a_bucket_is_refused_a_queue_that_does_not_let_it(platform: Platform) -> None:
    s3 = platform.client("s3")
    s3.create_bucket(Bucket="asks-queues")
    _, shut = platform.queue("shut", Policy=OWNER)
    url, let = platform.queue("let", Policy=open_to("*", "s3.amazonaws.com", source="arn:aws:s3:*:*:asks-queues"))

    def notify(arn: str) -> None:
        told: Any = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
        s3.put_bucket_notification_configuration(Bucket="asks-queues", NotificationConfiguration=told)

    with pytest.raises(ClientError, match="Unable to validate the following destination configurations"):
        notify(shut)
    notify(let)
    s3.put_object(Bucket="asks-queues", Key="k", Body=b"1")
    assert {json.loads(one["Body"]).get("Event") for one in platform.messages(url, 2)} == {"s3:TestEvent", None}


def test_callers(platform: Platform) -> None:
    """An Allow by name is enough, the account's name is not; a Deny binds everybody, and its owner can take it away."""
    made = platform.client("iam")
    made.create_user(UserName="sender")
    key = made.create_access_key(UserName="sender")["AccessKey"]
    sender: Any = boto3.client(
        "sqs",
        endpoint_url=platform.url,
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    owner = platform.client("sqs")
    url, arn = platform.queue("asked", Policy=OWNER)
    with pytest.raises(ClientError, match="not authorized"):
        sender.send_message(QueueUrl=url, MessageBody="1")
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/sender"},
        "Action": "SQS:SendMessage",
        "Resource": arn,
        "Condition": {"Bool": {"aws:SecureTransport": "true"}},
    }
    owner.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Statement": [statement]})})
    sender.send_message(QueueUrl=url, MessageBody="2")
    with pytest.raises(ClientError, match="not authorized"):
        sender.receive_message(QueueUrl=url)
    owner.set_queue_attributes(QueueUrl=url, Attributes={"Policy": NOBODY})
    for client in (owner, sender):
        with pytest.raises(ClientError, match="deny") as caught:
            client.send_message(QueueUrl=url, MessageBody="3")
        assert caught.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")
    owner.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    owner.send_message(QueueUrl=url, MessageBody="4")
    with pytest.raises(ClientError, match="not authorized"):
        sender.send_message(QueueUrl=url, MessageBody="5")
    assert [one["Body"] for one in platform.messages(url, 2)] == ["2", "4"]


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "Action": "sqs:*"},
        {"Effect": "Perhaps", "Principal": "*", "Action": "sqs:*"},
        {"Effect": "Allow", "Principal": {"Everybody": "*"}, "Action": "sqs:*"},
        {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Condition": {"StringSounds": {"aws:SourceArn": "x"}}},
        {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Condition": {"StringLike": "x"}},
    ],
)
def test_what_could_not_be_decided_is_no_policy(platform: Platform, statement: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        platform.queue("undecided", Policy=json.dumps({"Statement": [statement]}))
    assert caught.value.response["Error"]["Code"] == "InvalidAttributeValue"
