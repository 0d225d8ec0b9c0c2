"""Extract, transform, load: CSV files → NDJSON → a collection, and a report of it every morning."""

import csv
import json
from collections import Counter
from typing import Any
from urllib.parse import unquote_plus

from martlet import App, Bucket, Collection, HTTPError

app = App("etl")
incoming = Bucket("incoming")
clean = Bucket("clean")
sales = Collection("sales")
reports = Collection("reports")


@app.on(incoming.created, suffix=".csv", timeout=60, uses=[incoming.read, clean.write])
def convert(event: dict, context: Any) -> None:
    """Each good row becomes a line of NDJSON; the others are told by line in a file beside it."""
    for key in keys(event):
        rows, errors = parsed(incoming.get(key).decode("utf-8-sig", errors="replace"))
        clean.put(f"{key}.errors.txt", "".join(f"{error}\n" for error in errors))
        clean.put(f"{key}.ndjson", "".join(f"{json.dumps(row)}\n" for row in rows))


def parsed(text: str) -> tuple[list[dict], list[str]]:
    rows, errors = [], []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        try:
            sale = {"product": row["product"].strip(), "quantity": int(row["quantity"]), "cents": int(row["cents"])}
            if not sale["product"] or sale["quantity"] <= 0 or sale["cents"] < 0:
                raise ValueError("a sale has a product, a quantity and a price")
            rows.append(sale)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            errors.append(f"line {reader.line_num}: {error!r}")
    return rows, errors


@app.on(clean.created, suffix=".ndjson", timeout=60, uses=[clean.read, sales])
def load(event: dict, context: Any) -> None:
    """A sale's id is its file and place, so a file that comes again, or better, replaces what it brought before."""
    for key in keys(event):
        rows = [json.loads(line) for line in clean.get(key).splitlines()]
        new = {f"{key}:{place:08}": row for place, row in enumerate(rows)}
        for id, row in new.items():
            sales.put(id, row)
        for found in sales.scan(f"{key}:"):
            if found.id not in new:
                sales.delete(found.id)


@app.schedule("cron(0 6 * * ? *)", timezone="Europe/Zurich", timeout=60, uses=[sales.read, reports.write])
def report() -> None:
    cents, pieces = Counter(), Counter()
    for found in sales.scan():
        cents[found.value["product"]] += found.value["cents"]
        pieces[found.value["product"]] += found.value["quantity"]
    reports.put("latest", {product: {"pieces": pieces[product], "cents": cents[product]} for product in sorted(cents)})


@app.get("/report", uses=[reports.read])
def show() -> dict:
    latest = reports.get("latest")
    if latest is None:
        raise HTTPError(404, "there is no report yet")
    return latest.value


def keys(event: dict) -> list[str]:
    return [unquote_plus(record["s3"]["object"]["key"]) for record in event["Records"]]
