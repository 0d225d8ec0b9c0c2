"""The port to sandboxes: a host that keeps zygotes and starts instances. Adapters live in `sandboxes/`.

Lifetimes. `open` first, `close` last. A zygote is asked for by `ensure_zygote` and is there until `drop_zygote`; a host
that loses one brings it back by itself. `start` never fails: every started number gets exactly one `ended`, and at most
one `started` before it. Callbacks come on the event loop, never from within the call that caused them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

__all__ = ["Ended", "HostReport", "InstanceSpec", "SandboxHost", "Started", "ZygoteSpec"]


class HostReport(msgspec.Struct, frozen=True):
    """What isolation this host gives. `level` 4 is the best, 0 is none."""

    level: int
    features: tuple[str, ...]
    missing: tuple[str, ...]


class ZygoteSpec(msgspec.Struct, frozen=True):
    """A zygote: which dependency layer it sees ("" for none) and which modules it imports ahead.

    `blank`: a program (of `binds`) that every blank instance starts ahead, and that takes its function from the assignment.
    """

    key: str
    layer: str = ""  # folder on the host
    imports: tuple[str, ...] = ()
    python: str = ""  # its interpreter; "": the host's usual one
    binds: tuple[tuple[str, str], ...] = ()  # (path on the host, path in the image): another language's programs
    blank: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()  # of `blank`, until it is assigned one; else while `imports` are imported
    task: str = ""  # folder on the host that is seen where the function's code will be, while `imports` are imported


class InstanceSpec(msgspec.Struct, frozen=True):
    """One instance. `code` is a folder on the host, and so is `opt`, or "" for none; sizes in MB."""

    zygote: str
    code: str
    memory_mb: int
    tmp_mb: int
    processes: int
    file_descriptors: int
    opt: str = ""


class Started(msgspec.Struct, frozen=True):
    """The instance has its identity. `listeners` are sockets in its private network: platform, egress; may be empty.

    `usage` are descriptors to read with pread: CPU time, peak memory (kernel text); empty without control groups.
    The receiver owns all of them.
    """

    number: int
    listeners: tuple[int, ...]
    usage: tuple[int, ...]
    log: int = -1  # to be read instead of the log pipe given: a blank program writes there


class Ended(msgspec.Struct, frozen=True):
    """The instance is gone, with every process in it. `error`: it never ran, and why."""

    number: int
    error: str = ""
    signal: int = 0
    code: int = 0
    out_of_memory: bool = False
    peak_mb: int = 0


class SandboxHost(Protocol):
    """Starts and ends instances."""

    async def open(
        self, on_started: Callable[[Started], None], on_ended: Callable[[Ended], None], on_note: Callable[[str], None]
    ) -> HostReport:
        """Start the host. `on_note` gets a line when something happens that the owner should know."""
        ...

    def ensure_zygote(self, spec: ZygoteSpec) -> None:
        """Boot it unless it is there; instances may be started at once, they wait for it."""
        ...

    def drop_zygote(self, key: str) -> None:
        """End it, and every instance of it."""
        ...

    def park(self, key: str, count: int) -> None:
        """How many blank instances to keep ready for this zygote."""
        ...

    def start(self, number: int, spec: InstanceSpec, pipes: tuple[int, int, int]) -> None:
        """Start instance `number` with (events to read, results to write, log to write); takes the descriptors over."""
        ...

    def kill(self, number: int) -> None:
        """End the instance's whole process tree. Unknown numbers are ignored."""
        ...

    def stats(self) -> dict[str, int]:
        """Counts for `status`: zygotes, …"""
        ...

    async def close(self) -> None:
        """End everything; returns when no process is left."""
        ...
