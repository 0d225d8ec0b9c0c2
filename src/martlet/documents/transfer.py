"""Import and export: NDJSON in and out, CSV in, line by line, with memory for a batch and no more."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Final, Literal

import msgspec

from martlet.documents import values
from martlet.documents.documents import Documents
from martlet.documents.order import Id, decode_id
from martlet.documents.transaction import Transaction
from martlet.documents.usage import Usage
from martlet.errors import Conflict, InvalidInput, LimitExceeded, MartletError, NotFound
from martlet.limits import LIMITS, exceeded

__all__ = ["ImportReport", "LineError", "export", "import_csv", "import_ndjson"]

_BATCH: Final = 200
_BATCH_BYTES: Final = 1_048_576
_EXPORT_ROWS: Final = 200
_ERRORS: Final = LIMITS["import_errors"].default
_LINE_BYTES: Final = LIMITS["import_line_bytes"].default

Mode = Literal["upsert", "insert"]


class LineError(msgspec.Struct, frozen=True):
    """Why a line was not imported. `line` counts from 1."""

    line: int
    code: str
    error: str


class ImportReport(msgspec.Struct):
    """`failed` counts all lines that failed, `errors` names the first `import_errors` of them."""

    lines: int = 0
    written: int = 0
    failed: int = 0
    dry_run: bool = False
    errors: list[LineError] = []


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of an export. For an import `version`, `ts` and the times but `expires_at_ms` are without meaning."""

    id: Any
    value: msgspec.Raw
    version: int = 0
    ts: int = 0
    expires_at_ms: int | None = None


_LINE: Final = msgspec.json.Decoder(Line).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class _Undo(Exception):
    """Ends a dry run's transaction."""


class _Item(msgspec.Struct, frozen=True):
    number: int
    id: Id | None
    body: Any
    expires_at_ms: int | None
    size: int


# --- export


async def export(room: Documents, database: str, collection: str, *, as_of: int | None = None) -> AsyncIterator[bytes]:
    """Every document as one line of JSON, by id: one consistent state, the present one or that at stamp `as_of`.

    Whatever is written meanwhile, and whether or not the collection keeps history (it does, while this runs)."""
    at = room.now_stamp() if as_of is None else as_of
    known = room.read(database, lambda view: view.collection(collection), as_of=as_of)
    if known is None:
        raise NotFound(f"there is no collection {collection!r} in {database!r}")
    with room.pin(known.record.number, at):
        position = b""
        while True:
            usage = Usage()
            part = partial(_rows, room, database, usage, at, collection, position)
            rows, more = room.store.read(part)
            lines = [_exported(id, row) for id, row in rows if row is not None]
            for _, row in rows:
                if row is not None:
                    usage.read(len(row.body))
            room.account(database, usage)
            if lines:
                yield b"".join(lines)
            if not more:
                return
            position = rows[-1][0]
            await asyncio.sleep(0)


def _rows(
    room: Documents, database: str, usage: Usage, at: int, collection: str, position: bytes, reader: Any
) -> tuple[list[tuple[bytes, Any]], bool]:
    view = room.view(reader, database, usage, at)
    compiled = view.collection(collection)
    found: list[tuple[bytes, Any]] = []
    size = 0
    if compiled is None:
        return found, False
    for id, row in view.rows(compiled, position + b"\xff" if position else b"", b"\xff", False):
        found.append((id, row))
        size += len(row.body) if row is not None else 0
        if len(found) >= _EXPORT_ROWS or size > _BATCH_BYTES:
            return found, True
    return found, False


def _exported(id: bytes, row: Any) -> bytes:
    name = decode_id(id)
    line = {
        "id": name if isinstance(name, str) else msgspec.Raw(values.dumps(list(name))),
        "version": row.version,
        "ts": row.stamp,
        "value": msgspec.Raw(row.body.replace(b"\n", b" ").replace(b"\r", b" ")),  # between tokens only: JSON texts escape them
    }
    if row.expires_at_ms:
        line["expires_at_ms"] = row.expires_at_ms
    return _ENCODE(line) + b"\n"


# --- import


