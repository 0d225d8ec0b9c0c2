"""Objects over HTTP, beside ministack (S3) and nginx (a static file): rates, and the platform's memory under 5 GB.

    python bench/objects.py              # 1 KB put and get, 100 MB up and down; all sides take turns
    python bench/objects.py --large 5    # also an object of 5 GB, up and down, with the platform's peak memory

nginx is Debian's `nginx-light`, ministack is PyPI's; both are installed if they are missing. One client, the same for all. Ours
fsyncs and encrypts before it answers; ministack keeps objects in memory. What is compared is the ratio of medians: rates alone
say how busy the machine is.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.ports import free_ports  # noqa: E402
from tests.running_platform import RunningPlatform  # noqa: E402

BIG = 100_000_000
PEERS = REPOSITORY / "bench" / ".peers" / "objects"
_NGINX = """worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; tcp_nopush on; server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}
"""


def client(endpoint: str, key: str = "test", secret: str = "test") -> Any:
    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret, config=config
    )


def start_nginx(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A file of 100 MB, and where it is served."""
    if shutil.which("nginx") is None:
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "nginx-light"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    port = free_ports()
    (folder / "www").mkdir()
    (folder / "www" / "big").write_bytes(os.urandom(BIG))
    for path in (folder, folder / "www", *folder.parents[:-2]):
        path.chmod(0o755)  # its worker is another user
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    return process, _ready(f"http://127.0.0.1:{port}", "/big")


def start_ministack(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    python = PEERS / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(PEERS)], check=True)
        subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), "ministack"], check=True)
    port = free_ports()
    with (folder / "ministack.out").open("wb") as out:
        process = subprocess.Popen(
            [str(PEERS / "bin" / "ministack")],
            stdout=out,
            stderr=out,
            env={**os.environ, "GATEWAY_PORT": str(port), "EDGE_PORT": str(port)},
        )
    return process, _ready(f"http://127.0.0.1:{port}", "")


def _ready(url: str, path: str) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
            connection.request("HEAD", path or "/")
            connection.getresponse()
        except OSError:
            time.sleep(0.05)
        else:
            return url + path
    raise RuntimeError(f"{url} does not answer")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def download(url: str) -> int:
    """The number of bytes that a plain client read."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
    answer, buffer, count = connection.getresponse(), bytearray(1 << 20), 0
    while found := answer.readinto(buffer):
        count += found
    connection.close()
    return count


def pairs(s3: Any, count: int, start: int) -> None:
    body = os.urandom(1_000)
    for at in range(start, start + count):
        s3.put_object(Bucket="bench", Key=f"k{at}", Body=body)
        s3.get_object(Bucket="bench", Key=f"k{at}")["Body"].read()


def compare(sides: dict[str, Any], static: str, rounds: int) -> None:
    found: dict[tuple[str, str], list[float]] = {}

    def note(what: str, side: str, took: float) -> None:
        found.setdefault((what, side), []).append(took)

    large = os.urandom(BIG)
    for s3 in sides.values():
        s3.create_bucket(Bucket="bench")
        pairs(s3, 50, 0)
    for turn in range(rounds):
        for side, s3 in sides.items():
            note("1 KB put + get", side, seconds(lambda s3=s3, turn=turn: pairs(s3, 100, turn * 100)) / 100)  # type: ignore[misc]
            note("100 MB up", side, seconds(lambda s3=s3: s3.put_object(Bucket="bench", Key="large", Body=large)))  # type: ignore[misc]
            url = s3.generate_presigned_url("get_object", {"Bucket": "bench", "Key": "large"})
            note("100 MB down", side, seconds(lambda url=url: download(url)))  # type: ignore[misc]
        note("100 MB down", "nginx", seconds(lambda: download(static)))
    for what in ("1 KB put + get", "100 MB up", "100 MB down"):
        medians = {side: statistics.median(took) for (which, side), took in found.items() if which == what}
        for side, took in medians.items():
            rate = f"{1 / took:7.0f} pairs/s" if what.startswith("1 KB") else f"{BIG / 1e6 / took:7.0f} MB/s"
            print(f"{what:15} {side:10} {rate}   martlet is {took / medians['martlet']:5.2f} × as fast", flush=True)


class Zeros:
    """A file of so many bytes that nobody holds."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        taken = min(self.left, 1 << 20 if size < 0 else size)
        self.left -= taken
        return bytes(taken)


def large_object(platform: RunningPlatform, s3: Any, gigabytes: int) -> None:
    from boto3.s3.transfer import TransferConfig

    size = gigabytes * 1_000_000_000
    config = TransferConfig(multipart_chunksize=64 << 20, max_concurrency=2)
    up = seconds(lambda: s3.upload_fileobj(Zeros(size), "bench", "huge", Config=config))
    url = s3.generate_presigned_url("get_object", {"Bucket": "bench", "Key": "huge"})
    down = seconds(lambda: download(url))
    status = Path(f"/proc/{platform.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024
    print(
        f"{gigabytes} GB: up {size / 1e6 / up:.0f} MB/s, down {size / 1e6 / down:.0f} MB/s; memory of the platform: {peak} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=0, metavar="GB")
    parser.add_argument(
        "--folder", default=None, help="where objects and files are written (default: the folder for temporary files)"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        nginx, static = start_nginx(folder)
        ministack, endpoint = start_ministack(folder)
        platform = RunningPlatform(None, folder / "data", "--sandbox", "process")
        try:
            keys = platform.credentials
            ours = client(platform.api_url, keys["access_key_id"], keys["secret_access_key"])
            print(f"load of the machine: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores", flush=True)
            compare({"martlet": ours, "ministack": client(endpoint)}, static, given.rounds)
            if given.large:
                large_object(platform, ours, given.large)
        finally:
            platform.stop()
            for process in (nginx, ministack):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
