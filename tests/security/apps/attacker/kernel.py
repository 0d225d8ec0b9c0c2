"""Attacks on the kernel's doors: system calls by number, other ways to make them, privileges."""

import ctypes
import errno
import mmap
import os
import socket
import struct
import subprocess

from trying import in_child, libc, outcome, system_call

_NEW = {
    "user": 0x1000_0000,
    "mount": 0x0002_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
    "ipc": 0x0800_0000,
    "uts": 0x0400_0000,
    "cgroup": 0x0200_0000,
    "time": 0x80,
}


def call(number, *arguments):
    """One raw system call; texts become C strings, None a null pointer."""
    return system_call(number, *[value.encode() if isinstance(value, str) else value for value in arguments])


def calls(table):
    """{name: [number, arguments…]} → {name: outcome}."""
    return {name: call(*entry) for name, entry in table.items()}


def unshare_each():
    return {name: system_call(272, flags) for name, flags in _NEW.items()}


def clone_each():
    """clone(2) with each namespace flag, by its raw number; a child that was made ends at once."""
    results = {}
    for name, flags in _NEW.items():
        result = system_call(56, flags | 17, 0, 0, 0, 0)
        if result == {"got": 0}:
            os._exit(0)
        results[name] = result
    return results


def clone3_each():
    results = {}
    for name, flags in _NEW.items():
        arguments = struct.pack("11Q", flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
        result = system_call(435, arguments, len(arguments))
        if result == {"got": 0}:
            os._exit(0)
        results[name] = result
    return results


def setns_each():
    results = {}
    for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
        descriptor = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
        results[name] = system_call(308, descriptor, 0)
        os.close(descriptor)
    return results


def x32():
    """The x32 numbers of calls that are forbidden, and of getpid, which is allowed under its own number."""
    return {
        str(number): system_call(0x4000_0000 | number, 0, 0, 0, 0, 0) for number in (39, 56, 57, 101, 165, 272, 520, 521, 545)
    }


def int80(number):
    """A 32-bit system call from machine code: mov eax, number; int 0x80; ret."""

    def run():
        area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        area.write(b"\xb8" + struct.pack("<I", number) + b"\xcd\x80\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        ctypes.CFUNCTYPE(ctypes.c_long)(address)()
        return 7

    return in_child(run)


def vsyscall_and_upper_half():
    """Numbers with high bits set must not slip past a comparison of 32 bits."""
    return {"unshare": system_call((1 << 32) | 272, _NEW["user"]), "mount": system_call(-(1 << 31) | 165, 0, 0, 0, 0, 0)}


def clone_upper_half():
    """Flags hidden in the upper half, and TIOCSTI with an upper half."""
    result = system_call(56, (1 << 40) | _NEW["user"] | 17, 0, 0, 0, 0)
    if result == {"got": 0}:
        os._exit(0)
    return {"clone": result, "tiocsti": system_call(16, 0, (1 << 33) | 0x5412, b"x")}


def ioctls():
    return {"TIOCSTI": system_call(16, 0, 0x5412, b"x"), "TIOCLINUX": system_call(16, 0, 0x541C, b"\x02")}


def sockets():
    """Every address family, and the raw types of those that are there."""
    results = {}
    for family in range(46):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
            results[str(family)] = "made"
        except OSError as error:
            results[str(family)] = errno.errorcode.get(error.errno, str(error.errno))
    return results


def socket_kinds():
    found = {}
    for name, family, kind, protocol in (
        ("raw4", 2, 3, 1), ("raw6", 10, 3, 58), ("ping", 2, 2, 1), ("packet", 17, 3, 0x300), ("netlink", 16, 3, 0),
        ("nft", 16, 3, 12),
        ("vsock", 40, 1, 0), ("alg", 38, 5, 0), ("xdp", 44, 3, 0), ("can", 29, 3, 1), ("tipc", 30, 5, 0), ("rds", 21, 5, 0),
        ("sctp", 2, 1, 132), ("mptcp", 2, 1, 262), ("dccp", 2, 6, 33), ("udplite", 2, 2, 136), ("l2tp", 2, 2, 115),
        ("smc", 43, 1, 0),
    ):  # fmt: skip
        try:
            socket.socket(family, kind, protocol).close()
            found[name] = "made"
        except OSError as error:
            found[name] = errno.errorcode.get(error.errno, str(error.errno))
    return found


def become_root():
    results = {}
    for name in ("setuid", "setgid", "seteuid", "setegid"):
        results[name] = outcome(getattr(os, name), 0)
    results["setresuid"] = outcome(os.setresuid, 0, 0, 0)
    results["setgroups"] = outcome(os.setgroups, [0])
    results["uid"] = os.getuid()
    return results


def privileges():
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.startswith("Cap") or name in (
                "NoNewPrivs",
                "Seccomp",
                "Seccomp_filters",
                "Uid",
                "Gid",
                "Groups",
                "TracerPid",
            ):
                found[name] = value.split()
    return found


def raise_capabilities():
    header = struct.pack("Ii", 0x2008_0522, 0)
    full = struct.pack("6I", *[0xFFFF_FFFF] * 6)
    return {
        "capset": system_call(126, header, full),
        "ambient": system_call(157, 47, 2, 21, 0, 0),
        "securebits": system_call(157, 28, 0x3F, 0, 0, 0),
        "no_new_privs_off": system_call(157, 38, 0, 0, 0, 0),
        "seccomp_off": system_call(157, 22, 0, 0, 0, 0),
        "mm": system_call(157, 35, 8, 4096, 0, 0),
    }


def setuid_file():
    """A program in /tmp with the set-user-id bit; and the ones of the image."""
    path = "/tmp/suid"
    with open("/usr/bin/id", "rb") as source, open(path, "wb") as file:
        file.write(source.read())
    os.chmod(path, 0o6755)
    ran = outcome(lambda: subprocess.run([path, "-u"], capture_output=True, text=True).stdout.split())
    chown = outcome(os.chown, path, 0, 0)
    os.unlink(path)
    found = {}
    for program in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount", "/usr/bin/sudo", "/usr/bin/newgrp"):
        if os.path.exists(program):
            bits = os.stat(program).st_mode & 0o6000
            done = outcome(
                lambda program=program: subprocess.run([program, "--version"], capture_output=True, timeout=3).returncode
            )
            found[program] = [bits, done]
    return {"own": ran, "chown": chown, "image": found, "uid": os.getuid()}


def devices():
    return {
        "mknod": outcome(os.mknod, "/tmp/disk", 0o60666, os.makedev(254, 0)),
        "mknod_char": outcome(os.mknod, "/tmp/mem", 0o20666, os.makedev(1, 1)),
        "present": sorted(os.listdir("/dev")),
        "kmsg": outcome(os.open, "/dev/kmsg", os.O_RDONLY),
        "mem": outcome(os.open, "/dev/mem", os.O_RDONLY),
        "kvm": outcome(os.open, "/dev/kvm", os.O_RDWR),
        "fuse": outcome(os.open, "/dev/fuse", os.O_RDWR),
        "tty": outcome(os.open, "/dev/tty", os.O_RDWR),
    }


def kernel_files():
    """What of /proc could change or show the host."""
    paths = ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
             "/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/proc/self/oom_score_adj",
             "/proc/sys/fs/binfmt_misc/register")  # fmt: skip
    writes = {path: outcome(os.open, path, os.O_WRONLY) for path in paths if path != "/proc/self/oom_score_adj"}

    def protect():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")

    def unharm():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("0")

    reads = {
        path: outcome(os.open, path, os.O_RDONLY)
        for path in ("/proc/kcore", "/proc/kmsg", "/proc/vmallocinfo", "/proc/kpageflags")
    }
    return {"writes": writes, "reads": reads, "oom": outcome(protect), "oom_zero": outcome(unharm)}


def weaken_self():
    """A process may add filters to itself, never take any away."""
    return {"pid": libc.getpid(), "filters": privileges()["Seccomp_filters"]}
