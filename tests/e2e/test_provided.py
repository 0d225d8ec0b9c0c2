"""Custom runtimes in real sandboxes: what a `bootstrap` may do wrong, and that the platform comes to no harm."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.runtimes_room import Room, open_room

from martlet.errors import DeployFailed
from martlet.types import Invocation

pytestmark = pytest.mark.e2e

BOOTSTRAP = r"""#!/usr/bin/python3
import http.client, json, os, socket, sys, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={}):
    api.request(method, path, body, headers)
    answer = api.getresponse()
    return answer.status, answer.headers, answer.read()
BASE = "/2018-06-01/runtime/"
count = 0
while True:
    _, headers, event = call("GET", BASE + "invocation/next")
    id = headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.loads(event)
    count += 1
    print("event", event, flush=True)
    respond = lambda value, id=id: call("POST", f"{BASE}invocation/{id}/response", json.dumps(value))
    if event == "environment": respond(dict(os.environ))
    elif event == "headers": respond(dict(headers))
    elif event == "exit": sys.exit(3)
    elif event == "leave": sys.exit(0)
    elif event == "hang": time.sleep(60)
    elif event == "memory":
        hoard = [bytes([n % 255 + 1]) * (1 << 20) for n in range(1000)]
    elif event == "wrong id": respond([call("POST", f"{BASE}invocation/another/response", "1")[0]])
    elif event == "twice":
        respond(1); print("again", respond(2)[0], flush=True)
    elif event == "answer then exit": respond("answered"); os._exit(1)
    elif event == "answer then hang": respond("answered"); time.sleep(60)
    elif event == "large": print(respond("x" * 7_000_000)[0], flush=True)
    elif event == "error":
        call("POST", f"{BASE}invocation/{id}/error", json.dumps({"errorType": "Mine", "errorMessage": "no", "more": [1]}))
    elif event == "flood":
        while True: call("GET", BASE + "nothing")
    elif event == "stream for ever":
        api.putrequest("POST", f"{BASE}invocation/{id}/response")
        api.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
        api.putheader("Transfer-Encoding", "chunked"); api.endheaders()
        while True: api.send(b"1\r\nx\r\n"); time.sleep(0.001)
    elif event == "platform": respond(call("GET", "/v1/status")[2].decode())
    elif event == "tmp":
        open("/tmp/x", "w").write("x"); respond(sorted(os.listdir("/tmp")))
    else: respond({"event": event, "count": count, "opt": os.path.exists("/opt/tool") and open("/opt/tool").read()})
