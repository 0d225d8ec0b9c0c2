"""npm's graphql-ws, unmodified, against the platform."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.clients import builds

from martlet.config import Settings
from martlet.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # npm may have to fetch it first


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(Settings(data=str(tmp_path / "data"), port=0, api_port=0, sandbox="process", quiet=True, stem_cells=1))
    await made.start()
    yield made
    await made.stop()


async def test_graphql_ws_subscribes_asks_and_is_refused(server: Server, tmp_path: Path) -> None:
    folder = await asyncio.to_thread(builds.graphql_ws)
    token = json.loads((server.data / "credentials.json").read_text())["token"]
    base = f"127.0.0.1:{server.api_port}"
    async with httpx.AsyncClient(base_url=f"http://{base}", headers={"authorization": f"Bearer {token}"}) as http:
        made = await http.put("/v1/databases/shop/graphql/schema", content="type Tag { name: String! }")
        assert made.status_code == 200, made.text
        feed = await http.get("/v1/collections/Tag/changes?app=shop")
        cursor = feed.json()["cursor"]
    script = folder / "client.mjs"
    source = builds.SOURCES / "graphql-ws" / "client.mjs"
    if script.read_text() != source.read_text():  # the packages are kept, the script is the repository's
        await asyncio.to_thread(shutil.copy2, source, script)
    node = shutil.which("node")
    assert node
    url = f"ws://{base}/v1/graphql?app=shop"
    run = await asyncio.create_subprocess_exec(
        node, str(script), url, token, cursor, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(run.communicate(), 120)
    told = [json.loads(line) for line in out.decode().splitlines()]
    assert run.returncode == 0, err.decode()
    assert ["change", {"tagChanged": {"operation": "PUT", "document": {"name": "red"}}}] in told
    assert ["change", {"tagChanged": {"operation": "PUT", "document": {"name": "blue"}}}] in told
    assert ["mutation", {"createTag": {"name": "red"}}] in told
    assert ["alive", True] in told
    names = next(value for what, value in told if what == "query")["listTag"]["data"]
    assert sorted(one["name"] for one in names) == ["blue", "red"]
    assert "Cannot query field 'nope'" in next(value for what, value in told if what == "error")
    assert [value for what, value in told if what == "refused"] == [4403]
    assert [value for what, value in told if what == "closed"] == [1000, 4403]
