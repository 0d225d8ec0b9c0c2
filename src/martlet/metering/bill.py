"""From sums of use to money: pure, exact (decimal, never rounded before it is shown), each line a quantity times a price."""

from __future__ import annotations

import calendar
import tomllib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Final

import msgspec

from martlet.errors import InvalidInput
from martlet.metering.documents import DocumentUsage
from martlet.metering.ledger import UsageRow
from martlet.metering.requests import RequestUsage

__all__ = ["BOOKS", "Bill", "Line", "PriceBook", "bill", "month_of", "open_book"]

BOOKS: Final = ("own", "list")
_DIGITS: Final = 60  # what is divided by powers of two and ten stays exact
_MILLION: Final = Decimal(1_000_000)
_GB: Final = Decimal(1 << 30)
_HOURS_OF_A_MONTH: Final = Decimal(730)
_METERS: Final = (
    *("invocation_million", "gb_second", "cpu_second", "gateway_million", "gateway_gb", "egress_gb"),
    *("document_read_million", "document_write_million", "document_compute_million", "document_storage_gb_month"),
    *("queue_million", "bus_million", "object_write_million", "object_read_million"),
)
_BY_REQUEST: Final = {
    "gateway": "gateway_million",
    "queue": "queue_million",
    "bus": "bus_million",
    "object_read": "object_read_million",
    "object_write": "object_write_million",
}


class PriceBook(msgspec.Struct, frozen=True, kw_only=True):
    """Prices by meter, in `currency`. What is not there is free."""

    name: str
    currency: str
    prices: dict[str, Decimal]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`quantity` × `price` = `amount`, exactly."""

    app: str
    function: str  # "" where it is not a function's
    meter: str
    quantity: Decimal
    price: Decimal
    amount: Decimal


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """One month. `forecast`: what it comes to if it goes on like this; `total` itself once the month is over."""

    month: str
    currency: str
    prices: str
    since_ms: int
    until_ms: int
    lines: tuple[Line, ...]
    by_app: dict[str, Decimal]
    total: Decimal
    forecast: Decimal


def open_book(name: str) -> PriceBook:
    """A price book: "own" (the default), "list", or the path of a TOML file of their form. Raises `InvalidInput` by name."""
    name = name or "own"
    path = Path(__file__).with_name(f"{name}.toml") if name in BOOKS else Path(name)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"price book {name}: {error}", remedy=f"give {' or '.join(BOOKS)}, or a file like them") from error
    given = found.get("prices", {})
    if not isinstance(given, dict) or set(found) - {"currency", "prices"}:
        raise InvalidInput(f"price book {name}: it has `currency` and the table [prices], nothing else")
    prices: dict[str, Decimal] = {}
    for meter, price in given.items():
        if meter not in _METERS:
            raise InvalidInput(f"price book {name}: there is no meter {meter}", remedy=f"there are {', '.join(_METERS)}")
        prices[meter] = _price(name, meter, price)
    currency = found.get("currency", "USD")
    if not isinstance(currency, str) or not 1 <= len(currency) <= 8:
        raise InvalidInput(f"price book {name}: currency is a text such as USD")
    return PriceBook(name=name, currency=currency, prices=prices)


def _price(book: str, meter: str, given: object) -> Decimal:
    """Prices are texts: a float would not be what was written."""
    try:
        price = Decimal(str(given)) if isinstance(given, str | int) and not isinstance(given, bool) else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite() or price < 0:
        raise InvalidInput(f'price book {book}: {meter} is {given!r}; a price is a text such as "0.20"')
    return price


def month_of(text: str, now_ms: int) -> tuple[str, int, int]:
    """("2026-11", its first ms, the first ms after it, UTC); "" is the present one. Raises `InvalidInput`."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    try:
        begin = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC) if text else datetime(now.year, now.month, 1, tzinfo=UTC)
        days = calendar.monthrange(begin.year, begin.month)[1]
        since = int(begin.timestamp()) * 1000
    except (ValueError, OverflowError):
        raise InvalidInput(f"a month is YYYY-MM, got {text[:40]!r}", field="month") from None
    return begin.strftime("%Y-%m"), since, since + days * 86_400_000


def bill(
    book: PriceBook,
    month: tuple[str, int, int],
    now_ms: int,
    *,
    functions: Iterable[UsageRow],
    documents: Iterable[DocumentUsage],
    requests: Iterable[RequestUsage],
    app_of: Callable[[str], str],
) -> Bill:
    """The bill of what these rows say; rows of other months are left out. `app_of`: the app of a function."""
    with localcontext(prec=_DIGITS):
        return _billed(book, month, now_ms, functions, documents, requests, app_of)


def _billed(
    book: PriceBook,
    month: tuple[str, int, int],
    now_ms: int,
    functions: Iterable[UsageRow],
    documents: Iterable[DocumentUsage],
    requests: Iterable[RequestUsage],
    app_of: Callable[[str], str],
) -> Bill:
    name, since, until = month
    quantities: dict[tuple[str, str, str], Decimal] = {}

    def add(app: str, function: str, meter: str, quantity: Decimal) -> None:
        if quantity:
            key = (app, function, meter)
            quantities[key] = quantities.get(key, Decimal(0)) + quantity

    for row in functions:
        if since <= row.hour_ms < until:
            _of_function(row, app_of(row.function), add)
    for used in documents:
        if since <= used.hour_ms < until:
            _of_documents(used, add)
    for asked in requests:
        if since <= asked.hour_ms < until:
            add(asked.app, "", _BY_REQUEST[asked.meter], asked.requests / _MILLION)
            add(asked.app, "", "gateway_gb", asked.bytes_out / _GB)
    lines = tuple(_line(book, key, quantity) for key, quantity in sorted(quantities.items()))
    by_app: dict[str, Decimal] = {}
    for line in lines:
        by_app[line.app] = by_app.get(line.app, Decimal(0)) + line.amount
    total = sum((line.amount for line in lines), Decimal(0))
    elapsed = min(max(now_ms, since + 1), until) - since
    return Bill(
        month=name,
        currency=book.currency,
        prices=book.name,
        since_ms=since,
        until_ms=until,
        lines=lines,
        by_app=by_app,
        total=total,
        forecast=total * (until - since) / elapsed,
    )


def _of_function(row: UsageRow, app: str, add: Callable[[str, str, str, Decimal], None]) -> None:
    add(app, row.function, "invocation_million", row.invocations / _MILLION)
    # The ledger sums MB × ms; 1 GB = 1024 MB, so this is exact.
    add(app, row.function, "gb_second", Decimal(int(row.gb_ms * 1024)) / 1024 / 1000)
    add(app, row.function, "cpu_second", Decimal(row.cpu_ms) / 1000)
    add(app, row.function, "egress_gb", (row.egress_bytes_out + row.egress_bytes_in) / _GB)


def _of_documents(used: DocumentUsage, add: Callable[[str, str, str, Decimal], None]) -> None:
    app = used.database.partition("/")[0]
    add(app, "", "document_read_million", used.read_operations / _MILLION)
    add(app, "", "document_write_million", used.write_operations / _MILLION)
    add(app, "", "document_compute_million", used.compute_operations / _MILLION)
    add(app, "", "document_storage_gb_month", used.storage_bytes / _GB / _HOURS_OF_A_MONTH)  # a row is an hour


def _line(book: PriceBook, key: tuple[str, str, str], quantity: Decimal) -> Line:
    app, function, meter = key
    price = book.prices.get(meter, Decimal(0))
    return Line(app=app, function=function, meter=meter, quantity=quantity, price=price, amount=quantity * price)
