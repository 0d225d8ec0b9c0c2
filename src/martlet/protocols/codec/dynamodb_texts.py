"""How DynamoDB says that a member of a JSON body is of another type than its model's.

It has an older parser than the other services, whose words name Java's types; they were recorded from the service. Walked only
when a body was refused, so that requests which are right do not pay for it."""

from __future__ import annotations

from typing import Any, Final

from martlet.protocols.codec import scalars
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import Malformed

__all__ = ["mistyped"]

_MAP: Final = "Start of structure or map found where not expected"
_NESTED: Final = (
    "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class "
    "(sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class are in module java.base of loader "
    "'bootstrap')"
)
_PACKAGE: Final = "com.amazonaws.dynamodb.v20120810."
_JAVA: Final = {
    "string": "java.lang.String",
    "boolean": "java.lang.Boolean",
    "integer": "java.lang.Integer",
    "long": "java.lang.Long",
    "blob": "java.nio.ByteBuffer",
}
_CALLED: Final = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE", type(None): "NULL_VALUE"}


def mistyped(shape: Shape, value: Any) -> str:
    """What is wrong with a body of this shape, or "" where nothing is that the service words in its own way."""
    if type(value) is not dict:
        return ""
    return _in_members(shape, value)


def _in_members(shape: Shape, value: dict[str, Any]) -> str:
    members = {inner.wire_name(name): inner for name, inner in shape.members.items()}
    for name, item in value.items():
        inner = members.get(name)
        if inner is not None and item is not None:
            found = _wrong(inner, item, "Unexpected field type")
            if found:
                return found
    return ""


def _wrong(shape: Shape, value: Any, otherwise: str, nested: bool = False) -> str:
    """`otherwise`: what is said of a scalar in the place of a structure; `nested`: whether this is a list or map in another."""
    if shape.kind == "structure":
        if type(value) is dict:
            return _in_members(shape, value)
        return f"Unrecognized collection type class {_java(shape)}" if type(value) is list else otherwise
    if shape.kind == "list":
        if type(value) is list:
            return _first(shape.member, value)
        return _MAP if type(value) is dict else _NESTED if nested else "Unexpected field type"
    if shape.kind == "map":
        if type(value) is dict:
            return _first(shape.value, value.values())
        if type(value) is list:
            return f"Unrecognized collection type {_java(shape)}"
        return _NESTED if nested else "Unexpected field type"
    return _wrong_scalar(shape, value)


def _first(shape: Shape, values: Any) -> str:
    for value in values:
        found = "" if value is None else _wrong(shape, value, "Unexpected value type in payload", nested=True)
        if found:
            return found
    return ""


def _wrong_scalar(shape: Shape, value: Any) -> str:
    kind = shape.kind
    if type(value) is dict:
        return _MAP
    if type(value) is list:
        return f"Unrecognized collection type class {_java(shape)}"
    if kind == "blob":
        return _wrong_blob(value)
    right = {"string": str, "boolean": bool}.get(kind, int)
    if type(value) is right or (kind in scalars.INTEGER_RANGES and type(value) is float):
        return ""
    if kind == "boolean" and type(value) is str:
        return "Unexpected token received from parser"
    called = ("TRUE_VALUE" if value else "FALSE_VALUE") if type(value) is bool else _CALLED.get(type(value), "VALUE")
    return f"{called} cannot be converted to {_java(shape).rpartition('.')[2]}"


def _wrong_blob(value: Any) -> str:
    if type(value) is not str:
        return "only base-64-encoded strings are convertible to bytes"
    if len(value) % 4:
        return f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(value)}"
    try:
        scalars.base64_bytes(value)
    except Malformed:
        return "Invalid last non-pad Base64 character dectected"
    return ""


def _java(shape: Shape) -> str:
    if shape.kind == "list":
        return f"java.util.List<{_java(shape.member)}>"
    if shape.kind == "map":
        return f"java.util.Map<java.lang.String, {_java(shape.value)}>"
    return _JAVA.get(shape.kind, _PACKAGE + shape.name)
