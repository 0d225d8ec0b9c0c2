"""Conditions: ConditionExpression, FilterExpression and the tree of a KeyConditionExpression.

A parsed condition is compiled once for its text and its names; with each request's values it is only checked. Errors come in
the service's order: brackets, functions by name, functions by place, reserved words; then, condition by condition, undefined
variables, numbers of operands, operands that are the same, types of operands.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import msgspec

from martlet.documents.dynamodb.expressions import paths, syntax, values
from martlet.documents.dynamodb.expressions.binding import UNDEFINED_VALUE, Binder, Check, Values
from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.documents.dynamodb.expressions.lexing import Tokens
from martlet.documents.dynamodb.expressions.memory import Memory
from martlet.documents.dynamodb.expressions.names import Names
from martlet.documents.dynamodb.expressions.values import AV, Item

__all__ = ["Condition", "Plan", "compile_condition", "parse_condition", "plan_of"]

OPERATORS: Final = 300  # the service's limit of operators in one expression
_OPERANDS: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
_ORDERED: Final = frozenset(("<", "<=", ">", ">=", "BETWEEN"))
_SCALARS: Final = frozenset(("S", "N", "B", "BOOL", "NULL"))
_TRUE: Final = {"BOOL": True}
_FALSE: Final = {"BOOL": False}
_TYPE_SET: Final = "{B,NULL,SS,BOOL,L,BS,N,NS,S,M}"

Holds = Callable[[Item, Values], bool]
Get = Callable[[Item, Values], AV | None]


class Plan(msgspec.Struct, frozen=True):
    """A condition compiled for its text and names: what each request has to check and the test itself."""

    tree: syntax.Condition
    names: frozenset[str]
    variables: frozenset[str]
    checks: tuple[Check, ...]
    holds: Holds
    steps: tuple[paths.Steps, ...]
    resolve: Callable[[syntax.Path], paths.Steps]


class Condition:
    """A condition with the values of one request."""

    __slots__ = ("_holds", "_values", "plan")

    def __init__(self, plan: Plan, values: Values) -> None:
        self.plan = plan
        self._holds = plan.holds
        self._values = values

    def holds(self, item: Item) -> bool:
        """Does the item ({} where there is none) fulfil it?"""
        return self._holds(item, self._values)

    def paths(self) -> tuple[paths.Steps, ...]:
        """The paths that it reads."""
        return self.plan.steps

    def attributes(self) -> frozenset[str]:
        """The top-level attributes that it reads."""
        return frozenset(str(steps[0]) for steps in self.plan.steps)


_plans: Memory[Plan] = Memory()


def parse_condition(text: str, names: Names, kind: str = "ConditionExpression") -> Condition:
    """A condition or filter. Raises `ServiceError` (ValidationException: "Invalid <kind>: …")."""
    return Condition(plan_of(text, names, kind), names.values)


def plan_of(text: str, names: Names, kind: str) -> Plan:
    """The compiled condition, checked with the request's values, its variables marked as used."""
    plan = _plans.get((kind, text, names.key), len(text) + names.weight, lambda: _compile(text, names, kind))
    names.use(plan.names, plan.variables)
    for check in plan.checks:
        problem = check(names.values)
        if problem is not None:
            raise invalid(f"Invalid {kind}: {problem}")
    return plan


def _compile(text: str, names: Names, kind: str) -> Plan:
    tokens = Tokens(kind, text)
    parsed = syntax.condition(tokens)
    if parsed.operators > OPERATORS:
        raise tokens.fail(f"The expression contains too many operators; operator count: {OPERATORS + 1}")
    if parsed.too_many:
        raise tokens.fail(f"The IN operator is provided with too many operands; number of operands: {parsed.too_many}")
    if parsed.redundant:
        raise tokens.fail("The expression has redundant parentheses;")
    tree = parsed.tree
    assert not isinstance(tree, tuple)
    problem, plan = compile_condition(tree, Binder(names.names))
    if problem:
        raise tokens.fail(problem)
    return plan


