"""PutEvents: what is accepted, and the log entries that say so. Source: EventBridge API reference, PutEvents; recorded answers.

An event is one entry of the change log, written before it is acknowledged. Who gets it is decided by whoever reads the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.buses.desk import BusDesk, Request, at, invalid
from martlet.buses.inputs import minified
from martlet.buses.rows import Bus, Tables
from martlet.clock import uuid4_text
from martlet.errors import ServiceError
from martlet.limits import LIMITS
from martlet.store import Tx
from martlet.types import ACCOUNT

__all__ = ["PUBLISHED", "PublishOperations", "Published", "stamp"]

PUBLISHED: Final = "bus.published"  # topic of the log entries that are events
_MOST_BYTES: Final = LIMITS["bus_entries_bytes"].default
_TIME_BYTES: Final = 14  # that an entry's Time counts


class Published(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body (JSON) of a log entry: an event came to a bus. `hops`: buses it has come through before."""

    bus: str
    event: msgspec.Raw
    at_ms: int  # when it came
    hops: int = 0
    replay: str = ""
    rules: tuple[str, ...] = ()  # of a replay: ARNs of the rules that it is for; none: all


_ENCODE: Final = msgspec.json.Encoder().encode


def stamp(at_ms: int) -> str:
    """As events write a time: whole seconds of UTC."""
    return at(at_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


class PublishOperations(BusDesk):
    """PutEvents and TestEventPattern."""

    async def put_events(self, caller: Any, request: Request) -> Request:
        """Each entry by itself: what is wrong with one is said in its place. Raises `ServiceError` ValidationException when
        all of them together are too large."""
        entries = request["Entries"]
        if request.get("EndpointId"):
            raise ServiceError("ResourceNotFoundException", f"Endpoint {request['EndpointId']} does not exist.", 400)
        if sum(map(_size, entries)) > _MOST_BYTES:
            raise invalid("Total size of the entries in the request is over the limit.")
        answers: list[dict[str, Any]] = []
        accepted: list[tuple[str, Published]] = []
        for entry in entries:
            problem = _problem(entry)
            if problem is not None:
                answers.append({"ErrorCode": problem[0], "ErrorMessage": problem[1]})
                continue
            id = uuid4_text()
            answers.append({"EventId": id})
            accepted.append((self._bus_name(entry.get("EventBusName")), self._published(id, entry)))
        if accepted:
            await self._store.transact(lambda tx: self._append(tx, accepted))
        return {"FailedEntryCount": sum("ErrorCode" in answer for answer in answers), "Entries": answers}

    def _append(self, tx: Tx, accepted: Sequence[tuple[str, Published]]) -> None:
        tables = Tables(tx)
        for name, published in accepted:
            if name and tables.get(Bus, name) is not None:  # to a bus that is not there: taken and forgotten, as in AWS
                self.append(tx, published)

    @staticmethod
    def append(tx: Tx, published: Published) -> None:
        """Write an event into the log, within the caller's transaction."""
        tx.append(PUBLISHED, published.bus.encode(), _ENCODE(published))

    def _published(self, id: str, entry: Mapping[str, Any]) -> Published:
        now_ms = self._clock.now_ms()
        event = event_text(
            id=id,
            source=entry["Source"],
            detail_type=entry["DetailType"],
            detail=entry["Detail"],
            region=self.region,
            time=_time_of(entry.get("Time"), now_ms),
            resources=entry.get("Resources") or (),
        )
        return Published(self._bus_name(entry.get("EventBusName")), msgspec.Raw(event.encode()), now_ms)

    async def publish(
        self, bus: str, source: str, detail_type: str, detail: Any, resources: Sequence[str] = (), *, id: str = ""
    ) -> str:
        """An event of the platform itself (a function's result, a bucket's change); its id. Raises `ServiceError`
        ResourceNotFoundException when there is no such bus."""
        now_ms = self._clock.now_ms()
        id = id or uuid4_text()
        text = json.dumps(detail, separators=(",", ":"), ensure_ascii=False)
        event = event_text(id, source, detail_type, text, self.region, stamp(now_ms), resources)

        def append(tx: Tx) -> None:
            name = self._bus(Tables(tx), bus).name
            self.append(tx, Published(name, msgspec.Raw(event.encode()), now_ms))

        await self._store.transact(append)
        return id

    async def take(self, bus: str, events: Sequence[dict[str, Any]]) -> None:
        """Events that came in another form, all in one commit. Each has source, type, detail (an object) and may have id, time,
        resources and more members. Raises `ServiceError` ResourceNotFoundException, ValidationException."""
        now_ms = self._clock.now_ms()
        texts: list[str] = []
        for event in events:
            detail = json.dumps(event["detail"], separators=(",", ":"), ensure_ascii=False)
            id, time = str(event.get("id") or uuid4_text()), str(event.get("time") or stamp(now_ms))
            resources = event.get("resources") or ()
            text = event_text(id, event["source"], event["type"], detail, self.region, time, resources)
            if event.get("more"):
                more = json.dumps(event["more"], separators=(",", ":"), ensure_ascii=False)
                text = f"{text[:-1]},{more[1:]}"
            texts.append(text)
        if sum(len(text.encode()) for text in texts) > _MOST_BYTES:
            raise invalid("Total size of the entries in the request is over the limit.")

        def append(tx: Tx) -> None:
            name = self._bus(Tables(tx), bus).name
            for text in texts:
                self.append(tx, Published(name, msgspec.Raw(text.encode()), now_ms))

        await self._store.transact(append)

    async def test_event_pattern(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` InvalidEventPatternException, ValidationException for an event that lacks what all have."""
        try:
            event = json.loads(str(request["Event"]))
        except (ValueError, RecursionError):
            raise invalid("Parameter Event is not valid.") from None
        matches = self._check_pattern(str(request["EventPattern"]))
        if not isinstance(event, dict):
            raise invalid("Parameter Event is not valid.")
        if any(name not in event for name in ("id", "account", "source", "time", "region", "detail-type")):
            raise invalid("Parameter Event is not valid.")
        return {"Result": matches(event)}


def event_text(id: str, source: str, detail_type: str, detail: str, region: str, time: str, resources: Sequence[str]) -> str:
    """An event as JSON, in the order of its members that the service writes. `detail` is JSON."""
    head = {
        "version": "0",
        "id": id,
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": time,
        "region": region,
        "resources": list(resources),
    }
    return f'{json.dumps(head, separators=(",", ":"), ensure_ascii=False)[:-1]},"detail":{minified(detail)}}}'


def _size(entry: Mapping[str, Any]) -> int:
    texts = [entry.get("Source"), entry.get("DetailType"), entry.get("Detail"), *(entry.get("Resources") or ())]
    return sum(len(str(text).encode()) for text in texts if text) + (_TIME_BYTES if entry.get("Time") else 0)


def _problem(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    for member in ("Source", "DetailType", "Detail"):
        if not entry.get(member):
            return "InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument."
    if str(entry["Source"]).startswith("aws."):
        return "NotAuthorizedForSourceException", "Not authorized for the source."
    try:
        detail = msgspec.json.decode(entry["Detail"])  # strict: no NaN, no half of a surrogate pair, which no reader could take
        "".join((entry["Source"], entry["DetailType"], *(entry.get("Resources") or ()))).encode()
    except (ValueError, RecursionError, msgspec.DecodeError):
        return "MalformedDetail", "Detail is malformed."
    return None if isinstance(detail, dict) else ("MalformedDetail", "Detail is malformed.")


def _time_of(given: Any, now_ms: int) -> str:
    if isinstance(given, datetime):
        return given.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return stamp(now_ms if given is None else int(float(given) * 1000))
