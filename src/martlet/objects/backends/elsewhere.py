"""The backend of a node that has no access to the bytes: they are in the data folder of another one. Each use is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NoReturn

from martlet.errors import Unsupported

__all__ = ["ElsewhereBackend", "open_backend"]


def open_backend(owner: str) -> ElsewhereBackend:
    """`owner` is what the node is called that has the bytes."""
    return ElsewhereBackend(owner)


class ElsewhereBackend:
    """Knows only who has them."""

    def __init__(self, owner: str) -> None:
        self._owner = owner

    async def claim(self, owner: str) -> str:
        return owner  # it belongs to this store: its rows say who has it

    def draft(self, id: str) -> NoReturn:
        raise self._refusal()

    async def open(self, id: str) -> NoReturn:
        raise self._refusal()

    async def remove(self, id: str) -> None:
        """It stays; the node that has it sweeps it up at its next start."""

    async def ids(self, before_ms: int) -> AsyncIterator[str]:
        none: tuple[str, ...] = ()
        for id in none:
            yield id

    async def close(self) -> None:
        """Nothing is open."""

    def _refusal(self) -> Unsupported:
        return Unsupported(
            f"the bytes of objects are in the data folder of node {self._owner}, which this node cannot read",
            remedy="give all nodes one place for them: --objects s3://BUCKET/PREFIX",
        )
