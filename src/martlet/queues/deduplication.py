"""What a FIFO queue remembers for five minutes: deduplication ids, and answers to receives that may be repeated.

Developer guide, "Exactly-once processing": a message whose id was seen in the last five minutes is accepted and not
delivered; a receive that is repeated with the same attempt id gets the same messages again.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from martlet.queues.rows import Heap, Queue
from martlet.store import Tx, keys

__all__ = ["Original", "attempt", "original", "remember", "remember_attempt", "sweep"]

_FIVE_MINUTES_MS: Final = 300_000
_SWEEP: Final = 4  # remembered things that are too old, forgotten with each new one
_AT = struct.Struct(">Q")


class Original(msgspec.Struct, frozen=True, array_like=True):
    """The message that was sent with a deduplication id."""

    expires_at_ms: int
    id: str
    seq: int


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a receive got: (sent_at_ms, seq, receives) of each message."""

    expires_at_ms: int
    places: list[tuple[int, int, int]]


_ENCODER: Final = msgspec.msgpack.Encoder()
_ORIGINALS: Final = msgspec.msgpack.Decoder(Original)
_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)


def _key(heap: Heap, queue: Queue, now_ms: int, group: str, deduplication_id: str) -> bytes:
    by_group = queue.by_group_before if now_ms < queue.rescoped_at_ms else queue.by_group
    return heap.prefix + b"d" + keys.encode(group if by_group else "", deduplication_id)


def original(tx: Tx, queue: Queue, now_ms: int, group: str, deduplication_id: str) -> Original | None:
    """The message that was sent with this id in the last five minutes."""
    raw = tx.get(_key(Heap(queue.heap), queue, now_ms, group, deduplication_id))
    found = None if raw is None else _ORIGINALS.decode(raw)
    return found if found is not None and found.expires_at_ms > now_ms else None


def remember(tx: Tx, queue: Queue, now_ms: int, group: str, deduplication_id: str, id: str, seq: int) -> None:
    heap = Heap(queue.heap)
    expires_at_ms = now_ms + _FIVE_MINUTES_MS
    key = _key(heap, queue, now_ms, group, deduplication_id)
    _keep(tx, heap, key, expires_at_ms, _ENCODER.encode(Original(expires_at_ms, id, seq)))
    sweep(tx, heap, now_ms)


def attempt(tx: Tx, heap: Heap, now_ms: int, attempt_id: str) -> list[tuple[int, int, int]]:
    """(sent_at_ms, seq, receives) of what the receive with this attempt id got; empty if there was none."""
    raw = tx.get(heap.prefix + b"a" + keys.encode(attempt_id))
    found = None if raw is None else _ANSWERS.decode(raw)
    return found.places if found is not None and found.expires_at_ms > now_ms else []


def remember_attempt(tx: Tx, heap: Heap, now_ms: int, attempt_id: str, places: list[tuple[int, int, int]]) -> None:
    expires_at_ms = now_ms + _FIVE_MINUTES_MS
    key = heap.prefix + b"a" + keys.encode(attempt_id)
    _keep(tx, heap, key, expires_at_ms, _ENCODER.encode(Answer(expires_at_ms, places)))
    sweep(tx, heap, now_ms)


def _keep(tx: Tx, heap: Heap, key: bytes, expires_at_ms: int, value: bytes) -> None:
    tx.put(key, value)
    tx.put(heap.prefix + b"e" + _AT.pack(expires_at_ms) + key[len(heap.prefix) :], b"")


def sweep(tx: Tx, heap: Heap, now_ms: int) -> None:
    """Forget a few things that are older than five minutes."""
    low = heap.prefix + b"e"
    for key, _ in tx.scan(low, low + _AT.pack(now_ms + 1), limit=_SWEEP):
        tx.delete(key)
        kept = heap.prefix + key[len(low) + 8 :]
        raw = tx.get(kept)
        if raw is not None and msgspec.msgpack.decode(raw)[0] <= now_ms:
            tx.delete(kept)
