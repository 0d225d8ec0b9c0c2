"""Importing schemas: what SDL becomes, what is refused and by which name, what a re-import may take away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.protocols.graphql.conftest import BLOG, Face

from martlet.errors import MartletError
from martlet.protocols.graphql.importing import check_model


async def test_types_become_collections_with_indexes_and_references(blog: Face) -> None:
    found = blog.room.collection("shop", "Post")
    assert found is not None
    fields = found.config.schema.fields
    assert {name: field.type for name, field in fields.items()} == {
        "title": "text", "status": "text", "at": "time?", "words": "array<text>?", "views": "int?", "big": "int?",
        "price": "decimal?", "ratio": "float?", "live": "bool?", "day": "text?", "raw": "bytes?", "more": "any?",
        "author": "ref", "tags": "array<ref>?",
    }  # fmt: skip
    assert (fields["author"].collection, fields["author"].on_delete, fields["author"].required) == ("User", "cascade", True)
    assert fields["tags"].on_delete == "keep"
    assert [index.name for index in found.indexes] == ["byStatus", "by_word", "postsOf"]
    users = blog.room.collection("shop", "User")
    assert users is not None
    assert users.config.indexes["unique_email"].unique
    assert "posts" not in users.config.schema.fields
    profiles = blog.room.collection("shop", "Profile")
    assert profiles is not None
    assert profiles.config.indexes["unique_owner"].unique


@pytest.mark.parametrize(
    ("sdl", "named"),
    [
        ("type A { b: B }", "there is no type B"),
        ("type A { b: [[Int]] }", "A.b is a list of lists"),
        ("interface A { b: Int }", "interface A is not supported"),
        ("union A = B type B { c: Int }", "union A is not supported"),
        ("scalar Money type A { b: Int }", "scalar Money is not supported"),
        ("type A implements B { c: Int }", "interface"),
        ("type A { b: Int @auth }", "@auth on A.b"),
        ("directive @auth on OBJECT type A { b: Int }", "@auth"),
        ("type A @embedded(x: 1) { b: Int }", "takes no argument x"),
        ("type A { b: Int b: Int }", "A.b is defined twice"),
        ("type A { b: Int } type A { c: Int }", "A is defined twice"),
        ("type A { b: Int } type APage { c: Int }", "APage is taken"),
        ("type A { _b: Int }", "A._b"),
        ("type A { id: Int b: Int }", "A.id is the document's own id"),
        ("type A { b(x: Int): Int }", "A.b has arguments"),
        ("type A { b: Int! @resolver(function: \"f\") }", "must be nullable"),
        ("type A { b: Int @resolver }", "`function` must be given"),
        ("type A { b: [Int] @unique }", "A.b cannot be @unique"),
        ("type A @index(name: \"i\", fields: [\"c\"]) { b: Int }", "c is no field that could be indexed"),
        ("type A @index(name: \"i\", fields: [\"b\"]) @index(name: \"i\", fields: [\"b\"]) { b: Int }", "defined twice"),
        ("type A @index(name: \"not a name\", fields: [\"b\"]) { b: Int }", "not a name"),
        ("type A { b: B! } type B { a: A! }", "must both be there"),
        ("type A { b: [B] c: [B] } type B { a: A }", "which of these belong together"),
        ("type A { b: B @relation(name: \"x\") c: B @relation(name: \"x\") } type B { d: Int }", "must have two sides"),
        ("type A { b: Int @relation }", "A.b has @relation"),
        ("type A { b: B @relation(onDelete: EXPLODE) } type B { c: Int }", "onDelete is"),
        ("type A @embedded { b: A! } type B { a: A }", "must hold itself"),
        ("type A @embedded { b: B } type B { c: Int }", "an embedded type holds no B"),
        ("type A { b: Int } type Query { f: Int }", "Query.f needs @resolver"),
        ("type A { b: Int } type Query { f(x: Int): [A] }", "the argument x is no single field"),
        ("type A { b: Int } type Query { f(b: Int!): A }", "must be @unique"),
        ("type A { b: Int } type Mutation { f: A }", "Mutation.f needs @resolver"),
        ("type A { b: Int } type Subscription { f: A }", "Subscription cannot be declared"),
        ("type A { b: Int @computed(expression: \"1 +\") }", "expression"),
        ("type A @check(name: \"c\", expression: \"b >\") { b: Int }", "expression"),
        ("type A @collection(name: \"x\") { b: Int } type B @collection(name: \"x\") { b: Int }", "share the collection"),
        ("type A @collection(changes: all) { b: Int }", "changes is keys"),
        ("type A {", "malformed"),
        ("type A { b: B } type B { c: Int } type ABRelation { d: Int }", "ABRelation"),
        ("type A { b: Int } type Query { listA: [A] @resolver(function: \"f\") } type A2 { c: Int } type Query { listA: [A2] }", "Query.listA is defined twice"),
        (" ".join(f"enum E{n} {{ X }}" for n in range(301)), "graphql_types"),
        ("type A { b: Int } query { a }", "is not supported"),
        ("type A { b: Int @deprecated }", "@deprecated on A.b"),
        ("enum E { true } type A { b: E }", "malformed"),
        ("schema { query: A } type A { b: Int }", "is not supported"),
        ("type A { b: Int } #" + "x" * 262_144, "graphql_schema_bytes"),
        ("type A { b: " + "[" * 500 + "Int" + "]" * 500 + " }", ""),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_by_name(sdl: str, named: str) -> None:
    with pytest.raises(MartletError) as refused:
        check_model({"api": sdl})
    assert named in refused.value.message


async def test_additive_changes_are_applied(bare: Face) -> None:
    assert (await bare.put_schema("type A { b: Int } enum E { X }")).status_code == 200
    await bare.ask("mutation { createA(data: {b: 1}) { id } }")
    more = 'type A @index(name: "i", fields: ["b"]) { b: Int c: E d: [B!] } type B { a: A e: String! } enum E { X Y }'
    told = (await bare.put_schema(more, dry_run="true")).json()
    assert (told["applied"], told["revision"]) == (False, 1)
    assert {(change["action"], change["name"]) for change in told["changes"]} == {
        ("add", "A.c"), ("add", "A.d"), ("add", "A.i"), ("add", "B"), ("add", "E.Y"),
    }  # fmt: skip
    assert bare.room.collection("shop", "B") is None
    done = (await bare.put_schema(more)).json()
    assert (done["applied"], done["revision"]) == (True, 2)
    assert (await bare.put_schema(more)).json() == {**done, "changes": []}  # the same again is nothing
    for _ in range(100):
        found = bare.room.collection("shop", "A")
        assert found is not None
        if all(index.status == "ready" for index in found.indexes):
            break
        await asyncio.sleep(0.01)
    await bare.ask('mutation { createB(data: {e: "x", a: {create: {b: 1, c: Y}}}) { a { c } } }')
    assert len((await bare.ask("{ listAByI(b: {eq: 1}) { data { c } } }"))["listAByI"]["data"]) == 2


@pytest.mark.parametrize(
    ("after", "name"),
    [
        ("type B { c: Int }", "A"),
        ("type A { b: Int! @unique } type B { c: Int }", "A.e"),
        ("type A { b: String! @unique e: [E] } enum E { X Y } type B { c: Int }", "A.b"),
        ("type A { b: Int! e: [E] } enum E { X Y } type B { c: Int }", "A.unique_b"),
        ("type A { b: Int! @unique e: [E] } enum E { X } type B { c: Int }", "E.Y"),
        ("type A { b: Int! @unique e: [E] f: Int! } enum E { X Y } type B { c: Int }", "A.f"),
        ("type A { b: Int! @unique e: [E]! } enum E { X Y } type B { c: Int }", "A.e"),
        ("type A @collection(name: \"a\") { b: Int! @unique e: [E] } enum E { X Y } type B { c: Int }", "A"),
    ],
)  # fmt: skip
async def test_destructive_changes_are_refused_by_name(bare: Face, after: str, name: str) -> None:
    before = "type A { b: Int! @unique e: [E] } enum E { X Y } type B { c: Int }"
    await bare.put_schema(before)
    await bare.ask("mutation { createA(data: {b: 1}) { id } createB(data: {c: 2}) { id } }")
    refused = await bare.put_schema(after)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:martlet:error:conflict"), refused.text
    assert any(change.startswith(f"{name}:") for change in refused.json()["changes"]), refused.text
    assert (await bare.ask("{ listA { data { b e } } }"))["listA"]["data"] == [{"b": 1, "e": None}]
    done = await bare.put_schema(after, replace="true")
    assert (done.status_code, done.json()["revision"]) == (200, 2)
    kept = bare.room.collection("shop", "A")
    assert kept is not None
    assert kept.documents == 1  # no import removes a document


async def test_importers_have_their_own_types(bare: Face) -> None:
    await bare.put_schema("type A { b: Int }", source="deploy")
    done = await bare.put_schema('type B { a: A } extend type Query { f: Int @resolver(function: "f") }', source="tool")
    assert done.status_code == 200, done.text
    taken = await bare.put_schema("type A { c: Int }", source="tool")
    assert (taken.status_code, taken.json()["name"], taken.json()["importer"]) == (409, "A", "deploy")
    needed = await bare.http.delete("/v1/databases/shop/graphql/schema", params={"source": "deploy"})
    assert (needed.status_code, "there is no type A" in needed.text) == (400, True)
    state = (await bare.http.get("/v1/databases/shop/graphql/schema")).json()
    assert set(state["sources"]) == {"deploy", "tool"}
    api = await bare.http.get("/v1/databases/shop/graphql/schema", params={"form": "api"})
    assert "type APage" in api.text
    for source in ("tool", "deploy"):
        assert (await bare.http.delete("/v1/databases/shop/graphql/schema", params={"source": source})).status_code == 200
    assert (await bare.http.get("/v1/databases/shop/graphql/schema")).status_code == 404
    assert (await bare.http.delete("/v1/databases/shop/graphql/schema")).status_code == 404
    assert bare.room.collection("shop", "A") is not None


async def test_what_others_said_of_a_collection_stays(bare: Face) -> None:
    config = {
        "indexes": {"by_x": {"terms": [{"path": "x"}]}},
        "schema": {"fields": {"x": {"type": "int"}}},
        "history_seconds": 0,
    }
    await bare.http.put("/v1/collections/A", params={"app": "shop"}, json=config)
    other = await bare.put_schema("type A { x: String y: Int }")
    assert (other.status_code, "A.x" in other.text) == (409, True)
    assert (await bare.put_schema("type A { y: Int @unique }")).status_code == 200
    found = bare.room.collection("shop", "A")
    assert found is not None
    assert (sorted(found.config.indexes), sorted(found.config.schema.fields)) == (["by_x", "unique_y"], ["x", "y"])
    assert found.config.history_seconds == 0
    await bare.http.put("/v1/documents/A/k", params={"app": "shop"}, json={"x": 1, "y": 2})
    await bare.ask('mutation { updateA(id: "k", data: {y: 3}) { y } }')
    kept = bare.room.get("shop", "A", "k")
    assert kept is not None
    assert kept.value() == {"x": 1, "y": 3}  # a field that the schema does not know is not lost
    assert (await bare.http.delete("/v1/databases/shop/graphql/schema")).status_code == 200
    found = bare.room.collection("shop", "A")
    assert found is not None
    assert (sorted(found.config.indexes), sorted(found.config.schema.fields)) == (["by_x"], ["x"])


async def test_defaults_checks_computed_fields_and_times_to_live(bare: Face) -> None:
    sdl = """type A @check(name: "positive", expression: "n > 0") @collection(name: "as", historySeconds: 0, changes: keys) {
      n: Int! @default(value: 7)
      twice: Int @computed(expression: "n * 2")
      until: DateTime @ttl
    }"""
    assert (await bare.put_schema(sdl)).status_code == 200
    data = await bare.ask(
        'mutation { a: createA(data: {}) { n twice } b: createA(data: {n: 2, until: "2999-01-01T00:00:00Z"}) { twice } }'
    )
    assert (data["a"], data["b"]) == ({"n": 7, "twice": 14}, {"twice": 4})
    refused = await bare.errors("mutation { createA(data: {n: 0}) { id } }")
    assert (refused[0]["extensions"]["code"], refused[0]["extensions"]["check"]) == ("schema_violation", "positive")
    past = await bare.errors('mutation { createA(data: {n: 1, until: "2001-01-01T00:00:00Z"}) { id } }')
    assert "time to live" in past[0]["message"]
    found = bare.room.collection("shop", "as")
    assert found is not None
    assert (found.documents, found.config.ttl_field, found.config.changes, found.config.history_seconds) == (
        2,
        "until",
        "keys",
        0,
    )


async def test_a_removed_database_takes_its_schema_along(bare: Face) -> None:
    await bare.http.post("/v1/databases", json={"path": "shop/test"})
    url = "/v1/databases/shop%2Ftest/graphql"
    assert (await bare.http.put(url + "/schema", content="type A { b: Int }")).status_code == 200
    made: dict[str, Any] = (await bare.http.post(url, json={"query": "mutation { createA(data: {b: 1}) { b } }"})).json()
    assert made["data"] == {"createA": {"b": 1}}
    assert (await bare.http.delete("/v1/databases/shop%2Ftest")).status_code == 204
    await bare.http.post("/v1/databases", json={"path": "shop/test"})
    assert (await bare.http.post(url, json={"query": "{ listA { after } }"})).status_code == 404


async def test_imports_at_once_end_as_one_after_the_other(bare: Face) -> None:
    answers = await asyncio.gather(*(bare.put_schema(f"type T{n} {{ b: Int }}", source=f"s{n}") for n in range(5)))
    assert sorted(answer.json()["revision"] for answer in answers) == [1, 2, 3, 4, 5]
    assert len((await bare.http.get("/v1/databases/shop/graphql/schema")).json()["sources"]) == 5


def test_the_blog_is_a_valid_schema() -> None:
    model = check_model({"api": BLOG})
    assert {name: [(m.name, m.kind, m.by) for m in entity.members if m.kind in ("to_one", "to_many", "from_one", "from_many")]
            for name, entity in model.entities.items()} == {
        "User": [("posts", "from_many", "author"), ("profile", "from_one", "owner")],
        "Profile": [("owner", "to_one", "")],
        "Post": [("author", "to_one", ""), ("tags", "to_many", "")],
        "Tag": [("posts", "from_many", "tags")],
    }  # fmt: skip
