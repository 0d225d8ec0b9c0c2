"""What a cold start costs without a platform: a fresh interpreter that imports what the function needs."""

from __future__ import annotations

import statistics
import subprocess
import time

from bench.context import Context
from bench.peers.install import PYTHON
from bench.table import Row

__all__ = ["import_seconds", "run"]


def import_seconds(statement: str, count: int = 15) -> float:
    """Median time of `python -c STATEMENT` in the peers' environment; the first run, which writes byte code, is left out."""
    taken = []
    for _ in range(count + 1):
        started = time.perf_counter()
        subprocess.run([str(PYTHON), "-c", statement], check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def run(_: Context) -> list[Row]:
    statements = ("pass", "import asyncio", "import boto3", "import pandas")
    return [Row(f"python -c '{statement}'", "", f"p50 {import_seconds(statement) * 1000:.1f} ms") for statement in statements]
