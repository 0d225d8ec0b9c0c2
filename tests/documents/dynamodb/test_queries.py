"""Query and Scan: pages, order, filters, indexes, refusals."""

from __future__ import annotations

import pytest


async def fill(call, table, items):
    for item in items:
        await call("PutItem", TableName=table, Item=item)


async def test_a_page_ends_at_one_megabyte_and_goes_on_after_its_last_key(create, call):
    await create("logs", "p:S", "s:N")
    await fill(call, "logs", [{"p": {"S": "a"}, "s": {"N": str(number)}, "v": {"S": "x" * 300_000}} for number in range(6)])
    request = {"KeyConditionExpression": "p = :p", "ExpressionAttributeValues": {":p": {"S": "a"}}}
    page = await call("Query", TableName="logs", ReturnConsumedCapacity="TOTAL", **request)
    assert [item["s"]["N"] for item in page["Items"]] == ["0", "1", "2", "3"]
    assert page["LastEvaluatedKey"] == {"p": {"S": "a"}, "s": {"N": "3"}}
    assert page["ConsumedCapacity"]["CapacityUnits"] == 146.5  # 293 started units of 4 KB, half each
    rest = await call("Query", TableName="logs", ExclusiveStartKey=page["LastEvaluatedKey"], **request)
    assert [item["s"]["N"] for item in rest["Items"]] == ["4", "5"]
    assert "LastEvaluatedKey" not in rest


async def test_a_limit_counts_what_is_looked_at_and_not_what_the_filter_keeps(create, call):
    await create("logs", "p:S", "s:N")
    await fill(call, "logs", [{"p": {"S": "a"}, "s": {"N": str(n)}, "odd": {"BOOL": n % 2 == 1}} for n in range(5)])
    page = await call(
        "Query",
        TableName="logs",
        KeyConditionExpression="p = :p",
        FilterExpression="odd = :t",
        ExpressionAttributeValues={":p": {"S": "a"}, ":t": {"BOOL": True}},
        Limit=3,
    )
    assert (page["Count"], page["ScannedCount"], page["LastEvaluatedKey"]["s"]) == (1, 3, {"N": "2"})
    page = await call("Scan", TableName="logs", Select="COUNT", ScanFilter={"odd": {"ComparisonOperator": "NOT_NULL"}})
    assert page == {"Count": 5, "ScannedCount": 5}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("N", ["-1E+125", "-10", "-9.99", "-1", "-0.5", "-1E-130", "0", "1E-130", "0.5", "1", "1.5", "10", "1E+125"]),
        ("S", ["\x00", "\x00\x00", "\x01", "a", "a\x00", "aa", "b", "é", "\uffff", "\U0001f600"]),
        ("B", [b"\x00", b"\x00\x00", b"\x00\x01", b"\x01", b"\xfe", b"\xff", b"\xff\x00", b"\xff\xff"]),
    ],
)
async def test_keys_of_each_type_sort_as_dynamodb_sorts_them_in_tables_and_indexes(create, call, kind, values):
    await create("sorted", "p:S", f"s:{kind}", gsi={"by_s": f"g:S s:{kind}"})
    await fill(call, "sorted", [{"p": {"S": "a"}, "s": {kind: value}, "g": {"S": "x"}} for value in reversed(values)])
    for index, name in (({}, "p"), ({"IndexName": "by_s"}, "g")):
        request = {
            "TableName": "sorted",
            "KeyConditionExpression": f"{name} = :p",
            "ExpressionAttributeValues": {":p": {"S": "a" if name == "p" else "x"}},
            **index,
        }
        found = [item["n"] for item in ({"n": item["s"][kind]} for item in (await call("Query", **request))["Items"])]
        down = [item["s"][kind] for item in (await call("Query", ScanIndexForward=False, **request))["Items"]]
        assert down == found[::-1]
        assert len(found) == len(values)
        if kind == "N":
            assert [float(number) for number in found] == [float(number) for number in values]
        else:
            assert found == values


