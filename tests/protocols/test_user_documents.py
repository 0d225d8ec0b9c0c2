"""Documents of end users over the whole face: rules in lists, single documents and writes, and what must not shine through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from tests.users.stage import SECRET, Stage

from martlet.documents import CollectionConfig, Documents, IndexConfig, Term
from martlet.documents.rules import Rules
from martlet.gateway.visitors import Mounted
from martlet.protocols.user_documents import UserDocuments
from martlet.protocols.users import public

OWN = "document.owner == user.sub"
NOTES = Rules(f"{OWN} or document.public == true", OWN)


class Face:
    """The endpoints of shop's people, asked as the edge asks them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.documents = Documents(stage.store, stage.clock)
        rules = {"shop": {"notes": NOTES, "sealed": Rules()}}
        self.endpoints = UserDocuments(stage.users, self.documents, lambda app: rules.get(app, {}))
        self._app = public(stage.users, self.endpoints)
        self.tokens: dict[str, Any] = {}

    async def ask(
        self, who: str, method: str, path: str, value: Any = None, query: str = "", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        body = b"" if value is None else value if isinstance(value, bytes) else orjson.dumps(value)
        given = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        if who:
            given.append((b"authorization", f"Bearer {self.tokens[who].access_token}".encode()))
        told: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        scope = {
            "type": "http",
            "method": method,
            "path": f"/auth/{path}",
            "query_string": query.encode(),
            "headers": given,
            "client": ("192.0.2.1", 1),
            "martlet.context": Mounted("shop", "people", path, [], lambda *_: None, set()),
            "martlet.respond": lambda *answer: told.append(answer),
        }
        await self._app(scope, receive, send)
        status, own, content = told[0]
        return status, orjson.loads(content) if content else None, {name.decode(): text.decode() for name, text in own}

    def sub(self, who: str) -> str:
        return str(self.stage.who(self.tokens[who]).sub)


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    stage = Stage()
    made = Face(stage)
    for who in ("ada", "eve"):
        made.tokens[who] = await stage.member(f"{who}@example.com", SECRET)
    yield made
    await stage.close()


async def test_everybody_has_the_own_documents_and_what_is_public(face: Face) -> None:
    ada, eve = face.sub("ada"), face.sub("eve")
    status, _, headers = await face.ask("ada", "PUT", "documents/notes/a/1", {"owner": ada, "text": "mine"})
    assert (status, headers["etag"]) == (201, '"1"')
    await face.ask("eve", "PUT", "documents/notes/b", {"owner": eve, "public": True})
    status, found, headers = await face.ask("ada", "GET", "documents/notes/a/1")
    assert (status, found["text"], headers["cache-control"]) == (200, "mine", "no-store")
    _, found, _ = await face.ask("ada", "GET", "documents/notes")
    assert [one["id"] for one in found["items"]] == ["a/1", "b"]
    _, found, _ = await face.ask("eve", "GET", "documents/notes")
    assert ([one["id"] for one in found["items"]], found["next"]) == (["b"], None)
    assert (await face.ask("ada", "PUT", "documents/notes/a/1", {"owner": ada}, if_match='"1"'))[0] == 204
    assert (await face.ask("ada", "DELETE", "documents/notes/a/1", if_match='"1"'))[0] == 412
    assert (await face.ask("ada", "DELETE", "documents/notes/a/1", if_match='"2"'))[0] == 204
    assert (await face.ask("ada", "GET", "documents/notes/a/1"))[0] == 404


async def test_what_may_not_be_read_is_as_if_it_were_not_there(face: Face) -> None:
    await face.ask("ada", "PUT", "documents/notes/hers", {"owner": face.sub("ada")})
    hers = await face.ask("eve", "GET", "documents/notes/hers")
    none = await face.ask("eve", "GET", "documents/notes/nothing")
    assert hers == none
    assert hers[0] == 404
    assert await face.ask("eve", "DELETE", "documents/notes/hers") == await face.ask("eve", "DELETE", "documents/notes/nothing")
    for condition in ({"if_match": '"1"'}, {"if_match": '"7"'}, {"if_none_match": "*"}, {}):
        assert (await face.ask("eve", "PUT", "documents/notes/hers", {"owner": face.sub("eve")}, **condition))[0] == 403
    assert (await face.ask("ada", "GET", "documents/notes/hers"))[1] == {"owner": face.sub("ada")}


async def test_nobody_writes_for_somebody_else_or_gives_away(face: Face) -> None:
    ada, eve = face.sub("ada"), face.sub("eve")
    status, problem, _ = await face.ask("eve", "PUT", "documents/notes/x", {"owner": ada})
    assert (status, problem["reason"]) == (403, "rule")
    await face.ask("eve", "PUT", "documents/notes/x", {"owner": eve, "public": True})
    assert (await face.ask("eve", "PUT", "documents/notes/x", {"owner": ada}))[0] == 403
    assert (await face.ask("ada", "PUT", "documents/notes/x", {"owner": ada}))[0] == 403
    assert (await face.ask("ada", "DELETE", "documents/notes/x"))[0] == 403  # it is public, so its being there is no secret
    assert face.documents.get("shop", "notes", "x").value() == {"owner": eve, "public": True}  # type: ignore[union-attr]


async def test_a_collection_without_rules_is_for_nobody(face: Face) -> None:
    await face.documents.put("shop", "orders", "1", {"owner": face.sub("ada")})
    await face.documents.put("shop", "sealed", "1", {"owner": face.sub("ada")})
    for path in (
        "documents/orders",
        "documents/orders/1",
        "documents/",
        "documents//",
        "documents/../orders",
        "documents/sealed/1",
    ):
        assert (await face.ask("ada", "GET", path))[0] == 404
    assert (await face.ask("ada", "GET", "documents/sealed"))[1]["items"] == []
    assert (await face.ask("ada", "PUT", "documents/orders/2", {}))[0] == 404
    assert (await face.ask("ada", "PUT", "documents/sealed/2", {}))[0] == 403


async def test_without_a_token_there_is_nothing(face: Face) -> None:
    for method, path in (("GET", "documents/notes"), ("PUT", "documents/notes/1"), ("GET", "documents/orders")):
        assert (await face.ask("", method, path))[0] == 401
    await face.stage.users.sign_out(await face.stage.pool(), face.stage.who(face.tokens["ada"]))
    assert (await face.ask("ada", "GET", "documents/notes"))[0] == 401


async def test_lists_go_on_by_cursors_that_tell_nothing(face: Face) -> None:
    eve = face.sub("eve")

    def many(tx: Any, first: int) -> None:
        for number in range(first, first + 500):
            tx.put("notes", f"id-{number:05}", {"owner": eve if number % 1_000 == 999 else "somebody"})

    for first in range(0, 2_500, 500):
        await face.documents.transact("shop", lambda tx, first=first: many(tx, first))
    seen, cursor, pages = [], "", 0
    while True:
        _, found, _ = await face.ask("eve", "GET", "documents/notes", query="limit=1" + (f"&after={cursor}" if cursor else ""))
        seen += [one["id"] for one in found["items"]]
        pages += 1
        if found["next"] is None:
            break
        cursor = found["next"]
        assert "id-" not in cursor
    assert seen == ["id-00999", "id-01999"]
    assert pages <= 5  # a page looks at rules_examined documents and no more
    first = (await face.ask("eve", "GET", "documents/notes", query="limit=1"))[1]["next"]
    assert (await face.ask("ada", "GET", "documents/notes", query=f"after={first}"))[0] == 400  # another one's cursor
    for wrong in ("x", "id-00001", "AAAA" * 20, "%C3%A9", first[:-4] + "AAAA"):
        assert (await face.ask("eve", "GET", "documents/notes", query=f"after={wrong}"))[0] == 400


async def test_changes_are_told_as_far_as_they_may_be_read(face: Face) -> None:
    ada, eve = face.sub("ada"), face.sub("eve")
    assert (await face.ask("eve", "GET", "changes/notes"))[0] == 501  # without what was there before, who could be told?
    await face.documents.define_collection("shop", "notes", CollectionConfig(changes="new_and_old"))
    await face.documents.put("shop", "notes", "before", {"owner": eve})
    _, begun, _ = await face.ask("eve", "GET", "changes/notes")
    assert begun["items"] == []
    for id, value in (
        ("a", {"owner": ada}),
        ("e", {"owner": eve, "n": 1}),
        ("p", {"owner": ada, "public": True}),
        ("p", {"owner": ada}),  # it is not public any more
        ("before", None),
        ("a", None),
    ):
        await (face.documents.put("shop", "notes", id, value) if value else face.documents.delete("shop", "notes", id))
    _, found, _ = await face.ask("eve", "GET", "changes/notes", query=f"cursor={begun['cursor']}")
    assert found["items"] == [
        {"operation": "put", "id": "e", "version": 1, "value": {"owner": eve, "n": 1}},
        {"operation": "put", "id": "p", "version": 1, "value": {"owner": ada, "public": True}},
        {"operation": "gone", "id": "p"},
        {"operation": "gone", "id": "before"},
    ]
    _, rest, _ = await face.ask("eve", "GET", "changes/notes", query=f"cursor={found['cursor']}")
    assert rest["items"] == []
    assert (await face.ask("ada", "GET", "changes/notes", query=f"cursor={found['cursor']}"))[0] == 400
    assert (await face.ask("eve", "GET", "changes/orders"))[0] == 404
    assert (await face.ask("eve", "GET", "changes/notes/a"))[0] == 404
    assert (await face.ask("", "GET", "changes/notes"))[0] == 401
    assert (await face.ask("eve", "GET", "changes/notes", query="wait_seconds=21"))[0] == 400


async def test_a_poll_waits_for_what_is_the_users_and_not_for_others(face: Face) -> None:
    ada, eve = face.sub("ada"), face.sub("eve")
    await face.documents.define_collection("shop", "notes", CollectionConfig(changes="new_and_old"))
    _, begun, _ = await face.ask("eve", "GET", "changes/notes")
    poll = asyncio.ensure_future(face.ask("eve", "GET", "changes/notes", query=f"cursor={begun['cursor']}&wait_seconds=20"))
    await face.documents.put("shop", "notes", "a", {"owner": ada})
    await face.documents.put("shop", "notes", "e", {"owner": eve})
    _, found, _ = await poll
    assert [one["id"] for one in found["items"]] == ["e"]


async def test_a_stop_waits_for_no_poll(face: Face) -> None:
    await face.documents.define_collection("shop", "notes", CollectionConfig(changes="new_and_old"))
    _, begun, _ = await face.ask("eve", "GET", "changes/notes")
    query = f"cursor={begun['cursor']}&wait_seconds=20"
    polls = [asyncio.ensure_future(face.ask("eve", "GET", "changes/notes", query=query)) for _ in range(3)]
    while len(face.endpoints._polls) < 3:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)
    face.endpoints.release()
    async with asyncio.timeout(15):  # before the polls' own end
        answers = await asyncio.gather(*polls)
        answers.append(await face.ask("eve", "GET", "changes/notes", query=query))
    assert [(status, found["items"]) for status, found, _ in answers] == [(200, [])] * 4


