"""Document paths in items: what is there, and how one is written in messages."""

from __future__ import annotations

from typing import Any

from martlet.documents.dynamodb.expressions.values import AV, Item

__all__ = ["Resolved", "Steps", "clash", "get", "written"]

Steps = tuple[str | int, ...]
"""Names of attributes (str) and indexes of lists (int), placeholders replaced."""

Resolved = Steps


def written(steps: Steps) -> str:
    """As the service writes it in messages: "[a, [0], b]"."""
    return "[" + ", ".join(step if isinstance(step, str) else f"[{step}]" for step in steps) + "]"


def get(item: Item, steps: Steps) -> AV | None:
    """The value at a path, None when there is none."""
    value: Any = item.get(steps[0])  # type: ignore[arg-type]  # the first step is a name
    for step in steps[1:]:
        if value is None:
            return None
        if isinstance(step, str):
            members = value.get("M")
            value = None if members is None else members.get(step)
        else:
            elements = value.get("L")
            value = elements[step] if elements is not None and step < len(elements) else None
    return value  # type: ignore[no-any-return]


def clash(one: Steps, two: Steps) -> str | None:
    """Do two paths of an update or a projection "overlap" (one is within the other), or "conflict" (list here, map there)?"""
    for ours, theirs in zip(one, two, strict=False):
        if type(ours) is not type(theirs):
            return "conflict"
        if ours != theirs:
            return None
    return "overlap"
