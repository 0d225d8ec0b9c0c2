"""What a queue is made of, as rows: what they hold, and their keys.

A queue's messages lie under a *heap*, a number that the queue holds: purging gives the queue a new heap, deleting takes it
away, both in one commit whatever the number of messages; what lies under the old heap is swept up behind.

    heap m (sent_at, seq)        the message, written once
    heap s (sent_at, seq)        what has happened to it, once it was received
    heap r (since, seq)          standard queue: may be received now · FIFO queue: a group whose first message may be
    heap t (visible_at, seq)     in flight or delayed: moves to r (FIFO: its group may) when that time has come
    heap o (group) (seq)         FIFO queue: the group's messages in their order
    heap d (id), e (expires, id) FIFO queue: deduplication ids, and when they are forgotten
    heap a (attempt id)          FIFO queue: answers that a repeated receive gets again
    heap c                       the counts
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from martlet.store import Reader, Tx, keys

__all__ = [
    "DELAYED",
    "IN_FLIGHT",
    "Counts",
    "Heap",
    "Message",
    "Queue",
    "State",
    "Value",
    "every_queue",
    "new_heap",
    "queue_named",
    "sweep",
]

IN_FLIGHT: Final = b"f"
DELAYED: Final = b"d"

_QUEUE: Final = "queues.queue"  # (.., name) -> Queue
_HEAP: Final = "queues.heap"  # (.., heap) and what follows
_GARBAGE: Final = "queues.garbage"  # (.., heap) -> nothing: swept up
QUEUES: Final = keys.prefix_range(_QUEUE)
HEAPS: Final = keys.prefix_range(_HEAP)
_HEAPS: Final = keys.encode("queues.heaps")  # -> counter: heaps given out
_PLACE = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")
_COUNTS = struct.Struct(">QQQQ")


class Queue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A queue. `attributes` are those that can be set, as text, without those that have their defaults."""

    name: str
    id: int  # never given twice: the first heap it had
    heap: int
    created_at_ms: int
    modified_at_ms: int
    fifo: bool = False
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}
    purged_at_ms: int = 0
    first_seq: int = 1  # of the heap: a FIFO queue's sequence numbers go on after a purge
    # Read from `attributes` once, since every call needs them:
    visibility_ms: int = 30_000
    delay_ms: int = 0
    wait_ms: int = 0
    retention_ms: int = 345_600_000
    largest: int = 1_048_576
    dead_letter: str = ""  # name of the queue that takes what failed `attempts` times
    attempts: int = 0
    by_content: bool = False
    by_group: bool = False  # deduplicates in each group by itself
    by_group_before: bool = False  # until `rescoped_at_ms`
    rescoped_at_ms: int = 0

    @property
    def policy(self) -> str:
        """Who may use it besides those whose own policies say so; "": nobody."""
        return self.attributes.get("Policy", "")


