"""Order-preserving bytes of index terms and ids: terms sort as their values do, and none is the beginning of another.

Order of classes: null < false < true < numbers < times < texts < bytes.
    null 02 · false 03 · true 04 · numbers 10..12 · time 20 · text 30 · bytes 31
    number: 10 negative, 11 zero, 12 positive; then the decimal exponent (2 bytes, biased), the digits without trailing zeros
            (ASCII), 00; for negative ones everything after the tag inverted. 1, 1.0 and 1.00 are one term.
    time: 8 bytes, microseconds since the epoch, biased
    text, bytes: content with 00 written as 01 01 and 01 as 01 02, then 00
A descending term is inverted as a whole. Since no term is the beginning of another, that reverses the order exactly.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from martlet.documents.values import checked_decimal
from martlet.errors import InvalidInput

__all__ = ["Id", "IdPart", "decode_id", "encode_id", "encode_id_prefix", "encode_term", "invert"]

IdPart = str | int | Decimal | bytes
Id = str | tuple[IdPart, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BIAS: Final = 1 << 15
_TIME_BIAS: Final = 1 << 63
_INVERSE: Final = bytes(255 - byte for byte in range(256))
_TUPLE: Final = 0x40


def encode_term(value: Any) -> bytes:
    """The bytes of one scalar. Raises `InvalidInput` for lists, objects and sets."""
    kind: Any = type(value)
    if kind is str:
        try:
            raw = value.encode()
        except UnicodeEncodeError:
            raise InvalidInput("a text holds a lone surrogate, which UTF-8 cannot carry", field="value") from None
        return b"\x30" + _escaped(raw) + b"\x00"
    if kind is int:
        return _whole(value)
    if value is None:
        return b"\x02"
    if kind is bool:
        return b"\x04" if value else b"\x03"
    if kind is float:
        return _number(Decimal(repr(value)))
    if kind is Decimal:
        return _number(checked_decimal(value))
    if kind is datetime:
        micros: int = (value - _EPOCH) // _MICROSECOND
        return b"\x20" + (micros + _TIME_BIAS).to_bytes(8, "big")
    if kind is bytes:
        return b"\x31" + _escaped(bytes(value)) + b"\x00"
    raise InvalidInput(f"{_named(value)} has no place in an order", field="value")


def invert(term: bytes) -> bytes:
    """The term of a descending order."""
    return term.translate(_INVERSE)


def encode_id(id: Id) -> bytes:
    """The bytes of a document's id: a text, or a tuple of texts, numbers and bytes (compared part by part)."""
    if type(id) is str:
        return encode_term(id)
    return encode_id_prefix(*id) + b"\x00"


def encode_id_prefix(*parts: IdPart) -> bytes:
    """What the ids of all tuples that begin with these parts begin with."""
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int | Decimal | bytes):
            raise InvalidInput(f"a part of an id is {type(part).__name__}: allowed are text, numbers and bytes", field="id")
    return b"\x40" + b"".join(map(encode_term, parts))


def decode_id(raw: bytes) -> Id:
    """The id that `encode_id` was given; whole numbers come back as int, others as Decimal."""
    if raw[0] != _TUPLE:
        if raw[0] == 0x30 and b"\x01" not in raw:  # a text without escapes, as nearly all are
            return raw[1:-1].decode()
        return str(_decode(raw, 0)[0])
    parts: list[IdPart] = []
    at = 1
    while raw[at]:
        part, at = _decode(raw, at)
        parts.append(part)
    return tuple(parts)


def _decode(raw: bytes, at: int) -> tuple[IdPart, int]:
    tag = raw[at]
    if tag in (0x30, 0x31):
        end = raw.index(b"\x00", at)
        content = raw[at + 1 : end]
        if b"\x01" in content:
            content = content.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
        return (content.decode() if tag == 0x30 else content), end + 1
    if tag == 0x11:
        return 0, at + 1
    negative = tag == 0x10
    end = raw.index(b"\xff" if negative else b"\x00", at + 3)
    body = raw[at + 1 : end]
    if negative:
        body = body.translate(_INVERSE)
    digits = body[2:].decode()
    exponent = int.from_bytes(body[:2], "big") - _BIAS
    number = Decimal(f"{'-' if negative else ''}0.{digits}E{exponent}")
    return (int(number) if exponent >= len(digits) and exponent <= 40 else number), end + 1


def _escaped(raw: bytes) -> bytes:
    if b"\x01" in raw:
        raw = raw.replace(b"\x01", b"\x01\x02")
    return raw.replace(b"\x00", b"\x01\x01") if b"\x00" in raw else raw


def _whole(number: int) -> bytes:
    if not number:
        return b"\x11"
    text = str(number if number > 0 else -number)
    body = (_BIAS + len(text)).to_bytes(2, "big") + text.rstrip("0").encode() + b"\x00"
    return b"\x12" + body if number > 0 else b"\x10" + body.translate(_INVERSE)


def _number(number: Decimal) -> bytes:
    if not number:
        return b"\x11"
    text = "".join(map(str, number.as_tuple().digits)).lstrip("0")
    body = (_BIAS + number.adjusted() + 1).to_bytes(2, "big") + text.rstrip("0").encode() + b"\x00"
    return b"\x12" + body if number > 0 else b"\x10" + body.translate(_INVERSE)


def _named(value: Any) -> str:
    names: dict[Any, str] = {dict: "an object", list: "an array", frozenset: "a set"}
    return names.get(type(value), type(value).__name__)
