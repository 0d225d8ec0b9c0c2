"""From a bare host process to a zygote in an image of its own: user, pid, mount, net, ipc and uts namespaces.

The supervisor starts this with one SEQPACKET socket as descriptor 3. Steps: enter a user namespace (so that root in
here is nobody outside, and a hostile package imported by the zygote gains nothing); fork pid 1 of the pid namespace; let it
lay out the image (read-only binds on a small tmpfs), pivot into it and start the zygote by exec, so that nothing of the
host's memory stays. Pid 1 stays as the reaper: when it dies, or the supervisor does, the kernel ends the whole tree.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Any

from . import linux

STAGING = "/sys"  # any folder that surely exists and that no image needs
KEPT_CAPABILITIES = (6, 7, 8, 12, 21)  # SETGID, SETUID, SETPCAP, NET_ADMIN (lo up), SYS_ADMIN (namespaces)

# What every function's environment has in common is set here already: an instance changes only what differs, and the
# dynamic linker knows the library path from the start of the process (ld.so(8)).
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "MARTLETSANDBOX000000",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9001",
    "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_REGION": "us-east-1",
    "AWS_SECRET_ACCESS_KEY": "the-socket-says-who-calls",
    "LAMBDA_TASK_ROOT": "/var/task",
    "LANG": "C.UTF-8",  # of this process; Lambda's en_US.UTF-8, set later, is for what a function starts
    "LD_LIBRARY_PATH": "/var/lang/lib:/var/task/lib:/opt/lib",
    "MARTLET_API": "127.0.0.1:9001",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "PYTHONPATH": "/var/task:/opt/python",
    "TZ": ":UTC",
}

_ETC = {
    "passwd": "root:x:0:0:root:/root:/sbin/nologin\nsandbox:x:1000:1000::/tmp:/sbin/nologin\n",
    "group": "root:x:0:\nsandbox:x:1000:\n",
    "hosts": "127.0.0.1 localhost sandbox sandbox.localdomain\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "# no resolver: names are resolved by the platform's egress proxy\n",
}


def main() -> None:
    control = socket.socket(fileno=3)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    order, given, _ = linux.receive(control)
    if order is None:
        return
    try:
        mounts, joins = given[: len(order["mounts"])], given[len(order["mounts"]) :]
        for fd in joins:
            os.write(fd, b"0")  # into a control group of its own: what the zygote imports is not trusted
            os.close(fd)
        _write("/proc/self/oom_score_adj", "500")  # while this process may: then none of its children can take it back
        _enter_user_namespace(control, order)
        linux.unshare(
            linux.CLONE_NEWNS
            | linux.CLONE_NEWPID
            | linux.CLONE_NEWNET
            | linux.CLONE_NEWIPC
            | linux.CLONE_NEWUTS
            | linux.CLONE_NEWCGROUP
        )
        starter = os.getpid()
        if os.fork():
            os._exit(0)  # the supervisor, a subreaper, becomes pid 1's parent
        while _parent() == starter:
            time.sleep(0.0002)  # only once it is gone for the kernel too, the death signal below is the supervisor's
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        _become_init(control, order, mounts)
    except (BrokenPipeError, EOFError):
        os._exit(0)  # the supervisor is gone, or does not want it any more: there is nobody to tell
    except OSError as error:
        linux.send(control, {"event": "failed", "error": str(error)})
        os._exit(1)


def _enter_user_namespace(control: socket.socket, order: dict[str, Any]) -> None:
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER)
    if order["uid_range"]:
        linux.send(control, {"event": "map"})
        if linux.receive(control)[0] is None:  # else the supervisor, which is root, has written the maps
            raise EOFError
        os.setgroups([])
    else:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _parent() -> int:
    """Our parent, as the host's procfs (still mounted) numbers it; getppid(2) says 0 in a new pid namespace."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"PPid:"):
                return int(line[5:])
    return 0


def _become_init(control: socket.socket, order: dict[str, Any], mounts: list[int]) -> None:
    linux.send(control, {"event": "init"})  # carries our pid as credentials
    _lay_out_image(order, mounts)
    linux.sethostname("sandbox")
    child = os.fork()
    if not child:
        os.setsid()
        linux.drop_bounding_set(number for number in range(64) if number not in KEPT_CAPABILITIES)
        os.environ.clear()
        environment = {**_ENVIRONMENT, "HOME": "/tmp"}
        environment.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
        os.set_inheritable(3, True)
        arguments = [order["interpreter"], "-I", "-S", "/var/martlet/inside/launch.py", "zygote"]
        os.execve(order["interpreter"], arguments, environment)
    control.close()
    for fd in (0, 1, 2):
        os.close(fd)
    # A bare interpreter for the rest: it holds less than half of the memory of this one, and nothing of ours.
    reaper = f"import posix\nwhile posix.wait()[0] != {child}: pass"
    environment = {"LD_LIBRARY_PATH": _ENVIRONMENT["LD_LIBRARY_PATH"]}  # the interpreter's own library, not the system's
    os.execve(order["interpreter"], [order["interpreter"], "-I", "-S", "-c", reaper], environment)


def _lay_out_image(order: dict[str, Any], mounts: list[int]) -> None:
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("image", STAGING, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=4m,mode=755")
    os.umask(0o022)
    for folder in ("proc", "dev", "etc", "rw", "rw/tmp", "var", "var/task", "var/martlet", "root", "opt"):
        os.mkdir(f"{STAGING}/{folder}")
    os.symlink("rw/tmp", f"{STAGING}/tmp")
    linux.mount("proc", f"{STAGING}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    for name, text in _ETC.items():
        _write(f"{STAGING}/etc/{name}", text)
    for name, destination in order["links"]:
        os.symlink(destination, f"{STAGING}{name}")
    for (target, is_folder), mount in zip(order["mounts"], mounts, strict=True):
        _place(mount, STAGING + target, is_folder)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{STAGING}/dev/{name}")
    os.chdir(STAGING)
    linux.pivot_root_here()
    flags = linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("image", "/", "tmpfs", flags, "size=4m,mode=755")


def _place(mount: int, target: str, is_folder: bool) -> None:
    """Put a detached mount, prepared read-only by the supervisor, where it belongs."""
    if is_folder:
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.move_mount(mount, target)
    os.close(mount)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit("start this through launch.py")
