"""PartiQL statements carried out: ExecuteStatement, BatchExecuteStatement, ExecuteTransaction."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb import partiql
from martlet.documents.dynamodb.capacity import Capacity, read_units
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.expressions import Condition as Parsed
from martlet.documents.dynamodb.failures import invalid, validation
from martlet.documents.dynamodb.items import check_key, check_size, checked
from martlet.documents.dynamodb.reading import PAGE_BYTES, Page, Reading, bounds, last_key, read_page
from martlet.documents.dynamodb.requests import table_name
from martlet.documents.dynamodb.tables import Index, Item, Table, unpack
from martlet.documents.dynamodb.transactions import cancelled, run_writes
from martlet.documents.dynamodb.updates import ExpressionUpdate
from martlet.documents.dynamodb.writing import Write
from martlet.errors import ServiceError
from martlet.store import Reader

__all__ = ["batch_statements", "execute_statement", "execute_transaction", "targets"]

Request = dict[str, Any]
_BATCH_MOST: Final = 25
_ERRORS: Final = {
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "DuplicateItemException": "DuplicateItem",
    "ResourceNotFoundException": "ResourceNotFound",
    "ValidationException": "ValidationError",
}
_NOT_BY_KEY: Final = "Select statements within BatchExecuteStatement must specify the primary key in the where clause."


class _Token(msgspec.Struct, array_like=True):
    """Where a statement's next page begins."""

    statement: bytes
    branch: int
    after: bytes


class _There:
    """A condition on an item that must be there."""

    def __init__(self, also: Parsed | None) -> None:
        self._also = also

    def holds(self, item: Item) -> bool:
        return bool(item) and (self._also is None or self._also.holds(item))


class _New:
    """The condition of INSERT. Raises DuplicateItemException."""

    def holds(self, item: Item) -> bool:
        if item:
            raise ServiceError("DuplicateItemException", "Duplicate primary key exists in table")
        return True


def parsed(entry: Request) -> partiql.Statement:
    return partiql.parse(entry["Statement"], partiql.checked_parameters(entry.get("Parameters")))


def targets(entries: list[Request]) -> list[tuple[str, str]]:
    """(action, table) of each statement: what its caller must be allowed. What cannot be parsed is told later."""
    found = []
    for entry in entries:
        try:
            statement = parsed(entry)
        except ServiceError:
            continue
        found.append((f"PartiQL{type(statement).__name__}", table_name(statement.table)))
    return found


# --- one statement


async def execute_statement(tables: Tables, request: Request) -> Request:
    statement = parsed(request)
    if isinstance(statement, partiql.Select):
        if statement.exists:
            raise validation("EXISTS is only supported in ExecuteTransaction")
        return await _select(tables, statement, request)
    write = _write_of(tables, statement, request)
    done = await tables.write(write)
    returned = done.returned(write)
    answer: Request = {"Items": [returned] if returned else []}
    if request.get("ReturnConsumedCapacity"):
        answer["ConsumedCapacity"] = done.capacity.shown(request["ReturnConsumedCapacity"], write.table)
    return answer


def _write_of(tables: Tables, statement: partiql.Statement, request: Request) -> Write:
    table = tables.table(table_name(statement.table))
    on_failure = request.get("ReturnValuesOnConditionCheckFailure") or "NONE"
    if isinstance(statement, partiql.Insert):
        item = checked(dict(statement.item))  # type: ignore[arg-type]
        return Write("put", table.name, item, condition=_New(), size=check_size(item), on_failure=on_failure)
    assert isinstance(statement, partiql.Update | partiql.Delete)
    keyed = partiql.plan_key(statement, _keys(table, None))
    key: Item = checked(keyed.key)  # type: ignore[arg-type]
    returns = statement.returning or "NONE"
    if isinstance(statement, partiql.Update):
        update = ExpressionUpdate(partiql.plan_update(statement))
        condition = _There(keyed.condition)
        return Write("update", table.name, key, condition=condition, update=update, returns=returns, on_failure=on_failure)
    return Write("delete", table.name, key, condition=keyed.condition, returns=returns, on_failure=on_failure)


def _keys(table: Table, index: Index | None) -> partiql.Keys:
    if index is None:
        return partiql.Keys(table.hash, table.range or None, table.types)
    return partiql.Keys(index.hash[0], index.range[0] if index.range else None, table.types)


# --- SELECT


