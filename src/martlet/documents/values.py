"""Values of documents: JSON with exact 64-bit integers, and tagged decimals, bytes, timestamps and sets.

On the wire and on disk a value is JSON text; what JSON has no form for is an object with one reserved field:

    {"$decimal": "1.10"}   Decimal, up to 38 digits       {"$bytes": "AAE="}   bytes, base64 (RFC 4648 section 4)
    {"$time": "2026-11-21T01:02:03.000004Z"}  datetime     {"$set": ["a", "b"]}  frozenset of texts, numbers or bytes
    {"$literal": {"$bytes": 1}}  an object that only looks like one of these

In Python: None, bool, int, float, Decimal, str, bytes, datetime (aware), frozenset, list, dict. Numbers are decimal text to
their reader: 0.1 is a tenth, wherever it is compared or kept in order.
"""

from __future__ import annotations

import binascii
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from martlet.errors import InvalidInput
from martlet.limits import LIMITS, exceeded

__all__ = ["dumps", "field", "load", "loads", "merged", "path_of", "plain_number", "with_field"]

INT_LEAST: Final = -(1 << 63)
INT_MOST: Final = (1 << 63) - 1
_DEPTH: Final = LIMITS["document_depth"].default
_VALUES: Final = LIMITS["document_values"].default
_BYTES: Final = LIMITS["document_bytes"].default
_DIGITS: Final = LIMITS["decimal_digits"].default
_EXPONENT: Final = 6_144  # of decimals, as in IEEE 754 decimal128

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_JSON: Final = frozenset((str, int, float, bool, type(None), dict, list))


def loads(raw: bytes) -> Any:
    """The value of JSON text from outside. Raises `InvalidInput` (malformed, a name twice, a number beyond 64 bits, a wrong
    tag) and `LimitExceeded` (document_bytes, document_depth, document_values, decimal_digits)."""
    if len(raw) > _BYTES:
        raise exceeded("document_bytes", len(raw), "document")
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"document is not JSON: {error}", field="body") from error
    except RecursionError as error:
        raise exceeded("document_depth", None, "document") from error
    strings = _check(value)
    if raw.count(b'"') != 2 * strings:
        _refuse_repeated_names(raw)
    return _lift(value) if _tagged(raw) else value


def load(raw: bytes) -> Any:
    """The value of JSON text that `loads` has accepted before."""
    value = _decode(raw)
    return _lift(value) if _tagged(raw) else value


def dumps(value: Any, bounded: bool = True) -> bytes:
    """JSON text of a value. Raises `InvalidInput` and `LimitExceeded` as `loads` does; not `bounded`: for an answer that is
    made of documents."""
    try:
        if not bounded or _check(value, types=True) < 0:
            value = _lower(value)
        raw = _encode(value)
    except RecursionError as error:
        raise exceeded("document_depth", None, "document") from error
    except UnicodeEncodeError as error:
        raise InvalidInput("document holds a lone surrogate, which UTF-8 cannot carry", field="body") from error
    if bounded and len(raw) > _BYTES:
        raise exceeded("document_bytes", len(raw), "document")
    return raw


def _tagged(raw: bytes) -> bool:
    return b"$" in raw or b"\\u0024" in raw


def _check(value: Any, types: bool = False) -> int:  # noqa: C901 - one loop over every value of every write
    """Bounds of a value, level by level: no recursion. The number of texts in it, names included; with `types` -1 when it
    holds what JSON has no form for, or an object that looks like a tag."""
    level = [value]
    depth = count = strings = 0
    strange = False
    while level:
        depth += 1
        count += len(level)
        if depth > _DEPTH:
            raise exceeded("document_depth", depth, "document")
        if count > _VALUES:
            raise exceeded("document_values", count, "document")
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                strings += 1
            elif kind is dict:
                strings += len(item)
                below += item.values()
                if types:
                    strange |= _is_strange(item)
            elif kind is list:
                below += item
            elif kind is int:
                if not INT_LEAST <= item <= INT_MOST:
                    raise InvalidInput(
                        f"document holds a whole number beyond 64 bits: {str(item)[:40]}",
                        field="body",
                        remedy='write it as {"$decimal": "..."}, or as text',
                    )
            elif kind is float:
                if not math.isfinite(item):
                    raise InvalidInput("document holds NaN or an infinity, which JSON has no form for", field="body")
            elif types and kind not in _JSON:
                strange = True
        level = below
    return -1 if strange else strings


def _is_strange(item: dict[Any, Any]) -> bool:
    for name in item:
        if type(name) is not str:
            raise InvalidInput(f"document holds a field name that is {type(name).__name__}, not text", field="body")
    return len(item) == 1 and next(iter(item)) in _TAGS


def _refuse_repeated_names(raw: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in items]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidInput(f"document has the field {twice[:64]!r} twice in one object", field="body")

    json.loads(raw, object_pairs_hook=pairs)  # escaped quotation marks miscount, so this is the slow second look


