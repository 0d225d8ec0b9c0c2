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
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from martlet.errors import InvalidInput

__all__ = ["DEPTH_MAX", "InvalidPattern", "Matches", "compile_pattern", "parse_pattern"]

Matches = Callable[[Any], bool]  # an event, or one value of it

DEPTH_MAX: Final = 32  # of nested objects
_DOTS_MAX: Final = 100  # of one name
_NUMBER_MAX: Final = 5_000_000_000  # numbers of patterns are within ±5e9
_BRANCHES_MAX: Final = 1_000  # combinations of $or in one pattern
_STARS_MAX: Final = 5  # of one wildcard; the service measures how often a text can be cut, and refuses the same ones
_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
}
_ONE_KEY: Final = "Only one key allowed in match expression"
_TOO_MANY: Final = "Too many elements in numeric expression"  # which the service says of "anything-but", too
_ABSENT: Final = object()  # there is no such field, or nothing in it
# Words that begin an operator; a field of that name beside "$or" makes "$or" a field like any other.
_OPERATORS: Final = frozenset(
    {"exactly", "prefix", "suffix", "equals-ignore-case", "anything-but", "numeric", "exists", "cidr", "wildcard"}
)


class InvalidPattern(InvalidInput):
    """The event pattern is malformed. The text is the service's own; `where` in the details names the place."""

    code = "invalid_pattern"


def _wrong(reason: str, path: str) -> InvalidPattern:
    return InvalidPattern(reason, where=path)


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
        raise InvalidPattern("Filter is not an object")
    return _object(pattern, "", 1)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)  # of two fields with one name the last counts, as in JSON at large


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


# --- objects


def _object(pattern: Mapping[str, Any], path: str, depth: int) -> Matches:
    if not pattern:
        raise _wrong("Empty objects are not allowed", path)
    if depth > DEPTH_MAX:
        raise _wrong(f"{path}: deeper than {DEPTH_MAX} levels", path)
    merged = _overridden(pattern)
    if merged is not None:
        return _either([_object(one, path, depth) for one in merged])
    fields, alternatives = _parts(pattern, path, depth)
    if len(fields) == 1 and alternatives is None:
        return _one_field(*fields[0])

    def matches(event: Any) -> bool:
        if not isinstance(event, dict):
            return False
        for key, test in fields:
            value = event.get(key, _ABSENT)
            if not (_dotted_fits(event, key, test) if value is _ABSENT else test(value)):
                return False
        return alternatives is None or alternatives(event)

    return matches


def _parts(pattern: Mapping[str, Any], path: str, depth: int) -> tuple[list[tuple[str, Matches]], Matches | None]:
    """The tests of its fields, and that of its alternatives."""
    fields: list[tuple[str, Matches]] = []
    alternatives: Matches | None = None
    for key, value in pattern.items():
        where = f"{path}.{key}" if path else key
        if key.count(".") > _DOTS_MAX:
            raise _wrong(f"{key[:64]}…: more than {_DOTS_MAX} dots in a name", path)
        if key == "$or" and _is_or(value):
            alternatives = _either([_object(one, f"{where}[{at}]", depth + 1) for at, one in enumerate(value)])
        elif isinstance(value, Mapping):
            fields.append((key, _within(_object(value, where, depth + 1))))
        elif isinstance(value, list):
            fields.append((key, _leaf(value, where)))
        else:
            raise _wrong(f'"{key}" must be an object or an array', where)

    return fields, alternatives


def _one_field(key: str, test: Matches) -> Matches:
    """Most objects of patterns have one: this is where the time goes."""

    def matches(event: Any) -> bool:
        if not isinstance(event, dict):
            return False
        value = event.get(key, _ABSENT)
        return _dotted_fits(event, key, test) if value is _ABSENT else test(value)

    return matches


def _dotted_fits(event: Mapping[str, Any], key: str, test: Matches) -> bool:
    """Whether the field fits that is there only when dots join levels; if it is not, whether its absence does."""
    found = list(_dotted(event, key))
    return any(map(test, found)) if found else test(_ABSENT)


def _dotted(value: Any, key: str) -> Iterable[Any]:
    """What there is at `key` when dots join levels, and they may do so in the pattern, in the event or in both: {"a": {"b": 1}}
    has an "a.b", {"a.b": 1} an "a" with a "b"."""
    if isinstance(value, list):
        for one in _flat(value):
            yield from _dotted(one, key)
    if not isinstance(value, dict):
        return
    if key in value:
        yield value[key]
        return
    start = f"{key}."
    below = {name[len(start) :]: inner for name, inner in value.items() if name.startswith(start)}
    if below:
        yield below
    if "." in key:
        for name, inner in value.items():
            if key.startswith(f"{name}."):
                yield from _dotted(inner, key[len(name) + 1 :])


