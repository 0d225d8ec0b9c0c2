"""What buses and topics are made of, as rows of the store: what they hold, and how they are found.

One row a thing, by its name: a rule with its targets, a topic with its attributes. Events and messages on their way are not
here but in the change log; what an archive keeps lies under the archive's id in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar, cast

import msgspec

from martlet.store import Reader, Tx, keys

__all__ = [
    "CHANGED",
    "Archive",
    "Archived",
    "Bus",
    "Connection",
    "Destination",
    "Group",
    "Replay",
    "Rule",
    "Schedule",
    "Subscription",
    "Tables",
    "Token",
    "Topic",
]

CHANGED: Final = "bus.changed"  # topic of the log entries that say: rules or subscriptions are not what they were


class Bus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event bus. `policy` are the statements of who else may put events on it."""

    name: str
    created_at_ms: int
    modified_at_ms: int
    description: str = ""
    policy: tuple[dict[str, Any], ...] = ()
    dead_letter: str = ""
    key: str = ""  # KmsKeyIdentifier, remembered
    tags: dict[str, str] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule with its targets, which are the API's own objects."""

    bus: str
    name: str
    pattern: str = ""
    schedule: str = ""
    state: str = "ENABLED"
    description: str = ""
    role: str = ""
    tags: dict[str, str] = {}
    targets: tuple[dict[str, Any], ...] = ()
    app: str = ""  # of an app's own declaration: its functions need no permission


class Archive(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    id: int  # never given twice
    bus: str
    created_at_ms: int
    description: str = ""
    pattern: str = ""
    retention_days: int = 0  # 0: for ever
    count: int = 0
    size: int = 0
    replayed: bool = False


class Archived(msgspec.Struct, frozen=True):
    """An event in an archive."""

    event: bytes  # JSON
    size: int


class Replay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`place` is the key of the archived event that was replayed last."""

    name: str
    archive: str
    description: str = ""
    start_ms: int
    end_ms: int
    destination: dict[str, Any]
    state: str = "STARTING"
    reason: str = ""
    started_at_ms: int
    ended_at_ms: int = 0
    last_event_ms: int = 0
    place: bytes = b""


class Connection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to authenticate to an API destination. `parameters` are the API's AuthParameters, secrets included."""

    name: str
    id: str
    secret: str
    kind: str
    parameters: dict[str, Any]
    created_at_ms: int
    modified_at_ms: int
    description: str = ""
    state: str = "AUTHORIZED"


class Destination(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API destination."""

    name: str
    id: str
    connection: str  # name
    connection_arn: str
    endpoint: str
    method: str
    rate: int = 300  # a second
    description: str = ""
    created_at_ms: int
    modified_at_ms: int


class Topic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A topic. `attributes` are those that were set, as text."""

    name: str
    created_at_ms: int
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}
    sequence: int = 0  # messages of a FIFO topic


class Subscription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A subscription; it is pending while it has a `token` and is not `confirmed`."""

    topic: str  # name
    id: str
    protocol: str
    endpoint: str
    attributes: dict[str, str] = {}
    confirmed: bool = True
    authenticated: bool = True  # who confirmed it was known
    token: str = ""
    created_at_ms: int = 0
    principal: str = ""  # ARN of who made it
    app: str = ""


class Token(msgspec.Struct, frozen=True):
    """Whose confirmation a token is: it is asked for by the token alone. `lost` is a subscription that it brings back."""

    token: str
    topic: str
    id: str
    lost: Subscription | None = None
    until_ms: int = 0  # of `lost`


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule group."""

    name: str
    created_at_ms: int
    modified_at_ms: int
    tags: dict[str, str] = {}


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule of the Scheduler. `request` are the members as they were given."""

    group: str
    name: str
    request: dict[str, Any]
    start_ms: int | None = None
    end_ms: int | None = None
    created_at_ms: int
    modified_at_ms: int
    token: str = ""


Row = TypeVar("Row")

_TABLES: Final[dict[type, tuple[str, tuple[str, ...]]]] = {
    Bus: ("buses.bus", ("name",)),
    Rule: ("buses.rule", ("bus", "name")),
    Archive: ("buses.archive", ("name",)),
    Replay: ("buses.replay", ("name",)),
    Connection: ("buses.connection", ("name",)),
    Destination: ("buses.destination", ("name",)),
    Topic: ("buses.topic", ("name",)),
    Subscription: ("buses.subscription", ("topic", "id")),
    Token: ("buses.token", ("token",)),
    Group: ("buses.group", ("name",)),
    Schedule: ("buses.schedule", ("group", "name")),
}
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODERS: Final[dict[type, msgspec.msgpack.Decoder[Any]]] = {kind: msgspec.msgpack.Decoder(kind) for kind in _TABLES}
_PAGE: Final = 500


class Tables:
    """Rows by their kind and name, over one transaction or one reading."""

    def __init__(self, reader: Reader | Tx) -> None:
        self._reader = reader

    def get(self, kind: type[Row], *parts: str) -> Row | None:
        raw = self._reader.get(keys.encode(_TABLES[kind][0], *parts))
        return None if raw is None else cast(Row, _DECODERS[kind].decode(raw))

    def every(self, kind: type[Row], *parts: str) -> Iterator[Row]:
        """All rows below these first parts of their name, in order."""
        low, high = keys.prefix_range(_TABLES[kind][0], *parts)
        decode = _DECODERS[kind].decode
        while True:
            rows = self._reader.scan(low, high, _PAGE)
            for key, raw in rows:
                yield decode(raw)
                low = key + b"\x00"
            if len(rows) < _PAGE:
                return

    def put(self, row: Any) -> None:
        """Write a row. Only within a transaction."""
        self._tx.put(self._key(row), _ENCODE(row))

    def delete(self, row: Any) -> None:
        self._tx.delete(self._key(row))

    def changed(self, name: str) -> None:
        """Say in the log that what hears events of the bus or topic `name` is different from now on."""
        self._tx.append(CHANGED, name.encode(), b"")

    @property
    def _tx(self) -> Tx:
        return cast(Tx, self._reader)  # a reading has none of the methods that write

    @staticmethod
    def _key(row: Any) -> bytes:
        table, names = _TABLES[type(row)]
        return keys.encode(table, *(getattr(row, name) for name in names))
