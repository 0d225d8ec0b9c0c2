"""What the AWS codec costs a small call; `python -m bench.codec` shows its parts."""

from __future__ import annotations

from bench.codec import CASES, measured
from bench.context import Context
from bench.table import Row

__all__ = ["run"]


def run(ctx: Context) -> list[Row]:
    rows = []
    for name, (request, result) in CASES.items():
        routing, *rest = measured(request, result)
        took, json = sum(rest), "json 1." in name
        said = f"{took:.1f} µs (routing {routing:.1f} µs more)"
        rows.append(Row(f"codec: {name}", "≤ 15 µs" if json else "", said, "", took <= 15 if json else None))
    return rows
