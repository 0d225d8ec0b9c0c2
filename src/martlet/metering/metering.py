"""The room's face: all ledgers together, and the bill of a month."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec

from martlet.clock import Clock
from martlet.metering.bill import Bill, bill, month_of, open_book
from martlet.metering.documents import DocumentLedger
from martlet.metering.ledger import Ledger
from martlet.metering.requests import Meter, RequestLedger, meter_of
from martlet.store import Store

__all__ = ["Metering"]


class Metering:
    """`functions`, `requests` and, once documents are watched, `documents` are the ledgers. Lives on the event loop.

    `prices`: the price book of bills that name none, see `open_book`; it is read now, so that a faulty one stops the start."""

    def __init__(self, store: Store, clock: Clock, prices: str = "") -> None:
        self._store = store
        self._clock = clock
        self._storage: Callable[[], Iterable[tuple[str, int]]] = tuple
        self._book = open_book(prices)
        self.functions = Ledger(store, clock)
        self.requests = RequestLedger(store, clock)
        self.documents = DocumentLedger(store, clock, lambda: self._storage())
        self.app_of: Callable[[str], str] = lambda function: ""

    def start(self) -> None:
        for ledger in (self.functions, self.requests, self.documents):
            ledger.start()

    async def stop(self) -> None:
        for ledger in (self.functions, self.requests, self.documents):
            await ledger.stop()

    def watch_storage(self, storage: Callable[[], Iterable[tuple[str, int]]]) -> None:
        """`storage` yields (database, bytes of its documents)."""
        self._storage = storage

    def answered(self, app: str, requests: int, bytes_out: int) -> None:
        """The gateway answered for an app, or for "@" and a function."""
        if app.startswith("@"):
            app = self.app_of(app[1:].partition(":")[0])
        self.requests.count(app, "gateway", requests=requests, bytes_out=bytes_out)

    def asked(self, app: str, action: str) -> None:
        """A request for this action was served."""
        meter: Meter | None = meter_of(action)
        if meter is not None:
            self.requests.count(app, meter)

    def usage(self, since_ms: int, until_ms: int) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(row) for row in self.functions.usage(since_ms=since_ms, until_ms=until_ms)]

    def request_usage(self, since_ms: int, until_ms: int) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(row) for row in self.requests.usage(since_ms, until_ms)]

    def document_usage(self, since_ms: int, until_ms: int) -> list[dict[str, Any]]:
        self.documents.sample()
        return [msgspec.to_builtins(row) for row in self.documents.usage(since_ms, until_ms)]

    def cost(self, app: str, since_ms: int, until_ms: int) -> Decimal:
        """What an app used in these hours, by the platform's price book."""
        name, since, until = "", since_ms, until_ms
        found = bill(
            self._book,
            (name, since, until),
            until,
            functions=self.functions.usage(since_ms=since, until_ms=until),
            documents=self.documents.usage(since, until),
            requests=self.requests.usage(since, until),
            app_of=self.app_of,
        )
        return found.by_app.get(app, Decimal(0))

    def bill(self, month: str = "", prices: str = "") -> Bill:
        """The bill of a month ("2026-11", "": the present one) by a price book. Raises `InvalidInput`."""
        now = self._clock.now_ms()
        book, period = open_book(prices) if prices else self._book, month_of(month, now)
        _, since, until = period
        return bill(
            book,
            period,
            now,
            functions=self.functions.usage(since_ms=since, until_ms=until),
            documents=self.documents.usage(since, until),
            requests=self.requests.usage(since, until),
            app_of=self.app_of,
        )
