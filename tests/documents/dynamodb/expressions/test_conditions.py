"""Conditions: what holds, and the service's words for what is wrong. Texts as recorded from the service."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.documents.dynamodb.expressions import Names, parse_condition
from martlet.errors import ServiceError

ITEM: dict[str, Any] = {
    "pk": {"S": "abc"},
    "n": {"N": "5"},
    "half": {"N": "0.5"},
    "bytes_": {"B": b"\x01\x02\x03"},
    "yes": {"BOOL": True},
    "nothing": {"NULL": True},
    "words": {"SS": ["a", "b"]},
    "digits": {"NS": ["1", "2"]},
    "blobs": {"BS": [b"x", b"y"]},
    "lst": {"L": [{"N": "1"}, {"M": {"x": {"S": "y"}}}, {"SS": ["q"]}]},
    "doc": {"M": {"deep": {"L": [{"S": "end"}]}, "é": {"N": "1"}}},
    "odd.name": {"S": "dot"},
    "accent": {"S": "é"},
}
VALUES: dict[str, Any] = {
    ":s": {"S": "abc"},
    ":a": {"S": "a"},
    ":n": {"N": "5"},
    ":four": {"N": "4"},
    ":six": {"N": "6"},
    ":b": {"B": b"\x02"},
    ":t": {"BOOL": True},
    ":set": {"SS": ["b", "a"]},
    ":l": {"L": []},
    ":m": {"M": {"x": {"S": "y"}}},
    ":null": {"NULL": True},
    ":type": {"S": "N"},
    ":wrong": {"S": "X"},
    ":one": {"N": "1"},
    ":big": {"S": "é"},
}
NAMES = {"#n": "n", "#odd": "odd.name", "#e": "é", "#doc": "doc"}


def holds(text: str, item: dict[str, Any] | None = None) -> bool:
    return parse_condition(text, Names(NAMES, VALUES)).holds(ITEM if item is None else item)


def refusal(text: str, kind: str = "ConditionExpression") -> str:
    with pytest.raises(ServiceError) as caught:
        parse_condition(text, Names(NAMES, VALUES), kind)
    assert caught.value.name == "ValidationException"
    assert caught.value.http_status == 400
    prefix = f"Invalid {kind}: "
    assert caught.value.message.startswith(prefix)
    return caught.value.message[len(prefix) :]


@pytest.mark.parametrize(
    "text",
    [
        "n = :n",
        "#n = :n",
        ":n = n",
        "n <> :s",
        "absent <> :n",
        "absent <> gone",
        "n < :six AND n <= :n AND n > :four AND n >= :n",
        "half < n",
        "n BETWEEN :four AND :six",
        "n between :n and :n",
        ":n BETWEEN half AND n",
        "n IN (:s, :n)",
        "n in(:n)",
        "words = :set",
        "words <> digits",
        "lst[1] = :m",
        "attribute_exists(doc.deep[0])",
        "attribute_exists(doc.#e)",
        "attribute_not_exists(doc.deep[1])",
        "attribute_not_exists(pk.x)",
        "attribute_not_exists(lst.x)",
        "attribute_not_exists(doc[0])",
        "attribute_type(n, :type)",
        "begins_with(pk, :a)",
        "begins_with(:s, :a)",
        "NOT begins_with(n, :a)",
        "contains(pk, :a)",
        "contains(words, :a)",
        "contains(digits, :one)",
        "contains(lst, :m)",
        "contains(lst, :one)",
        "contains(bytes_, :b)",
        "NOT contains(words, :n)",
        "size(pk) < :four",
        "size(bytes_) < size(doc.deep[0]) OR size(bytes_) = size(pk)",
        "size(words) < size(lst)",
        "size(accent) < size(pk) AND size(accent) > :one",
        "size(doc) > :one",
        "NOT size(n) = :one",
        "#odd > :a",
        "n = :n OR n = :s AND n = :s",
        "NOT n = :s AND n = :n",
        "NOT (n = :s AND n = :n)",
        "not not n = :n",
        "n = :n AND (n = :s OR (n = :n AND pk = :s))",
        "(n) = (:n)",
        "(doc.deep)[0] = doc.#e OR n = :n",
        "(doc).deep[0] > :a",
        "(n = :n) AND (pk = :s)",
        "n\t=\r\n:n",
        "lst [ 0 ] = :one",
        "doc . deep [0] > :a",
        "yes = :t",
        "nothing = :null",
        "NOT absent = gone",
        "accent = :big",
    ],
)
def test_holds(text: str) -> None:
    assert holds(text) is True


@pytest.mark.parametrize(
    "text",
    [
        "n = :s",
        "absent = :n",
        "absent = gone",
        "absent < :n",
        "absent BETWEEN :four AND :six",
        "pk BETWEEN :four AND :six",
        "absent IN (:n)",
        "n < pk",
        "yes < nothing",
        "contains(absent, :a)",
        "contains(n, :one)",
        "begins_with(absent, :a)",
        "begins_with(words, :a)",
        "attribute_type(absent, :type)",
        "size(absent) > :one",
        "size(yes) < :six",
        "attribute_exists(absent.deep)",
        "lst = :l",
    ],
)
def test_does_not_hold(text: str) -> None:
    assert holds(text) is False


def test_an_item_that_is_not_there() -> None:
    assert holds("attribute_not_exists(pk)", {})
    assert not holds("pk = :s", {})


@pytest.mark.parametrize(
    ("text", "token", "near"),
    [
        ("foo", "<EOF>", "foo"),
        ("n =", "<EOF>", "="),
        ("n = :n AND", "<EOF>", "AND"),
        ("n = :n AND  ", "<EOF>", "AND"),
        ("(n = :n", "<EOF>", ":n"),
        ("n = :n)", ")", ":n)"),
        ("foo-bar = :n", "-", "foo-bar"),
        ("n = 5", "5", "= 5"),
        ("n == :n", "=", "== :n"),
        ("n & :n", "&", "n & :n"),
        ("_n = :n", "_", "_n"),
        ("1n = :n", "1", "1n"),
        ("n IN :n", ":n", "IN :n"),
        ("n BETWEEN :n OR :n", "OR", ":n OR :n"),
        ("not", "<EOF>", "not"),
        ("n = not", "not", "= not"),
        ("AND n = :n", "AND", "AND n"),
        ("n :n", ":n", "n :n"),
        ("n = :n pk = :s", "pk", ":n pk ="),
        ("lst[x] = :n", "x", "[x]"),
        ("lst[-1] = :n", "-", "[-1"),
        ("lst[:n] = :n", ":n", "[:n]"),
        ("a. = :n", "=", ". = :n"),
        ("attribute_exists()", ")", "()"),
        ("(n) AND n = :n", "AND", ") AND n"),
        ("NOT n", "<EOF>", "n"),
        ("(NOT n) = :n", ")", "n) ="),
        ("n = (pk = :n)", "=", "pk = :n"),
        ("(n = :n) = :n", "=", ") = :n"),
        ("attribute_not_exists(", "<EOF>", "("),
        ("n = :", ":", "= :"),
        ("# = :n", "#", "# ="),
        ("n = 'x'", "'", "= 'x"),
        ("é = :n", "é", "é ="),
        ("things are not gonna be ok", "are", "things are not"),
    ],
)
def test_syntax_errors(text: str, token: str, near: str) -> None:
    assert refusal(text) == f'Syntax error; token: "{token}", near: "{near}"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("  \n", "The expression can not be empty;"),
        ("((n = :n))", "The expression has redundant parentheses;"),
        ("((n)) = :n", "The expression has redundant parentheses;"),
        ("n = ((:n))", "The expression has redundant parentheses;"),
        ("n = :n AND ((pk = :s))", "The expression has redundant parentheses;"),
        ("((n = :n)) AND what(n) = :undefined", "The expression has redundant parentheses;"),
        ("what(n) = :undefined AND abort = :n", "Invalid function name; function: what"),
        ("Size(n) = :n", "Invalid function name; function: Size"),
        ("if_not_exists(n, :n) = :n", "The function is not allowed in a condition expression; function: if_not_exists"),
        ("a" + ".b" * 32 + " = :n", "The document path has too many nesting levels; nesting levels: 33"),
        ("contains(n, :n) = :t AND abort = :n", misused := "The function is not allowed to be used this way in an expression; function: contains"),
        ("size(n)", misused.replace("contains", "size")),
        ("n = :n AND size(n)", misused.replace("contains", "size")),
        ("size(size(n)) = :n AND n = :gone", "Incorrect operand type for operator or function; operator or function: size, operand type: N"),
        ("begins_with(contains(n, :n), :a)", misused),
        ("abOrt = :undefined", "Attribute name is a reserved keyword; reserved keyword: abOrt"),
        ("n.Status = :n", "Attribute name is a reserved keyword; reserved keyword: Status"),
        ("#gone = :undefined", "An expression attribute name used in the document path is not defined; attribute name: #gone"),
        (":undefined = #gone", "An expression attribute value used in expression is not defined; attribute value: :undefined"),
        ("n.#gone = :n", "An expression attribute name used in the document path is not defined; attribute name: #gone"),
        ("begins_with(n)", "Incorrect number of operands for operator or function; operator or function: begins_with, number of operands: 1"),
        ("size(n, n) = :n", "Incorrect number of operands for operator or function; operator or function: size, number of operands: 2"),
        ("attribute_exists(n, pk)", "Incorrect number of operands for operator or function; operator or function: attribute_exists, number of operands: 2"),
        ("n = n", "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [n]"),
        ("doc.deep[0] < #doc.deep[0]", "The first operand must be distinct from the remaining operands for this operator or function; operator: <, first operand: [doc, deep, [0]]"),
        ("contains(n, #n)", "The first operand must be distinct from the remaining operands for this operator or function; operator: contains, first operand: [n]"),
        ("attribute_exists(:n)", "Operator or function requires a document path; operator or function: attribute_exists"),
        ("attribute_not_exists(size(n))", "Operator or function requires a document path; operator or function: attribute_not_exists"),
        ("begins_with(n, :n)", "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N"),
        ("begins_with(:l, :a)", "Incorrect operand type for operator or function; operator or function: begins_with, operand type: L"),
        ("size(:n) = :n", "Incorrect operand type for operator or function; operator or function: size, operand type: N"),
        ("attribute_type(n, pk)", "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}"),
        ("attribute_type(n, :n)", "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: N"),
        ("attribute_type(n, :wrong)", "Invalid attribute type name found; type: X, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"),
        ("n < :t", "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL"),
        (":m >= n", "Incorrect operand type for operator or function; operator or function: >=, operand type: M"),
        ("n BETWEEN :t AND :t", "Incorrect operand type for operator or function; operator or function: BETWEEN, operand type: BOOL"),
        ("n BETWEEN :n AND :a", "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {N:5}, upper bound operand: AttributeValue: {S:a}"),
        ("n BETWEEN :six AND :four", "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:6}, upper bound operand: AttributeValue: {N:4}"),
        ("n IN (" + ", ".join([":n"] * 101) + ")", "The IN operator is provided with too many operands; number of operands: 101"),
        ("n = :n" + " OR n = :n" * 150, "The expression contains too many operators; operator count: 301"),
        ("not " * 300 + "n = :n", "The expression contains too many operators; operator count: 301"),
        ("n = :n" + " " * 4091, "Expression size has exceeded the maximum allowed size; expression size: 4097"),
        ("lst[12345678901] = :n", "List index is not within the allowable range; index: [12345678901]"),
    ],
)  # fmt: skip
def test_errors_in_the_services_words(text: str, message: str) -> None:
    assert refusal(text) == message
    assert refusal(text, "FilterExpression") == message


def test_the_first_condition_with_an_error_decides() -> None:
    assert "attribute value: :gone" in refusal("n = :gone AND begins_with(n)")
    assert "number of operands: 1" in refusal("begins_with(n) AND n = :gone")


def test_values_of_each_request_are_checked_although_the_text_is_remembered() -> None:
    assert parse_condition("begins_with(pk, :v)", Names(None, {":v": {"S": "a"}})).holds(ITEM)
    for _ in range(2):
        with pytest.raises(ServiceError, match="operand type: N"):
            parse_condition("begins_with(pk, :v)", Names(None, {":v": {"N": "1"}}))
    assert not parse_condition("begins_with(pk, :v)", Names(None, {":v": {"S": "b"}})).holds(ITEM)


def test_names_of_each_request_are_its_own() -> None:
    assert parse_condition("#x = :v", Names({"#x": "n"}, {":v": {"N": "5"}})).holds(ITEM)
    assert not parse_condition("#x = :v", Names({"#x": "pk"}, {":v": {"N": "5"}})).holds(ITEM)


def test_what_a_condition_reads() -> None:
    condition = parse_condition("doc.#e = :n AND size(lst[0]) > n", Names(NAMES, VALUES))
    assert condition.paths() == (("doc", "é"), ("lst", 0), ("n",))
    assert condition.attributes() == {"doc", "lst", "n"}


@pytest.mark.parametrize("depth", [149, 140])
def test_conditions_in_conditions(depth: int) -> None:
    assert holds("n = :n " + "or (n = :n " * depth + ")" * depth)
    assert not holds("n = :four " + "or (n = :four " * depth + ")" * depth)


def test_brackets_that_open_together_are_not_redundant() -> None:
    assert holds("((n = :n) AND pk = :s) OR n = :s")
    assert holds("(((n = :n) AND pk = :s) OR n = :s) AND n = :n")


@pytest.mark.parametrize("text", ["(" * 4096, "(" * 2046 + "n = :n" + ")" * 2046, "n = " + "f(" * 1355 + "n" + ")" * 1355])
def test_deep_texts_cost_no_stack(text: str) -> None:
    assert refusal(text)


def test_deep_items_cost_little_stack() -> None:
    value: dict[str, Any] = {"S": "leaf"}
    for _ in range(31):
        value = {"M": {"x": value}}
    names = Names(None, {":v": value})
    assert parse_condition("v = :v", names).holds({"v": value})
    assert parse_condition("v" + ".x" * 31 + " <> :v", names).holds({"v": value})
