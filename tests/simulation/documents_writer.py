"""A process that writes documents until it is killed: prints "<id> <version>" only after that write was acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from martlet.clock import Clock
from martlet.documents import CollectionConfig, Documents, IndexConfig, Term, Transaction
from martlet.store import Store

TASKS = 16
INDEXES = {
    "u": IndexConfig((Term("u"),), unique=True),
    "n": IndexConfig((Term("n"), Term("t[]"))),
}


async def main(folder: Path) -> None:
    store = await Store.open(folder, clock=Clock())
    room = Documents(store, Clock(), holder="local")
    await room.start()
    await room.define_collection("d", "c", CollectionConfig(indexes=INDEXES))

    async def write(task: int) -> None:
        number = 0
        while True:
            number += 1

            def change(tx: Transaction, number: int = number) -> int:
                total = tx.get("sums", f"{task}")
                tx.put("sums", f"{task}", {"n": (total.value()["n"] if total else 0) + 1})
                if number % 10 == 0:
                    tx.delete("c", f"{task}-{number % 7}")
                    return 0
                return tx.put(
                    "c", f"{task}-{number % 7}", {"u": f"{task}/{number % 7}", "n": number % 5, "t": [task, 1]}
                ).version

            version = await room.transact("d", change)
            os.write(1, b"%d-%d %d\n" % (task, number % 7, version))

    await asyncio.gather(*(write(task) for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
