"""The pool of one function version: which instance takes an event, when to start another, when to let one go.

An event takes an instance that is free; else one is started, if that is quicker than to wait; else it waits in a bounded
queue; else it is refused. Two estimates decide: the mean duration of the function, and how long a start takes. A function
that answers in microseconds is served by a few instances however many clients it has; one that waits for a second gets
an instance for each. Instances are taken last in, first out, so that the surplus grows old and is let go.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from martlet.clock import Clock
from martlet.errors import MartletError, Overloaded, Throttled
from martlet.functions.init_frame import InitFrame
from martlet.functions.instance import PACKET_BYTES, Control, Instance, ready_at
from martlet.functions.outcomes import AFTER_PRELUDE, collected_response, exited, failed, platform_error, timed_out
from martlet.functions.sandbox import Ended, Started
from martlet.functions.sandboxes.inside import frames
from martlet.functions.share import Share
from martlet.limits import LIMITS
from martlet.telemetry import Histogram
from martlet.types import FunctionVersion, Invocation, Outcome

__all__ = ["Environment", "Pool"]

_QUICK_US = 1_500  # a function is quick when its fastest recent events took less; others get an instance an event
_WIDTH = max(2, os.cpu_count() or 1)  # instances of a quick function that are kept busy before its events queue
_PATIENCE_US = 20_000  # a queue of a quick function that empties within this, at its present pace, is left alone
_STARTS_AT_ONCE = 16
_MEASURED_US = 1_000
_DEPTH = 8  # events of a quick function at one instance: one that runs and those that wait in its pipe
_QUEUED_BEHIND_BYTES = PACKET_BYTES - 1_024  # the rest is for the frame's own line
_QUICK_START_US = 50_000
_UNUSED_NS = 5 * 10**9  # how long an instance that has had no event is kept, where a start is quick
_SLOW_NS = 5_000_000  # after this the events behind a running one are taken back
_NOT_BEGUN = _FOR_EVER = 1 << 62
_CHECK_SECONDS = 0.005
_SWEEP_SECONDS = 0.02
_CONNECTIONS_AT_MOST = LIMITS["sandbox_connections"].default
_QUEUED_AT_MOST = LIMITS["queued_events"].default
_QUEUE_WAIT_US = LIMITS["queue_wait_seconds"].default * 1_000_000
_INIT_NS = LIMITS["function_init_seconds"].default * 1_000_000_000


class Environment(Protocol):
    """What a pool needs of the room around it."""

    clock: Clock

    def start_instance(self, pool: Pool, instance: Instance) -> bool:
        """Start it on the sandbox host, within its limits; calls `pool.prime` once it has pipes. False: not now."""
        ...

    def kill_instance(self, instance: Instance) -> None: ...

    def keys_of(self, version: FunctionVersion) -> tuple[str, str, str]:
        """Access key id, secret and session token of one instance; of the same lengths each time."""
        ...

    def finished(self, pool: Pool, invocation: Invocation, outcome: Outcome, lines: bytes) -> None:
        """Write the log and the ledger, then call the invocation's `on_done`."""
        ...

    def note(self, pool: Pool, text: str) -> None: ...

    def connected(self, pool: Pool, listener: int, sock: socket.socket, begun: bytes = b"") -> None:
        """A connection from inside; `begun`: what was read from it already."""
        ...

    def saturated(self, pool: Pool) -> bool:
        """True when the host's processors are busy with this pool's work: another instance would not help."""
        ...


def _depth(instance: Instance) -> int:
    return len(instance.inflight)


