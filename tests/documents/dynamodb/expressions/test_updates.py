"""Updates: what becomes of an item, and the service's words for what is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from martlet.documents.dynamodb.expressions import Names, parse_update
from martlet.errors import ServiceError

ITEM: dict[str, Any] = {
    "n": {"N": "5"},
    "s": {"S": "text"},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1"]},
    "l": {"L": [{"N": "0"}, {"N": "1"}, {"N": "2"}, {"M": {"x": {"N": "9"}}}]},
    "m": {"M": {"x": {"N": "1"}, "deep": {"M": {"y": {"S": "z"}}}}},
}
VALUES: dict[str, Any] = {
    ":n": {"N": "3"},
    ":s": {"S": "new"},
    ":ss": {"SS": ["b", "c"]},
    ":all": {"SS": ["a", "b"]},
    ":ns": {"NS": ["1", "2"]},
    ":l": {"L": [{"S": "e"}]},
    ":m": {"M": {"k": {"N": "1"}}},
    ":t": {"BOOL": True},
    ":null": {"NULL": True},
    ":b": {"B": b"x"},
    ":big": {"N": "9" * 38},
    ":tiny": {"N": "0.1"},
}
NAMES = {"#n": "n", "#new": "new", "#l": "l", "#bracket": "[3]"}
INCORRECT = "An operand in the update expression has an incorrect data type"
NOT_THERE = "The provided expression refers to an attribute that does not exist in the item"
PATH = "The document path provided in the update expression is invalid for update"


def applied(text: str, item: dict[str, Any] | None = None) -> dict[str, Any]:
    before = ITEM if item is None else item
    kept = copy.deepcopy(before)
    new, _ = parse_update(text, Names(NAMES, VALUES)).apply(before)
    assert before == kept, "the item given was changed"
    return new


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("SET fresh = :s", "fresh", {"S": "new"}),
        ("set n=n+:n", "n", {"N": "8"}),
        ("SET n = :n - n", "n", {"N": "-2"}),
        ("SET n = (n - :tiny)", "n", {"N": "4.9"}),
        ("SET n = ((n)+(:n))", "n", {"N": "8"}),
        ("SET #new = if_not_exists(#new, :s)", "new", {"S": "new"}),
        ("SET n = if_not_exists(n, :s)", "n", {"N": "5"}),
        ("SET c = if_not_exists(c, :n) + :n", "c", {"N": "6"}),
        ("SET c = if_not_exists(c, if_not_exists(d, n))", "c", {"N": "5"}),
        ("SET c = list_append(:l, if_not_exists(c, :l))", "c", {"L": [{"S": "e"}, {"S": "e"}]}),
        ("SET l = list_append(l, :l)", "l", {"L": [*ITEM["l"]["L"], {"S": "e"}]}),
        ("SET m.x = :s", "m", {"M": {"x": {"S": "new"}, "deep": {"M": {"y": {"S": "z"}}}}}),
        ("SET m.deep.y = m.x, m.x = m.deep.y", "m", {"M": {"x": {"S": "z"}, "deep": {"M": {"y": {"N": "1"}}}}}),
        ("SET l[3].x = :s", "l", {"L": [{"N": "0"}, {"N": "1"}, {"N": "2"}, {"M": {"x": {"S": "new"}}}]}),
        ("SET #l[9] = :s, #l[7] = :n", "l", {"L": [*ITEM["l"]["L"], {"N": "3"}, {"S": "new"}]}),
        ("REMOVE l[0], l[2] SET l[1] = :s, l[4] = :n", "l", {"L": [{"S": "new"}, {"M": {"x": {"N": "9"}}}, {"N": "3"}]}),
        ("REMOVE l[40]", "l", ITEM["l"]),
        ("REMOVE m.gone", "m", ITEM["m"]),
        ("REMOVE m.deep.y", "m", {"M": {"x": {"N": "1"}, "deep": {"M": {}}}}),
        ("ADD n :n", "n", {"N": "8"}),
        ("ADD visits :n", "visits", {"N": "3"}),
        ("ADD m.x :n", "m", {"M": {"x": {"N": "4"}, "deep": {"M": {"y": {"S": "z"}}}}}),
        ("ADD ss :ss", "ss", {"SS": ["a", "b", "c"]}),
        ("ADD fresh :ns", "fresh", {"NS": ["1", "2"]}),
        ("DELETE ss :ss", "ss", {"SS": ["a"]}),
        ("DELETE ss :all", "ss", None),
        ("DELETE gone :ss", "gone", None),
        ("REMOVE n", "n", None),
        ("remove gone", "gone", None),
        ("SET a1 = n REMOVE n", "a1", {"N": "5"}),
        ("DELETE ss :ss ADD n :n REMOVE s SET x = ss", "x", {"SS": ["a", "b"]}),
    ],
)
def test_what_becomes_of_an_item(text: str, name: str, expected: Any) -> None:
    assert applied(text).get(name) == expected


def test_what_is_not_written_stays() -> None:
    assert applied("SET fresh = :s REMOVE s") == {**{k: v for k, v in ITEM.items() if k != "s"}, "fresh": {"S": "new"}}


def test_values_swap() -> None:
    assert applied("SET a = b, b = a", {"a": {"N": "1"}, "b": {"N": "2"}}) == {"a": {"N": "2"}, "b": {"N": "1"}}


def test_paths_written_are_in_the_order_of_the_text() -> None:
    update = parse_update("REMOVE l[0] SET m.x = n + l[1], #new = :s", Names(NAMES, VALUES))
    assert update.paths() == (("l", 0), ("m", "x"), ("new",))
    assert update.reads() == (("n",), ("l", 1))
    assert update.apply(ITEM)[1] == update.paths()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SET a = gone", NOT_THERE),
        ("SET a = list_append(l, gone)", NOT_THERE),
        ("SET a = gone + :n", NOT_THERE),
        ("SET a = l[10]", NOT_THERE),
        ("SET a = gone, gone.x = :n", NOT_THERE),
        ("SET a = s + :n", INCORRECT),
        ("SET a = list_append(s, :l)", INCORRECT),
        ("SET a = list_append(l, :l) + :n", INCORRECT),
        ("ADD s :n", INCORRECT),
        ("ADD n :ss", INCORRECT),
        ("ADD ns :ss", INCORRECT),
        ("DELETE n :ns", INCORRECT),
        ("DELETE ns :ss", INCORRECT),
        ("SET gone.x = :n", PATH),
        ("SET gone[0] = :n", PATH),
        ("SET s.x = :n", PATH),
        ("SET m[0] = :n", PATH),
        ("SET l.x = :n", PATH),
        ("REMOVE gone.x", PATH),
        ("REMOVE s[1]", PATH),
        ("REMOVE m[0]", PATH),
        ("ADD gone.x :n", PATH),
        ("DELETE gone.x :ss", PATH),
        ("DELETE l.x :ss", PATH),
        ("SET m.gone.x = :n", PATH),
        ("SET a = :big + :tiny", "Number overflow. Attempting to store a number with magnitude larger than supported range"),
        ("SET a = :big - :tiny", "Number overflow. Attempting to store a number with magnitude larger than supported range"),
    ],
)
def test_items_that_do_not_suit(text: str, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        applied(text)
    assert (caught.value.name, caught.value.message) == ("ValidationException", message)


def refusal(text: str) -> str:
    with pytest.raises(ServiceError) as caught:
        parse_update(text, Names(NAMES, VALUES))
    assert caught.value.name == "ValidationException"
    return caught.value.message.removeprefix("Invalid UpdateExpression: ")


@pytest.mark.parametrize(
    ("text", "token", "near"),
    [
        ("INVALID SYNTAX HERE", "INVALID", "INVALID SYNTAX"),
        ("SET", "<EOF>", "SET"),
        ("SET a = :n,", "<EOF>", ","),
        ("ADD hits : incr", ":", "hits : incr"),
        ("set a", "<EOF>", "a"),
        ("set a = set", "set", "= set"),
        ("remove a = b", "=", "a = b"),
        ("add a b", "b", "a b"),
        ("add a = b", "=", "a = b"),
        ("delete a if_not_exists(b)", "if_not_exists", "a if_not_exists("),
        ("remove a b", "b", "a b"),
        ("set :n = b", ":n", "set :n ="),
        ("set a = b / c", "/", "b / c"),
        ("set a[1] = 1", "1", "= 1"),
        ("SET a = if_not_exists(a, 100)", "100", ", 100)"),
        ("SET if_not_exists(a, b) = a", "(", "if_not_exists(a"),
        ("set (a = (b + c))", "(", "set (a"),
        ("set a = (b.c).d + e", ".", ").d"),
        ("set a = (b.c)[0] + e", "[", ")[0"),
        ("set a = b + c + d", "+", "c + d"),
        ("set a = (b + c) + d", "+", ") + d"),
        ("set a = b + (c + d)", "+", "c + d"),
        ("set hi-there = :n", "-", "hi-there"),
        ("set a = :n set", "<EOF>", "set"),
    ],
)
def test_syntax_errors(text: str, token: str, near: str) -> None:
    assert refusal(text) == f'Syntax error; token: "{token}", near: "{near}"'


TYPE = "Incorrect operand type for operator or function; operator"
OVERLAP = "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: "
CONFLICT = OVERLAP.replace("overlap", "conflict")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("SET a = ((:n))", "The expression has redundant parentheses;"),
        ("set #n = :n set abOrt = :undefined", "Attribute name is a reserved keyword; reserved keyword: abOrt"),
        ("set #n = what(:undefined) set c = d", "Invalid function name; function: what"),
        ("SET a = size(b)", "The function is not allowed in an update expression; function: size"),
        ("set a = #gone set c = :undefined", 'The "SET" section can only be used once in an update expression;'),
        ("remove a set b = c remove d", 'The "REMOVE" section can only be used once in an update expression;'),
        ("SET #gone = if_not_exists(:undefined)", "An expression attribute name used in the document path is not defined; attribute name: #gone"),
        ("SET #n = if_not_exists(:undefined)", "An expression attribute value used in expression is not defined; attribute value: :undefined"),
        ("set d[1] = a, d.b = a, c[1].a = a, c = if_not_exists(a)", OVERLAP + "[c, [1], a], path two: [c]"),
        ("set l[3].#bracket = a, #l[3] = a", OVERLAP + "[l, [3], [3]], path two: [l, [3]]"),
        ("SET a = :n, a = :n", OVERLAP + "[a], path two: [a]"),
        ("SET a = :n REMOVE a.b", OVERLAP + "[a], path two: [a, b]"),
        ("remove a.b set a[1] = :n", CONFLICT + "[a, b], path two: [a, [1]]"),
        ("set l[3].#bracket = a, l.#bracket[3] = if_not_exists(a)", CONFLICT + "[l, [3], [3]], path two: [l, [3], [3]]"),
        ("set b = list_append(:s, a), c = if_not_exists(a) add a.b :s", TYPE + ": ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND"),
        ("ADD a :l", TYPE + ": ADD, operand type: LIST, typeSet: ALLOWED_FOR_ADD_OPERAND"),
        ("ADD a :m", TYPE + ": ADD, operand type: MAP, typeSet: ALLOWED_FOR_ADD_OPERAND"),
        ("ADD a :null", TYPE + ": ADD, operand type: NULL, typeSet: ALLOWED_FOR_ADD_OPERAND"),
        ("ADD a :b", TYPE + ": ADD, operand type: BINARY, typeSet: ALLOWED_FOR_ADD_OPERAND"),
        ("DELETE a :t", TYPE + ": DELETE, operand type: BOOLEAN, typeSet: ALLOWED_FOR_DELETE_OPERAND"),
        ("DELETE a :n", TYPE + ": DELETE, operand type: NUMBER, typeSet: ALLOWED_FOR_DELETE_OPERAND"),
        ("set a = if_not_exists(c)", "Incorrect number of operands for operator or function; operator or function: if_not_exists, number of operands: 1"),
        ("set a = list_append(c, c, c)", "Incorrect number of operands for operator or function; operator or function: list_append, number of operands: 3"),
        ("set a = if_not_exists(:n, c)", "Operator or function requires a document path; operator or function: if_not_exists"),
        ("set a = if_not_exists(if_not_exists(a, b), c)", "Operator or function requires a document path; operator or function: if_not_exists"),
        ("set a = list_append(:s, a)", TYPE + " or function: list_append, operand type: S"),
        ("set a = list_append(a, :n)", TYPE + " or function: list_append, operand type: N"),
        ("set a = a + :s", TYPE + " or function: +, operand type: S"),
        ("set a = :l - a", TYPE + " or function: -, operand type: L"),
        ("SET " + ", ".join(f"a{i}=b+:n" for i in range(301)), "The expression contains too many operators; operator count: 301"),
        ("SET a = " + "list_append(" * 50 + "l" + ", l)" * 50, "The function is not allowed to be used this way in an expression; function: list_append"),
    ],
)  # fmt: skip
def test_errors_in_the_services_words(text: str, message: str) -> None:
    assert refusal(text) == message


def test_the_number_of_paths_is_no_problem() -> None:
    text = "REMOVE " + ",".join(f"b{i}" for i in range(700))
    item = {f"b{i}": {"N": "1"} for i in range(701)}
    assert applied(text, item) == {"b700": {"N": "1"}}
    assert OVERLAP in refusal(text + ",b0")


def test_brackets_cost_no_stack() -> None:
    assert "redundant" in refusal("SET a = " + "(" * 2000 + "n" + ")" * 2000)
    assert "<EOF>" in refusal("SET a = " + "(" * 4000)
