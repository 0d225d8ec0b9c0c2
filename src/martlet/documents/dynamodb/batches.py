"""BatchGetItem and BatchWriteItem: many items in one request, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from martlet.documents.dynamodb import expressions
from martlet.documents.dynamodb.capacity import Capacity, read_units
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.failures import validation
from martlet.documents.dynamodb.items import check_item_keys, check_key, check_size, checked
from martlet.documents.dynamodb.requests import names_of, paths_check, projection_of, table_name
from martlet.documents.dynamodb.tables import Item, Table, unpack
from martlet.documents.dynamodb.writing import Write, apply
from martlet.store import Reader, Tx

__all__ = ["batch_get", "batch_write"]

Request = dict[str, Any]
_NO_REQUESTS: Final = (
    "1 validation error detected: Value at 'requestItems.{name}.member' failed to satisfy constraint: "
    "Member must have length greater than or equal to 1"
)
_NO_KEYS: Final = (
    "1 validation error detected: Value null at 'requestItems.{name}.member' failed to satisfy constraint: "
    "Member must not be null"
)
_GET_MOST: Final = 100
_WRITE_MOST: Final = 25
_ANSWER_BYTES: Final = 16_777_216
_TRANSACTION_BYTES: Final = 2_097_152  # of items, to which entries of indexes and change records are added


# --- reading


class _Wanted:
    """What is asked of one table."""

    def __init__(self, given_name: str, request: Request) -> None:
        self.given_name = given_name
        self.name = table_name(given_name)
        self.request = request
        expressions.check_parameters(request, ("ProjectionExpression",), ("AttributesToGet",))
        names = names_of({"ExpressionAttributeNames": request.get("ExpressionAttributeNames")})
        self.projection = projection_of(request, names)
        names.check_used()
        self.keys = [checked(key) for key in request["Keys"]]
        self.consistent = bool(request.get("ConsistentRead"))
        for number, key in enumerate(self.keys):
            if key in self.keys[:number]:
                raise validation("Provided list of item keys contains duplicates")


def plan_get(request: Request) -> list[_Wanted]:
    for name, given in request["RequestItems"].items():
        if given is None:
            raise validation(_NO_KEYS.format(name=name))
    wanted = [_Wanted(name, given) for name, given in request["RequestItems"].items()]
    if sum(len(one.keys) for one in wanted) > _GET_MOST:
        raise validation("Too many items requested for the BatchGetItem call")
    return wanted


async def batch_get(tables: Tables, request: Request) -> Request:
    wanted = plan_get(request)
    responses: dict[str, list[Item]] = {}
    unprocessed: dict[str, Request] = {}
    capacities = []
    size = 0
    for one in wanted:
        found, left, used, read = tables.store.read(lambda reader: _get_all(tables, reader, one, _ANSWER_BYTES - size))  # noqa: B023
        size += read
        responses[one.given_name] = found
        if left:
            unprocessed[one.given_name] = {**one.request, "Keys": left}
        tables.account(one.name, used, wrote=False)
        told = used.shown(request.get("ReturnConsumedCapacity"), one.name)
        if told is not None:
            capacities.append(told)
        await asyncio.sleep(0)
    answer: Request = {"Responses": responses, "UnprocessedKeys": unprocessed}
    if capacities:
        answer["ConsumedCapacity"] = capacities
    return answer


def _get_all(tables: Tables, reader: Reader, wanted: _Wanted, room: int) -> tuple[list[Item], list[Item], Capacity, int]:
    """(items, keys for which there was no room, capacity, bytes read)"""
    table = tables.demand(reader, wanted.name)
    for key in wanted.keys:
        check_key(table, key)
    _check_paths(table, wanted)
    found: list[Item] = []
    used = Capacity()
    total = 0
    for number, key in enumerate(wanted.keys):
        raw = reader.get(table.key(key))
        if raw is None:
            used.table += read_units(0, wanted.consistent)
            continue
        item, size = unpack(raw)
        if total + size > room:
            return found, wanted.request["Keys"][number:], used, _ANSWER_BYTES
        total += size
        used.table += read_units(size, wanted.consistent)
        found.append(item if wanted.projection is None else wanted.projection.of(item))  # type: ignore[arg-type]
    return found, [], used, total


def _check_paths(table: Table, wanted: _Wanted) -> None:
    check: Callable[[Table], None] | None = paths_check(wanted.projection.paths() if wanted.projection else ())
    if check is not None:
        check(table)


# --- writing


def plan_write(request: Request) -> list[tuple[str, Write]]:
    """(the table's name as it was given, write)"""
    writes: list[tuple[str, Write]] = []
    for given_name, entries in request["RequestItems"].items():
        name = table_name(given_name)
        if not entries:
            raise validation(_NO_REQUESTS.format(name=given_name))
        for entry in entries:
            if entry is None:
                raise validation("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
            put, delete = entry.get("PutRequest"), entry.get("DeleteRequest")
            if (put is None) == (delete is None):
                raise validation(
                    "Supplied AttributeValue has more than one datatypes set, "
                    "must contain exactly one of the supported datatypes"
                )
            if put is not None:
                item = checked(put["Item"])
                writes.append((given_name, Write("put", name, item, size=check_size(item))))
            else:
                writes.append((given_name, Write("delete", name, checked(delete["Key"]))))
    if len(writes) > _WRITE_MOST:
        raise validation("Too many items requested for the BatchWriteItem call")
    return writes


async def batch_write(tables: Tables, request: Request) -> Request:
    with expressions.older_words():
        writes = plan_write(request)
    tables.store.read(lambda reader: _check_writes(tables, reader, writes))
    groups: list[list[Write]] = [[]]
    size = 0
    for _, write in writes:
        if groups[-1] and size + write.size > _TRANSACTION_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(write)
        size += write.size
    done = await asyncio.gather(*(tables.store.transact(_applied(tables, group)) for group in groups))
    if any(expires for _, expires in done):
        tables.housekeeping.wake()
    used: dict[str, Capacity] = {}
    for capacities, _ in done:
        for name, capacity in capacities.items():
            used.setdefault(name, Capacity()).add(capacity)
    for name, capacity in used.items():
        tables.account(name, capacity, wrote=True)
    answer: Request = {"UnprocessedItems": {}}
    wanted = request.get("ReturnConsumedCapacity")
    if wanted in ("TOTAL", "INDEXES"):
        answer["ConsumedCapacity"] = [capacity.shown(wanted, name) for name, capacity in used.items()]
    if request.get("ReturnItemCollectionMetrics") == "SIZE":
        metrics = _metrics(tables, writes)
        if metrics:
            answer["ItemCollectionMetrics"] = metrics
    return answer


def _applied(tables: Tables, group: list[Write]) -> Callable[[Tx], tuple[dict[str, Capacity], bool]]:
    def run(tx: Tx) -> tuple[dict[str, Capacity], bool]:
        used: dict[str, Capacity] = {}
        expires = False
        for write in group:
            done = apply(tx, tables.demand(tx, write.table), write)
            used.setdefault(write.table, Capacity()).add(done.capacity)
            expires = expires or done.expires
        return used, expires

    return run


def _check_writes(tables: Tables, reader: Reader, writes: list[tuple[str, Write]]) -> None:
    """All of it is checked before anything is written."""
    seen: set[bytes] = set()
    for _, write in writes:
        table = tables.demand(reader, write.table)
        if write.kind == "put":
            if any(table.types[name] not in write.item.get(name, {}) for name in table.keys):
                raise validation("The provided key element does not match the schema")
            check_item_keys(table, write.item)
        else:
            check_key(table, write.item)
        key = table.key(write.item)
        if key in seen:
            raise validation("Provided list of item keys contains duplicates")
        seen.add(key)


def _metrics(tables: Tables, writes: list[tuple[str, Write]]) -> Request:
    metrics: dict[str, list[Request]] = {}
    for given_name, write in writes:
        told = collection_metrics(tables.table(write.table), write.item)
        if told is not None and told not in metrics.get(given_name, []):
            metrics.setdefault(given_name, []).append(told)
    return metrics


def collection_metrics(table: Table, item: Item) -> Request | None:
    """ItemCollectionMetrics: only tables with local indexes have item collections."""
    if all(index.is_global for index in table.indexes):
        return None
    return {"ItemCollectionKey": {table.hash: item[table.hash]}, "SizeEstimateRangeGB": [0.0, 1.0]}
