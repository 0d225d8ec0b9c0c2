"""Streams of tables: the store's change log, read for one table from a position on.

A stream is what the log holds of its table between two entries; it has one shard, and a record's sequence number is its entry's
number in the log. Nothing is written for readers. Records are kept as long as the log is, a day."""

from __future__ import annotations

import base64
import re
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb.descriptions import stream_arn
from martlet.documents.dynamodb.failures import validation
from martlet.documents.dynamodb.tables import Catalog, StreamRecord, TableRecord, numbered
from martlet.documents.transaction import TOPIC
from martlet.errors import NotFound, ServiceError
from martlet.store import LogEntry, Store
from martlet.types import ACCOUNT

__all__ = ["Streams", "sequence", "shard_id"]

_READ: Final = 500  # log entries looked at in one go
_LOOK: Final = 5_000  # log entries looked at for one answer
_ANSWER_BYTES: Final = 1_048_576
_ITERATOR_MS: Final = 900_000
_FIRST: Final = 10**20


class _Body(msgspec.Struct):
    """What `writing` put into the log."""

    operation: str
    event: str
    id: Any
    size: int
    value: Any = None
    old: Any = None


class _Position(msgspec.Struct, array_like=True):
    """What a shard iterator says."""

    stream: str
    after: int
    at_ms: int


_BODY: Final = msgspec.json.Decoder(_Body).decode
_POSITION: Final = msgspec.json.Decoder(_Position).decode
_ARN: Final = re.compile(r"arn:aws:dynamodb:[^:]*:[0-9]{12}:table/[^/]+/stream/[0-9T:.-]+")


def sequence(seq: int) -> str:
    return str(_FIRST + seq)


def shard_id(stream: StreamRecord, number: int) -> str:
    return f"shardId-{stream.created_at_ms:020d}-{number:08x}"


class Streams:
    """Reads for the service "dynamodbstreams", and for whoever follows a stream inside the platform."""

    def __init__(self, store: Store, catalog: Catalog, region: str) -> None:
        self._store = store
        self._catalog = catalog
        self._region = region

    def find(self, arn: str) -> tuple[TableRecord, StreamRecord]:
        """Raises ResourceNotFoundException."""
        head, _, label = arn.partition("/stream/")
        prefix, _, name = head.partition(":table/")
        if prefix == f"arn:aws:dynamodb:{self._region}:{ACCOUNT}":
            table = self._store.read(lambda reader: self._catalog.table(reader, name))
            for stream in table.record.streams if table is not None else ():
                if stream.label == label and table is not None:
                    return table.record, stream
        if not _ARN.fullmatch(arn):
            raise validation(f"Invalid StreamArn: {arn}")
        raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")

    def oldest(self, stream: StreamRecord) -> int:
        """The position before the oldest record that may be there."""
        return max(stream.after, self._store.first - 1)

    def newest(self, stream: StreamRecord) -> int:
        return min(self._store.head, stream.until) if stream.until else self._store.head

    def records(self, stream: str, position: int, limit: int = 1_000) -> tuple[list[dict[str, Any]], int | None]:
        """At most `limit` records of the stream (its ARN) after `position` (0: from the oldest), and the position after them;
        None if the stream is closed and there will be no more. Raises `ServiceError`: ResourceNotFoundException,
        TrimmedDataAccessException."""
        table, record = self.find(stream)
        after = max(position, record.after)
        prefix = numbered(b"Yi", table.number)
        end = self.newest(record)
        found: list[dict[str, Any]] = []
        looked_at = size = 0
        while after < end and looked_at < _LOOK and len(found) < limit and size < _ANSWER_BYTES:
            for entry in self._tail(after, min(_READ, end - after)):
                if entry.seq > end or len(found) >= limit or size >= _ANSWER_BYTES:
                    break
                after = entry.seq
                looked_at += 1
                if entry.topic == TOPIC and entry.key.startswith(prefix):
                    found.append(self._shown(entry, record.view, f"{stream}"))
                    size += len(entry.body)
        ended = bool(record.until) and after >= record.until
        return found, None if ended else after

    def _tail(self, after: int, most: int) -> list[LogEntry]:
        try:
            return self._store.tail(after, most)
        except NotFound as error:
            text = "The operation attempted to read past the oldest stream record in a shard."
            raise ServiceError("TrimmedDataAccessException", text) from error

    def _shown(self, entry: LogEntry, view: str, stream: str) -> dict[str, Any]:
        body = _BODY(entry.body)
        told: dict[str, Any] = {
            "ApproximateCreationDateTime": entry.at_ms // 1000,
            "Keys": _item(body.id),
            "SequenceNumber": sequence(entry.seq),
            "SizeBytes": body.size,
            "StreamViewType": view,
        }
        if body.value is not None:
            told["NewImage"] = _item(body.value)
        if body.old is not None:
            told["OldImage"] = _item(body.old)
        record: dict[str, Any] = {
            "eventID": f"{entry.seq:032x}",
            "eventName": body.event,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": self._region,
            "dynamodb": told,
        }
        if body.operation == "expire":
            record["userIdentity"] = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
        return record

    # iterators

    def iterator(self, stream: str, after: int, now_ms: int) -> str:
        raw = msgspec.json.encode(_Position(stream, after, now_ms))
        return f"{stream}|1|{base64.b64encode(raw).decode()}"

    def position(self, iterator: str, now_ms: int) -> tuple[str, int]:
        """(stream, position) of a shard iterator."""
        try:
            found = _POSITION(base64.b64decode(iterator.rpartition("|")[2], validate=True))
        except (ValueError, msgspec.MsgspecError):
            raise validation("Invalid ShardIterator") from None
        if not iterator.startswith(f"{found.stream}|"):  # what its reader was allowed is the stream in front
            raise validation("Invalid ShardIterator")
        if found.at_ms + _ITERATOR_MS < now_ms:
            raise ServiceError("ExpiredIteratorException", "Iterator expired")
        return found.stream, found.after

    # descriptions

    def listed(self, name: str, after: str, most: int) -> tuple[list[dict[str, Any]], str]:
        """A page of streams, of one table or of all, and the ARN to go on after."""
        if after and not _ARN.fullmatch(after):
            raise validation(f"Invalid ExclusiveStartStreamArn: {after}")
        found: list[dict[str, Any]] = []
        low = b"Yt" + name.encode() if name else b"Yt"
        high = low + b"\x00" if name else b"Yu"
        rows = self._store.read(lambda reader: reader.scan(low, high, limit=100_000))
        for _, raw in rows:
            record = self._catalog.compiled(raw).record
            for stream in record.streams:
                arn = stream_arn(self._region, record.name, stream.label)
                found.append({"StreamArn": arn, "TableName": record.name, "StreamLabel": stream.label})
        found.sort(key=lambda one: one["StreamArn"])
        if after:
            found = [one for one in found if one["StreamArn"] > after]
        return found[:most], found[most - 1]["StreamArn"] if len(found) > most else ""


def _item(value: Any) -> dict[str, Any]:
    """An item from the log: bytes were written as base64."""
    return {name: _value(one) for name, one in value.items()}


def _value(value: dict[str, Any]) -> dict[str, Any]:
    for kind, content in value.items():
        if kind == "B":
            return {kind: base64.b64decode(content)}
        if kind == "BS":
            return {kind: [base64.b64decode(one) for one in content]}
        if kind == "M":
            return {kind: _item(content)}
        if kind == "L":
            return {kind: [_value(one) for one in content]}
    return value
