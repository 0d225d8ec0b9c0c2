"""Tables: made, described, changed, removed; tags, time to live, streams."""

from __future__ import annotations

import pytest

KEY = [{"AttributeName": "p", "KeyType": "HASH"}]
DEFINED = [{"AttributeName": "p", "AttributeType": "S"}]


async def test_a_table_is_active_at_once(create, call, refused):
    made = await create("orders", "p:S", "s:N", gsi={"by_g": "g:B"})
    assert (made["TableStatus"], made["GlobalSecondaryIndexes"][0]["IndexStatus"]) == ("ACTIVE", "ACTIVE")
    found = (await call("DescribeTable", TableName="orders"))["Table"]
    assert (found["TableStatus"], found["GlobalSecondaryIndexes"][0]["IndexStatus"]) == ("ACTIVE", "ACTIVE")
    assert found["KeySchema"] == [{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}]
    assert (await call("DescribeTable", TableName=found["TableArn"]))["Table"] == found
    error = await refused(
        "CreateTable", TableName="orders", BillingMode="PAY_PER_REQUEST", KeySchema=KEY, AttributeDefinitions=DEFINED
    )
    assert (error.name, error.message) == ("ResourceInUseException", "Table already exists: orders")
    assert (await call("DeleteTable", TableName="orders"))["TableDescription"]["TableStatus"] == "DELETING"
    error = await refused("DescribeTable", TableName="orders")
    assert (error.name, error.message) == (
        "ResourceNotFoundException",
        "Requested resource not found: Table: orders not found",
    )


async def test_a_new_table_of_an_old_name_has_nothing_of_the_old_one(tables, create, call):
    await create("orders", gsi={"by_g": "g:S"})
    await call("PutItem", TableName="orders", Item={"p": {"S": "a"}, "g": {"S": "x"}})
    await call("DeleteTable", TableName="orders")
    await create("orders", gsi={"by_g": "g:S"})
    for index in ({}, {"IndexName": "by_g"}):
        assert (await call("Scan", TableName="orders", **index))["Count"] == 0
    await tables.housekeeping.run_due()
    left = tables.store.read(lambda reader: reader.scan(b"Y", b"Z", limit=100))
    assert [key[:2] for key, _ in left] == [b"Yn", b"Yt"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"BillingMode": "PROVISIONED"},
            (
                "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when "
                "BillingMode is PROVISIONED"
            ),
        ),
        (
            {"AttributeDefinitions": [*DEFINED, {"AttributeName": "x", "AttributeType": "S"}]},
            (
                "One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of "
                "attributes defined in AttributeDefinitions"
            ),
        ),
        (
            {"KeySchema": [{"AttributeName": "q", "KeyType": "HASH"}]},
            (
                "One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. "
                "Keys: [q], AttributeDefinitions: [p]"
            ),
        ),
        (
            {"KeySchema": [{"AttributeName": "p", "KeyType": "RANGE"}]},
            "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
        ),
        ({"GlobalSecondaryIndexes": []}, "One or more parameter values were invalid: List of GlobalSecondaryIndexes is empty"),
        (
            {"MultiRegionConsistency": "STRONG"},
            "Global tables and vector indexes are not there: the parameter MultiRegionConsistency",
        ),
    ],
)
async def test_a_definition_that_is_none_is_refused(refused, changes, text):
    request = {"TableName": "ttt", "BillingMode": "PAY_PER_REQUEST", "KeySchema": KEY, "AttributeDefinitions": DEFINED}
    error = await refused("CreateTable", **{**request, **changes})
    assert error.name == "ValidationException"
    assert error.message.removesuffix(" is not supported by Martlet") == text


