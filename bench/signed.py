"""Requests of AWS clients, signed before and sent by `wrk` again and again: signing costs the load generator nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.load import Rate, parse_wrk

__all__ = ["load", "request"]


def request(url: str, path: str, service: str, credentials: Mapping[str, Any], fields: Mapping[str, str], body: bytes) -> bytes:
    """One whole POST. Its signature holds for a quarter of an hour, as those of every client."""
    key = Credentials(credentials["access_key_id"], credentials["secret_access_key"])
    made = AWSRequest("POST", url + path, headers={"User-Agent": "bench", **fields}, data=body)
    SigV4Auth(key, service, "us-east-1").add_auth(made)
    sent = {**made.headers, "Host": url.removeprefix("http://"), "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def load(url: str, requests: Iterable[bytes], folder: Path, *, connections: int, seconds: int) -> Rate:
    """What `connections` clients get that send these requests in turn, each as soon as the one before is answered."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "load.lua"
    script.write_text(_script(list(requests)))
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script)]
    done = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True)
    return parse_wrk(done.stdout)


def _script(requests: Sequence[bytes]) -> str:
    percentiles = (Path(__file__).parent / "percentiles.lua").read_text()
    listed = ",\n".join(map(_quoted, requests))
    return (
        f"local all = {{\n{listed}\n}}\nlocal at = 0\n"
        f"function request()\n  at = at % #all + 1\n  return all[at]\nend\n{percentiles}"
    )


def _quoted(raw: bytes) -> str:
    return '"' + raw.decode().replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n") + '"'
