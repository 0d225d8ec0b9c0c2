"""Batches and transactions."""

from __future__ import annotations

import pytest

from martlet.errors import ServiceError


def put(name, **more):
    return {"Put": {"TableName": "orders", "Item": {"p": {"S": name}}, **more}}


async def test_a_batch_is_written_and_read(create, call, refused):
    await create("orders", gsi={"by_g": "g:S"})
    entries = [{"PutRequest": {"Item": {"p": {"S": str(n)}, "g": {"S": "x"}}}} for n in range(24)]
    entries.append({"DeleteRequest": {"Key": {"p": {"S": "none"}}}})
    done = await call("BatchWriteItem", RequestItems={"orders": entries}, ReturnConsumedCapacity="INDEXES")
    assert done["UnprocessedItems"] == {}
    assert done["ConsumedCapacity"][0]["CapacityUnits"] == 49.0
    assert done["ConsumedCapacity"][0]["GlobalSecondaryIndexes"] == {"by_g": {"CapacityUnits": 24.0}}
    keys = [{"p": {"S": str(n)}} for n in (3, 1, 99)]
    found = await call("BatchGetItem", RequestItems={"orders": {"Keys": keys, "ProjectionExpression": "p"}})
    assert found == {"Responses": {"orders": [{"p": {"S": "3"}}, {"p": {"S": "1"}}]}, "UnprocessedKeys": {}}
    error = await refused("BatchWriteItem", RequestItems={"orders": [entries[0], entries[0]]})
    assert error.message == "Provided list of item keys contains duplicates"
    error = await refused("BatchWriteItem", RequestItems={"orders": [*entries, entries[0]]})
    assert error.message == "Too many items requested for the BatchWriteItem call"
    error = await refused("BatchGetItem", RequestItems={"orders": {"Keys": [keys[0], keys[0]]}})
    assert error.message == "Provided list of item keys contains duplicates"


async def test_a_batch_get_leaves_keys_for_which_there_is_no_room(create, call):
    await create("orders")
    for number in range(50):
        await call("PutItem", TableName="orders", Item={"p": {"S": str(number)}, "v": {"S": "x" * 400_000}})
    keys = [{"p": {"S": str(number)}} for number in range(50)]
    seen = 0
    while keys:
        page = await call("BatchGetItem", RequestItems={"orders": {"Keys": keys, "ConsistentRead": True}})
        seen += len(page["Responses"]["orders"])
        left = page["UnprocessedKeys"].get("orders", {"Keys": [], "ConsistentRead": True})
        assert left["ConsistentRead"] is True
        keys = left["Keys"]
    assert seen == 50


async def test_a_transaction_is_all_or_nothing_and_says_why(create, call, refused):
    await create("orders")
    await call("PutItem", TableName="orders", Item={"p": {"S": "b"}, "n": {"N": "1"}})
    error = await refused(
        "TransactWriteItems",
        TransactItems=[
            put("a"),
            put("b", ConditionExpression="attribute_not_exists(p)", ReturnValuesOnConditionCheckFailure="ALL_OLD"),
            {"Delete": {"TableName": "orders", "Key": {"p": {"S": "c"}}}},
        ],
    )
    assert (error.name, error.message) == (
        "TransactionCanceledException",
        "Transaction cancelled, please refer cancellation reasons for specific reasons [None, ConditionalCheckFailed, None]",
    )
    reasons = error.members["CancellationReasons"]
    assert reasons[0] == {"Code": "None"}
    assert reasons[1] == {
        "Code": "ConditionalCheckFailed",
        "Message": "The conditional request failed",
        "Item": {"p": {"S": "b"}, "n": {"N": "1"}},
    }
    assert (await call("Scan", TableName="orders"))["Count"] == 1
    error = await refused("TransactWriteItems", TransactItems=[put("a"), put("a")])
    assert error.message == "Transaction request cannot include multiple operations on one item"
    done = await call("TransactWriteItems", TransactItems=[put("a"), put("c")], ReturnConsumedCapacity="INDEXES")
    assert done["ConsumedCapacity"] == [
        {
            "TableName": "orders",
            "CapacityUnits": 4.0,
            "WriteCapacityUnits": 4.0,
            "Table": {"CapacityUnits": 4.0, "WriteCapacityUnits": 4.0},
        }
    ]
    gets = [{"Get": {"TableName": "orders", "Key": {"p": {"S": name}}}} for name in ("a", "zzz")]
    found = await call("TransactGetItems", TransactItems=gets, ReturnConsumedCapacity="TOTAL")
    assert found["Responses"] == [{"Item": {"p": {"S": "a"}}}, {}]
    assert found["ConsumedCapacity"][0]["ReadCapacityUnits"] == 4.0


async def test_a_token_makes_a_repeated_transaction_do_nothing_for_ten_minutes(tables, clock, create, call, refused):
    await create("orders")
    add = {
        "Update": {
            "TableName": "orders",
            "Key": {"p": {"S": "a"}},
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
    }

    async def count():
        return (await call("GetItem", TableName="orders", Key={"p": {"S": "a"}}))["Item"]["n"]["N"]

    for _ in range(3):
        await call("TransactWriteItems", TransactItems=[add], ClientRequestToken="t" * 36)
    assert await count() == "1"
    error = await refused("TransactWriteItems", TransactItems=[put("b")], ClientRequestToken="t" * 36)
    assert error.name == "IdempotentParameterMismatchException"
    clock.advance(601)
    await call("TransactWriteItems", TransactItems=[add], ClientRequestToken="t" * 36)
    assert await count() == "2"
    clock.advance(601)
    await tables.housekeeping.run_due()
    assert not tables.store.read(lambda reader: reader.scan(b"Yk", b"Yl", limit=1) + reader.scan(b"Yu", b"Yv", limit=1))


async def test_each_action_of_a_transaction_and_each_table_of_a_batch_is_allowed_by_itself(create, call):
    await create("orders")
    for operation, request in (
        ("TransactWriteItems", {"TransactItems": [put("a")]}),
        ("BatchWriteItem", {"RequestItems": {"orders": [{"PutRequest": {"Item": {"p": {"S": "a"}}}}]}}),
        ("BatchGetItem", {"RequestItems": {"orders": {"Keys": [{"p": {"S": "a"}}]}}}),
        ("TransactGetItems", {"TransactItems": [{"Get": {"TableName": "orders", "Key": {"p": {"S": "a"}}}}]}),
    ):
        with pytest.raises(ServiceError) as raised:
            await call(operation, principal="stranger", **request)
        assert raised.value.name == "AccessDeniedException"
        assert "arn:aws:dynamodb:us-east-1:000000000000:table/orders" in raised.value.message
    assert (await call("Scan", TableName="orders"))["Count"] == 0
