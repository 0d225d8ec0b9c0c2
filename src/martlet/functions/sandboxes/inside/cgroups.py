"""Control groups on v1, v2 and hybrid hosts: limits of memory, CPU and processes, and what was used.

One folder a platform (`martlet-<id>`) in each hierarchy, one below it an instance. An instance joins by itself, by writing
to the descriptors of `Group.join_files` (on v1 the write may wait for an RCU grace period: 10 ms that the supervisor must not
spend; reference: measured). Names and files: cgroup-v1/memory.txt, cgroup-v2.rst of the kernel's documentation.
"""

from __future__ import annotations

import os
import signal
import time

_V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
_PERIOD_US = 100_000


class Group:
    """The control group of one instance."""

    def __init__(self, folders: dict[str, str], version: int) -> None:
        self._folders = folders
        self._version = version
        for folder in set(folders.values()):
            os.makedirs(folder, exist_ok=True)
        self._oom_before = self.oom_kills()

    def join_files(self) -> list[int]:
        """Descriptors; a process that writes "0" to each is in the group."""
        flags = os.O_WRONLY | os.O_CLOEXEC
        return [os.open(f"{folder}/cgroup.procs", flags) for folder in dict.fromkeys(self._folders.values())]

    def limit(self, *, memory_bytes: int, processes: int, cpu_weight: int, cpu_cores: float) -> None:
        """`cpu_weight` is relative to siblings (1024 is the middle); `cpu_cores` a hard ceiling."""
        quota = max(1_000, int(cpu_cores * _PERIOD_US))
        if self._version == 1:
            # Memory and swap together: no swap beyond the limit. Never below memory alone, on the way there neither.
            self._write("memory", "memory.memsw.limit_in_bytes", -1, optional=True)
            self._write("memory", "memory.limit_in_bytes", memory_bytes)
            self._write("memory", "memory.memsw.limit_in_bytes", memory_bytes, optional=True)
            self._write("pids", "pids.max", processes)
            self._write("cpu", "cpu.shares", max(2, cpu_weight))
            self._write("cpu", "cpu.cfs_quota_us", quota)
            return
        self._write("memory", "memory.max", memory_bytes)
        self._write("memory", "memory.swap.max", 0, optional=True)
        self._write("memory", "memory.oom.group", 1)
        self._write("pids", "pids.max", processes)
        self._write("cpu", "cpu.weight", min(10_000, max(1, cpu_weight * 100 // 1024)))
        self._write("cpu", "cpu.max", f"{quota} {_PERIOD_US}")

    def usage_files(self) -> list[int]:
        """Descriptors to read with pread: CPU time used, then the highest memory use in bytes."""
        if self._version == 1:
            paths = (f"{self._folders['cpuacct']}/cpuacct.usage", f"{self._folders['memory']}/memory.max_usage_in_bytes")
        else:
            paths = (f"{self._folders['cpu']}/cpu.stat", f"{self._folders['memory']}/memory.peak")
        return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]

    def oom_kills(self) -> int:
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        for line in self._read("memory", name).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def was_out_of_memory(self) -> bool:
        return self.oom_kills() > self._oom_before

    def peak_bytes(self) -> int:
        text = self._read("memory", "memory.max_usage_in_bytes" if self._version == 1 else "memory.peak")
        return int(text or 0)

    def processes(self) -> int:
        """How many there are, threads counted."""
        return int(self._read("pids", "pids.current") or 0)

    def remove(self) -> bool:
        """True when all folders are gone; a group may be busy for a moment after its last process died."""
        gone = True
        for folder in set(self._folders.values()):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone

    def _write(self, controller: str, name: str, value: int | str, *, optional: bool = False) -> None:
        try:
            fd = os.open(f"{self._folders[controller]}/{name}", os.O_WRONLY)
        except FileNotFoundError:
            if optional:  # a kernel that does not account for swap
                return
            raise
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def _read(self, controller: str, name: str) -> str:
        try:
            with open(f"{self._folders[controller]}/{name}", encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""


class Tree:
    """The platform's folder in each hierarchy. `find` says what the host has; None: no usable control groups."""

    def __init__(self, roots: dict[str, str], version: int, name: str) -> None:
        self.version = version
        self._bases = {controller: f"{root}/martlet-{name}" for controller, root in roots.items()}

    @classmethod
    def find(cls, name: str, mounts: str = "/proc/self/mounts") -> Tree | None:
        roots: dict[str, str] = {}
        unified = ""
        with open(mounts, encoding="utf-8") as file:
            for line in file:
                _, folder, kind, options = line.split()[:4]
                if kind == "cgroup2":
                    unified = unified or folder
                elif kind == "cgroup":
                    roots.update({name: folder for name in options.split(",") if name in _V1_CONTROLLERS})
        if all(controller in roots for controller in _V1_CONTROLLERS):
            return cls(roots, 1, name)
        if not unified:
            return None
        with open(f"{unified}/cgroup.controllers", encoding="utf-8") as file:
            available = file.read().split()
        if not {"memory", "cpu", "pids"} <= set(available):
            return None
        return cls(dict.fromkeys(("memory", "cpu", "pids"), unified), 2, name)

    def prepare(self) -> None:
        """Make the platform's folders. Raises OSError when the user may not."""
        self.clear()
        for base in set(self._bases.values()):
            os.makedirs(base, exist_ok=True)
        if self.version == 1:
            # All instances together weigh as much as the platform's own process, which feeds them.
            _set(f"{self._bases['cpu']}/cpu.shares", 1024)
            _set(f"{self._bases['memory']}/memory.limit_in_bytes", _memory_of_all())
            _set(f"{self._bases['pids']}/pids.max", _processes_of_all())
            return
        for folder in (os.path.dirname(self._bases["cpu"]), self._bases["cpu"]):
            _set(f"{folder}/cgroup.subtree_control", "+memory +cpu +pids")
        _set(f"{self._bases['memory']}/memory.max", _memory_of_all())
        _set(f"{self._bases['pids']}/pids.max", _processes_of_all())

    def group(self, name: str) -> Group:
        return Group({controller: f"{base}/{name}" for controller, base in self._bases.items()}, self.version)

    def clear(self) -> None:
        """End what an earlier supervisor left behind, and remove its folders."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            left = [folder for base in set(self._bases.values()) for folder in _below(base)]
            if not left:
                return
            for folder in left:
                _kill_all(folder)
                try:
                    os.rmdir(folder)
                except OSError:
                    time.sleep(0.005)


def _set(path: str, value: int | str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(str(value))


def _memory_of_all() -> int:
    """What all instances together may have, so that many within their limits do not end the host's own processes."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total - max(total // 10, min(total // 4, 536_870_912))


def _processes_of_all() -> int:
    """Half of what the kernel can number: the host must be able to start programs whatever its sandboxes do."""
    found = []
    for name in ("pid_max", "threads-max"):
        with open(f"/proc/sys/kernel/{name}", encoding="utf-8") as file:
            found.append(int(file.read()))
    return min(found) // 2


def _below(base: str) -> list[str]:
    """`base` and the folders in it, the deepest first."""
    return [folder for folder, _, _ in os.walk(base, topdown=False)]


def _kill_all(folder: str) -> None:
    try:
        with open(f"{folder}/cgroup.procs", encoding="utf-8") as file:
            pids = [int(line) for line in file]
    except OSError:
        return
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
