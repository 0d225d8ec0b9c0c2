"""Attribute values in wire form: are they well-formed, how large are they, are two equal, which is less.

A value is a dict with one member that names its type: S (str), N (canonical text), B (bytes), BOOL, NULL, SS, NS, BS (lists
without duplicates), M (dict) or L (list).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from martlet.documents.dynamodb.expressions import numbers
from martlet.documents.dynamodb.expressions.errors import TwiceWorded, invalid
from martlet.errors import ServiceError

__all__ = [
    "AV",
    "DEPTH",
    "TYPES",
    "Item",
    "check",
    "check_item",
    "compare",
    "equals",
    "item_size",
    "same_set",
    "size",
    "type_of",
]

AV = Mapping[str, Any]
Item = Mapping[str, AV]

TYPES: Final = ("S", "N", "B", "SS", "NS", "BS", "M", "L", "NULL", "BOOL")
DEPTH: Final = 32  # levels, the attribute's own value is the first

_EMPTY: Final = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
_SEVERAL: Final = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
_PARAMETERS: Final = "One or more parameter values were invalid: "
_NESTED: Final = (
    "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
)


def type_of(value: AV) -> str:
    """The type's name, e.g. "NS"."""
    for name in value:
        return name
    raise invalid(_EMPTY)


def check(value: AV, level: int = 1) -> AV:
    """The value with canonical numbers, or `ServiceError` with the service's text. Never changes its argument."""
    if len(value) != 1:
        return _several(value, level)
    ((kind, content),) = value.items()
    if kind == "S" and type(content) is str:
        return value
    one = _CHECKS.get(kind)
    if one is None:
        raise invalid(_EMPTY)
    checked = one(content, level)
    return value if checked is content else {kind: checked}


def check_item(item: Item) -> dict[str, AV]:
    """An item with each value checked, in its order."""
    return {name: check(value) for name, value in item.items()}


def size(value: AV) -> int:
    """Bytes of the value in an item (developer guide, "Item sizes and formats")."""
    for kind, content in value.items():
        return _SIZES[kind](content)
    raise invalid(_EMPTY)


def item_size(item: Item) -> int:
    """Bytes of an item: names and values."""
    return sum(_text_size(name) + size(value) for name, value in item.items())


def equals(left: AV, right: AV) -> bool:
    """Are these one value? Types must be the same; sets have no order."""
    if left == right:
        return True
    kind = type_of(left)
    if kind not in right:
        return False
    ours, theirs = left[kind], right[kind]
    if kind == "M":
        return len(ours) == len(theirs) and all(name in theirs and equals(value, theirs[name]) for name, value in ours.items())
    if kind == "L":
        return len(ours) == len(theirs) and all(map(equals, ours, theirs))
    if kind in ("SS", "NS", "BS"):
        return same_set(ours, theirs)
    return False


def same_set(left: list[Any], right: list[Any]) -> bool:
    """Do two lists without duplicates have the same members?"""
    return len(left) == len(right) and set(left) == set(right)


def compare(left: AV, right: AV) -> int | None:
    """-1, 0 or 1 for texts (by UTF-8 bytes), numbers or bytes of the same type; None where there is no order."""
    kind = type_of(left)
    if kind not in right or kind not in ("S", "N", "B"):
        return None
    ours, theirs = left[kind], right[kind]
    if ours == theirs:
        return 0
    if kind == "N":
        return -1 if numbers.decimal(ours) < numbers.decimal(theirs) else 1
    return -1 if ours < theirs else 1


def _several(value: AV, level: int) -> AV:
    """A value with several members, or none: one may be of a type, each such is looked at before they are counted."""
    checked = {kind: _CHECKS[kind](content, level) for kind, content in value.items() if kind in _CHECKS}
    if not checked:
        raise invalid(_EMPTY)
    if len(checked) > 1:
        raise invalid(_SEVERAL)
    return checked


def _mistyped(content: object) -> ServiceError:
    return ServiceError("SerializationException", f"{type(content).__name__} found where another type is expected", 400)


def _text(content: Any, level: int) -> str:
    if type(content) is not str:
        raise _mistyped(content)
    return content


