"""Bombs, survivors and signals: what a sandbox's processes do stays in the sandbox and ends with it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.security.stage import Stage, until


def test_fork_bomb_is_bounded_and_its_children_go(attacked: Stage) -> None:
    found = attacked.attack("processes.fork_bomb", "roomy")
    assert 20 < found["made"] < 128
    assert found["ended"] == "BlockingIOError"


def test_fork_bomb_that_spins_is_timed_out(attacked: Stage) -> None:
    with ThreadPoolExecutor(1) as pool:
        bomb = pool.submit(attacked.try_attack, "processes.fork_bomb_that_ends", "hurried")
        time.sleep(0.3)
        attacked.victim_is_well()
        result = bomb.result()
    assert result.error_type == "Sandbox.Timedout"


def test_thread_bomb_is_bounded(attacked: Stage) -> None:
    assert attacked.attack("processes.thread_bomb")["made"] < 128


def test_descriptor_bomb_is_bounded_and_costs_the_platform_none(attacked: Stage) -> None:
    before = attacked.descriptors()
    found = attacked.attack("processes.descriptor_bomb")
    assert found["made"] < 1024
    assert attacked.descriptors() < before + 50


def test_pipe_buffers_are_bounded(attacked: Stage) -> None:
    assert attacked.attack("processes.pipe_hoarder")["filled"] < 128 << 20


def test_zombies_are_bounded(attacked: Stage) -> None:
    assert attacked.attack("processes.zombies", "hurried") < 128


@pytest.mark.parametrize("attack", ["spin", "spin_in_c", "ignore_and_spin"])
def test_endless_computation_is_timed_out(attacked: Stage, attack: str) -> None:
    before = time.monotonic()
    result = attacked.try_attack(f"processes.{attack}", "hurried")
    assert result.error_type == "Sandbox.Timedout"
    assert "timed out after 1.00 seconds" in result.payload["errorMessage"]
    assert time.monotonic() - before < 4


def test_daemons_die_with_the_timeout(attacked: Stage) -> None:
    mark = "daemon-of-the-hurried"
    with ThreadPoolExecutor(1) as pool:
        attack = pool.submit(attacked.try_attack, "processes.daemons", "hurried", mark=mark)
        seen = until(lambda: len(attacked.running(mark)) >= 3 and attacked.running(mark))
        result = attack.result()
    assert len(seen) >= 3, "the attack did not run"
    assert result.error_type == "Sandbox.Timedout"
    assert until(lambda: not attacked.running(mark)), "a daemon outlived its sandbox"


def test_daemons_left_behind_go_with_their_instance(attacked: Stage) -> None:
    mark = "daemon-left-behind"
    assert attacked.attack("processes.daemons", "hurried", mark=mark, answer=True) == "left behind"
    assert attacked.running(mark)
    assert attacked.try_attack("processes.end_by", "hurried", how="exit").error_type == "Runtime.ExitError"
    assert until(lambda: not attacked.running(mark))


@pytest.mark.parametrize("pid", [0, -1, 1])
def test_kill_from_the_runtime_reaches_nobody(attacked: Stage, pid: int) -> None:
    """To pid 1 of a pid namespace its own SIGKILL does nothing, and there is nobody else in it."""
    supervisor, before = attacked.supervisor, attacked.status()["sandbox"]["zygotes"]
    attacked.try_attack("processes.kill", pid=pid)
    assert attacked.supervisor == supervisor
    assert attacked.status()["sandbox"]["zygotes"] == before


@pytest.mark.parametrize("pid", [0, -1, 1, 2, 3])
def test_kill_from_a_child_reaches_no_parent(attacked: Stage, pid: int) -> None:
    found = attacked.try_attack("processes.kill_from_child", pid=pid)
    assert found.payload
    assert found.payload.get("alive", True)
    assert attacked.status()["sandbox"]["supervisor_restarts"] == 0


def test_pids_of_the_host_mean_nothing_inside(attacked: Stage) -> None:
    ours = attacked.platform.pid
    assert attacked.attack("processes.kill", pid=ours)["outcome"] == "ESRCH"
    assert attacked.attack("processes.kill", pid=attacked.supervisor)["outcome"] == "ESRCH"
    assert attacked.attack("processes.reach_by_number", first=2, last=40_000) == []


def test_stopping_oneself_does_not_wedge_the_instance(attacked: Stage) -> None:
    assert attacked.attack("processes.stop_self") == "still running"
    assert attacked.attack("processes.stop_all_from_child") == "still running: ESRCH"


def test_proc_shows_nobody_else(attacked: Stage) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: attacked.attack("processes.seen", "sibling"), range(2)))
    for found in both:
        assert list(found) == ["1"]
        assert "--data" not in found["1"]


def test_limits_cannot_be_raised(attacked: Stage) -> None:
    found = attacked.attack("processes.raise_limits")
    assert found["RLIMIT_NOFILE"] in ("EPERM", "ValueError")
    assert {found["RLIMIT_CORE"], found["RLIMIT_MEMLOCK"], found["RLIMIT_RTPRIO"]} <= {"EPERM", "ValueError"}
    assert found["nice"] in ("EPERM", "EACCES")
    assert found["realtime"] == "EPERM"


@pytest.mark.parametrize(
    ("how", "message"),
    [("segfault", "segmentation fault"), ("abort", "signal: "), ("exit", "exit status 3"), ("system_exit", "exit status 4")],
)
def test_the_end_of_the_runtime_is_told_and_survived(attacked: Stage, how: str, message: str) -> None:
    result = attacked.try_attack("processes.end_by", how=how)
    assert result.error_type == "Runtime.ExitError", result.whole
    assert message in result.payload["errorMessage"]


def test_a_program_gets_no_more_than_its_parent(attacked: Stage) -> None:
    uid, capabilities = attacked.attack("processes.run_program")
    assert int(uid) >= 1000
    assert int(capabilities, 16) == 0


def test_a_timeout_leaves_no_process_on_the_host(attacked: Stage) -> None:
    attacked.settle()
    supervisor = attacked.supervisor
    before = len(attacked.below(supervisor))
    assert attacked.try_attack("processes.fork_bomb_that_ends", "hurried").error_type == "Sandbox.Timedout"
    assert until(lambda: len(attacked.below(supervisor)) <= before + 1), attacked.below(supervisor)
