"""Requests as data: a query and a batch of operations in JSON, for faces that pass them through."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from martlet.documents import values
from martlet.documents.query import Bound, Page, Plan, Query
from martlet.documents.transaction import Transaction
from martlet.documents.view import Document
from martlet.errors import InvalidInput, LimitExceeded, MartletError
from martlet.limits import LIMITS, exceeded

__all__ = ["Operation", "page_json", "parse_batch", "parse_query", "run_batch"]

_NULL: Final = msgspec.Raw(b"null")
_QUERY_LOOK: Final = 1_000  # documents that one query within a transaction looks at

Given = msgspec.Raw | msgspec.UnsetType


class QueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`Query` as JSON; `low` and `high` are {"value": ..., "inclusive": true}."""

    collection: str = ""
    index: str = ""
    equals: msgspec.Raw = msgspec.Raw(b"[]")
    low: msgspec.Raw = _NULL
    high: msgspec.Raw = _NULL
    prefix: str = ""
    reverse: bool = False
    filter: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    sort: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    expand: tuple[str, ...] = ()
    limit: int = 100
    cursor: str = ""
    as_of: int | None = None


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a batch. `version`: the one that must be there, 0 for none. `condition`: an expression that must hold."""

    op: Literal["get", "put", "patch", "delete", "check", "query"]
    collection: str
    id: str | None = None
    value: Given = msgspec.UNSET
    merge: Given = msgspec.UNSET
    increment: msgspec.Raw = msgspec.Raw(b"{}")
    version: int | None = None
    condition: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    expires_at_ms: int | None = None
    query: Given = msgspec.UNSET


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operations: tuple[Operation, ...]


def parse_query(raw: bytes, collection: str) -> Query:
    """A query from JSON. Raises `InvalidInput` naming the field."""
    body = _decoded(raw or b"{}", QueryBody)
    if body.collection not in ("", collection):
        raise InvalidInput("`collection` is another one than the path's", field="collection")
    equals, parameters = values.loads(bytes(body.equals)), values.loads(bytes(body.parameters))
    if not isinstance(equals, list) or not isinstance(parameters, dict):
        raise InvalidInput("`equals` is an array and `parameters` an object", field="equals")
    return Query(
        collection=collection,
        index=body.index,
        equals=tuple(equals),
        low=_bound(body.low, "low"),
        high=_bound(body.high, "high"),
        prefix=body.prefix,
        reverse=body.reverse,
        filter=body.filter,
        parameters=parameters,
        sort=body.sort,
        select=body.select,
        expand=body.expand,
        limit=body.limit,
        cursor=body.cursor,
        as_of=body.as_of,
    )


def parse_batch(raw: bytes) -> tuple[Operation, ...]:
    """{"operations": [...]}. Raises `InvalidInput`, `LimitExceeded` (transaction_documents)."""
    operations: tuple[Operation, ...] = _decoded(raw, _Batch).operations
    if len(operations) > LIMITS["transaction_documents"].default:
        raise exceeded("transaction_documents", len(operations), "transaction")
    for place, operation in enumerate(operations):
        if operation.id is None and operation.op not in ("put", "query"):
            raise InvalidInput(f"operation {place}: {operation.op} needs an id", field="id", operation=place)
        if operation.op == "put" and operation.value is msgspec.UNSET:
            raise InvalidInput(f"operation {place}: put needs a value", field="value", operation=place)
    return operations


def run_batch(tx: Transaction, operations: tuple[Operation, ...]) -> bytes:
    """All of them in their order; the results as JSON {"results": [...]}. An error says which `operation` it was."""
    results: list[Any] = []
    for place, operation in enumerate(operations):
        try:
            results.append(_run(tx, operation))
        except MartletError as error:
            error.details["operation"] = place
            raise
    return msgspec.json.encode({"results": results})


def page_json(page: Page) -> bytes:
    """A page of a query as JSON."""
    return msgspec.json.encode(
        {
            "items": [shown(item) for item in page.documents],
            "cursor": page.cursor,
            "as_of": page.at,
            "looked_at": page.looked_at,
        }
    )


def shown(item: Document) -> dict[str, Any]:
    """A document in an answer."""
    found: dict[str, Any] = {
        "id": item.id if isinstance(item.id, str) else msgspec.Raw(values.dumps(list(item.id))),
        "version": item.version,
        "ts": item.stamp,
        "value": msgspec.Raw(item.value_bytes),
    }
    if item.expires_at_ms:
        found["expires_at_ms"] = item.expires_at_ms
    return found


def _run(tx: Transaction, operation: Operation) -> Any:
    id, collection = operation.id or "", operation.collection
    parameters = values.loads(bytes(operation.parameters))
    if operation.op == "get":
        found = tx.get(collection, id)
        return None if found is None else shown(found)
    if operation.op == "check":
        tx.require_version(collection, id, operation.version or 0)
        return None
    if operation.op == "query":
        return _query(tx, operation)
    if operation.op == "delete":
        gone = tx.delete(collection, id, expected=operation.version, condition=operation.condition, parameters=parameters)
        return {"deleted": gone}
    if operation.op == "put":
        written = tx.put(
            collection,
            operation.id,
            bytes(operation.value) if isinstance(operation.value, msgspec.Raw) else b"",
            expected=operation.version,
            condition=operation.condition,
            parameters=parameters,
            expires_at_ms=operation.expires_at_ms,
        )
    else:
        written = tx.patch(
            collection,
            id,
            merge=values.loads(bytes(operation.merge)) if isinstance(operation.merge, msgspec.Raw) else None,
            increment=values.loads(bytes(operation.increment)),
            expected=operation.version,
            condition=operation.condition,
            parameters=parameters,
        )
    return {"id": written.id, "version": written.version, "ts": written.stamp}


def _query(tx: Transaction, operation: Operation) -> Any:
    query = parse_query(bytes(operation.query) if isinstance(operation.query, msgspec.Raw) else b"{}", operation.collection)
    if query.cursor or query.as_of is not None or query.sort:
        raise InvalidInput("a query within a transaction has neither `cursor`, `as_of` nor `sort`", field="query")
    compiled = tx.collection(operation.collection)
    if compiled is None:
        return []
    plan = Plan(query, compiled)
    part = plan.run(tx, b"", query.limit, _QUERY_LOOK, LIMITS["document_page_bytes"].default)
    if part.position is not None and len(part.found) < query.limit:
        raise LimitExceeded(
            f"a query within a transaction looks at {_QUERY_LOOK} documents at most", limit="query_scan_documents"
        )
    return [shown(item) for item in plan.shown(tx, [item for _, item in part.found])]


def _bound(raw: msgspec.Raw, field: str) -> Bound | None:
    given = values.loads(bytes(raw))
    if given is None:
        return None
    if not isinstance(given, dict) or "value" not in given or given.keys() - {"value", "inclusive"}:
        raise InvalidInput(f'`{field}` is {{"value": ..., "inclusive": true or false}}', field=field)
    return Bound(given["value"], given.get("inclusive", True) is True)


def _decoded(raw: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the request is malformed: {error}", field="body") from error
