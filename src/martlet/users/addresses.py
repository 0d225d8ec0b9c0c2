"""E-mail addresses and network addresses in the one form in which they are compared.

Two spellings that a mail server may treat as one must be one here, and two that it treats as two must never become one. So
addresses are plain ASCII: no letter that another case rule, a normalisation or the eye could take for a second one. A domain
with other letters is written as its xn-- form (RFC 5890). The local part is compared without regard to case, as all large
providers deliver it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from martlet.errors import InvalidInput, Unsupported

__all__ = ["email_of", "network_of"]

_LOCAL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # RFC 5322 dot-atom
_DOMAIN: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_LOCAL_MOST: Final = 64  # RFC 5321 section 4.5.3.1
_MOST: Final = 254


def email_of(text: str) -> str:
    """The address, in lower case. Raises `InvalidInput` for none, `Unsupported` for letters beyond ASCII."""
    if len(text) > _MOST:
        raise InvalidInput(f"an e-mail address has at most {_MOST} characters", field="email")
    if not text.isascii():
        raise Unsupported("e-mail addresses with letters beyond ASCII are not supported", remedy="write the domain as xn--…")
    found = text.lower()
    local, at, domain = found.rpartition("@")
    if not at or len(local) > _LOCAL_MOST or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise InvalidInput("this is no e-mail address", field="email")
    return found


def network_of(address: str) -> str:
    """By what a client's tries are counted: its IPv4 address or its /64, of whose 2^64 addresses one host has all."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped) if found.ipv4_mapped is not None else found.exploded[:19]
