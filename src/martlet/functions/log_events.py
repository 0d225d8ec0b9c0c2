"""Log records as CloudWatch's events: which there are, in which streams, and in which pages they go out. Pure."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.functions.logs import LogRecord

__all__ = ["FUNCTION_PREFIX", "Event", "StreamFacts", "events_of", "function_of", "page_of", "streams_of"]

FUNCTION_PREFIX: Final = "/aws/lambda/"
PLATFORM_STREAM: Final = "platform"  # of what belongs to no instance
_PAGE_BYTES: Final = 1_048_576  # of one answer
_OVERHEAD: Final = 26  # bytes that CloudWatch counts for an event beside its message
_TOKEN = re.compile(r"(?P<way>[fb])/(?P<id>[0-9]{56})")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. `id` is unique in its group: 14 digits of its time, then what tells it from others of that time."""

    stream: str
    at_ms: int
    message: str
    taken_at_ms: int
    id: str

    def tailed(self, group: str) -> dict[str, Any]:
        """As a live tail has it."""
        return {
            "logStreamName": self.stream,
            "logGroupIdentifier": group,
            "message": self.message,
            "timestamp": self.at_ms,
            "ingestionTime": self.taken_at_ms,
        }

    def shown(self) -> dict[str, Any]:
        return {"timestamp": self.at_ms, "message": self.message, "ingestionTime": self.taken_at_ms}


class StreamFacts(msgspec.Struct):
    """What DescribeLogStreams tells of a stream."""

    created_ms: int
    first_ms: int | None = None
    last_ms: int | None = None
    taken_ms: int | None = None

    def add(self, first_ms: int, last_ms: int, taken_ms: int) -> None:
        self.created_ms = min(self.created_ms, first_ms)
        self.first_ms = first_ms if self.first_ms is None else min(self.first_ms, first_ms)
        self.last_ms = last_ms if self.last_ms is None else max(self.last_ms, last_ms)
        self.taken_ms = taken_ms if self.taken_ms is None else max(self.taken_ms, taken_ms)

    def shown(self, name: str, base_arn: str) -> dict[str, Any]:
        return {
            "logStreamName": name,
            "creationTime": self.created_ms,
            "firstEventTimestamp": self.first_ms,
            "lastEventTimestamp": self.last_ms,
            "lastIngestionTime": self.taken_ms,
            "uploadSequenceToken": str(self.taken_ms or self.created_ms).zfill(56),
            "arn": base_arn + name,
            "storedBytes": 0,  # as with AWS, which no longer counts it for streams
        }


def function_of(group: str) -> str | None:
    """The function whose log the group is."""
    name = group.removeprefix(FUNCTION_PREFIX)
    return name if name and name != group and name[0] != "_" else None


def events_of(record: LogRecord) -> Iterator[Event]:
    """A record's events: one a line. When each line was written is not known; those of a run have the time it began, the last
    ones (END, REPORT) the time it ended."""
    opening, body, closing = record.parts()
    lines = [*opening, *body, *closing]
    seed = hashlib.blake2b(f"{record.request_id} {record.started_at_ms}".encode(), digest_size=15)
    if not record.request_id:
        seed.update(record.lines)
    mark = int.from_bytes(seed.digest(), "big") % 10**36
    stream = record.stream or PLATFORM_STREAM
    for number, line in enumerate(lines):
        at_ms = record.ended_at_ms if number >= len(lines) - len(closing) else record.started_at_ms
        if line:  # CloudWatch has no empty events
            yield Event(stream, at_ms, line + "\n", record.ended_at_ms, f"{at_ms:014d}{mark:036d}{number % 10**6:06d}")


def streams_of(records: Iterable[LogRecord]) -> dict[str, StreamFacts]:
    """The streams that records are in."""
    found: dict[str, StreamFacts] = {}
    for record in records:
        stream = record.stream or PLATFORM_STREAM
        facts = found.setdefault(stream, StreamFacts(record.started_at_ms))
        facts.add(record.started_at_ms, record.ended_at_ms, record.ended_at_ms)
    return found


def page_of(events: list[Event], token: str, most: int, *, from_head: bool, only_forward: bool = False) -> dict[str, Any]:
    """One page of events in order of time, and the tokens of its neighbours; a token that leads nowhere new is given back.

    A token names an event, and still means the same place when that event is gone. `only_forward`: for FilterLogEvents, with
    "pairs" (event as shown, event) and "more_after" in place of the two tokens.
    """
    start, end = _window(events, token, most, from_head)
    page = events[start:end]
    if only_forward:
        more = page[-1].id if page and end < len(events) else None
        return {"pairs": [(event.shown(), event) for event in page], "more_after": more}
    at = token.partition("/")[2] or "0" * 56
    return {
        "events": [event.shown() for event in page],
        "nextForwardToken": f"f/{page[-1].id if page else at}",
        "nextBackwardToken": f"b/{page[0].id if page else at}",
    }


def _window(events: list[Event], token: str, most: int, from_head: bool) -> tuple[int, int]:
    if not token:
        if from_head:
            return 0, _fitting(events, 0, most, 1)
        return _fitting(events, len(events), most, -1), len(events)
    parsed = _TOKEN.fullmatch(token)
    if parsed is None:
        raise ServiceError("InvalidParameterException", "The specified nextToken is invalid.")
    place = _place(events, parsed["id"])
    if parsed["way"] == "f":
        start = place[1]
        return start, _fitting(events, start, most, 1)
    return _fitting(events, place[0], most, -1), place[0]


def _place(events: list[Event], id: str) -> tuple[int, int]:
    """Where the event is: (its index, the next one's). Of one that is gone: twice where the next later one is."""
    at_ms = int(id[:14])
    low = bisect_left(events, at_ms, key=lambda event: event.at_ms)
    high = bisect_right(events, at_ms, key=lambda event: event.at_ms)
    for index in range(low, high):
        if events[index].id == id:
            return index, index + 1
    return high, high


def _fitting(events: list[Event], start: int, most: int, step: int) -> int:
    """How far a page reaches from `start`: `most` events, and no more than an answer holds."""
    room = _PAGE_BYTES
    index = start
    while abs(index - start) < most:
        following = index if step > 0 else index - 1
        if not 0 <= following < len(events):
            break
        room -= len(events[following].message.encode()) + _OVERHEAD
        if room < 0 and index != start:
            break
        index += step
    return index
