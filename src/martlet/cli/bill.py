"""`martlet bill`: what a month costs, as a table, JSON, CSV, or a page to print. Exact; only what is shown is rounded."""

from __future__ import annotations

import csv
import html
import json
import sys
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from martlet.cli.failure import USAGE, Failure
from martlet.cli.output import table

__all__ = ["budget", "run"]

_SHOWN = Decimal("0.000001")
_COLUMNS = ("app", "function", "meter", "quantity", "price", "amount")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Invoice {month}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #ddd }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
tfoot td {{ font-weight: 600; border-top: 2px solid #222 }}
</style></head><body><h1>Invoice {month}</h1>
<p>Prices: {prices}, {currency}. If it goes on like this, the month comes to {forecast} {currency}.</p>
<table><thead><tr><th>App</th><th>Function</th><th>Meter</th><th class="n">Quantity</th><th class="n">Price</th>
<th class="n">Amount</th></tr></thead><tbody>
{rows}
</tbody><tfoot><tr><td colspan="5">Total</td><td class="n">{total}</td></tr></tfoot></table></body></html>
"""


class _Client(Protocol):
    def call(self, method: str, path: str, query: dict[str, Any] | None = None) -> Any: ...


def run(client: _Client, arguments: Any) -> int:
    query = {"month": arguments.month, "prices": arguments.prices}
    found = client.call("GET", "/v1/bill", query)
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow((*_COLUMNS, "currency", "month"))
        writer.writerows([*(line[name] for name in _COLUMNS), found["currency"], found["month"]] for line in found["lines"])
    else:
        _show(found)
    if arguments.page:
        try:
            Path(arguments.page).write_text(_page(found), encoding="utf-8")
        except OSError as error:
            raise Failure(USAGE, f"cannot write {arguments.page}: {error.strerror}") from None
    return 0


def shown(text: str) -> str:
    """An exact amount with six places, or fewer."""
    rounded = Decimal(text).quantize(_SHOWN, ROUND_HALF_EVEN).normalize()
    return f"{rounded:f}"


def _show(found: dict[str, Any]) -> None:
    rows = [
        (line["app"] or "-", line["function"], line["meter"], shown(line["quantity"]), line["price"], shown(line["amount"]))
        for line in found["lines"]
    ]
    print(table(["APP", "FUNCTION", "METER", "QUANTITY", "PRICE", "AMOUNT"], rows, empty="nothing used"))
    print()
    for app, amount in sorted(found["by_app"].items()):
        print(f"{app or '-'}: {shown(amount)} {found['currency']}")
    month, currency = found["month"], found["currency"]
    so_far, forecast = shown(found["total"]), shown(found["forecast"])
    print(f"{month}: {so_far} {currency} so far, {forecast} if it goes on (prices: {found['prices']})")


def _limits(one: dict[str, Any]) -> list[tuple[str, ...]]:
    told, state = one["budget"], "stopped" if one["stopped"] else ""
    kinds = [kind for kind in ("invocations", "requests", "gb_seconds", "money") if told[kind] is not None]
    return [(told["app"], told["period"], kind, shown(one["used"][kind]), str(told[kind]), state) for kind in kinds]


def budget(client: Any, arguments: Any) -> int:
    """`martlet budget`."""
    if arguments.action == "list":
        found = client.call("GET", "/v1/budgets")
        if arguments.json:
            print(json.dumps(found, indent=2))
            return 0
        rows = [row for one in found["budgets"] for row in _limits(one)]
        print(table(["APP", "PERIOD", "KIND", "USED", "LIMIT", "STATE"], rows, empty="no budgets"))
        return 0
    if not arguments.app:
        raise Failure(USAGE, f"{arguments.action} takes the APP", "martlet budget list")
    path = f"/v1/budgets/{quote(arguments.app, safe='')}"
    if arguments.action == "delete":
        client.call("DELETE", path)
        return 0
    given = {"invocations": arguments.invocations, "requests": arguments.requests, "gb_seconds": arguments.gb_seconds}
    body = {"period": arguments.period, **given, "money": arguments.money, "tell": arguments.tell}
    if arguments.alert:
        body["alerts"] = arguments.alert
    client.call("PUT", path, None, json.dumps({name: value for name, value in body.items() if value is not None}).encode())
    return 0


def _page(found: dict[str, Any]) -> str:
    def row(line: dict[str, Any]) -> str:
        cells = [f"<td>{html.escape(line[name] or '-')}</td>" for name in ("app", "function", "meter")]
        numbers = (shown(line["quantity"]), line["price"], shown(line["amount"]))
        cells += [f'<td class="n">{html.escape(text)}</td>' for text in numbers]
        return f"<tr>{''.join(cells)}</tr>"

    told = {name: html.escape(str(found[name])) for name in ("month", "currency", "prices")}
    rows = "\n".join(map(row, found["lines"]))
    return _PAGE.format(**told, rows=rows, total=shown(found["total"]), forecast=shown(found["forecast"]))
