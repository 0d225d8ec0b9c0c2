"""The system-call allow-list of an instance, compiled to classic BPF (seccomp(2); `linux/filter.h`). x86-64.

What is not listed is refused: EPERM for calls that existed when this list was made, ENOSYS for newer ones and for
clone3, so that the C library falls back. A few calls are allowed by argument: clone without namespace flags, sockets of
the UNIX, INET and INET6 families for TCP and UDP only (each other protocol is a kernel module more that could be loaded),
ioctl but TIOCSTI and TIOCLINUX, personality only as a question.

The zygote has a filter too (`zygote_program`): packages that it imports are not trusted, and it is root of a user namespace,
which opens much of the kernel. It may do what an instance may, and the few calls with which it makes instances.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_ALLOWED = """
0-28 32-40 42-52 54-55 57-63 72-79 80-100 102 104-132 137-138 140-141 143 145-151 152 157-158 160 186-204 213 217-219
221-226 228-236 239 247 253-255 257-258 260-271 273-275 277 280-297 299 302 307 309 314-316 318-319 322 324-328 332 334
424 434 436-437 439 441 444-446 449 451-452 454-456
"""
# 0 read … 28 madvise; 32 dup … 40 sendfile; 42 connect … 52 getpeername; 54 setsockopt, 55 getsockopt; 57 fork … 63 uname;
# 72 fcntl … 100 times (ptrace 101 and syslog 103 are left out); 104 getgid … 132 utime; 137 statfs; 157 prctl;
# 186 gettid … 204 sched_getaffinity; 213 epoll_create; 217 getdents64; 222 timer_create …; 228 clock_gettime …;
# 239 get_mempolicy (numpy asks); 247 waitid; 253 inotify; 257 openat …; 318 getrandom; 319 memfd_create; 444 landlock …
# Left out on purpose: System V IPC and message queues, mknod, mount, pivot_root, chroot, swapon, reboot, sethostname,
# iopl, init_module, quotactl, keyctl, aio, unshare, setns, vmsplice, perf_event_open, fanotify, name_to_handle_at,
# open_by_handle_at, process_vm_readv, kcmp, bpf, userfaultfd, io_uring, pidfd_getfd, the new mount calls, sync.
_NR_IOCTL, _NR_SOCKET, _NR_SOCKETPAIR, _NR_CLONE, _NR_PERSONALITY, _NR_CLONE3 = 16, 41, 53, 56, 135, 435
_NR_MOUNT, _NR_UNSHARE, _NR_SETNS = 165, 272, 308
_NEWEST_KNOWN = 470
_ASSIGNMENT = (_NR_MOUNT, 317, 429)  # mount, seccomp, move_mount: taken away by `last_program`

_ALLOW, _ERRNO, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_EPERM, _ENOSYS, _EPROTONOSUPPORT, _EAFNOSUPPORT = 1, 38, 93, 97
_LD_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_AUDIT_ARCH_X86_64 = 0xC000_003E
_NAMESPACE_FLAGS = 0x7E02_0080  # CLONE_NEW* and CLONE_NEWTIME

_Instruction = tuple[int, int, int, int]


def _ranges() -> list[tuple[int, int]]:
    numbers: set[int] = set()
    for word in _ALLOWED.split():
        first, _, last = word.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    numbers.update(_ASSIGNMENT)
    numbers -= {_NR_IOCTL, _NR_SOCKET, _NR_SOCKETPAIR, _NR_CLONE, _NR_PERSONALITY}
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _tree(ranges: list[tuple[int, int]], refused: _Instruction) -> list[_Instruction]:
    """A binary search over `ranges` of the number in the accumulator: allow inside, `refused` outside."""
    if not ranges:
        return [refused]
    if len(ranges) == 1:
        first, last = ranges[0]
        return [(_JGE, 0, 2, first), (_JGE, 1, 0, last + 1), (_RET, 0, 0, _ALLOW), refused]
    middle = len(ranges) // 2
    left, right = _tree(ranges[:middle], refused), _tree(ranges[middle:], refused)
    if len(left) <= 255:
        return [(_JGE, len(left), 0, ranges[middle][0]), *left, *right]
    return [(_JGE, 0, 1, ranges[middle][0]), (0x05, 0, 0, len(left)), *left, *right]  # far jump over the left half


def last_program() -> bytes:
    """The small filter that goes on top of `program` once code and /tmp are in their places."""
    code: list[_Instruction] = [(_LD_ABS, 0, 0, 0)]
    for position, number in enumerate(_ASSIGNMENT):
        code.append((_JEQ, len(_ASSIGNMENT) - position, 0, number))
    code += [(_RET, 0, 0, _ALLOW), (_RET, 0, 0, _ERRNO | _EPERM)]
    return _assemble(code)


def program() -> bytes:
    """An instance's filter for `linux.seccomp_filter`. It still allows what an assignment needs; see `last_program`."""
    return _assemble([*_head(), *_tree(_ranges(), (_RET, 0, 0, _ERRNO | _EPERM))])


