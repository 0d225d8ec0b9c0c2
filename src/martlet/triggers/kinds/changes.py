"""Changes of documents: which records make an event, what that event looks like, and what a function's answer says. Pure.

A function behind `@app.on(orders.changed)` gets records of the change feed, in commit order for each document:

    {"Records": [{"eventSource": "martlet:documents", "seq": "812", "at_ms": 1790000000000, "operation": "put",
                  "database": "shop", "collection": "orders", "id": "7", "version": 3, "ts": 1790000000000001,
                  "value": {...}, "old": {...}}]}

`seq` grows in commit order and names the record in {"batchItemFailures": [{"itemIdentifier": seq}]}; `operation` is put, delete
or expire; `value` and `old` are there as the collection's `changes` says. Event source mappings to a stream of a DynamoDB table
get its records in the shape that Lambda documents ("Using AWS Lambda with Amazon DynamoDB").

Sources: Lambda developer guide, "How Lambda processes records from stream and queue-based event sources", "Retain discarded
batches" (the record for a destination), "Partial batch responses".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.documents import TOPIC
from martlet.store import LogEntry
from martlet.triggers.patterns import Matches

__all__ = ["Record", "batch_bytes", "document_record", "failed_from", "lets_through", "letter", "payload", "stream_record"]

_FRAME: Final = len(b'{"Records":[]}')


class Record(msgspec.Struct, frozen=True):
    """One change. Records of one `key` are given to functions one after the other, in order of `seq`."""

    seq: int  # position in its source
    at_ms: int
    key: bytes
    name: str  # by which a function's answer names it
    body: bytes  # JSON, as functions see it


class _Place(msgspec.Struct):
    database: str
    collection: str


_PLACE: Final = msgspec.json.Decoder(_Place).decode


def document_record(entry: LogEntry, database: str, collection: str) -> Record | None:
    """The record of a log entry; None if it is no change of this collection."""
    if entry.topic != TOPIC:
        return None
    place = _PLACE(entry.body)
    if place.collection != collection or place.database != database:
        return None
    head = b'{"eventSource":"martlet:documents","seq":"%d","at_ms":%d,' % (entry.seq, entry.at_ms)
    return Record(entry.seq, entry.at_ms, entry.key, str(entry.seq), head + entry.body[1:])


def stream_record(record: dict[str, Any], arn: str) -> Record:
    """The record of a DynamoDB stream (as GetRecords gives it; its eventID is the position in hexadecimal) for a function."""
    told = record["dynamodb"]
    created = told.get("ApproximateCreationDateTime", 0)
    at_ms = int((created.timestamp() if isinstance(created, datetime) else created) * 1000)
    body = msgspec.json.encode({**record, "eventSourceARN": arn}, enc_hook=_stream_value)
    key = msgspec.json.encode(told.get("Keys", {}), enc_hook=_stream_value)
    return Record(int(record["eventID"], 16), at_ms, key, str(told["SequenceNumber"]), body)


def _stream_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{type(value).__name__} has no form in an event")


def lets_through(record: Record, filters: Sequence[Matches]) -> bool:
    """Whether one of the filters matches the record; none at all let everything through."""
    if not filters:
        return True
    seen = json.loads(record.body)
    return any(test(seen) for test in filters)


def batch_bytes(record: Record) -> int:
    """What the record adds to an event."""
    return len(record.body) + 1


def payload(records: Sequence[Record]) -> bytes:
    """The event of these records."""
    return b'{"Records":[' + b",".join([record.body for record in records]) + b"]}"


def failed_from(answer: bytes, records: Sequence[Record]) -> int | None:
    """Place of the first record that is to come again, by a function's answer; None: none is. An answer that is malformed or
    names an unknown record means all of them."""
    try:
        said = json.loads(answer or b"null")
    except (ValueError, RecursionError):
        return 0
    if said in (None, [], ""):
        return None
    if not isinstance(said, dict):
        return 0
    failures = said.get("batchItemFailures")
    if failures is None:
        return None
    if not isinstance(failures, list):
        return 0
    places = {record.name: place for place, record in enumerate(records)}
    found = [places.get(one.get("itemIdentifier", "")) if isinstance(one, dict) else None for one in failures]
    known = [place for place in found if place is not None]
    if len(known) < len(found):
        return 0
    return min(known, default=None)


def letter(
    records: Sequence[Record],
    *,
    source_arn: str,
    function_arn: str,
    request_id: str,
    condition: str,
    attempts: int,
    error_type: str,
    now_ms: int,
) -> bytes:
    """What a destination gets of a batch that is given up. Beside Lambda's members it holds the records themselves
    ("payload"): the log that they came from is trimmed."""
    first, last = records[0], records[-1]
    info = {
        "shardId": "shardId-00000000000000000000-00000000",
        "startSequenceNumber": first.name,
        "endSequenceNumber": last.name,
        "approximateArrivalOfFirstRecord": _instant(first.at_ms),
        "approximateArrivalOfLastRecord": _instant(last.at_ms),
        "batchSize": len(records),
        "streamArn": source_arn,
    }
    response: dict[str, Any] = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": error_type or "Unhandled"}
    return msgspec.json.encode(
        {
            "requestContext": {
                "requestId": request_id,
                "functionArn": function_arn,
                "condition": condition,
                "approximateInvokeCount": attempts,
            },
            "responseContext": response if attempts else {},
            "version": "1.0",
            "timestamp": _instant(now_ms),
            "DDBStreamBatchInfo" if ":dynamodb:" in source_arn else "documentBatchInfo": info,
            "payload": msgspec.Raw(payload(records)),
        }
    )


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
