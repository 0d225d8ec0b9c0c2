"""Blobs in any object store that obstore speaks to: s3://, gs://, az://. obstore is imported when the first one is opened.

A draft is a multipart upload there (a single put while it is small), which shows up whole or not at all.
https://developmentseed.org/obstore/latest/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from martlet.errors import StartFailed

__all__ = ["RemoteBackend", "open_backend"]

_PREFIX = "martlet/blobs/"
_PART_BYTES = 8 * 1024 * 1024


def open_backend(place: str) -> RemoteBackend:
    """The store at the URL `place`; credentials come from where its own clients take them. Raises `StartFailed`."""
    try:
        from obstore.store import from_url

        return RemoteBackend(from_url(place))
    except ImportError as error:
        raise StartFailed("objects in a remote store need obstore", remedy="pip install 'martlet[remote]'") from error
    except Exception as error:  # obstore's own tree, which has no common ancestor but Exception
        raise StartFailed(f"object store {place}: {error}", remedy="check the URL and the credentials") from error


class RemoteBackend:
    """A prefix of a bucket elsewhere."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def draft(self, id: str) -> RemoteDraft:
        return RemoteDraft(self._store, id)

    async def open(self, id: str) -> RemoteSource:
        import obstore

        try:
            await obstore.head_async(self._store, _PREFIX + id)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _failed(error) from error
        return RemoteSource(self._store, id)

    async def remove(self, id: str) -> None:
        import obstore

        try:
            await obstore.delete_async(self._store, _PREFIX + id)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _failed(error) from error

    async def ids(self) -> AsyncIterator[str]:
        import obstore

        async for batch in obstore.list(self._store, prefix=_PREFIX):
            for meta in batch:
                yield str(meta["path"]).removeprefix(_PREFIX)

    async def close(self) -> None:
        """obstore closes with its last reference."""


class RemoteDraft:
    """Bytes on their way to a remote store; at most one part is in memory."""

    def __init__(self, store: Any, id: str) -> None:
        self._store = store
        self._id = id
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._task: asyncio.Task[None] | None = None
        self._waiting = bytearray()

    async def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= _PART_BYTES:
            part = bytes(self._waiting[:_PART_BYTES])
            del self._waiting[:_PART_BYTES]
            await self._pass(part)

    async def keep(self) -> None:
        if self._waiting or self._task is None:
            await self._pass(bytes(self._waiting))
            self._waiting.clear()
        await self._pass(None)
        assert self._task is not None
        await self._task

    async def discard(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await RemoteBackend(self._store).remove(self._id)

    async def _pass(self, part: bytes | None) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._send())
        putting = asyncio.ensure_future(self._queue.put(part))
        await asyncio.wait((putting, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not putting.done():
            putting.cancel()
            await self._task  # it ended before its time: by an error
            raise OSError("the remote object store took no more")

    async def _send(self) -> None:
        import obstore

        async def parts() -> AsyncIterator[bytes]:
            while (part := await self._queue.get()) is not None:
                yield part

        try:
            await obstore.put_async(self._store, _PREFIX + self._id, parts(), chunk_size=_PART_BYTES)
        except Exception as error:
            raise _failed(error) from error


class RemoteSource:
    """Ranges of a remote blob."""

    def __init__(self, store: Any, id: str) -> None:
        self._store = store
        self._id = id

    async def read(self, offset: int, size: int) -> bytes:
        import obstore

        try:
            return bytes(await obstore.get_range_async(self._store, _PREFIX + self._id, start=offset, length=size))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _failed(error) from error

    async def close(self) -> None:
        """Nothing is held open."""


def _failed(error: Exception) -> OSError:
    """obstore's errors as the port has them."""
    return OSError(f"remote object store: {error}")