def compile_condition(tree: syntax.Condition, binder: Binder) -> tuple[str, Plan]:
    """What is wrong with a tree whatever the values are ("" if nothing), and the tree compiled."""
    walk = _Walk(binder)
    holds = walk.condition(tree)
    steps = tuple(dict.fromkeys(walk.steps))
    used, variables = frozenset(binder.used_names), frozenset(binder.used_values)
    plan = Plan(tree, used, variables, tuple(walk.checks), holds, steps, lambda path: binder.steps(path)[0])
    return walk.unknown or walk.misused or binder.reserved, plan


class _Walk:
    """One pass over a tree: compiles it and collects what may be wrong."""

    def __init__(self, binder: Binder) -> None:
        self.binder = binder
        self.unknown = ""
        self.misused = ""
        self.checks: list[Check] = []
        self.leaf: list[tuple[int, Check]] = []
        self.steps: list[paths.Steps] = []

    def condition(self, node: syntax.Condition) -> Holds:
        negated = False
        while isinstance(node, syntax.Not):
            negated = not negated
            node = node.condition
        if isinstance(node, syntax.Logic):
            holds = _joined(node.operator, [self.condition(each) for each in node.conditions])
        else:
            self.leaf = []
            holds = self.test(node) if isinstance(node, syntax.Test) else self.function(node)
            self.checks += [check for _, check in sorted(self.leaf, key=lambda entry: entry[0])]
        return _not(holds) if negated else holds

    def test(self, node: syntax.Test) -> Holds:
        operator, operands = node.operator, node.operands
        got = [self.operand(each) for each in operands]
        if operator in _ORDERED:
            for operand in operands:
                self.typed(operator, operand, _unordered)
        if operator == "BETWEEN":
            low, high = operands[1], operands[2]
            if isinstance(low, syntax.Value) and isinstance(high, syntax.Value):
                self.leaf.append((3, _bounds(low.name, high.name)))
            return _between(*got)
        if operator == "IN":
            return _in(got[0], got[1:])
        self.distinct(operator, operands)
        return _comparison(operator, got[0], got[1])

    def function(self, node: syntax.Call) -> Holds:
        if node.name == "size" and not self.misused:
            self.misused = "The function is not allowed to be used this way in an expression; function: size"
        got = self.call(node)
        if len(got) != _OPERANDS.get(node.name):
            return lambda item, values: False  # there is an error already
        if node.name in ("attribute_exists", "attribute_not_exists"):
            return self.existence(node)
        return _FUNCTIONS.get(node.name, _contains)(got[0], got[-1])

    def existence(self, node: syntax.Call) -> Holds:
        wanted = node.name == "attribute_exists"
        path = node.operands[0]
        if not isinstance(path, syntax.Path):
            return lambda item, values: False
        steps, _ = self.binder.steps(path)
        name = steps[0]
        if len(steps) > 1:
            return lambda item, values: (paths.get(item, steps) is not None) is wanted
        return (lambda item, values: name in item) if wanted else (lambda item, values: name not in item)

    def call(self, node: syntax.Call) -> list[Get]:
        """A function's operands; what is wrong with the call is noted."""
        name = node.name
        if name not in _OPERANDS and not self.unknown:
            update = name in ("if_not_exists", "list_append")
            self.unknown = (
                f"The function is not allowed in a condition expression; function: {name}"
                if update
                else f"Invalid function name; function: {name}"
            )
        got = [self.operand(each) for each in node.operands]
        count = len(got)
        if count != _OPERANDS.get(name, count):
            problem = (
                "Incorrect number of operands for operator or function; "
                f"operator or function: {name}, number of operands: {count}"
            )
            self.leaf.append((1, lambda values: problem))
            return got
        self.distinct(name, node.operands)
        self.types(name, node.operands)
        return got

    def types(self, name: str, operands: tuple[syntax.Operand, ...]) -> None:
        if name in ("attribute_exists", "attribute_not_exists"):
            if not isinstance(operands[0], syntax.Path):
                problem = f"Operator or function requires a document path; operator or function: {name}"
                self.leaf.append((3, lambda values: problem))
        elif name == "begins_with":
            for operand in operands:
                self.typed(name, operand, lambda kind: kind not in ("S", "B"))
        elif name == "size":
            self.typed(name, operands[0], lambda kind: kind in ("N", "BOOL", "NULL"))
        elif name == "attribute_type":
            self.leaf.append((3, _attribute_type(operands[1])))

    def typed(self, name: str, operand: syntax.Operand, wrong: Callable[[str], bool]) -> None:
        """Note a check of the type of an operand that is known before any item is."""
        text = f"Incorrect operand type for operator or function; operator or function: {name}, operand type: "
        if isinstance(operand, syntax.Call | syntax.Truth):
            known = "BOOL" if isinstance(operand, syntax.Truth) else "N"
            if wrong(known):
                self.leaf.append((3, lambda values: text + known))
            return
        if isinstance(operand, syntax.Value):
            variable = operand.name

            def check(values: Values) -> str | None:
                kind = next(iter(values[variable]))
                return text + kind if wrong(kind) else None

            self.leaf.append((3, check))

    def distinct(self, name: str, operands: tuple[syntax.Operand, ...]) -> None:
        if len(operands) == 2 and isinstance(operands[0], syntax.Path) and isinstance(operands[1], syntax.Path):
            first = self.binder.steps(operands[0])[0]
            if first == self.binder.steps(operands[1])[0]:
                problem = (
                    "The first operand must be distinct from the remaining operands for this operator or function; "
                    f"operator: {name}, first operand: {paths.written(first)}"
                )
                self.leaf.append((2, lambda values: problem))

    def operand(self, node: syntax.Operand) -> Get:
        if isinstance(node, syntax.Value):
            return self.variable(node.name)
        if isinstance(node, syntax.Path):
            steps, problem = self.binder.steps(node)
            self.steps.append(steps)
            if problem is not None:
                self.leaf.append((0, lambda values: problem))
            name = str(steps[0])
            if len(steps) == 1:
                return lambda item, values: item.get(name)
            return lambda item, values: paths.get(item, steps)
        if isinstance(node, syntax.Truth):
            return self.truth(node)
        if node.name != "size" and not self.misused:
            self.misused = f"The function is not allowed to be used this way in an expression; function: {node.name}"
        got = self.call(node)
        return _size(got[0])

    def truth(self, node: syntax.Truth) -> Get:
        outer = self.leaf
        holds = self.condition(node.condition)
        self.leaf = outer
        return lambda item, values: _TRUE if holds(item, values) else _FALSE

    def variable(self, name: str) -> Get:
        self.binder.used_values.add(name)
        self.leaf.append((0, lambda values: None if name in values else UNDEFINED_VALUE + name))
        return lambda item, values: values[name]


