"""Every sandbox host runs the same handlers with the same results: what an adapter must do to be one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from martlet.clock import Clock
from martlet.errors import DeployFailed, NotFound, Throttled
from martlet.functions import Functions
from martlet.functions.logs import LogStore
from martlet.functions.sandboxes.isolated import IsolatedHost
from martlet.functions.sandboxes.process import ProcessHost
from martlet.store import Store
from martlet.telemetry import Registry
from martlet.types import FunctionConfig, Invocation, Outcome

CODE = """
import asyncio, os, sys, time
count = 0
def echo(event, context):
    print("echo", event)
    return event
def counter(event, context):
    global count
    count += 1
    return count
def fail(event, context):
    raise ValueError("no good")
def leave(event, context):
    os._exit(3)
def leave_quietly(event, context):
    sys.exit(0)
def sleep(event, context):
    time.sleep(event["seconds"])
    return "slept"
def unspeakable(event, context):
    return {1, 2}
def big(event, context):
    return "x" * event["size"]
def where(event, context):
    return {"cwd": os.getcwd(), "env": dict(os.environ), "remaining": context.get_remaining_time_in_millis(),
            "name": context.function_name, "memory": context.memory_limit_in_mb, "id": context.aws_request_id}
async def overlap(event, context):
    global count
    count += 1
    here = count
    while count < event["until"]:
        await asyncio.sleep(0.01)
    return here
class Stream:
    __martlet_stream__ = True
    head = {"statusCode": 201, "headers": {"x": "y"}}
    def __iter__(self):
        yield b"one "
        yield b"two"
def stream(event, context):
    return Stream()
class Broken(Stream):
    def __iter__(self):
        yield b"one"
        raise RuntimeError("half-way")
def broken_stream(event, context):
    return Broken()
