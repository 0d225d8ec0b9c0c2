"""What the versions of one function share: its reserved concurrency."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Share"]


class _Pool(Protocol):
    inflight: int
    version: Any


class Share:
    """Events that run or wait, of all versions of one function, also of those that a deployment has just replaced.

    Provisioned instances of a version are its own part of the reserved number: the others share what is left, as in Lambda
    (a function with 1 reserved and 1 provisioned on version 1 throttles $LATEST).
    """

    __slots__ = ("inflight", "provisioned", "reserved")

    def __init__(self, reserved: int | None = None) -> None:
        self.reserved = reserved  # most events at one time; None: no limit of its own; 0 switches the function off
        self.inflight = 0
        self.provisioned: list[_Pool] = []  # pools with instances of their own

    def is_full(self, pool: _Pool) -> bool:
        """Whether `pool` may take no more events now. Only asked when `reserved` is set."""
        reserved = self.reserved or 0
        if not reserved or not self.provisioned:
            return self.inflight >= reserved
        own = shared = 0
        for other in self.provisioned:
            count = other.version.config.provisioned
            own += count
            shared += min(other.inflight, count)
        if pool.inflight < pool.version.config.provisioned:
            return False
        return self.inflight - shared >= reserved - own
