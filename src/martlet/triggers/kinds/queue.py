"""Queues: which messages make an event, what that event looks like, and what a function's answer says of them. Pure.

Sources: Lambda developer guide, "Using Lambda with Amazon SQS" (event shape, partial batch responses, filtering).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from martlet.queues import Received
from martlet.queues.messages import attributes_md5, md5
from martlet.queues.sqs import system_attributes
from martlet.triggers.patterns import Matches

__all__ = ["failed_of", "lets_through", "payloads", "record_of"]

_FRAME: Final = len(b'{"Records":[]}')


def record_of(received: Received, arn: str, region: str) -> dict[str, Any]:
    """One message as Lambda's functions see it."""
    message = received.message
    attributes: dict[str, Any] = {}
    for name, value in message.attributes.items():
        kept: dict[str, Any] = {"dataType": value.type, "stringListValues": [], "binaryListValues": []}
        if isinstance(value.data, str):
            kept["stringValue"] = value.data
        else:
            kept["binaryValue"] = base64.b64encode(value.data).decode()
        attributes[name] = kept
    record = {
        "messageId": message.id,
        "receiptHandle": received.handle,
        "body": message.body,
        "attributes": system_attributes(received),
        "messageAttributes": attributes,
    }
    digest = attributes_md5(message.attributes)
    if digest is not None:
        record["md5OfMessageAttributes"] = digest
    return record | {
        "md5OfBody": md5(message.body),
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": region,
    }


def lets_through(record: dict[str, Any], filters: Sequence[tuple[str, Matches]]) -> bool:
    """Whether one of the filters matches; none at all let everything through. Each is (form of its body, its test), see
    `body_form`: what the pattern asks of the body and what the body is must agree, JSON or text, else it does not match."""
    if not filters:
        return True
    body: Any = _json_body(record["body"])
    for form, test in filters:
        if form == "json" and body is None:
            continue
        if form == "text" and body is not None:
            continue
        if test(record | {"body": body} if form == "json" else record):
            return True
    return False


def body_form(pattern: dict[str, Any]) -> str:
    """What a pattern takes a message's body for: "json" (an object below "body"), "text" (an array), "" for no matter."""
    body = pattern.get("body")
    return "json" if isinstance(body, dict) else "text" if isinstance(body, list) else ""


def _json_body(text: str) -> Any:
    """The body as a JSON object; None if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def payloads(records: Sequence[dict[str, Any]], most_bytes: int) -> list[tuple[bytes, int]]:
    """The events that these records make, in order: (JSON, number of records), as few as fit into `most_bytes` each."""
    made: list[tuple[bytes, int]] = []
    parts: list[bytes] = []
    size = _FRAME
    for record in records:
        raw = msgspec.json.encode(record)
        if parts and size + len(raw) + 1 > most_bytes:
            made.append((b'{"Records":[' + b",".join(parts) + b"]}", len(parts)))
            parts, size = [], _FRAME
        parts.append(raw)
        size += len(raw) + 1
    if parts:
        made.append((b'{"Records":[' + b",".join(parts) + b"]}", len(parts)))
    return made


def failed_of(payload: bytes, ids: Sequence[str]) -> set[str]:
    """Message ids that a function's answer reports as failed. An answer that says nothing reports none; one that is malformed,
    or names an unknown id, reports them all."""
    everything = set(ids)
    try:
        answer = json.loads(payload or b"null")
    except (ValueError, RecursionError):
        return everything
    if answer in (None, [], ""):
        return set()
    if not isinstance(answer, dict):
        return everything
    failures = answer.get("batchItemFailures")
    if failures is None:  # an answer that speaks of something else altogether is a success
        return set()
    if not isinstance(failures, list):
        return everything
    failed: set[str] = set()
    for failure in failures:
        id = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not isinstance(id, str) or id not in everything:
            return everything
        failed.add(id)
    return failed
