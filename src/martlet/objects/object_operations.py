"""Operations on objects: put, get, head, copy, delete, attributes, tags, lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from martlet.errors import MartletError, ServiceError
from martlet.objects import acl, locks, rows, settings, words
from martlet.objects.blobs import Opened
from martlet.objects.checksums import member_of
from martlet.objects.desk import (
    HEADERS,
    Caller,
    Request,
    algorithm_named,
    expected_of,
    replaced,
    seconds,
    shown_checksum,
    shown_id,
    user_metadata,
    version_id_of,
)
from martlet.objects.encryption import ROOMS, Encryption, of_reader, of_request, of_source
from martlet.objects.failures import (
    access_denied,
    invalid_argument,
    invalid_request,
    malformed_xml,
    method_not_allowed,
    no_such_key,
    not_implemented,
    precondition_failed,
)
from martlet.objects.lock_operations import LockOperations
from martlet.objects.names import check_key, copy_source
from martlet.objects.rows import Bucket, Version
from martlet.store import Tx

__all__ = ["ObjectOperations"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_OVERRIDES: Final = (
    *("ResponseCacheControl", "ResponseContentDisposition", "ResponseContentEncoding", "ResponseContentLanguage"),
    *("ResponseContentType", "ResponseExpires"),
)
_COPY_BYTES_MAX: Final = 5 * 1024**3
_DELETED_AT_ONCE: Final = 1_000


class ObjectOperations(LockOperations):
    """Objects."""

    # --- put

    async def put_object(self, caller: Caller, request: Request, *, event: str = "ObjectCreated:Put") -> Request:
        key = request["Key"]
        bucket = self.bucket(caller, request, "s3:PutObject", key, x_amz_acl=request.get("ACL") or "")
        if request.get("WriteOffsetBytes") is not None:
            raise not_implemented("appending to an object")
        check_key(key)
        encryption = of_request(request)
        version = self.template(caller, request, bucket, encryption)
        if request.get("Tagging"):
            self.allow(caller, "s3:PutObjectTagging", bucket, bucket.name, key)
        expected = expected_of(request)
        staged, algorithm = await self.stage(request.get("Body"), request, encryption, default="CRC64NVME")
        algorithm = algorithm or "CRC64NVME"
        version = replaced(
            version,
            etag=encryption.etag(staged.md5, staged.blob),
            algorithm=algorithm,
            checksum=staged.checksums[algorithm],
            checksum_type="FULL_OBJECT",
        )
        cause = self.cause(caller)
        made = await self.objects.put(bucket.name, key, staged, version, expected=expected, cause=cause, event=event)
        return {**self.described(self.objects.demand(bucket.name), key, made, encryption), **shown_checksum(made)}

    # --- get

    async def get_object(self, caller: Caller, request: Request) -> Request:
        answer, opened = self._found(caller, request, "s3:GetObject", is_head=False)
        answer["Body"] = opened
        return answer

    async def head_object(self, caller: Caller, request: Request) -> Request:
        answer, opened = self._found(caller, request, "s3:GetObject", is_head=True)
        await opened.close()
        return answer

    def _found(self, caller: Caller, request: Request, action: str, *, is_head: bool) -> tuple[Request, Opened]:
        key, version_id = request["Key"], version_id_of(request)
        action = f"{action}Version" if version_id is not None else action
        bucket = self.bucket(caller, request, action, key)
        if caller.principal.kind == "anonymous" and any(request.get(name) is not None for name in _OVERRIDES):
            raise invalid_request("Request specific response headers cannot be used for anonymous GET requests.")
        encryption = of_reader(request)
        version = self._look(caller, bucket, key, version_id, "HEAD" if is_head else "GET")
        encryption.unlock(version)
        check_conditions(request, version, self.objects.clock.now_ms())
        wanted = version.shown_id if version_id is not None else None
        version, opened = self.objects.open(bucket.name, key, wanted, encryption.unlock)
        try:
            return self._answer(request, bucket, key, version, opened, version_id is None, encryption), opened
        except BaseException:
            opened.drop()
            raise

    def _look(self, caller: Caller, bucket: Bucket, key: str, version_id: str | None, method: str) -> Version:
        """The version, or S3's error for what is not there, is a delete marker, or must not be known."""
        try:
            version, _ = self.objects.look(bucket.name, key, version_id)
        except ServiceError as error:
            if error.name in ("NoSuchKey", "NoSuchVersion"):
                self._hide_absence(caller, bucket)
                if "marker" in error.details:
                    error.details["headers"] = _marker_headers(str(error.details["marker"]))
            raise
        if version.marker:
            refused = method_not_allowed(method, "DeleteMarker")
            headers = _marker_headers(version.shown_id)
            refused.details["headers"] = (*headers, ("allow", "DELETE"), ("last-modified", _http_date(version.modified_at_ms)))
            raise refused
        return version

    def _hide_absence(self, caller: Caller, bucket: Bucket) -> None:
        """Who may not list is not told that something is missing."""
        try:
            self.allow(caller, "s3:ListBucket", bucket, bucket.name)
        except MartletError:
            raise access_denied() from None

    def _answer(
        self,
        request: Request,
        bucket: Bucket,
        key: str,
        version: Version,
        opened: Opened,
        is_current: bool,
        encryption: Encryption,
    ) -> Request:
        answer: Request = {
            "AcceptRanges": "bytes",
            "LastModified": seconds(version.modified_at_ms),
            "ContentLength": version.size,
            **self.described(bucket, key, version, encryption),
            **locks.shown(version),
            **({} if is_current else {"Expiration": None}),
            "VersionId": shown_id(bucket, version),
            **version.headers,
            "Metadata": {name: words.encoded(value) for name, value in version.metadata.items()},
            "StorageClass": None if version.storage_class == "STANDARD" else version.storage_class,
            "TagCount": len(version.tags) or None,
        }
        with_checksum = str(request.get("ChecksumMode") or "").upper() == "ENABLED"
        number, wanted = request.get("PartNumber"), request.get("Range")
        if number is not None:
            if wanted is not None:
                raise invalid_request("Cannot specify both Range header and partNumber query parameter")
            self._part(answer, version, opened, number, with_checksum)
        else:
            chosen = byte_range(wanted, version.size)
            if chosen is not None:
                start, size = chosen
                opened.limit(start, size)
                answer |= {"ContentLength": size, "ContentRange": f"bytes {start}-{start + size - 1}/{version.size}"}
            if with_checksum and chosen in (None, (0, version.size)):
                answer |= shown_checksum(version)
        for member in _OVERRIDES:
            if request.get(member) is not None:
                answer[member.removeprefix("Response")] = _override(member, request[member])
        return answer

    def _part(self, answer: Request, version: Version, opened: Opened, number: int, with_checksum: bool) -> None:
        if not 1 <= number <= 10_000:
            text = "Part number must be an integer between 1 and 10000, inclusive"
            raise invalid_argument(text, "partNumber", str(number))
        parts = self.objects.store.read(lambda reader: rows.parts_of(reader, version)) if version.parts else ()
        count = version.parts or 1
        if number > count:
            text = "The requested partnumber is not satisfiable"
            members = {"ActualPartCount": str(count), "PartNumberRequested": str(number)}
            raise ServiceError("InvalidPartNumber", text, 416, **members)
        start, size = 0, version.size
        if parts:
            start = sum(part.size for part in parts[: number - 1])
            size = parts[number - 1].size
            answer["PartsCount"] = count
            part = parts[number - 1]
            if with_checksum and part.algorithm and version.algorithm == part.algorithm:
                answer |= {member_of(part.algorithm): part.checksum, "ChecksumType": version.checksum_type}
        elif with_checksum:
            answer |= shown_checksum(version)
        opened.limit(start, size)
        answer["ContentLength"] = size
        if version.size:
            answer["ContentRange"] = f"bytes {start}-{start + size - 1}/{version.size}"

    # --- attributes

    async def get_object_attributes(self, caller: Caller, request: Request) -> Request:
        key, version_id = request["Key"], version_id_of(request)
        bucket = self.bucket(caller, request, "s3:GetObject", key)
        wanted = [one.strip() for name in request.get("ObjectAttributes") or () for one in name.split(",")]
        known = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")
        if any(name not in known for name in wanted):
            raise invalid_argument("Invalid attribute name specified.", "x-amz-object-attributes", ",".join(wanted))
        version = self._look(caller, bucket, key, version_id, "GET")
        of_reader(request).unlock(version)
        answer: Request = {"LastModified": seconds(version.modified_at_ms), "VersionId": shown_id(bucket, version)}
        if "ETag" in wanted:
            answer["ETag"] = version.etag
        if "Checksum" in wanted and version.algorithm:
            answer["Checksum"] = shown_checksum(version)
            full = answer["Checksum"][member_of(version.algorithm)]
            answer["Checksum"][member_of(version.algorithm)] = full.partition("-")[0]
        if "ObjectParts" in wanted and version.parts:
            answer["ObjectParts"] = self._object_parts(version, request)
        if "StorageClass" in wanted:
            answer["StorageClass"] = version.storage_class
        if "ObjectSize" in wanted:
            answer["ObjectSize"] = version.size
        return answer

    def _object_parts(self, version: Version, request: Request) -> Request:
        parts = self.objects.store.read(lambda reader: rows.parts_of(reader, version))
        found: Request = {"TotalPartsCount": version.parts}
        if version.checksum_type != "COMPOSITE":
            return found
        after, most = request.get("PartNumberMarker") or 0, min(request.get("MaxParts") or 1_000, 1_000)
        rest = [part for part in parts if part.number > after]
        shown = rest[:most]
        return found | {
            "PartNumberMarker": after,
            "NextPartNumberMarker": shown[-1].number if shown else 0,
            "MaxParts": most,
            "IsTruncated": len(rest) > len(shown),
            "Parts": [
                {"PartNumber": part.number, "Size": part.size, member_of(part.algorithm): part.checksum} for part in shown
            ]
            or None,
        }

    # --- copy

    async def copy_object(self, caller: Caller, request: Request) -> Request:
        key = request["Key"]
        bucket = self.bucket(caller, request, "s3:PutObject", key, x_amz_copy_source=request["CopySource"])
        check_key(key)
        expected = expected_of(request)
        encryption = of_request(request)
        source, source_id, before, opened = self.source(caller, request)
        try:
            made = await self._copied(caller, request, bucket, before, opened, source, source_id, expected, encryption)
        finally:
            await opened.close()
        answer = self.described(self.objects.demand(bucket.name), key, made, encryption)
        del answer["ETag"]
        origin = self.objects.find(source[0])
        result = {"ETag": made.quoted, "LastModified": seconds(made.modified_at_ms), **shown_checksum(made)}
        return {
            **answer,
            "CopyObjectResult": result,
            "VersionId": shown_id(self.objects.demand(bucket.name), made),
            "CopySourceVersionId": shown_id(origin, before) if origin is not None else None,
        }

    def source(self, caller: Caller, request: Request) -> tuple[tuple[str, str], str | None, Version, Opened]:
        """The object that a copy reads, opened, if the caller may and the request's conditions hold."""
        name, key, version_id = copy_source(request["CopySource"])
        if version_id is not None and not rows.is_version_id(version_id):
            raise invalid_argument("Invalid version id specified", "versionId", version_id)
        action = "s3:GetObjectVersion" if version_id is not None else "s3:GetObject"
        named = {"Bucket": name, "ExpectedBucketOwner": request.get("ExpectedSourceBucketOwner"), "VersionId": version_id}
        bucket = self.bucket(caller, named, action, key)
        version, opened = self.objects.open(name, key, version_id, of_source(request).unlock)
        try:
            if version.marker:
                text = "The source of a copy request may not specifically refer to a delete marker by version id."
                raise invalid_request(text)
            check_conditions(request, version, self.objects.clock.now_ms(), "CopySource")
        except BaseException:
            opened.drop()
            raise
        del bucket
        return (name, key), version_id, version, opened

    async def _copied(
        self,
        caller: Caller,
        request: Request,
        bucket: Bucket,
        before: Version,
        opened: Opened,
        source: tuple[str, str],
        source_id: str | None,
        expected: Any,
        encryption: Encryption,
    ) -> Version:
        if before.size > _COPY_BYTES_MAX:
            text = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"
            raise invalid_request(text)
        version = self._copy_template(caller, request, bucket, before, encryption)
        if source == (bucket.name, request["Key"]) and source_id is None and not _changes_something(request):
            raise invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
                "metadata, storage class, website redirect location or encryption attributes."
            )
        algorithm = algorithm_named(request.get("ChecksumAlgorithm")) or before.algorithm or "CRC64NVME"
        if not (before.encryption == encryption.kind == ROOMS):  # to be encrypted otherwise: the bytes are written anew
            return await self._copied_anew(caller, request, version, opened, algorithm, expected, encryption)
        segments = opened.segments
        if before.parts or algorithm != before.algorithm:  # its ETag or checksum is that of one piece
            digests = await self.objects.blobs.digest(opened, (algorithm,))
            etag, checksum = digests.md5.hex(), digests.checksums[algorithm]
        else:
            etag, checksum = before.etag, before.checksum
        version = replaced(
            version, etag=etag, algorithm=algorithm, checksum=checksum, checksum_type="FULL_OBJECT", size=before.size
        )

        def write(tx: Tx, found: Bucket, made: Version) -> Version:
            return share(tx, made, segments)

        cause = self.cause(caller)
        return await self.objects.publish(
            bucket.name, request["Key"], version, write, expected=expected, cause=cause, event="ObjectCreated:Copy"
        )

    async def _copied_anew(
        self,
        caller: Caller,
        request: Request,
        version: Version,
        opened: Opened,
        algorithm: str,
        expected: Any,
        encryption: Encryption,
    ) -> Version:
        staged = await self.objects.blobs.stage(opened, (algorithm,), encryption.key)
        version = replaced(
            version,
            etag=encryption.etag(staged.md5, staged.blob),
            algorithm=algorithm,
            checksum=staged.checksums[algorithm],
            checksum_type="FULL_OBJECT",
        )
        cause = self.cause(caller)
        return await self.objects.put(
            request["Bucket"], request["Key"], staged, version, expected=expected, cause=cause, event="ObjectCreated:Copy"
        )

    def _copy_template(
        self, caller: Caller, request: Request, bucket: Bucket, before: Version, encryption: Encryption
    ) -> Version:
        directive = request.get("MetadataDirective") or "COPY"
        tagging = request.get("TaggingDirective") or "COPY"
        if directive not in ("COPY", "REPLACE"):
            raise invalid_argument("Unknown metadata directive.", "x-amz-metadata-directive", directive)
        if tagging not in ("COPY", "REPLACE"):
            raise invalid_argument("Unknown tagging directive.", "x-amz-tagging-directive", tagging)
        said = request if tagging == "REPLACE" else {**request, "Tagging": None}
        version = self.template(caller, said, bucket, encryption)
        if directive == "COPY":
            kept = {name: value for name, value in before.headers.items() if name in HEADERS}
            version = replaced(version, headers=kept, metadata=before.metadata)
        else:
            version = replaced(version, metadata=user_metadata(request.get("Metadata")))
        return version if tagging == "REPLACE" else replaced(version, tags=before.tags)

    # --- delete

    async def delete_object(self, caller: Caller, request: Request) -> Request:
        key = request["Key"]
        version_id = version_id_of(request)
        action = "s3:DeleteObjectVersion" if version_id is not None else "s3:DeleteObject"
        bucket = self.bucket(caller, request, action, key)
        check_key(key)
        _check_bypass(request, bucket)
        for member, header in (("IfMatchLastModifiedTime", "last-modified-time"), ("IfMatchSize", "size")):
            if request.get(member) is not None:
                header = f"x-amz-if-match-{header}"
                text = "A header you provided implies functionality that is not implemented"
                raise ServiceError("NotImplemented", text, 501, Header=header)
        match = request.get("IfMatch")
        expected = expected_of({"IfMatch": None if match == "*" else match})
        bypass = self.bypasses(caller, request, bucket, key, version_id)
        removed = await self.objects.delete(bucket.name, key, version_id, self.cause(caller), expected=expected, bypass=bypass)
        answer: Request = {"DeleteMarker": True if removed.marker else None}
        if version_id is not None:
            answer["VersionId"] = version_id
        elif removed.version is not None and removed.marker:
            answer["VersionId"] = removed.version.shown_id
        return answer

    async def delete_objects(self, caller: Caller, request: Request) -> Request:
        bucket = self.objects.demand(request["Bucket"])
        if request.get("ExpectedBucketOwner"):
            self.bucket(caller, request, "s3:ListBucket")
        delete = request.get("Delete") or {}
        wanted = delete.get("Objects") or []
        if not wanted or len(wanted) > _DELETED_AT_ONCE or any(one.get("Key") is None for one in wanted):
            raise malformed_xml()
        deleted: list[Request] = []
        errors: list[Request] = []
        for start in range(0, len(wanted), 100):
            await self._delete_some(caller, request, bucket, wanted[start : start + 100], deleted, errors)
        return {"Deleted": None if delete.get("Quiet") else deleted or None, "Errors": errors or None}

    async def _delete_some(
        self,
        caller: Caller,
        request: Request,
        bucket: Bucket,
        wanted: list[Request],
        deleted: list[Request],
        errors: list[Request],
    ) -> None:
        allowed = []
        for one in wanted:
            try:
                version_id = version_id_of(one)
                action = "s3:DeleteObjectVersion" if version_id is not None else "s3:DeleteObject"
                self.allow(caller, action, bucket, bucket.name, one["Key"], version_id)
                check_key(one["Key"])
                bypass = self.bypasses(caller, request, bucket, one["Key"], version_id)
                allowed.append((one["Key"], version_id, one.get("ETag"), bypass))
            except ServiceError as error:
                code = "NoSuchVersion" if error.name == "InvalidArgument" and one.get("VersionId") else error.name
                text = "The specified version does not exist." if code == "NoSuchVersion" else error.message
                errors.append({"Key": one["Key"], "VersionId": one.get("VersionId"), "Code": code, "Message": text})
        cause = self.cause(caller)

        def commit(tx: Tx) -> tuple[list[Request], list[Request], list[str]]:
            done: list[Request] = []
            failed: list[Request] = []
            gone: list[str] = []
            for key, version_id, etag, bypass in allowed:
                try:
                    expected = expected_of({"IfMatch": None if etag == "*" else etag})
                    removed = self.objects.delete_in(
                        tx, bucket.name, key, version_id, cause, expected=expected, bypass=bypass, tell_absent=True
                    )
                except ServiceError as error:
                    failed.append({"Key": key, "VersionId": version_id, "Code": error.name, "Message": error.message})
                    continue
                gone += removed.gone
                one: Request = {"Key": key, "VersionId": version_id}
                if removed.marker and removed.version is not None:
                    one |= {"DeleteMarker": True, "DeleteMarkerVersionId": removed.version.shown_id}
                done.append(one)
            return done, failed, gone

        done, failed, gone = await self.objects.store.transact(commit)
        deleted += done
        errors += failed
        await self.objects.blobs.remove(gone)

    # --- tags

    async def get_object_tagging(self, caller: Caller, request: Request) -> Request:
        bucket, version = self._tagged(caller, request, "Get", "GET")
        tags = [{"Key": key, "Value": value} for key, value in version.tags.items()]
        return {"TagSet": tags, "VersionId": shown_id(bucket, version)}

    async def put_object_tagging(self, caller: Caller, request: Request) -> Request:
        bucket, _ = self._tagged(caller, request, "Put", "PUT")
        tags = settings.tag_set((request.get("Tagging") or {}).get("TagSet") or [], of_object=True)
        return await self._tag(caller, bucket, request, tags, "ObjectTagging:Put")

    async def delete_object_tagging(self, caller: Caller, request: Request) -> Request:
        bucket, _ = self._tagged(caller, request, "Delete", "DELETE")
        return await self._tag(caller, bucket, request, {}, "ObjectTagging:Delete")

    def _tagged(self, caller: Caller, request: Request, verb: str, method: str) -> tuple[Bucket, Version]:
        version_id = version_id_of(request)
        action = f"s3:{verb}Object{'Version' if version_id is not None else ''}Tagging"
        bucket = self.bucket(caller, request, action, request["Key"])
        try:
            return bucket, self._there(caller, bucket, request["Key"], version_id, method)
        except ServiceError as error:
            if error.name == "NoSuchKey" and method == "GET":  # S3 names the bucket too, here and nowhere else
                error.members["Key"] = f"{bucket.name}/{request['Key']}"
            raise

    def _there(self, caller: Caller, bucket: Bucket, key: str, version_id: str | None, method: str) -> Version:
        """`_look`, where a delete marker is one also without a version id."""
        try:
            return self._look(caller, bucket, key, version_id, method)
        except ServiceError as error:
            if "marker" in error.details:
                refused = method_not_allowed(method, "DeleteMarker")
                refused.details["headers"] = error.details["headers"]
                raise refused from error
            raise

    async def _tag(self, caller: Caller, bucket: Bucket, request: Request, tags: Mapping[str, str], event: str) -> Request:
        made = await self.objects.amend(
            bucket.name,
            request["Key"],
            request.get("VersionId"),
            lambda version: replaced(version, tags=dict(tags)),
            event=event,
            cause=self.cause(caller),
        )
        return {"VersionId": shown_id(bucket, made)}

    # --- lists

    async def get_object_acl(self, caller: Caller, request: Request) -> Request:
        version_id = version_id_of(request)
        bucket = self.bucket(caller, request, f"s3:GetObject{'Version' if version_id else ''}Acl", request["Key"])
        version = self._there(caller, bucket, request["Key"], version_id, "GET")
        return version.acl or acl.canned("private")

    async def put_object_acl(self, caller: Caller, request: Request) -> Request:
        version_id = version_id_of(request)
        bucket = self.bucket(caller, request, f"s3:PutObject{'Version' if version_id else ''}Acl", request["Key"])
        self._look(caller, bucket, request["Key"], version_id, "PUT")
        if acl.of_request(request, of_object=True) is None:
            text = "Your request was missing a required header"
            raise ServiceError("MissingSecurityHeader", text, 400, MissingHeaderName="x-amz-acl")
        asked = self.object_acl(request, bucket)
        await self.objects.amend(
            bucket.name,
            request["Key"],
            version_id,
            lambda version: replaced(version, acl=asked),
            event="ObjectAcl:Put",
            cause=self.cause(caller),
        )
        return {}


