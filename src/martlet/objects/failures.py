"""S3's errors, in its own codes and words. Source: S3 API reference, "Error responses", and recorded answers."""

from __future__ import annotations

from typing import Any, Final

from martlet.errors import ServiceError

__all__ = [
    "access_denied",
    "bad_digest",
    "invalid_argument",
    "invalid_request",
    "malformed_xml",
    "method_not_allowed",
    "no_such_bucket",
    "no_such_key",
    "no_such_upload",
    "no_such_version",
    "not_implemented",
    "precondition_failed",
]

MALFORMED_XML: Final = "The XML you provided was not well-formed or did not validate against our published schema"


def no_such_bucket(name: str) -> ServiceError:
    return ServiceError("NoSuchBucket", "The specified bucket does not exist", 404, BucketName=name)


def no_such_key(key: str) -> ServiceError:
    return ServiceError("NoSuchKey", "The specified key does not exist.", 404, Key=key)


def no_such_version(key: str, version_id: str) -> ServiceError:
    return ServiceError("NoSuchVersion", "The specified version does not exist.", 404, Key=key, VersionId=version_id)


def no_such_upload(upload_id: str) -> ServiceError:
    text = (
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
    return ServiceError("NoSuchUpload", text, 404, UploadId=upload_id)


def invalid_argument(message: str, name: str = "", value: Any = None, **more: Any) -> ServiceError:
    members: dict[str, Any] = {}
    if name:
        members["ArgumentName"] = name
    if value is not None:
        members["ArgumentValue"] = value
    return ServiceError("InvalidArgument", message, 400, **members, **more)


def invalid_request(message: str) -> ServiceError:
    return ServiceError("InvalidRequest", message, 400)


def malformed_xml() -> ServiceError:
    return ServiceError("MalformedXML", MALFORMED_XML, 400)


def access_denied(message: str = "Access Denied", **members: Any) -> ServiceError:
    return ServiceError("AccessDenied", message, 403, **members)


def precondition_failed(condition: str) -> ServiceError:
    text = "At least one of the pre-conditions you specified did not hold"
    return ServiceError("PreconditionFailed", text, 412, Condition=condition)


def method_not_allowed(method: str, resource: str) -> ServiceError:
    text = "The specified method is not allowed against this resource."
    return ServiceError("MethodNotAllowed", text, 405, Method=method, ResourceType=resource)


def bad_digest(algorithm: str) -> ServiceError:
    return ServiceError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.", 400)


def not_implemented(what: str) -> ServiceError:
    """For what S3 has and Martlet has not: refused by name."""
    return ServiceError("NotImplemented", f"{what} is not supported by Martlet", 501)


def header_not_implemented(header: str, more: str = "") -> ServiceError:
    """For a header value that S3 itself refuses."""
    text = "A header you provided implies functionality that is not implemented"
    members = {"additionalMessage": more} if more else {}
    return ServiceError("NotImplemented", text, 501, Header=header, **members)
