"""The difference between an app as it is and as it shall be, as frozen steps. Pure: nothing is read or changed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from martlet.apps.graph import full_name
from martlet.types import (
    AppGraph,
    BucketConfig,
    ChangesConfig,
    CollectionDeclaration,
    ConsumerConfig,
    FunctionConfig,
    FunctionVersion,
    ListenerConfig,
    QueueConfig,
    Route,
    RulesConfig,
    ScheduleConfig,
    SubscriptionConfig,
    UsersConfig,
)

__all__ = [
    "AppRecord",
    "PublishFunction",
    "PutBuckets",
    "PutCollection",
    "PutListeners",
    "PutQueues",
    "PutRoutes",
    "PutSchedule",
    "PutUsers",
    "RemoveFunction",
    "RemoveSchedule",
    "Step",
    "plan",
    "teardown",
]


class AppRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds about one app. Writing it is the moment a deployment happens; `versions` are what it serves."""

    name: str
    revision: int
    code: str
    layer: str
    module: str
    graph: AppGraph
    versions: tuple[FunctionVersion, ...]
    created_at_ms: int
    updated_at_ms: int


class PublishFunction(msgspec.Struct, frozen=True, tag="publish_function"):
    """Make a new version of a function serve. `why` is "new" or what changed."""

    name: str
    config: FunctionConfig
    why: str

    def text(self) -> str:
        return f"publish function  {self.name}  ({self.why})"


class RemoveFunction(msgspec.Struct, frozen=True, tag="remove_function"):
    """Stop serving a function."""

    name: str

    def text(self) -> str:
        return f"remove function   {self.name}"


class PutRoutes(msgspec.Struct, frozen=True, tag="put_routes"):
    """Replace the app's routes."""

    added: tuple[Route, ...]
    removed: tuple[Route, ...]
    total: int

    def text(self) -> str:
        if not self.total:
            return f"remove routes     all {len(self.removed)}"
        changes = [f"+ {_route_text(route)}" for route in self.added]
        changes += [f"- {_route_text(route)}" for route in self.removed]
        return f"put routes        {', '.join(changes) or 'new order'}  ({self.total} in all)"


def _route_text(route: Route) -> str:
    condition = f" ({route.condition})" if route.condition else ""
    return f"{route.method} {route.path}{condition} → {route.leads_to}"


class PutSchedule(msgspec.Struct, frozen=True, tag="put_schedule"):
    """Set a schedule."""

    config: ScheduleConfig
    function: str  # full name

    def text(self) -> str:
        state = "" if self.config.enabled else ", disabled"
        when = f"{self.config.expression} {self.config.timezone}"
        return f"put schedule      {self.config.name}  ({when} → {self.config.function}{state})"


class RemoveSchedule(msgspec.Struct, frozen=True, tag="remove_schedule"):
    """Remove a schedule."""

    name: str

    def text(self) -> str:
        return f"remove schedule   {self.name}"


class PutCollection(msgspec.Struct, frozen=True, tag="put_collection"):
    """Give a collection its settings; `changes` says each by its name, and what is lost by it. A collection that the app no
    longer has stays, with its documents and settings: removing data is for its owner to say."""

    config: CollectionDeclaration
    changes: tuple[str, ...]

    def text(self) -> str:
        return f"put collection    {self.config.name}  ({', '.join(self.changes)})"


class PutQueues(msgspec.Struct, frozen=True, tag="put_queues"):
    """Make the app's queues, and let these functions take their messages, and the changes of its collections. A queue that the
    app no longer has stays, with its messages: removing data is for its owner to say."""

    queues: tuple[QueueConfig, ...]
    consumers: tuple[ConsumerConfig, ...]
    changes: tuple[ChangesConfig, ...] = ()

    def text(self) -> str:
        told = [queue.name for queue in self.queues]
        told += [f"{one.queue} → {one.function}" for one in self.consumers]
        told += [f"changes of {one.collection} → {one.function}" for one in self.changes]
        return f"put queues        {', '.join(told) or 'none'}"


