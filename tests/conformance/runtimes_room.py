"""A functions room with real sandboxes and nothing else, for tests of runtimes: `open_room`."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from martlet.clock import Clock
from martlet.functions import Functions
from martlet.functions.logs import LogStore
from martlet.functions.sandbox import SandboxHost
from martlet.functions.sandboxes.isolated import IsolatedHost
from martlet.store import Store
from martlet.telemetry import Registry
from martlet.types import FunctionConfig, FunctionVersion, Invocation, Outcome


class NoLedger:
    def record(self, invocation: Invocation, outcome: Outcome) -> None: ...

    def record_egress(self, function: str, version: int, bytes_out: int, bytes_in: int) -> None: ...


class Room:
    """`publish` files as a function, `invoke` it. `private` holds what came for the platform's own API."""

    def __init__(self, functions: Functions, logs: LogStore, data: Path) -> None:
        self.functions = functions
        self.logs = logs
        self.data = data
        self.private: list[bytes] = []
        self._codes = 0

    def store(self, files: dict[str, str | bytes | Path], below: str = "code") -> str:
        """Write a folder as the platform stores code and layers; its name. Text that begins with #! is made executable."""
        self._codes += 1
        name = f"c{self._codes:04}"
        folder = self.data / below / name
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                os.link(content, target)
                continue
            data = content.encode() if isinstance(content, str) else content
            target.write_bytes(data)
            target.chmod(0o755 if data.startswith((b"#!", b"\x7fELF")) else 0o644)
        return name

    async def publish(
        self, files: dict[str, str | bytes | Path] | str, runtime: str, handler: str = "app.handler", **config: Any
    ) -> FunctionVersion:
        code = files if isinstance(files, str) else self.store(files)
        settings = FunctionConfig(name=config.pop("name", "f"), handler=handler, runtime=runtime, **config)
        return await self.functions.publish("app", settings, code=code, layer="", imports=())

    async def invoke(self, event: Any = None, name: str = "app-f", **more: Any) -> tuple[Any, Outcome, str]:
        """(the answer as JSON, the outcome, the invocation's log)."""
        invocation, outcome = await self.functions.invoke(name, json.dumps(event).encode(), want_log_tail=True, **more)
        payload = json.loads(outcome.payload) if outcome.payload else None
        return payload, outcome, (invocation.log_tail or b"").decode()

    def serve_private(self, sock: socket.socket, version: FunctionVersion, begun: bytes = b"") -> None:
        self.private.append(begun)
        body = b'{"version":"test"}'
        sock.setblocking(True)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        sock.close()


@asynccontextmanager
async def open_room(data: Path, host: SandboxHost | None = None, **settings: Any) -> AsyncIterator[Room]:
    for name in ("code", "layers", "layers-lambda"):
        (data / name).mkdir(parents=True, exist_ok=True)
    clock = Clock()
    store = await Store.open(data / "store", clock=clock, engine="martlet.store.engines.memory:open_engine")
    logs = LogStore(data / "logs", clock)
    calls: list[Room] = []
    functions = Functions(
        store,
        host or IsolatedHost(f"{os.getpid()}r{data.name[-8:]}".replace("_", "")),
        data=data,
        clock=clock,
        logs=logs,
        ledger=NoLedger(),
        metrics=Registry(),
        serve_private=lambda *arguments: calls[0].serve_private(*arguments),
        **settings,
    )
    room = Room(functions, logs, data)
    calls.append(room)
    await functions.start()
    try:
        yield room
    finally:
        await functions.close()
        await logs.close()
        await store.close()