async def test_an_index_on_items_that_are_there_is_built_in_the_background(tables, create, call, refused):
    await create("orders")
    for number in range(450):
        await call("PutItem", TableName="orders", Item={"p": {"S": str(number)}, "g": {"S": "x"}, "n": {"N": "1"}})
    await call("PutItem", TableName="orders", Item={"p": {"S": "odd"}, "g": {"N": "1"}})
    index = {
        "IndexName": "late",
        "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    told = await call(
        "UpdateTable",
        TableName="orders",
        AttributeDefinitions=[{"AttributeName": "g", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[{"Create": index}],
    )
    told = told["TableDescription"]
    assert (told["TableStatus"], told["GlobalSecondaryIndexes"][0]["IndexStatus"]) == ("UPDATING", "CREATING")
    assert await tables.housekeeping._step()
    # some are in, some are not: what changes now is right in either case
    for number in range(0, 450, 10):
        await call("DeleteItem", TableName="orders", Key={"p": {"S": str(number)}})
    await call("UpdateItem", TableName="orders", Key={"p": {"S": "7"}}, AttributeUpdates={"g": {"Action": "DELETE"}})
    await tables.housekeeping.run_due()
    found = (await call("DescribeTable", TableName="orders"))["Table"]
    assert (found["TableStatus"], found["GlobalSecondaryIndexes"][0]["IndexStatus"]) == ("ACTIVE", "ACTIVE")
    assert found["GlobalSecondaryIndexes"][0]["ItemCount"] == 404
    page = await call(
        "Query",
        TableName="orders",
        IndexName="late",
        KeyConditionExpression="g = :x",
        ExpressionAttributeValues={":x": {"S": "x"}},
    )
    assert page["Count"] == 404
    await call("UpdateTable", TableName="orders", GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "late"}}])
    await tables.housekeeping.run_due()
    assert not tables.store.read(lambda reader: reader.scan(b"Yx", b"Yy", limit=1))
    error = await refused("Scan", TableName="orders", IndexName="late")
    assert error.message == "The table does not have the specified index: late"


async def test_an_item_goes_at_its_time_and_the_stream_says_who_did_it(tables, clock, create, call):
    made = await create("sessions", StreamSpecification={"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"})
    now = clock.now_ms() // 1000
    await call("PutItem", TableName="sessions", Item={"p": {"S": "before"}, "ttl": {"N": str(now + 5)}})
    await call("UpdateTimeToLive", TableName="sessions", TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True})
    for name, ttl in (
        ("later", {"N": str(now + 60)}),
        ("text", {"S": str(now)}),
        ("ancient", {"N": "1"}),
        ("changed", {"N": str(now)}),
    ):
        await call("PutItem", TableName="sessions", Item={"p": {"S": name}, "ttl": ttl})
    await call("PutItem", TableName="sessions", Item={"p": {"S": "changed"}})
    clock.advance(10)
    await tables.housekeeping.run_due()
    left = {item["p"]["S"] for item in (await call("Scan", TableName="sessions"))["Items"]}
    assert left == {"later", "text", "ancient", "changed"}
    records, _ = tables.streams.records(made["LatestStreamArn"], 0)
    gone = [record for record in records if record["eventName"] == "REMOVE"]
    assert [(record["userIdentity"], record["dynamodb"]["OldImage"]["p"]) for record in gone] == [
        ({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}, {"S": "before"})
    ]
    assert all("userIdentity" not in record for record in records if record not in gone)


