"""An instance whose runtime speaks HTTP: to its pool it is like any other, with frames in and frames out."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Protocol

import msgspec

from martlet.clock import Clock
from martlet.functions.instance import Instance
from martlet.functions.runtimes import wire
from martlet.functions.runtimes.api import Event, RuntimeApi
from martlet.functions.runtimes.extensions import Extensions, Failure
from martlet.functions.sandbox import Ended
from martlet.functions.sandboxes.inside import frames
from martlet.types import ACCOUNT, FunctionVersion, Invocation

__all__ = ["ApiInstance", "ApiOwner"]

_POLL_SECONDS_AT_LEAST = 1.0
_FATAL = frozenset(
    {4, 6, 7, 8, 9, 11, 15}
)  # signals that end a process by themselves, not by an exit code that means something
_FAREWELL_SECONDS = 2.0
_BATCHES_AT_MOST = 64
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

    __slots__ = (
        "_api",
        "_api_owner",
        "_attended",
        "_batches",
        "_delivering",
        "_extensions",
        "_farewell",
        "_joining",
        "_late",
        "_launched",
    )

    def __init__(self, number: int, owner: ApiOwner, capacity: int, started_ns: int) -> None:
        super().__init__(number, owner, capacity, started_ns)
        self._api_owner = owner
        self._owner = self  # what comes through the pipes is the launcher's word
        version = owner.version
        about = {
            "functionName": version.name,
            "functionVersion": str(getattr(version, "qualifier", "$LATEST")),
            "handler": version.config.handler,
            "accountId": ACCOUNT,
        }
        self._extensions = Extensions(about, on_asked=self._on_asked, on_failure=self._on_failure, deliver=self._deliver)
        self._api = RuntimeApi(self, self._extensions)
        self._launched: set[str] | None = None  # extensions that run; None: there are none
        self._batches: list[bytes] = []  # telemetry for the launcher, one at a time
        self._delivering = False
        self._farewell: Callable[[], None] | None = None
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
        return self._api.polling and self._extensions.idle

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
        if kind == frames.READY:
            self._extensions.initialised = True
        if kind in _LAST:
            if self._launched is not None:
                self._record_end(kind, sequence)
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
        if not self.closed and not self.broken and not self.ended and self._extensions.idle:
            self._api_owner.on_polling(self)

    def on_flood(self, reason: str) -> None:
        if not self.closed and not self.ended:
            self._api_owner.on_broken(self, reason)

    def pass_on(self, sock: socket.socket, begun: bytes) -> None:
        if self.closed:
            sock.close()
        else:
            self._api_owner.pass_on(sock, begun)

    # --- the launcher, and extensions -----------------------------------------------------------------------------------

    def on_frame(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None:
        """A launcher's frame. It shares its user with the runtime, so its word is checked like any."""
        try:
            known = self._heard(kind, payload)
        except (ValueError, TypeError, RecursionError):
            known = False
        if not known:
            self._api_owner.on_broken(self, f"a launcher's frame of kind {kind} out of order")
        self._start_runtime()

    def _heard(self, kind: int, payload: bytes) -> bool:
        if kind == frames.INIT_ERROR and not self.ready:
            self._api_owner.on_frame(self, kind, 0, payload)
        elif kind == frames.LAUNCHED and self._launched is None:
            self._launched = {str(name) for name in json.loads(payload)}
        elif kind == frames.DELIVERED and self._delivering:
            self._delivering = False
            self._deliver_next()
        elif kind == frames.EXTENSION_ENDED and self._launched is not None:
            name, code = json.loads(payload)
            self._launched.discard(name)
            if self._farewell is None:
                self._on_failure(Failure("Extension.Crash", f"extension {name} exited with code {code}"))
            elif not self._launched:
                self._farewell()
        else:
            return False
        return True

    def on_broken(self, instance: Instance, reason: str) -> None:
        self._api_owner.on_broken(self, reason)

    def _start_runtime(self) -> None:
        """Once every extension has registered: Lambda starts the runtime after them."""
        if self._launched and self._extensions.names >= self._launched and not self._extensions.started and not self.closed:
            self._extensions.started = True
            super().send(frames.pack(frames.START, 0, b""))

    def _on_asked(self) -> None:
        self._start_runtime()
        self._api.go_on()
        if self.ready and not self.inflight and self.polls:
            self.on_polling()

    def _on_failure(self, failure: Failure) -> None:
        if self.closed or self.ended or self.broken:
            return
        payload = json.dumps({"errorType": failure.kind, "errorMessage": failure.message}).encode()
        if not self.ready:
            self._api_owner.on_frame(self, frames.INIT_ERROR, 0, payload)
            return
        for sequence in list(self.inflight):
            self._api_owner.on_frame(self, frames.ERROR, sequence, payload)
        self._api_owner.on_broken(self, failure.message)

    def _record_end(self, kind: int, sequence: int) -> None:
        invocation = self.inflight.get(sequence)
        if invocation is not None:
            self.read_log()
            status = "success" if kind in (frames.RESULT, frames.END) else "error"
            self._extensions.record("platform.runtimeDone", {"requestId": invocation.request_id, "status": status})
            self._extensions.flush()

    def _keep(self, sequence: int, data: bytes, ended: int) -> bool:
        if self._launched is not None:
            for line in data.decode("utf-8", "replace").splitlines():
                self._extensions.record("function", line + "\n")
        return super()._keep(sequence, data, ended)

    def _deliver(self, address: str, body: bytes) -> None:
        if len(self._batches) < _BATCHES_AT_MOST:
            self._batches.append(address.encode() + b"\n" + body)
        self._deliver_next()

    def _deliver_next(self) -> None:
        if self._batches and not self._delivering and not self.closed:
            self._delivering = True
            super().send(frames.pack(frames.DELIVER, 0, self._batches.pop(0)))

    def part(self, kill: Callable[[], None]) -> bool:
        """On the way out with nothing to do: extensions hear it and get a moment. True: `kill` is called later."""
        if not self._launched or self.inflight or not self.ready or self.ended or self.broken or self._farewell is not None:
            return False
        self._farewell = kill
        self._extensions.flush()
        self._extensions.shut_down("spindown", Clock().now_ms() + int(_FAREWELL_SECONDS * 1000))
        self._loop.call_later(_FAREWELL_SECONDS, kill)
        return True

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if not self.closed:
            self._api.close()
            if self._late is not None:
                self._late.cancel()
        super().close()
