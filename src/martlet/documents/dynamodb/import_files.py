"""What the files of an import hold: items, read piece by piece, and never more of them in memory than one item may take.

Formats as the developer guide has them, "Amazon S3 import formats": DYNAMODB_JSON (`{"Item": {...}}` one after the other) and
CSV with a line of names, or names given. Pure, but for the pieces that are awaited."""

from __future__ import annotations

import base64
import binascii
import codecs
import csv
import json
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

__all__ = ["Broken", "csv_items", "json_items", "texts"]

Item = dict[str, Any]
ITEM_CHARACTERS: Final = 4_194_304  # of one item or line: 400 KB as JSON, with room for escapes and names of types
_PIECE: Final = 1_048_576
_GATHERED: Final = 262_144
_SPACE: Final = re.compile(r"\s*")


class Broken(Exception):
    """A file that cannot be read on."""


async def texts(pieces: AsyncIterator[bytes], compressed: bool) -> AsyncIterator[str]:
    """The file's text. Raises `Broken` for what is no gzip, is cut short, or is not UTF-8."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    inflate = zlib.decompressobj(31) if compressed else None
    try:
        async for piece in pieces:
            if inflate is None:
                yield decode(piece)
                continue
            left, full = piece, False
            while left or full:  # no more at a time than a piece, whatever it was made from
                found = inflate.decompress(left, _PIECE)
                left, full = inflate.unconsumed_tail, len(found) == _PIECE
                if inflate.eof and inflate.unused_data:
                    left, inflate = inflate.unused_data, zlib.decompressobj(31)
                yield decode(found)
        if inflate is not None and not inflate.eof:
            raise Broken("the compressed file is cut short")
        yield decode(b"", True)
    except (zlib.error, UnicodeDecodeError) as error:
        raise Broken(str(error)) from error


async def json_items(source: AsyncIterator[str]) -> AsyncIterator[Item | None]:
    """Items with their bytes decoded; None for what stands in an item's place and is none."""
    scan = json.JSONDecoder(parse_constant=_no_constant).raw_decode
    waiting = ""
    async for text in _gathered(source):
        waiting = (waiting + text).lstrip()
        at = 0
        while at < len(waiting):
            try:
                value, end = scan(waiting, at)
            except (ValueError, RecursionError):
                if len(waiting) - at > ITEM_CHARACTERS:
                    raise Broken("what begins as an item does not end, or is no JSON") from None
                break  # the rest of it may come
            yield _item(value)
            at = _SPACE.match(waiting, end).end()  # type: ignore[union-attr]  # it matches nothing at all as well
        waiting = waiting[at:]
    if waiting:
        raise Broken("the last item does not end, or is no JSON")


async def _gathered(source: AsyncIterator[str]) -> AsyncIterator[str]:
    """So much at a time that looking again at what has not ended costs little."""
    parts: list[str] = []
    size = 0
    try:
        async for text in source:
            parts.append(text)
            size += len(text)
            if size >= _GATHERED:
                yield "".join(parts)
                parts, size = [], 0
    except Broken:
        yield "".join(parts)  # what came before it counts
        raise
    yield "".join(parts)


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _item(value: Any) -> Item | None:
    item = value.get("Item") if isinstance(value, dict) else None
    if not isinstance(item, dict):
        return None
    try:
        return {name: _value(one) for name, one in item.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        return None


def _value(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    if kind == "B":
        return {kind: base64.b64decode(content, validate=True)}
    if kind == "BS":
        return {kind: [base64.b64decode(one, validate=True) for one in content]}
    if kind == "M":
        return {kind: {name: _value(one) for name, one in content.items()}}
    if kind == "L":
        return {kind: [_value(one) for one in content]}
    return value


async def csv_items(
    source: AsyncIterator[str], types: dict[str, str], delimiter: str, header: list[str] | None
) -> AsyncIterator[Item | None]:
    """Items of texts; those named in `types` have the type that the table's keys want. Empty fields are no attributes."""
    names = header
    async for row in _rows(source, delimiter):
        if names is None:
            names = row
        elif row:
            yield _of_row(names, row, types)


def _of_row(names: list[str], row: list[str], types: dict[str, str]) -> Item | None:
    if len(row) > len(names):
        return None
    item: Item = {}
    for name, text in zip(names, row, strict=False):
        if not text:
            continue
        kind = types.get(name, "S")
        try:
            item[name] = {kind: base64.b64decode(text, validate=True) if kind == "B" else text}
        except (binascii.Error, ValueError):
            return None
    return item


async def _rows(source: AsyncIterator[str], delimiter: str) -> AsyncIterator[list[str]]:
    """Rows as RFC 4180 has them: a field in quotes may hold line ends."""
    waiting: list[str] = []
    quotes = size = 0
    async for line in _lines(source):
        waiting.append(line)
        quotes += line.count('"')
        size += len(line)
        if size > ITEM_CHARACTERS:
            raise Broken("a line is too long, or its quotes do not end")
        if quotes % 2 == 0:
            for row in _parsed(waiting, delimiter):
                yield row
            waiting, quotes, size = [], 0, 0
    if waiting:
        raise Broken("quotes do not end")


def _parsed(lines: list[str], delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise Broken(str(error)) from error


async def _lines(source: AsyncIterator[str]) -> AsyncIterator[str]:
    waiting = ""
    async for text in source:
        parts = (waiting + text).split("\n")
        waiting = parts.pop()
        if len(waiting) > ITEM_CHARACTERS:
            raise Broken("a line is too long")
        for part in parts:
            yield part + "\n"
    if waiting:
        yield waiting
