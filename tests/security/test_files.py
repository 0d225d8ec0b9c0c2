"""Files: the host's, the platform's, the neighbours', and those that one's own sandbox is made of."""

from __future__ import annotations

import os
from pathlib import Path

from tests.security.stage import APPS, Stage


def test_host_files_are_not_there(attacked: Stage) -> None:
    data = attacked.data
    (attacked.folder / "host-secret").write_text("secret of the host")
    paths = ["/etc/shadow", "/root/.bashrc", "/root/.ssh/id_rsa", "/etc/ssh/ssh_host_rsa_key", f"{data}/credentials.json"]
    paths += [
        f"{data}/endpoint.json",
        f"{data}/store/data.sqlite",
        str(attacked.folder / "host-secret"),
        "/work/main/README.md",
    ]
    found = attacked.attack("files.read", paths=paths)
    assert set(found.values()) <= {"ENOENT", "EACCES"}


def test_host_folders_are_not_there(attacked: Stage) -> None:
    folders = ["/home", "/work", "/srv", "/mnt", "/sys", "/run", "/boot", "/sys/fs/cgroup", str(attacked.data), "/var/log"]
    assert set(attacked.attack("files.entries", paths=folders).values()) == {"ENOENT"}
    assert attacked.attack("files.entries", paths=["/root"]) in ({"/root": {"got": []}}, {"/root": "EACCES"})


def test_the_roots_of_others_are_ones_own(attacked: Stage) -> None:
    found = attacked.attack("files.walk_up")
    expected = {"bin", "dev", "etc", "lib", "lib64", "opt", "proc", "root", "rw", "sbin", "tmp", "usr", "var"}
    for start, outcome in found.items():
        assert set(outcome["got"]) <= expected | {"lib32"}, start


def test_no_link_leads_out(attacked: Stage) -> None:
    found = attacked.attack("files.links_out")
    assert {name: outcome for name, outcome in found.items() if isinstance(outcome, dict)} == {}
    assert found["shadow"] == "ENOENT"
    assert found["hard"] in ("EXDEV", "EROFS", "EACCES", "EPERM")


def test_what_the_sandbox_is_made_of_cannot_be_written(attacked: Stage) -> None:
    digest = (Path(os.path.realpath("/usr/bin/env"))).read_bytes()
    found = attacked.attack("files.overwrite_runtime")
    assert set(found.values()) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}
    assert found["/var/task/app.py"] in ("EROFS", "EACCES")
    assert Path(os.path.realpath("/usr/bin/env")).read_bytes() == digest


def test_ones_own_code_cannot_be_changed(attacked: Stage) -> None:
    stored = {path: path.read_bytes() for path in (attacked.data / "code").rglob("*.py")}
    assert (APPS / "attacker" / "app.py").read_bytes() in stored.values()
    found = attacked.attack("files.change", paths=["/var/task/app.py", "/var/martlet/inside/runtime.py"])
    outcomes = {outcome for results in found.values() for outcome in results.values()}
    assert outcomes <= {"EROFS", "EACCES", "EPERM", "EXDEV"}
    assert {path: path.read_bytes() for path in stored} == stored


def test_nothing_is_writable_but_tmp(attacked: Stage) -> None:
    found = attacked.attack("files.writable")
    assert {path for path in found if not path.startswith("/rw/tmp")} == set()
    made = attacked.attack(
        "files.make_in", folders=["/", "/var", "/var/task", "/opt", "/etc", "/usr", "/rw", "/dev", "/proc", "/root"]
    )
    assert {path: outcome for path, outcome in made.items() if isinstance(outcome, dict)} == {}


def test_neighbours_secrets_are_nowhere(attacked: Stage) -> None:
    attacked.victim_is_well()
    needles = ["victim-code-secret-" + "5f2c", "victim-env-secret-" + "77ab", "platform-environment-" + "secret-9d31"]
    assert attacked.attack("files.search", needles=needles) == []


def test_neighbours_tmp_is_not_ones_own(attacked: Stage) -> None:
    attacked.victim_is_well()
    assert attacked.attack("files.entries", paths=["/tmp", "/rw"])["/rw"] == {"got": ["tmp"]}
    assert attacked.attack("files.read", paths=["/tmp/victim-file"]) == {"/tmp/victim-file": "ENOENT"}


def test_other_processes_memory_is_not_there(attacked: Stage) -> None:
    found = attacked.attack("files.other_memory", "trusted")
    assert found["others"] == []
    assert found["parent"] == 0
    assert "shadow" not in str(found["root_etc"])
    for number in (2, attacked.supervisor, attacked.platform.pid):
        assert set(attacked.attack("files.memory_of", "trusted", pid=number).values()) == {"ENOENT"}


def test_every_mount_is_read_only_or_harmless(attacked: Stage) -> None:
    for point, options in attacked.attack("files.mount_table"):
        flags = options.split(",")
        assert "ro" in flags or point in ("/proc", "/rw/tmp") or point.startswith("/dev/"), point
        assert "nosuid" in flags, point
        assert "nodev" in flags or point.startswith("/dev/"), point


def test_descriptors_lead_only_to_ones_own_pipes(attacked: Stage) -> None:
    found = attacked.attack("files.descriptors")
    assert set(found) <= {"0", "1", "2", "3", "4", "5"}  # 5: the folder that is being listed
    assert found["0"] == "/dev/null"
    assert all(found[number].startswith("pipe:") for number in ("1", "2", "3", "4"))
