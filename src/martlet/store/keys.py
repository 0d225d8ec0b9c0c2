"""Order-preserving keys: a tuple of plain values becomes bytes that sort as the tuple does.

Order of classes: None < False < True < numbers < text < bytes. Integers and floats share one class and sort by value
(1 < 1.0 < 1.5 < 2; the type is kept, so equal values of two types are neighbours), text sorts by code point, and a tuple
sorts before every longer tuple that begins with it.

Shape of a part (all integers big-endian):
    None 02 · False 03 · True 04 · -inf 05 · numbers 06..18 · +inf 19 · text 30 · bytes 31
    number = tag (sign and length of the whole part), whole part, marker, [8 bytes of fraction]
             marker 01: float with a negative fraction (bits inverted) · 02: int · 03: whole float · 04: float with a fraction
    text, bytes = content with 00 written as 00 FF, then 00
The first bytes 00, 01 and FF never occur: 00 is the store's own, FF ends ranges.
"""

from __future__ import annotations

import math
import struct

from martlet.errors import InvalidInput

__all__ = ["Part", "decode", "encode", "prefix_range"]

Part = str | bytes | int | bool | float | None

_NONE, _FALSE, _TRUE, _LOWEST, _ZERO, _HIGHEST, _TEXT, _BYTES = 0x02, 0x03, 0x04, 0x05, 0x0F, 0x19, 0x30, 0x31
_LONG = 9  # distance from _ZERO of a whole part whose length has its own byte; 1..8 is the length itself
_LONGEST = 255  # bytes of a whole part
_POSITIVE = tuple(bytes([_ZERO + length]) for length in range(_LONG))
_NEGATIVE = tuple(bytes([_ZERO - length]) for length in range(_LONG))
_BELOW, _INT, _WHOLE, _ABOVE = b"\x01", b"\x02", b"\x03", b"\x04"
_DOUBLE = struct.Struct(">d")


def encode(*parts: Part) -> bytes:
    """The key of a tuple. Raises `InvalidInput` for NaN, lone surrogates, integers beyond 255 bytes and other types."""
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(_text(part))
        elif isinstance(part, bytes):
            out.append(b"\x31" + part.replace(b"\x00", b"\x00\xff") + b"\x00")
        elif isinstance(part, int) and part is not True and part is not False:
            out.append(_whole(part) + _INT)
        else:
            out.append(_rare(part))
    return b"".join(out)


def prefix_range(*parts: Part) -> tuple[bytes, bytes]:
    """(low, high) for `scan`: every key that begins with these parts, the bare tuple itself included."""
    low = encode(*parts)
    return low, low + b"\xff"


def decode(key: bytes) -> tuple[Part, ...]:
    """The tuple that `encode` was given. Raises `InvalidInput` for bytes that `encode` cannot have made."""
    parts: list[Part] = []
    at = 0
    try:
        while at < len(key):
            tag = key[at]
            if tag in (_TEXT, _BYTES):
                raw, at = _content(key, at + 1)
                parts.append(raw if tag == _BYTES else raw.decode())
            elif _LOWEST < tag < _HIGHEST:
                number, at = _number(key, at)
                parts.append(number)
            else:
                parts.append(_CONSTANTS[tag])
                at += 1
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        raise InvalidInput(f"not a key of this store: {key[:64].hex()} at byte {at}") from None
    return tuple(parts)


_CONSTANTS: dict[int, Part] = {_NONE: None, _FALSE: False, _TRUE: True, _LOWEST: -math.inf, _HIGHEST: math.inf}


def _text(part: str) -> bytes:
    try:
        raw = part.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a key's text holds a lone surrogate, which UTF-8 cannot carry") from None
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x00\xff")
    return b"\x30" + raw + b"\x00"


def _rare(part: Part) -> bytes:
    if part is None:
        return b"\x02"
    if part is False:
        return b"\x03"
    if part is True:
        return b"\x04"
    if isinstance(part, float):
        return _float(part)
    raise InvalidInput(f"a key's part is {type(part).__name__}; it must be str, bytes, int, bool, float or None")


def _whole(number: int) -> bytes:
    """Tag and magnitude; negative magnitudes are inverted so that larger ones sort first."""
    length = (number.bit_length() + 7) >> 3
    if number >= 0:
        if length < _LONG:
            return _POSITIVE[length] + number.to_bytes(length, "big")
        if length > _LONGEST:
            raise InvalidInput(f"a key's integer takes {length} bytes; the most is {_LONGEST}")
        return bytes((_ZERO + _LONG, length)) + number.to_bytes(length, "big")
    inverted = number + (1 << (length << 3)) - 1
    if length < _LONG:
        return _NEGATIVE[length] + inverted.to_bytes(length, "big")
    if length > _LONGEST:
        raise InvalidInput(f"a key's integer takes {length} bytes; the most is {_LONGEST}")
    return bytes((_ZERO - _LONG, _LONGEST - length)) + inverted.to_bytes(length, "big")


def _float(number: float) -> bytes:
    if number != number:
        raise InvalidInput("NaN has no place in an order, so it cannot be part of a key")
    if math.isinf(number):
        return bytes((_HIGHEST,)) if number > 0 else bytes((_LOWEST,))
    fraction, whole = math.modf(number)  # exact: both are representable
    head = _whole(int(whole))
    if fraction == 0.0:
        return head + _WHOLE
    if fraction > 0.0:
        return head + _ABOVE + _DOUBLE.pack(fraction)
    return head + _BELOW + _invert(_DOUBLE.pack(-fraction))


def _invert(raw: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in raw)


def _content(key: bytes, at: int) -> tuple[bytes, int]:
    start = at
    while True:
        end = key.find(b"\x00", at)
        if end < 0:
            raise IndexError
        if end + 1 < len(key) and key[end + 1] == 0xFF:
            at = end + 2
            continue
        return key[start:end].replace(b"\x00\xff", b"\x00"), end + 1


def _number(key: bytes, at: int) -> tuple[int | float, int]:
    distance = key[at] - _ZERO
    negative = distance < 0
    length = abs(distance)
    at += 1
    if length == _LONG:
        length = _LONGEST - key[at] if negative else key[at]
        at += 1
    whole = int.from_bytes(key[at : at + length], "big")
    if len(key) < at + length:
        raise IndexError
    if negative:
        whole -= (1 << (length << 3)) - 1
    at += length
    marker = key[at : at + 1]
    if marker == _INT:
        return whole, at + 1
    if marker == _WHOLE:
        return float(whole), at + 1
    raw = key[at + 1 : at + 9]
    if marker == _ABOVE:
        return whole + _DOUBLE.unpack(raw)[0], at + 9
    if marker == _BELOW:
        return whole - _DOUBLE.unpack(_invert(raw))[0], at + 9
    raise KeyError(marker)
