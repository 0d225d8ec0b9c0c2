"""Bytes at rest are encrypted: AES-256-GCM in pieces of 256 KiB, each blob under a key of its own.

A blob's key is the HMAC-SHA256 of its id under the room's key (SSE-S3) or under the client's (SSE-C), which is never kept.
A blob is written once and its id is never used again, so the number of a piece is its nonce. The room's key is a row of the
store, sealed by the platform's vault; it is made with the first blob.

Source: NIST SP 800-38D section 8.2.1 (deterministic nonces), SP 800-108 (keys from keys); S3 user guide, "Protecting data with
encryption".
"""

from __future__ import annotations

import asyncio
import hmac
import os
from typing import Any, Final, Protocol

from martlet.store import Store, Tx, keys

__all__ = ["PIECE_BYTES", "SEALED_BYTES", "RoomKey", "Seal", "Vault"]

PIECE_BYTES: Final = 262_144
SEALED_BYTES: Final = PIECE_BYTES + 16  # with its tag
_KEY: Final = "s3.key"
_PLACE: Final = ("objects", "key")


class Vault(Protocol):
    """What seals the room's key."""

    async def open(self) -> None: ...
    def seal(self, value: bytes, *place: str) -> bytes: ...
    def unseal(self, sealed: bytes, *place: str) -> bytes: ...


class RoomKey:
    """The key of everything that no client's key encrypts. Read, or made, when it is first asked for."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._key = b""
        self._opening = asyncio.Lock()

    async def get(self) -> bytes:
        """Raises `StartFailed`, `StoreFailed` where the platform's own key is not there, or another one."""
        if not self._key:
            async with self._opening:
                if not self._key:
                    await self._vault.open()
                    self._key = await self._store.transact(self._load)
        return self._key

    def _load(self, tx: Tx) -> bytes:
        row = keys.encode(_KEY)
        sealed = tx.get(row)
        if sealed is not None:
            return self._vault.unseal(sealed, *_PLACE)
        made = os.urandom(32)
        tx.put(row, self._vault.seal(made, *_PLACE))
        return made


class Seal:
    """What encrypts and decrypts one blob."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes, id: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # imported with the first blob: 10 MB

        self._cipher: Any = AESGCM(hmac.digest(key, id.encode(), "sha256"))

    def seal(self, first: int, data: bytes) -> bytes:
        """These bytes, piece by piece; `first`: the number of the first one. All pieces but the last of a blob are full."""
        if len(data) <= PIECE_BYTES:
            sealed: bytes = self._cipher.encrypt(first.to_bytes(12, "big"), data, None)
            return sealed
        view = memoryview(data)
        starts = range(0, len(data), PIECE_BYTES)
        return b"".join(
            self._cipher.encrypt((first + number).to_bytes(12, "big"), view[at : at + PIECE_BYTES], None)
            for number, at in enumerate(starts)
        )

    def unseal(self, number: int, sealed: bytes) -> bytes:
        """One piece. Raises `OSError` for what was not sealed so: changed, cut short, or from another place."""
        from cryptography.exceptions import InvalidTag

        try:
            data: bytes = self._cipher.decrypt(number.to_bytes(12, "big"), sealed, None)
        except InvalidTag:
            raise OSError("it was changed, or is not all there") from None
        return data
