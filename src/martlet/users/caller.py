"""Who an access token speaks for."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Caller"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An end user, as a valid access token of a pool says. `claims` is all that it says."""

    sub: str
    email: str
    groups: tuple[str, ...]
    session: str
    claims: dict[str, Any]
