"""Attacks by processes: bombs, survivors, signals, other processes' memory."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time

from trying import in_child, outcome


def fork_bomb(most=2000):
    """Children that stay; how many there can be."""
    made, ended = 0, ""
    while made < most:
        try:
            pid = os.fork()
        except OSError as error:
            ended = type(error).__name__
            break
        if not pid:
            time.sleep(30)
            os._exit(0)
        made += 1
    return {"made": made, "ended": ended}


def fork_bomb_that_ends(most=2000):
    """A bomb that answers nothing: the parent joins its children in an endless loop."""
    for _ in range(most):
        try:
            if not os.fork():
                break
        except OSError:
            break
    while True:
        pass


def thread_bomb(most=2000):
    made, stop = 0, threading.Event()
    try:
        while made < most:
            threading.Thread(target=stop.wait, daemon=True).start()
            made += 1
    except RuntimeError:
        pass
    stop.set()
    return {"made": made}


def spin():
    while True:
        pass


def spin_in_c():
    """One call that never comes back to the interpreter."""
    return 10**8**10


def ignore_and_spin():
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        pass


def daemons(mark, count=3, answer=False):
    """Double forks in sessions of their own, named `mark`; then the handler hangs, or answers."""
    for _ in range(count):
        if not os.fork():
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            if os.fork():
                os._exit(0)
            os.chdir("/")
            os.closerange(0, 1024)
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", f"import time; '{mark}'; time.sleep(300)"])
        os.wait()
    while not answer:
        time.sleep(1)
    return "left behind"


def kill(pid, number=9):
    outcome_ = outcome(os.kill, pid, number)
    return {"outcome": outcome_, "own_pid": os.getpid(), "parent": os.getppid()}


def kill_from_child(pid, number=9):
    """The same from a child, which is not pid 1 of its namespace."""
    return {"child": in_child(lambda: os.kill(pid, number) or 0), "alive": True}


def stop_self():
    os.kill(os.getpid(), signal.SIGSTOP)
    return "still running"


def stop_all_from_child():
    """A child stops everything it can reach: pid 1 is not among it, and there is nobody else."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, str(outcome(os.kill, -1, signal.SIGSTOP)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return "still running: " + os.read(reader, 100).decode()


def seen():
    """Every process that /proc shows, by pid, with its command line."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found[name] = file.read().replace(b"\0", b" ").decode()
    return found


def reach_by_number(first, last):
    """Signal 0 to a range of pids: who answers?"""
    found = []
    for pid in range(first, last):
        try:
            os.kill(pid, 0)
            found.append(pid)
        except OSError:
            pass
    return [pid for pid in found if pid != os.getpid()]


def raise_limits():
    results = {}
    for name in ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_RTPRIO", "RLIMIT_NICE"):
        results[name] = outcome(resource.setrlimit, getattr(resource, name, 13), (1 << 20, 1 << 20))
    results["nice"] = outcome(os.nice, -5)
    results["realtime"] = outcome(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(10))
    return results


def descriptor_bomb():
    kept = []
    try:
        while len(kept) < 100_000:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return {"made": len(kept), "ended": error.errno}
    finally:
        for descriptor in kept:
            os.close(descriptor)
    return {"made": len(kept)}


def pipe_hoarder():
    """Fill as many pipe buffers as there can be: kernel memory that belongs to nobody's heap."""
    kept, filled = [], 0
    try:
        while True:
            reader, writer = os.pipe()
            kept += [reader, writer]
            os.set_blocking(writer, False)
            while True:
                try:
                    filled += os.write(writer, bytes(65536))
                except BlockingIOError:
                    break
    except OSError as error:
        ended = error.errno
    for descriptor in kept:
        os.close(descriptor)
    return {"filled": filled, "ended": ended}


def zombies(count=400):
    """Children that nobody waits for."""
    made = 0
    for _ in range(count):
        try:
            if not os.fork():
                os._exit(0)
        except OSError:
            break
        made += 1
    return made


def end_by(how):
    """The runtime ends in the middle of an event."""
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(3)
    raise SystemExit(4)


def run_program():
    """A program of the image, to see what exec gives it."""
    code = "import os; print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=5)
    return done.stdout.split()
