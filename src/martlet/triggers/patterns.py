"""Event patterns: which events a filter or a rule lets through. Pure, compiled once, so that many rules are cheap.

A pattern has the shape of the event. Keys are joined by AND; at its leaves are arrays, joined by OR, of literals and operators:

    {"source": ["shop"], "detail": {"sum": [{"numeric": [">", 9]}], "$or": [{"vip": [true]}, {"note": [{"exists": false}]}]}}

An array in the event matches when one of its elements does; a pattern within an array of objects is about one of them.
Sources: EventBridge user guide, "Comparison operators for use in event patterns"; Lambda developer guide, "Control which events
Lambda sends to your function"; the behaviour of Event Ruler, the library behind both.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from martlet.errors import InvalidInput

__all__ = ["DEPTH_MAX", "InvalidPattern", "Matches", "compile_pattern", "parse_pattern"]

Matches = Callable[[Any], bool]  # an event, or one value of it

DEPTH_MAX: Final = 32  # of nested objects
_NUMBER_MAX: Final = 5_000_000_000  # numbers of patterns are within ±5e9
_BRANCHES_MAX: Final = 1_000  # combinations of $or in one pattern
_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "=": lambda value, bound: value == bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}
_ABSENT: Final = object()  # there is no such field, or nothing in it
# Words that begin an operator; a field of that name beside "$or" makes "$or" a field like any other.
_OPERATORS: Final = frozenset(
    {"prefix", "suffix", "equals-ignore-case", "anything-but", "numeric", "exists", "cidr", "wildcard"}
)


class InvalidPattern(InvalidInput):
    """The event pattern is malformed."""

    code = "invalid_pattern"


def parse_pattern(text: str) -> Matches:
    """The test for a pattern given as JSON. Raises `InvalidPattern` saying where and why."""
    try:
        pattern = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidPattern(f"Event pattern is not valid JSON: {error}") from error
    return compile_pattern(pattern)


def compile_pattern(pattern: Any) -> Matches:
    """The test for a pattern: it takes an event (a JSON object as a dict). Raises `InvalidPattern` saying where and why."""
    if not isinstance(pattern, Mapping):
        raise InvalidPattern("Event pattern must be a JSON object")
    return _object(pattern, "", 1)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)  # of two fields with one name the last counts, as in JSON at large


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


# --- objects


def _object(pattern: Mapping[str, Any], path: str, depth: int) -> Matches:
    if not pattern:
        raise InvalidPattern(f"{path or 'Event pattern'}: empty objects are not allowed")
    if depth > DEPTH_MAX:
        raise InvalidPattern(f"{path}: deeper than {DEPTH_MAX} levels")
    fields: list[tuple[str, Matches]] = []
    alternatives: Matches | None = None
    for key, value in pattern.items():
        where = f"{path}.{key}" if path else key
        if key == "$or" and _is_or(value):
            alternatives = _either([_object(one, f"{where}[{at}]", depth + 1) for at, one in enumerate(value)])
        elif isinstance(value, Mapping):
            fields.append((key, _within(_object(value, where, depth + 1))))
        elif isinstance(value, list):
            fields.append((key, _leaf(value, where)))
        else:
            raise InvalidPattern(f'"{where}" must be an object or an array')

    def matches(event: Any) -> bool:
        if not isinstance(event, Mapping):
            return False
        for key, test in fields:
            if not test(event.get(key, _ABSENT)):
                return False
        return alternatives is None or alternatives(event)

    return matches


def _is_or(value: Any) -> bool:
    """Whether "$or" is the operator: two or more objects, none of them an operator itself."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        return False
    if any(set(one) & _OPERATORS for one in value):
        return False
    return 2 <= len(value) <= _BRANCHES_MAX


def _either(tests: list[Matches]) -> Matches:
    return lambda event: any(test(event) for test in tests)


def _within(test: Matches) -> Matches:
    """A pattern for an object: for the object itself, for one of an array of them, or (all of it about absence) for none."""

    def matches(value: Any) -> bool:
        if isinstance(value, list):
            return any(test(one) for one in value) if value else test({})
        return test({}) if value is _ABSENT else test(value)

    return matches


