"""How attacks say what came of them: the error's name, or what they got."""

import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def outcome(action, *arguments, **named):
    """ "EPERM" and the like for an OSError, the type's name for another error, {"got": …} for a success."""
    try:
        result = action(*arguments, **named)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return {"got": result if isinstance(result, (str, int, float, list, dict, type(None))) else repr(result)[:200]}


def system_call(number, *arguments):
    """The raw call's outcome: the error's name, or {"got": result}."""
    ctypes.set_errno(0)
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno())) if result == -1 else {"got": result}


def in_child(action):
    """How a forked child that runs `action` ends: "exit N" or "signal N". What it returns becomes its exit status."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            status = int(action() or 0)
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
