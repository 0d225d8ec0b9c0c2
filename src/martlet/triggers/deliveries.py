"""Deliveries as rows: events that wait, run, wait to be tried again, or are dead. Functions over one transaction.

A row is "ready" while it has an entry in the order of ready times, and "running" while it has none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

import msgspec

from martlet.clock import random
from martlet.errors import InvalidInput, MartletError, Throttled
from martlet.limits import LIMITS
from martlet.store import LogEntry, Reader, Tx, keys
from martlet.triggers.event import DeadLetter, Event
from martlet.types import Outcome

__all__ = [
    "DEAD",
    "Delivery",
    "Run",
    "Verdict",
    "accept",
    "bury",
    "dead_letters",
    "error_object",
    "judge",
    "next_ready",
    "reclaim",
    "settle",
    "take",
]

DEAD: Final = "delivery.dead"  # topic of the log entries that say: this event is a dead letter now

_ROWS: Final = "triggers.delivery"  # (.., event id) -> Delivery: small, as it is written at every step
_EVENTS: Final = "triggers.event"  # (.., event id) -> Event: written once
_READY: Final = "triggers.ready"  # (.., ready_at_ms, seq, event id) -> nothing
_DEAD: Final = "triggers.dead"  # (.., dead_at_ms, event id) -> DeadLetter
_RETRY_MS: Final = 60_000  # Lambda asynchronous invocation: one minute, then two
_BACKOFF_MS: Final = (1_000, 300_000)  # the same: throttled or out of order, from 1 s doubling up to 5 min
_TAKE_BYTES: Final = 4_194_304
_ERROR_BYTES: Final = 65_536  # of a function's error object that a dead letter keeps
_SWEEP: Final = 20  # dead letters that are too old, removed with each new one
_DAY_MS: Final = 86_400_000


class Delivery(msgspec.Struct, frozen=True):
    """An event on its way. `starts` tells one run of it from another, `failures` counts ends with a function error."""

    id: str  # of the event
    seq: int  # of the log entry that caused it
    accepted_at_ms: int
    ready_at_ms: int | None  # None: it runs
    starts: int = 0
    failures: int = 0
    backoffs: int = 0


class Run(msgspec.Struct, frozen=True):
    """A delivery that was taken, with its event."""

    delivery: Delivery
    event: Event


class Verdict(msgspec.Struct, frozen=True):
    """What follows from the end of one run."""

    action: Literal["acknowledge", "retry", "bury"]
    delay_ms: int = 0
    failed: bool = False  # the function ran and failed
    condition: str = ""
    error_type: str = ""
    error: Any = None


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Delivery)
_EVENT_DECODER: Final = msgspec.json.Decoder(Event)
_DEAD_DECODER: Final = msgspec.json.Decoder(DeadLetter)


def judge(delivery: Delivery, outcome: Outcome, now_ms: int, attempts: int) -> Verdict:
    """Success is acknowledged; a function error is tried `attempts` times in all, after 1, 2, 4 ... minutes; what could
    not run for now is tried until the event is `delivery_age_seconds` old; what can never run is dead at once."""
    refusal = outcome.refusal
    if refusal is None and not outcome.error:
        return Verdict("acknowledge")
    if refusal is None:
        error = error_object(outcome.payload)
        if delivery.failures + 1 >= attempts:
            return Verdict("bury", 0, True, "RetriesExhausted", outcome.error_type, error)
        return Verdict("retry", _RETRY_MS << delivery.failures, True, "", outcome.error_type, error)
    problem = refusal.problem()
    if not _may_pass(refusal):
        return Verdict("bury", 0, False, "Refused", refusal.code, problem)
    if now_ms - delivery.accepted_at_ms >= LIMITS["delivery_age_seconds"].default * 1000:
        return Verdict("bury", 0, False, "EventAgeExceeded", refusal.code, problem)
    least, most = _BACKOFF_MS
    full = min(least << min(delivery.backoffs, 20), most)
    return Verdict("retry", int(full * random.uniform(0.5, 1.0)), False, "", refusal.code, problem)


def accept(tx: Tx, matched: Sequence[tuple[LogEntry, Event]]) -> None:
    """Make deliveries of events; in the same transaction the cursor moves past their entries."""
    for entry, event in matched:
        _begin(tx, event, entry.seq, entry.at_ms)


def _begin(tx: Tx, event: Event, seq: int, at_ms: int) -> None:
    """Once: a crash may have come between the parts of what one entry causes."""
    if event.target and tx.get(keys.encode(_ROWS, event.id)) is not None:
        return
    tx.put(keys.encode(_EVENTS, event.id), _ENCODER.encode(event))
    _write(tx, None, Delivery(event.id, seq, at_ms, at_ms))


def take(tx: Tx, now_ms: int, most: int) -> list[Run]:
    """Mark at most `most` ready deliveries as running, the longest ready first, and return them with their events."""
    taken: list[Run] = []
    size = 0
    for index_key, _ in tx.scan(*keys.prefix_range(_READY), limit=max(most, 1)):
        if len(taken) >= most or size > _TAKE_BYTES or _ready_of(index_key) > now_ms:
            break
        id = keys.decode(index_key)[3]
        row, event = tx.get(keys.encode(_ROWS, id)), tx.get(keys.encode(_EVENTS, id))
        assert row is not None  # these three rows are only ever written together
        assert event is not None
        before = _DECODER.decode(row)
        after = msgspec.structs.replace(before, ready_at_ms=None, starts=before.starts + 1)
        _write(tx, before, after)
        taken.append(Run(after, _EVENT_DECODER.decode(event)))
        size += len(event)
    return taken


def settle(tx: Tx, run: Run, verdict: Verdict, now_ms: int, instead: Event | None = None) -> None:
    """Write down how `run` ended. If the event was given to somebody else meanwhile, only a success still counts. `instead`
    follows a dead letter in the same commit: the event that takes it to its dead-letter queue."""
    raw = tx.get(keys.encode(_ROWS, run.event.id))
    if raw is None:
        return
    before = _DECODER.decode(raw)
    if verdict.action == "acknowledge":
        _write(tx, before, None)
        return
    if before.starts != run.delivery.starts:
        return
    failures = before.failures + verdict.failed
    if verdict.action == "retry":
        backoffs = 0 if verdict.failed else before.backoffs + 1
        ready_at_ms = now_ms + verdict.delay_ms
        _write(tx, before, msgspec.structs.replace(before, ready_at_ms=ready_at_ms, failures=failures, backoffs=backoffs))
        return
    _write(tx, before, None)
    _bury(tx, run, verdict, failures, now_ms)
    if instead is not None:
        _begin(tx, instead, run.delivery.seq, now_ms)


def reclaim(tx: Tx, running: Collection[str], now_ms: int) -> None:
    """Make ready again what runs nowhere: rows marked as running whose event is not in `running`."""
    low, high = keys.prefix_range(_ROWS)
    while rows := tx.scan(low, high, limit=100):
        for key, raw in rows:
            before = _DECODER.decode(raw)
            if before.ready_at_ms is None and before.id not in running:
                _write(tx, before, msgspec.structs.replace(before, ready_at_ms=now_ms))
            low = key + b"\x00"


def next_ready(reader: Reader) -> int | None:
    """When the next delivery is ready, or None."""
    rows = reader.scan(*keys.prefix_range(_READY), limit=1)
    return _ready_of(rows[0][0]) if rows else None


def dead_letters(reader: Reader, app: str | None, limit: int) -> list[DeadLetter]:
    """The newest dead letters, newest first."""
    found: list[DeadLetter] = []
    low, high = keys.prefix_range(_DEAD)
    while len(found) < limit:
        rows = reader.scan(low, high, limit=100, reverse=True)
        for key, raw in rows:
            letter = _DEAD_DECODER.decode(raw)
            if len(found) < limit and (app is None or letter.event.app == app):
                found.append(letter)
            high = key
        if len(rows) < 100:
            break
    return found


def _bury(tx: Tx, run: Run, verdict: Verdict, failures: int, now_ms: int) -> None:
    event = run.event
    letter = DeadLetter(
        event=event,
        condition=verdict.condition,
        attempts=failures,
        error_type=verdict.error_type,
        error=verdict.error,
        accepted_at_ms=run.delivery.accepted_at_ms,
        dead_at_ms=now_ms,
    )
    bury(tx, letter)


def bury(tx: Tx, letter: DeadLetter) -> None:
    """Keep a dead letter, and tell so in the log; those that are too old go."""
    event, now_ms, condition = letter.event, letter.dead_at_ms, letter.condition
    key = keys.encode(_DEAD, now_ms, event.id)
    tx.put(key, _ENCODER.encode(letter))
    tx.append(DEAD, key, _ENCODER.encode({"id": event.id, "app": event.app, "condition": condition}))
    oldest_ms = now_ms - LIMITS["dead_letter_days"].default * _DAY_MS
    for old_key, _ in tx.scan(keys.encode(_DEAD), keys.encode(_DEAD, oldest_ms), limit=_SWEEP):
        tx.delete(old_key)


def _write(tx: Tx, before: Delivery | None, after: Delivery | None) -> None:
    """Write the row and its entry in the order of ready times."""
    if before is not None and before.ready_at_ms is not None:
        tx.delete(keys.encode(_READY, before.ready_at_ms, before.seq, before.id))
    if after is None:
        if before is not None:
            tx.delete(keys.encode(_ROWS, before.id))
            tx.delete(keys.encode(_EVENTS, before.id))
        return
    tx.put(keys.encode(_ROWS, after.id), _ENCODER.encode(after))
    if after.ready_at_ms is not None:
        tx.put(keys.encode(_READY, after.ready_at_ms, after.seq, after.id), b"")


def _ready_of(index_key: bytes) -> int:
    ready_at_ms = keys.decode(index_key)[1]
    assert isinstance(ready_at_ms, int)
    return ready_at_ms


def _may_pass(refusal: MartletError) -> bool:
    """Whether the same event could run later: throttled, overloaded, out of order; not: unknown, too large, malformed."""
    return isinstance(refusal, Throttled) or (refusal.http_status >= 500 and not isinstance(refusal, InvalidInput))


def error_object(payload: bytes) -> Any:
    """What a dead letter keeps of a function's answer."""
    if len(payload) <= _ERROR_BYTES:
        try:
            return msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # not JSON: kept as text below
    return payload[:_ERROR_BYTES].decode("utf-8", "replace")