class PutBuckets(msgspec.Struct, frozen=True, tag="put_buckets"):
    """Make the app's buckets, and tell these functions of their changes. A bucket that the app no longer has stays, with its
    objects."""

    buckets: tuple[BucketConfig, ...]
    subscriptions: tuple[SubscriptionConfig, ...]

    def text(self) -> str:
        told = [bucket.name for bucket in self.buckets]
        told += [f"{one.bucket} → {one.function}" for one in self.subscriptions]
        return f"put buckets       {', '.join(told) or 'none'}"


class PutListeners(msgspec.Struct, frozen=True, tag="put_listeners"):
    """Make the app's event buses and topics, and let these functions hear them. One that the app no longer has stays."""

    sources: tuple[str, ...]
    listeners: tuple[ListenerConfig, ...]

    def text(self) -> str:
        told = [*self.sources, *(f"{one.kind} {one.source} → {one.function}" for one in self.listeners)]
        return f"put listeners     {', '.join(told) or 'none'}"


class PutUsers(msgspec.Struct, frozen=True, tag="put_users"):
    """Say who the app's end users are and where they sign in. Accounts of users that the app no longer has stay."""

    users: tuple[UsersConfig, ...]
    rules: tuple[RulesConfig, ...] = ()

    def text(self) -> str:
        told = [f"{one.name} at {one.path}" + ("" if one.sender else " (no sender: codes go to the log)") for one in self.users]
        told += [f"rules of {one.collection}" for one in self.rules]
        return f"put users         {', '.join(told) or 'none'}"


class PutGraphql(msgspec.Struct, frozen=True, tag="put_graphql"):
    """Make the GraphQL API of the app's database what `schema.graphql` says; "": there is no such file any more."""

    sdl: str
    changes: tuple[str, ...]

    def text(self) -> str:
        return f"put graphql       {', '.join(self.changes) or 'the same types in other words'}"


Step: TypeAlias = (
    PublishFunction
    | RemoveFunction
    | PutRoutes
    | PutSchedule
    | RemoveSchedule
    | PutQueues
    | PutBuckets
    | PutListeners
    | PutCollection
    | PutGraphql
    | PutUsers
)


def plan(
    app: str, before: AppRecord | None, serving: Mapping[str, FunctionVersion], graph: AppGraph, code: str, layer: str
) -> tuple[Step, ...]:
    """Steps from `before` to `graph` with this code and layer, in the order they are applied; () if nothing changes.

    `serving` holds, by full name, what the functions room serves now: a function is skipped only if it serves this very
    code, layer and configuration.
    """
    old = before.graph if before else AppGraph()
    steps: list[Step] = [*_collections(old, graph)]
    for config in graph.functions:
        name = full_name(app, config.name)
        why = _why_publish(serving.get(name), config, code, layer)
        if why:
            steps.append(PublishFunction(name, config, why))
    if graph.routes != old.routes:
        added = tuple(route for route in graph.routes if route not in old.routes)
        removed = tuple(route for route in old.routes if route not in graph.routes)
        steps.append(PutRoutes(added, removed, len(graph.routes)))
    kept = {schedule.name for schedule in graph.schedules}
    for schedule in graph.schedules:
        if schedule not in old.schedules:
            steps.append(PutSchedule(schedule, full_name(app, schedule.function)))
    steps.extend(RemoveSchedule(schedule.name) for schedule in old.schedules if schedule.name not in kept)
    if (graph.queues, graph.consumers, graph.changes) != (old.queues, old.consumers, old.changes):
        steps.append(PutQueues(graph.queues, graph.consumers, graph.changes))
    if (graph.buckets, graph.subscriptions) != (old.buckets, old.subscriptions):
        steps.append(PutBuckets(graph.buckets, graph.subscriptions))
    if _heard(graph) != _heard(old):
        steps.append(PutListeners(_heard(graph)[0], graph.listeners))
    if (graph.users, graph.rules) != (old.users, old.rules):
        steps.append(PutUsers(graph.users, graph.rules))
    wanted = {full_name(app, config.name) for config in graph.functions}
    steps.extend(RemoveFunction(name) for name, version in sorted(serving.items()) if version.app == app and name not in wanted)
    return tuple(steps)


