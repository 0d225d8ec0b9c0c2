"""Event source mappings as rows: from which queue, to which function, how. Functions over one transaction, and the checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from martlet.errors import InvalidInput, ServiceError
from martlet.store import Reader, Tx, keys
from martlet.triggers.kinds.queue import body_form
from martlet.triggers.patterns import Matches, parse_pattern

__all__ = ["Mapping", "check_members", "checked", "compiled", "delete", "every", "get", "invalid", "put"]

_ROWS: Final = "triggers.mapping"  # (.., uuid) -> Mapping
_FILTERS_MAX: Final = 10  # Lambda's quota; five without asking for more
_BATCH_MAX: Final = 10_000
_FIFO_BATCH_MAX: Final = 10
_WINDOW_MAX: Final = 300
# Members of CreateEventSourceMapping that are for other kinds of sources.
_STREAMS_ONLY: Final = (
    *("StartingPosition", "StartingPositionTimestamp", "ParallelizationFactor", "MaximumRecordAgeInSeconds"),
    *("BisectBatchOnFunctionError", "MaximumRetryAttempts", "TumblingWindowInSeconds", "DestinationConfig"),
)
_UNSUPPORTED: Final = ("ProvisionedPollerConfig", "KMSKeyArn", "MetricsConfig", "LoggingConfig")


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping. `state` is Creating, Enabling, Enabled, Disabling, Disabled, Updating or Deleting."""

    uuid: str
    queue: str  # name
    queue_arn: str
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


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Mapping)


def get(reader: Reader, uuid: str) -> Mapping | None:
    raw = reader.get(keys.encode(_ROWS, uuid))
    return None if raw is None else _DECODER.decode(raw)


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
    changes: dict[str, Any] = {}
    if request.get("BatchSize") is not None:
        changes["batch_size"] = int(request["BatchSize"])
    if request.get("MaximumBatchingWindowInSeconds") is not None:
        changes["window_seconds"] = int(request["MaximumBatchingWindowInSeconds"])
    if request.get("FilterCriteria") is not None:
        changes["patterns"] = _patterns(request["FilterCriteria"])
    if request.get("FunctionResponseTypes") is not None:
        changes["report_failures"] = "ReportBatchItemFailures" in request["FunctionResponseTypes"]
    if request.get("ScalingConfig") is not None:
        changes["concurrency"] = _concurrency(request["ScalingConfig"])
    after = msgspec.structs.replace(mapping, **changes)
    _check_batch(after, fifo)
    return after


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


def _check_batch(mapping: Mapping, fifo: bool) -> None:
    if not 1 <= mapping.batch_size <= _BATCH_MAX:
        raise invalid(f"BatchSize must be between 1 and {_BATCH_MAX}.")
    if not 0 <= mapping.window_seconds <= _WINDOW_MAX:
        raise invalid(f"MaximumBatchingWindowInSeconds must be between 0 and {_WINDOW_MAX}.")
    if fifo and mapping.window_seconds:
        raise invalid("Batching window is not supported for FIFO queues.")
    if fifo and mapping.batch_size > _FIFO_BATCH_MAX:
        raise invalid(f"BatchSize must be at most {_FIFO_BATCH_MAX} for FIFO queues.")
    if mapping.batch_size > 10 and not mapping.window_seconds:
        raise invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
