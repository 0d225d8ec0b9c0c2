"""The parameters from before expressions: Expected, AttributeUpdates, KeyConditions, QueryFilter, ScanFilter.

Source: API reference and developer guide, "Legacy conditional parameters"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from martlet.documents.dynamodb.expressions import numbers, values
from martlet.documents.dynamodb.failures import invalid, validation
from martlet.documents.dynamodb.items import type_of
from martlet.documents.dynamodb.tables import Item

__all__ = ["Filter", "check_attributes_to_get", "checked_conditions", "checked_updates", "expected", "updated"]

Value = dict[str, Any]

_ARGUMENTS: Final = {"NULL": (0, 0), "NOT_NULL": (0, 0), "BETWEEN": (2, 2), "IN": (1, 1 << 30)}
_SCALARS: Final = ("S", "N", "B")
_TYPES: Final = {
    "LE": _SCALARS,
    "LT": _SCALARS,
    "GE": _SCALARS,
    "GT": _SCALARS,
    "CONTAINS": _SCALARS,
    "NOT_CONTAINS": _SCALARS,
    "BEGINS_WITH": ("S", "B"),
    "IN": _SCALARS,
    "BETWEEN": _SCALARS,
}
_SETS: Final = {"S": "SS", "N": "NS", "B": "BS"}


class Filter:
    """Conditions on attributes, all or one of which must hold."""

    __slots__ = ("attributes", "conditions", "every")

    def __init__(self, conditions: dict[str, tuple[str, list[Value]]], operator: str) -> None:
        self.conditions = conditions
        self.attributes = tuple(conditions)
        self.every = operator != "OR"

    def holds(self, item: Item) -> bool:
        found = (_HOLDS[operator](item.get(name), given) for name, (operator, given) in self.conditions.items())
        return all(found) if self.every else any(found)


# --- what is given


def checked_conditions(conditions: dict[str, Any]) -> dict[str, tuple[str, list[Value]]]:
    """KeyConditions, QueryFilter and ScanFilter."""
    return {
        name: (condition["ComparisonOperator"], _arguments(condition["ComparisonOperator"], condition))
        for name, condition in conditions.items()
    }


def check_operator(request: dict[str, Any], conditions: dict[str, Any] | None, parameter: str) -> str:
    """The ConditionalOperator. It has no meaning without conditions that it could join."""
    operator = request.get("ConditionalOperator")
    if operator and not conditions:
        raise validation("ConditionalOperator cannot be used without Filter or Expected")
    if operator and conditions is not None and len(conditions) < 2:
        raise validation("ConditionalOperator can only be used when Filter or Expected has two or more elements")
    return operator or "AND"


def _arguments(operator: str, condition: dict[str, Any]) -> list[Value]:
    given = [_checked(value) for value in condition.get("AttributeValueList") or []]
    _check_arguments(operator, given)
    return given


def _checked(value: Value) -> Value:
    return values.check(value)  # type: ignore[return-value]


def _check_arguments(operator: str, given: list[Value]) -> None:
    least, most = _ARGUMENTS.get(operator, (1, 1))
    if not least <= len(given) <= most:
        raise invalid(f"Invalid number of argument(s) for the {operator} ComparisonOperator")
    if len({type_of(value) for value in given}) > 1:
        raise invalid("AttributeValues inside AttributeValueList must be of same type")
    allowed = _TYPES.get(operator)
    for value in given if allowed else ():
        if type_of(value) not in allowed:  # type: ignore[operator]
            raise invalid(f"ComparisonOperator {operator} is not valid for {type_of(value)} AttributeValue type")
    if operator == "BETWEEN" and (values.compare(given[0], given[1]) or 0) > 0:
        raise validation("The BETWEEN condition was provided a range where the lower bound is greater than the upper bound")


def expected(request: dict[str, Any]) -> Filter | None:
    """The condition in Expected and ConditionalOperator."""
    given = request.get("Expected")
    operator = check_operator(request, given, "Expected")
    if not given:
        return None
    return Filter({name: _expectation(name, condition) for name, condition in given.items()}, operator)


def _expectation(name: str, condition: dict[str, Any]) -> tuple[str, list[Value]]:
    listed, value = condition.get("AttributeValueList"), condition.get("Value")
    exists, operator = condition.get("Exists"), condition.get("ComparisonOperator")
    if listed is not None and value is not None:
        raise invalid(f"Value and AttributeValueList cannot be used together for Attribute: {name}")
    if operator is not None:
        if exists is not None:
            raise invalid(f"Exists and ComparisonOperator cannot be used together for Attribute: {name}")
        if operator not in ("NULL", "NOT_NULL") and listed is None and value is None:
            raise invalid(f"Value or AttributeValueList must be used with ComparisonOperator: {operator} for Attribute: {name}")
        given = [_checked(one) for one in (listed if listed is not None else [] if value is None else [value])]
        _check_arguments(operator, given)
        return operator, given
    if listed is not None:
        raise invalid(f"AttributeValueList can only be used with a ComparisonOperator for Attribute: {name}")
    if exists is False:
        if value is not None:
            raise invalid(f"Value cannot be used when Exists is false for Attribute: {name}")
        return "NULL", []
    if value is None:
        shown = "null" if exists is None else "true"
        raise invalid(f"Value must be provided when Exists is {shown} for Attribute: {name}")
    return "EQ", [_checked(value)]


def check_attributes_to_get(names: list[str] | None) -> None:
    seen: set[str] = set()
    for name in names or ():
        if not name:
            raise invalid("Empty attribute name")
        if name in seen:
            raise invalid(f"Duplicate value in attribute name: {name}")
        seen.add(name)


# --- whether a condition holds


def _contains(found: Value | None, given: list[Value]) -> bool:
    if found is None:
        return False
    wanted = given[0]
    kind, content = next(iter(wanted.items()))
    inside = type_of(found)
    if inside == kind and kind in ("S", "B"):
        return bool(content in found[kind])
    if inside == "L":
        return any(values.equals(one, wanted) for one in found["L"])
    return inside == _SETS.get(kind) and content in found[inside]


def _begins(found: Value | None, given: list[Value]) -> bool:
    kind, content = next(iter(given[0].items()))
    return found is not None and kind in found and bool(found[kind].startswith(content))


def _compared(test: Callable[[int], bool]) -> Callable[[Value | None, list[Value]], bool]:
    def holds(found: Value | None, given: list[Value]) -> bool:
        if found is None:
            return False
        order = values.compare(found, given[0])
        return order is not None and test(order)

    return holds


def _between(found: Value | None, given: list[Value]) -> bool:
    if found is None:
        return False
    low, high = values.compare(found, given[0]), values.compare(found, given[1])
    return low is not None and high is not None and low >= 0 >= high


def _equals(found: Value | None, given: list[Value]) -> bool:
    return found is not None and values.equals(found, given[0])


_HOLDS: Final[dict[str, Callable[[Value | None, list[Value]], bool]]] = {
    "EQ": _equals,
    "NE": lambda found, given: not _equals(found, given),
    "LE": _compared(lambda order: order <= 0),
    "LT": _compared(lambda order: order < 0),
    "GE": _compared(lambda order: order >= 0),
    "GT": _compared(lambda order: order > 0),
    "NULL": lambda found, given: found is None,
    "NOT_NULL": lambda found, given: found is not None,
    "CONTAINS": _contains,
    "NOT_CONTAINS": lambda found, given: found is not None and not _contains(found, given),
    "BEGINS_WITH": _begins,
    "IN": lambda found, given: found is not None and any(values.equals(found, one) for one in given),
    "BETWEEN": _between,
}


# --- AttributeUpdates


def checked_updates(updates: dict[str, Any]) -> dict[str, tuple[str, Value | None]]:
    """{attribute: (PUT, ADD or DELETE, value)}"""
    found: dict[str, tuple[str, Value | None]] = {}
    for name, update in updates.items():
        if not name:
            raise invalid("Empty attribute name")
        action, value = update.get("Action") or "PUT", update.get("Value")
        if value is not None:
            value = _checked(value)
            kind = type_of(value)
            if action == "DELETE" and kind not in ("SS", "NS", "BS"):
                raise invalid(f"DELETE action with value is not supported for the type {kind}")
            if action == "ADD" and kind not in ("L", "SS", "NS", "BS", "N"):
                raise invalid(f"ADD action is not supported for the type {kind}")
        elif action != "DELETE":
            raise invalid("Only DELETE action is allowed when no attribute value is specified")
        found[name] = action, value
    return found


def updated(item: Item, updates: dict[str, tuple[str, Value | None]]) -> Item:
    """The item after AttributeUpdates."""
    new = dict(item)
    for name, (action, value) in updates.items():
        before = new.get(name)
        after: Value | None
        if action == "PUT" or value is None:
            after = value
        elif before is None:
            after = value if action == "ADD" else None
        else:
            after = _joined(action, before, value)
        if after is None:
            new.pop(name, None)
        else:
            new[name] = after
    return new


def _joined(action: str, before: Value, value: Value) -> Value | None:
    kind = type_of(value)
    if kind not in before:
        raise validation("Type mismatch for attribute to update")
    old, given = before[kind], value[kind]
    if action == "DELETE":
        left = [one for one in old if one not in given]
        return {kind: left} if left else None
    if kind == "N":
        return {"N": numbers.add(old, given)}
    if kind == "L":
        return {"L": [*old, *given]}
    return {kind: [*old, *(one for one in given if one not in old)]}
