"""A store whose process is killed at one of its transactions, for simulations of crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from martlet.store import Store, Tx

__all__ = ["Killed", "MortalStore"]

T = TypeVar("T")


class Killed(Exception):
    """The process is gone."""


class MortalStore:
    """A store whose process is killed at its `at`-th transaction: before it is durable, or just after."""

    def __init__(self, inner: Store, at: int, after: bool) -> None:
        self._inner = inner
        self._left = at
        self._after = after
        self.dead = False

    async def transact(self, fn: Callable[[Tx], T]) -> T:
        if self.dead:
            raise Killed
        self._left -= 1
        self.dead = self._left < 0
        if self.dead and not self._after:
            raise Killed
        result = await self._inner.transact(fn)
        if self.dead:
            raise Killed
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
