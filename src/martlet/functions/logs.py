"""What functions wrote and how their invocations went: one record each, kept on disk up to a limit.

`append` only puts the record into a list. At most `FLUSH_MS` later the list goes to a writer thread that adds JSON lines
to `<folder>/<function>/<start_ms>.jsonl`. Logs are not acknowledged to anybody and not fsynced: `kill -9` can lose what
is not flushed yet, and leaves at most one torn line, which is cut off when the file is written to again and passed over by
readers. If the disk cannot keep up or is full, records are dropped, counted, and a line in the log says how many.

Lines have the forms that AWS Lambda writes to CloudWatch Logs (START, END, REPORT).
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from martlet.clock import Clock
from martlet.errors import InvalidInput
from martlet.functions.log_formats import platform_records
from martlet.limits import LIMITS

__all__ = ["FLUSH_MS", "LogRecord", "LogStore", "tail_base64"]

FLUSH_MS: Final = 50
TAIL_BYTES: Final = 4096  # Lambda Invoke API: X-Amz-Log-Result carries the last 4 KB
_SEGMENTS: Final = 8  # a function's share of the disk is freed in steps of an eighth
_RECORD_COST: Final = 512  # bytes that a buffered record costs beside its lines


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """One invocation, or (with an empty `request_id`) lines of the platform outside of any. Times in the unit they name."""

    function: str
    version: int  # 0: $LATEST
    request_id: str
    started_at_ms: int
    queue_us: int = 0
    init_us: int | None = None  # None: a warm start
    duration_us: int = 0
    cpu_us: int = 0
    memory_mb: int = 0
    peak_mb: int = 0
    status: str = ""  # "", "error" or "timeout"
    error_type: str = ""
    trace_id: str = ""
    source: str = ""
    lines: bytes = b""  # what the function wrote, as it wrote it
    stream: str = ""  # of the instance that ran it; "": the platform itself
    qualifier: str = ""  # "$LATEST" or the number of a published version; "": the revision in `version` is named instead
    system: str = ""  # the system log level of a function that logs in JSON; "": plain text

    @property
    def ended_at_ms(self) -> int:
        return self.started_at_ms + ((self.init_us or 0) + self.duration_us) // 1000

    def render(self) -> list[str]:
        """The record as Lambda's log lines, without line ends."""
        opening, body, closing = self.parts()
        return [*opening, *body, *closing]

    def parts(self) -> tuple[list[str], list[str], list[str]]:
        """What the platform wrote before the run, what the function wrote, what the platform wrote after it."""
        written = self.lines.decode("utf-8", "replace").removesuffix("\n")
        body = written.split("\n") if written else []
        if not self.request_id:
            return [], body, []
        version = self.qualifier or self.version or "$LATEST"
        if self.system:
            opening, closing = platform_records(self, str(version))
            return opening, body, closing
        start = f"START RequestId: {self.request_id} Version: {version}"
        return [start], body, [f"END RequestId: {self.request_id}", self.report()]

    def report(self) -> str:
        """The REPORT line. Billed is the duration in whole milliseconds, rounded up."""
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_us / 1000:.2f} ms",
            f"Billed Duration: {-(-self.duration_us // 1000)} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.peak_mb} MB",
        ]
        if self.init_us is not None:
            parts.append(f"Init Duration: {self.init_us / 1000:.2f} ms")
        if self.status:
            parts.append(f"Status: {self.status}")
        if self.error_type and self.status != "timeout":
            parts.append(f"Error Type: {self.error_type}")
        return "\t".join(parts) + "\t"


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record as it is on disk: `lines` as text, or as base64 where it is not UTF-8, so that no byte is lost."""

    version: int
    request_id: str
    started_at_ms: int
    queue_us: int = 0
    init_us: int | None = None
    duration_us: int = 0
    cpu_us: int = 0
    memory_mb: int = 0
    peak_mb: int = 0
    status: str = ""
    error_type: str = ""
    trace_id: str = ""
    source: str = ""
    lines: str = ""
    lines_base64: bytes = b""
    stream: str = ""
    qualifier: str = ""
    system: str = ""


_FIELDS: Final = tuple(name for name in _Line.__struct_fields__ if not name.startswith("lines"))
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Line)


def tail_base64(text: bytes) -> str:
    """The last 4 KB of a log, for the X-Amz-Log-Result header; begins at a whole UTF-8 character."""
    tail = text[-TAIL_BYTES:]
    if len(text) > TAIL_BYTES:
        start = 0
        while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
            start += 1
        tail = tail[start:]
    return base64.b64encode(tail).decode()


class _Follower:
    """Records on their way to one reader. A reader that is too slow loses the oldest, and is told."""

    __slots__ = ("event", "function", "lost", "queue", "size")

    def __init__(self, function: str | None) -> None:
        self.function = function
        self.queue: deque[LogRecord] = deque()
        self.size = 0
        self.lost = 0
        self.event = asyncio.Event()

    def offer(self, record: LogRecord, most_bytes: int) -> None:
        if self.function is not None and record.function != self.function:
            return
        self.queue.append(record)
        self.size += len(record.lines) + _RECORD_COST
        while self.size > most_bytes and len(self.queue) > 1:
            self.size -= len(self.queue.popleft().lines) + _RECORD_COST
            self.lost += 1
        self.event.set()

    def take(self) -> LogRecord:
        record = self.queue.popleft()
        self.size -= len(record.lines) + _RECORD_COST
        return record


class LogStore:
    """The logs of all functions below folder `path`. Call it on the event loop; files are touched by its threads only."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        bytes_per_function: int = LIMITS["log_bytes_per_function"].default,
        bytes_per_invocation: int = LIMITS["log_bytes_per_invocation"].default,
        buffer_bytes: int = LIMITS["log_buffer_bytes"].default,
    ) -> None:
        self._clock = clock
        self._files = _Files(path, clock, bytes_per_function)
        self._most_lines = bytes_per_invocation
        self._most_buffer = buffer_bytes
        self._pending: list[LogRecord] = []
        self._buffered = 0  # bytes of records that are not on disk yet
        self._armed: asyncio.TimerHandle | None = None
        self._writer = ThreadPoolExecutor(1, "martlet-logs")
        self._followers: set[_Follower] = set()
        self._closed = False
        self._to_report: dict[str, int] = {}  # dropped records by function that no line in the log tells of yet
        self.dropped = 0  # records that are in no file: the disk was too slow or full

    def append(self, record: LogRecord, *, is_cut: bool = False) -> None:
        """Take a record. Does no I/O; a record that does not fit into the buffer is dropped and counted. `is_cut`: its lines
        have been through `fitting`."""
        size = len(record.lines)
        if size > self._most_lines and not is_cut:
            record = msgspec.structs.replace(record, lines=self.fitting(record.lines))
            size = len(record.lines)
        self._buffered += size + _RECORD_COST
        if self._buffered > self._most_buffer or self._closed:
            self._buffered -= size + _RECORD_COST
            self._drop(record.function, 1)
            return
        self._pending.append(record)
        if self._armed is None:
            self._armed = asyncio.get_running_loop().call_later(FLUSH_MS / 1000, self._hand_over)

    def platform(self, function: str, text: str) -> None:
        """Lines that belong to no invocation: a failed init, an instance that crashed."""
        now_ms = self._clock.now_ms()
        self.append(LogRecord(function, 0, "", now_ms, source="platform", lines=text.encode("utf-8", "replace")))

    async def flush(self) -> None:
        """Return once everything that was appended is in the files (or dropped and counted)."""
        if self._closed:
            return
        self._hand_over()
        await asyncio.wrap_future(self._writer.submit(lambda: None))

    async def read(self, function: str | None = None, since_ms: int | None = None, limit: int = 1000) -> list[LogRecord]:
        """The newest `limit` records that ended at or after `since_ms`, of one function or all, in order of their end."""
        if limit < 1:
            raise InvalidInput(f"limit {limit}: must be at least 1", field="limit")
        sizes = await self._snapshot(function)
        return await asyncio.to_thread(self._files.read, sizes, since_ms, limit)

    async def follow(
        self, function: str | None = None, since_ms: int | None = None, limit: int = 1000
    ) -> AsyncGenerator[LogRecord, None]:
        """Records as they come, at most 100 ms late, from the first iteration on; before them, if `since_ms` is given,
        what `read` finds. A reader that is too slow gets a record that says how many it missed."""
        follower = _Follower(function)
        snapshot = self._snapshot(function)  # hands over what is pending before the follower starts to listen,
        self._followers.add(follower)  # and nothing can come between: each record is in exactly one of both
        try:
            sizes = await snapshot
            if since_ms is not None:
                for record in await asyncio.to_thread(self._files.read, sizes, since_ms, limit):
                    yield record
            while True:
                for record in self._taken(follower):
                    yield record
                if self._closed:
                    return
                follower.event.clear()
                await follower.event.wait()
        finally:
            self._followers.discard(follower)

    async def kept(self) -> dict[str, tuple[int, int]]:
        """Each function that has a log: when it begins (ms), and its size on disk (bytes)."""
        sizes = await self._snapshot(None)
        return {
            function: (int(segments[0][0].stem), sum(size for _, size in segments)) for function, segments in sizes if segments
        }

    async def forget(self, function: str) -> None:
        """Delete the function's log. What it writes from now on begins a new one."""
        if not self._closed:
            self._hand_over()
            await asyncio.wrap_future(self._writer.submit(self._files.forget, function))

    async def expire(self, function: str, before_ms: int) -> None:
        """Delete the parts of the function's log in which every record ended before that."""
        if not self._closed:
            self._hand_over()
            await asyncio.wrap_future(self._writer.submit(self._files.expire, function, before_ms))

    async def close(self) -> None:
        """Write what is pending, end all followers. Later records are dropped and counted."""
        if self._closed:
            return
        await self.flush()
        self._closed = True
        for follower in self._followers:
            follower.event.set()
        await asyncio.to_thread(self._writer.shutdown)

    def _taken(self, follower: _Follower) -> Iterator[LogRecord]:
        while follower.queue:
            if follower.lost:
                yield self._notice(follower.function or "", f"{follower.lost} records left out: this reader is too slow")
                follower.lost = 0
            yield follower.take()

    def _snapshot(self, function: str | None) -> asyncio.Future[_Sizes]:
        """The files and their sizes between two batches, after everything that was appended so far."""
        if self._closed:
            done: asyncio.Future[_Sizes] = asyncio.get_running_loop().create_future()
            done.set_result(self._files.sizes(function))
            return done
        self._hand_over()
        return asyncio.wrap_future(self._writer.submit(self._files.sizes, function))

    def _hand_over(self) -> None:
        """Give what is pending to the followers and the writer thread."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        batch, self._pending = self._pending, []
        reported, self._to_report = self._to_report, {}
        for function, count in reported.items():
            batch.append(self._notice(function, f"{count} records left out: the log's disk is too slow or full"))
        if not batch:
            return
        for follower in self._followers:
            for record in batch:
                follower.offer(record, self._most_buffer)
        size = sum(len(record.lines) + _RECORD_COST for record in batch)
        # Encoded here, not on the writer thread: a thread that holds the interpreter makes the loop wait up to 5 ms
        # after each system call (measured: p99 of the gateway 50 ms instead of 10).
        texts, unfit = _encode_all(batch)
        for function, count in unfit.items():
            self._drop(function, count)
        written = asyncio.wrap_future(self._writer.submit(self._files.write, texts))
        written.add_done_callback(lambda done: self._written(size, reported, done.result()))

    def _written(self, size: int, reported: Mapping[str, int], lost: Mapping[str, int]) -> None:
        self._buffered = max(self._buffered - size, 0)
        for function, count in lost.items():
            if function in reported:  # the notice itself was lost: it is no record, and what it told is still to be told
                count -= 1
                self._to_report[function] = self._to_report.get(function, 0) + reported[function]
            self._drop(function, count)

    def _drop(self, function: str, count: int) -> None:
        self.dropped += count
        self._to_report[function] = self._to_report.get(function, 0) + count

    def _notice(self, function: str, text: str) -> LogRecord:
        return LogRecord(function, 0, "", self._clock.now_ms(), source="platform", lines=f"[martlet] {text}\n".encode())

    def fitting(self, lines: bytes, lost: int = 0) -> bytes:
        """The beginning of what one invocation wrote, up to the limit, and a line that says what is missing. `lost`: bytes that
        followed and that nobody has kept."""
        most, size = self._most_lines, len(lines) + lost
        if size <= most:
            return lines
        kept = lines[:most]
        while kept and most < len(lines) and lines[len(kept)] & 0xC0 == 0x80:
            kept = kept[:-1]  # not within a UTF-8 character
        notice = f"[martlet] log cut: limit log_bytes_per_invocation is {most} bytes, got {size}\n"
        return kept.removesuffix(b"\n") + b"\n" + notice.encode()


_Sizes = list[tuple[str, list[tuple[Path, int]]]]  # function, its segments from old to new with their sizes


class _Files:
    """The segments on disk. `write` and `sizes` run on the writer thread only; `read` anywhere."""

    def __init__(self, path: Path, clock: Clock, bytes_per_function: int) -> None:
        self._path = path
        self._clock = clock
        self._most_bytes = bytes_per_function
        self._segment_bytes = max(bytes_per_function // _SEGMENTS, 1)
        self._open: dict[str, list[tuple[Path, int]]] = {}  # segments of the functions written to since the start

    def write(self, texts: dict[str, tuple[bytes, int]]) -> dict[str, int]:
        """Add each function's lines (joined, and how many they are); returns how many of which could not be written."""
        lost: dict[str, int] = {}
        for function, (text, count) in texts.items():
            try:
                self._write_function(function, text)
            except OSError:
                self._open.pop(function, None)  # look at the folder afresh, and cut off what is torn
                lost[function] = count
        return lost

    def sizes(self, function: str | None) -> _Sizes:
        if function is not None:
            return [(function, _segments(self._path / _folder(function)))]
        try:
            names = sorted(entry.name for entry in self._path.iterdir() if entry.is_dir())
        except FileNotFoundError:
            return []
        return [(_function(name), _segments(self._path / name)) for name in names]

    def read(self, sizes: _Sizes, since_ms: int | None, limit: int) -> list[LogRecord]:
        found: list[LogRecord] = []
        for function, segments in sizes:
            mine: list[LogRecord] = []
            for path, size in reversed(segments):
                all_of_it = _decode(function, path, size)
                good = [record for record in all_of_it if since_ms is None or record.ended_at_ms >= since_ms]
                mine = good + mine
                if len(mine) >= limit or (all_of_it and not good):
                    break  # segments are in order of time: older ones hold nothing newer
            found = sorted(found + mine, key=_ended_at)[-limit:]
        return found

    def forget(self, function: str) -> None:
        self._open.pop(function, None)
        folder = self._path / _folder(function)
        for path, _ in _segments(folder):
            path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def expire(self, function: str, before_ms: int) -> None:
        segments = _segments(self._path / _folder(function))
        for path, size in segments:
            records = _decode(function, path, size)
            if records and max(record.ended_at_ms for record in records) >= before_ms:
                return
            self._open.pop(function, None)
            path.unlink(missing_ok=True)

    def _write_function(self, function: str, text: bytes) -> None:
        folder = self._path / _folder(function)
        segments = self._open.get(function)
        if segments is None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            segments = self._open[function] = _mended(_segments(folder))
        for chunk in _pieces(text, self._segment_bytes):
            if not segments or segments[-1][1] + len(chunk) > self._segment_bytes:
                newest = int(segments[-1][0].stem) if segments else 0
                segments.append((folder / f"{max(self._clock.now_ms(), newest + 1)}.jsonl", 0))
            path, size = segments[-1]
            with open(path, "ab", buffering=0) as file:
                if file.write(chunk) != len(chunk):
                    raise OSError(f"{path}: short write")
            segments[-1] = (path, size + len(chunk))
            self._delete_oldest(segments)

    def _delete_oldest(self, segments: list[tuple[Path, int]]) -> None:
        while len(segments) > 1 and sum(size for _, size in segments) > self._most_bytes:
            segments[0][0].unlink(missing_ok=True)
            del segments[0]


