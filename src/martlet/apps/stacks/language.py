"""What the transforms AWS::Include and AWS::LanguageExtensions do to a template before anything else. Pure but for `load`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from martlet.apps.stacks.intrinsics import Scope, intrinsic_of
from martlet.apps.stacks.reading import Map, Seq, TemplateFault, line_of, read
from martlet.errors import Unsupported
from martlet.limits import LIMITS, exceeded

__all__ = ["LANGUAGE", "SERVERLESS", "Load", "expand_loops", "include", "transform_names"]

SERVERLESS: Final = "AWS::Serverless-2016-10-31"
LANGUAGE: Final = "AWS::LanguageExtensions"
_INCLUDE: Final = "AWS::Include"
_LOOP: Final = "Fn::ForEach::"
_DEEPEST: Final = 5  # loops within loops: CloudFormation's own limit
_INCLUDES: Final = 20

Load = Callable[[str, int], bytes]  # (location, line of the template) -> the file's content; raises MartletError


def transform_names(transforms: tuple[Any, ...]) -> list[str]:
    """The names of a template's transforms. Raises `Unsupported` for one that is not honoured (macros)."""
    names: list[str] = []
    for one in transforms:
        name = one if isinstance(one, str) else one.get("Name", "")
        if name not in (SERVERLESS, LANGUAGE, _INCLUDE):
            raise Unsupported(
                f"the transform {name} is not supported",
                remedy=f"Martlet knows {SERVERLESS}, {LANGUAGE} and {_INCLUDE}",
                line=line_of(one),
            )
        names.append(name)
    return names


# --- AWS::Include


def include(body: Map, load: Load, scope: Scope) -> Map:
    """`body` with every AWS::Include replaced by what it names."""
    return _Includer(load, scope).top(body)


class _Includer:
    def __init__(self, load: Load, scope: Scope) -> None:
        self._load = load
        self._scope = scope
        self._count = 0

    def top(self, body: Map) -> Map:
        transforms = body.get("Transform")
        listed = transforms if isinstance(transforms, list) else [transforms]
        named = [one for one in listed if isinstance(one, dict) and one.get("Name") == _INCLUDE]
        found: Map = self.walk(body)
        for one in named:
            self._merge(found, self._fetch(one, line_of(body, "Transform")))
        return found

    def walk(self, value: Any) -> Any:
        if isinstance(value, list):
            return Seq([self.walk(one) for one in value], line_of(value), value.lines if isinstance(value, Seq) else None)
        if not isinstance(value, dict):
            return value
        found = Map(line=line_of(value))
        for key, one in value.items():
            if key == "Fn::Transform" and isinstance(one, dict):
                line = line_of(value, key)
                name = one.get("Name")
                if name != _INCLUDE:
                    raise Unsupported(f"the transform {name} is not supported", line=line)
                included = self._fetch(one, line)
                if len(value) == 1 and not isinstance(included, dict):
                    return included
                self._merge(found, included, line)
            else:
                found[key] = self.walk(one)
                found.lines[key] = line_of(value, key)
        return found

    def _fetch(self, call: Any, line: int) -> Any:
        parameters = call.get("Parameters")
        location = self._scope.evaluate(parameters.get("Location")) if isinstance(parameters, dict) else None
        if not isinstance(location, str) or not location:
            raise TemplateFault("Transform AWS::Include failed with: the Location parameter must be a string", line)
        self._count += 1
        if self._count > _INCLUDES:
            raise TemplateFault(f"Transform AWS::Include failed with: more than {_INCLUDES} files", line)
        try:
            included = read(self._load(location, line))
        except TemplateFault as fault:
            raise TemplateFault(f"Transform AWS::Include failed with: {location}: {fault.message}", line) from fault
        _set_lines(included, line)  # lines of the other file would mislead here
        return self.walk(included)

    def _merge(self, into: Map, included: Any, line: int = 0) -> None:
        if not isinstance(included, dict):
            raise TemplateFault("Transform AWS::Include failed with: the file holds no object", line)
        for key, value in included.items():
            mine = into.get(key)
            if isinstance(mine, Map) and isinstance(value, Map):
                self._merge(mine, value, line)
            else:
                into[key] = value
                into.lines[key] = line_of(included, key)


