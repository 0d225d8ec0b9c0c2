"""Moving a store from one engine to another: consistent, resumable, and checked row by row afterwards.

The source is read in one snapshot. The target is compared with it piece by piece, and only what differs is written: so a copy
that was interrupted goes on where it was, and one whose source changed meanwhile brings the target up to the new snapshot.
Until the last check has passed, the target carries a mark, and nobody opens it as a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from martlet.errors import Conflict, StoreFailed
from martlet.store.engine import Engine, LogEntry

__all__ = ["Copied", "copy_store", "refuse_half"]

_MARK: Final = b"\x00copying"
_END: Final = b"\xff" * 1_026  # above every key
_PIECE_ROWS: Final = 500
_PIECE_BYTES: Final = 4_194_304
_PIECE_ENTRIES: Final = 1_000

_Rows = list[tuple[bytes, bytes]]


class Copied(msgspec.Struct, frozen=True):
    """What `copy_store` did, and what both ends hold now."""

    rows: int
    entries: int
    bytes: int  # of keys, values and log bodies
    rows_written: int  # the others were there already
    entries_written: int
    checksum: str  # SHA-256 over all rows and entries, the same at both ends


Progress = Callable[[str, int, int], None]  # (phase: rows, log or check; how many so far; bytes of them)


def _silent(phase: str, done: int, total_bytes: int) -> None:
    """Nobody watches."""


def copy_store(source: Engine, target: Engine, progress: Progress = _silent) -> Copied:
    """Make `target` hold what `source` holds now. Blocking. Call it again after an interruption.

    Raises `Conflict` when the target is a store of its own, `StoreFailed` when the ends differ afterwards, and what engines
    raise."""
    try:
        _claim(target)
        rows, written = _copy_rows(source, target, progress)
        entries, entries_written = _copy_log(source, target, progress)
        target.release()
        wanted, size = _checksum(source, _silent)
        found, _ = _checksum(target, progress)
        target.release()
        if found != wanted:
            raise StoreFailed("the copy differs from its source", remedy="copy again: what is equal is not copied twice")
        target.commit({_MARK: None}, (), 0)
        target.checkpoint(full=True)
        return Copied(rows, entries, size, written, entries_written, wanted)
    finally:
        source.release()
        target.release()


def refuse_half(engine: Engine) -> None:
    """Raises `Conflict` for a target whose copy did not end."""
    marked = engine.get(_MARK)
    engine.release()
    if marked is not None:
        raise Conflict(
            "a copy into this store did not end", remedy="run `martlet store copy FROM TO` again; it goes on where it was"
        )


def _claim(target: Engine) -> None:
    """The target is empty, or a copy of ours that did not end."""
    if target.get(_MARK) is None:
        if target.bounds() != (1, 0) or target.scan(b"", _END, 1, False):
            raise Conflict("the target holds a store already", remedy="name an empty folder, database or schema")
        target.release()
        target.commit({_MARK: b"1"}, (), 0)
    target.release()


def _copy_rows(source: Engine, target: Engine, progress: Progress) -> tuple[int, int]:
    low, done, size, written = b"", 0, 0, 0
    while True:
        rows = _piece(source, low)
        high = rows[-1][0] + b"\x00" if rows else _END
        there = dict(_all(target, low, high))
        there.pop(_MARK, None)
        target.release()
        here = dict(rows)
        writes: dict[bytes, bytes | None] = {key: value for key, value in rows if there.get(key) != value}
        writes.update((key, None) for key in there if key not in here)
        if writes:
            target.commit(writes, (), 0)
            target.checkpoint(full=False)
        written += len(writes)
        done += len(rows)
        size += sum(len(key) + len(value) for key, value in rows)
        progress("rows", done, size)
        if not rows:
            return done, written
        low = high


def _copy_log(source: Engine, target: Engine, progress: Progress) -> tuple[int, int]:
    first, last = source.bounds()
    there = target.bounds()[1]
    target.release()
    if there > last or (there and there < first - 1):
        raise StoreFailed("the target's log does not belong to this source", remedy="copy into an empty target")
    at, size, written = max(there, first - 1), 0, 0
    while entries := source.tail(at, _PIECE_ENTRIES):
        target.commit({}, entries, 0)
        target.checkpoint(full=False)
        at = entries[-1].seq
        written += len(entries)
        size += sum(len(entry.body) for entry in entries)
        progress("log", at - first + 1, size)
    if target.bounds()[0] < first:  # the source was trimmed since the copy began
        target.release()
        target.commit({}, (), first - 1)
    target.release()
    return max(0, last - first + 1), written


def _checksum(engine: Engine, progress: Progress) -> tuple[str, int]:
    """(SHA-256, bytes) of everything but the mark, in one snapshot."""
    digest = hashlib.sha256()
    size = 0
    for done, piece in enumerate(_pieces(engine), 1):
        for part in piece:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
            size += len(part)
        progress("check", done, size)
    return digest.hexdigest(), size


def _pieces(engine: Engine) -> Iterator[list[bytes]]:
    low = b""
    while rows := _piece(engine, low):
        low = rows[-1][0] + b"\x00"
        yield [part for row in rows for part in row]
    at = engine.bounds()[0] - 1
    while entries := engine.tail(at, _PIECE_ENTRIES):
        at = entries[-1].seq
        yield [part for entry in entries for part in _parts(entry)]


def _parts(entry: LogEntry) -> tuple[bytes, ...]:
    return str(entry.seq).encode(), str(entry.at_ms).encode(), entry.topic.encode(), entry.key, entry.body


def _piece(engine: Engine, low: bytes) -> _Rows:
    """The next rows, the mark left out; few of them if they are large."""
    rows: _Rows = []
    size = 0
    while len(rows) < _PIECE_ROWS and size < _PIECE_BYTES:
        few = engine.scan(
            low, _END, 16 if not rows else min(_PIECE_ROWS - len(rows), 1 + len(rows) * _PIECE_BYTES // (size + 1)), False
        )
        if not few:
            break
        low = few[-1][0] + b"\x00"
        few = [row for row in few if row[0] != _MARK]
        rows += few
        size += sum(len(value) for _, value in few)
    return rows


def _all(engine: Engine, low: bytes, high: bytes) -> _Rows:
    rows: _Rows = []
    while found := engine.scan(low, high, _PIECE_ROWS, False):
        rows += found
        low = found[-1][0] + b"\x00"
    return rows
