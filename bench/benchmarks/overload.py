"""Ten times the load that a function can bear: it goes on doing what it can, and refuses the rest at once.

The function takes 10 ms and runs four at a time, so that the load generator is not what saturates.
"""

from __future__ import annotations

from collections import Counter

from bench import apps
from bench.context import Context
from bench.load import Latencies, fixed_rate, wrk
from bench.table import Row, milliseconds

__all__ = ["run"]

_SECONDS = 10
_SETTLE_SECONDS = 2
_REFUSALS = (429, 503)


def run(ctx: Context) -> list[Row]:
    with ctx.platform(apps.copy("overload", ctx.new_folder("app"))) as platform:
        wrk(platform.port, "/work", connections=4, seconds=1)
        peak = max(wrk(platform.port, "/work", connections=4, seconds=3).per_second for _ in range(3))
        arrivals = fixed_rate(platform.port, "/work", 10 * peak, _SECONDS, connections=2_000)
    served = sum(status == 200 and _SETTLE_SECONDS <= done < _SECONDS for status, _, done in arrivals.answers)
    goodput = served / (_SECONDS - _SETTLE_SECONDS)
    refused = Latencies([done - due for status, due, done in arrivals.answers if status in _REFUSALS])
    statuses = Counter(status for status, _, _ in arrivals.answers)
    clean = not arrivals.lost and not arrivals.unsent and set(statuses) <= {200, *_REFUSALS}
    said = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    return [
        Row(
            f"goodput at 10 × saturation ({10 * peak:,.0f}/s offered)",
            "≥ 0.9 × peak, nothing lost",
            f"{goodput:,.0f}/s of {peak:,.0f}/s; {said}; {arrivals.lost} lost, {arrivals.unsent} unsent",
            f"{goodput / peak:.2f} × own peak",
            goodput >= 0.9 * peak and clean,
        ),
        Row("… refusals", "p99 ≤ 100 ms", milliseconds(refused), "", bool(refused.seconds) and refused.p99 <= 100),
    ]
