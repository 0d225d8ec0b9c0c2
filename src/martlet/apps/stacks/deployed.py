"""What a deployment of a template says of itself. Imports little: everybody loads this."""

from __future__ import annotations

import msgspec

__all__ = ["ROOM", "StackDeployment"]

ROOM = "stacks"  # the first part of every key of this part of the store


class StackDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment of a template did, or with `dry_run` would do. `changes` are lines for people; () for none."""

    app: str
    revision: int
    status: str
    outputs: dict[str, str]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    resources: int
    duration_ms: int
    dry_run: bool = False
    stack_id: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """As of any deployment: () if nothing changed."""
        return self.changes
