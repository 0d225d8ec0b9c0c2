"""An operation to a plan: fields merged, fragments spread, @skip and @include decided, arguments and conversions looked up.

The API has no interfaces and unions, so the type of every selection is known, and a plan holds for all documents. Its work is
counted while it is made: depth, fields, aliases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from graphql import GraphQLError, GraphQLSchema, get_named_type
from graphql.execution.values import get_argument_values
from graphql.language import ast, print_ast

from martlet.errors import Unsupported
from martlet.limits import LIMITS, exceeded
from martlet.protocols.graphql.model import Embedded, Entity, Index, Member, Model, Root
from martlet.protocols.graphql.nodes import Constant, Nested, Node, Scalar, ScalarList, Selection, System
from martlet.protocols.graphql.schema import list_name, lower_first, upper_first
from martlet.protocols.graphql.steps import Asked, FindById, FindUnique, FromMany, FromOne, List, PageSelection, ToMany, ToOne

__all__ = ["Changed", "Compiler", "Plan", "Write", "condition_names"]

_DEPTH: Final = LIMITS["graphql_depth"].default
_FIELDS: Final = LIMITS["graphql_fields"].default
_ALIASES: Final = LIMITS["graphql_aliases"].default
_SYSTEM: Final = ("id", "_version", "_ts")
_EXACT: Final[dict[str, type]] = {"ID": str, "String": str, "Float": float, "Boolean": bool, "Long": int}
_PAGE, _CHANGE = "Page", "Change"
_LISTS: Final = ("fields", "inputFields", "interfaces", "possibleTypes", "enumValues")

Fields = dict[str, list[ast.FieldNode]]


class Write(Node):
    """A mutation of documents. `what`: create, update, partialUpdate or delete."""

    __slots__ = ("arguments", "entity", "selection", "what")

    def __init__(
        self, key: str, place: str, what: str, entity: Entity, selection: Selection, arguments: Callable[..., Any], ast: Any
    ) -> None:
        super().__init__(key, place, what != "delete", ast)
        self.what = what
        self.entity = entity
        self.selection = selection
        self.arguments = arguments

    def cost(self, times: int, variables: Any) -> int:
        return 10 * times + sum(node.cost(times, variables) for node in self.selection.nodes)

    @property
    def reads(self) -> bool:
        """Whether its answer says more than that it was done."""
        return any(not isinstance(node, System | Constant) for node in self.selection.nodes)


class Changed(Node):
    """A subscription to the changes of a type's documents. `parts`: (key, field of the change or "__typename", selection of
    the document | the type's name)."""

    __slots__ = ("arguments", "entity", "parts")

    def __init__(
        self,
        key: str,
        place: str,
        entity: Entity,
        parts: list[tuple[str, str, Any]],
        arguments: Callable[..., Any],
        ast: Any,
    ) -> None:
        super().__init__(key, place, True, ast)
        self.entity = entity
        self.parts = parts
        self.arguments = arguments


class Introspected(Node):
    """`__schema` or `__type`: graphql-core answers."""

    __slots__ = ("fields",)

    def __init__(self, key: str, fields: list[ast.FieldNode]) -> None:
        super().__init__(key, "", key == "__schema", fields[0])
        self.fields = fields

    def run(self, run: Any, level: Any) -> None:
        level.outs[0][self.key] = run.introspected[self.key]


class Plan:
    """An operation, ready to run. `kind`: query, mutation or subscription."""

    __slots__ = ("asks", "introspects", "kind", "selection", "writes")

    def __init__(self, kind: str, selection: Selection) -> None:
        self.kind = kind
        self.selection = selection
        self.writes = any(isinstance(node, Write) for node in selection.nodes)
        self.asks = _asks(selection)
        self.introspects = [node for node in selection.nodes if isinstance(node, Introspected)]

    def cost(self, variables: Any) -> int:
        """Documents that it may ask for: pages by their size, 10 for a write and for a function."""
        return sum(node.cost(1, variables) for node in self.selection.nodes)


def _asks(selection: Selection) -> bool:
    return any(isinstance(node, Asked) or any(map(_asks, _inside(node))) for node in selection.nodes)


def _inside(node: Node) -> list[Selection]:
    if isinstance(node, Changed):
        return [more for _, what, more in node.parts if what == "document"]
    page = getattr(node, "page", None)
    if page is not None:
        return list(page.selections)
    inner = getattr(node, "selection", None)
    return [inner] if inner is not None else []