def _set_lines(value: Any, line: int) -> None:
    if isinstance(value, Map):
        value.line = line
        value.lines = dict.fromkeys(value, line)
        for one in value.values():
            _set_lines(one, line)
    elif isinstance(value, Seq):
        value.line = line
        value.lines = [line] * len(value)
        for one in value:
            _set_lines(one, line)


# --- AWS::LanguageExtensions


def expand_loops(body: Map, scope: Scope) -> Map:
    """`body` with every Fn::ForEach written out. Collections may use parameters and mappings, as in CloudFormation."""
    found: Map = _Loops(scope).walk(body, {}, 0)
    return found


class _Loops:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._count = 0

    def walk(self, value: Any, names: dict[str, str], depth: int) -> Any:
        self._count += 1
        if self._count > LIMITS["template_values"].default:
            raise exceeded("template_values", self._count, "the template with its loops written out")
        if isinstance(value, str):
            return _replaced(value, names) if names else value
        if isinstance(value, list):
            members = [self.walk(one, names, depth) for one in value]
            return Seq(members, line_of(value), list(value.lines) if isinstance(value, Seq) else None)
        if not isinstance(value, dict):
            return value
        if intrinsic_of(value) == "Ref" and isinstance(value["Ref"], str) and value["Ref"] in names:
            return names[value["Ref"]]
        found = Map(line=line_of(value))
        for key, one in value.items():
            line = line_of(value, key)
            if key.startswith(_LOOP):
                for made, inner in self._loop(key, one, names, depth + 1, line):
                    _put(found, made, inner, line)
            else:
                _put(found, _replaced(key, names), self.walk(one, names, depth), line)
        return found

    def _loop(self, key: str, call: Any, names: dict[str, str], depth: int, line: int) -> list[tuple[str, Any]]:
        name = key[len(_LOOP) :]
        if depth > _DEEPEST:
            raise TemplateFault(f"Template error: Fn::ForEach {name}: more than {_DEEPEST} loops within each other", line)
        ok = isinstance(call, list) and len(call) == 3 and isinstance(call[0], str) and isinstance(call[2], dict)
        if not name.isalnum() or not ok:
            raise TemplateFault(
                f"Template error: Fn::ForEach {name} requires an alphanumeric name and a list of an identifier, a collection "
                "and an object",
                line,
            )
        identifier, collection, pattern = call
        if identifier in names or identifier in self._scope.parameters:
            raise TemplateFault(f"Template error: Fn::ForEach {name}: the identifier {identifier} is taken", line)
        members = self._scope.evaluate(self.walk(collection, names, depth))
        if isinstance(members, list) and members and all(isinstance(one, list) for one in members):
            members = [inner for one in members for inner in one]
        if not isinstance(members, list) or not all(isinstance(one, str | int) for one in members):
            raise TemplateFault(f"Template error: Fn::ForEach {name}: the collection must be a list of strings", line)
        found: list[tuple[str, Any]] = []
        for member in dict.fromkeys(map(str, members)):
            inner = self.walk(pattern, {**names, identifier: member}, depth)
            found += inner.items()
        return found


def _put(found: Map, key: str, value: Any, line: int) -> None:
    if key in found:
        raise TemplateFault(f"Template error: Fn::ForEach makes the key {key} twice", line)
    found[key] = value
    found.lines[key] = line


def _replaced(text: str, names: dict[str, str]) -> str:
    if "{" not in text:
        return text
    for name, value in names.items():
        text = text.replace(f"${{{name}}}", value).replace(f"&{{{name}}}", re.sub(r"[^A-Za-z0-9]", "", value))
    return text
