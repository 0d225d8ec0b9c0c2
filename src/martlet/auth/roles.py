"""Roles and managed policies as they are kept: rows of the store and what can be asked of them. The calls are `identities`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from martlet.store import Reader, Tx, keys

__all__ = ["ADMINISTRATOR", "Policy", "Role", "find", "find_policy", "managed_text", "policy_texts", "random_id"]

_ROLE: Final = "iam.role"  # (.., name in lower case) -> Role
_POLICY: Final = "iam.policy"  # (.., name in lower case) -> Policy
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAGE: Final = 500

# The one managed policy of AWS whose document needs no list of services: it allows everything.
ADMINISTRATOR: Final = "arn:aws:iam::aws:policy/AdministratorAccess"
_EVERYTHING: Final = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
_OURS = re.compile(r"arn:aws:iam::[0-9]{12}:policy/(?:[!-~]*/)?(?P<name>[A-Za-z0-9_+=,.@-]{1,128})")


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A role. `attached` are ARNs of managed policies, `inline` are its own policies by name."""

    name: str
    role_id: str
    path: str
    trust: str
    created_at_ms: int
    description: str | None = None
    session_seconds: int = 3_600
    inline: dict[str, str] = {}
    attached: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    boundary: str = ""  # ARN of the managed policy that no permission reaches beyond; "": none

    def arn(self, account: str) -> str:
        return f"arn:aws:iam::{account}:role{self.path}{self.name}"


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One state of a managed policy; `number` 3 is "v3"."""

    number: int
    text: str
    created_at_ms: int


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A managed policy of this account."""

    name: str
    policy_id: str
    path: str
    created_at_ms: int
    updated_at_ms: int
    versions: tuple[PolicyVersion, ...]
    default: int = 1
    last: int = 1  # numbers are not given twice
    description: str | None = None
    tags: dict[str, str] = {}

    def arn(self, account: str) -> str:
        return f"arn:aws:iam::{account}:policy{self.path}{self.name}"

    def version(self, number: int) -> PolicyVersion | None:
        return next((version for version in self.versions if version.number == number), None)


_ENCODER: Final = msgspec.msgpack.Encoder()
_ROLES: Final = msgspec.msgpack.Decoder(Role)
_POLICIES: Final = msgspec.msgpack.Decoder(Policy)


def random_id(letters: int) -> str:
    """Capital letters and digits from the kernel, as in AWS's unique ids."""
    return "".join(_LETTERS[byte & 31] for byte in os.urandom(letters))


def find(reader: Reader, name: str) -> Role | None:
    """The role of this name; names do not differ by case alone."""
    raw = reader.get(keys.encode(_ROLE, name.lower()))
    return None if raw is None else _ROLES.decode(raw)


def find_policy(reader: Reader, arn: str) -> Policy | None:
    """The managed policy of this account with that ARN."""
    parsed = _OURS.fullmatch(arn)
    raw = None if parsed is None else reader.get(keys.encode(_POLICY, parsed["name"].lower()))
    policy = None if raw is None else _POLICIES.decode(raw)
    return policy if policy is not None and policy.arn(arn.split(":")[4]) == arn else None


def policy_named(reader: Reader, name: str) -> Policy | None:
    raw = reader.get(keys.encode(_POLICY, name.lower()))
    return None if raw is None else _POLICIES.decode(raw)


def keep(tx: Tx, role: Role) -> None:
    tx.put(keys.encode(_ROLE, role.name.lower()), _ENCODER.encode(role))


def keep_policy(tx: Tx, policy: Policy) -> None:
    tx.put(keys.encode(_POLICY, policy.name.lower()), _ENCODER.encode(policy))


def forget(tx: Tx, role: Role) -> None:
    tx.delete(keys.encode(_ROLE, role.name.lower()))


def forget_policy(tx: Tx, policy: Policy) -> None:
    tx.delete(keys.encode(_POLICY, policy.name.lower()))


def every_role(reader: Reader, after: str = "") -> Iterator[Role]:
    """All roles after that name, in order of their names in lower case."""
    for raw in _rows(reader, _ROLE, after):
        yield _ROLES.decode(raw)


def every_policy(reader: Reader, after: str = "") -> Iterator[Policy]:
    for raw in _rows(reader, _POLICY, after):
        yield _POLICIES.decode(raw)


def _rows(reader: Reader, kind: str, after: str) -> Iterator[bytes]:
    low, high = keys.prefix_range(kind)
    if after:
        low = keys.encode(kind, after.lower()) + b"\x00"
    while True:
        rows = reader.scan(low, high, limit=_PAGE)
        for _, raw in rows:
            yield raw
        if len(rows) < _PAGE:
            return
        low = rows[-1][0] + b"\x00"


class Holder(Protocol):
    """A role, a user or a group: whoever has policies."""

    @property
    def inline(self) -> dict[str, str]: ...
    @property
    def attached(self) -> tuple[str, ...]: ...


def managed_text(reader: Reader, arn: str) -> str | None:
    """The document of a managed policy. AWS's own but one are names only: they say nothing here."""
    if arn == ADMINISTRATOR:
        return _EVERYTHING
    policy = find_policy(reader, arn)
    version = None if policy is None else policy.version(policy.default)
    return None if version is None else version.text


def policy_texts(reader: Reader, holder: Holder) -> Iterator[str]:
    """The documents of somebody's permissions, inline and attached."""
    yield from holder.inline.values()
    for arn in holder.attached:
        text = managed_text(reader, arn)
        if text is not None:
            yield text
