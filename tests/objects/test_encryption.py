"""Encryption at rest: nothing that was put is found on the disk; clients' keys; what was changed there; other platform keys."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.objects.service import Service

from martlet.clock import ManualClock
from martlet.errors import StoreFailed
from martlet.objects import Objects, rows
from martlet.objects.sealing import PIECE_BYTES, RoomKey, Seal
from martlet.secrets import Vault
from martlet.store import Store, keys

KEY = bytes(range(32))
SIZES = (0, 1, 32_768, 32_769, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 1_048_577, 3_000_000)


def with_key(key: bytes = KEY, prefix: str = "") -> dict[str, Any]:
    return {
        f"{prefix}SSECustomerAlgorithm": "AES256",
        f"{prefix}SSECustomerKey": base64.b64encode(key).decode(),
        f"{prefix}SSECustomerKeyMD5": base64.b64encode(hashlib.md5(key).digest()).decode(),
    }


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "owner"]


def rows_of(objects: Objects) -> bytes:
    low, high = keys.prefix_range(rows.BLOB)
    return b"".join(raw for _, raw in objects.store.read(lambda reader: reader.scan(low, high, limit=1_000)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("more", [{}, with_key()], ids=["platform", "client"])
async def test_bytes_come_back_and_their_ranges(s3: Service, size: int, more: dict[str, Any]) -> None:
    await s3.bucket()
    data = os.urandom(size)
    put = await s3.put("k", data, **more)
    assert await s3.read("k", **more) == data
    assert ("SSECustomerKeyMD5" in put) == bool(more)
    assert put.get("ServerSideEncryption") == (None if more else "AES256")
    for start, end in ((0, 0), (size // 2, size - 1), (PIECE_BYTES - 1, PIECE_BYTES), (PIECE_BYTES, size - 1)):
        if start <= end < size:
            assert await s3.read("k", Range=f"bytes={start}-{end}", **more) == data[start : end + 1]


@pytest.mark.parametrize("size", [100, 400_000])
async def test_what_is_on_the_disk_is_not_what_was_put(s3: Service, objects: Objects, tmp_path: Path, size: int) -> None:
    await s3.bucket()
    data = b"a secret that must not lie about " * (size // 30)
    await s3.put("k", data)
    await s3.put("c", data, **with_key())
    on_disk = b"".join(path.read_bytes() for path in files(tmp_path)) + rows_of(objects)
    assert len(on_disk) > 2 * len(data)
    assert b"a secret" not in on_disk
    assert on_disk.count(on_disk[:64]) == 1, "the same bytes twice look alike nowhere"


async def test_damage_on_the_disk_is_an_error_and_not_an_answer(s3: Service, tmp_path: Path) -> None:
    await s3.bucket()
    await s3.put("k", os.urandom(400_000))
    (path,) = files(tmp_path)
    kept = path.read_bytes()
    swapped = kept[PIECE_BYTES + 16 :] + kept[: PIECE_BYTES + 16]
    flipped = kept[:5] + bytes([kept[5] ^ 1]) + kept[6:]
    for damaged in (flipped, kept[:-1], kept[: PIECE_BYTES + 16], swapped, b""):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="blob"):
            await s3.read("k")
    path.write_bytes(kept)
    assert len(await s3.read("k")) == 400_000


async def test_a_client_s_key_is_needed_and_is_the_only_one(s3: Service) -> None:
    await s3.bucket()
    put = await s3.put("k", b"data", **with_key())
    assert put["ETag"] != f'"{hashlib.md5(b"data").hexdigest()}"', "it would tell what the bytes are"
    for operation in ("GetObject", "HeadObject"):
        await s3.fails("InvalidRequest", operation, Bucket="bucket", Key="k")
        await s3.fails("AccessDenied", operation, Bucket="bucket", Key="k", **with_key(bytes(32)))
        await s3.fails("AccessDenied", operation, Bucket="bucket", Key="k", **with_key() | {"SSECustomerKeyMD5": None})
    await s3.put("open")
    await s3.fails("InvalidRequest", "GetObject", Bucket="bucket", Key="open", **with_key())
    with pytest.raises(Exception, match="form of Server Side Encryption"):
        await s3.objects.fetch("bucket", "k")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"SSECustomerAlgorithm": "KMS"}, "InvalidEncryptionAlgorithmError"),
        ({"SSECustomerAlgorithm": None}, "InvalidArgument"),
        ({"SSECustomerKey": None}, "InvalidArgument"),
        ({"SSECustomerKey": "no base64!"}, "InvalidArgument"),
        ({"SSECustomerKeyMD5": None}, "InvalidArgument"),
        ({"SSECustomerKeyMD5": base64.b64encode(bytes(16)).decode()}, "InvalidArgument"),
        (with_key(bytes(16)), "InvalidArgument"),
        ({"ServerSideEncryption": "AES256"}, "InvalidArgument"),
        ({"ServerSideEncryption": "aws:kms"}, "InvalidArgument"),
    ],
)
async def test_a_key_that_is_none_is_refused(s3: Service, change: dict[str, Any], error: str) -> None:
    await s3.bucket()
    await s3.fails(error, "PutObject", Bucket="bucket", Key="k", Body=b"", **{**with_key(), **change})


async def test_copies_change_keys(s3: Service) -> None:
    await s3.bucket()
    data = os.urandom(300_000)
    await s3.put("client", data, **with_key())
    other = bytes(32)
    await s3.fails("InvalidRequest", "CopyObject", Bucket="bucket", Key="x", CopySource="bucket/client")
    source = {"Bucket": "bucket", "CopySource": "bucket/client", **with_key(prefix="CopySource")}
    await s3("CopyObject", Key="platform", **source)
    await s3("CopyObject", Key="other", **source, **with_key(other))
    await s3("CopyObject", Bucket="bucket", Key="again", CopySource="bucket/platform", **with_key(other))
    await s3("DeleteObject", Bucket="bucket", Key="client")
    assert await s3.read("platform") == data
    assert await s3.read("other", **with_key(other)) == data
    assert await s3.read("again", **with_key(other)) == data


async def test_uploads_in_parts_under_a_client_s_key(s3: Service) -> None:
    await s3.bucket()
    await s3.put("source", os.urandom(6_000_000))
    begun = await s3("CreateMultipartUpload", Bucket="bucket", Key="k", **with_key())
    part = {"Bucket": "bucket", "Key": "k", "UploadId": begun["UploadId"], "PartNumber": 1}
    await s3.fails("InvalidRequest", "UploadPart", **part, Body=b"x")
    await s3.fails("InvalidRequest", "UploadPart", **part, Body=b"x", **with_key(bytes(32)))
    data = os.urandom(5_300_000)
    first = await s3("UploadPart", **part, Body=data, **with_key())
    copied = await s3("UploadPartCopy", **part | {"PartNumber": 2}, CopySource="bucket/source", **with_key())
    etags = (first["ETag"], copied["CopyPartResult"]["ETag"])
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    await s3("CompleteMultipartUpload", Bucket="bucket", Key="k", UploadId=begun["UploadId"], MultipartUpload={"Parts": parts})
    assert await s3.read("k", **with_key()) == data + await s3.read("source")
    await s3.fails("InvalidRequest", "GetObject", Bucket="bucket", Key="k")
    open_one = await s3("CreateMultipartUpload", Bucket="bucket", Key="o")
    part = {"Bucket": "bucket", "Key": "o", "UploadId": open_one["UploadId"], "PartNumber": 1}
    await s3.fails("InvalidRequest", "UploadPart", **part, Body=b"x", **with_key())


async def test_a_bucket_may_refuse_clients_keys(s3: Service) -> None:
    await s3.bucket()
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
        "BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]},
    }
    await s3("PutBucketEncryption", Bucket="bucket", ServerSideEncryptionConfiguration={"Rules": [rule]})
    await s3.fails("AccessDenied", "PutObject", Bucket="bucket", Key="k", Body=b"", **with_key())
    await s3.put("k")


async def test_objects_of_an_earlier_martlet_are_read_and_do_not_say_that_they_are_encrypted(
    s3: Service, objects: Objects
) -> None:
    await s3.bucket()
    await s3.put("old", b"plain")

    def as_before(tx: Any) -> None:
        version = rows.current(tx, "bucket", "old")
        assert version is not None
        plain = rows.Segment("i" + "0" * 32, 0, 5)
        rows.use_blob(tx, plain.blob, b"plain")
        rows.put_current(tx, "bucket", "old", msgspec.structs.replace(version, segments=(plain,), encryption=""))

    await objects.store.transact(as_before)
    assert await s3.read("old") == b"plain"
    assert "ServerSideEncryption" not in await s3("HeadObject", Bucket="bucket", Key="old")
    copied = await s3("CopyObject", Bucket="bucket", Key="new", CopySource="bucket/old")
    assert copied["ServerSideEncryption"] == "AES256"
    assert await s3.read("new") == b"plain"


async def test_another_platform_key_opens_nothing(store: Store, clock: ManualClock) -> None:
    key = await RoomKey(store, Vault(store, lambda: [bytes(32)])).get()
    assert await RoomKey(store, Vault(store, lambda: [bytes(32)])).get() == key
    with pytest.raises(StoreFailed):
        await RoomKey(store, Vault(store, lambda: [KEY])).get()


def test_pieces_of_two_blobs_are_not_exchangeable() -> None:
    one, other = Seal(KEY, "a" * 32), Seal(KEY, "b" * 32)
    sealed = one.seal(0, b"data")
    assert one.unseal(0, sealed) == b"data"
    for seal, number in ((other, 0), (one, 1)):
        with pytest.raises(OSError, match="changed"):
            seal.unseal(number, sealed)
