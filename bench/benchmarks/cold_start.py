"""A request to a function that nobody has called yet: from the first byte sent to the first byte back.

Requests to Martlet and to workerd (a new isolate for each) take turns, 50 ms apart, over one open connection each. workerd
is measured back to back as well and its better figure counts.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

from bench import apps
from bench.benchmarks.imports import import_seconds
from bench.context import Context
from bench.load import Answer, Connection, Latencies
from bench.peers import workerd
from bench.table import Row, milliseconds

__all__ = ["run"]

_COUNT = 100
_COUNT_WITH_PACKAGE = 60
_GAP_SECONDS = 0.05


def run(ctx: Context) -> list[Row]:
    return [*_bare(ctx), *_with_package(ctx, "pandas"), *_with_package(ctx, "boto3")]


def _bare(ctx: Context) -> list[Row]:
    ours, isolates = [], []
    with ExitStack() as stack:
        platform = stack.enter_context(ctx.at_zero(apps.many(ctx.new_folder("app"), _COUNT + 1)))
        to_us = stack.enter_context(Connection(platform.port))
        to_peer = stack.enter_context(Connection(stack.enter_context(workerd.start()).port))
        to_us.get(f"/f{_COUNT}")  # the path through gateway and zygote is warm; the functions are not
        for number in range(_COUNT):
            time.sleep(_GAP_SECONDS)
            ours.append(to_us.get(f"/f{number}"))
            time.sleep(_GAP_SECONDS)
            isolates.append(to_peer.get(f"/paced-{number}"))
        together = [to_peer.get(f"/back-to-back-{number}") for number in range(_COUNT)]
    cold, paced, unpaced = latencies(ours), _answered(isolates), _answered(together)
    isolate = min(paced.p50, unpaced.p50)
    python = import_seconds("pass")
    return [
        Row(
            "cold start, no dependencies",
            "p50 ≤ 3 ms, p99 ≤ 15 ms",
            milliseconds(cold),
            f"{cold.p50 / (python * 1000):.2f} × python -c pass",
            cold.p50 <= 3 and cold.p99 <= 15 and not cold.failed,
        ),
        Row(
            "… against a new workerd isolate",
            "p50 ≤ 1.2 ×",
            f"isolate: p50 {paced.p50:.2f} ms paced, {unpaced.p50:.2f} ms back to back",
            f"{cold.p50 / isolate:.2f} ×",
            cold.p50 <= 1.2 * isolate,
        ),
    ]


def _with_package(ctx: Context, package: str) -> list[Row]:
    answers = []
    with (
        ctx.at_zero(apps.many(ctx.new_folder("app"), _COUNT_WITH_PACKAGE + 1, package)) as platform,
        Connection(platform.port) as to_us,
    ):
        to_us.get(f"/f{_COUNT_WITH_PACKAGE}")
        for number in range(_COUNT_WITH_PACKAGE):
            time.sleep(_GAP_SECONDS)
            answers.append(to_us.get(f"/f{number}"))
    cold, plain = latencies(answers), import_seconds(f"import {package}")
    ratio = f"{cold.p50 / (plain * 1000):.3f} × python -c 'import {package}'"
    return [Row(f"cold start with {package}", "p50 ≤ 5 ms", milliseconds(cold), ratio, cold.p50 <= 5 and not cold.failed)]


def latencies(answers: list[Answer]) -> Latencies:
    """Of cold starts only. What is not 200, or came from an instance that was called or started before, counts as failed."""
    cold = [answer for answer in answers if answer.status == 200 and _was_cold(answer)]
    return Latencies([answer.first_byte_seconds for answer in cold], len(answers) - len(cold))


def _was_cold(answer: Answer) -> bool:
    said = json.loads(answer.body)
    return bool(said["n"] == 1 and said["age"] <= answer.first_byte_seconds)


def _answered(answers: list[Answer]) -> Latencies:
    good = [answer.first_byte_seconds for answer in answers if answer.status == 200]
    return Latencies(good, len(answers) - len(good))
