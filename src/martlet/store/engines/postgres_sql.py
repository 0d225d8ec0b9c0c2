"""What the PostgreSQL engine says to the server: tables, statements, and what the server's errors mean.

Row locks, `unnest`, ON CONFLICT and one UPDATE under a condition are all that is asked for: no advisory locks, no procedures,
no sequences. NOTIFY is a hint and can be left out.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import msgspec

from martlet.errors import InvalidInput, MartletError, Overloaded, StoreFailed, StoreFull
from martlet.store.engine import Lost

__all__ = ["FORMAT", "KEPT_CHANGES", "Address", "Statements", "translate"]

FORMAT: Final = 1  # of the tables below; kept in the head row
KEPT_CHANGES: Final = 4_096  # commits whose keys are kept: a node that is further behind forgets all it knows

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
_FULL: Final = frozenset({"53100"})
_BUSY: Final = frozenset({"53000", "53200", "53300", "53400"})
# The server or the connection goes away, or has become a standby: to be asked again elsewhere or later.
_GONE: Final = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "57014", "25006", "25P02", "25P03", "3D000", "0A000"})
_TAIL_BYTES: Final = 16_777_216  # one `tail` stops after so many bytes of bodies


class Address(msgspec.Struct, frozen=True):
    """Where a database is. `shown` is what messages say: it holds no password."""

    url: str
    schema: str
    notify: bool
    shown: str

    @classmethod
    def of(cls, text: str) -> Address:
        """Reads `postgresql://user:password@host:port/database?schema=martlet&notify=on`; the rest of the query is libpq's.

        Raises `InvalidInput`, which does not repeat the text: it may hold a password."""
        try:
            parts = urlsplit(text)
            query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
            hosts = parts.netloc.rpartition("@")[2]
        except ValueError:
            raise InvalidInput("the store's address is not a URL", remedy=_REMEDY) from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise InvalidInput("the store's address does not begin with postgresql://", remedy=_REMEDY)
        schema, notify = query.pop("schema", "martlet"), query.pop("notify", "on")
        if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
            raise InvalidInput("the store's schema: allowed are 1 to 48 of a-z, 0-9 and _", remedy=_REMEDY)
        if notify not in ("on", "off"):
            raise InvalidInput("the store's notify is on or off", remedy=_REMEDY)
        query.setdefault("target_session_attrs", "read-write")  # of several hosts the one that is primary
        url = urlunsplit(parts._replace(query=urlencode(query)))
        where = hosts or query.get("host", "localhost")
        return cls(url, schema, notify == "on", f"postgresql://{where}{parts.path} (schema {schema})")


_REMEDY: Final = "write postgresql://user@host:5432/database; passwords are better in PGPASSFILE than in a command line"

_TABLES: Final = """
CREATE TABLE {s}.head (
    shard int PRIMARY KEY, n bigint NOT NULL, seq bigint NOT NULL, first bigint NOT NULL, format int NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE {s}.kv (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 90);
CREATE TABLE {s}.log (
    seq bigint PRIMARY KEY, at_ms bigint NOT NULL, topic bytea NOT NULL, key bytea NOT NULL, body bytea NOT NULL
);
CREATE TABLE {s}.commits (n bigint PRIMARY KEY, node text NOT NULL, batch bigint NOT NULL, keys bytea NOT NULL);
CREATE TABLE {s}.nodes (
    node text PRIMARY KEY, batch bigint NOT NULL, n bigint NOT NULL, at timestamptz NOT NULL
) WITH (fillfactor = 50);
ALTER TABLE {s}.commits ALTER COLUMN keys SET STORAGE EXTERNAL;
ALTER TABLE {s}.kv SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE {s}.commits SET (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_insert_scale_factor = 0.1);
INSERT INTO {s}.head VALUES (0, 0, 0, 1, {format});
"""

_LOOK_HEAD: Final = """
SELECT 0 AS kind, n AS a, seq AS b, first AS c, NULL::text AS node, NULL::bytea AS key, NULL::bytea AS value
  FROM {s}.head WHERE shard = 0
UNION ALL SELECT 1, n, batch, 0, node, NULL, keys FROM {s}.commits WHERE n > $1
"""
_LOOK_KEYS: Final = """UNION ALL SELECT 2, 0, 0, 0, NULL, key, value FROM {s}.kv WHERE key = ANY($2::bytea[])
"""
_LOOK_SPANS: Final = """
UNION ALL SELECT 3, s.i, 0, 0, NULL, r.key, r.value
  FROM unnest($3::bytea[], $4::bytea[], $5::bigint[]) WITH ORDINALITY AS s(low, high, most, i)
  CROSS JOIN LATERAL (SELECT key, value FROM {s}.kv WHERE key >= s.low AND key < s.high ORDER BY key LIMIT s.most) AS r
UNION ALL SELECT 4, s.i, 0, 0, NULL, r.key, r.value
  FROM unnest($6::bytea[], $7::bytea[], $8::bigint[]) WITH ORDINALITY AS s(low, high, most, i)
  CROSS JOIN LATERAL (SELECT key, value FROM {s}.kv WHERE key >= s.low AND key < s.high ORDER BY key DESC LIMIT s.most) AS r
"""

# One statement, so that the head's lock is held by the server alone: a node that stops between two messages stops nobody else.
# Everything joins `h`: when the head has moved on, or a row is there that was taken for absent, nothing at all is written. (If
# the head is still at $1, the statement's snapshot is that of $1: no other commit came between them.)
_COMMIT: Final = """
WITH h AS (
  UPDATE {s}.head SET n = n + 1, seq = $2, first = greatest(first, $3)
  WHERE shard = 0 AND n = $1 AND NOT EXISTS (SELECT 1 FROM {s}.kv WHERE key = ANY($16::bytea[])) RETURNING n
), put AS (
  INSERT INTO {s}.kv (key, value) SELECT t.k, t.v FROM h, unnest($6::bytea[], $7::bytea[]) AS t(k, v)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value
), gone AS (
  DELETE FROM {s}.kv USING h WHERE kv.key = ANY($8::bytea[])
), logged AS (
  INSERT INTO {s}.log (seq, at_ms, topic, key, body) SELECT t.seq, t.at_ms, t.topic, t.key, t.body
  FROM h, unnest($9::bigint[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[]) AS t(seq, at_ms, topic, key, body)
), trimmed AS (
  DELETE FROM {s}.log USING h WHERE log.seq <= $14
), noted AS (
  INSERT INTO {s}.commits (n, node, batch, keys) SELECT h.n, $4, $5, $15 FROM h
), forgotten AS (
  DELETE FROM {s}.commits USING h WHERE commits.n = h.n - {kept}
), mine AS (
  INSERT INTO {s}.nodes (node, batch, n, at) SELECT $4, $5, h.n, now() FROM h WHERE $5 > 0
  ON CONFLICT (node) DO UPDATE SET batch = excluded.batch, n = excluded.n, at = excluded.at
)
SELECT h.n{notify} FROM h
"""


class Statements:
    """Every statement, for one schema."""

    def __init__(self, address: Address) -> None:
        notify = f", pg_notify('{address.schema}', $4)" if address.notify else ""
        names = {"s": address.schema, "kept": KEPT_CHANGES, "format": FORMAT, "notify": notify}
        self.tables = _TABLES.format(**names)
        self.format = f"SELECT format FROM {address.schema}.head WHERE shard = 0"
        self.look_head = _LOOK_HEAD.format(**names)
        self.look_keys = self.look_head + _LOOK_KEYS.format(**names)
        self.look_all = self.look_keys + _LOOK_SPANS.format(**names)
        self.commit = _COMMIT.format(**names)
        self.lock = f"SELECT n, seq, first FROM {address.schema}.head WHERE shard = 0 FOR UPDATE"
        self.bounds = f"SELECT first, seq FROM {address.schema}.head WHERE shard = 0"
        self.mine = f"SELECT n FROM {address.schema}.nodes WHERE node = $1 AND batch = $2"
        self.enter = (
            f"INSERT INTO {address.schema}.nodes VALUES ($1, 0, 0, now()) ON CONFLICT (node) DO UPDATE SET at = excluded.at"
        )
        self.leave = f"DELETE FROM {address.schema}.nodes WHERE node = $1 OR at < now() - interval '30 days'"
        self.get = f"SELECT value FROM {address.schema}.kv WHERE key = $1"
        scan = f"SELECT key, value FROM {address.schema}.kv WHERE key >= $1 AND key < $2 ORDER BY key"
        self.scan, self.scan_back = f"{scan} LIMIT $3", f"{scan} DESC LIMIT $3"
        self.tail = (
            "SELECT seq, at_ms, topic, key, body FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY seq) AS size "
            f"FROM {address.schema}.log WHERE seq > $1 ORDER BY seq LIMIT $2) AS t "
            f"WHERE size - octet_length(body) <= {_TAIL_BYTES} ORDER BY seq"
        )
        self.check = (
            f"SELECT h.n, h.seq, h.first, l.*, (SELECT max(n) FROM {address.schema}.commits) AS noted "
            f"FROM {address.schema}.head h, (SELECT count(*) AS entries, min(seq) AS low, max(seq) AS high "
            f"FROM {address.schema}.log) AS l"
        )


def translate(error: BaseException, shown: str, *, sent: bool) -> MartletError | Lost | None:
    """Ours for theirs; None: the same may be asked again at once. An error that the server reports ended its transaction, so
    nothing of it is kept; only a connection that breaks leaves the outcome open."""
    code: Any = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and isinstance(code, str) and not code.startswith("08"):
        if code in _AGAIN:
            return None
        if code in _FULL:
            return StoreFull(f"{shown}: no space left at the database", remedy="free space there; nothing was lost")
        if code in _BUSY:
            return Overloaded(f"{shown}: {error}", retry_after_seconds=1)
        if code in _GONE:
            return Lost(f"{shown}: {error}", sent=sent)
        return StoreFailed(
            f"{shown}: {type(error).__name__}: {error}", remedy="look at the database's log; nothing was written"
        )
    return Lost(f"{shown}: {str(error) or type(error).__name__}", sent=sent)
