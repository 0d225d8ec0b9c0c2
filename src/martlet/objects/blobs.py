"""Bytes on their way in and out: hashed as they stream, kept durably before anything speaks of them, read by ranges.

Few bytes go into the store, in the same commit as the row that names them; many into the backend. What the backend holds
and no row names is swept up at start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from martlet.clock import token_hex
from martlet.objects import rows
from martlet.objects.backend import Backend, Draft, Source
from martlet.objects.checksums import Checksum
from martlet.objects.rows import Segment
from martlet.store import Reader, Store, Tx

__all__ = ["Blobs", "Body", "Opened", "Staged"]

_LOG = logging.getLogger("martlet.objects")
_INLINE_BYTES: Final = 32_768  # SQLite reads and writes blobs of this size faster than files; fsync is shared with the row
_BLOCK_BYTES: Final = 1_048_576
_READ_BYTES: Final = 262_144


class Body(Protocol):
    """An object's bytes as they come in. Iterating raises the error of whatever is wrong with them; at the end `trailers`
    (lower-case names) are known. `trailer_names`: those that were announced."""

    @property
    def size(self) -> int | None: ...
    @property
    def trailer_names(self) -> Sequence[str]: ...
    @property
    def trailers(self) -> Mapping[str, str]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Plain:
    """Bytes that are all there, as a `Body`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size: int | None = len(data)
        self.trailer_names: Sequence[str] = ()
        self.trailers: Mapping[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data


class Staged(msgspec.Struct, frozen=True):
    """Bytes that are kept, but that no row names yet: commit `use`, or `Blobs.discard` them. `content`: of few bytes."""

    id: str
    size: int
    md5: bytes
    checksums: dict[str, str]
    content: bytes | None

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (Segment(self.id, 0, self.size),)

    def use(self, tx: Tx) -> None:
        rows.use_blob(tx, self.id, self.content)


class _Digests:
    """All that is computed over a body."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._running = [Checksum(name) for name in dict.fromkeys(algorithms)]
        self.size = 0

    def update(self, data: bytes) -> None:
        self._md5.update(data)
        for one in self._running:
            one.update(data)

    def staged(self, id: str, content: bytes | None) -> Staged:
        return Staged(id, self.size, self._md5.digest(), {one.algorithm: one.text() for one in self._running}, content)


class Blobs:
    """Every blob of the platform."""

    def __init__(self, store: Store, backend: Backend, is_common: bool) -> None:
        self._store = store
        self._is_common = is_common
        self._backend = backend
        self._staged: set[str] = set()  # kept or being written, not yet named by a row
        self._pins: dict[str, int] = {}  # blobs that are being read
        self._tasks: set[asyncio.Task[None]] = set()
        self._doomed: set[str] = set()  # to be removed when they are not read any more

    async def stage(self, body: Body, algorithms: Iterable[str] = ()) -> Staged:
        """Read the body to its end and keep it. Raises what the body raises, `OSError`; then nothing of it stays."""
        digests = _Digests(algorithms)
        waiting = bytearray()
        draft: Draft | None = None
        id = token_hex(16)
        self._staged.add(id)
        try:
            async for data in body:
                waiting += data
                digests.size += len(data)
                if len(waiting) >= _BLOCK_BYTES:
                    draft = draft or self._backend.draft(id)
                    block = bytes(waiting)
                    waiting.clear()
                    await asyncio.gather(draft.write(block), asyncio.to_thread(digests.update, block))
            rest = bytes(waiting)
            digests.update(rest)
            if draft is None and len(rest) <= _INLINE_BYTES:
                self._staged.discard(id)
                return digests.staged(f"i{id}", rest)
            draft = draft or self._backend.draft(id)
            if rest:
                await draft.write(rest)
            await draft.keep()
            return digests.staged(id, None)
        except BaseException:
            if draft is not None:
                await asyncio.shield(draft.discard())
            self._staged.discard(id)
            raise

    async def digest(self, opened: Opened, algorithms: Iterable[str]) -> Staged:
        """What staging the opened bytes would say of them, without keeping them."""
        digests = _Digests(algorithms)
        async for block in opened:
            digests.size += len(block)
            await asyncio.to_thread(digests.update, block)
        return digests.staged("", None)

    def settle(self, staged: Staged) -> None:
        """A committed row names it now."""
        self._staged.discard(staged.id)

    async def discard(self, staged: Staged) -> None:
        """No row will name it."""
        if staged.content is None:
            await self._backend.remove(staged.id)
            self._staged.discard(staged.id)

    def open(self, reader: Reader, segments: Sequence[Segment]) -> Opened:
        """The bytes of these segments, as they are at this moment. Close what it gives, or iterate it to its end."""
        contents: dict[str, bytes] = {}
        for segment in segments:
            if segment.blob.startswith("i") and segment.blob not in contents:
                raw = reader.get(rows.blob_key(segment.blob))
                contents[segment.blob] = raw[4:] if raw is not None else b""
        pinned = {segment.blob for segment in segments if not segment.blob.startswith("i")}
        for id in pinned:
            self._pins[id] = self._pins.get(id, 0) + 1
        return Opened(self, segments, contents, pinned)

    async def source(self, id: str) -> Source:
        return await self._backend.open(id)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def unpin(self, ids: Iterable[str]) -> None:
        for id in ids:
            left = self._pins[id] - 1
            if left:
                self._pins[id] = left
                continue
            del self._pins[id]
            if id in self._doomed:
                self._doomed.discard(id)
                await self._remove(id)

    async def remove(self, ids: Iterable[str]) -> None:
        """Nothing names these any more. What cannot be removed now is swept up at the next start."""
        for id in ids:
            if id.startswith("i"):
                continue
            if id in self._pins:
                self._doomed.add(id)
            else:
                await self._remove(id)

    async def _remove(self, id: str) -> None:
        try:
            await self._backend.remove(id)
        except OSError as error:
            _LOG.warning("blob %s stays until the next start: %s", id, error)

    async def sweep(self) -> int:
        """Remove what no row names; the number of blobs that went. Safe beside normal work. Nothing where several nodes have
        the same place for bytes: another one may be writing what has no row yet."""
        count = 0
        if self._store.shared and self._is_common:
            return count
        async for id in self._backend.ids():
            if id in self._staged or id in self._pins or self._is_named(id):
                continue
            await self._remove(id)
            count += 1
        return count

    def _is_named(self, id: str) -> bool:
        return self._store.read(lambda reader: reader.get(rows.blob_key(id))) is not None

    async def close(self) -> None:
        await self._backend.close()


async def folder_owner(store: Store) -> str:
    """The node in whose folder the bytes are, where nodes share the store and no place for bytes: the first that asked."""
    row = rows.FOLDER

    def take(tx: Tx) -> str:
        found = tx.get(row)
        if found is None:
            tx.put(row, store.node.encode())
        return store.node if found is None else found.decode()

    return await store.transact(take)


class Opened:
    """Bytes to be read once: all of them, or what `limit` leaves."""

    def __init__(self, blobs: Blobs, segments: Sequence[Segment], contents: dict[str, bytes], pinned: set[str]) -> None:
        self._blobs = blobs
        self._segments = list(segments)
        self._contents = contents
        self._pinned = pinned
        self.size = sum(segment.size for segment in segments)

    def limit(self, start: int, size: int) -> Opened:
        """Only these bytes; `start` and `size` lie within."""
        self._segments = slice_segments(self._segments, start, size)
        self.size = size
        return self

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    def drop(self) -> None:
        """`close`, where nothing can be awaited."""
        if self._pinned:
            self._blobs.later(self.close())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for segment in self._segments:
                if segment.blob in self._contents:
                    yield self._contents[segment.blob][segment.offset : segment.offset + segment.size]
                    continue
                async for block in self._blocks(segment):
                    yield block
        finally:
            await self.close()

    async def _blocks(self, segment: Segment) -> AsyncIterator[bytes]:
        source: Any = await self._blobs.source(segment.blob)
        try:
            at, end = segment.offset, segment.offset + segment.size
            while at < end:
                block = await source.read(at, min(_READ_BYTES, end - at))
                if not block:
                    raise OSError(f"blob {segment.blob} ends at {at}, before its end")
                at += len(block)
                yield block
        finally:
            await source.close()

    async def bytes(self) -> bytes:
        return b"".join([block async for block in self])

    async def close(self) -> None:
        """Safe to call again."""
        pinned, self._pinned = self._pinned, set()
        await self._blobs.unpin(pinned)


def slice_segments(segments: Sequence[Segment], start: int, size: int) -> list[Segment]:
    """The part of these segments from byte `start` on."""
    found: list[Segment] = []
    for segment in segments:
        if size <= 0:
            break
        if start >= segment.size:
            start -= segment.size
            continue
        taken = min(segment.size - start, size)
        found.append(Segment(segment.blob, segment.offset + start, taken))
        start, size = 0, size - taken
    return found
