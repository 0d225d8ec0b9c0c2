"""Log groups, streams and events that came over the API, as rows of the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.functions.log_events import Event, StreamFacts
from martlet.limits import LIMITS
from martlet.store import Reader, Tx, counter_value, keys

__all__ = ["Group"]

_GROUP: Final = "logs.group"  # (.., group) -> Group
_STREAM: Final = "logs.stream"  # (.., group, stream) -> _Stream
_EVENT: Final = "logs.event"  # (.., group, time in ms, number) -> _Event
_BYTES: Final = "logs.bytes"  # (.., group) -> counter
_LAST: Final = "logs.last"  # (.., group) -> counter of events, for their numbers
_AT_ONCE: Final = 500
_BATCH_BYTES: Final = 1_048_576
_OVERHEAD: Final = 26
_TOO_OLD_MS: Final = 14 * 24 * 3_600_000
_TOO_NEW_MS: Final = 2 * 3_600_000
_DAY_MS: Final = 24 * 3_600_000


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A log group. `retention_days` None: kept as long as there is room."""

    name: str
    created_at_ms: int
    retention_days: int | None = None
    tags: dict[str, str] = {}


class _Stream(msgspec.Struct, frozen=True, array_like=True):
    created_at_ms: int
    first_ms: int | None = None
    last_ms: int | None = None
    taken_ms: int | None = None


class _Event(msgspec.Struct, frozen=True, array_like=True):
    stream: str
    message: str
    taken_at_ms: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_GROUPS: Final = msgspec.msgpack.Decoder(Group)
_STREAMS: Final = msgspec.msgpack.Decoder(_Stream)
_EVENTS: Final = msgspec.msgpack.Decoder(_Event)


