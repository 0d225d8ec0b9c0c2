"""A queue's messages within one transaction: adding, taking, hiding and dropping them. Standard and FIFO queues differ here
and nowhere else.

A message is *ready*, *in flight* or *delayed*; the last two have a time at which they become ready (`promote`). What is ready
is found without looking at anything else, so a queue costs the same with ten messages and with ten million.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from martlet.queues.rows import DELAYED, IN_FLIGHT, Counts, Heap, Message, Queue, State
from martlet.store import Tx

__all__ = ["FifoLine", "Line", "StandardLine", "Taken", "line_of"]

_PROMOTE: Final = 200  # messages that become ready in one transaction
_STEPS: Final = 100  # messages that one receive may find expired or dead before it pauses
_SPARE: Final = 10  # of a group, looked at beyond what is wanted: in place of the expired and the dead
_SENT = struct.Struct(">Q")


class Taken(msgspec.Struct, frozen=True):
    """A message that was received, with its place and what has happened to it by now."""

    sent_at_ms: int
    seq: int
    message: Message
    state: State


Bury = Callable[[Message, State, int], bool]  # (message, its state, sent_at_ms): whether it has become a dead letter


class Line:
    """One queue in one transaction. `close` writes the counts, if they have changed."""

    def __init__(self, tx: Tx, queue: Queue, now_ms: int) -> None:
        self.tx = tx
        self.queue = queue
        self.now_ms = now_ms
        self.heap = Heap(queue.heap)
        self._before = counts = self.heap.counts(tx, queue.first_seq)
        self.ready, self.in_flight, self.delayed, self.next_seq = (
            counts.ready,
            counts.in_flight,
            counts.delayed,
            counts.next_seq,
        )
        self.due_at_ms = 0  # the soonest time at which something that was hidden here comes back; 0: nothing was
        self.paused = False  # `take` stopped before it had looked at everything

    def close(self) -> None:
        counts = Counts(self.ready, self.in_flight, self.delayed, self.next_seq)
        if counts != self._before:
            self.heap.put_counts(self.tx, counts)
            self._before = counts

    def add(self, message: Message, sent_at_ms: int) -> int:
        """A new message at the end, visible at `message.visible_at_ms`. Returns its number."""
        seq = self.next_seq
        self.next_seq += 1
        self.heap.put_message(self.tx, sent_at_ms, seq, message)
        self._stand(sent_at_ms, seq, message)
        return seq

    def promote(self, most: int = _PROMOTE) -> bool:
        """What is in flight or delayed no longer is ready. True if there may be more."""
        rows = self.heap.due(self.tx, self.now_ms, most)
        for key, visible_at_ms, seq, value in rows:
            self.tx.delete(key)
            self._count(value[:1], -1)
            self.ready += 1
            self._promoted(visible_at_ms, seq, value[1:])
        return len(rows) == most

    def expire(self, most: int) -> bool:
        """Drop messages that are older than the queue keeps them. True if there may be more."""
        oldest_ms = self.now_ms - self.queue.retention_ms
        for count, (sent_at_ms, seq, message) in enumerate(self.heap.oldest(self.tx, most), 1):
            if sent_at_ms > oldest_ms:
                return False
            self.drop(sent_at_ms, seq, message, self.heap.state(self.tx, sent_at_ms, seq))
            if count == most:
                return True
        return False

    def expired(self, sent_at_ms: int) -> bool:
        return sent_at_ms <= self.now_ms - self.queue.retention_ms

    def pull(self, most: int, accept: Callable[[Message], bool]) -> int:
        """Take up to `most` messages that are ready out of the queue, without receiving them. The first that `accept` refuses
        stays, and all behind it. Returns how many went."""
        pulled = 0
        while pulled < most:
            rows = self.heap.first_ready(self.tx, most - pulled)
            if not rows:
                break
            for _, _, seq, value in rows:
                sent_at_ms = self._sent_at(value)
                message = self.heap.message(self.tx, sent_at_ms, seq)
                assert message is not None  # these rows are only ever written together
                if not accept(message):
                    return pulled
                self.drop(sent_at_ms, seq, message, self.heap.state(self.tx, sent_at_ms, seq))
                pulled += 1
        return pulled

    def take(self, most: int, visibility_ms: int, bury: Bury) -> list[Taken]:
        """Receive up to `most` messages: they are in flight for `visibility_ms` from now on (0: not at all)."""
        raise NotImplementedError

    def hide(self, sent_at_ms: int, seq: int, state: State, until_ms: int) -> None:
        """Change when a received message is visible again; now, if `until_ms` is not after now."""
        raise NotImplementedError

    def drop(self, sent_at_ms: int, seq: int, message: Message | None, state: State | None) -> None:
        """Delete a message, wherever it stands. A FIFO queue needs `message`, and one never received does everywhere."""
        raise NotImplementedError

    def _stand(self, sent_at_ms: int, seq: int, message: Message) -> None:
        raise NotImplementedError

    def _sent_at(self, value: bytes) -> int:
        """Of the message that a row of what is ready means."""
        raise NotImplementedError

    def _promoted(self, visible_at_ms: int, seq: int, value: bytes) -> None:
        raise NotImplementedError

    def _count(self, kind: bytes, by: int) -> None:
        if kind == IN_FLIGHT:
            self.in_flight += by
        else:
            self.delayed += by

    def _time(self, kind: bytes, at_ms: int, seq: int, value: bytes) -> None:
        """Not ready before `at_ms`."""
        self.tx.put(self.heap.timed + self.heap.place(at_ms, seq), kind + value)
        self._count(kind, 1)
        self.due_at_ms = min(self.due_at_ms or at_ms, at_ms)

    def _untime(self, at_ms: int, seq: int) -> bool:
        """Take away the time; False if there is none: it is ready."""
        key = self.heap.timed + self.heap.place(at_ms, seq)
        value = self.tx.get(key)
        if value is None:
            return False
        self.tx.delete(key)
        self._count(value[:1], -1)
        return True

    def _received(self, sent_at_ms: int, seq: int, message: Message, before: State | None, visibility_ms: int) -> Taken:
        first = message.first_received_at_ms or self.now_ms
        receives, returned = 1, 0
        if before is not None:
            first, receives, returned = before.first_received_at_ms, before.receives + 1, before.returned
        state = State(self.now_ms + visibility_ms, receives, first, self.now_ms, returned)
        self.heap.put_state(self.tx, sent_at_ms, seq, state)
        return Taken(sent_at_ms, seq, message, state)

    def _is_dead(self, before: State | None) -> bool:
        attempts = self.queue.attempts
        return attempts > 0 and before is not None and before.tries >= attempts


class StandardLine(Line):
    """Messages go out in about the order in which they were sent, each on its own. One whose time ran out is back in its old
    place; one that was given back at once stands behind those that are there, so that it does not come again and again before
    them."""

    def take(self, most: int, visibility_ms: int, bury: Bury) -> list[Taken]:
        taken: list[Taken] = []
        after = b""
        steps = _STEPS
        while len(taken) < most:
            rows = self.heap.first_ready(self.tx, most - len(taken), after)
            if not rows:
                break
            if steps <= 0:
                self.paused = True
                break
            steps -= len(rows)
            for key, _, seq, value in rows:
                after = key
                if any(one.seq == seq for one in taken):  # visible again at once, and so behind itself
                    continue
                found = self._take(key, seq, _SENT.unpack(value)[0], visibility_ms, bury)
                if found is not None:
                    taken.append(found)
        return taken

    def _take(self, key: bytes, seq: int, sent_at_ms: int, visibility_ms: int, bury: Bury) -> Taken | None:
        heap, tx = self.heap, self.tx
        message = heap.message(tx, sent_at_ms, seq)
        assert message is not None  # these rows are only ever written together
        before = heap.state(tx, sent_at_ms, seq)
        tx.delete(key)
        self.ready -= 1
        if self.expired(sent_at_ms) or (self._is_dead(before) and before and bury(message, before, sent_at_ms)):
            heap.forget(tx, sent_at_ms, seq)
            return None
        taken = self._received(sent_at_ms, seq, message, before, visibility_ms)
        self._place(sent_at_ms, seq, IN_FLIGHT, taken.state.visible_at_ms)
        return taken

    def hide(self, sent_at_ms: int, seq: int, state: State, until_ms: int) -> None:
        self._leave(sent_at_ms, seq, state.visible_at_ms)
        visible_at_ms = max(until_ms, self.now_ms)
        self._place(sent_at_ms, seq, IN_FLIGHT, visible_at_ms)
        self.heap.put_state(self.tx, sent_at_ms, seq, msgspec.structs.replace(state, visible_at_ms=visible_at_ms))

    def drop(self, sent_at_ms: int, seq: int, message: Message | None, state: State | None) -> None:
        at = state or message
        assert at is not None
        self._leave(sent_at_ms, seq, at.visible_at_ms)
        self.heap.forget(self.tx, sent_at_ms, seq)

    def _stand(self, sent_at_ms: int, seq: int, message: Message) -> None:
        self._place(sent_at_ms, seq, DELAYED, message.visible_at_ms)

    def _sent_at(self, value: bytes) -> int:
        return int(_SENT.unpack(value)[0])

    def _place(self, sent_at_ms: int, seq: int, kind: bytes, at_ms: int) -> None:
        if at_ms > self.now_ms:
            self._time(kind, at_ms, seq, _SENT.pack(sent_at_ms))
            return
        self.tx.put(self.heap.ready + self.heap.place(at_ms, seq), _SENT.pack(sent_at_ms))
        self.ready += 1

    def _leave(self, sent_at_ms: int, seq: int, at_ms: int) -> None:
        if not self._untime(at_ms, seq):
            for place in {at_ms, sent_at_ms}:  # it stands in one of the two: see `_promoted`
                self.tx.delete(self.heap.ready + self.heap.place(place, seq))
            self.ready -= 1

    def _promoted(self, visible_at_ms: int, seq: int, value: bytes) -> None:
        self.tx.put(self.heap.ready + self.heap.place(self._sent_at(value), seq), value)


class FifoLine(Line):
    """Messages of a group go out in their order, and none while one before it is in flight or delayed.

    r holds the groups whose first message is ready, each under that message's place."""

    def take(self, most: int, visibility_ms: int, bury: Bury) -> list[Taken]:
        taken: list[Taken] = []
        walked: set[bytes] = set()
        steps = _STEPS
        after = b""
        while len(taken) < most:
            rows = self.heap.first_ready(self.tx, most - len(taken), after)
            if not rows:
                break
            for key, _, _, name in rows:
                after = key
                if len(taken) >= most or name in walked:
                    continue
                if steps <= 0:
                    self.paused = True
                    return taken
                walked.add(name)
                steps -= self._walk(key, name.decode(), most, visibility_ms, bury, taken)
        return taken

    def _walk(self, key: bytes, name: str, most: int, visibility_ms: int, bury: Bury, taken: list[Taken]) -> int:
        """Take from one group, from its first message on. Returns how many it looked at."""
        heap, tx = self.heap, self.tx
        group = heap.group(name)
        tx.delete(key)
        looked, wanted = 0, most - len(taken)
        for seq, sent_at_ms, signed in heap.group_rows(tx, group, wanted + _SPARE):
            if signed < 0 or len(taken) >= most:
                break
            looked += 1
            message = heap.message(tx, sent_at_ms, seq)
            assert message is not None
            before = heap.state(tx, sent_at_ms, seq)
            if self.expired(sent_at_ms) or (self._is_dead(before) and before and bury(message, before, sent_at_ms)):
                heap.forget(tx, sent_at_ms, seq)
                heap.delete_group_row(tx, group, seq)
                self.ready -= 1
                continue
            one = self._received(sent_at_ms, seq, message, before, visibility_ms)
            taken.append(one)
            self.ready -= 1
            self._place(group, name, sent_at_ms, seq, IN_FLIGHT, one.state.visible_at_ms)
        self._lead(group, name)
        self.paused |= looked == wanted + _SPARE
        return looked

    def hide(self, sent_at_ms: int, seq: int, state: State, until_ms: int) -> None:
        message = self.heap.message(self.tx, sent_at_ms, seq)
        assert message is not None
        group = self.heap.group(message.group)
        self._unlead(group)
        if not self._untime(state.visible_at_ms, seq):
            self.ready -= 1
        visible_at_ms = max(until_ms, self.now_ms)
        self._place(group, message.group, sent_at_ms, seq, IN_FLIGHT, visible_at_ms)
        self.heap.put_state(self.tx, sent_at_ms, seq, msgspec.structs.replace(state, visible_at_ms=visible_at_ms))
        self._lead(group, message.group)

    def drop(self, sent_at_ms: int, seq: int, message: Message | None, state: State | None) -> None:
        assert message is not None
        group = self.heap.group(message.group)
        self._unlead(group)
        if not self._untime((state or message).visible_at_ms, seq):
            self.ready -= 1
        self.heap.forget(self.tx, sent_at_ms, seq)
        self.heap.delete_group_row(self.tx, group, seq)
        self._lead(group, message.group)

    def _stand(self, sent_at_ms: int, seq: int, message: Message) -> None:
        group = self.heap.group(message.group)
        first = not self.heap.group_rows(self.tx, group, 1)
        self._place(group, message.group, sent_at_ms, seq, DELAYED, message.visible_at_ms)
        if first:
            self._lead(group, message.group)

    def _sent_at(self, value: bytes) -> int:
        return self.heap.group_rows(self.tx, self.heap.group(value.decode()), 1)[0][1]

    def _place(self, group: bytes, name: str, sent_at_ms: int, seq: int, kind: bytes, at_ms: int) -> None:
        if at_ms > self.now_ms:
            self._time(kind, at_ms, seq, _SENT.pack(sent_at_ms) + name.encode())
            self.heap.put_group_row(self.tx, group, seq, sent_at_ms, -at_ms)
            return
        self.heap.put_group_row(self.tx, group, seq, sent_at_ms, at_ms)
        self.ready += 1

    def _lead(self, group: bytes, name: str) -> None:
        """The group can be received from, if its first message is ready."""
        for seq, _, signed in self.heap.group_rows(self.tx, group, 1):
            if signed >= 0:
                self.tx.put(self.heap.ready + self.heap.place(signed, seq), name.encode())

    def _unlead(self, group: bytes) -> None:
        for seq, _, signed in self.heap.group_rows(self.tx, group, 1):
            if signed >= 0:
                self.tx.delete(self.heap.ready + self.heap.place(signed, seq))

    def _promoted(self, visible_at_ms: int, seq: int, value: bytes) -> None:
        name = value[8:].decode()
        group = self.heap.group(name)
        self.heap.put_group_row(self.tx, group, seq, _SENT.unpack_from(value)[0], visible_at_ms)
        for first, _, _ in self.heap.group_rows(self.tx, group, 1):
            if first == seq:
                self._lead(group, name)


def line_of(tx: Tx, queue: Queue, now_ms: int) -> Line:
    """The queue's messages in this transaction."""
    return FifoLine(tx, queue, now_ms) if queue.fifo else StandardLine(tx, queue, now_ms)
