"""What a transaction can do: `Reader` and `Tx`, and the store's own rows (cursors, leases, counters) behind them."""

from __future__ import annotations

import struct
from typing import Final, Protocol

import msgspec

from martlet.errors import Conflict, InvalidInput
from martlet.limits import LIMITS, exceeded
from martlet.store.engine import Engine
from martlet.store.overlay import MISSING, Overlay

__all__ = ["Lease", "Reader", "Snapshot", "Tx", "counter_value", "lease_of", "lease_row", "slowest_cursor"]

_KEY_BYTES: Final = LIMITS["key_bytes"].default
_VALUE_BYTES: Final = LIMITS["value_bytes"].default
_TRANSACTION_BYTES: Final = LIMITS["transaction_bytes"].default

_USER_LOW: Final = b"\x01"  # keys below are the store's own
_CURSOR: Final = b"\x00c"
_LEASE: Final = b"\x00l"
_COUNTER = struct.Struct(">q")
_COUNTER_MAX: Final = (1 << 63) - 1
_LEASE_ROW = struct.Struct(">QQ")  # epoch, expires_at_ms; then the holder


class Lease(msgspec.Struct, frozen=True):
    """The right to act as the only one. `epoch` grows with every new holder and fences the old one out."""

    name: str
    holder: str
    epoch: int
    expires_at_ms: int