def _ended_at(record: LogRecord) -> int:
    return record.ended_at_ms


def _folder(function: str) -> str:
    """A folder name for any function name; never hidden, never outside."""
    return quote(function, safe="").replace(".", "%2E") or "%"


def _function(folder: str) -> str:
    return "" if folder == "%" else unquote(folder)


def _segments(folder: Path) -> list[tuple[Path, int]]:
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".jsonl" and path.stem.isdecimal()]
    except FileNotFoundError:
        return []
    return [(path, path.stat().st_size) for path in sorted(found, key=lambda path: int(path.stem))]


def _mended(segments: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """Cut off a last line that a crash left unfinished."""
    if segments:
        path, size = segments[-1]
        with open(path, "r+b") as file:
            whole = file.read().rfind(b"\n") + 1
            if whole != size:
                file.truncate(whole)
        segments[-1] = (path, whole)
    return segments


def _encode_all(batch: list[LogRecord]) -> tuple[dict[str, tuple[bytes, int]], dict[str, int]]:
    """Each function's records as JSON lines with their number; and how many of which have text that UTF-8 cannot carry."""
    lines: dict[str, list[bytes]] = {}
    unfit: dict[str, int] = {}
    for record in batch:
        try:
            lines.setdefault(record.function, []).append(_encode(record))
        except ValueError:  # a lone surrogate, from a hostile error name
            unfit[record.function] = unfit.get(record.function, 0) + 1
    return {function: (b"\n".join(found) + b"\n", len(found)) for function, found in lines.items() if found}, unfit


def _pieces(text: bytes, most: int) -> Iterator[bytes]:
    """`text` in pieces of whole lines of about `most` bytes."""
    start = 0
    while len(text) - start > most:
        end = text.rfind(b"\n", start, start + most) + 1 or text.find(b"\n", start) + 1
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _encode(record: LogRecord) -> bytes:
    lines = record.lines
    try:
        text, binary = lines.decode(), b""
    except UnicodeDecodeError:
        text, binary = "", lines
    line = _Line(
        record.version,
        record.request_id,
        record.started_at_ms,
        record.queue_us,
        record.init_us,
        record.duration_us,
        record.cpu_us,
        record.memory_mb,
        record.peak_mb,
        record.status,
        record.error_type,
        record.trace_id,
        record.source,
        text,
        binary,
        record.stream,
        record.qualifier,
        record.system,
    )
    return _ENCODER.encode(line)


def _decode(function: str, path: Path, size: int) -> list[LogRecord]:
    """The records in the first `size` bytes; none if the segment was deleted meanwhile. Passes over torn lines."""
    try:
        with open(path, "rb") as file:
            raw = file.read(size)
    except FileNotFoundError:
        return []
    found = []
    for text in raw.split(b"\n")[:-1]:  # what follows the last line end is torn, even if it looks whole
        try:
            line = _DECODER.decode(text)
        except msgspec.MsgspecError:
            continue  # torn by a crash: it was never whole, so there is nothing to show
        values = {name: getattr(line, name) for name in _FIELDS}
        found.append(LogRecord(function, **values, lines=line.lines_base64 or line.lines.encode()))
    return found
