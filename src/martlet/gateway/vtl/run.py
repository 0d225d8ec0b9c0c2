"""Rendering: the meaning of each node. Names resolve in the variables, in dicts and in the closed list of methods only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from martlet.gateway.vtl.methods import call_method, get_property
from martlet.gateway.vtl.nodes import (
    Binary,
    Block,
    Break,
    Call,
    Define,
    Escaped,
    Expression,
    Foreach,
    If,
    Index,
    Interpolated,
    ListOf,
    Literal,
    MacroCall,
    MapOf,
    Node,
    Not,
    Property,
    Range,
    Reference,
    Set,
    Stop,
    Text,
)
from martlet.gateway.vtl.parse import Macro, parse
from martlet.gateway.vtl.values import Budget, TemplateFailed, to_text
from martlet.limits import LIMITS

__all__ = ["Template", "compile_template"]

_ROUNDS_AT_MOST: Final = LIMITS["template_loop_rounds"].default
_CALL_DEPTH: Final = 20  # Velocity: velocimacro.max.depth


class _BreakLoop(Exception):
    """#break."""


class _StopAll(Exception):
    """#stop."""


class Template:
    """A compiled template: immutable, to be rendered any number of times."""

    __slots__ = ("_block", "_macros")

    def __init__(self, text: str) -> None:
        self._block, self._macros = parse(text)

    def render(self, variables: Mapping[str, Any], budget: Budget | None = None) -> str:
        """The output. `variables` are dicts, lists, texts, numbers and `Host`s; dicts among them may be changed by `#set`.

        Raises `TemplateFailed` for a wrong argument, a division of the wrong kind, or a limit.
        """
        run = _Run(dict(variables), self._macros, budget or Budget())
        out: list[str] = []
        try:
            run.block(self._block, out)
        except (_StopAll, _BreakLoop):
            pass  # what came before counts
        except RecursionError:
            raise TemplateFailed("the mapping template nests too deep") from None
        return "".join(out)


@lru_cache(maxsize=512)
def compile_template(text: str) -> Template:
    """Raises `TemplateSyntax`, `LimitExceeded`."""
    return Template(text)


class _Defined:
    """What #define leaves: rendered anew wherever it is used."""

    __slots__ = ("_body", "_run")

    def __init__(self, run: _Run, body: Block) -> None:
        self._run = run
        self._body = body

    def printed(self) -> str:
        return self._run.nested(self._body)


class _Loop:
    """`$foreach`."""

    __slots__ = ("index", "parent", "size")

    def __init__(self, size: int, parent: Any) -> None:
        self.index = 0
        self.size = size
        self.parent = parent

    def property(self, name: str) -> Any:
        if name == "hasNext":
            return self.index < self.size - 1
        known = {
            "index": self.index,
            "count": self.index + 1,
            "first": self.index == 0,
            "last": self.index == self.size - 1,
            "parent": self.parent,
        }
        return known.get(name)

    def call(self, name: str, arguments: list[Any], budget: Budget) -> Any:
        if arguments:
            return None
        bean = name.removeprefix("get") if name.startswith("get") else name.removeprefix("is")
        return self.property(name if name == "hasNext" else bean[:1].lower() + bean[1:])


