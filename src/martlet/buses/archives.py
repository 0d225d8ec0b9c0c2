"""Archives and replays. Source: EventBridge API reference and user guide, "Archiving and replaying events"; recorded answers.

What an archive keeps are rows under its id in the order in which it came. A replay goes over them in steps; each step puts
some of them back into the log and notes its place in one commit, so that a crash neither skips nor repeats an event.
"""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import datetime
from typing import Any, Final

import msgspec

from martlet.buses.desk import Request, at, invalid, no_such, page
from martlet.buses.publishing import Published, PublishOperations
from martlet.buses.rows import Archive, Archived, Bus, Replay, Tables
from martlet.errors import MartletError, ServiceError
from martlet.limits import LIMITS
from martlet.store import Tx, keys

__all__ = ["ArchiveOperations", "keep"]

_ROWS: Final = "buses.archived"  # (.., archive id, at_ms, seq) -> Archived
_IDS: Final = keys.encode("buses.archives")  # -> counter: archives made
_SWEEP: Final = 50  # expired events removed with each one kept
_STEP: Final = LIMITS["archived_events_page"].default
_STEP_BYTES: Final = 4_194_304
_DAY_MS: Final = 86_400_000
_AFTER_ERROR_SECONDS: Final = 1.0
_ACTIVE: Final = ("STARTING", "RUNNING", "CANCELLING")
_ARCHIVE_ARN = re.compile(r"arn:aws[a-z-]*:events:[a-z0-9-]*:[0-9]{12}:archive/(?P<name>.+)")
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Archived).decode
_LOG: Final = logging.getLogger("martlet.buses")


def keep(tx: Tx, name: str, id: int, event: bytes, at_ms: int, seq: int) -> None:
    """Keep an event in the archive, if that is still there. Once for each `seq`."""
    tables = Tables(tx)
    archive = tables.get(Archive, name)
    key = keys.encode(_ROWS, id, at_ms, seq)
    if archive is None or archive.id != id or tx.get(key) is not None:
        return
    tx.put(key, _ENCODE(Archived(event, len(event))))
    count, size = archive.count + 1, archive.size + len(event)
    if archive.retention_days:
        oldest_ms = at_ms - archive.retention_days * _DAY_MS
        for old, raw in tx.scan(keys.encode(_ROWS, id), keys.encode(_ROWS, id, max(oldest_ms, 0)), limit=_SWEEP):
            tx.delete(old)
            count, size = count - 1, size - _DECODE(raw).size
    tables.put(msgspec.structs.replace(archive, count=count, size=size))


