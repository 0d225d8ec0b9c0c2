"""The Lambda control plane as one object: a method for each operation of the API, from request to answer as dicts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from martlet.functions.asynchronous import Asynchronous, Treatment
from martlet.functions.control.invoke import Invoke
from martlet.functions.control.names import LATEST
from martlet.functions.control.policies import Policies
from martlet.functions.control.records import Configuration, Function, Layer, Provisioned, Tables
from martlet.functions.control.settings import SettingsOperations
from martlet.functions.control.urls import Urls
from martlet.functions.failures import FailedEvent, Failures
from martlet.store import Tx
from martlet.types import FunctionVersion, Invocation, Outcome

__all__ = ["Control"]

T = TypeVar("T")


class Control(Invoke, Policies, Urls, SettingsOperations):
    """Operations are `async def name(caller, request) -> answer`, named as botocore spells them (`create_function`).

    Requests and answers are dicts of the API's own members: blobs are bytes, absent members are absent. Errors are
    `ServiceError` with the service's names and words. `caller` has `principal`, `request_id`, `endpoint` and, where the request
    had one, `trace_id`. Start it after `Functions`; stop it before.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See `Desk.__init__`."""
        super().__init__(*arguments, **options)
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
        names = [str(parts[0]) for parts, _ in self._read(lambda tables: tables.all(Function))]
        for name in names:
            self._reconcile(name)
            versions = self._read(lambda tables, name=name: tables.all(Configuration, name))  # type: ignore[misc]
            if any(one.state == "Pending" or one.update == "InProgress" for _, one in versions):
                self._in_background(self._settle(name))
            if self._read(lambda tables, name=name: bool(tables.all(Provisioned, name))):  # type: ignore[misc]
                self._in_background(self._provision(name))
        await self.asynchronous.start()

    async def stop(self) -> None:
        """Changes under way reach their state; events that run are recorded; the rest waits in the store."""
        await self.asynchronous.stop()
        await self.settled()
        await self.failures.close()

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
        """A function error: kept for a replay. Asynchronous events are kept when they have failed for good."""
        if invocation.source in ("event", "replay"):
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
