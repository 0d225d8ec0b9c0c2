"""Importing a schema: what would change, what of that destroys, and all of it as one transaction.

Additive changes are applied. What takes something away from clients or data is refused, each by name, unless the caller says
`replace`; and even then no document is removed: a type that goes leaves its collection to the other faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
from graphql import GraphQLError, validate_schema

from martlet.documents import Check, CollectionConfig, Documents, Field, IndexConfig, Schema, Term
from martlet.documents.catalog import check_config, check_name, check_path
from martlet.documents.definitions import define_collection
from martlet.documents.layout import numbered, stats_of
from martlet.errors import Conflict, InvalidInput, NotFound
from martlet.protocols.graphql.model import SCALARS, STATE, Entity, Enum, Index, Member, Model, State, state_of
from martlet.protocols.graphql.reading import read_model
from martlet.protocols.graphql.schema import make_schema

__all__ = ["Change", "Import", "check_model", "destructive", "put_schema"]

_ENCODE: Final = msgspec.json.Encoder().encode


class Change(msgspec.Struct, frozen=True):
    """One step of a plan. `name`: "Post", "Post.title", "Post.byStatus", "Query.top"."""

    action: Literal["add", "change", "remove"]
    name: str
    what: str
    destructive: bool = False


class Import(msgspec.Struct, frozen=True):
    """What an import did, or would do."""

    database: str
    source: str
    revision: int
    changes: tuple[Change, ...]
    applied: bool


def check_model(sources: Mapping[str, str]) -> Model:
    """The model of a schema that can be served. Raises `InvalidInput`, `Unsupported`, `Conflict`, `LimitExceeded`."""
    return _checked(tuple(sorted(sources.items())))


@lru_cache(maxsize=16)
def _checked(sources: tuple[tuple[str, str], ...]) -> Model:
    model = read_model(dict(sources))
    try:
        schema, _ = make_schema(model, checked=False)
        errors = validate_schema(schema)
    except (GraphQLError, TypeError) as error:
        raise InvalidInput(f"the schema is not valid: {error}", field="schema") from None
    if errors:
        raise InvalidInput(f"the schema is not valid: {errors[0].message}", field="schema")
    places = _places(model)
    for entity in model.entities.values():
        check_name("collection", entity.collection)
        check_config(_config(places, entity, None, None))
    return model


def put_schema(
    tx: Any,
    documents: Documents,
    database: str,
    source: str,
    text: str | None,
    *,
    replace: bool = False,
    dry_run: bool = False,
    introspection: bool | None = None,
) -> Import:
    """Within a transaction of the store, and `documents.redefining()`: the schema of one importer becomes `text` (None: it
    has none any more). Raises what `check_model` does, and `Conflict` with `changes` for what is destructive."""
    check_path(database)
    before = state_of(tx.get(STATE + database.encode()))
    sources = {name: known for name, known in before.sources.items() if name != source}
    if text is not None:
        sources[source] = text
    elif source not in before.sources:
        raise NotFound(f"the importer {source!r} has no schema in {database!r}")
    old, new = read_model(before.sources), check_model(sources)
    changes = tuple(_changes(tx, documents, database, old, new))
    refused = [change for change in changes if change.destructive]
    if refused and not replace and not dry_run:
        told = "; ".join(f"{change.name}: {change.what}" for change in refused[:20])
        raise Conflict(
            f"the new schema would take away what is there: {told}",
            remedy="keep it, or say replace=true (documents are not removed)",
            changes=[f"{change.name}: {change.what}" for change in refused],
        )
    flag = before.introspection if introspection is None else introspection
    same = sources == before.sources and flag == before.introspection
    if dry_run or same:
        return Import(database, source, before.revision, changes, not dry_run)
    places = _places(new)
    for entity in new.entities.values():
        found = documents.catalog.collection(tx, database, entity.collection)
        was = old.entities.get(entity.name)
        known = found.record.config if found is not None else None
        config = _config(places, entity, was, known)
        if found is None or config != known:
            define_collection(tx, documents.catalog, database, entity.collection, config)
    _let_go(tx, documents, database, old, new)
    after = State(before.revision + 1, sources, flag, tx.now_ms)
    if sources:
        tx.put(STATE + database.encode(), _ENCODE(after))
    else:
        tx.delete(STATE + database.encode())
    return Import(database, source, after.revision, changes, True)


def _let_go(tx: Any, documents: Documents, database: str, old: Model, new: Model) -> None:
    """Collections of types that are gone lose what the schema had put on them; their documents stay."""
    kept = {entity.collection for entity in new.entities.values()}
    for entity in old.entities.values():
        if entity.collection in kept:
            continue
        found = documents.catalog.collection(tx, database, entity.collection)
        if found is not None:
            bare = msgspec.structs.replace(entity, members=(), indexes=(), checks=(), ttl="")
            config = _config({}, bare, entity, found.record.config)
            if config != found.record.config:
                define_collection(tx, documents.catalog, database, entity.collection, config)


# what a collection is to be


def _places(model: Model) -> dict[str, str]:
    """Type -> collection."""
    return {entity.name: entity.collection for entity in model.entities.values()}


def _config(
    collections: Mapping[str, str], entity: Entity, was: Entity | None, known: CollectionConfig | None
) -> CollectionConfig:
    """The collection's settings: what others put there stays, what this schema had put there before is replaced."""
    known = known or CollectionConfig()
    ours_before = {member.name for member in was.members} if was is not None else set()
    indexes_before = {index.name for index in was.indexes} if was is not None else set()
    checks_before = {name for name, _ in was.checks} if was is not None else set()
    fields = {name: field for name, field in known.schema.fields.items() if name not in ours_before}
    fields |= {member.name: _field(collections, member) for member in entity.members if member.stored}
    indexes = {name: index for name, index in known.indexes.items() if name not in indexes_before}
    indexes |= {index.name: _index(entity, index) for index in entity.indexes}
    checks = [check for check in known.schema.checks if check.name not in checks_before]
    checks += [Check(name, text) for name, text in entity.checks if name not in {check.name for check in checks}]
    schema = Schema(fields, tuple(checks), known.schema.additional)
    ttl = entity.ttl or ("" if was is not None and known.ttl_field == was.ttl else known.ttl_field)
    return CollectionConfig(
        schema=schema,
        indexes=indexes,
        history_seconds=known.history_seconds if entity.history_seconds is None else entity.history_seconds,
        ttl_field=ttl,
        changes=entity.changes or known.changes,  # type: ignore[arg-type]
    )