class Pool:
    """Instances of one version. All methods run on the event loop."""

    def __init__(
        self,
        version: FunctionVersion,
        around: Environment,
        init: dict[str, Any],
        durations: Histogram | None = None,
        instance: Callable[[int, Pool, int, int], Instance] = Instance,
        share: Share | None = None,
        patient: bool = False,
    ) -> None:
        """`patient`: starts and waits may take as long as they take, because somebody debugs there."""
        self.version = version
        self.share = share or Share(version.config.reserved)  # of the function, whatever its version
        self.instances: dict[int, Instance] = {}
        self.waiting: deque[Invocation] = deque()
        self.durations = durations or Histogram()  # of the function, whatever its version
        self.cold_starts = self.warm_starts = self.errors = self.refused = 0
        self.inflight = 0
        self.retired = False
        self._successor: Pool | None = None  # once retired, if another version took its place
        self.cpu_us_total = 0
        self.last_used_ns = 0
        self.init_error: Outcome | None = None
        config = version.config
        self._around = around
        self._instance = instance
        self._between: set[Instance] = set()  # they have answered, and not yet asked for their next event
        self._clock = around.clock
        self._init_frame = InitFrame(init)
        self._arn = version.arn.encode()
        self._init_ns = _FOR_EVER if patient else _INIT_NS
        self._queue_wait_us = _FOR_EVER if patient else _QUEUE_WAIT_US
        self._timeout_ms = int(config.timeout_seconds * 1000)
        self._capacity = config.concurrency
        self._free: list[Instance] = []
        self._busy: set[Instance] = set()
        self._starts: dict[int, Instance] = {}  # those of `instances` whose handler is not loaded yet
        self._mean_us = 0.0
        self._fastest_us = 1e6
        self._completed = 0
        self._check_armed = self._sweep_armed = False
        self._streams: dict[tuple[int, int], bytearray] = {}
        self._ready_waiters: list[asyncio.Future[None]] = []
        self._failed_starts = 0

    # --- events in ------------------------------------------------------------------------------------------------

    def submit(self, invocation: Invocation) -> None:
        """Take an event; it ends in `around.finished`, whatever happens."""
        now = self._clock.monotonic_ns()
        self.last_used_ns = now
        invocation.queue_us = now  # the moment it came, until it is sent
        invocation.version = self.version.version
        invocation.executed = self.version.qualifier
        invocation.bytes_in = len(invocation.payload)
        refusal = self._refusal()
        if refusal is not None:
            invocation.queue_us = 0
            self.refused += 1
            self._around.finished(self, invocation, Outcome(refusal=refusal), b"")
            return
        self.inflight += 1
        self.share.inflight += 1
        free = self._free
        narrow = self._fastest_us < _QUICK_US and len(self._busy) >= _WIDTH
        if free and not narrow and not self.waiting:
            self._give(free[-1], invocation)
            return
        if narrow and not self.waiting and self._queue_behind(invocation):
            return
        self.waiting.append(invocation)
        if not narrow:
            self._feed()
            self._grow(len(self._between))
        if not self._check_armed:
            self._arm_check()

    def _refusal(self) -> MartletError | None:
        if self.share.reserved is not None and self.share.is_full(self):
            return Throttled(
                f"function {self.version.name}: reserved concurrency is {self.share.reserved} events at one time",
                reason="ReservedFunctionConcurrentInvocationLimitExceeded",
            )
        queued = len(self.waiting)
        if not queued:
            return None
        wait_us = queued * self._mean_us / max(1, len(self._busy)) if self._mean_us else 0
        if queued >= _QUEUED_AT_MOST or wait_us > self._queue_wait_us:
            seconds = max(1, int(wait_us / 1_000_000))
            return Overloaded(f"function {self.version.name}: {queued} events wait already", retry_after_seconds=seconds)
        return None

    def _queue_behind(self, invocation: Invocation) -> bool:
        """Put an event of a quick function into the pipe of a busy instance, behind the running one.

        The instance then finds it without going to sleep, which saves both sides a wake-up (measured: 1.5 times the
        events a second). It runs one at a time all the same, and until it is read it can be taken back: when the
        running one turns out to be slow, or the instance dies.
        """
        size = len(invocation.payload) + len(invocation.trace_id)
        if self._capacity > 1 or size > _QUEUED_BEHIND_BYTES or invocation.client_context or len(self._busy) > 2 * _WIDTH:
            return False
        instance = min(self._busy, key=_depth)
        if len(instance.inflight) >= _DEPTH or not instance.takes_more:
            return False
        self._send(instance, invocation)
        if not self._check_armed:
            self._arm_check()
        return True

    def _take_back(self, instance: Instance) -> None:
        """Events that wait in the instance's pipe wait for any instance again, before those that came later."""
        if self._capacity == 1 and (len(instance.inflight) > 1 or instance.undelivered):
            found = instance.take_back()
            for invocation in found:
                if invocation.duration_us != _NOT_BEGUN:  # given, but never seen by user code
                    self._unbegin(instance, invocation)
            self._wait_again(found)
            first = next(iter(instance.inflight.values()), None)
            if first is not None and first.duration_us == _NOT_BEGUN and instance.ready:
                # The instance read it while we had the one before it in our hands.
                self._begin(instance, first, self._clock.monotonic_ns(), self._clock.now_ms())

    def _unbegin(self, instance: Instance, invocation: Invocation) -> None:
        invocation.queue_us = invocation.duration_us
        if invocation.cold:
            invocation.cold, invocation.init_us, instance.cold = False, 0, True
            self.cold_starts -= 1
        else:
            self.warm_starts -= 1

    def _put_back(self, instance: Instance) -> None:
        """The first event of an instance that was never ready waits again, before all others."""
        found = list(instance.inflight.values())
        instance.inflight.clear()
        self._wait_again(found)

    def _wait_again(self, found: list[Invocation]) -> None:
        """Before those that came later; not here if nobody will take events from this queue any more."""
        self.waiting.extendleft(reversed(found))
        if self.retired:
            self._move_on()

    def _give(self, instance: Instance, invocation: Invocation) -> None:
        """An event to an instance with room: it begins at once."""
        now = self._clock.monotonic_ns()
        now_ms = self._clock.now_ms()
        self._send(instance, invocation)
        self._begin(instance, invocation, now, now_ms)
        if len(instance.inflight) >= instance.capacity:
            if self._free[-1] is instance:
                self._free.pop()
            else:
                self._free.remove(instance)
        self._busy.add(instance)

    def _begin(self, instance: Instance, invocation: Invocation, now: int, now_ms: int) -> None:
        invocation.queue_us = (now - invocation.queue_us) // 1000
        invocation.duration_us = now  # the moment it began, until it is answered
        invocation.started_at_ms = now_ms
        if instance.cold:
            instance.cold = False
            invocation.cold = True
            invocation.init_us = instance.init_us
            self.cold_starts += 1
            instance.cpu_seen_us = instance.cpu_us()
        else:
            self.warm_starts += 1
        if not self._sweep_armed:
            self._arm_sweep()

    def _send(self, instance: Instance, invocation: Invocation) -> None:
        sequence = instance.sequence = (instance.sequence + 1) & 0xFFFF_FFFF or 1
        invocation.duration_us = _NOT_BEGUN
        if invocation.on_head is not None:
            invocation.control = Control(self, instance, sequence)
        instance.inflight[sequence] = invocation
        invocation.log_stream = instance.log_stream
        client = invocation.client_context
        payload = b"%b\x1f%d\x1f%b\x1f%b\x1f%b\n%b" % (
            invocation.request_id.encode(),
            self._timeout_ms,
            invocation.arn.encode() if invocation.arn else self._arn,
            invocation.trace_id.encode(),
            client.replace("\n", " ").encode() if client else b"",
            invocation.payload,
        )
        instance.send(frames.HEADER.pack(len(payload), sequence, frames.INVOKE, 0) + payload)

    def _feed(self) -> None:
        """Waiting events to free instances."""
        while self.waiting and self._free:
            self._give(self._free[-1], self.waiting.popleft())

    # --- growth ---------------------------------------------------------------------------------------------------

    def _grow(self, expected: int = 0) -> None:
        while not self.retired and not self._free and len(self._starts) < _STARTS_AT_ONCE:
            expecting = sum(1 for one in self._starts.values() if not one.inflight)
            if len(self.waiting) <= expecting * self._capacity + expected:
                return
            if self.instances and self._mean_us and self._around.saturated(self):
                return
            if not self._start():
                if not self.instances:
                    self._refuse_waiting(Overloaded("no room for another sandbox on this host"))
                return

    def _start(self) -> bool:
        instance = self._instance(0, self, self._capacity, self._clock.monotonic_ns())
        if not self._around.start_instance(self, instance):
            return False
        self.instances[instance.number] = self._starts[instance.number] = instance
        if not self._sweep_armed:
            self._arm_sweep()
        return True

    def prime(self, instance: Instance) -> None:
        """What waits for it when it wakes up: what it is to be and, on a start from zero, its first event.

        With the event in its pipe already, a cold start saves the way to us and back. Where other instances are there, one of
        them may be free sooner, so the event waits here for the first of them all.
        """
        beyond = 0 < self.version.config.provisioned <= len(self.instances)
        told = self._init_frame.of_instance(lambda: self._around.keys_of(self.version), beyond=beyond)
        instance.log_stream, frame = told
        instance.send(frame)
        if self._capacity > 1 or not self.waiting or len(self.instances) > len(self._starts):
            return
        if len(self.waiting[0].payload) <= _QUEUED_BEHIND_BYTES:
            self._send(instance, self.waiting.popleft())

    async def warm(self, count: int) -> None:
        """Have at least `count` instances ready. Raises nothing; `init_error` says what the last failed start said."""
        while not self.retired and self.init_error is None:
            ready = sum(1 for instance in self.instances.values() if instance.ready)
            if ready >= count:
                return
            while len(self.instances) < count and self._start():
                pass
            if not self._starts:
                return
            waiter = asyncio.get_running_loop().create_future()
            self._ready_waiters.append(waiter)
            await waiter

    def _arm_check(self) -> None:
        self._check_armed = True
        asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check)

    def _check(self) -> None:
        """Whether the queue moves. If not (the fast events were the exception), use everything idle and start more."""
        self._check_armed = False
        paced, self._completed = self._completed, 0
        now = self._clock.monotonic_ns()
        lanes = self._take_back_from_slow(now)
        stuck = not paced or len(self.waiting) * _CHECK_SECONDS * 1e6 / paced > _PATIENCE_US
        while self.waiting and self._free and lanes < _WIDTH:
            self._give(self._free[-1], self.waiting.popleft())
            lanes += 1
        # Where the processors are the bottleneck, more processes at once only slow each other down.
        if self.waiting and stuck and not self._around.saturated(self):
            self._fastest_us = max(self._fastest_us, _QUICK_US)
            self._feed()
            self._grow()
        self._expire_waiting(now)
        if self.waiting or any(len(instance.inflight) > self._capacity for instance in self._busy):
            self._arm_check()

    def _take_back_from_slow(self, now: int) -> int:
        """No event stays behind one that turned out to be slow. Returns how many busy instances are not slow."""
        lanes = 0
        for instance in self._busy:
            if now - min((invocation.duration_us for invocation in instance.inflight.values()), default=now) > _SLOW_NS:
                self._take_back(instance)
            else:
                lanes += 1
        return lanes

    def _expire_waiting(self, now: int) -> None:
        while self.waiting and (now - self.waiting[0].queue_us) // 1000 > self._queue_wait_us:
            invocation = self.waiting.popleft()
            seconds = LIMITS["queue_wait_seconds"].default
            self._refuse(invocation, Overloaded(f"function {self.version.name}: no instance was free for {seconds} s"))

    def _refuse(self, invocation: Invocation, error: MartletError) -> None:
        self.inflight -= 1
        self.share.inflight -= 1
        self.refused += 1
        invocation.queue_us = (self._clock.monotonic_ns() - invocation.queue_us) // 1000
        self._around.finished(self, invocation, Outcome(refusal=error), b"")

    def _refuse_waiting(self, error: MartletError) -> None:
        while self.waiting:
            self._refuse(self.waiting.popleft(), error)

    # --- answers --------------------------------------------------------------------------------------------------

    def on_frame(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None:
        if sequence in instance.given_up:
            return  # it timed out while others of the instance had time left; what it says now comes too late
        if kind == frames.RESULT or kind == frames.ERROR:
            if not self._runs(instance, sequence):
                self.on_broken(instance, f"an answer to event {sequence}, which it does not run")
                return
            self._answered(instance, sequence, payload, "" if kind == frames.RESULT else "Unhandled")
        elif kind == frames.READY:
            self._on_ready(instance, payload)
        elif kind == frames.INIT_ERROR:
            self._on_init_error(instance, failed(payload))
        else:
            self._on_stream(instance, kind, sequence, payload)

    def _runs(self, instance: Instance, sequence: int) -> bool:
        """It has this event, and where it runs one at a time, it is this one."""
        if not instance.ready:
            return False
        return sequence in instance.inflight and (self._capacity > 1 or sequence == next(iter(instance.inflight)))

    def _answered(self, instance: Instance, sequence: int, payload: bytes, error: str) -> None:
        invocation = instance.inflight.pop(sequence)
        instance.resume(sequence)  # its client may still be slow, but nothing more comes for it
        now = self._clock.monotonic_ns()
        duration_us = invocation.duration_us = (now - invocation.duration_us) // 1000
        self._mean_us += (duration_us - self._mean_us) * 0.125
        # A minimum that forgets: the fastest of about the last hundred, so that waiting for a processor does not count.
        self._fastest_us = min(duration_us, self._fastest_us * 1.02)
        self._completed += 1
        # Usage is read after each event that took a while, and after one in sixteen of those that did not: what these
        # used is charged to that one, so sums are exact. Two reads of a control group cost as much as half a quick event.
        measured = duration_us > _MEASURED_US or not sequence & 15
        if measured:
            cpu_us = instance.cpu_us()
            invocation.cpu_us = cpu_us - instance.cpu_seen_us
            instance.cpu_seen_us = cpu_us
            self.cpu_us_total += invocation.cpu_us
        invocation.peak_mb = instance.peak_mb(measured)
        invocation.bytes_out += len(payload)
        lines = instance.take_log(sequence, surely=measured)
        # The instance is given its next event before this one's answer is written out: it works meanwhile.
        self._release(instance, now)
        outcome = failed(payload) if error else Outcome(payload)
        self._finish(invocation, outcome, lines)

    def _finish(self, invocation: Invocation, outcome: Outcome, lines: bytes) -> None:
        self.inflight -= 1
        self.share.inflight -= 1
        self.durations.record(invocation.duration_us)
        if outcome.error:
            self.errors += 1
        self._around.finished(self, invocation, outcome, lines)

    def _release(self, instance: Instance, now: int) -> None:
        """One event less: the next in its pipe begins, or it is free for another."""
        if self._capacity == 1 and instance.inflight:
            self._begin(instance, next(iter(instance.inflight.values())), now, self._clock.now_ms())
            if self.waiting and not instance.draining:
                self._queue_behind(self.waiting[0]) and self.waiting.popleft()
            return
        if not instance.inflight:
            self._busy.discard(instance)
            if instance.draining or self.retired:
                self._dismiss(instance)
                return
            instance.idle_since_ns = now
        elif instance.draining or instance.paused:
            return
        if not instance.polls:
            self._between.add(instance)
            return  # `on_polling` follows
        if instance.capacity == 1 or instance not in self._free:
            self._free.append(instance)
        if self.waiting:
            self._give(instance, self.waiting.popleft())

    def on_polling(self, instance: Instance) -> None:
        """It has answered and asks for its next event now."""
        self._between.discard(instance)
        if instance.ready and not instance.draining and not instance.inflight and instance not in self._free:
            self._free.append(instance)
            self._feed()

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        self._around.connected(self, 0, sock, begun)

    def _on_ready(self, instance: Instance, payload: bytes) -> None:
        if instance.ready:
            self.on_broken(instance, "ready twice")
            return
        now = self._clock.monotonic_ns()
        at = min(max(ready_at(payload, now), instance.started_ns), now)
        instance.ready = True
        instance.init_us = (at - instance.started_ns) // 1000
        instance.idle_since_ns = now
        self._starts.pop(instance.number, None)
        self._failed_starts = 0
        self.init_error = None
        if instance.inflight:
            self._busy.add(instance)
            self._begin(instance, next(iter(instance.inflight.values())), at, self._clock.now_ms() - (now - at) // 1_000_000)
        elif self.retired:
            self._dismiss(instance)
        else:
            self._free.append(instance)
            self._feed()
        self._wake()

    def _wake(self) -> None:
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _on_init_error(self, instance: Instance, outcome: Outcome) -> None:
        """The handler could not be loaded: the event that waits longest gets the error, as in Lambda."""
        self.init_error = outcome
        lines = instance.take_log(min(instance.inflight, default=0))  # an event may wait in its pipe: then they are that one's
        self._starts.pop(instance.number, None)
        instance.ready = True
        self._put_back(instance)
        self._dismiss(instance)
        if self.waiting and not any(other.ready and not other.draining for other in self.instances.values()):
            invocation = self.waiting.popleft()
            now = self._clock.monotonic_ns()
            invocation.queue_us = (now - invocation.queue_us) // 1000
            invocation.started_at_ms = self._clock.now_ms()
            invocation.cold = True
            invocation.init_us = (now - instance.started_ns) // 1000
            invocation.duration_us = 0
            self._finish(invocation, outcome, lines)
            if self.waiting:
                self._grow()
        else:
            self._around.note(self, f"init failed: {outcome.payload.decode(errors='replace')}")
            self._feed()
        self._wake()

    # --- streamed answers -----------------------------------------------------------------------------------------

    def _on_stream(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None:
        invocation = instance.inflight.get(sequence)
        key = (instance.number, sequence)
        if invocation is None or not self._runs(instance, sequence) or (kind == frames.HEAD) == (key in self._streams):
            self.on_broken(instance, f"a stream frame of kind {kind} out of order")
            return
        if kind == frames.HEAD:
            self._streams[key] = bytearray(payload + AFTER_PRELUDE if invocation.on_head is None else b"")
            if invocation.on_head is not None:
                invocation.on_head(payload)
            return
        if kind == frames.CHUNK:
            self._on_chunk(instance, invocation, key, payload)
            return
        collected = bytes(self._streams.pop(key))
        if kind == frames.STREAM_ERROR:
            self._answered(instance, sequence, payload, "Unhandled")
        elif invocation.on_head is not None:
            self._answered(instance, sequence, b"", "")
        else:
            response = collected_response(collected)
            if response is None:
                self.on_broken(instance, "a streamed answer whose prelude is no JSON object")
                return
            self._answered(instance, sequence, response, "")

    def _on_chunk(self, instance: Instance, invocation: Invocation, key: tuple[int, int], payload: bytes) -> None:
        invocation.bytes_out += len(payload)
        if invocation.on_chunk is not None:
            invocation.on_chunk(payload)
            self._shun(instance)
            return
        kept = self._streams[key]
        if len(kept) + len(payload) > LIMITS["response_bytes"].default:
            self.on_broken(instance, "a streamed answer larger than response_bytes, to a caller that takes no stream")
            return
        kept += payload

    def pause(self, instance: Instance, sequence: int) -> None:
        """The client of this event's streamed answer is slow. If the instance cannot hold it alone, new events go elsewhere."""
        if sequence in instance.inflight:
            instance.pause(sequence)
            self._shun(instance)

    def _shun(self, instance: Instance) -> None:
        if instance.paused and instance in self._free:
            self._free.remove(instance)

    def resume(self, instance: Instance, sequence: int) -> None:
        """Its client reads again, or is gone."""
        if instance.resume(sequence) and not instance.draining and len(instance.inflight) < instance.capacity:
            self._free.append(instance)
            self._feed()

    # --- trouble --------------------------------------------------------------------------------------------------

    def on_broken(self, instance: Instance, reason: str) -> None:
        """It broke the protocol (`reason`), or closed its pipe: end it; the host's report tells the rest."""
        if reason:
            instance.stop_reading()
            instance.state = reason
            self._around.note(self, f"instance ended for breaking the protocol: {reason}")
        self._withdraw(instance)
        self._around.kill_instance(instance)

    def on_started(self, instance: Instance, started: Started) -> None:
        instance.attach_usage(started.usage)
        instance.attach_log(started.log)
        if not instance.cold:  # its first event was quicker than this news: what came before is charged to nobody
            instance.cpu_seen_us = instance.cpu_us()
        loop = asyncio.get_running_loop()
        for index, fd in enumerate(started.listeners):
            listener = socket.socket(fileno=fd)
            listener.setblocking(False)
            instance.listeners.append(listener)
            loop.add_reader(listener, self._accept, instance, index, listener)

    def _accept(self, instance: Instance, index: int, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        held = instance.connections[index]
        if len(held) >= _CONNECTIONS_AT_MOST + self._capacity:
            held.difference_update([one for one in held if one.fileno() < 0])
            if len(held) >= _CONNECTIONS_AT_MOST + self._capacity:
                sock.close()
                return
        held.add(sock)
        sock.setblocking(False)
        if not instance.adopt(index, sock):
            self._around.connected(self, index, sock)

    def on_ended(self, instance: Instance, ended: Ended) -> None:
        """The host says that it is gone: every event it had ends with the reason."""
        instance.ended = True
        if not instance.closed:
            instance.drain_results()
        self._withdraw(instance)
        self.instances.pop(instance.number, None)
        self._between.discard(instance)
        if not instance.ready:
            self._starts.pop(instance.number, None)
            self._put_back(instance)
            self._start_failed(instance, ended)
        for sequence in sorted(instance.inflight):
            self._end_event(instance, sequence, ended)
        self._busy.discard(instance)
        left = instance.take_log(0) if not instance.closed else b""
        if left:
            self._around.note(self, left.decode("utf-8", "replace").rstrip("\n"))
        instance.close()
        if self.waiting:
            self._feed()
            self._grow()
            if self.waiting and not self._check_armed:
                self._arm_check()
        self._wake()

    def _end_event(self, instance: Instance, sequence: int, ended: Ended) -> None:
        invocation = instance.inflight.pop(sequence)
        self._streams.pop((instance.number, sequence), None)
        now = self._clock.monotonic_ns()
        if invocation.duration_us == _NOT_BEGUN:  # it was read ahead of its turn: it may have begun
            self._begin(instance, invocation, now, self._clock.now_ms())
        invocation.duration_us = (now - invocation.duration_us) // 1000
        invocation.peak_mb = ended.peak_mb
        lines = instance.take_log(sequence) if not instance.closed else b""
        if instance.state == "timeout" and invocation.duration_us >= self._timeout_ms * 1000:
            outcome = timed_out(invocation.request_id, self.version.config.timeout_seconds)
        else:
            outcome = exited(invocation.request_id, ended, instance.state if instance.state != "timeout" else "")
        self._finish(invocation, outcome, lines)

    def _start_failed(self, instance: Instance, ended: Ended) -> None:
        """It ended before its handler was loaded, without an error object: killed, out of memory, or never started."""
        instance.ready = True
        if self.retired:
            return
        self._failed_starts += 1
        request_id = self.waiting[0].request_id if self.waiting else ""
        reason = "init" if instance.state == "timeout" else ""
        if reason:
            seconds = LIMITS["function_init_seconds"].default
            message = f"RequestId: {request_id} Error: Init timed out after {seconds}.00 seconds"
            outcome = platform_error("Sandbox.Timedout", message)
        else:
            outcome = exited(request_id, ended, instance.state or "")
        self.init_error = outcome
        if self.waiting and (self._failed_starts >= 2 or not ended.error):
            invocation = self.waiting.popleft()
            now = self._clock.monotonic_ns()
            invocation.queue_us = (now - invocation.queue_us) // 1000
            invocation.started_at_ms = self._clock.now_ms()
            invocation.init_us = (now - instance.started_ns) // 1000
            invocation.duration_us = 0
            invocation.peak_mb = ended.peak_mb
            self._finish(invocation, outcome, instance.take_log(0) if not instance.closed else b"")

    def _arm_sweep(self) -> None:
        self._sweep_armed = True
        asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Timeouts: one coarse timer for all, so that an event costs none."""
        self._sweep_armed = False
        now = self._clock.monotonic_ns()
        late = now - self._timeout_ms * 1_000_000
        for instance in list(self._busy):
            for invocation in instance.inflight.values():
                if invocation.duration_us < late and not instance.ended:
                    self._time_out(instance)
                    break
        if self._starts:
            for instance in list(self._starts.values()):
                if now - instance.started_ns > self._init_ns:
                    instance.state = "timeout"
                    self._around.kill_instance(instance)
        if self._busy or self._starts:
            self._arm_sweep()

    def _time_out(self, instance: Instance) -> None:
        """The whole tree goes; events of the same instance that still have time keep it until theirs is over."""
        instance.state = "timeout"
        self._withdraw(instance)
        late = self._clock.monotonic_ns() - self._timeout_ms * 1_000_000
        # One at a time: what is still there was read ahead of its turn, and goes with the one that is late.
        if self._capacity == 1 or all(invocation.duration_us < late for invocation in instance.inflight.values()):
            self._around.kill_instance(instance)
            return
        for sequence in [key for key, invocation in instance.inflight.items() if invocation.duration_us < late]:
            invocation = instance.inflight.pop(sequence)
            instance.given_up.add(sequence)
            instance.resume(sequence)
            self._streams.pop((instance.number, sequence), None)
            invocation.duration_us = (self._clock.monotonic_ns() - invocation.duration_us) // 1000
            outcome = timed_out(invocation.request_id, self.version.config.timeout_seconds)
            self._finish(invocation, outcome, instance.take_log(sequence))

    # --- letting go -----------------------------------------------------------------------------------------------

    def _withdraw(self, instance: Instance) -> None:
        """It takes no more events, and those that it has not begun go to others."""
        instance.draining = True
        self._take_back(instance)
        if instance in self._free:
            self._free.remove(instance)
        if not instance.inflight:
            self._busy.discard(instance)

    def _dismiss(self, instance: Instance) -> None:
        """An instance without events goes."""
        self._withdraw(instance)
        self._busy.discard(instance)
        self._around.kill_instance(instance)

    def reap(self, now: int, keep_ns: int) -> None:
        """Let go of instances that were idle too long: the first after `keep_ns`, the surplus after a fifth of it, and one that
        only a deployment wanted after seconds, if the next is started in no time."""
        keep = self.version.config.provisioned
        idle = sorted((one for one in self._free if not one.inflight), key=lambda one: one.idle_since_ns)
        for position, instance in enumerate(idle):
            left = len(idle) - position
            if left <= keep:
                return
            allowed = keep_ns if left == 1 else keep_ns // 5
            if instance.cold and instance.init_us < _QUICK_START_US:
                allowed = min(allowed, _UNUSED_NS)
            if now - instance.idle_since_ns > allowed:
                self._dismiss(instance)

    def evict_idle(self) -> bool:
        """Give up one idle instance for another function's need."""
        for instance in self._free:
            if not instance.inflight and len(self.instances) > self.version.config.provisioned:
                self._dismiss(instance)
                return True
        return False

    def retire(self, successor: Pool | None) -> None:
        """No more events here: idle instances go now, busy ones when they are done, waiting events move on."""
        self.retired = True
        self._successor = successor
        for instance in list(self.instances.values()):
            self._take_back(instance)
        for instance in list(self._free):
            if not instance.inflight:
                self._dismiss(instance)
        self._move_on()
        self._wake()

    def _move_on(self) -> None:
        """What waits here goes to the version that has taken this one's place."""
        successor = self._successor
        while successor is not None and successor.retired:
            successor = successor._successor
        moved = list(self.waiting)
        self.waiting.clear()
        for invocation in moved:
            self.inflight -= 1
            self.share.inflight -= 1
            if successor is None:
                invocation.queue_us = 0
                gone = Overloaded(f"function {self.version.name} is being removed")
                self._around.finished(self, invocation, Outcome(refusal=gone), b"")
            else:
                successor.submit(invocation)

    def counts(self) -> dict[str, int]:
        busy = sum(1 for instance in self.instances.values() if instance.inflight)
        return {"instances": len(self.instances), "busy": busy, "starting": len(self._starts), "waiting": len(self.waiting)}
