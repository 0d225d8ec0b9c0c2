"""Receipt handles: where a received message is and which receive it was, signed, so that nobody can make one up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final

import msgspec

__all__ = ["Receipt", "Receipts"]

_FORM = struct.Struct(">BQQQQI")
_VERSION: Final = 1
_MAC_BYTES: Final = 11  # with the form 48 bytes: no padding that could vary


class Receipt(msgspec.Struct, frozen=True):
    """What a handle says. `receives` is the number of times the message had been received by then, this time included."""

    queue: int
    heap: int
    sent_at_ms: int
    seq: int
    receives: int


class Receipts:
    """Makes and reads handles. `key`: 32 secret bytes, the same for all time."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def handle(self, receipt: Receipt) -> str:
        place = (receipt.queue, receipt.heap, receipt.sent_at_ms, receipt.seq)
        raw = _FORM.pack(_VERSION, *place, receipt.receives & 0xFFFFFFFF)
        return base64.b64encode(raw + self._mac(raw)).decode()

    def read(self, handle: str) -> Receipt | None:
        """What the handle says; None if it is none of ours."""
        try:
            raw = base64.b64decode(handle.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(raw) != _FORM.size + _MAC_BYTES or raw[0] != _VERSION:
            return None
        said, mac = raw[: _FORM.size], raw[_FORM.size :]
        if not hmac.compare_digest(mac, self._mac(said)):
            return None
        return Receipt(*_FORM.unpack(said)[1:])

    def _mac(self, raw: bytes) -> bytes:
        return hashlib.blake2b(raw, key=self._key, digest_size=_MAC_BYTES, person=b"martlet.receipt").digest()
