"""First requests to 100 distinct functions, all at once. Three bursts, each to functions that nobody has called yet."""

from __future__ import annotations

import time

from bench import apps
from bench.context import Context
from bench.load import Latencies, at_once
from bench.peers import workerd
from bench.table import Row, milliseconds

__all__ = ["run"]

_COUNT = 100
_BURSTS = 3


def run(ctx: Context) -> list[Row]:
    ours, theirs = [], []
    with ctx.at_zero(apps.many(ctx.new_folder("app"), _COUNT * _BURSTS)) as platform, workerd.start() as peer:
        for burst in range(_BURSTS):
            numbers = range(burst * _COUNT, (burst + 1) * _COUNT)
            time.sleep(1)
            ours.append(at_once(platform.port, [f"/f{number}" for number in numbers]))
            time.sleep(1)
            theirs.append(at_once(peer.port, [f"/{number}" for number in numbers]))
    cold, isolates = _together(ours), _together(theirs)
    ratio = f"{cold.p95 / isolates.p95:.2f} × workerd's p95 of {isolates.p95:.0f} ms"
    return [
        Row(
            "100 first requests to 100 functions at once",
            "p95 ≤ 400 ms",
            milliseconds(cold),
            ratio,
            cold.p95 <= 400 and not cold.failed,
        )
    ]


def _together(bursts: list[Latencies]) -> Latencies:
    return Latencies([second for burst in bursts for second in burst.seconds], sum(burst.failed for burst in bursts))
