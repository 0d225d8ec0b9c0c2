"""GraphQL over HTTP: media types, status codes, GET, persisted queries, Server-Sent Events, who may what, hostile requests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest
from tests.protocols.graphql.conftest import BLOG, Face
from tests.protocols.graphql.test_requests import make_blog

RESPONSE = "application/graphql-response+json"
TAGS = "{ listTag { data { name } } }"


async def test_media_types_and_status_codes(blog: Face) -> None:
    good = await blog.send(TAGS)
    assert (good.status_code, good.headers["content-type"]) == (200, "application/json; charset=utf-8")
    modern = await blog.send(TAGS, headers={"accept": RESPONSE})
    assert (modern.status_code, modern.headers["content-type"]) == (200, f"{RESPONSE}; charset=utf-8")
    for query, status in (("{", 400), ("{ nope }", 400), ("query A { listTag { after } } query B { listTag { after } }", 400)):
        assert (await blog.send(query)).status_code == status
        assert (await blog.send(query, headers={"accept": RESPONSE})).status_code == status
        legacy = await blog.send(query, headers={"accept": "application/json"})
        assert (legacy.status_code, legacy.headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert "data" not in legacy.json()
    both = "query A { listTag { after } } query B { listTag { before } }"
    assert (await blog.ask(both, operationName="B"))["listTag"] == {"before": None}
    assert (await blog.send(both, operationName="C")).status_code == 400
    preferred = await blog.send(
        TAGS, headers={"accept": "text/html, application/json;q=0.5, application/graphql-response+json;q=0.9"}
    )
    assert preferred.headers["content-type"].startswith(RESPONSE)
    assert (await blog.send(TAGS, headers={"accept": "text/html"})).status_code == 406
    wrong = await blog.send("query ($n: Int!) { listTag(size: $n) { after } }", {"n": "x"})
    assert (wrong.status_code, "Int cannot represent" in wrong.text) == (400, True)
    part = await blog.send("{ listTag(size: 0) { after } }")
    assert (part.status_code, part.json()["data"]) == (200, None)  # it was executed: the field is in error


async def test_get_is_for_queries(blog: Face) -> None:
    url = "/v1/graphql"
    got = await blog.http.get(
        url, params={"app": "shop", "query": "query ($n: Int) { listTag(size: $n) { after } }", "variables": '{"n": 1}'}
    )
    assert got.json()["data"] == {"listTag": {"after": None}}
    same = await blog.http.get("/v1/databases/shop/graphql", params={"query": TAGS})
    assert same.json()["data"] == {"listTag": {"data": []}}
    write = await blog.http.get(url, params={"app": "shop", "query": 'mutation { createTag(data: {name: "x"}) { id } }'})
    assert (write.status_code, write.headers["allow"]) == (405, "POST")
    assert (await blog.ask(TAGS))["listTag"]["data"] == []
    assert (await blog.http.get(url, params={"app": "shop", "query": TAGS, "x": "1"})).status_code == 400


async def test_malformed_requests_are_refused_by_name(blog: Face) -> None:
    async def post(content: bytes, kind: str = "application/json") -> httpx.Response:
        return await blog.http.post("/v1/graphql?app=shop", content=content, headers={"content-type": kind})

    assert "batching is not supported" in (await post(b"[]")).text
    assert (await post(b"[]")).status_code == 400
    assert (await post(b"{}", "text/plain")).status_code == 415
    assert (await post(b"{}", "application/json; charset=latin-1")).status_code == 415
    for body in (
        b"",
        b"{",
        b'"x"',
        b'{"query": 1}',
        b'{"query": "{x}", "variables": []}',
        b'{"query": "\xff"}',
        b'{"operationName": "A"}',
    ):
        assert (await post(body)).status_code == 400, body
    assert (await post(b'{"query": "{__typename}", "variables": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}")).status_code == 400
    long = await post(b'{"query": "' + b" " * 1_100_000 + b'"}')
    assert (long.status_code, "graphql_request_bytes" in long.text) == (413, True)
    unknown = await blog.http.post("/v1/graphql?app=nobody", json={"query": TAGS})
    assert (unknown.status_code, "no GraphQL schema" in unknown.text) == (404, True)


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        ("{" * 3_000, "graphql_depth"),
        ("{ a(x: " + "[" * 3_000, "graphql_depth"),
        ("{ listUser { data { " + "posts(size: 1) { data { author { " * 6 + "id" + " } } }" * 6 + " } } }", "graphql_depth"),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(101)) + " }", "graphql_aliases"),
        ("{ " + "__typename " * 3_999 + "}", "graphql_tokens"),
        ("{ " + "__typename " * 1_500 + "}", "graphql_fields"),
        ("{ listUser(size: 100) { data { posts(size: 101) { data { id } } } } }", "graphql_cost"),
        ("query($n: Int = 1000) { listUser(size: $n) { data { posts(size: $n) { data { id } } } } }", "graphql_cost"),
        (
            "{ ...f0 } "
            + " ".join(f"fragment f{n} on Query {{ a{n}: __typename ...f{n + 1} ...f{n + 1} }}" for n in range(8))
            + " fragment f8 on Query { "
            + " ".join(f"b{n}: __typename" for n in range(99))
            + " }",
            "graphql_aliases",
        ),
        (
            "{ listUser { data { ...u0 } } } "
            + " ".join(f"fragment u{n} on User {{ a: profile {{ owner {{ ...u{n + 1} }} }} b: profile {{ owner {{ ...u{n + 1} }} }} }}" for n in range(8))
            + " fragment u8 on User { id }",
            "graphql_",
        ),
    ],
)  # fmt: skip
async def test_bombs_are_named(blog: Face, query: str, limit: str) -> None:
    answer = await blog.send(query)
    assert answer.status_code == 400
    assert str(answer.json()["errors"][0]["extensions"]["limit"]).startswith(limit)


async def test_hostile_documents(blog: Face) -> None:
    for query in (
        "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
        "{ listUser { data { ...a } } } fragment a on User { profile { owner { ...a } } }",
        "query ($n: Int!) { listTag(size: $n) { after } ",
        "{ listTag(size: 99999999999) { after } }",
        "{ listTag(size: " + "9" * 5_000 + ") { after } }",
        "{ listPost(filter: {views: {eq: " + "9" * 30 + "}}) { after } }",
        "{ listTag { } }",
        "{ listTag @defer { after } }",
        "{ x: listTag { after } x: listUser { after } }",
        "{ x: listTag(size: 1) { after } x: listTag(size: 2) { after } }",
        '{ findTagByID(id: "' + "\\ud800" + '") { id } }',
        "\x00",
    ):
        answer = await blog.send(query)
        assert answer.status_code in (200, 400), (query, answer.text)
        assert answer.json()["errors"], query
    forged = ["", "A", "AAAA", "é", "=" * 10, "x" * 9_000]
    for cursor in forged:
        errors = await blog.errors("query ($c: String!) { listTag(after: $c) { after } }", {"c": cursor})
        assert "cursor" in errors[0]["message"]
    expression = " ".join(f'{{name: {{eq: "{n}"}}}}' for n in range(400))
    many = await blog.errors("{ listTag(filter: {or: [" + expression + "]}) { after } }")
    assert "expression" in many[0]["extensions"]["limit"]
    nested: dict[str, Any] = {"name": {"eq": "x"}}
    for _ in range(40):
        nested = {"not": nested}
    deep = await blog.errors("query ($f: TagFilter) { listTag(filter: $f) { after } }", {"f": nested})
    assert deep[0]["extensions"]["limit"] == "expression_depth"
    assert (await blog.send(TAGS)).status_code == 200


async def test_whole_numbers_are_exact_and_bounded(blog: Face) -> None:
    ids = await make_blog(blog)
    for value in (9223372036854775807, -9223372036854775808, 9007199254740993):
        for given in (value, str(value)):
            data = await blog.ask(
                "mutation ($id: ID!, $l: Long, $b: BigInt) { partialUpdatePost(id: $id, data: {views: $l, big: $b}) { views big } }",
                {"id": ids["one"], "l": given, "b": given},
            )
            assert data["partialUpdatePost"] == {"views": value, "big": str(value)}
    for wrong in (9223372036854775808, "9223372036854775808", 1.5, True, "x", "1e3", "９"):
        answer = await blog.send("query ($l: Long) { listPost(filter: {views: {eq: $l}}) { after } }", {"l": wrong})
        assert answer.status_code == 400, wrong
    text = await blog.ask(
        """mutation ($id: ID!) { partialUpdatePost(id: $id, data: {price: 12345678901234567890.123456789, raw: "AAE=", day: "2026-02-28",
        at: "2026-11-21T01:02:03.000004+02:00", more: {a: [1, {b: 1.5}]}, ratio: 1, live: true, words: ["a"]})
        { price raw day at more ratio live words } }""",
        {"id": ids["one"]},
    )
    assert text["partialUpdatePost"] == {
        "price": "12345678901234567890.123456789", "raw": "AAE=", "day": "2026-02-28", "at": "2026-11-20T23:02:03.000004Z",
        "more": {"a": [1, {"b": 1.5}]}, "ratio": 1, "live": True, "words": ["a"],
    }  # fmt: skip
    for field, wrong_text in (
        ("day", "2026-02-30"),
        ("at", "2026-11-21T00:00:00"),
        ("raw", "%"),
        ("price", "NaN"),
        ("price", "1" * 39),
    ):
        query = f'mutation ($id: ID!) {{ partialUpdatePost(id: $id, data: {{{field}: "{wrong_text}"}}) {{ id }} }}'
        assert (await blog.send(query, {"id": ids["one"]})).status_code == 400, field


async def test_introspection_and_its_switch(blog: Face) -> None:
    from graphql import build_client_schema, get_introspection_query

    data = await blog.ask(get_introspection_query())
    schema = build_client_schema(data)
    assert schema.get_type("Post") is not None
    assert (await blog.ask('{ __type(name: "Tag") { name fields { name } } listTag { after } }'))["__type"]["name"] == "Tag"
    nested = await blog.errors("{ __schema { types { fields { type { fields { name } } } } } }")
    assert "fields within fields" in nested[0]["message"]
    bomb = await blog.errors("{ __schema { " + " ".join(f"a{n}: types {{ name }}" for n in range(101)) + " } }")
    assert bomb[0]["extensions"]["limit"] == "graphql_aliases"
    await blog.put_schema(BLOG, introspection="false")
    off = await blog.send("{ __schema { types { name } } }")
    assert (off.status_code, "introspection" in off.text.lower()) == (400, True)
    hint = await blog.errors("{ listTags { after } }")
    assert "Did you mean" not in hint[0]["message"]
    assert (await blog.ask("{ __typename }")) == {"__typename": "Query"}


async def test_persisted_documents(blog: Face) -> None:
    known = hashlib.sha256(TAGS.encode()).hexdigest()
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": known}}
    url = "/v1/graphql?app=shop"
    first = await blog.http.post(url, json={"extensions": extensions})
    assert first.json()["errors"][0]["message"] == "PersistedQueryNotFound"
    assert (await blog.http.post(url, json={"query": TAGS, "extensions": extensions})).json()["data"] is not None
    assert (await blog.http.post(url, json={"extensions": extensions})).json()["data"] == {"listTag": {"data": []}}
    other = await blog.http.post(url, json={"query": "{ __typename }", "extensions": extensions})
    assert (other.status_code, "sha" in other.text) == (400, True)


async def test_a_retried_mutation_gets_the_first_answer(blog: Face) -> None:
    query = 'mutation { createTag(data: {name: "once"}) { id } }'
    first = (await blog.send(query, headers={"idempotency-key": "k1"})).json()
    again = (await blog.send(query, headers={"idempotency-key": "k1"})).json()
    assert (again["data"], again["extensions"]["replayed"]) == (first["data"], True)
    other = await blog.send('mutation { createTag(data: {name: "two"}) { id } }', headers={"idempotency-key": "k1"})
    assert other.json()["errors"][0]["extensions"]["code"] == "conflict"
    assert len((await blog.ask(TAGS))["listTag"]["data"]) == 1


async def test_cost_and_use_are_told(blog: Face) -> None:
    ids = await make_blog(blog)
    answer = (
        await blog.send(
            "query ($u: ID!) { findUserByID(id: $u) { posts(size: 10) { data { author { name } } } } }", {"u": ids["ann"]}
        )
    ).json()
    assert answer["extensions"]["cost"] == {"documents": 21, "limit": 10_000}
    assert answer["extensions"]["usage"]["read"] >= 3
    ts = answer["extensions"]["ts"]
    await blog.ask('mutation ($u: ID!) { partialUpdateUser(id: $u, data: {name: "New"}) { id } }', {"u": ids["ann"]})
    query = "query ($u: ID!) { findUserByID(id: $u) { name } }"
    assert (await blog.ask(query, {"u": ids["ann"]}, extensions={"asOf": ts}))["findUserByID"]["name"] == "Ann"
    assert (await blog.ask(query, {"u": ids["ann"]}))["findUserByID"]["name"] == "New"


async def test_reads_do_not_grow_with_the_list(blog: Face) -> None:
    """One snapshot, and one batch for each step of the plan, whatever the number of documents."""
    rows = " ".join(
        f'u{n}: createUser(data: {{email: "{n}", name: "u{n}", posts: {{create: [{{title: "p{n}", status: LIVE}}]}}}}) {{ id }}'
        for n in range(40)
    )
    await blog.ask("mutation { " + rows + " }")
    snapshots = 0
    read = blog.room.store.read

    def counted(fn: Any) -> Any:
        nonlocal snapshots
        snapshots += 1
        return read(fn)

    found = {}
    query = "query ($n: Int!) { listPost(size: $n) { data { title author { name profile { bio } posts(size: 2) { data { title } } } } } }"
    await blog.ask(query, {"n": 1})
    blog.room.store.read = counted  # type: ignore[method-assign]
    for size in (1, 10, 40):
        snapshots = 0
        answer = (await blog.send(query, {"n": size})).json()
        assert len(answer["data"]["listPost"]["data"]) == size
        found[size] = (answer["extensions"]["reads"], snapshots)
    assert found == {1: (4, 2), 10: (4, 2), 40: (4, 2)}  # the schema's row and the data


async def test_who_may_what_is_asked_of_each_collection(blog: Face) -> None:
    ids = await make_blog(blog)

    async def ask(query: str, *grants: tuple[str, str], **variables: Any) -> httpx.Response:
        async with blog.as_function(*grants) as client:
            return await client.post("/v1/graphql", json={"query": query, "variables": variables})

    by_id = "query ($u: ID!) { findUserByID(id: $u) { name } }"
    assert (await ask(by_id, ("documents:Get", "shop/User"), u=ids["ann"])).json()["data"]["findUserByID"] == {"name": "Ann"}
    for query, grants in (
        (by_id, [("documents:Get", "shop/Post"), ("documents:List", "shop/User")]),
        ("{ listUser { data { name } } }", [("documents:Get", "shop/User")]),
        ("{ listPost { data { author { name } } } }", [("documents:List", "shop/Post")]),
        (
            "{ listUser { data { posts { data { title } } } } }",
            [("documents:List", "shop/User"), ("documents:Get", "shop/Post")],
        ),
        ('mutation { createTag(data: {name: "n"}) { id } }', [("documents:Get", "shop/Tag")]),
        ('mutation { createTag(data: {name: "n"}) { name } }', [("documents:Put", "shop/Tag")]),
        (
            'mutation { createTag(data: {name: "n", posts: {connect: ["' + ids["one"] + '"]}}) { id } }',
            [("documents:Put", "shop/Tag")],
        ),
        ('mutation { deleteTag(id: "n") { id } }', [("documents:Put", "shop/Tag"), ("documents:Get", "shop/Tag")]),
        ("{ __schema { types { name } } }", []),
        ("{ top(n: 1) { id } }", [("documents:Get", "shop/Post")]),
    ):
        answer = await ask(query, *grants, u=ids["ann"]) if "$u" in query else await ask(query, *grants)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (403, "access_denied"), query
    assert (
        await ask('mutation { createTag(data: {name: "n"}) { id _version } }', ("documents:Put", "shop/Tag"))
    ).status_code == 200
    skipped = "query ($u: ID!) { findUserByID(id: $u) { name posts @skip(if: true) { data { title } } } }"
    assert (await ask(skipped, ("documents:Get", "shop/User"), u=ids["ann"])).status_code == 200
    async with blog.as_function() as client:
        for call in (
            client.put("/v1/databases/shop/graphql/schema", content=BLOG),
            client.get("/v1/databases/shop/graphql/schema"),
        ):
            assert (await call).status_code == 403
    anonymous = httpx.AsyncClient(transport=httpx.ASGITransport(blog.app), base_url="http://test")
    assert (await anonymous.post("/v1/graphql?app=shop", json={"query": TAGS})).status_code == 401


def test_the_library_is_not_loaded_with_the_platform() -> None:
    text = "import sys, martlet.server; print([name for name in sys.modules if name.split('.')[0] == 'graphql'])"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"


# Server-Sent Events


class Events:
    """The events of a stream, as it is read straight from the application."""

    def __init__(self, face: Face, body: dict[str, Any]) -> None:
        self.head: dict[str, Any] = {}
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = asyncio.Event()
        self._text = b""
        self._task = asyncio.create_task(self._run(face, json.dumps(body).encode()))

    async def _run(self, face: Face, body: bytes) -> None:
        given = [{"type": "http.request", "body": body, "more_body": False}]
        headers = [
            (b"accept", b"text/event-stream"),
            (b"content-type", b"application/json"),
            *((k.encode(), v.encode()) for k, v in face.http.headers.items() if k == "authorization"),
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/graphql",
            "raw_path": b"/v1/graphql",
            "query_string": b"app=shop",
            "headers": headers,
        }

        async def receive() -> Any:
            if given:
                return given.pop()
            await self._left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.head = message
            else:
                self._parts.put_nowait(message.get("body", b""))

        await face.app(scope, receive, send)

    async def next(self) -> tuple[str, Any]:
        """(event, data) of the next event."""
        while True:
            block, mark, rest = self._text.partition(b"\n\n")
            if not mark:
                self._text += await asyncio.wait_for(self._parts.get(), 10)
                continue
            self._text = rest
            fields = dict(
                line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":") and ": " in line
            )
            if fields:
                return fields["event"], json.loads(fields["data"]) if fields.get("data") else None

    async def opened(self) -> None:
        while not self._text:
            self._text += await asyncio.wait_for(self._parts.get(), 10)

    async def close(self) -> None:
        self._left.set()
        await asyncio.wait_for(self._task, 10)


async def test_subscriptions_follow_the_change_feed(blog: Face) -> None:
    ids = await make_blog(blog)
    query = """subscription ($s: [Status!]) { postChanged(filter: {status: {in: $s}}) {
      operation id version cursor document { title author { name } } __typename } }"""
    stream = Events(blog, {"query": query, "variables": {"s": ["LIVE", "GONE"]}})
    await stream.opened()
    await blog.ask('mutation ($id: ID!) { partialUpdatePost(id: $id, data: {title: "hidden"}) { id } }', {"id": ids["two"]})
    await blog.ask('mutation ($id: ID!) { partialUpdatePost(id: $id, data: {title: "seen"}) { id } }', {"id": ids["one"]})
    kind, answer = await stream.next()
    change = answer["data"]["postChanged"]
    assert (kind, change["operation"], change["version"], change["__typename"]) == ("next", "PUT", 2, "PostChange")
    assert change["document"] == {"title": "seen", "author": {"name": "Ann"}}
    await stream.close()
    await blog.ask("mutation ($id: ID!) { deletePost(id: $id) { id } }", {"id": ids["one"]})
    resumed = Events(
        blog,
        {
            "query": "subscription ($c: String) { postChanged(after: $c) { operation id document { title } } }",
            "variables": {"c": change["cursor"]},
        },
    )
    assert (await resumed.next())[1]["data"]["postChanged"] == {"operation": "DELETE", "id": ids["one"], "document": None}
    await resumed.close()


async def test_streams_begin_with_what_is_wrong(blog: Face) -> None:
    plain = await blog.send("subscription { tagChanged { id } }")
    assert (plain.status_code, "text/event-stream" in plain.text) == (400, True)
    accept = {"accept": "text/event-stream"}
    forged = await blog.send('subscription { tagChanged(after: "x") { id } }', headers=accept)
    assert forged.status_code == 400
    invalid = await blog.send("subscription { nope { id } }", headers=accept)
    assert (invalid.status_code, invalid.text.startswith('event: next\ndata: {"errors"')) == (200, True)
    assert invalid.text.endswith("event: complete\ndata: \n\n")
    query = await blog.send(TAGS, headers=accept)
    assert (query.headers["content-type"], query.text.count("event: ")) == ("text/event-stream", 2)
    two = await blog.send("subscription { tagChanged { id } userChanged { id } }", headers=accept)
    assert "errors" in two.text
    async with blog.as_function(("documents:Get", "shop/Tag")) as client:
        denied = await client.post("/v1/graphql", json={"query": "subscription { tagChanged { id } }"}, headers=accept)
    assert denied.status_code == 403


async def test_filters_are_bounded(blog: Face) -> None:
    """A filter may be long, and a list too, but not both: the page ends, and says where to go on."""
    await blog.room.transact("shop", lambda tx: [tx.put("Tag", f"t{n:04}", {"name": f"n{n}"}) for n in range(900)])
    long = ", ".join('{name: {eq: "none"}}' for _ in range(120))
    query = f'query ($after: String) {{ listTag(after: $after, filter: {{or: [{long}, {{name: {{eq: "n899"}}}}]}}) {{ data {{ id }} after }} }}'
    found, after, pages = [], None, 0
    while pages == 0 or after is not None:
        page = (await blog.ask(query, {"after": after}))["listTag"]
        found += page["data"]
        after, pages = page["after"], pages + 1
    assert (found, pages > 1) == ([{"id": "t0899"}], True)
    twice = query.replace("listTag(", "a: listTag(").replace(
        "after } }", "after } b: " + query[query.index("listTag(") : -2] + " }"
    )
    assert (await blog.errors(twice))[0]["extensions"]["limit"] == "graphql_compute"


async def test_answers_are_bounded(blog: Face) -> None:
    """What a small request leads to must not be large beyond measure: values by aliases, one large document by many relations."""
    large = "x" * 300_000
    ann = (await blog.ask('mutation ($n: String!) { createUser(data: {email: "a", name: $n}) { id } }', {"n": large}))[
        "createUser"
    ]["id"]
    rows = " ".join(
        f'p{n}: createPost(data: {{title: "{n}", status: LIVE, author: {{connect: $a}}}}) {{ id }}' for n in range(50)
    )
    await blog.ask("mutation ($a: ID!) { " + rows + " }", {"a": ann})
    much = await blog.send("{ listPost { data { author { name } } } }")
    assert (much.status_code, much.json()["errors"][0]["extensions"]["limit"]) == (400, "graphql_response_bytes")
    assert (await blog.send("{ listPost(size: 20) { data { author { name } } } }")).status_code == 200
    aliased = await blog.send("{ listUser { data { " + " ".join(f"a{n}: name" for n in range(90)) + " } } }")
    assert aliased.json()["errors"][0]["extensions"]["limit"] == "graphql_response_bytes"
    cells = " ".join(f"a{n}: title" for n in range(99))
    assert (await blog.send("{ listPost(size: 50) { data { " + cells + " } } }")).status_code == 200
    wide = (
        "{ "
        + " ".join(f"l{n}: listPost(size: 50) {{ data {{ ...f }} }}" for n in range(40))
        + " } fragment f on Post { "
        + " ".join(["title", "status", "id", "at", "views", "live", "ratio", "_ts", "_version", "day", "big", "price"])
        + " author { id email } }"
    )
    assert (await blog.send(wide)).status_code == 200, (await blog.send(wide)).text[:300]
    await blog.ask(
        "mutation { "
        + " ".join(f'createTag(data: {{name: "t{n}"}}) {{ id }}'.replace("createTag", f"t{n}: createTag") for n in range(100))
        + " }"
    )
    most = (
        "{ "
        + " ".join(f"l{n}: listTag(size: 100) {{ data {{ ...f }} }}" for n in range(30))
        + " } fragment f on Tag { "
        + " ".join(f"x{n}: id" for n in range(30))
        + " }"
    )
    assert (await blog.errors(most))[0]["extensions"]["limit"] in ("graphql_values", "graphql_aliases", "graphql_fields")
