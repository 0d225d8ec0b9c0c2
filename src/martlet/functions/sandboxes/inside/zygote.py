"""The zygote: a process that has imported what instances will need, and forks them.

It is root of a user namespace that maps to nobody outside, has one thread, no secrets, no network, and one socket (descriptor
3) to the supervisor. The packages that it imports are not trusted: before the first import it takes a system-call filter that
leaves it what it needs to make instances. An order is a JSON message:
    {"order": "import", "path": [folders], "task": bool, "modules": [names], "environment": {…} or null}
                                                                 → {"event": "ready", "failed": {name: reason}, …}
    {"order": "fork", "stem": n} + [birth socket, cgroup files…] → {"event": "forked", "stem": n, "pid": pid}
                                                                 or {"event": "unforked", "stem": n, "error": reason}
and when such a child ends → {"event": "exit", "pid": pid, "status": wait status}.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from . import instance, landlock, linux, runtime, seccomp

CONTROL = 3
_forks: set[int] = set()  # children that the supervisor knows of; a package may have started others while it was imported


def main() -> None:
    control = socket.socket(fileno=CONTROL)
    wake_reader, wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    time.tzset()  # of boot's TZ, which is Lambda's; an instance with another sets its own
    runtime.prepare()
    template = instance.Template(seccomp.program(), seccomp.last_program(), landlock.ruleset(["/"], ["/rw", "/dev"]))
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.seccomp_filter(seccomp.zygote_program(instance.MOUNT_FLAGS, instance.UNSHARE_FLAGS, linux.CLONE_NEWPID))
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_reader, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            try:
                if fd == wake_reader:
                    _drain(wake_reader)
                    _reap(control)
                    continue
                order, fds, _ = linux.receive(control)
                if order is None:
                    os._exit(0)
                if order["order"] == "import":
                    linux.send(control, _import(order))
                else:
                    _fork(control, own_pid_namespace, order, fds, template)
            except BrokenPipeError:
                os._exit(0)  # the supervisor ended in the middle of it


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if pid in _forks:
            _forks.discard(pid)
            linux.send(control, {"event": "exit", "pid": pid, "status": status})


def _import(order: dict[str, Any]) -> dict[str, Any]:
    sys.path[:0] = [folder for folder in order["path"] if folder not in sys.path]
    failed: dict[str, str] = {}
    if order["environment"] is not None:
        os.environ.clear()
        os.environ.update(order["environment"])
    if order["task"]:
        sys.path.insert(0, runtime.TASK)
        os.chdir(runtime.TASK)
    for name in order["modules"]:
        try:
            importlib.import_module(name)
        except BaseException as error:  # a package may raise anything while it is imported, SystemExit included
            failed[name] = f"{type(error).__name__}: {error}"[:300]
    if order["task"]:
        os.chdir("/")
        sys.path.remove(runtime.TASK)  # an instance puts it back when its own code is there
        for place in [place for place in sys.path_importer_cache if place.startswith(runtime.TASK)]:
            del sys.path_importer_cache[place]
    runtime.settle()
    gc.collect()
    gc.disable()
    gc.freeze()
    return {"event": "ready", "failed": failed, "threads": len(os.listdir("/proc/self/task"))}


def _fork(control: socket.socket, own: int, order: dict[str, Any], fds: list[int], template: instance.Template) -> None:
    answer: dict[str, Any] = {"event": "unforked", "stem": order["stem"]}
    try:
        linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            instance.become(fds, template, order)  # never returns
        _forks.add(pid)
        answer = {"event": "forked", "stem": order["stem"], "pid": pid}
    except OSError as error:  # no more processes or namespaces just now: later there may be
        answer["error"] = str(error)
    linux.setns(own, linux.CLONE_NEWPID)
    for fd in fds:
        os.close(fd)
    linux.send(control, answer)