def _rows(reader: Reader, *prefix: keys.Part, low: bytes = b"", high: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    first, last = keys.prefix_range(*prefix)
    low, high = low or first, high or last
    while True:
        rows = reader.scan(low, high, limit=_AT_ONCE)
        yield from rows
        if len(rows) < _AT_ONCE:
            return
        low = rows[-1][0] + b"\x00"


# --- groups


def group(reader: Reader, name: str) -> Group | None:
    raw = reader.get(keys.encode(_GROUP, name))
    return None if raw is None else _GROUPS.decode(raw)


def every_group(reader: Reader) -> list[Group]:
    return [_GROUPS.decode(raw) for _, raw in _rows(reader, _GROUP)]


def put_group(tx: Tx, value: Group) -> None:
    tx.put(keys.encode(_GROUP, value.name), _ENCODER.encode(value))


def retained(value: Group, days: int | None) -> Group:
    return msgspec.structs.replace(value, retention_days=days)


def tagged(value: Group, added: dict[str, str], gone: tuple[str, ...]) -> Group:
    tags = {key: text for key, text in {**value.tags, **added}.items() if key not in gone}
    if len(tags) > 50:
        raise ServiceError("TooManyTagsException", "A resource can have no more than 50 tags.")
    return msgspec.structs.replace(value, tags=tags)


def size(reader: Reader, name: str) -> int:
    """Bytes of the group's rows."""
    return counter_value(reader.get(keys.encode(_BYTES, name)))


def drop_some_of_group(tx: Tx, name: str) -> bool:
    """Delete part of a group; True while there is more. The group itself goes first, so that nothing is added meanwhile."""
    tx.delete(keys.encode(_GROUP, name))
    tx.delete(keys.encode(_BYTES, name))
    deleted = 0
    for kind in (_STREAM, _EVENT):
        low, high = keys.prefix_range(kind, name)
        for key, _ in tx.scan(low, high, limit=_AT_ONCE):
            tx.delete(key)
            deleted += 1
    return deleted > 0


# --- streams


def has_stream(reader: Reader, name: str, stream: str) -> bool:
    return reader.get(keys.encode(_STREAM, name, stream)) is not None


def put_stream(tx: Tx, name: str, stream: str) -> None:
    tx.put(keys.encode(_STREAM, name, stream), _ENCODER.encode(_Stream(tx.now_ms)))


def add_streams(reader: Reader, name: str, found: dict[str, StreamFacts]) -> None:
    """Put the streams of the group's rows to those that are found already."""
    for key, raw in _rows(reader, _STREAM, name):
        row = _STREAMS.decode(raw)
        facts = found.setdefault(str(keys.decode(key)[2]), StreamFacts(row.created_at_ms))
        if row.first_ms is not None and row.last_ms is not None and row.taken_ms is not None:
            facts.add(row.first_ms, row.last_ms, row.taken_ms)


# --- events


def sorted_out(
    given: list[dict[str, Any]], now_ms: int, retention_days: int | None
) -> tuple[list[tuple[int, str]], dict[str, int] | None]:
    """What of a batch is taken, and the indexes of what is not. Raises InvalidParameterException as PutLogEvents does."""
    times = [int(event["timestamp"]) for event in given]
    if times != sorted(times):
        message = "Log events in a single PutLogEvents request must be in chronological order."
        raise ServiceError("InvalidParameterException", message)
    if times[-1] - times[0] > _DAY_MS:
        message = "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        raise ServiceError("InvalidParameterException", message)
    total = sum(len(str(event["message"]).encode()) + _OVERHEAD for event in given)
    if total > _BATCH_BYTES:
        raise ServiceError("InvalidParameterException", f"Upload too large: {total} bytes exceeds limit of {_BATCH_BYTES}")
    rejected: dict[str, int] = {}
    expired = sum(retention_days is not None and at < now_ms - retention_days * _DAY_MS for at in times)
    old = sum(at < now_ms - _TOO_OLD_MS for at in times)
    new = sum(at > now_ms + _TOO_NEW_MS for at in times)
    if new:
        rejected["tooNewLogEventStartIndex"] = len(times) - new
    if old:
        rejected["tooOldLogEventEndIndex"] = old
    if expired:
        rejected["expiredLogEventEndIndex"] = expired
    taken = given[max(old, expired) : len(given) - new]
    return [(int(event["timestamp"]), str(event["message"])) for event in taken], rejected or None


def add_events(tx: Tx, name: str, stream: str, events: list[tuple[int, str]], now_ms: int) -> None:
    """Keep events, and let the group's oldest go where it has more than it may keep."""
    if not events:
        return
    number = tx.increment(keys.encode(_LAST, name), len(events)) - len(events)
    added = 0
    for offset, (at_ms, message) in enumerate(events):
        tx.put(keys.encode(_EVENT, name, at_ms, number + offset), _ENCODER.encode(_Event(stream, message, now_ms)))
        added += len(message.encode()) + _OVERHEAD
    old = _STREAMS.decode(tx.get(keys.encode(_STREAM, name, stream)) or b"")
    first = min(events[0][0], old.first_ms) if old.first_ms is not None else events[0][0]
    last = max(events[-1][0], old.last_ms) if old.last_ms is not None else events[-1][0]
    tx.put(keys.encode(_STREAM, name, stream), _ENCODER.encode(_Stream(old.created_at_ms, first, last, now_ms)))
    most = LIMITS["log_bytes_per_function"].default
    if tx.increment(keys.encode(_BYTES, name), added) > most:
        _make_room(tx, name, most)


def _make_room(tx: Tx, name: str, most: int) -> None:
    over = counter_value(tx.get(keys.encode(_BYTES, name))) - most
    for key, raw in _rows(tx, _EVENT, name):
        if over <= 0:
            return
        over -= _forget(tx, name, key, raw)


def _forget(tx: Tx, name: str, key: bytes, raw: bytes) -> int:
    amount = len(_EVENTS.decode(raw).message.encode()) + _OVERHEAD
    tx.delete(key)
    tx.increment(keys.encode(_BYTES, name), -amount)
    return amount


def drop_older(tx: Tx, name: str, before_ms: int) -> bool:
    """Delete some of the events before that time; True while there may be more."""
    low, _ = keys.prefix_range(_EVENT, name)
    rows = tx.scan(low, keys.encode(_EVENT, name, before_ms), limit=_AT_ONCE)
    for key, raw in rows:
        _forget(tx, name, key, raw)
    return len(rows) == _AT_ONCE


def events(reader: Reader, name: str, since_ms: int) -> list[Event]:
    """The group's events since then, in order of time."""
    found = []
    for key, raw in _rows(reader, _EVENT, name, low=keys.encode(_EVENT, name, since_ms)):
        at_ms, number = (int(str(part)) for part in keys.decode(key)[2:4])
        row = _EVENTS.decode(raw)
        found.append(Event(row.stream, at_ms, row.message, row.taken_at_ms, f"{at_ms:014d}{number:042d}"))
    return found
