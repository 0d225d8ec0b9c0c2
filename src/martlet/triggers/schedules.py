"""Schedules as rows: what is deployed, when it is due next, and its firing. Functions over one transaction."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from martlet.clock import random
from martlet.errors import InvalidInput
from martlet.limits import LIMITS, exceeded
from martlet.store import Reader, Tx, keys
from martlet.triggers.kinds import schedule
from martlet.types import ScheduleConfig

__all__ = ["CHANGED", "Schedule", "fire_due", "next_due", "of_app", "put", "remove"]

CHANGED: Final = "schedule.changed"  # topic of the log entries that say: look again when something is due

_ROWS: Final = "triggers.schedule"  # (.., app, name) -> Schedule
_DUE: Final = "triggers.due"  # (.., due_at_ms, app, name) -> nothing: the order in which schedules fire
_FIRE_AT_ONCE: Final = 100  # schedules that one transaction fires
_FIRE_BYTES: Final = 4_194_304  # and about how much it writes: a quarter of transaction_bytes


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed schedule. `due_at_ms` is its next firing; None: switched off, or past its last year."""

    app: str
    name: str
    expression: str
    timezone: str
    function: str  # full name
    input: Any = None  # JSON; None: the "Scheduled Event"
    enabled: bool = True
    due_at_ms: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    window_minutes: int = 0
    nominal_ms: int | None = None  # the due time by the expression, where the window moves it


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Schedule)


def put(tx: Tx, app: str, config: ScheduleConfig, function: str, now_ms: int) -> Schedule:
    """Deploy a schedule, or replace it. One that says the same times as before keeps its rhythm: a rate that is deployed
    again and again still fires. Raises `InvalidInput`, `LimitExceeded` (event_bytes)."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", config.name):
        raise InvalidInput(f"schedule name {config.name[:64]!r}: allowed are 1 to 64 of A-Z a-z 0-9 _ . -", field="name")
    rule = schedule.parse(config.expression, config.timezone)
    if config.start_ms is not None and config.end_ms is not None and config.end_ms <= config.start_ms:
        raise InvalidInput(f"schedule {config.name}: its end is not after its start", field="end")
    key = keys.encode(_ROWS, app, config.name)
    before = _get(tx, key)
    same = before is not None and _times(before) == _times(config)
    due_at_ms = nominal_ms = None
    if config.enabled:
        due_at_ms, nominal_ms = (before.due_at_ms, before.nominal_ms) if before is not None and same else (None, None)
        if due_at_ms is None:
            due_at_ms, nominal_ms = _moved(config, _first(rule, config, now_ms))
    after = Schedule(
        app=app,
        name=config.name,
        expression=config.expression,
        timezone=config.timezone,
        function=function,
        input=config.input,
        enabled=config.enabled,
        due_at_ms=due_at_ms,
        start_ms=config.start_ms,
        end_ms=config.end_ms,
        window_minutes=config.window_minutes,
        nominal_ms=nominal_ms,
    )
    size = len(_encode_input(config.input))
    if size > LIMITS["event_bytes"].default:
        raise exceeded("event_bytes", size, f"input of schedule {config.name}")
    _replace(tx, key, before, after)
    tx.append(CHANGED, key, b"")
    return after


def remove(tx: Tx, app: str, name: str) -> None:
    """Take a schedule away, if there is one. What it fired before is still delivered."""
    key = keys.encode(_ROWS, app, name)
    before = _get(tx, key)
    if before is not None:
        _replace(tx, key, before, None)
        tx.append(CHANGED, key, b"")


def of_app(reader: Reader, app: str) -> list[Schedule]:
    """The schedules of an app by name."""
    low, high = keys.prefix_range(_ROWS, app)
    return [_DECODER.decode(raw) for _, raw in reader.scan(low, high, limit=100_000)]


def next_due(reader: Reader) -> int | None:
    """When the next schedule is due, or None."""
    rows = reader.scan(*keys.prefix_range(_DUE), limit=1)
    return _due_of(rows[0][0]) if rows else None


def fire_due(tx: Tx, now_ms: int, region: str) -> int:
    """Fire what is due: into the log goes that it fired, and its next due time is after `now_ms`, in one commit. So each
    due time fires once; times that were missed meanwhile count as one. Returns how many fired; call again until 0."""
    fired = size = 0
    for index_key, _ in tx.scan(*keys.prefix_range(_DUE), limit=_FIRE_AT_ONCE):
        due_at_ms = _due_of(index_key)
        if due_at_ms > now_ms or size > _FIRE_BYTES:
            break
        _, _, app, name = keys.decode(index_key)
        key = keys.encode(_ROWS, app, name)
        before = _get(tx, key)
        assert before is not None  # the row and its index entry are only ever written together
        nominal_ms = due_at_ms if before.nominal_ms is None else before.nominal_ms
        following = schedule.parse(before.expression, before.timezone).following(nominal_ms, now_ms)
        following, following_nominal_ms = _moved(before, following)
        input = msgspec.Raw(_encode_input(before.input))
        body = _ENCODER.encode(
            schedule.Fired(before.app, before.name, before.function, nominal_ms, region, input, following is None)
        )
        _replace(tx, key, before, msgspec.structs.replace(before, due_at_ms=following, nominal_ms=following_nominal_ms))
        tx.append(schedule.FIRED, key, body)
        fired += 1
        size += 2 * len(body)
    return fired


def _times(one: Schedule | ScheduleConfig) -> tuple[object, ...]:
    return one.expression, one.timezone, one.start_ms, one.end_ms, one.window_minutes


def _first(rule: schedule.Expression, config: ScheduleConfig, now_ms: int) -> int | None:
    """The first due time. A rate with a start in the future begins then; everything else looks ahead from then on."""
    start_ms = config.start_ms
    if start_ms is None or start_ms <= now_ms:
        return rule.next_after(now_ms)
    return start_ms if isinstance(rule, schedule.Rate) else rule.next_after(start_ms - 1)


def _moved(one: Schedule | ScheduleConfig, due_ms: int | None) -> tuple[int | None, int | None]:
    """(when it fires, the due time where that differs): somewhere in its window, and not after its end."""
    if due_ms is None or (one.end_ms is not None and due_ms > one.end_ms):
        return None, None
    if not one.window_minutes:
        return due_ms, None
    return due_ms + random.randrange(one.window_minutes * 60_000), due_ms


def _due_of(index_key: bytes) -> int:
    due_at_ms = keys.decode(index_key)[1]
    assert isinstance(due_at_ms, int)
    return due_at_ms


def _get(tx: Tx, key: bytes) -> Schedule | None:
    raw = tx.get(key)
    return None if raw is None else _DECODER.decode(raw)


def _replace(tx: Tx, key: bytes, before: Schedule | None, after: Schedule | None) -> None:
    """Write the row and its entry in the order of due times."""
    if before is not None and before.due_at_ms is not None:
        tx.delete(keys.encode(_DUE, before.due_at_ms, before.app, before.name))
    if after is None:
        tx.delete(key)
        return
    tx.put(key, _ENCODER.encode(after))
    if after.due_at_ms is not None:
        tx.put(keys.encode(_DUE, after.due_at_ms, after.app, after.name), b"")


def _encode_input(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the schedule's input is not JSON: {error}", field="input") from error
