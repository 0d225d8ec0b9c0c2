"""The composition root: reads settings, picks adapters by name, wires the rooms, and runs them until told to stop.

This is the one module that knows every room. It holds no rule of its own beyond the order in which things start and stop.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from martlet import __version__
from martlet.apps import Apps
from martlet.apps.apis import Apis, http_api_from, rest_api_from
from martlet.apps.archive import UPLOAD_BYTES
from martlet.apps.declared import Declared
from martlet.apps.layers import Layers
from martlet.apps.stacks.sleeping import SleepingStacks
from martlet.apps.zips import Zips
from martlet.auth import (
    INVOKE,
    Accesses,
    AuditLog,
    Auth,
    Identities,
    Sessions,
    authorize,
    function_principal,
    named,
    role_for_service,
    with_role,
)
from martlet.clock import Clock
from martlet.config import Settings, environment
from martlet.documents import Documents, Usage
from martlet.documents.declared import Declared as DeclaredCollections
from martlet.documents.dynamodb import DynamoDb, DynamoDbStreams, Tables
from martlet.documents.rules import Rules
from martlet.errors import AccessDenied, DeployFailed, InvalidInput, MartletError, StartFailed
from martlet.functions import Functions
from martlet.functions.control import Control
from martlet.functions.log_groups import LogGroups
from martlet.functions.logs import LogStore
from martlet.functions.runtimes import RUNTIMES, nearest
from martlet.functions.sandbox import SandboxHost
from martlet.gateway.apis import ApiEdge, ManagementApi
from martlet.gateway.apis import check as check_api
from martlet.gateway.apis.access_log import AccessLog
from martlet.gateway.apis.backend import Backend
from martlet.gateway.asgi import AsgiHandler
from martlet.gateway.edge import Edge
from martlet.gateway.http import HttpServer
from martlet.gateway.visitors import Visitors
from martlet.limits import LIMITS
from martlet.metering import Budgets, Metering
from martlet.objects import S3, AppBuckets, BucketFiles, Lifecycle, Objects, folder_owner
from martlet.protocols import Forward, Rooms, archives, subscriptions
from martlet.protocols import app as protocols_app
from martlet.protocols import s3 as s3_face
from martlet.protocols.auditing import auditor
from martlet.protocols.documents import CheckedDocuments
from martlet.protocols.graphql.deploying import AppSchemas
from martlet.protocols.hosts import guarded
from martlet.protocols.universal import Universal
from martlet.protocols.user_documents import UserDocuments
from martlet.protocols.users import public as users_face
from martlet.queues import Queues, Sqs
from martlet.secrets import Secrets, Ssm, Vault, is_in_use, key_source
from martlet.services import SERVICES, CloudFormation, Lambda
from martlet.store import Store, places
from martlet.telemetry import Registry
from martlet.triggers import EventSources, ObjectTargets, Target, Triggers
from martlet.triggers.buses import Buses
from martlet.triggers.given_up import GivenUp
from martlet.triggers.results import Results
from martlet.types import ACCOUNT, ApiConfig, FunctionVersion, Principal, Route, UsersConfig
from martlet.users import Users

__all__ = ["ENGINES", "SANDBOXES", "Server"]

ENGINES = {name: f"martlet.store.engines.{module}:open_engine" for name, module in places.MODULES.items()}
SANDBOXES = {
    "isolated": "martlet.functions.sandboxes.isolated:IsolatedHost",
    "process": "martlet.functions.sandboxes.process:ProcessHost",
}


BACKENDS = {
    "disk": "martlet.objects.backends.disk:open_backend",
    "elsewhere": "martlet.objects.backends.elsewhere:open_backend",
    "remote": "martlet.objects.backends.remote:open_backend",
}
_GRACE_SECONDS = 30.0
_MINIMUM_LEVEL = 2
_KEEP_LOG_MS = 24 * 3_600_000
if TYPE_CHECKING:
    from martlet.apps.stacks.stacks import Stacks

T = TypeVar("T")


class Server:
    """One platform. `start` returns when it serves; `stop` finishes what was accepted and leaves nothing behind."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.data = settings.data_path
        self.clock = clock or Clock()
        self.metrics = Registry()
        self.port = self.api_port = 0
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._principals: dict[tuple[str, int, int], Principal] = {}
        self._unlock: Callable[[], None] = lambda: None  # the data folder, of a node of a shared database
        self._results = Results()
        self._rules: dict[str, dict[str, Rules]] = {}
        self._forward: Forward | None = None
        self._stored_code: Callable[[str, str, str], Awaitable[bytes]] | None = None
        self._started_at_ms = self.clock.now_ms()

    # --- start ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring the rooms up, ground floor first. Raises StartFailed with cause and remedy; then nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self._close_all()
            raise

    async def _start(self) -> None:
        self._prepare_data()
        self._raise_descriptors()
        await self._open_store()
        await self._start_auth()
        self._start_metering()
        self.logs = LogStore(self.data / "logs", self.clock)
        self._closers.append(self.logs.close)
        self.log_groups = LogGroups(self.logs, self.store, self.clock)
        self.functions = self._make_functions()
        self.auth.acting = self._acting
        self._closers.append(self.functions.close)
        await self._start_sandboxes()
        await self._start_control()
        await self._start_documents()
        await self._start_tables()
        await self._start_queues()
        await self._start_objects()
        # The data folder, whose name the node has, is this process's alone: leases that a killed one left are ours at once.
        self.triggers = Triggers(
            self.store, self.clock, self.functions.dispatch, region=self.settings.region, holder=self.store.node
        )
        self._make_event_sources()
        await self._start_buses()
        self.apps = self._make_apps()
        self._closers.append(self.apps.close)
        self.apis = Apis(self.store, on_apis=self._on_apis, check=_check_api)
        self.stacks = SleepingStacks(self.store, self._open_stacks)
        self._closers.append(self.stacks.close)
        await self._listen()
        self._closers.append(self._release_receivers)
        await self.apps.load()
        used = self._used_elsewhere()
        await asyncio.to_thread(self.functions.runtimes.ahead.collect, used)
        await self.apis.load()
        self._on_urls()
        await self.stacks.load()
        self._on_routes()
        self.users.start()
        await self.triggers.start()
        self._closers.append(self.triggers.stop)
        await self.event_sources.start()
        self._closers.append(self.event_sources.stop)
        maintenance = asyncio.get_running_loop().create_task(self._maintain())
        self._closers.append(lambda: _cancelled(maintenance))
        await self.store.announce(self._endpoint())
        self._write_endpoint()
        _settle_memory()

    def _start_metering(self) -> None:
        try:
            self.metering = Metering(self.store, self.clock, self.settings.prices)
        except InvalidInput as error:
            raise StartFailed(f"MARTLET_PRICES: {error.message}", remedy=error.remedy) from error
        self.metering.app_of = self._app_of
        self.metering.start()
        self._closers.append(self.metering.stop)

    async def _start_budgets(self) -> None:
        async def tell(function: str, event: bytes) -> None:
            await self._enqueue(function, event, "")

        self.budgets = Budgets(self.store, self.clock, self.metering, tell)
        self.functions.closed = self.budgets.closed
        await self.budgets.start()
        self._closers.append(self.budgets.stop)

    def _app_of(self, function: str) -> str:
        version = self.functions.get(function)
        return version.app if version is not None else ""

    async def _start_auth(self) -> None:
        self.auth = Auth(self.store, self.clock)
        self.audit, self.access = AuditLog(self.store, self.clock), Accesses(self.store, self.clock)
        self.audit.start()
        self._closers += [self.audit.stop, self.access.stop]
        await self.auth.ensure_root(self.data / "credentials.json")

    async def _open_store(self) -> None:
        """The file in the data folder, or a database, of which this is one node."""
        if not self.settings.store:
            self.store = await Store.open(self.data / "store", clock=self.clock, engine=ENGINES["sqlite"])
            self._closers.append(self.store.close)
            return
        self.store = await Store.open(self.settings.store, clock=self.clock, engine=ENGINES["postgresql"])
        self._closers.append(self.store.close)
        self._unlock = await places.join(self.store, self.data, self._lost)

    def _lost(self, why: MartletError) -> None:
        """This node may write no more: whatever it would still do is refused by the store, so it stops."""
        print(f"stopping: {why.message}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    def _prepare_data(self) -> None:
        remedy = "choose another folder with --data DIR, or make this one writable"
        if self.data.exists() and not self.data.is_dir():
            raise StartFailed(f"data folder {self.data} is a file, not a folder", remedy="give a folder: --data DIR")
        try:
            self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("code", "layers", "logs"):
                (self.data / name).mkdir(exist_ok=True)
        except OSError as error:
            raise StartFailed(f"data folder {self.data}: {error.strerror}", remedy=remedy) from error

    def _raise_descriptors(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def _make_functions(self) -> Functions:
        module, _, name = SANDBOXES.get(self.settings.sandbox, "").partition(":")
        if not name:
            known = ", ".join(sorted(SANDBOXES))
            raise StartFailed(f"there is no sandbox {self.settings.sandbox!r}", remedy=f"choose one of: {known}")
        python = self.settings.python
        if python and not (os.path.isfile(python) and os.access(python, os.X_OK)):
            raise StartFailed(f"MARTLET_PYTHON={python} is not a program", remedy="name a Python interpreter, or unset it")
        # Named after the folder, so that the next start on it clears what a killed one left.
        identity = "d" + hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:12]
        host: SandboxHost = getattr(importlib.import_module(module), name)(
            identity, self.settings.python, self.settings.stem_cells
        )
        return Functions(
            self.store,
            host,
            data=self.data,
            clock=self.clock,
            logs=self.logs,
            ledger=self.metering.functions,
            metrics=self.metrics,
            serve_private=self._serve_private,
            keep_alive_seconds=self.settings.keep_alive_seconds,
            stem_cells=self.settings.stem_cells,
            region=self.settings.region,
            node=self.settings.node,
            session_keys=self.auth.instances.make,
        )

    async def _start_sandboxes(self) -> None:
        report = await self.functions.start()
        if self.settings.sandbox == "isolated" and report.level < _MINIMUM_LEVEL:
            missing = "; ".join(report.missing) or "unknown"
            raise StartFailed(
                f"this host does not allow isolated sandboxes: {missing}",
                remedy="run as root or allow user namespaces; `--sandbox process` runs your own code without isolation",
            )

    async def _start_documents(self) -> None:
        def record(database: str, used: Usage) -> None:
            self.metering.documents.record(database, used)

        self.documents = Documents(self.store, self.clock, record=record, holder=self.store.node)  # as for `triggers`
        self.metering.watch_storage(self.documents.storage)
        await self.documents.start()
        self._closers.append(self.documents.stop)

    async def _start_tables(self) -> None:
        """DynamoDB's tables, beside the collections."""
        record = self.metering.documents.record
        self.tables = Tables(self.store, self.clock, region=self.settings.region, record=record, holder=self.store.node)
        await self.tables.start()
        self._closers.append(self.tables.stop)

    def _make_secrets(self) -> None:
        unused = not is_in_use(self.store)
        source = key_source(self.settings.secret_key, self.data / "secret.key", environment(), may_make=unused)
        self.vault = Vault(self.store, source)
        self.secrets = Secrets(self.store, self.vault, os.urandom, self.settings.region)
        self.parameters = Ssm(self.store, self.vault, self.settings.region)
        self.users = Users(
            self.store, self.clock, self.vault, send=self._to_sender, issuer=self._issuer,
            say=lambda text: self.logs.platform("_platform", text),
        )  # fmt: skip
        self._closers.append(self.users.stop)
        self.user_documents = UserDocuments(self.users, self.documents, lambda app: self._rules.get(app, {}))

    def _issuer(self, app: str, config: UsersConfig) -> str:
        """What the tokens of an app's end users name: the public URL of their endpoints."""
        return config.issuer or f"http://{app}.localhost:{self.port}{config.path}"

    async def _to_sender(self, app: str, function: str, event: bytes) -> bool:
        _, outcome = await self.functions.invoke(f"{app}-{function}", event, source="users")
        return not outcome.error and outcome.refusal is None

    async def _start_queues(self) -> None:
        self._make_secrets()
        self.queues = Queues(self.store, self.clock, region=self.settings.region)
        await self.queues.start()
        self._closers.append(self.queues.stop)

    def _used_elsewhere(self) -> set[str]:
        """Content addresses of code and layers that something else than an app refers to."""
        codes = self.control.addresses() | self.stacks.referenced()
        return codes | self.functions.runtimes.ahead.layers(codes)

    async def _start_objects(self) -> None:
        """Buckets: bytes beside the store, or in a remote object store (`objects` of the settings)."""
        place = self.settings.objects or str(self.data / "objects")
        kind = "remote" if "://" in place else "disk"
        if self.store.shared and kind == "disk" and (owner := await folder_owner(self.store)) != self.store.node:
            kind, place = "elsewhere", owner
        module, _, name = BACKENDS[kind].partition(":")
        backend = await asyncio.to_thread(getattr(importlib.import_module(module), name), place)
        targets = ObjectTargets(self.queues, self.control.may_be_invoked_by, self._enqueue)
        self._object_targets = targets
        self.objects: Objects = Objects(
            self.store, self.clock, backend=backend, vault=self.vault, region=self.settings.region, send=targets.tell
        )
        self.s3 = S3(self.objects, authorize, exists=targets.why_not, tell=targets.tell)
        await self.objects.start()
        self._closers.append(self.objects.stop)
        self.tables.imports.serve(BucketFiles(self.objects))
        self.lifecycle = Lifecycle(self.objects)
        await self.lifecycle.start()
        self._closers.append(self.lifecycle.stop)

    def _make_apps(self) -> Apps:
        return Apps(
            self.store,
            self.functions,
            self.triggers,
            data=self.data,
            on_routes=self._on_routes,
            clock=self.clock,
            settings=self.settings,
            consumers=Declared(self.event_sources, AppBuckets(self.objects)),
            listeners=self.buses.listeners,
            schemas=AppSchemas(self.documents),
            collections=DeclaredCollections(self.documents),
            also_used=self._used_elsewhere,
        )

    def _make_event_sources(self) -> None:
        """Event source mappings, of queues, collections and streams of tables. Their operations are the service "lambda"'s."""
        self.event_sources = EventSources(
            self.store,
            self.clock,
            self.queues,
            self.functions.dispatch,
            self._event_target,
            authorize=authorize,
            region=self.settings.region,
            streams=self.tables.streams,
            destinations=GivenUp(self.queues, self._event_target, self._enqueue),
            holder=self.store.node,
        )

    async def _start_buses(self) -> None:
        """Event buses, topics and schedules, and what the delivery loop has to know of them."""
        outside = Backend(self.settings.called_hosts)
        self._closers.append(outside.close)
        self.buses: Buses = Buses(
            self.store, self.clock, self.triggers, self.queues, control=self.control, resolve=self._event_target,
            logs=self.log_groups, ask=outside.ask, authorize=authorize, region=self.settings.region,
            endpoint=self._endpoint, results=self._results,
            services=Universal(self._rooms, self.store),
        )  # fmt: skip
        self._object_targets.open(self.store, self.buses.events, self.buses.topics)
        await self.buses.start()
        self._closers.append(self.buses.stop)

    def _endpoint(self) -> str:
        return f"http://{self.settings.host}:{self.api_port}"

    def _event_target(self, reference: str) -> Target | None:
        """The function that an event source mapping names: by its name or its ARN, whole or partial."""
        name = reference.rpartition("function:")[2]
        found = self.functions.find(name)
        if found is None:
            return None
        arn = f"arn:aws:lambda:{self.settings.region}:{ACCOUNT}:function:{name}"
        return Target(name, arn, found.config.timeout_seconds)

    async def _release_receivers(self) -> None:
        """Long polls are answered before the listeners shut, so that none holds up the stop."""
        self.queues.release()
        self.user_documents.release()

    async def _fetch_object(self, bucket: str, key: str, version: str) -> bytes:
        """Code that a function names by bucket and key: in a bucket of ours, or a package of a template."""
        if self._stored_code is None:
            from martlet.apps.stacks.assembly import stored_code  # deferred, see `SleepingStacks`

            self._stored_code = stored_code(self.data, lambda *place: self.objects.fetch_code(*place))
        if bucket == "martlet-code" and await self.functions.folders.have("code", key):  # perhaps another node packed it
            await self.functions.folders.keep("code", key)
        return await self._stored_code(bucket, key, version)

    async def _start_control(self) -> None:
        """The Lambda control plane: after the functions it speaks of, before anything that could call them."""
        zips = Zips(self.data)
        self.control = Control(
            self.store,
            self.functions,
            zips,
            data=self.data,
            clock=self.clock,
            region=self.settings.region,
            authorize=authorize,
            available=self._lacking_runtime,
            fetch_object=self._fetch_object,
            deliver=self._results,
            on_urls=self._on_urls,
            url_of=lambda id: f"http://{self.settings.host}:{self.port}/_url/{id}/",
        )
        await asyncio.to_thread(zips.collect, self.control.archives(), self.control.addresses())
        await self.control.start()
        self._closers.append(self.control.stop)
        await self._start_budgets()

    def _interpreter(self, runtime: str) -> str:
        """The program of another Python, for the building of packages. Raises `DeployFailed`. Blocking."""
        known = RUNTIMES.get(runtime)
        if known is None:
            raise DeployFailed(f"there is no runtime {runtime}", remedy="see: martlet runtimes")
        return self.functions.runtimes.programs.program(known)

    def _lacking_runtime(self, runtime: str) -> str:
        """ "" if functions of this runtime can run here, else what to do about it. Blocking."""
        known = RUNTIMES.get(runtime)
        if known is None:
            return f"The runtime {runtime} is not supported by Martlet."
        try:
            self.functions.runtimes.programs.program(known)
        except DeployFailed as error:
            return f"{error.message} ({error.remedy})"
        return ""

    def node_program(self) -> str:
        """A Node.js to read sources with, the newest that functions may run on; "" if there is none. Blocking."""
        for runtime in sorted((one for one in RUNTIMES.values() if one.kind == "node"), key=lambda one: -int(one.version)):
            try:
                return self.functions.runtimes.programs.program(runtime)
            except DeployFailed:
                continue
        return ""

    def _open_stacks(self) -> Stacks:
        """SAM and CloudFormation templates: providers over the control plane, the APIs and the schedules."""
        from martlet.apps.stacks.assembly import open_stacks  # deferred, see `SleepingStacks`

        async def invoke(name: str, event: bytes) -> Any:
            _, outcome = await self.functions.invoke(name, event, source="cloudformation")
            return outcome

        def build(kind: str, parts: Any, app: str, warn: Any) -> Any:
            if kind == "rest":
                return rest_api_from(parts, app=app, asynchronous=True, warn=warn)
            return http_api_from(parts, app=app, warn=warn)

        def sandbox_base() -> str:
            inside = self.settings.sandbox == "isolated"
            return "http://127.0.0.1:9001" if inside else f"http://{self.settings.host}:{self.api_port}"

        return open_stacks(
            self.store,
            self.clock,
            control=self.control,
            identities=Identities(self.store),
            apis=self.apis,
            build=build,
            schedules=self.triggers,
            queues=Sqs(self.queues),
            sources=self.event_sources,
            buses=self.buses,
            invoke=invoke,
            layers=Layers(self.data / "layers", self.settings.python),
            data=self.data,
            region=self.settings.region,
            invoke_base=lambda: f"http://{self.settings.host}:{self.port}",
            sandbox_base=sandbox_base,
            endpoint=self._endpoint,
            buckets=self.s3,
            nearest=lambda runtime: nearest(self.functions.runtimes.programs, runtime),
            look_ahead=self.functions.look_ahead if self.settings.sandbox == "isolated" else None,
            tables=DynamoDb(self.tables, authorize),
            fetch=self.objects.fetch,
            interpreter=self._interpreter,
            parameters=self.parameters,
            secrets=self.secrets,
        )

    async def _listen(self) -> None:
        self.edge = Edge(
            self.functions.dispatch, clock=self.clock, access=self._route_access, registry=self.metrics,
            called_hosts=self.settings.called_hosts, meter=self.metering.answered,
        )  # fmt: skip
        self._closers.append(self.edge.close)
        self.api_edge = self._make_api_edge()
        self.edge.set_apis(self.api_edge)
        self.edge.set_visitors(
            Visitors(users_face(self.users, self.user_documents), lambda *asked: self.users.identify(*asked).claims)
        )
        proxied: dict[str, Any] = {"streams": self.edge.takes_streams, "stream_body_bytes": LIMITS["proxy_body_bytes"].default}
        self._app_server = HttpServer(self.edge.handle, clock=self.clock, name="app listener (--port)", **proxied)
        inner = archives.beside(self.control.download, protocols_app(self._rooms()))
        api = AsgiHandler(
            guarded(self.settings.host, self.store, subscriptions.beside(self.buses.topics, self.settings.region, inner))
        )
        streamed: dict[str, Any] = {"streams": s3_face.streams, "stream_body_bytes": LIMITS["object_put_bytes"].default}
        self._api_server = HttpServer(
            api, clock=self.clock, max_body_bytes=UPLOAD_BYTES, name="api listener (--api-port)", **streamed
        )
        # Connections from sandboxes have a server, and so a limit of connections, of their own.
        self._private_server = HttpServer(api, clock=self.clock, name="private endpoints", **streamed)
        self._closers.append(self._shut_listeners)
        self.port = await self._app_server.listen(self.settings.host, self.settings.port)
        self.api_port = await self._api_server.listen(self.settings.host, self.settings.api_port)

    def _make_api_edge(self) -> ApiEdge:
        """API Gateway's part of the edge: REST and HTTP APIs, function URLs."""
        log = AccessLog(lambda group, lines: self.log_groups.append(group, "access", lines))
        self._closers.append(log.close)
        edge = ApiEdge(
            self.functions.dispatch,
            access_log=log.add,
            ask_service=self._ask_service,
            clock=self.clock,
            region=self.settings.region,
            backend=Backend(self.settings.called_hosts),
            authenticate=self.auth.authenticate,
            permit=authorize,
            enqueue=self._enqueue,
            may_invoke=lambda function, arn: self.control.may_be_invoked_by(function, "apigateway.amazonaws.com", arn),
            may_invoke_url=self.control.may_invoke_url,
            own_keys=self.users.published,
        )
        edge.connections.has_others = lambda: bool(self.store.others)
        self._closers.append(edge.close)
        return edge

    async def _ask_service(self, service: str, role: str, *request: Any) -> tuple[int, list[tuple[str, str]], bytes]:
        """A call of an API's integration to one of our own services, by the role that it names."""
        principal = self.store.read(
            lambda reader: role_for_service(reader, role, ACCOUNT, "apigateway.amazonaws.com", self.settings.region)
        )
        if principal is None:
            raise AccessDenied(f"API Gateway may not take the role {role}")
        if self._forward is None:
            self._forward = Forward(self._rooms())
        return await self._forward(service, principal, *request)

    async def _shut_listeners(self) -> None:
        await asyncio.gather(self._app_server.shutdown(_GRACE_SECONDS), self._api_server.shutdown(2.0))
        await self._private_server.shutdown(1.0)

    def _write_endpoint(self) -> None:
        path = self.data / "endpoint.json"
        text = json.dumps(
            {
                "pid": os.getpid(),
                "host": self.settings.host,
                "port": self.port,
                "api_port": self.api_port,
                "region": self.settings.region,
                "version": __version__,
            }
        )
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.rename(path)
        self._closers.append(self._remove_endpoint)

    async def _remove_endpoint(self) -> None:
        (self.data / "endpoint.json").unlink(missing_ok=True)

    async def _maintain(self) -> None:
        """Once an hour: entries of the change log that every cursor has passed and that are old enough go, and logs past their
        retention."""
        while True:
            await asyncio.sleep(3600)
            try:
                self.metering.documents.sample()
                await self.store.maintain(keep_log_ms=_KEEP_LOG_MS)
                await self.log_groups.expire()
                await self.queues.expire()
                await self.secrets.expire()
                await self.functions.folders.sweep(
                    lambda: self._used_elsewhere() | self.apps.referenced() | self.control.archives()
                )
                await self.audit.expire()
                await self.users.expire()
            except MartletError as error:
                self.logs.platform("_platform", f"maintenance of the store failed: {error}")

    # --- stop -----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """The listeners first (what was accepted is finished), the store last."""
        await self._close_all()

    async def _close_all(self) -> None:
        while self._closers:
            await self._closers.pop()()
        self._unlock()

    # --- wiring ---------------------------------------------------------------------------------------------------

    def _on_routes(self) -> None:
        """Routes changed: the edge takes them, and its default app when there is only one to mean."""
        self.users.declare({(one.name, users.name): users for one in self.apps.list() for users in one.graph.users})
        self._rules = {
            app.name: {one.collection: Rules(one.read, one.write) for one in app.graph.rules} for app in self.apps.list()
        }
        routes = self.apps.routes()
        self.edge.set_routes(routes)
        apps = {app for app, _, _ in routes}
        if len(apps) == 1:
            self.edge.set_default(next(iter(apps)))

    def _on_apis(self) -> None:
        self.api_edge.set_apis(self.apis.apis())

    def _on_urls(self) -> None:
        if self.port:  # before that there is no edge; it asks when it is made
            self.api_edge.set_urls(self.control.url_configs())

    async def _enqueue(self, function: str, payload: bytes, request_id: str) -> None:
        name, _, qualifier = function.partition(":")
        await self.control.asynchronous.accept(name, qualifier, payload, request_id=request_id)

    def _route_access(self, app: str, route: Route, function: str) -> Callable[..., None] | None:
        """A declared route is public: it grants the gateway, and so anybody, to invoke its function and nothing else."""
        gateway = Principal("service", f"gateway for {app}", frozenset({(INVOKE, function)}))
        authorize(gateway, INVOKE, function)
        return None

    def _asked(self, principal: Principal, action: str) -> None:
        self.metering.asked(self._app_of(principal.name) if principal.kind == "function" else "", action)

    def _named(self, name: str) -> Principal | None:
        """A principal by its name in the access log."""
        kind, _, rest = name.partition(" ")
        if kind == "function":
            return self._acting(rest)
        return self.store.read(lambda reader: named(reader, kind, rest, self.settings.region))

    def _serve_private(self, sock: socket.socket, version: FunctionVersion, begun: bytes = b"") -> None:
        """A connection from inside a sandbox: the same API, with the sandbox's own principal."""
        self._private_server.accept(sock, client=("127.0.0.1", 0), context=self._principal_of(version), begun=begun)

    def _acting(self, function: str) -> Principal | None:
        version = self.functions.get(function)
        return None if version is None else self._principal_of(version)

    def _principal_of(self, version: FunctionVersion) -> Principal:
        """Who the code of a version is now."""
        key = (version.name, version.version, version.created_at_ms)
        principal = self._principals.get(key)
        if principal is None:
            if len(self._principals) > 10_000:
                self._principals.clear()
            principal = self._principals[key] = function_principal(version, self.settings.region)
        if version.role:  # read anew: what a role may do can change while its functions run
            known = principal
            principal = self.store.read(lambda reader: with_role(known, version.role, ACCOUNT, reader, self.settings.region))
        return principal

    def _rooms(self) -> Rooms:
        return Rooms(
            auth=_Access(self.auth),
            apps=self.apps,
            functions=self.functions,
            documents=CheckedDocuments(self.documents),
            collections=self.documents,
            users=self.users,
            logs=self.logs,
            usage=self.metering.usage,
            document_usage=self.metering.document_usage,
            request_usage=self.metering.request_usage,
            bill=self.metering.bill,
            budgets=self.budgets,
            dead_letters=lambda app, limit: self.triggers.dead_letters(app, limit),
            metrics=self.metrics.render,
            status=self.status,
            now_ms=self.clock.now_ms,
            version=__version__,
            services=self._services(),
            region=self.settings.region,
            stacks=self.stacks,
            failures=self.control,
            audit=auditor(self.audit, self.access, self._asked),
            audit_log=self.audit,
            access_log=self.access,
            principal=self._named,
            presign=Sessions(self.store, self.clock).presigner(
                self.settings.region, lambda: f"{self.settings.host}:{self.api_port}"
            ),
        )

    def _services(self) -> dict[str, object]:
        """AWS's services that Martlet has, by the names that boto3 gives them: instances of `SERVICES`."""
        return {
            "apigatewaymanagementapi": ManagementApi(self.api_edge.connections),
            "cloudformation": CloudFormation(self.stacks),
            "dynamodb": DynamoDb(self.tables, authorize),
            "dynamodbstreams": DynamoDbStreams(self.tables),
            "events": self.buses.events,
            "iam": Identities(self.store),
            "lambda": Lambda(self.control, self.event_sources),
            "logs": self.log_groups,
            "s3": self.s3,
            "scheduler": self.buses.scheduler,
            "sns": self.buses.topics,
            "secretsmanager": self.secrets,
            "sqs": Sqs(self.queues),
            "ssm": self.parameters,
            "sts": Sessions(self.store, self.clock),
        }

    def status(self) -> dict[str, Any]:
        """What `martlet status` prints."""
        found = self.functions.status()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": (self.clock.now_ms() - self._started_at_ms) // 1000,
            "data": str(self.data),
            "app_url": f"http://{self.settings.host}:{self.port}",
            "api_url": f"http://{self.settings.host}:{self.api_port}",
            "node": self.store.node,
            "nodes": [{"name": card.name, "place": card.place, "api_url": card.url} for card in self.store.others],
            "apps": len(self.apps.list()) + len(self.stacks.list()),
            **found,
        }


def _check_api(config: ApiConfig) -> None:
    """Raises `MartletError` for what the edge cannot serve: a fault in the configuration, or a service that is not here."""
    check_api(config)
    for route in config.routes:
        service = route.integration.service
        if service and service not in SERVICES:
            raise InvalidInput(f"API {config.name}: {route.method} {route.path} calls {service}, which is not supported yet")


def _settle_memory() -> None:
    """What is there now stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # a request makes some thirty objects and leaves no cycle behind


class _Access:
    """The two halves of the auth room as the protocols want them."""

    def __init__(self, auth: Auth) -> None:
        self.authenticate = auth.authenticate
        self.identify = auth.identify
        self.identify_query = auth.identify_query
        self.signed_policy = auth.signed_policy
        self.authorize = authorize


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
