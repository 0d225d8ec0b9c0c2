"""Which version an event means: "f", "f:$LATEST", "f:3" or an alias "f:live", that may be two versions by weight."""

from __future__ import annotations

from collections.abc import Mapping

from martlet.clock import random
from martlet.functions.share import Share
from martlet.types import FunctionVersion

__all__ = ["Register"]

_LATEST = ":$LATEST"


class Register:
    """Names that can be called. `published`: functions of apps, by name; `installed`: of the Lambda API, by key."""

    def __init__(self) -> None:
        self.published: dict[str, FunctionVersion] = {}
        self.installed: dict[str, FunctionVersion] = {}
        self._aliases: dict[str, tuple[str] | tuple[str, str, float]] = {}  # "f:live" -> key [, second key, its share]
        self._shares: dict[str, Share] = {}

    def share(self, name: str) -> Share:
        """What all versions of this function share."""
        return self._shares.setdefault(name, Share())

    def resolve(self, function: str) -> FunctionVersion | None:
        """The version that takes an event for `function`; None if there is none."""
        found = self.installed.get(function) or self.published.get(function)
        if found is not None:
            return found
        routes = self._aliases.get(function)
        if routes is not None:
            second = len(routes) == 3 and random.random() < routes[2]
            return self.installed.get(routes[1] if second else routes[0])  # type: ignore[misc]
        if function.endswith(_LATEST):
            name = function[: -len(_LATEST)]
            return self.installed.get(name) or self.published.get(name)
        return None

    def route(self, name: str, aliases: Mapping[str, tuple[str] | tuple[str, str, float]]) -> None:
        """All aliases of a function: each means a version, or with a share of the events a second one."""
        for alias in [alias for alias in self._aliases if alias.startswith(name + ":")]:
            del self._aliases[alias]
        for alias, to in aliases.items():
            first = _key(name, to[0])
            self._aliases[f"{name}:{alias}"] = (first,) if len(to) == 1 else (first, _key(name, to[1]), to[2])

    def forget(self, name: str) -> None:
        """The function is gone, with all that leads to it. Events that still run keep their share of it."""
        self._shares.pop(name, None)
        self.route(name, {})


def _key(name: str, version: str) -> str:
    return name if version == "$LATEST" else f"{name}:{version}"
