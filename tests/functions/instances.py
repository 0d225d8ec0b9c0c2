"""A world for a `Pool` without sandboxes: instances whose inside is the test, at the other end of real pipes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from martlet.clock import ManualClock, uuid4_text
from martlet.functions.instance import Instance
from martlet.functions.pool import Pool
from martlet.functions.sandbox import Ended
from martlet.functions.sandboxes.inside import frames
from martlet.types import FunctionConfig, FunctionVersion, Invocation, Outcome

PATIENCE_SECONDS = 20.0


class Inside:
    """The inside of one instance. `events` are the INVOKE frames it has read, by sequence number, as payloads."""

    def __init__(self, world: World, pool: Pool, instance: Instance, pipes: tuple[int, int, int]) -> None:
        self.world = world
        self.pool = pool
        self.instance = instance
        self.events: dict[int, bytes] = {}
        self.init: dict[str, Any] | None = None
        self.reads = True
        self.told: list[tuple[int, int]] = []  # (kind, sequence) of frames other than INIT and INVOKE
        self.gone = False
        self._events, self._results, self._log = pipes
        os.set_blocking(self._events, False)
        self._buffer = b""
        asyncio.get_running_loop().add_reader(self._events, self._readable)

    def _readable(self) -> None:
        if self.events and self.pool.version.config.concurrency == 1:
            asyncio.get_running_loop().remove_reader(
                self._events
            )  # it runs one event at a time: the next one stays in the pipe
            return
        try:
            data = os.read(self._events, 65_536)
        except BlockingIOError:
            return  # taken back meanwhile
        if not data:
            asyncio.get_running_loop().remove_reader(self._events)
            return
        self._buffer += data
        while len(self._buffer) >= frames.SIZE:
            length, sequence, kind, _ = frames.HEADER.unpack_from(self._buffer)
            if len(self._buffer) < frames.SIZE + length:
                return
            payload = self._buffer[frames.SIZE : frames.SIZE + length]
            self._buffer = self._buffer[frames.SIZE + length :]
            if kind == frames.INIT:
                self.init = json.loads(payload)
                self.world.on_init(self)
            elif kind != frames.INVOKE:
                self.told.append((kind, sequence))
            else:
                self.events[sequence] = payload.partition(b"\n")[2]

    def send(self, kind: int, sequence: int = 0, payload: bytes = b"{}") -> None:
        """A frame to the platform, whatever it may be."""
        self.raw(frames.pack(kind, sequence, payload))

    def raw(self, data: bytes) -> None:
        try:
            os.write(self._results, data)
        except BrokenPipeError:
            pass  # the platform has hung up

    def answer(self, sequence: int, payload: bytes = b'"done"', kind: int = frames.RESULT) -> None:
        """End an event, then go on reading."""
        self.events.pop(sequence, None)
        self.send(kind, sequence, payload)
        if not self.gone:
            asyncio.get_running_loop().add_reader(self._events, self._readable)

    def log(self, text: bytes) -> None:
        os.write(self._log, text)

    def end(self, **how: Any) -> None:
        """Its process tree is gone; the host says so a moment later."""
        if self.gone:
            return
        self.gone = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._events)
        for fd in (self._events, self._results, self._log):
            os.close(fd)
        self.world.insides.pop(self.instance.number)
        loop.call_soon(self.pool.on_ended, self.instance, Ended(self.instance.number, **how))


class World:
    """The room around pools (`martlet.functions.pool.Environment`) and the sandbox host in one."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.insides: dict[int, Inside] = {}
        self.started = 0
        self.room = 1_000  # instances at most
        self.busy_host = False
        self.notes: list[str] = []
        self.ended: list[tuple[Invocation, Outcome, bytes]] = []
        self.on_init: Callable[[Inside], None] = lambda inside: inside.send(frames.READY)

    def pool(self, **config: Any) -> Pool:
        settings = {"name": "f", "handler": "app:f", **config}
        version = FunctionVersion(name="app-f", app="app", version=1, config=FunctionConfig(**settings), code="c")
        return Pool(version, self, {"mode": "serve"})

    def submit(self, pool: Pool, payload: bytes = b"{}", **more: Any) -> Invocation:
        invocation = Invocation("app-f", payload, uuid4_text(), lambda *_: None, **more)
        pool.submit(invocation)
        return invocation

    def outcome(self, invocation: Invocation) -> Outcome | None:
        """How it ended, or None. Ended twice is an error whatever the test."""
        found = [outcome for ended, outcome, _ in self.ended if ended is invocation]
        assert len(found) <= 1, "an event ends once"
        return found[0] if found else None

    def lines(self, invocation: Invocation) -> bytes:
        return next(lines for ended, _, lines in self.ended if ended is invocation)

    def running(self) -> list[tuple[Inside, int]]:
        """(inside, sequence) of every event that an instance has read and not answered."""
        return [(inside, sequence) for inside in self.insides.values() for sequence in inside.events]

    async def until(self, found: Callable[[], Any]) -> Any:
        """Wait for the event loop to make `found` true; gives its value."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not (value := found()):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.001)
        return value

    def close(self) -> None:
        self.room = 0
        for inside in list(self.insides.values()):
            inside.end(signal=9)

    # --- Environment

    def start_instance(self, pool: Pool, instance: Instance) -> bool:
        if len(self.insides) >= self.room:
            return False
        self.started += 1
        instance.number = self.started
        pipes = instance.open_pipes()
        pool.prime(instance)
        self.insides[instance.number] = Inside(self, pool, instance, pipes)
        return True

    def kill_instance(self, instance: Instance) -> None:
        inside = self.insides.get(instance.number)
        if inside is not None:
            asyncio.get_running_loop().call_soon(lambda: inside.end(signal=9))

    def finished(self, pool: Pool, invocation: Invocation, outcome: Outcome, lines: bytes) -> None:
        self.ended.append((invocation, outcome, lines))

    def note(self, pool: Pool, text: str) -> None:
        self.notes.append(text)

    def connected(self, pool: Pool, listener: int, sock: socket.socket) -> None:
        sock.close()

    def saturated(self, pool: Pool) -> bool:
        return self.busy_host
