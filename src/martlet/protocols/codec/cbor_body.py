"""CBOR bodies (RFC 8949) of the protocol smithy-rpc-v2-cbor: values as plain Python objects, times as tag 1.

Reads definite and indefinite lengths, all widths of numbers; refuses other tags, other simple values, and what is nested too
deep. A length is never believed: nothing is reserved for it before the bytes are there.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from martlet.protocols.codec import scalars
from martlet.protocols.codec.json_body import Convert, JsonDecoders, JsonEncoders
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import DEPTH_MAX, Malformed

__all__ = ["CborDecoders", "CborEncoders", "dump", "parse"]

_INDEFINITE: Final = 31
_BREAK: Final = 0xFF
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS: Final = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE: Final = {20: False, 21: True, 22: None, 23: None}
_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6


class Tagged:
    """Epoch seconds in tag 1."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._body)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._body):
            raise Malformed("the CBOR ends within a value", "body")
        return self._body[start : self._at]

    def item(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise Malformed(f"the CBOR is nested more than {DEPTH_MAX} deep", "body")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 0:
            return self._length(info)
        if major == 1:
            return -1 - self._length(info)
        if major == _BYTES:
            return self._string(major, info)
        if major == _TEXT:
            return self._text(info)
        if major == _ARRAY:
            return [self.item(depth + 1) for _ in self._counted(info)]
        if major == _MAP:
            return self._map(info, depth)
        if major == _TAG:
            return self._tagged(info, depth)
        return self._simple(info)

    def _length(self, info: int) -> int:
        if info < 24:
            return info
        if info not in _WIDTHS:
            raise Malformed("the CBOR holds a reserved length", "body")
        return int.from_bytes(self.take(_WIDTHS[info]), "big")

    def _counted(self, info: int) -> Any:
        """Once for each item of an array or map."""
        if info != _INDEFINITE:
            yield from range(self._length(info))
            return
        while not self._break():
            yield None

    def _break(self) -> bool:
        if self.take(1)[0] == _BREAK:
            return True
        self._at -= 1
        return False

    def _string(self, major: int, info: int) -> bytes:
        if info != _INDEFINITE:
            return self.take(self._length(info))
        chunks = []
        while not self._break():
            first = self.take(1)[0]
            if first >> 5 != major or first & 31 == _INDEFINITE:
                raise Malformed("a string in the CBOR has parts of another type", "body")
            chunks.append(self.take(self._length(first & 31)))
        return b"".join(chunks)

    def _text(self, info: int) -> str:
        try:
            return self._string(_TEXT, info).decode()
        except UnicodeDecodeError as error:
            raise Malformed("the CBOR holds text that is not UTF-8", "body") from error

    def _map(self, info: int, depth: int) -> dict[str, Any]:
        found = {}
        for _ in self._counted(info):
            key = self.item(depth + 1)
            if type(key) is not str:
                raise Malformed("a key of a map in the CBOR is no text", "body")
            found[key] = self.item(depth + 1)
        return found

    def _tagged(self, info: int, depth: int) -> Tagged:
        tag, value = self._length(info), self.item(depth + 1)
        if tag != 1 or type(value) not in (int, float):
            raise Malformed("the CBOR holds a tag that is no time", "body")
        return Tagged(value)

    def _simple(self, info: int) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info not in _FLOATS:
            raise Malformed("the CBOR holds an unknown simple value", "body")
        return struct.unpack(_FLOATS[info], self.take(_WIDTHS[info]))[0]


def parse(body: bytes) -> Any:
    """The one value in `body`. Raises `Malformed` (kind "body")."""
    reader = _Reader(body)
    value = reader.item(0)
    if not reader.done:
        raise Malformed("something follows the value in the CBOR", "body")
    return value


def dump(value: Any) -> bytes:
    """Plain Python objects, `Tagged` times among them, as CBOR with definite lengths."""
    out = bytearray()
    _write(out, value)
    return bytes(out)


def _head(out: bytearray, major: int, number: int) -> None:
    if number < 24:
        out.append(major << 5 | number)
        return
    for info, width in _WIDTHS.items():
        if number < 1 << (width * 8):
            out.append(major << 5 | info)
            out += number.to_bytes(width, "big")
            return
    raise ValueError(f"{number} does not fit into CBOR's 64 bits")


def _write(out: bytearray, value: Any) -> None:
    if value is None or value is True or value is False:
        out.append(0xF6 if value is None else 0xF5 if value else 0xF4)
    elif isinstance(value, int):
        _head(out, 0 if value >= 0 else 1, value if value >= 0 else -1 - value)
    elif isinstance(value, float):
        out += b"\xfb" + struct.pack(">d", value)
    elif isinstance(value, str):
        raw = value.encode()
        _head(out, _TEXT, len(raw))
        out += raw
    elif isinstance(value, bytes | bytearray | memoryview):
        _head(out, _BYTES, len(value))
        out += value
    elif isinstance(value, Tagged):
        out.append(0xC1)
        _write(out, value.seconds)
    elif isinstance(value, dict):
        _head(out, _MAP, len(value))
        for key, item in value.items():
            _write(out, str(key))
            _write(out, item)
    else:
        _head(out, _ARRAY, len(value))
        for item in value:
            _write(out, item)


class CborDecoders(JsonDecoders):
    """As for JSON, but bytes are bytes, times are tagged, and numbers need no names for infinity."""

    def compile(self, shape: Shape) -> Convert | None:
        if shape.kind == "blob":
            return _blob
        if shape.kind == "timestamp":
            return _time
        return super().compile(shape)


def _blob(value: Any) -> Any:
    if type(value) is bytes:
        return value
    raise Malformed("the value is no byte string")


def _time(value: Any) -> Any:
    if type(value) is Tagged:
        return scalars.moment(value.seconds)
    raise Malformed("the value is no time (tag 1)")


class CborEncoders(JsonEncoders):
    """As for JSON, but bytes stay bytes, floats stay floats, and times are tagged."""

    def compile(self, shape: Shape) -> Convert | None:
        if shape.kind == "blob":
            return lambda value: value.encode() if isinstance(value, str) else bytes(value)
        if shape.kind == "timestamp":
            return _tagged_time
        if shape.kind in ("float", "double"):
            return float
        return super().compile(shape)


def _tagged_time(value: Any) -> Tagged:
    return Tagged(scalars.epoch(scalars.from_iso(value) if isinstance(value, str) else value))
