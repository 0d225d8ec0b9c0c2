"""Users, groups and access keys as they are kept: rows of the store. The calls are `users`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from martlet.auth import roles
from martlet.auth.standing import Standing, boundary_of, compiled
from martlet.store import Reader, Tx, keys
from martlet.types import ACCOUNT, Principal

__all__ = ["AccessKey", "Group", "User", "acting", "every", "find", "find_key", "keep", "keep_key"]

_KEY: Final = "auth.key"  # (.., access key id) -> AccessKey
_OF_USER: Final = "iam.user.key"  # (.., user in lower case, access key id) -> nothing
_PAGE: Final = 500


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Users who share policies."""

    name: str
    id: str
    path: str
    created_at_ms: int
    inline: dict[str, str] = {}
    attached: tuple[str, ...] = ()

    def arn(self, account: str) -> str:
        return f"arn:aws:iam::{account}:group{self.path}{self.name}"


class User(Group, frozen=True, kw_only=True):
    """Somebody with keys of their own. `groups` are names."""

    groups: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    boundary: str = ""

    def arn(self, account: str) -> str:
        return f"arn:aws:iam::{account}:user{self.path}{self.name}"


class AccessKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key pair. SigV4 cannot be checked against a hash of the secret, so the store holds the secret itself."""

    principal: Principal
    secret: str
    is_active: bool = True
    created_at_ms: int = 0

    def __repr__(self) -> str:
        return f"AccessKey(principal={self.principal!r}, secret=…)"


_ENCODER: Final = msgspec.msgpack.Encoder()
_USERS: Final = msgspec.msgpack.Decoder(User)
_GROUPS: Final = msgspec.msgpack.Decoder(Group)
_KEYS: Final = msgspec.json.Decoder(AccessKey)
_KEY_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_TABLES: Final[dict[type[Group], tuple[str, Any]]] = {User: ("iam.user", _USERS), Group: ("iam.group", _GROUPS)}


def find(reader: Reader, kind: type[Group], name: str) -> Any:
    """The user or group of this name; names do not differ by case alone."""
    table, decoder = _TABLES[kind]
    raw = reader.get(keys.encode(table, name.lower()))
    return None if raw is None else decoder.decode(raw)


def keep(tx: Tx, one: Group) -> None:
    tx.put(keys.encode(_TABLES[type(one)][0], one.name.lower()), _ENCODER.encode(one))


def forget(tx: Tx, one: Group) -> None:
    tx.delete(keys.encode(_TABLES[type(one)][0], one.name.lower()))


def every(reader: Reader, kind: type[Group], after: str = "") -> Iterator[Any]:
    """All users or groups after that name, in order of their names in lower case."""
    table, decoder = _TABLES[kind]
    low, high = keys.prefix_range(table)
    if after:
        low = keys.encode(table, after.lower()) + b"\x00"
    while True:
        rows = reader.scan(low, high, limit=_PAGE)
        for _, raw in rows:
            yield decoder.decode(raw)
        if len(rows) < _PAGE:
            return
        low = rows[-1][0] + b"\x00"


def find_key(raw: bytes | None) -> AccessKey | None:
    """The key pair of a row of the keys."""
    return None if raw is None else _key_of(raw)


@lru_cache(maxsize=256)
def _key_of(raw: bytes) -> AccessKey:
    return _KEYS.decode(raw)


@lru_cache(maxsize=1024)
def key_row(id: str) -> bytes:
    return keys.encode(_KEY, id)


def encoded(key: AccessKey) -> bytes:
    return _KEY_ENCODER.encode(key)


def keep_key(tx: Tx, id: str, key: AccessKey) -> None:
    tx.put(key_row(id), encoded(key))
    tx.put(keys.encode(_OF_USER, key.principal.name.lower(), id), b"")


def forget_key(tx: Tx, id: str, user: str) -> None:
    tx.delete(key_row(id))
    tx.delete(keys.encode(_OF_USER, user.lower(), id))


def keys_of(reader: Reader, user: str) -> list[tuple[str, AccessKey]]:
    """(id, key) of every access key of a user."""
    low, high = keys.prefix_range(_OF_USER, user.lower())
    found = []
    for row, _ in reader.scan(low, high):
        id = str(keys.decode(row)[2])
        key = find_key(reader.get(key_row(id)))
        if key is not None:
            found.append((id, key))
    return found


def acting(reader: Reader, principal: Principal, id: str = "", region: str = "us-east-1") -> Principal:
    """`principal`, a user, with what the policies of the user and of its groups say now; nothing once the user is gone, or
    another (`id`) has its name."""
    user: User | None = find(reader, User, principal.name)
    if user is None or id not in ("", user.id):
        return principal
    policies = list(compiled(roles.policy_texts(reader, user)))
    for name in user.groups:
        group = find(reader, Group, name)
        if group is not None:
            policies.extend(compiled(roles.policy_texts(reader, group)))
    context: dict[str, Any] = {
        "aws:username": user.name,
        "aws:userid": user.id,
        "aws:principaltype": "User",
        **{f"aws:principaltag/{key.lower()}": text for key, text in user.tags.items()},
    }
    standing = Standing(
        arn=user.arn(ACCOUNT),
        unique_id=user.id,
        policies=tuple(policies),
        boundary=boundary_of(reader, user.boundary),
        context=context,
        region=region,
    )
    return msgspec.structs.replace(principal, standing=standing)
