"""A template's text, YAML or JSON, as plain values that remember their lines. Pure.

`Map` and `Seq` are a dict and a list with the line they begin at and the line of each member, so that whatever is wrong
later can be shown where it stands. The short form of an intrinsic (`!Sub x`) becomes its long one (`{"Fn::Sub": "x"}`).
Aliases and merge keys are taken, since `aws cloudformation package` and `sam` resolve them, but what they multiply is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from martlet.errors import DeployFailed
from martlet.limits import LIMITS, exceeded

__all__ = ["Map", "Seq", "TemplateFault", "line_of", "read"]

_CORE: Final = "tag:yaml.org,2002:"
_SHORT: Final = frozenset(
    {
        "And", "Base64", "Cidr", "Equals", "FindInMap", "GetAZs", "GetAtt", "If", "ImportValue", "Join", "Length", "Not", "Or",
        "Select", "Split", "Sub", "ToJsonString", "Transform",
    }
)  # fmt: skip
_TRUE: Final = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE: Final = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
# A leading zero makes no octal number here: "012345678901" is an account, and account numbers are why this is known as a trap.
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9_]+(?:[eE][-+][0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
)
_DIGITS: Final = 300  # of one number: more would be a way to keep the parser busy


class TemplateFault(DeployFailed):
    """A template says something that cannot be. `text` is the cause alone, `line` its place (0: not known)."""

    def __init__(self, text: str, line: int = 0, *, logical_id: str = "", remedy: str = "") -> None:
        where = f" (line {line})" if line else ""
        details: dict[str, object] = {"line": line} if line else {}
        if logical_id:
            details["logical_id"] = logical_id
        super().__init__(text + where, remedy=remedy or "fix the template and deploy again", **details)
        self.text = text
        self.line = line
        self.logical_id = logical_id


class Map(dict[str, Any]):
    """A mapping. `line` is where it begins, `lines` where each key stands; both count from 1."""

    __slots__ = ("line", "lines")

    def __init__(self, items: Any = (), line: int = 0, lines: dict[str, int] | None = None) -> None:
        super().__init__(items)
        self.line = line
        self.lines = lines if lines is not None else {}


class Seq(list[Any]):
    """A sequence. `lines` has the line of each member."""

    __slots__ = ("line", "lines")

    def __init__(self, items: Any = (), line: int = 0, lines: list[int] | None = None) -> None:
        super().__init__(items)
        self.line = line
        self.lines = lines if lines is not None else []


def line_of(holder: Any, key: Any = None) -> int:
    """The line of `holder`, or of its member `key`; 0 where it is not known."""
    if key is not None:
        if isinstance(holder, Map):
            return holder.lines.get(key, holder.line)
        if isinstance(holder, Seq) and isinstance(key, int) and key < len(holder.lines):
            return holder.lines[key]
    return holder.line if isinstance(holder, Map | Seq) else 0


def read(text: str | bytes) -> Map:
    """The template in `text`. Raises `TemplateFault` with the line, `LimitExceeded` (template_bytes, template_values,
    template_depth)."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > LIMITS["template_bytes"].default:
        raise exceeded("template_bytes", len(raw), "the template")
    try:
        source = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemplateFault(f"Template format error: the template is not UTF-8: {error.reason}") from error
    if source.lstrip().startswith("{"):
        plain = _json(source)
        if plain is not None:
            return plain
    value = _Builder(source).document()
    if not isinstance(value, Map):
        raise TemplateFault("Template format error: unsupported structure.", 1)
    return value


def _json(source: str) -> Map | None:
    """JSON by its own rules, then a second time as YAML for the lines; None if it is not JSON (YAML may begin with "{")."""
    try:
        value = json.loads(source, object_pairs_hook=_unique, parse_constant=_no_constant)
    except ValueError:
        return None
    except RecursionError as error:
        raise exceeded("template_depth", None, "the template") from error
    try:
        lined = _Builder(source).document()
    except TemplateFault as fault:  # what YAML cannot read though JSON can: surrogate pairs, very long keys
        if fault.text.startswith("Template format error: YAML not well-formed"):
            lined = value
        else:
            raise
    if not isinstance(lined, dict):
        raise TemplateFault("Template format error: unsupported structure.", 1)
    return lined if isinstance(lined, Map) else Map(lined, 1)


