"""Where records of changes come from: the store's log for collections, and whoever keeps the streams of DynamoDB tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from martlet.errors import NotFound, ServiceError
from martlet.store import Store
from martlet.triggers.kinds.changes import Record, document_record, stream_record

__all__ = ["CollectionChanges", "Source", "StreamRecords", "TableStream", "position_at"]

_READ = 200  # log entries looked at before others get their turn


class Source(Protocol):
    """Records behind a position of the store's log. Positions grow, and the log is kept from the slowest cursor on."""

    def read(self, position: int) -> tuple[Sequence[Record], int]:
        """The next records, perhaps none, and the position behind what was looked at. Raises `NotFound` for a source that is
        gone, or whose records from there on are no longer kept (details `first`)."""


class StreamRecords(Protocol):
    """The streams of DynamoDB tables, read from the store's log."""

    def records(self, stream: str, position: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
        """At most `limit` records after `position` (of the log), each as GetRecords gives it with its own position, in
        hexadecimal, as eventID; and the position behind what was looked at, None when there will be no more. Raises
        `ServiceError`: ResourceNotFoundException, TrimmedDataAccessException."""


class CollectionChanges:
    """The changes of one collection."""

    def __init__(self, store: Store, database: str, collection: str) -> None:
        self._store = store
        self._database = database
        self._collection = collection

    def read(self, position: int) -> tuple[Sequence[Record], int]:
        entries = self._store.tail(position, _READ)
        found = [document_record(entry, self._database, self._collection) for entry in entries]
        return [record for record in found if record is not None], entries[-1].seq if entries else position


class TableStream:
    """The stream of a DynamoDB table."""

    def __init__(self, streams: StreamRecords, store: Store, arn: str) -> None:
        self._streams = streams
        self._store = store
        self._arn = arn

    def read(self, position: int) -> tuple[Sequence[Record], int]:
        try:
            found, after = self._streams.records(self._arn, position, _READ)
        except ServiceError as error:
            if error.name == "TrimmedDataAccessException":
                raise NotFound(error.message, first=self._store.first) from error
            raise NotFound(error.message) from error
        records = [stream_record(record, self._arn) for record in found]
        return records, max(position, self._store.head) if after is None else max(position, after)


def position_at(store: Store, at_ms: int) -> int:
    """The position before the first entry of the log that is not older than `at_ms`. The log is dense, so it is halved."""
    low, high = store.first, store.head + 1
    while low < high:
        middle = (low + high) // 2
        try:
            entry = store.tail(middle - 1, 1)[0]
        except NotFound:  # trimmed meanwhile
            return store.first - 1
        if entry.at_ms < at_ms:
            low = middle + 1
        else:
            high = middle
    return low - 1
