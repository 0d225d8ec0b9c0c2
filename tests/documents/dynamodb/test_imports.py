"""Imports: files of a bucket become a table; what is no item is counted, what is no file ends the import's success."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from martlet.clock import ManualClock
from martlet.documents.dynamodb import DynamoDb, Tables
from martlet.documents.dynamodb.import_files import ITEM_CHARACTERS, Broken, csv_items, json_items, texts
from martlet.errors import ServiceError
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

PARAMETERS = {
    "TableName": "orders",
    "BillingMode": "PAY_PER_REQUEST",
    "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
}


class Caller(msgspec.Struct):
    principal: str = "root"
    endpoint: str = ""


class Bucket:
    """A bucket "b" of files that come in small pieces."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.opened_keys: list[str] = []

    def listed(self, bucket: str, prefix: str, after: str) -> list[tuple[str, int]]:
        if bucket != "b":
            raise ServiceError("NoSuchBucket", "The specified bucket does not exist")
        found = [(key, len(raw)) for key, raw in sorted(self.files.items()) if key.startswith(prefix) and key > after]
        return found[:2]

    async def opened(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        self.opened_keys.append(key)
        raw = self.files[key]
        for at in range(0, len(raw), 7):
            yield raw[at : at + 7]


async def pieces(raw: bytes, size: int = 5) -> AsyncIterator[bytes]:
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


async def all_of(source: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in source]


def item(key: str, **more: Any) -> dict[str, Any]:
    return {"Item": {"p": {"S": key}, **more}}


@pytest.fixture
def bucket() -> Bucket:
    return Bucket({})


@pytest.fixture
async def tables(clock: ManualClock, bucket: Bucket) -> AsyncIterator[Tables]:
    store = Store(MemoryEngine(), clock=clock)
    made = Tables(store, clock)
    made.imports.serve(bucket)
    yield made
    await store.close()


@pytest.fixture
def run(tables: Tables, call):
    """An import from beginning to end: its description."""

    async def one(source: str = "b", prefix: str = "", parameters: Any = PARAMETERS, **more: Any) -> dict[str, Any]:
        request = {
            "S3BucketSource": {"S3Bucket": source, "S3KeyPrefix": prefix},
            "InputFormat": "DYNAMODB_JSON",
            "TableCreationParameters": parameters,
            **more,
        }
        begun = (await call("ImportTable", **request))["ImportTableDescription"]
        assert begun["ImportStatus"] == "IN_PROGRESS"
        await tables.imports.run_due()
        return (await call("DescribeImport", ImportArn=begun["ImportArn"]))["ImportTableDescription"]

    return one


def counts(told: dict[str, Any]) -> tuple[Any, ...]:
    return told["ImportStatus"], told["ProcessedItemCount"], told["ImportedItemCount"], told["ErrorCount"]


async def test_every_file_with_the_prefix_is_read(run, bucket, call):
    every_type = {
        "b": {"B": base64.b64encode(b"\x00\xff").decode()},
        "m": {"M": {"l": {"L": [{"BS": ["AA=="]}, {"NS": ["1", "2.50"]}, {"NULL": True}]}}},
        "ä": {"S": "ö\n"},
    }
    lines = "".join(json.dumps(item(f"a{number}")) + "\n" for number in range(250))
    bucket.files = {
        "in/1.json": lines.encode(),
        "in/2.json": (json.dumps(item("x")) + json.dumps(item("y", **every_type), ensure_ascii=False)).encode(),
        "in/3.json": b"",
        "out.json": json.dumps(item("z")).encode(),
    }
    told = await run(prefix="in/")
    assert counts(told) == ("COMPLETED", 252, 252, 0)
    assert told["ProcessedSizeBytes"] == sum(len(raw) for key, raw in bucket.files.items() if key != "out.json")
    found = await call("GetItem", TableName="orders", Key={"p": {"S": "y"}})
    assert found["Item"]["b"] == {"B": b"\x00\xff"}
    assert found["Item"]["m"] == {"M": {"l": {"L": [{"BS": [b"\x00"]}, {"NS": ["1", "2.5"]}, {"NULL": True}]}}}
    assert found["Item"]["ä"] == {"S": "ö\n"}
    assert (await call("Scan", TableName="orders", Select="COUNT"))["Count"] == 252


async def test_what_is_no_item_is_counted_and_the_rest_imported(run, bucket, call):
    wrong: list[Any] = [{"p": {"S": "a"}}, {"Item": {"q": {"S": "a"}}}, {"Item": {"p": {"N": "1"}}}, {"Item": {"p": "a"}}, 7]
    wrong += [item("b", n={"N": "x"}), item("b", n={"B": "?"}), item("b", big={"S": "x" * 410_000}), {"Item": {"p": {}}}]
    bucket.files = {"1": "\n".join(json.dumps(one) for one in (*wrong, item("good"))).encode(), "2": b'{"Item": {"p"'}
    told = await run()
    assert counts(told) == ("FAILED", 11, 1, 10)
    assert told["FailureCode"] == "ItemValidationError"
    assert [one["p"]["S"] for one in (await call("Scan", TableName="orders"))["Items"]] == ["good"]


async def test_gzip(run, bucket):
    one, other = (gzip.compress(json.dumps(item(key)).encode()) for key in "ab")
    bucket.files = {"1.gz": one + other, "2.gz": one + b"no gzip", "3.gz": one[:12]}
    told = await run(InputCompressionType="GZIP")
    assert counts(told) == ("FAILED", 5, 3, 2)


async def test_csv(run, bucket, call):
    bucket.files = {"1.csv": b'p,n,text\r\na,1,"x, ""y""\nz"\r\nb,,\r\n,2,no key\r\nc,1,2,3\r\n'}
    defined = [{"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "n", "AttributeType": "N"}]
    index = {
        "IndexName": "by_n",
        "KeySchema": [{"AttributeName": "n", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    parameters = {**PARAMETERS, "AttributeDefinitions": defined, "GlobalSecondaryIndexes": [index]}
    assert counts(await run(InputFormat="CSV", parameters=parameters)) == ("FAILED", 4, 2, 2)
    found = {one["p"]["S"]: one for one in (await call("Scan", TableName="orders"))["Items"]}
    assert found == {"a": {"p": {"S": "a"}, "n": {"N": "1"}, "text": {"S": 'x, "y"\nz'}}, "b": {"p": {"S": "b"}}}
    assert (await call("Scan", TableName="orders", IndexName="by_n"))["Count"] == 1
    bucket.files = {"1": b"a;1\nb;2"}
    options = {"Csv": {"Delimiter": ";", "HeaderList": ["p", "n"]}}
    told = await run(InputFormat="CSV", InputFormatOptions=options, parameters={**PARAMETERS, "TableName": "others"})
    assert counts(told) == ("COMPLETED", 2, 2, 0)


async def test_a_bucket_that_is_not_there_makes_no_table(run, call):
    told = await run("missing")
    assert (told["ImportStatus"], told["FailureCode"]) == ("FAILED", "S3NoSuchBucket")
    assert "The specified bucket does not exist" in told["FailureMessage"]
    assert (await call("ListTables"))["TableNames"] == []


async def test_an_import_that_was_interrupted_begins_again(tables, bucket, call, monkeypatch):
    bucket.files = {"1": json.dumps(item("a")).encode(), "2": json.dumps(item("b")).encode()}
    await call("ImportTable", S3BucketSource={"S3Bucket": "b"}, InputFormat="DYNAMODB_JSON", TableCreationParameters=PARAMETERS)
    opened = bucket.opened

    def stops(source: str, key: str) -> AsyncIterator[bytes]:
        if key == "2":
            raise KeyboardInterrupt
        return opened(source, key)

    monkeypatch.setattr(bucket, "opened", stops)
    with pytest.raises(KeyboardInterrupt):
        await tables.imports.run_due()
    monkeypatch.undo()
    again = Tables(tables.store, tables.clock, holder=tables.imports._holder)
    again.imports.serve(bucket)
    await again.imports.run_due()
    arn = (await call("ListImports"))["ImportSummaryList"][0]["ImportArn"]
    assert counts((await call("DescribeImport", ImportArn=arn))["ImportTableDescription"]) == ("COMPLETED", 2, 2, 0)
    assert (await call("Scan", TableName="orders", Select="COUNT"))["Count"] == 2


async def test_tokens_names_and_pages(call, refused, create, clock):
    request = {"S3BucketSource": {"S3Bucket": "b"}, "InputFormat": "DYNAMODB_JSON", "TableCreationParameters": PARAMETERS}
    first = (await call("ImportTable", **request, ClientToken="t"))["ImportTableDescription"]
    assert (await call("ImportTable", **request, ClientToken="t"))["ImportTableDescription"] == first
    error = await refused("ImportTable", **request)
    assert (error.name, error.message) == ("ResourceInUseException", "Table already exists: orders")
    clock.advance(5)
    second = {**request, "TableCreationParameters": {**PARAMETERS, "TableName": "others"}}
    arns = [first["ImportArn"], (await call("ImportTable", **second))["ImportTableDescription"]["ImportArn"]]
    page = await call("ListImports", PageSize=1)
    assert [one["ImportArn"] for one in page["ImportSummaryList"]] == arns[1:]
    page = await call("ListImports", PageSize=1, NextToken=page["NextToken"])
    assert ([one["ImportArn"] for one in page["ImportSummaryList"]], page.get("NextToken")) == (arns[:1], None)
    assert len((await call("ListImports", TableArn=first["TableArn"]))["ImportSummaryList"]) == 1
    assert (await refused("DescribeImport", ImportArn=arns[0] + "0")).name == "ImportNotFoundException"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"InputFormat": "ION"}, "Importing files of the format ION is not supported by Martlet"),
        ({"InputCompressionType": "ZSTD"}, "Importing files compressed with ZSTD is not supported by Martlet"),
        (
            {"TableCreationParameters": {**PARAMETERS, "BillingMode": "PROVISIONED"}},
            (
                "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when "
                "BillingMode is PROVISIONED"
            ),
        ),
    ],
)
async def test_what_is_refused(refused, changes, text):
    request = {"S3BucketSource": {"S3Bucket": "b"}, "InputFormat": "DYNAMODB_JSON", "TableCreationParameters": PARAMETERS}
    assert (await refused("ImportTable", **{**request, **changes})).message == text


async def test_who_may_not_read_the_bucket_may_not_import_from_it(tables):
    def authorize(principal: Any, action: str, resource: str, *more: Any) -> None:
        if action == "s3:GetObject":
            raise ServiceError("AccessDeniedException", f"{action} on {resource}")

    source = {"S3Bucket": "b", "S3KeyPrefix": "in/"}
    request = {"S3BucketSource": source, "InputFormat": "DYNAMODB_JSON", "TableCreationParameters": PARAMETERS}
    with pytest.raises(ServiceError) as raised:
        await DynamoDb(tables, authorize).import_table(Caller(), request)
    assert raised.value.message == "s3:GetObject on arn:aws:s3:::b/in/*"


# --- files


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_items_are_found_wherever_pieces_end(size):
    raw = ' {"Item": {"p": {"S": "ä{\\"}"}}}\n\n{"Item":{}} null [1]'.encode()
    found = await all_of(json_items(texts(pieces(raw, size), False)))
    assert found == [{"p": {"S": 'ä{"}'}}, {}, None, None]


@pytest.mark.parametrize("raw", [b'{"Item": ', b"nonsense", b"\xff", b'{"Item": NaN}', b"[" * 20_000])
async def test_files_that_break_off(raw):
    with pytest.raises(Broken):
        await all_of(json_items(texts(pieces(raw, 4096), False)))


@pytest.mark.parametrize("raw", [b'p\n"a', b'p\n"a"b\n', b"p\n" + b"a" * (ITEM_CHARACTERS + 9)])
async def test_csv_that_breaks_off(raw):
    with pytest.raises(Broken):
        await all_of(csv_items(texts(pieces(raw, 1 << 20), False), {}, ",", None))


async def test_an_item_that_does_not_end_is_not_kept_in_memory():
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b'{"Item": {"p": {"S": "'
        while True:
            taken += 1 << 20
            yield b"x" * (1 << 20)

    with pytest.raises(Broken):
        await all_of(json_items(texts(endless(), False)))
    assert taken <= ITEM_CHARACTERS + (2 << 20)


async def test_a_small_file_of_many_zeros_is_inflated_in_pieces():
    sizes = [len(text) async for text in texts(pieces(gzip.compress(b" " * 50_000_000), 1 << 20), True)]
    assert (max(sizes), sum(sizes)) == (1 << 20, 50_000_000)
