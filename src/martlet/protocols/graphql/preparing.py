"""Documents: read, validated and planned once, kept for as long as there is room."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from graphql import GraphQLError, GraphQLSchema, parse, specified_rules, validate
from graphql.language import ast
from graphql.validation import NoSchemaIntrospectionCustomRule, OverlappingFieldsCanBeMergedRule

from martlet.errors import LimitExceeded, MartletError
from martlet.limits import LIMITS, exceeded
from martlet.protocols.graphql.compiling import Compiler, Plan, condition_names
from martlet.protocols.graphql.faults import Refusal, shown
from martlet.protocols.graphql.model import Model

__all__ = ["Cache", "Prepared"]

_TOKENS: Final = LIMITS["graphql_tokens"].default
_ROOM: Final = LIMITS["graphql_cache_bytes"].default
_KEPT_MOST: Final = 16_384  # bytes of one document that is kept
_DEPTH: Final = 100  # brackets within each other: far above what the depth of fields allows
_PLANS: Final = 32  # of one document: one for each set of values of its conditions
_ERRORS: Final = 20
# Strings and comments are passed over; brackets, and numbers of 400 characters, are looked at.
_LOOK: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|#[^\n\r]*|[\[({]|[\])}]|[0-9.eE+-]{400,}', re.DOTALL
)
# Ours is linear and holds as well: a field's type is always known (see `compiling`).
_RULES: Final = tuple(rule for rule in specified_rules if rule is not OverlappingFieldsCanBeMergedRule)


class Prepared:
    """A validated document."""

    __slots__ = ("_model", "_plans", "_schema", "conditions", "document", "introspected", "operations", "size")

    def __init__(self, schema: GraphQLSchema, model: Model, document: ast.DocumentNode, size: int) -> None:
        self.document = document
        self.size = size
        self.conditions = condition_names(document)
        self.operations = {
            node.name.value if node.name is not None else "": node
            for node in document.definitions
            if isinstance(node, ast.OperationDefinitionNode)
        }
        self.introspected: dict[str, Any] = {}  # answers of operations without variables, by name
        self._schema = schema
        self._model = model
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def operation(self, name: str | None) -> ast.OperationDefinitionNode:
        """Raises `Refusal`."""
        if name is None:
            if len(self.operations) != 1:
                raise Refusal([{"message": "Must provide operation name if query contains multiple operations."}])
            return next(iter(self.operations.values()))
        found = self.operations.get(name)
        if found is None:
            raise Refusal([{"message": f"Unknown operation named '{name[:64]}'."}])
        return found

    def plan(self, operation: ast.OperationDefinitionNode, variables: Mapping[str, Any]) -> Plan:
        key = (operation.name.value if operation.name is not None else "", *map(variables.get, self.conditions))
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            found = self._plans[key] = Compiler(self._schema, self._model, self.document, variables).plan(operation)
        return found

    def check(self) -> None:
        """Every operation as if nothing were skipped: can its fields be merged, is it within the limits?"""
        for operation in self.operations.values():
            Compiler(self._schema, self._model, self.document, {}, all_fields=True).plan(operation)


class Cache:
    """The documents of all schemas, the last used kept; bounded by the bytes of their text."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, str], Prepared] = OrderedDict()
        self._hashes: dict[tuple[int, str], str] = {}
        self._size = 0
        self.made = 0  # documents that were parsed and validated

    def prepared(self, owner: int, schema: GraphQLSchema, model: Model, text: str, introspection: bool) -> Prepared:
        """Raises `Refusal`. `owner`: a number of the schema, never used twice."""
        found = self._kept.get((owner, text))
        if found is not None:
            self._kept.move_to_end((owner, text))
            return found
        found = _prepared(schema, model, text, introspection)
        self.made += 1
        if found.size <= _KEPT_MOST:
            self._kept[owner, text] = found
            self._size += found.size
            while self._size > _ROOM:
                (gone_owner, gone_text), gone = self._kept.popitem(last=False)
                self._hashes.pop((gone_owner, _hash(gone_text)), None)
                self._size -= gone.size
        return found

    def by_hash(self, owner: int, given: str, text: str | None) -> str:
        """The document that a client names by its SHA-256 (automatic persisted queries). Raises `Refusal`."""
        if text is None:
            known = self._hashes.get((owner, given))
            if known is None:
                raise Refusal([{"message": "PersistedQueryNotFound", "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"}}], 200)
            return known
        if _hash(text) != given:
            raise Refusal([{"message": "the document's SHA-256 is not the one given: provided sha does not match query"}])
        return text

    def remember(self, owner: int, given: str, text: str) -> None:
        if (owner, text) in self._kept:
            self._hashes[owner, given] = text

    def forget(self, owner: int) -> None:
        for key in [key for key in self._kept if key[0] == owner]:
            self._size -= self._kept.pop(key).size
        for key in [key for key in self._hashes if key[0] == owner]:
            del self._hashes[key]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _prepared(schema: GraphQLSchema, model: Model, text: str, introspection: bool) -> Prepared:
    look(text)
    try:
        document = parse(text, max_tokens=_TOKENS)
        rules = _RULES if introspection else (*_RULES, NoSchemaIntrospectionCustomRule)
        errors = validate(
            schema, document, rules, max_errors=_ERRORS, hide_suggestions=not introspection, allow_empty_selection_sets=False
        )
        if errors:
            raise Refusal([shown(error) for error in errors[:_ERRORS]])
        found = Prepared(schema, model, document, len(text.encode("utf-8", "surrogatepass")))
        found.check()
    except GraphQLError as error:
        if "tokens" in error.message:
            raise Refusal([shown(exceeded("graphql_tokens", None, "the document"))]) from None
        raise Refusal([shown(error)]) from None
    except LimitExceeded as error:
        raise Refusal([shown(error)]) from None
    except MartletError as error:
        raise Refusal.of(error) from None
    except RecursionError:
        raise Refusal([shown(exceeded("graphql_depth", None, "the document"))]) from None
    return found


def look(text: str) -> None:
    """A first look, before a parser that recurses: how deep are brackets, how long are numbers? Raises `Refusal`."""
    depth = 0
    for match in _LOOK.finditer(text):
        sign = match[0]
        if sign in "[({":
            depth += 1
            if depth > _DEPTH:
                raise Refusal([shown(exceeded("graphql_depth", None, "the document's brackets"))])
        elif sign in "])}":
            depth -= 1
        elif sign[0] not in '"#':
            raise Refusal([{"message": f"the document holds a number of {len(sign)} characters"}])
