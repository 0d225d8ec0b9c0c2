"""The platform's end of one instance: two pipes of frames, a log pipe, and what was used.

Everything that arrives here was written by user code, or could have been: lengths, kinds and sequence numbers are checked,
and an instance that breaks the protocol is ended. Layout of frames: `sandboxes/inside/frames.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Callable
from typing import Any, Protocol

from martlet.functions.sandbox import Ended
from martlet.functions.sandboxes.inside import frames
from martlet.limits import LIMITS
from martlet.types import Invocation

__all__ = ["PACKET_BYTES", "Control", "CutLog", "Instance", "Owner", "ready_at"]

PACKET_BYTES = 4_096  # PIPE_BUF: what a pipe in packet mode keeps whole

_FRAME_BYTES_AT_MOST = {
    frames.READY: 1_024,
    frames.INIT_ERROR: 1_048_576,
    frames.RESULT: LIMITS["response_bytes"].default,
    frames.ERROR: LIMITS["response_bytes"].default,
    frames.HEAD: 1_048_576,
    frames.CHUNK: 16_777_216,
    frames.END: 0,
    frames.STREAM_ERROR: 1_048_576,
    frames.LAUNCHED: 65_536,
    frames.EXTENSION_ENDED: 65_536,
    frames.DELIVERED: 0,
}
_READ_BYTES = 262_144
_HELD_BYTES = 1 << 20  # what may come of an answer after its instance was told to hold it
_TAGGED_READ_BYTES = 65_536  # tags are told apart one by one: less at a time, so that a flood of them holds nobody up
_LOG_BYTES_AT_MOST = LIMITS["log_bytes_per_invocation"].default
_LOG_PAUSE_SECONDS = 0.002  # who writes on beyond the limit waits for a reader that is in no hurry
_TAG = b"\x1e"
_MARK = re.compile(rb"^\x1e([0-9a-f]{8})\x1f", re.MULTILINE)


class CutLog(bytes):
    """What was kept of a log that was longer than its limit by `lost` bytes."""

    lost: int

    def __new__(cls, kept: bytes | bytearray, lost: int) -> CutLog:
        made = super().__new__(cls, kept)
        made.lost = lost
        return made


class Owner(Protocol):
    """Who reacts to an instance (the pool)."""

    def on_frame(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None: ...

    def on_broken(self, instance: Instance, reason: str) -> None: ...


class _Pauser(Protocol):
    """Who lets an instance's answer wait (the pool)."""

    def pause(self, instance: Instance, sequence: int) -> None: ...

    def resume(self, instance: Instance, sequence: int) -> None: ...


class Control:
    """What an edge may do with a running event."""

    __slots__ = ("_instance", "_owner", "_sequence")

    def __init__(self, owner: _Pauser, instance: Instance, sequence: int) -> None:
        self._owner, self._instance, self._sequence = owner, instance, sequence

    def pause(self) -> None:
        self._owner.pause(self._instance, self._sequence)

    def resume(self) -> None:
        self._owner.resume(self._instance, self._sequence)

    def cancel(self) -> None:
        """Nobody wants the answer any more: read it to its end and drop it."""
        invocation = self._instance.inflight.get(self._sequence)
        if invocation is not None:
            invocation.on_head = _drop
            invocation.on_chunk = _drop
        self.resume()


