"""The room: every call is one transaction, and answers when it is durable. Waiting is done outside of transactions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from martlet.clock import Clock, uuid4_text
from martlet.errors import AccessDenied, MartletError, ServiceError
from martlet.limits import LIMITS
from martlet.queues import deduplication, messages, policies, registry, rows
from martlet.queues.attributes import arn_of, name_in_arn
from martlet.queues.failures import bad_handle, expired_handle, invalid, invalid_value, missing, not_hidden
from martlet.queues.lines import Line, Taken, line_of
from martlet.queues.moves import Moves
from martlet.queues.policies import By
from martlet.queues.receipts import Receipt, Receipts
from martlet.queues.rows import Counts, Message, Queue, State, Value
from martlet.queues.waiting import Waiting
from martlet.store import Store, Tx, keys

__all__ = ["Draft", "Queues", "Received", "Sent"]

T = TypeVar("T")

_KEY: Final = keys.encode("queues.receipts")  # -> what receipt handles are signed with
_HIDDEN_MS_MAX: Final = 43_200_000  # a message is in flight for twelve hours at most, however often that is prolonged
_IN_FLIGHT_MAX: Final = LIMITS["queue_in_flight"].default
_SWEEP: Final = 500  # rows in one step behind a purge
_EXPIRE: Final = 50  # messages that one step drops because of their age
_FIRST_NUMBER: Final = 18_849_496_460_467_696_128  # SQS's sequence numbers have 20 digits and leave gaps
_NUMBER_STEP: Final = 256
_LOG: Final = logging.getLogger("martlet.queues")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be sent. Body and attributes have been checked (`messages`). `delay_ms` None: the queue's."""

    body: str
    attributes: Mapping[str, Value] = {}
    group: str | None = None
    deduplication_id: str | None = None
    delay_ms: int | None = None
    trace: str = ""
    trace_given: bool = False  # by the sender as a system attribute, not by the way of the request
    sender: str = ""
    size: int = 0  # bytes that count; 0: not known yet


class Sent(msgspec.Struct, frozen=True):
    """A message that is durable. `sequence_number` is "" in a standard queue."""

    id: str
    sequence_number: str


class Received(msgspec.Struct, frozen=True):
    """A message that is in flight. `receives` counts this time too."""

    message: Message
    handle: str
    sent_at_ms: int
    sequence_number: str
    receives: int
    first_received_at_ms: int


