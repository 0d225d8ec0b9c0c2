"""A process that records until it is killed: "r <n>" when n invocations are recorded, "s <n>" when its flushes by timer have
made n of them durable."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from martlet.clock import Clock
from martlet.metering import Ledger
from martlet.store import Store
from martlet.types import Invocation, Outcome


class Told(Ledger):
    """A ledger that says what it flushed."""

    count = 0

    def _flush(self) -> asyncio.Task[None]:
        covered, task = self.count, super()._flush()
        task.add_done_callback(lambda done: done.exception() or os.write(1, b"s %d\n" % covered))
        return task


async def main(folder: Path, burst: int) -> None:
    clock = Clock()
    ledger = Told(await Store.open(folder, clock=clock), clock, flush_ms=100)
    ledger.start()
    while True:
        for _ in range(burst):
            ledger.count += 1
            invocation = Invocation(f"app-f{ledger.count % 7}", b"", "", lambda *_: None)
            invocation.duration_us = 1500
            ledger.record(invocation, Outcome())
        os.write(1, b"r %d\n" % ledger.count)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
