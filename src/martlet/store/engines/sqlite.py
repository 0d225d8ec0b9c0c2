"""The default engine: one SQLite file in WAL mode with `synchronous=FULL`, through apsw (which carries its own SQLite).

Two connections: the writer's, used only by the writer thread (it alone commits and checkpoints), and the reader's, used
only on the event loop, where a bounded read costs a few microseconds. Measurements: store/DESIGN.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import apsw

from martlet.errors import Conflict, MartletError, Overloaded, StartFailed, StoreFailed, StoreFull
from martlet.store.engine import LogEntry
from martlet.store.engines.folder import FolderLock, cannot_use, sync_folder

__all__ = ["FILE", "FORMAT", "SqliteEngine", "open_engine"]

FILE: Final = "store.sqlite"
FORMAT: Final = 1  # of the tables below; kept in the file's user_version
APPLICATION: Final = 0x4D52544C  # "MRTL", in the file's application_id
OLDEST_SQLITE: Final = (3, 51, 3)  # before: two connections that write and checkpoint can corrupt the file (WAL reset)

_TABLES: Final = """
CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE log (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, topic TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL);
"""
_CHUNKS: Final = (64, 8, 1)  # rows of one statement: each statement gives up and regains the GIL once
_PUT: Final = {
    rows: f"INSERT INTO kv VALUES {','.join(['(?,?)'] * rows)} ON CONFLICT(key) DO UPDATE SET value=excluded.value"
    for rows in _CHUNKS
}
_DELETE: Final = {rows: f"DELETE FROM kv WHERE key IN ({','.join('?' * rows)})" for rows in _CHUNKS}
_LOG: Final = {rows: f"INSERT INTO log VALUES {','.join(['(?,?,?,?,?)'] * rows)}" for rows in _CHUNKS}
_GET: Final = "SELECT value FROM kv WHERE key=?"
_SCAN: Final = "SELECT key, value FROM kv WHERE key>=? AND key<? ORDER BY key LIMIT ?"
_SCAN_BACK: Final = "SELECT key, value FROM kv WHERE key>=? AND key<? ORDER BY key DESC LIMIT ?"
_TAIL: Final = "SELECT seq, at_ms, topic, key, body FROM log WHERE seq>? ORDER BY seq LIMIT ?"
_BOUNDS: Final = "SELECT (SELECT min(seq) FROM log), (SELECT max(seq) FROM log)"
_TRIM: Final = "DELETE FROM log WHERE seq<=?"

_TAIL_BYTES: Final = 16_777_216  # one `tail` stops after so many bytes of bodies
_CHECKPOINT_PAGES: Final = 2_000  # pages of 4 KiB that commits write between two checkpoints
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SYNC_FAILED: Final = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)


_Rows = list[tuple[bytes, bytes]]


def open_engine(folder: Path) -> SqliteEngine:
    """The engine of the store in `folder`, made if there is none. Raises `StartFailed` with the cause and what to do."""
    lock = FolderLock(folder)
    try:
        return SqliteEngine(folder / FILE, lock)
    except BaseException:
        lock.release()
        raise


class SqliteEngine:
    """`martlet.store.engine.Engine` over one file. `vfs` and `synchronous` are overridden by simulations only."""

    vfs: ClassVar[str | None] = None
    synchronous: ClassVar[str] = "FULL"

    def __init__(self, file: Path, lock: FolderLock | None = None) -> None:
        self._file = file
        self._lock = lock
        self._snapshot = False
        self._broken = False
        self._pages_checkpointed = 0
        opened: list[apsw.Connection] = []
        try:
            self._writer = self._connect(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, opened)
            self._prepare()
            self._reader = self._connect(apsw.SQLITE_OPEN_READONLY, opened)
            self._reader.execute(_BOUNDS).fetchall()
            self._rows = self._reader.cursor()
        except apsw.Error as error:
            raise self._cannot_start(error) from error
        finally:
            if not hasattr(self, "_rows"):
                for connection in reversed(opened):
                    connection.close(True)

    # on the event loop

    def get(self, key: bytes) -> bytes | None:
        try:
            if not self._snapshot:
                self._begin()
            value: bytes | None = self._rows.execute(_GET, (key,)).get
            return value
        except apsw.Error as error:
            raise self._cannot_read(error) from error

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        try:
            if not self._snapshot:
                self._begin()
            return cast(_Rows, self._rows.execute(_SCAN_BACK if reverse else _SCAN, (low, high, limit)).fetchall())
        except apsw.Error as error:
            raise self._cannot_read(error) from error

    def tail(self, after: int, limit: int) -> list[LogEntry]:
        found: list[LogEntry] = []
        size = 0
        try:
            if not self._snapshot:
                self._begin()
            for row in self._reader.execute(_TAIL, (after, limit)):
                found.append(LogEntry(*row))
                size += len(row[4])
                if size > _TAIL_BYTES:
                    break
        except apsw.Error as error:
            raise self._cannot_read(error) from error
        return found

    def bounds(self) -> tuple[int, int]:
        try:
            if not self._snapshot:
                self._begin()
            first, last = cast(list[tuple[Any, Any]], self._reader.execute(_BOUNDS).fetchall())[0]
        except apsw.Error as error:
            raise self._cannot_read(error) from error
        return (1, 0) if last is None else (first, last)

    def release(self) -> None:
        if self._snapshot:
            self._snapshot = False
            self._rows.execute("COMMIT")

    def _begin(self) -> None:
        if self._reader.in_transaction:  # an error left it open
            self._rows.execute("ROLLBACK")
        self._rows.execute("BEGIN")
        self._snapshot = True

    # on the writer thread

    def commit(self, writes: Mapping[bytes, bytes | None], entries: Sequence[LogEntry], trim_through: int) -> None:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            puts: list[Any] = []
            deletes: list[Any] = []
            for key, value in writes.items():
                if value is None:
                    deletes.append(key)
                else:
                    puts += (key, value)
            self._execute(_PUT, 2, puts)
            self._execute(_DELETE, 1, deletes)
            logged: list[Any] = []
            for entry in entries:
                logged += (entry.seq, entry.at_ms, entry.topic, entry.key, entry.body)
            self._execute(_LOG, 5, logged)
            if trim_through:
                writer.execute(_TRIM, (trim_through,))
            writer.execute("COMMIT")
        except BaseException as error:
            raise self._not_committed(error) from error

    def checkpoint(self, *, full: bool) -> None:
        # Pages that commits wrote to the WAL so far; counting them needs neither a callback nor a look at the file.
        written = self._writer.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
        if not full and written - self._pages_checkpointed < _CHECKPOINT_PAGES:
            return
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if full else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            total, moved = self._writer.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return  # a reader is in the way; the next commit tries again
        except apsw.Error as error:
            failure = self._classify(error)
            if isinstance(failure, StoreFull):
                return  # the WAL still holds everything
            self._broken = True
            raise failure from error
        if moved >= total:
            self._pages_checkpointed = written

    def close(self) -> None:
        try:
            self._reader.close()
            if self._broken:  # touch nothing that another process could still recover
                self._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._writer.close()
        except apsw.Error as error:
            failure = self._classify(error)
            if not isinstance(failure, StoreFull):  # full: the WAL keeps everything, and the next start moves it
                raise failure from error
        finally:
            if self._lock is not None:
                self._lock.release()

    def _execute(self, statements: Mapping[int, str], width: int, values: list[Any]) -> None:
        at, left = 0, len(values) // width
        for rows in _CHUNKS:
            step = rows * width
            while left >= rows:
                self._writer.execute(statements[rows], values[at : at + step])
                at += step
                left -= rows

    def _not_committed(self, error: BaseException) -> MartletError:
        failure = self._classify(error)
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except apsw.Error as rollback:
            failure = StoreFailed(f"{self._file}: {error}; then the rollback failed: {rollback}", remedy=_RESTART)
        self._broken = not isinstance(failure, StoreFull | Overloaded)
        return failure

    # on any other thread

    def backup(self, target: Path) -> int:
        partial = target.with_name(f".{target.name}.partial")
        if target.exists():
            raise Conflict(f"backup target {target} exists already", remedy="name a folder that does not exist yet")
        try:
            partial.mkdir(mode=0o700, parents=True, exist_ok=True)
            copy = partial / FILE
            copy.unlink(missing_ok=True)
            last = self._copy(copy)
            with copy.open("rb+") as file:
                os.fsync(file.fileno())
            sync_folder(partial)
            partial.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            failed = cannot_use(target, error)
            raise StoreFailed(failed.message, remedy=failed.remedy) from error
        except apsw.Error as error:
            raise self._classify(error) from error
        return last

    def _copy(self, copy: Path) -> int:
        source = self._connect(apsw.SQLITE_OPEN_READONLY)
        target = apsw.Connection(os.fspath(copy))
        try:
            target.execute("PRAGMA synchronous=OFF")  # synced as a whole afterwards
            with target.backup("main", source, "main") as progress:
                while not progress.done:
                    progress.step(-1)
            last: int | None = target.execute("SELECT max(seq) FROM log").get
            return last or 0
        finally:
            target.close()
            source.close()

    def verify(self) -> list[str]:
        try:
            connection = self._connect(apsw.SQLITE_OPEN_READONLY)
            try:
                found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
                count, first, last = next(connection.execute("SELECT count(*), min(seq), max(seq) FROM log"))
            finally:
                connection.close()
        except apsw.Error as error:
            return [f"{self._file}: {error}"]
        problems = [f"{self._file}: {problem}" for problem in found if problem != "ok"]
        if count and last - first + 1 != count:
            problems.append(f"{self._file}: the log holds {count} entries between {first} and {last}")
        return problems

    # opening

    def _connect(self, flags: int, opened: list[apsw.Connection] | None = None) -> apsw.Connection:
        connection = apsw.Connection(os.fspath(self._file), flags=flags, vfs=self.vfs)
        if opened is not None:
            opened.append(connection)
        connection.set_busy_timeout(5_000)  # only programs that are not ours can make us wait
        connection.execute("PRAGMA mmap_size=0; PRAGMA cache_size=-32768; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")
        return connection

    def _prepare(self) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        writer = self._writer
        application, version = writer.execute("PRAGMA application_id").get, writer.execute("PRAGMA user_version").get
        fresh = not writer.execute("SELECT count(*) FROM sqlite_schema").get
        if application != APPLICATION and not (fresh and application == 0):
            raise StartFailed(f"{self._file} is a database of another program", remedy="choose another folder")
        if version > FORMAT:
            raise StartFailed(
                f"{self._file} was written by a newer martlet: it has format {version}, this one knows {FORMAT}",
                remedy="install the newer martlet, or restore a backup made with this one",
                format=version,
            )
        mode = writer.execute("PRAGMA journal_mode=WAL").get
        if mode != "wal":
            raise StartFailed(f"{self._file}: this file system has no shared memory for WAL", remedy="use a local disk")
        writer.execute(
            f"PRAGMA synchronous={self.synchronous}; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864;"
            "PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON; PRAGMA temp_store=MEMORY"
        )
        if fresh:
            writer.execute(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT}; COMMIT"
            )

    # errors

    def _cannot_start(self, error: apsw.Error) -> StartFailed:
        if isinstance(error, apsw.NotADBError | apsw.CorruptError | apsw.SQLError):
            return StartFailed(
                f"{self._file} is corrupt: {error}",
                remedy="restore the folder from a backup; keep the damaged files for a look",
                file=str(self._file),
            )
        failure = self._classify(error)
        return StartFailed(failure.message, remedy=failure.remedy, file=str(self._file))

    def _cannot_read(self, error: apsw.Error) -> MartletError:
        self._snapshot = False
        return self._classify(error)

    def _classify(self, error: BaseException) -> MartletError:
        """Ours for theirs. `StoreFull` and `Overloaded` mean that nothing was written."""
        code = getattr(error, "extendedresult", 0)
        writer = getattr(self, "_writer", None)
        no_space = isinstance(error, apsw.IOError | apsw.CantOpenError) and (
            code not in _SYNC_FAILED and writer is not None and writer.system_errno in _NO_SPACE
        )
        if isinstance(error, apsw.FullError) or no_space:
            return StoreFull(f"{self._file}: no space left on the device", remedy="free space; nothing was lost")
        if isinstance(error, apsw.BusyError | apsw.LockedError):
            return Overloaded(f"{self._file} is locked by another program", retry_after_seconds=1)
        if isinstance(error, apsw.NotADBError | apsw.CorruptError):
            return StoreFailed(f"{self._file} is corrupt: {error}", remedy="restore the folder from a backup")
        return StoreFailed(f"{self._file}: {type(error).__name__}: {error}", remedy=_RESTART)


_RESTART: Final = "look at the disk and the kernel's log, then restart; what was acknowledged before is on disk"


def check_sqlite(version: str) -> None:
    """Refuse a SQLite that can corrupt the file."""
    if tuple(int(number) for number in version.split(".")[:3]) < OLDEST_SQLITE:
        oldest = ".".join(str(number) for number in OLDEST_SQLITE)
        raise StartFailed(
            f"SQLite {version} can corrupt files in WAL mode; at least {oldest} is needed",
            remedy="install apsw from its wheel: it carries its own SQLite",
        )


def statements() -> Iterable[str]:
    """Every statement of the hot path, for a test of their query plans."""
    return (_GET, _SCAN, _SCAN_BACK, _TAIL, _TRIM, *_PUT.values(), *_DELETE.values(), *_LOG.values())