def zygote_program(mount_flags: Iterable[int], unshare_flags: Iterable[int], setns_kind: int) -> bytes:
    """The filter of a zygote: an instance's, and mount, unshare and setns with exactly these arguments.

    So no mount is made writable, nothing is bound elsewhere, no further user namespace is made, no netlink is spoken.
    """
    special = [
        *_exactly(_NR_MOUNT, 3, mount_flags),
        *_exactly(_NR_UNSHARE, 0, unshare_flags),
        *_exactly(_NR_SETNS, 1, (setns_kind,)),
    ]
    return _assemble([*_head(), *special, *_tree(_ranges(), (_RET, 0, 0, _ERRNO | _EPERM))])


def _exactly(number: int, argument: int, values: Iterable[int]) -> list[_Instruction]:
    """Allow system call `number` if its argument (the low half; these are 32 bits wide) is one of `values`, else EPERM."""
    wanted = list(values)
    checks = [(_JEQ, len(wanted) - index, 0, value) for index, value in enumerate(wanted)]
    body = [(_LD_ABS, 0, 0, 16 + 8 * argument), *checks, (_RET, 0, 0, _ERRNO | _EPERM), (_RET, 0, 0, _ALLOW)]
    return [(_JEQ, 0, len(body), number), *body]


def _assemble(code: list[_Instruction]) -> bytes:
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _head() -> list[_Instruction]:
    """Other ways in, calls that are newer than the list, and the calls that are allowed by argument."""
    eperm: _Instruction = (_RET, 0, 0, _ERRNO | _EPERM)
    enosys: _Instruction = (_RET, 0, 0, _ERRNO | _ENOSYS)
    allow: _Instruction = (_RET, 0, 0, _ALLOW)
    return [
        (_LD_ABS, 0, 0, 4),  # seccomp_data.arch
        (_JEQ, 1, 0, _AUDIT_ARCH_X86_64),
        (_RET, 0, 0, _KILL),
        (_LD_ABS, 0, 0, 0),  # seccomp_data.nr
        (_JGE, 0, 1, 0x4000_0000),  # the x32 way in
        enosys,
        (_JEQ, 0, 1, _NR_CLONE3),
        enosys,
        (_JGE, 0, 1, _NEWEST_KNOWN + 1),
        enosys,
        (_JGE, 0, 2, 425),  # io_uring_setup, _enter, _register: "not there", so that libraries fall back
        (_JGE, 1, 0, 428),
        enosys,
        (_JEQ, 0, 4, _NR_CLONE),
        (_LD_ABS, 0, 0, 16),  # low half of args[0]
        (_JSET, 1, 0, _NAMESPACE_FLAGS),
        allow,
        eperm,
        (_JEQ, 1, 0, _NR_SOCKET),
        (_JEQ, 0, 11, _NR_SOCKETPAIR),
        (_LD_ABS, 0, 0, 16),
        (_JEQ, 8, 0, 1),  # AF_UNIX
        (_JEQ, 2, 0, 2),  # AF_INET
        (_JEQ, 1, 0, 10),  # AF_INET6
        (_RET, 0, 0, _ERRNO | _EAFNOSUPPORT),
        (_LD_ABS, 0, 0, 32),  # low half of args[2], the protocol
        (_JEQ, 3, 0, 0),
        (_JEQ, 2, 0, 6),  # TCP
        (_JEQ, 1, 0, 17),  # UDP
        (_RET, 0, 0, _ERRNO | _EPROTONOSUPPORT),
        allow,
        (_JEQ, 0, 5, _NR_IOCTL),
        (_LD_ABS, 0, 0, 24),  # low half of args[1]
        (_JEQ, 2, 0, 0x5412),  # TIOCSTI
        (_JEQ, 1, 0, 0x541C),  # TIOCLINUX
        allow,
        eperm,
        (_JEQ, 0, 4, _NR_PERSONALITY),
        (_LD_ABS, 0, 0, 16),
        (_JEQ, 0, 1, 0xFFFF_FFFF),
        allow,
        eperm,
    ]
