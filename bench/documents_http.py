"""The document database through HTTP, with authentication and validation: durable writes, point reads, and what they cost.

    python -m bench.documents_http [--seconds 4] [--clients 64] [--folder .]

`wrk` is the client. Beside the rate stands the platform's own CPU time for each request, which other load does not change much.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from tests.running_platform import RunningPlatform

_SCRIPT = """
local n = 0
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function request()
  n = n + 1
  local key = string.format("k%%d-%%d", id, %(key)s)
  local text = string.format('{"name":"Ann","email":"%%s","age":31,"city":"Berlin%%d","note":"%(note)s"}', key, n %% 50)
  return wrk.format("%(method)s", "/v1/documents/%(collection)s/" .. key .. "?app=bench",
    {["authorization"] = "Bearer %(token)s", ["content-type"] = "application/json"}, %(body)s)
end
"""
_SETTINGS = {
    "schema": {"fields": {"email": {"type": "text", "required": True}, "age": {"type": "int"}}},
    "indexes": {
        "email": {"terms": [{"path": "email"}], "unique": True},
        "city": {"terms": [{"path": "city"}, {"path": "age"}]},
        "age": {"terms": [{"path": "age"}]},
    },
}


def script(folder: Path, token: str, collection: str, method: str, key: str) -> Path:
    text = _SCRIPT % {
        "key": key,
        "note": "x" * 330,
        "method": method,
        "collection": collection,
        "token": token,
        "body": "text" if method == "PUT" else "nil",
    }
    path = folder / f"{method}-{collection}.lua"
    path.write_text(text)
    return path


def cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def load(platform: RunningPlatform, name: str, lua: Path, seconds: int, clients: int) -> None:
    before = cpu_ms(platform.process.pid)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(lua), platform.api_url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu_ms(platform.process.pid) - before
    requests = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    p50 = re.search(r"50%\s+(\S+)", said)[1]  # type: ignore[index]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    wrong = f"  {failed[1]} FAILED" if failed else ""
    print(f"{name:38}{rate:9.0f}/s   p50 {p50:>8}   {spent / requests * 1000:7.1f} µs CPU{wrong}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--folder", default=".")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        platform = RunningPlatform(None, folder / "data", "--sandbox", "process")
        try:
            token = json.loads((folder / "data" / "credentials.json").read_text())["token"]
            url = f"{platform.api_url}/v1/collections/indexed?app=bench"
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            request = urllib.request.Request(url, json.dumps(_SETTINGS).encode(), headers, method="PUT")
            urllib.request.urlopen(request).read()
            for label, collection, method, key in (
                ("insert, no index", "plain", "PUT", "n"),
                ("insert, schema, unique + 2 indexes", "indexed", "PUT", "n"),
                ("update, no index", "plain", "PUT", "n % 5000 + 1"),
                ("point read", "plain", "GET", "n % 5000 + 1"),
            ):
                load(platform, label, script(folder, token, collection, method, key), given.seconds, given.clients)
        finally:
            platform.stop()


if __name__ == "__main__":
    main()
