"""Host, method and path to a route, as API Gateway's HTTP APIs choose it. Compiled once, never changed.

Of the routes of an app that allow the method, the most specific path wins: literal segments, then `{param}`, then a
greedy `{proxy+}`, then `$default`; for one path an exact method wins over ANY. Several routes may fit the same requests if all
but one are conditional (`Route.conditional`): those come first, in the order given, and whether one takes a request is the
caller's to find out, who then asks for `every` route that fits.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
Segments are compared percent-decoded, after the raw path was split at "/": "%2F" never separates segments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from martlet.errors import InvalidInput
from martlet.types import Route

__all__ = ["Elsewhere", "Match", "MethodNotAllowed", "RouteTable"]

_PARAMETER: Final = re.compile(r"\{([A-Za-z0-9_.-]+)(\+?)\}")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]*")
_REMEMBERED_HOSTS: Final = 1024


class Match:
    """A route that fits. `plan` is what the table's owner compiled for the route; `path_params` are decoded text."""

    __slots__ = ("app", "function", "path_params", "plan", "route")

    def __init__(self, app: str, route: Route, function: str, plan: Any, path_params: dict[str, str] | None = None) -> None:
        self.app = app
        self.route = route
        self.function = function
        self.plan = plan
        self.path_params = path_params or {}


class MethodNotAllowed:
    """The path exists, the method does not. `allow` lists the methods that do, sorted."""

    __slots__ = ("allow",)

    def __init__(self, allow: Iterable[str]) -> None:
        self.allow = tuple(sorted(allow))


class Elsewhere:
    """A host whose paths are not an app's: `kind` and `id` say whose they are. Matches everything, as itself."""

    __slots__ = ("id", "kind")

    def __init__(self, kind: str, id: str) -> None:
        self.kind = kind
        self.id = id

    def match(self, method: str, path: bytes) -> Elsewhere:
        return self

    def every(self, method: str, path: bytes) -> Iterator[Match]:
        return iter(())


_Entry = tuple[Match, tuple[str, ...]]


class _Leaf:
    """The routes of one path, by method, with the names of their parameters."""

    __slots__ = ("by_method",)

    def __init__(self) -> None:
        self.by_method: dict[str, list[_Entry]] = {}

    def add(self, match: Match, names: tuple[str, ...]) -> Match:
        """The first match now for this method."""
        entries = self.by_method.setdefault(match.route.method, [])
        _insert([known for known, _ in entries], match)
        entries.append((match, names))
        entries.sort(key=lambda entry: not entry[0].route.conditional)  # stable: conditional ones first, as they were given
        return entries[0][0]

    def find(self, method: str) -> _Entry | None:
        entries = self.by_method.get(method) or self.by_method.get("ANY")
        return entries[0] if entries else None

    def all(self, method: str) -> Iterator[_Entry]:
        yield from self.by_method.get(method, ())
        if method != "ANY":
            yield from self.by_method.get("ANY", ())


class _Node:
    """One segment of the trie."""

    __slots__ = ("children", "greedy", "leaf", "parameter")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] = {}
        self.parameter: _Node | None = None
        self.greedy: _Leaf | None = None
        self.leaf: _Leaf | None = None


