"""Charter: the ways to say what an app is. Each source is one file here: it recognises a package and yields its resource
graph as plain data, which `apps.graph` then checks. A source never applies anything and never trusts what it read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from martlet.apps.ports import Build, Functions
from martlet.apps.sources import decorators

__all__ = ["SOURCES", "Source"]


class Source(Protocol):
    """A way to declare an app."""

    def entry_module(self, folder: Path, names: frozenset[str]) -> str | None:
        """The module or template that declares the app in `folder`, whose files are `names`; None: not of this kind.

        Raises `DeployFailed` when the package says it is of this kind but is wrong."""
        ...

    async def read(self, functions: Functions, *, app: str, code: str, layer: str, entry: str) -> Build:
        """The declared graph. Raises `DeployFailed`."""
        ...


SOURCES: dict[str, Source] = {"decorators": decorators.Decorators()}
