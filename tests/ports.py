"""Loopback ports for servers that must be told theirs, chosen where no outgoing connection takes them.

A port that the kernel gave for a moment (bind to 0, close) is from the range of outgoing connections, so somebody else may have
it by the time the server binds it. These are from below that range, and a process never gets one twice.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 10_240
_given: set[int] = set()


def free_ports(count: int = 1) -> int:
    """The first of `count` neighbouring ports of 127.0.0.1 that nobody holds."""
    top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    places = max(top - _LOWEST, 4_096) - count
    start = os.getpid() * 97 % places  # two runs on one machine begin at different places
    for step in range(places):
        first = _LOWEST + (start + step) % places
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(map(_is_free, ports)):
            _given.update(ports)
            return first
    raise RuntimeError(f"no {count} free neighbouring ports from {_LOWEST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
