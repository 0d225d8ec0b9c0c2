"""After all attacks: what is left of them on the host and in the platform. Runs last."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.security.conftest import ENDLESS
from tests.security.stage import Stage, until


def _expected(stage: Stage) -> tuple[int, int]:
    """(processes, control groups) of an idle platform: for each zygote its init and itself, and the parked stem cells."""
    below = stage.below(stage.supervisor)
    inits = [pid for pid, parent in below.items() if parent == stage.supervisor]
    return len(below), len(inits)


@pytest.fixture(scope="module")
def after(stage: Stage, endless_build: Future[CompletedProcess[str]]) -> Stage:
    """The stage once every instance has gone."""
    endless_build.result()
    left = stage.settle(20)
    assert left["instances"] == 0, [row for row in left["functions"] if row["instances"]]
    return stage


def test_the_endless_build_was_given_up(after: Stage, endless_build: Future[CompletedProcess[str]]) -> None:
    done = endless_build.result()
    assert done.returncode == 4, done.stderr
    assert "longer than" in done.stderr
    assert until(lambda: not after.running(ENDLESS))


def test_no_process_is_left(after: Stage) -> None:
    supervisor = after.supervisor
    assert set(after.below(after.platform.pid)) == {supervisor, *after.below(supervisor)}
    count, zygotes = _expected(after)
    assert until(lambda: _expected(after)[0] <= zygotes * 6), (count, zygotes)  # init, zygote, at most 4 stem cells


def test_no_control_group_is_left(after: Stage) -> None:

    def surplus() -> bool:
        stems = sum(1 for group in after.groups() if group.name.startswith("i") and (group / "pids.max").exists())
        count, zygotes = _expected(after)
        return stems > count - 2 * zygotes

    assert until(lambda: not surplus())
    assert all((group / "cgroup.procs").read_text() for group in after.groups()), "an empty control group is left"


def test_no_namespace_is_left(after: Stage) -> None:
    """Each process below the platform has at most a set of its own: none is held open by a descriptor or a mount."""
    count, _ = _expected(after)
    assert len(after.namespaces()) <= 7 * (count + 1)
    links = [os.readlink(path) for path in Path(f"/proc/{after.platform.pid}/fd").iterdir()]
    assert [link for link in links if link.startswith(("mnt:", "net:", "pid:", "user:"))] == []


def test_no_descriptor_is_left(after: Stage) -> None:
    assert until(lambda: after.descriptors() < 80), after.descriptors()


def test_no_mount_is_left(after: Stage) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(after.data) not in mounts
    assert Path(f"/proc/{after.platform.pid}/mountinfo").read_text().count("\n") == mounts.count("\n")


def test_the_supervisor_never_fell(after: Stage) -> None:
    assert after.status()["sandbox"]["supervisor_restarts"] == 0


def test_the_platform_reported_no_error_of_its_own(after: Stage) -> None:
    """An exception on the event loop is a bug that an attack found, even where it did no harm."""
    printed = after.platform.printed()
    assert "Traceback" not in printed, printed[-4000:]


def test_all_is_well(after: Stage) -> None:
    after.victim_is_well()
    after.attacker_answers()
