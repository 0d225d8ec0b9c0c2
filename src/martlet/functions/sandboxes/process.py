"""The host without isolation: each instance is a plain process. For your own code, where namespaces are not permitted.

What is enforced: the time limit, the data segment as the memory limit (RLIMIT_DATA), descriptors, the number of results. What
is not: everything else. `martlet status` says level 0. Egress rules and `uses` cannot be enforced either: the process
has the host's network, and its private endpoint is a loopback port.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from martlet.functions.sandbox import Ended, HostReport, InstanceSpec, Started, ZygoteSpec

_INSIDE = Path(__file__).with_name("inside")
_MISSING = ("every isolation: started with --sandbox process", "hard memory limits", "egress rules", "private network")


class ProcessHost:
    """Same arguments as `IsolatedHost`; `name` and `stem_cells` mean nothing here."""

    def __init__(self, name: str, python: str = "", stem_cells: int = 0) -> None:
        self._python = os.path.realpath(python or sys.executable)
        self._layers: dict[str, str] = {}
        self._pids: dict[int, tuple[int, int]] = {}  # number → pid, pidfd
        self._all_gone: asyncio.Event | None = None
        self._on_started: Callable[[Started], None] = lambda _: None
        self._on_ended: Callable[[Ended], None] = lambda _: None

    async def open(
        self, on_started: Callable[[Started], None], on_ended: Callable[[Ended], None], on_note: Callable[[str], None]
    ) -> HostReport:
        self._on_started, self._on_ended = on_started, on_ended
        return HostReport(0, (), _MISSING)

    def ensure_zygote(self, spec: ZygoteSpec) -> None:
        self._layers[spec.key] = spec.layer

    def drop_zygote(self, key: str) -> None:
        self._layers.pop(key, None)

    def park(self, key: str, count: int) -> None:
        """There are no blank instances here."""

    def start(self, number: int, spec: InstanceSpec, pipes: tuple[int, int, int]) -> None:
        loop = asyncio.get_running_loop()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            pid = self._spawn(spec, pipes, address)
        except OSError as error:
            listener.close()
            loop.call_soon(self._on_ended, Ended(number, error=str(error)))
            return
        finally:
            for fd in pipes:
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._pids[number] = (pid, pidfd)
        loop.add_reader(pidfd, self._on_exit, number)
        loop.call_soon(self._on_started, Started(number, (listener.detach(),), ()))

    def kill(self, number: int) -> None:
        if number in self._pids:
            try:
                os.killpg(self._pids[number][0], signal.SIGKILL)
            except ProcessLookupError:
                os.kill(
                    self._pids[number][0], signal.SIGKILL
                )  # it has not made its own session yet; not reaped, so it is there

    def stats(self) -> dict[str, int]:
        return {"zygotes": 0}

    async def close(self) -> None:
        for number in list(self._pids):
            self.kill(number)
        if self._pids:
            self._all_gone = asyncio.Event()
            await self._all_gone.wait()

    def _spawn(self, spec: InstanceSpec, pipes: tuple[int, int, int], address: str) -> int:
        package = _INSIDE.parents[2]
        layer = self._layers.get(spec.zygote, "")
        order = {
            "code": spec.code,
            "path": [*([layer] if layer else []), str(package.parent)],
            "rlimits": {
                "RLIMIT_DATA": spec.memory_mb * 1_048_576,
                "RLIMIT_NOFILE": spec.file_descriptors,
                "RLIMIT_CORE": 0,
            },
            "environment": {
                "MARTLET_API": address,
                "AWS_ENDPOINT_URL": f"http://{address}",
                "LAMBDA_TASK_ROOT": spec.code,
                "AWS_LAMBDA_RUNTIME_API": address,
            },
        }
        arguments = [self._python, "-I", "-S", str(_INSIDE / "launch.py"), "process", json.dumps(order)]
        events, results, log = pipes
        high = [os.dup(fd) for fd in (events, results, log)]  # a target below must not overwrite a source
        actions = [(os.POSIX_SPAWN_DUP2, high[2], 1), (os.POSIX_SPAWN_DUP2, high[2], 2)]
        actions += [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
        for fd in high:
            os.set_inheritable(fd, fd in (3, 4))
        try:
            return os.posix_spawn(self._python, arguments, {}, file_actions=actions)
        finally:
            for fd in high:
                os.close(fd)

    def _on_exit(self, number: int) -> None:
        pid, pidfd = self._pids.pop(number)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        try:
            os.killpg(pid, signal.SIGKILL)  # what it started in its session goes with it
        except ProcessLookupError:
            pass
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        self._on_ended(Ended(number, signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, code=code))
        if self._all_gone is not None and not self._pids:
            self._all_gone.set()
