"""What all operations of the service share: the bucket meant, the caller's right, expected owners, headers of objects."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from martlet.errors import ServiceError
from martlet.objects import access, acl, checksums, lifecycle, locks, rows, settings, words
from martlet.objects.access import Asker
from martlet.objects.blobs import Body, Plain, Staged
from martlet.objects.checksums import ALGORITHMS, member_of
from martlet.objects.encryption import Encryption
from martlet.objects.events import Cause
from martlet.objects.failures import (
    access_denied,
    bad_digest,
    header_not_implemented,
    invalid_argument,
    invalid_request,
    not_implemented,
)
from martlet.objects.objects import Expected, Objects
from martlet.objects.rows import Bucket, Version
from martlet.types import ACCOUNT, Principal

__all__ = ["Caller", "Desk", "Request"]

Request = dict[str, Any]

_ACCOUNT = re.compile(r"[0-9]{12}")
HEADERS: Final = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires")
_USER_METADATA_BYTES: Final = 2_048
_NEWER: Final = ("SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128")
OBJECT_BYTES_MAX: Final = 5 * 1024**3  # of one PUT or one part


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Principal: ...
    @property
    def region(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def source_ip(self) -> str: ...
    @property
    def conditions(self) -> Mapping[str, str]: ...


class Desk:
    """The ground of the service's operations."""

    def __init__(self, objects: Objects, authorize: Callable[[Principal, str, str], None]) -> None:
        self.objects = objects
        self._authorize = authorize

    # --- who may

    def allow(
        self,
        caller: Caller,
        action: str,
        bucket: Bucket | None,
        name: str,
        key: str | None = None,
        version_id: str | None = None,
        **context: str,
    ) -> None:
        """Return if the caller may, else raise AccessDenied. `context`: further condition keys, "_" for "-"."""
        known = {
            **caller.conditions,
            "aws:sourceip": caller.source_ip,
            **{f"s3:{member.replace('_', '-')}": value for member, value in context.items() if value},
        }
        asker = Asker(caller.principal, known)

        def version() -> Version | None:
            try:
                return self.objects.look(name, key or "", version_id)[0]
            except ServiceError:
                return None

        access.check(asker, action, bucket, name, key, self._authorize, version if key is not None else None)

    def bucket(self, caller: Caller, request: Request, action: str, key: str | None = None, **context: str) -> Bucket:
        """The bucket of the request, if the caller may do `action` on it (or on `key` in it). Raises NoSuchBucket."""
        name = request["Bucket"]
        expected = request.get("ExpectedBucketOwner")
        if expected is not None and not _ACCOUNT.fullmatch(expected):
            text = f"The value of the expected bucket owner parameter must be an AWS Account ID... [{expected}]"
            raise ServiceError("InvalidBucketOwnerAWSAccountID", text, 400)
        bucket = self.objects.demand(name)
        if expected is not None and expected != ACCOUNT:
            raise access_denied()
        self.allow(caller, action, bucket, name, key, request.get("VersionId"), **context)
        return bucket

    @staticmethod
    def cause(caller: Caller) -> Cause:
        principal = caller.principal
        who = f"AWS:{principal.name or principal.kind}" if principal.kind != "anonymous" else "Anonymous"
        return Cause(who, caller.source_ip, caller.request_id)

    # --- what is written

    def template(self, caller: Caller, request: Request, bucket: Bucket, encryption: Encryption) -> Version:
        """A version with everything that a request says about it but its bytes. Raises AccessDenied for a lock that the caller
        may not put on it."""
        if request.get("WebsiteRedirectLocation") is not None:
            raise not_implemented("redirects of websites")
        encryption.check_bucket(bucket)
        lock = self._lock(caller, request, bucket)
        headers = {name: _header(request[name]) for name in HEADERS if request.get(name) not in (None, "")}
        headers.setdefault("ContentType", "binary/octet-stream")
        version = Version(
            seq=0,
            modified_at_ms=0,
            headers=headers,
            metadata=user_metadata(request.get("Metadata")),
            tags=settings.tags_of_header(request.get("Tagging")),
            storage_class=settings.storage_class(request.get("StorageClass")),
            acl=self.object_acl(request, bucket),
            **lock,
        )
        return encryption.mark(version)

    def _lock(self, caller: Caller, request: Request, bucket: Bucket) -> dict[str, Any]:
        """Fields of a version, if the request locks it and the caller may."""
        now_ms = self.objects.clock.now_ms()
        lock = locks.of_request(request, bucket, now_ms)
        if not lock:
            return lock
        mode, until, status = (request.get(f"ObjectLock{name}") for name in ("Mode", "RetainUntilDate", "LegalHoldStatus"))
        context = locks.conditions(mode, until, status, now_ms)
        actions = ["s3:PutObject"]  # once more, now that what a policy may ask for is known
        actions += ["s3:PutObjectRetention"] if "mode" in lock else []
        actions += ["s3:PutObjectLegalHold"] if "legal_hold" in lock else []
        for action in actions:
            self.allow(caller, action, bucket, bucket.name, request["Key"], None, **context)
        return lock

    def object_acl(self, request: Request, bucket: Bucket) -> dict[str, Any] | None:
        """The list that a request puts on an object; None: the default."""
        asked = acl.of_request(request, of_object=True)
        if asked is None:
            return None
        if access.lists_are_off(bucket):
            if acl.only_owner(asked):
                return None
            raise ServiceError("AccessControlListNotSupported", "The bucket does not allow ACLs", 400)
        if acl.is_public(asked) and access.blocks(bucket, "BlockPublicAcls"):
            raise access_denied()
        return asked

    async def stage(
        self, body: Any, request: Request, encryption: Encryption, *, extra: tuple[str, ...] = (), default: str = ""
    ) -> tuple[Staged, str]:
        """Keep a body whose digests are as the request says. Returns it with the algorithm that the client chose, "" for none;
        then it is `default`. Raises BadDigest, InvalidDigest, InvalidRequest, EntityTooLarge, and what the body raises."""
        given = body if not isinstance(body, bytes | type(None)) else Plain(body or b"")
        md5 = _given_md5(request.get("ContentMD5"))
        algorithm, wanted = given_checksum(request, given)
        size = given.size
        if size is not None and size > OBJECT_BYTES_MAX:
            text = "Your proposed upload exceeds the maximum allowed size"
            raise ServiceError("EntityTooLarge", text, 400, ProposedSize=size, MaxSizeAllowed=OBJECT_BYTES_MAX)
        staged = await self.objects.blobs.stage(given, filter(None, (algorithm or default, *extra)), encryption.key)
        try:
            self._compare(staged, given, md5, algorithm, wanted, request)
        except BaseException:
            await self.objects.blobs.discard(staged)
            raise
        return staged, algorithm

    @staticmethod
    def _compare(staged: Staged, body: Body, md5: bytes | None, algorithm: str, wanted: str, request: Request) -> None:
        if md5 is not None and not hmac.compare_digest(md5, staged.md5):
            text = "The Content-MD5 you specified did not match what we received."
            calculated = base64.b64encode(staged.md5).decode()
            expected = request.get("ContentMD5")
            raise ServiceError("BadDigest", text, 400, ExpectedDigest=expected, CalculatedDigest=calculated)
        if not algorithm:
            return
        if not wanted:
            wanted = body.trailers.get(f"x-amz-checksum-{algorithm.lower()}", "")
            if not wanted and body.trailer_names:
                raise ServiceError("MalformedTrailerError", "The request contained trailing data that was not well-formed", 400)
            if wanted and not checksums.is_valid(algorithm, wanted):
                raise invalid_request(f"Value for x-amz-checksum-{algorithm.lower()} trailing header is invalid.")
        if wanted and wanted != staged.checksums[algorithm]:
            raise bad_digest(algorithm)

    def described(self, bucket: Bucket, key: str, version: Version, encryption: Encryption) -> Request:
        """Members that answers to puts share."""
        return {
            "ETag": version.quoted,
            **encryption.shown(version),
            "VersionId": version.version_id or None,  # the null version's is not told of what was just put
            "Expiration": lifecycle.header(bucket, key, version),
        }


