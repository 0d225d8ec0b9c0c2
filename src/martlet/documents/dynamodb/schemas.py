"""What a table's definition must be: keys, attribute definitions, indexes, projections, throughput. In the service's order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from martlet.documents.dynamodb.failures import invalid, validation
from martlet.documents.dynamodb.tables import IndexRecord

__all__ = ["billing_of", "check_definition", "check_units", "index_of", "types_of"]

Request = dict[str, Any]

_LOCAL_MOST: Final = 5
_GLOBAL_MOST: Final = 20
_EACH_MOST: Final = 4  # attributes of a global index's partition key, and of its sort key
_PROJECTED_MOST: Final = 100
_UNITS_MOST: Final = 1_000_000_000_000


def types_of(definitions: Iterable[Request]) -> dict[str, str]:
    return {one["AttributeName"]: one["AttributeType"] for one in definitions}


def billing_of(request: Request) -> str:
    return str(request.get("BillingMode") or "PROVISIONED")


def check_units(given: Request | None) -> None:
    for name in ("ReadCapacityUnits", "WriteCapacityUnits"):
        if given and given[name] > _UNITS_MOST:
            raise validation(f"Given value {given[name]} for {name} is out of bounds")


def check_definition(request: Request) -> None:
    """A CreateTable request."""
    for name in ("AttributeDefinitions", "KeySchema"):  # the model does not demand them, since a table may be a replica
        if request.get(name) is None:
            member = name[0].lower() + name[1:]
            raise validation(
                f"1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
            )
    given = request.get("ProvisionedThroughput")
    if billing_of(request) == "PAY_PER_REQUEST":
        if given:
            text = "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
            raise invalid(text)
    elif not given:
        raise invalid("ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
    check_units(given)
    defined = [one["AttributeName"] for one in request["AttributeDefinitions"]]
    for name in defined:
        if defined.count(name) > 1:
            raise invalid(f"Duplicate AttributeName in AttributeDefinitions: {name}")
    _check_keys(request["KeySchema"], defined)
    local, everywhere = request.get("LocalSecondaryIndexes"), request.get("GlobalSecondaryIndexes")
    if local is None and everywhere is None and len(request["KeySchema"]) != len(defined):
        raise invalid(
            "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions"
        )
    names: set[str] = set()
    if local is not None:
        _check_local(request, local, defined, names)
    if everywhere is not None:
        _check_global(request, everywhere, defined, names)
    _check_all_used(request, defined)
    _check_projected(request)


def _check_local(request: Request, local: list[Request], defined: list[str], names: set[str]) -> None:
    if not local:
        raise invalid("List of LocalSecondaryIndexes is empty")
    if len(request["KeySchema"]) != 2:
        raise invalid("Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex")
    table_hash = request["KeySchema"][0]["AttributeName"]
    for index in local:
        name, keys = index["IndexName"], index["KeySchema"]
        _check_keys(keys, defined)
        if len(keys) != 2:
            raise invalid(f"Index KeySchema does not have a range key for index: {name}")
        if keys[0]["AttributeName"] != table_hash:
            raise invalid(
                f"Index KeySchema does not have the same leading hash key as table KeySchema for index: {name}. "
                f"index hash key: {keys[0]['AttributeName']}, table hash key: {table_hash}"
            )
        _check_projection(index)
        _check_new(name, names)
    if len(local) > _LOCAL_MOST:
        raise invalid(f"Number of LocalSecondaryIndexes exceeds per-table limit of {_LOCAL_MOST}")


def _check_global(request: Request, indexes: list[Request], defined: list[str], names: set[str]) -> None:
    if not indexes:
        raise invalid("List of GlobalSecondaryIndexes is empty")
    for index in indexes:
        check_global_index(index, defined, billing_of(request))
        _check_new(index["IndexName"], names)
    if len(indexes) > _GLOBAL_MOST:
        raise invalid(f"GlobalSecondaryIndex count exceeds the per-table limit of {_GLOBAL_MOST}")


def check_global_index(index: Request, defined: list[str], billing: str) -> None:
    """One global index, of a new table or of one that is there."""
    name = index["IndexName"]
    _check_keys(index["KeySchema"], defined, each=_EACH_MOST)
    _check_projection(index)
    given = index.get("ProvisionedThroughput")
    if billing == "PAY_PER_REQUEST" and given:
        raise invalid(f"ProvisionedThroughput should not be specified for index: {name} when BillingMode is PAY_PER_REQUEST")
    if billing == "PROVISIONED" and not given:
        raise invalid(f"ProvisionedThroughput must be specified for index: {name}")
    check_units(given)


def _check_new(name: str, names: set[str]) -> None:
    if name in names:
        raise invalid(f"Duplicate index name: {name}")
    names.add(name)


def _check_keys(schema: list[Request], defined: list[str], each: int = 1) -> None:
    """`each`: how many attributes a partition key and a sort key may have; more than one in global indexes only."""
    names = [one["AttributeName"] for one in schema]
    kinds = [one["KeyType"] for one in schema]
    if each == 1:
        if len(schema) > 2:
            shown = ", ".join(f"KeySchemaElement(attributeName={n}, keyType={k})" for n, k in zip(names, kinds, strict=True))
            raise validation(
                f"1 validation error detected: Value '[{shown}]' at 'keySchema' failed to satisfy constraint: "
                "Member must have length less than or equal to 2"
            )
        if len(names) > len(defined):
            raise validation("Invalid KeySchema: Some index key attribute have no definition")
    if any(name not in defined for name in names):
        raise invalid(
            "Some index key attributes are not defined in AttributeDefinitions. "
            f"Keys: [{', '.join(names)}], AttributeDefinitions: [{', '.join(defined)}]"
        )
    if len(set(names)) < len(names):
        raise validation("Both the Hash Key and the Range Key element in the KeySchema have the same name")
    if kinds[0] != "HASH":
        raise validation("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
    if each == 1 and len(kinds) > 1 and kinds[1] != "RANGE":
        raise validation("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
    if kinds != sorted(kinds):
        raise validation("Invalid KeySchema: All HASH key elements must precede the RANGE key elements")
    for kind in ("HASH", "RANGE"):
        if kinds.count(kind) > each:
            raise validation(f"Invalid KeySchema: The number of {kind} key elements exceeds the limit of {each}")


def _check_projection(index: Request) -> None:
    projection = index["Projection"]
    kind, attributes = projection.get("ProjectionType"), projection.get("NonKeyAttributes")
    if kind is None:
        raise invalid("Unknown ProjectionType: null")
    if attributes and kind != "INCLUDE":
        raise invalid(f"ProjectionType is {kind}, but NonKeyAttributes is specified")
    if len(set(attributes or ())) < len(attributes or ()):
        raise invalid("Duplicate attribute in NonKeyAttributes")
    if not attributes and kind == "INCLUDE":
        raise invalid("ProjectionType is INCLUDE, but NonKeyAttributes is not specified")


def _check_all_used(request: Request, defined: list[str]) -> None:
    schemas = [request["KeySchema"]]
    for index in (*(request.get("LocalSecondaryIndexes") or ()), *(request.get("GlobalSecondaryIndexes") or ())):
        schemas.append(index["KeySchema"])
    check_used(defined, (one["AttributeName"] for schema in schemas for one in schema))


def check_used(defined: list[str], names: Iterable[str]) -> None:
    used = list(dict.fromkeys(names))
    if any(name not in used for name in defined):
        raise invalid(
            f"Some AttributeDefinitions are not used. AttributeDefinitions: [{', '.join(defined)}], "
            f"keys used: [{', '.join(used)}]"
        )


def _check_projected(request: Request) -> None:
    indexes = (*(request.get("LocalSecondaryIndexes") or ()), *(request.get("GlobalSecondaryIndexes") or ()))
    count = sum(len(index["Projection"].get("NonKeyAttributes") or ()) for index in indexes)
    if count > _PROJECTED_MOST:
        raise invalid(f"Number of projected attributes exceeds the per-table limit of {_PROJECTED_MOST}")


def index_of(given: Request, number: int, kind: str, status: str = "ACTIVE") -> IndexRecord:
    """The record of an index as it was asked for."""
    units = given.get("ProvisionedThroughput") or {}
    schema = given["KeySchema"]
    settings = {name: given[name] for name in ("OnDemandThroughput", "WarmThroughput") if given.get(name)}
    return IndexRecord(
        name=given["IndexName"],
        number=number,
        kind=kind,
        hash=tuple(one["AttributeName"] for one in schema if one["KeyType"] == "HASH"),
        range=tuple(one["AttributeName"] for one in schema if one["KeyType"] == "RANGE"),
        projection=given["Projection"]["ProjectionType"],
        attributes=tuple(given["Projection"].get("NonKeyAttributes") or ()),
        status=status,
        read_units=units.get("ReadCapacityUnits", 0),
        write_units=units.get("WriteCapacityUnits", 0),
        settings=settings,
    )