async def _select(tables: Tables, statement: partiql.Select, request: Request) -> Request:
    table = tables.table(table_name(statement.table))
    index = _index(table, statement, request)
    read = partiql.plan_read(statement, _keys(table, index))
    columns = partiql.Columns(statement.columns) if statement.columns is not None else None
    fetches = _check_projected(index, read, columns)
    identity = hashlib.sha256(msgspec.msgpack.encode([request["Statement"], request.get("Parameters")])).digest()[:16]
    start = _opened(request.get("NextToken"), identity)
    readings = []
    for branch in read.branches:
        low, high = bounds(table, index, branch.key)
        readings.append(Reading(table, index, low, high, read.reverse, None, branch.filter))
    if not readings:
        prefix = index.prefix if index is not None else table.prefix
        readings.append(Reading(table, index, prefix, prefix + b"\xff" * 9, False, None, read.filter))
    items: list[Item] = []
    used = Capacity()
    answer: Request = {"Items": items}
    left, size = request.get("Limit"), 0
    for number in range(start.branch, len(readings)):
        reading = readings[number]
        reading.projection, reading.fetches = columns, fetches  # type: ignore[assignment]
        reading.limit, reading.consistent = left, bool(request.get("ConsistentRead"))
        if number == start.branch and start.after:
            _go_on(reading, start.after)
        page = await read_page(tables.store, reading)
        items += page.items
        used.add(page.capacity(reading))
        size += page.size
        left = left - page.looked_at if left is not None else None
        after = _next(identity, number, page, len(readings), left, size)
        if after is not None:
            answer["NextToken"] = after
            if page.last is not None:
                answer["LastEvaluatedKey"] = last_key(table, index, page.last)
            break
    tables.account(table.name, used, wrote=False)
    if request.get("ReturnConsumedCapacity"):
        answer["ConsumedCapacity"] = used.shown(request["ReturnConsumedCapacity"], table.name)
    return answer


def _index(table: Table, statement: partiql.Select, request: Request) -> Index | None:
    if statement.index is None:
        return None
    index = table.by_name.get(statement.index)
    if index is None:
        raise validation("The table does not have the specified index")
    if index.is_global and request.get("ConsistentRead"):
        raise validation("Consistent reads are not supported on global secondary indexes")
    if not index.active:
        raise validation(f"Cannot read from backfilling global secondary index: {statement.index}")
    if len(index.keys) > 2:
        raise validation("A statement on an index with a key of more than two attributes is not supported by Martlet")
    return index


def _check_projected(index: Index | None, read: partiql.Read, columns: partiql.Columns | None) -> bool:
    """Whether items have to be read from the table."""
    if index is None or index.everything:
        return False
    missing = list(partiql.missing_attributes(read, index.projected))
    missing += [name for name in (columns.attributes() if columns is not None else ()) if name not in index.projected]
    if missing and index.is_global:
        raise invalid(f"Global secondary index {index.name} does not project [{', '.join(dict.fromkeys(missing))}]")
    return bool(missing)


def _opened(token: str | None, identity: bytes) -> _Token:
    if not token:
        return _Token(identity, 0, b"")
    try:
        found = msgspec.msgpack.decode(base64.urlsafe_b64decode(token), type=_Token)
    except (ValueError, msgspec.MsgspecError):
        raise validation("NextToken is not valid") from None
    if found.statement != identity or found.branch < 0:
        raise validation("NextToken does not match request")
    return found


def _next(identity: bytes, branch: int, page: Page, branches: int, left: int | None, size: int) -> str | None:
    """The token of the next page, if this one is full."""
    if page.last is not None:
        token = _Token(identity, branch, page.position)
    elif branch + 1 < branches and (left == 0 or size >= PAGE_BYTES):
        token = _Token(identity, branch + 1, b"")
    else:
        return None
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).decode()


def _go_on(reading: Reading, after: bytes) -> None:
    if reading.reverse:
        reading.high = min(reading.high, after)
    else:
        reading.low = max(reading.low, after + b"\x00")


# --- many statements


def _failed(error: ServiceError, name: str) -> Request:
    told: Request = {"Code": _ERRORS.get(error.name, "InternalServerError"), "Message": error.message}
    if error.members.get("Item"):
        told["Item"] = error.members["Item"]
    answer: Request = {"Error": told}
    if name and told["Code"] != "ResourceNotFound":
        answer["TableName"] = name
    return answer


async def batch_statements(tables: Tables, request: Request) -> Request:
    entries = request["Statements"]
    if len(entries) > _BATCH_MOST:
        raise validation("Member must have length less than or equal to 25")
    responses: list[Request] = []
    used: dict[str, Capacity] = {}
    for entry in entries:
        name = ""
        try:
            statement = parsed(entry)
            name = table_name(statement.table)
            responses.append(await _one_of_batch(tables, statement, entry, used))
        except ServiceError as error:
            responses.append(_failed(error, name))
    answer: Request = {"Responses": responses}
    wanted = request.get("ReturnConsumedCapacity")
    if wanted in ("TOTAL", "INDEXES"):
        answer["ConsumedCapacity"] = [capacity.shown(wanted, name) for name, capacity in used.items()]
    return answer


