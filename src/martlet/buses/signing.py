"""Signatures of what topics send: an RSA key and a certificate of the platform's own, made once and kept in the store.

`cryptography` is loaded when the first message is signed: a platform without topics does not carry it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from martlet.clock import Clock
from martlet.store import Store, Tx, keys

__all__ = ["Signer"]

_ROW: Final = keys.encode("buses.signer")
_BITS: Final = 2_048
_YEARS: Final = 20


class _Kept(msgspec.Struct, frozen=True):
    key: bytes  # PEM
    certificate: bytes  # PEM


class Signer:
    """Signs bytes. `endpoint()` is where the certificate can be had: "http://host:port"."""

    def __init__(self, store: Store, clock: Clock, endpoint: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._endpoint = endpoint
        self._key: Any = None
        self._certificate = b""
        self._name = ""

    async def open(self) -> None:
        """Read the key, or make it. Call it before the first message goes out; it takes a moment once."""
        if self._key is not None:
            return
        raw = self._store.read(lambda reader: reader.get(_ROW))
        if raw is None:
            made = msgspec.msgpack.encode(await asyncio.to_thread(_made, self._clock.now_ms()))

            def keep(tx: Tx) -> bytes:
                found = tx.get(_ROW)
                if found is None:
                    tx.put(_ROW, made)
                return found or made

            raw = await self._store.transact(keep)
        self._load(raw)

    def _load(self, raw: bytes) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        kept = msgspec.msgpack.decode(raw, type=_Kept)
        self._certificate = kept.certificate
        self._name = f"SimpleNotificationService-{hashlib.sha256(kept.certificate).hexdigest()[:32]}.pem"
        self._key = load_pem_private_key(kept.key, None)

    def certificate(self, name: str) -> bytes | None:
        """The certificate by the name it is served under, as PEM."""
        if self._key is None:
            raw = self._store.read(lambda reader: reader.get(_ROW))
            if raw is None:
                return None
            self._load(raw)
        return self._certificate if name == self._name else None

    def signed(self, text: bytes, version: str) -> dict[str, str]:
        """The members that say so. `version` "1": SHA-1, "2": SHA-256."""
        if self._key is None:  # another process made it: there is none without a topic
            self._load(self._store.read(lambda reader: reader.get(_ROW)) or b"")
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()
        signature = base64.b64encode(self._key.sign(text, PKCS1v15(), algorithm)).decode()
        url = f"{self._endpoint()}/{self._name}"
        return {"SignatureVersion": version, "Signature": signature, "SigningCertURL": url}


def _made(now_ms: int) -> _Kept:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65_537, key_size=_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.martlet.internal")])
    begins = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=365 * _YEARS))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _Kept(pem, certificate.public_bytes(Encoding.PEM))
