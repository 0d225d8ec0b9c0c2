"""A GraphQL schema in an app's folder, end to end: deployed with it, answered over sockets, asked from inside a sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from martlet.config import Settings
from martlet.errors import DeployFailed
from martlet.server import Server

SCHEMA = """
type List { title: String! @unique  todos: [Todo!] @relation(onDelete: CASCADE) }
type Todo @index(name: "open", fields: ["done", "title"]) {
  title: String!
  done: Boolean! @default(value: false)
  list: List!
  loud: String @resolver(function: "loud")
}
type Query { first: Todo @resolver(function: "first") }
"""
APP = """
import json
from martlet import App, Collection
from martlet.sdk import client

app = App("todo")
todos = Collection("Todo")
HEADERS = {"content-type": "application/json"}

@app.function(uses=[])
def loud(event, context):
    return [source["title"].upper() + "!" for source in event["sources"]]

@app.function(uses=[todos])
def first(event, context):
    body = json.dumps({"query": "{ listTodo(size: 1) { data { id title } } }"}).encode()
    answer = client.call("POST", "/v1/graphql", headers=HEADERS, body=body, timeout_seconds=5)
    return json.loads(answer.body)["data"]["listTodo"]["data"][0]["id"]

@app.function(uses=[todos])
def curious(event, context):
    body = json.dumps({"query": "{ listList { data { title } } }"}).encode()
    answer = client.call("POST", "/v1/graphql", headers=HEADERS, body=body, timeout_seconds=5)
    return [answer.status, json.loads(answer.body)["errors"][0]["extensions"]["code"]]
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True, stem_cells=1))
    await made.start()
    yield made
    await made.stop()


def write(folder: Path, schema: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(APP)
    (folder / "schema.graphql").write_text(schema)
    return folder


async def test_a_schema_is_deployed_with_its_app(server: Server, tmp_path: Path) -> None:
    source = write(tmp_path / "todo", SCHEMA)
    dry = await server.apps.deploy(source, "todo", dry_run=True)
    assert any("add Todo" in step.text() for step in dry.steps)
    assert server.documents.collection("todo", "Todo") is None
    await server.apps.deploy(source, "todo")
    assert (await server.apps.deploy(source, "todo")).steps == ()
    token = json.loads((server.data / "credentials.json").read_text())["token"]
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.api_port}", headers={"authorization": f"Bearer {token}"}
    ) as http:

        async def ask(query: str) -> dict[str, Any]:
            return dict((await http.post("/v1/graphql?app=todo", json={"query": query})).json())

        made = await ask(
            'mutation { createList(data: {title: "home", todos: {create: [{title: "wash"}, {title: "cook"}]}}) { title todos { data { title done } } } }'
        )
        assert [todo["title"] for todo in made["data"]["createList"]["todos"]["data"]] == ["wash", "cook"]
        found = await ask("{ listTodoByOpen(done: {eq: false}) { data { title loud list { title } } } first { title loud } }")
        assert found["data"]["listTodoByOpen"]["data"][0] == {"title": "cook", "loud": "COOK!", "list": {"title": "home"}}
        assert found["data"]["first"] == {"title": "wash", "loud": "WASH!"}
        async with http.stream(
            "POST",
            "/v1/graphql?app=todo",
            json={"query": "subscription { todoChanged { operation document { title } } }"},
            headers={"accept": "text/event-stream"},
        ) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == ":"
            changed = asyncio.create_task(
                ask('mutation { createList(data: {title: "work", todos: {create: [{title: "rest"}]}}) { id } }')
            )
            async with asyncio.timeout(10):
                told = [line async for line in _first(lines, 2)]
            await changed
        assert told[0] == "event: next"
        assert json.loads(told[1].removeprefix("data: "))["data"]["todoChanged"] == {
            "operation": "PUT",
            "document": {"title": "rest"},
        }
    _, outcome = await server.functions.invoke("todo-curious", b"{}")
    assert json.loads(outcome.payload) == [403, "access_denied"]


async def _first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line and line != ":":
            yield line
            count -= 1
            if not count:
                return


async def test_what_a_schema_takes_away_is_not_deployed(server: Server, tmp_path: Path) -> None:
    source = write(tmp_path / "todo", SCHEMA)
    await server.apps.deploy(source, "todo")
    revision = server.apps.get("todo").revision
    write(source, SCHEMA.replace("title: String! @unique", "title: String!"))
    with pytest.raises(DeployFailed, match=r"List\.unique_title"):
        await server.apps.deploy(source, "todo")
    write(source, "type Broken {")
    with pytest.raises(DeployFailed, match="malformed"):
        await server.apps.deploy(source, "todo")
    (source / "schema.graphql").unlink()
    with pytest.raises(DeployFailed, match="the type goes"):
        await server.apps.deploy(source, "todo")
    assert server.apps.get("todo").revision == revision
    write(source, SCHEMA + "\ntype Note { text: String }")
    await server.apps.deploy(source, "todo")
    assert server.documents.collection("todo", "Note") is not None


async def test_a_schema_outlives_a_restart(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True, stem_cells=1)
    first = Server(settings)
    await first.start()
    await first.apps.deploy(write(tmp_path / "todo", SCHEMA), "todo")
    await first.stop()
    again = Server(settings)
    await again.start()
    try:
        token = json.loads((again.data / "credentials.json").read_text())["token"]
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{again.api_port}", headers={"authorization": f"Bearer {token}"}
        ) as http:
            answer = await http.post("/v1/databases/todo/graphql", json={"query": "{ listTodo { data { title } } }"})
            assert answer.json()["data"] == {"listTodo": {"data": []}}
            schema = (await http.get("/v1/databases/todo/graphql/schema")).json()
            assert schema["sources"] == {"app": SCHEMA}
    finally:
        await again.stop()
