"""Queues themselves: made, changed, listed, emptied, removed. Functions over one transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.queues import attributes, rows
from martlet.queues.failures import invalid, invalid_value, missing, no_queue
from martlet.queues.rows import Heap, Queue
from martlet.store import Reader, Tx, keys

__all__ = ["create", "delete", "demand", "purge", "set_attributes", "sources_of", "tag", "untag"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_FIFO_NAME = re.compile(r"[A-Za-z0-9_-]{1,75}\.fifo")
_BAD_NAME: Final = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
_BAD_FIFO_NAME: Final = (
    "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix "
    "and be 1 to 80 in length."
)
_PURGE_MS: Final = 60_000
_DELETED: Final = "queues.deleted"  # (.., name) -> when, 8 bytes; only written where names have to rest
_TAGS: Final = 50
_TAG_KEY: Final = 128
_TAG_VALUE: Final = 256


def demand(reader: Reader, name: str) -> Queue:
    """The queue of that name, or `ServiceError` QueueDoesNotExist."""
    found = rows.queue_named(reader, name)
    if found is None:
        raise no_queue()
    return found


def create(
    tx: Tx, name: str, given: Mapping[str, Any], tags: Mapping[str, str], region: str, now_ms: int, rest_ms: int
) -> Queue:
    """The queue; the one that is there if nothing in `given` contradicts it. `rest_ms`: how long a name rests after a delete.

    Raises `ServiceError`: InvalidParameterValue (name), QueueNameExists, QueueDeletedRecently, and those of attributes."""
    fifo = str(given.get("FifoQueue", "")).lower() == "true"
    _check_name(name, fifo)
    before = rows.queue_named(tx, name)
    find = lambda other: rows.queue_named(tx, other)  # noqa: E731
    set_to = attributes.changed({}, given, fifo=fifo, region=region, find=find, name=name)
    if before is not None:
        other = attributes.differing(before, given, region)
        if other is not None:
            text = f"A queue already exists with the same name and a different value for attribute {other}"
            raise ServiceError("QueueNameExists", text)
        return before
    deleted = tx.get(keys.encode(_DELETED, name))
    if rest_ms and deleted is not None and int.from_bytes(deleted, "big") + rest_ms > now_ms:
        text = "You must wait 60 seconds after deleting a queue before you can create another with the same name."
        raise ServiceError("QueueDeletedRecently", text)
    heap = rows.new_heap(tx)
    bare = Queue(name=name, id=heap, heap=heap, created_at_ms=now_ms, modified_at_ms=now_ms, fifo=fifo)
    queue = attributes.applied(bare, set_to, now_ms)
    queue = msgspec.structs.replace(queue, tags=_checked_tags(name, {}, tags))
    rows.put_queue(tx, queue)
    return queue


def _check_name(name: str, fifo: bool) -> None:
    if not name:
        raise missing("QueueName")
    if fifo and not _FIFO_NAME.fullmatch(name):
        raise invalid(_BAD_FIFO_NAME)
    if not fifo and not _NAME.fullmatch(name):
        raise invalid(_BAD_NAME)


def set_attributes(tx: Tx, name: str, given: Mapping[str, Any], region: str, now_ms: int) -> Queue:
    """Raises `ServiceError` QueueDoesNotExist and those of attributes."""
    before = demand(tx, name)
    find = lambda other: rows.queue_named(tx, other)  # noqa: E731
    after = attributes.changed(before.attributes, given, fifo=before.fifo, region=region, find=find, name=name)
    queue = attributes.applied(before, after, now_ms)
    rows.put_queue(tx, queue)
    return queue


def delete(tx: Tx, name: str, now_ms: int, rest_ms: int) -> None:
    """The queue and all its messages are gone. Raises `ServiceError` QueueDoesNotExist."""
    rows.delete_queue(tx, demand(tx, name))
    if rest_ms:
        tx.put(keys.encode(_DELETED, name), now_ms.to_bytes(8, "big"))


def purge(tx: Tx, name: str, now_ms: int) -> None:
    """All messages are gone, in flight or not. Raises `ServiceError` QueueDoesNotExist, PurgeQueueInProgress."""
    before = demand(tx, name)
    if before.purged_at_ms and now_ms - before.purged_at_ms < _PURGE_MS:
        text = f"Only one PurgeQueue operation on {name} is allowed every 60 seconds."
        raise ServiceError("PurgeQueueInProgress", text, 403)
    first_seq = Heap(before.heap).counts(tx, before.first_seq).next_seq
    rows.discard(tx, before.heap)
    heap = rows.new_heap(tx)
    rows.put_queue(tx, msgspec.structs.replace(before, heap=heap, purged_at_ms=now_ms, first_seq=first_seq))


def tag(tx: Tx, name: str, tags: Mapping[str, str]) -> None:
    before = demand(tx, name)
    rows.put_queue(tx, msgspec.structs.replace(before, tags=_checked_tags(name, before.tags, tags)))


def untag(tx: Tx, name: str, tag_keys: Sequence[str]) -> None:
    before = demand(tx, name)
    left = {key: value for key, value in before.tags.items() if key not in tag_keys}
    rows.put_queue(tx, msgspec.structs.replace(before, tags=left))


def _checked_tags(name: str, before: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    after = {**before, **given}
    if len(after) > _TAGS:
        raise invalid(f"Too many tags added for queue {name}.")
    for key, value in given.items():
        if not 1 <= len(key) <= _TAG_KEY:
            raise invalid_value(key, "TagKey", f"Tag keys must be between 1 and {_TAG_KEY} characters in length.")
        if len(value) > _TAG_VALUE:
            raise invalid_value(value, "TagValue", f"Tag values must be at most {_TAG_VALUE} characters in length.")
    return after


def every(reader: Reader, prefix: str = "") -> Iterator[Queue]:
    """All queues by name, however many there are."""
    after = ""
    while True:
        found = rows.every_queue(reader, prefix, after, 500)
        yield from found
        if len(found) < 500:
            return
        after = found[-1].name


def sources_of(reader: Reader, name: str) -> list[str]:
    """Names of the queues that have `name` as their dead-letter queue."""
    return [queue.name for queue in every(reader) if queue.dead_letter == name]
