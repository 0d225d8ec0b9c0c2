"""Fields that functions answer: one call for a field and a level, and nothing they answer is believed without a look."""

from __future__ import annotations

from typing import Any

from tests.protocols.graphql.conftest import Face
from tests.protocols.graphql.test_requests import make_blog


async def test_a_field_is_asked_once_for_a_whole_list(blog: Face) -> None:
    ids = await make_blog(blog)
    blog.functions["score"] = lambda event: [len(source["title"]) * event["arguments"]["times"] for source in event["sources"]]
    data = await blog.ask("{ listPost(sort: [title_ASC]) { data { title score(times: 2) id } } }")
    assert [list(post.items())[:2] for post in data["listPost"]["data"]] == [
        [("title", "one"), ("score", 6)],
        [("title", "two"), ("score", 6)],
    ]
    assert len(blog.events) == 1
    event = blog.events[0]
    assert (event["database"], event["type"], event["field"], event["arguments"]) == ("shop", "Post", "score", {"times": 2})
    assert {source["id"] for source in event["sources"]} == {ids["one"], ids["two"]}
    assert event["sources"][0]["author"] == ids["ann"]


async def test_functions_lead_to_documents_and_on_to_functions(blog: Face) -> None:
    ids = await make_blog(blog)
    blog.functions["top"] = lambda event: [ids["two"], {"id": ids["one"]}][: event["arguments"]["n"]]
    blog.functions["similar"] = lambda event: [[ids["one"], "gone"] for _ in event["sources"]]
    blog.functions["now"] = lambda event: "2026-11-21T01:00:00+01:00"
    answer = (await blog.send("{ now top(n: 2) { title author { name } } __typename }")).json()
    assert answer["data"] == {
        "now": "2026-11-21T00:00:00Z",
        "top": [{"title": "two", "author": {"name": "Ann"}}, {"title": "one", "author": {"name": "Ann"}}],
        "__typename": "Query",
    }
    missing = (await blog.send("{ top(n: 2) { title similar { title } } }")).json()
    assert missing["data"]["top"] == [{"title": "two", "similar": None}, {"title": "one", "similar": None}]
    assert [error["path"] for error in missing["errors"]] == [["top", 0, "similar", 1], ["top", 1, "similar", 1]]
    assert "non-nullable" in missing["errors"][0]["message"]


async def test_mutations_by_functions_are_their_own(blog: Face) -> None:
    ids = await make_blog(blog)

    def publish(event: dict[str, Any]) -> Any:
        return event["arguments"]["id"]

    blog.functions["publish"] = publish
    data = await blog.ask("mutation ($id: ID!) { publish(id: $id) { title } }", {"id": ids["one"]})
    assert data["publish"] == {"title": "one"}
    mixed = await blog.send(
        'mutation ($id: ID!) { publish(id: $id) { title } createTag(data: {name: "z"}) { id } }', {"id": ids["one"]}
    )
    assert (mixed.status_code, "one transaction" in mixed.text) == (501, True)
    asked = await blog.send("mutation ($id: ID!) { deletePost(id: $id) { score } }", {"id": ids["one"]})
    assert (asked.status_code, len(blog.events)) == (501, 1)


async def test_what_a_function_answers_wrong_is_an_error_of_its_field(blog: Face) -> None:
    await make_blog(blog)

    def fails(event: dict[str, Any]) -> Any:
        raise ValueError("no luck")

    query = "{ listPost(sort: [title_ASC]) { data { title score } } }"
    for answer, told in (
        (lambda event: 1, "must answer Post.score with a list of 2"),
        (lambda event: [1], "must answer Post.score with a list of 2"),
        (lambda event: ["x", None], "Float cannot represent"),
        (fails, "shop-score failed: no luck"),
    ):
        blog.functions["score"] = answer  # type: ignore[assignment]
        found = (await blog.send(query)).json()
        assert [post["title"] for post in found["data"]["listPost"]["data"]] == ["one", "two"]
        assert found["data"]["listPost"]["data"][0]["score"] is None
        assert told in found["errors"][0]["message"]
        assert found["errors"][0]["path"] == ["listPost", "data", 0, "score"]
    del blog.functions["score"]
    assert "there is no function" in (await blog.errors(query))[0]["message"]
    for wrong in ({}, 7, "x", [7]):
        blog.functions["top"] = lambda event, wrong=wrong: wrong  # type: ignore[misc]
        found = (await blog.send("{ top(n: 1) { title } listTag { after } }")).json()
        assert found["data"]["top"] is None, wrong
        assert found["data"]["listTag"] == {"after": None}
        assert found["errors"][0]["path"][0] == "top"
