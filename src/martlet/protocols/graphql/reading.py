"""SDL to `Model`: definitions, directives, relations. What has no meaning here is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from graphql import GraphQLError, parse, print_ast
from graphql.language import ast

from martlet.errors import Conflict, InvalidInput, Unsupported
from martlet.limits import LIMITS, exceeded
from martlet.protocols.graphql.model import (
    SCALARS,
    Argument,
    Embedded,
    Entity,
    Enum,
    Index,
    Input,
    Member,
    Model,
    Root,
)
from martlet.protocols.graphql.relations import relate

__all__ = ["read_model"]

_ROOTS: Final = ("Query", "Mutation", "Subscription")
# Ours, by where they stand; with the arguments that each takes.
_ON_TYPE: Final = {
    "collection": {"name", "historySeconds", "changes"},
    "embedded": set[str](),
    "index": {"name", "fields", "unique"},
    "check": {"name", "expression"},
}
_ON_FIELD: Final = {
    "unique": {"index"},
    "relation": {"name", "onDelete"},
    "resolver": {"function"},
    "default": {"value"},
    "computed": {"expression"},
    "ttl": set[str](),
}
_ON_ROOT: Final = {"resolver": {"function"}, "index": {"name"}}
_DEFINABLE: Final = frozenset(_ON_TYPE) | frozenset(_ON_FIELD)
_MADE: Final = (
    "Page",
    "Input",
    "PartialInput",
    "Filter",
    "Sort",
    "Change",
    "Relation",
    "Range",
)  # endings of types that are made
_INDEX: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_KINDS: Final = {
    "InterfaceTypeDefinitionNode": "interface",
    "UnionTypeDefinitionNode": "union",
    "ScalarTypeDefinitionNode": "scalar",
}


def read_model(sources: Mapping[str, str]) -> Model:
    """The schema that several importers' SDL make together. Raises `InvalidInput` (malformed; names the type and field),
    `Unsupported`, `Conflict` (two importers define one name), `LimitExceeded` (graphql_schema_bytes)."""
    found = _Definitions()
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in sources.values())
    if size > LIMITS["graphql_schema_bytes"].default:
        raise exceeded("graphql_schema_bytes", size, "schema")
    for source, text in sorted(sources.items()):
        for node in _parsed(text).definitions:
            found.add(source, node)
    return _Reader(found).model()


def _parsed(text: str) -> ast.DocumentNode:
    try:
        return parse(text)
    except GraphQLError as error:
        at = f" (line {error.locations[0].line}, column {error.locations[0].column})" if error.locations else ""
        raise InvalidInput(f"the schema is malformed: {error.message}{at}", field="schema") from None
    except RecursionError:
        raise InvalidInput("the schema is nested too deeply", field="schema") from None


class _Definitions:
    """Definitions by name, and whose each is."""

    def __init__(self) -> None:
        self.objects: dict[str, ast.ObjectTypeDefinitionNode] = {}
        self.enums: dict[str, ast.EnumTypeDefinitionNode] = {}
        self.inputs: dict[str, ast.InputObjectTypeDefinitionNode] = {}
        self.roots: list[tuple[str, ast.FieldDefinitionNode]] = []
        self._owners: dict[str, str] = {}

    def add(self, source: str, node: Any) -> None:
        if isinstance(node, ast.ObjectTypeDefinitionNode | ast.ObjectTypeExtensionNode) and node.name.value in _ROOTS:
            self._add_root(source, node)
            return
        if isinstance(node, ast.DirectiveDefinitionNode):
            if node.name.value not in _DEFINABLE:
                raise Unsupported(f"the directive @{node.name.value} is not supported", field=f"@{node.name.value}")
            return  # ours, written out for the user's own tools
        if isinstance(node, ast.ScalarTypeDefinitionNode) and node.name.value in SCALARS:
            return
        name = getattr(getattr(node, "name", None), "value", "")
        if isinstance(node, ast.ObjectTypeDefinitionNode):
            self._claim(source, name)
            self.objects[name] = node
        elif isinstance(node, ast.EnumTypeDefinitionNode):
            self._claim(source, name)
            self.enums[name] = node
        elif isinstance(node, ast.InputObjectTypeDefinitionNode):
            self._claim(source, name)
            self.inputs[name] = node
        else:
            kind = type(node).__name__
            what = _KINDS.get(kind, kind.removesuffix("Node").removesuffix("Definition"))
            raise Unsupported(f"{what} {name} is not supported in a schema: {_hint(what)}".rstrip(": "), field=name or what)

    def _add_root(self, source: str, node: Any) -> None:
        on = node.name.value
        if on == "Subscription":
            raise Unsupported("subscriptions are made for every type; fields of Subscription cannot be declared", field=on)
        for field in node.fields or ():
            self._claim(source, f"{on}.{field.name.value}")
            self.roots.append((on, field))

    def _claim(self, source: str, name: str) -> None:
        owner = self._owners.get(name)
        if owner is not None and owner != source:
            raise Conflict(
                f"{name} is defined by the importer {owner!r} already, and by {source!r} now",
                remedy="one of them must leave it out",
                name=name,
                importer=owner,
            )
        if owner is not None:
            raise InvalidInput(f"{name} is defined twice", field=name)
        self._owners[name] = source


def _hint(what: str) -> str:
    known = ", ".join(SCALARS)
    return {"scalar": f"there are {known}", "interface": "use types", "union": "use types"}.get(what, "")


class _Reader:
    def __init__(self, found: _Definitions) -> None:
        self._found = found
        self._enums = {name: self._enum(node) for name, node in found.enums.items()}
        self._embedded = {name for name, node in found.objects.items() if _directive(node, "embedded") is not None}
        self._made = {f"{name}{ending}" for name in found.objects for ending in _MADE}

    def model(self) -> Model:
        names = (*self._found.objects, *self._found.enums, *self._found.inputs)
        if len(names) > LIMITS["graphql_types"].default:
            raise exceeded("graphql_types", len(names), "schema")
        for name in names:
            self._check_name(name)
        entities: dict[str, Entity] = {}
        embedded: dict[str, Embedded] = {}
        for name, node in self._found.objects.items():
            _check_directives(node, _ON_TYPE, name)
            if node.interfaces:
                raise Unsupported(f"type {name} implements an interface: interfaces are not supported", field=name)
            if name in self._embedded:
                embedded[name] = Embedded(name, tuple(self._members(name, node, within=True)), _text(node))
            else:
                entities[name] = self._entity(name, node)
        entities = relate(entities, self._relations())
        _check_nesting(embedded)
        inputs = {name: self._input(node) for name, node in self._found.inputs.items()}
        roots = [self._root(on, node, entities) for on, node in self._found.roots]
        entities = _with_root_indexes(entities, roots)
        for entity in entities.values():
            _check_indexes(entity)
        _check_collections(entities)
        return Model(entities, embedded, self._enums, inputs, tuple(roots))

    def _check_name(self, name: str) -> None:
        if name.startswith(("_", "Martlet")) or name in SCALARS or name in self._made:
            raise InvalidInput(f"the name {name} is taken by what is made for the schema", field=name)

    # types

    def _entity(self, name: str, node: ast.ObjectTypeDefinitionNode) -> Entity:
        said = _arguments(_directive(node, "collection"), name)
        members = tuple(self._members(name, node, within=False))
        if not members:
            raise InvalidInput(f"type {name} has no fields of its own", field=name)
        indexes = [Index(member.unique, (member.name,), True) for member in members if member.unique]
        for directive in node.directives or ():
            if directive.name.value == "index":
                given = _arguments(directive, name)
                indexes.append(Index(_texted(given, "name", name), _names(given, name), given.get("unique") is True))
        checks = [_arguments(directive, name) for directive in node.directives or () if directive.name.value == "check"]
        ttl = [str(field.name.value) for field in node.fields or () if _directive(field, "ttl") is not None]
        if len(ttl) > 1:
            raise InvalidInput(f"type {name} has more than one field with @ttl", field=name)
        history = said.get("historySeconds")
        changes = said.get("changes", "")
        if history is not None and type(history) is not int:
            raise InvalidInput(f"@collection of {name}: historySeconds is a whole number", field=name)
        if changes not in ("", "keys", "new", "new_and_old"):
            raise InvalidInput(f"@collection of {name}: changes is keys, new or new_and_old", field=name)
        return Entity(
            name=name,
            collection=_texted(said, "name", name, default=name),
            members=members,
            indexes=tuple(indexes),
            history_seconds=history,
            changes=changes,
            ttl=ttl[0] if ttl else "",
            checks=tuple((_texted(one, "name", name), _texted(one, "expression", name)) for one in checks),
            text=_text(node),
        )

    def _members(self, owner: str, node: ast.ObjectTypeDefinitionNode, *, within: bool) -> Iterator[Member]:
        seen: set[str] = set()
        for field in node.fields or ():
            name = field.name.value
            place = f"{owner}.{name}"
            if name in seen:
                raise InvalidInput(f"field {place} is defined twice", field=place)
            seen.add(name)
            if name.startswith("_"):
                raise InvalidInput(f"field {place}: names that begin with _ are taken", field=place)
            _check_directives(field, {} if within else _ON_FIELD, place)
            member = self._member(place, name, field)
            if within and member.kind not in ("scalar", "enum", "embedded"):
                raise Unsupported(f"field {place}: an embedded type holds no {member.type}: only values", field=place)
            if name == "id" and not within:
                if (member.type, member.is_list, member.unique, member.default) != ("ID", False, "", ""):
                    raise InvalidInput(
                        f"field {place} is the document's own id: declare it as `id: ID!`, or not at all", field=place
                    )
                continue
            yield member

    def _member(self, place: str, name: str, field: ast.FieldDefinitionNode) -> Member:
        type_, is_list, required, item_required = _unwrapped(field.type, place)
        resolver, default = _directive(field, "resolver"), _directive(field, "default")
        computed, unique = _directive(field, "computed"), _directive(field, "unique")
        if resolver is not None:
            self._check_output(place, type_)
            if required:
                raise InvalidInput(
                    f"field {place} is asked of a function, which may fail: its type must be nullable", field=place
                )
            function = _texted(_arguments(resolver, place), "function", place)
            return Member(
                name=name,
                kind="function",
                type=type_,
                declared=print_ast(field.type),
                is_list=is_list,
                item_required=item_required,
                function=function,
                arguments=self._declared(field.arguments, place),
                text=_text(field),
            )
        if field.arguments:
            raise Unsupported(f"field {place} has arguments: only a field with @resolver may", field=place)
        if type_ in SCALARS:
            kind = "scalar"
        elif type_ in self._enums:
            kind = "enum"
        elif type_ in self._embedded:
            kind = "embedded"
        elif type_ in self._found.objects:
            kind = "to_many" if is_list else "to_one"
        else:
            raise InvalidInput(f"field {place}: there is no type {type_}", field=place)
        if _directive(field, "relation") is not None and not kind.startswith("to_"):
            raise InvalidInput(f"field {place} has @relation, and {type_} is no type with documents", field=place)
        named = ""
        if unique is not None:
            if is_list or kind not in ("scalar", "enum", "to_one") or type_ in ("JSON", "Float"):
                raise InvalidInput(f"field {place} cannot be @unique: only one scalar, enum or reference can", field=place)
            named = _texted(_arguments(unique, place), "index", place, default=f"unique_{name}")
        return Member(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            type=type_,
            declared=print_ast(field.type),
            is_list=is_list,
            required=required,
            item_required=item_required,
            unique=named,
            default=msgspec.json.encode(_arguments(default, place).get("value")).decode() if default is not None else "",
            computed=_texted(_arguments(computed, place), "expression", place) if computed is not None else "",
            text=_text(field),
        )

    def _enum(self, node: ast.EnumTypeDefinitionNode) -> Enum:
        return Enum(node.name.value, tuple(value.name.value for value in node.values or ()), _text(node))

    def _input(self, node: ast.InputObjectTypeDefinitionNode) -> Input:
        return Input(node.name.value, self._declared(node.fields, node.name.value), _text(node))

    def _declared(self, nodes: Any, place: str) -> tuple[Argument, ...]:
        found = []
        for node in nodes or ():
            type_ = _unwrapped(node.type, f"{place}.{node.name.value}")[0]
            if type_ not in SCALARS and type_ not in self._enums and type_ not in self._found.inputs:
                raise InvalidInput(f"{place}: there is no input type {type_}", field=place)
            default = f" = {print_ast(node.default_value)}" if node.default_value is not None else ""
            found.append(Argument(node.name.value, print_ast(node.type) + default))
        return tuple(found)

    def _check_output(self, place: str, type_: str) -> None:
        if type_ not in SCALARS and type_ not in self._enums and type_ not in self._found.objects:
            raise InvalidInput(f"{place}: there is no type {type_}", field=place)

    def _relations(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(type, field) -> (name, onDelete) of its @relation; both may be ""."""
        found = {}
        for name, node in self._found.objects.items():
            for field in node.fields or ():
                directive = _directive(field, "relation")
                if directive is not None:
                    place = f"{name}.{field.name.value}"
                    given = _arguments(directive, place)
                    on_delete = str(given.get("onDelete", "")).lower()
                    if on_delete not in ("", "restrict", "cascade", "keep"):
                        raise InvalidInput(f"{place}: onDelete is RESTRICT, CASCADE or KEEP", field=place)
                    found[name, field.name.value] = (_texted(given, "name", place, default=""), on_delete)
        return found

    # declared fields of Query and Mutation

    def _root(self, on: str, field: ast.FieldDefinitionNode, entities: dict[str, Entity]) -> Root:
        place = f"{on}.{field.name.value}"
        _check_directives(field, _ON_ROOT, place)
        type_, is_list, _, _ = _unwrapped(field.type, place)
        resolver = _directive(field, "resolver")
        self._check_output(place, type_)
        arguments = self._declared(field.arguments, place)
        if resolver is None and on == "Mutation":
            raise InvalidInput(f"{place} needs @resolver(function: ...)", field=place)
        index = ""
        if resolver is None:
            index = self._root_index(place, field, entities, type_, is_list)
        return Root(
            on=on,  # type: ignore[arg-type]
            name=field.name.value,
            type=type_,
            declared=print_ast(field.type),
            is_list=is_list,
            arguments=arguments,
            function=_texted(_arguments(resolver, place), "function", place) if resolver is not None else "",
            index=index,
            text=_text(field),
        )

    def _root_index(
        self, place: str, field: ast.FieldDefinitionNode, entities: dict[str, Entity], type_: str, is_list: bool
    ) -> str:
        entity = entities.get(type_)
        if entity is None:
            raise InvalidInput(f"{place} needs @resolver(function: ...): {type_} has no documents", field=place)
        names = tuple(argument.name.value for argument in field.arguments or ())
        for name in names:
            member = entity.member(name)
            if member is None or not member.stored or member.is_list:
                raise InvalidInput(f"{place}: the argument {name} is no single field of {type_}", field=place)
        if is_list:
            if not names:
                return ""
            given = _arguments(_directive(field, "index"), place)
            return _texted(given, "name", place, default=field.name.value)
        unique = next((index for index in entity.indexes if index.unique and index.terms() == names), None)
        if unique is None:
            raise InvalidInput(f"{place} finds one {type_}: its arguments must be @unique, or a unique @index", field=place)
        return unique.name


