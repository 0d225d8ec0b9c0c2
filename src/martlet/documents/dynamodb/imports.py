"""ImportTable: a new table filled from files in a bucket, in the background.

An import is a row, begun in one transaction with nothing else; what a stop of the platform interrupts is begun again from its
first file by the next start, which writes the same items to the same places."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import msgspec

from martlet.clock import token_hex
from martlet.documents.chores import LOOK_AGAIN_SECONDS, Chores
from martlet.documents.dynamodb import definitions
from martlet.documents.dynamodb.import_files import Broken, csv_items, json_items, texts
from martlet.documents.dynamodb.items import check_size, checked
from martlet.documents.dynamodb.tables import Catalog, Item, TableRecord
from martlet.documents.dynamodb.writing import Write, apply
from martlet.errors import ServiceError
from martlet.store import Reader, Store, Tx

__all__ = ["Files", "ImportRecord", "Imports", "import_of", "imports_of"]

Request = dict[str, Any]
_ROWS: Final = b"Ym"
_LEASE: Final = "dynamodb imports"
_LEASE_MS: Final = 30_000
_WRITE_ITEMS: Final = 100
_WRITE_BYTES: Final = 1_048_576
_KEPT_MS: Final = 90 * 86_400_000  # API reference, ListImports: "imports completed within the past 90 days"
_RUNNING: Final = "IN_PROGRESS"
_LOG: Final = logging.getLogger("martlet.documents")


class Files(Protocol):
    """The objects room, as far as it is needed here."""

    def listed(self, bucket: str, prefix: str, after: str) -> list[tuple[str, int]]:
        """The next (key, size) after a key. Raises `ServiceError` NoSuchBucket."""

    def opened(self, bucket: str, key: str) -> AsyncIterator[bytes]: ...


class ImportRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An import as it is stored."""

    id: str
    table: str
    request: Request
    started_at_ms: int
    status: str = _RUNNING
    table_id: str = ""
    ended_at_ms: int = 0
    bytes: int = 0
    processed: int = 0
    imported: int = 0
    errors: int = 0
    code: str = ""
    message: str = ""


_DECODE: Final = msgspec.json.Decoder(ImportRecord).decode


def import_key(id: str) -> bytes:
    return _ROWS + id.encode()


def import_of(reader: Reader, id: str) -> ImportRecord | None:
    raw = reader.get(import_key(id))
    return _DECODE(raw) if raw is not None else None


def imports_of(reader: Reader) -> list[ImportRecord]:
    """All of them, the newest last."""
    return [_DECODE(raw) for _, raw in reader.scan(_ROWS, b"Yn", limit=10_000)]