async def import_ndjson(
    room: Documents,
    database: str,
    collection: str,
    chunks: AsyncIterator[bytes],
    *,
    mode: Mode = "upsert",
    dry_run: bool = False,
    id_field: str = "",
    progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Lines as `export` gives them; with `id_field` each line is a document and that field its id (a new one where missing).

    Lines that fail are reported, all others are written, some hundred in a transaction. `dry_run`: everything is tried and
    nothing kept, batch by batch, so that what contradicts itself across batches does not show."""
    importing = _Import(room, database, collection, mode, dry_run, progress)
    number = 0
    async for line in _lines(chunks):
        number += 1
        if line is None:
            importing.fail(number, exceeded("import_line_bytes", None, "line"))
        elif line.strip():
            importing.read(number, line, partial(_parsed, line, id_field))
        await importing.flush_if_full()
    return await importing.end()


async def import_csv(
    room: Documents,
    database: str,
    collection: str,
    chunks: AsyncIterator[bytes],
    *,
    mode: Mode = "upsert",
    dry_run: bool = False,
    id_field: str = "id",
    progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """CSV (RFC 4180) with a first line of names. Values become what the collection's schema says of their fields, else texts;
    an empty one is left out. A quoted value may not hold a line break."""
    importing = _Import(room, database, collection, mode, dry_run, progress)
    found = room.read(database, lambda view: view.collection(collection))
    fields = found.record.config.schema.fields if found is not None else {}
    types = {name: field.type.removesuffix("?") for name, field in fields.items()}
    names: list[str] = []
    number = 0
    async for line in _lines(chunks):
        number += 1
        if line is None:
            importing.fail(number, exceeded("import_line_bytes", None, "line"))
        elif not names:
            names = _csv_row(line.removeprefix(b"\xef\xbb\xbf"))
            if len(set(names)) != len(names) or not all(names):
                raise InvalidInput("the first line must name every column, each once", field="body")
        elif line.strip():
            importing.read(number, line, partial(_csv_item, line, names, types, id_field))
        await importing.flush_if_full()
    return await importing.end()


def _parsed(raw: bytes, id_field: str) -> tuple[Any, Any, int | None]:
    if id_field:
        value = values.loads(raw)
        id = values.field(value, (id_field,))
        if id is not None and not isinstance(id, str):
            raise InvalidInput(f"{id_field!r} must be a text to be the document's id", field=id_field)
        return id, raw.strip(), None
    try:
        line = _LINE(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the line is not an object with `id` and `value`: {error}", field="line") from error
    id = line.id
    if isinstance(id, list):
        id = tuple(values.loads(_ENCODE(id)))
    return id, bytes(line.value), line.expires_at_ms


def _csv_row(raw: bytes) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(raw.decode()), strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(f"the line is not CSV: {error}", field="line") from error


def _csv_item(raw: bytes, names: list[str], types: dict[str, str], id_field: str) -> tuple[Any, Any, int | None]:
    row = _csv_row(raw)
    if len(row) != len(names):
        raise InvalidInput(f"the line has {len(row)} values, the first one names {len(names)}", field="line")
    value = {name: _typed(name, text, types.get(name, "text")) for name, text in zip(names, row, strict=True) if text}
    id = value.pop(id_field, None) if id_field not in types else value.get(id_field)
    return None if id is None else str(id), value, None


def _typed(name: str, text: str, kind: str) -> Any:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind in ("decimal", "number"):
            return Decimal(text)
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "time":
            return datetime.fromisoformat(text)
    except (ValueError, KeyError, InvalidOperation) as error:
        raise InvalidInput(f"{name}: {text[:40]!r} is no {kind}", field=name) from error
    return text


class _Import:
    """An import under way: one batch in memory."""

    def __init__(
        self,
        room: Documents,
        database: str,
        collection: str,
        mode: Mode,
        dry_run: bool,
        progress: Callable[[ImportReport], None] | None,
    ) -> None:
        self._room = room
        self._database = database
        self._collection = collection
        self._expected = 0 if mode == "insert" else None
        self._progress = progress
        self._batch: list[_Item] = []
        self._size = 0
        self._report = ImportReport(dry_run=dry_run, errors=[])

    def read(self, number: int, raw: bytes, parse: Callable[[], tuple[Any, Any, int | None]]) -> None:
        self._report.lines += 1
        try:
            id, body, expires_at_ms = parse()
        except MartletError as error:
            self._report.lines -= 1
            self.fail(number, error)
            return
        self._batch.append(_Item(number, id, body, expires_at_ms, len(raw)))
        self._size += len(raw)

    def fail(self, number: int, error: MartletError) -> None:
        report = self._report
        report.lines += 1
        self._refuse(number, error)

    def _refuse(self, number: int, error: MartletError) -> None:
        self._report.failed += 1
        if len(self._report.errors) < _ERRORS:
            self._report.errors.append(LineError(number, error.code, error.message))

    async def flush_if_full(self) -> None:
        if len(self._batch) >= _BATCH or self._size >= _BATCH_BYTES:
            await self._flush()

    async def end(self) -> ImportReport:
        await self._flush()
        self._report.errors.sort(key=lambda error: error.line)
        return self._report

    async def _flush(self) -> None:
        batch, self._batch, self._size = self._batch, [], 0
        if batch:
            await self._write(batch)
            if self._progress is not None:
                self._progress(self._report)

    async def _write(self, batch: list[_Item]) -> None:
        """All of the batch, or its halves: a line that fails takes no other with it."""

        def put(tx: Transaction) -> None:
            for item in batch:
                tx.put(self._collection, item.id, item.body, expected=self._expected, expires_at_ms=item.expires_at_ms)

        if self._report.dry_run:
            await self._try(batch)
            return
        try:
            await self._room.transact(self._database, put)
        except (InvalidInput, Conflict, LimitExceeded) as error:
            if len(batch) == 1:
                self._refuse(batch[0].number, error)
                return
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
        else:
            self._report.written += len(batch)

    async def _try(self, batch: list[_Item]) -> None:
        """One transaction that is not kept: what a failed line has written of itself is undone with everything else."""
        failed: list[tuple[int, MartletError]] = []

        def put(tx: Transaction) -> None:
            failed.clear()
            for item in batch:
                try:
                    tx.put(self._collection, item.id, item.body, expected=self._expected, expires_at_ms=item.expires_at_ms)
                except (InvalidInput, Conflict, LimitExceeded) as error:
                    failed.append((item.number, error))
            raise _Undo

        with contextlib.suppress(_Undo):
            await self._room.transact(self._database, put)
        self._report.written += len(batch) - len(failed)
        for number, error in failed:
            self._refuse(number, error)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Lines without their ends; None for one that is longer than `import_line_bytes`, which is skipped."""
    held = b""
    skipping = False
    async for chunk in chunks:
        held += chunk
        *whole, held = held.split(b"\n")
        for line in whole:
            if skipping or len(line) > _LINE_BYTES:
                skipping = False
                yield None
            else:
                yield line
        if len(held) > _LINE_BYTES:
            held = b""
            skipping = True
    if skipping:
        yield None
    elif held:
        yield held
