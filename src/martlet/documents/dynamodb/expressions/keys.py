"""KeyConditionExpression: the part of a table or an index that a query reads.

Three steps, because the service has them so: `parse_key_expression` (errors of the text), `KeyExpression.conditions` (errors of
the operators, still without a table), `KeyExpression.on` (errors of the table's keys).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from martlet.documents.dynamodb.expressions import conditions, syntax
from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.documents.dynamodb.expressions.names import Names
from martlet.documents.dynamodb.expressions.values import AV

__all__ = ["KeyCondition", "KeyExpression", "KeyTest", "key_condition", "parse_key_condition", "parse_key_expression"]

_NOT_SUPPORTED: Final = "Query key condition not supported"
_MIRRORED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
RANGES: Final = frozenset(("=", "<", "<=", ">", ">=", "BETWEEN", "begins_with"))


class KeyTest(msgspec.Struct, frozen=True):
    """One condition on a key attribute: `operator` is =, <, <=, >, >=, BETWEEN, begins_with or another that no key allows."""

    operator: str
    operands: tuple[AV, ...]


class KeyCondition(msgspec.Struct, frozen=True):
    """What to read: the partition `hash_value`, and of it what `operator` (None: all of it) says of the sort key.

    `low` is the operand; `high` is the second one of BETWEEN.
    """

    hash_value: AV
    operator: str | None = None
    low: AV | None = None
    high: AV | None = None


class KeyExpression:
    """A key condition expression that is well-formed, with the values of one request."""

    __slots__ = ("_conditions", "_names", "_plan")

    def __init__(self, plan: conditions.Plan, names: Names) -> None:
        self._plan = plan
        self._names = names
        self._conditions: dict[str, KeyTest] | None = None

    def conditions(self) -> dict[str, KeyTest]:
        """The condition of each key attribute. Raises `ServiceError` for what no key condition may be."""
        if self._conditions is None:
            found: dict[str, KeyTest] = {}
            self._collect(self._plan.tree, found)
            self._conditions = found
        return self._conditions

    def on(self, hash_name: str, range_name: str | None = None, types: Mapping[str, str] | None = None) -> KeyCondition:
        """The condition for a table or an index with these keys; `types` of its key attributes, where these are checked."""
        return key_condition(self.conditions(), hash_name, range_name, types)

    def _collect(self, node: syntax.Condition, found: dict[str, KeyTest]) -> None:
        if isinstance(node, syntax.Not):
            raise _operator("NOT")
        if isinstance(node, syntax.Logic):
            if node.operator == "OR":
                raise _operator("OR")
            for each in node.conditions:
                self._collect(each, found)
            return
        operator = node.operator if isinstance(node, syntax.Test) else node.name
        if operator not in RANGES:
            raise _operator(operator) if operator != "size" else _nested()
        self._condition(operator, node.operands, found)

    def _condition(self, operator: str, operands: tuple[syntax.Operand, ...], found: dict[str, KeyTest]) -> None:
        if operator in ("BETWEEN", "begins_with") and not isinstance(operands[0], syntax.Path):
            raise invalid(
                f"Invalid condition in KeyConditionExpression: {operator} operator must have the key attribute "
                "as its first operand"
            )
        name = None
        values: list[AV] = []
        for operand in operands:
            if isinstance(operand, syntax.Path):
                if name is not None:
                    raise invalid("Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition")
                if len(operand.steps) > 1:
                    raise invalid("KeyConditionExpressions cannot have conditions on nested attributes")
                name = str(self._plan.resolve(operand)[0])
            elif isinstance(operand, syntax.Call | syntax.Truth):
                raise _nested()
            else:
                values.append(self._names.values[operand.name])
        if name is None:
            raise invalid("Invalid condition in KeyConditionExpression: No key attribute specified")
        if name in found:
            raise invalid("Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key")
        if isinstance(operands[0], syntax.Value):
            operator = _MIRRORED[operator]
        found[name] = KeyTest(operator, tuple(values))


def parse_key_expression(text: str, names: Names) -> KeyExpression:
    """A key condition expression. Raises `ServiceError` (ValidationException: "Invalid KeyConditionExpression: …")."""
    return KeyExpression(conditions.plan_of(text, names, "KeyConditionExpression"), names)


def parse_key_condition(
    text: str, names: Names, hash_name: str, range_name: str | None = None, types: Mapping[str, str] | None = None
) -> KeyCondition:
    """All three steps at once."""
    return parse_key_expression(text, names).on(hash_name, range_name, types)


def key_condition(
    found: Mapping[str, KeyTest], hash_name: str, range_name: str | None, types: Mapping[str, str] | None = None
) -> KeyCondition:
    """Which part of the keys these conditions mean. Raises `ServiceError` when they do not fit, in the service's order."""
    keys = 1 if range_name is None else 2
    if len(found) > 2:
        raise invalid(
            f"The number of query conditions ({len(found)}) exceeds the number of key attributes defined in the schema ({keys})"
        )
    if len(found) > keys:
        raise invalid(_NOT_SUPPORTED)
    for name in (hash_name, range_name):
        if name is None:
            continue
        test = found.get(name)
        if test is None:
            if name == hash_name or len(found) > 1:
                raise invalid(f"Query condition missed key schema element: {name}")
            continue
        if test.operator not in RANGES:
            raise invalid("Attempted conditional constraint is not an indexable operation")
        if types is not None and any(types[name] not in operand for operand in test.operands):
            raise invalid("One or more parameter values were invalid: Condition parameter type does not match schema type")
        if name == hash_name and test.operator != "=":
            raise invalid(_NOT_SUPPORTED)
    value = found[hash_name].operands[0]
    test = None if range_name is None else found.get(range_name)
    if test is None:
        return KeyCondition(value)
    return KeyCondition(value, test.operator, test.operands[0], test.operands[1] if test.operator == "BETWEEN" else None)


def _operator(name: str) -> Exception:
    return invalid(f"Invalid operator used in KeyConditionExpression: {name}")


def _nested() -> Exception:
    return invalid("KeyConditionExpressions cannot contain nested operations")
