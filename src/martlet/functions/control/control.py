"""The Lambda control plane as one object: a method for each operation of the API, from request to answer as dicts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from martlet.errors import MartletError
from martlet.functions.asynchronous import Asynchronous, Treatment
from martlet.functions.control.invoke import Invoke
from martlet.functions.control.names import LATEST
from martlet.functions.control.policies import Policies
from martlet.functions.control.records import Configuration, Function, Layer, Provisioned, Tables
from martlet.functions.control.settings import SettingsOperations
from martlet.functions.control.urls import Urls
from martlet.functions.failures import FailedEvent, Failures
from martlet.store import Tx, keys
from martlet.types import FunctionVersion, Invocation, Outcome

__all__ = ["Control"]

T = TypeVar("T")
_FOLLOW_AGAIN_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger("martlet.control")


class Control(Invoke, Policies, Urls, SettingsOperations):
    """Operations are `async def name(caller, request) -> answer`, named as botocore spells them (`create_function`).

    Requests and answers are dicts of the API's own members: blobs are bytes, absent members are absent. Errors are
    `ServiceError` with the service's names and words. `caller` has `principal`, `request_id`, `endpoint` and, where the request
    had one, `trace_id`. Start it after `Functions`; stop it before.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See `Desk.__init__`."""
        super().__init__(*arguments, **options)
        self._following = asyncio.Lock()
        self._provisioning: dict[str, asyncio.Lock] = {}
        self._treatments: dict[tuple[str, str], Treatment] = {}
        self.failures = Failures(self._store)
        self.asynchronous = Asynchronous(
            self._store,
            self._functions,
            clock=self._clock,
            region=self._region,
            treatment=self._treatment,
            arn_of=self._arn,
            deliver=self._deliver,
        )
        self._functions.on_failed = self._on_failed
        self._functions.on_forget = self._on_forget

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Let everything that is stored be called, take up changes that a crash interrupted, go on with queued events."""
        await self._load_key()
        for table in ("lambda.function", "lambda.version", "lambda.alias", "lambda.url", "lambda.events"):
            self._store.watch(*keys.prefix_range(table), self._others_changed)
        names = [str(parts[0]) for parts, _ in self._read(lambda tables: tables.all(Function))]
        for name in names:
            if self._store.shared:
                await self._follow({name})
            else:
                self._reconcile(name)
            if self._read(lambda tables, name=name: bool(tables.all(Provisioned, name))):  # type: ignore[misc]
                self._in_background(self._provision(name))
        if not self._store.others:
            self._settle_all("")
        self._store.on_departure(self._settle_all)
        await self.asynchronous.start()

    async def stop(self) -> None:
        """Changes under way reach their state; events that run are recorded; the rest waits in the store."""
        await self.asynchronous.stop()
        await self.settled()
        await self.failures.close()

    def _settle_all(self, departed: str) -> None:
        """Take up changes that a crash interrupted, ours or another node's; what lives goes on by itself."""
        for parts, one in self._read(lambda tables: tables.all(Configuration)):
            if one.state == "Pending" or one.update == "InProgress":
                self._in_background(self._settle(str(parts[0])))

    # --- other nodes ------------------------------------------------------------------------------------------------

    def _others_changed(self, changed: list[bytes] | None) -> None:
        self._treatments.clear()
        names = None if changed is None else {str(keys.decode(key)[1]) for key in changed}
        self._in_background(self._follow(names))
        if changed is None or any(keys.decode(key)[0] == "lambda.url" for key in changed):
            self._on_urls()

    async def _follow(self, names: set[str] | None) -> None:
        async with self._following:
            if names is None:
                names = {str(parts[0]) for parts, _ in self._read(lambda tables: tables.all(Function))}
                names |= {version.name for version in self._functions.all() if version.config.runtime}
            for name in sorted(names):
                try:
                    await self._follow_one(name)
                except (MartletError, OSError) as error:
                    _LOG.error("function %s does not serve here as another node made it: %s", name, error)
                    asyncio.get_running_loop().call_later(_FOLLOW_AGAIN_SECONDS, self._again, name)

    def _again(self, name: str) -> None:
        self._in_background(self._follow({name}))

    async def _follow_one(self, name: str) -> None:
        """Let serve here what the store says of this function."""

        def look(tables: Tables) -> tuple[Function | None, list[Configuration]]:
            return tables.get(Function, name), [one for _, one in tables.all(Configuration, name)]

        function, versions = self._read(look)
        for one in versions:
            known = self._functions.get(name if one.version == LATEST else f"{name}:{one.version}")
            if one.state != "Active" or one.update == "InProgress" or (known is not None and known.version == one.number):
                continue
            version = self._runnable(function, one)
            await self._functions.share(version)
            await self._functions.folders.have("zips", f"{one.zip}.zip")
            await asyncio.to_thread(self._functions.runtimes.prepare, version)
            if known is not None:
                self._functions.install(version)
        self._reconcile(name)

    async def _write(self, fn: Callable[[Tables], T]) -> T:
        try:
            return await super()._write(fn)
        finally:
            self._treatments.clear()

    # --- what other rooms ask ---------------------------------------------------------------------------------------

    def addresses(self) -> set[str]:
        """Content addresses of code and layers that something here refers to: what may not be deleted."""

        def look(tables: Tables) -> set[str]:
            versions = [one for _, one in tables.all(Configuration)]
            used = {one.code for one in versions} | {layer.address for one in versions for layer in one.layers}
            return used | {one.address for _, one in tables.all(Layer)}

        return self._read(look)

    def archives(self) -> set[str]:
        """SHA-256 of the archives that something here refers to."""

        def look(tables: Tables) -> set[str]:
            return {one.zip for _, one in tables.all(Configuration)} | {one.zip for _, one in tables.all(Layer)}

        return self._read(look)

    def log_groups(self) -> dict[str, str]:
        """Log group → function, of every function that can be called."""
        found = {f"/aws/lambda/{version.name}": version.name for version in self._functions.all()}
        own = [one for _, one in self._read(lambda tables: tables.all(Configuration)) if one.version == LATEST]
        return found | {one.logging.group: one.name for one in own}

    # --- failures ---------------------------------------------------------------------------------------------------

    def _on_failed(self, version: FunctionVersion, invocation: Invocation, outcome: Outcome) -> None:
        """A function error: kept for a replay. Asynchronous events are kept when they have failed for good; messages to end
        users never, since they hold codes, and are sent again anyway."""
        if invocation.source in ("event", "replay", "users"):
            return
        qualifier = invocation.arn.split(":")[7] if invocation.arn.count(":") == 7 else ""
        self.failures.record(
            FailedEvent(
                id=invocation.request_id,
                function=version.name,
                qualifier=qualifier or ("" if version.qualifier == LATEST else version.qualifier),
                payload=invocation.payload,
                at_ms=self._clock.now_ms(),
                source=invocation.source,
                error_type=outcome.error_type,
                client_context=invocation.client_context,
            )
        )

    def _on_forget(self, tx: Tx, name: str) -> None:
        """An app's function is removed: what was configured for it here goes in the same commit."""
        Tables(tx).forget(name)
        self._treatments.clear()
