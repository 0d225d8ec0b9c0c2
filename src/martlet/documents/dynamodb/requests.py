"""Requests as they come → what they ask for, checked as far as that can be done without the table, in the service's order:
parameters that exclude each other, values, legacy conditions, expressions, and which of their variables were not used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from martlet.documents.dynamodb import expressions, items, legacy
from martlet.documents.dynamodb.failures import detected, validation
from martlet.documents.dynamodb.items import check_size, checked
from martlet.documents.dynamodb.tables import Table
from martlet.documents.dynamodb.updates import AttributeUpdates, ExpressionUpdate
from martlet.documents.dynamodb.writing import Write

__all__ = ["Request", "names_of", "paths_check", "plan_delete", "plan_put", "plan_transact", "plan_update", "table_name"]

Request = dict[str, Any]


def table_name(given: str) -> str:
    """The name in a TableName, which may be the table's ARN."""
    return given.rpartition(":table/")[2].partition("/")[0] if given.startswith("arn:") else given


def names_of(request: Request) -> expressions.Names:
    return expressions.Names(request.get("ExpressionAttributeNames"), request.get("ExpressionAttributeValues"))


def plan_put(request: Request) -> Write:
    with detected():
        expressions.check_parameters(request, ("ConditionExpression",), ("Expected",))
        item = checked(request["Item"])
        returns = request.get("ReturnValues") or "NONE"
        if returns not in ("NONE", "ALL_OLD"):
            raise validation("ReturnValues can only be ALL_OLD or NONE")
        write = Write("put", table_name(request["TableName"]), item, returns=returns, size=check_size(item))
        _conditions(write, request, update=False)
    return write


def plan_delete(request: Request) -> Write:
    with detected():
        expressions.check_parameters(request, ("ConditionExpression",), ("Expected",))
        key = checked(request["Key"])
        returns = request.get("ReturnValues") or "NONE"
        if returns not in ("NONE", "ALL_OLD"):
            raise validation("ReturnValues can only be ALL_OLD or NONE")
        write = Write("delete", table_name(request["TableName"]), key, returns=returns)
        _conditions(write, request, update=False)
    return write


def plan_update(request: Request) -> Write:
    with detected():
        expressions.check_parameters(request, ("UpdateExpression", "ConditionExpression"), ("AttributeUpdates", "Expected"))
        write = Write("update", table_name(request["TableName"]), checked(request["Key"]))
        write.returns = request.get("ReturnValues") or "NONE"
        if request.get("AttributeUpdates") is not None:
            write.update = AttributeUpdates(request["AttributeUpdates"])
        _conditions(write, request, update=True)
    return write


def _conditions(write: Write, request: Request, *, update: bool) -> None:
    """The condition, in either form, and the update expression."""
    write.on_failure = request.get("ReturnValuesOnConditionCheckFailure") or "NONE"
    write.condition = legacy.expected(request)
    names = names_of(request)
    steps: list[expressions.Steps] = []
    if update and request.get("UpdateExpression") is not None:
        parsed = expressions.parse_update(request["UpdateExpression"], names)
        write.update = ExpressionUpdate(parsed)
        steps += (*parsed.paths(), *parsed.reads())
    if request.get("ConditionExpression") is not None:
        condition = expressions.parse_condition(request["ConditionExpression"], names)
        write.condition = condition
        steps += condition.paths()
    names.check_used()
    write.check_paths = paths_check(steps)


def paths_check(paths: Iterable[expressions.Steps]) -> Callable[[Table], None] | None:
    """A check that no path leads into a key attribute, which is a scalar; None if none leads into anything."""
    nested = [str(steps[0]) for steps in paths if len(steps) > 1]
    if not nested:
        return None

    def check(table: Table) -> None:
        for name in nested:
            what = "Key" if name in table.key_attributes else "IndexKey" if name in table.types else ""
            if what:
                raise validation(
                    "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
                    f"{what}: {name}"
                )

    return check


# --- transactions


def plan_transact(entry: Request) -> Write:
    """One of TransactItems. Raises the service's error for what is wrong with the request itself."""
    given = [(kind, entry[kind]) for kind in ("ConditionCheck", "Put", "Delete", "Update") if entry.get(kind) is not None]
    if len(given) != 1:
        raise validation(
            "TransactItems can only contain one of Check, Put, Update or Delete"
            if given
            else "Invalid Request: TransactWriteRequest should contain Delete or Put or Update request"
        )
    kind, request = given[0]
    name = table_name(request["TableName"])
    expressions.check_parameters(
        request, ("UpdateExpression", "ConditionExpression") if kind == "Update" else ("ConditionExpression",), ()
    )
    if kind == "Put":
        item = checked(request["Item"])
        write = Write("put", name, item, size=items.item_size(item))
        if write.size > items.ITEM_BYTES:
            raise validation("Item size has exceeded the maximum allowed size")
    else:
        write = Write({"ConditionCheck": "check", "Delete": "delete", "Update": "update"}[kind], name, checked(request["Key"]))
    _conditions(write, request, update=kind == "Update")
    return write


def projection_of(request: Request, names: expressions.Names) -> expressions.Projection | None:
    """What ProjectionExpression or AttributesToGet ask for; None: everything."""
    attributes = request.get("AttributesToGet")
    if attributes is not None:
        legacy.check_attributes_to_get(attributes)
        return expressions.of_attributes(attributes)
    text = request.get("ProjectionExpression")
    return None if text is None else expressions.parse_projection(text, names)
