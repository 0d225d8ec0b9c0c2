"""Documents for end users, below the path of their endpoints: `documents/<collection>[/<id>]` and `changes/<collection>`, as
far as row rules let them.

A document that may not be read is not there: it is missing from lists, 404 by its id, and no cursor, conflict or count tells of
it. Rules of a write are judged within its transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from martlet.documents import Change, Documents, Transaction, values
from martlet.documents.feed import Changed, Changes, changes
from martlet.documents.rules import Rules
from martlet.errors import AccessDenied, Conflict, InvalidInput, MethodNotAllowed, NotFound, PreconditionFailed, Unsupported
from martlet.limits import LIMITS
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Request, json_answer
from martlet.users import Caller, Pool, Users

__all__ = ["PREFIXES", "UserDocuments"]

PREFIXES: Final = ("documents/", "changes/")
_PAGE: Final = 200
_WAIT_SECONDS: Final = 20  # of a long poll: below the half minute after which proxies give up
RulesOf = Callable[[str], Mapping[str, Rules]]
"""`rules_of(app)`: the rules of its collections, by their names."""


class UserDocuments:
    def __init__(self, users: Users, room: Documents, rules_of: RulesOf) -> None:
        self._users = users
        self._room = room
        self._rules_of = rules_of
        self._polls: set[asyncio.Timeout] = set()
        self._stopping = False

    def release(self) -> None:
        """Answer every long poll now, and hold none any more, so that none holds up the stop."""
        self._stopping = True
        for poll in self._polls:
            if not poll.expired():
                poll.reschedule(asyncio.get_running_loop().time())

    async def respond(self, request: Request, pool: Pool, caller: Caller, path: str) -> Answer:
        """`path` begins with one of `PREFIXES`."""
        kind, _, rest = path.partition("/")
        collection, slash, id = rest.partition("/")
        rules = self._rules_of(pool.app).get(collection)
        if rules is None or (slash and not id):
            raise NotFound("there is no such collection for end users", remedy="give the collection rules=")
        if "\ufffd" in id:
            raise InvalidInput("the id is not UTF-8")
        user = {"sub": caller.sub, "email": caller.email, "groups": list(caller.groups)}
        if kind == "changes" and id:
            raise NotFound("there is no such endpoint", remedy="changes are of a whole collection")
        if not id:
            _only(request, "GET")
            if kind == "changes":
                return await self._changes(request, pool, collection, rules, user)
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

    async def _changes(self, request: Request, pool: Pool, collection: str, rules: Rules, user: dict[str, Any]) -> Answer:
        """Changes after a cursor that the user may know of, as a long poll; without a cursor only the one to begin with."""
        query = request.query(("cursor", "wait_seconds", "limit"))
        limit = asgi.whole(query, "limit", 100, low=1, high=_PAGE)
        wait = asgi.whole(query, "wait_seconds", 0, high=_WAIT_SECONDS)
        found = self._room.collection(pool.app, collection)
        if found is None or found.config.changes != "new_and_old":
            raise Unsupported(f"changes of {collection} are not for end users", remedy='declare it with changes="new_and_old"')
        place = (collection, str(user["sub"]), "changes")
        cursor = self._users.reveal(pool, query["cursor"], *place) if "cursor" in query else ""
        page = await changes(self._room, pool.app, collection, cursor=cursor, limit=limit)
        items = _all_told(page, rules, user)
        if cursor and not items and wait and not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait) as poll:
                    self._polls.add(poll)
                    try:
                        while not items:  # what is not this user's to know ends no poll
                            page = await changes(
                                self._room, pool.app, collection, cursor=page.cursor, limit=limit, wait_seconds=60.0
                            )
                            items = _all_told(page, rules, user)
                    finally:
                        self._polls.discard(poll)
        following = self._users.conceal(pool, page.cursor, *place)
        return json_answer({"items": items, "cursor": following}, 200, (("cache-control", "no-store"),))

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


def _all_told(page: Changes, rules: Rules, user: dict[str, Any]) -> list[dict[str, Any]]:
    return [told for one in page.changes if (told := _told(one, rules, user)) is not None]


def _told(changed: Changed, rules: Rules, user: dict[str, Any]) -> dict[str, Any] | None:
    """What the user is told of a change: the document that may be read now, or that one is gone that could be before."""
    change = msgspec.json.decode(changed.body, type=Change)
    if not isinstance(change.id, str):
        return None
    if isinstance(change.value, msgspec.Raw) and rules.readable(values.load(bytes(change.value)), user):
        return {"operation": "put", "id": change.id, "version": change.version, "value": change.value}
    if isinstance(change.old, msgspec.Raw) and rules.readable(values.load(bytes(change.old)), user):
        return {"operation": "gone", "id": change.id}
    return None


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
