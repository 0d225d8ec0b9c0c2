"""The REST protocols' binding of members to path, query, headers, status and body."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from martlet.protocols.codec import scalars
from martlet.protocols.codec.model import OperationModel, Shape
from martlet.protocols.codec.wire import Malformed

__all__ = ["Query", "bind_inputs", "bind_outputs", "body_members", "parse_query"]

Query = Mapping[str, list[str]]

QUERY_FIELDS_MAX: Final = 1_000
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,]*))\s*(?:,|$)')

Input = Callable[[Mapping[str, str], Query, Mapping[str, str]], Any]  # (labels, query, headers) -> value, None if absent


def parse_query(raw: bytes) -> dict[str, list[str]]:
    """Decoded names and values. Raises `Malformed` (kind "body")."""
    found: dict[str, list[str]] = {}
    if not raw:
        return found
    parts = raw.split(b"&")
    if len(parts) > QUERY_FIELDS_MAX or _BAD_ESCAPE.search(raw):
        raise Malformed("the query string is malformed", "body")
    for part in parts:
        if part:
            name, _, value = part.partition(b"=")
            found.setdefault(_decoded(name), []).append(_decoded(value))
    return found


def _decoded(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError as error:
        raise Malformed("the query string holds bytes that are not UTF-8", "body") from error


_IN_REQUESTS: Final = frozenset({"uri", "querystring", "header", "headers"})
_IN_ANSWERS: Final = frozenset({"header", "headers", "statusCode"})


def body_members(shape: Shape, *, answer: bool = False) -> dict[str, Shape]:
    """The members of a structure that travel in the body, of a request or of an answer (where nothing is in a path)."""
    elsewhere = _IN_ANSWERS if answer else _IN_REQUESTS
    return {name: inner for name, inner in shape.members.items() if inner.location not in elsewhere}


# --- in


def bind_inputs(operation: OperationModel) -> list[tuple[str, Input]]:
    """How to take each member that is not in the body: (member's name, from where)."""
    if operation.input is None:
        return []
    literals = {part.partition("=")[0] for part in operation.uri.partition("?")[2].split("&") if part}
    members = operation.input.members.items()
    return [(name, _input(name, shape, literals)) for name, shape in members if shape.location in _IN_REQUESTS]


def _input(name: str, shape: Shape, literals: set[str]) -> Input:
    wire = shape.wire_name(name)
    if shape.location == "uri":
        convert = scalars.text_decoder(shape, "iso8601")
        if convert is None:
            return lambda labels, query, headers: labels.get(wire)
        return lambda labels, query, headers: convert(labels[wire])
    if shape.location == "querystring":
        return _query_map(shape, literals) if shape.kind == "map" else _query_input(wire, shape)
    if shape.location == "headers":
        prefix = shape.traits.get("locationName", "").lower()
        return lambda labels, query, headers: _header_map(headers, prefix)
    return _header_input(wire.lower(), shape)


def _query_input(wire: str, shape: Shape) -> Input:
    if shape.kind == "list":
        convert = scalars.text_decoder(shape.member, "iso8601")

        def several(labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> Any:
            values = query.get(wire)
            return values if values is None or convert is None else [convert(value) for value in values]

        return several
    single = scalars.text_decoder(shape, "iso8601")

    def one(labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> Any:
        values = query.get(wire)
        return None if values is None else values[0] if single is None else single(values[0])

    return one


def _query_map(shape: Shape, literals: set[str]) -> Input:
    """Everything in the query, what other members take from it too (Smithy: httpQueryParams)."""
    several = shape.value.kind == "list"

    def decode(labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> Any:
        rest = {key: values if several else values[0] for key, values in query.items() if key not in literals}
        return rest or None

    return decode


def _header_map(headers: Mapping[str, str], prefix: str) -> dict[str, str] | None:
    return {name[len(prefix) :]: value for name, value in headers.items() if name.startswith(prefix)} or None


def _header_input(wire: str, shape: Shape) -> Input:
    if shape.kind == "list":
        convert = scalars.text_decoder(shape.member, "rfc822")
        dates = shape.member.kind == "timestamp" and scalars.time_format(shape.member, "rfc822") == "rfc822"

        def several(labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> Any:
            text = headers.get(wire)
            if text is None:
                return None
            items = _dates(text) if dates else _items(text)
            return items if convert is None else [convert(item) for item in items]

        return several
    single = scalars.text_decoder(shape, "rfc822")

    def one(labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> Any:
        text = headers.get(wire)
        return None if text is None else text if single is None else single(text)

    return one


def _items(text: str) -> list[str]:
    """The items of a list in a header; in quotes one may hold a comma (RFC 9110 section 5.6.1)."""
    found = []
    at = 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None or item.end() == at:
            raise Malformed("a list in a header is malformed")
        quoted, plain = item.groups()
        found.append(plain.strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        at = item.end()
    return found


def _dates(text: str) -> list[str]:
    """HTTP dates hold a comma each."""
    parts = text.split(",")
    if len(parts) % 2:
        raise Malformed("a list of dates in a header is malformed")
    return [f"{day.strip()}, {rest.strip()}" for day, rest in zip(parts[::2], parts[1::2], strict=True)]


# --- out

Output = Callable[[Any], list[tuple[str, str]]]


def bind_outputs(shape: Shape | None) -> tuple[list[tuple[str, Output]], str]:
    """How to write each member that goes into a header, and the member that is the status code, or ""."""
    bound: list[tuple[str, Output]] = []
    status = ""
    for name, inner in (shape.members if shape is not None else {}).items():
        if inner.location == "statusCode":
            status = name
        elif inner.location == "headers":
            bound.append((name, _output_map(inner.traits.get("locationName", ""))))
        elif inner.location == "header":
            bound.append((name, _output_header(inner.wire_name(name).lower(), inner)))
    return bound, status


def _output_map(prefix: str) -> Output:
    return lambda value: [(f"{prefix}{key}".lower(), _header_text(str(item))) for key, item in value.items()]


def _output_header(wire: str, shape: Shape) -> Output:
    if shape.kind == "list":
        item = scalars.text_encoder(shape.member, "rfc822")
        quote = shape.member.kind == "string"

        def several(value: Any) -> list[tuple[str, str]]:
            texts = [item(element) for element in value if element is not None]
            text = ", ".join(_quoted(element) if quote else element for element in texts)
            return [(wire, _header_text(text))]

        return several
    convert = scalars.text_encoder(shape, "rfc822")
    return lambda value: [(wire, _header_text(convert(value)))]


def _quoted(text: str) -> str:
    if "," not in text and '"' not in text:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _header_text(text: str) -> str:
    """A value cannot end its header: control characters become spaces (RFC 9110 section 5.5)."""
    return _CONTROL.sub(" ", text)
