"""Event buses: which rules an event on a bus concerns, and how it gets to their targets.

Queues, topics, archives and other buses take it in the very commit that moves the loop's cursor; functions get it into their
asynchronous queue; log groups and API destinations are called. Retries and dead letters as EventBridge has them: user guide,
"Retry policy and using dead-letter queues".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from martlet.buses import Events, Rulebook, inputs
from martlet.buses.archives import keep
from martlet.buses.desk import DEFAULT
from martlet.buses.publishing import PUBLISHED, Published, stamp
from martlet.buses.rows import CHANGED, Archive, Bus, Connection, Destination, Rule, Tables
from martlet.buses.rules import RULE_OWNER
from martlet.clock import random
from martlet.errors import AccessDenied, MartletError, NotFound, Throttled, Unsupported
from martlet.limits import LIMITS
from martlet.store import LogEntry, Store, Tx
from martlet.triggers.calls import Calls
from martlet.triggers.destinations import Destinations, Message, may_pass
from martlet.triggers.event import Event, event_id
from martlet.triggers.kinds import schedule
from martlet.triggers.source import Attempt
from martlet.types import ACCOUNT

__all__ = ["BusSource", "backoff_ms", "dead_attributes"]

_SERVICE: Final = "events.amazonaws.com"
_HOPS: Final = LIMITS["bus_hops"].default
_BACKOFF_MS: Final = (1_000, 300_000)
_RETRIES: Final = 185  # EventBridge: within 24 hours
_AGE_SECONDS: Final = 86_400
_KEPT: Final = ("SqsParameters", "HttpParameters", "RetryPolicy", "DeadLetterConfig")
_ENDPOINT = re.compile(r"arn:aws[a-z-]*:events:[a-z0-9-]*:[0-9]{12}:api-destination/(?P<name>[^/]+)(?:/.*)?")
_DECODE: Final = msgspec.json.Decoder(Published).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Topics(Protocol):
    """The topics, as far as a bus needs them: publish within a transaction. Raises `ServiceError`."""

    def put(self, tx: Tx, arn: str, message: str, *, attributes: Mapping[str, Any] = ...) -> None: ...


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event on its way to a target brings along."""

    rule: str  # ARN
    target: dict[str, Any] = {}
    at_ms: int = 0
    seq: int = 0
    hops: int = 0
    trusted: bool = False
    dead: dict[str, str] = {}  # attributes of a dead letter on its way


_DETAILS: Final = msgspec.json.Decoder(Details).decode


