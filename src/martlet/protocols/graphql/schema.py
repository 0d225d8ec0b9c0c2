"""The API that is made for a `Model`: as SDL, and as a schema of graphql-core that parses and validates for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from graphql import GraphQLSchema, build_schema

from martlet.limits import LIMITS
from martlet.protocols.graphql.model import Argument, Entity, Member, Model, Root
from martlet.protocols.graphql.scalars import make_scalars

__all__ = ["PAGE_DEFAULT", "api_sdl", "list_name", "lower_first", "make_schema", "relation_name", "upper_first"]

PAGE_DEFAULT: Final = 50
_PAGE_MOST: Final = LIMITS["query_documents"].default
_ORDERED: Final = ("ID", "String", "Int", "Float", "Long", "BigInt", "Decimal", "DateTime", "Date", "Bytes")
_WORDS: Final = frozenset({"and", "or", "not", "in", "true", "false", "null"})  # of the language of filters
_PAGED: Final = f"size: Int = {PAGE_DEFAULT}, after: String, before: String"
_CHECKED: Final = "version: Long"


def make_schema(model: Model, *, checked: bool = True) -> tuple[GraphQLSchema, str]:
    """(schema, its SDL). For a model that was not `checked`: raises `GraphQLError` or `TypeError` where it makes no valid
    schema, as where a type has the name of one that is made."""
    text = api_sdl(model)
    schema = build_schema(text, assume_valid_sdl=checked)
    for name, made in make_scalars().items():
        known = schema.type_map.get(name)
        if known is not None:
            for part in ("coerce_output_value", "coerce_input_value", "coerce_input_literal"):
                setattr(known, part, getattr(made, part))
            known.description = made.description
    return schema, text


def lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


def upper_first(name: str) -> str:
    return name[:1].upper() + name[1:]


def list_name(entity: str, index: str) -> str:
    """The field of Query that lists by an index: listPostByStatus for the index "byStatus", "by_status" or "status"."""
    return f"list{entity}By{upper_first(index.removeprefix('by_').removeprefix('by') or index)}"


def filterable(member: Member) -> bool:
    return member.kind in ("scalar", "enum", "to_one", "to_many") and member.type != "JSON" and member.name not in _WORDS


def sortable(member: Member) -> bool:
    return not member.is_list and ((member.kind == "scalar" and member.type in _ORDERED) or member.kind == "enum")


def api_sdl(model: Model) -> str:
    """The whole API in GraphQL's schema language."""
    parts = [f"scalar {name}" for name in ("Long", "BigInt", "Decimal", "DateTime", "Date", "Bytes", "JSON")]
    parts += [_text(enum.text) + _block(f"enum {enum.name}", enum.values) for enum in model.enums.values()]
    for embedded in model.embedded.values():
        parts.append(_text(embedded.text) + _block(f"type {embedded.name}", map(_plain, embedded.members)))
        parts.append(_block(f"input {embedded.name}Input", (_embedded_input(member) for member in embedded.members)))
    parts += [_text(one.text) + _block(f"input {one.name}", map(_argument, one.fields)) for one in model.inputs.values()]
    for entity in model.entities.values():
        parts += _entity(model, entity)
    used = {member.type for entity in model.entities.values() for member in entity.members if filterable(member)}
    parts += _ranges(used & set(model.enums), used & set(_ORDERED) | {"ID", "String"})
    parts.append(_block("type Query", _query(model)))
    mutations = list(_mutation(model))
    if mutations:
        parts.append(_block("type Mutation", mutations))
    if model.entities:
        parts.append("enum ChangeOperation { PUT DELETE EXPIRE }")
        parts.append(_block("type Subscription", map(_subscription, model.entities.values())))
    return "\n\n".join(parts) + "\n"


def _entity(model: Model, entity: Entity) -> Iterator[str]:
    name = entity.name
    system = [
        '"The version: grows with each change." _version: Long!',
        '"When it was written: microseconds, unique." _ts: Long!',
    ]
    fields = ["id: ID!", *(_field(member) for member in entity.members), *system]
    yield _text(entity.text) + _block(f"type {name}", fields)
    page = f'data: [{name}!]! "For the next page; null: there is none." after: String "For the page before." before: String'
    yield f"type {name}Page {{ {page} }}"
    yield (
        f"type {name}Change {{ operation: ChangeOperation! id: ID! version: Long! ts: Long! cursor: String! "
        f'"As the change left it; null when it is gone." document: {name} }}'
    )
    inputs = [member for member in entity.members if _takes(member)]
    yield _block(f"input {name}Input", (_input(name, member, whole=True) for member in inputs) if inputs else ["_: Boolean"])
    yield _block(
        f"input {name}PartialInput", (_input(name, member, whole=False) for member in inputs) if inputs else ["_: Boolean"]
    )
    for member in inputs:
        if member.kind not in ("scalar", "enum", "embedded"):
            yield _relation(name, member)
    conditions = [f"{member.name}: {_range_name(member)}" for member in entity.members if filterable(member)]
    logic = [f"and: [{name}Filter!]", f"or: [{name}Filter!]", f"not: {name}Filter"]
    yield _block(f"input {name}Filter", [*logic, *conditions])
    orders = [f"{member.name}_{way}" for member in entity.members if sortable(member) for way in ("ASC", "DESC")]
    yield _block(f"enum {name}Sort", orders or ["NONE"])


def _field(member: Member) -> str:
    text = _text(member.text)
    if member.kind in ("to_many", "from_many"):
        return f"{text}{member.name}({_PAGED}, filter: {member.type}Filter): {member.type}Page!"
    return text + _plain(member)


