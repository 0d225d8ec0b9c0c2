"""Filters, ranges and sorting as the document database takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from martlet.documents import Bound
from martlet.errors import InvalidInput
from martlet.protocols.graphql.model import Entity, Index

__all__ = ["filter_of", "range_of", "sort_of"]

_SIGNS: Final = {"eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def filter_of(given: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """(expression, parameters) of a filter; ("", {}) for none. Its size is limited by the expression's (expression_nodes)."""
    if not given:
        return "", {}
    parameters: dict[str, Any] = {}
    text = _all_of(given, parameters)
    return text, parameters


def _all_of(given: Mapping[str, Any], parameters: dict[str, Any]) -> str:
    parts: list[str] = []
    for name, value in given.items():
        if value is None:
            continue
        if name == "and":
            parts += [f"({_all_of(one, parameters)})" for one in value]
        elif name == "or":
            parts.append("(" + (" or ".join(f"({_all_of(one, parameters)})" for one in value) or "false") + ")")
        elif name == "not":
            parts.append(f"not ({_all_of(value, parameters)})")
        else:
            parts += [_condition(name, sign, wanted, parameters) for sign, wanted in value.items()]
    return " and ".join(parts) or "true"


def _condition(name: str, sign: str, wanted: Any, parameters: dict[str, Any]) -> str:
    if sign == "exists":
        return f"exists({name})" if wanted is not False else f"not exists({name})"
    if wanted is None:  # {eq: null} asks for what is not there
        if sign not in ("eq", "ne"):
            raise InvalidInput(f"the condition {sign} on {name} needs a value", field=name)
        return f"not exists({name})" if sign == "eq" else f"exists({name})"
    key = f"p{len(parameters)}"
    parameters[key] = wanted
    if sign == "in":
        return f"{name} in ${key}"
    if sign == "prefix":
        return f"starts_with({name}, ${key})"
    if sign == "contains":
        return f"contains({name}, ${key})"
    return f"{name} {_SIGNS[sign]} ${key}"


class Range:
    """Which part of an index is asked for, in the words of `documents.Query`."""

    __slots__ = ("equals", "high", "low", "prefix")

    def __init__(self) -> None:
        self.equals: tuple[Any, ...] = ()
        self.low: Bound | None = None
        self.high: Bound | None = None
        self.prefix = ""


def range_of(entity: Entity, index: Index, given: Mapping[str, Any]) -> Range:
    """From one argument for each term: values to be equal to for the first ones, then bounds for one. Raises `InvalidInput`
    for what is no range of the index: a filter is not read from the end of one by scanning."""
    found = Range()
    ended = ""
    for term in index.terms():
        wanted = given.get(term)
        if wanted is None or (isinstance(wanted, Mapping) and not wanted):
            ended = ended or term
            continue
        if ended:
            raise InvalidInput(f"index {index.name} of {entity.name}: {term} can only be given after {ended}", field=term)
        if not isinstance(wanted, Mapping):  # a declared field of Query takes the values themselves
            found.equals += (wanted,)
        elif set(wanted) == {"eq"} and wanted["eq"] is not None:
            found.equals += (wanted["eq"],)
        else:
            ended = term
            _bounds(found, index, term, wanted)
    return found


def _bounds(found: Range, index: Index, term: str, wanted: Mapping[str, Any]) -> None:
    other = wanted.keys() - {"lt", "lte", "gt", "gte", "prefix"}
    if other or not all(value is not None for value in wanted.values()):
        name = min(other) if other else "null"
        raise InvalidInput(
            f"index {index.name}: {term} takes eq, or lt, lte, gt, gte, or prefix, and not {name}; use `filter` for that",
            field=term,
        )
    if "prefix" in wanted:
        if len(wanted) > 1:
            raise InvalidInput(f"index {index.name}: give prefix alone for {term}", field=term)
        found.prefix = wanted["prefix"]
    for names, end in ((("gt", "gte"), "low"), (("lt", "lte"), "high")):
        if all(name in wanted for name in names):
            raise InvalidInput(f"index {index.name}: give {names[0]} or {names[1]} for {term}, not both", field=term)
        for name in names:
            if name in wanted:
                setattr(found, end, Bound(wanted[name], name.endswith("e")))


def sort_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """`["at_DESC", "title_ASC"]` as the document database has it."""
    return tuple(("-" if name.endswith("_DESC") else "") + name.rpartition("_")[0] for name in given or () if name != "NONE")
