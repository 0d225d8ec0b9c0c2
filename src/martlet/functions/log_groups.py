"""CloudWatch Logs, as far as Martlet has logs: the functions' own, read by groups and streams, and groups that others write to.

The log of function f is group /aws/lambda/f, with a stream for each instance; it is there when f first wrote, and needs no
call. Groups, streams and events that come over the API are rows of the store: an acknowledged event is durable, and a group
keeps as many bytes as a function's log does (limit log_bytes_per_function; the oldest go first). Source: CloudWatch Logs API
reference, 2014-03-28.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

from martlet.clock import Clock, uuid4_text
from martlet.errors import ServiceError, Unsupported
from martlet.functions import log_rows
from martlet.functions.log_events import FUNCTION_PREFIX, Event, events_of, function_of, page_of, streams_of
from martlet.functions.log_patterns import Matches, compile_pattern
from martlet.functions.log_rows import Group
from martlet.functions.logs import LogRecord, LogStore
from martlet.store import Store, Tx

__all__ = ["LogGroups"]

_DAY_MS: Final = 24 * 3_600_000
_RETENTION_DAYS: Final = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
_TAIL_SECONDS: Final = 3 * 3_600  # a live tail ends after three hours
_TAIL_EVENTS: Final = 500  # in one update; more are sampled
_PAGE_EVENTS: Final = 10_000
_EVERYTHING: Final = 1 << 62
_ARN = re.compile(r"arn:aws:logs:[a-z0-9-]+:[0-9]{12}:log-group:(?P<name>[.\-_/#A-Za-z0-9]{1,512})(?::\*)?")


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def region(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def request_id(self) -> str: ...


class LogGroups:
    """The service "logs"."""

    def __init__(self, logs: LogStore, store: Store, clock: Clock) -> None:
        self._logs = logs
        self._store = store
        self._clock = clock
        self._tails: set[Callable[[str, list[Event]], None]] = set()

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str]:
        """(action, resource) that a caller needs."""
        return f"logs:{operation}", str(request.get("logGroupName") or request.get("logGroupIdentifier") or "*")

    async def expire(self) -> None:
        """Delete what is older than its group's retention. Called by the clock of the house."""
        for group in self._store.read(log_rows.every_group):
            if group.retention_days is not None:
                before_ms = self._clock.now_ms() - group.retention_days * _DAY_MS
                function = function_of(group.name)
                if function is not None:
                    await self._logs.expire(function, before_ms)
                while await self._store.transact(_expiring(group.name, before_ms)):
                    pass

    # --- groups

    async def create_log_group(self, caller: Caller, request: dict[str, Any]) -> None:
        for name in ("kmsKeyId", "deletionProtectionEnabled"):
            if request.get(name):
                raise Unsupported(f"CreateLogGroup: the parameter {name} is not supported")
        if request.get("logGroupClass", "STANDARD") != "STANDARD":
            raise Unsupported(f"CreateLogGroup: the class {request['logGroupClass']} is not supported")
        name = str(request["logGroupName"])
        found = await self._function_groups()

        def create(tx: Tx) -> None:
            if log_rows.group(tx, name) is not None or name in found:
                raise ServiceError("ResourceAlreadyExistsException", "The specified log group already exists")
            log_rows.put_group(tx, Group(name=name, created_at_ms=tx.now_ms, tags=dict(request.get("tags") or {})))

        await self._store.transact(create)

    async def delete_log_group(self, caller: Caller, request: dict[str, Any]) -> None:
        name = str(request["logGroupName"])
        await self._need(name)
        while await self._store.transact(lambda tx: log_rows.drop_some_of_group(tx, name)):
            pass
        function = function_of(name)
        if function is not None:
            await self._logs.forget(function)

    async def put_retention_policy(self, caller: Caller, request: dict[str, Any]) -> None:
        days = int(request["retentionInDays"])
        if days not in _RETENTION_DAYS:
            allowed = ", ".join(map(str, _RETENTION_DAYS))
            raise ServiceError("InvalidParameterException", f"retentionInDays {days} is not valid. Valid values are: {allowed}")
        await self._retain(str(request["logGroupName"]), days)

    async def delete_retention_policy(self, caller: Caller, request: dict[str, Any]) -> None:
        await self._retain(str(request["logGroupName"]), None)

    async def _retain(self, name: str, days: int | None) -> None:
        group = await self._need(name)

        def put(tx: Tx) -> None:
            now = log_rows.group(tx, name) or group
            log_rows.put_group(tx, log_rows.retained(now, days))

        await self._store.transact(put)

    async def describe_log_groups(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        for name in ("accountIdentifiers", "includeLinkedAccounts"):
            if request.get(name):
                raise Unsupported(f"DescribeLogGroups: the parameter {name} is not supported")
        prefix, pattern = str(request.get("logGroupNamePrefix", "")), str(request.get("logGroupNamePattern", ""))
        if prefix and pattern:
            raise ServiceError(
                "InvalidParameterException", "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."
            )
        only = {_name_of(identifier) for identifier in request.get("logGroupIdentifiers") or ()}
        functions = await self._function_groups()
        groups = {group.name: (group, functions.get(group.name, (0, 0))[1]) for group in self._store.read(log_rows.every_group)}
        for name, (began_ms, size) in functions.items():
            groups.setdefault(name, (Group(name=name, created_at_ms=began_ms), size))
        names = [
            name
            for name in sorted(groups)
            if name.startswith(prefix) and pattern.lower() in name.lower() and (not only or name in only)
        ]
        if request.get("logGroupClass", "STANDARD") != "STANDARD":
            names = []
        page, token = _page_of_names(names, request)
        sizes = self._store.read(lambda reader: {name: log_rows.size(reader, name) for name in page})
        return {"logGroups": [_shown(*groups[name], caller, sizes[name]) for name in page], "nextToken": token}

    async def list_tags_log_group(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return {"tags": (await self._need(str(request["logGroupName"]))).tags}

    async def list_tags_for_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return {"tags": (await self._need(_name_of(str(request["resourceArn"])))).tags}

    async def tag_resource(self, caller: Caller, request: dict[str, Any]) -> None:
        await self._tag(_name_of(str(request["resourceArn"])), dict(request["tags"]), ())

    async def untag_resource(self, caller: Caller, request: dict[str, Any]) -> None:
        await self._tag(_name_of(str(request["resourceArn"])), {}, tuple(request["tagKeys"]))

    async def _tag(self, name: str, added: dict[str, str], gone: tuple[str, ...]) -> None:
        group = await self._need(name)

        def put(tx: Tx) -> None:
            now = log_rows.group(tx, name) or group
            log_rows.put_group(tx, log_rows.tagged(now, added, gone))

        await self._store.transact(put)

    # --- streams

    async def create_log_stream(self, caller: Caller, request: dict[str, Any]) -> None:
        name, stream = str(request["logGroupName"]), str(request["logStreamName"])
        group = await self._need(name)
        taken = stream in streams_of(await self._function_records(name))

        def create(tx: Tx) -> None:
            if taken or log_rows.has_stream(tx, name, stream):
                raise ServiceError("ResourceAlreadyExistsException", "The specified log stream already exists")
            if log_rows.group(tx, name) is None:
                log_rows.put_group(tx, group)
            log_rows.put_stream(tx, name, stream)

        await self._store.transact(create)

    async def describe_log_streams(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = _one_group(request)
        by_time = request.get("orderBy") == "LastEventTime"
        prefix = str(request.get("logStreamNamePrefix", ""))
        if by_time and prefix:
            raise ServiceError("InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
        group = await self._need(name)
        found = streams_of(await self._function_records(name))
        self._store.read(lambda reader: log_rows.add_streams(reader, name, found))
        base = f"arn:aws:logs:{caller.region}:{caller.account}:log-group:{group.name}:log-stream:"
        shown = {stream: facts.shown(stream, base) for stream, facts in found.items() if stream.startswith(prefix)}
        names = sorted(shown, reverse=bool(request.get("descending")))
        if by_time:
            names = sorted(
                shown, key=lambda stream: (found[stream].last_ms or 0, stream), reverse=bool(request.get("descending"))
            )
        page, token = _page_of_names(names, request)
        return {"logStreams": [shown[stream] for stream in page], "nextToken": token}

    # --- events

    async def put_log_events(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name, stream = str(request["logGroupName"]), str(request["logStreamName"])
        if request.get("entity"):
            raise Unsupported("PutLogEvents: the parameter entity is not supported")
        group = await self._need(name)
        now_ms = self._clock.now_ms()
        accepted, rejected = log_rows.sorted_out(request["logEvents"], now_ms, group.retention_days)

        def put(tx: Tx) -> None:
            if not log_rows.has_stream(tx, name, stream):
                raise _no_stream()
            if log_rows.group(tx, name) is None:  # it is being deleted
                raise _no_group()
            log_rows.add_events(tx, name, stream, accepted, now_ms)

        await self._store.transact(put)
        events = [Event(stream, at_ms, text, now_ms, uuid4_text()) for at_ms, text in accepted]
        for tail in self._tails:
            tail(name, events)
        return {"nextSequenceToken": str(now_ms).zfill(56), "rejectedLogEventsInfo": rejected}

    async def append(self, name: str, stream: str, events: list[tuple[int, str]]) -> None:
        """Events of the platform's own, such as access logs; group and stream are made if they are not there."""

        def put(tx: Tx) -> None:
            if log_rows.group(tx, name) is None:
                log_rows.put_group(tx, Group(name=name, created_at_ms=tx.now_ms))
            if not log_rows.has_stream(tx, name, stream):
                log_rows.put_stream(tx, name, stream)
            log_rows.add_events(tx, name, stream, events, tx.now_ms)

        await self._store.transact(put)
        now_ms = self._clock.now_ms()
        for tail in self._tails:
            tail(name, [Event(stream, at_ms, text, now_ms, uuid4_text()) for at_ms, text in events])

    async def get_log_events(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name, stream = _one_group(request), str(request["logStreamName"])
        group = await self._need(name)
        events = [event for event in await self._events(group, request) if event.stream == stream]
        if not events and not await self._has_stream(name, stream):
            raise _no_stream()
        end_ms = int(request.get("endTime", _EVERYTHING))
        events = [event for event in events if event.at_ms < end_ms]
        most = int(request.get("limit", _PAGE_EVENTS))
        return page_of(events, str(request.get("nextToken", "")), most, from_head=bool(request.get("startFromHead")))

    async def filter_log_events(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        streams, prefix = request.get("logStreamNames"), str(request.get("logStreamNamePrefix", ""))
        if streams and prefix:
            message = "logStreamNames and logStreamNamePrefix are mutually exclusive parameters."
            raise ServiceError("InvalidParameterException", message)
        if request.get("startFromHead") is False:
            raise Unsupported("FilterLogEvents: startFromHead false is not supported; events come oldest first")
        matches = compile_pattern(str(request.get("filterPattern", "")))
        group = await self._need(_one_group(request))
        wanted = set(streams or ())
        end_ms = int(request.get("endTime", _EVERYTHING))
        events = [
            event
            for event in await self._events(group, request, matches)
            if event.at_ms <= end_ms and event.stream.startswith(prefix) and (not wanted or event.stream in wanted)
        ]
        most = int(request.get("limit", _PAGE_EVENTS))
        token = str(request.get("nextToken", ""))
        page = page_of(events, f"f/{token}" if token else "", most, from_head=True, only_forward=True)
        last = page["more_after"]
        return {
            "events": [{**event, "logStreamName": found.stream, "eventId": found.id} for event, found in page["pairs"]],
            "searchedLogStreams": [],
            "nextToken": last,
        }

    async def start_live_tail(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Events as they come, once a second."""
        groups = {_name_of(identifier): identifier for identifier in request["logGroupIdentifiers"]}
        for name in groups:
            await self._need(name)
        streams = tuple(request.get("logStreamNames") or ())
        prefixes = tuple(request.get("logStreamNamePrefixes") or ())
        if (streams or prefixes) and len(groups) > 1:
            raise ServiceError("InvalidParameterException", "Log streams can be given for a single log group only.")
        if streams and prefixes:
            raise ServiceError("InvalidParameterException", "logStreamNames and logStreamNamePrefixes are mutually exclusive.")
        matches = compile_pattern(str(request.get("logEventFilterPattern", "")))

        def wanted(event: Event) -> bool:
            named = not streams or event.stream in streams
            return named and (not prefixes or event.stream.startswith(prefixes)) and matches(event.message)

        start = {name: request[name] for name in _TAIL_START if request.get(name)}
        start |= {"requestId": caller.request_id, "sessionId": uuid4_text()}
        return {"responseStream": self._tail(groups, wanted, start)}

    async def _tail(
        self, groups: dict[str, str], wanted: Callable[[Event], bool], start: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        gathered: list[dict[str, Any]] = []
        missed = False

        def take(name: str, events: list[Event]) -> None:
            nonlocal missed
            for event in events:
                if name in groups and wanted(event):
                    if len(gathered) < _TAIL_EVENTS:
                        gathered.append(event.tailed(groups[name]))
                    else:
                        missed = True

        self._tails.add(take)
        follow = asyncio.get_running_loop().create_task(self._follow(take))
        ends_ns = self._clock.monotonic_ns() + _TAIL_SECONDS * 1_000_000_000
        try:
            await asyncio.sleep(0)  # now it follows: nothing that comes after the start is missed
            yield {"sessionStart": start}
            while self._clock.monotonic_ns() < ends_ns:
                await asyncio.sleep(1.0)
                results, gathered[:] = list(gathered), []
                yield {"sessionUpdate": {"sessionMetadata": {"sampled": missed}, "sessionResults": results}}
                missed = False
            raise ServiceError("SessionTimeoutException", "The live tail session has ended after three hours.")
        finally:
            self._tails.discard(take)
            follow.cancel()
            await asyncio.gather(follow, return_exceptions=True)

    async def _follow(self, take: Callable[[str, list[Event]], None]) -> None:
        async for record in self._logs.follow():
            take(FUNCTION_PREFIX + record.function, list(events_of(record)))

    # --- what there is

    async def _function_groups(self) -> dict[str, tuple[int, int]]:
        """The groups of functions: name → when it begins, and its size. What begins with "_" is the platform's own."""
        kept = await self._logs.kept()
        return {FUNCTION_PREFIX + function: facts for function, facts in kept.items() if function and function[0] != "_"}

    async def _need(self, name: str) -> Group:
        """The group, else ResourceNotFoundException."""
        found = self._store.read(lambda reader: log_rows.group(reader, name))
        if found is not None:
            return found
        facts = (await self._function_groups()).get(name)
        if facts is None:
            raise _no_group()
        return Group(name=name, created_at_ms=facts[0])

    async def _has_stream(self, name: str, stream: str) -> bool:
        if self._store.read(lambda reader: log_rows.has_stream(reader, name, stream)):
            return True
        return stream in streams_of(await self._function_records(name))

    async def _function_records(self, name: str, since_ms: int | None = None) -> list[LogRecord]:
        function = function_of(name)
        return [] if function is None else await self._logs.read(function, since_ms, _EVERYTHING)

    async def _events(self, group: Group, request: dict[str, Any], matches: Matches | None = None) -> list[Event]:
        """The group's events since the request's startTime, those past their retention left out, in order of time."""
        since_ms = int(request.get("startTime", 0))
        if group.retention_days is not None:
            since_ms = max(since_ms, self._clock.now_ms() - group.retention_days * _DAY_MS)
        records = await self._function_records(group.name, since_ms)
        rows = self._store.read(lambda reader: log_rows.events(reader, group.name, since_ms))

        def gather() -> list[Event]:
            found = [event for record in records for event in events_of(record)]
            found += rows
            kept = [event for event in found if event.at_ms >= since_ms and (matches is None or matches(event.message))]
            return sorted(kept, key=lambda event: event.at_ms)

        return await asyncio.to_thread(gather)


_TAIL_START: Final = ("logGroupIdentifiers", "logStreamNames", "logStreamNamePrefixes", "logEventFilterPattern")


def _expiring(name: str, before_ms: int) -> Callable[[Tx], bool]:
    return lambda tx: log_rows.drop_older(tx, name, before_ms)


def _no_group() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "The specified log group does not exist.")


def _no_stream() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "The specified log stream does not exist.")


def _name_of(identifier: str) -> str:
    """A group's name from its name or ARN."""
    arn = _ARN.fullmatch(identifier)
    if arn is None and identifier.startswith("arn:"):
        raise ServiceError("InvalidParameterException", f"Invalid log group ARN: {identifier[:200]}")
    return identifier if arn is None else arn["name"]


def _one_group(request: dict[str, Any]) -> str:
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if bool(name) == bool(identifier):
        message = "Exactly one of logGroupName and logGroupIdentifier must be given."
        raise ServiceError("InvalidParameterException", message)
    return str(name) if name else _name_of(str(identifier))


def _page_of_names(names: list[str], request: dict[str, Any]) -> tuple[list[str], str | None]:
    most = int(request.get("limit", 50))
    token = request.get("nextToken")
    start = 0
    if token is not None:
        if token not in names:
            raise ServiceError("InvalidParameterException", "The specified nextToken is invalid.")
        start = names.index(str(token)) + 1
    page = names[start : start + most]
    return page, page[-1] if page and start + most < len(names) else None


def _shown(group: Group, file_bytes: int, caller: Caller, row_bytes: int) -> dict[str, Any]:
    arn = f"arn:aws:logs:{caller.region}:{caller.account}:log-group:{group.name}"
    return {
        "logGroupName": group.name,
        "creationTime": group.created_at_ms,
        "retentionInDays": group.retention_days,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "storedBytes": file_bytes + row_bytes,
        "logGroupClass": "STANDARD",
        "logGroupArn": arn,
    }
