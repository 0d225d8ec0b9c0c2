"""Packages that attack while a zygote imports them: each is written as a wheel, for uv to install into a layer.

The code of each runs in two places: in the zygote, where it is root of a user namespace, and (where the zygote did not import
it) in an instance. `IN_ZYGOTE` tells them apart; what was found is kept in `found`, which every fork of the zygote inherits.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

__all__ = ["APP", "PACKAGES", "write_wheel"]

_START = """
print("\\x1b]0;printed-by-a-hostile-package\\x07")
import ctypes, errno, json, os, socket, struct, sys, threading, time
IN_ZYGOTE = os.getuid() == 0 and not os.path.exists("/var/task/app.py")
found = {"zygote": IN_ZYGOTE}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(*arguments):
    ctypes.set_errno(0)
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return "got" if libc.syscall(*wide) >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")

def tried(action, *arguments):
    try:
        action(*arguments)
        return "got"
    except OSError as error:
        return errno.errorcode.get(error.errno, "?")

def frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back
"""

# The control socket to the supervisor is descriptor 3 of the zygote.
PACKAGES = {
    "explorer": """
if IN_ZYGOTE:
    files = ("/etc/shadow", "/root/.bashrc", "/proc/1/root/etc/shadow", "/sys/fs/cgroup/memory/tasks")
    found["files"] = {path: tried(open, path) for path in files}
    places = "/var/x /var/martlet/inside/x /opt/python/x /usr/x /usr/bin/env /var/lang/bin/x /etc/passwd /dev/x"
    found["writes"] = {path: tried(os.open, path, os.O_CREAT | os.O_WRONLY) for path in places.split()}
    targets = (b"/usr", b"/", b"/opt/python", b"/var/martlet/inside")
    found["remount"] = {target.decode(): call(165, b"none", target, 0, 0x20 | 0x1000, 0) for target in targets}
    calls = {
        "bind": (165, b"/usr", b"/var/task", 0, 0x1000, 0),
        "umount": (166, b"/usr", 2),
        "setattr": (442, -100, b"/usr", 0, bytes(32), 32),
        "pivot": (155, b"/", b"/tmp"),
        "chroot": (161, b"/tmp"),
        "fsopen": (430, b"tmpfs", 0),
        "open_tree": (428, -100, b"/", 1),
        "userns": (272, 0x10000000),
        "netns": (272, 0x40000000),
        "mntns": (272, 0x20000),
        "clone": (56, 0x10000011, 0, 0, 0, 0),
        "keyctl": (250, 0, -3, 1),
        "add_key": (248, b"user", b"x", b"y", 1, -3),
        "bpf": (321, 5, 0, 0),
        "ptrace": (101, 16, 1, 0, 0),
        "perf": (298, 0, 0, -1, -1, 0),
        "vm_readv": (310, 1, 0, 0, 0, 0, 0),
        "handle": (304, -100, 0, 0),
        "mknod": (133, b"/tmp/x", 0o60666, 0xFE00),
        "sethostname": (170, b"x", 1),
        "netlink": (41, 16, 3, 0),
        "packet": (41, 17, 3, 0),
        "raw": (41, 2, 3, 1),
        "vsock": (41, 40, 1, 0),
        "reboot": (169, -18751827, 672274793, 0x1234567, 0),
        "init_module": (175, b"x", 1, b""),
        "io_uring": (425, 8, 0),
    }
    found["calls"] = {name: call(*arguments) for name, arguments in calls.items()}
    found["pids"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    found["environ"] = open("/proc/self/environ").read()
    found["uids"] = tried(os.setuid, 70_000)
    with open("/proc/self/uid_map") as file:
        found["uid_map"] = file.read().split()
    found["oom"] = tried(lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-500"))
    found["network"] = tried(lambda: socket.create_connection(("127.0.0.1", 22), 0.2))
    found["capabilities"] = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))]
""",
    "hanging": """
if IN_ZYGOTE:
    while True:
        time.sleep(1)
""",
    "dying": """
if IN_ZYGOTE:
    os._exit(1)
""",
    "threaded": """
if IN_ZYGOTE:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
""",
    "bombing": """
if IN_ZYGOTE:
    made = 0
    try:
        while made < 3000:  # far more than is allowed
            if not os.fork():
                time.sleep(1000)
            made += 1
    except OSError:
        pass
    found["made"] = made
""",
    "lying": """
if IN_ZYGOTE:
    control = socket.socket(fileno=os.dup(3))
    events = ('{"event": []}', '{"event": "forked", "stem": 1, "pid": 1}', '{"event": "init"}', '{}',
              '{"event": "exit", "pid": 12345, "status": 0}', '{"event": "ready", "failed": 5, "threads": "x"}')
    for message in (b"garbage", b"[" * 50_000, b"[]", b"5", *(event.encode() for event in events)):
        try:
            control.send(message)
        except OSError:
            break
    time.sleep(0.5)
""",
    "forging": """
if IN_ZYGOTE:
    for frame in frames():
        if frame.f_globals.get("__name__") == "martlet_inside.zygote":
            instance = frame.f_globals["instance"]
            instance._isolate = lambda: [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
""",
    "deaf": """
if IN_ZYGOTE:
    for frame in frames():
        if frame.f_globals.get("__name__") == "martlet_inside.zygote":
            frame.f_globals["_fork"] = lambda *_: time.sleep(1000)
""",
    "flooding": """
if IN_ZYGOTE:
    control = socket.socket(fileno=os.dup(3))
    def flood(*_):
        while True:
            control.send(b'{"event": "ready", "failed": {}, "threads": 1}')
    for frame in frames():
        if frame.f_globals.get("__name__") == "martlet_inside.zygote":
            frame.f_globals["_fork"] = flood
""",
}

APP = """
from martlet import App
import {package}

app = App()


@app.function(memory=128)
def look(event, context):
    return {package}.found
"""


def write_wheel(folder: Path, name: str) -> None:
    """`<folder>/<name>-1.0-py3-none-any.whl` (the binary distribution format) with one module of that name."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": _START + PACKAGES[name],
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: attack\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
