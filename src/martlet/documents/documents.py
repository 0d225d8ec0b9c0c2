"""The room's face: `Documents`, over one store."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec

from martlet.clock import Clock, token_hex
from martlet.documents import definitions, layout
from martlet.documents.catalog import Catalog, CollectionConfig, CollectionRecord, DatabaseRecord, check_name, check_path
from martlet.documents.cursors import Cursor, Signer
from martlet.documents.housekeeping import Housekeeping
from martlet.documents.layout import numbered, pack_long, stats_of, unpack_long
from martlet.documents.migrate import migrate
from martlet.documents.order import Id, encode_term
from martlet.documents.query import Page, Plan, Query, Slice
from martlet.documents.transaction import Transaction
from martlet.documents.usage import Usage
from martlet.documents.view import Document, Version, View, document, read_id
from martlet.errors import Conflict, InvalidInput
from martlet.limits import LIMITS, exceeded
from martlet.store import Store, Tx

__all__ = ["CollectionStatus", "Documents", "IndexStatus"]

T = TypeVar("T")
_Listed = tuple[list[Document], str | None]
_Items = list[Document]
_Versions = list[Version]
_Databases = list[DatabaseRecord]
_Statuses = list["CollectionStatus"]

_LIST_MAX: Final = 1000
_SLICE: Final = 200  # documents looked at before others get their turn
_SCAN_MOST: Final = LIMITS["query_scan_documents"].default
_SORT_MOST: Final = LIMITS["query_sort_documents"].default
_PAGE_BYTES: Final = LIMITS["document_page_bytes"].default
_KEY: Final = re.compile(r"[\x21-\x7e]+")


class IndexStatus(msgspec.Struct, frozen=True):
    """An index for its owner. `done` of `documents`: while it is built. `reason`: why that failed."""

    name: str
    status: str
    done: int
    documents: int
    reason: str


class CollectionStatus(msgspec.Struct, frozen=True):
    """A collection for its owner: `bytes` of the documents alone."""

    database: str
    name: str
    created_at_ms: int
    documents: int
    bytes: int
    config: CollectionConfig
    indexes: list[IndexStatus]


class Documents:
    """JSON documents in collections of a database (an app's name, or one inside it). Reads see every acknowledged write.

    `record` gets (database, usage) for each request. `exclusive`: no other process writes to this store, so that what is known
    of collections need not be read each time. `start` brings old data into the present layout and runs what goes on in the
    background (index builds, expiry, removal of old history); without it nothing of that happens by itself."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        record: Callable[[str, Usage], None] | None = None,
        holder: str = "",
        exclusive: bool = True,
    ) -> None:
        self.store = store
        self._clock = clock
        self._record = record
        self._catalog = Catalog((lambda: store.generation) if exclusive else None)
        self._pins: dict[int, list[int]] = {}
        self._signer: Signer | None = None
        self.housekeeping = Housekeeping(store, clock, self._catalog, self._pinned, holder or token_hex(8))

    async def start(self) -> None:
        """Migrate, then begin the work in the background."""
        await migrate(self.store, self._catalog)
        await self.signer()
        self.housekeeping.start()

    async def stop(self) -> None:
        await self.housekeeping.stop()

    # single documents

    def get(
        self, database: str, collection: str, id: Id, *, as_of: int | None = None, usage: Usage | None = None
    ) -> Document | None:
        """The document, or None; as it was at stamp `as_of`. Raises `InvalidInput` for malformed names, or a past that is not
        kept."""
        return self.read(database, lambda view: view.get(collection, id), as_of=as_of, usage=usage)

    async def put(
        self,
        database: str,
        collection: str,
        id: Id | None,
        body: Any,
        expected: int | None = None,
        *,
        expires_at_ms: int | None = None,
        usage: Usage | None = None,
    ) -> Document:
        """Write the document (any JSON value) and return it once it is durable. As `Transaction.put`."""
        return await self.transact(
            database,
            lambda tx: tx.put(collection, id, body, expected=expected, expires_at_ms=expires_at_ms),
            usage=usage,
        )

    async def delete(
        self, database: str, collection: str, id: Id, expected: int | None = None, *, usage: Usage | None = None
    ) -> bool:
        """Delete the document; False if there is none. Returns once it is durable. As `Transaction.delete`."""
        return await self.transact(database, lambda tx: tx.delete(collection, id, expected=expected), usage=usage)

    def versions(self, database: str, collection: str, id: Id, limit: int = 100) -> _Versions:
        """The versions that are kept, newest first."""
        if not 1 <= limit <= _LIST_MAX:
            raise InvalidInput(f"limit {limit}: allowed is 1 to {_LIST_MAX}", field="limit")
        return self.read(database, lambda view: view.versions(collection, id, limit))

    def list(self, database: str, collection: str, prefix: str = "", limit: int = 100, after: str | None = None) -> _Listed:
        """One page: documents whose (text) ids begin with `prefix`, after id `after`, in order of their ids (by code point).

        At most `limit` (1 to 1000), and no more once the page holds `document_page_bytes`. The second value is the
        `after` of the next page, or None if this is the last. A page is one snapshot; two pages are two."""
        if not 1 <= limit <= _LIST_MAX:
            raise InvalidInput(f"limit {limit}: allowed is 1 to {_LIST_MAX}", field="limit")
        for field, text in (("prefix", prefix), ("after", after or "")):
            if re.search(r"[\ud800-\udfff]", text):
                raise InvalidInput(f"{field} is not a text that UTF-8 can carry", field=field)
        low = encode_term(prefix)[:-1]
        high = low + b"\xff"
        if after is not None:
            low = max(low, encode_term(after) + b"\x00")

        def page(view: View) -> _Listed:
            compiled = view.collection(collection)
            items: _Items = []
            size = 0
            for id, row in view.rows(compiled, low, high, False) if compiled is not None else ():
                if row is None:
                    continue
                if len(items) == limit or (items and size + len(row.body) > _PAGE_BYTES):
                    return items, str(items[-1].id)
                items.append(document(read_id(id), row))
                size += len(row.body)
                view.usage.read(len(row.body))
            return items, None

        return self.read(database, page)

    # many at one moment

    def read(self, database: str, fn: Callable[[View], T], *, as_of: int | None = None, usage: Usage | None = None) -> T:
        """Run `fn` on one snapshot of the database, now or at stamp `as_of`. Inline: for a few documents."""
        check_path(database)
        used = Usage()
        at = None if as_of is None else self._past(as_of)
        result = self.store.read(
            lambda reader: fn(View(reader, self._catalog, database, self._clock.now_ms(), used, at, self._pinned()))
        )
        self._account(database, used, usage)
        return result

    async def transact(self, database: str, fn: Callable[[Transaction], T], *, usage: Usage | None = None) -> T:
        """Run `fn` as one strictly serializable transaction and return its result once it is durable. `fn` is synchronous,
        free of other effects, and may run again. If it raises, nothing of it is kept."""
        check_path(database)
        last: list[Transaction] = []

        def run(tx: Tx) -> T:
            transaction = Transaction(tx, self._catalog, database, Usage(), self._pinned())
            last.append(transaction)
            result = fn(transaction)
            transaction.finish()
            return result

        try:
            result = await self.store.transact(run)
        finally:
            for transaction in last:
                if transaction.makes:
                    self._catalog.settled()
        if last[-1].has_expiry:
            self.housekeeping.wake()
        self._account(database, last[-1].usage, usage)
        return result

    async def transact_once(
        self, database: str, key: str, request: bytes, fn: Callable[[Transaction], bytes], *, usage: Usage | None = None
    ) -> tuple[bytes, bool]:
        """As `transact`, but a second call with the same `key` (for `idempotency_hours`) does nothing and gets the first
        answer; True says so. `request`: what was asked, to tell a retry from another request: that is a `Conflict`."""
        most = LIMITS["idempotency_key_characters"].default
        if len(key) > most:
            raise exceeded("idempotency_key_characters", len(key), "idempotency key")
        if not _KEY.fullmatch(key):
            raise InvalidInput("an idempotency key is made of visible ASCII characters", field="idempotency_key")
        asked = hashlib.sha256(request).digest()
        place = b"%s\x00%s" % (database.encode(), key.encode())
        keep_ms = LIMITS["idempotency_hours"].default * 3_600_000

        def once(tx: Transaction) -> tuple[bytes, bool]:
            raw = tx.reader.get(b"Dk" + place)
            if raw is not None and unpack_long(raw[:8]) > tx.now_ms:
                if raw[8:40] != asked:
                    raise Conflict(f"the idempotency key {key[:64]!r} was given with another request", field="idempotency_key")
                return raw[40:], True
            answer = fn(tx)
            until = pack_long(tx.now_ms + keep_ms)
            tx.tx.put(b"Dk" + place, until + asked + answer)
            tx.tx.put(b"Dt" + until + place, b"")
            return answer, False

        return await self.transact(database, once, usage=usage)

    # queries

    async def query(
        self,
        database: str,
        query: Query,
        *,
        usage: Usage | None = None,
        may_read: Callable[[str], None] | None = None,
    ) -> Page:
        """One page of a query; all its pages show one state, where the collection keeps history (else each shows its own).
        `may_read` is asked (and raises) for each collection that `expand` leads to.

        Raises `NotFound` (index), `Conflict` (an index that is not built yet), `InvalidInput`, `LimitExceeded`."""
        check_path(database)
        check_name("collection", query.collection)
        used = Usage()
        signer = await self.signer()
        of = query.digest(database)
        cursor = signer.open(query.cursor, "query", of) if query.cursor else Cursor("query", of, 0)
        at = cursor.at or (None if query.as_of is None else self._past(query.as_of))
        work = _Work(self, database, used, at, self._now_stamp(), may_read)
        page = await self._run(work, query, cursor, signer)
        self._account(database, used, usage)
        return page

    async def _run(self, work: _Work, query: Query, cursor: Cursor, signer: Signer) -> Page:
        at = work.at
        compiled = self.store.read(lambda reader: self._catalog.collection(reader, work.database, query.collection))
        if compiled is None:
            return Page([], None, at or work.now, 0)
        plan = work.plan = Plan(query, compiled)
        if at is not None:
            plan.check_past(at)
            self.store.read(lambda reader: work.view(reader, at).check_past(compiled))
        if plan.sort:
            return await self._sorted_page(work, cursor, signer)
        more = await work.gather(cursor.position, query.limit + 1, _SCAN_MOST, _PAGE_BYTES)
        found, position = work.found, more
        if len(found) > query.limit:
            found = found[: query.limit]
            position = found[-1][0]
        after = None if position is None else signer.seal(Cursor("query", cursor.of, work.bound_to(), position))
        return Page(work.shown([item for _, item in found]), after, at or work.now, work.looked_at)

    async def _sorted_page(self, work: _Work, cursor: Cursor, signer: Signer) -> Page:
        if await work.gather(b"", _SORT_MOST + 1, _SORT_MOST + 1, 64 * _PAGE_BYTES) is not None or len(work.found) > _SORT_MOST:
            raise exceeded("query_sort_documents", None, "query with `sort`")
        everything = work.plan.sorted([item for _, item in work.found])
        first, limit = cursor.offset, work.plan.query.limit
        chosen = everything[first : first + limit]
        after = None
        if first + limit < len(everything):
            after = signer.seal(Cursor("query", cursor.of, work.bound_to(), b"", first + limit))
        return Page(work.shown(chosen), after, work.at or work.now, work.looked_at)

    # databases and collections

    async def create_database(self, path: str) -> DatabaseRecord:
        """A database; "app/child" inside "app". Raises `Conflict`, `NotFound`."""
        return await self.store.transact(lambda tx: definitions.create_database(tx, path))

    async def delete_database(self, path: str) -> None:
        """Remove a database and all that is in it. Raises `NotFound`."""
        await self._change(lambda tx: definitions.delete_database(tx, path))

    def databases(self, parent: str = "") -> _Databases:
        return self.store.read(lambda reader: definitions.databases(reader, parent))

    async def define_collection(
        self, database: str, name: str, config: CollectionConfig, *, only_new: bool = False
    ) -> CollectionRecord:
        """Make or change a collection. See `definitions.define_collection`."""
        return await self._change(
            lambda tx: definitions.define_collection(tx, self._catalog, database, name, config, only_new=only_new)
        )

    async def delete_collection(self, database: str, name: str) -> None:
        """Remove a collection with all that is in it. Raises `NotFound`, `Conflict` (referred to)."""
        await self._change(lambda tx: definitions.delete_collection(tx, self._catalog, database, name))

    async def _change(self, fn: Callable[[Tx], T]) -> T:
        with self.redefining():
            return await self.store.transact(fn)

    @contextmanager
    def redefining(self) -> Iterator[None]:
        """Around a transaction of the store that changes definitions by `definitions`, possibly with others in one."""
        self._catalog.changing()
        try:
            yield
        finally:
            self._catalog.settled()
            self.housekeeping.wake()

    def collection(self, database: str, name: str) -> CollectionStatus | None:
        """What there is to know of a collection, or None."""
        check_path(database)
        check_name("collection", name)

        def look(view: View) -> CollectionStatus | None:
            compiled = view.collection(name)
            return None if compiled is None else _status(view, compiled.record)

        return self.read(database, look)

    def collections(self, database: str) -> _Statuses:
        """The collections of a database, by name."""
        return self.read(
            database, lambda view: [_status(view, record) for record in definitions.list_collections(view.reader, database)]
        )

    # for the room's other files

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def now_ms(self) -> int:
        return self._clock.now_ms()

    async def signer(self) -> Signer:
        """Of cursors; the secret is made at the first need."""
        if self._signer is None:
            fresh = token_hex(32).encode()

            def secret(tx: Tx) -> bytes:
                tx.compare_and_set(layout.META_SECRET, None, fresh)
                return tx.get(layout.META_SECRET) or fresh

            self._signer = Signer(await self.store.transact(secret))
        return self._signer

    @contextmanager
    def pin(self, number: int, stamp: int) -> Iterator[None]:
        """Keep a collection's past from `stamp` on, whatever its settings, while somebody pages through it."""
        self._pins.setdefault(number, []).append(stamp)
        try:
            yield
        finally:
            self._pins[number].remove(stamp)
            if not self._pins[number]:
                del self._pins[number]

    def _pinned(self) -> dict[int, int]:
        return {number: min(stamps) for number, stamps in self._pins.items()} if self._pins else {}

    def view(self, reader: Any, database: str, used: Usage, at: int | None) -> View:
        return View(reader, self._catalog, database, self._clock.now_ms(), used, at, self._pinned())

    def now_stamp(self) -> int:
        """The stamp of the newest committed transaction."""
        return self._now_stamp()

    def _now_stamp(self) -> int:
        raw = self.store.read(lambda reader: reader.get(layout.META_STAMP))
        return unpack_long(raw) if raw is not None else 0

    def _past(self, as_of: int) -> int | None:
        """The stamp to read at; None: the present. Stamps may run ahead of the clock by as many microseconds as there were
        transactions since it moved."""
        now = max(self._clock.now_ms() * 1000, self._now_stamp())
        if not 0 <= as_of <= now + 999:
            raise InvalidInput(f"as_of {as_of} is not a time of the past, in microseconds", field="as_of")
        return None if as_of >= now else as_of

    def _account(self, database: str, used: Usage, wanted: Usage | None) -> None:
        used.close()
        if wanted is not None:
            wanted.add(used)
        if self._record is not None:
            self._record(database, used)


