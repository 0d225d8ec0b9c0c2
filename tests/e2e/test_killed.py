"""kill -9 of any of our processes: what ran fails by name, the next request is served, nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS, Api, RunningPlatform, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def platform(start: Start) -> RunningPlatform:
    return start(APPS / "everything", "--no-watch")


@pytest.fixture(autouse=True)
def serves_afterwards(platform: RunningPlatform) -> Iterator[None]:
    yield
    assert Api(platform).invoke("all-echo", {"after": True})["payload"] == {"after": True}
    assert httpx.get(f"{platform.app_url}/typed/1", timeout=30).json()["number"] == 1


def below(pid: int) -> dict[int, str]:
    """Every living process below `pid`, with its command line."""
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                try:
                    found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                except FileNotFoundError:
                    continue
                waiting.append(child)
    return found


def named(platform: RunningPlatform, role: str) -> list[int]:
    """Processes of ours: supervisor, zygote (instances too), and init, a zygote's pid 1, which waits in a bare interpreter."""
    found = "posix.wait" if role == "init" else f"launch.py {role}"
    return [pid for pid, command in below(platform.pid).items() if found in command]


def waiting_at(api: Api, gate: str) -> bool:
    answer = api.request("GET", f"/v1/documents/gates/{gate}?app=all")
    return answer.status_code == 200 and answer.json() == "waiting"


@pytest.mark.parametrize("role", ["supervisor", "init", "zygote"])
def test_a_process_of_the_sandboxes_is_killed(platform: RunningPlatform, role: str) -> None:
    api = Api(platform)
    gate = f"killed-{role}"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(api.invoke, "all-gated", {"gate": gate})
        eventually(lambda: waiting_at(api, gate))
        for pid in named(platform, role):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it went with the one before
        found = running.result()
    assert found["error"] == "Unhandled"
    assert found["error_type"] in ("Runtime.ExitError", "Sandbox.Failure"), found
    assert found["payload"]["errorMessage"].startswith(f"RequestId: {found['request_id']} Error: ")
    eventually(lambda: api.status_of("all-gated")["busy"] == 0)


def test_events_that_wait_survive_the_supervisor(platform: RunningPlatform) -> None:
    """Requests that come while there are no sandboxes wait for new ones; at most the running ones fail."""
    api = Api(platform)
    restarts = api.get("/v1/status")["sandbox"]["supervisor_restarts"]
    (supervisor,) = named(platform, "supervisor")
    os.kill(supervisor, signal.SIGKILL)
    answers = [httpx.get(f"{platform.app_url}/typed/{number}", timeout=30) for number in range(20)]
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) >= 19, [answer.text for answer in answers if answer.status_code != 200]
    assert api.get("/v1/status")["sandbox"]["supervisor_restarts"] == restarts + 1


def test_nothing_is_left_of_a_platform_that_was_killed(start: Start) -> None:
    first = start(APPS / "everything", "--no-watch")
    api = Api(first)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(api.request, "POST", "/v1/functions/all-gated/invocations", json={"gate": "left"})
        eventually(lambda: waiting_at(api, "left"))
        ours = below(first.pid)
        assert any("supervisor" in command for command in ours.values())
        first.kill()
        with pytest.raises(httpx.HTTPError):
            running.result()
    eventually(lambda: not [pid for pid in ours if alive(pid)])
    second = start(None, data=first.data)
    assert Api(second).invoke("all-echo", 1)["payload"] == 1
    assert second.stop() == 0
    assert not groups_of(first) - groups_of(second), "the next start clears the control groups"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def groups_of(platform: RunningPlatform) -> set[str]:
    """Control groups named after the platform's data folder."""
    import hashlib

    name = "d" + hashlib.sha256(str(platform.data.resolve()).encode()).hexdigest()[:12]
    return {str(path) for pattern in (f"*{name}*", f"*/*{name}*") for path in Path("/sys/fs/cgroup").glob(pattern)}
