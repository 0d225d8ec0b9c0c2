"""Rows of secrets and parameters. Values are apart from what describes them, and always sealed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from martlet.store import Reader, Tx, keys
from martlet.types import Principal

__all__ = ["Caller", "Parameter", "Secret", "every", "find", "forget", "keep"]

_PAGE: Final = 200


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Principal: ...
    @property
    def account(self) -> str: ...
    @property
    def region(self) -> str: ...


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a secret. `stages` such as AWSCURRENT; one without any is deprecated."""

    id: str
    created_at_ms: int
    stages: tuple[str, ...] = ()
    is_binary: bool = False


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret. `suffix` ends its ARN, so that one made anew is another. `deleted_at_ms`: when it was told to go, 0: not."""

    name: str
    suffix: str
    created_at_ms: int
    changed_at_ms: int
    description: str = ""
    kms_key: str = ""
    tags: dict[str, str] = {}
    versions: tuple[Version, ...] = ()
    deleted_at_ms: int = 0
    recovery_days: int = 30

    def arn(self, region: str, account: str) -> str:
        return f"arn:aws:secretsmanager:{region}:{account}:secret:{self.name}-{self.suffix}"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a parameter."""

    name: str
    type: str
    version: int
    changed_at_ms: int
    changed_by: str
    description: str = ""
    allowed_pattern: str = ""
    data_type: str = "text"
    tier: str = "Standard"
    key_id: str = ""
    labels: tuple[str, ...] = ()
    tags: dict[str, str] = {}  # of the newest version only

    def arn(self, region: str, account: str) -> str:
        return f"arn:aws:ssm:{region}:{account}:parameter{'' if self.name.startswith('/') else '/'}{self.name}"


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[str, Any]] = {
    "secrets.secret": msgspec.msgpack.Decoder(Secret),  # (.., name)
    "secrets.parameter": msgspec.msgpack.Decoder(Parameter),  # (.., name): the newest version
    "secrets.parameter.version": msgspec.msgpack.Decoder(Parameter),  # (.., name, version)
}


def find(reader: Reader, table: str, *key: str | int) -> Any:
    raw = reader.get(keys.encode(table, *key))
    return None if raw is None else _DECODERS[table].decode(raw)


def keep(tx: Tx, table: str, value: Any, *key: str | int) -> None:
    tx.put(keys.encode(table, *key), _ENCODER.encode(value))


def forget(tx: Tx, table: str, *key: str | int) -> None:
    tx.delete(keys.encode(table, *key))


def every(reader: Reader, table: str, *prefix: str, after: tuple[str | int, ...] = ()) -> Iterator[Any]:
    """All rows with that beginning, in order of their keys, those up to `after` left out."""
    low, high = keys.prefix_range(table, *prefix)
    if after:
        low = keys.encode(table, *prefix, *after) + b"\x00"
    while True:
        found = reader.scan(low, high, limit=_PAGE)
        for _, raw in found:
            yield _DECODERS[table].decode(raw)
        if len(found) < _PAGE:
            return
        low = found[-1][0] + b"\x00"
