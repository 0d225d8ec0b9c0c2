"""Durable writes of the store: every transaction its own commit, against group commit, in the same run.

    python bench/store.py [--transactions 4000] [--rounds 3] [--folder .] [--postgres]

One transaction reads a row, writes it (500 bytes) and an index row, and appends a log entry. "direct" is apsw on the same
tables without the store: one COMMIT (fsync) for each transaction, in a loop. Ratios are against it. Put `--folder` on
the disk that matters: a tmpfs has no fsync to save. `--postgres`: the same store on a PostgreSQL server that is started
for it, in turns with the embedded engine.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import uvloop

from martlet.clock import Clock
from martlet.store import Reader, Store, Tx
from martlet.store.engine import LogEntry
from martlet.store.engines.sqlite import open_engine
from martlet.store.nodes import Card

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.postgres_server import PostgresServer, new_folder

BODY = b"x" * 500
CLIENTS = (1, 8, 64, 256)


def direct(folder: Path, count: int) -> list[float]:
    """Seconds of each transaction."""
    engine = open_engine(folder)
    took = []
    for number in range(count):
        started = time.perf_counter()
        key = b"\x30d%d" % number
        engine.get(key)
        engine.release()
        entry = LogEntry(number + 1, 0, "t", key, BODY)
        engine.commit({key: BODY, b"\x31i%d" % number: b""}, [entry], 0)
        engine.checkpoint(full=False)
        took.append(time.perf_counter() - started)
    engine.close()
    return took


async def opened(place: Path | str) -> Store:
    if isinstance(place, Path):
        return await Store.open(place, clock=Clock())
    store = await Store.open(place, clock=Clock(), engine="martlet.store.engines.postgres:open_engine")
    await store.join(Card("bench", "here:bench"), lambda error: None)
    await asyncio.sleep(2.0)  # until it knows that it is alone
    return store


async def grouped(place: Path | str, count: int, clients: int) -> tuple[list[float], float, float]:
    """Seconds of each transaction, seconds in all, transactions per commit."""
    store = await opened(place)
    took: list[float] = []
    numbers: Iterator[int] = iter(range(count))

    async def client() -> None:
        for number in numbers:
            key = b"\x30d%d" % number

            def write(tx: Tx, key: bytes = key, number: int = number) -> None:
                tx.get(key)
                tx.put(key, BODY)
                tx.put(b"\x31i%d" % number, b"")
                tx.append("t", key, BODY)

            started = time.perf_counter()
            await store.transact(write)
            took.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - started
    seen = store.statistics()
    await store.close()
    return took, seconds, seen.transactions / max(1, seen.commits)


async def reads(place: Path | str, count: int) -> float:
    """Microseconds of one `read` with one `get`."""
    store = await opened(place)

    def fill(tx: Tx) -> None:
        for number in range(10_000):
            tx.put(b"\x30d%d" % number, BODY)

    await store.transact(fill)
    keys = [b"\x30d%d" % (number * 7919 % 10_000) for number in range(count)]
    started = time.perf_counter()
    for key in keys:
        store.read(partial(_get, key))
    took = (time.perf_counter() - started) / count * 1e6
    await store.close()
    return took


def _get(key: bytes, reader: Reader) -> bytes | None:
    return reader.get(key)


def row(name: str, took: list[float], rate: float, per_commit: float, base: float) -> str:
    ordered = sorted(took)
    p50, p99 = ordered[len(ordered) // 2] * 1e6, ordered[int(len(ordered) * 0.99)] * 1e6
    return f"{name:<18}{rate:>10,.0f}{p50:>10,.0f}{p99:>10,.0f}{per_commit:>12.1f}{rate / base:>9.2f}x"


def started() -> tuple[PostgresServer, Path]:
    home = new_folder()
    server = PostgresServer(home / "data")
    server.start()
    return server, home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--transactions", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    rounds: dict[str, list[tuple[list[float], float, float]]] = {}
    read_us: list[float] = []
    shared_us: list[float] = []
    server, home = started() if options.postgres else (None, None)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        root = Path(scratch)
        for turn in range(options.rounds):  # interleaved, so that a noisy neighbour meets all of them
            took = direct(root / f"direct{turn}", options.transactions)
            rounds.setdefault("direct", []).append((took, sum(took), 1.0))
            for clients in CLIENTS:
                count = options.transactions * (1 if clients == 1 else 4)
                found = uvloop.run(grouped(root / f"grouped{turn}-{clients}", count, clients))
                rounds.setdefault(f"store, {clients} clients", []).append(found)
                if server is not None:
                    url = server.url(schema=f"grouped{turn}_{clients}")
                    rounds.setdefault(f"postgres, {clients}", []).append(uvloop.run(grouped(url, count, clients)))
            read_us.append(uvloop.run(reads(root / f"reads{turn}", options.transactions)))
            if server is not None:
                shared_us.append(uvloop.run(reads(server.url(schema=f"reads{turn}"), options.transactions)))
    print(f"{'':<18}{'tx/s':>10}{'p50 us':>10}{'p99 us':>10}{'tx/commit':>12}{'ratio':>10}")
    base = statistics.median(len(took) / seconds for took, seconds, _ in rounds["direct"])
    for name, runs in rounds.items():
        runs.sort(key=lambda run: len(run[0]) / run[1])
        took, seconds, per_commit = runs[len(runs) // 2]
        print(row(name, took, len(took) / seconds, per_commit, base))
    print(f"read of one row: {statistics.median(read_us):.1f} us")
    if server is not None and home is not None:
        print(f"read of one row, PostgreSQL, leading, known rows: {statistics.median(shared_us):.1f} us")
        server.stop()
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