def _check_bypass(request: Request, bucket: Bucket) -> None:
    """S3 refuses it in DeleteObjects too; there widely used clients say it of any bucket, and where nothing is locked it has no
    effect."""
    if request.get("BypassGovernanceRetention") is not None and "lock" not in bucket.settings:
        text = "x-amz-bypass-governance-retention is only applicable to Object Lock enabled buckets."
        raise invalid_argument(text, "x-amz-bypass-governance-retention")


# --- conditions and ranges


def check_conditions(request: Request, version: Version, now_ms: int, prefix: str = "") -> None:
    """RFC 9110 section 13.2.2, as S3 has it. `prefix` "CopySource": those of a copy's source, where nothing is 304."""
    named = {
        name: request.get(f"{prefix}{name}") for name in ("IfMatch", "IfNoneMatch", "IfModifiedSince", "IfUnmodifiedSince")
    }
    header = "x-amz-copy-source-" if prefix else ""
    at = version.modified_at_ms // 1000
    if named["IfMatch"] is not None:
        if not _is_listed(named["IfMatch"], version.etag):
            raise precondition_failed(f"{header}If-Match")
    elif named["IfUnmodifiedSince"] is not None and at > _epoch(named["IfUnmodifiedSince"]):
        raise precondition_failed(f"{header}If-Unmodified-Since")
    if named["IfNoneMatch"] is not None:
        if _is_listed(named["IfNoneMatch"], version.etag):
            raise precondition_failed(f"{header}If-None-Match") if prefix else _not_modified(version)
    elif named["IfModifiedSince"] is not None and at <= _epoch(named["IfModifiedSince"]) <= now_ms / 1000:
        raise precondition_failed(f"{header}If-Modified-Since") if prefix else _not_modified(version)


