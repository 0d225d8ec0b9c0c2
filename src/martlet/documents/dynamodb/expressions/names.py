"""What `#n` and `:v` stand for in the expressions of one request, and which of them were used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from martlet.documents.dynamodb.expressions import values as attribute_values
from martlet.documents.dynamodb.expressions.errors import TwiceWorded, invalid
from martlet.documents.dynamodb.expressions.values import AV
from martlet.errors import ServiceError

__all__ = ["Names", "check_parameters"]

_NAME: Final = re.compile(r"#[0-9a-zA-Z_]{1,254}")
_VALUE: Final = re.compile(r":[0-9a-zA-Z_]{1,254}")
_NAME_BYTES: Final = 65_535
_TOTAL_BYTES: Final = 2_097_152  # developer guide, "Service quotas": substitution variables in an expression, 2 MB


class Names:
    """The substitution variables of one request. Expressions are parsed with it in the service's order: update, condition,
    key condition, filter, projection; then `check_used`."""

    __slots__ = ("key", "names", "used_names", "used_values", "values", "weight")

    def __init__(self, names: Mapping[str, str] | None = None, values: Mapping[str, AV] | None = None) -> None:
        self.names: dict[str, str] = {} if names is None else _checked_names(names)
        self.values: dict[str, AV] = {} if values is None else _checked_values(values)
        self.key = tuple(self.names.items()) if names else ()
        self.weight = (
            sum(map(len, self.names.values())) if names else 0
        )  # characters that a remembered expression holds because of them
        self.used_names: set[str] = set()
        self.used_values: set[str] = set()

    def use(self, names: Iterable[str], values: Iterable[str]) -> None:
        """These were used by an expression."""
        self.used_names.update(names)
        self.used_values.update(values)

    def check_used(self) -> None:
        """Raise `ServiceError` when a variable was given that no expression used."""
        if len(self.used_names) < len(self.names):
            _refuse_unused("ExpressionAttributeNames", self.names, self.used_names)
        if len(self.used_values) < len(self.values):
            _refuse_unused("ExpressionAttributeValues", self.values, self.used_values)


def check_parameters(request: Mapping[str, Any], expressions: Sequence[str], others: Sequence[str]) -> None:
    """May these parameters come together? `expressions` are the operation's expression members, `others` its legacy ones.

    Source: API reference, "Legacy conditional parameters"; both lists in the order in which the service names them.
    """
    given = [name for name in expressions if request.get(name) is not None]
    if given:
        lone_key = request.get("KeyConditions") is not None and request.get("KeyConditionExpression") is None
        legacy = [name for name in others if request.get(name) is not None and not (lone_key and name == "KeyConditions")]
        if legacy:
            raise invalid(
                "Can not use both expression and non-expression parameters in the same request: "
                f"Non-expression parameters: {{{', '.join(legacy)}}} Expression parameters: {{{', '.join(given)}}}"
            )
    elif request.get("ExpressionAttributeNames") is not None:
        raise invalid("ExpressionAttributeNames can only be specified when using expressions")
    takers = [name for name in expressions if name != "ProjectionExpression"]
    if takers and request.get("ExpressionAttributeValues") is not None and not set(takers) & set(given):
        text = "ExpressionAttributeValues can only be specified when using expressions"
        raise TwiceWorded(text, f"{text}: {' and '.join(takers)} {'are' if len(takers) > 1 else 'is'} null")


def _refuse_unused(parameter: str, given: Mapping[str, object], used: set[str]) -> None:
    unused = [name for name in given if name not in used]
    if unused:
        raise invalid(f"Value provided in {parameter} unused in expressions: keys: {{{', '.join(unused)}}}")


def _checked_names(names: Mapping[str, str]) -> dict[str, str]:
    if not names:
        raise invalid("ExpressionAttributeNames must not be empty")
    for placeholder, name in names.items():
        if not _NAME.fullmatch(placeholder):
            raise _syntax("ExpressionAttributeNames", placeholder)
        if type(name) is not str or not name:
            raise invalid(f"ExpressionAttributeNames contains invalid value: Empty attribute name for key {placeholder}")
        if len(name) > _NAME_BYTES // 4 and len(name.encode("utf-8", "surrogatepass")) > _NAME_BYTES:
            raise invalid(
                "ExpressionAttributeNames contains invalid value: Attribute name is too large, must be less than "
                f"{_NAME_BYTES + 1} bytes for key {placeholder}"
            )
    return dict(names)


def _checked_values(values: Mapping[str, AV]) -> dict[str, AV]:
    if not values:
        raise invalid("ExpressionAttributeValues must not be empty")
    for placeholder in values:
        if not _VALUE.fullmatch(placeholder):
            raise _syntax("ExpressionAttributeValues", placeholder)
    checked = {}
    for placeholder, value in values.items():
        try:
            checked[placeholder] = attribute_values.check(value)
        except ServiceError as error:
            if error.name != "ValidationException":
                raise
            said = error.older if isinstance(error, TwiceWorded) else error.message
            older = f"ExpressionAttributeValues contains invalid value: {said} for key {placeholder}"
            raise TwiceWorded(error.message, older) from None
    if attribute_values.item_size(checked) > _TOTAL_BYTES:
        raise invalid(f"ExpressionAttributeValues are too large: all of them together may take {_TOTAL_BYTES} bytes")
    return checked


def _syntax(parameter: str, placeholder: str) -> ServiceError:
    return invalid(f'{parameter} contains invalid key: Syntax error; key: "{placeholder}"')
