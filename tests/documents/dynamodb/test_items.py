"""Single items: writes, conditions, what is returned, what it costs."""

from __future__ import annotations

from typing import Any

import pytest


async def test_an_item_comes_back_as_it_was_put_with_canonical_numbers(create, call):
    await create("orders", "p:S", "s:N")
    item = {"p": {"S": "a"}, "s": {"N": "1.0"}, "b": {"B": b"\x00\xff"}, "m": {"M": {"n": {"N": "1E2"}}}, "l": {"L": []}}
    await call("PutItem", TableName="orders", Item=item)
    found = await call("GetItem", TableName="orders", Key={"p": {"S": "a"}, "s": {"N": "01"}})
    assert found["Item"] == {**item, "s": {"N": "1"}, "m": {"M": {"n": {"N": "100"}}}}
    assert "Item" not in await call("GetItem", TableName="orders", Key={"p": {"S": "a"}, "s": {"N": "2"}})


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"s": {"N": "1"}}, "One or more parameter values were invalid: Missing the key p in the item"),
        (
            {"p": {"N": "1"}, "s": {"N": "1"}},
            "One or more parameter values were invalid: Type mismatch for key p expected: S actual: N",
        ),
        (
            {"p": {"S": ""}, "s": {"N": "1"}},
            (
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string "
                "value. Key: p"
            ),
        ),
        (
            {"p": {"S": "x" * 2049}, "s": {"N": "1"}},
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes",
        ),
        (
            {"p": {"S": "x"}, "s": {"N": "1"}, "e": {"SS": []}},
            "1 validation error detected: One or more parameter values were invalid: An string set  may not be empty",
        ),
        ({"p": {"S": "x"}, "s": {"N": "1"}, "e": {"S": "x" * 409_600}}, "Item size has exceeded the maximum allowed size"),
        (
            {"p": {"S": "x"}, "s": {"N": "1"}, "g": {"S": ""}},
            (
                "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The "
                "AttributeValue for a key attribute cannot contain an empty string value. IndexName: by_g, IndexKey: g"
            ),
        ),
        (
            {"p": {"S": "x"}, "s": {"N": "1"}, "g": {"N": "1"}},
            "One or more parameter values were invalid: Type mismatch for Index Key g Expected: S Actual: N IndexName: by_g",
        ),
    ],
)
async def test_what_cannot_be_put_is_refused_in_the_service_s_words(create, call, refused, item, text):
    await create("orders", "p:S", "s:N", gsi={"by_g": "g:S"})
    error = await refused("PutItem", TableName="orders", Item=item)
    assert (error.name, error.message) == ("ValidationException", text)
    assert (await call("Scan", TableName="orders"))["Count"] == 0


async def test_an_item_of_just_400_kb_fits_and_one_byte_more_does_not(create, call, refused):
    await create("orders")
    item = {"p": {"S": "a"}, "v": {"S": "x" * (409_600 - 3)}}
    await call("PutItem", TableName="orders", Item=item)
    error = await refused(
        "UpdateItem",
        TableName="orders",
        Key={"p": {"S": "a"}},
        UpdateExpression="SET w = :w",
        ExpressionAttributeValues={":w": {"S": ""}},
    )
    assert error.message == "Item size to update has exceeded the maximum allowed size"


