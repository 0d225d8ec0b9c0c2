"""A blank program beside its parent: another language's runtime, started and isolated before anybody knows what it will run.

The stem cell starts it with every privilege already given up, and stays its parent: it alone can still mount the code. On the
assignment it does so, gives up its own privileges, and hands over what INIT said. Then it waits, and ends as its child does.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

HAND_OVER = 3  # the child's descriptor: JSON to the end of file
_LIMITS = ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_DATA")


class Blank(NamedTuple):
    """The running child. `log` is its standard output, ours too."""

    pid: int
    pipe: int
    log: int


def start(order: dict[str, Any], log: int, renounce: Callable[[], None]) -> Blank:
    """`order`: {"argv", "environment", "uid", "uid_range"}; `renounce` gives up this process's privileges for good."""
    read_end, write_end = os.pipe()
    renounced, renouncing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(read_end)
        os.close(renouncing)
        os.read(renounced, 1)  # end of file: it has its identity, and no way back
        os.close(renounced)
        return Blank(pid, write_end, log)
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY)
        high = [os.dup(fd) for fd in (null, log, read_end)]
        for target, source in ((0, high[0]), (1, high[1]), (2, high[1]), (HAND_OVER, high[2])):
            os.dup2(source, target, inheritable=True)
        if order["uid_range"]:
            os.setgroups([])
            os.setresgid(order["uid"], order["uid"], order["uid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        renounce()
        os.chdir("/var/task")
        os.execve(order["argv"][0], order["argv"], order["environment"])
    finally:
        os._exit(127)


def hand_over(blank: Blank, init: dict[str, Any]) -> NoReturn:
    """Tell the child what to be; end when it ends, as it did."""
    for name in _LIMITS:
        limit = getattr(resource, name)
        resource.prlimit(blank.pid, limit, resource.getrlimit(limit))
    data = memoryview(json.dumps(init["environment"]).encode())
    try:
        while data:
            data = data[os.write(blank.pipe, data) :]
    except BrokenPipeError:
        pass  # it has ended already: its code says why
    os.close(blank.pipe)
    attend(blank.pid)


def attend(child: int) -> NoReturn:
    """Bury whatever ends in this sandbox, as the first process of it must; leave with the code of `child`."""
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
