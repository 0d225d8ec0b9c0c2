"""Names, numbers, values, projections, and the cache."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from martlet.documents.dynamodb.expressions import (
    Names,
    check_parameters,
    numbers,
    older_words,
    parse_condition,
    parse_projection,
    values,
)
from martlet.documents.dynamodb.expressions.memory import Memory
from martlet.documents.dynamodb.expressions.words import RESERVED
from martlet.errors import ServiceError

SET = "One or more parameter values were invalid: Input collection "


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        call(*arguments)
    assert caught.value.name == "ValidationException"
    return caught.value.message


# Names


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ({}, None, "ExpressionAttributeNames must not be empty"),
        ({"a": "a"}, {}, 'ExpressionAttributeNames contains invalid key: Syntax error; key: "a"'),
        ({"#": "a"}, None, 'ExpressionAttributeNames contains invalid key: Syntax error; key: "#"'),
        ({"#a-b": "a"}, None, 'ExpressionAttributeNames contains invalid key: Syntax error; key: "#a-b"'),
        (None, {}, "ExpressionAttributeValues must not be empty"),
        (None, {":b": {"a": ""}, "b": {"S": "a"}}, 'ExpressionAttributeValues contains invalid key: Syntax error; key: "b"'),
        (None, {":b": {}}, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
        (None, {":b": {"SS": ["a", "a"]}}, 'One or more parameter values were invalid: Input collection ["a", "a"] contains duplicates.'),
        (None, {":b": {"S": "a", "N": ""}}, "The parameter cannot be converted to a numeric value: "),
        (None, {":b": {"S": "a", "N": "1"}}, "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"),
    ],
)  # fmt: skip
def test_variables(names: Any, given: Any, message: str) -> None:
    assert refusal(Names, names, given) == message


@pytest.mark.parametrize(
    ("value", "newer", "older"),
    [
        ({"N": ""}, "The parameter cannot be converted to a numeric value: ", "The parameter cannot be converted to a numeric value"),
        ({"N": "1e2147483647"}, numbers.OVERFLOW, numbers.UNDERFLOW),
        ({"N": "0.1e2147483647"}, numbers.OVERFLOW, numbers.OVERFLOW),
        ({"N": "1e-2147483647"}, numbers.UNDERFLOW, numbers.UNDERFLOW),
        ({"N": "-1e2147483648"}, numbers.OVERFLOW, "The parameter cannot be converted to a numeric value: -1e2147483648"),
        ({"SS": ["b", "a", "b", "c"]}, SET + '["a", "b", "b", "c"] contains duplicates.', SET + "[b, a, b, c] contains duplicates."),
        ({"NS": ["2", "1", "2.0"]}, SET[:-1] + " contains duplicates.", "Input collection contains duplicates"),
        ({"BS": [b"\xff", b"\0", b"\0"]}, SET + '["AA==","/w==","AA=="]of type BS contains duplicates.', SET + "[/w==, AA==, AA==]of type BS contains duplicates."),
    ],
)  # fmt: skip
def test_the_older_layer_words_some_errors_otherwise(value: Any, newer: str, older: str) -> None:
    assert refusal(values.check, value) == newer
    with pytest.raises(ServiceError) as caught, older_words():
        values.check(value)
    assert caught.value.message == older
    with pytest.raises(ServiceError) as caught, older_words():
        Names(None, {":b": value})
    assert caught.value.message == f"ExpressionAttributeValues contains invalid value: {older} for key :b"


def test_unused_variables() -> None:
    names = Names({"#a": "a", "#b": "b"}, {":a": {"S": "x"}, ":b": {"S": "x"}})
    parse_condition("#a = :b", names)
    assert refusal(names.check_used) == "Value provided in ExpressionAttributeNames unused in expressions: keys: {#b}"
    parse_projection("#b", names)
    assert refusal(names.check_used) == "Value provided in ExpressionAttributeValues unused in expressions: keys: {:a}"
    parse_condition(":a = #a", names)
    names.check_used()


def test_a_remembered_expression_uses_its_variables_again() -> None:
    for _ in range(3):
        names = Names({"#a": "a"}, {":a": {"S": "x"}})
        parse_condition("#a = :a", names)
        names.check_used()


QUERY = ("ProjectionExpression", "FilterExpression", "KeyConditionExpression")
QUERY_LEGACY = ("AttributesToGet", "QueryFilter", "ConditionalOperator", "KeyConditions")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"AttributesToGet": [], "QueryFilter": {}, "KeyConditions": {}, "FilterExpression": "", "ProjectionExpression": ""},
            (
                "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: "
                "{AttributesToGet, QueryFilter} Expression parameters: {ProjectionExpression, FilterExpression}"
            ),
        ),
        (
            {"KeyConditions": {}, "KeyConditionExpression": ""},
            (
                "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: "
                "{KeyConditions} Expression parameters: {KeyConditionExpression}"
            ),
        ),
        (
            {"KeyConditions": {}, "ExpressionAttributeNames": {}},
            "ExpressionAttributeNames can only be specified when using expressions",
        ),
        (
            {"KeyConditions": {}, "ExpressionAttributeValues": {}},
            "ExpressionAttributeValues can only be specified when using expressions",
        ),
        (
            {"ProjectionExpression": "a", "ExpressionAttributeValues": {}},
            "ExpressionAttributeValues can only be specified when using expressions",
        ),
    ],
)
def test_parameters_that_exclude_each_other(request_: dict[str, Any], message: str) -> None:
    assert refusal(check_parameters, request_, QUERY, QUERY_LEGACY) == message


def test_parameters_that_go_together() -> None:
    check_parameters({"KeyConditions": {}, "FilterExpression": "a"}, QUERY, QUERY_LEGACY)
    check_parameters({"KeyConditions": {}, "QueryFilter": {}}, QUERY, QUERY_LEGACY)
    check_parameters({"KeyConditionExpression": "a", "ExpressionAttributeValues": {}}, QUERY, QUERY_LEGACY)


def test_the_reserved_words_are_all_here() -> None:
    assert len(RESERVED) == 573
    assert {"ABORT", "NAME", "STATUS", "TTL", "ZONE"} < RESERVED


# numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0e125", "0"),
        ("0e-130", "0"),
        ("+3", "3"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-7.1234", "-7.1234"),
        ("0001.2300", "1.23"),
        ("1e5", "100000"),
        ("1E+5", "100000"),
        ("-17e-5", "-0.00017"),
        ("123.456e1", "1234.56"),
        ("1e125", "1" + "0" * 125),
        ("9.9e125", "99" + "0" * 124),
        ("1e-130", "0." + "0" * 129 + "1"),
        ("3.1415926535897932384626433832795028841", "3.1415926535897932384626433832795028841"),
        ("31415926535897932384626433832795028841e30", "31415926535897932384626433832795028841" + "0" * 30),
        ("1" + "0" * 50, "1" + "0" * 50),
        ("0" * 5000 + "7", "7"),
    ],
)
def test_canonical_numbers(text: str, expected: str) -> None:
    assert numbers.canonical(text) == expected
    assert numbers.canonical(expected) == expected
    assert Decimal(expected) == Decimal(text)


NUMERIC = "The parameter cannot be converted to a numeric value"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NUMERIC + ": "),
        ("b", NUMERIC + ": b"),
        (" 1", NUMERIC + ":  1"),
        ("1 ", NUMERIC + ": 1 "),
        ("NaN", NUMERIC + ": NaN"),
        ("-Infinity", NUMERIC + ": -Infinity"),
        ("1e", NUMERIC + ": 1e"),
        (".", NUMERIC + ": ."),
        ("1_000", NUMERIC + ": 1_000"),
        ("٣", NUMERIC + ": ٣"),
        ("1e9223372036854775808", NUMERIC + ": 1e9223372036854775808"),
        ("1e99999999999", numbers.OVERFLOW),
        ("1e-99999999999", numbers.UNDERFLOW),
        ("0e126", numbers.OVERFLOW),
        ("0e-131", numbers.UNDERFLOW),
        ("1e" + "9" * 5000, NUMERIC + ": 1e" + "9" * 5000),
        ("1e126", numbers.OVERFLOW),
        ("11e125", numbers.OVERFLOW),
        ("-1e126", numbers.OVERFLOW),
        ("1e1000000000", numbers.OVERFLOW),
        ("1e-131", numbers.UNDERFLOW),
        ("0.9e-130", numbers.UNDERFLOW),
        ("3.14159265358979323846264338327950288419", numbers.PRECISION),
        ("314159265358979323846264338327950288419e30", numbers.PRECISION),
    ],
)
def test_numbers_that_are_none(text: str, message: str) -> None:
    assert refusal(numbers.canonical, text) == message


def test_arithmetic_is_exact() -> None:
    assert numbers.add("0.1", "0.2") == "0.3"
    assert numbers.add("10000000000000000000000", "1") == "10000000000000000000001"
    assert numbers.subtract("10000000000000000000000", "1") == "9999999999999999999999"
    assert numbers.subtract("5", "5.0") == "0"
    assert numbers.add("9" * 38, "1") == "1" + "0" * 38
    assert numbers.subtract("1" + "0" * 125, "1" + "0" * 125) == "0"
    assert refusal(numbers.add, "9" + "0" * 125, "9" + "0" * 125) == numbers.OVERFLOW
    assert refusal(numbers.add, "1" + "0" * 50, "1") == numbers.OVERFLOW
    assert refusal(numbers.subtract, "1" + "0" * 125, "0." + "0" * 129 + "1") == numbers.OVERFLOW


@pytest.mark.parametrize(
    ("text", "expected"),
    # measured at the service's limit of an item's size
    [
        *[("0", 1), ("1", 2), ("12", 2), ("123", 3), ("1234", 3), ("12345678901234567890123456789012345678", 20), ("0042", 2)],
        *[("100", 2), ("1010", 3), ("0.0000001", 2), ("1E125", 2), ("1E-100", 2), ("1.5", 3), ("15", 2), ("1.200", 3)],
        *[("1.234", 4), ("3.14159", 5), ("123456", 4), ("100.5", 4), ("0.15", 2), ("-42", 3), ("-0", 1)],
    ],
)  # fmt: skip
def test_bytes_of_a_number(text: str, expected: int) -> None:
    assert numbers.size(numbers.canonical(text)) == expected


# values


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
        ({"X": "a"}, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
        ({"L": [{}]}, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
        ({"NULL": False}, "One or more parameter values were invalid: Null attribute value types must have the value of true"),
        ({"SS": []}, "One or more parameter values were invalid: An string set  may not be empty"),
        ({"NS": []}, "One or more parameter values were invalid: An number set  may not be empty"),
        ({"BS": []}, "One or more parameter values were invalid: Binary sets should not be empty"),
        ({"NS": ["1", "1.0"]}, SET[:-1] + " contains duplicates."),
        ({"BS": [b"b", b"b"]}, SET + '["Yg==","Yg=="]of type BS contains duplicates.'),
        ({"M": {"x": {"N": "b"}}}, "The parameter cannot be converted to a numeric value: b"),
    ],
)  # fmt: skip
def test_values_that_are_none(value: Any, message: str) -> None:
    assert refusal(values.check, value) == message


def test_values_are_made_canonical_and_not_changed() -> None:
    given = {"M": {"n": {"N": "01.50"}, "l": {"L": [{"NS": ["1e1", "2"]}]}, "b": {"B": bytearray(b"x")}}}
    assert values.check(given) == {"M": {"n": {"N": "1.5"}, "l": {"L": [{"NS": ["10", "2"]}]}, "b": {"B": b"x"}}}
    assert given["M"]["n"] == {"N": "01.50"}


@pytest.mark.parametrize("value", [{"S": 1}, {"N": 1}, {"B": "x"}, {"SS": "x"}, {"SS": [1]}, {"M": []}, {"L": {}}, {"BOOL": 1}])
def test_types_that_no_client_sends(value: Any) -> None:
    with pytest.raises(ServiceError) as caught:
        values.check(value)
    assert caught.value.name == "SerializationException"


@pytest.mark.parametrize("kind", ["M", "L"])
def test_values_nest_32_levels(kind: str) -> None:
    def nested(depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {"S": "leaf"}
        for _ in range(depth):
            value = {"M": {"n": value}} if kind == "M" else {"L": [value]}
        return value

    assert values.check(nested(31)) == nested(31)
    for depth in (32, 5000):
        assert refusal(values.check, nested(depth)) == (
            "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
        )


def test_sizes() -> None:
    item = {"pk": {"S": "é"}, "n": {"N": "12"}, "l": {"L": [{"BOOL": True}]}, "m": {"M": {"ab": {"NULL": True}}}}
    assert values.item_size(item) == (2 + 2) + (1 + 2) + (1 + 3 + 2) + (1 + 3 + 1 + 2 + 1)
    assert values.size({"SS": ["a", "bc"]}) == 3
    assert values.size({"NS": ["1", "100"]}) == 4
    assert values.size({"BS": [b"abc"]}) == 3
    assert values.size({"B": b"abcd"}) == 4


def test_equality_and_order() -> None:
    assert values.equals({"SS": ["a", "b"]}, {"SS": ["b", "a"]})
    assert values.equals({"M": {"x": {"L": [{"NS": ["1", "2"]}]}}}, {"M": {"x": {"L": [{"NS": ["2", "1"]}]}}})
    assert not values.equals({"L": [{"N": "1"}]}, {"L": [{"N": "1"}, {"N": "2"}]})
    assert not values.equals({"S": "1"}, {"N": "1"})
    assert values.compare({"N": "-2"}, {"N": "10"}) == -1
    assert values.compare({"N": "0.5"}, {"N": "0.25"}) == 1
    assert values.compare({"S": "é"}, {"S": "z"}) == 1
    assert values.compare({"S": "\uffff"}, {"S": "\U00010000"}) == -1  # by UTF-8, not UTF-16
    assert values.compare({"B": b"\x01"}, {"B": b"\x01\x00"}) == -1
    assert values.compare({"S": "1"}, {"N": "1"}) is None
    assert values.compare({"BOOL": True}, {"BOOL": True}) is None


# projections

ITEM: dict[str, Any] = {
    "a": {"S": "x"},
    "l": {"L": [{"N": "0"}, {"M": {"x": {"N": "1"}, "y": {"N": "2"}}}, {"L": [{"S": "p"}, {"S": "q"}]}]},
    "m": {"M": {"k": {"M": {"deep": {"N": "1"}, "rest": {"N": "2"}}}, "j": {"S": "s"}}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", {"a": {"S": "x"}}),
        ("gone, a", {"a": {"S": "x"}}),
        ("gone", {}),
        ("l[2][1], l[0]", {"l": {"L": [{"N": "0"}, {"L": [{"S": "q"}]}]}}),
        ("l[1].x", {"l": {"L": [{"M": {"x": {"N": "1"}}}]}}),
        ("l[1].x, l[1].y, l[7]", {"l": {"L": [{"M": {"x": {"N": "1"}, "y": {"N": "2"}}}]}}),
        ("m.k.deep, m.j", {"m": {"M": {"k": {"M": {"deep": {"N": "1"}}}, "j": {"S": "s"}}}}),
        ("m.gone, a.x, l.x", {}),
        ("a[0]", {}),
        ("#m.#k . rest", {"m": {"M": {"k": {"M": {"rest": {"N": "2"}}}}}}),
    ],
)
def test_projections(text: str, expected: Any) -> None:
    names = Names({"#m": "m", "#k": "k"}) if "#" in text else Names()
    assert parse_projection(text, names).of(ITEM) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("!!", 'Syntax error; token: "!", near: "!!"'),
        ("a,", 'Syntax error; token: "<EOF>", near: ","'),
        ("a b", 'Syntax error; token: "b", near: "a b"'),
        (":a", 'Syntax error; token: ":a", near: ":a"'),
        ("a(b)", 'Syntax error; token: "(", near: "a(b"'),
        ("a, abort, #gone", "Attribute name is a reserved keyword; reserved keyword: abort"),
        ("a, #gone", "An expression attribute name used in the document path is not defined; attribute name: #gone"),
        ("a, b, a", "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]"),
        ("a[1].x, a[1]", "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, [1], x], path two: [a, [1]]"),
        ("a" + ".b" * 32, "The document path has too many nesting levels; nesting levels: 33"),
        ("a.x, a[1]", "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [a, x], path two: [a, [1]]"),
    ],
)  # fmt: skip
def test_projections_that_are_none(text: str, message: str) -> None:
    assert refusal(parse_projection, text, Names()) == f"Invalid ProjectionExpression: {message}"


# the cache


def test_the_cache_holds_no_more_than_it_may() -> None:
    memory: Memory[str] = Memory(100)
    made: list[str] = []

    def get(key: str, weight: int) -> str:
        def make() -> str:
            made.append(key)
            return key

        return memory.get(key, weight, make)

    for number in range(50):
        get(str(number), 10)
    assert len(memory) == 10
    get("49", 10)
    assert made.count("49") == 1
    get("40", 10)
    get("x", 10)  # the one used longest ago goes
    get("40", 10)
    assert made.count("40") == 1
    get("huge", 99)
    get("huge", 99)
    assert made.count("huge") == 2
    assert len(memory) == 10


def test_long_names_are_not_remembered() -> None:
    from martlet.documents.dynamodb.expressions import conditions

    before = len(conditions._plans)
    for number in range(20):
        names = Names({"#n": f"{number}" + "n" * 60_000}, {":v": {"S": "x"}})
        assert not parse_condition("#n = :v", names).holds({})
    assert len(conditions._plans) == before