class _App:
    """The routes of one app."""

    def __init__(self) -> None:
        self.static: dict[bytes, dict[str, Match]] = {}
        self.root = _Node()
        self.defaults: list[Match] = []
        self.has_parameters = False

    def add(self, match: Match) -> None:
        path, method = match.route.path, match.route.method
        if path == "$default":
            _insert(self.defaults, match)
            self.defaults.append(match)
            self.defaults.sort(key=lambda known: not known.route.conditional)
            return
        if not _METHOD.fullmatch(method):
            raise InvalidInput(f"app {match.app}: route {method} {path}: {method!r} is not a method", field="method")
        leaf, names = self._leaf(match)
        first = leaf.add(match, names)
        if not names:
            self.static.setdefault(path.encode(), {})[method] = first

    def _leaf(self, match: Match) -> tuple[_Leaf, tuple[str, ...]]:
        path = match.route.path
        if not path.startswith("/") or any(character in path for character in "?#%") or any(ord(c) <= 32 for c in path):
            raise InvalidInput(
                f"app {match.app}: route path {path!r} is not $default or a decoded path that begins with /", field="path"
            )
        node, names = self.root, []
        segments = path.split("/")[1:]
        for index, segment in enumerate(segments):
            found = _PARAMETER.fullmatch(segment)
            if found is None:
                if "{" in segment or "}" in segment:
                    raise InvalidInput(
                        f"app {match.app}: route path {path}: {segment!r} is not a whole {{parameter}}", field="path"
                    )
                node = node.children.setdefault(segment.encode(), _Node())
                continue
            self.has_parameters = True
            if found[1] in names:
                raise InvalidInput(f"app {match.app}: route path {path}: two parameters {found[1]!r}", field="path")
            names.append(found[1])
            if found[2]:
                if index != len(segments) - 1:
                    raise InvalidInput(f"app {match.app}: route path {path}: {segment} must come last", field="path")
                node.greedy = node.greedy or _Leaf()
                return node.greedy, tuple(names)
            node.parameter = node.parameter or _Node()
            node = node.parameter
        node.leaf = node.leaf or _Leaf()
        return node.leaf, tuple(names)

    def match(self, method: str, path: bytes) -> Match | MethodNotAllowed | None:
        by_method = self.static.get(path)
        if by_method is not None:
            found = by_method.get(method) or by_method.get("ANY")
            if found is not None:
                return found
        if self.has_parameters:
            found = self._descend(method, path)
            if found is not None:
                return found
        allow: set[str] = set()
        if self.has_parameters or by_method is not None or b"%" in path:
            slow = next(self._walk(method, path, allow), None)
            if slow is not None:
                return slow
        if self.defaults:
            return self.defaults[0]
        return MethodNotAllowed(allow) if allow else None

    def every(self, method: str, path: bytes) -> Iterator[Match]:
        """All routes that fit, the best first."""
        yield from self._walk(method, path, set())
        yield from self.defaults

    def _descend(self, method: str, path: bytes) -> Match | None:
        """The walk's first try, without memory: literal else parameter. What it finds is what the walk would find first."""
        if b"%" in path:
            return None
        node, values = self.root, []
        for segment in path.split(b"/")[1:]:
            child = node.children.get(segment)
            if child is None:
                child = node.parameter
                if child is None or not segment:
                    return None
                values.append(segment)
            node = child
        if node.leaf is None:
            return None
        entry = node.leaf.find(method)
        return _with_params(*entry, values) if entry is not None else None

    def _walk(self, method: str, path: bytes, allow: set[str]) -> Iterator[Match]:
        """Depth first, most specific first; greedy routes from the deepest up, after all full matches."""
        raw = path.split(b"/")[1:]
        segments = [unquote_to_bytes(segment) for segment in raw] if b"%" in path else raw
        greedy: list[tuple[int, int, _Leaf, tuple[bytes, ...]]] = []
        stack: list[tuple[_Node, int, tuple[bytes, ...]]] = [(self.root, 0, ())]
        order = 0
        while stack:
            node, depth, values = stack.pop()
            if depth == len(segments):
                if node.leaf is not None:
                    yield from _choose(node.leaf, method, values, allow)
                continue
            segment = segments[depth]
            if node.greedy is not None and (segment or depth + 1 < len(segments)):
                order += 1
                greedy.append((-depth, order, node.greedy, values))
            if node.parameter is not None and segment:
                stack.append((node.parameter, depth + 1, (*values, segment)))
            child = node.children.get(segment)
            if child is not None:
                stack.append((child, depth + 1, values))
        greedy.sort(key=lambda candidate: candidate[:2])
        for negative_depth, _, leaf, values in greedy:
            rest = unquote_to_bytes(b"/".join(raw[-negative_depth:]))
            yield from _choose(leaf, method, (*values, rest), allow)


