"""Where records of changes come from: the store's log for collections, and whoever keeps the streams of DynamoDB tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from martlet.errors import NotFound
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
    """The streams of DynamoDB tables. `records`: at most `limit` of (position in the store's log, ms, key of the item, record
    as GetRecords gives it), and the position behind what was looked at. Raises `NotFound` for a stream that is not there."""

    def records(
        self, stream_arn: str, position: int, limit: int
    ) -> tuple[Sequence[tuple[int, int, bytes, dict[str, Any]]], int]: ...


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

    def __init__(self, streams: StreamRecords, arn: str) -> None:
        self._streams = streams
        self._arn = arn

    def read(self, position: int) -> tuple[Sequence[Record], int]:
        found, after = self._streams.records(self._arn, position, _READ)
        return [stream_record(seq, at_ms, key, record, self._arn) for seq, at_ms, key, record in found], after


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
