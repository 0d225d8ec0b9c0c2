"""What travels between a trigger's cause and its function, and what is left when that failed for good."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

__all__ = ["DeadLetter", "Event", "event_id"]


class Event(msgspec.Struct, frozen=True):
    """One invocation that a log entry causes. `id` is the same for every attempt, so that functions can tell repeats."""

    id: str
    source: str  # kind of trigger: "schedule" ...
    app: str
    trigger: str  # its name in the app
    function: str  # full name
    payload: msgspec.Raw  # JSON
    target: str = ""  # ARN of what its source brings it to; "": the function is run
    details: msgspec.Raw = msgspec.Raw(b"null")  # JSON: what its source has to know besides


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that will not be tried again. `condition` names why, in the words of Lambda's destination records."""

    event: Event
    condition: str  # "RetriesExhausted", "EventAgeExceeded" or "Refused"
    attempts: int  # times the function ran and failed
    error_type: str
    error: Any  # JSON: the function's last error object, or the platform's problem object
    accepted_at_ms: int
    dead_at_ms: int


def event_id(*parts: str | int) -> str:
    """A UUID (RFC 9562 version 8: vendor specific) that depends on `parts` only."""
    raw = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
    return f"{raw[:8]}-{raw[8:12]}-8{raw[13:16]}-{'89ab'[int(raw[16], 16) & 3]}{raw[17:20]}-{raw[20:32]}"
