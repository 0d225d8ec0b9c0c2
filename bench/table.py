"""One line of the result, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.load import Latencies

__all__ = ["Row", "milliseconds", "render"]


class Row(NamedTuple):
    """`met` None: no goal, only for comparison. `ratio`: to the peer measured in the same run."""

    figure: str
    goal: str
    measured: str
    ratio: str = ""
    met: bool | None = None


def milliseconds(found: Latencies) -> str:
    """ "p50 1.23 · p95 4.5 · p99 6.7 ms", and the failed ones if there are any."""
    failed = f", {found.failed} failed" if found.failed else ""
    return f"p50 {found.p50:.2f} · p95 {found.p95:.2f} · p99 {found.p99:.2f} ms{failed}"


def render(rows: Sequence[Row]) -> str:
    """Columns padded to their widest cell."""
    verdicts = {True: "met", False: "MISSED", None: ""}
    cells = [("figure", "goal", "measured", "ratio to peer", ""), *((*row[:4], verdicts[row.met]) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
