"""The stage of the attacks: one platform with an attacker and a victim on it, seen from outside and from the host.

Everything is asked over HTTP, as clients do; what an attack did to the host is read from /proc and the control groups.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tests.running_platform import RunningPlatform

__all__ = ["APPS", "Result", "Stage", "until"]

APPS = Path(__file__).parent / "apps"
_ENTRY = "import sys; from martlet.cli import main; sys.exit(main())"
_HIERARCHIES = ("memory", "cpu", "cpuacct", "pids", ".")


class Result(NamedTuple):
    """What an invocation came to. `status` is the API's; `error` is "" or "Unhandled"."""

    status: int
    payload: Any
    error: str
    error_type: str
    log: str
    whole: dict[str, Any]


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of `condition`; asked again for at most `seconds`. Its last value otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


class Stage:
    """A platform with the victim on it. `folder` is its own; `wheels` is where its layers come from."""

    def __init__(self, folder: Path, *, data: Path | None = None, **settings: str) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.wheels = folder / "wheels"
        self.wheels.mkdir(parents=True, exist_ok=True)
        environ = {
            "UV_FIND_LINKS": str(self.wheels),
            "UV_NO_INDEX": "1",
            "UV_CACHE_DIR": str(folder / "uv"),
            "PLATFORM_SECRET": "platform-environment-secret-9d31",
            **settings,
        }
        self.platform = RunningPlatform(APPS / "victim", self.data, "--no-watch", environ=environ)
        self.api = httpx.Client(
            base_url=self.platform.api_url,
            headers={"authorization": f"Bearer {self.platform.token}"},
            timeout=40,
            trust_env=False,
        )
        self.edge = httpx.Client(base_url=self.platform.app_url, timeout=40, trust_env=False)

    def close(self) -> int:
        """End it; the exit code."""
        self.api.close()
        self.edge.close()
        return self.platform.stop()

    def kill(self) -> None:
        """SIGKILL to the platform's own process."""
        self.platform.kill()
        self.api.close()
        self.edge.close()

    # --- clients

    def martlet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the command line, against this platform."""
        command = [sys.executable, "-c", _ENTRY, *arguments, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def deploy(self, path: Path, app: str) -> subprocess.CompletedProcess[str]:
        """`martlet deploy`; must succeed."""
        done = self.martlet("deploy", str(path), "--app", app)
        assert done.returncode == 0, done.stderr
        return done

    def upload(self, app: str, data: bytes) -> tuple[int, str]:
        """A deployment by raw bytes: (status, the answer's text)."""
        answer = self.api.post(f"/v1/apps/{app}/deployments", content=data)
        return answer.status_code, answer.text

    def invoke(self, function: str, event: Any) -> Result:
        """One invocation by the management API."""
        answer = self.api.post(f"/v1/functions/{function}/invocations", params={"log": "true"}, json=event)
        body = answer.json()
        return Result(
            answer.status_code,
            body.get("payload"),
            body.get("error", ""),
            body.get("error_type", ""),
            body.get("log", ""),
            body,
        )

    def attack(self, attack: str, function: str = "small", **arguments: Any) -> Any:
        """Run an attack that is to return; what it returned."""
        result = self.try_attack(attack, function, **arguments)
        assert not result.error, (result.payload, result.log)
        assert result.status == 200, result.whole
        return result.payload

    def try_attack(self, attack: str, function: str = "small", **arguments: Any) -> Result:
        """Run an attack that may not return."""
        return self.invoke(f"attacker-{function}", {"attack": attack, "with": arguments})

    # --- what must go on

    def victim_is_well(self, number: int = 21) -> None:
        """The victim answers over HTTP, with its own data."""
        answer = self.edge.get(f"/check/{number}", headers={"host": "victim.localhost"})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"double": 2 * number, "balance": 1000, "secret": 22}

    def attacker_answers(self, function: str = "small") -> None:
        """The attacker's function works again, as any customer's would.

        Not at once where it harmed itself: an instance that answered before its handler returned is given the next event,
        which dies with it when it answers a second time.
        """
        assert until(lambda: self.try_attack("siblings.alive", function).payload == "alive", 15)

    def victim_latency(self, times: int) -> list[float]:
        """Seconds of `times` requests to the victim, one after the other."""
        found = []
        for number in range(times):
            before = time.monotonic()
            self.victim_is_well(number)
            found.append(time.monotonic() - before)
        return found

    # --- the host's view

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get("/v1/status").json()
        return found

    @property
    def supervisor(self) -> int:
        return int(self.status()["sandbox"]["supervisor_pid"])

    def below(self, pid: int) -> dict[int, int]:
        """Living processes below `pid`: pid → parent."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if fields[0] != "Z":
                    parents[int(entry)] = int(fields[1])
        found: dict[int, int] = {}
        waiting = [pid]
        while waiting:
            parent = waiting.pop()
            for child, its_parent in parents.items():
                if its_parent == parent:
                    found[child] = parent
                    waiting.append(child)
        return found

    def living(self, pids: set[int]) -> set[int]:
        """Those of `pids` that still run (ended ones may wait to be buried by this process, a subreaper)."""
        found = set()
        for pid in pids:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found.add(pid)
        return found

    def running(self, mark: str) -> list[int]:
        """Host pids whose command line holds `mark`."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    if mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                        found.append(int(entry))
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return found

    def groups(self) -> list[Path]:
        """Control groups of this platform's instances."""
        name = "martlet-d" + hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:12]
        root = Path("/sys/fs/cgroup")
        return sorted(path for kind in _HIERARCHIES for path in (root / kind / name).glob("*") if path.is_dir())

    def namespaces(self) -> set[str]:
        """Every namespace that a process below the platform is in."""
        found = set()
        for pid in self.below(self.platform.pid):
            for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup"):
                try:
                    found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return found

    def descriptors(self) -> int:
        """Open descriptors of the platform's own process."""
        return len(os.listdir(f"/proc/{self.platform.pid}/fd"))

    def resident_mb(self) -> int:
        """Memory of the platform's own process."""
        fields = Path(f"/proc/{self.platform.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

    def settle(self, seconds: float = 10) -> dict[str, Any]:
        """Wait until no instance runs any more (they are kept for a short time only); the status then."""
        until(lambda: self.status()["instances"] == 0, seconds)
        return self.status()
