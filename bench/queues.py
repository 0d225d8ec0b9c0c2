"""Durable queues: what a send, and a receive with its delete, cost in the room; over HTTP see `make bench ONLY=queues`.

    python bench/queues.py [--messages 4000] [--clients 16] [--folder .] [--deep 1000000]

Every send is fsynced before it is answered, every receive and every delete too. Put `--folder` on the disk that matters: a
tmpfs has no fsync to save.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from martlet.clock import Clock
from martlet.queues import Queues
from martlet.queues.queues import Draft
from martlet.store import Store

BODY = "x" * 200
_ROUNDS = 40  # short ones in turns: what else the machine does meets both


async def timed(clients: int, count: int, work: Callable[[int], Awaitable[int]]) -> tuple[float, float]:
    """(messages a second, median milliseconds of a call), each of `clients` calling `work(number)` until `count` are done."""
    numbers = iter(range(count))
    took: list[float] = []
    done = 0

    async def client() -> None:
        nonlocal done
        for number in numbers:
            began = time.perf_counter()
            got = await work(number)
            took.append(time.perf_counter() - began)
            if not got:
                return
            done += got

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began), sorted(took)[len(took) // 2] * 1000


def show(what: str, result: tuple[float, float]) -> None:
    print(f"{what:44} {result[0]:>9,.0f} messages/s   p50 {result[1]:6.2f} ms", flush=True)


async def in_the_room(folder: Path, count: int, clients: int) -> None:
    clock = Clock()
    store = await Store.open(folder, clock=clock)
    room = Queues(store, clock)
    await room.start()
    for name, batch in (("standard", 1), ("standard", 10), ("q.fifo", 1), ("q.fifo", 10)):
        fifo = name.endswith(".fifo")
        await room.create(name, {"FifoQueue": "true"} if fifo else {})

        async def send(number: int, name: str = name, batch: int = batch) -> int:
            drafts = [
                Draft(body=BODY, group=str(number % 64), deduplication_id=f"{batch}-{number}-{at}") for at in range(batch)
            ]
            return len(await room.send(name, drafts))

        async def drain(number: int, name: str = name, batch: int = batch) -> int:
            found = await room.receive(name, batch, wait_ms=0)
            if found:
                await room.acknowledge(name, [one.handle for one in found])
            return len(found)

        show(f"room {name} send, batches of {batch}", await timed(clients, count // batch, send))
        show(f"room {name} receive + delete, {batch} at once", await timed(clients, count // batch, drain))
    await room.stop()
    await store.close()


async def depths(folder: Path, count: int, clients: int, waiting: int = 1_000_000) -> dict[str, tuple[float, float]]:
    """What is done -> messages a second with a thousand messages waiting, and with `waiting`: medians of rounds in turns."""
    clock = Clock()
    store = await Store.open(folder, clock=clock)
    room = Queues(store, clock)
    await room.start()
    found: dict[str, tuple[list[float], list[float]]] = {"send": ([], []), "receive + delete": ([], [])}
    for name, there in (("shallow", 1_000), ("deep", waiting)):
        await room.create(name)
        await timed(4, there // 500, lambda _, name=name: _send(room, name, 500))  # type: ignore[misc]
    await store.maintain()
    for number in range(_ROUNDS):
        for what, work in (("send", _send), ("receive + delete", _drain)):
            for at, name in ((0, "shallow"), (1, "deep")) if number % 2 else ((1, "deep"), (0, "shallow")):
                rate, _ = await timed(clients, count, lambda _, work=work, name=name: work(room, name))  # type: ignore[misc]
                found[what][at].append(rate)
    await room.stop()
    await store.close()
    return {what: (statistics.median(shallow), statistics.median(deep)) for what, (shallow, deep) in found.items()}


async def _send(room: Queues, name: str, count: int = 1) -> int:
    return len(await room.send(name, [Draft(body=BODY)] * count))


async def _drain(room: Queues, name: str) -> int:
    found = await room.receive(name, 1, wait_ms=0)
    await room.acknowledge(name, [one.handle for one in found])
    return len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--deep", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        uvloop.run(in_the_room(Path(folder) / "store", given.messages, given.clients))
        found = uvloop.run(depths(Path(folder) / "deep", 320, given.clients, given.deep))
        for what, (shallow, deep) in found.items():
            print(f"{what}: {shallow:,.0f} messages/s with 1,000 waiting, {deep:,.0f} with {given.deep:,}")


if __name__ == "__main__":
    main()