class BusSource:
    """The source "bus" of the delivery loop."""

    name = "bus"
    topics = (PUBLISHED, CHANGED, schedule.FIRED)

    def __init__(
        self,
        store: Store,
        events: Events,
        rulebook: Rulebook,
        destinations: Destinations,
        calls: Calls,
        notify: Topics,
    ) -> None:
        self._store = store
        self._events = events
        self._rulebook = rulebook
        self._to = destinations
        self._calls = calls
        self._notify = notify

    # --- which

    def anew(self) -> None:
        self._rulebook.forget_all()

    def match(self, entry: LogEntry) -> Sequence[Event] | None:
        if entry.topic == CHANGED:
            self._rulebook.forget(entry.key.decode())
            return None
        if entry.topic == schedule.FIRED:
            return self._fired(entry)
        published = _DECODE(entry.body)
        text = bytes(published.event).decode()
        event = msgspec.json.decode(text)
        book = self._rulebook.book(published.bus)
        found: list[Event] = []
        for rule in book.matching(event):
            arn = self._events._rule_arn(rule.bus, rule.name)
            if not published.rules or arn in published.rules:
                found += self._for_targets(entry, rule, arn, event, text, published)
        if not published.replay:
            for archive, matches in book.archives:
                if matches is None or matches(event):
                    found.append(self._for_archive(entry, archive, published))
        return found

    def _fired(self, entry: LogEntry) -> Sequence[Event] | None:
        """A rule with a schedule was due."""
        fired = schedule.fired_in(entry)
        if fired.app != RULE_OWNER:
            return None
        rule = self._store.read(lambda reader: Tables(reader).get(Rule, DEFAULT, fired.name))
        if rule is None:
            return ()
        arn = self._events._rule_arn(rule.bus, rule.name)
        event = {
            "version": "0",
            "id": event_id("rule", entry.seq),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": stamp(fired.due_ms),
            "region": fired.region,
            "resources": [arn],
            "detail": {},
        }
        raw = _ENCODE(event)
        return list(self._for_targets(entry, rule, arn, event, raw.decode(), Published(DEFAULT, msgspec.Raw(raw), entry.at_ms)))

    def _for_targets(
        self, entry: LogEntry, rule: Rule, arn: str, event: dict[str, Any], text: str, published: Published
    ) -> Iterator[Event]:
        for target in rule.targets:
            to = str(target["Arn"])
            try:
                if ":event-bus/" in to:
                    payload = text
                else:
                    payload = inputs.given(target, event, text, rule.name, arn, stamp(published.at_ms))
            except inputs.Undeliverable:
                continue
            details = Details(
                rule=arn,
                target={name: target[name] for name in _KEPT if name in target},
                at_ms=published.at_ms,
                hops=published.hops,
                trusted=bool(rule.app),
            )
            yield Event(
                id=event_id("bus", entry.seq, rule.bus, rule.name, target["Id"]),
                source=self.name,
                app=rule.app,
                trigger=rule.name,
                function=to.rpartition("function:")[2] if ":function:" in to else "",
                payload=msgspec.Raw(_ENCODE(payload)),
                target=to,
                details=msgspec.Raw(_ENCODE(details)),
            )

    def _for_archive(self, entry: LogEntry, archive: Archive, published: Published) -> Event:
        return Event(
            id=event_id("archive", entry.seq, archive.id),
            source=self.name,
            app="",
            trigger=archive.name,
            function="",
            payload=msgspec.Raw(_ENCODE(bytes(published.event).decode())),
            target=f"archive:{archive.id}",
            details=msgspec.Raw(_ENCODE(Details(rule=archive.name, at_ms=published.at_ms, seq=entry.seq))),
        )

    # --- how

    def place(self, tx: Tx, event: Event) -> Callable[[], None] | None:
        try:
            return self._place(tx, event)
        except (MartletError, Throttled):
            return None  # `carry` finds out again, and says so

    def _place(self, tx: Tx, event: Event) -> Callable[[], None] | None:
        """None: it goes another way. Raises `MartletError`."""
        service = event.target.split(":")[2] if event.target.startswith("arn:") else event.target.partition(":")[0]
        details = _DETAILS(event.details)
        text = msgspec.json.decode(event.payload, type=str)
        if service == "archive":
            keep(tx, details.rule, int(event.target.rpartition(":")[2]), text.encode(), details.at_ms, details.seq)
        elif service == "sqs":
            return self._to.put(tx, event.target, _message(details, text), by=(_SERVICE, details.rule))
        elif service == "sns":
            self._notify.put(tx, event.target, text, attributes=_dead(details))
        elif service == "events" and ":event-bus/" in event.target:
            self._pass_on(tx, event.target, text, details)
        else:
            return None
        return _nothing

    def _pass_on(self, tx: Tx, arn: str, text: str, details: Details) -> None:
        name = self._events._bus_name(arn)
        if not name or Tables(tx).get(Bus, name) is None:
            raise NotFound(f"there is no event bus {arn}")
        if details.hops >= _HOPS:
            raise Unsupported(f"limit bus_hops is {_HOPS}: the event has come through as many buses")
        self._events.append(tx, Published(name, msgspec.Raw(text.encode()), self._events._clock.now_ms(), details.hops + 1))

    async def carry(self, event: Event) -> None:
        details = _DETAILS(event.details)
        if ":lambda:" in event.target:
            payload = msgspec.json.decode(event.payload, type=str).encode()
            await self._to.invoke(event.target, payload, event.id, _SERVICE, details.rule, trusted=details.trusted)
        elif ":logs:" in event.target:
            await self._to.log(event.target, msgspec.json.decode(event.payload, type=str))
        elif found := _ENDPOINT.fullmatch(event.target):
            await self._call(found["name"], details, msgspec.json.decode(event.payload, type=str).encode())
        else:
            done = await self._store.transact(lambda tx: self._place(tx, event))
            if done is None:
                raise Unsupported(f"the target {event.target} is not supported")
            done()

    async def _call(self, name: str, details: Details, payload: bytes) -> None:
        def look(tables: Tables) -> tuple[Destination | None, Connection | None]:
            one = tables.get(Destination, name)
            return one, tables.get(Connection, one.connection) if one else None

        one, connection = self._store.read(lambda reader: look(Tables(reader)))
        if one is None or connection is None:
            raise NotFound(f"there is no API destination {name}, or its connection is gone")
        await self._calls.destination(one, connection, details.target.get("HttpParameters") or {}, payload)

    # --- and if not

    def again(self, attempt: Attempt) -> int | None:
        policy = _DETAILS(attempt.event.details).target.get("RetryPolicy") or {}
        return backoff_ms(attempt, policy, _RETRIES, _AGE_SECONDS)

    def instead(self, attempt: Attempt) -> Event | None:
        event = attempt.event
        details = _DETAILS(event.details)
        arn = (details.target.get("DeadLetterConfig") or {}).get("Arn")
        if not arn or details.dead:
            return None
        facts = {"RULE_ARN": details.rule, "TARGET_ARN": event.target, **dead_attributes(attempt)}
        return msgspec.structs.replace(
            event,
            id=event_id("dead", event.id),
            target=str(arn),
            details=msgspec.Raw(_ENCODE(Details(rule=details.rule, dead=facts))),
        )


