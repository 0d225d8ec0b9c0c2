"""What apps declare of buses and topics: `@app.on(bus, pattern=...)` is a rule, `@app.on(topic)` a subscription of its own.

They are made in one transaction and known by their app; its functions need no permission for them.
"""

from __future__ import annotations

import hashlib
from typing import Any

from martlet.buses import Events, Sns
from martlet.buses.filters import BadPolicy, check
from martlet.buses.rows import Bus, Rule, Subscription, Tables, Topic
from martlet.clock import Clock
from martlet.errors import InvalidInput
from martlet.store import Store, Tx
from martlet.triggers.event import event_id
from martlet.triggers.patterns import parse_pattern
from martlet.types import ACCOUNT, AppGraph, ListenerConfig

__all__ = ["Listeners"]

_SCOPES = {"attributes": "MessageAttributes", "body": "MessageBody"}


class Listeners:
    """The listeners of all apps."""

    def __init__(self, store: Store, clock: Clock, events: Events, sns: Sns) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._sns = sns

    def check(self, app: str, graph: AppGraph) -> None:
        """Raises `InvalidInput` for a bad pattern."""
        for one in graph.listeners:
            _check(one)

    async def prepare(self, app: str, graph: AppGraph) -> None:
        """Make the app's buses and topics where they are not there yet. Raises `InvalidInput` for a bad pattern."""
        self.check(app, graph)
        if graph.topics:
            await self._sns.signer.open()
        now_ms = self._clock.now_ms()

        def make(tx: Tx) -> None:
            tables = Tables(tx)
            for name in graph.buses:
                full = _bus_name(app, name)
                if tables.get(Bus, full) is None:
                    tables.put(Bus(name=full, created_at_ms=now_ms, modified_at_ms=now_ms))
            for name in graph.topics:
                if tables.get(Topic, f"{app}-{name}") is None:
                    attributes = {"FifoTopic": "true", "ContentBasedDeduplication": "true"} if name.endswith(".fifo") else {}
                    tables.put(Topic(name=f"{app}-{name}", created_at_ms=now_ms, attributes=attributes))

        await self._store.transact(make)

    async def listen(self, app: str, graph: AppGraph) -> None:
        """The rules and subscriptions of the app are these; one that is as it was is left alone."""

        def write(tx: Tx) -> None:
            tables = Tables(tx)
            rules = {(one.bus, one.name): one for one in tables.every(Rule) if one.app == app}
            subscriptions = {(one.topic, one.id): one for one in tables.every(Subscription) if one.app == app}
            for listener in graph.listeners:
                wanted: Any = self._rule(app, listener) if listener.kind == "bus" else self._subscription(app, listener)
                known: Any = rules if listener.kind == "bus" else subscriptions
                key = (wanted.bus, wanted.name) if listener.kind == "bus" else (wanted.topic, wanted.id)
                if known.pop(key, None) != wanted:
                    tables.put(wanted)
                    tables.changed(key[0])
            for rule in rules.values():
                tables.delete(rule)
                tables.changed(rule.bus)
            for subscription in subscriptions.values():
                tables.delete(subscription)
                tables.changed(subscription.topic)

        await self._store.transact(write)

    def _rule(self, app: str, one: ListenerConfig) -> Rule:
        end = hashlib.sha256(f"{one.source}|{one.function}|{one.pattern}".encode()).hexdigest()[:12]
        target = {"Id": "function", "Arn": self._function_arn(app, one.function)}
        name = f"{f'{app}-{one.function}'[:51]}-{end}"
        return Rule(bus=_bus_name(app, one.source), name=name, pattern=one.pattern, targets=(target,), app=app)

    def _subscription(self, app: str, one: ListenerConfig) -> Subscription:
        attributes = {"FilterPolicy": one.pattern, "FilterPolicyScope": _SCOPES[one.scope]} if one.pattern else {}
        return Subscription(
            topic=f"{app}-{one.source}",
            id=event_id("listener", app, one.source, one.function, one.pattern, one.scope),
            protocol="lambda",
            endpoint=self._function_arn(app, one.function),
            attributes=attributes,
            app=app,
        )

    def _function_arn(self, app: str, function: str) -> str:
        return f"arn:aws:lambda:{self._events.region}:{ACCOUNT}:function:{app}-{function}"


def _bus_name(app: str, name: str) -> str:
    return name if name == "default" else f"{app}-{name}"


def _check(one: ListenerConfig) -> None:
    try:
        if one.kind == "bus":
            parse_pattern(one.pattern)
        elif one.pattern:
            check(one.pattern, _SCOPES[one.scope], parse_pattern)
    except BadPolicy as error:
        raise InvalidInput(f"function {one.function}: {error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"function {one.function}: {error.message}") from None