"""


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path) as found:
        yield found


async def publish(room: Room, bootstrap: str | bytes = BOOTSTRAP, **config: object) -> None:
    await room.publish({"bootstrap": bootstrap}, "provided.al2023", **{"timeout_seconds": 2.0, **config})


async def test_events_state_and_log(room: Room) -> None:
    await publish(room)
    answer, outcome, log = await room.invoke({"a": 1})
    assert (answer, outcome.error) == ({"event": {"a": 1}, "count": 1, "opt": False}, "")
    assert "event {'a': 1}" in log
    assert (await room.invoke(2))[0]["count"] == 2


async def test_environment_is_lambdas(room: Room) -> None:
    await publish(room, environment={"MINE": "1", "_HANDLER": "evil", "TZ": "Europe/Berlin", "AWS_LAMBDA_RUNTIME_API": "evil"})
    found, _, _ = await room.invoke("environment")
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", found.pop("AWS_LAMBDA_LOG_STREAM_NAME"))
    expected = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9001",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "app-f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/app-f",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "AWS_REGION": "us-east-1",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LANG": "en_US.UTF-8",
        "MINE": "1",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "TZ": "Europe/Berlin",
        "_HANDLER": "app.handler",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "AWS_EXECUTION_ENV" not in found  # absent for provided.*
    assert not [name for name in found if name.startswith("MARTLET")]


async def test_headers_of_an_event(room: Room) -> None:
    await publish(room)
    found, outcome, _ = await room.invoke("headers", trace_id="Root=1-2-3", client_context='{"custom":{"k":"v"}}')
    assert outcome.error == ""
    assert found["Lambda-Runtime-Trace-Id"] == "Root=1-2-3"
    assert found["Lambda-Runtime-Client-Context"] == '{"custom":{"k":"v"}}'
    assert found["Lambda-Runtime-Invoked-Function-Arn"].endswith(":function:app-f")


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ("exit", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("leave", "Runtime.ExitError", "Runtime exited without providing a reason"),
        ("hang", "Sandbox.Timedout", "Task timed out after 2.00 seconds"),
        ("memory", "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
        (
            "large",
            "Function.ResponseSizeTooLarge",
            "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        ),
        ("stream for ever", "Sandbox.Timedout", "Task timed out after 2.00 seconds"),
        ("flood", "Sandbox.Failure", "refused requests to the Runtime API"),
    ],
)
async def test_what_a_bootstrap_may_do_wrong(room: Room, event: str, kind: str, message: str) -> None:
    await publish(room)
    answer, outcome, _ = await room.invoke(event)
    assert (outcome.error, answer["errorType"]) == ("Unhandled", kind)
    assert message in answer["errorMessage"]
    assert (await room.invoke("well"))[0]["event"] == "well"


async def test_wrong_ids_and_second_answers_change_nothing(room: Room) -> None:
    await publish(room)
    assert (await room.invoke("wrong id"))[0] == [400]
    assert (await room.invoke("twice"))[0] == 1
    answer, _, log = await room.invoke("well")
    assert answer["count"] == 3
    assert "again 403" in log


async def test_an_error_object_reaches_the_caller_as_it_is(room: Room) -> None:
    await publish(room)
    answer, outcome, _ = await room.invoke("error")
    assert (answer, outcome.error_type) == ({"errorType": "Mine", "errorMessage": "no", "more": [1]}, "Mine")


async def test_what_exits_after_its_answer_takes_no_event_with_it(room: Room) -> None:
    await publish(room)
    for _ in range(5):
        assert (await room.invoke("answer then exit"))[0] == "answered"
        assert (await room.invoke("well"))[0]["event"] == "well"


async def test_what_hangs_after_its_answer_is_ended(room: Room) -> None:
    await publish(room)
    assert (await room.invoke("answer then hang"))[0] == "answered"
    assert (await room.invoke("well"))[0] == {"event": "well", "count": 1, "opt": False}
    for _ in range(400):
        if room.functions.status()["instances"] == 1:
            break
        await asyncio.sleep(0.01)
    assert room.functions.status()["instances"] == 1


async def test_other_paths_reach_the_platform(room: Room) -> None:
    await publish(room)
    assert json.loads((await room.invoke("platform"))[0]) == {"version": "test"}
    assert room.private[0].startswith(b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n")
    assert (await room.invoke("well"))[1].error == ""


async def test_many_at_one_time_get_an_instance_each(room: Room) -> None:
    await publish(room)
    answers = await asyncio.gather(*(room.invoke(number) for number in range(20)))
    assert sorted(answer["event"] for answer, _, _ in answers) == list(range(20))


async def test_a_streamed_answer_is_passed_on_as_it_comes(room: Room) -> None:
    await publish(room)
    heads: list[bytes] = []
    chunks: list[bytes] = []
    done = asyncio.get_running_loop().create_future()
    invocation = Invocation(
        "app-f",
        b'"stream for ever"',
        "r-1",
        lambda _, outcome: done.set_result(outcome),
        on_head=heads.append,
        on_chunk=chunks.append,
    )
    room.functions.dispatch(invocation)
    outcome = await done
    assert heads == [b"{}"]
    assert len(b"".join(chunks)) > 10
    assert outcome.error_type == "Sandbox.Timedout"


async def test_layers_are_merged_at_opt(room: Room) -> None:
    first = room.store({"tool": "first", "bootstrap": BOOTSTRAP}, "layers-lambda")
    second = room.store({"tool": "second", "lib/x": "x"}, "layers-lambda")
    await room.publish({"x": "no bootstrap here"}, "provided.al2023", layers=(first, second))
    assert (await room.invoke(1))[0]["opt"] == "second"
    await room.publish({"x": "no bootstrap here"}, "provided.al2023", layers=(second, first))
    assert (await room.invoke(1))[0]["opt"] == "first"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"other": "x"}, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        ({"bootstrap": "not executable"}, "fork/exec /var/task/bootstrap: permission denied"),
        ({"bootstrap": b"\x7fELF nonsense"}, "fork/exec /var/task/bootstrap: exec format error"),
        ({"bootstrap": "#!/bin/sh\nexit 7\n"}, "exit status 7"),
        ({"bootstrap": "#!/no/such/shell\n"}, "no such file or directory"),
    ],
)
async def test_a_bootstrap_that_cannot_run_fails_the_deployment(room: Room, files: dict[str, str | bytes], text: str) -> None:
    with pytest.raises(DeployFailed) as failure:
        await room.publish(files, "provided.al2")  # type: ignore[arg-type]
    assert text in failure.value.message


async def test_runtimes_that_are_not_here(room: Room) -> None:
    for runtime, text in [
        ("nodejs99.x", "there is no runtime 'nodejs99.x'"),
        ("ruby3.3", "brings no Ruby runtime"),
        ("nodejs18.x", "Node.js 18 is not installed on this host"),
    ]:
        with pytest.raises(DeployFailed) as failure:
            await room.publish({"bootstrap": BOOTSTRAP}, runtime)
        assert text in failure.value.message
        assert failure.value.remedy


async def test_several_events_at_one_time_are_refused_at_deploy(room: Room) -> None:
    with pytest.raises(DeployFailed, match="one event at a time"):
        await publish(room, concurrency=2)


async def test_the_old_version_serves_on_when_a_new_one_fails(room: Room) -> None:
    await publish(room)
    with pytest.raises(DeployFailed):
        await publish(room, "#!/bin/sh\nexit 1\n")
    assert (await room.invoke(1))[0]["event"] == 1
