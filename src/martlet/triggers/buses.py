"""Buses, topics and schedules put together: the services of the buses room, and their sources in the delivery loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from martlet.buses import Events, Rulebook, Scheduler, Services, Signer, Sns
from martlet.clock import Clock
from martlet.functions.control import Control
from martlet.queues import Queues
from martlet.store import Store
from martlet.triggers.calls import Ask, Calls
from martlet.triggers.destinations import Destinations, LogGroups
from martlet.triggers.kinds.bus import BusSource
from martlet.triggers.kinds.timetable import ScheduleSource
from martlet.triggers.kinds.topic import TopicSource
from martlet.triggers.listeners import Listeners
from martlet.triggers.patterns import parse_pattern
from martlet.triggers.results import Results
from martlet.triggers.triggers import Triggers

__all__ = ["Buses"]


class Buses:
    """`events`, `scheduler` and `topics` are the services; `listeners` is what apps declare. `ask` makes HTTP calls and refuses
    addresses that may not be called; `services` is what schedules call by name; `endpoint()` is where the platform's own API
    answers."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        triggers: Triggers,
        queues: Queues,
        *,
        control: Control,
        resolve: Callable[[str], object | None],
        logs: LogGroups,
        ask: Ask,
        authorize: Callable[..., None],
        services: Services,
        region: str,
        endpoint: Callable[[], str],
        results: Results,
    ) -> None:
        given: dict[str, Any] = {"region": region, "compile_pattern": parse_pattern, "authorize": authorize}
        self.events = Events(store, clock, timetable=triggers, **given)
        self.scheduler = Scheduler(store, clock, timetable=triggers, services=services, **given)
        self.topics = Sns(store, clock, endpoint=endpoint, signer=Signer(store, clock, endpoint), **given)
        self.listeners = Listeners(store, clock, self.events, self.topics)
        to = Destinations(
            queues,
            clock,
            accept=control.asynchronous.accept,
            resolve=resolve,
            may_invoke=control.may_be_invoked_by,
            logs=logs,
            region=region,
        )
        calls = Calls(ask, clock.now_ms)
        triggers.serve(BusSource(store, self.events, Rulebook(store, parse_pattern), to, calls, self.topics))
        triggers.serve(TopicSource(store, self.topics, to, calls, parse_pattern))
        triggers.serve(ScheduleSource(store, self.scheduler, self.events, self.topics, to, services))
        results.open(store, to, self.events, self.topics)

    async def start(self) -> None:
        """What is always there is made; replays that a crash interrupted go on."""
        await self.events.start()
        await self.topics.start()
        await self.scheduler.start()

    async def stop(self) -> None:
        await self.events.stop()
