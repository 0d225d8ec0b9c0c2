"""POST /v1/buses/{name}/events: CloudEvents 1.0 onto an event bus, in binary, structured and batched mode.

Source: CloudEvents 1.0.2, "HTTP Protocol Binding" and "JSON Event Format". A CloudEvent becomes an event whose source,
detail-type, time and id are the CloudEvent's source, type, time and id; its subject is the first of the resources, its data the
detail. Data that is no JSON object is the detail's member `data` (or `data_base64`); other attributes are kept as the event's
member `cloudevent`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from martlet.errors import InvalidInput, NotFound, ServiceError, Unsupported
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.rooms import Rooms
from martlet.types import ACCOUNT, Principal

__all__ = ["CloudEventEndpoints"]

Identify = Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]

_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_NAME = re.compile(r"[a-z0-9]{1,64}")
_MAPPED: Final = ("specversion", "id", "source", "type", "time", "subject", "datacontenttype", "data", "data_base64")
_TEXT_MOST: Final = 2_048


class CloudEventEndpoints:
    """The operation."""

    def __init__(self, rooms: Rooms, identify: Identify) -> None:
        self._rooms = rooms
        self._identify = identify

    def operations(self) -> tuple[Operation, ...]:
        return (Operation("POST", "/v1/buses/{name}/events", self.publish),)

    async def publish(self, request: Request) -> Answer:
        """202 once the events are durable."""
        request.query(())
        principal, body = await self._identify(request, "request_body_bytes")
        name = request.parameters["name"]
        arn = f"arn:aws:events:{self._rooms.region}:{ACCOUNT}:event-bus/{name}"
        self._rooms.auth.authorize(principal, "events:PutEvents", arn)
        events: Any = self._rooms.services["events"]
        found = [_event(attributes) for attributes in _attributes(request, body)]
        try:
            await events.take(name, found)
        except ServiceError as error:
            kind = NotFound if error.name == "ResourceNotFoundException" else InvalidInput
            raise kind(error.message) from error
        return asgi.json_answer({"ids": [one["id"] for one in found]}, 202)


def _attributes(request: Request, body: bytes) -> list[dict[str, Any]]:
    """What the request holds, one dict a CloudEvent, data included. Raises `InvalidInput`, `Unsupported`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _BATCH:
        found = _json(body)
        if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
            raise InvalidInput("a batch is a JSON array of CloudEvents, at least one")
        return found
    if kind == _STRUCTURED:
        found = _json(body)
        if not isinstance(found, dict):
            raise InvalidInput("a CloudEvent is a JSON object")
        return [found]
    if kind.startswith("application/cloudevents"):
        raise Unsupported(f"the event format {kind} is not supported", remedy=f"send {_STRUCTURED}")
    headers = {key[3:]: unquote(text) for key, text in request.headers.items() if key.startswith("ce-")}
    if not headers:
        raise InvalidInput("the request is no CloudEvent: it has neither ce- headers nor a CloudEvents content type")
    if {"data", "data_base64", "datacontenttype"} & headers.keys():
        raise InvalidInput("in binary mode the data is the body, and its type the Content-Type header")
    given: dict[str, Any] = dict(headers)
    if kind:
        given["datacontenttype"] = kind
    if body and (kind in ("", "application/json", "text/json") or kind.endswith("+json")):
        given["data"] = _json(body)
    elif body and kind.startswith("text/"):
        given["data"] = _utf8(body)
    elif body:
        given["data_base64"] = base64.b64encode(body).decode()
    return [given]


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the body is not UTF-8: {error}") from None


def _event(given: Mapping[str, Any]) -> dict[str, Any]:
    """The event that a CloudEvent becomes. Raises `InvalidInput` naming the attribute."""
    if given.get("specversion") != "1.0":
        raise InvalidInput(f"specversion {given.get('specversion')!r}: it is 1.0", field="specversion")
    for name in ("id", "source", "type"):
        if not isinstance(given.get(name), str) or not given[name] or len(given[name]) > _TEXT_MOST:
            raise InvalidInput(f"the attribute {name} must be a text that is not empty", field=name)
    for name, value in given.items():
        if name not in ("data", "data_base64"):
            if not _NAME.fullmatch(name):
                raise InvalidInput(f"the attribute name {name[:64]!r} has other than a-z and 0-9", field="name")
            if not isinstance(value, str | int | bool):
                raise InvalidInput(f"the attribute {name} must be a text, a number or a boolean", field=name)
    if "data" in given and "data_base64" in given:
        raise InvalidInput("a CloudEvent has data or data_base64, not both", field="data")
    more = {name: value for name, value in given.items() if name not in _MAPPED}
    detail = given.get("data", {})
    if "data_base64" in given or not isinstance(detail, dict):
        part = "data_base64" if "data_base64" in given else "data"
        detail = {part: given[part]}
        more |= {"data": True}
        if given.get("datacontenttype"):
            more["datacontenttype"] = given["datacontenttype"]
    subject = given.get("subject")
    return {
        "id": given["id"],
        "source": given["source"],
        "type": given["type"],
        "time": _time(given.get("time")),
        "resources": [subject] if subject else [],
        "detail": detail,
        "more": {"cloudevent": more} if more else {},
    }


def _time(text: Any) -> str:
    if text is None:
        return ""
    try:
        if datetime.fromisoformat(str(text)).tzinfo is None:
            raise ValueError("it names no zone")
    except ValueError as error:
        raise InvalidInput(f"the attribute time is no RFC 3339 time: {error}", field="time") from None
    return str(text)