class Imports(Chores):
    """Runs what was begun, one after the other, once there is a room of objects to read from (`serve`)."""

    def __init__(self, store: Store, catalog: Catalog, region: str, holder: str) -> None:
        super().__init__("imports")
        self._store = store
        self._catalog = catalog
        self._region = region
        self._holder = holder
        self._files: Files | None = None

    def serve(self, files: Files) -> None:
        """This is where imports come from."""
        self._files = files
        self.wake()

    async def begin(self, table: str, request: Request) -> ImportRecord:
        """Raises ResourceInUseException for a table that is there; the same client token finds the import that it began."""

        def put(tx: Tx) -> ImportRecord:
            there = imports_of(tx)
            token = request.get("ClientToken")
            for one in there:
                if token and one.request.get("ClientToken") == token:
                    return one
                if one.ended_at_ms and one.ended_at_ms < tx.now_ms - _KEPT_MS:
                    tx.delete(import_key(one.id))
            running = any(one.table == table and one.status == _RUNNING for one in there)
            if running or self._catalog.table(tx, table) is not None:
                raise ServiceError("ResourceInUseException", f"Table already exists: {table}")
            made = ImportRecord(id=f"{tx.now_ms:014d}-{token_hex(4)}", table=table, request=request, started_at_ms=tx.now_ms)
            _save(tx, made)
            return made

        found = await self._store.transact(put)
        self.wake()
        return found

    # --- in the background

    def _delay_seconds(self) -> float:
        return _LEASE_MS / 1000 if self._store.read(_running) else LOOK_AGAIN_SECONDS  # another node has it

    async def run_due(self) -> None:
        while record := self._store.read(_running):
            if self._files is None or not await self._store.transact(self._held):
                return
            await self._run(record, self._files)

    def _held(self, tx: Tx) -> bool:
        return tx.lease_take(_LEASE, self._holder, _LEASE_MS) is not None

    async def _run(self, record: ImportRecord, files: Files) -> None:
        record = msgspec.structs.replace(record, bytes=0, processed=0, imported=0, errors=0)
        source = record.request["S3BucketSource"]
        bucket, prefix, after = source["S3Bucket"], source.get("S3KeyPrefix") or "", ""
        try:
            listed = files.listed(bucket, prefix, after)
            record = msgspec.structs.replace(record, table_id=(await self._table(record)).id)
            while listed:
                for key, size in listed:
                    record = await self._file(record, files.opened(bucket, key), size)
                    after = key
                listed = files.listed(bucket, prefix, after)
        except ServiceError as error:
            code = {"NoSuchBucket": "S3NoSuchBucket", "NoSuchKey": "S3NoSuchKey"}.get(error.name, error.name)
            await self._end(record, "FAILED", code, error.message)
            return
        if record.errors:
            text = "Some of the items failed validation checks."
            await self._end(record, "FAILED", "ItemValidationError", text)
        else:
            await self._end(record, "COMPLETED")

    async def _end(self, record: ImportRecord, status: str, code: str = "", message: str = "") -> None:
        def put(tx: Tx) -> None:
            _save(tx, msgspec.structs.replace(record, status=status, code=code, message=message, ended_at_ms=tx.now_ms))

        await self._store.transact(put)

    async def _table(self, record: ImportRecord) -> TableRecord:
        """The import's table, made when it is not there yet."""

        def make(tx: Tx) -> TableRecord:
            found = self._catalog.table(tx, record.table)
            if found is not None:
                return found.record
            request = record.request["TableCreationParameters"]
            return definitions.create_table(tx, self._catalog, record.table, request, self._region)

        self._catalog.changing()
        try:
            return await self._store.transact(make)
        finally:
            self._catalog.settled()

    async def _file(self, record: ImportRecord, pieces: AsyncIterator[bytes], size: int) -> ImportRecord:
        """The record with what came of one file."""
        request = record.request
        source = texts(pieces, request.get("InputCompressionType") == "GZIP")
        if request["InputFormat"] == "CSV":
            options = (request.get("InputFormatOptions") or {}).get("Csv") or {}
            defined = request["TableCreationParameters"]["AttributeDefinitions"]
            types = {one["AttributeName"]: one["AttributeType"] for one in defined}
            items = csv_items(source, types, options.get("Delimiter") or ",", options.get("HeaderList"))
        else:
            items = json_items(source)
        processed = imported = 0
        waiting: list[Write] = []
        try:
            async for item in items:
                processed += 1
                write = _write(record.table, item)
                if write is not None:
                    waiting.append(write)
                if len(waiting) >= _WRITE_ITEMS or sum(one.size for one in waiting) >= _WRITE_BYTES:
                    imported += await self._put(waiting)
                    waiting = []
        except Broken as error:
            _LOG.warning("import %s: a file is read no further: %s", record.id, error)
            processed += 1
        imported += await self._put(waiting)
        record = msgspec.structs.replace(
            record,
            bytes=record.bytes + size,
            processed=record.processed + processed,
            imported=record.imported + imported,
            errors=record.errors + processed - imported,
        )
        await self._store.transact(lambda tx: _save(tx, record))
        return record

    async def _put(self, writes: list[Write]) -> int:
        """How many of them are items of the table, and are there now."""

        def put(tx: Tx) -> int:
            if not self._held(tx):
                raise ServiceError("ImportConflictException", "another node goes on with the import")
            done = 0
            for write in writes:
                table = self._catalog.table(tx, write.table)
                if table is None:
                    raise ServiceError("ResourceNotFoundException", f"Table not found: {write.table}")
                try:
                    apply(tx, table, write)
                except ServiceError:
                    continue
                done += 1
            return done

        if not writes:
            return 0
        found = await self._store.transact(put)
        await asyncio.sleep(0)
        return found


def _save(tx: Tx, record: ImportRecord) -> None:
    tx.put(import_key(record.id), msgspec.json.encode(record))


def _running(reader: Reader) -> ImportRecord | None:
    return next((one for one in imports_of(reader) if one.status == _RUNNING), None)


def _write(table: str, item: Item | None) -> Write | None:
    if item is None:
        return None
    try:
        found = checked(item)
        return Write("put", table, found, size=check_size(found))
    except ServiceError:
        return None
