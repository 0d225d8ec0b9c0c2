"""Multipart uploads: parts in any order, put together without copying, checked as S3 checks them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.objects.service import Service

from martlet.objects import checksums

MIB = 1 << 20
FIRST, SECOND = os.urandom(5 * MIB), os.urandom(1_000)


async def begin(s3: Service, **more: Any) -> dict[str, Any]:
    await s3.bucket()
    created = await s3("CreateMultipartUpload", Bucket="bucket", Key="k", **more)
    return {"Bucket": "bucket", "Key": "k", "UploadId": created["UploadId"]}


async def part(s3: Service, upload: dict[str, Any], number: int, body: bytes, **more: Any) -> dict[str, Any]:
    done = await s3("UploadPart", **upload, PartNumber=number, Body=body, **more)
    return {"PartNumber": number, "ETag": done["ETag"]}


async def test_an_upload_in_parts(s3: Service, tmp_path: Path) -> None:
    upload = await begin(s3, ContentType="text/x", Metadata={"m": "1"})
    two = await part(s3, upload, 7, SECOND)
    (one, again) = await asyncio.gather(part(s3, upload, 2, b"old"), part(s3, upload, 3, b"unused"))
    one = await part(s3, upload, 2, FIRST)
    listed = await s3("ListParts", **upload, MaxParts=2)
    assert ([one["PartNumber"] for one in listed["Parts"]], listed["IsTruncated"]) == ([2, 3], True)
    assert again["PartNumber"] == 3
    done = await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": [one, two]})
    digests = hashlib.md5(FIRST).digest() + hashlib.md5(SECOND).digest()
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    assert await s3.read("k") == FIRST + SECOND
    assert await s3.read("k", PartNumber=2) == SECOND
    assert await s3.read("k", Range=f"bytes={5 * MIB - 2}-{5 * MIB + 1}") == FIRST[-2:] + SECOND[:2]
    head = await s3("HeadObject", Bucket="bucket", Key="k", PartNumber=1)
    assert (head["PartsCount"], head["ContentLength"], head["Metadata"]) == (2, 5 * MIB, {"m": "1"})
    assert await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": [one, two]}) == done
    await s3("CopyObject", Bucket="bucket", Key="copy", CopySource="bucket/k")
    head = await s3("HeadObject", Bucket="bucket", Key="copy")
    assert head["ETag"] == f'"{hashlib.md5(FIRST + SECOND).hexdigest()}"'
    for key in ("k", "copy"):
        await s3("DeleteObject", Bucket="bucket", Key=key)
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file() and path.name != "owner"] == []


async def test_what_cannot_be_put_together(s3: Service) -> None:
    upload = await begin(s3)
    small, large = await part(s3, upload, 1, SECOND), await part(s3, upload, 2, FIRST)

    async def fails(error: str, *parts: dict[str, Any]) -> Any:
        return await s3.fails(error, "CompleteMultipartUpload", **upload, MultipartUpload={"Parts": list(parts)})

    await fails("InvalidPartOrder", large, small)
    await fails("InvalidPart", {**small, "ETag": '"0"'})
    await fails("InvalidPart", {"PartNumber": 9, "ETag": small["ETag"]})
    assert (await fails("EntityTooSmall", small, large)).members["MinSizeAllowed"] == "5242880"
    await s3.fails("InvalidArgument", "UploadPart", **upload, PartNumber=10_001, Body=b"")
    await s3("AbortMultipartUpload", **upload)
    await fails("NoSuchUpload", small)
    await s3.fails("NoSuchUpload", "UploadPart", **upload, PartNumber=1, Body=b"")


async def test_an_aborted_upload_leaves_nothing(s3: Service, tmp_path: Path) -> None:
    upload = await begin(s3)
    await part(s3, upload, 1, FIRST)
    await s3("AbortMultipartUpload", **upload)
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file() and path.name != "owner"] == []
    assert "Uploads" not in await s3("ListMultipartUploads", Bucket="bucket")


async def test_checksums_of_the_whole(s3: Service) -> None:
    upload = await begin(s3, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    parts = [await part(s3, upload, 1, FIRST), await part(s3, upload, 2, SECOND)]
    await s3.fails("BadDigest", "CompleteMultipartUpload", **upload, MultipartUpload={"Parts": parts}, ChecksumCRC32="AAAAAA==")
    done = await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": parts})
    expected = base64.b64encode(zlib.crc32(FIRST + SECOND).to_bytes(4, "big")).decode()
    assert (done["ChecksumCRC32"], done["ChecksumType"]) == (expected, "FULL_OBJECT")


async def test_composite_checksums(s3: Service) -> None:
    upload = await begin(s3, ChecksumAlgorithm="SHA256")
    one = await part(s3, upload, 1, SECOND)
    await s3.fails("InvalidRequest", "CompleteMultipartUpload", **upload, MultipartUpload={"Parts": [one]})
    digest = hashlib.sha256(SECOND).digest()
    one["ChecksumSHA256"] = base64.b64encode(digest).decode()
    done = await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": [one]})
    assert done["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(digest).digest()).decode() + "-1"
    await s3.fails("InvalidRequest", "CreateMultipartUpload", Bucket="bucket", Key="k", ChecksumType="FULL_OBJECT")
    await s3.fails(
        "InvalidRequest",
        "CreateMultipartUpload",
        Bucket="bucket",
        Key="k",
        ChecksumAlgorithm="SHA1",
        ChecksumType="FULL_OBJECT",
    )


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_crcs_combine(algorithm: str) -> None:
    def of(data: bytes) -> str:
        running = checksums.Checksum(algorithm)
        running.update(data)
        return running.text()

    pieces = [os.urandom(size) for size in (1, 70_000, 0, 3, 1_000)]
    pairs = [(of(piece), len(piece)) for piece in pieces]
    assert checksums.combined(algorithm, pairs) == of(b"".join(pieces))


async def test_parts_copied_from_objects(s3: Service) -> None:
    upload = await begin(s3)
    await s3.put("source", FIRST + SECOND)
    copy = {**upload, "CopySource": "bucket/source"}
    one = await s3("UploadPartCopy", **copy, PartNumber=1, CopySourceRange=f"bytes=0-{5 * MIB - 1}")
    two = await s3("UploadPartCopy", **copy, PartNumber=2, CopySourceRange="bytes=1-3")
    assert two["CopyPartResult"]["ETag"] == f'"{hashlib.md5(FIRST[1:4]).hexdigest()}"'
    for range in ("bytes=3-1", "0-1", "bytes=-5", f"bytes=0-{6 * MIB}"):
        await s3.fails("InvalidArgument", "UploadPartCopy", **copy, PartNumber=3, CopySourceRange=range)
    await s3("DeleteObject", Bucket="bucket", Key="source")
    parts = [{"PartNumber": at, "ETag": one["CopyPartResult"]["ETag"]} for at, one in enumerate((one, two), 1)]
    await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": parts})
    assert await s3.read("k") == FIRST + FIRST[1:4]


async def test_conditional_completion(s3: Service) -> None:
    upload = await begin(s3)
    one = await part(s3, upload, 1, SECOND)
    await s3.put("k", b"there")
    await s3.fails("PreconditionFailed", "CompleteMultipartUpload", **upload, MultipartUpload={"Parts": [one]}, IfNoneMatch="*")
    assert await s3.read("k") == b"there"
    await s3("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": [one]})
    assert await s3.read("k") == SECOND
