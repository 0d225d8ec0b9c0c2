"""User metadata that is not ASCII: in headers it travels as RFC 2047's encoded words, and is kept as text. Pure."""

from __future__ import annotations

import base64
import re
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Final

__all__ = ["decoded", "encoded"]

_WORD: Final = re.compile(r"=\?[A-Za-z0-9-]+\?[BbQq]\?[^?]*\?=")


def decoded(text: str) -> str:
    """The text that a header means. `text`: as HTTP gave it, each byte a character."""
    if _WORD.search(text):
        try:
            parts = decode_header(text)
            return "".join(part if isinstance(part, str) else part.decode(charset or "latin-1") for part, charset in parts)
        except (ValueError, LookupError, HeaderParseError):
            return text
    try:
        return text.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text


def encoded(text: str) -> str:
    """The header that means `text`: itself, if it is printable ASCII."""
    if text.isascii() and text.isprintable():
        return text
    raw = text.encode("utf-8", "surrogateescape")
    if not any(0x20 < byte < 0x7F for byte in raw):
        return f"=?UTF-8?B?{base64.b64encode(raw).decode()}?="
    pieces = ("_" if byte == 0x20 else _letter(byte) for byte in raw)
    return f"=?UTF-8?Q?{''.join(pieces)}?="


def _letter(byte: int) -> str:
    one = bytes([byte])
    kept = byte not in b"_?=" and 0x20 < byte < 0x7F
    return one.decode() if kept else f"={byte:02X}"