def _overridden(pattern: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """A pattern that says something of one field both beside its "$or" and in it, as one pattern for each alternative: what
    was said last counts. None for any other."""
    if not _is_or(pattern.get("$or")):
        return None
    names = list(pattern)
    place = names.index("$or")
    before, after = ({name: pattern[name] for name in part} for part in (names[:place], names[place + 1 :]))
    if not any(_clash(outer, one) for outer in (before, after) for one in pattern["$or"]):
        return None
    return [_merged(_merged(before, one), after) for one in pattern["$or"]]


def _clash(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    both = [(one[name], other[name]) for name in one if name != "$or" and name in other]
    nested = [(a, b) for a, b in both if isinstance(a, Mapping) and isinstance(b, Mapping)]
    return any(isinstance(a, list) and isinstance(b, list) for a, b in both) or any(_clash(a, b) for a, b in nested)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for name, value in other.items():
        old = found.get(name)
        found[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


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
        if isinstance(value, dict):
            return test(value)
        if isinstance(value, list):
            flat = _flat(value) or [None]
            return any(test(one if isinstance(one, dict) else {}) for one in flat)
        return test({})  # what is no object has no fields

    return matches


# --- leaves


def _leaf(alternatives: list[Any], path: str) -> Matches:
    """The test for one field: of its value, of an array's elements, or of there being none."""
    if not alternatives:
        raise _wrong("Empty arrays are not allowed", path)
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
                    raise _wrong("exists match pattern must be either true or false.", path)
                present |= operand
                absent |= not operand
            else:
                tests.append(_OPERATOR_TESTS[name](operand, path))
        elif isinstance(one, list):
            raise _wrong("Match value must be String, number, true, false, or null", path)
        else:
            tests.append(_equal_to(_literal(one, path)))
    return _on_values(frozenset(texts), tests, absent, present)


def _on_values(texts: frozenset[str], tests: list[Matches], absent: bool, present: bool) -> Matches:
    def any_of(value: Any) -> bool:
        if present or (type(value) is str and value in texts):
            return True
        return any(test(value) for test in tests)

    one = tests[0] if len(tests) == 1 and not texts and not present else any_of

    def matches(value: Any) -> bool:
        if isinstance(value, list):
            leaves = [leaf for leaf in _flat(value) if not isinstance(leaf, dict)]
            return any(map(one, leaves)) if leaves else absent
        if value is _ABSENT or isinstance(value, dict):  # what is no leaf is not there
            return absent
        return one(value)

    return matches


def _flat(values: list[Any]) -> list[Any]:
    """What is in an array and in the arrays within it. Without recursion: how deep they go is the sender's choice."""
    found: list[Any] = []
    arrays = [values]
    while arrays:
        for value in arrays.pop():
            (arrays if isinstance(value, list) else found).append(value)
    return found


def _operator(one: Mapping[str, Any], path: str) -> tuple[str, Any]:
    if not one:
        raise _wrong("Match expression name not found", path)
    name, operand = next(iter(one.items()))
    if name not in _OPERATORS:
        raise _wrong(f"Unrecognized match type {name}", path)
    if len(one) != 1:
        raise _wrong(_TOO_MANY if name in ("numeric", "anything-but") else _ONE_KEY, path)
    return name, operand


def _literal(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return value  # of any size: literals are compared as they are written
    raise _wrong("Match value must be String, number, true, false, or null", path)


def _number(value: Any, path: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_NUMBER_MAX <= value <= _NUMBER_MAX:
        raise _wrong(f"Value must be between {-_NUMBER_MAX} and {_NUMBER_MAX}, inclusive", path)
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
        raise _wrong(f"{name} match pattern must be a string", path)
    if not operand and not empty:
        raise _wrong(f"Null {name} not allowed", path)
    return operand


def _affix(name: str) -> Callable[[Any, str], Matches]:
    def build(operand: Any, path: str) -> Matches:
        if isinstance(operand, Mapping):
            inner = next(iter(operand), None)
            if inner is None:
                raise _wrong(f"{name.capitalize()} expression name not found", path)
            if inner != "equals-ignore-case":
                raise _wrong(f"Unsupported {name} pattern: {inner}", path)
            folded = _text(operand[inner], inner, path).casefold()
            if len(operand) > 1:
                raise _wrong(_ONE_KEY, path)
            if name == "prefix":
                return lambda value: isinstance(value, str) and value.casefold().startswith(folded)
            return lambda value: isinstance(value, str) and value.casefold().endswith(folded)
        text = _text(operand, name, path)
        if name == "prefix":
            return lambda value: isinstance(value, str) and value.startswith(text)
        return lambda value: isinstance(value, str) and value.endswith(text)

    return build


def _exactly(operand: Any, path: str) -> Matches:
    return _equal_to(_text(operand, "exact", path))


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
                raise _wrong(f"Invalid escape character at pos {at}", path)
            parts[-1] += text[at]
        elif letter == "*":
            if len(parts) > 1 and not parts[-1]:
                raise _wrong(f"Consecutive wildcard characters at pos {at}", path)
            parts.append("")
        else:
            parts[-1] += letter
        at += 1
    if len(parts) > _STARS_MAX + 1:
        raise _wrong(
            "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences after a wildcard "
            "character", path
        )  # fmt: skip
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
    if not isinstance(operand, list):
        raise _wrong("Value of numeric must be an array.", path)
    first = operand[0] if operand else "]"
    if not operand or not isinstance(first, str):
        raise _wrong(f"Invalid member in numeric match: {first}", path)
    if first not in _COMPARISONS:
        raise _wrong(f"Unrecognized numeric range operator: {first}", path)
    bounds = [(first, _bound(operand, 1, path))]
    if len(operand) > 2 and first not in (">", ">="):
        raise _wrong(_TOO_MANY, path)
    if len(operand) > 2:
        second = operand[2]
        if not isinstance(second, str):
            raise _wrong(f"Bad value in numeric range: {second}", path)
        if second not in ("<", "<="):
            raise _wrong(f"Bad numeric range operator: {second}", path)
        bounds.append((second, _bound(operand, 3, path)))
        if bounds[0][1] >= bounds[1][1]:
            raise _wrong("Bottom must be less than top", path)
        if len(operand) > 4:
            raise _wrong("Too many terms in numeric range expression", path)
    tests = [(_COMPARISONS[sign], bound) for sign, bound in bounds]
    (compare, bound), more = tests[0], tests[1:]

    def matches(value: Any) -> bool:
        if type(value) is not int and type(value) is not float:
            return False
        return compare(value, bound) and all(compare(value, bound) for compare, bound in more)

    return matches


def _bound(operand: list[Any], at: int, path: str) -> float | int:
    value = operand[at] if at < len(operand) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        sign = "equals" if operand[at - 1] == "=" else operand[at - 1]
        raise _wrong(f"Value of {sign} must be numeric", path)
    return _number(value, path)


def _cidr(operand: Any, path: str) -> Matches:
    text = _text(operand, "prefix", path)
    address, slash, mask = text.partition("/")
    if not slash or "/" in mask:
        raise _wrong("Malformed CIDR, one '/' required", path)
    if not (mask.isascii() and mask.isdigit()):
        raise _wrong("Malformed CIDR, mask bits must be an integer", path)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise _wrong(f"Nonstandard IP address: {address}", path) from None
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _wrong("Malformed CIDR, mask bits must not be negative or too large", path) from None

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
        return _anything_but_like(operand, path)
    values = operand if isinstance(operand, list) else [operand]
    if not values:
        raise _wrong("Empty arrays are not allowed", path)
    if any(one is None or isinstance(one, bool | list | Mapping) for one in values):
        if isinstance(operand, list):
            raise _wrong("Inside anything but list, start|null|boolean is not supported.", path)
        raise _wrong("Value of anything-but must be an array or single string/number value.", path)
    literals = [one if isinstance(one, str) else _number(one, path) for one in values]
    if len({isinstance(one, str) for one in literals}) > 1:
        raise _wrong("Inside anything but list, either all values are number or string, mixed type is not supported", path)
    return lambda value: not any(_same(value, literal) for literal in literals)


def _anything_but_like(operand: Mapping[str, Any], path: str) -> Matches:
    if not operand:
        raise _wrong("Anything-But expression name not found", path)
    name, inner = next(iter(operand.items()))
    if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
        raise _wrong(f"Unsupported anything-but pattern: {name}", path)
    if isinstance(inner, Mapping):
        raise _wrong("Value of anything-but must be an array or single string/number value.", path)
    many = inner if isinstance(inner, list) else [inner]
    if not many:
        raise _wrong("Empty arrays are not allowed", path)
    for one in many:
        if name == "equals-ignore-case" and not isinstance(one, str):
            raise _wrong("Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.", path)
        shown = "prefix/suffix" if name in ("prefix", "suffix") else name
        _text(one, shown, path, empty=shown != "prefix/suffix")
    if len(operand) > 1:
        raise _wrong(_TOO_MANY, path)
    tests = [_OPERATOR_TESTS[name](one, path) for one in many]
    return lambda value: not any(test(value) for test in tests)


_OPERATOR_TESTS: Final[dict[str, Callable[[Any, str], Matches]]] = {
    "exactly": _exactly,
    "prefix": _affix("prefix"),
    "suffix": _affix("suffix"),
    "equals-ignore-case": _ignoring_case,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
    "wildcard": _wildcard,
}