# --- leaves


def _leaf(alternatives: list[Any], path: str) -> Matches:
    """The test for one field: of its value, of an array's elements, or of there being none."""
    if not alternatives:
        raise InvalidPattern(f"{path}: empty arrays are not allowed")
    texts: set[str] = set()
    tests: list[Matches] = []
    absent = False
    present = False
    for one in alternatives:
        if isinstance(one, str):
            texts.add(one)
        elif isinstance(one, Mapping):
            name, operand = _operator(one, path)
            if name == "exists":
                if type(operand) is not bool:
                    raise InvalidPattern(f'{path}: match value for "exists" must be true or false')
                present |= operand
                absent |= not operand
            else:
                tests.append(_OPERATOR_TESTS[name](operand, path))
        elif isinstance(one, list):
            raise InvalidPattern(f"{path}: match value must be String, number, true, false, or null")
        else:
            tests.append(_equal_to(_literal(one, path)))
    return _on_values(frozenset(texts), tests, absent, present)


def _on_values(texts: frozenset[str], tests: list[Matches], absent: bool, present: bool) -> Matches:
    def one(value: Any) -> bool:
        if present or (type(value) is str and value in texts):
            return True
        return any(test(value) for test in tests)

    def matches(value: Any) -> bool:
        if isinstance(value, list):
            leaves = list(_leaves(value))
            return any(map(one, leaves)) if leaves else absent
        if value is _ABSENT or isinstance(value, Mapping):  # what is no leaf is not there
            return absent
        return one(value)

    return matches


def _leaves(values: Iterable[Any]) -> Iterable[Any]:
    """What is in an array, arrays within it included."""
    for value in values:
        if isinstance(value, list):
            yield from _leaves(value)
        elif not isinstance(value, Mapping):
            yield value


def _operator(one: Mapping[str, Any], path: str) -> tuple[str, Any]:
    if len(one) != 1:
        raise InvalidPattern(f"{path}: only one key allowed in match expression")
    ((name, operand),) = one.items()
    if name not in _OPERATORS:
        raise InvalidPattern(f"{path}: unrecognized match type {name}")
    return name, operand


