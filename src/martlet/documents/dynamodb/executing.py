"""ExecuteStatement, BatchExecuteStatement and ExecuteTransaction: PartiQL's statements as reads and writes of items."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb import partiql
from martlet.documents.dynamodb.capacity import Capacity
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.descriptions import table_arn
from martlet.documents.dynamodb.expressions import KeyCondition
from martlet.documents.dynamodb.failures import invalid, validation
from martlet.documents.dynamodb.items import check_size
from martlet.documents.dynamodb.partiql import Columns, Delete, Insert, Keys, Read, Select, Statement, Update
from martlet.documents.dynamodb.reading import (
    PAGE_BYTES,
    Reading,
    bounds,
    check_start,
    last_key,
    read_page,
    start_position,
)
from martlet.documents.dynamodb.requests import paths_check, table_name
from martlet.documents.dynamodb.tables import Index, Item, Table
from martlet.documents.dynamodb.transactions import Get, cancelled, run_gets, run_writes
from martlet.documents.dynamodb.updates import ExpressionUpdate
from martlet.documents.dynamodb.writing import Condition, Done, Write
from martlet.errors import ServiceError

__all__ = ["Statements"]

Request = dict[str, Any]
Allow = Callable[[str, str], None]
"""`allow(action, resource)` raises when the caller may not."""

_ACTIONS: Final = {Select: "PartiQLSelect", Insert: "PartiQLInsert", Update: "PartiQLUpdate", Delete: "PartiQLDelete"}
_CODES: Final = {
    "ValidationException": "ValidationError",
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "DuplicateItemException": "DuplicateItem",
    "ResourceNotFoundException": "ResourceNotFound",
    "ProvisionedThroughputExceededException": "ProvisionedThroughputExceeded",
    "AccessDeniedException": "AccessDenied",
}
_ENCODE: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_NOT_KEYED: Final = "Select statements within {} must specify the primary key in the where clause."
_NO_MATCH: Final = "The provided key element does not match the schema"


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a SELECT goes on: which of its branches, after which key, of which statement."""

    asked: bytes
    branch: int
    key: dict[str, dict[str, Any]] | None


_DECODE: Final = msgspec.msgpack.Decoder(_Place).decode


class _Absent:
    """INSERT's condition."""

    def holds(self, item: Item) -> bool:
        if item:
            raise ServiceError("DuplicateItemException", "Duplicate primary key exists in table")
        return True


class _Present:
    """UPDATE's condition: the item is there, and the rest of the WHERE holds."""

    def __init__(self, rest: Condition | None) -> None:
        self._rest = rest

    def holds(self, item: Item) -> bool:
        return bool(item) and (self._rest is None or self._rest.holds(item))


class _IfPresent(_Present):
    """DELETE's condition: an item that is not there is no failure."""

    def holds(self, item: Item) -> bool:
        return not item or super().holds(item)


class _View:
    """A filter that sees of an item what its index has of it."""

    def __init__(self, filter: Condition, names: frozenset[str]) -> None:
        self._filter = filter
        self._names = names

    def holds(self, item: Item) -> bool:
        return self._filter.holds({name: item[name] for name in self._names if name in item})


