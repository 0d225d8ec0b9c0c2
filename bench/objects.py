"""Objects over HTTP: 1 KB put and get, 100 MB up and down, against any S3 endpoint; and the platform's memory meanwhile.

    python bench/objects.py                                   # a platform of its own, on a folder beside
    python bench/objects.py --endpoint http://127.0.0.1:5000  # a peer, such as `moto_server`
    python bench/objects.py --static http://127.0.0.1:8080/   # what a static file server gives for a file of 100 MB there

Ours fsyncs before it answers; most peers keep objects in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import resource
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from martlet.config import Settings
from martlet.server import Server

BIG = 100_000_000


def client(endpoint: str, key: str, secret: str) -> object:
    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret, config=config
    )


def download(url: str) -> float:
    """Seconds that a plain client needs for all of it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    began = time.perf_counter()
    connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
    answer = connection.getresponse()
    while answer.read(1 << 20):
        pass
    return time.perf_counter() - began


def measure(s3: object, count: int) -> None:
    made: object = s3
    bucket = "bench-objects"
    made.create_bucket(Bucket=bucket)  # type: ignore[attr-defined]
    body = os.urandom(1_000)
    took: list[float] = []
    began = time.perf_counter()
    for at in range(count):
        start = time.perf_counter()
        made.put_object(Bucket=bucket, Key=f"k{at}", Body=body)  # type: ignore[attr-defined]
        made.get_object(Bucket=bucket, Key=f"k{at}")["Body"].read()  # type: ignore[attr-defined]
        took.append(time.perf_counter() - start)
    rate = count / (time.perf_counter() - began)
    print(f"1 KB put + get          {rate:8.0f} pairs/s   p50 {sorted(took)[count // 2] * 1000:6.2f} ms", flush=True)
    large = os.urandom(BIG)
    began = time.perf_counter()
    made.put_object(Bucket=bucket, Key="large", Body=large)  # type: ignore[attr-defined]
    print(f"100 MB up               {BIG / 1e6 / (time.perf_counter() - began):8.0f} MB/s", flush=True)
    url = made.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "large"})  # type: ignore[attr-defined]
    best = min(download(url) for _ in range(3))
    print(f"100 MB down             {BIG / 1e6 / best:8.0f} MB/s", flush=True)


def ours(count: int, folder: Path) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = Server(Settings(data=str(folder), port=0, sandbox="process", quiet=True))
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    found = json.loads((folder / "credentials.json").read_text())
    measure(client(f"http://127.0.0.1:{server.api_port}", found["access_key_id"], found["secret_access_key"]), count)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    print(
        f"memory of client and platform  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:6} MB at most", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--key", default="test")
    parser.add_argument("--secret", default="test")
    parser.add_argument("--static", default="")
    parser.add_argument("--folder", default="")
    given = parser.parse_args()
    if given.static:
        print(f"100 MB down, static     {BIG / 1e6 / min(download(given.static) for _ in range(3)):8.0f} MB/s")
    elif given.endpoint:
        measure(client(given.endpoint, given.key, given.secret), given.count)
    else:
        with tempfile.TemporaryDirectory(dir=given.folder or ".") as folder:
            ours(given.count, Path(folder) / "data")


if __name__ == "__main__":
    main()