def _choose(leaf: _Leaf, method: str, values: tuple[bytes, ...], allow: set[str]) -> Iterator[Match]:
    if leaf.find(method) is None:
        allow.update(leaf.by_method)
    for entry in leaf.all(method):
        yield _with_params(*entry, values)


def _insert(known: list[Match], match: Match) -> None:
    """Raises `InvalidInput` for a route that could never take a request: another one takes the same."""
    route = match.route
    for other in known:
        if (other.route.when, other.route.share, other.route.by) == (route.when, route.share, route.by) or not (
            other.route.conditional or route.conditional
        ):
            _conflict(match.app, other.route, route)


def _with_params(match: Match, names: tuple[str, ...], values: Sequence[bytes]) -> Match:
    if not names:
        return match
    params = {name: value.decode("utf-8", "replace") for name, value in zip(names, values, strict=True)}
    return Match(match.app, match.route, match.function, match.plan, params)


def _conflict(app: str, first: Route, second: Route) -> None:
    raise InvalidInput(
        f"app {app}: routes {first.method} {first.path} ({first.leads_to}) and {second.method} {second.path} "
        f"({second.leads_to}) conflict: both fit the same requests",
        remedy="remove one of them, or give them different methods or paths",
        field="routes",
    )


class RouteTable:
    """All routes of the platform, from (app, route, full function name).

    `domains` are the suffixes under which "<app>.<domain>" selects an app. `plan(app, route, function)` is called once a
    route; what it returns is the `plan` of its matches. Raises `InvalidInput` for a malformed path or method and for two
    routes that conflict; it names both.
    """

    def __init__(
        self,
        routes: Iterable[tuple[str, Route, str]] = (),
        *,
        domains: Iterable[str] = ("localhost",),
        plan: Callable[[str, Route, str], Any] | None = None,
    ) -> None:
        self._apps: dict[str, _App] = {}
        self._suffixes = tuple(b"." + domain.strip(".").lower().encode("idna") for domain in domains)
        self._default: str | None = None
        self._hosts: dict[bytes, _App | Elsewhere | None] = {}
        self._elsewhere: Callable[[bytes], Elsewhere | None] | None = None
        for app, route, function in routes:
            compiled = plan(app, route, function) if plan is not None else None
            self._apps.setdefault(app, _App()).add(Match(app, route, function, compiled))

    def set_default(self, app: str | None) -> None:
        """The app of hosts that name none; without it, the only app, if there is only one."""
        self._default = app
        self._hosts = {}

    def set_elsewhere(self, find: Callable[[bytes], Elsewhere | None]) -> None:
        """Asked first for each new host: whether it belongs to something else than an app."""
        self._elsewhere = find
        self._hosts = {}

    def match(self, host: bytes | None, method: str, path: bytes) -> Match | MethodNotAllowed | Elsewhere | None:
        """The route for a request: `host` with or without a port, `path` raw."""
        app = self._app(host or b"")
        return app.match(method, path) if app is not None else None

    def every(self, host: bytes | None, method: str, path: bytes) -> Iterator[Match]:
        """All routes of an app that fit a request, the best first."""
        app = self._app(host or b"")
        return app.every(method, path) if app is not None else iter(())

    def _app(self, host: bytes) -> _App | Elsewhere | None:
        hosts = self._hosts
        if host in hosts:
            app = hosts[host]
        else:
            app = self._find_app(host)
            if len(hosts) >= _REMEMBERED_HOSTS:  # hosts are the client's to invent
                hosts.clear()
            hosts[host] = app
        return app

    def _find_app(self, host: bytes) -> _App | Elsewhere | None:
        name = host.lower()
        if not name.startswith(b"["):
            name = name.partition(b":")[0].rstrip(b".")
        other = self._elsewhere(name) if self._elsewhere is not None else None
        if other is not None:
            return other
        for suffix in self._suffixes:
            if name.endswith(suffix):
                return self._apps.get(name[: -len(suffix)].decode("ascii", "replace"))
        if self._default is not None:
            return self._apps.get(self._default)
        return next(iter(self._apps.values())) if len(self._apps) == 1 else None
