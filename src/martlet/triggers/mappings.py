"""Event source mappings as rows: from which source, to which function, how. Functions over one transaction, and the checks.

A source is a queue (ARN of SQS), the changes of a collection ("arn:martlet:documents:<region>:<account>:<app>/<collection>"),
or the stream of a DynamoDB table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from martlet.errors import InvalidInput, ServiceError
from martlet.limits import LIMITS
from martlet.store import Reader, Tx, keys
from martlet.triggers.kinds.queue import body_form
from martlet.triggers.patterns import Matches, parse_pattern

__all__ = [
    "Mapping",
    "check_members",
    "checked",
    "checked_stream",
    "compiled",
    "delete",
    "differ",
    "every",
    "get",
    "invalid",
    "put",
]

_ROWS: Final = "triggers.mapping"  # (.., uuid) -> Mapping
RANGE: Final = keys.prefix_range(_ROWS)
_FILTERS_MAX: Final = 10  # Lambda's quota; five without asking for more
_BATCH_MAX: Final = 10_000
_FIFO_BATCH_MAX: Final = 10
_WINDOW_MAX: Final = 300
# Members of CreateEventSourceMapping that are for other kinds of sources.
_STREAMS_ONLY: Final = (
    *("StartingPosition", "StartingPositionTimestamp", "ParallelizationFactor", "MaximumRecordAgeInSeconds"),
    *("BisectBatchOnFunctionError", "MaximumRetryAttempts", "TumblingWindowInSeconds", "DestinationConfig"),
)
_QUEUES_ONLY: Final = ("ScalingConfig",)
_OTHER_SOURCES: Final = (
    *("Topics", "Queues", "SourceAccessConfigurations", "SelfManagedEventSource", "SelfManagedKafkaEventSourceConfig"),
    *("AmazonManagedKafkaEventSourceConfig", "DocumentDBEventSourceConfig"),
)
_STREAM_BATCH: Final = 100  # Lambda's default for streams
_AGE_SECONDS: Final = (60, 604_800)
_RETRIES_MAX: Final = 10_000
_LANES_MAX: Final = 10  # ParallelizationFactor
_APP_LANES_MAX: Final = LIMITS["change_consumers"].default
_STARTS: Final = ("LATEST", "TRIM_HORIZON", "AT_TIMESTAMP")
_UNSUPPORTED: Final = ("ProvisionedPollerConfig", "KMSKeyArn", "MetricsConfig", "LoggingConfig")


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping. `state` is Creating, Enabling, Enabled, Disabling, Disabled, Updating or Deleting."""

    uuid: str
    queue: str  # name; "" for other sources
    queue_arn: str  # of the source, whatever it is
    function: str  # as it is dispatched: "name" or "name:qualifier"
    function_arn: str
    state: str
    enabled: bool
    modified_at_ms: int
    batch_size: int = 10
    window_seconds: int = 0
    patterns: tuple[str, ...] = ()
    report_failures: bool = False
    concurrency: int = 0  # most batches at one time; 0: as many as the platform can run
    tags: dict[str, str] = {}
    app: str = ""  # that deployed it; such a mapping is changed by deploying
    # Of streams alone:
    start: str = ""  # "LATEST", "TRIM_HORIZON" or "AT_TIMESTAMP"; "": it is a queue
    start_at_ms: int = 0
    lanes: int = 1  # batches at one time; records of one document share a lane
    retries: int = -1  # runs after the first that failed; -1: until the record is too old
    max_age_seconds: int = -1  # -1: a day, as long as a stream keeps its records
    bisect: bool = False
    on_failure: str = ""  # ARN of where given-up batches go; "": to the dead letters
    position: int = -1  # where it goes on after it was disabled; -1: its cursor says

    @property
    def is_stream(self) -> bool:
        return bool(self.start)


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Mapping)


def get(reader: Reader, uuid: str) -> Mapping | None:
    raw = reader.get(keys.encode(_ROWS, uuid))
    return None if raw is None else _DECODER.decode(raw)


def differ(one: Mapping, other: Mapping) -> bool:
    """Whether a consumer of the one is no consumer of the other."""
    same = {"state": "", "tags": {}, "modified_at_ms": 0}
    return msgspec.structs.replace(one, **same) != msgspec.structs.replace(other, **same)


def put(tx: Tx, mapping: Mapping) -> None:
    tx.put(keys.encode(_ROWS, mapping.uuid), _ENCODER.encode(mapping))


def delete(tx: Tx, uuid: str) -> None:
    tx.delete(keys.encode(_ROWS, uuid))


def every(reader: Reader) -> list[Mapping]:
    """All mappings by UUID."""
    return [_DECODER.decode(raw) for _, raw in reader.scan(*keys.prefix_range(_ROWS), limit=100_000)]


def invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", message, 400, Type="User")


def compiled(patterns: Sequence[str]) -> list[tuple[str, Matches]]:
    """The filters of a mapping, ready for `kinds.queue.lets_through`. Raises `InvalidInput`."""
    return [(body_form(json.loads(pattern)), parse_pattern(pattern)) for pattern in patterns]


def check_members(request: dict[str, Any]) -> None:
    """Raises `ServiceError` for members that are for other sources, or that Martlet does not honour."""
    for member in _STREAMS_ONLY:
        if request.get(member) is not None:
            if member == "DestinationConfig" and not request[member]:
                continue
            raise invalid(f"Unsupported {member} parameter for given event source mapping type.")
    for member in _UNSUPPORTED:
        if request.get(member):
            raise invalid(f"{member} is not supported by Martlet.")


