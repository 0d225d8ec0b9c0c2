"""What this host allows: the capability ladder, probed at start and published in `martlet status`.

4  root, control groups v2         everything
3  root, control groups v1         everything
2  user namespaces, no root        namespaces, Landlock, seccomp; one uid; no hard limit of memory, CPU and processes
0  none of it                      other people's code is refused (`--sandbox process` runs your own, without isolation)
"""

from __future__ import annotations

import os
import platform

from . import cgroups, landlock, linux


class Report:
    def __init__(self) -> None:
        self.level = 0
        self.features: list[str] = []
        self.missing: list[str] = []
        self.tree: cgroups.Tree | None = None
        self.uid_range = False
        self.enter_user_namespace = False


def probe(name: str) -> Report:
    """Try each feature where it can be tried without harm; in a throw-away child where it cannot."""
    report = Report()
    if platform.machine() != "x86_64":
        report.missing.append(f"machine {platform.machine()}: the system-call filter is written for x86_64 only")
        return report
    root = os.geteuid() == 0
    for feature, flags in (
        ("user namespaces", linux.CLONE_NEWUSER),
        ("mount, pid, net, ipc and uts namespaces", _all_namespaces(root)),
    ):
        error = _in_child(flags)
        (report.missing if error else report.features).append(f"{feature}: {error}" if error else feature)
    version = landlock.abi()
    if version:
        report.features.append(f"Landlock ABI {version}")
    else:
        report.missing.append("Landlock: the kernel has none, or it is not in the `lsm=` list")
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        report.missing.append("seccomp: the kernel has none")
        return report
    report.features.append("seccomp filter")
    if any("namespaces" in text for text in report.missing):
        return report
    if not root:
        report.level, report.enter_user_namespace = 2, True
        report.missing.append("control groups: need root, or a delegated subtree")
        return report
    report.uid_range = True
    report.features.append("a uid of its own for each instance")
    report.tree = cgroups.Tree.find(name)
    if report.tree is None:
        report.missing.append("control groups: memory, cpu and pids controllers are not available")
        report.level = 2
        return report
    report.level = 4 if report.tree.version == 2 else 3
    report.features.append(f"control groups v{report.tree.version}")
    return report


def enter_user_namespace() -> None:
    """Without root: become root of a user namespace of our own, so that mounts can be prepared."""
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    for path, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{path}", "w", encoding="utf-8") as file:
            file.write(text)


def _all_namespaces(root: bool) -> int:
    wanted = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    return wanted if root else wanted | linux.CLONE_NEWUSER


def _in_child(flags: int) -> str:
    """ "" when a child could unshare `flags`, else why not."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            linux.unshare(flags)
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 4_096).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return text