def _field(collections: Mapping[str, str], member: Member) -> Field:
    target = ""
    if member.kind in ("to_one", "to_many"):
        type_ = "ref"
        target = collections[member.type]
    else:
        type_ = {"enum": "text", "embedded": "object"}.get(member.kind) or SCALARS[member.type]
    relation = {"collection": target, "on_delete": member.on_delete} if target else {}
    if member.is_list:
        type_ = f"array<{type_}{'' if member.item_required or target else '?'}>"
    required = member.required and not member.default and not member.computed and member.kind != "to_many"
    if not member.required or member.kind == "to_many":
        type_ += "?"
    default = msgspec.Raw(member.default.encode()) if member.default else msgspec.UNSET
    return Field(type=type_, required=required, default=default, computed=member.computed, **relation)  # type: ignore[arg-type]


def _index(entity: Entity, index: Index) -> IndexConfig:
    terms = []
    for name in index.fields:
        member = entity.member(name.removeprefix("-"))
        assert member is not None
        terms.append(Term(member.name + "[]" * member.is_list, name.startswith("-")))
    return IndexConfig(tuple(terms), unique=index.unique)


# what changes


def destructive(name: str, what: str, action: Literal["change", "remove"] = "remove") -> Change:
    return Change(action, name, what, True)


def _changes(tx: Any, documents: Documents, database: str, old: Model, new: Model) -> Iterator[Change]:
    for name, entity in new.entities.items():
        was = old.entities.get(name)
        found = documents.catalog.collection(tx, database, entity.collection)
        count = stats_of(tx.get(numbered(b"Ds", found.record.number))).documents if found is not None else 0
        if was is None:
            yield Change(
                "add", name, "a type" if found is None else f"a type over the collection {entity.collection}, which is there"
            )
        else:
            yield from _entity_changes(was, entity, count)
        if found is not None:
            yield from _taken(_places(new), was, entity, found.record.config, count)
    for name in old.entities.keys() - new.entities.keys():
        yield destructive(name, "the type goes; its collection and documents stay")
    yield from _other_changes(old, new)


def _entity_changes(was: Entity, now: Entity, count: int) -> Iterator[Change]:
    if was.collection != now.collection:
        yield destructive(now.name, f"the collection was {was.collection} and would be {now.collection}", "change")
    yield from _member_changes(now.name, was.members, now.members, count)
    before = {index.name: index for index in was.indexes}
    for index in now.indexes:
        known = before.pop(index.name, None)
        name = f"{now.name}.{index.name}"
        if known is None:
            yield Change("add", name, "a unique index" if index.unique else "an index")
        elif (known.fields, known.unique) != (index.fields, index.unique):
            yield destructive(name, "the index has other terms", "change")
    for gone in before:
        yield destructive(f"{now.name}.{gone}", "the index goes")
    for name, text in now.checks:
        if (name, text) not in was.checks:
            yield Change(
                "change" if name in dict(was.checks) else "add", f"{now.name}.{name}", "a check of what is written from now on"
            )
    for name in dict(was.checks).keys() - dict(now.checks).keys():
        yield Change("remove", f"{now.name}.{name}", "a check")
    if (was.history_seconds, was.changes, was.ttl) != (now.history_seconds, now.changes, now.ttl):
        less = (now.history_seconds is not None) and (was.history_seconds or 86_400) > now.history_seconds
        yield Change("change", now.name, "history, change feed or time to live", less or (was.ttl != now.ttl and bool(count)))


