"""Expressions are total, bounded and exact; terms sort as their values do, both ways, and no term begins another."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.documents.expressions import FUNCTIONS, compile_expression
from martlet.documents.order import decode_id, encode_id, encode_term, invert
from martlet.errors import InvalidInput, LimitExceeded

DOCUMENT = {
    "n": 5,
    "f": 0.1,
    "d": Decimal("0.20"),
    "s": "Ärger",
    "a": [1, "x", {"k": 2}],
    "o": {"p": {"q": True}},
    "t": datetime(2026, 1, 1, tzinfo=UTC),
    "z": None,
    "set": frozenset(["r"]),
    "big": 2**63 - 1,
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("n + 2 * 3 - -1", 12),
        ("(n + 2) * 3 % 4", 1),
        ("-7 % 3", 2),
        ("7 / 2", Decimal("3.5")),
        ("6 / 2", 3),
        ("n / 0", None),
        ("f + d == 0.3", True),
        ("0.1 + 0.2", Decimal("0.3")),
        ("big + 1 > big", True),
        ("big * big", Decimal((2**63 - 1) ** 2)),
        ("1 == 1.0 and 1 != true and not (1 == '1')", True),
        ("n > 'a' or n < 'a'", False),
        ("z < 1 or z > 1 or missing == 1", False),
        ("z == null and missing == null", True),
        ("o.p.q", True),
        ("a[2].k", 2),
        ("a[-1]['k']", 2),
        ("a[99]", None),
        ("n.x.y", None),
        ("'x' in a and 2 in [1, 2] and 'r' in set and 'g' in s", True),
        ("lower(s) + upper('x')", "ärgerX"),
        ("len(s) == 5 and len(a) == 3 and len(n) == null", True),
        ("coalesce(z, missing, 7)", 7),
        ("min(3, 1.5, 2)", Decimal("1.5")),
        ("max([1, 5, 3])", 5),
        ("round(2.5) + floor(-1.2) + ceil(1.2)", 2),
        ("round(1.005, 2)", Decimal("1.00")),
        ("type(t) + type(a) + type(o) + type(z)", "timelistobjectnull"),
        ("$p * 2", 6),
        ('"a\\"b\\n" == \'a"b\n\'', True),
        ("not z", True),
        ("1 and true", False),
        ("t > t", False),
    ],
)
def test_values(text: str, wanted: Any) -> None:
    found = compile_expression(text).value(DOCUMENT, {"p": 3})
    assert found == wanted
    assert type(found) is type(wanted) or isinstance(found, int | Decimal)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "(1",
        "1)",
        "a b",
        "a..b",
        "a.",
        "[1,",
        "f(",
        "nope(1)",
        "len()",
        "len(1,2)",
        "1 < 2 < 3",
        "'x",
        "a = 1",
        "$",
        "@",
        "import os",
        "__import__('os')",
        "a.__class__()",
        "\x00",
        "in",
    ],
)
def test_what_is_no_expression_says_where(text: str) -> None:
    with pytest.raises(InvalidInput, match="expression"):
        compile_expression(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("(" * 33 + "1" + ")" * 33, "expression_depth"),
        ("[" * 2000, "expression_depth"),
        ("not " * 600 + "a", "expression_nodes"),
        ("+".join(["1"] * 400), "expression_nodes"),
        ("a" * 4097, "expression_bytes"),
        ("1" * 39, "decimal_digits"),
    ],
)
def test_bombs_are_refused_by_name(text: str, limit: str) -> None:
    with pytest.raises(LimitExceeded, match=limit):
        compile_expression(text)


def test_texts_cannot_be_blown_up() -> None:
    text = "s" + " + s" * 200
    assert compile_expression(text).value({"s": "x" * 100_000}) is None
    assert compile_expression("s * 1000000000").value({"s": "x"}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3) | st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@given(JSON, JSON, st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "and", "or"]))
def test_nothing_fails_while_it_is_evaluated(left: Any, right: Any, sign: str) -> None:
    compile_expression(f"l {sign} r").value({"l": left, "r": right})
    compile_expression("l[r]").value({"l": left, "r": right})
    for name, (_, least, _) in FUNCTIONS.items():
        compile_expression(f"{name}({', '.join(['l', 'r'][:least] or ['l'])})").value({"l": left, "r": right})


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals("-1e30", "1e30", allow_nan=False, places=6),
    st.datetimes(timezones=st.just(UTC)),
    st.text("ab\x00\x01ü\U0001f600", max_size=4),
    st.binary(max_size=4),
)


def rank(value: Any) -> tuple[int, Any]:
    for place, kinds in enumerate(((type(None),), (bool,), (int, float, Decimal), (datetime,), (str,), (bytes,))):
        if isinstance(value, kinds):
            if place == 2:
                return place, Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
            return place, value.encode() if isinstance(value, str) else value or 0 if place < 2 else value
    raise TypeError(value)


def fits(value: Any) -> bool:
    return not isinstance(value, Decimal) or len(value.as_tuple().digits) <= 38


@given(SCALARS.filter(fits), SCALARS.filter(fits))
def test_terms_sort_as_their_values(one: Any, other: Any) -> None:
    left, right = encode_term(one), encode_term(other)
    assert (left < right, left == right) == (rank(one) < rank(other), rank(one) == rank(other))
    assert (invert(left) < invert(right)) == (rank(one) > rank(other))
    if left != right:
        assert not left.startswith(right)
        assert not right.startswith(left)


PARTS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.binary(max_size=3))


@given(st.lists(PARTS, min_size=1, max_size=3), st.lists(PARTS, min_size=1, max_size=3))
def test_ids_come_back_and_sort_part_by_part(one: list[Any], other: list[Any]) -> None:
    left, right = encode_id(tuple(one)), encode_id(tuple(other))
    assert decode_id(left) == tuple(one)
    assert (left < right) == ([rank(part) for part in one] < [rank(part) for part in other])
    assert left == right or not right.startswith(left)
