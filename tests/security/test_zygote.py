"""Hostile packages: code that runs while a zygote imports it, before there is an instance."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.security.apps.hostile.wheels import APP, PACKAGES, write_wheel
from tests.security.stage import Result, Stage, until


def _deployed(stage: Stage, folder: Path, package: str) -> Result:
    """An app that imports the package: deployed (a second time if the first one met the attack), then asked what was found."""
    write_wheel(stage.wheels, package)
    home = folder / package
    home.mkdir()
    (home / "app.py").write_text(APP.format(package=package))
    (home / "requirements.txt").write_text(f"{package}==1.0\n")
    for _ in range(3):
        done = stage.martlet("deploy", str(home), "--app", package)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return until(lambda: (found := stage.invoke(f"{package}-look", {})) and not found.error and found, 20)


@pytest.fixture(scope="module")
def hostile(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each package found. All are deployed at the same time, while the victim is asked again and again."""
    stage.settle()
    supervisor, folder = stage.supervisor, tmp_path_factory.mktemp("hostile")
    latencies: list[float] = []
    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        running: dict[str, Future[Result]] = {name: pool.submit(_deployed, stage, folder, name) for name in PACKAGES}
        while not all(future.done() for future in running.values()):
            latencies += stage.victim_latency(1)
            time.sleep(0.05)
        found: dict[str, Any] = {name: future.result() for name, future in running.items()}
    for name in PACKAGES:
        assert stage.martlet("destroy", name, "--yes").returncode == 0
    return {**found, "latencies": latencies, "supervisor": supervisor}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_app_is_served_all_the_same(attacked: Stage, hostile: dict[str, Any], package: str) -> None:
    """A package that does harm while it is imported ahead is imported in the instance instead."""
    result = hostile[package]
    assert result, "never served"
    assert not result.error, result.whole
    assert result.payload["zygote"] == (package == "explorer") or package == "bombing"


def test_others_never_noticed(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert attacked.supervisor == hostile["supervisor"], "the supervisor did not survive"
    assert attacked.status()["sandbox"]["supervisor_restarts"] == 0
    assert sorted(hostile["latencies"])[len(hostile["latencies"]) // 2] < 0.5


def _explored(hostile: dict[str, Any], what: str) -> Any:
    return hostile["explorer"].payload[what]


def test_a_zygote_sees_no_host_files(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert set(_explored(hostile, "files").values()) <= {"ENOENT", "EACCES"}
    for secret in ("platform-environment-secret", "victim-env-secret", attacked.platform.token, str(attacked.data)):
        assert secret not in _explored(hostile, "environ")


def test_a_zygote_writes_nothing(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert set(_explored(hostile, "writes").values()) <= {"EROFS", "EACCES", "EPERM"}


def test_a_zygote_makes_no_mount_writable(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert set(_explored(hostile, "remount").values()) == {"EPERM"}


def test_a_zygote_makes_no_system_call_but_its_own(attacked: Stage, hostile: dict[str, Any]) -> None:
    allowed = {"EPERM", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT"}
    assert {name: outcome for name, outcome in _explored(hostile, "calls").items() if outcome not in allowed} == {}


def test_a_zygote_sees_only_its_own_tree(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert len(_explored(hostile, "pids")) <= 2  # its init and itself


def test_a_zygotes_root_is_nobody_outside(attacked: Stage, hostile: dict[str, Any]) -> None:
    inside, outside, count = map(int, _explored(hostile, "uid_map"))
    assert (inside, count) == (0, 65_536)
    assert outside >= 0x2000_0000
    assert _explored(hostile, "uids") == "EINVAL"
    for capabilities in _explored(hostile, "capabilities"):
        assert int(capabilities, 16) & ~sum(1 << number for number in (6, 7, 8, 12, 21)) == 0


def test_a_zygote_reaches_no_network_and_cannot_outlive_the_host(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert _explored(hostile, "network") in ("ENETUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL")
    assert _explored(hostile, "oom") in ("EACCES", "EPERM")


def test_a_zygotes_bomb_is_bounded(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert hostile["bombing"].payload.get("made", 0) < 512


def test_every_zygote_has_limits(attacked: Stage) -> None:
    groups = [group for group in attacked.groups() if group.name.startswith("z") and (group / "pids.max").exists()]
    assert groups
    assert all((group / "pids.max").read_text().strip() != "max" for group in groups)


def test_what_a_package_prints_does_not_reach_the_terminal(attacked: Stage, hostile: dict[str, Any]) -> None:
    assert "printed-by-a-hostile-package" not in attacked.platform.printed()


def test_bare_zygotes_of_others_are_untouched(attacked: Stage, hostile: dict[str, Any]) -> None:
    found = attacked.attack("files.entries", paths=["/opt", "/var"])
    assert found["/opt"] in ({"got": []}, {"got": ["python"]})
    assert sorted(found["/var"]["got"]) == ["lang", "martlet", "runtime", "task"]
