"""The isolating host: the platform's end of the supervisor's socket. See `inside/supervisor.py` for the messages."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from martlet.errors import SandboxFailed, StartFailed
from martlet.functions.sandbox import Ended, HostReport, InstanceSpec, Started, ZygoteSpec
from martlet.functions.sandboxes.inside import linux

_INSIDE = Path(__file__).with_name("inside")
_SDK = ("martlet", "martlet.sdk.entry", "martlet.sdk.convert", "martlet.sdk.signature", "martlet.sdk.encode")
_RESTARTS_AT_MOST = 5  # of the supervisor, within _RESTARTS_SECONDS
_RESTARTS_SECONDS = 60.0
_CALM_SECONDS = 5.0  # a zygote that lived longer is brought back at once, another after a moment


class IsolatedHost:
    """`name` keeps this platform's control groups apart from others'; `python` is the functions' interpreter."""

    def __init__(self, name: str, python: str = "", stem_cells: int = 4) -> None:
        self._name = name
        self._python = os.path.realpath(python or sys.executable)
        self._stem_cells = stem_cells
        self._sock: socket.socket | None = None
        self._pid = 0
        self._outbox: deque[tuple[dict[str, Any], list[int]]] = deque()
        self._zygotes: dict[str, ZygoteSpec] = {}
        self._parked: dict[str, int] = {}
        self._numbers: set[int] = set()
        self._hello: asyncio.Future[HostReport] | None = None
        self._on_started: Callable[[Started], None] = lambda _: None
        self._on_ended: Callable[[Ended], None] = lambda _: None
        self._on_note: Callable[[str], None] = lambda _: None
        self._closing = False
        self._control_groups = True
        self._greeting: asyncio.Task[None] | None = None
        self._restarts = 0
        self._restarted_at: deque[float] = deque(maxlen=_RESTARTS_AT_MOST)
        self._returning: dict[str, list[tuple[dict[str, Any], list[int]]]] = {}  # starts that wait for a zygote to come back
        self._lost_at: dict[str, float] = {}

    async def open(
        self, on_started: Callable[[Started], None], on_ended: Callable[[Ended], None], on_note: Callable[[str], None]
    ) -> HostReport:
        self._on_started, self._on_ended, self._on_note = on_started, on_ended, on_note
        return await self._launch()

    def ensure_zygote(self, spec: ZygoteSpec) -> None:
        if spec.key not in self._zygotes:
            self._zygotes[spec.key] = spec
            self._send_zygote(spec)

    def drop_zygote(self, key: str) -> None:
        if self._zygotes.pop(key, None) is not None:
            self._parked.pop(key, None)
            self._lost_at.pop(key, None)
            self._return(key)
            self._send({"order": "drop", "key": key})

    def park(self, key: str, count: int) -> None:
        if self._parked.get(key) != count:
            self._parked[key] = count
            self._send({"order": "stems", "key": key, "count": count})

    def start(self, number: int, spec: InstanceSpec, pipes: tuple[int, int, int]) -> None:
        self._numbers.add(number)
        rlimits = {"RLIMIT_NOFILE": spec.file_descriptors, "RLIMIT_CORE": 0, "RLIMIT_MEMLOCK": 0, "RLIMIT_MSGQUEUE": 0}
        if not self._control_groups:  # the next best: each process by itself
            rlimits["RLIMIT_DATA"] = spec.memory_mb * 1_048_576
        order = {
            "order": "start",
            "id": number,
            "zygote": spec.zygote,
            "code": spec.code,
            "opt": spec.opt,
            "memory_mb": spec.memory_mb,
            "tmp_mb": spec.tmp_mb,
            "processes": spec.processes,
            "rlimits": rlimits,
        }
        if spec.zygote in self._returning:
            self._returning[spec.zygote].append((order, list(pipes)))
        else:
            self._send(order, list(pipes))

    def kill(self, number: int) -> None:
        for waiting in self._returning.values():
            for entry in [entry for entry in waiting if entry[0]["id"] == number]:
                waiting.remove(entry)
                self._send(*entry)  # its end is told by the one who tells all ends
        if number in self._numbers:
            self._send({"order": "kill", "id": number})

    def stats(self) -> dict[str, int]:
        return {"zygotes": len(self._zygotes), "supervisor_pid": self._pid, "supervisor_restarts": self._restarts}

    async def close(self) -> None:
        self._closing = True
        if self._sock is None:
            return
        self._detach()
        await asyncio.get_running_loop().run_in_executor(None, self._reap)

    # --- the supervisor process -----------------------------------------------------------------------------------

    async def _launch(self) -> HostReport:
        self._spawn()
        return await self._greeted()

    def _spawn(self) -> None:
        """Start the supervisor. What is sent from now on waits for it, the zygotes before anything that needs one."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = _spawn_supervisor(theirs)
        theirs.close()
        ours.setblocking(False)
        self._sock = ours
        self._hello = loop.create_future()
        loop.add_reader(ours, self._on_readable)
        self._send({"order": "hello", "name": self._name, "isolated": True})
        for spec in self._zygotes.values():
            self._send_zygote(spec)

    async def _greeted(self) -> HostReport:
        assert self._hello is not None
        try:
            return await asyncio.wait_for(self._hello, 20)
        except TimeoutError:
            self._detach()
            raise StartFailed("the sandbox supervisor did not answer within 20 s") from None

    def _reap(self) -> None:
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass

    def _detach(self) -> None:
        if self._sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
        for _, fds in self._outbox:
            _close(fds)
        self._outbox.clear()
        for waiting in self._returning.values():
            for _, fds in waiting:
                _close(fds)
        self._returning.clear()

    def _lost(self) -> None:
        """The supervisor is gone, and by the kernel's death signals every instance with it: say so, start another."""
        self._detach()
        self._reap()
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(StartFailed("the sandbox supervisor ended while it started"))
        numbers, self._numbers = self._numbers, set()
        if not self._closing:
            self._restart()
        for number in numbers:
            self._on_ended(Ended(number, signal=signal.SIGKILL, error=""))

    def _restart(self) -> None:
        """Before anybody hears of the loss: who then asks for a new instance gets one, from the new supervisor."""
        loop = asyncio.get_running_loop()
        self._restarts += 1
        self._on_note(f"the sandbox supervisor ended; restart {self._restarts}")
        recent = self._restarted_at
        if len(recent) == recent.maxlen and loop.time() - recent[0] < _RESTARTS_SECONDS:
            self._on_note(f"sandboxes are not available: {len(recent)} restarts within {_RESTARTS_SECONDS:g} s")
            loop.call_later(_RESTARTS_SECONDS, self._try_again)
            return
        recent.append(loop.time())
        try:
            self._spawn()
        except OSError as error:
            self._on_note(f"sandboxes are not available: {error}")
            loop.call_later(1.0, self._try_again)
            return
        self._greeting = loop.create_task(self._regreeted())

    def _try_again(self) -> None:
        if self._sock is None and not self._closing:
            self._restart()

    async def _regreeted(self) -> None:
        try:
            await self._greeted()
        except (StartFailed, SandboxFailed) as error:
            self._on_note(f"sandboxes are not available: {error}")

    # --- messages -------------------------------------------------------------------------------------------------

    def _send_zygote(self, spec: ZygoteSpec) -> None:
        interpreter, binds = _interpreter(spec.python or self._python, "/var/martlet/python" if spec.binds else "/var/lang")
        binds += spec.binds
        package = _INSIDE.parents[2]
        binds += [
            (str(_INSIDE), "/var/martlet/inside"),
            (str(package / "__init__.py"), "/var/martlet/sdk/martlet/__init__.py"),
            (str(package / "sdk"), "/var/martlet/sdk/martlet/sdk"),
        ]
        msgspec_folder = _folder_of("msgspec")
        if msgspec_folder:
            binds.append((msgspec_folder, "/var/martlet/lib/msgspec"))
        if not spec.blank:
            binds += _runtime_packages()
        if spec.layer:
            binds.append((spec.layer, "/opt/python"))
        if spec.task:
            binds.append((spec.task, "/var/task"))
        order = {
            "order": "zygote",
            "key": spec.key,
            "interpreter": interpreter,
            "binds": binds,
            "path": ["/opt/python"] if spec.layer else [],
            "task": bool(spec.task),
            "environment": dict(spec.environment) if spec.environment and not spec.blank else None,
            "modules": list(spec.imports) if spec.blank else [*_SDK, *spec.imports],
            "blank": {"argv": spec.blank, "environment": dict(spec.environment)} if spec.blank else None,
            "stems": self._parked.get(spec.key, self._stem_cells),
        }
        self._send(order)

    def _send(self, order: dict[str, Any], fds: list[int] | None = None) -> None:
        if self._sock is None:
            _close(fds or [])
            if order["order"] == "start":
                self._numbers.discard(order["id"])
                ended = Ended(order["id"], error="the sandbox supervisor is not running")
                asyncio.get_running_loop().call_soon(self._on_ended, ended)
            return
        self._outbox.append((order, fds or []))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox and self._sock is not None:
            order, fds = self._outbox[0]
            try:
                linux.send(self._sock, order, fds)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._sock, self._flush)
                return
            except OSError:
                return  # the reader sees the end of file
            _close(fds)
            self._outbox.popleft()
        if self._sock is not None:
            asyncio.get_running_loop().remove_writer(self._sock)

    def _on_readable(self) -> None:
        for _ in range(64):
            if self._sock is None:
                return
            try:
                event, fds, _pid = linux.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                event, fds = None, []
            if event is None:
                self._lost()
                return
            self._on_event(event, fds)

    def _on_event(self, event: dict[str, Any], fds: list[int]) -> None:
        kind = event["event"]
        if kind == "started":
            log = fds.pop(0) if event["logs"] else -1
            self._on_started(Started(event["id"], tuple(fds[:2]), tuple(fds[2:]), log))
        elif kind == "exit":
            self._numbers.discard(event["id"])
            ended = Ended(
                event["id"],
                error=event.get("error", ""),
                signal=event.get("signal", 0),
                code=event.get("code", 0),
                out_of_memory=event.get("out_of_memory", False),
                peak_mb=event.get("peak_bytes", 0) // 1_048_576,
            )
            self._on_ended(ended)
        elif kind == "hello" and self._hello is not None:
            self._control_groups = event["level"] > 2
            self._hello.set_result(HostReport(event["level"], tuple(event["features"]), tuple(event["missing"])))
        elif kind == "zygote":
            for name, reason in event["failed"].items():
                self._on_note(f"zygote {event['key']}: {name} was not imported ahead: {reason}")
        elif kind == "zygote_lost" and event["error"] != "dropped":
            self._on_note(f"zygote {event['key']} ended: {event['error']}")
            self._bring_back(event["key"])

    def _bring_back(self, key: str) -> None:
        """A lost zygote: at once and as it was; if it was short-lived, after a moment and without its imports."""
        spec = self._zygotes.get(key)
        if spec is None:
            return
        loop = asyncio.get_running_loop()
        lost_before, self._lost_at[key] = self._lost_at.get(key, -_CALM_SECONDS), loop.time()
        if loop.time() - lost_before >= _CALM_SECONDS:
            self._send_zygote(spec)
        else:
            self._returning.setdefault(key, [])
            loop.call_later(0.2, self._return, key)

    def _return(self, key: str) -> None:
        """Boot a zygote that was lost twice in a short time, and send it the starts that came meanwhile."""
        waiting = self._returning.pop(key, [])
        spec = self._zygotes.get(key)
        if spec is not None:
            self._send_zygote(msgspec.structs.replace(spec, imports=()))
        for order, fds in waiting:
            self._send(order, fds)


