"""TransactGetItems and TransactWriteItems: one transaction of the store each.

A conflict with another transaction cannot be: they run one after the other."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb import expressions
from martlet.documents.dynamodb.batches import collection_metrics
from martlet.documents.dynamodb.capacity import Capacity, read_units
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.failures import validation
from martlet.documents.dynamodb.items import check_item_keys, check_key, checked
from martlet.documents.dynamodb.requests import names_of, paths_check, plan_transact, projection_of, table_name
from martlet.documents.dynamodb.tables import Item, unpack
from martlet.documents.dynamodb.writing import Write, apply
from martlet.errors import ServiceError
from martlet.store import Reader, Tx

__all__ = ["transact_get", "transact_write"]

Request = dict[str, Any]
_BYTES_MOST: Final = 4_194_304
_TOKEN_MS: Final = 600_000
_ENCODE: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_FACTOR: Final = 2.0  # a transaction reads or writes each item twice
_TOO_LARGE: Final = "Collection size cannot exceed 4194304 bytes"
_NOT_A_KEY: Final = "One or more parameter values are not valid"
_TWICE: Final = "Transaction request cannot include multiple operations on one item"


def cancelled(reasons: list[Request]) -> ServiceError:
    codes = ", ".join(str(reason["Code"]) for reason in reasons)
    text = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    return ServiceError("TransactionCanceledException", text, CancellationReasons=reasons)


def _reason(error: ServiceError) -> Request:
    """Why one of the actions failed."""
    if error.name == "ConditionalCheckFailedException":
        reason: Request = {"Code": "ConditionalCheckFailed", "Message": error.message}
        if error.members.get("Item"):
            reason["Item"] = error.members["Item"]
        return reason
    if error.name == "DuplicateItemException":  # of PartiQL's INSERT
        return {"Code": "DuplicateItem", "Message": error.message}
    return {"Code": "ValidationError", "Message": error.message}


# --- writing


async def transact_write(tables: Tables, request: Request) -> Request:
    with expressions.older_words():
        writes = [plan_transact(entry) for entry in request["TransactItems"]]
    return await run_writes(tables, request, writes)


async def run_writes(tables: Tables, request: Request, writes: list[Write]) -> Request:
    """Do them all, or none. `request`: its token, and what the answer is to tell."""
    token = request.get("ClientRequestToken") or ""
    asked = hashlib.sha256(_ENCODE({**request, "ClientRequestToken": ""})).digest() if token else b""
    result = await tables.store.transact(lambda tx: _write_all(tables, tx, writes, token, asked))
    repeated = result is None
    if result is None:  # the same request again: what it reads is what it costs
        result = tables.store.read(lambda reader: _repeated(tables, reader, writes)), False
    capacities, expires = result
    if expires or token:
        tables.housekeeping.wake()
    answer: Request = {}
    wanted = request.get("ReturnConsumedCapacity")
    if wanted in ("TOTAL", "INDEXES"):
        kind = "Read" if repeated else "Write"
        answer["ConsumedCapacity"] = [used.times(_FACTOR).shown(wanted, name, kind) for name, used in capacities.items()]
    if request.get("ReturnItemCollectionMetrics") == "SIZE":
        metrics: dict[str, list[Request]] = {}
        for write in writes:
            told = collection_metrics(tables.table(write.table), write.item) if write.kind != "check" else None
            if told is not None:
                metrics.setdefault(write.table, []).append(told)
        if metrics:
            answer["ItemCollectionMetrics"] = metrics
    for name, used in capacities.items():
        tables.account(name, used.times(_FACTOR), wrote=not repeated)
    return answer


def _write_all(
    tables: Tables, tx: Tx, writes: list[Write], token: str, asked: bytes
) -> tuple[dict[str, Capacity], bool] | None:
    """(capacity of each table, whether an item got a time to live); None if the token's request was done already."""
    if token and _done_before(tx, token, asked):
        return None
    _check_keys(tables, tx, writes)
    reasons: list[Request] = [{"Code": "None"} for _ in writes]
    used: dict[str, Capacity] = {}
    expires = False
    size = 0
    for number, write in enumerate(writes):
        try:
            done = apply(tx, tables.demand(tx, write.table), write)
        except ServiceError as error:
            reasons[number] = _reason(error)
            continue
        used.setdefault(write.table, Capacity()).add(done.capacity)
        expires = expires or done.expires
        size += write.size or done.size
    if any(reason["Code"] != "None" for reason in reasons):
        raise cancelled(reasons)
    if size > _BYTES_MOST:
        raise validation(_TOO_LARGE)
    if token:
        until = (tx.now_ms + _TOKEN_MS).to_bytes(8, "big")
        tx.put(b"Yk" + token.encode(), until + asked)
        tx.put(b"Yu" + until + token.encode(), b"")
    return used, expires


