"""Metering: the ledger of what was used, exact and durable.

Owns: the sums of every invocation by function, version and hour, of documents by database, of requests by app, and their rows
in the store; price books, bills and budgets. Offers `Metering`, which holds the ledgers (`record` on the hot path, `usage`)
and makes a `Bill`, and `Budgets`. Never: slows an invocation down by more than an addition, waits for the disk in `record`,
counts anything twice, shows what a crash could take back, rounds money before it is shown.
"""

from martlet.metering.budgets import Budget, Budgets
from martlet.metering.documents import DocumentLedger, DocumentUsage
from martlet.metering.ledger import Ledger, UsageRow
from martlet.metering.metering import Metering
from martlet.metering.requests import RequestLedger, RequestUsage

__all__ = [
    "Budget",
    "Budgets",
    "DocumentLedger",
    "DocumentUsage",
    "Ledger",
    "Metering",
    "RequestLedger",
    "RequestUsage",
    "UsageRow",
]
