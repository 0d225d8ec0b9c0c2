"""The change feed: what happened to a collection or a database, in commit order, from a cursor on.

It is the store's log, read behind a position that the reader keeps: nothing is written for it, and any number may follow. What
the log no longer holds (see the store's retention) is gone for the feed too; a cursor from before that is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Literal

import msgspec

from martlet.documents.catalog import check_name, check_path
from martlet.documents.cursors import Cursor, Signer, digest
from martlet.documents.documents import Documents
from martlet.documents.transaction import TOPIC
from martlet.documents.usage import Usage
from martlet.errors import InvalidInput, NotFound
from martlet.limits import LIMITS
from martlet.store import LogEntry

__all__ = ["Changed", "Changes", "changes", "follow"]

_READ: Final = 200  # log entries looked at before others get their turn
_LOOK: Final = 5_000  # log entries looked at for one page
_PAGE_BYTES: Final = LIMITS["document_page_bytes"].default
_LIMIT_MOST: Final = LIMITS["changes_page"].default
_WAIT_MOST_SECONDS: Final = 60.0


class _Place(msgspec.Struct):
    """The part of a change that says whose it is."""

    database: str
    collection: str


_PLACE: Final = msgspec.json.Decoder(_Place).decode


class Changed(msgspec.Struct, frozen=True):
    """One change: `body` is `transaction.Change` as JSON. `cursor` goes on after it."""

    seq: int  # of the log: grows in commit order
    at_ms: int
    cursor: str
    body: bytes


class Changes(msgspec.Struct, frozen=True):
    """A page of a feed. `cursor` is always given: a feed has no end, only a newest entry."""

    changes: list[Changed]
    cursor: str
    behind: int  # log entries, of any kind, between the cursor and the newest


async def changes(
    room: Documents,
    database: str,
    collection: str = "",
    *,
    cursor: str = "",
    start: Literal["now", "oldest"] = "now",
    limit: int = 100,
    wait_seconds: float = 0.0,
) -> Changes:
    """One page after `cursor` (without one: from `start` on) of one collection, or of all. With `wait_seconds` an empty page is
    held back until there is a change. Raises `InvalidInput` (a forged cursor), `NotFound` (what follows it is trimmed)."""
    if not 1 <= limit <= _LIMIT_MOST:
        raise InvalidInput(f"limit {limit}: allowed is 1 to {_LIMIT_MOST}", field="limit")
    if not 0 <= wait_seconds <= _WAIT_MOST_SECONDS:
        raise InvalidInput(f"wait_seconds {wait_seconds}: allowed is 0 to {_WAIT_MOST_SECONDS:.0f}", field="wait_seconds")
    reader = await _Reader.open(room, database, collection, cursor, start)
    found = await reader.read(limit)
    if not found and wait_seconds:
        try:
            async with asyncio.timeout(wait_seconds):
                while not found:
                    await room.store.wait(reader.position)
                    found = await reader.read(limit)
        except TimeoutError:
            pass  # an empty page says so
    return Changes(found, reader.cursor(reader.position), max(room.store.head - reader.position, 0))


async def follow(
    room: Documents, database: str, collection: str = "", *, cursor: str = "", start: Literal["now", "oldest"] = "now"
) -> AsyncIterator[Changed]:
    """Every change after `cursor`, as it comes, without end. Raises as `changes`, and the store's errors."""
    reader = await _Reader.open(room, database, collection, cursor, start)
    while True:
        for change in await reader.read(_LIMIT_MOST):
            yield change
        if reader.position >= room.store.head:
            await room.store.wait(reader.position)


class _Reader:
    """A position in the log, and what of it is asked for."""

    def __init__(self, room: Documents, database: str, collection: str) -> None:
        check_path(database)
        if collection:
            check_name("collection", collection)
        self._room = room
        self._database = database
        self._collection = collection
        self._of = digest("changes", database, collection)
        self._signer: Signer
        self.position = 0

    @classmethod
    async def open(cls, room: Documents, database: str, collection: str, cursor: str, start: str) -> _Reader:
        reader = cls(room, database, collection)
        reader._signer = await room.signer()
        store = room.store
        if cursor:
            reader.position = reader._signer.open(cursor, "changes", reader._of).at
            if reader.position > store.head:  # of a store that was put back to an older state
                raise InvalidInput("the cursor is of a later state than this store has", field="cursor")
        else:
            reader.position = store.head if start == "now" else store.first - 1
        return reader

    def cursor(self, at: int) -> str:
        return self._signer.seal(Cursor("changes", self._of, at))

    async def read(self, limit: int) -> list[Changed]:
        """The next changes, at most `limit` and about a page of bytes; the position moves behind what was looked at."""
        found: list[Changed] = []
        looked_at = size = 0
        while looked_at < _LOOK and self.position < self._room.store.head:
            for entry in self._tail():
                if self._wanted(entry):
                    if len(found) >= limit or size > _PAGE_BYTES:
                        return self._counted(found)
                    found.append(Changed(entry.seq, entry.at_ms, self.cursor(entry.seq), entry.body))
                    size += len(entry.body)
                self.position = entry.seq
                looked_at += 1
            await asyncio.sleep(0)
            if found:
                break
        return self._counted(found)

    def _counted(self, found: list[Changed]) -> list[Changed]:
        if found:
            used = Usage()
            for change in found:
                used.read(len(change.body))
            self._room.account(self._database, used)
        return found

    def _tail(self) -> list[LogEntry]:
        try:
            return self._room.store.tail(self.position, _READ)
        except NotFound as error:
            raise NotFound(
                "the changes after this cursor are no longer kept",
                remedy="read the collection, and follow from `now`",
                **error.details,
            ) from error

    def _wanted(self, entry: LogEntry) -> bool:
        if entry.topic != TOPIC:
            return False
        place = _PLACE(entry.body)
        return place.database == self._database and self._collection in ("", place.collection)
