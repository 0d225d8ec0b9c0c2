"""Scalars beyond GraphQL's own: exact whole numbers of 64 bits, decimals, times, dates, bytes, any JSON.

`Long` is a JSON number and exact in the JSON text; a client that reads numbers as doubles takes `BigInt`, a text. `Decimal` is
a text. All of them take a number or a text. `DateTime` is RFC 3339 with a time zone, answered in UTC.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from graphql import GraphQLError, GraphQLScalarType
from graphql.language import ast

from martlet.documents import values
from martlet.errors import MartletError

__all__ = ["make_scalars"]

_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_TOO_LONG: Final = 400  # characters of a number
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def make_scalars() -> dict[str, GraphQLScalarType]:
    """Our scalars by name: new ones, since a schema owns its types."""
    described: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], str]] = {
        "Long": (_long, _long, "A whole number of 64 bits: an exact JSON number."),
        "BigInt": (_long, lambda value: str(_long(value)), "A whole number of 64 bits, as a text."),
        "Decimal": (_decimal, lambda value: str(_decimal(value)), "A decimal of up to 38 digits, as a text."),
        "DateTime": (_moment, _shown_moment, "A moment as RFC 3339 writes it, to the microsecond; answered in UTC."),
        "Date": (_date, _date, "A date: 2026-11-21."),
        "Bytes": (_bytes, _shown_bytes, "Bytes in base64 (RFC 4648 section 4)."),
        "JSON": (_json, _shown_json, "Any JSON."),
    }
    return {name: _scalar(name, *parts) for name, parts in described.items()}


def _scalar(name: str, taken: Callable[[Any], Any], shown: Callable[[Any], Any], text: str) -> GraphQLScalarType:
    def coerced(value: Any) -> Any:
        try:
            return taken(value)
        except (ValueError, TypeError, InvalidOperation, OverflowError, binascii.Error, MartletError) as error:
            raise GraphQLError(f"{name} cannot represent {str(value)[:80]!r}: {error}") from None

    def given(value: Any) -> Any:
        try:
            return shown(value)
        except (ValueError, TypeError, InvalidOperation, OverflowError, binascii.Error, MartletError) as error:
            raise GraphQLError(f"{name} cannot represent {str(value)[:80]!r}: {error}") from None

    return GraphQLScalarType(
        name,
        coerce_output_value=given,
        coerce_input_value=coerced,
        coerce_input_literal=lambda node, *_: coerced(_literal(node, name)),
        description=text,
    )


def _literal(node: Any, name: str) -> Any:
    """A constant as JSON would have it. Numbers that are absurdly long are not read at all."""
    if isinstance(node, ast.StringValueNode | ast.BooleanValueNode):
        return node.value
    if isinstance(node, ast.IntValueNode | ast.FloatValueNode):
        if len(node.value) > _TOO_LONG:
            raise GraphQLError(f"{name} cannot represent a number of {len(node.value)} characters", node)
        if name == "Decimal":
            return node.value
        return int(node.value) if isinstance(node, ast.IntValueNode) else float(node.value)
    if isinstance(node, ast.NullValueNode):
        return None
    if name == "JSON":
        if isinstance(node, ast.ListValueNode):
            return [_literal(item, name) for item in node.values]
        if isinstance(node, ast.ObjectValueNode):
            return {field.name.value: _literal(field.value, name) for field in node.fields}
    raise GraphQLError(f"{name} cannot represent this literal", node)


def _long(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, Decimal | float) and value == value.__trunc__():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("it is no whole number")
    if not _LEAST <= value <= _MOST:
        raise ValueError("it has more than 64 bits")
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        if len(value) > _TOO_LONG or not value.isascii() or "_" in value:
            raise ValueError("it is no decimal")
        value = Decimal(value)
    elif isinstance(value, float):
        value = Decimal(repr(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise ValueError("it is no decimal")
    return values.checked_decimal(value)


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise ValueError("it is no moment as RFC 3339 writes it")
    if value.tzinfo is None:
        raise ValueError("it has no time zone")
    return value.astimezone(UTC)


def _shown_moment(value: Any) -> str:
    return _moment(value).isoformat().replace("+00:00", "Z")


def _date(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII):
        raise ValueError("it is no date such as 2026-11-21")
    return date.fromisoformat(value).isoformat()


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("it is no text")
    return b64decode(value, validate=True)


def _shown_bytes(value: Any) -> str:
    if not isinstance(value, bytes):
        raise ValueError("it is stored as something else")
    return b64encode(value).decode()


def _json(value: Any) -> Any:
    values.dumps(value, bounded=False)
    return value


def _shown_json(value: Any) -> Any:
    """As the document has it: what JSON has no form for is tagged, as it is everywhere in the document database."""
    import msgspec

    return msgspec.Raw(values.dumps(value, bounded=False))
