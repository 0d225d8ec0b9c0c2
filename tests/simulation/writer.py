"""A process that writes until it is killed: prints "<task> <number>" only after that transaction was acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from martlet.clock import Clock
from martlet.store import Store, Tx, counter_value

TASKS = 16


async def main(place: str) -> None:
    if "://" in place:
        store = await Store.open(place, clock=Clock(), engine="martlet.store.engines.postgres:open_engine")
    else:
        store = await Store.open(Path(place), clock=Clock())

    async def write(task: int) -> None:
        number = store.read(lambda reader: counter_value(reader.get(b"\x02last%d" % task)))
        while True:
            number += 1

            def add(tx: Tx, number: int = number) -> None:
                tx.increment(b"\x02last%d" % task, 1)
                tx.increment(b"\x02total", 1)
                tx.put(b"\x03%d-%d" % (task, number), b"x" * (number % 2000))
                tx.append("t", b"%d" % task, b"%d" % number)
                tx.cursor_move("c", tx.cursor("c"), tx.last_seq)

            await store.transact(add)
            os.write(1, b"%d %d\n" % (task, number))

    await asyncio.gather(*(write(task) for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
