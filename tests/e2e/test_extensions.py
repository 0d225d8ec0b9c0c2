"""External extensions: beside a custom runtime and beside Node.js, with telemetry, and what they may do wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.runtimes_room import Room, open_room
from tests.e2e.test_provided import BOOTSTRAP

from martlet.errors import DeployFailed

pytestmark = pytest.mark.e2e

EXTENSION = r"""#!/usr/bin/python3
import http.client, http.server, json, os, sys, threading, time
mode = os.environ.get("EXTENSION", "")
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={}):
    api.request(method, path, body and json.dumps(body), headers)
    answer = api.getresponse()
    return answer.status, answer.headers, json.loads(answer.read() or b"null")
seen = []
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        open("/tmp/telemetry", "w").write(json.dumps(seen))
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
if mode == "crash early": sys.exit(9)
status, headers, about = call("POST", "/2020-01-01/extension/register", {"events": ["INVOKE", "SHUTDOWN"]}, {"Lambda-Extension-Name": os.path.basename(sys.argv[0])})
me = {"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}
open("/tmp/registered", "w").write(json.dumps([status, about]))
if mode == "init error":
    call("POST", "/2020-01-01/extension/init/error", {}, {**me, "Lambda-Extension-Function-Error-Type": "Extension.NoConfig"}); time.sleep(9)
if mode == "telemetry":
    server = http.server.HTTPServer(("127.0.0.1", 8080), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wanted = {"schemaVersion": "2022-07-01", "types": ["platform", "function"], "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/x"}}
    status, _, said = call("PUT", "/2022-07-01/telemetry", wanted, me)
    assert (status, said) == (200, "OK"), (status, said)
events = []
while True:
    _, _, event = call("GET", "/2020-01-01/extension/event/next", None, me)
    events.append(event)
    open("/tmp/events", "w").write(json.dumps(events))
    if mode == "crash later": sys.exit(9)
    if event["eventType"] == "SHUTDOWN": print("extension leaves", flush=True); sys.exit(0)
"""
READER = BOOTSTRAP.replace(
    'elif event == "tmp":',
    'elif isinstance(event, dict) and "read" in event:\n'
    '        time.sleep(event.get("after", 0)); respond(open(event["read"]).read())\n'
    '    elif event == "tmp":',
)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path) as found:
        yield found


async def publish(room: Room, mode: str = "", runtime: str = "provided.al2023", **files: str) -> None:
    layer = room.store({"extensions/watcher": EXTENSION}, "layers-lambda")
    code = {name.replace("_", "."): text for name, text in files.items()} or {"bootstrap": READER}
    await room.publish(code, runtime, layers=(layer,), environment={"EXTENSION": mode}, timeout_seconds=5.0)  # type: ignore[arg-type]


async def test_it_registers_before_the_runtime_and_hears_of_events(room: Room) -> None:
    await publish(room)
    status, about = json.loads((await room.invoke({"read": "/tmp/registered"}))[0])
    assert (status, about["functionName"], about["handler"]) == (200, "app-f", "app.handler")
    answer, _, _ = await room.invoke({"read": "/tmp/events", "after": 0.3}, trace_id="Root=1-2-3")
    events = json.loads(answer)
    assert [event["eventType"] for event in events] == ["INVOKE", "INVOKE"]
    assert events[1]["tracing"] == {"type": "X-Amzn-Trace-Id", "value": "Root=1-2-3"}
    assert {"requestId", "deadlineMs", "invokedFunctionArn"} <= set(events[0])


async def test_beside_node(room: Room) -> None:
    code = "exports.handler = async (event) => require('fs').readFileSync('/tmp/registered', 'utf8');"
    await publish(room, runtime="nodejs20.x", app_js=code)
    assert json.loads((await room.invoke(1))[0])[0] == 200


async def test_telemetry_is_delivered_inside(room: Room) -> None:
    await publish(room, "telemetry")
    _, _, log = await room.invoke("first")
    answer, _, _ = await room.invoke({"read": "/tmp/telemetry", "after": 0.5})
    found = [(entry["type"], entry["record"]) for entry in json.loads(answer)]
    assert ("function", "event first\n") in found
    assert "platform.start" in [kind for kind, _ in found]
    assert "platform.runtimeDone" in [kind for kind, _ in found]
    assert "event first" in log


async def test_it_hears_of_the_end(room: Room) -> None:
    await publish(room)
    await room.invoke(1)
    pool = room.functions._pools["app-f"]
    for _ in range(300):  # free again once the extension has asked for its next event, too
        if pool.evict_idle():
            break
        await asyncio.sleep(0.01)
    for _ in range(300):
        if not pool.instances:
            break
        await asyncio.sleep(0.01)
    assert not pool.instances
    await room.logs.flush()
    lines = [record.lines.decode() for record in await room.logs.read("app-f") if record.lines]
    assert any("extension leaves" in text for text in lines), lines


@pytest.mark.parametrize(
    ("mode", "text"),
    [("crash early", "Extension.Crash: extension watcher exited with code 9"), ("init error", "Extension.InitError: watcher")],
)
async def test_one_that_cannot_start_fails_the_deployment(room: Room, mode: str, text: str) -> None:
    with pytest.raises(DeployFailed) as failure:
        await publish(room, mode)
    assert text in failure.value.message


async def test_one_that_crashes_while_an_event_runs(room: Room) -> None:
    await publish(room, "crash later")
    answer, outcome, _ = await room.invoke({"read": "/tmp/events", "after": 2})
    assert (outcome.error_type, answer["errorMessage"]) == ("Extension.Crash", "extension watcher exited with code 9")


async def test_beside_the_native_runtime_they_are_refused_by_name(room: Room) -> None:
    with pytest.raises(DeployFailed, match="external extensions do not run beside"):
        await publish(room, runtime="python3.11", app_py="def handler(event, context): pass")
