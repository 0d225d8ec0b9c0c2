"""AWS Signature Version 2 as S3 has it: boto3 still signs presigned URLs and forms of us-east-1 with it. Pure.

Source: S3 user guide, "Signing and authenticating REST requests (AWS signature version 2)". A signature in an Authorization
header is not taken: no client of today sends one.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from martlet.auth.sigv4 import refused

__all__ = ["QueryClaim", "claim_of", "policy_signature", "verify"]

_SUBRESOURCES: Final = frozenset(
    {
        *("accelerate", "acl", "analytics", "cors", "delete", "encryption", "inventory", "legal-hold", "lifecycle", "location"),
        *("logging", "metrics", "notification", "object-lock", "ownershipControls", "partNumber", "policy", "policyStatus"),
        *("publicAccessBlock", "replication", "requestPayment", "response-cache-control", "response-content-disposition"),
        *("response-content-encoding", "response-content-language", "response-content-type", "response-expires", "restore"),
        *("retention", "select", "select-type", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning"),
        *("versions", "website", "attributes"),
    }
)
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)


class QueryClaim(msgspec.Struct, frozen=True):
    """What a presigned URL says about its signature."""

    access_key_id: str
    signature: str
    expires: str  # epoch seconds
    session_token: str


def claim_of(query: bytes) -> QueryClaim | None:
    """The signature of a presigned URL, or None if it carries none of this version. Raises `Unauthenticated`."""
    if b"AWSAccessKeyId=" not in query and b"Signature=" not in query:
        return None
    found = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    names = ("Signature", "Expires", "AWSAccessKeyId")
    if not any(name in found for name in names) or "X-Amz-Signature" in found:
        return None
    if any(not found.get(name) for name in names):
        raise refused(
            "AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"
        )
    return QueryClaim(found["AWSAccessKeyId"], found["Signature"], found["Expires"], found.get("x-amz-security-token", ""))


def verify(
    claim: QueryClaim, secret: str, now_ms: int, method: str, path: bytes, query: bytes, headers: Mapping[str, str]
) -> None:
    """Check time and signature. `path`: with the bucket, also where the host names it; `headers` by lower-case name."""
    if not claim.expires.isdigit() or len(claim.expires) > 15:
        raise refused("AccessDenied", "Invalid date (should be seconds since epoch)")
    if int(claim.expires) * 1000 < now_ms:
        raise refused("RequestExpired", "Request has expired", expires=claim.expires)
    text = _string_to_sign(claim, method, path, query, headers)
    expected = _digest(secret, text)
    if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
        raise refused("SignatureDoesNotMatch", _MISMATCH, string_to_sign=text, provided=claim.signature)


def policy_signature(secret: str, policy: str) -> str:
    """The signature of a POST policy, as it is in the form (Base64)."""
    return _digest(secret, policy)


def _string_to_sign(claim: QueryClaim, method: str, path: bytes, query: bytes, headers: Mapping[str, str]) -> str:
    own = {name: " ".join(value.split()) for name, value in headers.items() if name.startswith("x-amz-")}
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    own |= {name.lower(): value for name, value in pairs if name.lower().startswith("x-amz-")}
    lines = [method, headers.get("content-md5", ""), headers.get("content-type", ""), claim.expires]
    lines += [f"{name}:{own[name]}" for name in sorted(own)]
    shown = sorted((name, value) for name, value in pairs if name in _SUBRESOURCES)
    resource = path.decode("latin-1")
    if shown:
        resource += "?" + "&".join(f"{name}={value}" if value else name for name, value in shown)
    return "\n".join([*lines, resource])


def _digest(secret: str, text: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode("utf-8", "replace"), "sha1")).decode()
