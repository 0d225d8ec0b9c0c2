"""What end users do by themselves, and what an app's owner does with them.

Whoever asks about an address learns nothing of it: sign-up and password reset answer before anything shows, cost the same and
write as much for every address; a sign-in that fails has one answer and one price. An account is made when its address is
verified, not before: nobody can take an address in advance.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from martlet.clock import Clock, token_hex
from martlet.errors import AccessDenied, InvalidInput, NotFound, StoreFailed, Unauthenticated
from martlet.limits import LIMITS, exceeded
from martlet.store import Store, Tx
from martlet.types import UsersConfig
from martlet.users import factors, rows, totp
from martlet.users.addresses import email_of, network_of
from martlet.users.caller import Caller
from martlet.users.outbox import Outbox, Send
from martlet.users.pacing import Pace
from martlet.users.passwords import Passwords, password_of
from martlet.users.pools import Pool, Sealer
from martlet.users.rows import Account, Code, Session
from martlet.users.tokens import Issuer

__all__ = ["Tokens", "Users"]

_CODE_DIGITS: Final = 8
_CODE_MS: Final = 900_000
_DAY_MS: Final = 86_400_000
_GROUP: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_TEXT_MOST: Final = 4_096
_PLACES: Final = "users.secret"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a sign-in gives (RFC 6749 section 5.1)."""

    access_token: str
    refresh_token: str
    expires_in: int  # seconds
    token_type: str = "Bearer"


