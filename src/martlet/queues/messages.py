"""A message as its sender gives it: what is allowed in it, how large it is, and the digests that clients verify.

Sources: API reference of Amazon SQS (SendMessage, MessageAttributeValue); developer guide, "Calculating the MD5 message
digest for message attributes".
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.queues.failures import invalid, invalid_value, missing
from martlet.queues.rows import Value

__all__ = [
    "attributes_md5",
    "attributes_out",
    "check_body",
    "check_id",
    "content_id",
    "md5",
    "message_attributes",
    "selected",
    "size_of",
    "trace_of",
]

_ATTRIBUTES: Final = 10
_NAME = re.compile(r"(?!\.|(?:aws|amazon)\.)(?!.*\.\.)[\w.-]{1,256}(?<!\.)", re.IGNORECASE)
_TYPE = re.compile(r"(String|Number|Binary)(\.[^\x00-\x1f]{0,249})?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_ALLOWED = re.compile("[\x09\x0a\x0d\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_BAD_TEXT: Final = (
    "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | "
    "#x10000 to #x10FFFF"
)
_ID = re.compile(r"[!-~]{1,128}")
_TRACE: Final = "AWSTraceHeader"
_LENGTH = struct.Struct(">I")


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def content_id(body: str) -> str:
    """The deduplication id of a message that has none, by its content: SHA-256 of the body."""
    return hashlib.sha256(body.encode()).hexdigest()


def check_body(body: object) -> str:
    """The body, or `ServiceError` MissingParameter, InvalidMessageContents."""
    if not isinstance(body, str) or not body:
        raise missing("MessageBody")
    if not _ALLOWED.fullmatch(body):
        raise ServiceError("InvalidMessageContents", _BAD_TEXT)
    return body


def check_id(value: str, parameter: str) -> str:
    """A group or deduplication id: 1 to 128 letters, digits, punctuation."""
    if not _ID.fullmatch(value):
        reason = f"{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length."
        raise invalid_value(value, parameter, reason)
    return value


def message_attributes(given: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Value]:
    """The attributes as they are kept. Raises `ServiceError` InvalidParameterValue by name."""
    if not given:
        return {}
    if len(given) > _ATTRIBUTES:
        raise invalid(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{_ATTRIBUTES}].")
    return {name: _attribute(name, value) for name, value in given.items()}


def _attribute(name: str, given: Mapping[str, Any]) -> Value:
    if not _NAME.fullmatch(name):
        if len(name) > 256:
            raise invalid("Length of message attribute name must be less than 256 bytes.")
        raise invalid(
            f"Invalid message (user) attribute name '{name}': it can contain letters, digits, _ - and periods, "
            "must not begin or end with a period or have two in a row, nor begin with AWS. or Amazon."
        )
    type = str(given.get("DataType") or "")
    if not type:
        raise invalid(f"The message attribute '{name}' must contain non-empty message attribute type.")
    if len(type) > 256 or not (found := _TYPE.fullmatch(type)):
        raise invalid(
            f"The type of message (user) attribute '{name}' is invalid. You must use only the following supported type "
            "prefixes: Binary, Number, String."
        )
    for member in ("StringListValues", "BinaryListValues"):
        if given.get(member):
            raise ServiceError(
                "UnsupportedOperation", "Message attribute list values in SendMessage operation are not supported."
            )
    kind = found[1]
    data = given.get("BinaryValue" if kind == "Binary" else "StringValue")
    if data is None or len(data) == 0:
        raise invalid(f"Message (user) attribute '{name}' must contain a non-empty value of type '{_carrier(kind)}'.")
    if isinstance(data, str):
        if not _ALLOWED.fullmatch(data):
            raise invalid(f"Message (user) attribute '{name}' has a value with invalid characters. {_BAD_TEXT}")
        if kind == "Number" and not _NUMBER.fullmatch(data):
            raise invalid(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    return Value(type, data)


def _carrier(kind: str) -> str:
    return "Binary" if kind == "Binary" else "String"


def trace_of(given: Mapping[str, Mapping[str, Any]] | None) -> str:
    """AWSTraceHeader, the one system attribute that a sender can give. Raises `ServiceError`."""
    if not given:
        return ""
    for name, value in given.items():
        if name != _TRACE:
            raise invalid(f"Message system attribute name '{name}' is invalid.")
        if value.get("DataType") != "String":
            raise invalid(f"The data type for the message system attribute {_TRACE} must be 'String'.")
        if not isinstance(value.get("StringValue"), str) or not value["StringValue"]:
            raise invalid(f"Message (system) attribute '{_TRACE}' must contain a non-empty value of type 'String'.")
    return str(given[_TRACE]["StringValue"])


def size_of(body: str, attributes: Mapping[str, Value]) -> int:
    """Bytes that count toward a message's limit: body, names, types and values."""
    size = len(body.encode())
    for name, value in attributes.items():
        data = value.data
        size += len(name.encode()) + len(value.type.encode()) + len(data.encode() if isinstance(data, str) else data)
    return size


def attributes_md5(attributes: Mapping[str, Value]) -> str | None:
    """The digest that clients check; None without attributes."""
    if not attributes:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        value = attributes[name]
        data = value.data
        for part in (name.encode(), value.type.encode()):
            digest.update(_LENGTH.pack(len(part)) + part)
        raw = data.encode() if isinstance(data, str) else data
        digest.update((b"\x01" if isinstance(data, str) else b"\x02") + _LENGTH.pack(len(raw)) + raw)
    return digest.hexdigest()


def trace_md5(trace: str) -> str | None:
    """The digest of the system attributes."""
    return attributes_md5({_TRACE: Value("String", trace)}) if trace else None


def selected(attributes: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """Those that a receiver asked for: by name, "All", ".*", "prefix.*"."""
    if not attributes:
        return {}
    wanted = list(names)
    if any(name in ("All", ".*", "*") for name in wanted):
        return dict(attributes)
    prefixes = tuple(name[:-2] for name in wanted if name.endswith(".*"))
    exact = set(wanted)
    return {name: value for name, value in attributes.items() if name in exact or (prefixes and name.startswith(prefixes))}


def attributes_out(attributes: Mapping[str, Value]) -> dict[str, dict[str, Any]]:
    """In the API's shape."""
    return {
        name: {("StringValue" if isinstance(value.data, str) else "BinaryValue"): value.data, "DataType": value.type}
        for name, value in attributes.items()
    }
