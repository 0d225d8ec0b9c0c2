"""JSON Schema, draft 4 (draft-zyp-json-schema-04, draft-fge-json-schema-validation-00), as API Gateway's models use it.

`Schema` compiles a model once; `valid` says yes or no, under a count of steps, because a schema and a body together can
ask for exponential work (nested anyOf, recursive $ref). Patterns run in linear time (`patterns`). `format` is an
annotation: API Gateway does not check it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from martlet.errors import InvalidInput
from martlet.gateway.patterns import compile_pattern
from martlet.limits import LIMITS

__all__ = ["Schema", "TooMuchWork"]

_DEPTH_AT_MOST: Final = 100
_MODEL_URL: Final = "https://apigateway.amazonaws.com/restapis/"
_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


class TooMuchWork(Exception):
    """The body asks for more steps than one validation may take."""


class _Work:
    __slots__ = ("depth", "left")

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.depth = 0

    def take(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMuchWork


Check = Callable[[Any, _Work], bool]


class Schema:
    """A model, compiled. `models` are the API's others, for `$ref`s like ".../restapis/<id>/models/<name>".

    Raises `InvalidInput` for a malformed schema, an unknown reference and a pattern that cannot be matched in linear time.
    """

    def __init__(self, schema: Any, models: Mapping[str, Any] | None = None) -> None:
        self._models = models or {}
        self._compiled: dict[int, list[Check]] = {}
        self._kept: list[Any] = []  # ids stay theirs as long as the schemas live
        self._root = self._compile(schema, schema)

    def valid(self, value: Any) -> bool:
        """Whether `value` satisfies the model. Raises `TooMuchWork`."""
        work = _Work(LIMITS["validation_steps"].default)
        try:
            return _all(self._root, value, work)
        except RecursionError:
            raise TooMuchWork from None

    def _compile(self, schema: Any, root: Any) -> list[Check]:
        if not isinstance(schema, dict):
            raise InvalidInput(f"a schema is a JSON object, not {type(schema).__name__}", field="schema")
        known = self._compiled.get(id(schema))
        if known is not None:
            return known
        checks: list[Check] = []
        self._compiled[id(schema)] = checks  # before its parts: they may refer back to it
        self._kept.append(schema)
        if "$ref" in schema:
            target, its_root = self._resolve(schema["$ref"], root)
            checks.append(_referred(self._compile(target, its_root)))
            return checks
        for keyword, make in _KEYWORDS.items():
            if keyword in schema:
                try:
                    check = make(self, schema, schema[keyword], root)
                except (TypeError, ValueError, AttributeError, KeyError) as error:
                    raise InvalidInput(f"keyword {keyword!r} of a schema is malformed", field="schema") from error
                if check is not None:
                    checks.append(check)
        return checks

    def part(self, schema: Any, root: Any) -> Check:
        checks = self._compile(schema, root)
        return lambda value, work: _all(checks, value, work)

    def _resolve(self, reference: Any, root: Any) -> tuple[Any, Any]:
        if not isinstance(reference, str):
            raise InvalidInput("$ref is not text", field="schema")
        base, _, pointer = reference.partition("#")
        target = root
        if base:
            name = base.rpartition("/models/")[2] if base.startswith(_MODEL_URL) else base
            if name not in self._models:
                raise InvalidInput(f"$ref {reference[:200]!r}: there is no such model", field="schema")
            target = root = self._models[name]
        for part in pointer.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            found = target.get(part) if isinstance(target, dict) else None
            if isinstance(target, list) and part.isdigit() and int(part) < len(target):
                found = target[int(part)]
            if found is None and len(pointer.split("/")) == 3 and part in self._models:  # "#/definitions/<model>"
                found = root = self._models[part]
            target = found
        if target is None:
            name = pointer.rpartition("/")[2]
            if name not in self._models:
                raise InvalidInput(f"$ref {reference[:200]!r} leads nowhere", field="schema")
            target = root = self._models[name]
        return target, root


def _all(checks: list[Check], value: Any, work: _Work) -> bool:
    work.take()
    work.depth += 1
    if work.depth > _DEPTH_AT_MOST:
        raise TooMuchWork
    try:
        return all(check(value, work) for check in checks)
    finally:
        work.depth -= 1


def _referred(checks: list[Check]) -> Check:
    return lambda value, work: _all(checks, value, work)


Make = Callable[[Schema, dict[str, Any], Any, Any], "Check | None"]


def _type(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check:
    names = given if isinstance(given, list) else [given]
    unknown = [name for name in names if name not in _TYPES]
    if unknown:
        raise InvalidInput(f"type {unknown[0]!r} is not one of {', '.join(_TYPES)}", field="schema")
    tests = [_TYPES[name] for name in names]
    return lambda value, _work: any(test(value) for test in tests)


def _same(left: Any, right: Any, work: _Work) -> bool:
    """JSON equality: true is not 1."""
    work.take()
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same(one, other, work) for one, other in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key], work) for key in left)
    return (type(left) is type(right) and left == right) or (_is_number(left) and _is_number(right) and left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _enum(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check:
    allowed = list(given)
    return lambda value, work: any(_same(value, one, work) for one in allowed)


def _multiple(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check:
    step = Decimal(str(float(given))) if isinstance(given, float) else Decimal(int(given))
    if step <= 0:
        raise ValueError

    def check(value: Any, _work: _Work) -> bool:
        if not _is_number(value) or (isinstance(value, float) and not math.isfinite(value)):
            return True
        try:
            return Decimal(str(value)) % step == 0
        except ArithmeticError:
            return False

    return check


def _maximum(_: Schema, schema: dict[str, Any], given: Any, __: Any) -> Check:
    bound, exclusive = _number(given), schema.get("exclusiveMaximum") is True
    return lambda value, _work: not _is_number(value) or (value < bound if exclusive else value <= bound)


def _minimum(_: Schema, schema: dict[str, Any], given: Any, __: Any) -> Check:
    bound, exclusive = _number(given), schema.get("exclusiveMinimum") is True
    return lambda value, _work: not _is_number(value) or (value > bound if exclusive else value >= bound)


def _number(given: Any) -> Any:
    if not _is_number(given):
        raise TypeError
    return given


def _count(given: Any) -> int:
    if not _is_number(given) or given < 0 or given != int(given):
        raise ValueError
    return int(given)


def _sized(kinds: type[str] | type[list[Any]] | type[dict[Any, Any]], most: bool) -> Make:
    def make(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check:
        bound = _count(given)
        if most:
            return lambda value, _work: not isinstance(value, kinds) or len(value) <= bound
        return lambda value, _work: not isinstance(value, kinds) or len(value) >= bound

    return make


def _pattern(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check:
    pattern = compile_pattern(given)

    def check(value: Any, work: _Work) -> bool:
        if not isinstance(value, str):
            return True
        work.take(1 + len(value) // 64)
        return pattern.search(value)

    return check


def _items(owner: Schema, schema: dict[str, Any], given: Any, root: Any) -> Check:
    if isinstance(given, dict):
        each = owner.part(given, root)
        return lambda value, work: not isinstance(value, list) or all(each(item, work) for item in value)
    firsts = [owner.part(one, root) for one in given]
    more = schema.get("additionalItems", True)
    rest = owner.part(more, root) if isinstance(more, dict) else None

    def check(value: Any, work: _Work) -> bool:
        if not isinstance(value, list):
            return True
        if more is False and len(value) > len(firsts):
            return False
        if not all(one(item, work) for one, item in zip(firsts, value, strict=False)):
            return False
        return rest is None or all(rest(item, work) for item in value[len(firsts) :])

    return check


def _unique(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check | None:
    if given is not True:
        return None

    def check(value: Any, work: _Work) -> bool:
        if not isinstance(value, list):
            return True
        return not any(_same(one, other, work) for index, one in enumerate(value) for other in value[:index])

    return check


def _required(_: Schema, __: dict[str, Any], given: Any, ___: Any) -> Check | None:
    if isinstance(given, bool):
        return None  # draft 3's, which means nothing in draft 4
    names = [str(name) for name in given]
    return lambda value, _work: not isinstance(value, dict) or all(name in value for name in names)


def _object(given: Any) -> dict[Any, Any]:
    if not isinstance(given, dict):
        raise TypeError
    return given


def _properties(owner: Schema, schema: dict[str, Any], _: Any, root: Any) -> Check | None:
    """properties, patternProperties and additionalProperties belong together."""
    named = {str(name): owner.part(one, root) for name, one in _object(schema.get("properties", {})).items()}
    patterned = [
        (compile_pattern(str(p)), owner.part(one, root)) for p, one in _object(schema.get("patternProperties", {})).items()
    ]
    more = schema.get("additionalProperties", True)
    rest = owner.part(more, root) if isinstance(more, dict) else None

    def check(value: Any, work: _Work) -> bool:
        if not isinstance(value, dict):
            return True
        for name, item in value.items():
            work.take(1 + len(patterned))
            one = named.get(name)
            if one is not None and not one(item, work):
                return False
            known = one is not None
            for pattern, other in patterned:
                if pattern.search(name):
                    known = True
                    if not other(item, work):
                        return False
            if not known and (more is False or (rest is not None and not rest(item, work))):
                return False
        return True

    return check


def _also_properties(owner: Schema, schema: dict[str, Any], given: Any, root: Any) -> Check | None:
    return None if "properties" in schema else _properties(owner, schema, given, root)


def _last_properties(owner: Schema, schema: dict[str, Any], given: Any, root: Any) -> Check | None:
    if "properties" in schema or "patternProperties" in schema:
        return None
    return _properties(owner, schema, given, root)


def _dependencies(owner: Schema, _: dict[str, Any], given: Any, root: Any) -> Check:
    names: list[tuple[str, list[str]]] = []
    parts: list[tuple[str, Check]] = []
    for name, needs in _object(given).items():
        if isinstance(needs, dict):
            parts.append((name, owner.part(needs, root)))
        else:
            names.append((name, [str(one) for one in needs]))

    def check(value: Any, work: _Work) -> bool:
        if not isinstance(value, dict):
            return True
        if any(name in value and not all(one in value for one in needs) for name, needs in names):
            return False
        return all(part(value, work) for name, part in parts if name in value)

    return check


def _combined(choose: Callable[[list[Check], Any, _Work], bool]) -> Make:
    def make(owner: Schema, _: dict[str, Any], given: Any, root: Any) -> Check:
        if not isinstance(given, list) or not given:
            raise ValueError
        parts = [owner.part(one, root) for one in given]
        return lambda value, work: choose(parts, value, work)

    return make


def _not(owner: Schema, _: dict[str, Any], given: Any, root: Any) -> Check:
    part = owner.part(given, root)
    return lambda value, work: not part(value, work)


_KEYWORDS: Final[dict[str, Make]] = {
    "type": _type,
    "enum": _enum,
    "multipleOf": _multiple,
    "maximum": _maximum,
    "minimum": _minimum,
    "maxLength": _sized(str, True),
    "minLength": _sized(str, False),
    "pattern": _pattern,
    "maxItems": _sized(list, True),
    "minItems": _sized(list, False),
    "maxProperties": _sized(dict, True),
    "minProperties": _sized(dict, False),
    "items": _items,
    "uniqueItems": _unique,
    "required": _required,
    "properties": _properties,
    "patternProperties": _also_properties,
    "additionalProperties": _last_properties,
    "dependencies": _dependencies,
    "allOf": _combined(lambda parts, value, work: all(part(value, work) for part in parts)),
    "anyOf": _combined(lambda parts, value, work: any(part(value, work) for part in parts)),
    "oneOf": _combined(lambda parts, value, work: sum(part(value, work) for part in parts) == 1),
    "not": _not,
}