class Statements:
    """The three operations over the tables. `allow` is asked for each statement's table or index."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    async def execute(self, allow: Allow, request: Request) -> Request:
        """ExecuteStatement."""
        statement = _parsed(request)
        self._allow(allow, statement)
        if isinstance(statement, Select):
            if statement.exists:
                raise validation("EXISTS can only be used in ExecuteTransaction write requests.")
            return await self._select(statement, request)
        write = self._write(statement, request)
        done = await self._done(write)
        item = done.returned(write)
        answer: Request = {"Items": [item] if item else []}
        if request.get("ReturnConsumedCapacity"):
            answer["ConsumedCapacity"] = done.capacity.shown(request["ReturnConsumedCapacity"], write.table)
        return answer

    async def batch(self, allow: Allow, request: Request) -> Request:
        """BatchExecuteStatement: each statement has an answer or an error of its own."""
        entries = request["Statements"]
        kinds = {_reads(entry["Statement"]) for entry in entries}
        if len(kinds) > 1:
            raise validation("BatchExecuteStatement API does not support both read and write operations in the same request.")
        used: dict[str, Capacity] = {}
        answer: Request = {"Responses": [await self._entry(allow, entry, used) for entry in entries]}
        wanted = request.get("ReturnConsumedCapacity")
        if wanted in ("TOTAL", "INDEXES"):
            answer["ConsumedCapacity"] = [capacity.shown(wanted, name) for name, capacity in used.items()]
        return answer

    async def transaction(self, allow: Allow, request: Request) -> Request:
        """ExecuteTransaction: all of the statements or none."""
        entries = request["TransactStatements"]
        parameters = [partiql.checked_parameters(entry.get("Parameters")) for entry in entries]
        statements = [
            _numbered(number, partiql.parse, entry["Statement"], given)
            for number, (entry, given) in enumerate(zip(entries, parameters, strict=True))
        ]
        for statement in statements:
            self._allow(allow, statement)
        kinds = {isinstance(statement, Select) and not statement.exists for statement in statements}
        if len(kinds) > 1:
            raise validation("ExecuteTransaction API does not support both read and write operations in the same request.")
        reasons: list[Request] = []
        planned: list[Any] = []
        for number, (statement, entry) in enumerate(zip(statements, entries, strict=True)):
            try:
                planned.append(_numbered(number, self._transacted, statement, entry))
                reasons.append({"Code": "None"})
            except _Refused as refused:
                reasons.append({"Code": refused.code, "Message": refused.args[0]})
        if any(reason["Code"] != "None" for reason in reasons):
            raise cancelled(reasons)
        if kinds == {True}:
            return await run_gets(self.tables, request, planned)
        return await run_writes(self.tables, request, planned)

    # one statement

    def _allow(self, allow: Allow, statement: Statement) -> None:
        name = table_name(statement.table)
        arn = table_arn(self.tables.region, name)
        index = statement.index if isinstance(statement, Select) else None
        allow(f"dynamodb:{_ACTIONS[type(statement)]}", f"{arn}/index/{index}" if index else arn)

    async def _entry(self, allow: Allow, entry: Request, used: dict[str, Capacity]) -> Request:
        answer: Request = {}
        try:
            statement = _parsed(entry)
            self._allow(allow, statement)
            name = answer["TableName"] = table_name(statement.table)
            if isinstance(statement, Select):
                found = await self._get(statement, entry, used.setdefault(name, Capacity()))
            else:
                write = self._write(statement, entry)
                done = await self._done(write)
                used.setdefault(name, Capacity()).add(done.capacity)
                found = done.returned(write)
        except ServiceError as error:
            failed: Request = {"Code": _CODES.get(error.name, error.name), "Message": error.message}
            if error.members.get("Item"):
                failed["Item"] = error.members["Item"]
            return {**answer, "Error": failed}
        return {**answer, "Item": found} if found else answer

    def _write(self, statement: Statement, request: Request) -> Write:
        """An INSERT, UPDATE or DELETE as a write."""
        name = table_name(statement.table)
        if isinstance(statement, Insert):
            item = dict(statement.item)
            write = Write("put", name, item, _Absent(), size=check_size(item))  # type: ignore[arg-type]
            self.tables.table(name)
            return write
        assert isinstance(statement, Update | Delete)
        update = partiql.plan_update(statement) if isinstance(statement, Update) else None
        partiql.check_where(statement)
        keyed = partiql.plan_key(statement, _keys(self.tables.table(name)))
        steps = list(keyed.condition.paths()) if keyed.condition is not None else []
        if update is None:
            write = Write("delete", name, keyed.key, _IfPresent(keyed.condition))
        else:
            write = Write("update", name, keyed.key, _Present(keyed.condition), update=ExpressionUpdate(update))
            steps += update.paths() + update.reads()
        write.check_paths = paths_check(steps)
        write.returns = statement.returning or "NONE"
        write.on_failure = request.get("ReturnValuesOnConditionCheckFailure") or "NONE"
        return write

    async def _done(self, write: Write) -> Done:
        return await self.tables.write(write)

    async def _get(self, statement: Select, request: Request, used: Capacity) -> Item | None:
        """A SELECT of a batch: one item by its key."""
        partiql.check_where(statement)
        table = self.tables.table(table_name(statement.table))
        read = partiql.plan_read(statement, _keys(table))
        if statement.exists or statement.index is not None or _whole_key(read, table) is None:
            raise validation(_NOT_KEYED.format("BatchExecuteStatement"))
        reading = self._reading(statement, read, table, None, request)
        low, high = bounds(table, None, read.branches[0].key)
        page = await read_page(self.tables.store, msgspec.structs.replace(reading, low=low, high=high))
        capacity = page.capacity(reading)
        used.add(capacity)
        self.tables.account(table.name, capacity, wrote=False)
        return page.items[0] if page.items else None

    # a transaction

    def _transacted(self, statement: Statement, entry: Request) -> Get | Write:
        try:
            table = self.tables.table(table_name(statement.table))
        except ServiceError as error:
            raise _Refused("ResourceNotFound", error.message) from None
        if isinstance(statement, Select):
            return self._transacted_read(statement, table, entry)
        if isinstance(statement, Update | Delete) and statement.returning:
            raise validation("RETURNING clause is not supported in ExecuteTransaction.")
        if isinstance(statement, Insert):
            return self._write(statement, entry)
        partiql.check_where(statement)
        try:
            partiql.plan_key(statement, _keys(table))
        except ServiceError as error:
            text = error.message if error.message.startswith("Multiple") else _NO_MATCH
            raise _Refused("ValidationError", text) from None
        return self._write(statement, entry)

    def _transacted_read(self, statement: Select, table: Table, entry: Request) -> Get | Write:
        if statement.index is not None:
            raise validation("Reads on indices are not supported within transactions.")
        partiql.check_where(statement)
        if statement.exists:
            keyed = partiql.plan_exists(statement, _keys(table))
            write = Write("check", table.name, keyed.key, keyed.condition)
            write.on_failure = entry.get("ReturnValuesOnConditionCheckFailure") or "NONE"
            return write
        key = _whole_key(partiql.plan_read(statement, _keys(table), check_types=False), table)
        if key is None:
            raise validation(_NOT_KEYED.format("ExecuteTransaction"))
        return Get(table.name, key, _columns(statement))

    # SELECT

    async def _select(self, statement: Select, request: Request) -> Request:
        partiql.check_where(statement)
        table = self.tables.table(table_name(statement.table))
        index = _index(table, statement.index, request)
        simple = index is None or (len(index.hash) == 1 and len(index.range) < 2)
        read = partiql.plan_read(statement if simple else _unkeyed(statement), _keys(table, index if simple else None))
        self._check_projected(statement, read, index)
        reading = self._reading(statement, read, table, index, request)
        place = _place(request, len(read.branches))
        items, used, last = await self._pages(read, reading, place, request.get("Limit"))
        self.tables.account(table.name, used, wrote=False)
        answer: Request = {"Items": items}
        if last is not None:
            branch, key = last
            answer["NextToken"] = base64.b64encode(_ENCODE(_Place(_asked(request), branch, key))).decode()
            if key is not None:
                answer["LastEvaluatedKey"] = key
        if request.get("ReturnConsumedCapacity"):
            answer["ConsumedCapacity"] = used.shown(request["ReturnConsumedCapacity"], table.name)
        return answer

    def _reading(self, statement: Select, read: Read, table: Table, index: Index | None, request: Request) -> Reading:
        prefix = index.prefix if index is not None else table.prefix
        reading = Reading(table, index, prefix, prefix + b"\xff" * 9, read.reverse)
        columns = _columns(statement)
        check = paths_check(columns.paths() if columns is not None else ())
        if check is not None:
            check(table)
        reading.projection = columns  # type: ignore[assignment]
        reading.consistent = bool(request.get("ConsistentRead"))
        if index is not None and columns is not None and not index.everything:
            reading.fetches = not index.projected.issuperset(columns.attributes())
        reading.filter = _filter(read.filter, index, reading.fetches)
        return reading

    def _check_projected(self, statement: Select, read: Read, index: Index | None) -> None:
        """A read by key filters only on what its index has; a global one can show nothing else either."""
        if index is None or index.everything:
            return
        absent = partiql.missing_attributes(read, index.projected)
        if absent:
            names = ", ".join(absent)
            raise invalid(f"Secondary index {index.name} does not project one or more filter attributes: [{names}]")
        columns = _columns(statement)
        if index.is_global and columns is not None:
            absent = [name for name in columns.attributes() if name not in index.projected]
            if absent:
                raise invalid(f"Global secondary index {index.name} does not project [{', '.join(absent)}]")

    async def _pages(
        self, read: Read, reading: Reading, place: _Place, limit: int | None
    ) -> tuple[list[Item], Capacity, tuple[int, Item | None] | None]:
        """(items, what it used, where to go on): branch after branch, up to `limit` items looked at or 1 MB."""
        items: list[Item] = []
        used = Capacity()
        looked_at = size = 0
        parts: list[tuple[KeyCondition | None, Any]] = [(branch.key, branch.filter) for branch in read.branches]
        parts = parts or [(None, read.filter)]
        for number in range(place.branch, len(parts)):
            key, keep = parts[number]
            start = place.key if number == place.branch else None
            part = _part(reading, key, keep, start)
            part.limit = None if limit is None else limit - looked_at
            page = await read_page(self.tables.store, part)
            used.add(page.capacity(part))
            items += page.items
            looked_at += page.looked_at
            size += page.size
            if page.last is not None:
                return items, used, (number, last_key(reading.table, reading.index, page.last))
            if number + 1 < len(parts) and (size >= PAGE_BYTES or looked_at == limit):
                return items, used, (number + 1, None)
        return items, used, None


class _Refused(Exception):
    """Why one statement cancels its transaction."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _parsed(request: Request) -> Statement:
    return partiql.parse(request["Statement"], partiql.checked_parameters(request.get("Parameters")))


