"""Stand-ins for the rooms that a deployment works with. Each can be told to fail at a given point."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from martlet.apps import Apps
from martlet.clock import ManualClock
from martlet.config import Settings
from martlet.errors import DeployFailed, InvalidInput
from martlet.types import AppGraph, FunctionConfig, FunctionVersion


class Tx:
    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = rows

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        assert type(value) is bytes
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def scan(self, low: bytes, high: bytes, limit: int = 1000) -> list[tuple[bytes, bytes]]:
        return [(key, self.rows[key]) for key in sorted(self.rows) if low <= key < high][:limit]


class FakeStore:
    """All or nothing, like the real one. `fail` makes the next commit fail after `fn` has run."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.commits = 0
        self.fail: Exception | None = None

    async def transact(self, fn: Any) -> Any:
        await asyncio.sleep(0)
        draft = dict(self.rows)
        fn(Tx({}))  # a transaction may be tried more than once
        result = fn(Tx(draft))
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        self.rows = draft
        self.commits += 1
        return result

    def read(self, fn: Any) -> Any:
        return fn(Tx(dict(self.rows)))

    def watch(self, low: bytes, high: bytes, told: Any) -> None:
        """There are no other nodes."""

    def on_departure(self, told: Any) -> None:
        """There are no other nodes."""

    def turn(self, name: str, wait_seconds: float | None) -> AbstractAsyncContextManager[bool]:
        return nullcontext(False)


@dataclass
class Build:
    graph: dict[str, Any]
    imports: tuple[str, ...] = ()


@dataclass
class FakeFunctions:
    """Keeps versions in memory; the graph of a package is its file graph.json."""

    data: Path
    versions: dict[str, FunctionVersion] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    restored: list[FunctionVersion] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    builds: int = 0
    fail_publish: set[str] = field(default_factory=set)
    fail_restore: bool = False
    gate: asyncio.Event | None = None
    began: asyncio.Event = field(default_factory=asyncio.Event)  # set by the first publish
    publishing: int = 0
    most_publishing: int = 0
    numbers: int = 0

    async def followed(self) -> None:
        """There are no other nodes."""

    async def build(self, *, app: str, code: str, layer: str, module: str) -> Build:
        self.builds += 1
        folder = self.data / "code" / code
        source = folder / (module.replace(".", "/") + ".py")
        text = source.read_text()
        try:
            compile(text, source.name, "exec")
        except SyntaxError as error:
            raise DeployFailed(f"{source.name}:{error.lineno}: {error.msg}") from error
        return Build(json.loads((folder / "graph.json").read_text()), ("json",))

    async def publish(
        self, app: str, config: FunctionConfig, *, code: str, layer: str, imports: tuple[str, ...]
    ) -> FunctionVersion:
        self.publishing += 1
        self.began.set()
        self.most_publishing = max(self.most_publishing, self.publishing)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            if config.name in self.fail_publish:
                raise DeployFailed("Traceback …\nValueError: no database", remedy="set DATABASE")
            self.numbers += 1
            name = f"{app}-{config.name}"
            version = FunctionVersion(
                name=name,
                app=app,
                version=self.numbers,
                config=config,
                code=code,
                layer=layer,
                imports=imports,
                created_at_ms=5,
            )
            self.versions[name] = version
            self.published.append(name)
            return version
        finally:
            self.publishing -= 1

    async def restore(self, previous: FunctionVersion) -> None:
        if self.fail_restore:
            raise DeployFailed("the sandbox is gone")
        self.restored.append(previous)
        self.versions[previous.name] = previous

    async def remove(self, name: str) -> None:
        self.removed.append(name)
        self.versions.pop(name, None)

    def get(self, name: str) -> FunctionVersion | None:
        return self.versions.get(name)

    def list(self) -> list[FunctionVersion]:
        return list(self.versions.values())


class FakeSchedules:
    """Schedules are rows too."""

    def check(self, expression: str, timezone: str) -> None:
        if not expression.startswith(("rate(", "cron(")):
            raise InvalidInput(f"{expression!r} is neither rate(...) nor cron(...)")
        if timezone == "Mars/Olympus":
            raise InvalidInput("there is no time zone Mars/Olympus")

    def put(self, tx: Any, app: str, config: Any, function: str) -> None:
        tx.put(f"schedule/{app}/{config.name}".encode(), f"{config.expression} {function}".encode())

    def remove(self, tx: Any, app: str, name: str) -> None:
        tx.delete(f"schedule/{app}/{name}".encode())


class FakeDeclared:
    """What apps declare beside functions: who is told of what. `refuse` is what `check` says no to."""

    def __init__(self) -> None:
        self.prepared: list[str] = []
        self.told: dict[str, AppGraph] = {}
        self.refuse = ""

    def check(self, app: str, graph: AppGraph) -> None:
        if self.refuse:
            raise InvalidInput(self.refuse)

    async def prepare(self, app: str, graph: AppGraph) -> None:
        self.prepared.append(app)

    async def consume(self, app: str, graph: AppGraph) -> None:
        self.told[app] = graph

    listen = consume


@dataclass
class Platform:
    """Apps on fakes, and what they told."""

    data: Path
    store: FakeStore = field(default_factory=FakeStore)
    clock: ManualClock = field(default_factory=ManualClock)
    route_calls: int = 0

    def __post_init__(self) -> None:
        self.functions = FakeFunctions(self.data)
        self.consumers = FakeDeclared()
        self.listeners = FakeDeclared()
        self.apps = self.start()

    def start(self) -> Apps:
        """As after a restart: nothing but disk and rooms below is kept."""

        def on_routes() -> None:
            self.route_calls += 1

        return Apps(
            self.store,
            self.functions,
            FakeSchedules(),
            data=self.data,
            on_routes=on_routes,
            clock=self.clock,
            settings=Settings(data=str(self.data)),
            consumers=self.consumers,
            listeners=self.listeners,
        )

    def schedules(self) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in self.store.rows.items() if key.startswith(b"schedule/")}


def graph(
    *functions: str,
    routes: tuple[tuple[str, str, str], ...] = (),
    schedules: tuple[tuple[str, str, str], ...] = (),
    **config: Any,
) -> dict[str, Any]:
    return {
        "functions": [{"name": name, "handler": f"app:{name}", **config} for name in functions],
        "routes": [{"method": method, "path": path, "function": function} for method, path, function in routes],
        "schedules": [
            {"name": name, "expression": expression, "function": function} for name, expression, function in schedules
        ],
    }


def write_app(folder: Path, emitted: dict[str, Any], source: str = "x = 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(source)
    (folder / "graph.json").write_text(json.dumps(emitted))
    return folder
