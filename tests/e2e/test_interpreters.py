"""Interpreters other than the platform's own: Node.js 22 and 24, another Python; installed as the command installs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.runtimes_room import Room, open_room
from tests.e2e.clients import builds
from tests.e2e.driving import Command

from martlet.errors import DeployFailed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]  # the first run downloads them

PYTHON = """
import os, sys
import snapshot_restore_py
said = []
snapshot_restore_py.register_before_snapshot(said.append, "before 1")
snapshot_restore_py.register_before_snapshot(said.append, "before 2")
@snapshot_restore_py.register_after_restore
def after():
    said.append("after")
def handler(event, context):
    print("asked for", event)
    if event == "fail":
        raise ValueError("no good")
    return {"version": list(sys.version_info[:2]), "event": event, "said": said, "name": os.environ["AWS_EXECUTION_ENV"]}
def leave(event, context):
    sys.exit(3)
"""


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    folder = await asyncio.to_thread(builds.interpreters)
    (tmp_path / "runtimes").symlink_to(folder)
    async with open_room(tmp_path) as found:
        yield found


@pytest.mark.parametrize(("runtime", "version"), [("python3.13", [3, 13]), ("python3.11", [3, 11])])
async def test_python(room: Room, runtime: str, version: list[int]) -> None:
    layer = room.store({"python/own.py": "x = 1", "python/lib/python3.13/site-packages/deep.py": "y = 2"}, "layers-lambda")
    await room.publish({"app.py": PYTHON}, runtime, layers=(layer,))
    answer, outcome, log = await room.invoke({"a": 1})
    assert outcome.error == "", answer
    assert answer == {"version": version, "event": {"a": 1}, "said": [], "name": f"AWS_Lambda_{runtime}"}
    assert "asked for {'a': 1}" in log
    answer, _, _ = await room.invoke("fail")
    assert (answer["errorType"], answer["stackTrace"][0].split(",")[0]) == ("ValueError", '  File "/var/task/app.py"')
    await room.publish({"app.py": "import own\ndef handler(event, context):\n    return own.x"}, runtime, layers=(layer,))
    assert (await room.invoke())[0] == 1


async def test_layers_of_one_python_version(room: Room) -> None:
    layer = room.store({"python/lib/python3.13/site-packages/deep.py": "y = 2"}, "layers-lambda")
    await room.publish(
        {"app.py": "import deep\ndef handler(event, context):\n    return deep.y"}, "python3.13", layers=(layer,)
    )
    assert (await room.invoke())[0] == 2


@pytest.mark.parametrize("runtime", ["python3.13", ""])
async def test_hooks_of_snapstart(room: Room, runtime: str) -> None:
    await room.publish({"app.py": PYTHON}, runtime, snap_start=True)
    answer, _, _ = await room.invoke(1)
    assert answer["said"] == ["before 2", "before 1", "after"]


@pytest.mark.parametrize(("hook", "kind"), [("before_snapshot", "BeforeSnapshotError"), ("after_restore", "AfterRestoreError")])
async def test_a_hook_that_fails_fails_the_deployment(room: Room, hook: str, kind: str) -> None:
    code = f"import snapshot_restore_py\n@snapshot_restore_py.register_{hook}\ndef hook(): raise ValueError('broken')\n"
    with pytest.raises(DeployFailed, match=rf"Runtime\.{kind}: broken"):
        await room.publish({"app.py": code + "def handler(event, context): pass"}, "", snap_start=True)


@pytest.mark.parametrize("version", ["22", "24"])
async def test_node(room: Room, version: str) -> None:
    code = "exports.handler = async (event) => ({ version: process.version, event, name: process.env.AWS_EXECUTION_ENV });"
    await room.publish({"app.js": code}, f"nodejs{version}.x")
    answer, _, _ = await room.invoke(1)
    assert answer.pop("version").startswith(f"v{version}.")
    assert answer == {"event": 1, "name": f"AWS_Lambda_nodejs{version}.x"}
    await room.publish({"app.mjs": "export const handler = async () => 'a module';"}, f"nodejs{version}.x")
    assert (await room.invoke())[0] == "a module"


def test_the_command_lists_and_refuses(martlet: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "runtimes").symlink_to(builds.interpreters())
    done = martlet("runtimes", "--json", data=tmp_path / "data")
    rows = {row["runtime"]: row for row in json.loads(done.out)}
    assert rows["nodejs22.x"]["program"].endswith("/bin/node")
    assert rows["provided.al2023"]["program"] == "bootstrap"
    assert rows["ruby3.3"]["missing"]
    done = martlet("runtimes", "install", "ruby3.3", data=tmp_path / "data")
    assert (done.code, "is not a runtime that can be installed" in done.err) == (1, True)