def _unordered(kind: str) -> bool:
    return kind not in ("S", "N", "B")


def _attribute_type(operand: syntax.Operand) -> Check:
    text = "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: "
    if not isinstance(operand, syntax.Value):
        kind = (
            "N"
            if isinstance(operand, syntax.Call)
            else "BOOL"
            if isinstance(operand, syntax.Truth)
            else "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
        )
        return lambda values: text + kind
    variable = operand.name

    def check(values: Values) -> str | None:
        kind = values[variable]
        if "S" not in kind:
            return text + next(iter(kind))
        if kind["S"] not in _TYPES:
            return f"Invalid attribute type name found; type: {kind['S']}, valid types: {_TYPE_SET}"
        return None

    return check


_TYPES: Final = frozenset(values.TYPES)


def _bounds(low: str, high: str) -> Check:
    def check(given: Values) -> str | None:
        order = values.compare(given[low], given[high])
        if order is not None and order <= 0:
            return None
        rule = (
            "same data type for lower and upper bounds"
            if order is None
            else ("upper bound to be greater than or equal to lower bound")
        )
        return (
            f"The BETWEEN operator requires {rule}; lower bound operand: {_shown(given[low])}, "
            f"upper bound operand: {_shown(given[high])}"
        )

    return check


def _shown(value: AV) -> str:
    ((kind, content),) = value.items()
    return f"AttributeValue: {{{kind}:{base64.b64encode(content).decode() if kind == 'B' else content}}}"


