"""AWS Signature Version 4, the verifying side: in an Authorization header or in the query of a presigned URL. Pure.

Sources: IAM user guide, "Create a signed AWS API request"; S3 API reference, "Authenticating Requests (AWS Signature
Version 4)". Where those leave room, the stricter reading holds: two requests that a room could tell apart never share a
signature. Hence a path with dot segments or empty segments is refused (their normal form is signed, but routers see the
raw one), and "+" in a query means a space, as it does to those who read the query.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote, unquote_to_bytes

import msgspec

from martlet.errors import Unauthenticated, Unsupported

__all__ = [
    "ALGORITHM",
    "STREAMING",
    "ChunkSigner",
    "Claim",
    "Fields",
    "Headers",
    "claim_of",
    "fields_of",
    "policy_signature",
    "presigned_query",
    "verify",
]

Headers = Sequence[tuple[bytes, bytes]]
Fields: TypeAlias = dict[str, list[bytes]]

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_SECONDS: Final = 15 * 60
EXPIRES_SECONDS_MAX: Final = 7 * 24 * 3600
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
# Bodies in chunks (aws-chunked), which S3 takes; the first and the second are signed chunk by chunk.
STREAMING: Final = (
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
)
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and "
    "signing method. Consult the service documentation for details."
)
_SHOWN_BYTES: Final = 16_384
_PLAIN_PATH: Final = re.compile(rb"[A-Za-z0-9/._~-]+")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_]{3,128}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_QUERY_NAMES: Final = frozenset(
    {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"}
)


class Claim(msgspec.Struct, frozen=True):
    """What a request says about its signature, before anything of it is believed. `expires_seconds` None: in a header."""

    access_key_id: str
    date: str  # YYYYMMDD
    region: str
    service: str
    timestamp: str  # YYYYMMDDTHHMMSSZ
    signed_headers: tuple[str, ...]
    signature: str
    session_token: str
    expires_seconds: int | None


def refused(reason: str, message: str, **details: str) -> Unauthenticated:
    """The error of a request that is not believed. `reason` is AWS's error code for it."""
    return Unauthenticated(message, reason=reason, **details)


def fields_of(headers: Headers) -> Fields:
    """Values by lower-case name, in the order they came."""
    fields: Fields = {}
    for key, value in headers:
        name = _field_name(key)
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    return fields


@lru_cache(maxsize=1024)
def _field_name(raw: bytes) -> str:
    return raw.lower().decode("latin-1")


def claim_of(query: bytes, fields: Fields, authorization: str) -> Claim | None:
    """The signature that a request claims to carry, or None if it carries none. Raises `Unauthenticated` if malformed."""
    pairs = query_pairs(query)
    in_query = any(name in _QUERY_NAMES for name, _ in pairs)
    in_header = authorization.startswith(ALGORITHM)
    if in_query and authorization:
        raise refused("IncompleteSignature", "the request is signed both in its query and in its Authorization header")
    if in_query:
        return _claim_from_query(pairs)
    return _claim_from_header(fields, authorization) if in_header else None


