"""Tables and values for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from martlet.cli.failure import printable

__all__ = ["age_ms", "nested", "table"]

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> str:
    """Aligned columns, numbers to the right; bold headings on a terminal only. `empty` is said when there are no rows."""
    if not rows:
        return empty
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(heading), *(len(row[at]) for row in cells)) for at, heading in enumerate(headings)]
    numeric = [all(isinstance(row[at], int | float) for row in rows) for at in range(len(headings))]
    lines = [_line(headings, widths, numeric), *(_line(row, widths, numeric) for row in cells)]
    if sys.stdout.isatty():
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return printable(text).replace("\n", " ").replace("\t", " ")


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = (
        cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(aligned).rstrip()


def nested(value: dict[str, object], indent: int = 0) -> list[str]:
    """An object as indented "name: value" lines."""
    lines: list[str] = []
    width = max((len(name) for name in value), default=0)
    for name, inner in value.items():
        if isinstance(inner, dict):
            lines += [f"{' ' * indent}{name}:", *nested(inner, indent + 2)] if inner else [f"{' ' * indent}{name}: -"]
        elif isinstance(inner, list) and inner and all(isinstance(row, dict) for row in inner):
            headings = list(dict.fromkeys(heading for row in inner for heading in row))
            rows = [[row.get(heading, "-") for heading in headings] for row in inner]
            shown = table([heading.upper() for heading in headings], rows, empty="")
            lines += [f"{' ' * indent}{name}:", *(f"{' ' * indent}  {line}" for line in shown.splitlines())]
        else:
            shown = ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)
            lines.append(f"{' ' * indent}{(name + ':').ljust(width + 1)} {printable(shown)}")
    return lines


def age_ms(text: str) -> int:
    """Milliseconds of "30s", "5m", "24h" or "7d". Raises `ValueError`."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise ValueError(f"{text!r} is not an age such as 30s, 5m, 24h or 7d")
    return int(number) * _UNITS[unit]
