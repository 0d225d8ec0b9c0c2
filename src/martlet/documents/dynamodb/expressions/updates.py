"""UpdateExpression: what SET, REMOVE, ADD and DELETE make of an item.

All that is read is read from the item as it was; indexes of lists mean its elements as they were. The item given is not
changed: the new one shares with it whatever the update does not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb.expressions import numbers, paths, syntax
from martlet.documents.dynamodb.expressions.binding import UNDEFINED_VALUE, Binder, Check, Values
from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.documents.dynamodb.expressions.lexing import Tokens
from martlet.documents.dynamodb.expressions.memory import Memory
from martlet.documents.dynamodb.expressions.names import Names
from martlet.documents.dynamodb.expressions.paths import Steps
from martlet.documents.dynamodb.expressions.projections import check_paths
from martlet.documents.dynamodb.expressions.values import AV, Item

__all__ = ["INCORRECT_TYPE", "Plan", "Update", "added", "compile_update", "deleted", "parse_update"]

OPERATORS: Final = 300  # developer guide, "Service quotas": operators or functions in an update expression
INCORRECT_TYPE: Final = "An operand in the update expression has an incorrect data type"
NOT_THERE: Final = "The provided expression refers to an attribute that does not exist in the item"
INVALID_PATH: Final = "The document path provided in the update expression is invalid for update"

_FUNCTIONS: Final = frozenset(("if_not_exists", "list_append"))
_ELSEWHERE: Final = frozenset(("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size"))
_TYPE_NAMES: Final = {
    "S": "STRING",
    "N": "NUMBER",
    "B": "BINARY",
    "NULL": "NULL",
    "BOOL": "BOOLEAN",
    "L": "LIST",
    "M": "MAP",
    "SS": "STRING_SET",
    "NS": "NUMBER_SET",
    "BS": "BINARY_SET",
}
_SETS: Final = frozenset(("SS", "NS", "BS"))

Get = Callable[[Item, Values], AV]
Tree = dict[Any, Any]  # step → Tree, or the number of the action that is there


class Plan(msgspec.Struct, frozen=True):
    """An update compiled for its text and names."""

    sections: tuple[str, ...]
    steps: tuple[Steps, ...]
    get: tuple[Get | None, ...]
    reads: tuple[Steps, ...]
    tree: Tree
    names: frozenset[str]
    variables: frozenset[str]
    checks: tuple[Check, ...]


class Update:
    """An update with the values of one request."""

    __slots__ = ("_plan", "_values")

    def __init__(self, plan: Plan, values: Values) -> None:
        self._plan = plan
        self._values = values

    def paths(self) -> tuple[Steps, ...]:
        """The paths that it writes, in the order of the text."""
        return self._plan.steps

    def reads(self) -> tuple[Steps, ...]:
        """The paths whose values it uses."""
        return self._plan.reads

    def makes(self) -> bool:
        """Whether an item that is not there comes to be by it: not by taking away alone."""
        return any(section in ("SET", "ADD") for section in self._plan.sections)

    def apply(self, item: Item) -> tuple[dict[str, AV], tuple[Steps, ...]]:
        """The new item and the paths written. Raises `ServiceError` (ValidationException) when the item does not suit."""
        plan, values = self._plan, self._values
        written: list[AV | None] = []
        for section, get in zip(plan.sections, plan.get, strict=True):
            written.append(get(item, values) if get is not None and section == "SET" else None)
        return _Run(plan, values, item, written).members(item, plan.tree), plan.steps


_plans: Memory[Plan] = Memory()


def parse_update(text: str, names: Names) -> Update:
    """An update expression. Raises `ServiceError` (ValidationException: "Invalid UpdateExpression: …")."""
    plan = _plans.get((text, names.key), len(text) + names.weight, lambda: _compile(text, names))
    names.use(plan.names, plan.variables)
    for check in plan.checks:
        problem = check(names.values)
        if problem is not None:
            raise invalid(f"Invalid UpdateExpression: {problem}")
    return Update(plan, names.values)


def added(existing: AV | None, value: AV, mismatch: str = INCORRECT_TYPE) -> AV:
    """ADD: the sum of numbers or the union of sets. `mismatch` is the error's text when the types differ."""
    ((kind, content),) = value.items()
    if existing is None:
        return value
    if kind not in existing:
        raise invalid(mismatch)
    if kind == "N":
        return {"N": numbers.add(existing["N"], content)}
    had = set(existing[kind])
    return {kind: [*existing[kind], *(member for member in content if member not in had)]}