def verify(
    claim: Claim, secret: str, now_ms: int, method: str, path: bytes, query: bytes, fields: Fields, body: bytes | None
) -> str:
    """Check time, signed headers, signature and body against `claim`. Raises `Unauthenticated` naming what failed.

    `body` None: it is still to come, and the caller checks it against what is returned: the x-amz-content-sha256 that was
    signed, which may then also be one of S3's STREAMING- forms."""
    _check_time(claim, now_ms)
    _check_signed_headers(claim, fields)
    declared = _payload_hash(claim, fields, streams=body is None)
    digest = "" if declared == _UNSIGNED or body is None else hashlib.sha256(body).hexdigest()
    request = _canonical_request(claim, method, path, query, fields, declared or digest)
    scope = f"{claim.date}/{claim.region}/{claim.service}/aws4_request"
    text = "\n".join((ALGORITHM, claim.timestamp, scope, hashlib.sha256(request).hexdigest()))
    key = _signing_key(secret, claim.date, claim.region, claim.service)
    expected = hmac.digest(key, text.encode(), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        raise refused("SignatureDoesNotMatch", _MISMATCH, canonical_request=_shown(request), string_to_sign=text)
    if declared and digest and not hmac.compare_digest(declared, digest):
        raise refused("XAmzContentSHA256Mismatch", "x-amz-content-sha256 does not match the body")
    return declared


class ChunkSigner:
    """The signatures of a body's chunks, each over the one before it. S3 API reference, "Signature Calculations for the
    Authorization Header: Transferring Payload in Multiple Chunks"."""

    def __init__(self, claim: Claim, secret: str) -> None:
        self._key = _signing_key(secret, claim.date, claim.region, claim.service)
        self._scope = f"{claim.timestamp}\n{claim.date}/{claim.region}/{claim.service}/aws4_request"
        self._previous = claim.signature

    def check(self, digest: str, signature: str) -> bool:
        """Whether the next chunk, of this SHA-256, has this signature."""
        text = f"{ALGORITHM}-PAYLOAD\n{self._scope}\n{self._previous}\n{_EMPTY}\n{digest}"
        return self._matches(text, signature)

    def check_trailer(self, digest: str, signature: str) -> bool:
        """Whether the trailer, of this SHA-256, has this signature."""
        return self._matches(f"{ALGORITHM}-TRAILER\n{self._scope}\n{self._previous}\n{digest}", signature)

    def _matches(self, text: str, signature: str) -> bool:
        self._previous = hmac.digest(self._key, text.encode(), "sha256").hex()
        return hmac.compare_digest(self._previous.encode(), signature.encode())


def presigned_query(
    key_id: str, secret: str, token: str, *, region: str, now_ms: int, seconds: int, method: str, host: str, path: str
) -> str:
    """The query of an S3 URL that whoever has it may use for so long. `path` as it is sent."""
    timestamp = _basic_form(now_ms / 1000)
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    pairs = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{key_id}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-Security-Token": token,
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(pairs.items()))
    request = "\n".join((method, path, query, f"host:{host}", "", "host", _UNSIGNED))
    text = "\n".join((ALGORITHM, timestamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = _signing_key(secret, timestamp[:8], region, "s3")
    return f"{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"


def policy_signature(secret: str, date: str, region: str, service: str, policy: str) -> str:
    """The signature of a POST policy, as it is in the form (Base64)."""
    return hmac.digest(_signing_key(secret, date, region, service), policy.encode(), "sha256").hex()


def _canonical_request(claim: Claim, method: str, path: bytes, query: bytes, fields: Fields, payload: str) -> bytes:
    """The bytes whose hash is signed."""
    return b"\n".join(
        (
            method.upper().encode(),
            path if path == b"/" else _canonical_path(claim.service, path),
            _canonical_query(query) if query else b"",
            *[prefix + _canonical_value(fields[name]) for name, prefix in _prefixes(claim.signed_headers)],
            b"",
            ";".join(claim.signed_headers).encode(),
            payload.encode(),
        )
    )


@lru_cache(maxsize=64)
def _prefixes(names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    return [(name, name.encode() + b":") for name in names]


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """Decoded names and values; "+" is a space. Undecodable UTF-8 keeps its bytes as surrogates."""
    if not query:
        return []
    if re.search(rb"%(?![0-9A-Fa-f]{2})", query):
        raise refused("IncompleteSignature", "the query holds a % that is not followed by two hexadecimal digits")
    pairs = []
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((_decoded(name), _decoded(value)))
    return pairs


def _decoded(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "surrogateescape")


def _encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe="-_.~")


def _canonical_query(query: bytes) -> bytes:
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in query_pairs(query) if name != "X-Amz-Signature")
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


def _canonical_path(service: str, path: bytes) -> bytes:
    """S3: the path as sent. Others: encoded once more, and in normal form."""
    if service == "s3":
        return path or b"/"
    first, *segments = path.split(b"/")
    if first or any(segment in (b".", b"..") for segment in segments) or b"" in segments[:-1]:
        raise refused("IncompleteSignature", "a signed path must begin with / and hold no empty segments, '.' or '..'")
    return path if _PLAIN_PATH.fullmatch(path) else quote(path or b"/", safe="/~").encode()


def _canonical_value(values: list[bytes]) -> bytes:
    if len(values) == 1:
        return b" ".join(values[0].split())
    return b",".join([b" ".join(value.split()) for value in values])


def _single_header(fields: Fields, name: str) -> str:
    values = fields.get(name, ())
    if len(values) > 1:
        raise refused("IncompleteSignature", f"header {name} must appear once")
    return values[0].strip().decode("latin-1") if values else ""


def _claim_from_header(fields: Fields, authorization: str) -> Claim:
    before, comma, signature = authorization.rpartition(", Signature=")  # last, as every SDK has it: the rest repeats
    if comma and "," not in signature:
        credential, signed = _parts_of(before, 2)
    else:
        credential, signed, signature = _parts_of(authorization, 3)
    timestamp = _single_header(fields, "x-amz-date")
    if not timestamp:
        timestamp = _from_http_date(_single_header(fields, "date"))
        if "date" not in signed.split(";"):
            raise refused("IncompleteSignature", "neither x-amz-date nor a signed Date header is there")
    token = _single_header(fields, "x-amz-security-token")
    return _claim(credential, timestamp, signed, signature, token, None)


@lru_cache(maxsize=256)
def _parts_of(authorization: str, count: int) -> tuple[str, ...]:
    """The first `count` of Credential, SignedHeaders and Signature, each there once and nothing else."""
    found: dict[str, str] = {}
    names = ("Credential", "SignedHeaders", "Signature")[:count]
    for part in authorization.removeprefix(ALGORITHM).split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in found or name not in names:
            break
        found[name] = value
    else:
        if len(found) == count:
            return tuple(found[name] for name in names)
    raise refused("IncompleteSignature", "the Authorization header must hold Credential, SignedHeaders and Signature once")


def _claim_from_query(pairs: list[tuple[str, str]]) -> Claim:
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in _QUERY_NAMES or name == "X-Amz-Security-Token":
            if name in fields:
                raise refused("IncompleteSignature", f"query parameter {name} must appear once")
            fields[name] = value
    for name in sorted(_QUERY_NAMES):
        if name not in fields:
            raise refused("IncompleteSignature", f"query parameter {name} is missing")
    if fields["X-Amz-Algorithm"] != ALGORITHM:
        raise refused("IncompleteSignature", f"X-Amz-Algorithm must be {ALGORITHM}")
    expires = fields["X-Amz-Expires"]
    if not re.fullmatch(r"[0-9]{1,6}", expires, re.ASCII) or not 1 <= int(expires) <= EXPIRES_SECONDS_MAX:
        raise refused("IncompleteSignature", f"X-Amz-Expires must be 1 to {EXPIRES_SECONDS_MAX} seconds")
    return _claim(
        fields["X-Amz-Credential"],
        fields["X-Amz-Date"],
        fields["X-Amz-SignedHeaders"],
        fields["X-Amz-Signature"],
        fields.get("X-Amz-Security-Token", ""),
        int(expires),
    )


def _claim(credential: str, timestamp: str, signed: str, signature: str, token: str, expires: int | None) -> Claim:
    parts = _scope_of(credential)
    if not _TIMESTAMP.fullmatch(timestamp):
        raise refused("IncompleteSignature", "the date must have the form YYYYMMDDTHHMMSSZ")
    if parts[1] != timestamp[:8]:
        raise refused("SignatureDoesNotMatch", "the date of the credential scope is not the date of the request")
    if not _DIGEST.fullmatch(signature):
        raise refused("IncompleteSignature", "Signature must be 64 lower-case hexadecimal digits")
    names = _signed_names(signed)
    if names is None:
        raise refused("IncompleteSignature", "SignedHeaders must be lower-case header names, sorted, each once")
    return Claim(parts[0], parts[1], parts[2], parts[3], timestamp, names, signature, token, expires)


@lru_cache(maxsize=256)
def _scope_of(credential: str) -> tuple[str, ...]:
    """(key id, date, region, service, "aws4_request")"""
    parts = tuple(credential.split("/"))
    if len(parts) != 5 or not all(parts) or parts[4] != "aws4_request":
        raise refused("IncompleteSignature", "Credential must be key/date/region/service/aws4_request")
    if not _KEY_ID.fullmatch(parts[0]):
        raise refused("InvalidClientTokenId", "the access key id is not known")
    return parts


@lru_cache(maxsize=64)
def _signed_names(signed: str) -> tuple[str, ...] | None:
    """The names in a SignedHeaders, which clients repeat; None if it is not as it must be."""
    names = tuple(signed.split(";"))
    right = list(names) == sorted(set(names)) and all(re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name) for name in names)
    return names if right else None


