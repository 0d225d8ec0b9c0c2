"""What a collection asks of its documents: types, required fields, defaults, computed fields, checks, references."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from martlet.documents.expressions import Expression, compile_expression
from martlet.errors import InvalidInput
from martlet.limits import LIMITS, exceeded

__all__ = ["Check", "Field", "Schema", "SchemaRules"]

OnDelete = Literal["restrict", "cascade", "keep"]


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One top-level field. `type`: any, bool, int, float, decimal, number, text, bytes, time, object, set, ref, or array<...>
    of one of them; with a trailing "?" null is allowed. `ref` holds the id of a document in `collection`."""

    type: str = "any"
    required: bool = False
    default: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # JSON, written when the field is not given
    computed: str = ""  # an expression over the document; written at each write, never by callers
    collection: str = ""  # of a ref
    on_delete: OnDelete = "restrict"  # what becomes of this document when the one it refers to is deleted


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition that every document must meet: the expression must be true (null is not)."""

    name: str
    expression: str


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`additional`: whether fields that are not named here are allowed."""

    fields: dict[str, Field] = {}
    checks: tuple[Check, ...] = ()
    additional: bool = True


class Violation(InvalidInput):
    """The document does not meet its collection's schema."""

    http_status = 422
    code = "schema_violation"


def _is_whole(value: Any) -> bool:
    return type(value) is int


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "any": lambda value: True,
    "bool": lambda value: type(value) is bool,
    "int": _is_whole,
    "float": lambda value: type(value) in (int, float),
    "decimal": lambda value: type(value) in (int, Decimal),
    "number": lambda value: type(value) in (int, float, Decimal),
    "text": lambda value: type(value) is str,
    "bytes": lambda value: type(value) is bytes,
    "time": lambda value: isinstance(value, datetime),
    "object": lambda value: type(value) is dict,
    "set": lambda value: type(value) is frozenset,
    "ref": lambda value: type(value) is str,
}


def _type_test(text: str, field: str) -> Callable[[Any], bool]:
    base = text.removesuffix("?")
    array = re.fullmatch(r"array<(.+)>", base)
    if array:
        member = _type_test(array[1], field)

        def whole(value: Any) -> bool:
            return type(value) is list and all(map(member, value))

        test: Callable[[Any], bool] = whole
    elif base in _TYPES:
        test = _TYPES[base]
    else:
        known = ", ".join(sorted(_TYPES))
        raise InvalidInput(f"field {field}: there is no type {text[:40]!r}; there are {known} and array<...>", field=field)
    if not text.endswith("?"):
        return test
    return lambda value: value is None or test(value)


class SchemaRules:
    """A compiled schema."""

    def __init__(self, schema: Schema) -> None:
        count = len(schema.fields) + len(schema.checks)
        if count > LIMITS["collection_fields"].default:
            raise exceeded("collection_fields", count, "schema")
        self._schema = schema
        self._tests: dict[str, Callable[[Any], bool]] = {}
        self._computed: list[tuple[str, Expression]] = []
        self._defaults: dict[str, bytes] = {}
        self.nodes = 0  # compute of one document
        for name, field in schema.fields.items():
            self._add(name, field)
        self._checks = [(check.name, compile_expression(check.expression)) for check in schema.checks]
        self.nodes += sum(expression.nodes for _, expression in self._checks)
        self.transforms = bool(self._computed or self._defaults)
        for name, expression in [*self._computed, *self._checks]:
            if expression.parameters:
                raise InvalidInput(f"the expression of {name!r} has parameters, which a schema cannot give", field=name)

    def _add(self, name: str, field: Field) -> None:
        if not name or len(name) > 255:
            raise InvalidInput(f"{name[:64]!r} is no name of a field: 1 to 255 characters", field="fields")
        self._tests[name] = _type_test(field.type, name)
        if ("ref" in re.split(r"\W+", field.type)) != bool(field.collection):
            raise InvalidInput(f"field {name}: type ref and `collection` belong together", field=name)
        if field.collection and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", field.collection):
            raise InvalidInput(f"field {name}: {field.collection[:64]!r} is no name of a collection", field=name)
        if field.computed:
            if field.required or field.default is not msgspec.UNSET:
                raise InvalidInput(f"field {name} is computed: it has neither a default nor need it be given", field=name)
            expression = compile_expression(field.computed)
            self._computed.append((name, expression))
            self.nodes += expression.nodes
        if field.default is not msgspec.UNSET:
            self._defaults[name] = bytes(field.default)

    def apply(self, value: Any, load: Callable[[bytes], Any]) -> Any:
        """The document as it is to be stored. Raises `Violation` naming the field or check."""
        if type(value) is not dict:
            raise Violation("a document of this collection must be an object", field="")
        if self.transforms:
            value = self._transformed(value, load)
        self._check_fields(value)
        for name, expression in self._checks:
            if not expression.holds(value):
                raise Violation(f"check {name!r} does not hold: {expression.text[:200]}", check=name)
        return value

    def _transformed(self, value: dict[str, Any], load: Callable[[bytes], Any]) -> dict[str, Any]:
        value = dict(value)
        for name, raw in self._defaults.items():
            if name not in value:
                value[name] = load(raw)
        for name, _ in self._computed:
            value.pop(name, None)
        for name, expression in self._computed:
            value[name] = expression.value(value)
        return value

    def _check_fields(self, value: dict[str, Any]) -> None:
        for name, test in self._tests.items():
            if name in value:
                if not test(value[name]):
                    wanted = self._schema.fields[name].type
                    raise Violation(f"field {name!r} must be {wanted}, not {_shown(value[name])}", field=name)
            elif self._schema.fields[name].required:
                raise Violation(f"field {name!r} is required", field=name)
        if not self._schema.additional:
            for name in value:
                if name not in self._tests:
                    raise Violation(f"field {name[:64]!r} is not in the schema, which allows no others", field=name[:64])

    def references(self) -> list[tuple[str, Field]]:
        return [(name, field) for name, field in self._schema.fields.items() if field.collection]


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
