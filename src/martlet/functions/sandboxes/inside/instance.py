"""The instance: from a fresh fork of the zygote to an isolated process that waits for code, and then runs it.

Two halves. `become` isolates and parks the fork as a *stem cell*: it joins its cgroups, makes its own mount, net, ipc and
uts namespaces, raises its private loopback, listens there, and hands the listening sockets to the supervisor. It has seen
no tenant code yet and still holds the zygote's privileges. On the assignment it takes code, identity and limits, gives up
every privilege for good, and only then lets the runtime read environment, secrets and events from its pipes.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, NamedTuple

from . import blank, landlock, life, linux, runtime
from .boot import KEPT_CAPABILITIES

EVENTS, RESULTS = 3, 4  # descriptors of the instance's pipes: frames in, frames out
PLATFORM_PORT, EGRESS_PORT = 9001, 9002
_USUAL_TMP = (512, 32_768)  # megabytes and inodes of a function that says nothing: mounted before it is known
_SYS_CAPSET = 126
_SAFE = 100  # descriptors below are laid out anew for user code
_OWN_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_PROC_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_TMP_FLAGS = linux.MS_NOSUID | linux.MS_NODEV
MOUNT_FLAGS, UNSHARE_FLAGS = (
    (_PROC_FLAGS, _TMP_FLAGS),
    (linux.CLONE_NEWPID, _OWN_NAMESPACES),
)  # all that the zygote's filter lets pass


class Template(NamedTuple):
    """What the zygote prepares once for all its children."""

    filter: bytes  # the allow-list, with the few calls that an assignment still needs
    last_filter: bytes  # takes those away
    ruleset: int


def become(fds: list[int], template: Template, order: dict[str, Any]) -> None:
    """`order`: "rehearse" if nobody waits for it yet, see `life.rehearse`; "blank" for a program to start ahead."""
    birth = socket.socket(fileno=fds[0])
    try:
        _live(birth, fds[1:], template, order)
    except BaseException as error:  # the last resort of this process: nothing above it can report
        text = f"{type(error).__name__}: {error}"[:300]
        try:
            if birth.fileno() >= 0:
                linux.send(birth, {"event": "failed", "error": text})
            else:  # it has its own log by now, or is about to
                os.write(2, f"sandbox: {text}\n".encode())
        finally:
            os._exit(70)


def _live(birth: socket.socket, joins: list[int], template: Template, order: dict[str, Any]) -> None:
    log = joins.pop(0) if "blank" in order else -1
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for fd in joins:
        os.write(fd, b"0")  # join the cgroup before touching memory, so that it is charged here
        os.close(fd)
    listeners = _isolate()
    _prepare_to_renounce(template)
    child = None
    if "blank" in order:
        child = blank.start(order["blank"], log, lambda: _renounce(template, first=blank.HAND_OVER + 1))
    runtime.reseed()
    if order["rehearse"]:
        _rehearse()
        life.rehearse()
    linux.send(birth, {"event": "born"}, [listener.fileno() for listener in listeners])
    for listener in listeners:
        listener.close()
    assignment, given, _ = linux.receive(birth)
    if assignment is None:
        os._exit(0)  # parked, and no longer wanted
    birth.close()
    if child is not None:
        os.dup2(child.log, given[2])  # one log for both
        child = child._replace(pipe=_move_up(child.pipe))
    _take(assignment, given)
    _renounce(template, -1 if child is None else child.pipe)
    sys.path.insert(0, "/var/task")
    sys.meta_path.insert(2, runtime.CompiledModules())  # after what is built in and frozen, as the search would be
    life.main(EVENTS, RESULTS, blank_child=child)


def _isolate() -> list[socket.socket]:
    linux.unshare(_OWN_NAMESPACES)
    linux.mount("proc", "/proc", "proc", _PROC_FLAGS)
    linux.mount("tmp", "/rw/tmp", "tmpfs", _TMP_FLAGS, _tmp_options(*_USUAL_TMP))
    linux.loopback_up()
    listeners = []
    for port in (PLATFORM_PORT, EGRESS_PORT):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        listeners.append(listener)
    return listeners


def _prepare_to_renounce(template: Template) -> None:
    """What can be given up before the assignment is, so that it costs no cold start: most of all the filter's compilation."""
    linux.drop_bounding_set(KEPT_CAPABILITIES)  # the zygote has no others
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.seccomp_filter(template.filter)


def _rehearse() -> None:
    """The calls of an assignment, so that they come to nothing: see `life.rehearse`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open("/dev/null", os.O_RDONLY)
    linux.send(ours, {"uid": 0, "rlimits": {"RLIMIT_CORE": 0}}, [null] * 4)
    _, given, _ = linux.receive(theirs)
    for fd in given:
        os.dup2(_move_up(fd), fd, inheritable=False)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    os.setresgid(-1, -1, -1)
    os.setresuid(-1, -1, -1)
    for attempt in (
        lambda: linux.move_mount(-1, "/var/task"),
        lambda: linux._check(linux._syscall(_SYS_CAPSET, b"\0" * 8, b"\0" * 24), "capset"),
        lambda: landlock.restrict(null),
        lambda: linux.seccomp_filter(b""),
    ):
        try:
            attempt()
        except OSError:
            pass  # as it must
    linux.close_range(1 << 30)
    for fd in {*given, null, *range(_SAFE, _SAFE + len(given))}:
        os.close(fd)
    ours.close()
    theirs.close()


def _take(assignment: dict[str, Any], given: list[int]) -> None:
    """Put code, /tmp and the pipes in their places. `given`: events, results, log, code, and layers if any."""
    uid = assignment["uid"]
    if (assignment["tmp_mb"], assignment["inodes"]) != _USUAL_TMP:
        # One on top of the usual one: a remount is not among the calls that are left.
        linux.mount("tmp", "/rw/tmp", "tmpfs", _TMP_FLAGS, _tmp_options(assignment["tmp_mb"], assignment["inodes"]))
    events, results, log, *mounts = given
    for mount, place in zip(mounts, ("/var/task", "/opt")):  # noqa: B905 - the second one is for functions with layers
        linux.move_mount(mount, place)
        os.close(mount)
    null = os.open("/dev/null", os.O_RDONLY)
    plan = {0: null, 1: log, 2: log, EVENTS: events, RESULTS: results}
    for target, source in {target: _move_up(source) for target, source in plan.items()}.items():
        os.dup2(source, target, inheritable=target < EVENTS)
    os.chdir("/var/task")
    for name, value in assignment["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if assignment["uid_range"]:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _tmp_options(megabytes: int, inodes: int) -> str:
    return f"size={megabytes}m,nr_inodes={inodes},mode=1777"


def _move_up(fd: int) -> int:
    return int(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE))


def _renounce(template: Template, kept: int = -1, first: int = RESULTS + 1) -> None:
    """No way back: no capabilities, Landlock, and the end of the calls that only the assignment needed.

    Descriptors from `first` on are closed, but `kept`.
    """
    _drop_capabilities()
    landlock.restrict(template.ruleset)
    if kept >= first:
        linux.close_range(first, kept - 1)
    linux.close_range(max(first, kept + 1))
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # setresuid(2) cleared it; without it /proc/self is closed to its own process
    linux.seccomp_filter(template.last_filter)


def _drop_capabilities() -> None:
    """Empty effective, permitted and inheritable sets (capset(2), version 3)."""
    header = struct.pack("Ii", 0x2008_0522, 0)
    linux._check(linux._syscall(_SYS_CAPSET, header, struct.pack("6I", 0, 0, 0, 0, 0, 0)), "capset")
