"""Counters and latency histograms, and their Prometheus text. The one door for "how often" and "how long".

Nothing here blocks or allocates on the hot path beyond an integer addition: instruments are made once and kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

__all__ = ["Counter", "Histogram", "Registry"]

_BOUNDS_US = tuple(int(100 * 2 ** (step / 2)) for step in range(40))  # 0.1 ms to 74 s in steps of 1.41


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        self.value += amount


class Histogram:
    """Durations in microseconds, in buckets that grow by the square root of two (so a quantile is within 20 %)."""

    __slots__ = ("buckets", "count", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS_US) + 1)
        self.count = 0
        self.total_us = 0

    def record(self, duration_us: int) -> None:
        self.buckets[bisect_left(_BOUNDS_US, duration_us)] += 1
        self.count += 1
        self.total_us += duration_us

    def quantile_us(self, share: float) -> int:
        """The upper bound of the bucket that holds the `share` quantile; 0 without samples."""
        if not self.count:
            return 0
        wanted = share * self.count
        seen = 0
        for index, amount in enumerate(self.buckets):
            seen += amount
            if seen >= wanted:
                return _BOUNDS_US[min(index, len(_BOUNDS_US) - 1)]
        return _BOUNDS_US[-1]


class Registry:
    """All instruments of one platform, by name and labels; `render` is the `/metrics` page."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], Counter] = {}
        self._histograms: dict[tuple[str, tuple[tuple[str, str], ...]], Histogram] = {}
        self._gauges: dict[str, Callable[[], Iterable[tuple[dict[str, str], float]]]] = {}
        self._help: dict[str, str] = {}

    def counter(self, name: str, help_text: str, **labels: str) -> Counter:
        self._help.setdefault(name, help_text)
        return self._counters.setdefault((name, tuple(sorted(labels.items()))), Counter())

    def histogram(self, name: str, help_text: str, **labels: str) -> Histogram:
        self._help.setdefault(name, help_text)
        return self._histograms.setdefault((name, tuple(sorted(labels.items()))), Histogram())

    def gauge(self, name: str, help_text: str, read: Callable[[], Iterable[tuple[dict[str, str], float]]]) -> None:
        """`read` is called when the page is rendered and yields (labels, value)."""
        self._help[name] = help_text
        self._gauges[name] = read

    def render(self) -> str:
        """Prometheus text format 0.0.4."""
        lines: list[str] = []
        by_name: dict[str, list[str]] = {}
        for (name, labels), counter in self._counters.items():
            by_name.setdefault(name, []).append(f"{name}{_labels(labels)} {counter.value}")
        for (name, labels), histogram in self._histograms.items():
            by_name.setdefault(name, []).extend(_histogram_lines(name, labels, histogram))
        for name, read in self._gauges.items():
            by_name[name] = [f"{name}{_labels(tuple(sorted(found.items())))} {value:g}" for found, value in read()]
        for name in sorted(by_name):
            kind = "gauge" if name in self._gauges else "counter" if name.endswith("_total") else "histogram"
            lines += [f"# HELP {name} {self._help[name]}", f"# TYPE {name} {kind}", *by_name[name]]
        return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    escaped = ((key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in labels)
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"


def _histogram_lines(name: str, labels: tuple[tuple[str, str], ...], histogram: Histogram) -> list[str]:
    lines, seen = [], 0
    for bound, amount in zip(_BOUNDS_US, histogram.buckets, strict=False):
        seen += amount
        lines.append(f"{name}_bucket{_labels((*labels, ('le', f'{bound / 1e6:g}')))} {seen}")
    lines.append(f"{name}_bucket{_labels((*labels, ('le', '+Inf')))} {histogram.count}")
    lines.append(f"{name}_sum{_labels(labels)} {histogram.total_us / 1e6:g}")
    lines.append(f"{name}_count{_labels(labels)} {histogram.count}")
    return lines