def _from_http_date(text: str) -> str:
    if _TIMESTAMP.fullmatch(text):
        return text
    try:
        return parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, OverflowError) as error:
        raise refused("IncompleteSignature", "neither x-amz-date nor a readable Date header is there") from error


def _check_time(claim: Claim, now_ms: int) -> None:
    try:
        signed_at = _epoch_seconds(claim.timestamp)
    except ValueError as error:
        raise refused("IncompleteSignature", "the date is not a date") from error
    age = now_ms / 1000 - signed_at
    if -SKEW_SECONDS <= age <= SKEW_SECONDS and claim.expires_seconds is None:
        return
    now, minutes = _basic_form(now_ms / 1000), SKEW_SECONDS // 60
    if age < -SKEW_SECONDS:
        edge = f"{_basic_form(now_ms / 1000 + SKEW_SECONDS)} ({now} + {minutes} min.)"
        raise refused("RequestTimeTooSkewed", f"Signature not yet current: {claim.timestamp} is still later than {edge}")
    if claim.expires_seconds is None:
        if age > SKEW_SECONDS:
            edge = f"{_basic_form(now_ms / 1000 - SKEW_SECONDS)} ({now} - {minutes} min.)"
            raise refused("RequestTimeTooSkewed", f"Signature expired: {claim.timestamp} is now earlier than {edge}")
    elif age > claim.expires_seconds:
        raise refused("RequestExpired", "Request has expired")


