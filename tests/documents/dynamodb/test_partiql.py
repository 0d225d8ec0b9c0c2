"""PartiQL over the service: what statements do, and the service's words for what they may not. Texts as recorded from the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.documents.dynamodb import partiql
from martlet.errors import ServiceError

Call = Callable[..., Awaitable[dict[str, Any]]]
Refused = Callable[..., Awaitable[ServiceError]]

MALFORMED = "Statement wasn't well formed, can't be processed: "
LEFTOVER = MALFORMED + "Unexpected token after expression"
NO_KEY = "Where clause does not contain a mandatory equality on all key attributes"
OVERLAPPING = "Overlapping conditions with range keys are not supported in where clause"


@pytest.fixture
async def table(create: Any, call: Call) -> None:
    """`t` (p, s) with an index of each kind and projection; `h` (p) only."""
    await create("h", "p:S")
    await create("t", "p:S", "s:S", gsi={"all": "g:S", "inc": "g:S"}, lsi={"local": "p:S l:S"})


def put(call: Call, table: str, **item: Any) -> Awaitable[dict[str, Any]]:
    return call("PutItem", TableName=table, Item={name: plain(value) for name, value in item.items()})


def plain(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, set):
        return {"SS": sorted(value)} if all(isinstance(member, str) for member in value) else {"NS": sorted(map(str, value))}
    if isinstance(value, list):
        return {"L": [plain(member) for member in value]}
    if isinstance(value, dict):
        return {"M": {name: plain(member) for name, member in value.items()}}
    return {"NULL": True} if value is None else {"S": value}


async def items(call: Call, statement: str, **request: Any) -> list[dict[str, Any]]:
    return (await call("ExecuteStatement", Statement=statement, **request))["Items"]  # type: ignore[no-any-return]


async def one(call: Call, **key: str) -> dict[str, Any] | None:
    name = "t" if "s" in key else "h"
    found = await call("GetItem", TableName=name, Key={part: {"S": value} for part, value in key.items()})
    return found.get("Item")


# what is malformed


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT * FROM h WHERE p = 'a' foo", LEFTOVER),
        ("SELECT * FROM h WHERE p = 1 e5", LEFTOVER),
        ("SELECT * FROM h WHERE p = 'a')", LEFTOVER),
        ("INSERT INTO h VALUE {'p': 'a'} foo", LEFTOVER),
        ("INSERT INTO h t VALUE {'p': 'a'}", LEFTOVER),
        ("UPDATE h SET a = 9 WHERE p = 'a' foo", LEFTOVER),
        ("DELETE FROM h WHERE p = 'a' ORDER BY p", LEFTOVER),
        ("SELECT * FROM h ORDER BY p WHERE p = 'a'", LEFTOVER),
        ("FROM h SET c = 1 WHERE p = 'a'", LEFTOVER),
        ("SELECT * FROM h; SELECT * FROM h", LEFTOVER),
        ("SELECT * FROM h WHERE p = 1e2147483648", MALFORMED),
        ("SELECT * FROM h WHERE p = 1e99999999999", MALFORMED),
        ("SELECT * FROM h WHERE p = 1.5e-2147483647", MALFORMED),
        ("SELECT * FROM h WHERE p = 1 # note", MALFORMED),
        ("SELECT * FROM h WHERE p = 1 /* note", MALFORMED),
        ('SELECT * FROM "h', MALFORMED),
        ("SELECT * FROM h WHERE p = 'a", MALFORMED),
        ("SELECT * FROM h t WHERE p = 'x'", "Aliasing is not supported"),
        ("SELECT * FROM h AS t WHERE p = 'x'", "Aliasing is not supported"),
        ("UPDATE h t SET a = 3 WHERE p = 'x'", "Aliasing is not supported"),
        ("DELETE FROM h t WHERE p = 'x'", "Aliasing is not supported"),
        ("SELECT * FROM h WHERE", MALFORMED + "Unexpected term"),
        ("SELECT * FROM h WHERE;", MALFORMED + "Unexpected term"),
        ("SELECT * FROM never WHERE  ", MALFORMED + "Unexpected term"),
        ("UPDATE h SET a = 1 WHERE", MALFORMED + "Unexpected term"),
        ("SELECT * FROM h WHERE NOT", MALFORMED + "Unexpected term"),
        ("SELECT * FROM h WHERE (", MALFORMED + "Unexpected term"),
        ("SELECT * FROM", MALFORMED + "Unexpected term"),
        ("SELECT * FROM h WHERE p = 'a' AND", MALFORMED + "Missing right-hand side expression of infix operator"),
        ("SELECT * FROM h WHERE p = 'a' OR", MALFORMED + "Missing right-hand side expression of infix operator"),
        ("SELECT * FROM h WHERE ORDER BY p", MALFORMED + "Unexpected keyword"),
        ("SELECT * FROM h WHERE IS NULL", MALFORMED + "Unexpected operator"),
        ("SELECT * FROM h WHERE p = LIKE", MALFORMED + "Unexpected operator"),
        ("SELECT * FROM h WHERE p = 'a' AND x IS FOO", MALFORMED + "Expected type name"),
        ("x IS INT4", "Unsupported operation: IsType"),
        ("x IS DOUBLE PRECISION", "Unsupported operation: IsType"),
        ("DELETE FROM", MALFORMED + "Expected identifier for simple path"),
        ("DELETE FROM WHERE p = 'a'", MALFORMED + "Expected identifier for simple path"),
        ("SLECT * FROM h", MALFORMED + "Expected data manipulation"),
        ("", MALFORMED + "Expected data manipulation"),
        ("SELECT * FROM h WHERE m.inner = 1", MALFORMED + "Invalid path dot component"),
        ("SELECT * FROM h LIMIT 1", "Unsupported clause: LIMIT"),
        ("SELECT * FROM (SELECT * FROM h)", MALFORMED + "Unexpected term"),
        ("SELECT attribute_exists(x) FROM h WHERE p = 'a'", "Unexpected path component at 1:8:16"),
        ("SELECT * FROM h WHERE EXISTS(x)", "Unrecognized function: exists at 1:23:6"),
        ("SELECT * FROM h WHERE set_add(x, <<'x'>>) = x", "Unrecognized function: set_add at 1:23:7"),
        ('SELECT * FROM ""', "Path component cannot be an empty string"),
        ('SELECT * FROM h."" WHERE p = 1', "Path component cannot be an empty string"),
        ("SELECT * FROM a.b.c", "A path may contain at most 2 components in the FROM clause"),
        ("INSERT INTO h.i VALUE {'p': 'a'}", "FROM clause may only contain a single table name"),
        ("UPDATE h.i SET a = 1 WHERE p = 'a'", "This operation is not supported on an index"),
        ("DELETE FROM h.i WHERE p = 'a'", "This operation is not supported on an index"),
        ("SELECT * FROM h WHERE p = 1e126", "Number overflow. Attempting to store a number with magnitude larger than supported range under root"),
        ("SELECT * FROM h WHERE p = 1e-131", "Number underflow. Attempting to store a number with magnitude smaller than supported range under root"),
        ("SELECT * FROM h WHERE p = 123456789012345678901234567890123456789", "Attempting to store more than 38 significant digits in a Number under root"),
        ("INSERT INTO h VALUE {'p': 'a', 'm': {'x': 1e126}}", "Number overflow. Attempting to store a number with magnitude larger than supported range under root.x"),
        ("INSERT INTO h VALUE {'p': 'a', 'l': [1, 1e126]}", "Number overflow. Attempting to store a number with magnitude larger than supported range under root[1]"),
        ("INSERT INTO h VALUE {'p': 'a', 'm': {'k': ?}}", "Unsupported data type: Parameter under key root.k at 1:43:1"),
        ("INSERT INTO h VALUE {'p': 'a', 'ss': set_add(<<'a'>>, <<'b'>>)}", "Unsupported data type: set_add under key root at 1:38:7"),
        ("UPDATE h SET a = " + "{'a':" * 32 + "1" + "}" * 32 + " WHERE p = 'a'", "Nesting Levels have exceeded supported limits under root" + ".a" * 32),
        ("UPDATE h SET a = {'a':" + "[" * 31 + "1" + "]" * 31 + "} WHERE p = 'a'", "Nesting Levels have exceeded supported limits under root.a" + "[0]" * 31),
        ("UPDATE h SET x = <<>> WHERE p = 'a'", "Empty bags are not supported"),
        ("UPDATE h SET x = <<1, 'a'>> WHERE p = 'a'", "DynamoDB only supports either numbers or strings in bags"),
        ("UPDATE h SET x = <<'b', 'b'>> WHERE p = 'a'", "One or more parameter values were invalid: Input collection [b, b] contains duplicates."),
        ("UPDATE h SET x = <<2, 2.0>> WHERE p = 'a'", "One or more parameter values were invalid: Input collection [2, 2.0] contains duplicates! under root"),
        ("SELECT l[-1] FROM h", "List index is not within the allowable range; index: [-1] at 1:11:1"),
        ("SELECT l[2147483648] FROM h", "List index is not within the allowable range; index: [2147483648] at 1:10:10"),
        ("UPDATE h SET t = set_add(ss, <<'x'>>) WHERE p = 'a'", "The first argument to SET_ADD must equal the assignment value at 1:18:7"),
        ("UPDATE h\nSET ss = set_add(ss, 'x') WHERE p = 'a'", "The second argument to SET_ADD must be a value with type SET at 2:18:2"),
        ('UPDATE h SET "ss" = set_delete("ss", [1]) WHERE p = \'a\'', "The second argument to SET_DELETE must be a value with type SET at 1:32:4"),
        ("UPDATE h SET ss = set_add(ss) WHERE p = 'a'", "SET_ADD must have exactly two arguments at 1:19:7"),
        ("SELECT * FROM h WHERE p = ?", "Number of parameters in request and statement don't match."),
        ("SELECT * FROM h WHERE p = 'a' AND attribute_exists('x')", "Operator or function requires a document path; operator or function: attribute_exists"),
        ("SELECT * FROM h WHERE p = 'a' AND attribute_exists()", "Incorrect number of operands for operator or function; operator or function: attribute_exists, number of operands: 0"),
        ("SELECT * FROM h WHERE p = 'a' AND attribute_exists(x, y)", "Incorrect number of operands for operator or function; operator or function: attribute_exists, number of operands: 2"),
        ("SELECT * FROM h WHERE p = 'a' AND attribute_type(l, 1)", "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: N"),
        ("SELECT * FROM never WHERE p = 'a' AND x < true", "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL"),
        ("SELECT * FROM h WHERE attribute_exists(n) > false", "Incorrect operand type for operator or function; operator or function: >, operand type: BOOL"),
        ("UPDATE h SET n = 'a' + 1 WHERE p = 'a' AND no = 'x'", "Incorrect operand type for operator or function; operator or function: +, operand type: S"),
        ("DELETE FROM h WHERE p = 'x' RETURNING MODIFIED OLD *", "Invalid returning clause: RETURNING MODIFIED OLD *. Only RETURNING ALL OLD * is allowed in DELETE statements."),
        ("DELETE FROM h WHERE p = 'x' RETURNING ALL NEW *", "Invalid returning clause: RETURNING ALL NEW *. Only RETURNING ALL OLD * is allowed in DELETE statements."),
        ("FROM h SET c = 1", NO_KEY),
        ("FROM h WHERE a = 1 SET c = 1", NO_KEY),
        ("DELETE FROM h", NO_KEY),
        ("DELETE FROM h WHERE p > 'a'", NO_KEY),
        ("UPDATE t SET a = 1 WHERE p = 'a'", NO_KEY),
        ("UPDATE h SET a = 1 WHERE p = 'a' AND p = 'b'", "Multiple conditions on same key p. Only single item Update/Insert/Delete are supported"),
        ("UPDATE h SET p = 'b' WHERE p = 'a'", "One or more parameter values were invalid: Cannot update attribute p. This attribute is part of the key"),
        ("UPDATE h SET a = 1, a.b = 2 WHERE p = 'a'", "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]"),
        ("INSERT INTO t VALUE {'p': 'a'}", "One or more parameter values were invalid: Missing the key s in the item"),
        ("SELECT * FROM t ORDER BY s", "Must have WHERE clause in the statement when using ORDER BY clause."),
        ("SELECT * FROM t WHERE p = 'a' ORDER BY x", "Attribute x in ORDER BY clause must be part of the primary key"),
        ("SELECT * FROM t WHERE p > 'a' ORDER BY s", "Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause."),
        ("SELECT * FROM t WHERE p IN ['a', 'b'] ORDER BY s", "Must have hash key in ORDER BY clause when more than one hash key condition specified in WHERE clause."),
        ("SELECT * FROM t WHERE p IN ['a', 'a']", OVERLAPPING),
        ("SELECT * FROM t WHERE p = 'a' OR p = 'a'", OVERLAPPING),
        ("SELECT * FROM t WHERE p = 'a' AND (s > '0' OR s < '5')", OVERLAPPING),
        ("SELECT * FROM t WHERE p = 'a' AND (s = '1' OR x = '2')", OVERLAPPING),
        ("SELECT * FROM t WHERE p = 'a' AND x = '1' OR p = 'a' AND s = '2'", OVERLAPPING),
        ("SELECT * FROM t WHERE p = 1 OR p = 'a'", "Key attribute's data type should match its data type in table's schema: Key p"),
        ("SELECT * FROM t WHERE p = 'a' AND s IN ['1', 2]", "Key attribute's data type should match its data type in table's schema: Key s"),
        ("SELECT * FROM h WHERE p IN [" + ", ".join(f"'{n}'" for n in range(51)) + "]", "Too many decomposed read operations for a given query."),
        ("SELECT * FROM h WHERE x IN [" + ", ".join(f"'{n}'" for n in range(101)) + "]", "The IN operator is provided with too many operands; number of operands: 101"),
        ("SELECT * FROM t.nothing WHERE p = 'a'", "The table does not have the specified index"),
        ("EXISTS(SELECT * FROM h WHERE p = 'a' AND x = 1)", "EXISTS can only be used in ExecuteTransaction write requests."),
    ],
)  # fmt: skip
async def test_statements_that_are_refused(table: None, refused: Refused, statement: str, message: str) -> None:
    error = await refused("ExecuteStatement", Statement=statement)
    assert (error.name, error.message) == ("ValidationException", message)
    batch = await refused("ExecuteTransaction", TransactStatements=[{"Statement": statement}])
    assert batch.name in ("ValidationException", "TransactionCanceledException")


async def test_a_table_that_is_not_there(table: None, refused: Refused) -> None:
    for statement in (
        "SELECT * FROM never WHERE p = 'a'",
        "FROM never WHERE p = 'x' SET c = 1",
        "INSERT INTO never VALUE {'p': 1}",
    ):
        error = await refused("ExecuteStatement", Statement=statement)
        assert (error.name, error.message) == ("ResourceNotFoundException", "Requested resource not found")


async def test_parameters_are_looked_at_before_the_statement(table: None, refused: Refused) -> None:
    error = await refused("ExecuteStatement", Statement="UPDATE h SET WHERE", Parameters=[{"SS": ["a", "a"]}])
    assert error.message == "One or more parameter values were invalid: Input collection [a, a] contains duplicates."


async def test_who_may_not(table: None, call: Call) -> None:
    for statement, action in [
        ("SELECT * FROM t.local", "dynamodb:PartiQLSelect on arn:aws:dynamodb:us-east-1:000000000000:table/t/index/local"),
        ("INSERT INTO h VALUE {'p': 'a'}", "dynamodb:PartiQLInsert on arn:aws:dynamodb:us-east-1:000000000000:table/h"),
    ]:
        with pytest.raises(ServiceError) as caught:
            await call("ExecuteStatement", principal="other", Statement=statement)
        assert caught.value.name == "AccessDeniedException"
        assert caught.value.message == action


# writes


async def test_insert_is_not_upsert(table: None, call: Call, refused: Refused) -> None:
    assert (
        await items(call, "INSERT INTO h VALUE {'p': ?, 'n': 7.32e6, 'm': {'l': [true, null]}}", Parameters=[{"S": "a"}]) == []
    )
    assert await one(call, p="a") == {"p": plain("a"), "n": plain(7320000), "m": plain({"l": [True, None]})}
    error = await refused("ExecuteStatement", Statement="INSERT INTO h VALUE {'p': 'a'}")
    assert error.name == "DuplicateItemException"
    assert await items(call, "DELETE FROM h WHERE p = 'a' RETURNING ALL OLD *") != []
    assert await items(call, "DELETE FROM h WHERE p = 'a' RETURNING ALL OLD *") == []
    await items(call, "INSERT INTO h VALUE ?", Parameters=[{"M": {"p": {"S": "a"}}}])
    assert await one(call, p="a") == {"p": plain("a")}


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ("SET a = 9", "a", 9),
        ("SET n = n-1", "n", 4),
        ("SET n = n - - 2", "n", 7),
        ("SET n = n + 1 SET a = n REMOVE x", "a", 5),
        ("SET a = 1, b = [- 1]", "b", [-1]),
        ("REMOVE n", "n", None),
        ("SET m.x = 'new'", "m", {"x": "new", "l": ["a"]}),
        ("SET m.l = list_append(m.l, ['b'])", "m", {"x": "y", "l": ["a", "b"]}),
        ("SET ss = set_add(ss, <<'0', 'z'>>)", "ss", {"0", "a", "b", "z"}),
        ("SET ss = SET_DELETE(ss, <<'a', 'q'>>)", "ss", {"b"}),
        ("SET ss = set_delete(ss, <<'a', 'b'>>)", "ss", None),
        ("SET fresh = set_add(fresh, <<1, 10>>)", "fresh", {1, 10}),
        ("SET fresh = set_delete(fresh, <<'a'>>)", "fresh", None),
        ('SET "select" = 1', "select", 1),
        ("SET s = 'it''s'", "s", "it's"),
        ("SET x = <<1, 2>>", "x", {1, 2}),
    ],
)
async def test_updates(table: None, call: Call, changes: str, name: str, expected: Any) -> None:
    for form in ("UPDATE h {} WHERE p = 'a'", "from h where p = 'a' {}"):
        await put(call, "h", p="a", n=5, m={"x": "y", "l": ["a"]}, ss={"a", "b"}, x=1)
        await items(call, form.format(changes))
        found = (await one(call, p="a") or {}).get(name)
        if found is not None and {"SS", "NS"} & found.keys():
            found = {kind: sorted(members) for kind, members in found.items()}
        assert found == (None if expected is None else plain(expected))


async def test_what_an_update_returns(table: None, call: Call) -> None:
    await put(call, "h", p="a", n=1, x="keep")
    assert await items(call, "UPDATE h SET n = 2 WHERE p = 'a' RETURNING ALL OLD *") == [
        {"p": plain("a"), "n": plain(1), "x": plain("keep")}
    ]
    assert await items(call, "UPDATE h SET n = 3 WHERE p = 'a' RETURNING ALL NEW *") == [
        {"p": plain("a"), "n": plain(3), "x": plain("keep")}
    ]
    assert await items(call, "UPDATE h SET n = 4 WHERE p = 'a' RETURNING MODIFIED OLD *") == [{"n": plain(3)}]
    assert await items(call, "UPDATE h SET n = 5 WHERE p = 'a' RETURNING MODIFIED NEW *") == [{"n": plain(5)}]
    assert await items(call, "UPDATE h REMOVE n WHERE p = 'a' RETURNING MODIFIED NEW *") == []


async def test_conditions_of_writes(table: None, call: Call, refused: Refused) -> None:
    await put(call, "h", p="a", n=1)
    for statement in (
        "UPDATE h SET n = 2 WHERE p = 'gone'",
        "UPDATE h SET n = 2 WHERE p = 'a' AND n = 7",
        "DELETE FROM h WHERE p = 'a' AND n = 7",
        "UPDATE h SET ss = set_add(ss, <<'x'>>) WHERE p = 'gone'",
    ):
        error = await refused("ExecuteStatement", Statement=statement, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        assert error.name == "ConditionalCheckFailedException"
        assert error.members == ({} if "gone" in statement else {"Item": {"p": plain("a"), "n": plain(1)}})
    assert await one(call, p="gone") is None
    await items(call, "DELETE FROM h WHERE p = 'gone' AND n = 7")
    await items(call, "UPDATE h SET n = 2 WHERE (p = 'a' AND n = 1) AND nope IS MISSING AND p = 'a'")
    assert await one(call, p="a") == {"p": plain("a"), "n": plain(2)}
    await items(call, "DELETE FROM h WHERE p = 'a' AND n BETWEEN 1 AND 3")
    assert await one(call, p="a") is None


# reads


@pytest.fixture
async def rows(table: None, call: Call) -> None:
    for p in ("o", "p"):
        for s in ("1", "2", "3"):
            await put(call, "t", p=p, s=s, n=int(s), l=f"l{s}", g="g" + p, d={"k": ["c"]}, z=None, ss={"x"})
    await put(call, "t", p="q", s="1")


def keys(found: list[dict[str, Any]]) -> list[str]:
    return [item["p"]["S"] + item["s"]["S"] for item in found]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("p = 'o'", "o1 o2 o3"),
        ("'o' = p AND s > '1'", "o2 o3"),
        ("p = 'o' AND '2' >= s", "o1 o2"),
        ("p = 'o' AND s BETWEEN '2' AND '3'", "o2 o3"),
        ("p = 'o' AND begins_with(\"s\", '3')", "o3"),
        ("p = 'o' AND s IN ['1', '3']", "o1 o3"),
        ("p = 'o' AND (s = '1' OR s = '2')", "o1 o2"),
        ("p = 'o' AND NOT s = '1'", "o2 o3"),
        ("p = 'o' AND s <> '1'", "o2 o3"),
        ("p = 'o' AND s != '1' AND s > '0'", "o2 o3"),
        ("p = 'o' AND s = '1' AND s > '0'", "o1"),
        ("p = 'o' AND p = 'p'", ""),
        ("p IN ['o', 'p'] AND s = '2'", "o2 p2"),
        ("p IN ('p', 'o') AND n > 2", "p3 o3"),
        ("(p = 'o' AND s = '1') OR (p = 'p' AND n = 2)", "o1 p2"),
        ("p = 'o' ORDER BY s DESC", "o3 o2 o1"),
        ("p = 'o' ORDER BY s", "o1 o2 o3"),
        ("p = 'o' ORDER BY p ASC", "o3 o2 o1"),
        ("p IN ['o', 'p'] ORDER BY p DESC, s ASC", "p1 p2 p3 o1 o2 o3"),
        ("p = 'o' AND n IN [1, ?]", "o1 o2"),
        ("p = 'o' AND n > -5 AND n NOT IN [1, 2]", "o3"),
        ("p = 'o' AND n NOT BETWEEN 2 AND 3", "o1"),
        ("p = 'q' AND n IS MISSING AND z IS NOT NULL", "q1"),
        ("p = 'o' AND z IS NULL AND n IS NOT MISSING AND s = '1'", "o1"),
        ("p = 'o' AND d.k[0] = 'c' AND contains(ss, 'x') AND size(d.k) = 1 AND s = '1'", "o1"),
        ("p = 'o' AND attribute_exists(d.k) AND ATTRIBUTE_NOT_EXISTS (nope) AND s < '2'", "o1"),
        ("p = 'o' AND attribute_type(n, 'N') AND s < '2' -- note", "o1"),
        ("p /* key */ = 'o' AND s < '2';", "o1"),
        ("p = 'o' AND s < '2' AND attribute_exists(nope) = false AND true = attribute_exists(n)", "o1"),
        ("p = 'o' AND s < '2' AND attribute_exists(n) <> 1 AND contains(nope, 'z') = false", "o1"),
        ("p = 'o' AND s < '2' AND (n BETWEEN 0 AND 5) = true AND (n = 5 OR l = 'x') = false", "o1"),
        ("p = 'o' AND s < '2' AND attribute_exists(nope) IN [true, false] AND attribute_exists(n) = attribute_exists(l)", "o1"),
        ("p = 'o' AND attribute_exists(n) = 1", ""),
        ("p = 'o' AND NOT attribute_exists(n) = true", ""),
        ("p = 'o' AND (attribute_exists(n) = true) = false", ""),
        ("p = 'o' AND attribute_exists(n) = l", ""),
        ("p > 'p'", "q1"),
        ("p = 'q' OR s = '2'", "o2 p2 q1"),
        ("n = 3", "o3 p3"),
        ("attribute_not_exists(n)", "q1"),
    ],
)
async def test_reads(rows: None, call: Call, where: str, expected: str) -> None:
    parameters = {"Parameters": [{"N": "2"}]} if "?" in where else {}
    found = keys(await items(call, f'SELECT * FROM "t" WHERE {where}', **parameters))
    by_key = where.startswith(("p = 'o'", "p IN", "'o'", "(p", "p /*"))
    assert (found if by_key else sorted(found)) == expected.split()


async def test_columns(rows: None, call: Call) -> None:
    found = await items(call, "SELECT d.k[0], d.k, n, nope, l FROM t WHERE p = 'o' AND s = '1'")
    assert found == [{"k[0]": plain("c"), "k": plain(["c"]), "n": plain(1), "l": plain("l1")}]
    assert await items(call, "SELECT nope FROM t WHERE p = 'o' AND s = '1'") == [{}]


@pytest.mark.parametrize("where", ["p IN ['o', 'p', 'q']", "n > 0", "p IN ['o', 'p'] AND n <> 2 ORDER BY p DESC", "p = 'o'"])
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages(rows: None, call: Call, where: str, limit: int) -> None:
    statement = f"SELECT * FROM t WHERE {where}"
    everything = await items(call, statement)
    found: list[dict[str, Any]] = []
    token: dict[str, Any] = {}
    for _ in range(20):
        page = await call("ExecuteStatement", Statement=statement, Limit=limit, **token)
        assert len(page["Items"]) <= limit
        found += page["Items"]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert found == everything


async def test_tokens_that_are_none(rows: None, call: Call, refused: Refused) -> None:
    token = (await call("ExecuteStatement", Statement="SELECT * FROM t", Limit=1))["NextToken"]
    error = await refused("ExecuteStatement", Statement="SELECT * FROM t WHERE n = 1", NextToken=token)
    assert error.message == "The provided starting key is invalid"
    for forged in ("", "x", "AAAA", token[:-8] + "AAAAAAAA"):
        error = await refused("ExecuteStatement", Statement="SELECT * FROM t", NextToken=forged)
        assert error.name == "ValidationException"
        assert error.message.startswith(("Invalid NextToken", "The provided starting key is invalid"))


async def test_indexes(rows: None, call: Call, refused: Refused) -> None:
    assert sorted(keys(await items(call, "SELECT * FROM t.\"all\" WHERE g = 'go'"))) == ["o1", "o2", "o3"]
    assert len(await items(call, 'SELECT * FROM t."all"')) == 6
    found = await items(call, "SELECT * FROM t.local WHERE p = 'o' AND l > 'l1' ORDER BY l DESC", ConsistentRead=True)
    assert keys(found) == ["o3", "o2"]
    error = await refused("ExecuteStatement", Statement="SELECT * FROM t.\"all\" WHERE g = 'go'", ConsistentRead=True)
    assert error.message == "Strongly consistent read is not supported on Global Secondary Indexes"


async def test_indexes_that_have_not_everything(call: Call, refused: Refused) -> None:
    projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["has"]}
    schema = [{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}]
    await call(
        "CreateTable",
        TableName="u1x",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in "psgl"],
        KeySchema=schema,
        GlobalSecondaryIndexes=[
            {"IndexName": "inc", "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}], "Projection": projection}
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "own",
                "KeySchema": [schema[0], {"AttributeName": "l", "KeyType": "RANGE"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )
    await put(call, "u1x", p="a", s="1", g="y", l="k1", has="h1", no="n1")
    await put(call, "u1x", p="a", s="2", g="y2", l="k2", has="h2", no="n2")
    prefix = "One or more parameter values were invalid: Secondary index inc does not project one or more filter attributes: "
    for where, names in [
        ("g = 'y' AND no = 'n1'", "[no]"),
        ("g = 'y' AND NOT (no = 'n1' OR has = 'x')", "[no]"),
        ("g = 'y' AND b = '1' AND (a = '2' OR has = '3')", "[a, b]"),
        ("g = 'y' AND (zz = '1' OR aa = '2' OR mm = '3')", "[zz, aa, mm]"),
        ("g IN ['y', 'z'] AND no IS MISSING", "[no]"),
        ("(g = 'b' AND u1 = '1') OR (g = 'q' AND u2 = '1')", "[u2]"),
    ]:
        error = await refused("ExecuteStatement", Statement=f"SELECT p FROM u1x.inc WHERE {where}")
        assert error.message == prefix + names
    for where, expected in [
        ("no = 'n1'", []),
        ("NOT no = 'n1'", ["1", "2"]),
        ("(g = 'y' AND no = 'n1') OR (g = 'y2')", ["2"]),
        ("g = 'y' AND has = 'h1'", ["1"]),
        ("g > 'a' AND zz = '1'", []),
        ("g = 'y' AND (g = 'z' OR zz = '1')", []),
    ]:
        found = await items(call, f"SELECT s FROM u1x.inc WHERE {where}")
        assert sorted(item["s"]["S"] for item in found) == expected, where
    assert await items(call, "SELECT s FROM u1x.own WHERE no = 'n1'") == []
    assert await items(call, "SELECT no FROM u1x.own WHERE p = 'a' AND l = 'k1'") == [{"no": plain("n1")}]
    assert await items(call, "SELECT * FROM u1x.own WHERE p = 'a' AND l = 'k1'") == [
        {"p": plain("a"), "s": plain("1"), "l": plain("k1")}
    ]
    error = await refused("ExecuteStatement", Statement="SELECT no, else_ FROM u1x.inc WHERE g = 'y'")
    assert error.message == "One or more parameter values were invalid: Global secondary index inc does not project [no, else_]"


async def test_capacity_is_told(rows: None, call: Call) -> None:
    read = await call("ExecuteStatement", Statement="SELECT * FROM t WHERE p = 'o'", ReturnConsumedCapacity="TOTAL")
    assert read["ConsumedCapacity"] == {"TableName": "t", "CapacityUnits": 0.5}
    written = await call("ExecuteStatement", Statement="INSERT INTO h VALUE {'p': 'a'}", ReturnConsumedCapacity="TOTAL")
    assert written["ConsumedCapacity"] == {"TableName": "h", "CapacityUnits": 1.0}


# batches


async def test_each_statement_of_a_batch_has_its_own_answer(rows: None, call: Call) -> None:
    await put(call, "h", p="a", n=1)
    written = await call(
        "BatchExecuteStatement",
        Statements=[
            {"Statement": "INSERT INTO h VALUE {'p': 'b'}"},
            {"Statement": "INSERT INTO h VALUE {'p': 'a'}"},
            {"Statement": "UPDATE h SET n = 2 WHERE p = 'a' AND n = 9"},
            {"Statement": "SLECT * FROM h"},
            {"Statement": "DELETE FROM h WHERE p = 'a' RETURNING ALL OLD *"},
            {"Statement": "UPDATE never SET n = 2 WHERE p = 'a'"},
            {"Statement": "UPDATE h SET n = ? WHERE p = 'b'", "Parameters": [{"SS": []}]},
        ],
        ReturnConsumedCapacity="TOTAL",
    )
    assert written["Responses"] == [
        {"TableName": "h"},
        {"TableName": "h", "Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}},
        {"TableName": "h", "Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}},
        {"Error": {"Code": "ValidationError", "Message": MALFORMED + "Expected data manipulation"}},
        {"TableName": "h", "Item": {"p": plain("a"), "n": plain(1)}},
        {"TableName": "never", "Error": {"Code": "ResourceNotFound", "Message": "Requested resource not found"}},
        {
            "Error": {
                "Code": "ValidationError",
                "Message": "One or more parameter values were invalid: An string set  may not be empty",
            }
        },
    ]
    assert written["ConsumedCapacity"] == [{"TableName": "h", "CapacityUnits": 2.0}]


async def test_a_batch_reads_by_the_whole_key(rows: None, call: Call) -> None:
    statements = [
        "SELECT n FROM t WHERE p = 'o' AND s = '1'",
        "SELECT * FROM t WHERE p IN ['gone'] AND s = '1'",
        "SELECT * FROM t WHERE p = 'o'",
        "SELECT * FROM t WHERE p = 'o' AND s = '1' AND n = 1",
        "SELECT * FROM t.\"all\" WHERE g = 'go'",
    ]
    found = await call("BatchExecuteStatement", Statements=[{"Statement": statement} for statement in statements])
    refusal = {
        "Code": "ValidationError",
        "Message": "Select statements within BatchExecuteStatement must specify the primary key in the where clause.",
    }
    assert found["Responses"] == [
        {"TableName": "t", "Item": {"n": plain(1)}},
        {"TableName": "t"},
        *[{"TableName": "t", "Error": refusal}] * 3,
    ]


# transactions


def transaction(*statements: str, **request: Any) -> dict[str, Any]:
    return {"TransactStatements": [{"Statement": statement} for statement in statements], **request}


async def test_a_transaction_is_all_or_nothing(rows: None, call: Call, refused: Refused) -> None:
    await put(call, "h", p="a", n=1)
    await call("ExecuteTransaction", **transaction("INSERT INTO h VALUE {'p': 'b'}", "UPDATE h SET n = n + 1 WHERE p = 'a'"))
    assert (await one(call, p="a") or {})["n"] == plain(2)
    error = await refused(
        "ExecuteTransaction", **transaction("INSERT INTO h VALUE {'p': 'c'}", "INSERT INTO h VALUE {'p': 'b'}")
    )
    assert error.name == "TransactionCanceledException"
    assert error.message.endswith("[None, DuplicateItem]")
    assert await one(call, p="c") is None
    await call(
        "ExecuteTransaction",
        **transaction("EXISTS(SELECT * FROM h WHERE p = 'a' AND n = 2 AND nope IS MISSING)", "DELETE FROM h WHERE p = 'b'"),
    )
    assert await one(call, p="b") is None
    error = await refused(
        "ExecuteTransaction", **transaction("EXISTS(SELECT * FROM h WHERE p = 'a' AND n = 7)", "INSERT INTO h VALUE {'p': 'd'}")
    )
    assert error.members["CancellationReasons"] == [
        {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"},
        {"Code": "None"},
    ]


async def test_a_transaction_runs_once_for_its_token(table: None, call: Call) -> None:
    await put(call, "h", p="a", n=0)
    request = transaction("UPDATE h SET n = n + 1 WHERE p = 'a'", ClientRequestToken="once", ReturnConsumedCapacity="INDEXES")
    first, again = await call("ExecuteTransaction", **request), await call("ExecuteTransaction", **request)
    assert (await one(call, p="a") or {})["n"] == plain(1)
    assert first["ConsumedCapacity"][0]["WriteCapacityUnits"] == 2
    assert again["ConsumedCapacity"][0]["ReadCapacityUnits"] == 2


async def test_a_transaction_of_reads(rows: None, call: Call, refused: Refused) -> None:
    found = await call(
        "ExecuteTransaction",
        **transaction(
            "SELECT n FROM t WHERE (s = '1') AND p = 'o' AND p = 'o'", "SELECT * FROM t WHERE p IN ['gone'] AND s IN ['1']"
        ),
    )
    assert found["Responses"] == [{"Item": {"n": plain(1)}}, {}]
    select = "SELECT * FROM t WHERE p = 'o' AND s = '1'"
    error = await refused("ExecuteTransaction", **transaction(select, select))
    assert error.message == "Transaction request cannot include multiple operations on one item"
    error = await refused("ExecuteTransaction", **transaction(select, select, "SELECT * FROM t WHERE p = 1 AND s = '1'"))
    assert error.message.endswith("[None, None, ValidationError]")


INVALID = "Validation failed in TransactStatements[0]: "


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["SELECT * FROM h WHERE"], INVALID + MALFORMED + "Unexpected term"),
        (["UPDATE h SET n = 1 WHERE p = 'a' RETURNING ALL NEW *"], INVALID + "RETURNING clause is not supported in ExecuteTransaction."),
        (["SELECT * FROM t.\"all\" WHERE g = 'x'"], INVALID + "Reads on indices are not supported within transactions."),
        (["SELECT * FROM t WHERE p = 'a'"], INVALID + "Select statements within ExecuteTransaction must specify the primary key in the where clause."),
        (["SELECT * FROM h WHERE p = 'a' AND p = 'b'"], INVALID + "Select statements within ExecuteTransaction must specify the primary key in the where clause."),
        (["SELECT * FROM t WHERE p IN ['a', 'a'] AND s = '1'"], INVALID + OVERLAPPING),
        (["EXISTS(SELECT * FROM h WHERE p = 'a')", "INSERT INTO h VALUE {'p': 'd'}"], INVALID + "EXISTS() must contain a single item read with additional condition"),
        (["EXISTS(SELECT * FROM h WHERE p IN ['a'] AND n = 1)", "INSERT INTO h VALUE {'p': 'd'}"], INVALID + "EXISTS() must contain a single item read with additional condition"),
        (["UPDATE h SET n = n + [1] WHERE p = 'a'"], INVALID + "Incorrect operand type for operator or function; operator or function: +, operand type: L"),
        (["SELECT * FROM h WHERE p = 'a'", "DELETE FROM h WHERE p = 'b'"], "ExecuteTransaction API does not support both read and write operations in the same request."),
        (["UPDATE never SET n = 1 WHERE p = 'a'", "UPDATE h SET n = 1 WHERE p = 'a' RETURNING ALL NEW *"], "Validation failed in TransactStatements[1]: RETURNING clause is not supported in ExecuteTransaction."),
    ],
)  # fmt: skip
async def test_transactions_that_are_refused(table: None, refused: Refused, statements: list[str], message: str) -> None:
    error = await refused("ExecuteTransaction", **transaction(*statements))
    assert (error.name, error.message) == ("ValidationException", message)


async def test_transactions_that_are_cancelled(table: None, refused: Refused) -> None:
    error = await refused(
        "ExecuteTransaction",
        **transaction("UPDATE never SET a = 1 WHERE p = 'x' RETURNING ALL NEW *", "DELETE FROM never WHERE p = 'x'"),
    )
    assert [reason["Code"] for reason in error.members["CancellationReasons"]] == ["ResourceNotFound"] * 2  # type: ignore[attr-defined]
    error = await refused(
        "ExecuteTransaction",
        **transaction(
            "UPDATE t SET a = 1 WHERE p = 'k'",
            "UPDATE t SET a = 1 WHERE p IN ['k'] AND s = '1'",
            "UPDATE t SET a = 1 WHERE p = 'k' AND s = '1' AND p = 'other'",
            "DELETE FROM t WHERE s = '1'",
            "DELETE FROM t WHERE p = 'k' AND s = '1'",
        ),
    )
    reasons: Any = error.members["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["ValidationError"] * 4 + ["None"]
    assert reasons[0]["Message"] == "The provided key element does not match the schema"


# bounds


WORDS = (
    "SELECT FROM WHERE AND OR NOT IN BETWEEN IS MISSING NULL ORDER BY DESC INSERT INTO VALUE UPDATE SET REMOVE DELETE RETURNING"
)
MARKS = "* ( ) [ ] { } << >> , . : ? - + -- /* */ ; ' \" = <"
TERMS = ["t", "h", "p", "'a'", "1", "e5", "set_add", "size", "ALL", "OLD", "EXISTS", "\u00e9", "\ud800"]
PIECES = [*WORDS.split(), *MARKS.split(), *TERMS]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join) | st.text(max_size=60))
def test_any_text_is_parsed_or_refused_by_name(text: str) -> None:
    table_keys = partiql.Keys("p", "s", {"p": "S", "s": "S"})
    try:
        statement = partiql.parse(text, [{"S": "x"}] * 3)
        if isinstance(statement, partiql.Select):
            partiql.plan_read(statement, table_keys)
        elif isinstance(statement, partiql.Update):
            partiql.plan_update(statement)
            partiql.plan_key(statement, table_keys)
    except ServiceError as error:
        refused = error
        assert refused.name == "ValidationException"


@pytest.mark.parametrize(
    "where",
    [
        "(" * 4000,
        "NOT " * 2000 + "p = 'a'",
        " AND ".join(["(a = 1 OR b = 2)"] * 400),
        " AND ".join(["(p = 'a' OR p = 'b')"] * 200),
        " AND ".join(["(s = '1' OR s = '2')"] * 200) + " AND p = 'a'",
        "(" + " OR ".join(["p = 'a'"] * 500) + ")",
        "size(" * 1500,
        "a" + "[0]" * 2500 + " = 1",
    ],
)
def test_statements_that_would_cost_much(where: str) -> None:
    table_keys = partiql.Keys("p", "s", {"p": "S", "s": "S"})
    try:
        statement = partiql.parse(f"SELECT * FROM t WHERE {where}", [])
        assert isinstance(statement, partiql.Select)
        read = partiql.plan_read(statement, table_keys)
        keep = read.filter or (read.branches[0].filter if read.branches else None)
        if keep is not None:
            keep.holds({"p": {"S": "a"}})
    except ServiceError as error:
        refused = error
        assert refused.name == "ValidationException"
