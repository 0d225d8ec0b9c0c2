"""Keys of DynamoDB as bytes: where an item lies, and what it sorts by.

Items lie by a hash of their partition key, then by the partition key, then by the sort key; entries of an index likewise, and
then by a digest of the item's own key. The hash is the one by which DynamoDB is known to place items, so that scans and their
segments come in the order that its users see; its collisions do no harm, since the partition key follows.

    number   an exponent and digits to the base of 100; negative ones inverted, with an end mark; at most 22 bytes
    text     UTF-8, sorts by code point; bytes: unsigned
    part     a value within a key: 00 written as 00 FF, then 00 00 (numbers: 00 after positive ones)
"""

from __future__ import annotations

from hashlib import blake2b, md5
from typing import Any, Final

__all__ = ["PLACE_BYTES", "after_prefix", "number_bytes", "own_place", "part", "partition", "place", "plain", "segment"]

PLACE_BYTES: Final = 4
_SHORT: Final = 64  # a longer partition key is stood for by its digest: the store's keys are short
_TENTHS: Final = 4096


def number_bytes(text: str) -> bytes:
    """A canonical number (up to 38 digits, 1E-130 to 9.99E+125) as bytes that sort as numbers do."""
    negative = text[0] == "-"
    mantissa, _, exponent = (text[1:] if negative else text).upper().partition("E")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return b"\x80"
    # 0.DIGITS times ten to the power of `scale`
    scale = len(whole) + int(exponent or 0) - (len(whole) + len(fraction) - len(digits))
    digits = digits.rstrip("0")
    if scale % 2:
        digits = "0" + digits
        scale += 1
    if len(digits) % 2:
        digits += "0"
    pairs = [int(digits[at : at + 2]) for at in range(0, len(digits), 2)]
    head = scale // 2 + 192
    if negative:
        end = b"\x66" if len(pairs) < 20 else b""
        return bytes((255 - head, *(101 - pair for pair in pairs))) + end
    return bytes((head, *(1 + pair for pair in pairs)))


def plain(kind: str, value: Any) -> bytes:
    """A key's value at the end of a key: as it is."""
    if kind == "S":
        return str(value).encode()
    return number_bytes(value) if kind == "N" else bytes(value)


def part(kind: str, value: Any) -> bytes:
    """A key's value within a key: none is the beginning of another."""
    if kind == "N":
        raw = number_bytes(value)
        return raw + b"\x00" if raw[0] >= 0x80 else raw
    raw = str(value).encode() if kind == "S" else bytes(value)
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x00\xff")
    return raw + b"\x00\x00"


def after_prefix(raw: bytes) -> bytes | None:
    """The least bytes above all that begin with `raw`; None if there are none."""
    stripped = raw.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None


def place(raw: bytes) -> bytes:
    """Where a partition key lies among all."""
    return md5(b"Outliers" + raw, usedforsecurity=False).digest()[:PLACE_BYTES]


def partition(values: tuple[tuple[str, Any], ...]) -> bytes:
    """What the keys of all items with this partition key (its types and values) begin with."""
    if len(values) == 1:
        kind, value = values[0]
        raw = plain(kind, value)
        body = part(kind, value)
    else:
        raw = b"".join(part(kind, value) for kind, value in values)
        body = raw
    if len(body) > _SHORT:
        return place(raw) + b"\x02" + blake2b(raw, digest_size=32).digest()
    return place(raw) + b"\x01" + body


def own_place(raw_hash: bytes, raw_range: bytes) -> bytes:
    """What tells entries of an index with equal keys apart: a digest of the item's own key."""
    whole = len(raw_hash).to_bytes(2, "big") + raw_hash + raw_range
    return place(raw_hash + raw_range) + blake2b(whole, digest_size=16).digest()


def segment(number: int, total: int) -> tuple[bytes, bytes]:
    """[low, high) of the places in a segment of a parallel scan."""
    bits = _TENTHS if total <= _TENTHS else 1 << 32
    unit = (1 << 32) // bits
    low = -(-bits * number // total) * unit
    high = -(-bits * (number + 1) // total) * unit
    return low.to_bytes(5, "big")[1:], b"\xff" * 9 if high >> 32 else high.to_bytes(4, "big")
