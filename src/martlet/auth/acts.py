"""What a request was decided to do: each decision of `authorize` is noted for the request in which it was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from martlet.types import Principal

__all__ = ["Act", "noted", "witness"]


class Act(NamedTuple):
    """`principal` asked to do `action` on `resource`; whether it might is in the answer."""

    principal: Principal
    action: str
    resource: str


_acts: ContextVar[list[Act] | None] = ContextVar("acts", default=None)


def noted(principal: Principal, action: str, resource: str) -> None:
    """Called by `authorize`, whatever it decides."""
    acts = _acts.get()
    if acts is not None:
        acts.append(Act(principal, action, resource))


@contextmanager
def witness() -> Iterator[list[Act]]:
    """The acts of everything that runs inside, also in tasks that it starts."""
    acts: list[Act] = []
    token = _acts.set(acts)
    try:
        yield acts
    finally:
        _acts.reset(token)
