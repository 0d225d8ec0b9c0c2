"""One-time passwords by time (RFC 6238 over RFC 4226): HMAC-SHA-1, 30 seconds, six digits, as authenticator apps have them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import quote

__all__ = ["STEP_SECONDS", "code_at", "matching_step", "uri"]

STEP_SECONDS: Final = 30
_DIGITS: Final = 6
_WINDOW: Final = 1  # RFC 6238 section 5.2: one step for the clocks' drift, each way


def code_at(secret: bytes, step: int) -> str:
    """The code of a time step."""
    digest = hmac.new(secret, step.to_bytes(8, "big"), hashlib.sha1).digest()
    at = digest[-1] & 0x0F
    number = int.from_bytes(digest[at : at + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**_DIGITS:0{_DIGITS}}"


def matching_step(secret: bytes, code: str, now_ms: int, used: int) -> int | None:
    """The time step that `code` is of, if that is later than `used`, the last one that was taken (section 5.2: only once)."""
    now = now_ms // 1000 // STEP_SECONDS
    found = None
    for step in range(now - _WINDOW, now + _WINDOW + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), code.encode("utf-8", "replace")) and step > used:
            found = step
    return found


def uri(secret: bytes, issuer: str, account: str) -> str:
    """What an authenticator app reads from a QR code (the Key URI format)."""
    text = base64.b32encode(secret).decode().rstrip("=")
    return f"otpauth://totp/{quote(issuer)}:{quote(account)}?secret={text}&issuer={quote(issuer)}"
