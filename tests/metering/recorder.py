"""A process that records until it is killed: "r <n>" when n invocations are recorded."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from martlet.clock import Clock
from martlet.metering import Ledger
from martlet.store import Store
from martlet.types import Invocation, Outcome


async def main(folder: Path, burst: int) -> None:
    clock = Clock()
    ledger = Ledger(await Store.open(folder, clock=clock), clock, flush_ms=100)
    ledger.start()
    count = 0
    while True:
        for _ in range(burst):
            count += 1
            invocation = Invocation(f"app-f{count % 7}", b"", "", lambda *_: None)
            invocation.duration_us = 1500
            ledger.record(invocation, Outcome())
        os.write(1, b"r %d\n" % count)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
