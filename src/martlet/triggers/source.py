"""What a room is to the delivery loop whose log entries cause events for other rooms: buses, topics, schedules of targets.

The loop owns when: order, durability, attempts, dead letters. The source owns what: which events an entry causes, how one gets
to its target, whether it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from martlet.errors import MartletError
from martlet.store import LogEntry, Tx
from martlet.triggers.event import Event

__all__ = ["Attempt", "Source"]


class Attempt(msgspec.Struct, frozen=True):
    """A try that failed. `attempts` counts it; `age_ms` is how long ago the event was accepted."""

    event: Event
    error: MartletError
    attempts: int
    age_ms: int


class Source(Protocol):
    """One kind of cause. All methods run on the event loop; those without `async` are short."""

    @property
    def name(self) -> str:
        """`Event.source` of what it causes."""

    @property
    def topics(self) -> Sequence[str]:
        """Of the log entries that it looks at."""

    def anew(self) -> None:
        """Entries were passed that this node was not asked about, for another one had the lease: what was read before may not
        be so any more."""

    def match(self, entry: LogEntry) -> Sequence[Event] | None:
        """The events of an entry; the same ones each time it is asked, by their ids. None: the entry is not for this source."""

    def place(self, tx: Tx, event: Event) -> Callable[[], None] | None:
        """Bring the event to its target in this very transaction, if that can be done; what is given back is called after the
        commit. None: nothing was written, and `carry` is to do it."""

    async def carry(self, event: Event) -> None:
        """Bring the event to its target. Raises `MartletError`."""

    def again(self, attempt: Attempt) -> int | None:
        """After how many milliseconds to try again; None: never."""

    def instead(self, attempt: Attempt) -> Event | None:
        """What becomes of an event that is not tried again: an event for its dead-letter queue, or None."""