def _plain(member: Member) -> str:
    arguments = f"({', '.join(map(_argument, member.arguments))})" if member.arguments else ""
    return f"{member.name}{arguments}: {member.declared}"


def _argument(argument: Argument) -> str:
    return f"{argument.name}: {argument.declared}"


def _takes(member: Member) -> bool:
    return member.kind != "function" and not member.computed


def relation_name(owner: str, member: Member) -> str:
    return f"{owner}{upper_first(member.name)}Relation"


def _relation(owner: str, member: Member) -> str:
    target = member.type
    if member.is_list:
        return _block(
            f"input {relation_name(owner, member)}",
            [f"create: [{target}Input!]", "connect: [ID!]", "disconnect: [ID!]"],
        )
    return _block(f"input {relation_name(owner, member)}", [f"create: {target}Input", "connect: ID", "disconnect: Boolean"])


def _input(owner: str, member: Member, *, whole: bool) -> str:
    """A relation is never asked for here, even where it must be there: a nested document gets it from the one around it."""
    if member.kind not in ("scalar", "enum", "embedded"):
        return f"{member.name}: {relation_name(owner, member)}"
    return f"{member.name}: {_given_type(member, required=whole and member.required and not member.default)}"


def _embedded_input(member: Member) -> str:
    return f"{member.name}: {_given_type(member, required=member.required)}"


def _given_type(member: Member, *, required: bool) -> str:
    name = f"{member.type}Input" if member.kind == "embedded" else member.type
    if member.is_list:
        name = f"[{name}{'!' * member.item_required}]"
    return name + "!" * required


def _range_name(member: Member) -> str:
    """The conditions that can be put on a field."""
    kind = "ID" if member.kind in ("to_one", "to_many") else member.type
    return f"{kind}ListRange" if member.is_list else f"{kind}Range"


def _ranges(enums: set[str], scalars: set[str]) -> Iterator[str]:
    for name in sorted(scalars):
        texts = " prefix: String contains: String" if name in ("ID", "String") else ""
        yield (
            f"input {name}Range {{ eq: {name} ne: {name} in: [{name}!] lt: {name} lte: {name} gt: {name} gte: {name}{texts} "
            "exists: Boolean }"
        )
        yield f"input {name}ListRange {{ contains: {name} exists: Boolean }}"
    for name in ["Boolean", *sorted(enums)]:
        yield f"input {name}Range {{ eq: {name} ne: {name} in: [{name}!] exists: Boolean }}"
        yield f"input {name}ListRange {{ contains: {name} exists: Boolean }}"


def _query(model: Model) -> Iterator[str]:
    taken = {root.name for root in model.roots if root.on == "Query"}
    if not model.entities and not taken:
        yield "_: Boolean"
    for entity in model.entities.values():
        name = entity.name
        made = [
            f"find{name}ByID(id: ID!): {name}",
            f"list{name}({_PAGED}, filter: {name}Filter, sort: [{name}Sort!]): {name}Page!",
        ]
        for index in entity.indexes:
            if index.unique:
                arguments = ", ".join(f"{term}: {_term_type(entity, term)}!" for term in index.terms())
                ending = "And".join(upper_first(term) for term in index.terms())
                made.append(f"find{name}By{ending}({arguments}): {name}")
            elif not index.field:
                arguments = ", ".join(f"{term}: {_term_range(entity, term)}" for term in index.terms())
                made.append(
                    f"{list_name(name, index.name)}({arguments}, {_PAGED}, reverse: Boolean = false, "
                    f"filter: {name}Filter): {name}Page!"
                )
        yield from (one for one in made if one.partition("(")[0] not in taken)
    yield from (_root(root) for root in model.roots if root.on == "Query")


def _term_type(entity: Entity, term: str) -> str:
    member = entity.member(term)
    assert member is not None
    return "ID" if member.kind in ("to_one", "to_many") else member.type


def _term_range(entity: Entity, term: str) -> str:
    """An index over a list finds the documents whose list has the value."""
    return f"{_term_type(entity, term)}Range"


def _root(root: Root) -> str:
    arguments = list(map(_argument, root.arguments))
    declared = root.declared
    if not root.function and root.is_list:
        arguments += [_PAGED, "reverse: Boolean = false", f"filter: {root.type}Filter"]
        declared = f"{root.type}Page!"
    told = f"({', '.join(arguments)})" if arguments else ""
    return f"{_text(root.text)}{root.name}{told}: {declared}"


def _mutation(model: Model) -> Iterator[str]:
    taken = {root.name for root in model.roots if root.on == "Mutation"}
    for entity in model.entities.values():
        name = entity.name
        made = [
            f"create{name}(id: ID, data: {name}Input!): {name}!",
            f"update{name}(id: ID!, data: {name}Input!, {_CHECKED}): {name}!",
            f"partialUpdate{name}(id: ID!, data: {name}PartialInput!, {_CHECKED}): {name}!",
            f"delete{name}(id: ID!, {_CHECKED}): {name}",
        ]
        yield from (one for one in made if one.partition("(")[0] not in taken)
    yield from (_root(root) for root in model.roots if root.on == "Mutation")


def _subscription(entity: Entity) -> str:
    told = '"Every change of these documents, in commit order; `after`: the cursor of an earlier change." '
    return f"{told}{lower_first(entity.name)}Changed(id: ID, filter: {entity.name}Filter, after: String): {entity.name}Change!"


def _block(head: str, fields: object) -> str:
    lines = "\n".join(f"  {field}" for field in fields)  # type: ignore[attr-defined]
    return f"{head} {{\n{lines}\n}}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) + "\n" if text else ""
