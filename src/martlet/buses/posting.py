"""What may be published to a topic: texts, attributes, structures, sizes. Pure. Source: SNS API reference, Publish and
PublishBatch; recorded answers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.limits import LIMITS

__all__ = [
    "MOST_BYTES",
    "attributes_of",
    "check_message",
    "check_size",
    "check_subject",
    "invalid",
    "not_found",
    "size_of",
    "structured",
]

MOST_BYTES: Final = LIMITS["topic_message_bytes"].default
_SUBJECT = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,99}")
_NAME_LETTER = re.compile(r"[A-Za-z0-9_.-]")
_KIND = re.compile(r"(String|Number|Binary)(\..+)?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameter", f"Invalid parameter: {message}", 400)


def not_found(what: str = "Topic") -> ServiceError:
    return ServiceError("NotFound", f"{what} does not exist", 404)


def _wrong(message: str) -> ServiceError:
    return ServiceError("ParameterValueInvalid", message, 400)


def check_subject(subject: Any) -> None:
    if subject is not None and not _SUBJECT.fullmatch(str(subject)):
        raise invalid("Subject")


def check_message(message: Any) -> str:
    if not message:
        raise invalid("Empty message")
    try:
        str(message).encode()
    except UnicodeEncodeError:
        raise invalid("Message: it is no Unicode text") from None
    return str(message)


def structured(message: str) -> tuple[str, dict[str, str]]:
    """(the default text, texts by protocol) of a message with MessageStructure "json"."""
    try:
        found = json.loads(message)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair could not be sent on
    except (ValueError, RecursionError):
        raise invalid("Message Structure - JSON message body failed to parse") from None
    if not isinstance(found, dict) or not isinstance(found.get("default"), str):
        raise invalid("Message Structure - No default entry in JSON message body")
    return found["default"], {name: text for name, text in found.items() if isinstance(text, str) and name != "default"}


def size_of(message: str, attributes: Mapping[str, tuple[str, str]]) -> int:
    """Bytes that count toward the limit."""
    size = len(message.encode("utf-8", "surrogatepass"))
    for name, (kind, value) in attributes.items():
        length = len(base64.b64decode(value)) if kind.startswith("Binary") else len(value.encode())
        size += len(name.encode()) + len(kind.encode()) + length
    return size


def check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise invalid("Message too long")


def attributes_of(given: Mapping[str, Mapping[str, Any]] | None, path: str = "") -> dict[str, tuple[str, str]]:
    """Attributes as they are kept: name → (type, value; binary in base64). Raises `ServiceError` ParameterValueInvalid."""
    return {name: _attribute(name, value, path) for name, value in (given or {}).items()}


def _attribute(name: str, given: Mapping[str, Any], path: str) -> tuple[str, str]:
    _check_name(name)
    kind = given.get("DataType")
    if kind is None:
        where = f"{path}messageAttributes.{name}.member.dataType"
        raise ServiceError(
            "ValidationError",
            f"1 validation error detected: Value null at '{where}' failed to satisfy constraint: Member must not be null",
            400,
        )
    found = _KIND.fullmatch(str(kind))
    if found is None:
        raise _wrong(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes is "
            "Binary, Number, and String."
        )
    carrier = "Binary" if found[1] == "Binary" else "String"
    value, other = given.get(f"{carrier}Value"), given.get("StringValue" if carrier == "Binary" else "BinaryValue")
    if value is None and other is not None:
        raise _wrong(f"The message attribute '{name}' with type '{kind}' must use field '{carrier}'.")
    if not value:
        raise _wrong(
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type "
            f"'{kind}'."
        )
    if carrier == "Binary":
        raw = value if isinstance(value, bytes) else str(value).encode()
        return str(kind), base64.b64encode(raw).decode()
    text = str(value)
    if found[1] == "Number" and not _NUMBER.fullmatch(text):
        raise _wrong(f"Could not cast message attribute '{name}' value to number.")
    if kind == "String.Array":
        _check_array(name, text)
    return str(kind), text


def _check_array(name: str, text: str) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or any(isinstance(one, dict | list) for one in found):
        raise _wrong(f"The message attribute '{name}' with type 'String.Array' must be a JSON array of literals.")


def _check_name(name: str) -> None:
    if len(name.encode()) > 256:
        raise _wrong("Length of message attribute name must be less than 256 bytes.")
    for letter in name:
        if not _NAME_LETTER.fullmatch(letter):
            raise _wrong(
                f"Invalid non-alphanumeric character '#x{ord(letter):X}' was found in the message attribute name. Can only "
                "include alphanumeric characters, hyphens, underscores, or dots."
            )
    if not name or name.startswith("."):
        raise _wrong("Invalid message attribute name starting with character '.' was found.")
    if name.endswith("."):
        raise _wrong("Invalid message attribute name ending with character '.' was found.")
    if ".." in name:
        raise _wrong("Message attribute name can not have successive '.' character.")
