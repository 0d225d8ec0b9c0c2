"""Statements: what SELECT, INSERT, UPDATE, DELETE and EXISTS say, as trees of the expression languages.

A statement is parsed once for its text; its literals and parameters are variables of its conditions and its actions. `parse`
puts the parameters of a request in. `plans` is what has been compiled of the text, shared by all who run it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from martlet.documents.dynamodb.expressions import syntax, values
from martlet.documents.dynamodb.expressions.errors import invalid, older_words
from martlet.documents.dynamodb.expressions.memory import Memory
from martlet.documents.dynamodb.expressions.values import AV
from martlet.documents.dynamodb.partiql.parsing import Column, Order, Parser
from martlet.documents.dynamodb.partiql.reading import Tokens, malformed

__all__ = ["Column", "Delete", "Insert", "Order", "Select", "Statement", "Update", "checked_parameters", "parse"]


class Select(msgspec.Struct, frozen=True):
    """SELECT. `columns` None is `*`; `exists` is the EXISTS(…) of a transaction."""

    table: str
    index: str | None
    columns: tuple[Column, ...] | None
    where: syntax.Condition | None
    order: tuple[Order, ...]
    values: Mapping[str, AV]
    plans: dict[Any, Any]
    exists: bool = False


class Insert(msgspec.Struct, frozen=True):
    """INSERT INTO … VALUE …"""

    table: str
    item: Mapping[str, AV]


class Update(msgspec.Struct, frozen=True):
    """UPDATE … SET … REMOVE … WHERE …, in whichever order. `returning` is e.g. "ALL_NEW" or ""."""

    table: str
    actions: tuple[syntax.Action, ...]
    where: syntax.Condition | None
    returning: str
    values: Mapping[str, AV]
    plans: dict[Any, Any]


class Delete(msgspec.Struct, frozen=True):
    """DELETE FROM … WHERE …"""

    table: str
    where: syntax.Condition | None
    returning: str
    values: Mapping[str, AV]
    plans: dict[Any, Any]


Statement = Select | Insert | Update | Delete

_STARTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "FROM", "EXISTS")
_statements: Memory[Any] = Memory()


def checked_parameters(parameters: Sequence[AV] | None) -> list[AV]:
    """Parameters with canonical numbers. The service looks at them before it reads the statement."""
    with older_words():
        return [values.check(parameter) for parameter in parameters or ()]


def parse(text: str, parameters: Sequence[AV]) -> Statement:
    """The statement with its parameters. Raises `ServiceError` (ValidationException)."""
    make = _statements.get(text, len(text), lambda: _Maker(text))
    return make(parameters)  # type: ignore[no-any-return]


class _Maker:
    """A statement that waits for its parameters."""

    def __init__(self, text: str) -> None:
        parser = Parser(Tokens(text))
        self.parser = parser
        self.plans: dict[Any, Any] = {}
        word = parser.tokens.word()
        if word not in _STARTS:
            if parser.tokens.here.kind in ("word", "quoted") and parser.tokens.ahead().text.upper() == "IS":
                raise _type_test(parser)
            raise malformed("Expected data manipulation")
        self.kind = "UPDATE" if word == "FROM" else word
        parser.statement(word)
        parser.tokens.tokens.clear()  # the statement is remembered, its tokens need not be

    def __call__(self, parameters: Sequence[AV]) -> Statement:
        parser = self.parser
        if len(parameters) < parser.parameters:
            raise invalid("Number of parameters in request and statement don't match.")
        bound: dict[str, AV] = dict(parser.constants)
        for position in range(parser.parameters):
            bound[f":p{position}"] = parameters[position]
        table = parser.table
        if self.kind in ("SELECT", "EXISTS"):
            order = tuple(parser.order)
            return Select(table, parser.index, parser.columns, parser.where, order, bound, self.plans, self.kind == "EXISTS")
        if self.kind == "INSERT":
            return Insert(table, _item(parser, bound))
        if self.kind == "UPDATE":
            return Update(table, tuple(parser.actions), parser.where, parser.returning, bound, self.plans)
        return Delete(table, parser.where, parser.returning, bound, self.plans)


def _item(parser: Parser, bound: Mapping[str, AV]) -> Mapping[str, AV]:
    if parser.whole:
        item = bound[parser.whole]
        if "M" not in item:
            raise invalid("Unsupported data type: the value of INSERT must be a map")
        return item["M"]  # type: ignore[no-any-return]
    return {name: bound[variable] for name, variable in parser.item.items()}


def _type_test(parser: Parser) -> Exception:
    parser.tokens.next()
    parser.tokens.next()
    parser.type_name()
    return invalid("Unsupported operation: IsType")