async def _one_of_batch(tables: Tables, statement: partiql.Statement, entry: Request, used: dict[str, Capacity]) -> Request:
    table = tables.table(table_name(statement.table))
    capacity = used.setdefault(table.name, Capacity())
    answer: Request = {"TableName": table.name}
    if isinstance(statement, partiql.Select):
        key, condition = _key_of(table, statement, _NOT_BY_KEY)
        item, size = tables.store.read(lambda reader: _got(reader, table, key))
        capacity.table += read_units(size, entry.get("ConsistentRead"))
        found = _shown(statement, condition, item)
        if found is not None:
            answer["Item"] = found
        return answer
    write = _write_of(tables, statement, entry)
    done = await tables.write(write)
    capacity.add(done.capacity)
    returned = done.returned(write)
    if returned:
        answer["Item"] = returned
    return answer


def _key_of(table: Table, statement: partiql.Select, otherwise: str) -> tuple[Item, Any]:
    """The one item that a SELECT reads by its whole key, and what else must hold of it."""
    if statement.index is not None:
        raise validation(otherwise)
    read = partiql.plan_read(statement, _keys(table, None))
    if len(read.branches) != 1 or (table.range and read.branches[0].key.operator != "="):
        raise validation(otherwise)
    branch = read.branches[0]
    key: dict[str, Mapping[str, Any]] = {table.hash: branch.key.hash_value}
    if table.range and branch.key.low is not None:
        key[table.range] = branch.key.low
    found: Item = checked(key)  # type: ignore[arg-type]
    check_key(table, found)
    return found, branch.filter


def _got(reader: Reader, table: Table, key: Item) -> tuple[Item | None, int]:
    raw = reader.get(table.key(key))
    return unpack(raw) if raw is not None else (None, 0)


def _shown(statement: partiql.Select, condition: Any, item: Item | None) -> Any:
    if item is None or (condition is not None and not condition.holds(item)):
        return None
    return item if statement.columns is None else partiql.Columns(statement.columns).of(item)


# --- a transaction of statements


async def execute_transaction(tables: Tables, request: Request) -> Request:
    statements = []
    for entry in request["TransactStatements"]:
        statements.append((parsed(entry), entry))
    reads = [isinstance(statement, partiql.Select) and not statement.exists for statement, _ in statements]
    if any(reads) and not all(reads):
        raise validation("Transaction cannot include both read and write operations")
    if all(reads):
        return _read_all(tables, request, [statement for statement, _ in statements])  # type: ignore[misc]
    writes = [_transacted(tables, statement, entry) for statement, entry in statements]
    answer = await run_writes(tables, request, writes)
    answer["Responses"] = []
    return answer


def _transacted(tables: Tables, statement: partiql.Statement, entry: Request) -> Write:
    if not isinstance(statement, partiql.Select):
        return _write_of(tables, statement, entry)
    table = tables.table(table_name(statement.table))
    key, condition = _key_of(table, statement, "EXISTS must specify the primary key in the where clause")
    on_failure = entry.get("ReturnValuesOnConditionCheckFailure") or "NONE"
    return Write("check", table.name, key, condition=_There(condition), on_failure=on_failure)


def _read_all(tables: Tables, request: Request, statements: list[partiql.Select]) -> Request:
    used: dict[str, Capacity] = {}

    def read(reader: Reader) -> list[Request]:
        responses: list[Request] = []
        reasons: list[Request] = []
        for statement in statements:
            table = tables.demand(reader, table_name(statement.table))
            try:
                otherwise = "Select statements within ExecuteTransaction must specify the primary key in the where clause."
                key, condition = _key_of(table, statement, otherwise)
            except ServiceError as error:
                reasons.append({"Code": "ValidationError", "Message": error.message})
                continue
            reasons.append({"Code": "None"})
            item, size = _got(reader, table, key)
            used.setdefault(table.name, Capacity()).table += read_units(size, True)
            found = _shown(statement, condition, item)
            responses.append({} if found is None else {"Item": found})
        if any(reason["Code"] != "None" for reason in reasons):
            raise cancelled(reasons)
        return responses

    answer: Request = {"Responses": tables.store.read(read)}
    wanted = request.get("ReturnConsumedCapacity")
    if wanted in ("TOTAL", "INDEXES"):
        answer["ConsumedCapacity"] = [capacity.times(2.0).shown(wanted, name, "Read") for name, capacity in used.items()]
    for name, capacity in used.items():
        tables.account(name, capacity.times(2.0), wrote=False)
    return answer