def checked(mapping: Mapping, request: dict[str, Any], *, fifo: bool) -> Mapping:
    """`mapping` with what `request` says of batch, window, filters, answers and scaling. Raises `ServiceError`."""
    check_members(request)
    changes = _common(request)
    if request.get("ScalingConfig") is not None:
        changes["concurrency"] = _concurrency(request["ScalingConfig"])
    after = msgspec.structs.replace(mapping, **changes)
    _check_batch(after, fifo)
    return after


def _common(request: dict[str, Any]) -> dict[str, Any]:
    """What mappings of every kind of source have."""
    changes: dict[str, Any] = {}
    if request.get("BatchSize") is not None:
        changes["batch_size"] = int(request["BatchSize"])
    if request.get("MaximumBatchingWindowInSeconds") is not None:
        changes["window_seconds"] = int(request["MaximumBatchingWindowInSeconds"])
    if request.get("FilterCriteria") is not None:
        changes["patterns"] = _patterns(request["FilterCriteria"])
    if request.get("FunctionResponseTypes") is not None:
        changes["report_failures"] = "ReportBatchItemFailures" in request["FunctionResponseTypes"]
    return changes


def checked_stream(mapping: Mapping, request: dict[str, Any]) -> Mapping:
    """`mapping` (which says its start already, unless it is new) with what `request` says. Raises `ServiceError`."""
    for member in (*_QUEUES_ONLY, *_OTHER_SOURCES):
        if request.get(member):
            raise invalid(f"Unsupported {member} parameter for given event source mapping type.")
    for member in (*_UNSUPPORTED, "TumblingWindowInSeconds"):
        if request.get(member):
            raise invalid(f"{member} is not supported by Martlet.")
    changes = _common(request)
    if not mapping.start:
        changes |= _start(request)
        changes.setdefault("batch_size", _STREAM_BATCH)
    for member, field in (
        ("ParallelizationFactor", "lanes"),
        ("MaximumRetryAttempts", "retries"),
        ("MaximumRecordAgeInSeconds", "max_age_seconds"),
    ):
        if request.get(member) is not None:
            changes[field] = int(request[member])
    if request.get("BisectBatchOnFunctionError") is not None:
        changes["bisect"] = bool(request["BisectBatchOnFunctionError"])
    if request.get("DestinationConfig") is not None:
        changes["on_failure"] = _on_failure(request["DestinationConfig"])
    after = msgspec.structs.replace(mapping, **changes)
    _check_stream(after)
    return after


def _start(request: dict[str, Any]) -> dict[str, Any]:
    start = request.get("StartingPosition")
    if start is None:
        failed = "Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."
        raise invalid(f"1 validation error detected: {failed}")
    if start not in _STARTS:
        raise invalid(f"Unsupported starting position {start}.")
    at = request.get("StartingPositionTimestamp")
    if (start == "AT_TIMESTAMP") != (at is not None):
        raise invalid("StartingPositionTimestamp goes with the starting position AT_TIMESTAMP.")
    if at is None:
        return {"start": start}
    moment = at.timestamp() if hasattr(at, "timestamp") else float(at)
    return {"start": start, "start_at_ms": int(moment * 1000)}


def _on_failure(config: dict[str, Any]) -> str:
    if config.get("OnSuccess"):
        raise invalid("Unsupported OnSuccess destination for given event source mapping type.")
    return str((config.get("OnFailure") or {}).get("Destination") or "")


def _check_stream(mapping: Mapping) -> None:
    least, most = _AGE_SECONDS
    _check_batch(mapping, fifo=True, streams=True)
    if not 1 <= mapping.lanes <= (_APP_LANES_MAX if mapping.app else _LANES_MAX):
        raise invalid(f"ParallelizationFactor must be between 1 and {_LANES_MAX}.")
    if not -1 <= mapping.retries <= _RETRIES_MAX:
        raise invalid(f"MaximumRetryAttempts must be between -1 and {_RETRIES_MAX}.")
    if mapping.max_age_seconds != -1 and not least <= mapping.max_age_seconds <= most:
        raise invalid(f"MaximumRecordAgeInSeconds must be -1 or between {least} and {most}.")


def _patterns(criteria: dict[str, Any]) -> tuple[str, ...]:
    filters = criteria.get("Filters") or ()
    if len(filters) > _FILTERS_MAX:
        raise invalid(f"The number of filters {len(filters)} exceeds the limit of {_FILTERS_MAX}.")
    patterns = tuple(str(one.get("Pattern") or "") for one in filters)
    try:
        compiled(patterns)
    except (InvalidInput, ValueError, AttributeError, RecursionError):
        raise invalid("Invalid filter pattern definition.") from None
    return patterns


def _concurrency(scaling: dict[str, Any]) -> int:
    most = scaling.get("MaximumConcurrency")
    if most is None:
        return 0
    if not 2 <= int(most) <= 1_000:
        raise invalid("MaximumConcurrency must be between 2 and 1000.")
    return int(most)


def _check_batch(mapping: Mapping, fifo: bool, streams: bool = False) -> None:
    if not 1 <= mapping.batch_size <= _BATCH_MAX:
        raise invalid(f"BatchSize must be between 1 and {_BATCH_MAX}.")
    if not 0 <= mapping.window_seconds <= _WINDOW_MAX:
        raise invalid(f"MaximumBatchingWindowInSeconds must be between 0 and {_WINDOW_MAX}.")
    if streams:
        return
    if fifo and mapping.window_seconds:
        raise invalid("Batching window is not supported for FIFO queues.")
    if fifo and mapping.batch_size > _FIFO_BATCH_MAX:
        raise invalid(f"BatchSize must be at most {_FIFO_BATCH_MAX} for FIFO queues.")
    if mapping.batch_size > 10 and not mapping.window_seconds:
        raise invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