not_callable = 5
"""


class NoLedger:
    def record(self, invocation: Invocation, outcome: Outcome) -> None: ...

    def record_egress(self, function: str, version: int, bytes_out: int, bytes_in: int) -> None: ...


Publish = Callable[..., Awaitable[str]]


@pytest.fixture(params=[IsolatedHost, ProcessHost], ids=["isolated", "process"])
async def functions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Functions]:
    (tmp_path / "code" / "c").mkdir(parents=True)
    (tmp_path / "code" / "c" / "handlers.py").write_text(CODE)
    (tmp_path / "code" / "c" / "wrong.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "code" / "c" / "torn.py").write_text("def (\n")
    clock = Clock()
    store = await Store.open(tmp_path / "store", clock=clock, engine="martlet.store.engines.memory:open_engine")
    logs = LogStore(tmp_path / "logs", clock)
    host = request.param(f"{os.getpid()}t")
    room = Functions(
        store,
        host,
        data=tmp_path,
        clock=clock,
        logs=logs,
        ledger=NoLedger(),
        metrics=Registry(),
        serve_private=lambda sock, version: sock.close(),
    )
    await room.start()
    yield room
    await room.close()
    await logs.close()
    await store.close()


@pytest.fixture
def publish(functions: Functions) -> Publish:
    async def publish(handler: str, **config: Any) -> str:
        name = handler.rpartition(".")[2]
        wanted = FunctionConfig(name=name, handler=handler if "." in handler else f"handlers.{handler}", **config)
        version = await functions.publish("app", wanted, code="c", layer="", imports=())
        return version.name

    return publish


async def invoke(functions: Functions, name: str, event: Any = None) -> tuple[Invocation, Any, Outcome]:
    invocation, outcome = await functions.invoke(name, json.dumps(event).encode(), want_log_tail=True)
    return invocation, json.loads(outcome.payload) if outcome.payload else None, outcome


async def test_echo_and_its_log(functions: Functions, publish: Publish) -> None:
    name = await publish("echo")
    invocation, value, outcome = await invoke(functions, name, {"é": [1, None, "\u2028"]})
    assert (value, outcome.error) == ({"é": [1, None, "\u2028"]}, "")
    lines = invocation.log_tail.decode().split("\n")
    assert lines[0].startswith(f"START RequestId: {invocation.request_id} Version: $LATEST")
    assert lines[1].startswith("echo {")
    assert lines[2] == f"END RequestId: {invocation.request_id}"
    assert lines[3].startswith("REPORT RequestId:")
    assert "Init Duration:" in lines[3]
    again, _, _ = await invoke(functions, name, 1)
    assert (invocation.cold, again.cold) == (True, False)


async def test_globals_stay_in_a_warm_instance(functions: Functions, publish: Publish) -> None:
    name = await publish("counter")
    assert [(await invoke(functions, name))[1] for _ in range(3)] == [1, 2, 3]


async def test_error_objects(functions: Functions, publish: Publish) -> None:
    invocation, value, outcome = await invoke(functions, await publish("fail"))
    assert outcome.error == "Unhandled"
    assert (value["errorType"], value["errorMessage"]) == ("ValueError", "no good")
    assert value["requestId"] == invocation.request_id
    assert len(value["stackTrace"]) == 1
    assert "in fail" in value["stackTrace"][0]
    assert "[ERROR] ValueError: no good" in invocation.log_tail.decode()


async def test_a_value_that_is_no_json(functions: Functions, publish: Publish) -> None:
    _, value, outcome = await invoke(functions, await publish("unspeakable"))
    assert outcome.error_type == "Runtime.MarshalError"
    assert "not JSON serializable" in value["errorMessage"]


@pytest.mark.parametrize(
    ("handler", "message"),
    [("leave", "Runtime exited with error: exit status 3"), ("leave_quietly", "Runtime exited without providing a reason")],
)
async def test_a_runtime_that_leaves(functions: Functions, publish: Publish, handler: str, message: str) -> None:
    name = await publish(handler)
    for _ in range(2):  # and the next event finds a new instance
        invocation, value, _ = await invoke(functions, name)
        assert value == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {invocation.request_id} Error: {message}",
        }


async def test_timeout(functions: Functions, publish: Publish) -> None:
    name = await publish("sleep", timeout_seconds=0.3)
    invocation, value, outcome = await invoke(functions, name, {"seconds": 30})
    assert outcome.error_type == "Sandbox.Timedout"
    assert value["errorMessage"] == f"RequestId: {invocation.request_id} Error: Task timed out after 0.30 seconds"
    assert (await invoke(functions, name, {"seconds": 0}))[1] == "slept"


async def test_size_limits(functions: Functions, publish: Publish) -> None:
    name = await publish("big")
    whole = 6_291_556
    assert len((await invoke(functions, name, {"size": whole - 2}))[1]) == whole - 2
    _, value, outcome = await invoke(functions, name, {"size": whole - 1})
    assert outcome.error_type == "Function.ResponseSizeTooLarge"
    assert value["errorMessage"] == "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
    _, outcome = await functions.invoke(name, b"1" * 6_291_457)
    assert outcome.refusal is not None
    assert "payload_bytes is 6291456 bytes" in outcome.refusal.message


async def test_environment_and_context(functions: Functions, publish: Publish) -> None:
    name = await publish("where", memory_mb=128, environment={"COLOUR": "blue", "_SECRET": "dropped", "AWS_REGION": "mars"})
    invocation, value, _ = await invoke(functions, name)
    environment = value["env"]
    assert environment["COLOUR"] == "blue"
    assert "_SECRET" not in environment
    assert environment["AWS_REGION"] == "us-east-1"  # what the platform sets, a customer cannot
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == name
    assert not [key for key in environment if key.startswith("PYTEST")]
    assert value["cwd"] == environment["LAMBDA_TASK_ROOT"]
    assert (value["name"], value["memory"], value["id"]) == (name, "128", invocation.request_id)
    assert 0 < value["remaining"] <= 10_000


async def test_concurrent_events_in_one_instance(functions: Functions, publish: Publish) -> None:
    name = await publish("overlap", concurrency=4)
    found = await asyncio.gather(*(invoke(functions, name, {"until": 4}) for _ in range(4)))
    assert sorted(value for _, value, _ in found) == [1, 2, 3, 4]
    assert functions.status()["functions"][0]["instances"] == 1


async def test_more_concurrent_events_than_a_pipe_holds(functions: Functions, publish: Publish) -> None:
    name = await publish("overlap", concurrency=200)
    pads = [{"until": 150, "pad": "x" * (number * 97 % 5_000)} for number in range(150)]
    found = await asyncio.gather(*(invoke(functions, name, pad) for pad in pads))
    assert sorted(value for _, value, _ in found) == list(range(1, 151))


async def test_streamed_answers(functions: Functions, publish: Publish) -> None:
    name = await publish("stream")
    got: list[bytes] = []
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    invocation = Invocation(
        name, b"{}", "id", lambda _, outcome: done.set_result(outcome), on_head=got.append, on_chunk=got.append
    )
    functions.dispatch(invocation)
    assert (await done).error == ""
    assert json.loads(got[0]) == {"statusCode": 201, "headers": {"x": "y"}}
    assert b"".join(got[1:]) == b"one two"
    _, value, _ = await invoke(functions, name)  # a caller that takes no stream gets one response object
    assert (value["statusCode"], value["isBase64Encoded"], value["body"]) == (201, True, "b25lIHR3bw==")


async def test_a_stream_that_breaks(functions: Functions, publish: Publish) -> None:
    _, value, outcome = await invoke(functions, await publish("broken_stream"))
    assert (outcome.error_type, value["errorMessage"]) == ("RuntimeError", "half-way")


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        ("wrong.handler", "Runtime.ImportModuleError: Unable to import module 'wrong': No module named 'nothing_of_that_name'"),
        ("torn.handler", "Runtime.UserCodeSyntaxError: Syntax error in module 'torn'"),
        ("handlers.missing", "Runtime.HandlerNotFound: Handler 'missing' missing on module 'handlers'"),
        ("absent.handler", "Runtime.ImportModuleError: Unable to import module 'absent': No module named 'absent'"),
    ],
)
async def test_what_cannot_be_loaded_is_not_published(functions: Functions, publish: Publish, handler: str, text: str) -> None:
    with pytest.raises(DeployFailed) as caught:
        await publish(handler)
    assert text in caught.value.message
    assert functions.list() == []


async def test_reserved_concurrency(functions: Functions, publish: Publish) -> None:
    name = await publish("sleep", reserved=1)
    first = asyncio.ensure_future(invoke(functions, name, {"seconds": 0.5}))
    await asyncio.sleep(0)
    _, outcome = await functions.invoke(name, b"{}")
    assert isinstance(outcome.refusal, Throttled)
    assert (await first)[1] == "slept"


async def test_a_new_version_takes_over_and_a_removed_function_is_unknown(functions: Functions, publish: Publish) -> None:
    name = await publish("counter")
    assert (await invoke(functions, name))[1] == 1
    running = asyncio.ensure_future(invoke(functions, await publish("sleep"), {"seconds": 0.3}))
    await asyncio.sleep(0)
    await publish("counter", description="changed")
    await publish("sleep", description="changed")
    invocation, value, _ = await invoke(functions, name)
    assert (value, invocation.version) == (1, 2)
    old, value, _ = await running
    assert (value, old.version) == ("slept", 1)
    await functions.remove(name)
    _, outcome = await functions.invoke(name, b"{}")
    assert isinstance(outcome.refusal, NotFound)
