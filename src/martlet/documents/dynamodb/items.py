"""What an item, and what a key, of a table must be. Errors in the service's own words."""

from __future__ import annotations

from typing import Any, Final

from martlet.documents.dynamodb.expressions import values
from martlet.documents.dynamodb.expressions.errors import TwiceWorded
from martlet.documents.dynamodb.failures import invalid, validation
from martlet.documents.dynamodb.tables import HASH_BYTES, RANGE_BYTES, Index, Item, Table

__all__ = [
    "ITEM_BYTES",
    "check_index_keys",
    "check_item_keys",
    "check_key",
    "check_key_value",
    "check_size",
    "checked",
    "item_size",
    "type_of",
]

ITEM_BYTES: Final = 409_600
_EMPTY: Final = {"S": "string", "B": "binary"}

item_size = values.item_size


def type_of(value: dict[str, Any]) -> str:
    """The type in a value that was checked."""
    return next(iter(value))


def checked(item: Item) -> Item:
    """The item with its numbers in their canonical form. Raises the service's error for what is no value."""
    if "" in item:
        raise TwiceWorded("One or more parameter values were invalid: Empty attribute name", "Empty attribute name")
    return values.check_item(item)  # type: ignore[return-value]


def check_size(item: Item) -> int:
    """The item's size in bytes. Raises when it is too large to be put."""
    size = item_size(item)
    if size > ITEM_BYTES:
        raise validation("Item size has exceeded the maximum allowed size")
    return size


def check_item_keys(table: Table, item: Item) -> None:
    """Whether an item to be put has the table's key, and no index key of a wrong type."""
    for name in table.keys:
        value = item.get(name)
        if value is None:
            raise invalid(f"Missing the key {name} in the item")
        kind = table.types[name]
        if kind not in value:
            raise invalid(f"Type mismatch for key {name} expected: {kind} actual: {type_of(value)}")
        _check_not_empty(name, kind, value[kind])
        _check_key_bytes(value, kind, name == table.hash)
    check_index_keys(table, item, None)


def check_index_keys(table: Table, item: Item, before: Item | None) -> None:
    """Whether what an item has under the names of index keys can be index keys. `before`: what was there is not checked again;
    None: the item is put, and not updated."""
    for index in table.indexes:
        for name in index.keys:
            value = item.get(name)
            if value is None or name in table.key_attributes or (before and before.get(name) == value):
                continue
            kind = index.types[name]
            if kind not in value:
                text = f"Type mismatch for Index Key {name} Expected: {kind} Actual: {type_of(value)} IndexName: {index.name}"
                raise invalid(text)
            if kind in _EMPTY and not value[kind]:
                empty = f"The AttributeValue for a key attribute cannot contain an empty {_EMPTY[kind]} value."
                if before is None:
                    text = "A value specified for a secondary index key is not supported."
                else:
                    text = "The update expression attempted to update a secondary index key to a value that is not supported."
                place = f" IndexName: {index.name}, IndexKey: {name}"
                raise validation(f"One or more parameter values are not valid. {text} {empty}{place}")
            _check_index_bytes(index, name, value, kind)
        if len(index.range) > 1:
            _check_index_range(index, item)


def _check_index_range(index: Index, item: Item) -> None:
    """The sort key of an index may have several attributes, which share the bound."""
    sizes = [
        _bytes_of(kind, item[name][kind])
        for name, kind in index.types.items()
        if name in index.range and kind in item.get(name, {})
    ]
    if sum(sizes) > RANGE_BYTES:
        raise invalid(f"Aggregated size of all range keys has exceeded the size limit of {RANGE_BYTES} bytes")


def _check_index_bytes(index: Index, name: str, value: dict[str, Any], kind: str) -> None:
    if kind == "N":
        return
    size = _bytes_of(kind, value[kind])
    if name in index.hash and size > HASH_BYTES:
        raise invalid(f"Size of hashkey has exceeded the maximum size limit of{HASH_BYTES} bytes")
    if name in index.range and size > RANGE_BYTES:
        raise invalid(f"Aggregated size of all range keys has exceeded the size limit of {RANGE_BYTES} bytes")


def check_key(table: Table, key: Item) -> None:
    """Whether a key is one of the table."""
    if len(key) != len(table.keys):
        raise validation("The provided key element does not match the schema")
    for name in table.keys:
        check_key_value(key, name, table.types[name], name == table.hash)


def check_key_value(key: Item, name: str, kind: str, is_hash: bool) -> None:
    value = key.get(name)
    if value is None or kind not in value:
        raise validation("The provided key element does not match the schema")
    _check_not_empty(name, kind, value[kind])
    _check_key_bytes(value, kind, is_hash)


def _check_not_empty(name: str, kind: str, content: Any) -> None:
    if not content and kind in _EMPTY:
        raise validation(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty "
            f"{_EMPTY[kind]} value. Key: {name}"
        )


def _check_key_bytes(value: dict[str, Any], kind: str, is_hash: bool) -> None:
    if kind == "N":
        return
    size = _bytes_of(kind, value[kind])
    if is_hash and size > HASH_BYTES:
        raise invalid(f"Size of hashkey has exceeded the maximum size limit of{HASH_BYTES} bytes")
    if not is_hash and size > RANGE_BYTES:
        raise invalid(f"Aggregated size of all range keys has exceeded the size limit of {RANGE_BYTES} bytes")


def _bytes_of(kind: str, content: Any) -> int:
    return len(content) if kind == "B" or content.isascii() else len(content.encode())
