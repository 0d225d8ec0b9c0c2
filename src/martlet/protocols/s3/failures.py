"""What S3 says of a request that it does not believe: the auth room's reasons in S3's codes, words and members."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from martlet.errors import ServiceError, Unauthenticated

__all__ = ["unbelieved"]

_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)
_QUERY: Final = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires")
_OLD_QUERY: Final = ("AWSAccessKeyId", "Signature", "Expires")
_MISSING: Final = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, "
    "X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)
_CREDENTIAL: Final = (
    "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting "
    '"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
)


def unbelieved(error: Unauthenticated, query: bytes, authorization: str, now_ms: int) -> ServiceError | Unauthenticated:
    """The error as S3 has it; others of the auth room's are translated by the codec."""
    reason = str(error.details.get("reason", ""))
    presigned = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if b"=" in query else {}
    presigned = {name: value for name, value in presigned.items() if name in (*_QUERY, *_OLD_QUERY)}
    if "AWSAccessKeyId" not in presigned and presigned and reason == "IncompleteSignature":
        return _incomplete(presigned, error)
    if reason == "RequestExpired":
        return _expired(presigned, now_ms)
    if reason == "SignatureDoesNotMatch" and "string_to_sign" in error.details:
        return _mismatch(error, presigned, authorization)
    if reason == "AccessDenied" and error.message.startswith(("Query-string", "Invalid date")):
        return ServiceError("AccessDenied", error.message, 403)
    if reason == "InvalidClientTokenId":
        text = "The AWS Access Key Id you provided does not exist in our records."
        return ServiceError("InvalidAccessKeyId", text, 403, AWSAccessKeyId=_key_id(presigned, authorization))
    if reason == "AccessDenied" and "headers_not_signed" in error.details:
        names = error.details["headers_not_signed"]
        text = "There were headers present in the request which were not signed"
        return ServiceError("AccessDenied", text, 403, HeadersNotSigned=names)
    if reason == "MissingSecurityHeader":
        return ServiceError("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400)
    if reason == "RequestTimeTooSkewed":
        text = "The difference between the request time and the current time is too large."
        members = {"ServerTime": _iso(now_ms), "MaxAllowedSkewMilliseconds": "900000"}
        return ServiceError("RequestTimeTooSkewed", text, 403, **members)
    return error


def _incomplete(presigned: dict[str, str], error: Unauthenticated) -> ServiceError:
    code = "AuthorizationQueryParametersError"
    if any(name not in presigned for name in _QUERY):
        return ServiceError(code, _MISSING, 400)
    if presigned["X-Amz-Credential"].count("/") < 4:
        return ServiceError(code, _CREDENTIAL, 400)
    try:
        seconds = int(presigned["X-Amz-Expires"])
    except ValueError:
        return ServiceError(code, "X-Amz-Expires should be a number", 400)
    if seconds < 0:
        return ServiceError(code, "X-Amz-Expires must be non-negative", 400)
    if seconds > 604_800:
        text = "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
        text += "604800 seconds"
        return ServiceError(code, text, 400)
    return ServiceError(code, error.message, 400)


def _expired(presigned: dict[str, str], now_ms: int) -> ServiceError:
    members: dict[str, Any] = {}
    if presigned.get("Expires", "").isdigit():
        members = {"Expires": _iso(int(presigned["Expires"]) * 1000)}
        return ServiceError("AccessDenied", "Request has expired", 403, **members, ServerTime=_iso(now_ms))
    try:
        began = datetime.strptime(presigned["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        seconds = int(presigned["X-Amz-Expires"])
        members = {"X-Amz-Expires": str(seconds), "Expires": _iso(int(began + seconds) * 1000)}
    except (KeyError, ValueError):
        members = {}
    return ServiceError("AccessDenied", "Request has expired", 403, **members, ServerTime=_iso(now_ms))


def _mismatch(error: Unauthenticated, presigned: dict[str, str], authorization: str) -> ServiceError:
    text = str(error.details["string_to_sign"])
    provided = (
        str(error.details.get("provided", ""))
        or presigned.get("X-Amz-Signature")
        or presigned.get("Signature")
        or authorization.rpartition("Signature=")[2]
    )
    members: dict[str, Any] = {
        "AWSAccessKeyId": _key_id(presigned, authorization),
        "StringToSign": text,
        "SignatureProvided": provided[:256],
        "StringToSignBytes": text.encode().hex(" "),
    }
    canonical = error.details.get("canonical_request")
    if canonical is not None:
        members |= {"CanonicalRequest": canonical, "CanonicalRequestBytes": str(canonical).encode().hex(" ")}
    return ServiceError("SignatureDoesNotMatch", _MISMATCH, 403, **members)


def _key_id(presigned: dict[str, str], authorization: str) -> str:
    credential = (
        presigned.get("X-Amz-Credential") or presigned.get("AWSAccessKeyId") or authorization.partition("Credential=")[2]
    )
    return credential.partition("/")[0][:128]


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
