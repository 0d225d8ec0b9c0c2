"""Access logs of stages: a line for each answer, in the stage's own format, brought to its log group in batches.

Source: API Gateway developer guide, "Set up CloudWatch logging for REST APIs" and "Customizing HTTP API access logs". What a
format names and a request does not have is "-". Quotes, backslashes and control characters in values are escaped as in JSON, so
that no client can begin a line of its own or leave a format that is JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final

from martlet.errors import MartletError
from martlet.limits import LIMITS

__all__ = ["AccessLog", "line_of", "names_of"]

# (group, lines as (epoch ms, text), in order) → once they are kept
Write = Callable[[str, list[tuple[int, str]]], Awaitable[None]]
_NAME: Final = re.compile(r"\$context\.([A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*)")
_WAITING_AT_MOST: Final = 50_000
_FLUSH_SECONDS: Final = LIMITS["ledger_flush_ms"].default / 1000


def names_of(text: str) -> frozenset[str]:
    """The variables that a format names, without "$context."."""
    return frozenset(_NAME.findall(text))


@lru_cache(maxsize=256)
def _pieces(text: str) -> tuple[str, ...]:
    """Text and names in turns."""
    return tuple(_NAME.split(text.rstrip("\n")))


def line_of(text: str, facts: dict[str, Any]) -> str:
    """A format with every `$context.name` replaced by what `facts` has below the name's parts."""
    pieces = _pieces(text)
    return "".join(_shown(facts, piece) if at % 2 else piece for at, piece in enumerate(pieces))


def _shown(facts: dict[str, Any], name: str) -> str:
    found: Any = facts
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None or found == "" or isinstance(found, dict):
        return "-"
    return json.dumps(str(found), ensure_ascii=False)[1:-1]


class AccessLog:
    """What waits to be written. Lines are on disk `ledger_flush_ms` after their answers; where the store fails, they wait."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: dict[str, list[tuple[int, str]]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self.dropped = 0  # lines that came when too many waited

    def add(self, group: str, at_ms: int, line: str) -> None:
        if self._count >= _WAITING_AT_MOST:
            self.dropped += 1
            return
        self._count += 1
        self._waiting.setdefault(group, []).append((at_ms, line))
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and self._flushing is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            for group in list(self._waiting):
                lines = self._waiting[group]
                count = len(lines)
                try:
                    await self._write(group, lines[:count])
                except MartletError:
                    continue  # the store says so itself; these lines are tried again
                self._count -= count
                del lines[:count]
                if not lines:
                    del self._waiting[group]
        finally:
            self._flushing = None
            if self._waiting:
                self._arm()

    async def close(self) -> None:
        """Write what waits."""
        if self._flushing is not None:
            await self._flushing
        self._disarm()
        if self._waiting:
            await self._flush()
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