# --- requests


def given_checksum(request: Request, body: Body | None) -> tuple[str, str]:
    """(algorithm, checksum) that a request says: in headers, or (checksum "") to come in its trailer, or only by name."""
    for name in _NEWER:
        if request.get(member_of(name)) is not None:
            raise not_implemented(f"the checksum {name}")
    given = [name for name in ALGORITHMS if request.get(member_of(name)) is not None]
    if len(given) > 1:
        raise invalid_request("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
    named = algorithm_named(request.get("ChecksumAlgorithm"))
    if given:
        value = request[member_of(given[0])]
        if not checksums.is_valid(given[0], value) or (named and named != given[0]):
            raise invalid_request(f"Value for x-amz-checksum-{given[0].lower()} header is invalid.")
        return given[0], value
    for trailer in body.trailer_names if body is not None else ():
        name = trailer.removeprefix("x-amz-checksum-").upper()
        if name in ALGORITHMS:
            return name, ""
        raise invalid_request("The value specified in the x-amz-trailer header is not supported")
    return named, ""


def algorithm_named(name: str | None) -> str:
    if not name:
        return ""
    if name.upper() in _NEWER:
        raise not_implemented(f"the checksum {name.upper()}")
    if name.upper() not in ALGORITHMS:
        raise invalid_request(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            f"[{', '.join(ALGORITHMS)}]"
        )
    return name.upper()


def _given_md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != 16:
        raise ServiceError("InvalidDigest", "The Content-MD5 you specified was invalid.", 400, **{"Content-MD5": text})
    return found


def user_metadata(found: Mapping[str, str] | None) -> dict[str, str]:
    """By lower-case names. Raises MetadataTooLarge."""
    metadata = {name.lower(): words.decoded(value) for name, value in (found or {}).items()}
    size = sum(len(name.encode()) + len(value.encode("utf-8", "surrogateescape")) for name, value in metadata.items())
    if size > _USER_METADATA_BYTES:
        text = "Your metadata headers exceed the maximum allowed metadata size"
        raise ServiceError("MetadataTooLarge", text, 400, MaxSizeAllowed=_USER_METADATA_BYTES, Size=size)
    return metadata


def _header(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return str(value)


def expected_of(request: Request) -> Expected:
    """The conditions of a write. Raises NotImplemented as S3 does."""
    match, none_match = request.get("IfMatch"), request.get("IfNoneMatch")
    if match is not None and none_match is not None:
        raise header_not_implemented("If-Match,If-None-Match", "Multiple conditional request headers present in the request")
    if none_match is not None and none_match != "*":
        raise header_not_implemented("If-None-Match", "We don't accept the provided value of If-None-Match header for this API")
    if match == "*":
        raise header_not_implemented("If-Match", "We don't accept the provided value of If-Match header for this API")
    return Expected(None if match is None else match.strip('"'), none_match is not None)


def version_id_of(request: Request) -> str | None:
    """The version asked for. Raises InvalidArgument for what can be no version's id."""
    found = request.get("VersionId")
    if found is None:
        return None
    if not found:
        raise invalid_argument("Version id cannot be the empty string", "versionId", "")
    if not rows.is_version_id(found):
        raise invalid_argument("Invalid version id specified", "versionId", found)
    return str(found)


# --- answers


def shown_id(bucket: Bucket, version: Version) -> str | None:
    """The version's id as an answer names it: nothing while the bucket never had versions."""
    return version.shown_id if bucket.versioning or version.version_id else None


def shown_checksum(version: Version) -> Request:
    if not version.algorithm:
        return {}
    return {member_of(version.algorithm): version.checksum, "ChecksumType": version.checksum_type}


def seconds(at_ms: int) -> datetime:
    """S3 tells times of objects in whole seconds."""
    return datetime.fromtimestamp(at_ms // 1000, UTC)


def replaced(version: Version, **changes: Any) -> Version:
    return msgspec.structs.replace(version, **changes)