def _numbered(number: int, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ServiceError as error:
        if error.name != "ValidationException":
            raise
        raise validation(f"Validation failed in TransactStatements[{number}]: {error.message}") from None


def _reads(statement: str) -> bool:
    return statement.lstrip()[:6].upper() == "SELECT"


def _keys(table: Table, index: Index | None = None) -> Keys:
    if index is None:
        return Keys(table.hash, table.range or None, table.types)
    return Keys(index.hash[0], index.range[0] if index.range else None, table.types)


def _unkeyed(statement: Select) -> Select:
    """A SELECT on an index whose keys are of several attributes: read as a whole."""
    if statement.order:
        raise validation("ORDER BY on an index with a key of several attributes is not supported by Martlet")
    return statement


def _index(table: Table, name: str | None, request: Request) -> Index | None:
    if name is None:
        return None
    index = table.by_name.get(name)
    if index is None:
        raise validation("The table does not have the specified index")
    if index.is_global and request.get("ConsistentRead"):
        raise validation("Strongly consistent read is not supported on Global Secondary Indexes")
    if not index.active:
        raise validation(f"Cannot read from backfilling global secondary index: {name}")
    return index


def _columns(statement: Select) -> Columns | None:
    return Columns(statement.columns) if statement.columns is not None else None


def _filter(keep: Condition | None, index: Index | None, fetches: bool) -> Condition | None:
    return _View(keep, index.projected) if keep is not None and index is not None and fetches else keep


def _whole_key(read: Read, table: Table) -> Item | None:
    """The key of the one item that a read by nothing but its key means."""
    if not read.exact:
        return None
    wanted = read.branches[0].key
    if not table.range:
        return {table.hash: wanted.hash_value}  # type: ignore[dict-item]
    if wanted.operator != "=" or wanted.low is None:
        return None
    return {table.hash: wanted.hash_value, table.range: wanted.low}  # type: ignore[dict-item]


def _part(reading: Reading, key: KeyCondition | None, keep: Condition | None, start: Item | None) -> Reading:
    """One branch of a read, from where it goes on."""
    table, index = reading.table, reading.index
    part: Reading = msgspec.structs.replace(reading, filter=_filter(keep, index, reading.fetches))
    if key is not None:
        part.low, part.high = bounds(table, index, key)
    if start is not None:
        check_start(table, index, start, scan=key is None)
        at = start_position(table, index, start)
        if not part.low <= at < part.high:
            raise validation("The provided starting key is invalid")
        if part.reverse:
            part.high = at
        else:
            part.low = at + b"\x00"
    return part


def _asked(request: Request) -> bytes:
    return hashlib.sha256(_ENCODE((request["Statement"], request.get("Parameters")))).digest()[:16]


def _place(request: Request, branches: int) -> _Place:
    token = request.get("NextToken")
    if token is None:
        return _Place(b"", 0, None)
    try:
        place = _DECODE(base64.b64decode(token, validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise validation("Invalid NextToken") from None
    if place.asked != _asked(request):
        raise validation("The provided starting key is invalid")
    if not 0 <= place.branch < max(branches, 1):
        raise validation("Invalid NextToken")
    return place