def _no_constant(name: str) -> Any:
    raise TemplateFault(f"Template format error: {name} is not JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> Map:
    found = Map(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise TemplateFault(f"Template format error: duplicate key {key!r}")
            seen.add(key)
    return found


class _Builder:
    """Values from the events of a YAML parser."""

    def __init__(self, source: str) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events: Iterator[Event] = iter(yaml.parse(source, Loader=loader))
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._most = LIMITS["template_values"].default
        self._deepest = LIMITS["template_depth"].default

    def document(self) -> Any:
        value: Any = None
        documents = 0
        while True:
            event = self._next()
            if isinstance(event, StreamEndEvent):
                break
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise TemplateFault("Template format error: the file holds more than one YAML document", _line(event))
                value = self._value(self._next(), 0)[0]
        if not documents:
            raise TemplateFault("Template format error: the template is empty.", 1)
        return value

    def _next(self) -> Event:
        try:
            return next(self._events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            why = f": {error.problem}" if error.problem else ""
            raise TemplateFault(f"Template format error: YAML not well-formed{why}.{place}") from error
        except yaml.YAMLError as error:
            raise TemplateFault(f"Template format error: YAML not well-formed: {error}.") from error
        except StopIteration:
            raise TemplateFault("Template format error: YAML not well-formed: it ends too early.") from None

    def _value(self, event: Event, depth: int) -> tuple[Any, int]:
        """The value that begins with `event`, and how many values it is made of."""
        if depth > self._deepest:
            raise exceeded("template_depth", depth, f"the template, at line {_line(event)}")
        if isinstance(event, AliasEvent):
            return self._alias(event)
        self._grow(1, event)
        anchor = getattr(event, "anchor", None)
        if isinstance(event, ScalarEvent):
            value, weight = _scalar(event), 1
        elif isinstance(event, SequenceStartEvent):
            value, weight = self._sequence(event, depth)
        else:
            assert isinstance(event, MappingStartEvent)
            value, weight = self._mapping(event, depth)
        tag = getattr(event, "tag", None)
        if tag and tag.startswith("!") and tag != "!":
            value = _intrinsic(tag, value, _line(event))
        if anchor:
            self._anchors[anchor] = (value, weight)
        return value, weight

    def _grow(self, weight: int, event: Event) -> None:
        self._count += weight
        if self._count > self._most:
            raise exceeded("template_values", self._count, f"the template with its aliases, at line {_line(event)}")

    def _alias(self, event: AliasEvent) -> tuple[Any, int]:
        if event.anchor not in self._anchors:
            raise TemplateFault(f"Template format error: the alias *{event.anchor} has no anchor before it", _line(event))
        value, weight = self._anchors[event.anchor]
        self._grow(weight, event)  # whoever walks the values meets them again at every alias
        return value, weight

    def _sequence(self, start: SequenceStartEvent, depth: int) -> tuple[Seq, int]:
        _check_collection(start, "seq")
        found, weight = Seq(line=_line(start)), 1
        while not isinstance(event := self._next(), SequenceEndEvent):
            value, inner = self._value(event, depth + 1)
            found.append(value)
            found.lines.append(_line(event))
            weight += inner
        return found, weight

    def _mapping(self, start: MappingStartEvent, depth: int) -> tuple[Map, int]:
        _check_collection(start, "map")
        found, weight = Map(line=_line(start)), 1
        merged: list[Any] = []
        while not isinstance(event := self._next(), MappingEndEvent):
            key, _ = self._value(event, depth + 1)
            merging = isinstance(event, ScalarEvent) and event.value == "<<" and not event.style
            if not isinstance(key, str):
                key = _key(event, key)
            value, inner = self._value(self._next(), depth + 1)
            weight += inner + 1
            if merging:
                merged += value if isinstance(value, Seq) else [value]
            elif key in found:
                raise TemplateFault(f"Template format error: duplicate key {key!r}", _line(event))
            else:
                found[key] = value
                found.lines[key] = _line(event)
        for other in merged:
            if not isinstance(other, Map):
                raise TemplateFault("Template format error: << merges something that is not a mapping", _line(start))
            for key, value in other.items():
                if key not in found:
                    found[key] = value
                    found.lines[key] = other.lines.get(key, other.line)
        return found, weight


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 0


def _key(event: Event, key: Any) -> str:
    """`8080: x` and `true: x` are keys by their text."""
    if isinstance(event, ScalarEvent):
        return str(event.value)
    raise TemplateFault("Template format error: a key must be a string", _line(event))


def _check_collection(event: SequenceStartEvent | MappingStartEvent, kind: str) -> None:
    tag = event.tag
    if tag and tag.startswith(_CORE) and tag != _CORE + kind:
        raise TemplateFault(f"Template format error: the YAML tag !!{tag[len(_CORE) :]} is not supported", _line(event))


def _scalar(event: ScalarEvent) -> Any:
    text, tag = event.value, event.tag
    if tag and tag.startswith(_CORE):
        kind = tag[len(_CORE) :]
        if kind == "str":
            return text
        if kind not in ("int", "float", "bool", "null"):
            raise TemplateFault(f"Template format error: the YAML tag !!{kind} is not supported", _line(event))
        value = _plain(text)
        expected = {"int": int, "float": float | int, "bool": bool, "null": type(None)}[kind]
        if not isinstance(value, expected):
            raise TemplateFault(f"Template format error: {text[:80]!r} is not !!{kind}", _line(event))
        return value
    plain = not event.style and not tag  # style: None or "" for a plain scalar, by parser
    return _plain(text) if plain else text


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if len(text) <= _DIGITS and (text[0] in "+-." or text[0].isdigit()):
        if _INTEGER.fullmatch(text):
            return int(text.replace("_", ""), 16 if text.startswith("0x") else 10)
        if _FLOAT.fullmatch(text):
            return float(text.replace("_", ""))
    return text


def _intrinsic(tag: str, value: Any, line: int) -> Map:
    name = tag[1:]
    if name in ("Ref", "Condition"):
        return Map({name: value}, line, {name: line})
    if name not in _SHORT:
        raise TemplateFault(f"Template format error: the tag {tag} is not known", line)
    if name == "GetAtt" and isinstance(value, str):
        logical_id, _, attribute = value.partition(".")
        value = Seq([logical_id, attribute] if attribute else [logical_id], line, [line, line])
    long = f"Fn::{name}"
    return Map({long: value}, line, {long: line})
