"""Message move tasks: a dead-letter queue's messages go back to where they came from, or to another queue.

A task is a row; each step moves some messages and counts them in one commit, so a crash neither loses nor doubles one, and the
next start goes on. API reference of Amazon SQS: StartMessageMoveTask, CancelMessageMoveTask, ListMessageMoveTasks.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from martlet.clock import Clock, uuid4_text
from martlet.errors import MartletError, ServiceError
from martlet.queues import registry, rows
from martlet.queues.attributes import arn_of, name_in_arn
from martlet.queues.failures import invalid, no_resource
from martlet.queues.lines import Line, line_of
from martlet.queues.rows import Message, Queue
from martlet.store import Reader, Store, Tx, keys

__all__ = ["Move", "Moves"]

_ROWS: Final = "queues.move"  # (.., name of the source, started_at_ms, id) -> Move
_AT_ONCE: Final = 100  # messages in one commit
_KEPT: Final = 10  # tasks of a queue that are remembered
_NO_SOURCE: Final = "CouldNotDetermineMessageSource"
_NO_QUEUE: Final = "AWS.SimpleQueueService.NonExistentQueue"
_LOG: Final = logging.getLogger("martlet.queues")


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A task. `destination` "": where each message came from. `rate`: messages a second, 0 for as many as can be."""

    id: str
    source: str
    destination: str = ""
    rate: int = 0
    status: str = "RUNNING"  # RUNNING, COMPLETED, CANCELLING, CANCELLED, FAILED
    started_at_ms: int
    wanted: int
    moved: int = 0
    failure: str = ""

    @property
    def active(self) -> bool:
        return self.status in ("RUNNING", "CANCELLING")


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Move)


