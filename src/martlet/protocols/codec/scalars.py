"""Scalars as text (in headers, queries, forms and XML) and times in the three forms of AWS's protocols.

Times: `iso8601` (RFC 3339), `rfc822` (RFC 9110 section 5.6.7), `unixTimestamp` (seconds, with or without a fraction). Decoded
they are aware datetimes in UTC; for encoding they may also be epoch seconds, and text is taken as it is.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final

import orjson

from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import Malformed

__all__ = [
    "INTEGER_RANGES",
    "base64_bytes",
    "base64_text",
    "iso_text",
    "moment",
    "number_of",
    "text_decoder",
    "text_encoder",
    "time_format",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.,]{2,20}([Zz]|[+-][0-9:]{2,6})?)?", re.ASCII)
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
INTEGER_RANGES: Final = {"integer": (-(1 << 31), (1 << 31) - 1), "long": (-(1 << 63), (1 << 63) - 1)}


# --- times


def moment(seconds: float) -> datetime:
    """Epoch seconds as a time. Raises `Malformed` outside of the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
    except (OverflowError, ValueError) as error:
        raise Malformed("the timestamp is out of range") from error


def from_iso(text: str) -> datetime:
    """A time of RFC 3339; without an offset it is UTC."""
    if len(text) > 40 or not _ISO.fullmatch(text):
        raise Malformed(f"{text[:64]!r} is not a timestamp of the form 2020-12-31T23:59:59Z")
    try:
        found = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{text[:64]!r} is not a timestamp of the form 2020-12-31T23:59:59Z") from error


def from_http_date(text: str) -> datetime:
    try:
        found = parsedate_to_datetime(re.sub(r"(:[0-9]{2})\.[0-9]{1,9} ", r"\1 ", text[:64]))
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError) as error:
        raise Malformed(f"{text[:64]!r} is not a date of the form Thu, 31 Dec 2020 23:59:59 GMT") from error


def _as_datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return moment(value)


def iso_text(value: Any, *, always_milliseconds: bool = False) -> str:
    """RFC 3339 in UTC, milliseconds only where there are any."""
    if isinstance(value, str):
        return value
    at = _as_datetime(value)
    milliseconds = at.microsecond // 1000
    fraction = f".{milliseconds:03d}" if milliseconds or always_milliseconds else ""
    return f"{at.year:04d}{at:-%m-%dT%H:%M:%S}{fraction}Z"


def http_date(value: Any) -> str:
    if isinstance(value, str):
        return value
    return format_datetime(_as_datetime(value).replace(microsecond=0), usegmt=True)


def epoch(value: Any) -> Any:
    """Seconds: an integer where it is whole, else a float with milliseconds."""
    if isinstance(value, str):
        return value
    milliseconds = (_as_datetime(value) - _EPOCH) // timedelta(milliseconds=1)
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


_READ: Final[dict[str, Callable[[str], datetime]]] = {
    "iso8601": from_iso,
    "rfc822": from_http_date,
    "unixtimestamp": lambda text: moment(_float(text)),
}
_WRITE: Final[dict[str, Callable[[Any], Any]]] = {"iso8601": iso_text, "rfc822": http_date, "unixtimestamp": epoch}


def time_format(shape: Shape, default: str) -> str:
    """The form of a timestamp in lower case: the shape's, else `default`."""
    return str(shape.traits.get("timestampFormat", default)).lower()


def time_decoder(shape: Shape, default: str) -> Callable[[str], datetime]:
    return _READ[time_format(shape, default)]


def time_encoder(shape: Shape, default: str) -> Callable[[Any], Any]:
    return _WRITE[time_format(shape, default)]


# --- the other scalars


def base64_bytes(text: str) -> bytes:
    """Raises `Malformed` for what is not base64 (RFC 4648 section 4)."""
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Malformed("the value is not valid Base64") from error
    if text.endswith("=") and not base64.b64encode(found).endswith(text[-4:].encode()):
        raise Malformed("the value is not valid Base64")  # its last digit says more than its bytes hold
    return found


def base64_text(value: Any) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else bytes(value)).decode("ascii")


def number_of(value: float) -> Any:
    """A float as JSON has it: NaN and the infinities are texts."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _integer(low: int, high: int, kind: str) -> Callable[[str], int]:
    def decode(text: str) -> int:
        if not _NUMBER.fullmatch(text) or not low <= (found := int(text)) <= high:
            raise Malformed(f"{text[:64]!r} is not {kind}")
        return found

    return decode


def _float(text: str) -> float:
    if text in _SPECIAL:
        return _SPECIAL[text]
    if len(text) > 400 or not _FLOAT.fullmatch(text):
        raise Malformed(f"{text[:64]!r} is not a number")
    return float(text)


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise Malformed(f"{text[:64]!r} is neither true nor false")
    return lowered == "true"


def text_decoder(shape: Shape, times: str) -> Callable[[str], Any] | None:
    """From text to the scalar of `shape`; None where it is the text itself. `times`: the default form of timestamps."""
    kind = shape.kind
    if kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[kind]
        return _integer(low, high, "an integer of 32 bits" if kind == "integer" else "an integer of 64 bits")
    if kind == "timestamp":
        return time_decoder(shape, times)
    found: dict[str, Callable[[str], Any]] = {"float": _float, "double": _float, "boolean": _boolean, "blob": base64_bytes}
    if kind in found:
        return found[kind]
    if shape.traits.get("jsonvalue"):
        return _json_value
    return None


def text_encoder(shape: Shape, times: str) -> Callable[[Any], str]:
    """From the scalar of `shape` to text."""
    kind = shape.kind
    if kind == "timestamp":
        write = time_encoder(shape, times)
        return lambda value: str(write(value))
    if kind == "boolean":
        return lambda value: "true" if value else "false"
    if kind in ("float", "double"):
        return lambda value: str(number_of(value))
    if kind == "blob":
        return base64_text
    if shape.traits.get("jsonvalue"):
        return lambda value: base64_text(orjson.dumps(value))
    return str


def _json_value(text: str) -> Any:
    try:
        return orjson.loads(base64_bytes(text))
    except orjson.JSONDecodeError as error:
        raise Malformed("the header does not hold JSON in Base64") from error
