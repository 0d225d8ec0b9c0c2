"""Documents over the store: one row each, and one change record for each write, in the same transaction."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from martlet.clock import Clock
from martlet.errors import Conflict, InvalidInput
from martlet.limits import LIMITS, exceeded
from martlet.store import Reader, Store, Tx, keys

__all__ = ["TOPIC", "Change", "Document", "Documents"]

TOPIC: Final = "document"  # of the change records in the log; the entry's key is the document's row key

_ROWS: Final = "documents"  # (.., database, collection, id) -> _Row
_GONE: Final = "documents.gone"  # (.., database, collection, id) -> the last version of a deleted document, 8 bytes
_LIST_MAX: Final = 1000
_READ_AHEAD: Final = 50  # rows that a listing takes from the store at a time: bounds what a page of large ones holds


class Document(msgspec.Struct, frozen=True):
    """A document as it was read or written. `value_bytes` is its JSON, byte for byte as it was put."""

    id: str
    version: int  # 1, 2, ...; goes on after a delete, so a number never means two different states
    value_bytes: bytes
    updated_at_ms: int


class Change(msgspec.Struct, frozen=True):
    """One write, as the log has it (JSON). `value` is the new document; none for a delete."""

    operation: Literal["put", "delete"]
    database: str
    collection: str
    id: str
    version: int  # of the document after a put, of the last state before a delete
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Row(msgspec.Struct, frozen=True, array_like=True):
    version: int
    updated_at_ms: int
    value: bytes


_ENCODE_ROW: Final = msgspec.msgpack.Encoder()
_DECODE_ROW: Final = msgspec.msgpack.Decoder(_Row)
_ENCODE_CHANGE: Final = msgspec.json.Encoder()
_CHECK_JSON: Final = msgspec.json.Decoder()


class Documents:
    """JSON documents in collections of a database (an app's name). Reads see every acknowledged write."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def get(self, database: str, collection: str, id: str) -> Document | None:
        """The document, or None. Raises `InvalidInput` for malformed names."""
        key = _key(database, collection, id)
        raw = self._store.read(lambda reader: reader.get(key))
        return None if raw is None else _document(id, raw)

    async def put(self, database: str, collection: str, id: str, body: bytes, expected: int | None = None) -> Document:
        """Write the document (any JSON value) and return it once it is durable.

        `expected`: the version that must be there, 0 for none, None for whatever. Raises `Conflict` (details `expected`
        and `version`) if it is not, `InvalidInput` for malformed JSON or names, `LimitExceeded` (document_bytes).
        """
        key = _key(database, collection, id)
        gone = keys.encode(_GONE, database, collection, id)
        _check_body(body)
        _check_expected(expected, 0)

        def write(tx: Tx) -> Document:
            now_ms = self._clock.now_ms()
            found = _version_of(tx, key)
            _require(id, expected, found)
            version = (found or int.from_bytes(tx.get(gone) or b"", "big")) + 1
            if not found and version > 1:
                tx.delete(gone)
            tx.put(key, _ENCODE_ROW.encode(_Row(version, now_ms, body)))
            change = Change("put", database, collection, id, version, msgspec.Raw(body))
            tx.append(TOPIC, key, _ENCODE_CHANGE.encode(change))
            return Document(id, version, body, now_ms)

        return await self._store.transact(write)

    async def delete(self, database: str, collection: str, id: str, expected: int | None = None) -> bool:
        """Delete the document; False if there is none. With `expected` (1 or more) that version must be there, else
        `Conflict`. Returns once it is durable."""
        key = _key(database, collection, id)
        gone = keys.encode(_GONE, database, collection, id)
        _check_expected(expected, 1)

        def write(tx: Tx) -> bool:
            found = _version_of(tx, key)
            _require(id, expected, found)
            if not found:
                return False
            tx.delete(key)
            tx.put(gone, found.to_bytes(8, "big"))
            tx.append(TOPIC, key, _ENCODE_CHANGE.encode(Change("delete", database, collection, id, found)))
            return True

        return await self._store.transact(write)

    def list(
        self, database: str, collection: str, prefix: str = "", limit: int = 100, after: str | None = None
    ) -> tuple[list[Document], str | None]:
        """One page: documents whose ids begin with `prefix`, after id `after`, in order of their ids (by code point).

        At most `limit` (1 to 1000), and no more once the page holds `document_page_bytes`. The second value is the
        `after` of the next page, or None if this is the last. A page is one snapshot; two pages are two.
        """
        if not 1 <= limit <= _LIST_MAX:
            raise InvalidInput(f"limit {limit}: allowed is 1 to {_LIST_MAX}", field="limit")
        _check_name("database", database)
        _check_name("collection", collection)
        for field, text in (("prefix", prefix), ("after", after or "")):
            if not _encodable(text):
                raise InvalidInput(f"{field} is not a text that UTF-8 can carry", field=field)
        low = keys.encode(_ROWS, database, collection, prefix)
        if after is not None and after >= prefix:
            low = keys.encode(_ROWS, database, collection, after) + b"\x00"
        high = keys.prefix_range(_ROWS, database, collection)[1]
        return self._store.read(lambda reader: _page(reader, low, high, prefix, limit))


def _page(reader: Reader, low: bytes, high: bytes, prefix: str, limit: int) -> tuple[list[Document], str | None]:
    items: list[Document] = []
    size, most = 0, LIMITS["document_page_bytes"].default
    while True:
        rows = reader.scan(low, high, limit=_READ_AHEAD)
        for key, raw in rows:
            id = str(keys.decode(key)[3])
            if not id.startswith(prefix):  # ids with one prefix are neighbours, so there are no more
                return items, None
            if len(items) == limit or (items and size + len(raw) > most):
                return items, items[-1].id
            items.append(_document(id, raw))
            size += len(raw)
        if len(rows) < _READ_AHEAD:
            return items, None
        low = rows[-1][0] + b"\x00"


def _document(id: str, raw: bytes) -> Document:
    row = _DECODE_ROW.decode(raw)
    return Document(id, row.version, row.value, row.updated_at_ms)


def _version_of(tx: Tx, key: bytes) -> int:
    """The document's version, or 0 if there is none."""
    raw = tx.get(key)
    return 0 if raw is None else _DECODE_ROW.decode(raw).version


def _require(id: str, expected: int | None, found: int) -> None:
    if expected is None or expected == found:
        return
    there = f"it is at version {found}" if found else "there is no such document"
    wanted = f"version {expected}" if expected else "no document"
    raise Conflict(f"document {id!r}: expected {wanted}, but {there}", expected=expected, version=found)


def _key(database: str, collection: str, id: str) -> bytes:
    _check_name("database", database)
    _check_name("collection", collection)
    if not id or id in (".", "..") or re.search(r"[\x00-\x1f\x7f]", id) or not _encodable(id):
        raise InvalidInput(
            f"document id {id[:64]!r}: must be a text without control characters, neither empty nor '.' nor '..'", field="id"
        )
    size = len(id.encode())
    if size > LIMITS["document_id_bytes"].default:
        raise exceeded("document_id_bytes", size, "document id")
    return keys.encode(_ROWS, database, collection, id)


def _check_name(field: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise InvalidInput(f"{field} {name[:64]!r}: allowed are 1 to 64 of A-Z, a-z, 0-9, _ and -", field=field)


def _encodable(text: str) -> bool:
    return not re.search(r"[\ud800-\udfff]", text)


def _check_expected(expected: int | None, least: int) -> None:
    if expected is not None and expected < least:
        raise InvalidInput(f"expected version {expected}: must be at least {least}", field="expected")


def _check_body(body: bytes) -> None:
    if len(body) > LIMITS["document_bytes"].default:
        raise exceeded("document_bytes", len(body), "document")
    try:
        _CHECK_JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"document is not JSON: {error}", field="body") from error
    except RecursionError as error:
        raise InvalidInput("document is not usable: it is nested too deeply", field="body") from error
