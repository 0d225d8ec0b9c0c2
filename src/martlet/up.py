"""The command `up`: a server on the terminal, with the app that it was started for.

It deploys, prints where things answer, follows the source, and serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import uvloop

from martlet.apps import Deployment
from martlet.apps.stacks.deployed import StackDeployment
from martlet.apps.stacks.finding import stack_name, template_of
from martlet.apps.watch import Deploys, watch
from martlet.config import Settings
from martlet.errors import DeployFailed, InvalidInput, MartletError
from martlet.server import Server

__all__ = ["run"]

_SERVING = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
T = TypeVar("T")


class TemplateOptions(NamedTuple):
    """What a template is deployed with."""

    parameters: Mapping[str, str] = MappingProxyType({})
    lenient: bool = False


def run(
    settings: Settings,
    path: Path | None = None,
    watching: bool = True,
    name: str | None = None,
    parameters: Mapping[str, str] | None = None,
    lenient: bool = False,
) -> int:
    """Start, deploy `path`, print where it answers, serve until SIGINT or SIGTERM. Returns the exit code."""
    return uvloop.run(_up(settings, path, watching, name, TemplateOptions(parameters or {}, lenient)))


async def _up(settings: Settings, path: Path | None, watching: bool, name: str | None, given: TemplateOptions) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings)
    await server.start()
    _print_missing(server)
    follower: asyncio.Task[None] | None = None
    try:
        failed: str | None = ""
        if path is not None:
            target, folder = await asyncio.to_thread(_target, server, path, given)
            failed = await _unless(stop, _first_deployment(server, target, path, name, watching))
        if not stop.is_set():
            _print_addresses(server)
            if path is not None and watching:
                follower = loop.create_task(watch(target, folder, name, _report, stop, failed or ""))
            await stop.wait()
        print("stopping: what was accepted is finished first", file=sys.stderr, flush=True)
    finally:
        if follower is not None:
            stop.set()
            await asyncio.wait([follower], timeout=2)
            follower.cancel()
        await server.stop()
    return 0


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do the work and return what it does, or leave it when `stop` is set: a layer may take minutes to build."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)  # why a deployment failed that nobody waits for is not news
        return None
    return await doing


class _Template:
    """A template in the place of an app's folder. Code that cannot be read does not replace what serves."""

    def __init__(self, server: Server, template: Path, given: TemplateOptions) -> None:
        self._stacks = server.stacks
        self._template = template
        self._given = given
        from martlet.apps.stacks.syntax import Sources  # deferred: for templates only

        self._sources = Sources(template.parent, server.node_program)

    async def deploy(
        self,
        source: Path,
        name: str | None = None,
        *,
        skip_unchanged: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> StackDeployment:
        await asyncio.to_thread(self._sources.check)
        done: StackDeployment = await self._stacks.deploy(
            self._template,
            name or stack_name(self._template),
            self._given.parameters,
            is_lenient=self._given.lenient,
            progress=progress or (lambda text: None),
        )
        return done


def _target(server: Server, path: Path, given: TemplateOptions) -> tuple[Deploys, Path]:
    """What deploys `path`, and the folder or file to watch."""
    template = template_of(path.absolute())
    if template is not None:
        return _Template(server, template, given), template.parent
    if given.parameters or given.lenient:
        raise InvalidInput(f"{path} is no template: --param and --lenient are for templates")
    return server.apps, path


def _serves(server: Server) -> bool:
    """Whether anything is deployed: a stack whose creation was rolled back is not."""
    return bool(server.apps.list()) or any(record.status in _SERVING for record in server.stacks.list())


async def _first_deployment(server: Server, target: Deploys, path: Path, name: str | None, watching: bool) -> str:
    """A failed one does not stop `up` while it watches and something serves: the error is shown, and the next save is tried.

    Returns what was shown, so that it is shown once."""

    def say(text: str) -> None:
        if not server.settings.quiet:
            print(f"  {text}", file=sys.stderr, flush=True)

    try:
        done = await target.deploy(path, name, progress=say)
    except MartletError as error:
        if not watching or not _serves(server):
            raise DeployFailed(error.message, remedy=error.remedy, **error.details) from error
        _report(error)
        return error.message
    else:
        if isinstance(done, Deployment):
            server.edge.set_default(done.app)
        for output, value in sorted(done.outputs.items()) if isinstance(done, StackDeployment) else ():
            print(f"  {output}  {value}", flush=True)
        return ""


def _print_missing(server: Server) -> None:
    """What sandboxes lack on this host is said at every start: limits that nobody enforces would be a lie."""
    missing = server.functions.report.missing
    if missing:
        print(f"warning: sandboxes are without {'; '.join(missing)}", file=sys.stderr)
    if server.settings.sandbox == "isolated" and any(one.startswith("control groups") for one in missing):
        print("         limits on memory, CPU and processes are NOT enforced; run as root to have them", file=sys.stderr)
    if hosts := server.settings.integration_hosts:
        who = "proxy routes, integrations, topics and API destinations"
        print(f"warning: {who} may call {hosts} ALSO ON THIS MACHINE", file=sys.stderr)
    sys.stderr.flush()


def _print_addresses(server: Server) -> None:
    host = server.settings.host
    apps: list[Any] = [*server.apps.list(), *server.stacks.list()]
    routes: dict[str, int] = {}
    for app, _, _ in server.apps.routes():
        routes[app] = routes.get(app, 0) + 1
    for record in server.stacks.list():
        routes[record.name] = sum(len(api.routes) for api in server.apis.apis() if api.app == record.name)
    told = ", ".join(f"{app.name}: {routes.get(app.name, 0)} route{'s' * (routes.get(app.name, 0) != 1)}" for app in apps)
    print(f"app   http://{host}:{server.port}     {told or 'no app yet: martlet deploy PATH'}")
    print(f"api   http://{host}:{server.api_port}     AWS_ENDPOINT_URL for boto3 and the AWS CLI; management API", flush=True)


def _report(outcome: Deployment | StackDeployment | MartletError) -> None:
    if isinstance(outcome, MartletError):
        print(f"deploy failed, the version before still serves: {outcome.message}", file=sys.stderr)
        stack = outcome.details.get("stack")
        if stack:
            print(str(stack).rstrip(), file=sys.stderr)
        if outcome.remedy:
            print(f"  {outcome.remedy}", file=sys.stderr)
        sys.stderr.flush()
        return
    print(f"deployed {outcome.app} revision {outcome.revision} in {outcome.duration_ms} ms", file=sys.stderr, flush=True)