class Reader(Protocol):
    """Reads of one consistent state."""

    def get(self, key: bytes) -> bytes | None:
        """The row's value, or None."""

    def scan(self, low: bytes, high: bytes, limit: int = 1000, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """At most `limit` rows with low <= key < high, by key; from `high` down when `reverse`."""

    def cursor(self, name: str) -> int:
        """The seq that this cursor has reached; 0 for one that never moved."""

    def lease(self, name: str) -> Lease | None:
        """The lease as it stands, expired or not; None when nobody holds it."""


def counter_value(row: bytes | None) -> int:
    """The number in a row that `Tx.increment` wrote; 0 for no row."""
    if row is None:
        return 0
    if len(row) != 8:
        raise InvalidInput(f"the row holds {len(row)} bytes, so it is no counter (8 bytes)")
    return int(_COUNTER.unpack(row)[0])


class Snapshot:
    """Committed state: what `Store.read` hands out."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, key: bytes) -> bytes | None:
        return self._engine.get(key)

    def scan(self, low: bytes, high: bytes, limit: int = 1000, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        _check_limit(limit)
        return self._engine.scan(max(low, _USER_LOW), high, limit, reverse)

    def cursor(self, name: str) -> int:
        return _cursor_at(self._engine.get(_own(_CURSOR, name)))

    def lease(self, name: str) -> Lease | None:
        return _held(lease_of(name, self._engine.get(_own(_LEASE, name))))


class Tx:
    """One transaction. Sees its own writes and those of every transaction before it; nothing is kept if `fn` raises.

    Keys are 1..`key_bytes` bytes and do not begin with 00 (the store's own rows). All methods raise `LimitExceeded`
    for keys and values that are too long, and for a transaction that writes more than `transaction_bytes`.
    """

    __slots__ = ("_engine", "_pending", "_size", "_writes", "checkpoint", "entries", "last_seq", "now_ms", "trim_through")

    def __init__(self, engine: Engine, pending: Overlay, last_seq: int, now_ms: int) -> None:
        self._engine: Engine | None = engine
        self._pending = pending
        self._writes = Overlay()
        self._size = 0
        self.last_seq = last_seq  # of the log before this transaction
        self.now_ms = now_ms  # the store's clock, one reading for the whole transaction
        self.entries: list[tuple[str, bytes, bytes]] = []
        self.trim_through = 0  # the last two are for the store's own maintenance
        self.checkpoint = False

    # reads

    def get(self, key: bytes) -> bytes | None:
        value = self._writes.rows.get(key, MISSING)
        if value is MISSING:
            value = self._pending.rows.get(key, MISSING)
            if value is MISSING:
                if self._engine is None:
                    raise RuntimeError("the transaction has ended; use its Tx only inside fn")
                return self._engine.get(key)
        return value

    def scan(self, low: bytes, high: bytes, limit: int = 1000, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """At most `limit` rows with low <= key < high, by key; from `high` down when `reverse`."""
        _check_limit(limit)
        return self._writes.scan(self._scan_below, max(low, _USER_LOW), high, limit, reverse)

    def _scan_below(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        if self._engine is None:
            raise RuntimeError("the transaction has ended; use its Tx only inside fn")
        return self._pending.scan(self._engine.scan, low, high, limit, reverse)

    def cursor(self, name: str) -> int:
        return _cursor_at(self.get(_own(_CURSOR, name)))

    def lease(self, name: str) -> Lease | None:
        return _held(lease_of(name, self.get(_own(_LEASE, name))))

    # rows

    def put(self, key: bytes, value: bytes) -> None:
        """Set the row."""
        if type(value) is not bytes:
            raise InvalidInput(f"a value is {type(value).__name__}; it must be bytes")
        if len(value) > _VALUE_BYTES:
            raise exceeded("value_bytes", len(value))
        self._write(_checked(key), value)

    def delete(self, key: bytes) -> None:
        """Remove the row, if there is one."""
        self._write(_checked(key), None)

    def append(self, topic: str, key: bytes, body: bytes) -> None:
        """Add an entry to the change log. Its `seq` is given at the commit: dense, in commit order."""
        if type(topic) is not str or type(key) is not bytes or type(body) is not bytes:
            raise InvalidInput("a log entry is (topic: str, key: bytes, body: bytes)")
        named = len(_utf8(topic)) + len(key)
        if named > _KEY_BYTES:
            raise exceeded("key_bytes", named, "log entry's topic and key")
        if len(body) > _VALUE_BYTES:
            raise exceeded("value_bytes", len(body), "log entry's body")
        self._grow(named + len(body))
        self.entries.append((topic, key, body))

    def increment(self, key: bytes, amount: int) -> int:
        """Add to a signed 64-bit counter (0 before the first time); returns the new number.

        Raises `InvalidInput` when the row is no counter or the sum leaves 64 bits."""
        total = counter_value(self.get(key)) + amount
        if not -_COUNTER_MAX - 1 <= total <= _COUNTER_MAX:
            raise InvalidInput(f"the counter would be {total}, beyond 64 bits")
        self.put(key, _COUNTER.pack(total))
        return total

    def compare_and_set(self, key: bytes, expected: bytes | None, value: bytes | None) -> bool:
        """Set (None: delete) the row if its value is `expected` (None: no row); False, and no change, if it is not."""
        if self.get(key) != expected:
            return False
        if value is None:
            self.delete(key)
        else:
            self.put(key, value)
        return True

    # cursors

    def cursor_move(self, name: str, from_seq: int, to_seq: int, lease: Lease | None = None) -> None:
        """Acknowledge log entries up to `to_seq`, together with the effects that this transaction writes.

        Raises `Conflict` when the cursor is not at `from_seq` (somebody else moved it) or the lease is stale;
        `InvalidInput` for a move backwards or beyond the end of the log."""
        if lease is not None:
            self.lease_guard(lease)
        at = self.cursor(name)
        if at != from_seq:
            raise Conflict(f"cursor {name} is at {at}, not at {from_seq}", cursor=name, at=at)
        if not from_seq <= to_seq <= self.last_seq + len(self.entries):
            raise InvalidInput(f"cursor {name} cannot move from {from_seq} to {to_seq}: the log ends at {self.last_seq}")
        self._write(_own(_CURSOR, name), to_seq.to_bytes(8, "big"))

    def cursor_drop(self, name: str) -> None:
        """Forget a cursor, so that it no longer keeps the log from being trimmed."""
        self._write(_own(_CURSOR, name), None)

    # leases

    def lease_take(self, name: str, holder: str, ttl_ms: int) -> Lease | None:
        """Take a free or expired lease (next epoch) or renew one's own (same epoch); None when another holds it.

        `holder` must be unique to one process's life: two processes that share it would share the lease."""
        if not holder or ttl_ms <= 0:
            raise InvalidInput("a lease needs a holder and a time to live above 0 ms")
        found = lease_of(name, self.get(_own(_LEASE, name)))
        alive = found.expires_at_ms > self.now_ms
        if alive and found.holder != holder:
            return None
        epoch = found.epoch if alive else found.epoch + 1
        lease = Lease(name, holder, epoch, self.now_ms + ttl_ms)
        self._write_lease(lease)
        return lease

    def lease_guard(self, lease: Lease) -> None:
        """Fence: raises `Conflict` unless this lease is still the newest, whatever the clocks say."""
        found = lease_of(lease.name, self.get(_own(_LEASE, lease.name)))
        if found.epoch != lease.epoch or found.holder != lease.holder:
            raise Conflict(
                f"lease {lease.name} of {lease.holder} (epoch {lease.epoch}) is stale: now epoch {found.epoch}",
                lease=lease.name,
                epoch=found.epoch,
            )

    def lease_release(self, lease: Lease) -> None:
        """Give the lease back, so that the next taker need not wait; nothing happens if it is stale already."""
        found = lease_of(lease.name, self.get(_own(_LEASE, lease.name)))
        if found.epoch == lease.epoch and found.holder == lease.holder:
            self._write_lease(Lease(lease.name, "", lease.epoch, 0))

    # for the store

    @property
    def writes(self) -> dict[bytes, bytes | None]:
        return self._writes.rows

    @property
    def size(self) -> int:
        """Bytes of keys and values written, overwritten ones included."""
        return self._size

    @property
    def effective(self) -> bool:
        """Whether a commit is needed for this transaction's own sake."""
        return bool(self._writes.rows or self.entries or self.trim_through or self.checkpoint)

    def undo(self) -> None:
        """Forget everything that `fn` did."""
        self._writes = Overlay()
        self._size = 0
        self.entries = []
        self.trim_through = 0
        self.checkpoint = False

    def end(self) -> None:
        """From here on the transaction can neither read nor write."""
        self._engine = None

    def _write_lease(self, lease: Lease) -> None:
        row = _LEASE_ROW.pack(lease.epoch, lease.expires_at_ms) + _utf8(lease.holder)
        self._write(_own(_LEASE, lease.name), row)

    def _write(self, key: bytes, value: bytes | None) -> None:
        self._grow(len(key) + (len(value) if value is not None else 0))
        self._writes.put(key, value)

    def _grow(self, amount: int) -> None:
        if self._engine is None:
            raise RuntimeError("the transaction has ended; use its Tx only inside fn")
        self._size += amount
        if self._size > _TRANSACTION_BYTES:
            raise exceeded("transaction_bytes", self._size)


def slowest_cursor(tx: Tx) -> int | None:
    """The least position of all cursors, as this transaction sees them; None when there are none."""
    rows = tx._writes.scan(tx._scan_below, _CURSOR, _CURSOR + b"\xff", 1 << 30, False)
    return min((_cursor_at(row) for _, row in rows), default=None)


def _checked(key: bytes) -> bytes:
    if type(key) is not bytes:
        raise InvalidInput(f"a key is {type(key).__name__}; it must be bytes")
    if len(key) > _KEY_BYTES:
        raise exceeded("key_bytes", len(key))
    if not key or key[0] == 0:
        raise InvalidInput("a key is not empty and does not begin with byte 00, which marks the store's own rows")
    return key


def _own(kind: bytes, name: str) -> bytes:
    key = kind + _utf8(name)
    if len(key) > _KEY_BYTES:
        raise exceeded("key_bytes", len(key), "name of a cursor or lease")
    return key


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("the name holds a lone surrogate, which UTF-8 cannot carry") from None


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise InvalidInput(f"a scan's limit is {limit}; it must be at least 1")


def _cursor_at(row: bytes | None) -> int:
    return 0 if row is None else int.from_bytes(row, "big")


def lease_row(name: str) -> bytes:
    """The key under which a lease is kept."""
    return _own(_LEASE, name)


def lease_of(name: str, row: bytes | None) -> Lease:
    if row is None:
        return Lease(name, "", 0, 0)
    epoch, expires_at_ms = _LEASE_ROW.unpack_from(row)
    return Lease(name, row[_LEASE_ROW.size :].decode(), epoch, expires_at_ms)


def _held(lease: Lease) -> Lease | None:
    return lease if lease.holder else None