@pytest.mark.parametrize(
    ("view", "images"),
    [
        ("KEYS_ONLY", [set(), set(), set()]),
        ("NEW_IMAGE", [{"NewImage"}, {"NewImage"}, set()]),
        ("OLD_IMAGE", [set(), {"OldImage"}, {"OldImage"}]),
        ("NEW_AND_OLD_IMAGES", [{"NewImage"}, {"NewImage", "OldImage"}, {"OldImage"}]),
    ],
)
async def test_a_stream_shows_what_its_view_says_and_nothing_for_no_change(create, call, view, images):
    arn = (await create("orders", StreamSpecification={"StreamEnabled": True, "StreamViewType": view}))["LatestStreamArn"]
    for item in ({"p": {"S": "a"}, "b": {"B": b"\x00\xff"}}, {"p": {"S": "a"}, "n": {"N": "1"}}):
        for _ in range(2):
            await call("PutItem", TableName="orders", Item=item)
    await call("DeleteItem", TableName="orders", Key={"p": {"S": "a"}})
    await call("DeleteItem", TableName="orders", Key={"p": {"S": "a"}})
    stream = (await call("DescribeStream", StreamArn=arn))["StreamDescription"]
    shard = stream["Shards"][0]["ShardId"]
    iterator = await call("GetShardIterator", StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    page = await call("GetRecords", ShardIterator=iterator["ShardIterator"], Limit=2)
    found = page["Records"] + (await call("GetRecords", ShardIterator=page["NextShardIterator"]))["Records"]
    assert [record["eventName"] for record in found] == ["INSERT", "MODIFY", "REMOVE"]
    assert [{"NewImage", "OldImage"} & set(record["dynamodb"]) for record in found] == images
    assert all(record["dynamodb"]["Keys"] == {"p": {"S": "a"}} for record in found)
    if view == "NEW_IMAGE":
        assert found[0]["dynamodb"]["NewImage"]["b"] == {"B": b"\x00\xff"}
    second = found[1]["dynamodb"]["SequenceNumber"]
    for kind, left in (("AT_SEQUENCE_NUMBER", 2), ("AFTER_SEQUENCE_NUMBER", 1)):
        at = await call("GetShardIterator", StreamArn=arn, ShardId=shard, ShardIteratorType=kind, SequenceNumber=second)
        assert len((await call("GetRecords", ShardIterator=at["ShardIterator"]))["Records"]) == left
    latest = await call("GetShardIterator", StreamArn=arn, ShardId=shard, ShardIteratorType="LATEST")
    await call("UpdateTable", TableName="orders", StreamSpecification={"StreamEnabled": False})
    await call("PutItem", TableName="orders", Item={"p": {"S": "z"}})
    end = await call("GetRecords", ShardIterator=latest["ShardIterator"])
    assert end == {"Records": []}  # closed, and read to its end


async def test_iterators_expire_and_forged_ones_are_refused(clock, create, call, refused):
    arn = (await create("orders", StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}))[
        "LatestStreamArn"
    ]
    shard = (await call("DescribeStream", StreamArn=arn))["StreamDescription"]["Shards"][0]["ShardId"]
    iterator = (await call("GetShardIterator", StreamArn=arn, ShardId=shard, ShardIteratorType="LATEST"))["ShardIterator"]
    other = (await create("other", StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}))[
        "LatestStreamArn"
    ]
    forged = f"{other}|1|{iterator.rpartition('|')[2]}"  # allowed by the stream in front, and reading another
    assert (await refused("GetRecords", ShardIterator=forged)).name == "ValidationException"
    clock.advance(901)
    assert (await refused("GetRecords", ShardIterator=iterator)).name == "ExpiredIteratorException"
    assert (await refused("GetRecords", ShardIterator=f"{arn}|1|xx")).name == "ValidationException"


async def test_protection_holds_and_tags_are_kept(create, call, refused):
    made = await create("orders", DeletionProtectionEnabled=True, Tags=[{"Key": "a", "Value": "1"}])
    assert (await refused("DeleteTable", TableName="orders")).name == "ValidationException"
    await call("UpdateTable", TableName="orders", DeletionProtectionEnabled=False)
    await call("TagResource", ResourceArn=made["TableArn"], Tags=[{"Key": "b", "Value": "2"}])
    await call("UntagResource", ResourceArn=made["TableArn"], TagKeys=["a"])
    assert (await call("ListTagsOfResource", ResourceArn=made["TableArn"]))["Tags"] == [{"Key": "b", "Value": "2"}]
    await call("DeleteTable", TableName="orders")


async def test_tables_are_listed_in_pages(create, call):
    for name in ("ccc", "aaa", "bbb"):
        await create(name)
    page = await call("ListTables", Limit=2)
    assert page == {"TableNames": ["aaa", "bbb"], "LastEvaluatedTableName": "bbb"}
    assert await call("ListTables", Limit=2, ExclusiveStartTableName="bbb") == {"TableNames": ["ccc"]}


async def test_tables_of_other_accounts_and_regions_are_not_reached(refused):
    for arn in ("arn:aws:dynamodb:us-east-1:123456789012:table/orders", "arn:aws:dynamodb:eu-west-1:000000000000:table/orders"):
        for operation, more in (("ListTagsOfResource", {}), ("UntagResource", {"TagKeys": ["a"]})):
            error = await refused(operation, ResourceArn=arn, **more)
            assert error.name == "AccessDeniedException"
            assert error.message.endswith(f" is not authorized to perform: dynamodb:{operation} on resource: {arn}")
    error = await refused("ListTagsOfResource", ResourceArn="orders")
    assert (error.name, error.message) == ("ValidationException", "Invalid TableArn: ARNs must start with 'arn:'")
