"""JSON bodies: one closure a shape, compiled when first needed and kept. `None`: the value goes through as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from martlet.protocols.codec import scalars
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import Malformed

__all__ = ["Convert", "JsonDecoders", "JsonEncoders", "parse"]

Convert = Callable[[Any], Any]

# How Coral's JSON parser names what it found. https://docs.aws.amazon.com/amazondynamodb/ shows the same texts.
_CALLED = {str: "STRING_VALUE", bool: "TRUE_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE", type(None): "NULL_VALUE"}


def parse(body: bytes) -> Any:
    """The JSON value in `body`. Raises `Malformed` (kind "body") for what is none; of two equal names the last counts."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"{error.msg}: line {error.lineno} column {error.colno}", "body") from error


def _wrong(value: Any, wanted: str) -> Malformed:
    if type(value) is dict:
        return Malformed("Start of structure or map found where not expected")
    if type(value) is list:
        return Malformed("Start of list found where not expected")
    found = "FALSE_VALUE" if value is False else _CALLED.get(type(value), "VALUE")
    return Malformed(f"{found} cannot be converted to {wanted}")


def _string(value: Any) -> Any:
    if type(value) is str:
        return value
    raise _wrong(value, "String")


def _boolean(value: Any) -> Any:
    if type(value) is bool:
        return value
    raise _wrong(value, "Boolean")


def _integer(kind: str) -> Convert:
    low, high = scalars.INTEGER_RANGES[kind]
    wanted = kind.capitalize()

    def decode(value: Any) -> Any:
        if type(value) is int:
            if low <= value <= high:
                return value
            raise Malformed(f"{value} is out of range for {wanted}")
        if type(value) is float and value.is_integer() and low <= value <= high:
            return int(value)
        raise _wrong(value, wanted)

    return decode


def _float(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    raise _wrong(value, "Double")


def _blob(value: Any) -> Any:
    if type(value) is not str:
        raise _wrong(value, "Blob")
    return scalars.base64_bytes(value)


def _time(shape: Shape) -> Convert:
    if scalars.time_format(shape, "unixTimestamp") != "unixtimestamp":
        read = scalars.time_decoder(shape, "unixTimestamp")
        return lambda value: read(_string(value))

    def decode(value: Any) -> Any:
        if type(value) is int or type(value) is float:
            return scalars.moment(value)
        raise _wrong(value, "Timestamp")

    return decode


_SCALARS: dict[str, Convert] = {"boolean": _boolean, "blob": _blob, "float": _float, "double": _float}


class _Compiled:
    """Keeps what is compiled, and lets shapes refer to themselves: the inner reference looks its target up when it runs."""

    def __init__(self) -> None:
        self._made: dict[Shape, Convert | None] = {}
        self._making: set[Shape] = set()

    def of(self, shape: Shape) -> Convert | None:
        if shape in self._made:
            return self._made[shape]
        if shape in self._making:
            return lambda value: self._made[shape](value)  # type: ignore[misc]  # a shape that holds itself is never None
        self._making.add(shape)
        try:
            made = self._made[shape] = self.compile(shape)
        finally:
            self._making.discard(shape)
        return made

    def compile(self, shape: Shape) -> Convert | None:
        raise NotImplementedError


class JsonDecoders(_Compiled):
    """From parsed JSON to the API's own shapes: bytes, datetimes, members by their model's names. Unknown ones are left out."""

    def compile(self, shape: Shape) -> Convert | None:
        kind = shape.kind
        if kind == "structure":
            return None if shape.document else self.structure({n: (s.wire_name(n), s) for n, s in shape.members.items()})
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        if kind in scalars.INTEGER_RANGES:
            return _integer(kind)
        if kind == "timestamp":
            return _time(shape)
        found: Convert = _SCALARS.get(kind, _string)
        return found

    def structure(self, members: dict[str, tuple[str, Shape]]) -> Convert:
        """Of the members {name: (name on the wire, shape)}."""
        fields = {wire: (name, self.of(shape)) for name, (wire, shape) in members.items()}

        def decode(value: Any) -> Any:
            if type(value) is not dict:
                raise Malformed("Unexpected value type in payload") if type(value) is not list else _wrong(value, "Structure")
            out = {}
            for key, item in value.items():
                field = fields.get(key)
                if field is not None and item is not None:
                    name, convert = field
                    out[name] = item if convert is None else convert(item)
            return out

        return decode

    def _list(self, shape: Shape) -> Convert:
        convert = self.of(shape.member)

        def decode(value: Any) -> Any:
            if type(value) is not list:
                raise _wrong(value, "List") if type(value) is dict else Malformed("Unexpected token received from parser")
            if convert is None:
                return value
            return [None if item is None else convert(item) for item in value]

        return decode

    def _map(self, shape: Shape) -> Convert:
        convert = self.of(shape.value)

        def decode(value: Any) -> Any:
            if type(value) is not dict:
                raise _wrong(value, "Map") if type(value) is list else Malformed("Unexpected token received from parser")
            if convert is None:
                return value
            return {key: None if item is None else convert(item) for key, item in value.items()}

        return decode


class JsonEncoders(_Compiled):
    """From the API's own shapes to what `orjson` writes. Members that are None or not of the shape are left out."""

    def compile(self, shape: Shape) -> Convert | None:
        kind = shape.kind
        if kind == "structure":
            return None if shape.document else self.structure({n: (s.wire_name(n), s) for n, s in shape.members.items()})
        if kind == "list":
            convert = self.of(shape.member)
            return _encode_list(convert)
        if kind == "map":
            convert = self.of(shape.value)
            return _encode_map(convert)
        if kind == "timestamp":
            return scalars.time_encoder(shape, "unixTimestamp")
        if kind in ("float", "double"):
            return scalars.number_of
        if kind == "blob":
            return scalars.base64_text
        return None

    def structure(self, members: dict[str, tuple[str, Shape]]) -> Convert:
        fields = {name: (wire, self.of(shape)) for name, (wire, shape) in members.items()}

        def encode(value: Any) -> Any:
            out = {}
            for name, item in value.items():
                field = fields.get(name)
                if field is not None and item is not None:
                    wire, convert = field
                    out[wire] = item if convert is None else convert(item)
            return out

        return encode


def _encode_list(convert: Convert | None) -> Convert:
    if convert is None:
        return list
    return lambda value: [None if item is None else convert(item) for item in value]


def _encode_map(convert: Convert | None) -> Convert:
    if convert is None:
        return dict
    return lambda value: {key: None if item is None else convert(item) for key, item in value.items()}
