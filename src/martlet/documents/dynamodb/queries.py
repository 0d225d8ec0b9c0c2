"""Query and Scan: requests → what to read, checked in the service's order, and the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from martlet.documents.dynamodb import expressions, legacy, ordering
from martlet.documents.dynamodb.expressions import KeyTest, Names, Projection
from martlet.documents.dynamodb.failures import detected, invalid, validation
from martlet.documents.dynamodb.items import checked, type_of
from martlet.documents.dynamodb.legacy import Filter
from martlet.documents.dynamodb.reading import (
    Page,
    Reading,
    bounds,
    check_start,
    check_start_hash,
    composite_bounds,
    last_key,
    start_position,
)
from martlet.documents.dynamodb.requests import names_of, paths_check, projection_of
from martlet.documents.dynamodb.tables import Index, Item, Table
from martlet.errors import ServiceError

__all__ = ["Asked", "answer", "plan_query", "plan_scan"]

Request = dict[str, Any]
_OPERATORS: Final = {
    "EQ": "=",
    "LT": "<",
    "LE": "<=",
    "GT": ">",
    "GE": ">=",
    "BETWEEN": "BETWEEN",
    "BEGINS_WITH": "begins_with",
}
_NUMBER_WORDS: Final = ("contains duplicates", "number set", "numeric value", "significant digits", "number with magnitude")
_NOT_SPECIFIC: Final = {
    "ALL_ATTRIBUTES": "ALL_ATTRIBUTES",
    "ALL_PROJECTED_ATTRIBUTES": "ALL_PROJECTED_ATTRIBUTES",
    "COUNT": "only the Count",
}


class Asked:
    """What a Query or Scan asks, as far as that is known without the table."""

    __slots__ = ("filter", "filter_attributes", "filter_paths", "keys", "legacy_filter", "projection", "request", "start")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.keys: Mapping[str, KeyTest] | None = None
        self.filter: Any = None
        self.legacy_filter = ""  # the parameter's name
        self.filter_attributes: tuple[str, ...] = ()
        self.filter_paths: tuple[expressions.Steps, ...] = ()
        self.projection: Projection | None = None
        self.start: Item | None = None


def plan_query(request: Request) -> Asked:
    """Raises the service's errors for what is wrong with the request itself."""
    asked = Asked(request)
    expressions.check_parameters(
        request,
        ("ProjectionExpression", "FilterExpression", "KeyConditionExpression"),
        ("AttributesToGet", "QueryFilter", "ConditionalOperator", "KeyConditions"),
    )
    with detected():
        _check_select(request)
    _plan_filter(asked, "QueryFilter")
    if request.get("KeyConditions") is None and request.get("KeyConditionExpression") is None:
        raise validation("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
    names = names_of(request)
    keys = None
    if request.get("KeyConditionExpression") is not None:
        keys = expressions.parse_key_expression(request["KeyConditionExpression"], names)
    _plan_expressions(asked, names)
    asked.keys = keys.conditions() if keys is not None else _legacy_keys(request["KeyConditions"])
    return asked


def plan_scan(request: Request) -> Asked:
    """Raises the service's errors for what is wrong with the request itself."""
    asked = Asked(request)
    with expressions.older_words():
        expressions.check_parameters(
            request, ("ProjectionExpression", "FilterExpression"), ("AttributesToGet", "ScanFilter", "ConditionalOperator")
        )
        _check_select(request)
        _plan_filter(asked, "ScanFilter")
        _check_segment(request)
        _plan_expressions(asked, names_of(request))
    return asked


def _plan_filter(asked: Asked, parameter: str) -> None:
    request = asked.request
    if parameter == "ScanFilter":
        legacy.check_attributes_to_get(request.get("AttributesToGet"))
    given = request.get(parameter)
    operator = legacy.check_operator(request, given, parameter)
    if given:
        asked.filter = Filter(legacy.checked_conditions(given), operator)
        asked.filter_attributes = asked.filter.attributes
        asked.legacy_filter = parameter
    legacy.check_attributes_to_get(request.get("AttributesToGet"))
    if request.get("ExclusiveStartKey") is not None:
        try:
            asked.start = checked(request["ExclusiveStartKey"])
        except ServiceError as error:
            if any(words in error.message for words in _NUMBER_WORDS):
                raise
            raise validation(f"The provided starting key is invalid: {error.message}") from error


def _plan_expressions(asked: Asked, names: Names) -> None:
    request = asked.request
    if request.get("FilterExpression") is not None:
        found = expressions.parse_condition(request["FilterExpression"], names, "FilterExpression")
        asked.filter = found
        asked.filter_paths = found.paths()
        asked.filter_attributes = tuple(found.attributes())
    asked.projection = projection_of(request, names)
    names.check_used()


def _legacy_keys(conditions: Request) -> dict[str, KeyTest]:
    found = {
        name: KeyTest(_OPERATORS.get(operator, operator), tuple(given))
        for name, (operator, given) in legacy.checked_conditions(conditions).items()
    }
    if not found:
        raise validation("Conditions can be of length 1 or 2 only")
    return found


def _check_select(request: Request) -> None:
    select = request.get("Select")
    chosen = next((name for name in ("ProjectionExpression", "AttributesToGet") if request.get(name) is not None), "")
    if select in _NOT_SPECIFIC and chosen:
        raise validation(f"Cannot specify the {chosen} when choosing to get {_NOT_SPECIFIC[select]}")
    if select == "SPECIFIC_ATTRIBUTES" and not chosen:
        raise validation("Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
    if select == "ALL_PROJECTED_ATTRIBUTES" and request.get("IndexName") is None:
        raise validation("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")


def _check_segment(request: Request) -> None:
    segment, total = request.get("Segment"), request.get("TotalSegments")
    if segment is not None and total is None:
        text = "The TotalSegments parameter is required but was not present in the request when Segment parameter is present"
        raise validation(text)
    if total is None:
        return
    if segment is None:
        raise validation(
            "The Segment parameter is required but was not present in the request when parameter TotalSegments is present"
        )
    if segment >= total:
        raise validation(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )


# --- with the table


def index_of(table: Table, request: Request) -> Index | None:
    name = request.get("IndexName")
    if name is None:
        return None
    index = table.by_name.get(name)
    if index is None:
        raise validation(f"The table does not have the specified index: {name}")
    if index.is_global and request.get("ConsistentRead"):
        raise validation("Consistent reads are not supported on global secondary indexes")
    if not index.active:
        raise validation(f"Cannot read from backfilling global secondary index: {name}")
    return index


def reading_of_query(table: Table, asked: Asked) -> Reading:
    """What of the table a query reads."""
    request = asked.request
    index = index_of(table, request)
    hashed, ranged = _keys_of(table, index)
    assert asked.keys is not None
    if asked.start is not None:
        check_start_hash(table, index, asked.start)
        if index is None and not ranged:
            shown = ", ".join(f"{name}={_shown(value)}" for name, value in asked.start.items())
            raise validation(f"The provided exclusive start key is invalid: ExclusiveStartKey: {{{shown}}}")
    if index is not None and index.composite:
        low, high = composite_bounds(table, index, asked.keys)
        _check_key_operands(asked.keys, table, index.keys)
    else:
        wanted = expressions.key_condition(asked.keys, hashed, ranged or None, table.types)
        _check_key_operands(asked.keys, table, (hashed, ranged))
        low, high = bounds(table, index, wanted)
    reverse = request.get("ScanIndexForward") is False
    if asked.start is not None:
        check_start(table, index, asked.start, scan=False)
        at = start_position(table, index, asked.start)
        if index is None or not index.composite:
            _check_inside(table, asked, hashed, ranged)
        elif not low <= at < high:
            raise validation("The provided starting key is outside query boundaries based on provided conditions")
        low, high = (low, min(at, high)) if reverse else (max(low, at + b"\x00"), high)
    reading = Reading(table, index, low, high, reverse)
    check = paths_check(asked.projection.paths() if asked.projection is not None else ())
    if check is not None:
        check(table)
    keys = index.keys if index is not None else table.keys
    for name in keys if asked.filter is not None else ():
        if name in asked.filter_attributes:
            what = asked.legacy_filter or "Filter Expression"
            raise validation(f"{what} can only contain non-primary key attributes: Primary key attribute: {name}")
    _fill(reading, asked)
    return reading


def _shown(value: dict[str, Any]) -> str:
    kind = type_of(value)
    return f"AttributeValue: {{{kind}:{value[kind]}}}"


def _keys_of(table: Table, index: Index | None) -> tuple[str, str]:
    if index is None:
        return table.hash, table.range
    return index.hash[0], index.range[0] if index.range else ""


def _check_key_operands(keys: Mapping[str, KeyTest], table: Table, names: tuple[str, ...]) -> None:
    """A key is never empty, so none can be equal to nothing."""
    for name in names:
        test = keys.get(name)
        if test is None or test.operator != "=":
            continue
        kind = table.types[name]
        if kind in ("S", "B") and not test.operands[0][kind]:
            what = "string" if kind == "S" else "binary"
            raise validation(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot "
                f"contain an empty {what} value. Key: {name}"
            )


def _check_inside(table: Table, asked: Asked, hashed: str, ranged: str) -> None:
    """Whether a starting key is within what the query reads."""
    assert asked.keys is not None
    assert asked.start is not None
    kind = table.types[hashed]
    same = asked.start[hashed].get(kind) == asked.keys[hashed].operands[0].get(kind)
    test = asked.keys.get(ranged)
    if test is None:
        if not same:
            raise validation("The provided starting key is outside query boundaries based on provided conditions")
        return
    if not _inside(asked.start[ranged], test):
        raise validation("The provided starting key does not match the range key predicate")
    if not same:
        raise validation("The query can return at most one row and cannot be restarted")


def _inside(value: dict[str, Any], test: KeyTest) -> bool:
    """Whether a sort key is one of those that a condition means."""
    first = test.operands[0]
    if test.operator == "begins_with":
        kind = type_of(value)
        return kind in first and bool(value[kind].startswith(first[kind]))
    found = expressions.values.compare(value, first)
    if found is None:
        return False
    if test.operator == "BETWEEN":
        return found >= 0 >= (expressions.values.compare(value, test.operands[1]) or 0)
    return {"=": found == 0, "<": found < 0, "<=": found <= 0, ">": found > 0, ">=": found >= 0}[test.operator]


def reading_of_scan(table: Table, asked: Asked) -> Reading:
    """What of the table a scan reads."""
    request = asked.request
    index = index_of(table, request)
    prefix = index.prefix if index is not None else table.prefix
    low, high = prefix, prefix + b"\xff" * 9
    reading = Reading(table, index, low, high)
    if index is not None and not index.everything:
        reading.fetches = _fetches(index, asked)
    if asked.start is not None:
        check_start(table, index, asked.start, scan=True)
    if request.get("TotalSegments"):
        segment, total = request["Segment"], request["TotalSegments"]
        first, end = ordering.segment(segment, total)
        low, high = prefix + first, prefix + end
    if asked.start is not None:
        at = start_position(table, index, asked.start)
        if not low <= at < high:
            raise validation(
                "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct "
                f"Segment. TotalSegments: {request.get('TotalSegments')} Segment: {request.get('Segment')}"
            )
        low = at + b"\x00"
    reading.low, reading.high = low, high
    _fill(reading, asked)
    return reading


def _fill(reading: Reading, asked: Asked) -> None:
    request, table, index = asked.request, reading.table, reading.index
    if index is not None and not index.everything:
        reading.fetches = _fetches(index, asked)
    check = paths_check((*asked.filter_paths, *(asked.projection.paths() if asked.projection is not None else ())))
    if check is not None:
        check(table)
    reading.filter, reading.projection = asked.filter, asked.projection
    reading.limit = request.get("Limit")
    reading.consistent = bool(request.get("ConsistentRead"))
    reading.counts = request.get("Select") == "COUNT"


def _fetches(index: Index, asked: Asked) -> bool:
    """Whether items have to be read from the table: a local index can do so, a global one refuses."""
    if asked.request.get("Select") == "ALL_ATTRIBUTES":
        if index.is_global:
            raise invalid(
                f"Select type ALL_ATTRIBUTES is not supported for global secondary index {index.name} "
                "because its projection type is not ALL"
            )
        return True
    wanted = _missing(index, asked.projection.attributes() if asked.projection is not None else ())
    if wanted and index.is_global:
        raise invalid(f"Global secondary index {index.name} does not project [{', '.join(wanted)}]")
    return bool(wanted)


def _missing(index: Index, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name not in index.projected)


def answer(reading: Reading, page: Page, request: Request) -> Request:
    """The answer to a Query or Scan."""
    found: Request = {"Count": page.count, "ScannedCount": page.looked_at}
    if not reading.counts:
        found["Items"] = page.items
    if page.last is not None:
        found["LastEvaluatedKey"] = last_key(reading.table, reading.index, page.last)
    wanted = request.get("ReturnConsumedCapacity")
    if wanted:
        found["ConsumedCapacity"] = page.capacity(reading).shown(wanted, reading.table.name)
    return found
