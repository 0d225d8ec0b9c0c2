"""Schedules of the Scheduler: what their targets get, and how. Source: EventBridge Scheduler user guide, "Managing targets" and
"Adding context attributes"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from martlet.buses import Events, Scheduler, Services, Sns
from martlet.buses.publishing import Published, event_text, stamp
from martlet.buses.rows import Bus, Schedule, Tables
from martlet.buses.scheduler import OWNER, UNIVERSAL
from martlet.errors import InvalidInput, MartletError, NotFound, Unsupported
from martlet.store import LogEntry, Store, Tx
from martlet.triggers.destinations import Destinations, Message
from martlet.triggers.event import Event, event_id
from martlet.triggers.kinds import schedule
from martlet.triggers.kinds.bus import backoff_ms, dead_attributes
from martlet.triggers.source import Attempt
from martlet.types import ACCOUNT

__all__ = ["ScheduleSource"]

_RETRIES: Final = 185
_AGE_SECONDS: Final = 86_400
_KEPT: Final = ("EventBridgeParameters", "SqsParameters", "RetryPolicy", "DeadLetterConfig", "RoleArn")
_ENCODE: Final = msgspec.json.Encoder().encode


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a firing on its way to its target brings along."""

    arn: str
    target: dict[str, Any] = {}
    due_ms: int = 0
    ends: tuple[str, str, int] = ("", "", 0)  # group, name and time of change of a schedule that goes with this
    dead: dict[str, str] = {}


_DETAILS: Final = msgspec.json.Decoder(Details).decode


