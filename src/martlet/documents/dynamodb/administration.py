"""The operations on tables themselves, as methods of the service "dynamodb"."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb import definitions, schemas
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.descriptions import described, names_after, table_arn
from martlet.documents.dynamodb.failures import invalid, no_table, other_account, unsupported, validation
from martlet.documents.dynamodb.importing import ImportOperations
from martlet.documents.dynamodb.policies import Policies, checked_policy
from martlet.documents.dynamodb.requests import table_name
from martlet.documents.dynamodb.tables import Table, TableRecord
from martlet.errors import ServiceError
from martlet.store import Reader, Tx
from martlet.types import ACCOUNT

__all__ = ["Administration"]

Request = dict[str, Any]
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_ARN: Final = re.compile(r"arn:aws:dynamodb:(?P<region>[^:]+):(?P<account>[0-9]+):table/(?P<name>[a-zA-Z0-9_.-]{3,255})")
_LIST_MOST: Final = 100
_TAGS_PAGE: Final = 10
_ON_TABLES: Final = (
    *("ReplicaUpdates", "MultiRegionConsistency", "GlobalTableWitnessUpdates", "GlobalTableSourceArn"),
    *("GlobalTableSettingsReplicationMode", "DisassociationProtectionEnabled", "VectorIndexes", "VectorIndexUpdates"),
)
_ON_TABLES_TEXT: Final = "Global tables and vector indexes are not there: the parameter {name}"


class Administration(ImportOperations, Policies):
    """Tables: made, described, changed, removed; their tags, their time to live, the limits."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.region = tables.region

    # --- tables

    async def create_table(self, caller: Any, request: Request) -> Request:
        _refuse(request)
        name = table_name(request["TableName"])
        schemas.check_definition(request)
        if request.get("ResourcePolicy"):
            checked_policy(request["ResourcePolicy"])
        tables = self.tables

        def make(tx: Tx) -> Request:
            record = definitions.create_table(tx, tables.catalog, name, request, self.region)
            return described(tx, record, self.region)  # it is there, and takes items, when this is answered

        return {"TableDescription": await tables.change(make)}

    async def describe_table(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])
        return {"Table": self.tables.store.read(lambda reader: described(reader, self._record(reader, name), self.region))}

    def _record(self, reader: Reader, name: str) -> TableRecord:
        return self._table(reader, name).record

    def _table(self, reader: Reader, name: str) -> Table:
        table = self.tables.catalog.table(reader, name)
        if table is None:
            raise no_table(name)
        return table

    async def list_tables(self, caller: Any, request: Request) -> Request:
        most = request.get("Limit") or _LIST_MOST
        after = request.get("ExclusiveStartTableName") or ""
        found = self.tables.store.read(lambda reader: names_after(reader, after, most + 1))
        answer: Request = {"TableNames": found[:most]}
        if len(found) > most:
            answer["LastEvaluatedTableName"] = found[most - 1]
        return answer

    async def delete_table(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])

        def remove(tx: Tx) -> Request:
            record = self._record(tx, name)
            answer = described(tx, record, self.region, "DELETING")
            definitions.delete_table(tx, self.tables.catalog, name)
            return answer

        return {"TableDescription": await self.tables.change(remove)}

    async def update_table(self, caller: Any, request: Request) -> Request:
        _refuse(request)
        name = table_name(request["TableName"])
        _check_update(request)

        def update(tx: Tx) -> Request:
            record = definitions.update_table(tx, self._record(tx, name), request, self.region)
            status = "UPDATING" if _takes_time(request) else "ACTIVE"
            return described(tx, record, self.region, status)

        return {"TableDescription": await self.tables.change(update)}

    # --- tags

    async def tag_resource(self, caller: Any, request: Request) -> None:
        name = self._resource(caller, "TagResource", request)
        if not request["Tags"]:
            raise validation("Atleast one Tag needs to be provided as Input.")
        await self.tables.change(
            lambda tx: definitions.set_tags(tx, self._resource_table(tx, name, request), request["Tags"], [])
        )

    async def untag_resource(self, caller: Any, request: Request) -> None:
        name = self._resource(caller, "UntagResource", request)
        if not request["TagKeys"]:
            raise validation("Atleast one Tag Key needs to be provided as Input.")
        await self.tables.change(
            lambda tx: definitions.set_tags(tx, self._resource_table(tx, name, request), [], request["TagKeys"])
        )

    async def list_tags_of_resource(self, caller: Any, request: Request) -> Request:
        name = self._resource(caller, "ListTagsOfResource", request)
        table = self.tables.store.read(lambda reader: self._resource_table(reader, name, request))
        tags = [{"Key": key, "Value": value} for key, value in sorted(table.record.tags.items())]
        after = request.get("NextToken") or ""
        tags = [tag for tag in tags if tag["Key"] > after]
        answer: Request = {"Tags": tags[:_TAGS_PAGE]}
        if len(tags) > _TAGS_PAGE:
            answer["NextToken"] = tags[_TAGS_PAGE - 1]["Key"]
        return answer

    def _resource(self, caller: Any, operation: str, request: Request) -> str:
        arn = request["ResourceArn"]
        found = _ARN.fullmatch(arn)
        if not arn.startswith("arn:"):
            raise validation("Invalid TableArn: ARNs must start with 'arn:'")
        if found is None:
            raise validation(f"Invalid TableArn: Invalid ResourceArn provided as input {arn}")
        if (found["region"], found["account"]) != (self.region, ACCOUNT):
            raise other_account(caller.principal, operation, arn)
        return found["name"]

    def _resource_table(self, reader: Reader, name: str, request: Request) -> Table:
        arn = request["ResourceArn"]
        table = self.tables.catalog.table(reader, name) if arn == table_arn(self.region, name) else None
        if table is None:
            raise ServiceError("ResourceNotFoundException", f"Requested resource not found: ResourcArn: {arn} not found")
        return table

    # --- time to live

    async def update_time_to_live(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])
        wanted = request["TimeToLiveSpecification"]
        attribute = wanted["AttributeName"]
        if not attribute:
            raise validation("TimeToLiveSpecification.AttributeName must be non empty")
        await self.tables.change(
            lambda tx: definitions.set_time_to_live(tx, self._table(tx, name), attribute, bool(wanted["Enabled"]))
        )
        return {"TimeToLiveSpecification": wanted}

    async def describe_time_to_live(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])
        record = self.tables.store.read(lambda reader: self._record(reader, name))
        if not record.ttl_number:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": record.ttl_attribute}}

    # --- what is only told

    async def describe_limits(self, caller: Any, request: Request) -> Request:
        return {
            "AccountMaxReadCapacityUnits": 80_000,
            "AccountMaxWriteCapacityUnits": 80_000,
            "TableMaxReadCapacityUnits": 40_000,
            "TableMaxWriteCapacityUnits": 40_000,
        }

    async def describe_endpoints(self, caller: Any, request: Request) -> Request:
        address = str(caller.endpoint).partition("://")[2]
        return {"Endpoints": [{"Address": address, "CachePeriodInMinutes": 1440}]}

    async def describe_continuous_backups(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])
        table = self.tables.store.read(lambda reader: self.tables.catalog.table(reader, name))
        if table is None:
            raise ServiceError("TableNotFoundException", f"Table not found: {name}")
        days = table.record.recovery_days
        recovery: Request = {"PointInTimeRecoveryStatus": "ENABLED" if days else "DISABLED"}
        if days:  # without the times between which there were something to restore: there is nothing
            recovery["RecoveryPeriodInDays"] = days
        return {
            "ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "ENABLED",
                "PointInTimeRecoveryDescription": recovery,
            }
        }

    async def update_continuous_backups(self, caller: Any, request: Request) -> Request:
        """Remembered, for templates and clients that set it: what would restore a table is refused by name."""
        name = table_name(request["TableName"])
        wanted = request["PointInTimeRecoverySpecification"]
        days = wanted.get("RecoveryPeriodInDays") or 35 if wanted.get("PointInTimeRecoveryEnabled") else 0

        def write(tx: Tx) -> None:
            table = self.tables.catalog.table(tx, name)
            if table is None:
                raise ServiceError("TableNotFoundException", f"Table not found: {name}")
            definitions.save(tx, msgspec.structs.replace(table.record, recovery_days=days))

        await self.tables.change(write)
        return await self.describe_continuous_backups(caller, request)

    async def list_backups(self, caller: Any, request: Request) -> Request:
        return {"BackupSummaries": []}

    async def list_exports(self, caller: Any, request: Request) -> Request:
        return {"ExportSummaries": []}

    async def list_global_tables(self, caller: Any, request: Request) -> Request:
        return {"GlobalTables": []}

    async def list_contributor_insights(self, caller: Any, request: Request) -> Request:
        return {"ContributorInsightsSummaries": []}

    async def describe_kinesis_streaming_destination(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])
        self.tables.store.read(lambda reader: self._record(reader, name))
        return {"TableName": name, "KinesisDataStreamDestinations": []}

    async def describe_contributor_insights(self, caller: Any, request: Request) -> Request:
        name = table_name(request["TableName"])
        self.tables.store.read(lambda reader: self._record(reader, name))
        answer: Request = {"TableName": name, "ContributorInsightsStatus": "DISABLED"}
        if request.get("IndexName"):
            answer["IndexName"] = request["IndexName"]
        return answer