class Instance:
    """One sandboxed process tree. `inflight`: the events it has, by sequence number."""

    __slots__ = (
        "_buffer",
        "_events",
        "_held",
        "_log",
        "_log_paused",
        "_loop",
        "_needed",
        "_owner",
        "_pausing",
        "_peak_mb",
        "_pending",
        "_recall",
        "_results",
        "_usage",
        "broken",
        "capacity",
        "closed",
        "cold",
        "connections",
        "cpu_seen_us",
        "draining",
        "ended",
        "given_up",
        "idle_since_ns",
        "inflight",
        "init_us",
        "large",
        "listeners",
        "log_lines",
        "log_lost",
        "log_stream",
        "number",
        "ready",
        "sequence",
        "started_ns",
        "state",
        "wrote",
    )

    def __init__(self, number: int, owner: Owner, capacity: int, started_ns: int) -> None:
        self.number = number
        self.capacity = capacity
        self.started_ns = started_ns
        self.ready = False
        self.cold = True
        self.draining = False  # takes no new events; ends when it has none
        self.ended = False
        self.given_up: set[int] = set()  # sequence numbers of events that timed out before the others it has
        self.closed = False
        self.broken = False  # it broke the protocol: nothing that it sends is read any more
        self.init_us = 0
        self.idle_since_ns = started_ns
        self.sequence = 0
        self.inflight: dict[int, Invocation] = {}
        self.large = False  # the last frame sent was more than one packet: nothing may be queued behind it
        self.log_lines: dict[int, bytearray] = {}
        self.log_lost: dict[int, int] = {}  # bytes beyond the limit, of those that have any
        self.log_stream = ""  # the name under which CloudWatch Logs knows what it writes
        self.listeners: list[Any] = []
        self.connections: list[set[Any]] = [set(), set()]  # accepted by each listener and, as far as is known, open
        self.cpu_seen_us = 0
        self.state: Any = None  # the pool's own note
        self.wrote = 0  # the last frame said that the log has lines to read
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()  # the beginning of a frame
        self._needed = 0  # bytes that it must have before it is looked at again
        self._pending = b""
        self._pausing: set[int] = set()  # events whose clients read too slowly
        self._held: dict[int, int] = {}  # those that were told to send no more, and the bytes that came all the same
        self._log_paused = False
        self._peak_mb = 0
        self._usage: tuple[int, ...] = ()
        self._events = self._results = self._log = self._recall = -1

    def open_pipes(self) -> tuple[int, int, int]:
        """Make the pipes; returns the instance's ends: (events to read, results to write, log to write)."""
        # Packet mode (pipe(2), O_DIRECT): a read takes one event and no more, so that what the instance has not begun
        # can be taken back through a second descriptor of the reading end.
        # Several events at one time are given at once, and need no taking back.
        events_read, self._events = os.pipe2(os.O_CLOEXEC | (os.O_DIRECT if self.capacity == 1 else 0))
        self._recall = os.open(f"/proc/self/fd/{events_read}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._results, results_write = os.pipe2(os.O_CLOEXEC)
        self._log, log_write = os.pipe2(os.O_CLOEXEC)
        for fd in (self._events, self._results, self._log):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._results, self._on_results)
        self._loop.add_reader(self._log, self.read_log)
        return events_read, results_write, log_write

    def attach_usage(self, files: tuple[int, ...]) -> None:
        self._usage = files

    def attach_log(self, fd: int) -> None:
        """Read the log from here: the instance had a program that writes, before it had our pipe."""
        if fd >= 0:
            self._loop.remove_reader(self._log)
            os.close(self._log)
            self._log = fd
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self.read_log)

    # --- towards the instance ---------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write a frame; what the pipe does not take now follows when it can."""
        if self.closed:
            return
        self.large = len(data) > PACKET_BYTES
        if self._pending:
            self._pending += data
            return
        try:
            written = os.write(self._events, data)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:
            return  # it is ending; its end is reported by the host
        if written < len(data):
            self._pending = data[written:]
            self._loop.add_writer(self._events, self._on_writable)

    def _on_writable(self) -> None:
        try:
            written = os.write(self._events, self._pending)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending = b""
            self._loop.remove_writer(self._events)
            return
        self._pending = self._pending[written:]
        if not self._pending:
            self._loop.remove_writer(self._events)

    @property
    def takes_more(self) -> bool:
        """An event may wait in the pipe behind the running one, and can still be taken back."""
        return not self.large and not self._pending and not self.draining and not self.closed

    @property
    def polls(self) -> bool:
        """It takes its next event as soon as it has answered one; a runtime that asks for each is free when it asks."""
        return True

    @property
    def undelivered(self) -> bool:
        """An event counts as begun here that user code has not seen (never with pipes)."""
        return False

    def interpret(self, ended: Ended) -> Ended:
        """The host's report in the runtime's terms."""
        return ended

    def part(self, kill: Callable[[], None]) -> bool:
        """Asked before an instance is ended: True if it needs a moment, and calls `kill` itself."""
        return False

    def adopt(self, listener: int, sock: socket.socket) -> bool:
        """Take over a connection from inside, if it is for this end."""
        return False

    def take_back(self) -> list[Invocation]:
        """The events that wait in the pipe and that the instance has not read: its no longer.

        On a busy host it may not even have read the first. Then that one is put back, unless the instance has read on
        meanwhile: what it runs is what is not found in the pipe, and the first is taken back like the others.
        """
        found: list[Invocation] = []
        if self.closed or len(self.inflight) < 2 or self.large:
            return found
        first = next(iter(self.inflight))
        unread = b""
        while True:
            try:
                packet = os.read(self._recall, PACKET_BYTES)
            except BlockingIOError:
                break
            if len(packet) < frames.SIZE:
                break
            _, sequence, kind, _ = frames.HEADER.unpack_from(packet)
            if sequence == first:
                unread = packet
            elif kind == frames.INVOKE and sequence in self.inflight:
                found.append(self.inflight.pop(sequence))
        if unread and len(self.inflight) > 1:
            found.insert(0, self.inflight.pop(first))
        elif unread:
            os.write(self._events, unread)  # the pipe is empty: it is taken whole
        return found

    # --- from the instance ------------------------------------------------------------------------------------------

    def _on_results(self) -> None:
        try:
            data = os.read(self._results, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._results)
            self._owner.on_broken(self, "")  # the cause follows with the host's report
            return
        self._collect(data)

    def _collect(self, data: bytes) -> None:
        """Bytes in, whole frames out. A large frame that comes in many pieces is put together once, not once a piece."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer = bytearray()
        rest = self._parse(data)
        if rest:
            self._buffer = bytearray(rest)
            whole = len(rest) >= frames.SIZE
            self._needed = frames.SIZE + frames.HEADER.unpack_from(rest)[0] if whole else frames.SIZE

    def _parse(self, data: bytes) -> bytes:
        """Hand over every whole frame; returns what is left."""
        offset, end = 0, len(data)
        while end - offset >= frames.SIZE:
            length, sequence, kind, flags = frames.HEADER.unpack_from(data, offset)
            most = _FRAME_BYTES_AT_MOST.get(kind)
            if most is None or length > most:
                self.stop_reading()
                self._owner.on_broken(self, f"frame of kind {kind} with {length} bytes")
                return b""
            begin = offset + frames.SIZE
            if end - begin < length:
                break
            offset = begin + length
            if sequence in self._held:
                self._held[sequence] += length
                if self._held[sequence] > _HELD_BYTES:
                    self.pause(sequence)
            self.wrote = flags & frames.WROTE
            self._owner.on_frame(self, kind, sequence, data[begin:offset])
            if self.closed or self.broken:
                return b""
        return data[offset:]

    def stop_reading(self) -> None:
        """It broke the protocol: what it still sends until it is gone must cost nothing."""
        if not self.broken and not self.closed:
            self._loop.remove_reader(self._results)
        self.broken = True

    @property
    def paused(self) -> bool:
        return bool(self._pausing)

    def pause(self, sequence: int) -> None:
        """The client of this event's streamed answer is slow. Where several run at once, only this one is told to wait, and
        all wait if it does not; else no more results are read for now."""
        if self.capacity > 1 and sequence not in self._held:
            self._held[sequence] = 0
            self.send(frames.pack(frames.HOLD, sequence, b""))
            return
        if not self._pausing and not self.closed and not self.broken:
            self._loop.remove_reader(self._results)
        self._pausing.add(sequence)

    def resume(self, sequence: int) -> bool:
        """This event is no reason to wait any more. True when it was the last one: reading goes on."""
        if self._held.pop(sequence, None) is not None and sequence in self.inflight:
            self.send(frames.pack(frames.GO_ON, sequence, b""))
        if sequence not in self._pausing:
            return False
        self._pausing.remove(sequence)
        if self._pausing or self.closed or self.broken:
            return False
        self._loop.add_reader(self._results, self._on_results)
        return True

    def drain_results(self) -> None:
        """After its end: take what it had answered before."""
        while not self.closed and not self.broken:
            try:
                data = os.read(self._results, _READ_BYTES)
            except (BlockingIOError, OSError):
                return
            if not data:
                return
            self._collect(data)

    def read_log(self, ended: int = 0) -> None:
        """Take what is in the log pipe; lines of one event are capped, the rest is counted as cut. `ended`: the event that has
        just ended, whose last lines these are.

        Only where several events run at once do lines carry the tag of theirs. A tag is no proof: all of an instance's code may
        write any, so it chooses among the instance's own events and reaches no others.
        """
        tagged = self.capacity > 1
        try:
            data = os.read(self._log, _TAGGED_READ_BYTES if tagged else _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._log)
            return
        loose = min(self.inflight, default=0) if tagged or not ended else ended
        kept = self._keep_tagged(loose, data, ended) if tagged and _TAG in data else self._keep(loose, data, ended)
        if not kept and not self._log_paused:
            self._log_paused = True
            self._loop.remove_reader(self._log)
            self._loop.call_later(_LOG_PAUSE_SECONDS, self._resume_log)

    def _resume_log(self) -> None:
        self._log_paused = False
        if not self.closed:
            self._loop.add_reader(self._log, self.read_log)

    def _keep_tagged(self, loose: int, data: bytes, ended: int) -> bool:
        """Each tagged line to its event, lines without a tag to `loose`. False if nothing had room."""
        position, kept = 0, False
        for mark in _MARK.finditer(data):
            if mark.start() > position:
                kept |= self._keep(loose, data[position : mark.start()], ended)
            position = data.find(b"\n", mark.end()) + 1 or len(data)
            kept |= self._keep(int(mark[1], 16), data[mark.end() : position], ended)
        if position < len(data):
            kept |= self._keep(loose, data[position:], ended)
        return kept

    def _keep(self, sequence: int, data: bytes, ended: int) -> bool:
        if sequence not in self.inflight and sequence != ended:
            sequence = 0
        kept = self.log_lines.setdefault(sequence, bytearray())
        room = _LOG_BYTES_AT_MOST - len(kept)
        if room < len(data):
            self.log_lost[sequence] = self.log_lost.get(sequence, 0) + len(data) - room
        kept += data[:room]
        return room > 0

    def take_log(self, sequence: int, *, surely: bool = True) -> bytes:
        """The lines of one event, and those that belong to none.

        `surely`: look into the pipe whatever the frame said; else what was written past the runtime may come later.
        """
        if surely or self.wrote:
            self.read_log(sequence)
        if not self.log_lines:
            return b""
        loose = self.log_lines.pop(0, b"")
        own = self.log_lines.pop(sequence, b"")
        lost = self.log_lost.pop(0, 0) + self.log_lost.pop(sequence, 0) if self.log_lost else 0
        return CutLog(loose + own, lost) if lost else bytes(loose + own)

    # --- usage ------------------------------------------------------------------------------------------------------

    def cpu_us(self) -> int:
        """CPU time of the whole tree so far, in microseconds; 0 without control groups."""
        if not self._usage:
            return 0
        try:
            text = os.pread(self._usage[0], 64, 0)
        except OSError:  # it answered and ended, and its group was removed before its answer was read
            return self.cpu_seen_us
        if text.startswith(b"usage_usec"):
            return int(text.split(maxsplit=2)[1])
        return int(text) // 1000

    def peak_mb(self, fresh: bool) -> int:
        """Highest memory use so far, in MB, rounded up; `fresh`: read now, else as last read."""
        if self._usage and (fresh or not self._peak_mb):
            try:
                self._peak_mb = -(-int(os.pread(self._usage[1], 32, 0)) // 1_048_576)
            except OSError:
                pass  # its group is gone, as above: what was read last stands
        return self._peak_mb

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of every descriptor. The process, if there is one, ends at its end of file."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._results)
        self._loop.remove_reader(self._log)
        if self._pending:
            self._loop.remove_writer(self._events)
        for fd in (self._events, self._results, self._log, self._recall, *self._usage):
            if fd >= 0:
                os.close(fd)
        for listener in self.listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._usage = ()


def ready_at(payload: bytes, now: int) -> int:
    """When an instance was ready, as it says (CLOCK_MONOTONIC, ns); `now` if it does not."""
    try:
        said = json.loads(payload).get("at")
    except (ValueError, AttributeError, RecursionError):
        return now
    return said if type(said) is int else now


def _drop(_: bytes) -> None:
    return None
