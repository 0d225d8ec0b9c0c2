"""A functions room without sandboxes: instances whose inside is a Python function of the test, at the end of real pipes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from martlet.apps.zips import Zips
from martlet.auth import authorize
from martlet.clock import ManualClock
from martlet.errors import ServiceError
from martlet.functions import Functions
from martlet.functions.control import Control
from martlet.functions.logs import LogStore
from martlet.functions.sandbox import Ended, HostReport, InstanceSpec, Started, ZygoteSpec
from martlet.functions.sandboxes.inside import frames
from martlet.store import Store
from martlet.telemetry import Registry
from martlet.types import Principal

RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
ROLE = "arn:aws:iam::000000000000:role/r"
ROOT = Principal("root", "owner")

Handler = Callable[[dict[str, Any], bytes], tuple[int, bytes] | None]


def archive(text: str = "def handler(event, context): return event", name: str = "index.py") -> bytes:
    """A zip with one file; the same text gives the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def caller(principal: Principal = ROOT, **more: Any) -> Any:
    defaults = {"region": "us-east-1", "account": "000000000000", "request_id": "", "endpoint": "http://here"}
    return SimpleNamespace(principal=principal, **{**defaults, **more})


class Host:
    """The sandbox host. `handler(init, payload)` answers events: (frame kind, payload), or None to answer later or never."""

    def __init__(self) -> None:
        self.handler: Handler = lambda init, payload: (frames.RESULT, payload)
        self.init: Callable[[dict[str, Any]], tuple[int, bytes]] = lambda init: (frames.READY, b"{}")
        self.specs: dict[int, InstanceSpec] = {}
        self.open_events: list[tuple[int, int, bytes]] = []  # (results pipe, sequence, payload) of what is not answered
        self._pipes: dict[int, tuple[int, int, int]] = {}

    async def open(self, on_started: Callable[[Started], None], on_ended: Callable[[Ended], None], on_note: Any) -> HostReport:
        self._on_started, self._on_ended = on_started, on_ended
        return HostReport(0, (), ())

    def ensure_zygote(self, spec: ZygoteSpec) -> None: ...
    def drop_zygote(self, key: str) -> None: ...
    def park(self, key: str, count: int) -> None: ...

    def start(self, number: int, spec: InstanceSpec, pipes: tuple[int, int, int]) -> None:
        self.specs[number] = spec
        self._pipes[number] = pipes
        asyncio.get_running_loop().add_reader(pipes[0], self._readable, number, {})

    def _readable(self, number: int, init: dict[str, Any]) -> None:
        events, results, _ = self._pipes[number]
        data = init.pop("unread", b"") + os.read(events, 1_000_000)
        while len(data) >= frames.SIZE:
            length, sequence, kind, _ = frames.HEADER.unpack_from(data)
            if len(data) < frames.SIZE + length:
                break
            payload, data = data[frames.SIZE : frames.SIZE + length], data[frames.SIZE + length :]
            if kind == frames.INIT:
                init.update(json.loads(payload))
                self.answer(results, 0, self.init(init))
                continue
            head, _, event = payload.partition(b"\n")
            init["arn"] = head.split(b"\x1f")[2].decode()
            answer = self.handler(init, event)
            if answer is None:
                self.open_events.append((results, sequence, event))
            else:
                self.answer(results, sequence, answer)
        init["unread"] = data

    def answer(self, results: int, sequence: int, answer: tuple[int, bytes]) -> None:
        os.write(results, frames.pack(answer[0], sequence, answer[1]))

    def kill(self, number: int) -> None:
        pipes = self._pipes.pop(number, None)
        if pipes is not None:
            asyncio.get_running_loop().remove_reader(pipes[0])
            for fd in pipes:
                os.close(fd)
            asyncio.get_running_loop().call_soon(self._on_ended, Ended(number, signal=9))

    def stats(self) -> dict[str, int]:
        return {}

    async def close(self) -> None:
        for number in list(self._pipes):
            self.kill(number)


class Ledger:
    def record(self, invocation: Any, outcome: Any) -> None: ...
    def record_egress(self, *_: Any) -> None: ...


class World:
    """A control plane with everything below it, on a folder. `stop` it, or `crash` it and open another on the same folder."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder, self.clock = folder, clock
        self.host = Host()
        self.deliver: Any = None
        self.fetch_object: Any = None
        self.urls_changed = 0

    async def start(self) -> World:
        for name in ("code", "layers", "logs"):
            (self.folder / name).mkdir(exist_ok=True)
        self.store = await Store.open(
            self.folder / "store", clock=self.clock, engine="martlet.store.engines.sqlite:open_engine"
        )
        self.logs = LogStore(self.folder / "logs", self.clock)
        self.functions = Functions(
            self.store,
            self.host,
            data=self.folder,
            clock=self.clock,
            logs=self.logs,
            ledger=Ledger(),
            metrics=Registry(),
            serve_private=lambda sock, _: sock.close(),
        )
        await self.functions.start()

        def changed() -> None:
            self.urls_changed += 1

        self.control = Control(
            self.store,
            self.functions,
            Zips(self.folder),
            data=self.folder,
            clock=self.clock,
            authorize=authorize,
            available=lambda runtime: "" if runtime.startswith(("python", "nodejs")) else f"{runtime} is not installed here.",
            deliver=self.deliver,
            fetch_object=self.fetch_object,
            on_urls=changed,
        )
        await self.control.start()
        return self

    async def stop(self) -> None:
        await self.control.stop()
        await self.functions.close()
        await self.logs.close()
        await self.store.close()

    async def call(self, operation: str, caller_: Any = None, **request: Any) -> Any:
        """An operation by its botocore name."""
        return await getattr(self.control, operation)(caller_ or caller(), request)

    async def fails(self, operation: str, caller_: Any = None, **request: Any) -> tuple[str, str]:
        """(name, message) of the operation's ServiceError."""
        try:
            found = await self.call(operation, caller_, **request)
        except ServiceError as error:
            return error.name, error.message
        raise AssertionError(f"{operation} did not fail: {found}")

    async def create(self, name: str = "f", **more: Any) -> dict[str, Any]:
        """A function that is Active."""
        request = {
            "FunctionName": name,
            "Runtime": RUNTIME,
            "Role": ROLE,
            "Handler": "index.handler",
            "Code": {"ZipFile": archive()},
            **more,
        }
        found = await self.call("create_function", **request)
        await self.control.settled()
        return found

    async def publish(self, name: str = "f", description: str = "") -> str:
        """A new version, whatever has changed; its number."""
        await self.call("update_function_configuration", FunctionName=name, Description=description or os.urandom(8).hex())
        await self.control.settled()
        return (await self.call("publish_version", FunctionName=name))["Version"]
