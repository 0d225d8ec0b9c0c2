"""What every test may use, and one check on the whole run: nothing is left of what it started."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import hypothesis
import pytest
from tests.postgres_server import PostgresServer, Schemas, new_folder, remove
from tests.running_platform import RunningPlatform

# One run of a commit finds what the next one finds. To look for more: MARTLET_TEST_EXPLORE=1 pytest …, again and again.
hypothesis.settings.register_profile("steady", derandomize=not os.environ.get("MARTLET_TEST_EXPLORE"))
hypothesis.settings.load_profile("steady")

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SETTLE_SECONDS = 5.0
_PYTHONS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")  # end with this process by themselves


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the run: no process that it started, no control group of ours, no mount. Names what it finds; kills processes.

    Orphans come back to this process (child subreaper), so a grandchild that outlives its parent is seen as well.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    marks = ("martlet", str(tmp_path_factory.getbasetemp()))
    cgroups, mounts = _cgroups(), _mounts(marks)
    yield
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        processes = _descendants()
        left = [
            *(f"process {pid}: {command}" for pid, command in processes.items()),
            *(f"control group {path}" for path in sorted(_cgroups() - cgroups) if not _is_someone_elses(path, processes)),
            *(f"mount {path}" for path in sorted(_mounts(marks) - mounts)),
        ]
        if not left:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    pytest.fail("the run left behind: " + "; ".join(left), pytrace=False)


def _descendants() -> dict[int, str]:
    """Living processes below this one, by pid. Ended ones that nobody waits for any more are buried on the way."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
            elif int(parent) == os.getpid():
                os.waitid(os.P_PID, int(entry.name), os.WEXITED | os.WNOHANG)
    found: dict[int, str] = {}
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if not any(own in command for own in _PYTHONS_OWN):
                found[pid] = command
                waiting.append(pid)
    return found


def _cgroups() -> set[str]:
    """Control groups of ours, in every hierarchy: directories named martlet-…, at the first three levels."""
    root = Path("/sys/fs/cgroup")
    patterns = ("martlet-*", "*/martlet-*", "*/*/martlet-*")
    return {str(path) for pattern in patterns for path in root.glob(pattern) if path.is_dir()}


def _is_someone_elses(path: str, ours: Collection[int]) -> bool:
    """Another platform on this machine: a process lives in the group, or below it, that this run did not start."""
    members = "\n".join(file.read_text() for file in Path(path).rglob("cgroup.procs"))
    return any(int(pid) not in ours for pid in members.split())


def _mounts(marks: tuple[str, ...]) -> set[str]:
    """Mount points of ours in this mount namespace: named after Martlet, or below this run's temporary folder."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {point for point in points if any(mark in point for mark in marks)}


@pytest.fixture(scope="session")
def postgres_server(nothing_is_left: None) -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run, started for the first test that asks."""
    folder = new_folder()
    server = PostgresServer(folder / "data")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        remove(folder)


@pytest.fixture
def schemas(postgres_server: PostgresServer) -> Schemas:
    """A function that gives the address of a store that is not there yet."""
    return lambda: postgres_server.url(schema=f"t{secrets.token_hex(6)}")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Callable[..., RunningPlatform]]:
    """A function that starts `martlet up PATH` on free loopback ports with a data folder of its own.

    `platform(path, *arguments, data=..., environ=...)`. Pass `data` to start on what an earlier platform left. At the end of
    the test each one still running gets SIGTERM and must end with exit code 0.
    """
    started: list[RunningPlatform] = []

    def start(
        path: Path | str | None, *arguments: str, data: Path | None = None, environ: dict[str, str] | None = None
    ) -> RunningPlatform:
        folder = data or tmp_path / f"data-{len(started)}"
        started.append(RunningPlatform(path, folder, *arguments, environ=environ))
        return started[-1]

    yield start
    running = [found for found in started if found.process.poll() is None]
    codes = [(found.stop(), found.printed()) for found in running]
    assert all(code == 0 for code, _ in codes), "\n".join(f"exit code {code}:\n{printed}" for code, printed in codes if code)