def _refuse(request: Request) -> None:
    """What cannot be honoured."""
    for name in _ON_TABLES:
        if request.get(name):
            raise unsupported(_ON_TABLES_TEXT.format(name=name))


def _check_update(request: Request) -> None:
    given = [
        *("ProvisionedThroughput", "BillingMode", "StreamSpecification", "SSESpecification", "DeletionProtectionEnabled"),
        *("TableClass", "OnDemandThroughput", "WarmThroughput"),
    ]
    updates = request.get("GlobalSecondaryIndexUpdates")
    if not updates and all(request.get(name) is None for name in given):
        raise validation(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or "
            "SSESpecification or ReplicaUpdates is required"
        )
    if request.get("BillingMode") == "PROVISIONED" and not request.get("ProvisionedThroughput"):
        raise invalid("ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
    schemas.check_units(request.get("ProvisionedThroughput"))
    names: set[str] = set()
    for update in updates or ():
        kinds = [kind for kind in ("Update", "Create", "Delete") if update.get(kind) is not None]
        if not kinds:
            raise invalid(
                "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, "
                "GlobalSecondaryIndexUpdate.Delete must not be null"
            )
        if len(kinds) > 1:
            raise invalid("Only one of Update, Create and Delete may be in one GlobalSecondaryIndexUpdate")
        name = update[kinds[0]]["IndexName"]
        if name in names:
            raise invalid(f"Only one global secondary index update per index is allowed simultaneously. Index: {name}")
        names.add(name)
    changing = sum(1 for update in updates or () if update.get("Create") or update.get("Delete"))
    if changing > 1:
        raise ServiceError(
            "LimitExceededException",
            "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table",
        )


def _takes_time(request: Request) -> bool:
    return any(
        request.get(name)
        for name in ("ProvisionedThroughput", "BillingMode", "StreamSpecification", "GlobalSecondaryIndexUpdates")
    )
