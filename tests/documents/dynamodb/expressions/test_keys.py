"""Key conditions: what is read, and the service's words for what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.documents.dynamodb.expressions import KeyCondition, Names, parse_key_condition, parse_key_expression
from martlet.errors import ServiceError

VALUES: dict[str, Any] = {":a": {"S": "a"}, ":b": {"S": "b"}, ":n": {"N": "1"}}


def names() -> Names:
    return Names({"#p": "p"}, VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p = :a", KeyCondition({"S": "a"})),
        ("#p = :a", KeyCondition({"S": "a"})),
        (":a = p", KeyCondition({"S": "a"})),
        ("(p = :a)", KeyCondition({"S": "a"})),
        ("p = :a AND s = :b", KeyCondition({"S": "a"}, "=", {"S": "b"})),
        ("s < :b AND p = :a", KeyCondition({"S": "a"}, "<", {"S": "b"})),
        ("p = :a AND s >= :b", KeyCondition({"S": "a"}, ">=", {"S": "b"})),
        ("p = :a AND :b > s", KeyCondition({"S": "a"}, "<", {"S": "b"})),
        ("p = :a AND :b <= s", KeyCondition({"S": "a"}, ">=", {"S": "b"})),
        ("(p = :a) AND (s BETWEEN :a AND :b)", KeyCondition({"S": "a"}, "BETWEEN", {"S": "a"}, {"S": "b"})),
        ("p = :a and begins_with(s, :b)", KeyCondition({"S": "a"}, "begins_with", {"S": "b"})),
        ("(p = :a and begins_with((s), (:b)))", KeyCondition({"S": "a"}, "begins_with", {"S": "b"})),
    ],
)
def test_what_is_read(text: str, expected: KeyCondition) -> None:
    assert parse_key_condition(text, names(), "p", "s", {"p": "S", "s": "S"}) == expected


OPERATOR = "Invalid operator used in KeyConditionExpression: "
CONDITION = "Invalid condition in KeyConditionExpression: "
MULTIPLE = CONDITION + "Multiple attribute names used in one condition"
NESTED = "KeyConditionExpressions cannot have conditions on nested attributes"
OPERATIONS = "KeyConditionExpressions cannot contain nested operations"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attribute_type(p, :a)", "Invalid KeyConditionExpression: Invalid attribute type name found; type: a, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"),
        ("a > 4", 'Invalid KeyConditionExpression: Syntax error; token: "4", near: "> 4"'),
        ("p BETWEEN :b AND :a", "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {S:b}, upper bound operand: AttributeValue: {S:a}"),
        ("a > b AND size(b) > c OR a > c", OPERATOR + "OR"),
        ("p IN (b, size(c), d)", OPERATOR + "IN"),
        ("attribute_exists(p)", OPERATOR + "attribute_exists"),
        ("attribute_not_exists(p)", OPERATOR + "attribute_not_exists"),
        ("contains(p.d, b)", OPERATOR + "contains"),
        ("NOT p > b", OPERATOR + "NOT"),
        ("p <> b", OPERATOR + "<>"),
        (":a BETWEEN size(b) AND size(p) AND b > :b", CONDITION + "BETWEEN operator must have the key attribute as its first operand"),
        ("begins_with(:a, b) AND p > :b", CONDITION + "begins_with operator must have the key attribute as its first operand"),
        (":a BETWEEN b AND p", CONDITION + "BETWEEN operator must have the key attribute as its first operand"),
        ("size(b) > a AND a.b > b AND b > c", OPERATIONS),
        ("a > size(b.d)", OPERATIONS),
        ("b > a.b", MULTIPLE),
        ("b BETWEEN c[1] AND d", MULTIPLE),
        ("begins_with(a, b)", MULTIPLE),
        ("b.d > a AND c.d > e.f", NESTED),
        ("b[0] > a", NESTED),
        (":b > :a AND a < :b", CONDITION + "No key attribute specified"),
        ("b > :a AND b < :a AND c = :a AND d = :a", "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key"),
        ("(a > :a AND b > :a) AND (b > :a AND c > :a)", "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key"),
    ],
)  # fmt: skip
def test_before_any_table_is_known(text: str, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_key_expression(text, names()).conditions()
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "range_name", "message"),
    [
        ("s = :a", "s", "Query condition missed key schema element: p"),
        ("x = :a", None, "Query condition missed key schema element: p"),
        ("p = :a AND x = :a", "s", "Query condition missed key schema element: s"),
        ("p = :a AND s = :a", None, "Query key condition not supported"),
        ("p = :a AND s > :a AND x = :a", "s", "The number of query conditions (3) exceeds the number of key attributes defined in the schema (2)"),
        ("p > :a", "s", "Query key condition not supported"),
        ("begins_with(p, :a) AND s = :a", "s", "Query key condition not supported"),
        ("p = :n", "s", mismatch := "One or more parameter values were invalid: Condition parameter type does not match schema type"),
        ("p = :a AND s > :n", "s", mismatch),
        ("p > :n", "s", mismatch),
    ],
)  # fmt: skip
def test_against_the_keys(text: str, range_name: str | None, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_key_condition(text, names(), "p", range_name, {"p": "S", "s": "S"})
    assert caught.value.message == message
