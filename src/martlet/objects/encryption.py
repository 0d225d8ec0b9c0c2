"""What requests say of encryption: SSE-S3, which everything has, and SSE-C, with a key that only the client keeps. Pure.

Keys of KMS are refused by name: there is no KMS here.
Source: S3 user guide, "Using server-side encryption with customer-provided keys (SSE-C)"; recorded answers for texts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.objects.failures import access_denied, invalid_argument, invalid_request, not_implemented
from martlet.objects.rows import Bucket, Version

__all__ = ["CLIENTS", "ROOMS", "Encryption", "no_key", "of_reader", "of_request", "of_source"]

ROOMS: Final = "AES256"
CLIENTS: Final = "C"
_HEADER: Final = "x-amz-server-side-encryption"
_MPU: Final = (
    "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption "
    "parameters."
)


class Encryption(msgspec.Struct, frozen=True):
    """How a request wants bytes encrypted, or how it reads them. `key` None: under the room's key."""

    key: bytes | None = None
    key_md5: str = ""

    @property
    def kind(self) -> str:
        return CLIENTS if self.key else ROOMS

    def mark(self, version: Version) -> Version:
        """The version says how it is encrypted."""
        return msgspec.structs.replace(version, encryption=self.kind, key_check=self._check(os.urandom(16)) if self.key else "")

    def _check(self, salt: bytes) -> str:
        return (salt + hmac.digest(self.key or b"", salt, "sha256")).hex()

    def etag(self, md5: bytes, blob: str) -> str:
        """An ETag that tells nothing of what a client's key encrypts."""
        return md5.hex() if self.key is None else hmac.digest(self.key, blob.encode() + md5, "sha256")[:16].hex()

    def unlock(self, version: Version) -> bytes | None:
        """The key that reads the version. Raises InvalidRequest, AccessDenied where it is none, or another one."""
        if version.encryption != CLIENTS:
            if self.key is not None and not version.marker:
                raise invalid_request("The encryption parameters are not applicable to this object.")
            return None
        if self.key is None:
            raise _needs_key()
        if not self._is_same(version.key_check):
            raise _wrong_key()
        return self.key

    def _is_same(self, check: str) -> bool:
        return hmac.compare_digest(check, self._check(bytes.fromhex(check)[:16]))

    def demand_same(self, template: Version) -> None:
        """Parts are encrypted as their upload was begun. Raises InvalidRequest."""
        if (template.encryption == CLIENTS) != (self.key is not None):
            raise invalid_request(_MPU)
        if self.key is not None and not self._is_same(template.key_check):
            raise invalid_request("The provided encryption parameters did not match the ones used originally.")

    def check_bucket(self, bucket: Bucket) -> None:
        """Raises AccessDenied where the bucket takes nothing that clients encrypt."""
        rules = (bucket.settings.get("encryption") or {}).get("Rules") or [{}]
        blocked = (rules[0].get("BlockedEncryptionTypes") or {}).get("EncryptionType") or []
        if self.key is not None and "SSE-C" in blocked:
            raise access_denied("The bucket does not allow server-side encryption with customer-provided keys (SSE-C).")

    def shown(self, version: Version) -> dict[str, Any]:
        """Members of an answer about the version."""
        if version.encryption != CLIENTS:
            return {"ServerSideEncryption": version.encryption or None}
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKeyMD5": self.key_md5} if self.key_md5 else {}


def no_key(version: Version) -> bytes | None:
    """Unlocks what is under the room's key. Raises InvalidRequest for the rest."""
    return Encryption().unlock(version)


def _needs_key() -> ServiceError:
    return invalid_request(
        "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the "
        "object."
    )


def _wrong_key() -> ServiceError:
    return access_denied(
        "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret key."
    )


def of_reader(request: Mapping[str, Any]) -> Encryption:
    """`of_request` of a request that reads: without its digest no key is the right one."""
    algorithm, key, md5 = (request.get(f"SSECustomer{name}") for name in ("Algorithm", "Key", "KeyMD5"))
    if algorithm == "AES256" and key is not None and md5 is None:
        raise _wrong_key()
    return of_request(request)


def of_request(request: Mapping[str, Any]) -> Encryption:
    """What a request to write or read asks for. Raises InvalidArgument, InvalidEncryptionAlgorithmError, NotImplemented."""
    asked = request.get("ServerSideEncryption")
    if asked in ("aws:kms", "aws:kms:dsse", "aws:fsx") or (request.get("SSEKMSKeyId") is not None and asked != ROOMS):
        if request.get("SSECustomerAlgorithm") is not None:
            raise _both(asked)
        raise not_implemented(f"encryption with {asked or 'keys of KMS'}")
    if asked not in (None, ROOMS):
        raise invalid_argument("The encryption method specified is not supported", _HEADER, asked)
    if request.get("SSEKMSKeyId") is not None:
        text = "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
        raise invalid_argument(text, _HEADER, asked)
    if asked is not None and request.get("SSECustomerAlgorithm") is not None:
        raise _both(asked)
    return _of(request, "")


def of_source(request: Mapping[str, Any]) -> Encryption:
    """What a copy says of what it reads."""
    return _of(request, "CopySource")


def _both(asked: Any) -> ServiceError:
    text = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified"
    return invalid_argument(text, _HEADER, asked)


def _of(request: Mapping[str, Any], prefix: str) -> Encryption:
    algorithm, text, md5 = (request.get(f"{prefix}SSECustomer{name}") for name in ("Algorithm", "Key", "KeyMD5"))
    if algorithm is None and text is None and md5 is None:
        return Encryption()
    says = "Requests specifying Server Side Encryption with Customer provided keys must provide"
    if algorithm is not None and algorithm != "AES256":
        wrong = "The Encryption request you specified is not valid. Supported value: AES256."
        raise ServiceError("InvalidEncryptionAlgorithmError", wrong, 400, ArgumentName=_HEADER, ArgumentValue=algorithm)
    if algorithm is None:
        raise invalid_argument(f"{says} a valid encryption algorithm.", _HEADER)
    if text is None:
        raise invalid_argument(f"{says} an appropriate secret key.", _HEADER)
    key = _decoded(text)
    if md5 is None or len(key) != 32:
        raise invalid_argument("The secret key was invalid for the specified algorithm.", _HEADER)
    if not hmac.compare_digest(_decoded(md5), hashlib.md5(key, usedforsecurity=False).digest()):
        raise invalid_argument("The calculated MD5 hash of the key did not match the hash that was provided.", _HEADER)
    return Encryption(key, str(md5))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