def _is_listed(text: str, etag: str) -> bool:
    return text.strip() == "*" or any(one.strip().removeprefix("W/").strip('"') == etag for one in text.split(","))


def _epoch(moment: Any) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def _not_modified(version: Version) -> ServiceError:
    error = ServiceError("304", "Not Modified", 304)
    error.details["headers"] = (("etag", version.quoted), ("last-modified", _http_date(version.modified_at_ms)))
    return error


def _http_date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def _marker_headers(version_id: str) -> tuple[tuple[str, str], ...]:
    return (("x-amz-delete-marker", "true"), ("x-amz-version-id", version_id))


def byte_range(text: str | None, size: int) -> tuple[int, int] | None:
    """(first byte, number of bytes); None for all, also where the range is malformed or several. Raises InvalidRange."""
    match = _RANGE.fullmatch((text or "").replace(" ", ""))
    if text is None or match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    wrong = ServiceError(
        "InvalidRange", "The requested range is not satisfiable", 416, RangeRequested=text, ActualObjectSize=str(size)
    )
    if not first:
        count = min(int(last), size)
        if not count:
            raise wrong
        return size - count, count
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise wrong
    end = min(int(last), size - 1) if last else size - 1
    return int(first), end - int(first) + 1


def _override(member: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return _http_date(int(value.timestamp() * 1000))
    try:
        str(value).encode("latin-1")
    except UnicodeEncodeError:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", member).lower()
        raise invalid_argument("Header value cannot be represented using ISO-8859-1.", name, value) from None
    return value


def _changes_something(request: Request) -> bool:
    return (
        request.get("MetadataDirective") == "REPLACE"
        or request.get("StorageClass") is not None
        or request.get("ServerSideEncryption") is not None
        or request.get("SSECustomerAlgorithm") is not None
        or request.get("ChecksumAlgorithm") is not None
    )


# --- bytes that are shared


def share(tx: Tx, made: Version, segments: tuple[rows.Segment, ...]) -> Version:
    """`made` uses the bytes of another version: nothing is copied."""
    if any(tx.get(rows.blob_key(segment.blob)) is None for segment in segments):
        raise no_such_key("")  # it was deleted while it was looked at
    rows.use_segments(tx, segments)
    return replaced(made, segments=segments)
