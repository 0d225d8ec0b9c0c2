"""An instance whose runtime speaks HTTP: to its pool it is like any other, with frames in and frames out."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

import msgspec

from martlet.functions.instance import Instance
from martlet.functions.runtimes import wire
from martlet.functions.runtimes.api import Event, RuntimeApi
from martlet.functions.sandbox import Ended
from martlet.functions.sandboxes.inside import frames
from martlet.types import FunctionVersion, Invocation

__all__ = ["ApiInstance", "ApiOwner"]

_POLL_SECONDS_AT_LEAST = 1.0
_FATAL = frozenset(
    {4, 6, 7, 8, 9, 11, 15}
)  # signals that end a process by themselves, not by an exit code that means something
_LAST = frozenset({frames.RESULT, frames.ERROR, frames.END, frames.STREAM_ERROR})


class ApiOwner(Protocol):
    """What an instance with a Runtime API asks of its pool, beyond `instance.Owner`."""

    version: FunctionVersion

    def on_frame(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None: ...

    def on_broken(self, instance: Instance, reason: str) -> None: ...

    def on_polling(self, instance: Instance) -> None:
        """It takes an event again."""
        ...

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        """A connection for the platform's own API."""
        ...


class ApiInstance(Instance):
    """`Instance` with the Runtime API on its private loopback; INIT and the launcher's word still go through the pipes."""

    __slots__ = ("_api", "_api_owner", "_attended", "_joining", "_late")

    def __init__(self, number: int, owner: ApiOwner, capacity: int, started_ns: int) -> None:
        super().__init__(number, owner, capacity, started_ns)
        self._api_owner = owner
        self._api = RuntimeApi(self)
        self._joining: set[asyncio.Task[None]] = set()
        self._late: asyncio.TimerHandle | None = None
        self._attended = False  # the runtime is a child of the sandbox's first process, which tells its end in its own code
        self.wrote = 1  # its lines may have come at any time

    # --- Instance -----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        _, sequence, kind, _ = frames.HEADER.unpack_from(data)
        if kind != frames.INVOKE:
            super().send(data)
            return
        line, _, payload = data[frames.SIZE :].partition(b"\n")
        request_id, timeout, arn, trace, client = line.split(b"\x1f")
        streams = self.inflight[sequence].on_head is not None
        self._api.give(Event(sequence, request_id.decode(), int(timeout), arn, trace, client, payload, streams))

    @property
    def polls(self) -> bool:
        return self._api.polling

    @property
    def takes_more(self) -> bool:
        return False

    @property
    def undelivered(self) -> bool:
        return self._api.undelivered in self.inflight

    def take_back(self) -> list[Invocation]:
        sequence = self._api.undelivered
        if sequence not in self.inflight:
            return []
        self._api.take_back()
        return [self.inflight.pop(sequence)]

    def attach_log(self, fd: int) -> None:
        self._attended = fd >= 0
        super().attach_log(fd)

    def interpret(self, ended: Ended) -> Ended:
        if self._attended and ended.code - 128 in _FATAL:
            return msgspec.structs.replace(ended, code=0, signal=ended.code - 128)
        return ended

    def adopt(self, listener: int, sock: socket.socket) -> bool:
        if listener:
            return False
        task = self._loop.create_task(wire.accept(sock, self._api))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        return True

    def pause(self, sequence: int) -> None:
        self._pausing.add(sequence)
        self._api.pause()

    def resume(self, sequence: int) -> bool:
        if sequence not in self._pausing:
            return False
        self._pausing.remove(sequence)
        self._api.resume()
        return True

    def _on_results(self) -> None:
        """The launcher's pipe: an error before the runtime ran, or the end of file when the runtime took its place."""
        try:
            data = os.read(self._results, 65_536)
        except BlockingIOError:
            return
        if data:
            self._collect(data)
        else:
            self._loop.remove_reader(self._results)

    # --- RuntimeApi's channel -----------------------------------------------------------------------------------------

    def on_api_frame(self, kind: int, sequence: int, payload: bytes) -> None:
        if self.closed or self.broken or self.ended:
            return
        if kind in _LAST:
            # It has answered, and is not free before it asks for more; that must not take longer than an event may.
            seconds = max(_POLL_SECONDS_AT_LEAST, self._api_owner.version.config.timeout_seconds)
            self._late = self._loop.call_later(seconds, self._is_late)
        self._api_owner.on_frame(self, kind, sequence, payload)

    def _is_late(self) -> None:
        if not self.closed and not self.ended:
            self._api_owner.on_broken(self, "it did not ask for its next event in time")

    def on_polling(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if not self.closed and not self.broken and not self.ended:
            self._api_owner.on_polling(self)

    def on_flood(self, reason: str) -> None:
        if not self.closed and not self.ended:
            self._api_owner.on_broken(self, reason)

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        if self.closed:
            sock.close()
        else:
            self._api_owner.pass_on(sock, begun)

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if not self.closed:
            self._api.close()
            if self._late is not None:
                self._late.cancel()
        super().close()