class Value(msgspec.Struct, frozen=True, array_like=True):
    """One attribute of a message. `data` is str, or bytes for the type Binary."""

    type: str
    data: Any


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A message as it was sent. Never changes."""

    id: str
    body: str
    sender: str
    visible_at_ms: int  # when it can be received for the first time
    attributes: dict[str, Value] = {}
    group: str = ""
    deduplication_id: str = ""
    trace: str = ""  # AWSTraceHeader
    source: str = ""  # ARN of the queue that it was moved from, as a dead letter
    receives: int = 0  # in queues before this one
    first_received_at_ms: int = 0  # likewise


class State(msgspec.Struct, frozen=True, array_like=True):
    """What has happened to a message in this queue. `visible_at_ms` says where in r or t it is."""

    visible_at_ms: int
    receives: int
    first_received_at_ms: int
    received_at_ms: int
    returned: int = 0  # of `receives`: given back by a trigger that could not run its function

    @property
    def tries(self) -> int:
        """Receives that count."""
        return self.receives - self.returned


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """How many messages are visible, in flight, delayed; and the number that the next one gets."""

    ready: int = 0
    in_flight: int = 0
    delayed: int = 0
    next_seq: int = 1


_ENCODER: Final = msgspec.msgpack.Encoder()
_QUEUES: Final = msgspec.msgpack.Decoder(Queue)
_MESSAGES: Final = msgspec.msgpack.Decoder(Message)
_STATES: Final = msgspec.msgpack.Decoder(State)

_queues: dict[bytes, Queue] = {}  # decoded rows; by their bytes, so that none can be stale


def queue_named(reader: Reader, name: str) -> Queue | None:
    """The queue of that name."""
    raw = reader.get(keys.encode(_QUEUE, name))
    return None if raw is None else _queue(raw)


def _queue(raw: bytes) -> Queue:
    found = _queues.get(raw)
    if found is None:
        if len(_queues) > 10_000:
            _queues.clear()
        found = _queues[raw] = _QUEUES.decode(raw)
    return found


def put_queue(tx: Tx, queue: Queue) -> None:
    tx.put(keys.encode(_QUEUE, queue.name), _ENCODER.encode(queue))


def delete_queue(tx: Tx, queue: Queue) -> None:
    tx.delete(keys.encode(_QUEUE, queue.name))
    discard(tx, queue.heap)


def every_queue(reader: Reader, prefix: str = "", after: str = "", limit: int = 1_000) -> list[Queue]:
    """Queues whose names begin with `prefix`, after the name `after`, by name."""
    low, high = keys.prefix_range(_QUEUE)
    if prefix:
        low = keys.encode(_QUEUE, prefix)[:-1]  # without the end of the text
        high = low + b"\xff"
    if after:
        low = max(low, keys.encode(_QUEUE, after) + b"\x00")
    return [_queue(raw) for _, raw in reader.scan(low, high, limit=limit)]


def new_heap(tx: Tx) -> int:
    return tx.increment(_HEAPS, 1)


def discard(tx: Tx, heap: int) -> None:
    """What lies under `heap` is nobody's any more."""
    tx.put(keys.encode(_GARBAGE, heap), b"")


def has_garbage(reader: Reader) -> bool:
    return bool(reader.scan(*keys.prefix_range(_GARBAGE), limit=1))


def sweep(tx: Tx, most: int) -> bool:
    """Delete some rows that are nobody's any more; False when there are none left."""
    found = tx.scan(*keys.prefix_range(_GARBAGE), limit=1)
    if not found:
        return False
    row = found[0][0]
    heap = keys.decode(row)[1]
    rows = tx.scan(*keys.prefix_range(_HEAP, heap), limit=most)
    for key, _ in rows:
        tx.delete(key)
    if len(rows) < most:
        tx.delete(row)
    return True


