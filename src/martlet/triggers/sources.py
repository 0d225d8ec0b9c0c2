"""Event source mappings: the operations of the Lambda API, dict to dict, and the consumers that they switch on and off.

`EventSources` is an object beside the control plane of functions: `server.py` offers its operations as part of the service
"lambda". Source: Lambda API reference, CreateEventSourceMapping and the four others; recorded answers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from martlet.clock import Clock, token_hex, uuid4_text
from martlet.errors import NotFound, ServiceError
from martlet.queues import Queues
from martlet.store import Store, Tx
from martlet.triggers import mappings
from martlet.triggers.consumers import Consumer, Dispatch
from martlet.triggers.followers import Destinations, Follower, cursor_name
from martlet.triggers.mappings import Mapping, invalid
from martlet.triggers.streams import CollectionChanges, Source, StreamRecords, TableStream, position_at
from martlet.types import ACCOUNT, AppGraph, ChangesConfig, ConsumerConfig, QueueConfig

__all__ = ["OPERATIONS", "EventSources", "Target"]

OPERATIONS: Final = (
    "create_event_source_mapping",
    "get_event_source_mapping",
    "list_event_source_mappings",
    "update_event_source_mapping",
    "delete_event_source_mapping",
)
_PAGE: Final = 100
_TAGS_MAX: Final = 50
_REASON: Final = "USER_INITIATED"


class Target(msgspec.Struct, frozen=True):
    """A function that a mapping may name. `function` is what is dispatched: "name" or "name:qualifier"."""

    function: str
    arn: str
    timeout_seconds: float


Resolve = Callable[[str], Target | None]


class EventSources:
    """Mappings and their consumers. `resolve(name, ARN or partial ARN)` finds the function or says None; `authorize(principal,
    action, resource)` raises unless the caller may: the operations ask by themselves, as the control plane's do. `streams` has
    the records of DynamoDB tables' streams, `destinations` takes batches that are given up; without them mappings that need
    them are refused. `holder` as for `Triggers`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        queues: Queues,
        dispatch: Dispatch,
        resolve: Resolve,
        *,
        authorize: Callable[[Any, str, str], None],
        region: str = "us-east-1",
        streams: StreamRecords | None = None,
        destinations: Destinations | None = None,
        holder: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._queues = queues
        self._dispatch = dispatch
        self._resolve = resolve
        self._authorize = authorize
        self._region = region
        self._streams = streams
        self._destinations = destinations
        self._holder = holder or token_hex(8)
        self._consumers: dict[str, Consumer | Follower] = {}
        self._retired: list[Consumer | Follower] = []  # whose last batches still run
        self._following: dict[str, asyncio.Lock] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._stopping = False

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on with every mapping, and finish changes that a crash interrupted."""
        self._store.watch(*mappings.RANGE, self._others_changed)
        for mapping in self._store.read(mappings.every):
            await self._follow(mapping.uuid)

    def _others_changed(self, changed: Sequence[bytes] | None) -> None:
        """Another node made, changed or deleted mappings: every node has a consumer for each, of which one at a time takes."""
        now = {one.uuid: one for one in self._store.read(mappings.every)}
        for uuid in {*now, *self._consumers}:
            running = self._consumers.get(uuid)
            before = None if running is None else running.mapping
            if uuid not in now or before is None or mappings.differ(before, now[uuid]):
                self._soon(uuid)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        self._stopping = True
        await self.settled()
        everyone = [*self._consumers.values(), *self._retired]
        await asyncio.gather(*(consumer.stop(grace_seconds) for consumer in everyone))
        self._consumers.clear()
        self._retired.clear()

    async def settled(self) -> None:
        """Wait until every mapping has reached its next state."""
        while self._work:
            await asyncio.wait(set(self._work))

    # --- operations -----------------------------------------------------------------------------------------------

    async def create_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Raises `ServiceError` InvalidParameterValueException, ResourceConflictException."""
        self._authorize(caller.principal, "lambda:CreateEventSourceMapping", "*")
        arn = request.get("EventSourceArn")
        if not arn:
            raise invalid("Unrecognized event source.")
        if ":sqs:" in str(arn):
            mappings.check_members(request)  # before anything is looked up, as the service does
        target = self._target(request)
        bare = Mapping(
            uuid=uuid4_text(),
            queue="",
            queue_arn=str(arn),
            function=target.function,
            function_arn=target.arn,
            state="Creating",
            enabled=request.get("Enabled") is not False,
            modified_at_ms=self._clock.now_ms(),
            tags=dict(request.get("Tags") or {}),
        )
        if self._is_stream(str(arn)):
            mapping = self._checked_stream(bare, request)
        else:
            queue = self._queue(str(arn))
            self._check_timeout(target, queue.visibility_ms)
            mapping = mappings.checked(msgspec.structs.replace(bare, queue=queue.name), request, fifo=queue.fifo)
        await self._store.transact(lambda tx: self._put_new(tx, mapping))
        self._soon(mapping.uuid)
        return self._shown(mapping)

    async def get_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        self._authorize(caller.principal, "lambda:GetEventSourceMapping", "*")
        return self._shown(self._demand(request))

    async def list_event_source_mappings(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        self._authorize(caller.principal, "lambda:ListEventSourceMappings", "*")
        found = self._store.read(mappings.every)
        if request.get("EventSourceArn"):
            found = [one for one in found if one.queue_arn == request["EventSourceArn"]]
        if request.get("FunctionName"):
            target = self._resolve(str(request["FunctionName"]))
            found = [one for one in found if target is not None and one.function_arn == target.arn]
        most = min(max(int(request.get("MaxItems") or _PAGE), 1), _PAGE)
        after = _marker(request.get("Marker"))
        left = [one for one in found if one.uuid > after]
        answer: dict[str, Any] = {"EventSourceMappings": [self._shown(one) for one in left[:most]]}
        if len(left) > most:
            answer["NextMarker"] = base64.b64encode(left[most - 1].uuid.encode()).decode()
        return answer

    async def update_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Raises `ServiceError` ResourceNotFoundException, InvalidParameterValueException, ResourceInUseException."""
        self._authorize(caller.principal, "lambda:UpdateEventSourceMapping", "*")
        before = self._demand(request)
        if before.state == "Deleting":
            raise ServiceError("ResourceInUseException", "The mapping is being deleted.", 400, Type="User")
        queue = None if before.is_stream else self._queues.find(before.queue)
        if before.is_stream:
            changed = self._checked_stream(before, request)
        else:
            changed = mappings.checked(before, request, fifo=queue is not None and queue.fifo)
        if request.get("FunctionName"):
            target = self._target(request)
            if queue is not None:
                self._check_timeout(target, queue.visibility_ms)
            changed = msgspec.structs.replace(changed, function=target.function, function_arn=target.arn)
        enabled = before.enabled if request.get("Enabled") is None else bool(request["Enabled"])
        state = "Updating"
        if enabled != before.enabled:
            state = "Enabling" if enabled else "Disabling"
        after = msgspec.structs.replace(changed, enabled=enabled, state=state, modified_at_ms=self._clock.now_ms())
        await self._store.transact(lambda tx: _replace(tx, after))
        self._soon(after.uuid)
        return self._shown(after)

    async def delete_event_source_mapping(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        self._authorize(caller.principal, "lambda:DeleteEventSourceMapping", "*")
        before = self._demand(request)
        after = msgspec.structs.replace(before, state="Deleting", modified_at_ms=self._clock.now_ms())
        await self._store.transact(lambda tx: _replace(tx, after))
        self._soon(after.uuid)
        return self._shown(after)

    # --- tags -----------------------------------------------------------------------------------------------------

    async def list_tags(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListTags, for a mapping's ARN. Raises `ServiceError` ResourceNotFoundException."""
        self._authorize(caller.principal, "lambda:ListTags", "*")
        return {"Tags": dict(self._by_arn(request["Resource"]).tags)}

    async def tag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, TagResource."""
        self._authorize(caller.principal, "lambda:TagResource", "*")
        await self._retag(request["Resource"], lambda before: {**before, **request["Tags"]})
        return {}

    async def untag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UntagResource."""
        self._authorize(caller.principal, "lambda:UntagResource", "*")
        gone = set(request["TagKeys"])
        await self._retag(request["Resource"], lambda before: {key: one for key, one in before.items() if key not in gone})
        return {}

    def _by_arn(self, arn: str) -> Mapping:
        uuid = arn.rpartition(":")[2]
        found = self._store.read(lambda reader: mappings.get(reader, uuid))
        if found is None or arn != f"arn:aws:lambda:{self._region}:{ACCOUNT}:event-source-mapping:{uuid}":
            raise ServiceError("ResourceNotFoundException", f"Event source mapping not found: {arn}", 404, Type="User")
        return found

    async def _retag(self, arn: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        mapping = self._by_arn(arn)
        tags = change(mapping.tags)
        if len(tags) > _TAGS_MAX:
            raise invalid(f"Number of tags exceeds resource tag limit of {_TAGS_MAX}.")

        def write(tx: Tx) -> None:
            now = mappings.get(tx, mapping.uuid)
            if now is None:
                raise _unknown()
            mappings.put(tx, msgspec.structs.replace(now, tags=change(now.tags)))

        await self._store.transact(write)

    # --- what apps deploy -----------------------------------------------------------------------------------------

    def check(self, app: str, graph: AppGraph) -> None:
        """Whether the app's triggers can be, but for what its deployment has yet to make. Raises `ServiceError`."""
        queues = {config.name: config for config in graph.queues}
        for consumer in graph.consumers:
            self._wanted(app, queues[consumer.queue], consumer)
        for followed in graph.changes:
            mappings.checked_stream(*self._stream_of(app, msgspec.structs.replace(followed, on_failure="")))

    async def prepare(self, app: str, graph: AppGraph) -> None:
        """Make the app's queues as `graph` says, or set their attributes so, once its triggers are checked. May be repeated.
        Raises `ServiceError`."""
        self.check(app, graph)
        timeouts = {function.name: function.timeout_seconds for function in graph.functions}
        for config in graph.queues:
            slowest = max((timeouts[one.function] for one in graph.consumers if one.queue == config.name), default=0.0)
            attributes = _attributes(config, slowest)
            if config.retries is not None:
                dead = await self._queues.create(_queue_name(app, config, "-dead"), _kind(config))
                policy = {"deadLetterTargetArn": self._queue_arn(dead.name), "maxReceiveCount": config.retries}
                attributes["RedrivePolicy"] = json.dumps(policy)
            name = _queue_name(app, config)
            await self._queues.create(name, _kind(config))
            await self._queues.set_attributes(name, attributes)
        for followed in graph.changes:
            self._followed(app, followed)

    async def consume(self, app: str, graph: AppGraph) -> None:
        """From now on these functions take these queues' messages, and no others of the app. May be repeated."""
        queues = {config.name: config for config in graph.queues}
        wanted = [self._wanted(app, queues[one.queue], one) for one in graph.consumers]
        await self._put_app(app, [*wanted, *(self._followed(app, one) for one in graph.changes)])

    def _followed(self, app: str, config: ChangesConfig) -> Mapping:
        return self._checked_stream(*self._stream_of(app, config))

    def _stream_of(self, app: str, config: ChangesConfig) -> tuple[Mapping, dict[str, Any]]:
        function = f"{app}-{config.function}"
        arn = f"arn:martlet:documents:{self._region}:{ACCOUNT}:{app}/{config.collection}"
        bare = Mapping(
            uuid=uuid4_text(),
            queue="",
            queue_arn=arn,
            function=function,
            function_arn=f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{function}",
            state="Creating",
            enabled=True,
            modified_at_ms=self._clock.now_ms(),
            app=app,
        )
        request: dict[str, Any] = {
            "StartingPosition": "LATEST" if config.start == "now" else "TRIM_HORIZON",
            "BatchSize": config.batch_size,
            "MaximumBatchingWindowInSeconds": config.window_seconds,
            "FilterCriteria": {"Filters": [{"Pattern": pattern} for pattern in config.patterns]},
            "FunctionResponseTypes": ["ReportBatchItemFailures"] if config.report_failures else [],
            "ParallelizationFactor": config.concurrency,
            "MaximumRetryAttempts": config.retries,
            "MaximumRecordAgeInSeconds": config.max_age_seconds,
            "BisectBatchOnFunctionError": config.bisect,
        }
        if config.on_failure:
            request["DestinationConfig"] = {"OnFailure": {"Destination": self._destination(app, config)}}
        return bare, request

    def _destination(self, app: str, config: ChangesConfig) -> str:
        kind, _, name = config.on_failure.partition(":")
        if kind == "function":
            return f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{app}-{name}"
        return self._queue_arn(f"{app}-{name}")

    def _wanted(self, app: str, queue: QueueConfig, consumer: ConsumerConfig) -> Mapping:
        function = f"{app}-{consumer.function}"
        bare = Mapping(
            uuid=uuid4_text(),
            queue=_queue_name(app, queue),
            queue_arn=self._queue_arn(_queue_name(app, queue)),
            function=function,
            function_arn=f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{function}",
            state="Creating",
            enabled=True,
            modified_at_ms=self._clock.now_ms(),
            app=app,
        )
        request: dict[str, Any] = {
            "BatchSize": consumer.batch_size,
            "MaximumBatchingWindowInSeconds": consumer.window_seconds,
            "FilterCriteria": {"Filters": [{"Pattern": pattern} for pattern in consumer.patterns]},
            "FunctionResponseTypes": ["ReportBatchItemFailures"] if consumer.report_failures else [],
        }
        if consumer.concurrency:
            request["ScalingConfig"] = {"MaximumConcurrency": consumer.concurrency}
        return mappings.checked(bare, request, fifo=queue.fifo)

    def _queue_arn(self, name: str) -> str:
        return f"arn:aws:sqs:{self._region}:{ACCOUNT}:{name}"

    async def _put_app(self, app: str, wanted: Sequence[Mapping]) -> None:
        """The mappings of an app are these, each known by queue and function; one that is as it was is left alone."""

        def write(tx: Tx) -> list[str]:
            now = {(one.queue_arn, one.function): one for one in mappings.every(tx) if one.app == app}
            touched = []
            for one in wanted:
                before = now.pop((one.queue_arn, one.function), None)
                if before is not None:
                    same = {"uuid": before.uuid, "enabled": before.enabled, "state": before.state, "position": before.position}
                    if msgspec.structs.replace(one, **same, modified_at_ms=before.modified_at_ms) == before:
                        continue
                    one = msgspec.structs.replace(one, **same | {"state": "Updating"})
                elif one.is_stream:
                    self._begin(tx, one)
                mappings.put(tx, one)
                touched.append(one.uuid)
            for gone in now.values():
                mappings.put(tx, msgspec.structs.replace(gone, state="Deleting"))
                touched.append(gone.uuid)
            return touched

        for uuid in await self._store.transact(write):
            self._soon(uuid)

    # --- states -----------------------------------------------------------------------------------------------------

    def _soon(self, uuid: str) -> None:
        task = asyncio.get_running_loop().create_task(self._follow(uuid))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _follow(self, uuid: str) -> None:
        """Bring the mapping from a passing state to its lasting one, and its consumer with it. One change after the other."""
        lock = self._following.setdefault(uuid, asyncio.Lock())
        async with lock:
            await self._settle(uuid)

    async def _settle(self, uuid: str) -> None:
        running = self._consumers.pop(uuid, None)
        if running is not None:
            await running.retire()
            self._retired = [one for one in (*self._retired, running) if one.running]

        def settle(tx: Tx) -> Mapping | None:
            now = mappings.get(tx, uuid)
            if now is None:
                return None
            if now.state == "Deleting":
                mappings.delete(tx, uuid)
                tx.cursor_drop(cursor_name(uuid))
                return None
            state = "Enabled" if now.enabled else "Disabled"
            if state != now.state:
                now = msgspec.structs.replace(self._shelved(tx, now), state=state)
                mappings.put(tx, now)
            return now

        mapping = await self._store.transact(settle)
        if mapping is not None and mapping.enabled and not self._stopping:
            consumer = self._consumer(mapping)
            self._consumers[uuid] = consumer
            consumer.start()
        if mapping is None:
            self._following.pop(uuid, None)

    def _consumer(self, mapping: Mapping) -> Consumer | Follower:
        if not mapping.is_stream:
            turn = partial(self._store.turn, f"mapping/{mapping.uuid}", None)
            return Consumer(mapping, self._queues, self._dispatch, self._clock, self._region, turn)
        return Follower(
            mapping,
            self._source(mapping.queue_arn),
            self._store,
            self._dispatch,
            self._clock,
            holder=self._holder,
            destinations=self._destinations,
        )

    # --- streams --------------------------------------------------------------------------------------------------

    @staticmethod
    def _is_stream(arn: str) -> bool:
        parts = arn.split(":")
        return len(parts) >= 6 and parts[2] in ("documents", "dynamodb") and parts[1] in ("martlet", "aws")

    def _source(self, arn: str) -> Source:
        parts = arn.split(":", 5)
        if parts[1:3] == ["martlet", "documents"]:
            database, _, collection = parts[5].rpartition("/")
            if not database or not collection:
                raise invalid(f"Unsupported event source {arn}: a collection is named <app>/<collection>.")
            return CollectionChanges(self._store, database, collection)
        if self._streams is None:
            raise invalid(f"Unsupported event source {arn}: this platform has no streams of DynamoDB tables.")
        return TableStream(self._streams, self._store, arn)

    def _checked_stream(self, mapping: Mapping, request: dict[str, Any]) -> Mapping:
        source = self._source(mapping.queue_arn)
        if not mapping.start:
            try:
                source.read(self._store.head)
            except NotFound:
                raise invalid(f"Stream not found under ARN: {mapping.queue_arn}") from None
        after = mappings.checked_stream(mapping, request)
        if after.on_failure:
            why = "this platform has none" if self._destinations is None else self._destinations.check(after.on_failure)
            if why:
                raise invalid(f"Unsupported destination {after.on_failure}: {why}.")
        return after

    def _begin(self, tx: Tx, mapping: Mapping) -> None:
        """Its cursor, where its starting position says. The log is kept from there on."""
        at = tx.last_seq
        if mapping.start == "TRIM_HORIZON":
            at = self._store.first - 1
        elif mapping.start == "AT_TIMESTAMP":
            at = position_at(self._store, mapping.start_at_ms)
        name = cursor_name(mapping.uuid)
        tx.cursor_move(name, tx.cursor(name), at)

    def _shelved(self, tx: Tx, mapping: Mapping) -> Mapping:
        """A disabled mapping keeps its place, but does not hold the log back; an enabled one takes it up again."""
        name = cursor_name(mapping.uuid)
        if not mapping.is_stream or mapping.enabled == (mapping.position < 0):
            return mapping
        if mapping.enabled:
            tx.cursor_move(name, tx.cursor(name), mapping.position)
            return msgspec.structs.replace(mapping, position=-1)
        at = tx.cursor(name)
        tx.cursor_drop(name)
        return msgspec.structs.replace(mapping, position=at)

    def _put_new(self, tx: Tx, mapping: Mapping) -> None:
        _require_new(tx, mapping)
        if mapping.is_stream:
            self._begin(tx, mapping)
        mappings.put(tx, mapping)

    # --- what requests name -----------------------------------------------------------------------------------------

    def _target(self, request: dict[str, Any]) -> Target:
        found = self._resolve(str(request.get("FunctionName") or ""))
        if found is None:
            raise invalid("Function does not exist")
        return found

    def _queue(self, arn: str) -> Any:
        parts = arn.split(":")
        if len(parts) != 6 or parts[2] != "sqs":
            raise invalid(f"Unsupported event source {arn}: Martlet has mappings for queues, collections and tables.")
        queue = self._queues.find_arn(arn)
        if queue is None:
            raise invalid(
                "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
                "SQS Error Message: The specified queue does not exist."
            )
        return queue

    @staticmethod
    def _check_timeout(target: Target, visibility_ms: int) -> None:
        if visibility_ms < target.timeout_seconds * 1000:
            raise invalid(
                f"Queue visibility timeout: {visibility_ms // 1000} seconds is less than Function timeout: "
                f"{-(-int(target.timeout_seconds * 1000) // 1000)} seconds"
            )

    def _demand(self, request: dict[str, Any]) -> Mapping:
        uuid = str(request.get("UUID") or "")
        found = self._store.read(lambda reader: mappings.get(reader, uuid))
        if found is None:
            raise _unknown()
        return found

    def _shown(self, mapping: Mapping) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "UUID": mapping.uuid,
            "BatchSize": mapping.batch_size,
            "MaximumBatchingWindowInSeconds": mapping.window_seconds,
            "EventSourceArn": mapping.queue_arn,
            "EventSourceMappingArn": f"arn:aws:lambda:{self._region}:{ACCOUNT}:event-source-mapping:{mapping.uuid}",
            "FunctionArn": mapping.function_arn,
            "FunctionResponseTypes": ["ReportBatchItemFailures"] if mapping.report_failures else [],
            "LastModified": mapping.modified_at_ms / 1000,
            "State": mapping.state,
            "StateTransitionReason": _REASON,
        }
        if mapping.patterns:
            shown["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in mapping.patterns]}
        if mapping.is_stream:
            return shown | self._shown_stream(mapping)
        if mapping.concurrency:
            shown["ScalingConfig"] = {"MaximumConcurrency": mapping.concurrency}
        return shown

    def _shown_stream(self, mapping: Mapping) -> dict[str, Any]:
        running = self._consumers.get(mapping.uuid)
        shown: dict[str, Any] = {
            "StartingPosition": mapping.start,
            "ParallelizationFactor": mapping.lanes,
            "MaximumRetryAttempts": mapping.retries,
            "MaximumRecordAgeInSeconds": mapping.max_age_seconds,
            "BisectBatchOnFunctionError": mapping.bisect,
            "TumblingWindowInSeconds": 0,
            "DestinationConfig": {"OnFailure": {"Destination": mapping.on_failure} if mapping.on_failure else {}},
            "LastProcessingResult": running.result if isinstance(running, Follower) else "No records processed",
        }
        if mapping.start == "AT_TIMESTAMP":
            shown["StartingPositionTimestamp"] = mapping.start_at_ms / 1000
        return shown


def _queue_name(app: str, config: QueueConfig, suffix: str = "") -> str:
    return f"{app}-{config.name}{suffix}{'.fifo' if config.fifo else ''}"


def _kind(config: QueueConfig) -> dict[str, str]:
    return {"FifoQueue": "true"} if config.fifo else {}


def _attributes(config: QueueConfig, slowest_seconds: float) -> dict[str, str]:
    """As SQS has them. The default of visibility is AWS's advice for Lambda: six times the function's timeout."""
    visibility = config.visibility_seconds
    if visibility is None:
        visibility = min(max(30, -(-int(slowest_seconds * 6000) // 1000)), 43_200)
    found = {"VisibilityTimeout": str(visibility), "RedrivePolicy": ""}
    found["MessageRetentionPeriod"] = str(config.retention_seconds or 345_600)
    found["DelaySeconds"] = str(config.delay_seconds or 0)
    return found | ({"ContentBasedDeduplication": "true"} if config.fifo else {})


def _unknown() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "The resource you requested does not exist.", 404, Type="User")


def _require_new(tx: Tx, mapping: Mapping) -> None:
    for other in mappings.every(tx):
        if (other.queue_arn, other.function_arn) == (mapping.queue_arn, mapping.function_arn) and other.state != "Deleting":
            name = mapping.function_arn.split(":function:", 1)[-1]
            kind = "event source" if mapping.is_stream else "SQS"
            raise ServiceError(
                "ResourceConflictException",
                f'An event source mapping with {kind} arn (" {mapping.queue_arn} ") and function (" {name} ") already exists. '
                f"Please update or delete the existing mapping with UUID {other.uuid}",
                409,
                Type="User",
            )


def _replace(tx: Tx, mapping: Mapping) -> None:
    if mappings.get(tx, mapping.uuid) is None:
        raise _unknown()
    mappings.put(tx, mapping)


def _marker(text: str | None) -> str:
    try:
        return base64.b64decode(text or "", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid("The specified marker is not one that this operation gave out.") from None