async def test_segments_of_a_scan_are_disjoint_and_together_everything(create, call):
    await create("many")
    await fill(call, "many", [{"p": {"S": str(number)}} for number in range(200)])
    whole = (await call("Scan", TableName="many"))["Items"]
    for total in (2, 3, 7, 4096, 1_000_000):
        found = []
        segments = range(total) if total < 10 else {0, 1, total // 2, total - 1}
        for segment in segments:
            found += (await call("Scan", TableName="many", Segment=segment, TotalSegments=total))["Items"]
        if total < 10:
            assert found == whole
        assert len({item["p"]["S"] for item in found}) == len(found)


async def test_a_local_index_fetches_what_it_lacks_and_a_global_one_refuses(create, call, refused):
    await create("things", "p:S", "s:N", gsi={"far": "g:S | KEYS_ONLY"}, lsi={"near": "p:S g:S | KEYS_ONLY"})
    item = {"p": {"S": "a"}, "s": {"N": "1"}, "g": {"S": "x"}, "v": {"S": "y" * 5000}}
    await fill(call, "things", [item])
    near = {
        "TableName": "things",
        "IndexName": "near",
        "KeyConditionExpression": "p = :p",
        "ExpressionAttributeValues": {":p": {"S": "a"}},
        "ReturnConsumedCapacity": "INDEXES",
    }
    page = await call("Query", **near)
    assert page["Items"] == [{"p": {"S": "a"}, "s": {"N": "1"}, "g": {"S": "x"}}]
    assert page["ConsumedCapacity"]["LocalSecondaryIndexes"] == {"near": {"CapacityUnits": 0.5}}
    page = await call("Query", Select="ALL_ATTRIBUTES", **near)
    assert page["Items"] == [item]
    assert page["ConsumedCapacity"]["Table"] == {"CapacityUnits": 1.0}
    far = {**near, "IndexName": "far", "KeyConditionExpression": "g = :p"}
    error = await refused("Query", Select="ALL_ATTRIBUTES", **far)
    assert error.message == (
        "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global secondary index far "
        "because its projection type is not ALL"
    )
    error = await refused("Query", ConsistentRead=True, **far)
    assert error.message == "Consistent reads are not supported on global secondary indexes"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({}, "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."),
        (
            {"KeyConditionExpression": "s = :n", "ExpressionAttributeValues": {":n": {"N": "1"}}},
            "Query condition missed key schema element: p",
        ),
        (
            {"KeyConditionExpression": "p = :n", "ExpressionAttributeValues": {":n": {"N": "1"}}},
            "One or more parameter values were invalid: Condition parameter type does not match schema type",
        ),
        (
            {"KeyConditionExpression": "p > :s", "ExpressionAttributeValues": {":s": {"S": "1"}}},
            "Query key condition not supported",
        ),
        (
            {
                "KeyConditionExpression": "p = :s",
                "FilterExpression": "s = :s",
                "ExpressionAttributeValues": {":s": {"S": "1"}},
            },
            "Filter Expression can only contain non-primary key attributes: Primary key attribute: s",
        ),
        (
            {
                "KeyConditionExpression": "p = :s",
                "ExpressionAttributeValues": {":s": {"S": "1"}},
                "ExclusiveStartKey": {"p": {"S": "1"}},
            },
            "The provided starting key is invalid",
        ),
        (
            {
                "KeyConditionExpression": "p = :s",
                "ExpressionAttributeValues": {":s": {"S": "1"}},
                "ExclusiveStartKey": {"p": {"S": "2"}, "s": {"N": "1"}},
            },
            "The provided starting key is outside query boundaries based on provided conditions",
        ),
        (
            {
                "KeyConditionExpression": "p = :s AND s > :n",
                "ExpressionAttributeValues": {":s": {"S": "1"}, ":n": {"N": "5"}},
                "ExclusiveStartKey": {"p": {"S": "1"}, "s": {"N": "1"}},
            },
            "The provided starting key does not match the range key predicate",
        ),
        (
            {"KeyConditionExpression": "p = :s", "ExpressionAttributeValues": {":s": {"S": "1"}}, "IndexName": "none"},
            "The table does not have the specified index: none",
        ),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(create, refused, request_, text):
    await create("logs", "p:S", "s:N")
    error = await refused("Query", TableName="logs", **request_)
    assert (error.name, error.message) == ("ValidationException", text)


async def test_an_index_with_a_key_of_several_attributes_sorts_by_all_of_them(tables, create, call, refused):
    await create("games", "id:S")
    names = [("t", "HASH"), ("r", "HASH"), ("round", "RANGE"), ("n", "RANGE")]
    await call(
        "UpdateTable",
        TableName="games",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "N" if name == "n" else "S"} for name, _ in names],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "several",
                    "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in names],
                    "Projection": {"ProjectionType": "ALL"},
                }
            }
        ],
    )
    for number, (round_, n) in enumerate([("a", "2"), ("a", "10"), ("b", "1"), ("a", "-1")]):
        item = {"id": {"S": str(number)}, "t": {"S": "x"}, "r": {"S": "y"}, "round": {"S": round_}, "n": {"N": n}}
        await call("PutItem", TableName="games", Item=item)
    request = {"TableName": "games", "IndexName": "several", "ExpressionAttributeNames": {"#r": "round"}}
    values = {":t": {"S": "x"}, ":r": {"S": "y"}, ":a": {"S": "a"}, ":n": {"N": "0"}}
    late = {
        **request,
        "KeyConditionExpression": "t = :t AND r = :r AND #r = :a AND n > :n",
        "ExpressionAttributeValues": values,
    }
    error = await refused("Query", **late)
    assert error.message == "Cannot read from backfilling global secondary index: several"
    await tables.housekeeping.run_due()
    assert [item["n"]["N"] for item in (await call("Query", **late))["Items"]] == ["2", "10"]
    del values[":n"]
    late["KeyConditionExpression"] = "t = :t AND r = :r AND #r = :a"
    assert [item["n"]["N"] for item in (await call("Query", **late))["Items"]] == ["-1", "2", "10"]
    error = await refused("Query", **{**late, "KeyConditionExpression": "t = :t AND #r = :a AND n = :r"})
    assert error.name == "ValidationException"
