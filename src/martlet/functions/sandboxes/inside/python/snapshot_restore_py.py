"""The module that Lambda's Python runtimes have for SnapStart: hooks around a snapshot (AWS: "Runtime hooks for SnapStart").

A function's own copy, from PyPI, goes before this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_before: list[Hook] = []
_after: list[Hook] = []


def register_before_snapshot(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Call `func` before the snapshot; the last one registered goes first. Also a decorator."""
    _before.append((func, args, kwargs))
    return func


def register_after_restore(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Call `func` after the restore, in the order of registration. Also a decorator."""
    _after.append((func, args, kwargs))
    return func


def get_before_snapshot() -> list[Hook]:
    return _before


def get_after_restore() -> list[Hook]:
    return _after