class ArchiveOperations(PublishOperations):
    """Archives of buses, and replays of what they keep."""

    _replaying: dict[str, asyncio.Task[None]]

    async def create_archive(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` ResourceNotFoundException, ResourceAlreadyExistsException, InvalidEventPatternException."""
        if request.get("EventPattern"):
            self._check_pattern(str(request["EventPattern"]))
        name = str(request["ArchiveName"])
        now_ms = self._clock.now_ms()

        def create(tables: Tables) -> Archive:
            bus = self._bus(tables, request["EventSourceArn"])
            if tables.get(Archive, name) is not None:
                raise ServiceError("ResourceAlreadyExistsException", f"Archive {name} already exists.", 400)
            archive = Archive(
                name=name,
                id=tables._tx.increment(_IDS, 1),
                bus=bus.name,
                created_at_ms=now_ms,
                description=request.get("Description") or "",
                pattern=request.get("EventPattern") or "",
                retention_days=request.get("RetentionDays") or 0,
            )
            tables.put(archive)
            tables.changed(bus.name)
            return archive

        archive = await self._write(create)
        return self._state_of(archive)

    def _state_of(self, archive: Archive) -> Request:
        return {"ArchiveArn": self._arn("archive", archive.name), "State": "ENABLED", "CreationTime": at(archive.created_at_ms)}

    async def describe_archive(self, caller: Any, request: Request) -> Request:
        archive = self._read(lambda tables: _archive(tables, str(request["ArchiveName"])))
        return {
            **self._shown_archive(archive),
            "ArchiveArn": self._arn("archive", archive.name),
            "Description": archive.description or None,
            "EventPattern": archive.pattern or None,
        }

    async def update_archive(self, caller: Any, request: Request) -> Request:
        if all(request.get(member) is None for member in ("Description", "EventPattern", "RetentionDays")):
            raise invalid("At least one of EventPattern, RetentionDays or Description must be provided.")
        if request.get("EventPattern"):
            self._check_pattern(str(request["EventPattern"]))

        def update(tables: Tables) -> Archive:
            before = _archive(tables, str(request["ArchiveName"]))
            fields = (("Description", "description"), ("EventPattern", "pattern"), ("RetentionDays", "retention_days"))
            changes = {field: request[member] for member, field in fields if request.get(member) is not None}
            after: Archive = msgspec.structs.replace(before, **changes)
            tables.put(after)
            tables.changed(after.bus)
            return after

        return self._state_of(await self._write(update))

    async def delete_archive(self, caller: Any, request: Request) -> None:
        def delete(tables: Tables) -> Archive:
            archive = _archive(tables, str(request["ArchiveName"]))
            tables.delete(archive)
            tables.changed(archive.bus)
            return archive

        archive = await self._write(delete)
        while await self._store.transact(lambda tx: _sweep(tx, archive.id)):
            pass

    async def list_archives(self, caller: Any, request: Request) -> Request:
        prefix, source, state = request.get("NamePrefix") or "", request.get("EventSourceArn"), request.get("State")
        if sum(value is not None for value in (request.get("NamePrefix"), source, state)) > 1:
            raise invalid("At most one filter is allowed for ListArchives. Use either : State, EventSourceArn, or NamePrefix.")

        def look(tables: Tables) -> list[Archive]:
            bus = self._bus(tables, source).name if source else None
            found = [one for one in tables.every(Archive) if one.name.startswith(prefix)]
            return [one for one in found if (bus is None or one.bus == bus) and state in (None, "ENABLED")]

        shown, more = page([(one.name, one) for one in self._read(look)], request)
        return {"Archives": [self._shown_archive(one) for one in shown], **more}

    def _shown_archive(self, archive: Archive) -> Request:
        return {
            "ArchiveName": archive.name,
            "EventSourceArn": self._arn("event-bus", archive.bus),
            "State": "ENABLED",
            "RetentionDays": archive.retention_days,
            "SizeBytes": archive.size,
            "EventCount": archive.count,
            "CreationTime": at(archive.created_at_ms),
        }

    # --- replays

    async def start_replay(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` ValidationException, ResourceNotFoundException, ResourceAlreadyExistsException,
        LimitExceededException."""
        name = str(request["ReplayName"])
        destination = request["Destination"]
        start_ms, end_ms = _ms(request["EventStartTime"]), _ms(request["EventEndTime"])
        if ":event-bus/" not in str(destination.get("Arn")):
            raise invalid("Parameter Destination.Arn is not valid. Reason: Must contain an event bus ARN.")
        now_ms = self._clock.now_ms()

        def start(tables: Tables) -> Replay:
            bus = self._bus(tables, destination["Arn"])
            found = _ARCHIVE_ARN.fullmatch(str(request["EventSourceArn"]))
            archive_name = found["name"] if found else str(request["EventSourceArn"])
            archive = tables.get(Archive, archive_name)
            if archive is None:
                raise invalid(f"Parameter EventSourceArn is not valid. Reason: Archive {archive_name} does not exist.")
            if start_ms >= end_ms:
                raise invalid("Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.")
            if archive.bus != bus.name:
                raise invalid("Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.")
            if tables.get(Replay, name) is not None:
                raise ServiceError("ResourceAlreadyExistsException", f"Replay {name} already exists.", 400)
            if sum(one.state in _ACTIVE for one in tables.every(Replay)) >= LIMITS["active_replays"].default:
                raise ServiceError("LimitExceededException", "The requested resource exceeds the maximum number allowed.", 400)
            replay = Replay(
                name=name,
                archive=archive.name,
                description=request.get("Description") or "",
                start_ms=start_ms,
                end_ms=end_ms,
                destination={key: value for key, value in destination.items() if value is not None},
                started_at_ms=now_ms,
            )
            tables.put(replay)
            return replay

        replay = await self._write(start)
        self._begin(replay.name)
        return {**self._replay_state(replay), "ReplayStartTime": at(replay.started_at_ms)}

    def _replay_state(self, replay: Replay) -> Request:
        return {
            "ReplayArn": self._arn("replay", replay.name),
            "State": replay.state,
            "StateReason": replay.reason or None,
        }

    async def describe_replay(self, caller: Any, request: Request) -> Request:
        replay = self._read(lambda tables: _replay(tables, str(request["ReplayName"])))
        return {
            **self._shown_replay(replay),
            "ReplayArn": self._arn("replay", replay.name),
            "Description": replay.description or None,
            "Destination": replay.destination,
        }

    async def cancel_replay(self, caller: Any, request: Request) -> Request:
        def cancel(tables: Tables) -> Replay:
            replay = _replay(tables, str(request["ReplayName"]))
            if replay.state not in ("STARTING", "RUNNING"):
                raise ServiceError(
                    "IllegalStatusException", f"Replay {replay.name} is not in a valid state for this operation."
                )
            after = msgspec.structs.replace(replay, state="CANCELLING")
            tables.put(after)
            return after

        replay = await self._write(cancel)
        self._begin(replay.name)
        return self._replay_state(replay)

    async def list_replays(self, caller: Any, request: Request) -> Request:
        prefix, source, state = request.get("NamePrefix") or "", request.get("EventSourceArn"), request.get("State")
        if sum(value is not None for value in (request.get("NamePrefix"), source, state)) > 1:
            raise invalid("At most one filter is allowed for ListReplays. Use either : State, EventSourceArn, or NamePrefix.")
        archive = (_ARCHIVE_ARN.fullmatch(str(source)) or {"name": source})["name"] if source else None

        def look(tables: Tables) -> list[Replay]:
            found = [one for one in tables.every(Replay) if one.name.startswith(prefix) and state in (None, one.state)]
            return [one for one in found if archive in (None, one.archive)]

        shown, more = page([(one.name, one) for one in self._read(look)], request)
        return {"Replays": [self._shown_replay(one) for one in shown], **more}

    def _shown_replay(self, replay: Replay) -> Request:
        return {
            "ReplayName": replay.name,
            "EventSourceArn": self._arn("archive", replay.archive),
            "State": replay.state,
            "StateReason": replay.reason or None,
            "EventStartTime": at(replay.start_ms),
            "EventEndTime": at(replay.end_ms),
            "EventLastReplayedTime": at(replay.last_event_ms) if replay.last_event_ms else None,
            "ReplayStartTime": at(replay.started_at_ms),
            "ReplayEndTime": at(replay.ended_at_ms) if replay.ended_at_ms else None,
        }

    def _resume_replays(self) -> None:
        for replay in self._read(lambda tables: [one for one in tables.every(Replay) if one.state in _ACTIVE]):
            self._begin(replay.name)

    def _begin(self, name: str) -> None:
        if name not in self._replaying:
            task = asyncio.get_running_loop().create_task(self._run_replay(name))
            self._replaying[name] = task
            task.add_done_callback(lambda _: self._replaying.pop(name, None))

    async def _run_replay(self, name: str) -> None:
        while True:
            try:
                if not await self._store.transact(lambda tx: self._replay_step(tx, name)):
                    return
            except MartletError as error:
                _LOG.error("replay %s pauses: %s", name, error.message)
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
            except Exception:
                _LOG.exception("replay %s failed", name)
                await self._write(lambda tables: self._end_replay(tables, _replay(tables, name), "FAILED"))
                return

    def _end_replay(self, tables: Tables, replay: Replay, state: str) -> None:
        tables.put(msgspec.structs.replace(replay, state=state, ended_at_ms=self._clock.now_ms()))

    def _replay_step(self, tx: Tx, name: str) -> bool:
        """Put some more events back on their bus. False: it is over."""
        tables = Tables(tx)
        replay = tables.get(Replay, name)
        if replay is None or replay.state not in _ACTIVE:
            return False
        archive = tables.get(Archive, replay.archive)
        bus = tables.get(Bus, archive.bus) if archive else None
        end = ""
        rows: list[tuple[bytes, bytes]] = []
        if replay.state == "CANCELLING":
            end = "CANCELLED"
        elif archive is None or bus is None:
            end = "FAILED"
        else:
            low = replay.place + b"\x00" if replay.place else keys.encode(_ROWS, archive.id, replay.start_ms)
            rows = tx.scan(low, keys.encode(_ROWS, archive.id, replay.end_ms), limit=_STEP)
            end = "" if rows else "COMPLETED"
        if end:
            self._end_replay(tables, replay, end)
            return False
        size = 0
        for key, raw in rows:
            event = _DECODE(raw).event
            size += len(event)
            replay = msgspec.structs.replace(replay, place=key, last_event_ms=int(str(keys.decode(key)[2])))
            self.append(tx, self._replayed(replay, archive.bus if archive else "", event))
            if size > _STEP_BYTES:
                break
        tables.put(msgspec.structs.replace(replay, state="RUNNING"))
        return True

    def _replayed(self, replay: Replay, bus: str, event: bytes) -> Published:
        """The event as it was, with the name of its replay in its place."""
        members: dict[str, msgspec.Raw] = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
        shown: dict[str, msgspec.Raw] = {}
        for name, value in members.items():
            shown[name] = value
            if name == "region":
                shown["replay-name"] = msgspec.Raw(msgspec.json.encode(replay.name))
        rules = tuple(replay.destination.get("FilterArns") or ())
        return Published(bus, msgspec.Raw(msgspec.json.encode(shown)), self._clock.now_ms(), 0, replay.name, rules)


def _archive(tables: Tables, name: str) -> Archive:
    found = tables.get(Archive, name)
    if found is None:
        raise no_such(f"Archive {name} does not exist.")
    return found


def _replay(tables: Tables, name: str) -> Replay:
    found = tables.get(Replay, name)
    if found is None:
        raise no_such(f"Replay {name} does not exist.")
    return found


def _sweep(tx: Tx, id: int) -> bool:
    rows = tx.scan(*keys.prefix_range(_ROWS, id), limit=500)
    for key, _ in rows:
        tx.delete(key)
    return bool(rows)


def _ms(value: Any) -> int:
    return int(value.timestamp() * 1000) if isinstance(value, datetime) else int(float(value) * 1000)
