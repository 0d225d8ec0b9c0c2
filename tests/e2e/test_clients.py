"""The official runtime clients, unmodified, each in a real function that was built with it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.runtimes_room import Room, open_room
from tests.e2e.clients import builds

from martlet.types import Invocation, Outcome

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # the first build of a client takes minutes


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path) as found:
        yield found


async def publish(room: Room, build: Callable[[], Path], handler: str = "app.handler", **config: Any) -> None:
    """The built folder as a function; the build itself runs beside the event loop."""
    source = await asyncio.to_thread(build)
    target = room.data / "code" / source.name
    if not target.exists():
        await asyncio.to_thread(shutil.copytree, source, target, symlinks=True, copy_function=_link)
    await room.publish(source.name, "provided.al2023", handler, **{"timeout_seconds": 10.0, **config})


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


async def test_python_awslambdaric(room: Room) -> None:
    await publish(room, builds.python)
    answer, outcome, log = await room.invoke({"a": "ä"})
    assert outcome.error == "", answer
    assert (answer["event"], answer["version"]) == ({"a": "ä"}, [3, 11])
    assert answer["arn"].endswith(":function:app-f")
    assert "[WARNING]" in log
    assert answer["id"] in log
    assert "printed" in log
    answer, _, _ = await room.invoke("fail")
    assert (answer["errorType"], answer["errorMessage"]) == ("ValueError", "no good")
    assert 'File "/var/task/app.py"' in answer["stackTrace"][0]
    assert (await room.invoke("exit"))[0]["errorMessage"].endswith("exit status 3")
    assert (await room.invoke("large"))[0]["errorType"] == "Function.ResponseSizeTooLarge"
    for number in range(20):  # it ends after 413; nobody else's event goes with it
        assert (await room.invoke(number))[0]["event"] == number


async def test_python_awslambdaric_cannot_import(room: Room) -> None:
    with pytest.raises(Exception, match=r"Runtime\.ImportModuleError: Unable to import module 'nothing'"):
        await publish(room, builds.python, "nothing.handler")


async def test_node_aws_lambda_ric(room: Room) -> None:
    await publish(room, builds.node, memory_mb=512)
    answer, outcome, log = await room.invoke({"a": 1})
    assert (outcome.error, answer["event"]) == ("", {"a": 1})
    assert f"{answer['id']}\tINFO\tasked for" in log
    answer, _, _ = await room.invoke("fail")
    assert (answer["errorType"], answer["trace"][0]) == ("TypeError", "TypeError: no good")
    assert (await room.invoke("lost"))[0]["errorType"] == "Runtime.UnhandledPromiseRejection"
    assert (await room.invoke(1))[0]["event"] == 1


async def streamed(room: Room, event: Any) -> tuple[list[bytes], bytes, Outcome]:
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    heads: list[bytes] = []
    chunks: list[bytes] = []
    room.functions.dispatch(
        Invocation(
            "app-f",
            json.dumps(event).encode(),
            "11111111-2222-4333-8444-555555555555",
            lambda _, outcome: done.set_result(outcome),
            on_head=heads.append,
            on_chunk=chunks.append,
        )
    )
    outcome = await done
    return heads, b"".join(chunks), outcome


async def test_node_aws_lambda_ric_streams(room: Room) -> None:
    await publish(room, builds.node, "app.stream", memory_mb=512)
    heads, body, outcome = await streamed(room, 1)
    assert (json.loads(heads[0]), body, outcome.error) == ({"statusCode": 201, "headers": {"a": "b"}}, b"one two", "")
    heads, body, outcome = await streamed(room, "fail")
    assert (body, json.loads(outcome.payload)["errorMessage"]) == (b"one ", "half-way")
    heads, body, outcome = await streamed(room, "destroy")
    assert (body, outcome.error) == (b"one ", "Unhandled")
    assert (await streamed(room, 2))[1] == b"one two"


async def test_go_aws_lambda_go(room: Room) -> None:
    await publish(room, builds.go)
    answer, outcome, log = await room.invoke({"a": 1})
    assert (outcome.error, answer["event"]) == ("", {"a": 1})
    assert "asked for map[a:1]" in log
    answer, _, _ = await room.invoke("fail")
    assert (answer["errorType"], answer["errorMessage"]) == ("errorString", "no good")
    answer, outcome, _ = await room.invoke("panic")
    assert answer["errorMessage"] == "all is lost"
    assert isinstance(answer["stackTrace"][0], dict)
    assert (await room.invoke("exit"))[0]["errorMessage"].endswith("exit status 3")
    assert (await room.invoke(1))[0]["event"] == 1


async def test_rust_lambda_runtime(room: Room) -> None:
    await publish(room, builds.rust)
    answer, outcome, log = await room.invoke({"a": 1})
    assert (outcome.error, answer["event"]) == ("", {"a": 1})
    assert 'asked for {"a":1}' in log
    answer, _, _ = await room.invoke("fail")
    assert answer["errorMessage"] == "no good"
    assert (await room.invoke("exit"))[0]["errorMessage"].endswith("exit status 3")
    assert (await room.invoke(1))[0]["event"] == 1


async def test_java_runtime_interface_client(room: Room) -> None:
    await publish(room, builds.java, "example.App::handleRequest", memory_mb=1024)
    answer, outcome, log = await room.invoke({"a": 1})
    assert (outcome.error, answer["event"]) == ("", {"a": 1})
    assert "asked for {a=1}" in log
    answer, _, _ = await room.invoke({"fail": True})
    assert (answer["errorType"], answer["errorMessage"]) == ("java.lang.IllegalStateException", "no good")
    assert isinstance(answer["stackTrace"], list)
