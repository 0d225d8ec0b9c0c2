"""The syntax tree of a template. Every node is a frozen value; `run` gives it meaning."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

__all__ = [
    "Accessor",
    "Binary",
    "Block",
    "Break",
    "Call",
    "Define",
    "Escaped",
    "Expression",
    "Foreach",
    "If",
    "Index",
    "Interpolated",
    "ListOf",
    "Literal",
    "MacroCall",
    "MapOf",
    "Node",
    "Not",
    "Property",
    "Range",
    "Reference",
    "Set",
    "Stop",
    "Text",
]


class Text(msgspec.Struct, frozen=True):
    text: str


class Property(msgspec.Struct, frozen=True):
    name: str


class Call(msgspec.Struct, frozen=True):
    name: str
    arguments: tuple[Expression, ...]


class Index(msgspec.Struct, frozen=True):
    key: Expression


class Reference(msgspec.Struct, frozen=True):
    """`$name` and what follows. A reference to nothing prints nothing, with `!` and without."""

    name: str
    path: tuple[Accessor, ...]


class Escaped(msgspec.Struct, frozen=True):
    """`\\$name`: prints as `source` where the reference means something, else with its backslash."""

    reference: Reference
    source: str


class Literal(msgspec.Struct, frozen=True):
    value: str | int | float | bool | None


class Interpolated(msgspec.Struct, frozen=True):
    block: Block


class ListOf(msgspec.Struct, frozen=True):
    items: tuple[Expression, ...]


class Range(msgspec.Struct, frozen=True):
    first: Expression
    last: Expression


class MapOf(msgspec.Struct, frozen=True):
    items: tuple[tuple[Expression, Expression], ...]


class Binary(msgspec.Struct, frozen=True):
    operator: str
    left: Expression
    right: Expression


class Not(msgspec.Struct, frozen=True):
    operand: Expression


class Set(msgspec.Struct, frozen=True):
    target: Reference
    value: Expression


class If(msgspec.Struct, frozen=True):
    branches: tuple[tuple[Expression, Block], ...]
    otherwise: Block


class Foreach(msgspec.Struct, frozen=True):
    variable: str
    items: Expression
    body: Block


class Break(msgspec.Struct, frozen=True):
    pass


class Stop(msgspec.Struct, frozen=True):
    pass


class Define(msgspec.Struct, frozen=True):
    name: str
    body: Block


class MacroCall(msgspec.Struct, frozen=True):
    name: str
    arguments: tuple[Expression, ...]


Block: TypeAlias = "tuple[Node, ...]"
Node: TypeAlias = "Text | Reference | Escaped | Set | If | Foreach | Break | Stop | Define | MacroCall"
Expression: TypeAlias = "Reference | Literal | Interpolated | ListOf | Range | MapOf | Binary | Not"
Accessor: TypeAlias = "Property | Call | Index"
