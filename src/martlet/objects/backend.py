"""The port to where bytes are kept. An adapter keeps blobs by ids that the room makes up; it knows nothing of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

__all__ = ["Backend", "Draft", "Source"]


class Draft(Protocol):
    """A blob in the making. Not safe for concurrent use."""

    async def write(self, data: bytes) -> None:
        """Append. Raises `OSError`."""

    async def keep(self) -> None:
        """From here on the blob is durable under its id. Raises `OSError`."""

    async def discard(self) -> None:
        """Forget it; also after a failed `keep`. Never raises for what is not there."""


class Source(Protocol):
    """A blob opened for reading. It can be read to its end also when the blob is removed meanwhile."""

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; b"" only at the end. Raises `OSError`."""

    async def close(self) -> None: ...


class Backend(Protocol):
    """Where blobs are. Ids are 32 hexadecimal digits."""

    async def claim(self, owner: str) -> str:
        """Whose blobs these are: the first that claimed them, from then on. Raises `OSError`."""
        ...

    def draft(self, id: str) -> Draft: ...
    async def open(self, id: str) -> Source:
        """This, or its first `read`, raises `FileNotFoundError`."""
        ...

    async def remove(self, id: str) -> None:
        """Nothing happens if there is none."""

    def ids(self, before_ms: int) -> AsyncIterator[str]:
        """Blobs, whole or left unfinished by a killed process, for the sweep at start. Where several processes write at once,
        only what nobody has written to since `before_ms`. Raises `OSError`."""
        ...

    async def close(self) -> None: ...
