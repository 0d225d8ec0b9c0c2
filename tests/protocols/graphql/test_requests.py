"""Queries and mutations: what is asked is answered, by the rules of GraphQL and of the document database."""

from __future__ import annotations

from tests.protocols.graphql.conftest import Face


async def make_blog(face: Face) -> dict[str, str]:
    data = await face.ask(
        """mutation {
          ann: createUser(data: {email: "a@x", name: "Ann", age: 30, posts: {create: [
            {title: "one", status: LIVE, at: "2026-11-21T01:00:00Z", tags: {create: [{name: "py"}, {name: "db"}]}},
            {title: "two", status: DRAFT, at: "2026-11-21T02:00:00+01:00", views: 9007199254740993}]}}) { id posts { data { id title } } }
          bob: createUser(data: {email: "b@x", name: "Bob"}) { id }
        }"""
    )
    posts = {post["title"]: post["id"] for post in data["ann"]["posts"]["data"]}
    return {"ann": data["ann"]["id"], "bob": data["bob"]["id"], **posts}


async def test_create_find_list_and_relations_in_both_directions(blog: Face) -> None:
    ids = await make_blog(blog)
    data = await blog.ask(
        """query ($id: ID!) {
          findUserByID(id: $id) { id name age address { street } posts { data { title author { name } tags { data { name } } } after } }
          findUserByEmail(email: "b@x") { name posts { data { title } } }
          findTagByName(name: "py") { posts { data { title } } }
          listPost(sort: [title_DESC]) { data { title status views } after before }
          nobody: findUserByID(id: "none") { id }
        }""",
        {"id": ids["ann"]},
    )
    user = data["findUserByID"]
    assert (user["name"], user["age"], user["address"]) == ("Ann", 30, None)
    assert [post["title"] for post in user["posts"]["data"]] == ["one", "two"]
    assert [tag["name"] for tag in user["posts"]["data"][0]["tags"]["data"]] == ["py", "db"]
    assert user["posts"]["data"][1] == {"title": "two", "author": {"name": "Ann"}, "tags": {"data": []}}
    assert data["findUserByEmail"] == {"name": "Bob", "posts": {"data": []}}
    assert data["findTagByName"]["posts"]["data"] == [{"title": "one"}]
    assert [post["title"] for post in data["listPost"]["data"]] == ["two", "one"]
    assert data["listPost"]["data"][0]["views"] == 9007199254740993
    assert (data["listPost"]["after"], data["nobody"]) == (None, None)


async def test_update_partial_update_and_delete(blog: Face) -> None:
    ids = await make_blog(blog)
    data = await blog.ask(
        """mutation ($one: ID!, $two: ID!) {
          partialUpdatePost(id: $one, data: {views: 3, at: null}) { title views at _version author { name } }
          updatePost(id: $two, data: {title: "zwei", status: LIVE}) { title views status author { name } }
        }""",
        {"one": ids["one"], "two": ids["two"]},
    )
    assert data["partialUpdatePost"] == {"title": "one", "views": 3, "at": None, "_version": 2, "author": {"name": "Ann"}}
    assert data["updatePost"] == {"title": "zwei", "views": None, "status": "LIVE", "author": {"name": "Ann"}}
    stale = await blog.errors(
        "mutation ($id: ID!) { partialUpdatePost(id: $id, data: {views: 4}, version: 1) { id } }", {"id": ids["one"]}
    )
    assert (stale[0]["extensions"]["code"], stale[0]["path"]) == ("conflict", ["partialUpdatePost"])
    gone = await blog.ask("mutation ($id: ID!) { deletePost(id: $id) { title tags { data { name } } } }", {"id": ids["one"]})
    assert gone["deletePost"] == {"title": "one", "tags": {"data": [{"name": "py"}, {"name": "db"}]}}
    again = await blog.ask("mutation ($id: ID!) { deletePost(id: $id) { title } }", {"id": ids["one"]})
    assert again["deletePost"] is None


async def test_all_mutations_of_an_operation_are_one_transaction(blog: Face) -> None:
    ids = await make_blog(blog)
    answer = (
        await blog.send(
            """mutation { first: createTag(data: {name: "new"}) { id }  second: createTag(data: {name: "py"}) { id } }"""
        )
    ).json()
    assert answer["data"] is None
    assert answer["errors"][0]["path"] == ["second"]
    assert answer["errors"][0]["extensions"]["code"] == "conflict"
    assert (await blog.ask('{ findTagByName(name: "new") { id } }'))["findTagByName"] is None
    missing = await blog.errors('mutation { createPost(data: {title: "t", status: LIVE}) { id } }')
    assert "author" in missing[0]["message"]
    broken = await blog.errors(
        'mutation ($u: ID!) { partialUpdateUser(id: $u, data: {name: "X", posts: {create: [{title: "c", status: LIVE, '
        'author: {connect: "zz"}}]}}) { id } }',
        {"u": ids["ann"]},
    )
    assert "leave it out" in broken[0]["message"]
    assert (await blog.ask("query ($u: ID!) { findUserByID(id: $u) { name } }", {"u": ids["ann"]}))["findUserByID"][
        "name"
    ] == "Ann"