@lru_cache(maxsize=64)
def _epoch_seconds(timestamp: str) -> float:
    """Of ISO 8601's basic form. Many requests are signed in one second. Raises `ValueError`."""
    return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _basic_form(seconds: float) -> str:
    """Epoch seconds in ISO 8601's basic form, as signatures have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def _shown(request: bytes) -> str:
    """The canonical request as an error repeats it: all of it is the client's own. A session token is left out."""
    lines = request[:_SHOWN_BYTES].split(b"\n")
    token = b"x-amz-security-token:"
    return b"\n".join(token + b"..." if line.startswith(token) else line for line in lines).decode("utf-8", "replace")


def _check_signed_headers(claim: Claim, fields: Fields) -> None:
    if "host" not in claim.signed_headers:
        raise refused("IncompleteSignature", "the host header must be signed")
    for name in claim.signed_headers:
        if name not in fields:
            raise refused("SignatureDoesNotMatch", f"signed header {name} is not in the request")
    unsigned = [name for name in fields if name.startswith("x-amz-") and name not in claim.signed_headers]
    if unsigned:
        names = ", ".join(sorted(unsigned))
        raise refused("AccessDenied", f"header {min(unsigned)} must be signed", headers_not_signed=names)
    if len(fields["host"]) > 1:
        raise refused("IncompleteSignature", "header host must appear once")


def _payload_hash(claim: Claim, fields: Fields, *, streams: bool) -> str:
    """What the request says its body hashes to; "" where it says nothing: then the body's own hash is signed."""
    declared = _single_header(fields, "x-amz-content-sha256")
    if not declared:
        if claim.service == "s3":
            if claim.expires_seconds is None:
                raise refused("MissingSecurityHeader", "S3 requests must carry x-amz-content-sha256")
            return _UNSIGNED
        return ""
    if declared.startswith("STREAMING-"):
        if streams and declared in STREAMING:
            return declared
        raise Unsupported(f"x-amz-content-sha256 {declared[:64]}: chunked signatures are not supported")
    if declared != _UNSIGNED and not _DIGEST.fullmatch(declared):
        raise refused("IncompleteSignature", "x-amz-content-sha256 must be a SHA-256 in hexadecimal or UNSIGNED-PAYLOAD")
    return declared


@lru_cache(maxsize=64)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