async def test_a_poll_that_outlives_its_session_tells_nothing(face: Face) -> None:
    eve = face.sub("eve")
    await face.documents.define_collection("shop", "notes", CollectionConfig(changes="new_and_old"))
    _, begun, _ = await face.ask("eve", "GET", "changes/notes")
    poll = asyncio.ensure_future(face.ask("eve", "GET", "changes/notes", query=f"cursor={begun['cursor']}&wait_seconds=20"))
    await asyncio.sleep(0)  # it is under way
    await face.stage.users.change(await face.stage.pool(), eve, disabled=True)
    await face.documents.put("shop", "notes", "e", {"owner": eve})
    status, problem, _ = await poll
    assert (status, problem["reason"]) == (401, "invalid_token")


async def test_a_conflict_does_not_say_with_what(face: Face) -> None:
    unique = CollectionConfig(indexes={"email": IndexConfig(terms=(Term("email"),), unique=True)})
    await face.documents.define_collection("shop", "notes", unique)
    await face.documents.put("shop", "notes", "hidden-id", {"owner": "somebody", "email": "x"})
    status, problem, _ = await face.ask("eve", "PUT", "documents/notes/mine", {"owner": face.sub("eve"), "email": "x"})
    assert (status, "hidden-id" in str(problem)) == (409, False)


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "headers", "status"),
    [
        ("POST", "documents/notes", b"{}", "", {}, 405),
        ("PATCH", "documents/notes/1", b"{}", "", {}, 405),
        ("PUT", "documents/notes/1", b"{", "", {}, 400),
        ("PUT", "documents/notes/1", b"[" * 100_000, "", {}, 413),
        ("PUT", "documents/notes/\ufffd", b"{}", "", {}, 400),
        ("PUT", "documents/notes/" + "a" * 5_000, b"{}", "", {}, 413),
        ("GET", "documents/notes", b"", "where=true", {}, 400),
        ("GET", "documents/notes", b"", "limit=0", {}, 400),
        ("GET", "documents/notes", b"", "limit=1000", {}, 400),
        ("PUT", "documents/notes/1", b"{}", "", {"if_match": "*"}, 400),
        ("PUT", "documents/notes/1", b"{}", "", {"if_match": '"0"'}, 400),
        ("DELETE", "documents/notes/1", b"", "", {"if_none_match": "*"}, 400),
    ],
)  # fmt: skip
async def test_hostile_requests_are_refused(
    face: Face, method: str, path: str, body: bytes, query: str, headers: dict[str, str], status: int
) -> None:
    found, problem, _ = await face.ask("eve", method, path, body, query, **headers)
    assert found == status, problem


async def test_a_rule_is_judged_in_the_transaction_of_its_write(face: Face) -> None:
    """Both may create; of many at one time one wins, and the others see whose it is."""
    who = ["ada", "eve"] * 10
    calls = [face.ask(one, "PUT", "documents/notes/race", {"owner": face.sub(one)}) for one in who]
    found = [status for status, _, _ in await asyncio.gather(*calls)]
    winner = face.documents.get("shop", "notes", "race").value()["owner"]  # type: ignore[union-attr]
    for one, status in zip(who, found, strict=True):
        assert status in ((201, 204) if face.sub(one) == winner else (403,))
    assert found.count(201) == 1
