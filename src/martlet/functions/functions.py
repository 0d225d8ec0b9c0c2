"""Functions: publish, dispatch, build. The pools do the work; this keeps them, and joins them to sandboxes, log and ledger."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from martlet.clock import Clock, token_hex, uuid4_text
from martlet.errors import DeployFailed, LimitExceeded, MartletError, NotFound
from martlet.functions import egress
from martlet.functions.builder import Build, Builder
from martlet.functions.debugging import Session, told
from martlet.functions.instance import CutLog, Instance
from martlet.functions.log_formats import at_level, error_line
from martlet.functions.logs import LogRecord, LogStore
from martlet.functions.pool import Pool
from martlet.functions.register import Register
from martlet.functions.runtimes import RUNTIMES, Ahead, Plan, Runtimes, native_environment
from martlet.functions.sandbox import Ended, HostReport, InstanceSpec, SandboxHost, Started, ZygoteSpec
from martlet.limits import LIMITS, exceeded
from martlet.store import Folders, Reader, Store, Tx, keys
from martlet.telemetry import Registry
from martlet.types import ACCOUNT, FunctionConfig, FunctionVersion, Invocation, Outcome

__all__ = ["Build", "Functions"]

_INSTANCES_AT_MOST = LIMITS["instances"].default
_PAYLOAD_AT_MOST = LIMITS["payload_bytes"].default
_REAP_SECONDS = 1.0
_SAMPLE_NS = 100_000_000
_ZYGOTES_AT_MOST = 24
_DEBUGGER_MB = 256
_HOT_NS = 60_000_000_000  # a zygote that was wanted within this keeps all its stem cells, others one
_FOLLOW_AGAIN_SECONDS = 1.0
_KEPT_AFTER_DEPLOY = 32  # verified instances are kept warm up to this many on the host
# Ends that a handler cannot write into its log itself. Who called over HTTP is not told them either.
_UNSAID = frozenset(
    {"Sandbox.Timedout", "Sandbox.Failure", "Runtime.OutOfMemory", "Runtime.ExitError", "Function.ResponseSizeTooLarge"}
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FunctionVersion).decode


class _Ledger(Protocol):
    def record(self, invocation: Invocation, outcome: Outcome) -> None: ...

    def record_egress(self, function: str, version: int, bytes_out: int, bytes_in: int) -> None: ...


class Functions:
    """The room's face. One per platform; all methods run on the event loop."""

    closed: Mapping[str, MartletError] = MappingProxyType({})  # by app: why its functions take no events

    def __init__(
        self,
        store: Store,
        host: SandboxHost,
        *,
        data: Path,
        clock: Clock,
        logs: LogStore,
        ledger: _Ledger,
        metrics: Registry,
        serve_private: Callable[..., None],  # (socket, version), and what was read from the socket already
        keep_alive_seconds: float = 300.0,
        stem_cells: int = 4,
        region: str = "us-east-1",
        node: str = "",
        session_keys: Callable[[str], tuple[str, str, str]] = lambda function: ("A" * 20, "s" * 40, "t" * 40),
    ) -> None:
        self.clock = clock
        self.logs = logs
        self.report = HostReport(0, (), ())
        self._store = store
        self._host = host
        self._data = data
        self._ledger = ledger
        self._serve_private = serve_private
        self._keep_ns = int(keep_alive_seconds * 1e9)
        self._stem_cells = stem_cells
        self._region = region
        self._register = Register()
        self._versions = self._register.published
        self._pools: dict[str, Pool] = {}  # by the version's key
        self.on_failed: Callable[[FunctionVersion, Invocation, Outcome], None] = lambda *_: None
        self.on_forget: Callable[[Tx, str], None] = lambda *_: None
        self._all: dict[int, tuple[Pool, Instance]] = {}
        self._used: dict[int, str] = {}  # instance → key of its zygote
        self._session_keys = session_keys
        self.runtimes = Runtimes(data, region=region, node=node)
        self._zygotes: dict[str, int] = {}  # key → when it was last wanted
        self._numbers = 0
        self._locks: dict[str, asyncio.Lock] = {}
        self._debugged: dict[Pool, tuple[Session, Plan]] = {}  # pools of one event under a debugger
        self._reaper: asyncio.TimerHandle | None = None
        self._proxies: set[asyncio.Task[None]] = set()
        self._sample = (0, 0, 0)  # when, busy jiffies, all jiffies
        self._host_busy = False
        self._pool_cpu: dict[int, tuple[int, int]] = {}
        self._closing = False
        self._builder = Builder(self, data)
        self.folders = Folders(store, data)
        self._following: asyncio.Task[None] | None = None  # what other nodes published
        self._learned: dict[tuple[str, str, tuple[str, ...]], Ahead] = {}  # layer, Python, imports → what came of them
        self._invocations = metrics.counter("martlet_invocations_total", "Invocations that ran")
        self._function_errors = metrics.counter("martlet_function_errors_total", "Invocations that ended in a function error")
        self._refusals = metrics.counter("martlet_refusals_total", "Invocations refused before they ran")
        self._colds = metrics.counter("martlet_cold_starts_total", "Invocations that were the first of their instance")
        self._metrics = metrics
        through = "through the egress proxy"
        self._egress_out = metrics.counter("martlet_egress_bytes_out_total", f"Bytes that functions sent {through}")
        self._egress_in = metrics.counter("martlet_egress_bytes_in_total", f"Bytes that functions got {through}")
        metrics.gauge("martlet_instances", "Running sandboxes", lambda: [({}, float(len(self._all)))])

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> HostReport:
        """Open the sandbox host, read the registry, and boot the zygotes that the newest functions need."""
        low, high = keys.prefix_range("fn")
        self._store.watch(low, high, self._others_published)
        self.report = await self._host.open(
            self._on_started, self._on_ended, lambda text: self.logs.platform("_platform", text)
        )
        self._store.read(self._load)
        for version in list(self._versions.values()):
            await self.share(version)
        newest = sorted(self._versions.values(), key=lambda version: -version.created_at_ms)
        self._want(self.runtimes.bare(), hot=False)
        for version in newest[:4]:
            self._want_for(version)
        for version in self._versions.values():
            if version.config.provisioned:
                self._keep_provisioned(self._pool(version))
        self._reaper = asyncio.get_running_loop().call_later(_REAP_SECONDS, self._reap)
        return self.report

    def _load(self, reader: Reader) -> None:
        low, high = keys.prefix_range("fn")
        while True:
            page = reader.scan(low, high, 1000)
            for _, value in page:
                version = _decode(value)
                self._versions[version.name] = version
                self._register.share(version.name).reserved = version.config.reserved
            if len(page) < 1000:
                return
            low = page[-1][0] + b"\x00"

    async def close(self) -> None:
        """End every instance. Events that still run end with an error."""
        self._closing = True
        if self._reaper is not None:
            self._reaper.cancel()
        for pool in list(self._pools.values()):
            pool.retire(None)
        for task in (*self._proxies, *([self._following] if self._following is not None else ())):
            task.cancel()
        await self._host.close()
        for pool, instance in list(self._all.values()):
            pool.on_ended(instance, Ended(instance.number, signal=9))
        self._all.clear()

    # --- the registry ---------------------------------------------------------------------------------------------

    def get(self, name: str) -> FunctionVersion | None:
        """What answers to this name: of an app, or $LATEST or another version (name:1) of the Lambda API."""
        return self._versions.get(name) or self._register.installed.get(name)

    def list(self) -> list[FunctionVersion]:
        """The functions of apps. Those made through the Lambda API are not among them: see `all`."""
        return sorted(self._versions.values(), key=lambda version: version.name)

    def find(self, function: str) -> FunctionVersion | None:
        """A version that `dispatch` would take for "f", "f:3", "f:$LATEST" or "f:alias"."""
        return self._register.resolve(function, choose=False)

    def all(self) -> tuple[FunctionVersion, ...]:
        """Everything that can be called: functions of apps, $LATEST and published versions of the Lambda API."""
        return (*self._versions.values(), *self._register.installed.values())

    async def build(self, *, app: str, code: str, layer: str, module: str) -> Build:
        """Import `module` of a stored code folder in a sandbox: its resource graph and what it imports.

        Leaves the compiled modules in the code folder. Raises DeployFailed with the place and the cause.
        """
        known = next((one for one in self._versions.values() if one.app == app and one.layer == layer), None)
        imports = known.imports if known else ()
        return await self._builder.build(app=app, code=code, layer=layer, module=module, imports=imports)

    async def look_ahead(self, code: str, layer: str, runtime: str, imports: tuple[str, ...]) -> None:
        """Find out in a sandbox which of `imports` ("package" or "package:name,name") a zygote can have imported before a
        function with this code starts, and let those that start from now on use it. What cannot be learned is left out."""
        if RUNTIMES[runtime].kind != "python":
            return
        known = self._learned.get((layer, runtime, imports))
        if known is None:
            known = await self._builder.learn(code, layer, runtime, imports, self._region)
            self._learned[layer, runtime, imports] = known
        await asyncio.to_thread(self.runtimes.ahead.put, code, known)

    def expect(self, version: FunctionVersion) -> None:
        """An event for this version may come soon: if its zygote has much to import, it begins now."""
        if self.runtimes.ahead.get(version.code) is not None:
            self._want_for(version)

    async def publish(
        self, app: str, config: FunctionConfig, *, code: str, layer: str, imports: tuple[str, ...]
    ) -> FunctionVersion:
        """Verify a new version in a sandbox, store it, and let it serve. Until then, and if it fails, the old one serves."""
        name = f"{app}-{config.name}"
        async with self._locks.setdefault(name, asyncio.Lock()):
            previous = self._versions.get(name)
            version = FunctionVersion(
                name=name,
                app=app,
                version=(previous.version if previous else 0) + 1,
                config=config,
                code=code,
                layer=layer,
                imports=imports,
                created_at_ms=self.clock.now_ms(),
                region=self._region,
            )
            self.runtimes.check(config)
            await asyncio.to_thread(self.runtimes.prepare, version)
            self.runtimes.plan(version)  # raises for what cannot run together
            pool = self._new_pool(version)
            if config.reserved != 0:
                await self._verify(pool)
            try:
                await self.share(version)
                await self._store.transact(lambda tx: tx.put(keys.encode("fn", name), _encode(version)))
            except BaseException:
                pool.retire(None)
                raise
            self._register.share(name).reserved = config.reserved
            self._swap(name, version, pool)
            if len(self._all) > _KEPT_AFTER_DEPLOY and not config.provisioned:
                pool.evict_idle()  # many functions at once: back to zero at once
            return version

    async def _verify(self, pool: Pool) -> None:
        await pool.warm(max(1, pool.version.config.provisioned))
        if pool.init_error is not None:
            pool.retire(None)
            error = msgspec.json.decode(pool.init_error.payload)
            stack = "".join(line for line in error.get("stackTrace") or () if isinstance(line, str))
            raise DeployFailed(
                f"function {pool.version.config.name}: {error.get('errorType')}: {error.get('errorMessage')}",
                function=pool.version.config.name,
                stack=stack,
            )
        if not pool.instances:
            pool.retire(None)
            raise DeployFailed(f"function {pool.version.config.name}: no room for another sandbox on this host")

    def _swap(self, name: str, version: FunctionVersion, pool: Pool) -> None:
        self._versions[name] = version
        self._replace_pool(pool)

    def _replace_pool(self, pool: Pool) -> None:
        old = self._pools.get(pool.version.key)
        self._pools[pool.version.key] = pool
        share = pool.share
        share.provisioned = [one for one in share.provisioned if one is not old]
        if pool.version.config.provisioned:
            share.provisioned.append(pool)
        if old is not None:
            old.retire(pool)

    async def restore(self, previous: FunctionVersion) -> None:
        """Back to an earlier version, without a check: it has served before."""
        async with self._locks.setdefault(previous.name, asyncio.Lock()):
            await self.share(previous)
            await self._store.transact(lambda tx: tx.put(keys.encode("fn", previous.name), _encode(previous)))
            self._register.share(previous.name).reserved = previous.config.reserved
            self._swap(previous.name, previous, self._new_pool(previous))

    async def remove(self, name: str) -> None:
        """Forget a function. Its running events finish. Raises NotFound."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._versions:
                raise NotFound(f"no function {name}")

            def forget(tx: Tx) -> None:
                tx.delete(keys.encode("fn", name))
                self.on_forget(tx, name)

            await self._store.transact(forget)
            del self._versions[name]
            self._drop_pool(name)
        self._register.forget(name)
        self._locks.pop(name, None)

    # --- other nodes

    async def share(self, version: FunctionVersion) -> None:
        """Let code and layers of a version be on this node, and within reach of all others. What is nowhere is said by name."""
        for kind, addresses in (
            ("code", (version.code,)),
            ("layers", (version.layer,)),
            ("layers-lambda", version.config.layers),
        ):
            for address in addresses:
                if await self.folders.have(kind, address):
                    await self.folders.keep(kind, address)
                else:
                    self.logs.platform(
                        version.name, f"{kind}/{address} is neither on this node nor in the store: deploy it again"
                    )

    def _others_published(self, changed: Sequence[bytes] | None) -> None:
        names = None if changed is None else {str(keys.decode(key)[1]) for key in changed}
        self._following = asyncio.get_running_loop().create_task(self._follow(names, self._following))

    async def followed(self) -> None:
        """Return when what other nodes had published by now serves here."""
        if self._following is not None:
            await asyncio.wait([self._following])

    async def _follow(self, names: set[str] | None, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        pause = _FOLLOW_AGAIN_SECONDS
        while names is None or names:
            try:
                if names is None:
                    rows = await self._store.look(lambda reader: reader.scan(*keys.prefix_range("fn"), limit=100_000))
                    names = {*self._versions, *(str(keys.decode(key)[1]) for key, _ in rows)}
                for name in sorted(names):
                    await self._follow_one(name)
                    names.discard(name)
            except (MartletError, OSError) as error:
                self.logs.platform("_platform", f"what another node published does not serve here yet: {error}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, 60.0)

    async def _follow_one(self, name: str) -> None:
        """Serve what the store says, published by another node."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            row = await self._store.look(lambda reader: reader.get(keys.encode("fn", name)))
            known = self._versions.get(name)
            if row is None:
                if known is not None:
                    del self._versions[name]
                    self._drop_pool(name)
                    self._register.forget(name)
                return
            version = _decode(row)
            if version != known:
                await self.share(version)
                await asyncio.to_thread(self.runtimes.prepare, version)
                self._register.share(name).reserved = version.config.reserved
                self._swap(name, version, self._new_pool(version))
                self._want_for(version)

    def _drop_pool(self, key: str) -> None:
        pool = self._pools.pop(key, None)
        if pool is not None:
            pool.share.provisioned = [one for one in pool.share.provisioned if one is not pool]
            pool.retire(None)

    # --- versions of the Lambda API -------------------------------------------------------------------------------

    def install(self, version: FunctionVersion) -> None:
        """Let `version` answer to its key, from the next event on; one that it replaces finishes what it has.

        Nothing is checked and nothing stored: the control plane has done both. Errors of its code come at invocation.
        """
        self._register.installed[version.key] = version
        if version.key in self._pools or version.config.provisioned:
            self._replace_pool(self._new_pool(version))

    async def warm_up(self, version: FunctionVersion, count: int) -> str:
        """`install` once `count` instances are ready, so that nobody waits for them. "" or why they could not be had; then
        nothing has changed."""
        pool = self._new_pool(version)
        await pool.warm(count)
        if pool.init_error is not None or sum(1 for one in pool.instances.values() if one.ready) < count:
            pool.retire(None)
            return "FUNCTION_ERROR_INIT_FAILURE" if pool.init_error is not None else "INSUFFICIENT_CAPACITY"
        if self._closing:
            pool.retire(None)
            return "closing"
        self._register.installed[version.key] = version
        self._replace_pool(pool)
        return ""

    def is_warm(self, key: str) -> bool:
        """Whether instances of this version are there now."""
        pool = self._pools.get(key)
        return pool is not None and bool(pool.instances)

    def ready_instances(self, key: str) -> int:
        pool = self._pools.get(key)
        return sum(1 for one in pool.instances.values() if one.ready and not one.draining) if pool is not None else 0

    def uninstall(self, key: str) -> None:
        """This version answers no more. What runs finishes; what waits is refused."""
        self._register.installed.pop(key, None)
        self._drop_pool(key)
        if ":" not in key:
            self._register.forget(key)

    def route_aliases(self, name: str, aliases: Mapping[str, tuple[str] | tuple[str, str, float]]) -> None:
        """From now on these are the function's aliases: each is a version, or that, a second one, and that one's share."""
        self._register.route(name, aliases)

    def reserve(self, name: str, reserved: int | None) -> None:
        """Most events of this function at one time, whatever their version. None: no limit of its own."""
        self._register.share(name).reserved = reserved

    def reserved(self, name: str) -> int | None:
        return self._register.share(name).reserved

    # --- the way of an event --------------------------------------------------------------------------------------

    def dispatch(self, invocation: Invocation) -> None:
        """Run an event; `invocation.on_done` is called exactly once, possibly before this returns (a refusal)."""
        pool = self._pools.get(invocation.function)
        if pool is None or ":" in invocation.function:
            version = self._register.resolve(invocation.function)
            if version is None:
                self._refuse(invocation, Outcome(refusal=NotFound(f"no function {invocation.function}")))
                return
            pool = self._pool(version)
            if not invocation.arn and invocation.function != version.key:
                qualifier = invocation.function.partition(":")[2]
                invocation.arn = f"arn:aws:lambda:{version.region}:{ACCOUNT}:function:{version.name}:{qualifier}"
            invocation.function = version.name
        if len(invocation.payload) > _PAYLOAD_AT_MOST:
            error: LimitExceeded = exceeded("payload_bytes", len(invocation.payload), f"event for {invocation.function}")
            self._refuse(invocation, Outcome(refusal=error))
            return
        if self.closed and (refusal := self.closed.get(pool.version.app)) is not None:
            self._refuse(invocation, Outcome(refusal=refusal))
            return
        pool.submit(invocation)

    async def invoke(
        self, name: str, payload: bytes, *, source: str = "api", want_log_tail: bool = False, **more: str
    ) -> tuple[Invocation, Outcome]:
        """`dispatch` for those who can wait. `more`: trace_id, client_context, request_id."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        request_id = more.pop("request_id", "") or uuid4_text()

        def finish(_: Invocation, outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        invocation = Invocation(name, payload, request_id, finish, source=source, want_log_tail=want_log_tail, **more)  # type: ignore[arg-type]
        self.dispatch(invocation)
        return invocation, await done

    async def debug(
        self, function: str, payload: bytes, *, port: int = 0, say: Callable[[str], None]
    ) -> tuple[Invocation, Outcome]:
        """Run one event in an instance of its own that waits for a debugger on the host's loopback, `port` or a free one.

        `say` gets lines that tell what to do. Its time limit is `debug_seconds`; it has some memory more, for the debugger.
        Raises NotFound, Conflict (port taken), Unsupported (runtime), DeployFailed (no debugger). Whoever is cancelled here
        ends the instance."""
        found = self.find(function)
        if found is None:
            raise NotFound(f"no function {function}", remedy="see `martlet functions`")
        if len(payload) > _PAYLOAD_AT_MOST:
            raise exceeded("payload_bytes", len(payload), f"event for {function}")
        seconds = LIMITS["debug_seconds"].default
        alone = msgspec.structs.replace(found.config, concurrency=1, provisioned=0)
        longer = msgspec.structs.replace(alone, timeout_seconds=float(seconds), memory_mb=alone.memory_mb + _DEBUGGER_MB)
        version = msgspec.structs.replace(found, config=alone)
        session = Session(direct=self.report.level == 0)
        await session.open(port)
        try:
            plan, init = self.runtimes.debugged(version, self._init(version), self.clock.now_ms(), session.inside())
            version = msgspec.structs.replace(found, config=longer)
            pool = Pool(version, self, init, instance=plan.instance, patient=True)
            self._debugged[pool] = (session, plan)
            for line in told(function, plan.runtime.kind, session.port, seconds):
                say(line)
            try:
                return await self._run_in(pool, payload)
            finally:
                pool.retire(None)
                for instance in list(pool.instances.values()):
                    self._host.kill(instance.number)
                self._zygotes.pop(plan.zygote.key, None)
                self._host.drop_zygote(plan.zygote.key)
                del self._debugged[pool]
        finally:
            await session.close()

    async def _run_in(self, pool: Pool, payload: bytes) -> tuple[Invocation, Outcome]:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def finish(_: Invocation, outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        invocation = Invocation(pool.version.name, payload, uuid4_text(), finish, source="debug", want_log_tail=True)
        pool.submit(invocation)
        return invocation, await done

    def _refuse(self, invocation: Invocation, outcome: Outcome) -> None:
        self._refusals.add()
        invocation.on_done(invocation, outcome)

    def finished(self, pool: Pool, invocation: Invocation, outcome: Outcome, lines: bytes) -> None:
        """Log, ledger, metrics; then the answer."""
        if outcome.refusal is not None:
            self._ledger.record(invocation, outcome)
            self._refuse(invocation, outcome)
            return
        self._invocations.add()
        if invocation.cold:
            self._colds.add()
        status = ""
        if outcome.error:
            self._function_errors.add()
            self.on_failed(pool.version, invocation, outcome)
            status = "timeout" if outcome.error_type == "Sandbox.Timedout" else "error"
        config = pool.version.config
        invocation.memory_mb = config.memory_mb
        if isinstance(lines, CutLog):
            lines = self.logs.fitting(lines, lines.lost)
        if config.log_format == "JSON":
            lines = at_level(lines, config.log_level)
        record = LogRecord(
            pool.version.name,
            invocation.version,
            invocation.request_id,
            invocation.started_at_ms,
            invocation.queue_us,
            invocation.init_us if invocation.cold else None,
            invocation.duration_us,
            invocation.cpu_us,
            config.memory_mb,
            invocation.peak_mb,
            status,
            outcome.error_type,
            invocation.trace_id,
            invocation.source,
            lines if outcome.error_type not in _UNSAID else self._with_cause(lines, invocation, outcome, config),
            qualifier=pool.version.qualifier,
            stream=invocation.log_stream,
            system=config.system_log_level,
        )
        self.logs.append(record, is_cut=True)
        if invocation.want_log_tail:
            invocation.log_tail = "\n".join(record.render()).encode() + b"\n"
        self._ledger.record(invocation, outcome)
        invocation.on_done(invocation, outcome)

    def _with_cause(self, lines: bytes, invocation: Invocation, outcome: Outcome, config: FunctionConfig) -> bytes:
        """The log of an event that did not end as its handler meant, with the reason as its last line."""
        message = str(msgspec.json.decode(outcome.payload).get("errorMessage", ""))
        gap = b"\n" if lines and not lines.endswith(b"\n") else b""
        if config.log_format == "JSON":
            return lines + gap + error_line(self.clock.now_ms(), invocation.request_id, outcome.error_type, message)
        return b"%b%b[ERROR] %b: %b\n" % (lines, gap, outcome.error_type.encode(), message.replace("\n", " ").encode())

    # --- what pools ask for ---------------------------------------------------------------------------------------

    def start_instance(self, pool: Pool, instance: Instance) -> bool:
        if self._closing or (len(self._all) >= _INSTANCES_AT_MOST and not self._make_room(pool)):
            return False
        self._numbers += 1
        instance.number = self._numbers
        version, config = pool.version, pool.version.config
        try:
            plan = self._debugged[pool][1] if pool in self._debugged else self.runtimes.plan(version)
        except DeployFailed as error:  # its program is gone since it was published
            self.logs.platform(version.name, f"no sandbox could be started: {error.message}; {error.remedy}")
            return False
        spec = InstanceSpec(
            zygote=self._want(plan.zygote, hot=bool(pool.waiting) and pool not in self._debugged),
            opt=plan.opt,
            code=str(self._data / "code" / version.code),
            memory_mb=config.memory_mb,
            tmp_mb=config.tmp_mb,
            processes=LIMITS["function_processes"].default,
            file_descriptors=LIMITS["function_file_descriptors"].default,
        )
        try:
            pipes = instance.open_pipes()
        except OSError as error:
            self.logs.platform(version.name, f"no sandbox could be started: {error}")
            instance.close()
            return False
        self._all[instance.number] = (pool, instance)
        self._used[instance.number] = spec.zygote
        pool.prime(instance)
        self._host.start(instance.number, spec, pipes)
        return True

    def _make_room(self, pool: Pool) -> bool:
        others = sorted(self._pools.values(), key=lambda other: other.last_used_ns)
        return any(other is not pool and other.evict_idle() for other in others)

    def keys_of(self, version: FunctionVersion) -> tuple[str, str, str]:
        """Access key id, secret and session token for one instance; of the same lengths each time."""
        return self._session_keys(version.key)

    def kill_instance(self, instance: Instance) -> None:
        kill = partial(self._host.kill, instance.number)
        if not instance.part(kill):
            kill()

    def note(self, pool: Pool, text: str) -> None:
        self.logs.platform(pool.version.name, text)

    def connected(self, pool: Pool, listener: int, sock: socket.socket, begun: bytes = b"") -> None:
        if listener == 0:
            self._serve_private(sock, pool.version, *([begun] if begun else []))
        elif pool in self._debugged:
            self._debugged[pool][0].adopt(sock, partial(self._let_out, pool))
        else:
            self._let_out(pool, sock)

    def _let_out(self, pool: Pool, sock: socket.socket) -> None:
        allowed = pool.version.config.egress
        if allowed == "none":
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(egress.serve(sock, allowed, partial(self._meter_egress, pool.version)))
        self._proxies.add(task)
        task.add_done_callback(self._proxies.discard)

    def _meter_egress(self, version: FunctionVersion, sent: int, received: int) -> None:
        self._ledger.record_egress(version.name, version.version, sent, received)
        self._egress_out.add(sent)
        self._egress_in.add(received)

    def saturated(self, pool: Pool) -> bool:
        now = self.clock.monotonic_ns()
        when, busy_before, all_before = self._sample
        if now - when > _SAMPLE_NS:
            busy, total = _processor_time()
            if total > all_before:
                self._host_busy = when > 0 and (busy - busy_before) / (total - all_before) > 0.9
            self._sample = (now, busy, total)
        if not self._host_busy:
            return False
        seen_at, seen_cpu = self._pool_cpu.get(id(pool), (0, 0))
        if now - seen_at > _SAMPLE_NS:
            self._pool_cpu[id(pool)] = (now, pool.cpu_us_total)
            share = (pool.cpu_us_total - seen_cpu) * 1000 / max(1, now - seen_at) / (os.cpu_count() or 1)
            return seen_at > 0 and share > 0.25
        return True

    # --- pools, zygotes, sandboxes --------------------------------------------------------------------------------

    def _pool(self, version: FunctionVersion) -> Pool:
        pool = self._pools.get(version.key)
        if pool is None:
            pool = self._pools[version.key] = self._new_pool(version)
            if version.config.provisioned:
                pool.share.provisioned.append(pool)
        return pool

    def _new_pool(self, version: FunctionVersion) -> Pool:
        text = "Duration of invocations"
        durations = self._metrics.histogram("martlet_invocation_duration_seconds", text, function=version.name)
        share = self._register.share(version.name)
        try:
            plan = self.runtimes.plan(version)
        except DeployFailed:  # said when an instance is to be started
            return Pool(version, self, self._init(version), durations, share=share)
        init = self.runtimes.init(version, plan, self._init(version), self.clock.now_ms())
        return Pool(version, self, init, durations, plan.instance, share)

    def _keep_provisioned(self, pool: Pool) -> None:
        task = asyncio.get_running_loop().create_task(pool.warm(pool.version.config.provisioned))
        self._proxies.add(task)
        task.add_done_callback(self._proxies.discard)

    def _want(self, spec: ZygoteSpec, *, hot: bool) -> str:
        """The zygote's key; boots it unless it is there. `hot`: an event wants it."""
        key = spec.key
        if key not in self._zygotes and len(self._zygotes) >= _ZYGOTES_AT_MOST:
            self._drop_oldest_zygote()
        now = self.clock.monotonic_ns()
        self._zygotes[key] = now if hot else self._zygotes.get(key, now - _HOT_NS)
        self._park(key, now)
        self._host.ensure_zygote(spec)
        return key

    def _want_for(self, version: FunctionVersion) -> None:
        try:
            self._want(self.runtimes.plan(version).zygote, hot=False)
        except DeployFailed as error:
            self.logs.platform(version.name, f"{error.message}; {error.remedy}")

    def _park(self, key: str, now: int) -> None:
        hot = now - self._zygotes[key] < _HOT_NS
        self._host.park(key, self._stem_cells if hot else min(1, self._stem_cells))

    def _drop_oldest_zygote(self) -> None:
        used = set(self._used.values())
        for key in sorted(self._zygotes, key=self._zygotes.__getitem__):
            if key not in used:
                del self._zygotes[key]
                self._host.drop_zygote(key)
                return

    def _on_started(self, started: Started) -> None:
        found = self._all.get(started.number)
        if found is None or found[1].closed:
            for fd in (*started.listeners, *started.usage, started.log):
                if fd >= 0:
                    os.close(fd)
            return
        found[0].on_started(found[1], started)

    def _on_ended(self, ended: Ended) -> None:
        self._used.pop(ended.number, None)
        found = self._all.pop(ended.number, None)
        if found is not None:
            found[0].on_ended(found[1], found[1].interpret(ended))

    def _reap(self) -> None:
        now = self.clock.monotonic_ns()
        for key in self._zygotes:
            self._park(key, now)
        for pool in list(self._pools.values()):
            pool.reap(now, self._keep_ns)
            if pool.version.config.provisioned > len(pool.instances) and pool.init_error is None:
                self._keep_provisioned(pool)
        self._reaper = asyncio.get_running_loop().call_later(_REAP_SECONDS, self._reap)

    def _init(self, version: FunctionVersion) -> dict[str, Any]:
        """What the runtime in the sandbox is told (frame INIT), Lambda's environment included."""
        config = version.config
        group = f"/aws/lambda/{version.name}"
        day = datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC).strftime("%Y/%m/%d")
        stream = f"{day}/[{version.qualifier}]{token_hex(16)}"  # the pool gives each instance an end of its own
        return {
            "mode": "serve",
            "handler": config.handler,
            "environment": native_environment(version, self._region, stream, self.keys_of(version)),
            "concurrency": config.concurrency,
            "function_name": version.name,
            "function_version": version.qualifier,
            "memory_mb": config.memory_mb,
            "log_group": group,
            "log_stream": stream,
            "response_bytes": LIMITS["response_bytes"].default,
        }

    # --- seen -----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Sandbox level, and a row for each function that ran."""
        rows = []
        for name in sorted(self._pools):
            pool = self._pools[name]
            counts = pool.counts()
            rows.append(
                {
                    "function": name,
                    "app": pool.version.app,
                    "runtime": pool.version.runtime,
                    "version": pool.version.version,
                    **counts,
                    "cold": pool.cold_starts,
                    "warm": pool.warm_starts,
                    "errors": pool.errors,
                    "refused": pool.refused,
                    "p50_ms": pool.durations.quantile_us(0.5) / 1000,
                    "p99_ms": pool.durations.quantile_us(0.99) / 1000,
                }
            )
        sandbox = {"level": self.report.level, "features": list(self.report.features), "missing": list(self.report.missing)}
        return {"sandbox": {**sandbox, **self._host.stats()}, "instances": len(self._all), "functions": rows}


def _processor_time() -> tuple[int, int]:
    """(busy, all) jiffies of the host since its start (proc(5), /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)
