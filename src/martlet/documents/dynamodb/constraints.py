"""What the service says of a request before the constraints of its model are looked at, and in other words than those.

The service's newer layer (see `expressions.errors`) stops at some members and names others without repeating what was sent.
Source: API reference, "Common errors", and what the service was observed to answer in several regions in 2026."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from martlet.documents.dynamodb.failures import validation

__all__ = ["check_constraints"]

Request = dict[str, Any]
_ONE: Final = "1 validation error detected: "
_AT_LEAST: Final = "failed to satisfy constraint: Member must have length greater than or equal to {least}"
_AT_MOST: Final = "failed to satisfy constraint: Member must have length less than or equal to {most}"
_ENUM: Final = "atisfy constraint: Member must satisfy enum value set: [{values}]"
_ON_TABLES: Final = frozenset(("CreateTable", "DeleteTable", "DescribeTable", "UpdateTable", "DescribeTimeToLive"))
_ON_ITEMS: Final = {"PutItem": "Item", "UpdateItem": "Key", "DeleteItem": "Key", "GetItem": "Key"}
_RETURNS: Final = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
_CAPACITY: Final = ("INDEXES", "TOTAL", "NONE")
_METRICS: Final = ("SIZE", "NONE")
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_MAP_KEYS: Final = (
    "failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 255, "
    "Member must have length greater than or equal to 3, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]"
)
_MAP_VALUES: Final = (
    "failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 25, "
    "Member must have length greater than or equal to 1]"
)
_GET_MOST: Final = 100
_WRITE_MOST: Final = 25
# The members of a value as the service prints them, each with what it is called in a request.
_PRINTED: Final = [
    "s=S",
    "n=N",
    "b=B",
    "iNT",
    "dECIMAL",
    "dOUBLE",
    "sS=SS",
    "nS=NS",
    "bS=BS",
    "iNTSET",
    "dECIMALSET",
    "dOUBLESET",
    "m=M",
    "l=L",
    "nULL=NULL",
    "bOOL=BOOL",
]


def check_constraints(operation: str, request: Request) -> None:
    """Raises ValidationException; returns where the model has the word."""
    if operation in _ON_TABLES:
        _check_table_name(operation, request)
    elif operation in _ON_ITEMS:
        _check_item_request(operation, request)
    elif operation == "Query":
        _check_query(request)
    elif operation in ("BatchGetItem", "BatchWriteItem"):
        _check_batch(operation, request)


def _check_table_name(operation: str, request: Request) -> None:
    name = request.get("TableName")
    if name is None:
        raise validation("The parameter 'TableName' is required but was not present in the request")
    if not isinstance(name, str) or name.startswith("arn:") or 3 <= len(name) <= 255:
        return
    if operation != "CreateTable":
        raise validation("TableName must be at least 3 characters long and at most 255 characters long")
    if len(name) < 3:
        raise validation(f"{_ONE}Value '{name}' at 'tableName' {_AT_LEAST.format(least=3)}")


def _check_item_request(operation: str, request: Request) -> None:
    if request.get("TableName") is None or request.get(_ON_ITEMS[operation]) is None:
        return  # that is told together with all else, in the model's words
    if not request["TableName"]:
        raise validation(f"{_ONE}Value at 'TableName' {_AT_LEAST.format(least=1)}")
    if request.get("ReturnValues", "NONE") not in _RETURNS:
        # With the service's own slip in the last but one.
        wrong = "Failed to s" + _ENUM.format(values="ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE")
        found = [wrong]
        if operation != "UpdateItem":
            found = [*_enum(request, "ReturnConsumedCapacity", _CAPACITY), wrong]
            found += _enum(request, "ReturnItemCollectionMetrics", _METRICS)
        raise validation(_told(found))
    if request.get("ConditionalOperator", "AND") not in ("AND", "OR"):
        raise validation(f"{_ONE}Failed to s{_ENUM.format(values='ALL, OR')}")


def _check_query(request: Request) -> None:
    if request.get("ConditionalOperator", "AND") not in ("AND", "OR"):
        raise validation(f"Failed to s{_ENUM.format(values='ALL, OR')}")
    limit = request.get("Limit")
    if limit is not None and limit < 1:
        raise validation(
            f"{_ONE}Value at 'Limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        )


def _enum(request: Request, member: str, allowed: tuple[str, ...]) -> list[str]:
    value = request.get(member)
    if value is None or value in allowed:
        return []
    path = member[0].lower() + member[1:]
    return [f"Value '{value}' at '{path}' failed to s{_ENUM.format(values=', '.join(allowed))}"]


def _told(found: list[str]) -> str:
    return f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: {'; '.join(found)}"


# --- batches


def _check_batch(operation: str, request: Request) -> None:
    tables = request.get("RequestItems")
    if tables is None:
        return
    enums = _enum(request, "ReturnConsumedCapacity", _CAPACITY)
    if not tables:
        _refuse_no_tables(operation)
    malformed = any(not name.startswith("arn:") and not _NAME.fullmatch(name) for name in tables)
    if operation == "BatchGetItem":
        if malformed:
            echo = json.dumps(tables, separators=(",", ":"), default=lambda value: "")
            raise validation(_told([f"Value '{echo}' at 'requestItems' {_MAP_KEYS}", *enums]))
        _check_keys(tables)
        return
    enums += _enum(request, "ReturnItemCollectionMetrics", _METRICS)
    if enums:
        raise validation(_told(enums))
    if malformed:
        raise validation(f"{_ONE}Value '{_printed(tables)}' at 'requestItems' {_MAP_KEYS}")
    if any(requests is not None and not 1 <= len(requests) <= _WRITE_MOST for requests in tables.values()):
        raise validation(f"{_ONE}Value '{_printed(tables)}' at 'requestItems' {_MAP_VALUES}")


def _refuse_no_tables(operation: str) -> None:
    if operation == "BatchWriteItem":
        raise validation("The requestItems parameter is required for BatchWriteItem")
    raise validation(f"{_ONE}Value at 'RequestItems' {_AT_LEAST.format(least=1)}")


def _check_keys(tables: Request) -> None:
    for name, wanted in tables.items():
        keys = (wanted or {}).get("Keys")
        if keys is None:
            continue
        if not 1 <= len(keys) <= _GET_MOST:
            bound = _AT_MOST.format(most=_GET_MOST) if keys else _AT_LEAST.format(least=1)
            raise validation(f"{_ONE}Value at 'RequestItems.{name}.member.Keys' {bound}")


def _printed(tables: Request) -> str:
    """The requests of a BatchWriteItem as the service prints its own objects."""
    shown = (f"{name}=[{', '.join(map(_printed_write, requests or ()))}]" for name, requests in tables.items())
    return "{" + ", ".join(shown) + "}"


def _printed_write(request: Request | None) -> str:
    put, delete = (request or {}).get("PutRequest"), (request or {}).get("DeleteRequest")
    shown_put = f"PutRequest(item={_printed_item(put.get('Item'))}, workloadProfileName=null)" if put is not None else "null"
    shown_delete = f"DeleteRequest(key={_printed_item(delete.get('Key'))})" if delete is not None else "null"
    return f"WriteRequest(putRequest={shown_put}, deleteRequest={shown_delete})"


def _printed_item(item: Request | None) -> str:
    if item is None:
        return "null"
    return "{" + ", ".join(f"{name}={_printed_value(value)}" for name, value in item.items()) + "}"


def _printed_value(value: Request | None) -> str:
    if value is None:
        return "null"
    members = []
    for member in _PRINTED:
        shown, _, kind = member.partition("=")
        members.append(f"{shown}={_printed_content(kind, value.get(kind))}")
    return f"AttributeValue({', '.join(members)})"


def _printed_content(kind: str, content: Any) -> str:
    if content is None:
        return "null"
    if kind == "M":
        return _printed_item(content)
    if kind == "L":
        return f"[{', '.join(map(_printed_value, content))}]"
    if kind in ("B", "BS"):
        return "java.nio.HeapByteBuffer" if kind == "B" else f"[{', '.join('java.nio.HeapByteBuffer' for _ in content)}]"
    if kind in ("SS", "NS"):
        return f"[{', '.join(map(str, content))}]"
    return str(content).lower() if isinstance(content, bool) else str(content)
