"""The bill of a load equals the sum of its requests."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import Api, Command, eventually, write_app

pytestmark = pytest.mark.e2e

SHOP = """
    from martlet import App, Collection, Queue

    app = App("shop")
    orders, mail = Collection("orders"), Queue("mail")

    @app.post("/orders/{id}", uses=[orders.write, mail.send])
    def place(id: str) -> dict:
        orders.put(id, {"pears": 3})
        mail.send(id)
        return {"placed": id}
"""
COUNT = 120


def test_a_bill_is_the_sum_of_what_was_asked(start: Start, martlet: Command, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("""
currency = "CHF"
[prices]
invocation_million = "1"
gateway_million = "10"
queue_million = "100"
document_write_million = "1000"
""")
    platform = start(write_app(tmp_path / "shop", SHOP), "--no-watch", environ={"MARTLET_PRICES": str(prices)})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: httpx.post(f"{platform.app_url}/orders/{n}", timeout=60).status_code, range(COUNT)))
    assert answers == [200] * COUNT
    api = Api(platform)

    def total() -> Decimal:
        return Decimal(api.get("/v1/bill")["total"])

    writes = eventually(lambda: sum(row["write_operations"] for row in api.get("/v1/usage")["documents"]))
    expected = Decimal(COUNT) * (1 + 10 + 100) / 1_000_000
    eventually(lambda: total() >= expected + Decimal(COUNT) / 1000)
    found = api.get("/v1/bill")
    lines = {(line["app"], line["meter"]): Decimal(line["amount"]) for line in found["lines"] if Decimal(line["amount"])}
    writes = sum(row["write_operations"] for row in api.get("/v1/usage")["documents"])
    assert lines == {
        ("shop", "invocation_million"): Decimal(COUNT) / 1_000_000,
        ("shop", "gateway_million"): Decimal(COUNT) / 100_000,
        ("shop", "queue_million"): Decimal(COUNT) / 10_000,
        ("shop", "document_write_million"): Decimal(writes) / 1000,
    }
    assert Decimal(found["total"]) == sum(lines.values()) == Decimal(found["by_app"]["shop"])
    assert found["currency"] == "CHF"

    told = martlet("bill", data=platform.data)
    assert "CHF so far" in told.out
    listed = list(csv.DictReader(io.StringIO(martlet("bill", "--csv", data=platform.data).out)))
    assert sum(Decimal(line["amount"]) for line in listed) == total()
    page = tmp_path / "invoice.html"
    assert martlet("bill", "--prices", "list", "--page", page, data=platform.data).code == 0
    assert "<h1>Invoice" in page.read_text()
    assert martlet("bill", "--month", "2020-01", "--json", data=platform.data).json["lines"] == []
    assert martlet("bill", "--month", "soon", data=platform.data).code == 1


def test_a_faulty_price_book_stops_the_start(martlet: Command, tmp_path: Path) -> None:
    done = martlet("up", data=tmp_path / "data", environ={"MARTLET_PRICES": str(tmp_path / "none.toml"), "MARTLET_PORT": "0"})
    assert done.code == 5
    assert "MARTLET_PRICES" in done.err


def test_a_budget_stops_an_app_and_tells(start: Start, martlet: Command, tmp_path: Path) -> None:
    app = """
        from martlet import App, Collection

        app = App("shop")
        heard = Collection("heard")

        @app.get("/")
        def hello() -> str:
            return "hello"
    """
    alarm = """
        from martlet import App, Collection

        app = App("watch")
        heard = Collection("heard")

        @app.function(uses=[heard.write])
        def alarm(event, context):
            heard.put(str(event["percent"]), event)
    """
    platform = start(write_app(tmp_path / "shop", app), "--no-watch")
    assert martlet("deploy", write_app(tmp_path / "watch", alarm), data=platform.data).code == 0
    done = martlet(
        "budget", "set", "shop", "--invocations", "5", "--period", "month", "--tell", "watch-alarm", data=platform.data
    )
    assert done.code == 0, done.err
    answers = [httpx.get(platform.app_url, headers={"host": "shop.localhost"}, timeout=30) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    refused = eventually(
        lambda: next(
            (
                answer
                for _ in range(3)
                if (answer := httpx.get(platform.app_url, headers={"host": "shop.localhost"}, timeout=30)).status_code == 429
            ),
            None,
        )
    )
    assert "budget invocations is 5 per month" in refused.text
    assert int(refused.headers["retry-after"]) > 0
    api = Api(platform)
    eventually(lambda: api.request("GET", "/v1/documents/heard/100?app=watch").status_code == 200)
    (row,) = martlet("budget", "list", "--json", data=platform.data).json["budgets"]
    assert row["stopped"]
    assert "stopped" in martlet("budget", "list", data=platform.data).out
    assert martlet("budget", "delete", "shop", data=platform.data).code == 0
    assert httpx.get(platform.app_url, headers={"host": "shop.localhost"}, timeout=30).status_code == 200
    assert martlet("budget", "set", "shop", data=platform.data).code == 1
    assert martlet("budget", "set", data=platform.data).code == 2
    alarm = ("shop", "--money", "5", "--tell", "no-one")
    for wrong, told in ((("nope", "--money", "5"), "no app nope"), (alarm, "no function no-one")):
        refused = martlet("budget", "set", *wrong, data=platform.data)
        assert (refused.code, told in refused.err) == (1, True)