def _member_changes(owner: str, was: tuple[Member, ...], now: tuple[Member, ...], count: int) -> Iterator[Change]:
    before = {member.name: member for member in was}
    for member in now:
        known = before.pop(member.name, None)
        name = f"{owner}.{member.name}"
        if known is None:
            must = member.required and member.stored and not member.default and not member.computed and member.kind != "to_many"
            if must and count:
                yield destructive(name, f"the field must be there, and {count} documents lack it", "change")
            else:
                yield Change("add", name, "a field")
        elif _shape(known) != _shape(member):
            yield destructive(name, f"the type was {known.declared} and would be {member.declared}", "change")
        elif known.required and not member.required:
            yield Change("change", name, "the field may be null from now on")
        elif member.required and not known.required:
            yield Change("change", name, "the field must be there from now on", bool(count))
        elif known != member:
            yield Change("change", name, "its directives or arguments")
    for gone in before:
        yield destructive(f"{owner}.{gone}", "the field goes")


def _shape(member: Member) -> tuple[Any, ...]:
    return (
        member.kind,
        member.type,
        member.is_list,
        member.item_required,
        member.by,
        member.kind == "function" and member.declared,
    )


def _taken(places: Mapping[str, str], was: Entity | None, now: Entity, known: CollectionConfig, count: int) -> Iterator[Change]:
    """What somebody else said of the collection, and the schema would say otherwise."""
    ours = {member.name for member in was.members} if was is not None else set()
    for member in now.members:
        there = known.schema.fields.get(member.name)
        if member.stored and member.name not in ours and there is not None and there != _field(places, member):
            yield destructive(f"{now.name}.{member.name}", f"the collection has the field as {there.type} already", "change")
        elif was is None and there is None and member.required and member.stored and not member.default and count:
            yield destructive(
                f"{now.name}.{member.name}", f"the field must be there, and {count} documents may lack it", "change"
            )
    mine = {index.name for index in was.indexes} if was is not None else set()
    for index in now.indexes:
        other = known.indexes.get(index.name)
        if index.name not in mine and other is not None and other != _index(now, index):
            yield destructive(f"{now.name}.{index.name}", "the collection has another index of this name", "change")


def _other_changes(old: Model, new: Model) -> Iterator[Change]:
    for name, embedded in new.embedded.items():
        was = old.embedded.get(name)
        if was is None:
            yield Change("add", name, "an embedded type")
        else:
            yield from _member_changes(name, was.members, embedded.members, 1)
    for name, enum in new.enums.items():
        yield from _enum_changes(old.enums.get(name), enum)
    for name, given in new.inputs.items():
        if name not in old.inputs:
            yield Change("add", name, "an input")
        elif old.inputs[name].fields != given.fields:
            yield destructive(name, "the input has other fields", "change")
    gone = (
        old.embedded.keys() - new.embedded.keys() | old.enums.keys() - new.enums.keys() | old.inputs.keys() - new.inputs.keys()
    )
    for name in sorted(gone):
        yield destructive(name, "the type goes")
    yield from _root_changes(old, new)


def _enum_changes(was: Enum | None, now: Enum) -> Iterator[Change]:
    if was is None:
        yield Change("add", now.name, "an enum")
        return
    for value in now.values:
        if value not in was.values:
            yield Change("add", f"{now.name}.{value}", "a value of an enum")
    for value in was.values:
        if value not in now.values:
            yield destructive(f"{now.name}.{value}", "the value of the enum goes")


def _root_changes(old: Model, new: Model) -> Iterator[Change]:
    roots = {(root.on, root.name): root for root in old.roots}
    for root in new.roots:
        was = roots.pop((root.on, root.name), None)
        name = f"{root.on}.{root.name}"
        if was is None:
            yield Change("add", name, "a field")
        elif (was.declared, was.arguments, was.index) != (root.declared, root.arguments, root.index):
            yield destructive(name, "the field has another type, other arguments or another index", "change")
        elif was != root:
            yield Change("change", name, "its function")
    for on, name in roots:
        yield destructive(f"{on}.{name}", "the field goes")
