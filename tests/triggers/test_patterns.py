"""The event filter language, operator by operator; and what is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from martlet.triggers.patterns import InvalidPattern, compile_pattern, parse_pattern

EVENT: dict[str, Any] = {
    "big": 123456789012,
    "nested": [[{"n": 1}], [[{"n": 2}]]],
    "a": {"b.c": 1},
    "p.q": {"r": 2},
    "source": "shop",
    "id": 7,
    "ok": True,
    "nothing": None,
    "empty": [],
    "tags": ["red", "blue", 3],
    "detail": {"total": 99.5, "ip": "10.1.2.3", "name": "Ünïcode.PNG", "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]},
}

YES: list[Any] = [
    {"source": ["shop"]},
    {"source": ["other", "shop"]},
    {"source": ["shop"], "id": [7]},
    {"id": [7.0]},
    {"id": [1, 7e0]},
    {"ok": [True]},
    {"nothing": [None]},
    {"tags": ["blue"]},
    {"tags": [3]},
    {"tags": [{"anything-but": "red"}]},  # one of the array's elements is something else
    {"detail": {"total": [{"numeric": [">", 99]}]}},
    {"detail": {"total": [{"numeric": ["=", 99.5]}]}},
    {"detail": {"total": [{"numeric": [">=", 99.5, "<", 100]}]}},
    {"detail": {"total": [{"numeric": ["<", 0]}, {"numeric": [">", 1]}]}},
    {"detail": {"name": [{"prefix": "Ün"}]}},
    {"detail": {"name": [{"prefix": {"equals-ignore-case": "üN"}}]}},
    {"detail": {"name": [{"suffix": ".PNG"}]}},
    {"detail": {"name": [{"suffix": {"equals-ignore-case": ".png"}}]}},
    {"detail": {"name": [{"equals-ignore-case": "üNÏCODE.png"}]}},
    {"detail": {"name": [{"wildcard": "Ün*.PNG"}]}},
    {"detail": {"name": [{"wildcard": "*"}]}},
    {"detail": {"name": [{"wildcard": "*ï*.*"}]}},
    {"detail": {"ip": [{"cidr": "10.0.0.0/8"}]}},
    {"detail": {"ip": [{"cidr": "10.1.2.3/32"}]}},
    {"source": [{"anything-but": "other"}]},
    {"source": [{"anything-but": ["a", "b"]}]},
    {"id": [{"anything-but": [1, 2]}]},
    {"id": [{"anything-but": "7"}]},
    {"nothing": [{"anything-but": "x"}]},
    {"source": [{"anything-but": {"prefix": "x"}}]},
    {"source": [{"anything-but": {"prefix": ["x", "y"]}}]},
    {"source": [{"anything-but": {"suffix": "x"}}]},
    {"source": [{"anything-but": {"equals-ignore-case": ["X", "y"]}}]},
    {"source": [{"anything-but": {"wildcard": "x*"}}]},
    {"source": [{"exists": True}]},
    {"nothing": [{"exists": True}]},
    {"absent": [{"exists": False}]},
    {"empty": [{"exists": False}]},
    {"detail": {"absent": [{"exists": False}]}},
    {"absent": {"deep": [{"exists": False}]}},
    {"detail": [{"exists": False}]},  # an object is no leaf
    {"absent": [{"exists": False}, "x"]},
    {"source": [{"exists": False}, "shop"]},
    {"detail": {"items": {"sku": ["b"], "n": [2]}}},
    {"$or": [{"source": ["x"]}, {"id": [7]}]},
    {"source": ["shop"], "$or": [{"id": [1]}, {"detail": {"total": [99.5]}}]},
    {"$or": [{"a": ["x"]}, {"$or": [{"b": ["y"]}, {"ok": [True]}]}]},
    {"detail": {"$or": [{"total": [1]}, {"ip": [{"prefix": "10."}]}]}},
    {"source": [{"exactly": "shop"}]},
    {"big": [123456789012]},
    {"source": {"deep": [{"exists": False}]}},  # a text has no fields
    {"nested": {"n": [2]}},  # through arrays in arrays
    {"detail.total": [99.5]},
    {"detail.items.sku": ["b"]},
    {"a.b": {"c": [1]}},
    {"a": {"b.c": [1]}},
    {"a.b.c": [1]},
    {"p.q.r": [2]},
    {"id": [1], "$or": [{"id": [7]}, {"ok": [False]}]},  # what an alternative says of a field counts instead
    {"$or": [{"id": [1]}, {"ok": [False]}], "id": [7], "ok": [True]},  # the last counts
]

NO: list[Any] = [
    {"source": ["Shop"]},
    {"source": ["shop"], "id": [8]},
    {"id": ["7"]},
    {"ok": [1]},
    {"ok": ["true"]},
    {"id": [True]},
    {"nothing": ["null"]},
    {"absent": [None]},
    {"tags": ["green"]},
    {"empty": ["x"]},
    {"empty": [{"exists": True}]},
    {"empty": [{"anything-but": "x"}]},
    {"absent": [{"anything-but": "x"}]},
    {"absent": [{"exists": True}]},
    {"detail": [{"exists": True}]},
    {"source": {"deep": ["x"]}},
    {"detail": {"total": [{"numeric": [">", 99.5]}]}},
    {"source": [{"numeric": [">", 0]}]},
    {"ok": [{"numeric": ["=", 1]}]},
    {"detail": {"name": [{"prefix": "ün"}]}},
    {"id": [{"prefix": "7"}]},
    {"detail": {"name": [{"wildcard": "Ün*.JPG"}]}},
    {"detail": {"name": [{"wildcard": "*PNG*PNG"}]}},
    {"detail": {"name": [{"wildcard": "Ünïcode.PN"}]}},
    {"detail": {"ip": [{"cidr": "192.168.0.0/16"}]}},
    {"source": [{"cidr": "10.0.0.0/8"}]},
    {"detail": {"ip": [{"cidr": "2001:db8::/32"}]}},
    {"source": [{"anything-but": "shop"}]},
    {"source": [{"anything-but": ["a", "shop"]}]},
    {"id": [{"anything-but": 7.0}]},
    {"source": [{"anything-but": {"prefix": "sh"}}]},
    {"source": [{"anything-but": {"suffix": ["x", "op"]}}]},
    {"source": [{"anything-but": {"equals-ignore-case": "SHOP"}}]},
    {"source": [{"anything-but": {"wildcard": "s*p"}}]},
    {"source": [{"exists": False}]},
    {"detail": {"items": {"sku": ["a"], "n": [2]}}},  # not of the same element
    {"$or": [{"source": ["x"]}, {"id": [8]}]},
    {"source": ["x"], "$or": [{"id": [7]}, {"ok": [True]}]},
]

BAD: list[tuple[Any, str]] = [
    ([], "is not an object"),
    ("x", "is not an object"),
    (None, "is not an object"),
    ({}, "empty objects"),
    ({"a": {}}, "empty objects"),
    ({"a": []}, "empty arrays"),
    ({"a": "x"}, '"a" must be an object or an array'),
    ({"a": {"b": 1}}, '"b" must be'),
    ({"a": [["x"]]}, "match value must be"),
    ({"a": [{"prefix": "x", "suffix": "y"}]}, "only one key"),
    ({"a": [{}]}, "match expression name not found"),
    ({"a": [{"like": "x"}]}, "unrecognized match type like"),
    ({"a": [{"prefix": 1}]}, "must be a string"),
    ({"a": [{"prefix": {"suffix": "x"}}]}, "unsupported prefix pattern"),
    ({"a": [{"prefix": {"equals-ignore-case": 5}}]}, "equals-ignore-case match pattern must be a string"),
    ({"a": [{"prefix": {"other": "x"}}]}, "unsupported prefix pattern: other"),
    ({"a": [{"suffix": {}}]}, "suffix expression name not found"),
    ({"a": [{"suffix": {"equals-ignore-case": "x", "more": "y"}}]}, "only one key"),
    ({"a": [{"exactly": 3}]}, "exact match pattern must be a string"),
    ({"a": [{"numeric": ["=", 1], "more": 1}]}, "too many elements"),
    ({"a": [{"anything-but": "x", "more": 1}]}, "too many elements"),
    ({"a": [{"anything-but": {"prefix": "x", "more": 1}}]}, "too many elements"),
    ({"a": [{"anything-but": {}}]}, "expression name not found"),
    ({"a": [{"anything-but": 5e9 + 1}]}, "must be between"),
    ({"a": [{"wildcard": "*:*:*:*:*:event-bus/*"}]}, "too complex"),
    ({"a": [{"exists": "true"}]}, "must be either true or false"),
    ({"a": [{"numeric": []}]}, "Invalid member in numeric match: ]"),
    ({"a": [{"numeric": [">"]}]}, "Value of > must be numeric"),
    ({"a": [{"numeric": ["!", 1]}]}, "range operator: !"),
    ({"a": [{"numeric": [">", "1"]}]}, "Value of > must be numeric"),
    ({"a": [{"numeric": [">", True]}]}, "Value of > must be numeric"),
    ({"a": [{"numeric": [">", 6e9]}]}, "must be between"),
    ({"a": [{"numeric": ["<", 5, ">", 1]}]}, "too many elements"),
    ({"a": [{"numeric": [">", 5, "<", 5]}]}, "bottom must be less than top"),
    ({"a": [{"cidr": "10.0.0.0"}]}, "one '/' required"),
    ({"a": [{"cidr": "10.0.0.0/33"}]}, "malformed CIDR"),
    ({"a": [{"cidr": "x/8"}]}, "Nonstandard IP address: x"),
    ({"a": [{"wildcard": "a**b"}]}, "consecutive wildcard"),
    ({"a": [{"wildcard": "a\\b"}]}, "invalid escape"),
    ({"a": [{"wildcard": "a\\"}]}, "invalid escape"),
    ({"a": [{"anything-but": []}]}, "empty arrays"),
    ({"a": [{"anything-but": ["x", 1]}]}, "mixed type"),
    ({"a": [{"anything-but": ["x", None]}]}, "not supported"),
    ({"a": [{"anything-but": [["x"]]}]}, "not supported"),
    ({"a": [{"anything-but": {"numeric": [">", 1]}}]}, "unsupported anything-but"),
    ({"a": [{"anything-but": {"prefix": ""}}]}, "Null prefix/suffix not allowed"),
    ({"a": [{"anything-but": {"prefix": []}}]}, "empty arrays"),
]


@pytest.mark.parametrize("pattern", YES, ids=json.dumps)
def test_lets_through(pattern: Any) -> None:
    assert compile_pattern(pattern)(EVENT) is True


@pytest.mark.parametrize("pattern", NO, ids=json.dumps)
def test_holds_back(pattern: Any) -> None:
    assert compile_pattern(pattern)(EVENT) is False


@pytest.mark.parametrize(("pattern", "text"), BAD, ids=lambda value: value if isinstance(value, str) else json.dumps(value))
def test_refuses(pattern: Any, text: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        compile_pattern(pattern)
    assert text.lower() in caught.value.message.lower()


@pytest.mark.parametrize("text", ["", "{", "'x'", '{"a": [NaN]}', "[" * 100_000])
def test_refuses_what_is_no_json(text: str) -> None:
    with pytest.raises(InvalidPattern, match="not valid JSON"):
        parse_pattern(text)


def test_refuses_what_is_too_deep() -> None:
    pattern: Any = ["x"]
    for _ in range(33):
        pattern = {"a": pattern}
    with pytest.raises(InvalidPattern, match="deeper than 32"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "value",
    [
        [{"a": ["x"]}],  # one alternative is none
        ["x"],
        [{"prefix": "x"}, {"suffix": "y"}],
    ],
)
def test_or_is_an_ordinary_field_unless_it_is_the_operator(value: Any) -> None:
    if value == [{"a": ["x"]}]:
        with pytest.raises(InvalidPattern):
            compile_pattern({"$or": value})
        return
    assert compile_pattern({"$or": value})({"$or": "x"}) is True


@pytest.mark.parametrize(("pattern", "value"), [(r"a\*b", "a*b"), (r"a\\*", "a\\x"), ("*a*", "a"), ("", "")])
def test_stars_that_are_meant(pattern: str, value: str) -> None:
    assert compile_pattern({"a": [{"wildcard": pattern}]})({"a": value})
    assert not compile_pattern({"a": [{"wildcard": pattern}]})({"a": "zz"})


def test_a_hostile_wildcard_is_linear() -> None:
    test = compile_pattern({"a": [{"wildcard": "*" + "a" * 500 + "*a*a*a" + "a" * 500 + "b"}]})
    event = {"a": "a" * 100_000}
    began = time.process_time()
    assert test(event) is False
    assert time.process_time() - began < 5  # a backtracking matcher would take for ever


def test_events_that_are_none() -> None:
    for event in (None, [], "x", 1):
        assert compile_pattern({"a": [{"exists": False}]})(event) is False


def test_a_parsed_pattern_matches() -> None:
    assert parse_pattern('{"detail": {"total": [{"numeric": ["<", 1e2]}]}}')(EVENT)
