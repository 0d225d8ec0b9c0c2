"""Objects: what is put is what is got; conditions, ranges, copies, versions, deletes."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.objects.service import Service

from martlet.objects import rows
from martlet.store import keys

BIG = os.urandom(300_000)


def blobs(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file() and path.name != "owner"]


@pytest.mark.parametrize("body", [b"", b"x", os.urandom(32_768), os.urandom(32_769), BIG])
async def test_what_is_put_is_what_is_got(s3: Service, body: bytes) -> None:
    await s3.bucket()
    put = await s3.put("k", body)
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert await s3.read("k") == body
    head = await s3("HeadObject", Bucket="bucket", Key="k")
    assert (head["ContentLength"], head["ETag"]) == (len(body), put["ETag"])


async def test_headers_and_metadata_come_back(s3: Service) -> None:
    await s3.bucket()
    await s3.put("k", ContentType="text/x", CacheControl="no", Metadata={"A": "b"}, Tagging="t=1&u=")
    head = await s3("HeadObject", Bucket="bucket", Key="k")
    assert (head["ContentType"], head["CacheControl"], head["Metadata"], head["TagCount"]) == ("text/x", "no", {"a": "b"}, 2)


@pytest.mark.parametrize(
    ("algorithm", "checksum"),
    [
        ("CRC32", "y/Q5Jg=="),
        ("CRC32C", "4waSgw=="),
        ("CRC64NVME", "rosUhgp5mIg="),
        ("SHA1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
        ("SHA256", "FeKw09MzWuliOl3+Zg3SfjkoEYubYM/KbAFG8fGv6rA="),
    ],
)
async def test_checksums_have_their_known_values(s3: Service, algorithm: str, checksum: str) -> None:
    await s3.bucket()
    body = b"123456789"
    expected = {
        "SHA1": base64.b64encode(hashlib.sha1(body).digest()).decode(),
        "SHA256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
    }.get(algorithm, checksum)
    put = await s3.put("k", body, ChecksumAlgorithm=algorithm)
    assert put[f"Checksum{algorithm}"] == expected
    await s3.put("k", body, **{f"Checksum{algorithm}": expected})
    wrong = base64.b64encode(bytes(len(base64.b64decode(expected)))).decode()
    await s3.fails("BadDigest", "PutObject", Bucket="bucket", Key="k", Body=body, **{f"Checksum{algorithm}": wrong})
    await s3.fails("InvalidRequest", "PutObject", Bucket="bucket", Key="k", Body=body, **{f"Checksum{algorithm}": "AAA="})


async def test_without_a_checksum_crc64_is_computed(s3: Service) -> None:
    await s3.bucket()
    await s3.put("k", b"123456789")
    head = await s3("HeadObject", Bucket="bucket", Key="k", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == ("rosUhgp5mIg=", "FULL_OBJECT")


async def test_a_wrong_md5_keeps_the_old_object_and_leaves_no_bytes(s3: Service, tmp_path: Path) -> None:
    await s3.bucket()
    await s3.put("k", b"old")
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    error = await s3.fails("BadDigest", "PutObject", Bucket="bucket", Key="k", Body=BIG, ContentMD5=wrong)
    assert error.members["ExpectedDigest"] == wrong
    await s3.fails("InvalidDigest", "PutObject", Bucket="bucket", Key="k", Body=BIG, ContentMD5="AAAA")
    assert await s3.read("k") == b"old"
    assert blobs(tmp_path) == []


async def test_bytes_go_with_the_last_version_that_has_them(s3: Service, tmp_path: Path) -> None:
    await s3.bucket()
    await s3.put("k", BIG)
    await s3("CopyObject", Bucket="bucket", Key="copy", CopySource="bucket/k")
    assert len(blobs(tmp_path)) == 1  # shared
    await s3.put("k", b"small")
    assert await s3.read("copy") == BIG
    await s3("DeleteObject", Bucket="bucket", Key="copy")
    assert blobs(tmp_path) == []
    await s3("DeleteObject", Bucket="bucket", Key="k")
    low, high = keys.prefix_range(rows.BLOB)
    assert s3.objects.store.read(lambda reader: reader.scan(low, high)) == []


async def test_an_object_that_is_read_while_it_is_replaced_is_read_to_its_end(s3: Service, tmp_path: Path) -> None:
    await s3.bucket()
    await s3.put("k", BIG)
    answer = await s3("GetObject", Bucket="bucket", Key="k")
    await s3.put("k", b"new")
    assert b"".join([part async for part in answer["Body"]]) == BIG
    assert blobs(tmp_path) == []


@pytest.mark.parametrize(
    ("range", "found"),
    [
        ("bytes=0-1", (b"01", "bytes 0-1/10")),
        ("bytes=8-", (b"89", "bytes 8-9/10")),
        ("bytes=-3", (b"789", "bytes 7-9/10")),
        ("bytes=-30", (b"0123456789", "bytes 0-9/10")),
        ("bytes=2-100", (b"23456789", "bytes 2-9/10")),
        ("bytes=3-1", (b"0123456789", None)),
        ("bytes=0-1,3-4", (b"0123456789", None)),
        ("lines=1-2", (b"0123456789", None)),
    ],
)
async def test_ranges(s3: Service, range: str, found: tuple[bytes, str | None]) -> None:
    await s3.bucket()
    await s3.put("k", b"0123456789")
    answer = await s3("GetObject", Bucket="bucket", Key="k", Range=range)
    assert (b"".join([part async for part in answer["Body"]]), answer.get("ContentRange")) == found


@pytest.mark.parametrize("range", ["bytes=10-", "bytes=-0", "bytes=99-100"])
async def test_ranges_beyond_the_end(s3: Service, range: str) -> None:
    await s3.bucket()
    await s3.put("k", b"0123456789")
    error = await s3.fails("InvalidRange", "GetObject", Bucket="bucket", Key="k", Range=range)
    assert (error.http_status, error.members["ActualObjectSize"]) == (416, "10")


async def test_conditions_of_a_get(s3: Service) -> None:
    await s3.bucket()
    etag = (await s3.put("k"))["ETag"]
    get = {"Bucket": "bucket", "Key": "k"}
    past, now, future = (
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        datetime(2030, 1, 1, tzinfo=UTC),
    )
    assert await s3("HeadObject", **get, IfMatch=etag)
    assert (await s3.fails("PreconditionFailed", "HeadObject", **get, IfMatch='"x"')).http_status == 412
    assert (await s3.fails("304", "HeadObject", **get, IfNoneMatch=etag)).http_status == 304
    assert await s3("HeadObject", **get, IfNoneMatch='"x"', IfModifiedSince=now)
    assert (await s3.fails("304", "HeadObject", **get, IfModifiedSince=now)).http_status == 304
    assert await s3("HeadObject", **get, IfModifiedSince=future)  # a date to come says nothing
    await s3.fails("PreconditionFailed", "HeadObject", **get, IfUnmodifiedSince=past)
    assert await s3("HeadObject", **get, IfMatch=etag, IfUnmodifiedSince=past)


async def test_conditions_of_a_put(s3: Service) -> None:
    await s3.bucket()
    put = {"Bucket": "bucket", "Key": "k", "Body": b"1"}
    await s3.fails("NoSuchKey", "PutObject", **put, IfMatch='"x"')
    etag = (await s3("PutObject", **put, IfNoneMatch="*"))["ETag"]
    error = await s3.fails("PreconditionFailed", "PutObject", **put, IfNoneMatch="*")
    assert error.members == {"Condition": "If-None-Match"}
    await s3.fails("PreconditionFailed", "PutObject", **put, IfMatch='"x"')
    await s3("PutObject", **put, IfMatch=etag)
    await s3.fails("NotImplemented", "PutObject", **put, IfNoneMatch='"x"')
    await s3.fails("NotImplemented", "PutObject", **put, IfNoneMatch="*", IfMatch=etag)


async def test_copies(s3: Service) -> None:
    await s3.bucket()
    await s3.put("k", b"body", ContentType="text/a", Metadata={"m": "1"}, Tagging="t=1")
    copy = {"Bucket": "bucket", "CopySource": "bucket/k"}
    await s3("CopyObject", **copy, Key="same")
    head = await s3("HeadObject", Bucket="bucket", Key="same")
    assert (head["ContentType"], head["Metadata"], head["TagCount"]) == ("text/a", {"m": "1"}, 1)
    await s3("CopyObject", **copy, Key="new", MetadataDirective="REPLACE", TaggingDirective="REPLACE", Metadata={"n": "2"})
    head = await s3("HeadObject", Bucket="bucket", Key="new")
    assert (head["Metadata"], "TagCount" in head) == ({"n": "2"}, False)
    error = await s3.fails("InvalidRequest", "CopyObject", **copy, Key="k")
    assert error.message.startswith("This copy request is illegal")
    await s3("CopyObject", **copy, Key="k", MetadataDirective="REPLACE")
    await s3.fails("NoSuchKey", "CopyObject", Bucket="bucket", Key="x", CopySource="bucket/none")
    await s3.fails("InvalidArgument", "CopyObject", Bucket="bucket", Key="x", CopySource="bucket")
    await s3.fails("PreconditionFailed", "CopyObject", **copy, Key="x", CopySourceIfMatch='"x"')


async def test_versions(s3: Service) -> None:
    await s3.bucket(versioning="Enabled")
    first = (await s3.put("k", b"1"))["VersionId"]
    second = (await s3.put("k", b"2"))["VersionId"]
    assert await s3.read("k") == b"2"
    assert await s3.read("k", VersionId=first) == b"1"
    marker = await s3("DeleteObject", Bucket="bucket", Key="k")
    assert marker["DeleteMarker"] is True
    await s3.fails("NoSuchKey", "GetObject", Bucket="bucket", Key="k")
    error = await s3.fails("MethodNotAllowed", "GetObject", Bucket="bucket", Key="k", VersionId=marker["VersionId"])
    assert error.http_status == 405
    listed = await s3("ListObjectVersions", Bucket="bucket")
    assert [(one["VersionId"], one["IsLatest"]) for one in listed["Versions"]] == [(second, False), (first, False)]
    assert [(one["VersionId"], one["IsLatest"]) for one in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    await s3("DeleteObject", Bucket="bucket", Key="k", VersionId=marker["VersionId"])
    assert await s3.read("k") == b"2"
    await s3("DeleteObject", Bucket="bucket", Key="k", VersionId=second)
    assert await s3.read("k") == b"1"
    await s3.fails("BucketNotEmpty", "DeleteBucket", Bucket="bucket")
    await s3("DeleteObject", Bucket="bucket", Key="k", VersionId=first)
    await s3("DeleteBucket", Bucket="bucket")


async def test_null_versions(s3: Service) -> None:
    await s3.bucket()
    await s3.put("k", b"before")
    await s3("PutBucketVersioning", Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    kept = (await s3.put("k", b"kept"))["VersionId"]
    assert await s3.read("k", VersionId="null") == b"before"
    await s3("PutBucketVersioning", Bucket="bucket", VersioningConfiguration={"Status": "Suspended"})
    await s3.put("k", b"after")
    assert (await s3.read("k"), await s3.read("k", VersionId=kept)) == (b"after", b"kept")
    versions = (await s3("ListObjectVersions", Bucket="bucket"))["Versions"]
    assert [one["VersionId"] for one in versions] == ["null", kept]
    await s3("DeleteObject", Bucket="bucket", Key="k")
    await s3("DeleteObject", Bucket="bucket", Key="k", VersionId=kept)
    await s3.fails("NoSuchVersion", "HeadObject", Bucket="bucket", Key="k", VersionId=kept)
    await s3.fails("InvalidArgument", "HeadObject", Bucket="bucket", Key="k", VersionId="A" * 32)
    await s3.fails("InvalidArgument", "HeadObject", Bucket="bucket", Key="k", VersionId="nonsense")


async def test_deleting_many(s3: Service) -> None:
    await s3.bucket()
    await s3.put("a")
    await s3.put("b")
    wanted = [{"Key": "a"}, {"Key": "none"}, {"Key": "b", "VersionId": "nonsense"}]
    answer = await s3("DeleteObjects", Bucket="bucket", Delete={"Objects": wanted})
    assert [one["Key"] for one in answer["Deleted"]] == ["a", "none"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("b", "NoSuchVersion")]
    assert await s3.keys() == ["b"]
    await s3.fails("MalformedXML", "DeleteObjects", Bucket="bucket", Delete={"Objects": [{"Key": "x"}] * 1_001})


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/", "//a//", "a/../b", "nul\x00byte", "\u00e9\U0001f600", "a\nb", "." * 1_024]
)
async def test_a_key_is_only_a_name(s3: Service, tmp_path: Path, key: str) -> None:
    await s3.bucket()
    await s3.put(key, BIG)
    assert await s3.read(key) == BIG
    assert await s3.keys() == [key]
    assert len(blobs(tmp_path)) == 1
    await s3("DeleteObject", Bucket="bucket", Key=key)
    await s3.fails("KeyTooLongError", "PutObject", Bucket="bucket", Key="k" * 1_025, Body=b"")
    await s3.fails("KeyTooLongError", "PutObject", Bucket="bucket", Key="\u00e9" * 513, Body=b"")


async def test_what_is_not_there_is_refused_by_name(s3: Service) -> None:
    await s3.bucket()
    put = {"Bucket": "bucket", "Key": "k", "Body": b""}
    for member, value in (
        ("ServerSideEncryption", "aws:kms"),
        ("ObjectLockEventHold", "ON"),
        ("WriteOffsetBytes", 5),
        ("ChecksumSHA512", "AAAA"),
    ):
        error = await s3.fails("NotImplemented", "PutObject", **put, **{member: value})
        assert error.http_status == 501
    await s3.fails("InvalidStorageClass", "PutObject", **put, StorageClass="COLD")
    for member, value in (("StorageClass", "GLACIER"), ("StorageClass", "DEEP_ARCHIVE"), ("WebsiteRedirectLocation", "/a")):
        await s3.fails("NotImplemented", "PutObject", **put, **{member: value})
