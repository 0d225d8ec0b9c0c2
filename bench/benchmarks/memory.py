"""What Martlet costs while nobody asks: idle, with parked instances, with a thousand functions at zero.

Memory is the proportional set size of the whole process tree. An instance's share is what the tree grew by, so that what
moves to the supervisor or the gateway is counted too.
"""

from __future__ import annotations

import time

from bench import apps
from bench.context import Context
from bench.load import at_once, closed_loop
from bench.processes import cpu_percent, pss_mb
from bench.table import Row

__all__ = ["run"]

_INSTANCES = 100
_FUNCTIONS = 1_000


def run(ctx: Context) -> list[Row]:
    return [*_idle(ctx), *_parked(ctx, "", 2), *_parked(ctx, "pandas", 6), *_at_zero(ctx)]


def _idle(ctx: Context) -> list[Row]:
    with ctx.platform(apps.copy("noop", ctx.new_folder("app"))) as platform:
        time.sleep(3)
        percent, memory = cpu_percent(platform.pid, 10), pss_mb(platform.pid)
    return [
        Row("idle platform: memory", "≤ 80 MB", f"{memory:.1f} MB", "", memory <= 80),
        Row("idle platform: processor", "≤ 2 % of a core", f"{percent:.2f} %", "", percent <= 2),
    ]


def _parked(ctx: Context, package: str, goal_mb: float) -> list[Row]:
    with ctx.at_zero(apps.many(ctx.new_folder("app"), _INSTANCES + 1, package)) as platform:
        closed_loop(platform.port, f"/f{_INSTANCES}", 1)
        time.sleep(2)
        before = pss_mb(platform.pid)
        answered = at_once(platform.port, [f"/f{number}" for number in range(_INSTANCES)])
        time.sleep(3)
        each = (pss_mb(platform.pid) - before) / _INSTANCES
        again = at_once(platform.port, [f"/f{number}" for number in range(_INSTANCES)])
    figure = f"parked instance ({_INSTANCES} of them), {package or 'no dependencies'}"
    failed = answered.failed + again.failed
    return [
        Row(
            figure,
            f"≤ {goal_mb:g} MB each",
            f"{each:.2f} MB" + (f", {failed} failed" if failed else ""),
            "",
            each <= goal_mb and not failed,
        )
    ]


def _at_zero(ctx: Context) -> list[Row]:
    app, data = apps.many(ctx.new_folder("app"), _FUNCTIONS), ctx.new_folder("data")
    started = time.perf_counter()
    with ctx.platform(app, data=data):
        deployed = time.perf_counter() - started
    started = time.perf_counter()
    with ctx.platform(app, data=data) as platform:
        ready = time.perf_counter() - started
        failed = closed_loop(platform.port, f"/f{_FUNCTIONS - 1}", 1).failed
        time.sleep(3)
        memory = pss_mb(platform.pid)
    return [
        Row(
            f"{_FUNCTIONS:,} functions at zero: start",
            "≤ 2 s",
            f"{ready:.2f} s (first deploy {deployed:.1f} s)",
            "",
            ready <= 2 and not failed,
        ),
        Row(f"{_FUNCTIONS:,} functions at zero: memory", "≤ 120 MB", f"{memory:.1f} MB", "", memory <= 120),
    ]
