"""Puts stacks together: the one place that names every provider."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from martlet.apps.layers import Layers
from martlet.apps.stacks.archives import zip_folder
from martlet.apps.stacks.artifacts import LookAhead, Workshop
from martlet.apps.stacks.compiling import CODE_BUCKET, Artifact
from martlet.apps.stacks.dynamic import Dynamic, Resolving
from martlet.apps.stacks.engine import Engine, Local
from martlet.apps.stacks.journal import Store
from martlet.apps.stacks.kinds import Kind
from martlet.apps.stacks.providers.apis import ApiGroup, Apis, Build, api_providers
from martlet.apps.stacks.providers.buses import Buses, Schedules, bus_providers
from martlet.apps.stacks.providers.custom import CustomProvider, Invoke, Responses
from martlet.apps.stacks.providers.functions import Control, FunctionProvider
from martlet.apps.stacks.providers.identity import Identities, identity_providers
from martlet.apps.stacks.providers.lambda_ import lambda_providers
from martlet.apps.stacks.providers.objects import Buckets, bucket_providers
from martlet.apps.stacks.providers.queues import EventSources, Queues, queue_providers
from martlet.apps.stacks.providers.remembered import remembered_providers
from martlet.apps.stacks.providers.secrets import ParameterRoom, SecretRoom, secret_providers
from martlet.apps.stacks.providers.tables import DynamoDb, table_providers
from martlet.apps.stacks.reading import TemplateFault
from martlet.apps.stacks.stacks import Stacks
from martlet.apps.stacks.translation import Translation
from martlet.clock import Clock
from martlet.errors import ServiceError, Unsupported

__all__ = ["catalogue", "open_stacks", "providers_of", "stored_code"]

_ZIPPED_KEPT_SECONDS = 30.0

Fetch = Callable[[str, str, str], Awaitable[bytes]]  # (bucket, key, version) -> the object


def providers_of(
    store: Store,
    control: Control,
    identities: Identities,
    apis: Apis,
    schedules: Schedules,
    custom: CustomProvider,
    queues: Queues,
    sources: EventSources,
    nearest: Callable[[str], str] = str,
    tables: DynamoDb | None = None,
    buckets: Buckets = None,
    *,
    buses: Buses,
    parameters: ParameterRoom | None = None,
    secrets: SecretRoom | None = None,
) -> dict[str, Any]:
    """Every provider by its type."""
    found = [
        FunctionProvider(control, nearest),
        *lambda_providers(control),
        *identity_providers(identities),
        *remembered_providers(),
        *queue_providers(queues, sources),
        *bus_providers(store, buses, schedules),
        *api_providers(apis),
        *(table_providers(tables) if tables is not None else ()),
        *bucket_providers(buckets),
        *(secret_providers(parameters, secrets) if parameters is not None and secrets is not None else ()),
        custom,
    ]
    return {provider.kind.type: provider for provider in found}


def catalogue() -> dict[str, Kind]:
    """Every resource type and what is done with its properties, for the reference."""
    kindless: Any = object()
    nothing: Any = None  # kinds are told without their rooms
    custom = CustomProvider(nothing, Responses(), lambda: "")
    every = providers_of(nothing, nothing, nothing, nothing, nothing, custom, nothing, nothing, tables=kindless, buses=nothing,
        parameters=kindless, secrets=kindless,
    )  # fmt: skip
    return {name: provider.kind for name, provider in every.items()}


def open_stacks(
    store: Store,
    clock: Clock,
    *,
    control: Control,
    identities: Identities,
    apis: Apis,
    build: Build,
    schedules: Schedules,
    queues: Queues,
    sources: EventSources,
    buses: Buses,
    invoke: Invoke,
    layers: Layers,
    data: Path,
    region: str,
    invoke_base: Callable[[], str],
    sandbox_base: Callable[[], str],
    endpoint: Callable[[], str] = lambda: "",
    nearest: Callable[[str], str] = str,
    look_ahead: LookAhead | None = None,
    tables: DynamoDb | None = None,
    buckets: Buckets = None,
    fetch: Fetch | None = None,
    interpreter: Callable[[str], str] = str,
    parameters: ParameterRoom,
    secrets: SecretRoom,
) -> Stacks:
    """All stacks over these rooms. `build` makes an `ApiConfig` of ("rest" or "http", parts, app, warn); `invoke_base` is where
    APIs answer, `sandbox_base` where the platform's API answers inside a sandbox. Call `load` on what it gives."""
    responses = Responses()
    custom = CustomProvider(invoke, responses, sandbox_base)
    dynamic = Dynamic(parameters, secrets)
    found = providers_of(
        store, control, identities, apis, schedules, custom, queues, sources, nearest, tables, buckets, buses=buses,
        parameters=parameters, secrets=secrets,
    )  # fmt: skip
    engine = Engine(
        store,
        clock,
        providers={name: Resolving(one, dynamic) for name, one in found.items()},
        stored=dynamic.stored,
        groups=(ApiGroup(apis, build),),
        translation=Translation(region),
        region=region,
        invoke_base=invoke_base,
        sandbox_base=sandbox_base,
        endpoint=endpoint,
        remote=Local(_no_file, _no_package),
        fetch=fetch,
    )
    return Stacks(
        engine, Workshop(data, layers, look_ahead=look_ahead, nearest=nearest, interpreter=interpreter), clock, responses
    )


def stored_code(data: Path, fetch: Fetch) -> Fetch:
    """Objects as the functions room fetches code: the platform's own packages, and `fetch` for real buckets."""

    zipped: dict[str, asyncio.Task[bytes]] = {}  # the latest: the functions of a template often share one package

    async def get(bucket: str, key: str, version: str) -> bytes:
        if bucket != CODE_BUCKET:
            return await fetch(bucket, key, version)
        folder = data / "code" / key
        if len(key) != 64 or not key.isalnum() or not await asyncio.to_thread(folder.is_dir):
            raise ServiceError("InvalidParameterValueException", f"There is no package {key}.")
        task = zipped.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            zipped.clear()
            task = zipped[key] = asyncio.create_task(asyncio.to_thread(zip_folder, folder))
            asyncio.get_running_loop().call_later(_ZIPPED_KEPT_SECONDS, zipped.pop, key, None)
        return await asyncio.shield(task)

    return get


def _no_file(location: str, line: int) -> bytes:
    raise Unsupported(f"{location} is not fetched", remedy="put it into the template", line=line)


async def _no_package(artifact: Artifact) -> str:
    raise TemplateFault(f"{artifact.logical_id}: {artifact.location} is a local path, which the API cannot see", artifact.line)