async def test_connect_and_disconnect(blog: Face) -> None:
    ids = await make_blog(blog)
    moved = await blog.ask(
        """mutation ($bob: ID!, $one: ID!) {
          partialUpdateUser(id: $bob, data: {posts: {connect: [$one]}}) { posts { data { title author { name } } } }
          createTag(data: {name: "x", posts: {connect: [$one]}}) { posts { data { title tags { data { name } } } } }
        }""",
        {"bob": ids["bob"], "one": ids["one"]},
    )
    assert moved["partialUpdateUser"]["posts"]["data"] == [{"title": "one", "author": {"name": "Bob"}}]
    assert moved["createTag"]["posts"]["data"][0]["tags"]["data"] == [{"name": "py"}, {"name": "db"}, {"name": "x"}]
    required = await blog.errors(
        "mutation ($bob: ID!, $one: ID!) { partialUpdateUser(id: $bob, data: {posts: {disconnect: [$one]}}) { id } }",
        {"bob": ids["bob"], "one": ids["one"]},
    )
    assert "author" in required[0]["message"]
    one = await blog.ask(
        """mutation ($ann: ID!) { partialUpdateUser(id: $ann, data: {profile: {create: {bio: "hi"}}}) { profile { bio owner { name } } } }""",
        {"ann": ids["ann"]},
    )
    assert one["partialUpdateUser"]["profile"] == {"bio": "hi", "owner": {"name": "Ann"}}
    second = await blog.errors(
        """mutation ($ann: ID!) { createProfile(data: {owner: {connect: $ann}}) { id } }""", {"ann": ids["ann"]}
    )
    assert second[0]["extensions"]["code"] == "conflict"


async def test_pages_go_forward_and_back(blog: Face) -> None:
    await blog.ask(
        "mutation { " + " ".join(f't{n}: createTag(id: "t{n}", data: {{name: "n{n}"}}) {{ id }}' for n in range(9)) + " }"
    )
    query = """query ($after: String, $before: String) {
      listTag(size: 4, after: $after, before: $before) { data { id } after before } }"""
    first = (await blog.ask(query))["listTag"]
    assert ([tag["id"] for tag in first["data"]], first["before"]) == (["t0", "t1", "t2", "t3"], None)
    second = (await blog.ask(query, {"after": first["after"]}))["listTag"]
    third = (await blog.ask(query, {"after": second["after"]}))["listTag"]
    assert ([tag["id"] for tag in third["data"]], third["after"]) == (["t8"], None)
    back = (await blog.ask(query, {"before": third["before"]}))["listTag"]
    assert [tag["id"] for tag in back["data"]] == ["t4", "t5", "t6", "t7"]
    start = (await blog.ask(query, {"before": back["before"]}))["listTag"]
    assert ([tag["id"] for tag in start["data"]], start["before"]) == (["t0", "t1", "t2", "t3"], None)
    ordered = """query ($after: String, $before: String) {
      listTag(size: 4, sort: [name_DESC], after: $after, before: $before) { data { id } after before } }"""
    first = (await blog.ask(ordered))["listTag"]
    second = (await blog.ask(ordered, {"after": first["after"]}))["listTag"]
    assert [tag["id"] for tag in second["data"]] == ["t4", "t3", "t2", "t1"]
    again = (await blog.ask(ordered, {"before": second["before"]}))["listTag"]
    assert again["data"] == first["data"]
    forged = await blog.errors(query, {"after": first["after"]})  # of another list
    assert "cursor" in forged[0]["message"]


async def test_lists_by_index_and_filters(blog: Face) -> None:
    ids = await make_blog(blog)
    data = await blog.ask(
        """query ($ann: ID!) {
          listPostByStatus(status: {eq: LIVE}) { data { title } }
          since: listPostByStatus(status: {eq: DRAFT}, at: {gte: "2026-11-21T01:00:00Z"}) { data { title } }
          word: listPostByWord(words: {eq: "x"}) { data { title } }
          postsOf(author: $ann, reverse: true) { data { title } }
          a: listPost(filter: {or: [{title: {prefix: "tw"}}, {status: {in: [GONE]}}]}) { data { title } }
          b: listPost(filter: {not: {views: {exists: true}}}) { data { title } }
          c: listPost(filter: {views: {gt: 9007199254740992}}) { data { title } }
          d: listPost(filter: {at: {lt: "2026-11-21T01:00:00.000001Z"}, status: {ne: LIVE}}) { data { title } }
          e: listPost(filter: {author: {eq: $ann}, views: {eq: null}}) { data { title } }
        }""",
        {"ann": ids["ann"]},
    )
    titles = {key: [post["title"] for post in page["data"]] for key, page in data.items()}
    assert titles == {
        "listPostByStatus": ["one"], "since": ["two"], "word": [], "postsOf": ["two", "one"], "a": ["two"], "b": ["one"],
        "c": ["two"], "d": ["two"], "e": ["one"],
    }  # fmt: skip
    wrong = await blog.errors('{ listPostByStatus(at: {eq: "2026-11-21T01:00:00Z"}) { data { id } } }')
    assert "can only be given after status" in wrong[0]["message"]