def backoff_ms(attempt: Attempt, policy: Mapping[str, Any], retries: int, age_seconds: int) -> int | None:
    """When to try again under a RetryPolicy {"MaximumRetryAttempts", "MaximumEventAgeInSeconds"}; None: never."""
    if not may_pass(attempt.error):
        return None
    most = policy.get("MaximumRetryAttempts")
    age = policy.get("MaximumEventAgeInSeconds") or age_seconds
    least_ms, most_ms = _BACKOFF_MS
    if isinstance(attempt.error, Throttled):
        return int(random.uniform(200, 2_000)) if attempt.age_ms < age * 1000 else None
    if attempt.attempts > (retries if most is None else most):
        return None
    delay_ms = int(min(least_ms << min(attempt.attempts - 1, 20), most_ms) * random.uniform(0.5, 1.0))
    asked_ms = attempt.error.details.get("retry_after_ms")  # by the endpoint
    if isinstance(asked_ms, int):
        delay_ms = max(delay_ms, asked_ms)
    return delay_ms if attempt.age_ms + delay_ms <= age * 1000 else None


def dead_attributes(attempt: Attempt) -> dict[str, str]:
    """What a dead letter says of its end, beside where it came from."""
    facts = {
        "ERROR_CODE": _error_code(attempt.error),
        "ERROR_MESSAGE": attempt.error.message[:1024] or attempt.error.code,
    }
    if may_pass(attempt.error):
        exhausted = attempt.attempts > 1
        facts["EXHAUSTED_RETRY_CONDITION"] = "MaximumRetryAttempts" if exhausted else "MaximumEventAgeInSeconds"
        facts["RETRY_ATTEMPTS"] = str(attempt.attempts - 1)
    return facts


def _error_code(error: MartletError) -> str:
    if isinstance(error, AccessDenied):
        return "NO_PERMISSIONS"
    if isinstance(error, NotFound) or error.http_status == 404 or "NotFound" in str(getattr(error, "name", "")):
        return "NO_RESOURCE"
    if "DoesNotExist" in str(getattr(error, "name", "")):
        return "NO_RESOURCE"
    return "THROTTLING" if isinstance(error, Throttled) else "SDK_CLIENT_ERROR"


def _message(details: Details, text: str) -> Message:
    group = (details.target.get("SqsParameters") or {}).get("MessageGroupId") or ""
    attributes = {name: ("String", value) for name, value in details.dead.items()}
    return Message(text, attributes, group, "", "AIDAJXNJGGKNS7OSV23OI")


def _dead(details: Details) -> dict[str, Any]:
    return {name: {"DataType": "String", "StringValue": value} for name, value in details.dead.items()}


def _nothing() -> None:
    """Nothing is left to do after the commit."""
