"""The second factor of an account: which codes it takes, each once. Pure but for the vault, which opens the secret."""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from martlet.clock import token_hex
from martlet.users import totp
from martlet.users.pools import Pool, Sealer
from martlet.users.rows import Account

__all__ = ["RECOVERY_CODES", "SECRET_BYTES", "place_of", "recovery_codes", "recovery_digest", "take"]

RECOVERY_CODES: Final = 10
SECRET_BYTES: Final = 20  # RFC 4226 section 4: 160 bits
_CODE_MOST: Final = 64


def place_of(pool: Pool, account: str) -> tuple[str, ...]:
    """What a sealed secret is bound to."""
    return (*pool.place, account, "totp")


def recovery_codes() -> list[str]:
    """New ones, 64 bits each: "1a2b3c4d-5e6f7a8b"."""
    return [f"{token_hex(4)}-{token_hex(4)}" for _ in range(RECOVERY_CODES)]


def recovery_digest(pool: Pool, account: str, code: str) -> bytes:
    return pool.digest("recovery", account, code.strip().lower())


def take(pool: Pool, vault: Sealer, account: Account, code: str, now_ms: int, *, pending: bool = False) -> Account | None:
    """The account after this code was used, or None if it is not taken: wrong, or used before."""
    sealed = account.totp_pending if pending else account.totp
    if not sealed or len(code) > _CODE_MOST:
        return None
    secret = vault.unseal(sealed, *place_of(pool, account.id))
    step = totp.matching_step(secret, code, now_ms, account.totp_step)
    if step is not None:
        return msgspec.structs.replace(account, totp_step=step)
    digest = recovery_digest(pool, account.id, code)
    left = tuple(one for one in account.recovery if not hmac.compare_digest(one, digest))
    if pending or len(left) == len(account.recovery):
        return None
    return msgspec.structs.replace(account, recovery=left)