def _with_root_indexes(entities: dict[str, Entity], roots: list[Root]) -> dict[str, Entity]:
    """A list of Query that names arguments is an index over them."""
    found = dict(entities)
    for root in roots:
        if root.function or not root.index or not root.is_list:
            continue
        entity = found[root.type]
        names = tuple(argument.name for argument in root.arguments)
        there = next((index for index in entity.indexes if index.name == root.index), None)
        if there is None:
            made = Index(root.index, names, False, root.name)
            found[root.type] = msgspec.structs.replace(entity, indexes=(*entity.indexes, made))
        elif there.terms()[: len(names)] != names:
            raise InvalidInput(f"Query.{root.name}: the index {root.index} has other terms", field=root.name)
    return found


def _check_indexes(entity: Entity) -> None:
    seen: set[str] = set()
    for index in entity.indexes:
        place = f"index {index.name} of {entity.name}"
        if not _INDEX.fullmatch(index.name):
            raise InvalidInput(
                f"{place}: {index.name[:64]!r} is not a name: letters, digits and _, a letter first", field=entity.name
            )
        if index.name in seen:
            raise InvalidInput(f"{place} is defined twice", field=index.name)
        seen.add(index.name)
        for name in index.terms():
            member = entity.member(name)
            if member is None or not member.stored or member.kind == "embedded" or member.type == "JSON":
                raise InvalidInput(f"{place}: {name} is no field that could be indexed", field=index.name)
            if member.is_list and (index.unique or len(index.fields) > 1):
                raise InvalidInput(f"{place}: {name} is a list, which can only be indexed alone", field=index.name)


