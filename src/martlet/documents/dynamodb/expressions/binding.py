"""Names put into a tree: which attributes its paths mean, which variables it uses, and what is wrong with it.

An expression's errors come in the service's order, not in the order of the text; they are collected by kind while the tree is
walked. Some depend on the values of the request: these are kept as checks that each request runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from martlet.documents.dynamodb.expressions.paths import Steps
from martlet.documents.dynamodb.expressions.syntax import Path
from martlet.documents.dynamodb.expressions.values import AV
from martlet.documents.dynamodb.expressions.words import is_reserved

__all__ = ["UNDEFINED_NAME", "UNDEFINED_VALUE", "Binder", "Values"]

Values = Mapping[str, AV]

UNDEFINED_NAME = "An expression attribute name used in the document path is not defined; attribute name: "
UNDEFINED_VALUE = "An expression attribute value used in expression is not defined; attribute value: "

Check = Callable[[Values], str | None]
"""What is wrong given these values, or None."""


class Binder:
    """Resolves the placeholders of one tree."""

    __slots__ = ("names", "reserved", "used_names", "used_values")

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.reserved = ""
        self.used_names: set[str] = set()
        self.used_values: set[str] = set()

    def steps(self, path: Path) -> tuple[Steps, str | None]:
        """The path with its names put in, and what is wrong with one of them."""
        problem = None
        steps: list[str | int] = []
        for step in path.steps:
            if isinstance(step, int):
                steps.append(step)
            elif step[0] == "#":
                self.used_names.add(step)
                name = self.names.get(step)
                if name is None:
                    problem = problem or UNDEFINED_NAME + step
                steps.append(step if name is None else name)
            else:
                if not self.reserved and is_reserved(step):
                    self.reserved = "Attribute name is a reserved keyword; reserved keyword: " + step
                steps.append(step)
        return tuple(steps), problem
