"""Subscriptions: the change feed of a type's collection, each change with what is asked of its document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from martlet.documents import Document, Usage, View, values
from martlet.documents.expressions import compile_expression
from martlet.documents.feed import Changed as Entry
from martlet.documents.feed import changes, follow
from martlet.documents.transaction import Change
from martlet.errors import InvalidInput, MartletError
from martlet.protocols.graphql.asking import ask_all, fill
from martlet.protocols.graphql.compiling import Changed
from martlet.protocols.graphql.faults import Refusal, shown
from martlet.protocols.graphql.filters import filter_of
from martlet.protocols.graphql.reader import Permit, Reader
from martlet.protocols.graphql.service import Ready, Service

__all__ = ["Answers", "subscribe"]

_CHANGE: Final = msgspec.json.Decoder(Change).decode
_OPERATIONS: Final = {"put": "PUT", "delete": "DELETE", "expire": "EXPIRE"}
Answers = AsyncIterator[dict[str, Any]]


async def subscribe(service: Service, ready: Ready, permit: Permit) -> Answers:
    """Answers without end. What is wrong with the request is raised here, before the first: `AccessDenied`, `InvalidInput` (a
    forged cursor), `NotFound` (changes that are no longer kept)."""
    node = ready.plan.selection.nodes[0]
    assert isinstance(node, Changed)
    collection = node.entity.collection
    permit("documents:List", collection)
    if any(what == "document" for _, what, _ in node.parts):
        permit("documents:Get", collection)
    given = node.arguments(ready.variables)
    cursor = given.get("after", "")
    if cursor == "" and "after" in given:
        raise InvalidInput("the cursor is not one that was given for this request", field="after")
    cursor = cursor or ""
    first = await changes(service.documents, ready.database, collection, cursor=cursor, limit=1)
    begun = cursor or first.cursor  # without a cursor: from now on
    follower = follow(service.documents, ready.database, collection, cursor=begun)
    return _answers(service, ready, permit, node, follower)


async def _answers(service: Service, ready: Ready, permit: Permit, node: Changed, entries: AsyncIterator[Entry]) -> Answers:
    given = node.arguments(ready.variables)
    expression, parameters = filter_of(given.get("filter"))
    test = compile_expression(expression) if expression else None
    wanted = given.get("id")
    try:
        async for entry in entries:
            change = _CHANGE(entry.body)
            if wanted is not None and change.id != wanted:
                continue
            body = bytes(change.value) if isinstance(change.value, msgspec.Raw) else None
            if test is not None and (body is None or not test.holds(values.load(body), parameters)):
                continue
            yield await _answer(service, ready, permit, node, entry, change, body)
    except MartletError as error:  # the store's, or changes that went while the client did not read
        yield {"errors": [shown(error)]}
    except Refusal as refusal:
        yield {"errors": refusal.errors}
    finally:
        await entries.aclose()  # type: ignore[attr-defined]


async def _answer(
    service: Service, ready: Ready, permit: Permit, node: Changed, entry: Entry, change: Change, body: bytes | None
) -> dict[str, Any]:
    used = Usage()
    signer = await service.documents.signer()
    doc = None
    if body is not None:
        doc = Document(change.id, change.version, body, change.ts // 1000, change.ts)
    shape = {
        "operation": _OPERATIONS[change.operation],
        "id": change.id,
        "version": change.version,
        "ts": change.ts,
        "cursor": entry.cursor,
    }
    out: dict[str, Any] = {}
    faults: list[Any] = []

    def read(view: View) -> Reader:
        run = Reader(view, ready.variables, permit, signer)
        for key, what, more in node.parts:
            if what == "__typename":
                out[key] = more
            elif what != "document":
                out[key] = shape[what]
            else:
                out[key] = None
                if doc is not None:
                    level = run.documents(more, [doc])
                    out[key] = level.outs[0]
                    faults.extend(((node.key, key, *path), error, where) for path, error, where in level.faults.get(0, ()))
        return run

    run = service.documents.read(ready.database, read, usage=used)
    while run.asked:
        run = await _ask(service, ready, permit, run, used, (node.key,), faults)
    run.check_size(out)
    answer: dict[str, Any] = {}
    if faults:
        answer["errors"] = [shown(error, path, where) for path, error, where in faults]
    answer["data"] = {node.key: out}
    return answer


async def _ask(
    service: Service, ready: Ready, permit: Permit, run: Reader, used: Usage, key: tuple[str, ...], faults: list[Any]
) -> Reader:
    asked, signer = run.asked, await service.documents.signer()
    for field, _ in asked:
        permit("lambda:InvokeFunction", field.function)
    answers = await ask_all(service.caller(ready.database), ready.database, asked, ready.variables)

    def read(view: View) -> Reader:
        after = Reader(view, ready.variables, permit, signer)
        after.take_over(run)
        for (field, level), answer in zip(asked, answers, strict=True):
            before = {at: len(mine) for at, mine in level.faults.items()}
            fill(after, field, level, answer)
            for at, mine in level.faults.items():
                faults.extend(((*key, *path), error, where) for path, error, where in mine[before.get(at, 0) :])
        return after

    return service.documents.read(ready.database, read, usage=used)
