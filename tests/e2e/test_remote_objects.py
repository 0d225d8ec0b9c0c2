"""A platform whose objects' bytes are in an object store elsewhere (moto's): what comes back, after a kill, after an outage."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.e2e.conftest import Start
from tests.moto_server import MotoServer, client
from tests.running_platform import RunningPlatform

BIG = os.urandom(20_000_000)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path)
    client(server.url).create_bucket(Bucket="bytes")
    yield server
    server.stop()


def environ(elsewhere: MotoServer) -> dict[str, str]:
    return {**elsewhere.environ(), "MARTLET_OBJECTS": "s3://bytes/martlet-test"}


def s3_of(platform: RunningPlatform) -> Any:
    found = platform.credentials
    once = Config(retries={"total_max_attempts": 1}, read_timeout=50)
    return client(platform.api_url, found["access_key_id"], found["secret_access_key"], config=once)


def names(elsewhere: MotoServer) -> set[str]:
    pages = client(elsewhere.url).get_paginator("list_objects_v2").paginate(Bucket="bytes")
    return {one["Key"].split("/")[3] for page in pages for one in page.get("Contents", ()) if "/blobs/" in one["Key"]}


def test_objects_live_elsewhere_and_come_back(start: Start, elsewhere: MotoServer, tmp_path: Path) -> None:
    platform = start(None, data=tmp_path / "data", environ=environ(elsewhere))
    s3 = s3_of(platform)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="big", Body=BIG)
    s3.put_object(Bucket="bucket", Key="small", Body=b"small")
    s3.upload_file(str(written(tmp_path)), "bucket", "parts", Config=TransferConfig(5_242_880, multipart_chunksize=5_242_880))
    s3.copy_object(Bucket="bucket", Key="copy", CopySource="bucket/big")
    assert len(names(elsewhere)) == 1 + 4, "one for the big one, one for each part, none for the copy"
    platform.kill()
    platform = start(None, data=tmp_path / "data", environ=environ(elsewhere))
    s3 = s3_of(platform)
    for key in ("big", "parts", "copy"):
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == BIG
        ranged = s3.get_object(Bucket="bucket", Key=key, Range="bytes=8388600-8400000")
        assert ranged["Body"].read() == BIG[8_388_600:8_400_001]
    for key in ("big", "parts", "copy", "small"):
        s3.delete_object(Bucket="bucket", Key=key)
    assert names(elsewhere) == set()
    assert platform.stop() == 0


def written(folder: Path) -> Path:
    path = folder / "big.bin"
    path.write_bytes(BIG)
    return path


def test_a_kill_in_the_middle_of_an_upload_leaves_the_old_object(start: Start, elsewhere: MotoServer, tmp_path: Path) -> None:
    platform = start(None, data=tmp_path / "data", environ=environ(elsewhere))
    s3 = s3_of(platform)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=BIG)
    before = names(elsewhere)
    url = s3.generate_presigned_url("put_object", {"Bucket": "bucket", "Key": "k"})
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.putrequest("PUT", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", str(len(BIG)))
    connection.endheaders()
    connection.send(BIG[:18_000_000])
    while names(elsewhere) == before:
        pass  # until some of it is there
    platform.kill()
    connection.close()
    platform = start(None, data=tmp_path / "data", environ=environ(elsewhere))
    assert s3_of(platform).get_object(Bucket="bucket", Key="k")["Body"].read() == BIG
    assert platform.stop() == 0


def test_while_it_is_away_nothing_is_acknowledged_and_nothing_is_lost(
    start: Start, elsewhere: MotoServer, tmp_path: Path
) -> None:
    platform = start(None, data=tmp_path / "data", environ=environ(elsewhere))
    s3 = s3_of(platform)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="small", Body=b"small")
    s3.put_object(Bucket="bucket", Key="k", Body=b"k" * 100_000)
    kept = blobs(elsewhere)
    elsewhere.stop()
    failed: list[str] = []

    def put(key: str) -> None:
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket="bucket", Key=key, Body=BIG)
        failed.append(caught.value.response["Error"]["Code"])

    threads = [threading.Thread(target=put, args=(key,)) for key in ("k", "new")]
    for thread in threads:
        thread.start()
    assert s3.get_object(Bucket="bucket", Key="small")["Body"].read() == b"small", "others do not wait"
    for thread in threads:
        thread.join()
    assert failed == ["InternalError"] * 2
    elsewhere.start()
    restore(elsewhere, kept)
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"k" * 100_000
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="bucket", Key="new")
    s3.put_object(Bucket="bucket", Key="new", Body=BIG)
    assert platform.stop() == 0


def blobs(elsewhere: MotoServer) -> dict[str, bytes]:
    """All that is there: moto forgets it when it stops."""
    s3 = client(elsewhere.url)
    found = [one["Key"] for one in s3.list_objects_v2(Bucket="bytes")["Contents"]]
    return {key: s3.get_object(Bucket="bytes", Key=key)["Body"].read() for key in found}


def restore(elsewhere: MotoServer, kept: dict[str, bytes]) -> None:
    s3 = client(elsewhere.url)
    s3.create_bucket(Bucket="bytes")
    for key, data in kept.items():
        s3.put_object(Bucket="bytes", Key=key, Body=data)


def test_a_start_without_it_fails_and_says_why(start: Start, elsewhere: MotoServer, tmp_path: Path) -> None:
    nobody = {**environ(elsewhere), "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    with pytest.raises(RuntimeError, match="remote object store"):
        start(None, data=tmp_path / "data", environ=nobody)
    platform = start(None, data=tmp_path / "data", environ=environ(elsewhere))
    assert platform.stop() == 0
    with pytest.raises(RuntimeError, match="belongs to another platform"):
        start(None, data=tmp_path / "other", environ=environ(elsewhere))