class Queues:
    """Named queues. Errors are `ServiceError` in the words of Amazon SQS.

    `rest_ms`: how long a queue's name rests after it was deleted (SQS: 60,000). Start it before it is called.
    """

    def __init__(self, store: Store, clock: Clock, *, region: str = "us-east-1", rest_ms: int = 0) -> None:
        self._store = store
        self._clock = clock
        self.region = region
        self._rest_ms = rest_ms
        self._receipts: Receipts | None = None
        self._waiting = Waiting(clock)
        self._waits: dict[str, int] = {}  # name -> ReceiveMessageWaitTimeSeconds in ms, of the queues that have one
        self._sweeper: asyncio.Task[None] | None = None
        self.moves = Moves(store, clock, region, self._woken)

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on with what a crash interrupted: sweeping behind purged queues, moving messages."""
        secret = os.urandom(32)

        def take_key(tx: Tx) -> bytes:
            found = tx.get(_KEY)
            if found is None:
                tx.put(_KEY, secret)
            return found or secret

        self._receipts = Receipts(await self._store.transact(take_key))
        for queue in self._store.read(lambda reader: list(registry.every(reader))):
            self._note(queue)
        self._store.watch(*rows.QUEUES, self._others_changed)
        self._store.watch(*rows.HEAPS, self._waiting.changed)
        self._sweep()
        self.moves.start()
        self._store.on_departure(lambda node: self.moves.start())

    def _others_changed(self, changed: Sequence[bytes] | None) -> None:
        """Another node made, changed or deleted queues."""
        self._waits.clear()
        for queue in self._store.read(lambda reader: list(registry.every(reader))):
            self._note(queue)
        self._waiting.changed(None)

    def release(self) -> None:
        """Who waits for a message gets an empty answer, now and from now on."""
        self._waiting.close()

    async def stop(self) -> None:
        self.release()
        await self.moves.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    # --- queues ---------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Queue | None:
        """The queue of that name."""
        return self._store.read(lambda reader: rows.queue_named(reader, name))

    def find_arn(self, arn: str) -> Queue | None:
        """The queue of that ARN."""
        name = name_in_arn(arn, self.region)
        return None if name is None else self.find(name)

    def page(self, prefix: str = "", after: str = "", limit: int = 1_000) -> list[Queue]:
        """Queues by name."""
        return self._store.read(lambda reader: rows.every_queue(reader, prefix, after, limit))

    def sources_of(self, name: str) -> list[str]:
        """Names of the queues whose dead-letter queue this is. Raises QueueDoesNotExist."""
        return self._store.read(lambda reader: registry.sources_of(reader, registry.demand(reader, name).name))

    async def create(self, name: str, attributes: Mapping[str, Any] = {}, tags: Mapping[str, str] = {}) -> Queue:
        """See `registry.create`."""
        return self._note(
            await self._store.transact(
                lambda tx: registry.create(tx, name, attributes, tags, self.region, self._clock.now_ms(), self._rest_ms)
            )
        )

    async def set_attributes(self, name: str, attributes: Mapping[str, Any]) -> Queue:
        """See `registry.set_attributes`."""
        now_ms = self._clock.now_ms()
        change = lambda tx: registry.set_attributes(tx, name, attributes, self.region, now_ms)  # noqa: E731
        return self._note(await self._store.transact(change))

    async def change(self, name: str, fn: Callable[[Tx, Queue], T]) -> T:
        """Run `fn` on the queue in one transaction. Raises QueueDoesNotExist."""
        return await self._store.transact(lambda tx: fn(tx, registry.demand(tx, name)))

    async def delete(self, name: str) -> None:
        """See `registry.delete`."""
        await self._store.transact(lambda tx: registry.delete(tx, name, self._clock.now_ms(), self._rest_ms))
        self._waits.pop(name, None)
        self._waiting.wake_all(name)
        self._sweep()

    async def purge(self, name: str) -> None:
        """See `registry.purge`."""
        await self._store.transact(lambda tx: registry.purge(tx, name, self._clock.now_ms()))
        self._waiting.wake_all(name)
        self._sweep()

    async def counts(self, name: str) -> Counts:
        """How many messages are visible, in flight and delayed now. Raises QueueDoesNotExist."""

        def look(tx: Tx) -> tuple[bool, Counts]:
            line = line_of(tx, registry.demand(tx, name), self._clock.now_ms())
            more = line.promote(1_000)
            more |= line.expire(_EXPIRE)
            line.close()
            return more, Counts(line.ready, line.in_flight, line.delayed, line.next_seq)

        while True:
            more, counts = await self._store.transact(look)
            if not more:
                return counts

    async def expire(self) -> None:
        """Drop what is older than its queue keeps it, in every queue: for the space. What is received is checked anyway."""
        for queue in self._store.read(lambda reader: list(registry.every(reader))):
            with contextlib.suppress(ServiceError):  # deleted meanwhile
                await self.counts(queue.name)

    # --- sending --------------------------------------------------------------------------------------------------

    async def send(self, name: str, drafts: Sequence[Draft], *, by: By | None = None) -> list[Sent | ServiceError]:
        """Put messages at the end of the queue, all in one commit. What is wrong with one message alone is returned in its
        place. `by`: the service that sends, which the queue's policy must admit; None: who sends was asked already. Raises
        QueueDoesNotExist, `AccessDenied`."""
        sent, woken, due_at_ms = await self._store.transact(lambda tx: self._send(tx, name, drafts, by))
        self._woken(name, woken, due_at_ms)
        return sent

    def put(self, tx: Tx, name: str, draft: Draft, *, by: By | None = None) -> Callable[[], None]:
        """Send within the caller's transaction; what is returned is to be called after its commit. `by` as for `send`. Raises
        `ServiceError`, `AccessDenied`."""
        (sent,), woken, due_at_ms = self._send(tx, name, [draft], by)
        if isinstance(sent, ServiceError):
            raise sent
        return lambda: self._woken(name, woken, due_at_ms)

    def admits(self, name: str, by: By) -> bool:
        """Whether the queue is there, and its policy lets a service send to it."""
        queue = self.find(name)
        try:
            if queue is not None:
                policies.admit(queue.policy, by, arn_of(name, self.region))
        except AccessDenied:
            return False
        return queue is not None

    def _send(self, tx: Tx, name: str, drafts: Sequence[Draft], by: By | None) -> tuple[list[Sent | ServiceError], int, int]:
        queue = registry.demand(tx, name)
        if by is not None:
            policies.admit(queue.policy, by, arn_of(name, self.region))
        line = line_of(tx, queue, self._clock.now_ms())
        ready = line.ready
        sent: list[Sent | ServiceError] = []
        for draft in drafts:
            try:
                sent.append(self._add(line, draft))
            except ServiceError as error:
                sent.append(error)
        line.close()
        return sent, line.ready - ready, line.due_at_ms

    def _add(self, line: Line, draft: Draft) -> Sent:
        queue, now_ms = line.queue, line.now_ms
        if (draft.size or messages.size_of(draft.body, draft.attributes)) > queue.largest:
            raise invalid(f"One or more parameters are invalid. Reason: Message must be shorter than {queue.largest} bytes.")
        delay_ms = queue.delay_ms if draft.delay_ms is None else draft.delay_ms
        group = draft.group or ""
        deduplication_id = ""
        if queue.fifo:
            delay_ms = _fifo_delay(queue, draft)
            deduplication_id = _fifo_id(queue, draft)
            before = deduplication.original(line.tx, queue, now_ms, group, deduplication_id)
            if before is not None:
                return Sent(before.id, _sequence_number(before.seq))
        elif draft.deduplication_id is not None:
            deduplication_id = draft.deduplication_id
        id = uuid4_text()
        message = Message(
            id=id,
            body=draft.body,
            sender=draft.sender,
            visible_at_ms=now_ms + delay_ms,
            attributes=dict(draft.attributes),
            group=group,
            deduplication_id=deduplication_id,
            trace=draft.trace,
        )
        seq = line.add(message, now_ms)
        if queue.fifo:
            deduplication.remember(line.tx, queue, now_ms, group, deduplication_id, id, seq)
        return Sent(id, _sequence_number(seq) if queue.fifo else "")

    def waits(self, name: str) -> bool:
        """Whether a receive that does not say how long it waits may wait."""
        return name in self._waits

    # --- receiving ------------------------------------------------------------------------------------------------

    async def receive(
        self,
        name: str,
        most: int = 1,
        *,
        visibility_ms: int | None = None,
        wait_ms: int | None = None,
        attempt_id: str = "",
    ) -> list[Received]:
        """Up to `most` messages, in flight for `visibility_ms` from now on; waits up to `wait_ms` for the first (None: what the
        queue says). Raises QueueDoesNotExist, OverLimit."""
        if wait_ms is None:
            wait_ms = self._waits.get(name, 0)
        step = lambda tx: self._receive(tx, name, most, visibility_ms, attempt_id)  # noqa: E731
        if not wait_ms:
            return (await self._take(name, step))[0]
        until = asyncio.get_running_loop().time() + wait_ms / 1000
        with self._waiting.join(name) as place:
            while True:
                place.look()
                found, after = await self._take(name, step)
                place.stands(*after.range)
                self._waiting.due(name, after.next_due_ms)
                if found or self._waiting.closed or asyncio.get_running_loop().time() >= until:
                    return found
                await place.wait(until)

    async def _take(self, name: str, step: Callable[[Tx], tuple[list[Received], _After]]) -> tuple[list[Received], _After]:
        while True:
            found, after = await self._store.transact(step)
            for other, count in after.buried.items():
                self._woken(other, count, 0)
            self._waiting.due(name, after.due_at_ms)
            if found and after.left:
                self._waiting.wake(name)  # one by one, each that gets something wakes the next
            if found or not after.paused:
                return found, after

    def _receive(
        self, tx: Tx, name: str, most: int, visibility_ms: int | None, attempt_id: str
    ) -> tuple[list[Received], _After]:
        queue = registry.demand(tx, name)
        now_ms = self._clock.now_ms()
        line = line_of(tx, queue, now_ms)
        line.promote()
        visibility_ms = queue.visibility_ms if visibility_ms is None else visibility_ms
        taken = self._again(line, visibility_ms, attempt_id) if attempt_id and queue.fifo else []
        burial = _Burial(tx, queue, now_ms, arn_of(name, self.region))
        if not taken:
            most = min(most, _IN_FLIGHT_MAX - line.in_flight)
            if most > 0:
                taken = line.take(most, visibility_ms, burial)
            elif not queue.fifo:
                raise ServiceError("OverLimit", "Too many messages in flight.", 403)
        if taken and attempt_id and queue.fifo:
            places = [(one.sent_at_ms, one.seq, one.state.receives) for one in taken]
            deduplication.remember_attempt(tx, line.heap, now_ms, attempt_id, places)
        buried = burial.close()
        line.close()
        after = _After(
            paused=line.paused,
            left=line.ready > 0,
            due_at_ms=line.due_at_ms,
            next_due_ms=None if taken else line.heap.next_due(tx),
            buried=buried,
            range=line.heap.comes_and_goes,
        )
        return [self._received(queue, one) for one in taken], after

    def _again(self, line: Line, visibility_ms: int, attempt_id: str) -> list[Taken]:
        """What the receive with this attempt id got, if all of it is as it was then; their visibility begins anew."""
        again: list[Taken] = []
        for sent_at_ms, seq, receives in deduplication.attempt(line.tx, line.heap, line.now_ms, attempt_id):
            message, state = line.heap.message(line.tx, sent_at_ms, seq), line.heap.state(line.tx, sent_at_ms, seq)
            if message is None or state is None or state.receives != receives or state.visible_at_ms <= line.now_ms:
                return []
            again.append(Taken(sent_at_ms, seq, message, state))
        for one in again:
            line.hide(one.sent_at_ms, one.seq, one.state, line.now_ms + visibility_ms)
        return again

    def _received(self, queue: Queue, taken: Taken) -> Received:
        state = taken.state
        receipt = Receipt(queue.id, queue.heap, taken.sent_at_ms, taken.seq, state.receives)
        return Received(
            message=taken.message,
            handle=self._signed.handle(receipt),
            sent_at_ms=taken.sent_at_ms,
            sequence_number=_sequence_number(taken.seq) if queue.fifo else "",
            receives=taken.message.receives + state.tries,
            first_received_at_ms=state.first_received_at_ms,
        )

    # --- what follows a receive -----------------------------------------------------------------------------------

    async def acknowledge(self, name: str, handles: Sequence[str]) -> list[ServiceError | None]:
        """Delete received messages, all in one commit; for each handle what is wrong with it, or None. Raises
        QueueDoesNotExist."""

        def drop(tx: Tx) -> list[ServiceError | None]:
            queue = registry.demand(tx, name)
            line = line_of(tx, queue, self._clock.now_ms())
            ends = [self._drop(line, handle) for handle in handles]
            line.close()
            return ends

        ends = await self._store.transact(drop)
        self._waiting.wake(name, len(handles))  # in a FIFO queue the groups may go on
        return ends

    def _drop(self, line: Line, handle: str) -> ServiceError | None:
        receipt = self._signed.read(handle)
        if receipt is None or receipt.queue != line.queue.id:
            return bad_handle(handle)
        state = self._standing(line, receipt)
        if state is None:
            return None  # deleted already, or purged
        fifo = line.queue.fifo
        if state.receives != receipt.receives or (fifo and state.visible_at_ms <= line.now_ms):
            # A standard queue says yes to an old handle, but the message belongs to who received it last.
            return expired_handle(handle) if fifo else None
        message = line.heap.message(line.tx, receipt.sent_at_ms, receipt.seq) if fifo else None
        line.drop(receipt.sent_at_ms, receipt.seq, message, state)
        return None

    @staticmethod
    def _standing(line: Line, receipt: Receipt) -> State | None:
        if receipt.heap != line.queue.heap:
            return None
        return line.heap.state(line.tx, receipt.sent_at_ms, receipt.seq)

    async def hide(self, name: str, changes: Sequence[tuple[str, int]]) -> list[ServiceError | None]:
        """Received messages become visible so many milliseconds from now (0: at once), all in one commit; for each (handle,
        visibility_ms) what is wrong with it, or None. Raises QueueDoesNotExist."""

        def hide(tx: Tx) -> tuple[list[ServiceError | None], int, int]:
            queue = registry.demand(tx, name)
            line = line_of(tx, queue, self._clock.now_ms())
            ready = line.ready
            ends = [self._hide(line, handle, visibility_ms) for handle, visibility_ms in changes]
            line.close()
            return ends, line.ready - ready, line.due_at_ms

        ends, woken, due_at_ms = await self._store.transact(hide)
        self._woken(name, woken, due_at_ms)
        return ends

    async def give_back(self, name: str, handles: Sequence[str], delay_ms: int = 0) -> None:
        """Undo a receive, for who could not even try: the messages are visible again after `delay_ms`, and the receive does not
        count toward the dead-letter queue. Handles that are no longer good are left alone. Raises QueueDoesNotExist."""

        def undo(tx: Tx) -> tuple[int, int]:
            line = line_of(tx, registry.demand(tx, name), self._clock.now_ms())
            ready = line.ready
            for handle in handles:
                receipt = self._signed.read(handle)
                state = None if receipt is None or receipt.queue != line.queue.id else self._standing(line, receipt)
                if receipt is None or state is None or state.receives != receipt.receives:
                    continue
                if state.visible_at_ms > line.now_ms:  # else it has come back by itself, and may have been seen
                    state = msgspec.structs.replace(state, returned=state.returned + 1)
                    line.hide(receipt.sent_at_ms, receipt.seq, state, line.now_ms + delay_ms)
            line.close()
            return line.ready - ready, line.due_at_ms

        self._woken(name, *await self._store.transact(undo))

    def _hide(self, line: Line, handle: str, visibility_ms: int) -> ServiceError | None:
        receipt = self._signed.read(handle)
        if receipt is None or receipt.queue != line.queue.id:
            return bad_handle(handle)
        state = self._standing(line, receipt)
        if state is None:
            return not_hidden(handle)
        if line.queue.fifo and (state.receives != receipt.receives or state.visible_at_ms <= line.now_ms):
            return not_hidden(handle)
        until_ms = line.now_ms + visibility_ms
        if until_ms > state.received_at_ms + _HIDDEN_MS_MAX:
            reason = "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]"
            return invalid_value(visibility_ms // 1000, "VisibilityTimeout", reason)
        line.hide(receipt.sent_at_ms, receipt.seq, state, until_ms)
        return None

    # --- behind the calls -----------------------------------------------------------------------------------------

    @property
    def _signed(self) -> Receipts:
        if self._receipts is None:
            raise RuntimeError("the room is not started")
        return self._receipts

    def _woken(self, name: str, count: int, due_at_ms: int) -> None:
        self._waiting.wake(name, count)
        self._waiting.due(name, due_at_ms)

    def _note(self, queue: Queue) -> Queue:
        """Remember what a receive must know before it looks at the queue."""
        if queue.wait_ms:
            self._waits[queue.name] = queue.wait_ms
        else:
            self._waits.pop(queue.name, None)
        return queue

    def _sweep(self) -> None:
        idle = self._sweeper is None or self._sweeper.done()
        if idle and self._store.read(rows.has_garbage):
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_up())

    async def _sweep_up(self) -> None:
        try:
            while await self._store.transact(lambda tx: rows.sweep(tx, _SWEEP)):
                pass
        except MartletError as error:
            _LOG.warning("what purged and deleted queues left is swept up at the next start: %s", error.message)


class _After(msgspec.Struct, frozen=True):
    """What follows from a receive. `next_due_ms`: when the next message comes back, if none was found."""

    paused: bool
    left: bool
    due_at_ms: int
    next_due_ms: int | None
    buried: dict[str, int]
    range: tuple[bytes, bytes]


class _Burial:
    """Moves what was received too often to the dead-letter queue, in the transaction that found it."""

    def __init__(self, tx: Tx, queue: Queue, now_ms: int, source_arn: str) -> None:
        self._tx = tx
        self._queue = queue
        self._now_ms = now_ms
        self._source_arn = source_arn
        self._line: Line | None = None
        self._count = 0

    def __call__(self, message: Message, state: State, sent_at_ms: int) -> bool:
        """False: there is no such queue, the message stays."""
        if self._line is None:
            target = rows.queue_named(self._tx, self._queue.dead_letter)
            if target is None or target.fifo != self._queue.fifo or target.name == self._queue.name:
                return False
            self._line = line_of(self._tx, target, self._now_ms)
        moved = msgspec.structs.replace(
            message,
            visible_at_ms=self._now_ms,
            source=self._source_arn,
            receives=message.receives + state.tries,
            first_received_at_ms=state.first_received_at_ms,
        )
        # A standard queue's dead letters keep their age, a FIFO queue's begin anew (developer guide, "Dead-letter queues").
        self._line.add(moved, self._now_ms if self._queue.fifo else sent_at_ms)
        self._count += 1
        return True

    def close(self) -> dict[str, int]:
        """How many messages which queue has got."""
        if self._line is None:
            return {}
        self._line.close()
        return {self._line.queue.name: self._count}


def _fifo_delay(queue: Queue, draft: Draft) -> int:
    if draft.delay_ms:
        reason = "The request include parameter that is not valid for this queue type."
        raise invalid_value(draft.delay_ms // 1000, "DelaySeconds", reason)
    return queue.delay_ms


def _fifo_id(queue: Queue, draft: Draft) -> str:
    if not draft.group:
        raise missing("MessageGroupId")
    if draft.deduplication_id:
        return draft.deduplication_id
    if not queue.by_content:
        raise invalid(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
        )
    return messages.content_id(draft.body)


def _sequence_number(seq: int) -> str:
    return str(_FIRST_NUMBER + seq * _NUMBER_STEP)
