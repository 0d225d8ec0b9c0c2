"""Python values to JSON: the one encoder for answers, payloads and documents.

Beyond JSON's own types: pydantic models, msgspec Structs, dataclasses, Enum (its value), UUID, Decimal (text, exact), datetime,
date and time (ISO 8601), sets and tuples (arrays). NaN and infinities are not JSON (RFC 8259 section 6): `ValueError`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Unencodable", "dumps", "plain"]

_ATOMS = frozenset((str, int, float, bool, type(None)))


class Unencodable(TypeError):
    """A function's result has no JSON form. The runtime reports it as Lambda does: Runtime.MarshalError, without a stack."""

    __martlet_error_type__ = "Runtime.MarshalError"


def dumps(value: Any) -> str:
    """JSON text without spaces. Raises `TypeError` for a type without a JSON form, `ValueError` for NaN and cycles."""
    import json

    text = json.dumps(value, default=_lower, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, legal in a JSON escape (RFC 8259 section 8.2) but not in UTF-8
            return json.dumps(value, default=_lower, allow_nan=False, separators=(",", ":"))
    return text


def plain(value: Any) -> Any:
    """The same lowering, to Python's own JSON types, for a value that somebody else will write."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (str, int, float)):  # subclasses, IntEnum and StrEnum among them
        return _atom(value)
    return plain(_lower(value))


def _key(key: Any) -> Any:
    return _atom(key) if isinstance(key, str) else key


def _atom(value: Any) -> Any:
    """The bare str, int or float under a subclass of it."""
    for base in (str, int, float):
        if isinstance(value, base):
            return base.__str__(value) if base is str else base(value)
    return value


def _lower(value: Any) -> Any:
    """One step down: a value in terms of simpler ones."""
    kind = type(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(kind, "__struct_fields__"):
        return sys.modules["msgspec"].to_builtins(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__}
    if isinstance(value, (set, frozenset)):
        return list(value)
    modules = sys.modules
    if "enum" in modules and isinstance(value, modules["enum"].Enum):
        return value.value
    if "uuid" in modules and isinstance(value, modules["uuid"].UUID):
        return str(value)
    if "decimal" in modules and isinstance(value, modules["decimal"].Decimal):
        return str(value)
    if "datetime" in modules:
        moments = modules["datetime"]
        if isinstance(value, (moments.datetime, moments.date, moments.time)):
            return value.isoformat()
    hint = ": return it as Response(body)" if isinstance(value, (bytes, bytearray, memoryview)) else ""
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} has no JSON form{hint}")
