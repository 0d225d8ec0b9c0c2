"""What comes with an invocation: its JSON, its client context. Faults in the service's words."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Final

import msgspec

from martlet.errors import ServiceError
from martlet.limits import LIMITS

__all__ = ["checked", "client_context"]

_CONTEXT_BYTES: Final = 3_583  # Lambda: X-Amz-Client-Context
_SOURCE: Final = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled)"
_VALUES: Final = "expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
_MOST: Final = {"RequestResponse": LIMITS["payload_bytes"].default, "Event": LIMITS["event_bytes"].default}
_NOT_A_VALUE = re.compile(rb"[\s]*[^\s{\[\"0-9tfn-]")


def checked(payload: bytes, kind: str) -> bytes:
    """The payload, "{}" for none. Raises ServiceError RequestTooLargeException, InvalidRequestContentException."""
    if not payload:
        return b"{}"
    most = _MOST.get(kind, _MOST["RequestResponse"])
    if len(payload) > most:
        message = f"{len(payload)} byte payload is too large for the {kind} invocation type (limit {most} bytes)"
        raise ServiceError("RequestTooLargeException", message, 413, Type="User")
    try:
        msgspec.json.decode(payload)
        payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = "Could not parse request body into json: Could not parse payload into json:"
        raise _content(f"{text} {_fault(payload)}") from None
    return payload


def _fault(payload: bytes) -> str:
    """What is wrong, and where. Source: recorded answers."""
    first = _NOT_A_VALUE.match(payload)
    if first is not None:
        at = first.end() - 1
        return f"Unexpected character ({_named(payload[at])}): {_VALUES}\n at {_SOURCE}; {_place(payload, at)}]"
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        which = "start" if error.reason == "invalid start byte" else "middle"
        at = error.start if which == "start" else min(error.start + 1, len(payload) - 1)
        return f"Invalid UTF-8 {which} byte 0x{payload[at]:02x}\n at {_SOURCE}; {_place(payload, at)}]"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()):
            return f"Unexpected end-of-input\n at {_SOURCE}; line: {error.lineno}, column: {error.colno}]"
        what = _named(ord(text[error.pos]))
        return f"Unexpected character ({what}): {_VALUES}\n at {_SOURCE}; line: {error.lineno}, column: {error.colno}]"
    except RecursionError:
        pass
    return f"Document nesting depth exceeds the maximum allowed\n at {_SOURCE}; line: 1, column: 1]"


def _named(code: int) -> str:
    if code < 32 or 127 <= code < 160:
        return f"(CTRL-CHAR, code {code})"
    return f"'{chr(code)}' (code {code})"


def _place(payload: bytes, at: int) -> str:
    before = payload[:at]
    return f"line: {before.count(10) + 1}, column: {at - (before.rfind(10) + 1) + 1}"


def client_context(encoded: str) -> str:
    """The JSON text of a client context. Raises ServiceError InvalidRequestContentException."""
    if not encoded:
        return ""
    if len(encoded) > _CONTEXT_BYTES:
        raise _content(f"Client context must be no more than {_CONTEXT_BYTES} bytes, got {len(encoded)}")
    try:
        text = base64.b64decode(encoded, validate=True).decode()
        value = msgspec.json.decode(text)
    except (binascii.Error, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _content("Client context must be a valid Base64-encoded JSON object.")
    return text


def _content(message: str) -> ServiceError:
    return ServiceError("InvalidRequestContentException", message, 400, Type="User")
