"""The same trivial handler, warm, on Martlet and on each peer. All servers run; rounds take turns; medians of the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from bench import apps
from bench.context import Context
from bench.load import Latencies, Rate, fixed_rate, wrk
from bench.peers import functions_framework, serverless_offline, uvicorn_bare, workerd
from bench.table import Row

__all__ = ["run"]

T = TypeVar("T")

_ROUNDS = 3
_SECONDS = 4
_CONNECTIONS = 64
_STEADY_RATE = 1_000


def run(ctx: Context) -> list[Row]:
    with ExitStack() as stack:
        platform = stack.enter_context(ctx.platform(apps.copy("noop", ctx.new_folder("app"))))
        places = {"martlet": (platform.port, "/noop"), "martlet, concurrency 64": (platform.port, "/noop-concurrent")}
        for start in (uvicorn_bare.start, workerd.start, functions_framework.start, serverless_offline.start):
            peer = stack.enter_context(start())
            places[peer.name] = (peer.port, peer.path)
        rates = _in_turns({name: partial(_saturate, *place) for name, place in places.items()})
        steady = _in_turns({name: partial(_steady, *places[name]) for name in ("uvicorn", "martlet")})
    return [*_rate_rows(rates), *_steady_rows(steady)]


def _saturate(port: int, path: str) -> Rate:
    wrk(port, path, connections=_CONNECTIONS, seconds=1)  # warm
    return wrk(port, path, connections=_CONNECTIONS, seconds=_SECONDS)


def _steady(port: int, path: str) -> Latencies:
    return fixed_rate(port, path, _STEADY_RATE, _SECONDS).latencies()


def _in_turns(measure: dict[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Each measurement `_ROUNDS` times, taking turns, so that a busy minute of the machine hits all of them."""
    found: dict[str, list[T]] = {name: [] for name in measure}
    for _ in range(_ROUNDS):
        for name, once in measure.items():
            found[name].append(once())
    return found


def _rate_rows(rates: dict[str, list[Rate]]) -> list[Row]:
    median = {name: statistics.median(rate.per_second for rate in found) for name, found in rates.items()}
    goals = {"uvicorn": 0.6, "workerd": 0.9, "functions-framework": 3.0, "serverless-offline": 3.0}
    rows = [
        Row(f"warm, {_CONNECTIONS} connections: {name}", "", _said(found)) for name, found in rates.items() if name in goals
    ]
    for name in ("martlet", "martlet, concurrency 64"):
        failed = sum(rate.failed for rate in rates[name])
        rows.append(Row(f"warm, {_CONNECTIONS} connections: {name}", "0 failed", _said(rates[name]), "", failed == 0))
        rows += [
            Row(
                f"… against {peer}",
                f"≥ {goal} ×",
                "",
                f"{median[name] / median[peer]:.2f} ×",
                median[name] >= goal * median[peer],
            )
            for peer, goal in goals.items()
        ]
    return rows


def _said(found: list[Rate]) -> str:
    rate, p50, p99 = (
        statistics.median(values) for values in zip(*((one.per_second, one.p50, one.p99) for one in found), strict=True)
    )
    failed = sum(one.failed for one in found)
    return f"{rate:,.0f}/s · p50 {p50:.2f} · p99 {p99:.2f} ms" + (f", {failed} failed" if failed else "")


def _steady_rows(steady: dict[str, list[Latencies]]) -> list[Row]:
    p50 = {name: statistics.median(one.p50 for one in found) for name, found in steady.items()}
    p99 = {name: statistics.median(one.p99 for one in found) for name, found in steady.items()}
    failed = sum(one.failed for one in steady["martlet"])
    added50, added99 = (figures["martlet"] - figures["uvicorn"] for figures in (p50, p99))
    return [
        Row(
            f"added to uvicorn at {_STEADY_RATE:,} requests/s",
            "p50 ≤ 0.3 ms, p99 ≤ 1.5 ms",
            f"p50 {added50:+.2f} · p99 {added99:+.2f} ms (to {p50['martlet']:.2f}, {p99['martlet']:.2f})"
            + (f", {failed} failed" if failed else ""),
            f"{p50['martlet'] / p50['uvicorn']:.2f} × p50",
            added50 <= 0.3 and added99 <= 1.5 and not failed,
        )
    ]