class Heap:
    """The rows of one queue's messages. Keys are made here and nowhere else."""

    __slots__ = ("_counts", "messages", "order", "prefix", "ready", "states", "timed")

    def __init__(self, heap: int) -> None:
        prefix = keys.encode(_HEAP, heap)
        self.prefix = prefix
        self._counts = prefix + b"c"
        self.messages = prefix + b"m"
        self.states = prefix + b"s"
        self.ready = prefix + b"r"
        self.timed = prefix + b"t"
        self.order = prefix + b"o"

    @property
    def comes_and_goes(self) -> tuple[bytes, bytes]:
        """The range of the keys of what is ready, or will be: a change there is a receiver's news."""
        return self.ready, self.timed + b"\xff"

    # messages and their states

    def message(self, reader: Reader, sent_at_ms: int, seq: int) -> Message | None:
        raw = reader.get(self.messages + _PLACE.pack(sent_at_ms, seq))
        return None if raw is None else _MESSAGES.decode(raw)

    def put_message(self, tx: Tx, sent_at_ms: int, seq: int, message: Message) -> None:
        tx.put(self.messages + _PLACE.pack(sent_at_ms, seq), _ENCODER.encode(message))

    def oldest(self, reader: Reader, limit: int) -> list[tuple[int, int, Message]]:
        """The messages that were sent first: (sent_at_ms, seq, message)."""
        rows = reader.scan(self.messages, self.messages + b"\xff" * 17, limit=limit)
        return [(*_PLACE.unpack_from(key, len(key) - 16), _MESSAGES.decode(raw)) for key, raw in rows]

    def state(self, reader: Reader, sent_at_ms: int, seq: int) -> State | None:
        raw = reader.get(self.states + _PLACE.pack(sent_at_ms, seq))
        return None if raw is None else _STATES.decode(raw)

    def put_state(self, tx: Tx, sent_at_ms: int, seq: int, state: State) -> None:
        tx.put(self.states + _PLACE.pack(sent_at_ms, seq), _ENCODER.encode(state))

    def forget(self, tx: Tx, sent_at_ms: int, seq: int) -> None:
        """The message and its state; not where it stands."""
        place = _PLACE.pack(sent_at_ms, seq)
        tx.delete(self.messages + place)
        tx.delete(self.states + place)

    # places in the order of times

    @staticmethod
    def place(at_ms: int, seq: int) -> bytes:
        return _PLACE.pack(at_ms, seq)

    @staticmethod
    def number(value: int) -> bytes:
        return _NUMBER.pack(value)

    def first_ready(self, reader: Reader, limit: int, after: bytes = b"") -> list[tuple[bytes, int, int, bytes]]:
        """(key, visible_at_ms, seq, value) of what can be received, the longest visible first."""
        low = after + b"\x00" if after else self.ready
        rows = reader.scan(low, self.ready + b"\xff" * 17, limit=limit)
        return [(key, *_PLACE.unpack_from(key, len(key) - 16), value) for key, value in rows]

    def due(self, reader: Reader, now_ms: int, limit: int) -> list[tuple[bytes, int, int, bytes]]:
        """(key, visible_at_ms, seq, value) of what is in flight or delayed no longer."""
        # To the end of the second: who runs again a moment later, on rows that were fetched meanwhile, asks for the same ones.
        rows = reader.scan(self.timed, self.timed + _PLACE.pack(now_ms - now_ms % 1000 + 1000, 0), limit=limit)
        found = [(key, *_PLACE.unpack_from(key, len(key) - 16), value) for key, value in rows]
        while found and found[-1][1] > now_ms:
            found.pop()
        return found

    def next_due(self, reader: Reader) -> int | None:
        """When the next message that is in flight or delayed becomes visible."""
        rows = reader.scan(self.timed, self.timed + b"\xff" * 17, limit=1)
        return _PLACE.unpack_from(rows[0][0], len(rows[0][0]) - 16)[0] if rows else None

    # a FIFO queue's groups

    def group(self, name: str) -> bytes:
        """What the keys of a group's messages begin with."""
        return self.order + keys.encode(name)

    def group_rows(self, reader: Reader, group: bytes, limit: int) -> list[tuple[int, int, int]]:
        """(seq, sent_at_ms, visible_at_ms) of the group's messages in order; a visible one has `visible_at_ms` as the
        time since when, one that is in flight or delayed minus the time until when."""
        rows = reader.scan(group, group + b"\xff" * 9, limit=limit)
        found = []
        for key, raw in rows:
            sent_at_ms, signed = struct.unpack(">Qq", raw)
            found.append((_NUMBER.unpack_from(key, len(key) - 8)[0], sent_at_ms, signed))
        return found

    def put_group_row(self, tx: Tx, group: bytes, seq: int, sent_at_ms: int, signed_visible_at_ms: int) -> None:
        tx.put(group + _NUMBER.pack(seq), struct.pack(">Qq", sent_at_ms, signed_visible_at_ms))

    def delete_group_row(self, tx: Tx, group: bytes, seq: int) -> None:
        tx.delete(group + _NUMBER.pack(seq))

    # the counts

    def counts(self, reader: Reader, first_seq: int = 1) -> Counts:
        raw = reader.get(self._counts)
        return Counts(0, 0, 0, first_seq) if raw is None else Counts(*_COUNTS.unpack(raw))

    def put_counts(self, tx: Tx, counts: Counts) -> None:
        tx.put(self._counts, _COUNTS.pack(counts.ready, counts.in_flight, counts.delayed, counts.next_seq))
