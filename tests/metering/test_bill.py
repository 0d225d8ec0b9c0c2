"""Bills add up: to the last digit, for any use and any prices."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.clock import ManualClock
from martlet.errors import InvalidInput
from martlet.metering import DocumentUsage, Metering, RequestUsage, UsageRow
from martlet.metering.bill import BOOKS, Bill, PriceBook, bill, month_of, open_book
from martlet.metering.requests import meter_of
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

NOVEMBER = month_of("2026-11", 0)
HOUR = NOVEMBER[1] + 5 * 3_600_000


def used(function: str = "shop-f", hour_ms: int = HOUR, **sums: float) -> UsageRow:
    zero = dict.fromkeys(
        ("invocations", "errors", "throttled", "cold_starts", "queue_ms", "init_ms", "duration_ms", "cpu_ms", "gb_ms",
         "peak_memory_mb", "bytes_in", "bytes_out", "egress_bytes_out", "egress_bytes_in"), 0,
    )  # fmt: skip
    return UsageRow(function=function, version=1, hour_ms=hour_ms, **{**zero, **sums})  # type: ignore[arg-type]


def stored(database: str = "shop", hour_ms: int = HOUR, **sums: int) -> DocumentUsage:
    names = ("requests", "read_operations", "write_operations", "compute_operations", "bytes_in", "bytes_out", "storage_bytes")
    return DocumentUsage(database=database, hour_ms=hour_ms, **{**dict.fromkeys(names, 0), **sums})


def asked(app: str = "shop", meter: str = "queue", requests: int = 1, bytes_out: int = 0, hour_ms: int = HOUR) -> RequestUsage:
    return RequestUsage(app=app, meter=meter, hour_ms=hour_ms, requests=requests, bytes_out=bytes_out)


def billed(
    book: PriceBook, functions: list[UsageRow], documents: list[DocumentUsage], requests: list[RequestUsage], now: int = 0
) -> Bill:
    def app_of(name: str) -> str:
        return name.partition("-")[0]

    moment = now or NOVEMBER[2]
    return bill(book, NOVEMBER, moment, functions=functions, documents=documents, requests=requests, app_of=app_of)


def test_a_bill_by_hand() -> None:
    book = PriceBook(
        name="x",
        currency="CHF",
        prices={
            "invocation_million": Decimal("0.20"),
            "gb_second": Decimal("0.00001"),
            "queue_million": Decimal("0.4"),
            "gateway_gb": Decimal("0.09"),
            "document_write_million": Decimal("0.625"),
        },
    )
    found = billed(
        book,
        [used(invocations=3_000_000, gb_ms=2_500_000.0), used("blog-g", invocations=1)],
        [stored("shop/child", write_operations=2_000_000)],
        [asked(requests=500_000), asked(meter="gateway", requests=7, bytes_out=1 << 29)],
    )
    amounts = {(line.app, line.meter): line.amount for line in found.lines}
    assert amounts["shop", "invocation_million"] == Decimal("0.60")
    assert amounts["shop", "gb_second"] == Decimal("0.025")
    assert amounts["blog", "invocation_million"] == Decimal("0.0000002")
    assert amounts["shop", "document_write_million"] == Decimal("1.25")
    assert amounts["shop", "queue_million"] == Decimal("0.2")
    assert amounts["shop", "gateway_gb"] == Decimal("0.045")
    assert amounts["shop", "gateway_million"] == 0, "not in the book: free"
    assert found.total == Decimal("2.1200002")
    assert found.by_app == {"shop": Decimal("2.12"), "blog": Decimal("0.0000002")}
    assert found.forecast == found.total
    assert found.currency == "CHF"


NUMBER = st.integers(0, 1 << 44)


@given(
    st.lists(st.tuples(st.sampled_from(["shop-a", "shop-b", "x-y"]), NUMBER, NUMBER, NUMBER), max_size=6),
    st.lists(st.tuples(st.sampled_from(["shop", "x/y"]), NUMBER, NUMBER, NUMBER), max_size=4),
    st.lists(st.tuples(st.sampled_from(["shop", ""]), st.sampled_from(["queue", "gateway"]), NUMBER, NUMBER), max_size=6),
    st.dictionaries(
        st.sampled_from(["invocation_million", "gb_second", "egress_gb", "queue_million", "bus_million", "gateway_gb"]),
        st.decimals(0, 10, places=10),
    ),
)
def test_a_bill_equals_the_sum_of_its_parts_to_the_last_digit(
    functions: list[tuple[str, int, int, int]],
    documents: list[tuple[str, int, int, int]],
    requests: list[tuple[str, str, int, int]],
    prices: dict[str, Decimal],
) -> None:
    book = PriceBook(name="x", currency="USD", prices=prices)
    rows = [used(name, invocations=a, gb_ms=b / 1024, egress_bytes_out=c) for name, a, b, c in functions]
    kept = [stored(name, read_operations=a, write_operations=b, storage_bytes=c) for name, a, b, c in documents]
    told = [asked(app, meter, count, size) for app, meter, count, size in requests]
    found = billed(book, rows, kept, told)
    assert Fraction(found.total) == sum((Fraction(line.amount) for line in found.lines), Fraction(0))
    assert Fraction(found.total) == sum(map(Fraction, found.by_app.values()), Fraction(0))
    exact = Fraction(0)
    price = {name: Fraction(value) for name, value in prices.items()}
    for row in rows:
        exact += Fraction(row.invocations, 1_000_000) * price.get("invocation_million", 0)
        exact += Fraction(row.gb_ms) / 1000 * price.get("gb_second", 0)
        exact += Fraction(row.egress_bytes_out, 1 << 30) * price.get("egress_gb", 0)
    for one in told:
        if one.meter != "gateway":
            exact += Fraction(one.requests, 1_000_000) * price.get(f"{one.meter}_million", 0)
        exact += Fraction(one.bytes_out, 1 << 30) * price.get("gateway_gb", 0)
    assert abs(Fraction(found.total) - exact) <= Fraction(1, 10**40)
    apart = [billed(book, [row], [], []).total for row in rows] + [billed(book, [], [], [one]).total for one in told]
    apart += [billed(book, [], [one], []).total for one in kept]
    assert abs(Fraction(found.total) - sum(map(Fraction, apart), Fraction(0))) <= Fraction(1, 10**40)


def test_other_months_are_left_out_and_a_month_under_way_is_forecast() -> None:
    book = open_book("list")
    before, after = used(hour_ms=NOVEMBER[1] - 3_600_000, invocations=9), used(hour_ms=NOVEMBER[2], invocations=9)
    third = NOVEMBER[1] + (NOVEMBER[2] - NOVEMBER[1]) // 3
    found = billed(book, [before, used(invocations=1_000_000), after], [], [], third)
    assert found.total == Decimal("0.20")
    assert found.forecast == Decimal("0.60")


@pytest.mark.parametrize("text", ["2026-13", "11-2026", "soon", "2026-11-01", "2026-1x", "99999-01"])
def test_months_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="YYYY-MM"):
        month_of(text, 0)


@pytest.mark.parametrize("name", BOOKS)
def test_the_books_that_come_with_it(name: str) -> None:
    book = open_book(name)
    assert book.prices
    assert book.currency == "USD"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prices = 3", "nothing else"),
        ("[prices]\ngold = '1'", "no meter gold"),
        ("[prices]\ngb_second = 0.1", "a price is a text"),
        ("[prices]\ngb_second = '-1'", "a price is a text"),
        ("[prices]\ngb_second = 'NaN'", "a price is a text"),
        ("[prices]\ngb_second = 'much'", "a price is a text"),
        ("currency = 7\n[prices]", "currency"),
        ("discount = 1\n[prices]", "nothing else"),
        ("[prices", "price book"),
    ],
)
def test_price_books_that_are_none_are_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=told):
        open_book(str(file))


def test_a_price_book_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match="/nowhere"):
        open_book("/nowhere/prices.toml")


@pytest.mark.parametrize(
    ("action", "meter"),
    [
        ("sqs:SendMessage", "queue"),
        ("s3:GetObject", "object_read"),
        ("s3:PutObject", "object_write"),
        ("s3:ListBucket", "object_write"),
        ("s3:DeleteObject", None),
        ("events:PutEvents", "bus"),
        ("sns:Publish", "bus"),
        ("sns:CreateTopic", None),
        ("documents:Put", None),
        ("lambda:InvokeFunction", None),
    ],
)
def test_what_a_request_counts_as(action: str, meter: str | None) -> None:
    assert meter_of(action) == meter


async def test_requests_are_counted_by_app_and_kept() -> None:
    clock = ManualClock(HOUR)
    store = Store(MemoryEngine(), clock=clock)
    metering = Metering(store, clock)
    metering.app_of = {"blog-g": "blog"}.get  # type: ignore[assignment]
    for _ in range(5):
        metering.asked("shop", "sqs:SendMessage")
        metering.answered("shop", 1, 100)
        metering.answered("@blog-g:live", 1, 7)
        metering.asked("", "iam:CreateUser")
    await metering.stop()
    found = {(row["app"], row["meter"]): (row["requests"], row["bytes_out"]) for row in metering.request_usage(0, HOUR + 1)}
    assert found == {("shop", "queue"): (5, 0), ("shop", "gateway"): (5, 500), ("blog", "gateway"): (5, 35)}
    traffic = Decimal(500) / (1 << 30) * Decimal("0.09")
    assert metering.bill(prices="list").by_app["shop"] == Decimal("0.000002") + Decimal("0.000005") + traffic
    await store.close()