def _number(content: Any, level: int) -> str:
    if type(content) is not str:
        raise _mistyped(content)
    return numbers.canonical(content)


def _bytes(content: Any, level: int) -> bytes:
    if not isinstance(content, bytes | bytearray | memoryview):
        raise _mistyped(content)
    return bytes(content)


def _bool(content: Any, level: int) -> bool:
    if type(content) is not bool:
        raise _mistyped(content)
    return content


def _null(content: Any, level: int) -> bool:
    if content is not True:
        raise invalid(_PARAMETERS + "Null attribute value types must have the value of true")
    return True


def _list_of(content: Any, one: Callable[[Any, int], Any]) -> list[Any]:
    if not isinstance(content, list | tuple):
        raise _mistyped(content)
    return [one(member, 0) for member in content]


def _text_set(content: Any, level: int) -> list[str]:
    members = _list_of(content, _text)
    if not members:
        raise invalid(_PARAMETERS + "An string set  may not be empty")
    if len(set(members)) != len(members):
        shown = ", ".join(f'"{member}"' for member in _up_to_the_repeat(members))
        older = f"{_PARAMETERS}Input collection [{', '.join(members)}] contains duplicates."
        raise TwiceWorded(f"{_PARAMETERS}Input collection [{shown}] contains duplicates.", older)
    return members


def _number_set(content: Any, level: int) -> list[str]:
    members = _list_of(content, _number)
    if not members:
        raise invalid(_PARAMETERS + "An number set  may not be empty")
    if len(set(members)) != len(members):
        text = "Input collection contains duplicates"
        raise TwiceWorded(f"{_PARAMETERS}{text}.", text)
    return members


def _bytes_set(content: Any, level: int) -> list[bytes]:
    members = _list_of(content, _bytes)
    if not members:
        raise invalid(_PARAMETERS + "Binary sets should not be empty")
    if len(set(members)) != len(members):
        shown = ",".join(f'"{base64.b64encode(member).decode()}"' for member in _up_to_the_repeat(members))
        plain = ", ".join(base64.b64encode(member).decode() for member in members)
        raise TwiceWorded(
            f"{_PARAMETERS}Input collection [{shown}]of type BS contains duplicates.",
            f"{_PARAMETERS}Input collection [{plain}]of type BS contains duplicates.",
        )
    return members


def _up_to_the_repeat(members: list[Any]) -> list[Any]:
    """As the newer layer lists a set with a repeat: what is before it in order, then it, then the rest as it was sent."""
    seen: set[Any] = set()
    for number, member in enumerate(members):
        if member in seen:
            return [*sorted(seen, key=_sorting), *members[number:]]
        seen.add(member)
    return members


def _sorting(member: Any) -> bytes:
    return member.encode("utf-8", "surrogatepass") if isinstance(member, str) else bytes(member)


def _map(content: Any, level: int) -> dict[str, AV]:
    if not isinstance(content, dict):
        raise _mistyped(content)
    if level >= DEPTH and content:
        raise invalid(_NESTED)
    return {name: check(member, level + 1) for name, member in content.items()}


def _list(content: Any, level: int) -> list[AV]:
    if not isinstance(content, list | tuple):
        raise _mistyped(content)
    if level >= DEPTH and content:
        raise invalid(_NESTED)
    return [check(member, level + 1) for member in content]


_CHECKS: Final[dict[str, Callable[[Any, int], Any]]] = {
    "S": _text,
    "N": _number,
    "B": _bytes,
    "SS": _text_set,
    "NS": _number_set,
    "BS": _bytes_set,
    "M": _map,
    "L": _list,
    "NULL": _null,
    "BOOL": _bool,
}


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _one(_: object) -> int:
    return 1


_SIZES: Final[dict[str, Callable[[Any], int]]] = {
    "S": _text_size,
    "N": numbers.size,
    "B": len,
    "SS": lambda members: sum(map(_text_size, members)),
    "NS": lambda members: sum(map(numbers.size, members)),
    "BS": lambda members: sum(map(len, members)),
    "M": lambda members: 3 + sum(1 + _text_size(name) + size(member) for name, member in members.items()),
    "L": lambda members: 3 + sum(1 + size(member) for member in members),
    "NULL": _one,
    "BOOL": _one,
}
