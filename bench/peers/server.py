"""A server under measurement: a subprocess on a loopback port, ready when `Server(...)` returns, gone after `stop`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from bench.load import Connection

__all__ = ["Server", "free_port"]


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`command` must serve HTTP on `port`; `path` must answer 200 within `ready_seconds`, else `RuntimeError`."""

    def __init__(
        self,
        name: str,
        command: list[str],
        port: int,
        path: str = "/",
        *,
        folder: Path | None = None,
        environ: dict[str, str] | None = None,
        ready_seconds: float = 60,
    ) -> None:
        self.name = name
        self.port = port
        self.path = path
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,  # some start children of their own: the group is ended as one
        )
        try:
            self._wait_until_ready(ready_seconds)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the group of processes that this server is, politely first."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(5)
            except ProcessLookupError:
                break  # all of the group have ended
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self._output.close()

    def _wait_until_ready(self, seconds: float) -> None:
        deadline, said = time.monotonic() + seconds, "nothing answered"
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with Connection(self.port) as connection:
                    answer = connection.get(self.path)
                if answer.status == 200:
                    return
                said = f"{self.path} answered {answer.status}"
            except OSError as error:
                said = str(error)
            time.sleep(0.02)
        self._output.seek(0)
        printed = self._output.read().decode(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} did not start: {said}\n{printed}")
