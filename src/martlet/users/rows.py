"""What the store holds of a pool. Every key begins with the app and the pool, so that no user of one is ever one of another."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from martlet.store import Reader, Store, Tx, keys

__all__ = ["Account", "Code", "Outgoing", "Session", "SigningKey"]

S = TypeVar("S", bound=msgspec.Struct)
PAGE: Final = 500


class Account(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody whose address was verified. Secrets of the second factor are sealed, recovery codes are digests."""

    id: str
    email: str
    password: str  # Argon2id, in its own text form
    created_at_ms: int
    groups: tuple[str, ...] = ()
    is_disabled: bool = False
    totp: bytes = b""
    totp_pending: bytes = b""
    totp_step: int = 0  # the last one that was used
    recovery: tuple[bytes, ...] = ()


class Code(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A one-time code that is awaited. Of a sign-up it carries the password of the account to be."""

    digest: bytes
    expires_at_ms: int
    tries: int
    account: str = ""  # whose password is reset; "": nobody's, and no code fits
    password: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that lasts. Only the refresh token of `generation` is good; an earlier one tells of a theft."""

    generation: int
    created_at_ms: int
    expires_at_ms: int


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key pair that signs, or did until `retired_at_ms` (0: it signs)."""

    public: dict[str, Any]
    private: bytes  # sealed
    created_at_ms: int
    retired_at_ms: int = 0


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the app's sender, sealed: it holds a code."""

    sealed: bytes
    due_at_ms: int
    expires_at_ms: int
    tries: int = 0


_TABLES: Final[dict[type[msgspec.Struct], str]] = {
    Account: "users.account",  # (.., app, pool, id)
    Code: "users.code",  # (.., app, pool, kind, email)
    Session: "users.session",  # (.., app, pool, account, id)
    SigningKey: "users.key",  # (.., app, pool, kid)
    Outgoing: "users.outbox",  # (.., app, pool, id)
}
_EMAIL: Final = "users.email"  # (.., app, pool, email) -> account
_SECRET: Final = "users.secret"  # (.., app, pool) -> the pool's secret, sealed
_SESSIONS: Final = msgspec.msgpack.Decoder(Session)
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(kind) for kind in _TABLES}


def get(reader: Reader | Tx, kind: type[S], *place: str) -> S | None:
    raw = reader.get(keys.encode(_TABLES[kind], *place))
    return None if raw is None else _DECODERS[kind].decode(raw)  # type: ignore[return-value]


def session(store: Store, *place: str) -> Session | None:
    """The session of a token, which each request needs: from memory, until a transaction writes it."""
    raw = store.get(keys.encode(_TABLES[Session], *place))
    return None if raw is None else _SESSIONS.decode(raw)


def put(tx: Tx, row: msgspec.Struct, *place: str) -> None:
    tx.put(keys.encode(_TABLES[type(row)], *place), _ENCODER.encode(row))


def delete(tx: Tx, kind: type[msgspec.Struct], *place: str) -> None:
    tx.delete(keys.encode(_TABLES[kind], *place))


def every(
    reader: Reader | Tx, kind: type[S], *place: str, after: str = "", limit: int = PAGE
) -> list[tuple[tuple[str, ...], S]]:
    """((app, pool, …), row) of the rows below a place, in order of their keys."""
    low, high = keys.prefix_range(_TABLES[kind], *place)
    if after:
        low = keys.encode(_TABLES[kind], *place, after) + b"\x00"
    rows = reader.scan(low, high, limit=limit)
    return [(tuple(str(part) for part in keys.decode(key)[1:]), _DECODERS[kind].decode(raw)) for key, raw in rows]  # type: ignore[misc]


def account_of(reader: Reader | Tx, app: str, pool: str, email: str) -> Account | None:
    id = reader.get(keys.encode(_EMAIL, app, pool, email))
    return None if id is None else get(reader, Account, app, pool, id.decode())


def put_account(tx: Tx, app: str, pool: str, account: Account) -> None:
    put(tx, account, app, pool, account.id)
    tx.put(keys.encode(_EMAIL, app, pool, account.email), account.id.encode())


def delete_account(tx: Tx, app: str, pool: str, account: Account) -> None:
    delete(tx, Account, app, pool, account.id)
    tx.delete(keys.encode(_EMAIL, app, pool, account.email))
    end_sessions(tx, app, pool, account.id)


def end_sessions(tx: Tx, app: str, pool: str, account: str, but: str = "") -> None:
    for place, _ in every(tx, Session, app, pool, account):
        if place[3] != but:
            delete(tx, Session, *place)


def secret_row(app: str, pool: str) -> bytes:
    return keys.encode(_SECRET, app, pool)


def page(reader: Reader, kind: type[S], after: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], S]]:
    """Rows of all pools, from the one after a place on."""
    low, high = keys.prefix_range(_TABLES[kind])
    if after:
        low = keys.encode(_TABLES[kind], *after) + b"\x00"
    found = reader.scan(low, high, limit=PAGE)
    return [(tuple(str(part) for part in keys.decode(key)[1:]), _DECODERS[kind].decode(raw)) for key, raw in found]  # type: ignore[misc]
