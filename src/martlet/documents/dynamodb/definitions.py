"""Definitions of tables: made, changed, removed, each in one transaction. Work on existing items is left to the background."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.clock import token_hex
from martlet.documents.dynamodb import schemas
from martlet.documents.dynamodb.failures import in_use, invalid, no_table, validation
from martlet.documents.dynamodb.tables import (
    Catalog,
    IndexRecord,
    StreamRecord,
    Table,
    TableRecord,
    numbered,
    packed,
    table_key,
)
from martlet.errors import ServiceError
from martlet.store import Tx
from martlet.types import ACCOUNT

__all__ = ["create_table", "delete_table", "save", "set_tags", "set_time_to_live", "update_table"]

Request = dict[str, Any]
_NUMBER: Final = b"Yn"
_TAGS_MOST: Final = 50
_TOO_MANY_TAGS: Final = "One or more parameter values were invalid: Too many tags: the limit of tags of a resource is 50"
_TAG: Final = re.compile(r"[\w +\-=._:/@]*")


def next_number(tx: Tx) -> int:
    return tx.increment(_NUMBER, 1)


def save(tx: Tx, record: TableRecord) -> None:
    tx.put(table_key(record.name), packed(record))


def create_table(tx: Tx, catalog: Catalog, name: str, request: Request, region: str) -> TableRecord:
    """A new table. Raises ResourceInUseException."""
    if catalog.table(tx, name) is not None:
        raise in_use(f"Table already exists: {name}")
    units = request.get("ProvisionedThroughput") or {}
    schema = request["KeySchema"]
    billing = schemas.billing_of(request)
    number = next_number(tx)
    indexes = [
        schemas.index_of(given, next_number(tx), kind)
        for kind, member in (("local", "LocalSecondaryIndexes"), ("global", "GlobalSecondaryIndexes"))
        for given in request.get(member) or ()
    ]
    record = TableRecord(
        name=name,
        number=number,
        id=_uuid(token_hex(16)),
        created_at_ms=tx.now_ms,
        types=schemas.types_of(request["AttributeDefinitions"]),
        hash=schema[0]["AttributeName"],
        range=schema[1]["AttributeName"] if len(schema) > 1 else "",
        indexes=tuple(indexes),
        billing=billing,
        billing_named=billing == "PAY_PER_REQUEST",
        on_demand_at_ms=tx.now_ms if billing == "PAY_PER_REQUEST" else 0,
        read_units=units.get("ReadCapacityUnits", 0),
        write_units=units.get("WriteCapacityUnits", 0),
        tags=_tags(request.get("Tags") or ()),
        protected=bool(request.get("DeletionProtectionEnabled")),
        table_class=request.get("TableClass") or "",
        settings=_settings({}, request, region),
        policy=request.get("ResourcePolicy") or "",
        policy_revision=str(tx.now_ms) if request.get("ResourcePolicy") else "",
    )
    stream = request.get("StreamSpecification")
    if stream is not None:
        record = _with_stream(tx, record, stream, creating=True)
    save(tx, record)
    return record


def _uuid(hexadecimal: str) -> str:
    parts = (hexadecimal[:8], hexadecimal[8:12], "4" + hexadecimal[13:16], "a" + hexadecimal[17:20], hexadecimal[20:32])
    return "-".join(parts)


def _tags(given: Any) -> dict[str, str]:
    for tag in given:
        for text in (tag["Key"], tag["Value"]):
            if not _TAG.fullmatch(text):
                raise validation(f"Tag contains invalid characters: {text[:256]}")
    if len(given) > _TAGS_MOST:
        raise validation(_TOO_MANY_TAGS)
    return {tag["Key"]: tag["Value"] for tag in given}


def _settings(found: Request, request: Request, region: str) -> Request:
    """What a table is only described with."""
    settings = dict(found)
    for name in ("OnDemandThroughput", "WarmThroughput"):
        if request.get(name) is not None:
            settings[name] = request[name]
    encryption = request.get("SSESpecification")
    if encryption is not None:
        settings.pop("SSEDescription", None)
        if encryption.get("Enabled"):
            default = f"arn:aws:kms:{region}:{ACCOUNT}:key/alias/aws/dynamodb"
            settings["SSEDescription"] = {
                "Status": "ENABLED",
                "SSEType": encryption.get("SSEType") or "KMS",
                "KMSMasterKeyArn": encryption.get("KMSMasterKeyId") or default,
            }
    return settings


# --- streams


def _with_stream(tx: Tx, record: TableRecord, wanted: Request, *, creating: bool) -> TableRecord:
    last = record.streams[-1] if record.streams else None
    is_open = last is not None and not last.until
    view = wanted.get("StreamViewType")
    if not wanted.get("StreamEnabled"):
        if view:
            raise invalid("Table is being created with stream disabled: StreamViewType must not be specified")
        if creating:
            return record
        if not is_open or last is None:
            raise validation("Table is already disabled for streams" if last else "Table does not have a stream to disable")
        closed = msgspec.structs.replace(last, until=max(tx.last_seq, 1), closed_at_ms=tx.now_ms)
        return msgspec.structs.replace(record, streams=(*record.streams[:-1], closed))
    if not view:
        raise invalid("StreamViewType must be specified when StreamEnabled is true")
    if is_open and last is not None:
        raise validation(f"Table already has an enabled stream: TableName: {record.name}")
    label = datetime.fromtimestamp(tx.now_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    if last is not None and last.label >= label:  # twice in a millisecond
        label = datetime.fromtimestamp((tx.now_ms + 1) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    stream = StreamRecord(label=label, view=view, after=tx.last_seq, created_at_ms=tx.now_ms)
    kept = [one for one in record.streams if one.closed_at_ms > tx.now_ms - 86_400_000]
    return msgspec.structs.replace(record, streams=(*kept, stream))


# --- changes


def update_table(tx: Tx, record: TableRecord, request: Request, region: str) -> TableRecord:
    """The table as it is after the request. Raises what the service raises for changes that are none."""
    types = record.types
    if request.get("AttributeDefinitions"):
        types = {**types, **schemas.types_of(request["AttributeDefinitions"])}
    changed = _with_billing(tx, record, request)
    if request.get("StreamSpecification") is not None:
        changed = _with_stream(tx, changed, request["StreamSpecification"], creating=False)
    if request.get("DeletionProtectionEnabled") is not None:
        changed = msgspec.structs.replace(changed, protected=request["DeletionProtectionEnabled"])
    if request.get("TableClass"):
        changed = msgspec.structs.replace(changed, table_class=request["TableClass"])
    changed = msgspec.structs.replace(changed, settings=_settings(changed.settings, request, region))
    for update in request.get("GlobalSecondaryIndexUpdates") or ():
        changed = _with_index_update(tx, changed, update, types, request)
    save(tx, changed)
    return changed


def _with_billing(tx: Tx, record: TableRecord, request: Request) -> TableRecord:
    billing, units = request.get("BillingMode") or record.billing, request.get("ProvisionedThroughput")
    if billing == "PAY_PER_REQUEST":
        if units:
            text = "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
            raise invalid(text)
        if record.billing == billing:
            return record
        indexes = tuple(msgspec.structs.replace(index, read_units=0, write_units=0) for index in record.indexes)
        return msgspec.structs.replace(
            record,
            billing=billing,
            billing_named=True,
            on_demand_at_ms=tx.now_ms,
            read_units=0,
            write_units=0,
            indexes=indexes,
        )
    if not units:
        if record.billing != billing:
            raise invalid("ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
        return record
    _require_change(record.read_units, record.write_units, units, "table")
    read, write = units["ReadCapacityUnits"], units["WriteCapacityUnits"]
    more = read > record.read_units or write > record.write_units
    less = read < record.read_units or write < record.write_units
    named = record.billing_named or bool(request.get("BillingMode") and record.billing != billing)
    return msgspec.structs.replace(
        record,
        billing=billing,
        billing_named=named,
        read_units=read,
        write_units=write,
        increased_at_ms=tx.now_ms if more else record.increased_at_ms,
        decreased_at_ms=tx.now_ms if less else record.decreased_at_ms,
    )


def _require_change(read: int, write: int, units: Request, what: str) -> None:
    if (read, write) == (units["ReadCapacityUnits"], units["WriteCapacityUnits"]):
        raise validation(
            f"The provisioned throughput for the {what} will not change. The requested value equals the current value. "
            f"Current ReadCapacityUnits provisioned for the {what}: {read}. Requested ReadCapacityUnits: {read}. "
            f"Current WriteCapacityUnits provisioned for the {what}: {write}. Requested WriteCapacityUnits: {write}. "
            "Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."
        )


def _with_index_update(tx: Tx, record: TableRecord, update: Request, types: dict[str, str], request: Request) -> TableRecord:
    if update.get("Create") is not None:
        return _with_new_index(tx, record, update["Create"], types, request)
    given = update.get("Delete") or update.get("Update") or {}
    name = given["IndexName"]
    found = next((index for index in record.indexes if index.name == name and index.kind == "global"), None)
    if update.get("Delete") is not None:
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Index: {name} not found")
        return without_index(tx, record, found)
    if found is None:
        raise validation(f"The global secondary index with name: {name} does not exist")
    units = given.get("ProvisionedThroughput")
    changed = found
    if units:
        if record.billing == "PAY_PER_REQUEST":
            text = "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
            raise invalid(text)
        _require_change(found.read_units, found.write_units, units, f"index {name}")
        changed = msgspec.structs.replace(
            changed, read_units=units["ReadCapacityUnits"], write_units=units["WriteCapacityUnits"]
        )
    settings = {name: given[name] for name in ("OnDemandThroughput", "WarmThroughput") if given.get(name)}
    changed = msgspec.structs.replace(changed, settings={**changed.settings, **settings})
    indexes = tuple(changed if index is found else index for index in record.indexes)
    return msgspec.structs.replace(record, indexes=indexes)


def _with_new_index(tx: Tx, record: TableRecord, given: Request, types: dict[str, str], request: Request) -> TableRecord:
    name = given["IndexName"]
    if any(index.name == name for index in record.indexes):
        raise validation(f"Attempting to create an index which already exists: {name}")
    if sum(index.kind == "global" for index in record.indexes) >= 20:
        raise invalid("GlobalSecondaryIndex count exceeds the per-table limit of 20")
    defined = [one["AttributeName"] for one in request.get("AttributeDefinitions") or ()]
    schemas.check_global_index(given, defined, record.billing)
    for attribute in defined:
        if attribute in record.types and record.types[attribute] != types[attribute]:
            raise invalid(f"Attribute {attribute} cannot be redefined as {types[attribute]}: it is a key attribute already")
    index = schemas.index_of(given, next_number(tx), "global", status="CREATING")
    tx.put(numbered(b"Yb", index.number) + record.name.encode(), b"")
    used = {attribute for one in (*record.indexes, index) for attribute in (*one.hash, *one.range)}
    kept = {record.hash, record.range, *used}
    return msgspec.structs.replace(
        record,
        indexes=(*record.indexes, index),
        types={attribute: kind for attribute, kind in types.items() if attribute in kept},
    )


def without_index(tx: Tx, record: TableRecord, index: IndexRecord) -> TableRecord:
    """The table without the index, whose rows go in the background."""
    left = tuple(one for one in record.indexes if one is not index)
    used = {record.hash, record.range, *(name for one in left for name in (*one.hash, *one.range))}
    tx.put(numbered(b"Yz", index.number), b"")
    tx.delete(numbered(b"Yb", index.number) + record.name.encode())
    types = {name: kind for name, kind in record.types.items() if name in used}
    return msgspec.structs.replace(record, indexes=left, types=types)


def delete_table(tx: Tx, catalog: Catalog, name: str) -> TableRecord:
    """The table that was; its rows go in the background."""
    table = catalog.table(tx, name)
    if table is None:
        raise no_table(name)
    record = table.record
    if record.protected:
        raise validation(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first."
        )
    tx.delete(table_key(name))
    for number in (record.number, record.ttl_number, *(index.number for index in record.indexes)):
        if number:
            tx.put(numbered(b"Yz", number), b"")
            tx.delete(numbered(b"Yb", number) + name.encode())
    return record


# --- tags and time to live


def set_tags(tx: Tx, table: Table, given: list[Request], removed: list[str]) -> None:
    tags = {**table.record.tags, **_tags(given)}
    for name in removed:
        tags.pop(name, None)
    if len(tags) > _TAGS_MOST:
        raise validation(_TOO_MANY_TAGS)
    save(tx, msgspec.structs.replace(table.record, tags=tags))


def set_time_to_live(tx: Tx, table: Table, attribute: str, enabled: bool) -> None:
    """Raises the service's error where that is how it is already."""
    record = table.record
    if enabled:
        if record.ttl_number and record.ttl_attribute != attribute:
            raise validation(
                f"TimeToLive is active on a different AttributeName: current AttributeName is {record.ttl_attribute}"
            )
        if record.ttl_number:
            raise validation("TimeToLive is already enabled")
        number = next_number(tx)
        tx.put(numbered(b"Yb", number) + record.name.encode(), b"")
        save(tx, msgspec.structs.replace(record, ttl_attribute=attribute, ttl_number=number))
        return
    if not record.ttl_number:
        raise validation("TimeToLive is already disabled")
    if record.ttl_attribute != attribute:
        raise validation(f"TimeToLive is active on a different AttributeName: current AttributeName is {record.ttl_attribute}")
    tx.put(numbered(b"Yz", record.ttl_number), b"")
    tx.delete(numbered(b"Yb", record.ttl_number) + record.name.encode())
    save(tx, msgspec.structs.replace(record, ttl_attribute="", ttl_number=0))