class _Run:
    """One rendering."""

    def __init__(self, variables: dict[str, Any], macros: dict[str, Macro], budget: Budget) -> None:
        self.variables = variables
        self.macros = macros
        self.budget = budget
        self.depth = 0

    # nodes

    def block(self, block: Block, out: list[str]) -> None:
        for node in block:
            self.budget.step()
            if isinstance(node, Text):
                out.append(self.budget.text(node.text))
            elif isinstance(node, Reference):
                out.append(self.budget.text(to_text(self.reference(node), self.budget)))
            else:
                self.directive(node, out)

    def directive(self, node: Node, out: list[str]) -> None:
        if isinstance(node, Set):
            self.set(node.target, self.value(node.value))
        elif isinstance(node, If):
            self.block(self.branch(node), out)
        elif isinstance(node, Foreach):
            self.foreach(node, out)
        elif isinstance(node, Define):
            self.variables[node.name] = _Defined(self, node.body)
        elif isinstance(node, MacroCall):
            self.macro(node, out)
        elif isinstance(node, Escaped):
            known = self.reference(node.reference) is not None
            out.append(self.budget.text(node.source if known else "\\" + node.source))
        elif isinstance(node, Break):
            raise _BreakLoop
        elif isinstance(node, Stop):
            raise _StopAll

    def nested(self, block: Block) -> str:
        """A block's own output."""
        self.depth += 1
        if self.depth > _CALL_DEPTH:
            raise TemplateFailed("the mapping template calls itself too often")
        out: list[str] = []
        self.block(block, out)
        self.depth -= 1
        return "".join(out)

    def branch(self, node: If) -> Block:
        for condition, body in node.branches:
            if truth(self.value(condition)):
                return body
        return node.otherwise

    def foreach(self, node: Foreach, out: list[str]) -> None:
        items = self.items(self.value(node.items))
        names = (node.variable, "foreach", "velocityCount", "velocityHasNext")
        before = {name: self.variables[name] for name in names if name in self.variables}
        loop = _Loop(len(items), before.get("foreach"))
        try:
            for index, item in enumerate(items):
                if index >= _ROUNDS_AT_MOST:
                    raise TemplateFailed(f"limit template_loop_rounds: #foreach runs {_ROUNDS_AT_MOST} times at most")
                loop.index = index
                self.variables[node.variable] = item
                self.variables["foreach"] = loop
                self.variables["velocityCount"] = index + 1
                self.variables["velocityHasNext"] = index < len(items) - 1
                self.block(node.body, out)
        except _BreakLoop:
            pass
        finally:
            for name in names:
                self.variables.pop(name, None)
            self.variables.update(before)

    def items(self, value: Any) -> list[Any]:
        if isinstance(value, dict):
            found = list(value.values())
        elif isinstance(value, (list, tuple)):
            found = list(value)
        else:
            return []
        self.budget.step(len(found))
        return found

    def macro(self, node: MacroCall, out: list[str]) -> None:
        known = self.macros.get(node.name)
        if known is None:
            return  # its definition was within a string that never rendered
        parameters, body = known
        values = [self.value(argument) for argument in node.arguments]
        before = {name: self.variables[name] for name in parameters if name in self.variables}
        for index, name in enumerate(parameters):
            self.variables[name] = values[index] if index < len(values) else None
        try:
            out.append(self.nested(body))
        finally:
            for name in parameters:
                self.variables.pop(name, None)
            self.variables.update(before)

    # references

    def reference(self, node: Reference) -> Any:
        value = self.variables.get(node.name)
        for accessor in node.path:
            if value is None:
                return None
            self.budget.step()
            if isinstance(accessor, Property):
                value = get_property(value, accessor.name)
            elif isinstance(accessor, Call):
                arguments = [self.value(argument) for argument in accessor.arguments]
                value = call_method(value, accessor.name, arguments, self.budget)
            else:
                value = self.index(value, self.value(accessor.key))
        return value

    @staticmethod
    def index(value: Any, key: Any) -> Any:
        if isinstance(value, dict):
            return value.get(key) if isinstance(key, (str, int, float)) else None
        if isinstance(value, list) and type(key) is int:
            if not -len(value) <= key < len(value):
                raise TemplateFailed(f"the mapping template asks for item {key} of a list of {len(value)}")
            return value[key]
        return None

    def set(self, target: Reference, value: Any) -> None:
        if not target.path:
            self.variables[target.name] = value
            return
        holder = self.reference(Reference(target.name, target.path[:-1]))
        last = target.path[-1]
        key: Any = None
        if isinstance(last, Property):
            key = last.name
        elif isinstance(last, Index):
            key = self.value(last.key)
        if isinstance(holder, dict):
            if isinstance(key, (str, int)):
                holder[key] = value
        elif isinstance(holder, list) and type(key) is int and 0 <= key < len(holder):
            holder[key] = value

    # expressions

    def value(self, node: Expression) -> Any:
        self.budget.step()
        if isinstance(node, Reference):
            return self.reference(node)
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Interpolated):
            return self.nested(node.block)
        if isinstance(node, Binary):
            return self.binary(node)
        if isinstance(node, Not):
            return not truth(self.value(node.operand))
        if isinstance(node, ListOf):
            return [self.value(item) for item in node.items]
        if isinstance(node, MapOf):
            return {self.key(key): self.value(item) for key, item in node.items}
        return self.range(node)

    def key(self, node: Expression) -> Any:
        key = self.value(node)
        if not isinstance(key, (str, int, float)):
            raise TemplateFailed("the mapping template makes a map whose key is neither text nor a number")
        return key

    def range(self, node: Range) -> Any:
        first, last = self.value(node.first), self.value(node.last)
        if type(first) is not int or type(last) is not int:
            return None
        self.budget.step(abs(last - first) + 1)
        return list(range(first, last + 1)) if first <= last else list(range(first, last - 1, -1))

    def binary(self, node: Binary) -> Any:
        operator = node.operator
        if operator == "and":
            return truth(self.value(node.left)) and truth(self.value(node.right))
        if operator == "or":
            return truth(self.value(node.left)) or truth(self.value(node.right))
        left, right = self.value(node.left), self.value(node.right)
        if operator in ("==", "!="):
            return self.same(left, right) is (operator == "==")
        if operator in ("<", ">", "<=", ">="):
            return compare(operator, left, right)
        return self.arithmetic(operator, left, right)

    def same(self, left: Any, right: Any) -> bool:
        """Numbers by value, other kinds by their text when the kinds differ; nothing also equals "" (recorded)."""
        if left is None or right is None:
            return left in (None, "") and right in (None, "")
        if isinstance(left, bool) or isinstance(right, bool):
            return left is right or to_text(left, self.budget) == to_text(right, self.budget)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return left == right
        if type(left) is type(right):
            if not isinstance(left, str):
                self.budget.step(len(left) if isinstance(left, (list, dict)) else 1)
            return bool(left == right)
        return to_text(left, self.budget) == to_text(right, self.budget)

    def arithmetic(self, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and (isinstance(left, str) or isinstance(right, str)):
            return self.budget.text(to_text(left, self.budget) + to_text(right, self.budget))
        if not _number(left) or not _number(right):
            return None
        try:
            if operator == "+":
                made = left + right
            elif operator == "-":
                made = left - right
            elif operator == "*":
                made = left * right
            else:
                made = _divided(operator, left, right)
        except OverflowError:
            return None
        return self.budget.integer(made) if isinstance(made, int) else made


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _divided(operator: str, left: Any, right: Any) -> Any:
    """Java's: integers divide towards zero, the remainder has the sign of the left side; by zero is nothing."""
    if right == 0:
        return None
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        quotient = quotient if (left < 0) is (right < 0) else -quotient
        return quotient if operator == "/" else left - quotient * right
    return left / right if operator == "/" else math.fmod(left, right)


def compare(operator: str, left: Any, right: Any) -> bool:
    """Only numbers are compared; anything else is false."""
    if not _number(left) or not _number(right):
        return False
    return bool({"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator])


def truth(value: Any) -> bool:
    """Velocity 1.7: everything but false and nothing."""
    return value is not None and value is not False