def deleted(existing: AV | None, value: AV, mismatch: str = INCORRECT_TYPE) -> AV | None:
    """DELETE: a set without these members, None when nothing is left. `mismatch` is the error's text when the types differ."""
    ((kind, content),) = value.items()
    if existing is None:
        return None
    if kind not in existing:
        raise invalid(mismatch)
    gone = set(content)
    left = [member for member in existing[kind] if member not in gone]
    return {kind: left} if left else None


class _Run:
    """One application of an update."""

    __slots__ = ("item", "plan", "values", "written")

    def __init__(self, plan: Plan, values: Values, item: Item, written: list[AV | None]) -> None:
        self.plan = plan
        self.values = values
        self.item = item
        self.written = written

    def members(self, members: Mapping[str, AV], tree: Tree) -> dict[str, AV]:
        new = dict(members)
        for step, below in tree.items():
            value = self.below(members.get(step), below)
            if value is None:
                new.pop(step, None)
            else:
                new[step] = value
        return new

    def elements(self, elements: list[AV], tree: Tree) -> list[AV]:
        new: list[AV | None] = list(elements)
        count = len(elements)
        for step in sorted(tree):  # beyond the end, elements are appended in the order of their indexes
            there = step < count
            value = self.below(elements[step] if there else None, tree[step])
            if there:
                new[step] = value
            elif value is not None:
                new.append(value)
        return [element for element in new if element is not None]

    def below(self, value: AV | None, below: Any) -> AV | None:
        if type(below) is int:
            return self.leaf(value, below)
        if value is None:
            raise invalid(INVALID_PATH)
        if isinstance(next(iter(below)), str):
            if "M" not in value:
                raise invalid(INVALID_PATH)
            return {"M": self.members(value["M"], below)}
        if "L" not in value:
            raise invalid(INVALID_PATH)
        return {"L": self.elements(value["L"], below)}

    def leaf(self, value: AV | None, number: int) -> AV | None:
        section = self.plan.sections[number]
        if section == "SET" or section == "REMOVE":
            return self.written[number]
        get = self.plan.get[number]
        assert get is not None
        operand = get(self.item, self.values)
        return added(value, operand) if section == "ADD" else deleted(value, operand)


def _compile(text: str, names: Names) -> Plan:
    tokens = Tokens("UpdateExpression", text)
    parsed = syntax.update(tokens)
    if parsed.operators > OPERATORS:
        raise tokens.fail(f"The expression contains too many operators; operator count: {OPERATORS + 1}")
    if parsed.redundant:
        raise tokens.fail("The expression has redundant parentheses;")
    actions = parsed.tree
    assert isinstance(actions, tuple)
    repeated = parsed.repeated and f'The "{parsed.repeated}" section can only be used once in an update expression;'
    problem, plan = compile_update(actions, Binder(names.names), repeated)
    if problem:
        raise tokens.fail(problem)
    return plan


def compile_update(actions: Sequence[object], binder: Binder, repeated: str = "") -> tuple[str, Plan]:
    """What is wrong with actions whatever the values are ("" if nothing), and the actions compiled."""
    walk = _Walk(binder)
    for action in actions:
        assert isinstance(action, syntax.Action)
        walk.action(action)
    clash = check_paths(walk.steps)
    clashes: list[Check] = [] if clash is None else [lambda values: clash]
    plan = Plan(
        tuple(walk.sections),
        tuple(walk.steps),
        tuple(walk.get),
        tuple(walk.reads),
        _tree(walk.steps) if clash is None else {},
        frozenset(binder.used_names),
        frozenset(binder.used_values),
        (*walk.variables, *clashes, *walk.operands, *walk.functions),
    )
    return binder.reserved or walk.unknown or walk.elsewhere or repeated or walk.undefined, plan


def _tree(found: list[Steps]) -> Tree:
    tree: Tree = {}
    for number, steps in enumerate(found):
        node = tree
        for step in steps[:-1]:
            node = node.setdefault(step, {})
        node[steps[-1]] = number
    return tree