# --- tags


def _time(given: Any) -> datetime:
    if not isinstance(given, str):
        raise ValueError("not text")
    moment = datetime.fromisoformat(given)
    if moment.tzinfo is None:
        raise ValueError("without a time zone")
    return moment.astimezone(UTC)


def _decimal(given: Any) -> Decimal:
    if not isinstance(given, str) or len(given) > 200 or not given.isascii() or "_" in given:
        raise ValueError("not a decimal as text")
    return checked_decimal(Decimal(given))


def checked_decimal(number: Decimal) -> Decimal:
    """The number itself. Raises `InvalidInput` for NaN, infinities and exponents beyond 6144, `LimitExceeded`."""
    if not number.is_finite():
        raise InvalidInput("a decimal must be finite", field="body")
    digits = len(number.as_tuple().digits)
    if digits > _DIGITS:
        raise exceeded("decimal_digits", digits, "decimal")
    if number and abs(number.adjusted()) > _EXPONENT:
        raise InvalidInput(f"a decimal's exponent is at most {_EXPONENT}", field="body")
    return number


def _bytes(given: Any) -> bytes:
    if not isinstance(given, str):
        raise ValueError("not text")
    return b64decode(given, validate=True)


def _set(given: Any) -> frozenset[Any]:
    if not isinstance(given, list):
        raise ValueError("not an array")
    members = [_lift(item) for item in given]
    for member in members:
        if isinstance(member, bool) or not isinstance(member, str | int | float | Decimal | bytes):
            raise ValueError("members must be texts, numbers or bytes")
    found = frozenset(members)
    if len(found) != len(members):
        raise ValueError("a member comes twice")
    return found


def _literal(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError("not an object")
    return {name: _lift(item) for name, item in given.items()}


_TAGS: Final[dict[str, Callable[[Any], Any]]] = {
    "$decimal": _decimal,
    "$bytes": _bytes,
    "$time": _time,
    "$set": _set,
    "$literal": _literal,
}


def _lift(value: Any) -> Any:
    """Tags to values. Depth is bounded by `_check` before."""
    if type(value) is dict:
        if len(value) == 1:
            name, given = next(iter(value.items()))
            tag = _TAGS.get(name)
            if tag is not None:
                try:
                    return tag(given)
                except (ValueError, InvalidOperation, OverflowError, binascii.Error) as error:
                    raise InvalidInput(f"document holds a {name} that is malformed: {error}", field="body") from error
        return {name: _lift(item) for name, item in value.items()}
    if type(value) is list:
        return [_lift(item) for item in value]
    return value


def _lower(value: Any) -> Any:
    """Values to tags, and Python's near relations of JSON's types to those."""
    if isinstance(value, dict):
        low = {_name(name): _lower(item) for name, item in value.items()}
        return {"$literal": low} if len(low) == 1 and next(iter(low)) in _TAGS else low
    if isinstance(value, list | tuple):
        return [_lower(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput("document holds NaN or an infinity, which JSON has no form for", field="body")
        return value
    if isinstance(value, Decimal):
        return {"$decimal": str(checked_decimal(value))}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidInput("document holds a time without a time zone", field="body")
        return {"$time": value.astimezone(UTC).isoformat().replace("+00:00", "Z")}
    if isinstance(value, set | frozenset):
        return {"$set": sorted((_lower(item) for item in value), key=lambda item: _encode(item))}
    raise InvalidInput(f"document holds a {type(value).__name__}, which has no form here", field="body")


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidInput(f"document holds a field name that is {type(name).__name__}, not text", field="body")
    return name


def plain_number(value: int | float | Decimal) -> int | Decimal:
    """A number for exact arithmetic and comparison: floats by their shortest decimal text."""
    return Decimal(repr(value)) if isinstance(value, float) else value


# --- fields


def path_of(text: str) -> tuple[str, ...]:
    """ "address.city" as names. Raises `InvalidInput` for an empty name."""
    names = tuple(text.split("."))
    if not all(names):
        raise InvalidInput(f"{text[:64]!r} is not a field: names are joined by single dots", field="path")
    return names


def field(value: Any, path: Iterable[str]) -> Any:
    """What is at the path; None when there is nothing."""
    for name in path:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


def with_field(value: Any, path: tuple[str, ...], new: Any) -> dict[str, Any]:
    """A copy of the object with `new` at the path; `None` stays a value. Objects on the way are made."""
    found = dict(value) if type(value) is dict else {}
    found[path[0]] = new if len(path) == 1 else with_field(found.get(path[0]), path[1:], new)
    return found


def merged(value: Any, patch: Any) -> Any:
    """`value` after JSON Merge Patch (RFC 7396): null removes a field, objects merge, all else replaces."""
    if type(patch) is not dict:
        return patch
    found = dict(value) if type(value) is dict else {}
    for name, item in patch.items():
        if item is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), item)
    return found