# Closures. Each takes an item and the request's values.


def _not(holds: Holds) -> Holds:
    return lambda item, values: not holds(item, values)


def _joined(operator: str, conditions: list[Holds]) -> Holds:
    if len(conditions) == 2:
        one, two = conditions
        if operator == "AND":
            return lambda item, values: one(item, values) and two(item, values)
        return lambda item, values: one(item, values) or two(item, values)
    decides = operator == "OR"

    def holds(item: Item, values: Values) -> bool:
        for condition in conditions:
            if condition(item, values) is decides:
                return decides
        return not decides

    return holds


def _comparison(operator: str, left: Get, right: Get) -> Holds:
    if operator in ("=", "<>"):
        wanted = operator == "="

        def same(item: Item, given: Values) -> bool:
            one, two = left(item, given), right(item, given)
            if one is None or two is None:
                return not wanted  # what is not there is equal to nothing
            return _equal(one, two) is wanted

        return same
    less, equal = operator[0] == "<", len(operator) == 2

    def ordered(item: Item, given: Values) -> bool:
        one, two = left(item, given), right(item, given)
        if one is None or two is None:
            return False
        order = values.compare(one, two)
        if not order:
            return equal and order == 0
        return (order < 0) is less

    return ordered


def _equal(one: AV, two: AV) -> bool:
    if one == two:
        return True
    for kind in one:
        return kind not in _SCALARS and values.equals(one, two)
    return False


def _between(value: Get, low: Get, high: Get) -> Holds:
    def holds(item: Item, given: Values) -> bool:
        one, least, most = value(item, given), low(item, given), high(item, given)
        if one is None or least is None or most is None:
            return False
        below, above = values.compare(least, one), values.compare(one, most)
        return below is not None and above is not None and below <= 0 and above <= 0

    return holds


def _in(value: Get, choices: list[Get]) -> Holds:
    def holds(item: Item, given: Values) -> bool:
        one = value(item, given)
        if one is None:
            return False
        for choice in choices:
            other = choice(item, given)
            if other is not None and _equal(one, other):
                return True
        return False

    return holds


def _begins_with(value: Get, prefix: Get) -> Holds:
    def holds(item: Item, given: Values) -> bool:
        one, two = value(item, given), prefix(item, given)
        if one is None or two is None:
            return False
        for kind in ("S", "B"):
            if kind in one:
                return kind in two and bool(one[kind].startswith(two[kind]))
        return False

    return holds


def _contains(value: Get, member: Get) -> Holds:
    def holds(item: Item, given: Values) -> bool:
        one, two = value(item, given), member(item, given)
        if one is None or two is None:
            return False
        kind, content = next(iter(one.items()))
        if kind in ("S", "B"):
            return kind in two and two[kind] in content
        if kind in ("SS", "NS", "BS"):
            return kind[0] in two and two[kind[0]] in content
        return kind == "L" and any(_equal(each, two) for each in content)

    return holds


def _has_type(value: Get, kind: Get) -> Holds:
    def holds(item: Item, given: Values) -> bool:
        one, wanted = value(item, given), kind(item, given)
        return one is not None and wanted is not None and wanted.get("S") in one

    return holds


def _size(value: Get) -> Get:
    def size(item: Item, given: Values) -> AV | None:
        one = value(item, given)
        if one is None:
            return None
        for kind, content in one.items():
            if kind == "S":
                return {"N": str(values.size(one))}
            if kind not in _SCALARS or kind == "B":
                return {"N": str(len(content))}
        return None  # numbers, booleans and null have none

    return size


_FUNCTIONS: Final[dict[str, Callable[[Get, Get], Holds]]] = {
    "begins_with": _begins_with,
    "contains": _contains,
    "attribute_type": _has_type,
}
