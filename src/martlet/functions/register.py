"""Which version an event means: "f", "f:$LATEST", "f:3" or an alias "f:live", that may be two versions by weight."""

from __future__ import annotations

from collections.abc import Mapping

from martlet.clock import random
from martlet.functions.share import Share
from martlet.types import FunctionVersion

__all__ = ["Register"]

_LATEST = ":$LATEST"
_GOLDEN = 0.6180339887498949


class Register:
    """Names that can be called. `published`: functions of apps, by name; `installed`: of the Lambda API, by key."""

    def __init__(self) -> None:
        self.published: dict[str, FunctionVersion] = {}
        self.installed: dict[str, FunctionVersion] = {}
        self._aliases: dict[str, tuple[str] | tuple[str, str, float]] = {}  # "f:live" -> key [, second key, its share]
        self._shares: dict[str, Share] = {}
        self._weyl: dict[str, float] = {}  # of each alias, where its sequence is

    def share(self, name: str) -> Share:
        """What all versions of this function share."""
        return self._shares.setdefault(name, Share())

    def resolve(self, function: str, *, choose: bool = True) -> FunctionVersion | None:
        """The version that takes an event for `function`; None if there is none. Without `choose`, an alias is its first.

        The choice between two versions goes in steps of the golden ratio (a Weyl sequence): it looks like chance, but after
        any number of events the shares are those of the weights to within a few events.
        """
        found = self.installed.get(function) or self.published.get(function)
        if found is not None:
            return found
        routes = self._aliases.get(function)
        if routes is not None:
            second = False
            if choose and len(routes) == 3:
                at = self._weyl[function] = ((self._weyl.get(function) or random.random()) + _GOLDEN) % 1.0
                second = at < routes[2]
            return self.installed.get(routes[1] if second else routes[0])  # type: ignore[misc]
        if function.endswith(_LATEST):
            name = function[: -len(_LATEST)]
            return self.installed.get(name) or self.published.get(name)
        return None

    def route(self, name: str, aliases: Mapping[str, tuple[str] | tuple[str, str, float]]) -> None:
        """All aliases of a function: each means a version, or with a share of the events a second one."""
        for alias in [alias for alias in self._aliases if alias.startswith(name + ":")]:
            del self._aliases[alias]
            self._weyl.pop(alias, None)
        for alias, to in aliases.items():
            first = _key(name, to[0])
            self._aliases[f"{name}:{alias}"] = (first,) if len(to) == 1 else (first, _key(name, to[1]), to[2])

    def forget(self, name: str) -> None:
        """The function is gone, with all that leads to it. Events that still run keep their share of it."""
        self._shares.pop(name, None)
        self.route(name, {})


def _key(name: str, version: str) -> str:
    return name if version == "$LATEST" else f"{name}:{version}"
