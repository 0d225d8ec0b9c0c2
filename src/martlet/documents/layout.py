"""Where everything lies: row keys and the fixed heads of rows. All keys of this room begin with the byte 44 ("D").

Dm <name>                          the room's own: format, stamp, number, secret
Db <path>                          database                                  -> Database (JSON)
Dc <path> <name>                   collection with schema and indexes        -> Collection (JSON)
Ds <collection>                    what the collection holds                 -> documents, bytes, deleted
Dd <collection> <id>               document                                  -> head + JSON
Dh <collection> <id> <end>         a version that ended at stamp <end>       -> head + JSON
Dg <collection> <id>               last version of a deleted document        -> version, stamp
Di <index> <terms> [<id>]          index entry; unique ones without the id   -> entry
Dx <index> <terms> <id> <end>      an entry that ended at stamp <end>        -> entry
De <at_ms> <collection> <id>       when a document expires                   -> path and name of its collection
Dk <path> <key>                    idempotency key                           -> answer
Dt <at_ms> <path> <key>            when that may be forgotten
Dp <index>                         how far a build has come                  -> last id, done
Dq <path>                          GraphQL schema of a database              -> the importers' SDL (JSON)
Dz <number>                        a collection or index that is being removed
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

__all__ = ["ENTRY", "Entry", "Row", "Stats"]

META_FORMAT, META_STAMP, META_NUMBER, META_SECRET = b"Dmformat", b"Dmstamp", b"Dmnumber", b"Dmsecret"
FORMAT: Final = b"2"  # 1 was: rows under keys.encode("documents", database, collection, id)

_HEAD: Final = struct.Struct(">QQQQ")  # version, stamp, created (stamp), expires_at_ms
_STATS: Final = struct.Struct(">QQQ")
ENTRY: Final = struct.Struct(">QBH")  # stamp, 1 if the id follows, its length; then the id, then covered values (JSON)
_LONG: Final = struct.Struct(">Q")
END: Final = b"\xff" * 9  # above every stamp


class Row(msgspec.Struct, frozen=True):
    """One version of a document as it is stored. `stamp`: when it came to be, microseconds since the epoch, unique to its
    transaction and growing."""

    version: int
    stamp: int
    created: int
    expires_at_ms: int  # 0: never
    body: bytes

    def pack(self) -> bytes:
        return _HEAD.pack(self.version, self.stamp, self.created, self.expires_at_ms) + self.body

    def expired(self, now_ms: int) -> bool:
        return 0 < self.expires_at_ms <= now_ms


class Stats(msgspec.Struct):
    """What a collection holds. `deleted`: documents ever deleted."""

    documents: int = 0
    body_bytes: int = 0
    deleted: int = 0

    def pack(self) -> bytes:
        return _STATS.pack(self.documents, self.body_bytes, self.deleted)


class Entry(msgspec.Struct, frozen=True):
    """An index entry as it was read. `position`: terms and id, the same for unique entries and others."""

    position: bytes
    id: bytes
    stamp: int
    covered: bytes
    ended: int = 0  # stamp; 0: it stands


def row_of(raw: bytes) -> Row:
    version, stamp, created, expires_at_ms = _HEAD.unpack_from(raw)
    return Row(version, stamp, created, expires_at_ms, raw[32:])


def stats_of(raw: bytes | None) -> Stats:
    return Stats() if raw is None else Stats(*_STATS.unpack(raw))


def entry_value(stamp: int, id: bytes, inside: bool, covered: bytes) -> bytes:
    return ENTRY.pack(stamp, inside, len(id)) + (id if inside else b"") + covered


def entry_of(tail: bytes, raw: bytes, ended: int = 0) -> Entry:
    """`tail`: the key after its index's number (and without an end)."""
    stamp, inside, length = ENTRY.unpack_from(raw)
    if inside:
        id = raw[11 : 11 + length]
        return Entry(tail + id, id, stamp, raw[11 + length :], ended)
    return Entry(tail, tail[-length:], stamp, raw[11:], ended)


def pack_long(number: int) -> bytes:
    return _LONG.pack(number)


def unpack_long(raw: bytes) -> int:
    return int(_LONG.unpack(raw)[0])


def database_key(path: str) -> bytes:
    return b"Db" + path.encode() + b"\x00"


def collection_key(path: str, name: str) -> bytes:
    return b"Dc" + path.encode() + b"\x00" + name.encode() + b"\x00"


def collections_of(path: str) -> bytes:
    return b"Dc" + path.encode() + b"\x00"


def numbered(kind: bytes, number: int) -> bytes:
    """The prefix of a collection's or an index's rows of one kind ("Dd", "Di" ...)."""
    return kind + number.to_bytes(4, "big")