def _literal(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _number(value, path)
    raise InvalidPattern(f"{path}: match value must be String, number, true, false, or null")


def _number(value: Any, path: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_NUMBER_MAX <= value <= _NUMBER_MAX:
        raise InvalidPattern(f"{path}: a number must be between -{_NUMBER_MAX} and {_NUMBER_MAX}, got {value!r}")
    return value


def _same(value: Any, literal: Any) -> bool:
    """JSON's equality: 1 and 1.0 are one number, true is none."""
    if isinstance(value, bool) or isinstance(literal, bool):
        return value is literal
    return bool(value == literal)


def _equal_to(literal: Any) -> Matches:
    return lambda value: _same(value, literal)


def _text(operand: Any, name: str, path: str, *, empty: bool = True) -> str:
    if not isinstance(operand, str):
        raise InvalidPattern(f"{path}: {name} match pattern must be a string")
    if not operand and not empty:
        raise InvalidPattern(f"{path}: null {name} not allowed")
    return operand


def _affix(name: str) -> Callable[[Any, str], Matches]:
    def build(operand: Any, path: str) -> Matches:
        if isinstance(operand, Mapping):
            inner, text = _operator(operand, path)
            if inner != "equals-ignore-case":
                raise InvalidPattern(f"{path}: unsupported {name} pattern: {inner}")
            folded = _text(text, name, path, empty=False).casefold()
            if name == "prefix":
                return lambda value: isinstance(value, str) and value.casefold().startswith(folded)
            return lambda value: isinstance(value, str) and value.casefold().endswith(folded)
        text = _text(operand, name, path)
        if name == "prefix":
            return lambda value: isinstance(value, str) and value.startswith(text)
        return lambda value: isinstance(value, str) and value.endswith(text)

    return build


def _ignoring_case(operand: Any, path: str) -> Matches:
    folded = _text(operand, "equals-ignore-case", path).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _wildcard(operand: Any, path: str) -> Matches:
    """ "*" is any run of characters; "\\*" is a star, "\\\\" a backslash."""
    text = _text(operand, "wildcard", path)
    parts: list[str] = [""]
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
            if at >= len(text) or text[at] not in "*\\":
                raise InvalidPattern(f"{path}: invalid escape character at pos {at}")
            parts[-1] += text[at]
        elif letter == "*":
            if len(parts) > 1 and not parts[-1]:
                raise InvalidPattern(f"{path}: consecutive wildcard characters at pos {at}")
            parts.append("")
        else:
            parts[-1] += letter
        at += 1
    return lambda value: isinstance(value, str) and _fits(value, parts)


def _fits(value: str, parts: list[str]) -> bool:
    """Whether `value` is the parts with anything between them. Greedy from the left: linear, whatever the pattern."""
    if len(parts) == 1:
        return value == parts[0]
    first, *middle, last = parts
    if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
        return False
    at, end = len(first), len(value) - len(last)
    for part in middle:
        found = value.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _numeric(operand: Any, path: str) -> Matches:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise InvalidPattern(f'{path}: numeric takes one comparison or a range, e.g. [">", 0, "<=", 5]')
    bounds: list[tuple[str, float | int]] = []
    for at in range(0, len(operand), 2):
        sign = operand[at]
        if not isinstance(sign, str) or sign not in _COMPARISONS:
            raise InvalidPattern(f"{path}: unrecognized numeric range operator: {sign}")
        bounds.append((sign, _number(operand[at + 1], path)))
    if len(bounds) == 2:
        (low_sign, low), (high_sign, high) = bounds
        if low_sign not in (">", ">=") or high_sign not in ("<", "<="):
            raise InvalidPattern(f"{path}: a numeric range is a lower bound, then an upper bound")
        if low >= high:
            raise InvalidPattern(f"{path}: bottom must be less than top")
    tests = [(_COMPARISONS[sign], bound) for sign, bound in bounds]

    def matches(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return all(compare(value, bound) for compare, bound in tests)

    return matches


def _cidr(operand: Any, path: str) -> Matches:
    try:
        network = ipaddress.ip_network(_text(operand, "cidr", path), strict=False)
    except ValueError as error:
        raise InvalidPattern(f"{path}: malformed CIDR: {error}") from error
    if "/" not in operand:
        raise InvalidPattern(f"{path}: malformed CIDR, one '/' required")

    def matches(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return matches


def _anything_but(operand: Any, path: str) -> Matches:
    if isinstance(operand, Mapping):
        name, inner = _operator(operand, path)
        if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise InvalidPattern(f"{path}: unsupported anything-but pattern: {name}")
        many = inner if isinstance(inner, list) else [inner]
        if not many:
            raise InvalidPattern(f"{path}: empty anything-but list")
        tests = [_OPERATOR_TESTS[name](_text(one, f"anything-but {name}", path, empty=False), path) for one in many]
        return lambda value: not any(test(value) for test in tests)
    values = operand if isinstance(operand, list) else [operand]
    if not values:
        raise InvalidPattern(f"{path}: empty anything-but list")
    literals = [_literal(one, path) for one in values]
    if any(one is None or isinstance(one, bool) for one in literals) and isinstance(operand, list):
        raise InvalidPattern(f"{path}: inside anything but list, start|null|boolean is not supported")
    if len({isinstance(one, str) for one in literals}) > 1:
        raise InvalidPattern(
            f"{path}: inside anything but list, either all values are number or string, mixed type is not supported"
        )
    return lambda value: not any(_same(value, literal) for literal in literals)


_OPERATOR_TESTS: Final[dict[str, Callable[[Any, str], Matches]]] = {
    "prefix": _affix("prefix"),
    "suffix": _affix("suffix"),
    "equals-ignore-case": _ignoring_case,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
    "wildcard": _wildcard,
}
