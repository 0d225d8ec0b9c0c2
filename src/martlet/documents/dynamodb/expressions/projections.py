"""ProjectionExpression: the parts of an item that a read returns."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from martlet.documents.dynamodb.expressions import paths, syntax
from martlet.documents.dynamodb.expressions.binding import Binder
from martlet.documents.dynamodb.expressions.lexing import Tokens
from martlet.documents.dynamodb.expressions.memory import Memory
from martlet.documents.dynamodb.expressions.names import Names
from martlet.documents.dynamodb.expressions.paths import Steps
from martlet.documents.dynamodb.expressions.values import AV, Item

__all__ = ["Projection", "check_paths", "of_attributes", "parse_projection"]

_TREE: Final = object()


class Projection(msgspec.Struct, frozen=True):
    """Some paths of an item. `names` are the variables that its text uses."""

    steps: tuple[Steps, ...]
    names: frozenset[str] = frozenset()

    def paths(self) -> tuple[Steps, ...]:
        """What it asks for, in the order of the text."""
        return self.steps

    def attributes(self) -> frozenset[str]:
        """The top-level attributes that it reads."""
        return frozenset(str(steps[0]) for steps in self.steps)

    def of(self, item: Item) -> dict[str, AV]:
        """The item with nothing but these paths; elements of a list keep their order and close up."""
        result: dict[str, AV] = {}
        nested: dict[str, list[Steps]] = {}
        for steps in self.steps:
            name = str(steps[0])
            if name in item:
                if len(steps) == 1:
                    result[name] = item[name]
                else:
                    nested.setdefault(name, []).append(steps[1:])
        for name, rest in nested.items():
            part = _part(item[name], rest)
            if part is not None:
                result[name] = part
        return result


_projections: Memory[Projection] = Memory()


def parse_projection(text: str, names: Names) -> Projection:
    """A projection expression. Raises `ServiceError` (ValidationException: "Invalid ProjectionExpression: …")."""
    projection = _projections.get((text, names.key), len(text) + names.weight, lambda: _bind(text, names))
    names.use(projection.names, ())
    return projection


def of_attributes(attributes: list[str]) -> Projection:
    """What the legacy member AttributesToGet asks for."""
    return Projection(tuple((name,) for name in attributes))


def check_paths(found: list[Steps]) -> str | None:
    """What is wrong when of two paths one is within the other, or they need a list and a map in one place."""
    tree: dict[Any, Any] = {}
    clash: tuple[Steps, Steps, str] | None = None
    for steps in found:
        other = _plant(tree, steps)
        if other is not None:
            kind = paths.clash(other, steps) or "overlap"
            if kind == "overlap":
                clash = other, steps, kind
                break
            clash = clash or (other, steps, kind)
    if clash is None:
        return None
    one, two, kind = clash
    return (
        f"Two document paths {kind} with each other; must remove or rewrite one of these paths; "
        f"path one: {paths.written(one)}, path two: {paths.written(two)}"
    )


def _plant(tree: dict[Any, Any], steps: Steps) -> Steps | None:
    """Put a path into a tree of paths; one that it clashes with, if there is one. Linear in the path."""
    node = tree
    for step in steps:
        if _TREE in node:
            return node[_TREE]  # type: ignore[no-any-return]
        for other in node:
            if type(other) is not type(step):
                return _any(node[other])
            break
        node = node.setdefault(step, {})
    if node:
        return _any(node)
    node[_TREE] = steps
    return None


def _any(node: dict[Any, Any]) -> Steps:
    while _TREE not in node:
        node = node[next(iter(node))]
    return node[_TREE]  # type: ignore[no-any-return]


def _bind(text: str, names: Names) -> Projection:
    tokens = Tokens("ProjectionExpression", text)
    tree = syntax.projection(tokens).tree
    assert isinstance(tree, tuple)
    binder = Binder(names.names)
    found: list[Steps] = []
    undefined = ""
    for path in tree:
        assert isinstance(path, syntax.Path)
        steps, problem = binder.steps(path)
        undefined = undefined or problem or ""
        found.append(steps)
    problem = binder.reserved or undefined or check_paths(found)
    if problem:
        raise tokens.fail(problem)
    return Projection(tuple(found), frozenset(binder.used_names))


def _part(value: AV, rest: list[Steps]) -> AV | None:
    """The parts of a value at these paths (none of them empty or within another), None where there is nothing."""
    by_step: dict[str | int, list[Steps]] = {}
    for steps in rest:
        by_step.setdefault(steps[0], []).append(steps[1:])
    members = value.get("M")
    elements = value.get("L")
    if members is not None:
        found = {step: _below(members[step], deeper) for step, deeper in by_step.items() if step in members}
        found = {step: part for step, part in found.items() if part is not None}
        return {"M": found} if found else None
    if elements is not None:
        wanted = sorted(step for step in by_step if isinstance(step, int) and step < len(elements))
        parts = [_below(elements[step], by_step[step]) for step in wanted]
        parts = [part for part in parts if part is not None]
        return {"L": parts} if parts else None
    return None


def _below(value: AV, rest: list[Steps]) -> AV | None:
    return value if rest == [()] else _part(value, rest)
