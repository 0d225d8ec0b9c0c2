"""Blobs in any object store that obstore speaks to: s3://, gs://, az://. obstore is imported when the first one is opened.

A blob lies there in objects of 8 MiB, `<id>/<number>`, each put in one request: what a killed process left is listed and
removed like anything else, which unfinished multipart uploads could not be. No row names a blob before all of it is there.
https://developmentseed.org/obstore/latest/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from martlet.errors import StartFailed

__all__ = ["RemoteBackend", "open_backend"]

_ROOT: Final = "martlet/"
_PREFIX: Final = _ROOT + "blobs/"
_OWNER: Final = _ROOT + "owner"
_PART_BYTES: Final = 32 * 262_160  # whole pieces, as the room encrypts them: none lies in two objects
_WINDOW_BYTES: Final = 8 * 262_160  # read at once by who reads on; the next is on its way meanwhile
_AT_ONCE: Final = 2  # parts of one draft on their way
_CLIENT: Final = {"allow_http": True, "connect_timeout": "5s", "timeout": "60s"}
_RETRY: Final = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


def open_backend(place: str) -> RemoteBackend:
    """The store at the URL `place`, "s3://bucket/prefix"; endpoint and credentials come from where its own clients take them
    (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …). Raises `StartFailed`."""
    try:
        from obstore.store import from_url

        return RemoteBackend(from_url(place, client_options=_CLIENT, retry_config=_RETRY))  # type: ignore[call-overload]
    except ImportError as error:
        raise StartFailed("objects in a remote store need obstore", remedy="pip install 'martlet[remote]'") from error
    except Exception as error:  # obstore's own tree, which has no common ancestor but Exception
        raise StartFailed(f"object store {place}: {_first_line(error)}", remedy="check the URL and the credentials") from error


class RemoteBackend:
    """A prefix of a bucket elsewhere."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def claim(self, owner: str) -> str:
        import obstore

        try:
            await obstore.put_async(self._store, _OWNER, owner.encode(), mode="create")
        except obstore.exceptions.AlreadyExistsError:
            pass
        except Exception as error:
            raise _failed(error) from error
        else:
            return owner
        try:
            found = await obstore.get_async(self._store, _OWNER)
            return bytes(await found.bytes_async()).decode("ascii", "replace")
        except Exception as error:
            raise _failed(error) from error

    def draft(self, id: str) -> RemoteDraft:
        return RemoteDraft(self, id)

    async def open(self, id: str) -> RemoteSource:
        return RemoteSource(self._store, id)

    async def put(self, id: str, number: int, data: bytes) -> None:
        """Keep a part of a blob. Raises `OSError`."""
        import obstore

        try:
            await obstore.put_async(self._store, _path(id, number), data, use_multipart=False)
        except Exception as error:
            raise _failed(error) from error

    async def remove(self, id: str) -> None:
        import obstore

        try:
            paths = [meta["path"] async for batch in obstore.list(self._store, prefix=f"{_PREFIX}{id}/") for meta in batch]
            if paths:
                await obstore.delete_async(self._store, paths)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _failed(error) from error

    async def ids(self, before_ms: int) -> AsyncIterator[str]:
        import obstore

        newest: dict[str, float] = {}
        try:
            async for batch in obstore.list(self._store, prefix=_PREFIX):
                for meta in batch:
                    id = str(meta["path"]).removeprefix(_PREFIX).partition("/")[0]
                    newest[id] = max(newest.get(id, 0.0), meta["last_modified"].timestamp() * 1000)
        except Exception as error:
            raise _failed(error) from error
        for id, at_ms in newest.items():
            if at_ms < before_ms:
                yield id

    async def close(self) -> None:
        """obstore closes with its last reference."""


class RemoteDraft:
    """Bytes on their way to a remote store; at most three parts of them are in memory."""

    def __init__(self, backend: RemoteBackend, id: str) -> None:
        self._backend = backend
        self._id = id
        self._waiting = bytearray()
        self._number = 0
        self._sending: list[asyncio.Task[None]] = []

    async def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= _PART_BYTES:
            part = bytes(memoryview(self._waiting)[:_PART_BYTES])
            del self._waiting[:_PART_BYTES]
            await self._send(part)

    async def keep(self) -> None:
        if self._waiting or not self._number:
            await self._send(bytes(self._waiting))
            self._waiting.clear()
        while self._sending:
            await self._sending.pop(0)

    async def discard(self) -> None:
        sending, self._sending = self._sending, []
        await asyncio.gather(*sending, return_exceptions=True)  # what is cancelled may still arrive there
        if self._number:
            await self._backend.remove(self._id)

    async def _send(self, part: bytes) -> None:
        while len(self._sending) >= _AT_ONCE:
            await self._sending.pop(0)
        put = self._backend.put(self._id, self._number, part)
        self._number += 1
        self._sending.append(asyncio.get_running_loop().create_task(put))


class RemoteSource:
    """Ranges of a remote blob. Who reads on gets larger ones, and the next ahead of need."""

    def __init__(self, store: Any, id: str) -> None:
        self._store = store
        self._id = id
        self._start = 0
        self._data = b""
        self._end: int | None = None  # of the blob, once its last part was seen
        self._ahead: tuple[int, asyncio.Task[bytes]] | None = None

    async def read(self, offset: int, size: int) -> bytes:
        at = offset - self._start
        if not 0 <= at < len(self._data):
            reads_on = bool(self._data) and at == len(self._data)
            self._data = await self._load(offset, _WINDOW_BYTES if reads_on else size)
            self._start, at = offset, 0
            if reads_on and self._data:
                following = offset + len(self._data)
                task = asyncio.get_running_loop().create_task(self._fetch(following, _WINDOW_BYTES))
                self._ahead = (following, task)
        return self._data[at : at + size]

    async def _load(self, offset: int, size: int) -> bytes:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == offset:
            return await ahead[1]
        await _end(ahead)
        return await self._fetch(offset, size)

    async def _fetch(self, offset: int, size: int) -> bytes:
        import obstore

        if self._end is not None and offset >= self._end:
            return b""
        number, inside = divmod(offset, _PART_BYTES)
        wanted = (inside, min(inside + size, _PART_BYTES))
        try:
            found = await obstore.get_async(self._store, _path(self._id, number), options={"range": wanted})
            data = bytes(await found.bytes_async())
        except FileNotFoundError:
            if not number:
                raise FileNotFoundError(f"remote object store: {_path(self._id, 0)} is not there") from None
            return b""
        except Exception as error:
            raise _failed(error) from error
        if found.meta["size"] < _PART_BYTES:
            self._end = number * _PART_BYTES + found.meta["size"]
        return data

    async def close(self) -> None:
        ahead, self._ahead = self._ahead, None
        await _end(ahead)


async def _end(ahead: tuple[int, asyncio.Task[bytes]] | None) -> None:
    if ahead is not None:
        ahead[1].cancel()
        await asyncio.gather(ahead[1], return_exceptions=True)


def _path(id: str, number: int) -> str:
    return f"{_PREFIX}{id}/{number:05}"


def _failed(error: Exception) -> OSError:
    """obstore's errors as the port has them."""
    return OSError(f"remote object store: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    """What happened; obstore adds pages of its own state."""
    return str(error).partition("\n")[0][:500]
