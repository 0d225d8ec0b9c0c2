"""Trigger kinds: each says which log entries cause an event, and what that event looks like. Pure; no store, no clock.

A kind is a function `(entry) -> Event | None`; `KINDS` finds it by the topic of the entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from martlet.store import LogEntry
from martlet.triggers.event import Event
from martlet.triggers.kinds import objects, schedule

__all__ = ["KINDS"]

KINDS: Final[dict[str, Callable[[LogEntry], Event | None]]] = {
    objects.EVENT: objects.match,
    schedule.FIRED: schedule.match,
}
