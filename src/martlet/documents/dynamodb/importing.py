"""ImportTable, DescribeImport and ListImports, as methods of the service "dynamodb"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from martlet.documents.dynamodb import schemas
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.descriptions import table_arn
from martlet.documents.dynamodb.failures import unsupported
from martlet.documents.dynamodb.imports import ImportRecord, import_of, imports_of
from martlet.errors import ServiceError
from martlet.types import ACCOUNT

__all__ = ["ImportOperations"]

Request = dict[str, Any]


def import_arn(region: str, record: ImportRecord) -> str:
    return f"{table_arn(region, record.table)}/import/{record.id}"


def described(region: str, record: ImportRecord) -> Request:
    """An ImportTableDescription."""
    request = record.request
    answer: Request = {
        "ImportArn": import_arn(region, record),
        "ImportStatus": record.status,
        "TableArn": table_arn(region, record.table),
        "TableId": record.table_id or None,
        "StartTime": record.started_at_ms / 1000,
        "ErrorCount": record.errors,
        "ProcessedSizeBytes": record.bytes,
        "ProcessedItemCount": record.processed,
        "ImportedItemCount": record.imported,
        "FailureCode": record.code or None,
        "FailureMessage": record.message or None,
    }
    if record.ended_at_ms:
        answer["EndTime"] = record.ended_at_ms / 1000
    for name in ("ClientToken", "S3BucketSource", "InputFormat", "InputFormatOptions", "InputCompressionType"):
        answer[name] = request.get(name)
    answer["TableCreationParameters"] = request["TableCreationParameters"]
    return answer


class ImportOperations:
    """ImportTable, DescribeImport, ListImports."""

    tables: Tables
    region: str
    _ask: Callable[..., None]

    async def import_table(self, caller: Any, request: Request) -> Request:
        if request["InputFormat"] == "ION":
            raise unsupported("Importing files of the format ION")
        if request.get("InputCompressionType") == "ZSTD":
            raise unsupported("Importing files compressed with ZSTD")
        parameters = request["TableCreationParameters"]
        if parameters.get("VectorIndexes"):
            raise unsupported("A vector index")
        schemas.check_definition(parameters)
        source = request["S3BucketSource"]
        if source.get("S3BucketOwner", ACCOUNT) != ACCOUNT:
            raise unsupported("A bucket of another account")
        bucket = f"arn:aws:s3:::{source['S3Bucket']}"
        self._ask(caller.principal, "s3:ListBucket", bucket)
        self._ask(caller.principal, "s3:GetObject", f"{bucket}/{source.get('S3KeyPrefix') or ''}*")
        record = await self.tables.imports.begin(parameters["TableName"], request)
        return {"ImportTableDescription": described(self.region, record)}

    async def describe_import(self, caller: Any, request: Request) -> Request:
        arn = request["ImportArn"]
        record = self.tables.store.read(lambda reader: import_of(reader, arn.rpartition("/import/")[2]))
        if record is None or import_arn(self.region, record) != arn:
            raise ServiceError("ImportNotFoundException", f"Import not found: {arn}")
        return {"ImportTableDescription": described(self.region, record)}

    async def list_imports(self, caller: Any, request: Request) -> Request:
        wanted, after = request.get("TableArn"), request.get("NextToken") or ""
        found = [one for one in reversed(self.tables.store.read(imports_of)) if not after or one.id < after]
        found = [one for one in found if not wanted or table_arn(self.region, one.table) == wanted]
        most = request.get("PageSize") or 25
        names = ("ImportArn", "ImportStatus", "TableArn", "S3BucketSource", "InputFormat", "StartTime", "EndTime")
        told = [described(self.region, one) for one in found[:most]]
        answer: Request = {"ImportSummaryList": [{name: one.get(name) for name in names} for one in told]}
        if len(found) > most:
            answer["NextToken"] = found[most - 1].id
        return answer
