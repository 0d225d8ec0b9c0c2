"""What a role or a user stands for at one moment: its name, the policies that decide for it, and what is known of its request.

Read from the store whenever somebody acts, so that a change of a policy counts at once; the texts are compiled once
(`evaluation.compile_policy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from martlet.auth import roles
from martlet.auth.evaluation import Policy, compile_policy
from martlet.clock import Clock
from martlet.store import Reader
from martlet.types import ACCOUNT, Principal

__all__ = ["Standing", "boundary_of", "compiled", "of_role", "seen_from"]

_NOTHING: Final = Policy(())
_MACHINE: Final = Clock()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """`arn` and `unique_id` as GetCallerIdentity says them. `boundary` and `session` narrow what `policies` allow."""

    arn: str
    unique_id: str = ""
    policies: tuple[Policy, ...] = ()
    boundary: Policy | None = None
    session: Policy | None = None
    context: Mapping[str, Any] = {}  # condition keys in lower case
    region: str = "us-east-1"
    account: str = ACCOUNT
    now_ms: Callable[[], int] = _MACHINE.now_ms

    def known(self) -> dict[str, Any]:
        """The condition keys of a request that is decided now."""
        seconds = self.now_ms() // 1000
        return {
            "aws:principalarn": self.arn,
            "aws:principalaccount": self.account,
            "aws:epochtime": seconds,
            "aws:currenttime": _basic_time(seconds),
            **self.context,
        }


@lru_cache(maxsize=8)
def _basic_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seen_from(principal: Principal, source_ip: str, *, user_agent: str = "", secure: bool = False) -> Principal:
    """`principal` with what is known of the request by which it acts."""
    standing: Standing | None = principal.standing
    if standing is None:
        return principal
    context = {**standing.context, "aws:sourceip": source_ip, "aws:securetransport": secure}
    if user_agent:
        context["aws:useragent"] = user_agent
    return msgspec.structs.replace(principal, standing=msgspec.structs.replace(standing, context=context))


def compiled(texts: Iterable[str]) -> tuple[Policy, ...]:
    return tuple([compile_policy(text) for text in texts])


def boundary_of(reader: Reader, arn: str) -> Policy | None:
    """The permissions boundary with that ARN; one whose policy is gone allows nothing. None: no boundary."""
    if not arn:
        return None
    text = roles.managed_text(reader, arn)
    return _NOTHING if text is None else compile_policy(text)


def of_role(
    reader: Reader, role: roles.Role, session_name: str, *, region: str = "us-east-1", session: Policy | None = None
) -> Standing:
    """What a session of `role` stands for now."""
    context: dict[str, Any] = {
        "aws:userid": f"{role.role_id}:{session_name}",
        "aws:principaltype": "AssumedRole",
        **{f"aws:principaltag/{key.lower()}": text for key, text in role.tags.items()},
    }
    return Standing(
        arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.name}/{session_name}",
        unique_id=f"{role.role_id}:{session_name}",
        policies=compiled(roles.policy_texts(reader, role)),
        boundary=boundary_of(reader, role.boundary),
        session=session,
        context=context,
        region=region,
    )
