"""Documents for end users, below the path of their endpoints: `documents/<collection>[/<id>]`, as far as row rules let them.

A document that may not be read is not there: it is missing from lists, 404 by its id, and no cursor, conflict or count tells of
it. Rules of a write are judged within its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from martlet.documents import Documents, Transaction
from martlet.documents.rules import Rules
from martlet.errors import AccessDenied, Conflict, InvalidInput, MethodNotAllowed, NotFound, PreconditionFailed
from martlet.limits import LIMITS
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Request, json_answer
from martlet.users import Caller, Pool, Users

__all__ = ["PREFIX", "UserDocuments"]

PREFIX: Final = "documents/"
_PAGE: Final = 200
RulesOf = Callable[[str], Mapping[str, Rules]]
"""`rules_of(app)`: the rules of its collections, by their names."""


class UserDocuments:
    def __init__(self, users: Users, room: Documents, rules_of: RulesOf) -> None:
        self._users = users
        self._room = room
        self._rules_of = rules_of

    async def respond(self, request: Request, pool: Pool, caller: Caller, path: str) -> Answer:
        """`path` is what follows `documents/`."""
        collection, slash, id = path.partition("/")
        rules = self._rules_of(pool.app).get(collection)
        if rules is None or (slash and not id):
            raise NotFound("there is no such collection for end users", remedy="give the collection rules=")
        if "\ufffd" in id:
            raise InvalidInput("the id is not UTF-8")
        user = {"sub": caller.sub, "email": caller.email, "groups": list(caller.groups)}
        if not id:
            _only(request, "GET")
            return await self._list(request, pool, collection, rules, user)
        _only(request, "GET", "PUT", "DELETE")
        request.query(())
        if request.method == "GET":
            return self._get(pool, collection, id, rules, user)
        body = await request.body("document_bytes")
        try:
            return await self._write(request, pool, (collection, id), rules, user, body)
        except PreconditionFailed:
            raise
        except Conflict:  # what it conflicts with is not this user's to know
            raise Conflict("the document conflicts with what is there", reason="conflict") from None

    def _get(self, pool: Pool, collection: str, id: str, rules: Rules, user: dict[str, Any]) -> Answer:
        found = self._room.get(pool.app, collection, id)
        if found is None or not rules.readable(found.value(), user):
            raise NotFound("there is no such document")
        return json_answer(msgspec.Raw(found.value_bytes), 200, (("etag", f'"{found.version}"'), ("cache-control", "no-store")))

    async def _list(self, request: Request, pool: Pool, collection: str, rules: Rules, user: dict[str, Any]) -> Answer:
        query = request.query(("prefix", "limit", "after"))
        limit = asgi.whole(query, "limit", 100, low=1, high=_PAGE)
        place = (collection, str(user["sub"]))
        after = self._users.reveal(pool, query["after"], *place) if "after" in query else None
        items: list[dict[str, Any]] = []
        left = LIMITS["rules_examined"].default
        while left > 0:
            found, following = self._room.list(pool.app, collection, query.get("prefix", ""), min(_PAGE, left), after)
            for one in found:
                if len(items) == limit:
                    break
                left, after = left - 1, str(one.id)
                if rules.readable(one.value(), user):
                    items.append({"id": one.id, "version": one.version, "value": msgspec.Raw(one.value_bytes)})
            else:
                if following is None:
                    after = None
                    break
                await asyncio.sleep(0)  # others have their turn between pages
                continue
            break
        cursor = None if after is None else self._users.conceal(pool, after, *place)
        return json_answer({"items": items, "next": cursor}, 200, (("cache-control", "no-store"),))

    async def _write(
        self, request: Request, pool: Pool, place: tuple[str, str], rules: Rules, user: dict[str, Any], body: bytes
    ) -> Answer:
        collection, id = place
        expected = _expected(request)
        is_put = request.method == "PUT"

        def write(tx: Transaction) -> Any:
            before = tx.get(collection, id)
            if before is not None and not rules.writable(before.value(), user):
                raise _denied() if rules.readable(before.value(), user) or is_put else NotFound("there is no such document")
            if expected is not None and expected != (before.version if before is not None else 0):
                raise PreconditionFailed("the document is not what If-Match or If-None-Match says")
            if not is_put:
                if before is None:
                    raise NotFound("there is no such document")
                tx.delete(collection, id)
                return None
            after = tx.put(collection, id, body)
            if not rules.writable(after.value(), user):
                raise _denied()
            return after

        written = await self._room.transact(pool.app, write)
        if written is None:
            return Answer(204)
        return Answer(201 if written.version == 1 else 204, b"", (("etag", f'"{written.version}"'),))


def _denied() -> AccessDenied:
    return AccessDenied("a rule of this collection does not let you", reason="rule")


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(f"this endpoint does not take {request.method}", methods=methods)


def _expected(request: Request) -> int | None:
    """The version that must be there (RFC 9110 section 13.1); 0: none."""
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if none_match is not None:
        if none_match != "*" or match is not None or request.method == "DELETE":
            raise InvalidInput("If-None-Match is * for a PUT, without If-Match", field="If-None-Match")
        return 0
    if match is None:
        return None
    text = match.strip('"')
    if match != f'"{text}"' or not (text.isascii() and text.isdigit()) or not 0 < len(text) < 16 or int(text) == 0:
        raise InvalidInput('If-Match is one strong ETag such as "7"', field="If-Match")
    return int(text)
