"""The services "dynamodb" and "dynamodbstreams": their operations, from request to answer as dicts in the API's own members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from martlet.documents.dynamodb import expressions, queries
from martlet.documents.dynamodb.administration import Administration
from martlet.documents.dynamodb.batches import batch_get, batch_write, collection_metrics
from martlet.documents.dynamodb.capacity import Capacity, read_units
from martlet.documents.dynamodb.constraints import check_constraints
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.descriptions import stream_arn, table_arn
from martlet.documents.dynamodb.executing import Statements
from martlet.documents.dynamodb.failures import validation
from martlet.documents.dynamodb.items import check_key, checked
from martlet.documents.dynamodb.reading import Reading, read_page
from martlet.documents.dynamodb.requests import (
    names_of,
    paths_check,
    plan_delete,
    plan_put,
    plan_update,
    projection_of,
    table_name,
)
from martlet.documents.dynamodb.streams import sequence, shard_id
from martlet.documents.dynamodb.tables import StreamRecord, TableRecord, unpack
from martlet.documents.dynamodb.transactions import transact_get, transact_write
from martlet.documents.dynamodb.writing import Write
from martlet.errors import ServiceError
from martlet.store import Reader

__all__ = ["DynamoDb", "DynamoDbStreams"]

Request = dict[str, Any]
Authorize = Callable[..., None]
Permission = tuple[str, str] | tuple[str, str, None, str]
_ASKS_ITSELF: Final = frozenset(
    (
        "BatchGetItem",
        "BatchWriteItem",
        "TransactGetItems",
        "TransactWriteItems",
        "ExecuteStatement",
        "BatchExecuteStatement",
        "ExecuteTransaction",
    )
)
_TRANSACT_ACTIONS: Final = {
    "ConditionCheck": "ConditionCheckItem",
    "Put": "PutItem",
    "Delete": "DeleteItem",
    "Update": "UpdateItem",
    "Get": "GetItem",
}


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Any: ...
    @property
    def endpoint(self) -> str: ...


class DynamoDb(Administration):
    """The service "dynamodb". `authorize(principal, action, resource, context, policy)` is asked for what a request names
    beyond one table."""

    def __init__(self, tables: Tables, authorize: Authorize) -> None:
        super().__init__(tables)
        self._ask = authorize
        self._statements = Statements(tables)

    def _authorize(self, principal: Any, action: str, arn: str) -> None:
        policy = self._policy_of(arn)
        if policy:
            self._ask(principal, action, arn, None, policy)
        else:
            self._ask(principal, action, arn)

    def _policy_of(self, arn: str) -> str:
        """The resource-based policy of the table that an ARN names, or that of which it names a part."""
        name = table_name(arn)
        table = self.tables.store.read(lambda reader: self.tables.catalog.table(reader, name))
        return table.record.policy if table is not None else ""

    def permission(self, operation: str, request: Request) -> Permission | None:
        """What a caller needs: (action, resource), and for a table with a policy of its own that; None where each table is
        asked for by the operation itself."""
        asked = self._permission(operation, request)
        policy = self._policy_of(asked[1]) if asked is not None and ":table/" in asked[1] else ""
        return asked if asked is None or not policy else (*asked, None, policy)

    def _permission(self, operation: str, request: Request) -> tuple[str, str] | None:
        if operation in _ASKS_ITSELF:
            return None
        name = request.get("TableName")
        if operation == "ImportTable":
            name = (request.get("TableCreationParameters") or {}).get("TableName")
        if isinstance(name, str):
            arn = name if name.startswith("arn:") else table_arn(self.region, name)
            index = request.get("IndexName") if operation in ("Query", "Scan") else None
            return f"dynamodb:{operation}", f"{arn}/index/{index}" if index else arn
        return f"dynamodb:{operation}", str(request.get("ResourceArn") or request.get("ImportArn") or "*")

    def precheck(self, operation: str, request: Request) -> None:
        """What the service says before it looks at the rest of a request."""
        check_constraints(operation, request)

    # --- one item

    async def get_item(self, caller: Caller, request: Request) -> Request:
        expressions.check_parameters(request, ("ProjectionExpression",), ("AttributesToGet",))
        key = checked(request["Key"])
        names = names_of(request)
        projection = projection_of(request, names)
        names.check_used()
        check = paths_check(projection.paths()) if projection is not None else None
        name = table_name(request["TableName"])
        tables = self.tables

        def get(reader: Reader) -> bytes | None:
            table = tables.demand(reader, name)
            check_key(table, key)
            if check is not None:
                check(table)
            return reader.get(table.key(key))

        raw = tables.store.read(get)
        answer: Request = {}
        size = 0
        if raw is not None:
            item, size = unpack(raw)
            answer["Item"] = item if projection is None else projection.of(item)
        used = Capacity()
        used.table = read_units(size, request.get("ConsistentRead"))
        tables.account(name, used, wrote=False)
        if request.get("ReturnConsumedCapacity"):
            answer["ConsumedCapacity"] = used.shown(request["ReturnConsumedCapacity"], name)
        return answer

    async def put_item(self, caller: Caller, request: Request) -> Request:
        return await self._write(request, plan_put(request))

    async def delete_item(self, caller: Caller, request: Request) -> Request:
        return await self._write(request, plan_delete(request))

    async def update_item(self, caller: Caller, request: Request) -> Request:
        return await self._write(request, plan_update(request))

    async def _write(self, request: Request, write: Write) -> Request:
        done = await self.tables.write(write)
        answer: Request = {}
        returned = done.returned(write)
        if returned is not None:
            answer["Attributes"] = returned
        if request.get("ReturnConsumedCapacity"):
            answer["ConsumedCapacity"] = done.capacity.shown(request["ReturnConsumedCapacity"], write.table)
        if request.get("ReturnItemCollectionMetrics") == "SIZE":
            answer["ItemCollectionMetrics"] = collection_metrics(self.tables.table(write.table), write.item)
        return answer

    # --- many items

    async def query(self, caller: Caller, request: Request) -> Request:
        asked = queries.plan_query(request)
        return await self._page(request, queries.reading_of_query(self._read_table(request), asked))

    async def scan(self, caller: Caller, request: Request) -> Request:
        asked = queries.plan_scan(request)
        return await self._page(request, queries.reading_of_scan(self._read_table(request), asked))

    def _read_table(self, request: Request) -> Any:
        return self.tables.table(table_name(request["TableName"]))

    async def _page(self, request: Request, reading: Reading) -> Request:
        page = await read_page(self.tables.store, reading)
        self.tables.account(reading.table.name, page.capacity(reading), wrote=False)
        return queries.answer(reading, page, request)

    async def batch_get_item(self, caller: Caller, request: Request) -> Request:
        self._allow_tables(caller, "BatchGetItem", request)
        return await batch_get(self.tables, request)

    async def batch_write_item(self, caller: Caller, request: Request) -> Request:
        self._allow_tables(caller, "BatchWriteItem", request)
        return await batch_write(self.tables, request)

    async def transact_get_items(self, caller: Caller, request: Request) -> Request:
        self._allow_actions(caller, request)
        return await transact_get(self.tables, request)

    async def transact_write_items(self, caller: Caller, request: Request) -> Request:
        self._allow_actions(caller, request)
        return await transact_write(self.tables, request)

    async def execute_statement(self, caller: Caller, request: Request) -> Request:
        return await self._statements.execute(self._allow(caller), request)

    async def batch_execute_statement(self, caller: Caller, request: Request) -> Request:
        return await self._statements.batch(self._allow(caller), request)

    async def execute_transaction(self, caller: Caller, request: Request) -> Request:
        return await self._statements.transaction(self._allow(caller), request)

    def _allow(self, caller: Caller) -> Callable[[str, str], None]:
        return lambda action, resource: self._authorize(caller.principal, action, resource)

    def _allow_tables(self, caller: Caller, operation: str, request: Request) -> None:
        for name in request["RequestItems"]:
            self._authorize(caller.principal, f"dynamodb:{operation}", table_arn(self.region, table_name(name)))

    def _allow_actions(self, caller: Caller, request: Request) -> None:
        for entry in request["TransactItems"]:
            for kind, given in entry.items():
                action = _TRANSACT_ACTIONS.get(kind)
                if action is not None:
                    arn = table_arn(self.region, table_name(given["TableName"]))
                    self._authorize(caller.principal, f"dynamodb:{action}", arn)


class DynamoDbStreams:
    """The service "dynamodbstreams"."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._streams = tables.streams

    def permission(self, operation: str, request: Request) -> tuple[str, str]:
        arn = request.get("StreamArn")
        if operation == "GetRecords":
            arn = str(request.get("ShardIterator") or "").partition("|")[0]
        return f"dynamodb:{operation}", str(arn or "*")

    async def list_streams(self, caller: Caller, request: Request) -> Request:
        _check_limit(request, 100)
        name = table_name(request.get("TableName") or "")
        found, last = self._streams.listed(name, request.get("ExclusiveStartStreamArn") or "", request.get("Limit") or 100)
        return {"Streams": found, "LastEvaluatedStreamArn": last or None}

    async def describe_stream(self, caller: Caller, request: Request) -> Request:
        table, stream = self._streams.find(request["StreamArn"])
        range_: Request = {"StartingSequenceNumber": sequence(self._streams.oldest(stream) + 1)}
        if stream.until:
            range_["EndingSequenceNumber"] = sequence(stream.until)
        id = shard_id(stream, table.number)
        shard = {"ShardId": id, "SequenceNumberRange": range_}
        after = request.get("ExclusiveStartShardId") or ""
        children = request.get("ShardFilter")
        if children is not None:
            if children.get("Type") != "CHILD_SHARDS" or not children.get("ShardId"):
                raise validation("A ShardFilter needs the Type CHILD_SHARDS and a ShardId")
            after = id  # a stream has one shard, and that has no children
        schema = [{"AttributeName": table.hash, "KeyType": "HASH"}]
        if table.range:
            schema.append({"AttributeName": table.range, "KeyType": "RANGE"})
        return {
            "StreamDescription": {
                "StreamArn": stream_arn(self._tables.region, table.name, stream.label),
                "StreamLabel": stream.label,
                "StreamStatus": "DISABLED" if stream.until else "ENABLED",
                "StreamViewType": stream.view,
                "CreationRequestDateTime": stream.created_at_ms / 1000,
                "TableName": table.name,
                "KeySchema": schema,
                "Shards": [shard] if id > after else [],
            }
        }

    async def get_shard_iterator(self, caller: Caller, request: Request) -> Request:
        table, stream = self._streams.find(request["StreamArn"])
        if request["ShardId"] != shard_id(stream, table.number):
            raise ServiceError(
                "ResourceNotFoundException",
                f"Requested resource not found: Shard: {request['ShardId']} in Stream: {request['StreamArn']} not found",
            )
        after = self._start(table, stream, request)
        now_ms = self._tables.clock.now_ms()
        return {"ShardIterator": self._streams.iterator(request["StreamArn"], after, now_ms)}

    def _start(self, table: TableRecord, stream: StreamRecord, request: Request) -> int:
        kind, given = request["ShardIteratorType"], request.get("SequenceNumber")
        if kind in ("TRIM_HORIZON", "LATEST"):
            if given is not None:
                raise validation(f"A SequenceNumber cannot be specified for ShardIteratorType {kind}")
            return self._streams.oldest(stream) if kind == "TRIM_HORIZON" else self._streams.newest(stream)
        if given is None:
            raise validation(f"A SequenceNumber is required for ShardIteratorType {kind}")
        if not given.isdecimal():
            raise validation("Invalid SequenceNumber")
        at = int(given) - int(sequence(0))
        if at < 0 or at > self._tables.store.head + 1:
            raise validation("Invalid SequenceNumber")
        after = at - 1 if kind == "AT_SEQUENCE_NUMBER" else at
        if after < self._streams.oldest(stream):
            if self._streams.oldest(stream) > stream.after:
                text = "The operation attempted to read past the oldest stream record in a shard."
                raise ServiceError("TrimmedDataAccessException", text)
            after = stream.after
        return after

    async def get_records(self, caller: Caller, request: Request) -> Request:
        _check_limit(request, 1_000)
        now_ms = self._tables.clock.now_ms()
        stream, position = self._streams.position(request["ShardIterator"], now_ms)
        found, after = self._streams.records(stream, position, request.get("Limit") or 1_000)
        answer: Request = {"Records": found}
        if after is not None:
            answer["NextShardIterator"] = self._streams.iterator(stream, after, now_ms)
        return answer


def _check_limit(request: Request, most: int) -> None:
    limit = request.get("Limit")
    if limit is not None and limit > most:
        raise validation(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
            f"Member must have value less than or equal to {most}"
        )
