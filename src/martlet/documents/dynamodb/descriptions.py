"""Tables and indexes as the API describes them."""

from __future__ import annotations

from typing import Any, Final

from martlet.documents.dynamodb.tables import IndexRecord, TableRecord, numbered, unpack_stats
from martlet.store import Reader
from martlet.types import ACCOUNT

__all__ = ["described", "names_after", "stream_arn", "table_arn"]

Answer = dict[str, Any]
_ON_DEMAND: Final = {"ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": 4_000}


def table_arn(region: str, name: str) -> str:
    return f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/{name}"


def stream_arn(region: str, name: str, label: str) -> str:
    return f"{table_arn(region, name)}/stream/{label}"


def described(reader: Reader, record: TableRecord, region: str, status: str = "ACTIVE") -> Answer:
    """A TableDescription. `status` other than ACTIVE: as the answer to the request that changed it says."""
    arn = table_arn(region, record.name)
    items, size = unpack_stats(reader.get(numbered(b"Ys", record.number)))
    building = any(index.status != "ACTIVE" for index in record.indexes)
    answer: Answer = {
        "TableName": record.name,
        "TableArn": arn,
        "TableId": record.id,
        "TableStatus": "UPDATING" if building and status == "ACTIVE" else status,
        "ProvisionedThroughput": _units(record),
        "TableSizeBytes": size,
        "ItemCount": items,
        "DeletionProtectionEnabled": record.protected,
    }
    if status != "DELETING":
        answer["CreationDateTime"] = record.created_at_ms / 1000
        answer["AttributeDefinitions"] = [{"AttributeName": name, "AttributeType": kind} for name, kind in record.types.items()]
        answer["KeySchema"] = _schema((record.hash,), (record.range,) if record.range else ())
        for kind, member in (("local", "LocalSecondaryIndexes"), ("global", "GlobalSecondaryIndexes")):
            found = [_index(reader, index, record, arn, status) for index in record.indexes if index.kind == kind]
            if found:
                answer[member] = found
    _describe_more(answer, record, arn, status)
    return answer


def _describe_more(answer: Answer, record: TableRecord, arn: str, status: str) -> None:
    if record.billing_named:
        answer["BillingModeSummary"] = {"BillingMode": record.billing}
        if record.on_demand_at_ms and status != "CREATING":
            answer["BillingModeSummary"]["LastUpdateToPayPerRequestDateTime"] = record.on_demand_at_ms / 1000
    if record.streams:
        last = record.streams[-1]
        answer["LatestStreamLabel"] = last.label
        answer["LatestStreamArn"] = f"{arn}/stream/{last.label}"
        if not last.until:
            answer["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": last.view}
    if record.table_class:
        answer["TableClassSummary"] = {"TableClass": record.table_class}
    for name in ("SSEDescription", "OnDemandThroughput"):
        if name in record.settings:
            answer[name] = record.settings[name]
    warm = record.settings.get("WarmThroughput")
    if status == "ACTIVE" or warm:
        answer["WarmThroughput"] = _warm(warm, record.billing, record.read_units, record.write_units, status)


def _warm(given: Answer | None, billing: str, read: int, write: int, status: str) -> Answer:
    """What the table would take at once: here that is not a promise, but what a description says."""
    usual = _ON_DEMAND if billing == "PAY_PER_REQUEST" else {"ReadUnitsPerSecond": read, "WriteUnitsPerSecond": write}
    return {**usual, **(given or {}), "Status": "ACTIVE" if status == "ACTIVE" else "UPDATING"}


def _units(record: TableRecord) -> Answer:
    found: Answer = {
        "NumberOfDecreasesToday": 0,
        "ReadCapacityUnits": record.read_units,
        "WriteCapacityUnits": record.write_units,
    }
    if record.increased_at_ms:
        found["LastIncreaseDateTime"] = record.increased_at_ms / 1000
    if record.decreased_at_ms:
        found["LastDecreaseDateTime"] = record.decreased_at_ms / 1000
    return found


def _schema(hashed: tuple[str, ...], ranged: tuple[str, ...]) -> list[Answer]:
    return [
        *({"AttributeName": name, "KeyType": "HASH"} for name in hashed),
        *({"AttributeName": name, "KeyType": "RANGE"} for name in ranged),
    ]


def _index(reader: Reader, index: IndexRecord, record: TableRecord, arn: str, status: str) -> Answer:
    items, size = unpack_stats(reader.get(numbered(b"Ys", index.number)))
    projection: Answer = {"ProjectionType": index.projection}
    if index.attributes:
        projection["NonKeyAttributes"] = list(index.attributes)
    answer: Answer = {
        "IndexName": index.name,
        "IndexArn": f"{arn}/index/{index.name}",
        "KeySchema": _schema(index.hash, index.range),
        "Projection": projection,
        "IndexSizeBytes": size,
        "ItemCount": items,
    }
    if index.kind == "global":
        answer["IndexStatus"] = "CREATING" if status == "CREATING" else index.status
        if index.status == "CREATING":
            answer["Backfilling"] = True
        answer["ProvisionedThroughput"] = {
            "NumberOfDecreasesToday": 0,
            "ReadCapacityUnits": index.read_units,
            "WriteCapacityUnits": index.write_units,
        }
        if "OnDemandThroughput" in index.settings:
            answer["OnDemandThroughput"] = index.settings["OnDemandThroughput"]
        warm = index.settings.get("WarmThroughput")
        if status == "ACTIVE" or warm:
            answer["WarmThroughput"] = _warm(warm, record.billing, index.read_units, index.write_units, status)
    return answer


def names_after(reader: Reader, after: str, most: int) -> list[str]:
    low = b"Yt" + after.encode() + b"\x00" if after else b"Yt"
    return [key[2:].decode() for key, _ in reader.scan(low, b"Yu", limit=most)]
