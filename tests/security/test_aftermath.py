"""After all attacks: what is left of them on the host and in the platform. Runs last."""

from __future__ import annotations

import os
from pathlib import Path

from tests.security.stage import Stage, until


def _expected(stage: Stage) -> tuple[int, int]:
    """(processes, control groups) of an idle platform: for each zygote its init and itself, and the parked stem cells."""
    below = stage.below(stage.supervisor)
    inits = [pid for pid, parent in below.items() if parent == stage.supervisor]
    return len(below), len(inits)


def test_no_process_is_left(attacked: Stage) -> None:
    left = attacked.settle(20)
    assert left["instances"] == 0, [row for row in left["functions"] if row["instances"]]
    supervisor = attacked.supervisor
    assert set(attacked.below(attacked.platform.pid)) == {supervisor, *attacked.below(supervisor)}
    count, zygotes = _expected(attacked)
    assert until(lambda: _expected(attacked)[0] <= zygotes * 6), (count, zygotes)  # init, zygote, at most 4 stem cells


def test_no_control_group_is_left(attacked: Stage) -> None:
    attacked.settle(20)

    def surplus() -> bool:
        stems = sum(1 for group in attacked.groups() if group.name.startswith("i") and (group / "pids.max").exists())
        count, zygotes = _expected(attacked)
        return stems > count - 2 * zygotes

    assert until(lambda: not surplus())
    assert all((group / "cgroup.procs").read_text() for group in attacked.groups()), "an empty control group is left"


def test_no_namespace_is_left(attacked: Stage) -> None:
    """Each process below the platform has at most a set of its own: none is held open by a descriptor or a mount."""
    attacked.settle(20)
    count, _ = _expected(attacked)
    assert len(attacked.namespaces()) <= 7 * (count + 1)
    links = [os.readlink(path) for path in Path(f"/proc/{attacked.platform.pid}/fd").iterdir()]
    assert [link for link in links if link.startswith(("mnt:", "net:", "pid:", "user:"))] == []


def test_no_descriptor_is_left(attacked: Stage) -> None:
    attacked.settle(20)
    assert until(lambda: attacked.descriptors() < 80), attacked.descriptors()


def test_no_mount_is_left(attacked: Stage) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(attacked.data) not in mounts
    assert Path(f"/proc/{attacked.platform.pid}/mountinfo").read_text().count("\n") == mounts.count("\n")


def test_the_supervisor_never_fell(attacked: Stage) -> None:
    assert attacked.status()["sandbox"]["supervisor_restarts"] == 0


def test_the_platform_reported_no_error_of_its_own(attacked: Stage) -> None:
    """An exception on the event loop is a bug that an attack found, even where it did no harm."""
    printed = attacked.platform.printed()
    assert "Traceback" not in printed, printed[-4000:]
