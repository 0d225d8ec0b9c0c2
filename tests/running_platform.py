"""`martlet up` as a subprocess, for whoever drives the whole platform from outside: e2e tests, `make bench`.

The contract with the command line is all that is known here: it prints `app   http://127.0.0.1:PORT …` and
`api   http://…` once it serves, `<data>/credentials.json` and `<data>/endpoint.json` exist by then, and SIGTERM ends it
with exit code 0 and nothing left behind.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["RunningPlatform"]

_ADDRESS = re.compile(r"^\s*(app|api)\s+(http://[\w.\[\]:-]+)", re.MULTILINE)
_SOURCE = Path(__file__).resolve().parents[1] / "src"  # of this tree, even if another one is installed
_ENTRY = "import sys; from martlet.cli import main; sys.exit(main())"  # what the installed `martlet` does


class RunningPlatform:
    """One platform that serves. `app_url` is the public edge, `api_url` the platform's API."""

    def __init__(
        self,
        path: Path | str | None,
        data: Path,
        *arguments: str,
        environ: dict[str, str] | None = None,
        ready_seconds: float = 60,
    ) -> None:
        """Start `martlet up PATH --data DATA ARGUMENTS` on free loopback ports. `RuntimeError` with its output if it cannot."""
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self.output = data.parent / f"{data.name}.out"
        paths = [] if path is None else [str(path)]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ENTRY, "up", *paths, "--data", str(data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "MARTLET_HOST": "127.0.0.1",
                    "MARTLET_PORT": "0",
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONPATH": str(_SOURCE),
                    **(environ or {}),
                },
            )
        try:
            found = self._wait_until_ready(ready_seconds)
        except BaseException:
            self.kill()
            raise
        self.app_url = found.get("app", "")
        self.api_url = found["api"]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        """The port of the public edge."""
        return int(self.app_url.rsplit(":", 1)[1])

    @property
    def credentials(self) -> dict[str, Any]:
        """What `credentials.json` holds: the owner's key in the forms that clients take it."""
        found: dict[str, Any] = json.loads((self.data / "credentials.json").read_text())
        return found

    @property
    def endpoint(self) -> dict[str, Any]:
        """What `endpoint.json` holds: where the API of this data folder listens."""
        found: dict[str, Any] = json.loads((self.data / "endpoint.json").read_text())
        return found

    @property
    def token(self) -> str:
        """The owner's bearer token."""
        return str(self.credentials["token"])

    def printed(self) -> str:
        """Everything it has printed so far."""
        return self.output.read_text(errors="replace")

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM and wait; the exit code. Raises `RuntimeError` when it does not end in time (then it is killed)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"martlet up did not end within {seconds} s of SIGTERM:\n{self.printed()}") from None

    def kill(self) -> None:
        """SIGKILL, as a power cut would; waits for the process itself only."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _wait_until_ready(self, seconds: float) -> dict[str, str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            found = dict(_ADDRESS.findall(self.printed()))
            files = [self.data / "credentials.json", self.data / "endpoint.json"]
            if "api" in found and "app" in found and all(file.exists() for file in files):
                return found
            if ended:
                raise RuntimeError(f"martlet up ended with {self.process.returncode} before it served:\n{self.printed()}")
            time.sleep(0.005)
        raise RuntimeError(f"martlet up did not serve within {seconds} s; it printed:\n{self.printed()}")