def condition_names(document: ast.DocumentNode) -> tuple[str, ...]:
    """The variables that decide about @skip and @include: a plan holds for one set of their values."""
    found: set[str] = set()
    waiting: list[Any] = list(document.definitions)
    while waiting:
        node = waiting.pop()
        for directive in getattr(node, "directives", None) or ():
            for argument in directive.arguments or ():
                if isinstance(argument.value, ast.VariableNode):
                    found.add(argument.value.name.value)
        chosen = getattr(node, "selection_set", None)
        if chosen is not None:
            waiting.extend(chosen.selections)
    return tuple(sorted(found))


class Compiler:
    """Makes the plan of one operation of a validated document, for these values of its conditions."""

    def __init__(
        self,
        schema: GraphQLSchema,
        model: Model,
        document: ast.DocumentNode,
        conditions: Mapping[str, Any],
        all_fields: bool = False,
    ) -> None:
        self._schema = schema
        self._model = model
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, ast.FragmentDefinitionNode)
        }
        self._conditions = conditions
        self._all_fields = all_fields  # as if nothing were skipped: to check a document
        self._fields = self._aliases = 0

    def plan(self, operation: ast.OperationDefinitionNode) -> Plan:
        """Raises `GraphQLError` (fields that cannot be merged), `LimitExceeded`, `Unsupported`."""
        kind = operation.operation.value
        root = upper_first(kind)
        fields = self._collect(operation.selection_set, root, 1)
        if kind == "subscription" and len(fields) != 1:
            raise GraphQLError("a subscription has exactly one field", operation)
        make = {"Query": self._query, "Mutation": self._mutation, "Subscription": self._subscription}[root]
        nodes = [make(key, nodes) for key, nodes in fields.items()]
        plan = Plan(kind, Selection(root, nodes))
        if plan.writes and (plan.asks or any(not isinstance(node, Write | Constant) for node in nodes)):
            raise Unsupported(
                "mutations of documents are one transaction, which functions are no part of: ask them in another operation"
            )
        return plan

    # selections

    def _collect(self, chosen: ast.SelectionSetNode | None, type_name: str, depth: int) -> Fields:
        found: Fields = {}
        if chosen is not None:
            self._gather(chosen, type_name, depth, found, set())
        return found

    def _gather(self, chosen: ast.SelectionSetNode, type_name: str, depth: int, found: Fields, spread: set[str]) -> None:
        if depth > _DEPTH:
            raise exceeded("graphql_depth", depth, "the operation")
        for node in chosen.selections:
            self._fields += 1
            if self._fields > _FIELDS:
                raise exceeded("graphql_fields", self._fields, "the operation")
            if not self._included(node):
                continue
            if isinstance(node, ast.FieldNode):
                self._add(node, found)
            elif isinstance(node, ast.InlineFragmentNode):
                if node.type_condition is None or node.type_condition.name.value == type_name:
                    self._gather(node.selection_set, type_name, depth, found, spread)
            elif isinstance(node, ast.FragmentSpreadNode) and node.name.value not in spread:
                spread.add(node.name.value)
                fragment = self._fragments[node.name.value]
                if fragment.type_condition.name.value == type_name:
                    self._gather(fragment.selection_set, type_name, depth, found, spread)

    def _add(self, node: ast.FieldNode, found: Fields) -> None:
        key = node.alias.value if node.alias is not None else node.name.value
        if node.alias is not None:
            self._aliases += 1
            if self._aliases > _ALIASES:
                raise exceeded("graphql_aliases", self._aliases, "the operation")
        others = found.setdefault(key, [])
        if others and (others[0].name.value != node.name.value or _told(others[0]) != _told(node)):
            raise GraphQLError(
                f"Fields '{key}' conflict: they are different fields, or have different arguments. "
                "Use different aliases on the fields to fetch both.",
                [others[0], node],
            )
        others.append(node)

    def _included(self, node: Any) -> bool:
        if self._all_fields:
            return True
        for directive in node.directives or ():
            name = directive.name.value
            if name in ("skip", "include"):
                value = directive.arguments[0].value
                decided = self._conditions.get(value.name.value) if isinstance(value, ast.VariableNode) else value.value
                if decided is not True and name == "include":
                    return False
                if decided is True and name == "skip":
                    return False
        return True

    def _below(self, nodes: list[ast.FieldNode], type_name: str, depth: int) -> Fields:
        """The fields asked of what these (merged) fields lead to."""
        found: Fields = {}
        spread: set[str] = set()
        for node in nodes:
            if node.selection_set is not None:
                self._gather(node.selection_set, type_name, depth, found, spread)
        return found

    def _arguments(self, type_name: str, node: ast.FieldNode) -> Callable[[Any], Mapping[str, Any]]:
        """Of a field without variables: made now, once."""
        field = self._schema.type_map[type_name].fields[node.name.value]  # type: ignore[attr-defined]
        if not any(_has_variable(argument.value) for argument in node.arguments or ()):
            constant = get_argument_values(field, node)
            return lambda variables: constant
        return lambda variables: get_argument_values(field, node, variables)

    # objects

    def _object(self, nodes: list[ast.FieldNode], type_name: str, depth: int) -> Selection:
        owner = self._model.named(type_name)
        assert owner is not None
        fields = self._below(nodes, type_name, depth)
        return Selection(type_name, [self._field(owner, key, found, depth) for key, found in fields.items()])

    def _field(self, owner: Entity | Embedded, key: str, nodes: list[ast.FieldNode], depth: int) -> Node:
        node = nodes[0]
        name = node.name.value
        place = f"{owner.name}.{name}"
        if name == "__typename":
            return Constant(key, owner.name, node)
        if name in _SYSTEM and isinstance(owner, Entity):
            return System(key, name, place, node)
        member = next(member for member in owner.members if member.name == name)
        if member.kind in ("scalar", "enum"):
            return self._value(key, place, member, node)
        if member.kind == "embedded":
            inner = self._object(nodes, member.type, depth + 1)
            return Nested(key, name, place, member.required, member.is_list, member.item_required, inner, node)
        if member.kind == "function":
            return self._asked(key, owner.name, member, member.item_required, nodes, depth)
        target = self._model.entities[member.type]
        if member.kind in ("to_one", "from_one"):
            made = ToOne if member.kind == "to_one" else FromOne
            return made(key, place, member, target, self._object(nodes, target.name, depth + 1), node)
        page = self._page(nodes, target, depth + 1)
        many = ToMany if member.kind == "to_many" else FromMany
        return many(key, place, member, target, page, self._arguments(owner.name, node), node)

    def _value(self, key: str, place: str, member: Member, node: ast.FieldNode) -> Node:
        convert = self._schema.type_map[member.type].coerce_output_value  # type: ignore[attr-defined]
        if member.type == "Int":
            convert = _quick_int(convert)
        if member.is_list:
            return ScalarList(key, member.name, place, member.required, member.item_required, convert, node)
        return Scalar(key, member.name, place, member.required, _EXACT.get(member.type, _Never), convert, node)

    def _page(self, nodes: list[ast.FieldNode], target: Entity, depth: int) -> PageSelection:
        parts: list[tuple[str, str, Any]] = []
        for key, found in self._below(nodes, target.name + _PAGE, depth).items():
            name = found[0].name.value
            more = self._object(found, target.name, depth + 1) if name == "data" else target.name + _PAGE
            parts.append((key, name, more))
        return PageSelection(parts)

    def _asked(
        self, key: str, on: str, declared: Member | Root, item_required: bool, nodes: list[ast.FieldNode], depth: int
    ) -> Asked:
        field = self._schema.type_map[on].fields[declared.name]  # type: ignore[attr-defined]
        named = get_named_type(field.type)
        target = self._model.entities.get(declared.type)
        selection = self._object(nodes, declared.type, depth + 1) if self._model.named(declared.type) else None
        convert = getattr(named, "coerce_output_value", None)
        required = declared.declared.endswith("!")
        arguments = self._arguments(on, nodes[0])
        return Asked(key, on, declared, required, item_required, target, selection, convert, arguments, nodes[0])

    # roots

    def _root(self, on: str, name: str) -> Root | None:
        return next((root for root in self._model.roots if root.on == on and root.name == name), None)

    def _query(self, key: str, nodes: list[ast.FieldNode]) -> Node:
        name, node = nodes[0].name.value, nodes[0]
        if name == "__typename":
            return Constant(key, "Query", node)
        if name in ("__schema", "__type"):
            self._count_introspection(nodes, f"__{upper_first(name[2:])}", 2, False)
            return Introspected(key, nodes)
        place = f"Query.{name}"
        declared = self._root("Query", name)
        if declared is not None and declared.function:
            return self._asked(key, "Query", declared, "!]" in declared.declared, nodes, 1)
        if name == "_":
            return Scalar(key, "_", place, False, bool, bool, node)
        arguments = self._arguments("Query", node)
        entity, index, how = self._reads(name, declared)
        if how == "list":
            return List(key, place, entity, index, self._page(nodes, entity, 2), arguments, node)
        selection = self._object(nodes, entity.name, 2)
        if index is not None:
            return FindUnique(key, place, entity, index, selection, arguments, node)
        return FindById(key, place, entity, selection, arguments, node)

    def _count_introspection(self, nodes: list[ast.FieldNode], type_name: str, depth: int, listed: bool) -> None:
        """graphql-core answers, but within the same limits; and lists of fields within lists of fields are refused, whose size
        is a power of the schema's."""
        for found in self._below(nodes, type_name, depth).values():
            name = found[0].name.value
            if name in _LISTS and listed:
                raise Unsupported("introspection of fields within fields is not supported: ask for each type's own", field=name)
            if name != "__typename":
                field = self._schema.type_map[type_name].fields[name]  # type: ignore[attr-defined]
                self._count_introspection(found, get_named_type(field.type).name, depth + 1, listed or name in _LISTS)

    def _reads(self, name: str, declared: Root | None) -> tuple[Entity, Index | None, str]:
        """What a field of Query that is no function's reads: (type, index, "list" or "find")."""
        if declared is not None:
            entity = self._model.entities[declared.type]
            index = next((index for index in entity.indexes if index.name == declared.index), None)
            return entity, index, "list" if declared.is_list else "find"
        for entity in self._model.entities.values():
            if name == f"find{entity.name}ByID":
                return entity, None, "find"
            if name == f"list{entity.name}":
                return entity, None, "list"
            for index in entity.indexes:
                if index.unique and name == f"find{entity.name}By" + "And".join(map(upper_first, index.terms())):
                    return entity, index, "find"
                if not index.unique and not index.field and name == list_name(entity.name, index.name):
                    return entity, index, "list"
        raise GraphQLError(f"there is no field Query.{name}")

    def _mutation(self, key: str, nodes: list[ast.FieldNode]) -> Node:
        name, node = nodes[0].name.value, nodes[0]
        if name == "__typename":
            return Constant(key, "Mutation", node)
        declared = self._root("Mutation", name)
        if declared is not None:
            return self._asked(key, "Mutation", declared, "!]" in declared.declared, nodes, 1)
        for entity in self._model.entities.values():
            for what in ("create", "update", "partialUpdate", "delete"):
                if name == f"{what}{entity.name}":
                    selection = self._object(nodes, entity.name, 2)
                    return Write(key, f"Mutation.{name}", what, entity, selection, self._arguments("Mutation", node), node)
        raise GraphQLError(f"there is no field Mutation.{name}")

    def _subscription(self, key: str, nodes: list[ast.FieldNode]) -> Node:
        name, node = nodes[0].name.value, nodes[0]
        if name == "__typename":
            raise Unsupported("a subscription to __typename alone is not supported")
        entity = next(entity for entity in self._model.entities.values() if name == f"{lower_first(entity.name)}Changed")
        parts: list[tuple[str, str, Any]] = []
        for inner, found in self._below(nodes, entity.name + _CHANGE, 2).items():
            what = found[0].name.value
            parts.append((inner, what, self._object(found, entity.name, 3) if what == "document" else entity.name + _CHANGE))
        return Changed(key, f"Subscription.{name}", entity, parts, self._arguments("Subscription", node), node)


class _Never:
    """The type of no value: every one is converted."""


def _quick_int(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A whole number of 32 bits as it is; all else by the scalar's own rules."""

    def quick(value: Any) -> Any:
        return value if type(value) is int and -(1 << 31) <= value < 1 << 31 else convert(value)

    return quick


def _told(node: ast.FieldNode) -> str:
    """A field's arguments as one text, in the order of their names."""
    if not node.arguments:
        return ""
    return ",".join(sorted(f"{argument.name.value}:{print_ast(argument.value)}" for argument in node.arguments))


def _has_variable(node: Any) -> bool:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.VariableNode):
            return True
        waiting += getattr(one, "values", ())
        waiting += [field.value for field in getattr(one, "fields", ())]
    return False
