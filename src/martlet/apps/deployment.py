"""Deploying, destroying and listing apps: package → layer → graph → plan → apply.

The app's record in the store is the truth. Functions are published first, each atomically; routes, schedules and record
follow in one transaction; before that commit everything can be, and on failure is, rolled back. After a crash `load`
makes the functions room serve what the records say.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import msgspec

from martlet.apps.archive import unpack
from martlet.apps.garbage import Garbage
from martlet.apps.graph import check, full_name
from martlet.apps.layers import Layers, folder_bytes
from martlet.apps.package import DigestCache, Package, app_name, check_app_name, scan, store
from martlet.apps.plan import (
    AppRecord,
    PublishFunction,
    PutBuckets,
    PutCollection,
    PutGraphql,
    PutListeners,
    PutQueues,
    PutSchedule,
    RemoveFunction,
    RemoveSchedule,
    Step,
    plan,
    teardown,
)
from martlet.apps.ports import ApiSchemas, Build, Collections, Consumers, Functions, Listeners, Progress, Schedules, Store
from martlet.apps.requirements import read as read_requirements
from martlet.apps.sources import SOURCES
from martlet.clock import Clock, token_hex
from martlet.config import Settings
from martlet.errors import Conflict, DeployFailed, InvalidInput, MartletError, NotFound, Overloaded, StoreFailed
from martlet.limits import LIMITS, exceeded
from martlet.store import keys
from martlet.types import AppGraph, CollectionDeclaration, FunctionVersion, Route

__all__ = ["Apps", "Deployment", "RouteTable"]

_PUBLISHED_AT_ONCE = 4
_CACHES = 16
_SCAN_LIMIT = 100_000
_SCHEMA = "schema.graphql"
_TURN = "deployments"
_TURN_SECONDS = 60.0
_LEASE_SECONDS = 15.0  # a dead node's turn ends after ten
T = TypeVar("T")
RouteTable: TypeAlias = list[tuple[str, Route, str]]  # app, route, full name of its function


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment did, or with `dry_run` would do. `functions` are full names; `steps` () means nothing changed."""

    app: str
    revision: int
    routes: tuple[Route, ...]
    functions: tuple[str, ...]
    steps: tuple[Step, ...]
    duration_ms: int
    dry_run: bool = False


class _Source(msgspec.Struct, frozen=True):
    """A package in the store, and its graph's origin."""

    package: Package
    folder: Path
    layer: str
    kind: str
    entry: str