def _check_keys(tables: Tables, tx: Tx, writes: list[Write]) -> None:
    """The first key that is none of its table cancels all; an empty one, and two actions on one item, refuse the request."""
    seen: set[bytes] = set()
    for number, write in enumerate(writes):
        table = tables.demand(tx, write.table)
        try:
            if write.kind == "put":
                check_item_keys(table, write.item)
            else:
                check_key(table, write.item)
        except ServiceError as error:
            if error.message.startswith(_NOT_A_KEY):
                raise
            reasons: list[Request] = [{"Code": "None"} for _ in writes]
            reasons[number] = _reason(error)
            raise cancelled(reasons) from error
        key = table.key(write.item)
        if key in seen:
            raise validation(_TWICE)
        seen.add(key)


def _done_before(tx: Tx, token: str, asked: bytes) -> bool:
    raw = tx.get(b"Yk" + token.encode())
    if raw is None or int.from_bytes(raw[:8], "big") <= tx.now_ms:
        return False
    if raw[8:] != asked:
        raise ServiceError(
            "IdempotentParameterMismatchException", "The provided client token was already used with different parameters"
        )
    return True


def _repeated(tables: Tables, reader: Reader, writes: list[Write]) -> dict[str, Capacity]:
    used: dict[str, Capacity] = {}
    for write in writes:
        table = tables.demand(reader, write.table)
        raw = reader.get(table.key(write.item))
        size = unpack(raw)[1] if raw is not None else 0
        used.setdefault(write.table, Capacity()).table += read_units(size, True)
    return used


# --- reading


class Get:
    """One item to be read in a transaction. `projection` has `of` and `paths`."""

    __slots__ = ("check", "key", "projection", "table")

    def __init__(self, table: str, key: Item, projection: Any) -> None:
        self.table = table
        self.key = key
        self.projection = projection
        self.check = paths_check(projection.paths() if projection is not None else ())


def _plan_get(entry: Request) -> Get:
    request = entry.get("Get")
    if request is None:
        raise validation("Invalid Request: TransactGetRequest should contain Get request")
    expressions.check_parameters(request, ("ProjectionExpression",), ())
    key = checked(request["Key"])
    names = names_of({"ExpressionAttributeNames": request.get("ExpressionAttributeNames")})
    projection = projection_of(request, names)
    names.check_used()
    return Get(table_name(request["TableName"]), key, projection)


async def transact_get(tables: Tables, request: Request) -> Request:
    with expressions.older_words():
        gets = [_plan_get(entry) for entry in request["TransactItems"]]
    return await run_gets(tables, request, gets)


async def run_gets(tables: Tables, request: Request, gets: list[Get]) -> Request:
    """Read them all as of one moment. `request`: what the answer is to tell."""
    responses, capacities = tables.store.read(lambda reader: _get_all(tables, reader, gets))
    answer: Request = {"Responses": [{"Item": item} if item is not None else {} for item in responses]}
    wanted = request.get("ReturnConsumedCapacity")
    if wanted in ("TOTAL", "INDEXES"):
        answer["ConsumedCapacity"] = [used.times(_FACTOR).shown(wanted, name, "Read") for name, used in capacities.items()]
    for name, used in capacities.items():
        tables.account(name, used.times(_FACTOR), wrote=False)
    return answer


def _get_all(tables: Tables, reader: Reader, gets: list[Get]) -> tuple[list[Item | None], dict[str, Capacity]]:
    used: dict[str, Capacity] = {}
    reasons: list[Request] = []
    found: list[Item | None] = []
    seen: set[bytes] = set()
    twice = False
    size = 0
    for get in gets:
        table = tables.demand(reader, get.table)
        try:
            check_key(table, get.key)
            if get.check is not None:
                get.check(table)
        except ServiceError as error:
            reasons.append(_reason(error))
            continue
        reasons.append({"Code": "None"})
        key = table.key(get.key)
        twice = twice or key in seen
        seen.add(key)
        raw = reader.get(key)
        item, item_size = unpack(raw) if raw is not None else (None, 0)
        size += item_size
        used.setdefault(get.table, Capacity()).table += read_units(item_size, True)
        projection = get.projection
        found.append(item if item is None or projection is None else projection.of(item))
    if any(reason["Code"] != "None" for reason in reasons):
        raise cancelled(reasons)
    if twice:
        raise validation(_TWICE)
    if size > _BYTES_MOST:
        raise validation(_TOO_LARGE)
    return found, used