def _collections(old: AppGraph, graph: AppGraph) -> list[PutCollection]:
    """Declared ones that differ. One that still is used but says nothing more loses what it said before."""
    known = {one.name: one for one in old.collections}
    wanted = {one.name: one for one in graph.collections}
    used = {name for function in graph.functions for name in function.documents} | {one.collection for one in graph.changes}
    bare = [CollectionDeclaration(name=name) for name in sorted(known.keys() & used - wanted.keys())]
    return [
        PutCollection(one, _differences(known[one.name].settings if one.name in known else None, one.settings))
        for one in (*graph.collections, *bare)
        if one != known.get(one.name)
    ]


def _differences(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[str, ...]:
    """What changes, by name."""
    told: list[str] = [] if before is not None else ["new"]
    known = before or {}
    told += _entries("index", known.get("indexes", {}), after.get("indexes", {}), "its entries are removed")
    old, new = known.get("schema", {}), after.get("schema", {})
    told += _entries("field", old.get("fields", {}), new.get("fields", {}), "no longer checked")
    checked, checks = ({one["name"]: one for one in rules.get("checks", ())} for rules in (old, new))
    told += _entries("check", checked, checks, "no longer checked")
    if old.get("additional", True) != new.get("additional", True):
        told.append(f"other fields {'are allowed' if new.get('additional', True) else 'are refused'}")
    for name, default, lost in (
        ("history_seconds", 86_400, "older versions are removed"),
        ("ttl_field", "", "documents past their time are removed"),
        ("changes", "new", ""),
    ):
        one, other = known.get(name, default), after.get(name, default)
        if one == other:
            continue
        loses = other < one if name == "history_seconds" else bool(other)
        told.append(f"{name} {one!r} → {other!r}" + (f": {lost}" if lost and loses else ""))
    return tuple(told)


def _entries(kind: str, before: dict[str, Any], after: dict[str, Any], lost: str) -> list[str]:
    told = [f"+ {kind} {name}" for name in after if name not in before]
    told += [f"~ {kind} {name}" for name in after if name in before and before[name] != after[name]]
    return told + [f"- {kind} {name}: {lost}" for name in before if name not in after]


def _heard(graph: AppGraph) -> tuple[tuple[str, ...], tuple[ListenerConfig, ...]]:
    return (*(f"bus {name}" for name in graph.buses), *(f"topic {name}" for name in graph.topics)), graph.listeners


def _why_publish(version: FunctionVersion | None, config: FunctionConfig, code: str, layer: str) -> str:
    if version is None:
        return "new"
    changes = [
        word
        for word, changed in (
            ("code", version.code != code),
            ("dependencies", version.layer != layer),
            ("configuration", version.config != config),
        )
        if changed
    ]
    return f"{' and '.join(changes)} changed" if changes else ""


def teardown(before: AppRecord, serving: Mapping[str, FunctionVersion]) -> tuple[Step, ...]:
    """Steps that remove the whole app."""
    steps: list[Step] = []
    if before.graph.routes:
        steps.append(PutRoutes((), before.graph.routes, 0))
    steps.extend(RemoveSchedule(schedule.name) for schedule in before.graph.schedules)
    if before.graph.consumers or before.graph.changes:
        steps.append(PutQueues((), ()))
    if before.graph.listeners:
        steps.append(PutListeners((), ()))
    steps.extend(RemoveFunction(name) for name, version in sorted(serving.items()) if version.app == before.name)
    return tuple(steps)
