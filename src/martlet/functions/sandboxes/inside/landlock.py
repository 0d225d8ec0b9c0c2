"""Landlock (landlock(7)): files by path, no reach to other sandboxes' abstract sockets or processes. ABI 1 to 7."""

from __future__ import annotations

import os
import struct

from . import linux

_SYS_CREATE, _SYS_ADD_RULE, _SYS_RESTRICT = 444, 445, 446
_READ = 1 | 4 | 8  # execute, read_file, read_dir
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2


def abi() -> int:
    """The kernel's Landlock ABI version; 0 when it has none or it is switched off."""
    try:
        return linux._check(linux._syscall(_SYS_CREATE, None, 0, 1), "landlock")
    except OSError:
        return 0


def ruleset(read: list[str], write: list[str]) -> int:
    """A ruleset descriptor: folders that may be read and executed, folders that may be written. -1 without Landlock."""
    version = abi()
    if not version:
        return -1
    everything = _ALL_BY_ABI[min(version, 5)]
    scope = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("QQQ", everything, 0, scope)[:size]
    fd = linux._check(linux._syscall(_SYS_CREATE, attributes, size, 0), "landlock_create_ruleset")
    for paths, access in ((read, _READ), (write, everything)):
        for path in paths:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=QI", access & everything, folder)
            linux._check(linux._syscall(_SYS_ADD_RULE, fd, 1, rule, 0), f"landlock_add_rule {path}")
            os.close(folder)
    return fd


def restrict(fd: int) -> None:
    """Apply the ruleset to this thread and its children. Needs no_new_privs."""
    if fd >= 0:
        linux._check(linux._syscall(_SYS_RESTRICT, fd, 0), "landlock_restrict_self")