class Users:
    """All pools of one platform. `declare` says which there are; `issuer(app, config)` is what their tokens name."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        vault: Sealer,
        *,
        send: Send,
        say: Callable[[str], None],
        issuer: Callable[[str, UsersConfig], str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._vault = vault
        self._issuer_of = issuer
        self._configs: dict[tuple[str, str], UsersConfig] = {}
        self._pools: dict[tuple[str, str], Pool] = {}
        self._passwords = Passwords()
        self._tokens = Issuer(store, clock, vault)
        self.outbox = Outbox(store, clock, vault, send, self._sender, say)
        self._tries = Pace("users_tries_account", 900, clock)
        self._factors = Pace("users_tries_account", 900, clock)  # of their own: a right password does not forgive these
        self._tries_of_address = Pace("users_tries_address", 900, clock)
        self._codes = Pace("users_codes_account", 3_600, clock)
        self._codes_of_address = Pace("users_codes_address", 3_600, clock)

    def start(self) -> None:
        self.outbox.start()

    async def stop(self) -> None:
        await self.outbox.stop()
        self._passwords.close()

    # --- pools

    def declare(self, configs: Mapping[tuple[str, str], UsersConfig]) -> None:
        """From now on these are the pools, by app and name. Rows of others stay."""
        self._configs = dict(configs)
        self._pools = {}

    def _sender(self, app: str, name: str) -> str:
        config = self._configs.get((app, name))
        return config.sender if config is not None else ""

    async def pool(self, app: str, name: str) -> Pool:
        """Raises `NotFound`."""
        config = self._configs.get((app, name))
        if config is None:
            raise NotFound(f"app {app} declares no users {name!r}")
        known = self._pools.get((app, name))
        if known is None:
            await self._vault.open()
            made = os.urandom(32)

            def ensure(tx: Tx) -> bytes:
                raw = tx.get(rows.secret_row(app, name))
                if raw is None:
                    raw = self._vault.seal(made, app, name, _PLACES)
                    tx.put(rows.secret_row(app, name), raw)
                return raw

            sealed = await self._store.transact(ensure)
            secret = self._vault.unseal(sealed, app, name, _PLACES)
            known = self._pools[app, name] = Pool(app, config, self._issuer_of(app, config), secret)
            await self._tokens.ensure_key(known)
        return known

    def identify(self, app: str, name: str, token: str) -> Caller:
        """Who an access token of this pool speaks for now. Raises `Unauthenticated`."""
        config = self._configs.get((app, name))
        if config is None:
            raise Unauthenticated("the access token is not taken", reason="invalid_token")
        return self._tokens.judge(app, name, self._issuer_of(app, config), token)

    def keys(self, pool: Pool) -> dict[str, Any]:
        """The pool's public keys (RFC 7517)."""
        return self._tokens.key_set(pool.app, pool.config.name)

    def published(self, issuer: str) -> dict[str, Any] | None:
        """The public keys of the pool whose tokens name this issuer; None if there is none."""
        for (app, name), config in self._configs.items():
            if self._issuer_of(app, config) == issuer:
                return self._tokens.key_set(app, name)
        return None

    async def rotate(self, pool: Pool) -> str:
        """Sign by a new key from now on; tokens of the one before hold until they expire. Its kid."""
        return await self._tokens.rotate(pool)

    # --- sign-up and verification

    async def sign_up(self, pool: Pool, email: str, password: str, address: str) -> None:
        """Send a code to the address. An address that has an account is told so by mail, and by nothing else."""
        if pool.config.sign_up == "closed":
            raise AccessDenied("nobody can sign up here", reason="sign_up_closed")
        email = email_of(email)
        password = password_of(password, email)
        self._pace_codes(pool, email, address)
        hashed = await self._passwords.hash(password)
        code, row = self._code(pool, "verify", email)
        invite = self.outbox.prepare(pool, {"kind": "verify", "email": email, "code": code})
        notice = self.outbox.prepare(pool, {"kind": "exists", "email": email})

        def write(tx: Tx) -> None:
            known = rows.account_of(tx, *pool.place, email)
            is_new = known is None
            found = msgspec.structs.replace(row, password=hashed if is_new else "")
            rows.put(tx, found, *pool.place, "verify", email)
            (invite if is_new else notice)(tx, True)

        await self._store.transact(write)
        self.outbox.wake()

    async def verify(self, pool: Pool, email: str, code: str, password: str, address: str) -> Tokens:
        """Make the account of an address, by the code that was sent there and the password of the same sign-up, and sign in.
        Without the password, who signs up with somebody else's address could have its owner verify it. Raises
        `Unauthenticated`."""
        email = email_of(email)
        _check_text(password, "password")
        self._pace_tries(pool, email, address)
        waiting = self._store.read(lambda reader: rows.get(reader, Code, *pool.place, "verify", email))
        hashed = waiting.password if waiting is not None else ""
        fits = await self._passwords.check(hashed, _plain(password, email))
        now = self._clock.now_ms()
        made = Account(id=token_hex(16), email=email, password=hashed, created_at_ms=now)
        session = token_hex(16)

        def write(tx: Tx) -> bool:
            row = self._take_code(tx, pool, "verify", email, code, now)
            if row is None or not fits or row.password != hashed or rows.account_of(tx, *pool.place, email) is not None:
                return False
            rows.put_account(tx, *pool.place, made)
            self._begin(tx, pool, made.id, session, now)
            return True

        if not await self._store.transact(write):
            raise _wrong_code()
        self._tries.forgive(*pool.place, email)
        return await self._grant(pool, made, session, 1)

    # --- sign-in and sessions

    async def sign_in(self, pool: Pool, email: str, password: str, factor: str, address: str) -> Tokens:
        """Raises `Unauthenticated`: one answer for a wrong address, a wrong password and a disabled account, and another
        (`reason` totp_required, totp_wrong) for who has the password."""
        email = email_of(email)
        _check_text(password, "password")
        self._pace_tries(pool, email, address)
        known = self._store.read(lambda reader: rows.account_of(reader, *pool.place, email))
        fits = await self._passwords.check(known.password if known else "", _plain(password, email))
        if not fits or known is None:
            raise _wrong_password()
        if factor:
            self._factors.take(*pool.place, known.id)
        now = self._clock.now_ms()
        session = token_hex(16)
        checked = known

        def write(tx: Tx) -> tuple[Account | None, str]:
            account = rows.get(tx, Account, *pool.place, checked.id)
            if account is None or account.is_disabled or account.password != checked.password:
                return None, ""
            if account.totp:
                after = factors.take(pool, self._vault, account, factor, now) if factor else None
                if after is None:
                    return None, "totp_wrong" if factor else "totp_required"
                account = after
                rows.put(tx, account, *pool.place, account.id)
            self._begin(tx, pool, account.id, session, now)
            return account, ""

        account, why = await self._store.transact(write)
        if account is None:
            raise _wrong_password() if not why else Unauthenticated("a code of the second factor is needed", reason=why)
        self._forgive(pool, account)
        return await self._grant(pool, account, session, 1)

    def _forgive(self, pool: Pool, account: Account) -> None:
        self._tries.forgive(*pool.place, account.email)
        self._factors.forgive(*pool.place, account.id)

    def _begin(self, tx: Tx, pool: Pool, account: str, session: str, now: int) -> None:
        """A new session; of too many the oldest ends."""
        place = (*pool.place, account)
        known = rows.every(tx, Session, *place, limit=LIMITS["users_sessions"].default + 1)
        if len(known) >= LIMITS["users_sessions"].default:
            oldest = min(known, key=lambda one: one[1].expires_at_ms)
            rows.delete(tx, Session, *oldest[0])
        expires = now + LIMITS["users_session_days"].default * _DAY_MS
        rows.put(tx, Session(generation=1, created_at_ms=now, expires_at_ms=expires), *place, session)

    async def _grant(self, pool: Pool, account: Account, session: str, generation: int) -> Tokens:
        return Tokens(
            access_token=await self._tokens.access_token(pool, account, session),
            refresh_token=pool.refresh_token(account.id, session, generation),
            expires_in=LIMITS["users_access_seconds"].default,
        )

    async def refresh(self, pool: Pool, token: str, address: str) -> Tokens:
        """New tokens for a refresh token, which is spent by it. One that was spent before ends its session: either it or its
        successor is in wrong hands. Raises `Unauthenticated`."""
        read = pool.read_refresh(token)
        if read is None:
            self._tries_of_address.take(*pool.place, network_of(address))
            raise _wrong_refresh()
        id, session, generation = read
        now = self._clock.now_ms()

        def write(tx: Tx) -> Account | None:
            place = (*pool.place, id, session)
            row = rows.get(tx, Session, *place)
            account = rows.get(tx, Account, *pool.place, id)
            if row is None or account is None:
                return None
            if account.is_disabled or row.generation != generation or row.expires_at_ms <= now:
                rows.delete(tx, Session, *place)
                return None
            expires = now + LIMITS["users_session_days"].default * _DAY_MS
            rows.put(tx, msgspec.structs.replace(row, generation=generation + 1, expires_at_ms=expires), *place)
            return account

        account = await self._store.transact(write)
        if account is None:
            raise _wrong_refresh()
        return await self._grant(pool, account, session, generation + 1)

    async def sign_out(self, pool: Pool, caller: Caller, *, everywhere: bool = False) -> None:
        """End this session, or all. Their access tokens are refused here at once."""

        def write(tx: Tx) -> None:
            if everywhere:
                rows.end_sessions(tx, *pool.place, caller.sub)
            else:
                rows.delete(tx, Session, *pool.place, caller.sub, caller.session)

        await self._store.transact(write)

    # --- passwords

    async def ask_reset(self, pool: Pool, email: str, address: str) -> None:
        """Send a code to the address, if it has an account. What is done, and how long it takes, does not depend on that."""
        email = email_of(email)
        self._pace_codes(pool, email, address)
        code, row = self._code(pool, "reset", email)
        send = self.outbox.prepare(pool, {"kind": "reset", "email": email, "code": code})

        def write(tx: Tx) -> None:
            known = rows.account_of(tx, *pool.place, email)
            rows.put(tx, msgspec.structs.replace(row, account=known.id if known else ""), *pool.place, "reset", email)
            send(tx, known is not None)

        await self._store.transact(write)
        self.outbox.wake()

    async def reset(self, pool: Pool, email: str, code: str, password: str, address: str) -> None:
        """A new password, by the code that was sent; every session ends. Raises `Unauthenticated`."""
        email = email_of(email)
        password = password_of(password, email)
        self._pace_tries(pool, email, address)
        hashed = await self._passwords.hash(password)
        now = self._clock.now_ms()

        def write(tx: Tx) -> bool:
            row = self._take_code(tx, pool, "reset", email, code, now)
            account = rows.get(tx, Account, *pool.place, row.account) if row is not None and row.account else None
            if account is None or account.email != email:
                return False
            rows.put(tx, msgspec.structs.replace(account, password=hashed), *pool.place, account.id)
            rows.end_sessions(tx, *pool.place, account.id)
            return True

        if not await self._store.transact(write):
            raise _wrong_code()
        self._tries.forgive(*pool.place, email)

    async def change_password(self, pool: Pool, caller: Caller, old: str, new: str, address: str) -> None:
        """Every other session ends. Raises `Unauthenticated` for a wrong old one."""
        account = await self._confirmed(pool, caller, old, address)
        hashed = await self._passwords.hash(password_of(new, account.email))

        def write(tx: Tx, known: Account) -> None:
            rows.put(tx, msgspec.structs.replace(known, password=hashed), *pool.place, known.id)
            rows.end_sessions(tx, *pool.place, known.id, but=caller.session)

        await self._change(pool, account, write)

    async def _confirmed(self, pool: Pool, caller: Caller, password: str, address: str) -> Account:
        """The caller's account, once the password was given again."""
        _check_text(password, "password")
        account = self.account(pool, caller.sub)
        self._pace_tries(pool, account.email, address)
        if not await self._passwords.check(account.password, _plain(password, account.email)):
            raise _wrong_password()
        self._tries.forgive(*pool.place, account.email)
        return account

    async def _change(self, pool: Pool, account: Account, write: Callable[[Tx, Account], Any]) -> Any:
        """Write, if the password is still the one that was confirmed."""

        def checked(tx: Tx) -> tuple[bool, Any]:
            known = rows.get(tx, Account, *pool.place, account.id)
            if known is None or known.password != account.password:
                return False, None
            return True, write(tx, known)

        done, result = await self._store.transact(checked)
        if not done:
            raise _wrong_password()
        return result

    # --- the second factor

    async def begin_totp(self, pool: Pool, caller: Caller, password: str, address: str) -> dict[str, str]:
        """A secret for an authenticator app; it counts once `confirm_totp` has seen a code of it."""
        account = await self._confirmed(pool, caller, password, address)
        secret = os.urandom(factors.SECRET_BYTES)
        sealed = self._vault.seal(secret, *factors.place_of(pool, account.id))

        def write(tx: Tx, known: Account) -> bool:
            if known.totp:
                return False
            rows.put(tx, msgspec.structs.replace(known, totp_pending=sealed), *pool.place, known.id)
            return True

        if not await self._change(pool, account, write):
            raise InvalidInput("there is a second factor already", remedy="remove it first", reason="totp_exists")
        text = base64.b32encode(secret).decode().rstrip("=")
        return {"secret": text, "uri": totp.uri(secret, pool.app, account.email)}

    async def confirm_totp(self, pool: Pool, caller: Caller, code: str) -> list[str]:
        """From now on sign-ins need a code. The recovery codes, each good for one sign-in, shown this once."""
        account = self.account(pool, caller.sub)
        self._factors.take(*pool.place, account.id)
        now = self._clock.now_ms()
        shown = factors.recovery_codes()
        kept = tuple(factors.recovery_digest(pool, account.id, one) for one in shown)

        def write(tx: Tx) -> bool:
            known = rows.get(tx, Account, *pool.place, account.id)
            after = factors.take(pool, self._vault, known, code, now, pending=True) if known else None
            if after is None:
                return False
            after = msgspec.structs.replace(after, totp=after.totp_pending, totp_pending=b"", recovery=kept)
            rows.put(tx, after, *pool.place, after.id)
            return True

        if not await self._store.transact(write):
            raise Unauthenticated("the code is wrong, or was used before", reason="totp_wrong")
        self._factors.forgive(*pool.place, account.id)
        return shown

    async def remove_totp(self, pool: Pool, caller: Caller, password: str, code: str, address: str) -> None:
        """Sign-ins need no second factor any more. It takes the password and a code."""
        account = await self._confirmed(pool, caller, password, address)
        self._factors.take(*pool.place, account.id)
        now = self._clock.now_ms()

        def write(tx: Tx, known: Account) -> bool:
            after = factors.take(pool, self._vault, known, code, now)
            if after is None:
                return False
            rows.put(tx, msgspec.structs.replace(after, totp=b"", recovery=()), *pool.place, known.id)
            return True

        if not await self._change(pool, account, write):
            raise Unauthenticated("the code is wrong, or was used before", reason="totp_wrong")
        self._factors.forgive(*pool.place, account.id)

    # --- the owner of the app

    def account(self, pool: Pool, id: str) -> Account:
        """Raises `NotFound`."""
        found = self._store.read(lambda reader: rows.get(reader, Account, *pool.place, id))
        if found is None:
            raise NotFound("there is no such user")
        return found

    def find(self, pool: Pool, email: str) -> Account:
        """Raises `NotFound`."""
        address = email_of(email)
        found = self._store.read(lambda reader: rows.account_of(reader, *pool.place, address))
        if found is None:
            raise NotFound("there is no such user")
        return found

    def accounts(self, pool: Pool, after: str = "", limit: int = 100) -> list[Account]:
        """In order of their ids."""
        found = self._store.read(lambda reader: rows.every(reader, Account, *pool.place, after=after, limit=limit))
        return [account for _, account in found]

    async def change(
        self, pool: Pool, id: str, *, groups: Sequence[str] | None = None, disabled: bool | None = None
    ) -> Account:
        """Groups or standing of a user. Whoever is disabled is out at once; groups are in the next access token."""
        for group in groups or ():
            if not _GROUP.fullmatch(group):
                raise InvalidInput(f"group {group[:80]!r}: a name has letters, digits and _.:-, 64 at most", field="groups")
        if len(groups or ()) > LIMITS["users_groups"].default:
            raise exceeded("users_groups", len(groups or ()), "a user")

        def write(tx: Tx) -> Account | None:
            known = rows.get(tx, Account, *pool.place, id)
            if known is None:
                return None
            if groups is not None:
                known = msgspec.structs.replace(known, groups=tuple(sorted(set(groups))))
            if disabled is not None:
                known = msgspec.structs.replace(known, is_disabled=disabled)
            rows.put(tx, known, *pool.place, id)
            if disabled:
                rows.end_sessions(tx, *pool.place, id)
            return known

        account = await self._store.transact(write)
        if account is None:
            raise NotFound("there is no such user")
        return account

    async def delete(self, pool: Pool, id: str) -> None:
        """The account with its sessions. Raises `NotFound`."""

        def write(tx: Tx) -> bool:
            known = rows.get(tx, Account, *pool.place, id)
            if known is not None:
                rows.delete_account(tx, *pool.place, known)
                for kind in ("verify", "reset"):
                    rows.delete(tx, Code, *pool.place, kind, known.email)
            return known is not None

        if not await self._store.transact(write):
            raise NotFound("there is no such user")

    async def leave(self, pool: Pool, caller: Caller, password: str, address: str) -> None:
        """A user deletes the own account. Raises `Unauthenticated` for a wrong password."""
        await self._confirmed(pool, caller, password, address)
        await self.delete(pool, caller.sub)

    # --- cursors

    def conceal(self, pool: Pool, text: str, *place: str) -> str:
        """A text that its holder gives back but cannot read, bound to a place."""
        sealed = self._vault.seal(text.encode(), *pool.place, *place, "cursor")
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def reveal(self, pool: Pool, sealed: str, *place: str) -> str:
        """What was concealed. Raises `InvalidInput`."""
        try:
            raw = base64.b64decode(sealed + "=" * (-len(sealed) % 4), altchars=b"-_", validate=True)
            return self._vault.unseal(raw, *pool.place, *place, "cursor").decode()
        except (ValueError, StoreFailed):
            raise InvalidInput("after is no cursor of this list", field="after") from None

    async def expire(self) -> None:
        """Remove codes, sessions and keys that are past their time, some hundreds at a time."""
        await self._tokens.expire()
        now = self._clock.now_ms()
        for kind in (Code, Session):
            after: tuple[str, ...] = ()
            while True:
                place = after
                found = self._store.read(lambda reader, kind=kind, place=place: rows.page(reader, kind, place))  # type: ignore[misc]
                old = [one for one, row in found if row.expires_at_ms <= now]
                if old:
                    await self._store.transact(lambda tx, kind=kind, old=old: _delete_old(tx, kind, old, now))  # type: ignore[misc]
                if len(found) < rows.PAGE:
                    break
                after = found[-1][0]

    # --- codes and pace

    def _pace_tries(self, pool: Pool, email: str, address: str) -> None:
        self._tries_of_address.take(*pool.place, network_of(address))
        self._tries.take(*pool.place, email)

    def _pace_codes(self, pool: Pool, email: str, address: str) -> None:
        self._codes_of_address.take(*pool.place, network_of(address))
        self._codes.take(*pool.place, email)

    def _code(self, pool: Pool, kind: str, email: str) -> tuple[str, Code]:
        code = f"{int.from_bytes(os.urandom(16), 'big') % 10**_CODE_DIGITS:0{_CODE_DIGITS}}"
        tries = LIMITS["users_code_tries"].default
        digest = pool.digest("code", kind, email, code)
        return code, Code(digest=digest, expires_at_ms=self._clock.now_ms() + _CODE_MS, tries=tries)

    def _take_code(self, tx: Tx, pool: Pool, kind: str, email: str, code: str, now: int) -> Code | None:
        """The row of a code that fits, which is spent by that; a wrong one costs one of its tries."""
        place = (*pool.place, kind, email)
        row = rows.get(tx, Code, *place)
        if row is None:
            return None
        fits = hmac.compare_digest(row.digest, pool.digest("code", kind, email, code.strip()[:64]))
        if fits or row.tries <= 1 or row.expires_at_ms <= now:
            rows.delete(tx, Code, *place)
        else:
            rows.put(tx, msgspec.structs.replace(row, tries=row.tries - 1), *place)
        return row if fits and row.expires_at_ms > now else None


def _delete_old(tx: Tx, kind: Any, places: list[tuple[str, ...]], now: int) -> None:
    for place in places:
        row: Any = rows.get(tx, kind, *place)
        if row is not None and row.expires_at_ms <= now:
            rows.delete(tx, kind, *place)


def _check_text(text: str, field: str) -> None:
    if len(text) > _TEXT_MOST:
        raise InvalidInput(f"{field} has at most {_TEXT_MOST} characters", field=field)


def _plain(password: str, email: str) -> str:
    """A password as it would have been hashed; what can be none is checked as "", at the same price."""
    try:
        return password_of(password, email)
    except InvalidInput:
        return ""


def _wrong_password() -> Unauthenticated:
    return Unauthenticated("the e-mail address or the password is wrong", reason="invalid_credentials")


def _wrong_code() -> Unauthenticated:
    return Unauthenticated("the code is wrong, or was used, or is too old", reason="invalid_code")


def _wrong_refresh() -> Unauthenticated:
    return Unauthenticated("the refresh token is not taken: sign in again", reason="invalid_grant")
