"""Event streams: AWS's framing of messages in one HTTP body (application/vnd.amazon.eventstream).

A message is: total length, length of headers (4 bytes each, big-endian), CRC-32 of these 8 bytes, headers, payload, CRC-32 of
all before. A header is: length of name (1 byte), name, type (1 byte), value. Source: Amazon Transcribe developer guide,
"Event stream encoding".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from martlet.errors import MartletError, ServiceError
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import Malformed

__all__ = ["CONTENT_TYPE", "EventEncoder", "Message", "decode_messages", "encode_message"]

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
HEADER_BYTES_MAX: Final = 128 * 1024
_OVERHEAD: Final = 16
_FIXED: Final = {2: ">b", 3: ">h", 4: ">i", 5: ">q"}

Value = bool | int | bytes | str | datetime | UUID


class Message(msgspec.Struct, frozen=True):
    """One message. Integers of a header come out of 1, 2, 4 or 8 bytes alike; they go in as 4 bytes, or 8 where they must."""

    headers: dict[str, Value]
    payload: bytes = b""


def encode_message(message: Message) -> bytes:
    """The message as bytes."""
    headers = b"".join(_encode_header(name, value) for name, value in message.headers.items())
    prelude = struct.pack(">II", _OVERHEAD + len(headers) + len(message.payload), len(headers))
    begun = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + message.payload
    return begun + struct.pack(">I", zlib.crc32(begun))


def decode_messages(data: bytes) -> tuple[list[Message], bytes]:
    """The whole messages at the start of `data`, and what is left of it. Raises `Malformed` for bad lengths and checksums."""
    found = []
    while len(data) >= _OVERHEAD - 4:
        total, header_length, checksum = struct.unpack_from(">III", data)
        if zlib.crc32(data[:8]) != checksum:
            raise Malformed("the prelude of an event does not match its checksum", "body")
        if not _OVERHEAD + header_length <= total <= MESSAGE_BYTES_MAX or header_length > HEADER_BYTES_MAX:
            raise Malformed("an event has impossible lengths", "body")
        if len(data) < total:
            break
        if zlib.crc32(data[: total - 4]) != struct.unpack_from(">I", data, total - 4)[0]:
            raise Malformed("an event does not match its checksum", "body")
        headers = _decode_headers(data[12 : 12 + header_length])
        found.append(Message(headers, data[12 + header_length : total - 4]))
        data = data[total:]
    return found, data


def _encode_header(name: str, value: Value) -> bytes:
    raw = name.encode()
    return bytes((len(raw),)) + raw + _encode_value(value)


def _encode_value(value: Value) -> bytes:
    if value is True or value is False:
        return b"\x00" if value else b"\x01"
    if isinstance(value, int):
        narrow = -(1 << 31) <= value < 1 << 31
        return struct.pack(">Bi" if narrow else ">Bq", 4 if narrow else 5, value)
    if isinstance(value, bytes):
        return struct.pack(">BH", 6, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return struct.pack(">BH", 7, len(raw)) + raw
    if isinstance(value, datetime):
        return struct.pack(">Bq", 8, round(value.timestamp() * 1000))
    return b"\x09" + value.bytes


def _decode_headers(data: bytes) -> dict[str, Value]:
    headers: dict[str, Value] = {}
    at = 0
    try:
        while at < len(data):
            end = at + 1 + data[at]
            name, kind = data[at + 1 : end].decode(), data[end]
            if name in headers:
                raise Malformed(f"an event has header {name} twice", "body")
            headers[name], at = _decode_value(data, kind, end + 1)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise Malformed("the headers of an event are malformed", "body") from error
    if at != len(data):
        raise Malformed("the headers of an event are malformed", "body")
    return headers


def _decode_value(data: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind in (0, 1):
        return kind == 0, at
    if kind in _FIXED:
        return struct.unpack_from(_FIXED[kind], data, at)[0], at + struct.calcsize(_FIXED[kind])
    if kind in (6, 7):
        start = at + 2
        end = start + struct.unpack_from(">H", data, at)[0]
        raw = data[start:end]
        return (raw if kind == 6 else raw.decode()), end
    if kind == 8:
        milliseconds = struct.unpack_from(">q", data, at)[0]
        return datetime.fromtimestamp(milliseconds / 1000, UTC), at + 8
    if kind == 9:
        return UUID(bytes=data[at : at + 16]), at + 16
    raise Malformed(f"an event has a header of unknown type {kind}", "body")


def _header_value(shape: Shape, value: Any) -> Value:
    if shape.kind == "timestamp" and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if shape.kind == "blob":
        return value.encode() if isinstance(value, str) else bytes(value)
    found: Value = value
    return found


Body = Callable[[Shape, Any], bytes]


class EventEncoder:
    """Events of one stream's shape as messages. `body` writes a structure in the protocol's syntax, of type `content_type`."""

    def __init__(self, stream: Shape, body: Body, content_type: str) -> None:
        self._events = stream.members
        self._body = body
        self._content_type = content_type

    def event(self, value: dict[str, Any]) -> bytes:
        """{"NameOfEvent": {members}} as a message."""
        ((name, members),) = value.items()
        shape = self._events[name]
        if shape.traits.get("exception"):
            return self._exception(name, shape, members)
        headers: dict[str, Value] = {":event-type": name, ":message-type": "event"}
        for member, inner in shape.members.items():
            if inner.traits.get("eventheader") and members.get(member) is not None:
                headers[member] = _header_value(inner, members[member])
        content_type, payload = self._payload(shape, members)
        if content_type:
            headers[":content-type"] = content_type
        return encode_message(Message(headers, payload))

    def initial(self, shape: Shape, members: dict[str, Any]) -> bytes:
        """The message that begins a stream of the RPC protocols: the members of the answer beside the stream."""
        headers: dict[str, Value] = {":event-type": "initial-response", ":message-type": "event"}
        headers[":content-type"] = self._content_type
        return encode_message(Message(headers, self._body(shape, members)))

    def failure(self, error: MartletError) -> bytes:
        """The message that ends a stream which fails: the stream's own exception if it has one of that name."""
        if isinstance(error, ServiceError):
            shape = self._events.get(error.name) or next((s for s in self._events.values() if s.name == error.name), None)
            if shape is not None:
                name = next(name for name, found in self._events.items() if found is shape)
                member = next((name for name in shape.members if name.lower() == "message"), "message")
                return self._exception(name, shape, {member: error.message, **error.members})
        code = error.name if isinstance(error, ServiceError) else "InternalFailure"
        return encode_message(
            Message({":message-type": "error", ":error-code": code, ":error-message": error.message[:1024]}, b"")
        )

    async def stream(self, events: AsyncIterator[dict[str, Any]], first: bytes = b"") -> AsyncIterator[bytes]:
        """All events of an iterator; an error that it raises becomes the last message."""
        if first:
            yield first
        try:
            async for event in events:
                yield self.event(event)
        except MartletError as error:
            yield self.failure(error)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def _exception(self, name: str, shape: Shape, members: dict[str, Any]) -> bytes:
        headers: dict[str, Value] = {":exception-type": name, ":message-type": "exception", ":content-type": self._content_type}
        return encode_message(Message(headers, self._body(shape, members)))

    def _payload(self, shape: Shape, members: dict[str, Any]) -> tuple[str, bytes]:
        for member, inner in shape.members.items():
            if inner.traits.get("eventpayload"):
                value = members.get(member)
                if inner.kind == "blob":
                    return "application/octet-stream", value.encode() if isinstance(value, str) else value or b""
                if inner.kind == "string":
                    return "text/plain", (value or "").encode()
                return self._content_type, b"" if value is None else self._body(inner, value)
        plain = [name for name, inner in shape.members.items() if not inner.traits.get("eventheader")]
        if not plain:
            return "", b""
        return self._content_type, self._body(shape, members)
