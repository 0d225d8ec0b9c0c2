"""Random expressions against a plain evaluator, and random texts: each is parsed or refused by name."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.documents.dynamodb.expressions import Names, numbers, parse_condition, parse_projection, parse_update, values
from martlet.errors import ServiceError

ATTRIBUTES = ("a", "b", "c", "d")
WORD = st.text("ab\u00e9", max_size=3)
NUMBER = st.integers(-3, 3).map(str) | st.sampled_from(["0.5", "-0.25", "1e3"])
SCALARS = (
    WORD.map(lambda text: {"S": text})
    | NUMBER.map(lambda text: {"N": numbers.canonical(text)})
    | st.binary(max_size=2).map(lambda raw: {"B": raw})
    | st.booleans().map(lambda flag: {"BOOL": flag})
    | st.just({"NULL": True})
    | st.sets(WORD, min_size=1, max_size=3).map(lambda members: {"SS": sorted(members, reverse=True)})
    | st.sets(st.integers(0, 3).map(str), min_size=1, max_size=3).map(lambda members: {"NS": list(members)})
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda members: {"L": members})
        | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2).map(lambda members: {"M": members})
    ),
    max_leaves=5,
)
ITEMS = st.dictionaries(st.sampled_from(ATTRIBUTES), VALUES, max_size=4)
PATHS = st.tuples(st.sampled_from(ATTRIBUTES), st.lists(st.sampled_from(["x", "y", 0, 1]), max_size=2).map(tuple)).map(
    lambda pair: (pair[0], *pair[1])
)


# conditions: (kind, operands…); operands are ("path", steps), ("value", value) or ("size", steps)

OPERANDS = (
    PATHS.map(lambda steps: ("path", steps))
    | VALUES.map(lambda value: ("value", value))
    | PATHS.map(lambda steps: ("size", steps))
)
TESTS = (
    st.tuples(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), OPERANDS, OPERANDS)
    | st.tuples(st.just("BETWEEN"), OPERANDS, OPERANDS, OPERANDS)
    | st.tuples(st.just("IN"), OPERANDS, OPERANDS, OPERANDS)
    | st.tuples(st.sampled_from(["attribute_exists", "attribute_not_exists"]), PATHS.map(lambda steps: ("path", steps)))
    | st.tuples(st.sampled_from(["begins_with", "contains"]), OPERANDS, OPERANDS)
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.tuples(st.just("NOT"), inner) | st.tuples(st.sampled_from(["AND", "OR"]), inner, inner),
    max_leaves=8,
)


def written(node: Any, given_values: dict[str, Any]) -> str:
    kind, *rest = node
    if kind in ("path", "size"):
        text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest[0])[1:]
        return text if kind == "path" else f"size({text})"
    if kind == "value":
        name = f":v{len(given_values)}"
        given_values[name] = rest[0]
        return name
    parts = [written(part, given_values) for part in rest]
    if kind == "BETWEEN":
        return f"{parts[0]} BETWEEN {parts[1]} AND {parts[2]}"
    if kind == "IN":
        return f"{parts[0]} IN ({', '.join(parts[1:])})"
    if kind == "NOT":
        return f"NOT ({parts[0]})"
    if kind in ("AND", "OR"):
        return f"({parts[0]}) {kind} ({parts[1]})"
    if kind[0].isalpha():
        return f"{kind}({', '.join(parts)})"
    return f"{parts[0]} {kind} {parts[1]}"


def plain(value: Any) -> Any:
    """A value that Python compares as the service does: type first."""
    ((kind, content),) = value.items()
    if kind == "N":
        return kind, Decimal(content)
    if kind in ("SS", "NS", "BS"):
        return kind, frozenset(content)
    if kind == "M":
        return kind, {name: plain(member) for name, member in content.items()}
    if kind == "L":
        return kind, [plain(member) for member in content]
    return kind, content


def found(steps: Any, item: Any) -> Any:
    value: Any = {"M": item}
    for step in steps:
        container = value.get("M" if isinstance(step, str) else "L")
        if container is None or (step not in container if isinstance(step, str) else step >= len(container)):
            return None
        value = container[step]
    return value


def naive(node: Any, item: Any) -> Any:
    kind, *rest = node
    if kind == "path":
        return found(rest[0], item)
    if kind == "value":
        return rest[0]
    if kind == "size":
        value = found(rest[0], item)
        ((inner, content),) = value.items() if value else (("N", ""),)
        if inner in ("N", "BOOL", "NULL"):
            return None
        return {"N": str(len(content.encode() if inner == "S" else content))}
    if kind == "NOT":
        return not naive(rest[0], item)
    if kind == "AND":
        return naive(rest[0], item) and naive(rest[1], item)
    if kind == "OR":
        return naive(rest[0], item) or naive(rest[1], item)
    operands = [naive(operand, item) for operand in rest]
    if kind in ("attribute_exists", "attribute_not_exists"):
        return (operands[0] is not None) == (kind == "attribute_exists")
    if kind == "<>":
        return None in operands or plain(operands[0]) != plain(operands[1])
    if kind == "IN":
        return operands[0] is not None and any(plain(operands[0]) == plain(one) for one in operands[1:] if one is not None)
    if None in operands:
        return False
    return compared(kind, *map(plain, operands))


def compared(kind: str, one: Any, two: Any, three: Any = None) -> bool:
    if kind == "=":
        return bool(one == two)
    if kind == "BETWEEN":
        return compared("<=", two, one) and compared("<=", one, three)
    if kind == "begins_with":
        return one[0] == two[0] and one[0] in ("S", "B") and one[1].startswith(two[1])
    if kind == "contains":
        if one[0] in ("SS", "NS", "BS"):
            return one[0][0] == two[0] and (str(two[1]) if two[0] == "N" else two[1]) in one[1]
        return two in one[1] if one[0] == "L" else one[0] in ("S", "B") and one[0] == two[0] and two[1] in one[1]
    if one[0] != two[0] or one[0] not in ("S", "N", "B"):
        return False
    left, right = (one[1].encode(), two[1].encode()) if one[0] == "S" else (one[1], two[1])
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[kind])


@settings(max_examples=600, deadline=None)
@given(CONDITIONS, ITEMS)
def test_conditions_against_a_plain_evaluator(node: Any, item: Any) -> None:
    given_values: dict[str, Any] = {}
    text = written(node, given_values)
    try:
        condition = parse_condition(text, Names(None, given_values or None))
    except ServiceError as error:
        message, words = error.message, ("operand type", "distinct", "BETWEEN operator", "size has exceeded")
        assert any(word in message for word in words), (text, message)
        return
    assert condition.holds(item) is bool(naive(node, item)), text


@settings(max_examples=400, deadline=None)
@given(ITEMS, st.lists(st.tuples(PATHS, VALUES | st.none()), min_size=1, max_size=4))
def test_updates_against_a_plain_evaluator(item: Any, writes: Any) -> None:
    """SET and REMOVE of some paths: afterwards each path set has its value, what was not written is as before."""
    given_values: dict[str, Any] = {}
    sets, removes = [], []
    for steps, value in writes:
        path = written(("path", steps), given_values)
        (removes if value is None else sets).append(
            path if value is None else f"{path} = {written(('value', value), given_values)}"
        )
    text = " ".join(([f"SET {', '.join(sets)}"] if sets else []) + ([f"REMOVE {', '.join(removes)}"] if removes else []))
    try:
        update = parse_update(text, Names(None, given_values or None))
        new, _ = update.apply(item)
    except ServiceError as error:
        message = error.message
        assert any(word in message for word in ("overlap", "conflict", "document path")), message
        return
    written_heads = {steps[0] for steps, _ in writes}
    for name in ATTRIBUTES:
        if name not in written_heads:
            assert new.get(name) == item.get(name)
    if not any(isinstance(step, int) for steps, _ in writes for step in steps):
        for steps, value in writes:
            assert found(steps, new) == value
    for value in new.values():
        values.check(value)


PIECES = [
    *"abz#:()[].,=<>+-'\"_ \n01",
    "AND",
    " OR ",
    " NOT ",
    " IN ",
    " BETWEEN ",
    ":v",
    "#n",
    "size(",
    "SET ",
    " ADD ",
    "REMOVE ",
]
WORDS = [
    "contains(",
    "begins_with(",
    "attribute_type(",
    "if_not_exists(",
    "list_append(",
    "DELETE ",
    "status",
    "\u00e9",
    "\ud800",
]
ALPHABET = st.sampled_from(PIECES + WORDS)
TEXTS = st.lists(ALPHABET, max_size=40).map("".join) | st.text(max_size=60)


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
def test_any_text_is_parsed_or_refused_by_name(text: str) -> None:
    item = {"a": {"S": "x"}, "b": {"N": "1"}, "z": {"L": [{"M": {"a": {"N": "1"}}}]}}
    for parse in (parse_condition, parse_update, parse_projection):
        names = Names({"#n": "a"}, {":v": {"N": "1"}})
        try:
            parsed = parse(text, names)
            if parse is parse_condition:
                parsed.holds(item)  # type: ignore[union-attr]
            elif parse is parse_update:
                parsed.apply(item)  # type: ignore[union-attr]
            else:
                parsed.of(item)  # type: ignore[union-attr]
        except ServiceError as error:
            refused = error
            assert refused.name == "ValidationException"


@settings(max_examples=500, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=None), st.decimals(allow_nan=False, allow_infinity=False))
def test_arithmetic_against_decimal(left: Decimal, right: Decimal) -> None:
    try:
        one, two = numbers.canonical(str(left)), numbers.canonical(str(right))
        total = numbers.add(one, two)
    except ServiceError as error:
        message = error.message
        assert message in (numbers.OVERFLOW, numbers.UNDERFLOW, numbers.PRECISION)
        return
    assert Decimal(one) == left
    assert Fraction(total) == Fraction(left) + Fraction(right)
    assert numbers.canonical(total) == total
    assert numbers.size(total) <= 22
