"""Stand-ins for the rooms that providers call: they keep what they are told, and fail or die where a test says so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

from martlet.apps.layers import Layers
from martlet.apps.stacks.artifacts import Workshop
from martlet.apps.stacks.assembly import providers_of
from martlet.apps.stacks.compiling import CODE_BUCKET, Artifact
from martlet.apps.stacks.engine import Engine, Local
from martlet.apps.stacks.providers.apis import ApiGroup
from martlet.apps.stacks.providers.custom import CustomProvider, Responses
from martlet.apps.stacks.reading import TemplateFault
from martlet.apps.stacks.stacks import Stacks
from martlet.apps.stacks.translation import Translation
from martlet.auth import Identities
from martlet.buses import Events, Scheduler
from martlet.buses.rows import Bus, Group, Tables
from martlet.clock import ManualClock
from martlet.errors import InvalidInput, NotFound, ServiceError
from martlet.types import Outcome


class Killed(BaseException):
    """The platform dies here."""


class Control:
    """Lambda's operations on dicts. `trip` is called with (operation, request) before each."""

    def __init__(self) -> None:
        self.functions: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.aliases: dict[tuple[str, str], dict[str, Any]] = {}
        self.urls: dict[tuple[str, str], dict[str, Any]] = {}
        self.permissions: dict[tuple[str, str], dict[str, Any]] = {}
        self.layers: dict[str, dict[int, dict[str, Any]]] = {}
        self.invoke_configs: dict[tuple[str, str], dict[str, Any]] = {}
        self.concurrency: dict[str, int] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.trip: Callable[[str, dict[str, Any]], None] = lambda operation, request: None
        self.after: Callable[[str, dict[str, Any]], None] = lambda operation, request: None

    def __getattr__(self, operation: str) -> Any:
        work = getattr(type(self), f"_{operation}", None)
        if work is None:
            raise AttributeError(operation)

        async def call(caller: Any, request: dict[str, Any], *, app: str = "") -> dict[str, Any]:
            self.calls.append((operation, request))
            self.trip(operation, request)
            await asyncio.sleep(0)
            result: dict[str, Any] = work(self, request) or {}
            self.after(operation, request)
            return result

        return call

    def everything(self) -> dict[str, Any]:
        """All that is there."""
        return {
            "functions": {name: dict(one) for name, one in self.functions.items()},
            "aliases": dict(self.aliases),
            "urls": dict(self.urls),
            "permissions": dict(self.permissions),
            "invoke": dict(self.invoke_configs),
            "concurrency": dict(self.concurrency),
        }

    @staticmethod
    def _name(request: dict[str, Any]) -> str:
        given = str(request["FunctionName"])
        return given.split(":")[6] if given.startswith("arn:") else given.split(":")[0]

    def _need(self, request: dict[str, Any]) -> dict[str, Any]:
        name = self._name(request)
        if name not in self.functions:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {name}", 404)
        return self.functions[name]

    def _create_function(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["FunctionName"]
        if name in self.functions:
            raise ServiceError("ResourceConflictException", f"Function already exist: {name}", 409)
        self.functions[name] = {**request, "State": "Active"}
        self.versions[name] = []
        return {"FunctionName": name}

    def _get_function(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self._need(request)
        return {"Configuration": found, "Tags": found.get("Tags", {})}

    def _get_function_configuration(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._need(request)

    def _update_function_code(self, request: dict[str, Any]) -> None:
        found = self._need(request)
        found["Code"] = {key: one for key, one in request.items() if key in ("S3Bucket", "S3Key", "ZipFile")}

    def _update_function_configuration(self, request: dict[str, Any]) -> None:
        self._need(request).update(request)

    def _delete_function(self, request: dict[str, Any]) -> None:
        self._need(request)
        name = self._name(request)
        if request.get("Qualifier"):
            self.versions[name] = [one for one in self.versions[name] if one["Version"] != request["Qualifier"]]
            return
        del self.functions[name]
        del self.versions[name]
        for table in (self.aliases, self.urls, self.permissions, self.invoke_configs):
            for key in [key for key in table if key[0] == name]:
                del table[key]
        self.concurrency.pop(name, None)

    def _put_function_concurrency(self, request: dict[str, Any]) -> None:
        self._need(request)
        self.concurrency[self._name(request)] = request["ReservedConcurrentExecutions"]

    def _delete_function_concurrency(self, request: dict[str, Any]) -> None:
        self.concurrency.pop(self._name(request), None)

    def _put_function_recursion_config(self, request: dict[str, Any]) -> None:
        self._need(request)["RecursiveLoop"] = request["RecursiveLoop"]

    def _tag_resource(self, request: dict[str, Any]) -> None:
        self.functions[request["Resource"].split(":")[6]].setdefault("Tags", {}).update(request["Tags"])

    def _untag_resource(self, request: dict[str, Any]) -> None:
        for key in request["TagKeys"]:
            self.functions[request["Resource"].split(":")[6]].get("Tags", {}).pop(key, None)

    def _publish_version(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self._need(request)
        name = self._name(request)
        number = str(len(self.versions[name]) + 1)
        self.versions[name].append({"Version": number, "Code": found["Code"]})
        return {"Version": number, "FunctionArn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}:{number}"}

    def _list_versions_by_function(self, request: dict[str, Any]) -> dict[str, Any]:
        self._need(request)
        return {"Versions": [{"Version": "$LATEST"}, *self.versions[self._name(request)]]}

    def _create_alias(self, request: dict[str, Any]) -> None:
        self._need(request)
        self.aliases[self._name(request), request["Name"]] = request

    _update_alias = _create_alias

    def _delete_alias(self, request: dict[str, Any]) -> None:
        self.aliases.pop((self._name(request), request["Name"]), None)

    def _add_permission(self, request: dict[str, Any]) -> None:
        self._need(request)
        self.permissions[self._name(request), request["StatementId"]] = request

    def _remove_permission(self, request: dict[str, Any]) -> None:
        self._need(request)
        self.permissions.pop((self._name(request), request["StatementId"]), None)

    def _publish_layer_version(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.layers.setdefault(request["LayerName"], {})
        number = max(found, default=0) + 1
        found[number] = request
        return {"LayerVersionArn": f"arn:aws:lambda:us-east-1:000000000000:layer:{request['LayerName']}:{number}"}

    def _delete_layer_version(self, request: dict[str, Any]) -> None:
        self.layers.get(request["LayerName"], {}).pop(request["VersionNumber"], None)

    def _create_function_url_config(self, request: dict[str, Any]) -> dict[str, Any]:
        self._need(request)
        self.urls[self._name(request), request.get("Qualifier", "")] = request
        return {"FunctionUrl": f"https://{'u' * 32}.lambda-url.us-east-1.on.aws/"}

    _update_function_url_config = _create_function_url_config

    def _delete_function_url_config(self, request: dict[str, Any]) -> None:
        self.urls.pop((self._name(request), request.get("Qualifier", "")), None)

    def _put_function_event_invoke_config(self, request: dict[str, Any]) -> None:
        self.invoke_configs[self._name(request), request["Qualifier"]] = request

    def _delete_function_event_invoke_config(self, request: dict[str, Any]) -> None:
        self.invoke_configs.pop((self._name(request), request["Qualifier"]), None)


class Apis:
    """The registry of APIs."""

    def __init__(self) -> None:
        self.configs: dict[str, Any] = {}

    async def create(self, config: Any) -> None:
        self.configs[config["id"]] = config

    async def replace(self, config: Any) -> None:
        if config["id"] not in self.configs:
            raise NotFound("no such API")
        self.configs[config["id"]] = config

    async def remove(self, id: str) -> None:
        if id not in self.configs:
            raise NotFound("no such API")
        del self.configs[id]

    @staticmethod
    def build(kind: str, parts: Any, app: str, warn: Any) -> Any:
        return {"id": parts[0].id, "kind": kind, "parts": {part.logical_id: part.properties for part in parts}}


class Schedules:
    """The triggers room's schedules."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], Any] = {}

    def check(self, expression: str, timezone: str = "UTC") -> None:
        if not expression.startswith(("rate(", "cron(")):
            raise InvalidInput(f"{expression} is not a schedule")

    def put(self, tx: Any, app: str, config: Any, function: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", config.name):  # as the room itself has it
            raise InvalidInput(f"schedule name {config.name!r}")
        self.there[app, config.name] = config

    def remove(self, tx: Any, app: str, name: str) -> None:
        self.there.pop((app, name), None)


class Store:
    """Rows in a dict. `commits` counts; `die_at` kills the platform before that commit."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.commits = 0
        self.die_at = 0
        self.is_dead = False

    async def transact(self, fn: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        if self.is_dead:
            raise Killed
        self.commits += 1
        if self.commits == self.die_at:
            self.is_dead = True
            raise Killed
        tx = _Tx(self.rows)
        result = fn(tx)
        self.rows.update(tx.written)
        for key in tx.deleted:
            self.rows.pop(key, None)
        return result

    def read(self, fn: Callable[[Any], Any]) -> Any:
        return fn(_Tx(self.rows))

    def turn(self, name: str, wait_seconds: float | None) -> AbstractAsyncContextManager[bool]:
        return nullcontext(False)


class _Tx:
    now_ms = 1_700_000_000_000

    def __init__(self, rows: dict[bytes, bytes], written: dict[bytes, bytes] | None = None) -> None:
        self._rows = rows
        self.written: dict[bytes, bytes] = {} if written is None else written
        self.deleted: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        return None if key in self.deleted else self.written.get(key, self._rows.get(key))

    def put(self, key: bytes, value: bytes) -> None:
        self.deleted.discard(key)
        self.written[key] = value

    def append(self, topic: str, key: bytes, body: bytes) -> None:
        """Nobody reads the log here."""

    def delete(self, key: bytes) -> None:
        self.written.pop(key, None)
        self.deleted.add(key)

    def scan(self, low: bytes, high: bytes, limit: int = 1000, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        merged = {**self._rows, **self.written}
        keys = sorted((key for key in merged if low <= key < high and key not in self.deleted), reverse=reverse)
        return [(key, merged[key]) for key in keys[:limit]]


class Queues:
    """SQS as far as providers call it: name -> attributes, and tags."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[str, str]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.fails = ""  # the name of a queue that cannot be changed

    def _name(self, request: dict[str, Any]) -> str:
        name = str(request["QueueUrl"].rpartition("/")[2])
        if name not in self.queues:
            raise ServiceError("QueueDoesNotExist", "The specified queue does not exist.")
        return name

    async def create_queue(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        self.queues.setdefault(request["QueueName"], dict(request["Attributes"]))
        self.tags.setdefault(request["QueueName"], dict(request["tags"]))
        return {"QueueUrl": f"{caller.endpoint}/000000000000/{request['QueueName']}"}

    async def list_queue_tags(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return {"Tags": self.tags[self._name(request)]}

    async def set_queue_attributes(self, caller: Any, request: dict[str, Any]) -> None:
        name = self._name(request)
        if name == self.fails:
            raise ServiceError("InvalidAttributeValue", "no")
        self.queues[name].update(request["Attributes"])

    async def tag_queue(self, caller: Any, request: dict[str, Any]) -> None:
        self.tags[self._name(request)].update(request["Tags"])

    async def untag_queue(self, caller: Any, request: dict[str, Any]) -> None:
        for key in request["TagKeys"]:
            self.tags[self._name(request)].pop(key, None)

    async def delete_queue(self, caller: Any, request: dict[str, Any]) -> None:
        del self.queues[self._name(request)]


class Sources:
    """Event source mappings: UUID -> request."""

    def __init__(self) -> None:
        self.mappings: dict[str, dict[str, Any]] = {}

    def _shown(self, uuid: str) -> dict[str, Any]:
        if uuid not in self.mappings:
            raise ServiceError("ResourceNotFoundException", "The resource you requested does not exist.", 404)
        return {"UUID": uuid, "State": "Enabled" if self.mappings[uuid].get("Enabled", True) else "Disabled"}

    async def create_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        uuid = f"uuid-{len(self.mappings) + 1}"
        self.mappings[uuid] = dict(request)
        return self._shown(uuid)

    async def get_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return self._shown(request["UUID"])

    async def list_event_source_mappings(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        found = [uuid for uuid, one in self.mappings.items() if all(one.get(key) == value for key, value in request.items())]
        return {"EventSourceMappings": [self._shown(uuid) for uuid in found]}

    async def update_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        self._shown(request["UUID"])
        self.mappings[request["UUID"]].update(request)
        return self._shown(request["UUID"])

    async def delete_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        shown = self._shown(request["UUID"])
        del self.mappings[request["UUID"]]
        return shown


class _NoServices:
    """No universal targets: no template of these tests has one."""

    async def check(self, service: str, action: str, parameters: Any) -> None:
        raise AssertionError(f"{service}:{action} was asked for")


class House:
    """A platform with nothing but stacks. `reborn` is what a restart after a crash finds."""

    def __init__(self, data: Path | None = None, *, before: House | None = None) -> None:
        self.data = data or Path("/nonexistent")
        self.store = Store()
        self.control = before.control if before else Control()
        self.apis = before.apis if before else Apis()
        self.schedules = before.schedules if before else Schedules()
        self.queues = before.queues if before else Queues()
        self.sources = before.sources if before else Sources()
        self.clock = before.clock if before else ManualClock()
        if before is not None:
            self.store.rows = dict(before.store.rows)
        given: dict[str, Any] = {"region": "us-east-1", "compile_pattern": lambda text: bool, "timetable": self.schedules}
        self.events = Events(self.store, self.clock, **given)
        self.scheduler = Scheduler(self.store, self.clock, services=_NoServices(), **given)
        tables = Tables(_Tx(self.store.rows, self.store.rows))  # type: ignore[arg-type]
        tables.put(Bus(name="default", created_at_ms=0, modified_at_ms=0))
        tables.put(Group(name="default", created_at_ms=0, modified_at_ms=0))
        self.topics: Any = None
        self.responses = Responses()
        self.invoke: Callable[[str, bytes], Outcome] = lambda name, event: Outcome(b"null")
        self.objects: dict[str, bytes] = {}
        self.translation = Translation("us-east-1")

        async def package(artifact: Artifact) -> str:
            return f"packed-{artifact.location}"

        def load(location: str, line: int) -> bytes:
            if location not in self.objects:
                raise TemplateFault(f"cannot read {location}", line)
            return self.objects[location]

        async def invoke(name: str, event: bytes) -> Outcome:
            await asyncio.sleep(0)
            return self.invoke(name, event)

        custom = CustomProvider(invoke, self.responses, lambda: "http://127.0.0.1:9001")
        identities = Identities(self.store)
        providers = providers_of(
            self.store, self.control, identities, self.apis, self.schedules, custom, self.queues, self.sources, buses=self
        )
        self.local = Local(load, package, True)
        self.engine = Engine(
            self.store,
            self.clock,
            providers=providers,
            groups=(ApiGroup(self.apis, self.apis.build),),
            translation=self.translation,
            region="us-east-1",
            invoke_base=lambda: "http://127.0.0.1:8700",
            sandbox_base=lambda: "http://127.0.0.1:9001",
            remote=self.local,
        )
        self.stacks = Stacks(self.engine, Workshop(self.data, Layers(self.data / "layers")), self.clock)

    async def reborn(self) -> House:
        """The same rooms, a new process."""
        self.store.is_dead = False
        after = House(self.data, before=self)
        await after.engine.load()
        await after.engine.settled()
        return after

    def uses(self, bucket: str = CODE_BUCKET) -> bool:
        return any(one["Code"].get("S3Bucket") == bucket for one in self.control.functions.values())