class ScheduleSource:
    """The source "scheduler" of the delivery loop."""

    name = "scheduler"
    topics = (schedule.FIRED,)

    def __init__(
        self, store: Store, scheduler: Scheduler, events: Events, sns: Sns, destinations: Destinations, services: Services
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._events = events
        self._sns = sns
        self._to = destinations
        self._services = services

    def anew(self) -> None:
        """Nothing is kept."""

    def match(self, entry: LogEntry) -> Sequence[Event] | None:
        fired = schedule.fired_in(entry)
        if not fired.app.startswith(OWNER):
            return None
        group = fired.app.removeprefix(OWNER)
        one = self._store.read(lambda reader: Tables(reader).get(Schedule, group, fired.name))
        if one is None:
            return ()
        arn, target, id = self._scheduler.schedule_arn(group, one.name), one.request["Target"], event_id("schedule", entry.seq)
        ends = fired.last and one.request.get("ActionAfterCompletion") == "DELETE"
        details = Details(
            arn=arn,
            target={member: target[member] for member in _KEPT if member in target},
            due_ms=fired.due_ms,
            ends=(group, one.name, one.modified_at_ms) if ends else ("", "", 0),
        )
        to = str(target["Arn"])
        event = Event(
            id=id,
            source=self.name,
            app="",
            trigger=one.name,
            function=to.rpartition("function:")[2] if ":function:" in to else "",
            payload=msgspec.Raw(_ENCODE(_text(target, arn, fired, id))),
            target=to,
            details=msgspec.Raw(_ENCODE(details)),
        )
        return (event,)

    def place(self, tx: Tx, event: Event) -> Callable[[], None] | None:
        try:
            done = self._place(tx, event)
        except MartletError:
            return None  # `carry` finds out again, and says so
        if done is not None:
            self._end(tx, _DETAILS(event.details))
        return done

    def _place(self, tx: Tx, event: Event) -> Callable[[], None] | None:
        details = _DETAILS(event.details)
        text = msgspec.json.decode(event.payload, type=str)
        service = event.target.split(":")[2]
        if service == "sqs":
            group = (details.target.get("SqsParameters") or {}).get("MessageGroupId") or ""
            attributes = {name: ("String", value) for name, value in details.dead.items()}
            # The schedule's role says so, as for a function.
            return self._to.put(tx, event.target, Message(text, attributes, group, "", "AROA0SCHEDULER"), by=None)
        if service == "sns":
            self._sns.put(tx, event.target, text)
        elif service == "events":
            self._publish(tx, event, details, text)
        else:
            return None
        return _nothing

    def _publish(self, tx: Tx, event: Event, details: Details, text: str) -> None:
        name = self._events._bus_name(event.target)
        if not name or Tables(tx).get(Bus, name) is None:
            raise NotFound(f"there is no event bus {event.target}")
        parameters = details.target.get("EventBridgeParameters") or {}
        source, kind = str(parameters.get("Source")), str(parameters.get("DetailType"))
        now_ms = self._events._clock.now_ms()
        body = event_text(event.id, source, kind, text, self._events.region, stamp(now_ms), (details.arn,))
        self._events.append(tx, Published(name, msgspec.Raw(body.encode()), now_ms))

    def _end(self, tx: Tx, details: Details) -> None:
        """A schedule that is over goes, if that is what it said, and nobody has changed it since."""
        group, name, modified_at_ms = details.ends
        one = Tables(tx).get(Schedule, group, name) if name else None
        if one is not None and one.modified_at_ms == modified_at_ms:
            self._scheduler.remove(Tables(tx), one)

    async def carry(self, event: Event) -> None:
        details = _DETAILS(event.details)
        if ":lambda:" in event.target:
            payload = msgspec.json.decode(event.payload, type=str).encode()
            # The schedule's role says so, not the function's policy: who made the schedule gave it that role.
            await self._to.invoke(event.target, payload, event.id, "scheduler.amazonaws.com", details.arn, trusted=True)
        elif universal := UNIVERSAL.fullmatch(event.target):
            await self._call(universal["service"], universal["action"], event, details)
        else:
            await self._bring(event, details)
            return
        if details.ends[1]:
            await self._store.transact(lambda tx: self._end(tx, details))

    async def _call(self, service: str, action: str, event: Event, details: Details) -> None:
        """A universal target, by the schedule's role: what that may do is looked up now."""
        text = msgspec.json.decode(event.payload, type=str)
        try:
            parameters = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InvalidInput(f"the input of {details.arn} is no JSON object: {error}") from error
        await self._services(service, action, str(details.target.get("RoleArn")), parameters)

    async def _bring(self, event: Event, details: Details) -> None:
        """A target that takes it in a transaction, which `place` could not do."""

        def place(tx: Tx) -> Callable[[], None]:
            done = self._place(tx, event)
            if done is None:
                raise Unsupported(f"the target {event.target} is not supported")
            self._end(tx, details)
            return done

        (await self._store.transact(place))()

    def again(self, attempt: Attempt) -> int | None:
        policy = _DETAILS(attempt.event.details).target.get("RetryPolicy") or {}
        return backoff_ms(attempt, policy, _RETRIES, _AGE_SECONDS)

    def instead(self, attempt: Attempt) -> Event | None:
        event = attempt.event
        details = _DETAILS(event.details)
        arn = (details.target.get("DeadLetterConfig") or {}).get("Arn")
        if not arn or details.dead:
            return None
        facts = {"SCHEDULE_ARN": details.arn, "TARGET_ARN": event.target, "EXECUTION_ID": event.id, **dead_attributes(attempt)}
        facts |= {"IS_PAYLOAD_TRUNCATED": "false", "SCHEDULED_TIME": stamp(details.due_ms)}
        dead = Details(arn=details.arn, ends=details.ends, dead=facts)
        return msgspec.structs.replace(
            event, id=event_id("dead", event.id), target=str(arn), details=msgspec.Raw(_ENCODE(dead))
        )


def _text(target: dict[str, Any], arn: str, fired: schedule.Fired, id: str) -> str:
    """What the target gets: the schedule's Input with its context attributes filled in, else the scheduled event."""
    given = target.get("Input")
    if given is None:
        event = {
            "version": "0",
            "id": id,
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler",
            "account": ACCOUNT,
            "time": stamp(fired.due_ms),
            "region": fired.region,
            "resources": [arn],
            "detail": "{}",
        }
        return _ENCODE(event).decode()
    text = str(given)
    known = {"schedule-arn": arn, "scheduled-time": stamp(fired.due_ms), "execution-id": id, "attempt-number": "1"}
    for name, value in known.items():
        text = text.replace(f"<aws.scheduler.{name}>", value)
    return text


def _nothing() -> None:
    """Nothing is left to do after the commit."""
