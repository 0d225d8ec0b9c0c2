"""moto's S3 as a process of its own: an object store that is none of ours, for tests of what is kept in one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
from tests.ports import free_ports

__all__ = ["MotoServer", "client"]

KEY, SECRET = "test", "test-secret"
_RUNNING = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


class MotoServer:
    """A server that keeps everything in memory. `stop` and `start` again: it forgets."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "moto.out"
        self._port = free_ports()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        while not _RUNNING.search(self._log.read_text(errors="replace")):
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(self._log.read_text(errors="replace"))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def environ(self) -> dict[str, str]:
        """What tells an S3 client of it."""
        return remote_environ(self.url, KEY, SECRET)


def remote_environ(url: str, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
    }


def client(url: str, key: str = KEY, secret: str = SECRET, **more: Any) -> Any:
    """boto3's client of S3 there."""
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys, **more)