def _check_collections(entities: dict[str, Entity]) -> None:
    seen: dict[str, str] = {}
    for entity in entities.values():
        other = seen.setdefault(entity.collection, entity.name)
        if other != entity.name:
            raise InvalidInput(
                f"the types {other} and {entity.name} share the collection {entity.collection}", field=entity.name
            )


def _check_nesting(embedded: dict[str, Embedded]) -> None:
    """An embedded type that must hold itself could have no value."""
    for name in embedded:
        waiting, seen = [name], set[str]()
        while waiting:
            for member in embedded[waiting.pop()].members:
                if member.kind == "embedded" and member.required and not member.is_list:
                    if member.type == name:
                        raise InvalidInput(f"the embedded type {name} must hold itself, without end", field=name)
                    if member.type not in seen:
                        seen.add(member.type)
                        waiting.append(member.type)


# directives


def _directive(node: Any, name: str) -> ast.DirectiveNode | None:
    return next((one for one in node.directives or () if one.name.value == name), None)


def _check_directives(node: Any, known: Mapping[str, set[str]], place: str) -> None:
    for directive in node.directives or ():
        name = directive.name.value
        if name == "deprecated" and isinstance(node, ast.FieldDefinitionNode):
            raise Unsupported(f"@deprecated on {place} is not supported", field=place)
        if name not in known:
            there = ", ".join(f"@{one}" for one in known) or "none"
            raise Unsupported(f"the directive @{name} on {place} is not supported; there are: {there}", field=place)
        for argument in directive.arguments or ():
            if argument.name.value not in known[name]:
                raise Unsupported(f"@{name} on {place} takes no argument {argument.name.value}", field=place)


