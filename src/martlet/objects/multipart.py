"""Multipart uploads: parts in any order and at once, put together without copying a byte.

Source: S3 user guide, "Uploading and copying objects using multipart upload"; S3 API reference.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Any, Final
from urllib.parse import quote

from martlet.clock import token_hex
from martlet.errors import ServiceError
from martlet.objects import acl, checksums, rows
from martlet.objects.blobs import Staged, slice_segments
from martlet.objects.checksums import ALGORITHMS, member_of
from martlet.objects.desk import (
    Caller,
    Desk,
    Request,
    algorithm_named,
    expected_of,
    given_checksum,
    replaced,
    seconds,
    shown_checksum,
)
from martlet.objects.encryption import CLIENTS, ROOMS, Encryption, of_request
from martlet.objects.failures import (
    invalid_argument,
    invalid_request,
    malformed_xml,
    no_such_key,
    no_such_upload,
)
from martlet.objects.listing import beyond, common_prefix
from martlet.objects.names import check_key
from martlet.objects.rows import Bucket, Part, Segment, Upload, Version
from martlet.store import Reader, Tx, keys

__all__ = ["MultipartOperations"]

_LEAST_BYTES: Final = 5 * 1024 * 1024
_PARTS_MAX: Final = 10_000
_RANGE = re.compile(r"bytes=(\d+)-(\d+)", re.ASCII)
_BAD_RANGE: Final = (
    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of "
    "the first and last bytes to copy"
)
_INVALID_PART: Final = (
    "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag "
    "may not match the part's entity tag."
)
_INITIATOR: Final = {**acl.OWNER, "DisplayName": "martlet"}


class MultipartOperations(Desk):
    """Uploads in parts."""

    async def create_multipart_upload(self, caller: Caller, request: Request) -> Request:
        key = request["Key"]
        bucket = self.bucket(caller, request, "s3:PutObject", key)
        check_key(key)
        encryption = of_request(request)
        template = self.template(caller, request, bucket, encryption)
        algorithm, kind = _checksum_plan(request)

        def begin(tx: Tx) -> Upload:
            rows.demand_bucket(tx, bucket.name)
            id = f"{rows.next_seq(tx):016x}{token_hex(40)}"
            upload = Upload(
                bucket=bucket.name,
                key=key,
                id=id,
                started_at_ms=tx.now_ms,
                template=template,
                algorithm=algorithm,
                checksum_type=kind,
            )
            rows.put_upload(tx, upload)
            return upload

        upload = await self.objects.store.transact(begin)
        return {
            "Bucket": bucket.name,
            "Key": key,
            "UploadId": upload.id,
            **encryption.shown(template),
            "ChecksumAlgorithm": algorithm or None,
            "ChecksumType": kind or None,
        }

    # --- parts

    async def upload_part(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:PutObject", request["Key"])
        number = _part_number(request)
        encryption = of_request(request)
        upload = self._upload(request)
        encryption.demand_same(upload.template)
        body = request.get("Body")
        algorithm, _ = given_checksum(request, body if not isinstance(body, bytes) else None)
        if upload.algorithm and algorithm and algorithm != upload.algorithm:
            expected, actual = upload.algorithm.lower(), algorithm.lower()
            text = f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
            raise invalid_request(text)
        extra = () if upload.algorithm else ("CRC64NVME",)
        staged, algorithm = await self.stage(body, request, encryption, extra=extra, default=upload.algorithm)
        algorithm = algorithm or upload.algorithm
        etag = encryption.etag(staged.md5, staged.blob)

        def keep(tx: Tx) -> list[str]:
            staged.use(tx)
            part = Part(
                number,
                staged.size,
                etag,
                tx.now_ms,
                staged.segments,
                algorithm,
                staged.checksums.get(algorithm, ""),
                staged.checksums.get("CRC64NVME", ""),
            )
            return self._replace(tx, request, part)

        try:
            gone = await self.objects.store.transact(keep)
        except BaseException as error:
            await self.objects.blobs.give_up(staged, error)
            raise
        self.objects.blobs.settle(staged)
        await self.objects.blobs.remove(gone)
        del bucket
        answer: Request = {"ETag": f'"{etag}"', **encryption.shown(upload.template)}
        if algorithm:
            answer[member_of(algorithm)] = staged.checksums[algorithm]
        return answer

    def _replace(self, tx: Tx, request: Request, part: Part) -> list[str]:
        """Put a part in its place; the blobs of the one that was there."""
        upload = rows.find_upload(tx, request["Bucket"], request["Key"], request["UploadId"])
        if upload is None:
            raise no_such_upload(request["UploadId"])
        before = rows.uploaded_part(tx, upload.id, part.number)
        rows.put_uploaded(tx, upload.id, part)
        return [] if before is None else rows.release_parts(tx, (before,))

    async def upload_part_copy(self, caller: Caller, request: Request) -> Request:
        self.bucket(caller, request, "s3:PutObject", request["Key"], x_amz_copy_source=request["CopySource"])
        number = _part_number(request)
        encryption = of_request(request)
        upload = self._upload(request)
        encryption.demand_same(upload.template)
        source: Any = self
        _, _, version, opened = source.source(caller, request)
        try:
            start, size = _copy_range(request.get("CopySourceRange"), version.size)
            segments = tuple(slice_segments(opened.segments, start, size))
            algorithms = [upload.algorithm or "CRC64NVME"]
            if version.encryption == encryption.kind == ROOMS:
                staged = None
                digests = await self.objects.blobs.digest(opened.limit(start, size), algorithms)
            else:
                staged = digests = await self.objects.blobs.stage(opened.limit(start, size), algorithms, encryption.key)
        finally:
            await opened.close()
        part = await self._keep_copied(request, upload, number, segments, staged, digests, encryption)
        result: Request = {"ETag": f'"{part.etag}"', "LastModified": seconds(part.modified_at_ms)}
        if part.algorithm:
            result[member_of(part.algorithm)] = part.checksum
        return {"CopyPartResult": result, **encryption.shown(upload.template)}

    async def _keep_copied(
        self,
        request: Request,
        upload: Upload,
        number: int,
        segments: tuple[Segment, ...],
        staged: Staged | None,
        digests: Staged,
        encryption: Encryption,
    ) -> Part:
        """A part of bytes that are shared with their source, or (`staged`) were written anew."""
        made: list[Part] = []
        etag = encryption.etag(digests.md5, digests.blob)

        def keep(tx: Tx) -> list[str]:
            if staged is not None:
                staged.use(tx)
            elif any(tx.get(rows.blob_key(segment.blob)) is None for segment in segments):
                raise no_such_key(request["Key"])
            else:
                rows.use_segments(tx, segments)
            used = segments if staged is None else staged.segments
            checksum = digests.checksums.get(upload.algorithm, "")
            crc64 = digests.checksums.get("CRC64NVME", "")
            part = Part(number, digests.size, etag, tx.now_ms, used, upload.algorithm, checksum, crc64)
            made[:] = [part]
            return self._replace(tx, request, part)

        try:
            gone = await self.objects.store.transact(keep)
        except BaseException as error:
            if staged is not None:
                await self.objects.blobs.give_up(staged, error)
            raise
        if staged is not None:
            self.objects.blobs.settle(staged)
        await self.objects.blobs.remove(gone)
        return made[0]

    def _upload(self, request: Request) -> Upload:
        found = self.objects.store.read(
            lambda reader: rows.find_upload(reader, request["Bucket"], request["Key"], request["UploadId"])
        )
        if found is None:
            raise no_such_upload(request["UploadId"])
        return found

    # --- the end

    async def complete_multipart_upload(self, caller: Caller, request: Request) -> Request:
        key, name = request["Key"], request["Bucket"]
        self.bucket(caller, request, "s3:PutObject", key)
        expected = expected_of(request)
        again = self.objects.store.read(lambda reader: rows.find_done(reader, name, key, request["UploadId"]))
        if again is not None:
            return self._completed(caller, name, key, again)
        upload = self._upload(request)
        asked = (request.get("MultipartUpload") or {}).get("Parts") or []
        if not asked:
            if request.get("MultipartUpload") is not None:
                raise malformed_xml()
            raise invalid_request("You must specify at least one part")
        dropped: list[str] = []

        def write(tx: Tx, found: Bucket, made: Version) -> Version:
            still = rows.find_upload(tx, name, key, upload.id)
            if still is None:
                raise no_such_upload(upload.id)
            if (expected.match is not None and still.touched) or (expected.none_match and still.touched == "delete"):
                condition = "If-None-Match" if expected.none_match else "If-Match"
                text = "The conditional request cannot succeed due to a conflicting operation against this resource."
                raise ServiceError("ConditionalRequestConflict", text, 409, Condition=condition, Key=key)
            parts = _chosen(asked, {part.number: part for part in rows.uploaded(tx, upload.id)}, still)
            kept = {part.number for part in parts}
            unused = [part for part in rows.drop_upload(tx, still) if part.number not in kept]
            dropped[:] = rows.release_parts(tx, unused)
            made = _whole(still, request, parts, made)
            rows.put_parts(tx, made.seq, tuple(parts))
            rows.put_done(tx, upload.id, rows.Done(name, key, tx.now_ms, made))
            return made

        made = await self.objects.publish(
            name,
            key,
            upload.template,
            write,
            expected=expected,
            cause=self.cause(caller),
            event="ObjectCreated:CompleteMultipartUpload",
        )
        await self.objects.blobs.remove(dropped)
        return self._completed(caller, name, key, made)

    def _completed(self, caller: Caller, name: str, key: str, made: Version) -> Request:
        return {
            "Location": f"{caller.endpoint}/{name}/{quote(key)}",
            "Bucket": name,
            "Key": key,
            **self.described(self.objects.demand(name), key, made, Encryption()),
            **shown_checksum(made),
        }

    async def abort_multipart_upload(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:AbortMultipartUpload", request["Key"])

        def drop(tx: Tx) -> list[str]:
            upload = rows.find_upload(tx, request["Bucket"], request["Key"], request["UploadId"])
            if upload is None:
                raise no_such_upload(request["UploadId"])
            return rows.release_parts(tx, rows.drop_upload(tx, upload))

        await self.objects.blobs.remove(await self.objects.store.transact(drop))

    # --- listings

    async def list_parts(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:ListMultipartUploadParts", request["Key"])
        upload = self._upload(request)
        most = 1_000 if request.get("MaxParts") is None else request["MaxParts"]
        after = request.get("PartNumberMarker") or 0
        if most < 0:
            raise invalid_argument("Argument max-parts must be an integer between 0 and 2147483647", "max-parts", str(most))
        most = min(most, 1_000)
        found = self.objects.store.read(lambda reader: rows.uploaded(reader, upload.id, after, most + 1))
        shown = found[:most]
        return {
            "Bucket": bucket.name,
            "Key": upload.key,
            "UploadId": upload.id,
            "PartNumberMarker": after,
            "NextPartNumberMarker": shown[-1].number if shown else 0,
            "MaxParts": most,
            "IsTruncated": len(found) > len(shown),
            "Parts": [_part(part, bool(upload.algorithm)) for part in shown] or None,
            "Initiator": _INITIATOR,
            "Owner": acl.OWNER,
            "StorageClass": upload.template.storage_class,
            "ChecksumAlgorithm": upload.algorithm or None,
            "ChecksumType": upload.checksum_type or None,
        }

    async def list_multipart_uploads(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:ListBucketMultipartUploads")
        prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
        key_marker, id_marker = request.get("KeyMarker") or "", request.get("UploadIdMarker") or ""
        most = 1_000 if request.get("MaxUploads") is None else min(request["MaxUploads"], 1_000)
        kind = request.get("EncodingType")
        if kind not in (None, "url"):
            raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", kind)
        encode = (lambda text: quote(text, safe="/*-._")) if kind else str
        if not key_marker:
            id_marker = ""
        store = self.objects.store
        if id_marker and store.read(lambda reader: rows.find_upload(reader, bucket.name, key_marker, id_marker)) is None:
            raise invalid_argument("Invalid uploadId marker", "upload-id-marker", id_marker)
        args = (bucket.name, prefix, delimiter, key_marker, id_marker, most)
        found, truncated = store.read(lambda reader: _uploads_page(reader, *args))
        uploads = [one for _, one in found if one is not None]
        last = next(((name, one) for name, one in reversed(found) if one is not None), found[-1] if truncated else None)
        answer: Request = {
            "Bucket": bucket.name,
            "KeyMarker": encode(key_marker),
            "UploadIdMarker": id_marker,
            "NextKeyMarker": encode(last[0]) if last is not None else "",
            "NextUploadIdMarker": last[1].id if last is not None and last[1] is not None else "",
            "MaxUploads": most,
            "IsTruncated": truncated,
            "Prefix": encode(prefix) if prefix else None,
            "Delimiter": encode(delimiter) if delimiter else None,
            "EncodingType": kind,
            "CommonPrefixes": [{"Prefix": encode(name)} for name, one in found if one is None] or None,
            "Uploads": [_upload_shown(one, encode(one.key)) for one in uploads] or None,
        }
        return answer


# --- requests


def _checksum_plan(request: Request) -> tuple[str, str]:
    """(algorithm, checksum type) of an upload. Raises InvalidRequest for what does not go together."""
    algorithm, kind = algorithm_named(request.get("ChecksumAlgorithm")), request.get("ChecksumType")
    if not algorithm:
        if kind is not None:
            raise invalid_request("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
        return "", ""
    if kind is None:
        kind = "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE"
    if kind not in ("FULL_OBJECT", "COMPOSITE"):
        raise invalid_request("Value for x-amz-checksum-type header is invalid.")
    if (kind == "COMPOSITE" and algorithm == "CRC64NVME") or (
        kind == "FULL_OBJECT" and not checksums.is_full_object(algorithm)
    ):
        raise invalid_request(f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.")
    return algorithm, kind


def _part_number(request: Request) -> int:
    number: int = request["PartNumber"]
    if not 1 <= number <= _PARTS_MAX:
        text = "Part number must be an integer between 1 and 10000, inclusive"
        raise invalid_argument(text, "partNumber", str(number))
    return number


def _copy_range(text: str | None, size: int) -> tuple[int, int]:
    if text is None:
        return 0, size
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise invalid_argument(_BAD_RANGE, "x-amz-copy-source-range", text)
    first, last = int(match[1]), int(match[2])
    if last >= size:
        if first >= size:
            raise invalid_request("The specified copy range is invalid for the source object size")
        raise invalid_argument(
            f"Range specified is not valid for source object of size: {size}", "x-amz-copy-source-range", text
        )
    return first, last - first + 1


# --- putting together


def _chosen(asked: list[Request], there: dict[int, Part], upload: Upload) -> list[Part]:
    """The parts that a completion names. Raises InvalidPartOrder, InvalidPart, EntityTooSmall, BadDigest."""
    numbers = [one.get("PartNumber") for one in asked]
    if any(number is None for number in numbers):
        raise malformed_xml()
    if any(later <= earlier for earlier, later in pairwise(int(number or 0) for number in numbers)):
        text = "The list of parts was not in ascending order. Parts must be ordered by part number."
        raise ServiceError("InvalidPartOrder", text, 400, UploadId=upload.id)
    parts = []
    for one in asked:
        part = there.get(one["PartNumber"])
        etag = str(one.get("ETag") or "").strip('"')
        if part is None or part.etag != etag:
            members = {"UploadId": upload.id, "PartNumber": str(one["PartNumber"]), "ETag": etag}
            raise ServiceError("InvalidPart", _INVALID_PART, 400, **members)
        _check_part(one, part, upload)
        parts.append(part)
    for part in parts[:-1]:
        if part.size < _LEAST_BYTES:
            text = "Your proposed upload is smaller than the minimum allowed size"
            members = {
                "ETag": part.etag,
                "PartNumber": str(part.number),
                "MinSizeAllowed": str(_LEAST_BYTES),
                "ProposedSize": str(part.size),
            }
            raise ServiceError("EntityTooSmall", text, 400, **members)
    return parts


def _check_part(one: Request, part: Part, upload: Upload) -> None:
    given = {name: one[member_of(name)] for name in ALGORITHMS if one.get(member_of(name)) is not None}
    if upload.checksum_type == "COMPOSITE" and upload.algorithm not in given:
        name = upload.algorithm.lower()
        raise invalid_request(
            f"The upload was created using a {name} checksum. The complete request must include the checksum for each part. "
            f"It was missing for part {part.number} in the request."
        )
    for name, value in given.items():
        if part.algorithm != name and value:
            text = f"The {name.lower()} you specified for part {part.number} did not match what we received."
            raise ServiceError("BadDigest", text, 400)
        if part.algorithm == name and value != part.checksum:
            members = {"UploadId": upload.id, "PartNumber": str(part.number), "ETag": part.etag}
            raise ServiceError("InvalidPart", _INVALID_PART, 400, **members)


def _whole(upload: Upload, request: Request, parts: list[Part], made: Version) -> Version:
    """What the parts make. Raises InvalidRequest, BadDigest where it is not what the request says."""
    kind = request.get("ChecksumType")
    if kind is not None and kind != (upload.checksum_type or None):
        shown = kind if upload.checksum_type else "null"
        shown = upload.checksum_type or shown
        raise invalid_request(
            f"The upload was created using the {shown} checksum mode. The complete request must use the same checksum mode."
        )
    size = sum(part.size for part in parts)
    said = request.get("MpuObjectSize")
    if said is not None and int(said) != size:
        text = f"The provided 'x-amz-mp-object-size' header value {said} does not match what was computed: {size}"
        raise invalid_request(text)
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
    if upload.template.encryption == CLIENTS and not upload.algorithm:  # S3 keeps no checksum of its own of these
        return replaced(made, size=size, etag=etag, parts=len(parts))
    algorithm = upload.algorithm or "CRC64NVME"
    if upload.checksum_type == "COMPOSITE":
        checksum = checksums.composite(algorithm, [part.checksum for part in parts])
    else:
        pairs = [(part.checksum if upload.algorithm else part.crc64, part.size) for part in parts]
        checksum = checksums.combined(algorithm, pairs)
    _check_whole(request, algorithm, checksum)
    return replaced(
        made,
        size=size,
        etag=etag,
        parts=len(parts),
        algorithm=algorithm,
        checksum=checksum,
        checksum_type=upload.checksum_type or "FULL_OBJECT",
    )


def _check_whole(request: Request, algorithm: str, checksum: str) -> None:
    for name in ALGORITHMS:
        given = request.get(member_of(name))
        if given is None:
            continue
        if not checksums.is_valid(name, given.partition("-")[0]):
            raise invalid_request(f"Value for x-amz-checksum-{name.lower()} header is invalid.")
        if name == algorithm and given.partition("-")[0] != checksum.partition("-")[0]:
            raise ServiceError("BadDigest", f"The {name.lower()} you specified did not match the calculated checksum.", 400)


# --- answers


def _part(part: Part, with_checksum: bool) -> Request:
    found: Request = {
        "PartNumber": part.number,
        "LastModified": seconds(part.modified_at_ms),
        "ETag": f'"{part.etag}"',
        "Size": part.size,
    }
    if part.algorithm and with_checksum:
        found[member_of(part.algorithm)] = part.checksum
    return found


def _upload_shown(upload: Upload, key: str) -> Request:
    return {
        "UploadId": upload.id,
        "Key": key,
        "Initiated": seconds(upload.started_at_ms),
        "StorageClass": upload.template.storage_class,
        "Owner": acl.OWNER,
        "Initiator": _INITIATOR,
        "ChecksumAlgorithm": upload.algorithm or None,
        "ChecksumType": upload.checksum_type or None,
    }


def _uploads_page(
    reader: Reader, bucket: str, prefix: str, delimiter: str, key_marker: str, id_marker: str, most: int
) -> tuple[list[tuple[str, Upload | None]], bool]:
    """(key or common prefix, the upload or None) behind the marker; and whether there are more."""
    found: list[tuple[str, Upload | None]] = []
    low, high = keys.encode(rows.UPLOAD, bucket, prefix)[:-1], beyond(rows.UPLOAD, bucket, prefix)
    if key_marker:
        marker = (
            keys.encode(rows.UPLOAD, bucket, key_marker, id_marker)
            if id_marker
            else keys.encode(rows.UPLOAD, bucket, key_marker)
        )
        low = max(low, marker + (b"\x00" if id_marker else b"\xff"))
        if delimiter and common_prefix(key_marker, prefix, delimiter) == key_marker:
            low = max(low, beyond(rows.UPLOAD, bucket, key_marker))
    while low < high and most > 0:
        page = reader.scan(low, high, limit=200)
        if not page:
            break
        for at, raw in page:
            low = at + b"\x00"
            upload = rows.decode_upload(raw)
            if len(found) == most:
                return found, True
            common = common_prefix(upload.key, prefix, delimiter)
            if common:
                found.append((common, None))
                low = beyond(rows.UPLOAD, bucket, common)
                break
            found.append((upload.key, upload))
    return found, False
