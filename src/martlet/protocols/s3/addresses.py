"""Which requests are S3's, and which bucket their host names. Pure."""

from __future__ import annotations

import re
from typing import Final, Protocol

from martlet.protocols import codec
from martlet.protocols.codec import WireRequest

__all__ = ["bucket_of_host", "is_s3", "streams"]

_NAME: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_SERVICE_HOST = re.compile(r"(?:(?P<bucket>" + _NAME + r")\.)?s3(?:[.-][a-z0-9-]+)?\.(?:localhost|[a-z0-9.-]+)(?::[0-9]+)?")
_LOCAL_HOST = re.compile(r"(?P<bucket>" + _NAME + r")\.localhost(?::[0-9]+)?")
_PATH = re.compile(rb"/(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/.*)?", re.DOTALL)
_RESERVED: Final = frozenset({b"metrics", b"service", b"favicon.ico", b"robots.txt"})
_SIGNED_QUERY = re.compile(rb"(?:^|&)(?:X-Amz-(?:Algorithm|Credential|Signature)|AWSAccessKeyId|Signature)=")


def bucket_of_host(host: str) -> str | None:
    """The bucket that a virtual host names; "" for S3's own host, None for any other."""
    found = _SERVICE_HOST.fullmatch(host.lower())
    if found is not None:
        return found["bucket"] or ""
    found = _LOCAL_HOST.fullmatch(host.lower())
    return found["bucket"] if found is not None else None


def is_s3(request: WireRequest) -> bool:
    """Whether a request is for S3: by its signature's scope, its host, or, where nobody signed, by a path that can only be a
    bucket's."""
    headers = request.headers
    authorization = headers.get("authorization", "")
    signed = codec.signed_service(request)
    if signed:
        return signed == "s3"
    host = bucket_of_host(headers.get("host", ""))
    if host is not None and (not authorization or host == "" or ".s3" in headers.get("host", "")):
        return True
    if authorization.startswith(("AWS ", "AWS4-HMAC-SHA256")):
        return authorization.startswith("AWS ") or "x-amz-content-sha256" in headers
    if authorization or "x-amz-target" in headers:
        return False
    found = _PATH.fullmatch(request.path)
    if found is None or found["bucket"] in _RESERVED or codec.is_dated(request.path) or codec.is_queue_path(request.path):
        return _SIGNED_QUERY.search(request.query) is not None and found is not None
    return not request.path.startswith(b"/service/")


class Head(Protocol):
    """A request whose body is still to come, as the listener has it."""

    method: str
    query: bytes

    def header(self, name: bytes) -> bytes | None: ...


def streams(request: Head) -> bool:
    """Whether the body of a request is taken as it comes: it may be an object's."""
    if request.method not in ("PUT", "POST"):
        return False
    authorization = request.header(b"authorization") or b""
    if b"/s3/aws4_request" in authorization or b"aws4_request" in request.query or authorization.startswith(b"AWS "):
        return True
    return not authorization and request.header(b"x-amz-target") is None
