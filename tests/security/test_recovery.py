"""SIGKILL to each part of the platform: it serves again by itself, or after a start on the same data, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.security.stage import Stage, until


def _zygotes(stage: Stage) -> dict[int, list[int]]:
    """Init of each zygote → the zygote processes below it."""
    below = stage.below(stage.supervisor)
    inits = [pid for pid, parent in below.items() if parent == stage.supervisor]
    return {init: [pid for pid, parent in below.items() if parent == init] for init in inits}


def _serves(stage: Stage) -> bool:
    """Three times in a row: the first may still be answered by what is about to end, the second may end with it."""
    for _ in range(3):
        answer = stage.edge.get("/check/4", headers={"host": "victim.localhost"})
        if answer.status_code != 200 or answer.json()["double"] != 8:
            return False
    return True


def _kill(stage: Stage, pids: Iterable[int], tree: set[int]) -> None:
    """SIGKILL to `pids`; returns when all of `tree` is gone and the platform has had time to hear of it."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert until(lambda: not stage.living(tree)), "processes outlived what they belong to"
    time.sleep(0.3)


def test_a_killed_instance(attacked: Stage) -> None:
    attacked.victim_is_well()
    zygotes = {pid for pids in _zygotes(attacked).values() for pid in pids}
    instances = {pid for pid, parent in attacked.below(attacked.supervisor).items() if parent in zygotes}
    _kill(attacked, instances, instances)
    assert until(lambda: _serves(attacked))
    assert attacked.status()["sandbox"]["supervisor_restarts"] == 0


def test_a_killed_zygote(attacked: Stage) -> None:
    tree = set(attacked.below(attacked.supervisor))
    _kill(attacked, [pid for pids in _zygotes(attacked).values() for pid in pids], tree)
    assert until(lambda: _serves(attacked))


def test_a_killed_zygotes_init(attacked: Stage) -> None:
    tree = set(attacked.below(attacked.supervisor))
    _kill(attacked, _zygotes(attacked), tree)
    assert until(lambda: _serves(attacked))


def test_a_stopped_zygote(attacked: Stage) -> None:
    """It does not answer, and does not end: it is given up, and another takes its place."""
    supervisor = attacked.supervisor
    for pids in _zygotes(attacked).values():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    assert until(lambda: attacked.try_attack("siblings.alive", "sibling").payload == "alive", 25)
    assert until(lambda: _serves(attacked))
    assert attacked.settle(20)["instances"] == 0, "a stopped zygote kept its dead for itself"
    assert attacked.supervisor == supervisor


def test_a_killed_supervisor(own_folder: Path) -> None:
    stage = Stage(own_folder)
    try:
        stage.invoke("victim-deposit", {"amount": 1000})
        stage.victim_is_well()
        first, before = stage.supervisor, set(stage.below(stage.supervisor))
        for _ in range(3):
            killed = stage.supervisor
            os.kill(killed, signal.SIGKILL)
            assert until(lambda killed=killed: stage.supervisor != killed)
            assert until(lambda: _serves(stage))
            stage.victim_is_well()
        assert stage.supervisor != first
        assert until(lambda: not stage.living(before)), "processes outlived their supervisor"
    finally:
        assert stage.close() == 0, stage.platform.printed()
    assert stage.groups() == []


def test_a_killed_platform(own_folder: Path) -> None:
    stage = Stage(own_folder)
    stage.invoke("victim-deposit", {"amount": 1000})
    stage.victim_is_well()
    tree = set(stage.below(stage.platform.pid))
    stage.kill()
    assert until(lambda: not stage.living(tree)), "processes outlived the platform"
    assert until(lambda: stage.groups() == [])
    again = Stage(own_folder)
    again.victim_is_well()
    assert again.close() == 0


def test_a_killed_platform_with_its_supervisor(own_folder: Path) -> None:
    """Nobody is left to clean up: the kernel ends the processes, the next start removes the control groups."""
    stage = Stage(own_folder)
    stage.invoke("victim-deposit", {"amount": 1000})
    stage.victim_is_well()
    tree, supervisor = set(stage.below(stage.platform.pid)), stage.supervisor
    os.kill(supervisor, signal.SIGSTOP)
    stage.kill()
    os.kill(supervisor, signal.SIGKILL)
    assert until(lambda: not stage.living(tree)), "processes outlived the platform"
    again = Stage(own_folder)
    again.victim_is_well()
    assert len(again.groups()) < 100
    assert again.close() == 0
    assert again.groups() == []