async def test_a_condition_that_fails_changes_nothing_and_can_show_the_item(create, call, refused):
    await create("orders")
    await call("PutItem", TableName="orders", Item={"p": {"S": "a"}, "n": {"N": "1"}})
    error = await refused(
        "PutItem",
        TableName="orders",
        Item={"p": {"S": "a"}},
        ConditionExpression="attribute_not_exists(p)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    assert (error.name, error.message) == ("ConditionalCheckFailedException", "The conditional request failed")
    assert error.members["Item"] == {"p": {"S": "a"}, "n": {"N": "1"}}
    error = await refused(
        "DeleteItem",
        TableName="orders",
        Key={"p": {"S": "a"}},
        Expected={"n": {"Value": {"N": "2"}}},
    )
    assert error.name == "ConditionalCheckFailedException"
    assert (await call("GetItem", TableName="orders", Key={"p": {"S": "a"}}))["Item"]["n"] == {"N": "1"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("NONE", None),
        ("ALL_OLD", {"p": {"S": "a"}, "n": {"N": "1"}, "m": {"M": {"x": {"N": "1"}, "y": {"N": "2"}}}}),
        ("UPDATED_OLD", {"n": {"N": "1"}, "m": {"M": {"x": {"N": "1"}}}}),
        (
            "ALL_NEW",
            {"p": {"S": "a"}, "n": {"N": "2"}, "m": {"M": {"x": {"N": "9"}, "y": {"N": "2"}}}, "new": {"S": "z"}},
        ),
        ("UPDATED_NEW", {"n": {"N": "2"}, "m": {"M": {"x": {"N": "9"}}}, "new": {"S": "z"}}),
    ],
)
async def test_each_kind_of_return_value(create, call, wanted, expected):
    await create("orders")
    item = {"p": {"S": "a"}, "n": {"N": "1"}, "m": {"M": {"x": {"N": "1"}, "y": {"N": "2"}}}}
    await call("PutItem", TableName="orders", Item=item)
    done = await call(
        "UpdateItem",
        TableName="orders",
        Key={"p": {"S": "a"}},
        UpdateExpression="ADD n :one SET m.x = :nine, #n = :z",
        ExpressionAttributeNames={"#n": "new"},
        ExpressionAttributeValues={":one": {"N": "1"}, ":nine": {"N": "9"}, ":z": {"S": "z"}},
        ReturnValues=wanted,
    )
    assert done.get("Attributes") == expected


async def test_an_update_makes_an_item_unless_it_only_takes_away(create, call):
    await create("orders")
    for name, update, there in (
        ("a", {}, True),
        ("b", {"UpdateExpression": "REMOVE x"}, False),
        ("c", {"UpdateExpression": "REMOVE x.y"}, False),
        ("d", {"AttributeUpdates": {"x": {"Action": "DELETE"}}}, False),
        ("e", {"AttributeUpdates": {"x": {"Action": "ADD", "Value": {"N": "3"}}}}, True),
    ):
        key = {"p": {"S": name}}
        await call("UpdateItem", TableName="orders", Key=key, **update)
        assert ("Item" in await call("GetItem", TableName="orders", Key=key)) is there, name


async def test_a_key_is_never_updated(create, refused):
    await create("orders")
    error = await refused(
        "UpdateItem",
        TableName="orders",
        Key={"p": {"S": "a"}},
        UpdateExpression="SET p = :p",
        ExpressionAttributeValues={":p": {"S": "b"}},
    )
    assert error.message == (
        "One or more parameter values were invalid: Cannot update attribute p. This attribute is part of the key"
    )


async def test_capacity_counts_the_larger_of_before_and_after_and_each_index_that_changes(create, call):
    await create("orders", gsi={"by_g": "g:S", "keys": "g:S | KEYS_ONLY"})

    async def put(**item: Any) -> dict[str, Any]:
        done = await call("PutItem", TableName="orders", Item={"p": {"S": "a"}, **item}, ReturnConsumedCapacity="INDEXES")
        return done["ConsumedCapacity"]

    assert await put(v={"S": "x" * 1500}) == {
        "TableName": "orders",
        "CapacityUnits": 2.0,
        "Table": {"CapacityUnits": 2.0},
    }
    used = await put(g={"S": "1"})
    assert used["Table"] == {"CapacityUnits": 2.0}
    assert used["GlobalSecondaryIndexes"] == {"by_g": {"CapacityUnits": 1.0}, "keys": {"CapacityUnits": 1.0}}
    used = await put(g={"S": "1"}, v={"S": "x"})  # the keys did not change
    assert used["GlobalSecondaryIndexes"] == {"by_g": {"CapacityUnits": 1.0}}
    used = await put(g={"S": "2"}, v={"S": "x"})  # an entry goes and one comes
    assert used["GlobalSecondaryIndexes"] == {"by_g": {"CapacityUnits": 2.0}, "keys": {"CapacityUnits": 2.0}}
    assert used["CapacityUnits"] == 5.0
    found = await call("GetItem", TableName="orders", Key={"p": {"S": "a"}}, ReturnConsumedCapacity="TOTAL")
    assert found["ConsumedCapacity"] == {"TableName": "orders", "CapacityUnits": 0.5}
    found = await call(
        "GetItem", TableName="orders", Key={"p": {"S": "b"}}, ReturnConsumedCapacity="INDEXES", ConsistentRead=True
    )
    assert found["ConsumedCapacity"]["Table"] == {"CapacityUnits": 1.0}
