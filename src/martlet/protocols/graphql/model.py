"""What an imported schema says, in values: the mapping from GraphQL's types to collections."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = [
    "SCALARS",
    "STATE",
    "Argument",
    "Embedded",
    "Entity",
    "Enum",
    "Index",
    "Input",
    "Member",
    "Model",
    "Root",
    "State",
    "state_of",
]

# GraphQL's scalar -> the type of a field of a collection's schema.
SCALARS: Final = {
    "ID": "text",
    "String": "text",
    "Int": "int",
    "Float": "float",
    "Boolean": "bool",
    "Long": "int",
    "BigInt": "int",
    "Decimal": "decimal",
    "DateTime": "time",
    "Date": "text",
    "Bytes": "bytes",
    "JSON": "any",
}

# scalar, enum, embedded: a value in the document. to_one, to_many: ids in the document. from_one, from_many: the other side of
# a relation, found by the index of `by`. function: asked of a function.
Kind = Literal["scalar", "enum", "embedded", "to_one", "to_many", "from_one", "from_many", "function"]
OnDelete = Literal["restrict", "cascade", "keep"]


class Argument(msgspec.Struct, frozen=True):
    """An argument as it was declared: `declared` is its type and default in GraphQL's words."""

    name: str
    declared: str


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a type. `type`: a scalar, enum, embedded type or entity. `declared`: its type as it was written."""

    name: str
    kind: Kind
    type: str
    declared: str
    is_list: bool = False
    required: bool = False
    item_required: bool = False
    by: str = ""  # of from_*: the field of the other type that holds the ids
    on_delete: OnDelete = "restrict"
    unique: str = ""  # name of its unique index
    default: str = ""  # JSON
    computed: str = ""
    function: str = ""
    arguments: tuple[Argument, ...] = ()
    text: str = ""

    @property
    def stored(self) -> bool:
        return self.kind in ("scalar", "enum", "embedded", "to_one", "to_many")


class Index(msgspec.Struct, frozen=True):
    """An index over fields, "-" first for descending."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False
    field: str = ""  # of Query that reads it; "": one is made

    def terms(self) -> tuple[str, ...]:
        return tuple(name.removeprefix("-") for name in self.fields)


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """A type whose objects are documents of a collection."""

    name: str
    collection: str
    members: tuple[Member, ...]
    indexes: tuple[Index, ...] = ()
    history_seconds: int | None = None
    changes: str = ""
    ttl: str = ""
    checks: tuple[tuple[str, str], ...] = ()
    text: str = ""

    def member(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)


class Embedded(msgspec.Struct, frozen=True):
    """A type whose objects lie within documents."""

    name: str
    members: tuple[Member, ...]
    text: str = ""


class Enum(msgspec.Struct, frozen=True):
    name: str
    values: tuple[str, ...]
    text: str = ""


class Input(msgspec.Struct, frozen=True):
    """An input type that was declared, for arguments of functions."""

    name: str
    fields: tuple[Argument, ...]
    text: str = ""


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A declared field of Query or Mutation. `function`, or (of Query) a list by `index` or one document by a unique index."""

    on: Literal["Query", "Mutation"]
    name: str
    type: str
    declared: str
    is_list: bool = False
    arguments: tuple[Argument, ...] = ()
    function: str = ""
    index: str = ""
    text: str = ""


class Model(msgspec.Struct, frozen=True):
    """A whole schema."""

    entities: dict[str, Entity] = {}
    embedded: dict[str, Embedded] = {}
    enums: dict[str, Enum] = {}
    inputs: dict[str, Input] = {}
    roots: tuple[Root, ...] = ()

    def named(self, name: str) -> Entity | Embedded | None:
        return self.entities.get(name) or self.embedded.get(name)


class State(msgspec.Struct, frozen=True):
    """What is stored of a database's schema: the SDL of each importer, by its name. `revision` grows with each import."""

    revision: int = 0
    sources: dict[str, str] = {}
    introspection: bool = True
    updated_at_ms: int = 0


STATE: Final = b"Dq"  # + database: the row in which `State` is kept (see `documents.layout`)


def state_of(raw: bytes | None) -> State:
    return msgspec.json.decode(raw, type=State) if raw is not None else State()
