"""Bytes on their way in and out: hashed as they stream, kept durably before anything speaks of them, read by ranges.

Few bytes go into the store, in the same commit as the row that names them; many into the backend. All are sealed (`sealing`).
What the backend holds and no row names is swept up at start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from martlet.clock import token_hex
from martlet.errors import ServiceError, StartFailed
from martlet.objects import rows
from martlet.objects.backend import Backend, Draft, Source
from martlet.objects.checksums import Checksum
from martlet.objects.rows import Segment, place_of
from martlet.objects.sealing import PIECE_BYTES, SEALED_BYTES, RoomKey, Seal, Vault
from martlet.store import Reader, Store, Tx

__all__ = ["Blobs", "Body", "Opened", "Staged"]

_LOG = logging.getLogger("martlet.objects")
_INLINE_BYTES: Final = 32_768  # SQLite reads and writes blobs of this size faster than files; fsync is shared with the row
_BLOCK_BYTES: Final = 1_048_576
_READ_BYTES: Final = 262_144
_ROOMS: Final = "s"  # before a blob's id: sealed under the room's key …
_CLIENTS: Final = "k"  # … under a client's


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

    blob: str
    size: int
    md5: bytes
    checksums: dict[str, str]
    content: bytes | None

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (Segment(self.blob, 0, self.size),)

    def use(self, tx: Tx) -> None:
        rows.use_blob(tx, self.blob, self.content)


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

    def staged(self, blob: str, content: bytes | None) -> Staged:
        return Staged(blob, self.size, self._md5.digest(), {one.algorithm: one.text() for one in self._running}, content)


class _Writer:
    """Bytes on their way into a blob: hashed and, side by side with that, sealed and written."""

    def __init__(self, draft: Callable[[], Draft], seal: Seal, digests: _Digests) -> None:
        self._make = draft
        self._seal = seal
        self._digests = digests
        self._waiting = bytearray()
        self._pieces = 0
        self.draft: Draft | None = None

    async def add(self, data: bytes) -> None:
        self._waiting += data
        self._digests.size += len(data)
        if len(self._waiting) >= _BLOCK_BYTES:
            size = len(self._waiting) // PIECE_BYTES * PIECE_BYTES
            block = bytes(memoryview(self._waiting)[:size])
            del self._waiting[:size]
            await asyncio.gather(self._write(block), asyncio.to_thread(self._digests.update, block))

    async def _write(self, block: bytes) -> None:
        if self.draft is None:
            self.draft = self._make()
        first, self._pieces = self._pieces, self._pieces + -(-len(block) // PIECE_BYTES)
        await self.draft.write(await asyncio.to_thread(self._seal.seal, first, block))

    async def end(self) -> bytes | None:
        """The sealed bytes, if they are few; else the blob is durable, and None."""
        rest = bytes(self._waiting)
        self._digests.update(rest)
        if self.draft is None and len(rest) <= _INLINE_BYTES:
            return self._seal.seal(0, rest)
        if rest:
            await self._write(rest)
        assert self.draft is not None
        await self.draft.keep()
        return None


class Blobs:
    """Every blob of the platform."""

    def __init__(self, store: Store, backend: Backend, vault: Vault) -> None:
        self._store = store
        self._backend = backend
        self._key = RoomKey(store, vault)
        self._staged: set[str] = set()  # kept or being written, not yet named by a row
        self._pins: dict[str, int] = {}  # blobs that are being read
        self._tasks: set[asyncio.Task[None]] = set()
        self._doomed: set[str] = set()  # to be removed when they are not read any more

    async def stage(self, body: Body, algorithms: Iterable[str] = (), key: bytes | None = None) -> Staged:
        """Read the body to its end and keep it, sealed under the client's `key` or the room's. Raises what the body raises,
        `OSError`; then nothing of it stays."""
        digests = _Digests(algorithms)
        id = token_hex(16)
        seal = Seal(key or await self._key.get(), id)
        writer = _Writer(lambda: self._backend.draft(id), seal, digests)
        mark = _CLIENTS if key else _ROOMS
        self._staged.add(id)
        try:
            async for data in body:
                await writer.add(data)
            content = await writer.end()
        except BaseException:
            if writer.draft is not None:
                await asyncio.shield(writer.draft.discard())
            self._staged.discard(id)
            raise
        if content is not None:
            self._staged.discard(id)
            return digests.staged(f"{mark}i{id}", content)
        return digests.staged(mark + id, None)

    async def digest(self, opened: Opened, algorithms: Iterable[str]) -> Staged:
        """What staging the opened bytes would say of them, without keeping them."""
        digests = _Digests(algorithms)
        async for block in opened:
            digests.size += len(block)
            await asyncio.to_thread(digests.update, block)
        return digests.staged("", None)

    def settle(self, staged: Staged) -> None:
        """A committed row names it now."""
        self._staged.discard(place_of(staged.blob))

    async def discard(self, staged: Staged) -> None:
        """No row will name it."""
        if staged.content is None:
            await self._backend.remove(place_of(staged.blob))
            self._staged.discard(place_of(staged.blob))

    async def give_up(self, staged: Staged, error: BaseException) -> None:
        """The commit that was to name it raised. Where S3's rules refused it, the bytes go. Else (cancelled, store away) it may
        be committed all the same: then they stay, and the sweep at the next start decides."""
        if isinstance(error, ServiceError):
            await asyncio.shield(self.discard(staged))
        else:
            self.settle(staged)

    def open(self, reader: Reader, segments: Sequence[Segment], key: bytes | None = None) -> Opened:
        """The bytes of these segments, as they are at this moment; `key`: the client's, which sealed them. Close what it gives,
        or iterate it to its end."""
        contents: dict[str, bytes] = {}
        pinned: set[str] = set()
        for segment in segments:
            place = place_of(segment.blob)
            if place:
                pinned.add(place)
            elif segment.blob not in contents:
                raw = reader.get(rows.blob_key(segment.blob))
                contents[segment.blob] = raw[4:] if raw is not None else b""
        for id in pinned:
            self._pins[id] = self._pins.get(id, 0) + 1
        return Opened(self, segments, contents, pinned, key)

    async def source(self, blob: str) -> Source:
        return await self._backend.open(place_of(blob))

    async def seal(self, blob: str, key: bytes | None) -> Seal | None:
        """What decrypts it; None for one that an earlier Martlet kept as it came."""
        mark, id = blob[0], blob[-32:]
        if mark == _ROOMS:
            return Seal(await self._key.get(), id)
        if mark == _CLIENTS:
            assert key is not None
            return Seal(key, id)
        return None

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
        """Nothing names these blobs any more. What cannot be removed now is swept up at the next start."""
        for id in filter(None, map(place_of, ids)):
            if id in self._pins:
                self._doomed.add(id)
            else:
                await self._remove(id)

    async def _remove(self, id: str) -> None:
        try:
            await self._backend.remove(id)
        except OSError as error:
            _LOG.warning("blob %s stays until the next start: %s", id, error)

    async def claim(self) -> None:
        """Make sure that the blobs are this store's: another platform's would be swept up. Raises `StartFailed`."""
        owner = await self._store.transact(lambda tx: rows.owner(tx, token_hex(16)))
        try:
            found = await self._backend.claim(owner)
        except OSError as error:
            raise StartFailed(f"objects: {error}", remedy="check where they are kept (MARTLET_OBJECTS)") from error
        if found != owner:
            raise StartFailed(
                "objects: what is kept there belongs to another platform",
                remedy="give MARTLET_OBJECTS a folder, or a prefix (s3://bucket/prefix), of its own",
            )

    async def sweep(self, before_ms: int) -> int:
        """Remove what no row names and was there before that moment; the number of blobs that went. Safe beside normal work."""
        count = 0
        async for id in self._backend.ids(before_ms):
            if id in self._staged or id in self._pins or self._is_named(id):
                continue
            await self._remove(id)
            count += 1
        return count

    def _is_named(self, id: str) -> bool:
        names = (_ROOMS + id, _CLIENTS + id, id)
        return self._store.read(lambda reader: any(reader.get(rows.blob_key(name)) is not None for name in names))

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

    def __init__(
        self, blobs: Blobs, segments: Sequence[Segment], contents: dict[str, bytes], pinned: set[str], key: bytes | None
    ) -> None:
        self._blobs = blobs
        self._segments = list(segments)
        self._contents = contents
        self._pinned = pinned
        self._key = key
        self.trailer_names: Sequence[str] = ()  # as a `Body`
        self.trailers: Mapping[str, str] = {}
        self.size: int = sum(segment.size for segment in segments)

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
                try:
                    async for block in self._blocks(segment):
                        yield block
                except OSError as error:
                    raise OSError(f"blob {segment.blob}: {error}") from error
        finally:
            await self.close()

    async def _blocks(self, segment: Segment) -> AsyncIterator[bytes]:
        seal = await self._blobs.seal(segment.blob, self._key)
        if segment.blob in self._contents:
            content = self._contents[segment.blob]
            content = content if seal is None else seal.unseal(0, content)
            yield content[segment.offset : segment.offset + segment.size]
            return
        source: Any = await self._blobs.source(segment.blob)
        try:
            at, end = segment.offset, segment.offset + segment.size
            while at < end:
                block = await (_plain(source, at, end) if seal is None else _unsealed(source, seal, at, end))
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


async def _plain(source: Source, at: int, end: int) -> bytes:
    block = await source.read(at, min(_READ_BYTES, end - at))
    if not block:
        raise OSError(f"it ends at {at}, before its end")
    return block


async def _unsealed(source: Source, seal: Seal, at: int, end: int) -> bytes:
    """Bytes from `at` on, to the end of their piece or to `end`."""
    number, inside = divmod(at, PIECE_BYTES)
    place, sealed = number * SEALED_BYTES, b""
    while len(sealed) < SEALED_BYTES and (more := await source.read(place + len(sealed), SEALED_BYTES - len(sealed))):
        sealed = sealed + more if sealed else more
    piece = seal.unseal(number, sealed)
    block = piece if not inside and len(piece) <= end - at else piece[inside : inside + end - at]
    if not block:
        raise OSError(f"it ends at {at}, before its end")
    return block


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
