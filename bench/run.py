"""`make bench [ONLY=name]`: installs the peers, measures, prints one table. Exit code 1 when a benchmark could not be run.

A missed goal is printed as missed and does not change the exit code: the figures belong to the machine they were taken on.
"""

from __future__ import annotations

import importlib
import os
import platform
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench.context import Context
from bench.peers.install import install
from bench.table import Row, render

__all__ = ["BENCHMARKS", "main"]

# In the order they run; each is a module of bench.benchmarks with `run(ctx) -> list[Row]`.
BENCHMARKS = (
    "imports",
    "cold_start",
    "burst",
    "warm",
    "memory",
    "redeploy",
    "overload",
    "neighbours",
    "runtimes",
    "lambda_api",
    "dynamodb",
    "documents",
    "deploys",
    "queues",
    "codec",
)


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the load generators hold thousands of connections
    install()
    print(_machine(), flush=True)
    rows, broken = [], []
    for name in arguments or BENCHMARKS:
        found = _run(name)
        rows += found or [Row(name, "", "could not be run, see above", "", False)]
        broken += [] if found else [name]
    judged = [row.met for row in rows if row.met is not None]
    print(f"\n{render(rows)}\n\n{sum(judged)} of {len(judged)} goals met")
    return 1 if broken else 0


def _run(name: str) -> list[Row]:
    print(f"{name} …", end=" ", flush=True)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="martlet-bench-") as folder:
            rows: list[Row] = importlib.import_module(f"bench.benchmarks.{name}").run(Context(Path(folder)))
    except Exception:  # one that cannot be run is reported and must not hide the others
        print("failed", flush=True)
        traceback.print_exc()
        return []
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    return rows


def _machine() -> str:
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load average {load}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
