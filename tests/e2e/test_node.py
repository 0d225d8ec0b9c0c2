"""Node.js functions by our own bootstrap: Lambda's semantics, in processes that were started before they had a function."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.runtimes_room import Room, open_room
from tests.e2e.test_clients import streamed

from martlet.errors import DeployFailed

pytestmark = pytest.mark.e2e

APP = r"""
const fs = require('fs');
let count = 0;
exports.handler = async (event, context) => {
  console.log('asked for', event);
  switch (event) {
    case 'environment': return process.env;
    case 'fail': throw new TypeError('no\ngood');
    case 'text': throw 'just text';
    case 'nothing': return undefined;
    case 'circular': { const a = {}; a.a = a; return a; }
    case 'lost': Promise.reject(new Error('lost')); await new Promise((done) => setTimeout(done, 1000)); break;
    case 'uncaught': setTimeout(() => { throw new RangeError('uncaught'); }, 1); await new Promise((done) => setTimeout(done, 1000)); break;
    case 'exit': process.exit(5);
    case 'abort': process.abort();
    case 'spin': for (;;);
    case 'never': await new Promise(() => {}); break;
    case 'memory': { const hoard = []; for (;;) hoard.push(Buffer.alloc(1 << 20, 1)); }
    case 'heap': { const hoard = []; for (;;) hoard.push({ text: 'x'.repeat(100) + hoard.length }); }
    case 'raw': process.stdout.write('raw\n'); fs.writeSync(2, 'rawer\n'); break;
    case 'levels': console.debug('d'); console.info('i\ni'); console.warn('w'); console.error('e'); console.trace('t'); break;
    case 'context': return { ...context, left: context.getRemainingTimeInMillis(), waits: context.callbackWaitsForEmptyEventLoop };
    case 'where': return { cwd: process.cwd(), uid: process.getuid(), root: fs.readdirSync('/'), fds: fs.readdirSync('/proc/self/fd').length };
    case 'child': return require('child_process').execFileSync('/bin/sh', ['-c', 'echo $_HANDLER; id -u']).toString();
    case 'large': return 'x'.repeat(7000000);
  }
  return { count: ++count, event };
};
exports.callback = (event, context, callback) => {
  if (event === 'fail') return callback(new Error('by callback'));
  if (event === 'early') context.callbackWaitsForEmptyEventLoop = false;
  setTimeout(() => console.log('after the answer'), 100);
  callback(null, { event });
};
exports.silent = (event) => {};
exports.done = (event, context) => context.done(null, 'done');
exports.a = { b: { c: async () => 'nested' } };
exports.text = 'no function';
exports.stream = awslambda.streamifyResponse(async (event, out, context) => {
  if (event === 'early') throw new Error('before the first byte');
  if (event === 'plain') { out.setContentType('text/plain'); out.write('plain'); out.end(); return; }
  out = awslambda.HttpResponseStream.from(out, { statusCode: 201, headers: { a: 'b' } });
  out.write('one ');
  if (event === 'fail') throw new Error('half-way');
  if (event === 'destroy') { await new Promise((done) => setTimeout(done, 50)); out.destroy(new Error('destroyed')); return; }
  if (event === 'large') for (let n = 0; n < 200; n++) if (!out.write(Buffer.alloc(65536, 97))) await new Promise((go) => out.once('drain', go));
  await require('stream/promises').pipeline(require('stream').Readable.from(['two']), out);
});
"""
MODULE = """
import { readFileSync } from 'node:fs';
const waited = await new Promise((done) => setTimeout(() => done('waited'), 5));
export const handler = async (event) => ({ waited, event, own: typeof readFileSync });
export default { other: async () => 'by default' };
"""


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path) as found:
        yield found


async def publish(room: Room, handler: str = "app.handler", files: Any = None, **config: Any) -> None:
    settings = {"timeout_seconds": 2.0, "runtime": "nodejs20.x", "memory_mb": 128, **config}
    runtime = settings.pop("runtime")
    await room.publish(files or {"app.js": APP}, runtime, handler, **settings)


async def test_events_state_and_log(room: Room) -> None:
    await publish(room)
    answer, outcome, log = await room.invoke({"a": "ä€😀"})
    assert (answer, outcome.error) == ({"count": 1, "event": {"a": "ä€😀"}}, "")
    assert "\tINFO\tasked for { a: 'ä€😀' }" in log
    assert (await room.invoke(2))[0]["count"] == 2
    assert (await room.invoke("nothing"))[1].payload == b"null"


async def test_a_large_event(room: Room) -> None:
    await publish(room)
    answer, _, _ = await room.invoke({"a": "x" * 3_000_000})
    assert len(answer["event"]["a"]) == 3_000_000


async def test_environment(room: Room) -> None:
    await publish(room, environment={"MINE": "1", "TZ": "Europe/Berlin"})
    found, _, _ = await room.invoke("environment")
    expected = {
        "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs20.x",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_NAME": "app-f",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "LAMBDA_TASK_ROOT": "/var/task",
        "MINE": "1",
        "TZ": "Europe/Berlin",
        "_HANDLER": "app.handler",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not [name for name in found if name.startswith(("MARTLET", "WARM"))]


async def test_context(room: Room) -> None:
    await publish(room)
    found, _, _ = await room.invoke("context", client_context='{"custom":{"k":"v"}}')
    assert 0 < found.pop("left") <= 2000
    assert found["clientContext"] == {"custom": {"k": "v"}}
    assert found["invokedFunctionArn"].endswith(":function:app-f")
    assert (found["memoryLimitInMB"], found["functionName"], found["waits"]) == ("128", "app-f", True)


async def test_the_sandbox_is_as_strict_as_any(room: Room) -> None:
    await publish(room)
    found, _, _ = await room.invoke("where")
    assert found["cwd"] == "/var/task"
    assert found["uid"] >= 1000
    assert "home" not in found["root"]
    child, _, _ = await room.invoke("child")
    assert child.split() == ["app.handler", str(found["uid"])]


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ("fail", "TypeError", "no\ngood"),
        ("text", "string", "just text"),
        ("circular", "Error", "Unable to stringify response body"),
        ("lost", "Runtime.UnhandledPromiseRejection", "Error: lost"),
        ("uncaught", "RangeError", "uncaught"),
        ("exit", "Runtime.ExitError", "exit status 5"),
        ("abort", "Runtime.ExitError", "signal: aborted"),
        ("spin", "Sandbox.Timedout", "timed out after 2.00 seconds"),
        ("memory", "Runtime.OutOfMemory", "signal: killed"),
        ("heap", "Runtime.ExitError", "signal: aborted"),
        ("large", "Function.ResponseSizeTooLarge", "6291556 bytes"),
    ],
)
async def test_errors(room: Room, event: str, kind: str, message: str) -> None:
    await publish(room)
    answer, outcome, _ = await room.invoke(event)
    assert (outcome.error, answer["errorType"]) == ("Unhandled", kind), answer
    assert message in answer["errorMessage"]
    assert (await room.invoke("well"))[0]["event"] == "well"


async def test_error_objects_and_their_log_line(room: Room) -> None:
    await publish(room)
    answer, _, log = await room.invoke("fail")
    assert answer["trace"][:2] == ["TypeError: no", "good"]
    assert "/var/task/app.js" in answer["trace"][2]
    assert '\tERROR\tInvoke Error \t{"errorType":"TypeError"' in log


async def test_log_levels_and_raw_output(room: Room) -> None:
    await publish(room)
    _, _, log = await room.invoke("levels")
    for line in ("\tDEBUG\td\n", "\tINFO\ti\ri\n", "\tWARN\tw\n", "\tERROR\te\n", "\tTRACE\tt\r"):
        assert line in log
    _, _, log = await room.invoke("raw")
    assert "raw\nrawer\n" in log


async def test_json_log(room: Room) -> None:
    await publish(room, environment={"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"})
    _, _, log = await room.invoke("levels")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"timestamp"')]
    assert [(line["level"], line["message"]) for line in lines] == [("WARN", "w"), ("ERROR", "e")]


async def test_callbacks_wait_for_the_event_loop_unless_told_not_to(room: Room) -> None:
    await publish(room, "app.callback")
    answer, _, log = await room.invoke(1)
    assert answer == {"event": 1}
    assert "after the answer" in log
    answer, _, log = await room.invoke("early")
    assert answer == {"event": "early"}
    assert "after the answer" not in log
    assert (await room.invoke("fail"))[0]["errorMessage"] == "by callback"


@pytest.mark.parametrize(("handler", "expected"), [("app.silent", None), ("app.done", "done"), ("app.a.b.c", "nested")])
async def test_other_handlers(room: Room, handler: str, expected: object) -> None:
    await publish(room, handler)
    assert (await room.invoke(1))[0] == expected


async def test_a_promise_that_is_never_kept(room: Room) -> None:
    await publish(room)
    assert (await room.invoke("never"))[0] is None
    assert (await room.invoke("well"))[0]["event"] == "well"


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"app.mjs": MODULE}, "app.handler"),
        ({"src/app.js": MODULE, "package.json": '{"type": "module"}'}, "src/app.handler"),
        ({"app.cjs": "exports.handler = async (event) => ({ waited: 'waited', event, own: 'function' });"}, "app.handler"),
    ],
)
async def test_modules(room: Room, files: dict[str, str], handler: str) -> None:
    await publish(room, handler, files)
    assert (await room.invoke(1))[0] == {"waited": "waited", "event": 1, "own": "function"}


async def test_packages_and_layers(room: Room) -> None:
    layer = room.store({"nodejs/node_modules/layered/index.js": "module.exports = 'from the layer';"}, "layers-lambda")
    code = "const own = require('own'); exports.handler = async () => [own, require('layered')];"
    await publish(room, files={"app.js": code, "node_modules/own/index.js": "module.exports = 'own';"}, layers=(layer,))
    assert (await room.invoke())[0] == ["own", "from the layer"]


@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        ({"other.js": ""}, "app.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'app'"),
        ({"app.js": "require('nowhere')"}, "app.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'nowhere'"),
        (
            {"app.js": "exports.handler = ("},
            "app.handler",
            "Runtime.UserCodeSyntaxError",
            "SyntaxError: Unexpected end of input",
        ),
        ({"app.js": "throw new RangeError('at load')"}, "app.handler", "RangeError", "at load"),
        ({"app.js": APP}, "app.missing", "Runtime.HandlerNotFound", "app.missing is undefined or not exported"),
        ({"app.js": APP}, "app.text", "Runtime.HandlerNotFound", "app.text is not a function"),
        ({"app.js": APP}, "app", "Runtime.MalformedHandlerName", "Bad handler"),
        ({"app.js": APP}, "../app.handler", "Runtime.MalformedHandlerName", "'../app.handler' is not a valid handler name"),
    ],
)
async def test_what_cannot_be_loaded(room: Room, files: dict[str, str], handler: str, kind: str, message: str) -> None:
    with pytest.raises(DeployFailed) as failure:
        await publish(room, handler, files)
    assert f"{kind}: {message}" in failure.value.message


async def test_streams(room: Room) -> None:
    await publish(room, "app.stream", memory_mb=256)
    heads, body, outcome = await streamed(room, 1)
    assert (json.loads(heads[0]), body, outcome.error) == ({"statusCode": 201, "headers": {"a": "b"}}, b"one two", "")
    heads, body, _ = await streamed(room, "plain")
    assert (heads, body) == ([b"{}"], b"plain")
    assert len((await streamed(room, "large"))[1]) == 200 * 65_536 + 7


@pytest.mark.parametrize(("event", "sent", "message"), [("fail", b"one ", "half-way"), ("early", b"", "before the first byte")])
async def test_streams_that_fail(room: Room, event: str, sent: bytes, message: str) -> None:
    await publish(room, "app.stream")
    _, body, outcome = await streamed(room, event)
    assert (body, outcome.error, json.loads(outcome.payload)["errorMessage"]) == (sent, "Unhandled", message)
    assert (await streamed(room, 1))[1] == b"one two"


async def test_a_destroyed_stream(room: Room) -> None:
    await publish(room, "app.stream")
    _, body, outcome = await streamed(room, "destroy")
    assert (body, outcome.error) == (b"one ", "Unhandled")
    assert (await streamed(room, 1))[1] == b"one two"


async def test_variables_that_a_running_process_cannot_take_start_a_new_one(room: Room) -> None:
    await publish(room, environment={"NODE_OPTIONS": "--no-warnings --stack-trace-limit=3"})
    answer, _, _ = await room.invoke("fail")
    assert len(answer["trace"]) == 5


async def test_many_at_one_time(room: Room) -> None:
    await publish(room)
    answers = await asyncio.gather(*(room.invoke(number) for number in range(12)))
    assert sorted(answer["event"] for answer, _, _ in answers) == list(range(12))


async def test_new_code_is_served_by_new_processes(room: Room) -> None:
    await publish(room, files={"app.js": "exports.handler = async () => 'old'"})
    assert (await room.invoke())[0] == "old"
    await publish(room, files={"app.js": "exports.handler = async () => 'new'"})
    assert (await room.invoke())[0] == "new"


async def test_an_older_major_says_how_to_install_it(room: Room) -> None:
    with pytest.raises(DeployFailed) as failure:
        await publish(room, runtime="nodejs18.x")
    assert failure.value.remedy == "martlet runtimes install nodejs18.x"


def test_node_is_there() -> None:
    assert shutil.which("node"), "make test installs it"
