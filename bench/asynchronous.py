"""Asynchronous invocation: events acknowledged a second, each durable, by 16 clients in this process.

    python -m bench.asynchronous [SECONDS]

What it measures: `Control.invoke` with InvocationType Event, that is name, permission, JSON check, one durable row, answer.
The function is a sandbox of its own process that runs meanwhile; both share the processors. Also shown: how many have run.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
import time
import zipfile
from types import SimpleNamespace
from typing import Any

import uvloop

from martlet.config import Settings
from martlet.server import Server
from martlet.types import Principal

CLIENTS = 16
PAYLOAD = b'{"order": 1234, "items": ["a", "b", "c"], "note": "' + b"x" * 200 + b'"}'


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("index.py", "def handler(event, context):\n    return None\n")
    return out.getvalue()


def caller() -> Any:
    return SimpleNamespace(principal=Principal("root", "owner"), request_id="", endpoint="http://here", trace_id="")


async def measure(seconds: float, sandbox: str) -> dict[str, float]:
    """Acknowledged and run events a second, and the median of the time to an acknowledgement."""
    with tempfile.TemporaryDirectory() as data:
        server = Server(Settings(data=data, port=0, sandbox=sandbox, quiet=True))
        await server.start()
        try:
            runtime = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            made = {"FunctionName": "f", "Runtime": runtime, "Handler": "index.handler", "Code": {"ZipFile": archive()}}
            await server.control.create_function(caller(), {**made, "Role": "arn:aws:iam::000000000000:role/r"})
            await server.control.settled()
            times: list[float] = []
            end = time.perf_counter() + seconds

            async def client() -> None:
                while (began := time.perf_counter()) < end:
                    await server.control.invoke(caller(), {"FunctionName": "f", "InvocationType": "Event", "Payload": PAYLOAD})
                    times.append(time.perf_counter() - began)

            began = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(CLIENTS)))
            took = time.perf_counter() - began
            ran = len(times) - server.control.asynchronous.count
            times.sort()
            return {"acknowledged/s": len(times) / took, "run/s": ran / took, "p50 ms": times[len(times) // 2] * 1000}
        finally:
            await server.stop()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    sandbox = "isolated" if os.geteuid() == 0 else "process"
    for name, value in uvloop.run(measure(seconds, sandbox)).items():
        print(f"{name:>15} {value:10.1f}")


if __name__ == "__main__":
    main()