def _spawn_supervisor(channel: socket.socket) -> int:
    """Start the supervisor with `channel` as its descriptor 3 and an empty environment; returns its pid."""
    base = os.path.realpath(sys.executable)
    arguments = [base, "-I", "-S", str(_INSIDE / "launch.py"), "supervisor"]
    if channel.fileno() == 3:
        os.set_inheritable(3, True)
        return os.posix_spawn(base, arguments, {}, setsigmask=[])
    actions = [(os.POSIX_SPAWN_DUP2, channel.fileno(), 3)]
    return os.posix_spawn(base, arguments, {}, file_actions=actions, setsigmask=[])


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _interpreter(python: str, place: str) -> tuple[str, list[tuple[str, str]]]:
    """Where the interpreter is in the image, and what must be bound for it."""
    prefix = os.path.dirname(os.path.dirname(python))
    if prefix == "/usr" or prefix.startswith("/usr/"):
        return python, []
    return f"{place}/bin/{os.path.basename(python)}", [(prefix, place)]


# What Lambda's Python runtimes bring along: handlers import boto3 without packing it.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html#python-sdk-included
_WITH_PYTHON = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")


@functools.cache
def _runtime_packages() -> tuple[tuple[str, str], ...]:
    """Binds that show the platform's own boto3, all of it plain Python, at /var/runtime. That comes last on the path."""
    found = []
    for name in _WITH_PYTHON:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            package = spec.submodule_search_locations is not None
            place = os.path.dirname(spec.origin) if package else spec.origin
            found.append((place, f"/var/runtime/{os.path.basename(place)}"))
    return tuple(found)


def _folder_of(package: str) -> str:

    spec = importlib.util.find_spec(package)
    return os.path.dirname(spec.origin) if spec and spec.origin else ""
