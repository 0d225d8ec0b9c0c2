"""A message of a topic: what is kept of it, and the forms in which it goes out. Pure.

Sources: SNS developer guide, "Parsing Amazon SNS message formats" and "Verifying the signatures of Amazon SNS messages"; Lambda
developer guide, "Using Lambda with Amazon SNS"; recorded deliveries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from martlet.buses.desk import at

__all__ = [
    "NOTICED",
    "SUBSCRIBED",
    "Notice",
    "attributes_out",
    "confirmation",
    "envelope",
    "function_event",
    "signable",
    "stamp",
]

NOTICED: Final = "topic.published"  # topic of the log entries that are messages
SUBSCRIBED: Final = "topic.subscribed"  # a subscription waits for its confirmation, or ended; key: topic and id, body: "", or
# the token that brings it back


class Notice(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Body (JSON) of a log entry: a message was published. `attributes`: name → (type, value); binary values in base64."""

    topic: str  # name
    id: str
    message: str
    at_ms: int
    subject: str | None = None
    texts: dict[str, str] = {}  # protocol → message, where the sender said so (MessageStructure)
    attributes: dict[str, tuple[str, str]] = {}
    group: str = ""
    deduplication_id: str = ""
    sequence: str = ""
    trace: str = ""  # X-Amzn-Trace-Id of the request; queues get it as AWSTraceHeader

    def text(self, protocol: str) -> str:
        return self.texts.get(protocol, self.message)


def stamp(at_ms: int) -> str:
    """Milliseconds of UTC."""
    return f"{at(at_ms).strftime('%Y-%m-%dT%H:%M:%S')}.{at_ms % 1000:03d}Z"


def attributes_out(notice: Notice) -> dict[str, dict[str, str]]:
    return {name: {"Type": kind, "Value": value} for name, (kind, value) in notice.attributes.items()}


def envelope(notice: Notice, protocol: str, topic_arn: str, unsubscribe: str, signed: Mapping[str, str]) -> str:
    """The JSON that queues and HTTP endpoints get, laid out as the service does. `signed`: SignatureVersion, Signature and
    SigningCertURL; a FIFO topic has none."""
    members: dict[str, Any] = {"Type": "Notification", "MessageId": notice.id}
    if notice.sequence:
        members["SequenceNumber"] = notice.sequence
    members["TopicArn"] = topic_arn
    if notice.subject is not None:
        members["Subject"] = notice.subject
    members |= {"Message": notice.text(protocol), "Timestamp": stamp(notice.at_ms), **signed, "UnsubscribeURL": unsubscribe}
    lines = [f"  {_json(name)} : {_json(value)}" for name, value in members.items()]
    if notice.attributes:
        shown = ",\n".join(f"    {_json(name)} : {_json(value)}" for name, value in attributes_out(notice).items())
        lines.append(f'  "MessageAttributes" : {{\n{shown}\n  }}')
    return "{\n" + ",\n".join(lines) + "\n}"


def confirmation(members: Mapping[str, str]) -> str:
    return "{\n" + ",\n".join(f"  {_json(name)} : {_json(value)}" for name, value in members.items()) + "\n}"


def signable(members: Mapping[str, Any]) -> bytes:
    """What a signature is over: these members in this order, each name and value on a line."""
    if members["Type"] == "Notification":
        names: tuple[str, ...] = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
    else:
        names = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
    return "".join(f"{name}\n{members[name]}\n" for name in names if members.get(name) is not None).encode()


def function_event(body: str, subscription_arn: str) -> bytes:
    """The event of a function, from what a queue would get."""
    found = json.loads(body)
    sns = {
        "Type": found["Type"],
        "MessageId": found["MessageId"],
        "TopicArn": found["TopicArn"],
        "Subject": found.get("Subject"),
        "Message": found["Message"],
        "Timestamp": found["Timestamp"],
        "SignatureVersion": found.get("SignatureVersion"),
        "Signature": found.get("Signature"),
        "SigningCertUrl": found.get("SigningCertURL"),
        "UnsubscribeUrl": found.get("UnsubscribeURL"),
        "MessageAttributes": found.get("MessageAttributes", {}),
    }
    record = {"EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": subscription_arn, "Sns": sns}
    return msgspec.json.encode({"Records": [record]})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