class Moves:
    """The tasks, and the running of them. `woken(queue name, messages, due_at_ms)` is called for what has arrived."""

    def __init__(self, store: Store, clock: Clock, region: str, woken: Callable[[str, int, int], None]) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._woken = woken
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Go on with the tasks that were running."""
        for move in self._store.read(_every):
            if move.active and move.id not in self._running:
                self._run(move)

    async def stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- operations -------------------------------------------------------------------------------------------------

    async def begin(self, source_arn: str, destination_arn: str, rate: int) -> str:
        """Start a task; its handle. Raises `ServiceError` ResourceNotFoundException, InvalidParameterValue."""

        def write(tx: Tx) -> Move:
            source = self._queue(tx, source_arn, "SourceArn")
            if not registry.sources_of(tx, source.name):
                raise invalid("Source queue must be configured as a Dead Letter Queue.")
            destination = self._queue(tx, destination_arn, "DestinationArn") if destination_arn else None
            if destination is not None and (destination.fifo != source.fifo or destination.name == source.name):
                raise invalid("Destination queue must be another queue of the same type as the source queue.")
            kept = _of(tx, source.name)
            if any(move.active for move in kept):
                raise invalid(
                    "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
                )
            for old in kept[_KEPT - 1 :]:
                tx.delete(_key(old))
            line = line_of(tx, source, self._clock.now_ms())
            while line.promote():
                pass
            line.close()
            name = "" if destination is None else destination.name
            now_ms = self._clock.now_ms()
            move = Move(
                id=uuid4_text(), source=source.name, destination=name, rate=rate, started_at_ms=now_ms, wanted=line.ready
            )
            _put(tx, move)
            return move

        move = await self._store.transact(write)
        self._run(move)
        return self.handle(move)

    async def cancel(self, handle: str) -> int:
        """Stop a running task; how many messages it has moved. Raises `ServiceError`."""
        id, source_arn = _read_handle(handle)

        def write(tx: Tx) -> int:
            source = self._queue(tx, source_arn, "SourceArn")
            move = next((move for move in _of(tx, source.name) if move.id == id), None)
            if move is None:
                raise ServiceError("ResourceNotFoundException", "Task does not exist.", 404)
            if move.status != "RUNNING":
                raise invalid("Only active tasks can be cancelled.")
            _put(tx, msgspec.structs.replace(move, status="CANCELLING"))
            return move.moved

        return await self._store.transact(write)

    def newest(self, source_arn: str, most: int) -> list[Move]:
        """The newest tasks of a queue, newest first. Raises `ServiceError` ResourceNotFoundException."""

        def look(reader: Reader) -> list[Move]:
            return _of(reader, self._queue(reader, source_arn, "SourceArn").name)[:most]

        return self._store.read(look)

    def handle(self, move: Move) -> str:
        said = {"taskId": move.id, "sourceArn": arn_of(move.source, self._region)}
        return base64.b64encode(json.dumps(said).encode()).decode()

    def _queue(self, reader: Reader, arn: str, parameter: str) -> Queue:
        name = name_in_arn(arn, self._region)
        found = None if name is None else rows.queue_named(reader, name)
        if found is None:
            raise no_resource(parameter)
        return found

    # --- running ----------------------------------------------------------------------------------------------------

    def _run(self, move: Move) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(move))
        self._running[move.id] = task
        task.add_done_callback(lambda _: self._running.pop(move.id, None))

    async def _carry(self, move: Move) -> None:
        most, pause = _AT_ONCE, 0.0
        if move.rate:
            most = max(move.rate // 10, 1)
            pause = most / move.rate
        try:
            async with self._store.turn(f"move/{move.id}", None):  # its rate is of all nodes together
                await self._steps(move, most, pause)
        except MartletError as error:
            _LOG.error("moving messages of %s pauses until the next start: %s", move.source, error.message)

    async def _steps(self, move: Move, most: int, pause: float) -> None:
        while True:
            now, arrived = await self._store.transact(lambda tx: self._step(tx, move, most))
            for name, count in arrived.items():
                self._woken(name, count, 0)
            if now is None or not now.active:
                return
            await asyncio.sleep(pause)

    def _step(self, tx: Tx, move: Move, most: int) -> tuple[Move | None, dict[str, int]]:
        raw = tx.get(_key(move))
        if raw is None:
            return None, {}
        now = _DECODER.decode(raw)
        source = rows.queue_named(tx, move.source)
        if now.status == "CANCELLING" or source is None:
            status = "CANCELLED" if source is not None else "FAILED"
            now = msgspec.structs.replace(now, status=status, failure="" if source is not None else _NO_QUEUE)
            _put(tx, now)
            return now, {}
        load = _Load(tx, now, self._clock.now_ms())
        now = load.carry(source, min(most, now.wanted - now.moved))
        _put(tx, now)
        return now, load.arrived


class _Load:
    """The messages of one step."""

    def __init__(self, tx: Tx, move: Move, now_ms: int) -> None:
        self._tx = tx
        self._move = move
        self._now_ms = now_ms
        self._lines: dict[str, Line | None] = {}
        self._failure = ""
        self.arrived: dict[str, int] = {}

    def carry(self, source: Queue, most: int) -> Move:
        """Move up to `most` messages; the task as it is then."""
        line = line_of(self._tx, source, self._now_ms)
        line.promote()
        moved = line.pull(most, lambda message: self._deliver(message, source))
        for one in (line, *self._lines.values()):
            if one is not None:
                one.close()
        total = self._move.moved + moved
        ended = moved < most or total >= self._move.wanted
        status = "FAILED" if self._failure else "COMPLETED" if ended else self._move.status
        return msgspec.structs.replace(self._move, moved=total, status=status, failure=self._failure)

    def _deliver(self, message: Message, source: Queue) -> bool:
        """False, and `_failure` set: there is nowhere to take it."""
        name = self._move.destination or message.source.rpartition(":")[2]
        if not name:
            self._failure = _NO_SOURCE
            return False
        if name not in self._lines:
            queue = rows.queue_named(self._tx, name)
            usable = queue is not None and queue.fifo == source.fifo and queue.name != source.name
            self._lines[name] = line_of(self._tx, queue, self._now_ms) if queue is not None and usable else None
        target = self._lines[name]
        if target is None:
            self._failure = _NO_QUEUE
            return False
        # What is moved is a new message to the queue that it comes to (developer guide, "Dead-letter queue redrive").
        fresh = Message(
            id=uuid4_text(),
            body=message.body,
            sender=message.sender,
            visible_at_ms=self._now_ms,
            attributes=message.attributes,
            group=message.group,
            deduplication_id=message.deduplication_id,
            trace=message.trace,
        )
        target.add(fresh, self._now_ms)
        self.arrived[name] = self.arrived.get(name, 0) + 1
        return True


def _read_handle(handle: str) -> tuple[str, str]:
    """(id of the task, ARN of its source)."""
    try:
        said = json.loads(base64.b64decode(handle, validate=True))
        return str(said["taskId"]), str(said["sourceArn"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise invalid("Value for parameter TaskHandle is invalid.") from None


def _key(move: Move) -> bytes:
    return keys.encode(_ROWS, move.source, move.started_at_ms, move.id)


def _put(tx: Tx, move: Move) -> None:
    tx.put(_key(move), _ENCODER.encode(move))


def _of(reader: Reader, source: str) -> list[Move]:
    """Newest first."""
    low, high = keys.prefix_range(_ROWS, source)
    return [_DECODER.decode(raw) for _, raw in reader.scan(low, high, limit=100, reverse=True)]


def _every(reader: Reader) -> list[Move]:
    return [_DECODER.decode(raw) for _, raw in reader.scan(*keys.prefix_range(_ROWS), limit=100_000)]
