"""Resource-based policies of tables: put, read, deleted. What they decide is `auth`'s."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from martlet.auth import check_resource_policy
from martlet.documents.dynamodb import definitions
from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.failures import no_table, unsupported, validation
from martlet.documents.dynamodb.tables import TableRecord
from martlet.errors import ServiceError
from martlet.store import Reader, Tx

__all__ = ["Policies", "checked_policy"]

Request = dict[str, Any]
_BYTES_MOST: Final = 20_480  # developer guide, "Resource-based policy considerations"
_NOT_FOUND: Final = "Resource-based policy not found for the provided ResourceArn: "
_NONE: Final = "NO_POLICY"


def checked_policy(text: str) -> str:
    """The policy, or the service's error for what is none."""
    if len(text.encode()) > _BYTES_MOST:
        raise validation(f"Resource-based policy size exceeds the limit of {_BYTES_MOST} bytes")
    try:
        check_resource_policy(text)
    except ServiceError as error:
        raise validation(f"Invalid policy document: {error.message}") from error
    return text


class Policies:
    """Operations on the policies of tables."""

    tables: Tables

    async def put_resource_policy(self, caller: Any, request: Request) -> Request:
        name = _table_of(request)
        text = checked_policy(request["Policy"])

        def put(tx: Tx) -> str:
            record = self._policed(tx, name)
            _check_revision(record, request.get("ExpectedRevisionId"))
            if record.policy == text:
                return record.policy_revision
            revision = str(max(tx.now_ms, int(record.policy_revision or 0) + 1))
            definitions.save(tx, msgspec.structs.replace(record, policy=text, policy_revision=revision))
            return revision

        return {"RevisionId": await self.tables.change(put)}

    async def get_resource_policy(self, caller: Any, request: Request) -> Request:
        name = _table_of(request)
        record = self.tables.store.read(lambda reader: self._policed(reader, name))
        if not record.policy:
            raise _no_policy(request["ResourceArn"])
        return {"Policy": record.policy, "RevisionId": record.policy_revision}

    async def delete_resource_policy(self, caller: Any, request: Request) -> Request:
        name = _table_of(request)

        def delete(tx: Tx) -> str:
            record = self._policed(tx, name)
            _check_revision(record, request.get("ExpectedRevisionId"))
            if record.policy:
                definitions.save(tx, msgspec.structs.replace(record, policy="", policy_revision=""))
            return record.policy_revision

        return {"RevisionId": await self.tables.change(delete) or None}

    def _policed(self, reader: Reader, name: str) -> TableRecord:
        table = self.tables.catalog.table(reader, name)
        if table is None:
            raise no_table(name)
        return table.record


def _table_of(request: Request) -> str:
    arn = request["ResourceArn"]
    prefix, _, path = arn.partition(":table/")
    if not prefix.startswith("arn:aws:dynamodb:") or not path:
        raise validation(f"Invalid ResourceArn: {arn}")
    name, _, rest = path.partition("/")
    if rest:
        raise unsupported("A resource-based policy of anything but a table")
    return str(name)


def _check_revision(record: TableRecord, expected: str | None) -> None:
    if expected is None or expected == (record.policy_revision or _NONE):
        return
    if expected == _NONE:
        raise _no_policy(
            f"Requested policy update expecting none to be present for table {record.name}, but a policy exists with revision "
            f"id {record.policy_revision}."
        )
    text = f"Requested update for policy with revision id {expected}, but "
    if record.policy:
        raise _no_policy(f"{text}the policy associated to target table {record.name} has revision id {record.policy_revision}.")
    raise _no_policy(f"{text}no policy is associated to target table {record.name}.")


def _no_policy(what: str) -> ServiceError:
    return ServiceError("PolicyNotFoundException", _NOT_FOUND + what)
