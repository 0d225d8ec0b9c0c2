"""Durable single-document writes and point reads through HTTP: the embedded engine and PostgreSQL, side by side.

    python bench/http_documents.py [--documents 4000] [--clients 64] [--rounds 3]

Each platform is a process of its own, without an app; a PostgreSQL server is started for it. Rounds take turns. The load comes
from this process, so that on two cores it takes its share from both alike: read the ratio, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.postgres_server import PostgresServer, new_folder

_ENTRY = "import sys; from martlet.cli import main; sys.exit(main(sys.argv[1:]))"
_BODY = json.dumps({"name": "Ann Example", "age": 30, "city": "Berlin", "tags": ["a", "b"], "note": "x" * 400}).encode()


class Platform:
    """`martlet up` on a free port, with a store at `store` ("": its own file)."""

    def __init__(self, folder: Path, store: str) -> None:
        environment = {**os.environ, "MARTLET_STORE": store}
        command = [sys.executable, "-c", _ENTRY, "up", "--data", str(folder), "--port", "0", "--sandbox", "process"]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not (folder / "endpoint.json").exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the platform did not start")
            time.sleep(0.05)
        self.port = json.loads((folder / "endpoint.json").read_text())["api_port"]
        found = json.loads((folder / "credentials.json").read_text())
        self.token = found["token"]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


async def load(platform: Platform, method: str, count: int, clients: int, turn: int) -> tuple[float, float]:
    """(requests a second, p50 ms)."""
    numbers, took = iter(range(count)), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
        for number in numbers:
            body = _BODY if method == "PUT" else b""
            head = (
                f"{method} /v1/documents/bench/k{turn}-{number}?app=bench HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                f"authorization: Bearer {platform.token}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            started = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 20"):
                raise RuntimeError(answer.decode() + (await reader.read(500)).decode())
            lines = answer.lower().split(b"\r\n")
            await reader.readexactly(sum(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
            took.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return count / (time.perf_counter() - started), statistics.median(took) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    home = new_folder()
    server = PostgresServer(home / "data")
    server.start()
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        platforms = {
            "embedded": Platform(Path(scratch) / "a", ""),
            "postgresql": Platform(Path(scratch) / "b", server.url(schema="bench")),
        }
        try:
            for turn in range(given.rounds):
                for name, platform in platforms.items():
                    for method in ("PUT", "GET"):
                        rate, p50 = uvloop.run(load(platform, method, given.documents, given.clients, turn))
                        rates.setdefault((name, method), []).append(rate)
                        print(f"{name:12}{method:5}{rate:10,.0f}/s{p50:9.2f} ms p50", flush=True)
        finally:
            for platform in platforms.values():
                platform.stop()
            server.stop()
            shutil.rmtree(home)
    for method in ("PUT", "GET"):
        one, other = (statistics.median(rates[name, method]) for name in ("embedded", "postgresql"))
        print(f"{method}: PostgreSQL {other / one:.2f} x embedded")


if __name__ == "__main__":
    main()
