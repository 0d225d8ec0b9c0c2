"""What several e2e tests need to drive the platform from outside: commands, waiting for an event, raw HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
from tests.running_platform import RunningPlatform

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
EXAMPLES = ROOT / "examples"
PATIENCE_SECONDS = 30.0  # for things that take milliseconds: a slow machine makes a test slow, not red
ENTRY = (sys.executable, "-c", "import sys; from martlet.cli import main; sys.exit(main())")
T = TypeVar("T")


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """Runs `martlet …` in a folder of its own, without any MARTLET_ variable of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        *arguments: str | Path,
        data: Path | None = None,
        input: str = "",
        environ: dict[str, str] | None = None,
        seconds: float = 50,
    ) -> Ran:
        command = [*ENTRY, *map(str, arguments), *(["--data", str(data)] if data else [])]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARTLET_")}
        done = subprocess.run(
            command,
            input=input,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": str(ROOT / "src"), **(environ or {})},
        )
        return Ran(done.returncode, done.stdout, done.stderr)


def eventually(found: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """The first true value that `found` gives. An AssertionError with the last one if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s; the last was {value!r}"
        time.sleep(0.01)


def write_app(folder: Path, text: str, **more: str) -> Path:
    """An app's folder: `text` becomes app.py, `more` other files, "_" for "." in their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"app_py": text, **more}.items():
        (folder / name.replace("_", ".")).write_text(textwrap.dedent(content))
    return folder


def save(file: Path, text: str) -> None:
    """As an editor saves: a new file takes the old one's name."""
    draft = file.with_name(f".{file.name}.swp")
    draft.write_text(textwrap.dedent(text))
    draft.rename(file)


class Api:
    """The management API of a platform, as its owner."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform

    def get(self, path: str, **query: object) -> Any:
        answer = self.request("GET", path, params={name: str(value) for name, value in query.items()})
        answer.raise_for_status()
        return answer.json()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.platform.token}", **more.pop("headers", {})}
        return httpx.request(method, self.platform.api_url + path, headers=headers, timeout=60, **more)

    def invoke(self, name: str, payload: Any = None, *, log: bool = False, raw: bytes | None = None) -> dict[str, Any]:
        """The platform's own invoke: payload, error, request_id, log …"""
        body = raw if raw is not None else json.dumps({} if payload is None else payload).encode()
        query = "?log=true" if log else ""
        answer = self.request("POST", f"/v1/functions/{name}/invocations{query}", content=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def records(self, function: str) -> list[list[str]]:
        """The log of a function: the lines of each record."""
        answer = self.request("GET", "/v1/logs", params={"function": function, "limit": "10000"})
        answer.raise_for_status()
        return [json.loads(line)["lines"] for line in answer.text.splitlines()]

    def log_of(self, function: str, request_id: str) -> list[str]:
        """The lines of one invocation, once they are there."""
        return eventually(lambda: next((lines for lines in self.records(function) if request_id in "".join(lines)), None) or [])

    def status_of(self, function: str) -> dict[str, Any]:
        rows = self.get("/v1/status")["functions"]
        found: dict[str, Any] = next((row for row in rows if row["function"] == function), {})
        return found

    def invocations(self, function: str) -> int:
        """What the ledger has on disk."""
        rows = self.get("/v1/usage")["functions"]
        return sum(row["invocations"] for row in rows if row["function"] == function)


class RawAnswer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for given, value in self.headers if given.lower() == name]


@contextmanager
def connection(platform: RunningPlatform, seconds: float = PATIENCE_SECONDS) -> Iterator[socket.socket]:
    """A socket to the app listener."""
    with socket.create_connection(("127.0.0.1", platform.port), timeout=seconds) as found:
        yield found


def exchange(platform: RunningPlatform, request: bytes) -> RawAnswer:
    """Send bytes, read one answer that ends by Content-Length, by chunks or by the connection's end."""
    with connection(platform) as sock:
        sock.sendall(request)
        return read_answer(sock.makefile("rb"), head=request.startswith(b"HEAD "))


def read_answer(stream: Any, *, head: bool = False) -> RawAnswer:
    status = int(stream.readline().split()[1])
    headers: list[tuple[str, str]] = []
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    found = {name.lower(): value for name, value in headers}
    if head or status in (204, 304):
        return RawAnswer(status, headers, b"")
    if found.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return RawAnswer(status, headers, body)
    return RawAnswer(status, headers, stream.read(int(found["content-length"])) if "content-length" in found else stream.read())


@contextmanager
def running(command: list[str], **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process of ours that ends with the block: SIGTERM, then SIGKILL."""
    process = subprocess.Popen(command, text=True, **more)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream is not None:
                stream.close()