class Apps:
    """All apps of one platform. Call `load` before anything else and `close` at the end."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        schedules: Schedules,
        *,
        data: Path,
        on_routes: Callable[[], None],
        clock: Clock,
        settings: Settings,
        consumers: Consumers | None = None,
        listeners: Listeners | None = None,
        schemas: ApiSchemas | None = None,
        collections: Collections | None = None,
        also_used: Callable[[], set[str]] = set,
    ) -> None:
        self._store = store
        self._functions = functions
        self._schedules = schedules
        self._consumers = consumers
        self._listeners = listeners
        self._schemas = schemas
        self._collections = collections
        self._on_routes = on_routes
        self._also_used = also_used  # content addresses that others refer to
        self._clock = clock
        self._called_hosts = settings.called_hosts
        self._code = data / "code"
        self._layers = Layers(data / "layers", settings.python)
        self._garbage = Garbage(self._code, data / "layers", clock, self._layers.forget)
        self._records: dict[str, AppRecord] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: Counter[str] = Counter()  # addresses that a running deployment needs
        self._claims: dict[tuple[str, str], str] = {}  # kind, full name → app whose deployment is making it
        self._caches: dict[Path, DigestCache] = {}
        self._layer_bytes: dict[str, int] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._applying: set[asyncio.Task[Any] | None] = set()  # of those: past the point where they can be given up

    # --- reading

    def list(self) -> list[AppRecord]:
        return sorted(self._records.values(), key=lambda record: record.name)

    def get(self, name: str) -> AppRecord:
        """Raises `NotFound`."""
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"there is no app {name!r}", remedy="see `martlet apps`")
        return record

    def routes(self) -> RouteTable:
        """(app, route, full name of its function) of every app."""
        return [
            (record.name, route, full_name(record.name, route.function))
            for record in self.list()
            for route in record.graph.routes
        ]

    def folders(self, app: str) -> tuple[Path, Path | None]:
        """Where an app's code and layer lie. Raises `NotFound`."""
        record = self.get(app)
        return self._code / record.code, self._layers.path(record.layer) if record.layer else None

    # --- start and end

    async def load(self) -> None:
        """Read the records, undo what a crash left half-way, and drop folders that nothing refers to."""
        self._store.watch(*keys.prefix_range("apps", "app"), self._others_deployed)
        self._read_records()
        try:
            async with self._store.turn(_TURN, 0.0):
                await self._recover()
        except Conflict:
            pass  # another node deploys; what it may leave is undone by who has the next turn
        self._store.on_departure(lambda name: self._soon(self._after(name)))
        await asyncio.to_thread(self._garbage.clean_leftovers)
        await self._garbage.collect(self.referenced, at_once=True)
        self._on_routes()

    def _read_records(self) -> None:
        low, high = keys.prefix_range("apps", "app")
        found = self._store.read(lambda tx: [value for _, value in tx.scan(low, high, limit=_SCAN_LIMIT)])
        self._records = {record.name: record for record in map(_decode, found)}

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _others_deployed(self, changed: Sequence[bytes] | None) -> None:
        self._soon(self._follow())

    async def _follow(self) -> None:
        """Route as another node's deployments say, once what they published serves here."""
        await self._functions.followed()
        self._read_records()
        self._on_routes()

    async def _after(self, departed: str) -> None:
        """Another node died: perhaps while it deployed."""
        try:
            async with self._store.turn(_TURN, _LEASE_SECONDS) as is_new:
                if is_new:
                    await self._recover()
        except (Conflict, Overloaded):
            pass  # another node sees to it

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One node at a time deploys: names are unique on all of them."""
        async with self._store.turn(_TURN, _TURN_SECONDS) as is_new:
            if is_new:
                await self._functions.followed()
                self._read_records()
                await self._recover()
            yield

    async def _recover(self) -> None:
        recorded = {version.name: version for record in self._records.values() for version in record.versions}
        for name, version in recorded.items():
            if not _same(self._functions.get(name), version):
                await self._functions.restore(version)
        for serving in self._functions.list():
            if serving.name not in recorded:  # published by a deployment that never committed
                await self._functions.remove(serving.name)
        for record in self._records.values():  # a crash may have come between a commit and this
            if self._collections is not None and record.graph.collections:
                await self._collections.apply(record.name, record.graph.collections)
            if self._consumers is not None:
                await self._consumers.consume(record.name, record.graph)
        if self._listeners is not None:
            for record in self._records.values():
                await self._listeners.listen(record.name, record.graph)

    async def close(self) -> None:
        """Wait for what is being applied; give up what is still being packed, built or read."""
        await self._layers.close()
        for task in self._running - self._applying:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- changing

    async def deploy(
        self,
        source: Path | bytes,
        name: str | None = None,
        *,
        dry_run: bool = False,
        skip_unchanged: bool = False,
        progress: Progress | None = None,
    ) -> Deployment:
        """Make app `name` be what `source`, a folder, a .py file or a tar, says. `skip_unchanged`: the same code and
        layer as now end early, without running the app's module.

        Raises `DeployFailed`, `InvalidInput`, `LimitExceeded`, `Conflict`; what was deployed before then still serves. A caller
        that is cancelled does not stop a deployment: it ends whole or not at all.
        """
        if name is not None:
            check_app_name(name)
        elif isinstance(source, bytes):
            raise InvalidInput("an upload needs the app's name", field="name")
        else:
            name = await asyncio.to_thread(app_name, source)
        return await self._whole(self._deploy(source, name, dry_run, skip_unchanged, progress or _silent))

    async def destroy(self, name: str) -> None:
        """Remove an app with all its functions, routes and schedules. Raises `NotFound`."""
        await self._whole(self._destroy(name))

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._applying.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has it, or went away

    def _lock(self, app: str) -> asyncio.Lock:
        return self._locks.setdefault(app, asyncio.Lock())

    async def _deploy(self, source: Path | bytes, app: str, dry_run: bool, skip: bool, say: Progress) -> Deployment:
        started = self._clock.monotonic_ns()
        async with self._lock(app), self._turn():
            with self._holding() as hold:
                ready = await self._prepare(source, hold, say)
                before = self._records.get(app)
                graph, imports = await self._graph(app, ready, before, skip, say)
                with self._claiming(app, graph):
                    self._check_declared(app, graph)
                    serving = {version.name: version for version in self._functions.list()}
                    steps = plan(app, before, serving, graph, ready.package.address, ready.layer)
                    steps += await self._graphql(app, ready)
                    after = self._record(app, before, ready, graph, bool(steps))
                    if steps and not dry_run:
                        after = await self._apply(steps, after, serving, imports, say)
            await self._garbage.collect(self.referenced)
        functions = tuple(full_name(app, config.name) for config in graph.functions)
        elapsed = (self._clock.monotonic_ns() - started) // 1_000_000
        return Deployment(
            app=app,
            revision=after.revision,
            routes=graph.routes,
            functions=functions,
            steps=steps,
            duration_ms=elapsed,
            dry_run=dry_run,
        )

    def _record(self, app: str, before: AppRecord | None, ready: _Source, graph: AppGraph, changed: bool) -> AppRecord:
        now = self._clock.now_ms()
        if before is not None and not changed:
            return before
        return AppRecord(
            name=app,
            revision=before.revision + 1 if before else 1,
            code=ready.package.address,
            layer=ready.layer,
            module=ready.entry,
            graph=graph,
            versions=(),
            created_at_ms=before.created_at_ms if before else now,
            updated_at_ms=now,
        )

    # --- from source to graph

    async def _prepare(self, source: Path | bytes, hold: Callable[[str], None], say: Progress) -> _Source:
        if isinstance(source, bytes):
            upload = self._code / f".tmp-{token_hex(8)}"
            try:
                await asyncio.to_thread(_receive, source, upload)
                return await self._stored(upload, None, hold, say)
            finally:
                await asyncio.to_thread(shutil.rmtree, upload, True)
        return await self._stored(source, self._cache(source), hold, say)

    async def _stored(self, source: Path, cache: DigestCache | None, hold: Callable[[str], None], say: Progress) -> _Source:
        attempts = 3
        while True:
            package = await asyncio.to_thread(scan, source, cache)
            hold(package.address)
            try:
                folder = await asyncio.to_thread(store, package, self._code)
                break
            except Conflict:  # an editor saved between scan and copy
                attempts -= 1
                if not attempts:
                    raise
        say(f"packed {len(package.files)} files, {package.size} bytes")
        kind, entry = _recognise(folder, package)
        wanted = await asyncio.to_thread(read_requirements, folder)
        layer = await self._layers.ensure(wanted, say)
        if layer:
            hold(layer)
            await self._check_size(package, layer)
        return _Source(package, folder, layer, kind, entry)

    async def _check_size(self, package: Package, layer: str) -> None:
        if layer not in self._layer_bytes:
            self._layer_bytes[layer] = await asyncio.to_thread(folder_bytes, self._layers.path(layer))
        size = package.size + self._layer_bytes[layer]
        if size > LIMITS["code_bytes"].default:
            raise exceeded("code_bytes", size, "the package with its dependencies")

    def _cache(self, source: Path) -> DigestCache:
        cache = self._caches.pop(source, None) or DigestCache(self._clock)
        self._caches[source] = cache  # the last used goes last
        while len(self._caches) > _CACHES:
            self._caches.pop(next(iter(self._caches)))
        return cache

    async def _graph(
        self, app: str, ready: _Source, before: AppRecord | None, skip: bool, say: Progress
    ) -> tuple[AppGraph, tuple[str, ...]]:
        code = ready.package.address
        if skip and before and (before.code, before.layer, before.module) == (code, ready.layer, ready.entry):
            served = all(_same(self._functions.get(version.name), version) for version in before.versions)
            if served:
                return before.graph, ()
        say(f"reading the app from {ready.entry}")
        build: Build = await SOURCES[ready.kind].read(self._functions, app=app, code=code, layer=ready.layer, entry=ready.entry)
        graph = check(app, build.graph, self._schedules.check, self._called_hosts)
        self._check_collections(graph)
        return graph, tuple(build.imports)

    # --- applying

    async def _apply(
        self,
        steps: tuple[Step, ...],
        after: AppRecord,
        serving: dict[str, FunctionVersion],
        imports: tuple[str, ...],
        say: Progress,
    ) -> AppRecord:
        self._applying.add(asyncio.current_task())
        published: dict[str, FunctionVersion] = {}
        try:
            await self._put_collections(steps, after.name, say)
            await self._publish(steps, after, imports, published, say)
            names = [full_name(after.name, config.name) for config in after.graph.functions]
            versions = tuple(published.get(name) or serving[name] for name in names)
            after = msgspec.structs.replace(after, versions=versions)
            await self._prepare_declared(after)
            await self._commit(steps, after)
        except BaseException as error:
            await self._roll_back(published, serving, error)
            await self._take_collections_back(steps, after.name)
            raise
        self._records[after.name] = after
        self._on_routes()
        if self._consumers is not None and any(isinstance(step, PutQueues | PutBuckets) for step in steps):
            await self._consumers.consume(after.name, after.graph)
        if self._listeners is not None and any(isinstance(step, PutListeners) for step in steps):
            await self._listeners.listen(after.name, after.graph)
        await self._remove_functions(steps, say)
        return after

    async def _publish(
        self,
        steps: tuple[Step, ...],
        after: AppRecord,
        imports: tuple[str, ...],
        published: dict[str, FunctionVersion],
        say: Progress,
    ) -> None:
        gate = asyncio.Semaphore(_PUBLISHED_AT_ONCE)
        failed = False

        async def one(step: PublishFunction) -> None:
            nonlocal failed
            async with gate:
                if failed:  # do not start what will be rolled back
                    return
                try:
                    published[step.name] = await self._functions.publish(
                        after.name, step.config, code=after.code, layer=after.layer, imports=imports
                    )
                except BaseException:
                    failed = True
                    raise
                say(step.text())

        work = [one(step) for step in steps if isinstance(step, PublishFunction)]
        names = [step.name for step in steps if isinstance(step, PublishFunction)]
        results = await asyncio.gather(*work, return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, MartletError):
                raise DeployFailed(
                    f"function {name} could not be published: {result.message}",
                    remedy=result.remedy or "fix the function and deploy again; the previous version still serves",
                    **{"function": name, **{k: v for k, v in result.details.items() if k != "function"}},
                ) from result
            if isinstance(result, BaseException):
                raise result

    async def _graphql(self, app: str, ready: _Source) -> tuple[Step, ...]:
        """The step that puts `schema.graphql` in place, if it says other than what is there. Raises `DeployFailed`."""
        sdl = ""
        if _SCHEMA in ready.package.names():
            try:
                sdl = await asyncio.to_thread((ready.folder / _SCHEMA).read_text, "utf-8")
            except UnicodeDecodeError as error:
                raise DeployFailed(f"{_SCHEMA} is not UTF-8: {error}", remedy="save it as UTF-8") from error
        if self._schemas is None:
            if sdl:
                raise DeployFailed("this platform has no GraphQL", remedy=f"remove {_SCHEMA} from the app")
            return ()
        if sdl == self._schemas.current(app):
            return ()
        return (PutGraphql(sdl, await self._schemas.check(app, sdl)),)

    async def _put_collections(self, steps: tuple[Step, ...], app: str, say: Progress) -> None:
        """First of all: what the new functions write must meet what the app declares. Taken back if the deployment fails."""
        wanted = [step.config for step in steps if isinstance(step, PutCollection)]
        if not wanted:
            return
        if self._collections is None:
            raise DeployFailed("this platform has no document database", remedy="remove the collections' settings from the app")
        try:
            await self._collections.apply(app, wanted, say)
        except MartletError as error:
            raise DeployFailed(
                f"the app's collections: {error.message}", remedy=error.remedy or "fix the declaration"
            ) from error
        for step in steps:
            if isinstance(step, PutCollection):
                say(step.text())

    async def _take_collections_back(self, steps: tuple[Step, ...], app: str) -> None:
        before = {one.name: one for one in self._records[app].graph.collections} if app in self._records else {}
        names = [step.config.name for step in steps if isinstance(step, PutCollection)]
        if self._collections is not None and names:
            await self._collections.apply(app, [before.get(name, CollectionDeclaration(name=name)) for name in names])

    def _check_collections(self, graph: AppGraph) -> None:
        if self._collections is None or not graph.collections:
            return
        try:
            self._collections.check(graph.collections)
        except MartletError as error:
            raise DeployFailed(error.message, remedy=error.remedy or "fix the declaration and deploy again") from error

    def _check_declared(self, app: str, graph: AppGraph) -> None:
        """Before anything is made, so that one that is refused has not touched what serves. Raises `DeployFailed`."""
        if graph.queues or graph.changes or graph.buckets:
            if self._consumers is None:
                raise DeployFailed("this platform has no queues and buckets", remedy="remove them from the app")
            with _named("queues and buckets"):
                self._consumers.check(app, graph)
        if graph.buses or graph.topics:
            if self._listeners is None:
                raise DeployFailed("this platform has no event buses and topics", remedy="remove them from the app")
            with _named("buses and topics"):
                self._listeners.check(app, graph)

    async def _prepare_declared(self, after: AppRecord) -> None:
        """Queues, buckets, buses and topics that a deployment made and did not commit are empty, and nobody hears them."""
        graph = after.graph
        if self._consumers is not None and (graph.queues or graph.changes or graph.buckets):
            with _named("queues and buckets"):
                await self._consumers.prepare(after.name, graph)
        if self._listeners is not None and (graph.buses or graph.topics):
            with _named("buses and topics"):
                await self._listeners.prepare(after.name, graph)

    async def _commit(self, steps: tuple[Step, ...], after: AppRecord) -> None:
        value = msgspec.json.encode(after)

        def write(tx: Any) -> None:
            for step in steps:
                if isinstance(step, PutSchedule):
                    self._schedules.put(tx, after.name, step.config, step.function)
                elif isinstance(step, RemoveSchedule):
                    self._schedules.remove(tx, after.name, step.name)
            tx.put(keys.encode("apps", "app", after.name), value)

        schema = next((step for step in steps if isinstance(step, PutGraphql)), None)
        if schema is None or self._schemas is None:
            await self._store.transact(write)
            return
        schemas, sdl = self._schemas, schema.sdl

        def write_all(tx: Any) -> None:
            write(tx)
            schemas.put(tx, after.name, sdl)

        with schemas.changing():
            await self._store.transact(write_all)

    async def _roll_back(
        self, published: dict[str, FunctionVersion], serving: dict[str, FunctionVersion], cause: BaseException
    ) -> None:
        for name in reversed(published):
            try:
                if name in serving:
                    await self._functions.restore(serving[name])
                else:
                    await self._functions.remove(name)
            except MartletError as error:
                raise DeployFailed(
                    f"{cause}; and function {name} could not be rolled back: {error.message}",
                    remedy="restart Martlet: at start it serves the last deployment that succeeded",
                    function=name,
                ) from cause

    async def _remove_functions(self, steps: tuple[Step, ...], say: Progress) -> None:
        """After the commit nothing leads to these any more; one that will not go is removed at the next deployment or start."""
        for step in steps:
            if isinstance(step, RemoveFunction):
                try:
                    await self._functions.remove(step.name)
                    say(step.text())
                except MartletError as error:
                    say(f"function {step.name} could not be removed yet: {error.message}")

    async def _destroy(self, name: str) -> None:
        async with self._lock(name), self._turn():
            self._applying.add(asyncio.current_task())
            before = self.get(name)
            steps = teardown(before, {version.name: version for version in self._functions.list()})

            def write(tx: Any) -> None:
                for step in steps:
                    if isinstance(step, RemoveSchedule):
                        self._schedules.remove(tx, name, step.name)
                tx.delete(keys.encode("apps", "app", name))

            await self._store.transact(write)
            del self._records[name]
            self._on_routes()
            if self._consumers is not None and (before.graph.consumers or before.graph.changes or before.graph.subscriptions):
                await self._consumers.consume(name, AppGraph())
            if self._listeners is not None and before.graph.listeners:
                await self._listeners.listen(name, AppGraph())
            await self._remove_functions(steps, _silent)
            await self._garbage.collect(self.referenced)

    # --- what is in use

    @contextmanager
    def _holding(self) -> Iterator[Callable[[str], None]]:
        held: list[str] = []

        def hold(address: str) -> None:
            held.append(address)
            self._held[address] += 1

        try:
            yield hold
        finally:
            for address in held:
                self._held[address] -= 1
            self._held = +self._held

    @contextmanager
    def _claiming(self, app: str, graph: AppGraph) -> Iterator[None]:
        """Full names are unique on the platform, and "a-b" + "c" is also "a" + "b-c": the first app keeps the name, or a
        function of one app would have the queues and buckets of another."""
        names = _full_names(app, graph)
        others = [record for record in self._records.values() if record.name != app]
        taken = {name: record.name for record in others for name in _full_names(record.name, record.graph)}
        for kind, name in names:
            other = self._functions.get(name) if kind == "function" else None
            owner = other.app if other else taken.get((kind, name)) or self._claims.get((kind, name), app)
            if owner != app:
                raise DeployFailed(
                    f"the {kind} name {name} is taken by app {owner}", remedy=f"rename the {kind} or the app", **{kind: name}
                )
        self._claims.update(dict.fromkeys(names, app))
        try:
            yield
        finally:
            for one in names:
                self._claims.pop(one, None)

    def referenced(self) -> set[str]:
        """Content addresses of code and layers that may not be deleted."""
        used = set(self._held) | self._also_used()
        for record in self._records.values():
            used |= {record.code, record.layer}
        for version in self._functions.list():
            used |= {version.code, version.layer}
        return used


def _full_names(app: str, graph: AppGraph) -> list[tuple[str, str]]:
    """Kind and name on the platform of what `graph` declares there."""
    names = [("function", full_name(app, config.name)) for config in graph.functions]
    for queue in graph.queues:
        for suffix in ("", "-dead") if queue.retries is not None else ("",):
            names.append(("queue", f"{app}-{queue.name}{suffix}{'.fifo' if queue.fifo else ''}"))
    names += [("bucket", f"{app}-{bucket.name}") for bucket in graph.buckets]
    names += [("bus", f"{app}-{bus}") for bus in graph.buses if bus != "default"]
    return names + [("topic", f"{app}-{topic}") for topic in graph.topics]


@contextmanager
def _named(declared: str) -> Iterator[None]:
    try:
        yield
    except MartletError as error:
        remedy = error.remedy or "fix the declaration"
        raise DeployFailed(f"the app's {declared}: {error.message}", remedy=remedy) from error


def _silent(text: str) -> None:
    """Progress that nobody reads."""


def _receive(data: bytes, folder: Path) -> None:
    folder.mkdir(parents=True)
    unpack(data, folder)


def _recognise(folder: Path, package: Package) -> tuple[str, str]:
    names = package.names()
    for kind, source in SOURCES.items():
        entry = source.entry_module(folder, names)
        if entry is not None:
            return kind, entry
    raise DeployFailed(
        "the app's folder holds no app.py, main.py or function.py",
        remedy='add one, or name the module in pyproject.toml: [tool.martlet] module = "package.module"',
    )


def _same(serving: FunctionVersion | None, recorded: FunctionVersion) -> bool:
    return serving is not None and (serving.version, serving.code, serving.layer, serving.config) == (
        recorded.version,
        recorded.code,
        recorded.layer,
        recorded.config,
    )


def _decode(value: bytes) -> AppRecord:
    try:
        return msgspec.json.decode(value, type=AppRecord)
    except msgspec.DecodeError as error:
        raise StoreFailed(
            f"an app's record cannot be read: {error}",
            remedy="it was written by a newer Martlet, or is damaged: use that version",
        ) from error
