"""What a WHERE reads by key, against reading everything and filtering: no row is lost, none comes twice."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.documents.dynamodb import partiql
from martlet.documents.dynamodb.expressions import KeyCondition, values
from martlet.errors import ServiceError

KEYS = partiql.Keys("p", "s", {"p": "S", "s": "N"})
ROWS: list[dict[str, Any]] = [
    {"p": {"S": p}, "s": {"N": str(s)}, "x": {"N": str(s % 2)}} for p, s in product("abc", range(-2, 4))
]

PARTITION = st.sampled_from(["p = 'a'", "'b' = p", "p IN ['a', 'c']", "p IN ['b']", "p > 'a'", "p <> 'b'", "p = 'zz'"])
SORT = st.sampled_from(
    ["s = 1", "s > 0", "s >= 1", "s < 1", "0 <= s", "s BETWEEN 0 AND 2", "s IN [0, 2]", "s <> 1", "NOT s = 2", "1 > s"]
)
OTHER = st.sampled_from(["x = 1", "x <> 0", "x IS MISSING", "attribute_exists(x)", "x = 0 OR s = 3"])
WHERE = st.recursive(
    PARTITION | SORT | OTHER,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})")
        | inner.map(lambda part: f"NOT ({part})")
    ),
    max_leaves=7,
)


def within(row: dict[str, Any], key: KeyCondition) -> bool:
    if row["p"] != key.hash_value:
        return False
    if key.operator is None or key.low is None:
        return True
    order = values.compare(row["s"], key.low)
    assert order is not None
    if key.operator == "BETWEEN":
        assert key.high is not None
        return order >= 0 and (values.compare(row["s"], key.high) or 0) <= 0
    return {"=": order == 0, "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[key.operator]


@settings(max_examples=1500, deadline=None)
@given(WHERE)
def test_reads_by_key_find_what_a_filter_of_everything_finds(where: str) -> None:
    statement = partiql.parse(f"SELECT * FROM t WHERE {where}", [])
    assert isinstance(statement, partiql.Select)
    condition = partiql.check_where(statement)
    assert condition is not None
    try:
        read = partiql.plan_read(statement, KEYS)
    except ServiceError as error:
        message = error.message
        assert message.startswith(("Overlapping conditions", "Too many decomposed"))
        return
    if read.branches:
        found = [
            row
            for branch in read.branches
            for row in ROWS
            if within(row, branch.key) and (branch.filter is None or branch.filter.holds(row))
        ]
    else:
        assert read.filter is not None
        found = [row for row in ROWS if read.filter.holds(row)]
    assert sorted(map(repr, found)) == sorted(repr(row) for row in ROWS if condition.holds(row)), where
    if read.exact and read.branches[0].key.operator == "=":
        assert len(found) <= 1


@settings(max_examples=500, deadline=None)
@given(st.lists(PARTITION | SORT | OTHER, min_size=1, max_size=4))
def test_a_write_means_one_item_or_is_refused(parts: list[str]) -> None:
    statement = partiql.parse(f"DELETE FROM t WHERE {' AND '.join(f'({part})' for part in parts)}", [])
    assert isinstance(statement, partiql.Delete)
    condition = partiql.check_where(statement)
    assert condition is not None
    try:
        keyed = partiql.plan_key(statement, KEYS)
    except ServiceError as error:
        message = error.message
        assert message.startswith(("Where clause does not contain", "Multiple conditions"))
        return
    for row in ROWS:
        meant = keyed.key == {"p": row["p"], "s": row["s"]} and (keyed.condition is None or keyed.condition.holds(row))
        assert meant is condition.holds(row)