def _arguments(directive: ast.DirectiveNode | None, place: str) -> dict[str, Any]:
    if directive is None:
        return {}
    return {argument.name.value: _constant(argument.value, place) for argument in directive.arguments or ()}


def _constant(node: Any, place: str) -> Any:
    if isinstance(node, ast.StringValueNode | ast.EnumValueNode | ast.BooleanValueNode):
        return node.value
    if isinstance(node, ast.IntValueNode):
        if len(node.value) > 20:
            raise InvalidInput(f"{place}: a number beyond 64 bits", field=place)
        return int(node.value)
    if isinstance(node, ast.FloatValueNode):
        return float(node.value)
    if isinstance(node, ast.ListValueNode):
        return [_constant(item, place) for item in node.values]
    if isinstance(node, ast.ObjectValueNode):
        return {field.name.value: _constant(field.value, place) for field in node.fields}
    return None


def _texted(given: Mapping[str, Any], name: str, place: str, default: str | None = None) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or (not value and default is None):
        raise InvalidInput(f"{place}: `{name}` must be given as a text", field=place)
    return value


def _names(given: Mapping[str, Any], place: str) -> tuple[str, ...]:
    found = given.get("fields")
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list) or not found or not all(isinstance(name, str) and name for name in found):
        raise InvalidInput(f"@index of {place}: `fields` is a list of fields", field=place)
    return tuple(found)


def _unwrapped(node: Any, place: str) -> tuple[str, bool, bool, bool]:
    """(name, is it a list, is it non-null, are the list's items non-null)."""
    required = isinstance(node, ast.NonNullTypeNode)
    inner: Any = node.type if required else node
    if not isinstance(inner, ast.ListTypeNode):
        return inner.name.value, False, required, False
    item: Any = inner.type
    item_required = isinstance(item, ast.NonNullTypeNode)
    item = item.type if item_required else item
    if isinstance(item, ast.ListTypeNode):
        raise Unsupported(f"{place} is a list of lists, which is not supported", field=place)
    return item.name.value, True, required, item_required


def _text(node: Any) -> str:
    return str(node.description.value) if getattr(node, "description", None) is not None else ""
