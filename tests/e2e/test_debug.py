"""`martlet invoke --debug`: a real debugger's conversation, from the host's loopback into the sandbox and back."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import ENTRY, ROOT, Api, Command, RunningPlatform, eventually, running, write_app

pytestmark = pytest.mark.e2e

APP = """
import time
from martlet import App

app = App("bugs")
LOADED = "loaded"

@app.function(timeout=1, memory=128)
def add(event, context):
    total = event["a"] + event["b"]
    print("added", context.get_remaining_time_in_millis() > 60_000)
    return {"total": total}

@app.function()
def fail(event, context):
    raise ValueError("bug")
"""
NODE_MAJOR = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.split(".")[0].lstrip("v")
TEMPLATE = f"""
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Resources:
  Js:
    Type: AWS::Serverless::Function
    Properties: {{FunctionName: bug-js, Runtime: nodejs{NODE_MAJOR}.x, Handler: index.handler, CodeUri: js/, Timeout: 1}}
  Native:
    Type: AWS::Serverless::Function
    Properties: {{FunctionName: bug-native, Runtime: provided.al2023, Handler: any, CodeUri: js/}}
"""


@pytest.fixture(scope="module")
def platform(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningPlatform:
    return start(write_app(tmp_path_factory.mktemp("apps") / "bugs", APP), "--no-watch")


class Debugged:
    """`martlet invoke … --debug` under way."""

    def __init__(self, process: subprocess.Popen[str], err: Path) -> None:
        self.process, self.err = process, err

    @property
    def port(self) -> int:
        found = eventually(lambda: re.search(r"waits for a debugger on 127\.0\.0\.1:(\d+)", self.err.read_text()))
        return int(found[1])

    def result(self) -> Any:
        out, _ = self.process.communicate(timeout=40)
        assert self.process.returncode == 0, self.err.read_text()
        return json.loads(out)


@contextmanager
def debugged(platform: RunningPlatform, name: str, payload: Any, folder: Path, *more: str) -> Iterator[Debugged]:
    err = folder / "err"
    command = [*ENTRY, "invoke", name, "--debug", "--payload", json.dumps(payload), "--data", str(platform.data), *more]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with err.open("w") as sink, running(command, stdout=subprocess.PIPE, stderr=sink, env=environ, cwd=folder) as process:
        yield Debugged(process, err)


def connected(port: int) -> socket.socket | None:
    """Without isolation the debugger itself listens, a moment after the port is told."""
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=30)
    except ConnectionRefusedError:
        return None


class Dap:
    """A client of the Debug Adapter Protocol: Content-Length, JSON."""

    def __init__(self, port: int) -> None:
        self.sock = eventually(lambda: connected(port))
        self.stream = self.sock.makefile("rb")
        self.sequence = 0
        self.events: list[dict[str, Any]] = []

    def send(self, command: str, **arguments: Any) -> int:
        self.sequence += 1
        body = json.dumps({"seq": self.sequence, "type": "request", "command": command, "arguments": arguments}).encode()
        self.sock.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        return self.sequence

    def read(self) -> dict[str, Any]:
        length = 0
        while line := self.stream.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        assert length, "the adapter hung up"
        found: dict[str, Any] = json.loads(self.stream.read(length))
        if found["type"] == "event":
            self.events.append(found)
        return found

    def answer(self, sequence: int) -> dict[str, Any]:
        while True:
            found = self.read()
            if found["type"] == "response" and found["request_seq"] == sequence:
                assert found["success"], found
                return dict(found.get("body") or {})

    def call(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(self.send(command, **arguments))

    def event(self, name: str) -> dict[str, Any]:
        while True:
            for found in self.events:
                if found["event"] == name:
                    self.events.remove(found)
                    return dict(found.get("body") or {})
            self.read()

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


def test_a_debugger_stops_in_the_function_and_changes_what_it_sees(platform: RunningPlatform, tmp_path: Path) -> None:
    with debugged(platform, "bugs-add", {"a": 1, "b": 2}, tmp_path, "--log") as run:
        dap = Dap(run.port)
        dap.call("initialize", adapterID="debugpy", clientID="test", linesStartAt1=True, pathFormat="path")
        attaching = dap.send(
            "attach", justMyCode=True, pathMappings=[{"localRoot": "/home/me/bugs", "remoteRoot": "/var/task"}]
        )
        dap.event("initialized")
        module = next(at for at, line in enumerate(APP.splitlines(), 1) if line.startswith("LOADED"))
        inner = next(at for at, line in enumerate(APP.splitlines(), 1) if "print(" in line)
        lines = [{"line": module}, {"line": inner}]
        points = dap.call("setBreakpoints", source={"path": "/home/me/bugs/app.py"}, breakpoints=lines)
        assert [point["verified"] for point in points["breakpoints"]] == [True, True]
        dap.call("configurationDone")
        dap.answer(attaching)
        thread = dap.event("stopped")["threadId"]  # at import already
        top = dap.call("stackTrace", threadId=thread)["stackFrames"][0]
        assert (top["source"]["path"], top["line"]) == ("/home/me/bugs/app.py", module)
        dap.call("continue", threadId=thread)
        thread = dap.event("stopped")["threadId"]
        top = dap.call("stackTrace", threadId=thread)["stackFrames"][0]
        assert (top["name"], top["line"]) == ("add", inner)
        assert dap.call("evaluate", expression="total + 39", frameId=top["id"])["result"] == "42"
        dap.call("evaluate", expression="total = 1234", frameId=top["id"], context="repl")
        dap.send("continue", threadId=thread)  # it may end before it answers this
        assert run.result() == {"total": 1234}
        assert "added True" in run.err.read_text()  # its one second is lifted
        dap.close()
    assert Api(platform).invoke("bugs-add", {"a": 1, "b": 2})["payload"] == {"total": 3}  # others run as before


def test_the_ways_out(platform: RunningPlatform, tmp_path: Path, martlet: Command) -> None:
    """An interrupt ends the event and frees the port; a taken port and an unknown function are errors."""
    before = Api(platform).get("/v1/status")["instances"]
    with debugged(platform, "bugs-add", {"a": 1, "b": 2}, tmp_path) as run:
        port = run.port
        taken = martlet("invoke", "bugs-add", "--debug", "--port", str(port), data=platform.data)
        assert (taken.code, f"port {port} is taken" in taken.err) == (1, True)
    assert eventually(lambda: free(port))
    assert eventually(lambda: Api(platform).get("/v1/status")["instances"] <= before)
    done = martlet("invoke", "bugs-nothing", "--debug", data=platform.data)
    assert (done.code, "no function 'bugs-nothing'" in done.err) == (1, True)
    done = martlet("invoke", "bugs-add", "--port", "1", data=platform.data)
    assert (done.code, "--debug" in done.err) == (2, True)


def free(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_nobody_but_the_owner_debugs(platform: RunningPlatform) -> None:
    answer = httpx.post(f"{platform.api_url}/v1/functions/bugs-add/debug", content=b"{}")
    assert answer.status_code == 401


def test_without_isolation_it_works_the_same(start: Start, tmp_path: Path) -> None:
    alone = start(write_app(tmp_path / "bugs", APP), "--no-watch", "--sandbox", "process", data=tmp_path / "data")
    with debugged(alone, "bugs-add", {"a": 1, "b": 2}, tmp_path) as run:
        dap = Dap(run.port)
        dap.call("initialize", adapterID="debugpy", clientID="test")
        dap.send("attach", justMyCode=True)
        dap.event("initialized")
        dap.send("configurationDone")
        assert run.result() == {"total": 3}
        dap.close()


def test_node_waits_for_its_inspector(start: Start, tmp_path: Path, martlet: Command) -> None:
    folder = tmp_path / "bugjs"
    (folder / "js").mkdir(parents=True)
    (folder / "template.yaml").write_text(TEMPLATE)
    (folder / "js" / "index.js").write_text("exports.handler = async (event) => ({ twice: event.n * 2, x: globalThis.x });\n")
    platform = start(folder, "--no-watch")
    done = martlet("invoke", "bug-native", "--debug", data=platform.data)
    assert (done.code, "no debugger for provided.al2023" in done.err) == (1, True)
    with debugged(platform, "bug-js", {"n": 21}, tmp_path) as run:
        port = run.port
        page = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=30).json()[0]
        path = page["webSocketDebuggerUrl"].partition("/ws/")[2] or page["id"]
        inspector = Inspector(port, path.rpartition("/")[2])
        inspector.call("Debugger.enable")
        inspector.call("Runtime.enable")
        assert inspector.call("Runtime.evaluate", expression="globalThis.x = 7")["result"]["value"] == 7
        inspector.call("Runtime.runIfWaitingForDebugger")
        inspector.until("Debugger.paused")
        inspector.call("Debugger.resume")
        assert run.result() == {"twice": 42, "x": 7}
        inspector.sock.close()


class Inspector:
    """Enough of a WebSocket client (RFC 6455) to speak to Node.js: text frames, masked, none longer than 64 KiB from us."""

    def __init__(self, port: int, path: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.sock.makefile("rb")
        assert b"101" in self.stream.readline()
        while self.stream.readline().strip():
            pass
        self.number = 0
        self.seen: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        body = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        head = bytes((0x81, 0x80 | len(body))) if len(body) < 126 else b"\x81\xfe" + len(body).to_bytes(2, "big")
        self.sock.sendall(head + b"\0\0\0\0" + body)
        while True:
            found = self.read()
            if found.get("id") == self.number:
                return dict(found["result"])

    def read(self) -> dict[str, Any]:
        _, length = self.stream.read(2)
        if length >= 126:
            length = int.from_bytes(self.stream.read(2 if length == 126 else 8), "big")
        found: dict[str, Any] = json.loads(self.stream.read(length))
        self.seen.append(str(found.get("method")))
        return found

    def until(self, method: str) -> None:
        while method not in self.seen:
            self.read()