class _Work:
    """One page under way: slices of it, with others having their turn between."""

    plan: Plan

    def __init__(
        self, room: Documents, database: str, used: Usage, at: int | None, now: int, may_read: Callable[[str], None] | None
    ) -> None:
        self.room = room
        self.database = database
        self.used = used
        self.at = at
        self.now = now
        self.found: list[tuple[bytes, Document]] = []
        self.looked_at = 0
        self._may_read = may_read
        self._paged = at

    def view(self, reader: Any, at: int | None) -> View:
        view = self.room.view(reader, self.database, self.used, at)
        view.may_read = self._may_read
        return view

    @property
    def record(self) -> CollectionRecord:
        return self.plan.compiled.record

    def bound_to(self) -> int:
        """The state that the next page must show; 0: whatever is there then."""
        return (self.at or self.now) if self.record.config.history_seconds else 0

    async def gather(self, position: bytes, want: int, look: int, room: int) -> bytes | None:
        """Fill `found`; where to go on, or None when nothing is left."""
        with self.room.pin(self.record.number, self.at or self.now):
            size = 0
            after: bytes | None = position
            while after is not None and len(self.found) < want and self.looked_at < look and size < room:
                if self.looked_at:
                    self._paged = self.at or self.now  # the rest of the page shows the state that its beginning showed
                    await asyncio.sleep(0)
                part = self._slice(after, want - len(self.found), min(_SLICE, look - self.looked_at), room - size)
                self.found += part.found
                self.looked_at += part.looked_at
                size += part.bytes
                after = part.position
            return after

    def _slice(self, after: bytes, want: int, look: int, room: int) -> Slice:
        return self.room.store.read(lambda reader: self.plan.run(self.view(reader, self._paged), after, want, look, room))

    def shown(self, documents: list[Document]) -> list[Document]:
        return self.room.store.read(lambda reader: self.plan.shown(self.view(reader, self._paged), documents))


def _status(view: View, record: CollectionRecord) -> CollectionStatus:
    stats = stats_of(view.reader.get(numbered(b"Ds", record.number)))
    indexes = []
    for index in record.indexes:
        if index.hidden:
            continue
        raw = view.reader.get(numbered(b"Dp", index.number)) if index.status == "building" else None
        done = definitions.progress_of(raw)[3] if raw is not None else stats.documents if index.status == "ready" else 0
        indexes.append(IndexStatus(index.name, index.status, done, stats.documents, index.reason))
    return CollectionStatus(
        record.database, record.name, record.created // 1000, stats.documents, stats.body_bytes, record.config, indexes
    )
