"""Fields that functions answer. A function is asked once for each field and level, never once for each document.

    {"database": "shop", "type": "Query", "field": "top", "arguments": {"n": 3}}                 -> the field's value
    {"database": "shop", "type": "Post", "field": "score", "arguments": {}, "sources": [{...}]}  -> a value for each source

A field whose type has documents is answered by ids (or objects with an `id`); they are read, with what is asked of them, then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from graphql import GraphQLError

from martlet.documents import values
from martlet.errors import AccessDenied, MartletError
from martlet.protocols.graphql.faults import Fault
from martlet.protocols.graphql.nodes import Level, missing
from martlet.protocols.graphql.reader import Reader
from martlet.protocols.graphql.steps import Asked

__all__ = ["Call", "ask_all", "fill"]

Call = Callable[[str, bytes], Awaitable[bytes]]  # (function, event) -> its answer; raises MartletError, GraphQLError
_AT_ONCE: Final = 8
_Answers = list[Any] | Exception


async def ask_all(call: Call, database: str, asked: list[tuple[Asked, Level]], variables: Any) -> list[_Answers]:
    """For each field an answer for each object of its level, or why there is none."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(node: Asked, level: Level) -> _Answers:
        event: dict[str, Any] = {"database": database, "type": node.on, "field": node.name}
        try:
            event["arguments"] = dict(node.arguments(variables))
            if not node.is_root:
                event["sources"] = [{"id": doc.id, **value} for doc, value in zip(level.docs, level.values, strict=True)]
            async with gate:
                raw = await call(node.function, msgspec.json.encode(event))
            answer = values.loads(raw or b"null")
        except AccessDenied:
            raise
        except (GraphQLError, MartletError) as error:
            return error
        if node.is_root:
            return [answer]
        if not isinstance(answer, list) or len(answer) != len(level.docs):
            return GraphQLError(f"the function {node.function} must answer {node.place} with a list of {len(level.docs)}")
        return answer

    return await asyncio.gather(*(one(node, level) for node, level in asked))


def fill(run: Reader, node: Asked, level: Level, answers: _Answers) -> None:
    """Put the answers where their objects are. A field of the root that must not be null makes its object null."""
    for at, out in enumerate(level.outs):
        if out is None:
            continue
        if isinstance(answers, Exception):
            level.fail(at, node, answers)
            continue
        found, faults = _list(run, node, answers[at]) if node.is_list else _one(run, node, answers[at])
        level.take(at, node, (node.key,), found, faults)


def _list(run: Reader, node: Asked, given: Any) -> tuple[Any, list[Fault]]:
    if given is None:
        return None, []
    if not isinstance(given, list):
        return None, [((), GraphQLError(f"the function {node.function} answered {node.place} with no list"), node.ast)]
    docs = _documents(run, node, given)
    items: list[Any] = []
    faults: list[Fault] = []
    for place, item in enumerate(given):
        shown, mine = _item(run, node, item, docs)
        if shown is None and node.item_required and not mine:
            mine = [((), missing(node), node.ast)]
        faults += [((place, *path), error, where) for path, error, where in mine]
        if shown is None and node.item_required:
            return None, faults
        items.append(shown)
    return items, faults


def _one(run: Reader, node: Asked, given: Any) -> tuple[Any, list[Fault]]:
    return _item(run, node, given, _documents(run, node, [given]))


def _documents(run: Reader, node: Asked, given: list[Any]) -> dict[Any, tuple[Any, list[Fault]]]:
    """What is asked of the documents whose ids were answered, by id: one batch."""
    if node.target is None or node.selection is None:
        return {}
    found = run.fetch(node.target, [_id(item) for item in given])
    level = run.documents(node.selection, list(found.values()))
    return {id: (level.outs[at], level.faults.get(at, [])) for at, id in enumerate(found)}


def _id(item: Any) -> Any:
    return item.get("id") if isinstance(item, dict) else item


def _item(run: Reader, node: Asked, item: Any, docs: dict[Any, tuple[Any, list[Fault]]]) -> tuple[Any, list[Fault]]:
    if item is None:
        return None, []
    if node.target is not None:
        id = _id(item)
        if not isinstance(id, str):
            return None, [((), GraphQLError(f"the function {node.function} answered {node.place} with no id"), node.ast)]
        return docs.get(id, (None, []))
    if node.selection is not None:
        if not isinstance(item, dict):
            return None, [((), GraphQLError(f"the function {node.function} answered {node.place} with no object"), node.ast)]
        level = node.selection.run(run, Level([item]))
        return level.outs[0], level.faults.get(0, [])
    try:
        return node.converted(item), []
    except GraphQLError as error:
        return None, [((), error, node.ast)]
