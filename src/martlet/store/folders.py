"""Folders that every node of a shared database needs: code and layers, by their content's address, as rows.

A node that makes one keeps it here before anything refers to it; another one fetches it when it first needs it. So what a
deployment committed can be run by whoever sees the commit, and a database is all that nodes have to share. Where nobody shares
the store nothing is kept: the files are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from martlet.clock import token_hex
from martlet.errors import StoreFailed
from martlet.store import keys
from martlet.store.store import Store
from martlet.store.transaction import Tx

__all__ = ["Folders"]

_HEAD: Final = "folder"  # (.., kind, address) -> _Head
_PART: Final = "folder.part"  # (.., upload, number) -> bytes of a compressed tar
_PART_BYTES: Final = 1_048_576
_PARTS_AT_ONCE: Final = 4
_TOUCH_MS: Final = 3_600_000
_UNUSED_MS: Final = 24 * 3_600_000  # nobody can still be about to refer to it
_ENCODE = msgspec.msgpack.Encoder().encode


class _Head(msgspec.Struct, frozen=True):
    upload: str
    parts: int
    digest: str  # SHA-256 of the parts
    used_at_ms: int


_DECODE = msgspec.msgpack.Decoder(_Head).decode


class Folders:
    """What lies below `<data>/<kind>/<address>`: a folder, or one file. Content never changes under its address."""

    def __init__(self, store: Store, data: Path) -> None:
        self._store = store
        self._data = data
        self._kept: dict[tuple[str, str], int] = {}  # when we last said that it is in use
        self._fetching: dict[tuple[str, str], asyncio.Lock] = {}

    async def keep(self, kind: str, address: str) -> None:
        """Durable when it returns, so that what refers to it may be committed. Nothing happens where nobody else would need it,
        and for what is not there. Raises what the store raises."""
        if not self._store.shared or not address:
            return
        place, now_ms = (kind, address), self._store.now_ms()
        if now_ms - self._kept.get(place, 0) < _TOUCH_MS:
            return
        path, row = self._data / kind / address, keys.encode(_HEAD, kind, address)

        def touch(tx: Tx) -> bool:
            raw = tx.get(row)
            if raw is not None:
                tx.put(row, _ENCODE(msgspec.structs.replace(_DECODE(raw), used_at_ms=tx.now_ms)))
            return raw is not None

        if not await self._store.transact(touch):
            if not await asyncio.to_thread(path.exists):
                return
            await self._upload(path, row)
        self._kept[place] = now_ms

    async def _upload(self, path: Path, row: bytes) -> None:
        upload, digest, count = token_hex(8), hashlib.sha256(), 0
        with tempfile.TemporaryFile(dir=self._data) as file:
            await asyncio.to_thread(_pack, path, file.fileno())
            file.seek(0)
            while parts := await asyncio.to_thread(_read_parts, file.fileno()):
                for part in parts:
                    digest.update(part)

                def write(tx: Tx, parts: list[bytes] = parts, first: int = count) -> None:
                    for number, part in enumerate(parts, first):
                        tx.put(keys.encode(_PART, upload, number), part)

                await self._store.transact(write)
                count += len(parts)
        head = _Head(upload, count, digest.hexdigest(), self._store.now_ms())

        def name(tx: Tx) -> bool:
            """False: another node was first."""
            if tx.get(row) is not None:
                return False
            tx.put(row, _ENCODE(head))
            return True

        if not await self._store.transact(name):
            await self._drop(upload, count)

    async def have(self, kind: str, address: str) -> bool:
        """Whether it is on this machine now; fetched if another node has kept it. Raises `StoreFailed` for what is damaged."""
        path = self._data / kind / address
        if not address or await asyncio.to_thread(path.exists):
            return True
        async with self._fetching.setdefault((kind, address), asyncio.Lock()):
            if not await asyncio.to_thread(path.exists):
                raw = await self._store.look(lambda reader: reader.get(keys.encode(_HEAD, kind, address)))
                if raw is None:
                    return False
                await self._fetch(_DECODE(raw), path)
        self._fetching.pop((kind, address), None)
        return True

    async def _fetch(self, head: _Head, path: Path) -> None:
        digest, folder = hashlib.sha256(), path.parent
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # sandboxes read it under another uid
        with tempfile.TemporaryFile(dir=self._data) as file:
            for number in range(head.parts):
                row = keys.encode(_PART, head.upload, number)
                part = await self._store.look(lambda reader, row=row: reader.get(row))  # type: ignore[misc]
                if part is None:
                    raise StoreFailed(f"{path.name}: part {number} of {head.parts} is missing in the store")
                digest.update(part)
                await asyncio.to_thread(file.write, part)
            if digest.hexdigest() != head.digest:
                raise StoreFailed(f"{path.name}: what the store holds is not what was kept")
            await asyncio.to_thread(file.flush)
            await asyncio.to_thread(_unpack, file.fileno(), path)

    # --- what nobody needs any more

    async def sweep(self, referenced: Callable[[], set[str]]) -> int:
        """Forget what nothing refers to and nobody has used for a day; how many."""
        low, high = keys.prefix_range(_HEAD)
        heads = await self._store.look(lambda reader: reader.scan(low, high, limit=100_000))
        used, oldest_ms = referenced(), self._store.now_ms() - _UNUSED_MS
        gone = 0
        for row, raw in heads:
            head = _DECODE(raw)
            if str(keys.decode(row)[2]).removesuffix(".zip") in used or head.used_at_ms > oldest_ms:
                continue
            if await self._store.transact(lambda tx, row=row, raw=raw: tx.compare_and_set(row, raw, None)):  # type: ignore[misc]
                await self._drop(head.upload, head.parts)
                gone += 1
        return gone

    async def _drop(self, upload: str, parts: int) -> None:
        for first in range(0, parts, 100):
            numbers = range(first, min(first + 100, parts))
            rows = [keys.encode(_PART, upload, number) for number in numbers]
            await self._store.transact(lambda tx, rows=rows: [tx.delete(row) for row in rows])  # type: ignore[misc]


def _pack(path: Path, descriptor: int) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as out, tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        tar.add(path, arcname="it", filter=_nobodys)


def _nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _read_parts(descriptor: int) -> list[bytes]:
    return [part for _ in range(_PARTS_AT_ONCE) if (part := os.read(descriptor, _PART_BYTES))]


def _unpack(descriptor: int, path: Path) -> None:
    """Appears whole or not at all."""
    building = path.with_name(f".tmp-{token_hex(8)}")
    building.mkdir()
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(descriptor), "rb") as source, tarfile.open(fileobj=source, mode="r:gz") as tar:
            tar.extractall(building, filter="tar")
        _sync(building / "it")
        with contextlib.suppress(FileExistsError):
            (building / "it").rename(path)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise StoreFailed(f"{path.name}: what the store holds cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _sync_one(path.parent)


def _sync(path: Path) -> None:
    for each in _below(path):
        if not each.is_symlink():
            _sync_one(each)


def _below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                yield Path(folder, name)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
