"""Objects: a change in a bucket of an app that one of its functions is told of, as S3's event. Pure.

Source: Lambda developer guide, "Using AWS Lambda with Amazon S3"; the record is made by the objects room, in the
transaction of the change.
"""

from __future__ import annotations

from typing import Final

import msgspec

from martlet.objects import EVENT, Notice
from martlet.store import LogEntry
from martlet.triggers.event import Event, event_id

__all__ = ["EVENT", "match"]

_DECODER: Final = msgspec.json.Decoder(Notice)


def match(entry: LogEntry) -> Event | None:
    """The event of a change; None for what goes to a queue, a topic or a bus: the objects room tells those itself."""
    notice = _DECODER.decode(entry.body)
    if not notice.app:
        return None
    id = event_id("objects", entry.seq, notice.app, notice.function, 0)
    payload = msgspec.Raw(msgspec.json.encode(notice.payload))
    return Event(id, "objects", notice.app, notice.source, notice.function, payload)