class _Walk:
    """One pass over the actions: compiles what they read and collects what may be wrong."""

    def __init__(self, binder: Binder) -> None:
        self.binder = binder
        self.unknown = self.elsewhere = self.undefined = ""
        self.sections: list[str] = []
        self.steps: list[Steps] = []
        self.reads: list[Steps] = []
        self.get: list[Get | None] = []
        self.variables: list[Check] = []
        self.operands: list[Check] = []
        self.functions: list[Check] = []

    def action(self, action: syntax.Action) -> None:
        self.sections.append(action.section)
        self.steps.append(self.path(action.path))
        self.get.append(None if action.value is None else self.operand(action.value))
        if isinstance(action.value, syntax.Value) and action.section in ("ADD", "DELETE"):
            self.operands.append(_section_type(action.section, action.value.name))

    def path(self, path: syntax.Path) -> Steps:
        steps, problem = self.binder.steps(path)
        self.undefined = self.undefined or problem or ""
        return steps

    def operand(self, node: syntax.Operand) -> Get:
        if isinstance(node, syntax.Value):
            name = node.name
            self.binder.used_values.add(name)
            self.variables.append(lambda values: None if name in values else UNDEFINED_VALUE + name)
            return lambda item, values: values[name]
        if isinstance(node, syntax.Path):
            self.reads.append(self.path(node))
            return _reader(self.reads[-1])
        assert isinstance(node, syntax.Call)
        return self.call(node)

    def call(self, node: syntax.Call) -> Get:
        name, operands = node.name, node.operands
        got = [self.operand(each) for each in operands]
        if name in _ELSEWHERE:
            self.elsewhere = self.elsewhere or f"The function is not allowed in an update expression; function: {name}"
        elif name not in _FUNCTIONS and name not in ("+", "-"):
            self.unknown = self.unknown or f"Invalid function name; function: {name}"
        elif len(operands) != 2:
            self.wrong(
                "Incorrect number of operands for operator or function; "
                f"operator or function: {name}, number of operands: {len(operands)}"
            )
        elif name == "if_not_exists":
            return self.default(operands[0], got[1])
        else:
            wanted = "L" if name == "list_append" else "N"
            for operand in operands:
                if isinstance(operand, syntax.Value):
                    self.functions.append(_operand_type(name, operand.name, wanted))
            return _append(*got) if name == "list_append" else _sum(name, *got)
        return got[0]

    def default(self, first: syntax.Operand, otherwise: Get) -> Get:
        if not isinstance(first, syntax.Path):
            self.wrong("Operator or function requires a document path; operator or function: if_not_exists")
            return otherwise
        steps = self.path(first)

        def get(item: Item, values: Values) -> AV:
            there = paths.get(item, steps)
            return otherwise(item, values) if there is None else there

        return get

    def wrong(self, problem: str) -> None:
        self.functions.append(lambda values: problem)


def _section_type(section: str, variable: str) -> Check:
    allowed = _SETS | {"N"} if section == "ADD" else _SETS

    def check(values: Values) -> str | None:
        kind = next(iter(values[variable]))
        if kind in allowed:
            return None
        return (
            f"Incorrect operand type for operator or function; operator: {section}, operand type: {_TYPE_NAMES[kind]}, "
            f"typeSet: ALLOWED_FOR_{section}_OPERAND"
        )

    return check


def _operand_type(name: str, variable: str, wanted: str) -> Check:
    text = f"Incorrect operand type for operator or function; operator or function: {name}, operand type: "

    def check(values: Values) -> str | None:
        kind = next(iter(values[variable]))
        return None if kind == wanted else text + kind

    return check


def _reader(steps: Steps) -> Get:
    def get(item: Item, values: Values) -> AV:
        value = paths.get(item, steps)
        if value is None:
            raise invalid(NOT_THERE)
        return value

    return get


def _append(first: Get, second: Get) -> Get:
    def get(item: Item, values: Values) -> AV:
        one, two = first(item, values), second(item, values)
        if "L" not in one or "L" not in two:
            raise invalid(INCORRECT_TYPE)
        return {"L": [*one["L"], *two["L"]]}

    return get


def _sum(operator: str, first: Get, second: Get) -> Get:
    compute = numbers.add if operator == "+" else numbers.subtract

    def get(item: Item, values: Values) -> AV:
        one, two = first(item, values), second(item, values)
        if "N" not in one or "N" not in two:
            raise invalid(INCORRECT_TYPE)
        return {"N": compute(one["N"], two["N"])}

    return get
