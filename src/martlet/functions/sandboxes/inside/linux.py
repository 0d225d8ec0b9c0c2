"""The Linux system calls that Python's standard library lacks, through ctypes. x86-64 numbers (`asm/unistd_64.h`)."""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 4, 24, 38, 36

_SYS_PIVOT_ROOT, _SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 155, 428, 429, 442
_SYS_CLOSE_RANGE, _SYS_SECCOMP = 436, 317
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_EMPTY_PATH, _AT_FDCWD = 1, 0x8000, 0x1000, -100
_MOVE_MOUNT_F_EMPTY_PATH = 4

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {source} on {target}")


def pivot_root_here() -> None:
    """Make the current folder the root and forget the old one (pivot_root(2), the "." "." idiom)."""
    _check(_syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount old root")
    os.chdir("/")


def open_tree_readonly(path: str) -> int:
    """A detached, read-only, nosuid, nodev copy of the mount at `path`, as a descriptor for `move_mount`."""
    return _open_tree(path, MS_RDONLY | MS_NOSUID | MS_NODEV)


def open_tree_device(path: str) -> int:
    """The same for a device file, which must stay one."""
    return _open_tree(path, MS_NOSUID | MS_NOEXEC)


def _open_tree(path: str, attributes_set: int) -> int:
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    fd = _check(_syscall(_SYS_OPEN_TREE, _AT_FDCWD, path.encode(), flags), f"open_tree {path}")
    attributes = struct.pack("QQQQ", attributes_set, 0, 0, 0)
    result = _syscall(_SYS_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, len(attributes))
    if result < 0:
        os.close(fd)
    _check(result, f"mount_setattr {path}")
    return fd


def move_mount(fd: int, target: str) -> None:
    _check(_syscall(_SYS_MOVE_MOUNT, fd, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH), f"move_mount to {target}")


def prctl(option: int, value: int = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


def close_range(first: int, last: int = 0xFFFF_FFFF) -> None:
    _check(_syscall(_SYS_CLOSE_RANGE, first, last, 0), "close_range")


def seccomp_filter(program: bytes) -> None:
    """Install a classic BPF program (seccomp(2), SECCOMP_SET_MODE_FILTER) on this thread. Needs no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _check(_syscall(_SYS_SECCOMP, 1, 0, header), "seccomp")


def sethostname(name: str) -> None:
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), "sethostname")


def drop_bounding_set(capabilities: Iterable[int]) -> None:
    """Take capabilities out of the bounding set (capabilities(7)), up to the kernel's last."""
    for capability in capabilities:
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # past the kernel's last capability


def loopback_up() -> None:
    """Bring `lo` up in the current network namespace (netdevice(7), SIOCSIFFLAGS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))


def pidfd_open(pid: int) -> int:
    return os.pidfd_open(pid)


def send(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """One JSON message with descriptors over a SOCK_SEQPACKET socket."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
    sock.sendmsg([json.dumps(message).encode()], ancillary)


def receive(sock: socket.socket, size: int = 262_144) -> tuple[dict[str, Any] | None, list[int], int]:
    """(message, descriptors, pid of the sender or 0); message None at end of file. OSError for what is no message."""
    try:
        data, ancillary, flags, _ = sock.recvmsg(size, 1024, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it ended with messages of ours unread
        return None, [], 0
    fds: list[int] = []
    pid = 0
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(payload[: len(payload) - len(payload) % 4])
            fds.extend(received)
        elif level == socket.SOL_SOCKET and kind == 2:  # SCM_CREDENTIALS
            pid = struct.unpack("iII", payload[:12])[0]
    if not data:
        return None, fds, pid
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise OSError(90, "message too long")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise OSError(74, "not a message")
    except (OSError, ValueError, RecursionError) as error:
        for fd in fds:
            os.close(fd)
        raise error if isinstance(error, OSError) else OSError(74, "not a message") from error
    return message, fds, pid
