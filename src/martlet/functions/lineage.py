"""How often a chain of events has come through a function: the `Lineage` part of the trace header.

A function's SDK sends the header of its own event on with what it calls, so that a loop (f calls f, or f → g → f) can be
seen. Form: "Root=…;Parent=…;Sampled=0;Lineage=<function>:<times>|<function>:<times>", at most eight functions.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from martlet.clock import token_hex

__all__ = ["new_trace", "passed_through"]

_PART: Final = re.compile(r"Lineage=([0-9a-f]{8}:[0-9]{1,5}(?:\|[0-9a-f]{8}:[0-9]{1,5}){0,7})")
_FUNCTIONS_AT_MOST: Final = 8


def new_trace(now_ms: int, sampled: bool = False) -> str:
    """A header for an event that came without one. Source: X-Ray developer guide, tracing header."""
    both = token_hex(20)
    return f"Root=1-{now_ms // 1000:08x}-{both[:24]};Parent={both[24:]};Sampled={int(sampled)}"


def passed_through(trace: str, function: str) -> tuple[str, int]:
    """(the header for an event that goes to `function`, how often its chain has been there, this time included)."""
    mark = hashlib.sha256(function.encode()).hexdigest()[:8]
    found = _PART.search(trace)
    if found is None:
        return f"{trace};Lineage={mark}:1" if trace else f"Lineage={mark}:1", 1
    counts: dict[str, int] = {}
    for one in found[1].split("|"):
        name, _, times = one.partition(":")
        counts[name] = int(times)
    times = counts.pop(mark, 0) + 1
    counts[mark] = times
    kept = list(counts.items())[-_FUNCTIONS_AT_MOST:]
    lineage = "|".join(f"{name}:{count}" for name, count in kept)
    return f"{trace[: found.start()]}Lineage={lineage}{trace[found.end() :]}", times
