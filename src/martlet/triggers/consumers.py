"""Consumers: each takes the messages of one mapping's queue, batch by batch, to its function.

A message is in flight while it is with a consumer. It is deleted when its function has said yes; else it stays in flight until
its visibility timeout ends, as with any other receiver, so that a poison message waits and its neighbours do not. What could
not even be tried (throttled, overloaded) is given back at once and does not count toward the dead-letter queue.

How many batches run at one time follows the backlog: a few at first, one more with each batch that went well while more is
waiting, half as many when the platform says that it is busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from martlet.clock import Clock, random, uuid4_text
from martlet.errors import MartletError, SandboxFailed, ServiceError
from martlet.limits import LIMITS
from martlet.queues import Queues, Received
from martlet.triggers.kinds import queue as kind
from martlet.triggers.mappings import Mapping, compiled
from martlet.types import Invocation, Outcome

__all__ = ["Consumer"]

_AT_FIRST: Final = 5  # batches at one time, before it is known how much there is
_MOST: Final = LIMITS["queue_consumers"].default
_TAKE: Final = 10  # messages of one receive
_WAIT_MS: Final = 20_000
_PAUSE_SECONDS: Final = (0.05, 5.0)  # after the platform said that it is busy: doubled each time, with jitter
_RETRY_SECONDS: Final = 2.0  # after an error of the store, or while there is no such queue
_LEASE_MARGIN_MS: Final = 1_000
_PAYLOAD_BYTES: Final = LIMITS["payload_bytes"].default
_LOG: Final = logging.getLogger("martlet.triggers")

Dispatch = Callable[[Invocation], None]


class Consumer:
    """Runs from `start` to `retire` (it takes nothing more) or `stop` (nor does it wait for long)."""

    def __init__(
        self,
        mapping: Mapping,
        queues: Queues,
        dispatch: Dispatch,
        clock: Clock,
        region: str,
        turn: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        """`turn` is entered to take messages: of several nodes, one consumes a queue for a mapping."""
        self._turn = turn
        self.mapping = mapping
        self._queues = queues
        self._dispatch = dispatch
        self._clock = clock
        self._region = region
        self._filters = compiled(mapping.patterns)
        self._most = mapping.concurrency or _MOST
        self._limit = min(_AT_FIRST, self._most)
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()  # there may be room for another batch
        self._pause = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Batches with the function now."""
        return len(self._running)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def retire(self) -> None:
        """Take nothing more. What runs comes to its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Take nothing more; wait so long for what runs. What does not end by then comes back by its visibility timeout."""
        await self.retire()
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _loop(self) -> None:
        while True:
            try:
                async with self._turn():
                    while True:
                        await self._once()
            except ServiceError as error:
                _LOG.info("mapping %s waits: %s", self.mapping.uuid, error.message)
                await asyncio.sleep(_RETRY_SECONDS)
            except MartletError as error:
                _LOG.error("mapping %s pauses: %s", self.mapping.uuid, error.message)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _once(self) -> None:
        """Wait for room, then for messages, then start their batch."""
        while len(self._running) >= self._limit:
            self._room.clear()
            await self._room.wait()
        if self._pause:
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        batch: list[Received] = []
        try:
            await self._gather(batch)
        except BaseException:
            if batch:  # stopped, or the store failed, while a window was open
                await asyncio.shield(self._give_back(batch))
            raise
        if batch:
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.set()
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a batch of mapping %s failed", self.mapping.uuid, exc_info=task.exception())

    async def _gather(self, batch: list[Received]) -> None:
        """Fill `batch`: with what is there, or for as long as the window says from its first message on."""
        mapping = self.mapping
        loop = asyncio.get_running_loop()
        began_ms, until, wait_ms = self._clock.now_ms(), 0.0, _WAIT_MS
        seen = 0
        while len(batch) < mapping.batch_size:
            most = min(_TAKE, mapping.batch_size - len(batch))
            found = await self._queues.receive(mapping.queue, most, wait_ms=wait_ms)
            if not seen:
                began_ms, until = self._clock.now_ms(), loop.time() + mapping.window_seconds
            seen += len(found)
            batch += await self._filtered(found)
            wait_ms = max(int((until - loop.time()) * 1000), 0)
            if not mapping.window_seconds and (len(found) < most or mapping.batch_size <= _TAKE):
                break
            if not found and (not seen or not wait_ms):
                break
        if batch and self._clock.now_ms() - began_ms > _LEASE_MARGIN_MS:
            await self._renew(batch)

    async def _filtered(self, found: Sequence[Received]) -> list[Received]:
        """What the filters let through; what they do not is deleted, as Lambda does."""
        if not self._filters:
            return list(found)
        wanted: list[Received] = []
        unwanted: list[str] = []
        for one in found:
            record = kind.record_of(one, self.mapping.queue_arn, self._region)
            if kind.lets_through(record, self._filters):
                wanted.append(one)
            else:
                unwanted.append(one.handle)
        if unwanted:
            await self._queues.acknowledge(self.mapping.queue, unwanted)
        return wanted

    async def _renew(self, batch: Sequence[Received]) -> None:
        """The visibility of all begins anew with the run: the window has used some of it up."""
        queue = self._queues.find(self.mapping.queue)
        if queue is not None:
            await self._queues.hide(self.mapping.queue, [(one.handle, queue.visibility_ms) for one in batch])

    async def _give_back(self, batch: Sequence[Received]) -> None:
        try:
            await self._queues.give_back(self.mapping.queue, [one.handle for one in batch])
        except MartletError as error:
            _LOG.info(
                "mapping %s could not give messages back, they return by themselves: %s", self.mapping.uuid, error.message
            )

    # --- a batch

    async def _run(self, batch: Sequence[Received]) -> None:
        records = [kind.record_of(one, self.mapping.queue_arn, self._region) for one in batch]
        fifo = self.mapping.queue.endswith(".fifo")
        at = 0
        for payload, count in kind.payloads(records, _PAYLOAD_BYTES):
            part = batch[at : at + count]
            at += count
            outcome = await self._invoke(payload)
            if outcome.refusal is not None:
                await self._refused(outcome.refusal, batch[at - count :])
                return
            whole = await self._settle(part, outcome)
            if fifo and not whole and at < len(batch):  # what follows would overtake what failed before it in its group
                await self._give_back(batch[at:])
                return

    async def _invoke(self, payload: bytes) -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(_: Invocation, outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        invocation = Invocation(self.mapping.function, payload, uuid4_text(), done, source="sqs")
        try:
            self._dispatch(invocation)
        except MartletError as error:
            return Outcome(refusal=error)
        except Exception as error:
            _LOG.exception("dispatch of a batch of mapping %s failed", self.mapping.uuid)
            return Outcome(refusal=SandboxFailed(f"dispatch failed: {error!r}"))
        return await ended

    async def _settle(self, batch: Sequence[Received], outcome: Outcome) -> bool:
        """Delete what is done; whether all of it is. A function error leaves all of it to its visibility timeout."""
        self._pause = 0.0
        if outcome.error:
            return False
        failed: set[str] = set()
        if self.mapping.report_failures:
            failed = kind.failed_of(outcome.payload, [one.message.id for one in batch])
        done = [one.handle for one in batch if one.message.id not in failed]
        if done:
            await self._queues.acknowledge(self.mapping.queue, done)
        if not failed:
            self._limit = min(self._limit + 1, self._most)
        return not failed

    async def _refused(self, refusal: MartletError, batch: Sequence[Received]) -> None:
        """The function did not run. What may pass soon is tried again soon; what will not is left to the visibility timeout."""
        least, most = _PAUSE_SECONDS
        self._pause = min(max(self._pause * 2, least), most)
        self._limit = max(self._limit // 2, 1)
        if refusal.http_status in (429, 503) or refusal.http_status >= 500:
            await self._give_back(batch)
        else:
            _LOG.warning("mapping %s: %s refuses its batch: %s", self.mapping.uuid, self.mapping.function, refusal.message)
