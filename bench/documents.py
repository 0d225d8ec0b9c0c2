"""The document engine in process: durable writes with one unique and two other indexes, beside the bare store in the same run.

    python bench/documents.py [--documents 20000] [--clients 64] [--folder .] [--growth 10000,1000000] [--store postgresql://…]

Ratios are against a store transaction that reads one row, writes two and appends to the log (see bench/store.py).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from martlet.clock import Clock
from martlet.documents import CollectionConfig, Documents, IndexConfig, Query, Term
from martlet.store import Store, Tx
from martlet.store.nodes import Card

INDEXES = {
    "email": IndexConfig((Term("email"),), unique=True),
    "city": IndexConfig((Term("city"), Term("age"))),
    "age": IndexConfig((Term("age"),)),
}


def body(number: int, city: str) -> bytes:
    """490 bytes, nine fields."""
    head = b'{"name":"Ann Example","email":"a%d@b.example","age":%d,"city":"%s%d",' % (
        number,
        number % 90,
        city.encode(),
        number % 50,
    )
    return head + b'"tags":["a","b","c"],"price":12.5,"note":"%s","place":{"x":1,"y":2},"ok":true}' % (b"x" * 330)


async def rate(count: int, clients: int, work: Callable[[int], Awaitable[object]]) -> tuple[float, float]:
    """(operations a second, p50 µs)."""
    numbers, took = iter(range(count)), []

    async def client() -> None:
        for number in numbers:
            started = time.perf_counter()
            await work(number)
            took.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return count / (time.perf_counter() - started), statistics.median(took) * 1e6


async def opened(folder: Path, address: str) -> Store:
    if not address:
        return await Store.open(folder, clock=Clock())
    store = await Store.open(address, clock=Clock(), engine="martlet.store.engines.postgres:open_engine")
    await store.join(Card("bench", "here:bench"), lambda error: None)
    await asyncio.sleep(2.0)  # until it knows that it is alone
    return store


async def measure(folder: Path, count: int, clients: int, address: str = "") -> None:
    store = await opened(folder, address)
    room = Documents(store, Clock())

    def bare(number: int) -> Awaitable[object]:
        def write(tx: Tx) -> None:
            tx.get(b"\x30d%d" % number)
            tx.put(b"\x30d%d" % number, b"x" * 490)
            tx.put(b"\x31i%d" % number, b"")
            tx.append("t", b"\x30d%d" % number, b"x" * 490)

        return store.transact(write)

    await room.define_collection("d", "indexed", CollectionConfig(indexes=INDEXES))
    base, p50 = await rate(count, clients, bare)
    print(f"{'':34}{'ops/s':>9}{'p50 µs':>10}{'ratio':>8}")
    print(f"{'bare store, 2 rows and log':34}{base:9.0f}{p50:10.0f}{1:8.2f}")
    steps: list[tuple[str, Callable[[int], Awaitable[object]]]] = [
        ("insert, unique + 2 indexes", lambda n: room.put("d", "indexed", f"k{n}", body(n, "Berlin"))),
        ("update, 1 index changes, history", lambda n: room.put("d", "indexed", f"k{n}", body(n, "Paris"))),
        ("insert, no index", lambda n: room.put("d", "plain", f"k{n}", body(n, "Berlin"))),
        (
            "indexed query of 20",
            lambda n: room.query("d", Query(collection="indexed", index="city", equals=("Paris7",), limit=20)),
        ),
    ]
    for name, work in steps:
        found, p50 = await rate(count if "query" not in name else count // 10, clients, work)
        print(f"{name:34}{found:9.0f}{p50:10.0f}{found / base:8.2f}", flush=True)
    started = time.perf_counter()
    for number in range(count):
        room.get("d", "indexed", f"k{number}")
    took = (time.perf_counter() - started) / count * 1e6
    print(f"{'point read':34}{1e6 / took:9.0f}{took:10.1f}")
    await store.close()


async def growth(folder: Path, sizes: list[int], rounds: int = 9) -> None:
    """p50 µs of a read, an indexed query of 20 and a write in stores of each size, and the ratio to the smallest. All are
    open and take turns, so that a busy minute of the machine hits all of them."""
    rooms = [(size, await _filled(folder / str(size), size)) for size in sizes]
    found: dict[int, list[list[float]]] = {size: [[], [], []] for size in sizes}
    for turn in range(rounds):
        for size, room in rooms:
            for at, step in enumerate(_steps(room, size, turn)):
                found[size][at].append((await rate(300, 1, step))[1])
    print(f"{'documents':>12}{'get µs':>16}{'query µs':>16}{'write µs':>16}")
    for size in sizes:
        medians = [statistics.median(p50s) for p50s in found[size]]
        ratios = [
            statistics.median(one / base for one, base in zip(own, first, strict=True))
            for own, first in zip(found[size], found[sizes[0]], strict=True)
        ]
        shown = "".join(f"{p50:9.1f} {ratio:4.2f} x" for p50, ratio in zip(medians, ratios, strict=True))
        print(f"{size:12}{shown}", flush=True)
    for _, room in rooms:
        await room.store.close()


async def _filled(folder: Path, size: int) -> Documents:
    room = Documents(await Store.open(folder, clock=Clock()), Clock())
    await room.define_collection("d", "c", CollectionConfig(indexes=INDEXES))
    for low in range(0, size, 500):
        batch = range(low, min(low + 500, size))
        await room.transact("d", lambda tx, batch=batch: [tx.put("c", f"k{n}", body(n, "B")) for n in batch])  # type: ignore[misc]
    await room.store.maintain()
    return room


def _terms(n: int) -> tuple[object, ...]:
    """One of the 450 pairs that there are."""
    return f"B{n % 50}", n % 90


def _steps(room: Documents, size: int, turn: int) -> list[Callable[[int], Awaitable[object]]]:
    """Everywhere in the collection, and each time elsewhere: 300 a turn."""

    def number(n: int) -> int:
        return (turn * 300 + n) * 7_919 % size

    return [
        lambda n: asyncio.sleep(0, room.get("d", "c", f"k{number(n)}")),
        lambda n: room.query("d", Query(collection="c", index="city", equals=_terms(turn * 300 + n), limit=20)),
        lambda n: room.put("d", "c", f"k{number(n)}", body(number(n), "B")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--growth", default="")
    parser.add_argument("--store", default="", help="postgresql://… with a schema that is not there yet, instead of a file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        asyncio.run(measure(Path(folder) / "a", given.documents, given.clients, given.store))
        if given.growth:
            asyncio.run(growth(Path(folder) / "b", [int(size) for size in given.growth.split(",")]))


if __name__ == "__main__":
    main()
