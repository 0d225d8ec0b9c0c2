"""Buckets that apps declare, and the functions of apps that are told of their changes."""

from __future__ import annotations

from typing import Any

import msgspec

from martlet.errors import ServiceError
from martlet.objects.objects import Objects
from martlet.objects.rows import Bucket
from martlet.objects.settings import PUBLIC_ACCESS
from martlet.types import AppGraph

__all__ = ["AppBuckets"]


class AppBuckets:
    """What a deployment asks of this room."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def check(self, app: str, graph: AppGraph) -> None:
        """What a graph may say of buckets was looked at with the graph."""

    async def prepare(self, app: str, graph: AppGraph) -> None:
        """Make the app's buckets as `graph` says. May be repeated. Raises `ServiceError`."""
        for config in graph.buckets:
            name = f"{app}-{config.name}"
            settings = {"ownership": "BucketOwnerEnforced", "public_access_block": dict.fromkeys(PUBLIC_ACCESS, True)}
            try:
                await self._objects.create(name, {**settings, "owner_app": app}, versioning="Enabled" * config.versioning)
            except ServiceError as error:
                if error.name != "BucketAlreadyOwnedByYou":
                    raise
                found = self._objects.demand(name)
                wanted = "Enabled" if config.versioning else "Suspended" if found.versioning else ""
                if found.versioning != wanted:
                    await self._objects.change(name, lambda bucket, to=wanted: msgspec.structs.replace(bucket, versioning=to))  # type: ignore[misc]

    async def consume(self, app: str, graph: AppGraph) -> None:
        """From now on these functions are told of these buckets' changes, and no others of the app. May be repeated."""
        wanted: dict[str, list[dict[str, Any]]] = {}
        for one in graph.subscriptions:
            rules = [
                {"Name": name, "Value": value} for name, value in (("Prefix", one.prefix), ("Suffix", one.suffix)) if value
            ]
            told: dict[str, Any] = {"app": app, "function": f"{app}-{one.function}", "events": list(one.events)}
            if rules:
                told["filter"] = {"Key": {"FilterRules": rules}}
            wanted.setdefault(f"{app}-{one.bucket}", []).append(told)
        for bucket in self._objects.buckets(limit=10_000):
            before = list(bucket.settings.get("apps") or ())
            after = [one for one in before if one["app"] != app] + wanted.get(bucket.name, [])
            if after != before:
                await self._objects.change(bucket.name, _telling(after))


def _telling(told: list[dict[str, Any]]) -> Any:
    def change(bucket: Bucket) -> Bucket:
        settings = {**bucket.settings, "apps": told}
        if not told:
            del settings["apps"]
        return msgspec.structs.replace(bucket, settings=settings)

    return change
