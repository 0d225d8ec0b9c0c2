"""Which Host headers the platform's API answers to, so that a web page cannot reach it by rebinding its own name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from martlet.errors import AccessDenied

__all__ = ["check_host"]


def check_host(host_header: str, allowed: Iterable[str] = ()) -> None:
    """Return if the API may answer to this Host header, else raise `AccessDenied`.

    Good are "localhost", names below ".localhost" (RFC 6761 section 6.3: always loopback), IP addresses (rebinding needs
    a name) and the `allowed` names, where "*.example.com" stands for every name below example.com.
    """
    if _is_good(host_header, tuple(allowed)):
        return
    raise AccessDenied(f"the API does not answer to host {host_header[:255]!r}", host=host_header[:255])


@lru_cache(maxsize=64)
def _is_good(host_header: str, allowed: tuple[str, ...]) -> bool:
    name = _host_name(host_header)
    return name is not None and (_is_local(name) or any(_matches(name, entry.lower().rstrip(".")) for entry in allowed))


def _host_name(host_header: str) -> str | None:
    """The lower-case host of "host[:port]" (RFC 9110 section 7.2), or None if it is malformed."""
    matched = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?", host_header, re.ASCII)
    return matched[1].lower().removesuffix(".") if matched else None


def _is_local(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _matches(name: str, entry: str) -> bool:
    return name.endswith(entry[1:]) if entry.startswith("*.") else name == entry
